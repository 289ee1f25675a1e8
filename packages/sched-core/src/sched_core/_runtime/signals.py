"""Signals that stop a scheduler, if the program has no handlers of its own for them."""

from __future__ import annotations

import signal
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import anyio

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


@asynccontextmanager
async def stop_signals(*, enabled: bool, on_signal: Callable[[], None]) -> AsyncIterator[None]:
    """Call *on_signal* for each SIGINT and SIGTERM; restore the default handlers afterwards.

    Outside the main thread, and for a signal that the program handles itself, nothing is changed.
    """
    in_main = threading.current_thread() is threading.main_thread()
    ours = [each for each in _SIGNALS if enabled and in_main and _is_default(each)]
    if not ours:
        yield
        return

    earlier = {each: signal.getsignal(each) for each in ours}
    try:
        async with anyio.create_task_group() as tasks:
            ready = anyio.Event()

            async def listen() -> None:
                with anyio.open_signal_receiver(*ours) as received:
                    ready.set()
                    async for _ in received:
                        on_signal()

            tasks.start_soon(listen)
            await ready.wait()
            yield
            tasks.cancel_scope.cancel()
    finally:
        for each, handler in earlier.items():
            signal.signal(each, handler)


def _is_default(number: signal.Signals) -> bool:
    handler = signal.getsignal(number)
    if handler in (signal.SIG_DFL, signal.default_int_handler):
        return True
    # asyncio.run and trio.run replace Python's default SIGINT handler by their own default.
    owner = getattr(handler, "func", handler)
    module = getattr(owner, "__module__", None) or ""
    return number == signal.SIGINT and module.partition(".")[0] in {"asyncio", "trio"}
