"""Pages of jobs and of the history."""

from __future__ import annotations

import fnmatch
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from anyio.lowlevel import checkpoint
from attrs import evolve
from tests.testkit.mutants.base import Sound, breaks

from sched_core import (
    Execution,
    ExecutionQuery,
    Job,
    JobQuery,
    Page,
    Settled,
    Settlement,
    State,
    Undecodable,
    UndecodableExecution,
)


class ListsOtherwise(Sound):
    """Base: pages made of a list of its own."""

    def key(self, job_id: str) -> Any:
        return job_id

    def select(self, query: JobQuery) -> list[Job | Undecodable]:
        found = []
        for row in self.store.rows.values():
            known = isinstance(row.job, Job)
            chosen = self.matches(row.job, query) if known else query.matches(row.job)
            found += [row.job] if chosen else []
        return sorted(found, key=lambda job: self.key(job.id))

    def matches(self, job: Job, query: JobQuery) -> bool:
        return query.matches(job)

    async def jobs(
        self, query: JobQuery, *, after: str | None, limit: int
    ) -> Page[Job | Undecodable]:
        self._now()
        found = self.select(query)
        if after is not None:
            found = [job for job in found if self.key(job.id) > self.key(after)]
        return Page(found[:limit], found[limit - 1].id if len(found) > limit else None)


@breaks("pages_of_jobs_are_stable")
class PagesByOffset(ListsOtherwise):
    """The next page begins at a position, which moves when something is added or removed."""

    async def jobs(
        self, query: JobQuery, *, after: str | None, limit: int
    ) -> Page[Job | Undecodable]:
        self._now()
        found, start = self.select(query), int(after or 0)
        more = start + limit < len(found)
        return Page(found[start : start + limit], str(start + limit) if more else None)


@breaks("pages_are_complete")
class TheLastPageIsMissing(Sound):
    """A page that is not full is taken for the end of the one before."""

    async def jobs(
        self, query: JobQuery, *, after: str | None, limit: int
    ) -> Page[Job | Undecodable]:
        page = await super().jobs(query, after=after, limit=limit)
        if page.next is None:
            return page
        rest = await super().jobs(query, after=page.next, limit=limit)
        return Page(page.items, page.next if len(rest.items) == limit else None)


@breaks("pages_are_complete")
class PagesLeaveOneOut(Sound):
    """The next page begins after the first job that the last page had no room for."""

    async def jobs(
        self, query: JobQuery, *, after: str | None, limit: int
    ) -> Page[Job | Undecodable]:
        page = await super().jobs(query, after=after, limit=limit)
        if page.next is None:
            return page
        rest = await super().jobs(query, after=page.next, limit=1)
        return Page(page.items, rest.items[0].id)


@breaks("jobs_come_in_id_order")
class OrderedByLocale(ListsOtherwise):
    """Ids are ordered as people order words, capitals and accents aside."""

    def key(self, job_id: str) -> Any:
        return job_id.casefold(), job_id


@breaks("jobs_come_in_id_order")
class OrderedByUtf16(ListsOtherwise):
    """Ids are ordered by UTF-16 code units, as JavaScript and Java do."""

    def key(self, job_id: str) -> Any:
        return job_id.encode("utf-16-be")


@breaks("filters_select")
class PrefixIsAPattern(ListsOtherwise):
    """The prefix goes into a LIKE, and is not escaped."""

    def matches(self, job: Job, query: JobQuery) -> bool:
        pattern = query.id_prefix.replace("%", "*").replace("_", "?") + "*"
        return fnmatch.fnmatchcase(job.id, pattern) and evolve(query, id_prefix="").matches(job)


@breaks("filters_select")
class PrefixIgnoresCase(ListsOtherwise):
    """The prefix goes into a LIKE, which ignores case."""

    def matches(self, job: Job, query: JobQuery) -> bool:
        same = job.id.lower().startswith(query.id_prefix.lower())
        return same and evolve(query, id_prefix="").matches(job)


@breaks("filters_select")
class AnyFilterWillDo(ListsOtherwise):
    """Filters are joined by OR."""

    def matches(self, job: Job, query: JobQuery) -> bool:
        asked = [JobQuery(id_prefix=query.id_prefix)] if query.id_prefix else []
        asked += [JobQuery(state=query.state)] if query.state else []
        asked += [JobQuery(group=query.group)] if query.group else []
        asked += [JobQuery(metadata={key: value}) for key, value in query.metadata.items()]
        return not asked or any(one.matches(job) for one in asked)


@breaks("filters_select")
class FinishedIsHidden(ListsOtherwise):
    """Finished jobs are left out of every listing."""

    def matches(self, job: Job, query: JobQuery) -> bool:
        return job.state is not State.FINISHED and query.matches(job)


class HistoryOtherwise(Sound):
    """Base: history pages made of a list of its own."""

    def selected(self, execution: Execution, query: ExecutionQuery) -> bool:
        return query.matches(execution)

    def key(self, position: int, job_id: str) -> Any:
        return -position

    async def executions(
        self, query: ExecutionQuery, *, after: str | None, limit: int
    ) -> Page[Execution | UndecodableExecution]:
        self._now()
        found = [entry for entry in self.store.history if self.selected(entry[1], query)]
        found.sort(key=lambda entry: self.key(entry[0], entry[1].job_id))
        if after is not None:
            position, _, job_id = after.partition(" ")
            last = self.key(int(position), job_id)
            found = [entry for entry in found if self.key(entry[0], entry[1].job_id) > last]
        page = found[:limit]
        cursor = f"{page[-1][0]} {page[-1][1].job_id}" if len(found) > limit else None
        return Page([execution for _, execution in page], cursor)


@breaks("pages_of_the_history_are_stable")
class HistoryPagesByOffset(Sound):
    """The next page begins at a position, which moves with every execution that is written."""

    async def executions(
        self, query: ExecutionQuery, *, after: str | None, limit: int
    ) -> Page[Execution | UndecodableExecution]:
        self._now()
        found = [
            execution for _, execution in reversed(self.store.history) if query.matches(execution)
        ]
        start = int(after or 0)
        more = start + limit < len(found)
        return Page(found[start : start + limit], str(start + limit) if more else None)


@breaks("the_history_comes_newest_first")
class OldestFirst(HistoryOtherwise):
    """The history is listed in the order of writing."""

    def key(self, position: int, job_id: str) -> Any:
        return position


@breaks("the_history_comes_newest_first")
class HistoryOfOnePage(Sound):
    """The history's first page is its only one."""

    async def executions(
        self, query: ExecutionQuery, *, after: str | None, limit: int
    ) -> Page[Execution | UndecodableExecution]:
        return Page((await super().executions(query, after=after, limit=limit)).items, None)


@breaks("the_whole_history_comes_newest_first")
class HistoryJobByJob(HistoryOtherwise):
    """Across jobs the history is listed by id."""

    def key(self, position: int, job_id: str) -> Any:
        return job_id, -position


@breaks("the_history_is_filtered")
class SinceIsExclusive(HistoryOtherwise):
    """The query's since is compared with >."""

    def selected(self, execution: Execution, query: ExecutionQuery) -> bool:
        return execution.finished_at != query.since and query.matches(execution)


@breaks("the_history_is_filtered")
class UntilIsInclusive(HistoryOtherwise):
    """The query's until is compared with <=."""

    def selected(self, execution: Execution, query: ExecutionQuery) -> bool:
        inside = query.until is None or execution.finished_at <= query.until
        return inside and evolve(query, until=None).matches(execution)


@breaks("the_history_is_filtered")
class AnyHistoryFilterWillDo(HistoryOtherwise):
    """The history's filters are joined by OR."""

    def selected(self, execution: Execution, query: ExecutionQuery) -> bool:
        asked = [ExecutionQuery(job_id=query.job_id)] if query.job_id else []
        asked += [ExecutionQuery(statuses=query.statuses)] if query.statuses else []
        asked += [ExecutionQuery(final=query.final)] if query.final is not None else []
        within = ExecutionQuery(since=query.since, until=query.until)
        some = not asked or any(one.matches(execution) for one in asked)
        return some and within.matches(execution)


@breaks("the_history_is_filtered")
class FinalFalseIsNoFilter(HistoryOtherwise):
    """`if query.final:` where `is not None` was meant."""

    def selected(self, execution: Execution, query: ExecutionQuery) -> bool:
        return evolve(query, final=query.final or None).matches(execution)


@breaks("listings_show_what_was_written_elsewhere")
class ListsFromACache(Sound):
    """What was listed is remembered until this instance writes something itself."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.known: dict[tuple[str | None, int, str], Page[Job | Undecodable]] = {}

    async def jobs(
        self, query: JobQuery, *, after: str | None, limit: int
    ) -> Page[Job | Undecodable]:
        key = after, limit, repr(query)
        if key not in self.known:
            self.known[key] = await super().jobs(query, after=after, limit=limit)
        return self.known[key]

    async def add(self, jobs: Sequence[Job]) -> Sequence[Job]:
        self.known.clear()
        return await super().add(jobs)

    async def replace(self, job: Job, executions: Sequence[Execution] = ()) -> Job:
        self.known.clear()
        return await super().replace(job, executions)

    async def remove(self, job: Job, executions: Sequence[Execution] = ()) -> None:
        self.known.clear()
        return await super().remove(job, executions)

    async def settle(self, settlements: Sequence[Settlement]) -> Sequence[Settled]:
        self.known.clear()
        return await super().settle(settlements)

    async def prune(self, before: datetime) -> int:
        self.known.clear()
        return await super().prune(before)


@breaks("pages_of_jobs_are_complete_while_others_write")
class ListsNamesAndThenJobs(Sound):
    """Names first, then their jobs: where one has gone meanwhile, the page ends."""

    async def jobs(
        self, query: JobQuery, *, after: str | None, limit: int
    ) -> Page[Job | Undecodable]:
        page = await super().jobs(query, after=after, limit=limit)
        await checkpoint()
        items: list[Job | Undecodable] = []
        for item in page.items:
            stored = self.store.row(item.id).job
            if stored is None:
                break
            items.append(stored)
        return Page(items, page.next)


@breaks("pages_of_jobs_are_complete_while_others_write")
class EditsMoveJobsToTheEnd(ListsOtherwise):
    """Pages are ordered by revision, so that an edit moves a job behind the page."""

    def _place(self, job: Job | Undecodable) -> int:
        return job.revision if isinstance(job, Job) else 0

    async def jobs(
        self, query: JobQuery, *, after: str | None, limit: int
    ) -> Page[Job | Undecodable]:
        self._now()
        found = sorted(self.select(query), key=self._place)
        found = [job for job in found if self._place(job) > int(after or -1)]
        return Page(found[:limit], str(self._place(found[limit - 1])) if found[limit:] else None)


@breaks("pages_of_the_history_are_complete_while_others_write")
class TheHistoryIsCountedFromItsEnd(Sound):
    """The next page of the history begins after so many, of which there are more by then."""

    async def executions(
        self, query: ExecutionQuery, *, after: str | None, limit: int
    ) -> Page[Execution | UndecodableExecution]:
        page = await super().executions(query, after=None, limit=10**6)
        start = int(after or 0)
        more = start + limit < len(page.items)
        return Page(page.items[start : start + limit], str(start + limit) if more else None)
