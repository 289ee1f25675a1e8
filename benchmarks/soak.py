"""Whether anything grows: 200 runs a second for 15 minutes, in one process, on one backend.

    ./dev bench soak sqlite           15 minutes; or postgres, jetstream, memory
    ./dev bench soak postgres 2       so many minutes

The server is started here. Executions are kept for ten seconds. Prints a row each fifteenth of
the time: memory, file handles and threads of the process, size of the store, and connections and
memory of its server. Exits with 1 where the last fifth is more than a tenth above the first fifth
after a third of the time, or the 200 runs are not held. Run it alone on the machine, and not much
shorter: PostgreSQL's tables are vacuumed once a minute. Linux only: it reads /proc.
"""

from __future__ import annotations

import argparse
import gc
import statistics
import sys
import threading
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # for a start as a script

import anyio
from benchmarks._stores import STORES, Store, store

from sched_core import Interval, JobEvent, JobSpec, Policy, Scheduler

JOBS = 200
ROWS = 15
FIFTH = ROWS // 5
KEEP = timedelta(seconds=10)
PRUNE = 5.0
LEAST = 0.95
"""How many of the runs must be made: with fewer it is no soak."""

ALLOWED = {
    "memory MB": 2.0,
    "server MB": 8.0,
    "executions": JOBS * PRUNE,
    "messages": JOBS * PRUNE,
    "streams MB": 1.0,
}
"""What may be added by chance, besides the tenth: executions go in steps; else one."""


async def trivial(event: JobEvent) -> None:
    """Do nothing."""


def process() -> dict[str, float]:
    status = Path("/proc/self/status").read_text().splitlines()
    resident = next(line for line in status if line.startswith("VmRSS:"))
    return {
        "memory MB": int(resident.split()[1]) / 1024,
        "file handles": len(list(Path("/proc/self/fd").iterdir())),
        "threads": threading.active_count(),
        "objects": len(gc.get_objects()),
    }


async def soak(place: Store, minutes: float) -> list[dict[str, float]]:
    rows: list[dict[str, float]] = []
    pause = minutes * 60 / ROWS
    async with Scheduler(place.backend, handler=trivial) as scheduler:
        start, policy = datetime.now(UTC), Policy(keep_executions=KEEP)
        specs = [
            JobSpec(
                f"j{n}",
                Interval(seconds=1, start=start + timedelta(seconds=n / JOBS)),
                policy=policy,
            )
            for n in range(JOBS)
        ]
        await scheduler.submit_jobs(specs)

        async def prune() -> None:
            while True:
                await anyio.sleep(PRUNE)
                await scheduler.prune(datetime.now(UTC) - KEEP)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(scheduler.run_forever)
            tasks.start_soon(prune)
            began = since = time.monotonic()
            before = 0
            for number in range(ROWS):
                await anyio.sleep(began + (number + 1) * pause - time.monotonic())
                health = await scheduler.health()
                assert health.healthy, health.problems
                now = time.monotonic()
                row = {
                    "minute": (now - began) / 60,
                    "runs/s": (health.completed - before) / (now - since),
                }
                before, since = health.completed, now
                rows.append({**row, **process(), **await place.look()})
                print(shown(rows[-1], head=number == 0), flush=True)
            await scheduler.stop()
            tasks.cancel_scope.cancel()
    return rows


def shown(row: dict[str, float], *, head: bool) -> str:
    names = "".join(f"{name:>13}" for name in row) + "\n" if head else ""
    return names + "".join(f"{value:>13,.1f}" for value in row.values())


def grown(rows: list[dict[str, float]]) -> list[str]:
    """Return what is more in the last fifth than in the first one after a third of the time."""
    found = []
    for key in rows[0]:
        if key in {"minute", "runs/s"}:
            continue
        early = statistics.mean(row[key] for row in rows[FIFTH + 2 : 2 * FIFTH + 2])
        late = statistics.mean(row[key] for row in rows[-FIFTH:])
        if late > early * 1.1 + ALLOWED.get(key, 1):
            found.append(f"{key}: {early:,.1f} to {late:,.1f}")
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description="200 runs a second; see the file's beginning")
    parser.add_argument("store", choices=STORES, nargs="?", default="sqlite")
    parser.add_argument("minutes", type=float, nargs="?", default=15)
    arguments = parser.parse_args()
    with store(arguments.store) as place:
        rows = anyio.run(soak, place, arguments.minutes)
    problems = grown(rows)
    held = statistics.median(row["runs/s"] for row in rows[1:])
    print(f"{held:.0f} runs a second; grown: {'; '.join(problems) or 'nothing'}")
    if held < LEAST * JOBS:
        problems.append("the runs are not held")
        print(f"{JOBS} runs a second are not held")
    return int(bool(problems))


if __name__ == "__main__":
    sys.exit(main())
