"""The decision at the end of a run: what is written, and which occurrence comes next."""

from __future__ import annotations

from datetime import datetime, timedelta

from sched_core._model.claim import Claim, Decision, Ended, Start
from sched_core._model.execution import Execution, Kind, Status
from sched_core._model.job import Job
from sched_core._model.occurrence import CancelMark, Gap, Pause, Pending, Standing
from sched_core._model.policy import Policy, Retry, backoff, retried
from sched_core._rules.grid import (
    NONE_BEHIND,
    Behind,
    Grid,
    gap_of_moment,
    next_of_request,
    rest_of_backfill,
    still_ahead,
    with_gap,
)
from sched_core._rules.record import execution_of_passed, expiry, gap_after, kept
from sched_core._rules.standing import (
    current,
    expiry_of_finished,
    replaced,
    requests_with,
    scheduled,
    with_due_at,
)
from sched_core._support.values import evolve
from sched_core.clock import instant_after
from sched_core.schedule import counts_from_end, next_occurrence

_SUCCEEDED, _SNOOZED = Status.SUCCEEDED, Status.SNOOZED
_CANCELLED, _INTERRUPTED = Status.CANCELLED, Status.INTERRUPTED
# Members of an enumeration take ten times as long to look up, and this is on the way of every run.
CANCELLED = "cancelled"
REMOVED = "cancelled: its job was removed"
LONGEST_WAIT = timedelta(minutes=1)
"""The longest wait before the next attempt, after a failure of the store interrupted one."""
_STORE_FAILED = Retry(backoff=timedelta(seconds=1), factor=2, maximum=LONGEST_WAIT, jitter=0.5)


def finish(
    claim: Claim,
    start: Start,
    ended: Ended,
    *,
    started_at: datetime,
    now: datetime,
    stored: Job | None,
) -> Decision:
    """Return what to store at the end of a run.

    The occurrence is found by its number. Where it is gone, it was edited or removed away: the run
    has its execution all the same, and no worker attempts it again.

    Args:
        claim: The claim that the run belongs to.
        start: What ``begin`` said.
        ended: How the run ended.
        started_at: When the handler was called.
        now: When it ended.
        stored: The claimed job, or after a conflict what is stored now; ``None`` if it is gone.
    """
    claimed = claim.job
    job = None if stored is None or stored.uid != claimed.uid else stored
    one = None if job is None else job.standing.find(start.number)
    policy = claimed.spec.policy if job is None or one is None else job.spec.policy
    status, reason, actor, again = ended.status, ended.reason, start.actor, None
    if status is not _SUCCEEDED:
        status, reason, actor = _outcome(job, one, start, ended, policy)
    if one is not None and status is not _SUCCEEDED:
        again = _next_attempt(claim, start, ended, status, one, policy, now)
    final = again is None and status is not _INTERRUPTED and status is not _SNOOZED
    next_one, gap = start.following, None
    if next_one is not None:
        gap = next_one - (start.coalesced_until or start.scheduled_at)
    elif job is not None and one is not None and counts_from_end(job.spec.schedule):
        gap = gap_after(job, one, None, now)
    # Of what was edited or removed away meanwhile, the claim tells how often it was put off.
    told = claimed.standing.find(start.number) if one is None else one
    behind = NONE_BEHIND
    if final and start.coalesced:
        behind = Behind(start.coalesced, start.coalesced_until)
    if status is _CANCELLED and job is not None and one is not None and not one.is_scheduled:
        behind = rest_of_backfill(job, one)
    execution = Execution(
        f"{claimed.uid}:{start.number}:{start.attempt}",
        claimed.spec.id,
        claimed.uid,
        start.number,
        start.attempt,
        start.kind,
        start.scheduled_at,
        status,
        final,
        claim.token,
        claim.worker,
        claim.claimed_at,
        started_at,
        now,
        reason,
        behind.number,
        behind.last,
        0 if told is None else told.snoozes,
        expiry(kept(policy, gap), now),
        claimed.spec.queue,
        ended.traceback,
        ended.log,
        ended.progress,
        claimed.spec.metadata or None,
        actor,
        start.args,
    )
    executions = () if status is _SNOOZED else (execution,)
    if job is None:
        return Decision(None, executions)
    if one is None:
        return Decision(_with_run_noted(job.standing, start, status, now), executions)
    if again is not None:
        return Decision(with_due_at(job, replaced(job.standing, one, again), now), executions)
    began_at = one.began_at or claim.claimed_at
    # What followed was computed from the claimed job: an edit may have put another in its place.
    known = (start.following,) if job is claimed else None
    return what_follows(job, one, execution, now, began_at=began_at, ran=True, known=known)


def postpone(claim: Claim, *, until: datetime, now: datetime, stored: Job | None) -> Decision:
    """Return what to store for a claim that did not run: the job is due again at ``until``."""
    one = current(claim.job.standing)
    there = None if stored is None or stored.uid != claim.job.uid else stored.standing
    later = None if one is None or there is None else there.find(one.number)
    if stored is None or there is None or later is None:
        return Decision(None)
    waits = replaced(there, later, evolve(later, due_at=max(until, later.due_at)))
    return Decision(with_due_at(stored, waits, now))


def _outcome(
    job: Job | None, one: Pending | None, start: Start, ended: Ended, policy: Policy
) -> tuple[Status, str | None, str | None]:
    """Return how a run ended without success, why, and by whom; a mark or a limit may change it."""
    status, reason = ended.status, ended.reason
    if status is _SNOOZED and one is not None and one.snoozes >= policy.max_snoozes:
        status, reason = Status.FAILED, f"snoozed more than {policy.max_snoozes} times"
    mark = None if job is None else job.standing.mark_of(start.number)
    if mark is not None:
        return _CANCELLED, mark.reason or reason or CANCELLED, mark.actor
    if status is _CANCELLED and reason is None:
        reason = REMOVED if job is None else CANCELLED
    return status, reason, start.actor


def _with_run_noted(standing: Standing, start: Start, status: Status, now: datetime) -> Standing:
    """Return the standing of a job that was edited while the occurrence ran, with that noted."""
    last, past = standing.last_scheduled_at, start.coalesced_until or start.scheduled_at
    if start.kind is Kind.SCHEDULED and (last is None or last < past):
        last = past
    if status is _SNOOZED:
        status = Status.SUPERSEDED  # the backend writes that as it frees the claim
    return evolve(standing, last_scheduled_at=last, last_finished_at=now, last_status=status)


def _next_attempt(
    claim: Claim,
    start: Start,
    ended: Ended,
    status: Status,
    one: Pending,
    policy: Policy,
    now: datetime,
) -> Pending | None:
    """Return the occurrence as it waits for its next attempt; ``None`` if there is to be none."""
    if status is Status.SNOOZED:
        again = evolve(
            one, snoozes=one.snoozes + 1, due_at=instant_after(now, ended.delay or timedelta(0))
        )
    elif status is Status.INTERRUPTED:
        if ended.by_store:
            key = f"{claim.job.uid}:{one.number}:{start.attempt}"
            due = instant_after(now, backoff(_STORE_FAILED, start.attempt - one.failures, key))
        else:
            # As early as it was: a clock that is set back must not make it wait.
            due = min(now, one.due_at)
        again = evolve(one, attempts=start.attempt, due_at=due)
    elif status is Status.FAILED and _may_be_retried(ended, one, policy.retry):
        failures = one.failures + 1
        wait = ended.delay
        if wait is None:
            key = f"{claim.job.uid}:{one.number}:{start.attempt}"
            wait = backoff(policy.retry, failures, key)
        due = instant_after(now, wait)
        again = evolve(one, attempts=start.attempt, failures=failures, due_at=due)
    else:
        return None
    again = evolve(again, lost=0, began_at=one.began_at or claim.claimed_at)
    return waiting(again, again.due_at, start.deadline)


def _may_be_retried(ended: Ended, one: Pending, retry: Retry) -> bool:
    """Return whether another attempt follows a failure.

    A handler that says when (RetryAfter) asks for it: the type of its error plays no role.
    """
    if not ended.retry or one.failures + 1 >= retry.attempts:
        return False
    asked = ended.status is Status.FAILED and ended.delay is not None
    return asked or retried(retry, ended.error_types)


def waiting(one: Pending, until: datetime, deadline: datetime | None) -> Pending:
    """Return an occurrence that waits for its next attempt, or for the deadline if that is first.

    A pause or an edit may take the deadline away: the attempt is then due no earlier.
    """
    if deadline is None or deadline >= until:
        return evolve(one, due_at=until, retry_at=None)
    return evolve(one, due_at=deadline, retry_at=until)


# -- what comes next


def what_follows(
    job: Job,
    one: Pending,
    execution: Execution,
    now: datetime,
    *,
    began_at: datetime | None,
    ran: bool = False,
    known: tuple[datetime | None] | None = None,
) -> Decision:
    """Return what comes after the final execution of a pending occurrence.

    Args:
        job: The job as it is stored.
        one: The occurrence that has ended.
        execution: The occurrence's final execution.
        now: When it ended.
        began_at: When it was first claimed; ``None`` if it never began.
        ran: Whether its handler was called just now.
        known: The schedule's next moment, where that was computed already.
    """
    standing = job.standing
    if not one.is_scheduled:
        return _after_request(job, one, execution, now, ran=ran)
    past = execution.coalesced_until or one.scheduled_at
    number, gaps = standing.last_number, standing.gaps
    executions: tuple[Execution, ...] = (execution,)
    covered = past
    if job.spec.policy.overlap == "skip" and began_at is not None:
        skipped = execution_of_passed(
            job, max(past, began_at), number + 1, Status.SKIPPED, now, reason="still running"
        )
        if skipped is not None:
            number, executions = number + 1, (execution, skipped)
            covered = skipped.coalesced_until or skipped.scheduled_at
            gaps, known = with_gap(gaps, Gap(max(past, began_at), covered)), None
    is_ahead = execution.status is _CANCELLED and began_at is None and past > now
    if is_ahead:
        gaps = with_gap(gaps, gap_of_moment(one.scheduled_at))
    if counts_from_end(job.spec.schedule):
        next_one = next_occurrence(job.spec.schedule, now, job.anchor)
    elif known is not None:
        (next_one,) = known
    else:
        next_one = Grid(job.spec.schedule, job.anchor, gaps).after(past)
    head = None
    if next_one is not None:
        number += 1
        head = scheduled(job, number, next_one)
    gaps = gaps and still_ahead(gaps, now if next_one is None else min(now, next_one))
    pause, failing = standing.pause, 0
    if execution.status is not _SUCCEEDED:
        pause, failing = _failures_in_a_row(job, execution, number, now)
    last = standing.last_scheduled_at
    if not is_ahead and (last is None or last < covered):
        last = covered
    is_over = head is None and not standing.requests
    spare = standing.spare if standing.spare is not None and standing.spare > past else None
    found = Standing(
        number,
        head,
        None if head is None else head.due_at,
        standing.requests,
        None if is_over else pause,
        gaps,
        None if is_over else spare,
        standing.skip if standing.skip is not None and standing.skip > past else None,
        standing.cancels and _remaining_cancels(standing, one),
        failing,
        last,
        now if ran else standing.last_finished_at,
        execution.status,
        expiry_of_finished(job, now) if is_over else None,
    )
    if found.skip is not None:
        found = evolve(found, skip_actor=standing.skip_actor)
    # A request that waits, or the end of a pause, may be due first.
    is_placed = is_over or (pause is None and not standing.requests)
    return Decision(found if is_placed else with_due_at(job, found, now), executions)


def _after_request(
    job: Job, one: Pending, execution: Execution, now: datetime, *, ran: bool
) -> Decision:
    """Return what comes after the final execution of a request: of a backfill, its next moment."""
    standing = job.standing
    rest = () if execution.status is Status.CANCELLED else _next_of_backfill(job, one, now)
    asked = evolve(
        standing,
        requests=requests_with(standing, one, *rest),
        last_number=standing.last_number + len(rest),
        cancels=_remaining_cancels(standing, one),
        last_finished_at=now if ran else standing.last_finished_at,
        last_status=execution.status,
    )
    return Decision(with_due_at(job, asked, now), (execution,))


def _failures_in_a_row(
    job: Job, execution: Execution, number: int, now: datetime
) -> tuple[Pause | None, int]:
    """Return the pause that so many failures in a row make, and how many there are now."""
    pause, failing, most = job.standing.pause, job.standing.failing, job.spec.policy.pause_after
    if execution.status is not Status.FAILED:
        return pause, failing
    failing += 1
    if pause is None and most is not None and failing >= most:
        return Pause(now, number, None, execution.reason), 0
    return pause, failing


def _remaining_cancels(standing: Standing, ended: Pending) -> tuple[CancelMark, ...]:
    """Return the marks to cancel of occurrences that are still there."""
    return tuple(
        mark
        for mark in standing.cancels
        if mark.number != ended.number and standing.find(mark.number)
    )


def _next_of_backfill(job: Job, one: Pending, now: datetime) -> tuple[Pending, ...]:
    """Return the next occurrence of a request for many moments."""
    further = next_of_request(job, one)
    if further is None:
        return ()
    return (
        Pending(
            job.standing.last_number + 1,
            further.moment,
            now,
            one.kind,
            key=one.key,
            origin=one.origin,
            until=one.until,
            args=one.args,
            actor=one.actor,
            moments=further.moments,
        ),
    )
