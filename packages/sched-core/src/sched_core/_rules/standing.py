"""What a claim is for, and what is due when."""

from __future__ import annotations

from datetime import datetime

from sched_core._model.job import Job
from sched_core._model.occurrence import Gap, Pause, Pending, Standing
from sched_core._model.policy import share
from sched_core._rules.grid import coverage
from sched_core._rules.record import expiry
from sched_core._support.values import evolve
from sched_core.clock import instant_after
from sched_core.schedule.derivation import fingerprint, trail_of


def current(standing: Standing) -> Pending | None:
    """Return the occurrence that a claim is for; ``None``: it is for the end of the pause."""
    pause = standing.pause
    if pause is None and not standing.requests:
        return standing.scheduled
    first: Pending | None = None
    for one in (standing.scheduled, *standing.requests):
        if one is None or is_held_back(standing, one):
            continue
        if first is None or (one.due_at, one.number) < (first.due_at, first.number):
            first = one
    ends = None if pause is None else pause.until
    return None if ends is not None and (first is None or ends <= first.due_at) else first


def is_held_back(standing: Standing, one: Pending) -> bool:
    """Whether a pause holds a pending occurrence: it holds what was there when it began.

    A request that came later is claimed, and so is what is to be cancelled: its end is no run.
    """
    pause = standing.pause
    if pause is None or standing.is_marked(one.number):
        return False
    return one.is_scheduled or one.origin <= pause.last_number


def with_due_at(job: Job, standing: Standing, now: datetime) -> Standing:
    """Return the standing with its one due moment; finished if nothing is left."""
    if standing.scheduled is None and not standing.requests:
        return _standing_with(
            standing, None, None, standing.gaps, None, expiry_of_finished(job, now)
        )
    one, pause = current(standing), standing.pause
    due_at = one.due_at if one is not None else None if pause is None else pause.until
    return _standing_with(standing, due_at, pause, standing.gaps, standing.spare, None)


def expiry_of_finished(job: Job, now: datetime) -> datetime | None:
    """Return when a job that has nothing left may be deleted; ``None`` for never."""
    return expiry(None if job.declared else job.spec.policy.keep_finished, now)


def _standing_with(
    standing: Standing,
    due_at: datetime | None,
    pause: Pause | None,
    gaps: tuple[Gap, ...],
    spare: datetime | None,
    expires_at: datetime | None,
) -> Standing:
    # Five times as fast as evolve, on the way of every add and of the end of every one-shot.
    return Standing(
        standing.last_number,
        standing.scheduled,
        due_at,
        standing.requests,
        pause,
        gaps,
        spare,
        standing.skip,
        standing.cancels,
        standing.failing,
        standing.last_scheduled_at,
        standing.last_finished_at,
        standing.last_status,
        expires_at,
        standing.skip_actor,
    )


def replaced(standing: Standing, one: Pending, *instead: Pending) -> Standing:
    """Return the standing with others, or none, in the place of a pending occurrence."""
    if standing.scheduled is not None and standing.scheduled.number == one.number:
        return evolve(standing, scheduled=instead[0] if instead else None)
    return evolve(standing, requests=requests_with(standing, one, *instead))


def requests_with(standing: Standing, one: Pending, *instead: Pending) -> tuple[Pending, ...]:
    """Return the requests with others, or none, in the place of one."""
    requests: list[Pending] = []
    for other in standing.requests:
        requests += instead if other.number == one.number else (other,)
    return tuple(requests)


def has_begun(job: Job, one: Pending) -> bool:
    """Whether an occurrence was claimed, and the claim was not handed back."""
    return one.began_at is not None or job.held == one.number


def began_at(job: Job, one: Pending) -> datetime | None:
    """Return when an occurrence began, also where only its claim shows that it has."""
    return one.began_at or (job.held_at if has_begun(job, one) else None)


def with_fixed_coverage(job: Job) -> Standing:
    """Return the standing in which an occurrence that has begun keeps the moments that it covers.

    Otherwise these are counted at each attempt, by the policy, the schedule and the pauses of that
    time: one of these is about to change.
    """
    one = job.standing.scheduled
    at = None if one is None else began_at(job, one)
    if one is None or at is None:
        return job.standing
    return evolve(job.standing, scheduled=with_coverage(job, one, at))


def with_coverage(job: Job, one: Pending, at: datetime) -> Pending:
    """Return an occurrence that began at the moment, with the moments that it covers fixed."""
    behind = coverage(job, one, at)
    last = behind.last or one.scheduled_at
    return evolve(one, coalesced=behind.number, coalesced_until=behind.last, until=last)


def is_owed(job: Job, one: Pending, now: datetime) -> bool:
    """Whether an occurrence must have a final execution: it was asked for, has begun, or was due.

    One that is to be cancelled must have it: that is what the caller asked for.
    """
    pause = job.standing.pause
    due = not one.is_scheduled or one.scheduled_at <= (now if pause is None else pause.since)
    return due or has_begun(job, one) or job.standing.is_marked(one.number)


def scheduled(job: Job, number: int, moment: datetime) -> Pending:
    """Return the occurrence of the schedule with the number, at the moment."""
    jitter, mine = job.spec.policy.jitter, fingerprint(job.spec.schedule)
    if not jitter and not mine:
        return Pending(number, moment, moment)
    due_at = instant_after(moment, jitter * share(f"{job.uid}:{number}")) if jitter else moment
    before = job.standing.scheduled
    trail = trail_of(mine, "" if before is None else before.derived_from)
    return Pending(number, moment, due_at, derived_from=trail)
