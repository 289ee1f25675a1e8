"""Repeats: by what a settlement that was written is known again."""

from __future__ import annotations

from collections.abc import Sequence

from tests.testkit.mutants.base import Sound, breaks

from sched_core import Claim, Settled, Settlement
from sched_core.row import WRITTEN


@breaks("a_repeat_without_executions_is_known")
class ClaimsForgetWhoSettled(Sound):
    """A claim writes its token over that of the claim that was settled last."""

    async def claim_due(self, limit: int) -> Sequence[Claim]:
        claims = await super().claim_due(limit)
        for claim in claims:
            self.store.rows[claim.job.id].ended = None
        return claims


@breaks("a_repeat_without_executions_is_known")
class TakesEveryOldTokenForARepeat(Sound):
    """A settlement without executions is answered as written if its token is an old one."""

    def _settle(self, settlement: Settlement) -> Settled:
        settled = super()._settle(settlement)
        old = settled.outcome == "claim_lost" and not settlement.executions
        return WRITTEN if old else settled


@breaks("a_freed_claim_is_known")
class FreesWithoutATrace(Sound):
    """A settlement that says nothing only takes the hold away."""

    def _settle(self, settlement: Settlement) -> Settled:
        row = self.store.row(settlement.claim.job.id)
        before = row.ended
        settled = super()._settle(settlement)
        if settlement.standing is None and not settlement.executions:
            row.ended = before
        return settled


@breaks("a_repeat_whose_executions_were_pruned_is_known")
class KnowsRepeatsByTheirLines(Sound):
    """A settlement with executions is known by them only, until they are deleted."""

    def _settle(self, settlement: Settlement) -> Settled:
        settled = super()._settle(settlement)
        if settled.outcome == "written" and settlement.executions:
            self.store.row(settlement.claim.job.id).ended = None
        return settled


@breaks("a_repeat_whose_executions_were_pruned_is_known")
class RepeatsWriteAgain(Sound):
    """A repeat writes the executions that are not there (any more)."""

    def _settle(self, settlement: Settlement) -> Settled:
        settled = super()._settle(settlement)
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
class KnowsRepeatsByTheIdsOfLines(Sound):
    """A settlement is a repeat if executions with its ids are there, whoever wrote them."""

    def _settle(self, settlement: Settlement) -> Settled:
        settled = super()._settle(settlement)
        known = settlement.executions and all(
            self.store.execution(execution.id) is not None for execution in settlement.executions
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
    """Release makes a job due, and leaves it to its worker until somebody claims it."""

    def _settle(self, settlement: Settlement) -> Settled:
        row = self.store.row(settlement.claim.job.id)
        released = self.store.__dict__.setdefault("released", {})
        free = row.hold is None and row.ended is None and row.job is not None
        if free and released.get(settlement.claim.job.id) == settlement.claim.token:
            row.hold = settlement.claim
        return super()._settle(settlement)

    async def release(self, claims: Sequence[Claim]) -> None:
        await super().release(claims)
        for claim in claims:
            self.store.__dict__.setdefault("released", {})[claim.job.id] = claim.token
