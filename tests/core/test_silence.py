"""Nothing fails in silence, and no mistake around one job ends the runs of all others."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar

import anyio
import pytest
from tests.core.running import (
    Faulty,
    Make,
    at_once,
    gate,
    run,
    running,
    seconds,
    until,
    wait_for_executions,
)
from tests.wrappers import HandsOn

from sched_core import (
    Backend,
    BackendUnavailable,
    HealthChange,
    Interval,
    JobEvent,
    MemoryBackend,
    Once,
    Policy,
    Retry,
    Scheduler,
    Status,
)
from sched_core._runtime import maintenance
from sched_core.testing import FakeClock

# -- mistakes around a job


class _NoName(type):
    @property
    def __name__(cls) -> str:  # type: ignore[override]
        raise RuntimeError("no name")


class NoText(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")


class LeavingText(Exception):
    def __str__(self) -> str:
        raise SystemExit("no text")


class NoNotes(Exception):
    @property
    def __notes__(self) -> list[str]:  # type: ignore[override]  # that is the mistake
        raise RuntimeError("no notes")


class NoName(Exception, metaclass=_NoName):
    pass


def failing(name: str, base: type[BaseException] = Exception) -> Callable[[str], BaseException]:
    """Return a maker of exceptions that fail when they are asked for one attribute."""

    def fail(self: object) -> object:
        raise RuntimeError(f"no {name}")

    odd = type("Odd", (base,), {name: property(fail)})
    return lambda text: odd(text, [ValueError(text)]) if base is BaseExceptionGroup else odd(text)


def nested(text: str) -> BaseException:
    error: Exception = ValueError(text)
    for _ in range(2000):
        error = ExceptionGroup(text, [error])
    return error


def circle(text: str) -> BaseException:
    one, other = ValueError(text), ValueError(text)
    one.__cause__, other.__cause__ = other, one
    return one


@pytest.mark.parametrize("kind", ["async", "plain"])
@pytest.mark.parametrize(
    "error",
    [
        pytest.param(NoText, id="text"),
        pytest.param(LeavingText, id="text that leaves"),
        pytest.param(NoNotes, id="notes"),
        pytest.param(NoName, id="name"),
        pytest.param(failing("__cause__"), id="cause"),
        pytest.param(failing("__context__"), id="context"),
        pytest.param(failing("__traceback__"), id="traceback"),
        pytest.param(failing("__class__"), id="class"),
        pytest.param(failing("exceptions", BaseExceptionGroup), id="exceptions"),
        pytest.param(nested, id="nested"),
        pytest.param(circle, id="circle"),
    ],
)
def test_an_exception_that_cannot_be_shown_is_a_failure_of_its_job_alone(
    error: Callable[[str], BaseException], kind: str, loop: str
) -> None:
    def plain(event: JobEvent) -> None:
        if event.id == "odd":
            raise error("x")

    async def handler(event: JobEvent) -> None:
        plain(event)

    async def main() -> None:
        async with running(MemoryBackend(), handler if kind == "async" else plain) as scheduler:
            await scheduler.submit_job("odd", at_once())
            (execution,) = await wait_for_executions(scheduler, 1, "odd")
            assert (execution.status, execution.final) == (Status.FAILED, True)
            await scheduler.submit_job("other", at_once())
            (execution,) = await wait_for_executions(scheduler, 1, "other")
            assert execution.status is Status.SUCCEEDED

    run(loop, main)


@contextmanager
def a_filter_that(error: BaseException) -> Iterator[None]:
    class Failing(logging.Filter):
        def filter(self, record: logging.LogRecord) -> bool:
            raise error

    logger, failing = logging.getLogger("sched_core"), Failing()
    logger.addFilter(failing)
    try:
        yield
    finally:
        logger.removeFilter(failing)


@pytest.mark.parametrize("error", [ValueError("x"), SystemExit(1), asyncio.CancelledError()])
def test_a_logging_filter_that_fails_costs_a_record_and_no_job(
    error: BaseException, loop: str, capsys: pytest.CaptureFixture[str]
) -> None:
    def handler(event: JobEvent) -> None:
        if event.id == "odd":
            raise ValueError("of the job")

    async def main() -> None:
        with a_filter_that(error):
            async with running(MemoryBackend(), handler) as scheduler:
                await scheduler.submit_job("odd", at_once())
                await wait_for_executions(scheduler, 1, "odd")
                await scheduler.submit_job("other", at_once())
                await wait_for_executions(scheduler, 1, "other")

    run(loop, main)
    assert f"failed: {type(error).__name__}" in capsys.readouterr().err


class _NoRepr:
    def __call__(self, what: object) -> None:
        raise SystemExit("this is no script")

    def __repr__(self) -> str:
        raise RuntimeError("no repr")


@pytest.mark.parametrize(
    "error", [ValueError("x"), SystemExit(1), GeneratorExit(), asyncio.CancelledError()]
)
def test_an_observer_may_raise_anything(error: BaseException, loop: str) -> None:
    def observer(what: object) -> None:
        raise error

    async def main() -> None:
        observers = [observer, _NoRepr()]
        async with running(MemoryBackend(), lambda event: None, observers=observers) as scheduler:
            for job_id in "abc":
                await scheduler.submit_job(job_id, at_once())
                await wait_for_executions(scheduler, 1, job_id)

    run(loop, main)


# -- failures are logged as what they are


def test_a_final_failure_is_an_error_and_one_that_is_retried_a_warning(
    loop: str, caplog: pytest.LogCaptureFixture
) -> None:
    def handler(event: JobEvent) -> None:
        raise ConnectionError("on purpose")

    async def main() -> None:
        policy = Policy(retry=Retry(attempts=2, backoff=seconds(0.01)))
        async with running(MemoryBackend(), handler) as scheduler:
            await scheduler.submit_job("a", at_once(), policy=policy)
            await wait_for_executions(scheduler, 2)

    run(loop, main)
    records = [record for record in caplog.records if record.exc_info]
    assert [record.levelname for record in records] == ["WARNING", "ERROR"]
    for record in records:
        assert record.exc_info is not None
        trace = record.exc_info[2]
        assert trace is not None
        assert trace.tb_frame.f_code.co_name == "handler", "it begins at the user's code"


def test_a_timeout_is_logged_too(loop: str, caplog: pytest.LogCaptureFixture) -> None:
    async def handler(event: JobEvent) -> None:
        await anyio.sleep(60)

    async def main() -> None:
        async with running(MemoryBackend(), handler) as scheduler:
            await scheduler.submit_job("a", at_once(), policy=Policy(timeout=seconds(0.01)))
            await wait_for_executions(scheduler, 1)

    run(loop, main)
    assert [r.levelname for r in caplog.records if "timeout" in r.getMessage()] == ["ERROR"]


# -- handlers past their timeout


@pytest.mark.parametrize("slots", [1, 2])
def test_a_thread_past_its_timeout_is_told_of_while_it_lasts(
    slots: int, loop: str, caplog: pytest.LogCaptureFixture
) -> None:
    """It cannot be stopped. Health is bad once such handlers hold every slot."""
    seen: list[HealthChange] = []

    def observer(what: object) -> None:
        if isinstance(what, HealthChange):
            seen.append(what)

    async def main() -> None:
        with gate() as let_go:

            def handler(event: JobEvent) -> None:
                if event.id == "stuck":
                    let_go.wait()

            options: dict[str, Any] = {"max_concurrency": slots, "observers": [observer]}
            async with running(MemoryBackend(), handler, **options) as scheduler:
                policy = Policy(timeout=seconds(0.05))
                await scheduler.submit_job("stuck", at_once(), policy=policy)
                await until(lambda: seen)
                health = await scheduler.health()
                assert "stuck" in health.notices[0]
                assert "timeout of 0:00:00.05" in health.notices[0]
                assert health.healthy == (slots > 1), health.problems
                let_go.set()
                (execution,) = await wait_for_executions(scheduler, 1, "stuck")
                assert execution.status is Status.FAILED
                assert (await scheduler.health()).notices == ()
                assert (await scheduler.health()).healthy

    run(loop, main)
    assert "past its timeout" in caplog.text
    assert seen[-1].notices == ()


def test_a_coroutine_that_goes_on_past_its_timeout_is_told_of(loop: str) -> None:
    async def main() -> None:
        let_go = anyio.Event()

        async def handler(event: JobEvent) -> None:
            with anyio.CancelScope(shield=True):
                await let_go.wait()

        async with running(MemoryBackend(), handler) as scheduler:
            await scheduler.submit_job("stuck", at_once(), policy=Policy(timeout=seconds(0.05)))
            notices = await until(lambda: scheduler.snapshot().notices)  # type: ignore[union-attr]
            assert "although it was cancelled" in notices[0]
            let_go.set()
            await wait_for_executions(scheduler, 1)
            assert (await scheduler.health()).notices == ()

    run(loop, main)


# -- schedules of others


class StandsStill:
    """A mistake of one character: ``<=`` where ``<`` belongs."""

    by: ClassVar[timedelta] = timedelta(0)

    def first(self, anchor: datetime) -> datetime | None:
        return anchor

    def next_after(self, moment: datetime, anchor: datetime) -> datetime | None:
        return moment + self.by


class GoesBack(StandsStill):
    by = timedelta(seconds=-1)


@pytest.mark.parametrize("schedule", [StandsStill(), GoesBack()])
def test_a_schedule_that_does_not_go_on_is_set_aside(schedule: Any) -> None:
    clock, ran = FakeClock(), list[JobEvent]()

    async def main() -> None:
        async with Scheduler(MemoryBackend(), handler=ran.append, clock=clock) as scheduler:
            await scheduler.ensure_job("odd", schedule)
            await scheduler.ensure_job("other", Interval(seconds=1))
            for _ in range(10):
                clock.advance(seconds=1)
                await scheduler.run_due()
            problems = (await scheduler.health()).problems
            assert any("odd" in each and "is not after" in each for each in problems), problems

    anyio.run(main)
    assert len([event for event in ran if event.id == "odd"]) <= 1
    assert len([event for event in ran if event.id == "other"]) == 10


# -- what cannot be read


def test_jobs_that_cannot_be_read_are_told_of(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, make: Make, loop: str
) -> None:
    monkeypatch.setattr(maintenance, "CHECKS_BEGIN", timedelta(milliseconds=1))

    async def main() -> None:
        backend: Backend = make()
        async with running(backend, lambda event: None) as scheduler:
            await scheduler.ensure_job("fine", Interval(hours=1))
            assert (await scheduler.health()).notices == ()
        async with running(_Spoilt(make()), lambda event: None) as scheduler:
            (notice,) = await until(lambda: scheduler.snapshot().notices)  # type: ignore[union-attr]
            assert "'spoilt'" in notice
            assert (await scheduler.health()).healthy

    run(loop, main)
    assert "'spoilt'" in caplog.text


def test_a_look_that_failed_is_made_again_soon(
    monkeypatch: pytest.MonkeyPatch, make: Make, loop: str
) -> None:
    """A store that was away for a moment must not look ill for an hour."""
    monkeypatch.setattr(maintenance, "CHECKS_BEGIN", timedelta(milliseconds=50))

    async def main() -> None:
        backend = Faulty(make())
        backend.failures["jobs"] = BackendUnavailable("away")
        async with running(backend, lambda event: None) as scheduler:
            told = "listing: BackendUnavailable: away"
            await until(lambda: told in scheduler.snapshot().problems)  # type: ignore[union-attr]
            del backend.failures["jobs"]
            await until(lambda: scheduler.snapshot().healthy)  # type: ignore[union-attr]

    run(loop, main)


class _Spoilt(HandsOn):
    """A backend with one job of a version to come."""

    async def jobs(self, query: Any, *, after: str | None, limit: int) -> Any:
        from sched_core import Page, Undecodable

        page = await self.backend.jobs(query, after=after, limit=limit)
        return Page(
            [*page.items, Undecodable("spoilt", "of a version to come", 99, b"")], page.next
        )


# -- retention


class SteppedClock:
    """The machine's, to which some time is added."""

    def __init__(self) -> None:
        self.ahead = timedelta(0)

    def now(self) -> datetime:
        return datetime.now(UTC) + self.ahead

    def elapsed(self) -> float:
        return time.monotonic()

    async def sleep_until(self, moment: datetime) -> None:
        while (before := self.now()) < moment:
            await anyio.sleep(min((moment - before).total_seconds(), 0.01))
            if self.now() < before:
                return


def test_a_clock_that_is_far_ahead_for_a_moment_deletes_nothing(
    loop: str, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sched_core._runtime.maintenance.RETENTION_BEGINS", seconds(0.2))
    pruned = threading.Event()

    async def main() -> None:
        clock, backend = SteppedClock(), make()
        prune = backend.prune

        async def noted(before: datetime) -> int:
            deleted = int(await prune(before))
            pruned.set()
            return deleted

        backend.prune = noted
        async with running(backend, lambda event: None, clock=clock) as scheduler:
            await scheduler.submit_job("a", Once(clock.now()))
            await wait_for_executions(scheduler, 1)
            await until(pruned.is_set)
            clock.ahead = timedelta(days=40)
            await anyio.sleep(0.5)
            clock.ahead = timedelta(0)
            assert [execution.job_id for execution in await wait_for_executions(scheduler, 1)] == [
                "a"
            ]
            assert [job.id async for job in scheduler.list_jobs()] == ["a"]

    run(loop, main)


def test_a_clock_that_is_far_ahead_when_retention_begins_deletes_nothing(
    loop: str, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sched_core._runtime.maintenance.RETENTION_BEGINS", seconds(0.2))

    async def main() -> None:
        clock = SteppedClock()
        async with running(make(), lambda event: None, clock=clock) as scheduler:
            await scheduler.submit_job("a", Once(clock.now()))
            await wait_for_executions(scheduler, 1)
            clock.ahead = timedelta(days=40)
            await anyio.sleep(0.5)
            assert [job.id async for job in scheduler.list_jobs()] == ["a"]

    run(loop, main)
