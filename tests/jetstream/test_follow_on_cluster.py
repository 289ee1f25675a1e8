"""The history from a cursor on, where copies of the stream lag behind its leader."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from tests.jetstream.filled import execution, write
from tests.nats_server import Cluster

from sched_core import CursorExpired, SystemClock
from sched_jetstream import JetStreamBackend

COUNT = 400


def test_nothing_is_skipped_while_others_write_and_delete(tmp_path: Path) -> None:
    cluster = Cluster(tmp_path)

    async def main() -> None:
        writer = JetStreamBackend(cluster.urls, replicas=3)
        await writer.open(SystemClock(), worker="writer")
        backend = JetStreamBackend(cluster.urls, replicas=3)
        await backend.open(SystemClock(), worker="follower")
        session = writer._session
        assert session is not None
        history = session.names.history_stream

        async def delete(what: str, sequence: int) -> None:
            assert session is not None
            await session.wire.call(f"STREAM.{what}.{history}", {"seq": sequence})

        async def fill() -> None:
            for number in range(1, COUNT + 1):
                await write(writer, execution(number))

        filling = asyncio.create_task(fill())
        found: list[int] = []
        cursor, parts = "", 0
        while not filling.done() or len(found) < COUNT:
            part = await backend.follow(cursor, limit=20)
            found += [int(each.id.split(":")[1]) for each in part.executions]
            cursor, parts = part.cursor, parts + 1
            if part.executions and parts % 3 == 0:
                await delete("PURGE", int(cursor.split(".")[2]))
        await filling
        assert found == list(range(1, COUNT + 1))

        await write(writer, *(execution(COUNT + number) for number in range(1, 11)))
        while not (part := await backend.follow(cursor, limit=5)).executions:
            await asyncio.sleep(0.05)
        ahead = int(part.cursor.split(".")[2]) + 2
        while int((await backend.follow(None, limit=1)).cursor.split(".")[2]) < ahead:
            await asyncio.sleep(0.05)
        await delete("MSG.DELETE", ahead)
        with pytest.raises(CursorExpired):
            await backend.follow(part.cursor, limit=5)
        await backend.close()
        await writer.close()

    try:
        cluster.start()
        asyncio.run(main())
    finally:
        cluster.end()
