"""Rows as SQLite hands them out: a column may hold what no version of ours ever wrote.

SQLite keeps text in a column for numbers, and a repair by hand may leave half of a hold. Such a row
is reported and left alone: it must not stop those beside it.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from sched_core import codec
from sched_core.job import Claim, Job, LostClaim
from sched_core.ports import Undecodable
from sched_sql.rows import (
    HOLD_COLUMNS,
    JOB_COLUMNS,
    JOB_WIDTH,
    MOST,
    Row,
    held_claim,
    moment_or_none,
    read_job,
    read_job_or_undecodable,
    undecodable,
)

RECORD_COLUMNS = f"{JOB_COLUMNS}, removed, {HOLD_COLUMNS}"

TEXT_COLUMNS = (
    "id, tag, schedule, policy, metadata, name, group_name, uid, state, pause_reason, last_status, "
    "backlog, worker, lost_worker, held_uid"
)
NULLABLE_COLUMNS = (
    "name, group_name, next_run, due_at, triggered_at, skipped_run, paused_until, pause_reason, "
    "last_scheduled_at, last_finished_at, last_status, expires_at, paused_at, backlog, worker, "
    "claimed_at, lease_until, lost_worker, lost_claimed_at, held_uid, held_number, held_attempt, "
    "held_at, held_manual, held_keep"
)

_NAMES = RECORD_COLUMNS.split(", ")
_TEXTS = frozenset(TEXT_COLUMNS.split(", "))
_NULLABLE = frozenset(NULLABLE_COLUMNS.split(", "))


def read_sound(row: Row) -> Job:
    """Return the job of a row that begins with ``JOB_COLUMNS`` and whose header is readable.

    Raises:
        Malformed: A column holds what no version ever writes.
    """
    _check_types(row[:JOB_WIDTH], 0)
    return read_job(row)


def read_hold(job_id: str, hold: Row, job: Job | None) -> Claim:
    """Return the claim of a row whose ``HOLD_COLUMNS`` were read; see ``rows.held_claim``.

    Raises:
        Malformed: They are no hold.
    """
    _check_types(hold, JOB_WIDTH + 1)
    token, worker, claimed_at, lease_until, lost, *_, number, attempt, _, _, _ = hold
    if worker is None or claimed_at is None or lease_until is None:
        raise codec.Malformed("the hold: lease_until, worker and claimed_at go together")
    for name, count in {"token": token, "number": number, "attempt": attempt}.items():
        if not 0 <= (count or 0) < MOST:
            raise codec.Malformed(f"the hold: {name} {count} is out of range")
    _check_lost(lost, hold[5])
    try:
        return held_claim(job_id, hold, job)
    except (ValueError, TypeError, OverflowError) as error:
        raise codec.Malformed(f"the hold: {type(error).__name__}: {error}") from error


def read_lost(hold: Row) -> LostClaim:
    """Return what a released claim had taken over, of a row whose ``HOLD_COLUMNS`` were read.

    Raises:
        Malformed: It is no lost claim.
    """
    _check_types(hold, JOB_WIDTH + 1)
    _check_lost(hold[4], hold[5])
    try:
        return LostClaim(hold[4], hold[5], moment_or_none(hold[6]))
    except OverflowError as error:
        raise codec.Malformed(f"the hold: lost_claimed_at: {error}") from error


def _check_lost(lost: int, worker: str | None) -> None:
    if not 0 <= lost < MOST or (lost and worker is None):
        raise codec.Malformed(f"the hold: {lost} lost claims of the worker {worker!r}")


def check_removed(removed: object) -> None:
    """Raise ``Malformed`` if a row does not say whether it is a tombstone."""
    if type(removed) is not int or removed not in {0, 1}:
        raise codec.Malformed(f"removed: {removed!r:.100} is neither 0 nor 1")


def read_definition(row: Row) -> Job | Undecodable:
    """Return the job of a row that begins with ``JOB_COLUMNS``, or why it cannot be read."""
    try:
        _check_types(row[2:4], 2)
        if codec.readable(row[2], row[3]) is not None:
            return read_job_or_undecodable(row)  # what another version makes of columns is its own
        return read_sound(row)
    except codec.Malformed as error:
        return undecodable(row, str(error))


def read_record(row: Row) -> Job | Undecodable:
    """Return the job of a row of ``RECORD_COLUMNS``, or why it cannot be read."""
    job = read_definition(row)
    if isinstance(job, Undecodable):
        return job
    try:
        check_removed(row[JOB_WIDTH])
        hold = row[JOB_WIDTH + 1 :]
        if hold[3] is not None:
            read_hold(job.id, hold, job)
        elif hold[4] != 0:
            read_lost(hold)
    except codec.Malformed as error:
        return undecodable(row, str(error))
    return job


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
