"""Rows ⇄ values: what both dialects share. Moments are whole microseconds since 1970."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any

from sched_core import codec
from sched_core.job import (
    Backlog,
    Claim,
    Execution,
    Job,
    JobSpec,
    LostClaim,
    Standing,
    State,
    Status,
    bounded,
    pending,
)
from sched_core.policy import Policy
from sched_core.ports import Undecodable
from sched_core.schedule import Once

Row = tuple[Any, ...]

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
EARLIEST = (datetime.min.replace(tzinfo=UTC) - EPOCH) // _MICROSECOND
LATEST = (datetime.max.replace(tzinfo=UTC) - EPOCH) // _MICROSECOND
"""What lies before or after is no moment: nobody knows what was meant."""
MOST = 2**60
"""Numbers that only grow stay below it, in whatever time; what is above was not written here."""

STANDING_COLUMNS = (
    "state, number, next_run, due_at, triggered_at, attempts, failures, skipped_run, paused_until, "
    "pause_reason, last_scheduled_at, last_finished_at, last_status, expires_at, manual, "
    "paused_at, backlog"
)
RUN_COLUMNS = (
    "state, number, next_run, due_at, attempts, failures, last_scheduled_at, last_finished_at, "
    "last_status, expires_at"
)
"""Those of the standing that a run without pause, trigger and skip changes."""

DEFINITION_COLUMNS = (
    "id, revision, format, tag, schedule, policy, metadata, name, group_name, uid, declared, anchor"
)
JOB_COLUMNS = f"{DEFINITION_COLUMNS}, {STANDING_COLUMNS}"
JOB_WIDTH = JOB_COLUMNS.count(",") + 1
LEDGER_COLUMNS = (
    "job_id, uid, number, attempt, scheduled_at, manual, status, final, token, worker, claimed_at, "
    "started_at, finished_at, reason, folded, folded_until, expires_at"
)
HOLD_COLUMNS = (
    "token, worker, claimed_at, lease_until, lost, lost_worker, lost_claimed_at, held_uid, "
    "held_number, held_attempt, held_at, held_manual, held_keep"
)

# Tables, because an enumeration's own look-ups take as long as a column does to be written.
_STATES = {state.value: state for state in State}
_STATE_TEXTS = {state: state.value for state in State}
_STATUS_TEXTS = {status: status.value for status in Status}
STATUSES: dict[str | None, Status | None] = {status.value: status for status in Status}
STATUSES[None] = None


def micros(moment: datetime) -> int:
    """Return a moment as whole microseconds since 1970."""
    return (moment - EPOCH) // _MICROSECOND


def micros_or_none(moment: datetime | None) -> int | None:
    """Return a moment as whole microseconds since 1970, ``None`` for none."""
    return None if moment is None else (moment - EPOCH) // _MICROSECOND


def moment(number: int) -> datetime:
    """Return the moment that many microseconds after 1970."""
    return EPOCH + number * _MICROSECOND


def moment_or_none(number: int | None) -> datetime | None:
    """Return the moment that many microseconds after 1970, ``None`` for none."""
    return None if number is None else EPOCH + number * _MICROSECOND


def nearest_moment(number: int) -> datetime:
    """Return the moment that many microseconds after 1970, or the first or last there is."""
    return moment(min(max(number, EARLIEST), LATEST))


def duration_or_none(duration: timedelta | None) -> int | None:
    """Return whole microseconds; ``None`` for none, and for more than a column can hold."""
    if duration is None:
        return None
    number = duration // _MICROSECOND
    return number if number < 2**63 else None


# -- jobs --------------------------------------------------------------------


def standing_values(standing: Standing) -> Row:
    """Return the values of ``STANDING_COLUMNS``."""
    next_run, due_at, triggered_at = standing.next_run, standing.due_at, standing.triggered_at
    skipped_run, paused_until = standing.skipped_run, standing.paused_until
    last_scheduled_at, last_finished_at = standing.last_scheduled_at, standing.last_finished_at
    last_status, expires_at, paused_at = (
        standing.last_status,
        standing.expires_at,
        standing.paused_at,
    )
    return (
        _STATE_TEXTS[standing.state],
        standing.number,
        None if next_run is None else (next_run - EPOCH) // _MICROSECOND,
        None if due_at is None else (due_at - EPOCH) // _MICROSECOND,
        None if triggered_at is None else (triggered_at - EPOCH) // _MICROSECOND,
        standing.attempts,
        standing.failures,
        None if skipped_run is None else (skipped_run - EPOCH) // _MICROSECOND,
        None if paused_until is None else (paused_until - EPOCH) // _MICROSECOND,
        standing.pause_reason,
        None if last_scheduled_at is None else (last_scheduled_at - EPOCH) // _MICROSECOND,
        None if last_finished_at is None else (last_finished_at - EPOCH) // _MICROSECOND,
        None if last_status is None else _STATUS_TEXTS[last_status],
        None if expires_at is None else (expires_at - EPOCH) // _MICROSECOND,
        standing.manual,
        None if paused_at is None else (paused_at - EPOCH) // _MICROSECOND,
        None if standing.backlog is None else _write_backlog(standing.backlog),
    )


def _write_backlog(backlog: Backlog) -> str:
    moments = (backlog.until, backlog.folded_from, backlog.folded_until)
    return json.dumps([backlog.folded, *map(micros_or_none, moments)])


def _read_backlog(text: str) -> Backlog:
    folded, until, folded_from, folded_until = json.loads(text)
    return Backlog(
        moment(until), int(folded), moment_or_none(folded_from), moment_or_none(folded_until)
    )


def run_values(standing: Standing) -> Row:
    """Return the values of ``RUN_COLUMNS``."""
    next_run, due_at = standing.next_run, standing.due_at
    last_scheduled_at, last_finished_at = standing.last_scheduled_at, standing.last_finished_at
    last_status, expires_at = standing.last_status, standing.expires_at
    due = None if due_at is None else (due_at - EPOCH) // _MICROSECOND
    return (
        _STATE_TEXTS[standing.state],
        standing.number,
        due if next_run is due_at else micros_or_none(next_run),
        due,
        standing.attempts,
        standing.failures,
        None if last_scheduled_at is None else (last_scheduled_at - EPOCH) // _MICROSECOND,
        None if last_finished_at is None else (last_finished_at - EPOCH) // _MICROSECOND,
        None if last_status is None else _STATUS_TEXTS[last_status],
        None if expires_at is None else (expires_at - EPOCH) // _MICROSECOND,
    )


def differ_by_a_run(before: Standing, after: Standing) -> bool:
    """Whether two standings agree in all but ``RUN_COLUMNS``."""
    return (
        after.triggered_at is before.triggered_at
        and after.skipped_run is before.skipped_run
        and after.paused_until is before.paused_until
        and after.paused_at is before.paused_at
        and after.backlog is before.backlog
        and after.manual is before.manual
        and after.pause_reason is before.pause_reason
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
        state,
        number,
        next_run,
        due_at,
        triggered_at,
        attempts,
        failures,
        skipped_run,
        paused_until,
        pause_reason,
        last_scheduled_at,
        last_finished_at,
        last_status,
        expires_at,
        manual,
        paused_at,
        backlog,
    ) = row[:JOB_WIDTH]
    if not (0 <= number < MOST and 0 <= attempts < MOST and 0 <= failures < MOST):
        raise codec.Malformed(f"no job counts to {number}, {attempts} and {failures}")
    due = None if due_at is None else EPOCH + due_at * _MICROSECOND
    # One-shots would push everything else out of the cache.
    read_spec = _spec if tag == "once" or metadata else _cached_spec
    return Job(
        read_spec(job_id, tag, schedule, policy, metadata, name, group),
        uid,
        declared == 1,
        EPOCH + anchor * _MICROSECOND,
        Standing(
            _STATES[state],
            number,
            due if next_run == due_at else moment_or_none(next_run),
            due,
            None if triggered_at is None else EPOCH + triggered_at * _MICROSECOND,
            attempts,
            failures,
            None if skipped_run is None else EPOCH + skipped_run * _MICROSECOND,
            None if paused_until is None else EPOCH + paused_until * _MICROSECOND,
            pause_reason,
            None if last_scheduled_at is None else EPOCH + last_scheduled_at * _MICROSECOND,
            None if last_finished_at is None else EPOCH + last_finished_at * _MICROSECOND,
            STATUSES[last_status],
            None if expires_at is None else EPOCH + expires_at * _MICROSECOND,
            manual == 1,
            None if paused_at is None else EPOCH + paused_at * _MICROSECOND,
            None if backlog is None else _read_backlog(backlog),
        ),
        revision,
    )


def _spec(
    job_id: str,
    tag: str,
    schedule: str,
    policy: str,
    metadata: str,
    name: str | None,
    group: str | None,
) -> JobSpec:
    return JobSpec(
        job_id,
        codec.decode_schedule(tag, schedule),
        name,
        codec.decode_metadata(metadata),
        codec.decode_policy(policy),
        group,
    )


_cached_spec = lru_cache(maxsize=4096)(_spec)


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
    strange = [f"state NOT IN ({quoted(_STATES)})", f"last_status NOT IN ({quoted(STATUSES)})"]
    strange += [no_moment(name, is_whole) for name in ("anchor", *_JOB_MOMENTS)]
    strange += [
        f"NOT ({is_whole.format(name)} AND {name} BETWEEN 0 AND {MOST - 1})"
        for name in ("number", "attempts", "failures")
    ]
    return f"({' OR '.join(strange)})"


_JOB_MOMENTS = (
    "next_run",
    "due_at",
    "triggered_at",
    "skipped_run",
    "paused_until",
    "last_scheduled_at",
    "last_finished_at",
    "expires_at",
    "paused_at",
)


def quoted(texts: Iterable[str | None]) -> str:
    """Return constants as a list in a statement."""
    return ", ".join(f"'{text}'" for text in texts if text is not None)


def no_moment(column: str, is_whole: str) -> str:
    """Return a condition that a column holds something, and no moment; see :func:`odd_job`."""
    within = f"{is_whole.format(column)} AND {column} BETWEEN {EARLIEST} AND {LATEST}"
    return f"({column} IS NOT NULL AND NOT ({within}))"


# -- holds -------------------------------------------------------------------


def held_claim(job_id: str, hold: Row, job: Job | None) -> Claim:
    """Return the claim of a row, as far as its ledger lines need it.

    What makes no sense in the hold is left out: a lease has ended whoever had it, and its job goes
    on.

    Args:
        job_id: Of the row.
        hold: The values of ``HOLD_COLUMNS``.
        job: What the row says; it is what is held unless the hold has its own copy.
    """
    token, worker, claimed_at, lease_until, lost, lost_worker, lost_claimed_at = hold[:7]
    uid, number, attempt, scheduled_at, manual, keep = hold[7:]
    until = moment_if_any(lease_until) or EPOCH
    since = moment_if_any(claimed_at) or until
    token, worker = _count(token), worker if isinstance(worker, str) else ""
    lost_claim = lost_of((lost, lost_worker, lost_claimed_at)) if lost else None
    lost = 0 if lost_claim is None else lost_claim.count
    copied = isinstance(uid, str) and type(number) is int and 0 <= number < MOST
    if copied or job is None:
        at = moment_if_any(scheduled_at)
        number, attempt = _count(number), _count(attempt)
        uid = uid if isinstance(uid, str) else ""
        keep = keep if type(keep) is int and 0 <= keep <= LATEST else None
        standing = Standing(
            State.ACTIVE,
            number,
            next_run=None if manual else at,
            due_at=None,
            triggered_at=at if manual else None,
            attempts=max((attempt or 1) - 1 - lost, 0),
            manual=manual == 1,
        )
        policy = Policy(keep_executions=None if keep is None else timedelta(0, 0, keep))
        spec = JobSpec(job_id, Once(since), policy=policy)
        job = Job(spec, uid, False, since, standing)
    return Claim(job, token, worker, since, until, lost_claim)


def lost_of(values: Sequence[Any]) -> LostClaim:
    """Return what the columns ``lost, lost_worker, lost_claimed_at`` say, as far as it is sense."""
    count, worker, claimed_at = values
    return LostClaim(
        _count(count), worker if isinstance(worker, str) else None, moment_if_any(claimed_at)
    )


def _count(value: Any) -> int:
    return value if type(value) is int and 0 <= value < MOST else 0


def moment_if_any(value: Any) -> datetime | None:
    """Return the moment of a column, ``None`` where it holds none."""
    return moment(value) if type(value) is int and EARLIEST <= value <= LATEST else None


def held_values(claim: Claim) -> Row:
    """Return the values of the columns from ``held_uid`` to ``held_keep``."""
    scheduled_at, manual = pending(claim.job.standing)
    return (
        claim.job.uid,
        claim.job.standing.number,
        claim.attempt,
        micros_or_none(scheduled_at),
        manual,
        duration_or_none(claim.job.spec.policy.keep_executions),
    )


# -- the ledger --------------------------------------------------------------


def line_values(line: Execution) -> Row:
    """Return the values of ``LEDGER_COLUMNS``."""
    started_at, reason = line.started_at, line.reason
    folded_until, expires_at = line.folded_until, line.expires_at
    return (
        line.job_id,
        line.uid,
        line.number,
        line.attempt,
        (line.scheduled_at - EPOCH) // _MICROSECOND,
        line.manual,
        _STATUS_TEXTS[line.status],
        line.final,
        line.token,
        line.worker,
        (line.claimed_at - EPOCH) // _MICROSECOND,
        None if started_at is None else (started_at - EPOCH) // _MICROSECOND,
        (line.finished_at - EPOCH) // _MICROSECOND,
        None if reason is None else bounded(reason),
        line.folded,
        None if folded_until is None else (folded_until - EPOCH) // _MICROSECOND,
        None if expires_at is None else (expires_at - EPOCH) // _MICROSECOND,
    )
