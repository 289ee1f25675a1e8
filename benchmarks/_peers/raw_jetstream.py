"""What JetStream and its client can do by themselves: ``WORKLOAD STORE PLACE N``.

A run is written as a hundred claims in one atomic batch, then a hundred records and as many lines
in another; nothing is read, no scheduler.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Iterable

import nats
from benchmarks._peers import figures
from benchmarks._peers.figures import Meter
from nats.aio.client import Client

RUNS = 100
LARGEST = 300
"""Messages in one batch of those that register."""
BODY = b"x" * 300


async def publish(connection: Client, count: int) -> None:
    """Publish a hundred at a time, each acknowledged."""
    js = connection.jetstream()
    for _ in range(count // RUNS):
        await asyncio.gather(*(js.publish("raw.a", BODY) for _ in range(RUNS)))


async def publish_each(connection: Client, count: int) -> None:
    """Publish one by one, each acknowledged."""
    js = connection.jetstream()
    for number in range(count):
        await js.publish(f"raw.{number}", BODY)


async def batches(connection: Client, count: int) -> None:
    """Publish in atomic batches."""
    for start in range(0, count, LARGEST):
        names = range(start, min(start + LARGEST, count))
        await batch(connection, [f"raw.{number}" for number in names])


async def batch(connection: Client, subjects: Iterable[str]) -> None:
    """Publish one atomic batch."""
    *first, last = subjects
    identity, number = secrets.token_hex(8), 0
    for number, subject in enumerate(first, 1):
        headers = {"Nats-Batch-Id": identity, "Nats-Batch-Sequence": str(number)}
        await connection.publish(subject, BODY, headers=headers)
    headers = {
        "Nats-Batch-Id": identity,
        "Nats-Batch-Sequence": str(number + 1),
        "Nats-Batch-Commit": "1",
    }
    await connection.request(last, BODY, headers=headers, timeout=10)


async def burst(connection: Client, count: int) -> None:
    for start in range(0, count, RUNS):
        names = range(start, min(start + RUNS, count))
        await batch(connection, [f"raw.{n}" for n in names])
        await batch(connection, [f"{kind}.{n}" for n in names for kind in ("raw", "line")])


async def main() -> None:
    asked = figures.call()
    connection = await nats.connect(asked.place.partition("#")[0])
    await connection.jetstream().add_stream(
        name="RAW", subjects=["raw.>", "line.>"], max_msgs_per_subject=1, allow_atomic=True
    )
    acts = {"register": publish_each, "register-bulk": batches, "burst": burst}
    meter = Meter()
    await acts[asked.workload](connection, asked.n)
    found = meter.rate(asked.n)
    await connection.close()
    figures.tell(found)


if __name__ == "__main__":
    asyncio.run(main())
