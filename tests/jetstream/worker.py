"""A replica that the tests kill, stop and cut off: one process with one scheduler.

    python tests/jetstream/worker.py BUCKET JOURNAL LEASE REPLICAS URL [URL ...]

Each handler appends one line to the journal before anything else, with a single ``write``: what was
written survives the process.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import sys
import time
from datetime import timedelta
from pathlib import Path

from sched_core import JobEvent, Scheduler
from sched_jetstream import JetStreamBackend


async def main() -> None:
    bucket, journal, lease, replicas, *urls = sys.argv[1:]
    logging.basicConfig(filename=f"{journal}.log", level="INFO", format="%(asctime)s %(message)s")
    file = os.open(journal, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)

    async def handle(event: JobEvent) -> None:
        started = time.clock_gettime(time.CLOCK_BOOTTIME)
        line = [event.id, event.key, event.attempt, event.token, os.getpid(), started]
        line.append(event.delay.total_seconds())
        os.write(file, json.dumps(line).encode() + b"\n")
        if event.metadata.get("takes"):
            await asyncio.sleep(float(event.metadata["takes"]))

    backend = JetStreamBackend(
        urls,
        job_bucket=bucket,
        execution_bucket=f"{bucket}-lines",
        lease=timedelta(seconds=float(lease)),
        replicas=int(replicas),
        timeout=timedelta(seconds=2),
        reconcile_interval=timedelta(seconds=10),
        reconcile_grace=timedelta(seconds=3),
    )
    scheduler = Scheduler(backend, handler=handle)
    async with scheduler:
        watching = asyncio.create_task(report(scheduler, Path(f"{journal}.health")))
        await scheduler.run_forever()
        watching.cancel()


async def report(scheduler: Scheduler, path: Path) -> None:
    """Append what health says, each second."""
    while True:
        health = await scheduler.health()
        with path.open("a") as file:
            row = [time.clock_gettime(time.CLOCK_BOOTTIME), health.healthy, str(health.problems)]
            file.write(json.dumps(row) + "\n")
        await asyncio.sleep(1)


if __name__ == "__main__":
    asyncio.run(main())
