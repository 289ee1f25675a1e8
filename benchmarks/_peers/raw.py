"""What memory and SQLite can do by themselves: ``WORKLOAD STORE PLACE N``.

Claim a batch of a hundred, advance it, write a line each; nothing else, no scheduler.
"""

from __future__ import annotations

import heapq
import sqlite3
from pathlib import Path

from benchmarks._peers import figures
from benchmarks._peers.figures import Meter

BATCH = 100


def memory(workload: str, n: int) -> dict[str, float]:
    rows = [(i, f"j{i}") for i in range(n)]
    meter = Meter()
    if workload.startswith("register"):
        jobs = {name: row for row, name in rows}
        assert len(jobs) == n
    else:
        heapq.heapify(rows)
        lines = [heapq.heappop(rows)[1] for _ in range(n)]
        assert len(lines) == n
    return meter.rate(n)


def sqlite(folder: str, synchronous: str) -> sqlite3.Connection:
    connection = sqlite3.connect(Path(folder) / "raw.db", isolation_level=None)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute(f"PRAGMA synchronous={synchronous.upper()}")
    connection.execute("CREATE TABLE job(id TEXT PRIMARY KEY, due INT, token INT) WITHOUT ROWID")
    connection.execute("CREATE INDEX job_due ON job(due)")
    connection.execute("CREATE TABLE line(id TEXT PRIMARY KEY, ended INT) WITHOUT ROWID")
    return connection


def register(connection: sqlite3.Connection, n: int, *, bulk: bool) -> dict[str, float]:
    rows = [(f"j{i}", i, 0) for i in range(n)]
    insert = "INSERT INTO job VALUES (?, ?, ?)"
    meter = Meter()
    if bulk:
        connection.execute("BEGIN IMMEDIATE")
        connection.executemany(insert, rows)
        connection.execute("COMMIT")
    else:
        for row in rows:
            connection.execute(insert, row)
    return meter.rate(n)


def burst(connection: sqlite3.Connection, n: int) -> dict[str, float]:
    meter = Meter()
    for _ in range(0, n, BATCH):
        connection.execute("BEGIN IMMEDIATE")
        due = connection.execute(
            "SELECT id FROM job WHERE due IS NOT NULL ORDER BY due LIMIT ?", (BATCH,)
        ).fetchall()
        connection.executemany("UPDATE job SET token = 1 WHERE id = ?", due)
        connection.execute("COMMIT")
        connection.execute("BEGIN IMMEDIATE")
        connection.executemany("UPDATE job SET due = NULL WHERE id = ?", due)
        connection.executemany("INSERT INTO line VALUES (?, 1)", due)
        connection.execute("COMMIT")
    return meter.rate(n)


def main() -> None:
    asked = figures.call()
    if asked.store == "memory":
        figures.tell(memory(asked.workload, asked.n))
        return
    connection = sqlite(asked.place, asked.store.removeprefix("sqlite-"))
    found = register(connection, asked.n, bulk=asked.workload != "register")
    figures.tell(burst(connection, asked.n) if asked.workload == "burst" else found)


if __name__ == "__main__":
    main()
