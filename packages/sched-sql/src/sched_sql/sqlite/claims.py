"""Claims in SQLite: how a worker gets them, renews them, loses them and gives them back.

The hold of a claim is in the row of its job. A row that is free waits in one index, by ``due_at``,
and one that is held in another, by the end of its lease.
"""

# ruff: noqa: S608 -- statements are made of constants; values are bound

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from sched_core import Claim, Execution, Hold, Job, Renewal, Room, Undecodable, codec
from sched_core.clock import FIRST
from sched_core.row import is_to_be_cancelled
from sched_sql._shared.holds import RECORD_COLUMNS
from sched_sql._shared.lanes import Lanes
from sched_sql._shared.moments import Row, micros, moment_or_none
from sched_sql._shared.rows import JOB_WIDTH
from sched_sql._shared.table import ClaimBatch, Now
from sched_sql.sqlite.database import Database, Serial
from sched_sql.sqlite.due import DueJobs
from sched_sql.sqlite.history import History
from sched_sql.sqlite.records import Record, Records, read_record, read_sound
from sched_sql.sqlite.renewals import Renewals

_LAPSED = f"""
SELECT {RECORD_COLUMNS}, rowid FROM sched_job INDEXED BY sched_job_held
WHERE lease_until <= ? AND {{readable}} ORDER BY lease_until LIMIT ?
"""

_HAS_LAPSED = """
SELECT 1 FROM sched_job INDEXED BY sched_job_held WHERE lease_until <= ? LIMIT 1
"""

_CLAIM = """
UPDATE sched_job SET ended_token = CASE WHEN worker IS NULL THEN ended_token ELSE token END,
    ended_worker = coalesce(worker, ended_worker), token = ?, worker = ?, claimed_at = ?,
    lease_until = ?, renewed_at = NULL, alone_at = NULL, held = NULL, progress = NULL
WHERE rowid = ?
"""

_MARKED = f"""
SELECT {RECORD_COLUMNS} FROM sched_job INDEXED BY sched_job_held
WHERE lease_until IS NOT NULL AND worker = ? AND (marks IS NOT NULL OR held IS NOT NULL)
"""
_HELD_UNTIL = """
SELECT lease_until FROM sched_job INDEXED BY sched_job_held
WHERE lease_until <= ? AND {readable} ORDER BY lease_until LIMIT 1
"""
_DUE_SINCE = """
SELECT min(due_at) FROM sched_job INDEXED BY sched_job_held
WHERE lease_until <= ? AND due_at <= ? AND {readable}
"""

BATCH = 500
"""The most claims that are ended at once."""


class Claims:
    """Claims jobs of a database for one worker."""

    def __init__(
        self, database: Database, records: Records, history: History, renewals: Renewals
    ) -> None:
        self._database = database
        self._records = records
        self._history = history
        self._renewals = renewals
        self.worker = ""
        self._due = DueJobs(database)

    # -- what can be read

    def forget(self) -> None:
        """Read again what could not be read: another process may have repaired it."""
        self._due.forget()

    def can_read(self) -> tuple[str, Row]:
        """Return the condition on rows that this process can read, and its values."""
        return self._due.can_read()

    # -- what is due

    def earliest(self, room: Room, horizon: datetime) -> datetime | None:
        """Return when a job that fits is due, or a lease ends, whichever is first."""
        self._database.look()
        until = micros(horizon)
        lanes = None if room.takes_any else Lanes(room)
        held = self._first(_HELD_UNTIL, until)
        return _earlier(self._due.first(lanes, until if held is None else min(until, held)), held)

    def due_since(self, at: datetime) -> datetime | None:
        """Return since when a job is due that no living claim holds."""
        self._database.look()
        now = micros(at)
        return _earlier(self._due.first(None, now), self._first(_DUE_SINCE, now, now))

    def _first(self, statement: str, *bounds: str | int) -> int | None:
        readable, values = self.can_read()
        execute = self._database.connection.execute
        row = execute(statement.format(readable=readable), (*bounds, *values)).fetchone()
        return None if row is None else row[0]

    # -- claiming

    def claim(self, batch: ClaimBatch, lease: timedelta, now: Now) -> None:
        """End claims whose leases have ended, then claim what is due and free."""
        claims, lapsed = batch.claims, batch.lapsed
        try:
            with self._database.write(durable=False) as serial:
                at = now()
                if at - batch.at > lease / 10:
                    # The loop was blocked or the clock set: the caller renews first, or what it
                    # holds itself would be ended.
                    return
                self._lapse(lapsed, at, serial)
                lanes, passes = Lanes(batch.room), 0
                while lanes.left > 0:
                    rows, passes = self._due.rows(lanes, micros(at)), passes + 1
                    if self._take(rows, lanes, claims, at, at + lease, serial):
                        break
                if passes > 1:
                    claims.sort(key=lambda claim: claim.job.standing.due_at or FIRST)
        except BaseException:
            claims.clear()
            lapsed.clear()
            raise

    def _take(
        self,
        rows: Sequence[Row],
        lanes: Lanes,
        claims: list[Claim],
        at: datetime,
        expires_at: datetime,
        serial: Serial,
    ) -> bool:
        """Claim the jobs of rows; return whether all of them could be read."""
        worker, at_number, until_number = self.worker, micros(at), micros(expires_at)
        updates: list[Row] = []
        for row in rows:
            try:
                job = read_sound(row)
            except codec.Malformed:
                self._due.pass_over(row[JOB_WIDTH])
                continue
            token = serial.next()
            updates.append((token, worker, at_number, until_number, row[JOB_WIDTH]))
            claims.append(Claim(job, token, worker, at, expires_at))
            lanes.take(job.spec.queue)
        self._database.connection.executemany(_CLAIM, updates)
        return len(updates) == len(rows)

    def _lapse(self, lapsed: list[Execution], at: datetime, serial: Serial) -> None:
        """End all claims whose leases have ended, except where an unlocked renewal lasts."""
        execute, history = self._database.connection.execute, self._history.within(serial)
        # Nearly always there is none, and to ask for whole rows would cost as much as a run.
        while execute(_HAS_LAPSED, (micros(at),)).fetchone():
            readable, values = self.can_read()
            statement = _LAPSED.format(readable=readable)
            found = self._database.read(statement, (micros(at), *values, BATCH))
            if not found:
                return
            ended: list[tuple[str, Record, Hold]] = []
            for row in found:
                record = read_record(row[:-1])
                if record.hold is None or isinstance(record.job, Undecodable):
                    self._due.pass_over(row[-1])
                else:
                    ended.append((row[0], record, record.hold))
            unlocked = self._renewals.end([(hold.token, hold.worker) for _, _, hold in ended], at)
            for job_id, record, hold in ended:
                renewal = unlocked.get((hold.token, hold.worker))
                record.hold = hold if renewal is None else renewal.of(hold)
                # An unlocked renewal changes nothing but the row, which says so from now on.
                lapsed += record.lapse(at, serial.next(), history)
                self._records.save(job_id, record)
            if len(found) < BATCH:
                return

    # -- keeping and giving back

    def cancelled(self) -> frozenset[int]:
        """Return the tokens of this worker's claims whose runs are to be cancelled."""
        found = set[int]()
        for row in self._database.read(_MARKED, (self.worker,)):
            record = read_record(row)
            job = record.job if isinstance(record.job, Job) else None
            if (hold := record.hold) is not None and is_to_be_cancelled(job, hold):
                found.add(hold.token)
        return frozenset(found)

    def renew(self, renewals: Sequence[Renewal], lease: timedelta, now: Now) -> Sequence[Claim]:
        """Extend leases; return what is still held."""
        renewed: list[Claim] = []
        with self._database.write(durable=False):
            at = now()
            for renewal in renewals:
                job_id = renewal.claim.job.spec.id
                record = self._records.load(job_id)
                claim = record.renew(renewal, at, lease)
                if claim is not None:
                    self._records.save(job_id, record)
                    renewed.append(claim)
        return renewed

    def release(self, claims: Sequence[Claim], now: Now) -> None:
        """Release claims whose handlers were never called."""
        if not claims:
            return
        with self._database.write() as serial:
            at, history = now(), self._history.within(serial)
            for claim in claims:
                job_id = claim.job.spec.id
                record = self._records.load(job_id)
                if record.release(claim, at, history):
                    self._records.save(job_id, record)


def _earlier(one: int | None, other: int | None) -> datetime | None:
    first = min((at for at in (one, other) if at is not None), default=None)
    return moment_or_none(first if first is None else max(first, 0))
