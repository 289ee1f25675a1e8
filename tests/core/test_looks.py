"""The looks of a running scheduler that are never urgent, while the store is away and after it."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import anyio
import pytest
from tests.core.running import Faulty

from sched_core import BackendUnavailable, MemoryBackend
from sched_core.maintenance import LOOK_AGAIN, LOOK_BEGINS, Moments, Unreadable
from sched_core.observing import Observers
from sched_core.testing import FakeClock

LOOKS: dict[str, type[Unreadable | Moments]] = {"listing": Unreadable, "moments": Moments}
SECOND = timedelta(seconds=1)


class Away:
    """A backend that is away: each call fails, after as long as the test says."""

    def __init__(self, clock: FakeClock, *, takes: timedelta) -> None:
        self._backend = Faulty(MemoryBackend())
        self._clock, self._takes = clock, takes
        self.failed = 0
        self.is_back = False

    def __getattr__(self, name: str) -> Any:
        if self.is_back or name in {"open", "capabilities"}:
            return getattr(self._backend, name)

        async def fail(*arguments: Any, **options: Any) -> Any:
            self.failed += 1
            self._clock.advance(self._takes)
            raise BackendUnavailable("away")

        return fail


@pytest.mark.parametrize(
    ("takes", "pause"),
    [
        (timedelta(0), LOOK_BEGINS),
        (timedelta(seconds=0.5), LOOK_BEGINS),
        (timedelta(seconds=3), timedelta(minutes=1)),
        (timedelta(seconds=30), LOOK_AGAIN),
    ],
)
@pytest.mark.parametrize("kind", LOOKS)
@pytest.mark.parametrize("failures", [1, 20])
def test_a_look_comes_again_by_how_long_it_took_and_not_by_how_often_it_failed(
    kind: str, takes: timedelta, pause: timedelta, failures: int
) -> None:
    async def main() -> None:
        clock = FakeClock()
        backend: Any = Away(clock, takes=takes)
        await backend.open(clock, worker="w")
        observers = Observers(backend, ())

        async def pass_by(duration: timedelta) -> None:
            clock.advance(duration)
            await anyio.wait_all_tasks_blocked()

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(LOOKS[kind](backend, clock, observers).run)
            await anyio.wait_all_tasks_blocked()
            await pass_by(LOOK_BEGINS)
            for number in range(2, failures + 1):
                await pass_by(pause)
                assert backend.failed == number
            backend.is_back = True
            await pass_by(pause - SECOND)
            assert list(observers.problems) == [f"{kind}: BackendUnavailable: away"]
            await pass_by(SECOND)
            assert list(observers.problems) == []
            tasks.cancel_scope.cancel()

    anyio.run(main)
