"""The runs in flight in this process: its claims, until they are settled or let go."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

import anyio

from sched_core._model.event import JobEvent
from sched_core._model.execution import Progress, describe
from sched_core._runtime.runs import Run
from sched_core._support.logger import Logger
from sched_core.clock import LAST, Clock
from sched_core.errors import BackendError
from sched_core.ports import Backend

logger = Logger("sched_core")


class InFlight:
    """The runs in flight, at most one per job id, and the counts of what went wrong with them.

    Args:
        backend: The backend that handed out the claims.
        clock: The clock that decides.
        set_problem: Called with a topic of health and its problem, ``None`` once that is over.
        set_notice: Called with a topic and what people should know of it, ``None`` once that is
            over.
    """

    def __init__(
        self,
        backend: Backend,
        clock: Clock,
        set_problem: Callable[[str, str | None], None],
        set_notice: Callable[[str, str | None], None],
    ) -> None:
        self.backend, self.clock = backend, clock
        self.set_problem, self.set_notice = set_problem, set_notice
        self.lease = backend.capabilities.lease
        self.runs: dict[str, Run] = {}
        """The runs by job id."""
        self.successors: dict[str, Run] = {}
        """Runs, by job id, that wait for an earlier run of their job, whose lease ran out here."""
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
        """Forget all runs. The leases of their claims run out."""
        for run in [*self.runs.values(), *self.successors.values()]:
            run.let_go()
        self.runs.clear()
        self.successors.clear()

    def signal(self) -> None:
        """Wake the tasks that wait for a change."""
        self.changed.set()
        self.changed = anyio.Event()

    def lose(self, run: Run) -> None:
        """Note that a claim is no longer this worker's, and tell its handler to stop."""
        if run.is_lost:
            return
        self.claims_lost += 1
        logger.warning("job %r: claim %s was lost", run.claim.job.id, run.claim.token)
        run.cancel("lost")

    def backend_failed(self, doing: str, error: BaseException) -> None:
        """Count and log a failure to reach the backend, and turn unhealthy."""
        self.backend_errors += 1
        expected = isinstance(error, BackendError)
        logger.warning(
            "%s failed: %s", doing, describe(error), exc_info=None if expected else error
        )
        self.set_problem(doing, describe(error))

    # -- what handlers tell

    def hear_progress(
        self, event: JobEvent, done: float, of: float | None, text: str | None
    ) -> None:
        """Note how far a run has come; the next renewal takes it along."""
        run = self._run_of(event)
        if run is not None:
            run.take_notes().progress = Progress(done, of, text, self.clock.now())

    def hear_log(self, event: JobEvent, text: str) -> None:
        """Note a line for the history."""
        run = self._run_of(event)
        if run is not None:
            run.take_notes().add(text)

    def _run_of(self, event: JobEvent) -> Run | None:
        """Return the run that an event was made for; ``None`` once it is over."""
        run = self.runs.get(event.id)
        return run if run is not None and run.claim.token == event.token else None

    def oldest_due(self) -> datetime | None:
        """Return the earliest due moment of the runs in flight."""
        runs = list(self.runs.values())  # a copy: other threads collect metrics
        return min((run.claim.job.standing.due_at or LAST for run in runs), default=None)
