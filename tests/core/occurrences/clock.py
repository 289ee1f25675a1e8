"""The first moment of a world's clock, and how people read it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

T0 = datetime(2026, 1, 1, tzinfo=UTC)
M = timedelta(minutes=1)


def at(moment: datetime | None) -> float | None:
    """Return minutes: what people read in a history."""
    return None if moment is None else (moment - T0) / M
