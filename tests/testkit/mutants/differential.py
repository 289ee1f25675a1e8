"""What shows only when several calls come together: the model says so."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from attrs import evolve
from tests.testkit.mutants.base import LEASE, Sound, WritesOtherwise, breaks
from tests.testkit.mutants.cascades import ASecondRemovalDropsTheHold
from tests.testkit.mutants.editing import as_read

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
from sched_core.row import held

the_model = breaks("the_model_agrees")


@the_model
class RemovedTwiceRunsTwice(ASecondRemovalDropsTheHold):
    """Removing an id that is removed already deletes what is left, the hold included."""


@the_model
class FailuresAddUp(Sound):
    """A settlement of the same occurrence adds to the stored attempts what it says they are."""

    def _settle(self, settlement: Settlement, now: datetime) -> Settled:
        stored, standing = self.store.row(settlement.claim.job.id).job, settlement.standing
        if isinstance(stored, Job) and standing is not None:
            before, after = stored.standing.scheduled, standing.scheduled
            same = before and after and before.number == after.number
            if before and after and same and before.attempts and after.attempts:
                more = evolve(after, attempts=before.attempts + after.attempts)
                settlement = evolve(settlement, standing=evolve(standing, scheduled=more))
        return super()._settle(settlement, now)


class RenewingRevives(Sound):
    """A settled claim that is renewed before anybody else has one is held again."""

    async def extend(self, claims: Sequence[Claim]) -> Sequence[Claim]:
        for claim in claims:
            row = self.store.rows.get(claim.job.id)
            ended = (claim.token, claim.worker)
            if row is not None and row.hold is None and row.job == claim.job != row.ended == ended:
                one = claim.job.standing.scheduled
                row.hold = held(claim.job, one, *ended, self._now(), LEASE)
        return await super().extend(claims)


@the_model
class HoldsFollowEdits(Sound):
    """The hold keeps what the job's policy says now, and not what it said at the claim."""

    async def replace(self, job: Job, executions: Sequence[Execution] = ()) -> Job:
        stored = await super().replace(job, executions)
        row, keep = self.store.rows[job.id], job.spec.policy.keep_executions
        if row.hold is not None and isinstance(keep, timedelta):
            row.hold = evolve(row.hold, keep=keep)
        return stored


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

    def _settle(self, settlement: Settlement, now: datetime) -> Settled:
        stored = self.store.row(settlement.claim.job.id).job
        if isinstance(stored, Job) and settlement.expected is None:
            settlement = evolve(settlement, expected=stored.revision)
        return super()._settle(settlement, now)


@the_model
class RemovalOfHeldComparesNothing(Sound):
    """The removal of a held job only sets a mark, whatever it was decided on."""

    async def remove(self, job: Job, executions: Sequence[Execution] = ()) -> None:
        stored = self.store.row(job.id).read()
        if isinstance(stored, Job) and stored.held is not None:
            job = as_read(job, stored)
        await super().remove(job, executions)


@the_model
class EditOfHeldComparesNothing(Sound):
    """The edit of a held job waits in a place of its own, whatever it was made of."""

    async def replace(self, job: Job, executions: Sequence[Execution] = ()) -> Job:
        stored = self.store.row(job.id).read()
        if isinstance(stored, Job) and stored.held is not None:
            job = as_read(job, stored)
        return await super().replace(job, executions)


class NothingWrittenBesideARun(Sound):
    """While a job is held, an edit writes no executions at all, of other occurrences either."""

    async def replace(self, job: Job, executions: Sequence[Execution] = ()) -> Job:
        held = self.store.row(job.id).hold is not None
        return await super().replace(job, () if held else executions)


@the_model
class LostClaimsForgetThePutOff(Sound):
    """A lost claim is due again after its wait, though an edit has put it off for longer."""

    async def hand_out(self, limit: int) -> Sequence[Claim]:
        now, claims = self._now(), [*await super().hand_out(limit)]
        for row in self.store.rows.values():
            one = row.job.standing.scheduled if isinstance(row.job, Job) else None
            soon = now + timedelta(seconds=1)
            if one is not None and one.lost and one.due_at > soon and row.job.standing.due_at:
                early = evolve(row.job.standing, scheduled=evolve(one, due_at=soon), due_at=soon)
                row.job = evolve(row.job, standing=early)
        return claims


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
    """A settlement that may not end what is pending is refused, and its claim ends all the same."""

    def _settle(self, settlement: Settlement, now: datetime) -> Settled:
        settled = super()._settle(settlement, now)
        row = self.store.row(settlement.claim.job.id)
        if settled.outcome == "conflict" and settlement.standing is None and row.job is not None:
            row.hold = None
            self.store.save(settlement.claim.job.id, row)
        return settled


class LostExecutionsAreKeptForEver(Sound):
    """What a lost claim leaves does not expire, whatever the job's policy says."""

    class makes(WritesOtherwise):  # noqa: N801 -- the attribute that it overrides
        """Its store."""

        def change(self, execution: Execution) -> Execution:
            own = (
                execution.status in {Status.ABANDONED, Status.SUPERSEDED}
                and execution.started_at is None
            )
            return evolve(execution, expires_at=None) if own else execution


@the_model
class OfOneMomentByName(Sound):
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
    """Prune deletes what is left of removed jobs whose claims have run out, and tells no worker."""

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
    """A claim that was released can be settled until another worker has one."""

    released: Any = None

    async def release(self, claims: Sequence[Claim]) -> None:
        known = self.store.__dict__.setdefault("set_free", {})
        held = {claim.job.id: self.store.row(claim.job.id).hold for claim in claims}
        await super().release(claims)
        known.update({job_id: hold for job_id, hold in held.items() if hold is not None})

    def _settle(self, settlement: Settlement, now: datetime) -> Settled:
        claim, known = settlement.claim, self.store.__dict__.setdefault("set_free", {})
        row, freed = self.store.row(claim.job.id), known.get(claim.job.id)
        free = row.hold is None and row.job is not None
        if free and freed is not None and freed.token == claim.token:
            row.hold = freed
            self.store.save(claim.job.id, row)
        return super()._settle(settlement, now)


@the_model
class OneEndForEachCall(Sound):
    """A settlement's other final executions are dropped: one occurrence, one final execution."""

    def _settle(self, settlement: Settlement, now: datetime) -> Settled:
        own = {each.number for each in settlement.executions[:1]}
        executions = [
            execution
            for execution in settlement.executions
            if execution.number in own or not execution.final
        ]
        if settlement.standing is not None and settlement.standing.due_at is None:
            settlement = evolve(settlement, executions=tuple(executions))
        return super()._settle(settlement, now)


@the_model
class SettlesTheFirstOnly(Sound):
    """A repeat in another batch is refused, among settlements of one worker for one job."""

    def _settle(self, settlement: Settlement, now: datetime) -> Settled:
        known = self.store.row(settlement.claim.job.id)
        settled = super()._settle(settlement, now)
        again = known.hold is not None and known.hold.worker == settlement.claim.worker
        fresh = known.hold is None or known.hold.token != settlement.claim.token
        return Settled("claim_lost") if again and fresh else settled


@the_model
class RenewsFromWhereItEnded(Sound):
    """A lease that has ended is renewed from its end on, and not from now."""

    async def extend(self, claims: Sequence[Claim]) -> Sequence[Claim]:
        ends = {claim.job.id: self.store.row(claim.job.id).hold for claim in claims}
        renewed = []
        for claim in await super().extend(claims):
            row, ended = self.store.rows[claim.job.id], ends[claim.job.id].expires_at
            late = max(ended + LEASE, self._now()) if ended < self._now() else claim.expires_at
            row.hold = evolve(row.hold, expires_at=late)
            self.store.save(claim.job.id, row)
            renewed.append(evolve(claim, expires_at=late))
        return renewed


@breaks("a_renewal_tells_that_a_run_is_to_be_cancelled")
class CancelsOnlyTheSchedules(Sound):
    """Renew tells of a mark only of the schedule's occurrence, and not of a request."""

    async def extend(self, claims: Sequence[Claim]) -> Sequence[Claim]:
        told = []
        for claim in await super().extend(claims):
            one = self.store.row(claim.job.id).hold.pending
            asked = one is not None and not one.is_scheduled
            told.append(evolve(claim, cancel=False) if asked else claim)
        return told


@the_model
class LapsesLeaveOutRequests(Sound):
    """A lost claim of a request is told as the others, and counts no attempt."""

    async def hand_out(self, limit: int) -> Sequence[Claim]:
        now = self._now()
        before = {
            job_id: (row.hold.pending, row.job)
            for job_id, row in self.store.rows.items()
            if row.hold is not None and row.hold.expires_at <= now and isinstance(row.job, Job)
        }
        claims = [*await super().hand_out(0)]
        for job_id, (one, job) in before.items():
            row = self.store.row(job_id)
            if one is not None and not one.is_scheduled and isinstance(row.job, Job):
                row.job = evolve(row.job, standing=job.standing)
                self.store.save(job_id, row)
        return [*claims, *await super().hand_out(limit)]
