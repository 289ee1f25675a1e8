"""What any scheduler of this kind has to do for a run, and nothing else.

Take it from a heap of moments; have a standing task call a handler; make a value of what happened;
put the next run into the heap. On SQLite, one transaction for each batch besides, written by one
thread, durable: the job is updated, and a line inserted. No rule, no claim, no error is looked at.
"""

from __future__ import annotations

import asyncio
import heapq
import os
import sqlite3
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

from attrs import frozen

BATCH = 500
BEGIN = datetime(2026, 1, 1, tzinfo=UTC)
SECOND = timedelta(seconds=1)

_SCHEMA = """
CREATE TABLE job (id INTEGER PRIMARY KEY, due REAL, text TEXT);
CREATE INDEX job_due ON job (due);
CREATE TABLE line (id INTEGER PRIMARY KEY, job INTEGER, due REAL, started REAL, ended REAL);
"""


@frozen
class Line:
    """What is told of a run."""

    job: int
    due: datetime
    started: datetime
    ended: datetime
    status: str
    attempt: int


async def trivial(line: Line) -> None:
    """Do nothing."""


class Store:
    """A heap, and a database if there is one."""

    def __init__(self, jobs: int, database: Path | None) -> None:
        self.heap = [(BEGIN, job) for job in range(jobs)]
        self.lines: list[Line] = []
        self._thread = ThreadPoolExecutor(1)
        self._connection: sqlite3.Connection | None = None
        if database is not None:
            self._connection = sqlite3.connect(
                database, isolation_level=None, check_same_thread=False
            )
            self._connection.execute("PRAGMA journal_mode = WAL")
            self._connection.execute("PRAGMA synchronous = FULL")
            self._connection.executescript(_SCHEMA)
            self._connection.execute("BEGIN")
            rows = [(job, BEGIN.timestamp(), "{}" * 100) for _, job in self.heap]
            self._connection.executemany("INSERT INTO job VALUES (?, ?, ?)", rows)
            self._connection.execute("COMMIT")

    def take(self, now: datetime) -> list[tuple[datetime, int]]:
        """Take a batch of what is due."""
        batch: list[tuple[datetime, int]] = []
        while self.heap and self.heap[0][0] <= now and len(batch) < BATCH:
            batch.append(heapq.heappop(self.heap))
        return batch

    async def write(self, lines: list[Line]) -> None:
        """Record runs; each job is due again a second later."""
        self.lines += lines
        if self._connection is not None:
            loop = asyncio.get_running_loop()
            await loop.run_in_executor(self._thread, self._write, self._connection, lines)
        for line in lines:
            heapq.heappush(self.heap, (line.due + SECOND, line.job))

    @staticmethod
    def _write(connection: sqlite3.Connection, lines: list[Line]) -> None:
        connection.execute("BEGIN IMMEDIATE")
        connection.executemany(
            "UPDATE job SET due = ? WHERE id = ?",
            [((line.due + SECOND).timestamp(), line.job) for line in lines],
        )
        connection.executemany(
            "INSERT INTO line (job, due, started, ended) VALUES (?, ?, ?, ?)",
            [
                (line.job, line.due.timestamp(), line.started.timestamp(), line.ended.timestamp())
                for line in lines
            ],
        )
        connection.execute("COMMIT")

    def close(self) -> None:
        """Let go of the thread and the database."""
        self._thread.shutdown()
        if self._connection is not None:
            self._connection.close()


async def _run_due(store: Store, now: datetime) -> int:
    queue: asyncio.Queue[Line] = asyncio.Queue()
    runs = 0

    async def work() -> None:
        while True:
            line = await queue.get()
            await trivial(line)
            queue.task_done()

    worker = asyncio.create_task(work())
    while batch := store.take(now):
        lines = [Line(job, due, now, now, "succeeded", 1) for due, job in batch]
        for line in lines:
            queue.put_nowait(line)
        await queue.join()
        await store.write(lines)
        runs += len(lines)
    worker.cancel()
    return runs


def recurring(jobs: int, ticks: int, database: Path | None = None) -> float:
    """Return seconds of process CPU per run."""

    async def run() -> float:
        started, runs = time.process_time(), 0
        for tick in range(ticks):
            runs += await _run_due(store, BEGIN + tick * SECOND)
        assert runs == jobs * ticks
        return (time.process_time() - started) / runs

    store = Store(jobs, database)
    try:
        return asyncio.run(run())
    finally:
        store.close()


def burst(jobs: int, database: Path | None = None) -> float:
    """Return seconds of process CPU per run where all are due at once."""
    return recurring(jobs, 1, database)


def start() -> float:
    """Return the CPU seconds of an interpreter that imports what a scheduler on SQLite needs."""
    before = cpu_of_children()
    subprocess.run([sys.executable, "-c", "import asyncio, sqlite3, attrs"], check=True)
    return cpu_of_children() - before


def cpu_of_children() -> float:
    """Return the CPU seconds of all processes that were started here and have ended."""
    spent = os.times()
    return spent.children_user + spent.children_system
