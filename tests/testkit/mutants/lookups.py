"""Executions by their ids, and the newest ones of many jobs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime

from attrs import evolve
from tests.testkit.mutants.base import Sound, breaks

from sched_core import Execution, Job, UndecodableExecution

Found = Execution | UndecodableExecution
Recent = Mapping[str, Sequence[Found]]


@breaks("an_execution_is_found_by_its_id")
class FindsByThePrefix(Sound):
    """An execution is looked up by LIKE 'id%'."""

    async def execution(self, execution_id: str) -> Found | None:
        self._now()
        written = self.store.written.items()
        return next((one for key, one in written if key.startswith(execution_id)), None)


@breaks("an_execution_is_found_by_its_id")
class LooksAmongTheNewest(Sound):
    """An execution is looked for on the first page of its job."""

    async def execution(self, execution_id: str) -> Found | None:
        found = await super().execution(execution_id)
        newest = [one for _, one in self.store.history[-10:]]
        return found if found in newest else None


@breaks("what_is_found_is_as_it_was_written")
class LooksUpWithoutTheTraceback(Sound):
    """A look-up reads the columns that listings show, and no long text."""

    async def execution(self, execution_id: str) -> Found | None:
        found = await super().execution(execution_id)
        return evolve(found, traceback=None, log=None) if isinstance(found, Execution) else found


@breaks("what_was_deleted_is_not_found")
class LooksUpWhatWasDeleted(Sound):
    """An index by id lies apart from the history, and prune does not know it."""

    async def prune(self, before: datetime) -> int:
        written = dict(self.store.written)
        deleted = await super().prune(before)
        self.store.written = written | self.store.written
        return deleted


@breaks("an_unreadable_execution_is_found")
class FindsWhatItCanRead(Sound):
    """What cannot be read is said not to be there."""

    async def execution(self, execution_id: str) -> Found | None:
        found = await super().execution(execution_id)
        return found if isinstance(found, Execution) else None


class TellsRecent(Sound):
    """Base: tells other executions as the newest."""

    def newest(self, found: list[Found], limit: int) -> list[Found]:
        """Choose among all of a job, newest first."""
        return found[:limit]

    async def recent(self, job_ids: Sequence[str], *, limit: int) -> Recent:
        found = await super().recent(job_ids, limit=10_000)
        return {key: self.newest(list(some), limit) for key, some in found.items()}


@breaks("the_newest_of_each_job_are_told")
class TheOldestAreRecent(TellsRecent):
    """The oldest executions of a job are told, in the order of writing."""

    def newest(self, found: list[Found], limit: int) -> list[Found]:
        return found[::-1][:limit]


@breaks("the_newest_of_each_job_are_told")
class RecentByTheirEnd(TellsRecent):
    """Those that finished last are told, in whatever order they were written."""

    def newest(self, found: list[Found], limit: int) -> list[Found]:
        ended = sorted(found, key=lambda one: str(one.finished_at), reverse=True)
        return ended[:limit]


@breaks("the_newest_of_each_job_are_told")
class OneLimitForAllJobs(Sound):
    """ORDER BY … LIMIT n: the newest of all jobs together."""

    async def recent(self, job_ids: Sequence[str], *, limit: int) -> Recent:
        found = await super().recent(job_ids, limit=limit)
        left = limit
        told: dict[str, Sequence[Found]] = {}
        for key, some in found.items():
            told[key] = some[: max(left, 0)]
            left -= len(some)
        return {key: some for key, some in told.items() if some}


@breaks("the_newest_of_each_job_are_told")
class NothingIsRecentToo(Sound):
    """A job without executions is told, with none."""

    async def recent(self, job_ids: Sequence[str], *, limit: int) -> Recent:
        found = await super().recent(job_ids, limit=limit)
        return {key: found.get(key, ()) for key in job_ids}


@breaks("the_newest_of_many_jobs_are_told")
class AsksOfSomeJobs(Sound):
    """One statement has room for fifty parameters."""

    async def recent(self, job_ids: Sequence[str], *, limit: int) -> Recent:
        return await super().recent(job_ids[:50], limit=limit)


@breaks("to_look_up_changes_nothing")
class TellsItsOwnLists(Sound):
    """What recent returns are the lists that the backend goes on to write."""

    async def recent(self, job_ids: Sequence[str], *, limit: int) -> Recent:
        found = await super().recent(job_ids, limit=limit)
        lists: dict[str, list[Found]] = {key: list(some) for key, some in found.items()}
        self.store.__dict__["lists"] = lists
        return lists

    async def replace(self, job: Job, executions: Sequence[Execution] = ()) -> Job:
        stored = await super().replace(job, executions)
        self.store.__dict__.get("lists", {}).get(job.id, [])[:0] = executions
        return stored
