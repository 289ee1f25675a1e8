"""Fixtures for users of the scheduler: days pass in milliseconds, and every run is at its instant.

Neither fixture needs an event loop, so both work in plain tests (with ``anyio.run``), in anyio's,
on asyncio and trio, and together with pytest-asyncio::

    def test_three_days(fake_scheduler):
        async def main():
            async with fake_scheduler(handler) as scheduler:
                await scheduler.ensure_job("hourly", Interval(hours=1))
                assert await scheduler.advance(days=3) == 72

        anyio.run(main)
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import datetime, timedelta
from typing import Any, Protocol

import anyio
import anyio.lowlevel
import pytest

from sched_core import Handler, Job, MemoryBackend, MemoryStore, Scheduler
from sched_core.clock import pause
from sched_core.testing import FakeClock

TURNS = 50
"""Turns of the event loop without progress, after which every handler waits for something."""
PATIENCE = 0.05
"""Seconds of real time that a handler gets, which waits for something else than the clock."""
ENDLESS = timedelta(days=36_500)
"""The lease never ends: there is no other worker to take over."""


class _UsersClock(FakeClock):
    """The clock that tests and handlers see; knows until when they sleep."""

    def __init__(self) -> None:
        super().__init__()
        self.waited_for: list[datetime] = []

    async def sleep_until(self, moment: datetime) -> None:
        self.waited_for.append(moment)
        try:
            await super().sleep_until(moment)
        finally:
            self.waited_for.remove(moment)


class _OwnClock:
    """The same clock for the scheduler, whose sleeps hold nothing up."""

    def __init__(self, clock: FakeClock) -> None:
        self._clock = clock

    def now(self) -> datetime:
        return self._clock.now()

    async def sleep_until(self, moment: datetime) -> None:
        await FakeClock.sleep_until(self._clock, moment)


class FakeScheduler(Scheduler):
    """A scheduler in memory that runs already, and whose time passes by :meth:`advance` only.

    Attributes:
        clock: The fake clock; handlers may sleep on it.
        store: The store with all jobs and executions.
    """

    def __init__(self, clock: FakeClock, **options: Any) -> None:
        self.clock, self.store = clock, MemoryStore()
        backend = MemoryBackend(self.store, lease=ENDLESS)
        super().__init__(backend, clock=_OwnClock(clock), **options)

    async def advance(self, by: timedelta | None = None, **units: float) -> int:
        """Let time pass, from due moment to due moment: retries and timeouts happen on time.

        A handler that waits for something else than the clock gets 50 ms of real time for it at
        each step; one that takes longer is overtaken by the clock, as in life.

        Args:
            by: How much; or the keywords of ``timedelta``.

        Returns:
            How many attempts ended.
        """
        before = (await self.health()).completed
        until = self.clock.now() + (timedelta(**units) if by is None else by)
        await self.settle()
        while (moment := self._next(until)) is not None:
            self.clock.jump(moment)
            await self.settle()
        if self.clock.now() < until:
            self.clock.jump(until)
            await self.settle()
        return (await self.health()).completed - before

    async def settle(self) -> None:
        """Wait until all that is due has run, or waits for time to pass."""
        seen: object = None
        turns, waited = 0, 0.0
        while True:
            health = await self.health()
            due = self.store.earliest()
            if not health.unsettled and (due is None or due > self.clock.now()):
                return
            sleeping = self._sleeping()
            progress = (health.completed, health.unsettled, self.store.serial, tuple(sleeping))
            turns = turns + 1 if progress == seen else 0
            seen = progress
            if turns < TURNS:
                await anyio.lowlevel.checkpoint()
            elif sleeping or waited >= PATIENCE:
                return
            else:
                waited += 0.001
                await pause(0.001)

    def _sleeping(self) -> list[datetime]:
        return self.clock.waited_for if isinstance(self.clock, _UsersClock) else []

    def _next(self, until: datetime) -> datetime | None:
        """Return the next moment at which something happens."""
        now, moments = self.clock.now(), list(self._sleeping())
        due = self.store.earliest()
        if due is not None:
            moments.append(due)
        for row in self.store.rows.values():
            timeout = row.job.spec.policy.timeout if isinstance(row.job, Job) else None
            if row.hold is not None and timeout is not None:
                moments.append(row.hold.claimed_at + timeout)
        return min((moment for moment in moments if now < moment <= until), default=None)


class MakeScheduler(Protocol):
    """What the fixture ``fake_scheduler`` gives: call it with a handler, enter what it returns."""

    def __call__(
        self, handler: Handler | None = None, **options: Any
    ) -> AbstractAsyncContextManager[FakeScheduler]: ...


@pytest.fixture(name="fake_clock")
def fake_clock_fixture() -> FakeClock:
    """A clock that moves only when told; ``fake_scheduler`` runs on it."""
    return _UsersClock()


@pytest.fixture(name="fake_scheduler")
def fake_scheduler_fixture(fake_clock: FakeClock) -> MakeScheduler:
    """``async with fake_scheduler(handler) as scheduler`` opens a running scheduler in memory."""
    return _maker(fake_clock)


def _maker(clock: FakeClock) -> Callable[..., AbstractAsyncContextManager[FakeScheduler]]:
    @asynccontextmanager
    async def make(handler: Handler | None = None, **options: Any) -> AsyncIterator[FakeScheduler]:
        scheduler = FakeScheduler(clock, handler=handler, **options)
        async with scheduler, anyio.create_task_group() as tasks:
            tasks.start_soon(lambda: scheduler.run_forever(signals=False))
            await scheduler.wait_until_running()
            try:
                yield scheduler
            finally:
                with anyio.CancelScope(shield=True):
                    await scheduler.stop(0)

    return make
