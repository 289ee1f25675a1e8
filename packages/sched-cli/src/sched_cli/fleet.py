"""The workers that are alive, and the due jobs that none of them has a function for."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from sched_core import Job, WorkerState

DEAD = timedelta(seconds=60)
"""A worker that has told nothing for so long is taken for dead, as ``Scheduler.counts`` does."""
MOST_TOLD = 100
"""A worker tells of at most so many jobs that it passes over: there may be more."""


def is_alive(worker: WorkerState, now: datetime) -> bool:
    """Whether a worker has told something of late."""
    return now - worker.seen_at < DEAD


def no_route_since(job: Job, workers: Sequence[WorkerState], now: datetime) -> datetime | None:
    """Return since when a job is due that no live worker has a function for.

    Args:
        job: The job, as stored now.
        workers: All workers of the store.
        now: The present moment.

    Returns:
        The moment; ``None`` where the job is not due, runs, or may have a worker.
    """
    due_at = job.standing.due_at
    if job.held is not None or due_at is None or due_at > now:
        return None
    told = [
        worker.unrouted
        for worker in workers
        if is_alive(worker, now) and not worker.stopping and worker.serves(job.spec.queue)
    ]
    named = [unrouted[job.id] for unrouted in told if job.id in unrouted]
    if not all(job.id in unrouted or len(unrouted) >= MOST_TOLD for unrouted in told):
        return None
    return min(named, default=None)
