"""The server's clock, as far as it can be known here, and guarded against being set."""

from __future__ import annotations

from datetime import datetime, timedelta

from sched_core import clock
from sched_core._support.logger import Logger
from sched_core.clock import Clock, boot_seconds

logger = Logger("sched_jetstream")


class StoreClock(clock.StoreClock):
    """What the leader of the stream would say if it were asked now.

    Args:
        given: Waits.
        lease: A step of more than a quarter of it is guarded.
    """

    def __init__(self, given: Clock, lease: timedelta) -> None:
        super().__init__(given)
        self._lease = lease
        self._no_takeover_until: float = float("-inf")
        self._round_trip = float("inf")
        self.steps = 0

    def measured(self, server: datetime, before: float, after: float) -> None:
        """Take a sample: what the server said, and ``boot_seconds`` around the question."""
        self._round_trip = min(self._round_trip, after - before)
        step = self.observe(server, before, after)
        if abs(step) > self._lease / 4:
            self.steps += 1
            # Its owners renew first: nobody takes over on the word of a clock that has just jumped.
            self._no_takeover_until = after + self._lease.total_seconds()
            logger.warning(
                "the clock of the NATS server moved by %.3f s: no claim is taken over for %s",
                step.total_seconds(),
                self._lease,
            )

    @property
    def imprecise(self) -> bool:
        """Whether all samples were so slow that another one is worth having soon."""
        return self._round_trip > self._lease.total_seconds() / 40

    @property
    def may_take_over(self) -> bool:
        """Whether claims may be taken over: not for a lease after the server's clock has moved."""
        return boot_seconds() >= self._no_takeover_until
