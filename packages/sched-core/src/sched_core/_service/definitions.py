"""Declares, changes and removes jobs: reads, decides, and writes unless another process did first.

This needs only the port's :class:`~sched_core.ports.JobStore`, so the same code serves a whole
backend and one transaction of the caller's.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import datetime
from typing import Any, Final

from attrs import evolve

from sched_core._model.claim import Change
from sched_core._model.execution import Execution
from sched_core._model.job import RESERVED, Job, JobSpec
from sched_core._model.policy import Policy
from sched_core._rules import define
from sched_core._rules.operate import resumed_if_over
from sched_core._support.logger import Logger
from sched_core.advice import advise
from sched_core.clock import Clock, backoff_pause
from sched_core.errors import (
    InvalidDefinition,
    JobAlreadyExists,
    JobNotFound,
    JobUndecodable,
    RevisionConflict,
)
from sched_core.ports import JobStore, Undecodable
from sched_core.schedule import Schedule

logger = Logger("sched_core")

TRIES = 8
"""How often to try again, within some seconds.

This is for adding a job whose id is taken although no job is found under it, and for changing a job
that a sync moves from another id.
"""

Edited = Callable[[str, Sequence[Execution]], Awaitable[None]]
"""A function that gets the id of an edited job and the executions that the edit has written."""


class Unset:
    """The type of :data:`UNSET`, the argument for a field that is not to be changed."""

    def __repr__(self) -> str:
        return "UNSET"


UNSET: Final = Unset()


class Definitions:
    """Declares, changes and removes the jobs in a store.

    Args:
        store: The store of the jobs.
        clock: The clock that decides.
        new_id: Makes the uids of jobs.
        edited: Called with the executions that edits have written.
    """

    def __init__(
        self, store: JobStore, clock: Clock, *, new_id: Callable[[], str], edited: Edited
    ) -> None:
        self._store = store
        self._clock = clock
        self._new_id = new_id
        self._edited = edited

    def admit(self, spec: JobSpec, *, declared: bool, actor: str | None = None) -> Job:
        """Return the job as it would be stored.

        Raises:
            InvalidDefinition: The job's id is reserved.
        """
        unreserved(spec)
        job = define.admit(spec, uid=self._new_id(), declared=declared, now=self._clock.now())
        return job if actor is None else evolve(job, actor=actor)

    async def submit(self, specs: Sequence[JobSpec], *, actor: str | None = None) -> list[Job]:
        """Add jobs, all or none."""
        jobs = [self.admit(spec, declared=False, actor=actor) for spec in specs]
        stored = list(await self._store.add(jobs)) if jobs else []
        for spec in specs:
            self.advise(spec)
        return stored

    def advise(self, spec: JobSpec) -> None:
        """Log what may surprise the author of a new or changed definition."""
        try:
            sentences = advise(spec, now=self._clock.now())
        except Exception:
            # A third party's schedule may raise anything; if it matters, running the job shows it.
            logger.debug("job %r: its definition cannot be examined", spec.id, exc_info=True)
            return
        for sentence in sentences:
            logger.warning("job %r: %s", spec.id, sentence)

    async def ensure(self, spec: JobSpec, *, actor: str | None = None) -> Job:
        """Add a job, or change it if its definition differs."""
        unreserved(spec)
        tries = moving = 0
        while True:
            stored = await self._store.get(spec.id)
            if stored is None:
                try:
                    admitted = self.admit(spec, declared=True, actor=actor)
                    (added,) = await self._store.add([admitted])
                except JobAlreadyExists:
                    tries += 1
                    await taken(spec.id, tries)
                    continue  # another process was faster: compare with its job
                self.advise(spec)
                return added
            job = _readable(stored)
            if await self._is_copy(job):
                moving += 1
                if moving > TRIES:
                    raise JobNotFound(spec.id)
                await backoff_pause(moving)
                continue
            change = define.redefine(job, spec, declared=True, now=self._clock.now())
            if change is None:
                return job
            try:
                replaced = await self._replace(written_by(actor, job, change))
            except (RevisionConflict, JobNotFound):
                continue
            self._advise_of_change(job.spec, spec)
            return replaced

    def _advise_of_change(self, before: JobSpec, after: JobSpec) -> None:
        if before.schedule != after.schedule or before.policy != after.policy:
            self.advise(after)

    async def update(
        self, job_id: str, changes: Mapping[str, Any], *, actor: str | None = None
    ) -> Job:
        """Change some fields of a definition."""
        before: list[JobSpec] = []

        def edit(job: Job) -> Change | None:
            before[:] = [job.spec]
            spec = evolve(job.spec, **changes)
            change = define.redefine(job, spec, now=self._clock.now())
            return None if change is None else written_by(actor, job, change)

        updated = await self.edit(job_id, edit)
        self._advise_of_change(before[0], updated.spec)
        return updated

    async def remove(
        self,
        job_id: str,
        *,
        cancel: bool = False,
        reason: str | None = None,
        actor: str | None = None,
        only: Callable[[Job], bool] | None = None,
    ) -> bool:
        """Remove a job, and write the executions of occurrences that were due or had begun.

        Args:
            job_id: The job's id.
            cancel: Whether a run in flight is cancelled.
            reason: Why.
            actor: Who removes it.
            only: Tells by what is stored whether to remove it; ``None`` for in any case.

        Returns:
            Whether it was removed.
        """
        while True:
            job = await self._arrived(job_id)
            if only is not None and not only(job):
                return False
            executions = define.final_executions(
                job, now=self._clock.now(), actor=actor, cancel=cancel, reason=reason
            )
            try:
                await self._store.remove(job, executions)
            except RevisionConflict:
                continue
            await self._edited(job_id, executions)
            return True

    async def get(self, job_id: str) -> Job:
        """Return a job as stored."""
        stored = None if str(job_id).startswith(RESERVED) else await self._store.get(job_id)
        if stored is None:
            raise JobNotFound(job_id)
        return _readable(stored)

    async def operate(self, job_id: str, act: Callable[[Job, datetime], Job]) -> Job:
        """Change a job as :meth:`edit` does, by what it is now: a pause whose end has come is over.

        Args:
            job_id: The job's id.
            act: Returns the changed job, given the present moment.
        """

        def edit(job: Job) -> Change:
            now = self._clock.now()
            return Change(act(resumed_if_over(job, now=now), now))

        return await self.edit(job_id, edit)

    async def edit(self, job_id: str, edit: Callable[[Job], Change | None]) -> Job:
        """Change a job as a function says, again and again until no other process was faster.

        Args:
            job_id: The job's id.
            edit: Returns the changed job; ``None`` for no change.

        Raises:
            JobNotFound: There is no such job.
            JobUndecodable: This version cannot read the record.
        """
        while True:
            job = await self._arrived(job_id)
            change = edit(job)
            if change is None or change.job == job:
                return job
            try:
                return await self._replace(change)
            except RevisionConflict:
                continue

    async def _arrived(self, job_id: str) -> Job:
        """Return a job; wait while a sync moves it from another id.

        Raises:
            JobNotFound: The move took more than some seconds: the sync was interrupted.
        """
        for tries in range(1, TRIES + 1):
            job = await self.get(job_id)
            if not define.is_moving(job, now=self._clock.now()):
                return job
            await backoff_pause(tries)
        raise JobNotFound(job_id)

    async def _is_copy(self, job: Job) -> bool:
        """Whether a sync moves a job here from another id, where it is still stored."""
        old = define.moved_from(job)
        original = None if old is None else await self._store.get(old)
        return isinstance(original, Job) and original.uid == job.uid

    async def _replace(self, change: Change) -> Job:
        stored = await self._store.replace(change.job, change.executions)
        await self._edited(stored.id, change.executions)
        return stored


def written_by(actor: str | None, job: Job, change: Change) -> Change:
    """Return a change of a job with who makes it, if it changes the definition."""
    changed = change.job
    if (changed.spec, changed.declared) == (job.spec, job.declared):
        return change
    return Change(evolve(changed, actor=actor), change.executions)


async def taken(job_id: str, tries: int) -> None:
    """Wait, longer each time, because an id is taken and no job is found under it.

    Raises:
        JobUndecodable: The wait took more than some seconds, so it is no race with other processes.
    """
    if tries > TRIES:
        raise JobUndecodable(job_id, "it was removed, and what is left of its last run is unknown")
    if tries > 1:
        await backoff_pause(tries - 1)


def unreserved(spec: JobSpec) -> JobSpec:
    """Return a spec unless its id is reserved for this package's own records.

    Raises:
        InvalidDefinition: The id is reserved.
    """
    if spec.id.startswith(RESERVED):
        raise InvalidDefinition(
            "id", f"must not begin with {RESERVED!r}, which is reserved, as {spec.id!r} does"
        )
    return spec


def _readable(stored: Job | Undecodable) -> Job:
    if isinstance(stored, Undecodable):
        raise JobUndecodable(stored.id, stored.reason)
    return stored


def changes_of(
    schedule: object,
    name: object,
    metadata: object,
    policy: object,
    group: object,
    queue: object,
) -> dict[str, Any]:
    """Return the fields that are to be changed, by name."""
    given = {
        "schedule": schedule,
        "name": name,
        "metadata": metadata,
        "policy": policy,
        "group": group,
        "queue": queue,
    }
    return {field: value for field, value in given.items() if value is not UNSET}


def spec_of(
    job_id: str,
    schedule: Schedule,
    name: str | None,
    metadata: Mapping[str, str] | None,
    policy: Policy | None,
    group: str | None,
    queue: str,
) -> JobSpec:
    """Return the definition that the arguments of a scheduler's method describe."""
    return JobSpec(
        job_id,
        schedule,
        name,
        {} if metadata is None else metadata,
        Policy() if policy is None else policy,
        group,
        queue,
    )
