"""The clock for tests: a fake one decides, and the server's timers know nothing of it.

No hint comes when something is due, no lease runs out and nothing expires on the server's side. So
this worker reads all records instead. That is right for small stores only.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from sched_core.clock import Clock
from sched_jetstream._model.protocol import Write
from sched_jetstream._model.record import Record
from sched_jetstream._runtime.background import Work
from sched_jetstream._runtime.due_queue import Hint
from sched_jetstream._runtime.hints import NEAR, Hints
from sched_jetstream._runtime.reconciler import Reconciler
from sched_jetstream._store.history import EPOCH, History
from sched_jetstream._store.reader import Reader
from sched_jetstream._store.records import Records
from sched_jetstream._store.writer import RevisionMismatch


class VirtualTime:
    """A clock that a test sets decides.

    Args:
        clock: The test's clock.
    """

    server_expires = False
    may_take_over = True

    def __init__(self, clock: Clock) -> None:
        self._clock = clock

    @property
    def clock(self) -> Clock:
        return self._clock

    def history(self, reader: Reader) -> History:
        return VirtualHistory(reader)

    async def begin(self) -> None:
        return

    def lasting(self, reconcile: Work) -> Sequence[Work]:
        return ()

    async def find_due(self, reconciler: Reconciler, hints: Hints) -> bool:
        there = await reconciler.scan(NEAR)
        hints.replace([Hint(found.token, at, found) for at, found in there])
        return True

    async def delete_expired(self, reconciler: Reconciler, records: Records) -> int:
        deleted = 0
        for found in await reconciler.expired():
            record = found.content
            if isinstance(record, Record):
                try:
                    await records.write(found, Write(record.id, None))
                except RevisionMismatch:
                    continue
                deleted += 1
        return deleted


class VirtualHistory(History):
    """A history in which the moments that the server stored mean nothing."""

    def too_old(self, since: datetime | None) -> str:
        return ""

    def _written_after(self, claimed_at: datetime) -> datetime:
        return EPOCH

    async def _prune(self, before: datetime, now: datetime) -> int:
        """Look at every execution."""
        gone: list[int] = []
        async for entry in self._windows(None):
            one = entry.execution
            if one is not None and (
                (one.finished_at is not None and one.finished_at < before)
                or (one.expires_at is not None and one.expires_at <= now)
            ):
                gone.append(entry.sequence)
        for sequence in gone:
            await self._wire.call(
                f"STREAM.MSG.DELETE.{self._names.history_stream}",
                {"seq": sequence, "no_erase": True},
            )
        return len(gone)
