"""A union of schedules."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Any

from attrs import field, frozen

from sched_core.errors import InvalidDefinition
from sched_core.schedule.base import Counted, Newest, Schedule, first_occurrence
from sched_core.schedule.combined import (
    MOST_PARTS,
    Combined,
    Effort,
    Extent,
    bounded,
    check_part,
    count_of,
    extent_of,
    just_before,
    newest_of,
    next_of,
)
from sched_core.schedule.encoding import fields_of
from sched_core.schedule.kinds import decode_part, encode_part


@frozen(init=False)
class AnyOf(Combined):
    """The occurrences of all parts; where several parts have the same moment, it occurs once.

    Args:
        schedules: One to 100 schedules, other combined ones and their parts included.

    Raises:
        InvalidDefinition: There is none, there are too many, or one of them cannot be a part.
    """

    schedules: tuple[Schedule, ...]
    extent: Extent = field(init=False, eq=False, repr=False)

    def __init__(self, *schedules: Schedule) -> None:
        if not 1 <= len(schedules) <= MOST_PARTS:
            raise InvalidDefinition(
                "schedules", f"must be 1 to {MOST_PARTS} schedules, not {len(schedules)}"
            )
        for schedule in schedules:
            check_part("schedules", schedule)
        self.__attrs_init__(schedules)
        inside = [extent_of(schedule) for schedule in schedules]
        extent = Extent(
            parts=sum(each.parts for each in inside),
            dates=sum(each.dates for each in inside),
            depth=1 + max(each.depth for each in inside),
            zones=frozenset[str]().union(*(each.zones for each in inside)),
            questions=sum(each.questions for each in inside),
            joined=True,
            stepped=any(each.stepped for each in inside),
        )
        object.__setattr__(self, "extent", bounded("schedules", extent))

    def __reduce__(self) -> tuple[type[AnyOf], tuple[Schedule, ...]]:
        return type(self), self.schedules

    def first(self, anchor: datetime) -> datetime | None:
        """Return the earliest of the parts' first occurrences."""
        return _earliest(first_occurrence(schedule, anchor) for schedule in self.schedules)

    def _parts(self) -> tuple[Schedule, ...]:
        return self.schedules

    def _following(self, moment: datetime, anchor: datetime, effort: Effort) -> datetime | None:
        return _earliest(next_of(schedule, moment, anchor, effort) for schedule in self.schedules)

    def _counted(
        self, after: datetime, until: datetime, anchor: datetime, effort: Effort
    ) -> Counted:
        """Count the occurrences, those that coincide once.

        All of the part with the most occurrences are counted at once. Those of the other parts are
        gone through, and looked for in that part, as long as the effort lasts.
        """
        counts = []
        for schedule in self.schedules:
            if effort.left <= 0:
                break
            counts.append((count_of(schedule, after, until, anchor, effort), schedule))
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
                following = next_of(schedule, moment, anchor, effort)
                if following is None or following > until:
                    break
                moment = following
                if moment not in others:
                    others.add(moment)
                    total += not _occurs(densest, moment, anchor, effort)
                if effort.left <= 0:
                    return Counted(total, exact=False)
        return Counted(total, exact)

    def _newest(self, after: datetime, until: datetime, anchor: datetime, effort: Effort) -> Newest:
        found = [newest_of(schedule, after, until, anchor, effort) for schedule in self.schedules]
        moments = [newest.moment for newest in found if newest.moment is not None]
        return Newest(max(moments, default=None), all(newest.exact for newest in found))


def _occurs(schedule: Schedule, moment: datetime, anchor: datetime, effort: Effort) -> bool:
    return newest_of(schedule, just_before(moment), moment, anchor, effort).moment == moment


def _earliest(moments: Iterable[datetime | None]) -> datetime | None:
    return min((moment for moment in moments if moment is not None), default=None)


def encode_any_of(schedule: AnyOf) -> dict[str, Any]:
    """Return how the schedule is stored: what ``json`` can write."""
    return {"schedules": [encode_part(part) for part in schedule.schedules]}


def decode_any_of(value: Any) -> AnyOf:
    """Return the schedule that is stored so; raise an error if none is."""
    # One more than may be is enough to be refused; the rest need not be read for that.
    return AnyOf(*map(decode_part, fields_of(value, "schedules")["schedules"][: MOST_PARTS + 1]))
