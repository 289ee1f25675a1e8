"""Lasting tasks that survive a cancellation which reaches them by mistake.

On asyncio, any code that has a task may cancel it: an abort button that kept the task of a handler,
or a library's timeout that fires too late. A task group then ends all its other tasks silently.
This module logs such a cancellation, and begins the work again.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import anyio.abc

from sched_core._support.logger import Logger
from sched_core.clock import pause

logger = Logger("sched_core")


def asyncio_task() -> Any:
    """Return the running task of asyncio, ``None`` on trio."""
    asyncio = sys.modules.get("asyncio")
    try:
        return None if asyncio is None else asyncio.current_task()
    except RuntimeError:
        return None


def is_stray(error: BaseException, host: Any) -> bool:
    """Whether a cancellation came from no scope around the task, and not from the program's end.

    Args:
        error: The exception that reached the task.
        host: The task that runs the scheduler; ``None`` on trio, where no cancellation is stray.
    """
    if host is None or not isinstance(error, sys.modules["asyncio"].CancelledError):
        return False
    return not host.cancelling() and anyio.current_effective_deadline() > -math.inf


def uncancel(task: Any) -> None:
    """Take back all cancellations of a task, in which other handlers will run."""
    while task is not None and task.cancelling():
        task.uncancel()


async def absorb(task: Any) -> bool:
    """Take the cancellation that a task has still to receive; return whether there was one.

    Call this only while no scope around the task is cancelled.
    """
    if task is None or not task.cancelling():
        return False
    asyncio = sys.modules["asyncio"]
    try:
        await asyncio.sleep(0)
    except asyncio.CancelledError:
        pass  # it was meant for the handler that ran before
    uncancel(task)
    return True


async def keep_up(name: str, host: Any, work: Callable[[], Awaitable[object]]) -> None:
    """Do the work until it returns; begin again if its task was cancelled by mistake.

    Args:
        name: The name of the work, for the log.
        host: The task that runs the scheduler, see :func:`is_stray`.
        work: May be begun again at any time.
    """
    while True:
        try:
            await work()
            return
        except BaseException as error:
            if not is_stray(error, host):
                raise
            uncancel(asyncio_task())
            logger.warning("%s was cancelled from outside the scheduler; it continues", name)


LOOK_EVERY = 0.1
"""Seconds between two looks at the time that is left."""


async def until(wait: Callable[[], Awaitable[object]], left: Callable[[], float]) -> None:
    """Wait for something while there are seconds left."""

    async def run_out() -> None:
        while (seconds := left()) > 0:
            await pause(min(seconds, LOOK_EVERY))

    await first_of(wait, run_out)


async def first_of(*waits: Callable[[], Awaitable[object]]) -> None:
    """Wait until one of them has returned."""
    async with anyio.create_task_group() as tasks:

        async def race(wait: Callable[[], Awaitable[object]]) -> None:
            await wait()
            tasks.cancel_scope.cancel()

        for wait in waits:
            tasks.start_soon(race, wait)
