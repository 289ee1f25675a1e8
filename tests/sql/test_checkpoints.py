"""SQLite's write-ahead log: it stays short, and no worker waits long for that."""

# ruff: noqa: ASYNC240 -- the files are what is tested

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import anyio
import pytest
from tests.sql.stores import NOW, Store, done, job, run

from sched_core import Room
from sched_core.clock import SystemClock
from sched_sql import SqlBackend
from sched_sql.sqlite import checkpoints
from sched_sql.sqlite.database import Database


def test_the_write_ahead_log_stays_small_and_all_is_there(tmp_path: Path) -> None:
    async def test(store: Store) -> None:
        backend = await store.open()
        await backend.add([job(f"{number:04}") for number in range(500)])
        for _ in range(20):
            claims = (await backend.claim_due(Room(500))).claims
            await backend.settle([done(claim, next_run=NOW) for claim in claims])
        wal = Path(f"{store.path}-wal").stat().st_size
        assert wal < 30_000_000
        await backend.close()
        with closing(sqlite3.connect(store.path)) as connection:
            assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
            assert connection.execute("SELECT count(*) FROM sched_execution").fetchone() == (
                10_000,
            )

    run(test, "sqlite", tmp_path)


def test_deleting_in_bulk_does_not_put_off_checkpoints(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sched_sql.sqlite.checkpoints.WAL_PAGES", 200)
    path, sizes = tmp_path / "jobs.db", set()

    async def main() -> None:
        backend = SqlBackend(path, synchronous="FULL")
        await backend.open(SystemClock(), worker="one")
        await backend.add([job("a")])
        for _ in range(8):
            for _ in range(150):
                (claim,) = (await backend.claim_due(Room(1))).claims
                await backend.settle([done(claim, next_run=NOW)])
            sizes.add(Path(f"{path}-wal").stat().st_size // 4096)
            assert await backend.prune(NOW + timedelta(microseconds=1)) == 150
        await backend.close()

    anyio.run(main)
    assert max(sizes) < 800


def test_at_normal_writes_go_on_while_a_thread_syncs_the_log_for_a_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoints, "WAL_PAGES", 200)
    sync, checkpoint = checkpoints._sync, Database._checkpoint
    begun, may_end = threading.Event(), threading.Event()
    synced: list[str] = []
    made: list[int] = []

    def slow_sync(path: str) -> None:
        begun.set()
        assert may_end.wait(60)
        sync(path)
        synced.append(path)

    def counted(self: Database, connection: sqlite3.Connection) -> None:
        made.append(len(synced))
        checkpoint(self, connection)

    monkeypatch.setattr(checkpoints, "_sync", slow_sync)
    monkeypatch.setattr(Database, "_checkpoint", counted)
    path = tmp_path / "jobs.db"

    async def main() -> None:
        backend = SqlBackend(path, synchronous="NORMAL")
        await backend.open(SystemClock(), worker="one")
        await backend.add([job("a")])

        async def write() -> None:
            (claim,) = (await backend.claim_due(Room(1))).claims
            await backend.settle([done(claim, next_run=NOW)])

        while not begun.is_set():
            await write()
        for _ in range(100):
            await write()
        assert made == []
        may_end.set()
        with anyio.fail_after(60):
            while len(made) < 3:
                await write()
        await backend.close()

    anyio.run(main)
    assert made[:3] == [1, 2, 3]
    assert set(synced) == {f"{path}-wal"}


def no_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    start = threading.Thread.start

    def refuse(thread: threading.Thread) -> None:
        if thread.name == "sched-sync":
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", refuse)


def no_log(monkeypatch: pytest.MonkeyPatch) -> None:
    sync = checkpoints._sync
    monkeypatch.setattr(checkpoints, "_sync", lambda path: sync(f"{path}-missing"))


@pytest.mark.parametrize("trouble", [no_thread, no_log])
def test_a_log_that_cannot_be_synced_before_is_left_to_the_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trouble: Callable[[pytest.MonkeyPatch], None]
) -> None:
    trouble(monkeypatch)
    monkeypatch.setattr(checkpoints, "WAL_PAGES", 200)
    checkpoint = Database._checkpoint
    made: list[sqlite3.Connection] = []

    def counted(self: Database, connection: sqlite3.Connection) -> None:
        made.append(connection)
        checkpoint(self, connection)

    monkeypatch.setattr(Database, "_checkpoint", counted)

    async def main() -> None:
        backend = SqlBackend(tmp_path / "jobs.db", synchronous="NORMAL")
        await backend.open(SystemClock(), worker="one")
        await backend.add([job("a")])
        with anyio.fail_after(60):
            while len(made) < 2:
                (claim,) = (await backend.claim_due(Room(1))).claims
                await backend.settle([done(claim, next_run=NOW)])
        await backend.close()

    anyio.run(main)
