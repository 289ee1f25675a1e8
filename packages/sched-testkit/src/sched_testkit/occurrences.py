"""When a schedule occurs, computed by hand from its definition, for the oracle only.

Nothing here calls the schedule's own methods: an oracle that asked them would agree with their
mistakes. Known are ``Interval``, ``Once``, and ``Cron`` of minutes and hours in UTC (by walking
from minute to minute). The occurrences of a ``FixedDelay`` depend on when runs ended: the oracle
follows them itself.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import lru_cache

from sched_core import Cron, FixedDelay, Interval, Once, Schedule

MINUTE = timedelta(minutes=1)
TICK = timedelta(microseconds=1)


def first(schedule: Schedule, anchor: datetime) -> datetime | None:
    """Return the first occurrence of a schedule that took effect at the anchor."""
    if isinstance(schedule, Once):
        return schedule.at
    if isinstance(schedule, FixedDelay):
        return anchor + schedule.every
    if isinstance(schedule, Interval) and schedule.start is not None and schedule.start >= anchor:
        return schedule.start
    return after(schedule, anchor, anchor)


def after(schedule: Schedule, moment: datetime, anchor: datetime) -> datetime | None:
    """Return the first occurrence strictly after the moment."""
    if isinstance(schedule, Once):
        return schedule.at if schedule.at > moment else None
    if isinstance(schedule, Interval):
        begins = _first_point(schedule, anchor)
        if moment < begins:
            return begins
        return begins + ((moment - begins) // schedule.every + 1) * schedule.every
    if isinstance(schedule, Cron):
        matches = _matcher(schedule.expression, schedule.tz)
        minute = max(moment, anchor).replace(second=0, microsecond=0) + MINUTE
        while not matches(minute):
            minute += MINUTE
        return minute
    raise NotImplementedError(f"the oracle does not know {schedule!r}")


def count(schedule: Schedule, since: datetime, until: datetime, anchor: datetime) -> int:
    """Return how many occurrences lie in ``(since, until]``."""
    if isinstance(schedule, Interval):
        begins = _first_point(schedule, anchor)
        return max(
            _points(begins, schedule.every, until) - _points(begins, schedule.every, since), 0
        )
    found = 0
    moment = after(schedule, since, anchor)
    while moment is not None and moment <= until:
        found += 1
        moment = after(schedule, moment, anchor)
    return found


def occurs(schedule: Schedule, moment: datetime, anchor: datetime) -> bool:
    """Whether the moment is an occurrence."""
    if isinstance(schedule, Once):
        return moment == schedule.at
    return after(schedule, moment - TICK, anchor) == moment


def _first_point(schedule: Interval, anchor: datetime) -> datetime:
    if schedule.start is None:
        return anchor + schedule.every
    point = schedule.start
    if point < anchor:
        point += ((anchor - point) // schedule.every + 1) * schedule.every
    return point


def _points(begins: datetime, every: timedelta, until: datetime) -> int:
    return 0 if until < begins else (until - begins) // every + 1


@lru_cache(maxsize=64)
def _matcher(expression: str, zone: str) -> Callable[[datetime], bool]:
    minute, hour, *rest = expression.split()
    if zone != "UTC" or rest != ["*", "*", "*"]:
        raise NotImplementedError(f"the oracle walks minutes and hours in UTC, not {expression!r}")
    minutes, hours = _values(minute, 60), _values(hour, 24)

    def matches(moment: datetime) -> bool:
        local = moment.astimezone(UTC)
        return local.minute in minutes and local.hour in hours

    return matches


def _values(field: str, size: int) -> frozenset[int]:
    if field == "*":
        return frozenset(range(size))
    if field.startswith("*/"):
        return frozenset(range(0, size, int(field[2:])))
    return frozenset(int(part) for part in field.split(","))
