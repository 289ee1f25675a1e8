"""Clocks that are set while a scheduler runs: nothing is lost, storms or runs twice."""

from __future__ import annotations

from datetime import timedelta

import anyio
import pytest
from tests.core.running import Make, executions_of, run, running, until, wait_for_executions

from sched_core import Cron, Interval, JobEvent, Once, Policy, Schedule, Scheduler, Status
from sched_core.testing import FakeClock, RecordingHandler


async def until_noticed(clock: FakeClock, scheduler: Scheduler) -> None:
    """Wait until the loop looks again, which it does at the next poll at the latest."""

    async def noticed() -> bool:
        clock.advance(seconds=0.1)
        return any("set forward" in each for each in (await scheduler.health()).problems)

    await until(noticed)


async def let_rest(clock: FakeClock, *schedulers: Scheduler) -> None:
    """Let the clock go on until it counts as standing where it was set."""
    for scheduler in schedulers:
        await until_noticed(clock, scheduler)

    async def rests() -> bool:
        clock.advance(seconds=1)
        await anyio.sleep(0.01)
        return all([(await scheduler.health()).healthy for scheduler in schedulers])

    await until(rests)


def test_a_clock_set_forward_while_it_runs(loop: str, make: Make) -> None:
    async def main() -> None:
        clock, handler = FakeClock(), RecordingHandler()
        start = clock.now()
        async with running(make(), handler, clock=clock) as scheduler:
            await scheduler.ensure_job("hourly", Interval(hours=1))
            await scheduler.ensure_job("once", Once(start + timedelta(minutes=30)))
            await anyio.sleep(0.05)
            assert handler.events == []
            clock.jump(timedelta(hours=10, minutes=30))
            await let_rest(clock, scheduler)
            executions = await wait_for_executions(scheduler, 2)
            await anyio.sleep(0.1)
            assert len(await executions_of(scheduler)) == 2
            by_id = {execution.job_id: execution for execution in executions}
            assert by_id["hourly"].coalesced == 9
            assert by_id["once"].status is Status.SUCCEEDED
            clock.advance(hours=1)
            await wait_for_executions(scheduler, 3)

    run(loop, main)


@pytest.mark.parametrize("schedule", [Interval(hours=1), Cron("0 * * * *")])
def test_a_clock_that_is_put_right_at_once_silences_no_job(
    schedule: Schedule, loop: str, make: Make
) -> None:
    async def main() -> None:
        clock, handler = FakeClock(), RecordingHandler()
        async with running(make(), handler, clock=clock) as scheduler:
            await scheduler.ensure_job("hourly", schedule)
            clock.jump(timedelta(days=1))
            await until_noticed(clock, scheduler)
            assert handler.events == []
            clock.jump(timedelta(days=-1))
            await anyio.sleep(0.1)
            for n in range(3):
                clock.advance(hours=1)
                await wait_for_executions(scheduler, n + 1)
            assert [event.coalesced for event in handler.events] == [0, 0, 0]

    run(loop, main)


def test_two_schedulers_take_nothing_from_each_other_when_the_clock_is_set_forward(
    loop: str, make: Make
) -> None:
    async def main() -> None:
        clock, let_go = FakeClock(), anyio.Event()
        begun: list[str] = []

        async def handler(event: JobEvent) -> None:
            begun.append(event.id)
            await let_go.wait()

        async with (
            running(make(), handler, clock=clock) as one,
            running(make(), handler, clock=clock) as other,
        ):
            for n in range(10):
                await one.submit_job(f"job-{n}", Once(clock.now()))
            await until(lambda: len(begun) == 10)
            clock.jump(timedelta(hours=1))
            await let_rest(clock, one, other)
            let_go.set()
            executions = await wait_for_executions(one, 10)
            assert {(execution.status, execution.attempt) for execution in executions} == {
                (Status.SUCCEEDED, 1)
            }
        assert sorted(begun) == [f"job-{n}" for n in range(10)]

    run(loop, main)


def test_a_timeout_counts_what_has_elapsed_and_not_what_the_clock_was_set_by(
    loop: str, make: Make
) -> None:
    async def main() -> None:
        clock, let_go = FakeClock(), anyio.Event()
        begun: list[str] = []

        async def handler(event: JobEvent) -> None:
            begun.append(event.id)
            await let_go.wait()

        policy = Policy(timeout=timedelta(seconds=60))
        async with running(make(), handler, clock=clock) as scheduler:
            await scheduler.submit_job("in time", Once(clock.now()), policy=policy)
            await until(lambda: begun)
            clock.jump(timedelta(hours=1))
            await let_rest(clock, scheduler)
            let_go.set()
            (execution,) = await wait_for_executions(scheduler, 1)
            assert execution.status is Status.SUCCEEDED

            let_go = anyio.Event()
            await scheduler.submit_job("too long", Once(clock.now()), policy=policy)
            await until(lambda: len(begun) == 2)
            clock.jump(timedelta(hours=-1))
            await anyio.sleep(0.05)
            for _ in range(3):
                assert len(await executions_of(scheduler)) == 1
                clock.advance(seconds=20)
                await anyio.sleep(0.05)
            executions = await wait_for_executions(scheduler, 2)
            assert (executions[-1].status, executions[-1].job_id) == (Status.FAILED, "too long")

    run(loop, main)


def test_a_clock_set_forward_past_the_lease_loses_no_running_claim(loop: str, make: Make) -> None:
    async def main() -> None:
        clock = FakeClock()
        let_go, begun = anyio.Event(), list[int]()

        async def handler(event: JobEvent) -> None:
            begun.append(event.attempt)
            await let_go.wait()

        async with running(make(), handler, clock=clock) as scheduler:
            await scheduler.submit_job("a", Once(clock.now()))
            await until(lambda: begun)
            for _ in range(5):
                clock.jump(timedelta(days=1))
                await anyio.sleep(0.05)
            let_go.set()
            (execution,) = await wait_for_executions(scheduler, 1)
            assert (execution.status, execution.attempt) == (Status.SUCCEEDED, 1)
            assert begun == [1]

    run(loop, main)


def test_a_clock_set_back_while_it_runs_repeats_nothing(loop: str, make: Make) -> None:
    async def main() -> None:
        clock, handler = FakeClock(), RecordingHandler()
        start = clock.now()
        async with running(make(), handler, clock=clock) as scheduler:
            await scheduler.ensure_job("hourly", Interval(hours=1))
            for n in range(3):
                clock.advance(hours=1)
                await wait_for_executions(scheduler, n + 1)
            await anyio.sleep(0.05)
            clock.jump(start + timedelta(minutes=30))
            await anyio.sleep(0.1)
            await scheduler.submit_job("soon", Once(start + timedelta(minutes=40)))
            await anyio.sleep(0.1)
            clock.advance(minutes=11)
            executions = await wait_for_executions(scheduler, 4)
            assert executions[-1].job_id == "soon"
            clock.advance(minutes=19)
            for _ in range(2):
                clock.advance(hours=1)
                await anyio.sleep(0.05)
            assert len(await executions_of(scheduler)) == 4
            clock.advance(hours=1)
            executions = await wait_for_executions(scheduler, 5)
            moments = [
                execution.scheduled_at for execution in executions if execution.job_id == "hourly"
            ]
            assert moments == [start + timedelta(hours=n) for n in range(1, 5)]

    run(loop, main)
