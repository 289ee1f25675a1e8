"""Deliberately wrong backends, each wrong in one way that an author could get wrong.

Each is a :class:`Sound` backend, which passes every law, with one thing changed, and names the law
that must kill it.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import Any, ClassVar

from anyio.lowlevel import checkpoint
from attrs import evolve, frozen

from sched_core import (
    BackendError,
    BackendUnavailable,
    Capabilities,
    Claim,
    Clock,
    Cron,
    Execution,
    ExecutionQuery,
    Job,
    JobAlreadyExists,
    JobNotFound,
    JobQuery,
    LostClaim,
    MemoryBackend,
    MemoryStore,
    Page,
    Settled,
    Settlement,
    State,
    Status,
    SystemClock,
    Undecodable,
)
from sched_core.clock import Alarm
from sched_core.memory import _matches, _Row, _same, _selected
from sched_core.ports import MAX_POLL
from sched_testkit import Harness

LEASE = timedelta(seconds=30)
TICK = timedelta(microseconds=1)
NOTHING = timedelta(0)


class Store(MemoryStore):
    """Data that stays when its backend crashes, and that can be put out of reach."""

    def __init__(self) -> None:
        super().__init__()
        self.cut = False


class Sound(MemoryBackend):
    """The one that is right: nothing changed but that it can crash and be cut off."""

    makes: ClassVar[type[Store]] = Store
    store: Any

    def __init__(self, store: Store) -> None:
        super().__init__(store, lease=LEASE)
        self._capabilities = Capabilities(
            durable=True, shared=True, time="clock", granularity=TICK, lease=LEASE
        )

    def _now(self) -> datetime:
        if self.store.cut:
            raise BackendUnavailable("cut off")
        return super()._now()

    async def wait_due(self, limit: int) -> None:
        await checkpoint()
        await super().wait_due(limit)

    def died(self) -> None:
        """Called in place of close when the process is killed."""


@frozen
class Mutant:
    """A wrong backend, and the law that it breaks."""

    name: str
    backend: type[Sound]
    law: str

    @property
    def text(self) -> str:
        """What is wrong with it."""
        return " ".join((self.backend.__doc__ or "").split())


class MutantHarness(Harness):
    """Examines one; with little patience, as mutants hang on purpose."""

    can_cut = can_spoil = True

    def __init__(self, backend: type[Sound]) -> None:
        self.name = backend.__name__
        self.patience = 20 if backend is Sound else 0.5
        self._make = backend

    @contextmanager
    def place(self) -> Iterator[Store]:
        yield self._make.makes()

    def backend(self, place: Any) -> Sound:
        return self._make(place)

    async def crash(self, backend: Any) -> None:
        backend.died()

    async def cut(self, place: Any) -> None:
        place.cut = True

    async def heal(self, place: Any) -> None:
        place.cut = False

    async def spoil(self, place: Any, job_id: str) -> None:
        del place.rows[job_id]
        place.unreadable[job_id] = Undecodable(job_id, "format 99 is not known", 99, b"{}")


MUTANTS: list[Mutant] = []


def breaks(law: str) -> Callable[[type[Sound]], type[Sound]]:
    """Register a mutant with the law that must kill it."""

    def register(backend: type[Sound]) -> type[Sound]:
        MUTANTS.append(Mutant(backend.__name__, backend, law))
        return backend

    return register


# -- add, get ----------------------------------------------------------------


class AddsOtherwise(Sound):
    """Base: what is added is changed on the way."""

    def change(self, job: Job) -> Job:
        raise NotImplementedError

    def _revised(self, job: Job) -> Job:
        return super()._revised(self.change(job))


@breaks("an_added_job_is_stored_as_it_was_given")
class CutsMicroseconds(AddsOtherwise):
    """Moments are stored in milliseconds."""

    def change(self, job: Job) -> Job:
        due = job.standing.due_at
        if due is not None:
            due = due.replace(microsecond=due.microsecond // 1000 * 1000)
        return evolve(job, standing=evolve(job.standing, due_at=due))


@breaks("an_added_job_is_stored_as_it_was_given")
class LosesTheZone(AddsOtherwise):
    """A cron expression is stored without its zone."""

    def change(self, job: Job) -> Job:
        schedule = job.spec.schedule
        if isinstance(schedule, Cron):
            schedule = evolve(schedule, tz="UTC")
        return evolve(job, spec=evolve(job.spec, schedule=schedule))


@breaks("an_added_job_is_stored_as_it_was_given")
class ForgetsThatItWasDeclared(AddsOtherwise):
    """Whether a job was declared or submitted has no column."""

    def change(self, job: Job) -> Job:
        return evolve(job, declared=False)


@breaks("an_added_job_is_stored_as_it_was_given")
class StartsEveryJobAfresh(AddsOtherwise):
    """Counters of a new job are set to zero, as if no job were ever imported."""

    def change(self, job: Job) -> Job:
        return evolve(job, standing=evolve(job.standing, attempts=0, failures=0))


@breaks("any_legal_job_survives_a_round_trip")
class DropsNuls(AddsOtherwise):
    """NUL characters in metadata are dropped, because the database cannot keep them."""

    def change(self, job: Job) -> Job:
        kept = {k.replace("\0", ""): v.replace("\0", "") for k, v in job.spec.metadata.items()}
        return evolve(job, spec=evolve(job.spec, metadata=kept))


@breaks("a_stored_job_shares_nothing_with_the_caller")
class SharesMetadata(AddsOtherwise):
    """Metadata is handed out as the very dictionary that is stored."""

    def change(self, job: Job) -> Job:
        spec = evolve(job.spec)
        object.__setattr__(spec, "metadata", dict(job.spec.metadata))
        return evolve(job, spec=spec)


@breaks("get_of_an_unknown_id_is_none")
class RaisesForUnknownIds(Sound):
    """Get raises JobNotFound instead of returning None."""

    async def get(self, job_id: str) -> Job | Undecodable | None:
        found = await super().get(job_id)
        if found is None:
            raise JobNotFound(job_id)
        return found


@breaks("get_of_an_unknown_id_is_none")
class RemovesWhatIsNotThere(Sound):
    """Remove answers True whatever was there: nobody looked at the row count."""

    async def remove(
        self, job_id: str, ledger: Sequence[Execution] = (), *, expected: int | None = None
    ) -> bool:
        await super().remove(job_id, ledger, expected=expected)
        return True


@breaks("a_taken_id_is_refused")
class AddOverwrites(Sound):
    """Add is an upsert."""

    async def add(self, jobs: Sequence[Job]) -> Sequence[Job]:
        for job in jobs:
            row = self.store.rows.get(job.id)
            if row is not None:
                row.job = None
        return await super().add(jobs)


@breaks("adding_the_same_incarnation_again_is_a_repeat")
class RefusesARepeatedAdd(Sound):
    """An add whose reply got lost meets its own job, and is refused."""

    async def add(self, jobs: Sequence[Job]) -> Sequence[Job]:
        for job in jobs:
            if isinstance(await self.get(job.id), Job):
                raise JobAlreadyExists(job.id)
        return await super().add(jobs)


@breaks("adding_the_same_incarnation_again_is_a_repeat")
class RepeatedAddResets(Sound):
    """A repeated add writes the job again, and takes back what has happened since."""

    def _add(self, job: Job) -> Job:
        stored = super()._add(job)
        row = self.store.rows[job.id]
        row.job = stored = self._revised(evolve(job, revision=stored.revision))
        self.store.schedule(job.id, row)
        return stored


class OneByOne(Sound):
    """Base: a bulk add is a loop."""

    async def add(self, jobs: Sequence[Job]) -> Sequence[Job]:
        return [(await super(OneByOne, self).add([job]))[0] for job in jobs]


@breaks("a_bulk_add_is_all_or_nothing")
class BulkAddStopsHalfWay(OneByOne):
    """A bulk add is a loop, and ends where an id is taken."""


@breaks("an_id_twice_in_one_bulk_add_is_refused")
class LastOfABulkAddWins(Sound):
    """A bulk add gathers its jobs by id first."""

    async def add(self, jobs: Sequence[Job]) -> Sequence[Job]:
        return await super().add(list({job.id: job for job in jobs}.values()))


@breaks("a_bulk_add_takes_as_many_as_declared")
class BulkAddHasASecretLimit(Sound):
    """A bulk add writes what fits into one statement."""

    async def add(self, jobs: Sequence[Job]) -> Sequence[Job]:
        return await super().add(jobs[:500])


@breaks("a_cancelled_bulk_add_is_whole")
class BulkAddCanBeCancelledHalfWay(Sound):
    """A bulk add awaits between its jobs, and has no transaction."""

    async def add(self, jobs: Sequence[Job]) -> Sequence[Job]:
        for job in jobs:
            stored = await self.get(job.id)
            if isinstance(stored, Job) and stored.uid != job.uid:
                raise JobAlreadyExists(job.id)
        added = []
        for job in jobs:
            added.append(self._add(job))
            await checkpoint()
        return added


# -- revisions, replace, remove ----------------------------------------------


@breaks("revisions_only_grow")
class RevisionsStartAgain(Sound):
    """Revisions count from 1 in each row, so that a re-added job repeats them."""

    def _revised(self, job: Job) -> Job:
        row = self.store.rows.get(job.id)
        earlier = 0 if row is None or row.job is None else row.job.revision
        return evolve(super()._revised(job), revision=earlier + 1)


@breaks("revisions_only_grow")
class SettleKeepsTheRevision(Sound):
    """A settlement does not move the revision."""

    def _settle(self, settlement: Settlement) -> Settled:
        settled = super()._settle(settlement)
        row = self.store.rows.get(settlement.claim.job.id)
        if row is not None and row.job is not None and settlement.expected is not None:
            row.job = evolve(row.job, revision=settlement.expected)
        return settled


@breaks("replace_is_a_compare_and_set")
class ReplaceComparesNothing(Sound):
    """Replace writes whatever revision it was decided on: the last one wins."""

    async def replace(self, job: Job, ledger: Sequence[Execution] = ()) -> Job:
        stored = await self.get(job.id)
        if isinstance(stored, Job):
            job = evolve(job, revision=stored.revision)
        return await super().replace(job, ledger)


@breaks("replacing_what_is_gone_is_not_found")
class ReplaceInserts(Sound):
    """Replace is an upsert, and brings a removed job back."""

    async def replace(self, job: Job, ledger: Sequence[Execution] = ()) -> Job:
        if await self.get(job.id) is None:
            return (await self.add([job]))[0]
        return await super().replace(job, ledger)


@breaks("a_replacement_is_stored_as_it_was_given")
class ReplaceKeepsTheStanding(Sound):
    """Replace writes the definition only."""

    async def replace(self, job: Job, ledger: Sequence[Execution] = ()) -> Job:
        stored = await self.get(job.id)
        if isinstance(stored, Job):
            job = evolve(job, standing=evolve(job.standing, failures=stored.standing.failures))
        return await super().replace(job, ledger)


@breaks("a_replacement_is_stored_as_it_was_given")
class ReplaceMergesMetadata(Sound):
    """Replace updates metadata key by key, and removes none."""

    async def replace(self, job: Job, ledger: Sequence[Execution] = ()) -> Job:
        stored = await self.get(job.id)
        if isinstance(stored, Job):
            both = {**stored.spec.metadata, **job.spec.metadata}
            job = evolve(job, spec=evolve(job.spec, metadata=both))
        return await super().replace(job, ledger)


@breaks("removal_is_a_compare_and_set")
class RemoveComparesNothing(Sound):
    """Remove ignores the revision that it was decided on."""

    async def remove(
        self, job_id: str, ledger: Sequence[Execution] = (), *, expected: int | None = None
    ) -> bool:
        return await super().remove(job_id, ledger)


@breaks("lines_of_an_edit_are_written_with_it")
class ReplaceForgetsItsLines(Sound):
    """Replace does not write the lines that it is given."""

    async def replace(self, job: Job, ledger: Sequence[Execution] = ()) -> Job:
        return await super().replace(job)


@breaks("lines_of_an_edit_are_written_with_it")
class RemoveForgetsItsLines(Sound):
    """Remove does not write the lines that it is given."""

    async def remove(
        self, job_id: str, ledger: Sequence[Execution] = (), *, expected: int | None = None
    ) -> bool:
        return await super().remove(job_id, expected=expected)


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


# -- claims ------------------------------------------------------------------


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
        row.job = self._revised(claim.job)
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
                self.store.schedule(job_id, row)
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
        def schedule(self, job_id: str, row: _Row) -> None:
            hold = row.hold
            if hold is not None:
                row.hold = evolve(hold, expires_at=hold.expires_at + TICK)
            super().schedule(job_id, row)
            row.hold = hold

    makes = Longer


@breaks("renewing_extends_the_lease")
class LeasesAreTooShort(Sound):
    """A claim is taken over a moment before its lease has ended."""

    class Shorter(Store):
        def schedule(self, job_id: str, row: _Row) -> None:
            hold = row.hold
            if hold is not None:
                row.hold = evolve(hold, expires_at=hold.expires_at - TICK)
            super().schedule(job_id, row)
            row.hold = hold

    makes = Shorter


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

    def _lose(self, row: _Row, hold: Claim, now: datetime) -> LostClaim | None:
        written, lines = dict(self.store.written), list(self.store.lines)
        lost = super()._lose(row, hold, now)
        if lost is not None:
            self.store.written, self.store.lines = written, lines
        return lost


@breaks("a_takeover_writes_the_abandoned_line")
class AbandonedIsTheEnd(Sound):
    """The line of a lost attempt is written as a final one."""

    class Final(Store):
        def write(self, lines: Sequence[Execution], *, held: Claim | None = None) -> None:
            lost = Status.ABANDONED
            super().write(
                [evolve(line, final=line.final or line.status is lost) for line in lines],
                held=held,
            )

    makes = Final


@breaks("renewing_extends_the_lease")
class RenewsTheReplyOnly(Sound):
    """Renew computes the new moment, and does not store it."""

    async def renew(self, claims: Sequence[Claim]) -> Sequence[Claim]:
        holds = {job_id: row.hold for job_id, row in self.store.rows.items()}
        renewed = await super().renew(claims)
        for claim in renewed:
            row = self.store.rows[claim.job.id]
            row.hold = holds[claim.job.id]
            self.store.schedule(claim.job.id, row)
        return renewed


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


# -- settling ----------------------------------------------------------------


class WritesOtherwise(Store):
    """Base: the ledger is written in another way."""

    def change(self, line: Execution) -> Execution | None:
        raise NotImplementedError

    def write(self, lines: Sequence[Execution], *, held: Claim | None = None) -> None:
        changed = [new for line in lines if (new := self.change(line)) is not None]
        super().write(changed, held=held)


@breaks("a_settlement_writes_the_standing_and_the_ledger")
class SettlesWithoutALine(Sound):
    """A settlement moves the job, and writes nothing to the ledger."""

    def _settle(self, settlement: Settlement) -> Settled:
        return super()._settle(evolve(settlement, ledger=()))


@breaks("a_settlement_writes_the_standing_and_the_ledger")
class WritesALineWithoutSettling(Sound):
    """A settlement writes its lines, and leaves the job as it was."""

    def _settle(self, settlement: Settlement) -> Settled:
        row = self.store.rows.get(settlement.claim.job.id)
        job = None if row is None else row.job
        settled = super()._settle(settlement)
        if settled.outcome == "written" and row is not None and job is not None:
            row.job = job
            self.store.schedule(job.id, row)
        return settled


@breaks("any_legal_line_survives_a_round_trip")
class TheLedgerHasSeconds(Sound):
    """Moments in the ledger are kept in whole seconds."""

    class Seconds(WritesOtherwise):
        def change(self, line: Execution) -> Execution:
            return evolve(line, finished_at=line.finished_at.replace(microsecond=0))

    makes = Seconds


@breaks("any_legal_line_survives_a_round_trip")
class TheLedgerForgetsWhoAsked(Sound):
    """Whether a run was triggered by hand has no column."""

    class Scheduled(WritesOtherwise):
        def change(self, line: Execution) -> Execution:
            return evolve(line, manual=False)

    makes = Scheduled


@breaks("a_settlement_writes_the_standing_and_the_ledger")
class CutsReasons(Sound):
    """Reasons are stored as ASCII."""

    class Ascii(WritesOtherwise):
        def change(self, line: Execution) -> Execution:
            reason = line.reason
            return evolve(line, reason=reason and reason.encode("ascii", "replace").decode())

    makes = Ascii


@breaks("a_settled_job_can_be_due_at_once")
class SettledRests(Sound):
    """What is settled is looked at again from the next second on."""

    def _settle(self, settlement: Settlement) -> Settled:
        settled = super()._settle(settlement)
        row = self.store.rows.get(settlement.claim.job.id)
        if row is not None and row.wake is not None and row.wake <= self._now():
            row.wake += timedelta(seconds=1)
            self.store.due.append((row.wake, settlement.claim.job.id))
            self.store.due.sort()
        return settled


@breaks("a_repeated_settlement_is_written_once")
class ARepeatIsLost(Sound):
    """A settlement whose reply got lost is answered with claim_lost when it is sent again."""

    def _settle(self, settlement: Settlement) -> Settled:
        row = self.store.rows.get(settlement.claim.job.id)
        if row is None or row.hold is None or not _same(row.hold, settlement.claim):
            return Settled("claim_lost")
        return super()._settle(settlement)


@breaks("a_repeated_settlement_is_written_once")
class ForgetsWhatWasSettledBefore(Sound):
    """A repeated settlement is known only until the job is claimed again."""

    def _in_ledger(self, settlement: Settlement) -> bool:
        return False


@breaks("a_stale_settlement_changes_nothing")
class NoFence(Sound):
    """A settlement is written whoever holds the job now."""

    def _settle(self, settlement: Settlement) -> Settled:
        row = self.store.rows.get(settlement.claim.job.id)
        if row is not None and row.hold is not None:
            settlement = evolve(settlement, claim=row.hold)
        return super()._settle(settlement)


@breaks("a_stale_settlement_changes_nothing")
class AZombieHasTheLastWord(Sound):
    """A settlement that comes too late is refused, and its line is written all the same."""

    def _settle(self, settlement: Settlement) -> Settled:
        settled = super()._settle(settlement)
        if settled.outcome == "claim_lost":
            late = [evolve(line, id=f"{line.id}:late", final=False) for line in settlement.ledger]
            self.store.write(late)
        return settled


class FencedOtherwise(Sound):
    """Base: another notion of whose claim it is."""

    def holds(self, hold: Claim, claim: Claim) -> bool:
        raise NotImplementedError

    def _pass(self, claim: Claim) -> Claim:
        row = self.store.rows.get(claim.job.id)
        hold = None if row is None else row.hold
        if hold is not None and self.holds(hold, claim):
            return evolve(claim, token=hold.token, worker=hold.worker)
        return claim

    def _settle(self, settlement: Settlement) -> Settled:
        return super()._settle(evolve(settlement, claim=self._pass(settlement.claim)))

    async def renew(self, claims: Sequence[Claim]) -> Sequence[Claim]:
        return await super().renew([self._pass(claim) for claim in claims])

    async def release(self, claims: Sequence[Claim]) -> None:
        await super().release([self._pass(claim) for claim in claims])


@breaks("the_fence_is_token_and_worker")
class FencedByToken(FencedOtherwise):
    """The fence is the token alone, which repeats when a backup is restored."""

    def holds(self, hold: Claim, claim: Claim) -> bool:
        return hold.token == claim.token


@breaks("the_fence_is_token_and_worker")
class FencedByWorker(FencedOtherwise):
    """The fence is the worker alone, which may have lost the job and claimed it again."""

    def holds(self, hold: Claim, claim: Claim) -> bool:
        return hold.worker == claim.worker


@breaks("an_edit_wins_over_a_settlement")
class SettleOverwritesEdits(Sound):
    """A settlement is written whatever was edited meanwhile."""

    def _settle(self, settlement: Settlement) -> Settled:
        row = self.store.rows.get(settlement.claim.job.id)
        if row is not None and row.job is not None and settlement.standing is not None:
            settlement = evolve(settlement, expected=row.job.revision)
        return super()._settle(settlement)


@breaks("an_edit_wins_over_a_settlement")
class ConflictsLeaveALine(Sound):
    """The ledger is written before the conflict is found."""

    def _settle(self, settlement: Settlement) -> Settled:
        settled = super()._settle(settlement)
        if settled.outcome == "conflict":
            self.store.write([evolve(line, final=False) for line in settlement.ledger])
        return settled


@breaks("an_edit_wins_over_a_settlement")
class ConflictsTellNothing(Sound):
    """A conflict does not say what is stored now."""

    def _settle(self, settlement: Settlement) -> Settled:
        return evolve(super()._settle(settlement), job=None)


@breaks("an_edit_keeps_the_hold")
class EditsFreeTheClaim(Sound):
    """An edit writes the whole row, the hold included."""

    async def replace(self, job: Job, ledger: Sequence[Execution] = ()) -> Job:
        replaced = await super().replace(job, ledger)
        row = self.store.rows[job.id]
        row.hold = None
        self.store.schedule(job.id, row)
        return replaced


@breaks("a_ledger_only_settlement_needs_a_job_that_moved_on")
class BelievesTheCaller(Sound):
    """A settlement without a standing is always written."""

    def _settle(self, settlement: Settlement) -> Settled:
        row = self.store.rows.get(settlement.claim.job.id)
        stands = row is not None and row.job is not None and settlement.standing is None
        if stands and row.hold is not None and _same(row.hold, settlement.claim):
            self.store.write(settlement.ledger)
            return super()._settle(evolve(settlement, ledger=()))
        return super()._settle(settlement)


@breaks("a_claim_can_be_freed_without_a_word")
class NothingToSettle(Sound):
    """A settlement that writes nothing is answered without a look at the store."""

    def _settle(self, settlement: Settlement) -> Settled:
        if settlement.standing is None and not settlement.ledger:
            return Settled("written")
        return super()._settle(settlement)


@breaks("a_second_final_line_is_refused")
class TwoEnds(Sound):
    """An occurrence may end as often as somebody says so."""

    class Endless(Store):
        def has_final(self, uid: str, number: int) -> bool:
            self.final.clear()
            return False

    makes = Endless


@breaks("a_batch_reports_each_settlement")
class OneBadRowFailsTheBatch(Sound):
    """A batch is one transaction, and is taken back as a whole."""

    async def settle(self, settlements: Sequence[Settlement]) -> Sequence[Settled]:
        for settlement in settlements:
            row = self.store.rows.get(settlement.claim.job.id)
            job = None if row is None else row.job
            if job is not None and job.revision != settlement.expected and row.hold is not None:
                return [Settled("conflict", job) for _ in settlements]
        return await super().settle(settlements)


@breaks("a_batch_reports_each_settlement")
class AnswersOutOfOrder(Sound):
    """A batch is sorted by id, to avoid deadlocks, and so are its answers."""

    async def settle(self, settlements: Sequence[Settlement]) -> Sequence[Settled]:
        return await super().settle(sorted(settlements, key=lambda one: one.claim.job.id))


@breaks("each_attempt_has_a_line_of_its_own")
class OneLineForAnOccurrence(Sound):
    """The ledger's key has no attempt in it: of several lines the first one stays."""

    class Keyed(WritesOtherwise):
        def change(self, line: Execution) -> Execution | None:
            known = {(other.uid, other.number) for _, other in self.lines}
            return None if (line.uid, line.number) in known else line

    makes = Keyed


@breaks("a_cancelled_settlement_is_whole")
class SettlesInTwoSteps(Sound):
    """The ledger is written first, and then the job, in a transaction of its own."""

    async def settle(self, settlements: Sequence[Settlement]) -> Sequence[Settled]:
        for settlement in settlements:
            row = self.store.rows.get(settlement.claim.job.id)
            hold = None if row is None else row.hold
            if hold is not None and _same(hold, settlement.claim):
                job = row.job
                if job is not None and job.revision == settlement.expected:
                    self.store.write(settlement.ledger)
        await checkpoint()
        return await super().settle(settlements)


@breaks("a_fate_written_beside_a_run_stands")
class OneLineForASettlement(Sound):
    """A settlement writes its first line."""

    def _settle(self, settlement: Settlement) -> Settled:
        return super()._settle(evolve(settlement, ledger=settlement.ledger[:1]))


# -- removal -----------------------------------------------------------------


@breaks("a_removed_job_is_gone")
class RemovedIsListed(Sound):
    """Listing does not look at the mark of removed jobs."""

    async def remove(
        self, job_id: str, ledger: Sequence[Execution] = (), *, expected: int | None = None
    ) -> bool:
        stored = await self.get(job_id)
        removed = await super().remove(job_id, ledger, expected=expected)
        if isinstance(stored, Job):
            self.store.__dict__.setdefault("removed", []).append(stored)
        return removed

    async def jobs(
        self, query: JobQuery, *, after: str | None, limit: int
    ) -> Page[Job | Undecodable]:
        page = await super().jobs(query, after=after, limit=limit)
        removed = self.store.__dict__.get("removed", []) if page.next is None else []
        return Page([*page.items, *removed], page.next)


@breaks("a_removed_job_is_gone")
class RemoveIsForgotten(Sound):
    """A removed job is hidden from get, and still handed out."""

    async def remove(
        self, job_id: str, ledger: Sequence[Execution] = (), *, expected: int | None = None
    ) -> bool:
        hidden = self.store.__dict__.setdefault("hidden", set())
        if await self.get(job_id) is None:
            return False
        hidden.add(job_id)
        return True

    async def get(self, job_id: str) -> Job | Undecodable | None:
        hidden = job_id in self.store.__dict__.get("hidden", ())
        return None if hidden else await super().get(job_id)


@breaks("a_settlement_cannot_bring_a_job_back")
class SettleBringsBack(Sound):
    """A settlement is an upsert, and brings a removed job back."""

    def _settle(self, settlement: Settlement) -> Settled:
        row = self.store.rows.get(settlement.claim.job.id)
        if row is not None and row.job is None and settlement.standing is not None:
            row.job = settlement.claim.job
            settlement = evolve(settlement, expected=row.job.revision)
        return super()._settle(settlement)


@breaks("a_readded_job_waits_for_the_old_run")
class ReAddForgetsTheTombstone(Sound):
    """A job that is added again starts with a fresh row."""

    async def add(self, jobs: Sequence[Job]) -> Sequence[Job]:
        for job in jobs:
            row = self.store.rows.get(job.id)
            if row is not None and row.job is None:
                del self.store.rows[job.id]
        return await super().add(jobs)


@breaks("a_readded_job_waits_for_the_old_run")
class RemoveDeletesTheRow(Sound):
    """A removed job leaves no tombstone: a re-added one runs beside the old run."""

    async def remove(
        self, job_id: str, ledger: Sequence[Execution] = (), *, expected: int | None = None
    ) -> bool:
        removed = await super().remove(job_id, ledger, expected=expected)
        if removed:
            self.store.rows.pop(job_id, None)
        return removed


@breaks("a_readded_job_with_the_same_moment_is_another")
class OccurrencesAreMoments(Sound):
    """An occurrence is known by id and moment, so that a re-added job has ended already."""

    class ByMoment(WritesOtherwise):
        def change(self, line: Execution) -> Execution | None:
            known = {(other.job_id, other.scheduled_at) for _, other in self.lines}
            same = line.final and (line.job_id, line.scheduled_at) in known
            return None if same else line

    makes = ByMoment


@breaks("what_a_lost_claim_left_behind_is_superseded")
class EditsWriteTheFateOfARun(Sound):
    """An edit writes the line of the occurrence that is running."""

    class Eager(Store):
        def write(self, lines: Sequence[Execution], *, held: Claim | None = None) -> None:
            super().write(lines)

    makes = Eager


@breaks("what_a_lost_claim_left_behind_is_superseded")
class LostCountsAgainstTheNext(Sound):
    """A lost claim counts against whatever occurrence is handed out next."""

    def _lose(self, row: _Row, hold: Claim, now: datetime) -> LostClaim | None:
        super()._lose(row, hold, now)
        earlier = 0 if hold.lost is None else hold.lost.count
        return LostClaim(earlier + 1, hold.worker, hold.claimed_at)


@breaks("what_a_lost_claim_left_behind_is_superseded")
class EditedAwayWithoutAFate(Sound):
    """A takeover writes what was abandoned, and not that the occurrence is superseded."""

    class Half(WritesOtherwise):
        def change(self, line: Execution) -> Execution | None:
            return None if line.status is Status.SUPERSEDED else line

    makes = Half


@breaks("a_lost_claim_of_a_removed_job_is_cleared")
class TombstonesVanish(Sound):
    """A tombstone whose lease has ended is deleted, and its run leaves no line."""

    async def claim_due(self, limit: int) -> Sequence[Claim]:
        now = self._now()
        for job_id, row in list(self.store.rows.items()):
            if row.job is None and row.hold is not None and row.hold.expires_at <= now:
                del self.store.rows[job_id]
        return await super().claim_due(limit)


@breaks("releasing_what_was_edited_away_writes_its_fate")
class ReleaseWritesNoFate(Sound):
    """Releasing an occurrence that was edited away leaves it without an end."""

    async def release(self, claims: Sequence[Claim]) -> None:
        lines, written, final = self.store.lines, self.store.written, self.store.final
        self.store.lines, self.store.written, self.store.final = [], {}, {}
        await super().release(claims)
        self.store.lines, self.store.written, self.store.final = lines, written, final


# -- listing -----------------------------------------------------------------


class ListsOtherwise(Sound):
    """Base: pages made of a list of its own."""

    def key(self, job_id: str) -> Any:
        return job_id

    def select(self, query: JobQuery) -> list[Job | Undecodable]:
        found = [row.job for row in self.store.rows.values() if row.job is not None]
        found = [job for job in found if self.matches(job, query)]
        unreadable = self.store.unreadable.values()
        found += [one for one in unreadable if one.id.startswith(query.id_prefix)]
        return sorted(found, key=lambda job: self.key(job.id))

    def matches(self, job: Job, query: JobQuery) -> bool:
        return _matches(job, query)

    async def jobs(
        self, query: JobQuery, *, after: str | None, limit: int
    ) -> Page[Job | Undecodable]:
        self._now()
        found = self.select(query)
        if after is not None:
            found = [job for job in found if self.key(job.id) > self.key(after)]
        return Page(found[:limit], found[limit - 1].id if len(found) > limit else None)


@breaks("pages_of_jobs_are_stable")
class PagesByOffset(ListsOtherwise):
    """The next page begins at a position, which moves when something is added or removed."""

    async def jobs(
        self, query: JobQuery, *, after: str | None, limit: int
    ) -> Page[Job | Undecodable]:
        self._now()
        found, start = self.select(query), int(after or 0)
        more = start + limit < len(found)
        return Page(found[start : start + limit], str(start + limit) if more else None)


@breaks("pages_are_complete")
class TheLastPageIsMissing(Sound):
    """A page that is not full is taken for the end of the one before."""

    async def jobs(
        self, query: JobQuery, *, after: str | None, limit: int
    ) -> Page[Job | Undecodable]:
        page = await super().jobs(query, after=after, limit=limit)
        if page.next is None:
            return page
        rest = await super().jobs(query, after=page.next, limit=limit)
        return Page(page.items, page.next if len(rest.items) == limit else None)


@breaks("pages_are_complete")
class PagesLeaveOneOut(Sound):
    """The next page begins after the first job that the last page had no room for."""

    async def jobs(
        self, query: JobQuery, *, after: str | None, limit: int
    ) -> Page[Job | Undecodable]:
        page = await super().jobs(query, after=after, limit=limit)
        if page.next is None:
            return page
        rest = await super().jobs(query, after=page.next, limit=1)
        return Page(page.items, rest.items[0].id)


@breaks("jobs_come_in_id_order")
class OrderedByLocale(ListsOtherwise):
    """Ids are ordered as people order words, capitals and accents aside."""

    def key(self, job_id: str) -> Any:
        return job_id.casefold(), job_id


@breaks("jobs_come_in_id_order")
class OrderedByUtf16(ListsOtherwise):
    """Ids are ordered by UTF-16 code units, as JavaScript and Java do."""

    def key(self, job_id: str) -> Any:
        return job_id.encode("utf-16-be")


@breaks("filters_select")
class PrefixIsAPattern(ListsOtherwise):
    """The prefix goes into a LIKE, and is not escaped."""

    def matches(self, job: Job, query: JobQuery) -> bool:
        pattern = query.id_prefix.replace("%", "*").replace("_", "?") + "*"
        return fnmatch.fnmatchcase(job.id, pattern) and _matches(job, evolve(query, id_prefix=""))


@breaks("filters_select")
class PrefixIgnoresCase(ListsOtherwise):
    """The prefix goes into a LIKE, which ignores case."""

    def matches(self, job: Job, query: JobQuery) -> bool:
        same = job.id.lower().startswith(query.id_prefix.lower())
        return same and _matches(job, evolve(query, id_prefix=""))


@breaks("filters_select")
class AnyFilterWillDo(ListsOtherwise):
    """Filters are joined by OR."""

    def matches(self, job: Job, query: JobQuery) -> bool:
        asked = [JobQuery(id_prefix=query.id_prefix)] if query.id_prefix else []
        asked += [JobQuery(state=query.state)] if query.state else []
        asked += [JobQuery(group=query.group)] if query.group else []
        asked += [JobQuery(metadata={key: value}) for key, value in query.metadata.items()]
        return not asked or any(_matches(job, one) for one in asked)


@breaks("filters_select")
class FinishedIsHidden(ListsOtherwise):
    """Finished jobs are left out of every listing."""

    def matches(self, job: Job, query: JobQuery) -> bool:
        return job.standing.state is not State.FINISHED and _matches(job, query)


class LedgerOtherwise(Sound):
    """Base: ledger pages made of a list of its own."""

    def selected(self, line: Execution, query: ExecutionQuery) -> bool:
        return _selected(line, query)

    def key(self, position: int, job_id: str) -> Any:
        return -position

    async def executions(
        self, query: ExecutionQuery, *, after: str | None, limit: int
    ) -> Page[Execution]:
        self._now()
        found = [entry for entry in self.store.lines if self.selected(entry[1], query)]
        found.sort(key=lambda entry: self.key(entry[0], entry[1].job_id))
        if after is not None:
            position, _, job_id = after.partition(" ")
            last = self.key(int(position), job_id)
            found = [entry for entry in found if self.key(entry[0], entry[1].job_id) > last]
        page = found[:limit]
        cursor = f"{page[-1][0]} {page[-1][1].job_id}" if len(found) > limit else None
        return Page([line for _, line in page], cursor)


@breaks("pages_of_the_ledger_are_stable")
class LedgerPagesByOffset(Sound):
    """The next page begins at a position, which moves with every line that is written."""

    async def executions(
        self, query: ExecutionQuery, *, after: str | None, limit: int
    ) -> Page[Execution]:
        self._now()
        found = [line for _, line in reversed(self.store.lines) if _selected(line, query)]
        start = int(after or 0)
        more = start + limit < len(found)
        return Page(found[start : start + limit], str(start + limit) if more else None)


@breaks("the_ledger_comes_newest_first")
class OldestFirst(LedgerOtherwise):
    """The ledger is listed in the order of writing."""

    def key(self, position: int, job_id: str) -> Any:
        return position


@breaks("the_ledger_comes_newest_first")
class LedgerOfOnePage(Sound):
    """The ledger's first page is its only one."""

    async def executions(
        self, query: ExecutionQuery, *, after: str | None, limit: int
    ) -> Page[Execution]:
        return Page((await super().executions(query, after=after, limit=limit)).items, None)


@breaks("the_whole_ledger_comes_newest_first")
class LedgerJobByJob(LedgerOtherwise):
    """Across jobs the ledger is listed by id."""

    def key(self, position: int, job_id: str) -> Any:
        return job_id, -position


@breaks("the_ledger_is_filtered")
class SinceIsExclusive(LedgerOtherwise):
    """Since is compared with >."""

    def selected(self, line: Execution, query: ExecutionQuery) -> bool:
        return line.finished_at != query.since and _selected(line, query)


@breaks("the_ledger_is_filtered")
class UntilIsInclusive(LedgerOtherwise):
    """Until is compared with <=."""

    def selected(self, line: Execution, query: ExecutionQuery) -> bool:
        inside = query.until is None or line.finished_at <= query.until
        return inside and _selected(line, evolve(query, until=None))


@breaks("the_ledger_is_filtered")
class AnyLedgerFilterWillDo(LedgerOtherwise):
    """The ledger's filters are joined by OR."""

    def selected(self, line: Execution, query: ExecutionQuery) -> bool:
        asked = [ExecutionQuery(job_id=query.job_id)] if query.job_id else []
        asked += [ExecutionQuery(statuses=query.statuses)] if query.statuses else []
        asked += [ExecutionQuery(final=query.final)] if query.final is not None else []
        within = ExecutionQuery(since=query.since, until=query.until)
        some = not asked or any(_selected(line, one) for one in asked)
        return some and _selected(line, within)


@breaks("the_ledger_is_filtered")
class FinalFalseIsNoFilter(LedgerOtherwise):
    """`if query.final:` where `is not None` was meant."""

    def selected(self, line: Execution, query: ExecutionQuery) -> bool:
        return _selected(line, evolve(query, final=query.final or None))


# -- retention, closing, crashing --------------------------------------------


@breaks("prune_deletes_what_is_old_and_nothing_else")
class PrunesTooMuch(Sound):
    """Prune deletes what ended at the moment, too."""

    async def prune(self, before: datetime) -> int:
        return await super().prune(before + TICK)


@breaks("prune_deletes_what_is_old_and_nothing_else")
class PrunesIdleJobs(Sound):
    """Prune deletes jobs that are not due any more."""

    async def prune(self, before: datetime) -> int:
        deleted = await super().prune(before)
        for job_id, row in list(self.store.rows.items()):
            if row.job is not None and row.hold is None and row.job.standing.due_at is None:
                del self.store.rows[job_id]
        return deleted


@breaks("prune_deletes_what_is_old_and_nothing_else")
class PrunesUncounted(Sound):
    """Prune does not say how much it deleted."""

    async def prune(self, before: datetime) -> int:
        await super().prune(before)
        return 0


@breaks("what_has_expired_is_deleted")
class ExpiresTooEarly(Sound):
    """What expires within the second is deleted."""

    pruning = False

    def _now(self) -> datetime:
        return super()._now() + (timedelta(seconds=1) if self.pruning else NOTHING)

    async def prune(self, before: datetime) -> int:
        self.pruning = True
        try:
            return await super().prune(before)
        finally:
            self.pruning = False


@breaks("what_has_expired_is_deleted")
class NothingExpires(Sound):
    """Prune looks at the ledger only."""

    async def prune(self, before: datetime) -> int:
        rows, self.store.rows = self.store.rows, {}
        try:
            return await super().prune(before)
        finally:
            self.store.rows = rows


@breaks("prune_leaves_what_is_claimed")
class PrunesWhatIsClaimed(Sound):
    """Prune deletes expired jobs whether they are claimed or not."""

    async def prune(self, before: datetime) -> int:
        now = self._now()
        for job_id, row in list(self.store.rows.items()):
            ends = None if row.job is None else row.job.standing.expires_at
            if row.hold is not None and ends is not None and ends <= now:
                del self.store.rows[job_id]
        return await super().prune(before)


@breaks("prune_leaves_what_is_claimed")
class PrunesTombstones(Sound):
    """Prune sweeps up what removed jobs have left."""

    async def prune(self, before: datetime) -> int:
        for job_id, row in list(self.store.rows.items()):
            if row.job is None:
                del self.store.rows[job_id]
        return await super().prune(before)


@breaks("everything_survives_reopening")
class ClaimsDieWithTheirProcess(Sound):
    """Claims are kept in the process, and are gone with it, leaving no trace."""

    def died(self) -> None:
        for job_id, row in self.store.rows.items():
            if row.hold is not None and row.hold.worker == self._worker:
                row.hold = None
                self.store.schedule(job_id, row)


@breaks("everything_survives_reopening")
class SettlementsAreBuffered(Sound):
    """What was settled last is still in a buffer when the process dies."""

    def died(self) -> None:
        if self.store.lines:
            self.store.lines.pop()


@breaks("everything_survives_reopening")
class TokensAreInMemory(Sound):
    """The counter of tokens starts again with the process."""

    def died(self) -> None:
        self.store.serial = 0


@breaks("closing_keeps_what_was_written")
class CloseClears(Sound):
    """Close empties the store."""

    async def close(self) -> None:
        await super().close()
        self.store.rows.clear()


@breaks("closing_keeps_what_was_written")
class ClosesOnce(Sound):
    """Closing what is closed is an error."""

    async def close(self) -> None:
        if self._clock is None and self._worker:
            raise BackendError("closed already")
        await super().close()


@breaks("closing_leaves_claims_to_their_lease")
class CloseFreesClaims(Sound):
    """Close frees what is claimed, as if no handler could still be running."""

    async def close(self) -> None:
        for job_id, row in self.store.rows.items():
            if row.hold is not None and row.hold.worker == self._worker:
                row.hold = None
                self.store.schedule(job_id, row)
        await super().close()


# -- waking and time ---------------------------------------------------------


@breaks("waiting_ends_when_something_is_due")
class SleepsWholePolls(Sound):
    """Waiting lasts as long as the longest poll, whatever is due before."""

    async def wait_due(self, limit: int) -> None:
        clock, until = self._clock, self._now() + MAX_POLL
        if clock is not None:
            await self._alarm.sleep(clock, until, self._alarm.count)


@breaks("waiting_ends_after_the_longest_poll")
class SleepsUntilSomethingIsDue(Sound):
    """Waiting ends when something is due, be it in years: a lost notification is never made up."""

    async def wait_due(self, limit: int) -> None:
        clock, earliest = self._clock, self.store.earliest()
        if clock is not None and earliest is not None and earliest > self._now():
            await self._alarm.sleep(clock, earliest, self._alarm.count)


@breaks("waiting_does_not_spin")
class Spins(Sound):
    """Waiting ends at once, always."""

    async def wait_due(self, limit: int) -> None:
        self._now()
        await checkpoint()


@breaks("a_held_job_does_not_end_waiting")
class SpinsWhileSomethingIsHeld(Sound):
    """The next moment is the smallest due_at, of held jobs, too."""

    async def wait_due(self, limit: int) -> None:
        now = self._now()
        for row in self.store.rows.values():
            if row.hold is not None and row.job is not None:
                due = row.job.standing.due_at
                if due is not None and due <= now:
                    await checkpoint()
                    return
        await super().wait_due(limit)


@breaks("a_held_job_does_not_end_waiting")
class LeasesWakeNobody(Sound):
    """Held jobs are left out of the next moment, so that an ended lease is found a poll later."""

    async def wait_due(self, limit: int) -> None:
        now, clock, until = self._now(), self._clock, self._now() + MAX_POLL
        for row in self.store.rows.values():
            if row.hold is None and row.wake is not None:
                until = min(until, row.wake)
        if clock is not None and until > now:
            await self._alarm.sleep(clock, until, self._alarm.count)


class Quiet(Sound):
    """Base: some calls wake nobody."""

    def quietly(self) -> Any:
        return _without_alarms(self.store)


@contextmanager
def _without_alarms(store: Any, keep: Sequence[Alarm] = ()) -> Iterator[None]:
    alarms, store.alarms = store.alarms, list(keep)
    try:
        yield
    finally:
        store.alarms = alarms


@breaks("an_edit_wakes_who_waits")
class EditsWakeNobody(Quiet):
    """Only a new job wakes who waits, not one that is resumed or triggered."""

    async def replace(self, job: Job, ledger: Sequence[Execution] = ()) -> Job:
        with self.quietly():
            return await super().replace(job, ledger)


@breaks("a_release_wakes_who_waits")
class ReleasesWakeNobody(Quiet):
    """A released job waits for the next poll."""

    async def release(self, claims: Sequence[Claim]) -> None:
        with self.quietly():
            await super().release(claims)


@breaks("a_settlement_wakes_who_waits")
class SettlementsWakeNobody(Quiet):
    """A settled job that is due at once waits for the next poll."""

    async def settle(self, settlements: Sequence[Settlement]) -> Sequence[Settled]:
        with self.quietly():
            return await super().settle(settlements)


@breaks("an_earlier_job_wakes_who_waits")
class AddsWakeNobody(Quiet):
    """A new job waits for the next poll."""

    async def add(self, jobs: Sequence[Job]) -> Sequence[Job]:
        with self.quietly():
            return await super().add(jobs)


@breaks("an_earlier_job_wakes_who_waits")
class WakesItselfOnly(Sound):
    """A new job wakes the backend that it was added through, and no other one."""

    async def add(self, jobs: Sequence[Job]) -> Sequence[Job]:
        with _without_alarms(self.store, [self._alarm]):
            return await super().add(jobs)


@breaks("a_clock_set_back_loses_nothing")
class TheFutureHasExpired(Sound):
    """A claim that was made in the future cannot be right, and is dropped."""

    async def claim_due(self, limit: int) -> Sequence[Claim]:
        now = self._now()
        for job_id, row in self.store.rows.items():
            if row.hold is not None and row.hold.claimed_at > now and row.job is not None:
                row.hold = None
                row.job = evolve(row.job, standing=evolve(row.job.standing, due_at=now))
                self.store.schedule(job_id, row)
        return await super().claim_due(limit)


@breaks("a_clock_set_back_loses_nothing")
class TimeOnlyGrows(Sound):
    """The backend keeps the latest moment that it has seen, and hands out by that."""

    def _now(self) -> datetime:
        now = super()._now()
        latest: datetime = max(now, self.store.__dict__.get("latest", now))
        self.store.__dict__["latest"] = latest
        return latest


@breaks("a_clock_set_forward_hands_out_what_is_due")
class OldNewsIsDropped(Sound):
    """What is overdue by more than a week is passed over: the backend judges misfires itself."""

    async def claim_due(self, limit: int) -> Sequence[Claim]:
        now = self._now()
        for row in self.store.rows.values():
            if row.wake is not None and row.wake < now - timedelta(days=7):
                row.wake = None
        return await super().claim_due(limit)


# -- reaching the store ------------------------------------------------------


@breaks("check_succeeds_on_a_working_store")
class CheckLeavesAJob(Sound):
    """Check proves that it can write by adding a job, and leaves it there."""

    async def check(self) -> None:
        row = next(row for row in self.store.rows.values() if row.job is not None)
        self._add(evolve(row.job, spec=evolve(row.job.spec, id="__check__"), uid="check"))


@breaks("an_unreachable_store_is_said_to_be")
class CheckIsARead(Sound):
    """Check looks at what it has in its cache."""

    async def check(self) -> None: ...


@breaks("an_unreachable_store_is_said_to_be")
class OutagesLookEmpty(Sound):
    """A store that cannot be reached has no jobs."""

    async def jobs(
        self, query: JobQuery, *, after: str | None, limit: int
    ) -> Page[Job | Undecodable]:
        try:
            return await super().jobs(query, after=after, limit=limit)
        except BackendUnavailable:
            return Page([], None)


@breaks("an_unreachable_store_is_said_to_be")
class OutagesLookIdle(Sound):
    """A store that cannot be reached has nothing due."""

    async def claim_due(self, limit: int) -> Sequence[Claim]:
        try:
            return await super().claim_due(limit)
        except BackendUnavailable:
            return []


@breaks("an_unreachable_store_is_said_to_be")
class OutagesAreTheDriversBusiness(Sound):
    """What the driver raises is passed on as it is."""

    async def add(self, jobs: Sequence[Job]) -> Sequence[Job]:
        try:
            return await super().add(jobs)
        except BackendUnavailable as error:
            raise ConnectionError("connection refused") from error


@breaks("an_outage_costs_nothing_but_time")
class OutagesSwallowSettlements(Sound):
    """A settlement counts as done from the moment it is sent."""

    async def settle(self, settlements: Sequence[Settlement]) -> Sequence[Settled]:
        if self.store.cut:
            for settlement in settlements:
                row = self.store.rows[settlement.claim.job.id]
                row.hold, row.ended = None, row.hold
        return await super().settle(settlements)


@breaks("an_unreadable_record_is_shown")
class TheUnreadableIsHidden(Sound):
    """Listing leaves out what cannot be read."""

    async def jobs(
        self, query: JobQuery, *, after: str | None, limit: int
    ) -> Page[Job | Undecodable]:
        unreadable, self.store.unreadable = self.store.unreadable, {}
        try:
            return await super().jobs(query, after=after, limit=limit)
        finally:
            self.store.unreadable = unreadable


@breaks("an_unreadable_record_is_shown")
class TheUnreadableIsNothing(Sound):
    """Get returns None for what cannot be read."""

    async def get(self, job_id: str) -> Job | Undecodable | None:
        found = await super().get(job_id)
        return found if isinstance(found, Job) else None


@breaks("an_unreadable_record_is_left_alone")
class QuarantineDeletes(Sound):
    """What cannot be read is taken away by prune."""

    async def prune(self, before: datetime) -> int:
        deleted = await super().prune(before) + len(self.store.unreadable)
        self.store.unreadable.clear()
        return deleted


@breaks("an_unreadable_record_is_left_alone")
class TheUnreadableIsFree(Sound):
    """An id whose record cannot be read can be used again."""

    async def add(self, jobs: Sequence[Job]) -> Sequence[Job]:
        for job in jobs:
            self.store.unreadable.pop(job.id, None)
        return await super().add(jobs)


@breaks("an_unreadable_record_is_left_alone")
class TheUnreadableIsRemoved(Sound):
    """Remove does not look at what it removes."""

    async def remove(
        self, job_id: str, ledger: Sequence[Execution] = (), *, expected: int | None = None
    ) -> bool:
        if self.store.unreadable.pop(job_id, None) is not None:
            return True
        return await super().remove(job_id, ledger, expected=expected)


@breaks("an_unreadable_record_stops_nothing_else")
class TheUnreadableBlocksTheQueue(Sound):
    """A claim ends where a record cannot be read."""

    async def claim_due(self, limit: int) -> Sequence[Claim]:
        self._now()
        return [] if self.store.unreadable else await super().claim_due(limit)


@breaks("an_unreadable_record_stops_nothing_else")
class TheUnreadableIsAlwaysDue(Sound):
    """A record that cannot be read is due, and nobody claims it: waiting spins."""

    async def wait_due(self, limit: int) -> None:
        await checkpoint()
        if not self.store.unreadable:
            await super().wait_due(limit)
