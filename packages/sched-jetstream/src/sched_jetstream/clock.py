"""The server's clock, as far as it can be known here: monotonic time and a measured offset."""

from __future__ import annotations

import logging
from datetime import UTC, datetime, timedelta

from sched_core.clock import Clock, cpu_seconds

logger = logging.getLogger("sched_jetstream")

SLICE = timedelta(seconds=1)
STANDS = timedelta(seconds=60)
"""A sample with a longer round trip is believed when the best one is older than this."""


class StoreClock:
    """What the leader of the stream would say if it were asked now.

    Args:
        given: Waits.
        lease: A step of more than a quarter of it is guarded.
    """

    def __init__(self, given: Clock, lease: timedelta) -> None:
        self._given, self._lease = given, lease
        self._zero = datetime(1970, 1, 1, tzinfo=UTC)
        self._offset = 0.0
        self._round_trip = float("inf")
        self._measured_at = float("-inf")
        self._no_takeover_until: float = float("-inf")
        self.steps = 0

    def now(self) -> datetime:
        """Return the estimate."""
        return self._zero + timedelta(seconds=cpu_seconds() + self._offset)

    async def sleep_until(self, moment: datetime) -> None:
        """Sleep for as long as it is until then, looking again every second."""
        while (remaining := moment - self.now()) > timedelta(0):
            await self._given.sleep_until(self._given.now() + min(remaining, SLICE))

    def measured(self, server: datetime, before: float, after: float) -> None:
        """Take a sample: what the server said, and monotonic seconds around the question."""
        round_trip = after - before
        offset = (server - self._zero).total_seconds() - (before + after) / 2
        first = self._measured_at == float("-inf")
        step = abs(offset - self._offset) - round_trip / 2
        if first:
            pass
        elif step > self._lease.total_seconds() / 4:
            self.steps += 1
            # Its owners renew first: nobody takes over on the word of a clock that has just jumped.
            self._no_takeover_until = after + self._lease.total_seconds()
            logger.warning(
                "the clock of the NATS server moved by %.3f s: no claim is taken over for %s",
                offset - self._offset,
                self._lease,
            )
        elif (
            round_trip > 2 * self._round_trip and after - self._measured_at < STANDS.total_seconds()
        ):
            return
        self._offset, self._round_trip, self._measured_at = offset, round_trip, after

    @property
    def stands(self) -> bool:
        """Whether claims may be taken over: not for a lease after the server's clock has moved."""
        return cpu_seconds() >= self._no_takeover_until
