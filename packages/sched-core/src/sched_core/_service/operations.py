"""Operates jobs: pauses, skips, cancels, hurries; each is an edit of what is stored."""

from __future__ import annotations

from datetime import datetime
from typing import NamedTuple

from sched_core._model.claim import Change
from sched_core._model.execution import occurrence_key
from sched_core._model.job import Job
from sched_core._rules import moment as moments
from sched_core._rules import operate
from sched_core._service.definitions import Definitions
from sched_core._service.names import (
    Name,
    checked_actor,
    checked_reason,
    job_of,
    occurrence_of,
)
from sched_core._support.logger import Logger
from sched_core.clock import Clock
from sched_core.errors import InvalidDefinition, NothingToCancel, NothingToRetry
from sched_core.ports import Backend
from sched_core.schedule import utc

logger = Logger("sched_core")


class Operations:
    """Operates the jobs of a store.

    Args:
        definitions: Reads and writes the jobs.
        backend: The store.
        clock: The clock that decides.
    """

    def __init__(self, definitions: Definitions, backend: Backend, clock: Clock) -> None:
        self._definitions = definitions
        self._backend = backend
        self._clock = clock

    # -- pause and skip

    async def pause(
        self, job_id: str, *, until: datetime | None, reason: str | None, actor: str | None
    ) -> Job:
        """Pause a job."""
        by = checked_actor(actor)
        return await self._definitions.operate(
            job_id,
            lambda job, now: operate.pause(job, until=until, reason=reason, now=now, actor=by),
        )

    async def resume(self, job_id: str, *, actor: str | None) -> Job:
        """End a pause, and correct wrong moments, since the scheduler's check skips paused jobs."""
        by = checked_actor(actor)
        job = await self._definitions.operate(job_id, self.resumed)
        _tell("resumed", job_id, by)
        return job

    @staticmethod
    def resumed(job: Job, now: datetime) -> Job:
        """Return a job with its pause ended, and its moments correct."""
        resumed = operate.resume(job, at=now)
        return moments.corrected(resumed, now=now) or resumed

    async def reanchor(self, job_id: str, *, actor: str | None) -> Job:
        """Move a job to its schedule's next moment if a wrong clock has put it far after that."""
        by = checked_actor(actor)

        def mend(job: Job) -> Change | None:
            mended = moments.corrected(job, now=self._clock.now())
            return None if mended is None else Change(mended)

        job = await self._definitions.edit(job_id, mend)
        _tell("was asked to be at its next moment", job_id, by)
        return job

    async def skip_next(self, job_id: str, *, at: datetime | None, actor: str | None) -> Job:
        """Skip the first occurrence after now, or the one at a moment."""
        by, wanted = checked_actor(actor), None if at is None else utc(at, "moment")
        return await self._definitions.operate(
            job_id, lambda job, now: operate.skip_next(job, now=now, wanted=wanted, actor=by)
        )

    async def unskip(self, job_id: str, *, actor: str | None) -> Job:
        """Take a skip back."""
        by = checked_actor(actor)
        job = await self._definitions.operate(job_id, lambda job, _: operate.unskip(job))
        _tell("the skip was taken back", job_id, by)
        return job

    # -- one occurrence

    async def cancel(
        self, key: str | None, job_id: str | None, *, reason: str | None, actor: str | None
    ) -> Marked:
        """Mark an occurrence to be cancelled."""
        why, by, numbers = checked_reason(reason), checked_actor(actor), list[int]()
        name, job_id = await self._place(key, job_id, NothingToCancel)

        def mark(job: Job, now: datetime) -> Job:
            number = _number_in(job, name, key, NothingToCancel)
            marked = operate.cancel(job, now=now, number=number, reason=why, actor=by)
            numbers[:] = [job.held or 0 if number is None else number]
            return marked

        job = await self._definitions.operate(job_id, mark)
        return Marked(job_id, occurrence_key(job.uid, numbers[0]))

    async def retry_now(self, key: str | None, job_id: str | None, *, actor: str | None) -> Job:
        """Have what waits for its next attempt attempted now."""
        by = checked_actor(actor)
        name, job_id = await self._place(key, job_id, NothingToRetry)

        def hurry(job: Job, now: datetime) -> Job:
            number = _number_in(job, name, key, NothingToRetry)
            return operate.retry_now(job, now=now, number=number, actor=by)

        return await self._definitions.operate(job_id, hurry)

    async def _place(
        self,
        key: str | None,
        job_id: str | None,
        missing: type[NothingToCancel | NothingToRetry],
    ) -> tuple[Name | None, str]:
        """Return what a key names, and the id of its job."""
        if key is None:
            if job_id is None:
                raise InvalidDefinition(
                    "key", "must be given: the idempotency key of an occurrence, or else job_id="
                )
            return None, job_id
        name = occurrence_of(key)
        if job_id is None:
            job = await job_of(self._backend, name.uid)
            if job is None:
                raise missing("", key)
            job_id = job.id
        return name, job_id


class Marked(NamedTuple):
    """An occurrence that is marked to be cancelled."""

    job_id: str
    key: str


def _number_in(
    job: Job,
    name: Name | None,
    key: str | None,
    missing: type[NothingToCancel | NothingToRetry],
) -> int | None:
    """Return the number that a key's occurrence has now in a job; ``None`` without a key."""
    if name is None:
        return None
    if name.uid != job.uid:
        raise missing("", key)
    return operate.present_number(job, name.number)


def _tell(what: str, job_id: str, actor: str | None) -> None:
    """Log who did what leaves nothing that could name them."""
    if actor is not None:
        logger.info("job %r: %s by %s", job_id, what, actor)
