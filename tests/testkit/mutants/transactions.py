"""Jobs that are written in an application's transaction, and not as it says."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any, ClassVar

from attrs import evolve
from tests.testkit.mutants.base import Store, breaks
from tests.testkit.mutants.joined import Connection, Joined, Staged

from sched_core import BackendUnavailable, Execution, Job, JobAlreadyExists, UndecodableExecution


class StagedElsewhere(Joined):
    """Base: what a transaction writes goes another way to the store."""

    stages: ClassVar[type[Staged]]

    def within(self, connection: Any) -> Any:
        if isinstance(connection, Connection) and type(connection.staged) is Staged:
            connection.staged = self.stages(self.store)
        return super().within(connection)


@breaks("what_is_written_within_is_seen_there_alone")
class WritesPastTheTransaction(Joined):
    """Within returns the backend itself: what it writes commits at once."""

    def within(self, connection: Any) -> Any:
        super().within(connection)
        return self


class AddsAtOnce(Staged):
    def save(self, job_id: str, row: Any) -> None:
        if self.store.row(job_id).is_empty():
            self.store.save(job_id, copy.copy(row))
        super().save(job_id, row)


@breaks("what_is_written_within_is_seen_there_alone")
class AddsAreNotInTheTransaction(StagedElsewhere):
    """What is added goes through the backend's own connection, what is edited does not."""

    stages = AddsAtOnce


class ReadsTheStore(Staged):
    def row(self, job_id: str) -> Any:
        return copy.copy(self.store.row(job_id))


@breaks("what_is_written_within_is_seen_there_alone")
class ReadsPastTheTransaction(StagedElsewhere):
    """Writes are buffered until the commit, and not read back within."""

    stages = ReadsTheStore


class KeepsNoLines(Staged):
    def store_all(self) -> None:
        self.keep([])
        super().store_all()


@breaks("a_commit_stores_all_that_was_written_within")
class LinesAreLeftOutOfCommits(StagedElsewhere):
    """Jobs are written in the transaction; their executions have no statement there."""

    stages = KeepsNoLines


class NumbersAnew(Staged):
    def store_all(self) -> None:
        for row in self.rows.values():
            if isinstance(row.job, Job):
                row.job = evolve(row.job, revision=self.store.next_serial())
        super().store_all()


@breaks("a_commit_stores_all_that_was_written_within")
class RevisionsAreGivenAtTheCommit(StagedElsewhere):
    """The revisions that were told within are provisional."""

    stages = NumbersAnew


class WritesLines(Staged):
    def append(self, execution: Execution | UndecodableExecution) -> None:
        self.store.append(execution)


@breaks("a_rollback_leaves_nothing")
class LinesOutliveARollback(StagedElsewhere):
    """The history is written on a connection of its own, as logs are."""

    stages = WritesLines


class Removes(Staged):
    def save(self, job_id: str, row: Any) -> None:
        super().save(job_id, row)
        if row.is_empty():
            self.store.save(job_id, row)


@breaks("a_rollback_leaves_nothing")
class RemovalsOutliveARollback(StagedElsewhere):
    """A removal has no part in the transaction."""

    stages = Removes


@breaks("a_refusal_within_leaves_the_rest")
class ARefusalAbortsTheTransaction(Joined):
    """No savepoint: after a refusal all later calls are refused, too."""

    async def add(self, jobs: Sequence[Job]) -> Sequence[Job]:
        if isinstance(self.store, Staged) and getattr(self.store, "aborted", False):
            raise BackendUnavailable("the transaction is aborted")
        try:
            return await super().add(jobs)
        except JobAlreadyExists:
            if isinstance(self.store, Staged):
                self.store.aborted = True  # type: ignore[attr-defined]  # of this mutant alone
            raise


@breaks("a_refusal_within_leaves_the_rest")
class HalfABatchStaysWithin(Joined):
    """Each job in a transaction of others is added on its own: the rollback is theirs to do."""

    async def add(self, jobs: Sequence[Job]) -> Sequence[Job]:
        if not isinstance(self.store, Staged):
            return await super().add(jobs)
        return [(await super(HalfABatchStaysWithin, self).add([job]))[0] for job in jobs]


class ReadsOnce(Staged):
    def __init__(self, store: Store) -> None:
        super().__init__(store)
        self.read: dict[str, Any] = {}

    def row(self, job_id: str) -> Any:
        if job_id not in self.rows:
            self.read.setdefault(job_id, copy.copy(self.store.row(job_id)))
            return copy.copy(self.read[job_id])
        return super().row(job_id)

    def commit(self) -> None:
        self.store_all()


@breaks("an_edit_within_is_compared_with_what_is_stored")
class ComparesWithItsSnapshot(StagedElsewhere):
    """An edit is compared with what the transaction has read, and not again at the commit."""

    stages = ReadsOnce


class CommitsTheWholeCopy(Staged):
    def __init__(self, store: Store) -> None:
        super().__init__(store)
        self.copied = {job_id: copy.copy(row) for job_id, row in store.rows.items()}

    def store_all(self) -> None:
        for job_id in [*self.store.rows]:
            if job_id not in self.copied:
                self.store.save(job_id, type(self.store.row(job_id))())
        for job_id, row in self.copied.items():
            self.store.save(job_id, row)
        super().store_all()


@breaks("what_others_write_meanwhile_is_kept")
class CommitsAWholeCopy(StagedElsewhere):
    """The transaction is a copy of all jobs, which the commit puts in their place."""

    stages = CommitsTheWholeCopy


@breaks("a_claim_is_kept_by_what_is_written_within")
class EditsWithinFreeTheClaim(Joined):
    """The statement of edits within writes the whole row, and knows nothing of claims."""

    async def replace(self, job: Job, executions: Sequence[Execution] = ()) -> Job:
        replaced = await super().replace(job, executions)
        if isinstance(self.store, Staged):
            row = self.store.row(job.id)
            row.hold = None
            self.store.save(job.id, row)
        return replaced


@breaks("a_claim_is_kept_by_what_is_written_within")
class RemovalsWithinLeaveNoTombstone(Joined):
    """A removal within deletes the row, also of what runs."""

    async def remove(self, job: Job, executions: Sequence[Execution] = ()) -> None:
        await super().remove(job, executions)
        if isinstance(self.store, Staged):
            self.store.save(job.id, type(self.store.row(job.id))())


@breaks("an_edit_within_conflicts_with_a_claim_made_since")
class EditsWithinCompareRevisionsOnly(Joined):
    """The statement of edits within compares revisions, which a claim does not move."""

    async def replace(self, job: Job, executions: Sequence[Execution] = ()) -> Job:
        stored = await self.get(job.id)
        if isinstance(stored, Job) and isinstance(self.store, Staged):
            job = evolve(job, held=stored.held, held_at=stored.held_at)
        return await super().replace(job, executions)


class Quiet(Staged):
    def store_all(self) -> None:
        alarms, self.store.alarms = self.store.alarms, []
        super().store_all()
        self.store.alarms = alarms


@breaks("a_commit_is_notified")
class CommitsWakeNobody(StagedElsewhere):
    """Who writes wakes: an application's commit does not, although that is declared."""

    stages = Quiet


class Unqueued(Staged):
    def store_all(self) -> None:
        for job_id, row in self.rows.items():
            self.store.rows[job_id] = row
        for _, execution in self.history:
            self.store.append(execution)


@breaks("what_was_committed_is_found_by_who_waits")
class CommitsAreNotQueued(StagedElsewhere):
    """What is due is kept in an index of its own, which commits do not write."""

    stages = Unqueued


@breaks("what_is_no_connection_is_refused")
class TakesAnythingForAConnection(Joined):
    """What is no connection is refused when it is first used, if at all."""

    def within(self, connection: Any) -> Any:
        return super().within(connection) if isinstance(connection, Connection) else self
