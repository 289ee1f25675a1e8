"""A database and memory answer the same calls alike; see ``twins``."""

from __future__ import annotations

from pathlib import Path

import anyio
import pytest
from tests.sql.twins import LEASE, Twins

from sched_core.ports import Backend
from sched_core.testing import FakeClock
from sched_sql import SqlBackend

STEPS = 400


@pytest.mark.parametrize("seed", range(5))
def test_sqlite_answers_as_memory_does(tmp_path: Path, seed: int) -> None:
    async def main() -> None:
        clock, opened = FakeClock(), list[Backend]()

        async def open_other() -> Backend:
            backend = SqlBackend(tmp_path / "jobs.db", lease=LEASE, synchronous="NORMAL")
            opened.append(backend)
            await backend.open(clock, worker=f"worker-{len(opened)}")
            return backend

        twins = Twins(seed, clock, open_other)
        await twins.open()
        done = [await twins.step() for _ in range(STEPS)]
        assert set(done) >= {"add", "claim", "settle", "edit", "renew", "again", "read"}
        await twins.close()
        for backend in opened:
            await backend.close()

    anyio.run(main)
