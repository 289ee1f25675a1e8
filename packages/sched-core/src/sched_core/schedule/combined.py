"""What schedules that are made of others share: their bounds, and how they ask their parts.

They count as exactly as their parts do. A schedule that counts from the end of a run, such as
:class:`~sched_core.schedule.interval.FixedDelay`, can be no part: there is nothing to combine.

Combined schedules come from outside, and are asked in the event loop in which every other job
waits. So what a question can cost is bounded twice. A definition that could need too many questions
to its parts for one of its own is refused when it is made (:class:`Extent`). Counting, which has
no such bound, spends an :class:`Effort`, and says "at least" when that is used up.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import NamedTuple

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
    is_stepped,
    last_occurrence,
    next_occurrence,
    step,
)
from sched_core.schedule.cron import Cron

MOST_PARTS = 100
"""Schedules in a combined one, over all levels; one that is used twice counts twice. More than
people write, and few enough to be asked, compared and stored in a few milliseconds."""
MOST_DATES = 5000
"""Dates in a combined schedule, over all levels: the holidays of a lifetime, in 64 KiB."""
DEEPEST = 10
"""Levels of combined schedules: few enough for the stack of any code that goes through them."""
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
MIN = datetime.min.replace(tzinfo=UTC)


class Extent(NamedTuple):
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


def extent_of(schedule: Schedule) -> Extent:
    """Return how large a schedule is."""
    if isinstance(schedule, Combined):
        return schedule.extent
    zones = frozenset([schedule.tz]) if isinstance(schedule, Cron) else frozenset[str]()
    return Extent(1, 0, 0, zones, 1, joined=False, stepped=is_stepped(schedule))


def bounded(name: str, extent: Extent) -> Extent:
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


class Effort:
    """What counting may still cost, in questions to parts."""

    __slots__ = ("left",)

    def __init__(self, left: int = MOST_QUESTIONS) -> None:
        self.left = left


class Combined(BuiltIn):
    """A kind that is made of other schedules: it asks its parts, and counts the questions."""

    __slots__ = ()
    extent: Extent

    @property
    def counts_from_anchor(self) -> bool:
        """Whether one of the parts does."""
        return any(map(counts_from_anchor, self._parts()))

    def next_after(self, moment: datetime, anchor: datetime) -> datetime | None:
        """Return the first occurrence strictly after ``moment``."""
        return self._following(moment, anchor, Effort())

    def measure(self, after: datetime, until: datetime, anchor: datetime) -> Counted:
        """Count the occurrences in ``(after, until]``; at least so many where it is not exact."""
        return self._counted(after, until, anchor, Effort())

    def newest(self, after: datetime, until: datetime, anchor: datetime) -> Newest:
        """Return the newest occurrence in ``(after, until]``."""
        return self._newest(after, until, anchor, Effort())

    def _parts(self) -> tuple[Schedule, ...]:
        raise NotImplementedError

    def _following(self, moment: datetime, anchor: datetime, effort: Effort) -> datetime | None:
        raise NotImplementedError

    def _counted(
        self, after: datetime, until: datetime, anchor: datetime, effort: Effort
    ) -> Counted:
        raise NotImplementedError

    def _newest(self, after: datetime, until: datetime, anchor: datetime, effort: Effort) -> Newest:
        raise NotImplementedError


def next_of(
    schedule: Schedule, moment: datetime, anchor: datetime, effort: Effort
) -> datetime | None:
    """Return a part's first occurrence after ``moment``, and spend the effort of the question."""
    if isinstance(schedule, Combined):
        return schedule._following(moment, anchor, effort)  # noqa: SLF001 -- one family
    effort.left -= 1
    return next_occurrence(schedule, moment, anchor)


def count_of(
    schedule: Schedule, after: datetime, until: datetime, anchor: datetime, effort: Effort
) -> Counted:
    """Count a part's occurrences in ``(after, until]``, as far as the effort lasts."""
    if isinstance(schedule, Combined):
        return schedule._counted(after, until, anchor, effort)  # noqa: SLF001 -- one family
    found = count_occurrences(schedule, after, until, anchor, most=_steps(effort))
    effort.left -= 1 + (found.number if is_stepped(schedule) else 0)
    if isinstance(schedule, Cron):
        effort.left -= _PER_YEAR * max((until - max(after, anchor)).days, 0) // 365
    return found


def newest_of(
    schedule: Schedule, after: datetime, until: datetime, anchor: datetime, effort: Effort
) -> Newest:
    """Return a part's newest occurrence in ``(after, until]``, as far as the effort lasts."""
    if isinstance(schedule, Combined):
        return schedule._newest(after, until, anchor, effort)  # noqa: SLF001 -- one family
    if not is_stepped(schedule):
        effort.left -= 1
        return last_occurrence(schedule, after, until, anchor)
    number, newest, exact = step(schedule, after, until, anchor, most=_steps(effort))
    effort.left -= 1 + number
    return Newest(newest, exact)


def _steps(effort: Effort) -> int:
    return min(STEPPING_LIMIT, max(effort.left, 0))


def check_part(name: str, schedule: object) -> None:
    """Refuse what cannot be a part of a combined schedule.

    Raises:
        InvalidDefinition: It is no schedule, or it counts from the end of a run. The error names
            the argument ``name``.
    """
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
    if isinstance(schedule, Combined):
        return schedule._parts()  # noqa: SLF001 -- one family
    return ()


def just_before(moment: datetime) -> datetime:
    """Return the moment one microsecond earlier; the first of the calendar is its own."""
    return moment - _TICK if moment > MIN else moment
