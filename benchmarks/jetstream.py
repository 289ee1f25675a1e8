"""Jobs on NATS JetStream, next to what its client can do at all, on a server of its own.

    ./dev bench jetstream                    everything, one node
    ./dev bench jetstream limits drain       only some: limits, register, drain, steady, late,
                                             start, history
    ./dev bench jetstream --cluster drain    the same on three nodes with three copies

Every figure is a ratio of a limit that was measured in the same run: on a busy machine both sink.
Medians of three rounds where a round is short. Wants a machine that does nothing else.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # for a start as a script

import nats
from benchmarks._peers import raw_jetstream
from benchmarks._processes import figures
from nats.aio.client import Client
from tests.nats_server import Cluster, Server

from sched_core import (
    Execution,
    ExecutionQuery,
    Interval,
    JobEvent,
    JobSpec,
    Once,
    Scheduler,
)
from sched_jetstream import JetStreamBackend

ROUNDS = 3


class Bench:
    """One server or cluster, and the figures so far."""

    def __init__(self, urls: list[str], nodes: list[Server], copies: int) -> None:
        self.urls, self.nodes, self.copies = urls, nodes, copies
        self.limits: dict[str, float] = {}
        self.names = iter(range(10**6))

    def backend(self, bucket: str) -> JetStreamBackend:
        return JetStreamBackend(
            self.urls, job_bucket=bucket, execution_bucket=f"{bucket}-lines", replicas=self.copies
        )

    def say(self, what: str, value: float, unit: str, limit: str | None = None) -> None:
        ratio = ""
        if limit is not None and limit in self.limits:
            ratio = f"   {value / self.limits[limit]:5.2f} of {limit}"
        print(f"{what:<58} {value:>10,.1f} {unit}{ratio}", flush=True)

    # -- what the client can do

    async def measure_limits(self) -> None:
        connection = await nats.connect(self.urls)
        js = connection.jetstream()
        await js.add_stream(
            name="RAW", subjects=["raw.>"], num_replicas=self.copies, allow_atomic=True
        )
        try:
            for name, act, count in (
                ("publishes, 100 at a time", raw_jetstream.publish, 10_000),
                ("publishes, one at a time", raw_jetstream.publish_each, 2_000),
                ("messages in atomic batches of 300", raw_jetstream.batches, 30_000),
            ):
                rates = []
                for _ in range(ROUNDS):
                    began = time.perf_counter()
                    await act(connection, count)
                    rates.append(count / (time.perf_counter() - began))
                self.limits[name] = statistics.median(rates)
                self.say(name, self.limits[name], "/s")
        finally:
            await js.delete_stream("RAW")
            await connection.close()

    # -- what a scheduler does

    async def register(self) -> None:
        count = 100_000
        bucket = f"r{next(self.names)}"
        far = datetime.now(UTC) + timedelta(days=30)
        async with Scheduler(self.backend(bucket)) as scheduler:
            began = time.perf_counter()
            specs = [JobSpec(f"j{n}", Once(far)) for n in range(count)]
            await scheduler.submit_jobs(specs, atomic=False)
            spent = time.perf_counter() - began
        self.say("registering 100,000 jobs", spent, "s")
        self.say("registering, jobs", count / spent, "/s", "messages in atomic batches of 300")
        await self.start(bucket)
        await self._drop(bucket)

    async def drain(self) -> None:
        rates, batches = [], 0
        count = 10_000
        for _ in range(ROUNDS):
            bucket = f"d{next(self.names)}"
            done = asyncio.Event()
            ran = 0

            async def handle(event: JobEvent, done: asyncio.Event = done) -> None:
                nonlocal ran
                ran += 1
                if ran == count:
                    done.set()

            store = self.backend(bucket)
            async with Scheduler(store, handler=handle) as scheduler:
                at = datetime.now(UTC)
                specs = [JobSpec(f"j{n}", Once(at)) for n in range(count)]
                await scheduler.submit_jobs(specs, atomic=False)
                ran = 0
                began = time.perf_counter()
                task = asyncio.create_task(scheduler.run_forever(signals=False))
                await asyncio.wait_for(done.wait(), 120)
                await scheduler.stop(5)
                rates.append(count / (time.perf_counter() - began))
                await task
                assert store._session is not None  # noqa: SLF001 -- to explain the figure
                batches = store._session.writer.batches  # noqa: SLF001 -- as above
            await self._drop(bucket)
        rate = statistics.median(rates)
        limit = "messages in atomic batches of 300"
        self.say("10,000 due one-shots, claimed, run and settled", rate, "runs/s", limit)
        print(f"    {batches} writes for {count} runs; the pace: docs/explanation/adr/0015")

    async def steady(self) -> None:
        bucket, jobs, seconds = f"s{next(self.names)}", 1000, 20
        late: list[float] = []

        async def handle(event: JobEvent) -> None:
            late.append(event.delay.total_seconds() * 1000)

        async with Scheduler(self.backend(bucket), handler=handle) as scheduler:
            start = datetime.now(UTC) + timedelta(seconds=3)
            specs = [
                JobSpec(f"j{n}", Interval(seconds=1, start=start + timedelta(milliseconds=n)))
                for n in range(jobs)
            ]
            await scheduler.submit_jobs(specs, atomic=False)
            task = asyncio.create_task(scheduler.run_forever(signals=False))
            await asyncio.sleep((start - datetime.now(UTC)).total_seconds())
            before, cpu = len(late), time.process_time()
            await asyncio.sleep(seconds)
            ran, cpu = len(late) - before, time.process_time() - cpu
            await scheduler.stop(5)
            await task
        self.say("1,000 jobs each second for 20 s", ran / seconds, "runs/s")
        self.say("    lateness, median", statistics.median(late), "ms")
        self.say("    process CPU per run", cpu / max(ran, 1) * 1e6, "us")
        await self._drop(bucket)

    async def late(self) -> None:
        for rate in (100, 500):
            bucket, count = f"l{next(self.names)}", rate * 10
            late: list[float] = []

            async def handle(event: JobEvent, late: list[float] = late) -> None:
                late.append(event.delay.total_seconds() * 1000)

            async with Scheduler(self.backend(bucket), handler=handle) as scheduler:
                start = datetime.now(UTC) + timedelta(seconds=3)
                specs = [
                    JobSpec(f"j{n}", Once(start + timedelta(seconds=n / rate)))
                    for n in range(count)
                ]
                await scheduler.submit_jobs(specs, atomic=False)
                task = asyncio.create_task(scheduler.run_forever(signals=False))
                while len(late) < count:
                    await asyncio.sleep(0.1)
                await scheduler.submit_job(
                    "soon", Once(datetime.now(UTC) + timedelta(milliseconds=50))
                )
                while len(late) <= count:
                    await asyncio.sleep(0.01)
                await scheduler.stop(5)
                await task
            soon = late.pop()
            late.sort()
            self.say(f"lateness at {rate}/s, median", late[count // 2], "ms")
            self.say(f"lateness at {rate}/s, 99th percentile", late[int(count * 0.99)], "ms")
            self.say("a reminder submitted 50 ms ahead, late", soon, "ms")
            await self._drop(bucket)

    async def start(self, bucket: str | None = None) -> None:
        stored = "nothing" if bucket is None else "100,000 jobs"
        bucket = bucket or f"e{next(self.names)}"
        call = ("ours", "start", "jetstream", f"{','.join(self.urls)}#{bucket}", 0)
        await asyncio.to_thread(figures, *call)  # leaves bytecode
        found = [await asyncio.to_thread(figures, *call) for _ in range(ROUNDS + 2)]
        seconds = statistics.median(each["ready_ms"] for each in found) / 1000
        self.say(f"process start to first trigger, {stored} stored", seconds, "s")
        memory = statistics.median(each["memory_mb"] for each in found)
        self.say(f"    highest memory, {stored} stored", memory, "MB")

    async def history(self) -> None:
        """A million executions, written as settlements write them."""
        bucket, count = f"g{next(self.names)}", 1_000_000
        store = self.backend(bucket)
        async with Scheduler(store) as scheduler:
            before = self.nodes[0].memory()
            session = store._session  # noqa: SLF001 -- executions without a million jobs
            assert session is not None
            connection = session.wire.client
            now = datetime.now(UTC)
            began = time.perf_counter()
            for start in range(0, count, 50_000):  # a minute's at 800 runs a second
                await _executions(
                    connection, session.names.prefix, range(start, start + 50_000), now
                )
                await session.history.trim(60)
                if start + 50_000 == count // 2:
                    await asyncio.sleep(5)
                    half = self.nodes[0].memory()
            spent = time.perf_counter() - began - 5
            await asyncio.sleep(5)
            after = self.nodes[0].memory()
            self.say("a million executions, written and copied", count / spent, "a second")
            self.say("    server memory before", before / 2**20, "MiB")
            self.say("    server memory after half of them", half / 2**20, "MiB")
            self.say("    server memory after all", after / 2**20, "MiB")
            for what, query in (("all", None), ("one job", "job-7")):
                began, seen = time.perf_counter(), 0
                asked = ExecutionQuery(job_id=query)
                async for _ in scheduler.list_executions(asked):
                    seen += 1
                    if seen == 200:
                        break
                spent = (time.perf_counter() - began) * 1000
                self.say(f"    the newest 200 executions of {what}", spent, "ms")
        await self._drop(bucket)

    async def _drop(self, bucket: str) -> None:
        connection = await nats.connect(self.urls)
        for name in (f"KV_{bucket}", f"KV_{bucket}-lines"):
            await connection.jetstream().delete_stream(name)
        await connection.close()


# -- executions ------------------------------------------------------------


async def _executions(connection: Client, prefix: str, which: range, now: datetime) -> None:
    from sched_core import Kind, Status
    from sched_core.codec import encode_execution

    window = 500
    for start in range(which.start, which.stop, window):
        sent = []
        for n in range(start, start + window):
            job = f"job-{n % 1000}"
            execution = Execution(
                f"uid{n % 1000}:{n // 1000}:1",
                job,
                f"uid{n % 1000}",
                n // 1000,
                attempt=1,
                kind=Kind.SCHEDULED,
                scheduled_at=now,
                status=Status.SUCCEEDED,
                final=True,
                token=n,
                worker="bench",
                claimed_at=now,
                started_at=now,
                finished_at=now,
                expires_at=now + timedelta(days=30),
            )
            subject = f"{prefix}.run.30d.{job}.{n}"
            body, headers = encode_execution(execution), {"Nats-TTL": "86400"}
            if n < start + window - 1:
                await connection.publish(subject, body, headers=headers)
            else:
                sent.append(connection.request(subject, body, headers=headers, timeout=30))
        await asyncio.gather(*sent)


PARTS = ("limits", "register", "drain", "steady", "late", "start", "history")


async def run(bench: Bench, parts: list[str]) -> None:
    acts: dict[str, Callable[[], Awaitable[None]]] = {
        "limits": bench.measure_limits,
        "register": bench.register,
        "drain": bench.drain,
        "steady": bench.steady,
        "late": bench.late,
        "start": bench.start,
        "history": bench.history,
    }
    for part in PARTS:
        if part in parts or part == "limits":
            await acts[part]()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("parts", nargs="*", choices=[*PARTS, []], default=[])
    parser.add_argument("--cluster", action="store_true")
    arguments = parser.parse_args()
    parts = arguments.parts or list(PARTS)
    with tempfile.TemporaryDirectory(prefix="sched-bench-") as folder:
        if arguments.cluster:
            cluster = Cluster(Path(folder))
            nodes, urls, copies = cluster.nodes, cluster.urls, 3
        else:
            nodes = [Server(Path(folder))]
            urls, copies = [nodes[0].url], 1
        try:
            for node in nodes:
                node.start()
            if arguments.cluster:
                time.sleep(5)
            asyncio.run(run(Bench(urls, nodes, copies), parts))
        finally:
            for node in nodes:
                if node.process is not None:
                    node.kill()


if __name__ == "__main__":
    main()
