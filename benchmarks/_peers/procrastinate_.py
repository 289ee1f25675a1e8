"""Procrastinate on PostgreSQL, one measurement per call: ``WORKLOAD STORE PLACE N``.

What is done stays in its table, as with us. Its schedules live in code, not in the database, and
begin at whole seconds: the other stored jobs are one-shots, and steady has no phases.
"""

from __future__ import annotations

import asyncio
import time
from datetime import datetime, timedelta
from typing import Any

import procrastinate
from benchmarks._peers import figures
from benchmarks._peers.figures import DUE_AMONG_MANY, FAR, SECONDS, Meter, Share

CHUNK = 10_000


class Bench:
    """An app with its tasks, and what they have seen."""

    def __init__(self, address: str) -> None:
        self.app = procrastinate.App(connector=procrastinate.PsycopgConnector(conninfo=address))
        self.late: list[float] = []
        self.share = Share()
        self.first: dict[str, float] = {}
        self.trivial = self.app.task(name="trivial")(self._trivial)
        self.timed = self.app.task(name="timed")(self._timed)
        self.shared = self.app.task(name="shared")(self._shared)

    async def _trivial(self) -> None:
        self.first = self.first or figures.since_start()

    async def _timed(self, at: float) -> None:
        self.late.append((time.time() - at) * 1000)

    async def _shared(self, job: str) -> None:
        self.share.ran(job)

    def recurring(self, n: int) -> None:
        for i in range(n):

            async def run(timestamp: int) -> None:
                self.late.append((time.time() - timestamp) * 1000)

            task = self.app.task(name=f"recurring{i}")(run)
            self.app.periodic(cron="* * * * * *")(task)

    async def others(self, n: int) -> None:
        far = self.trivial.configure(schedule_at=FAR)
        for start in range(0, n, CHUNK):
            await far.batch_defer_async(*[{} for _ in range(start, min(start + CHUNK, n))])

    async def drain(self) -> None:
        await self.app.run_worker_async(
            concurrency=100, wait=False, install_signal_handlers=False, delete_jobs="never"
        )

    async def run(self, until: Any) -> None:
        worker = asyncio.create_task(
            self.app.run_worker_async(
                concurrency=100, install_signal_handlers=False, delete_jobs="never"
            )
        )
        await until
        worker.cancel()
        await asyncio.wait([worker], timeout=5)


async def rates(bench: Bench, workload: str, n: int) -> dict[str, float]:
    if workload == "register":
        far = bench.trivial.configure(schedule_at=FAR)
        meter = Meter()
        for _ in range(n):
            await far.defer_async()
        return meter.rate(n)
    if workload == "register-bulk":
        meter = Meter()
        await bench.others(n)
        return meter.rate(n)
    if workload == "growth":
        await bench.others(n)
        n = DUE_AMONG_MANY
    await bench.trivial.batch_defer_async(*[{} for _ in range(n)])
    meter = Meter()
    await bench.drain()
    return meter.rate(n)


async def timed(bench: Bench, workload: str, n: int) -> dict[str, float]:
    if workload == "steady":
        bench.recurring(n)
        meter = Meter()
        await bench.run(asyncio.sleep(SECONDS + 2))
        return meter.late(bench.late)
    await bench.others(n if workload == "lateness" else 0)
    base = datetime.now(FAR.tzinfo) + timedelta(seconds=1)
    for at in figures.moments(base):
        await bench.timed.configure(schedule_at=at).defer_async(at=at.timestamp())
    meter = Meter()
    # It looks every five seconds for what has become due.
    await bench.run(asyncio.sleep(base.timestamp() - time.time() + SECONDS + 5))
    return meter.late(bench.late)


async def main() -> None:
    asked = figures.call()
    workload, n = asked.workload, asked.n
    bench = Bench(asked.place)
    found: dict[str, Any] = {}
    async with bench.app.open_async():
        schema = bench.app.schema_manager
        if workload not in {"start", "share"}:
            await schema.apply_schema_async()
        if workload in {"register", "register-bulk", "burst", "growth"}:
            found = await rates(bench, workload, n)
        elif workload in {"steady", "idle", "lateness"}:
            found = await timed(bench, workload, n)
        elif workload == "start":
            await bench.trivial.defer_async()
            await bench.drain()
            found = bench.first
        elif workload == "fill":
            await bench.others(n)
        elif workload == "fill-due":
            jobs: list[dict[str, Any]] = [{"job": f"j{i}"} for i in range(n)]
            await bench.shared.batch_defer_async(*jobs)
        else:
            await asyncio.sleep(bench.share.begins_in())
            await bench.run(figures.until_quiet(bench.share))
            found = bench.share.told()
    figures.tell(found)


if __name__ == "__main__":
    asyncio.run(main())
