"""A complete backend, written from nothing: jobs and ledger in one JSON file under a lock.

It shows what a backend must do, and is as slow as it is short: every call reads the whole file.
docs/writing-a-backend.md walks through it; test_json_backend.py beside it is its exam.
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
from attrs import Factory, define, evolve

from sched_core import (
    BackendError,
    BackendUnavailable,
    Capabilities,
    Claim,
    Clock,
    Execution,
    ExecutionQuery,
    Job,
    JobAlreadyExists,
    JobNotFound,
    JobQuery,
    JobUndecodable,
    LostClaim,
    Page,
    RevisionConflict,
    Settled,
    Settlement,
    Undecodable,
)
from sched_core.codec import (
    Malformed,
    Record,
    decode_execution,
    decode_job,
    decode_moment,
    encode_execution,
    encode_job,
    encode_moment,
)
from sched_core.job import abandoned_lines, superseded_line
from sched_core.ports import MAX_POLL

LOOK_EVERY = 0.1
"""Seconds of real time between looks whether another process has written."""


# -- what is in the file -------------------------------------------------------


@define
class Row:
    """One id: the job, and apart from it who holds it."""

    job: Job | Undecodable | None = None
    """``None``: removed while it was claimed."""
    hold: Claim | None = None
    ended: list[Any] | None = None
    """Token and worker of the newest settled claim."""
    lost: LostClaim | None = None
    """What a claim had taken over that was released."""
    raw: Any = None
    """As it lies in the file: what cannot be read is written back unchanged."""

    def stands_at(self, hold: Claim) -> bool:
        """Whether the job still stands at the occurrence that is held."""
        job = self.job
        if not isinstance(job, Job):
            return False
        return (job.uid, job.standing.number) == occurrence(hold)

    def wake(self) -> datetime | None:
        """When a claim should look at it."""
        until = None if self.hold is None else self.hold.expires_at
        if self.job is None:
            return until
        due = self.job.standing.due_at if isinstance(self.job, Job) else None
        return due if due is None or until is None else max(due, until)


@define
class Data:
    """The whole file."""

    serial: int = 0
    rows: dict[str, Row] = Factory(dict)
    lines: list[tuple[int, Execution]] = Factory(list)

    def next(self) -> int:
        """A number that never came before: revisions and tokens."""
        self.serial += 1
        return self.serial

    def write(self, lines: Sequence[Execution], held: Claim | None = None) -> None:
        """Add lines that are not there, end nothing twice, and are not about what is running."""
        for line in lines:
            if held is not None and (line.uid, line.number) == occurrence(held):
                continue
            if self.line(line.id) is None and not (line.final and self.ended(line)):
                self.lines.append((self.next(), line))

    def line(self, line_id: str) -> Execution | None:
        return next((line for _, line in self.lines if line.id == line_id), None)

    def ended(self, about: Execution) -> bool:
        key = about.uid, about.number
        return any(line.final and (line.uid, line.number) == key for _, line in self.lines)


def occurrence(claim: Claim) -> tuple[str, int]:
    return claim.job.uid, claim.job.standing.number


def fence(claim: Claim) -> list[Any]:
    return [claim.token, claim.worker]


# -- the backend ---------------------------------------------------------------


class JsonBackend:
    """Jobs in one JSON file.

    Args:
        path: Of the file; made if it is missing.
        lease: How long a claim lives unless it is renewed.
    """

    def __init__(self, path: Path, *, lease: timedelta = timedelta(seconds=30)) -> None:
        self._path, self._lease = Path(path), lease
        self._clock: Clock | None = None
        self._worker = ""

    @property
    def capabilities(self) -> Capabilities:
        return Capabilities(
            durable=True,
            shared=True,
            time="clock",
            granularity=timedelta(microseconds=1),
            lease=self._lease,
        )

    async def open(self, clock: Clock, *, worker: str) -> Clock:
        self._clock, self._worker = clock, worker
        return clock

    async def close(self) -> None:
        self._clock = None

    @property
    def clock(self) -> Clock:
        if self._clock is None:
            raise BackendError("this JsonBackend is not open")
        return self._clock

    @contextmanager
    def _transaction(self) -> Iterator[Data]:
        """Everything or nothing: what the block changes is written when it ends without error."""
        _ = self.clock  # or it is not open
        try:
            with self._path.with_suffix(".lock").open("w") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                data = self._read()
                before = _encode(data)
                yield data
                after = _encode(data)
                if after != before:
                    self._replace(after)
        except OSError as error:
            raise BackendUnavailable(f"{self._path}: {error}") from error

    def _read(self) -> Data:
        text = self._path.read_text(encoding="utf-8") if self._path.exists() else ""
        return _decode(text) if text else Data()

    def _replace(self, text: str) -> None:
        new = self._path.with_suffix(".new")
        with new.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        new.replace(self._path)

    async def check(self) -> None:
        with self._transaction() as data:
            data.next()

    # definitions

    async def add(self, jobs: Sequence[Job]) -> Sequence[Job]:
        added: list[Job] = []
        with self._transaction() as data:
            for job in jobs:
                row = data.rows.setdefault(job.id, Row())
                if row.job is None:
                    row.job = evolve(job, revision=data.next())
                elif any(job.id == other.id for other in added) or not _same_uid(row.job, job):
                    raise JobAlreadyExists(job.id)
                added.append(_readable(data, job.id))
        return added

    async def get(self, job_id: str) -> Job | Undecodable | None:
        with self._transaction() as data:
            return data.rows[job_id].job if job_id in data.rows else None

    async def replace(self, job: Job, ledger: Sequence[Execution] = ()) -> Job:
        with self._transaction() as data:
            if _readable(data, job.id).revision != job.revision:
                raise RevisionConflict(job.id)
            row = data.rows[job.id]
            row.job = new = evolve(job, revision=data.next())
            data.write(ledger, held=row.hold)
        return new

    async def remove(
        self, job_id: str, ledger: Sequence[Execution] = (), *, expected: int | None = None
    ) -> bool:
        with self._transaction() as data:
            try:
                stored = _readable(data, job_id)
            except JobNotFound:
                return False
            if expected is not None and stored.revision != expected:
                raise RevisionConflict(job_id)
            row = data.rows[job_id]
            row.job = None
            data.write(ledger, held=row.hold)
            if row.hold is None:
                del data.rows[job_id]
        return True

    async def jobs(
        self, query: JobQuery, *, after: str | None, limit: int
    ) -> Page[Job | Undecodable]:
        with self._transaction() as data:
            found = [
                row.job
                for job_id, row in sorted(data.rows.items())
                if row.job is not None
                and (after is None or job_id > after)
                and _matches(row.job, query)
            ]
        return Page(found[:limit], found[limit - 1].id if len(found) > limit else None)

    # claims

    async def wait_due(self, limit: int) -> None:
        horizon = self.clock.now() + MAX_POLL
        while True:
            with self._transaction() as data:
                moments = [row.wake() for row in data.rows.values()]
            first = min([moment for moment in moments if moment is not None], default=horizon)
            # Another process may write while we sleep: look again soon.
            with anyio.move_on_after(LOOK_EVERY):
                await self.clock.sleep_until(min(first, horizon))
                return

    async def claim_due(self, limit: int) -> Sequence[Claim]:
        claims: list[Claim] = []
        with self._transaction() as data:
            now = self.clock.now()
            due = [(row.wake(), job_id) for job_id, row in data.rows.items()]
            for _, job_id in sorted((at, key) for at, key in due if at is not None and at <= now):
                if len(claims) == limit:
                    break
                row = data.rows[job_id]
                lost = self._take_over(data, row, now)
                if not isinstance(row.job, Job):
                    del data.rows[job_id]
                    continue
                until = now + self._lease
                row.hold = Claim(row.job, data.next(), self._worker, now, until, lost)
                claims.append(row.hold)
        return claims

    def _take_over(self, data: Data, row: Row, now: datetime) -> LostClaim | None:
        """Write the lines of a claim that was lost, and say what the next one must know."""
        hold, row.hold = row.hold, None
        lost, row.lost = row.lost, None
        if hold is None:
            return lost
        moved_on = not row.stands_at(hold)
        data.write(abandoned_lines(hold, now, moved_on=moved_on))
        if moved_on:
            return None
        earlier = 0 if hold.lost is None else hold.lost.count
        return LostClaim(earlier + 1, hold.worker, hold.claimed_at)

    async def renew(self, claims: Sequence[Claim]) -> Sequence[Claim]:
        renewed: list[Claim] = []
        with self._transaction() as data:
            until = self.clock.now() + self._lease
            for claim in claims:
                row = data.rows.get(claim.job.id)
                if row is not None and row.hold is not None and fence(row.hold) == fence(claim):
                    row.hold = evolve(row.hold, expires_at=until)
                    renewed.append(row.hold)
        return renewed

    async def release(self, claims: Sequence[Claim]) -> None:
        with self._transaction() as data:
            now = self.clock.now()
            for claim in claims:
                row = data.rows.get(claim.job.id)
                if row is None or row.hold is None or fence(row.hold) != fence(claim):
                    continue
                hold, row.hold = row.hold, None
                if row.stands_at(hold):
                    row.lost = hold.lost
                else:
                    data.write([superseded_line(hold, now)])
                if row.job is None:
                    del data.rows[claim.job.id]

    async def settle(self, settlements: Sequence[Settlement]) -> Sequence[Settled]:
        with self._transaction() as data:
            return [_settle(data, settlement) for settlement in settlements]

    # the ledger

    async def executions(
        self, query: ExecutionQuery, *, after: str | None, limit: int
    ) -> Page[Execution]:
        with self._transaction() as data:
            found = [
                (position, line)
                for position, line in reversed(data.lines)
                if (after is None or position < int(after)) and _selected(line, query)
            ]
        more = len(found) > limit
        return Page([line for _, line in found[:limit]], str(found[limit - 1][0]) if more else None)

    async def prune(self, before: datetime) -> int:
        with self._transaction() as data:
            now = self.clock.now()
            kept = [
                entry
                for entry in data.lines
                if entry[1].finished_at >= before and not _expired(entry[1].expires_at, now)
            ]
            expired = [
                job_id
                for job_id, row in data.rows.items()
                if row.hold is None
                and isinstance(row.job, Job)
                and _expired(row.job.standing.expires_at, now)
            ]
            for job_id in expired:
                del data.rows[job_id]
            deleted = len(data.lines) - len(kept) + len(expired)
            data.lines = kept
        return deleted


# -- rules ---------------------------------------------------------------------


def _settle(data: Data, settlement: Settlement) -> Settled:
    claim, standing = settlement.claim, settlement.standing
    row = data.rows.get(claim.job.id)
    if row is None or row.hold is None or fence(row.hold) != fence(claim):
        repeated = (row is not None and row.ended == fence(claim)) or _in_ledger(data, settlement)
        return Settled("written" if repeated else "claim_lost")
    job = row.job
    if isinstance(job, Undecodable):
        return Settled("claim_lost")
    if standing is not None and (job is None or job.revision != settlement.expected):
        return Settled("conflict", job)
    for line in settlement.ledger:
        own = (line.uid, line.number) == occurrence(row.hold)
        stays_pending = own and standing is None and row.stands_at(row.hold)
        second = data.line(line.id) is None and data.ended(line)
        if line.final and (stays_pending or second):
            return Settled("conflict", job)
    data.write(settlement.ledger)
    row.ended, row.hold = fence(row.hold), None
    if job is None:
        del data.rows[claim.job.id]
    elif standing is not None:
        row.job = evolve(job, standing=standing, revision=data.next())
    return Settled("written")


def _in_ledger(data: Data, settlement: Settlement) -> bool:
    """Whether an earlier try of the same settlement wrote its lines."""
    stored = [data.line(line.id) for line in settlement.ledger]
    return bool(stored) and all(
        found is not None
        and (found.status, found.token, found.worker)
        == (line.status, settlement.claim.token, settlement.claim.worker)
        for found, line in zip(stored, settlement.ledger, strict=True)
    )


def _readable(data: Data, job_id: str) -> Job:
    job = data.rows[job_id].job if job_id in data.rows else None
    if job is None:
        raise JobNotFound(job_id)
    if isinstance(job, Undecodable):
        raise JobUndecodable(job_id, job.reason)
    return job


def _same_uid(stored: Job | Undecodable, job: Job) -> bool:
    return isinstance(stored, Job) and stored.uid == job.uid


def _expired(moment: datetime | None, now: datetime) -> bool:
    return moment is not None and moment <= now


def _matches(job: Job | Undecodable, query: JobQuery) -> bool:
    if isinstance(job, Undecodable):
        return job.id.startswith(query.id_prefix)
    return (
        job.id.startswith(query.id_prefix)
        and query.state in {None, job.standing.state}
        and query.group in {None, job.spec.group}
        and query.metadata.items() <= job.spec.metadata.items()
    )


def _selected(line: Execution, query: ExecutionQuery) -> bool:
    return (
        query.job_id in {None, line.job_id}
        and (not query.statuses or line.status in query.statuses)
        and query.final in {None, line.final}
        and (query.since is None or line.finished_at >= query.since)
        and (query.until is None or line.finished_at < query.until)
    )


# -- values and JSON -----------------------------------------------------------


def _encode(data: Data) -> str:
    rows = {job_id: _encode_row(row) for job_id, row in data.rows.items()}
    lines = [[position, encode_execution(line).decode()] for position, line in data.lines]
    return json.dumps({"serial": data.serial, "rows": rows, "lines": lines})


def _decode(text: str) -> Data:
    found = json.loads(text)
    rows = {job_id: _decode_row(job_id, raw) for job_id, raw in found["rows"].items()}
    lines = [(position, decode_execution(line.encode())) for position, line in found["lines"]]
    return Data(found["serial"], rows, lines)


def _encode_row(row: Row) -> Any:
    if isinstance(row.job, Undecodable):
        return row.raw
    return {
        "job": None if row.job is None else _encode_job(row.job),
        "hold": None if row.hold is None else _encode_claim(row.hold),
        "ended": row.ended,
        "lost": None if row.lost is None else _encode_lost(row.lost),
    }


def _decode_row(job_id: str, raw: Any) -> Row:
    try:
        return Row(
            None if raw["job"] is None else _decode_job(raw["job"]),
            None if raw["hold"] is None else _decode_claim(raw["hold"]),
            raw["ended"],
            None if raw["lost"] is None else _decode_lost(raw["lost"]),
        )
    except Malformed as error:
        found = raw["job"] or raw["hold"]["job"]
        return Row(Undecodable(job_id, str(error), found[0], found[2].encode()), raw=raw)


def _encode_job(job: Job) -> list[Any]:
    record = encode_job(job)
    return [record.format, record.tag, record.body.decode()]


def _decode_job(found: list[Any]) -> Job:
    return decode_job(Record(found[0], found[1], found[2].encode()))


def _encode_claim(claim: Claim) -> list[Any]:
    moments = [encode_moment(claim.claimed_at), encode_moment(claim.expires_at)]
    lost = None if claim.lost is None else _encode_lost(claim.lost)
    return [_encode_job(claim.job), claim.token, claim.worker, *moments, lost]


def _decode_claim(found: list[Any]) -> Claim:
    job, token, worker, claimed_at, expires_at, lost = found
    return Claim(
        _decode_job(job),
        token,
        worker,
        decode_moment(claimed_at),
        decode_moment(expires_at),
        None if lost is None else _decode_lost(lost),
    )


def _encode_lost(lost: LostClaim) -> list[Any]:
    since = lost.claimed_at
    return [lost.count, lost.worker, None if since is None else encode_moment(since)]


def _decode_lost(found: list[Any]) -> LostClaim:
    count, worker, since = found
    return LostClaim(count, worker, None if since is None else decode_moment(since))
