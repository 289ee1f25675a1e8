"""Schedules made of other schedules: a union, a span of time, days left out.

They count as exactly as their parts do. A schedule that counts from the end of a run, such as
:class:`~sched_core.schedule.interval.FixedDelay`, can be no part: there is nothing to combine.

Combined schedules come from outside, and are asked in the event loop in which every other job
waits. So what a question can cost is bounded twice. A definition that could need too many questions
to its parts for one of its own is refused when it is made (:class:`_Extent`). Counting, which has
no such bound, spends an :class:`_Effort`, and says "at least" when that is used up.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from typing import NamedTuple

from attrs import field, frozen

from sched_core.errors import InvalidDefinition, shown
from sched_core.schedule.base import (
    STEPPING_LIMIT,
    BuiltIn,
    Counted,
    Newest,
    Schedule,
    count_occurrences,
    counts_from_anchor,
    counts_from_end,
    first_occurrence,
    is_stepped,
    last_occurrence,
    next_occurrence,
    step,
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

MOST_PARTS = 100
"""Schedules in a combined one, over all levels; one that is used twice counts twice. More than
people write, and few enough to be asked, compared and stored in a few milliseconds."""
MOST_DATES = 5000
"""Dates in a combined schedule, over all levels: the holidays of a lifetime, in 64 KiB."""
DEEPEST = 10
"""Levels of combined schedules: few enough for the stack, whoever's code goes through them."""
MOST_ZONES = 40
"""Time zones in a combined schedule, over all levels: more than there are offsets. Of each, the
years that a question is about are read first."""
MOST_QUESTIONS = 12_000
"""Questions to its parts that one question to a combined schedule may take: less than a tenth of a
second, in which nothing else runs; enough for all the dates around two schedules."""

_PER_YEAR = 4
"""Questions that a year of a ``Cron`` counts for where years are counted: nights of another offset
have to be found."""
_TICK = timedelta(microseconds=1)
_MIN = datetime.min.replace(tzinfo=UTC)


class _Extent(NamedTuple):
    """How large a schedule is.

    Attributes:
        parts: Schedules that are not combined, over all levels.
        dates: Dates left out, over all levels.
        depth: Levels of combined schedules.
        zones: Time zones, over all levels.
        questions: Most questions to parts that the next occurrence takes to find.
        joined: Whether an ``AnyOf`` is inside. Where none is, the search goes over all dates once;
            an ``AnyOf`` asks each part again after each date that is left out around it.
        stepped: Whether a schedule is inside that cannot count.
    """

    parts: int
    dates: int
    depth: int
    zones: frozenset[str]
    questions: int
    joined: bool
    stepped: bool


def _extent(schedule: Schedule) -> _Extent:
    if isinstance(schedule, _Combined):
        return schedule.extent
    zones = frozenset([schedule.tz]) if isinstance(schedule, Cron) else frozenset[str]()
    return _Extent(1, 0, 0, zones, 1, joined=False, stepped=is_stepped(schedule))


def _bounded(name: str, extent: _Extent) -> _Extent:
    """Refuse what is too large.

    Raises:
        InvalidDefinition: It has too many parts, dates, levels or zones, or is too slow to ask.
    """
    if extent.depth > DEEPEST:
        raise InvalidDefinition(
            name, f"must be at most {DEEPEST} levels of combined schedules, not {extent.depth}"
        )
    if extent.parts > MOST_PARTS:
        raise InvalidDefinition(
            name, f"must be at most {MOST_PARTS} schedules over all levels, not {extent.parts}"
        )
    if extent.dates > MOST_DATES:
        raise InvalidDefinition(
            "dates", f"must be at most {MOST_DATES} over all levels, not {extent.dates}"
        )
    if len(extent.zones) > MOST_ZONES:
        raise InvalidDefinition(
            name, f"must be in at most {MOST_ZONES} time zones, not {len(extent.zones)}"
        )
    if extent.questions > MOST_QUESTIONS:
        raise InvalidDefinition(
            "dates",
            f"are too many around so many schedules: to find one occurrence could take "
            f"{extent.questions} questions to them, and {MOST_QUESTIONS} are the most; leave out "
            "dates that have passed, or make several jobs",
        )
    return extent


class _Effort:
    """What counting may still cost, in questions to parts."""

    __slots__ = ("left",)

    def __init__(self, left: int = MOST_QUESTIONS) -> None:
        self.left = left


class _Combined(BuiltIn):
    """What the kinds of this file share: they ask their parts, and keep the account of that."""

    __slots__ = ()
    extent: _Extent

    @property
    def counts_from_anchor(self) -> bool:
        """Whether one of the parts does."""
        return any(map(counts_from_anchor, self._parts()))

    def next_after(self, moment: datetime, anchor: datetime) -> datetime | None:
        """Return the first occurrence strictly after ``moment``."""
        return self._following(moment, anchor, _Effort())

    def measure(self, after: datetime, until: datetime, anchor: datetime) -> Counted:
        """Count the occurrences in ``(after, until]``; at least so many where it is not exact."""
        return self._counted(after, until, anchor, _Effort())

    def newest(self, after: datetime, until: datetime, anchor: datetime) -> Newest:
        """Return the newest occurrence in ``(after, until]``."""
        return self._newest(after, until, anchor, _Effort())

    def _parts(self) -> tuple[Schedule, ...]:
        raise NotImplementedError

    def _following(self, moment: datetime, anchor: datetime, effort: _Effort) -> datetime | None:
        raise NotImplementedError

    def _counted(
        self, after: datetime, until: datetime, anchor: datetime, effort: _Effort
    ) -> Counted:
        raise NotImplementedError

    def _newest(
        self, after: datetime, until: datetime, anchor: datetime, effort: _Effort
    ) -> Newest:
        raise NotImplementedError


def _following(
    schedule: Schedule, moment: datetime, anchor: datetime, effort: _Effort
) -> datetime | None:
    if isinstance(schedule, _Combined):
        return schedule._following(moment, anchor, effort)  # noqa: SLF001 -- one family
    effort.left -= 1
    return next_occurrence(schedule, moment, anchor)


def _counted(
    schedule: Schedule, after: datetime, until: datetime, anchor: datetime, effort: _Effort
) -> Counted:
    if isinstance(schedule, _Combined):
        return schedule._counted(after, until, anchor, effort)  # noqa: SLF001 -- one family
    found = count_occurrences(schedule, after, until, anchor, most=_steps(effort))
    effort.left -= 1 + (found.number if is_stepped(schedule) else 0)
    if isinstance(schedule, Cron):
        effort.left -= _PER_YEAR * max((until - max(after, anchor)).days, 0) // 365
    return found


def _latest(
    schedule: Schedule, after: datetime, until: datetime, anchor: datetime, effort: _Effort
) -> Newest:
    if isinstance(schedule, _Combined):
        return schedule._newest(after, until, anchor, effort)  # noqa: SLF001 -- one family
    if not is_stepped(schedule):
        effort.left -= 1
        return last_occurrence(schedule, after, until, anchor)
    number, newest, exact = step(schedule, after, until, anchor, most=_steps(effort))
    effort.left -= 1 + number
    return Newest(newest, exact)


def _steps(effort: _Effort) -> int:
    return min(STEPPING_LIMIT, max(effort.left, 0))


@frozen(init=False)
class AnyOf(_Combined):
    """The occurrences of all parts; where several parts have the same moment, it occurs once.

    Args:
        schedules: One to 100 schedules, other combined ones and their parts included.

    Raises:
        InvalidDefinition: There is none, there are too many, or one of them cannot be a part.
    """

    schedules: tuple[Schedule, ...]
    extent: _Extent = field(init=False, eq=False, repr=False)

    def __init__(self, *schedules: Schedule) -> None:
        if not 1 <= len(schedules) <= MOST_PARTS:
            raise InvalidDefinition(
                "schedules", f"must be 1 to {MOST_PARTS} schedules, not {len(schedules)}"
            )
        for schedule in schedules:
            _check_part("schedules", schedule)
        self.__attrs_init__(schedules)
        inside = [_extent(schedule) for schedule in schedules]
        extent = _Extent(
            parts=sum(each.parts for each in inside),
            dates=sum(each.dates for each in inside),
            depth=1 + max(each.depth for each in inside),
            zones=frozenset[str]().union(*(each.zones for each in inside)),
            questions=sum(each.questions for each in inside),
            joined=True,
            stepped=any(each.stepped for each in inside),
        )
        object.__setattr__(self, "extent", _bounded("schedules", extent))

    def __reduce__(self) -> tuple[type[AnyOf], tuple[Schedule, ...]]:
        return type(self), self.schedules

    def first(self, anchor: datetime) -> datetime | None:
        """Return the earliest of the parts' first occurrences."""
        return _earliest(first_occurrence(schedule, anchor) for schedule in self.schedules)

    def _parts(self) -> tuple[Schedule, ...]:
        return self.schedules

    def _following(self, moment: datetime, anchor: datetime, effort: _Effort) -> datetime | None:
        return _earliest(
            _following(schedule, moment, anchor, effort) for schedule in self.schedules
        )

    def _counted(
        self, after: datetime, until: datetime, anchor: datetime, effort: _Effort
    ) -> Counted:
        """Count the occurrences, those that coincide once.

        All of the part with the most occurrences are counted at once. Those of the other parts are
        gone through, and looked for in that part, as long as the effort lasts.
        """
        counts = []
        for schedule in self.schedules:
            if effort.left <= 0:
                break
            counts.append((_counted(schedule, after, until, anchor, effort), schedule))
        counts.sort(key=lambda pair: pair[0].number, reverse=True)
        if not counts:
            return Counted(0, exact=False)
        (total, exact), densest = counts[0]
        exact = exact and len(counts) == len(self.schedules)
        others: set[datetime] = set()

        for (number, precise), schedule in counts[1:]:
            exact = exact and precise
            moment = after
            for _ in range(number):
                following = _following(schedule, moment, anchor, effort)
                if following is None or following > until:
                    break
                moment = following
                if moment not in others:
                    others.add(moment)
                    total += not _occurs(densest, moment, anchor, effort)
                if effort.left <= 0:
                    return Counted(total, exact=False)
        return Counted(total, exact)

    def _newest(
        self, after: datetime, until: datetime, anchor: datetime, effort: _Effort
    ) -> Newest:
        found = [_latest(schedule, after, until, anchor, effort) for schedule in self.schedules]
        moments = [newest.moment for newest in found if newest.moment is not None]
        return Newest(max(moments, default=None), all(newest.exact for newest in found))


@frozen(init=False)
class Between(_Combined):
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
            schedule cannot be a part or is too large for one.
    """

    schedule: Schedule
    start: datetime | None
    end: datetime | None
    extent: _Extent = field(init=False, eq=False, repr=False)

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
        inside = _extent(schedule)
        extent = inside._replace(depth=inside.depth + 1)
        object.__setattr__(self, "extent", _bounded("schedule", extent))

    def __reduce__(self) -> tuple[type[Between], tuple[object, ...]]:
        return type(self), (self.schedule, self.start, self.end)

    def first(self, anchor: datetime) -> datetime | None:
        """Return the first occurrence that is not before ``start``."""
        moment = first_occurrence(self.schedule, anchor)
        if moment is not None and self.start is not None and moment < self.start:
            return self.next_after(moment, anchor)
        return self._before_end(moment)

    def _parts(self) -> tuple[Schedule, ...]:
        return (self.schedule,)

    def _following(self, moment: datetime, anchor: datetime, effort: _Effort) -> datetime | None:
        if self.start is not None:
            moment = max(moment, _just_before(self.start))
        return self._before_end(_following(self.schedule, moment, anchor, effort))

    def _before_end(self, moment: datetime | None) -> datetime | None:
        return None if moment is None or (self.end is not None and moment >= self.end) else moment

    def _counted(
        self, after: datetime, until: datetime, anchor: datetime, effort: _Effort
    ) -> Counted:
        after, until = self._clipped(after, until)
        if until <= after:
            return Counted(0, exact=True)
        return _counted(self.schedule, after, until, anchor, effort)

    def _newest(
        self, after: datetime, until: datetime, anchor: datetime, effort: _Effort
    ) -> Newest:
        after, until = self._clipped(after, until)
        if until <= after:
            return Newest(None, exact=True)
        return _latest(self.schedule, after, until, anchor, effort)

    def _clipped(self, after: datetime, until: datetime) -> tuple[datetime, datetime]:
        if self.start is not None:
            after = max(after, _just_before(self.start))
        if self.end is not None:
            until = min(until, _just_before(self.end))
        return after, until


@frozen(init=False)
class Excluding(_Combined):
    """The occurrences of a schedule, without those on some local dates.

    Args:
        schedule: What is limited.
        dates: Up to 5,000 dates; their order does not matter.
        tz: The zone that says when a date begins and ends. Unless given, it is that of the ``Cron``
            inside, and UTC where there is none.

    Raises:
        InvalidDefinition: Something else than dates was given, the zone is unknown, the schedules
            inside have several zones and none was given, there are too many dates around too many
            schedules, or the schedule cannot be a part.
    """

    schedule: Schedule
    dates: tuple[date, ...]
    tz: str
    extent: _Extent = field(init=False, eq=False, repr=False)
    _blocks: list[_Block] = field(init=False, eq=False, repr=False)

    def __init__(self, schedule: Schedule, dates: Iterable[date], tz: str | None = None) -> None:
        _check_part("schedule", schedule)
        if tz is None:
            zones = sorted(_zones(schedule)) or ["UTC"]
            if len(zones) > 1:
                raise InvalidDefinition(
                    "tz", f"is missing: the schedules inside are in {', '.join(zones)}; name one"
                )
            tz = zones[0]
        zone_named(tz)
        self.__attrs_init__(schedule, _dates(dates), tz)
        inside, number = _extent(schedule), len(self.dates)
        extent = _Extent(
            parts=inside.parts,
            dates=inside.dates + number,
            depth=inside.depth + 1,
            zones=inside.zones | {tz},
            questions=(
                inside.questions * (1 + number) if inside.joined else inside.questions + number
            ),
            joined=inside.joined,
            stepped=inside.stepped,
        )
        object.__setattr__(self, "extent", _bounded("schedule", extent))
        object.__setattr__(self, "_blocks", _blocks(self.dates, tz))

    def __reduce__(self) -> tuple[type[Excluding], tuple[object, ...]]:
        return type(self), (self.schedule, self.dates, self.tz)

    def first(self, anchor: datetime) -> datetime | None:
        """Return the first occurrence that is not on one of the dates."""
        return self._outside(first_occurrence(self.schedule, anchor), anchor, _Effort())

    def _parts(self) -> tuple[Schedule, ...]:
        return (self.schedule,)

    def _following(self, moment: datetime, anchor: datetime, effort: _Effort) -> datetime | None:
        following = _following(self.schedule, moment, anchor, effort)
        return self._outside(following, anchor, effort)

    def _outside(
        self, moment: datetime | None, anchor: datetime, effort: _Effort
    ) -> datetime | None:
        while moment is not None and (block := self._block(moment)) is not None:
            if block.end is None:
                return None
            moment = _following(self.schedule, _just_before(block.end), anchor, effort)
        return moment

    def _counted(
        self, after: datetime, until: datetime, anchor: datetime, effort: _Effort
    ) -> Counted:
        """Count the occurrences in each stretch between the dates."""
        number = 0
        index = max(bisect_right(self._blocks, after, key=_Block.begins) - 1, 0)
        for block in [*self._blocks[index:], None]:
            high = until if block is None else min(until, _just_before(block.start))
            if after < high:
                found = _counted(self.schedule, after, high, anchor, effort)
                number += found.number
                if not found.exact or effort.left <= 0:
                    return Counted(number, exact=found.exact and high == until)
            if high == until or block is None or block.end is None:
                break
            after = max(after, _just_before(block.end))
        return Counted(number, exact=True)

    def _newest(
        self, after: datetime, until: datetime, anchor: datetime, effort: _Effort
    ) -> Newest:
        if self.extent.stepped:
            # To step once, over all dates, is cheaper than again before each of them.
            return self._stepped_to(after, until, anchor, effort)
        while until > after:
            found = _latest(self.schedule, after, until, anchor, effort)
            block = None if found.moment is None else self._block(found.moment)
            if block is None:
                return found
            until = _just_before(block.start)
        return Newest(None, exact=True)

    def _stepped_to(
        self, after: datetime, until: datetime, anchor: datetime, effort: _Effort
    ) -> Newest:
        newest = None
        for _ in range(STEPPING_LIMIT):
            following = self._following(newest or after, anchor, effort)
            if following is None or following > until:
                return Newest(newest, exact=True)
            newest = following
            if effort.left <= 0:
                break
        return Newest(newest, exact=False)

    def _block(self, moment: datetime) -> _Block | None:
        """Return the stretch of excluded time that a moment lies in."""
        index = bisect_right(self._blocks, moment, key=_Block.begins) - 1
        if index < 0:
            return None
        block = self._blocks[index]
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
        offset = offset_at(zone, low)
        if offset == offset_at(zone, high):
            # As in `transitions`: no zone changes its offset there and back within the time.
            stretches.append((max(low, midnight - offset), min(high, midnight + DAY - offset)))
            continue
        changes = transitions(zone, low, high)
        begins = [low, *(change.moment for change in changes)]
        offsets = [offset, *(change.after for change in changes)]
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
        raise InvalidDefinition("dates", f"must be several dates, not {shown(dates)}")
    found = set()
    for day in dates:
        if not isinstance(day, date) or isinstance(day, datetime):
            raise InvalidDefinition(
                "dates", f"must be dates such as date(2026, 12, 25), not {shown(day)}"
            )
        found.add(day)
        if len(found) > MOST_DATES:
            raise InvalidDefinition("dates", f"must be at most {MOST_DATES}; more were given")
    return tuple(sorted(found))


def _check_part(name: str, schedule: object) -> None:
    if isinstance(schedule, type) or not isinstance(schedule, Schedule):
        raise InvalidDefinition(
            name, f"must be a schedule such as Cron('0 3 * * *'), not {shown(schedule)}"
        )
    if counts_from_end(schedule):
        raise InvalidDefinition(
            name,
            f"{type(schedule).__name__} cannot be combined, its occurrences depend on when runs "
            "end: use Interval",
        )


def parts(schedule: Schedule) -> tuple[Schedule, ...]:
    """Return the schedules that a combined one is made of; none for any other."""
    if isinstance(schedule, _Combined):
        return schedule._parts()  # noqa: SLF001 -- one family
    return ()


def _zones(schedule: Schedule) -> set[str]:
    """Return the zones of the ``Cron`` inside; those of dates left out are another matter."""
    if isinstance(schedule, Cron):
        return {schedule.tz}
    return {zone for part in parts(schedule) for zone in _zones(part)}


def _occurs(schedule: Schedule, moment: datetime, anchor: datetime, effort: _Effort) -> bool:
    return _latest(schedule, _just_before(moment), moment, anchor, effort).moment == moment


def _earliest(moments: Iterable[datetime | None]) -> datetime | None:
    return min((moment for moment in moments if moment is not None), default=None)


def _just_before(moment: datetime) -> datetime:
    return moment - _TICK if moment > _MIN else moment
