"""The part of a record that runs, operators and claims change, as fields of JSON. Pure.

What has its default is left out, and what is not known is refused: a record that uses nothing new
stays readable by older versions, and no record is read in part. So a field can be added without a
new format.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from itertools import starmap
from math import isfinite
from typing import Any, TypeVar

from sched_core import CancelMark, Gap, Hold, Job, Kind, Pause, Pending, Progress, Standing, Status
from sched_core.codec import (
    decode_duration,
    decode_moment,
    decode_moments,
    encode_duration,
    encode_moment,
    encode_moments,
)
from sched_core.row import current, kept
from sched_jetstream._model.subjects import DEFAULT

T = TypeVar("T")

MOST = 2**60
"""Numbers that only grow stay below it, in whatever time; what is above was not written here."""

Fields = dict[str, Any]

# Tables, because an enumeration's own look-ups take as long as a field does to be written.
_KINDS = {kind.value: kind for kind in Kind}
_KIND_TEXTS = {kind: kind.value for kind in Kind}
STATUSES = {status.value: status for status in Status}
_STATUS_TEXTS = {status: status.value for status in Status}


# -- occurrences -------------------------------------------------------------


def encode_pending(one: Pending) -> Fields:
    """Return the fields of an occurrence."""
    fields: Fields = {"n": one.number, "at": encode_moment(one.scheduled_at)}
    if one.due_at != one.scheduled_at:
        fields["due"] = encode_moment(one.due_at)
    if one.attempts:
        fields["attempts"] = one.attempts
    if one.failures:
        fields["failures"] = one.failures
    if one.lost:
        fields["lost"] = one.lost
    if one.snoozes:
        fields["snoozes"] = one.snoozes
    if one.began_at is not None:
        fields["began"] = encode_moment(one.began_at)
    if one.coalesced:
        fields["coalesced"] = one.coalesced
    if one.coalesced_until is not None:
        fields["coalesced_until"] = encode_moment(one.coalesced_until)
    if one.kind is Kind.SCHEDULED:
        origin = 0
    else:
        origin, fields["kind"] = one.number, _KIND_TEXTS[one.kind]
    if one.origin != origin:
        fields["origin"] = one.origin
    if one.key is not None:
        fields["key"] = one.key
    if one.until is not None:
        fields["until"] = encode_moment(one.until)
    if one.args is not None:
        fields["args"] = dict(one.args)
    if one.derived_from:
        fields["derived_from"] = one.derived_from
    if one.retry_at is not None:
        fields["retry"] = encode_moment(one.retry_at)
    if one.actor is not None:
        fields["actor"] = one.actor
    if one.moments:
        fields["moments"] = encode_moments(one.moments)
    return fields


_PENDING = frozenset(
    (
        *("n", "at", "due", "attempts", "failures", "lost", "snoozes", "began", "coalesced"),
        *("coalesced_until", "kind", "origin", "key", "until", "args", "derived_from", "retry"),
        *("actor", "moments"),
    )
)


def decode_pending(fields: Fields) -> Pending:
    """Return the occurrence of such fields; raises whatever they make of it."""
    known = checked(fields, _PENDING).get
    number, at = count(fields["n"]), decode_moment(fields["at"])
    if len(fields) == 2:
        return Pending(number, at, at)
    kind = _KINDS[known("kind", "scheduled")]
    return Pending(
        number,
        at,
        decode_moment(fields["due"]) if "due" in fields else at,
        kind,
        count(known("attempts", 0)),
        count(known("failures", 0)),
        count(known("lost", 0)),
        count(known("snoozes", 0)),
        moment_of(known("began")),
        count(known("coalesced", 0)),
        moment_of(known("coalesced_until")),
        maybe(str, known("key")),
        count(known("origin", 0 if kind is Kind.SCHEDULED else number)),
        moment_of(known("until")),
        _texts(known("args")),
        exactly(str, known("derived_from", "")),
        moment_of(known("retry")),
        maybe(str, known("actor")),
        decode_moments(fields["moments"]) if "moments" in fields else (),
    )


def _texts(value: Any) -> Mapping[str, str] | None:
    if value is None:
        return None
    if not isinstance(value, dict) or not all(type(each) is str for each in value.values()):
        raise ValueError("arguments must map strings to strings")
    return value


# -- the standing ------------------------------------------------------------


def encode_standing(standing: Standing) -> Fields:
    """Return the fields of a standing."""
    fields: Fields = {"last": standing.last_number}
    scheduled, due_at = standing.scheduled, standing.due_at
    if scheduled is not None:
        fields["scheduled"] = encode_pending(scheduled)
    if due_at != (None if scheduled is None else scheduled.due_at):
        fields["due"] = _optional(due_at)
    if standing.requests:
        fields["requests"] = [encode_pending(one) for one in standing.requests]
    if standing.pause is not None:
        fields["pause"] = _encode_pause(standing.pause)
    if standing.gaps:
        fields["gaps"] = [
            [encode_moment(gap.since), encode_moment(gap.end)] for gap in standing.gaps
        ]
    if standing.cancels:
        fields["cancels"] = [_encode_mark(mark) for mark in standing.cancels]
    if standing.failing:
        fields["failing"] = standing.failing
    for name in _MOMENTS:
        moment = getattr(standing, name)
        if moment is not None:
            fields[name] = encode_moment(moment)
    if standing.last_status is not None:
        fields["last_status"] = _STATUS_TEXTS[standing.last_status]
    if standing.skip_actor is not None:
        fields["skip_actor"] = standing.skip_actor
    return fields


_MOMENTS = ("spare", "skip", "last_scheduled_at", "last_finished_at", "expires_at")
_STANDING = frozenset(
    (
        *("last", "scheduled", "due", "requests", "pause", "gaps", "cancels", "failing"),
        *("last_status", "skip_actor", *_MOMENTS),
    )
)


def decode_standing(fields: Fields) -> Standing:
    """Return the standing of such fields; raises whatever they make of it."""
    known = checked(fields, _STANDING).get
    scheduled = decode_pending(fields["scheduled"]) if "scheduled" in fields else None
    due_at = None if scheduled is None else scheduled.due_at
    pause, status = known("pause"), known("last_status")
    return Standing(
        count(fields["last"]),
        scheduled,
        moment_of(fields["due"]) if "due" in fields else due_at,
        tuple(map(decode_pending, fields["requests"])) if "requests" in fields else (),
        None if pause is None else _decode_pause(pause),
        tuple(starmap(_gap, fields["gaps"])) if "gaps" in fields else (),
        moment_of(known("spare")),
        moment_of(known("skip")),
        tuple(map(_decode_mark, fields["cancels"])) if "cancels" in fields else (),
        count(known("failing", 0)),
        moment_of(known("last_scheduled_at")),
        moment_of(known("last_finished_at")),
        None if status is None else STATUSES[status],
        moment_of(known("expires_at")),
        maybe(str, known("skip_actor")),
    )


def _encode_mark(mark: CancelMark) -> Fields:
    fields: Fields = {"n": mark.number}
    if mark.reason is not None:
        fields["reason"] = mark.reason
    if mark.actor is not None:
        fields["actor"] = mark.actor
    return fields


_MARK = frozenset(("n", "reason", "actor"))


def _decode_mark(fields: Fields) -> CancelMark:
    known = checked(fields, _MARK).get
    return CancelMark(count(fields["n"]), maybe(str, known("reason")), maybe(str, known("actor")))


def _gap(since: Any, end: Any) -> Gap:
    return Gap(decode_moment(since), decode_moment(end))


def _encode_pause(pause: Pause) -> Fields:
    fields: Fields = {"since": encode_moment(pause.since), "last": pause.last_number}
    if pause.until is not None:
        fields["until"] = encode_moment(pause.until)
    if pause.reason is not None:
        fields["reason"] = pause.reason
    if pause.actor is not None:
        fields["actor"] = pause.actor
    return fields


_PAUSE = frozenset(("since", "last", "until", "reason", "actor"))


def _decode_pause(fields: Fields) -> Pause:
    known = checked(fields, _PAUSE).get
    return Pause(
        decode_moment(fields["since"]),
        count(fields["last"]),
        moment_of(known("until")),
        maybe(str, known("reason")),
        maybe(str, known("actor")),
    )


# -- the hold ----------------------------------------------------------------


def is_of(hold: Hold, job: Job | None) -> bool:
    """Whether a hold is for what a claim of the job, as it is stored, is for.

    It is until an edit has changed that. Then the hold must say itself what it is for.
    """
    if job is None or job.uid != hold.uid:
        return False
    one = current(job.standing)
    return (one is hold.pending or one == hold.pending) and hold.keep == kept(job.spec.policy)


def encode_hold(hold: Hold, job: Job | None) -> Fields:
    """Return the fields of a hold that is stored with the job."""
    fields: Fields = {
        "token": hold.token,
        "worker": hold.worker,
        "at": encode_moment(hold.claimed_at),
        "until": encode_moment(hold.expires_at),
    }
    if hold.renewed_at != hold.claimed_at:
        fields["renewed"] = encode_moment(hold.renewed_at)
    if hold.alone_at is not None:
        fields["alone"] = encode_moment(hold.alone_at)
    if hold.queue != _queue_of(job):
        fields["queue"] = hold.queue
    if hold.progress is not None:
        fields["progress"] = _encode_progress(hold.progress)
    if hold.cancel is not None or not is_of(hold, job):
        fields["was"] = {
            "uid": hold.uid,
            "keep": None if hold.keep is None else encode_duration(hold.keep),
            "pending": None if hold.pending is None else encode_pending(hold.pending),
        }
        if hold.cancel is not None:
            fields["was"]["cancel"] = _encode_mark(hold.cancel)
    return fields


_HOLD = frozenset(
    ("token", "worker", "at", "until", "renewed", "alone", "queue", "progress", "was")
)
_WAS = frozenset(("uid", "keep", "pending", "cancel"))


def decode_hold(fields: Fields, job_id: str, job: Job | None) -> Hold:
    """Return the hold of such fields; raises whatever they make of it."""
    known = checked(fields, _HOLD).get
    was, mark = known("was"), None
    if was is not None:
        checked(was, _WAS)
        uid, keep, one = exactly(str, was["uid"]), was["keep"], was["pending"]
        mark = _decode_mark(was["cancel"]) if "cancel" in was else None
        keep = None if keep is None else decode_duration(keep)
        one = None if one is None else decode_pending(one)
    elif job is not None:
        uid, keep, one = job.uid, kept(job.spec.policy), current(job.standing)
    else:
        raise ValueError("nothing says what is held")
    at, progress = decode_moment(fields["at"]), known("progress")
    return Hold(
        job_id,
        uid,
        exactly(int, fields["token"]),
        exactly(str, fields["worker"]),
        at,
        decode_moment(fields["renewed"]) if "renewed" in fields else at,
        decode_moment(fields["until"]),
        one,
        keep,
        moment_of(known("alone")),
        exactly(str, fields["queue"]) if "queue" in fields else _queue_of(job),
        None if progress is None else _decode_progress(progress),
        mark,
    )


def _queue_of(job: Job | None) -> str:
    """Return the queue of a hold that names none: it was not edited since."""
    return DEFAULT if job is None else job.spec.queue


def _encode_progress(progress: Progress) -> Fields:
    fields: Fields = {"done": progress.done}
    if progress.of is not None:
        fields["of"] = progress.of
    if progress.text is not None:
        fields["text"] = progress.text
    if progress.at is not None:
        fields["at"] = encode_moment(progress.at)
    return fields


_PROGRESS = frozenset(("done", "of", "text", "at"))


def _decode_progress(fields: Fields) -> Progress:
    known = checked(fields, _PROGRESS).get
    of = known("of")
    return Progress(
        _amount(fields["done"]),
        None if of is None else _amount(of),
        maybe(str, known("text")),
        moment_of(known("at")),
    )


def _amount(value: Any) -> float:
    if type(value) not in (int, float) or not isfinite(value):
        raise ValueError(f"{value!r} is no amount")
    return value  # type: ignore[no-any-return]  # as checked


# -- the smallest parts ------------------------------------------------------


def checked(fields: Any, names: frozenset[str]) -> Fields:
    """Refuse what is no object, or has fields that are not known here."""
    if not isinstance(fields, dict):
        raise TypeError(f"must be an object, not {fields!r}")
    if not fields.keys() <= names:
        raise ValueError(f"unknown: {sorted(fields.keys() - names)}")
    return fields


def exactly(kind: type[T], value: Any) -> T:
    """Refuse what only fails later, on the way of some other job."""
    if type(value) is not kind:
        raise TypeError(f"must be {kind.__name__}, not {value!r}")
    return value


def maybe(kind: type[T], value: Any) -> T | None:
    """Return a value of the kind, or none."""
    return None if value is None else exactly(kind, value)


def count(value: Any) -> int:
    """Refuse what nothing has counted to."""
    if type(value) is not int or not 0 <= value < MOST:
        raise ValueError(f"{value!r} is no count")
    return value


def moment_of(text: str | None) -> datetime | None:
    """Return a moment, or none."""
    return None if text is None else decode_moment(text)


def _optional(moment: datetime | None) -> str | None:
    return None if moment is None else encode_moment(moment)
