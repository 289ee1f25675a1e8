"""The claims that are stored: which records have a hold, and what it says now.

The server cannot choose records by what they say. So each record is looked at once for a hold, and
again when it has changed: what was written since the last look has higher sequences. The holds that
are listed are read again.
"""

from __future__ import annotations

import asyncio

from sched_core import Hold
from sched_core.ports import ClaimQuery, Page
from sched_jetstream._model.record import Record
from sched_jetstream._model.subjects import id_of, token_of
from sched_jetstream._store.reader import Reader

HELD = b'"hold":'
"""What a record with a hold has in its bytes; one whose metadata says so is read in vain."""
CHUNK = 250


class Held:
    """Lists the claims of one deployment.

    Args:
        reader: The reader of records.
    """

    def __init__(self, reader: Reader) -> None:
        self._reader, self._names = reader, reader.names
        self._tokens: dict[str, str | None] = {}
        """The tokens of records that may have a hold, and the ids as far as the tokens tell."""
        self._looking = asyncio.Lock()
        self._seen = 0
        """The sequence up to which all records were looked at."""

    async def page(self, query: ClaimQuery, after: str | None, limit: int) -> Page[Hold]:
        """Return a page in the order of the jobs' ids; the position is the last id.

        Where the streams have several copies, a claim of the last moment may be missing.
        """
        if query.job_id is not None:
            content = (await self._reader.read_leader(token_of(query.job_id))).content
            hold = content.hold if isinstance(content, Record) else None
            there = hold is not None and query.matches(hold)
            return Page([hold] if hold is not None and there and after is None else [], None)
        async with self._looking:
            await self._look()
        newest = self._seen
        ids = {token: job_id for token, job_id in self._tokens.items() if job_id is not None}
        unnamed = [token for token, job_id in self._tokens.items() if job_id is None]
        for token, found in (await self._reader.read_any(unnamed, at_least=newest)).items():
            if isinstance(found.content, Record):
                ids[token] = found.content.id
        ordered = sorted(
            (job_id, token) for token, job_id in ids.items() if after is None or job_id > after
        )
        holds: list[Hold] = []
        for start in range(0, len(ordered), CHUNK):
            tokens = [token for _, token in ordered[start : start + CHUNK]]
            read = await self._reader.read_any(tokens, at_least=newest)
            for token in tokens:
                content = read[token].content
                hold = content.hold if isinstance(content, Record) else None
                if hold is None or not query.matches(hold):
                    continue
                if len(holds) == limit:
                    return Page(holds, holds[-1].job_id)
                holds.append(hold)
        return Page(holds, None)

    async def _look(self) -> None:
        """Look at the records that have changed."""
        names = self._names
        async for batch in self._reader.messages(names.record("*"), after=self._seen, page=1000):
            for msg in batch:
                headers = msg.headers or {}
                token = names.record_token(headers["Nats-Subject"])
                if HELD in msg.data:
                    self._tokens[token] = id_of(token)
                else:
                    self._tokens.pop(token, None)
                self._seen = int(headers["Nats-Sequence"])
