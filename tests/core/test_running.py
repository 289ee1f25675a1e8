"""``run_forever``: how it stops, what may go wrong meanwhile, and what it leaves alone."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from typing import Any

import anyio
import pytest
from anyio.lowlevel import checkpoint
from tests.core.running import (
    Faulty,
    Make,
    at_once,
    executions_of,
    gate,
    now,
    run,
    running,
    seconds,
    until,
    wait_for_executions,
)

from sched_core import (
    BackendUnavailable,
    Execution,
    HealthChange,
    Interval,
    JobEvent,
    JobSpec,
    MemoryBackend,
    Once,
    Policy,
    Scheduler,
    SchedulerForked,
    SchedulerNotStarted,
    SchedulerRunning,
    Status,
)
from sched_core._runtime import completion
from sched_core._runtime import loop as runtime_loop
from sched_core.clock import pause
from sched_core.testing import FakeClock, RecordingHandler


class Sleeper:
    """A handler that takes its time, and notes what it begins and ends."""

    def __init__(self, duration: float) -> None:
        self.duration = duration
        self.begun: list[tuple[str, int]] = []
        self.ended: list[str] = []
        self.cancelled: list[str] = []

    async def __call__(self, event: JobEvent) -> None:
        self.begun.append((event.id, event.attempt))
        try:
            await anyio.sleep(self.duration)
        except anyio.get_cancelled_exc_class():
            self.cancelled.append(event.id)
            raise
        self.ended.append(event.id)


# -- stopping ----------------------------------------------------------------


def test_stop_waits_for_what_runs_and_claims_nothing_more(loop: str, make: Make) -> None:
    async def main() -> None:
        sleeper = Sleeper(0.3)
        async with running(make(), sleeper, max_concurrency=5) as scheduler:
            await scheduler.submit_jobs([JobSpec(f"{n}", at_once()) for n in range(12)])
            await until(lambda: len(sleeper.begun) == 5)
            await scheduler.stop(10)
            assert not scheduler.is_running
            executions = await executions_of(scheduler)
            assert sorted(execution.job_id for execution in executions) == sorted(sleeper.ended)
            assert {execution.status for execution in executions} == {Status.SUCCEEDED}
            assert len(executions) < 12
            assert sleeper.cancelled == []
            # What was claimed and had not begun was handed back: it runs at once.
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(lambda: scheduler.run_forever(signals=False))
                executions = await wait_for_executions(scheduler, 12)
                await scheduler.stop()
            assert {(execution.attempt, execution.status) for execution in executions} == {
                (1, Status.SUCCEEDED)
            }
            assert len({execution.job_id for execution in executions}) == 12

    run(loop, main)


@pytest.mark.parametrize("grace", [0, 0.2, timedelta(seconds=0.2)])
def test_what_exceeds_the_grace_is_interrupted_and_runs_again(
    grace: float | timedelta, loop: str, make: Make
) -> None:
    async def main() -> None:
        sleeper = Sleeper(30)
        async with running(make(), sleeper) as scheduler:
            await scheduler.submit_jobs([JobSpec(f"{n}", at_once()) for n in range(3)])
            await until(lambda: len(sleeper.begun) == 3)
            began = time.monotonic()
            await scheduler.stop(grace)
            assert time.monotonic() - began < 4
            executions = await executions_of(scheduler)
            assert [
                (execution.status, execution.final, execution.attempt) for execution in executions
            ] == [(Status.INTERRUPTED, False, 1)] * 3
            assert sorted(sleeper.cancelled) == ["0", "1", "2"]
        sleeper.duration = 0
        async with running(make(), sleeper) as scheduler:
            executions = await wait_for_executions(scheduler, 6)
            assert [
                (execution.status, execution.final, execution.attempt)
                for execution in executions[3:]
            ] == [(Status.SUCCEEDED, True, 2)] * 3
            keys = {(execution.uid, execution.number) for execution in executions}
            assert len(keys) == 3

    run(loop, main)


@pytest.mark.usefixtures("short_flush")
def test_a_sync_handler_that_ends_when_told_is_interrupted(loop: str, make: Make) -> None:
    async def main() -> None:
        begun = threading.Event()

        def handler(event: JobEvent) -> None:
            begun.set()
            while not event.cancelled:
                time.sleep(0.005)

        async with running(make(), handler) as scheduler:
            await scheduler.submit_job("a", at_once())
            await until(begun.is_set)
            await scheduler.stop(0.05)
            (execution,) = await executions_of(scheduler)
            assert (execution.status, execution.final) == (Status.INTERRUPTED, False)

    run(loop, main)


def test_stop_when_it_is_not_running_and_right_after_the_start(loop: str) -> None:
    async def main() -> None:
        async with Scheduler(MemoryBackend(), handler=RecordingHandler()) as scheduler:
            await scheduler.stop()
            with anyio.fail_after(5):
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(lambda: scheduler.run_forever(signals=False))
                    while not scheduler.is_running:
                        await anyio.lowlevel.checkpoint()
                    await scheduler.stop()  # in the very step in which it began
            await scheduler.stop(0)

    run(loop, main)


def test_leaving_the_context_stops_what_runs(loop: str, make: Make) -> None:
    async def main() -> None:
        sleeper = Sleeper(0.2)
        async with anyio.create_task_group() as tasks:
            async with Scheduler(make(), handler=sleeper) as scheduler:
                await scheduler.submit_job("a", at_once())
                tasks.start_soon(lambda: scheduler.run_forever(signals=False))
                await until(lambda: sleeper.begun)
            assert sleeper.ended == ["a"]
        async with Scheduler(make(), handler=sleeper) as scheduler:
            (execution,) = await executions_of(scheduler)
            assert execution.status is Status.SUCCEEDED

    run(loop, main)


@pytest.mark.parametrize(
    ("how", "loop"), [("scope", "asyncio"), ("scope", "trio"), ("task", "asyncio")]
)
def test_cancelling_the_task_is_a_stop_without_grace(how: str, loop: str, make: Make) -> None:
    """What has ended is written, what runs is interrupted, and nothing waits for a lease."""

    async def main() -> None:
        backend = Faulty(make())
        settled = False

        async def handler(event: JobEvent) -> None:
            if event.id == "slow":
                await anyio.sleep(30)

        async with Scheduler(backend, handler=handler) as scheduler:
            await scheduler.submit_jobs([JobSpec(each, at_once()) for each in ("quick", "slow")])
            backend.hangs.add("settle")  # its execution is decided, and not yet written

            async def ready() -> bool:
                health = await scheduler.health()
                return (health.executing, health.completed, health.unsettled) == (1, 1, 2)

            async def let_go() -> None:
                await anyio.sleep(0.1)
                backend.hangs.clear()

            began = time.monotonic()
            async with anyio.create_task_group() as tasks:
                if how == "task":
                    task = asyncio.create_task(scheduler.run_forever(signals=False))
                    await until(ready)
                    tasks.start_soon(let_go)
                    task.cancel()
                    with contextlib.suppress(asyncio.CancelledError):
                        await task
                    settled = task.cancelled()
                else:
                    async with anyio.create_task_group() as inner:
                        inner.start_soon(lambda: scheduler.run_forever(signals=False))
                        await until(ready)
                        tasks.start_soon(let_go)
                        inner.cancel_scope.cancel()
                    settled = True
            assert settled
            assert time.monotonic() - began < 5
            assert not scheduler.is_running
            executions = {
                execution.job_id: execution.status for execution in await executions_of(scheduler)
            }
            assert executions == {"quick": Status.SUCCEEDED, "slow": Status.INTERRUPTED}
            assert (await scheduler.health()).unsettled == 0

    run(loop, main)


def test_cancelling_run_due_is_a_stop_without_grace(loop: str, make: Make) -> None:
    async def main() -> None:
        sleeper = Sleeper(30)
        async with Scheduler(make(), handler=sleeper, max_concurrency=2) as scheduler:
            await scheduler.submit_jobs([JobSpec(f"{n}", at_once()) for n in range(4)])
            began = time.monotonic()
            with anyio.move_on_after(0.3):
                await scheduler.run_due()
            assert time.monotonic() - began < 3
            executions = await executions_of(scheduler)
            assert [execution.status for execution in executions] == [Status.INTERRUPTED] * 2
            sleeper.duration = 0
            assert await scheduler.run_due() == 4
            executions = await executions_of(scheduler)
            assert [execution.status for execution in executions[2:]] == [Status.SUCCEEDED] * 4

    run(loop, main)


def test_restart_after_stop(loop: str, make: Make) -> None:
    async def main() -> None:
        handler = RecordingHandler()
        async with Scheduler(make(), handler=handler) as scheduler:
            async with anyio.create_task_group() as tasks:
                for n in range(5):
                    tasks.start_soon(lambda: scheduler.run_forever(signals=False))
                    await scheduler.wait_until_running()
                    assert scheduler.is_running
                    await scheduler.submit_job(f"{n}", at_once())
                    await wait_for_executions(scheduler, n + 1)
                    await scheduler.stop()
                    assert not scheduler.is_running
            assert await scheduler.run_due() == 0
        assert handler.ids == ["0", "1", "2", "3", "4"]

    run(loop, main)


def test_one_scheduler_in_one_loop_after_another() -> None:
    scheduler = Scheduler(MemoryBackend(), handler=RecordingHandler())

    async def main() -> None:
        async with scheduler, anyio.create_task_group() as tasks:
            tasks.start_soon(lambda: scheduler.run_forever(signals=False))
            await scheduler.submit_job(f"{len(loops)}", at_once())
            await wait_for_executions(scheduler, len(loops))
            await scheduler.stop()

    loops: list[str] = []
    for backend in ("asyncio", "trio", "asyncio"):
        loops.append(backend)
        run(backend, main)


# -- states ------------------------------------------------------------------


def is_running(scheduler: Scheduler) -> bool:
    return scheduler.is_running  # asked again each time


def test_it_runs_once_at_a_time_and_only_when_open(loop: str) -> None:
    async def main() -> None:
        scheduler = Scheduler(MemoryBackend(), handler=RecordingHandler())
        with pytest.raises(SchedulerNotStarted):
            await scheduler.run_forever()
        with pytest.raises(SchedulerNotStarted):
            await scheduler.run_due()
        assert not is_running(scheduler)
        async with scheduler, anyio.create_task_group() as tasks:
            assert not is_running(scheduler)
            with anyio.move_on_after(0.05) as waited:
                await scheduler.wait_until_running()
            assert waited.cancelled_caught
            tasks.start_soon(lambda: scheduler.run_forever(signals=False))
            await scheduler.wait_until_running()
            assert is_running(scheduler)
            with pytest.raises(SchedulerRunning):
                await scheduler.run_forever()
            with pytest.raises(SchedulerRunning):
                await scheduler.run_due()
            with pytest.raises(SchedulerRunning):
                await scheduler.__aenter__()
            assert is_running(scheduler)
            await scheduler.stop()
            assert not is_running(scheduler)
            with anyio.move_on_after(0.05) as waited:
                await scheduler.wait_until_running()
            assert waited.cancelled_caught

    run(loop, main)


def test_after_a_fork_it_refuses(make: Make) -> None:
    async def main() -> None:
        async with running(make(), RecordingHandler()) as scheduler:
            child = os.fork()
            if child == 0:
                refused = 0
                calls: list[Callable[[], Any]] = [
                    lambda: scheduler.get_job("a"),
                    lambda: scheduler.submit_job("a", at_once()),
                    scheduler.run_forever,
                    scheduler.run_due,
                    scheduler.health,
                ]
                for call in calls:
                    try:
                        call().send(None)
                    except SchedulerForked:
                        refused += 1
                    except BaseException:
                        pass
                os._exit(10 + refused)
            _, status = await anyio.to_thread.run_sync(os.waitpid, child, 0)
            assert os.waitstatus_to_exitcode(status) == 15
            await scheduler.submit_job("a", at_once())  # and the parent goes on
            await wait_for_executions(scheduler, 1)

    run("asyncio", main)


# -- signals -----------------------------------------------------------------

SERVICE = """
import asyncio, os, sys, signal, threading
from datetime import datetime, timezone
import anyio, trio
from sched_core import JobEvent, MemoryBackend, Once, Scheduler

# A shell starts what runs in its background with SIGINT ignored.
signal.signal(signal.SIGINT, signal.default_int_handler)
how, seconds = sys.argv[1], float(sys.argv[2])

async def handler(event: JobEvent) -> None:
    print("begun", flush=True)
    await anyio.sleep(seconds)
    print("ended", flush=True)

async def main():
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    async with Scheduler(MemoryBackend(), handler=handler) as scheduler:
        await scheduler.submit_job("a", Once(datetime.now(timezone.utc)))
        await scheduler.run_forever()
        async for execution in scheduler.list_executions():
            print(execution.status.value, flush=True)
    assert before == (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT))
    print("left", flush=True)

if how == "asyncio.run":
    asyncio.run(main())
elif how == "trio.run":
    trio.run(main)
else:
    anyio.run(main, backend=how.partition(" ")[2])
"""

RUNNERS = ["asyncio.run", "anyio.run asyncio", "trio.run", "anyio.run trio"]


@contextlib.contextmanager
def serve(script: str, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        [sys.executable, "-c", script, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()  # or a test that fails would wait for it


def first_line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    assert process.stderr is not None
    line = process.stdout.readline().strip()
    assert line, process.stderr.read()
    return line


@pytest.mark.parametrize(
    ("how", "number"),
    [
        *((how, signal.SIGTERM) for how in RUNNERS),
        *((how, signal.SIGINT) for how in RUNNERS if "asyncio" in how),
        *(
            pytest.param(how, signal.SIGINT, marks=pytest.mark.deep)
            for how in RUNNERS
            if "asyncio" not in how
        ),
    ],
)
def test_a_signal_drains_and_exits_with_0(how: str, number: signal.Signals) -> None:
    with serve(SERVICE, how, "0.3") as process:
        assert first_line(process) == "begun"
        process.send_signal(number)
        output, errors = process.communicate(timeout=20)
    assert (process.returncode, output.split()) == (0, ["ended", "succeeded", "left"]), errors


@pytest.mark.parametrize("how", RUNNERS)
def test_a_second_signal_stops_at_once(how: str) -> None:
    with serve(SERVICE, how, "60") as process:
        assert first_line(process) == "begun"
        began = time.monotonic()
        process.send_signal(signal.SIGTERM)
        time.sleep(0.3)
        assert process.poll() is None
        process.send_signal(signal.SIGTERM)
        output, errors = process.communicate(timeout=20)
        assert time.monotonic() - began < 10
    assert (process.returncode, output.split()) == (0, ["interrupted", "left"]), errors


HOST = """
import signal, sys, threading
import anyio
from sched_core import MemoryBackend, Scheduler

got = []

def mine(number, frame):
    got.append(number)

signal.signal(signal.SIGTERM, mine)

async def handler(event):
    pass

async def main():
    async with Scheduler(MemoryBackend(), handler=handler) as scheduler:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(scheduler.run_forever)
            await scheduler.wait_until_running()
            await anyio.sleep(0.1)
            assert signal.getsignal(signal.SIGTERM) is mine
            print("ready", flush=True)
            while not got:
                await anyio.sleep(0.01)
            await anyio.sleep(0.2)
            assert scheduler.is_running
            assert signal.getsignal(signal.SIGTERM) is mine
            print("host decides", flush=True)
            await scheduler.stop()
    assert signal.getsignal(signal.SIGTERM) is mine
    print("left", flush=True)

anyio.run(main, backend=sys.argv[1])
"""


def test_a_host_with_a_sigterm_handler_keeps_it(loop: str) -> None:
    with serve(HOST, loop) as process:
        assert first_line(process) == "ready"
        process.send_signal(signal.SIGTERM)
        output, errors = process.communicate(timeout=20)
    assert (process.returncode, output.split("\n")) == (0, ["host decides", "left", ""]), errors


def test_a_host_with_a_handler_in_its_asyncio_loop_keeps_it() -> None:
    async def main() -> None:
        got = asyncio.Event()
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, got.set)
        try:
            async with (
                Scheduler(MemoryBackend(), handler=RecordingHandler()) as scheduler,
                anyio.create_task_group() as tasks,
            ):
                tasks.start_soon(scheduler.run_forever)
                await scheduler.wait_until_running()
                os.kill(os.getpid(), signal.SIGTERM)
                await got.wait()
                await anyio.sleep(0.05)
                assert scheduler.is_running
                await scheduler.stop()
        finally:
            asyncio.get_running_loop().remove_signal_handler(signal.SIGTERM)

    run("asyncio", main)


def test_signals_may_be_left_alone(loop: str) -> None:
    async def main() -> None:
        before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
        async with running(MemoryBackend(), RecordingHandler()):
            await anyio.sleep(0.05)
            during = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
            assert during == before

    run(loop, main)


def test_it_runs_in_another_thread_than_the_main_one(loop: str, make: Make) -> None:
    handler, errors = RecordingHandler(), list[BaseException]()

    async def main() -> None:
        async with (
            Scheduler(make(), handler=handler) as scheduler,
            anyio.create_task_group() as tasks,
        ):
            tasks.start_soon(scheduler.run_forever)
            await scheduler.submit_job("a", at_once())
            await wait_for_executions(scheduler, 1)
            await scheduler.stop()

    def work() -> None:
        try:
            run(loop, main)
        except BaseException as error:
            errors.append(error)

    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    thread = threading.Thread(target=work)
    thread.start()
    thread.join(30)
    assert not thread.is_alive()
    assert errors == []
    assert handler.ids == ["a"]
    assert before == (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT))


# -- a store in trouble ------------------------------------------------------

CALLS = ["claim_due", "wait_due", "settle", "renew"]
TROUBLES = [
    ("all", BackendUnavailable("cut off")),
    ("all", RuntimeError("what is this")),
    ("all", OSError(5, "io")),
    ("claim_due", RuntimeError("what is this")),
    ("wait_due", BackendUnavailable("cut off")),
    ("settle", OSError(5, "io")),
    ("renew", RuntimeError("what is this")),
]


@pytest.mark.parametrize(("call", "error"), TROUBLES)
def test_a_store_that_fails_for_a_while_costs_nothing(
    call: str, error: Exception, loop: str, make: Make
) -> None:
    """Backed off, shown by health, told to observers; afterwards everything has run."""
    lease = 0.6

    async def main() -> None:
        seen: list[Execution | HealthChange] = []
        backend, let_go = Faulty(make(lease)), anyio.Event()

        async def handler(event: JobEvent) -> None:
            if event.id == "during":
                await let_go.wait()

        async with running(backend, handler, observers=[seen.append]) as scheduler:
            await scheduler.submit_job("before", at_once())
            await wait_for_executions(scheduler, 1)
            await scheduler.submit_job("during", at_once())

            async def executing() -> bool:
                return (await scheduler.health()).executing == 1

            await until(executing)
            for each in CALLS if call == "all" else [call]:
                backend.failures[each] = error
            backend.calls.clear()
            if call != "renew":
                let_go.set()

            async def red() -> bool:
                return not (await scheduler.health()).healthy

            await until(red)
            let_go.set()
            await anyio.sleep(0.4)
            assert sum(backend.calls.get(each, 0) for each in CALLS) < 60
            assert (await scheduler.health()).backend_errors > 0
            backend.failures.clear()
            await scheduler.submit_job("after", at_once())

            async def all_succeeded() -> bool:
                executions = [
                    execution for execution in await executions_of(scheduler) if execution.final
                ]
                return {execution.job_id for execution in executions} == {
                    "before",
                    "during",
                    "after",
                }

            async def green() -> bool:
                return (await scheduler.health()).healthy

            await until(all_succeeded, within=20)
            await until(green, within=20)
            finals = [execution for execution in await executions_of(scheduler) if execution.final]
            assert [execution.status for execution in finals] == [Status.SUCCEEDED] * 3
        changes = [each.healthy for each in seen if isinstance(each, HealthChange)]
        assert changes[0] is False
        assert changes[-1] is True
        executions = [each for each in seen if isinstance(each, Execution)]
        assert {each.job_id for each in executions} == {"before", "during", "after"}

    run(loop, main)


class Fickle:
    """A third party's schedule whose arithmetic fails as long as the test says so."""

    def __init__(self) -> None:
        self.broken = False

    def first(self, anchor: datetime) -> datetime:
        return anchor

    def next_after(self, moment: datetime, anchor: datetime) -> datetime | None:
        if self.broken:
            raise ArithmeticError("no next")
        return None


def test_a_schedule_that_fails_is_set_aside_and_turns_health_red(
    loop: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(completion, "SCHEDULE_ERROR_DELAY", seconds(0.1))

    async def main() -> None:
        schedule = Fickle()
        backend = MemoryBackend(lease=seconds(0.6))
        async with running(backend, RecordingHandler()) as scheduler:
            schedule.broken = True
            await scheduler.submit_job("fickle", schedule)

            async def red() -> bool:
                problems = (await scheduler.health()).problems
                return any("fickle" in each and "no next" in each for each in problems)

            await until(red)
            await scheduler.submit_job("other", at_once())
            await wait_for_executions(scheduler, 1, "other")
            assert await executions_of(scheduler, "fickle") == []
            schedule.broken = False
            (execution,) = await wait_for_executions(scheduler, 1, "fickle")
            assert (execution.status, execution.final) == (Status.SUCCEEDED, True)

            async def green() -> bool:
                return (await scheduler.health()).healthy

            await until(green)

    run(loop, main)


def test_an_observer_that_fails_is_logged_and_harms_nothing(
    loop: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        seen: list[object] = []

        def broken(what: object) -> None:
            raise ValueError("observer")

        observers = [broken, seen.append]
        async with running(MemoryBackend(), RecordingHandler(), observers=observers) as scheduler:
            await scheduler.submit_job("a", at_once())
            await wait_for_executions(scheduler, 1)
            await until(lambda: seen)

    run(loop, main)
    assert any("observer" in record.getMessage() for record in caplog.records)


# -- promptness --------------------------------------------------------------


def test_a_job_added_while_it_waits_runs_promptly(loop: str, make: Make) -> None:
    async def main() -> None:
        handler = RecordingHandler()
        async with running(make(), handler) as scheduler:
            await scheduler.ensure_job("rare", Interval(hours=1))
            for n in range(5):
                await anyio.sleep(0.05)  # so that it waits
                began = time.monotonic()
                await scheduler.submit_job(f"{n}", at_once())
                await until(lambda n=n: f"{n}" in handler.ids)  # type: ignore[misc]  # bound now
                assert time.monotonic() - began < 2
            await scheduler.trigger_job("rare")
            began = time.monotonic()
            await until(lambda: "rare" in handler.ids)
            assert time.monotonic() - began < 2

    run(loop, main)


def test_one_shots_are_on_time(loop: str, make: Make) -> None:
    async def main() -> None:
        handler = RecordingHandler()
        async with running(make(), handler) as scheduler:
            specs = [JobSpec(f"{n}", Once(now() + seconds(0.02 * n))) for n in range(50)]
            await scheduler.submit_jobs(specs)
            await wait_for_executions(scheduler, 50)
            assert all(timedelta(0) <= event.delay < seconds(2) for event in handler.events)
            health = await scheduler.health()
            assert health.lateness is not None
            assert health.lateness < seconds(2)

    run(loop, main)


def test_health_while_it_works(loop: str) -> None:
    async def main() -> None:
        with gate() as let_go:

            def handler(event: JobEvent) -> None:
                let_go.wait()

            async with running(MemoryBackend(), handler) as scheduler:
                health = await scheduler.health()
                assert (health.healthy, health.running, health.executing) == (True, True, 0)
                assert health.oldest_due is None
                job = await scheduler.submit_job("a", at_once(), policy=Policy())

                async def executing() -> bool:
                    return (await scheduler.health()).executing == 1

                await until(executing)
                health = await scheduler.health()
                assert health.oldest_due == job.standing.due_at
                assert health.looked_at is not None
                let_go.set()
                await wait_for_executions(scheduler, 1)
                assert (await scheduler.health()).completed == 1

    run(loop, main)


def test_what_was_claimed_ahead_is_handed_back_when_a_handler_waits_after_all(
    loop: str, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    turns = 0

    async def counted() -> None:
        nonlocal turns
        turns += 1
        await checkpoint()

    monkeypatch.setattr(runtime_loop, "checkpoint", counted)

    async def main() -> None:
        gate, begun, other = anyio.Event(), anyio.Event(), RecordingHandler()

        async def quick_then_slow(event: JobEvent) -> None:
            if event.id >= "job-150":
                begun.set()
                await gate.wait()

        async with running(make(), quick_then_slow, max_concurrency=1) as scheduler:
            specs = [JobSpec(f"job-{number:03}", at_once()) for number in range(200)]
            await scheduler.submit_jobs(specs)
            with anyio.fail_after(10):
                await begun.wait()
            async with running(make(), other):
                await wait_for_executions(scheduler, 199)
            before = turns
            await anyio.sleep(0.3)
            assert turns == before  # and what waits costs no turns of the loop
            gate.set()
            await wait_for_executions(scheduler, 200)

    run(loop, main)


@pytest.mark.parametrize("hangs", ["renew", "claim_due", "wait_due", "executions", "release"])
def test_a_backend_that_does_not_answer_holds_up_no_stop(
    loop: str, make: Make, short_flush: None, hangs: str
) -> None:
    async def main() -> None:
        backend, begun = Faulty(make(0.3)), anyio.Event()

        async def handler(event: JobEvent) -> None:
            begun.set()
            await anyio.sleep_forever()

        seen: list[object] = []
        async with running(backend, handler, grace=0.1, observers=[seen.append]) as scheduler:
            await scheduler.submit_job("a", at_once())
            await begun.wait()
            backend.hangs.add(hangs)
            await scheduler.submit_job("b", at_once())
            await anyio.sleep(0.5)
            with anyio.fail_after(10):
                await scheduler.stop(0.1)
            backend.hangs.clear()

    run(loop, main)


def test_retention_that_failed_is_tried_again_within_a_minute() -> None:
    """A store that was away for a moment must not look ill for an hour."""
    clock, store = FakeClock(), MemoryBackend()
    calls: list[bool] = []
    began = clock.now()

    async def prune(before: datetime) -> int:
        calls.append(True)
        if len(calls) == 1:
            raise BackendUnavailable("away")
        return 0

    store.prune = prune  # type: ignore[method-assign]  # what fails once

    async def main() -> None:
        async with (
            Scheduler(store, handler=lambda event: None, clock=clock) as scheduler,
            anyio.create_task_group() as tasks,
        ):
            tasks.start_soon(scheduler.run_forever)
            await scheduler.wait_until_running()
            for wanted in (1, 2):
                with anyio.fail_after(10):
                    while len(calls) < wanted:
                        clock.advance(timedelta(seconds=5))
                        await pause(0.002)
                await pause(0.02)
                problems = (await scheduler.health()).problems
                assert bool(problems) is (wanted == 1), problems
            assert clock.now() - began < timedelta(minutes=3)
            await scheduler.stop(0)

    anyio.run(main)
