"""What the oracle raises, and how it writes a moment."""

from __future__ import annotations

from datetime import datetime


class Violation(AssertionError):
    """Something happened that must not happen, or something is missing that must have happened."""


def at(moment: datetime | None) -> str:
    """Return a moment as people read it in a history."""
    return "never" if moment is None else f"{moment:%d. %H:%M:%S}"
