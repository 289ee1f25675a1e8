"""Rows of the first schema → rows of this one: for the migrations of both dialects.

In the first schema one counter named a scheduled and a manual occurrence by turns, lost claims had
a counter apart from the attempts, and a pause left a backlog. No other module here knows that.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from attrs import evolve

from sched_core import Gap, Hold, Kind, Pause, Pending, Standing, codec
from sched_core import row as core
from sched_core._model.execution import DEFAULT_QUEUE
from sched_sql._shared.holds import RECORD_COLUMNS, held_text
from sched_sql._shared.moments import MOST, Row, moment, moment_or_none
from sched_sql._shared.rows import DEFINITION_COLUMNS
from sched_sql._shared.standings import STATUSES, standing_values

_LATER = {"queue", "actor"}
_DEFINITION = [name for name in DEFINITION_COLUMNS.split(", ") if name not in _LATER]
OLD_COLUMNS = (
    f"{', '.join(_DEFINITION)}, removed, state, number, next_run, due_at, triggered_at, attempts, "
    "failures, skipped_run, paused_until, pause_reason, last_scheduled_at, last_finished_at, "
    "last_status, expires_at, manual, paused_at, backlog, token, worker, claimed_at, lease_until, "
    "lost, lost_worker, lost_claimed_at, held_uid, held_number, held_attempt, held_at, "
    "held_manual, held_keep, ended_token, ended_worker"
)
OLD_FORMAT = 1

_OLD_NAMES = OLD_COLUMNS.split(", ")
_KEPT = timedelta(days=30)


def upgraded(values: Sequence[Any]) -> Row:
    """Return the values of ``RECORD_COLUMNS`` for those of ``OLD_COLUMNS``.

    A row that makes no sense keeps its format: it is listed as one that cannot be read, and what
    its columns said is in ``marks``.
    """
    old = dict(zip(_OLD_NAMES, values, strict=True))
    try:
        return _upgraded(old)
    except (ValueError, TypeError, KeyError, OverflowError):
        return _left_alone(old)


def _upgraded(old: dict[str, Any]) -> Row:
    counts = [old[name] for name in ("number", "attempts", "failures", "lost", "token")]
    if old["format"] != OLD_FORMAT or not all(0 <= count < MOST for count in counts):
        raise ValueError("no row of the first schema")
    pending = _pending(old)
    standing = _standing(old, pending)
    held = None if old["lease_until"] is None else held_text(_hold(old, pending))
    columns = standing_values(evolve(standing, due_at=None) if old["removed"] else standing)
    known = {"format": codec.FORMAT, "queue": DEFAULT_QUEUE}
    return (
        *(known.get(name, old.get(name)) for name in DEFINITION_COLUMNS.split(", ")),
        *columns,
        old["removed"],
        old["token"],
        old["worker"],
        old["claimed_at"],
        None,
        old["lease_until"],
        None,
        held,
        None,
        old["ended_token"],
        old["ended_worker"],
    )


def _left_alone(old: dict[str, Any]) -> Row:
    new = {"failing": 0, "snoozes": 0, "queue": DEFAULT_QUEUE}
    kept = {"marks": json.dumps(old, default=repr), **new}
    return tuple((old | kept).get(name) for name in RECORD_COLUMNS.split(", "))


class _Occurrences(NamedTuple):
    """What is pending; ``first`` is that of the two which had the number."""

    scheduled: Pending | None
    request: Pending | None
    first: Pending | None


def _pending(old: dict[str, Any]) -> _Occurrences:
    number, lost, next_run = old["number"], old["lost"], moment_or_none(old["next_run"])
    triggered_at, due_at = moment_or_none(old["triggered_at"]), moment_or_none(old["due_at"])
    is_manual = triggered_at is not None and (bool(old["manual"]) or next_run is None)
    if old["held_uid"] == old["uid"] and old["held_number"] is not None:
        if old["held_number"] != number:
            lost = 0
        elif bool(old["held_manual"]) != is_manual:
            # Two occurrences had the number: what is held keeps it.
            lost, number = 0, number + 1
    elif old["held_uid"] is not None:
        lost = 0
    nominal = triggered_at if is_manual else next_run
    if nominal is None:
        return _Occurrences(None, None, None)
    # Where a pause held it back, the column was the pause's end.
    is_held_back = old["state"] == "paused" and triggered_at is None
    attempts = old["attempts"] + lost
    first = Pending(
        number,
        nominal,
        nominal if due_at is None or is_held_back else due_at,
        Kind.TRIGGERED if is_manual else Kind.SCHEDULED,
        attempts,
        old["failures"],
        lost,
        0,
        _began_at(old, nominal, lost) if attempts else None,
        origin=number if is_manual else 0,
    )
    if is_manual:
        other = None if next_run is None else Pending(number + 1, next_run, next_run)
        return _Occurrences(_with_backlog(other, old), first, first)
    scheduled = _with_backlog(first, old)
    if triggered_at is None:
        return _Occurrences(scheduled, None, scheduled)
    request = Pending(number + 1, triggered_at, triggered_at, Kind.TRIGGERED, origin=number + 1)
    return _Occurrences(scheduled, request, scheduled)


def _began_at(old: dict[str, Any], nominal: datetime, lost: int) -> datetime:
    """Return when an occurrence began, as far as that is known: what passed since is the next's."""
    since = moment_or_none(old["lost_claimed_at"]) if lost else None
    return nominal if since is None else max(nominal, since)


def _with_backlog(one: Pending | None, old: dict[str, Any]) -> Pending | None:
    if one is None or old["backlog"] is None:
        return one
    folded, _, _, folded_until = json.loads(old["backlog"])
    return evolve(one, coalesced=folded, coalesced_until=moment_or_none(folded_until))


def _gaps(one: Pending | None, old: dict[str, Any]) -> tuple[Gap, ...]:
    if one is None or old["backlog"] is None:
        return ()
    since, until = one.coalesced_until or one.scheduled_at, moment(json.loads(old["backlog"])[1])
    return (Gap(since, until),) if since < until else ()


def _standing(old: dict[str, Any], pending: _Occurrences) -> Standing:
    scheduled, request, first = pending
    numbers = [one.number for one in (scheduled, request) if one is not None]
    if old["held_uid"] == old["uid"] and old["held_number"] is not None:
        numbers.append(old["held_number"])
    # Where nothing was pending, the number was that of the next occurrence.
    last_number = max(numbers, default=old["number"] - 1)
    pause = None
    if old["state"] == "paused":
        since = next(
            old[name]
            for name in ("paused_at", "last_finished_at", "anchor")
            if old[name] is not None
        )
        # A trigger ran inside a pause.
        held_back = last_number if request is None else request.number - 1
        until = moment_or_none(old["paused_until"])
        pause = Pause(moment(since), held_back, until, old["pause_reason"])
    standing = Standing(
        last_number if numbers else max(last_number, 0),
        scheduled,
        None,
        () if request is None else (request,),
        pause,
        _gaps(scheduled, old),
        None,
        None if first is None else moment_or_none(old["skipped_run"]),
        (),
        0,
        moment_or_none(old["last_scheduled_at"]),
        moment_or_none(old["last_finished_at"]),
        STATUSES[old["last_status"]],
        moment_or_none(old["expires_at"]),
    )
    one = core.current(standing)
    if one is not None:
        return evolve(standing, due_at=one.due_at)
    return standing if pause is None else evolve(standing, due_at=pause.until)


def _hold(old: dict[str, Any], pending: _Occurrences) -> Hold:
    """Return the claim of a row, with what it holds: its columns would not say it any more."""
    since, until = moment(old["claimed_at"]), moment(old["lease_until"])
    uid, one = old["uid"], pending.first
    keep = codec.decode_policy(old["policy"]).keep_executions
    kept = _KEPT if keep == "default" else keep
    if old["held_uid"] is not None:
        uid, at = old["held_uid"], moment_or_none(old["held_at"]) or since
        kind = Kind.TRIGGERED if old["held_manual"] else Kind.SCHEDULED
        attempts = max((old["held_attempt"] or 1) - 1, 0)
        number, lost = old["held_number"], min(old["lost"], attempts)
        began_at = _began_at(old, at, lost) if attempts else None
        one = Pending(number, at, at, kind, attempts, 0, lost, began_at=began_at)
        kept = None if old["held_keep"] is None else timedelta(0, 0, old["held_keep"])
    elif old["state"] == "paused" and old["triggered_at"] is None:
        one = None  # it was to end the pause
    worker, token = old["worker"], old["token"]
    return Hold(old["id"], uid, token, worker, since, since, until, one, kept)
