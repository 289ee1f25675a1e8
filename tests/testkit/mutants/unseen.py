"""Faults that were found only by a search for what the laws do not see."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

import anyio
from anyio.lowlevel import checkpoint
from attrs import evolve
from tests.testkit.mutants.base import Sound, Store, breaks, holds

from sched_core import (
    BackendUnavailable,
    Claim,
    Clock,
    Execution,
    ExecutionQuery,
    Job,
    JobQuery,
    Page,
    Room,
    Settled,
    Settlement,
    Undecodable,
    UndecodableExecution,
)
from sched_core.clock import Alarm

BATCH = 100


@breaks("many_records_are_pruned_at_once")
class PrunesOneBatchOfExecutions(Sound):
    """Prune deletes what has room in one statement, and leaves the rest to the next one."""

    async def prune(self, before: datetime) -> int:
        old = [
            place
            for place, execution in self.store.history
            if (execution.finished_at or before) < before
        ]
        later = old[BATCH:]
        kept = [entry for entry in self.store.history if entry[0] in later]
        deleted = await super().prune(before)
        if kept:
            self.store.keep(sorted([*self.store.history, *kept], key=lambda entry: entry[0]))
        return deleted - len(kept)


@breaks("many_records_are_pruned_at_once")
class PrunesOneBatchOfJobs(Sound):
    """Prune deletes one batch of the jobs that have expired."""

    async def prune(self, before: datetime) -> int:
        now = self._now()
        expired = [(key, row) for key, row in self.store.rows.items() if row.has_expired(now)]
        deleted = await super().prune(before)
        self.store.rows |= dict(expired[BATCH:])
        return deleted - len(expired[BATCH:])


class _FirstCome(Alarm):
    """Each nudge wakes the one who has waited longest, whether he is there or not."""

    def __init__(self) -> None:
        super().__init__()
        self.waiting: list[anyio.Event] = []

    def nudge(self) -> None:
        self.count += 1
        if self.waiting:
            self.waiting.pop(0).set()

    async def sleep(self, clock: Clock, until: datetime, seen: int) -> None:
        if self.count != seen:
            return
        rings = anyio.Event()
        self.waiting.append(rings)

        async def ring() -> None:
            await clock.sleep_until(until)
            rings.set()

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(ring)
            await rings.wait()
            tasks.cancel_scope.cancel()


@breaks("a_cancelled_wait_takes_no_wake_with_it")
class ACancelledWaitIsStillInTheQueue(Sound):
    """Who waits is woken one after the other, and who was cancelled has not left the queue."""

    def __init__(self, store: Store) -> None:
        super().__init__(store)
        self._alarm = _FirstCome()


@breaks("every_wait_is_woken")
class OneWaitAtATime(Sound):
    """A wait takes the place of the one that is under way, which nothing wakes any more."""

    async def wait_due(self, room: Room) -> None:
        self._now()
        self.store.alarms.remove(self._alarm)
        self._alarm = Alarm()
        self.store.alarms.append(self._alarm)
        await super().wait_due(room)


@breaks("workers_differ_to_their_last_character")
class WorkerNamesAreCut(Sound):
    """Workers are a VARCHAR(64), and the database cuts what is longer."""

    async def open(self, clock: Clock, *, worker: str) -> Clock:
        return await super().open(clock, worker=worker[:64])


@breaks("workers_differ_to_their_last_character")
class WorkersIgnoreCase(Sound):
    """Workers are compared by the collation of the database."""

    async def extend(self, claims: Sequence[Claim]) -> Sequence[Claim]:
        return await super().extend([self._as_held(claim) for claim in claims])

    def _as_held(self, claim: Claim) -> Claim:
        hold = self.store.row(claim.job.id).hold
        same = hold is not None and hold.worker.lower() == claim.worker.lower()
        return evolve(claim, worker=hold.worker) if same else claim


@breaks("releasing_what_is_not_held_does_nothing")
class ReleaseEndsAtTheFirstLost(Sound):
    """A claim that is lost ends the whole release."""

    async def release(self, claims: Sequence[Claim]) -> None:
        for claim in claims:
            if not holds(self.store.row(claim.job.id), claim):
                return
            await super().release([claim])


@breaks("a_released_job_keeps_its_place")
class ReleasedJobsGoToTheEnd(Sound):
    """Release puts a job back into the queue, at its end."""

    async def release(self, claims: Sequence[Claim]) -> None:
        await super().release(claims)
        self.store.released = {claim.job.id for claim in claims}

    async def hand_out(self, limit: int) -> Sequence[Claim]:
        released = getattr(self.store, "released", None)
        if not released:
            return await super().hand_out(limit)
        claims = list(await super().hand_out(1000))
        claims.sort(key=lambda claim: claim.job.id in released)
        self.store.released = None
        await super().release(claims[limit:])
        return claims[:limit]


@breaks("a_page_goes_on_in_another_instance")
class CursorsAreOfOneInstance(Sound):
    """A page's next names a cursor of the instance; one that it does not know begins again."""

    def __init__(self, store: Store) -> None:
        super().__init__(store)
        self.cursors: dict[str, str] = {}

    async def jobs(
        self, query: JobQuery, *, after: str | None, limit: int
    ) -> Page[Job | Undecodable]:
        start = None if after is None else self.cursors.get(after)
        page = await super().jobs(query, after=start, limit=limit)
        if page.next is None:
            return page
        name = f"cursor-{len(self.cursors)}"
        self.cursors[name] = page.next
        return Page(page.items, name)


@breaks("an_added_job_gets_a_revision_of_its_own")
class RevisionsAreBroughtAlong(Sound):
    """A job that has a revision keeps it when it is added."""

    def _add(self, job: Job) -> Job:
        is_new = self.store.row(job.id).job is None
        added = super()._add(job)
        if not job.revision or not is_new:
            return added
        row = self.store.row(job.id)
        row.job = brought = evolve(added, revision=job.revision)
        self.store.save(job.id, row)
        return brought


@breaks("an_outage_can_be_opened_through")
class OpeningFailsAsTheDriverDoes(Sound):
    """The errors of the driver are translated only by calls of an open backend."""

    async def open(self, clock: Clock, *, worker: str) -> Clock:
        if self.store.cut:
            raise ConnectionRefusedError
        return await super().open(clock, worker=worker)


@breaks("an_outage_can_be_opened_through")
class AFailedOpeningIsHalfOpen(Sound):
    """What an opening had begun when it failed is in the way of the next one."""

    async def open(self, clock: Clock, *, worker: str) -> Clock:
        cut, self.store.cut = self.store.cut, False
        try:
            decides = await super().open(clock, worker=worker)
        finally:
            self.store.cut = cut
        if cut:
            raise BackendUnavailable("cut off")
        return decides


@breaks("what_is_opened_again_goes_by_its_new_clock")
class KeepsItsFirstClock(Sound):
    """What reads the clock was made by the first opening, with its clock."""

    first: Clock | None = None

    async def open(self, clock: Clock, *, worker: str) -> Clock:
        self.first = self.first or clock
        return await super().open(self.first, worker=worker)


@breaks("a_call_that_close_meets_tells_the_truth")
class CloseDropsWhatIsUnderWay(Sound):
    """Settlements are answered when they are in a buffer, which close throws away."""

    async def settle(self, settlements: Sequence[Settlement]) -> Sequence[Settled]:
        self._now()
        await checkpoint()
        if self._clock is None:
            return [Settled("written") for _ in settlements]
        return await super().settle(settlements)


@breaks("executions_of_a_job_are_listed_in_the_order_of_writing")
class ExecutionsOfAJobComeByNumber(Sound):
    """WHERE job_id = ? ORDER BY number DESC, attempt DESC: there is an index for it."""

    async def executions(
        self, query: ExecutionQuery, *, after: str | None, limit: int
    ) -> Page[Execution | UndecodableExecution]:
        if query.job_id is None:
            return await super().executions(query, after=after, limit=limit)
        page = await super().executions(query, after=None, limit=10**6)
        executions = [execution for execution in page.items if isinstance(execution, Execution)]
        executions.sort(key=lambda execution: (execution.number, execution.attempt), reverse=True)
        start = int(after or 0)
        more = start + limit < len(executions)
        return Page(executions[start : start + limit], str(start + limit) if more else None)


@breaks("filters_of_jobs_hold_together")
class NoGroupIsAnyGroup(Sound):
    """`if query.group:` where `is not None` was meant."""

    async def jobs(
        self, query: JobQuery, *, after: str | None, limit: int
    ) -> Page[Job | Undecodable]:
        return await super().jobs(
            evolve(query, group=query.group or None), after=after, limit=limit
        )
