"""One-shot reminders from the command line: ``python reminders.py add tea 5s "the tea is ready"``.

Each call is a process of its own; only ``run`` runs what is due. They share one SQLite file, and
what is added while ``run`` sleeps wakes it.
"""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from typing import Any

import anyio

from sched_core import (
    Job,
    JobAlreadyExists,
    JobEvent,
    JobNotFound,
    JobQuery,
    Once,
    Policy,
    Retry,
    Scheduler,
    State,
)
from sched_core.settings import duration
from sched_sql import SqlBackend

PREFIX = "reminder/"


async def remind(event: JobEvent) -> None:
    # At least once: code that must not remind twice keeps event.key with what it did.
    print(f"{event.id.removeprefix(PREFIX)}: {event.metadata['text']}", flush=True)


async def add(scheduler: Scheduler, name: str, after: str, text: str) -> None:
    at = datetime.now(UTC) + duration(after)
    try:
        await scheduler.submit_job(
            PREFIX + name, Once(at), metadata={"text": text}, policy=Policy(retry=Retry(attempts=5))
        )
    except JobAlreadyExists:
        sys.exit(f"there is a reminder {name!r} already")
    print(f"{name}: at {at:%H:%M:%S} UTC")


async def cancel(scheduler: Scheduler, name: str) -> None:
    try:
        await scheduler.remove_job(PREFIX + name)
    except JobNotFound:
        sys.exit(f"there is no reminder {name!r}")
    print(f"{name}: cancelled")


async def list_all(scheduler: Scheduler) -> None:
    query = JobQuery(state=State.ACTIVE, id_prefix=PREFIX)
    async for job in scheduler.list_jobs(query):
        if isinstance(job, Job) and job.next_run is not None:
            print(f"{job.id.removeprefix(PREFIX)}: at {job.next_run:%H:%M:%S} UTC")


async def run(scheduler: Scheduler) -> None:
    scheduler.set_handler(remind)
    await scheduler.run_forever()


COMMANDS: dict[str, Any] = {"add": add, "cancel": cancel, "list": list_all, "run": run}


async def main() -> None:
    if len(sys.argv) < 2 or sys.argv[1] not in COMMANDS:
        sys.exit("usage: reminders.py add NAME AFTER TEXT | cancel NAME | list | run")
    async with Scheduler(SqlBackend("sqlite:///reminders.db")) as scheduler:
        await COMMANDS[sys.argv[1]](scheduler, *sys.argv[2:])


if __name__ == "__main__":
    anyio.run(main)
