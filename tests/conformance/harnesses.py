"""How our own backends are examined. A third party's file has one of these classes in it."""

from __future__ import annotations

import atexit
import contextlib
import fcntl
import functools
import itertools
import sqlite3
import weakref
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import nats
import psycopg
from tests import postgres_server
from tests.jetstream.servers import delete_streams, shared_server
from tests.pgbouncer import pgbouncer
from tests.proxy import Proxy

from sched_core import BackendError, MemoryBackend, MemoryStore, Undecodable, UndecodableExecution
from sched_jetstream import JetStreamBackend
from sched_jetstream.subjects import token_of
from sched_sql import SqlBackend
from sched_sql.rows import LEDGER_COLUMNS
from sched_testkit import Harness

LEASE = timedelta(seconds=30)
PLANTED = LEDGER_COLUMNS.replace(" attempt,", " attempt + 100,").replace(" status,", " 'deferred',")
"""A line as a newer version might write it, made of one that is there."""


class MemoryHarness(Harness):
    name = "memory"
    can_spoil = can_plant = True

    @contextmanager
    def place(self) -> Iterator[MemoryStore]:
        yield MemoryStore()

    def backend(self, place: Any) -> MemoryBackend:
        return MemoryBackend(place, lease=LEASE)

    async def spoil(self, place: Any, job_id: str) -> None:
        row = place.row(job_id)
        row.job = Undecodable(job_id, "format 99 is not known", 99, b"{}")
        place.save(job_id, row)

    async def plant(self, place: Any, job_id: str) -> None:
        place.append(UndecodableExecution("odd", job_id, "a field is not known", b"{}"))


class SqliteHarness(Harness):
    name = "sqlite"
    can_cut = can_spoil = can_lock = can_plant = True

    def __init__(self) -> None:
        self._made: weakref.WeakSet[SqlBackend] = weakref.WeakSet()

    @contextmanager
    def place(self) -> Iterator[Path]:
        with TemporaryDirectory() as folder:
            yield Path(folder) / "jobs.db"

    def backend(self, place: Any) -> SqlBackend:
        backend = SqlBackend(place, lease=LEASE)
        self._made.add(backend)
        return backend

    def _wait_for_locks(self, seconds: float) -> None:
        for backend in self._made:
            database = backend._table._database  # type: ignore[attr-defined]  # ours
            database.lock._timeout = seconds
            with contextlib.suppress(BackendError, sqlite3.ProgrammingError):  # closed, crashed
                database.connection.execute(f"PRAGMA busy_timeout = {int(seconds * 1000)}")

    async def crash(self, backend: Any) -> None:
        """Let go of what the system takes from a dead process; nothing is written."""
        backend._table._database.connection.close()
        backend.forked()

    async def cut(self, place: Any) -> None:
        """Keep the locks that every write takes, as processes that hang in their middle do."""
        self._cuts = contextlib.ExitStack()
        for name in (f"{place}-lock", f"{place}-workers/renewals"):
            file = self._cuts.enter_context(Path(name).open("ab"))  # noqa: ASYNC230, SIM115
            fcntl.flock(file, fcntl.LOCK_EX)
        self._wait_for_locks(0.05)

    async def heal(self, place: Any) -> None:
        self._cuts.close()
        self._wait_for_locks(10)

    @contextmanager
    def lock(self, place: Any, job_id: str) -> Iterator[None]:
        """Write, as a program does that is not ours: it locks all records."""
        with closing(sqlite3.connect(place, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            other.execute("UPDATE sched_job SET name = 'other' WHERE id = ?", (job_id,))
            self._wait_for_locks(0.05)
            yield
            self._wait_for_locks(10)
            other.execute("ROLLBACK")

    async def spoil(self, place: Any, job_id: str) -> None:
        with closing(sqlite3.connect(place)) as connection, connection:
            connection.execute("UPDATE sched_job SET format = 99 WHERE id = ?", (job_id,))

    async def plant(self, place: Any, job_id: str) -> None:
        with closing(sqlite3.connect(place)) as connection, connection:
            connection.execute("UPDATE sched_meta SET value = value + 1 WHERE key = 'serial'")
            newest = "FROM sched_ledger WHERE job_id = ? ORDER BY seq DESC LIMIT 1"
            serial = "SELECT value FROM sched_meta WHERE key = 'serial'"
            connection.execute(
                f"INSERT INTO sched_ledger (seq, indexed, {LEDGER_COLUMNS}) "
                f"SELECT ({serial}), 0, {PLANTED} {newest}",
                (job_id,),
            )


class JetStreamHarness(Harness):
    """On a real server that all examples share, each with streams of its own."""

    name = "jetstream"
    can_cut = can_spoil = can_plant = True

    def __init__(self) -> None:
        self._numbers = itertools.count()
        self._proxy: Proxy | None = None

    @property
    def proxy(self) -> Proxy:
        if self._proxy is None:
            self._proxy = Proxy(("127.0.0.1", shared_server().port)).__enter__()
        return self._proxy

    @contextmanager
    def place(self) -> Iterator[str]:
        place = f"exam{next(self._numbers)}"
        yield place
        delete_streams(shared_server().url, f"KV_{place}", f"KV_{place}-lines")

    def backend(self, place: Any) -> JetStreamBackend:
        return JetStreamBackend(
            f"nats://127.0.0.1:{self.proxy.port}",
            job_bucket=place,
            execution_bucket=f"{place}-lines",
            time="clock",
            lease=LEASE,
            publish_retry_attempts=1,
        )

    async def cut(self, place: Any) -> None:
        self.proxy.drop()

    async def heal(self, place: Any) -> None:
        self.proxy.heal()

    async def crash(self, backend: Any) -> None:
        """Take away the connection and the tasks, as the system does with a dead process."""
        session, backend._session = backend._session, None
        for task in session.tasks:
            task.cancel()
        await session.wire.close()

    async def catch_up(self, backend: Any) -> None:
        if backend._session is not None:
            await backend.reconcile()

    async def spoil(self, place: Any, job_id: str) -> None:
        connection = await nats.connect(shared_server().url)
        try:
            js = connection.jetstream()
            subject = f"$KV.{place}.{token_of(job_id)}"
            stored = await js.get_last_msg(f"KV_{place}", subject)
            body = (stored.data or b"").replace(b'"format":1', b'"format":99', 1)
            await js.publish(subject, body)
        finally:
            await connection.close()

    async def plant(self, place: Any, job_id: str) -> None:
        names = JetStreamBackend(job_bucket=place, execution_bucket=f"{place}-lines").options.names
        connection = await nats.connect(shared_server().url)
        try:
            subject = names.run("30d", token_of(job_id), "of-a-newer-version")
            await connection.jetstream().publish(subject, b"\xff: no JSON")
        finally:
            await connection.close()


class PostgresPlace:
    """A schema, and a way to it that can be cut."""

    def __init__(self, address: str, schema: str, proxy: Proxy) -> None:
        self.schema, self.proxy = schema, proxy
        self.address = address.replace(f":{proxy.target[1]}/", f":{proxy.port}/")


class PostgresHarness(Harness):
    name = "postgres"
    can_cut = can_spoil = can_lock = can_plant = True

    @contextmanager
    def place(self) -> Iterator[PostgresPlace]:
        port = postgres_server.shared().port
        with postgres_server.schema() as (address, schema), Proxy(("127.0.0.1", port)) as proxy:
            yield PostgresPlace(address, schema, proxy)

    def backend(self, place: Any) -> SqlBackend:
        return SqlBackend(place.address, schema=place.schema, time="clock", lease=LEASE)

    async def crash(self, backend: Any) -> None:
        """Hang up, as the system does for a dead process; nothing is written."""
        backend._table.close()

    async def cut(self, place: Any) -> None:
        place.proxy.drop()

    async def heal(self, place: Any) -> None:
        place.proxy.heal()

    async def spoil(self, place: Any, job_id: str) -> None:
        local = postgres_server.shared().local.replace("dbname=postgres", "dbname=sched")
        with psycopg.connect(local) as connection:
            connection.execute(
                f"UPDATE {place.schema}.job SET format = 99 WHERE id = %s", (job_id,)
            )

    @contextmanager
    def lock(self, place: Any, job_id: str) -> Iterator[None]:
        local = postgres_server.shared().local.replace("dbname=postgres", "dbname=sched")
        with psycopg.connect(local) as connection:
            locked = connection.execute(
                f"SELECT id FROM {place.schema}.job WHERE id = %s FOR UPDATE", (job_id,)
            )
            assert locked.fetchone() == (job_id,)
            yield
            connection.rollback()

    async def plant(self, place: Any, job_id: str) -> None:
        local = postgres_server.shared().local.replace("dbname=postgres", "dbname=sched")
        with psycopg.connect(local) as connection:
            newest = f"FROM {place.schema}.ledger WHERE job_id = %s ORDER BY seq DESC LIMIT 1"
            connection.execute(
                f"INSERT INTO {place.schema}.ledger (seq, {LEDGER_COLUMNS}) "
                f"SELECT nextval('{place.schema}.serial'), {PLANTED} {newest}",
                (job_id,),
            )


class PooledPostgresHarness(PostgresHarness):
    """Behind a real PgBouncer in transaction mode."""

    name = "postgres behind pgbouncer"

    @contextmanager
    def place(self) -> Iterator[PostgresPlace]:
        with super().place() as place, Proxy(("127.0.0.1", self._port)) as proxy:
            pooled = place.address.replace(f":{place.proxy.port}/", f":{proxy.target[1]}/")
            yield PostgresPlace(pooled, place.schema, proxy)

    @functools.cached_property
    def _port(self) -> int:
        stack = contextlib.ExitStack()
        atexit.register(stack.close)
        return stack.enter_context(pgbouncer(postgres_server.shared().port))

    def backend(self, place: Any) -> SqlBackend:
        options: dict[str, Any] = {"schema": place.schema, "time": "clock", "lease": LEASE}
        return SqlBackend(place.address, pooled=True, **options)
