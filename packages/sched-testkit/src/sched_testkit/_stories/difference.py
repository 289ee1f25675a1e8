"""Says what an answer has that was not expected, and nothing more."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Any

import attrs

from sched_core import Execution


class Differs(AssertionError):
    """The backend's answer is none that the model allows."""


Differs.__module__ = "sched_testkit"


def expect(said: bool, otherwise: str) -> None:
    """Raise where the backend says something else."""
    if not said:
        raise Differs(otherwise)


def same(expected: Any, got: Any, what: str) -> None:
    """Raise where the backend shows something else, and say what differs and nothing more."""
    if type(expected) is not type(got) or expected != got:
        raise Differs(f"{what}: {'; '.join(differences(expected, got))}")


def differences(expected: Any, got: Any, path: str = "") -> Iterator[str]:
    """Say field by field what differs."""
    if type(expected) is type(got) and attrs.has(type(expected)):
        for name in (field.name for field in attrs.fields(type(expected))):
            one, other = getattr(expected, name), getattr(got, name)
            if one != other:
                yield from differences(one, other, f"{path}.{name}".lstrip("."))
    elif isinstance(expected, list) and isinstance(got, list) and len(expected) == len(got):
        for place, (one, other) in enumerate(zip(expected, got, strict=True)):
            if one != other:
                yield from differences(one, other, f"{path}[{place}]")
    else:
        yield f"{path or 'all'} expected {_short(expected)}, got {_short(got)}"


def _short(value: Any) -> str:
    if isinstance(value, list):
        return f"[{', '.join(_short(one) for one in value)}]"
    if isinstance(value, Execution):
        return f"{value.job_id} {value.number}.{value.attempt} {value.status.value}"
    return value.isoformat() if isinstance(value, datetime) else repr(value)
