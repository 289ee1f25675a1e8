"""Backends under torture."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path

from sched_core import Backend
from sched_sql import SqlBackend
from sched_testkit.torture import Fault, TortureHarness


class Sqlite(TortureHarness):
    name = "SQLite"
    processes = 3

    @contextmanager
    def place(self, folder: str) -> Iterator[str]:
        path = Path(folder) / "jobs.db"
        yield str(path)
        with closing(sqlite3.connect(path)) as connection:
            assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)

    def backend(self, address: str) -> Backend:
        return SqlBackend(Path(address), lease=self.lease)

    def faults(self, address: str) -> Mapping[str, Fault]:
        def locked(seconds: float) -> None:
            """Somebody else writes, for long; it may have to wait for a process that is stopped."""
            with closing(sqlite3.connect(address, isolation_level=None, timeout=30)) as held:
                held.execute("BEGIN IMMEDIATE")
                time.sleep(seconds)
                held.execute("ROLLBACK")

        return {"locked": locked}
