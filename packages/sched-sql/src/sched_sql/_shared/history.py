"""Rows of executions ⇄ values, also where they make no sense."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from sched_core import Execution, Kind, Status, UndecodableExecution, codec
from sched_core._model.execution import DEFAULT_QUEUE
from sched_core._support.texts import storable
from sched_core.row import bounded
from sched_sql._shared.holds import progress_text, read_progress
from sched_sql._shared.moments import (
    EPOCH,
    MICROSECOND,
    MOST,
    Row,
    moment,
    moment_if_any,
    moment_or_none,
    no_moment,
    quoted,
)

EXECUTION_COLUMNS = (
    "job_id, uid, number, attempt, kind, scheduled_at, status, final, token, worker, claimed_at, "
    "started_at, finished_at, reason, coalesced, coalesced_until, snoozes, expires_at, queue, "
    "traceback, log, progress, metadata, actor, args"
)
EXECUTION_NAMES = tuple(EXECUTION_COLUMNS.split(", "))
RARE = EXECUTION_NAMES.index("queue")
"""The place of the first of the columns that are NULL for nearly every execution. The queue is NULL
where it is the default one, as in rows that are older than queues."""
RARE_NAMES = EXECUTION_NAMES[RARE:]

# Tables, because an enumeration's own look-ups take as long as a column does to be written.
_STATUS_TEXTS = {status: status.value for status in Status}
_KIND_TEXTS = {kind: kind.value for kind in Kind}

STATUSES, KINDS = tuple(_STATUS_TEXTS.values()), tuple(_KIND_TEXTS.values())
"""What the columns ``status`` and ``kind`` hold."""

_WHOLE, _TEXT, _FLAG = frozenset({int}), frozenset({str}), frozenset({int, bool})
_NONE = frozenset({type(None)})
_TYPES: dict[str, frozenset[type]] = dict.fromkeys(EXECUTION_NAMES, _WHOLE) | {
    **dict.fromkeys(("job_id", "uid", "kind", "status", "worker"), _TEXT),
    "final": _FLAG,
    **dict.fromkeys(("started_at", "coalesced_until", "expires_at"), _WHOLE | _NONE),
    **dict.fromkeys(("reason", *RARE_NAMES), _TEXT | _NONE),
}
_MOMENTS = ("scheduled_at", "claimed_at", "started_at", "coalesced_until", "expires_at")
_NUMBERS = ("number", "attempt", "final", "token", "coalesced", "snoozes")


def execution_values(one: Execution) -> Row:
    """Return the values of ``EXECUTION_COLUMNS``."""
    started_at, reason = one.started_at, one.reason
    coalesced_until, expires_at = one.coalesced_until, one.expires_at
    queue, traceback, log = one.queue, one.traceback, one.log
    progress, metadata = one.progress, one.metadata
    return (
        one.job_id,
        one.uid,
        one.number,
        one.attempt,
        _KIND_TEXTS[one.kind],
        (one.scheduled_at - EPOCH) // MICROSECOND,
        _STATUS_TEXTS[one.status],
        one.final,
        one.token,
        one.worker,
        (one.claimed_at - EPOCH) // MICROSECOND,
        None if started_at is None else (started_at - EPOCH) // MICROSECOND,
        (one.finished_at - EPOCH) // MICROSECOND,
        None if reason is None else bounded(reason),
        one.coalesced,
        None if coalesced_until is None else (coalesced_until - EPOCH) // MICROSECOND,
        one.snoozes,
        None if expires_at is None else (expires_at - EPOCH) // MICROSECOND,
        None if queue == DEFAULT_QUEUE else queue,
        None if traceback is None else storable(traceback),
        None if log is None else storable(log),
        progress_text(progress),
        None if metadata is None else codec.encode_metadata(metadata),
        one.actor,
        None if one.args is None else codec.encode_arguments(one.args),
    )


def named(execution_id: str) -> tuple[str, int, int] | None:
    """Return uid, number and attempt of an execution's id; ``None`` for what is no such id."""
    try:
        uid, number, attempt = execution_id.rsplit(":", 2)
        return uid, int(number), int(attempt)
    except ValueError:
        return None


def position_named(execution_id: str) -> tuple[tuple[str, int, int] | None, int | None]:
    """Return what :func:`named` does, or the ``seq`` by which one is named that cannot be read."""
    name = named(execution_id) if can_be_stored(execution_id) else None
    if name is not None:
        return (name if max(name[1:]) < MOST and min(name[1:]) > -MOST else None), None
    kind, _, seq = execution_id.partition(":")
    told = kind == "seq" and seq.isascii() and seq.isdecimal() and int(seq) < MOST
    return None, int(seq) if told else None


def can_be_stored(text: str) -> bool:
    """Whether a text can be in a column, or else is nowhere."""
    return _is_text(text) and "\0" not in text


def read_execution(row: Sequence[Any]) -> Execution | UndecodableExecution:
    """Return the record of ``EXECUTION_COLUMNS`` and ``seq``, or why it cannot be read.

    The bytes of one that cannot be read are a JSON object of these columns by name. Bytes are in
    it as ``{"hex": "…"}``; text that is no UTF-8 has a lone surrogate for each byte that is not.
    """
    try:
        return _execution(row)
    except (ValueError, OverflowError) as error:
        return _undecodable(row, f"the row makes no sense: {error}"[:500])


def _execution(row: Sequence[Any]) -> Execution:
    job_id, uid, number, attempt, kind, scheduled_at, status, final, token, worker = row[:10]
    claimed_at, started_at, finished_at, reason, coalesced, coalesced_until = row[10:16]
    snoozes, expires_at, queue, traceback, log, progress, metadata, actor, args = row[16:25]
    for name, value in zip(EXECUTION_NAMES, row, strict=False):
        if type(value) not in _TYPES[name]:
            raise ValueError(f"{name} is {value!r}")
    if final not in (0, 1):
        raise ValueError(f"final is {final!r}")
    for text in (job_id, uid, worker, reason, queue, traceback, log, actor):
        (text or "").encode()  # or it is what a lenient reader made of bytes
    return Execution(
        f"{uid}:{number}:{attempt}",
        job_id,
        uid,
        number,
        attempt,
        Kind(kind),
        moment(scheduled_at),
        Status(status),
        final == 1,
        token,
        worker,
        moment(claimed_at),
        moment_or_none(started_at),
        moment(finished_at),
        reason,
        coalesced,
        moment_or_none(coalesced_until),
        snoozes,
        moment_or_none(expires_at),
        DEFAULT_QUEUE if queue is None else queue,
        traceback,
        log,
        read_progress(progress),
        None if metadata is None else codec.decode_metadata(metadata),
        actor,
        None if args is None else codec.decode_arguments(args),
    )


def _undecodable(row: Sequence[Any], reason: str) -> UndecodableExecution:
    columns = dict(zip((*EXECUTION_NAMES, "seq"), row, strict=True))
    job_id, uid, number, attempt = row[:4]
    told = _is_text(uid) and type(number) is int and type(attempt) is int
    return UndecodableExecution(
        f"{uid}:{number}:{attempt}" if told else f"seq:{columns['seq']}",
        job_id if _is_text(job_id) else "",
        reason,
        json.dumps(columns, default=_in_words).encode(),
        moment_if_any(columns["finished_at"]),
        moment_if_any(columns["expires_at"]),
    )


def _is_text(value: object) -> bool:
    return type(value) is str and not any("\ud800" <= letter <= "\udfff" for letter in value)


def _in_words(value: object) -> object:
    return {"hex": value.hex()} if isinstance(value, bytes) else repr(value)


def unsound_execution(is_whole: str = "true") -> str:
    """Return a condition that most rows meet that cannot be read; see ``rows.unsound_job``."""
    strange = [
        f"status NOT IN ({quoted(_STATUS_TEXTS.values())})",
        f"kind NOT IN ({quoted(_KIND_TEXTS.values())})",
    ]
    strange += [no_moment(name, is_whole) for name in _MOMENTS]
    strange += [f"NOT {is_whole.format(name)}" for name in _NUMBERS]
    return f"({' OR '.join(strange)} OR {no_age(is_whole)})"


def no_age(is_whole: str = "true") -> str:
    """Return a condition that a record does not tell when its execution finished."""
    return f"(finished_at IS NULL OR {no_moment('finished_at', is_whole)})"
