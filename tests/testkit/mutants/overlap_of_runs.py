"""Claims and what ends them: right alone, and wrong when two callers are at it at once."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from anyio import sleep, to_thread
from anyio.lowlevel import checkpoint
from attrs import evolve
from tests.testkit.mutants.base import AFTER, breaks, hold_of, holds
from tests.testkit.mutants.overlap import Racing

from sched_core import Claim, Execution, Job, Renewal, Settled, Settlement, Undecodable
from sched_core.memory import _Row
from sched_core.row import held

Stored = Job | Undecodable | None


def same(one: Stored, other: Stored) -> bool:
    """Whether both are there, in one revision."""
    return isinstance(one, Job) and isinstance(other, Job) and one.revision == other.revision


class ClaimsCopies(Racing):
    """Base: reads what is due, works on copies, and writes those that :meth:`may_write`."""

    def may_write(self, job_id: str, read: Stored) -> bool:
        return self.store.row(job_id).hold is None and same(self.store.row(job_id).job, read)

    def may_lapse(self, job_id: str, read: _Row) -> bool:
        now = self.store.row(job_id)
        return now.hold == read.hold and (now.job is read.job or same(now.job, read.job))

    async def hand_out(self, limit: int) -> Sequence[Claim]:
        now = self._now()
        rows = [(row.due(), key) for key, row in self.store.rows.items()]
        due = sorted((moment, key) for moment, key in rows if moment is not None and moment <= now)
        claims: list[Claim] = []
        for _, key in due:
            if self.read(key).hold is not None:
                await self._lapse(key, now)
            elif len(claims) < limit:
                row = self.read(key)
                before = row.job
                claim = row.claim(self.store.next_serial(), self._worker, now, self._lease)
                await self.others_work()
                if self.may_write(key, before):
                    self.store.save(key, row)
                    claims += [claim] if claim is not None else []
        return claims

    async def _lapse(self, job_id: str, now: datetime) -> None:
        read, row, late = self.read(job_id), self.read(job_id), Late()
        lapsed = row.lapse(now, self.store.next_serial(), late)
        await self.others_work()
        if self.may_lapse(job_id, read):
            self.store.save(job_id, row)
            self.store.write(late.executions)
            self.lapsed += lapsed


class Late:
    """Keeps executions that are to be written later."""

    def __init__(self) -> None:
        self.executions: list[Execution] = []

    def append(self, execution: Execution) -> None:
        self.executions.append(execution)

    def stored(self, execution_id: str) -> None:
        return None


@breaks("a_job_is_claimed_once")
class ClaimsWithoutComparing(ClaimsCopies):
    """Reads what is due, then writes the claims: no compare-and-set."""

    def may_write(self, job_id: str, read: Stored) -> bool:
        return True


@breaks("many_claimers_share_what_is_due")
class ClaimsWithoutComparingFarAway(ClaimsWithoutComparing):
    """The same as ClaimsWithoutComparing, with a network in between."""

    async def others_work(self) -> None:
        await sleep(0.002)


@breaks("an_edit_during_a_claim_knows_of_it")
class ClaimTakesBackAnEdit(ClaimsCopies):
    """Compares the hold, and writes the whole row, with the job that it read."""

    def may_write(self, job_id: str, read: Stored) -> bool:
        row = self.store.row(job_id)
        return row.hold is None and (row.job is None) is (read is None)


@breaks("an_edit_during_a_claim_knows_of_it")
class ClaimsWhatWasPutOff(Racing):
    """Reads the ids that are due, then claims those that are free, whatever they are due at now."""

    async def hand_out(self, limit: int) -> Sequence[Claim]:
        now = self._now()
        due = [key for key, row in self.store.rows.items() if (row.due() or AFTER) <= now]
        await self.others_work()
        claims = list(await super().hand_out(limit))
        for key in due:
            row = self.store.row(key)
            if len(claims) < limit and row.hold is None and isinstance(row.job, Job):
                token, one = self.store.next_serial(), row.job.standing.scheduled
                row.hold = held(row.job, one, token, self._worker, now, self._lease)
                self.store.save(key, row)
                claims.append(Claim(row.job, token, self._worker, now, row.hold.expires_at))
        return claims


@breaks("a_removal_during_a_claim_knows_of_it")
class ClaimBringsBack(ClaimsCopies):
    """Compares the revision where there is one, and inserts the row where there is none."""

    def may_write(self, job_id: str, read: Stored) -> bool:
        row = self.store.row(job_id)
        return row.hold is None and (row.job is None or same(row.job, read))


@breaks("one_of_two_ends_a_lost_claim")
class LapsesWithoutComparing(ClaimsCopies):
    """A free job is claimed by compare-and-set; what a lost claim leaves is written without."""

    def may_lapse(self, job_id: str, read: _Row) -> bool:
        return True


@breaks("a_lost_claim_ends_what_is_edited_away_meanwhile_once")
class LapsesTakeBackEdits(ClaimsCopies):
    """What a lost claim leaves is written where the claim is still there, edited or not."""

    def may_lapse(self, job_id: str, read: _Row) -> bool:
        return bool(self.store.row(job_id).hold == read.hold)


@breaks("a_release_frees_no_other_claim")
class AbandonsFirst(Racing):
    """Writes what a lost claim leaves before it ends it, and may find it released by then."""

    async def hand_out(self, limit: int) -> Sequence[Claim]:
        now = self._now()
        for job_id in list(self.store.rows):
            row, late = self.read(job_id), Late()
            row.lapse(now, self.store.next_serial(), late)
            self.store.write(late.executions)
        await self.others_work()
        return await super().hand_out(limit)


class SettlesLater(Racing):
    """Base: decides about a settlement, and writes it later."""

    async def settle(self, settlements: Sequence[Settlement]) -> Sequence[Settled]:
        self._now()
        return [await self._later(settlement) for settlement in settlements]

    async def _later(self, settlement: Settlement) -> Settled:
        job_id = settlement.claim.job.id
        row = self.read(job_id)
        if not holds(row, settlement.claim):
            return self._settle(settlement, self._now())
        revision = row.job.revision if isinstance(row.job, Job) else None
        if settlement.standing is not None and revision != settlement.expected:
            return self._settle(settlement, self._now())
        await self.others_work()
        return self.write(settlement, row)

    def write(self, settlement: Settlement, read: _Row) -> Settled:
        raise NotImplementedError


@breaks("the_end_of_a_lease_or_a_settlement_ends_a_claim")
class SettleComparesTheFenceFirst(SettlesLater):
    """Compares token and worker, then writes by id."""

    def write(self, settlement: Settlement, read: _Row) -> Settled:
        row = self.store.row(settlement.claim.job.id)
        row.hold = read.hold
        return self._settle(settlement, self._now())


@breaks("the_end_of_a_lease_or_a_settlement_ends_a_claim")
class SettleComparesTheFenceFarAway(SettleComparesTheFenceFirst):
    """SettleComparesTheFenceFirst with a network before it compares, and before it writes."""

    async def others_work(self) -> None:
        await sleep(0.002)

    async def _later(self, settlement: Settlement) -> Settled:
        await self.others_work()
        return await super()._later(settlement)


@breaks("an_edit_or_a_settlement_of_a_revision_wins")
class SettleComparesTheRevisionFirst(SettlesLater):
    """Compares the revision, then writes where the fence holds."""

    def write(self, settlement: Settlement, read: _Row) -> Settled:
        job = self.store.row(settlement.claim.job.id).job
        if job is not None and settlement.standing is not None:
            settlement = evolve(settlement, expected=job.revision)
        return self._settle(settlement, self._now())


@breaks("a_settlement_during_a_removal_brings_nothing_back")
class SettleIsAnUpsert(SettlesLater):
    """A settlement is an upsert of the job."""

    def write(self, settlement: Settlement, read: _Row) -> Settled:
        row = self.store.row(settlement.claim.job.id)
        if row.job is None and holds(row, settlement.claim):
            row.job = read.job
        return self._settle(settlement, self._now())


@breaks("an_add_at_the_end_of_a_removed_run_is_kept")
class DeletesTheTombstone(SettlesLater):
    """A settlement that found a tombstone deletes what is stored under the id."""

    def write(self, settlement: Settlement, read: _Row) -> Settled:
        settled = self._settle(settlement, self._now())
        if read.job is None:
            self.store.rows.pop(settlement.claim.job.id, None)
        return settled


@breaks("two_settlements_of_a_claim_write_one_execution")
class ExecutionThenStanding(SettlesLater):
    """The execution is written in one step, and the standing in the next one."""

    async def _later(self, settlement: Settlement) -> Settled:
        row = self.store.row(settlement.claim.job.id)
        stays = row.job is not None and row.job.revision == settlement.expected
        if holds(row, settlement.claim) and stays:
            self.store.write(settlement.executions)
            await self.others_work()
            row = self.store.row(settlement.claim.job.id)
            if row.job is not None and settlement.standing is not None:
                job = row.job
                row.job = evolve(
                    job, standing=settlement.standing, revision=self.store.next_serial()
                )
                row.hold, row.ended = None, (settlement.claim.token, settlement.claim.worker)
                self.store.save(job.id, row)
                return Settled("written")
        return self._settle(settlement, self._now())


@breaks("settlements_of_different_jobs_are_all_kept")
class HistoryIsOneDocument(SettlesLater):
    """The history is one document, which each settlement reads and writes as a whole."""

    async def _later(self, settlement: Settlement) -> Settled:
        executions = list(self.store.history)
        await self.others_work()
        settled = self._settle(settlement, self._now())
        mine = {execution.id for execution in settlement.executions}
        new = [entry for entry in self.store.history if entry[1].id in mine]
        if new:
            self.store.keep([*executions, *new])
        return settled


@breaks("settlements_of_different_jobs_are_all_kept")
class PlacesInTheHistoryAreReadFirst(SettlesLater):
    """An execution's place is the newest one's plus one: of two at once, a page passes over one."""

    async def _later(self, settlement: Settlement) -> Settled:
        place = self.store.serial + 1
        await self.others_work()
        known = len(self.store.history)
        settled = self._settle(settlement, self._now())
        self.store.history[known:] = [
            (place, execution) for _, execution in self.store.history[known:]
        ]
        self.store.serial = max(self.store.serial, place)
        return settled


class RenewsLater(Racing):
    """Base: a renewal reads the row, and writes it later."""

    def write(self, job_id: str, read: _Row) -> None:
        raise NotImplementedError

    async def extend(self, claims: Sequence[Claim]) -> Sequence[Claim]:
        now, renewed = self._now(), list[Claim]()
        for claim in claims:
            row = self.read(claim.job.id)
            extended = row.renew(Renewal(claim), now, self._lease)
            await self.others_work()
            if extended is not None:
                self.write(claim.job.id, row)
                renewed.append(extended)
        return renewed


@breaks("the_end_of_a_lease_or_a_renewal_comes_first")
class RenewComparesFirst(RenewsLater):
    """Compares token and worker, then writes the hold by id, where there is one."""

    def write(self, job_id: str, read: _Row) -> None:
        row, hold = self.store.row(job_id), hold_of(read)
        if isinstance(row.job, Job) and row.job.standing.scheduled == hold.pending:
            row.hold = hold
        self.store.save(job_id, row)


@breaks("a_renewal_brings_no_ended_claim_back")
class RenewBringsTheClaimBack(RenewsLater):
    """The hold is a record of its own, and a renewal puts it."""

    def write(self, job_id: str, read: _Row) -> None:
        row = self.store.row(job_id)
        row.hold = read.hold
        self.store.save(job_id, row)


@breaks("a_renewal_during_an_edit_keeps_both")
class RenewTakesBackAnEdit(RenewsLater):
    """Compares the hold, and writes the whole row, with the job that it read."""

    def write(self, job_id: str, read: _Row) -> None:
        row = self.store.row(job_id)
        mine = row.hold is not None and read.hold is not None and row.hold.token == read.hold.token
        if mine and row.job is not None:
            self.store.save(job_id, read)


@breaks("a_renewal_during_a_removal_brings_nothing_back")
class RenewBringsTheJobBack(RenewsLater):
    """Writes the whole row where no other revision is stored."""

    def write(self, job_id: str, read: _Row) -> None:
        row = self.store.row(job_id)
        if row.hold is not None and (row.job is None or same(row.job, read.job)):
            self.store.save(job_id, read)


@breaks("a_renewal_during_an_edit_keeps_both")
class RenewsInAThread(RenewTakesBackAnEdit):
    """RenewTakesBackAnEdit in two steps: what a thread of its own reads, the next one writes."""

    async def others_work(self) -> None:
        await to_thread.run_sync(lambda: None)


@breaks("a_renewal_during_an_edit_keeps_both")
class EditTakesBackARenewal(Racing):
    """An edit writes the whole row, with the hold that it read."""

    async def replace(self, job: Job, executions: Sequence[Execution] = ()) -> Job:
        hold = self.store.row(job.id).hold
        await self.others_work()
        stored = await super().replace(job, executions)
        row = self.store.row(job.id)
        if row.hold is not None:
            row.hold = hold
        self.store.save(job.id, row)
        return stored


class ReleasesLater(Racing):
    """Base: a release reads the row, and writes it later."""

    def write(self, job_id: str, read: _Row) -> None:
        raise NotImplementedError

    async def release(self, claims: Sequence[Claim]) -> None:
        now = self._now()
        for claim in claims:
            row, late = self.read(claim.job.id), Late()
            released = row.release(claim, now, late)
            await self.others_work()
            if released:
                self.write(claim.job.id, row)
                self.store.write(late.executions)


@breaks("a_release_frees_no_claim_of_what_came_after")
class ReleaseComparesFirst(ReleasesLater):
    """Compares token and worker, then frees by id."""

    def write(self, job_id: str, read: _Row) -> None:
        row = self.store.row(job_id)
        row.hold = None
        self.store.save(job_id, row)


@breaks("a_release_during_an_edit_frees_the_job")
class ReleaseTakesBackAnEdit(ReleasesLater):
    """Writes the whole row, with the job that it read."""

    def write(self, job_id: str, read: _Row) -> None:
        if self.store.row(job_id).job is not None:
            self.store.save(job_id, read)


@breaks("a_release_ends_what_is_edited_away_meanwhile_once")
class ReleaseLooksFirst(ReleasesLater):
    """Looks whether its occurrence is there, then frees it, edited away meanwhile or not."""

    def write(self, job_id: str, read: _Row) -> None:
        row = self.store.row(job_id)
        row.hold = None
        self.store.save(job_id, row)


@breaks("pruning_keeps_what_is_claimed_meanwhile")
class PruneComparesTheEndOnly(Racing):
    """Lists what has expired and is free, then deletes what has expired."""

    async def prune(self, before: datetime) -> int:
        now = self._now()
        listed = [key for key, row in self.store.rows.items() if row.has_expired(now)]
        for _ in range(2):
            await checkpoint()
        count = 0
        for job_id in listed:
            row = self.read(job_id)
            row.hold = None
            if row.has_expired(now):
                del self.store.rows[job_id]
                count += 1
        return count + await super().prune(before)
