"""Stores that are right at the first time, in the plain case, or while no call is cancelled."""

from __future__ import annotations

from collections.abc import Awaitable, Sequence
from datetime import datetime, timedelta
from typing import Any

from anyio.lowlevel import checkpoint
from attrs import evolve
from tests.testkit.mutants.base import AFTER, Sound, WritesOtherwise, breaks, holds
from tests.testkit.mutants.values import Keeps
from tests.testkit.mutants.waking import without_alarms

from sched_core import (
    Claim,
    Claimed,
    Clock,
    Execution,
    Job,
    Room,
    Settled,
    Settlement,
    State,
)
from sched_core.ports import MAX_POLL
from sched_core.row import freed


class LooksAtSome(Sound):
    """Base: a wait looks at some rows."""

    def looks_at(self, row: Any) -> bool:
        raise NotImplementedError

    def rows(self, room: Room) -> list[Any]:
        rows = [row for _, row in sorted(self.store.rows.items())]
        return [row for row in rows if row.wake is not None and self.looks_at(row)]

    async def wait_due(self, room: Room) -> None:
        now, clock, seen = self._now(), self._clock, self._alarm.count
        first = min((row.wake for row in self.rows(room)), default=AFTER)
        if clock is not None and first > now:
            await self._alarm.sleep(clock, min(first, now + MAX_POLL), seen)


@breaks("the_first_of_many_ends_a_wait_for_few")
class WaitsForAsManyAsAreWanted(LooksAtSome):
    """A wait reads as many rows as are wanted, in the order of their ids."""

    def looks_at(self, row: Any) -> bool:
        return True

    def rows(self, room: Room) -> list[Any]:
        return super().rows(room)[: room.limit]


@breaks("every_lease_that_ends_ends_a_wait")
class WaitsForLeasesOfOthers(LooksAtSome):
    """A worker takes what it holds itself for running: its own lease ends no wait of its own."""

    def looks_at(self, row: Any) -> bool:
        return row.hold is None or row.hold.worker != self._worker


@breaks("every_lease_that_ends_ends_a_wait")
class WaitsForNoHoldOfTheRemoved(LooksAtSome):
    """What was added over a hold is looked at when the hold ends, and a lease is no end."""

    def looks_at(self, row: Any) -> bool:
        return row.hold is None or row.job is None or row.job.uid == row.hold.uid


@breaks("the_first_of_many_ends_a_wait_for_few")
class TellsOfTheFirstAdded(Sound):
    """The first of several jobs that are added at once is the only one to end a wait."""

    def _add(self, job: Job) -> Job:
        added = super()._add(job)
        self.store.alarms = []
        return added

    async def add(self, jobs: Sequence[Job]) -> Sequence[Job]:
        with without_alarms(self.store, self.store.alarms):
            return await super().add(jobs)


@breaks("what_is_opened_again_is_woken")
class ListensOnce(Sound):
    """A backend begins to listen when it is opened first, and stops when it is closed."""

    opened = False

    async def open(self, clock: Clock, *, worker: str) -> Clock:
        decides = await super().open(clock, worker=worker)
        if self.opened:
            self.store.alarms.remove(self._alarm)
        self.opened = True
        return decides

    async def close(self) -> None:
        if self._clock is not None and self._alarm not in self.store.alarms:
            self.store.alarms.append(self._alarm)
        await super().close()


@breaks("writes_prolong_no_wait")
class WaitsAnewAfterEachWrite(Sound):
    """Who is woken and finds nothing due waits on, for the longest poll."""

    async def wait_due(self, room: Room) -> None:
        clock = self._clock
        while True:
            seen = self._alarm.count
            await super().wait_due(room)
            earliest = self.store.earliest() or AFTER
            if self._alarm.count == seen or self._clock is not clock or earliest <= self._now():
                return


@breaks("a_cancelled_edit_is_whole")
class EditsInTwoSteps(Sound):
    """The executions of an edit are written first, and its job afterwards."""

    async def replace(self, job: Job, executions: Sequence[Execution] = ()) -> Job:
        row = self.store.row(job.id)
        if executions and row.hold is None and isinstance(row.job, Job):
            if row.job.revision == job.revision:
                self.store.write(executions)
            await checkpoint()
        return await super().replace(job, executions)


@breaks("a_cancelled_release_is_whole")
class ReleasesInTwoSteps(Sound):
    """What a release owes is written first, and claims are freed afterwards."""

    async def release(self, claims: Sequence[Claim]) -> None:
        now = self._now()
        for claim in claims:
            row = self.store.row(claim.job.id)
            if holds(row, claim) and (owed := freed(row.job, row.hold, now=now)):
                self.store.write(owed)
                await checkpoint()
        await super().release(claims)


@breaks("a_settlement_cannot_bring_a_job_back")
class KeepsTheEndOfTheRemoved(Sound):
    """A run whose job was removed has only its end written, not its attempts."""

    def _settle(self, settlement: Settlement, now: datetime) -> Settled:
        if self.store.row(settlement.claim.job.id).job is None:
            ends = tuple(each for each in settlement.executions if each.final)
            settlement = evolve(settlement, executions=ends)
        return super()._settle(settlement, now)


@breaks("a_removed_job_can_be_added_as_it_was")
class RemembersWhatItAdded(Sound):
    """A repeat is known by the hold of a job that was removed, too: it stores nothing."""

    def __init__(self, store: Any) -> None:
        super().__init__(store)
        self._added: dict[str, Job] = {}

    async def add(self, jobs: Sequence[Job]) -> Sequence[Job]:
        rows = [self.store.row(job.id) for job in jobs]
        if rows and all(
            row.job is None and row.hold is not None and row.hold.uid == job.uid
            for job, row in zip(jobs, rows, strict=True)
        ):
            return [self._added[job.id] for job in jobs]
        added = await super().add(jobs)
        self._added |= {job.id: job for job in added}
        return added


@breaks("what_has_expired_is_deleted")
class KeepsAttempts(Sound):
    """What expires is looked up in an index of ends: other executions stay."""

    async def prune(self, before: datetime) -> int:
        history = self.store.history
        stay = [
            (position, one)
            for position, one in history
            if not one.final and (one.finished_at or AFTER) >= before
        ]
        self.store.history = [pair for pair in history if pair not in stay]
        deleted = await super().prune(before)
        self.store.keep(sorted([*self.store.history, *stay], key=lambda pair: pair[0]))
        return deleted


class Forgets(Sound):
    """Base: after a prune something is not looked up any more."""

    def forget(self) -> None:
        raise NotImplementedError

    async def prune(self, before: datetime) -> int:
        deleted = await super().prune(before)
        if deleted:
            self.forget()
        return deleted


@breaks("what_prune_leaves_is_known")
class ForgetsRepeats(Forgets):
    """The record of repeats is kept apart from the history, and thrown away with some of it."""

    def forget(self) -> None:
        self.store.stored = lambda _: None


@breaks("what_prune_leaves_is_known")
class ForgetsIds(Forgets):
    """The ids of stored executions are kept apart, and thrown away with some executions."""

    def forget(self) -> None:
        self.store.written = {}


@breaks("texts_mean_nothing")
class KeepsTheFirstLine(Sound):
    """The first line of a reason is all that is kept."""

    class FirstLines(WritesOtherwise):
        def change(self, execution: Execution) -> Execution | None:
            reason = execution.reason
            return evolve(execution, reason=reason and reason.split("\n")[0])

    makes = FirstLines


class StoresOtherwise(Keeps):
    """Base: the metadata of a new job is stored in another way."""

    def text(self, text: str) -> str:
        raise NotImplementedError

    def kept(self, job: Job) -> Job:
        metadata = {key: self.text(value) for key, value in job.spec.metadata.items()}
        return evolve(job, spec=evolve(job.spec, metadata=metadata))


@breaks("texts_mean_nothing")
class ReadsEscapes(StoresOtherwise):
    """A backslash in metadata begins an escape."""

    def text(self, text: str) -> str:
        return text.replace("\\n", "\n")


@breaks("texts_mean_nothing")
class DoublesNoPercent(StoresOtherwise):
    """What is a statement with percent signs is one with half of them."""

    def text(self, text: str) -> str:
        return text.replace("%%", "%")


@breaks("answers_stay_as_they_were")
class ClaimsIntoOneList(Sound):
    """Claims are handed out in the list of the last call."""

    def __init__(self, store: Any) -> None:
        super().__init__(store)
        self._claims: list[Claim] = []

    async def hand_out(self, limit: int) -> Sequence[Claim]:
        self._claims[:] = await super().hand_out(limit)
        return self._claims


@breaks("answers_stay_as_they_were")
class TellsOfLostClaimsInOneList(Sound):
    """What is told of lost claims is in the list of the last call."""

    def __init__(self, store: Any) -> None:
        super().__init__(store)
        self._told: list[Execution] = []

    async def claim_due(self, room: Room) -> Claimed:
        claimed = await super().claim_due(room)
        self._told[:] = claimed.lapsed
        return Claimed(claimed.claims, self._told)


@breaks("answers_stay_as_they_were")
class AnswersIntoOneList(Sound):
    """Answers to settlements come in the list of the last call."""

    def __init__(self, store: Any) -> None:
        super().__init__(store)
        self._answers: list[Settled] = []

    async def settle(self, settlements: Sequence[Settlement]) -> Sequence[Settled]:
        self._answers[:] = await super().settle(settlements)
        return self._answers


@breaks("texts_mean_nothing")
class KeepsSomeEntries(Keeps):
    """There are columns for sixteen entries of metadata."""

    def kept(self, job: Job) -> Job:
        some = dict(list(job.spec.metadata.items())[:16])
        return evolve(job, spec=evolve(job.spec, metadata=some))


class ComparesWorkers(Sound):
    """Base: what is said by the claim of another worker is taken for that of the holder."""

    def same(self, holder: str, worker: str) -> bool:
        raise NotImplementedError

    async def extend(self, claims: Sequence[Claim]) -> Sequence[Claim]:
        taken = []
        for claim in claims:
            hold = self.store.row(claim.job.id).hold
            same = hold is not None and self.same(hold.worker, claim.worker)
            taken.append(evolve(claim, worker=hold.worker) if same else claim)
        return await super().extend(taken)


@breaks("workers_differ_to_their_last_character")
class TakesWorkersForHosts(ComparesWorkers):
    """A worker is known by what comes before the last colon of its name."""

    def same(self, holder: str, worker: str) -> bool:
        return ":" in holder and holder.rpartition(":")[0] == worker.rpartition(":")[0]


@breaks("workers_differ_to_their_last_character")
class TrimsWorkers(ComparesWorkers):
    """Names of workers are compared without the blanks around them."""

    def same(self, holder: str, worker: str) -> bool:
        return holder.strip() == worker.strip()


class TellsOfWhatIsDue(Sound):
    """Base: a call tells who waits of what is due at once, and not of what is due soon."""

    async def quietly(self, call: Awaitable[Any], ids: Sequence[str]) -> Any:
        with without_alarms(self.store):
            answer = await call
        now = self._now()
        if any((self.store.row(job_id).due() or AFTER) <= now for job_id in ids):
            for alarm in self.store.alarms:
                alarm.nudge()
        return answer


@breaks("what_comes_due_soon_ends_a_wait")
class AddsWakeForWhatIsDue(TellsOfWhatIsDue):
    """An add wakes who waits where a job is due at once."""

    async def add(self, jobs: Sequence[Job]) -> Sequence[Job]:
        added: Sequence[Job] = await self.quietly(super().add(jobs), [job.id for job in jobs])
        return added


@breaks("what_comes_due_soon_ends_a_wait")
class EditsWakeForWhatIsDue(TellsOfWhatIsDue):
    """An edit wakes who waits where the job is due at once."""

    async def replace(self, job: Job, executions: Sequence[Execution] = ()) -> Job:
        replaced: Job = await self.quietly(super().replace(job, executions), [job.id])
        return replaced


@breaks("what_comes_due_soon_ends_a_wait")
class SettlementsWakeForWhatIsDue(TellsOfWhatIsDue):
    """A settlement wakes who waits where the job is due at once."""

    async def settle(self, settlements: Sequence[Settlement]) -> Sequence[Settled]:
        ids = [each.claim.job.id for each in settlements]
        settled: Sequence[Settled] = await self.quietly(super().settle(settlements), ids)
        return settled


@breaks("what_comes_due_soon_ends_a_wait")
class ReleasesWakeForWhatIsDue(TellsOfWhatIsDue):
    """A release wakes who waits where the job is due at once."""

    async def release(self, claims: Sequence[Claim]) -> None:
        await self.quietly(super().release(claims), [claim.job.id for claim in claims])


@breaks("waiting_does_not_spin")
class WaitsForPruning(Sound):
    """What has expired is something to do: a wait ends for it, until it is pruned."""

    async def wait_due(self, room: Room) -> None:
        now = self._now()
        if not any(row.has_expired(now) for row in self.store.rows.values()):
            await super().wait_due(room)


@breaks("a_prune_frees_no_claim")
class PrunesOldHolds(Sound):
    """Prune clears claims whose lease ended long ago."""

    async def prune(self, before: datetime) -> int:
        now = self._now()
        for row in self.store.rows.values():
            if row.hold is not None and row.hold.expires_at < now - timedelta(days=1):
                row.hold = None
        return await super().prune(before)


@breaks("due_at_alone_decides_what_is_due")
class ClaimsTheActive(Sound):
    """What is paused or finished is left out of what is due."""

    async def hand_out(self, limit: int) -> Sequence[Claim]:
        claims = await super().hand_out(limit)
        others = [each for each in claims if each.job.state is not State.ACTIVE]
        await self.release(others)
        return [claim for claim in claims if claim not in others]
