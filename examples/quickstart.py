"""Two jobs on a SQLite file. Ctrl-C ends it, and it goes on where it was when it starts again."""

from __future__ import annotations

import anyio

from sched_core import Cron, Interval, JobEvent, Scheduler
from sched_sql import SqlBackend


async def handle(event: JobEvent) -> None:
    print(f"{event.id}: {event.scheduled_at:%H:%M:%S}, {event.delay.total_seconds():.3f} s late")


async def main() -> None:
    async with Scheduler(SqlBackend("sqlite:///jobs.db"), handler=handle) as scheduler:
        await scheduler.ensure_job("cleanup", Cron("0 3 * * *", tz="Europe/Berlin"))
        await scheduler.ensure_job("heartbeat", Interval(seconds=1))
        await scheduler.run_forever()


if __name__ == "__main__":
    anyio.run(main)
