"""Records are changed by compare-and-set: read, decide, write; on a mismatch, read again."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from functools import partial
from secrets import token_hex
from typing import Generic, TypeVar

from attrs import frozen

from sched_core.clock import monotonic_seconds, pause
from sched_core.errors import BackendUnavailable
from sched_jetstream._model.layout import AtomicWrite, build_write
from sched_jetstream._model.protocol import StoredRecord, Write
from sched_jetstream._model.record import with_revision
from sched_jetstream._store.history import History
from sched_jetstream._store.reader import Reader
from sched_jetstream._store.writer import GroupCommitWriter, RevisionMismatch
from sched_jetstream.errors import OutcomeUnknown, PermissionDenied

T = TypeVar("T")

Decide = Callable[[StoredRecord, bool], Write | T]
"""Takes what was read, and whether an earlier try may be stored. Returns what to write, or an
answer where nothing is to be written."""

AT_ONCE = timedelta(0)


@frozen
class Change(Generic[T]):
    """How a change of a record ended.

    Attributes:
        found: What is stored now.
        answer: What was decided where nothing was written; ``None`` after a write.
    """

    found: StoredRecord
    answer: T | None


class Records:
    """Writes decisions about records, each on the revision that it was made for.

    Args:
        reader: Reads records.
        writer: Writes them.
        history: Knows which executions are stored.
        now: Tells the time that decides.
        outbox: How long an execution may wait to be copied into the history.
        expire: Whether the server deletes finished jobs.
    """

    def __init__(
        self,
        reader: Reader,
        writer: GroupCommitWriter,
        history: History,
        *,
        now: Callable[[], datetime],
        outbox: timedelta,
        expire: bool,
    ) -> None:
        self._reader, self._writer, self._history, self._now = reader, writer, history, now
        self._build = partial(
            build_write,
            reader.names,
            new_generation=_new_generation,
            outbox_ttl=outbox,
            expire=expire,
        )

    async def read(self, token: str) -> StoredRecord:
        """Read a record from the leader.

        Raises:
            StreamLost, BackendUnavailable.
        """
        return await self._reader.read_leader(token)

    def submit(
        self, found: StoredRecord, write: Write
    ) -> tuple[AtomicWrite, asyncio.Future[list[int]]]:
        """Hand over a write whose executions are new.

        Args:
            found: What is replaced.
            write: What was decided.

        Returns:
            The messages, and a future with the sequence of the record; it raises as
            :meth:`GroupCommitWriter.submit` says. :func:`written` returns what is stored then.
        """
        built = self._build(found, write, self._now())
        return built, self._writer.submit(built)

    async def write(self, found: StoredRecord, write: Write) -> StoredRecord:
        """Write once, on what was found; return what is stored now.

        Raises:
            RevisionMismatch: The record has changed. Nothing was stored.
            BackendError: See :meth:`GroupCommitWriter.submit`.
        """
        built = await self._build_new(found, write)
        (sequence,) = await self._writer.write(built)
        return written(found.token, sequence, built)

    async def change(
        self,
        token: str,
        decide: Decide[T],
        *,
        budget: timedelta = AT_ONCE,
        known: StoredRecord | None = None,
    ) -> Change[T]:
        """Change one record.

        Args:
            token: The token of the record's subject.
            decide: Says what to write.
            budget: How long a server that does not answer is tried again.
            known: The record as far as it is known, in place of the first read.

        Raises:
            BackendError: Nothing was stored, or the outcome is unknown.
        """
        founds = None if known is None else {token: known}
        changes = await self.change_together({token: decide}, budget=budget, known=founds)
        return changes[token]

    async def change_together(
        self,
        decisions: Mapping[str, Decide[T]],
        *,
        budget: timedelta = AT_ONCE,
        known: Mapping[str, StoredRecord] | None = None,
        may_retry: Callable[[], bool] = lambda: True,
    ) -> dict[str, Change[T]]:
        """Change several records in one atomic write.

        Args:
            decisions: Says for each token what to write.
            budget: How long a server that does not answer is tried again.
            known: The records as far as they are known, in place of the first read.
            may_retry: Whether the server may be tried again within the budget.

        Raises:
            BackendError: Nothing was stored, or the outcome is unknown.
        """
        until = monotonic_seconds() + budget.total_seconds()
        may_exist = False
        while True:
            try:
                founds = await self._read(list(decisions)) if known is None else known
                return await self._write(decisions, founds, may_exist)
            except RevisionMismatch:
                known = None
            except PermissionDenied:
                raise
            except BackendUnavailable as error:
                if monotonic_seconds() >= until or not may_retry():
                    raise
                known = None
                if isinstance(error, OutcomeUnknown):
                    may_exist = True
                else:
                    await pause(0.1)

    async def _build_new(self, found: StoredRecord, write: Write) -> AtomicWrite:
        """Return the messages of a write without the executions that are stored already."""
        if not write.may_exist:
            return self._build(found, write, self._now())
        known = await self._history.stored(write.executions)
        new = [each for each in write.executions if each.id not in known]
        return self._build(found, write, self._now(), executions=new)

    async def _read(self, tokens: Sequence[str]) -> Mapping[str, StoredRecord]:
        if len(tokens) == 1:
            return {tokens[0]: await self._reader.read_leader(tokens[0])}
        return await self._reader.read_current(tokens)

    async def _write(
        self,
        decisions: Mapping[str, Decide[T]],
        founds: Mapping[str, StoredRecord],
        may_exist: bool,
    ) -> dict[str, Change[T]]:
        changes: dict[str, Change[T]] = {}
        writes: dict[str, AtomicWrite] = {}
        for token, decide in decisions.items():
            found = founds[token]
            decided = decide(found, may_exist)
            if isinstance(decided, Write):
                writes[token] = await self._build_new(found, decided)
            else:
                changes[token] = Change(found, decided)
        if writes:
            sequences = await self._writer.write(*writes.values())
            for (token, built), sequence in zip(writes.items(), sequences, strict=True):
                changes[token] = Change(written(token, sequence, built), None)
        return changes


def written(token: str, sequence: int, built: AtomicWrite) -> StoredRecord:
    """Return what is stored after a write: a revision that was left open is its sequence."""
    record = built.record
    content = None if record is None else with_revision(record, sequence)
    return StoredRecord(token, sequence, content)


def _new_generation() -> str:
    return token_hex(6)
