"""What is compared: systems, stores, workloads, and how one of them is measured."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field

from benchmarks._processes import Failed, Figures, Process, figures, interpreter
from benchmarks._servers import Place, Places

TIMEOUT = 240
"""Seconds after which a measurement counts as one that takes too long."""

AHEAD = 2.5
"""Seconds that two processes get to open their store before both begin."""

ENVIRONMENTS: dict[str, tuple[str, ...]] = {
    "apscheduler3": ("apscheduler>=3.11,<4", "sqlalchemy>=2", "psycopg[binary]>=3.2"),
    "apscheduler4": (
        "apscheduler==4.0.0a6",
        "sqlalchemy[asyncio]>=2",
        "aiosqlite",
        "asyncpg",
        "sniffio",
    ),
    "plots": ("matplotlib>=3.9",),
}


@dataclass(frozen=True)
class System:
    """A row of the table.

    Attributes:
        name: The name in the table.
        script: The module in ``_peers``.
        store: What it is told to use.
        environment: A key of :data:`ENVIRONMENTS`; ``None``: ours.
        most: The most jobs it is given, where more would take minutes.
        leaves_out: Workloads that it cannot do.
    """

    name: str
    script: str
    store: str
    environment: str | None = None
    most: dict[str, int] = field(default_factory=dict)
    leaves_out: frozenset[str] = frozenset()

    @property
    def is_ours(self) -> bool:
        return self.script == "ours"

    @property
    def is_raw(self) -> bool:
        return self.script.startswith("raw")


@dataclass(frozen=True)
class Workload:
    """A table.

    Attributes:
        act: What the scripts call it.
        n: The number of jobs.
        counts: The key of what is compared.
        is_made: Whether raw limits are told, too.
    """

    act: str
    n: int
    counts: str
    is_made: bool = False

    @property
    def more_is_better(self) -> bool:
        return self.counts == "rate"

    @property
    def unit(self) -> str:
        if self.more_is_better:
            return "per second"
        return "ms until the first run" if self.act == "start" else "p99 lateness, ms"


WORKLOADS: dict[str, Workload] = {
    "register": Workload("register", 3_000, "rate", is_made=True),
    "register-bulk": Workload("register-bulk", 10_000, "rate", is_made=True),
    "burst": Workload("burst", 10_000, "rate", is_made=True),
    "two": Workload("two", 10_000, "rate"),
    "growth-1000": Workload("growth", 1_000, "rate"),
    "growth-100000": Workload("growth", 100_000, "rate"),
    "start-0": Workload("start", 0, "ready_ms"),
    "start-100000": Workload("start", 100_000, "ready_ms"),
    "steady": Workload("steady", 1_000, "p99_ms"),
    "idle": Workload("idle", 0, "p99_ms"),
    "lateness-1000": Workload("lateness", 1_000, "p99_ms"),
    "lateness-10000": Workload("lateness", 10_000, "p99_ms"),
    "lateness-100000": Workload("lateness", 100_000, "p99_ms"),
}

ALONE = frozenset({"two"})
"""What a store in memory cannot do."""
SLOW = {"register": 300, "register-bulk": 300, "burst": 500, "two": 500, "steady": 100}
SLOW |= dict.fromkeys(("growth", "start", "lateness"), 1_000)
ONE_BY_ONE = dict.fromkeys(("growth", "start", "lateness"), 10_000) | {"two": 3_000}
DATABASE = {"register": 2_000, "register-bulk": 2_000, "burst": 2_000} | ONE_BY_ONE

SYSTEMS: tuple[System, ...] = (
    System("memory", "ours", "memory", leaves_out=ALONE),
    System("APScheduler 3 memory", "apscheduler3", "memory", "apscheduler3", leaves_out=ALONE),
    System("APScheduler 4 memory", "apscheduler4", "memory", "apscheduler4", leaves_out=ALONE),
    System("raw memory", "raw", "memory"),
    System("SQLite FULL", "ours", "sqlite-full"),
    System("APScheduler 3 SQLite FULL", "apscheduler3", "sqlite-full", "apscheduler3", ONE_BY_ONE),
    System("raw SQLite FULL", "raw", "sqlite-full"),
    System("SQLite NORMAL", "ours", "sqlite-normal"),
    System(
        "APScheduler 3 SQLite NORMAL", "apscheduler3", "sqlite-normal", "apscheduler3", ONE_BY_ONE
    ),
    System("APScheduler 4 SQLite NORMAL", "apscheduler4", "sqlite-normal", "apscheduler4", SLOW),
    System("raw SQLite NORMAL", "raw", "sqlite-normal"),
    System("PostgreSQL", "ours", "postgres"),
    System(
        "Procrastinate",
        "procrastinate_",
        "postgres",
        most={"burst": 2_000, "two": 3_000, "steady": 100},
    ),
    System("pgqueuer", "pgqueuer_", "postgres"),
    System("APScheduler 3 PostgreSQL", "apscheduler3", "postgres", "apscheduler3", DATABASE),
    System("APScheduler 4 PostgreSQL", "apscheduler4", "postgres", "apscheduler4", SLOW),
    System("raw PostgreSQL", "raw_postgres", "postgres"),
    System("JetStream synced", "ours", "jetstream-synced"),
    System("raw JetStream synced", "raw_jetstream", "jetstream-synced"),
    System("JetStream", "ours", "jetstream"),
    System("raw JetStream", "raw_jetstream", "jetstream"),
)


def takes_part(system: System, name: str) -> bool:
    """Return whether a system has a row in a workload's table."""
    workload = WORKLOADS[name]
    if system.is_raw:
        return workload.is_made
    return workload.act not in system.leaves_out


def peers_of(system: System) -> list[str]:
    """Return the names of those that keep their jobs in the same store."""
    if not system.is_ours:
        return []
    return [
        other.name
        for other in SYSTEMS
        if other.store == system.store and not other.is_ours and not other.is_raw
    ]


def size_of(system: System, name: str, divide: int) -> int:
    """Return how many jobs a system is given."""
    workload = WORKLOADS[name]
    n = min(workload.n, system.most.get(workload.act, workload.n))
    return max(n // divide, 50) if n else 0


def measure(
    system: System, name: str, places: Places, *, n: int, told: Mapping[str, float]
) -> Figures | None:
    """Return what one system does in one workload, ``None`` where it takes too long.

    Args:
        system: The system.
        name: The workload's.
        places: Where to keep the jobs.
        n: How many.
        told: What else the process is told, as ``BENCH_`` and the name.

    Raises:
        Failed: A process ended with an error.
    """
    act = WORKLOADS[name].act
    python = interpreter(system.environment, ENVIRONMENTS)
    with places.fresh(system.store) as place:
        if act == "two":
            return _two(system, python, place, n)
        if act == "start" and system.store != "memory":
            # The database knows its tables then, and Python its bytecode.
            figures(system.script, "fill", system.store, place.address, n, python=python)
        process = Process(
            system.script,
            act,
            system.store,
            place.address,
            n,
            python=python,
            server=place.server,
            **told,
        )
        return process.figures(TIMEOUT)


def _two(system: System, python: str, place: Place, n: int) -> Figures | None:
    """Measure two processes on one store, with jobs that are all due."""
    call = (system.store, place.address, n)
    figures(system.script, "fill-due", *call, python=python)
    at = time.time() + AHEAD
    both = [Process(system.script, "share", *call, python=python, at=at) for _ in range(2)]
    found = [process.figures(TIMEOUT) for process in both]
    shares = [each for each in found if each is not None]
    if len(shares) < len(both):
        return None
    ids = [job for share in shares for job in share["ids"]]
    if not ids:
        raise Failed(f"{system.name}: two processes ran nothing")
    return {
        "rate": len(set(ids)) / (max(share["last"] for share in shares) - at),
        "cpu_us": sum(share["cpu_s"] for share in shares) / len(ids) * 1e6,
        "memory_mb": max(share["memory_mb"] for share in shares),
        "doubled": len(ids) - len(set(ids)),
        "lost": n - len(set(ids)),
        "smaller_share": min(len(share["ids"]) for share in shares) / len(ids),
    }
