"""The stores that the core's tests run on; each can be opened several times on the same data."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

from sched_core.memory import MemoryBackend, MemoryStore
from sched_core.ports import Backend

KINDS = ("memory", "sqlite")
LEASE = timedelta(seconds=30)

Open = Callable[[], Backend]
"""Makes one more instance on the same data."""


def fresh_store(kind: str, folder: Path) -> Open:
    """Return a function that opens the same new store each time: another process, so to speak.

    Args:
        kind: One of ``KINDS``.
        folder: Where files may go; ``jobs.db`` is the database.
    """
    if kind == "memory":
        store = MemoryStore()
        return lambda: MemoryBackend(store, lease=LEASE)
    from sched_sql import SqlBackend

    return lambda: SqlBackend(folder / "jobs.db", lease=LEASE)
