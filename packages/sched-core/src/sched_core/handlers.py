"""Handlers: what your code gives to the scheduler, functions of one event or a dispatcher.

A handler that returns has succeeded, and one that raises has failed. :class:`Snooze`,
:class:`RetryAfter` and :class:`Discard` say something else. They hold when the handler raises them
in a task group of its own, too, if the group has no other error.
"""

from __future__ import annotations

import functools
import inspect
import math
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import timedelta
from typing import Any

import anyio.to_thread

from sched_core._model.event import JobEvent
from sched_core._model.job import JobSpec
from sched_core.errors import InvalidDefinition, shown

Handler = Callable[[JobEvent], Awaitable[Any] | Any]
"""A function of one event: ``async`` runs in the loop, a plain one in a thread."""

InThread = Callable[[Handler, JobEvent], Awaitable[Any]]
"""A function that calls a plain function in one of the worker's threads, and waits for it."""


class Snooze(Exception):
    """Raise it in a handler to be called again later, in the same attempt: it is no failure.

    The history has no execution for it. ``Policy.max_snoozes`` says how often one occurrence may
    be put off; after that, one more is a failure. A transaction of the event is rolled back.

    Args:
        delay: The time until the next call: a timedelta, or a number of seconds; zero or more.

    Raises:
        InvalidDefinition: ``delay`` is neither, or negative.
    """

    __slots__ = ("delay",)

    def __init__(self, delay: timedelta | float) -> None:
        super().__init__(delay)
        self.delay = _duration(delay)


class RetryAfter(Exception):
    """Raise it in a handler to fail, and to say when the next attempt is made.

    It is a failure like any other, so ``Policy.retry.attempts`` bounds how many attempts there are:
    with the default of 1 there is no further one. Only the wait is the handler's.

    Args:
        delay: The time until the next attempt: a timedelta, or a number of seconds; zero or more.
        reason: A text for people, or an error; by default the error that it was raised from.

    Raises:
        InvalidDefinition: ``delay`` is neither, or negative; ``reason`` is neither.
    """

    __slots__ = ("delay", "reason")

    def __init__(self, delay: timedelta | float, reason: str | BaseException | None = None) -> None:
        super().__init__(delay, reason)
        self.delay = _duration(delay)
        self.reason = _checked(reason)


class Discard(Exception):
    """Raise it in a handler to fail for good: no further attempt is made, whatever the policy.

    Args:
        reason: A text for people, or an error; by default the error that it was raised from.

    Raises:
        InvalidDefinition: ``reason`` is neither.
    """

    __slots__ = ("reason",)

    def __init__(self, reason: str | BaseException | None = None) -> None:
        super().__init__(reason)
        self.reason = _checked(reason)


def _duration(delay: timedelta | float) -> timedelta:
    seconds: Any = delay.total_seconds() if isinstance(delay, timedelta) else delay
    is_number = isinstance(seconds, int | float) and not isinstance(seconds, bool)
    if not is_number or not 0 <= seconds < math.inf:
        raise InvalidDefinition(
            "delay", f"must be a timedelta or seconds, zero or more, not {shown(delay)}"
        )
    try:
        return delay if isinstance(delay, timedelta) else timedelta(seconds=seconds)
    except OverflowError:
        return timedelta.max


def _checked(reason: Any) -> str | BaseException | None:
    if reason is not None and not isinstance(reason, str | BaseException):
        raise InvalidDefinition("reason", f"must be a text or an error, not {shown(reason)}")
    found: str | BaseException | None = reason
    return found


class Dispatcher:
    """A handler that itself finds the function to call, and may declare jobs.

    Inherit from it, unlike from the ports: the scheduler knows a dispatcher by this class. Any
    other object is a plain handler, even one that has every attribute.
    """

    group: str | None = None
    """The group as which the declared jobs are synced, as one set; without it each is ensured."""
    version: int | str | None = None
    """The deployment's version, with a group."""
    declares: bool = True
    """Whether the scheduler stores the declared jobs."""

    @property
    def specs(self) -> Sequence[JobSpec]:
        """The definitions of the jobs that it declares."""
        return ()

    @property
    def renamed_from(self) -> Mapping[str, str]:
        """The earlier ids of the jobs that it declares, by their present ones; with a group."""
        return {}

    def knows(self, job_id: str) -> bool:
        """Whether it may have a function for a job, by the id alone.

        The worker never claims a job for which this is False: other workers take it. Where more
        than the id decides, return True, and raise ``NoRoute`` in :meth:`dispatch`. It must be
        quick, and any thread may call it.
        """
        return True

    async def dispatch(self, event: JobEvent, in_thread: InThread) -> Any:
        """Handle the event.

        Args:
            event: The event, as any handler gets it.
            in_thread: The caller of functions that are not ``async``: they keep their claim until
                they return, and a stop waits for them no longer than its grace.
        """
        raise NotImplementedError

    async def __call__(self, event: JobEvent) -> Any:
        """Handle the event outside a scheduler, as in a test."""
        return await self.dispatch(event, _in_any_thread)


async def _in_any_thread(handler: Handler, event: JobEvent) -> Any:
    # In a tuple: trio refuses functions that return coroutines.
    (result,) = await anyio.to_thread.run_sync(lambda: (handler(event),))
    return result


def is_async(handler: Callable[..., Any]) -> bool:
    """Say whether a handler is called in the loop; any other is called in a thread."""
    target: Any = handler
    while isinstance(target, functools.partial):
        target = target.func
    return inspect.iscoroutinefunction(target) or inspect.iscoroutinefunction(
        getattr(target, "__call__", None)  # noqa: B004 -- asks what kind of function it is
    )
