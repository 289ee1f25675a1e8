"""Computes from a schedule's definition when it occurs; only the oracle uses it.

Nothing here calls the schedule's own methods: an oracle that asked them would agree with their
mistakes. It knows ``Interval``, ``Once``, and ``Cron`` of minutes and hours in UTC, whose moments
it finds by walking through the minutes of a day. When a ``FixedDelay`` occurs depends on when its
runs ended: the oracle follows those itself.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import lru_cache

from sched_core import Cron, FixedDelay, Interval, Once, Schedule

MINUTE = timedelta(minutes=1)


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
        times = _times(schedule.expression, schedule.tz)
        moment = max(moment, anchor)
        midnight = _midnight(moment)
        for each in times:
            if midnight + each > moment:
                return midnight + each
        return midnight + timedelta(days=1) + times[0]
    raise NotImplementedError(f"the oracle does not know {schedule!r}")


def _first_point(schedule: Interval, anchor: datetime) -> datetime:
    if schedule.start is None:
        return anchor + schedule.every
    point = schedule.start
    if point < anchor:
        point += ((anchor - point) // schedule.every + 1) * schedule.every
    return point


def _midnight(moment: datetime) -> datetime:
    return moment.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)


@lru_cache(maxsize=64)
def _times(expression: str, zone: str) -> tuple[timedelta, ...]:
    """Return the times of day at which a cron schedule occurs, each a minute that matches."""
    minute, hour, *rest = expression.split()
    if zone != "UTC" or rest != ["*", "*", "*"]:
        raise NotImplementedError(f"the oracle walks minutes and hours in UTC, not {expression!r}")
    minutes, hours = _values(minute, 60), _values(hour, 24)
    every = [divmod(each, 60) for each in range(24 * 60)]
    return tuple(h * 60 * MINUTE + m * MINUTE for h, m in every if m in minutes and h in hours)


def _values(field: str, size: int) -> frozenset[int]:
    if field == "*":
        return frozenset(range(size))
    if field.startswith("*/"):
        return frozenset(range(0, size, int(field[2:])))
    return frozenset(int(part) for part in field.split(","))
