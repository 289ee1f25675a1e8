"""Whether a store and its service work now: for probes, which ask every few seconds.

A probe reads only live state, never the history, so it costs the same however much has run.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from attrs import field, frozen

from sched_cli.application import store_of
from sched_core import Scheduler
from sched_core.ports import Backend, Probed, Undecodable

OVERDUE = timedelta(minutes=1)
"""How long a job may be due before the probe reports that no worker runs it."""


@frozen
class Condition:
    """The result of a probe.

    Attributes:
        problems: Sentences about what is wrong now.
        facts: The store, its workers, and since when a job has been due.
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
    backend = scheduler.backend
    workers = await backend.live_workers() if isinstance(backend, Probed) else None
    alive = None if workers is None else [each for each in workers if not each.startswith(own)]
    since = await due_since(scheduler, backend)
    found.facts.update(workers=alive, due_since=since)
    if since is not None and health.at - since > OVERDUE:
        who = "no worker is alive" if alive == [] else "no worker runs it"
        found.problems.append(f"a job has been due since {since:%Y-%m-%d %H:%M:%S}Z: {who}")
    return found


async def due_since(scheduler: Scheduler, backend: Backend) -> datetime | None:
    """Return since when a job has been due that no worker has claimed."""
    if isinstance(backend, Probed):
        return await backend.due_since()
    # Such a store does not tell whether a lease has ended: a job whose run is long counts as well.
    earliest: datetime | None = None
    async for job in scheduler.list_jobs():
        if isinstance(job, Undecodable):
            continue
        due_at = job.standing.due_at
        if due_at is not None and (earliest is None or due_at < earliest):
            earliest = due_at
    return earliest
