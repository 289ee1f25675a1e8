"""A number of slots for threads and tasks alike."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable

import anyio

from sched_sql._shared.threads import running_soon


class _Waiter:
    """One who waits for a slot."""

    __slots__ = ("has_it", "wake")

    def __init__(self, wake: Callable[[], object]) -> None:
        self.wake = wake
        self.has_it = False


class Slots:
    """A bounded number of slots, given to threads and to tasks in the order of asking.

    Args:
        size: The number of slots.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self._free = size
        self._waiting: deque[_Waiter] = deque()
        self._lock = threading.Lock()

    @property
    def taken(self) -> int:
        """How many are in use."""
        return self.size - self._free

    def take(self, patience: float) -> bool:
        """Take one, waiting in the present thread; return whether there was one in time."""
        came = threading.Event()
        waiter = self._ask(came.set)
        if waiter is None:
            return True
        try:
            came.wait(patience)
        except BaseException:
            self._leave(waiter)
            raise
        return self._decide(waiter)

    async def take_async(self, patience: float) -> bool:
        """Take one, waiting in the present task; return whether there was one in time."""
        came, soon = anyio.Event(), running_soon()
        waiter = self._ask(lambda: soon(came.set))
        if waiter is None:
            return True
        try:
            with anyio.move_on_after(patience):
                await came.wait()
        except BaseException:
            self._leave(waiter)
            raise
        return self._decide(waiter)

    def give_back(self) -> None:
        """Hand one on to who has waited longest, or keep it."""
        with self._lock:
            while self._waiting:
                waiter = self._waiting.popleft()
                try:
                    waiter.wake()
                except RuntimeError:
                    continue  # its event loop has ended
                waiter.has_it = True
                return
            self._free += 1

    def _ask(self, wake: Callable[[], object]) -> _Waiter | None:
        with self._lock:
            if self._free and not self._waiting:
                self._free -= 1
                return None
            waiter = _Waiter(wake)
            self._waiting.append(waiter)
            return waiter

    def _decide(self, waiter: _Waiter) -> bool:
        with self._lock:
            if not waiter.has_it:
                self._waiting.remove(waiter)
            return waiter.has_it

    def _leave(self, waiter: _Waiter) -> None:
        if self._decide(waiter):
            self.give_back()
