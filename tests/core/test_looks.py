"""The looks of a running scheduler that are never urgent, while the store is away and after it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import anyio
import pytest
from tests.core.running import Faulty

from sched_core import BackendUnavailable, Interval, Job, JobSpec, MemoryBackend, Standing
from sched_core._runtime import maintenance as looks
from sched_core._runtime.maintenance import (
    CHECKS_BEGIN,
    LONGEST_CHECK_PAUSE,
    MomentsCheck,
    UnreadableCheck,
)
from sched_core._runtime.observers import Observers
from sched_core.testing import EPOCH, FakeClock

LOOKS: dict[str, type[UnreadableCheck | MomentsCheck]] = {
    "listing": UnreadableCheck,
    "moments": MomentsCheck,
}
SECOND = timedelta(seconds=1)
PassBy = Callable[[timedelta], Awaitable[None]]


class Away:
    """A backend that is away: each call fails, after as long as the test says.

    Args:
        clock: The one that decides.
        takes: How long a call hangs before it fails.
        answers: How many pages of jobs are read in each look before one is not.
        reads: How long it takes to read such a page.
    """

    def __init__(
        self,
        clock: FakeClock,
        *,
        takes: timedelta,
        answers: int = 0,
        reads: timedelta = timedelta(0),
    ) -> None:
        self._backend = Faulty(MemoryBackend())
        self._clock, self._takes = clock, takes
        self._answers, self._reads = answers, reads
        self.failed = self.pages = 0
        self.is_back = False

    def __getattr__(self, name: str) -> Any:
        if self.is_back or name in {"open", "capabilities", "add"}:
            return getattr(self._backend, name)
        if self._answers and name != "jobs":
            return getattr(self._backend, name)

        async def call(*arguments: Any, **options: Any) -> Any:
            if self.pages < self._answers:
                self.pages += 1
                self._clock.advance(self._reads)
                return await self._backend.jobs(*arguments, **options)
            self.failed, self.pages = self.failed + 1, 0
            self._clock.advance(self._takes)
            raise BackendUnavailable("away")

        return call


@asynccontextmanager
async def looking(kind: str, backend: Any, clock: FakeClock) -> AsyncIterator[tuple[Any, PassBy]]:
    """Have looks made; give who is told of troubles, and what lets time pass."""
    observers = Observers(backend, ())

    async def pass_by(duration: timedelta) -> None:
        clock.advance(duration)
        await anyio.wait_all_tasks_blocked()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(LOOKS[kind](backend, clock, observers).run)
        await anyio.wait_all_tasks_blocked()
        yield observers, pass_by
        tasks.cancel_scope.cancel()


@pytest.mark.parametrize("takes", [0, 0.5, 3, 15, 60, 3600])
@pytest.mark.parametrize("kind", LOOKS)
@pytest.mark.parametrize("failures", [1, 20])
def test_a_look_comes_again_soon_however_long_it_hung_and_however_often_it_failed(
    kind: str, takes: float, failures: int
) -> None:
    async def main() -> None:
        clock = FakeClock()
        backend: Any = Away(clock, takes=timedelta(seconds=takes))
        await backend.open(clock, worker="w")
        async with looking(kind, backend, clock) as (observers, pass_by):
            for number in range(1, failures + 1):
                await pass_by(CHECKS_BEGIN)
                assert backend.failed == number
            backend.is_back = True
            await pass_by(CHECKS_BEGIN - SECOND)
            assert list(observers.problems) == [f"{kind}: BackendUnavailable: away"]
            await pass_by(SECOND)
            assert list(observers.problems) == []

    anyio.run(main)


@pytest.mark.parametrize(
    ("reads", "pause"),
    [
        (timedelta(seconds=0.1), CHECKS_BEGIN),
        (timedelta(seconds=1), timedelta(minutes=1)),
        (timedelta(seconds=10), LONGEST_CHECK_PAUSE),
    ],
)
def test_a_look_that_has_read_for_long_before_it_failed_comes_later(
    monkeypatch: pytest.MonkeyPatch, reads: timedelta, pause: timedelta
) -> None:
    monkeypatch.setattr(looks, "PAGE", 1)
    monkeypatch.setattr(looks, "release", lambda: "2025a")

    async def main() -> None:
        clock = FakeClock()
        backend: Any = Away(clock, takes=60 * SECOND, answers=3, reads=reads)
        await backend.open(clock, worker="w")
        spec = Interval(hours=1)
        ids = "abcdef"
        standing = Standing(0, None, None)
        await backend.add([Job(JobSpec(each, spec), each, True, EPOCH, standing) for each in ids])
        async with looking("moments", backend, clock) as (observers, pass_by):
            await pass_by(CHECKS_BEGIN)
            for number in (1, 2, 3):
                assert backend.failed == number
                await pass_by(pause - SECOND)
                assert backend.failed == number
                await pass_by(SECOND)
            backend.is_back = True
            await pass_by(pause)
            assert list(observers.problems) == []

    anyio.run(main)
