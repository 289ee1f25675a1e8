"""The server's clock, as far as a worker can know it, and guarded against being set."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from sched_core import clock
from sched_core._support.logger import Logger
from sched_core.clock import Clock, boot_seconds, pause
from sched_core.codec import decode_moment
from sched_core.errors import BackendError
from sched_jetstream._runtime.background import Work
from sched_jetstream._runtime.hints import Hints
from sched_jetstream._runtime.reconciler import Reconciler
from sched_jetstream._store.history import History
from sched_jetstream._store.reader import Reader
from sched_jetstream._store.records import Records
from sched_jetstream._store.wire import Wire

logger = Logger("sched_jetstream")

SAMPLE_EVERY = 5.0
"""Seconds between two samples of the server's clock."""
FIRST_SAMPLES = 5
"""Most samples before anything is decided by the clock: the first answers may come late."""


class StoreClock(clock.StoreClock):
    """What the leader of the stream would say if it were asked now.

    Args:
        given: The clock that waits.
        lease: The lease of claims: a step of more than a quarter of it is guarded.
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
            # The owners renew first: a clock that has just jumped is no reason to take over.
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


class ServerTime:
    """The server's clock decides, its timers send hints, and it deletes what has expired.

    Args:
        given: The clock that waits.
        lease: The lease of claims.
        wire: The connection to the server.
        stream: The stream whose leader is asked for the time.
    """

    server_expires = True

    def __init__(self, given: Clock, lease: timedelta, wire: Wire, stream: str) -> None:
        self._clock = StoreClock(given, lease)
        self._wire, self._stream = wire, stream

    @property
    def clock(self) -> Clock:
        return self._clock

    @property
    def may_take_over(self) -> bool:
        return self._clock.may_take_over

    def history(self, reader: Reader) -> History:
        return History(reader)

    async def begin(self) -> None:
        for _ in range(FIRST_SAMPLES):
            if self._clock.imprecise:
                await self._sample()

    async def _sample(self) -> None:
        before = boot_seconds()
        info = await self._wire.call(f"STREAM.INFO.{self._stream}")
        told = decode_moment(_to_microseconds(info["ts"]))
        self._clock.measured(told, before, boot_seconds())

    async def _sample_on(self) -> None:
        while True:
            await pause(SAMPLE_EVERY)
            try:
                await self._sample()
            except BackendError:
                continue  # the next write reports it

    def lasting(self, reconcile: Work) -> Sequence[Work]:
        return self._sample_on, reconcile

    async def find_due(self, reconciler: Reconciler, hints: Hints) -> bool:
        """Nothing is to be done: the server sends a hint."""
        return False

    async def delete_expired(self, reconciler: Reconciler, records: Records) -> int:
        """Nothing is to be done: the server deletes records by their age."""
        return 0


def _to_microseconds(text: str) -> str:
    """Cut the nanoseconds that the server tells, which datetime cannot keep."""
    head, dot, rest = text.rstrip("Z").partition(".")
    return f"{head}{dot}{rest[:6]}Z"
