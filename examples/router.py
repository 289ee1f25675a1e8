"""Functions that declare their own jobs: chosen by pattern and metadata, with middleware around.

The router has a group and a version: a deploy that removes a function removes its job, and an older
replica that is still running does not bring it back.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Any

import anyio

from sched_core import (
    Cron,
    FixedDelay,
    JobEvent,
    JobRouter,
    Once,
    Policy,
    Retry,
    Scheduler,
)
from sched_core.router import Next
from sched_sql import SqlBackend

router = JobRouter(group="shop", version="1.4.0")


@router.middleware
async def say_what_happens(event: JobEvent, call_next: Next) -> Any:
    print(f"> {event.id}, attempt {event.attempt}")
    try:
        return await call_next(event)
    finally:
        print(f"< {event.id}")


@router.job("daily-report", Cron(hour=7, day_of_week="mon-fri", tz="Europe/Berlin"))
async def daily_report(event: JobEvent) -> None:
    print("the report of", event.scheduled_at.date())


@router.job("poll-mailbox", FixedDelay(minutes=1), policy=Policy(retry=Retry(attempts=3)))
def poll_mailbox(event: JobEvent) -> None:  # no async: it runs in a thread
    print("looked into the mailbox")


@router.route(re.compile(r"invoice-\d+"))
async def invoice(event: JobEvent) -> None:
    print("sent", event.id, "to", event.metadata["customer"])


@router.route(metadata={"kind": "reminder"})
async def remind(event: JobEvent) -> None:
    print("remember:", event.metadata["text"])


async def main() -> None:
    async with Scheduler(SqlBackend("sqlite:///shop.db"), handler=router) as scheduler:
        now = datetime.now(UTC)
        number = f"{now:%H%M%S%f}"
        await scheduler.submit_job(f"invoice-{number}", Once(now), metadata={"customer": "Ada"})
        tea = {"kind": "reminder", "text": "tea"}
        await scheduler.submit_job(f"tea-{number}", Once(now), metadata=tea)
        await scheduler.trigger_job("poll-mailbox")
        await scheduler.run_forever()


if __name__ == "__main__":
    anyio.run(main)
