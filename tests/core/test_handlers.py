"""Handlers of every kind, and every way in which they end or refuse to."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextvars import ContextVar
from datetime import timedelta
from pathlib import Path
from typing import Any

import anyio
import anyio.from_thread
import anyio.lowlevel
import attrs
import pytest
from tests.core.running import (
    Faulty,
    Make,
    at_once,
    executions_of,
    gate,
    outlive,
    run,
    running,
    seconds,
    statuses,
    until,
    wait_for_executions,
)

from sched_core import (
    BackendUnavailable,
    Claimed,
    HandlerNotSet,
    Interval,
    JobEvent,
    JobRouter,
    JobSpec,
    MemoryBackend,
    NoRoute,
    Once,
    Policy,
    Retry,
    Room,
    Scheduler,
    Status,
)
from sched_core.testing import FakeClock

# -- kinds of handlers -------------------------------------------------------


class Callee:
    """Handlers of every kind that note what they were called with, and in which thread."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, bool]] = []

    def note(self, event: JobEvent) -> None:
        self.seen.append((event.id, threading.current_thread() is threading.main_thread()))

    async def method(self, event: JobEvent) -> None:
        self.note(event)

    async def extra(self, number: int, event: JobEvent, *, word: str) -> None:
        assert (number, word) == (1, "two")
        self.note(event)

    async def __call__(self, event: JobEvent) -> None:
        self.note(event)


class SyncCallee(Callee):
    def __call__(self, event: JobEvent) -> None:  # type: ignore[override]
        self.note(event)


def returning(function: Callable[[JobEvent], Any]) -> Callable[[JobEvent], Any]:
    """Return a lambda around a function, which hides whether that is a coroutine function."""
    return lambda event: function(event)  # noqa: PLW0108 -- that is the point


def kinds() -> dict[str, tuple[Callable[[Callee], Any], bool]]:
    """Return handlers by name, and whether they run in the loop's thread."""
    return {
        "async function": (lambda callee: callee.method, True),
        "partial of an async function": (
            lambda callee: functools.partial(callee.extra, 1, word="two"),
            True,
        ),
        "partial of a partial": (
            lambda callee: functools.partial(functools.partial(callee.extra, 1), word="two"),
            True,
        ),
        "object with async __call__": (lambda callee: callee, True),
        "sync function": (lambda callee: callee.note, False),
        "partial of a sync function": (lambda callee: functools.partial(callee.note), False),
        "lambda that returns a coroutine": (lambda callee: returning(callee.method), True),
        "lambda": (lambda callee: returning(callee.note), False),
    }


@pytest.mark.parametrize("kind", kinds())
def test_every_kind_of_handler_runs_where_it_belongs(kind: str, loop: str) -> None:
    build, in_loop = kinds()[kind]

    async def main() -> None:
        callee = Callee()
        async with running(MemoryBackend(), build(callee)) as scheduler:
            await scheduler.submit_job("a", at_once())
            assert [execution.status for execution in await wait_for_executions(scheduler, 1)] == [
                Status.SUCCEEDED
            ]
        assert callee.seen == [("a", in_loop)]

    run(loop, main)


def test_a_sync_callable_object_runs_in_a_thread(loop: str) -> None:
    async def main() -> None:
        callee = SyncCallee()
        async with running(MemoryBackend(), callee) as scheduler:
            await scheduler.submit_job("a", at_once())
            await wait_for_executions(scheduler, 1)
        assert callee.seen == [("a", False)]

    run(loop, main)


def test_a_sync_handler_can_call_the_scheduler_and_start_a_loop_of_its_own(loop: str) -> None:
    async def main() -> None:
        done: list[str] = []

        async def other() -> str:
            await anyio.lowlevel.checkpoint()
            return "other loop"

        def handler(event: JobEvent) -> None:
            if event.id == "a":
                anyio.from_thread.run(scheduler.submit_job, "b", at_once())
            done.append(f"{event.id} {anyio.run(other)}")

        async with running(MemoryBackend(), handler) as scheduler:
            await scheduler.submit_job("a", at_once())
            executions = await wait_for_executions(scheduler, 2)
        assert {execution.status for execution in executions} == {Status.SUCCEEDED}
        assert sorted(done) == ["a other loop", "b other loop"]

    run(loop, main)


def test_the_handler_may_change_from_sync_to_async_while_one_runs(loop: str) -> None:
    """What runs in a thread goes on there, and is neither cancelled nor settled before it ends."""

    async def main() -> None:
        with gate() as let_go:
            events: list[JobEvent] = []

            def slow(event: JobEvent) -> None:
                events.append(event)
                let_go.wait()

            async def quick(event: JobEvent) -> None:
                pass

            async with running(MemoryBackend(), slow) as scheduler:
                await scheduler.submit_job("slow", at_once(), policy=Policy(timeout=seconds(0.05)))
                await until(lambda: events)
                scheduler.set_handler(quick)
                await scheduler.submit_job("quick", at_once())
                await wait_for_executions(scheduler, 1, "quick")
                await until(lambda: events[0].cancelled)
                await anyio.sleep(0.05)
                assert await executions_of(scheduler, "slow") == []
                let_go.set()
                (execution,) = await wait_for_executions(scheduler, 1, "slow")
                assert execution.status is Status.FAILED

    run(loop, main)


# -- ends --------------------------------------------------------------------


def ends() -> dict[str, tuple[BaseException, str]]:
    return {
        "exception": (ValueError("no"), "ValueError: no"),
        "without text": (KeyError(), "KeyError"),
        "group": (ExceptionGroup("two", [ValueError("a"), OSError("b")]), "ExceptionGroup: two"),
        "base group": (
            BaseExceptionGroup("exits", [SystemExit(1)]),
            "BaseExceptionGroup: exits",
        ),
        "SystemExit": (SystemExit(3), "SystemExit: 3"),
        "StopIteration": (StopIteration("s"), "RuntimeError"),  # so coroutines are defined
        "GeneratorExit": (GeneratorExit("g"), "GeneratorExit: g"),
        "CancelledError": (asyncio.CancelledError("c"), "CancelledError: c"),
    }


@pytest.mark.parametrize("fails", [False, True], ids=["returns", "raises"])
def test_a_child_that_a_handler_forks_ends_with_the_handler(fails: bool) -> None:
    """It would wait in the thread without end, and so would its caller."""
    text = f"""
import os
from datetime import UTC, datetime
import anyio
from sched_core import MemoryBackend, Once, Scheduler

def handler(event):
    child = os.fork()
    if child:
        print("the child ended with", os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    elif {fails}:
        raise RuntimeError("in the child")

async def main():
    async with Scheduler(MemoryBackend(), handler=handler) as scheduler:
        await scheduler.submit_job("forks", Once(datetime.now(UTC)))
        await scheduler.run_due()
        async for execution in scheduler.list_executions():
            print(execution.status.value)

anyio.run(main)
"""
    done = subprocess.run(
        [sys.executable, "-W", "ignore::DeprecationWarning", "-c", text],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stdout.split("\n")[:2] == [f"the child ended with {int(fails)}", "succeeded"]
    assert ("in the child" in done.stderr) is fails


@pytest.mark.parametrize("routed", [False, True], ids=["handler", "router"])
@pytest.mark.parametrize("kind", ["generator", "async generator"])
def test_a_handler_with_a_yield_in_it_has_not_succeeded(kind: str, routed: bool, loop: str) -> None:
    """Nothing of its body would ever run."""

    def generator(event: JobEvent) -> Any:
        yield event

    async def async_generator(event: JobEvent) -> Any:
        yield event

    handler: Any = generator if kind == "generator" else async_generator
    router = JobRouter()
    router.route("bad")(handler)

    async def main() -> None:
        async with running(MemoryBackend(), router if routed else handler) as scheduler:
            await scheduler.submit_job("bad", at_once())
            (execution,) = await wait_for_executions(scheduler, 1)
            assert execution.status is Status.FAILED
            assert "generator is a generator, and nothing of it has run" in (execution.reason or "")

    run(loop, main)


@pytest.mark.parametrize("how", ["sync", "async"])
@pytest.mark.parametrize("end", ends())
def test_whatever_a_handler_raises_is_a_failure(
    end: str, how: str, loop: str, make: Make, caplog: pytest.LogCaptureFixture
) -> None:
    error, reason = ends()[end]

    def sync(event: JobEvent) -> None:
        if event.id == "bad":
            raise error

    async def handler(event: JobEvent) -> None:
        await anyio.lowlevel.checkpoint()
        sync(event)

    async def main() -> None:
        async with running(make(), sync if how == "sync" else handler) as scheduler:
            await scheduler.submit_job("bad", at_once())
            (execution,) = await wait_for_executions(scheduler, 1)
            assert execution.status is Status.FAILED
            assert execution.final
            assert (execution.reason or "").startswith(reason)
            # and the scheduler is alive
            await scheduler.submit_jobs([JobSpec(f"good-{n}", at_once()) for n in range(3)])
            executions = await wait_for_executions(scheduler, 4)
            assert [each.status for each in executions[1:]] == [Status.SUCCEEDED] * 3
            health = await scheduler.health()
            assert health.healthy
            assert (health.executing, health.completed) == (0, 4)

    run(loop, main)
    assert any("job 'bad' failed" in record.getMessage() for record in caplog.records)


def test_a_reason_that_no_store_can_keep(
    loop: str, make: Make, caplog: pytest.LogCaptureFixture
) -> None:
    async def handler(event: JobEvent) -> None:
        raise ValueError("a\0b\ud800c")

    async def main() -> None:
        async with running(make(), handler) as scheduler:
            await scheduler.submit_job("a", at_once())
            (execution,) = await wait_for_executions(scheduler, 1)
            assert execution.reason == "ValueError: a\ufffdb\ufffdc"

    with caplog.at_level(logging.CRITICAL, logger="sched_core"):  # xdist cannot report it either
        run(loop, main)


def test_a_failure_is_tried_again_and_then_final(loop: str) -> None:
    attempts: list[int] = []

    async def handler(event: JobEvent) -> None:
        attempts.append(event.attempt)
        raise ValueError(str(event.attempt))

    async def main() -> None:
        async with running(MemoryBackend(), handler) as scheduler:
            policy = Policy(retry=Retry(attempts=3, backoff=seconds(0.02)))
            await scheduler.submit_job("a", at_once(), policy=policy)
            executions = await wait_for_executions(scheduler, 3)
            assert [(execution.attempt, execution.final) for execution in executions] == [
                (1, False),
                (2, False),
                (3, True),
            ]
            assert len({execution.token for execution in executions}) == 3

    run(loop, main)
    assert attempts == [1, 2, 3]


@pytest.mark.parametrize("threaded", [False, True])
def test_awaiting_what_was_cancelled_elsewhere_is_a_failure_and_not_a_hang(threaded: bool) -> None:
    async def handler(event: JobEvent) -> None:
        if event.id == "bad":
            future = asyncio.get_running_loop().create_future()
            future.cancel()
            await future

    async def main() -> None:
        use = returning(handler) if threaded else handler
        async with running(MemoryBackend(), use) as scheduler:
            await scheduler.submit_job("bad", at_once())
            (execution,) = await wait_for_executions(scheduler, 1)
            assert execution.status is Status.FAILED
            assert (execution.reason or "").startswith("CancelledError")
            await scheduler.submit_job("good", at_once())
            assert (await wait_for_executions(scheduler, 2))[1].status is Status.SUCCEEDED

    run("asyncio", main)


def test_a_handler_that_cancels_its_own_task_has_failed_and_harms_no_other() -> None:
    async def handler(event: JobEvent) -> None:
        if event.id == "bad":
            task = asyncio.current_task()
            assert task is not None
            task.cancel()
        await anyio.sleep(0.05)

    async def main() -> None:
        async with running(MemoryBackend(), handler, max_concurrency=1) as scheduler:
            for n in range(3):
                await scheduler.submit_jobs(
                    [
                        JobSpec(f"{name}-{n}" if name == "good" else "bad", at_once())
                        for name in ("bad", "good")
                    ]
                )
                await wait_for_executions(scheduler, 2 * n + 2)
                await scheduler.remove_job("bad")
            executions = await executions_of(scheduler)
            assert {execution.job_id: execution.status for execution in executions} == {
                "bad": Status.FAILED,
                "good-0": Status.SUCCEEDED,
                "good-1": Status.SUCCEEDED,
                "good-2": Status.SUCCEEDED,
            }
            assert scheduler.is_running

    run("asyncio", main)


# -- timeouts ----------------------------------------------------------------


def test_a_timeout_cancels_an_async_handler(loop: str, make: Make) -> None:
    cancelled: list[str] = []

    async def handler(event: JobEvent) -> None:
        try:
            await anyio.sleep(60)
        except anyio.get_cancelled_exc_class():
            cancelled.append(event.id)
            assert event.cancelled
            raise

    async def main() -> None:
        async with running(make(), handler) as scheduler:
            began = time.monotonic()
            specs = [
                JobSpec(f"{n}", at_once(), policy=Policy(timeout=seconds(0.1))) for n in range(5)
            ]
            await scheduler.submit_jobs(specs)
            executions = await wait_for_executions(scheduler, 5)
            assert time.monotonic() - began < 5
            assert [execution.status for execution in executions] == [Status.FAILED] * 5
            assert {execution.reason for execution in executions} == {
                "timeout: cancelled after 0:00:00.100000"
            }
            await scheduler.submit_job("again", at_once(), policy=Policy(timeout=seconds(0.1)))
            assert (await wait_for_executions(scheduler, 6))[5].status is Status.FAILED

    run(loop, main)
    assert sorted(cancelled) == ["0", "1", "2", "3", "4", "again"]


def test_a_timeout_inside_a_handler_with_a_task_group(loop: str) -> None:
    async def handler(event: JobEvent) -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(anyio.sleep, 60)
            tasks.start_soon(anyio.sleep, 60)

    async def main() -> None:
        async with running(MemoryBackend(), handler) as scheduler:
            policy = Policy(timeout=seconds(0.05), retry=Retry(attempts=2, backoff=timedelta(0)))
            await scheduler.submit_job("a", at_once(), policy=policy)
            executions = await wait_for_executions(scheduler, 2)
            assert [
                (execution.status, execution.attempt, execution.final) for execution in executions
            ] == [
                (Status.FAILED, 1, False),
                (Status.FAILED, 2, True),
            ]
            assert all((execution.reason or "").startswith("timeout") for execution in executions)

    run(loop, main)


def test_a_timeout_that_does_not_come_changes_nothing(loop: str) -> None:
    async def handler(event: JobEvent) -> None:
        await anyio.sleep(0.01)

    async def main() -> None:
        async with running(MemoryBackend(), handler, max_concurrency=2) as scheduler:
            policy = Policy(timeout=seconds(0.3))
            specs = [JobSpec(f"{n}", at_once(), policy=policy) for n in range(20)]
            await scheduler.submit_jobs(specs)
            await wait_for_executions(scheduler, 20)
            await anyio.sleep(0.4)
            assert await statuses(scheduler) == [Status.SUCCEEDED] * 20

    run(loop, main)


@pytest.mark.parametrize("ending", ["returns", "raises"])
def test_a_coroutine_that_swallows_its_timeout_keeps_its_claim_until_it_ends(
    ending: str, loop: str, make: Make
) -> None:
    clock = FakeClock()
    runs: list[int] = []

    async def main() -> None:
        let_go, backend = anyio.Event(), Faulty(make())

        async def handler(event: JobEvent) -> None:
            runs.append(event.attempt)
            while not let_go.is_set():
                try:
                    await let_go.wait()
                except anyio.get_cancelled_exc_class():
                    with anyio.CancelScope(shield=True):
                        await let_go.wait()
            if ending == "raises":
                raise ValueError("late")

        async with running(backend, handler, clock=clock) as scheduler:
            policy = Policy(timeout=seconds(1))
            await scheduler.submit_job("a", Once(clock.now()), policy=policy)
            await until(lambda: runs)
            async with running(make(), handler, clock=clock):  # takes what is not renewed
                try:
                    await outlive(4, clock, backend)
                    assert runs == [1]
                    assert await executions_of(scheduler) == []
                finally:
                    let_go.set()
                (execution,) = await wait_for_executions(scheduler, 1)
            assert (execution.status, execution.attempt, execution.final) == (
                Status.FAILED,
                1,
                True,
            )
            assert (execution.reason or "").startswith("timeout")

    run(loop, main)
    assert runs == [1]


def test_a_sync_handler_is_told_of_its_timeout_and_keeps_its_claim(loop: str, make: Make) -> None:
    clock, told = FakeClock(), list[bool]()
    begun = threading.Event()

    async def main() -> None:
        backend = Faulty(make())
        with gate() as let_go:

            def handler(event: JobEvent) -> None:
                begun.set()
                while not event.cancelled and not let_go.wait(0.005):
                    pass
                told.append(event.cancelled)
                let_go.wait()

            async with running(backend, handler, clock=clock) as scheduler:
                policy = Policy(timeout=seconds(1))
                await scheduler.submit_job("a", Once(clock.now()), policy=policy)
                await until(begun.is_set)
                async with running(make(), handler, clock=clock):  # takes what is not renewed
                    await outlive(3, clock, backend)
                    await until(lambda: told)
                    assert await executions_of(scheduler) == []
                    let_go.set()
                    (execution,) = await wait_for_executions(scheduler, 1)
                assert (execution.status, execution.attempt, execution.final) == (
                    Status.FAILED,
                    1,
                    True,
                )
                assert (execution.reason or "").startswith("timeout")

    run(loop, main)
    assert told == [True]


def test_a_run_that_timed_out_before_the_stop_failed_and_was_not_interrupted(loop: str) -> None:
    async def main() -> None:
        with gate() as let_go:
            events: list[JobEvent] = []

            def handler(event: JobEvent) -> None:
                events.append(event)
                let_go.wait()

            backend = MemoryBackend()
            async with running(backend, handler) as scheduler:
                await scheduler.submit_job("a", at_once(), policy=Policy(timeout=seconds(0.05)))
                await until(lambda: events and events[0].cancelled)
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(scheduler.stop, 0)
                    await anyio.sleep(0.1)
                    let_go.set()
                (execution,) = await executions_of(scheduler)
                assert (execution.status, execution.final) == (Status.FAILED, True)

    run(loop, main)


def test_many_timeouts_of_one_moment_do_not_stumble_over_each_other(loop: str) -> None:
    """Equal deadlines, and tokens that are equal too: they only have to grow for one id."""

    class SameToken(Faulty):
        async def claim_due(self, room: Room) -> Any:
            claims = (await self.backend.claim_due(room)).claims
            self.tokens = {c.job.id: c.token for c in claims} | getattr(self, "tokens", {})
            return Claimed([attrs.evolve(claim, token=1) for claim in claims])

        async def settle(self, settlements: Any) -> Any:
            return await self.backend.settle(
                [
                    attrs.evolve(
                        each,
                        claim=attrs.evolve(each.claim, token=self.tokens[each.claim.job.id]),
                    )
                    for each in settlements
                ]
            )

    async def main() -> None:
        clock = FakeClock()

        async def handler(event: JobEvent) -> None:
            await anyio.sleep(60)

        async with running(SameToken(MemoryBackend()), handler, clock=clock) as scheduler:
            policy = Policy(timeout=seconds(1))
            specs = [JobSpec(f"{n}", Once(clock.now()), policy=policy) for n in range(9)]
            await scheduler.submit_jobs(specs)

            async def executing() -> bool:
                return (await scheduler.health()).executing == 9

            await until(executing)
            await anyio.wait_all_tasks_blocked()
            clock.advance(seconds(2))
            assert [execution.status for execution in await wait_for_executions(scheduler, 9)] == [
                Status.FAILED
            ] * 9

    run(loop, main)


# -- handlers that block -----------------------------------------------------


def test_a_handler_that_blocks_the_loop_past_its_lease(loop: str, make: Make) -> None:
    lease = 0.3
    runs: list[tuple[str, int]] = []

    async def handler(event: JobEvent) -> None:
        runs.append((event.id, event.attempt))
        if event.id == "blocks":
            time.sleep(4 * lease)  # noqa: ASYNC251 -- that is the point
        else:
            await anyio.sleep(0.05)

    async def main() -> None:
        async with running(make(lease), handler) as scheduler:
            await scheduler.submit_jobs([JobSpec(each, at_once()) for each in ("blocks", "other")])
            executions = await wait_for_executions(scheduler, 2)
            await scheduler.submit_job("after", at_once())
            await wait_for_executions(scheduler, 3)
            await anyio.sleep(lease)
            executions = await executions_of(scheduler)
            assert sorted(
                (execution.job_id, execution.status.value, execution.attempt)
                for execution in executions
            ) == [
                ("after", "succeeded", 1),
                ("blocks", "succeeded", 1),
                ("other", "succeeded", 1),
            ]
            assert (await scheduler.health()).healthy

    run(loop, main)
    assert sorted(runs) == [("after", 1), ("blocks", 1), ("other", 1)]


def test_forty_slow_sync_handlers_at_once_hold_up_nothing(loop: str, make: Make) -> None:
    """Claims, settlements and other users of threads do not wait for it."""

    async def main() -> None:
        with gate() as let_go:
            lock, slow, most = threading.Lock(), 0, 0

            def handler(event: JobEvent) -> None:
                nonlocal slow, most
                if event.id.startswith("slow"):
                    with lock:
                        slow += 1
                        most = max(most, slow)
                    let_go.wait()
                    with lock:
                        slow -= 1

            async with running(make(), handler) as scheduler:
                await scheduler.submit_jobs([JobSpec(f"slow-{n}", at_once()) for n in range(40)])
                await until(lambda: slow == 40)
                for round_ in range(5):
                    await scheduler.submit_jobs(
                        [JobSpec(f"quick-{round_}-{n}", at_once()) for n in range(20)]
                    )
                    executions = await wait_for_executions(scheduler, 20 * (round_ + 1))
                    assert {execution.status for execution in executions} == {Status.SUCCEEDED}
                assert await anyio.to_thread.run_sync(lambda: 1) == 1
                assert slow == most == 40
                let_go.set()
                executions = await wait_for_executions(scheduler, 140)
                assert {execution.status for execution in executions} == {Status.SUCCEEDED}
                assert len({execution.job_id for execution in executions}) == 140

    run(loop, main)


def test_one_slow_handler_does_not_delay_the_others(loop: str) -> None:
    async def main() -> None:
        async def handler(event: JobEvent) -> None:
            if event.id == "slow":
                await anyio.sleep(30)

        async with running(MemoryBackend(), handler, max_concurrency=2, grace=0) as scheduler:
            await scheduler.submit_job("slow", at_once())
            began = time.monotonic()
            for n in range(50):
                await scheduler.submit_job(f"quick-{n}", at_once())
            executions = await wait_for_executions(scheduler, 50)
            assert time.monotonic() - began < 5
            assert all(execution.job_id.startswith("quick") for execution in executions)

    run(loop, main)


@pytest.mark.parametrize("how", ["sync", "async"])
def test_no_more_handlers_at_a_time_than_max_concurrency(how: str, loop: str, make: Make) -> None:
    lock, now, most = threading.Lock(), 0, 0

    def enter(by: int) -> None:
        nonlocal now, most
        with lock:
            now += by
            most = max(most, now)

    def sync(event: JobEvent) -> None:
        enter(1)
        time.sleep(0.01)
        enter(-1)

    async def handler(event: JobEvent) -> None:
        enter(1)
        await anyio.sleep(0.01)
        enter(-1)

    async def main() -> None:
        use = sync if how == "sync" else handler
        async with running(make(), use, max_concurrency=3) as scheduler:
            await scheduler.submit_jobs([JobSpec(f"{n}", at_once()) for n in range(40)])
            executions = await wait_for_executions(scheduler, 40)
            assert {execution.status for execution in executions} == {Status.SUCCEEDED}

    run(loop, main)
    assert most == 3


@pytest.mark.parametrize(("workers", "lease", "length"), [(2, 30, 0.07), (1, 0.2, 0.3)])
def test_one_job_never_runs_twice_at_a_time(
    workers: int, lease: float, length: float, loop: str, make: Make
) -> None:
    """Also where its runs take longer than its period; one worker even where its leases end."""
    lock, inside, overlaps, runs = threading.Lock(), set[str](), 0, 0

    def handler(event: JobEvent) -> None:
        nonlocal overlaps, runs
        with lock:
            runs += 1
            overlaps += event.id in inside
            inside.add(event.id)
        time.sleep(length)
        with lock:
            inside.discard(event.id)

    async def main() -> None:
        async with contextlib.AsyncExitStack() as stack:
            scheduler, *_ = [
                await stack.enter_async_context(running(make(lease), handler))
                for _ in range(workers)
            ]
            for n in range(4):
                await scheduler.ensure_job(f"{n}", Interval(seconds(0.02)))
            began = time.monotonic()
            while runs < 20 or time.monotonic() < began + 1:
                for n in range(4):
                    await scheduler.trigger_job(f"{n}")
                await anyio.sleep(0.05)
            for n in range(4):
                await scheduler.remove_job(f"{n}")

    run(loop, main)
    assert runs >= 20
    assert overlaps == 0


# -- context variables -------------------------------------------------------


REQUEST = ContextVar("request", default="clean")


@pytest.mark.parametrize("ending", ["returns", "raises", "is cancelled"])
@pytest.mark.parametrize("kind", ["async", "sync"])
def test_what_a_handler_leaves_in_context_variables_no_other_job_finds(
    kind: str, ending: str, loop: str, make: Make
) -> None:
    found: dict[str, str] = {}

    def note(event: JobEvent) -> None:
        found[event.id] = REQUEST.get()
        REQUEST.set(f"left by {event.id}")
        if ending == "raises":
            raise ValueError("on purpose")

    async def handler(event: JobEvent) -> None:
        note(event)
        if ending == "is cancelled":
            await anyio.sleep_forever()

    async def main() -> None:
        REQUEST.set("of the host")
        policy = Policy(timeout=seconds(0.05))
        async with running(
            make(), handler if kind == "async" else note, max_concurrency=1
        ) as scheduler:
            for job_id in "abc":
                await scheduler.submit_job(job_id, at_once(), policy=policy)
            await wait_for_executions(scheduler, 3)

    run(loop, main)
    assert found == dict.fromkeys("abc", "of the host")


# -- handlers that never end -------------------------------------------------


@pytest.mark.usefixtures("short_flush")
def test_stop_does_not_wait_for_a_thread_that_never_returns(loop: str, make: Make) -> None:
    async def main() -> None:
        with gate() as let_go:
            begun = threading.Event()

            def handler(event: JobEvent) -> None:
                if event.id == "hangs":
                    begun.set()
                    let_go.wait()

            backend = make(60)
            async with running(backend, handler) as scheduler:
                await scheduler.submit_jobs([JobSpec(n, at_once()) for n in ("hangs", "ends")])
                await until(begun.is_set)
                await wait_for_executions(scheduler, 1, "ends")
                began = time.monotonic()
                await scheduler.stop(0.2)
                assert time.monotonic() - began < 5
                assert not scheduler.is_running
                assert await executions_of(scheduler, "hangs") == []
                # Its lease has to end: no worker gets it before that.
                job = await scheduler.get_job("hangs")
                assert (job.held, job.standing.find(1)) == (1, job.standing.scheduled)
                async with running(make(60), handler) as other:
                    await other.submit_job("other", at_once())
                    await wait_for_executions(other, 1, "other")
                    assert await executions_of(other, "hangs") == []
                let_go.set()
                await anyio.sleep(0.1)
                assert await executions_of(scheduler, "hangs") == []

    run(loop, main)


@pytest.mark.usefixtures("short_flush")
def test_stop_does_not_wait_for_a_coroutine_that_swallows_every_cancellation(
    loop: str, make: Make, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        let_go = anyio.Event()
        begun = anyio.Event()

        async def handler(event: JobEvent) -> None:
            if event.id == "hangs":
                begun.set()
                while not let_go.is_set():
                    try:
                        await anyio.sleep(0.01)
                    except anyio.get_cancelled_exc_class():
                        with anyio.CancelScope(shield=True):
                            await anyio.sleep(0.01)

        async with running(make(60), handler) as scheduler:
            await scheduler.submit_jobs([JobSpec(n, at_once()) for n in ("hangs", "ends")])
            await begun.wait()
            await wait_for_executions(scheduler, 1, "ends")
            began = time.monotonic()
            await scheduler.stop(0.2)
            assert time.monotonic() - began < 5
            assert await executions_of(scheduler, "hangs") == []
            let_go.set()  # only now can run_forever return: a task group waits for its tasks
            await anyio.sleep(0.1)
            assert await executions_of(scheduler, "hangs") == []
            await scheduler.submit_job("again", at_once())
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(lambda: scheduler.run_forever(signals=False))
                await wait_for_executions(scheduler, 1, "again")
                await scheduler.stop()

    with caplog.at_level(logging.ERROR):
        run(loop, main)
    assert any("hangs" in record.getMessage() for record in caplog.records)


HANGING_PROCESS = """
import sys, threading, anyio
from datetime import datetime, timezone
from sched_core import Scheduler, Once, Policy, MemoryBackend
from sched_core._runtime import shutdown
from sched_sql import SqlBackend

shutdown.FLUSH = 0.5
begun = threading.Event()

def handler(event):
    begun.set()
    threading.Event().wait()

async def main():
    backend = SqlBackend("sqlite:///" + sys.argv[2]) if len(sys.argv) > 2 else MemoryBackend()
    async with Scheduler(backend, handler=handler) as scheduler:
        await scheduler.submit_job("hangs", Once(datetime.now(timezone.utc)))
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(scheduler.run_forever)
            while not begun.is_set():
                await anyio.sleep(0.01)
            await scheduler.stop(0)
    print("stopped", flush=True)

anyio.run(main, backend=sys.argv[1])
"""


@pytest.mark.parametrize("store", ["memory", "sqlite"])
def test_the_process_ends_although_a_sync_handler_hangs(
    loop: str, store: str, tmp_path: Path
) -> None:
    arguments = [sys.executable, "-c", HANGING_PROCESS, loop]
    if store == "sqlite":
        arguments.append(str(tmp_path / "jobs.db"))
    done = subprocess.run(arguments, capture_output=True, text=True, timeout=30, check=False)
    assert (done.returncode, done.stdout) == (0, "stopped\n"), done.stderr


# -- without a handler, without a route --------------------------------------


def test_without_a_handler_nothing_is_claimed_and_health_says_so(loop: str, make: Make) -> None:
    async def main() -> None:
        ran: list[str] = []

        async def handler(event: JobEvent) -> None:
            ran.append(event.id)

        async with running(make(), None) as scheduler:
            await scheduler.submit_job("a", at_once())
            await anyio.sleep(0.1)
            health = await scheduler.health()
            assert not health.healthy
            assert health.unsettled == 0
            assert any("no handler" in problem for problem in health.problems)
            assert await executions_of(scheduler) == []
            scheduler.set_handler(handler)
            (execution,) = await wait_for_executions(scheduler, 1)
            assert (execution.status, execution.attempt) == (Status.SUCCEEDED, 1)
            assert (await scheduler.health()).healthy
        assert ran == ["a"]

    run(loop, main)


def test_run_due_without_a_handler(loop: str) -> None:
    async def main() -> None:
        async with Scheduler(MemoryBackend()) as scheduler:
            with pytest.raises(HandlerNotSet):
                await scheduler.run_due()

    run(loop, main)


def test_a_job_without_a_route_is_postponed_and_leaves_no_line(loop: str, make: Make) -> None:
    async def main() -> None:
        tries: list[int] = []
        routed = False

        async def handler(event: JobEvent) -> None:
            tries.append(event.attempt)
            if not routed:
                raise NoRoute("not here", delay=0.1)

        async with running(make(), handler) as scheduler:
            await scheduler.submit_job("a", at_once())
            await until(lambda: len(tries) >= 2)
            assert await executions_of(scheduler) == []
            routed = True
            (execution,) = await wait_for_executions(scheduler, 1)
            assert (execution.status, execution.attempt, execution.final) == (
                Status.SUCCEEDED,
                1,
                True,
            )
        assert set(tries) == {1}

    run(loop, main)


@pytest.mark.parametrize("delay", [1e300, float("nan"), float("inf"), -1.0])
def test_an_absurd_delay_of_no_route_is_no_success_and_no_crash(delay: float) -> None:
    async def main() -> None:
        tries: list[str] = []

        async def handler(event: JobEvent) -> None:
            tries.append(event.id)
            if event.id == "a":
                raise NoRoute(delay=delay)

        async with running(MemoryBackend(), handler) as scheduler:
            await scheduler.submit_job("a", at_once())
            await until(lambda: "a" in tries)
            await scheduler.submit_job("b", at_once())
            await wait_for_executions(scheduler, 1)
            assert [execution.job_id for execution in await executions_of(scheduler)] == ["b"]
            assert scheduler.is_running

    run("asyncio", main)


# -- lost claims -------------------------------------------------------------


@pytest.mark.parametrize("how", ["fails", "hangs"])
@pytest.mark.parametrize("kind", ["sync", "async"])
def test_a_claim_that_cannot_be_renewed_is_given_up_and_writes_nothing(
    kind: str, how: str, loop: str, make: Make
) -> None:
    """The successor runs; the worker that lost the claim cancels its handler by the lease's end."""
    lease = 0.5

    async def main() -> None:
        with gate() as let_go:
            log: list[str] = []
            ended: dict[str, float] = {}

            def told(name: str, event: JobEvent) -> None:
                log.append(f"{name} {event.attempt}")
                while name == "first" and not event.cancelled and not let_go.wait(0.01):
                    pass
                ended[name] = time.monotonic()

            async def cancelled(name: str, event: JobEvent) -> None:
                log.append(f"{name} {event.attempt}")
                try:
                    if name == "first":
                        await anyio.sleep(30)
                finally:
                    ended[name] = time.monotonic()

            def handler(name: str) -> Any:
                return functools.partial(told if kind == "sync" else cancelled, name)

            backend = Faulty(make(lease))
            async with running(backend, handler("first")) as first:
                if how == "fails":
                    backend.failures["renew"] = BackendUnavailable("cut off")
                else:
                    backend.hangs.add("renew")
                await first.submit_job("a", at_once())
                await until(lambda: log)
                backend.failures["claim_due"] = backend.failures["wait_due"] = OSError("cut off")
                backend.failures["settle"] = BackendUnavailable("cut off")
                async with running(make(lease), handler("second")) as second:
                    executions = await wait_for_executions(second, 2)
                    await until(lambda: "first" in ended)
                    assert ended["first"] < ended["second"] + lease / 2
                    backend.failures.clear()
                    backend.hangs.clear()
                    await anyio.sleep(lease)
                    assert await executions_of(second) == executions
                assert [
                    (execution.status, execution.attempt, execution.final)
                    for execution in executions
                ] == [
                    (Status.ABANDONED, 1, False),
                    (Status.SUCCEEDED, 2, True),
                ]
                assert executions[0].token < executions[1].token
                health = await first.health()
                assert (health.claims_lost, health.unsettled, health.executing) == (1, 0, 0)
            assert log == ["first 1", "second 2"]

    run(loop, main)


def test_its_own_lost_claim_waits_for_the_handler_that_still_runs(loop: str, make: Make) -> None:
    """One worker alone: renewals fail, the lease ends, the job comes back. One at a time."""
    lease = 0.3

    async def main() -> None:
        with gate() as let_go:
            lock, inside, most, attempts = threading.Lock(), 0, 0, list[int]()

            def handler(event: JobEvent) -> None:
                nonlocal inside, most
                with lock:
                    inside += 1
                    most = max(most, inside)
                    attempts.append(event.attempt)
                if event.attempt == 1:
                    let_go.wait()
                with lock:
                    inside -= 1

            backend = Faulty(make(lease))
            async with running(backend, handler) as scheduler:
                backend.failures["renew"] = BackendUnavailable("no")
                await scheduler.submit_job("a", at_once())
                await until(lambda: attempts)
                await wait_for_executions(
                    scheduler, 1
                )  # abandoned: by the same worker's next claim
                await anyio.sleep(lease)
                assert attempts == [1]
                backend.failures.clear()
                let_go.set()

                async def done() -> bool:
                    return any(execution.final for execution in await executions_of(scheduler))

                await until(done)
                executions = await executions_of(scheduler)
                assert [execution.status for execution in executions[:-1]] == [Status.ABANDONED] * (
                    len(executions) - 1
                )
                assert executions[-1].status is Status.SUCCEEDED
            assert most == 1

    run(loop, main)


def test_a_settle_that_comes_too_late_is_refused(loop: str, make: Make) -> None:
    lease = 0.3

    async def main() -> None:
        async def handler(event: JobEvent) -> None:
            pass

        backend = Faulty(make(lease))
        async with running(backend, handler) as first:
            for each in ("settle", "renew"):
                backend.failures[each] = BackendUnavailable("cut off")
            await first.submit_job("a", at_once())
            await until(lambda: backend.calls.get("settle"))
            backend.failures["claim_due"] = backend.failures["wait_due"] = OSError("cut off")
            async with running(make(lease), handler) as second:
                executions = await wait_for_executions(second, 2)
                backend.failures.clear()

                async def lost() -> bool:
                    return (await first.health()).claims_lost == 1

                await until(lost, within=30)
                assert await executions_of(second) == executions
                assert [execution.status for execution in executions] == [
                    Status.ABANDONED,
                    Status.SUCCEEDED,
                ]

    run(loop, main)
