"""Whether heavy work delays urgent work, and how soon a worker hears what it should.

    ./dev bench fairness                              all rows, each store
    ./dev bench fairness queues sqlite postgres       one row

==========  =====================================================================================
row         what is measured, each with its median, its 99th percentile and its worst
==========  =====================================================================================
queues      how late an alert begins, one each second, beside 4,500 jobs of 0.3 s in another queue
routes      how late a job begins for which one worker of five has a function
refused     how late a job begins behind 10,000 due jobs for which no worker has a function
cancel      how long after ``cancel_run`` in another process the handler is cancelled
==========  =====================================================================================

The server is started here. Workers of ``routes`` and ``cancel`` are processes of their own.
"""

from __future__ import annotations

import argparse
import logging
import multiprocessing
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from multiprocessing.connection import Connection
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # for a start as a script

import anyio
from benchmarks._servers import Place, Places

from sched_core import Backend, JobEvent, JobRouter, JobSpec, Once, Scheduler
from sched_jetstream import JetStreamBackend
from sched_sql import SqlBackend

STORES = ("sqlite", "postgres", "jetstream")
BULK, BULK_SECONDS, ALERTS = 4500, 0.3, 20
"""With 50 at a time, bulk work takes longer than there are alerts."""
QUEUES = {"alerts": 20, "bulk": 50}
STRANGERS, ROUTED = 4, 30
REFUSED, BEHIND = 10_000, 20
CANCELS = 40


def backend_at(store: str, place: Place) -> Backend:
    """Return a backend of the store at a place."""
    if store == "sqlite":
        return SqlBackend(f"sqlite:///{place.address}/jobs.db")
    if store == "postgres":
        return SqlBackend(place.address)
    return JetStreamBackend(place.address.partition("#")[0])


@asynccontextmanager
async def running(scheduler: Scheduler) -> AsyncIterator[Scheduler]:
    """Run a scheduler in the background."""
    async with scheduler, anyio.create_task_group() as tasks:
        tasks.start_soon(lambda: scheduler.run_forever(signals=False))
        await scheduler.wait_until_running()
        try:
            yield scheduler
        finally:
            with anyio.CancelScope(shield=True):
                await scheduler.stop(0)


def at_once() -> Once:
    return Once(datetime.now(UTC))


# -- queues


async def queues(store: str, place: Place) -> list[float]:
    late: list[float] = []

    async def handle(event: JobEvent) -> None:
        if event.id.startswith("alert"):
            late.append(event.delay.total_seconds())
        else:
            await anyio.sleep(BULK_SECONDS)

    async with Scheduler(backend_at(store, place)) as scheduler:
        bulk = [JobSpec(f"bulk-{number}", at_once(), queue="bulk") for number in range(BULK)]
        await scheduler.submit_jobs(bulk, atomic=False)
    scheduler = Scheduler(backend_at(store, place), handler=handle, queues=QUEUES)
    async with running(scheduler):
        for number in range(ALERTS):
            soon = datetime.now(UTC) + timedelta(milliseconds=500)
            await scheduler.submit_job(f"alert-{number}", Once(soon), queue="alerts")
            await anyio.sleep(1)
        await _until(lambda: len(late) == ALERTS)
    return late


# -- routes


def stranger(store: str, place: Place, told: Connection) -> None:
    """Run a worker that has a function for other jobs."""

    async def main() -> None:
        router = JobRouter()

        @router.route("strange-*")
        async def strange(event: JobEvent) -> None:
            pass

        async with running(Scheduler(backend_at(store, place), handler=router)):
            told.send("ready")
            await anyio.to_thread.run_sync(told.recv)

    anyio.run(main)


async def routes(store: str, place: Place) -> list[float]:
    late: list[float] = []
    router = JobRouter()

    @router.route("mine-*")
    async def mine(event: JobEvent) -> None:
        late.append(event.delay.total_seconds())

    async def main() -> None:
        async with running(Scheduler(backend_at(store, place), handler=router)) as scheduler:
            for number in range(ROUTED):
                soon = datetime.now(UTC) + timedelta(milliseconds=200)
                await scheduler.submit_job(f"mine-{number}", Once(soon))
                await anyio.sleep(0.3)
            await _until(lambda: len(late) == ROUTED)

    await _beside([(stranger, STRANGERS)], store, place, main)
    return late


async def refused(store: str, place: Place) -> list[float]:
    late: list[float] = []
    router = JobRouter()

    @router.route("mine-*")
    async def mine(event: JobEvent) -> None:
        late.append(event.delay.total_seconds())

    scheduler = Scheduler(backend_at(store, place), handler=router)
    async with scheduler:
        past = Once(datetime.now(UTC) - timedelta(hours=1))
        strange = [JobSpec(f"strange-{number}", past) for number in range(REFUSED)]
        await scheduler.submit_jobs(strange, atomic=False)
    async with running(Scheduler(backend_at(store, place), handler=router)) as scheduler:
        for number in range(BEHIND):
            soon = datetime.now(UTC) + timedelta(milliseconds=200)
            await scheduler.submit_job(f"mine-{number}", Once(soon))
            await anyio.sleep(0.5)
        await _until(lambda: len(late) == BEHIND)
    return late


# -- cancels


def holder(store: str, place: Place, told: Connection) -> None:
    """Run a worker whose handlers run until they are cancelled; tell when each of them was."""

    async def main() -> None:
        async def handle(event: JobEvent) -> None:
            told.send(event.key)
            try:
                await anyio.sleep_forever()
            finally:
                told.send(time.time())

        async with running(Scheduler(backend_at(store, place), handler=handle)):
            await anyio.sleep_forever()

    anyio.run(main)


async def cancel(store: str, place: Place) -> list[float]:
    took: list[float] = []
    here, there = multiprocessing.Pipe()
    async with Scheduler(backend_at(store, place)) as scheduler:
        worker = multiprocessing.get_context("spawn").Process(
            target=holder, args=(store, place, there)
        )
        worker.start()
        try:
            for number in range(CANCELS):
                await scheduler.submit_job(f"job-{number}", at_once())
                key = await anyio.to_thread.run_sync(here.recv)
                await anyio.sleep(0.05)
                began = time.time()
                await scheduler.cancel_run(key)
                took.append(await anyio.to_thread.run_sync(here.recv) - began)
        finally:
            worker.terminate()
            worker.join()
    return took


# -- the frame


async def _beside(
    workers: Sequence[tuple[Callable[[str, Place, Connection], None], int]],
    store: str,
    place: Place,
    main: Callable[[], Awaitable[None]],
) -> None:
    """Do something beside processes; end these."""
    context, started = multiprocessing.get_context("spawn"), []
    async with Scheduler(backend_at(store, place)):
        pass  # makes the store, once
    try:
        for target, count in workers:
            for _ in range(count):
                here, there = context.Pipe()
                process = context.Process(target=target, args=(store, place, there))
                process.start()
                started.append((process, here))
        for _, here in started:
            await anyio.to_thread.run_sync(here.recv)
        await main()
    finally:
        for process, here in started:
            here.send("end")
            process.join(20)
            if process.is_alive():
                process.kill()


async def _until(what: Callable[[], bool]) -> None:
    with anyio.fail_after(120):
        while not what():  # noqa: ASYNC110 -- what is waited for has no event
            await anyio.sleep(0.05)


ROWS: dict[str, Callable[[str, Place], Awaitable[list[float]]]] = {
    "queues": queues,
    "routes": routes,
    "refused": refused,
    "cancel": cancel,
}


def percentile(values: Sequence[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", help="rows and stores; all unless given")
    names = parser.parse_args().names
    rows = [name for name in names if name in ROWS] or list(ROWS)
    stores = [name for name in names if name in STORES] or list(STORES)
    unknown = sorted(set(names) - set(ROWS) - set(STORES))
    if unknown:
        parser.error(f"no such row or store: {', '.join(unknown)}")
    logging.disable()  # a worker names each job that no worker takes
    print(f"{'row':10}{'store':12}{'count':>6}{'p50 ms':>9}{'p99 ms':>9}{'worst':>9}")
    with Places() as places:
        for row in rows:
            for store in stores:
                with places.fresh(store) as place:
                    found = anyio.run(ROWS[row], store, place)
                p50, p99 = percentile(found, 0.5) * 1e3, percentile(found, 0.99) * 1e3
                worst = max(found) * 1e3
                count = len(found)
                print(f"{row:10}{store:12}{count:6}{p50:9.1f}{p99:9.1f}{worst:9.1f}", flush=True)


if __name__ == "__main__":
    main()
