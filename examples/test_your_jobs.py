"""Tests of your own jobs: days pass in milliseconds. sched-testkit brings the fixture."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import anyio

from sched_core import Cron, Interval, JobEvent, JobRouter, Policy, Retry, Status


class Shop:
    """What is to be tested: two jobs, one of which needs a server that sometimes fails."""

    def __init__(self) -> None:
        self.router = JobRouter()
        self.reports: list[datetime] = []
        self.failures = 0
        self.router.job("report", Cron("0 9 * * mon-fri", tz="Europe/Berlin"))(self.report)
        retry = Policy(retry=Retry(attempts=3, backoff=timedelta(minutes=1)))
        self.router.job("sync", Interval(hours=1), policy=retry)(self.sync)

    async def report(self, event: JobEvent) -> None:
        self.reports.append(event.scheduled_at)

    def sync(self, event: JobEvent) -> None:
        if self.failures:
            self.failures -= 1
            raise ConnectionError("the server is away")


def test_a_week_has_five_reports(fake_scheduler: Any) -> None:
    shop = Shop()

    async def main() -> None:
        async with fake_scheduler(shop.router) as scheduler:
            runs = await scheduler.advance(days=7)
            assert runs == 7 * 24 + 5

    anyio.run(main)
    assert len(shop.reports) == 5
    assert {moment.astimezone(UTC).weekday() for moment in shop.reports} <= {0, 1, 2, 3, 4}


def test_an_outage_of_a_minute_is_bridged(fake_scheduler: Any) -> None:
    shop = Shop()
    shop.failures = 2

    async def main() -> None:
        async with fake_scheduler(shop.router) as scheduler:
            await scheduler.advance(hours=1, minutes=5)
            executions = [each async for each in scheduler.list_executions("sync")]
            assert [each.status for each in executions] == [
                Status.SUCCEEDED,
                Status.FAILED,
                Status.FAILED,
            ]
            assert [each.final for each in executions] == [True, False, False]

    anyio.run(main)


def test_a_single_function_needs_no_scheduler() -> None:
    shop, at = Shop(), datetime(2026, 1, 1, tzinfo=UTC)
    event = JobEvent("report", Cron("@daily"), scheduled_at=at, started_at=at, key="any:1")
    anyio.run(shop.router, event)
    assert shop.reports == [at]
