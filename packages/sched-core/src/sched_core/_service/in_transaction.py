"""Jobs that are declared and removed inside a database transaction of the caller's."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from sched_core._model.execution import DEFAULT_QUEUE, Execution
from sched_core._model.job import Job
from sched_core._model.policy import Policy
from sched_core._service.definitions import UNSET, Definitions, Unset, changes_of, spec_of
from sched_core.clock import Clock
from sched_core.ports import JobStore
from sched_core.schedule import Schedule


class JobsInTransaction:
    """Declares and removes jobs inside a transaction of the caller's.

    Every method does the same as the scheduler's method of that name, once the transaction commits.
    Observers are not notified.
    """

    def __init__(self, store: JobStore, clock: Clock, *, new_id: Callable[[], str]) -> None:
        self._definitions = Definitions(store, clock, new_id=new_id, edited=_unobserved)

    async def ensure_job(
        self,
        id: str,
        schedule: Schedule,
        *,
        name: str | None = None,
        metadata: Mapping[str, str] | None = None,
        policy: Policy | None = None,
        group: str | None = None,
        queue: str = DEFAULT_QUEUE,
    ) -> Job:
        """Declare a job: add it, or change it if its definition differs."""
        spec = spec_of(id, schedule, name, metadata, policy, group, queue)
        return await self._definitions.ensure(spec)

    async def submit_job(
        self,
        id: str,
        schedule: Schedule,
        *,
        name: str | None = None,
        metadata: Mapping[str, str] | None = None,
        policy: Policy | None = None,
        group: str | None = None,
        queue: str = DEFAULT_QUEUE,
    ) -> Job:
        """Add a job.

        Raises:
            JobAlreadyExists: The id is taken. The transaction can continue.
        """
        spec = spec_of(id, schedule, name, metadata, policy, group, queue)
        return (await self._definitions.submit([spec]))[0]

    async def update_job(
        self,
        id: str,
        schedule: Schedule | Unset = UNSET,
        *,
        name: str | Unset | None = UNSET,
        metadata: Mapping[str, str] | Unset = UNSET,
        policy: Policy | Unset = UNSET,
        group: str | Unset | None = UNSET,
        queue: str | Unset = UNSET,
    ) -> Job:
        """Change the given fields and keep the others.

        Raises:
            JobNotFound: There is no such job.
        """
        return await self._definitions.update(
            id, changes_of(schedule, name, metadata, policy, group, queue)
        )

    async def remove_job(self, id: str) -> None:
        """Remove a job.

        Raises:
            JobNotFound: There is no such job.
        """
        await self._definitions.remove(id)


async def _unobserved(job_id: str, executions: Sequence[Execution]) -> None:
    """Tell no observer: the caller may still roll back."""
