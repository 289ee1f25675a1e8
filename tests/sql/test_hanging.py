"""A SQLite file whose lock another process keeps: callers that leave do leave."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import anyio
import pytest

from sched_core import BackendUnavailable, SystemClock
from sched_sql import SqlBackend

SOON = 5.0
"""Seconds; by far less than the backend itself would wait."""


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock that every write takes, as another process would."""
    file = os.open(path, os.O_RDWR)
    try:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
    finally:
        os.close(file)


@pytest.mark.parametrize("loop", ["asyncio", "trio"])
def test_a_cancelled_call_returns_and_closing_is_bounded(tmp_path: Path, loop: str) -> None:
    async def main() -> None:
        backend = SqlBackend(tmp_path / "jobs.db", timeout=timedelta(seconds=60))
        await backend.open(SystemClock(), worker="w")
        with locked(tmp_path / "jobs.db-lock"):
            with anyio.fail_after(SOON), anyio.move_on_after(0.1) as scope:
                await backend.check()
            assert scope.cancelled_caught
            with anyio.fail_after(SOON):
                with pytest.raises(BackendUnavailable, match="holds the lock"):
                    await backend.close()
        # Nothing is left that keeps others out.
        other = SqlBackend(tmp_path / "jobs.db", timeout=timedelta(seconds=1))
        await other.open(SystemClock(), worker="other")
        await other.check()
        await other.close()

    anyio.run(main, backend=loop)
