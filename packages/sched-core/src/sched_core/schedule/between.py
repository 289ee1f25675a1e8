"""A schedule within a span of time."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from attrs import field, frozen

from sched_core.errors import InvalidDefinition
from sched_core.schedule.base import Counted, Newest, Schedule, first_occurrence, utc
from sched_core.schedule.combined import (
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
from sched_core.schedule.encoding import decode_moment, encode_moment, fields_of
from sched_core.schedule.kinds import decode_part, encode_part


@frozen(init=False)
class Between(Combined):
    """The occurrences of a schedule in ``[start, end)``.

    The schedule keeps its grid: an ``Interval`` without a start of its own is anchored where the
    job's definition took effect, not where the span begins. Give it one to begin with the span:
    ``Between(Interval(hours=1, start=noon), noon, midnight)``.

    Args:
        schedule: The schedule that is limited.
        start: The first moment of the span; ``None`` for no lower bound.
        end: The moment before which the span ends; ``None`` for no upper bound.

    Raises:
        InvalidDefinition: A moment is naive, both are missing, they are in the wrong order, or the
            schedule cannot be a part or is too large for one.
    """

    schedule: Schedule
    start: datetime | None
    end: datetime | None
    extent: Extent = field(init=False, eq=False, repr=False)

    def __init__(
        self, schedule: Schedule, start: datetime | None = None, end: datetime | None = None
    ) -> None:
        check_part("schedule", schedule)
        start = None if start is None else utc(start, "start")
        end = None if end is None else utc(end, "end")
        if start is None and end is None:
            raise InvalidDefinition("start", "is missing, and so is end: give one of them, or both")
        if start is not None and end is not None and start >= end:
            raise InvalidDefinition(
                "end", f"must be after start ({start.isoformat()}), not {end.isoformat()}"
            )
        self.__attrs_init__(schedule, start, end)
        inside = extent_of(schedule)
        extent = inside._replace(depth=inside.depth + 1)
        object.__setattr__(self, "extent", bounded("schedule", extent))

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

    def _following(self, moment: datetime, anchor: datetime, effort: Effort) -> datetime | None:
        if self.start is not None:
            moment = max(moment, just_before(self.start))
        return self._before_end(next_of(self.schedule, moment, anchor, effort))

    def _before_end(self, moment: datetime | None) -> datetime | None:
        return None if moment is None or (self.end is not None and moment >= self.end) else moment

    def _counted(
        self, after: datetime, until: datetime, anchor: datetime, effort: Effort
    ) -> Counted:
        after, until = self._clipped(after, until)
        if until <= after:
            return Counted(0, exact=True)
        return count_of(self.schedule, after, until, anchor, effort)

    def _newest(self, after: datetime, until: datetime, anchor: datetime, effort: Effort) -> Newest:
        after, until = self._clipped(after, until)
        if until <= after:
            return Newest(None, exact=True)
        return newest_of(self.schedule, after, until, anchor, effort)

    def _clipped(self, after: datetime, until: datetime) -> tuple[datetime, datetime]:
        if self.start is not None:
            after = max(after, just_before(self.start))
        if self.end is not None:
            until = min(until, just_before(self.end))
        return after, until


def encode_between(between: Between) -> dict[str, Any]:
    """Return how the schedule is stored: what ``json`` can write."""
    body: dict[str, Any] = {"schedule": encode_part(between.schedule)}
    if between.start is not None:
        body["start"] = encode_moment(between.start)
    if between.end is not None:
        body["end"] = encode_moment(between.end)
    return body


def decode_between(value: Any) -> Between:
    """Return the schedule that is stored so; raise an error if none is."""
    body = fields_of(value, "schedule", "start end")
    start = decode_moment(body["start"]) if "start" in body else None
    end = decode_moment(body["end"]) if "end" in body else None
    return Between(decode_part(body["schedule"]), start, end)
