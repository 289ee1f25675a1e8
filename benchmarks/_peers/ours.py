"""Our own backends, one measurement per call: ``python -m … WORKLOAD STORE PLACE N``."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Literal

import anyio
from benchmarks._peers import figures
from benchmarks._peers.figures import DUE_AMONG_MANY, FAR, SECONDS, Meter, Share

from sched_core import Backend, Interval, JobEvent, JobSpec, MemoryBackend, Once, Scheduler

Found = dict[str, float] | dict[str, object]


def sqlite(folder: str, synchronous: Literal["FULL", "NORMAL"]) -> Backend:
    from sched_sql import SqlBackend

    return SqlBackend(Path(folder) / "jobs.db", synchronous=synchronous)


def postgres(address: str) -> Backend:
    from sched_sql import SqlBackend

    return SqlBackend(address)


def jetstream(place: str, durability: Literal["process", "machine"]) -> Backend:
    """The servers' addresses, and the bucket after ``#``; a copy for each server."""
    from sched_jetstream import JetStreamBackend

    addresses, _, bucket = place.partition("#")
    urls = addresses.split(",")
    return JetStreamBackend(
        urls,
        job_bucket=bucket,
        execution_bucket=f"{bucket}-lines",
        replicas=len(urls),
        durability=durability,
    )


BACKENDS: dict[str, Callable[[str], Backend]] = {
    "memory": lambda _: MemoryBackend(),
    "sqlite-full": lambda folder: sqlite(folder, "FULL"),
    "sqlite-normal": lambda folder: sqlite(folder, "NORMAL"),
    "postgres": postgres,
    "jetstream": lambda place: jetstream(place, "process"),
    "jetstream-synced": lambda place: jetstream(place, "machine"),
}


async def trivial(event: JobEvent) -> None:
    """Do nothing."""


async def store_jobs(scheduler: Scheduler, n: int) -> None:
    """Store recurring jobs of which none is due."""
    specs = [JobSpec(f"o{i}", Interval(hours=1000)) for i in range(n)]
    await scheduler.submit_jobs(specs, atomic=False)


async def store_due(scheduler: Scheduler, n: int) -> None:
    now = datetime.now(UTC)
    await scheduler.submit_jobs([JobSpec(f"j{i}", Once(now)) for i in range(n)], atomic=False)


# -- the workloads


async def register(backend: Backend, n: int) -> Found:
    async with Scheduler(backend) as scheduler:
        meter = Meter()
        for i in range(n):
            await scheduler.submit_job(f"j{i}", Once(FAR))
        return meter.rate(n)


async def register_bulk(backend: Backend, n: int) -> Found:
    async with Scheduler(backend) as scheduler:
        meter = Meter()
        specs = [JobSpec(f"j{i}", Once(FAR)) for i in range(n)]
        await scheduler.submit_jobs(specs, atomic=False)
        return meter.rate(n)


async def burst(backend: Backend, n: int, *, others: int = 0) -> Found:
    """Run as a service does: claims, runs and settlements overlap, unlike in `run_due`."""
    recorded, done = 0, anyio.Event()

    def observe(_: object) -> None:
        nonlocal recorded
        recorded += 1
        if recorded == n:
            done.set()

    scheduler = Scheduler(backend, handler=trivial, observers=[observe])
    async with scheduler, anyio.create_task_group() as tasks:
        await store_jobs(scheduler, others)
        await store_due(scheduler, n)
        meter = Meter()
        tasks.start_soon(scheduler.run_forever)
        await done.wait()
        found = meter.rate(n)
        await scheduler.stop()
    return found


async def growth(backend: Backend, n: int) -> Found:
    return await burst(backend, DUE_AMONG_MANY, others=n)


async def steady(backend: Backend, n: int) -> Found:
    """Each of n jobs every second, phases spread over the second."""
    late: list[float] = []

    async def handle(event: JobEvent) -> None:
        late.append(event.delay.total_seconds() * 1000)

    async with Scheduler(backend, handler=handle) as scheduler:
        start = datetime.now(UTC) + timedelta(seconds=2)
        specs = [
            JobSpec(f"j{i}", Interval(seconds=1, start=start + timedelta(seconds=i / n)))
            for i in range(n)
        ]
        await scheduler.submit_jobs(specs, atomic=False)
        return await running(scheduler, late, start)


async def idle(backend: Backend, n: int, *, others: int = 0) -> Found:
    """One-shots at random moments; ``others`` recurring jobs are stored that are not due."""
    late: list[float] = []

    async def handle(event: JobEvent) -> None:
        late.append(event.delay.total_seconds() * 1000)

    async with Scheduler(backend, handler=handle) as scheduler:
        await store_jobs(scheduler, others)
        base = datetime.now(UTC) + timedelta(seconds=1)
        moments = figures.moments(base)
        specs = [JobSpec(f"j{i}", Once(at)) for i, at in enumerate(moments)]
        await scheduler.submit_jobs(specs, atomic=False)
        return await running(scheduler, late, base)


async def lateness(backend: Backend, n: int) -> Found:
    return await idle(backend, 0, others=n)


async def running(scheduler: Scheduler, late: list[float], start: datetime) -> Found:
    meter = Meter()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(scheduler.run_forever)
        await anyio.sleep((start - datetime.now(UTC)).total_seconds() + SECONDS + 0.5)
        await scheduler.stop(5)
    return meter.late(late)


async def start(backend: Backend, n: int) -> Found:
    """Measure until the first run of a job that is due at once; memory is filled again."""
    ready: Found = {}

    async def handle(event: JobEvent) -> None:
        nonlocal ready
        ready = figures.since_start()
        await scheduler.stop(1)

    scheduler = Scheduler(backend, handler=handle)
    async with scheduler:
        if isinstance(backend, MemoryBackend):
            await store_jobs(scheduler, n)
        await scheduler.submit_job(f"first-{time.time_ns()}", Once(datetime.now(UTC)))
        await scheduler.run_forever()
    return ready


async def fill(backend: Backend, n: int) -> Found:
    async with Scheduler(backend) as scheduler:
        await store_jobs(scheduler, n)
    return {}


async def fill_due(backend: Backend, n: int) -> Found:
    async with Scheduler(backend) as scheduler:
        await store_due(scheduler, n)
    return {}


async def share(backend: Backend, n: int) -> Found:
    """Run what is due, as another process does at the same time."""
    mine = Share()

    async def handle(event: JobEvent) -> None:
        mine.ran(event.id)

    async with Scheduler(backend, handler=handle) as scheduler, anyio.create_task_group() as tasks:
        await anyio.sleep(mine.begins_in())
        tasks.start_soon(scheduler.run_forever)
        while not mine.quiet:  # noqa: ASYNC110 -- a look now and then is cheaper than an event
            await anyio.sleep(0.1)
        await scheduler.stop(5)
    return mine.told()


WORKLOADS: dict[str, Callable[[Backend, int], Awaitable[Found]]] = {
    "register": register,
    "register-bulk": register_bulk,
    "burst": burst,
    "growth": growth,
    "steady": steady,
    "idle": idle,
    "lateness": lateness,
    "start": start,
    "fill": fill,
    "fill-due": fill_due,
    "share": share,
}


def main() -> None:
    asked = figures.call()
    backend = BACKENDS[asked.store](asked.place)
    figures.tell(anyio.run(WORKLOADS[asked.workload], backend, asked.n))


if __name__ == "__main__":
    main()
