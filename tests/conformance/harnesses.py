"""How our own backends are examined. A third party's file has one of these classes in it."""

from __future__ import annotations

import fcntl
import sqlite3
import weakref
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import psycopg
from tests import postgres_server
from tests.proxy import Proxy

from sched_core import MemoryBackend, MemoryStore, Undecodable
from sched_sql import SqlBackend
from sched_testkit import Harness

LEASE = timedelta(seconds=30)


class MemoryHarness(Harness):
    name = "memory"
    can_spoil = True

    @contextmanager
    def place(self) -> Iterator[MemoryStore]:
        yield MemoryStore()

    def backend(self, place: Any) -> MemoryBackend:
        return MemoryBackend(place, lease=LEASE)

    async def spoil(self, place: Any, job_id: str) -> None:
        row = place.row(job_id)
        row.job = Undecodable(job_id, "format 99 is not known", 99, b"{}")
        place.save(job_id, row)


class SqliteHarness(Harness):
    name = "sqlite"
    can_cut = can_spoil = True

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
            backend._table._database.lock._timeout = seconds  # type: ignore[attr-defined]  # ours

    async def crash(self, backend: Any) -> None:
        """Let go of what the system takes from a dead process; nothing is written."""
        backend._table._database.connection.close()
        backend.forked()

    async def cut(self, place: Any) -> None:
        """Keep the lock that every write takes, as a process that hangs in a transaction does."""
        self._lock = Path(f"{place}-lock").open("rb")  # noqa: SIM115, ASYNC230 -- closed by heal
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        self._wait_for_locks(0.05)

    async def heal(self, place: Any) -> None:
        self._lock.close()
        self._wait_for_locks(10)

    async def spoil(self, place: Any, job_id: str) -> None:
        with closing(sqlite3.connect(place)) as connection, connection:
            connection.execute("UPDATE sched_job SET format = 99 WHERE id = ?", (job_id,))


class PostgresPlace:
    """A schema, and a way to it that can be cut."""

    def __init__(self, address: str, schema: str, proxy: Proxy) -> None:
        self.schema, self.proxy = schema, proxy
        self.address = address.replace(f":{proxy.target[1]}/", f":{proxy.port}/")


class PostgresHarness(Harness):
    name = "postgres"
    can_cut = can_spoil = True

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
