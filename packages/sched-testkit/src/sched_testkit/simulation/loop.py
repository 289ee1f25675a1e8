"""An event loop without a machine: no sockets, no threads, no real time, no chance but the seed's.

Time does not move while anything can go on, and then moves to the next timer. What is ready at the
same time runs in an order that the seed decides, so that races show, and repeat.
"""

from __future__ import annotations

import asyncio
import heapq
from asyncio import events
from collections.abc import Callable, Coroutine
from contextvars import Context
from random import Random
from typing import Any, TypeVar

T = TypeVar("T")

TURNS = 200_000
"""A history that takes more turns than that goes round in a circle."""


class Stuck(Exception):
    """Nothing is ready, and nothing will ever be; or it goes round and round."""


class SimulatedLoop(asyncio.AbstractEventLoop):
    """Runs coroutines on simulated time.

    Args:
        chance: Decides in which order tasks run that are ready at the same time.
    """

    def __init__(self, chance: Random) -> None:
        self._chance = chance
        self._now = 0.0
        self._ready: list[asyncio.Handle] = []
        self._retries: list[asyncio.Handle] = []
        """anyio delivers a cancellation again and again: no reason to stop time."""
        self._retried = False
        self._timers: list[tuple[float, int, asyncio.TimerHandle]] = []
        self._serial = 0
        self._order: dict[int, int] = {}
        self.turns = 0
        self.problems: list[dict[str, Any]] = []

    # -- running

    def run_until_complete(self, coroutine: Coroutine[Any, Any, T]) -> T:  # type: ignore[override]  # only coroutines
        """Run a coroutine to its end.

        Raises:
            Stuck: It waits for something that will never happen.
        """
        events._set_running_loop(self)
        try:
            task = self.create_task(coroutine)
            while not task.done():
                self._turn()
            return task.result()
        finally:
            events._set_running_loop(None)

    def _turn(self) -> None:
        self.turns += 1
        if self.turns > TURNS:
            raise Stuck(f"after {TURNS} turns it is still going round")
        if self._ready:
            batch, self._ready, self._retried = self._ready, [], False
            if len(batch) > 1:
                batch.sort(key=self._place)
                if self._chance.random() < 0.5:
                    batch.reverse()
        elif self._retries and not self._retried:
            batch, self._retries, self._retried = self._retries, [], True
        else:
            batch, self._retried = self._next_timers(), False
        for handle in batch:
            if not handle.cancelled():
                handle._run()

    def _place(self, handle: asyncio.Handle) -> int:
        # Sets of tasks have no order of their own: anyio cancels what is in one as it comes.
        task = getattr(getattr(handle, "_callback", None), "__self__", None)
        return self._order.get(id(task), 0)

    def _next_timers(self) -> list[asyncio.Handle]:
        timers, batch = self._timers, list[asyncio.Handle]()
        while timers and timers[0][2].cancelled():
            heapq.heappop(timers)
        if not timers:
            raise Stuck("everything waits, and nothing will ever wake it")
        self._now = max(self._now, timers[0][0])
        while timers and timers[0][0] <= self._now:
            batch.append(heapq.heappop(timers)[2])
        return batch

    # -- what asyncio and anyio ask of a loop

    def time(self) -> float:
        """Return simulated seconds since the beginning."""
        return self._now

    def call_soon(  # type: ignore[override]  # the base class types its arguments more finely
        self, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> asyncio.Handle:
        """Call in the next turn."""
        handle = asyncio.Handle(callback, args, self, context)
        if getattr(callback, "__name__", "") == "_deliver_cancellation":
            self._retries.append(handle)
        else:
            self._ready.append(handle)
        return handle

    def call_at(  # type: ignore[override]  # as above
        self,
        when: float,
        callback: Callable[..., object],
        *args: Any,
        context: Context | None = None,
    ) -> asyncio.TimerHandle:
        """Call once time has come to the moment."""
        handle = asyncio.TimerHandle(when, callback, args, self, context)
        self._serial += 1
        heapq.heappush(self._timers, (when, self._serial, handle))
        return handle

    def call_later(  # type: ignore[override]  # as above
        self,
        delay: float,
        callback: Callable[..., object],
        *args: Any,
        context: Context | None = None,
    ) -> asyncio.TimerHandle:
        """Call after so many simulated seconds."""
        return self.call_at(self._now + delay, callback, *args, context=context)

    def create_task(  # type: ignore[override]  # as above
        self,
        coro: Coroutine[Any, Any, T],
        *,
        name: str | None = None,
        context: Context | None = None,
    ) -> asyncio.Task[T]:
        """Start a task, and remember its place in the order of all tasks."""
        task = asyncio.Task(coro, loop=self, name=name, context=context)
        self._serial += 1
        self._order[id(task)] = self._serial
        return task

    def create_future(self) -> asyncio.Future[Any]:
        """Return a future of this loop."""
        return asyncio.Future(loop=self)

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        """Keep an error that no task could catch."""
        self.problems.append(context)

    def get_task_factory(self) -> None:
        """There is none."""

    def get_debug(self) -> bool:
        """Asyncio's debug mode is off."""
        return False

    def is_running(self) -> bool:
        """The caller is running on it."""
        return True

    def is_closed(self) -> bool:
        """There is nothing to close."""
        return False

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        """Called by timers; they are passed over when their time comes."""
