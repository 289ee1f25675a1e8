"""Stores that keep something of what was there, and judge what comes twice or by halves."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import unquote

from anyio import Lock
from anyio.lowlevel import checkpoint
from attrs import evolve
from tests.testkit.mutants.base import AFTER, Sound, Store, WritesOtherwise, breaks
from tests.testkit.mutants.values import Keeps
from tests.testkit.mutants.waking import without_alarms

from sched_core import (
    Claim,
    Execution,
    ExecutionQuery,
    Job,
    JobAlreadyExists,
    JobQuery,
    Page,
    Room,
    Settled,
    Settlement,
    Standing,
    Undecodable,
    UndecodableExecution,
)
from sched_core.ports import MAX_POLL
from sched_core.row import WRITTEN


def _patched(before: Any, after: Any) -> dict[str, Any]:
    """Return the fields that say nothing now and said something before."""
    names = [each.name for each in type(after).__attrs_attrs__]
    empty = [name for name in names if getattr(after, name) is None]
    return {name: getattr(before, name) for name in empty}


@breaks("a_replacement_keeps_nothing_of_what_was_before")
class ReplacePatches(Sound):
    """A replacement leaves columns alone for which it has no value."""

    async def replace(self, job: Job, executions: Sequence[Execution] = ()) -> Job:
        stored = await self.get(job.id)
        if isinstance(stored, Job):
            job = evolve(job, spec=evolve(job.spec, **_patched(stored.spec, job.spec)))
        return await super().replace(job, executions)


@breaks("a_replacement_keeps_nothing_of_what_was_before")
class ReplaceKeepsTheAnchor(Sound):
    """A replacement writes when the schedule took effect as it was added."""

    async def replace(self, job: Job, executions: Sequence[Execution] = ()) -> Job:
        stored = await self.get(job.id)
        if isinstance(stored, Job):
            job = evolve(job, anchor=stored.anchor)
        return await super().replace(job, executions)


class SettlesOtherwise(Sound):
    """Base: a settlement stores another standing than it was given."""

    def change(self, before: Standing, after: Standing) -> Standing:
        raise NotImplementedError

    def _settle(self, settlement: Settlement, now: datetime) -> Settled:
        job = self.store.row(settlement.claim.job.id).job
        if isinstance(job, Job) and settlement.standing is not None:
            standing = self.change(job.standing, settlement.standing)
            settlement = evolve(settlement, standing=standing)
        return super()._settle(settlement, now)


@breaks("a_settlement_keeps_nothing_of_the_standing_before")
class SettlePatches(SettlesOtherwise):
    """A settlement leaves fields of the standing alone for which it has no value."""

    def change(self, before: Standing, after: Standing) -> Standing:
        return evolve(after, **_patched(before, after) | {"due_at": after.due_at})


@breaks("a_settlement_keeps_nothing_of_the_standing_before")
class SettlesWithoutTheGaps(SettlesOtherwise):
    """A settlement does not write what pauses left behind."""

    def change(self, before: Standing, after: Standing) -> Standing:
        return evolve(after, gaps=())


@breaks("a_settlement_keeps_nothing_of_the_standing_before")
class SettlesWhatRunsChange(SettlesOtherwise):
    """A settlement writes what a run changes, and leaves the pause as it is."""

    def change(self, before: Standing, after: Standing) -> Standing:
        return evolve(after, pause=before.pause)


@breaks("a_repeat_has_all_its_executions")
class KnowsARepeatByItsLastExecution(Sound):
    """A settlement is known again by the last of its executions."""

    def _settle(self, settlement: Settlement, now: datetime) -> Settled:
        settled = super()._settle(settlement, now)
        if settled.outcome == "claim_lost" and settlement.executions:
            last = evolve(settlement, executions=settlement.executions[-1:])
            return super()._settle(last, now)
        return settled


@breaks("a_repeat_of_another_claim_is_none")
class KnowsARepeatByItsToken(Sound):
    """Who wrote an execution is told by its token alone."""

    def _settle(self, settlement: Settlement, now: datetime) -> Settled:
        settled = super()._settle(settlement, now)
        stored = [self.store.stored(each.id) for each in settlement.executions]
        same = all(
            isinstance(each, Execution) and each.token == settlement.claim.token for each in stored
        )
        return WRITTEN if settled.outcome == "claim_lost" and stored and same else settled


@breaks("a_stored_execution_is_passed_over")
class LooksUpAllExecutionsAtOnce(Sound):
    """The new executions of an edit are looked up once: one that comes twice is stored twice."""

    async def replace(self, job: Job, executions: Sequence[Execution] = ()) -> Job:
        new = [each for each in executions if self.store.stored(each.id) is None]
        replaced = await super().replace(job, executions)
        for each in new:
            if sum(one is each for one in new) > 1:
                self.store.history.append((self.store.next_serial(), each))
                break
        return replaced


@breaks("the_history_is_listed_by_writing_and_selected_by_its_end")
class WritesInOrderOfTheEnds(Sound):
    """The executions of one call are sorted by when they ended."""

    async def replace(self, job: Job, executions: Sequence[Execution] = ()) -> Job:
        ordered = sorted(executions, key=lambda each: each.finished_at)
        return await super().replace(job, ordered)


@breaks("a_refused_edit_writes_nothing")
class TakesZeroForAny(Sound):
    """A removal that expects the revision 0 is one that expects none."""

    async def remove(self, job: Job, executions: Sequence[Execution] = ()) -> None:
        stored = self.store.row(job.id).read()
        any_one = job.revision == 0 and isinstance(stored, Job)
        await super().remove(stored if any_one else job, executions)


@breaks("two_claims_of_a_job_in_one_batch_are_judged_apart")
class AnswersOncePerJob(Sound):
    """A batch is kept by id: two settlements of one job get one answer."""

    async def settle(self, settlements: Sequence[Settlement]) -> Sequence[Settled]:
        answers: dict[str, Settled] = {}
        for each in settlements:
            job_id = each.claim.job.id
            if job_id not in answers:
                answers[job_id] = self._settle(each, self._now())
        return [answers[each.claim.job.id] for each in settlements]


@breaks("no_call_takes_back_what_another_wrote")
class CheckWritesAllOfIt(Sound):
    """A check reads what is stored and writes it again: what came meanwhile is gone."""

    async def check(self) -> None:
        rows = dict(self.store.rows)
        await checkpoint()
        await super().check()
        self.store.rows.clear()
        self.store.rows |= rows


@breaks("no_call_takes_back_what_another_wrote")
class RenewWritesAllOfIt(Sound):
    """A renewal reads what is stored and writes it again: what came meanwhile is gone."""

    async def extend(self, claims: Sequence[Claim]) -> Sequence[Claim]:
        rows = dict(self.store.rows)
        await checkpoint()
        renewed = await super().extend(claims)
        for job_id in self.store.rows.keys() - rows.keys():
            del self.store.rows[job_id]
        return renewed


@breaks("every_wait_is_woken")
class WakesTheFirstInstance(Sound):
    """A write wakes one instance, always the same one."""

    class Hasty(Store):
        def save(self, job_id: str, row: Any) -> None:
            with without_alarms(self, self.alarms[:1]):
                super().save(job_id, row)

    makes = Hasty


@breaks("what_is_added_while_a_wait_begins_ends_it")
class LooksAndThenListens(Sound):
    """A wait looks for what is due first, and begins to listen afterwards."""

    async def wait_due(self, room: Room) -> None:
        now = self._now()
        until = min(self.store.earliest() or AFTER, now + MAX_POLL)
        await checkpoint()
        clock, seen = self._clock, self._alarm.count
        if clock is not None and until > now:
            await self._alarm.sleep(clock, until, seen)


@breaks("waiting_does_not_spin")
class WaitsInMilliseconds(Sound):
    """How long to wait is rounded down to milliseconds: in the last one callers spin."""

    async def wait_due(self, room: Room) -> None:
        earliest = self.store.earliest()
        if earliest is None or earliest - self._now() >= timedelta(milliseconds=1):
            await super().wait_due(room)


@breaks("many_records_are_pruned_at_once")
class PrunesAThousand(Sound):
    """A prune deletes a thousand executions, and leaves the others to the next one."""

    async def prune(self, before: datetime) -> int:
        old = [pair for pair in self.store.history if pair[1].finished_at < before]
        rest = old[1000:]
        self.store.history = [pair for pair in self.store.history if pair not in rest]
        deleted = await super().prune(before)
        self.store.history = [*rest, *self.store.history]
        return deleted


class ListsOtherJobs(Sound):
    """Base: a page of jobs is one of another query."""

    def asked(self, query: JobQuery, after: str | None) -> JobQuery:
        raise NotImplementedError

    async def jobs(
        self, query: JobQuery, *, after: str | None, limit: int
    ) -> Page[Job | Undecodable]:
        return await super().jobs(self.asked(query, after), after=after, limit=limit)


@breaks("filters_of_jobs_hold_together")
class TakesTwoFilters(ListsOtherJobs):
    """There are indexes for every two filters: where three are given, metadata is not looked at."""

    def asked(self, query: JobQuery, after: str | None) -> JobQuery:
        three = bool(query.state and query.id_prefix and query.metadata)
        return evolve(query, metadata={}) if three else query


@breaks("filters_of_jobs_hold_together")
class FiltersTheFirstPage(ListsOtherJobs):
    """A later page goes on after the last id, and does not look at metadata."""

    def asked(self, query: JobQuery, after: str | None) -> JobQuery:
        return query if after is None else evolve(query, metadata={})


@breaks("filters_of_the_history_hold_together")
class FiltersExecutionsByThree(Sound):
    """Final is not looked at where a job, statuses and a moment are given."""

    async def executions(
        self, query: ExecutionQuery, *, after: str | None, limit: int
    ) -> Page[Execution | UndecodableExecution]:
        if query.job_id and query.statuses and query.since:
            query = evolve(query, final=None)
        return await super().executions(query, after=after, limit=limit)


@breaks("a_full_last_page_has_no_next")
class PromisesWhatDoesNotMatch(Sound):
    """A page of the history has a next where older ones follow, whether they match or not."""

    async def executions(
        self, query: ExecutionQuery, *, after: str | None, limit: int
    ) -> Page[Execution | UndecodableExecution]:
        page = await super().executions(query, after=after, limit=limit)
        if page.next is None and len(page.items) == limit:
            last = page.items[-1].id
            position = next(each for each, one in self.store.history if one.id == last)
            older = position != self.store.history[0][0]
            return Page(page.items, str(position) if older else None)
        return page


class NamesOtherwise(Sound):
    """Base: two ids have one place."""

    def place(self, job_id: str) -> str:
        raise NotImplementedError

    async def add(self, jobs: Sequence[Job]) -> Sequence[Job]:
        places = [self.place(job.id) for job in jobs]
        stored = {self.place(job_id): job_id for job_id in self.store.rows}
        for job, place in zip(jobs, places, strict=True):
            if places.count(place) > 1 or stored.get(place, job.id) != job.id:
                raise JobAlreadyExists(job.id)
        return await super().add(jobs)


@breaks("ids_that_look_alike_are_different")
class TakesWhatIsInBraces(NamesOtherwise):
    """What is in braces in a key is its place, as a cluster has it."""

    def place(self, job_id: str) -> str:
        found = re.search(r"\{(.+?)\}", job_id)
        return job_id if found is None else found.group(1)


@breaks("ids_that_look_alike_are_different")
class UnquotesIds(NamesOtherwise):
    """An id is unquoted on its way, as part of a URL."""

    def place(self, job_id: str) -> str:
        return unquote(job_id)


@breaks("what_is_not_open_refuses_every_call")
class AnswersNothingWithNothing(Sound):
    """It does not look whether it is open where there is nothing to settle."""

    async def settle(self, settlements: Sequence[Settlement]) -> Sequence[Settled]:
        return await super().settle(settlements) if settlements else []


@breaks("a_wait_holds_up_no_other_call")
class WaitsOnItsOnlyConnection(Sound):
    """A wait keeps the connection, and a renewal wants it."""

    def __init__(self, store: Store) -> None:
        super().__init__(store)
        self._connection = Lock()

    async def wait_due(self, room: Room) -> None:
        async with self._connection:
            await super().wait_due(room)

    async def extend(self, claims: Sequence[Claim]) -> Sequence[Claim]:
        async with self._connection:
            return await super().extend(claims)


@breaks("the_longest_texts_are_kept")
class CutsReasonsOfPauses(Keeps):
    """Why a job is paused is kept in a VARCHAR(255)."""

    def kept(self, job: Job) -> Job:
        pause = job.standing.pause
        if pause is None or pause.reason is None:
            return job
        cut = evolve(pause, reason=pause.reason[:255])
        return evolve(job, standing=evolve(job.standing, pause=cut))


@breaks("the_longest_texts_are_kept")
class CutsReasonsOfExecutions(Sound):
    """Why a run failed is kept in a VARCHAR(1000), counted in characters."""

    class Cutting(WritesOtherwise):
        def change(self, execution: Execution) -> Execution:
            return evolve(execution, reason=execution.reason and execution.reason[:1000])

    makes = Cutting


@breaks("the_history_goes_on_where_executions_have_expired")
class LooksForTheLastOne(Sound):
    """A page begins after what ended the one before, and finds nothing where that is gone."""

    async def executions(
        self, query: ExecutionQuery, *, after: str | None, limit: int
    ) -> Page[Execution | UndecodableExecution]:
        if after is not None and int(after) not in {number for number, _ in self.store.history}:
            return Page([], None)
        return await super().executions(query, after=after, limit=limit)


@breaks("filters_of_jobs_hold_together")
class TakesEmptyForMissing(ListsOtherJobs):
    """An entry of metadata that is asked for and empty is taken for none that is asked for."""

    def asked(self, query: JobQuery, after: str | None) -> JobQuery:
        return evolve(query, metadata={key: each for key, each in query.metadata.items() if each})


class WritesTwice(Sound):
    """Base: some edits write executions that are stored already."""

    def sees(self, stored: Execution, row: Any) -> bool:
        raise NotImplementedError

    async def replace(self, job: Job, executions: Sequence[Execution] = ()) -> Job:
        row, stored = self.store.row(job.id), [self.store.stored(each.id) for each in executions]
        unseen = [
            each
            for each, before in zip(executions, stored, strict=True)
            if isinstance(before, Execution) and not self.sees(before, row)
        ]
        replaced = await super().replace(job, executions)
        self.store.history += [(self.store.next_serial(), each) for each in unseen]
        return replaced


@breaks("a_stored_execution_is_passed_over")
class EditsSeeNoRuns(WritesTwice):
    """Edits look for executions in an index that runs are entered in later."""

    def sees(self, stored: Execution, row: Any) -> bool:
        return not stored.token


@breaks("a_stored_execution_is_passed_over")
class EditsOfTheHeldLookAtTheClaim(WritesTwice):
    """Edits of a held job look what is its claim's, and forget to look what is stored."""

    def sees(self, stored: Execution, row: Any) -> bool:
        return row.hold is None
