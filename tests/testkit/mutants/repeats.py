"""Repeats: by what a settlement that was written is known again."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from tests.testkit.mutants.base import LEASE, Sound, breaks

from sched_core import Claim, Settled, Settlement
from sched_core.row import WRITTEN, held


@breaks("a_repeat_without_executions_is_known")
class ClaimsForgetWhoSettled(Sound):
    """A claim writes its token over that of the claim that was settled last."""

    async def hand_out(self, limit: int) -> Sequence[Claim]:
        claims = await super().hand_out(limit)
        for claim in claims:
            self.store.rows[claim.job.id].ended = None
        return claims


@breaks("a_repeat_without_executions_is_known")
class TakesEveryOldTokenForARepeat(Sound):
    """A settlement without executions is answered as written if its token is an old one."""

    def _settle(self, settlement: Settlement, now: datetime) -> Settled:
        settled = super()._settle(settlement, now)
        old = settled.outcome == "claim_lost" and not settlement.executions
        return WRITTEN if old else settled


@breaks("a_freed_claim_is_known")
class FreesWithoutATrace(Sound):
    """A settlement that says nothing only takes the hold away."""

    def _settle(self, settlement: Settlement, now: datetime) -> Settled:
        row = self.store.row(settlement.claim.job.id)
        before = row.ended
        settled = super()._settle(settlement, now)
        if settlement.standing is None and not settlement.executions:
            row.ended = before
        return settled


@breaks("a_repeat_whose_executions_were_pruned_is_known")
class KnowsRepeatsByTheirExecutions(Sound):
    """A settlement with executions is known by them only, until they are deleted."""

    def _settle(self, settlement: Settlement, now: datetime) -> Settled:
        settled = super()._settle(settlement, now)
        if settled.outcome == "written" and settlement.executions:
            self.store.row(settlement.claim.job.id).ended = None
        return settled


@breaks("a_repeat_whose_executions_were_pruned_is_known")
class RepeatsWriteAgain(Sound):
    """A repeat writes the executions that are not there (any more)."""

    def _settle(self, settlement: Settlement, now: datetime) -> Settled:
        settled = super()._settle(settlement, now)
        if settled.outcome == "written":
            self.store.write(settlement.executions)
        return settled


@breaks("a_settlement_twice_in_one_batch_is_written_once")
class ABatchIsJudgedAtItsBeginning(Sound):
    """What a batch may write is decided before anything of it is written."""

    async def settle(self, settlements: Sequence[Settlement]) -> Sequence[Settled]:
        seen: set[tuple[str, int]] = set()
        answers: list[Settled] = []
        for settlement in settlements:
            fence = (settlement.claim.job.id, settlement.claim.token)
            new = fence not in seen
            seen.add(fence)
            answers += await super().settle([settlement]) if new else [Settled("claim_lost")]
        return answers


@breaks("a_repeat_of_another_claim_is_none")
class KnowsRepeatsByTheIdsOfExecutions(Sound):
    """A settlement is a repeat if executions with its ids are there, whatever wrote them."""

    def _settle(self, settlement: Settlement, now: datetime) -> Settled:
        settled = super()._settle(settlement, now)
        known = settlement.executions and all(
            self.store.stored(execution.id) is not None for execution in settlement.executions
        )
        return WRITTEN if settled.outcome == "claim_lost" and known else settled


@breaks("a_released_claim_cannot_settle")
class ReleaseIsASettlement(Sound):
    """Release frees a claim as a settlement does, which counts as settled from then on."""

    async def release(self, claims: Sequence[Claim]) -> None:
        await super().release(claims)
        for claim in claims:
            row = self.store.row(claim.job.id)
            if row.job is not None and row.hold is None:
                row.ended = (claim.token, claim.worker)
                self.store.save(claim.job.id, row)


@breaks("a_released_claim_cannot_settle")
class ReleasedClaimsAreHeldUntilTheNext(Sound):
    """Release makes a job due, and leaves it to its worker until a worker claims it."""

    def _settle(self, settlement: Settlement, now: datetime) -> Settled:
        row = self.store.row(settlement.claim.job.id)
        released = self.store.__dict__.setdefault("released", {})
        free = row.hold is None and row.ended is None and row.job is not None
        if free and released.get(settlement.claim.job.id) == settlement.claim.token:
            claim = settlement.claim
            row.hold = held(
                row.job, row.job.standing.scheduled, claim.token, claim.worker, now, LEASE
            )
        return super()._settle(settlement, now)

    async def release(self, claims: Sequence[Claim]) -> None:
        await super().release(claims)
        for claim in claims:
            self.store.__dict__.setdefault("released", {})[claim.job.id] = claim.token


@breaks("a_repeat_is_of_the_same_status")
class KnowsRepeatsByOneOfTheirExecutions(Sound):
    """A settlement is a repeat if one of its executions is stored, and not all of them."""

    def _settle(self, settlement: Settlement, now: datetime) -> Settled:
        settled = super()._settle(settlement, now)
        fence = settlement.claim.token, settlement.claim.worker
        found = (self.store.stored(each.id) for each in settlement.executions)
        known = any(each is not None and (each.token, each.worker) == fence for each in found)
        return WRITTEN if settled.outcome == "claim_lost" and known else settled


@breaks("a_repeat_is_of_the_same_status")
class RepeatsAreOfAnyStatus(Sound):
    """The abandoned execution of a lost claim is taken for what its worker would have written."""

    def _settle(self, settlement: Settlement, now: datetime) -> Settled:
        settled = super()._settle(settlement, now)
        fence = settlement.claim.token, settlement.claim.worker
        found = [self.store.stored(each.id) for each in settlement.executions]
        known = found and all(each and (each.token, each.worker) == fence for each in found)
        return WRITTEN if settled.outcome == "claim_lost" and known else settled
