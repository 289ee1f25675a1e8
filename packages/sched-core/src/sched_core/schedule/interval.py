"""Schedules that measure time: a fixed rate, a fixed delay, a single moment.

None of them knows about time zones: a day here is 24 hours. Use ``Cron`` for a time of day.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any, ClassVar

from attrs import field, frozen

from sched_core.errors import InvalidDefinition, shown
from sched_core.schedule.base import BuiltIn, utc
from sched_core.schedule.encoding import (
    decode_duration,
    decode_moment,
    encode_duration,
    encode_moment,
    fields_of,
)

SHORTEST = timedelta(milliseconds=1)
LONGEST = timedelta(days=36525)
"""A hundred years of 365.25 days."""


@frozen(init=False)
class Interval(BuiltIn):
    """A fixed rate: occurrences lie on a grid, so nothing drifts however late a run is.

    Without ``start`` the grid is anchored where the schedule took effect, and the first
    occurrence is ``anchor + every``. With ``start`` the first one is ``start`` itself if that is
    not before the anchor, otherwise the first point of its grid strictly after the anchor.

    Args:
        every: The period, from 1 millisecond to 100 years; or the keywords, which are added up.
        start: A timezone-aware moment to anchor the grid at; kept in UTC.

    Raises:
        InvalidDefinition: The period is missing, given twice, of another type or out of bounds,
            or ``start`` is naive.
    """

    every: timedelta
    start: datetime | None

    @property
    def counts_from_anchor(self) -> bool:
        """Whether the grid has no start of its own."""
        return self.start is None

    def __init__(
        self,
        every: timedelta | None = None,
        *,
        weeks: float = 0,
        days: float = 0,
        hours: float = 0,
        minutes: float = 0,
        seconds: float = 0,
        milliseconds: float = 0,
        start: datetime | None = None,
    ) -> None:
        period = _period(
            every,
            weeks=weeks,
            days=days,
            hours=hours,
            minutes=minutes,
            seconds=seconds,
            milliseconds=milliseconds,
        )
        self.__attrs_init__(period, None if start is None else utc(start, "start"))

    def first(self, anchor: datetime) -> datetime | None:
        """Return the first occurrence in UTC; ``None`` if it lies past the year 9999."""
        origin, lowest = self._grid(utc(anchor, "anchor"))
        return _point(origin, self.every, lowest)

    def next_after(self, moment: datetime, anchor: datetime) -> datetime | None:
        """Return the first point of the grid strictly after ``moment``, never before the first."""
        origin, lowest = self._grid(utc(anchor, "anchor"))
        passed = (utc(moment, "moment") - origin) // self.every
        return _point(origin, self.every, max(passed + 1, lowest))

    def count(self, after: datetime, until: datetime, anchor: datetime) -> int:
        """Return the exact number of occurrences in ``(after, until]``."""
        origin, lowest = self._grid(utc(anchor, "anchor"))
        passed = max((utc(after, "after") - origin) // self.every, lowest - 1)
        return max((utc(until, "until") - origin) // self.every - passed, 0)

    def last_until(self, moment: datetime, anchor: datetime) -> datetime | None:
        """Return the newest occurrence at or before ``moment``; ``None`` before the first."""
        origin, lowest = self._grid(utc(anchor, "anchor"))
        passed = (utc(moment, "moment") - origin) // self.every
        return _point(origin, self.every, passed) if passed >= lowest else None

    def _grid(self, anchor: datetime) -> tuple[datetime, int]:
        """Return the grid's origin and the index of its first occurrence."""
        if self.start is None:
            return anchor, 1

        if self.start >= anchor:
            return self.start, 0

        return self.start, (anchor - self.start) // self.every + 1


def StartAtInterval(  # noqa: N802 -- a kind to its users; a function so that it equals Interval
    start: datetime,
    every: timedelta | None = None,
    *,
    weeks: float = 0,
    days: float = 0,
    hours: float = 0,
    minutes: float = 0,
    seconds: float = 0,
    milliseconds: float = 0,
) -> Interval:
    """Return ``Interval(every, start=start)``: a fixed rate on a grid anchored at ``start``."""
    if start is None:
        raise InvalidDefinition("start", "is missing: give a moment, or use Interval without one")

    return Interval(
        every,
        weeks=weeks,
        days=days,
        hours=hours,
        minutes=minutes,
        seconds=seconds,
        milliseconds=milliseconds,
        start=start,
    )


@frozen(init=False)
class FixedDelay(BuiltIn):
    """A pause between runs: the next occurrence is counted from the moment it is asked for.

    The rules ask with the end of a run. Occurrences therefore exist one at a time: there is
    never a further one that could have been missed, ``count`` is 0 and ``last_until`` is ``None``.
    ``upcoming`` shows what would come if runs took no time.

    Args:
        every: The pause, from 1 millisecond to 100 years; or the keywords, which are added up.

    Raises:
        InvalidDefinition: The pause is missing, given twice, of another type or out of bounds.
    """

    counts_from_end: ClassVar[bool] = True
    counts_from_anchor: ClassVar[bool] = True
    every: timedelta

    def __init__(
        self,
        every: timedelta | None = None,
        *,
        weeks: float = 0,
        days: float = 0,
        hours: float = 0,
        minutes: float = 0,
        seconds: float = 0,
        milliseconds: float = 0,
    ) -> None:
        period = _period(
            every,
            weeks=weeks,
            days=days,
            hours=hours,
            minutes=minutes,
            seconds=seconds,
            milliseconds=milliseconds,
        )
        self.__attrs_init__(period)

    def first(self, anchor: datetime) -> datetime | None:
        """Return ``anchor + every``; ``None`` past the year 9999."""
        return _point(utc(anchor, "anchor"), self.every, 1)

    def next_after(self, moment: datetime, anchor: datetime) -> datetime | None:
        """Return ``moment + every``, the moment being the end of a run."""
        return _point(utc(moment, "moment"), self.every, 1)

    def count(self, after: datetime, until: datetime, anchor: datetime) -> int:
        """Return 0: what has not been scheduled by the end of a run cannot be missed."""
        return 0

    def last_until(self, moment: datetime, anchor: datetime) -> datetime | None:
        """Return ``None``: there is no further occurrence to find."""
        return None


def _at(moment: datetime) -> datetime:
    return utc(moment, "at")


@frozen
class Once(BuiltIn):
    """A single moment. It is the first occurrence also when it has passed already.

    Args:
        at: A timezone-aware moment; kept in UTC.

    Raises:
        InvalidDefinition: ``at`` is naive or no datetime.
    """

    at: datetime = field(converter=_at)

    def first(self, anchor: datetime) -> datetime | None:
        """Return ``at``, even if it is before the anchor."""
        return self.at

    def next_after(self, moment: datetime, anchor: datetime) -> datetime | None:
        """Return ``at`` if it is after ``moment``."""
        return self.at if self.at > utc(moment, "moment") else None

    def count(self, after: datetime, until: datetime, anchor: datetime) -> int:
        """Return 1 if ``at`` is in ``(after, until]``, else 0."""
        return int(utc(after, "after") < self.at <= utc(until, "until"))

    def last_until(self, moment: datetime, anchor: datetime) -> datetime | None:
        """Return ``at`` if it is not after ``moment``."""
        return self.at if self.at <= utc(moment, "moment") else None


def _period(every: timedelta | None, **units: float) -> timedelta:
    given = {unit: amount for unit, amount in units.items() if amount != 0 or amount is False}

    if every is not None and given:
        raise InvalidDefinition(
            "every", f"is given twice, as a timedelta and as {', '.join(given)}: give one of them"
        )

    if every is None:
        # A keyword that was written as 0 cannot be told from one left out; both are no period.
        every = _sum_of(given)

    if not isinstance(every, timedelta):
        raise InvalidDefinition(
            "every",
            f"must be a timedelta, not {type(every).__name__} ({shown(every)}): write "
            "timedelta(seconds=...), or name the unit as in seconds=..., hours=...",
        )

    if not SHORTEST <= every <= LONGEST:
        raise InvalidDefinition(
            "every",
            f"{every!r} is out of bounds: give a period from 1 millisecond to 100 years, "
            "for example hours=1",
        )

    return every


def _sum_of(units: dict[str, float]) -> timedelta:
    for unit, amount in units.items():
        if isinstance(amount, bool) or not isinstance(amount, int | float):
            raise InvalidDefinition(
                unit, f"must be a number of {unit}, not {type(amount).__name__} ({shown(amount)})"
            )

    try:
        return timedelta(**units)
    except (OverflowError, ValueError):
        raise InvalidDefinition(
            ", ".join(units), "out of bounds: give a period from 1 millisecond to 100 years"
        ) from None


def _point(origin: datetime, every: timedelta, index: int) -> datetime | None:
    try:
        return origin + index * every
    except OverflowError:
        return None


def encode_interval(interval: Interval) -> dict[str, Any]:
    """Return how the schedule is stored: what ``json`` can write."""
    every = {"every": encode_duration(interval.every)}
    return every if interval.start is None else every | {"start": encode_moment(interval.start)}


def decode_interval(value: Any) -> Interval:
    """Return the schedule that is stored so; raise an error if none is."""
    body = fields_of(value, "every", "start")
    start = decode_moment(body["start"]) if "start" in body else None
    return Interval(decode_duration(body["every"]), start=start)


def encode_fixed_delay(schedule: FixedDelay) -> dict[str, Any]:
    """Return how the schedule is stored: what ``json`` can write."""
    return {"every": encode_duration(schedule.every)}


def decode_fixed_delay(value: Any) -> FixedDelay:
    """Return the schedule that is stored so; raise an error if none is."""
    return FixedDelay(decode_duration(fields_of(value, "every")["every"]))


def encode_once(schedule: Once) -> dict[str, Any]:
    """Return how the schedule is stored: what ``json`` can write."""
    return {"at": encode_moment(schedule.at)}


def decode_once(value: Any) -> Once:
    """Return the schedule that is stored so; raise an error if none is."""
    return Once(decode_moment(fields_of(value, "at")["at"]))
