"""``run_due`` on a store whose clock is known here only as well as its answers told."""

from __future__ import annotations

from datetime import datetime, timedelta

import anyio
from attrs import frozen

from sched_core import Clock, JobEvent, MemoryBackend, Once, Scheduler
from sched_core.testing import FakeClock

LAG = timedelta(milliseconds=200)


@frozen
class Lagging:
    """What is believed of a store's clock after slow answers: it is never ahead."""

    clock: Clock

    def now(self) -> datetime:
        return self.clock.now() - LAG

    async def sleep_until(self, moment: datetime) -> None:
        await self.clock.sleep_until(moment + LAG)


class SlowToAnswer(MemoryBackend):
    """A store that decides by its own clock, and has answered slowly so far."""

    async def open(self, clock: Clock, *, worker: str) -> Clock:
        return Lagging(await super().open(clock, worker=worker))


def test_what_was_submitted_for_now_is_due_though_the_store_has_answered_slowly() -> None:
    clock, ran = FakeClock(), list[str]()

    async def handle(event: JobEvent) -> None:
        ran.append(event.id)
        clock.advance(timedelta(seconds=1))

    async def main() -> None:
        async with Scheduler(
            SlowToAnswer(), handler=handle, clock=clock, max_concurrency=2
        ) as scheduler:
            for number in range(5):
                await scheduler.submit_job(f"now-{number}", Once(clock.now()))
            await scheduler.submit_job("soon", Once(clock.now() + timedelta(seconds=1)))
            assert await scheduler.run_due() == 5
            assert await scheduler.run_due() == 1

    anyio.run(main)
    assert ran[-1] == "soon"
