"""How workers are woken for runs that are marked to be cancelled."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from anyio.lowlevel import checkpoint
from attrs import evolve
from tests.testkit.mutants.base import Sound, breaks
from tests.testkit.mutants.durability import Filed
from tests.testkit.mutants.joined import Joined, Staged
from tests.testkit.mutants.transactions import StagedElsewhere

from sched_core import Claim, Clock, Execution, Job
from sched_core.clock import Alarm
from sched_core.ports import MAX_POLL


@breaks("a_wait_for_marks_ends_by_the_longest_poll")
class WaitsForAMark(Sound):
    """A wait ends when something is marked: a notification that got lost is never made up for."""

    async def wait_cancelled(self) -> bool:
        clock = self._clock
        until = self._now() + 1000 * MAX_POLL
        if clock is not None:
            await self._cancels.sleep(clock, until, self._cancels_seen)
        self._cancels_seen = self._cancels.count
        return True


@breaks("a_mark_is_told_by_the_longest_poll")
class OnlyItsOwnMarksAreTold(Sound):
    """A renewal tells of marks that came through this backend: it does not read the job."""

    async def replace(self, job: Job, executions: Sequence[Execution] = ()) -> Job:
        self.marked = {*getattr(self, "marked", ()), *([job.id] if job.standing.cancels else [])}
        return await super().replace(job, executions)

    async def extend(self, claims: Sequence[Claim]) -> Sequence[Claim]:
        marked = getattr(self, "marked", ())
        renewed = await super().extend(claims)
        return [evolve(one, cancel=one.cancel and one.job.id in marked) for one in renewed]


@breaks("waiting_for_marks_does_not_spin")
class CannotWake(Sound):
    """The store wakes nobody, so the call says at once that it cannot."""

    async def wait_cancelled(self) -> bool:
        self._now()
        await checkpoint()
        return False


@breaks("waiting_for_marks_does_not_spin")
class TellsAMarkAgain(Sound):
    """A wait returns as long as one of its claims is marked, though it has told of it."""

    async def wait_cancelled(self) -> bool:
        for row in self.store.rows.values():
            mine = row.hold is not None and row.hold.worker == self._worker
            if mine and isinstance(row.job, Job) and row.job.standing.cancels:
                await checkpoint()
                return True
        return await super().wait_cancelled()


@breaks("closing_ends_a_wait_for_marks")
class CloseLeavesTheWait(Sound):
    """Close wakes those who wait for due jobs alone."""

    async def close(self) -> None:
        cancels, self._cancels = self._cancels, Alarm()
        self.store.cancel_alarms.append(self._cancels)
        await super().close()
        self._cancels = cancels


@breaks("a_wait_for_marks_leaves_other_waits_alone")
class OneAlarmForAll(Sound):
    """One alarm wakes both waits, for whatever reason."""

    async def open(self, clock: Clock, *, worker: str) -> Clock:
        self._cancels = self._alarm
        return await super().open(clock, worker=worker)


class Unheard(Joined):
    """Base: some marks wake nobody."""

    @contextmanager
    def unheard(self, keep: Sequence[Alarm] = ()) -> Iterator[None]:
        alarms, self.store.cancel_alarms = self.store.cancel_alarms, list(keep)
        try:
            yield
        finally:
            self.store.cancel_alarms = alarms


@breaks("a_mark_wakes_its_worker")
class MarksWakeTheirMaker(Unheard):
    """A mark wakes the backend that made it, and no other one."""

    async def replace(self, job: Job, executions: Sequence[Execution] = ()) -> Job:
        with self.unheard([self._cancels]):
            return await super().replace(job, executions)


@breaks("a_mark_wakes_its_worker")
class MarksSayNothing(Joined):
    """A wait that a mark has ended returns False."""

    async def wait_cancelled(self) -> bool:
        await super().wait_cancelled()
        return False


@breaks("a_mark_before_the_wait_is_not_missed")
class ListensFromNowOn(Joined):
    """A wait hears what comes while it is under way."""

    async def wait_cancelled(self) -> bool:
        self._cancels_seen = self._cancels.count
        return await super().wait_cancelled()


class Silently(Staged):
    def tell_marks(self, row: Any) -> None: ...


@breaks("a_mark_within_a_transaction_wakes_its_worker")
class CommitsOfMarksWakeNobody(StagedElsewhere):
    """What a caller's transaction marks is found by the next renewal."""

    stages = Silently


@breaks("a_mark_of_another_process_wakes_its_worker")
class MarksWakeTheirProcess(Filed):
    """Marks are told within the process that made them."""

    async def replace(self, job: Job, executions: Sequence[Execution] = ()) -> Job:
        stored = await super().replace(job, executions)
        self.heard = {*getattr(self, "heard", ()), job.id}
        return stored

    def marked(self) -> set[tuple[int, str]]:
        heard = getattr(self, "heard", ())
        return {
            (row.hold.token, row.hold.worker)
            for key, row in self.store.rows.items()
            if key in heard and row.hold is not None
        }
