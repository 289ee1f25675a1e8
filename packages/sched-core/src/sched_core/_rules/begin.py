"""The decision about a new claim: run an attempt, or settle without one."""

from __future__ import annotations

from datetime import datetime, timedelta

from sched_core._model.claim import Claim, Decision, Start
from sched_core._model.execution import OVERLAPPED, Status
from sched_core._model.job import Job
from sched_core._model.occurrence import CancelMark, Pending
from sched_core._model.policy import CatchUp, Coalesce, Drop
from sched_core._rules.finish import CANCELLED, waiting, what_follows
from sched_core._rules.grid import (
    NONE_BEHIND,
    TICK,
    Behind,
    coverage,
    following,
    grid_of,
    passed,
    rest_of_backfill,
)
from sched_core._rules.hold import runs_alone
from sched_core._rules.moment import rederived
from sched_core._rules.operate import resumed_if_over
from sched_core._rules.record import final_execution
from sched_core._rules.standing import current, replaced, scheduled, with_due_at
from sched_core._support.values import evolve
from sched_core.schedule import counts_from_end
from sched_core.schedule.derivation import fingerprint


def begin(claim: Claim, *, now: datetime) -> Start | Decision:
    """Return what to do with a claim: call the handler, or settle without a call.

    The moments that an occurrence covers are fixed when it is first claimed. ``Drop`` and the
    window of ``CatchUp`` judge it again after a lost or an interrupted claim, and never between
    retries.
    """
    job, standing, policy = claim.job, claim.job.standing, claim.job.spec.policy
    due_at, one = standing.due_at, current(standing)
    if due_at is None or (due_at > claim.claimed_at and due_at > now):
        return Decision(None)  # handed out early
    if one is None:
        return Decision(resumed_if_over(job, now=max(now, due_at)).standing)

    moment, attempt = one.scheduled_at, one.attempts + 1
    if standing.is_marked(one.number):
        return _cancelled(claim, one, now)
    is_scheduled = one.is_scheduled
    derived_from = fingerprint(job.spec.schedule)
    if is_scheduled and one.began_at is None and one.derived_from != derived_from:
        mended = rederived(job, now=now)
        if mended is not None and mended.standing.find(one.number) is None:
            return Decision(mended.standing)
    mark, from_end = standing.skip, counts_from_end(job.spec.schedule)
    if mark is not None and is_scheduled and (mark == moment or (from_end and mark < moment)):
        by = standing.skip_actor
        return _without_attempt(claim, one, Status.SKIPPED, now, None, Behind(), actor=by)
    if one.lost >= policy.max_lost:
        reason = f"lost: {one.lost} claims in a row were never settled"
        return _without_attempt(claim, one, Status.FAILED, now, reason)
    alone = one.lost > 0 and runs_alone(job, one)
    if not is_scheduled:
        return Start(
            one.number, moment, one.kind, attempt, alone=alone, args=one.args, actor=one.actor
        )

    if type(policy.misfire) is not Coalesce:
        missed = _missed(claim, one, now)
        if missed is not None:
            return missed
    at = one.began_at or claim.claimed_at
    behind, next_one = NONE_BEHIND, None if from_end else following(job, moment)
    if one.coalesced or (next_one is not None and next_one <= at):
        behind = coverage(job, one, at)
        if next_one is not None and behind.last is not None:
            next_one = following(job, behind.last)
    deadline = None
    if policy.overlap == "cancel" and not from_end:
        deadline = next_one if next_one is None or next_one > at else following(job, at)
    if deadline is not None and one.began_at is not None and deadline <= claim.claimed_at:
        return _without_attempt(claim, one, Status.CANCELLED, now, OVERLAPPED)
    if one.retry_at is not None and one.retry_at > max(claim.claimed_at, now):
        # It was due for its deadline, which does not hold any more.
        waits = replaced(standing, one, waiting(one, one.retry_at, deadline))
        return Decision(with_due_at(job, waits, now))
    return Start(
        one.number,
        moment,
        one.kind,
        attempt,
        behind.number,
        behind.last,
        deadline,
        alone,
        None,
        next_one,
        one.actor,
    )


def _cancelled(claim: Claim, one: Pending, now: datetime) -> Decision:
    """Return the decision that ends a marked occurrence, and of a request also its rest."""
    mark = claim.job.standing.mark_of(one.number) or CancelMark(one.number)
    rest = None if one.is_scheduled else rest_of_backfill(claim.job, one)
    reason = mark.reason or CANCELLED
    return _without_attempt(claim, one, Status.CANCELLED, now, reason, rest, actor=mark.actor)


def _missed(claim: Claim, one: Pending, now: datetime) -> Decision | None:
    """Return the decision for what the misfire policy passes over, in one execution for all."""
    job, misfire, moment = claim.job, claim.job.spec.policy.misfire, one.scheduled_at
    if one.failures or one.snoozes:
        return None
    # Jitter is no lateness: it is judged as if there were none.
    judged = claim.claimed_at - (scheduled(job, one.number, moment).due_at - moment)
    spare = job.standing.spare
    if judged <= moment or (spare is not None and spare in (moment, one.coalesced_until)):
        return None
    if isinstance(misfire, Drop):
        runs_from, reason = _before(judged, misfire.grace), f"later than {misfire.grace}"
    elif isinstance(misfire, CatchUp):
        runs_from, reason = _caught_up(job, one, misfire, judged)
    else:
        return None
    if moment >= runs_from:
        return None
    until = runs_from - TICK
    if spare is not None:
        until = min(until, spare - TICK)
    if one.began_at is not None:
        until = min(until, one.began_at)  # what passed later is the overlap policy's
    behind = passed(job, one.coalesced_until or moment, until)
    whole = Behind(one.coalesced + behind.number, behind.last or one.coalesced_until)
    return _without_attempt(claim, one, Status.MISSED, now, reason, whole)


def _caught_up(job: Job, one: Pending, misfire: CatchUp, judged: datetime) -> tuple[datetime, str]:
    """Return the first late moment that runs, and the reason why those before it do not."""
    moment = runs_from = one.scheduled_at
    if one.began_at is None:
        runs_from = _newest(job, moment, judged, misfire.limit)
    if misfire.window is None:
        return runs_from, f"beyond the newest {misfire.limit}"
    reason = f"beyond the newest {misfire.limit} within {misfire.window}"
    return max(runs_from, _before(judged, misfire.window)), reason


def _newest(job: Job, moment: datetime, until: datetime, limit: int) -> datetime:
    """Return the oldest of the newest ``limit`` moments from the first to the last."""
    grid, oldest = grid_of(job), moment
    pause = job.standing.pause
    until = until if pause is None else min(until, pause.since)
    if counts_from_end(job.spec.schedule) or grid.count(moment, until) < limit:
        return moment
    if limit > _STEPS:
        return _newest_by_halving(job, moment, until, limit)
    for _ in range(limit):
        earlier = grid.last(moment, until)
        if earlier is None:
            return moment
        oldest, until = earlier, earlier - TICK
    return oldest


_STEPS = 64
"""The most moments to step over one by one; halving a century takes about as many questions."""


def _newest_by_halving(job: Job, moment: datetime, until: datetime, limit: int) -> datetime:
    grid, low, high = grid_of(job), moment, until
    while high - low > TICK:
        middle = low + (high - low) / 2
        if grid.count(middle, until) < limit:
            high = middle
        else:
            low = middle
    return grid.after(low) or moment


def _before(now: datetime, by: timedelta) -> datetime:
    try:
        return now - by
    except OverflowError:
        return datetime.min.replace(tzinfo=now.tzinfo)


def _without_attempt(
    claim: Claim,
    one: Pending,
    status: Status,
    now: datetime,
    reason: str | None,
    behind: Behind | None = None,
    *,
    actor: str | None = None,
) -> Decision:
    """Return the decision that ends an occurrence without an attempt.

    Args:
        claim: The claim.
        one: The occurrence.
        status: How it ends.
        now: The present moment, by the clock that decides.
        reason: Why, in words for people.
        behind: The moments that it covers, where they are not those of a run.
        actor: Who cancels or skips it; any other execution names who asked for it.
    """
    behind = coverage(claim.job, one, one.began_at) if behind is None else behind
    by_hand = status is Status.CANCELLED or status is Status.SKIPPED
    told = evolve(one, actor=actor) if by_hand and one.actor != actor else one
    execution = final_execution(
        claim.job, told, status, now, reason=reason, claim=claim, behind=behind
    )
    return what_follows(claim.job, one, execution, now, began_at=one.began_at)
