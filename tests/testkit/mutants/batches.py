"""Batches that are cut, mixed up, or judged as one."""

from __future__ import annotations

from collections.abc import Sequence

from attrs import evolve
from tests.testkit.mutants.base import Sound, Store, breaks

from sched_core import (
    BackendUnavailable,
    Claim,
    InvalidDefinition,
    Job,
    JobAlreadyExists,
    Settled,
    Settlement,
)

CHUNK = 500
PLACES = 999
"""What a statement of SQLite once had room for."""


@breaks("many_claims_are_as_single_ones")
class RenewsOneStatement(Sound):
    """Renew puts all ids into one statement, and what has no room in it is left out."""

    async def extend(self, claims: Sequence[Claim]) -> Sequence[Claim]:
        return await super().extend(claims[:PLACES])


@breaks("many_claims_are_as_single_ones")
class SettlesLastPartTwice(Sound):
    """Settlements go in parts, and the answers of the last part are those of the first."""

    async def settle(self, settlements: Sequence[Settlement]) -> Sequence[Settled]:
        answers = [*await super().settle(settlements[:CHUNK])]
        for start in range(CHUNK, len(settlements), CHUNK):
            rest = settlements[start : start + CHUNK - 1]
            answers += await super().settle(rest)
        return (answers + answers)[: len(settlements)]


@breaks("many_claims_are_as_single_ones")
class OneTokenForABatch(Sound):
    """All claims of a large batch have the token of the batch."""

    async def hand_out(self, limit: int) -> Sequence[Claim]:
        claims = await super().hand_out(limit)
        if len(claims) < 100:
            return claims
        token = max(claim.token for claim in claims)
        for claim in claims:
            row = self.store.rows[claim.job.id]
            row.hold = evolve(row.hold, token=token)
        return [evolve(claim, token=token) for claim in claims]


@breaks("many_claims_can_be_released")
class ReleasesOneStatement(Sound):
    """Release frees a hundred claims, and leaves the rest to their leases."""

    async def release(self, claims: Sequence[Claim]) -> None:
        await super().release(claims[:100])


@breaks("many_lost_claims_are_taken_over")
class LapsesOfOneStatement(Sound):
    """What is told of many lost claims has no room in one statement."""

    async def hand_out(self, limit: int) -> Sequence[Claim]:
        claims = await super().hand_out(limit)
        del self.lapsed[256:]
        return claims


@breaks("a_batch_is_judged_one_by_one")
class BatchesInOrderOfTokens(Sound):
    """A large batch is sorted, to take its locks in order, and answered in that order."""

    async def settle(self, settlements: Sequence[Settlement]) -> Sequence[Settled]:
        if len(settlements) > 100:
            settlements = sorted(settlements, key=lambda settled: settled.claim.job.uid[::-1])
        return await super().settle(settlements)


@breaks("a_batch_is_judged_one_by_one")
class LargeBatchesAreWhole(Sound):
    """A large batch is one transaction: one conflict, and all of it is one."""

    async def settle(self, settlements: Sequence[Settlement]) -> Sequence[Settled]:
        if len(settlements) < 100:
            return await super().settle(settlements)
        rows = {one.claim.job.id: self.store.row(one.claim.job.id) for one in settlements}
        gone = [job_id for job_id, row in rows.items() if row.job is None]
        if gone:
            return [Settled("conflict") for _ in settlements]
        return await super().settle(settlements)


@breaks("a_bulk_add_of_as_many_as_declared_is_whole")
class LargeAddsGoInParts(Sound):
    """A large add goes in parts, each of them all or nothing."""

    async def add(self, jobs: Sequence[Job]) -> Sequence[Job]:
        if len({job.id for job in jobs}) < len(jobs):
            raise JobAlreadyExists(jobs[-1].id)
        stored: list[Job] = []
        for start in range(0, len(jobs), CHUNK):
            stored += await super().add(jobs[start : start + CHUNK])
        return stored


LIMIT = 7


class Limited(Sound):
    """The sound one with a bulk_limit, which it refuses to go beyond."""

    def __init__(self, store: Store) -> None:
        super().__init__(store)
        self._capabilities = evolve(self._capabilities, bulk_limit=LIMIT)

    async def add(self, jobs: Sequence[Job]) -> Sequence[Job]:
        if len(jobs) > LIMIT:
            return await self.add_too_many(jobs)
        return await super().add(jobs)

    async def add_too_many(self, jobs: Sequence[Job]) -> Sequence[Job]:
        """Say why not."""
        raise InvalidDefinition("jobs", f"at most {LIMIT} at once, not {len(jobs)}")


@breaks("a_bulk_add_beyond_the_limit_is_whole_or_refused")
class TakesTheFirstOfTooMany(Limited):
    """What is beyond the limit is left out: LIMIT."""

    async def add_too_many(self, jobs: Sequence[Job]) -> Sequence[Job]:
        return await self.add(jobs[:LIMIT])


@breaks("a_bulk_add_beyond_the_limit_is_whole_or_refused")
class TooManyAreAddedInParts(Limited):
    """What is beyond the limit is added in parts, each of them all or nothing."""

    async def add_too_many(self, jobs: Sequence[Job]) -> Sequence[Job]:
        return [*await self.add(jobs[:LIMIT]), *await self.add(jobs[LIMIT:])]


@breaks("a_bulk_add_beyond_the_limit_is_whole_or_refused")
class TooManyAreABusyStore(Limited):
    """What the server refuses is BackendUnavailable, so that its caller tries without end."""

    async def add_too_many(self, jobs: Sequence[Job]) -> Sequence[Job]:
        raise BackendUnavailable(f"at most {LIMIT}")
