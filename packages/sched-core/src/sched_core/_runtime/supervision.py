"""Standing tasks that outlive a cancellation which reaches them by mistake.

On asyncio whoever has a task may cancel it: an abort button that kept the task of a handler, a
library's timeout that fires too late. A task group takes that for the end of the task, and ends all
others in silence. Here such a cancellation is logged, and the work is begun again.
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
        error: That reached the task.
        host: The task that runs the scheduler, ``None`` on trio, where there are none.
    """
    if host is None or not isinstance(error, sys.modules["asyncio"].CancelledError):
        return False
    return not host.cancelling() and anyio.current_effective_deadline() > -math.inf


def uncancel(task: Any) -> None:
    """Take all cancellations of the task back: others will run in it."""
    while task is not None and task.cancelling():
        task.uncancel()


async def absorb(task: Any) -> bool:
    """Let a cancellation that is still to be delivered come, and go; return whether there was one.

    To be called where no scope around the task is cancelled.
    """
    if task is None or not task.cancelling():
        return False
    asyncio = sys.modules["asyncio"]
    try:
        await asyncio.sleep(0)
    except asyncio.CancelledError:
        pass  # it was for what ran before
    uncancel(task)
    return True


async def keep_up(name: str, host: Any, work: Callable[[], Awaitable[object]]) -> None:
    """Do the work until it returns, again where its task was cancelled by mistake.

    Args:
        name: Of the work, for the log.
        host: As for :func:`is_stray`.
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
            logger.warning("%s was cancelled from outside the scheduler; it goes on", name)


LOOK_EVERY = 0.1
"""Seconds between looks whether there is still time."""


async def until(wait: Callable[[], Awaitable[object]], left: Callable[[], float]) -> None:
    """Wait for something, as long as there are seconds left."""

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
