"""How claims begin in SQLite, are renewed, lost and released.

The hold of a claim is in the row of its job. What is held (the occurrence, and what its ledger
lines need) is the row itself, until an edit changes the row: then the hold gets its own copy.
"""

# ruff: noqa: S608 -- statements are made of constants; values are bound

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime, timedelta

from sched_core import codec
from sched_core.errors import JobUndecodable
from sched_core.job import (
    Claim,
    Execution,
    Job,
    LostClaim,
    abandoned_lines,
    superseded_line,
)
from sched_core.ports import Undecodable
from sched_sql.rows import (
    HOLD_COLUMNS,
    JOB_COLUMNS,
    JOB_WIDTH,
    Row,
    held_values,
    micros,
    moment_or_none,
)
from sched_sql.rules import at_same_occurrence
from sched_sql.sqlite.database import Database, Serial
from sched_sql.sqlite.ledger import Ledger
from sched_sql.sqlite.records import (
    check_removed,
    read_definition,
    read_hold,
    read_lost,
    read_sound,
)
from sched_sql.sqlite.renewals import Fence, Renewals
from sched_sql.table import Now

_DUE = f"""
SELECT {JOB_COLUMNS}, rowid, removed, lease_until, lost
FROM sched_job INDEXED BY sched_job_due
WHERE due_at <= ? AND (lease_until IS NULL OR lease_until <= ?) AND {{readable}}
ORDER BY due_at LIMIT ?
"""

_MARK = "rowid || ':' || hex(revision)"
"""Names a row and its revision, whatever is in its columns."""

_FENCES = """
SELECT rowid, token, worker FROM sched_job WHERE rowid IN (SELECT value FROM json_each(?))
"""

_CLAIM = """
UPDATE sched_job SET token = ?, worker = ?, claimed_at = ?, lease_until = ? WHERE rowid = ?
"""
_NOTE_LOST = """
UPDATE sched_job SET lost = ?, lost_worker = ?, lost_claimed_at = ?, held_uid = NULL,
    held_number = NULL
WHERE rowid = ?
"""

_FREE_AT = """
SELECT due_at FROM sched_job INDEXED BY sched_job_due
WHERE due_at <= ? AND lease_until IS NULL AND {readable} ORDER BY due_at LIMIT 1
"""
_HELD_UNTIL = """
SELECT min(max(due_at, lease_until)) FROM sched_job INDEXED BY sched_job_due
WHERE due_at <= ? AND lease_until <= ? AND {readable}
"""

_HOLD = f"SELECT {HOLD_COLUMNS} FROM sched_job WHERE id = ?"
_COPY_HOLD = """
UPDATE sched_job SET (held_uid, held_number, held_attempt, held_at, held_manual, held_keep)
    = (?, ?, ?, ?, ?, ?)
WHERE id = ?
"""

_RELEASE = """
UPDATE sched_job
SET lease_until = NULL, worker = NULL, lost = CASE WHEN ? THEN lost ELSE 0 END, held_uid = NULL,
    held_number = NULL
WHERE id = ?
"""


class Claims:
    """The claims on the jobs of a database, and on behalf of one worker."""

    def __init__(self, database: Database, ledger: Ledger, renewals: Renewals) -> None:
        self._database = database
        self._ledger = ledger
        self._renewals = renewals
        self.worker = ""
        self._malformed: set[str] = set()
        """``_MARK`` of rows whose header was fine, and something else was not."""

    def forget(self) -> None:
        """Read again what could not be read: somebody has written, and may have repaired it."""
        self._malformed.clear()

    def can_read(self) -> tuple[str, Row]:
        """Return the condition on rows that this process can read, and its values."""
        tags = codec.known_tags()
        condition = f"format <= ? AND tag IN ({', '.join('?' * len(tags))})"
        if not self._malformed:
            return condition, (codec.FORMAT, *tags)
        skipped = json.dumps(sorted(self._malformed))
        condition += f" AND {_MARK} NOT IN (SELECT value FROM json_each(?))"
        return condition, (codec.FORMAT, *tags, skipped)

    def earliest(self, horizon: datetime) -> datetime | None:
        self._database.look()
        connection = self._database.connection
        readable, values = self.can_read()
        until = micros(horizon)
        row = connection.execute(_FREE_AT.format(readable=readable), (until, *values)).fetchone()
        free_at = None if row is None else max(row[0], 0)
        until = until if free_at is None else free_at
        # All rows that are due by then are held, so these are few.
        held_until = connection.execute(
            _HELD_UNTIL.format(readable=readable), (until, until, *values)
        ).fetchone()[0]
        return moment_or_none(free_at if held_until is None else max(held_until, 0))

    def claim(
        self, claims: list[Claim], limit: int, lease: timedelta, now: Now, asked: datetime
    ) -> None:
        begun = len(claims)
        try:
            with self._database.write(durable=False) as serial:
                at = now()
                if at - asked > lease / 10:
                    # The loop was blocked or the clock set: the caller renews first, or it would
                    # take over what it holds itself.
                    return
                while (wanted := limit - len(claims) + begun) > 0:
                    rows = self._due(at, wanted)
                    self._take(self._ended(rows, at), claims, at, at + lease, serial)
                    if len(rows) < wanted:
                        break
        except BaseException:
            del claims[begun:]
            raise

    def _due(self, at: datetime, limit: int) -> list[Row]:
        readable, values = self.can_read()
        number = micros(at)
        return self._database.read(_DUE.format(readable=readable), (number, number, *values, limit))

    def _ended(self, rows: list[Row], at: datetime) -> list[Row]:
        """Leave out claims that were renewed beside their rows; their rows say so from now on."""
        suspects = [row[JOB_WIDTH] for row in rows if row[JOB_WIDTH + 2] is not None]
        if not suspects:
            return rows
        fences: dict[int, Fence] = {
            rowid: (token, worker)
            for rowid, token, worker in self._database.read(_FENCES, (json.dumps(suspects),))
            if type(token) is int and type(worker) is str  # else no claim of ours
        }
        later = self._renewals.end(list(fences.values()), micros(at))
        renewed = {rowid: later[fence] for rowid, fence in fences.items() if fence in later}
        self._database.connection.executemany(
            "UPDATE sched_job SET lease_until = ? WHERE rowid = ?",
            [(until, rowid) for rowid, until in renewed.items()],
        )
        return [row for row in rows if row[JOB_WIDTH] not in renewed]

    def _take(
        self,
        rows: Sequence[Row],
        claims: list[Claim],
        at: datetime,
        expires_at: datetime,
        serial: Serial,
    ) -> None:
        connection = self._database.connection
        worker, at_number, until_number = self.worker, micros(at), micros(expires_at)
        updates: list[Row] = []
        for row in rows:
            rowid, removed, lease_until, lost_before = row[JOB_WIDTH:]
            lost = None
            try:
                check_removed(removed)
                job = None if removed else read_sound(row)
                if lease_until is not None or lost_before != 0:
                    lost = self._take_over(row[0], job, at, serial)
                    connection.execute(_NOTE_LOST, (*_lost_values(lost), rowid))
            except codec.Malformed:
                mark = f"SELECT {_MARK} FROM sched_job WHERE rowid = ?"
                self._malformed.add(connection.execute(mark, (rowid,)).fetchone()[0])
                continue
            if job is None:
                connection.execute("DELETE FROM sched_job WHERE rowid = ?", (rowid,))
                continue
            token = serial.next()
            updates.append((token, worker, at_number, until_number, rowid))
            claims.append(Claim(job, token, worker, at, expires_at, lost))
        connection.executemany(_CLAIM, updates)

    def _take_over(
        self, job_id: str, job: Job | None, at: datetime, serial: Serial
    ) -> LostClaim | None:
        """Write the lines of a claim that was lost, and say what the next one must know."""
        hold = self._database.connection.execute(_HOLD, (job_id,)).fetchone()
        if hold[3] is None:
            # Released after a takeover: the lost attempts have their lines and keep their numbers.
            return read_lost(hold)
        claim = self._held_claim(job_id, hold)
        moved_on = job is None or not at_same_occurrence(claim.job, job)
        self._ledger.write(abandoned_lines(claim, at, moved_on=moved_on), serial)
        if moved_on:
            return None
        earlier = 0 if claim.lost is None else claim.lost.count
        return LostClaim(earlier + 1, claim.worker, claim.claimed_at)

    def renew(self, claims: Sequence[Claim], lease: timedelta, now: Now) -> Sequence[Claim]:
        renewed: list[Claim] = []
        with self._database.write(durable=False):
            execute = self._database.connection.execute
            expires_at = now() + lease
            until = micros(expires_at)
            for claim in claims:
                held = execute(
                    "UPDATE sched_job SET lease_until = ? WHERE id = ? AND token = ? "
                    "AND worker = ? AND lease_until IS NOT NULL",
                    (until, claim.job.spec.id, claim.token, claim.worker),
                ).rowcount
                if held:
                    renewed.append(
                        Claim(
                            claim.job,
                            claim.token,
                            claim.worker,
                            claim.claimed_at,
                            expires_at,
                            claim.lost,
                        )
                    )
        return renewed

    def release(self, claims: Sequence[Claim], now: Now) -> None:
        """Free claims whose handlers were never called."""
        if not claims:
            return
        with self._database.write() as serial:
            connection = self._database.connection
            at = now()
            for claim in claims:
                job_id = claim.job.spec.id
                hold = connection.execute(_HOLD, (job_id,)).fetchone()
                if hold is None or hold[:2] != (claim.token, claim.worker) or hold[3] is None:
                    continue
                try:
                    held, job = self._held_claim(job_id, hold), self._visible(job_id)
                except codec.Malformed:
                    continue  # left alone
                stands = isinstance(job, Undecodable) or (
                    job is not None and at_same_occurrence(held.job, job)
                )
                if not stands:
                    self._ledger.write([superseded_line(held, at)], serial)
                if job is None:
                    connection.execute("DELETE FROM sched_job WHERE id = ?", (job_id,))
                else:
                    connection.execute(_RELEASE, (stands, job_id))

    def prepare_edit(self, job_id: str, serial: Serial, lines: Sequence[Execution]) -> bool:
        """Prepare for an edit: let the hold keep what is held, and write the lines.

        Lines about the held occurrence are not written. Returns whether there is a hold.
        """
        connection = self._database.connection
        hold = connection.execute(_HOLD, (job_id,)).fetchone()
        held = hold[3] is not None
        if held:
            try:
                claim = self._held_claim(job_id, hold)
            except codec.Malformed as error:
                raise JobUndecodable(job_id, str(error)) from error
            uid, number = claim.job.uid, claim.job.standing.number
            connection.execute(_COPY_HOLD, (*held_values(claim), job_id))
            lines = [line for line in lines if (line.uid, line.number) != (uid, number)]
        self._ledger.write(lines, serial)
        return held

    def _visible(self, job_id: str) -> Job | Undecodable | None:
        """Return the job, ``None`` for a tombstone."""
        row = self._row(job_id)
        check_removed(row[JOB_WIDTH])
        return None if row[JOB_WIDTH] else read_definition(row)

    def _held_claim(self, job_id: str, hold: Row) -> Claim:
        """Return the claim of a row whose ``HOLD_COLUMNS`` were read."""
        job = read_definition(self._row(job_id))
        return read_hold(job_id, hold, None if isinstance(job, Undecodable) else job)

    def _row(self, job_id: str) -> Row:
        statement = f"SELECT {JOB_COLUMNS}, removed FROM sched_job WHERE id = ?"
        return self._database.read(statement, (job_id,))[0]


def _lost_values(lost: LostClaim | None) -> Row:
    if lost is None:
        return 0, None, None
    since = lost.claimed_at
    return lost.count, lost.worker, None if since is None else micros(since)
