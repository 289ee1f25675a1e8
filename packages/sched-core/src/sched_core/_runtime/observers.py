"""Observers: who learns of executions and of changes of health; and what is wrong now."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta

from attrs import frozen

from sched_core._model.execution import Execution
from sched_core._model.survey import Counts
from sched_core._support.logger import Logger
from sched_core.ports import Backend, ExecutionQuery

logger = Logger("sched_core")


@frozen
class HealthChange:
    """What observers get when the problems or the notices of a scheduler change.

    Attributes:
        healthy: Whether nothing is wrong.
        problems: What is wrong, for people.
        notices: What people should know although this scheduler does its work: a handler past its
            timeout that cannot be stopped, a job that cannot be read.
    """

    healthy: bool
    problems: tuple[str, ...]
    notices: tuple[str, ...] = ()


@frozen
class Health:
    """The state of a scheduler, as ``health()`` and ``snapshot()`` return it.

    Attributes:
        healthy: Whether nothing is wrong.
        problems: What is wrong, for people.
        notices: What people should know although this scheduler does its work.
        running: Whether ``run_forever`` is running.
        executing: How many runs are queued or under way.
        unsettled: How many claims this scheduler has, including those that only wait to be written.
        completed: How many runs have ended since this scheduler was opened.
        looked_at: The time when the loop last looked for work.
        full_since: The time since which all handlers are busy and the loop claims nothing more;
            ``None`` while there is room.
        oldest_due: The earliest due moment of the claims that are not yet written. Jobs that wait
            in the store while all handlers are busy do not count.
        lateness: How late the newest run began.
        claims_lost: How many claims this scheduler lost: their lease ended before it renewed them
            or wrote the outcome.
        backend_errors: How many calls of the backend have failed.
        at: The time of this state, by the clock that decides.
        backlog: The work of the whole store, as this worker counted it last (``backlog.as_of``),
            each minute or more rarely: how many jobs are due that no worker has, and since when.
            ``None`` before the first count, and where ``run_forever`` does not run.
    """

    healthy: bool
    problems: tuple[str, ...]
    notices: tuple[str, ...]
    running: bool
    executing: int
    unsettled: int
    completed: int
    looked_at: datetime | None
    full_since: datetime | None
    oldest_due: datetime | None
    lateness: timedelta | None
    claims_lost: int
    backend_errors: int
    at: datetime
    backlog: Counts | None = None


Observer = Callable[[Execution | HealthChange], None]
"""A callable that the scheduler calls with what happened.

If it has a method ``watch``, the scheduler passes itself to that each time it opens. The observer
can then read the state at any time, as ``sched_core.otel`` does.
"""


class Observers:
    """Calls observers with what happened, and keeps the problems and notices for health.

    Args:
        backend: The backend whose history says which executions of an edit were written.
        observers: The observers. If one fails, that is logged and harms nothing.
    """

    def __init__(self, backend: Backend, observers: Sequence[Observer]) -> None:
        self._backend = backend
        self._observers = tuple(observers)
        self._problems: dict[str, str] = {}
        self._notices: dict[str, str] = {}

    def __bool__(self) -> bool:
        return bool(self._observers)

    def watch(self, scheduler: object) -> None:
        """Pass the scheduler to each observer that has a method ``watch``."""
        for observer in self._observers:
            watch = getattr(observer, "watch", None)
            if callable(watch):
                watch(scheduler)

    @property
    def problems(self) -> tuple[str, ...]:
        """What is wrong, for people."""
        return tuple(f"{topic}: {text}" for topic, text in list(self._problems.items()))

    @property
    def notices(self) -> tuple[str, ...]:
        """What people should know."""
        return tuple(f"{topic}: {text}" for topic, text in list(self._notices.items()))

    def forget(self) -> None:
        """Forget all problems and notices."""
        self._problems.clear()
        self._notices.clear()

    def set_problem(self, topic: str, problem: str | None) -> None:
        """Note a problem, ``None`` once it is over; notify observers if health changes."""
        if problem is None:
            if topic not in self._problems:
                return
            del self._problems[topic]
            changed = not self._problems
        else:
            changed = not self._problems
            self._problems[topic] = problem
        if changed:
            self._notify_of_health()

    def set_notice(self, topic: str, text: str | None) -> None:
        """Note what people should know, ``None`` once it is over; notify observers of a change."""
        if self._notices.get(topic) == text:
            return
        if text is None:
            del self._notices[topic]
        else:
            self._notices[topic] = text
        self._notify_of_health()

    def _notify_of_health(self) -> None:
        self.notify(HealthChange(not self._problems, self.problems, self.notices))

    async def edited(self, job_id: str, executions: Sequence[Execution]) -> None:
        """Notify observers of executions that an edit has written, not of those left to a run."""
        if executions and self._observers:
            ids = {each.id for each in executions}
            await self._stored(ExecutionQuery(job_id=job_id), ids)

    async def _stored(self, query: ExecutionQuery, ids: set[str]) -> None:
        try:
            page = await self._backend.executions(query, after=None, limit=len(ids) + 10)
        except Exception:  # the edit is written, whatever a backend raises here
            logger.exception("observers miss executions of job %r", query.job_id)
            return
        for each in reversed(page.items):
            if isinstance(each, Execution) and each.id in ids:
                self.notify(each)

    def notify(self, what: Execution | HealthChange) -> None:
        """Call every observer with what happened."""
        for observer in self._observers:
            try:
                observer(what)
            except KeyboardInterrupt:
                raise
            except BaseException:  # also SystemExit, which is for scripts: it harms nothing here
                logger.exception("an observer failed: %s", _shown(observer))


def _shown(observer: Observer) -> str:
    try:
        return repr(observer)
    except Exception:  # noqa: BLE001 -- the application's own __repr__
        return type(observer).__qualname__
