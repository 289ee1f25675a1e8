"""What is told to be held: nothing, something else, or too long."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from attrs import evolve
from tests.testkit.mutants.base import Sound, as_free, breaks

from sched_core import (
    Claim,
    Execution,
    Job,
    JobQuery,
    Page,
    Settled,
    Settlement,
    Undecodable,
)


class TellsOtherwise(Sound):
    """Base: what is read of a held job is told otherwise."""

    def tell(self, job: Job) -> Job:
        raise NotImplementedError

    def told(self, job: Job | Undecodable) -> Job | Undecodable:
        return self.tell(job) if isinstance(job, Job) and job.held is not None else job

    async def get(self, job_id: str) -> Job | Undecodable | None:
        job = await super().get(job_id)
        return None if job is None else self.told(job)

    async def jobs(
        self, query: JobQuery, *, after: str | None, limit: int
    ) -> Page[Job | Undecodable]:
        page = await super().jobs(query, after=after, limit=limit)
        return evolve(page, items=[self.told(job) for job in page.items])


@breaks("the_holder_is_told_by_get_and_jobs")
class TellsNobodysHold(TellsOtherwise):
    """A job is never told to be held: a trigger of what runs is taken for the run itself."""

    def tell(self, job: Job) -> Job:
        return as_free(job)


@breaks("the_holder_is_told_by_get_and_jobs")
class TellsWhenTheHoldWasRenewed(TellsOtherwise):
    """The moment of the claim is that of its newest renewal: what the run covers moves."""

    def tell(self, job: Job) -> Job:
        return evolve(job, held_at=self.store.rows[job.id].hold.renewed_at)


@breaks("the_holder_is_told_by_get_and_jobs")
class TellsNoHoldPastItsLease(TellsOtherwise):
    """A claim is told only while its lease lasts, though its worker may run on and settle."""

    def tell(self, job: Job) -> Job:
        ended = self.store.rows[job.id].hold.expires_at <= self._now()
        return as_free(job) if ended else job


@breaks("the_holder_is_told_by_get_and_jobs")
class TellsWhatIsNextForHeld(TellsOtherwise):
    """The number that is told to be held is that of the stored standing, also after an edit."""

    def tell(self, job: Job) -> Job:
        one = job.standing.scheduled
        return job if one is None else evolve(job, held=one.number)


@breaks("the_holder_is_told_by_get_and_jobs")
class ListsWithoutHolds(Sound):
    """Get joins the claims, and the listing does not."""

    async def jobs(
        self, query: JobQuery, *, after: str | None, limit: int
    ) -> Page[Job | Undecodable]:
        page = await super().jobs(query, after=after, limit=limit)
        jobs = [as_free(job) if isinstance(job, Job) else job for job in page.items]
        return evolve(page, items=jobs)


@breaks("what_is_held_is_told_by_every_answer")
class ConflictsTellNoHold(Sound):
    """A conflict answers with the stored job as if no claim held it."""

    def _settle(self, settlement: Settlement, now: datetime) -> Settled:
        settled = super()._settle(settlement, now)
        if settled.job is None:
            return settled
        return evolve(settled, job=as_free(settled.job))


@breaks("what_is_held_is_told_by_every_answer")
class EditsTellNoHold(Sound):
    """Replace answers with what it was given, as if no claim held it."""

    async def replace(self, job: Job, executions: Sequence[Execution] = ()) -> Job:
        return as_free(await super().replace(job, executions))


@breaks("what_is_settled_is_held_no_more")
class TellsTheLastHold(Sound):
    """What was claimed last is told as held until the next claim, ended or not."""

    async def hand_out(self, limit: int) -> Sequence[Claim]:
        claims = await super().hand_out(limit)
        last = self.store.__dict__.setdefault("last", {})
        last |= {claim.job.id: claim.claimed_at for claim in claims}
        return claims

    async def get(self, job_id: str) -> Job | Undecodable | None:
        job = await super().get(job_id)
        at = self.store.__dict__.get("last", {}).get(job_id)
        if at is None or not isinstance(job, Job) or job.held is not None:
            return job
        return evolve(job, held=1, held_at=at)


@breaks("another_incarnations_hold_is_not_told")
class TellsTheHoldOfATombstone(Sound):
    """A job that was added again is told to be held by the run of its former self."""

    async def get(self, job_id: str) -> Job | Undecodable | None:
        job, hold = await super().get(job_id), self.store.row(job_id).hold
        if not isinstance(job, Job) or hold is None:
            return job
        return evolve(job, held=hold.pending.number, held_at=hold.claimed_at)


class ForgetsWhatAnEndStandsFor(Sound):
    """Base: what is left to a claim is only that there is an end, and not for how many."""

    def forget(self, job_id: str) -> None:
        row = self.store.rows.get(job_id)
        if row is not None and row.hold is not None and row.hold.pending is not None:
            one = evolve(row.hold.pending, coalesced=0, coalesced_until=None)
            row.hold = evolve(row.hold, pending=one)


@breaks("a_lost_claim_ends_what_was_edited_away")
class ForgetsItAtAnEdit(ForgetsWhatAnEndStandsFor):
    """The claim of an occurrence that an edit takes away keeps what it was when claimed."""

    async def replace(self, job: Job, executions: Sequence[Execution] = ()) -> Job:
        stored = await super().replace(job, executions)
        self.forget(job.id)
        return stored


@breaks("a_lost_claim_ends_what_was_removed")
class ForgetsItAtARemoval(ForgetsWhatAnEndStandsFor):
    """The tombstone of a removed job says whose run it is, and not for how many occurrences."""

    async def remove(self, job: Job, executions: Sequence[Execution] = ()) -> None:
        await super().remove(job, executions)
        self.forget(job.id)
