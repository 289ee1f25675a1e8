"""The small synchronous port that a database dialect implements.

:class:`~sched_sql.backend.DatabaseBackend` calls it from threads, one at a time for each
:class:`~sched_sql._shared.threads.Lane`. Values come in, values go out; each method is one
transaction. What a method means is said by the method of the same name in
:class:`sched_core.ports.Backend`. What only one database can do is no method of this port: it is
in the backend of its dialect.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Protocol

from attrs import field, frozen

from sched_core import (
    Claim,
    ClaimQuery,
    CountQuery,
    Counts,
    Execution,
    ExecutionQuery,
    Followed,
    Hold,
    Job,
    JobQuery,
    Page,
    Renewal,
    Room,
    Settled,
    Settlement,
    Undecodable,
    UndecodableExecution,
    WorkerState,
)
from sched_core.errors import BackendUnavailable

Now = Callable[[], datetime]
"""Tells the time; called after the transaction has its lock, so that no wait makes it stale."""


@frozen
class ClaimBatch:
    """What a call of ``claim_due`` asks for, and what it gets.

    Attributes:
        room: What to claim.
        at: When it was called.
        claims: What is claimed, from the thread that does it: not lost where the caller is gone.
        lapsed: The executions about claims whose leases had ended.
    """

    room: Room
    at: datetime
    claims: list[Claim] = field(factory=list)
    lapsed: list[Execution] = field(factory=list)


class Locked(BackendUnavailable):
    """Another program has the whole database locked."""


class Table(Protocol):
    """A database with jobs and their history in it.

    Every method raises what the port's does; what the driver raises instead, :meth:`failure`
    translates.
    """

    def failure(self, error: Exception) -> Exception:
        """Return the port's error for one that a method raised: what is wrong, and the remedy."""
        ...

    def open(self, worker: str, now: Now) -> None:
        """Connect, bring the schema up to date, and be known as this worker."""
        ...

    def close(self) -> None:
        """Disconnect; twice is harmless."""
        ...

    def cut_off(self) -> None:
        """Make the calls that hang fail soon, and all that follow; called in the event loop.

        Does not wait: what cannot be cut short is left behind in its thread.
        """
        ...

    def forked(self) -> None:
        """Let go, in a forked child, of what would keep the parent's process looking alive."""
        ...

    def check(self) -> None:
        """Write something and read it back."""
        ...

    def due_since(self, now: Now) -> datetime | None:
        """Return since when a job is due that no claim holds."""
        ...

    def add(self, jobs: Sequence[Job]) -> Sequence[Job]:
        """Store new jobs, all or none."""
        ...

    def get(self, job_id: str) -> Job | Undecodable | None:
        """Return what is stored under the id."""
        ...

    def replace(self, job: Job, executions: Sequence[Execution]) -> Job:
        """Store the job if it is still what was read."""
        ...

    def remove(self, job: Job, executions: Sequence[Execution]) -> None:
        """Remove the job if it is still what was read, or make it a tombstone while claimed."""
        ...

    def jobs(self, query: JobQuery, after: str | None, limit: int) -> Page[Job | Undecodable]:
        """List jobs by id."""
        ...

    def changed(self) -> bool:
        """Whether another connection may have written since the last call. Cheap."""
        ...

    def earliest(self, room: Room, now: Now, horizon: datetime) -> datetime | None:
        """Return when to claim next; what lies after the horizon may be left out.

        A job that does not fit into the room is no reason to claim.
        """
        ...

    def claim(self, batch: ClaimBatch, now: Now) -> None:
        """End claims whose leases have ended, then claim; both go into the lists of ``batch``."""
        ...

    def renew(self, renewals: Sequence[Renewal], now: Now) -> Sequence[Claim]:
        """Extend leases; return what is still held."""
        ...

    def settle(self, settlements: Sequence[Settlement], now: Now) -> Sequence[Settled]:
        """End claims; one answer for each."""
        ...

    def release(self, claims: Sequence[Claim], now: Now) -> None:
        """Free claims whose handlers were never called."""
        ...

    def executions(
        self, query: ExecutionQuery, after: str | None, limit: int
    ) -> Page[Execution | UndecodableExecution]:
        """List executions, newest first."""
        ...

    def execution(self, execution_id: str) -> Execution | UndecodableExecution | None:
        """Return the execution with the id."""
        ...

    def recent(
        self, job_ids: Sequence[str], limit: int
    ) -> Mapping[str, Sequence[Execution | UndecodableExecution]]:
        """Return the newest executions of each job."""
        ...

    def follow(self, after: str | None, limit: int, now: Now) -> Followed:
        """Return executions in the order of commit."""
        ...

    def claims(self, query: ClaimQuery, after: str | None, limit: int, now: Now) -> Page[Hold]:
        """List what is stored of claims."""
        ...

    def report(self, state: WorkerState) -> None:
        """Keep what a worker tells of itself. It need not survive a crash of the machine."""
        ...

    def withdraw(self) -> None:
        """Delete what this worker has told of itself."""
        ...

    def workers(self) -> Sequence[WorkerState]:
        """Return what workers have told of themselves."""
        ...

    def counts(self, query: CountQuery, now: Now) -> Counts:
        """Count jobs, claims and executions."""
        ...

    def prune(self, before: datetime, now: Now, cursor: int) -> tuple[int, int | None]:
        """Delete a part of what ``prune`` of the port deletes.

        Args:
            before: The moment before which executions must have finished.
            now: Tells the time at which records have expired.
            cursor: 0, then what the call before returned.

        Returns:
            How many were deleted, and the next cursor; ``None`` when all is done.
        """
        ...
