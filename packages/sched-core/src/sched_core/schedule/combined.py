"""Schedules made of other schedules: a union, a span of time, days left out.

They count as exactly as their parts do. A :class:`~sched_core.schedule.interval.FixedDelay` can be
no part: its occurrences depend on when runs end, so there is nothing to combine.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from typing import NamedTuple

from attrs import frozen

from sched_core.errors import InvalidDefinition
from sched_core.schedule.base import (
    BuiltIn,
    Counted,
    Newest,
    Schedule,
    count_occurrences,
    last_occurrence,
    utc,
)
from sched_core.schedule.cron import Cron
from sched_core.schedule.cron_dst import (
    DAY,
    EARLIEST,
    EPOCH,
    LATEST,
    offset_at,
    transitions,
    zone_named,
)
from sched_core.schedule.interval import FixedDelay

MOST_PARTS = 100
"""Schedules in one ``AnyOf``."""
MOST_DATES = 5000
"""Dates in one ``Excluding``."""
COMPARED = 10_000
"""How many occurrences ``AnyOf`` compares to find those that coincide; then it says "at least"."""

_TICK = timedelta(microseconds=1)
_MIN = datetime.min.replace(tzinfo=UTC)


@frozen(init=False)
class AnyOf(BuiltIn):
    """The occurrences of all parts; where several parts have the same moment, it occurs once.

    Args:
        schedules: One to 100 schedules, other combined ones included.

    Raises:
        InvalidDefinition: There is none, there are too many, or one of them cannot be a part.
    """

    schedules: tuple[Schedule, ...]

    def __init__(self, *schedules: Schedule) -> None:
        if not 1 <= len(schedules) <= MOST_PARTS:
            raise InvalidDefinition(
                "schedules", f"must be 1 to {MOST_PARTS} schedules, not {len(schedules)}"
            )
        for schedule in schedules:
            _check_part("schedules", schedule)
        self.__attrs_init__(schedules)

    def __reduce__(self) -> tuple[type[AnyOf], tuple[Schedule, ...]]:
        return type(self), self.schedules

    def first(self, anchor: datetime) -> datetime | None:
        """Return the earliest of the parts' first occurrences."""
        return _earliest(schedule.first(anchor) for schedule in self.schedules)

    def next_after(self, moment: datetime, anchor: datetime) -> datetime | None:
        """Return the earliest occurrence of any part strictly after ``moment``."""
        return _earliest(schedule.next_after(moment, anchor) for schedule in self.schedules)

    def measure(self, after: datetime, until: datetime, anchor: datetime) -> Counted:
        """Count the occurrences in ``(after, until]``, those that coincide once.

        All of the part with the most occurrences are counted at once. Those of the other parts
        are compared with it one by one, at most 10,000; then there are *at least* so many.
        """
        counts = [
            (count_occurrences(schedule, after, until, anchor), schedule)
            for schedule in self.schedules
        ]
        counts.sort(key=lambda pair: pair[0].number, reverse=True)
        (total, exact), densest = counts[0]
        counted, left = [densest], COMPARED

        for (number, precise), schedule in counts[1:]:
            exact = exact and precise
            moment = after
            for _ in range(number):
                following = schedule.next_after(moment, anchor)
                if following is None or following > until:
                    break
                if not left:
                    return Counted(total, exact=False)
                left -= 1
                moment = following
                total += not any(_occurs(other, moment, anchor) for other in counted)
            counted.append(schedule)
        return Counted(total, exact)

    def newest(self, after: datetime, until: datetime, anchor: datetime) -> Newest:
        """Return the newest occurrence of any part in ``(after, until]``."""
        found = [last_occurrence(schedule, after, until, anchor) for schedule in self.schedules]
        moments = [newest.moment for newest in found if newest.moment is not None]
        return Newest(max(moments, default=None), all(newest.exact for newest in found))


@frozen(init=False)
class Between(BuiltIn):
    """The occurrences of a schedule in ``[start, end)``.

    The schedule keeps its grid: an ``Interval`` without a start of its own is anchored where the
    job's definition took effect, not where the span begins. Give it one to begin with the span:
    ``Between(Interval(hours=1, start=noon), noon, midnight)``.

    Args:
        schedule: What is limited.
        start: From this moment on; ``None`` for no lower bound.
        end: Before this moment; ``None`` for no upper bound.

    Raises:
        InvalidDefinition: A moment is naive, both are missing, they are in the wrong order, or the
            schedule cannot be a part.
    """

    schedule: Schedule
    start: datetime | None
    end: datetime | None

    def __init__(
        self, schedule: Schedule, start: datetime | None = None, end: datetime | None = None
    ) -> None:
        _check_part("schedule", schedule)
        start = None if start is None else utc(start, "start")
        end = None if end is None else utc(end, "end")
        if start is None and end is None:
            raise InvalidDefinition("start", "is missing, and so is end: give one of them, or both")
        if start is not None and end is not None and start >= end:
            raise InvalidDefinition(
                "end", f"must be after start ({start.isoformat()}), not {end.isoformat()}"
            )
        self.__attrs_init__(schedule, start, end)

    def first(self, anchor: datetime) -> datetime | None:
        """Return the first occurrence that is not before ``start``."""
        return self._inside(self.schedule.first(anchor), anchor)

    def next_after(self, moment: datetime, anchor: datetime) -> datetime | None:
        """Return the first occurrence in the span strictly after ``moment``."""
        return self._inside(self.schedule.next_after(moment, anchor), anchor)

    def _inside(self, moment: datetime | None, anchor: datetime) -> datetime | None:
        if moment is not None and self.start is not None and moment < self.start:
            moment = self.schedule.next_after(_just_before(self.start), anchor)
        if moment is None or (self.end is not None and moment >= self.end):
            return None
        return moment

    def measure(self, after: datetime, until: datetime, anchor: datetime) -> Counted:
        """Count the occurrences in ``(after, until]`` that lie in the span."""
        after, until = self._clipped(after, until)
        if until <= after:
            return Counted(0, exact=True)
        return count_occurrences(self.schedule, after, until, anchor)

    def newest(self, after: datetime, until: datetime, anchor: datetime) -> Newest:
        """Return the newest occurrence in ``(after, until]`` that lies in the span."""
        after, until = self._clipped(after, until)
        if until <= after:
            return Newest(None, exact=True)
        return last_occurrence(self.schedule, after, until, anchor)

    def _clipped(self, after: datetime, until: datetime) -> tuple[datetime, datetime]:
        if self.start is not None:
            after = max(after, _just_before(self.start))
        if self.end is not None:
            until = min(until, _just_before(self.end))
        return after, until


@frozen(init=False)
class Excluding(BuiltIn):
    """The occurrences of a schedule, without those on some local dates.

    Args:
        schedule: What is limited.
        dates: Up to 5,000 dates; their order does not matter.
        tz: The zone that says when a date begins and ends. Unless given, it is that of the ``Cron``
            inside, and UTC where there is none.

    Raises:
        InvalidDefinition: Something else than dates was given, the zone is unknown, the schedules
            inside have several zones and none was given, or the schedule cannot be a part.
    """

    schedule: Schedule
    dates: tuple[date, ...]
    tz: str

    def __init__(self, schedule: Schedule, dates: Iterable[date], tz: str | None = None) -> None:
        _check_part("schedule", schedule)
        if tz is None:
            zones = sorted(_zones(schedule)) or ["UTC"]
            if len(zones) > 1:
                raise InvalidDefinition(
                    "tz", f"is missing: the schedules inside are in {', '.join(zones)}; name one"
                )
            tz = zones[0]
        self.__attrs_init__(schedule, _dates(dates), tz)
        _blocks(self.dates, self.tz)

    def first(self, anchor: datetime) -> datetime | None:
        """Return the first occurrence that is not on one of the dates."""
        return self._outside(self.schedule.first(anchor), anchor)

    def next_after(self, moment: datetime, anchor: datetime) -> datetime | None:
        """Return the first occurrence strictly after ``moment`` that is not on one of the dates."""
        return self._outside(self.schedule.next_after(moment, anchor), anchor)

    def _outside(self, moment: datetime | None, anchor: datetime) -> datetime | None:
        while moment is not None and (block := self._block(moment)) is not None:
            if block.end is None:
                return None
            moment = self.schedule.next_after(_just_before(block.end), anchor)
        return moment

    def measure(self, after: datetime, until: datetime, anchor: datetime) -> Counted:
        """Count the occurrences in ``(after, until]`` that are not on one of the dates."""
        number, exact = count_occurrences(self.schedule, after, until, anchor)
        for block in _blocks(self.dates, self.tz):
            low = max(after, _just_before(block.start))
            high = until if block.end is None else min(until, _just_before(block.end))
            if low < high:
                left_out = count_occurrences(self.schedule, low, high, anchor)
                number -= left_out.number
                exact = exact and left_out.exact
        # Where stepping gave up, less may have been counted than is to be left out.
        return Counted(max(number, 0), exact)

    def newest(self, after: datetime, until: datetime, anchor: datetime) -> Newest:
        """Return the newest occurrence in ``(after, until]`` that is not on one of the dates."""
        while until > after:
            found = last_occurrence(self.schedule, after, until, anchor)
            block = None if found.moment is None else self._block(found.moment)
            if block is None:
                return found
            until = _just_before(block.start)
        return Newest(None, exact=True)

    def _block(self, moment: datetime) -> _Block | None:
        """Return the stretch of excluded time that a moment lies in."""
        blocks = _blocks(self.dates, self.tz)
        index = bisect_right(blocks, moment, key=_Block.begins) - 1
        if index < 0:
            return None
        block = blocks[index]
        return block if block.end is None or moment < block.end else None


class _Block(NamedTuple):
    """``[start, end)`` in UTC; ``None`` for the end of the calendar."""

    start: datetime
    end: datetime | None

    def begins(self) -> datetime:
        return self.start


@lru_cache(maxsize=256)
def _blocks(dates: tuple[date, ...], tz: str) -> list[_Block]:
    """Return when the dates are, as stretches of UTC that do not touch, ascending.

    A date is one stretch, or two where the clock is set back across a midnight.
    """
    zone = zone_named(tz)
    stretches: list[tuple[int, int]] = []
    for day in dates:
        midnight = (day.toordinal() - 719_163) * DAY
        low = min(max(midnight - 2 * DAY, EARLIEST), LATEST + 1 - 5 * DAY)
        high = low + 5 * DAY
        changes = transitions(zone, low, high)
        begins = [low, *(change.moment for change in changes)]
        offsets = [offset_at(zone, low), *(change.after for change in changes)]
        for begin, end, offset in zip(begins, [*begins[1:], high], offsets, strict=True):
            start, stop = max(begin, midnight - offset), min(end, midnight + DAY - offset)
            if start < stop:
                stretches.append((start, stop))
    merged: list[tuple[int, int]] = []
    for start, stop in sorted(stretches):
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(stop, merged[-1][1]))
        else:
            merged.append((start, stop))
    return [_Block(_moment(start) or _MIN, _moment(stop)) for start, stop in merged]


def _moment(second: int) -> datetime | None:
    try:
        return EPOCH + timedelta(0, second)
    except OverflowError:
        return None


def _dates(dates: object) -> tuple[date, ...]:
    if isinstance(dates, (str, bytes, date)) or not isinstance(dates, Iterable):
        raise InvalidDefinition("dates", f"must be several dates, not {dates!r}")
    found = set()
    for day in dates:
        if not isinstance(day, date) or isinstance(day, datetime):
            raise InvalidDefinition(
                "dates", f"must be dates such as date(2026, 12, 25), not {day!r}"
            )
        found.add(day)
    if len(found) > MOST_DATES:
        raise InvalidDefinition("dates", f"must be at most {MOST_DATES}, not {len(found)}")
    return tuple(sorted(found))


def _check_part(field: str, schedule: object) -> None:
    if isinstance(schedule, FixedDelay):
        raise InvalidDefinition(
            field,
            "FixedDelay cannot be combined, its occurrences depend on when runs end: use Interval",
        )
    if isinstance(schedule, type) or not isinstance(schedule, Schedule):
        raise InvalidDefinition(
            field, f"must be a schedule such as Cron('0 3 * * *'), not {schedule!r}"
        )


def parts(schedule: Schedule) -> tuple[Schedule, ...]:
    """Return the schedules that a combined one is made of; none for any other."""
    if isinstance(schedule, AnyOf):
        return schedule.schedules
    if isinstance(schedule, Between | Excluding):
        return (schedule.schedule,)
    return ()


def _zones(schedule: Schedule) -> set[str]:
    if isinstance(schedule, Cron):
        return {schedule.tz}
    return {zone for part in parts(schedule) for zone in _zones(part)}


def _occurs(schedule: Schedule, moment: datetime, anchor: datetime) -> bool:
    return last_occurrence(schedule, _just_before(moment), moment, anchor).moment == moment


def _earliest(moments: Iterable[datetime | None]) -> datetime | None:
    return min((moment for moment in moments if moment is not None), default=None)


def _just_before(moment: datetime) -> datetime:
    return moment - _TICK if moment > _MIN else moment
