"""The router: finds the function for a job by its id, a pattern or metadata.

A :class:`JobRouter` is a handler like any other. It also lets you declare a job where its function
is defined, and put middleware around all functions.
"""

from __future__ import annotations

import fnmatch
import inspect
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Protocol, TypeVar

from attrs import evolve, frozen

from sched_core._model.event import JobEvent
from sched_core._model.execution import DEFAULT_QUEUE
from sched_core._model.job import JobSpec, check_text
from sched_core._model.policy import Policy
from sched_core.errors import InvalidDefinition, NoRoute
from sched_core.handlers import Dispatcher, Handler, InThread, is_async
from sched_core.schedule import Schedule

F = TypeVar("F", bound=Handler)

Next = Callable[[JobEvent], Awaitable[Any]]
"""The function that a middleware calls to continue: the next middleware, or the handler."""


class Middleware(Protocol):
    """An ``async`` function around handlers, which calls ``await call_next(event)`` to continue."""

    async def __call__(self, event: JobEvent, call_next: Next, /) -> Any:
        """Do something before, after, around or instead of the next function."""
        ...


M = TypeVar("M", bound=Middleware)


@frozen
class _Route:
    """A handler, and the jobs that it is for.

    Attributes:
        handler: The function to call.
        matches: The test of a job's id; ``None`` matches any.
        metadata: Entries that the job's metadata must have, and maybe more.
        text: The route as text for people.
    """

    handler: Handler
    matches: Callable[[str], object] | None
    metadata: Mapping[str, str]
    text: str

    def fits(self, event: JobEvent) -> bool:
        return (self.matches is None or self.matches(event.id) is not None) and (
            not self.metadata or self.metadata.items() <= event.metadata.items()
        )


class JobRouter(Dispatcher):
    """A handler that calls a function for each job, chosen by id, pattern or metadata.

    The router tries a job's own function first, then patterns and metadata in the order in which
    you added them, then the default. If none fits, the worker leaves the job to others: in a
    rolling deploy, or where services share a store, another worker has a function for it.

    The scheduler whose handler is this router stores the jobs declared by :meth:`job`, when it
    opens and before it runs. It calls ``ensure_job`` for each or, if the router has a group,
    ``sync_jobs`` for all together.

    Args:
        group: The group of the declared jobs. Jobs of the group that are stored and no longer
            declared are removed.
        version: The version of this deployment, with a group; see ``Scheduler.sync_jobs``.
        declare: Whether the scheduler stores the jobs. If not, call
            ``scheduler.sync_jobs(router.specs, group=...)``.
        no_route_delay: Seconds for which this worker leaves a job alone whose metadata no route
            fits; they double each time, up to five minutes. Where the id says that no route fits,
            the worker never claims the job.

    Raises:
        InvalidDefinition: An argument is out of bounds.
    """

    def __init__(
        self,
        *,
        group: str | None = None,
        version: int | str | None = None,
        declare: bool = True,
        no_route_delay: float = 5.0,
    ) -> None:
        if group is not None:
            check_text("group", group)
        if version is not None and group is None:
            raise InvalidDefinition("version", "is of a group: give a group, too")
        if isinstance(no_route_delay, bool) or not isinstance(no_route_delay, int | float):
            raise InvalidDefinition("no_route_delay", f"must be seconds, not {no_route_delay!r}")
        if not 0.1 <= no_route_delay <= 86_400:
            raise InvalidDefinition(
                "no_route_delay", f"must be from 0.1 to 86400 seconds, not {no_route_delay!r}"
            )
        self.group = group
        self.version = version
        self.declares = declare
        self._delay = no_route_delay
        self._by_id: dict[str, Handler] = {}
        self._routes: list[_Route] = []
        self._default: Handler | None = None
        self._specs: dict[str, JobSpec] = {}
        self._renamed_from: dict[str, str] = {}
        self._middleware: list[Middleware] = []

    @property
    def specs(self) -> Sequence[JobSpec]:
        """The jobs declared by :meth:`job`, in the order of their declarations."""
        return tuple(self._specs.values())

    @property
    def renamed_from(self) -> Mapping[str, str]:
        """The earlier ids of declared jobs, by their present ids."""
        return dict(self._renamed_from)

    # -- adding

    def job(
        self,
        id: str,
        schedule: Schedule,
        *,
        name: str | None = None,
        metadata: Mapping[str, str] | None = None,
        policy: Policy | None = None,
        queue: str = DEFAULT_QUEUE,
        renamed_from: str | None = None,
    ) -> Callable[[F], F]:
        """Declare a job, and decorate its function.

        Args:
            id: The job's id.
            schedule: When the job occurs.
            name: A name for people.
            metadata: Entries that the function finds in the event.
            policy: How to treat late, failed and overlapping occurrences.
            queue: The queue whose workers may take the job.
            renamed_from: The job's earlier id, in a router with a group; its work is kept. See
                ``Scheduler.sync_jobs``.

        Raises:
            InvalidDefinition: A value is out of bounds, or the id already has a function.
        """
        if renamed_from is not None and self.group is None:
            raise InvalidDefinition("renamed_from", "is of a set: give the router a group, too")
        spec = JobSpec(
            id,
            schedule,
            name,
            {} if metadata is None else metadata,
            Policy() if policy is None else policy,
            self.group,
            queue,
        )

        def add(handler: F) -> F:
            self._add(id, handler)
            self._specs[id] = spec
            if renamed_from is not None:
                self._renamed_from[id] = renamed_from
            return handler

        return add

    def route(
        self,
        pattern: str | re.Pattern[str] | None = None,
        *,
        metadata: Mapping[str, str] | None = None,
    ) -> Callable[[F], F]:
        """Decorate the function for matching jobs, and declare none.

        Args:
            pattern: An id; or a glob such as ``"report-*"`` (``*``, ``?``, ``[…]``, case counts);
                or a compiled regular expression, which the whole id must match.
            metadata: Entries that the job's metadata must have, and maybe more.

        Raises:
            InvalidDefinition: There is neither a pattern nor metadata, or the id already has a
                function.
        """
        if pattern is None and not metadata:
            raise InvalidDefinition("pattern", "is missing: give an id, a pattern, or metadata")
        if pattern is not None and not isinstance(pattern, str | re.Pattern):
            raise InvalidDefinition(
                "pattern", f"must be text or a compiled regular expression, not {pattern!r}"
            )
        wanted = {} if metadata is None else dict(metadata)
        exact = isinstance(pattern, str) and not wanted and not set("*?[") & set(pattern)

        def add(handler: F) -> F:
            if exact:
                self._add(str(pattern), handler)
                return handler
            _check(handler)
            if isinstance(pattern, str):
                matches: Callable[[str], object] | None = re.compile(
                    fnmatch.translate(pattern)
                ).match
            else:
                matches = None if pattern is None else pattern.fullmatch
            self._routes.append(_Route(handler, matches, wanted, f"{pattern or wanted}"))
            return handler

        return add

    def default(self, handler: F) -> F:
        """Decorate the function for jobs that no route fits.

        Raises:
            InvalidDefinition: The router already has a default.
        """
        if self._default is not None:
            raise InvalidDefinition("handler", "there is a default already")
        _check(handler)
        self._default = handler
        return handler

    def middleware(self, function: M) -> M:
        """Decorate an ``async`` function around every handler; the first one added is outermost.

        A worker does not claim a job that no route fits by its id, so no middleware sees it. Where
        the metadata decides, it is called, and ``call_next`` raises ``NoRoute``. To handle every
        job, add a :meth:`default`.

        Raises:
            InvalidDefinition: The function is not ``async``.
        """
        if not is_async(function):
            raise InvalidDefinition(
                "middleware", f"must be an async function of event and call_next, not {function!r}"
            )
        self._middleware.append(function)
        return function

    def include(self, other: JobRouter) -> None:
        """Copy all that another router has so far; its functions keep its middleware.

        Its declared jobs get this router's group. What you add to it later is not copied.

        Raises:
            InvalidDefinition: An id has a function in both, or both have a default.
        """
        if other is self:
            raise InvalidDefinition("other", "a router cannot include itself")
        for job_id in other._by_id:
            if job_id in self._by_id:
                raise InvalidDefinition("id", f"{job_id!r} has a function already")
        if other._default is not None:
            self.default(other._wrapped(other._default))
        for job_id, handler in other._by_id.items():
            self._by_id[job_id] = other._wrapped(handler)
        for route in other._routes:
            handler = other._wrapped(route.handler)
            self._routes.append(_Route(handler, route.matches, route.metadata, route.text))
        for spec in other._specs.values():
            self._specs[spec.id] = evolve(spec, group=self.group)
        if self.group is not None:
            self._renamed_from.update(other._renamed_from)

    def _add(self, job_id: str, handler: Handler) -> None:
        check_text("id", job_id)
        if job_id in self._by_id:
            raise InvalidDefinition("id", f"{job_id!r} has a function already")
        _check(handler)
        self._by_id[job_id] = handler

    def _wrapped(self, handler: Handler) -> Handler:
        """Return a handler together with the middleware that this router has now."""
        return _Wrapped(handler, tuple(self._middleware)) if self._middleware else handler

    # -- calling

    def handler_for(self, event: JobEvent) -> Handler | None:
        """Return the function for the event's job, ``None`` if there is none."""
        handler = self._by_id.get(event.id)
        if handler is not None:
            return handler
        for route in self._routes:
            if route.fits(event):
                return route.handler
        return self._default

    def knows(self, job_id: str) -> bool:
        """Whether a function may fit a job with the id."""
        if job_id in self._by_id or self._default is not None:
            return True
        return any(route.matches is None or route.matches(job_id) for route in self._routes)

    async def dispatch(self, event: JobEvent, in_thread: InThread) -> Any:
        """Call the function for the event's job, and the middleware around it.

        Args:
            event: The event that the function gets.
            in_thread: Calls a function that is not ``async`` in a thread.

        Raises:
            NoRoute: No function fits the job.
        """
        handler = self.handler_for(event)
        if handler is None:
            handler = self._no_route
        return await _call(event, handler, self._middleware, in_thread)

    async def _no_route(self, event: JobEvent) -> None:
        raise NoRoute(f"no route for {event.id!r} in this process", delay=self._delay)


@frozen
class _Wrapped(Dispatcher):
    """A function of an included router, with that router's middleware."""

    handler: Handler
    middleware: tuple[Middleware, ...]

    async def dispatch(self, event: JobEvent, in_thread: InThread) -> Any:
        return await _call(event, self.handler, self.middleware, in_thread)


async def _call(
    event: JobEvent, handler: Handler, middleware: Sequence[Middleware], in_thread: InThread
) -> Any:
    async def innermost(event: JobEvent) -> Any:
        if isinstance(handler, Dispatcher):
            return await handler.dispatch(event, in_thread)
        result = handler(event) if is_async(handler) else await in_thread(handler, event)
        return await result if inspect.isawaitable(result) else result

    chain: Next = innermost
    for function in reversed(middleware):
        chain = _around(function, chain)
    return await chain(event)


def _around(function: Middleware, call_next: Next) -> Next:
    async def call(event: JobEvent) -> Any:
        return await function(event, call_next)

    return call


def _check(handler: object) -> None:
    if not callable(handler):
        raise InvalidDefinition(
            "handler", f"must be a function that takes a JobEvent, not {handler!r}"
        )
