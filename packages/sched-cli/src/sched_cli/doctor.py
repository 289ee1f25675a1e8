"""The examination of a store and its jobs: what is wrong, and what may surprise."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from attrs import field, frozen

from sched_cli.fleet import no_route_since
from sched_cli.health import OVERDUE, no_route, shown, unserved, waits_since
from sched_core import (
    ExecutionQuery,
    Job,
    Running,
    Scheduler,
    Status,
    UndecodableExecution,
    WorkerState,
)
from sched_core.advice import advise, far_ahead

RECENT = timedelta(days=1)


@frozen
class Findings:
    """The result of an examination.

    Attributes:
        problems: Sentences about what is wrong now.
        notices: Sentences about what was wrong, and is over.
        advice: Sentences about what may surprise in a definition.
        facts: Counts of jobs by state, and of the last day's executions by status.
    """

    problems: list[str] = field(factory=list)
    notices: list[str] = field(factory=list)
    advice: list[str] = field(factory=list)
    facts: dict[str, Any] = field(factory=dict)


async def examine(scheduler: Scheduler) -> Findings:
    """Write to the store, read all jobs and the last day's history, and report what is wrong."""
    found = Findings()
    health = await scheduler.health()
    found.problems.extend(
        problem for problem in health.problems if not problem.startswith("handler:")
    )
    now = health.at
    states: Counter[str] = Counter()
    workers = await scheduler.list_workers()
    runs = {run.job_id: run async for run in scheduler.list_running()}
    switches = await scheduler.list_maintenance()
    found.notices.extend(f"maintenance: {switch}" for switch in switches)
    async for job in scheduler.list_jobs():
        if not isinstance(job, Job):
            states["unreadable"] += 1
            found.problems.append(f"job {job.id!r} cannot be read here: {job.reason}")
            continue
        states[job.state.value] += 1
        if job.held is not None or not any(switch.covers(job.spec) for switch in switches):
            _judge_wait(found, job, runs.get(job.id), workers, now)
        if (problem := far_ahead(job, now=now)) is not None:
            found.problems.append(f"job {job.id!r}: {problem}")
        found.advice.extend(f"job {job.id!r}: {each}" for each in advise(job.spec, now=now))
    found.problems.extend(await unserved(scheduler, now, switches))
    statuses: Counter[str] = Counter()
    failed: Counter[str] = Counter()
    newest: UndecodableExecution | None = None
    latest: dict[str, Status] = {}
    """The status of each job's newest occurrence; executions come newest first."""
    async for each in scheduler.list_executions(ExecutionQuery(since=now - RECENT)):
        if isinstance(each, UndecodableExecution):
            statuses["unreadable"] += 1
            newest = newest or each
            continue
        statuses[each.status.value] += 1
        if each.final:
            latest.setdefault(each.job_id, each.status)
        if each.final and each.status is Status.FAILED:
            failed[each.job_id] += 1
    for job_id, number in sorted(failed.items()):
        said = f"job {job_id!r} failed {_times(number)} in the last day"
        if latest[job_id] is Status.SUCCEEDED:
            found.notices.append(f"{said}, and has succeeded since")
        else:
            found.problems.append(said)
    if newest is not None:
        found.problems.append(
            f"the history of the last day has {_records(statuses['unreadable'])} cannot be read "
            f"here; the newest is {newest.id!r} of job {newest.job_id!r}: {newest.reason}"
        )
    found.facts.update(jobs=dict(states), executions=dict(statuses))
    return found


def _judge_wait(
    found: Findings,
    job: Job,
    run: Running | None,
    workers: Sequence[WorkerState],
    now: datetime,
) -> None:
    """Report a job that should have run a while ago."""
    since = waits_since(job)
    if since is None or now - since <= OVERDUE:
        return
    said = f"job {job.id!r} has been due since {shown(since)}"
    if job.held is not None and (run is None or run.lease_left > -OVERDUE):
        found.notices.append(f"{said}: its run takes long")
    elif job.held is not None:
        found.problems.append(f"{said}: its worker has died, and no other has taken note")
    elif (at := no_route_since(job, workers, now)) is not None:
        found.problems.append(no_route(job.id, at))
    elif since != job.standing.due_at:
        found.problems.append(f"{said}: its claims are lost, again and again: its workers die")
    else:
        found.problems.append(f"{said}: no worker runs it")


def _records(number: int) -> str:
    return "a record that" if number == 1 else f"{number} records that"


def _times(number: int) -> str:
    return "once" if number == 1 else f"{number} times"
