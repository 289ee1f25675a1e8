"""The smallest parts of what is stored: moments, durations, objects of named fields.

Moments are ISO 8601 in UTC, durations numbers of seconds, both exact to the microsecond.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from itertools import groupby, pairwise
from typing import Any

from sched_core.errors import SchedError

_TICK = timedelta(microseconds=1)


class Malformed(SchedError, ValueError):
    """A stored value that cannot be understood although its header is fine: it is left as it is."""


class Reading:
    """Turn every error in reading a stored value into :class:`Malformed`; a context manager."""

    __slots__ = ("part",)

    def __init__(self, part: str) -> None:
        self.part = part

    def __enter__(self) -> None:
        return

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, Exception):
            text = f"{type(error).__name__}: {error}"[:500]
            raise Malformed(f"the {self.part} is malformed: {text}") from error


def encode_moment(moment: datetime) -> str:
    """Return a moment in ISO 8601, in UTC."""
    return moment.astimezone(UTC).isoformat()[:-6] + "Z"


def decode_moment(value: Any) -> datetime:
    """Return the moment of an ISO 8601 text that names its offset."""
    if type(value) is not str:
        raise ValueError(f"a moment must be ISO 8601 text, not {value!r}")
    moment = datetime.fromisoformat(value)
    if moment.tzinfo is None:
        raise ValueError(f"the moment {value!r} names no offset from UTC")
    return moment.astimezone(UTC)


def encode_duration(duration: timedelta) -> float | str:
    """Return seconds: a number, or its digits where no float is exact to the microsecond."""
    whole, rest = divmod(duration, timedelta(seconds=1))
    if not rest:
        return whole
    if abs(whole) < 2**32:  # 136 years: floats lie closer together than microseconds
        return duration.total_seconds()
    return f"{whole}.{rest.microseconds:06}"


def decode_duration(value: Any) -> timedelta:
    """Return the duration of a number of seconds."""
    if type(value) is str:
        whole, _, rest = value.partition(".")
        return timedelta(seconds=int(whole), microseconds=int(rest))
    if type(value) is not int and type(value) is not float:
        raise ValueError(f"a duration must be a number of seconds, not {value!r}")
    return timedelta(seconds=value)


MOST_MOMENTS = 10_000
"""The most moments that one text may hold."""


def encode_moments(moments: Sequence[datetime]) -> str:
    """Return moments in order as a short text: the first, a unit, and the steps from each to each.

    Steps are counted in the largest unit that divides all of them; of equal ones in a row there is
    one, with their number: ``2026-01-01T00:00:00Z 3600000000 1*23,25``.
    """
    if not moments:
        return ""
    steps = [(later - moment) // _TICK for moment, later in pairwise(moments)]
    unit = math.gcd(*steps) or 1
    runs = ((step // unit, sum(1 for _ in run)) for step, run in groupby(steps))
    told = ",".join(f"{step}*{count}" if count > 1 else f"{step}" for step, count in runs)
    return f"{encode_moment(moments[0])} {unit} {told}"


def decode_moments(text: Any) -> tuple[datetime, ...]:
    """Return the moments of a text that :func:`encode_moments` made.

    Raises:
        ValueError: The text is none, or has more than 10,000 moments.
    """
    if type(text) is not str:
        raise ValueError(f"moments must be a text, not {text!r}")
    if not text:
        return ()
    first, unit, told = text.split(" ")
    tick, moments = int(unit) * _TICK, [decode_moment(first)]
    for run in told.split(",") if told else ():
        step, _, times = run.partition("*")
        count = int(times) if times else 1
        if len(moments) + count > MOST_MOMENTS:
            raise ValueError(f"more than {MOST_MOMENTS} moments")
        for _ in range(count):
            moments.append(moments[-1] + int(step) * tick)
    return tuple(moments)


def fields_of(value: Any, required: str, optional: str = "") -> dict[str, Any]:
    """Return a stored object, checked to have these fields and no other.

    Args:
        value: What was read.
        required: Names of fields that must be there, with spaces between.
        optional: Names of fields that may be there.

    Raises:
        TypeError: The value is no object.
        ValueError: A field is missing or unknown.
    """
    if not isinstance(value, dict):
        raise TypeError(f"must be an object, not {value!r}")
    missing = set(required.split()) - value.keys()
    unknown = value.keys() - set(required.split()) - set(optional.split())
    if missing or unknown:
        raise ValueError(f"missing: {sorted(missing)}, unknown: {sorted(unknown)}")
    return value
