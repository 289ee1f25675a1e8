"""Adding and reading jobs."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence

from anyio.lowlevel import checkpoint
from attrs import evolve
from tests.testkit.mutants.base import Sound, breaks

from sched_core import (
    Cron,
    Execution,
    Job,
    JobAlreadyExists,
    JobNotFound,
    Pending,
    Undecodable,
)


class AddsOtherwise(Sound):
    """Base: what is added is changed on the way."""

    def change(self, job: Job) -> Job:
        raise NotImplementedError

    def _add(self, job: Job) -> Job:
        return super()._add(self.change(job))

    async def replace(self, job: Job, executions: Sequence[Execution] = ()) -> Job:
        return await super().replace(self.change(job), executions)


@breaks("an_added_job_is_stored_as_it_was_given")
class CutsMicroseconds(AddsOtherwise):
    """Moments are stored in milliseconds."""

    def change(self, job: Job) -> Job:
        due = job.standing.due_at
        if due is not None:
            due = due.replace(microsecond=due.microsecond // 1000 * 1000)
        return evolve(job, standing=evolve(job.standing, due_at=due))


@breaks("an_added_job_is_stored_as_it_was_given")
class LosesTheZone(AddsOtherwise):
    """A cron expression is stored without its zone."""

    def change(self, job: Job) -> Job:
        schedule = job.spec.schedule
        if isinstance(schedule, Cron):
            schedule = evolve(schedule, tz="UTC")
        return evolve(job, spec=evolve(job.spec, schedule=schedule))


@breaks("an_added_job_is_stored_as_it_was_given")
class ForgetsThatItWasDeclared(AddsOtherwise):
    """Whether a job was declared or submitted has no column."""

    def change(self, job: Job) -> Job:
        return evolve(job, declared=False)


@breaks("an_added_job_is_stored_as_it_was_given")
class StartsEveryJobAfresh(AddsOtherwise):
    """Counters of a new job are set to zero, as if no job were ever imported."""

    def change(self, job: Job) -> Job:
        one = job.standing.scheduled
        if one is None:
            return job
        fresh = evolve(one, attempts=0, failures=0)
        return evolve(job, standing=evolve(job.standing, scheduled=fresh))


@breaks("any_legal_job_survives_a_round_trip")
class DropsNuls(AddsOtherwise):
    """NUL characters in metadata are dropped, because the database cannot keep them."""

    def change(self, job: Job) -> Job:
        kept = {k.replace("\0", ""): v.replace("\0", "") for k, v in job.spec.metadata.items()}
        return evolve(job, spec=evolve(job.spec, metadata=kept))


@breaks("a_stored_job_shares_nothing_with_the_caller")
class SharesMetadata(AddsOtherwise):
    """Metadata is handed out as the very dictionary that is stored."""

    def change(self, job: Job) -> Job:
        spec = evolve(job.spec)
        object.__setattr__(spec, "metadata", dict(job.spec.metadata))
        return evolve(job, spec=spec)


@breaks("get_of_an_unknown_id_is_none")
class RaisesForUnknownIds(Sound):
    """Get raises JobNotFound instead of returning None."""

    async def get(self, job_id: str) -> Job | Undecodable | None:
        found = await super().get(job_id)
        if found is None:
            raise JobNotFound(job_id)
        return found


@breaks("get_of_an_unknown_id_is_none")
class RemovesWhatIsNotThere(Sound):
    """Remove is content whatever was there: it does not look at the row count."""

    async def remove(self, job: Job, executions: Sequence[Execution] = ()) -> None:
        with contextlib.suppress(JobNotFound):
            await super().remove(job, executions)


class StoresOtherwise(AddsOtherwise):
    """Base: occurrences are changed on the way."""

    def occurrence(self, one: Pending) -> Pending:
        raise NotImplementedError

    def change(self, job: Job) -> Job:
        standing = job.standing
        scheduled = standing.scheduled and self.occurrence(standing.scheduled)
        requests = tuple(self.occurrence(one) for one in standing.requests)
        return evolve(job, standing=evolve(standing, scheduled=scheduled, requests=requests))


@breaks("an_added_job_is_stored_as_it_was_given")
class ForgetsArguments(StoresOtherwise):
    """What a request hands to its handler has no column."""

    def occurrence(self, one: Pending) -> Pending:
        return evolve(one, args=None)


@breaks("an_added_job_is_stored_as_it_was_given")
class ForgetsWhatBegan(StoresOtherwise):
    """The start of an occurrence has no column: what it covers moves between attempts."""

    def occurrence(self, one: Pending) -> Pending:
        return evolve(one, began_at=None)


@breaks("an_added_job_is_stored_as_it_was_given")
class ForgetsDerivations(StoresOtherwise):
    """The rules that a moment was derived from have no column: new ones change nothing."""

    def occurrence(self, one: Pending) -> Pending:
        return evolve(one, derived_from="")


@breaks("any_legal_job_survives_a_round_trip")
class KeysAreShort(StoresOtherwise):
    """Keys of requests are cut to 32 characters."""

    def occurrence(self, one: Pending) -> Pending:
        return evolve(one, key=one.key and one.key[:32])


@breaks("an_added_job_is_stored_as_it_was_given")
class OneRequestOnly(AddsOtherwise):
    """A job has room for one request."""

    def change(self, job: Job) -> Job:
        return evolve(job, standing=evolve(job.standing, requests=job.standing.requests[:1]))


@breaks("an_added_job_is_stored_as_it_was_given")
class ForgetsGaps(AddsOtherwise):
    """Pauses that an occurrence has outlived have no column."""

    def change(self, job: Job) -> Job:
        return evolve(job, standing=evolve(job.standing, gaps=()))


@breaks("any_occurrence_survives_its_claim")
class HoldsForgetWhatWasSnoozed(Sound):
    """The stored claim has no column for snoozes: they are lost once an edit has come between."""

    async def replace(self, job: Job, executions: Sequence[Execution] = ()) -> Job:
        row = self.store.row(job.id)
        replaced = await super().replace(job, executions)
        if row.hold is not None and row.hold.pending is not None:
            row.hold = evolve(row.hold, pending=evolve(row.hold.pending, snoozes=0))
        return replaced


@breaks("a_taken_id_is_refused")
class AddOverwrites(Sound):
    """Add is an upsert."""

    async def add(self, jobs: Sequence[Job]) -> Sequence[Job]:
        for job in jobs:
            row = self.store.rows.get(job.id)
            if row is not None:
                row.job = None
        return await super().add(jobs)


@breaks("adding_the_same_incarnation_again_is_a_repeat")
class RefusesARepeatedAdd(Sound):
    """An add whose reply got lost meets its own job, and is refused."""

    async def add(self, jobs: Sequence[Job]) -> Sequence[Job]:
        for job in jobs:
            if isinstance(await self.get(job.id), Job):
                raise JobAlreadyExists(job.id)
        return await super().add(jobs)


@breaks("adding_the_same_incarnation_again_is_a_repeat")
class RepeatedAddResets(Sound):
    """A repeated add writes the job again, and takes back what has happened since."""

    def _add(self, job: Job) -> Job:
        stored = super()._add(job)
        row = self.store.rows[job.id]
        row.job = stored = evolve(job, revision=self.store.next_serial())
        self.store.save(job.id, row)
        return stored


class OneByOne(Sound):
    """Base: a bulk add is a loop."""

    async def add(self, jobs: Sequence[Job]) -> Sequence[Job]:
        return [(await super(OneByOne, self).add([job]))[0] for job in jobs]


@breaks("a_bulk_add_is_all_or_nothing")
class BulkAddStopsHalfWay(OneByOne):
    """A bulk add is a loop, and ends where an id is taken."""


@breaks("an_id_twice_in_one_bulk_add_is_refused")
class LastOfABulkAddWins(Sound):
    """A bulk add gathers its jobs by id first."""

    async def add(self, jobs: Sequence[Job]) -> Sequence[Job]:
        return await super().add(list({job.id: job for job in jobs}.values()))


@breaks("a_bulk_add_takes_as_many_as_declared")
class BulkAddHasASecretLimit(Sound):
    """A bulk add writes what fits into one statement."""

    async def add(self, jobs: Sequence[Job]) -> Sequence[Job]:
        return await super().add(jobs[:500])


@breaks("a_cancelled_bulk_add_is_whole")
class BulkAddCanBeCancelledHalfWay(Sound):
    """A bulk add awaits between its jobs, and has no transaction."""

    async def add(self, jobs: Sequence[Job]) -> Sequence[Job]:
        for job in jobs:
            stored = await self.get(job.id)
            if isinstance(stored, Job) and stored.uid != job.uid:
                raise JobAlreadyExists(job.id)
        added = []
        for job in jobs:
            added.append(self._add(job))
            await checkpoint()
        return added
