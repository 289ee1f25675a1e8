"""The jobs that this worker has no function for, and leaves to others."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import datetime, timedelta
from itertools import islice

from attrs import define

from sched_core._model.job import Job
from sched_core._support.logger import Logger
from sched_core.clock import Clock, instant_after

logger = Logger("sched_core")

PATIENCE = timedelta(seconds=5)
"""How long a job must be due, and no worker have it, until it is a problem: another worker that has
a function for it takes it within this time."""
LONGEST = timedelta(minutes=5)
"""The longest time for which a worker leaves a job alone whose handler has raised ``NoRoute``."""
REMEMBERED = 100_000
"""The most jobs that are remembered."""
SHOWN = 100
"""The most jobs that are looked at, and told of."""


@define
class _Refused:
    since: datetime
    until: datetime | None = None
    """The moment to ask the handler again; ``None`` where the id alone tells."""
    pause: timedelta = timedelta(0)
    is_told: bool = False


class Unrouted:
    """What this worker passes over, and since when.

    A dispatcher may tell by the id alone that it has no function: such a job is never claimed. For
    another one, the handler is called, and raises ``NoRoute``: the worker gives the job back, and
    leaves it alone for a pause that doubles each time.

    Args:
        clock: The clock that decides.
        set_problem: Called with a topic of health and its problem, ``None`` once that is over.
    """

    def __init__(self, clock: Clock, set_problem: Callable[[str, str | None], None]) -> None:
        self._clock = clock
        self._set_problem = set_problem
        self._refused: dict[str, _Refused] = {}
        self._knows: Callable[[str], bool] | None = None
        self.told: dict[str, datetime] = {}
        """The jobs that are due, that no worker takes, and since when they are due."""

    def set_dispatcher(self, knows: Callable[[str], bool] | None) -> None:
        """Ask this one from now on, and forget what another handler has refused.

        Args:
            knows: Whether it may have a function, by a job's id; ``None`` for any job.
        """
        self._knows = knows
        self._refused.clear()

    def predicate(self) -> Callable[[str], bool] | None:
        """Return the test that backends ask; ``None`` where this worker takes any job."""
        return None if self._knows is None and not self._refused else self.accepts

    def accepts(self, job_id: str) -> bool:
        """Whether to claim a job. Any thread may ask."""
        known = self._refused.get(job_id)
        if known is not None:
            return known.until is not None and known.until <= self._clock.now()
        if self._knows is None or self._knows(job_id):
            return True
        if len(self._refused) < REMEMBERED:
            self._refused[job_id] = _Refused(self._clock.now())
        return False

    def reconsider(self, most: int | None = None) -> None:
        """Forget refused jobs that the dispatcher has got a function for: a route was added.

        Args:
            most: How many jobs to ask for, those that were refused first; ``None`` for all.
        """
        if self._knows is None:
            return
        for job_id, one in list(islice(self._refused.copy().items(), most)):
            if one.until is None and self._knows(job_id):
                self._refused.pop(job_id, None)

    def refuse(self, job_id: str, delay: timedelta) -> timedelta:
        """Note that the handler has no function for a job; return how long it is left alone.

        Args:
            job_id: The job's id.
            delay: The first pause.
        """
        known = self._refused.get(job_id)
        if known is None:
            if len(self._refused) >= REMEMBERED:
                self._refused.pop(next(iter(self._refused)), None)
            known = self._refused[job_id] = _Refused(self._clock.now())
        known.pause = min(max(known.pause * 2, delay), max(LONGEST, delay))
        known.until = instant_after(self._clock.now(), known.pause)
        return known.pause

    def has_run(self, job_id: str) -> None:
        """Forget a job that the handler has taken."""
        if self._refused:
            self._refused.pop(job_id, None)

    def suspects(self) -> list[str]:
        """Return jobs to look at: those that were refused some time ago, the oldest first."""
        now = self._clock.now()
        oldest = list(islice(self._refused.copy().items(), SHOWN))
        return [job_id for job_id, one in oldest if now - one.since >= PATIENCE]

    def judge(self, found: Iterable[tuple[str, Job | None]]) -> None:
        """Tell of the jobs that no worker takes; forget those that one has, or that have gone.

        Args:
            found: The jobs that :meth:`suspects` has named, as they are stored now.
        """
        now, told = self._clock.now(), dict[str, datetime]()
        for job_id, job in found:
            due_at = None if job is None or job.held is not None else job.standing.due_at
            if due_at is None or due_at > now:
                self._refused.pop(job_id, None)
            elif now - due_at >= PATIENCE:
                told[job_id] = due_at
                self._warn(job_id, due_at)
        self.told = told
        names = ", ".join(f"{job_id!r} (due since {at})" for job_id, at in list(told.items())[:5])
        more = f" and {len(told) - 5} more" if len(told) > 5 else ""
        self._set_problem(
            "routes", f"no worker has a function for due jobs: {names}{more}" if told else None
        )

    def _warn(self, job_id: str, due_at: datetime) -> None:
        known = self._refused.get(job_id)
        if known is not None and not known.is_told:
            known.is_told = True
            logger.warning(
                "job %r is due since %s, this worker has no function for it, and no other worker "
                "has taken it: add a route, or remove the job",
                job_id,
                due_at,
                extra={"job_id": job_id},
            )
