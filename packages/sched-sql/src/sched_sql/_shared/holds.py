"""Claims as they are stored ⇄ columns, and all that is stored under an id.

What is held is ``current`` of the row's standing, and ``held`` is NULL, until an edit or a removal
changes the row under its claim. ``renewed_at`` is NULL where it is ``claimed_at``.
"""

from __future__ import annotations

from datetime import timedelta

from attrs import evolve

from sched_core import Hold, Job, Progress, Undecodable, codec
from sched_core import row as core
from sched_core._support.texts import storable
from sched_sql._shared.moments import MOST, Row, moment, moment_or_none
from sched_sql._shared.rows import JOB_COLUMNS, JOB_WIDTH, read_job_or_undecodable, undecodable

HOLD_COLUMNS = "token, worker, claimed_at, renewed_at, lease_until, alone_at, held, progress"
"""Held is: ``lease_until`` is not NULL. A settle keeps token and worker; what else frees a claim
clears the worker."""
HOLD_WIDTH = HOLD_COLUMNS.count(",") + 1
RECORD_COLUMNS = f"{JOB_COLUMNS}, removed, {HOLD_COLUMNS}, ended_token, ended_worker"
"""All of a row that :func:`read_record` needs."""


def held_text(hold: Hold) -> str:
    """Return the value of the column ``held``: what an edit or a removal leaves to the claim."""
    return codec.encode_hold(hold).body.decode()


def progress_text(progress: Progress | None) -> str | None:
    """Return the value of a column ``progress``."""
    return None if progress is None else storable(codec.encode_value(progress))


def read_progress(text: str | None) -> Progress | None:
    """Return what a column ``progress`` holds.

    Raises:
        Malformed: It is no progress.
    """
    return None if text is None else codec.decode_value(text, Progress)


def read_hold(hold: Row, job: Job | None) -> Hold | None:
    """Return the hold of a row whose ``HOLD_COLUMNS`` were read; ``None`` where it is free.

    Args:
        hold: The values of the columns.
        job: What the row says; ``None`` for a tombstone.

    Raises:
        Malformed: They are no hold.
    """
    token, worker, claimed_at, renewed_at, lease_until, alone_at, held, progress = hold
    if lease_until is None:
        return None
    if worker is None or claimed_at is None or not 0 <= token < MOST:
        raise codec.Malformed("the hold: lease_until, token, worker and claimed_at go together")
    try:
        since, until = moment(claimed_at), moment(lease_until)
        if held is not None:
            found = codec.decode_hold(codec.Record(codec.FORMAT, "", held.encode()))
        elif job is not None:
            one = core.current(job.standing)
            found = core.held(job, one, token, worker, since, timedelta(0))
        else:
            raise codec.Malformed("the hold: a removed job does not say what is held")
        return evolve(
            found,
            token=token,
            worker=worker,
            claimed_at=since,
            renewed_at=since if renewed_at is None else moment(renewed_at),
            expires_at=until,
            alone_at=moment_or_none(alone_at),
            progress=read_progress(progress),
        )
    except OverflowError as error:
        raise codec.Malformed(f"the hold: {error}") from error


def read_record(row: Row) -> core.Row:
    """Return what is stored under an id, of a row of ``RECORD_COLUMNS``.

    Where this version cannot read the job, it still knows who holds it, and not for what.
    """
    removed, hold = row[JOB_WIDTH], row[JOB_WIDTH + 1 : JOB_WIDTH + 1 + HOLD_WIDTH]
    token, worker, lease_until = hold[0], hold[1], hold[4]
    fence = row[-2:] if lease_until is not None or worker is None else (token, worker)
    # What makes no sense is the fence of no claim.
    ended = fence if isinstance(fence[0], int) and isinstance(fence[1], str) else None
    job = None if removed == 1 else read_job_or_undecodable(row)
    if isinstance(job, Undecodable):
        return core.Row(job, _hold_alone(row[0], hold), ended)
    try:
        return core.Row(job, read_hold(hold, job), ended)
    except codec.Malformed as error:
        return core.Row(undecodable(row, str(error)), _hold_alone(row[0], hold), ended)


def _hold_alone(job_id: str, hold: Row) -> Hold | None:
    try:
        token, worker, claimed_at, renewed_at, lease_until, alone_at, *_ = hold
        return (
            None
            if lease_until is None
            else Hold(
                job_id,
                "",
                token,
                worker,
                moment(claimed_at),
                moment(claimed_at if renewed_at is None else renewed_at),
                moment(lease_until),
                None,
                None,
                moment_or_none(alone_at),
            )
        )
    except (TypeError, OverflowError):
        return None
