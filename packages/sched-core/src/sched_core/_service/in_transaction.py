"""Jobs that are declared and removed inside a database transaction of the caller's."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from sched_core._model.execution import DEFAULT_QUEUE, Execution
from sched_core._model.job import Job
from sched_core._model.policy import Policy
from sched_core._service.definitions import UNSET, Definitions, Unset, changes_of, spec_of
from sched_core._service.names import checked_actor, checked_reason
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
        actor: str | None = None,
    ) -> Job:
        """Declare a job: add it, or change it if its definition differs."""
        spec = spec_of(id, schedule, name, metadata, policy, group, queue)
        return await self._definitions.ensure(spec, actor=checked_actor(actor))

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
        actor: str | None = None,
    ) -> Job:
        """Add a job.

        Raises:
            JobAlreadyExists: The id is taken. The transaction can continue.
        """
        spec = spec_of(id, schedule, name, metadata, policy, group, queue)
        return (await self._definitions.submit([spec], actor=checked_actor(actor)))[0]

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
        actor: str | None = None,
    ) -> Job:
        """Change the given fields and keep the others.

        Raises:
            JobNotFound: There is no such job.
        """
        changes = changes_of(schedule, name, metadata, policy, group, queue)
        return await self._definitions.update(id, changes, actor=checked_actor(actor))

    async def remove_job(
        self,
        id: str,
        *,
        cancel: bool = False,
        reason: str | None = None,
        actor: str | None = None,
    ) -> None:
        """Remove a job.

        Raises:
            JobNotFound: There is no such job.
        """
        why, by = checked_reason(reason), checked_actor(actor)
        await self._definitions.remove(id, cancel=cancel, reason=why, actor=by)


async def _unobserved(job_id: str, executions: Sequence[Execution]) -> None:
    """Tell no observer: the caller may still roll back."""
