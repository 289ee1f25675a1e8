"""What is counted of jobs: each record is read once, and again when it has changed.

What was written since the last count has higher sequences, so a count reads only that. A record can
vanish without a word: the server deletes what has expired, and a tool may. So from time to time all
records are gone through, and only those that are not known as they are, are read.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import datetime, timedelta

from attrs import frozen
from nats.aio.msg import Msg

from sched_core import State
from sched_core._model.job import RESERVED
from sched_core.clock import monotonic_seconds
from sched_core.row import Tally
from sched_jetstream._model.record import Record
from sched_jetstream._store.reader import Reader

SWEEP = 300.0
"""Seconds after which all records are gone through again: less than the mark of a removal stays."""
EXPIRES = timedelta(seconds=2)
"""How much later than its record says the server deletes it, at most."""


@frozen
class _Known:
    sequence: int
    state: State | None
    """``None`` for a removed job that is held."""
    queue: str
    due_at: datetime | None
    expires_at: datetime | None
    held: bool
    runs_in: str | None
    """The queue of the run that a worker has."""


_Entry = _Known | int
"""What is known of a record; the sequence alone of one that cannot be read."""


class JobIndex:
    """Counts the jobs of one deployment.

    Args:
        reader: The reader of records.
        expire: Whether the server deletes finished jobs: not where a fake clock decides.
    """

    def __init__(self, reader: Reader, *, expire: bool) -> None:
        self._reader, self._names, self._expire = reader, reader.names, expire
        self._entries: dict[str, _Entry] = {}
        self._seen = 0
        """The sequence up to which all records were read."""
        self._passed: set[str] | None = None
        """The records that were met since the sweep under way began."""
        self._swept, self._sweep_end = 0, 0
        self._swept_at = monotonic_seconds()

    async def count(self, tally: Tally, until: float) -> bool:
        """Count jobs and claims; return whether all were.

        Args:
            tally: What counts.
            until: The ``monotonic_seconds`` at which to stop reading.
        """
        complete = await self._read_on(until) and await self._sweep(until)
        for entry in self._entries.values():
            if isinstance(entry, int):
                tally.add_undecodable()
                continue
            expires_at = entry.expires_at if self._expire else None
            if expires_at is not None and expires_at + EXPIRES < tally.now:
                continue
            if entry.runs_in is not None:
                tally.add_running(entry.runs_in)
            if entry.state is not None:
                tally.add_job(entry.state, entry.queue, None if entry.held else entry.due_at)
        return complete

    async def _read_on(self, until: float) -> bool:
        """Read what was written since; return whether that is all."""
        async for batch in self._messages(self._seen):
            for msg in batch:
                await self._take(msg)
                self._seen = int((msg.headers or {})["Nats-Sequence"])
            if monotonic_seconds() > until:
                return False
        return True

    async def _sweep(self, until: float) -> bool:
        """Go through all records, if that was long ago; return whether none was left out."""
        if self._passed is None:
            if monotonic_seconds() < self._swept_at + SWEEP:
                return True
            self._passed, self._swept, self._sweep_end = set(), 0, self._seen
        async for batch in self._messages(self._swept):
            for msg in batch:
                headers = msg.headers or {}
                sequence = int(headers["Nats-Sequence"])
                token = self._names.record_token(headers["Nats-Subject"])
                known = self._entries.get(token)
                if known is None or sequence > _sequence(known):
                    await self._take(msg)
                self._passed.add(token)
                self._swept = sequence
            if self._swept >= self._sweep_end:
                break
            if monotonic_seconds() > until:
                return False
        gone = [
            token
            for token, entry in self._entries.items()
            if token not in self._passed and _sequence(entry) <= self._sweep_end
        ]
        for token in gone:
            del self._entries[token]
        self._passed, self._swept_at = None, monotonic_seconds()
        return True

    def _messages(self, after: int) -> AsyncIterator[list[Msg]]:
        return self._reader.messages(self._names.record("*"), after=after)

    async def _take(self, msg: Msg) -> None:
        found = await self._reader.read_message(msg)
        content = found.content
        if content is None:
            self._entries.pop(found.token, None)
        elif not isinstance(content, Record):
            self._entries[found.token] = found.sequence
        else:
            job, hold = content.job, content.hold
            if job is not None and job.id.startswith(RESERVED):
                job = None
            self._entries[found.token] = _Known(
                found.sequence,
                None if job is None else job.state,
                "" if job is None else job.spec.queue,
                None if job is None else job.standing.due_at,
                None if job is None or hold is not None else job.standing.expires_at,
                hold is not None,
                None if hold is None or hold.pending is None else hold.queue,
            )


def _sequence(entry: _Entry) -> int:
    return entry if isinstance(entry, int) else entry.sequence
