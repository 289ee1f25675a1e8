"""What is left to be done, seen from outside."""

from __future__ import annotations

from tests.jetstream.replicas import Replicas

from sched_core import BackendUnavailable, ExecutionQuery, Job, Scheduler
from sched_core.testing import history


async def unfinished(scheduler: Scheduler, replicas: Replicas) -> set[str]:
    """Return the jobs that are still due, and the occurrences that began and have no end."""
    try:
        due = {
            job.id
            async for job in scheduler.list_jobs()
            if isinstance(job, Job) and job.standing.due_at is not None
        }
        begun = {start.key for start in replicas.starts()}
        ended = {
            f"{line.uid}:{line.number}"
            for line in await history(scheduler, ExecutionQuery(final=True))
        }
    except BackendUnavailable:
        return {"whatever there is: the server does not answer"}
    return due | (begun - ended)
