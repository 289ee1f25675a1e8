"""The smallest parts of what is stored: moments, durations, objects of named fields.

Moments are ISO 8601 in UTC, durations numbers of seconds, both exact to the microsecond.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from sched_core.errors import SchedError


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
