"""Rows of jobs ⇄ values, also where they make no sense: what both dialects share."""

from __future__ import annotations

from datetime import datetime
from functools import lru_cache

from sched_core import Job, JobSpec, Kind, Pause, Pending, Standing, Undecodable, codec
from sched_core._support.values import evolve
from sched_sql._shared.moments import (
    EPOCH,
    MICROSECOND,
    MOST,
    Row,
    micros,
    moment,
    moment_or_none,
    no_moment,
    quoted,
)
from sched_sql._shared.standings import NO_MARKS, STANDING_COLUMNS, STATUSES, Marks, standing_values

DEFINITION_COLUMNS = (
    "id, revision, format, tag, schedule, policy, metadata, name, group_name, queue, uid, "
    "declared, anchor, actor"
)
JOB_COLUMNS = f"{DEFINITION_COLUMNS}, {STANDING_COLUMNS}"
JOB_WIDTH = JOB_COLUMNS.count(",") + 1

_SCHEDULED = Kind.SCHEDULED


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
        spec.queue,
        job.uid,
        job.declared,
        micros(job.anchor),
        job.actor,
        *standing_values(job.standing),
    )


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
        queue,
        uid,
        declared,
        anchor,
        actor,
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
    spec, since = read_spec(job_id, tag, schedule, policy, metadata, name, group, queue, anchor)
    return Job(spec, uid, declared == 1, since, standing, revision, actor=actor)


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
            retry_at=rest.retry_at,
            actor=rest.actor,
            moments=rest.moments,
        )
    if pause is not None and found.pause_actor is not None:
        by = found.pause_actor
        pause = Pause(pause.since, pause.last_number, pause.until, pause.reason, by)
    return evolve(
        standing,
        scheduled=one,
        requests=() if requests is None else codec.decode_value(requests, tuple[Pending, ...]),
        pause=pause,
        gaps=found.gaps,
        spare=found.spare,
        skip=found.skip,
        cancels=found.cancels,
        skip_actor=found.skip_actor,
    )


def _spec(
    job_id: str,
    tag: str,
    schedule: str,
    policy: str,
    metadata: str,
    name: str | None,
    group: str | None,
    queue: str,
    anchor: int,
) -> tuple[JobSpec, datetime]:
    spec = JobSpec(
        job_id,
        codec.decode_schedule(tag, schedule),
        name,
        codec.decode_metadata(metadata),
        codec.decode_policy(policy),
        group,
        queue,
    )
    return spec, moment(anchor)


_cached_spec = lru_cache(maxsize=4096)(_spec)


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


def unsound_job(is_whole: str = "true") -> str:
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
