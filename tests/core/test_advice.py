"""What the lint says about definitions that are right and may surprise."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from datetime import UTC, date, datetime, timedelta

import anyio
import pytest
from attrs import frozen

from sched_core import (
    AnyOf,
    Between,
    CatchUp,
    Coalesce,
    Cron,
    Drop,
    Excluding,
    FixedDelay,
    Interval,
    JobSpec,
    MemoryBackend,
    Once,
    Policy,
    Schedule,
    Scheduler,
)
from sched_core.advice import advise
from sched_core.testing import FakeClock

NOW = datetime(2026, 1, 1, 10, 30, tzinfo=UTC)
BERLIN = Cron("30 2 * * *", tz="Europe/Berlin")


def said(schedule: Schedule, policy: Policy | None = None) -> list[str]:
    return advise(JobSpec("a", schedule, policy=policy or Policy()), now=NOW)


@pytest.mark.parametrize(
    "schedule",
    [
        Cron("0 9 * * mon-fri", tz="Europe/Berlin"),
        Cron("*/5 * * * *", tz="Europe/Berlin"),
        Cron("0 0 1 * *"),
        Interval(hours=1),
        FixedDelay(hours=1),
        Once(NOW - timedelta(days=1)),
    ],
)
def test_most_definitions_are_fine(schedule: Schedule) -> None:
    assert said(schedule) == []
    assert said(schedule, Policy(misfire=CatchUp(), jitter=timedelta(minutes=1))) == []


def test_nights_with_odd_local_times_are_named_by_their_dates() -> None:
    spring, autumn = said(BERLIN)
    assert spring.startswith("2026-03-29: in Europe/Berlin 02:00 to 03:00 does not exist")
    assert autumn.startswith("2026-10-25: in Europe/Berlin 02:00 to 03:00 comes twice")


def test_parts_are_looked_at() -> None:
    whole = Excluding(AnyOf(BERLIN, Between(BERLIN, NOW), Interval(hours=1)), [date(2026, 1, 6)])
    assert said(whole) == said(BERLIN)


def test_two_day_fields() -> None:
    (sentence,) = said(Cron("0 9 1 * mon"))
    assert "each day that matches one of them" in sentence
    assert said(Cron("0 9 1 * */2")) == []


def test_a_schedule_without_an_occurrence() -> None:
    (sentence,) = said(Between(Once(NOW), NOW + timedelta(days=1)))
    assert "finished at once" in sentence


def test_a_jitter_beyond_the_grace_or_the_gap() -> None:
    minute, hour = timedelta(minutes=1), timedelta(hours=1)
    (grace,) = said(Cron("0 * * * *"), Policy(misfire=Drop(minute), jitter=2 * minute))
    assert "more than the grace of Drop" in grace
    (overdue,) = said(Cron("0 * * * *"), Policy(overdue=minute, jitter=minute))
    assert "not below policy.overdue (0:01:00)" in overdue
    (gap,) = said(Interval(hour), Policy(misfire=Coalesce(), jitter=hour))
    assert "not below the gap of 1:00:00" in gap


def test_registering_says_it_once(caplog: pytest.LogCaptureFixture) -> None:
    clock = FakeClock(NOW)
    backend = MemoryBackend()

    async def logged(act: Callable[[Scheduler], Awaitable[object]]) -> list[str]:
        caplog.clear()
        async with Scheduler(backend, clock=clock) as scheduler:
            await act(scheduler)
        return [record.getMessage() for record in caplog.records]

    async def main() -> None:
        spring, autumn = (f"job 'a': {sentence}" for sentence in said(BERLIN))
        declare = lambda scheduler: scheduler.ensure_job("a", BERLIN)  # noqa: E731 -- used twice
        assert await logged(declare) == [spring, autumn]
        assert await logged(declare) == []
        assert await logged(lambda one: one.ensure_job("a", BERLIN, metadata={"x": "y"})) == []
        assert await logged(lambda one: one.update_job("a", Interval(hours=1))) == []
        assert await logged(lambda one: one.update_job("a", BERLIN)) == [spring, autumn]
        assert len(await logged(lambda one: one.submit_job("b", BERLIN))) == 2
        c = JobSpec("c", BERLIN)
        assert len(await logged(lambda one: one.sync_jobs([c], group="g"))) == 2
        assert await logged(lambda one: one.sync_jobs([c], group="g")) == []

    with caplog.at_level(logging.WARNING, "sched_core"):
        anyio.run(main)


def test_a_schedule_that_cannot_be_examined_is_declared_all_the_same() -> None:
    @frozen
    class Odd:
        def first(self, anchor: datetime) -> datetime | None:
            return anchor

        def next_after(self, moment: datetime, anchor: datetime) -> datetime | None:
            raise RuntimeError

    async def main() -> None:
        async with Scheduler(MemoryBackend()) as scheduler:
            policy = Policy(jitter=timedelta(seconds=1))
            await scheduler.ensure_job("a", Odd(), policy=policy)

    anyio.run(main)
