"""What the model keeps under one id, and what a claim means for it: said from the port's sentences.

Nothing here asks the core's rules: a fault there is not believed.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

from attrs import define, evolve

from sched_core import Claim, Execution, Hold, Job, Kind, Pending, Settlement, Standing, Status

Fence = tuple[int, str]
"""Token and worker of a claim."""
LONGEST_WAIT = timedelta(minutes=1)
QUARANTINE = timedelta(seconds=30)
"""How long a worker may run alone and still be believed to have been alone when it was lost."""
KEPT = timedelta(days=30)
"""How long executions are kept by a policy that does not say it."""


@define
class Entry:
    """What is stored under one id.

    Attributes:
        job: What comes next; ``None`` where it was removed during a run.
        hold: The claim that has not ended.
        settled: The newest settlement that was written here.
    """

    job: Job | None = None
    hold: Hold | None = None
    settled: Settlement | None = None

    def seen(self) -> Job | None:
        """Return the job as it is read: with what a claim holds of it."""
        job, hold = self.job, self.hold
        if job is None or hold is None or hold.pending is None or hold.uid != job.uid:
            return job
        return evolve(job, held=hold.pending.number, held_at=hold.claimed_at)

    def pending(self) -> Pending | None:
        """Return what is held as it is stored now, ``None`` where it was edited or removed away."""
        return None if self.hold is None else pending_of(self.job, self.hold)

    def left_to_claim(self, execution: Execution) -> bool:
        """Whether an execution is about what is held: its claim writes its end."""
        hold = self.hold
        if hold is None or hold.pending is None:
            return False
        return (execution.uid, execution.number) == (hold.uid, hold.pending.number)

    def covers(self, end: Execution) -> None:
        """Keep with the claim what the last execution covers that was left to the claim."""
        hold = self.hold
        if hold is not None and hold.pending is not None and end.final:
            until = end.coalesced_until
            one = evolve(hold.pending, coalesced=end.coalesced, coalesced_until=until)
            self.hold = evolve(hold, pending=one)


def pending_of(job: Job | None, hold: Hold) -> Pending | None:
    """Return what a claim is for as the job has it, ``None`` where that has it no more."""
    if job is None or job.uid != hold.uid or hold.pending is None:
        return None
    number = hold.pending.number
    return next((one for one in pendings(job.standing) if one.number == number), None)


def pendings(standing: Standing) -> Iterator[Pending]:
    """Yield all occurrences that have not ended."""
    if standing.scheduled is not None:
        yield standing.scheduled
    yield from standing.requests


def next_of(standing: Standing) -> Pending | None:
    """Return what a claim is for: of what may run the earliest; ``None``: the end of the pause."""
    pause = standing.pause
    open_ = [
        one
        for one in pendings(standing)
        if pause is None
        or standing.is_marked(one.number)
        or (one.kind is not Kind.SCHEDULED and one.origin > pause.last_number)
    ]
    first = min(open_, key=lambda one: (one.due_at, one.number), default=None)
    until = None if pause is None else pause.until
    if until is not None and (first is None or until <= first.due_at):
        return None
    return first


def due_of(standing: Standing) -> datetime | None:
    """Return the moment of what a claim is for."""
    one = next_of(standing)
    if one is not None:
        return one.due_at
    return None if standing.pause is None else standing.pause.until


def with_one(standing: Standing, one: Pending) -> Standing:
    """Return the standing with an occurrence in the place of the one that has its number."""
    if standing.scheduled is not None and standing.scheduled.number == one.number:
        changed = evolve(standing, scheduled=one)
    else:
        requests = tuple(one if each.number == one.number else each for each in standing.requests)
        changed = evolve(standing, requests=requests)
    return evolve(changed, due_at=due_of(changed))


def without(standing: Standing, number: int) -> Standing:
    """Return the standing without an occurrence."""
    if standing.scheduled is not None and standing.scheduled.number == number:
        changed = evolve(standing, scheduled=None)
    else:
        rest = tuple(each for each in standing.requests if each.number != number)
        changed = evolve(standing, requests=rest)
    return evolve(changed, due_at=due_of(changed))


# -- lost claims


def wait_after(lost: int) -> tuple[timedelta, timedelta]:
    """Return the shortest and the longest wait after so many lost claims in a row."""
    most = min(timedelta(seconds=1) * 2 ** min(lost - 1, 10), LONGEST_WAIT)
    return most / 2, most


def count_of_lost(one: Pending, most: int, hold: Hold) -> int:
    """Return how many claims are lost with this one; the last only if its worker was alone."""
    if one.lost + 1 < most or one.lost >= most or most == 1:
        return min(one.lost + 1, most)
    alone = hold.alone_at is not None and hold.renewed_at - hold.alone_at < QUARANTINE
    return most if alone else most - 1


def kept_by(job: Job) -> timedelta | None:
    """Return how long an execution is kept that no attempt wrote."""
    keep = job.spec.policy.keep_executions
    return KEPT if keep == "default" else keep


def owed(hold: Hold, now: datetime, status: Status, attempt: int) -> Execution:
    """Return the execution that the end of a claim owes its occurrence."""
    one = hold.pending
    if one is None:
        raise ValueError("the end of a claim that only ends a pause owes nothing")
    return Execution(
        id=f"{hold.uid}:{one.number}:{attempt}",
        job_id=hold.job_id,
        uid=hold.uid,
        number=one.number,
        attempt=attempt,
        kind=one.kind,
        scheduled_at=one.scheduled_at,
        status=status,
        final=status is Status.SUPERSEDED,
        token=hold.token,
        worker=hold.worker,
        claimed_at=hold.claimed_at,
        started_at=None,
        finished_at=now,
        coalesced=0 if attempt else one.coalesced,
        coalesced_until=None if attempt else one.coalesced_until,
        snoozes=one.snoozes,
        expires_at=None if hold.keep is None else now + hold.keep,
        queue=hold.queue,
        progress=hold.progress if attempt else None,
        actor=one.actor,
        args=one.args,
    )


def has_expired(kept: Any, now: datetime) -> bool:
    """Whether ``expires_at`` has come."""
    return kept.expires_at is not None and kept.expires_at <= now


def fence_of(claim: Claim | Hold) -> Fence:
    """Return token and worker."""
    return claim.token, claim.worker
