"""Edits: when they compare revisions, and what becomes of the lines that come with them."""

from __future__ import annotations

from collections.abc import Sequence

from attrs import evolve
from tests.testkit.mutants.base import Sound, Store, breaks

from sched_core import Execution, Job, Settled, Settlement, UndecodableExecution
from sched_core.errors import RevisionConflict


class Compares(Sound):
    """Base: edits compare revisions only where it says so."""

    def compares(self, job: Job, ledger: Sequence[Execution], given: int) -> bool:
        raise NotImplementedError

    def stored(self, job_id: str) -> Job | None:
        job = self.store.row(job_id).job
        return job if isinstance(job, Job) else None

    async def replace(self, job: Job, ledger: Sequence[Execution] = ()) -> Job:
        stored = self.stored(job.id)
        if stored is not None and not self.compares(stored, ledger, job.revision):
            job = evolve(job, revision=stored.revision)
        return await super().replace(job, ledger)

    async def remove(
        self, job_id: str, ledger: Sequence[Execution] = (), *, expected: int | None = None
    ) -> bool:
        stored = self.stored(job_id)
        compared = stored is None or expected is None or self.compares(stored, ledger, expected)
        return await super().remove(job_id, ledger, expected=expected if compared else None)


@breaks("a_refused_edit_writes_nothing")
class ComparesOnlyWithoutLines(Compares):
    """The statement for edits that come with lines has no WHERE revision = …."""

    def compares(self, job: Job, ledger: Sequence[Execution], given: int) -> bool:
        return not ledger


@breaks("a_refused_edit_writes_nothing")
class ComparesOnlyWhatIsFree(Compares):
    """The statement for jobs that are claimed has no WHERE revision = …."""

    def compares(self, job: Job, ledger: Sequence[Execution], given: int) -> bool:
        return self.store.rows[job.id].hold is None


@breaks("a_refused_edit_writes_nothing")
class ComparesOnlyWhatIsDue(Compares):
    """Jobs without due_at lie in another table, whose edits compare nothing."""

    def compares(self, job: Job, ledger: Sequence[Execution], given: int) -> bool:
        return job.standing.due_at is not None


@breaks("a_refused_edit_writes_nothing")
class RefusesOnlyWhatIsOlder(Compares):
    """WHERE revision <= …: a revision that was never given is accepted."""

    def compares(self, job: Job, ledger: Sequence[Execution], given: int) -> bool:
        return given <= job.revision


@breaks("a_settlement_refuses_older_edits")
class RemovalsOnlyKnowEdits(Compares):
    """A settlement moves no revision that edits compare with."""

    def compares(self, job: Job, ledger: Sequence[Execution], given: int) -> bool:
        return job.standing.last_finished_at is None


@breaks("a_refused_edit_writes_nothing")
class LinesFirst(Sound):
    """Replace writes its lines and then compares, in two steps."""

    async def replace(self, job: Job, ledger: Sequence[Execution] = ()) -> Job:
        row = self.store.row(job.id)
        if row.hold is None:
            self.store.write(ledger)
        return await super().replace(job, ledger)


@breaks("a_refused_edit_writes_nothing")
class LinesOfARemovalFirst(Sound):
    """Remove writes its lines and then compares, in two steps."""

    async def remove(
        self, job_id: str, ledger: Sequence[Execution] = (), *, expected: int | None = None
    ) -> bool:
        row = self.store.row(job_id)
        if row.job is not None and row.hold is None:
            self.store.write(ledger)
        return await super().remove(job_id, ledger, expected=expected)


@breaks("a_refused_edit_writes_nothing")
class ARefusedEditFrees(Sound):
    """Replace takes the hold away to write, and does not give it back where it is refused."""

    async def replace(self, job: Job, ledger: Sequence[Execution] = ()) -> Job:
        row = self.store.row(job.id)
        try:
            return await super().replace(job, ledger)
        except RevisionConflict:
            row.hold = None
            self.store.save(job.id, row)
            raise


@breaks("removing_what_is_gone_writes_nothing")
class RemovalOfNothingWrites(Sound):
    """Remove writes its lines whether or not there was a job."""

    async def remove(
        self, job_id: str, ledger: Sequence[Execution] = (), *, expected: int | None = None
    ) -> bool:
        removed = await super().remove(job_id, ledger, expected=expected)
        if not removed:
            self.store.write(ledger)
        return removed


@breaks("removing_what_is_gone_writes_nothing")
class RemovalOfNothingConflicts(Sound):
    """Remove finds no row with the expected revision, and takes that for a conflict."""

    async def remove(
        self, job_id: str, ledger: Sequence[Execution] = (), *, expected: int | None = None
    ) -> bool:
        removed = await super().remove(job_id, ledger, expected=expected)
        if not removed and expected is not None:
            raise RevisionConflict(job_id)
        return removed


@breaks("an_edit_leaves_the_running_occurrence_to_its_claim")
class RemovalWritesTheFateOfARun(Sound):
    """Remove writes the line of the occurrence that is running."""

    async def remove(
        self, job_id: str, ledger: Sequence[Execution] = (), *, expected: int | None = None
    ) -> bool:
        removed = await super().remove(job_id, ledger, expected=expected)
        if removed:
            self.store.write(ledger)
        return removed


@breaks("an_edit_leaves_the_running_occurrence_to_its_claim")
class EditsOfTheClaimedWriteNoLines(Sound):
    """While a job is claimed none of an edit's lines is written, whatever it is about."""

    async def replace(self, job: Job, ledger: Sequence[Execution] = ()) -> Job:
        held = self.store.row(job.id).hold is not None
        return await super().replace(job, () if held else ledger)


@breaks("an_edit_leaves_the_running_occurrence_to_its_claim")
class TheRunningOneIsTheStoredOne(Sound):
    """An edit leaves out the lines about where the job stands, not those about what is claimed."""

    async def replace(self, job: Job, ledger: Sequence[Execution] = ()) -> Job:
        row = self.store.row(job.id)
        if row.hold is None or not isinstance(row.job, Job):
            return await super().replace(job, ledger)
        stored = row.job.standing.number
        replaced = await super().replace(job)
        self.store.write([line for line in ledger if line.number != stored])
        return replaced


class Upserts(Store):
    """A line that is there already is written over."""

    def line(self, line_id: str) -> Execution | UndecodableExecution | None:
        return None

    def append(self, line: Execution | UndecodableExecution) -> None:
        for index, (position, other) in enumerate(self.lines):
            if other.id == line.id:
                self.lines[index] = (position, line)
                return
        super().append(line)


@breaks("a_stored_line_is_passed_over")
class WritesLinesOver(Sound):
    """Lines are upserted: what was written first is replaced by what comes later."""

    makes = Upserts


@breaks("a_stored_line_is_passed_over")
class SettlesOnlyWithNewLines(Sound):
    """A settlement is refused where one of its lines is stored already."""

    def _settle(self, settlement: Settlement) -> Settled:
        row = self.store.row(settlement.claim.job.id)
        known = any(self.store.line(line.id) is not None for line in settlement.ledger)
        if known and row.is_held_by(settlement.claim):
            return Settled("conflict", row.job if isinstance(row.job, Job) else None)
        return super()._settle(settlement)


@breaks("an_edit_ends_no_occurrence_twice")
class EditsLookForLinesByIdOnly(Sound):
    """Edits write a final line whose id is new, though its occurrence has another one."""

    async def replace(self, job: Job, ledger: Sequence[Execution] = ()) -> Job:
        held = self.store.row(job.id).hold is not None
        replaced = await super().replace(job, ledger if held else ())
        if not held:
            self.store.write(ledger)
        return replaced


@breaks("an_edit_ends_no_occurrence_twice")
class EditsOfTheHeldLookAtTheClaim(Sound):
    """Edits of a held job look which line is its claim's, and forget to look which have ended."""

    async def replace(self, job: Job, ledger: Sequence[Execution] = ()) -> Job:
        hold = self.store.row(job.id).hold
        replaced = await super().replace(job, ledger)
        for line in ledger if hold is not None else ():
            own = (line.uid, line.number) == (hold.job.uid, hold.job.standing.number)
            if not own and self.store.line(line.id) is None:
                self.store.append(line)
        return replaced


@breaks("an_edit_ends_no_occurrence_twice")
class LooksBeforeItWrites(Sound):
    """Which occurrences have ended is looked up once for all lines of an edit."""

    async def replace(self, job: Job, ledger: Sequence[Execution] = ()) -> Job:
        store, held = self.store, self.store.row(job.id).hold is not None
        new = [line for line in ledger if not store.has_final(line.uid, line.number)]
        replaced = await super().replace(job, ledger if held else ())
        if not held:
            store.write(new)
        return replaced


@breaks("what_an_edit_ended_is_not_ended_again")
class SettlesWhatAnEditEnded(Sound):
    """A settlement passes over a final line of what an edit has ended, and goes on."""

    def _settle(self, settlement: Settlement) -> Settled:
        new = [
            line
            for line in settlement.ledger
            if self.store.line(line.id) is not None
            or not self.store.has_final(line.uid, line.number)
            or any(
                other.token
                and (other.uid, other.number, other.final) == (line.uid, line.number, True)
                for other in self.store.readable()
            )
        ]
        if len(new) < len(settlement.ledger):
            return super()._settle(evolve(settlement, ledger=tuple(new)))
        return super()._settle(settlement)
