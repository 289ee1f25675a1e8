"""Definitions: jobs are added, edited and removed."""

from __future__ import annotations

from collections.abc import Sequence

from sched_core import Execution, Job
from sched_core.clock import monotonic_seconds, pause
from sched_core.errors import BackendUnavailable, JobAlreadyExists
from sched_jetstream._model import protocol
from sched_jetstream._model.layout import AtomicWrite
from sched_jetstream._model.protocol import StoredRecord, Write
from sched_jetstream._model.subjects import token_of
from sched_jetstream._runtime.session import Session, written
from sched_jetstream._store.writer import RevisionMismatch
from sched_jetstream.errors import PermissionDenied


class Editing:
    """Writes definitions in a session.

    Args:
        session: It.
    """

    def __init__(self, session: Session) -> None:
        self._session = session

    async def add(self, jobs: Sequence[Job]) -> list[Job]:
        """Store new jobs, all or none; return them as they are stored."""
        by_token = {token_of(job.id): job for job in jobs}
        if len(by_token) < len(jobs):
            seen: set[str] = set()
            for job in jobs:
                if job.id in seen:
                    raise JobAlreadyExists(job.id)
                seen.add(job.id)
        session, looked = self._session, False
        until = monotonic_seconds() + session.options.add_job_retry_budget.total_seconds()
        founds = {token: StoredRecord(token, 0, None) for token in by_token}
        while True:
            try:
                if looked:
                    founds = await session.reader.read_current(list(by_token))
                return await self._add(by_token, founds)
            except RevisionMismatch:
                looked = True
            except PermissionDenied:
                raise
            except BackendUnavailable:
                looked = True
                if monotonic_seconds() > until or not session.wire.connected:
                    raise
                await pause(0.1)

    async def _add(self, by_token: dict[str, Job], founds: dict[str, StoredRecord]) -> list[Job]:
        session = self._session
        results: dict[str, Job] = {}
        steps: dict[str, AtomicWrite] = {}
        for token, job in by_token.items():
            decided = protocol.add(founds[token], job)
            if isinstance(decided, Job):
                results[token] = decided
            else:
                steps[token] = session.step(founds[token], decided)
        if steps:
            sequences = await session.writer.write(*steps.values())
            for token, sequence in zip(steps, sequences, strict=True):
                job = by_token[token]
                stored = written(token, sequence, steps[token])
                results[token] = stored.record(job.id).read() or job
        return [results[token] for token in by_token]

    async def replace(self, job: Job, executions: Sequence[Execution]) -> Job:
        """Store an edited job; return it as it is stored."""

        def decide(found: StoredRecord, unsure: bool) -> Write | Job:
            stored = found.read()
            if (
                unsure
                and isinstance(stored, Job)
                and stored.revision != job.revision
                and _unrevised(stored) == _unrevised(job)
            ):
                return stored  # by the try before
            return protocol.replace(found, job, executions)

        session = self._session
        change = session.change(token_of(job.id), decide, session.options.write_budget)
        found, known = await change
        return known if isinstance(known, Job) else found.record(job.id).read() or job

    async def remove(self, job: Job, executions: Sequence[Execution]) -> None:
        """Remove a job."""

        def decide(found: StoredRecord, unsure: bool) -> Write | None:
            stored = found.read()
            if unsure and (stored is None or (isinstance(stored, Job) and stored.uid != job.uid)):
                return None  # by the try before
            return protocol.remove(found, job, executions)

        session = self._session
        await session.change(token_of(job.id), decide, session.options.write_budget)


def _unrevised(job: Job) -> Job:
    """Return the job without what the store says of it."""
    return Job(job.spec, job.uid, job.declared, job.anchor, job.standing)
