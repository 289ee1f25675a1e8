# mypy: ignore-errors
# Run in an environment of its own, beside which the types of this one mean nothing.
"""APScheduler 4, one measurement per call: ``python apscheduler4.py WORKLOAD STORE FOLDER N``."""

import json
import logging
import random
import sys
import time
from datetime import datetime, timedelta, timezone

import anyio
from apscheduler import AsyncScheduler
from apscheduler.datastores.memory import MemoryDataStore
from apscheduler.datastores.sqlalchemy import SQLAlchemyDataStore
from apscheduler.triggers.date import DateTrigger
from apscheduler.triggers.interval import IntervalTrigger
from sqlalchemy import event
from sqlalchemy.ext.asyncio import create_async_engine

logging.disable(logging.CRITICAL)
FAR = datetime.now(timezone.utc) + timedelta(days=365)
LATE = []
STATE = {"ran": 0, "wanted": 0, "done": None}


async def trivial():
    STATE["ran"] += 1
    if STATE["ran"] == STATE["wanted"]:
        STATE["done"].set()


async def timed(at):
    LATE.append((time.time() - at) * 1000)


async def recurring(phase):
    LATE.append(((time.time() - phase) % 1.0) * 1000)


def store(name, folder):
    if name == "memory":
        return MemoryDataStore()
    engine = create_async_engine(f"sqlite+aiosqlite:///{folder}/jobs.db")

    @event.listens_for(engine.sync_engine, "connect")
    def pragmas(connection, record):
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute(f"PRAGMA synchronous={name.removeprefix('sqlite-').upper()}")

    return SQLAlchemyDataStore(engine)


async def main():
    workload, name, folder, n = sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])
    STATE["done"] = anyio.Event()
    result = {}
    async with AsyncScheduler(store(name, folder), max_concurrent_jobs=100) as scheduler:
        if workload in {"register", "register-bulk"}:
            began, cpu = time.perf_counter(), time.process_time()
            for i in range(n):
                await scheduler.add_schedule(trivial, DateTrigger(FAR), id=f"j{i}")
            result = rate(n, began, cpu)
        elif workload in {"burst", "growth"}:
            if workload == "growth":
                for i in range(n):
                    await scheduler.add_schedule(trivial, DateTrigger(FAR), id=f"o{i}")
                n = 500
            STATE["wanted"], now = n, datetime.now(timezone.utc)
            for i in range(n):
                await scheduler.add_schedule(trivial, DateTrigger(now), id=f"j{i}")
            began, cpu = time.perf_counter(), time.process_time()
            await scheduler.start_in_background()
            await STATE["done"].wait()
            result = rate(n, began, cpu)
        else:
            seconds, count = (10, 200) if workload == "lateness" else (8, 100)
            base = datetime.now(timezone.utc) + timedelta(seconds=2)
            if workload == "steady":
                for i in range(n):
                    at = base + timedelta(seconds=10 + i / n)
                    trigger = IntervalTrigger(seconds=1, start_time=at)
                    await scheduler.add_schedule(
                        recurring, trigger, id=f"j{i}", args=[at.timestamp()]
                    )
                seconds = (base - datetime.now(timezone.utc)).total_seconds() + 18
            else:
                for i in range(n if workload == "lateness" else 0):
                    await scheduler.add_schedule(trivial, IntervalTrigger(hours=1000), id=f"o{i}")
                chance, base = random.Random(1), datetime.now(timezone.utc) + timedelta(seconds=2)
                for i in range(count):
                    at = base + timedelta(seconds=chance.uniform(0, seconds))
                    await scheduler.add_schedule(
                        timed, DateTrigger(at), id=f"j{i}", args=[at.timestamp()]
                    )
                seconds += 3
            cpu = time.process_time()
            await scheduler.start_in_background()
            await anyio.sleep(seconds)
            result = {**percentiles(), "runs": len(LATE)}
            result["cpu_us"] = (time.process_time() - cpu) / max(len(LATE), 1) * 1e6
    print(json.dumps({**result, "memory_mb": memory_mb()}))


def rate(n, began, cpu):
    spent = time.process_time() - cpu
    return {"rate": n / (time.perf_counter() - began), "cpu_us": spent / n * 1e6}


def percentiles():
    values = sorted(LATE)

    def at(share):
        return values[min(int(len(values) * share), len(values) - 1)] if values else float("nan")

    return {"p50_ms": at(0.5), "p99_ms": at(0.99), "p999_ms": at(0.999), "max_ms": at(1.0)}


def memory_mb():
    with open("/proc/self/status") as status:
        line = next(line for line in status if line.startswith("VmHWM:"))
    return int(line.split()[1]) / 1024


anyio.run(main)
