"""The quarantine runs suspects alone, so that a lost claim shows which run killed its process.

An occurrence that has lost all claims but one is a suspect: it may have killed every process that
ran it, or it ran at the same time as the one that did. The rules say which is (``Start.alone``).
The quarantine makes its last attempt:

1. The worker claims nothing more. Other runs have half a minute to end.
2. If they have, the worker tells the store that the run is alone, and calls the handler. If the
   claim is lost now, the run was at fault, and this was its last claim. If others have not ended,
   the worker calls the handler anyway; then the loss of its claim would not count.
3. Other runs begin again when the run has ended, or when half a minute has passed and the store
   knows that the run is not alone any more. They may begin for at least as long as they were held
   up. Then comes the next suspect.

So others are held up for a minute at most, and longer only while the store cannot be reached.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

import anyio.abc

from sched_core._rules.hold import QUARANTINE
from sched_core._runtime.in_flight import InFlight
from sched_core._runtime.leases import Leases
from sched_core._runtime.runs import Run
from sched_core._runtime.supervision import keep_up, until
from sched_core._support.logger import Logger
from sched_core.clock import backoff_pause, loop_seconds, pause

logger = Logger("sched_core")


class Quarantine:
    """Has suspects begin alone, one after the other.

    Args:
        in_flight: The runs in flight.
        leases: The renewals, which also tell the store whether a run is alone.
        call: Queues a run, so that its handler is called.
        others: Returns how many runs are queued or under way, without those that wait here.

    Attributes:
        closed: Whether no other run may begin.
    """

    def __init__(
        self,
        in_flight: InFlight,
        leases: Leases,
        *,
        call: Callable[[Run], None],
        others: Callable[[], int],
    ) -> None:
        self._in_flight = in_flight
        self._leases = leases
        self._call = call
        self._others = others
        self._waiting: deque[Run] = deque()
        self._at_work = False
        self.closed = False

    def __len__(self) -> int:
        return len(self._waiting)

    def admit(self, run: Run, tasks: anyio.abc.TaskGroup, host: Any) -> None:
        """Have a run begin alone, once no other runs."""
        self._waiting.append(run)
        if not self._at_work:
            self._at_work = self.closed = True
            tasks.start_soon(keep_up, "the quarantine", host, self._serve)

    def take_all(self) -> list[Run]:
        """Take out and return the runs that have not begun."""
        waiting = list(self._waiting)
        self._waiting.clear()
        return waiting

    def clear(self) -> None:
        """Forget all waiting runs."""
        self._waiting.clear()
        self._at_work = self.closed = False

    async def _serve(self) -> None:
        try:
            while self._waiting:
                began = loop_seconds()
                self.closed = True
                await self._wait(lambda: not self._others())
                if self._waiting:
                    await self._isolate(self._waiting[0])
                self._reopen()
                if self._waiting:
                    await pause(loop_seconds() - began)
        finally:
            self._at_work = False
            self._reopen()

    def _reopen(self) -> None:
        self.closed = False
        self._in_flight.signal()

    async def _isolate(self, run: Run) -> None:
        if not self._others():
            run.alone = True
            await self._leases.renew_one(run)
        if not self._waiting or self._waiting[0] is not run:
            return  # given back in the meantime
        self._waiting.popleft()
        if run.cancel_reason is not None:
            run.alone = False
        job_id = run.claim.job.id
        logger.warning(
            "job %r: %s claims were lost in a row: %s",
            job_id,
            run.claims_lost,
            _how(alone=run.alone),
        )
        self._call(run)
        await self._wait(lambda: not run.is_under_way)
        failures = 0
        while run.alone and run.is_under_way:
            # The store must know before another run begins: a loss would count as this run's fault.
            run.alone = False
            if not await self._leases.renew_one(run):
                run.alone = True
                failures += 1
                await backoff_pause(failures)

    async def _wait(self, is_over: Callable[[], bool]) -> None:
        """Wait until something is over, half a minute at most."""
        ends = loop_seconds() + QUARANTINE.total_seconds()

        async def over() -> None:
            while not is_over():
                await self._in_flight.changed.wait()

        await until(over, lambda: ends - loop_seconds())


def _how(*, alone: bool) -> str:
    if alone:
        return f"its last attempt is made while nothing else begins, for {QUARANTINE}"
    return "another run has not ended, so this attempt is not its last"
