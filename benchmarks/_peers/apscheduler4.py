# mypy: ignore-errors
# Run in an environment of its own, where the types of this one mean nothing.
"""APScheduler 4, one measurement per call: ``WORKLOAD STORE PLACE N``."""

import logging
import time
from datetime import datetime, timedelta, timezone

import anyio
from apscheduler import AsyncScheduler
from apscheduler.datastores.memory import MemoryDataStore
from apscheduler.datastores.sqlalchemy import SQLAlchemyDataStore
from apscheduler.triggers.date import DateTrigger
from apscheduler.triggers.interval import IntervalTrigger
from benchmarks._peers import figures
from benchmarks._peers.figures import FAR, SECONDS, Meter, Share
from sqlalchemy import event
from sqlalchemy.ext.asyncio import create_async_engine

logging.disable(logging.CRITICAL)
LATE = []
SHARE = Share()
STATE = {"ran": 0, "wanted": 0, "done": None}
DUE_AMONG_MANY = 500  # a quarter of what the others get: it would take minutes


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
        return MemoryDataStore()
    if name == "postgres":
        address = place.replace("postgresql://", "postgresql+asyncpg://")
        return SQLAlchemyDataStore(create_async_engine(address))
    engine = create_async_engine(f"sqlite+aiosqlite:///{place}/jobs.db")

    @event.listens_for(engine.sync_engine, "connect")
    def pragmas(connection, record):
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute(f"PRAGMA synchronous={name.removeprefix('sqlite-').upper()}")

    return SQLAlchemyDataStore(engine)


def now():
    return datetime.now(timezone.utc)


async def main():
    asked = figures.call()
    n, workload = asked.n, asked.workload
    STATE["done"] = anyio.Event()
    result = {}
    async with AsyncScheduler(
        store(asked.store, asked.place), max_concurrent_jobs=100
    ) as scheduler:

        async def others(count):
            for i in range(count):
                # One for each: where the store is memory, a shared one would go on and on.
                trigger = IntervalTrigger(hours=1000, start_time=FAR)
                await scheduler.add_schedule(trivial, trigger, id=f"o{i}")

        async def due(count):
            STATE["wanted"], at = count, now()
            for i in range(count):
                await scheduler.add_schedule(trivial, DateTrigger(at), id=f"j{time.time_ns()}-{i}")

        if workload in {"register", "register-bulk"}:
            meter = Meter()
            for i in range(n):
                await scheduler.add_schedule(trivial, DateTrigger(FAR), id=f"j{i}")
            result = meter.rate(n)
        elif workload in {"burst", "growth"}:
            if workload == "growth":
                await others(n)
                n = DUE_AMONG_MANY
            await due(n)
            meter = Meter()
            await scheduler.start_in_background()
            await STATE["done"].wait()
            result = meter.rate(n)
        elif workload == "start":
            if asked.store == "memory":
                await others(n)
            await due(1)
            await scheduler.start_in_background()
            await STATE["done"].wait()
            result = figures.since_start()
        elif workload == "fill":
            await others(n)
        elif workload == "fill-due":
            at = now()
            for i in range(n):
                await scheduler.add_schedule(shared, DateTrigger(at), id=f"j{i}", args=[f"j{i}"])
        elif workload == "share":
            await anyio.sleep(SHARE.begins_in())
            await scheduler.start_in_background()
            while not SHARE.quiet:
                await anyio.sleep(0.1)
            result = SHARE.told()
        else:
            if workload == "steady":
                base = now() + timedelta(seconds=1 + n / 100)
                for i in range(n):
                    at = base + timedelta(seconds=i / n)
                    trigger = IntervalTrigger(seconds=1, start_time=at)
                    phase = [at.timestamp()]
                    await scheduler.add_schedule(recurring, trigger, id=f"j{i}", args=phase)
            else:
                await others(n if workload == "lateness" else 0)
                base = now() + timedelta(seconds=2)
                for i, at in enumerate(figures.moments(base)):
                    await scheduler.add_schedule(
                        timed, DateTrigger(at), id=f"j{i}", args=[at.timestamp()]
                    )
            meter = Meter()
            await scheduler.start_in_background()
            await anyio.sleep((base - now()).total_seconds() + SECONDS + 1)
            result = meter.late(LATE)
    figures.tell(result)


if __name__ == "__main__":
    import importlib

    # Under its own name: jobs are stored by the name of their function.
    anyio.run(importlib.import_module("benchmarks._peers.apscheduler4").main)
