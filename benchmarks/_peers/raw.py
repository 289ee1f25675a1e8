"""What the stores can do by themselves: ``python raw.py WORKLOAD STORE FOLDER N``.

Claim a batch of a hundred, advance it, write a line each; nothing else, no scheduler.
"""

from __future__ import annotations

import heapq
import json
import sqlite3
import sys
import time
from pathlib import Path

BATCH = 100


def sqlite(folder: str, name: str) -> sqlite3.Connection:
    connection = sqlite3.connect(Path(folder) / "raw.db", isolation_level=None)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute(f"PRAGMA synchronous={name.removeprefix('sqlite-').upper()}")
    connection.execute("CREATE TABLE job(id TEXT PRIMARY KEY, due INT, token INT) WITHOUT ROWID")
    connection.execute("CREATE INDEX job_due ON job(due)")
    connection.execute("CREATE TABLE line(id TEXT PRIMARY KEY, ended INT) WITHOUT ROWID")
    return connection


def main() -> None:
    workload, name, folder, n = sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])
    rows = [(f"j{i}", i, 0) for i in range(n)]
    if name == "memory":
        began, cpu = time.perf_counter(), time.process_time()
        if workload.startswith("register"):
            jobs = {row[0]: row for row in rows}
            assert len(jobs) == n
        else:
            heap = [(row[1], row[0]) for row in rows]
            heapq.heapify(heap)
            lines = [heapq.heappop(heap)[1] for _ in range(n)]
            assert len(lines) == n
    else:
        connection = sqlite(folder, name)
        insert = "INSERT INTO job VALUES (?, ?, ?)"
        began, cpu = time.perf_counter(), time.process_time()
        if workload == "register":
            for row in rows:
                connection.execute(insert, row)
        else:
            connection.execute("BEGIN IMMEDIATE")
            connection.executemany(insert, rows)
            connection.execute("COMMIT")
        if workload == "burst":
            began, cpu = time.perf_counter(), time.process_time()
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
    spent = time.process_time() - cpu
    result = {"rate": n / (time.perf_counter() - began), "cpu_us": spent / n * 1e6}
    print(json.dumps(result))


if __name__ == "__main__":
    main()
