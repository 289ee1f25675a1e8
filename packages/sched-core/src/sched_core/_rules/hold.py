"""Stored claims: how they are made, renewed, lost and freed, and what their ends write."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta

from attrs import evolve

from sched_core._model.claim import Claim, Hold, Settlement
from sched_core._model.execution import Execution, Progress, Status
from sched_core._model.job import Job
from sched_core._model.occurrence import CancelMark, Pending
from sched_core._model.policy import share
from sched_core._rules.record import execution_of_hold, kept
from sched_core._rules.standing import replaced, with_due_at
from sched_core.clock import instant_after

QUARANTINE = timedelta(seconds=30)
"""How long a worker begins nothing else while it runs an occurrence whose next lost claim is its
last."""
SHORTEST_WAIT, LONGEST_WAIT = timedelta(seconds=1), timedelta(minutes=1)
"""Waits until an occurrence is due again after a lost claim; they double with each one."""


def held(
    job: Job, one: Pending | None, token: int, worker: str, now: datetime, lease: timedelta
) -> Hold:
    """Return the stored claim for an occurrence, or for the end of a pause."""
    until = instant_after(now, lease)
    keep = kept(job.spec.policy)
    return Hold(
        job.spec.id, job.uid, token, worker, now, now, until, one, keep, None, job.spec.queue
    )


def renewed(
    hold: Hold,
    now: datetime,
    lease: timedelta,
    *,
    alone: bool = False,
    progress: Progress | None = None,
) -> Hold:
    """Return the stored claim with a longer lease.

    Args:
        hold: The claim as it is stored.
        now: The present moment, by the clock that decides.
        lease: How long it lives from now on.
        alone: Whether its worker runs nothing else.
        progress: The newest that the handler has told; ``None`` leaves what is stored.
    """
    until = max(hold.expires_at, instant_after(now, lease))
    since = (hold.alone_at or now) if alone else None
    told = hold.progress if progress is None else progress
    return evolve(hold, renewed_at=now, expires_at=until, alone_at=since, progress=told)


def is_held_by(hold: Hold | None, claim: Claim) -> bool:
    """Whether a stored claim is the one that a worker believes it has."""
    return hold is not None and (hold.token, hold.worker) == (claim.token, claim.worker)


def is_to_be_cancelled(job: Job | None, hold: Hold) -> bool:
    """Whether the run of a stored claim is marked to be cancelled."""
    one = hold.pending
    if hold.cancel is not None:
        return True
    return (
        job is not None
        and one is not None
        and job.uid == hold.uid
        and job.standing.is_marked(one.number)
    )


def is_repeat(settlement: Settlement, found: Sequence[object]) -> bool:
    """Whether an earlier try of a settlement has written its executions.

    Args:
        settlement: A settlement whose claim is not held any more.
        found: What is stored under the id of each of its executions; ``None`` for nothing. A record
            that cannot be read does not count.
    """
    mine = settlement.claim.token, settlement.claim.worker
    return bool(settlement.executions) and all(
        isinstance(there, Execution)
        and (there.token, there.worker, there.status) == (*mine, each.status)
        for each, there in zip(settlement.executions, found, strict=True)
    )


def runs_alone(job: Job, one: Pending) -> bool:
    """Whether the occurrence is to run alone, because one more lost claim would be its last.

    Where the first lost claim is the last anyway, there is nothing to find out.
    """
    return 0 < one.lost == job.spec.policy.max_lost - 1


def lapse(
    job: Job | None, hold: Hold, *, now: datetime
) -> tuple[Job | None, tuple[Execution, ...]]:
    """Return what to store for a claim whose lease ran out: an attempt that counts, and a wait.

    The backend stores both; no schedule is asked. Only a claim that was lost while its worker ran
    nothing else ends the occurrence. Any other may be the crash of another job's handler, so the
    count stops one below ``max_lost``.
    """
    one, stored = hold.pending, _stored(job, hold)
    if one is None:
        return job, ()
    attempt = one.attempts + 1
    lost = (execution_of_hold(hold, one, attempt, Status.ABANDONED, now),)
    executions = freed(job, hold, lost, now=now)
    if job is None or stored is None:
        return job, executions
    most = job.spec.policy.max_lost
    count = min(stored.lost + 1, most)
    if 1 < most == count and stored.lost < most and not _was_alone(hold):
        count = most - 1
    marked = job.standing.is_marked(stored.number)
    wait = (
        timedelta(0)
        if marked or count == most
        else _wait(count, f"{job.uid}:{one.number}:{attempt}")
    )
    lapsed = evolve(
        stored,
        attempts=attempt,
        lost=count,
        began_at=stored.began_at or hold.claimed_at,
        due_at=max(stored.due_at, instant_after(now, wait)) if wait else stored.due_at,
    )
    return evolve(
        job, standing=with_due_at(job, replaced(job.standing, stored, lapsed), now)
    ), executions


def _was_alone(hold: Hold) -> bool:
    """Whether a claim was lost while its worker ran nothing else, as far as is known."""
    since = hold.alone_at
    return since is not None and hold.renewed_at < since + QUARANTINE


def _wait(lost: int, key: str) -> timedelta:
    """Return the wait after so many lost claims, from half of it to all of it by the key."""
    longest = min(SHORTEST_WAIT * 2.0 ** min(lost - 1, 30), LONGEST_WAIT)
    return longest * (0.5 + share(key) / 2)


def freed(
    job: Job | None, hold: Hold, executions: tuple[Execution, ...] = (), *, now: datetime
) -> tuple[Execution, ...]:
    """Return the executions to write when a stored claim ends, whichever call ends it.

    An edit or a removal leaves the final execution of what is held to its claim: it is added here.
    """
    one, mark = hold.pending, hold.cancel
    for each in executions:
        if each.final:
            return executions if mark is None else tuple(_told(mark, one) for one in executions)
    if one is None or _stored(job, hold) is not None:
        return executions
    if mark is None:
        return (*executions, execution_of_hold(hold, one, 0, Status.SUPERSEDED, now))
    cancelled = execution_of_hold(hold, one, 0, Status.CANCELLED, now)
    return (*executions, _told(mark, cancelled))


def _told(mark: CancelMark, execution: Execution) -> Execution:
    """Return an execution with what the mark of a removal says: its worker does not know that."""
    if execution.status is not Status.CANCELLED:
        return execution
    return evolve(execution, reason=mark.reason, actor=mark.actor)


def leaves_pending(job: Job | None, hold: Hold, settlement: Settlement) -> bool:
    """Whether a settlement would leave an occurrence pending although it has its final execution.

    That settlement was decided while the job was gone, and the job has been added again since.
    """
    if settlement.standing is not None or _stored(job, hold) is None:
        return False
    return any(each.final and is_left_to_claim(hold, each) for each in settlement.executions)


def is_left_to_claim(hold: Hold | None, execution: Execution) -> bool:
    """Whether an execution that an edit or a removal writes is left to the claim."""
    one = None if hold is None else hold.pending
    if hold is None or one is None:
        return False
    return (execution.uid, execution.number) == (hold.uid, one.number)


def as_left(hold: Hold | None, executions: Iterable[Execution]) -> Hold | None:
    """Return a stored claim with what an edit or a removal leaves to it.

    The final execution of what is held is written when its claim ends. By then no schedule can
    count the moments that it covered: the edit takes that schedule away. A removal that cancels
    what is held says so by the status.
    """
    for each in executions:
        if hold is None or hold.pending is None or not is_left_to_claim(hold, each):
            continue
        if not each.final:
            continue
        one = hold.pending
        if each.coalesced:
            one = evolve(one, coalesced=each.coalesced, coalesced_until=each.coalesced_until)
        mark = hold.cancel
        if each.status is Status.CANCELLED:
            mark = CancelMark(each.number, each.reason, each.actor)
        hold = evolve(hold, pending=one, cancel=mark)
    return hold


def _stored(job: Job | None, hold: Hold) -> Pending | None:
    """Return the held occurrence as it is stored now."""
    if job is None or job.uid != hold.uid or hold.pending is None:
        return None
    return job.standing.find(hold.pending.number)
