"""Values as fields of JSON, for programs."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from sched_cli.text import iso, schedule_text
from sched_core import (
    Counts,
    Execution,
    Job,
    Pending,
    Progress,
    Request,
    Running,
    Undecodable,
    UndecodableExecution,
    WorkerState,
    codec,
)


def job_fields(job: Job | Undecodable, no_route: datetime | None = None) -> dict[str, Any]:
    """Return a job.

    Args:
        job: The job as stored.
        no_route: Since when it is due and no live worker has a function for it.
    """
    if isinstance(job, Undecodable):
        return {"id": job.id, "readable": False, "reason": job.reason, "format": job.format}
    spec, standing, one, pause = job.spec, job.standing, job.standing.scheduled, job.standing.pause
    moments = {
        "next_run": job.next_run,
        "due_at": standing.due_at,
        "running_since": job.held_at,
        "skips": standing.skip,
        "paused_since": None if pause is None else pause.since,
        "paused_until": None if pause is None else pause.until,
        "last_scheduled_at": standing.last_scheduled_at,
        "last_finished_at": standing.last_finished_at,
        "expires_at": standing.expires_at,
        "no_route_since": no_route,
    }
    return {
        "id": spec.id,
        "readable": True,
        "name": spec.name,
        "group": spec.group,
        "queue": spec.queue,
        "metadata": dict(spec.metadata),
        "schedule": {"kind": codec.tag_of(spec.schedule), "text": schedule_text(spec.schedule)},
        "declared": job.declared,
        "state": job.state.value,
        "uid": job.uid,
        "running": None if job.held is None else f"{job.uid}:{job.held}",
        "next_key": None if one is None else f"{job.uid}:{one.number}",
        "anchor": iso(job.anchor),
        "attempts": 0 if one is None else one.attempts,
        "failures": 0 if one is None else one.failures,
        "requests": [_pending_fields(job, asked) for asked in standing.requests],
        "pause_reason": None if pause is None else pause.reason,
        "pause_actor": None if pause is None else pause.actor,
        "skip_actor": standing.skip_actor,
        "cancels": [
            {"key": f"{job.uid}:{mark.number}", "reason": mark.reason, "actor": mark.actor}
            for mark in standing.cancels
        ],
        "last_status": None if standing.last_status is None else standing.last_status.value,
        **{name: _moment(moment) for name, moment in moments.items()},
    }


def _pending_fields(job: Job, one: Pending) -> dict[str, Any]:
    return {
        "key": f"{job.uid}:{one.number}",
        "kind": one.kind.value,
        "scheduled_at": iso(one.scheduled_at),
        "due_at": iso(one.due_at),
        "attempts": one.attempts,
        "failures": one.failures,
        "actor": one.actor,
        "args": None if one.args is None else dict(one.args),
    }


def execution_fields(
    one: Execution | UndecodableExecution, *, whole: bool = False
) -> dict[str, Any]:
    """Return a record of the history.

    Args:
        one: The record.
        whole: Whether with the traceback and the log, which may have 16 KiB each.
    """
    if isinstance(one, UndecodableExecution):
        return {
            "id": one.id,
            "job_id": one.job_id,
            "readable": False,
            "reason": one.reason,
            "finished_at": _moment(one.finished_at),
            "record": one.record.decode(errors="backslashreplace"),
        }
    more = {"traceback": one.traceback, "log": one.log} if whole else {}
    return {
        "id": one.id,
        "job_id": one.job_id,
        "readable": True,
        "key": f"{one.uid}:{one.number}",
        "scheduled_at": iso(one.scheduled_at),
        "claimed_at": iso(one.claimed_at),
        "started_at": _moment(one.started_at),
        "finished_at": iso(one.finished_at),
        "status": one.status.value,
        "final": one.final,
        "kind": one.kind.value,
        "manual": one.manual,
        "attempt": one.attempt,
        "coalesced": one.coalesced,
        "coalesced_until": _moment(one.coalesced_until),
        "snoozes": one.snoozes,
        "reason": one.reason,
        "queue": one.queue,
        "worker": one.worker,
        "token": one.token,
        "actor": one.actor,
        "args": None if one.args is None else dict(one.args),
        "metadata": None if one.metadata is None else dict(one.metadata),
        "progress": _progress(one.progress),
        **more,
    }


def running_fields(one: Running) -> dict[str, Any]:
    """Return a run that a worker has."""
    return {
        "job_id": one.job_id,
        "key": one.key,
        "kind": one.kind.value,
        "scheduled_at": iso(one.scheduled_at),
        "attempt": one.attempt,
        "queue": one.queue,
        "worker": one.worker,
        "since": iso(one.since),
        "lease_left": one.lease_left.total_seconds(),
        "progress": _progress(one.progress),
    }


def worker_fields(one: WorkerState, *, alive: bool) -> dict[str, Any]:
    """Return what a worker tells of itself."""
    return {
        "name": one.name,
        "alive": alive,
        "stopping": one.stopping,
        "started_at": iso(one.started_at),
        "seen_at": iso(one.seen_at),
        "host": one.host,
        "pid": one.pid,
        "version": one.version,
        "executing": one.executing,
        "max_concurrency": one.max_concurrency,
        "queues": None if one.queues is None else dict(one.queues),
        "unrouted": _moments(one.unrouted),
    }


def counts_fields(counts: Counts) -> dict[str, Any]:
    """Return how much there is in a store."""
    return {
        "as_of": iso(counts.as_of),
        "jobs": {state.value: number for state, number in counts.jobs.items()},
        "unreadable": counts.undecodable,
        "running": counts.running,
        "due": counts.due,
        "overdue": counts.overdue,
        "oldest_due": _moment(counts.oldest_due),
        "queues": {
            name: {
                "due": queue.due,
                "running": queue.running,
                "oldest_due": _moment(queue.oldest_due),
            }
            for name, queue in counts.queues.items()
        },
        "unserved": _moments(counts.unserved),
        "executions": {status.value: number for status, number in counts.executions.items()},
        "groups": {
            name: {status.value: number for status, number in group.items()}
            for name, group in counts.groups.items()
        },
        "complete": counts.complete,
    }


def request_fields(request: Request) -> dict[str, Any]:
    """Return what was asked for, or would be."""
    return {
        "id": request.job_id,
        "key": request.key,
        "moments": request.moments,
        "first": iso(request.first),
        "last": iso(request.last),
    }


def _progress(progress: Progress | None) -> dict[str, Any] | None:
    if progress is None:
        return None
    return {
        "done": progress.done,
        "of": progress.of,
        "text": progress.text,
        "at": _moment(progress.at),
    }


def _moment(moment: datetime | None) -> str | None:
    return None if moment is None else iso(moment)


def _moments(moments: Mapping[str, datetime]) -> dict[str, str]:
    return {name: iso(moment) for name, moment in moments.items()}
