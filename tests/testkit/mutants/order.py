"""Listings that go by another moment, and pages that promise more than there is."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

from attrs import evolve
from tests.testkit.mutants.base import Sound, breaks

from sched_core import (
    Execution,
    ExecutionQuery,
    Interval,
    Job,
    JobQuery,
    Page,
    Undecodable,
    UndecodableExecution,
)


@breaks("the_history_is_listed_by_writing_and_selected_by_its_end")
class SelectsByTheClaim(Sound):
    """The query's since and until are compared with when the attempt was claimed."""

    async def executions(
        self, query: ExecutionQuery, *, after: str | None, limit: int
    ) -> Page[Execution | UndecodableExecution]:
        executions = self.store.history
        self.store.history = [
            (number, execution)
            for number, execution in executions
            if isinstance(execution, Execution)
            and (query.since is None or execution.claimed_at >= query.since)
            and (query.until is None or execution.claimed_at < query.until)
        ]
        everything = evolve(query, since=None, until=None)
        try:
            return await super().executions(everything, after=after, limit=limit)
        finally:
            self.store.history = executions


@breaks("the_history_is_listed_by_writing_and_selected_by_its_end")
class ListsByTheEnd(Sound):
    """ORDER BY finished_at: what was written late with an early moment lies in between."""

    async def executions(
        self, query: ExecutionQuery, *, after: str | None, limit: int
    ) -> Page[Execution | UndecodableExecution]:
        executions = self.store.history
        ends = sorted(execution.finished_at for _, execution in executions)
        self.store.history = [
            (number + 1, execution)
            for number, execution in enumerate(
                sorted(
                    (execution for _, execution in executions),
                    key=lambda execution: ends.index(execution.finished_at),
                )
            )
        ]
        try:
            return await super().executions(query, after=after, limit=limit)
        finally:
            self.store.history = executions


@breaks("a_full_last_page_has_no_next")
class AFullPageOfJobsGoesOn(Sound):
    """A page of jobs has a next whenever it is full."""

    async def jobs(
        self, query: JobQuery, *, after: str | None, limit: int
    ) -> Page[Job | Undecodable]:
        page = await super().jobs(query, after=after, limit=limit)
        return Page(page.items, page.items[-1].id if len(page.items) == limit else None)


@breaks("a_full_last_page_has_no_next")
class AFullPageOfTheHistoryGoesOn(Sound):
    """A page of the history has a next whenever it is full."""

    async def executions(
        self, query: ExecutionQuery, *, after: str | None, limit: int
    ) -> Page[Execution | UndecodableExecution]:
        page = await super().executions(query, after=after, limit=limit)
        if page.next is not None or len(page.items) < limit:
            return page
        last = next(
            number for number, execution in self.store.history if execution == page.items[-1]
        )
        return Page(page.items, str(last))


@breaks("every_kind_and_policy_is_kept")
class DurationsAreMilliseconds(Sound):
    """Durations of a policy are whole milliseconds."""

    async def add(self, jobs: Sequence[Job]) -> Sequence[Job]:
        return await super().add([self.kept(job) for job in jobs])

    def kept(self, job: Job) -> Job:
        policy = job.spec.policy
        if policy.timeout is None:
            return job
        whole = timedelta(milliseconds=policy.timeout // timedelta(milliseconds=1))
        return evolve(job, spec=evolve(job.spec, policy=evolve(policy, timeout=whole)))


@breaks("every_kind_and_policy_is_kept")
class ForgetsWhereIntervalsStart(Sound):
    """A schedule is stored as its kind and its gap, without where it starts."""

    async def add(self, jobs: Sequence[Job]) -> Sequence[Job]:
        return await super().add([self.kept(job) for job in jobs])

    def kept(self, job: Job) -> Job:
        schedule = job.spec.schedule
        if not isinstance(schedule, Interval) or schedule.start is None:
            return job
        return evolve(job, spec=evolve(job.spec, schedule=evolve(schedule, start=None)))
