"""What is told of claims, and what renewals store with them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from anyio.lowlevel import checkpoint
from attrs import evolve
from tests.testkit.mutants.base import Sound, WritesOtherwise, breaks

from sched_core import (
    Claim,
    ClaimQuery,
    Execution,
    Hold,
    Job,
    Page,
    Renewal,
    Settled,
    Settlement,
    Status,
    Undecodable,
)


class ListsHolds(Sound):
    """Base: tells claims in another way."""

    def shown(self, hold: Hold, row: Any) -> Hold | None:
        """Return what is told of a claim."""
        return hold

    def stored(self) -> list[Hold]:
        """Return all claims, in order."""
        rows = [row for _, row in sorted(self.store.rows.items()) if row.hold is not None]
        readable = [row for row in rows if not isinstance(row.job, Undecodable)]
        shown = [self.shown(row.hold, row) for row in readable]
        return [hold for hold in shown if hold is not None]

    def finds(self, query: ClaimQuery, hold: Hold) -> bool:
        return query.matches(hold)

    async def claims(self, query: ClaimQuery, *, after: str | None, limit: int) -> Page[Hold]:
        self._now()
        found = [hold for hold in self.stored() if self.finds(query, hold)]
        found = [hold for hold in found if after is None or hold.job_id > after]
        return Page(found[:limit], found[limit - 1].job_id if len(found) > limit else None)


@breaks("a_claim_is_listed_as_it_was_made")
class TellsTheSchedulesOccurrence(ListsHolds):
    """A claim is told with the schedule's occurrence, also where it is for a request."""

    def shown(self, hold: Hold, row: Any) -> Hold | None:
        one = row.job.standing.scheduled if isinstance(row.job, Job) else None
        return hold if one is None or hold.pending is None else evolve(hold, pending=one)


@breaks("what_ends_a_claim_takes_it_from_the_list")
class AnyAnswerEndsTheListing(ListsHolds):
    """A settlement takes its claim from the list, whatever it is answered."""

    async def settle(self, settlements: Sequence[Settlement]) -> Sequence[Settled]:
        gone = self.store.__dict__.setdefault("gone", set())
        gone |= {each.claim.token for each in settlements}
        return await super().settle(settlements)

    def shown(self, hold: Hold, row: Any) -> Hold | None:
        return None if hold.token in self.store.__dict__.get("gone", ()) else hold


@breaks("what_ends_a_claim_takes_it_from_the_list")
class ReleasedClaimsStayListed(ListsHolds):
    """The list of claims is an index of its own, and a release does not write it."""

    async def release(self, claims: Sequence[Claim]) -> None:
        kept = self.store.__dict__.setdefault("kept", {})
        for claim in claims:
            hold = self.store.row(claim.job.id).hold
            if hold is not None and hold.token == claim.token:
                kept[claim.job.id] = hold
        await super().release(claims)

    def stored(self) -> list[Hold]:
        held = {hold.job_id: hold for hold in super().stored()}
        kept = self.store.__dict__.get("kept", {})
        return [one for _, one in sorted((kept | held).items())]


@breaks("a_claim_past_its_lease_is_listed_until_it_is_ended")
class ListsLiveLeases(ListsHolds):
    """Claims are those with a lease: once it has ended, nothing runs."""

    def shown(self, hold: Hold, row: Any) -> Hold | None:
        return hold if hold.expires_at > self._now() else None


@breaks("the_claim_of_a_removed_job_is_listed")
class JoinsTheJobs(ListsHolds):
    """SELECT … FROM claims JOIN jobs: a removed job has no claim."""

    def shown(self, hold: Hold, row: Any) -> Hold | None:
        return None if row.job is None else hold


@breaks("an_edit_changes_no_listed_claim")
class TheQueueIsTheJobs(ListsHolds):
    """The queue of a claim is read from the job, as it is now."""

    def shown(self, hold: Hold, row: Any) -> Hold | None:
        return evolve(hold, queue=row.job.spec.queue) if isinstance(row.job, Job) else hold


@breaks("a_renewal_is_seen_in_the_list")
class TellsTheFirstLease(ListsHolds):
    """Renewals lie apart from the claims, and are not joined."""

    def shown(self, hold: Hold, row: Any) -> Hold | None:
        return evolve(
            hold,
            renewed_at=hold.claimed_at,
            expires_at=hold.claimed_at + self._lease,
            alone_at=None,
        )


class RenewsOtherwise(Sound):
    """Base: renewals bring another progress."""

    def changed(self, renewals: Sequence[Renewal]) -> Sequence[Renewal]:
        raise NotImplementedError

    async def renew(self, renewals: Sequence[Renewal]) -> Sequence[Claim]:
        return await super().renew(self.changed(renewals))


@breaks("progress_travels_with_renewals")
class ProgressIsNotStored(RenewsOtherwise):
    """A renewal brings nothing but its lease."""

    def changed(self, renewals: Sequence[Renewal]) -> Sequence[Renewal]:
        return [evolve(each, progress=None) for each in renewals]


@breaks("progress_travels_with_renewals")
class NoProgressIsStored(Sound):
    """SET progress = ?: a renewal without news takes the last news away."""

    async def extend(self, claims: Sequence[Claim]) -> Sequence[Claim]:
        renewed = await super().extend(claims)
        for claim in renewed:
            row = self.store.rows[claim.job.id]
            row.hold = evolve(row.hold, progress=self.renewing[claim.token].progress)
        return renewed


@breaks("each_renewal_brings_its_own_progress")
class OneProgressForTheBatch(RenewsOtherwise):
    """One statement renews all claims, with the values of the last one."""

    def changed(self, renewals: Sequence[Renewal]) -> Sequence[Renewal]:
        told = [each.progress for each in renewals if each.progress is not None]
        return [evolve(each, progress=told[-1] if told else None) for each in renewals]


@breaks("what_was_lost_tells_its_progress")
class LostClaimsForgetTheirProgress(Sound):
    """The execution of a lost claim is written without the progress of its renewals."""

    class Forgets(WritesOtherwise):
        def change(self, execution: Execution) -> Execution:
            lost = execution.status is Status.ABANDONED
            return evolve(execution, progress=None) if lost else execution

    makes = Forgets


@breaks("pages_of_claims_are_complete")
class AFullPageHasANext(ListsHolds):
    """A page that is full promises another one."""

    async def claims(self, query: ClaimQuery, *, after: str | None, limit: int) -> Page[Hold]:
        page = await super().claims(query, after=after, limit=limit)
        full = len(page.items) == limit
        return Page(page.items, page.items[-1].job_id if full else None)


@breaks("pages_of_claims_are_complete")
class ClaimsComeAsTheyWereMade(ListsHolds):
    """Claims come in the order in which they were made, and pages go on by id."""

    def stored(self) -> list[Hold]:
        return sorted(super().stored(), key=lambda hold: hold.token)


@breaks("pages_of_claims_go_on_while_others_write")
class PagesOfClaimsByOffset(ListsHolds):
    """A page of claims begins at a position, which moves when one before it ends."""

    async def claims(self, query: ClaimQuery, *, after: str | None, limit: int) -> Page[Hold]:
        self._now()
        found = [hold for hold in self.stored() if query.matches(hold)]
        start = int(after or 0)
        more = start + limit < len(found)
        return Page(found[start : start + limit], str(start + limit) if more else None)


@breaks("claims_are_filtered")
class ClaimsByPrefix(ListsHolds):
    """The job's id selects by its beginning."""

    def finds(self, query: ClaimQuery, hold: Hold) -> bool:
        prefixed = query.job_id is None or hold.job_id.startswith(query.job_id)
        return prefixed and evolve(query, job_id=None).matches(hold)


@breaks("claims_are_filtered")
class ClaimsByAnyFilter(ListsHolds):
    """Filters are joined by or."""

    def finds(self, query: ClaimQuery, hold: Hold) -> bool:
        pairs = (
            (query.job_id, hold.job_id),
            (query.worker, hold.worker),
            (query.queue, hold.queue),
        )
        given = [(wanted, found) for wanted, found in pairs if wanted is not None]
        return not given or any(wanted == found for wanted, found in given)


@breaks("a_claim_that_ends_a_pause_is_listed")
class OnlyRunsAreListed(ListsHolds):
    """A claim without an occurrence runs nothing, and is left out."""

    def shown(self, hold: Hold, row: Any) -> Hold | None:
        return None if hold.pending is None else hold


@breaks("an_unreadable_record_is_no_listed_claim")
class ListsClaimsOfWhatItCannotRead(ListsHolds):
    """Claims lie apart from the jobs, and are told whether or not the job can be read."""

    def stored(self) -> list[Hold]:
        return [row.hold for _, row in sorted(self.store.rows.items()) if row.hold is not None]


@breaks("a_claim_and_its_listing_agree")
class ClaimsInTwoSteps(Sound):
    """The claim is written first, and its queue in a second step."""

    async def hand_out(self, limit: int) -> Sequence[Claim]:
        claims = await super().hand_out(limit)
        for claim in claims:
            row = self.store.rows[claim.job.id]
            row.hold = evolve(row.hold, pending=None)
        await checkpoint()
        await checkpoint()
        for claim in claims:
            row = self.store.rows[claim.job.id]
            if row.hold is not None and row.hold.token == claim.token:
                row.hold = evolve(row.hold, pending=claim.job.standing.scheduled)
        return claims


@breaks("an_edit_takes_no_progress_with_it")
class EditsWriteTheHoldBack(Sound):
    """An edit reads the record, hold and all, and writes it after others have renewed it."""

    async def replace(self, job: Job, executions: Sequence[Execution] = ()) -> Job:
        hold = self.store.row(job.id).hold
        await checkpoint()
        now = self.store.row(job.id).hold
        stored = await super().replace(job, executions)
        row = self.store.row(job.id)
        if row.hold is not None and hold is not None and now is not None and hold != now:
            row.hold = evolve(row.hold, progress=hold.progress)
        return stored
