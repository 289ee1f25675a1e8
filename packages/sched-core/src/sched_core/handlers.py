"""Handlers: what your code gives to the scheduler, functions of one event or a dispatcher."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

import anyio.to_thread

from sched_core._model.event import JobEvent
from sched_core._model.job import JobSpec

Handler = Callable[[JobEvent], Awaitable[Any] | Any]
"""A function of one event: ``async`` runs in the loop, a plain one in a thread."""

InThread = Callable[[Handler, JobEvent], Awaitable[Any]]
"""A function that calls a plain function in one of the worker's threads, and waits for it."""


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
