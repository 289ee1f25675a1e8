"""Waking up, and clocks that are set."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import Any

from anyio.lowlevel import checkpoint
from attrs import evolve
from tests.testkit.mutants.base import Sound, Store, breaks

from sched_core import (
    Claim,
    Execution,
    Job,
    Room,
    Settled,
    Settlement,
)
from sched_core.clock import Alarm
from sched_core.ports import MAX_POLL


@breaks("a_wait_holds_up_no_other_call")
class WaitsWithoutTheLoop(Sound):
    """A wait sleeps in the thread of the event loop, where nothing else runs meanwhile."""

    async def wait_due(self, room: Room) -> None:
        until = self._now() + MAX_POLL
        while (self.store.earliest() or until) > self._now() < until:
            time.sleep(0.01)  # noqa: ASYNC251 -- what is wrong with it


@breaks("waiting_ends_when_something_is_due")
class SleepsWholePolls(Sound):
    """Waiting lasts as long as the longest poll, whatever is due before."""

    async def wait_due(self, room: Room) -> None:
        clock, until = self._clock, self._now() + MAX_POLL
        if clock is not None:
            await self._alarm.sleep(clock, until, self._alarm.count)


@breaks("waiting_ends_after_the_longest_poll")
class SleepsUntilSomethingIsDue(Sound):
    """Waiting ends when something is due, be it in years: a lost notification is never made up."""

    async def wait_due(self, room: Room) -> None:
        clock, earliest = self._clock, self.store.earliest()
        if clock is not None and earliest is not None and earliest > self._now():
            await self._alarm.sleep(clock, earliest, self._alarm.count)


@breaks("waiting_does_not_spin")
class Spins(Sound):
    """Waiting ends at once, always."""

    async def wait_due(self, room: Room) -> None:
        self._now()
        await checkpoint()


@breaks("a_held_job_does_not_end_waiting")
class SpinsWhileSomethingIsHeld(Sound):
    """The next moment is the smallest due_at, of held jobs, too."""

    async def wait_due(self, room: Room) -> None:
        now = self._now()
        for row in self.store.rows.values():
            if row.hold is not None and row.job is not None:
                due = row.job.standing.due_at
                if due is not None and due <= now:
                    await checkpoint()
                    return
        await super().wait_due(room)


@breaks("a_held_job_does_not_end_waiting")
class LeasesWakeNobody(Sound):
    """Held jobs are left out of the next moment, so that an ended lease is found a poll later."""

    async def wait_due(self, room: Room) -> None:
        now, clock, until = self._now(), self._clock, self._now() + MAX_POLL
        for row in self.store.rows.values():
            if row.hold is None and row.wake is not None:
                until = min(until, row.wake)
        if clock is not None and until > now:
            await self._alarm.sleep(clock, until, self._alarm.count)


class Quiet(Sound):
    """A base for backends of which some calls end no wait."""

    def quietly(self) -> Any:
        return without_alarms(self.store)


@contextmanager
def without_alarms(store: Any, keep: Sequence[Alarm] = ()) -> Iterator[None]:
    """Let what a store is told wake no wait, but those of the alarms that are kept."""
    alarms, store.alarms = store.alarms, list(keep)
    try:
        yield
    finally:
        store.alarms = alarms


@breaks("an_edit_wakes_who_waits")
class EditsWakeNobody(Quiet):
    """A new job ends a wait, and one that is resumed or triggered does not."""

    async def replace(self, job: Job, executions: Sequence[Execution] = ()) -> Job:
        with self.quietly():
            return await super().replace(job, executions)


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


@breaks("a_settlement_wakes_who_waits")
class SettlementsWakeTheirOwnWaiter(Sound):
    """What another backend has settled waits for the next poll."""

    async def settle(self, settlements: Sequence[Settlement]) -> Sequence[Settled]:
        with without_alarms(self.store, [self._alarm]):
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
        with without_alarms(self.store, [self._alarm]):
            return await super().add(jobs)


@breaks("a_clock_set_back_loses_nothing")
class TheFutureHasExpired(Sound):
    """A claim that was made in the future cannot be right, and is dropped."""

    async def hand_out(self, limit: int) -> Sequence[Claim]:
        now = self._now()
        for job_id, row in self.store.rows.items():
            if row.hold is not None and row.hold.claimed_at > now and row.job is not None:
                row.hold = None
                row.job = evolve(row.job, standing=evolve(row.job.standing, due_at=now))
                self.store.save(job_id, row)
        return await super().hand_out(limit)


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

    async def hand_out(self, limit: int) -> Sequence[Claim]:
        now = self._now()
        for row in self.store.rows.values():
            if row.wake is not None and row.wake < now - timedelta(days=7):
                row.wake = None
        return await super().hand_out(limit)


@breaks("a_clock_set_back_holds_up_no_wait")
class WaitsForTheOldTime(Sound):
    """A wait goes on until the moment that it has computed, though the clock was set back."""

    async def wait_due(self, room: Room) -> None:
        now = self._now()
        await super().wait_due(room)
        while self._clock is not None and self._now() < now:
            await self._clock.sleep_until(now)


@breaks("the_end_of_any_lease_ends_waiting")
class OnlyTheDueWake(Sound):
    """A lease that ends ends no wait where an edit has put its job off or removed it."""

    class ByDue(Store):
        def earliest(self, room: Room | None = None) -> datetime | None:
            moments: list[datetime] = []
            for row in self.rows.values():
                due = row.job.standing.due_at if isinstance(row.job, Job) else None
                if due is not None:
                    moments.append(due if row.hold is None else max(due, row.hold.expires_at))
            return min(moments, default=None)

    makes = ByDue


@breaks("what_waits_after_a_lost_claim_wakes_at_its_moment")
class TheLostWakeBeforeTheirMoment(Sound):
    """What waits after a lost claim ends waits after half of its wait already."""

    async def wait_due(self, room: Room) -> None:
        now = self._now()
        for row in self.store.rows.values():
            one = row.job.standing.scheduled if isinstance(row.job, Job) else None
            if one is not None and one.lost and row.hold is None and one.due_at > now:
                return
        await super().wait_due(room)
