"""Whether anything grows: 200 runs a second for 15 minutes on SQLite, in one process.

    ./dev bench soak                 15 minutes
    ./dev bench soak 2               so many minutes

Prints a row each tenth of the time: memory, file handles, threads, and the file's size with the
ledger lines kept for ten seconds. Exits with 1 where the last rows are above the first after a
third of the time by more than a tenth. Run it alone on the machine. Linux only: it reads /proc.
"""

from __future__ import annotations

import sys
import tempfile
import threading
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import anyio

from sched_core import Interval, JobEvent, JobSpec, Policy, Scheduler
from sched_sql import SqlBackend

JOBS = 200
ROWS = 10
KEPT = Policy(keep_executions=timedelta(seconds=10))
PRUNE = 5.0


async def trivial(event: JobEvent) -> None:
    """Do nothing."""


def look(folder: Path) -> dict[str, float]:
    status = Path("/proc/self/status").read_text().splitlines()
    resident = next(line for line in status if line.startswith("VmRSS:"))
    return {
        "memory MB": int(resident.split()[1]) / 1024,
        "file handles": len(list(Path("/proc/self/fd").iterdir())),
        "threads": threading.active_count(),
        "files MB": sum(f.stat().st_size for f in folder.rglob("*") if f.is_file()) / 1e6,
    }


async def soak(minutes: float) -> list[dict[str, float]]:
    rows: list[dict[str, float]] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        async with Scheduler(SqlBackend(folder / "jobs.db"), handler=trivial) as scheduler:
            specs = [JobSpec(f"j{n}", Interval(seconds=1), policy=KEPT) for n in range(JOBS)]
            await scheduler.submit_jobs(specs)

            async def prune() -> None:
                while True:
                    await anyio.sleep(PRUNE)
                    await scheduler.prune(datetime.now(UTC) - timedelta(seconds=10))

            async with anyio.create_task_group() as tasks:
                tasks.start_soon(scheduler.run_forever)
                tasks.start_soon(prune)
                began, before = time.monotonic(), 0
                for _ in range(ROWS):
                    await anyio.sleep(minutes * 60 / ROWS)
                    health = await scheduler.health()
                    assert health.healthy, health.problems
                    rate = (health.completed - before) / (minutes * 60 / ROWS)
                    before = health.completed
                    row = {"minute": (time.monotonic() - began) / 60, "runs/s": rate}
                    rows.append({**row, **look(folder)})
                    print("  ".join(f"{key} {value:.2f}" for key, value in rows[-1].items()))
                await scheduler.stop()
                tasks.cancel_scope.cancel()
    return rows


def main() -> int:
    minutes = float(sys.argv[1]) if len(sys.argv) > 1 else 15
    rows = anyio.run(soak, minutes)
    settled, last = rows[ROWS // 3], rows[-1]
    grown = [
        key
        for key in ("memory MB", "file handles", "threads", "files MB")
        if last[key] > settled[key] * 1.1 + 1
    ]
    print(f"grown: {', '.join(grown) or 'nothing'}")
    return int(bool(grown))


if __name__ == "__main__":
    sys.exit(main())
