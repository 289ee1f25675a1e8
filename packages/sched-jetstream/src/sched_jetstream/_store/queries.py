"""Jobs in the order of their ids, in pages.

The server knows subjects by name, not by order, so a listing begins with the names of all records:
they are few bytes each, and are kept while a caller turns the pages.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence

from attrs import frozen

from sched_core import Job
from sched_core.clock import monotonic_seconds
from sched_core.ports import JobQuery, Page, Undecodable
from sched_jetstream._model.subjects import id_of
from sched_jetstream._store.reader import Reader

KEPT = 30.0
"""Seconds for which names are kept between two pages."""
CHUNK = 250


@frozen
class _Names:
    ids: Sequence[str]
    tokens: Sequence[str]
    sequence: int
    read_at: float


class Listing:
    """Lists the jobs of one deployment."""

    def __init__(self, reader: Reader) -> None:
        self._reader, self._wire, self._names = reader, reader.wire, reader.names
        self._kept: _Names | None = None

    async def page(self, query: JobQuery, after: str | None, limit: int) -> Page[Job | Undecodable]:
        """Return a page; the position is the last id."""
        kept = self._kept
        if after is None or kept is None or monotonic_seconds() - kept.read_at > KEPT:
            kept = self._kept = await self._all_names()
        index = 0 if after is None else bisect_right(kept.ids, after)
        items: list[Job | Undecodable] = []
        while index < len(kept.ids):
            chunk = [
                number
                for number in range(index, min(index + max(CHUNK, limit + 1), len(kept.ids)))
                if kept.ids[number].startswith(query.id_prefix)
            ]
            index += max(CHUNK, limit + 1)
            tokens = [kept.tokens[number] for number in chunk]
            found = await self._reader.read_any(tokens, at_least=kept.sequence)
            for number in chunk:
                item = found[kept.tokens[number]].read()
                if item is None or not query.matches(item):
                    continue
                if len(items) == limit:
                    return Page(items, _id(items[-1]))
                items.append(item)
        self._kept = None
        return Page(items, None)

    async def _all_names(self) -> _Names:
        subjects: dict[str, int] = {}
        total, sequence = 1, 0
        while len(subjects) < total:
            before = len(subjects)
            body = {"subjects_filter": self._names.record("*"), "offset": before}
            info = await self._wire.call(f"STREAM.INFO.{self._names.stream}", body)
            sequence = int(info["state"]["last_seq"])
            subjects.update(info["state"].get("subjects") or {})
            total = int(info.get("total") or 0)
            if len(subjects) == before:
                break
        tokens = [self._names.record_token(subject) for subject in subjects]
        named = {token: id_of(token) for token in tokens}
        long = [token for token, job_id in named.items() if job_id is None]
        for token, found in (await self._reader.read_any(long, at_least=sequence)).items():
            item = found.content
            named[token] = token if item is None else item.id
        ordered = sorted((job_id or token, token) for token, job_id in named.items())
        ids, tokens = [job_id for job_id, _ in ordered], [token for _, token in ordered]
        return _Names(ids, tokens, sequence, monotonic_seconds())


def _id(item: Job | Undecodable) -> str:
    return item.id
