"""Cancellations that reach a task of the scheduler by mistake end nothing, and hit no other job."""

from __future__ import annotations

import asyncio
import inspect
import threading
import weakref
from collections.abc import Callable
from typing import Any

import anyio
import pytest
from tests.core.running import (
    at_once,
    executions_of,
    gate,
    running,
    seconds,
    statuses,
    until,
    wait_for_executions,
)

from sched_core import Interval, JobEvent, MemoryBackend, Scheduler, SchedulerStopped, Status

FRAME = {
    "sched_core._runtime.loop.Loop._serve",
    "sched_core._runtime.loop.Loop._watch_deadline",
    "sched_core._runtime.loop._do",
}
"""What holds the scheduler's tasks together; without it the run ends, and says so."""


def asyncio_run(main: Callable[[], Any]) -> None:
    """Run it on asyncio: trio's tasks cannot be cancelled from outside."""
    asyncio.run(asyncio.wait_for(main(), 60))


def own_task() -> asyncio.Task[Any]:
    task = asyncio.current_task()
    assert task is not None
    return task


@pytest.mark.parametrize("waits", [False, True], ids=["at-once", "after-waiting"])
def test_a_handler_that_cancels_its_task_and_returns_has_succeeded(waits: bool) -> None:
    async def handler(event: JobEvent) -> None:
        if event.id == "odd":
            if waits:
                await asyncio.sleep(0.01)
            for _ in range(3):
                own_task().cancel()

    async def main() -> None:
        async with running(MemoryBackend(), handler, max_concurrency=1) as scheduler:
            await scheduler.submit_job("odd", at_once())
            await wait_for_executions(scheduler, 1, "odd")
            await scheduler.submit_job("other", at_once())
            await wait_for_executions(scheduler, 1, "other")
            assert await statuses(scheduler) == [Status.SUCCEEDED] * 2

    asyncio_run(main)


@pytest.mark.parametrize("waits", [False, True], ids=["at-once", "after-waiting"])
def test_an_abort_button_that_is_pressed_too_late_hits_no_other_job(waits: bool) -> None:
    """The task of a handler was kept, and is cancelled while the next job's handler runs."""
    kept: list[asyncio.Task[Any]] = []
    begun = 0

    async def handler(event: JobEvent) -> None:
        nonlocal begun
        if event.id == "first":
            kept.append(own_task())
            if waits:
                await asyncio.sleep(0.01)
            return
        begun += 1
        await asyncio.sleep(0.2)

    async def main() -> None:
        async with running(MemoryBackend(), handler, max_concurrency=1) as scheduler:
            await scheduler.submit_job("first", at_once())
            await wait_for_executions(scheduler, 1, "first")
            await scheduler.submit_job("next", at_once())
            await until(lambda: begun)
            kept[0].cancel()
            (execution,) = await wait_for_executions(scheduler, 1, "next")
            assert execution.status is Status.SUCCEEDED
            assert begun == 1

    asyncio_run(main)


@pytest.mark.parametrize("waits", [False, True], ids=["at-once", "after-waiting"])
def test_a_task_that_no_code_keeps_calls_the_next_handler_too(waits: bool) -> None:
    """A task for each run would cost more than the run."""
    tasks: list[weakref.ref[asyncio.Task[Any]]] = []

    async def handler(event: JobEvent) -> None:
        tasks.append(weakref.ref(own_task()))
        if waits:
            await asyncio.sleep(0)

    async def main() -> None:
        async with running(MemoryBackend(), handler, max_concurrency=1) as scheduler:
            for number in range(5):
                await scheduler.submit_job(f"job-{number}", at_once())
                await wait_for_executions(scheduler, 1, f"job-{number}")
            assert len(set(tasks)) == 1

    asyncio_run(main)
    assert len(tasks) == 5


def test_idle_workers_and_all_other_tasks_of_the_scheduler_may_be_cancelled(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A library that tidies up cancels every task that it does not know."""
    done: list[str] = []

    async def handler(event: JobEvent) -> None:
        await asyncio.sleep(0.001)
        done.append(event.id)

    async def main() -> None:
        before = asyncio.all_tasks()
        async with running(MemoryBackend(), handler) as scheduler:
            of_the_host = {task for task in asyncio.all_tasks() if "run_forever" in task.get_name()}
            await scheduler.ensure_job("tick", Interval(seconds=0.05))
            await until(lambda: len(done) >= 3)
            for _ in range(5):
                for task in asyncio.all_tasks() - before - of_the_host:
                    begun = inspect.getcoroutinestate(task.get_coro()) == inspect.CORO_SUSPENDED  # type: ignore[arg-type]  # tasks of asyncio have coroutines
                    if begun and task.get_name() not in FRAME:
                        task.cancel()
                seen = len(done)
                await until(lambda seen=seen: len(done) >= seen + 3)  # type: ignore[misc]
            assert scheduler.is_running
            assert (await scheduler.health()).healthy
            assert {execution.status for execution in await executions_of(scheduler)} == {
                Status.SUCCEEDED
            }

    asyncio_run(main)
    assert "continues" in caplog.text


def test_a_loop_that_is_torn_down_raises() -> None:
    """Its supervisor must see that no job runs any more."""

    async def main() -> None:
        async with Scheduler(MemoryBackend(), handler=lambda event: None) as scheduler:
            run = asyncio.create_task(scheduler.run_forever(signals=False))
            await scheduler.wait_until_running()
            (frame,) = [task for task in asyncio.all_tasks() if "Loop._serve" in task.get_name()]
            frame.cancel()
            with pytest.raises(SchedulerStopped):
                await run
            assert not scheduler.is_running

    asyncio_run(main)


def test_a_claim_ends_only_after_its_thread_although_its_task_was_cancelled() -> None:
    begun, ended = threading.Event(), threading.Event()
    kept: list[asyncio.Task[Any]] = []

    async def main() -> None:
        with gate() as let_go:

            def handler(event: JobEvent) -> None:
                begun.set()
                let_go.wait()
                ended.set()

            loop_tasks = asyncio.all_tasks()
            async with running(MemoryBackend(), handler, max_concurrency=1) as scheduler:
                await scheduler.submit_job("slow", at_once())
                await until(begun.is_set)
                kept.extend(
                    task
                    for task in asyncio.all_tasks() - loop_tasks
                    if "TaskPool._work" in task.get_name()
                )
                for _ in range(3):
                    for task in kept:
                        task.cancel()
                    await asyncio.sleep(0.02)
                assert await executions_of(scheduler) == []
                assert not ended.is_set()
                let_go.set()
                assert [
                    execution.status for execution in await wait_for_executions(scheduler, 1)
                ] == [Status.SUCCEEDED]

    asyncio_run(main)
    assert kept


def test_the_end_of_the_program_is_no_mistake() -> None:
    """asyncio.run cancels all tasks when its main coroutine has ended."""
    begun = threading.Event()

    async def handler(event: JobEvent) -> None:
        begun.set()
        await asyncio.sleep(60)

    async def main() -> None:
        scheduler = Scheduler(MemoryBackend(lease=seconds(30)), handler=handler)
        await scheduler.__aenter__()
        kept.append(asyncio.create_task(scheduler.run_forever(signals=False)))
        await scheduler.submit_job("a", at_once())
        await until(begun.is_set)

    kept: list[asyncio.Task[None]] = []
    done = threading.Event()

    def program() -> None:
        asyncio.run(main())
        done.set()

    threading.Thread(target=program, daemon=True).start()
    assert done.wait(30), "the program did not end"
    assert kept[0].done()


def test_a_scope_that_the_host_cancels_still_ends_the_run() -> None:
    async def main() -> None:
        async with Scheduler(MemoryBackend(), handler=lambda event: None) as scheduler:
            with anyio.move_on_after(0.1) as scope:
                await scheduler.run_forever(signals=False)
            assert scope.cancelled_caught

    asyncio_run(main)
