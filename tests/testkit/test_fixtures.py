"""The fixtures for users: time passes from due moment to due moment, on both event loops."""

from __future__ import annotations

import subprocess
import sys
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import anyio
import pytest

from sched_core import Cron, FixedDelay, Interval, JobEvent, Once, Policy, Retry, Status
from sched_core.testing import FakeClock
from sched_testkit.fixtures import MakeScheduler

START = datetime(2026, 1, 1, tzinfo=UTC)
both_loops = pytest.mark.parametrize("loop", ["asyncio", "trio"])


@both_loops
def test_an_hourly_job_runs_72_times_in_three_days(
    fake_scheduler: MakeScheduler, loop: str
) -> None:
    runs: list[datetime] = []

    async def handler(event: JobEvent) -> None:
        assert event.started_at == event.scheduled_at
        runs.append(event.started_at)

    async def main() -> None:
        async with fake_scheduler(handler) as scheduler:
            await scheduler.ensure_job("hourly", Interval(hours=1))
            await scheduler.ensure_job("nightly", Cron("0 3 * * *"))
            assert await scheduler.advance(days=3) == 75
            assert scheduler.clock.now() == START + timedelta(days=3)

    anyio.run(main, backend=loop)
    hours = [START + timedelta(hours=hour) for hour in range(1, 73)]
    assert sorted(runs) == sorted([*hours, *(hours[2 + 24 * day] for day in range(3))])


@both_loops
def test_retries_happen_at_their_instants(fake_scheduler: MakeScheduler, loop: str) -> None:
    attempts: list[tuple[int, timedelta]] = []

    async def handler(event: JobEvent) -> None:
        attempts.append((event.attempt, event.delay))
        raise ValueError("no")

    async def main() -> None:
        policy = Policy(retry=Retry(3, timedelta(seconds=10)))
        async with fake_scheduler(handler) as scheduler:
            await scheduler.submit_job("a", Once(START + timedelta(hours=1)), policy=policy)
            await scheduler.advance(hours=2)

    anyio.run(main, backend=loop)
    assert attempts == [
        (1, 0 * timedelta()),
        (2, timedelta(seconds=10)),
        (3, timedelta(seconds=30)),
    ]


@both_loops
def test_a_timeout_ends_a_hanging_handler_on_time(fake_scheduler: MakeScheduler, loop: str) -> None:
    async def handler(event: JobEvent) -> None:
        await anyio.Event().wait()

    async def main() -> list[Any]:
        policy = Policy(timeout=timedelta(seconds=30))
        async with fake_scheduler(handler) as scheduler:
            await scheduler.submit_job("a", Once(START + timedelta(hours=1)), policy=policy)
            await scheduler.advance(hours=2)
            return [line async for line in scheduler.list_executions()]

    (line,) = anyio.run(main, backend=loop)
    assert line.status is Status.FAILED
    assert line.finished_at == START + timedelta(hours=1, seconds=30)


@both_loops
def test_a_handler_may_sleep_on_the_clock(
    fake_scheduler: MakeScheduler, fake_clock: FakeClock, loop: str
) -> None:
    starts: list[datetime] = []

    async def handler(event: JobEvent) -> None:
        starts.append(event.started_at)
        await fake_clock.sleep_until(fake_clock.now() + timedelta(minutes=20))

    async def main() -> int:
        async with fake_scheduler(handler) as scheduler:
            await scheduler.ensure_job("a", FixedDelay(minutes=10))
            return await scheduler.advance(hours=2)

    assert anyio.run(main, backend=loop) == 4
    assert starts == [START + timedelta(minutes=m) for m in (10, 40, 70, 100)]


@both_loops
def test_a_run_longer_than_the_advance_goes_on(
    fake_scheduler: MakeScheduler, fake_clock: FakeClock, loop: str
) -> None:
    async def handler(event: JobEvent) -> None:
        await fake_clock.sleep_until(START + timedelta(hours=5))

    async def main() -> list[int]:
        async with fake_scheduler(handler) as scheduler:
            await scheduler.submit_job("a", Once(START))
            return [await scheduler.advance(hours=2) for _ in range(3)]

    assert anyio.run(main, backend=loop) == [0, 0, 1]


@both_loops
def test_a_sync_handler_runs_in_a_thread(fake_scheduler: MakeScheduler, loop: str) -> None:
    threads: list[str] = []

    def handler(event: JobEvent) -> None:
        threads.append(threading.current_thread().name)

    async def main() -> int:
        async with fake_scheduler(handler) as scheduler:
            await scheduler.ensure_job("a", Interval(hours=1))
            return await scheduler.advance(hours=5)

    assert anyio.run(main, backend=loop) == 5
    assert len(threads) == 5
    assert threading.current_thread().name not in threads


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio", "trio"])
async def test_it_works_in_an_anyio_test(fake_scheduler: MakeScheduler, anyio_backend: str) -> None:
    ids: list[str] = []

    async def handler(event: JobEvent) -> None:
        ids.append(event.id)

    async with fake_scheduler(handler) as scheduler:
        await scheduler.submit_job("a", Once(START + timedelta(days=1)))
        await scheduler.advance(days=2)
    assert ids == ["a"]


def test_alongside_pytest_asyncio(tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text(
        """
from sched_core import Interval


async def test_it(fake_scheduler):
    async def handler(event):
        pass

    async with fake_scheduler(handler) as scheduler:
        await scheduler.ensure_job("a", Interval(hours=1))
        assert await scheduler.advance(days=1) == 24
"""
    )
    options = ["-q", "-o", "asyncio_mode=auto", "--rootdir", str(tmp_path), str(tmp_path)]
    command = [sys.executable, "-m", "pytest", *options]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert "1 passed" in done.stdout, done.stdout + done.stderr
