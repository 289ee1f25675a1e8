"""Edits: when they compare revisions, and what becomes of the executions that come with them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from tests.testkit.mutants.base import Sound, Store, breaks, holds
from tests.testkit.mutants.editing import as_read

from sched_core import Execution, Job, Settled, Settlement, UndecodableExecution
from sched_core.errors import JobNotFound, RevisionConflict


class Compares(Sound):
    """Base: decides itself whether an edit is compared with what is stored."""

    def compares(self, job: Job, executions: Sequence[Execution], given: int) -> bool:
        raise NotImplementedError

    def read(self, job: Job, executions: Sequence[Execution]) -> Job:
        stored = self.store.row(job.id).read()
        if not isinstance(stored, Job) or self.compares(stored, executions, job.revision):
            return job
        return as_read(job, stored)

    async def replace(self, job: Job, executions: Sequence[Execution] = ()) -> Job:
        return await super().replace(self.read(job, executions), executions)

    async def remove(self, job: Job, executions: Sequence[Execution] = ()) -> None:
        await super().remove(self.read(job, executions), executions)


@breaks("a_refused_edit_writes_nothing")
class ComparesOnlyWithoutExecutions(Compares):
    """The statement for edits that come with executions has no WHERE revision = …."""

    def compares(self, job: Job, executions: Sequence[Execution], given: int) -> bool:
        return not executions


@breaks("a_refused_edit_writes_nothing")
class ComparesOnlyWhatIsFree(Compares):
    """The statement for jobs that are claimed has no WHERE revision = …."""

    def compares(self, job: Job, executions: Sequence[Execution], given: int) -> bool:
        return self.store.rows[job.id].hold is None


@breaks("a_refused_edit_writes_nothing")
class ComparesOnlyWhatIsDue(Compares):
    """Jobs without due_at lie in another table, whose edits compare nothing."""

    def compares(self, job: Job, executions: Sequence[Execution], given: int) -> bool:
        return job.standing.due_at is not None


@breaks("a_refused_edit_writes_nothing")
class RefusesOnlyWhatIsOlder(Compares):
    """WHERE revision <= …: a revision that was never given is accepted."""

    def compares(self, job: Job, executions: Sequence[Execution], given: int) -> bool:
        return given <= job.revision


@breaks("a_settlement_refuses_older_edits")
class RemovalsOnlyKnowEdits(Compares):
    """A settlement moves no revision that edits compare with."""

    def compares(self, job: Job, executions: Sequence[Execution], given: int) -> bool:
        return job.standing.last_finished_at is None


@breaks("a_refused_edit_writes_nothing")
class ExecutionsFirst(Sound):
    """Replace writes its executions and then compares, in two steps."""

    async def replace(self, job: Job, executions: Sequence[Execution] = ()) -> Job:
        row = self.store.row(job.id)
        if row.hold is None:
            self.store.write(executions)
        return await super().replace(job, executions)


@breaks("a_refused_edit_writes_nothing")
class ExecutionsOfARemovalFirst(Sound):
    """Remove writes its executions and then compares, in two steps."""

    async def remove(self, job: Job, executions: Sequence[Execution] = ()) -> None:
        row = self.store.row(job.id)
        if row.job is not None and row.hold is None:
            self.store.write(executions)
        await super().remove(job, executions)


@breaks("a_refused_edit_writes_nothing")
class ARefusedEditFrees(Sound):
    """Replace takes the hold away to write, and does not give it back where it is refused."""

    async def replace(self, job: Job, executions: Sequence[Execution] = ()) -> Job:
        row = self.store.row(job.id)
        try:
            return await super().replace(job, executions)
        except RevisionConflict:
            row.hold = None
            self.store.save(job.id, row)
            raise


@breaks("removing_what_is_gone_writes_nothing")
class RemovalOfNothingWrites(Sound):
    """Remove writes its executions whether or not there was a job."""

    async def remove(self, job: Job, executions: Sequence[Execution] = ()) -> None:
        try:
            await super().remove(job, executions)
        except JobNotFound:
            self.store.write(executions)
            raise


@breaks("removing_what_is_gone_writes_nothing")
class RemovalOfNothingConflicts(Sound):
    """Remove finds no row with the expected revision, and takes that for a conflict."""

    async def remove(self, job: Job, executions: Sequence[Execution] = ()) -> None:
        try:
            await super().remove(job, executions)
        except JobNotFound:
            raise RevisionConflict(job.id) from None


@breaks("an_edit_leaves_the_running_occurrence_to_its_claim")
class RemovalWritesTheEndOfARun(Sound):
    """Remove writes the execution of the occurrence that is running."""

    async def remove(self, job: Job, executions: Sequence[Execution] = ()) -> None:
        await super().remove(job, executions)
        self.store.write(executions)


@breaks("an_edit_leaves_the_running_occurrence_to_its_claim")
class EditsOfTheClaimedWriteNothing(Sound):
    """While a job is claimed none of an edit's executions is written, whatever it is about."""

    async def replace(self, job: Job, executions: Sequence[Execution] = ()) -> Job:
        held = self.store.row(job.id).hold is not None
        return await super().replace(job, () if held else executions)


@breaks("an_edit_leaves_the_running_occurrence_to_its_claim")
class TheRunningOneIsTheStoredOne(Sound):
    """An edit leaves out executions about what is stored, not those about what is claimed."""

    async def replace(self, job: Job, executions: Sequence[Execution] = ()) -> Job:
        row = self.store.row(job.id)
        one = row.job.standing.scheduled if isinstance(row.job, Job) else None
        if row.hold is None or one is None:
            return await super().replace(job, executions)
        replaced = await super().replace(job)
        self.store.write([each for each in executions if each.number != one.number])
        return replaced


class Upserts(Store):
    """An execution that is there already is written over."""

    def append(self, execution: Execution | UndecodableExecution) -> None:
        for index, (position, other) in enumerate(self.history):
            if other.id == execution.id:
                self.history[index] = (position, execution)
                return
        super().append(execution)


@breaks("a_stored_execution_is_passed_over")
class WritesOver(Sound):
    """Executions are upserted: what was written first is replaced by what comes later."""

    makes = Upserts


@breaks("a_stored_execution_is_passed_over")
class SettlesOnlyWithNewExecutions(Sound):
    """A settlement is refused where one of its executions is stored already."""

    def _settle(self, settlement: Settlement, now: datetime) -> Settled:
        row = self.store.row(settlement.claim.job.id)
        known = any(
            self.store.stored(execution.id) is not None for execution in settlement.executions
        )
        if known and holds(row, settlement.claim):
            return Settled("conflict", row.job if isinstance(row.job, Job) else None)
        return super()._settle(settlement, now)
