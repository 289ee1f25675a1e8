"""What happens to a job, in one call each: values in, values out."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime, timedelta

from attrs import evolve

from sched_core._model.claim import SUCCESS, Change, Claim, Decision, Ended, Hold, Start
from sched_core._model.execution import Execution, Status
from sched_core._model.job import Job, JobSpec
from sched_core._model.occurrence import Pending
from sched_core._model.policy import Policy
from sched_core._rules import define, operate
from sched_core._rules.begin import begin
from sched_core._rules.finish import finish
from sched_core._rules.hold import held, lapse, renewed
from sched_core._rules.standing import current, replaced, with_due_at
from sched_core.schedule import Interval, Schedule

T0 = datetime(2026, 1, 1, tzinfo=UTC)
SECOND, MINUTE = timedelta(seconds=1), timedelta(minutes=1)
HOUR, DAY = timedelta(hours=1), timedelta(days=1)
LEASE = 30 * SECOND
HOURLY = Interval(hours=1)
FAILURE = Ended(Status.FAILED, "ValueError: no")
INTERRUPTION = Ended(Status.INTERRUPTED, "stop")
TOKENS = itertools.count(1)


def admit(
    schedule: Schedule, policy: Policy | None = None, *, declared: bool = True, now: datetime = T0
) -> Job:
    spec = JobSpec("job", schedule, policy=policy or Policy())
    return define.admit(spec, uid="uid", declared=declared, now=now)


def scheduled(job: Job) -> Pending:
    """Return the schedule's pending occurrence."""
    one = job.standing.scheduled
    assert one is not None
    return one


def changed(job: Job, **fields: object) -> Job:
    """Return the job with other fields of the occurrence that a claim is for."""
    one = current(job.standing)
    assert one is not None
    other = evolve(one, **fields)  # type: ignore[arg-type]  # names of fields
    return evolve(job, standing=with_due_at(job, replaced(job.standing, one, other), T0))


def claimed(job: Job, now: datetime) -> Claim:
    return Claim(job, next(TOKENS), "worker", now, now + LEASE)


def running(job: Job, now: datetime) -> Job:
    """Return the job as it is read while what is due is claimed."""
    one = current(job.standing)
    assert one is not None
    return evolve(job, held=one.number, held_at=now)


def begun(job: Job, now: datetime) -> tuple[Claim, Start]:
    """Claim the job: its handler is to be called."""
    claim = claimed(job, now)
    start = begin(claim, now=now)
    assert isinstance(start, Start), start
    return claim, start


def passed_over(job: Job, now: datetime) -> tuple[Job, tuple[Execution, ...]]:
    """Claim the job: its handler is not to be called."""
    decision = begin(claimed(job, now), now=now)
    assert isinstance(decision, Decision), decision
    assert decision.standing is not None
    return evolve(job, standing=decision.standing), decision.executions


def end(
    claim: Claim, start: Start, now: datetime, ended: Ended = SUCCESS, *, stored: Job | None = None
) -> tuple[Job, tuple[Execution, ...]]:
    """End a run, on what is stored now or else on what was claimed."""
    stored = claim.job if stored is None else stored
    started_at = claim.claimed_at
    decision = finish(claim, start, ended, started_at=started_at, now=now, stored=stored)
    assert decision.standing is not None
    return evolve(stored, standing=decision.standing), decision.executions


def run(job: Job, now: datetime, ended: Ended = SUCCESS) -> tuple[Job, Execution]:
    """Claim the job, call its handler, and end the run at once, with one execution."""
    claim, start = begun(job, now)
    job, (execution,) = end(claim, start, now, ended)
    return job, execution


def held_by_worker(job: Job, now: datetime) -> Hold:
    return held(job, current(job.standing), next(TOKENS), "worker", now, LEASE)


def lose(
    job: Job, now: datetime, *, alone: bool = False, stored: Job | None = None
) -> tuple[Job, tuple[Execution, ...]]:
    """Claim the job and never end the claim; return what is stored when its lease has ended."""
    hold = held_by_worker(job, now)
    if alone:
        hold = renewed(hold, now, LEASE, alone=True)
    after, executions = lapse(job if stored is None else stored, hold, now=hold.expires_at)
    assert after is not None
    return after, executions


def edit(job: Job, now: datetime, **changes: object) -> Change:
    """Change fields of the definition."""
    change = define.redefine(job, evolve(job.spec, **changes), now=now)  # type: ignore[arg-type]  # names of fields
    assert change is not None
    return change


def pause(job: Job, now: datetime, until: datetime | None = None) -> Job:
    return operate.pause(job, until=until, reason=None, now=now)


def statuses(executions: tuple[Execution, ...]) -> list[Status]:
    return [each.status for each in executions]


def told(executions: tuple[Execution, ...]) -> list[tuple[str, int, int]]:
    """Return what is told: the status, the hour after T0, and how many further ones."""
    return [
        (each.status.value, int((each.scheduled_at - T0) / HOUR), each.coalesced)
        for each in executions
    ]
