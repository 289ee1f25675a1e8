"""Our own backends, one measurement per call: ``python ours.py WORKLOAD BACKEND FOLDER N``."""

from __future__ import annotations

import json
import random
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Literal

import anyio
import anyio.to_thread

from sched_core import Backend, Interval, JobEvent, JobSpec, MemoryBackend, Once, Scheduler

FAR = datetime.now(UTC) + timedelta(days=365)


def sqlite(folder: str, synchronous: Literal["FULL", "NORMAL"]) -> Backend:
    from sched_sql import SqlBackend

    return SqlBackend(Path(folder) / "jobs.db", synchronous=synchronous)


BACKENDS: dict[str, Callable[[str], Backend]] = {
    "memory": lambda _: MemoryBackend(),
    "sqlite-full": lambda folder: sqlite(folder, "FULL"),
    "sqlite-normal": lambda folder: sqlite(folder, "NORMAL"),
}


async def trivial(event: JobEvent) -> None:
    """Do nothing."""


async def register(backend: Backend, n: int, *, bulk: bool) -> dict[str, float]:
    async with Scheduler(backend) as scheduler:
        began, cpu = time.perf_counter(), time.process_time()
        if bulk:
            await scheduler.submit_jobs(
                [JobSpec(f"j{i}", Once(FAR)) for i in range(n)], atomic=False
            )
        else:
            for i in range(n):
                await scheduler.submit_job(f"j{i}", Once(FAR))
        return rate(n, began, cpu)


async def burst(backend: Backend, n: int, *, others: int = 0) -> dict[str, float]:
    async with Scheduler(backend, handler=trivial) as scheduler:
        stored = [JobSpec(f"o{i}", Once(FAR)) for i in range(others)]
        await scheduler.submit_jobs(stored, atomic=False)
        now = datetime.now(UTC)
        await scheduler.submit_jobs([JobSpec(f"j{i}", Once(now)) for i in range(n)], atomic=False)
        began, cpu = time.perf_counter(), time.process_time()
        ran = await scheduler.run_due()
        assert ran == n, ran
        return rate(n, began, cpu)


async def steady(backend: Backend, n: int, seconds: float) -> dict[str, float]:
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
        return await running(scheduler, late, (start - datetime.now(UTC)).total_seconds() + seconds)


async def idle(backend: Backend, n: int, seconds: float, others: int = 0) -> dict[str, float]:
    """N one-shots at random moments; ``others`` recurring jobs are stored that are not due."""
    late: list[float] = []

    async def handle(event: JobEvent) -> None:
        late.append(event.delay.total_seconds() * 1000)

    chance = random.Random(1)
    async with Scheduler(backend, handler=handle) as scheduler:
        stored = [JobSpec(f"o{i}", Interval(hours=1000)) for i in range(others)]
        await scheduler.submit_jobs(stored, atomic=False)
        base = datetime.now(UTC) + timedelta(seconds=1)
        specs = [
            JobSpec(f"j{i}", Once(base + timedelta(seconds=chance.uniform(0, seconds))))
            for i in range(n)
        ]
        await scheduler.submit_jobs(specs, atomic=False)
        return await running(scheduler, late, seconds + 2)


async def running(scheduler: Scheduler, late: list[float], seconds: float) -> dict[str, float]:
    cpu = time.process_time()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(scheduler.run_forever)
        await anyio.sleep(seconds)
        await scheduler.stop(5)
    spent = time.process_time() - cpu
    return {**percentiles(late), "runs": len(late), "cpu_us": spent / max(len(late), 1) * 1e6}


def rate(n: int, began: float, cpu: float) -> dict[str, float]:
    spent = time.process_time() - cpu
    return {"rate": n / (time.perf_counter() - began), "cpu_us": spent / n * 1e6}


def percentiles(values: list[float]) -> dict[str, float]:
    values = sorted(values)

    def at(share: float) -> float:
        return values[min(int(len(values) * share), len(values) - 1)] if values else float("nan")

    return {"p50_ms": at(0.5), "p99_ms": at(0.99), "p999_ms": at(0.999), "max_ms": at(1.0)}


def memory_mb() -> float:
    status = Path("/proc/self/status")
    if not status.exists():
        return float("nan")
    line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) / 1024


def main() -> None:
    workload, name, folder, n = sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])
    backend = BACKENDS[name](folder)
    works: dict[str, Callable[[], Any]] = {
        "register": lambda: register(backend, n, bulk=False),
        "register-bulk": lambda: register(backend, n, bulk=True),
        "burst": lambda: burst(backend, n),
        "steady": lambda: steady(backend, n, 8),
        "idle": lambda: idle(backend, 100, 8),
        "growth": lambda: burst(backend, 2000, others=n),
        "lateness": lambda: idle(backend, 200, 10, others=n),
    }
    print(json.dumps({**anyio.run(works[workload]), "memory_mb": memory_mb()}))


if __name__ == "__main__":
    main()
