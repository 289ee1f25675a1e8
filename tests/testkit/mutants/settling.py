"""How claims end."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from anyio.lowlevel import checkpoint
from attrs import evolve
from tests.testkit.mutants.base import Sound, WritesOtherwise, breaks, holds

from sched_core import (
    Claim,
    Execution,
    Hold,
    Job,
    Kind,
    Settled,
    Settlement,
)


@breaks("a_settlement_writes_the_standing_and_the_history")
class SettlesWithoutAnExecution(Sound):
    """A settlement moves the job, and writes nothing to the history."""

    def _settle(self, settlement: Settlement, now: datetime) -> Settled:
        return super()._settle(evolve(settlement, executions=()), now)


@breaks("a_settlement_writes_the_standing_and_the_history")
class WritesWithoutSettling(Sound):
    """A settlement writes its executions, and leaves the job as it was."""

    def _settle(self, settlement: Settlement, now: datetime) -> Settled:
        row = self.store.rows.get(settlement.claim.job.id)
        job = None if row is None else row.job
        settled = super()._settle(settlement, now)
        if settled.outcome == "written" and row is not None and job is not None:
            row.job = job
            self.store.save(job.id, row)
        return settled


@breaks("any_legal_execution_survives_a_round_trip")
class TheHistoryHasSeconds(Sound):
    """Moments in the history are kept in whole seconds."""

    class Seconds(WritesOtherwise):
        def change(self, execution: Execution) -> Execution:
            return evolve(execution, finished_at=execution.finished_at.replace(microsecond=0))

    makes = Seconds


@breaks("any_legal_execution_survives_a_round_trip")
class TheHistoryForgetsWhoAsked(Sound):
    """Why an occurrence was there has no column."""

    class Scheduled(WritesOtherwise):
        def change(self, execution: Execution) -> Execution:
            return evolve(execution, kind=Kind.SCHEDULED)

    makes = Scheduled


@breaks("a_settlement_writes_the_standing_and_the_history")
class CutsReasons(Sound):
    """Reasons are stored as ASCII."""

    class Ascii(WritesOtherwise):
        def change(self, execution: Execution) -> Execution:
            reason = execution.reason
            return evolve(execution, reason=reason and reason.encode("ascii", "replace").decode())

    makes = Ascii


@breaks("a_settled_job_can_be_due_at_once")
class SettledRests(Sound):
    """What is settled is looked at again from the next second on."""

    def _settle(self, settlement: Settlement, now: datetime) -> Settled:
        settled = super()._settle(settlement, now)
        row = self.store.rows.get(settlement.claim.job.id)
        if row is not None and row.wake is not None and row.wake <= self._now():
            row.wake += timedelta(seconds=1)
            self.store.due.append((row.wake, settlement.claim.job.id))
            self.store.due.sort()
        return settled


@breaks("a_repeated_settlement_is_written_once")
class ARepeatIsLost(Sound):
    """A settlement whose reply got lost is answered with claim_lost when it is sent again."""

    def _settle(self, settlement: Settlement, now: datetime) -> Settled:
        if not holds(self.store.row(settlement.claim.job.id), settlement.claim):
            return Settled("claim_lost")
        return super()._settle(settlement, now)


@breaks("a_repeated_settlement_is_written_once")
class ForgetsWhatWasSettledBefore(Sound):
    """A repeated settlement is known only until the job is claimed again."""

    def _settle(self, settlement: Settlement, now: datetime) -> Settled:
        row, claim = self.store.row(settlement.claim.job.id), settlement.claim
        if holds(row, claim) or row.ended == (claim.token, claim.worker):
            return super()._settle(settlement, now)
        return Settled("claim_lost")


@breaks("a_stale_settlement_changes_nothing")
class NoFence(Sound):
    """A settlement is written whichever claim holds the job now."""

    def _settle(self, settlement: Settlement, now: datetime) -> Settled:
        row = self.store.rows.get(settlement.claim.job.id)
        if row is not None and row.hold is not None:
            mine = evolve(settlement.claim, token=row.hold.token, worker=row.hold.worker)
            settlement = evolve(settlement, claim=mine)
        return super()._settle(settlement, now)


@breaks("a_stale_settlement_changes_nothing")
class AZombieHasTheLastWord(Sound):
    """A settlement that comes too late is refused, and its execution is written all the same."""

    def _settle(self, settlement: Settlement, now: datetime) -> Settled:
        settled = super()._settle(settlement, now)
        if settled.outcome == "claim_lost":
            late = [
                evolve(execution, id=f"{execution.id}:late", final=False)
                for execution in settlement.executions
            ]
            self.store.write(late)
        return settled


class FencedOtherwise(Sound):
    """Base: another notion of whose claim it is."""

    def holds(self, hold: Hold, claim: Claim) -> bool:
        raise NotImplementedError

    def _pass(self, claim: Claim) -> Claim:
        row = self.store.rows.get(claim.job.id)
        hold = None if row is None else row.hold
        if hold is not None and self.holds(hold, claim):
            return evolve(claim, token=hold.token, worker=hold.worker)
        return claim

    def _settle(self, settlement: Settlement, now: datetime) -> Settled:
        return super()._settle(evolve(settlement, claim=self._pass(settlement.claim)), now)

    async def extend(self, claims: Sequence[Claim]) -> Sequence[Claim]:
        return await super().extend([self._pass(claim) for claim in claims])

    async def release(self, claims: Sequence[Claim]) -> None:
        await super().release([self._pass(claim) for claim in claims])


@breaks("the_fence_is_token_and_worker")
class FencedByToken(FencedOtherwise):
    """The fence is the token alone, which repeats when a backup is restored."""

    def holds(self, hold: Hold, claim: Claim) -> bool:
        return hold.token == claim.token


@breaks("the_fence_is_token_and_worker")
class FencedByWorker(FencedOtherwise):
    """The fence is the worker alone, which may have lost the job and claimed it again."""

    def holds(self, hold: Hold, claim: Claim) -> bool:
        return hold.worker == claim.worker


@breaks("an_edit_wins_over_a_settlement")
class SettleOverwritesEdits(Sound):
    """A settlement is written whatever was edited meanwhile."""

    def _settle(self, settlement: Settlement, now: datetime) -> Settled:
        row = self.store.rows.get(settlement.claim.job.id)
        if row is not None and row.job is not None and settlement.standing is not None:
            settlement = evolve(settlement, expected=row.job.revision)
        return super()._settle(settlement, now)


@breaks("an_edit_wins_over_a_settlement")
class ConflictsLeaveAnExecution(Sound):
    """The history is written before the conflict is found."""

    def _settle(self, settlement: Settlement, now: datetime) -> Settled:
        settled = super()._settle(settlement, now)
        if settled.outcome == "conflict":
            self.store.write(
                [evolve(execution, final=False) for execution in settlement.executions]
            )
        return settled


@breaks("an_edit_wins_over_a_settlement")
class ConflictsTellNothing(Sound):
    """A conflict does not say what is stored now."""

    def _settle(self, settlement: Settlement, now: datetime) -> Settled:
        return evolve(super()._settle(settlement, now), job=None)


@breaks("an_edit_keeps_the_hold")
class EditsFreeTheClaim(Sound):
    """An edit writes the whole row, the hold included."""

    async def replace(self, job: Job, executions: Sequence[Execution] = ()) -> Job:
        replaced = await super().replace(job, executions)
        row = self.store.rows[job.id]
        row.hold = None
        self.store.save(job.id, row)
        return replaced


@breaks("what_is_still_pending_does_not_end_without_a_standing")
class BelievesTheCaller(Sound):
    """A settlement without a standing is always written."""

    def _settle(self, settlement: Settlement, now: datetime) -> Settled:
        row = self.store.rows.get(settlement.claim.job.id)
        leaves = row is not None and row.job is not None and settlement.standing is None
        if leaves and holds(row, settlement.claim):
            self.store.write(settlement.executions)
            return super()._settle(evolve(settlement, executions=()), now)
        return super()._settle(settlement, now)


@breaks("a_claim_can_be_freed_without_a_word")
class NothingToSettle(Sound):
    """A settlement that writes nothing is answered without a look at the store."""

    def _settle(self, settlement: Settlement, now: datetime) -> Settled:
        if settlement.standing is None and not settlement.executions:
            return Settled("written")
        return super()._settle(settlement, now)


@breaks("an_attempt_that_is_not_final_can_be_written_alone")
class NothingIsWrittenWithoutAStanding(Sound):
    """A settlement without standing is a conflict as long as its occurrence is pending."""

    def _settle(self, settlement: Settlement, now: datetime) -> Settled:
        row = self.store.row(settlement.claim.job.id)
        pending = isinstance(row.job, Job) and settlement.standing is None
        if pending and settlement.executions and holds(row, settlement.claim):
            return Settled("conflict", row.read())
        return super()._settle(settlement, now)


@breaks("a_batch_reports_each_settlement")
class OneBadRowFailsTheBatch(Sound):
    """A batch is one transaction, and is taken back as a whole."""

    async def settle(self, settlements: Sequence[Settlement]) -> Sequence[Settled]:
        for settlement in settlements:
            row = self.store.rows.get(settlement.claim.job.id)
            job = None if row is None else row.job
            if job is not None and job.revision != settlement.expected and row.hold is not None:
                return [Settled("conflict", job) for _ in settlements]
        return await super().settle(settlements)


@breaks("a_batch_reports_each_settlement")
class AnswersOutOfOrder(Sound):
    """A batch is sorted by id, to avoid deadlocks, and so are its answers."""

    async def settle(self, settlements: Sequence[Settlement]) -> Sequence[Settled]:
        return await super().settle(sorted(settlements, key=lambda one: one.claim.job.id))


@breaks("each_attempt_has_an_execution_of_its_own")
class OneExecutionForAnOccurrence(Sound):
    """The history's key has no attempt in it: of several executions the first one stays."""

    class Keyed(WritesOtherwise):
        def change(self, execution: Execution) -> Execution | None:
            known = {(other.uid, other.number) for other in self.readable()}
            return None if (execution.uid, execution.number) in known else execution

    makes = Keyed


@breaks("a_cancelled_settlement_is_whole")
class SettlesInTwoSteps(Sound):
    """The history is written first, and then the job, in a transaction of its own."""

    async def settle(self, settlements: Sequence[Settlement]) -> Sequence[Settled]:
        for settlement in settlements:
            row = self.store.row(settlement.claim.job.id)
            current = isinstance(row.job, Job) and row.job.revision == settlement.expected
            if current and holds(row, settlement.claim):
                self.store.write(settlement.executions)
        await checkpoint()
        return await super().settle(settlements)


@breaks("a_settlement_writes_what_ended_during_its_run")
class OneLineForASettlement(Sound):
    """A settlement writes its first execution."""

    def _settle(self, settlement: Settlement, now: datetime) -> Settled:
        return super()._settle(evolve(settlement, executions=settlement.executions[:1]), now)
