"""Whether a store and its service work now: for probes, which ask every few seconds.

A probe reads only live state, never the history, so it costs the same however much has run. Only
where a job is overdue, it also counts what is due in each queue; under maintenance of a queue or a
group, it reads the jobs to see whether another one is overdue.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from attrs import field, frozen

from sched_cli.application import store_of
from sched_cli.fleet import MOST_TOLD, is_alive, no_route_since
from sched_core import (
    Job,
    JobNotFound,
    JobUndecodable,
    Maintenance,
    Scheduler,
    WorkerState,
)
from sched_core.ports import Backend, Probed, Undecodable

OVERDUE = timedelta(minutes=1)
"""How long a job may be due before the probe reports that no worker runs it."""


@frozen
class Condition:
    """The result of a probe.

    Attributes:
        problems: Sentences about what is wrong now.
        facts: The store, its workers, what is under maintenance, and since when a job has been due
            that is not.
    """

    problems: list[str] = field(factory=list)
    facts: dict[str, Any] = field(factory=dict)


async def probe(scheduler: Scheduler, *, own: str) -> Condition:
    """Write to the store, look for overdue jobs, and for workers.

    Args:
        scheduler: An open scheduler that runs nothing.
        own: The prefix of the names of this program's own workers, which run nothing.
    """
    found = Condition()
    health = await scheduler.health()
    # This scheduler has no handler, and needs none.
    found.problems.extend(each for each in health.problems if not each.startswith("handler:"))
    found.facts["store"] = store_of(scheduler.backend)
    if found.problems:
        return found
    backend, workers = scheduler.backend, await scheduler.list_workers()
    probed = await backend.live_workers() if isinstance(backend, Probed) else None
    reported = [each.name for each in workers if is_alive(each, health.at)]
    # A host that only calls run_due reports nothing: no report does not mean that none is alive.
    alive = None
    if probed is not None or reported:
        alive = sorted({each for each in (*(probed or ()), *reported) if not each.startswith(own)})
    switches = await scheduler.list_maintenance()
    since = await due_since(scheduler, backend)
    if since is not None and health.at - since > OVERDUE and switches:
        since = await due_of_listed(scheduler, switches)
    found.facts.update(workers=alive, maintenance=list(map(str, switches)), due_since=since)
    if since is not None and health.at - since > OVERDUE:
        who = "no worker is alive" if alive == [] else "no worker runs it"
        found.problems.append(f"a job has been due since {shown(since)}: {who}")
        found.problems.extend(await unserved(scheduler, health.at, switches))
        found.problems.extend(await unrouted(scheduler, workers, health.at))
    return found


async def unserved(
    scheduler: Scheduler, now: datetime, switches: Sequence[Maintenance]
) -> list[str]:
    """Return sentences on the queues with overdue jobs that no live worker serves.

    A queue under maintenance is left out, and so are all where the whole store is.
    """
    if any(switch.of_store for switch in switches):
        return []
    waiting = {switch.queue for switch in switches}
    counts = await scheduler.counts(now)
    return [
        f"queue {name!r}: no live worker serves it, and a job of it has been due since {shown(at)}"
        for name, at in counts.unserved.items()
        if now - at > OVERDUE and name not in waiting
    ]


async def unrouted(
    scheduler: Scheduler, workers: Sequence[WorkerState], now: datetime
) -> list[str]:
    """Return sentences on the overdue jobs that no live worker has a function for."""
    suspects = {
        job_id
        for worker in workers
        if is_alive(worker, now)
        for job_id, at in worker.unrouted.items()
        if now - at > OVERDUE
    }
    found = []
    for job_id in sorted(suspects)[:MOST_TOLD]:
        try:
            job = await scheduler.get_job(job_id)
        except (JobNotFound, JobUndecodable):
            continue  # it was removed, or edited by a newer version, after the worker told of it
        at = no_route_since(job, workers, now)
        if at is not None:
            found.append(no_route(job_id, at))
    return found


def no_route(job_id: str, since: datetime) -> str:
    """Return the sentence on a due job that no live worker has a function for."""
    return (
        f"job {job_id!r} has been due since {shown(since)}: no live worker has a function for it; "
        "add a route, or remove the job"
    )


def shown(moment: datetime) -> str:
    """Return a moment for a sentence, in UTC."""
    return f"{moment:%Y-%m-%d %H:%M:%S}Z"


async def due_since(scheduler: Scheduler, backend: Backend) -> datetime | None:
    """Return since when a job has been due that no worker has claimed."""
    if isinstance(backend, Probed):
        return await backend.due_since()
    # Such a store does not tell whether a lease has ended: a job whose run is long counts as well.
    return await _earliest(scheduler, ())


async def due_of_listed(scheduler: Scheduler, switches: Sequence[Maintenance]) -> datetime | None:
    """Return since when a job has been due that no worker has, nor maintenance covers."""
    if any(switch.of_store for switch in switches):
        return None
    return await _earliest(scheduler, switches)


async def _earliest(scheduler: Scheduler, switches: Sequence[Maintenance]) -> datetime | None:
    earliest: datetime | None = None
    async for job in scheduler.list_jobs():
        if isinstance(job, Undecodable):
            continue
        if switches and (job.held is not None or any(each.covers(job.spec) for each in switches)):
            continue
        due_at = waits_since(job)
        if due_at is not None and (earliest is None or due_at < earliest):
            earliest = due_at
    return earliest


def waits_since(job: Job) -> datetime | None:
    """Return the moment from which on a job should run, or should have run.

    A lost claim pushes the next attempt on, again and again where each worker dies of it. What
    counts is when the occurrence first began.
    """
    standing = job.standing
    if standing.due_at is None or standing.pause is not None:
        return standing.due_at
    pending = (
        standing.requests
        if standing.scheduled is None
        else (
            standing.scheduled,
            *standing.requests,
        )
    )
    lost = [one.began_at for one in pending if one.lost and one.began_at is not None]
    return min([standing.due_at, *lost])
