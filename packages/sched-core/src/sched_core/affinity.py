"""Refusal of calls from another process or event loop than the one that opened something.

A connection, a lock or a future of one event loop harms both loops when it is used in another one,
and a forked child shares the parent's sockets. So everything that is opened keeps an
:class:`Affinity`, and asks it at the beginning of each call.
"""

from __future__ import annotations

import os
import sys
from typing import Any

from sched_core.errors import SchedulerForked, WrongEventLoop


class Affinity:
    """Remembers the process and the event loop in which it was made.

    Args:
        what: The name of what was opened, for messages; with its article.
    """

    __slots__ = ("_loop", "_process", "_what")

    def __init__(self, what: str) -> None:
        self._what = what
        self._process = os.getpid()
        self._loop = _running_loop()

    @property
    def is_of_this_process(self) -> bool:
        """Whether it was made in this process."""
        return self._process == os.getpid()

    def check_process(self) -> None:
        """Refuse a forked child; callable from any thread.

        Raises:
            SchedulerForked: This process is a child of the one in which it was opened.
        """
        if self._process != os.getpid():
            raise SchedulerForked(
                f"{self._what} was opened by the parent process: open a new one in the child, "
                "after forking"
            )

    def check(self) -> None:
        """Refuse a forked child and every other event loop.

        Raises:
            SchedulerForked: This process is a child of the one in which it was opened.
            WrongEventLoop: The running event loop is another one, or none is running.
        """
        self.check_process()
        if _running_loop() is not self._loop:
            raise WrongEventLoop(
                f"{self._what} was opened in another event loop, and works in that one only. From "
                "another thread, hand the call over: anyio.from_thread.run(function) with its "
                "token, or asyncio.run_coroutine_threadsafe(coroutine, loop).result(). A program "
                "without a loop of its own opens a scheduler of its own for each asyncio.run"
            )


def _running_loop() -> Any:
    # Not anyio's token, which costs six times as much, on the way of every call.
    asyncio, trio = sys.modules.get("asyncio"), sys.modules.get("trio")
    if asyncio is not None:
        try:
            return asyncio.get_running_loop()
        except RuntimeError:
            pass  # none of asyncio's: maybe one of trio's
    if trio is not None and trio.lowlevel.in_trio_run():
        return trio.lowlevel.current_trio_token()
    return None
