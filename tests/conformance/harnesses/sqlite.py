"""A SQLite file, and what others do to it."""

from __future__ import annotations

import contextlib
import fcntl
import sqlite3
import weakref
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from tests.conformance.harnesses import LEASE

from sched_core import BackendError
from sched_sql import SqliteBackend
from sched_testkit import Harness


class SqliteHarness(Harness):
    name = "sqlite"
    can_cut = can_spoil = can_lock = can_spoil_execution = True
    can_stall = can_refuse_writes = can_make_newer = True

    def __init__(self) -> None:
        self._made: weakref.WeakSet[SqliteBackend] = weakref.WeakSet()

    @contextmanager
    def place(self) -> Iterator[Path]:
        with TemporaryDirectory() as folder:
            yield Path(folder) / "jobs.db"

    def backend(self, place: Any) -> SqliteBackend:
        backend = SqliteBackend(place, lease=LEASE)
        self._made.add(backend)
        return backend

    def _wait_for_locks(self, seconds: float) -> None:
        for backend in self._made:
            database = backend._table._database
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

    async def spoil_execution(self, place: Any, job_id: str) -> None:
        newest = "SELECT max(seq) FROM sched_execution WHERE job_id = ?"
        with closing(sqlite3.connect(place)) as connection, connection:
            connection.execute(
                f"UPDATE sched_execution SET status = 'deferred' WHERE seq = ({newest})", (job_id,)
            )

    @contextmanager
    def stall(self, place: Any) -> Iterator[None]:
        """Keep the locks that every write takes, for shorter than it waits for them."""
        with contextlib.ExitStack() as stack:
            for name in (f"{place}-lock", f"{place}-workers/renewals"):
                fcntl.flock(stack.enter_context(Path(name).open("ab")), fcntl.LOCK_EX)
            yield

    @contextmanager
    def refuse_writes(self, place: Any) -> Iterator[None]:
        """Refuse writes as on a disk that was mounted read-only."""
        self._query_only("ON")
        yield
        self._query_only("OFF")

    def _query_only(self, state: str) -> None:
        for backend in self._made:
            with contextlib.suppress(BackendError, sqlite3.ProgrammingError):  # closed, crashed
                database = backend._table._database
                database.connection.execute(f"PRAGMA query_only = {state}")

    @contextmanager
    def make_newer(self, place: Any) -> Iterator[None]:
        with written_by_others(place) as connection:
            connection.execute("UPDATE sched_meta SET value = value + 900 WHERE key = 'schema'")
        yield
        with written_by_others(place) as connection:
            changed = (
                "UPDATE sched_meta SET value = value - 900 WHERE key = 'schema' AND value > 900"
            )
            assert connection.execute(changed).rowcount == 1, "the schema was changed"


@contextmanager
def written_by_others(place: Path) -> Iterator[sqlite3.Connection]:
    """Write to a file, as another program."""
    with closing(sqlite3.connect(place)) as connection, connection:
        yield connection
