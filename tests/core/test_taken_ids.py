"""An id that is taken, and nothing is found under it: as a tombstone that cannot be read here."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import anyio
import pytest
from tests.core.running import Faulty

from sched_core import Interval, JobAlreadyExists, JobSpec, JobUndecodable, MemoryBackend, Scheduler
from sched_core._service import definitions
from sched_core.testing import FakeClock

HOURLY = Interval(hours=1)
Declares = Callable[[Scheduler], Awaitable[object]]


async def ensures(scheduler: Scheduler) -> None:
    await scheduler.ensure_job("a", HOURLY)


async def syncs(scheduler: Scheduler) -> None:
    await scheduler.sync_jobs([JobSpec("a", HOURLY), JobSpec("b", HOURLY)], group="group")


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Count the waits before an id is tried again, and do not wait."""
    counted: list[int] = []

    async def note(failures: int) -> None:
        counted.append(failures)

    monkeypatch.setattr(definitions, "backoff_pause", note)
    return counted


@pytest.mark.parametrize("declares", [ensures, syncs])
def test_it_is_tried_again_with_waits_and_not_for_ever(
    declares: Declares, pauses: list[int]
) -> None:
    async def main() -> None:
        backend = Faulty(MemoryBackend())
        async with Scheduler(backend, clock=FakeClock()) as scheduler:
            await scheduler.sync_jobs([], group="group")
            backend.failures["add"] = JobAlreadyExists("a")
            with pytest.raises(JobUndecodable, match="'a'"):
                await declares(scheduler)
        assert pauses == list(range(1, definitions.TRIES))

    anyio.run(main)


@pytest.mark.parametrize("declares", [ensures, syncs])
def test_once_it_is_free_the_job_is_added(
    declares: Declares, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main() -> None:
        backend = Faulty(MemoryBackend())

        async def freed(failures: int) -> None:
            if failures == 3:
                backend.failures.clear()

        monkeypatch.setattr(definitions, "backoff_pause", freed)
        async with Scheduler(backend, clock=FakeClock()) as scheduler:
            await scheduler.sync_jobs([], group="group")
            backend.failures["add"] = JobAlreadyExists("a")
            await declares(scheduler)
            assert (await scheduler.get_job("a")).spec.schedule == HOURLY

    anyio.run(main)
