"""What one counter for scheduled and triggered occurrences once got wrong: each has its own name.

Each of these histories went wrong on the model before this one.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import datetime, timedelta

import anyio
from attrs import define, field

from sched_core import Execution, Interval, JobEvent, Kind, Policy, Retry, Room, Scheduler
from sched_core.memory import MemoryBackend, MemoryStore
from sched_core.testing import FakeClock

LEASE = timedelta(seconds=30)
EVERY = timedelta(seconds=100)

Handler = Callable[["Service", JobEvent], Awaitable[None]]


@define
class Service:
    """One scheduler on a store that others can open, too."""

    scheduler: Scheduler
    clock: FakeClock
    store: MemoryStore
    events: list[JobEvent] = field(factory=list)

    async def lose_a_claim(self) -> None:
        """Claim what is due as a process that dies with it."""
        other = MemoryBackend(self.store, lease=LEASE)
        await other.open(self.clock, worker="other")
        assert (await other.claim_due(Room(10))).claims

    async def run_after(self, seconds: float) -> None:
        self.clock.advance(seconds=seconds)
        await self.scheduler.run_due()

    async def executions(self) -> list[Execution]:
        found = [each async for each in self.scheduler.list_executions()]
        return [each for each in found if isinstance(each, Execution)]

    async def names(self) -> set[tuple[int, Kind, datetime]]:
        return {(each.number, each.kind, each.scheduled_at) for each in await self.executions()}

    async def triggers(self) -> list[Execution]:
        return [each for each in await self.executions() if each.kind is Kind.TRIGGERED]


@asynccontextmanager
async def service(
    handler: Handler | None = None, policy: Policy | None = None
) -> AsyncIterator[Service]:
    clock, store = FakeClock(), MemoryStore()

    async def handle(event: JobEvent) -> None:
        made.events.append(event)
        if handler is not None:
            await handler(made, event)

    backend = MemoryBackend(store, lease=LEASE)
    async with Scheduler(backend, handler=handle, clock=clock) as scheduler:
        made = Service(scheduler, clock, store)
        await scheduler.submit_job("job", Interval(EVERY), policy=policy or Policy())
        yield made


def test_a_trigger_while_another_is_retried_is_kept_by_an_edit_meanwhile() -> None:
    """It was lost: both were the one manual occurrence."""

    async def handler(here: Service, event: JobEvent) -> None:
        if event.attempt == 1:
            raise ValueError
        if len(here.events) == 2:
            await here.scheduler.trigger_job("job")
            await here.scheduler.update_job("job", schedule=Interval(hours=1))

    async def test() -> None:
        async with service(handler, Policy(retry=Retry(3, timedelta(seconds=20)))) as here:
            await here.scheduler.trigger_job("job")
            for _ in range(4):
                await here.run_after(20)
            ended = [each.number for each in await here.triggers() if each.final]
            assert len(ended) == len(set(ended)) == 2

    anyio.run(test)


def test_a_trigger_does_not_wait_behind_what_a_lost_claim_at_the_end_of_a_pause_began() -> None:
    """It waited for the next scheduled occurrence, which was not due."""

    async def test() -> None:
        async with service() as here:
            pause_ends = here.clock.now() + timedelta(seconds=20)
            await here.scheduler.pause_job("job", until=pause_ends)
            here.clock.advance(seconds=20)
            await here.lose_a_claim()
            await here.run_after(31)
            await here.scheduler.trigger_job("job")
            await here.scheduler.run_due()
            assert [event.kind for event in here.events] == [Kind.TRIGGERED]

    anyio.run(test)


def test_triggers_around_an_edit_and_a_lost_claim_as_a_pause_ends_keep_their_numbers() -> None:
    """The number of a claim that was lost was given on, and what it was for had two."""

    async def test() -> None:
        async with service() as here:
            here.clock.advance(EVERY)
            pause_ends = here.clock.now() + timedelta(seconds=20)
            await here.scheduler.pause_job("job", until=pause_ends)
            here.clock.advance(seconds=20)
            asked = {await here.scheduler.trigger_job("job")}
            await here.scheduler.update_job("job", schedule=Interval(seconds=107))
            await here.lose_a_claim()
            asked.add(await here.scheduler.trigger_job("job"))
            await here.run_after(31)
            await here.run_after(60)
            names = await here.names()
            assert len(names) == len({number for number, *_ in names})
            assert asked == {event.key for event in here.events if event.kind is Kind.TRIGGERED}

    anyio.run(test)


def test_a_trigger_while_the_clock_is_set_back_behind_a_claimed_occurrence_has_its_own_key() -> (
    None
):
    """It took the number of the claimed one, and its key when that claim was lost."""

    async def test() -> None:
        async with service() as here:
            here.clock.advance(EVERY)
            await here.lose_a_claim()
            here.clock.jump(-timedelta(seconds=1))
            await here.scheduler.trigger_job("job")
            await here.run_after(31)
            await here.run_after(31)
            keys = {event.kind: event.key for event in here.events}
            assert len(keys) == len(set(keys.values())) == 2
            names = await here.names()
            assert len(names) == len({number for number, *_ in names})

    anyio.run(test)
