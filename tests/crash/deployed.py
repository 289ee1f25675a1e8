"""One pod of a service that is deployed: ``python deployed.py DATABASE VERSION``."""

from __future__ import annotations

import sys
from datetime import UTC, datetime, timedelta

import anyio

from sched_core import Interval, JobEvent, JobRouter, Scheduler
from sched_sql import SqlBackend

HALF, ONE = timedelta(milliseconds=500), timedelta(seconds=1)
SETS = {
    1: {"kept": HALF, "changed": ONE, "gone": HALF},
    2: {"kept": HALF, "changed": HALF, "fresh": HALF},
}


async def main(database: str, version: int) -> None:
    router = JobRouter(group="service", version=version, no_route_delay=0.2)
    for job_id, every in SETS[version].items():

        @router.job(job_id, Interval(every))
        async def handle(event: JobEvent) -> None:
            await anyio.sleep(0.05)

    backend = SqlBackend(database, lease=timedelta(seconds=5))
    async with (
        Scheduler(backend, handler=router) as scheduler,
        anyio.create_task_group() as tasks,
    ):
        declared_at = datetime.now(UTC)

        async def say_so() -> None:
            await scheduler.wait_until_running()
            await anyio.sleep(0.05)  # and signals are taken
            sys.stdout.write(f"ready {declared_at}\n")
            sys.stdout.flush()

        tasks.start_soon(say_so)
        await scheduler.run_forever()


if __name__ == "__main__":
    anyio.run(main, sys.argv[1], int(sys.argv[2]))
