"""The composed backend passes the conformance suite, and tells what is true."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import anyio
from audited_backend import AuditedBackend, Change  # type: ignore[import-not-found]  # same folder

from sched_core import Interval, MemoryBackend, MemoryStore, Scheduler
from sched_testkit import Harness, conformance


class AuditedHarness(Harness):
    name = "audited memory"

    @contextmanager
    def place(self) -> Iterator[MemoryStore]:
        yield MemoryStore()

    def backend(self, place: Any) -> Any:
        return AuditedBackend(MemoryBackend(place, lease=timedelta(seconds=30)), lambda _: None)


TestAudited = conformance(AuditedHarness())


def test_it_tells_of_every_change() -> None:
    told: list[Change] = []

    async def main() -> None:
        backend: Any = AuditedBackend(MemoryBackend(), told.append)
        async with Scheduler(backend, handler=print) as scheduler:
            for hours in (1, 1, 2):
                await scheduler.ensure_job("a", Interval(hours=hours))
            await scheduler.remove_job("a")

    anyio.run(main)
    assert [change.what for change in told] == ["added", "replaced", "removed"]
    assert told[1].before.spec.schedule == Interval(hours=1)
    assert told[1].after.spec.schedule == Interval(hours=2)
