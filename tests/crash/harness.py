"""Starting and ending service processes, and reading what they left."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import anyio

from sched_core import Execution, Job, Scheduler
from sched_core.testing import history
from sched_sql import SqlBackend

WORKER = Path(__file__).with_name("worker.py")


def now() -> datetime:
    return datetime.now(UTC)


class Service:
    """The processes of one test: they share a database and a journal."""

    def __init__(self, folder: Path) -> None:
        self.database = folder / "jobs.db"
        self.journal = folder / "journal.jsonl"
        self.log = folder / "log.txt"
        self.processes: list[subprocess.Popen[bytes]] = []

    def start(self, mode: str, *options: str, ready: bool = True) -> subprocess.Popen[bytes]:
        command = [sys.executable, str(WORKER), str(self.database), str(self.journal), mode]
        with self.log.open("ab") as log:
            process = subprocess.Popen([*command, *options], stdout=subprocess.PIPE, stderr=log)
        self.processes.append(process)
        if ready:
            assert process.stdout is not None
            line = process.stdout.readline()
            assert line == b"ready\n", self.log.read_text()
        return process

    def end(self, process: subprocess.Popen[bytes], number: signal.Signals) -> int:
        process.send_signal(number)
        try:
            return process.wait(timeout=60)
        finally:
            if process.stdout is not None:
                process.stdout.close()

    def close(self) -> None:
        for process in self.processes:
            if process.poll() is None:
                process.kill()
                process.wait(timeout=60)
            if process.stdout is not None:
                process.stdout.close()

    # -- what is left

    def entries(self) -> list[dict[str, Any]]:
        if not self.journal.exists():
            return []
        # A worker may be writing: what follows the last newline is not whole yet.
        whole, _, _ = self.journal.read_text().rpartition("\n")
        return [json.loads(line) for line in whole.splitlines()]

    def starts(self) -> list[dict[str, Any]]:
        return [entry for entry in self.entries() if entry["what"] == "start"]

    async def stored(self) -> tuple[list[Job], list[Execution]]:
        """Return all jobs, and the history, oldest first."""
        async with Scheduler(SqlBackend(self.database)) as scheduler:
            jobs = [job async for job in scheduler.list_jobs() if isinstance(job, Job)]
            executions = await history(scheduler)
        return jobs, executions[::-1]

    def history(self) -> list[Execution]:
        return anyio.run(self.stored)[1]

    def integrity(self) -> str:
        import sqlite3

        with closing(sqlite3.connect(self.database)) as connection:
            return str(connection.execute("PRAGMA integrity_check").fetchone()[0])


@contextmanager
def service(folder: Path) -> Iterator[Service]:
    made = Service(folder)
    try:
        yield made
    finally:
        made.close()


def alive(process: subprocess.Popen[bytes]) -> bool:
    return process.poll() is None


def send(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    os.kill(process.pid, number)
