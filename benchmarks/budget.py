"""What a run costs: process CPU per run, one-shots per second, start-up time and memory.

    ./dev bench budget            everything
    ./dev bench budget cpu        only one of: cpu, burst, start

The store of each figure stands beside it; SQLite is durable (synchronous=FULL). Medians of
several rounds; the machine's noise is the spread. Budgets: 30 microseconds
in memory, 50 on SQLite, 15,000 one-shots per second on SQLite, ready in 0.3 s and 50 MB. If a
median is outside its budget, the exit code is 1.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from datetime import timedelta
from math import inf
from pathlib import Path

import anyio

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks._processes import figures as measure

from sched_core import (
    Backend,
    Interval,
    JobEvent,
    JobSpec,
    MemoryBackend,
    Once,
    Scheduler,
)
from sched_core.testing import FakeClock
from sched_sql import SqlBackend

JOBS = 1_000
TICKS = 20
ONE_SHOTS = 10_000
ROUNDS = 5


async def trivial(event: JobEvent) -> None:
    """Do nothing: what is left is the scheduler."""


async def cpu_per_run(backend: Backend) -> float:
    """Return microseconds of process CPU per run of an Interval job."""
    clock = FakeClock()
    async with Scheduler(backend, handler=trivial, clock=clock) as scheduler:
        await scheduler.submit_jobs([JobSpec(f"job-{n}", Interval(seconds=1)) for n in range(JOBS)])
        runs, started = 0, time.process_time()
        for _ in range(TICKS):
            clock.advance(timedelta(seconds=1))
            runs += await scheduler.run_due()
        spent = time.process_time() - started
    assert runs == JOBS * TICKS
    return spent / runs * 1e6


async def burst(backend: Backend) -> float:
    """Return one-shots per second, all due at once, until all have run and are recorded."""
    clock = FakeClock()
    async with Scheduler(backend, handler=trivial, clock=clock) as scheduler:
        at = clock.now()
        await scheduler.submit_jobs([JobSpec(f"job-{n}", Once(at)) for n in range(ONE_SHOTS)])
        started = time.perf_counter()
        runs = await scheduler.run_due()
        spent = time.perf_counter() - started
    assert runs == ONE_SHOTS
    return runs / spent


def start(database: Path) -> tuple[float, float]:
    """Return seconds until a process runs a job that is due, and its highest memory in MB."""
    found = measure("ours", "start", "sqlite-full", database.parent, 0)
    return found["ready_ms"] / 1000, found["memory_mb"]


async def store(database: Path, jobs: int) -> None:
    """Fill a database with jobs that are not due for a long time."""
    async with Scheduler(SqlBackend(database)) as scheduler:
        specs = [JobSpec(f"stored-{n}", Interval(hours=1000)) for n in range(jobs)]
        await scheduler.submit_jobs(specs, atomic=False)


def row(
    what: str, figures: list[float], unit: str, *, most: float = inf, least: float = 0
) -> list[str]:
    """Print one line of the table; return the promise if it is broken."""
    median, low, high = statistics.median(figures), min(figures), max(figures)
    budget = f"≤ {most:g}" if most < inf else f"≥ {least:,}" if least else ""
    print(f"{what:<44} {median:>10,.2f} {unit:<8} {low:>10,.2f} … {high:<10,.2f} {budget}")
    return [] if least <= median <= most else [f"{what}: {median:,.2f} {unit}, not {budget}"]


def main() -> int:
    """Measure what the arguments name, or everything; return 1 if a promise is broken."""
    wanted = sys.argv[1:] or ["cpu", "burst", "start"]
    broken: list[str] = []
    print(f"{'':<44} {'median':>10} {'':<8} {'least':>10} … {'most':<10} budget")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder)
        files = iter(path / f"{n}.db" for n in range(1000))
        if "cpu" in wanted:
            memory, sqlite = [], []
            for _ in range(ROUNDS):
                memory.append(anyio.run(cpu_per_run, MemoryBackend()))
                sqlite.append(anyio.run(cpu_per_run, SqlBackend(next(files))))
            broken += row("memory: CPU per run", memory, "µs", most=30)
            broken += row("SQLite: CPU per run", sqlite, "µs", most=50)
        if "burst" in wanted:
            figures = [anyio.run(burst, MemoryBackend()) for _ in range(ROUNDS)]
            row("memory: one-shots due at once", figures, "runs/s")
            figures = [anyio.run(burst, SqlBackend(next(files))) for _ in range(ROUNDS)]
            broken += row("SQLite: one-shots due at once", figures, "runs/s", least=15_000)
        if "start" in wanted:
            for jobs in (0, 100_000):
                database = path / str(jobs) / "jobs.db"
                database.parent.mkdir()
                anyio.run(store, database, jobs)
                start(database)  # leaves bytecode
                samples = [start(database) for _ in range(ROUNDS)]
                ready, size = [each[0] for each in samples], [each[1] for each in samples]
                broken += row(f"SQLite, {jobs:,} jobs: ready after", ready, "s", most=0.3)
                broken += row(f"SQLite, {jobs:,} jobs: memory", size, "MB", most=50)
    for promise in broken:
        print(f"broken: {promise}")
    return int(bool(broken))


if __name__ == "__main__":
    sys.exit(main())
