"""What the tests of running schedulers share: a host for ``run_forever``, and how to wait."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import anyio
from tests.wrappers import HandsOn

from sched_core import Execution, Handler, Once, Scheduler, Status
from sched_core.testing import FakeClock, history

BACKENDS = ("asyncio", "trio")
PATIENCE = 10.0
"""Seconds after which a test that waits for something fails."""


Make = Callable[..., Any]
"""Makes one more backend on the same data; see the fixture ``make``."""


def run(loop: str, main: Callable[[], Awaitable[None]]) -> None:
    """Run a test's coroutine on the event loop, for a minute at most."""

    async def bounded() -> None:
        with anyio.fail_after(60):
            await main()

    anyio.run(bounded, backend=loop)


def now() -> datetime:
    return datetime.now(UTC)


def at_once() -> Once:
    return Once(now())


def seconds(number: float) -> timedelta:
    return timedelta(seconds=number)


async def executions_of(scheduler: Scheduler, job_id: str | None = None) -> list[Execution]:
    """Return the history, oldest first."""
    return (await history(scheduler, job_id))[::-1]


async def statuses(scheduler: Scheduler, job_id: str | None = None) -> list[Status]:
    return [execution.status for execution in await executions_of(scheduler, job_id)]


async def until(what: Callable[[], Any], *, within: float = PATIENCE) -> Any:
    """Wait until the (sync or async) question is answered by something true; return that."""
    with anyio.move_on_after(within):  # an answer that hangs, or comes too late, is none
        while True:
            answer = what()
            if hasattr(answer, "__await__"):
                answer = await answer
            if answer:
                return answer
            await anyio.sleep(0.005)
    raise AssertionError(f"{what} did not come true within {within} s")


async def wait_for_executions(
    scheduler: Scheduler, count: int, job_id: str | None = None, *, within: float = PATIENCE
) -> list[Execution]:
    """Wait until the history has so many executions; return them, oldest first."""

    async def enough() -> list[Execution]:
        found = await executions_of(scheduler, job_id)
        return found if len(found) >= count else []

    if count == 0:
        return await executions_of(scheduler, job_id)
    found: list[Execution] = await until(enough, within=within)
    return found


@asynccontextmanager
async def running(
    backend: Any, handler: Handler | None, *, grace: float = 5, **options: Any
) -> AsyncIterator[Scheduler]:
    """Run a scheduler in the background, and stop it at the end."""
    async with (
        Scheduler(backend, handler=handler, **options) as scheduler,
        anyio.create_task_group() as tasks,
    ):
        tasks.start_soon(lambda: scheduler.run_forever(signals=False))
        await scheduler.wait_until_running()
        try:
            yield scheduler
        finally:
            with anyio.CancelScope(shield=True):
                await scheduler.stop(grace)


@contextmanager
def gate() -> Iterator[threading.Event]:
    """Give an event that hanging threads wait for; it is set in the end, whatever happens."""
    event = threading.Event()
    try:
        yield event
    finally:
        event.set()


class Faulty(HandsOn):
    """A backend some of whose calls fail or hang, as long as the test says so."""

    def __init__(self, backend: Any) -> None:
        super().__init__(backend)
        self.failures: dict[str, BaseException] = {}
        self.hangs: set[str] = set()
        self.calls: dict[str, int] = {}
        self.returned: dict[str, int] = {}

    def __getattr__(self, name: str) -> Any:
        method = getattr(self.backend, name)
        if name == "capabilities" or not callable(method):
            return method

        async def call(*arguments: Any, **options: Any) -> Any:
            self.calls[name] = self.calls.get(name, 0) + 1
            if name in self.failures:
                raise self.failures[name]
            while name in self.hangs:  # noqa: ASYNC110 -- the test may say so at any time
                await anyio.sleep(0.005)
            result = await method(*arguments, **options)
            self.returned[name] = self.returned.get(name, 0) + 1
            return result

        return call


async def outlive(leases: int, clock: FakeClock, backend: Faulty) -> None:
    """Let so many leases pass on a clock that waits for each renewal, however slow the machine."""
    wanted = backend.returned.get("renew", 0)
    for _ in range(3 * leases):
        wanted += 1
        clock.advance(backend.capabilities.lease / 3)
        await until(lambda: backend.returned.get("renew", 0) >= wanted)  # noqa: B023 -- awaited at once
