"""PostgreSQL next to what users would pick instead, on the same server in the same run.

    ./dev bench postgres            everything
    ./dev bench postgres burst      only one of: burst, steady, growth, bulk, start

The server is a fresh one with the durability of the default configuration (fsync and
synchronous_commit on). Rounds of the systems are interleaved, figures are medians, and what counts
are ratios within one run. Promises: a burst level with the best peer, and ten times those that
keep schedules; 1,000 runs per second with a p99 lateness under 50 ms; a run costs the same at
1,000 and at 1,000,000 stored jobs, within 20 %; 100,000 jobs in bulk under 10 s; ready in 0.4 s and
60 MB.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # for a start as a script

import anyio
from benchmarks._processes import figures
from benchmarks._servers import POSTGRES, Places
from benchmarks._systems import SYSTEMS, measure, size_of
from tests.postgres_server import Server, server

from sched_core import Interval, JobEvent, JobSpec, Once, Scheduler
from sched_sql import SqlBackend

ROUNDS = 3


async def trivial(event: JobEvent) -> None:
    """Do nothing: what is left is the scheduler."""


def fresh(place: Server, name: str) -> str:
    """Return the address of an empty database."""
    place.admin(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")
    place.make_database(name)
    return place.address(name)


# -- burst


async def ours(address: str, jobs: int) -> float:
    """Return one-shots per second, all due, from the start of the loop until all are recorded."""
    ran, done = 0, anyio.Event()

    def observe(_: object) -> None:
        nonlocal ran
        ran += 1
        if ran == jobs:
            done.set()

    scheduler = Scheduler(
        SqlBackend(address), handler=trivial, observers=[observe], max_concurrency=100
    )
    async with scheduler, anyio.create_task_group() as tasks:
        now = datetime.now(UTC)
        await scheduler.submit_jobs([JobSpec(f"job-{n}", Once(now)) for n in range(jobs)])
        began = time.perf_counter()
        tasks.start_soon(scheduler.run_forever)
        await done.wait()
        spent = time.perf_counter() - began
        await scheduler.stop()
    return jobs / spent


def burst(place: Server) -> list[str]:
    """The table's rows of PostgreSQL in side_by_side, with the promise that ours is level."""
    print("burst: one-shots that are due, one process, until all are recorded")
    systems = [system for system in SYSTEMS if system.store == "postgres"]
    found: dict[str, list[float]] = {system.name: [] for system in systems}
    with Places() as places:
        for _ in range(ROUNDS):
            for system in systems:
                size = size_of(system, "burst", 1)
                figure = measure(system, "burst", places, n=size, told={})
                if figure is not None:
                    found[system.name].append(figure["rate"])
    medians = {name: statistics.median(rates) for name, rates in found.items() if rates}
    mine = medians["PostgreSQL"]
    for name, rate in medians.items():
        spread = f"{min(found[name]):,.0f} to {max(found[name]):,.0f}"
        print(f"  {name:<26}{rate:>9,.0f} runs/s ({spread}): ours is {mine / rate:.2f} times")
    broken = []
    if "pgqueuer" in medians and mine < 0.8 * medians["pgqueuer"]:
        broken.append("a burst is not level with pgqueuer")
    broken += [
        f"a burst is not ten times {name}"
        for name in ("Procrastinate", "APScheduler 4 PostgreSQL")
        if name in medians and mine < 10 * medians[name]
    ]
    return broken


# -- steady


async def paced(address: str) -> tuple[float, list[float]]:
    late: list[float] = []

    async def handle(event: JobEvent) -> None:
        late.append(event.delay.total_seconds() * 1000)

    async with (
        Scheduler(SqlBackend(address), handler=handle) as scheduler,
        anyio.create_task_group() as tasks,
    ):
        begin = datetime.now(UTC)
        await scheduler.submit_jobs(
            [
                JobSpec(f"job-{n}", Interval(seconds=1, start=begin + timedelta(milliseconds=n)))
                for n in range(1000)
            ]
        )
        tasks.start_soon(scheduler.run_forever)
        await anyio.sleep(3)
        late.clear()
        began = time.perf_counter()
        await anyio.sleep(20)
        spent, count = time.perf_counter() - began, len(late)
        found = late[:]
        await scheduler.stop()
    return count / spent, found


def steady(place: Server) -> list[str]:
    print("steady: 1,000 jobs each second, phases spread, 20 s")
    rate, late = anyio.run(paced, fresh(place, "steady"))
    late.sort()
    p50, p99 = late[len(late) // 2], late[len(late) * 99 // 100]
    print(f"  {rate:,.0f} runs/s; late p50 {p50:.1f} ms, p99 {p99:.1f} ms, at most {late[-1]:.1f}")
    broken = ["1,000 runs/s are not held"] if rate < 980 else []
    return broken + (["the p99 lateness is not under 50 ms"] if p99 >= 50 else [])


# -- growth

FILL = """
INSERT INTO sched.job (id, revision, tag, schedule, uid, declared, anchor, number, next_run, due_at)
SELECT 'other-' || n, n, 'interval', '{{"every":86400}}', md5(n::text), true, 0, 1, due, due
FROM (SELECT n, ((extract(epoch FROM now()) + 86400) * 1000000)::bigint + n * 1000::bigint AS due
    FROM generate_series(1, {count}) n) others
"""


async def nothing(address: str) -> None:
    async with Scheduler(SqlBackend(address)):
        pass


def stored(place: Server, name: str, count: int) -> str:
    """Return the address of a database with so many jobs that are due tomorrow."""
    address = fresh(place, name)
    anyio.run(nothing, address)
    if count:
        place.admin(FILL.format(count=count), name)
    place.admin("VACUUM ANALYZE sched.job", name)
    place.admin("CHECKPOINT", name)
    return address


def growth(place: Server) -> list[str]:
    print("growth: 2,000 one-shots that are due, with other jobs stored")
    few, many = stored(place, "few", 1_000), stored(place, "many", 1_000_000)
    figures: dict[str, list[float]] = {few: [], many: []}
    for number in range(2 * ROUNDS + 2):
        for address, found in figures.items():
            figure = anyio.run(ours, address, 2_000)
            if number >= 2:  # then the pages are in memory, and in the WAL since the checkpoint
                found.append(figure)
            name = address.rsplit("/", 1)[1]
            place.admin("DELETE FROM sched.job WHERE id LIKE 'job-%'", name)
    at_few, at_many = (statistics.median(figures[address]) for address in (few, many))
    print(f"  {at_few:,.0f} runs/s at 1,000, {at_many:,.0f} at 1,000,000: {at_many / at_few:.2f}")
    return ["a run at 1,000,000 costs over 20 % more"] if at_many < 0.8 * at_few else []


# -- bulk


async def register(address: str) -> float:
    async with Scheduler(SqlBackend(address)) as scheduler:
        at = datetime.now(UTC) + timedelta(days=1)
        specs = [JobSpec(f"job-{n}", Once(at)) for n in range(100_000)]
        began = time.perf_counter()
        await scheduler.submit_jobs(specs)
        return time.perf_counter() - began


def bulk(place: Server) -> list[str]:
    spent = statistics.median(anyio.run(register, fresh(place, "bulk")) for _ in range(ROUNDS))
    print(f"bulk: 100,000 jobs registered in {spent:.1f} s ({100_000 / spent:,.0f} per second)")
    return ["100,000 jobs take 10 s or more"] if spent >= 10 else []


# -- start


def start(place: Server) -> list[str]:
    print("start: until a process runs a job that is due at once; its highest memory")
    broken = []
    for count in (0, 1_000_000):
        call = ("ours", "start", "postgres", stored(place, "start", count), 0)
        figures(*call)  # leaves bytecode
        found = [figures(*call) for _ in range(ROUNDS + 2)]
        ready = statistics.median(each["ready_ms"] for each in found) / 1000
        size = statistics.median(each["memory_mb"] for each in found)
        print(f"  {count:>9,} jobs stored: ready in {ready:.2f} s, {size:.0f} MB")
        if ready > 0.4 or size > 60:
            broken.append(f"start with {count:,} jobs: over 0.4 s or 60 MB")
    return broken


PARTS: dict[str, Callable[[Server], list[str]]] = {
    "burst": burst,
    "steady": steady,
    "growth": growth,
    "bulk": bulk,
    "start": start,
}


def main() -> None:
    chosen = sys.argv[1:] or list(PARTS)
    broken: list[str] = []
    with server(**POSTGRES) as place:
        ((version,),) = place.admin("SHOW server_version")
        print(f"PostgreSQL {version}")
        for name in chosen:
            broken += PARTS[name](place)
    for promise in broken:
        print(f"broken: {promise}")
    sys.exit(1 if broken else 0)


if __name__ == "__main__":
    main()
