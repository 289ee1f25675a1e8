"""A database that does not answer: callers that leave do leave, and the process can end."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import anyio
import anyio.lowlevel
import pytest
from tests import postgres_server
from tests.postgres.places import Place
from tests.postgres.test_backend import job, opened
from tests.proxy import Proxy

from sched_core import BackendUnavailable, Claim, JobEvent, Once, Room, Scheduler
from sched_sql import PostgresBackend

FOR_LONG = timedelta(seconds=60)
"""How long the backend itself would wait."""
SOON = 5.0
"""Seconds; by far less than that, and more than a busy machine takes."""


@pytest.fixture
def proxy() -> Iterator[Proxy]:
    with Proxy(("127.0.0.1", postgres_server.shared().port)) as made:
        yield made


def through(here: Place, proxy: Proxy) -> Place:
    address = here.address.replace(f":{postgres_server.shared().port}/", f":{proxy.port}/")
    return Place(address, here.schema)


@pytest.mark.parametrize("loop", ["asyncio", "trio"])
def test_a_cancelled_call_returns_and_closing_is_bounded(
    here: Place, proxy: Proxy, loop: str
) -> None:
    calls: list[Callable[[PostgresBackend], Awaitable[object]]] = [
        lambda backend: backend.check(),
        lambda backend: backend.claim_due(Room(5)),
        lambda backend: backend.get("a"),  # waits for its turn behind the first
        lambda backend: backend.wait_due(Room(1)),
    ]

    async def main() -> None:
        backend = await opened(through(here, proxy), timeout=FOR_LONG)
        await backend.add([job("a")])
        proxy.black_hole()
        for call in calls:
            with anyio.fail_after(SOON), anyio.move_on_after(0.1) as scope:
                await call(backend)
            assert scope.cancelled_caught
        with anyio.fail_after(SOON):
            await backend.close()

    anyio.run(main, backend=loop)


def test_what_a_cancelled_claim_gets_later_is_given_back(here: Place, proxy: Proxy) -> None:
    """The thread closes it; no task waits for the thread any more."""

    async def main() -> None:
        backend = await opened(through(here, proxy), timeout=FOR_LONG, lease=FOR_LONG)
        await backend.add([job(f"{number}") for number in range(5)])
        proxy.stall()
        with anyio.fail_after(SOON), anyio.move_on_after(0.1) as scope:
            await backend.claim_due(Room(5))
        assert scope.cancelled_caught
        proxy.heal()
        claims: list[Claim] = []
        with anyio.fail_after(SOON):
            while len(claims) < 5:
                claims += (await backend.claim_due(Room(5))).claims
        await backend.close()

    anyio.run(main)


def test_opening_can_be_cancelled(here: Place, proxy: Proxy) -> None:
    async def main() -> None:
        proxy.black_hole()
        backend = through(here, proxy).backend(timeout=FOR_LONG)
        with anyio.fail_after(SOON), anyio.move_on_after(0.2) as scope:
            async with Scheduler(backend):
                pass
        assert scope.cancelled_caught

    anyio.run(main)


@pytest.mark.parametrize("at", ["statement", "end"])
def test_a_handlers_transaction_does_not_outlast_its_cancellation(
    here: Place, proxy: Proxy, at: str
) -> None:
    """Neither where its own statement hangs, nor where the end of the transaction does."""

    async def main() -> None:
        inside, left = anyio.Event(), anyio.Event()

        async def handle(event: JobEvent) -> None:
            try:
                async with event.transaction() as connection:
                    await connection.execute("SELECT 1")
                    proxy.black_hole()
                    inside.set()
                    if at == "statement":
                        await connection.execute("SELECT 1")
            finally:
                left.set()

        scheduler = through(here, proxy).scheduler(handle, timeout=FOR_LONG)
        async with scheduler, anyio.create_task_group() as tasks:
            await scheduler.submit_job("a", Once(datetime.now(UTC)))
            tasks.start_soon(lambda: scheduler.run_forever(signals=False))
            await inside.wait()
            await anyio.sleep(0.1)
            tasks.start_soon(scheduler.stop, 0)
            with anyio.fail_after(SOON):
                await left.wait()

    anyio.run(main)


PROGRAM = """
import sys
from datetime import timedelta
import anyio
from sched_core import SystemClock
from sched_sql import PostgresBackend

async def main():
    backend = PostgresBackend(sys.argv[1], schema=sys.argv[2], timeout=timedelta(seconds=60))
    await backend.open(SystemClock(), worker="w")
    print("open", flush=True)
    await anyio.to_thread.run_sync(sys.stdin.readline)
    with anyio.move_on_after(0.2):
        await backend.check()
    if sys.argv[3] == "closed":
        await backend.close()
    print("ending", flush=True)

anyio.run(main)
"""


@pytest.mark.parametrize("how", ["closed", "left open"])
def test_a_process_ends_although_calls_hang(here: Place, proxy: Proxy, how: str) -> None:
    address = through(here, proxy).address
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM, address, here.schema, how],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline() == "open\n"
        proxy.black_hole()
        process.stdin.write("\n")
        process.stdin.flush()
        assert process.stdout.readline() == "ending\n"
        try:
            assert process.wait(2 * SOON) == 0
        finally:
            process.kill()


def test_closing_lets_a_call_under_way_come_to_its_end(here: Place) -> None:
    """Nothing is cut off but what hangs."""

    async def main() -> None:
        backend = await opened(here)
        outcome: list[Any] = []

        async def add() -> None:
            try:
                outcome.append(await backend.add([job(f"{n}") for n in range(300)]))
            except BackendUnavailable as error:
                outcome.append(error)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(add)
            await anyio.lowlevel.checkpoint()
            await backend.close()
        assert len(outcome[0]) == 300

    anyio.run(main)
