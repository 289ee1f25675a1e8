"""A complete backend, written from nothing: jobs and history in one JSON file under a lock.

It shows what a backend must do, and is as slow as it is short: every call reads the whole file.
docs/how-to/writing-a-backend.md walks through it; test_json_backend.py examines it.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import anyio
from attrs import Factory, asdict, define, frozen

from sched_core import (
    BackendError,
    BackendUnavailable,
    Capabilities,
    Claim,
    Claimed,
    ClaimQuery,
    Clock,
    CountQuery,
    Counts,
    CursorExpired,
    Execution,
    ExecutionQuery,
    Followed,
    Hold,
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
    WorkerState,
)
from sched_core.affinity import Affinity
from sched_core.codec import Record, encode_execution, read_execution
from sched_core.ports import FORGOTTEN, MAX_POLL, position_of
from sched_core.row import Filling, Row, Tally

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
    deleted: int = 0
    """The newest position in the history that was deleted."""
    rows: dict[str, Row] = Factory(dict)
    history: list[Entry] = Factory(list)
    workers: dict[str, WorkerState] = Factory(dict)

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
        workers = {name: _as_json(state) for name, state in self.workers.items()}
        return json.dumps(
            {
                "serial": self.serial,
                "deleted": self.deleted,
                "rows": texts,
                "history": history,
                "workers": workers,
            }
        )

    @classmethod
    def load(cls, text: str) -> Data:
        found = json.loads(text)
        rows = {
            key: Row.decode(key, Record(number, tag, body.encode(errors="surrogatepass")))
            for key, (number, tag, body) in found["rows"].items()
        }
        return cls(
            found["serial"],
            found["deleted"],
            rows,
            [Entry.load(*entry) for entry in found["history"]],
            {name: _state_of(values) for name, values in found["workers"].items()},
        )

    def due(self, room: Room, until: datetime) -> Iterator[str]:
        """Return the ids of free rows that are due then and fit into the room, oldest first."""
        filling = Filling(room)
        free = [
            (due, key)
            for key, row in self.rows.items()
            if row.hold is None and (due := row.due()) is not None and due <= until
        ]
        for _, key in sorted(free):
            job = self.rows[key].job
            if isinstance(job, Job) and filling.fits(key, job.spec.queue):
                filling.add(job.spec.queue)
                yield key


def _as_json(state: WorkerState) -> dict[str, Any]:
    """Return JSON values; the codec of sched-core has none for what only workers tell."""
    return asdict(state, value_serializer=lambda _, __, value: _plain(value))


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.isoformat()
    return dict(value) if isinstance(value, Mapping) else value


def _state_of(values: dict[str, Any]) -> WorkerState:
    moments = {name: datetime.fromisoformat(values[name]) for name in ("started_at", "seen_at")}
    unrouted = {key: datetime.fromisoformat(each) for key, each in values["unrouted"].items()}
    return WorkerState(**{**values, **moments, "unrouted": unrouted})


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
        if self._clock is None:
            return
        try:
            self._affinity.check()
            with self._transaction() as data:
                data.workers.pop(self._worker, None)
        except BackendError:
            pass  # the file cannot be reached: what was reported is forgotten by `prune`
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
                ends = [row.hold.expires_at for row in data.rows.values() if row.hold]
                moments = [data.rows[key].due() for key in data.due(room, horizon)]
            first = min([m for m in (*ends, *moments) if m is not None], default=horizon)
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
            for key in data.due(room, now):
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

    async def execution(self, execution_id: str) -> Execution | UndecodableExecution | None:
        with self._transaction() as data:
            return data.stored(execution_id)

    async def recent(
        self, job_ids: Sequence[str], *, limit: int
    ) -> Mapping[str, Sequence[Execution | UndecodableExecution]]:
        found: dict[str, list[Execution | UndecodableExecution]] = {}
        with self._transaction() as data:
            for entry in reversed(data.history):
                some = found.setdefault(entry.value.job_id, [])
                some += [entry.value] if len(some) < limit else []
        return {key: found[key] for key in job_ids if key in found}

    async def follow(self, after: str | None, *, limit: int) -> Followed:
        position = position_of(after or "")
        with self._transaction() as data:
            if after is None:
                return Followed((), str(data.serial))
            if after and position < data.deleted:
                raise CursorExpired(after)
            found = [entry for entry in data.history if entry.position > position][:limit]
            cursor = found[-1].position if found else max(position, data.deleted)
        return Followed([entry.value for entry in found], str(cursor))

    # what is going on

    async def claims(self, query: ClaimQuery, *, after: str | None, limit: int) -> Page[Hold]:
        with self._transaction() as data:
            holds = [data.rows[key].hold for key in sorted(data.rows) if key > (after or "")]
        found = [hold for hold in holds if hold is not None and query.matches(hold)]
        return Page(found[:limit], found[limit - 1].job_id if len(found) > limit else None)

    async def wait_cancelled(self) -> bool:
        horizon = self.clock.now() + MAX_POLL
        while (now := self.clock.now()) < horizon:  # raises once this is closed
            horizon = min(horizon, now + MAX_POLL)
            with anyio.move_on_after(LOOK_EVERY):
                await self.clock.sleep_until(horizon)
        return False  # the file cannot wake: the next renewal tells

    async def report(self, state: WorkerState) -> None:
        with self._transaction() as data:
            data.workers[state.name] = state

    async def workers(self) -> Sequence[WorkerState]:
        with self._transaction() as data:
            return [data.workers[name] for name in sorted(data.workers)]

    async def counts(self, query: CountQuery) -> Counts:
        with self._transaction() as data:
            tally = Tally(query, self.clock.now())
            for row in data.rows.values():
                if isinstance(row.job, Undecodable):
                    tally.add_undecodable()
                else:
                    tally.add_row(row.job, row.hold)
            for entry in data.history:
                if isinstance(entry.value, Execution):
                    tally.add_execution(entry.value)
        return tally.counts()

    async def prune(self, before: datetime) -> int:
        with self._transaction() as data:
            now = self.clock.now()
            kept = [entry for entry in data.history if not _is_old(entry.value, before, now)]
            gone = {entry.position for entry in data.history} - {each.position for each in kept}
            data.deleted = max(gone | {data.deleted})
            old, data.history = len(gone), kept
            data.workers = {
                name: state
                for name, state in data.workers.items()
                if state.seen_at >= now - FORGOTTEN
            }
            expired = [key for key, row in data.rows.items() if row.has_expired(now)]
            for key in expired:
                del data.rows[key]
        return old + len(expired)


def _is_old(one: Execution | UndecodableExecution, before: datetime, now: datetime) -> bool:
    ended = one.finished_at is not None and one.finished_at < before
    return ended or (one.expires_at is not None and one.expires_at <= now)
