"""Work that the backend does next to the calls of the scheduler."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from sched_core._support.logger import Logger
from sched_core.clock import pause

logger = Logger("sched_jetstream")

T = TypeVar("T")

Work = Callable[[], Coroutine[Any, Any, None]]


class Background:
    """The tasks of an open backend.

    Lasting tasks run until the backend closes. Other tasks end on their own, and closing waits for
    them.

    Args:
        patience: The seconds for which a call waits for what cancelled calls have left under way.
    """

    def __init__(self, patience: float) -> None:
        self._patience = patience
        self._lasting: list[asyncio.Task[None]] = []
        self._spawned: set[asyncio.Task[Any]] = set()
        self._left: set[asyncio.Task[Any]] = set()
        """What calls that were cancelled have left under way."""
        self.closing = False

    def supervise(self, work: Work, on_fault: Callable[[Exception], None]) -> None:
        """Run a task until the backend closes; a fault in it is reported, and it starts again."""

        async def forever() -> None:
            while True:
                try:
                    return await work()
                except Exception as error:  # whatever it is: without these tasks, no job runs
                    logger.exception("a task of the backend failed, and is started again")
                    on_fault(error)
                    await pause(1.0)

        self._lasting.append(asyncio.create_task(forever()))

    def spawn(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Start work that no call waits for; closing waits for it."""
        task = asyncio.create_task(work)
        self._spawned.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._spawned.discard(task)
        self._left.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            # The caller got the error, too, unless its call was cancelled.
            logger.debug("work in the background failed: %s", error)

    # -- calls that are cancelled

    async def undisturbed(self, work: Coroutine[Any, Any, T]) -> T:
        """Run work to its end; a caller that is cancelled leaves at once, and the work goes on."""
        task = self.spawn(work)
        try:
            await asyncio.wait([task])
        except BaseException:
            if not task.done():
                self._left.add(task)
            raise
        return task.result()

    def clean_up(self, work: Coroutine[Any, Any, None]) -> None:
        """Start what a cancelled call leaves to be done; later calls wait for it."""
        self._left.add(self.spawn(work))

    async def calm(self) -> None:
        """Wait for what cancelled calls have left: the next call sees all of it, or none."""
        if self._left:
            await asyncio.wait(self._left, timeout=self._patience)

    # -- closing

    def stop(self) -> None:
        """Cancel the lasting tasks."""
        self.closing = True
        for task in self._lasting:
            task.cancel()

    async def finish(self) -> None:
        """Wait until all tasks have ended."""
        if self._lasting or self._spawned:
            await asyncio.wait([*self._lasting, *self._spawned])

    async def abandon(self) -> None:
        """Cancel what has not ended."""
        if self._spawned:
            for task in self._spawned:
                task.cancel()
            await asyncio.wait(self._spawned, timeout=1.0)
