"""What is deleted or let go along with something else: by prune, by removals, by expiry."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from attrs import evolve
from tests.testkit.mutants.base import Sound, WritesOtherwise, breaks
from tests.testkit.mutants.claiming import ClaimsOtherwise

from sched_core import (
    Claim,
    Execution,
    ExecutionQuery,
    Job,
    JobNotFound,
    Page,
    Status,
    Undecodable,
    UndecodableExecution,
)


class Forgets(Sound):
    """Base: deletes the executions of jobs."""

    def forget(self, job_ids: set[str]) -> None:
        self.store.keep([entry for entry in self.store.history if entry[1].job_id not in job_ids])


@breaks("pruned_jobs_leave_their_executions")
class PruneCascadesToExecutions(Forgets):
    """The history refers to jobs with ON DELETE CASCADE: pruning one deletes it."""

    async def prune(self, before: datetime) -> int:
        jobs = set(self.store.rows)
        deleted = await super().prune(before)
        self.forget(jobs - set(self.store.rows))
        return deleted


@breaks("the_history_of_a_removed_job_stays")
class RemovalCascadesToExecutions(Forgets):
    """Removing a job deletes its history."""

    async def remove(self, job: Job, executions: Sequence[Execution] = ()) -> None:
        await super().remove(job, executions)
        if job.id not in self.store.rows:
            self.forget({job.id})


@breaks("the_history_of_a_removed_job_stays")
class AddingAgainStartsAnEmptyHistory(Forgets):
    """Adding a job deletes what an earlier one with its id has left."""

    async def add(self, jobs: Sequence[Job]) -> Sequence[Job]:
        new = {job.id for job in jobs if job.id not in self.store.rows}
        added = await super().add(jobs)
        self.forget(new)
        return added


@breaks("the_history_of_a_removed_job_stays")
class TheHistoryIsJoinedWithJobs(Sound):
    """FROM history JOIN job: the executions of a job that is gone are not listed."""

    async def executions(
        self, query: ExecutionQuery, *, after: str | None, limit: int
    ) -> Page[Execution | UndecodableExecution]:
        page = await super().executions(query, after=after, limit=limit)
        there = [
            execution
            for execution in page.items
            if self.store.row(execution.job_id).job is not None
        ]
        return Page(there, page.next)


@breaks("pruned_executions_leave_their_jobs")
class PruneCascadesToJobs(Sound):
    """A job that has run and has no history any more is deleted with it."""

    async def prune(self, before: datetime) -> int:
        had = {execution.job_id for execution in self.store.readable()}
        deleted = await super().prune(before)
        for job_id in had - {execution.job_id for execution in self.store.readable()}:
            row = self.store.row(job_id)
            if row.hold is None:
                self.store.rows.pop(job_id, None)
        return deleted


@breaks("pruned_executions_leave_their_jobs")
class PruneFrees(Sound):
    """Pruning the history of a job that is claimed takes its claim away."""

    async def prune(self, before: datetime) -> int:
        had = {execution.job_id for execution in self.store.readable()}
        deleted = await super().prune(before)
        for job_id in had - {execution.job_id for execution in self.store.readable()}:
            row = self.store.row(job_id)
            row.hold = None
            self.store.save(job_id, row)
        return deleted


class ExpiresAsFirst(Sound):
    """Base: when a job expires is kept apart from the job."""

    def known(self) -> dict[str, datetime | None]:
        known: dict[str, datetime | None] = self.store.__dict__.setdefault("expires", {})
        return known

    async def add(self, jobs: Sequence[Job]) -> Sequence[Job]:
        added = await super().add(jobs)
        for job in added:
            self.known()[job.id] = job.standing.expires_at
        return added

    async def prune(self, before: datetime) -> int:
        self._now()
        for job_id, row in list(self.store.rows.items()):
            if isinstance(row.job, Job):
                expires = self.expires(row.job, self.known().get(job_id))
                row.job = evolve(row.job, standing=evolve(row.job.standing, expires_at=expires))
        return await super().prune(before)

    def expires(self, job: Job, first: datetime | None) -> datetime | None:
        raise NotImplementedError


@breaks("an_edit_takes_expiry_away")
class ExpiryIsSetOnce(ExpiresAsFirst):
    """A moment of expiry that was given when the job was added stays, whatever edits say."""

    def expires(self, job: Job, first: datetime | None) -> datetime | None:
        return job.standing.expires_at if first is None else first


@breaks("an_edit_takes_expiry_away")
class ExpiryOnlyMoves(ExpiresAsFirst):
    """An edit can move expiry and not take it away: SET expires_at = coalesce(new, expires_at)."""

    def expires(self, job: Job, first: datetime | None) -> datetime | None:
        return job.standing.expires_at or first


@breaks("an_edit_takes_expiry_away")
class ExpiryIsNeverGiven(ExpiresAsFirst):
    """A job expires only if it was added with a moment of expiry, or settled with one."""

    def expires(self, job: Job, first: datetime | None) -> datetime | None:
        never = first is None and job.standing.last_status is not Status.SUCCEEDED
        return None if never else job.standing.expires_at


@breaks("prune_counts_executions_and_jobs")
class CountsExecutionsOnly(Sound):
    """Prune returns how many executions it deleted, and says nothing of jobs."""

    async def prune(self, before: datetime) -> int:
        jobs = len(self.store.rows)
        return await super().prune(before) - jobs + len(self.store.rows)


@breaks("prune_counts_executions_and_jobs")
class ExpiredJobsVanish(Sound):
    """A job that has expired is gone for every caller, before prune has counted it."""

    async def get(self, job_id: str) -> Job | Undecodable | None:
        job = await super().get(job_id)
        expires = job.standing.expires_at if isinstance(job, Job) else None
        return None if expires is not None and expires <= self._now() else job


@breaks("prune_counts_executions_and_jobs")
class PrunesFromTheEpochOn(Sound):
    """Prune takes a moment before 1970 for a mistake, and deletes nothing then."""

    async def prune(self, before: datetime) -> int:
        return await super().prune(before) if before.year >= 1970 else 0


@breaks("numbers_grow_over_prune")
class TokensStartAgainAfterPrune(ClaimsOtherwise):
    """The next token is one above the highest that is stored."""

    def change(self, claim: Claim) -> Claim:
        holds = [row.hold.token for row in self.store.rows.values() if row.hold is not None]
        holds.remove(claim.token)
        executions = [execution.token for execution in self.store.readable()]
        return evolve(claim, token=max([*holds, *executions], default=0) + 1)


@breaks("a_second_removal_keeps_the_hold")
class ASecondRemovalDropsTheHold(Sound):
    """Removing what is removed already deletes the tombstone."""

    async def remove(self, job: Job, executions: Sequence[Execution] = ()) -> None:
        try:
            await super().remove(job, executions)
        except JobNotFound:
            self.store.rows.pop(job.id, None)
            raise


@breaks("a_second_removal_keeps_the_hold")
class ATombstoneHoldsOnce(Sound):
    """The hold of a removed job goes with the next incarnation, if that is removed, too."""

    async def remove(self, job: Job, executions: Sequence[Execution] = ()) -> None:
        row = self.store.row(job.id)
        old = isinstance(row.job, Job) and row.hold is not None and row.hold.uid != row.job.uid
        await super().remove(job, executions)
        if old:
            self.store.rows.pop(job.id, None)


@breaks("the_run_of_a_removed_job_keeps_its_claim")
class TombstonesAreNotRenewed(Sound):
    """Renew joins holds with jobs: the run of a removed job loses its claim."""

    async def extend(self, claims: Sequence[Claim]) -> Sequence[Claim]:
        return await super().extend(
            [claim for claim in claims if self.store.row(claim.job.id).job is not None]
        )


@breaks("the_run_of_a_removed_job_keeps_its_claim")
class ANewJobEndsTheOldRun(Sound):
    """Renew looks for a claim of the incarnation that is stored, and finds none of the old one."""

    async def extend(self, claims: Sequence[Claim]) -> Sequence[Claim]:
        return await super().extend(
            [
                claim
                for claim in claims
                if not isinstance(job := self.store.row(claim.job.id).job, Job)
                or job.uid == claim.job.uid
            ]
        )


@breaks("releasing_the_removed_frees_the_new")
class ReleasesTheNewInstead(Sound):
    """The superseded execution of a released claim is written about the job that is stored."""

    class AboutTheStored(WritesOtherwise):
        def change(self, execution: Execution) -> Execution:
            job = self.row(execution.job_id).job
            if execution.status is not Status.SUPERSEDED or not isinstance(job, Job):
                return execution
            return evolve(execution, uid=job.uid, id=f"{job.uid}:{execution.number}:0")

    makes = AboutTheStored


@breaks("releasing_the_removed_frees_the_new")
class ReleaseFindsNoOldRun(Sound):
    """Release looks for a claim of the incarnation that is stored, and leaves it to its lease."""

    async def release(self, claims: Sequence[Claim]) -> None:
        await super().release(
            [
                claim
                for claim in claims
                if not isinstance(job := self.store.row(claim.job.id).job, Job)
                or job.uid == claim.job.uid
            ]
        )
