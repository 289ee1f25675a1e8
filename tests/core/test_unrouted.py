"""Jobs that a worker has no function for: it leaves them to others, and tells if there are none."""

from __future__ import annotations

import logging
from datetime import timedelta
from functools import partial

import anyio
import pytest
from tests.core.running import Make, at_once, now, run, running, seconds, statuses, until

from sched_core import (
    JobEvent,
    JobRouter,
    MemoryBackend,
    NoRoute,
    Once,
    Room,
    Scheduler,
    Status,
)
from sched_core._model.job import Job
from sched_core._runtime import reporting, unrouted
from sched_core._runtime.unrouted import Unrouted
from sched_core.testing import FakeClock


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tell of a job that no worker takes after a moment."""
    monkeypatch.setattr(unrouted, "PATIENCE", seconds(0.2))
    monkeypatch.setattr(reporting, "LOOKS", seconds(0.1))


def test_what_a_router_does_not_know_by_its_id_is_never_claimed(loop: str, make: Make) -> None:
    async def main() -> None:
        images, mails, ran = JobRouter(), JobRouter(), list[str]()

        @images.route("image-*")
        async def image(event: JobEvent) -> None:
            ran.append(event.id)

        @mails.route("mail-*")
        async def mail(event: JobEvent) -> None:
            ran.append(event.id)

        async with running(make(), mails) as one, running(make(), images):
            for number in range(5):
                await one.submit_job(f"image-{number}", at_once())
                await until(partial(ran.__contains__, f"image-{number}"), within=2)
            await until(lambda: _succeeded(one, "image-0"))

    run(loop, main)


def test_a_handler_that_raises_no_route_keeps_the_job_from_nobody(loop: str, make: Make) -> None:
    """The claim is given back at once, due as it was, and this worker alone leaves it alone."""

    async def main() -> None:
        asked = list[str]()

        async def lost(event: JobEvent) -> None:
            asked.append(event.id)
            raise NoRoute(delay=60)

        async def found(event: JobEvent) -> None:
            pass

        async with running(make(), lost) as one:
            before = await one.submit_job("a", Once(now() - seconds(5)))
            await until(lambda: asked)
            await anyio.sleep(0.3)
            assert asked == ["a"]
            after = await one.get_job("a")
            assert after.standing.due_at == before.standing.due_at
            assert after.held is None
            async with running(make(), found):
                await until(lambda: _succeeded(one, "a"), within=4)
        assert asked == ["a"]

    run(loop, main)


async def _succeeded(scheduler: Scheduler, job_id: str) -> bool:
    return await statuses(scheduler, job_id) == [Status.SUCCEEDED]


@pytest.mark.usefixtures("impatient")
def test_it_is_told_when_no_worker_takes_a_job(
    loop: str, make: Make, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        caplog.set_level(logging.WARNING)
        async with running(make(), JobRouter()) as scheduler:
            await scheduler.submit_job("invoice-7", Once(now() - timedelta(hours=1)))
            await until(lambda: _problems(scheduler, "routes"))
            (problem,) = _problems(scheduler, "routes")
            assert "'invoice-7' (due since" in problem
            await anyio.sleep(0.5)
            told = [text for text in caplog.messages if "no function" in text]
            assert len(told) == 1
            assert "'invoice-7'" in told[0]
            await scheduler.remove_job("invoice-7")
            await until(lambda: not _problems(scheduler, "routes"))

    run(loop, main)


def _problems(scheduler: Scheduler, topic: str) -> list[str]:
    found = scheduler.snapshot()
    assert found is not None
    return [problem for problem in found.problems if problem.startswith(topic)]


@pytest.mark.usefixtures("impatient")
def test_nothing_is_told_where_another_worker_takes_the_job(loop: str, make: Make) -> None:
    async def main() -> None:
        other = JobRouter()

        @other.default
        async def handle(event: JobEvent) -> None:
            pass

        async with running(make(), JobRouter()) as one, running(make(), other):
            for number in range(4):
                await one.submit_job(f"job-{number}", at_once())
                await anyio.sleep(0.15)
                assert not _problems(one, "routes")

    run(loop, main)


def test_the_pause_of_a_refused_job_doubles_up_to_a_bound() -> None:
    clock = FakeClock()
    refused = Unrouted(clock, lambda topic, problem: None)
    assert refused.predicate() is None
    pauses = [refused.refuse("a", seconds(5)) for _ in range(9)]
    assert pauses == [seconds(each) for each in (5, 10, 20, 40, 80, 160, 300, 300, 300)]
    accepts = refused.predicate()
    assert accepts is not None
    assert not accepts("a")
    assert accepts("b")
    clock.advance(minutes=5)
    assert accepts("a")
    refused.has_run("a")
    assert refused.predicate() is None


def test_only_some_refused_jobs_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unrouted, "REMEMBERED", 300)
    refused = Unrouted(FakeClock(), lambda topic, problem: None)
    refused.set_dispatcher(lambda job_id: False)
    assert not any(refused.accepts(f"job-{number}") for number in range(5_000))
    assert len(refused._refused) <= 300


def test_a_handler_that_is_set_anew_is_asked_again(loop: str) -> None:
    async def main() -> None:
        ran = list[str]()

        async def lost(event: JobEvent) -> None:
            raise NoRoute(delay=600)

        async def found(event: JobEvent) -> None:
            ran.append(event.id)

        async with Scheduler(MemoryBackend(), handler=lost) as scheduler:
            await scheduler.submit_job("a", at_once())
            await scheduler.run_due()
            assert await scheduler.run_due() == 0
            scheduler.set_handler(found)
            assert await scheduler.run_due() == 1
            assert ran == ["a"]

    run(loop, main)


def test_a_judgement_names_what_is_due_and_forgets_the_rest() -> None:
    """Held, finished, removed and future jobs are no worker's fault."""
    problems = dict[str, str | None]()
    clock = FakeClock()
    refused = Unrouted(clock, problems.__setitem__)
    refused.set_dispatcher(lambda job_id: False)
    for job_id in "abc":
        refused.accepts(job_id)
    assert refused.suspects() == []
    clock.advance(seconds=6)
    assert refused.suspects() == ["a", "b", "c"]

    async def main() -> dict[str, Job]:
        async with Scheduler(MemoryBackend(), clock=clock) as scheduler:
            due = await scheduler.submit_job("a", Once(clock.now() - seconds(30)))
            later = await scheduler.submit_job("b", Once(clock.now() + seconds(30)))
        return {"a": due, "b": later}

    jobs = anyio.run(main)
    refused.judge([("a", jobs["a"]), ("b", jobs["b"]), ("c", None)])
    assert list(refused.told) == ["a"]
    assert "'a' (due since" in str(problems["routes"])
    assert refused.suspects() == ["a"]
    refused.judge([("a", None)])
    assert problems["routes"] is None
    assert refused.told == {}


def test_a_route_that_is_added_later_is_used(loop: str) -> None:
    async def main() -> None:
        router, ran = JobRouter(), list[str]()
        async with Scheduler(MemoryBackend(), handler=router) as scheduler:
            await scheduler.submit_job("late-1", at_once())
            assert await scheduler.run_due() == 0

            @router.route("late-*")
            async def late(event: JobEvent) -> None:
                ran.append(event.id)

            assert await scheduler.run_due() == 1
            assert ran == ["late-1"]

    run(loop, main)


def test_what_accepts_raises_in_a_wait_loses_no_job(loop: str) -> None:
    async def main() -> None:
        backend = MemoryBackend()
        async with Scheduler(backend) as scheduler:
            for job_id in ("a", "b"):
                await scheduler.submit_job(job_id, Once(now() - seconds(5)))

            def accepts(job_id: str) -> bool:
                if job_id == "b":
                    raise LookupError(job_id)
                return False

            with pytest.raises(LookupError):
                await backend.wait_due(Room(5, accepts=accepts))
            claimed = await backend.claim_due(Room(5))
            assert sorted(claim.job.id for claim in claimed.claims) == ["a", "b"]

    run(loop, main)
