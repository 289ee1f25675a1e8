"""Records and executions of the format before this one, read as what they are now. Pure.

There, one counter served the schedule's occurrence and a triggered one, the pending one of the two
had the number, and what lost claims had cost it lay outside the standing. A pause left a backlog
behind the occurrence that outlived it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from attrs import evolve, frozen

from sched_core import Gap, Hold, Job, Kind, Pause, Pending, Standing
from sched_core.codec import decode_duration, decode_moment
from sched_core.row import current, kept
from sched_jetstream._model.standing import STATUSES, checked, count, exactly, maybe, moment_of

FORMAT = 1
"""The format of the records that are read here."""

KNOWN = frozenset(
    (
        *("format", "tag", "id", "uid", "declared", "anchor", "revision", "standing", "apart"),
        *("hold", "ended", "released", "schedule", "closed"),
    )
)
"""The fields of such a record."""

_STANDING = frozenset(
    (
        *(
            "state",
            "number",
            "next_run",
            "due_at",
            "triggered_at",
            "attempts",
            "failures",
            "manual",
        ),
        *("skipped_run", "paused_at", "paused_until", "pause_reason", "backlog", "last_status"),
        *("last_scheduled_at", "last_finished_at", "expires_at"),
    )
)
_HOLD = frozenset(("token", "worker", "at", "until", "lost", "was"))
_STATES = frozenset(("active", "paused", "finished"))


@frozen
class _Was:
    """What a hold is for, where the job has moved on since."""

    uid: str
    number: int
    attempts: int
    at: datetime | None
    manual: bool
    keep: timedelta | None


def standing_of(record: Mapping[str, Any]) -> Standing:
    """Return the standing of a record; raises whatever its fields make of it."""
    fields = checked(record["standing"], _STANDING)
    known = fields.get
    state, number = known("state"), count(fields["number"])
    if state not in _STATES:
        raise ValueError(f"no state is called {state!r}")
    is_paused = state == "paused"
    moment, asked_at = moment_of(known("next_run")), moment_of(known("triggered_at"))
    paused_at = moment_of(known("paused_at")) if is_paused else None
    is_manual = exactly(bool, known("manual", False))
    is_manual = asked_at is not None and (is_manual or moment is None)

    first, second = number, number + 1
    if is_manual and _is_held_as_scheduled(record, number):
        first, second = second, first  # a trigger took the number of the run that it came upon
    scheduled = request = None
    if moment is not None:
        scheduled = Pending(second if is_manual else first, moment, moment)
    if asked_at is not None:
        mine = first if is_manual else second
        request = Pending(mine, asked_at, asked_at, Kind.TRIGGERED, origin=mine)
    due_at = moment_of(known("due_at"))
    if is_manual and request is not None:
        request = _pending(record, request, due_at, None)
    elif scheduled is not None:
        # A pause held back the retry, too, and had its own end for the due moment.
        waits_for_pause = is_paused and asked_at is None
        scheduled = _pending(record, scheduled, None if waits_for_pause else due_at, paused_at)

    gaps: tuple[Gap, ...] = ()
    backlog = known("backlog")
    if scheduled is not None and backlog is not None:
        ended, coalesced, _, last = backlog
        since, end = moment_of(last) or scheduled.scheduled_at, decode_moment(ended)
        scheduled = evolve(scheduled, coalesced=count(coalesced), coalesced_until=moment_of(last))
        gaps = (Gap(since, end),) if since < end else ()

    given = [one.number for one in (scheduled, request) if one is not None]
    last_number = max([*given, number - 1, count(record.get("closed", 0))])
    pause = None
    if is_paused:
        # It held back no trigger, whenever that came.
        held_back = last_number if request is None else min(request.number - 1, last_number)
        since = paused_at or decode_moment(record["anchor"])
        until, reason = moment_of(known("paused_until")), maybe(str, known("pause_reason"))
        pause = Pause(since, held_back, until, reason)
    status = known("last_status")
    found = Standing(
        last_number,
        scheduled,
        None,
        () if request is None else (request,),
        pause,
        gaps,
        skip=moment_of(known("skipped_run")),
        last_scheduled_at=moment_of(known("last_scheduled_at")),
        last_finished_at=moment_of(known("last_finished_at")),
        last_status=None if status is None else STATUSES[status],
        expires_at=moment_of(known("expires_at")),
    )
    one = current(found)
    ends = None if pause is None else pause.until
    return evolve(found, due_at=ends if one is None else one.due_at)


def _pending(
    record: Mapping[str, Any], one: Pending, due_at: datetime | None, paused_at: datetime | None
) -> Pending:
    """Return the occurrence that the standing's counts are about, with what lost claims cost it."""
    known = record["standing"].get
    lost = _lost(record, one.number)
    attempts, failures = count(known("attempts", 0)) + lost, count(known("failures", 0))
    due_at = one.due_at if due_at is None else due_at
    began_at = None
    if attempts:
        # Nothing says when: a retry covered what had passed until it was due.
        began_at = max(one.scheduled_at, paused_at or due_at)
    return evolve(
        one, due_at=due_at, attempts=attempts, failures=failures, lost=lost, began_at=began_at
    )


def _lost(record: Mapping[str, Any], number: int) -> int:
    """Return how many claims of an occurrence of the stored job were lost in a row."""
    hold, released, uid = record.get("hold"), record.get("released"), record["uid"]
    if hold is not None:
        was = _was(hold)
        if was is None or (was.uid, was.number) == (uid, number):
            return _lost_before(hold)
    elif released is not None:
        whose, of, lost, _, _ = released
        if (whose, of) == (uid, number):
            return count(lost)
    return 0


def _lost_before(hold: Mapping[str, Any]) -> int:
    lost = hold.get("lost")
    return 0 if lost is None else count(lost[0])


def _was(hold: Mapping[str, Any]) -> _Was | None:
    was = hold.get("was")
    if was is None:
        return None
    uid, number, attempts, at, manual, keep = was
    return _Was(
        exactly(str, uid),
        count(number),
        count(attempts),
        moment_of(at),
        exactly(bool, manual),
        None if keep is None else decode_duration(keep),
    )


def _is_held_as_scheduled(record: Mapping[str, Any], number: int) -> bool:
    hold = record.get("hold")
    was = None if hold is None else _was(hold)
    return was is not None and (was.uid, was.number, was.manual) == (record["uid"], number, False)


def hold_of(record: Mapping[str, Any], job_id: str, job: Job | None) -> Hold:
    """Return the hold of a record; raises whatever its fields make of it.

    Args:
        record: Its fields.
        job_id: The id of the job.
        job: The job, with the standing of :func:`standing_of`; ``None`` for a removed one.
    """
    hold = checked(record["hold"], _HOLD)
    was, claimed_at = _was(hold), decode_moment(hold["at"])
    one: Pending | None
    if was is not None:
        uid, keep, one = was.uid, was.keep, _held(was, _lost_before(hold), claimed_at)
    elif job is not None:
        standing = job.standing
        uid, keep = job.uid, kept(job.spec.policy)
        ends_pause = standing.pause is not None and not standing.requests
        one = None if ends_pause else standing.find(count(record["standing"]["number"]))
    else:
        raise ValueError("nothing says what is held")
    return Hold(
        job_id,
        uid,
        exactly(int, hold["token"]),
        exactly(str, hold["worker"]),
        claimed_at,
        claimed_at,
        decode_moment(hold["until"]),
        one,
        keep,
    )


def _held(was: _Was, lost: int, claimed_at: datetime) -> Pending:
    at, attempts = was.at or claimed_at, was.attempts + lost
    return Pending(
        was.number,
        at,
        at,
        Kind.TRIGGERED if was.manual else Kind.SCHEDULED,
        attempts,
        lost=lost,
        began_at=at if attempts else None,
        origin=was.number if was.manual else 0,
    )


def doubtful_of(record: Mapping[str, Any]) -> int:
    """Return up to which number executions may be stored that the standing gives no account of.

    An edit could end an occurrence ahead of the pending one, and a claim that ended without a word
    could forget what had been lost of it before.
    """
    standing, hold = record.get("standing"), record.get("hold")
    was = None if hold is None else _was(hold)
    numbers = [count(record.get("closed", 0)), 0 if was is None else was.number]
    return max(numbers if standing is None else [*numbers, count(standing["number"])])


def execution_of(body: bytes) -> bytes:
    """Return the body of an execution as it is written now; any other one as it is."""
    if b'"manual":' not in body:
        return body
    try:
        fields = json.loads(body)
        if not isinstance(fields, dict) or "kind" in fields:
            return body
        manual = exactly(bool, fields.pop("manual"))
        fields["kind"] = (Kind.TRIGGERED if manual else Kind.SCHEDULED).value
        for old, new in (("folded", "coalesced"), ("folded_until", "coalesced_until")):
            if old in fields:
                fields[new] = fields.pop(old)
        return json.dumps(fields, ensure_ascii=False).encode()
    except (KeyError, TypeError, ValueError, RecursionError):
        return body  # the decoder says what is wrong with it
