"""The clock of a simulated machine, and what one process on it sees of it."""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta

import anyio

from sched_testkit._suite.bench import START
from sched_testkit.simulation.loop import SimulatedLoop

TICK = 1e-6
"""Seconds that a look takes: if time did not move, a caller that looks in a loop would hang."""


class SimulatedClock:
    """The loop's time as moments, and steps of an operator.

    Args:
        loop: The loop whose time it shows.
    """

    def __init__(self, loop: SimulatedLoop) -> None:
        self._loop = loop
        self._offset = timedelta(0)
        self._sleepers: list[asyncio.Future[None]] = []
        self._shown_at, self._shown = -1.0, START

    def now(self) -> datetime:
        """Return the moment, in UTC."""
        time = self._loop.time()
        if time != self._shown_at:
            self._shown_at, self._shown = time, START + timedelta(seconds=time) + self._offset
        return self._shown

    def elapsed(self) -> float:
        """Return the seconds of a clock that no operator sets."""
        return self._loop.time()

    async def sleep_until(self, moment: datetime) -> None:
        """Sleep until the moment, or until the clock is set back."""
        before = self.now()
        if before >= moment:
            await anyio.sleep(TICK)
            return
        while (now := self.now()) < moment and now >= before:
            before = now
            woken = self._loop.create_future()
            at = (moment - START - self._offset).total_seconds()
            timer = self._loop.call_at(at, _wake, woken)
            self._sleepers.append(woken)
            try:
                await woken
            finally:
                timer.cancel()
                self._sleepers.remove(woken)

    def step(self, by: timedelta) -> None:
        """Set the clock, as an operator might; every sleeper looks again."""
        self._offset += by
        self._shown_at = -1.0
        for sleeper in self._sleepers:
            _wake(sleeper)


def _wake(sleeper: asyncio.Future[None]) -> None:
    if not sleeper.done():
        sleeper.set_result(None)


class SimulatedProcess:
    """A simulated process: it can be stopped for a while, be cut off, or die.

    It acts on the world through its backend, its clock and its handlers only; a process none of
    whose acts comes through is dead, whatever its code still does.
    """

    def __init__(self, name: str) -> None:
        self.name, self.worker = name, ""
        self.dead = False
        self.cut = False
        """It does not reach the store."""
        self._goes_on: anyio.Event | None = None

    def stop(self) -> None:
        """Stop the process, as SIGSTOP does."""
        if self._goes_on is None:
            self._goes_on = anyio.Event()

    def go_on(self) -> None:
        """Let the process go on, as SIGCONT does."""
        if self._goes_on is not None:
            self._goes_on.set()
            self._goes_on = None

    def heal(self) -> None:
        """It reaches the store again."""
        self.cut = False

    def kill(self) -> None:
        """Kill the process, as SIGKILL does."""
        self.dead = True
        self.go_on()

    async def runs(self) -> None:
        """Wait while it is stopped."""
        while self._goes_on is not None:
            await self._goes_on.wait()


class ProcessClock:
    """The machine's clock as a process sees it: one that is stopped does not wake up."""

    def __init__(self, clock: SimulatedClock, process: SimulatedProcess) -> None:
        self._clock, self._process = clock, process

    def now(self) -> datetime:
        """Return the machine's moment."""
        return self._clock.now()

    def elapsed(self) -> float:
        """Return the seconds of a clock that no operator sets."""
        return self._clock.elapsed()

    async def sleep_until(self, moment: datetime) -> None:
        """Sleep on the machine's clock."""
        await self._clock.sleep_until(moment)
        if self._process.dead:
            await anyio.sleep_forever()
        await self._process.runs()
