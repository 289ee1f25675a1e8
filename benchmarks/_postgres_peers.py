"""What users would pick instead, on the same work: 10,000 one-shots that are due, until recorded.

Started by ``postgres.py`` as a process of its own for each system; prints runs per second.
"""

from __future__ import annotations

import asyncio
import importlib
import sys
import time
from typing import Any

BATCH = 500


async def pgqueuer(address: str, jobs: int) -> float:
    import asyncpg
    from pgqueuer.core.applications import PgQueuer
    from pgqueuer.db import AsyncpgDriver
    from pgqueuer.queries import Queries
    from pgqueuer.types import QueueExecutionMode

    connection = await asyncpg.connect(address)
    queries = Queries(AsyncpgDriver(connection))
    await queries.install()
    await queries.enqueue(["work"] * jobs, [None] * jobs, [0] * jobs)
    application = PgQueuer(AsyncpgDriver(connection))
    ran = 0

    @application.entrypoint("work")
    async def work(_: Any) -> None:
        nonlocal ran
        ran += 1

    began = time.perf_counter()
    await application.qm.run(batch_size=BATCH, mode=QueueExecutionMode.drain)
    spent = time.perf_counter() - began
    assert ran == jobs
    await connection.close()
    return jobs / spent


async def procrastinate(address: str, jobs: int) -> float:
    import procrastinate

    app = procrastinate.App(connector=procrastinate.PsycopgConnector(conninfo=address))
    ran = 0

    @app.task(name="work")
    async def work() -> None:
        nonlocal ran
        ran += 1

    async with app.open_async():
        await app.schema_manager.apply_schema_async()
        await work.batch_defer_async(*[{} for _ in range(jobs)])
        began = time.perf_counter()
        await app.run_worker_async(
            concurrency=100, wait=False, install_signal_handlers=False, delete_jobs="never"
        )
        spent = time.perf_counter() - began
    assert ran == jobs
    return jobs / spent


RAN = 0


async def count() -> None:
    """Run as a job of APScheduler, which wants a function that it can import."""
    global RAN  # noqa: PLW0603 -- as above
    RAN += 1


async def apscheduler4(address: str, jobs: int) -> float:
    from datetime import UTC, datetime

    apscheduler: Any = importlib.import_module("apscheduler")
    stores: Any = importlib.import_module("apscheduler.datastores.sqlalchemy")
    triggers: Any = importlib.import_module("apscheduler.triggers.date")
    engines: Any = importlib.import_module("sqlalchemy.ext.asyncio")
    engine = engines.create_async_engine(address.replace("postgresql://", "postgresql+asyncpg://"))
    async with apscheduler.AsyncScheduler(stores.SQLAlchemyDataStore(engine)) as scheduler:
        await scheduler.configure_task("count", func=count, max_running_jobs=100)
        now = datetime.now(UTC)
        for number in range(jobs):
            await scheduler.add_schedule("count", triggers.DateTrigger(now), id=f"job-{number}")
        began = time.perf_counter()
        await scheduler.start_in_background()
        while jobs > RAN:  # noqa: ASYNC110 -- polled, as cheap as an event for each run
            await asyncio.sleep(0.005)
        spent = time.perf_counter() - began
        await scheduler.stop()
    return jobs / spent


async def raw(address: str, jobs: int) -> float:
    """Return what SQL itself can do: claim, finish and write a line for 500 rows at a time."""
    import asyncpg

    connection = await asyncpg.connect(address)
    await connection.execute(
        "CREATE TABLE raw_job (id bigint PRIMARY KEY, due timestamptz, state text); "
        "CREATE INDEX ON raw_job (due) WHERE due IS NOT NULL; "
        "CREATE TABLE raw_line (id bigint PRIMARY KEY, at timestamptz, status text)"
    )
    await connection.execute(
        f"INSERT INTO raw_job SELECT n, now(), 'active' FROM generate_series(1, {jobs}) n"
    )
    statement = f"""
        WITH due AS (SELECT id FROM raw_job WHERE due <= now() ORDER BY due LIMIT {BATCH}
            FOR UPDATE SKIP LOCKED),
        ended AS (UPDATE raw_job j SET due = NULL, state = 'finished' FROM due
            WHERE j.id = due.id RETURNING j.id)
        INSERT INTO raw_line SELECT id, now(), 'succeeded' FROM ended RETURNING id
    """
    ran, began = 0, time.perf_counter()
    while ran < jobs:
        ran += len(await connection.fetch(statement))
    spent = time.perf_counter() - began
    await connection.close()
    return jobs / spent


PEERS = {
    "pgqueuer": pgqueuer,
    "procrastinate": procrastinate,
    "apscheduler4": apscheduler4,
    "raw": raw,
}

if __name__ == "__main__":
    print(asyncio.run(PEERS[sys.argv[1]](sys.argv[2], int(sys.argv[3]))))
