"""Reading records: from the leader, many at a time, or all of them in passing."""

from __future__ import annotations

import asyncio
import base64
import re
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from typing import Any

from nats.aio.msg import Msg

from sched_core.ports import Undecodable
from sched_jetstream._model.layout import OPERATION, REMOVED
from sched_jetstream._model.protocol import StoredRecord
from sched_jetstream._model.record import Record, digest_of
from sched_jetstream._model.record_codec import apart_of, decode
from sched_jetstream._model.subjects import Names, id_of, token_of
from sched_jetstream._store.wire import ApiError, NoResponders, Wire
from sched_jetstream.errors import StreamLost

MANY = 500
"""Subjects in one request; the server refuses more than 1024."""
AT_A_TIME = 128
"""Reads of the leader under way: a server drops requests without a word when ten thousand wait."""
NO_MESSAGE = 10037
NO_STREAM = 10059

_OPERATION = re.compile(rb"\r\nKV-Operation: *([A-Z]+)\r\n")


class Reader:
    """Reads the records of one deployment.

    Args:
        wire: The connection to the server.
        names: The names of the deployment.
        copies: How many copies its streams have: with more than one, any may lag behind the leader.
    """

    def __init__(self, wire: Wire, names: Names, *, copies: int) -> None:
        self.wire, self.names = wire, names
        self.may_lag = copies > 1
        self._definitions: dict[str, bytes] = {}
        self._turn = asyncio.Semaphore(AT_A_TIME)

    # -- one

    async def read_leader(self, token: str) -> StoredRecord:
        """Read a record from the stream's leader, which knows every write.

        Raises:
            StreamLost, BackendUnavailable.
        """
        while True:
            subject = self.names.record(token)
            stored = await self._last(subject)
            if stored is None:
                return StoredRecord(token, 0, None)
            sequence, operation, body = stored
            if digest := apart_of(body):
                definition = await self._last(self.names.definition(token))
                text = b"" if definition is None else definition[2]
                if digest_of(text) != digest:
                    again = await self._last(subject)
                    if again is not None and again[0] != sequence:
                        continue  # it was edited between the two
                self._keep(digest, text)
            return self._found(token, sequence, operation, body)

    async def _last(self, subject: str) -> tuple[int, str, bytes] | None:
        try:
            async with self._turn:
                reply = await self.wire.call(
                    f"STREAM.MSG.GET.{self.names.stream}", {"last_by_subj": subject}
                )
        except ApiError as error:
            if error.err_code == NO_MESSAGE:
                return None
            if error.err_code == NO_STREAM:
                raise StreamLost(self.names.stream) from error
            raise
        message = reply["message"]
        headers = base64.b64decode(message.get("hdrs", ""))
        operation = _OPERATION.search(headers)
        removed = "" if operation is None else operation[1].decode()
        return message["seq"], removed, base64.b64decode(message.get("data", ""))

    # -- many

    async def read_any(
        self, tokens: Sequence[str], *, at_least: int = 0
    ) -> dict[str, StoredRecord]:
        """Read records, possibly from a replica that lags behind the leader by a moment.

        Args:
            tokens: The tokens of their subjects.
            at_least: The sequence that a replica must have; where it lags, the leader is asked.
        """
        found: dict[str, StoredRecord] = {}
        behind: list[str] = []
        apart: list[tuple[str, Msg, str]] = []

        def each(msg: Msg) -> None:
            headers = msg.headers or {}
            token = self.names.record_token(headers["Nats-Subject"])
            digest = apart_of(msg.data)
            if digest is not None and digest not in self._definitions:
                apart.append((token, msg, digest))
            else:
                found[token] = self._of(token, msg)

        for start in range(0, len(tokens), MANY):
            chunk = tokens[start : start + MANY]
            subjects = [self.names.record(token) for token in chunk]
            if await self.multi(self.names.stream, subjects, each) < at_least:
                behind += chunk
        if apart:
            await self._fetch_definitions([token for token, _, _ in apart])
            for token, msg, digest in apart:
                known = digest in self._definitions
                found[token] = self._of(token, msg) if known else await self.read_leader(token)
        if behind:
            for leads in await asyncio.gather(*map(self.read_leader, behind)):
                found[leads.token] = leads
        return {token: found.get(token) or StoredRecord(token, 0, None) for token in tokens}

    async def multi(
        self, stream: str, subjects: Sequence[str], each: Callable[[Msg], None], **more: Any
    ) -> int:
        """Hand on the last message of each subject.

        Returns:
            How far the replica had come that answered.

        Raises:
            StreamLost: There is no stream any more.
        """
        body = {"multi_last": list(subjects), **more}
        try:
            last = await self.wire.collect(f"{self.wire.api}.DIRECT.GET.{stream}", body, each=each)
        except NoResponders:
            await self.stream_exists(stream)
            raise
        status = (last.headers or {}).get("Status")
        if status not in {"204", "404"}:
            raise ApiError("DIRECT.GET", {"code": status, "description": str(last.headers)})
        return int((last.headers or {}).get("Nats-UpTo-Sequence", 0))

    async def read_current(self, tokens: Sequence[str]) -> dict[str, StoredRecord]:
        """Read records as they are now: no replica that lags is believed."""
        if not self.may_lag and len(tokens) > 1:
            return await self.read_any(tokens)
        found = await asyncio.gather(*(self.read_leader(token) for token in tokens))
        return {each.token: each for each in found}

    async def sequences(self, subjects: Sequence[str]) -> dict[str, int]:
        """Return the sequence of the last message of each subject, as it is now."""
        if self.may_lag:
            stored = await asyncio.gather(*(self._last(subject) for subject in subjects))
            pairs = zip(subjects, stored, strict=True)
            return {subject: last[0] for subject, last in pairs if last is not None}
        sequences: dict[str, int] = {}

        def each(msg: Msg) -> None:
            headers = msg.headers or {}
            sequences[headers["Nats-Subject"]] = int(headers["Nats-Sequence"])

        for start in range(0, len(subjects), MANY):
            await self.multi(self.names.stream, subjects[start : start + MANY], each)
        return sequences

    async def stream_exists(self, stream: str) -> None:
        """Tell a stream that is gone from one that has no leader at the moment.

        Raises:
            StreamLost: It is gone.
        """
        try:
            await self.wire.call(f"STREAM.INFO.{stream}")
        except ApiError as error:
            if error.err_code == NO_STREAM:
                raise StreamLost(stream) from error
            raise

    async def _fetch_definitions(self, tokens: Iterable[str]) -> None:
        def each(msg: Msg) -> None:
            self._keep(digest_of(msg.data), msg.data)

        subjects = [self.names.definition(token) for token in tokens]
        for start in range(0, len(subjects), MANY):
            await self.multi(self.names.stream, subjects[start : start + MANY], each)

    def _keep(self, digest: str, text: bytes) -> None:
        if len(self._definitions) >= 256:
            self._definitions.pop(next(iter(self._definitions)))
        self._definitions[digest] = text

    # -- all

    async def scan(self, *, page: int = 500) -> AsyncIterator[list[StoredRecord]]:
        """Read all records in passing, in no order that means anything, some of them twice."""
        async for batch in self.messages(self.names.record("*"), page=page):
            yield [await self.read_message(msg) for msg in batch]

    async def read_message(self, msg: Msg) -> StoredRecord:
        """Return the record that a message is, or a newer one if its definition lies apart."""
        token = self.names.record_token((msg.headers or {})["Nats-Subject"])
        digest = apart_of(msg.data)
        if digest is not None and digest not in self._definitions:
            return await self.read_leader(token)
        return self._of(token, msg)

    async def messages(
        self, subject: str, *, after: int = 0, page: int = 500
    ) -> AsyncIterator[list[Msg]]:
        """Read the messages under a subject, in the order of their sequences.

        What is written meanwhile comes, too. A copy of the stream that lags behind ends early, and
        skips nothing.
        """
        while True:
            batch: list[Msg] = []
            body = {"seq": after + 1, "next_by_subj": subject, "batch": page}
            await self.batch(body, batch.append)
            if not batch:
                return
            after = int((batch[-1].headers or {})["Nats-Sequence"])
            yield batch

    async def batch(self, body: Mapping[str, Any], each: Callable[[Msg], None]) -> None:
        """Read messages of the stream of jobs in the order of their sequences.

        Raises:
            StreamLost: There is no stream any more.
        """
        subject = f"{self.wire.api}.DIRECT.GET.{self.names.stream}"
        try:
            await self.wire.collect(subject, body, each=each)
        except NoResponders:
            await self.stream_exists(self.names.stream)
            raise

    # -- of messages

    def _of(self, token: str, msg: Msg) -> StoredRecord:
        headers = msg.headers or {}
        operation = headers.get(OPERATION, "")
        return self._found(token, int(headers["Nats-Sequence"]), operation, msg.data)

    def _found(self, token: str, sequence: int, operation: str, body: bytes) -> StoredRecord:
        if not body:
            # The mark of a removal, by this package or by a tool.
            removed = operation in {REMOVED, "PURGE"}
            content = None if removed else Undecodable(id_of(token) or token, "it is empty", 0, b"")
            return StoredRecord(token, sequence, content)
        digest = apart_of(body)
        definition = None if digest is None else self._definitions.get(digest)
        read = decode(body, sequence, id_of(token) or token, definition)
        if isinstance(read, Record) and token_of(read.id) != token:
            reason = f"it lies under the subject of another job than {read.id!r}"
            read = Undecodable(id_of(token) or token, reason, 0, body)
        return StoredRecord(token, sequence, read)
