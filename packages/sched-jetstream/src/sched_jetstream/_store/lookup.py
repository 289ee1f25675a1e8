"""Single executions: by their id, or the newest of some jobs."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Mapping, Sequence

from nats.aio.msg import Msg

from sched_core import Execution
from sched_core.ports import UndecodableExecution
from sched_jetstream._model.subjects import execution_token, token_of
from sched_jetstream._store.history import Entry, History
from sched_jetstream._store.reader import Reader
from sched_jetstream._store.removals import MOST_BYTES, Removals, left_of, sequence_of

AT_A_TIME = 16
"""Jobs whose executions are looked for at a time."""
TOGETHER = 100
"""Jobs in one request: each may have executions in nine retention classes, and an answer has 1024
messages at most."""
GUESSES = 12
"""How often it is guessed where the newest executions of a job begin."""
WINDOW = 5000
"""Sequences that are searched at a time."""

Found = Execution | UndecodableExecution


class Lookup:
    """Finds executions of one deployment.

    Args:
        reader: The reader of records.
        history: The history.
        removals: Reads the history's stream.
    """

    def __init__(self, reader: Reader, history: History, removals: Removals) -> None:
        self._reader, self._names = reader, reader.names
        self._history, self._removals = history, removals

    # -- the newest of some jobs

    async def recent(self, job_ids: Sequence[str], limit: int) -> Mapping[str, Sequence[Found]]:
        """Return the newest executions of each job, newest first."""
        tokens = {token_of(job_id): job_id for job_id in job_ids}
        waiting: dict[str, list[Entry]] = {}
        for token, entry in await self._history.on_the_way("*"):
            if token in tokens:
                waiting.setdefault(token, []).append(entry)
        last = await self._last_of(list(tokens))
        turn = asyncio.Semaphore(AT_A_TIME)

        async def one(token: str) -> list[Found]:
            if token not in last:
                copies: list[Entry] = []
            else:
                async with turn:
                    copies = await self._newest(token, last[token], limit)
            # Some were copied meanwhile, in their order.
            copied = max((each.origin for each in copies), default=0)
            late = [each for each in waiting.get(token, ()) if each.origin > copied]
            entries = [*reversed(late), *reversed(copies)]
            return [each.execution for each in entries if each.execution is not None][:limit]

        found = await asyncio.gather(*map(one, tokens))
        pairs = zip(tokens.values(), found, strict=True)
        return {job_id: executions for job_id, executions in pairs if executions}

    async def _last_of(self, tokens: Sequence[str]) -> dict[str, int]:
        """Return the sequence of the newest copy of each job that has any."""
        last: dict[str, int] = {}

        def each(msg: Msg) -> None:
            headers = msg.headers or {}
            token = self._names.history_token(headers["Nats-Subject"])
            last[token] = max(last.get(token, 0), int(headers["Nats-Sequence"]))

        for start in range(0, len(tokens), TOGETHER):
            chunk = tokens[start : start + TOGETHER]
            subjects = [self._names.history("*", token) for token in chunk]
            await self._reader.multi(self._names.history_stream, subjects, each)
        return last

    async def _newest(self, token: str, last: int, count: int) -> list[Entry]:
        """Return the newest copies of a job, oldest first.

        The server reads forwards only, and tells how many there are from a sequence on: where the
        newest begin is guessed, as if they were spread evenly.
        """
        entries, left = await self._from(1, token, 1)
        if not entries:
            return []
        first, there = entries[0].sequence, 1 + left
        share = min(1.0, 1.3 * count / there)
        few, start = last + 1, last - int((last - first) * share)
        many = first
        for _ in range(GUESSES):
            entries, left = await self._from(start, token, 2 * count)
            if len(entries) + left < min(count, there):
                few = start
                start = max(many, last - 3 * (last - start) - 1)
            elif left > 4 * count and start + 1 < few:
                many = start
                start = (start + few) // 2
            else:
                return await self._rest(entries, left, token, count)
        found: list[Entry] = []
        async for entry in self._history.backwards(token, None):
            found.append(entry)
            if len(found) == count:
                break
        return found[::-1]

    async def _rest(self, entries: list[Entry], left: int, token: str, count: int) -> list[Entry]:
        while left:
            more, left = await self._from(entries[-1].sequence + 1, token, WINDOW)
            entries = [*entries, *more][-count:]
            if not more:
                break
        return entries[-count:]

    async def _from(self, sequence: int, token: str, count: int) -> tuple[list[Entry], int]:
        """Return copies of a job from a sequence on, and how many there are after them."""
        found: list[Msg] = []
        subject = self._names.history("*", token)
        body: dict[str, object] = {"seq": max(sequence, 1), "next_by_subj": subject}
        await self._removals.read(body | {"batch": count, "max_bytes": MOST_BYTES}, found)
        return [self._history.copy(msg) for msg in found], left_of(found[-1]) if found else 0

    # -- one

    async def execution(self, execution_id: str) -> Found | None:
        """Return the execution with the id, ``None`` if there is none.

        What is on its way has its id in its subject. A copy has not: of a job that is still there,
        all executions are searched, and else the whole history, newest first. What was read lately
        is found at once.
        """
        waiting: list[Entry] = []
        subject = self._names.run("*", "*", execution_token(execution_id))

        def each(msg: Msg) -> None:
            waiting.append(self._history.original(msg))

        await self._reader.multi(self._names.stream, [subject], each)
        for entry in waiting:
            if entry.execution is not None and entry.execution.id == execution_id:
                return entry.execution
        named = json.dumps(execution_id, ensure_ascii=False).encode()
        is_a_name = "@" in execution_id  # of one that does not tell its id

        def may_be(msg: Msg) -> bool:
            return is_a_name or named in msg.data

        place = self._history.places.get(execution_id)
        if place is not None:
            page = await self._removals.between(place, place + 1)
            found = next((self._history.copy(msg).execution for msg in page), None)
            if found is not None and found.id == execution_id:
                return found
        token = await self._job_of(execution_id)
        if token is not None:
            found = await self._first(self._copies_of(token), may_be, execution_id)
            if found is not None:
                return found
        return await self._first(self._all_copies(), may_be, execution_id)

    async def _first(
        self,
        pages: AsyncIterator[list[Msg]],
        may_be: Callable[[Msg], bool],
        execution_id: str,
    ) -> Found | None:
        async for page in pages:
            for msg in reversed(page):
                found = self._history.copy(msg).execution if may_be(msg) else None
                if found is not None and found.id == execution_id:
                    return found
        return None

    async def _job_of(self, execution_id: str) -> str | None:
        """Return the token of the job that the beginning of an id names, if it is still there."""
        uid = execution_id.rsplit(":", 2)[0]
        named = b'"uid":' + json.dumps(uid, ensure_ascii=False).encode()
        async for page in self._reader.messages(self._names.record("*")):
            for msg in page:
                if named in msg.data:
                    return self._names.record_token((msg.headers or {})["Nats-Subject"])
        return None

    async def _copies_of(self, token: str) -> AsyncIterator[list[Msg]]:
        sequence = 1
        while True:
            found: list[Msg] = []
            subject = self._names.history("*", token)
            body: dict[str, object] = {"seq": sequence, "next_by_subj": subject, "batch": WINDOW}
            await self._removals.read({**body, "max_bytes": MOST_BYTES}, found)
            if not found:
                return
            yield found
            sequence = sequence_of(found[-1]) + 1

    async def _all_copies(self) -> AsyncIterator[list[Msg]]:
        extent = await self._removals.extent()
        below = extent.last + 1
        while below > extent.first:
            start = max(extent.first, below - WINDOW)
            found = await self._removals.between(start, below)
            yield found
            below = start
