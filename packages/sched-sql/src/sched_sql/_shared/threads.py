"""Threads for calls that block: a database that does not answer delays no exit and no cancellation.

anyio's worker threads are not for a store that may stop answering: a cancelled caller waits for
them, and the interpreter joins them when it exits.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from enum import StrEnum
from queue import SimpleQueue
from typing import Any, Generic, TypeVar

import anyio

from sched_core._support.logger import Logger

T = TypeVar("T")

logger = Logger("sched_sql")

WIND_UP = 0.3
"""Seconds for which a cancelled caller lets a call that is under way come to its end: what was
asked for is then done or not done, and does not happen while the caller goes on. Only a store that
does not answer takes longer."""

Soon = Callable[[Callable[[], object]], object]
"""Has an event loop call something soon; from any thread. RuntimeError: the loop has ended."""


def running_soon() -> Soon:
    """Return what has the running event loop call something soon."""
    trio = sys.modules.get("trio")
    if trio is not None and trio.lowlevel.in_trio_run():
        soon: Soon = trio.lowlevel.current_trio_token().run_sync_soon
    else:
        soon = sys.modules["asyncio"].get_running_loop().call_soon_threadsafe
    return soon


class Lane(StrEnum):
    """The lanes of calls to a database: calls in one lane take turns, lanes run at the same time.

    Each lane has a thread of its own unless a dialect joins it with another one, so a call that
    hangs delays only its own lane.
    """

    EDIT = "edit"
    """Definitions, listings, probes: every call that is in no other lane."""
    CLAIM = "claim"
    """Claims, the look for the next due moment, and the release of cancelled claims."""
    SETTLE = "settle"
    RENEW = "renew"
    RENEW_UNLOCKED = "renew unlocked"
    """Renewals while another program has the whole database locked."""
    LISTEN = "listen"
    """Whether another process has written."""
    CLOSE = "close"
    """Closing must not wait for a call that hangs."""


class Call(Generic[T]):
    """One call and its outcome."""

    __slots__ = ("ended", "error", "function", "given_up", "result")

    def __init__(self, function: Callable[[], T]) -> None:
        self.function: Callable[[], T] | None = function
        self.ended = anyio.Event()
        """Set in the event loop."""
        self.given_up = False
        """Whether the caller was cancelled: a call that has not begun is not made."""
        self.result: T | None = None
        self.error: BaseException | None = None

    def make(self) -> None:
        """Make the call; from the thread."""
        function, self.function = self.function, None
        if function is None or self.given_up:
            return
        try:
            self.result = function()
        except BaseException as error:  # noqa: BLE001 -- raised again where it is waited for
            self._failed(error)

    def _failed(self, error: BaseException) -> None:
        self.error = error
        if self.given_up:
            logger.info("a call whose caller was cancelled failed: %s", error)


class CallThread:
    """Makes calls one after the other, in the order in which they were asked for.

    Args:
        name: The thread's name.
        soon: Has the event loop of the callers call something.
    """

    def __init__(self, name: str, soon: Soon) -> None:
        self._soon = soon
        self._queue: SimpleQueue[Call[Any] | None] = SimpleQueue()
        # A daemon: one that hangs in a system call keeps no process alive.
        threading.Thread(target=self._serve, name=name, daemon=True).start()

    async def call(self, function: Callable[[], T]) -> T:
        """Make a call in the thread, and return what it returns.

        Cancelled, it returns at once: a call that has not begun is never made, one that is under
        way has :data:`WIND_UP` seconds, and goes on without its caller after that.
        """
        call = self.post(function)
        try:
            await call.ended.wait()
        except BaseException:
            await _give_up(call)
            raise
        return _result(call)

    async def call_within(self, function: Callable[[], T], seconds: float) -> T:
        """Make a call as :meth:`call`, and go on without it after a time.

        Raises:
            TimeoutError: It goes on, or is never made.
        """
        call = self.post(function)
        try:
            with anyio.move_on_after(seconds):
                await call.ended.wait()
        except BaseException:
            await _give_up(call)
            raise
        if not call.ended.is_set():
            call.given_up = True
            raise TimeoutError
        return _result(call)

    def post(self, function: Callable[[], T]) -> Call[T]:
        """Ask for a call without waiting for it; it is made even if its caller is cancelled."""
        call = Call(function)
        self._queue.put(call)
        return call

    def end(self) -> None:
        """Let the thread end once everything that was asked for is done."""
        self._queue.put(None)

    def _serve(self) -> None:
        while (call := self._queue.get()) is not None:
            call.make()
            try:
                self._soon(call.ended.set)
            except RuntimeError:
                pass  # the event loop has ended, and with it the tasks that waited
            del call


async def _give_up(call: Call[Any]) -> None:
    call.given_up = True
    with anyio.move_on_after(WIND_UP, shield=True):
        await call.ended.wait()


def _result(call: Call[T]) -> T:
    error = call.error
    if error is not None:
        try:
            raise error
        finally:
            del call, error  # they would keep each other alive
    return call.result  # type: ignore[return-value]  # the function's, and nothing was raised
