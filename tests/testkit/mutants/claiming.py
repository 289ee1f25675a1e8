"""Claims: made, renewed, released, lost."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from anyio.lowlevel import checkpoint
from attrs import evolve
from tests.testkit.mutants.base import LEASE, NOTHING, TICK, Sound, Store, WritesOtherwise, breaks

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

    async def claim_due(self, limit: int) -> Sequence[Claim]:
        self.claiming = True
        try:
            return await super().claim_due(limit)
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

    async def claim_due(self, limit: int) -> Sequence[Claim]:
        claims = [self.change(claim) for claim in await super().claim_due(limit)]
        for claim in claims:
            self.store.rows[claim.job.id].hold = claim
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

    async def claim_due(self, limit: int) -> Sequence[Claim]:
        now = self._now()
        claims: list[Claim] = []
        due = [(row.wake, key) for key, row in self.store.rows.items() if row.wake is not None]
        due = [entry for entry in due if entry[0] <= now]
        self.order(due)
        for _, key in due[:limit]:
            self.store.due = [(self.store.rows[key].wake, key)]
            claims += await super().claim_due(1)
        self.store.due = sorted(
            (row.wake, key) for key, row in self.store.rows.items() if row.wake is not None
        )
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
        """As they lie."""


@breaks("a_clock_set_forward_hands_out_what_is_due")
class ById(InAnotherOrder):
    """Ordered by due_at, by the second, and then by id, the wrong way round."""

    def order(self, due: list[tuple[datetime, str]]) -> None:
        due.sort(key=lambda entry: entry[1], reverse=True)


@breaks("the_oldest_due_come_first")
class IgnoresTheLimit(Sound):
    """Claims everything that is due."""

    async def claim_due(self, limit: int) -> Sequence[Claim]:
        return await super().claim_due(1000 if limit else 0)


@breaks("a_claim_is_exclusive")
class HoldsAreItsOwn(Sound):
    """What is held is known to this backend only: another one hands it out, too."""

    async def claim_due(self, limit: int) -> Sequence[Claim]:
        now = self._now()
        for job_id, row in self.store.rows.items():
            if row.hold is not None and row.hold.worker != self._worker and row.job is not None:
                row.hold = None
                self.store.save(job_id, row)
        claims = await super().claim_due(limit)
        return [claim for claim in claims if claim.claimed_at == now]


@breaks("tokens_grow")
class TokensStartAgain(ClaimsOtherwise):
    """Tokens count from 1 in each row, so that a re-added job repeats them."""

    def change(self, claim: Claim) -> Claim:
        tokens = self.store.__dict__.setdefault("tokens", {})
        tokens[claim.job.uid] = tokens.get(claim.job.uid, 0) + 1
        return evolve(claim, token=tokens[claim.job.uid])


@breaks("tokens_grow")
class TakeoverKeepsTheToken(ClaimsOtherwise):
    """A takeover changes the worker, and not the token."""

    def change(self, claim: Claim) -> Claim:
        tokens = self.store.__dict__.setdefault("tokens", {})
        if claim.lost is None:
            tokens[claim.job.id] = claim.token
        return evolve(claim, token=tokens[claim.job.id])


@breaks("an_expired_claim_is_taken_over")
class LeasesLastTooLong(Sound):
    """A claim is taken over after its lease: > where >= was meant."""

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
    """A claim is taken over a moment before its lease has ended."""

    async def claim_due(self, limit: int) -> Sequence[Claim]:
        now = self._now()
        for job_id, row in self.store.rows.items():
            if row.hold is not None and now < row.hold.expires_at <= now + TICK:
                row.hold = evolve(row.hold, expires_at=now)
                self.store.save(job_id, row)
        return await super().claim_due(limit)


@breaks("an_expired_claim_is_taken_over")
class LostClaimsDoNotAddUp(ClaimsOtherwise):
    """Only the newest lost claim is counted, so that a poison job goes on for ever."""

    def change(self, claim: Claim) -> Claim:
        return claim if claim.lost is None else evolve(claim, lost=evolve(claim.lost, count=1))


@breaks("an_expired_claim_is_taken_over")
class TakesOverInSilence(ClaimsOtherwise):
    """A takeover does not report that something was lost."""

    def change(self, claim: Claim) -> Claim:
        return evolve(claim, lost=None)


@breaks("a_takeover_writes_the_abandoned_line")
class TakesOverWithoutALine(Sound):
    """A takeover writes no line for the lost attempt."""

    class Forgetful(WritesOtherwise):
        def change(self, line: Execution) -> Execution | None:
            return None if line.status is Status.ABANDONED else line

    makes = Forgetful


@breaks("a_takeover_writes_the_abandoned_line")
class AbandonedIsTheEnd(Sound):
    """The line of a lost attempt is written as a final one."""

    class Final(WritesOtherwise):
        def change(self, line: Execution) -> Execution:
            return evolve(line, final=line.final or line.status is Status.ABANDONED)

    makes = Final


class StoresSomeRenewals(Sound):
    """Base: each renewal is answered, and not each is stored."""

    def stores(self, before: Claim, renewed: Claim) -> bool:
        raise NotImplementedError

    async def renew(self, claims: Sequence[Claim]) -> Sequence[Claim]:
        holds = {job_id: row.hold for job_id, row in self.store.rows.items()}
        renewed = await super().renew(claims)
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

    async def renew(self, claims: Sequence[Claim]) -> Sequence[Claim]:
        renewed = []
        for claim in await super().renew(claims):
            new = evolve(claim, token=self.store.next_serial())
            self.store.rows[claim.job.id].hold = new
            renewed.append(new)
        return renewed


@breaks("an_expired_claim_nobody_took_is_still_held")
class SettleLooksAtTheClock(Sound):
    """Settle refuses a claim whose lease has ended, though nobody took it."""

    def _settle(self, settlement: Settlement) -> Settled:
        row = self.store.rows.get(settlement.claim.job.id)
        hold = None if row is None else row.hold
        if hold is not None and hold.expires_at <= self._now():
            return Settled("claim_lost")
        return super()._settle(settlement)


@breaks("an_expired_claim_nobody_took_is_still_held")
class RenewLooksAtTheClock(Sound):
    """Renew refuses a claim whose lease has ended, though nobody took it."""

    async def renew(self, claims: Sequence[Claim]) -> Sequence[Claim]:
        now = self._now()
        return await super().renew([claim for claim in claims if claim.expires_at > now])


@breaks("a_locked_record_can_be_renewed")
class RenewsInTheRecordOnly(Sound):
    """Renew passes over a record that others have locked: its lease goes on to its end."""

    async def renew(self, claims: Sequence[Claim]) -> Sequence[Claim]:
        locked = [claim for claim in claims if claim.job.id in self.store.locked]
        free = [claim for claim in claims if claim.job.id not in self.store.locked]
        return [*locked, *await super().renew(free)]


@breaks("a_locked_record_can_be_renewed")
class ALockedRecordIsLost(Sound):
    """Renew says that a claim is lost where others have its record locked."""

    async def renew(self, claims: Sequence[Claim]) -> Sequence[Claim]:
        free = [claim for claim in claims if claim.job.id not in self.store.locked]
        return await super().renew(free)


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
    """A claim whose record was locked gets a further lease, though nobody renews it."""

    makes = KeepsWhatWasLocked


@breaks("a_lost_claim_is_not_renewed")
class RenewsWhatIsLost(Sound):
    """Renew returns all that it was asked for."""

    async def renew(self, claims: Sequence[Claim]) -> Sequence[Claim]:
        await super().renew(claims)
        return [evolve(claim, expires_at=self._now() + LEASE) for claim in claims]


@breaks("renewing_keeps_what_was_lost")
class RenewForgetsWhatWasLost(Sound):
    """A renewed claim is written without what it took over."""

    async def renew(self, claims: Sequence[Claim]) -> Sequence[Claim]:
        renewed = [evolve(claim, lost=None) for claim in await super().renew(claims)]
        for claim in renewed:
            self.store.rows[claim.job.id].hold = claim
        return renewed


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
            row = self.store.rows.get(claim.job.id)
            if row is not None and row.job is not None:
                tried = evolve(row.job.standing, attempts=row.job.standing.attempts + 1)
                row.job = evolve(row.job, standing=tried)


@breaks("releasing_what_is_not_held_does_nothing")
class ReleasesWhatIsNotItsOwn(Sound):
    """Release frees the job by its id."""

    async def release(self, claims: Sequence[Claim]) -> None:
        holds = []
        for claim in claims:
            row = self.store.rows.get(claim.job.id)
            if row is not None and row.hold is not None:
                holds.append(row.hold)
        await super().release(holds)


@breaks("lost_attempts_keep_counting_after_a_release")
class ReleaseForgetsLostAttempts(Sound):
    """A takeover that is released leaves no trace of what was lost before."""

    async def release(self, claims: Sequence[Claim]) -> None:
        await super().release(claims)
        for row in self.store.rows.values():
            row.released = None


@breaks("lost_attempts_keep_counting_after_a_release")
class LostAttemptsCountForEver(ClaimsOtherwise):
    """What was lost of one occurrence counts against the next one, too."""

    def change(self, claim: Claim) -> Claim:
        lost = self.store.__dict__.setdefault("lost", {})
        if claim.lost is not None:
            lost[claim.job.id] = claim.lost
        return evolve(claim, lost=lost.get(claim.job.id))


@breaks("what_was_lost_ends_with_its_occurrence")
class LostAttemptsOutliveAnEdit(Sound):
    """What a released takeover had lost is kept by id, and counts whatever is claimed next."""

    async def replace(self, job: Job, ledger: Sequence[Execution] = ()) -> Job:
        replaced = await super().replace(job, ledger)
        row = self.store.rows[job.id]
        if row.released is not None:
            row.released = evolve(row.released, job=replaced)
        return replaced


@breaks("an_empty_claim_means_that_nothing_is_due")
class TombstonesUseUpTheLimit(Sound):
    """What is cleared away counts towards the limit."""

    async def claim_due(self, limit: int) -> Sequence[Claim]:
        claims: list[Claim] = []
        for _ in range(limit):
            before = len(self.store.rows)
            claimed = await super().claim_due(1)
            if len(self.store.rows) < before:
                await self.release(claimed)
                continue
            if not claimed:
                break
            claims += claimed
        return claims


@breaks("a_cancelled_claim_leaves_nothing_claimed")
class CancelledClaimLeaks(Sound):
    """A claim that is cancelled while its reply travels stays claimed."""

    async def claim_due(self, limit: int) -> Sequence[Claim]:
        claims = await super().claim_due(limit)
        await checkpoint()
        return claims
