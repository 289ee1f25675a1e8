"""Time as a port: the only file that reads a clock or sleeps.

Everything that waits, waits on a :class:`Clock`, so that a fake one drives the waiting as well as
the telling of time.
"""

from __future__ import annotations

import threading
import time
from datetime import UTC, datetime, timedelta
from typing import Protocol

import anyio

SLICE = timedelta(seconds=1)
"""The longest single sleep. A clock that was set, or a machine that was suspended, is noticed
within it: operating systems stop the monotonic clock during suspension."""


class Clock(Protocol):
    """Tells the time and waits for it. Nothing else, ever."""

    def now(self) -> datetime:
        """Return the present moment, timezone-aware, in UTC."""
        ...

    async def sleep_until(self, moment: datetime) -> None:
        """Return once :meth:`now` has reached the moment, at once if it has.

        It returns early only where the clock was set back: then the caller must look again, or a
        sleep of a second would last for as long as the clock was set back.
        """
        ...


def elapsed(clock: Clock) -> float:
    """Return seconds on a scale that is never set: only their differences mean anything.

    A clock that can be set may have a method ``elapsed`` for them; otherwise its own time counts.
    """
    own = getattr(clock, "elapsed", None)
    return clock.now().timestamp() if own is None else float(own())


class StepWatch:
    """Notices that a clock was set, by the time that has elapsed since.

    Two scales cannot be read at one instant, and the thread may be held up in between. So each
    reading is bounded by what had elapsed before and after it, and only what lies outside counts.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._before, self._now, self._after = self._look()

    def _look(self) -> tuple[float, datetime, float]:
        before = elapsed(self._clock)
        return before, self._clock.now(), elapsed(self._clock)

    def step(self) -> timedelta:
        """Return by how much the clock was set since the last call, forwards if positive."""
        before, now, after = self._look()
        passed = (now - self._now).total_seconds()
        least, most = before - self._after, after - self._before
        self._before, self._now, self._after = before, now, after
        return timedelta(seconds=passed - min(max(passed, least), most))


class SystemClock:
    """The machine's clock."""

    def now(self) -> datetime:
        """Return the machine's time in UTC, to the microsecond."""
        return datetime.now(UTC)

    def elapsed(self) -> float:
        """Return the seconds that this machine was awake since some moment."""
        return time.monotonic()

    async def sleep_until(self, moment: datetime) -> None:
        """Sleep in slices of at most a second, so that a jump of the clock is noticed."""
        before = datetime.now(UTC)
        while (remaining := moment - before) > timedelta(0):
            await anyio.sleep(min(remaining, SLICE).total_seconds())
            now = datetime.now(UTC)
            if now < before:
                return
            before = now


def monotonic_seconds() -> float:
    """Return seconds for timeouts and back-off, which changes of the wall clock do not affect."""
    return time.monotonic()


_BOOT = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


def boot_seconds() -> float:
    """Return monotonic seconds that count a suspension of the machine, where the machine can."""
    return time.clock_gettime(_BOOT)


def loop_seconds() -> float:
    """Return the event loop's monotonic seconds, by which its own timers run."""
    return anyio.current_time()


async def pause(seconds: float) -> None:
    """Wait in real time: for back-off against a real store only, as no fake clock drives it."""
    await anyio.sleep(seconds)


async def backoff_pause(failures: int) -> None:
    """Wait before trying a store again: 50 ms, doubled with each failure up to 3 s, jittered.

    It waits no longer, so that a store that is back is used again within five seconds.
    """
    longest = min(0.05 * 2 ** min(failures - 1, 20), 3.0)
    # The last digits of the loop's clock differ between replicas, and repeat where a loop does.
    jitter = int(loop_seconds() * 1e6) % 1000 / 2000
    await pause(longest * (0.5 + jitter))


def instant_after(moment: datetime, by: timedelta) -> datetime:
    """Return ``moment + by``, or the last representable moment where that lies past it."""
    try:
        return moment + by
    except OverflowError:
        return LAST


FIRST = datetime.min.replace(tzinfo=UTC)
LAST = datetime.max.replace(tzinfo=UTC)


class Alarm:
    """Sleep until a moment or a nudge, whichever comes first, without losing a nudge.

    It counts nudges: the caller reads :attr:`count` before it looks for work, so that a nudge
    between the look and the sleep ends the sleep at once.
    """

    __slots__ = ("_event", "count")

    def __init__(self) -> None:
        self.count = 0
        self._event: anyio.Event | None = None

    def nudge(self) -> None:
        """Wake the sleeper, or the next one that has not looked since. Call it in the loop."""
        self.count += 1
        if self._event is not None:
            self._event.set()
            self._event = None  # a sleep that was cancelled has left it to the next one

    async def sleep(self, clock: Clock, until: datetime, seen: int) -> None:
        """Sleep on the clock until the moment, unless there was a nudge since ``seen`` was read."""
        if self.count != seen:
            return
        longest = until - clock.now()
        event = self._event = anyio.Event() if self._event is None else self._event
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(_ring, clock, until, longest, event)
            await event.wait()
            tasks.cancel_scope.cancel()
        if self._event is event:
            self._event = None


async def _ring(clock: Clock, moment: datetime, longest: timedelta, event: anyio.Event) -> None:
    # Before this began, the clock may have been set back; one set back from here on wakes it.
    await clock.sleep_until(min(moment, instant_after(clock.now(), longest)))
    event.set()


class StoreClock:
    """The clock of a store, estimated between its replies.

    Each reply says what the store's clock showed at some moment of the round trip, so it bounds the
    distance between that clock and this machine's monotonic one. The estimate moves only as far as
    a reply demands: slow replies do not disturb what quick ones have shown, and drift is followed.
    It begins with the least that the first reply allows: never ahead, so that nothing is early.

    Args:
        clock: A clock to wait by. Once the store has replied, the time that it tells plays no role,
            however wrong it is.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._offset: float | None = None
        self._lock = threading.Lock()

    def now(self) -> datetime:
        """Return the store's time in UTC, as far as it is known."""
        offset = self._offset
        if offset is None:
            return self._clock.now()
        return datetime.fromtimestamp(time.clock_gettime(_BOOT) + offset, UTC)

    def elapsed(self) -> float:
        """Return seconds of this machine: a step of the store's clock does not count."""
        return boot_seconds()

    async def sleep_until(self, moment: datetime) -> None:
        """Sleep in slices of at most a second, so that a step of the store's clock is noticed."""
        while (remaining := moment - self.now()) > timedelta(0):
            before = self._offset
            await self._clock.sleep_until(self._clock.now() + min(remaining, SLICE))
            after = self._offset
            if before is not None and after is not None and after < before - _SET_BACK:
                return

    def observe(self, told: datetime, sent: float, received: float) -> timedelta:
        """Take in what the store's clock showed between two ``boot_seconds``; in any thread.

        Returns:
            How far it had stepped away from the estimate, zero for what the round trip explains.
        """
        seconds = told.timestamp()
        least, most = seconds - received, seconds - sent
        with self._lock:
            offset = self._offset
            if offset is None:
                self._offset = least
                return timedelta(0)
            self._offset = min(max(offset, least), most)
            return timedelta(seconds=self._offset - offset)


_SET_BACK = 0.5
"""Seconds by which the store's clock was set back; estimates may differ by less."""
