"""What it takes to look at a large store on JetStream: of a quick call and of the first one.

    ./dev bench survey_jetstream
    ./dev bench survey_jetstream --jobs 10000 --executions 30000

A server of its own is filled with jobs that wait, and with executions of a thousand busy jobs and
of all others, as settlements write them. The first ``counts`` and ``claims`` read everything;
``counts`` is called until it says that it is complete. Each line has the seconds of the wall and
those of this process: on a busy machine the second says more.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # for a start as a script

import nats
from benchmarks._servers import jetstream

from sched_core import (
    ClaimQuery,
    CountQuery,
    Execution,
    JobSpec,
    Kind,
    Once,
    Scheduler,
    Status,
    SystemClock,
)
from sched_jetstream import JetStreamBackend
from sched_jetstream._model.layout import run_message

BUSY = 1000
"""Jobs that have nine of ten executions."""
IN_FLIGHT = 2000
BULK = 300
DAY = timedelta(days=1)
PAGE = 1000


async def fill(url: str, jobs: int, executions: int) -> None:
    """Write the jobs, and the executions of the last two days."""
    uids: list[str] = []
    async with Scheduler(backend := JetStreamBackend(url)) as scheduler:
        at = datetime.now(UTC) + 300 * DAY
        for start in range(0, jobs, BULK):
            numbers = range(start, min(start + BULK, jobs))
            made = await scheduler.submit_jobs([JobSpec(f"job-{n}", Once(at)) for n in numbers])
            uids += [job.uid for job in made]
        names = backend.options.names
        connection = await nats.connect(url)
        stream = connection.jetstream(publish_async_max_pending=IN_FLIGHT)
        now, waiting = datetime.now(UTC), []
        for number in range(executions):
            job = number % min(BUSY, jobs) if number % 10 else number % jobs
            ended = now - 2 * DAY * (executions - number) / executions
            one = _execution(f"job-{job}", uids[job], number, ended)
            message = run_message(names, one, DAY)
            sent = stream.publish_async(message.subject, message.body, headers=message.headers)
            waiting.append(await sent)
            if len(waiting) == 10 * IN_FLIGHT:
                await asyncio.gather(*waiting)
                waiting.clear()
        await asyncio.gather(*waiting)
        await connection.close()
        await backend.prune(now - 30 * DAY)  # waits until all is copied, and deletes the originals


def _execution(job_id: str, uid: str, number: int, at: datetime) -> Execution:
    failed = number % 20 == 0
    return Execution(
        id=f"{uid}:{number}:1",
        job_id=job_id,
        uid=uid,
        number=number,
        attempt=1,
        kind=Kind.SCHEDULED,
        scheduled_at=at,
        status=Status.FAILED if failed else Status.SUCCEEDED,
        final=True,
        token=number + 1,
        worker="worker",
        claimed_at=at,
        started_at=at,
        finished_at=at,
        reason=f"Error{number % 7}: it broke" if failed else None,
        expires_at=at + 30 * DAY,
    )


async def timed(name: str, call: Callable[[], Awaitable[object]]) -> None:
    """Print what a call takes."""
    wall, own = time.perf_counter(), time.process_time()
    said = await call()
    wall, own = time.perf_counter() - wall, time.process_time() - own
    print(f"  {name:<36}{wall:>9.3f} s{own:>9.3f} s   {said or ''}", flush=True)


async def look(url: str, jobs: int) -> None:
    """Print what each call takes, the first time and again."""
    backend = JetStreamBackend(url)
    await backend.open(SystemClock(), worker="benchmark")
    since = datetime.now(UTC) - DAY

    async def claims() -> None:
        await backend.claims(ClaimQuery(), after=None, limit=PAGE)

    async def count() -> str:
        counts = await backend.counts(CountQuery(since))
        return "" if counts.complete else "incomplete"

    async def count_all() -> str:
        calls = 1
        while await count():
            calls += 1
        return f"{calls} calls"

    async def count_by_job() -> None:
        await backend.counts(CountQuery(since, by="job"))

    async def recent(first: int) -> str:
        found = await backend.recent([f"job-{first + n}" for n in range(min(200, jobs))], limit=30)
        return f"{sum(map(len, found.values()))} executions"

    async def follow() -> str:
        cursor, came = "", 0
        while (part := await backend.follow(cursor, limit=PAGE)).executions and came < 50_000:
            cursor, came = part.cursor, came + len(part.executions)
        return f"{came} executions"

    async def at_the_end() -> None:
        await backend.follow(end, limit=PAGE)

    end = (await backend.follow(None, limit=1)).cursor
    found = await backend.recent(["job-5"], limit=100)
    oldest = found["job-5"][-1].id

    async def execution(execution_id: str) -> None:
        await backend.execution(execution_id)

    try:
        await timed("claims, the first time", claims)
        await timed("claims", claims)
        await timed("counts, the first one", count)
        await timed("counts, until it is complete", count_all)
        await timed("counts", count)
        await timed("counts by job", count_by_job)
        await timed("recent, 200 busy jobs, 30", lambda: recent(0))
        await timed("recent, 200 other jobs, 30", lambda: recent(jobs // 2))
        await timed(f"follow, in parts of {PAGE}", follow)
        await timed("follow, at the end", at_the_end)
        await timed("execution, read lately", lambda: execution(oldest))
    finally:
        await backend.close()
    backend = JetStreamBackend(url)
    await backend.open(SystemClock(), worker="another")
    try:
        await timed("execution, of a job that is there", lambda: execution(oldest))
        await timed("execution, of none", lambda: execution("none:1:1"))
    finally:
        await backend.close()


def main() -> None:
    """Fill a store, and look at it."""
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("--jobs", type=int, default=100_000)
    parser.add_argument("--executions", type=int, default=400_000)
    parser.add_argument("--url", help="a server that is filled already, and is left so")
    chosen = parser.parse_args()
    if chosen.url is not None:
        asyncio.run(look(chosen.url, chosen.jobs))
        return
    with jetstream(synced=False) as server:
        begun = time.perf_counter()
        asyncio.run(fill(server.url, chosen.jobs, chosen.executions))
        spent = time.perf_counter() - begun
        print(f"{chosen.jobs:,} jobs, {chosen.executions:,} executions ({spent:.0f} s to fill)")
        asyncio.run(look(server.url, chosen.jobs))


if __name__ == "__main__":
    main()
