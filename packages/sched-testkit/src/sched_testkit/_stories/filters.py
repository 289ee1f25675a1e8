"""What a listing shows, written from the port's sentences and not with the port's own filters."""

from __future__ import annotations

from collections.abc import Mapping

from sched_core import Execution, Hold, Job
from sched_core.ports import ClaimQuery, ExecutionQuery, JobQuery


def selects(query: JobQuery, job: Job) -> bool:
    """Whether a listing shows the job: everything given must hold."""
    return (
        job.id[: len(query.id_prefix)] == query.id_prefix
        and query.state in {None, job.standing.state}
        and query.group in {None, job.spec.group}
        and query.queue in {None, job.spec.queue}
        and all(job.spec.metadata.get(key) == value for key, value in query.metadata.items())
    )


def picks(query: ExecutionQuery, execution: Execution) -> bool:
    """Whether a listing of the history shows the execution: ``finished_at`` in [since, until)."""
    return (
        query.job_id in {None, execution.job_id}
        and (len(query.statuses) == 0 or execution.status in query.statuses)
        and query.final in {None, execution.final}
        and not (query.since is not None and execution.finished_at < query.since)
        and not (query.until is not None and execution.finished_at >= query.until)
    )


def finds(query: ClaimQuery, hold: Hold) -> bool:
    """Whether a listing of claims shows the claim: everything given must hold."""
    return (
        query.job_id in {None, hold.job_id}
        and query.worker in {None, hold.worker}
        and query.queue in {None, hold.queue}
    )


def counts_under(queues: Mapping[str, int] | None, queue: str) -> str | None:
    """Return the name under which a worker counts jobs of a queue; ``None`` if it takes none."""
    if queues is None:
        return "*"
    return next((name for name in (queue, "*") if name in queues), None)
