"""Editing and removing jobs; opening."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from attrs import evolve
from tests.testkit.mutants.base import Sound, breaks

from sched_core import (
    Clock,
    Execution,
    Job,
    Settled,
    Settlement,
    SystemClock,
)


def as_read(job: Job, stored: Job) -> Job:
    """Return an edited job as if it had been made of what is stored."""
    return evolve(
        job,
        uid=stored.uid,
        revision=stored.revision,
        held=stored.held,
        held_at=stored.held_at,
    )


@breaks("revisions_only_grow")
class RevisionsStartAgain(Sound):
    """Revisions count from 1 in each row, so that a re-added job repeats them."""

    def _add(self, job: Job) -> Job:
        known = self.store.row(job.id).job
        stored = super()._add(job)
        return stored if known is not None else self._counted(stored, 1)

    async def replace(self, job: Job, executions: Sequence[Execution] = ()) -> Job:
        return self._counted(await super().replace(job, executions), job.revision + 1)

    def _counted(self, job: Job, revision: int) -> Job:
        row = self.store.rows[job.id]
        row.job = counted = evolve(job, revision=revision)
        return counted


@breaks("revisions_only_grow")
class SettleKeepsTheRevision(Sound):
    """A settlement does not move the revision."""

    def _settle(self, settlement: Settlement, now: datetime) -> Settled:
        settled = super()._settle(settlement, now)
        row = self.store.rows.get(settlement.claim.job.id)
        if row is not None and row.job is not None and settlement.expected is not None:
            row.job = evolve(row.job, revision=settlement.expected)
        return settled


@breaks("replace_is_a_compare_and_set")
class ReplaceComparesNothing(Sound):
    """Replace writes whatever it was decided on: the last one wins."""

    async def replace(self, job: Job, executions: Sequence[Execution] = ()) -> Job:
        stored = await self.get(job.id)
        if isinstance(stored, Job):
            job = as_read(job, stored)
        return await super().replace(job, executions)


@breaks("replacing_what_is_gone_is_not_found")
class ReplaceInserts(Sound):
    """Replace is an upsert, and brings a removed job back."""

    async def replace(self, job: Job, executions: Sequence[Execution] = ()) -> Job:
        if await self.get(job.id) is None:
            return (await self.add([job]))[0]
        return await super().replace(job, executions)


@breaks("a_replacement_is_stored_as_it_was_given")
class ReplaceKeepsTheStanding(Sound):
    """Replace writes the definition only."""

    async def replace(self, job: Job, executions: Sequence[Execution] = ()) -> Job:
        stored = await self.get(job.id)
        if isinstance(stored, Job):
            job = evolve(job, standing=evolve(job.standing, failing=stored.standing.failing))
        return await super().replace(job, executions)


@breaks("a_replacement_is_stored_as_it_was_given")
class ReplaceMergesMetadata(Sound):
    """Replace updates metadata key by key, and removes none."""

    async def replace(self, job: Job, executions: Sequence[Execution] = ()) -> Job:
        stored = await self.get(job.id)
        if isinstance(stored, Job):
            both = {**stored.spec.metadata, **job.spec.metadata}
            job = evolve(job, spec=evolve(job.spec, metadata=both))
        return await super().replace(job, executions)


@breaks("removal_is_a_compare_and_set")
class RemoveComparesNothing(Sound):
    """Remove ignores what it was decided on."""

    async def remove(self, job: Job, executions: Sequence[Execution] = ()) -> None:
        stored = await self.get(job.id)
        await super().remove(as_read(job, stored) if isinstance(stored, Job) else job, executions)


@breaks("an_edit_conflicts_with_a_claim_made_since")
class EditsCompareRevisionsOnly(Sound):
    """Replace compares the revision, which a claim does not move."""

    async def replace(self, job: Job, executions: Sequence[Execution] = ()) -> Job:
        stored = await self.get(job.id)
        if isinstance(stored, Job):
            job = evolve(job, held=stored.held, held_at=stored.held_at)
        return await super().replace(job, executions)


@breaks("an_edit_conflicts_with_a_claim_made_since")
class RemovalsCompareRevisionsOnly(Sound):
    """Remove compares the revision, which a claim does not move."""

    async def remove(self, job: Job, executions: Sequence[Execution] = ()) -> None:
        stored = await self.get(job.id)
        if isinstance(stored, Job):
            job = evolve(job, held=stored.held, held_at=stored.held_at)
        await super().remove(job, executions)


@breaks("an_edit_conflicts_with_a_claim_freed_since")
class EditsOverlookWhatWasFreed(Sound):
    """Replace compares what is held only where something is."""

    async def replace(self, job: Job, executions: Sequence[Execution] = ()) -> Job:
        stored = await self.get(job.id)
        if isinstance(stored, Job) and stored.held is None:
            job = evolve(job, held=None, held_at=None)
        return await super().replace(job, executions)


@breaks("an_edit_conflicts_with_a_claim_freed_since")
class EditsCompareTheHeldNumberOnly(Sound):
    """Replace compares which occurrence is held, and not since when."""

    async def replace(self, job: Job, executions: Sequence[Execution] = ()) -> Job:
        stored = await self.get(job.id)
        if isinstance(stored, Job) and job.held is not None:
            job = evolve(job, held_at=stored.held_at)
        return await super().replace(job, executions)


@breaks("an_edit_conflicts_with_a_lapse")
class EditsPassOverALapse(Sound):
    """Replace accepts the revision before a lapse, and takes back what that has counted."""

    async def replace(self, job: Job, executions: Sequence[Execution] = ()) -> Job:
        stored = await self.get(job.id)
        one = stored.standing.scheduled if isinstance(stored, Job) else None
        if isinstance(stored, Job) and one is not None and one.lost and stored.held is None:
            job = as_read(job, stored)
        return await super().replace(job, executions)


@breaks("executions_of_an_edit_are_written_with_it")
class ReplaceForgetsItsExecutions(Sound):
    """Replace does not write the executions that it is given."""

    async def replace(self, job: Job, executions: Sequence[Execution] = ()) -> Job:
        return await super().replace(job)


@breaks("executions_of_an_edit_are_written_with_it")
class RemoveForgetsItsExecutions(Sound):
    """Remove does not write the executions that it is given."""

    async def remove(self, job: Job, executions: Sequence[Execution] = ()) -> None:
        await super().remove(job)


@breaks("open_returns_the_clock_that_decides")
class OpensWithAnotherClock(Sound):
    """Open returns the machine's clock, whatever it was given."""

    async def open(self, clock: Clock, *, worker: str) -> Clock:
        await super().open(clock, worker=worker)
        return SystemClock()


@breaks("empty_batches_are_accepted")
class ChokesOnNothing(Sound):
    """Settle looks at the first settlement without asking whether there is one."""

    async def settle(self, settlements: Sequence[Settlement]) -> Sequence[Settled]:
        assert settlements[0] is not None
        return await super().settle(settlements)
