"""Standings → columns; :mod:`sched_sql._shared.rows` reads them with the rest of a job.

An occurrence of the schedule lies in columns, and nearly every job has nothing else: no JSON is
read or written on the way of a run. ``number`` and what follows it belong to that occurrence; where
there is none, ``number`` is NULL. Two columns are NULL where another one says the same:
``scheduled_due`` (``due_at``) and ``last_number`` (``number``).
"""

from __future__ import annotations

from datetime import datetime

from attrs import frozen

from sched_core import CancelMark, Gap, Kind, Pending, Standing, State, Status, codec
from sched_sql._shared.moments import EPOCH, MICROSECOND, Row, micros, micros_or_none

RUN_COLUMNS = (
    "number, next_run, due_at, scheduled_due, attempts, failures, lost, snoozes, began_at, "
    "derived_from, last_number, failing, last_scheduled_at, last_finished_at, last_status, "
    "expires_at"
)
"""The columns of the standing that a run of a plain job changes."""
STEADY_COLUMNS = "number, next_run, due_at, last_scheduled_at, last_finished_at, last_status"
"""The columns that a success changes which goes on to the next occurrence: nearly every run."""
RARE_COLUMNS = "paused_at, paused_until, pause_reason, pause_number, requests, marks"
"""The columns of what few jobs have: a pause, requests, and :class:`Marks`."""
STANDING_COLUMNS = f"{RUN_COLUMNS}, {RARE_COLUMNS}"

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
        gaps, spare, skip, cancels: The standing's values of these names.
        skip_actor: Likewise.
        pause_actor: Who made the pause.
        scheduled: Its scheduled occurrence, where that has what no column is for.
    """

    gaps: tuple[Gap, ...] = ()
    spare: datetime | None = None
    skip: datetime | None = None
    cancels: tuple[CancelMark, ...] = ()
    scheduled: Pending | None = None
    skip_actor: str | None = None
    pause_actor: str | None = None


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
    pause = standing.pause
    return (
        *run_values(standing),
        None if pause is None else micros(pause.since),
        None if pause is None else micros_or_none(pause.until),
        None if pause is None else pause.reason,
        None if pause is None else pause.last_number,
        codec.encode_value(standing.requests) if standing.requests else None,
        _marks(standing),
    )


def _marks(standing: Standing) -> str | None:
    one, gaps, cancels = standing.scheduled, standing.gaps, standing.cancels
    spare, skip = standing.spare, standing.skip
    is_whole, by = _is_in_columns(one), standing.skip_actor
    paused_by = None if standing.pause is None else standing.pause.actor
    nothing = spare is None and skip is None and by is None and paused_by is None
    if is_whole and nothing and not gaps and not cancels:
        return None
    rest = None if is_whole else one
    return codec.encode_value(Marks(gaps, spare, skip, cancels, rest, by, paused_by))


def only_run_fields_differ(before: Standing, after: Standing) -> bool:
    """Whether two standings agree in all but ``RUN_COLUMNS``."""
    return (
        after.requests is before.requests
        and after.pause is before.pause
        and after.gaps is before.gaps
        and after.spare is before.spare
        and after.skip is before.skip
        and after.skip_actor is before.skip_actor
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
        and one.retry_at is None
        and one.actor is None
        and not one.moments
    )
