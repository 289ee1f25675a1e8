"""Takeovers: of one's own claims, of what was put off, in which order, with which executions."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from attrs import evolve
from tests.testkit.mutants.base import Sound, Store, WritesOtherwise, breaks
from tests.testkit.mutants.claiming import ClaimsOtherwise

from sched_core import Claim, Execution, Job, Settled, Settlement, Status
from sched_core.job import execution_expiry
from sched_core.memory import _Row


@breaks("a_worker_takes_over_what_it_lost_itself")
class NeverTakesOverFromItself(Sound):
    """The statement that takes over says: WHERE worker <> me."""

    async def claim_due(self, limit: int) -> Sequence[Claim]:
        own = {
            job_id: row.hold
            for job_id, row in self.store.rows.items()
            if row.hold is not None and row.hold.worker == self._worker
        }
        for job_id, hold in own.items():
            row = self.store.rows[job_id]
            row.hold = evolve(hold, expires_at=datetime.max.replace(tzinfo=hold.expires_at.tzinfo))
            self.store.save(job_id, row)
        claims = await super().claim_due(limit)
        for job_id, hold in own.items():
            self.store.rows[job_id].hold = hold
            self.store.save(job_id, self.store.rows[job_id])
        return claims


@breaks("a_worker_takes_over_what_it_lost_itself")
class GetsItsOwnClaimBack(ClaimsOtherwise):
    """A worker that takes over from itself goes on with the claim that it had, renewed."""

    def change(self, claim: Claim) -> Claim:
        if claim.lost is None or claim.lost.worker != self._worker:
            return claim
        return evolve(claim, token=claim.token - 1, lost=None)


class Lapses(Sound):
    """Base: does something to holds whose lease has ended before it claims."""

    def lapse(self, row: _Row, now: datetime) -> None:
        raise NotImplementedError

    async def claim_due(self, limit: int) -> Sequence[Claim]:
        now = self._now()
        for job_id, row in list(self.store.rows.items()):
            if row.hold is not None and row.hold.expires_at <= now:
                self.lapse(row, now)
                self.store.save(job_id, row)
        return await super().claim_due(limit)


@breaks("what_was_put_off_is_not_taken_over_before_it_is_due")
class EveryEndedLeaseIsTakenOver(Lapses):
    """WHERE due_at <= now OR lease_until <= now: what was put off is handed out with its lease."""

    def lapse(self, row: _Row, now: datetime) -> None:
        if isinstance(row.job, Job) and row.job.standing.due_at is not None:
            row.job = evolve(row.job, standing=evolve(row.job.standing, due_at=now))


@breaks("what_was_paused_is_not_taken_over")
class ThePausedAreTakenOver(Lapses):
    """A lease that has ended is taken over although an edit has left the job without due_at."""

    def lapse(self, row: _Row, now: datetime) -> None:
        if isinstance(row.job, Job) and row.job.standing.due_at is None:
            row.job = evolve(row.job, standing=evolve(row.job.standing, due_at=now))


@breaks("what_was_paused_is_not_taken_over")
class ThePausedLoseTheirHold(Lapses):
    """A sweep deletes the holds whose lease has ended, of what is not due, too."""

    def lapse(self, row: _Row, now: datetime) -> None:
        if isinstance(row.job, Job) and row.job.standing.due_at is None:
            row.hold = None


class AbandonsOtherwise(WritesOtherwise):
    """Base: abandoned executions are written in another way."""

    def abandoned(self, execution: Execution) -> Execution:
        raise NotImplementedError

    def change(self, execution: Execution) -> Execution:
        return self.abandoned(execution) if execution.status is Status.ABANDONED else execution


@breaks("an_abandoned_execution_says_what_was_lost")
class AbandonedForEver(Sound):
    """An abandoned execution is kept for ever, whatever the policy says."""

    class Kept(AbandonsOtherwise):
        def abandoned(self, execution: Execution) -> Execution:
            return evolve(execution, expires_at=None)

    makes = Kept


@breaks("an_abandoned_execution_says_what_was_lost")
class AbandonedAtTheEndOfItsLease(Sound):
    """An abandoned line ends when the claim was made, not when it was taken over."""

    class Earlier(AbandonsOtherwise):
        def abandoned(self, execution: Execution) -> Execution:
            return evolve(execution, finished_at=execution.claimed_at)

    makes = Earlier


@breaks("an_abandoned_execution_says_what_was_lost")
class AbandonedAfterAStart(Sound):
    """An abandoned execution says that the handler was called, which nobody knows."""

    class Started(AbandonsOtherwise):
        def abandoned(self, execution: Execution) -> Execution:
            return evolve(execution, started_at=execution.claimed_at)

    makes = Started


@breaks("a_takeover_of_what_moved_on_ends_it")
class AbandonedByTheNewPolicy(Sound):
    """What a lost claim leaves is kept as the job's policy says now, after an edit."""

    class ByTheStored(WritesOtherwise):
        def change(self, execution: Execution) -> Execution:
            job = self.row(execution.job_id).job
            if execution.started_at is not None or not isinstance(job, Job):
                return execution
            return evolve(execution, expires_at=execution_expiry(job.spec.policy, execution.finished_at))

    makes = ByTheStored


@breaks("a_takeover_of_what_was_added_again_ends_the_old")
class LostClaimsCountByNumber(Sound):
    """Whether a job has moved on is seen by the number, which a new incarnation starts again."""

    async def claim_due(self, limit: int) -> Sequence[Claim]:
        for row in self.store.rows.values():
            if row.hold is not None and isinstance(row.job, Job):
                held = row.hold.job
                if held.uid != row.job.uid and held.standing.number == row.job.standing.number:
                    row.hold = evolve(row.hold, job=evolve(held, uid=row.job.uid))
        return await super().claim_due(limit)


@breaks("a_settled_attempt_starts_the_count_of_lost_ones_again")
class LostCountsUntilTheOccurrenceEnds(ClaimsOtherwise):
    """What was lost of an occurrence is reported until it ends, though it was counted."""

    def change(self, claim: Claim) -> Claim:
        lost = self.store.__dict__.setdefault("lost_of", {})
        key = (claim.job.uid, claim.job.standing.number)
        if claim.lost is not None:
            lost[key] = claim.lost
        return evolve(claim, lost=lost.get(key))


@breaks("an_edit_keeps_what_was_lost")
class EditsForgetWhatWasReleased(Sound):
    """An edit writes the row anew, without what a released takeover had lost."""

    async def replace(self, job: Job, history: Sequence[Execution] = ()) -> Job:
        replaced = await super().replace(job, history)
        self.store.rows[job.id].released = None
        return replaced


@breaks("an_edit_keeps_what_was_lost")
class EditsForgetWhatTheHolderTookOver(Sound):
    """An edit copies token, worker and lease of the hold, and not what it took over."""

    async def replace(self, job: Job, history: Sequence[Execution] = ()) -> Job:
        replaced = await super().replace(job, history)
        row = self.store.rows[job.id]
        if row.hold is not None:
            row.hold = evolve(row.hold, lost=None)
        return replaced


@breaks("lost_claims_come_in_the_order_of_due_at")
class LostClaimsComeByTheirLease(Sound):
    """What was lost is ordered by the end of its lease, behind what became due meanwhile."""

    class ByLease(Store):
        def next_due(self, now: datetime) -> str | None:
            while (held := self.first(self.held)) is not None and held[0] <= now:
                self.due.append(self.held.pop(0))
                self.due.sort()
                self.held.sort()
            due = self.first(self.due)
            return due[1] if due is not None and due[0] <= now else None

    makes = ByLease


@breaks("lost_claims_come_in_the_order_of_due_at")
class LostClaimsComeFirst(Sound):
    """What was lost is taken over before anything else is looked at."""

    async def claim_due(self, limit: int) -> Sequence[Claim]:
        now = self._now()
        for row in self.store.rows.values():
            if row.hold is not None and row.hold.expires_at <= now and isinstance(row.job, Job):
                row.wake = now.replace(year=1)
                self.store.due.insert(0, (row.wake, row.job.id))
        return await super().claim_due(limit)


@breaks("lost_claims_come_in_the_order_of_due_at")
class LostClaimsComeLast(Sound):
    """What is free is claimed first, and what was lost by a second statement."""

    async def claim_due(self, limit: int) -> Sequence[Claim]:
        now = self._now()
        claims: list[Claim] = []
        while len(claims) < limit and (first := self.store.first(self.store.due)) is not None:
            if first[0] > now:
                break
            held, self.store.held = self.store.held, []
            claims += await super().claim_due(1)
            self.store.held = sorted(held + self.store.held)
        return [*claims, *await super().claim_due(limit - len(claims))]


@breaks("a_claim_carries_the_stored_job")
class ClaimsWithoutNameAndGroup(ClaimsOtherwise):
    """The statement that claims reads what a handler needs, and neither name nor group."""

    def change(self, claim: Claim) -> Claim:
        return evolve(
            claim, job=evolve(claim.job, spec=evolve(claim.job.spec, name=None, group=None))
        )


@breaks("a_claim_carries_the_stored_job")
class TakeoversCarryTheClaimedJob(ClaimsOtherwise):
    """A takeover hands out the job as the lost claim had it, not as it is stored."""

    def change(self, claim: Claim) -> Claim:
        jobs = self.store.__dict__.setdefault("claimed", {})
        before = jobs.setdefault(claim.job.uid, claim.job)
        return claim if claim.lost is None else evolve(claim, job=before)


@breaks("a_claim_carries_the_stored_job")
class ConflictsCarryTheClaimedJob(Sound):
    """A conflict answers with the job of the claim, not with the stored one."""

    def _settle(self, settlement: Settlement) -> Settled:
        settled = super()._settle(settlement)
        stale = settled.outcome == "conflict" and settled.job is not None
        return evolve(settled, job=settlement.claim.job) if stale else settled
