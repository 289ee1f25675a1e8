"""What shows only when several calls come together: the model beside the backend says so."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from attrs import evolve
from tests.testkit.mutants.base import LEASE, Sound, WritesOtherwise, breaks
from tests.testkit.mutants.cascades import ASecondRemovalDropsTheHold

from sched_core import (
    Claim,
    Execution,
    ExecutionQuery,
    Job,
    Page,
    Settled,
    Settlement,
    Status,
    UndecodableExecution,
)

the_model = breaks("the_model_agrees")


@the_model
class RemovedTwiceRunsTwice(ASecondRemovalDropsTheHold):
    """Removing an id that is removed already deletes what is left, the hold included."""


@the_model
class FailuresAddUp(Sound):
    """A settlement of the same occurrence adds to the stored attempts what it says they are."""

    def _settle(self, settlement: Settlement) -> Settled:
        stored, standing = self.store.row(settlement.claim.job.id).job, settlement.standing
        if isinstance(stored, Job) and standing is not None:
            before = stored.standing
            if before.number == standing.number and before.attempts and standing.attempts:
                more = evolve(standing, attempts=before.attempts + standing.attempts)
                settlement = evolve(settlement, standing=more)
        return super()._settle(settlement)


@the_model
class RenewingRevives(Sound):
    """A settled claim that is renewed before anybody else has one is held again."""

    async def renew(self, claims: Sequence[Claim]) -> Sequence[Claim]:
        for claim in claims:
            row = self.store.rows.get(claim.job.id)
            ended = (claim.token, claim.worker)
            if row is not None and row.hold is None and row.job == claim.job != row.ended == ended:
                row.hold = claim
        return await super().renew(claims)


@the_model
class HoldsFollowEdits(Sound):
    """The hold keeps the stored job and not the claimed one: its executions are those of the edit."""

    async def replace(self, job: Job, history: Sequence[Execution] = ()) -> Job:
        stored = await super().replace(job, history)
        row = self.store.rows[job.id]
        if row.hold is not None and row.hold.job.standing.number == stored.standing.number:
            row.hold = evolve(row.hold, job=stored)
        return stored


@the_model
class RepeatsTellWhatWasAdded(Sound):
    """A repeated add answers with what it was given, though it was edited meanwhile."""

    def _add(self, job: Job) -> Job:
        stored = super()._add(job)
        return evolve(job, revision=stored.revision)


@the_model
class RepeatsUndoEdits(Sound):
    """A repeated add of an edited job writes it once more, as it was."""

    def _add(self, job: Job) -> Job:
        row = self.store.row(job.id)
        if row.job is not None and row.job.standing != job.standing:
            row.job = evolve(job, revision=self.store.next_serial())
        return super()._add(job)


@the_model
class NoRevisionIsAnyRevision(Sound):
    """A settlement that expects no revision is taken for one that does not care."""

    def _settle(self, settlement: Settlement) -> Settled:
        stored = self.store.row(settlement.claim.job.id).job
        if isinstance(stored, Job) and settlement.expected is None:
            settlement = evolve(settlement, expected=stored.revision)
        return super()._settle(settlement)


@the_model
class RemovalOfHeldComparesNothing(Sound):
    """The removal of a held job only sets a mark, whatever revision was expected."""

    async def remove(
        self, job_id: str, history: Sequence[Execution] = (), *, expected: int | None = None
    ) -> bool:
        held = self.store.row(job_id).hold is not None
        return await super().remove(job_id, history, expected=None if held else expected)


@the_model
class EditOfHeldComparesNothing(Sound):
    """The edit of a held job waits in a place of its own, whatever revision it was made of."""

    async def replace(self, job: Job, history: Sequence[Execution] = ()) -> Job:
        row = self.store.row(job.id)
        if row.hold is not None and row.job is not None:
            job = evolve(job, revision=row.job.revision)
        return await super().replace(job, history)


@the_model
class NoLinesBesideARun(Sound):
    """While a job is held, an edit writes no executions at all, of other occurrences either."""

    async def replace(self, job: Job, history: Sequence[Execution] = ()) -> Job:
        held = self.store.row(job.id).hold is not None
        return await super().replace(job, () if held else history)


@the_model
class LostClaimsIgnoreThePutOff(Sound):
    """A lost claim is taken over at the end of its lease, though the job was put off since."""

    async def claim_due(self, limit: int) -> Sequence[Claim]:
        now, store = self._now(), self.store
        lost: list[Claim] = []
        for job_id, row in list(store.rows.items()):
            hold = row.hold
            if hold is None or row.job is None or hold.expires_at > now or len(lost) == limit:
                continue
            if row.due() is None or row.due() > now:
                claim = row.claim(store.next_serial(), self._worker, now, now + LEASE, store)
                store.save(job_id, row)
                lost.append(claim)
        return [*lost, *await super().claim_due(limit - len(lost))]


@the_model
class ReleaseLeavesTombstones(Sound):
    """Releasing the claim of a removed job writes its execution, and leaves what held it."""

    async def release(self, claims: Sequence[Claim]) -> None:
        held = {claim.job.id: self.store.row(claim.job.id).hold for claim in claims}
        await super().release(claims)
        for job_id, hold in held.items():
            if hold is not None and job_id not in self.store.rows:
                row = self.store.row(job_id)
                row.hold = hold
                self.store.save(job_id, row)


@the_model
class ConflictsFree(Sound):
    """A settlement with a second final execution is refused, and its claim ends all the same."""

    def _settle(self, settlement: Settlement) -> Settled:
        settled = super()._settle(settlement)
        row = self.store.row(settlement.claim.job.id)
        if (
            settled.outcome == "conflict"
            and settlement.standing is not None
            and isinstance(row.job, Job)
            and row.job.revision == settlement.expected
        ):
            row.hold = None
            self.store.save(settlement.claim.job.id, row)
        return settled


@the_model
class LostLinesAreKeptForEver(Sound):
    """What a takeover writes does not expire, whatever the job's policy says."""

    class makes(WritesOtherwise):  # noqa: N801 -- the attribute that it overrides
        """Its store."""

        def change(self, execution: Execution) -> Execution:
            own = execution.status in {Status.ABANDONED, Status.SUPERSEDED} and execution.started_at is None
            return evolve(execution, expires_at=None) if own else execution


@the_model
class LinesOfOneMomentByName(Sound):
    """The history is sorted by when executions ended, and those of one moment by their ids."""

    async def executions(
        self, query: ExecutionQuery, *, after: str | None, limit: int
    ) -> Page[Execution | UndecodableExecution]:
        self._now()
        found = [execution for execution in self.store.readable() if query.matches(execution)]
        found.sort(key=_by_end, reverse=True)
        if after is not None:
            found = [execution for execution in found if repr(_by_end(execution)) < after]
        last = repr(_by_end(found[limit - 1])) if len(found) > limit else None
        return Page(found[:limit], last)


def _by_end(execution: Execution) -> tuple[datetime, str]:
    return execution.finished_at, execution.id


@the_model
class PruneClearsTheRemoved(Sound):
    """Prune deletes what is left of removed jobs whose claims have run out, without their executions."""

    async def prune(self, before: datetime) -> int:
        now = self._now()
        for job_id, row in list(self.store.rows.items()):
            if row.job is None and row.hold is not None and row.hold.expires_at <= now:
                del self.store.rows[job_id]
        return await super().prune(before)


@the_model
class AddClearsTheRemoved(Sound):
    """An id that was removed while claimed is added without its hold once the lease is over."""

    def _add(self, job: Job) -> Job:
        row = self.store.row(job.id)
        if row.job is None and row.hold is not None and row.hold.expires_at <= self._now():
            row.hold = None
        return super()._add(job)


@the_model
class ReleasedClaimsSettle(Sound):
    """A claim that was released can be settled until somebody else has one."""

    released: Any = None

    async def release(self, claims: Sequence[Claim]) -> None:
        known = self.store.__dict__.setdefault("set_free", {})
        held = {claim.job.id: self.store.row(claim.job.id).hold for claim in claims}
        await super().release(claims)
        known.update({job_id: hold for job_id, hold in held.items() if hold is not None})

    def _settle(self, settlement: Settlement) -> Settled:
        claim, known = settlement.claim, self.store.__dict__.setdefault("set_free", {})
        row, freed = self.store.row(claim.job.id), known.get(claim.job.id)
        free = row.hold is None and row.job is not None
        if free and freed is not None and freed.token == claim.token:
            row.hold = freed
            self.store.save(claim.job.id, row)
        return super()._settle(settlement)


@the_model
class EveryReleaseIsALoss(Sound):
    """What a released takeover had lost is counted once more at the next claim."""

    async def claim_due(self, limit: int) -> Sequence[Claim]:
        freed = {job_id for job_id, row in self.store.rows.items() if row.released is not None}
        claims = []
        for claim in await super().claim_due(limit):
            lost, told = claim.lost, claim
            if claim.job.id in freed and lost is not None and lost.count > 1:
                told = evolve(claim, lost=evolve(lost, count=lost.count + 1))
            self.store.rows[claim.job.id].hold = told
            claims.append(told)
        return claims


@the_model
class OneFinalLineForEachCall(Sound):
    """A settlement's other final executions are dropped: one occurrence, one final execution."""

    def _settle(self, settlement: Settlement) -> Settled:
        own = settlement.claim.job.standing.number
        executions = [execution for execution in settlement.executions if execution.number == own or not execution.final]
        if settlement.standing is not None and settlement.standing.due_at is None:
            settlement = evolve(settlement, executions=tuple(executions))
        return super()._settle(settlement)


@the_model
class SettlesTheFirstOnly(Sound):
    """Of settlements of one worker that are for one job, a repeat in another batch is refused."""

    def _settle(self, settlement: Settlement) -> Settled:
        known = self.store.row(settlement.claim.job.id)
        settled = super()._settle(settlement)
        again = known.hold is not None and known.hold.worker == settlement.claim.worker
        fresh = known.hold is None or known.hold.token != settlement.claim.token
        return Settled("claim_lost") if again and fresh else settled


@the_model
class RenewsFromWhereItEnded(Sound):
    """A lease that has ended is renewed from its end on, and not from now."""

    async def renew(self, claims: Sequence[Claim]) -> Sequence[Claim]:
        ends = {claim.job.id: self.store.row(claim.job.id).hold for claim in claims}
        renewed = []
        for claim in await super().renew(claims):
            ended = ends[claim.job.id].expires_at
            late = evolve(claim, expires_at=max(ended + LEASE, self._now()))
            row = self.store.rows[claim.job.id]
            row.hold = late if ended < self._now() else claim
            self.store.save(claim.job.id, row)
            renewed.append(row.hold)
        return renewed


@the_model
class ReopeningForgetsWhatWasFreed(Sound):
    """What a released takeover had lost is known to the instance that released it only."""

    async def claim_due(self, limit: int) -> Sequence[Claim]:
        for row in self.store.rows.values():
            if row.released is not None and row.released.worker != self._worker:
                row.released = None
        return await super().claim_due(limit)
