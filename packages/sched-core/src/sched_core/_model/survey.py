"""What is going on in a store: its workers, and how many jobs and executions it has."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Literal

from attrs import define, field, frozen

from sched_core._model.claim import Hold
from sched_core._model.execution import Execution, Kind, Progress, Status
from sched_core._model.job import RESERVED, REST, Job
from sched_core._model.occurrence import State


@frozen
class CountQuery:
    """What to count.

    Args:
        since: Executions that finished at this moment or later are counted.
        until: Executions that finished before this moment are counted; ``None`` for all since.
        by: What the executions are counted by as well: the ``hour`` in UTC in which they finished,
            their ``job``, or the kind of ``error`` that their reason begins with.
        overdue: How long a job must be due, and no worker have it, to be counted as overdue.
    """

    since: datetime
    until: datetime | None = None
    by: Literal["hour", "job", "error"] | None = None
    overdue: timedelta = timedelta(minutes=1)


@frozen
class WorkerState:
    """What a worker tells of itself while it runs.

    Attributes:
        name: Its name, unique to this start of its process: claims carry it.
        started_at: When it began to run, by the clock that decides.
        seen_at: When it reported this, by the clock that decides.
        host: The name of its machine.
        pid: The number of its process there.
        version: The version of sched-core that it runs.
        max_concurrency: How many handlers it runs at a time at most.
        executing: How many it runs now, or has queued.
        queues: The queues that it serves, and how many runs of each at a time; ``None`` for all.
        unrouted: Due jobs that it passes over because it has no route for them, and since when; at
            most 100 of them.
        stopping: Whether it takes no further jobs.
    """

    name: str
    started_at: datetime
    seen_at: datetime
    host: str = ""
    pid: int = 0
    version: str = ""
    max_concurrency: int = 0
    executing: int = 0
    queues: Mapping[str, int] | None = None
    unrouted: Mapping[str, datetime] = field(factory=dict)
    stopping: bool = False

    def serves(self, queue: str) -> bool:
        """Whether it takes jobs of a queue."""
        return self.queues is None or queue in self.queues or REST in self.queues


@frozen
class Running:
    """A run that a worker has.

    Attributes:
        job_id: The job's id.
        key: The occurrence's idempotency key.
        kind: Why the occurrence is there.
        scheduled_at: The occurrence's nominal moment.
        attempt: The attempt's number, counted from 1.
        queue: The job's queue when it was claimed.
        worker: The worker's name.
        since: When the worker claimed it, by the clock that decides.
        lease_left: How long the worker still has it unless it renews; negative where its lease has
            ended and no worker has taken note yet.
        progress: The newest progress that reached the store.
    """

    job_id: str
    key: str
    kind: Kind
    scheduled_at: datetime
    attempt: int
    queue: str
    worker: str
    since: datetime
    lease_left: timedelta
    progress: Progress | None = None


def running(hold: Hold, now: datetime) -> Running | None:
    """Return the run of a stored claim; ``None`` for one that ends a pause."""
    one = hold.pending
    if one is None:
        return None
    return Running(
        hold.job_id,
        f"{hold.uid}:{one.number}",
        one.kind,
        one.scheduled_at,
        one.attempts + 1,
        hold.queue,
        hold.worker,
        hold.claimed_at,
        hold.expires_at - now,
        hold.progress,
    )


@frozen
class QueueCounts:
    """How much work one queue has.

    Attributes:
        due: How many jobs are due that no worker has.
        running: How many jobs a worker has.
        oldest_due: The earliest moment since which one of the due ones is due.
    """

    due: int = 0
    running: int = 0
    oldest_due: datetime | None = None


@frozen
class Counts:
    """How many jobs and executions a store has.

    Attributes:
        as_of: When they were counted, by the clock that decides.
        jobs: How many jobs there are, by state.
        undecodable: How many jobs cannot be read here.
        running: How many jobs a worker has.
        due: How many jobs are due that no worker has.
        overdue: How many of them for longer than the query says.
        oldest_due: The earliest moment since which one of them is due.
        queues: The queues that have due or running jobs.
        executions: How many executions finished in the time that was asked for, by status.
        groups: The same for each hour (in ISO 8601, UTC), job or kind of error that was asked for:
            at most 1,000 of them, those with the most executions.
        complete: Whether everything was counted. If not, the store has more than it counts in a
            short time, and the newest was counted.
        unserved: The queues with due jobs that no live worker serves, and since when one of these
            is due. The scheduler adds it to what a backend has counted.
    """

    as_of: datetime
    jobs: Mapping[State, int] = field(factory=dict)
    undecodable: int = 0
    running: int = 0
    due: int = 0
    overdue: int = 0
    oldest_due: datetime | None = None
    queues: Mapping[str, QueueCounts] = field(factory=dict)
    executions: Mapping[Status, int] = field(factory=dict)
    groups: Mapping[str, Mapping[Status, int]] = field(factory=dict)
    complete: bool = True
    unserved: Mapping[str, datetime] = field(factory=dict)


ALIVE = timedelta(seconds=60)
"""A worker that has told nothing for longer is taken for dead."""
MOST_GROUPS = 1000
"""The most groups of executions that are counted apart."""
LONGEST_ERROR = 100
"""The most characters in the kind of an error."""


def error_kind(reason: str | None) -> str:
    """Return the kind of an error: what comes before the colon of an execution's reason."""
    return (reason or "").partition(":")[0][:LONGEST_ERROR]


def hour_of(moment: datetime) -> str:
    """Return the hour of a moment in UTC as ISO 8601, such as ``2026-11-30T21:00:00+00:00``."""
    return moment.replace(minute=0, second=0, microsecond=0).isoformat()


@define
class Tally:
    """Counts what it is shown: for backends that count in Python.

    Attributes:
        query: What to count.
        now: The present moment, by the clock that decides.
    """

    query: CountQuery
    now: datetime
    _jobs: Counter[State] = field(factory=Counter)
    _undecodable: int = 0
    _overdue: int = 0
    _running: Counter[str] = field(factory=Counter)
    _due: Counter[str] = field(factory=Counter)
    _oldest: dict[str, datetime] = field(factory=dict)
    _executions: Counter[Status] = field(factory=Counter)
    _groups: dict[str, Counter[Status]] = field(factory=dict)

    def add_undecodable(self) -> None:
        """Count a job that cannot be read."""
        self._undecodable += 1

    def add_row(self, job: Job | None, hold: Hold | None) -> None:
        """Count a job, or the claim that a removed one has left; no record of the package's own."""
        if job is not None and job.id.startswith(RESERVED):
            return
        if hold is not None and hold.pending is not None:
            self.add_running(hold.queue)
        if job is not None:
            due_at = job.standing.due_at if hold is None else None
            self.add_job(job.state, job.spec.queue, due_at)

    def add_running(self, queue: str) -> None:
        """Count a run that a worker has."""
        self._running[queue] += 1

    def add_job(self, state: State, queue: str, due_at: datetime | None) -> None:
        """Count a job, as :meth:`add_row` does; no moment where a worker has it."""
        self._jobs[state] += 1
        if due_at is None or due_at > self.now:
            return
        self._due[queue] += 1
        self._oldest[queue] = min(due_at, self._oldest.get(queue, due_at))
        self._overdue += self.now - due_at > self.query.overdue

    def add_execution(self, execution: Execution) -> None:
        """Count an execution, if it finished in the time that is asked for."""
        self.add_finished(
            execution.finished_at, execution.status, execution.job_id, execution.reason
        )

    def add_finished(
        self, at: datetime, status: Status, job_id: str, reason: str | None, times: int = 1
    ) -> None:
        """Count executions that differ in nothing that is counted, as :meth:`add_execution` does.

        Args:
            at: When they finished.
            status: Their status.
            job_id: Their job, where they are counted by job.
            reason: Their reason, or the kind of it, where they are counted by error.
            times: How many there are.
        """
        until, by = self.query.until, self.query.by
        if at < self.query.since or (until is not None and at >= until):
            return
        self._executions[status] += times
        if by is None:
            return
        name = hour_of(at) if by == "hour" else job_id if by == "job" else error_kind(reason)
        if by == "error" and status is not Status.FAILED:
            return
        self._groups.setdefault(name, Counter())[status] += times

    def counts(self, *, complete: bool = True) -> Counts:
        """Return what was counted."""
        queues = {
            queue: QueueCounts(self._due[queue], self._running[queue], self._oldest.get(queue))
            for queue in sorted(self._due.keys() | self._running.keys())
        }
        return Counts(
            self.now,
            dict(self._jobs),
            self._undecodable,
            self._running.total(),
            self._due.total(),
            self._overdue,
            min(self._oldest.values(), default=None),
            queues,
            dict(self._executions),
            largest_groups(self._groups),
            complete,
        )


def largest_groups(
    groups: Mapping[str, Mapping[Status, int]],
) -> dict[str, Mapping[Status, int]]:
    """Return the groups with the most executions, by name; at most ``MOST_GROUPS``."""
    ordered = sorted(groups, key=lambda name: (-sum(groups[name].values()), name))
    return {name: dict(groups[name]) for name in sorted(ordered[:MOST_GROUPS])}


def unserved_queues(
    counts: Counts, workers: Sequence[WorkerState], now: datetime
) -> Mapping[str, datetime]:
    """Return the queues with due jobs that no live worker serves, and since when one is due."""
    live = [one for one in workers if now - one.seen_at < ALIVE and not one.stopping]
    return {
        queue: each.oldest_due
        for queue, each in counts.queues.items()
        if each.due and each.oldest_due is not None and not any(one.serves(queue) for one in live)
    }
