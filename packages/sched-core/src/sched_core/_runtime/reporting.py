"""What a running worker tells of itself, and what it sees of the work that no worker does."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from datetime import datetime, timedelta

from sched_core._model.execution import describe
from sched_core._model.job import Job
from sched_core._model.survey import CountQuery, Counts, WorkerState, unserved_queues
from sched_core._runtime.maintenance import wait
from sched_core._runtime.observers import Observers
from sched_core._runtime.workers import Workers
from sched_core._support.logger import Logger
from sched_core._support.version import version
from sched_core.clock import Clock, elapsed, instant_after
from sched_core.ports import Backend

logger = Logger("sched_core")

LOOKS = timedelta(seconds=2.5)
"""How often the worker looks what is under maintenance, and whether others have taken the jobs that
it passes over. ``start_maintenance`` promises it to users."""
SHORTEST = timedelta(milliseconds=50)
"""The shortest wait between two looks."""
NEVER = timedelta(days=1)
RECONSIDERED = 1_000
"""The most refused jobs for which the handler is asked again at each look."""
REPORTS = timedelta(seconds=10)
"""How often the worker tells that it is alive."""
COUNTS = timedelta(minutes=1)
"""How often the worker counts the work of the store, at most."""
COUNT_PAUSE_FACTOR = 100
"""After a count comes a pause of so many times what it took: a large store is not kept busy."""


class Reporting:
    """Tells the store that this worker is alive, and health what no worker takes.

    Args:
        backend: The backend that stores it.
        clock: The clock that decides.
        workers: The runs of this worker.
        observers: They keep the problems for health.
        worker: The worker's name, as claims carry it.

    Attributes:
        backlog: The newest counts of the store; ``None`` before the first.
    """

    def __init__(
        self,
        backend: Backend,
        clock: Clock,
        workers: Workers,
        observers: Observers,
        *,
        worker: str,
    ) -> None:
        self._backend = backend
        self._clock = clock
        self._workers = workers
        self._observers = observers
        self._worker = worker
        self._started_at = clock.now()
        self._reported = self._count_at = -float("inf")
        self.backlog: Counts | None = None

    async def run(self) -> None:
        """Report until cancelled."""
        self._started_at = self._clock.now()
        self._reported = -float("inf")
        failed = False
        while True:
            try:
                await self._look()
                if failed:
                    failed = False
                    self._observers.set_problem("reporting", None)
            except Exception as error:  # noqa: BLE001 -- a third party's backend may raise anything
                failed = True
                logger.warning("this worker could not report: %s", describe(error))
                self._observers.set_problem("reporting", describe(error))
            left = self._workers.switches.left()
            await wait(self._clock, LOOKS if left is None else max(min(LOOKS, left), SHORTEST))

    async def _look(self) -> None:
        await self._workers.switches.look()
        now = elapsed(self._clock)
        if now - self._reported >= REPORTS.total_seconds():
            await self._backend.report(self.state())
            self._reported = now

    async def survey(self) -> None:
        """Look at the work that no worker does, until cancelled.

        It is apart from :meth:`run`: a store that takes long to count must not hold up the look at
        switches, nor let this worker seem dead.
        """
        self._count_at = -float("inf")
        while True:
            try:
                await self._judge_unrouted()
                if elapsed(self._clock) >= self._count_at:
                    await self._count_sometimes()
                self._observers.set_notice("survey", None)
            except Exception as error:  # noqa: BLE001 -- a third party's backend may raise anything
                logger.warning("the work of the store could not be counted: %s", describe(error))
                self._observers.set_notice("survey", describe(error))
            await wait(self._clock, LOOKS)

    async def _count_sometimes(self) -> None:
        began = elapsed(self._clock)
        try:
            await self._count()
        finally:  # one that fails is repeated no sooner
            took = elapsed(self._clock) - began
            self._count_at = began + max(COUNTS.total_seconds(), COUNT_PAUSE_FACTOR * took)

    def state(self) -> WorkerState:
        """Return what this worker tells of itself."""
        workers = self._workers
        return WorkerState(
            name=self._worker,
            started_at=self._started_at,
            seen_at=self._clock.now(),
            host=platform.node(),
            pid=os.getpid(),
            version=version(),
            max_concurrency=workers.max_concurrency,
            executing=workers.active,
            queues=workers.lanes.queues,
            unrouted=workers.unrouted.told,
        )

    async def _judge_unrouted(self) -> None:
        unrouted = self._workers.unrouted
        unrouted.reconsider(RECONSIDERED)
        suspects = unrouted.suspects()
        if suspects or unrouted.told:
            found: list[tuple[str, Job | None]] = []
            for job_id in suspects:
                stored = await self._backend.get(job_id)
                waits = isinstance(stored, Job) and not self._workers.switches.hold(stored.spec)
                found.append((job_id, stored if isinstance(stored, Job) and waits else None))
            unrouted.judge(found)

    async def _count(self) -> None:
        now = self._clock.now()
        # No execution is asked for: it would have to finish in a future that no clock has shown.
        counts = await self._backend.counts(CountQuery(since=instant_after(now, NEVER)))
        self.backlog = counts
        waiting = [name for name, queue in counts.queues.items() if queue.due]
        unserved: Mapping[str, datetime] = {}
        if waiting:  # this worker may not have reported yet
            workers = [*await self._backend.workers(), self.state()]
            unserved = unserved_queues(counts, workers, now)
        text = "; ".join(f"{queue!r}, since {since}" for queue, since in unserved.items())
        self._observers.set_problem(
            "queues", f"jobs are due in queues that no live worker serves: {text}" if text else None
        )
