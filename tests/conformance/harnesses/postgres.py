"""A schema of a real server, behind a proxy, and maybe behind PgBouncer."""

from __future__ import annotations

import atexit
import contextlib
import functools
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
from tests import postgres_server
from tests.conformance.harnesses import LEASE
from tests.pgbouncer import find, pgbouncer
from tests.proxy import Proxy

from sched_sql import DatabaseBackend, SqlBackend
from sched_testkit import Harness


class PostgresPlace:
    """A schema, and a way to it that can be cut."""

    def __init__(self, address: str, schema: str, proxy: Proxy) -> None:
        self.schema, self.proxy = schema, proxy
        self.address = address.replace(f":{proxy.target[1]}/", f":{proxy.port}/")


class PostgresHarness(Harness):
    name = "postgres"
    can_connect = can_cut = can_spoil = can_lock = can_spoil_execution = True
    can_stall = can_refuse_writes = can_make_newer = True

    @contextmanager
    def place(self) -> Iterator[PostgresPlace]:
        port = postgres_server.shared().port
        with postgres_server.schema() as (address, schema), Proxy(("127.0.0.1", port)) as proxy:
            yield PostgresPlace(address, schema, proxy)

    def backend(self, place: Any) -> DatabaseBackend:
        return SqlBackend(place.address, schema=place.schema, time="clock", lease=LEASE)

    def connect(self, place: Any) -> psycopg.Connection[Any]:
        """Give a synchronous one: asynchronous ones do not run on trio."""
        return psycopg.connect(place.address, prepare_threshold=None)

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

    async def spoil_execution(self, place: Any, job_id: str) -> None:
        table = f"{place.schema}.execution"
        newest = f"SELECT max(seq) FROM {table} WHERE job_id = '{job_id}'"
        self._admin(f"UPDATE {table} SET status = 'deferred' WHERE seq = ({newest})")

    @staticmethod
    def _admin(*statements: str) -> int:
        """Run statements as the superuser; return how many rows the last one wrote."""
        local = postgres_server.shared().local.replace("dbname=postgres", "dbname=sched")
        with psycopg.connect(local) as connection:
            for statement in statements:
                written = connection.execute(statement)
            return written.rowcount

    @contextmanager
    def stall(self, place: Any) -> Iterator[None]:
        place.proxy.stall()
        yield
        place.proxy.heal()

    @contextmanager
    def refuse_writes(self, place: Any) -> Iterator[None]:
        """Refuse as a server that is read-only does, in this schema alone."""
        names = ("job", "execution", "meta", "worker")
        self._admin(
            f"CREATE FUNCTION {place.schema}.refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
            "RAISE EXCEPTION 'cannot execute in a read-only transaction' "
            "USING ERRCODE = '25006'; END $$",
            *(
                f"CREATE TRIGGER refuse BEFORE INSERT OR UPDATE OR DELETE ON {place.schema}.{name} "
                f"FOR EACH STATEMENT EXECUTE FUNCTION {place.schema}.refuse()"
                for name in names
            ),
        )
        yield
        self._admin(f"DROP FUNCTION {place.schema}.refuse() CASCADE")

    @contextmanager
    def make_newer(self, place: Any) -> Iterator[None]:
        meta = f"{place.schema}.meta"
        self._admin(f"UPDATE {meta} SET value = value + 900 WHERE key = 'oldest'")
        yield
        restored = self._admin(
            f"UPDATE {meta} SET value = value - 900 WHERE key = 'oldest' AND value > 900"
        )
        assert restored == 1, "the schema was changed"


class BehindPgBouncer(PostgresHarness):
    """A PostgreSQL behind a real PgBouncer."""

    mode: str
    sessions: int
    """How many it may have with the server."""

    @contextmanager
    def place(self) -> Iterator[PostgresPlace]:
        with postgres_server.schema() as (address, schema):
            port = postgres_server.shared().port
            pooled = address.replace(f":{port}/", f":{self._port}/")
            with Proxy(("127.0.0.1", self._port)) as proxy:
                yield PostgresPlace(pooled, schema, proxy)

    @functools.cached_property
    def _port(self) -> int:
        stack = contextlib.ExitStack()
        atexit.register(stack.close)
        port, sessions = postgres_server.shared().port, self.sessions
        return stack.enter_context(pgbouncer(port, mode=self.mode, default_pool_size=sessions))


class SessionPostgresHarness(BehindPgBouncer):
    """Each connection has a session for itself, left by an earlier one: that is had sooner.

    Where there is no PgBouncer, the server begins each one: nothing else is different.
    """

    name = "postgres"
    mode, sessions = "session", 100

    @contextmanager
    def place(self) -> Iterator[PostgresPlace]:
        with super().place() if self._is_there else PostgresHarness.place(self) as place:
            yield place

    @functools.cached_property
    def _is_there(self) -> bool:
        try:
            find()
        except RuntimeError:  # the tests of poolers fail for it
            return False
        return True


class PooledPostgresHarness(BehindPgBouncer):
    """Each transaction has a session of its own."""

    name = "postgres behind pgbouncer"
    mode, sessions = "transaction", 20

    def backend(self, place: Any) -> DatabaseBackend:
        options: dict[str, Any] = {"schema": place.schema, "time": "clock", "lease": LEASE}
        return SqlBackend(place.address, pooled=True, **options)
