"""A service that is killed, stopped and doubled by the tests: one process on one SQLite file.

    python tests/crash/worker.py DATABASE JOURNAL {kinds,plain} [--base ISO] [--lease S]

Each handler writes one line to the journal when it begins and one when it ends, each with a single
``write`` to a file opened for appending: what was written survives the process.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import zlib
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import anyio

from sched_core import (
    CatchUp,
    Cron,
    FixedDelay,
    Interval,
    JobEvent,
    JobSpec,
    Once,
    Policy,
    Retry,
    Schedule,
    Scheduler,
)
from sched_sql import SqlBackend


def ms(number: int) -> timedelta:
    return timedelta(milliseconds=number)


KEPT = Policy(max_lost=1_000_000, keep_executions=None, keep_finished=None)


def policy(**changes: Any) -> Policy:
    return Policy(max_lost=1_000_000, keep_executions=None, keep_finished=None, **changes)


def specs(base: datetime) -> list[JobSpec]:
    """Return 200 jobs of all kinds."""
    made: list[JobSpec] = []

    def add(kind: str, count: int, schedule: Any, rules: Policy = KEPT) -> None:
        for n in range(count):
            what: Schedule = schedule(n)
            made.append(JobSpec(f"{kind}-{n}", what, metadata={"kind": kind}, policy=rules))

    add("cron", 30, lambda n: Cron(f"*/{n % 3 + 1} * * * * *"))
    add("interval", 40, lambda n: Interval(ms(400 + 60 * n)))
    add("all", 10, lambda n: Interval(ms(700 + 50 * n)), policy(misfire=CatchUp(limit=10_000)))
    add("once", 40, lambda n: Once(base + ms(200 * n)))
    add("retry", 30, lambda n: Interval(ms(1000 + 40 * n)), policy(retry=Retry(3, ms(100))))
    add("delay", 20, lambda n: FixedDelay(ms(300 + 20 * n)))
    add("timeout", 20, lambda n: Interval(ms(1500 + 50 * n)), policy(timeout=ms(100)))
    add("slow", 10, lambda n: Interval(ms(900 + 30 * n)))
    return made


class Journal:
    def __init__(self, path: str) -> None:
        self.file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)

    def write(self, what: str, event: JobEvent) -> None:
        line = {
            "what": what,
            "id": event.id,
            "key": event.key,
            "attempt": event.attempt,
            "token": event.token,
            "scheduled_at": event.scheduled_at.isoformat(),
            "pid": os.getpid(),
        }
        os.write(self.file, json.dumps(line).encode() + b"\n")


def fails(event: JobEvent) -> bool:
    """Whether a job of kind ``retry`` fails: decided by its key, alike in every process."""
    failing = zlib.crc32(event.key.encode()) % 4
    return event.attempt <= failing  # 3: fails for good


class Handler:
    def __init__(self, journal: Journal) -> None:
        self.journal = journal

    async def __call__(self, event: JobEvent) -> None:
        self.journal.write("start", event)
        how = "cancelled"
        try:
            kind = event.metadata.get("kind", "")
            if kind == "timeout":
                await anyio.sleep(30)
            elif kind == "slow":
                await anyio.sleep(0.4)
            elif kind == "delay":
                await anyio.sleep(0.03)
            elif kind == "sleep":
                await anyio.sleep(float(event.metadata["seconds"]))
            elif kind == "retry" and fails(event):
                how = "failed"
                raise ValueError("as decided by its key")
            how = "end"
        finally:
            self.journal.write(how, event)


async def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("database")
    parser.add_argument("journal")
    parser.add_argument("mode", choices=["kinds", "plain"])
    parser.add_argument("--base", default=datetime.now(UTC).isoformat())
    parser.add_argument("--lease", type=float, default=30)
    options = parser.parse_args()
    backend = SqlBackend(Path(options.database), lease=timedelta(seconds=options.lease))
    handler = Handler(Journal(options.journal))
    async with Scheduler(backend, handler=handler) as scheduler:
        if options.mode == "kinds":
            for spec in specs(datetime.fromisoformat(options.base)):
                await scheduler.ensure_job(
                    spec.id, spec.schedule, metadata=spec.metadata, policy=spec.policy
                )
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(scheduler.run_forever)
            await scheduler.wait_until_running()
            sys.stdout.write("ready\n")
            sys.stdout.flush()


if __name__ == "__main__":
    anyio.run(main)
    sys.exit(0)
