# mypy: ignore-errors
# Run in an environment of its own, beside which the types of this one mean nothing.
"""APScheduler 3, one measurement per call: ``python apscheduler3.py WORKLOAD STORE FOLDER N``."""

import asyncio
import json
import random
import sys
import time
from datetime import datetime, timedelta, timezone

from apscheduler.jobstores.memory import MemoryJobStore
from apscheduler.jobstores.sqlalchemy import SQLAlchemyJobStore
from apscheduler.schedulers.asyncio import AsyncIOScheduler
from sqlalchemy import create_engine, event

FAR = datetime.now(timezone.utc) + timedelta(days=365)
RAN = 0
LATE = []
DONE = None
WANTED = 0


async def trivial():
    global RAN
    RAN += 1
    if RAN == WANTED:
        DONE.set()


async def timed(at):
    LATE.append((time.time() - at) * 1000)


async def recurring(phase):
    now = time.time()
    LATE.append(((now - phase) % 1.0) * 1000)


def store(name, folder):
    if name == "memory":
        return MemoryJobStore()
    engine = create_engine(f"sqlite:///{folder}/jobs.db")

    @event.listens_for(engine, "connect")
    def pragmas(connection, record):
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute(f"PRAGMA synchronous={name.removeprefix('sqlite-').upper()}")

    return SQLAlchemyJobStore(engine=engine)


async def main():
    global DONE, WANTED
    workload, name, folder, n = sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])
    DONE = asyncio.Event()
    defaults = {"misfire_grace_time": None, "max_instances": 100, "coalesce": True}
    scheduler = AsyncIOScheduler(jobstores={"default": store(name, folder)}, job_defaults=defaults)
    scheduler.start(paused=True)
    result = {}
    if workload in {"register", "register-bulk"}:
        began, cpu = time.perf_counter(), time.process_time()
        for i in range(n):
            scheduler.add_job(trivial, "date", run_date=FAR, id=f"j{i}")
        result = rate(n, began, cpu)
    elif workload in {"burst", "growth"}:
        if workload == "growth":
            for i in range(n):
                scheduler.add_job(trivial, "date", run_date=FAR, id=f"o{i}")
            n = 2000
        WANTED, now = n, datetime.now(timezone.utc)
        for i in range(n):
            scheduler.add_job(trivial, "date", run_date=now, id=f"j{i}")
        began, cpu = time.perf_counter(), time.process_time()
        scheduler.resume()
        await DONE.wait()
        result = rate(n, began, cpu)
    elif workload == "steady":
        start = datetime.now(timezone.utc) + timedelta(seconds=4)
        for i in range(n):
            at = start + timedelta(seconds=i / n)
            scheduler.add_job(
                recurring, "interval", seconds=1, start_date=at, id=f"j{i}", args=[at.timestamp()]
            )
        cpu = time.process_time()
        scheduler.resume()
        await asyncio.sleep((start - datetime.now(timezone.utc)).total_seconds() + 8)
        result = {**percentiles(), "runs": len(LATE)}
        result["cpu_us"] = (time.process_time() - cpu) / max(len(LATE), 1) * 1e6
    else:
        seconds, count = (10, 200) if workload == "lateness" else (8, 100)
        if workload == "lateness":
            for i in range(n):
                scheduler.add_job(trivial, "interval", hours=1000, id=f"o{i}")
        chance, base = random.Random(1), datetime.now(timezone.utc) + timedelta(seconds=1)
        for i in range(count):
            at = base + timedelta(seconds=chance.uniform(0, seconds))
            scheduler.add_job(timed, "date", run_date=at, id=f"j{i}", args=[at.timestamp()])
        cpu = time.process_time()
        scheduler.resume()
        await asyncio.sleep(seconds + 2)
        result = {**percentiles(), "runs": len(LATE)}
        result["cpu_us"] = (time.process_time() - cpu) / max(len(LATE), 1) * 1e6
    scheduler.shutdown(wait=False)
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


asyncio.run(main())
