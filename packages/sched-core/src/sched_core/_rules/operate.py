"""Pause, resume, skip, cancel, hurry: each returns a new job, written like an edit."""

from __future__ import annotations

from datetime import datetime

from attrs import evolve

from sched_core._model.job import Job
from sched_core._model.occurrence import CancelMark, Gap, Pause, Pending, Standing
from sched_core._rules.grid import (
    TICK,
    following,
    grid_of,
    still_ahead,
    with_gap,
)
from sched_core._rules.standing import (
    began_at,
    has_begun,
    replaced,
    scheduled,
    with_due_at,
    with_fixed_coverage,
)
from sched_core.errors import (
    InvalidDefinition,
    NothingToCancel,
    NothingToRetry,
    NothingToSkip,
)
from sched_core.schedule import counts_from_end, first_occurrence, utc


def is_placeholder(standing: Standing) -> bool:
    """Whether the job is a placeholder: no other job is paused without an occurrence."""
    return standing.pause is not None and standing.scheduled is None and not standing.requests


def activated(job: Job, now: datetime) -> Job:
    """Return a placeholder as a job that was just admitted."""
    job = evolve(job, anchor=now)
    first = first_occurrence(job.spec.schedule, now)
    number = job.standing.last_number + 1
    one = None if first is None else scheduled(job, number, first)
    standing = evolve(job.standing, last_number=number, scheduled=one, pause=None)
    return evolve(job, standing=with_due_at(job, standing, now))


def checked_until(until: datetime | None, *, now: datetime) -> datetime | None:
    """Return when something is to end on its own, in UTC.

    Raises:
        InvalidDefinition: It is naive or not after ``now``.
    """
    ends = None if until is None else utc(until, "until")
    if ends is not None and ends <= now:
        raise InvalidDefinition(
            "until", f"must be after the present moment, not {ends.isoformat()}"
        )
    return ends


def pause(
    job: Job,
    *,
    until: datetime | None,
    reason: str | None,
    now: datetime,
    actor: str | None = None,
) -> Job:
    """Return the job paused, or a paused one with the new end and reason; a finished one as it is.

    Raises:
        InvalidDefinition: ``until`` is naive or not after ``now``.
    """
    until = checked_until(until, now=now)
    job = resumed_if_over(job, now=now)
    standing = job.standing
    if standing.scheduled is None and not standing.requests:
        return job
    one = standing.scheduled
    at = None if one is None else began_at(job, one)
    if at is not None and at > now:
        # The clock was set back: the gap of this pause overlaps the moments that it covers.
        standing = with_fixed_coverage(job)
    begun = standing.pause or Pause(now, standing.last_number)
    paused = evolve(standing, pause=evolve(begun, until=until, reason=reason, actor=actor))
    return evolve(job, standing=with_due_at(job, paused, now))


def resume(job: Job, *, at: datetime) -> Job:
    """Return the job with its pause ended.

    Moments inside the pause do not run any more. What was due before it, or had begun, continues.
    Where the schedule has no moment after the pause, its last moment inside it runs.

    Args:
        job: The job as it is stored, with what is held of it.
        at: When the pause ended, unless its ``until`` came before.
    """
    standing, paused = job.standing, job.standing.pause
    if paused is None:
        return job
    if is_placeholder(standing):
        return activated(job, at)
    end = at if paused.until is None else min(at, paused.until)
    active = evolve(standing, pause=None)
    one = standing.scheduled
    if one is not None and one.scheduled_at <= end and paused.since < end:
        active = _without_paused_moments(job, active, one, paused.since, end)
    return evolve(job, standing=with_due_at(job, active, at))


def _without_paused_moments(
    job: Job, standing: Standing, one: Pending, since: datetime, end: datetime
) -> Standing:
    """Return the standing after a pause, without the moments inside it."""
    if counts_from_end(job.spec.schedule):
        return standing
    marked = standing.is_marked(one.number)
    owed = one.scheduled_at <= since or has_begun(job, one) or marked
    moment, spare = following(job, end), None
    if moment is None:
        moment = spare = grid_of(job).last(since, end)
        if moment is None:
            return standing  # what is owed is the last of all
        end = moment - TICK
    if owed:
        gaps = with_gap(standing.gaps, Gap(since, end))
        return evolve(standing, gaps=gaps, spare=None if spare == one.scheduled_at else spare)
    number = standing.last_number
    gaps = still_ahead(standing.gaps, min(moment, end))
    if moment == one.scheduled_at:
        return evolve(standing, gaps=gaps, spare=spare)
    fresh = scheduled(job, number + 1, moment)
    return evolve(standing, last_number=number + 1, scheduled=fresh, gaps=gaps, spare=spare)


def resumed_if_over(job: Job, *, now: datetime) -> Job:
    """Return the job resumed where the end of its pause has come, and no worker has seen it."""
    paused = job.standing.pause
    ends = None if paused is None else paused.until
    return resume(job, at=now) if ends is not None and ends <= now else job


def skip_next(
    job: Job, *, now: datetime, wanted: datetime | None = None, actor: str | None = None
) -> Job:
    """Return the job with a scheduled occurrence after now marked to be skipped.

    Args:
        job: The job as it is stored, with what is held of it.
        now: The present moment, by the clock that decides.
        wanted: The occurrence's nominal moment; ``None`` for the first one after now.
        actor: Who skips it.

    Raises:
        NothingToSkip: There is no such occurrence.
    """
    one = job.standing.scheduled
    moment = None if one is None else one.scheduled_at
    if one is not None and (one.scheduled_at <= now or job.held == one.number):
        # What runs already cannot be skipped, though the clock was set back before its moment.
        moment = following(job, max(now, one.scheduled_at))
    if moment is not None and wanted is not None and wanted > moment:
        is_one = not counts_from_end(job.spec.schedule) and following(job, wanted - TICK) == wanted
        moment = wanted if is_one else None
    if moment is None or moment != (wanted or moment):
        raise NothingToSkip(job.spec.id, wanted)
    if moment == job.standing.skip:
        return job
    return evolve(job, standing=evolve(job.standing, skip=moment, skip_actor=actor))


def unskip(job: Job) -> Job:
    """Return the job without the mark of :func:`skip_next`."""
    return evolve(job, standing=evolve(job.standing, skip=None, skip_actor=None))


def present_number(job: Job, number: int) -> int:
    """Return the number that an occurrence has now: a request for many moments changes its own.

    Each of its moments is an occurrence of its own. The number that it was asked for under names
    the whole request, until that has ended.
    """
    if job.standing.find(number) is None and number != job.held:
        for one in job.standing.requests:
            if one.origin == number:
                return one.number
    return number


def cancel(
    job: Job,
    *,
    now: datetime,
    number: int | None = None,
    reason: str | None = None,
    actor: str | None = None,
) -> Job:
    """Return the job with one occurrence marked: it ends ``cancelled``.

    The worker that runs it sees the mark at a renewal. One that waits is due at once, also inside a
    pause, and ends when a worker claims it. One that is marked keeps its mark.

    Args:
        job: The job as it is stored, with what is held of it.
        now: The present moment, by the clock that decides.
        number: The occurrence's number; ``None`` for the one that is held.
        reason: Why, in words for people.
        actor: Who cancels it.

    Raises:
        NothingToCancel: There is no such occurrence.
    """
    standing = job.standing
    asked, number = number, job.held if number is None else number
    one = None if number is None else standing.find(number)
    if number is None or (one is None and number != job.held):
        key = None if asked is None else f"{job.uid}:{asked}"
        raise NothingToCancel(job.spec.id, key)
    if one is not None:
        standing = replaced(standing, one, evolve(one, due_at=min(one.due_at, now)))
    marks = [
        mark for mark in standing.cancels if standing.find(mark.number) or mark.number == job.held
    ]
    if all(mark.number != number for mark in marks):
        marks.append(CancelMark(number, reason, actor))
    marked = evolve(standing, cancels=tuple(sorted(marks, key=lambda mark: mark.number)))
    return evolve(job, standing=with_due_at(job, marked, now))


def retry_now(
    job: Job, *, now: datetime, number: int | None = None, actor: str | None = None
) -> Job:
    """Return the job with occurrences that wait for their next attempt due now.

    Args:
        job: The job as it is stored, with what is held of it.
        now: The present moment, by the clock that decides.
        number: The occurrence's number; ``None`` for all.
        actor: Who asks for it.

    Raises:
        NothingToRetry: No such occurrence has begun.
    """
    standing = job.standing
    begun = [
        one
        for one in (standing.scheduled, *standing.requests)
        if one is not None and has_begun(job, one) and number in (None, one.number)
    ]
    if not begun:
        key = None if number is None else f"{job.uid}:{number}"
        raise NothingToRetry(job.spec.id, key)
    for one in begun:
        if one.began_at is not None and (one.retry_at or one.due_at) > now:
            by = one.actor if actor is None else actor
            at_once = evolve(one, due_at=min(one.due_at, now), retry_at=None, actor=by)
            standing = replaced(standing, one, at_once)
    return evolve(job, standing=with_due_at(job, standing, now))
