"""What wakes a worker that waits: for jobs that are due, and for marks on its claims."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any, TypeVar

import anyio

from sched_core import Capabilities, Job, Room, Settlement
from sched_core.clock import Alarm, Clock, pause
from sched_core.errors import SchedError
from sched_core.ports import MAX_POLL
from sched_sql._shared.lanes import Lanes
from sched_sql._shared.table import Table
from sched_sql._shared.threads import Lane

T = TypeVar("T")

LOOK_EVERY = 0.2
"""Seconds between looks whether another process has written, where the database does not tell."""


class Waking(ABC):
    """The waits of a backend in a database.

    Args:
        table: The database.
        capabilities: What the backend promises.
    """

    _table: Table

    def __init__(self, table: Table, capabilities: Capabilities) -> None:
        self._table = table
        self._capabilities = capabilities
        self._clock: Clock | None = None
        self._alarm = Alarm()
        self._cancels = Alarm()
        self._cancels_seen = 0
        self._sleeps_until: datetime | None = None
        self._sleeps_for: Room | None = None

    @abstractmethod
    def _now(self) -> datetime:
        """Return the time by the clock that decides."""

    @abstractmethod
    async def _call(self, lane: Lane, function: Callable[..., T], *args: Any) -> T:
        """Make a call in the thread of a lane."""

    # -- what a dialect may do in its own way

    async def _before_wait(self) -> None:  # noqa: B027 -- most have nothing to do
        """Do what is worth doing before the worker looks when the next job is due."""

    async def _until_changed(self) -> None:
        """Wait until another process may have written."""
        await pause(LOOK_EVERY)

    async def _has_changed(self) -> bool:
        """Return whether there may be something new to claim."""
        return await self._call(Lane.LISTEN, self._table.changed)

    async def _until_cancelled(self) -> None:
        """Wait until a claim of this worker may have been marked by another process."""
        await anyio.sleep_forever()

    # -- what wakes

    def _marked(self) -> None:
        """Note that this process has marked a claim; where it is told of that, that is enough."""
        if not self._capabilities.notified:
            self._cancels.nudge()

    def _nudge(self, jobs: Sequence[Job]) -> None:
        """Wake the sleeper if one of the jobs is due before the end of its sleep, and fits."""
        until = self._sleeps_until
        for job in jobs:
            due_at = job.standing.due_at
            if due_at is not None and (until is None or due_at < until) and self._may_fit(job):
                self._alarm.nudge()
                return

    def _may_fit(self, job: Job) -> bool:
        """Whether the sleeper can take a job, as far as is known."""
        room = self._sleeps_for
        if room is None or room.takes_any:
            return True
        if Lanes(room).left_of(job.spec.queue) < 1:
            return False
        try:
            return room.accepts is None or room.accepts(job.spec.id)
        except Exception:  # noqa: BLE001 -- who writes a job must not get it: the claim raises it
            return True

    def _after(self, settlements: Sequence[Settlement]) -> None:
        """Wake the sleeper if a settled job is due again before the end of its sleep."""
        until = self._sleeps_until
        for settlement in settlements:
            standing = settlement.standing
            # Where a settlement leaves the job alone, only the store knows when that is due.
            due_at = until if standing is None else standing.due_at
            if standing is None or (
                due_at is not None
                and (until is None or due_at < until)
                and self._may_fit(settlement.claim.job)
            ):
                self._alarm.nudge()
                break

    # -- waits

    async def wait_due(self, room: Room) -> None:
        now, clock = self._now(), self._clock
        seen, horizon = self._alarm.count, now + MAX_POLL
        await self._before_wait()
        # Until the length of the sleep is known, every job that is written wakes the worker.
        self._sleeps_until, self._sleeps_for = None, room
        earliest = await self._call(Lane.CLAIM, self._table.earliest, room, self._now, horizon)
        until = horizon if earliest is None else min(earliest, horizon)
        until = min(until, self._now() + MAX_POLL)  # the clock may have been set back
        if clock is None or until <= now:
            return
        self._sleeps_until = until
        failures: list[Exception] = []
        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._watch, room, until, failures)
                await self._alarm.sleep(clock, until, seen)
                tasks.cancel_scope.cancel()
        finally:
            self._sleeps_until = self._sleeps_for = None
        if failures:
            raise failures[0]

    async def _watch(self, room: Room, until: datetime, failures: list[Exception]) -> None:
        """Nudge when another process has written something that is due before the sleep ends."""
        try:
            while True:
                await self._until_changed()
                if await self._has_changed():
                    earliest = await self._call(
                        Lane.CLAIM, self._table.earliest, room, self._now, until
                    )
                    if earliest is not None and earliest < until:
                        self._alarm.nudge()
        except SchedError as error:
            failures.append(error)  # as it is, not in the task group's ExceptionGroup
            self._alarm.nudge()

    async def wait_cancelled(self) -> bool:
        until, clock = self._now() + MAX_POLL, self._clock
        failures: list[Exception] = []
        if clock is not None:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._watch_cancels, failures)
                await self._cancels.sleep(clock, until, self._cancels_seen)
                tasks.cancel_scope.cancel()
        if failures:
            raise failures[0]
        seen, self._cancels_seen = self._cancels_seen, self._cancels.count
        return seen != self._cancels_seen

    async def _watch_cancels(self, failures: list[Exception]) -> None:
        try:
            await self._until_cancelled()
        except SchedError as error:
            failures.append(error)
        self._cancels.nudge()
