"""pgqueuer on PostgreSQL, one measurement per call: ``WORKLOAD STORE PLACE N``.

A queue: the other stored jobs are deferred entries. Its schedules begin at whole seconds, so that
steady has no phases.
"""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
from benchmarks._peers import figures
from benchmarks._peers.figures import DUE_AMONG_MANY, SECONDS, Meter, Share
from pgqueuer.core.applications import PgQueuer
from pgqueuer.db import AsyncpgDriver
from pgqueuer.queries import Queries
from pgqueuer.types import QueueExecutionMode

BATCH = 500
YEAR = timedelta(days=365)


class Bench:
    """A queue with its entry points, and what they have seen."""

    def __init__(self, connection: Any) -> None:
        self.queries = Queries(AsyncpgDriver(connection))
        self.application = PgQueuer(AsyncpgDriver(connection))
        self.late: list[float] = []
        self.share = Share()
        self.ran = self.wanted = 0
        self.done = asyncio.Event()
        self.first: dict[str, float] = {}
        self.application.entrypoint("trivial")(self._trivial)
        self.application.entrypoint("timed")(self._timed)
        self.application.entrypoint("shared")(self._shared)

    async def _trivial(self, _: Any) -> None:
        self.first = self.first or figures.since_start()
        self.ran += 1
        if self.ran == self.wanted:
            self.done.set()

    async def _timed(self, job: Any) -> None:
        self.late.append((time.time() - float(job.payload)) * 1000)

    async def _shared(self, job: Any) -> None:
        self.share.ran(job.payload.decode())

    def recurring(self, n: int) -> None:
        due: dict[str, datetime] = {}

        async def run(schedule: Any) -> None:
            # What it is given names the moment after this one.
            if schedule.entrypoint in due:
                late = datetime.now(UTC) - due[schedule.entrypoint]
                self.late.append(late.total_seconds() * 1000)
            due[schedule.entrypoint] = schedule.next_run

        for i in range(n):
            self.application.schedule(f"recurring{i}", "* * * * * *")(run)

    async def others(self, n: int) -> None:
        if n:
            await self.queries.enqueue(["trivial"] * n, [None] * n, [0] * n, [YEAR] * n)

    async def due(self, n: int) -> None:
        self.wanted = n
        await self.queries.enqueue(["trivial"] * n, [None] * n, [0] * n)

    async def drain(self) -> None:
        await self.application.qm.run(batch_size=BATCH, mode=QueueExecutionMode.drain)

    async def run(self, until: Any) -> Any:
        worker = asyncio.create_task(self.application.run(batch_size=BATCH))
        found = await until
        self.application.shutdown.set()
        await asyncio.wait([worker], timeout=5)
        return found

    async def rate(self, n: int) -> dict[str, float]:
        """Tell how fast what is due has run; draining would wait for what is deferred, too."""
        meter = Meter()
        await self.done.wait()
        return meter.rate(n)


async def rates(bench: Bench, workload: str, n: int) -> dict[str, float]:
    if workload == "register":
        meter = Meter()
        for _ in range(n):
            await bench.queries.enqueue("trivial", None, 0, YEAR)
        return meter.rate(n)
    if workload == "register-bulk":
        meter = Meter()
        await bench.others(n)
        return meter.rate(n)
    if workload == "growth":
        await bench.others(n)
        await bench.due(DUE_AMONG_MANY)
        found: dict[str, float] = await bench.run(bench.rate(DUE_AMONG_MANY))
        return found
    await bench.due(n)
    meter = Meter()
    await bench.drain()
    assert bench.ran == n, bench.ran
    return meter.rate(n)


async def timed(bench: Bench, workload: str, n: int) -> dict[str, float]:
    if workload == "steady":
        bench.recurring(n)
        meter = Meter()
        await bench.run(asyncio.sleep(SECONDS + 2))
        return meter.late(bench.late)
    await bench.others(n if workload == "lateness" else 0)
    base = datetime.now(UTC) + timedelta(seconds=1)
    for at in figures.moments(base):
        payload = str(at.timestamp()).encode()
        await bench.queries.enqueue("timed", payload, 0, at - datetime.now(UTC))
    meter = Meter()
    await bench.run(asyncio.sleep(base.timestamp() - time.time() + SECONDS + 1))
    return meter.late(bench.late)


async def main() -> None:
    asked = figures.call()
    workload, n = asked.workload, asked.n
    connection = await asyncpg.connect(asked.place)
    bench = Bench(connection)
    if workload not in {"start", "share"}:
        await bench.queries.install()
    found: dict[str, Any] = {}
    if workload in {"register", "register-bulk", "burst", "growth"}:
        found = await rates(bench, workload, n)
    elif workload in {"steady", "idle", "lateness"}:
        found = await timed(bench, workload, n)
    elif workload == "start":
        await bench.due(1)
        await bench.run(bench.done.wait())
        found = bench.first
    elif workload == "fill":
        await bench.others(n)
    elif workload == "fill-due":
        names: list[bytes | None] = [f"j{i}".encode() for i in range(n)]
        await bench.queries.enqueue(["shared"] * n, names, [0] * n)
    else:
        await asyncio.sleep(bench.share.begins_in())
        await bench.run(figures.until_quiet(bench.share))
        found = bench.share.told()
    await connection.close()
    figures.tell(found)


if __name__ == "__main__":
    asyncio.run(main())
