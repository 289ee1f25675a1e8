"""Moments as columns: whole microseconds since 1970, and what a column may hold instead."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Any

Row = tuple[Any, ...]
"""Values of columns."""

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)
EARLIEST = (datetime.min.replace(tzinfo=UTC) - EPOCH) // MICROSECOND
LATEST = (datetime.max.replace(tzinfo=UTC) - EPOCH) // MICROSECOND
"""The first and last moments that a column may hold."""
MOST = 2**60
"""The most that a number which only grows can reach; this package writes nothing above it."""


def micros(moment: datetime) -> int:
    """Return a moment as whole microseconds since 1970."""
    return (moment - EPOCH) // MICROSECOND


def micros_or_none(moment: datetime | None) -> int | None:
    """Return a moment as whole microseconds since 1970, ``None`` for none."""
    return None if moment is None else (moment - EPOCH) // MICROSECOND


def moment(number: int) -> datetime:
    """Return the moment that many microseconds after 1970."""
    return EPOCH + MICROSECOND * number


def moment_or_none(number: int | None) -> datetime | None:
    """Return the moment that many microseconds after 1970, ``None`` for none."""
    return None if number is None else EPOCH + MICROSECOND * number


def moment_if_any(value: Any) -> datetime | None:
    """Return the moment of a column, ``None`` where it holds none."""
    return moment(value) if type(value) is int and EARLIEST <= value <= LATEST else None


def nearest_moment(number: int) -> datetime:
    """Return the moment that many microseconds after 1970, or the first or last there is."""
    return moment(min(max(number, EARLIEST), LATEST))


# -- conditions in a statement


def no_moment(column: str, is_whole: str) -> str:
    """Return a condition that a column holds something, and no moment.

    Args:
        column: Its name.
        is_whole: Condition on a column that it is a whole number, in the words of the dialect.
    """
    within = f"{is_whole.format(column)} AND {column} BETWEEN {EARLIEST} AND {LATEST}"
    return f"({column} IS NOT NULL AND NOT ({within}))"


def quoted(texts: Iterable[str | None]) -> str:
    """Return constants as a list in a statement."""
    return ", ".join(f"'{text}'" for text in texts if text is not None)
