"""Claims: made, renewed, released, lost."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from anyio.lowlevel import checkpoint
from attrs import evolve
from tests.testkit.mutants.base import (
    LEASE,
    NOTHING,
    TICK,
    Sound,
    Store,
    WritesOtherwise,
    breaks,
    holding,
)

from sched_core import (
    Claim,
    Execution,
    Job,
    Settled,
    Settlement,
    Status,
)
from sched_core.memory import _Row


class AtAnotherTime(Sound):
    """Base: claims as if it were another time."""

    by = NOTHING
    claiming = False

    def _now(self) -> datetime:
        now = super()._now()
        return now + self.by if self.claiming else now

    async def hand_out(self, limit: int) -> Sequence[Claim]:
        self.claiming = True
        try:
            return await super().hand_out(limit)
        finally:
            self.claiming = False


@breaks("only_what_is_due_is_claimed")
class ClaimsTooEarly(AtAnotherTime):
    """What is due within the millisecond is handed out now."""

    by = timedelta(milliseconds=1)


@breaks("only_what_is_due_is_claimed")
class ClaimsTooLate(AtAnotherTime):
    """A job is due when its moment lies in the past: < where <= was meant."""

    by = -TICK


class ClaimsOtherwise(Sound):
    """Base: claims are changed after they were made, and the hold with them."""

    def change(self, claim: Claim) -> Claim:
        raise NotImplementedError

    async def hand_out(self, limit: int) -> Sequence[Claim]:
        claims = [self.change(claim) for claim in await super().hand_out(limit)]
        for claim in claims:
            row = self.store.rows[claim.job.id]
            row.hold = holding(row.hold, claim)
        return claims


@breaks("a_claim_carries_the_stored_job")
class ClaimMovesTheRevision(ClaimsOtherwise):
    """A claim writes the row, and moves the revision with it."""

    def change(self, claim: Claim) -> Claim:
        row = self.store.rows[claim.job.id]
        row.job = evolve(claim.job, revision=self.store.next_serial())
        return evolve(claim, job=row.job)


@breaks("a_claim_carries_the_stored_job")
class ClaimsForNobody(ClaimsOtherwise):
    """A claim does not say whose it is."""

    def change(self, claim: Claim) -> Claim:
        return evolve(claim, worker="worker")


class InAnotherOrder(Sound):
    """Base: takes what is due in another order."""

    def order(self, due: list[tuple[datetime, str]]) -> None:
        raise NotImplementedError

    async def hand_out(self, limit: int) -> Sequence[Claim]:
        now = self._now()
        claims = [*await super().hand_out(0)]
        rows = [(key, row) for key, row in self.store.rows.items() if row.queue is self.store.due]
        due = [(row.wake, key) for key, row in rows if row.wake is not None and row.wake <= now]
        self.order(due)
        for wake, key in due[:limit]:
            self.store.due[:] = [(wake, key)]
            claims += await super().hand_out(1)
        waiting = [(row.wake, key) for key, row in rows if row.wake is not None]
        self.store.due[:] = sorted(waiting)
        return claims


@breaks("the_oldest_due_come_first")
class NewestFirst(InAnotherOrder):
    """ORDER BY due_at DESC."""

    def order(self, due: list[tuple[datetime, str]]) -> None:
        due.sort(reverse=True)


@breaks("the_oldest_due_come_first")
class InOrderOfAdding(InAnotherOrder):
    """No ORDER BY."""

    def order(self, due: list[tuple[datetime, str]]) -> None:
        """Leave the order as it is."""


@breaks("a_clock_set_forward_hands_out_what_is_due")
class ById(InAnotherOrder):
    """Ordered by due_at, by the second, and then by id, the wrong way round."""

    def order(self, due: list[tuple[datetime, str]]) -> None:
        due.sort(key=lambda entry: entry[1], reverse=True)


@breaks("the_oldest_due_come_first")
class IgnoresTheLimit(Sound):
    """Claims everything that is due."""

    async def hand_out(self, limit: int) -> Sequence[Claim]:
        return await super().hand_out(1000 if limit else 0)


@breaks("a_claim_is_exclusive")
class HoldsAreItsOwn(Sound):
    """What is held is known to this backend only: another one hands it out, too."""

    async def hand_out(self, limit: int) -> Sequence[Claim]:
        for job_id, row in self.store.rows.items():
            if row.hold is not None and row.hold.worker != self._worker and row.job is not None:
                row.hold = None
                self.store.save(job_id, row)
        return await super().hand_out(limit)


@breaks("tokens_grow")
class TokensStartAgain(ClaimsOtherwise):
    """Tokens count from 1 in each row, so that a re-added job repeats them."""

    def change(self, claim: Claim) -> Claim:
        tokens = self.store.__dict__.setdefault("tokens", {})
        tokens[claim.job.uid] = tokens.get(claim.job.uid, 0) + 1
        return evolve(claim, token=tokens[claim.job.uid])


@breaks("tokens_grow")
class TakeoverKeepsTheToken(ClaimsOtherwise):
    """A claim after a lost one changes the worker, and not the token."""

    def change(self, claim: Claim) -> Claim:
        tokens = self.store.__dict__.setdefault("tokens", {})
        one = claim.job.standing.scheduled
        if one is None or one.lost == 0:
            tokens[claim.job.id] = claim.token
        return evolve(claim, token=tokens[claim.job.id])


@breaks("renewing_extends_the_lease")
class LeasesLastTooLong(Sound):
    """A claim is ended after its lease: > where >= was meant."""

    class Longer(Store):
        def save(self, job_id: str, row: _Row) -> None:
            hold = row.hold
            if hold is not None:
                row.hold = evolve(hold, expires_at=hold.expires_at + TICK)
            super().save(job_id, row)
            row.hold = hold

    makes = Longer


@breaks("renewing_extends_the_lease")
class LeasesAreTooShort(Sound):
    """A claim is ended a moment before its lease is over."""

    async def hand_out(self, limit: int) -> Sequence[Claim]:
        now = self._now()
        for job_id, row in self.store.rows.items():
            if row.hold is not None and now < row.hold.expires_at <= now + TICK:
                row.hold = evolve(row.hold, expires_at=now)
                self.store.save(job_id, row)
        return await super().hand_out(limit)


@breaks("a_lease_that_has_ended_counts_an_attempt")
class LosesWithoutAnExecution(Sound):
    """The end of a lease writes no execution for the lost attempt."""

    class Forgetful(WritesOtherwise):
        def change(self, execution: Execution) -> Execution | None:
            return None if execution.status is Status.ABANDONED else execution

    makes = Forgetful


@breaks("a_lease_that_has_ended_counts_an_attempt")
class AbandonedIsTheEnd(Sound):
    """The execution of a lost attempt is written as a final one."""

    class Final(WritesOtherwise):
        def change(self, execution: Execution) -> Execution:
            return evolve(execution, final=execution.final or execution.status is Status.ABANDONED)

    makes = Final


class StoresSomeRenewals(Sound):
    """Base: each renewal is answered, and not each is stored."""

    def stores(self, before: Claim, renewed: Claim) -> bool:
        raise NotImplementedError

    async def extend(self, claims: Sequence[Claim]) -> Sequence[Claim]:
        holds = {job_id: row.hold for job_id, row in self.store.rows.items()}
        renewed = await super().extend(claims)
        for claim in renewed:
            row, before = self.store.rows[claim.job.id], holds[claim.job.id]
            if not self.stores(before, claim):
                row.hold = before
                self.store.save(claim.job.id, row)
        return renewed


@breaks("renewing_extends_the_lease")
class RenewsTheReplyOnly(StoresSomeRenewals):
    """Renew computes the new moment, and does not store it."""

    def stores(self, before: Claim, renewed: Claim) -> bool:
        return False


@breaks("renewing_extends_the_lease")
class RenewsOnlyWhatIsPastHalf(StoresSomeRenewals):
    """A renewal that comes early is answered, and saves its write."""

    def stores(self, before: Claim, renewed: Claim) -> bool:
        return renewed.expires_at - before.expires_at >= self._lease / 2


@breaks("renewing_extends_the_lease")
class RenewalIsANewClaim(Sound):
    """Renew draws a new token."""

    async def extend(self, claims: Sequence[Claim]) -> Sequence[Claim]:
        renewed = []
        for claim in await super().extend(claims):
            new = evolve(claim, token=self.store.next_serial())
            row = self.store.rows[claim.job.id]
            row.hold = holding(row.hold, new)
            renewed.append(new)
        return renewed


@breaks("an_expired_claim_that_is_not_taken_over_is_still_held")
class SettleLooksAtTheClock(Sound):
    """Settle refuses a claim whose lease has ended, though no worker took it."""

    def _settle(self, settlement: Settlement, now: datetime) -> Settled:
        row = self.store.rows.get(settlement.claim.job.id)
        hold = None if row is None else row.hold
        if hold is not None and hold.expires_at <= self._now():
            return Settled("claim_lost")
        return super()._settle(settlement, now)


@breaks("an_expired_claim_that_is_not_taken_over_is_still_held")
class RenewLooksAtTheClock(Sound):
    """Renew refuses a claim whose lease has ended, though no worker took it."""

    async def extend(self, claims: Sequence[Claim]) -> Sequence[Claim]:
        now = self._now()
        return await super().extend([claim for claim in claims if claim.expires_at > now])


@breaks("a_locked_record_can_be_renewed")
class RenewsInTheRecordOnly(Sound):
    """Renew passes over a record that others have locked: its lease goes on to its end."""

    async def extend(self, claims: Sequence[Claim]) -> Sequence[Claim]:
        locked = [claim for claim in claims if claim.job.id in self.store.locked]
        free = [claim for claim in claims if claim.job.id not in self.store.locked]
        return [*locked, *await super().extend(free)]


@breaks("a_locked_record_can_be_renewed")
class ALockedRecordIsLost(Sound):
    """Renew says that a claim is lost where others have its record locked."""

    async def extend(self, claims: Sequence[Claim]) -> Sequence[Claim]:
        free = [claim for claim in claims if claim.job.id not in self.store.locked]
        return await super().extend(free)


class KeepsWhatWasLocked(Store):
    """What was locked is left to its owner for another lease, whether there is one or not."""

    def unlock(self, job_id: str) -> None:
        super().unlock(job_id)
        row = self.rows[job_id]
        if row.hold is not None:
            row.hold = evolve(row.hold, expires_at=row.hold.expires_at + LEASE)
            self.save(job_id, row)


@breaks("a_locked_record_outlives_no_lease")
class GivesTheLockedMoreTime(Sound):
    """A claim whose record was locked gets a further lease, though no worker renews it."""

    makes = KeepsWhatWasLocked


@breaks("a_lost_claim_is_not_renewed")
class RenewsWhatIsLost(Sound):
    """Renew returns all that it was asked for."""

    async def extend(self, claims: Sequence[Claim]) -> Sequence[Claim]:
        await super().extend(claims)
        return [evolve(claim, expires_at=self._now() + LEASE) for claim in claims]


@breaks("a_released_job_is_due_again_at_once")
class ReleaseIsForgotten(Sound):
    """Release leaves it to the lease."""

    async def release(self, claims: Sequence[Claim]) -> None:
        self._now()


@breaks("a_released_job_is_due_again_at_once")
class ReleaseCountsAnAttempt(Sound):
    """A released claim is counted as an attempt, though its handler was never called."""

    async def release(self, claims: Sequence[Claim]) -> None:
        await super().release(claims)
        for claim in claims:
            row = self.store.row(claim.job.id)
            one = row.job.standing.scheduled if isinstance(row.job, Job) else None
            if one is not None:
                tried = evolve(row.job.standing, scheduled=evolve(one, attempts=one.attempts + 1))
                row.job = evolve(row.job, standing=tried)


@breaks("releasing_what_is_not_held_does_nothing")
class ReleasesWhatIsNotItsOwn(Sound):
    """Release frees the job by its id."""

    async def release(self, claims: Sequence[Claim]) -> None:
        for claim in claims:
            hold = self.store.row(claim.job.id).hold
            fence = {} if hold is None else {"token": hold.token, "worker": hold.worker}
            await super().release([evolve(claim, **fence)])


@breaks("an_empty_claim_means_that_nothing_is_due")
class LostClaimsUseUpTheLimit(Sound):
    """What is ended because its lease is over counts towards the limit."""

    async def hand_out(self, limit: int) -> Sequence[Claim]:
        before = len(self.lapsed)
        claims = [*await super().hand_out(limit)]
        most = max(limit - (len(self.lapsed) - before), 0)
        await self.release(claims[most:])
        return claims[:most]


@breaks("a_cancelled_claim_leaves_nothing_claimed")
class CancelledClaimLeaks(Sound):
    """A claim that is cancelled while its reply travels stays claimed."""

    async def hand_out(self, limit: int) -> Sequence[Claim]:
        claims = await super().hand_out(limit)
        await checkpoint()
        return claims
