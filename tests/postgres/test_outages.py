"""Servers that crash and connections that are cut, stall or go nowhere, under load."""

# ruff: noqa: ASYNC110 -- what is waited for is in another process, which announces nothing

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import anyio
import anyio.to_thread
import pytest
from tests import postgres_server
from tests.postgres.places import Place, renewals
from tests.postgres_server import Server
from tests.proxy import Proxy

from sched_core import Execution, JobEvent, JobSpec, Once, Room, Scheduler, Status
from sched_core.clock import SystemClock
from sched_core.ports import MAX_POLL
from sched_core.row import current
from sched_core.testing import history

LEASE = timedelta(seconds=3)
TIMEOUT = timedelta(seconds=1)
WITHIN = 5.0
"""Seconds within which work goes on after the server's return."""


def most_tries(seconds: float) -> float:
    """Return how many tries to reach a server are no tight loop, in an outage of that length.

    Claiming, settling and renewing each try about eight times in quick succession, and then every
    1.5 to 3 seconds, or with each renewal. A tight loop would try hundreds of times a second.
    """
    return 3 * (10 + seconds)


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """A server that may be hurt."""
    with postgres_server.server() as made:
        yield made


class Load:
    """One-shots that are due all the time, and what became of them."""

    def __init__(self, scheduler: Scheduler) -> None:
        self.scheduler = scheduler
        self.submitted = 0
        self.runs: Counter[str] = Counter()
        self.last = time.monotonic()

    async def submit(self, count: int) -> None:
        """Submit jobs, until it is known that they are stored."""
        now = datetime.now(UTC)
        specs = [
            JobSpec(f"job-{self.submitted + n:05}", Once(now + timedelta(milliseconds=10 * n)))
            for n in range(count)
        ]
        self.submitted += count
        await self.scheduler.submit_jobs(specs)

    async def handle(self, event: JobEvent) -> None:
        await anyio.sleep(0.005)
        self.runs[event.id] += 1
        self.last = time.monotonic()

    async def goes_on(self) -> float:
        """Wait until something has run that began from now on; return how long it took."""
        began = time.monotonic()
        with anyio.fail_after(60):
            while self.last <= began or not (await self.scheduler.health()).healthy:
                await anyio.sleep(0.05)
        return time.monotonic() - began

    async def turns_red(self) -> None:
        with anyio.fail_after(10):
            while (await self.scheduler.health()).healthy:
                await anyio.sleep(0.05)

    async def done(self) -> list[Execution]:
        with anyio.fail_after(30):
            while True:
                lines = await history(self.scheduler)
                if sum(line.final for line in lines) >= self.submitted:
                    return lines
                await anyio.sleep(0.1)


@asynccontextmanager
async def loaded(here: Place) -> Any:
    load: Load | None = None

    async def handle(event: JobEvent) -> None:
        assert load is not None
        await load.handle(event)

    scheduler = here.scheduler(handle, lease=LEASE, timeout=TIMEOUT)
    async with scheduler, anyio.create_task_group() as tasks:
        load = Load(scheduler)
        tasks.start_soon(scheduler.run_forever)
        yield load
        await scheduler.stop(10)


def nothing_lost(load: Load, lines: list[Execution]) -> None:
    final = Counter(line.job_id for line in lines if line.final)
    assert len(final) == load.submitted
    assert set(final.values()) == {1}
    assert all(line.status is Status.SUCCEEDED for line in lines if line.final)
    for line in lines:
        if line.attempt > 1:  # only where a claim was lost
            earlier = [one for one in lines if one.job_id == line.job_id and not one.final]
            assert earlier, line
            assert {one.status for one in earlier} <= {Status.ABANDONED, Status.INTERRUPTED}


def sessions(server: Server) -> int:
    ((count,),) = server.admin(
        "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'sched'"
    )
    assert isinstance(count, int)
    return count


def test_a_server_that_crashes_under_load(server: Server, deep: bool) -> None:
    here = Place(server.address(), "crashes")

    async def main() -> None:
        async with loaded(here) as load:
            for turn in range(5 if deep else 1):
                await load.submit(300)
                await anyio.sleep(0.5)
                errors = (await load.scheduler.health()).backend_errors
                began = time.monotonic()
                await anyio.to_thread.run_sync(server.stop)
                await load.turns_red()
                await anyio.sleep(0.2 + turn)
                await anyio.to_thread.run_sync(server.start)
                assert await load.goes_on() < WITHIN
                tries = (await load.scheduler.health()).backend_errors - errors
                assert 0 < tries < most_tries(time.monotonic() - began), "a tight loop"
                assert sessions(server) <= 5, "connections leak"
            nothing_lost(load, await load.done())
            assert (await load.scheduler.health()).healthy

    anyio.run(main)


@pytest.mark.parametrize("again", [False, True], ids=["claimed", "taken over"])
def test_a_claim_survives_a_crash_of_the_server(again: bool) -> None:
    """Its handler has begun: the same attempt must not run again, nor its token be another's."""

    async def main(server: Server) -> None:
        first = Place(server.address(), "claimed").backend(lease=timedelta(seconds=0.5))
        other = Place(server.address(), "claimed").backend(lease=LEASE)
        await first.open(SystemClock(), worker="first")
        await other.open(SystemClock(), worker="other")
        async with Scheduler(Place(server.address(), "claimed").backend()) as scheduler:
            await scheduler.submit_job("a", Once(datetime.now(UTC)))
            if again:
                first._table._claimant.heartbeat.drop((await first.claim_due(Room(1))).claims)
                await anyio.sleep(LEASE.total_seconds() + 0.5)
            while not (claims := (await other.claim_due(Room(1))).claims):
                await other.wait_due(Room(1))
            await anyio.to_thread.run_sync(server.restart)
            one = current(claims[0].job.standing)
            assert one is not None
            assert one.attempts == (1 if again else 0)
            assert len(await other.renew(renewals(claims))) == 1, "the crash took the claim back"
            lines = [line.status for line in await history(scheduler)]
            assert lines == [Status.ABANDONED] * again
        await first.close()
        await other.close()

    with postgres_server.server(wal_writer_delay="10s") as server:
        anyio.run(main, server)


Trouble = Callable[[Proxy], Coroutine[Any, Any, None]]


async def cut_often(proxy: Proxy) -> None:
    for _ in range(10):
        proxy.hang_up()
        await anyio.sleep(0.1)


async def refuse(proxy: Proxy) -> None:
    proxy.drop()
    await anyio.sleep(1.5)


async def stall(proxy: Proxy) -> None:
    proxy.stall()
    await anyio.sleep(2.5)


async def black_hole(proxy: Proxy) -> None:
    proxy.black_hole()
    await anyio.sleep(2.5)


@pytest.mark.parametrize("trouble", [cut_often, refuse, stall, black_hole])
def test_a_way_to_the_server_that_fails(server: Server, trouble: Trouble, deep: bool) -> None:
    async def main() -> None:
        with Proxy(("127.0.0.1", server.port)) as proxy:
            here = Place(server.address(port=proxy.port), trouble.__name__)
            async with loaded(here) as load:
                for _ in range(4 if deep else 1):
                    await load.submit(300)
                    await anyio.sleep(0.5)
                    async with anyio.create_task_group() as tasks:
                        tasks.start_soon(trouble, proxy)
                        if trouble is not cut_often:
                            await load.turns_red()
                    proxy.heal()
                    assert await load.goes_on() < WITHIN
                nothing_lost(load, await load.done())
                assert proxy.connections <= 5, "connections leak"
                assert proxy.accepted < 200, "a tight loop"

    anyio.run(main)


def test_without_announcements_jobs_are_found_all_the_same(server: Server) -> None:
    """Nothing is announced behind a pooler, or while the listening connection is gone."""
    here = Place(server.address(), "unannounced")

    async def main() -> None:
        done = anyio.Event()

        async def handle(event: JobEvent) -> None:
            done.set()

        async with here.scheduler(handle, pooled=True) as pooled, here.scheduler() as other:
            assert not pooled._backend.capabilities.notified
            assert other._backend.capabilities.notified
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(pooled.run_forever)
                await anyio.sleep(0.3)
                await other.submit_job("a", Once(datetime.now(UTC)))
                with anyio.fail_after(2 * MAX_POLL.total_seconds()):
                    await done.wait()
                await pooled.stop()
            # Another transaction may meet another session: nothing is prepared there, or set.
            session = pooled._backend._table._lanes["claim"]._session  # type: ignore[attr-defined]
            assert session.prepare_threshold is None
            assert session.execute("SHOW enable_seqscan").fetchone() == ("on",)
            assert session.execute("SELECT count(*) FROM pg_prepared_statements").fetchone() == (0,)

    anyio.run(main)


def test_a_lost_listening_connection_is_noticed_and_made_again(server: Server, deep: bool) -> None:
    here = Place(server.address(), "listening")

    async def main() -> None:
        ran: list[str] = []

        async def handle(event: JobEvent) -> None:
            ran.append(event.id)

        async with (
            here.scheduler(handle) as scheduler,
            here.scheduler() as other,
            anyio.create_task_group() as tasks,
        ):
            tasks.start_soon(scheduler.run_forever)
            await anyio.sleep(0.3)
            for turn in range(3 if deep else 1):
                killed = server.admin(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                    "WHERE query LIKE 'LISTEN%' OR query = 'SELECT'"
                )
                assert killed
                await anyio.sleep(1.5)
                await other.submit_job(f"{turn}", Once(datetime.now(UTC)))
                began = time.monotonic()
                while len(ran) <= turn:
                    await anyio.sleep(0.01)
                assert time.monotonic() - began < 2, "it was found by the longest poll only"
            await scheduler.stop()

    anyio.run(main)


@pytest.mark.deep
def test_a_failover_to_a_synchronous_standby(deep: bool) -> None:
    """What was promised to be kept is kept when the standby takes over."""
    first, second = Server(wal_level="replica"), Server()
    try:
        first.create()
        first.start()
        first.make_database()
        second.follow(first)
        second.start()
        # Only now: without a standby nothing would be committed.
        first.admin("ALTER SYSTEM SET synchronous_standby_names = '*'")
        first.admin("SELECT pg_reload_conf()")

        async def main() -> None:
            with Proxy(("127.0.0.1", first.port)) as proxy:
                here = Place(first.address(port=proxy.port), "failover")
                async with loaded(here) as load:
                    while first.admin("SELECT sync_state FROM pg_stat_replication") != [("sync",)]:
                        await anyio.sleep(0.1)
                    await load.submit(500)
                    await anyio.sleep(1)
                    await anyio.to_thread.run_sync(first.stop)
                    proxy.hang_up()
                    await load.turns_red()
                    second.admin("SELECT pg_promote()")
                    proxy.target = ("127.0.0.1", second.port)
                    assert await load.goes_on() < WITHIN
                    await load.submit(100)
                    nothing_lost(load, await load.done())

        anyio.run(main)
    finally:
        second.delete()
        first.delete()
