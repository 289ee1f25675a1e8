"""Rows of jobs ⇄ values: what both dialects share.

An occurrence of the schedule lies in columns, and nearly every job has nothing else: no JSON is
read or written on the way of a run. ``number`` and what follows it belong to that occurrence; where
there is none, ``number`` is NULL. Three columns are NULL where another one says the same:
``scheduled_due`` (``due_at``), ``last_number`` (``number``) and ``renewed_at`` (``claimed_at``).
What is held is ``current`` of the row's standing, and ``held`` is NULL, until an edit or a removal
changes the row under its claim.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from functools import lru_cache
from typing import Any

from attrs import evolve, frozen

from sched_core import (
    Gap,
    Hold,
    Job,
    JobSpec,
    Kind,
    Pause,
    Pending,
    Standing,
    State,
    Status,
    Undecodable,
    codec,
)
from sched_core import row as core
from sched_sql.moments import (
    EPOCH,
    MICROSECOND,
    MOST,
    micros,
    micros_or_none,
    moment,
    moment_or_none,
    no_moment,
    quoted,
)

Row = tuple[Any, ...]

RUN_COLUMNS = (
    "number, next_run, due_at, scheduled_due, attempts, failures, lost, snoozes, began_at, "
    "derived_from, last_number, failing, last_scheduled_at, last_finished_at, last_status, "
    "expires_at"
)
"""Those of the standing that a run of a plain job changes."""
STEADY_COLUMNS = "number, next_run, due_at, last_scheduled_at, last_finished_at, last_status"
"""Those that a success changes which goes on to the next occurrence: nearly every run."""
RARE_COLUMNS = "paused_at, paused_until, pause_reason, pause_number, requests, marks"
"""Of what few jobs have: a pause, requests, and :class:`Marks`."""
STANDING_COLUMNS = f"{RUN_COLUMNS}, {RARE_COLUMNS}"

DEFINITION_COLUMNS = (
    "id, revision, format, tag, schedule, policy, metadata, name, group_name, uid, declared, anchor"
)
JOB_COLUMNS = f"{DEFINITION_COLUMNS}, {STANDING_COLUMNS}"
JOB_WIDTH = JOB_COLUMNS.count(",") + 1
HOLD_COLUMNS = "token, worker, claimed_at, renewed_at, lease_until, alone_at, held"
"""Held is: ``lease_until`` is not NULL. A settle keeps token and worker; what else frees a claim
clears the worker."""
HOLD_WIDTH = HOLD_COLUMNS.count(",") + 1
RECORD_COLUMNS = f"{JOB_COLUMNS}, removed, {HOLD_COLUMNS}, ended_token, ended_worker"
"""All of a row that :func:`read_record` needs."""

QUEUE = "default"
"""The queue of every job, until jobs can name one."""

STATE = (
    f"CASE WHEN paused_at IS NOT NULL THEN '{State.PAUSED.value}' "
    f"WHEN number IS NULL AND requests IS NULL THEN '{State.FINISHED.value}' "
    f"ELSE '{State.ACTIVE.value}' END"
)
"""``Standing.state`` in a statement."""

# Tables, because an enumeration's own look-ups take as long as a column does to be written.
_SCHEDULED = Kind.SCHEDULED
_STATUS_TEXTS = {status: status.value for status in Status}
STATUSES: dict[str | None, Status | None] = {status.value: status for status in Status}
STATUSES[None] = None


@frozen
class Marks:
    """What few standings have besides a pause and requests.

    Attributes:
        gaps, spare, skip, cancels: Of the standing.
        scheduled: Its scheduled occurrence, where that has what no column is for.
    """

    gaps: tuple[Gap, ...] = ()
    spare: datetime | None = None
    skip: datetime | None = None
    cancels: tuple[int, ...] = ()
    scheduled: Pending | None = None


NO_MARKS = Marks()


# -- writing


def run_values(standing: Standing) -> Row:
    """Return the values of ``RUN_COLUMNS``."""
    one, due_at, last_number = standing.scheduled, standing.due_at, standing.last_number
    last_scheduled_at, last_finished_at = standing.last_scheduled_at, standing.last_finished_at
    last_status, expires_at = standing.last_status, standing.expires_at
    due = None if due_at is None else (due_at - EPOCH) // MICROSECOND
    rest = (
        standing.failing,
        None if last_scheduled_at is None else (last_scheduled_at - EPOCH) // MICROSECOND,
        None if last_finished_at is None else (last_finished_at - EPOCH) // MICROSECOND,
        None if last_status is None else _STATUS_TEXTS[last_status],
        None if expires_at is None else (expires_at - EPOCH) // MICROSECOND,
    )
    if one is None:
        return (None, None, due, None, 0, 0, 0, 0, None, None, last_number, *rest)
    number, scheduled_at, own, began_at = one.number, one.scheduled_at, one.due_at, one.began_at
    return (
        number,
        due if scheduled_at is due_at else (scheduled_at - EPOCH) // MICROSECOND,
        due,
        None if own is due_at or own == due_at else (own - EPOCH) // MICROSECOND,
        one.attempts,
        one.failures,
        one.lost,
        one.snoozes,
        None if began_at is None else (began_at - EPOCH) // MICROSECOND,
        one.derived_from or None,
        None if last_number == number else last_number,
        *rest,
    )


def steady_values(before: Standing, after: Standing) -> Row | None:
    """Return the values of ``STEADY_COLUMNS``; ``None`` where the other ``RUN_COLUMNS`` change."""
    one, due_at = after.scheduled, after.due_at
    if (
        one is None
        or one.due_at is not due_at
        or one.number != after.last_number
        or before.failing != after.failing
        or before.expires_at is not after.expires_at
        or not _is_fresh(one)
        or not _is_fresh(was := before.scheduled)
        or was is None
        or was.due_at != before.due_at
        or was.number != before.last_number
        or was.derived_from != one.derived_from
    ):
        return None
    last_scheduled_at, last_finished_at = after.last_scheduled_at, after.last_finished_at
    last_status, scheduled_at = after.last_status, one.scheduled_at
    due = (due_at - EPOCH) // MICROSECOND
    return (
        one.number,
        due if scheduled_at is due_at else (scheduled_at - EPOCH) // MICROSECOND,
        due,
        None if last_scheduled_at is None else (last_scheduled_at - EPOCH) // MICROSECOND,
        None if last_finished_at is None else (last_finished_at - EPOCH) // MICROSECOND,
        None if last_status is None else _STATUS_TEXTS[last_status],
    )


def _is_fresh(one: Pending | None) -> bool:
    """Whether an occurrence has not been attempted, lost or begun."""
    return one is None or (
        one.began_at is None
        and one.attempts == 0
        and one.failures == 0
        and one.lost == 0
        and one.snoozes == 0
    )


def standing_values(standing: Standing) -> Row:
    """Return the values of ``STANDING_COLUMNS``."""
    pause, one = standing.pause, standing.scheduled
    marks = Marks(
        standing.gaps,
        standing.spare,
        standing.skip,
        standing.cancels,
        None if _is_in_columns(one) else one,
    )
    return (
        *run_values(standing),
        None if pause is None else micros(pause.since),
        None if pause is None else micros_or_none(pause.until),
        None if pause is None else pause.reason,
        None if pause is None else pause.last_number,
        codec.encode_value(standing.requests) if standing.requests else None,
        None if marks == NO_MARKS else codec.encode_value(marks),
    )


def differ_by_a_run(before: Standing, after: Standing) -> bool:
    """Whether two standings agree in all but ``RUN_COLUMNS``."""
    return (
        after.requests is before.requests
        and after.pause is before.pause
        and after.gaps is before.gaps
        and after.spare is before.spare
        and after.skip is before.skip
        and after.cancels is before.cancels
        and _is_in_columns(before.scheduled)
        and _is_in_columns(after.scheduled)
    )


def _is_in_columns(one: Pending | None) -> bool:
    """Whether ``RUN_COLUMNS`` say all of a scheduled occurrence."""
    return one is None or (
        one.kind is _SCHEDULED
        and one.coalesced == 0
        and one.coalesced_until is None
        and one.key is None
        and one.origin == 0
        and one.until is None
        and one.args is None
    )


def job_values(job: Job, revision: int) -> Row:
    """Return the values of ``JOB_COLUMNS``."""
    spec = job.spec
    return (
        spec.id,
        revision,
        codec.FORMAT,
        codec.tag_of(spec.schedule),
        codec.encode_schedule(spec.schedule),
        codec.encode_policy(spec.policy),
        codec.encode_metadata(spec.metadata),
        spec.name,
        spec.group,
        job.uid,
        job.declared,
        micros(job.anchor),
        *standing_values(job.standing),
    )


def held_text(hold: Hold) -> str:
    """Return the value of the column ``held``: what an edit or a removal leaves to the claim."""
    return codec.encode_hold(hold).body.decode()


# -- reading


def read_job(row: Row) -> Job:
    """Return the job of a row that begins with ``JOB_COLUMNS`` and whose header is readable.

    Raises:
        Malformed: A column holds what this version never writes.
    """
    try:
        return _job(row)
    except codec.Malformed:
        raise
    except (ValueError, TypeError, KeyError, OverflowError) as error:
        raise codec.Malformed(f"{type(error).__name__}: {error}") from error


def _job(row: Row) -> Job:
    (
        job_id,
        revision,
        _,
        tag,
        schedule,
        policy,
        metadata,
        name,
        group,
        uid,
        declared,
        anchor,
        number,
        next_run,
        due_at,
        scheduled_due,
        attempts,
        failures,
        lost,
        snoozes,
        began_at,
        derived_from,
        last_number,
        failing,
        last_scheduled_at,
        last_finished_at,
        last_status,
        expires_at,
        paused_at,
        paused_until,
        pause_reason,
        pause_number,
        requests,
        marks,
    ) = row[:JOB_WIDTH]
    last = number if last_number is None else last_number
    counted = (number or 0) | last | attempts | failures | lost | snoozes | failing
    if not 0 <= counted < MOST:  # as soon as one of them is not
        raise codec.Malformed("no job has counted below 0, or to 2**60")
    due = None if due_at is None else EPOCH + MICROSECOND * due_at
    one = None
    if number is not None:
        own = due if scheduled_due is None else EPOCH + MICROSECOND * scheduled_due
        if own is None:
            raise codec.Malformed("the occurrence has no due moment")
        one = Pending(
            number,
            due if due is not None and next_run == due_at else moment(next_run),
            own,
            _SCHEDULED,
            attempts,
            failures,
            lost,
            snoozes,
            None if began_at is None else EPOCH + MICROSECOND * began_at,
            derived_from=derived_from or "",
        )
    standing = Standing(
        last,
        one,
        due,
        (),
        None,
        (),
        None,
        None,
        (),
        failing,
        None if last_scheduled_at is None else EPOCH + MICROSECOND * last_scheduled_at,
        None if last_finished_at is None else EPOCH + MICROSECOND * last_finished_at,
        STATUSES[last_status],
        None if expires_at is None else EPOCH + MICROSECOND * expires_at,
    )
    if paused_at is not None or requests is not None or marks is not None:
        pause = None
        if paused_at is not None:
            if not 0 <= pause_number < MOST:
                raise codec.Malformed(f"no job has counted to {pause_number}")
            until = moment_or_none(paused_until)
            pause = Pause(moment(paused_at), pause_number, until, pause_reason)
        standing = _with_rare(standing, pause, requests, marks)
    # One-shots would push everything else out of the cache.
    read_spec = _spec if tag == "once" or metadata else _cached_spec
    spec, since = read_spec(job_id, tag, schedule, policy, metadata, name, group, anchor)
    return Job(spec, uid, declared == 1, since, standing, revision)


def _with_rare(
    standing: Standing, pause: Pause | None, requests: str | None, marks: str | None
) -> Standing:
    found = NO_MARKS if marks is None else codec.decode_value(marks, Marks)
    one = standing.scheduled
    if one is not None and found.scheduled is not None:
        rest = found.scheduled
        one = evolve(
            one,
            kind=rest.kind,
            coalesced=rest.coalesced,
            coalesced_until=rest.coalesced_until,
            key=rest.key,
            origin=rest.origin,
            until=rest.until,
            args=rest.args,
        )
    return evolve(
        standing,
        scheduled=one,
        requests=() if requests is None else codec.decode_value(requests, tuple[Pending, ...]),
        pause=pause,
        gaps=found.gaps,
        spare=found.spare,
        skip=found.skip,
        cancels=found.cancels,
    )


def _spec(
    job_id: str,
    tag: str,
    schedule: str,
    policy: str,
    metadata: str,
    name: str | None,
    group: str | None,
    anchor: int,
) -> tuple[JobSpec, datetime]:
    spec = JobSpec(
        job_id,
        codec.decode_schedule(tag, schedule),
        name,
        codec.decode_metadata(metadata),
        codec.decode_policy(policy),
        group,
    )
    return spec, moment(anchor)


_cached_spec = lru_cache(maxsize=4096)(_spec)


def read_hold(hold: Row, job: Job | None) -> Hold | None:
    """Return the hold of a row whose ``HOLD_COLUMNS`` were read; ``None`` where it is free.

    Args:
        hold: The values of the columns.
        job: What the row says; ``None`` for a tombstone.

    Raises:
        Malformed: They are no hold.
    """
    token, worker, claimed_at, renewed_at, lease_until, alone_at, held = hold
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
    # What makes no sense is nobody's fence.
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
        token, worker, claimed_at, renewed_at, lease_until, alone_at, _ = hold
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


# -- what cannot be read


def read_job_or_undecodable(row: Row) -> Job | Undecodable:
    """Return the job of a row that begins with ``JOB_COLUMNS``, or why it cannot be read."""
    reason = codec.readable(row[2], row[3])
    if reason is None:
        try:
            return read_job(row)
        except codec.Malformed as error:
            reason = str(error)
    return undecodable(row, reason)


def undecodable(row: Row, reason: str) -> Undecodable:
    """Return what is listed of a row that begins with ``JOB_COLUMNS`` and cannot be read."""
    job_id, _, record_format, _, schedule, policy, metadata = row[:7]
    body = policy if "policy" in reason else metadata if "metadata" in reason else schedule
    return Undecodable(
        _bytes(job_id).decode(errors="surrogateescape"),
        reason,
        record_format if isinstance(record_format, int) else 0,
        _bytes(body),
    )


def _bytes(column: object) -> bytes:
    return column if isinstance(column, bytes) else str(column).encode(errors="surrogateescape")


def odd_job(is_whole: str = "true") -> str:
    """Return a condition that most rows meet that cannot be read, and few others.

    By it a filter lets through what it cannot judge.

    Args:
        is_whole: Condition on a column that it is a whole number, in the words of the dialect.
    """
    strange = [f"last_status NOT IN ({quoted(STATUSES)})"]
    strange += [no_moment(name, is_whole) for name in _MOMENTS]
    counts = [f"{is_whole.format(name)} AND {name} BETWEEN 0 AND {MOST - 1}" for name in _COUNTS]
    strange += [
        f"({name} IS NOT NULL AND NOT ({count}))"
        for name, count in zip(_COUNTS, counts, strict=True)
    ]
    strange += [
        "(number IS NULL AND last_number IS NULL)",
        "(paused_at IS NULL) <> (pause_number IS NULL)",
    ]
    return f"({' OR '.join(strange)})"


_MOMENTS = (
    "anchor",
    "next_run",
    "due_at",
    "scheduled_due",
    "began_at",
    "paused_at",
    "paused_until",
    "last_scheduled_at",
    "last_finished_at",
    "expires_at",
)
_COUNTS = (
    "number",
    "last_number",
    "attempts",
    "failures",
    "lost",
    "snoozes",
    "failing",
    "pause_number",
)
