"""The tasks that call handlers: each takes runs from one queue, and sleeps while that is empty.

A task that is about to call a handler wakes another one if more runs are queued. So one task calls
all handlers that never wait, without a switch between them, and handlers that wait are overtaken.
"""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Awaitable, Callable
from contextvars import Context, copy_context
from typing import Any

import anyio
import anyio.abc

from sched_core._runtime.runs import Run, WorkerTask
from sched_core._runtime.supervision import absorb, asyncio_task, is_stray, uncancel
from sched_core._support.logger import Logger

logger = Logger("sched_core")


class TaskPool:
    """Calls a function for each queued run, in at most ``size`` tasks.

    Args:
        call: The function; it gets the run, and the task that calls it.
        size: The most tasks, and so the most handlers that run at a time.

    Attributes:
        queue: Runs that no task has taken. After adding one, call :meth:`wake`.
    """

    def __init__(self, call: Callable[[Run, WorkerTask], Awaitable[None]], *, size: int) -> None:
        self.queue: deque[Run] = deque()
        self._call = call
        self._size = size
        self._idle: list[WorkerTask] = []
        self._count = 0
        self._waking = 0
        self._closing = False
        self._tasks: anyio.abc.TaskGroup | None = None
        self._host: Any = None
        self._context = copy_context()

    def start(self, tasks: anyio.abc.TaskGroup, context: Context, host: Any) -> None:
        """Start tasks when runs are queued.

        Args:
            tasks: The task group that they run in.
            context: The context variables that every handler begins with.
            host: The task of asyncio that runs the group, ``None`` on trio.
        """
        self._tasks, self._context, self._host = tasks, context, host
        self._closing = False

    def close(self) -> None:
        """Forget the tasks, which end with their group, and all queued runs."""
        self._closing = True
        self._tasks = self._host = None
        self._idle.clear()
        self._count = self._waking = 0
        self.queue.clear()

    def wake(self) -> None:
        """Ensure that a task looks at the queue soon."""
        if not self.queue or self._waking:
            return
        if self._idle:
            self._waking += 1
            self._idle.pop().woken.set()
        elif self._count < self._size:
            self._count += 1
            self._start(WorkerTask())

    def _start(self, worker: WorkerTask) -> None:
        if self._tasks is not None:
            self._waking += 1
            self._context.run(self._tasks.start_soon, self._work, worker)

    async def _work(self, worker: WorkerTask) -> None:
        self._waking -= 1
        try:
            await self._serve(worker)
        except BaseException as error:
            if self._closing or worker.scope.cancel_called:
                raise
            if isinstance(error, Exception):
                # One run made this fail. All others continue.
                logger.error("calling a handler failed", exc_info=error)
            elif is_stray(error, self._host):
                uncancel(asyncio_task())
                logger.warning("a worker's task was cancelled from outside; another takes over")
            else:
                raise
            self._replace(worker)

    def _replace(self, worker: WorkerTask) -> None:
        """Have another task call handlers in the place of this one."""
        successor = WorkerTask()
        successor.thread = worker.thread
        self._start(successor)

    async def _serve(self, worker: WorkerTask) -> None:
        queue, context, task = self.queue, copy_context(), asyncio_task()
        while not self._closing:
            with anyio.CancelScope() as worker.scope:
                while not worker.scope.cancel_called:
                    if _differ(copy_context(), context):
                        # No job finds what another one left in context variables.
                        self._replace(worker)
                        return
                    if not queue:
                        await self._sleep(worker)
                        continue
                    run = queue.popleft()
                    if queue:
                        self.wake()
                    references = _references(task)
                    await self._call(run, worker)
                    # Another job's handler must not be called in a task that was cancelled when
                    # this handler had returned, or that other code has kept and may cancel.
                    kept = _references(task) > references
                    if (
                        task is not None
                        and (kept or task.cancelling())
                        and not self._is_ending(worker)
                    ):
                        await absorb(task)
                        self._replace(worker)
                        return

    def _is_ending(self, worker: WorkerTask) -> bool:
        """Whether the task was cancelled by the scheduler, or by the program's end."""
        return worker.scope.cancel_called or self._closing or self._host.cancelling() > 0

    async def _sleep(self, worker: WorkerTask) -> None:
        worker.woken = anyio.Event()
        self._idle.append(worker)
        try:
            await worker.woken.wait()
        except BaseException:
            if worker in self._idle:
                self._idle.remove(worker)
            elif not self._closing:
                self._waking -= 1
            raise
        self._waking -= 1


_references: Callable[[Any], int] = getattr(sys, "getrefcount", lambda _: 0)
"""Interpreters other than CPython do not count: there a task that was kept is not noticed."""


def _differ(one: Context, other: Context) -> bool:
    try:
        return one != other
    except Exception:  # noqa: BLE001 -- compares values that handlers left there, of any class
        return True
