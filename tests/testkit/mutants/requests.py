"""Requests, marks and pauses: which of several a claim is for, and what becomes of the others."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from attrs import evolve
from tests.testkit.mutants.base import Sound, breaks

from sched_core import (
    Claim,
    Execution,
    Job,
    Pending,
    Renewal,
    Settled,
    Settlement,
    Standing,
    Status,
)
from sched_core.row import is_to_be_cancelled


class ClaimsAnother(Sound):
    """Base: what a claim is for is another occurrence than the earliest that may run."""

    def another(self, standing: Standing) -> Pending | None:
        raise NotImplementedError

    async def hand_out(self, limit: int) -> Sequence[Claim]:
        claims = await super().hand_out(limit)
        for claim in claims:
            row = self.store.rows[claim.job.id]
            row.hold = evolve(row.hold, pending=self.another(claim.job.standing))
        return claims


@breaks("a_claim_is_for_the_earliest_of_requests_and_schedule")
class TheScheduleComesFirst(ClaimsAnother):
    """A claim is for the schedule's occurrence as long as there is one."""

    def another(self, standing: Standing) -> Pending | None:
        return standing.scheduled or standing.requests[0]


@breaks("a_claim_is_for_the_earliest_of_requests_and_schedule")
class RequestsComeInTheOrderOfAsking(ClaimsAnother):
    """A claim is for the request that was asked for first, whenever it is due."""

    def another(self, standing: Standing) -> Pending | None:
        return standing.requests[0] if standing.requests else standing.scheduled


class WritesStandings(Sound):
    """Base: what settlements and edits store is changed on the way."""

    def stored(self, standing: Standing) -> Standing:
        raise NotImplementedError

    def _settle(self, settlement: Settlement, now: datetime) -> Settled:
        standing = settlement.standing and self.stored(settlement.standing)
        return super()._settle(evolve(settlement, standing=standing), now)


@breaks("requests_keep_their_numbers_and_their_order")
class RequestsAreSortedByNumber(WritesStandings):
    """Requests lie in a table with the number as its key, and come back in that order."""

    def stored(self, standing: Standing) -> Standing:
        ordered = sorted(standing.requests, key=lambda one: one.number)
        return evolve(standing, requests=tuple(ordered))


@breaks("requests_keep_their_numbers_and_their_order")
class RequestsAreNumberedAnew(WritesStandings):
    """What is left of several requests moves up, and takes the numbers of those before."""

    def stored(self, standing: Standing) -> Standing:
        numbers = sorted(one.number for one in standing.requests)
        moved = zip(standing.requests, numbers, strict=True)
        return evolve(standing, requests=tuple(evolve(one, number=n) for one, n in moved))


@breaks("an_edit_leaves_a_held_occurrence_its_number")
class TheHeldIsDerivedAnew(Sound):
    """What is held is what a claim of the stored job would be for, also after an edit."""

    async def replace(self, job: Job, executions: Sequence[Execution] = ()) -> Job:
        replaced = await super().replace(job, executions)
        row = self.store.rows[job.id]
        if row.hold is None:
            return replaced
        pending = (replaced.standing.scheduled, *replaced.standing.requests)
        first = min((one for one in pending if one), key=lambda one: one.due_at, default=None)
        row.hold = evolve(row.hold, pending=first)
        again: Job = row.read()
        return again


@breaks("a_renewal_tells_that_a_run_is_to_be_cancelled")
class RenewTellsNoMark(Sound):
    """Renew extends leases, and says nothing of marks: what is cancelled runs to its end."""

    async def renew(self, renewals: Sequence[Renewal]) -> Sequence[Claim]:
        return [evolve(claim, cancel=False) for claim in await super().renew(renewals)]


@breaks("a_renewal_tells_that_a_run_is_to_be_cancelled")
class RenewTellsAnyMark(Sound):
    """Renew tells its holder to stop if any occurrence of its job is marked."""

    async def renew(self, renewals: Sequence[Renewal]) -> Sequence[Claim]:
        claims = []
        for claim in await super().renew(renewals):
            job = self.store.row(claim.job.id).job
            claims.append(evolve(claim, cancel=bool(job and job.standing.cancels)))
        return claims


@breaks("a_renewal_tells_that_a_run_is_to_be_cancelled")
class MarksOfWhatIsGoneAreNotTold(Sound):
    """Renew tells of a mark only while the marked occurrence is pending."""

    async def renew(self, renewals: Sequence[Renewal]) -> Sequence[Claim]:
        claims = []
        for claim in await super().renew(renewals):
            row = self.store.row(claim.job.id)
            there = row.job is not None and row.job.standing.find(row.hold.pending.number)
            claims.append(evolve(claim, cancel=claim.cancel and there is not None))
        return claims


@breaks("a_renewal_tells_that_a_run_is_to_be_cancelled")
class MarksAreKnownByNumber(Sound):
    """A mark of another incarnation of the job is told to the run of its former self."""

    async def renew(self, renewals: Sequence[Renewal]) -> Sequence[Claim]:
        claims = []
        for claim in await super().renew(renewals):
            row = self.store.row(claim.job.id)
            uid = row.job.uid if row.job is not None else ""
            told = is_to_be_cancelled(row.job, evolve(row.hold, uid=uid))
            claims.append(evolve(claim, cancel=told))
        return claims


@breaks("a_removal_can_cancel_what_is_held")
class RemovedRunsAreNotTold(Sound):
    """Renew tells of marks only while the job is stored."""

    async def renew(self, renewals: Sequence[Renewal]) -> Sequence[Claim]:
        claims = []
        for claim in await super().renew(renewals):
            is_there = self.store.row(claim.job.id).job is not None
            claims.append(evolve(claim, cancel=claim.cancel and is_there))
        return claims


@breaks("a_removal_can_cancel_what_is_held")
class RemovalsForgetWhoCancelled(Sound):
    """What a removal has cancelled ends cancelled, and nothing says by whom."""

    async def remove(self, job: Job, executions: Sequence[Execution] = ()) -> None:
        await super().remove(job, [evolve(each, actor=None) for each in executions])


@breaks("a_pause_is_ended_by_its_claim")
class PausesNeverEnd(Sound):
    """A paused job is not handed out, also where its pause has an end that has come."""

    async def hand_out(self, limit: int) -> Sequence[Claim]:
        claims = await super().hand_out(limit)
        ended = [claim for claim in claims if claim.job.standing.pause is not None]
        await self.release(ended)
        return [claim for claim in claims if claim not in ended]


@breaks("a_pause_is_ended_by_its_claim")
class TheEndOfAPauseIsAnAttempt(Sound):
    """A settlement that only ends a pause is written with an end of what was paused."""

    async def release(self, claims: Sequence[Claim]) -> None:
        await super().release(claims)
        for claim in claims:
            one, now = claim.job.standing.scheduled, self._now()
            if claim.job.standing.pause is None or one is None:
                continue
            name = f"{claim.job.uid}:{one.number}:0"
            ended = Execution(
                name,
                claim.job.id,
                claim.job.uid,
                one.number,
                0,
                one.kind,
                one.scheduled_at,
                Status.SUPERSEDED,
                True,
                claim.token,
                claim.worker,
                claimed_at=now,
                started_at=None,
                finished_at=now,
            )
            self.store.write([ended])
