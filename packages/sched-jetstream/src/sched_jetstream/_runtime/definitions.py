"""Definitions: jobs are added, edited and removed."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta

from sched_core import Execution, Job
from sched_core.errors import JobAlreadyExists
from sched_jetstream._model import protocol
from sched_jetstream._model.protocol import StoredRecord, Write
from sched_jetstream._model.subjects import token_of
from sched_jetstream._store.records import Decide, Records
from sched_jetstream.options import Options


class Definitions:
    """Writes definitions.

    Args:
        records: The records of the deployment.
        is_connected: Tells whether a server would get what is sent now.
        options: The options of the backend.
        changed: Told of each job that was edited, as it is stored.
    """

    def __init__(
        self,
        records: Records,
        is_connected: Callable[[], bool],
        options: Options,
        *,
        changed: Callable[[StoredRecord], Awaitable[None]],
    ) -> None:
        self._changed = changed
        self._records, self._is_connected = records, is_connected
        self._add_budget: timedelta = options.add_job_retry_budget
        self._budget: timedelta = options.write_budget

    async def add(self, jobs: Sequence[Job]) -> list[Job]:
        """Store new jobs, all or none; return them as they are stored."""
        by_token = {token_of(job.id): job for job in jobs}
        if len(by_token) < len(jobs):
            seen: set[str] = set()
            for job in jobs:
                if job.id in seen:
                    raise JobAlreadyExists(job.id)
                seen.add(job.id)

        changes = await self._records.change_together(
            {token: _adds(job) for token, job in by_token.items()},
            budget=self._add_budget,
            known={token: StoredRecord(token, 0, None) for token in by_token},
            may_retry=self._is_connected,
        )
        stored: list[Job] = []
        for token, job in by_token.items():
            change = changes[token]
            stored.append(change.answer or change.found.record(job.id).read() or job)
        return stored

    async def replace(self, job: Job, executions: Sequence[Execution]) -> Job:
        """Store an edited job; return it as it is stored."""

        def decide(found: StoredRecord, may_exist: bool) -> Write | Job:
            stored = found.read()
            if (
                may_exist
                and isinstance(stored, Job)
                and stored.revision != job.revision
                and _unrevised(stored) == _unrevised(job)
            ):
                return stored  # by the try before
            return protocol.replace(found, job, executions)

        change = await self._records.change(token_of(job.id), decide, budget=self._budget)
        await self._changed(change.found)
        return change.answer or change.found.record(job.id).read() or job

    async def remove(self, job: Job, executions: Sequence[Execution]) -> None:
        """Remove a job."""

        def decide(found: StoredRecord, may_exist: bool) -> Write | None:
            stored = found.read()
            if may_exist and (
                stored is None or (isinstance(stored, Job) and stored.uid != job.uid)
            ):
                return None  # by the try before
            return protocol.remove(found, job, executions)

        change = await self._records.change(token_of(job.id), decide, budget=self._budget)
        await self._changed(change.found)


def _adds(job: Job) -> Decide[Job]:
    return lambda found, _: protocol.add(found, job)


def _unrevised(job: Job) -> Job:
    """Return the job without what the store says of it."""
    return Job(job.spec, job.uid, job.declared, job.anchor, job.standing, actor=job.actor)
