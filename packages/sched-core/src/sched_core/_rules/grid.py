"""The moments of a schedule, without those that a pause or an overlap has taken out."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import NamedTuple

from attrs import frozen

from sched_core._model.job import Job
from sched_core._model.occurrence import MOST_GAPS, Gap, Pending
from sched_core._model.policy import Coalesce
from sched_core.schedule import (
    Schedule,
    count_occurrences,
    counts_from_anchor,
    counts_from_end,
    first_occurrence,
    last_occurrence,
    next_occurrence,
)

TICK = timedelta(microseconds=1)


class Behind(NamedTuple):
    """The moments of a schedule that follow another one: how many, and the last of them."""

    number: int = 0
    last: datetime | None = None


NONE_BEHIND = Behind()


@frozen
class Grid:
    """The moments of a schedule that took effect at the anchor, but for those inside gaps."""

    schedule: Schedule
    anchor: datetime
    gaps: tuple[Gap, ...] = ()

    def first(self) -> datetime | None:
        """Return the first moment of all."""
        return self._outside(first_occurrence(self.schedule, self.anchor))

    def after(self, moment: datetime) -> datetime | None:
        """Return the first moment after this one."""
        return self._outside(next_occurrence(self.schedule, moment, self.anchor))

    def _outside(self, found: datetime | None) -> datetime | None:
        for gap in self.gaps:
            if found is not None and gap.since < found <= gap.end:
                found = next_occurrence(self.schedule, gap.end, self.anchor)
        return found

    def count(self, after: datetime, until: datetime) -> int:
        """Return how many moments lie in ``(after, until]``."""
        return sum(
            count_occurrences(self.schedule, since, end, self.anchor).number
            for since, end in self._stretches(after, until)
        )

    def last(self, after: datetime, until: datetime) -> datetime | None:
        """Return the newest moment in ``(after, until]``."""
        for since, end in reversed(list(self._stretches(after, until))):
            found = last_occurrence(self.schedule, since, end, self.anchor).moment
            if found is not None:
                return found
        return None

    def between(self, after: datetime, until: datetime) -> Behind:
        """Return the moments in ``(after, until]``.

        Where a schedule can only be stepped through and there are many, these are the first of
        them: their number and the last of them belong together, and the rest is late once more.
        """
        number, newest = 0, None
        for since, end in self._stretches(after, until):
            counted = count_occurrences(self.schedule, since, end, self.anchor)
            if counted.number:
                number += counted.number
                newest = last_occurrence(self.schedule, since, end, self.anchor).moment
            if not counted.exact:
                break
        return Behind(number, newest)

    def _stretches(self, after: datetime, until: datetime) -> Iterator[tuple[datetime, datetime]]:
        """Yield the stretches of ``(after, until]`` that lie outside the gaps, in order.

        Each is counted separately: a schedule that is stepped through says "at least", and a
        difference of two such numbers says nothing.
        """
        for gap in self.gaps:
            if after < min(gap.since, until):
                yield after, min(gap.since, until)
            after = max(after, gap.end)
        if after < until:
            yield after, until


def grid_of(job: Job) -> Grid:
    """Return the moments of a job's schedule."""
    return Grid(job.spec.schedule, job.anchor, job.standing.gaps)


def following(job: Job, moment: datetime) -> datetime | None:
    """Return the first moment after this one. Every run asks, so no grid is made without need."""
    if job.standing.gaps:
        return grid_of(job).after(moment)
    return next_occurrence(job.spec.schedule, moment, job.anchor)


def passed(job: Job, since: datetime, now: datetime) -> Behind:
    """Return the moments after ``since`` that were due by ``now``; none is inside a pause."""
    pause = job.standing.pause
    until = now if pause is None else min(now, pause.since)
    if until <= since or counts_from_end(job.spec.schedule):
        return Behind()
    first = following(job, since)
    return Behind() if first is None or first > until else grid_of(job).between(since, until)


def coverage(job: Job, one: Pending, at: datetime | None) -> Behind:
    """Return the further moments that an occurrence covers if it began at the moment."""
    added = Behind(one.coalesced, one.coalesced_until)
    if at is None or not one.is_scheduled or type(job.spec.policy.misfire) is not Coalesce:
        return added
    if one.until is not None:
        at = min(at, one.until)
    found = passed(job, max(one.scheduled_at, one.coalesced_until or one.scheduled_at), at)
    return Behind(added.number + found.number, found.last or added.last)


def rest_of_backfill(job: Job, one: Pending) -> Behind:
    """Return what is left of a request for many moments behind its pending occurrence."""
    if one.moments:
        return Behind(len(one.moments), one.moments[-1])
    if one.until is None or one.is_scheduled:
        return Behind()
    return requestable_grid(job, one.scheduled_at).between(one.scheduled_at, one.until)


class Further(NamedTuple):
    """The next moment of a request for many, and those that it names behind that."""

    moment: datetime
    moments: tuple[datetime, ...]


def next_of_request(job: Job, one: Pending) -> Further | None:
    """Return the moment of a request that follows that of its pending occurrence."""
    if one.moments:
        return Further(one.moments[0], one.moments[1:])
    if one.until is None:
        return None
    moment = requestable_grid(job, one.scheduled_at).after(one.scheduled_at)
    return None if moment is None or moment > one.until else Further(moment, ())


def requestable_grid(job: Job, since: datetime) -> Grid:
    """Return the moments that can be asked for: calendar moments also from before the anchor."""
    schedule, anchor = job.spec.schedule, job.anchor
    return Grid(schedule, anchor if counts_from_anchor(schedule) else min(anchor, since - TICK))


# -- gaps


def with_gap(gaps: tuple[Gap, ...], gap: Gap) -> tuple[Gap, ...]:
    """Return the gaps with one more, in order. After a clock was set back it may overlap others."""
    if gap.end <= gap.since:
        return gaps
    apart = [one for one in gaps if one.end < gap.since or gap.end < one.since]
    over = [gap, *(one for one in gaps if one not in apart)]
    whole = Gap(min(one.since for one in over), max(one.end for one in over))
    found = sorted([*apart, whole], key=lambda one: one.since)
    if len(found) > MOST_GAPS:
        found[-2:] = [Gap(found[-2].since, found[-1].end)]
    return tuple(found)


def gap_of_moment(moment: datetime) -> Gap:
    """Return the gap that takes out one moment: it was cancelled before it came."""
    return Gap(moment - TICK, moment)


def cancelled_ahead(gaps: tuple[Gap, ...], now: datetime) -> tuple[Gap, ...]:
    """Return the gaps of moments that were cancelled, and have not come."""
    return tuple(gap for gap in gaps if gap.end > now and gap == gap_of_moment(gap.end))


def still_ahead(gaps: tuple[Gap, ...], moment: datetime) -> tuple[Gap, ...]:
    """Return the gaps that end after the moment: the others are over."""
    return tuple(gap for gap in gaps if gap.end > moment)
