"""What this process holds: its claims, from the moment they are made until they are settled."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

import anyio

from sched_core._model.execution import describe
from sched_core._runtime.runs import Run
from sched_core._support.logger import Logger
from sched_core.clock import LAST, Clock
from sched_core.errors import BackendError
from sched_core.ports import Backend

logger = Logger("sched_core")


class InFlight:
    """The claims that this process holds, one for each job id, and what went wrong with them.

    Args:
        backend: That they were made on.
        clock: The one that decides.
        on_trouble: Called with a topic and what is wrong with it, or ``None`` when it is right.
        on_notice: The same for what people should know, and that is nothing wrong here.
    """

    def __init__(
        self,
        backend: Backend,
        clock: Clock,
        on_trouble: Callable[[str, str | None], None],
        on_notice: Callable[[str, str | None], None],
    ) -> None:
        self.backend, self.clock = backend, clock
        self.on_trouble, self.on_notice = on_trouble, on_notice
        self.lease = backend.capabilities.lease
        self.runs: dict[str, Run] = {}
        """By job id."""
        self.successors: dict[str, Run] = {}
        """Of a claim that ran out here and was made again here: they wait for the earlier run."""
        self.claims_lost = 0
        self.backend_errors = 0
        self.changed = anyio.Event()
        """Set, and replaced, whenever a run has ended or was settled."""

    def forget(self, run: Run) -> Run | None:
        """Let go of a claim; return the run of the same job that waited for it, if any."""
        job_id = run.claim.job.spec.id
        if self.runs.get(job_id) is not run:
            return None
        run.let_go()
        del self.runs[job_id]
        successor = self.successors.pop(job_id, None) if self.successors else None
        if successor is not None:
            self.runs[job_id] = successor
        return successor

    def clear(self) -> None:
        """Forget everything: it is left to its leases."""
        for run in [*self.runs.values(), *self.successors.values()]:
            run.let_go()
        self.runs.clear()
        self.successors.clear()

    def signal(self) -> None:
        """Wake whoever waits for a change."""
        self.changed.set()
        self.changed = anyio.Event()

    def lose(self, run: Run) -> None:
        """Note that a run's claim belongs to somebody else, and tell it to stop."""
        if run.is_lost:
            return
        self.claims_lost += 1
        logger.warning("job %r: claim %s was lost", run.claim.job.id, run.claim.token)
        run.cancel("lost")

    def trouble(self, doing: str, error: BaseException) -> None:
        """Count and log a failure to reach the backend, and turn unhealthy."""
        self.backend_errors += 1
        expected = isinstance(error, BackendError)
        logger.warning(
            "%s failed: %s", doing, describe(error), exc_info=None if expected else error
        )
        self.on_trouble(doing, describe(error))

    def oldest_due(self) -> datetime | None:
        """Return the earliest due moment among what is held and not settled."""
        runs = list(self.runs.values())  # at once: metrics are collected by other threads
        return min((run.claim.job.standing.due_at or LAST for run in runs), default=None)
