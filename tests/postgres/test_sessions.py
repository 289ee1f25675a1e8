"""Sessions that end, or lead to a server of no use: all of them are made again."""

# ruff: noqa: ASYNC110 -- what is waited for is in another process, which announces nothing

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any

import anyio
import anyio.to_thread
import psycopg
import pytest
from tests import postgres_server
from tests.postgres.places import Place, past
from tests.postgres.test_backend import job, opened
from tests.postgres_server import Server
from tests.proxy import Proxy

from sched_core import BackendUnavailable, Execution, JobEvent, Once, Renewal, Room, Scheduler
from sched_sql.postgres import notifications


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """A server that may be hurt."""
    with postgres_server.server() as made:
        made.admin("CREATE TABLE effect (id text PRIMARY KEY); ALTER TABLE effect OWNER TO sched; "
                   "CREATE TABLE later (id text REFERENCES effect DEFERRABLE INITIALLY DEFERRED); "
                   "ALTER TABLE later OWNER TO sched", "sched")  # fmt: skip
        yield made


def pids(server: Server) -> set[int]:
    """The sessions of the scheduler's."""
    found = server.admin("SELECT pid FROM pg_stat_activity WHERE application_name = 'sched'")
    return {int(str(pid)) for (pid,) in found}


def turn_read_only(server: Server) -> Callable[[], None]:
    """Have sessions that are open be read-only, and new ones not; return what puts it back."""
    server.admin("ALTER ROLE sched SET default_transaction_read_only = off")
    server.admin("ALTER SYSTEM SET default_transaction_read_only = on")
    server.admin("SELECT pg_reload_conf()")

    def back() -> None:
        server.admin("ALTER SYSTEM RESET default_transaction_read_only")
        server.admin("SELECT pg_reload_conf()")
        server.admin("ALTER ROLE sched RESET default_transaction_read_only")

    return back


async def lines(scheduler: Scheduler) -> list[str]:
    found = [line async for line in scheduler.list_executions()]
    return [line.status.value for line in found if isinstance(line, Execution)]


def test_sessions_that_turned_read_only_are_all_left(server: Server) -> None:
    """Lanes, the listener and handlers have them: they may lead to what was the primary once."""
    here = Place(server.address(), "turned")

    async def handle(event: JobEvent) -> None:
        async with event.transaction():
            pass

    async def main() -> None:
        async with here.scheduler(handle) as scheduler, anyio.create_task_group() as tasks:
            await scheduler.submit_job("before", Once(past()))
            tasks.start_soon(lambda: scheduler.run_forever(signals=False))
            while await lines(scheduler) != ["succeeded"]:
                await anyio.sleep(0.02)
            old = pids(server)
            assert len(old) == 6
            back = turn_read_only(server)
            try:
                with anyio.fail_after(20):
                    while True:
                        try:
                            await scheduler.submit_job("after", Once(past()))
                            break
                        except BackendUnavailable:
                            await anyio.sleep(0.05)
                    while len(await lines(scheduler)) < 2:
                        await anyio.sleep(0.02)
                    while pids(server) & old:
                        await anyio.sleep(0.02)
                assert set(await lines(scheduler)) == {"succeeded"}
            finally:
                back()
            await scheduler.stop(1)

    anyio.run(main)


def port_of(server: Server, session: Any) -> int:
    """The port from which the server sees a session."""
    query = "SELECT client_port FROM pg_stat_activity WHERE pid = "
    ((port,),) = server.admin(query + str(session.info.backend_pid))
    return int(str(port))


def test_a_renewal_whose_packets_vanish_leaves_time_for_another(server: Server) -> None:
    """However long other calls may wait for an answer."""

    async def main() -> None:
        with Proxy(("127.0.0.1", server.port)) as proxy:
            here = Place(server.address(port=proxy.port), "vanish")
            lease, long = timedelta(seconds=12), timedelta(seconds=60)
            backend = await opened(here, lease=lease, timeout=long)
            await backend.add([job("a")])
            claims = (await backend.claim_due(Room(1))).claims
            table: Any = backend._table
            proxy.swallow([port_of(server, table._lanes["renew"]._session)])
            with anyio.fail_after(lease.total_seconds()):
                with pytest.raises(BackendUnavailable):
                    await backend.renew([Renewal(each) for each in claims])
                assert len(await backend.renew([Renewal(each) for each in claims])) == 1
            await backend.close()

    anyio.run(main)


# -- inside a handler's transaction


Body = Callable[[Any, Server], Generator[str, list[Any]]]
"""Yields statements, and is sent what they return."""


def constraint(connection: Any, server: Server) -> Generator[str, list[Any]]:
    yield "INSERT INTO effect VALUES ('twice'), ('twice')"


def own(connection: Any, server: Server) -> Generator[str, list[Any]]:
    yield "SELECT 1"
    raise ValueError("the handler's own")


def read_only_on_its_own(connection: Any, server: Server) -> Generator[str, list[Any]]:
    yield "SET LOCAL transaction_read_only = on"
    yield "DELETE FROM effect"


def slow(connection: Any, server: Server) -> Generator[str, list[Any]]:
    yield "SET LOCAL statement_timeout = '20ms'"
    yield "SELECT pg_sleep(5)"


def at_the_commit(connection: Any, server: Server) -> Generator[str, list[Any]]:
    yield "INSERT INTO later VALUES ('missing')"


def ended(connection: Any, server: Server) -> Generator[str, list[Any]]:
    server.admin(f"SELECT pg_terminate_backend({connection.info.backend_pid})")
    yield "SELECT pg_sleep(5)"


def turned(connection: Any, server: Server) -> Generator[str, list[Any]]:
    """A statement of the handler's is the first to meet the server as read-only."""
    turn_read_only(server)
    yield "ROLLBACK"
    while (yield "SHOW default_transaction_read_only") != [("on",)]:
        yield "SELECT pg_sleep(0.01)"
    yield "BEGIN"
    yield "INSERT INTO effect VALUES ('lost')"


def run_body(here: Place, server: Server, body: Body, kind: str) -> tuple[BaseException, Any]:
    """Return what leaves the block, and how the run ends whose next block does nothing."""
    left: list[BaseException] = []

    async def run_async(event: JobEvent) -> None:
        async with event.transaction() as connection:
            statements = body(connection, server)
            statement = next(statements)
            with suppress(StopIteration):
                while True:
                    cursor = await connection.execute(statement)
                    rows = await cursor.fetchall() if cursor.description else []
                    statement = statements.send(rows)

    def run(event: JobEvent) -> None:
        with event.transaction() as connection:
            statements = body(connection, server)
            statement = next(statements)
            with suppress(StopIteration):
                while True:
                    cursor = connection.execute(statement)
                    rows = cursor.fetchall() if cursor.description else []
                    statement = statements.send(rows)

    async def handle(event: JobEvent) -> None:
        try:
            await run_async(event)
        except Exception as error:
            left.append(error)
        async with event.transaction():
            pass

    def plain(event: JobEvent) -> None:
        try:
            run(event)
        except Exception as error:
            left.append(error)
        with event.transaction():
            pass

    async def main() -> list[str]:
        async with here.scheduler(handle if kind == "async" else plain) as scheduler:
            await scheduler.submit_job(body.__name__ + kind, Once(past()))
            await scheduler.run_due()
            return await lines(scheduler)

    statuses = anyio.run(main)
    (error,) = left
    return error, statuses[0]


@pytest.mark.parametrize("kind", ["async", "sync"])
@pytest.mark.parametrize(
    ("body", "error"),
    [
        (constraint, psycopg.errors.UniqueViolation),
        (own, ValueError),
        (read_only_on_its_own, psycopg.errors.ReadOnlySqlTransaction),
        (slow, psycopg.errors.QueryCanceled),
        (at_the_commit, psycopg.errors.ForeignKeyViolation),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_what_is_the_handlers_own_failure_stays_it(
    server: Server, body: Body, error: type[Exception], kind: str
) -> None:
    found, status = run_body(Place(server.address(), "own"), server, body, kind)
    assert type(found) is error
    assert status == "succeeded"


@pytest.mark.parametrize("kind", ["async", "sync"])
def test_a_session_that_dies_under_a_handler_is_the_stores_failure(
    server: Server, kind: str
) -> None:
    found, status = run_body(Place(server.address(), "died"), server, ended, kind)
    assert type(found) is BackendUnavailable
    assert isinstance(found.__cause__, psycopg.errors.AdminShutdown)
    assert status == "succeeded"


@pytest.mark.parametrize("kind", ["async", "sync"])
def test_a_read_only_server_under_a_handler_is_the_stores_failure(
    server: Server, kind: str
) -> None:
    """And no connection of that time is used again."""
    here = Place(server.address(), "under")
    try:
        found, status = run_body(here, server, turned, kind)
    finally:
        server.admin("ALTER SYSTEM RESET default_transaction_read_only")
        server.admin("SELECT pg_reload_conf()")
        server.admin("ALTER ROLE sched RESET default_transaction_read_only")
    assert type(found) is BackendUnavailable
    assert isinstance(found.__cause__, psycopg.errors.ReadOnlySqlTransaction)
    assert status == "succeeded"


# -- listening


async def began(here: Place, scheduler: Scheduler, ran: list[str], name: str) -> float:
    """Add a job elsewhere; return after how many seconds it ran."""
    async with here.scheduler() as other:
        at = time.monotonic()
        await other.submit_job(name, Once(datetime.now(UTC)))
        with anyio.fail_after(10):
            while name not in ran:
                await anyio.sleep(0.01)
        return time.monotonic() - at


@pytest.mark.parametrize("trouble", ["swallowed", "read only"])
def test_a_listener_that_hears_nothing_any_more_is_replaced(
    server: Server, trouble: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(notifications, "ASK_EVERY", 0.5)
    monkeypatch.setattr(notifications, "ANSWER", 0.5)

    async def main() -> None:
        ran: list[str] = []

        async def handle(event: JobEvent) -> None:
            ran.append(event.id)

        with Proxy(("127.0.0.1", server.port)) as proxy:
            here = Place(server.address(port=proxy.port), f"hears{trouble[0]}")
            direct = Place(server.address(), here.schema)
            async with here.scheduler(handle) as scheduler, anyio.create_task_group() as tasks:
                tasks.start_soon(lambda: scheduler.run_forever(signals=False))
                await began(direct, scheduler, ran, "first")
                table: Any = scheduler._backend._table  # type: ignore[attr-defined]  # ours
                lane = table._listening._lane
                session = lane._session
                if trouble == "swallowed":
                    proxy.swallow([port_of(server, session)])
                else:
                    with lane._turn:
                        session.execute("SET default_transaction_read_only = on")
                with anyio.fail_after(10):
                    while lane._session in {session, None} or table.descriptor is None:
                        await anyio.sleep(0.02)
                await began(direct, scheduler, ran, "heard")
                await scheduler.stop(1)

    anyio.run(main)


def test_a_listener_is_asked_in_its_time_however_short_the_waits(here: Place) -> None:
    """The longest wait is shorter than the time between two questions."""

    async def main() -> None:
        backend = await opened(here)
        await backend.add([job("later")])
        await backend.claim_due(Room(1))
        table: Any = backend._table
        table.listen()
        before = table._listening._asked
        table._listening._asked -= notifications.ASK_EVERY - 0.2
        assert 0 < table.silence() <= 0.2
        with anyio.fail_after(20):
            while table._listening._asked <= before:
                with anyio.move_on_after(0.1):
                    await backend.wait_due(Room(1))
        assert table.silence() > 5
        await backend.close()

    anyio.run(main)
