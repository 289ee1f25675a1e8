"""Claims by queue and id, and waits for them."""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from datetime import datetime

from anyio.lowlevel import checkpoint
from attrs import evolve
from tests.testkit.mutants.base import AFTER, Sound, Store, breaks

from sched_core import (
    Claim,
    Job,
    JobQuery,
    Page,
    Room,
    Settled,
    Settlement,
    Undecodable,
)
from sched_core.ports import MAX_POLL
from sched_core.row import Filling


class Chooses(Store):
    """Chooses otherwise among the ids that are due, oldest first."""

    def queue_of(self, job_id: str) -> str:
        queue: str = self.rows[job_id].job_queue()
        return queue

    def choose(self, room: Room, ids: Sequence[str]) -> list[str]:
        """Choose as the sound one."""
        filling, chosen = Filling(room), list[str]()
        for job_id in ids:
            if filling.fits(job_id, self.queue_of(job_id)):
                filling.add(self.queue_of(job_id))
                chosen.append(job_id)
        return chosen

    def take_due(self, room: Room, now: datetime) -> list[str]:
        self.expect_writable()
        due = sorted(
            (row.wake, job_id)
            for job_id, row in self.rows.items()
            if row.queue is self.due and row.wake is not None and row.wake <= now
        )
        chosen = self.choose(room, [job_id for _, job_id in due])
        for job_id in chosen:
            self.rows[job_id].wake = self.rows[job_id].queue = None
        return chosen


@breaks("a_claim_takes_from_served_queues_alone")
class QueuesIgnoreCase(Sound):
    """Names of queues are compared without case, as some collations do."""

    class Folded(Chooses):
        def queue_of(self, job_id: str) -> str:
            return super().queue_of(job_id).lower()

    makes = Folded


@breaks("a_claim_takes_from_served_queues_alone")
class NoQueuesAreAll(Sound):
    """A room that names no queue at all is taken for one that serves all."""

    class AllOfNone(Chooses):
        def choose(self, room: Room, ids: Sequence[str]) -> list[str]:
            return super().choose(evolve(room, queues=room.queues or None), ids)

    makes = AllOfNone


@breaks("a_queue_gives_no_more_than_its_number")
class NumbersAreNotAsked(Sound):
    """WHERE queue IN (…): how many of each queue there is room for is not looked at."""

    class ByName(Chooses):
        def choose(self, room: Room, ids: Sequence[str]) -> list[str]:
            queues = None if room.queues is None else dict.fromkeys(room.queues, room.limit)
            return super().choose(evolve(room, queues=queues), ids)

    makes = ByName


@breaks("a_queue_gives_no_more_than_its_number")
class QueueAfterQueue(Sound):
    """The first queue fills the room before the next one is looked at, whatever is older there."""

    class InTurn(Chooses):
        def choose(self, room: Room, ids: Sequence[str]) -> list[str]:
            return super().choose(room, sorted(ids, key=self.queue_of))

    makes = InTurn


@breaks("all_other_queues_count_together")
class EachOtherQueueHasTheNumber(Sound):
    """The number of "*" holds for each queue that is not named."""

    class Each(Chooses):
        def choose(self, room: Room, ids: Sequence[str]) -> list[str]:
            queues = dict(room.queues or {})
            if "*" in queues:
                queues |= {
                    queue: queues["*"] for queue in map(self.queue_of, ids) if queue not in queues
                }
            return super().choose(evolve(room, queues=queues or room.queues), ids)

    makes = Each


WINDOW = 20


class LooksAtSome(Chooses):
    def choose(self, room: Room, ids: Sequence[str]) -> list[str]:
        return super().choose(room, ids[:WINDOW])


@breaks("a_full_queue_holds_up_no_other")
class FiltersWhatIsOldest(Sound):
    """Takes the oldest due jobs, and then looks which of them the worker serves."""

    makes = LooksAtSome


class ARouteMayCome(Chooses):
    def choose(self, room: Room, ids: Sequence[str]) -> list[str]:
        for job_id in ids:
            row = self.rows[job_id]
            accepted = room.accepts is None or room.accepts(job_id)
            if not accepted and isinstance(row.job, Job):
                later = evolve(row.job.standing, due_at=AFTER)
                row.job = evolve(row.job, standing=later, revision=self.next_serial())
                self.save(job_id, row)
        return super().choose(room, [key for key in ids if self.rows[key].wake != AFTER])


@breaks("a_refused_id_is_left_to_others")
class PutsOffWhatIsRefused(Sound):
    """What this worker refuses is put off, so that it is not asked about again, for all workers."""

    makes = ARouteMayCome


@breaks("a_refused_id_is_left_to_others")
class RefusedIdsBlockTheFront(Sound):
    """Asks about the oldest due jobs alone."""

    makes = LooksAtSome


@breaks("refused_ids_count_for_no_queue")
class RefusedIdsUseUpTheNumber(Sound):
    """Chooses by queue first, and then asks which of these the worker accepts."""

    class AsksLast(Chooses):
        def choose(self, room: Room, ids: Sequence[str]) -> list[str]:
            chosen = super().choose(evolve(room, accepts=None), ids)
            return [key for key in chosen if room.accepts is None or room.accepts(key)]

    makes = AsksLast


@breaks("what_accepts_raises_leaves_nothing_claimed")
class ClaimsWhileItAsks(Sound):
    """Each job is claimed as soon as it was accepted."""

    async def hand_out(self, limit: int) -> Sequence[Claim]:
        accepts = self.room.accepts
        if accepts is None:
            return await super().hand_out(limit)
        claims: list[Claim] = []
        free = [key for key, row in self.store.rows.items() if row.hold is None]
        for job_id in sorted(free, key=lambda key: self.store.rows[key].due() or AFTER):
            if len(claims) < limit and accepts(job_id):
                self.room = Room(1, self.room.queues, job_id.__eq__)
                claims += await super().hand_out(1)
        return claims


@breaks("leases_end_in_every_queue")
class LeasesEndByQueue(Sound):
    """UPDATE … WHERE expires_at <= now AND queue IN (…): leases of others are left to others."""

    async def hand_out(self, limit: int) -> Sequence[Claim]:
        room, rows = self.room, self.store.rows
        others = [
            (key, row)
            for key, row in rows.items()
            if row.hold is not None
            and row.hold.expires_at <= self._now()
            and (
                room.lane(row.hold.queue) is None or not (room.accepts is None or room.accepts(key))
            )
        ]
        held = [(row, row.hold) for _, row in others]
        for key, row in others:
            row.hold = evolve(row.hold, expires_at=AFTER)
            self.store.save(key, row)
        try:
            return await super().hand_out(limit)
        finally:
            for (key, row), (_, hold) in zip(others, held, strict=True):
                row.hold = hold
                self.store.save(key, row)


class Indexed(Chooses):
    """The queue lies in a column of its own, which not every call writes."""

    def __init__(self) -> None:
        super().__init__()
        self.column: dict[str, str] = {}

    def queue_of(self, job_id: str) -> str:
        return self.column.get(job_id) or super().queue_of(job_id)


@breaks("a_queue_is_changed_by_an_edit")
class AnEditLeavesTheQueueColumn(Sound):
    """The column that claims select by is written when a job is added, and by no edit."""

    makes = Indexed

    async def add(self, jobs: Sequence[Job]) -> Sequence[Job]:
        added = await super().add(jobs)
        self.store.column |= {job.id: job.spec.queue for job in added}
        return added


@breaks("what_comes_due_later_keeps_its_queue")
class RetriesAreOfTheDefaultQueue(Sound):
    """A settlement queues what comes next without saying where."""

    makes = Indexed

    async def settle(self, settlements: Sequence[Settlement]) -> Sequence[Settled]:
        answers = await super().settle(settlements)
        self.store.column |= {each.claim.job.id: "default" for each in settlements}
        return answers


@breaks("jobs_are_listed_by_queue")
class ListsAllQueues(Sound):
    """The listing does not know the filter by queue."""

    async def jobs(
        self, query: JobQuery, *, after: str | None, limit: int
    ) -> Page[Job | Undecodable]:
        return await super().jobs(evolve(query, queue=None), after=after, limit=limit)


# -- waiting


class WaitsFor(Sound):
    """Base: waits for another room than it was asked to."""

    def other(self, room: Room) -> Room:
        raise NotImplementedError

    async def wait_due(self, room: Room) -> None:
        await super().wait_due(self.other(room))


@breaks("what_the_room_does_not_take_wakes_no_wait")
class WaitsForAnyQueue(WaitsFor):
    """A wait looks at the earliest due job of all: beside one of another queue it spins."""

    def other(self, room: Room) -> Room:
        return Room(room.limit)


@breaks("what_the_room_does_not_take_wakes_no_wait")
class WaitsForRefusedIds(WaitsFor):
    """A wait looks at queues, and not at what the worker accepts."""

    def other(self, room: Room) -> Room:
        return evolve(room, accepts=None)


@breaks("a_served_job_wakes_past_others")
class OnlyTheEarliestOfAllWakes(Sound):
    """A new job wakes if it is due before all others, of whatever queue."""

    class Earliest(Store):
        def _wake_choosy(self, job_id: str, row: object, wake: datetime) -> None: ...

    makes = Earliest


@breaks("an_accepted_id_wakes_past_refused_ones")
class WaitsForTheFirstOfItsQueues(Sound):
    """A wait looks at the first job of its queues: is that refused, it sleeps until the poll."""

    async def wait_due(self, room: Room) -> None:
        if room.accepts is None:
            return await super().wait_due(room)
        first = self.store.first(self.store.due)
        if first is not None and not room.accepts(first[1]):
            clock = self._clock
            if clock is not None:
                await clock.sleep_until(self._now() + MAX_POLL)
            return None
        return await super().wait_due(room)


@breaks("what_is_due_in_a_served_queue_ends_a_wait_at_once")
class TheRestIsNotWaitedFor(WaitsFor):
    """A wait takes "*" for the name of a queue."""

    def other(self, room: Room) -> Room:
        served = room.queues
        if served is None or "*" not in served:
            return room
        return evolve(room, queues={name: n for name, n in served.items() if name != "*"})


@breaks("to_pass_over_jobs_wakes_nobody")
class PutsBackWithANudge(Sound):
    """What is passed over is queued again, which wakes every worker that waits."""

    class Nudges(Store):
        def take_due(self, room: Room, now: datetime) -> list[str]:
            chosen = super().take_due(room, now)
            if not room.takes_any:
                for alarm in self.alarms:
                    alarm.nudge()
            return chosen

    makes = Nudges


@breaks("a_lease_that_ends_ends_every_wait")
class LeasesWakeByQueue(Sound):
    """A wait for some queues looks at due jobs of these, and at no lease."""

    class DueAlone(Store):
        def earliest(self, room: Room | None = None) -> datetime | None:
            if room is None or room.takes_any:
                return super().earliest(room)
            first = self.first_of(room)
            return None if first is None else first[0]

    makes = DueAlone


@breaks("two_claims_share_a_queue")
class ChoosesThenClaims(Sound):
    """SELECT the jobs of its queues, and then write the claims, whoever has them by then."""

    async def hand_out(self, limit: int) -> Sequence[Claim]:
        now, room, store = self._now(), self.room, self.store
        if room.queues is None:
            return await super().hand_out(limit)
        chosen = store.take_due(room, now)
        for job_id in chosen:
            row = store.rows[job_id]
            row.wake, row.queue = row.due(), store.due
            heapq.heappush(store.due, (row.wake, job_id))
        await checkpoint()
        claims: list[Claim] = []
        for job_id in chosen:
            row = store.rows[job_id]
            row.hold = None
            claim = row.claim(store.next_serial(), self._worker, now, self._lease)
            claims += [claim] if claim is not None else []
            store.save(job_id, row)
        return claims
