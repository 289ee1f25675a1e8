"""Deploys do not reset clocks: a service that starts anew every few hours keeps its schedules."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import anyio
import pytest
from tests.core.backends import KINDS, Open, fresh_store

from sched_core import Interval, JobEvent, JobSpec, Once, Policy, Schedule, Scheduler
from sched_core.testing import EPOCH, FakeClock, RecordingHandler

DAY = timedelta(days=1)
MONTH, SOME_DAYS = 30 * DAY, 5 * DAY


async def _deploys(
    open_store: Open, spec: JobSpec, lasting: timedelta = SOME_DAYS
) -> list[JobEvent]:
    """Declare the job at every boot, every seven hours; return every run of the time."""
    clock, handler = FakeClock(), RecordingHandler()
    while clock.now() < EPOCH + lasting:
        async with Scheduler(open_store(), handler=handler, clock=clock) as scheduler:
            await scheduler.ensure_job(
                spec.id, spec.schedule, metadata=spec.metadata, policy=spec.policy
            )
            for _ in range(7):
                await scheduler.run_due()
                clock.advance(hours=1)
    return handler.events


@pytest.mark.parametrize(
    ("kind", "lasting"),
    [
        ("memory", MONTH),
        ("sqlite", SOME_DAYS),
        pytest.param("sqlite", MONTH, marks=pytest.mark.deep),
    ],
)
def test_a_daily_interval_runs_daily_however_often_it_is_deployed(
    kind: str, lasting: timedelta, tmp_path: Path
) -> None:
    async def main() -> None:
        spec = JobSpec("daily", Interval(hours=24))
        events = await _deploys(fresh_store(kind, tmp_path), spec, lasting)
        assert len(events) in {lasting // DAY - 1, lasting // DAY}
        moments = [event.scheduled_at for event in events]
        assert moments == [EPOCH + (day + 1) * DAY for day in range(len(events))]
        assert all(event.delay < timedelta(hours=1) for event in events)
        assert [event.coalesced for event in events] == [0] * len(events)

    anyio.run(main)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "keep", [timedelta(0), DAY, pytest.param(None, marks=pytest.mark.deep)], ids=str
)
def test_a_past_one_shot_declared_at_every_boot_runs_once(
    kind: str, keep: timedelta | None, tmp_path: Path
) -> None:
    async def main() -> None:
        spec = JobSpec("migrate", Once(EPOCH - DAY), policy=Policy(keep_finished=keep))
        events = await _deploys(fresh_store(kind, tmp_path), spec)
        assert [event.scheduled_at for event in events] == [EPOCH - DAY]

    anyio.run(main)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("schedule", [Interval(hours=24), Once(EPOCH + MONTH)])
def test_declaring_the_same_job_writes_nothing(
    kind: str, schedule: Schedule, tmp_path: Path
) -> None:
    async def main() -> None:
        clock, open_store = FakeClock(), fresh_store(kind, tmp_path)
        jobs = []
        for _ in range(3):
            async with Scheduler(open_store(), clock=clock) as scheduler:
                jobs.append(await scheduler.ensure_job("job", schedule, metadata={"a": "b"}))
            clock.advance(hours=7)
        assert jobs[0] == jobs[1] == jobs[2]
        assert jobs[0].revision == jobs[2].revision

    anyio.run(main)


@pytest.mark.parametrize("kind", KINDS)
def test_a_deploy_that_changes_metadata_does_not_move_the_schedule(
    kind: str, tmp_path: Path
) -> None:
    async def main() -> None:
        clock, open_store, handler = FakeClock(), fresh_store(kind, tmp_path), RecordingHandler()
        for version in range(14):
            async with Scheduler(open_store(), handler=handler, clock=clock) as scheduler:
                await scheduler.ensure_job(
                    "job", Interval(hours=24), metadata={"version": str(version)}
                )
                await scheduler.run_due()
                clock.advance(hours=7)
        assert len(handler.events) == 3
        assert [event.metadata["version"] for event in handler.events] == ["4", "7", "11"]

    anyio.run(main)
