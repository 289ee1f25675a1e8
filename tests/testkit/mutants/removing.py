"""What becomes of a run whose job is edited or removed away."""

from __future__ import annotations

from collections.abc import Sequence

from attrs import evolve
from tests.testkit.mutants.base import Sound, WritesOtherwise, breaks

from sched_core import (
    Claim,
    Execution,
    Job,
    JobQuery,
    LostClaim,
    Page,
    Settled,
    Settlement,
    Status,
    Undecodable,
)


@breaks("a_removed_job_is_gone")
class RemovedIsListed(Sound):
    """Listing does not look at the mark of removed jobs."""

    async def remove(
        self, job_id: str, history: Sequence[Execution] = (), *, expected: int | None = None
    ) -> bool:
        stored = await self.get(job_id)
        removed = await super().remove(job_id, history, expected=expected)
        if isinstance(stored, Job):
            self.store.__dict__.setdefault("removed", []).append(stored)
        return removed

    async def jobs(
        self, query: JobQuery, *, after: str | None, limit: int
    ) -> Page[Job | Undecodable]:
        page = await super().jobs(query, after=after, limit=limit)
        removed = self.store.__dict__.get("removed", []) if page.next is None else []
        return Page([*page.items, *removed], page.next)


@breaks("a_removed_job_is_gone")
class RemoveIsForgotten(Sound):
    """A removed job is hidden from get, and still handed out."""

    async def remove(
        self, job_id: str, history: Sequence[Execution] = (), *, expected: int | None = None
    ) -> bool:
        hidden = self.store.__dict__.setdefault("hidden", set())
        if await self.get(job_id) is None:
            return False
        hidden.add(job_id)
        return True

    async def get(self, job_id: str) -> Job | Undecodable | None:
        hidden = job_id in self.store.__dict__.get("hidden", ())
        return None if hidden else await super().get(job_id)


@breaks("a_settlement_cannot_bring_a_job_back")
class SettleBringsBack(Sound):
    """A settlement is an upsert, and brings a removed job back."""

    def _settle(self, settlement: Settlement) -> Settled:
        row = self.store.rows.get(settlement.claim.job.id)
        if row is not None and row.job is None and settlement.standing is not None:
            row.job = settlement.claim.job
            settlement = evolve(settlement, expected=row.job.revision)
        return super()._settle(settlement)


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
    """A removed job leaves no tombstone: a re-added one runs beside the old run."""

    async def remove(
        self, job_id: str, history: Sequence[Execution] = (), *, expected: int | None = None
    ) -> bool:
        removed = await super().remove(job_id, history, expected=expected)
        if removed:
            self.store.rows.pop(job_id, None)
        return removed


@breaks("a_readded_job_with_the_same_moment_is_another")
class OccurrencesAreMoments(Sound):
    """An occurrence is known by id and moment, so that a re-added job has ended already."""

    class ByMoment(WritesOtherwise):
        def change(self, execution: Execution) -> Execution | None:
            known = {(other.job_id, other.scheduled_at) for other in self.readable()}
            same = execution.final and (execution.job_id, execution.scheduled_at) in known
            return None if same else execution

    makes = ByMoment


@breaks("what_a_lost_claim_left_behind_is_superseded")
class EditsWriteTheFateOfARun(Sound):
    """An edit writes the execution of the occurrence that is running."""

    async def replace(self, job: Job, history: Sequence[Execution] = ()) -> Job:
        replaced = await super().replace(job)
        self.store.write(history)
        return replaced


@breaks("what_a_lost_claim_left_behind_is_superseded")
class LostCountsAgainstTheNext(Sound):
    """A lost claim counts against whatever occurrence is handed out next."""

    async def claim_due(self, limit: int) -> Sequence[Claim]:
        holds = {job_id: row.hold for job_id, row in self.store.rows.items()}
        claims = await super().claim_due(limit)
        for claim in claims:
            hold, row = holds.get(claim.job.id), self.store.rows[claim.job.id]
            if hold is not None:
                count = 1 if hold.lost is None else hold.lost.count + 1
                row.hold = evolve(claim, lost=LostClaim(count, hold.worker, hold.claimed_at))
        return [self.store.rows[claim.job.id].hold for claim in claims]


@breaks("what_a_lost_claim_left_behind_is_superseded")
class EditedAwayWithoutAFate(Sound):
    """A takeover writes what was abandoned, and not that the occurrence is superseded."""

    class Half(WritesOtherwise):
        def change(self, execution: Execution) -> Execution | None:
            return None if execution.status is Status.SUPERSEDED else execution

    makes = Half


@breaks("a_lost_claim_of_a_removed_job_is_cleared")
class TombstonesVanish(Sound):
    """A tombstone whose lease has ended is deleted, and its run leaves no execution."""

    async def claim_due(self, limit: int) -> Sequence[Claim]:
        now = self._now()
        for job_id, row in list(self.store.rows.items()):
            if row.job is None and row.hold is not None and row.hold.expires_at <= now:
                del self.store.rows[job_id]
        return await super().claim_due(limit)


@breaks("releasing_what_was_edited_away_writes_its_fate")
class ReleaseWritesNoFate(Sound):
    """Releasing an occurrence that was edited away leaves it without an end."""

    async def release(self, claims: Sequence[Claim]) -> None:
        executions, written, final = self.store.executions, self.store.written, self.store.final
        self.store.executions, self.store.written, self.store.final = [], {}, {}
        await super().release(claims)
        self.store.executions, self.store.written, self.store.final = executions, written, final
