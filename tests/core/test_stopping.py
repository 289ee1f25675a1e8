"""How a run ends: one deadline for everything, and a stop that a job itself asks for."""

from __future__ import annotations

import time
from datetime import timedelta
from typing import Any

import anyio
import anyio.from_thread
import pytest
from tests.core.running import (
    Faulty,
    Make,
    at_once,
    run,
    running,
    seconds,
    statuses,
    until,
    wait_for_executions,
)

from sched_core import (
    InvalidDefinition,
    JobEvent,
    JobRouter,
    JobSpec,
    MemoryBackend,
    Scheduler,
    Status,
)
from sched_core._runtime import shutdown


@pytest.mark.parametrize("kind", ["async", "plain", "routed", "plain and routed"])
def test_a_job_may_stop_its_own_service(kind: str, loop: str, make: Make) -> None:
    """Its occurrence has succeeded, and does not run again at the next start."""
    asked = 0
    scheduler: Scheduler

    async def handler(event: JobEvent) -> None:
        nonlocal asked
        asked += 1
        await scheduler.stop(5)

    def plain(event: JobEvent) -> None:
        nonlocal asked
        asked += 1
        anyio.from_thread.run(scheduler.stop, 5)

    router = JobRouter()
    router.route("restart")(handler if kind == "routed" else plain)

    async def serve() -> None:
        nonlocal scheduler
        handlers: dict[str, Any] = {"async": handler, "plain": plain}
        async with Scheduler(make(), handler=handlers.get(kind, router)) as scheduler:
            await scheduler.ensure_job("restart", spec.schedule)
            with anyio.fail_after(4):  # less than the grace: nothing waits for its own caller
                await scheduler.run_forever(signals=False)
            assert await statuses(scheduler) == [Status.SUCCEEDED]

    spec = JobSpec("restart", at_once())

    async def main() -> None:
        await serve()
        async with Scheduler(make(), handler=handler) as again:
            assert await again.run_due() == 0

    run(loop, main)
    assert asked == 1


@pytest.mark.parametrize("call", ["claim_due", "wait_due", "settle", "release", "renew"])
def test_a_stop_has_one_deadline_whatever_the_store_does(
    call: str, loop: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutdown, "FLUSH", 1.0)

    async def main() -> None:
        begun = anyio.Event()

        async def handler(event: JobEvent) -> None:
            begun.set()
            await anyio.sleep(60 if event.id == "long" else 0)

        backend = Faulty(MemoryBackend(lease=seconds(3)))
        async with running(backend, handler, max_concurrency=2) as scheduler:
            await scheduler.submit_job("long", at_once())
            await begun.wait()
            backend.hangs.add(call)
            await scheduler.submit_job("short", at_once())
            await anyio.sleep(0.1)
            began = time.monotonic()
            await scheduler.stop(0.5)
            took = time.monotonic() - began
            assert took < 3, f"0.5 s of grace and 1 s more took {took:.1f} s"
            assert not scheduler.is_running
            backend.hangs.clear()

    run(loop, main)


def test_a_second_signal_does_not_wait_for_a_store_that_hangs(loop: str) -> None:
    async def main() -> None:
        backend = Faulty(MemoryBackend())
        async with running(backend, lambda event: None) as scheduler:
            backend.hangs |= {"settle", "claim_due", "wait_due"}
            await scheduler.submit_job("a", at_once())
            await anyio.sleep(0.1)
            stop = scheduler._opened.loop._shutdown  # type: ignore[union-attr]  # what signals call
            began = time.monotonic()
            stop.on_signal()
            stop.on_signal()
            await until(lambda: not scheduler.is_running)
            assert time.monotonic() - began < 4
            backend.hangs.clear()

    run(loop, main)


def test_a_close_that_hangs_is_left_behind(loop: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sched_core.scheduler.FLUSH", 0.3)

    async def main() -> None:
        backend = Faulty(MemoryBackend())
        async with Scheduler(backend, handler=lambda event: None):
            backend.hangs.add("close")

    run(loop, main)


@pytest.mark.parametrize("grace", [-1, float("nan"), "5", None, timedelta(seconds=-1)])
def test_a_grace_that_cannot_be(grace: Any, loop: str) -> None:
    async def main() -> None:
        async with running(MemoryBackend(), lambda event: None) as scheduler:
            with pytest.raises(InvalidDefinition, match="grace"):
                await scheduler.stop(grace)
            await scheduler.submit_job("a", at_once())
            await wait_for_executions(scheduler, 1)

    run(loop, main)
