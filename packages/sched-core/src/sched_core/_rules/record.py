"""The executions of occurrences that no attempt decided, and how long executions are kept."""

from __future__ import annotations

from datetime import datetime, timedelta

from sched_core._model.claim import Claim, Hold
from sched_core._model.execution import Execution, Status
from sched_core._model.job import Job
from sched_core._model.occurrence import Pending
from sched_core._model.policy import KEPT, KEPT_GAPS, Policy
from sched_core._rules.grid import Behind, following, passed
from sched_core._support.values import evolve
from sched_core.clock import LAST, instant_after
from sched_core.schedule import counts_from_end

_SHORT = KEPT / KEPT_GAPS


def expiry(keep: timedelta | None, now: datetime) -> datetime | None:
    """Return the moment from which on a record may be deleted; ``None`` for never."""
    if keep is None:
        return None
    found = instant_after(now, keep)
    return None if found == LAST else found


def kept(policy: Policy, gap: timedelta | None = None) -> timedelta | None:
    """Return how long an execution is kept.

    Args:
        policy: The job's policy.
        gap: The time from its moment to the schedule's next one, where that is known.
    """
    if policy.keep_executions != "default":
        return policy.keep_executions
    if gap is None or gap <= _SHORT:
        return KEPT
    try:
        return KEPT_GAPS * gap
    except OverflowError:
        return None


def gap_after(job: Job, one: Pending, last: datetime | None, now: datetime) -> timedelta | None:
    """Return how long after an occurrence, or the last that it covers, the next one is due.

    ``None`` where that is unknown or of no use: the policy itself says how long to keep.
    """
    if not one.is_scheduled or job.spec.policy.keep_executions != "default":
        return None
    since = now if counts_from_end(job.spec.schedule) else last or one.scheduled_at
    next_one = following(job, since)
    return None if next_one is None else next_one - since


def final_execution(
    job: Job,
    one: Pending,
    status: Status,
    now: datetime,
    *,
    reason: str | None = None,
    claim: Claim | None = None,
    behind: Behind = Behind(),  # noqa: B008 -- immutable
) -> Execution:
    """Return the final execution of an occurrence that no attempt decided."""
    keep = kept(job.spec.policy, gap_after(job, one, behind.last, now))
    queue = job.spec.queue
    return _record(job.spec.id, job.uid, one, 0, status, now, claim, keep, queue, reason, behind)


def execution_of_passed(
    job: Job, since: datetime, number: int, status: Status, now: datetime, *, reason: str
) -> Execution | None:
    """Return one final execution, under a number of its own, for all that was due after a moment.

    ``None`` where nothing was due.
    """
    behind, first = passed(job, since, now), following(job, since)
    if not behind.number or first is None:
        return None
    rest = Behind(behind.number - 1, behind.last if behind.number > 1 else None)
    return final_execution(
        job, Pending(number, first, first), status, now, reason=reason, behind=rest
    )


def execution_of_hold(
    hold: Hold, one: Pending, attempt: int, status: Status, now: datetime
) -> Execution:
    """Return an execution of a stored claim's occurrence, even where its job is gone."""
    behind = Behind() if attempt else Behind(one.coalesced, one.coalesced_until)
    execution = _record(
        hold.job_id, hold.uid, one, attempt, status, now, hold, hold.keep, hold.queue, None, behind
    )
    return evolve(execution, progress=hold.progress) if attempt else execution


def _record(
    job_id: str,
    uid: str,
    one: Pending,
    attempt: int,
    status: Status,
    now: datetime,
    by: Claim | Hold | None,
    keep: timedelta | None,
    queue: str,
    reason: str | None = None,
    behind: Behind = Behind(),  # noqa: B008 -- immutable
) -> Execution:
    return Execution(
        id=f"{uid}:{one.number}:{attempt}",
        job_id=job_id,
        uid=uid,
        number=one.number,
        attempt=attempt,
        kind=one.kind,
        scheduled_at=one.scheduled_at,
        status=status,
        final=attempt == 0,
        token=by.token if by else 0,
        worker=by.worker if by else "",
        claimed_at=by.claimed_at if by else now,
        started_at=None,
        finished_at=now,
        reason=reason,
        coalesced=behind.number,
        coalesced_until=behind.last,
        snoozes=one.snoozes,
        expires_at=expiry(keep, now),
        queue=queue,
        actor=one.actor,
        args=one.args,
    )
