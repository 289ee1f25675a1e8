"""The history: executions on their way in the one stream, and their copies in the other.

Executions are written with the record, in one atomic write, into the stream of jobs. The server
copies them into the history's stream within milliseconds; from there they are read, and what is not
copied yet is read where it lies. The order is that of writing, by the sequence in the first stream,
which a copy names in a header.
"""

from __future__ import annotations

import base64
import re
from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from attrs import evolve, frozen
from nats.aio.msg import Msg

from sched_core import Execution, codec
from sched_core.clock import FIRST, monotonic_seconds, pause
from sched_core.codec import encode_moment
from sched_core.errors import BackendError
from sched_core.ports import ExecutionQuery, Page, UndecodableExecution
from sched_jetstream._model import old_format
from sched_jetstream._model.layout import FOREVER, OPERATION, REMOVED, RETENTION_CLASSES
from sched_jetstream._model.subjects import Names, id_of, token_of
from sched_jetstream._store.reader import NO_MESSAGE, NO_STREAM, Reader
from sched_jetstream._store.wire import ApiError, NoResponders
from sched_jetstream.errors import StreamLost

STORED_AT = "Nats-Time-Stamp"
LATEST = 5.0
"""Seconds for which a copy is taken to be late; after that it never comes."""

_SOURCE = re.compile(rb"Nats-Stream-Source: *\S+ (\d+)")

BATCH = 1000
"""Executions in one answer."""
SPREAD = timedelta(minutes=1)
"""How much the clocks of a cluster's nodes may differ: a claim has the moment of one, its
executions of another."""
WINDOW = 256
"""Sequences that are read at a time, backwards."""
PLACES = 5000
"""Executions whose sequences are kept."""
SLICE = 10_000
"""Executions that one purge deletes: the stream does nothing else meanwhile, 1 ms per thousand."""
PATIENCE = 2.0
"""Seconds to wait for executions to be copied, before pruning them."""
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
LATE = timedelta(minutes=10)
"""An execution is written at most so long after its run has ended, except in an outage."""


@frozen
class Entry:
    """An execution and its position.

    Attributes:
        execution: ``None`` for the mark that some tool deleted what lay there.
        origin: Its sequence in the stream of jobs: the order of writing; 0 where it was not copied
            from there: another tool put it into the history.
        sequence: Its own, in the history; 0 for one that is not copied yet.
        stored_at: When the server stored it, as the server writes moments.
    """

    execution: Execution | UndecodableExecution | None
    origin: int
    sequence: int
    stored_at: str


class History:
    """Reads and prunes the history of one deployment.

    Args:
        reader: The reader of records.
    """

    def __init__(self, reader: Reader) -> None:
        self._reader, self._wire = reader, reader.wire
        self._names: Names = reader.names
        self.places: dict[str, int] = {}
        """The sequences of the executions that were read last: who lists one, may ask for it."""
        self._waited_for = 0
        """The sequence of an execution whose copy was waited for, perhaps in vain."""
        self.lags_since: datetime | None = None
        """The moment at which the newest execution with a late copy was written; or ``None``."""
        self._lags_until = 0.0

    # -- reading

    async def page(
        self, query: ExecutionQuery, after: str | None, limit: int
    ) -> Page[Execution | UndecodableExecution]:
        """List executions, newest first."""
        found: list[tuple[Execution | UndecodableExecution, str]] = []
        async for entry in self._newest_first(query, after):
            execution = entry.execution
            if execution is None or not query.matches(execution):
                continue
            if len(found) == limit:
                return Page([each for each, _ in found], found[-1][1])
            found.append((execution, f"{entry.origin}.{entry.sequence}"))
        return Page([each for each, _ in found], None)

    async def _newest_first(self, query: ExecutionQuery, after: str | None) -> AsyncIterator[Entry]:
        origin, sequence = _position(after)
        whose = "*" if query.job_id is None else token_of(query.job_id)
        seen: set[int] = set()
        too_old = self.too_old(query.since)
        if sequence == 0:
            for entry in reversed([each for _, each in await self.on_the_way(whose)]):
                seen.add(entry.origin)
                if origin is None or entry.origin < origin:
                    yield entry
        below = None if sequence == 0 else sequence
        async for entry in self.backwards(whose, below):
            if entry.origin and (entry.origin in seen or (origin and entry.origin >= origin)):
                continue  # listed while it was on its way
            if entry.stored_at[: len(too_old)] < too_old:
                return
            yield entry

    def too_old(self, since: datetime | None) -> str:
        """Return before which moment nothing was stored that is asked for; empty for no moment.

        What the server says of an execution counts, and not what it says itself: one that makes no
        sense must not end the listing of all others.
        """
        if since is None or since - FIRST < LATE:
            return ""
        return encode_moment(since - LATE)[: len("2026-01-01T00:00:00")]

    async def _copied(self) -> int:
        """Return the sequence up to which everything has been copied."""
        return _origin_of(
            await self._last(self._names.history_stream, self._names.history("*", "*"))
        )

    async def _last(self, stream: str, subject: str) -> dict[str, Any]:
        """Return the last message under a subject; an empty one where there is none."""
        try:
            reply = await self._wire.call(f"STREAM.MSG.GET.{stream}", {"last_by_subj": subject})
        except ApiError as error:
            if error.err_code == NO_MESSAGE:
                return {}
            if error.err_code == NO_STREAM:
                raise StreamLost(stream) from error
            raise
        message: dict[str, Any] = reply["message"]
        return message

    async def on_the_way(self, token: str) -> list[tuple[str, Entry]]:
        """Return the executions that are not copied yet, oldest first, and their jobs' tokens."""
        found: list[tuple[str, Entry]] = []

        def each(msg: Msg) -> None:
            subject = (msg.headers or {})["Nats-Subject"]
            found.append((self._names.run_token(subject), self.original(msg)))

        sequence = await self._copied() + 1
        while True:
            before = len(found)
            subject = self._names.run("*", token, "*")
            body = {"seq": sequence, "next_by_subj": subject, "batch": 1000}
            await self._get(self._names.stream, body, each)
            if len(found) - before < 1000:
                return found
            sequence = found[-1][1].origin + 1

    async def _written_since(self, job_id: str, since: datetime) -> list[Entry]:
        """Return the executions of a job that the server stored since a moment, newest first.

        With as many requests for one as for a thousand, and none that reads what is older.
        """
        token = token_of(job_id)
        outbox = [each for _, each in await self.on_the_way(token)]
        copies: list[Entry] = []

        def each(msg: Msg) -> None:
            copies.append(self.copy(msg))

        begin: dict[str, object] = {"start_time": encode_moment(max(since, EPOCH))}
        while True:
            before = len(copies)
            body = {**begin, "next_by_subj": self._names.history("*", token), "batch": BATCH}
            await self._get(self._names.history_stream, body, each)
            if len(copies) - before < BATCH:
                break
            begin = {"seq": copies[-1].sequence + 1}
        copied = {each.origin for each in copies}  # some while the outbox was read
        return [
            *(each for each in reversed(outbox) if each.origin not in copied),
            *reversed(copies),
        ]

    async def backwards(self, whose: str, below: int | None) -> AsyncIterator[Entry]:
        """Read the copies backwards, from below a sequence on."""
        if whose == "*":
            async for entry in self._windows(below):
                yield entry
            return
        while True:
            newest: list[Entry] = []

            def each(msg: Msg, newest: list[Entry] = newest) -> None:
                newest.append(self.copy(msg))

            more = {} if below is None else {"up_to_seq": below - 1}
            if below is not None and below <= 1:
                return
            subjects = [self._names.history("*", whose)]
            await self._reader.multi(self._names.history_stream, subjects, each, **more)
            if not newest:
                return
            first = max(newest, key=lambda entry: entry.sequence)
            yield first
            below = first.sequence

    async def _windows(self, below: int | None) -> AsyncIterator[Entry]:
        info = await self._wire.call(f"STREAM.INFO.{self._names.history_stream}")
        first = int(info["state"]["first_seq"])
        below = int(info["state"]["last_seq"]) + 1 if below is None else below
        while below > first:
            start = max(first, below - WINDOW)
            found: list[Entry] = []

            def each(msg: Msg, found: list[Entry] = found) -> None:
                found.append(self.copy(msg))

            body = {"seq": start, "next_by_subj": self._names.history("*", "*"), "batch": WINDOW}
            await self._get(self._names.history_stream, body, each)
            for entry in reversed(found):
                if entry.sequence < below:
                    yield entry
            below = start

    def original(self, msg: Msg) -> Entry:
        """Return what a message says that is on its way into the history."""
        headers = msg.headers or {}
        sequence, subject = int(headers["Nats-Sequence"]), headers["Nats-Subject"]
        name = f"{self._names.stream}@{sequence}"
        execution = _read(msg, name, self._names.run_token(subject))
        return Entry(execution, sequence, 0, headers.get(STORED_AT, ""))

    def copy(self, msg: Msg) -> Entry:
        """Return what a message of the history's stream says."""
        headers = msg.headers or {}
        origin, sequence = _origin(msg), int(headers["Nats-Sequence"])
        stream = self._names.stream if origin else self._names.history_stream
        name = f"{stream}@{origin or sequence}"
        execution = _read(msg, name, self._names.history_token(headers["Nats-Subject"]))
        if execution is not None:
            self.places[execution.id] = sequence
            if len(self.places) > PLACES:
                self.places.pop(next(iter(self.places)))
        return Entry(execution, origin, sequence, headers.get(STORED_AT, ""))

    async def _get(self, stream: str, body: dict[str, object], each: object) -> None:
        try:
            await self._wire.collect(
                f"{self._wire.api}.DIRECT.GET.{stream}",
                body,
                each=each,  # type: ignore[arg-type]
            )
        except NoResponders:
            await self._reader.stream_exists(stream)
            raise

    # -- looking up

    async def of_claim(
        self, executions: Sequence[Execution], claimed_at: datetime
    ) -> dict[str, Execution | UndecodableExecution]:
        """Return what is stored under the ids of executions that end a claim.

        They were written after the claim. What is older is not read: a settlement that comes too
        late must cost the same however long the job's history is.
        """
        return await self.stored(executions, self._written_after(claimed_at))

    def _written_after(self, claimed_at: datetime) -> datetime:
        """Return when the server stored the executions of a claim at the earliest."""
        return claimed_at - SPREAD

    async def stored(
        self, executions: Sequence[Execution], since: datetime = EPOCH
    ) -> dict[str, Execution | UndecodableExecution]:
        """Return what is stored under the ids of executions; of two, the newer one.

        Args:
            executions: The executions, of any jobs.
            since: The moment from which on the history is read.
        """
        wanted = {each.id for each in executions}
        known: dict[str, Execution | UndecodableExecution] = {}
        for job_id in {each.job_id for each in executions}:
            for entry in await self._written_since(job_id, since):
                if entry.execution is not None and entry.execution.id in wanted:
                    known.setdefault(entry.execution.id, entry.execution)
        return known

    # -- pruning

    async def prune(self, before: datetime, now: datetime) -> int:
        """Delete the executions that ended before the moment, and those that have expired."""
        await self.trim(PATIENCE)
        return await self._prune(before, now)

    async def _prune(self, before: datetime, now: datetime) -> int:
        deleted = 0
        for name, keep in (*RETENTION_CLASSES, (FOREVER, None)):
            ends = before if keep is None else max(before, now - keep)
            if ends <= EPOCH:
                continue
            deleted += await self._purge_until(self._names.history(name, "*"), ends)
        return deleted

    async def _purge_until(self, subject: str, moment: datetime) -> int:
        """Delete what was written before the moment: what was written had ended."""
        boundary: list[int] = []

        def each(msg: Msg) -> None:
            boundary.append(int((msg.headers or {})["Nats-Sequence"]))

        stream = self._names.history_stream
        body = {"start_time": encode_moment(moment), "next_by_subj": subject, "batch": 1}
        await self._get(stream, body, each)
        info = await self._wire.call(f"STREAM.INFO.{stream}")
        first, last = int(info["state"]["first_seq"]), int(info["state"]["last_seq"])
        end = boundary[0] if boundary else last + 1
        deleted = 0
        while first < end:
            first = min(first + SLICE, end)
            reply = await self._wire.call(
                f"STREAM.PURGE.{stream}", {"filter": subject, "seq": first}
            )
            deleted += int(reply["purged"])
        return deleted

    async def trim(self, patience: float = 0.0) -> None:
        """Delete from the stream of jobs the executions that were copied.

        Args:
            patience: Seconds to wait for those that are not copied yet.
        """
        written, copied = await self._until_copied(patience)
        if copied:
            body = {"filter": self._names.runs, "seq": min(copied, written) + 1}
            await self._wire.call(f"STREAM.PURGE.{self._names.stream}", body)

    async def catch_up(self, patience: float) -> bool:
        """Wait until what is written is copied; return whether there was anything to wait for.

        What is never copied, because its copy was deleted, say, is waited for only once;
        :attr:`lags_since` tells of it for a while longer, since it may only be late.
        """
        message = await self._last(self._names.stream, self._names.runs)
        written = int(message.get("seq", 0))
        if await self._copied() >= written:
            self.lags_since = None
            return False
        if written <= self._waited_for:
            if self.lags_since is not None and monotonic_seconds() > self._lags_until:
                self.lags_since = None
            return False
        written, copied = await self._until_copied(patience)
        self._waited_for = written
        self.lags_since = None if copied >= written else datetime.fromisoformat(message["time"])
        self._lags_until = monotonic_seconds() + LATEST
        return True

    async def _until_copied(self, patience: float) -> tuple[int, int]:
        """Return the sequences of what was written last, and of what was copied last."""
        message = await self._last(self._names.stream, self._names.runs)
        written = int(message.get("seq", 0))
        if not written:
            return 0, 0
        until = monotonic_seconds() + patience
        while (copied := await self._copied()) < written and monotonic_seconds() < until:
            await pause(0.01)
        return written, copied


def _position(after: str | None) -> tuple[int | None, int]:
    if after is None:
        return None, 0
    try:
        origin, sequence = after.split(".")
        return int(origin), int(sequence)
    except ValueError:
        raise BackendError(f"{after!r} is no position in the history") from None


def _origin(msg: Msg) -> int:
    """Return the sequence of what a copy was made of."""
    parts = (msg.headers or {}).get("Nats-Stream-Source", "").split(" ")
    return int(parts[1]) if len(parts) > 1 and parts[1].isdigit() else 0


def _origin_of(message: Mapping[str, Any]) -> int:
    headers = base64.b64decode(message.get("hdrs", ""))
    source = _SOURCE.search(headers)
    return 0 if source is None else int(source[1])


def _read(msg: Msg, name: str, token: str) -> Execution | UndecodableExecution | None:
    if not msg.data and (msg.headers or {}).get(OPERATION) in {REMOVED, "PURGE"}:
        return None
    found = codec.read_execution(old_format.execution_of(msg.data), name, id_of(token) or "")
    return evolve(found, record=msg.data) if isinstance(found, UndecodableExecution) else found
