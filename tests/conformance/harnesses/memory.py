"""What is in memory."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tests.conformance.harnesses import LEASE

from sched_core import MemoryBackend, MemoryStore, Undecodable, UndecodableExecution
from sched_testkit import Harness


class MemoryHarness(Harness):
    name = "memory"
    can_spoil = can_spoil_execution = True

    @contextmanager
    def place(self) -> Iterator[MemoryStore]:
        yield MemoryStore()

    def backend(self, place: Any) -> MemoryBackend:
        return MemoryBackend(place, lease=LEASE)

    async def spoil(self, place: Any, job_id: str) -> None:
        row = place.row(job_id)
        row.job = Undecodable(job_id, "format 99 is not known", 99, b"{}")
        place.save(job_id, row)

    async def spoil_execution(self, place: Any, job_id: str) -> None:
        spoil_newest(place, job_id)


def spoil_newest(store: MemoryStore, job_id: str) -> None:
    """Make the newest execution of a job one that cannot be read."""
    for index, (position, execution) in reversed([*enumerate(store.history)]):
        if execution.job_id == job_id:
            odd = UndecodableExecution(execution.id, job_id, "a field is not known", b"{}")
            store.history[index] = position, odd
            store.written[execution.id] = odd
            return
