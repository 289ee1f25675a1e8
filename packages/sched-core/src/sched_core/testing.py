"""Tools for tests: a clock moved by hand, a handler that remembers, the history as a list."""

from __future__ import annotations

import heapq
import itertools
import threading
from datetime import UTC, datetime, timedelta

import anyio
import anyio.lowlevel

from sched_core._model.event import JobEvent
from sched_core._model.execution import Execution
from sched_core.errors import InvalidDefinition
from sched_core.ports import ExecutionQuery
from sched_core.schedule import utc
from sched_core.scheduler import Scheduler

EPOCH = datetime(2026, 1, 1, tzinfo=UTC)


class FakeClock:
    """A clock for tests; it implements the ``Clock`` port.

    Args:
        start: The moment that it shows at first; 2026-01-01 UTC unless given.
    """

    def __init__(self, start: datetime = EPOCH) -> None:
        self._now = utc(start, "start")
        self._elapsed = 0.0
        self._sleepers: list[tuple[datetime, int, anyio.Event]] = []
        self._order = itertools.count()

    def now(self) -> datetime:
        """Return the moment that the clock shows, in UTC."""
        return self._now

    def elapsed(self) -> float:
        """Return by how many seconds the clock was advanced; jumps do not count."""
        return self._elapsed

    async def sleep_until(self, moment: datetime) -> None:
        """Sleep until the clock has been moved to the moment, or was set back."""
        if self._now < moment:
            event = anyio.Event()
            heapq.heappush(self._sleepers, (moment, next(self._order), event))
            await event.wait()
        else:
            await anyio.lowlevel.checkpoint()

    def advance(self, by: timedelta | None = None, **units: float) -> datetime:
        """Move the clock forwards and wake the calls that slept until then; return the new time.

        Raises:
            InvalidDefinition: The step is negative. Use :meth:`jump` to go back.
        """
        by = timedelta(**units) if by is None else by
        if by < timedelta(0):
            raise InvalidDefinition("by", "time does not go backwards here: use jump")
        self._elapsed += by.total_seconds()
        return self.jump(self._now + by)

    def jump(self, to: datetime | timedelta) -> datetime:
        """Set the clock, forwards or backwards, as an operator might; return the new time.

        Args:
            to: A moment, or a timedelta from the present one.
        """
        before = self._now
        self._now = before + to if isinstance(to, timedelta) else utc(to, "to")
        # When it is set back, every sleeper looks again: see Clock.sleep_until.
        while self._sleepers and (self._now < before or self._sleepers[0][0] <= self._now):
            heapq.heappop(self._sleepers)[2].set()
        return self._now


class RecordingHandler:
    """A handler for tests that keeps the events that it was called with."""

    def __init__(self) -> None:
        self.events: list[JobEvent] = []
        self._lock = threading.Lock()

    async def __call__(self, event: JobEvent) -> None:
        """Remember the event."""
        with self._lock:
            self.events.append(event)

    @property
    def ids(self) -> list[str]:
        """The ids of the jobs that ran, in order."""
        return [event.id for event in self.events]


async def history(
    scheduler: Scheduler, query: ExecutionQuery | str | None = None
) -> list[Execution]:
    """Return the history as a list, newest first; a string is a job's id.

    Raises:
        AssertionError: A record cannot be read.
    """
    found = [each async for each in scheduler.list_executions(query)]
    executions = [each for each in found if isinstance(each, Execution)]
    if len(executions) < len(found):
        unreadable = [each for each in found if not isinstance(each, Execution)]
        raise AssertionError(f"{len(unreadable)} records cannot be read: {unreadable[0].reason}")
    return executions
