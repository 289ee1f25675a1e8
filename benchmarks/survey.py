"""What it takes to look at a large store: milliseconds of the calls that a page or a probe makes.

    ./dev bench survey                                      both stores of SQL, full size
    ./dev bench survey sqlite --jobs 10000 --executions 100000

A store is filled with jobs, of which some are due and some are held, and with executions that are
spread over 30 days. Each figure is the median of several calls, then the fastest, and then the
processor time of a call, here and in the server: on a busy machine that says most. ``counts`` asks
for the last 24 hours. What following costs a run is shown by inserts into the history with its
index and without.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import statistics
import sys
import time
from collections.abc import Awaitable, Callable
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # for a start as a script

import sqlite3

import anyio
import psycopg
from benchmarks._servers import Places

from sched_core import Backend, ClaimQuery, CountQuery, Scheduler
from sched_sql import SqlBackend
from sched_sql.postgres.partitions import DAY

DAYS, DUE, HELD = 30, 200, 1000
"""The days of the history; how many jobs are due; one of so many is held."""
ROUNDS = 9
PAGE = 200

_ROWS = "WITH RECURSIVE g(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM g WHERE n < {count})"
_JOB_COLUMNS = """
    id, format, tag, revision, schedule, uid, declared, anchor, number, next_run, due_at,
    last_scheduled_at, last_finished_at, last_status, lease_until, worker, claimed_at, token
"""
_EXECUTION_COLUMNS = """
    seq, job_id, uid, number, attempt, kind, scheduled_at, status, final, token, worker,
    claimed_at, started_at, finished_at, expires_at
"""


def _job(now: int, *, uid: str, false: str) -> str:
    held = f"CASE WHEN n % {HELD} = 0 THEN"
    return f"""
        'job-' || n, 2, 'interval', n, '{{"every":86400}}', {uid}, {false}, 0, 30, due, due,
        due - {DAY}, due - {DAY}, 'succeeded', {held} {now + DAY} END, {held} 'w' END,
        {held} {now} END, n
    """


def _execution(jobs: int, *, uid: str, true: str) -> str:
    return f"""
        3 * n, 'job-' || (1 + n % {jobs}), {uid}, n / {jobs}, 1, 'scheduled', at,
        CASE WHEN n % 20 = 0 THEN 'failed' ELSE 'succeeded' END, {true}, n,
        'worker-1-0123456789abcdef', at, at, at, at + {DAYS * DAY}
    """


def fill_sqlite(path: str, jobs: int, executions: int) -> None:
    now = int(time.time() * 1e6)
    with closing(sqlite3.connect(path)) as connection, connection:
        execute, job = connection.execute, _job(now, uid="printf('%032x', n)", false="0")
        execute(
            f"{_ROWS.format(count=jobs)} INSERT INTO sched_job ({_JOB_COLUMNS}) SELECT {job} "
            f"FROM (SELECT n, {now} + (n - {DUE}) * 1000000 AS due FROM g)"
        )
        its = _execution(jobs, uid=f"printf('%032x', 1 + n % {jobs})", true="1")
        execute(
            f"{_ROWS.format(count=executions)} INSERT INTO sched_execution "
            f"({_EXECUTION_COLUMNS}, indexed) SELECT {its}, 1 FROM "
            f"(SELECT n, {now} - ({executions} - n) * ({DAYS * DAY} / {executions}) AS at FROM g)"
        )
        execute(
            "UPDATE sched_meta SET value = ? WHERE key IN ('serial', 'indexed')",
            (3 * executions + 1,),
        )


def fill_postgres(address: str, jobs: int, executions: int) -> None:
    now = int(time.time() * 1e6)
    two = 2 * DAY
    with psycopg.connect(address, autocommit=True) as connection:
        execute: Callable[[Any], object] = connection.execute
        job = _job(now, uid="md5(n::text)", false="false")
        execute(
            f"INSERT INTO sched.job ({_JOB_COLUMNS}) SELECT {job} FROM (SELECT n, "
            f"{now} + (n - {DUE}) * 1000000::bigint AS due FROM generate_series(1, {jobs}) n) j"
        )
        execute(
            f"SELECT sched.make_partitions(ARRAY(SELECT (({now} / {two}) + n) * {two} "
            f"FROM generate_series(0, {DAYS // 2 + 2}) n))"
        )
        its = _execution(jobs, uid=f"md5((1 + n % {jobs})::text)", true="true")
        # Some thousand transactions, as in a history that grew.
        size = max(1, executions // 1000)
        for first in range(1, executions + 1, size):
            execute(
                f"INSERT INTO sched.execution ({_EXECUTION_COLUMNS}, drop_at) SELECT {its}, "
                f"((at + {DAYS * DAY} + {two - 1}) / {two}) * {two} FROM (SELECT n, {now} - "
                f"({executions} - n) * ({DAYS * DAY} / {executions}) AS at FROM generate_series"
                f"({first}::bigint, {min(executions, first + size - 1)}) n) e"
            )
        execute(f"SELECT setval('sched.serial', {3 * executions + 1})")
        execute("VACUUM ANALYZE")


async def made(address: str) -> None:
    async with Scheduler(SqlBackend(address)):
        pass


async def measured(
    call: Callable[[], Awaitable[object]], server: int
) -> tuple[float, float, float]:
    """Return the median and the least of the milliseconds of a call, and of the processor's."""
    await call()
    taken, before = [], worked(server)
    for _ in range(ROUNDS):
        begun = time.perf_counter()
        await call()
        taken.append((time.perf_counter() - begun) * 1000)
    return statistics.median(taken), min(taken), (worked(server) - before) * 1000 / ROUNDS


def worked(server: int) -> float:
    """Return the seconds of processor time of this process, and of a server's processes."""
    spent = time.process_time()
    if server:
        children = Path(f"/proc/{server}/task/{server}/children").read_text().split()
        for process in (str(server), *children):
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # it has ended
                its = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
                spent += (int(its[11]) + int(its[12])) / os.sysconf("SC_CLK_TCK")
    return spent


def calls(backend: Backend, jobs: int, cursor: str) -> dict[str, Callable[[], Awaitable[object]]]:
    since = datetime.now(UTC) - timedelta(hours=24)
    ids = [f"job-{1 + n * 7 % jobs}" for n in range(PAGE)]
    return {
        "counts": lambda: backend.counts(CountQuery(since)),
        "counts by hour": lambda: backend.counts(CountQuery(since, by="hour")),
        "counts by job": lambda: backend.counts(CountQuery(since, by="job")),
        "counts of all": lambda: backend.counts(CountQuery(since - timedelta(days=DAYS))),
        f"claims, {PAGE}": lambda: backend.claims(ClaimQuery(), after=None, limit=PAGE),
        f"recent, {PAGE} jobs, 10": lambda: backend.recent(ids, limit=10),
        f"follow, {PAGE}": lambda: backend.follow(cursor, limit=PAGE),
        "follow, the end": lambda: backend.follow(None, limit=PAGE),
    }


async def looked(address: str, jobs: int, server: int) -> None:
    async with Scheduler(backend := SqlBackend(address)):
        part = await backend.follow("", limit=PAGE)
        for name, call in calls(backend, jobs, part.cursor).items():
            middle, least, processor = await measured(call, server)
            print(f"  {name:<26}{middle:>9.2f} ms{least:>9.2f}{processor:>9.2f}", flush=True)


_INSERT = """
    INSERT INTO sched.execution (seq, job_id, uid, number, attempt, scheduled_at, status, final,
        token, worker, claimed_at, finished_at, drop_at)
    SELECT nextval('sched.serial'), 'job-' || n, md5(random()::text), n, 1, 0, 'succeeded', true, n,
        'w', 0, 0, 9223372036854775807
    FROM generate_series(1, 500) n
"""


INDEXES = {
    "btree (xact, seq)": "USING btree (xact, seq)",
    "BRIN (xact)": "USING brin ((xact::text::numeric)) WITH (autosummarize = on)",
    "no index": "",
}


def inserted(address: str) -> None:
    """Print what an execution costs with the index for following, another one, and without."""
    taken: dict[str, list[float]] = {name: [] for name in INDEXES}
    with psycopg.connect(address, autocommit=True) as connection:
        execute: Callable[[Any], object] = connection.execute
        execute("DROP INDEX sched.execution_xact")
        for _ in range(5):  # in turn, so that a busy machine hurts all alike
            for name, index in INDEXES.items():
                if index:
                    execute(f"CREATE INDEX followed ON sched.execution_never {index}")
                for _ in range(20):
                    begun = time.perf_counter()
                    execute(_INSERT)
                    taken[name].append((time.perf_counter() - begun) * 1e6 / 500)
                execute("DROP INDEX IF EXISTS sched.followed")
    for name, figures in taken.items():
        print(f"  insert, {name:<18}{statistics.median(figures):>9.1f} µs{min(figures):>9.1f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("stores", nargs="*", default=["sqlite", "postgres"])
    parser.add_argument("--jobs", type=int, default=100_000)
    parser.add_argument("--executions", type=int, default=1_000_000)
    chosen = parser.parse_args()
    jobs, executions = chosen.jobs, chosen.executions
    with Places() as places:
        for store in chosen.stores:
            with places.fresh(store) as place:
                address = f"{place.address}/jobs.db" if store == "sqlite" else place.address
                anyio.run(made, address)
                begun = time.perf_counter()
                fill = fill_sqlite if store == "sqlite" else fill_postgres
                fill(address, jobs, executions)
                spent = time.perf_counter() - begun
                print(f"{store}: {jobs:,} jobs, {executions:,} executions ({spent:.0f} s to fill)")
                anyio.run(looked, address, jobs, place.server)
                if store == "postgres":
                    inserted(address)


if __name__ == "__main__":
    main()
