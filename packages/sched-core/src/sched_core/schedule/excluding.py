"""A schedule without some dates."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable
from datetime import date, datetime, timedelta
from functools import lru_cache
from typing import Any, NamedTuple

from attrs import field, frozen

from sched_core.errors import InvalidDefinition, shown
from sched_core.schedule.base import STEPPING_LIMIT, Counted, Newest, Schedule, first_occurrence
from sched_core.schedule.combined import (
    MIN,
    MOST_DATES,
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
    parts,
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
from sched_core.schedule.encoding import fields_of
from sched_core.schedule.kinds import decode_part, encode_part


@frozen(init=False)
class Excluding(Combined):
    """The occurrences of a schedule, without those on some local dates.

    Args:
        schedule: The schedule that is limited.
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
    extent: Extent = field(init=False, eq=False, repr=False)
    _blocks: list[_Block] = field(init=False, eq=False, repr=False)

    def __init__(self, schedule: Schedule, dates: Iterable[date], tz: str | None = None) -> None:
        check_part("schedule", schedule)
        if tz is None:
            zones = sorted(_zones(schedule)) or ["UTC"]
            if len(zones) > 1:
                raise InvalidDefinition(
                    "tz", f"is missing: the schedules inside are in {', '.join(zones)}; name one"
                )
            tz = zones[0]
        zone_named(tz)
        self.__attrs_init__(schedule, _dates(dates), tz)
        inside, number = extent_of(schedule), len(self.dates)
        extent = Extent(
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
        object.__setattr__(self, "extent", bounded("schedule", extent))
        object.__setattr__(self, "_blocks", _blocks(self.dates, tz))

    def __reduce__(self) -> tuple[type[Excluding], tuple[object, ...]]:
        return type(self), (self.schedule, self.dates, self.tz)

    def first(self, anchor: datetime) -> datetime | None:
        """Return the first occurrence that is not on one of the dates."""
        return self._outside(first_occurrence(self.schedule, anchor), anchor, Effort())

    def _parts(self) -> tuple[Schedule, ...]:
        return (self.schedule,)

    def _following(self, moment: datetime, anchor: datetime, effort: Effort) -> datetime | None:
        following = next_of(self.schedule, moment, anchor, effort)
        return self._outside(following, anchor, effort)

    def _outside(
        self, moment: datetime | None, anchor: datetime, effort: Effort
    ) -> datetime | None:
        while moment is not None and (block := self._block(moment)) is not None:
            if block.end is None:
                return None
            moment = next_of(self.schedule, just_before(block.end), anchor, effort)
        return moment

    def _counted(
        self, after: datetime, until: datetime, anchor: datetime, effort: Effort
    ) -> Counted:
        """Count the occurrences in each stretch between the dates."""
        number = 0
        index = max(bisect_right(self._blocks, after, key=_Block.begins) - 1, 0)
        for block in [*self._blocks[index:], None]:
            high = until if block is None else min(until, just_before(block.start))
            if after < high:
                found = count_of(self.schedule, after, high, anchor, effort)
                number += found.number
                if not found.exact or effort.left <= 0:
                    return Counted(number, exact=found.exact and high == until)
            if high == until or block is None or block.end is None:
                break
            after = max(after, just_before(block.end))
        return Counted(number, exact=True)

    def _newest(self, after: datetime, until: datetime, anchor: datetime, effort: Effort) -> Newest:
        if self.extent.stepped:
            # To step once, over all dates, is cheaper than again before each of them.
            return self._stepped_to(after, until, anchor, effort)
        while until > after:
            found = newest_of(self.schedule, after, until, anchor, effort)
            block = None if found.moment is None else self._block(found.moment)
            if block is None:
                return found
            until = just_before(block.start)
        return Newest(None, exact=True)

    def _stepped_to(
        self, after: datetime, until: datetime, anchor: datetime, effort: Effort
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
    return [_Block(_moment(start) or MIN, _moment(stop)) for start, stop in merged]


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


def _zones(schedule: Schedule) -> set[str]:
    """Return the zones of the ``Cron`` inside; those of dates left out are another matter."""
    if isinstance(schedule, Cron):
        return {schedule.tz}
    return {zone for part in parts(schedule) for zone in _zones(part)}


def encode_excluding(excluding: Excluding) -> dict[str, Any]:
    """Return how the schedule is stored: what ``json`` can write."""
    return {
        "schedule": encode_part(excluding.schedule),
        "dates": [day.isoformat() for day in excluding.dates],
        "tz": excluding.tz,
    }


def decode_excluding(value: Any) -> Excluding:
    """Return the schedule that is stored so; raise an error if none is."""
    body = fields_of(value, "schedule dates tz")
    dates = [date.fromisoformat(day) for day in body["dates"]]
    return Excluding(decode_part(body["schedule"]), dates, body["tz"])
