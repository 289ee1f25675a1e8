"""A service with a failing job and a notifier, which a test kills: one process on one SQLite file.

python tests/crash/notifying.py DATABASE URL

It prints a line once it runs. Every other run of ``flaps`` fails; ``fails`` always fails.
"""

from __future__ import annotations

import sys
from datetime import timedelta

import anyio

from sched_core import Interval, JobEvent, JobRouter, Policy, Scheduler
from sched_core.contrib.notify import Notifier, Webhook
from sched_sql import SqlBackend

DATABASE, URL = sys.argv[1:]
KEPT = Policy(keep_executions=None, max_lost=1_000_000)

router = JobRouter()
Notifier("ops", Webhook(URL, timeout=5), every=timedelta(milliseconds=100), most=None).declare(
    router
)


@router.job("fails", Interval(milliseconds=70), policy=KEPT)
async def fails(event: JobEvent) -> None:
    raise ValueError


@router.job("flaps", Interval(milliseconds=50), policy=KEPT)
async def flaps(event: JobEvent) -> None:
    if event.scheduled_at.microsecond // 50_000 % 2:
        raise ValueError


async def main() -> None:
    async with (
        Scheduler(SqlBackend(DATABASE), handler=router) as scheduler,
        anyio.create_task_group() as tasks,
    ):
        tasks.start_soon(scheduler.run_forever)
        await scheduler.wait_until_running()
        sys.stdout.write("ready\n")
        sys.stdout.flush()


anyio.run(main)
