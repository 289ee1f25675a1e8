"""Connections are a budget: what a claim needs is there before it, and handlers wait for theirs."""

# ruff: noqa: ASYNC110 -- what is waited for is in another process, or in a thread

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import anyio
import anyio.to_thread
import psycopg
import pytest
from tests import postgres_server
from tests.postgres.places import Place, past
from tests.postgres.test_backend import job, opened
from tests.postgres_server import PASSWORD

from sched_core import (
    BackendError,
    BackendUnavailable,
    Claim,
    Execution,
    InvalidDefinition,
    JobEvent,
    JobSpec,
    Once,
    Renewal,
    Room,
    Scheduler,
    SystemClock,
)
from sched_sql import PostgresBackend, SqlBackend
from sched_sql.postgres import pool
from sched_sql.postgres.slots import Slots


@pytest.fixture
def narrow(here: Place) -> Iterator[Place]:
    """The same schema, for a role of its own that may have a few connections."""
    server = postgres_server.shared()
    server.admin(f"CREATE ROLE narrow LOGIN PASSWORD '{PASSWORD}' IN ROLE sched")
    yield Place(here.address.replace("//sched:", "//narrow:"), here.schema)
    server.admin("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'narrow'")
    server.admin("DROP OWNED BY narrow; DROP ROLE narrow", "sched")


async def lines_of(scheduler: Scheduler) -> list[str]:
    found = [line async for line in scheduler.list_executions()]
    return [line.status.value for line in found if isinstance(line, Execution)]


def limit(connections: int) -> None:
    postgres_server.shared().admin(f"ALTER ROLE narrow CONNECTION LIMIT {connections}")


def end(session: Any) -> None:
    """End a session of ours as an administrator does."""
    postgres_server.shared().admin(f"SELECT pg_terminate_backend({session.info.backend_pid})")


async def one_claim(backend: PostgresBackend) -> Claim:
    """Claim after an outage: a call that waited for a tenth of a lease may claim nothing."""
    for _ in range(20):
        for claim in (await backend.claim_due(Room(1))).claims:
            return claim
    raise AssertionError("nothing is claimed")


async def until_gone(count: int) -> None:
    """Wait until the role has so many sessions: the server takes its time to end some."""
    query = "SELECT count(*) FROM pg_stat_activity WHERE usename = 'narrow'"
    with anyio.fail_after(10):
        while postgres_server.shared().admin(query) != [(count,)]:
            await anyio.sleep(0.02)


# -- what a claim needs


@pytest.mark.parametrize("slots", [0, 1, 4])
def test_with_too_few_slots_opening_says_how_many_are_needed(narrow: Place, slots: int) -> None:
    async def main() -> None:
        limit(slots)
        backend = narrow.backend(handler_connections=3)
        with pytest.raises(BackendUnavailable, match=r"needs 5 connections.*up to 3 more.*LIMIT"):
            await backend.open(SystemClock(), worker="w")
        await until_gone(0)
        limit(5)
        await backend.open(SystemClock(), worker="w")
        await backend.check()
        await backend.close()

    anyio.run(main)


def test_what_was_opened_has_all_its_connections(narrow: Place) -> None:
    """A backend that comes later and takes the rest of the slots takes nothing from it."""

    async def main() -> None:
        backend = await opened(narrow)
        limit(0)
        await backend.add([job("a")])
        claims = (await backend.claim_due(Room(1))).claims
        assert len(await backend.renew([Renewal(each) for each in claims])) == 1
        with anyio.move_on_after(0.2):
            await backend.wait_due(Room(1))
        await backend.release(claims)
        await backend.close()

    anyio.run(main)


def test_nothing_is_claimed_while_nothing_can_be_renewed(narrow: Place) -> None:
    async def main() -> None:
        backend = await opened(narrow)
        await backend.add([job("a")])
        limit(4)
        end(backend._table._lanes["renew"]._session)
        await until_gone(4)
        with pytest.raises(BackendUnavailable, match="CONNECTION LIMIT"):
            await backend.claim_due(Room(1))
        limit(5)
        await one_claim(backend)
        await backend.close()

    anyio.run(main)


def test_after_an_outage_the_first_connection_is_for_renewals(narrow: Place) -> None:
    async def main() -> None:
        backend = await opened(narrow)
        await backend.add([job("a"), job("b")])
        (claim,) = (await backend.claim_due(Room(1))).claims
        lanes = backend._table._lanes
        limit(1)
        for lane in backend._table._connections.all:
            end(lane._session)
        await until_gone(0)
        with pytest.raises(BackendUnavailable):
            await backend.get("a")
        assert lanes["renew"].is_current
        assert [one.token for one in await backend.renew([Renewal(claim)])] == [claim.token]
        with pytest.raises(BackendUnavailable):
            await backend.claim_due(Room(1))
        limit(5)
        await one_claim(backend)
        await backend.close()

    anyio.run(main)


def test_a_renewal_that_fails_stops_claiming_until_one_succeeds(here: Place) -> None:
    async def main() -> None:
        backend = await opened(here)
        await backend.add([job("a"), job("b")])
        (held,) = (await backend.claim_due(Room(1))).claims
        renew = backend._table._lanes["renew"]
        renew._connected().execute("SET default_transaction_read_only = on")
        with pytest.raises(BackendUnavailable):
            await backend.renew([Renewal(held)])
        # Its session is gone with it; the next claim renews first, what is held.
        claim = await one_claim(backend)
        assert claim.job.id != held.job.id
        (row,) = here.rows("SELECT lease_until FROM @job WHERE id = %s", (held.job.id,))
        assert row[0] > claim.claimed_at.timestamp() * 1e6
        await backend.close()

    anyio.run(main)


# -- handlers'


@pytest.mark.parametrize("value", [0, -1, True, 2.0, "3"])
def test_a_number_of_connections_that_cannot_be(value: Any) -> None:
    with pytest.raises(InvalidDefinition, match="handler_connections: must be a whole number"):
        PostgresBackend("postgresql://", handler_connections=value)
    with pytest.raises(InvalidDefinition, match="handler_connections: is no option for SQLite"):
        SqlBackend("sqlite:///x.db", handler_connections=value)


@pytest.mark.parametrize("kind", ["async", "sync", "both"])
def test_handlers_wait_for_a_connection(here: Place, kind: str) -> None:
    """No more run at a time than are allowed, and all of them come to their turn."""
    at_once, most, lock = 0, 0, threading.Lock()

    def enter(by: int) -> None:
        nonlocal at_once, most
        with lock:
            at_once += by
            most = max(most, at_once)

    async def handle(event: JobEvent) -> None:
        async with event.transaction() as connection:
            enter(1)
            await connection.execute("SELECT pg_sleep(0.02)")
            enter(-1)

    def plain(event: JobEvent) -> None:
        with event.transaction() as connection:
            enter(1)
            connection.execute("SELECT pg_sleep(0.02)")
            enter(-1)

    async def either(event: JobEvent) -> None:
        if int(event.id) % 2:
            await handle(event)
        else:
            await anyio.to_thread.run_sync(plain, event)

    async def main() -> None:
        handler = {"async": handle, "sync": plain, "both": either}[kind]
        scheduler = here.scheduler(handler, handler_connections=3)
        async with scheduler:
            await scheduler.submit_jobs([JobSpec(f"{n}", Once(past())) for n in range(30)])
            assert await scheduler.run_due() == 30
            lines = await lines_of(scheduler)
            assert lines == ["succeeded"] * 30
            made = scheduler._backend._table._connections.pool._made  # type: ignore[attr-defined]
            assert len(made) <= 3

    anyio.run(main)
    assert 0 < most <= 3  # a busy machine may have them one after the other


def test_two_transactions_at_once_in_a_handler_are_no_deadlock(
    here: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pool, "PATIENCE", 0.3)
    told: list[str] = []

    async def handle(event: JobEvent) -> None:
        async with event.transaction():
            try:
                async with event.transaction():
                    pass
            except BackendUnavailable as error:
                told.append(str(error))

    async def main() -> None:
        async with here.scheduler(handle, handler_connections=1) as scheduler:
            await scheduler.submit_job("a", Once(past()))
            assert await scheduler.run_due() == 1

    anyio.run(main)
    assert "in use for" in told[0]
    assert "raise handler_connections" in told[0]


def test_a_waiting_handler_can_be_cancelled(here: Place) -> None:
    """And takes no slot with it."""

    async def main() -> None:
        backend = await opened(here, handler_connections=1)
        connections = backend._table._connections.pool
        first = await connections.take_async()
        with anyio.move_on_after(0.1) as scope:
            await connections.take_async()
        assert scope.cancelled_caught
        await connections.give_back_async(first)
        with anyio.fail_after(5):
            assert await connections.take_async() is first
            await connections.give_back_async(first)
        await backend.close()

    anyio.run(main)


def test_handlers_share_what_a_full_server_gives(narrow: Place) -> None:
    """Two of them have slots, and the others wait for these; nothing fails."""

    async def handle(event: JobEvent) -> None:
        async with event.transaction() as connection:
            await connection.execute("SELECT pg_sleep(0.02)")

    async def main() -> None:
        limit(7)
        async with narrow.scheduler(handle) as scheduler:
            await scheduler.submit_jobs([JobSpec(f"{n}", Once(past())) for n in range(20)])
            await scheduler.run_due()
            lines = await lines_of(scheduler)
            assert lines == ["succeeded"] * 20

    anyio.run(main)


def test_without_a_slot_for_a_handler_the_store_is_to_blame(narrow: Place) -> None:
    caught: list[BaseException] = []

    async def handle(event: JobEvent) -> None:
        with pytest.raises(BackendUnavailable, match="CONNECTION LIMIT") as one:
            async with event.transaction():
                pass
        with pytest.raises(BackendUnavailable, match="CONNECTION LIMIT") as other:
            await anyio.to_thread.run_sync(lambda: event.transaction().__enter__())
        caught.extend((one.value, other.value))

    async def main() -> None:
        limit(5)
        async with narrow.scheduler(handle) as scheduler:
            await scheduler.submit_job("a", Once(past()))
            await scheduler.run_due()

    anyio.run(main)
    assert [type(one.__cause__) for one in caught] == [psycopg.OperationalError] * 2


@pytest.mark.parametrize("kind", ["async", "sync"])
def test_an_idle_connection_is_tested_before_it_is_used(
    here: Place, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether it was hung up, or leads to a server that is of no use any more."""
    monkeypatch.setattr(pool, "FRESH", 0.0)
    pids: list[int] = []

    async def handle(event: JobEvent) -> None:
        async with event.transaction() as connection:
            row = await (await connection.execute("SELECT pg_backend_pid()")).fetchone()
            pids.append(row[0])

    def plain(event: JobEvent) -> None:
        with event.transaction() as connection:
            pids.append(connection.execute("SELECT pg_backend_pid()").fetchone()[0])

    async def main() -> None:
        handler = handle if kind == "async" else plain
        async with here.scheduler(handler) as scheduler:
            connections = scheduler._backend._table._connections.pool  # type: ignore[attr-defined]

            async def run(name: str) -> None:
                await scheduler.submit_job(name, Once(past()))
                assert await scheduler.run_due() == 1

            await run("first")
            await run("again")
            assert len(set(pids)) == 1
            (idle,) = connections._idle
            end(idle.connection)
            await run("ended")
            assert len(set(pids)) == 2
            (idle,) = connections._idle
            set_it = idle.connection.execute("SET default_transaction_read_only = on")
            if kind == "async":
                await set_it
            await run("read only")
            assert len(set(pids)) == 3
            lines = await lines_of(scheduler)
            assert lines == ["succeeded"] * 4

    anyio.run(main)


def test_slots_are_given_in_the_order_of_asking() -> None:
    """Threads and tasks take turns; one that leaves is passed over."""
    order: list[str] = []

    async def main() -> None:
        slots = Slots(1)
        assert slots.take(0)
        assert not slots.take(0.01)

        async def task(name: str) -> None:
            assert await slots.take_async(10)
            order.append(name)
            slots.give_back()

        def thread() -> None:
            assert slots.take(10)
            order.append("thread")
            slots.give_back()

        async def waiting(count: int) -> None:
            while len(slots._waiting) < count:
                await anyio.sleep(0.001)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(task, "one")
            await waiting(1)
            with anyio.CancelScope() as leaving:
                async with anyio.create_task_group() as others:
                    others.start_soon(task, "left")
                    await waiting(2)
                    leaving.cancel()
            tasks.start_soon(anyio.to_thread.run_sync, thread)
            await waiting(2)
            tasks.start_soon(task, "two")
            await waiting(3)
            slots.give_back()
        assert slots.taken == 0

    for loop in ("asyncio", "trio"):
        anyio.run(main, backend=loop)
    assert order == ["one", "thread", "two"] * 2


def test_a_wrong_password_stays_an_error_that_does_not_pass(here: Place) -> None:
    """The message tells of missing slots only where slots are missing."""
    wrong = here.address.replace("//sched:", "//no_such_user:")
    with pytest.raises(BackendError) as caught:
        anyio.run(opened, Place(wrong, here.schema))
    assert "needs 5 connections" not in str(caught.value)
