"""Rows of the history → values, also where they make no sense."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from sched_core.job import Execution, Status
from sched_core.ports import UndecodableExecution
from sched_sql.rows import (
    LEDGER_COLUMNS,
    moment,
    moment_if_any,
    moment_or_none,
    no_moment,
    quoted,
)

_NAMES = tuple(name.strip() for name in LEDGER_COLUMNS.split(","))
_WHOLE, _TEXT, _FLAG = frozenset({int}), frozenset({str}), frozenset({int, bool})
_NONE = frozenset({type(None)})
_TYPES: dict[str, frozenset[type]] = dict.fromkeys(_NAMES, _WHOLE) | {
    **dict.fromkeys(("job_id", "uid", "status", "worker"), _TEXT),
    **dict.fromkeys(("manual", "final"), _FLAG),
    **dict.fromkeys(("started_at", "folded_until", "expires_at"), _WHOLE | _NONE),
    "reason": _TEXT | _NONE,
}
_MOMENTS = ("scheduled_at", "claimed_at", "started_at", "folded_until", "expires_at")
_NUMBERS = ("number", "attempt", "manual", "final", "token", "folded")


def read_execution(row: Sequence[Any]) -> Execution | UndecodableExecution:
    """Return the record of the values of ``LEDGER_COLUMNS`` and ``seq``, or why it cannot be read.

    The bytes of one that cannot be read are a JSON object of these columns by name. Bytes are in
    it as ``{"hex": "…"}``; text that is no UTF-8 has a lone surrogate for each byte that is not.
    """
    try:
        return _execution(row)
    except (ValueError, OverflowError) as error:
        return _undecodable(row, f"the row makes no sense: {error}"[:500])


def _execution(row: Sequence[Any]) -> Execution:
    job_id, uid, number, attempt, scheduled_at, manual, status, final, token, worker = row[:10]
    claimed_at, started_at, finished_at, reason, folded, folded_until, expires_at = row[10:17]
    for name, value in zip(_NAMES, row, strict=False):
        if type(value) not in _TYPES[name]:
            raise ValueError(f"{name} is {value!r}")
    if manual not in (0, 1) or final not in (0, 1):
        raise ValueError(f"manual is {manual!r}, final is {final!r}")
    for text in (job_id, uid, worker, reason or ""):
        text.encode()  # or it is what a lenient reader made of bytes
    return Execution(
        f"{uid}:{number}:{attempt}",
        job_id,
        uid,
        number,
        moment(scheduled_at),
        manual == 1,
        attempt,
        Status(status),
        final == 1,
        token,
        worker,
        moment(claimed_at),
        moment_or_none(started_at),
        moment(finished_at),
        reason,
        folded,
        moment_or_none(folded_until),
        moment_or_none(expires_at),
    )


def _undecodable(row: Sequence[Any], reason: str) -> UndecodableExecution:
    columns = dict(zip((*_NAMES, "seq"), row, strict=True))
    job_id, uid, number, attempt = row[:4]
    named = _is_text(uid) and type(number) is int and type(attempt) is int
    return UndecodableExecution(
        f"{uid}:{number}:{attempt}" if named else f"seq:{columns['seq']}",
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


def odd_execution(is_whole: str = "true") -> str:
    """Return a condition that most rows meet that cannot be read; see ``rows.odd_job``."""
    strange = [f"status NOT IN ({quoted(status.value for status in Status)})"]
    strange += [no_moment(name, is_whole) for name in _MOMENTS]
    strange += [f"NOT {is_whole.format(name)}" for name in _NUMBERS]
    return f"({' OR '.join(strange)} OR {no_age(is_whole)})"


def no_age(is_whole: str = "true") -> str:
    """Return a condition that nobody can tell when a record ended."""
    return f"(finished_at IS NULL OR {no_moment('finished_at', is_whole)})"
