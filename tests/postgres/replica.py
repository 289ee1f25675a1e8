"""One replica of the torture: runs jobs and writes down what it does, before and after.

Started as ``python replica.py ADDRESS SCHEMA JOURNAL LEASE``; ends when its standard input does.
"""

from __future__ import annotations

import json
import os
import sys
from datetime import timedelta
from typing import Any

import anyio

from sched_core import JobEvent, Scheduler
from sched_core.clock import boot_seconds
from sched_sql import PostgresBackend


class Journal:
    """Lines that are whole however the process ends."""

    def __init__(self, path: str) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)

    def write(self, what: str, event: JobEvent, worker: str) -> None:
        line: dict[str, Any] = {
            "what": what,
            "job": event.id,
            "key": event.key,
            "attempt": event.attempt,
            "token": event.token,
            "worker": worker,
            "at": boot_seconds(),
        }
        os.write(self._file, (json.dumps(line) + "\n").encode())


async def main(address: str, schema: str, path: str, lease: float) -> None:
    journal = Journal(path)
    name = f"pid{os.getpid()}"

    async def handle(event: JobEvent) -> None:
        journal.write("start", event, name)
        # Slow enough that every process holds something at any moment.
        await anyio.sleep(0.4 if event.id.startswith("often") else event.token % 5 / 100)
        journal.write("end", event, name)

    backend = PostgresBackend(address, schema=schema, lease=timedelta(seconds=lease))
    async with (
        Scheduler(backend, handler=handle, worker=name) as scheduler,
        anyio.create_task_group() as tasks,
    ):
        tasks.start_soon(scheduler.run_forever)
        await anyio.to_thread.run_sync(sys.stdin.read)
        await scheduler.stop(10)


if __name__ == "__main__":
    anyio.run(main, sys.argv[1], sys.argv[2], sys.argv[3], float(sys.argv[4]))
