"""Rows as SQLite hands them out, and as they are written back.

SQLite keeps text in a column for numbers, and a repair by hand may leave half of a hold. Such a row
is reported and left alone: it must not stop the others.
"""

# ruff: noqa: S608 -- statements are made of constants; values are bound

from __future__ import annotations

from functools import lru_cache
from typing import Any

from attrs import define

from sched_core import Hold, Job, Undecodable, codec
from sched_core import row as core
from sched_sql._shared import holds
from sched_sql._shared.holds import (
    HOLD_COLUMNS,
    HOLD_WIDTH,
    RECORD_COLUMNS,
    held_text,
    progress_text,
)
from sched_sql._shared.moments import Row, micros_or_none
from sched_sql._shared.rows import JOB_COLUMNS, JOB_WIDTH, job_values, read_job, undecodable
from sched_sql.sqlite import nulls
from sched_sql.sqlite.database import Database

TEXT_COLUMNS = (
    "id, tag, schedule, policy, metadata, name, group_name, queue, uid, actor, derived_from, "
    "last_status, pause_reason, requests, marks, worker, held, progress, ended_worker"
)
NULLABLE_COLUMNS = (
    "name, group_name, actor, number, next_run, due_at, scheduled_due, began_at, derived_from, "
    "last_number, last_scheduled_at, last_finished_at, last_status, expires_at, paused_at, "
    "paused_until, pause_reason, pause_number, requests, marks, worker, claimed_at, renewed_at, "
    "lease_until, alone_at, held, progress, ended_token, ended_worker"
)

_SOUND: set[tuple[type[Any], ...]] = set()
"""Types of columns that were found to be sound: there are few, and every run looks at one."""
_MOST_SOUND = 10_000
LEASE_UNTIL = HOLD_COLUMNS.split(", ").index("lease_until")
_NAMES = RECORD_COLUMNS.split(", ")
_TEXTS = frozenset(TEXT_COLUMNS.split(", "))
_NULLABLE = frozenset(NULLABLE_COLUMNS.split(", "))

_LOAD = f"SELECT {RECORD_COLUMNS} FROM sched_job WHERE id = ?"
_VALUES = ", ".join("?" * JOB_WIDTH)
INSERT = f"INSERT INTO sched_job ({JOB_COLUMNS}) VALUES ({_VALUES})"
_OVERWRITE = f"UPDATE sched_job SET ({JOB_COLUMNS}) = ({_VALUES}), removed = 0 WHERE id = ?"
_MAKE_TOMBSTONE = "UPDATE sched_job SET removed = 1, due_at = NULL, expires_at = NULL WHERE id = ?"
_DELETE = "DELETE FROM sched_job WHERE id = ?"
_NOTE_HELD = "UPDATE sched_job SET held = ? WHERE id = ?"
_RENEW = "UPDATE sched_job SET renewed_at = ?, lease_until = ?, alone_at = ? WHERE id = ?"
_TELL = "UPDATE sched_job SET progress = ? WHERE id = ?"
_RELEASE = """
UPDATE sched_job SET lease_until = NULL, renewed_at = NULL, alone_at = NULL, held = NULL,
    progress = NULL, worker = CASE WHEN ? THEN worker END
WHERE id = ?
"""


@define
class Record(core.Row):
    """A row of the table.

    Attributes:
        was: The job as it was loaded.
        was_held: The hold as it was loaded.
    """

    was: Job | Undecodable | None = None
    was_held: Hold | None = None


class Records:
    """The rows of a database; called inside a transaction."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def load(self, job_id: str) -> Record:
        """Return what is stored under the id, or an empty row."""
        found = self._database.read(_LOAD, (job_id,))
        return read_record(found[0]) if found else Record()

    def save(self, job_id: str, row: Record) -> None:
        """Store a row that was changed."""
        execute = self._database.connection.execute
        if row.is_empty():
            execute(_DELETE, (job_id,))
            return
        job, hold, was_held = row.job, row.hold, row.was_held
        if job is not row.was:
            if isinstance(job, Job):
                values = (*job_values(job, job.revision), job_id)
                nulls.execute(self._database.connection, _OVERWRITE, values)
            else:
                execute(_MAKE_TOMBSTONE, (job_id,))
            if hold is not None:
                execute(_NOTE_HELD, (held_text(hold), job_id))
        if hold is None and was_held is not None:
            settled = row.ended == (was_held.token, was_held.worker)
            execute(_RELEASE, (settled, job_id))
        elif hold is not None and hold is not was_held:
            moments = (hold.renewed_at, hold.expires_at, hold.alone_at)
            values = (*map(micros_or_none, moments), job_id)
            nulls.execute(self._database.connection, _RENEW, values)
            if was_held is None or hold.progress is not was_held.progress:
                execute(_TELL, (progress_text(hold.progress), job_id))


# -- reading


def read_sound(row: Row) -> Job:
    """Return the job of a row that begins with ``JOB_COLUMNS`` and whose header is readable.

    Raises:
        Malformed: A column holds what no version ever writes.
    """
    values = row[:JOB_WIDTH]
    types = tuple(map(type, values))
    if types not in _SOUND:
        _check_types(values, 0)
        if len(_SOUND) < _MOST_SOUND:
            _SOUND.add(types)
    return read_job(values)


def read_record(row: Row) -> Record:
    """Return what a row of ``RECORD_COLUMNS`` says; where it is odd, its job is undecodable."""
    try:
        _check_types(row[2:4], 2)
        if codec.readable(row[2], row[3]) is None:
            held = row[JOB_WIDTH + 1 + LEASE_UNTIL] is not None
            _check_types(row[: JOB_WIDTH + 1 + (HOLD_WIDTH if held else 0)], 0)
            _check_removed(row[JOB_WIDTH])
        found = holds.read_record(row)
    except codec.Malformed as error:
        found = core.Row(undecodable(row, str(error)))
    return Record(found.job, found.hold, found.ended, found.job, found.hold)


def _check_removed(removed: int) -> None:
    if removed not in {0, 1}:
        raise codec.Malformed(f"removed: {removed!r:.100} is neither 0 nor 1")


def _check_types(values: Row, first: int) -> None:
    at = _misfit(tuple(map(type, values)), first)
    if at is not None:
        raise codec.Malformed(f"{_NAMES[first + at]}: {values[at]!r:.100} is of another type")


@lru_cache(maxsize=4096)
def _misfit(types: tuple[type[Any], ...], first: int) -> int | None:
    """Return which of the columns from the first one on is of a type that it never has."""
    for at, found in enumerate(types):
        name = _NAMES[first + at]
        expected = str if name in _TEXTS else int
        if found is not expected and not (found is type(None) and name in _NULLABLE):
            return at
    return None
