"""The look at all stored moments, after new rules of time zones: by one worker, to its end."""

from __future__ import annotations

from datetime import timedelta

import anyio
import pytest
from tests.core.running import Faulty, until

from sched_core import (
    BackendUnavailable,
    Interval,
    Job,
    JobEvent,
    JobSpec,
    MemoryBackend,
    MemoryStore,
    Pending,
    Policy,
    Retry,
    Scheduler,
    Standing,
    Status,
)
from sched_core._runtime import maintenance
from sched_core._runtime.maintenance import CHECKS_BEGIN, LONGEST_CHECK_PAUSE, MomentsCheck
from sched_core._runtime.observers import Observers
from sched_core.testing import EPOCH, FakeClock, RecordingHandler, history

YEARS = timedelta(days=3650)


class Place:
    """A store with a job whose moment is years away, and workers that look at it."""

    def __init__(self) -> None:
        self.clock, self.store = FakeClock(), MemoryStore()

    async def worker(self, name: str) -> tuple[MomentsCheck, Faulty]:
        backend = Faulty(MemoryBackend(self.store))
        await backend.open(self.clock, worker=name)
        return MomentsCheck(backend, self.clock, Observers(backend, ())), backend

    async def add(self, backend: Faulty, job_id: str) -> None:
        far = EPOCH + YEARS
        standing = Standing(1, Pending(1, far, far), far)
        await backend.add([Job(JobSpec(job_id, Interval(hours=1)), job_id, True, EPOCH, standing)])

    def is_right(self, job_id: str) -> bool:
        job = self.store.row(job_id).job
        assert isinstance(job, Job)
        assert job.next_run is not None
        return job.next_run < EPOCH + timedelta(days=1)


@pytest.fixture
def release(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return what holds the machine's release of time zone rules."""
    found = ["2025a"]
    monkeypatch.setattr(maintenance, "release", lambda: found[0])
    return found


def test_one_looks_for_each_release(release: list[str]) -> None:
    async def main() -> None:
        place = Place()
        first, backend = await place.worker("first")
        second, _ = await place.worker("second")
        await place.add(backend, "a")
        await first.check()
        assert place.is_right("a")
        await place.add(backend, "b")
        await second.check()
        assert not place.is_right("b"), "it has looked although that was done"
        release[0] = "2025b"
        await second.check()
        assert place.is_right("b")
        release[0] = "2025a"
        await place.add(backend, "c")
        await first.check()
        assert not place.is_right("c"), "an older release tells nothing"

    anyio.run(main)


def test_a_check_that_no_worker_ends_is_taken_over(release: list[str]) -> None:
    """A worker dies between its note that it looks and the end of its look."""

    async def main() -> None:
        place = Place()
        dying, backend = await place.worker("dying")
        await place.add(backend, "a")
        backend.failures["jobs"] = BackendUnavailable("it has died")
        with pytest.raises(BackendUnavailable):
            await dying.check()
        next_one, _ = await place.worker("next")
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(next_one.run)
            for step in (CHECKS_BEGIN, LONGEST_CHECK_PAUSE):
                assert not place.is_right("a")
                await anyio.wait_all_tasks_blocked()
                place.clock.advance(step)
                await anyio.wait_all_tasks_blocked()
            await until(lambda: place.is_right("a"))
        third, _ = await place.worker("third")
        await place.add(backend, "b")
        await third.check()
        assert not place.is_right("b"), "it has looked although that was done"

    anyio.run(main)


def test_a_retry_that_waits_in_the_future_is_due_now_and_its_next_moment_is_put_right_after_it(
    release: list[str],
) -> None:
    """A clock is years ahead while a job fails, and put right while its retry waits."""
    failing = [True]

    async def handler(event: JobEvent) -> None:
        if failing[0]:
            raise ValueError("no")

    async def main() -> None:
        clock = FakeClock()
        backend = MemoryBackend()
        policy = Policy(retry=Retry(attempts=3))
        async with Scheduler(backend, handler=handler, clock=clock) as scheduler:
            await scheduler.ensure_job("hourly", Interval(hours=1), policy=policy)
            clock.jump(YEARS)
            assert await scheduler.run_due() == 1
            clock.jump(-YEARS)
            failing[0] = False
            looks = MomentsCheck(backend, clock, Observers(backend, ()))
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(looks.run)
                await anyio.wait_all_tasks_blocked()
                clock.advance(CHECKS_BEGIN)
                await anyio.wait_all_tasks_blocked()
                assert await scheduler.run_due() == 1
                clock.advance(LONGEST_CHECK_PAUSE)
            job = await scheduler.get_job("hourly")
            assert job.next_run == EPOCH + timedelta(hours=1)
            (newest, *_) = await history(scheduler, "hourly")
            assert (newest.attempt, newest.status) == (2, Status.SUCCEEDED)

    anyio.run(main)


def test_a_job_that_is_resumed_is_put_right() -> None:
    async def main() -> None:
        clock = FakeClock()
        async with Scheduler(MemoryBackend(), handler=RecordingHandler(), clock=clock) as scheduler:
            await scheduler.ensure_job("hourly", Interval(hours=1))
            clock.jump(YEARS)
            await scheduler.run_due()
            await scheduler.pause_job("hourly")
            clock.jump(-YEARS)
            job = await scheduler.resume_job("hourly")
            assert job.next_run == EPOCH + timedelta(hours=1)

    anyio.run(main)
