"""Jobs and their history in one SQLite file. Every rule is that of :mod:`sched_core.row`."""

# ruff: noqa: S608 -- statements are made of constants; values are bound

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta

from sched_core import (
    Claim,
    ClaimQuery,
    CountQuery,
    Counts,
    Execution,
    ExecutionQuery,
    Followed,
    Hold,
    Job,
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
from sched_core.clock import FIRST
from sched_sql._shared.holds import RECORD_COLUMNS
from sched_sql._shared.moments import Row, micros
from sched_sql._shared.rows import job_values
from sched_sql._shared.rules import reject_duplicate_ids, revised
from sched_sql._shared.table import ClaimBatch, Now
from sched_sql.sqlite import lookups, nulls, queries
from sched_sql.sqlite.claims import Claims
from sched_sql.sqlite.database import Database
from sched_sql.sqlite.existing import require
from sched_sql.sqlite.failures import translate
from sched_sql.sqlite.history import CHUNK, History
from sched_sql.sqlite.records import INSERT, Record, Records, read_record
from sched_sql.sqlite.renewals import Renewals
from sched_sql.sqlite.settlements import Settler
from sched_sql.sqlite.survey import Survey
from sched_sql.sqlite.workers import WorkerFiles, is_locked, worker_of

_GET = f"SELECT {RECORD_COLUMNS} FROM sched_job WHERE id = ? AND removed <> 1"


class SqliteTable:
    """Jobs and their history in one SQLite file; see :class:`sched_sql._shared.table.Table`.

    Args:
        path: The file's path.
        synchronous: SQLite's setting for adds, edits and settles: ``FULL`` or ``NORMAL``.
        timeout: Seconds to wait for a lock.
        lease: How long a claim lives unless it is renewed.
        create: Whether to make the file if it is missing.
    """

    def __init__(
        self,
        path: str,
        *,
        synchronous: str,
        timeout: float,
        lease: timedelta,
        create: bool = True,
    ) -> None:
        # One file has one lock and one folder of workers, whatever links lead to it.
        path = os.path.realpath(path)
        self._path = path
        self._lease = lease
        self._create = create
        self._workers = WorkerFiles(f"{path}-workers")
        lives = self._workers.lives
        self._database = Database(
            path, synchronous=synchronous, timeout=timeout, lives=lives, create=create
        )
        self._history = History(self._database)
        self._records = Records(self._database)
        self._renewals = Renewals(path, f"{path}-workers", lives)
        self._claims = Claims(self._database, self._records, self._history, self._renewals)
        self._survey = Survey(self._database, self._renewals)
        self._version: int | None = None
        self.cancels = 0
        """Grows when a claim of this worker was found to be marked."""
        self._cancels_version: int | None = None
        self._cancelled = frozenset[int]()
        """Tokens of claims that are known to be marked."""

    def __str__(self) -> str:
        return f"SQLite at {self._path}"

    def failure(self, error: Exception) -> Exception:
        return translate(error, self._path)

    def open(self, worker: str, now: Now) -> None:
        self._claims.worker = worker
        if not self._create:
            require(self._path)
        self._database.open()
        with self._database.lock:
            self._workers.register(worker)
        self.release_dead(now)
        self.changed()

    def close(self) -> None:
        self._workers.leave()
        self._database.close(alone=not any(map(is_locked, self._workers.others())))

    def cut_off(self) -> None:
        self._database.lock.cut_off()

    def forked(self) -> None:
        self._workers.let_go()
        self._database.lock.close()

    def check(self) -> None:
        self._database.doubt()
        with self._database.write():
            self._database.connection.execute(
                "UPDATE sched_meta SET value = value + 1 WHERE key = 'checks'"
            )

    def due_since(self, now: Now) -> datetime | None:
        return self._claims.due_since(now())

    def live_workers(self) -> Sequence[str]:
        """Return the other workers that are alive."""
        alive = [path for path in self._workers.others() if is_locked(path)]
        return [worker for path in alive if (worker := worker_of(path))]

    # -- definitions

    def add(self, jobs: Sequence[Job]) -> Sequence[Job]:
        values = [job_values(job, 0) for job in jobs]
        reject_duplicate_ids(jobs)
        with self._database.write() as serial:
            connection = self._database.connection
            stored = {
                row[0]
                for row in connection.execute(
                    "SELECT j.id FROM json_each(?) i CROSS JOIN sched_job j ON j.id = i.value",
                    (json.dumps([job.id for job in jobs]),),
                )
            }
            added: list[Job] = []
            new: list[Row] = []
            for job, row in zip(jobs, values, strict=True):
                revision = serial.next()
                if job.id in stored:
                    record = self._records.load(job.id)
                    added.append(record.add(job, revision))
                    self._records.save(job.id, record)
                else:
                    added.append(revised(job, revision))
                    new.append((row[0], revision, *row[2:]))
            nulls.execute_many(connection, INSERT, new)
        return added

    def get(self, job_id: str) -> Job | Undecodable | None:
        try:
            rows = self._database.read(_GET, (job_id,))
        except UnicodeEncodeError:  # the id under which a row is listed that is no UTF-8
            return None
        return read_record(rows[0]).read() if rows else None

    def replace(self, job: Job, executions: Sequence[Execution]) -> Job:
        with self._database.write() as serial:
            record, history = self._loaded(job.id), self._history.within(serial)
            replaced = record.replace(job, executions, serial.next(), history)
            self._records.save(job.id, record)
        return replaced

    def remove(self, job: Job, executions: Sequence[Execution]) -> None:
        with self._database.write() as serial:
            record = self._loaded(job.id)
            record.remove(job, executions, self._history.within(serial))
            self._records.save(job.id, record)

    def _loaded(self, job_id: str) -> Record:
        try:
            return self._records.load(job_id)
        except UnicodeEncodeError:
            return Record()

    def jobs(self, query: JobQuery, after: str | None, limit: int) -> Page[Job | Undecodable]:
        return queries.jobs(self._database, query, after, limit)

    # -- what is due

    def changed(self) -> bool:
        version: int = self._database.read("PRAGMA data_version")[0][0]
        before, self._version = self._version, version
        if version != before:
            self._claims.forget()
        return version != before

    def look_for_cancels(self) -> None:
        """Look whether another connection has marked claims of this worker since the last call."""
        version: int = self._database.read("PRAGMA data_version")[0][0]
        if version != self._cancels_version:
            self._cancels_version = version
            before, self._cancelled = self._cancelled, self._claims.cancelled()
            self.cancels += not self._cancelled <= before

    # -- claims

    def earliest(self, room: Room, now: Now, horizon: datetime) -> datetime | None:
        return self._claims.earliest(room, horizon)

    def claim(self, batch: ClaimBatch, now: Now) -> None:
        self._claims.claim(batch, self._lease, now)

    def renew(self, renewals: Sequence[Renewal], now: Now) -> Sequence[Claim]:
        return self._claims.renew(renewals, self._lease, now)

    def renew_unlocked(self, renewals: Sequence[Renewal], now: Now) -> Sequence[Claim]:
        """Extend leases without the database."""
        return self._renewals.renew(renewals, self._lease, now)

    def release(self, claims: Sequence[Claim], now: Now) -> None:
        self._claims.release(claims, now)

    def settle(self, settlements: Sequence[Settlement], now: Now) -> Sequence[Settled]:
        with self._database.write() as serial:
            connection = self._database.connection
            settler = Settler(connection, self._records, self._history, serial)
            return settler.settle(settlements, now())

    def release_dead(self, now: Now) -> bool:
        """End the leases of workers whose processes are gone; return whether there were any."""
        suspects = [path for path in self._workers.others() if not is_locked(path)]
        if not suspects:
            return False
        # What a dead worker holds changes no more, so that no lock is needed to look for it.
        held = {
            path: self._held_by(worker)
            for path in suspects
            if (worker := worker_of(path)) is not None
        }
        if not held:
            return False
        with self._database.write(durable=False):
            # Under the lock no worker is between making its file and locking it.
            dead = [path for path in held if path.exists() and not is_locked(path)]
            at = micros(now())
            self._database.connection.executemany(
                "UPDATE sched_job SET lease_until = ? "
                "WHERE rowid = ? AND worker = ? AND lease_until > ?",
                [(at, rowid, worker, at) for path in dead for rowid, worker in held[path]],
            )
        for path in dead:
            path.unlink(missing_ok=True)
        return bool(dead)

    def _held_by(self, worker: str) -> list[Row]:
        return self._database.read(
            "SELECT rowid, worker FROM sched_job WHERE worker = ? AND lease_until IS NOT NULL",
            (worker,),
        )

    # -- the history

    def executions(
        self, query: ExecutionQuery, after: str | None, limit: int
    ) -> Page[Execution | UndecodableExecution]:
        return queries.executions(self._database, query, after, limit)

    def execution(self, execution_id: str) -> Execution | UndecodableExecution | None:
        return lookups.execution(self._database, execution_id)

    def recent(
        self, job_ids: Sequence[str], limit: int
    ) -> Mapping[str, Sequence[Execution | UndecodableExecution]]:
        return lookups.recent(self._database, job_ids, limit)

    def follow(self, after: str | None, limit: int, now: Now) -> Followed:
        return lookups.follow(self._database, after, limit)

    # -- what is going on

    def claims(self, query: ClaimQuery, after: str | None, limit: int, now: Now) -> Page[Hold]:
        return self._survey.claims(query, after, limit)

    def report(self, state: WorkerState) -> None:
        self._survey.report(state)

    def withdraw(self) -> None:
        self._survey.withdraw(self._claims.worker)

    def workers(self) -> Sequence[WorkerState]:
        return self._survey.workers()

    def counts(self, query: CountQuery, now: Now) -> Counts:
        return self._survey.counts(query, now())

    def prune(self, before: datetime, now: Now, cursor: int) -> tuple[int, int | None]:
        if cursor >= 0:
            deleted, following = (0, None)
            if before > FIRST:
                deleted, following = self._history.prune_old(micros(before), cursor)
            return deleted, -1 if following is None else following
        with self._database.write(durable=False) as serial:
            if cursor == -1:
                self._history.index(serial)
                self._survey.forget(now())
            at = micros(now())
            deleted = self._history.prune_expired(at)
            if deleted < CHUNK:
                deleted += self._prune_jobs(at)
        return deleted, None if deleted < CHUNK else -2

    def _prune_jobs(self, at: int) -> int:
        readable, values = self._claims.can_read()
        return self._database.connection.execute(
            "DELETE FROM sched_job WHERE rowid IN (SELECT rowid FROM sched_job "
            f"WHERE expires_at <= ? AND lease_until IS NULL AND removed = 0 AND {readable} "
            "LIMIT ?)",
            (at, *values, CHUNK),
        ).rowcount
