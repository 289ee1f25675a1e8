# mypy: ignore-errors
# Run in an environment of its own, where the types of this one mean nothing.
"""APScheduler 3, one measurement per call: ``WORKLOAD STORE PLACE N``. It keeps no record."""

import asyncio
import time
from datetime import datetime, timedelta, timezone

from apscheduler.jobstores.memory import MemoryJobStore
from apscheduler.jobstores.sqlalchemy import SQLAlchemyJobStore
from apscheduler.schedulers.asyncio import AsyncIOScheduler
from benchmarks._peers import figures
from benchmarks._peers.figures import DUE_AMONG_MANY, FAR, SECONDS, Meter, Share
from sqlalchemy import create_engine, event

LATE = []
SHARE = Share()
STATE = {"ran": 0, "wanted": 0, "done": None}


async def trivial():
    STATE["ran"] += 1
    if STATE["ran"] == STATE["wanted"]:
        STATE["done"].set()


async def timed(at):
    LATE.append((time.time() - at) * 1000)


async def recurring(phase):
    LATE.append(((time.time() - phase) % 1.0) * 1000)


async def shared(job):
    SHARE.ran(job)


def store(name, place):
    if name == "memory":
        return MemoryJobStore()
    if name == "postgres":
        return SQLAlchemyJobStore(url=place.replace("postgresql://", "postgresql+psycopg://"))
    engine = create_engine(f"sqlite:///{place}/jobs.db")

    @event.listens_for(engine, "connect")
    def pragmas(connection, record):
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute(f"PRAGMA synchronous={name.removeprefix('sqlite-').upper()}")

    return SQLAlchemyJobStore(engine=engine)


def now():
    return datetime.now(timezone.utc)


async def main():
    asked = figures.call()
    n, workload = asked.n, asked.workload
    STATE["done"] = asyncio.Event()
    defaults = {"misfire_grace_time": None, "max_instances": 100, "coalesce": True}
    scheduler = AsyncIOScheduler(
        jobstores={"default": store(asked.store, asked.place)}, job_defaults=defaults
    )
    scheduler.start(paused=True)

    def others(count):
        for i in range(count):
            scheduler.add_job(trivial, "interval", hours=1000, id=f"o{i}")

    def due(count):
        STATE["wanted"], at = count, now()
        for i in range(count):
            scheduler.add_job(trivial, "date", run_date=at, id=f"j{i}")

    result = {}
    if workload in {"register", "register-bulk"}:
        meter = Meter()
        for i in range(n):
            scheduler.add_job(trivial, "date", run_date=FAR, id=f"j{i}")
        result = meter.rate(n)
    elif workload in {"burst", "growth"}:
        if workload == "growth":
            others(n)
            n = DUE_AMONG_MANY
        due(n)
        meter = Meter()
        scheduler.resume()
        await STATE["done"].wait()
        result = meter.rate(n)
    elif workload == "start":
        if asked.store == "memory":
            others(n)
        due(1)
        scheduler.resume()
        await STATE["done"].wait()
        result = figures.since_start()
    elif workload == "fill":
        others(n)
    elif workload == "fill-due":
        at = now()
        for i in range(n):
            scheduler.add_job(shared, "date", run_date=at, id=f"j{i}", args=[f"j{i}"])
    elif workload == "share":
        await asyncio.sleep(SHARE.begins_in())
        scheduler.resume()
        while not SHARE.quiet:
            await asyncio.sleep(0.1)
        result = SHARE.told()
    else:
        if workload == "steady":
            base = now() + timedelta(seconds=1 + n / 400)
            for i in range(n):
                at = base + timedelta(seconds=i / n)
                phase = [at.timestamp()]
                scheduler.add_job(
                    recurring, "interval", seconds=1, start_date=at, id=f"j{i}", args=phase
                )
        else:
            if workload == "lateness":
                others(n)
            base = now() + timedelta(seconds=1)
            for i, at in enumerate(figures.moments(base)):
                scheduler.add_job(timed, "date", run_date=at, id=f"j{i}", args=[at.timestamp()])
        meter = Meter()
        scheduler.resume()
        await asyncio.sleep((base - now()).total_seconds() + SECONDS + 0.5)
        result = meter.late(LATE)
    scheduler.shutdown(wait=False)
    figures.tell(result)


if __name__ == "__main__":
    import importlib

    # Under its own name: jobs are stored by the name of their function.
    asyncio.run(importlib.import_module("benchmarks._peers.apscheduler3").main())
