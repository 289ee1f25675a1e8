"""Definitions that are right alone, and wrong when two callers write at once."""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from datetime import datetime

from anyio import sleep
from anyio.lowlevel import checkpoint
from tests.testkit.mutants.base import Sound, breaks
from tests.testkit.mutants.editing import as_read

from sched_core import (
    Execution,
    Job,
    JobAlreadyExists,
    JobNotFound,
    RevisionConflict,
)
from sched_core.memory import _Row


class Racing(Sound):
    """Base: reads, lets others work, and writes what it has read."""

    async def others_work(self) -> None:
        await checkpoint()

    def read(self, job_id: str) -> _Row:
        """Return what is stored, as it is now."""
        row: _Row = self.store.row(job_id)
        return copy(row)

    def readable(self, job_id: str) -> Job:
        job: Job = self.store.row(job_id).readable(job_id)
        return job

    async def take_back(self, job_id: str) -> None:
        """Remove what is stored under an id, whichever call has added it."""
        job = self.store.row(job_id).read()
        if job is not None:
            await self.remove(job)


def _refuse(backend: Sound, jobs: Sequence[Job]) -> None:
    ids = set()
    for job in jobs:
        if job.id in ids or backend.store.row(job.id).refuses(job):
            raise JobAlreadyExists(job.id)
        ids.add(job.id)


@breaks("one_of_two_adds_of_an_id_wins")
class AddLooksFirst(Racing):
    """SELECT whether the id is free, then INSERT OR REPLACE."""

    async def add(self, jobs: Sequence[Job]) -> Sequence[Job]:
        self._now()
        _refuse(self, jobs)
        await self.others_work()
        for job in jobs:
            if self.store.row(job.id).refuses(job):
                self.store.rows[job.id].job = None
        return [self._add(job) for job in jobs]


@breaks("one_of_two_adds_of_an_id_wins")
class AddLooksFirstFarAway(AddLooksFirst):
    """The same as AddLooksFirst, with a network in between."""

    async def others_work(self) -> None:
        await sleep(0.003)


@breaks("two_adds_of_one_incarnation_store_it_once")
class AnyUniqueViolationIsACollision(Racing):
    """Looks for the uid first; an id that is taken when it inserts is a collision."""

    async def add(self, jobs: Sequence[Job]) -> Sequence[Job]:
        self._now()
        _refuse(self, jobs)
        repeats = {job.id for job in jobs if self.store.row(job.id).job is not None}
        await self.others_work()
        for job in jobs:
            if job.id not in repeats and self.store.row(job.id).job is not None:
                raise JobAlreadyExists(job.id)
        return [self._add(job) for job in jobs]


@breaks("two_adds_of_one_incarnation_store_it_once")
class ARepeatIsStoredAgain(Racing):
    """An upsert: the second writer puts a new revision over the first."""

    async def add(self, jobs: Sequence[Job]) -> Sequence[Job]:
        self._now()
        _refuse(self, jobs)
        free = [job for job in jobs if self.store.row(job.id).job is None]
        await self.others_work()
        _refuse(self, jobs)
        for job in free:
            self.store.row(job.id).job = None
        return [self._add(job) for job in jobs]


@breaks("one_of_two_batches_with_a_common_id_wins")
class HalfABatch(Racing):
    """Looks whether all ids are free, then adds one by one, and stops at the first that is not."""

    async def add(self, jobs: Sequence[Job]) -> Sequence[Job]:
        self._now()
        _refuse(self, jobs)
        stored = []
        for job in jobs:
            await self.others_work()
            stored.append(self._add(job))
        return stored


@breaks("nothing_of_a_refused_batch_is_ever_claimed")
class TakesABatchBack(Racing):
    """Adds one by one, and takes back what it added where an id is taken."""

    async def add(self, jobs: Sequence[Job]) -> Sequence[Job]:
        self._now()
        if len({job.id for job in jobs}) < len(jobs):
            raise JobAlreadyExists(jobs[0].id)
        stored: list[Job] = []
        for job in jobs:
            try:
                stored.append(self._add(job))
            except JobAlreadyExists:
                for added in stored:
                    await self.take_back(added.id)
                raise
            await self.others_work()
        return stored


@breaks("a_refused_batch_removes_nothing_of_others")
class TakesBackByName(Racing):
    """A batch that is refused deletes the ids that were free when it looked."""

    async def add(self, jobs: Sequence[Job]) -> Sequence[Job]:
        self._now()
        free = [job.id for job in jobs if self.store.row(job.id).job is None]
        await self.others_work()
        try:
            return await super().add(jobs)
        except JobAlreadyExists:
            for job_id in free:
                await self.take_back(job_id)
            raise


@breaks("a_refused_batch_removes_nothing_of_others")
class ReservesItsIds(Racing):
    """A batch reserves its ids before it looks whether it can be added."""

    async def add(self, jobs: Sequence[Job]) -> Sequence[Job]:
        self._now()
        reserved = self.store.__dict__.setdefault("reserved", set())
        if taken := [job.id for job in jobs if job.id in reserved]:
            raise JobAlreadyExists(taken[0])
        ids = {job.id for job in jobs}
        reserved |= ids
        try:
            await self.others_work()
            return await super().add(jobs)
        finally:
            reserved -= ids


@breaks("one_of_two_edits_of_a_revision_wins")
class EditLooksFirst(Racing):
    """SELECT the revision, compare it in Python, then UPDATE by id."""

    async def replace(self, job: Job, executions: Sequence[Execution] = ()) -> Job:
        self._now()
        if self.readable(job.id).revision != job.revision:
            raise RevisionConflict(job.id)
        await self.others_work()
        row = self.store.row(job.id)
        if row.job is None:
            raise JobNotFound(job.id)
        stored: Job = row.replace(
            as_read(job, row.read()), executions, self.store.next_serial(), self.store
        )
        self.store.save(job.id, row)
        return stored


@breaks("one_of_two_edits_of_a_revision_wins")
class ExecutionsBeforeTheEdit(Racing):
    """Writes the executions in a transaction of their own, before the one that compares."""

    async def replace(self, job: Job, executions: Sequence[Execution] = ()) -> Job:
        self._now()
        if self.readable(job.id).revision != job.revision:
            raise RevisionConflict(job.id)
        if self.store.row(job.id).hold is None:
            self.store.write(executions)
        await self.others_work()
        return await super().replace(job, executions)


@breaks("one_of_two_removals_removes")
class RemovalLooksFirst(Racing):
    """Answers what it saw before it deleted."""

    async def remove(self, job: Job, executions: Sequence[Execution] = ()) -> None:
        self._now()
        was_there = self.store.row(job.id).job is not None
        await self.others_work()
        try:
            await super().remove(job, executions)
        except JobNotFound:
            if not was_there:
                raise


@breaks("an_edit_or_a_removal_of_a_revision_wins")
class RemovalComparesFirst(Racing):
    """Compares the revision, then deletes by id."""

    async def remove(self, job: Job, executions: Sequence[Execution] = ()) -> None:
        self._now()
        stored = self.store.row(job.id).read()
        if isinstance(stored, Job) and job.revision != stored.revision:
            raise RevisionConflict(job.id)
        await self.others_work()
        stored = self.store.row(job.id).read()
        job = as_read(job, stored) if isinstance(stored, Job) else job
        await super().remove(job, executions)


@breaks("an_edit_or_a_removal_of_a_revision_wins")
class EditBringsBack(Racing):
    """An edit is an upsert: what was removed after it had compared comes back."""

    async def replace(self, job: Job, executions: Sequence[Execution] = ()) -> Job:
        self._now()
        row = self.read(job.id)
        row.readable(job.id)
        await self.others_work()
        if self.store.row(job.id).job is not None:
            return await super().replace(job, executions)
        stored = row.replace(job, executions, self.store.next_serial(), self.store)
        self.store.save(job.id, row)
        return stored


@breaks("a_removed_id_is_free_for_one_add")
class RemovesInTwoSteps(Racing):
    """Deletes the job, and later what else is stored under its id."""

    async def remove(self, job: Job, executions: Sequence[Execution] = ()) -> None:
        await super().remove(job, executions)
        if self.store.row(job.id).hold is None:
            await self.others_work()
            self.store.rows.pop(job.id, None)


@breaks("writes_of_different_jobs_are_all_kept")
class OneDocument(Racing):
    """All jobs are one document, which an edit reads and writes as a whole."""

    async def replace(self, job: Job, executions: Sequence[Execution] = ()) -> Job:
        self._now()
        before = dict(self.store.rows)
        row = self.read(job.id)
        stored = row.replace(job, executions, self.store.next_serial(), self.store)
        await self.others_work()
        for job_id, other in before.items():
            if job_id in self.store.rows:
                self.store.save(job_id, other)
        self.store.save(job.id, row)
        return stored

    def _add(self, job: Job) -> Job:
        row = self.read(job.id)
        stored = row.add(job, self.store.next_serial())
        self.store.save(job.id, row)
        return stored


@breaks("writes_of_different_jobs_are_all_kept")
class OneIndex(Racing):
    """The list of ids is one value, which a removal reads and writes as a whole."""

    async def remove(self, job: Job, executions: Sequence[Execution] = ()) -> None:
        ids = set(self.store.rows)
        await super().remove(job, executions)
        await self.others_work()
        for new in set(self.store.rows) - ids:
            del self.store.rows[new]


@breaks("pruning_keeps_what_an_edit_revives")
class PruneListsFirst(Racing):
    """SELECT what has expired, then DELETE by id."""

    async def prune(self, before: datetime) -> int:
        now = self._now()
        expired = [key for key, row in self.store.rows.items() if row.has_expired(now)]
        await self.others_work()
        for job_id in expired:
            self.store.rows.pop(job_id, None)
        return len(expired) + await super().prune(before)
