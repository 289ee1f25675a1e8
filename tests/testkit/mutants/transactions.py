"""Jobs written in an application's transaction, and handlers' transactions that settle.

They are made of a sound backend whose transactions are a staged copy of what they write: it is read
through to the store, and saved there by the commit.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar

import anyio.from_thread
from attrs import evolve
from tests.testkit.mutants.base import MutantHarness, Sound, Store, breaks, examined_by

from sched_core import (
    BackendUnavailable,
    Claim,
    ClaimLost,
    Execution,
    InvalidDefinition,
    Job,
    JobAlreadyExists,
    RevisionConflict,
    Settlement,
    UndecodableExecution,
)


class Staged(Store):
    """What a transaction has written; the rest is read through to the store."""

    def __init__(self, store: Store) -> None:
        super().__init__()
        self.store = store
        self.met: dict[str, Any] = {}
        """What was stored when the transaction first looked."""

    def next_serial(self) -> int:
        return self.store.next_serial()

    def row(self, job_id: str) -> Any:
        if job_id not in self.rows:
            return copy.copy(self.store.row(job_id))
        return copy.copy(self.rows[job_id])

    def save(self, job_id: str, row: Any) -> None:
        self.met.setdefault(job_id, self.store.row(job_id))
        self.rows[job_id] = row

    def line(self, line_id: str) -> Execution | UndecodableExecution | None:
        return super().line(line_id) or self.store.line(line_id)

    def has_final(self, uid: str, number: int) -> bool:
        return super().has_final(uid, number) or self.store.has_final(uid, number)

    def commit(self) -> None:
        """Store what was written, if nobody else has written there meanwhile."""
        for job_id, met in self.met.items():
            if self.store.rows.get(job_id, met) is not met:
                raise BackendUnavailable(f"{job_id} was written meanwhile")
        self.store_all()

    def store_all(self) -> None:
        """Store what was written."""
        for job_id, row in self.rows.items():
            self.store.save(job_id, row)
        for _, line in self.lines:
            self.store.append(line)


class Connection:
    """An application's connection: with a transaction, and no autocommit."""

    def __init__(self, store: Store) -> None:
        self.staged = Staged(store)


class JoinedHarness(MutantHarness):
    """Examines one with connections of an application's."""

    can_connect = True
    can_cut = can_spoil = can_lock = can_spoil_line = can_refuse_writes = can_make_newer = False

    @contextmanager
    def connect(self, place: Any) -> Iterator[Connection]:
        connection = Connection(place)
        yield connection
        connection.staged.commit()


@examined_by(JoinedHarness)
class Joined(Sound):
    """The sound one."""

    def __init__(self, store: Store) -> None:
        super().__init__(store)
        self._capabilities = evolve(self._capabilities, transactions=True, notified=True)

    def within(self, connection: Any) -> Any:
        """Return the same backend, on what the transaction has written."""
        if not isinstance(connection, Connection):
            raise InvalidDefinition("connection", f"must be a Connection, not {connection!r}")
        view = copy.copy(self)
        view.store = connection.staged
        return view

    def transaction(
        self,
        claim: Claim,
        decide: Callable[[Job | None], Settlement],
        committed: Callable[[Settlement], None],
    ) -> Handlers:
        """Return a handler's transaction."""
        return Handlers(self, claim, decide, committed)

    # -- the end of a handler's transaction, step by step, to be got wrong

    def begun(self, handlers: Handlers) -> None:
        """Called when the block begins."""

    def end(self, handlers: Handlers) -> None:
        """Settle and commit; called without an exception only."""
        self.settle_in(handlers)
        handlers.connection.staged.commit()

    def settle_in(self, handlers: Handlers) -> None:
        """Lock and read the job, ask, and write the settlement into the transaction."""
        claim = handlers.claim
        view = self.within(handlers.connection)
        row = view.store.row(claim.job.id)
        if not row.is_held_by(claim):
            raise ClaimLost(claim.job.id)
        handlers.settlement = handlers.decide(row.job)
        outcome = view._settle(handlers.settlement).outcome
        if outcome == "claim_lost":
            raise ClaimLost(claim.job.id)
        if outcome != "written":
            raise RevisionConflict(claim.job.id)

    def failed(self, handlers: Handlers) -> None:
        """Called when the block has raised, or its end has: nothing is left to do."""


class Handlers:
    """A handler's transaction, in a thread or in the loop."""

    def __init__(
        self,
        backend: Joined,
        claim: Claim,
        decide: Callable[[Job | None], Settlement],
        committed: Callable[[Settlement], None],
    ) -> None:
        self.backend, self.claim, self.decide, self.committed = backend, claim, decide, committed
        self.connection = Connection(backend.store)
        self.settlement: Settlement | None = None

    def _end(self, error: BaseException | None) -> None:
        try:
            if error is None:
                self.backend.end(self)
        except BaseException:
            self.backend.failed(self)
            raise
        if error is not None:
            self.backend.failed(self)

    def __enter__(self) -> Connection:
        anyio.from_thread.run_sync(self.backend.begun, self)
        return self.connection

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        anyio.from_thread.run_sync(self._end, error)
        if self.settlement is not None and error is None:
            self.committed(self.settlement)

    async def __aenter__(self) -> Connection:
        self.backend.begun(self)
        return self.connection

    async def __aexit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        self._end(error)
        if self.settlement is not None and error is None:
            self.committed(self.settlement)


# -- the caller's


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
        self.lines.clear()
        super().store_all()


@breaks("a_commit_stores_all_that_was_written_within")
class LinesAreLeftOutOfCommits(StagedElsewhere):
    """Jobs are written in the transaction; their lines have no statement there."""

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
    def append(self, line: Execution | UndecodableExecution) -> None:
        self.store.append(line)


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
    """In a transaction of others each job is added by itself: the rollback is theirs to do."""

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
    """An edit is compared with what the transaction has read, and nobody looks at the commit."""

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

    async def replace(self, job: Job, ledger: Sequence[Execution] = ()) -> Job:
        replaced = await super().replace(job, ledger)
        if isinstance(self.store, Staged):
            row = self.store.row(job.id)
            row.hold = None
            self.store.save(job.id, row)
        return replaced


@breaks("a_claim_is_kept_by_what_is_written_within")
class RemovalsWithinLeaveNoTombstone(Joined):
    """A removal within deletes the row, also of what runs."""

    async def remove(
        self, job_id: str, ledger: Sequence[Execution] = (), *, expected: int | None = None
    ) -> bool:
        removed = await super().remove(job_id, ledger, expected=expected)
        if removed and isinstance(self.store, Staged):
            self.store.save(job_id, type(self.store.row(job_id))())
        return removed


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
        for _, line in self.lines:
            self.store.append(line)


@breaks("what_was_committed_is_found_by_who_waits")
class CommitsAreNotQueued(StagedElsewhere):
    """What is due is kept in an index of its own, which commits do not write."""

    stages = Unqueued


@breaks("what_is_no_connection_is_refused")
class TakesAnythingForAConnection(Joined):
    """What is no connection is refused when it is first used, if at all."""

    def within(self, connection: Any) -> Any:
        return super().within(connection) if isinstance(connection, Connection) else self
