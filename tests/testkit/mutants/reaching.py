"""A store out of reach, and records that cannot be read."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

import anyio
from anyio.lowlevel import checkpoint
from attrs import evolve
from tests.testkit.mutants.base import Sound, breaks

from sched_core import (
    BackendUnavailable,
    Claim,
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


@breaks("check_succeeds_on_a_working_store")
class CheckLeavesAJob(Sound):
    """Check proves that it can write by adding a job, and leaves it there."""

    async def check(self) -> None:
        row = next(row for row in self.store.rows.values() if row.job is not None)
        self._add(evolve(row.job, spec=evolve(row.job.spec, id="__check__"), uid="check"))


@breaks("another_event_loop_is_refused")
class AnyLoopWillDo(Sound):
    """A connection is used in whatever event loop calls."""

    async def get(self, job_id: str) -> Job | Undecodable | None:
        stored: Job | Undecodable | None = self.store.row(job_id).job
        return stored


@breaks("an_unreachable_store_is_said_to_be")
class CheckIsARead(Sound):
    """Check looks at what it has in its cache."""

    async def check(self) -> None: ...


@breaks("an_unreachable_store_is_said_to_be")
class OutagesLookEmpty(Sound):
    """A store that cannot be reached has no jobs."""

    async def jobs(
        self, query: JobQuery, *, after: str | None, limit: int
    ) -> Page[Job | Undecodable]:
        try:
            return await super().jobs(query, after=after, limit=limit)
        except BackendUnavailable:
            return Page([], None)


@breaks("an_unreachable_store_is_said_to_be")
class OutagesLookIdle(Sound):
    """A store that cannot be reached has nothing due."""

    async def hand_out(self, limit: int) -> Sequence[Claim]:
        try:
            return await super().hand_out(limit)
        except BackendUnavailable:
            return []


@breaks("an_unreachable_store_is_said_to_be")
class OutagesAreTheDriversBusiness(Sound):
    """What the driver raises is passed on as it is."""

    async def add(self, jobs: Sequence[Job]) -> Sequence[Job]:
        try:
            return await super().add(jobs)
        except BackendUnavailable as error:
            raise ConnectionError("connection refused") from error


@breaks("an_outage_costs_nothing_but_time")
class OutagesSwallowSettlements(Sound):
    """A settlement counts as done from the moment it is sent."""

    async def settle(self, settlements: Sequence[Settlement]) -> Sequence[Settled]:
        if self.store.cut:
            for settlement in settlements:
                row = self.store.rows[settlement.claim.job.id]
                row.hold, row.ended = None, (row.hold.token, row.hold.worker)
        return await super().settle(settlements)


@breaks("an_unreadable_record_is_shown")
class TheUnreadableIsHidden(Sound):
    """Listing leaves out what cannot be read."""

    async def jobs(
        self, query: JobQuery, *, after: str | None, limit: int
    ) -> Page[Job | Undecodable]:
        rows = self.store.rows
        hidden = self.store.unreadable()
        self.store.rows = {key: row for key, row in rows.items() if key not in hidden}
        try:
            return await super().jobs(query, after=after, limit=limit)
        finally:
            self.store.rows = rows


@breaks("an_unreadable_record_is_shown")
class MetadataHidesTheUnreadable(TheUnreadableIsHidden):
    """What cannot be read is left out where metadata is asked for: it has none that match."""

    async def jobs(
        self, query: JobQuery, *, after: str | None, limit: int
    ) -> Page[Job | Undecodable]:
        if query.metadata:
            return await super().jobs(query, after=after, limit=limit)
        return await Sound.jobs(self, query, after=after, limit=limit)


@breaks("an_unreadable_record_is_shown")
class TheUnreadableIsNothing(Sound):
    """Get returns None for what cannot be read."""

    async def get(self, job_id: str) -> Job | Undecodable | None:
        found = await super().get(job_id)
        return found if isinstance(found, Job) else None


@breaks("an_unreadable_record_is_left_alone")
class QuarantineDeletes(Sound):
    """What cannot be read is taken away by prune."""

    async def prune(self, before: datetime) -> int:
        deleted = await super().prune(before)
        for job_id in self.store.unreadable():
            del self.store.rows[job_id]
            deleted += 1
        return deleted


@breaks("an_unreadable_record_is_left_alone")
class TheUnreadableIsFree(Sound):
    """An id whose record cannot be read can be used again."""

    async def add(self, jobs: Sequence[Job]) -> Sequence[Job]:
        for job_id in {job.id for job in jobs}.intersection(self.store.unreadable()):
            del self.store.rows[job_id]
        return await super().add(jobs)


@breaks("an_unreadable_record_is_left_alone")
class TheUnreadableIsRemoved(Sound):
    """Remove does not look at what it removes."""

    async def remove(self, job: Job, executions: Sequence[Execution] = ()) -> None:
        if job.id in self.store.unreadable():
            del self.store.rows[job.id]
            return
        await super().remove(job, executions)


@breaks("an_unreadable_record_stops_nothing_else")
class TheUnreadableBlocksTheQueue(Sound):
    """A claim ends where a record cannot be read."""

    async def hand_out(self, limit: int) -> Sequence[Claim]:
        self._now()
        return [] if self.store.unreadable() else await super().hand_out(limit)


@breaks("an_unreadable_record_stops_nothing_else")
class TheUnreadableIsAlwaysDue(Sound):
    """A record that cannot be read is due, and no worker claims it: waiting spins."""

    async def wait_due(self, room: Room) -> None:
        await checkpoint()
        if not self.store.unreadable():
            await super().wait_due(room)


@breaks("an_unreachable_store_is_said_to_be")
class NoHistoryInAnOutage(Sound):
    """Out of reach the history is empty: an error became an empty list."""

    async def executions(
        self, query: ExecutionQuery, *, after: str | None, limit: int
    ) -> Page[Execution | UndecodableExecution]:
        if self.store.cut:
            return Page([], None)
        return await super().executions(query, after=after, limit=limit)


@breaks("an_unreachable_store_is_said_to_be")
class PruneIsForAnotherTime(Sound):
    """Out of reach prune says that there was nothing to delete."""

    async def prune(self, before: datetime) -> int:
        return 0 if self.store.cut else await super().prune(before)


class ListensUntilAnOutage(Sound):
    """Sound, but for what a wait does that an outage meets."""

    async def wait_due(self, room: Room) -> None:
        before = self.store.outages  # a short one may be over when it is looked for
        while self.store.outages == before:
            with anyio.move_on_after(0.02) as looking:
                await super().wait_due(room)
            if not looking.cancelled_caught and self.store.outages == before:
                return
        await self.meet_outage()

    async def meet_outage(self) -> None:
        raise NotImplementedError


@breaks("a_wait_outlives_an_outage")
class AnOutageEndsListening(ListensUntilAnOutage):
    """What listens and looks ends at the outage, and a call that waits for it waits without end."""

    async def meet_outage(self) -> None:
        await anyio.sleep_forever()


@breaks("a_wait_outlives_an_outage")
class AnOutageIsTheDriversError(ListensUntilAnOutage):
    """A wait that an outage meets raises what its driver does."""

    async def meet_outage(self) -> None:
        raise ConnectionResetError
