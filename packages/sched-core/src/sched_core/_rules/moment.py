"""Checks of stored moments.

The moment of a pending occurrence was right when it was stored. Since then a clock that had been
far ahead may have been corrected, or the rules of a time zone may have changed.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from attrs import evolve

from sched_core._model.job import Job
from sched_core._model.occurrence import Pending
from sched_core._rules.grid import TICK, Grid, cancelled_ahead, grid_of
from sched_core._rules.standing import began_at, has_begun, replaced, scheduled, with_due_at
from sched_core.schedule import Schedule, counts_from_end, next_occurrence
from sched_core.schedule.derivation import fingerprint, knows_better, trail_of

BELIEVED = timedelta(hours=1)
"""How far ahead of the clock a moment may lie that has run, and is not repeated. If a clock is set
back by more than that, and by more than a period, it was wrong before."""


def corrected(job: Job, *, now: datetime) -> Job | None:
    """Return the job with what is pending put right; ``None`` where it is."""
    found = without_future_waits(job, now=now)
    found = rederived(found, now=now) or found
    found = reanchored(found, now=now) or found
    return None if found is job else found


def without_future_waits(job: Job, *, now: datetime) -> Job:
    """Return the job with those occurrences due now that began while a clock was far ahead.

    So are requests that were made then. Their waits were counted from that clock: by a clock that
    is right, they would wait for years.
    """
    standing = job.standing
    for one in (standing.scheduled, *standing.requests):
        if one is None or not is_from_ahead(job, one, now):
            continue
        if (one.retry_at or one.due_at) > now:
            at_once = evolve(one, due_at=min(one.due_at, now), retry_at=None)
            standing = replaced(standing, one, at_once)
    if standing is job.standing:
        return job
    return evolve(job, standing=with_due_at(job, standing, now))


def is_from_ahead(job: Job, one: Pending, now: datetime) -> bool:
    """Whether an occurrence began, or was asked for, so far ahead that the clock was wrong then."""
    since = began_at(job, one) or (None if one.is_scheduled else one.due_at)
    return since is not None and since - now > BELIEVED


def rederived(job: Job, *, now: datetime) -> Job | None:
    """Return the job by this process's newer data of time zones; ``None`` where it has none.

    What has begun stays, and so does what is to be cancelled. A moment that the schedule no longer
    has gives way to the nearest one that has not run, under a number of its own: there is one run,
    at the new hour. A mark of ``skip_next`` moves with it.
    """
    one = job.standing.scheduled
    if one is None or not is_outdated(job):
        return None
    stays = has_begun(job, one) or job.standing.is_marked(one.number)
    moment = one.scheduled_at if stays else _nearest(job, one.scheduled_at)
    if moment == one.scheduled_at:
        trail = trail_of(fingerprint(job.spec.schedule), one.derived_from)
        kept = evolve(job.standing, scheduled=evolve(one, derived_from=trail))
        return evolve(job, standing=kept)
    number = job.standing.last_number + (moment is not None)
    fresh = None if moment is None else scheduled(job, number, moment)
    skip = moment if job.standing.skip == one.scheduled_at else job.standing.skip
    standing = evolve(job.standing, last_number=number, scheduled=fresh, skip=skip)
    return evolve(job, standing=with_due_at(job, standing, now))


def is_outdated(job: Job) -> bool:
    """Whether this process derives the job's moments from newer data than its pending one was."""
    one, mine = job.standing.scheduled, fingerprint(job.spec.schedule)
    if one is None or mine == one.derived_from:
        return False
    return knows_better(mine, one.derived_from)


def _nearest(job: Job, moment: datetime) -> datetime | None:
    """Return the schedule's moment nearest to another one, of those that have not run."""
    grid, past = grid_of(job), job.standing.last_scheduled_at
    earlier = grid.last(job.anchor - TICK if past is None else past, moment)
    later = grid.after(moment)
    if earlier is None or later is None:
        return earlier or later
    return earlier if moment - earlier < later - moment else later


def reanchored(job: Job, *, now: datetime) -> Job | None:
    """Return the job at its schedule's next moment; ``None`` where that changes nothing.

    It is for a moment that lies years away because a clock was far ahead for a while. A schedule
    that took effect before now keeps its grid: otherwise moments of two grids would lie close
    together. A mark of ``skip_next`` moves with the moment.
    """
    moment = stray(job, now=now)
    if moment is None:
        return None
    one = job.standing.scheduled
    is_marked = one is not None and one.scheduled_at == job.standing.skip
    anchored, number = evolve(job, anchor=min(job.anchor, now)), job.standing.last_number + 1
    fresh = evolve(
        job.standing,
        last_number=number,
        scheduled=scheduled(anchored, number, moment),
        gaps=cancelled_ahead(job.standing.gaps, now),
        spare=None,
        skip=moment if is_marked else job.standing.skip,
        last_scheduled_at=None,
    )
    return evolve(anchored, standing=with_due_at(anchored, fresh, now))


def stray(job: Job, *, now: datetime) -> datetime | None:
    """Return the schedule's next moment where the pending one lies after it without a reason.

    Reasons are a pause, jitter, moments that were cancelled, an occurrence that is under way or is
    to be cancelled, and a clock that was set back by less than an hour or less than a period. A
    schedule that counts from the end of a run is asked as if one ended now.
    """
    one, standing = job.standing.scheduled, job.standing
    if one is None or has_begun(job, one) or standing.is_marked(one.number):
        return None
    if standing.pause:
        return None
    anchor = min(job.anchor, now)
    grid = Grid(job.spec.schedule, anchor, cancelled_ahead(standing.gaps, now))
    moment = grid.after(now)
    if moment is None or one.scheduled_at - moment <= BELIEVED:
        return None
    if counts_from_end(job.spec.schedule):
        return moment if one.scheduled_at - moment > moment - now else None
    past = standing.last_scheduled_at
    if past is not None and moment <= past and is_believed(job.spec.schedule, past, now, anchor):
        return None
    return moment


def is_believed(schedule: Schedule, past: datetime, now: datetime, anchor: datetime) -> bool:
    """Whether a moment that lies ahead of the clock may have run all the same."""
    if past - now <= BELIEVED:
        return True
    first = next_occurrence(schedule, now, anchor)
    return first is not None and past <= first
