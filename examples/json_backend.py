"""A complete backend, written from nothing: jobs and history in one JSON file under a lock.

It shows what a backend must do, and is as slow as it is short: every call reads the whole file.
docs/how-to/writing-a-backend.md walks through it; test_json_backend.py examines it.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import anyio
from attrs import Factory, define, frozen

from sched_core import (
    BackendError,
    BackendUnavailable,
    Capabilities,
    Claim,
    Claimed,
    Clock,
    Execution,
    ExecutionQuery,
    Job,
    JobAlreadyExists,
    JobQuery,
    Page,
    Renewal,
    Room,
    Settled,
    Settlement,
    Undecodable,
    UndecodableExecution,
)
from sched_core.affinity import Affinity
from sched_core.codec import Record, encode_execution, read_execution
from sched_core.ports import MAX_POLL
from sched_core.row import Row

LOOK_EVERY = 0.1
"""Seconds of real time between looks whether another process has written."""


@frozen
class Entry:
    """A record of the history: where it lies, as it lies there, and what that says."""

    position: int
    stored: Any
    value: Execution | UndecodableExecution

    @classmethod
    def load(cls, position: int, stored: Any) -> Entry:
        text = stored if isinstance(stored, str) else json.dumps(stored)
        body = text.encode(errors="surrogatepass")
        return cls(position, stored, read_execution(body, name=f"entry {position}"))


@define
class Data:
    """The whole file; also the history that rows write to."""

    serial: int = 0
    rows: dict[str, Row] = Factory(dict)
    history: list[Entry] = Factory(list)

    def next(self) -> int:
        """A number that never came before: revisions, tokens, positions in the history."""
        self.serial += 1
        return self.serial

    def row(self, job_id: str) -> Row:
        return self.rows.setdefault(job_id, Row())

    def stored(self, execution_id: str) -> Execution | UndecodableExecution | None:
        values = (entry.value for entry in self.history)
        return next((value for value in values if value.id == execution_id), None)

    def append(self, execution: Execution) -> None:
        if self.stored(execution.id) is None:
            body = encode_execution(execution).decode()
            self.history.append(Entry(self.next(), body, execution))

    def dump(self) -> str:
        rows = {key: row.encode() for key, row in self.rows.items() if not row.is_empty()}
        history = [(entry.position, entry.stored) for entry in self.history]
        texts = {
            key: (*head, body.decode(errors="surrogatepass")) for key, (*head, body) in rows.items()
        }
        return json.dumps({"serial": self.serial, "rows": texts, "history": history})

    @classmethod
    def load(cls, text: str) -> Data:
        found = json.loads(text)
        rows = {
            key: Row.decode(key, Record(number, tag, body.encode(errors="surrogatepass")))
            for key, (number, tag, body) in found["rows"].items()
        }
        return cls(found["serial"], rows, [Entry.load(*entry) for entry in found["history"]])


class JsonBackend:
    """Jobs in one JSON file.

    Args:
        path: The file; made if it is missing.
        lease: How long a claim lives unless it is renewed.
    """

    def __init__(self, path: Path, *, lease: timedelta = timedelta(seconds=30)) -> None:
        self._path, self._lease = Path(path), lease
        self._clock: Clock | None = None
        self._affinity = Affinity("this JsonBackend")
        self._worker = ""

    @property
    def capabilities(self) -> Capabilities:
        tick = timedelta(microseconds=1)
        return Capabilities(
            durable=True, shared=True, time="clock", granularity=tick, lease=self._lease
        )

    async def open(self, clock: Clock, *, worker: str) -> Clock:
        if self._clock is not None:
            raise BackendError("this JsonBackend is open already")
        self._clock, self._worker = clock, worker
        self._affinity = Affinity("this JsonBackend")
        return clock

    async def close(self) -> None:
        self._clock = None

    async def check(self) -> None:
        with self._transaction() as data:
            data.next()

    @property
    def clock(self) -> Clock:
        if self._clock is None:
            raise BackendError("this JsonBackend is not open")
        self._affinity.check()
        return self._clock

    @contextmanager
    def _transaction(self) -> Iterator[Data]:
        """Everything or nothing: what the block changes is written when it ends without error."""
        _ = self.clock  # or it is not open
        try:
            with self._path.with_suffix(".lock").open("w") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                before, data = self._read()
                yield data
                after = data.dump()
                if after != before:
                    self._replace(after)
        except OSError as error:
            raise BackendUnavailable(f"{self._path}: {error}") from error

    def _read(self) -> tuple[str, Data]:
        if not self._path.exists():
            return Data().dump(), Data()
        try:
            text = self._path.read_text("utf-8")
            return text, Data.load(text)
        except (ValueError, TypeError, LookupError) as error:
            raise BackendError(f"{self._path} is no file of jobs: {error}") from error

    def _replace(self, text: str) -> None:
        new = self._path.with_suffix(".new")
        with new.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        new.replace(self._path)

    # definitions

    async def add(self, jobs: Sequence[Job]) -> Sequence[Job]:
        with self._transaction() as data:
            if len({job.id for job in jobs}) < len(jobs):
                raise JobAlreadyExists(next(job.id for job in jobs))
            return [data.row(job.id).add(job, data.next()) for job in jobs]

    async def get(self, job_id: str) -> Job | Undecodable | None:
        with self._transaction() as data:
            return data.row(job_id).read()

    async def replace(self, job: Job, executions: Sequence[Execution] = ()) -> Job:
        with self._transaction() as data:
            return data.row(job.id).replace(job, executions, data.next(), data)

    async def remove(self, job: Job, executions: Sequence[Execution] = ()) -> None:
        with self._transaction() as data:
            data.row(job.id).remove(job, executions, data)

    async def jobs(
        self, query: JobQuery, *, after: str | None, limit: int
    ) -> Page[Job | Undecodable]:
        with self._transaction() as data:
            stored = [data.rows[key].read() for key in sorted(data.rows) if key > (after or "")]
        found = [job for job in stored if job is not None and query.matches(job)]
        return Page(found[:limit], found[limit - 1].id if len(found) > limit else None)

    # claims

    async def wait_due(self, room: Room) -> None:
        horizon = self.clock.now() + MAX_POLL
        while True:
            with self._transaction() as data:
                moments = [row.due() for row in data.rows.values()]
            first = min([moment for moment in moments if moment is not None], default=horizon)
            # Another process may write while we sleep: look again soon.
            with anyio.move_on_after(LOOK_EVERY):
                await self.clock.sleep_until(min(first, horizon))
                return

    async def claim_due(self, room: Room) -> Claimed:
        lapsed: list[Execution] = []
        claims: list[Claim] = []
        with self._transaction() as data:
            now = self.clock.now()
            for row in data.rows.values():
                lapsed += row.lapse(now, data.next(), data)
            free = [(row.due(), key) for key, row in data.rows.items() if row.hold is None]
            for _, key in sorted((due, key) for due, key in free if due is not None and due <= now):
                if len(claims) < room.limit:
                    claim = data.row(key).claim(data.next(), self._worker, now, self._lease)
                    claims += [claim] if claim else []
        return Claimed(claims, lapsed)

    async def renew(self, renewals: Sequence[Renewal]) -> Sequence[Claim]:
        with self._transaction() as data:
            now = self.clock.now()
            renewed = [data.row(one.claim.job.id).renew(one, now, self._lease) for one in renewals]
        return [claim for claim in renewed if claim is not None]

    async def settle(self, settlements: Sequence[Settlement]) -> Sequence[Settled]:
        with self._transaction() as data:
            now = self.clock.now()
            return [
                data.row(one.claim.job.id).settle(one, now, data.next(), data)
                for one in settlements
            ]

    async def release(self, claims: Sequence[Claim]) -> None:
        with self._transaction() as data:
            for claim in claims:
                data.row(claim.job.id).release(claim, self.clock.now(), data)

    # the history

    async def executions(
        self, query: ExecutionQuery, *, after: str | None, limit: int
    ) -> Page[Execution | UndecodableExecution]:
        with self._transaction() as data:
            found = [
                entry
                for entry in reversed(data.history)
                if (after is None or entry.position < int(after)) and query.matches(entry.value)
            ]
        more = len(found) > limit
        items = [entry.value for entry in found[:limit]]
        return Page(items, str(found[limit - 1].position) if more else None)

    async def prune(self, before: datetime) -> int:
        with self._transaction() as data:
            now = self.clock.now()
            kept = [entry for entry in data.history if not _is_old(entry.value, before, now)]
            old, data.history = len(data.history) - len(kept), kept
            expired = [key for key, row in data.rows.items() if row.has_expired(now)]
            for key in expired:
                del data.rows[key]
        return old + len(expired)


def _is_old(one: Execution | UndecodableExecution, before: datetime, now: datetime) -> bool:
    ended = one.finished_at is not None and one.finished_at < before
    return ended or (one.expires_at is not None and one.expires_at <= now)
