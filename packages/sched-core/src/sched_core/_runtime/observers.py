"""Who is told: observers of executions and of health."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta

from attrs import frozen

from sched_core._model.execution import Execution
from sched_core._support.logger import Logger
from sched_core.ports import Backend, ExecutionQuery

logger = Logger("sched_core")


@frozen
class HealthChange:
    """What observers get when health changes, or what people should know.

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
    """What ``health()`` returns.

    Attributes:
        healthy: Whether nothing is wrong.
        problems: What is wrong, for people.
        notices: What people should know although this scheduler does its work.
        running: Whether ``run_forever`` is running.
        executing: Runs under way or queued.
        unsettled: Claims held, those included that only wait to be written.
        completed: Runs ended since this scheduler was opened.
        looked_at: When the loop last looked for work.
        full_since: Since when all handlers are busy and nothing more is claimed, ``None`` while
            there is room.
        oldest_due: The earliest due moment among what is claimed here and not yet written; what
            waits in the store while all handlers are busy is not among it.
        lateness: How late the newest run began.
        claims_lost: Claims whose lease had ended, and that were ended by others.
        backend_errors: Failures to reach the backend.
        at: When this was read, by the clock that decides.
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


Observer = Callable[[Execution | HealthChange], None]
"""Is called with what happened. One that has a method ``watch`` is given the scheduler, too, each
time that opens: for what is read and not told, as by ``sched_core.otel``."""


class Observers:
    """Tells observers what happened, and keeps what is wrong.

    Args:
        backend: Where executions are read, of which only the backend knows whether it wrote them.
        observers: Whom to tell. One that fails is logged, and harms nothing.
    """

    def __init__(self, backend: Backend, observers: Sequence[Observer]) -> None:
        self._backend = backend
        self._observers = tuple(observers)
        self._problems: dict[str, str] = {}
        self._notices: dict[str, str] = {}

    def __bool__(self) -> bool:
        return bool(self._observers)

    def watch(self, scheduler: object) -> None:
        """Show the scheduler to observers that want to read it by themselves."""
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
        """Begin with nothing wrong, and nothing to know."""
        self._problems.clear()
        self._notices.clear()

    def trouble(self, topic: str, problem: str | None) -> None:
        """Note a problem, or that it is over; tell the observers when health changes."""
        if problem is None:
            if topic not in self._problems:
                return
            del self._problems[topic]
            changed = not self._problems
        else:
            changed = not self._problems
            self._problems[topic] = problem
        if changed:
            self._tell_of_health()

    def notice(self, topic: str, text: str | None) -> None:
        """Note what people should know, or that it is over; tell the observers when it changes."""
        if self._notices.get(topic) == text:
            return
        if text is None:
            del self._notices[topic]
        else:
            self._notices[topic] = text
        self._tell_of_health()

    def _tell_of_health(self) -> None:
        self.tell(HealthChange(not self._problems, self.problems, self.notices))

    async def edited(self, job_id: str, executions: Sequence[Execution]) -> None:
        """Tell the observers which executions an edit wrote: not those that are left to a claim."""
        if executions and self._observers:
            ids = {each.id for each in executions}
            await self._stored(ExecutionQuery(job_id=job_id), ids)

    async def _stored(self, query: ExecutionQuery, ids: set[str]) -> None:
        try:
            page = await self._backend.executions(query, after=None, limit=len(ids) + 10)
        except Exception:  # what was written or claimed stands, whatever a backend raises here
            logger.exception("observers miss executions of job %r", query.job_id)
            return
        for each in reversed(page.items):
            if isinstance(each, Execution) and each.id in ids:
                self.tell(each)

    def tell(self, what: Execution | HealthChange) -> None:
        """Call every observer."""
        for observer in self._observers:
            try:
                observer(what)
            except KeyboardInterrupt:
                raise
            except BaseException:  # also what was meant to end a script: it harms nothing here
                logger.exception("an observer failed: %s", _shown(observer))


def _shown(observer: Observer) -> str:
    try:
        return repr(observer)
    except Exception:  # noqa: BLE001 -- of the application's
        return type(observer).__qualname__
