"""The watch for runs that are to be cancelled."""

from __future__ import annotations

from datetime import timedelta

import anyio

from sched_core._runtime.in_flight import InFlight
from sched_core._runtime.leases import Leases
from sched_core._support.logger import Logger
from sched_core.clock import backoff_pause, instant_after, loop_seconds

logger = Logger("sched_core")

AT_ONCE = 0.05
"""Seconds within which a call that found nothing has not waited."""
PAUSE = timedelta(seconds=1)
"""The pause after such a call: a backend that cannot wake anybody must not keep the loop busy."""


class CancelWatch:
    """Has claims renewed at once when the backend says that one may be marked to be cancelled.

    Without it, a run learns of the mark at its next renewal. It waits only while there are runs.
    """

    def __init__(self, in_flight: InFlight, leases: Leases) -> None:
        self._in_flight = in_flight
        self._leases = leases
        self._idle: anyio.Event | None = None

    def wake(self) -> None:
        """Begin to watch: there are runs."""
        if self._idle is not None:
            self._idle.set()
            self._idle = None

    async def watch(self) -> None:
        """Watch until cancelled."""
        in_flight, failures = self._in_flight, 0
        while True:
            if not in_flight.runs:
                self._idle = idle = anyio.Event()
                await idle.wait()
            began = loop_seconds()
            try:
                is_woken = await in_flight.backend.wait_cancelled()
                failures = 0
            except Exception as error:  # noqa: BLE001 -- renewals tell of a store that is away
                failures += 1
                logger.debug("the watch for cancelled runs failed: %s", error)
                await backoff_pause(failures)
                continue
            if is_woken:
                await self._leases.renew_all()
            elif loop_seconds() - began < AT_ONCE:
                clock = in_flight.clock
                await clock.sleep_until(instant_after(clock.now(), PAUSE))
