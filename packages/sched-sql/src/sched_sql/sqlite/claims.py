"""Claims in SQLite: how a worker gets them, renews them, loses them and gives them back.

The hold of a claim is in the row of its job. A row that is free waits in one index, by ``due_at``,
and one that is held in another, by the end of its lease.
"""

# ruff: noqa: S608 -- statements are made of constants; values are bound

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime, timedelta

from sched_core import Claim, Execution, Hold, Renewal, Undecodable, codec
from sched_core._model.execution import DEFAULT_QUEUE as QUEUE
from sched_sql._shared.holds import RECORD_COLUMNS
from sched_sql._shared.moments import Row, micros, moment_or_none
from sched_sql._shared.rows import JOB_COLUMNS, JOB_WIDTH
from sched_sql._shared.table import ClaimBatch, Now
from sched_sql.sqlite.database import Database, Serial
from sched_sql.sqlite.history import History
from sched_sql.sqlite.records import Record, Records, read_record, read_sound
from sched_sql.sqlite.renewals import Renewals

_DUE = f"""
SELECT {JOB_COLUMNS}, rowid FROM sched_job INDEXED BY sched_job_due
WHERE queue = ? AND due_at <= ? AND lease_until IS NULL AND removed = 0 AND {{readable}}
ORDER BY due_at LIMIT ?
"""

_LAPSED = f"""
SELECT {RECORD_COLUMNS}, rowid FROM sched_job INDEXED BY sched_job_held
WHERE lease_until <= ? AND {{readable}} ORDER BY lease_until LIMIT ?
"""

_HAS_LAPSED = """
SELECT 1 FROM sched_job INDEXED BY sched_job_held WHERE lease_until <= ? LIMIT 1
"""

_MARK = "rowid || ':' || hex(revision)"
"""Names a row and its revision, whatever is in its columns."""

_CLAIM = """
UPDATE sched_job SET ended_token = CASE WHEN worker IS NULL THEN ended_token ELSE token END,
    ended_worker = coalesce(worker, ended_worker), token = ?, worker = ?, claimed_at = ?,
    lease_until = ?, renewed_at = NULL, alone_at = NULL, held = NULL, progress = NULL
WHERE rowid = ?
"""

_FREE_AT = """
SELECT due_at FROM sched_job INDEXED BY sched_job_due
WHERE queue = ? AND due_at <= ? AND lease_until IS NULL AND removed = 0 AND {readable}
ORDER BY due_at LIMIT 1
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
        self._malformed: set[str] = set()
        """``_MARK`` of rows whose header was fine, and something else was not."""

    # -- what can be read

    def forget(self) -> None:
        """Read again what could not be read: another process may have repaired it."""
        self._malformed.clear()

    def can_read(self) -> tuple[str, Row]:
        """Return the condition on rows that this process can read, and its values."""
        tags = codec.known_tags()
        condition = f"format = ? AND tag IN ({', '.join('?' * len(tags))})"
        if not self._malformed:
            return condition, (codec.FORMAT, *tags)
        skipped = json.dumps(sorted(self._malformed))
        condition += f" AND {_MARK} NOT IN (SELECT value FROM json_each(?))"
        return condition, (codec.FORMAT, *tags, skipped)

    def _pass_over(self, rowid: int) -> None:
        mark = f"SELECT {_MARK} FROM sched_job WHERE rowid = ?"
        self._malformed.add(self._database.connection.execute(mark, (rowid,)).fetchone()[0])

    # -- what is due

    def earliest(self, horizon: datetime) -> datetime | None:
        """Return when a job is due, or a lease ends, that is the first of all up to the horizon."""
        self._database.look()
        until = micros(horizon)
        found = [self._first(_FREE_AT, QUEUE, until), self._first(_HELD_UNTIL, until)]
        first = min((at for at in found if at is not None), default=None)
        return moment_or_none(first if first is None else max(first, 0))

    def due_since(self, at: datetime) -> datetime | None:
        """Return since when a job is due that no living claim holds."""
        self._database.look()
        now = micros(at)
        found = [self._first(_FREE_AT, QUEUE, now), self._first(_DUE_SINCE, now, now)]
        first = min((at for at in found if at is not None), default=None)
        return moment_or_none(first if first is None else max(first, 0))

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
                while (wanted := batch.limit - len(claims)) > 0:
                    rows = self._due(at, wanted)
                    self._take(rows, claims, at, at + lease, serial)
                    if len(rows) < wanted:
                        break
        except BaseException:
            claims.clear()
            lapsed.clear()
            raise

    def _due(self, at: datetime, limit: int) -> list[Row]:
        readable, values = self.can_read()
        statement = _DUE.format(readable=readable)
        return self._database.read(statement, (QUEUE, micros(at), *values, limit))

    def _take(
        self,
        rows: Sequence[Row],
        claims: list[Claim],
        at: datetime,
        expires_at: datetime,
        serial: Serial,
    ) -> None:
        worker, at_number, until_number = self.worker, micros(at), micros(expires_at)
        updates: list[Row] = []
        for row in rows:
            try:
                job = read_sound(row)
            except codec.Malformed:
                self._pass_over(row[JOB_WIDTH])
                continue
            token = serial.next()
            updates.append((token, worker, at_number, until_number, row[JOB_WIDTH]))
            claims.append(Claim(job, token, worker, at, expires_at))
        self._database.connection.executemany(_CLAIM, updates)

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
                    self._pass_over(row[-1])
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
