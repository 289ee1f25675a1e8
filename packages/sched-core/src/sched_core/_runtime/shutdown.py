"""The end of a scheduler: a request to stop, the grace for handlers, and the deadline for all."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta
from typing import TypeVar, TypeVarTuple, Unpack

import anyio

from sched_core._model.claim import Claim
from sched_core._runtime.supervision import until
from sched_core._runtime.workers import Workers
from sched_core._support.logger import Logger
from sched_core.clock import loop_seconds

T = TypeVar("T")
Arguments = TypeVarTuple("Arguments")

logger = Logger("sched_core")

DEFAULT_GRACE = timedelta(seconds=20)
"""Less than the 30 seconds that Kubernetes waits before it kills a process."""
FLUSH = 5.0
"""Seconds after the grace in which cancelled handlers end and their outcomes are written."""
CLOSING = 0.5
"""The last of these seconds, in which the scheduler leaves behind what has not ended."""
AT_ONCE = 1.0
"""Seconds that a stop takes at most after a second signal."""


class Shutdown:
    """A request to stop, and how far the stop has come.

    The deadline of a stop is its grace plus :data:`FLUSH`, whatever the store does.

    Attributes:
        requested: Set when the scheduler is to stop.
        finished: Set when the loop has ended.
        done: Set when ``run_forever`` may return: the loop has ended, or the deadline has passed.
        grace: Seconds that handlers have, from the request on.
    """

    def __init__(self) -> None:
        self.requested = anyio.Event()
        self.finished = anyio.Event()
        self.done = anyio.Event()
        self.grace = DEFAULT_GRACE.total_seconds()
        self._at_once = False
        self._requested_at = 0.0
        self._deadline = math.inf
        self._waiting: anyio.CancelScope | None = None

    def request(self, grace: float | None) -> None:
        """Ask the scheduler to stop.

        Args:
            grace: Seconds that handlers have; ``None`` leaves them what they have.
        """
        now = loop_seconds()
        if grace is not None:
            self.grace = grace
        if not self.requested.is_set():
            self._requested_at = now
        if self.grace <= 0:
            self._at_once = True
        self._deadline = min(self._deadline, now + max(self.grace, 0) + FLUSH)
        self.requested.set()
        if self._waiting is not None:
            self._waiting.cancel()

    def on_signal(self) -> None:
        """Ask the scheduler to stop; on a second signal, to stop at once."""
        if self.requested.is_set():
            logger.warning("second signal: stopping at once")
            self._deadline = min(self._deadline, loop_seconds() + AT_ONCE)
            self.request(0)
        else:
            logger.info("signal: stopping within %s s", self.grace)
            self.request(None)

    def grace_left(self) -> float:
        """Return for how many seconds handlers may still run."""
        if self._at_once:
            return 0.0
        return max(0.0, self._requested_at + self.grace - loop_seconds())

    def left(self) -> float:
        """Return for how many seconds the scheduler may still wait for handlers and the store."""
        return max(0.0, self._deadline - CLOSING - loop_seconds())

    def patience(self) -> float:
        """Return for how many seconds callers wait at most until the scheduler has stopped."""
        return max(0.0, self._deadline - loop_seconds())

    def left_to_close(self) -> float:
        """Return the seconds that the backend has to close; a few where no stop was requested."""
        return max(AT_ONCE, min(self.patience(), FLUSH))

    async def wait(
        self, wait: Callable[[Unpack[Arguments]], Awaitable[T]], *arguments: *Arguments
    ) -> T | None:
        """Wait for a result; return ``None`` once a stop is requested."""
        result: T | None = None
        with anyio.CancelScope() as self._waiting:
            if not self.requested.is_set():
                result = await wait(*arguments)
        self._waiting = None
        return result


async def wind_down(
    workers: Workers,
    shutdown: Shutdown,
    claims_no_more: anyio.Event,
    release: Callable[[Sequence[Claim]], Awaitable[None]],
) -> None:
    """Wait for handlers as long as they may run, cancel them, and have their outcomes written.

    Args:
        workers: The workers that run the handlers.
        shutdown: The request, or the end of the work without one.
        claims_no_more: Set once the loop claims nothing more.
        release: Gives claims back to the backend.
    """
    shutdown.request(None)

    async def give_back() -> None:
        await release(workers.take_all_unbegun())
        await claims_no_more.wait()
        await release(workers.take_all_unbegun())

    held = workers.in_flight.runs
    if held or not claims_no_more.is_set():  # there is something to wait for
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(until, give_back, shutdown.left)
            await until(workers.until_idle, shutdown.grace_left)
            if workers.active:
                workers.cancel_all()
                await until(workers.until_idle, shutdown.left)
    if workers.active:
        hanging = sorted(run.claim.job.id for run in held.values())
        logger.error("handlers did not end; their claims end with their leases: %s", hanging)
        workers.abandon_threads()
    if held:
        await until(workers.until_settled, shutdown.left)
    if held:
        logger.error("the outcomes of %s runs were not written", len(held))
    workers.close()
