"""The server's own clock and timers: what is due runs then, and what was changed does not."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import anyio
import pytest
from tests.nats_server import Cluster
from tests.nats_shared import delete_streams, shared_server

from sched_core import (
    Interval,
    Job,
    JobEvent,
    JobNotFound,
    JobSpec,
    Once,
    Policy,
    SchedError,
    Scheduler,
    SystemClock,
)
from sched_core.clock import boot_seconds
from sched_jetstream import JetStreamBackend
from sched_jetstream._runtime.server_time import StoreClock

BUCKET = "realtime"


def backend(bucket: str = BUCKET, **settings: Any) -> JetStreamBackend:
    settings = {"job_bucket": bucket, "execution_bucket": f"{bucket}-lines", **settings}
    return JetStreamBackend(settings.pop("servers", shared_server().url), **settings)


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    yield
    forget(BUCKET)


def forget(bucket: str) -> None:
    delete_streams(shared_server().url, f"KV_{bucket}", f"KV_{bucket}-lines")


class Recorder:
    """A handler that keeps what it was called with."""

    def __init__(self) -> None:
        self.events: list[JobEvent] = []

    async def __call__(self, event: JobEvent) -> None:
        self.events.append(event)

    async def until(self, count: int, seconds: float = 30.0) -> None:
        with anyio.fail_after(seconds):
            while len(self.events) < count:
                await asyncio.sleep(0.01)


def ahead(milliseconds: float) -> datetime:
    return datetime.now(UTC) + timedelta(milliseconds=milliseconds)


async def run(scheduler: Scheduler) -> asyncio.Task[None]:
    task = asyncio.create_task(scheduler.run_forever(signals=False))
    await scheduler.wait_until_running()
    return task


@pytest.mark.parametrize("milliseconds", [-1000, 0, 50, 700, 1400, 1600, 2500])
def test_a_one_shot_runs_when_it_is_due_and_not_before(milliseconds: int) -> None:
    recorder = Recorder()

    async def main() -> None:
        async with Scheduler(backend(), handler=recorder) as scheduler:
            task = await run(scheduler)
            await scheduler.submit_job("a", Once(ahead(milliseconds)))
            await recorder.until(1)
            await scheduler.stop(1)
            await task

    asyncio.run(main())
    (event,) = recorder.events
    assert event.delay >= timedelta(0), "it ran before its moment"


def test_what_is_removed_paused_or_edited_at_the_last_moment_does_not_run() -> None:
    """The hints of all three are in the worker's hands when they change."""

    async def ran(notice: int) -> list[str] | None:
        """Return what ran, or nothing where the machine was too slow to change it in time."""
        recorder, bucket = Recorder(), f"{BUCKET}-{notice}"
        async with (
            Scheduler(backend(bucket), handler=recorder) as scheduler,
            Scheduler(backend(bucket)) as other,
        ):
            task = await run(scheduler)
            due = ahead(notice)
            for name in ("removed", "paused", "edited", "left"):
                await scheduler.submit_job(name, Once(due))
            await asyncio.sleep(notice / 2000)
            try:
                await other.remove_job("removed")
                await other.pause_job("paused")
                await other.update_job("edited", Once(ahead(3_600_000)))
            except SchedError:
                if datetime.now(UTC) < due:
                    raise
            in_time = datetime.now(UTC) < due
            await recorder.until(1)
            await asyncio.sleep(1.0)
            await scheduler.stop(1)
            await task
        forget(bucket)
        return [event.id for event in recorder.events] if in_time else None

    notices = (900 * 2**n for n in range(5))
    seen = next(filter(None, (asyncio.run(ran(notice)) for notice in notices)), None)
    assert seen == ["left"]


def test_a_chain_goes_on_over_a_restart() -> None:
    recorder = Recorder()

    async def main() -> None:
        for wanted in (2, 5):
            async with Scheduler(backend(), handler=recorder) as scheduler:
                await scheduler.ensure_job("tick", Interval(seconds=1))
                task = await run(scheduler)
                await recorder.until(wanted)
                await scheduler.stop(1)
                await task

    asyncio.run(main())
    keys = [event.key.rpartition(":")[2] for event in recorder.events]
    assert keys[:5] == ["1", "2", "3", "4", "5"]


def test_a_long_job_holds_up_no_other() -> None:
    ran = Counter[str]()
    release = asyncio.Event()

    async def handle(event: JobEvent) -> None:
        ran[event.id] += 1
        if event.id == "long":
            await release.wait()

    async def main() -> None:
        store = backend(lease=timedelta(seconds=1))
        async with Scheduler(store, handler=handle, max_concurrency=2) as scheduler:
            task = await run(scheduler)
            await scheduler.submit_job("long", Once(ahead(0)))
            await scheduler.submit_jobs([JobSpec(f"s{n}", Once(ahead(0))) for n in range(50)])
            with anyio.fail_after(20):
                while len(ran) < 51:
                    await asyncio.sleep(0.02)
            await asyncio.sleep(2.5)  # longer than two leases: renewed, and not handed out again
            release.set()
            await scheduler.stop(5)
            await task

    asyncio.run(main())
    assert set(ran.values()) == {1}


def test_finished_jobs_are_deleted_by_the_server() -> None:
    recorder = Recorder()

    async def main() -> None:
        async with Scheduler(backend(), handler=recorder) as scheduler:
            task = await run(scheduler)
            kept = Policy(keep_finished=timedelta(seconds=1))
            await scheduler.submit_job("short", Once(ahead(0)), policy=kept)
            await scheduler.submit_job("long", Once(ahead(0)))
            await recorder.until(2)
            with anyio.fail_after(20):
                while True:
                    try:
                        await scheduler.get_job("short")
                    except JobNotFound:
                        break
                    await asyncio.sleep(0.1)
            await scheduler.get_job("long")
            await scheduler.stop(1)
            await task

    asyncio.run(main())


def test_pruning_deletes_by_time_and_counts() -> None:
    recorder = Recorder()

    async def main() -> None:
        async with Scheduler(backend(), handler=recorder) as scheduler:
            task = await run(scheduler)
            for n in range(5):
                await scheduler.submit_job(f"a{n}", Once(ahead(0)))
            await recorder.until(5)
            await asyncio.sleep(0.5)
            between = datetime.now(UTC)
            await asyncio.sleep(0.2)
            forever = Policy(keep_executions=None)
            await scheduler.submit_job("b", Once(ahead(0)), policy=forever)
            await recorder.until(6)
            await asyncio.sleep(0.5)
            assert await scheduler.prune(between) == 5
            assert await scheduler.prune(between) == 0
            lines = [line.job_id async for line in scheduler.list_executions()]
            assert lines == ["b"]
            assert [line.job_id async for line in scheduler.list_executions("b")] == ["b"]
            await scheduler.stop(1)
            await task

    asyncio.run(main())


# -- the replace storm -------------------------------------------------------


def storm(urls: list[str], jobs: int, replicas: int) -> None:
    """Edit each job at a random moment within 200 ms of its being due; nothing may be lost."""
    recorder = Recorder()
    chosen = random.Random(7)

    async def main() -> None:
        settings: dict[str, Any] = {"servers": urls, "replicas": replicas}
        async with (
            Scheduler(backend(**settings), handler=recorder) as scheduler,
            Scheduler(backend(**settings)) as editor,
        ):
            due = ahead(2000 + jobs / 2)
            specs = [JobSpec(f"j{n}", Once(due), metadata={"v": "1"}) for n in range(jobs)]
            await scheduler.submit_jobs(specs, atomic=False)
            task = await run(scheduler)
            later = due + timedelta(seconds=6 + jobs / 1000)
            left = [spec.id for spec in specs]
            chosen.shuffle(left)

            async def edit(job_id: str, at: datetime) -> None:
                await asyncio.sleep(max((at - datetime.now(UTC)).total_seconds(), 0))
                await editor.update_job(job_id, Once(later), metadata={"v": "2"})

            async with asyncio.TaskGroup() as edits:
                for job_id in left:
                    at = due + timedelta(seconds=chosen.uniform(-0.2, 0.2))
                    edits.create_task(edit(job_id, at))
            with anyio.fail_after(60 + jobs / 100):
                while len({e.id for e in recorder.events if e.metadata["v"] == "2"}) < jobs:
                    await asyncio.sleep(0.1)
            await scheduler.stop(5)
            await task
            async for job in editor.list_jobs():
                assert isinstance(job, Job)
                assert dict(job.spec.metadata) == {"v": "2"}, "an edit was lost"

    asyncio.run(main())
    keys = Counter(event.key for event in recorder.events)
    assert set(keys.values()) == {1}, "an occurrence ran twice"
    edited = Counter(event.id for event in recorder.events if event.metadata["v"] == "2")
    assert len(edited) == jobs
    assert set(edited.values()) == {1}


def test_replace_storm(deep: bool) -> None:
    storm([shared_server().url], 10_000 if deep else 400, 1)


@pytest.mark.deep
def test_replace_storm_on_a_cluster(tmp_path: Path) -> None:
    cluster = Cluster(tmp_path)
    try:
        cluster.start()
        storm(cluster.urls, 10_000, 3)
    finally:
        cluster.end()


# -- the store's clock -------------------------------------------------------


def test_the_clock_that_decides_is_the_servers() -> None:
    class Skewed(SystemClock):
        def now(self) -> datetime:
            return super().now() + timedelta(hours=1)

        async def sleep_until(self, moment: datetime) -> None:
            await super().sleep_until(moment - timedelta(hours=1))

    recorder = Recorder()

    async def main() -> None:
        async with Scheduler(backend(), handler=recorder, clock=Skewed()) as scheduler:
            task = await run(scheduler)
            job = await scheduler.submit_job("a", Interval(seconds=1))
            assert abs(job.anchor - datetime.now(UTC)) < timedelta(seconds=1)
            await recorder.until(1)
            await scheduler.stop(1)
            await task

    asyncio.run(main())
    assert recorder.events[0].delay < timedelta(seconds=30)


def test_a_step_of_the_servers_clock_is_followed_and_guarded() -> None:
    clock = StoreClock(SystemClock(), timedelta(seconds=30))
    now = datetime.now(UTC)
    clock.measured(now, 100.0, 100.001)
    clock.measured(now + timedelta(seconds=10.002), 110.0, 110.001)
    assert (clock.steps, clock.may_take_over) == (0, True), "an ordinary drift is no step"
    moment = boot_seconds()
    clock.measured(now + timedelta(days=1), moment, moment + 0.001)
    assert (clock.steps, clock.may_take_over) == (1, False), "claims are taken over after a jump"
    assert abs(clock.now() - now - timedelta(days=1)) < timedelta(seconds=5)


def test_the_estimate_of_the_servers_clock_is_never_ahead() -> None:
    """However slow the answer was: what is begun by it would be early."""
    clock, now = StoreClock(SystemClock(), timedelta(seconds=2)), datetime.now(UTC)
    asked = boot_seconds()
    clock.measured(now + timedelta(seconds=0.1), asked, asked + 1)  # answered at once, late here
    assert clock.now() <= now + timedelta(seconds=boot_seconds() - asked)
    assert clock.imprecise, "another look is worth having"
    clock.measured(now + timedelta(seconds=2), asked + 2, asked + 2.001)
    assert (clock.steps, clock.imprecise) == (1, False)
    assert abs(clock.now() - now - timedelta(seconds=boot_seconds() - asked)) < timedelta(
        seconds=0.01
    )
