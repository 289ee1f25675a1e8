"""A year in seconds: a thousand jobs of all kinds on a fake clock, twice, with the same history."""

from __future__ import annotations

import itertools
import time
from collections import Counter
from collections.abc import Callable
from datetime import datetime, timedelta
from hashlib import blake2b

import anyio
import pytest

from sched_core import (
    CatchUp,
    Cron,
    Drop,
    Execution,
    FixedDelay,
    HealthChange,
    Interval,
    JobEvent,
    JobSpec,
    MemoryBackend,
    MemoryStore,
    Once,
    Policy,
    Retry,
    Schedule,
    Scheduler,
    State,
)
from sched_core.testing import EPOCH, FakeClock

YEAR = timedelta(days=365)
ZONES = ["UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Kathmandu"]


def _schedule(number: int) -> Schedule:
    """Return a schedule; a thousand of them make some 300,000 occurrences in a year."""
    minute, hour, zone = number % 4 * 15, number % 24, ZONES[number % len(ZONES)]
    kinds: list[Callable[[], Schedule]] = [
        lambda: Cron(f"{minute} {hour} * * *", tz=zone),
        lambda: Cron(f"{minute} {hour} * * 1-5", tz=zone),
        lambda: Interval(hours=24 + number % 7),
        lambda: Interval(hours=20, start=EPOCH + timedelta(minutes=15 * number)),
        lambda: FixedDelay(hours=18, minutes=minute),
        lambda: Cron(f"{minute} */12 * * *", tz=zone),
        lambda: Once(EPOCH + timedelta(hours=8 * number, minutes=minute)),
        lambda: Cron(f"0 {minute} {hour} * * *", tz=zone),
        lambda: Interval(hours=30),
        lambda: Cron(f"{minute} {hour} 1,15 * *", tz=zone),
    ]
    return kinds[number % 10]()


def _policy(number: int) -> Policy:
    return [
        Policy(),
        Policy(retry=Retry(attempts=3, backoff=timedelta(minutes=5), jitter=0.5)),
        Policy(jitter=timedelta(minutes=3 if number % 250 < 50 else 0)),
        Policy(misfire=CatchUp(limit=3)),
        Policy(misfire=Drop(grace=timedelta(minutes=30)), retry=Retry(attempts=2)),
    ][number // 10 % 5]


class _Year:
    """What one simulated year leaves behind."""

    def __init__(self) -> None:
        self.digest = blake2b()
        self.counts: Counter[str] = Counter()
        self.finals: Counter[tuple[str, int]] = Counter()
        self.seconds = 0.0

    def observe(self, what: Execution | HealthChange) -> None:
        assert isinstance(what, Execution)
        self.counts[what.status.value] += 1
        if what.final:
            self.finals[what.uid, what.number] += 1
        fields = (what.id, what.job_id, what.status, what.token, what.finished_at, what.coalesced)
        self.digest.update(repr(fields).encode())


async def _handle(event: JobEvent) -> None:
    """Fail now and then, the same in every year."""
    if blake2b(f"{event.key}:{event.attempt}".encode(), digest_size=1).digest()[0] < 8:
        raise ValueError("now and then")


async def _simulate(jobs: int, length: timedelta) -> _Year:
    year, clock, store = _Year(), FakeClock(), MemoryStore()
    ids = itertools.count()
    scheduler = Scheduler(
        MemoryBackend(store),
        handler=_handle,
        clock=clock,
        observers=[year.observe],
        new_id=lambda: f"id{next(ids)}",
    )
    end = EPOCH + length
    began = time.perf_counter()
    async with scheduler:
        await scheduler.submit_jobs(
            [
                JobSpec(f"job-{number}", _schedule(number), policy=_policy(number))
                for number in range(jobs)
            ]
        )
        operate = EPOCH + timedelta(days=1)
        for step in itertools.count():
            due = store.earliest()
            if due is None or due > end:
                break
            # Every now and then the service is away for a while, and an operator does something.
            away = timedelta(hours=5) if step % 500 == 499 else timedelta(0)
            clock.jump(max(due + away, clock.now()))
            await scheduler.run_due()
            if clock.now() >= operate:
                operate += timedelta(days=1)
                await _operate(scheduler, step, clock.now())
    year.seconds = time.perf_counter() - began
    return year


async def _operate(scheduler: Scheduler, step: int, now: datetime) -> None:
    """Pause, trigger and skip a cron job that never ends, each one another day."""
    job_id = f"job-{step % 50 * 10}"
    job = await scheduler.get_job(job_id)
    if job.state is State.ACTIVE:
        await scheduler.skip_next(job_id)
    await scheduler.pause_job(f"job-{step % 50 * 10 + 1}", until=now + timedelta(hours=30))
    await scheduler.trigger_job(f"job-{step % 50 * 10 + 5}")


def test_a_year_runs_in_seconds_and_twice_the_same(
    deep: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """Short: the first four days of it. The rate is printed, see it with ``-s``."""
    caplog.set_level("CRITICAL", logger="sched_core")
    length = YEAR if deep else timedelta(days=4)
    years = [anyio.run(_simulate, 1000, length) for _ in range(2)]
    for year in years:
        runs = year.counts["succeeded"] + year.counts["failed"]
        print(  # noqa: T201 -- the figure is what this test is for
            f"{runs} runs in {year.seconds:.1f} s: {runs / year.seconds:.0f} runs/s", year.counts
        )
    assert years[0].digest.digest() == years[1].digest.digest()
    assert set(years[0].finals.values()) == {1}
    runs = years[0].counts["succeeded"] + years[0].counts["failed"]
    assert runs > 280_000 * (length / YEAR)
    assert {"succeeded", "failed", "skipped"} <= set(years[0].counts)
