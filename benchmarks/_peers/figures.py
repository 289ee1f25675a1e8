"""What every measured process counts, and how it tells: for ours, the peers and the stores alike.

Plain Python, for it runs in the peers' environments. What is the same for all is in the process's
environment: ``BENCH_SERVER``, the id of the server's process, where the store has one;
``BENCH_BEGAN``, when the process was started; ``BENCH_AT``, when to begin to run what is due;
``BENCH_SECONDS``, for how long to look where time is what is measured, and ``BENCH_RUNS``, how many
runs to spread over it.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

FAR = datetime.now(UTC) + timedelta(days=365)
SECONDS = float(os.environ.get("BENCH_SECONDS", "8"))
RUNS = int(os.environ.get("BENCH_RUNS", "100"))
"""The number of one-shots that are spread over the time, where the process is not busy."""
DUE_AMONG_MANY = 2_000
TICKS = os.sysconf("SC_CLK_TCK")
QUIET = 2.0
"""After so many seconds without a run, one of two processes takes all to be done."""


class Call(NamedTuple):
    """What the command line asks for: ``WORKLOAD STORE PLACE N``."""

    workload: str
    store: str
    place: str
    n: int


def call() -> Call:
    workload, store, place, n = sys.argv[1:5]
    return Call(workload, store, place, int(n))


def moments(base: datetime) -> list[datetime]:
    """Return the same random moments for all."""
    chance = random.Random(1)
    return [base + timedelta(seconds=chance.uniform(0, SECONDS)) for _ in range(RUNS)]


class Meter:
    """Time, and the processor time of this process and of the server, from now on."""

    def __init__(self) -> None:
        self._server = int(os.environ.get("BENCH_SERVER", "0"))
        self._served = server_seconds(self._server)
        self._began, self._cpu = time.perf_counter(), time.process_time()

    def rate(self, n: int) -> dict[str, float]:
        spent = time.perf_counter() - self._began
        return {"rate": n / spent, **self._each(n)}

    def late(self, late: list[float]) -> dict[str, float]:
        """Tell milliseconds of lateness, as percentiles."""
        values = sorted(late)
        shares = {"p50_ms": 0.5, "p99_ms": 0.99, "p999_ms": 0.999, "max_ms": 1.0}
        found = {
            name: values[min(int(len(values) * share), len(values) - 1)] if values else 1e9
            for name, share in shares.items()
        }
        return {**found, "runs": len(values), **self._each(len(values))}

    def _each(self, n: int) -> dict[str, float]:
        cpu, served = time.process_time() - self._cpu, server_seconds(self._server) - self._served
        return {"cpu_us": cpu / max(n, 1) * 1e6, "server_us": served / max(n, 1) * 1e6}


def server_seconds(process: int) -> float:
    """Return the processor time of a process, of those it has waited for, and of its children."""
    try:
        stat = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
        children = Path(f"/proc/{process}/task/{process}/children").read_text().split()
    except OSError:
        return 0.0
    own = sum(int(field) for field in stat[11:15]) / TICKS
    return own + sum(server_seconds(int(child)) for child in children)


def memory_mb() -> float:
    """Return the most memory that this process has had."""
    status = Path("/proc/self/status")
    if not status.exists():
        return float("nan")
    line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) / 1024


def since_start() -> dict[str, float]:
    """Return how long ago this process was started, in milliseconds."""
    return {"ready_ms": (time.time() - float(os.environ["BENCH_BEGAN"])) * 1000}


class Share:
    """What one of two processes on a store has run."""

    def __init__(self) -> None:
        self.ids: list[str] = []
        self.last = 0.0

    def begins_in(self) -> float:
        """Return in how many seconds to begin; called once the store is open."""
        now, at = time.time(), float(os.environ["BENCH_AT"])
        self.last = max(now, at)
        return self.last - now

    def ran(self, job: str) -> None:
        self.ids.append(job)
        self.last = time.time()

    @property
    def quiet(self) -> bool:
        """Whether nothing has run for a while."""
        return time.time() - self.last > QUIET

    def told(self) -> dict[str, object]:
        return {"ids": self.ids, "last": self.last, "cpu_s": time.process_time()}


def tell(found: dict[str, float] | dict[str, object]) -> None:
    print(json.dumps({**found, "memory_mb": memory_mb()}), flush=True)


async def until_quiet(share: Share) -> None:
    """Return when nothing has run for a while."""
    while not share.quiet:  # noqa: ASYNC110 -- a look now and then is cheaper than an event
        await asyncio.sleep(0.1)
