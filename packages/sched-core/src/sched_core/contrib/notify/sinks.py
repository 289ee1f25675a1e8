"""Sinks: where notices go. Any function of a notice is one."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from typing import Any

import anyio

from sched_core._model.event import JobEvent
from sched_core.contrib.notify.notice import Notice
from sched_core.handlers import InThread, is_async

Sink = Callable[[Notice], Awaitable[Any] | Any]
"""A function of one notice: an ``async`` one runs in the loop, a plain one in a thread.

What it raises lets the notifier's run fail, and the notice is delivered again; see ``Refused``. An
object that is a sink may have ``kinds`` and ``most``, which hold unless the notifier has its own.
"""
PATIENCE = 60.0
"""Seconds that an ``async`` sink may take for one notice."""


async def deliver(sink: Sink, notice: Notice, event: JobEvent, in_thread: InThread) -> None:
    """Give a notice to a sink.

    Raises:
        TimeoutError: It is ``async`` and took longer than a minute.
    """
    # A thread cannot be stopped: a plain function is waited for, and the claim is kept meanwhile.
    result = sink(notice) if is_async(sink) else await in_thread(lambda _: sink(notice), event)
    if inspect.isawaitable(result):
        with anyio.fail_after(PATIENCE):
            await result
