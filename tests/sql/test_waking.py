"""What wakes a waiting call in a database, beyond what the port asks of every backend."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import anyio
import pytest
from tests.sql.stores import NOW, Store, job, run

from sched_core import Room


@pytest.mark.parametrize("kind", ["sqlite", "postgres"])
def test_a_job_due_later_does_not_wake(kind: str, tmp_path: Path) -> None:
    async def test(store: Store) -> None:
        backend = await store.open()
        await backend.add([job("soon", NOW + timedelta(seconds=2))])
        async with anyio.create_task_group() as tasks:
            ended = anyio.Event()

            async def wait() -> None:
                await backend.wait_due(Room(1))
                ended.set()

            tasks.start_soon(wait)
            while backend._sleeps_until is None:  # type: ignore[attr-defined]  # noqa: ASYNC110
                await anyio.sleep(0.01)  # until it sleeps, everything that is written wakes it
            await backend.add([job("later", NOW + timedelta(seconds=3))])
            await anyio.sleep(0.4)
            assert not ended.is_set()
            tasks.cancel_scope.cancel()

    run(test, kind, tmp_path)
