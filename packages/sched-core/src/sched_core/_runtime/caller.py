"""Calls handlers: coroutines in the loop, plain functions in threads."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any

import anyio
import anyio.to_thread

from sched_core._model.event import JobEvent
from sched_core._runtime.runs import Run, WorkerTask
from sched_core._runtime.threads import HandlerThread
from sched_core.handlers import Dispatcher, Handler, is_async


class Caller:
    """Calls the scheduler's handler.

    Args:
        slots: The most threads on trio. On asyncio each worker task has one, once it needs it.
    """

    def __init__(self, *, slots: int) -> None:
        self.handler: Handler | None = None
        self.threaded = False
        """Whether the handler is a plain function."""
        self._dispatcher: Dispatcher | None = None
        self._slots = slots
        self._limiter: anyio.CapacityLimiter | None = None
        self._host: Any = None
        self._threads: list[HandlerThread] = []

    def set_handler(self, handler: Handler) -> None:
        """Use this handler for every run that has not begun."""
        self.handler = handler
        candidate: Any = handler
        self._dispatcher = candidate if isinstance(candidate, Dispatcher) else None
        self.threaded = self._dispatcher is None and not is_async(handler)

    @property
    def knows(self) -> Callable[[str], bool] | None:
        """Whether the handler may have a function for a job, by the id; ``None`` for any job."""
        return None if self._dispatcher is None else self._dispatcher.knows

    def start(self, host: Any) -> None:
        """Get ready to call handlers.

        Args:
            host: The asyncio task that runs the scheduler; ``None`` on trio.
        """
        self._host = host
        self._limiter = anyio.CapacityLimiter(self._slots)

    def close(self) -> None:
        """Let the threads end once their handlers have returned."""
        for thread in self._threads:
            thread.end()
        self._threads.clear()

    def call(self, run: Run, handler: Handler, event: JobEvent, worker: WorkerTask) -> Any:
        """Call the handler, and let its exceptions through.

        Returns:
            What the handler returns or, if it runs in a thread, a coroutine that returns that. The
            caller awaits it if it is awaitable.
        """
        if run.in_thread:
            return self._call_plain(run, handler, event, worker)
        if self._dispatcher is not None:
            in_thread = functools.partial(self._in_thread, run, worker)
            return self._dispatcher.dispatch(event, in_thread)
        return handler(event)

    async def _call_plain(
        self, run: Run, handler: Handler, event: JobEvent, worker: WorkerTask
    ) -> None:
        result = _ran(await self._call_in_thread(handler, event, worker))
        run.in_thread = False
        if inspect.isawaitable(result):
            if run.cancel_reason:
                worker.scope.cancel()
            await result

    async def _in_thread(
        self, run: Run, worker: WorkerTask, handler: Handler, event: JobEvent
    ) -> Any:
        """Call a function that a dispatcher has chosen, in a thread."""
        run.enter_thread()
        try:
            result = _ran(await self._call_in_thread(handler, event, worker))
        except Exception:
            run.leave_thread()
            raise
        run.leave_thread()
        return result

    async def _call_in_thread(self, handler: Handler, event: JobEvent, worker: WorkerTask) -> Any:
        if self._host is None:
            # In a tuple: trio refuses functions that return coroutines.
            (result,) = await anyio.to_thread.run_sync(
                lambda: (handler(event),), abandon_on_cancel=True, limiter=self._limiter
            )
            return result
        thread = worker.thread
        if thread is None:
            thread = worker.thread = HandlerThread(self._host)
            self._threads.append(thread)
        try:
            return await thread.call(handler, event)
        except BaseException:
            if thread.busy:  # the handler was left running
                thread.end()
                worker.thread = None
            raise


def _ran(result: Any) -> Any:
    """Return what a function returned, unless nothing of the function has run.

    Raises:
        TypeError: It is a generator: its body runs only where it is iterated over.
    """
    waits = inspect.isawaitable(result)  # as the generators of types.coroutine do
    if not waits and (inspect.isgenerator(result) or inspect.isasyncgen(result)):
        raise TypeError(
            f"the handler {result.__qualname__} is a generator, and nothing of it has run: take "
            "'yield' out of it, or iterate over it in a function that is the handler"
        )
    return result
