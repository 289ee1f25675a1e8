"""The reconciler: finds jobs that are due and not claimed, and sends hints about them.

It repairs what no other part can: a schedule that the server lost or could not fire, a hint that
was acknowledged by mistake, a stream from which messages were deleted. A hint too many costs one
read, so several replicas may do it at once; they take turns only to save work.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from math import ceil

from sched_core._support.logger import Logger
from sched_core.clock import monotonic_seconds, pause
from sched_jetstream._model.layout import EXPECTED, LAYOUT, TTL, Message
from sched_jetstream._model.protocol import StoredRecord, Verdict, assess
from sched_jetstream._model.record import Record
from sched_jetstream._model.subjects import DEFAULT
from sched_jetstream._store.reader import Reader
from sched_jetstream._store.wire import ApiError

logger = Logger("sched_jetstream")

NOW = timedelta(0)


class Reconciler:
    """Goes through all records.

    Args:
        reader: The reader of records.
        now: Tells the time that decides.
        lapsed: Told of each claim whose lease has ended: this worker ends it, for a hint alone may
            be one in a queue that no worker serves.
    """

    def __init__(
        self,
        reader: Reader,
        now: Callable[[], datetime],
        lapsed: Callable[[datetime, StoredRecord], None],
    ) -> None:
        self._reader, self._wire, self._names = reader, reader.wire, reader.names
        self._now, self._lapsed = now, lapsed

    async def scan(self, near: timedelta = NOW) -> list[tuple[datetime, StoredRecord]]:
        """Return what is due, or whose lease ends, by then, oldest first.

        For small stores on a fake clock.
        """
        there: dict[str, tuple[datetime, StoredRecord]] = {}
        async for page in self._reader.scan():
            for found in page:
                now = self._now()
                judged = assess(found, now, near=near)
                if judged.at is not None and judged.at <= now + near:
                    there[found.token] = (judged.at, found)
                else:
                    there.pop(found.token, None)
        return sorted(there.values(), key=lambda entry: (entry[0], entry[1].token))

    async def due_since(self) -> datetime | None:
        """Return since when a job is due that no live claim holds."""
        now, since = self._now(), None
        for _, found in await self.scan():
            record = found.content
            if isinstance(record, Record) and record.job is not None:
                due = record.job.standing.due_at
                if due is not None and due <= now and (since is None or due < since):
                    since = due
        return since

    async def go_through(self, *, grace: timedelta, rate: int | None = None) -> int:
        """Send a hint for each job that has been due, or whose lease has ended, for the grace.

        Args:
            grace: What is due for less may have a hint on its way.
            rate: Records a second; ``None`` for as fast as possible.

        Returns:
            How many hints were sent.
        """
        sent = 0
        began, seen = monotonic_seconds(), 0
        async for page in self._reader.scan():
            overdue = []
            for found in page:
                judged = assess(found, self._now() - grace, near=NOW)
                if judged.verdict is Verdict.DUE and judged.at is not None:
                    overdue.append((judged.at, found))
            for at, found in sorted(overdue, key=lambda entry: entry[0]):
                record = found.content
                queue = record.queue if isinstance(record, Record) else DEFAULT
                if isinstance(record, Record) and record.hold is not None:
                    self._lapsed(at, found)
                await self._wire.store(Message(self._names.fire(found.token, queue), b"", {}))
                sent += 1
            seen += len(page)
            ahead = 0.0 if rate is None else seen / rate - (monotonic_seconds() - began)
            if ahead > 0:
                await pause(ahead)
        if sent:
            logger.info("the reconciler sent %s hints", sent)
        return sent

    async def expired(self) -> list[StoredRecord]:
        """Return finished jobs that may be deleted."""
        now = self._now()
        gone: dict[str, StoredRecord] = {}
        async for page in self._reader.scan():
            for found in page:
                record = found.content
                gone.pop(found.token, None)
                if (
                    isinstance(record, Record)
                    and record.job is not None
                    and record.hold is None
                    and record.job.standing.expires_at is not None
                    and record.job.standing.expires_at <= now
                ):
                    gone[found.token] = found
        return list(gone.values())

    async def my_turn(self, interval: timedelta) -> bool:
        """Whether no replica has begun a pass within the interval."""
        headers = {EXPECTED: "0", TTL: str(max(ceil(interval.total_seconds()), 1))}
        try:
            await self._wire.store(Message(self._names.lock(f"reconciler-{LAYOUT}"), b"", headers))
        except ApiError:
            return False
        return True
