"""Takeovers: what the end of a lease counts, writes and tells, and when the job comes again."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from attrs import evolve
from tests.testkit.mutants.base import (
    AFTER,
    Sound,
    WritesOtherwise,
    breaks,
    hold_of,
    job_of,
)
from tests.testkit.mutants.claiming import ClaimsOtherwise

from sched_core import (
    Claim,
    Claimed,
    Execution,
    Hold,
    Job,
    Pending,
    Renewal,
    Room,
    Settled,
    Settlement,
    Status,
)
from sched_core.memory import _Row


@breaks("a_worker_takes_over_what_it_lost_itself")
class NeverTakesOverFromItself(Sound):
    """The statement that takes over says: WHERE worker <> me."""

    async def hand_out(self, limit: int) -> Sequence[Claim]:
        own = {
            job_id: row.hold
            for job_id, row in self.store.rows.items()
            if row.hold is not None and row.hold.worker == self._worker
        }
        for job_id, hold in own.items():
            row = self.store.rows[job_id]
            row.hold = evolve(hold, expires_at=datetime.max.replace(tzinfo=hold.expires_at.tzinfo))
            self.store.save(job_id, row)
        claims = await super().hand_out(limit)
        for job_id, hold in own.items():
            self.store.rows[job_id].hold = hold
            self.store.save(job_id, self.store.rows[job_id])
        return claims


class Lapses(Sound):
    """Base: ends the claims whose lease is over in another way."""

    def ends(self, row: _Row, now: datetime) -> None:
        """Do something to a row before its claim is ended."""

    def ended(self, before: Job, row: _Row, lost: list[Execution]) -> None:
        """Do something to a row after its claim was ended."""

    async def hand_out(self, limit: int) -> Sequence[Claim]:
        now, before = self._now(), dict[str, Job]()
        for job_id, row in list(self.store.rows.items()):
            if row.hold is not None and row.hold.expires_at <= now:
                self.ends(row, now)
                if isinstance(row.job, Job):
                    before[job_id] = row.job
                self.store.save(job_id, row)
        claims = [*await super().hand_out(0)]
        for job_id, job in before.items():
            row = self.store.row(job_id)
            if row.hold is None and isinstance(row.job, Job):
                self.ended(job, row, self.lapsed)
                self.store.save(job_id, row)
        return [*claims, *await super().hand_out(limit)]


def one_of(job: Job) -> Pending:
    """Return the schedule's occurrence, or another one."""
    one = job.standing.scheduled
    assert one is not None
    return one


class CountsOtherwise(Lapses):
    """Base: writes what was lost into the occurrence in another way."""

    def count(self, before: Pending, after: Pending) -> Pending:
        raise NotImplementedError

    def ended(self, before: Job, row: _Row, lost: list[Execution]) -> None:
        job = job_of(row)
        was, now = before.standing.scheduled, job.standing.scheduled
        if was is None or now is None or was.number != now.number or was == now:
            return
        counted = self.count(was, now)
        due_at = None if job.standing.due_at is None else counted.due_at
        standing = evolve(job.standing, scheduled=counted, due_at=due_at)
        row.job = evolve(job, standing=standing)


@breaks("a_lease_that_has_ended_counts_an_attempt")
class LostClaimsAreNotCounted(CountsOtherwise):
    """A lost claim is no attempt: its execution has the id of the next one."""

    def count(self, before: Pending, after: Pending) -> Pending:
        return evolve(after, attempts=before.attempts)


@breaks("a_lease_that_has_ended_counts_an_attempt")
class LostClaimsDoNotAddUp(CountsOtherwise):
    """The newest lost claim alone is counted, so that a poison job goes on without end."""

    def count(self, before: Pending, after: Pending) -> Pending:
        return evolve(after, lost=1)


@breaks("a_lease_that_has_ended_counts_an_attempt")
class LostClaimsHaveNotBegun(CountsOtherwise):
    """An occurrence whose claim was lost counts as never begun: what it covers moves."""

    def count(self, before: Pending, after: Pending) -> Pending:
        return evolve(after, began_at=before.began_at)


@breaks("a_lease_that_has_ended_counts_an_attempt")
class HandsOutWithoutAWait(CountsOtherwise):
    """What was lost is due again at once: what kills its worker kills the next one."""

    def count(self, before: Pending, after: Pending) -> Pending:
        return evolve(after, due_at=before.due_at)


@breaks("a_lease_that_has_ended_counts_an_attempt")
class TellsNothingOfLostClaims(Sound):
    """The executions of lost claims are written, and not returned: no observer hears of them."""

    async def claim_due(self, room: Room) -> Claimed:
        return evolve(await super().claim_due(room), lapsed=())


@breaks("a_lease_that_has_ended_counts_an_attempt")
class TellsOfLostClaimsTwice(Sound):
    """Each worker is told of what was lost last, also if another has told it already."""

    async def claim_due(self, room: Room) -> Claimed:
        claimed = await super().claim_due(room)
        told = self.store.__dict__.setdefault("told", [])
        told[:] = claimed.lapsed or told
        return evolve(claimed, lapsed=[*told])


@breaks("a_lease_that_has_ended_counts_an_attempt")
class LapsesKeepTheRevision(Lapses):
    """A lapse moves no revision: an edit passes over it."""

    def ended(self, before: Job, row: _Row, lost: list[Execution]) -> None:
        row.job = evolve(job_of(row), revision=before.revision)


@breaks("a_lease_ends_whether_or_not_its_job_is_due")
class OnlyTheDueLoseTheirClaims(Sound):
    """WHERE due_at <= now AND lease_until <= now: what was put off keeps its lost claim."""

    async def hand_out(self, limit: int) -> Sequence[Claim]:
        now, kept = self._now(), dict[str, Any]()
        for job_id, row in self.store.rows.items():
            due = row.job.standing.due_at if isinstance(row.job, Job) else now
            if row.hold is not None and row.hold.expires_at <= now and (due is None or due > now):
                kept[job_id] = row.hold
                row.hold = evolve(row.hold, expires_at=AFTER)
                self.store.save(job_id, row)
        claims = await super().hand_out(limit)
        for job_id, hold in kept.items():
            self.store.rows[job_id].hold = hold
            self.store.save(job_id, self.store.rows[job_id])
        return claims


@breaks("a_lease_ends_whether_or_not_its_job_is_due")
class TheLostAreDueAtOnce(Lapses):
    """The end of a lease makes its job due, also one that was paused or put off."""

    def ended(self, before: Job, row: _Row, lost: list[Execution]) -> None:
        job = job_of(row)
        row.job = evolve(job, standing=evolve(job.standing, due_at=self._now()))


@breaks("every_lease_that_has_ended_is_ended")
class EndsAsManyLeasesAsItHandsOut(Sound):
    """LIMIT is that of the claims: of many lost ones some are left to the next look."""

    async def hand_out(self, limit: int) -> Sequence[Claim]:
        now, kept = self._now(), dict[str, Any]()
        lost = [
            (job_id, row)
            for job_id, row in self.store.rows.items()
            if row.hold is not None and row.hold.expires_at <= now
        ]
        for job_id, row in lost[limit:]:
            kept[job_id] = row.hold
            row.hold = evolve(row.hold, expires_at=AFTER)
            self.store.save(job_id, row)
        claims = await super().hand_out(limit)
        for job_id, hold in kept.items():
            self.store.rows[job_id].hold = hold
            self.store.save(job_id, self.store.rows[job_id])
        return claims


@breaks("a_lost_claim_ends_what_was_edited_away")
class LostClaimsCountAgainstTheNext(Lapses):
    """A lost claim counts against whatever its job has to run by then."""

    def ended(self, before: Job, row: _Row, lost: list[Execution]) -> None:
        job = job_of(row)
        one = job.standing.scheduled
        if one is not None and one.lost == 0:
            counted = evolve(one, lost=1)
            row.job = evolve(job, standing=evolve(job.standing, scheduled=counted))


@breaks("a_lost_claim_ends_what_was_edited_away")
class EditedAwayWithoutAnEnd(Sound):
    """The end of a lease writes what was abandoned, and not that the occurrence is superseded."""

    class Half(WritesOtherwise):
        def change(self, execution: Execution) -> Execution | None:
            return None if execution.status is Status.SUPERSEDED else execution

    makes = Half


@breaks("a_lost_claim_ends_what_was_removed")
class TombstonesVanish(Sound):
    """A tombstone whose lease has ended is deleted, and its run leaves no execution."""

    async def hand_out(self, limit: int) -> Sequence[Claim]:
        now = self._now()
        for job_id, row in list(self.store.rows.items()):
            if row.job is None and row.hold is not None and row.hold.expires_at <= now:
                del self.store.rows[job_id]
        return await super().hand_out(limit)


@breaks("a_lost_claim_of_a_removed_job_frees_the_new_one")
class LostClaimsCountByNumber(Lapses):
    """Whether a job has moved on is seen by the number, which a new incarnation starts again."""

    def ends(self, row: _Row, now: datetime) -> None:
        hold = hold_of(row)
        if isinstance(row.job, Job) and row.job.uid != hold.uid:
            row.hold = evolve(hold, uid=row.job.uid)


# -- how many in a row


class HoldsOtherwise(Sound):
    """Base: says something else of whether a claim's worker was alone."""

    def renewed(self, hold: Hold) -> Hold:
        raise NotImplementedError

    async def renew(self, renewals: Sequence[Renewal]) -> Sequence[Claim]:
        claims = await super().renew(renewals)
        for claim in claims:
            row = self.store.rows[claim.job.id]
            row.hold = self.renewed(row.hold)
        return claims


@breaks("only_a_loss_alone_is_the_last")
class NobodyIsEverAlone(HoldsOtherwise):
    """Renew does not keep whether the worker is alone: a poison job goes on without end."""

    def renewed(self, hold: Hold) -> Hold:
        return evolve(hold, alone_at=None)


@breaks("only_a_loss_alone_is_the_last")
class OnceAloneAlwaysAlone(Sound):
    """A worker that was alone is still taken for alone: a neighbour's crash is charged."""

    async def renew(self, renewals: Sequence[Renewal]) -> Sequence[Claim]:
        was = {job_id: row.hold and row.hold.alone_at for job_id, row in self.store.rows.items()}
        claims = await super().renew(renewals)
        for claim in claims:
            row = self.store.rows[claim.job.id]
            row.hold = evolve(row.hold, alone_at=was[claim.job.id] or row.hold.alone_at)
        return claims


@breaks("only_a_loss_alone_is_the_last")
class EveryLossMayBeTheLast(Lapses):
    """Claims that were lost among others count as the last one, too."""

    def ends(self, row: _Row, now: datetime) -> None:
        hold = hold_of(row)
        row.hold = evolve(hold, alone_at=hold.renewed_at)


@breaks("a_long_run_alone_is_not_to_blame")
class AloneFromTheNewestRenewal(HoldsOtherwise):
    """How long a worker is alone is counted from its newest renewal: always less than a lease."""

    def renewed(self, hold: Hold) -> Hold:
        return evolve(hold, alone_at=hold.alone_at and hold.renewed_at)


@breaks("where_one_loss_is_the_last_any_is")
class TheFirstLossIsNeverTheLast(CountsOtherwise):
    """What was lost waits to be run alone, with max_lost 1, too."""

    def count(self, before: Pending, after: Pending) -> Pending:
        return evolve(after, lost=0) if after.lost == 1 and before.lost == 0 else after


@breaks("a_settled_attempt_starts_the_count_of_lost_ones_again")
class LostCountsUntilTheOccurrenceEnds(Sound):
    """A settlement of an attempt leaves the count of lost claims as it was."""

    def _settle(self, settlement: Settlement, now: datetime) -> Settled:
        before = settlement.claim.job.standing.scheduled
        settled, row = super()._settle(settlement, now), self.store.row(settlement.claim.job.id)
        one = row.job.standing.scheduled if isinstance(row.job, Job) else None
        if one is not None and before is not None and one.number == before.number:
            kept = evolve(row.job.standing, scheduled=evolve(one, lost=before.lost))
            row.job = evolve(row.job, standing=kept)
        return settled


@breaks("an_edit_keeps_what_was_lost")
class EditsForgetWhatWasLost(Sound):
    """An edit writes the occurrence again, without the claims of it that were lost."""

    async def replace(self, job: Job, executions: Sequence[Execution] = ()) -> Job:
        one = job.standing.scheduled
        if one is not None and one.lost:
            job = evolve(job, standing=evolve(job.standing, scheduled=evolve(one, lost=0)))
        return await super().replace(job, executions)


@breaks("what_waits_after_lost_claims_comes_in_order")
class TheLostComeLast(Sound):
    """What was never lost is claimed first, and what was lost by a second statement."""

    async def hand_out(self, limit: int) -> Sequence[Claim]:
        claims = [*await super().hand_out(1000)]
        ordered = sorted(claims, key=lambda claim: one_of(claim.job).lost)
        await self.release(ordered[limit:])
        return ordered[:limit]


# -- what else a claim may be for


@breaks("a_lost_claim_that_ends_a_pause_begins_nothing")
class PausesEndWithAnAttempt(Lapses):
    """A lost claim that ends a pause counts against the schedule's occurrence."""

    def ends(self, row: _Row, now: datetime) -> None:
        hold = hold_of(row)
        if hold.pending is None and isinstance(row.job, Job):
            row.hold = evolve(hold, pending=row.job.standing.scheduled)


@breaks("a_lost_claim_that_ends_a_pause_begins_nothing")
class PausesAreHeldAsOccurrences(Sound):
    """A claim that ends a pause is told to hold the schedule's occurrence."""

    async def hand_out(self, limit: int) -> Sequence[Claim]:
        claims = await super().hand_out(limit)
        for claim in claims:
            row = self.store.rows[claim.job.id]
            if row.hold.pending is None:
                row.hold = evolve(row.hold, pending=claim.job.standing.scheduled)
        return claims


@breaks("a_lost_request_leaves_the_schedule_alone")
class TheLostIsTheSchedules(Lapses):
    """What was lost is always the schedule's occurrence, whatever was claimed."""

    def ends(self, row: _Row, now: datetime) -> None:
        hold = hold_of(row)
        one = row.job.standing.scheduled if isinstance(row.job, Job) else None
        if one is not None and hold.pending is not None:
            row.hold = evolve(hold, pending=evolve(one, kind=hold.pending.kind))


@breaks("what_is_to_be_cancelled_waits_for_nothing")
class TheMarkedWaitToo(CountsOtherwise):
    """What is to be cancelled waits after a lost claim like everything else."""

    def count(self, before: Pending, after: Pending) -> Pending:
        return evolve(after, due_at=max(after.due_at, self._now() + timedelta(seconds=1)))


class AbandonsOtherwise(WritesOtherwise):
    """Base: abandoned executions are written in another way."""

    def abandoned(self, execution: Execution) -> Execution:
        raise NotImplementedError

    def change(self, execution: Execution) -> Execution:
        return self.abandoned(execution) if execution.status is Status.ABANDONED else execution


@breaks("an_abandoned_execution_says_what_was_lost")
class AbandonedForEver(Sound):
    """An abandoned execution is kept without end, whatever the policy says."""

    class Kept(AbandonsOtherwise):
        def abandoned(self, execution: Execution) -> Execution:
            return evolve(execution, expires_at=None)

    makes = Kept


@breaks("an_abandoned_execution_says_what_was_lost")
class AbandonedAtTheEndOfItsLease(Sound):
    """An abandoned execution ends when the claim was made, not when it was ended."""

    class Earlier(AbandonsOtherwise):
        def abandoned(self, execution: Execution) -> Execution:
            return evolve(execution, finished_at=execution.claimed_at)

    makes = Earlier


@breaks("an_abandoned_execution_says_what_was_lost")
class AbandonedAfterAStart(Sound):
    """An abandoned execution says that the handler was called, which is unknown."""

    class Started(AbandonsOtherwise):
        def abandoned(self, execution: Execution) -> Execution:
            return evolve(execution, started_at=execution.claimed_at)

    makes = Started


@breaks("an_abandoned_execution_says_what_was_lost")
class AbandonedByTheNewPolicy(Sound):
    """What a lost claim leaves is kept as the job's policy says now, after an edit."""

    class ByTheStored(AbandonsOtherwise):
        def abandoned(self, execution: Execution) -> Execution:
            job = self.row(execution.job_id).job
            keep = job.spec.policy.keep_executions if isinstance(job, Job) else None
            ends = execution.finished_at + keep if isinstance(keep, timedelta) else None
            return evolve(execution, expires_at=ends)

    makes = ByTheStored


@breaks("a_claim_carries_the_stored_job")
class ClaimsWithoutNameAndGroup(ClaimsOtherwise):
    """The statement that claims reads what a handler needs, and neither name nor group."""

    def change(self, claim: Claim) -> Claim:
        return evolve(
            claim, job=evolve(claim.job, spec=evolve(claim.job.spec, name=None, group=None))
        )


@breaks("a_claim_carries_the_stored_job")
class ConflictsCarryTheClaimedJob(Sound):
    """A conflict answers with the job of the claim, not with the stored one."""

    def _settle(self, settlement: Settlement, now: datetime) -> Settled:
        settled = super()._settle(settlement, now)
        stale = settled.outcome == "conflict" and settled.job is not None
        return evolve(settled, job=settlement.claim.job) if stale else settled
