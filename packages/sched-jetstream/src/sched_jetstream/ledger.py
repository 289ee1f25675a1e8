"""The ledger: lines on their way in the one stream, and their copies in the other.

Lines are written with the record, in the same atomic step, into the stream of jobs. The server
copies them into the ledger's stream within milliseconds; from there they are read, and what is not
copied yet is read where it lies. The order is that of writing, by the sequence in the first stream,
which a copy names in a header.
"""

from __future__ import annotations

import base64
import re
from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from attrs import frozen
from nats.aio.msg import Msg

from sched_core import codec
from sched_core.clock import FIRST, cpu_seconds, pause
from sched_core.codec import encode_moment
from sched_core.errors import BackendError
from sched_core.job import Execution
from sched_core.ports import ExecutionQuery, Page, UndecodableExecution
from sched_jetstream.errors import StreamLost
from sched_jetstream.layout import FOR_EVER, KEEPS, OPERATION, REMOVED
from sched_jetstream.reading import NO_MESSAGE, NO_STREAM, Reader
from sched_jetstream.subjects import Names, id_of, token_of
from sched_jetstream.wire import ApiError, NoResponders

STORED_AT = "Nats-Time-Stamp"

_SOURCE = re.compile(rb"Nats-Stream-Source: *\S+ (\d+)")

BATCH = 1000
"""Lines in one answer."""
SPREAD = timedelta(minutes=1)
"""So much may the clocks of a cluster's nodes differ: a claim has the moment of one, its lines of
another."""
WINDOW = 256
"""Sequences that are read at a time, backwards."""
SLICE = 10_000
"""Lines that one purge deletes: the stream stands still meanwhile, 1 ms for each thousand."""
PATIENCE = 2.0
"""Seconds to wait for lines to be copied, before pruning them."""
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
LATE = timedelta(minutes=10)
"""A line is written at most so long after its run has ended, except in an outage."""


@frozen
class Line:
    """A line and where it lies.

    Attributes:
        line: ``None`` for the mark that some tool deleted what lay there.
        origin: Its sequence in the stream of jobs: the order of writing; 0 where it was not copied
            from there: another tool put it into the ledger.
        sequence: Its own, in the ledger; 0 for one that is not copied yet.
        stored_at: When the server stored it, as the server writes moments.
    """

    line: Execution | UndecodableExecution | None
    origin: int
    sequence: int
    stored_at: str


class Ledger:
    """Reads and prunes the ledger of one deployment."""

    def __init__(self, reader: Reader, *, by_time: bool) -> None:
        self._reader, self._wire = reader, reader.wire
        self._names: Names = reader.names
        self._by_time = by_time
        """Whether moments in the store are those of the clock that decides."""

    # -- reading

    async def page(
        self, query: ExecutionQuery, after: str | None, limit: int
    ) -> Page[Execution | UndecodableExecution]:
        """List lines, newest first."""
        found: list[tuple[Execution | UndecodableExecution, str]] = []
        async for entry in self._newest_first(query, after):
            line = entry.line
            if line is None or not query.matches(line):
                continue
            if len(found) == limit:
                return Page([each for each, _ in found], found[-1][1])
            found.append((line, f"{entry.origin}.{entry.sequence}"))
        return Page([each for each, _ in found], None)

    async def _newest_first(self, query: ExecutionQuery, after: str | None) -> AsyncIterator[Line]:
        origin, sequence = _position(after)
        whose = "*" if query.job_id is None else token_of(query.job_id)
        seen: set[int] = set()
        too_old = self._too_old(query.since)
        if sequence == 0:
            for entry in reversed(await self._outbox(whose, await self._copied())):
                seen.add(entry.origin)
                if origin is None or entry.origin < origin:
                    yield entry
        below = None if sequence == 0 else sequence
        async for entry in self._backwards(whose, below):
            if entry.origin and (entry.origin in seen or (origin and entry.origin >= origin)):
                continue  # listed while it was on its way
            if entry.stored_at[: len(too_old)] < too_old:
                return
            yield entry

    def _too_old(self, since: datetime | None) -> str:
        """Return before which moment nothing was stored that is asked for; empty for no moment.

        What the server says of a line counts, and not the line: one that makes no sense must not
        end the listing of all others.
        """
        if not self._by_time or since is None or since - FIRST < LATE:
            return ""
        return encode_moment(since - LATE)[: len("2026-01-01T00:00:00")]

    async def _copied(self) -> int:
        """Return the sequence up to which everything has been copied."""
        return _origin_of(await self._last(self._names.ledger_stream, self._names.line("*", "*")))

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

    async def _outbox(self, token: str, copied: int) -> list[Line]:
        """Return the lines that are not copied yet, oldest first."""
        found: list[Line] = []

        def each(msg: Msg) -> None:
            headers = msg.headers or {}
            sequence, subject = int(headers["Nats-Sequence"]), headers["Nats-Subject"]
            name = f"{self._names.stream}@{sequence}"
            line = _read(msg, name, self._names.run_token(subject))
            found.append(Line(line, sequence, 0, headers.get(STORED_AT, "")))

        sequence = copied + 1
        while True:
            before = len(found)
            subject = self._names.run("*", token, "*")
            body = {"seq": sequence, "next_by_subj": subject, "batch": 1000}
            await self._get(self._names.stream, body, each)
            if len(found) - before < 1000:
                return found
            sequence = found[-1].origin + 1

    async def _written_since(self, job_id: str, since: datetime) -> list[Line]:
        """Return the lines of a job that the server stored since a moment, newest first.

        With as many requests for a line as for a thousand, and none that reads what is older.
        """
        token = token_of(job_id)
        outbox = await self._outbox(token, await self._copied())
        copies: list[Line] = []

        def each(msg: Msg) -> None:
            copies.append(self._copy(msg))

        begin: dict[str, object] = {"start_time": encode_moment(max(since, EPOCH))}
        while True:
            before = len(copies)
            body = {**begin, "next_by_subj": self._names.line("*", token), "batch": BATCH}
            await self._get(self._names.ledger_stream, body, each)
            if len(copies) - before < BATCH:
                break
            begin = {"seq": copies[-1].sequence + 1}
        copied = {each.origin for each in copies}  # some while the outbox was read
        return [
            *(each for each in reversed(outbox) if each.origin not in copied),
            *reversed(copies),
        ]

    async def _backwards(self, whose: str, below: int | None) -> AsyncIterator[Line]:
        """Read the copies backwards, from below a sequence on."""
        if whose == "*":
            async for line in self._windows(below):
                yield line
            return
        while True:
            newest: list[Line] = []

            def each(msg: Msg, newest: list[Line] = newest) -> None:
                newest.append(self._copy(msg))

            more = {} if below is None else {"up_to_seq": below - 1}
            if below is not None and below <= 1:
                return
            subjects = [self._names.line("*", whose)]
            await self._reader.multi(self._names.ledger_stream, subjects, each, **more)
            if not newest:
                return
            line = max(newest, key=lambda entry: entry.sequence)
            yield line
            below = line.sequence

    async def _windows(self, below: int | None) -> AsyncIterator[Line]:
        if below is None:
            info = await self._wire.call(f"STREAM.INFO.{self._names.ledger_stream}")
            below = int(info["state"]["last_seq"]) + 1
            first = int(info["state"]["first_seq"])
        else:
            info = await self._wire.call(f"STREAM.INFO.{self._names.ledger_stream}")
            first = int(info["state"]["first_seq"])
        window = WINDOW
        while below > first:
            start = max(first, below - window)
            found: list[Line] = []

            def each(msg: Msg, found: list[Line] = found) -> None:
                found.append(self._copy(msg))

            body = {"seq": start, "next_by_subj": self._names.line("*", "*"), "batch": window}
            await self._get(self._names.ledger_stream, body, each)
            for line in reversed(found):
                if line.sequence < below:
                    yield line
            below = start

    def _copy(self, msg: Msg) -> Line:
        headers = msg.headers or {}
        origin, sequence = _origin(msg), int(headers["Nats-Sequence"])
        stream = self._names.stream if origin else self._names.ledger_stream
        name = f"{stream}@{origin or sequence}"
        line = _read(msg, name, self._names.ledger_token(headers["Nats-Subject"]))
        return Line(line, origin, sequence, headers.get(STORED_AT, ""))

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
        self, lines: Sequence[Execution], claimed_at: datetime
    ) -> dict[str, Execution | UndecodableExecution]:
        """Return those lines that are stored under the ids of lines that end a claim.

        Whoever wrote them did so after the claim: what is older is not read, for a settlement that
        comes too late must cost the same whatever the job's history.
        """
        if not self._by_time:
            return (await self.stored(lines))[0]
        wanted = {line.id for line in lines}
        known: dict[str, Execution | UndecodableExecution] = {}
        for job_id in {line.job_id for line in lines}:
            for entry in await self._written_since(job_id, claimed_at - SPREAD):
                if entry.line is not None and entry.line.id in wanted:
                    known.setdefault(entry.line.id, entry.line)
        return known

    async def stored(
        self, lines: Sequence[Execution]
    ) -> tuple[dict[str, Execution | UndecodableExecution], set[str]]:
        """Look up lines, in all that a job has.

        Returns:
            Those that are stored under the ids of the given ones; and the ids of given final ones
            whose occurrence has a final line of another id.
        """
        wanted = {line.id for line in lines}
        finals = {(line.uid, line.number): line.id for line in lines if line.final}
        known: dict[str, Execution | UndecodableExecution] = {}
        taken: set[str] = set()
        for job_id in {line.job_id for line in lines}:
            ends = _ends([line for line in lines if line.job_id == job_id])
            async for entry in self._looked_through(job_id, whole=ends is None):
                line = entry.line
                if line is None:
                    continue
                if line.id in wanted:
                    known.setdefault(line.id, line)
                if isinstance(line, UndecodableExecution):
                    continue
                if ends is not None and line.uid == ends[0] and line.number < ends[1]:
                    break
                asked = finals.get((line.uid, line.number))
                if line.final and asked is not None and asked != line.id:
                    taken.add(asked)
        return known, taken

    async def _looked_through(self, job_id: str, *, whole: bool) -> AsyncIterator[Line]:
        """Read a job's lines, newest first: all of them at once, or only as far as is asked for."""
        if not whole:
            async for entry in self._newest_first(ExecutionQuery(job_id=job_id), None):
                yield entry
            return
        for entry in await self._written_since(job_id, EPOCH):
            yield entry

    # -- pruning

    async def prune(self, before: datetime, now: datetime) -> int:
        """Delete the lines that ended before the moment, and those that have expired."""
        await self.trim(PATIENCE)
        if self._by_time:
            return await self._prune_by_time(before, now)
        return await self._prune_one_by_one(before, now)

    async def _prune_by_time(self, before: datetime, now: datetime) -> int:
        deleted = 0
        for name, keep in (*KEEPS, (FOR_EVER, None)):
            ends = before if keep is None else max(before, now - keep)
            if ends <= EPOCH:
                continue
            deleted += await self._purge_until(self._names.line(name, "*"), ends)
        return deleted

    async def _purge_until(self, subject: str, moment: datetime) -> int:
        """Delete what was written before the moment: what was written had ended."""
        boundary: list[int] = []

        def each(msg: Msg) -> None:
            boundary.append(int((msg.headers or {})["Nats-Sequence"]))

        stream = self._names.ledger_stream
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

    async def _prune_one_by_one(self, before: datetime, now: datetime) -> int:
        """Look at every line: on a fake clock the store's moments mean nothing."""
        gone: list[int] = []
        async for entry in self._windows(None):
            line = entry.line
            if line is not None and (
                (line.finished_at is not None and line.finished_at < before)
                or (line.expires_at is not None and line.expires_at <= now)
            ):
                gone.append(entry.sequence)
        for sequence in gone:
            await self._wire.call(
                f"STREAM.MSG.DELETE.{self._names.ledger_stream}",
                {"seq": sequence, "no_erase": True},
            )
        return len(gone)

    async def trim(self, patience: float = 0.0) -> None:
        """Delete from the stream of jobs the lines that were copied.

        Args:
            patience: Seconds to wait for those that are not copied yet.
        """
        message = await self._last(self._names.stream, self._names.runs)
        written = int(message.get("seq", 0))
        if not written:
            return
        until = cpu_seconds() + patience
        while (copied := await self._copied()) < written and cpu_seconds() < until:
            await pause(0.01)
        if copied:
            body = {"filter": self._names.runs, "seq": min(copied, written) + 1}
            await self._wire.call(f"STREAM.PURGE.{self._names.stream}", body)


def _ends(lines: Sequence[Execution]) -> tuple[str, int] | None:
    """Return the incarnation and the number below which lines need not be looked for.

    The attempts at an occurrence have their lines before those at the next one. A final line may
    be older than that: an edit ends occurrences ahead of the one that is held.
    """
    if any(line.final for line in lines) or len({line.uid for line in lines}) != 1:
        return None
    return lines[0].uid, min(line.number for line in lines)


def _position(after: str | None) -> tuple[int | None, int]:
    if after is None:
        return None, 0
    try:
        origin, sequence = after.split(".")
        return int(origin), int(sequence)
    except ValueError:
        raise BackendError(f"{after!r} is no position in the ledger") from None


def _origin(msg: Msg) -> int:
    """Return the sequence of the line that a copy was made of."""
    parts = (msg.headers or {}).get("Nats-Stream-Source", "").split(" ")
    return int(parts[1]) if len(parts) > 1 and parts[1].isdigit() else 0


def _origin_of(message: Mapping[str, Any]) -> int:
    headers = base64.b64decode(message.get("hdrs", ""))
    source = _SOURCE.search(headers)
    return 0 if source is None else int(source[1])


def _read(msg: Msg, name: str, token: str) -> Execution | UndecodableExecution | None:
    if not msg.data and (msg.headers or {}).get(OPERATION) in {REMOVED, "PURGE"}:
        return None
    return codec.read_execution(msg.data, name, id_of(token) or "")
