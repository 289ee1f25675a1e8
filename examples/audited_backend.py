"""A backend made of another: every change of a definition is told to a function, with what it was.

A backend inherits nothing, so one can be in front of another and hand on what it does not care
about. It takes the same conformance suite: ``pytest test_audited_backend.py``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

from attrs import frozen

from sched_core import Backend, Execution, Job, Undecodable


@frozen
class Change:
    """What happened to a definition.

    Attributes:
        what: Added, replaced or removed.
        job_id: The job's id.
        before: The job before the change, ``None`` where there was none.
        after: The job after the change, ``None`` where it was removed.
    """

    what: Literal["added", "replaced", "removed"]
    job_id: str
    before: Job | Undecodable | None
    after: Job | None


class AuditedBackend:
    """Hands everything on to a backend, and tells of changes once they are stored.

    Args:
        backend: The backend that stores the jobs.
        tell: Called in the event loop, and must not wait; what it raises goes to the caller.
    """

    def __init__(self, backend: Backend, tell: Callable[[Change], object]) -> None:
        self._backend = backend
        self._tell = tell

    def __getattr__(self, name: str) -> Any:
        return getattr(self._backend, name)

    async def add(self, jobs: Sequence[Job]) -> Sequence[Job]:
        added = await self._backend.add(jobs)
        for job in added:
            self._tell(Change("added", job.id, None, job))
        return added

    async def replace(self, job: Job, executions: Sequence[Execution] = ()) -> Job:
        # The replace succeeds only on the revision that the caller has read: this is it.
        before = await self._backend.get(job.id)
        replaced = await self._backend.replace(job, executions)
        self._tell(Change("replaced", job.id, before, replaced))
        return replaced

    async def remove(self, job: Job, executions: Sequence[Execution] = ()) -> None:
        before = await self._backend.get(job.id)
        await self._backend.remove(job, executions)
        self._tell(Change("removed", job.id, before, None))

    # -- where the other backend has transactions

    def within(self, connection: Any) -> Any:
        """Tell of what is written in the caller's transaction, which may still be rolled back."""
        return AuditedBackend(self._backend.within(connection), self._tell)  # type: ignore[attr-defined]  # of those that declare it

    def transaction(self, *settling: Any) -> Any:
        """Hand on: it ends a run, and changes no definition."""
        return self._backend.transaction(*settling)  # type: ignore[attr-defined]  # as above
