"""Values that laws build by hand, and the values that their fields may have.

Nothing here asks the core's rules: a law that used the code it judges would agree with its
mistakes.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from attrs import evolve

from sched_core import (
    Claim,
    Execution,
    Job,
    JobSpec,
    Kind,
    Once,
    Pause,
    Pending,
    Policy,
    Schedule,
    Settlement,
    Standing,
    Status,
)
from sched_core.testing import FakeClock
from sched_testkit._stories.entry import due_of, next_of, with_one

FIELDS: dict[str, Any] = {
    "name": "send report",
    "group": "reports",
    "metadata": {"tenant": "7", "note": "ünï ✓"},
    "policy": Policy(timeout=timedelta(minutes=5), max_lost=3),
}
"""The fields of a job, unless a law says otherwise."""
START = datetime(2031, 5, 6, 7, 8, 9, 123456, tzinfo=UTC)
"""Far from the present: what reads the machine's clock instead of the given one shows."""
KEEP = timedelta(days=30)
SECOND = timedelta(seconds=1)


def whole(moment: datetime) -> datetime:
    """Return the second that a moment lies in: moments with and without a fraction differ."""
    return moment.replace(microsecond=0)


def occurrence_of(claim: Claim) -> Pending:
    """Return the occurrence that a claim is for; of a paused job the schedule's."""
    one = next_of(claim.job.standing) or claim.job.standing.scheduled
    assert one is not None, "there is nothing that could be claimed"
    return one


def execution_of(
    claim: Claim,
    at: datetime,
    status: Status = Status.SUCCEEDED,
    *,
    final: bool | None = None,
    attempt: int | None = None,
    **changes: Any,
) -> Execution:
    """Build the execution of a claim's attempt, which begins and ends at one moment.

    Args:
        claim: The claim.
        at: The moment.
        status: How the attempt ended.
        final: Whether it ends the occurrence; as the status implies unless given.
        attempt: The attempt's number; the next one's unless given, and 0 where none was made.
        changes: Other fields.
    """
    job, one = claim.job, occurrence_of(claim)
    attempt = one.attempts + 1 if attempt is None else attempt
    if final is None:
        final = status not in {Status.INTERRUPTED, Status.ABANDONED}
    execution = Execution(
        id=f"{job.uid}:{one.number}:{attempt}",
        job_id=job.id,
        uid=job.uid,
        number=one.number,
        attempt=attempt,
        kind=one.kind,
        scheduled_at=one.scheduled_at,
        status=status,
        final=final,
        token=claim.token,
        worker=claim.worker,
        claimed_at=claim.claimed_at,
        started_at=at if attempt else None,
        finished_at=at,
        snoozes=one.snoozes,
        actor=one.actor,
        args=one.args,
    )
    return evolve(execution, **changes)


def success_of(
    claim: Claim,
    at: datetime,
    *,
    due: datetime | None = None,
    executions: Sequence[Execution] | None = None,
    keep: bool = False,
    **changes: Any,
) -> Settlement:
    """Build a settlement: a success, after which the schedule is due at ``due``.

    Args:
        claim: The claim.
        at: When the attempt ended.
        due: When the schedule is due next; never again unless given.
        executions: What is written; the attempt's execution unless given.
        keep: Whether the rest of the job's standing stays; else nothing but the schedule is left.
        changes: Other fields of the standing.
    """
    before = claim.job.standing
    number = before.last_number + (due is not None)
    after = evolve(
        before if keep else Standing(number, None, None),
        last_number=number,
        scheduled=None if due is None else Pending(number, due, due),
        due_at=due,
        last_scheduled_at=occurrence_of(claim).scheduled_at,
        last_finished_at=at,
        last_status=Status.SUCCEEDED,
    )
    written = (execution_of(claim, at),) if executions is None else tuple(executions)
    return Settlement(claim, claim.job.revision, evolve(after, **changes), written)


class Values:
    """Builds jobs, requests, executions and settlements as of the present moment."""

    def __init__(self) -> None:
        self.clock = FakeClock(START)
        self._uids = itertools.count(1)

    pending = staticmethod(occurrence_of)

    def job(
        self,
        job_id: str = "job",
        *,
        due: datetime | str | None = "now",
        schedule: Schedule | None = None,
        **changes: Any,
    ) -> Job:
        """Build a job whose standing is written by hand: due now unless told otherwise.

        Without a due moment it is paused. No field that may say something is empty, and some
        moments are whole seconds.
        """
        now = self.clock.now()
        moment = now if due == "now" else due
        assert not isinstance(moment, str)
        spec = JobSpec(job_id, schedule or Once(moment or now), **(FIELDS | changes))
        standing = Standing(
            last_number=1,
            scheduled=Pending(1, moment or now, moment or now),
            due_at=moment,
            pause=None if moment is not None else Pause(whole(now), 1, None, "wait"),
            last_scheduled_at=whole(now) - 60 * SECOND,
            last_finished_at=now - 59 * SECOND,
            last_status=Status.FAILED,
        )
        return Job(spec, f"uid{next(self._uids):09}", False, whole(now) - 61 * SECOND, standing)

    def put_off(self, job: Job, due: datetime | None) -> Job:
        """Return the job with its occurrence due at another moment; paused without one."""
        one = job.standing.scheduled
        assert one is not None
        pause = None if due is not None else Pause(whole(self.clock.now()), one.number)
        put_off = evolve(one, due_at=one.due_at if due is None else due)
        standing = evolve(job.standing, scheduled=put_off, due_at=due, pause=pause)
        return evolve(job, standing=standing)

    def moved(self, job: Job, due: datetime | None = None, **changes: Any) -> Job:
        """Return the job with another occurrence of the schedule in the place of its present one.

        Args:
            job: The job as it was read.
            due: When the new one is; the moment of the other one unless given.
            changes: Other fields of the new occurrence.
        """
        standing, number = job.standing, job.standing.last_number + 1
        moment = due or standing.due_at or self.clock.now()
        one = Pending(number, moment, moment, **changes)
        moved = evolve(standing, last_number=number, scheduled=one, pause=None, due_at=one.due_at)
        return evolve(job, standing=evolve(moved, due_at=due_of(moved)))

    def finished(self, job: Job, **changes: Any) -> Job:
        """Return the job with nothing left to run."""
        standing = evolve(job.standing, scheduled=None, requests=(), pause=None, due_at=None)
        return evolve(job, standing=evolve(standing, **changes))

    def asked(self, job: Job, *requests: Pending) -> Job:
        """Return the job with requests, under the numbers that they bring."""
        newest = max(one.number for one in requests)
        standing = evolve(
            job.standing,
            last_number=max(job.standing.last_number, newest),
            requests=(*job.standing.requests, *requests),
        )
        return evolve(job, standing=evolve(standing, due_at=due_of(standing)))

    def request(self, number: int, due: datetime | None = None, **changes: Any) -> Pending:
        """Build a request; a trigger, due now, unless told otherwise."""
        now = self.clock.now()
        named: dict[str, Any] = {"kind": Kind.TRIGGERED, "origin": number} | changes
        return Pending(number, due or now, due or now, **named)

    def held(self, job: Job, claim: Claim) -> Job:
        """Return the job as it is read while a claim holds it."""
        return evolve(job, held=occurrence_of(claim).number, held_at=claim.claimed_at)

    def execution(
        self, claim: Claim, status: Status = Status.SUCCEEDED, **changes: Any
    ) -> Execution:
        """Build the execution of an attempt that ends now, and is kept for a while."""
        now = self.clock.now()
        return execution_of(claim, now, status, **({"expires_at": now + KEEP} | changes))

    def owed(self, claim: Claim, status: Status) -> Execution:
        """Build the execution that a claim which ends without a word leaves."""
        attempt = 0 if status is Status.SUPERSEDED else None
        return self.execution(claim, status, attempt=attempt, started_at=None)

    def settlement(
        self,
        claim: Claim,
        *,
        due: datetime | None = None,
        executions: Sequence[Execution] | None = None,
        **changes: Any,
    ) -> Settlement:
        """Build a settlement: a success after which the schedule is next due at ``due``."""
        written = (self.execution(claim),) if executions is None else executions
        return success_of(claim, self.clock.now(), due=due, executions=written, **changes)

    def retry(
        self,
        claim: Claim,
        status: Status = Status.FAILED,
        *,
        due: datetime | None = None,
        executions: Sequence[Execution] | None = None,
        **changes: Any,
    ) -> Settlement:
        """Build a settlement that leaves the occurrence to a further attempt, at ``due`` or now."""
        one = occurrence_of(claim)
        again = evolve(
            one,
            attempts=one.attempts + 1,
            failures=one.failures + (status is Status.FAILED),
            lost=0,
            began_at=one.began_at or claim.claimed_at,
            due_at=due or self.clock.now(),
        )
        standing = with_one(claim.job.standing, evolve(again, **changes))
        written = (
            (self.execution(claim, status, final=False),)
            if executions is None
            else tuple(executions)
        )
        return Settlement(claim, claim.job.revision, standing, written)
