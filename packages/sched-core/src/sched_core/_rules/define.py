"""Admit, edit, rename, remove: what a new definition does to the occurrences that are there."""

from __future__ import annotations

from datetime import datetime

from attrs import evolve

from sched_core._model.claim import Change
from sched_core._model.execution import Execution, Status
from sched_core._model.job import RESERVED, Job, JobSpec
from sched_core._model.occurrence import Pause, Pending, Standing
from sched_core._rules.finish import REMOVED
from sched_core._rules.grid import (
    TICK,
    Behind,
    Grid,
    cancelled_ahead,
    coverage,
    following,
    next_of_request,
    passed,
    requestable_grid,
    rest_of_backfill,
)
from sched_core._rules.moment import corrected, is_believed, without_future_waits
from sched_core._rules.operate import is_placeholder, resumed_if_over
from sched_core._rules.record import execution_of_passed, final_execution
from sched_core._rules.standing import (
    began_at,
    has_begun,
    is_owed,
    replaced,
    scheduled,
    with_coverage,
    with_due_at,
    with_fixed_coverage,
)
from sched_core.schedule import counts_from_anchor, first_occurrence

EDITED = "edited or removed"
MOVED_FROM = f"{RESERVED}moved-from"
"""The metadata key under which a copy with another id has the id of its original."""
_EMPTY = Standing(1, None, None)


def admit(spec: JobSpec, *, uid: str, declared: bool, now: datetime) -> Job:
    """Return a new job, anchored at ``now``; one whose schedule has no moment is finished."""
    first = first_occurrence(spec.schedule, now)
    empty = Job(spec, uid, declared, now, _EMPTY)
    if first is None:
        return Job(spec, uid, declared, now, with_due_at(empty, _EMPTY, now))
    one = scheduled(empty, 1, first)
    return Job(spec, uid, declared, now, Standing(1, one, one.due_at))


def placeholder(spec: JobSpec, *, uid: str, now: datetime) -> Job:
    """Return a job that reserves an id: it is visible, and not due before :func:`redefine`."""
    standing = Standing(0, None, None, pause=Pause(now, 0, None, "being declared"))
    return Job(spec, uid, True, now, standing)


def redefine(
    job: Job, spec: JobSpec, *, declared: bool | None = None, now: datetime
) -> Change | None:
    """Return the edited job; ``None`` where the definition is the stored one, and its moment right.

    Only a changed schedule moves anything. What is due or has begun is kept, as one occurrence,
    unless the new schedule follows the calendar and lacks that moment: then it is ``superseded``.
    Requests stay.

    Args:
        job: The job as it is stored, with what is held of it.
        spec: The new definition; its id is the job's.
        declared: Whether the job is declared from now on; ``None`` leaves that as it is.
        now: The present moment, by the clock that decides.
    """
    declared = job.declared if declared is None else declared
    if is_placeholder(job.standing):
        admitted = admit(spec, uid=job.uid, declared=declared, now=now)
        return Change(evolve(admitted, revision=job.revision, actor=job.actor))
    edited = evolve(job, spec=spec, declared=declared)
    if job.spec.schedule == spec.schedule:
        if job.spec.policy.misfire != spec.policy.misfire:
            edited = evolve(edited, standing=with_fixed_coverage(job))
        mended = corrected(edited, now=now)
        if mended is not None:
            return Change(mended)
        if edited == job and not is_moving(job, now=now):
            return None
        if job.standing.expires_at is None and job.standing.due_at is not None:
            return Change(edited)
        return Change(evolve(edited, standing=with_due_at(edited, edited.standing, now)))
    return _rescheduled(without_future_waits(resumed_if_over(job, now=now), now=now), edited, now)


def renamed(job: Job, job_id: str, *, now: datetime) -> Job:
    """Return the job under another id, with the names of its occurrences, and not due yet.

    What is held stays with the old record: its claim ends it. The copy becomes due when
    :func:`redefine` edits it; call that after the old record was removed.
    """
    standing = job.standing
    held = None if job.held is None else standing.find(job.held)
    spec = evolve(job.spec, id=job_id, metadata={MOVED_FROM: job.id})
    moved = evolve(job, spec=spec, revision=0, held=None, held_at=None)
    if held is not None and held.is_scheduled:
        behind = coverage(job, held, held.began_at or job.held_at)
        moment = following(job, behind.last or held.scheduled_at)
        number = standing.last_number + (moment is not None)
        one = None if moment is None else scheduled(job, number, moment)
        standing = evolve(standing, last_number=number, scheduled=one)
    elif held is not None:
        standing = replaced(standing, held)
    standing = with_due_at(moved, standing, now)
    return evolve(moved, standing=evolve(standing, due_at=None))


def is_moving(job: Job, *, now: datetime) -> bool:
    """Whether a job is a copy by :func:`renamed` that is not due yet: the original may be there.

    The only permitted change is :func:`redefine`. The copy has the names and numbers of the
    original: what became due here would run twice, and what was asked for would be written over.
    """
    standing = job.standing
    if standing.due_at is not None:
        return False
    # Copies that were made before they were marked are known by what is due in them.
    return moved_from(job) is not None or with_due_at(job, standing, now).due_at is not None


def moved_from(job: Job) -> str | None:
    """Return the id of the original, for a copy that is on its way from there."""
    return job.spec.metadata.get(MOVED_FROM) if job.standing.due_at is None else None


def final_executions(
    job: Job,
    *,
    now: datetime,
    actor: str | None = None,
    cancel: bool = False,
    reason: str | None = None,
) -> tuple[Execution, ...]:
    """Return the executions to write when the job is removed: of all that was due or begun.

    Args:
        job: The job as it is stored, with what is held of it.
        now: The present moment, by the clock that decides.
        actor: Who removes it.
        cancel: Whether what is held is to be cancelled: its execution, which the backend leaves to
            the claim, tells the claim so.
        reason: Why, in words for people.
    """
    found = _final_executions(job, now)
    if actor is not None:
        found = tuple(evolve(each, actor=actor) for each in found)
    if not cancel or job.held is None:
        return found
    why = reason or REMOVED
    if all(each.number != job.held for each in found):
        # An edit has taken it out of the standing: its claim knows what it covers.
        at = job.held_at or now
        unknown = final_execution(job, Pending(job.held, at, at), Status.CANCELLED, now)
        found = (*found, evolve(unknown, actor=actor))
    return tuple(
        evolve(each, status=Status.CANCELLED, reason=why) if each.number == job.held else each
        for each in found
    )


def _final_executions(job: Job, now: datetime) -> tuple[Execution, ...]:
    job = resumed_if_over(job, now=now)
    one, found = job.standing.scheduled, list[Execution]()
    if one is not None:
        found += _superseded(job, one, now)
    for request in job.standing.requests:
        number = _newest(job.standing.last_number, tuple(found)) + 1
        found += _withdrawn(job, request, number, now)
    return tuple(found)


def _withdrawn(job: Job, one: Pending, number: int, now: datetime) -> tuple[Execution, ...]:
    """Return the executions of a request that ends; of a backfill, also of its rest.

    Where it is held, its claim writes its final execution, and the rest has one with the number.
    """
    rest = rest_of_backfill(job, one)
    if job.held != one.number or not rest.number:
        return (final_execution(job, one, Status.SUPERSEDED, now, reason=EDITED, behind=rest),)
    own = final_execution(job, one, Status.SUPERSEDED, now, reason=EDITED)
    further = next_of_request(job, one)
    if further is None:
        return (own,)
    moment, moments = further
    later = evolve(one, number=number, scheduled_at=moment, moments=moments, snoozes=0)
    behind = rest_of_backfill(job, later)
    return own, final_execution(job, later, Status.SUPERSEDED, now, reason=EDITED, behind=behind)


def _rescheduled(job: Job, edited: Job, now: datetime) -> Change:
    """Return the edited job on its new schedule."""
    standing, old, schedule = job.standing, job.standing.scheduled, edited.spec.schedule
    edited = evolve(edited, anchor=now)
    pause = standing.pause
    standing = evolve(
        standing,
        pause=None if pause is None else evolve(pause, since=min(pause.since, now)),
        gaps=cancelled_ahead(standing.gaps, now),
        spare=None,
        skip=None,
        skip_actor=None,
    )
    found: tuple[Execution, ...] = ()
    if old is not None and is_owed(job, old, now):
        # What was to be cancelled before its moment must have its end, and is not due.
        is_due = old.scheduled_at <= now or has_begun(job, old)
        if is_due and _is_kept(edited, old):
            kept, standing, found = _kept(job, old, standing, now)
            standing = evolve(standing, scheduled=kept)
            return Change(evolve(edited, standing=with_due_at(edited, standing, now)), found)
        found = _superseded(job, old, now)
        standing = evolve(standing, last_number=_newest(standing.last_number, found))

    grid, past = Grid(schedule, now, standing.gaps), standing.last_scheduled_at
    first = grid.first()
    if past is not None and first is not None and first <= past:
        # A clock that was set back must not repeat moments that have run.
        if is_believed(schedule, past, now, now):
            first = grid.after(max(past, now))
        else:
            standing = evolve(standing, last_scheduled_at=None)
    number = standing.last_number + (first is not None)
    one = None if first is None else scheduled(edited, number, first)
    fresh = evolve(standing, last_number=number, scheduled=one)
    return Change(evolve(edited, standing=with_due_at(edited, fresh, now)), found)


def _newest(number: int, executions: tuple[Execution, ...]) -> int:
    return max([number, *(each.number for each in executions)])


def _is_kept(edited: Job, one: Pending) -> bool:
    """Whether the new schedule takes over what was due or had begun under the old one."""
    schedule, moment = edited.spec.schedule, one.scheduled_at
    if counts_from_anchor(schedule):
        return True
    return requestable_grid(edited, moment - TICK).after(moment - TICK) == moment


def _kept(
    job: Job, one: Pending, standing: Standing, now: datetime
) -> tuple[Pending, Standing, tuple[Execution, ...]]:
    """Return the kept occurrence, which covers what was due behind it; the rest is superseded.

    The moments that an occurrence covers are fixed when it begins.
    """
    at = began_at(job, one)
    if at is None:
        behind = passed(job, one.coalesced_until or one.scheduled_at, now)
        whole = one.coalesced + behind.number
        last = behind.last or one.coalesced_until
        return evolve(one, coalesced=whole, coalesced_until=last), standing, ()
    kept = with_coverage(job, one, at)
    rest = _rest(job, kept.until or one.scheduled_at, standing.last_number + 1, now)
    return kept, evolve(standing, last_number=_newest(standing.last_number, rest)), rest


def _superseded(job: Job, one: Pending, now: datetime) -> tuple[Execution, ...]:
    """Return the executions of a scheduled occurrence that ends, and of all that was due behind it.

    Where it is held, its claim writes its final execution, and what was due behind it has its own.
    """
    if not is_owed(job, one, now):
        return ()
    at = began_at(job, one)
    if at is None:
        behind = passed(job, one.coalesced_until or one.scheduled_at, now)
        behind = Behind(one.coalesced + behind.number, behind.last or one.coalesced_until)
        return (final_execution(job, one, Status.SUPERSEDED, now, reason=EDITED, behind=behind),)
    behind = coverage(job, one, at)
    own = final_execution(job, one, Status.SUPERSEDED, now, reason=EDITED, behind=behind)
    number = job.standing.last_number + 1
    return (own, *_rest(job, behind.last or one.scheduled_at, number, now))


def _rest(job: Job, since: datetime, number: int, now: datetime) -> tuple[Execution, ...]:
    """Return one execution for all that was due after a moment."""
    rest = execution_of_passed(job, since, number, Status.SUPERSEDED, now, reason=EDITED)
    return () if rest is None else (rest,)
