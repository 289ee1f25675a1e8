"""Threads for handlers that are plain functions."""

from __future__ import annotations

import os
import sys
import threading
from contextlib import AbstractContextManager, nullcontext
from contextvars import Context, copy_context
from queue import SimpleQueue
from typing import Any

from sched_core._model.event import JobEvent
from sched_core._runtime.supervision import asyncio_task, is_stray, uncancel
from sched_core._support.logger import Logger, from_user_code
from sched_core.handlers import Handler

logger = Logger("sched_core")


class HandlerThread:
    """A thread for handlers that are plain functions, on asyncio.

    The interpreter joins anyio's own worker threads when it exits, so that a handler which never
    returns would keep the process alive. This is a daemon, as trio's threads are.

    Args:
        host: The asyncio task that runs the scheduler.
    """

    __slots__ = ("_calls", "_host", "_loop", "_process", "_returned", "_waiter", "busy")

    def __init__(self, host: Any) -> None:
        self._host, self._loop = host, host.get_loop()
        self._calls: SimpleQueue[tuple[Context, Handler, JobEvent] | None] = SimpleQueue()
        self._waiter: Any = None
        self._returned: tuple[Any, BaseException | None] = (None, None)
        self.busy = False
        self._process = os.getpid()
        threading.Thread(target=self._serve, name="sched handler", daemon=True).start()

    async def call(self, handler: Handler, event: JobEvent) -> Any:
        """Call the handler; if cancelled, leave it running."""
        context = copy_context()
        if (sniffio := sys.modules.get("sniffio")) is not None:
            # A handler may start an event loop of its own in its thread.
            context.run(sniffio.current_async_library_cvar.set, None)
        self.busy = True
        self._calls.put((context, handler, event))
        while self.busy:
            self._waiter = self._loop.create_future()
            try:
                await self._waiter
            except BaseException as cancelled:
                if not is_stray(cancelled, self._host):
                    raise
                uncancel(asyncio_task())  # the handler still runs, and keeps its claim
        (result, error), self._returned = self._returned, (None, None)
        if error is not None:
            raise error
        return result

    def end(self) -> None:
        """Let the thread end once its handler has returned."""
        self._calls.put(None)

    def _serve(self) -> None:
        with _worker_thread(self._loop):
            while (call := self._calls.get()) is not None:
                context, handler, event = call
                result: Any = None
                error: BaseException | None = None
                try:
                    result = context.run(handler, event)
                except BaseException as raised:  # noqa: BLE001 -- raised again in the loop
                    error = raised
                if os.getpid() != self._process:
                    _leave_child(error)
                try:
                    self._loop.call_soon_threadsafe(self._report, result, error)
                except RuntimeError:
                    return  # the loop is closed: no task waits any more
                del call, context, handler, event, result, error

    def _report(self, result: Any, error: BaseException | None) -> None:
        self.busy, self._returned = False, (result, error)
        if not self._waiter.done():
            self._waiter.set_result(None)  # not set_exception: futures refuse some of them


def _leave_child(error: BaseException | None) -> None:
    """End a process that a handler has forked, in which the handler has returned to this thread.

    The scheduler runs in the parent alone. Here the thread would wait without end, and so would the
    parent for this process.
    """
    if error is not None:
        logger.error("a process that a handler has forked failed", exc_info=from_user_code(error))
    os._exit(0 if error is None else 1)


def _worker_thread(loop: Any) -> AbstractContextManager[None]:
    """Make ``anyio.from_thread.run`` work in the present thread as it does in anyio's own."""
    try:
        from anyio._core._eventloop import claim_worker_thread, get_async_backend

        return claim_worker_thread(get_async_backend("asyncio"), loop)
    except ImportError:  # moved: from_thread then wants a token
        return nullcontext()
