"""What becomes of a run whose job is edited or removed away."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from attrs import evolve
from tests.testkit.mutants.base import Sound, WritesOtherwise, breaks, holds

from sched_core import (
    Claim,
    Execution,
    Job,
    JobNotFound,
    JobQuery,
    Kind,
    Page,
    Settled,
    Settlement,
    Status,
    Undecodable,
)


@breaks("a_removed_job_is_gone")
class RemovedIsListed(Sound):
    """Listing does not look at the mark of removed jobs."""

    async def remove(self, job: Job, executions: Sequence[Execution] = ()) -> None:
        await super().remove(job, executions)
        self.store.__dict__.setdefault("removed", []).append(job)

    async def jobs(
        self, query: JobQuery, *, after: str | None, limit: int
    ) -> Page[Job | Undecodable]:
        page = await super().jobs(query, after=after, limit=limit)
        removed = self.store.__dict__.get("removed", []) if page.next is None else []
        return Page([*page.items, *removed], page.next)


@breaks("a_removed_job_is_gone")
class RemoveIsForgotten(Sound):
    """A removed job is hidden from get, and still handed out."""

    async def remove(self, job: Job, executions: Sequence[Execution] = ()) -> None:
        if await self.get(job.id) is None:
            raise JobNotFound(job.id)
        self.store.__dict__.setdefault("hidden", set()).add(job.id)

    async def get(self, job_id: str) -> Job | Undecodable | None:
        hidden = job_id in self.store.__dict__.get("hidden", ())
        return None if hidden else await super().get(job_id)


@breaks("a_settlement_cannot_bring_a_job_back")
class SettleBringsBack(Sound):
    """A settlement is an upsert, and brings a removed job back."""

    def _settle(self, settlement: Settlement, now: datetime) -> Settled:
        row = self.store.rows.get(settlement.claim.job.id)
        if row is not None and row.job is None and settlement.standing is not None:
            row.job = settlement.claim.job
            settlement = evolve(settlement, expected=row.job.revision)
        return super()._settle(settlement, now)


@breaks("a_readded_job_waits_for_the_old_run")
class ReAddForgetsTheTombstone(Sound):
    """A job that is added again starts with a fresh row."""

    async def add(self, jobs: Sequence[Job]) -> Sequence[Job]:
        for job in jobs:
            row = self.store.rows.get(job.id)
            if row is not None and row.job is None:
                del self.store.rows[job.id]
        return await super().add(jobs)


@breaks("a_readded_job_waits_for_the_old_run")
class RemoveDeletesTheRow(Sound):
    """A removed job leaves no tombstone: a re-added one runs next to the old run."""

    async def remove(self, job: Job, executions: Sequence[Execution] = ()) -> None:
        await super().remove(job, executions)
        self.store.rows.pop(job.id, None)


@breaks("a_readded_job_with_the_same_moment_is_another")
class OccurrencesAreMoments(Sound):
    """An occurrence is known by id and moment, so that a re-added job has ended already."""

    class ByMoment(WritesOtherwise):
        def change(self, execution: Execution) -> Execution | None:
            known = {(other.job_id, other.scheduled_at) for other in self.readable()}
            same = execution.final and (execution.job_id, execution.scheduled_at) in known
            return None if same else execution

    makes = ByMoment


@breaks("an_edit_leaves_the_running_occurrence_to_its_claim")
class EditsWriteTheEndOfARun(Sound):
    """An edit writes the execution of the occurrence that is running."""

    async def replace(self, job: Job, executions: Sequence[Execution] = ()) -> Job:
        replaced = await super().replace(job)
        self.store.write(executions)
        return replaced


@breaks("what_was_edited_away_ends_with_its_claim")
class ReleaseEndsNothing(Sound):
    """Releasing an occurrence that was edited away leaves it without an end."""

    async def release(self, claims: Sequence[Claim]) -> None:
        history, written = self.store.history, self.store.written
        self.store.history, self.store.written = [], {}
        await super().release(claims)
        self.store.history, self.store.written = history, written


@breaks("what_was_edited_away_ends_with_its_claim")
class SettlementsEndNothing(Sound):
    """A settlement writes what it brings, and not the end of what was edited away meanwhile."""

    def _settle(self, settlement: Settlement, now: datetime) -> Settled:
        before = len(self.store.history)
        settled = super()._settle(settlement, now)
        mine = {each.id for each in settlement.executions}
        kept = [e for n, e in enumerate(self.store.history) if n < before or e[1].id in mine]
        self.store.keep(kept)
        return settled


@breaks("what_was_edited_away_ends_with_its_claim")
class WhatHasRunIsSupersededToo(Sound):
    """A claim whose occurrence was edited away ends it superseded, though its run ended it."""

    def _settle(self, settlement: Settlement, now: datetime) -> Settled:
        row = self.store.row(settlement.claim.job.id)
        held = holds(row, settlement.claim)
        gone = held and (row.job is None or row.job.standing.find(1) is None)
        settled = super()._settle(settlement, now)
        if gone and settled.outcome == "written" and settlement.executions:
            one = settlement.executions[0]
            end = evolve(one, id=f"{one.uid}:1:0", attempt=0, status=Status.SUPERSEDED)
            self.store.write([end])
        return settled


@breaks("a_last_execution_says_what_the_occurrence_covered")
class EndsStandForThemselves(Sound):
    """The end of what was edited away covers itself only, whatever an edit had added to it."""

    class Alone(WritesOtherwise):
        def change(self, execution: Execution) -> Execution:
            if execution.status is not Status.SUPERSEDED:
                return execution
            return evolve(execution, coalesced=0, coalesced_until=None)

    makes = Alone


@breaks("a_last_execution_says_what_the_occurrence_covered")
class EndsAreScheduled(Sound):
    """The end of a request that was edited away says that it was the schedule's."""

    class Scheduled(WritesOtherwise):
        def change(self, execution: Execution) -> Execution:
            ends = execution.status is Status.SUPERSEDED
            return evolve(execution, kind=Kind.SCHEDULED) if ends else execution

    makes = Scheduled
