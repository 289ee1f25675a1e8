"""Backends that are not open, open twice, open again, and moments at both ends."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from anyio.lowlevel import checkpoint
from attrs import evolve
from tests.testkit.mutants.base import Sound, WritesOtherwise, breaks

from sched_core import (
    BackendError,
    BackendUnavailable,
    Claim,
    Clock,
    Execution,
    ExecutionQuery,
    Job,
    Page,
    UndecodableExecution,
)


@breaks("what_is_not_open_refuses_every_call")
class NothingToRenewWhenClosed(Sound):
    """A closed backend holds nothing, so that there is nothing to renew: no error."""

    async def extend(self, claims: Sequence[Claim]) -> Sequence[Claim]:
        return await super().extend(claims) if self._clock is not None else []


@breaks("what_is_not_open_refuses_every_call")
class ClosedIsOutOfReach(Sound):
    """A closed backend says BackendUnavailable, so that its caller tries without end."""

    def _now(self) -> datetime:
        if self._clock is None:
            raise BackendUnavailable("there is no connection")
        return super()._now()


@breaks("what_is_not_open_refuses_every_call")
class ConnectsWhenNeeded(Sound):
    """The history is read through a connection that is made when it is needed, open or not."""

    async def executions(
        self, query: ExecutionQuery, *, after: str | None, limit: int
    ) -> Page[Execution | UndecodableExecution]:
        if self._clock is None:
            return Page([], None)
        return await super().executions(query, after=after, limit=limit)


@breaks("what_is_not_open_refuses_every_call")
class CloseNeedsAnOpening(Sound):
    """Closing what was never opened fails on what open would have made."""

    async def close(self) -> None:
        if self._opened_in is None:
            raise BackendError("it was never opened")
        await super().close()


@breaks("what_is_open_is_not_opened_again")
class OpensTwice(Sound):
    """A second open goes through, and the claims of the first are made by another worker."""

    async def open(self, clock: Clock, *, worker: str) -> Clock:
        if self._clock is not None:
            await self.close()
        return await super().open(clock, worker=worker)


@breaks("what_is_open_is_not_opened_again")
class TakesTheNewWorkerFirst(Sound):
    """A second open is refused after it has taken the worker's name."""

    async def open(self, clock: Clock, *, worker: str) -> Clock:
        self._worker = worker
        return await super().open(clock, worker=worker)


@breaks("what_was_closed_can_be_opened_again")
class OpensOnce(Sound):
    """What was closed stays closed."""

    async def open(self, clock: Clock, *, worker: str) -> Clock:
        if self._opened_in is not None and self._clock is None:
            raise BackendError("it was closed: make a new one")
        return await super().open(clock, worker=worker)


@breaks("what_was_closed_can_be_opened_again")
class KeepsItsFirstName(Sound):
    """A backend that is opened again claims in the name of its first opening."""

    async def open(self, clock: Clock, *, worker: str) -> Clock:
        return await super().open(clock, worker=self._worker or worker)


@breaks("what_was_closed_can_be_opened_again")
class OpeningFreesItsOwnClaims(Sound):
    """Opening again frees what this backend held before, though its handlers may run on."""

    async def open(self, clock: Clock, *, worker: str) -> Clock:
        before = self._worker
        opened = await super().open(clock, worker=worker)
        for job_id, row in self.store.rows.items():
            if row.hold is not None and row.hold.worker == before:
                row.hold = None
                self.store.save(job_id, row)
        return opened


@breaks("closing_ends_a_waiting_call")
class WaitsOnAfterClose(Sound):
    """Close forgets who waits."""

    async def close(self) -> None:
        if self._clock is not None:
            self._clock = None
            self.store.alarms.remove(self._alarm)


EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
FAR = datetime(2262, 4, 11, tzinfo=UTC)
"""The last moment that nanoseconds in 64 bits can say."""


@breaks("the_first_and_the_last_moment_are_kept")
class MomentsBeginIn1970(Sound):
    """Moments are unsigned numbers since 1970: an earlier due_at is the first of them."""

    async def add(self, jobs: Sequence[Job]) -> Sequence[Job]:
        return await super().add([self.kept(job) for job in jobs])

    def kept(self, job: Job) -> Job:
        due = job.standing.due_at
        if due is None or due >= EPOCH:
            return job
        return evolve(job, standing=evolve(job.standing, due_at=EPOCH))


@breaks("the_first_and_the_last_moment_are_kept")
class TheFarFutureIsNever(Sound):
    """Moments are nanoseconds in 64 bits: after 2262 a job is never due."""

    async def add(self, jobs: Sequence[Job]) -> Sequence[Job]:
        return await super().add([self.kept(job) for job in jobs])

    def kept(self, job: Job) -> Job:
        due = job.standing.due_at
        if due is None or due < FAR:
            return job
        return evolve(job, standing=evolve(job.standing, due_at=None))


@breaks("the_first_and_the_last_moment_are_kept")
class HistoryHasFloats(Sound):
    """Moments of the history are floats of seconds, which lose microseconds far from 1970."""

    class Floats(WritesOtherwise):
        def change(self, execution: Execution) -> Execution:
            kept: dict[str, Any] = {}
            for name in ("scheduled_at", "started_at", "finished_at"):
                moment = getattr(execution, name)
                if moment is not None:
                    seconds = float((moment - EPOCH).total_seconds())
                    kept[name] = EPOCH.fromtimestamp(min(seconds, 253402300799.0), UTC)
            return evolve(execution, **kept)

    makes = Floats


@breaks("calls_of_one_backend_overlap")
class OneCallAtATime(Sound):
    """The connection takes one call at a time, and refuses what comes meanwhile."""

    busy = False

    async def hand_out(self, limit: int) -> Sequence[Claim]:
        if self.busy:
            raise BackendError("another operation is in progress")
        self.busy = True
        try:
            await checkpoint()
            return await super().hand_out(limit)
        finally:
            self.busy = False


@breaks("calls_of_one_backend_overlap")
class AnswersCross(Sound):
    """Two calls that are under way at once get the answer of the later one."""

    answer: Sequence[Job] = ()

    async def add(self, jobs: Sequence[Job]) -> Sequence[Job]:
        self.answer = await super().add(jobs)
        await checkpoint()
        return self.answer


@breaks("adds_answer_in_the_order_given")
class AnswersById(Sound):
    """RETURNING gives the rows of an add in the order of their ids."""

    async def add(self, jobs: Sequence[Job]) -> Sequence[Job]:
        return sorted(await super().add(jobs), key=lambda job: job.id)


@breaks("adds_answer_in_the_order_given")
class AnswersRepeatsLast(Sound):
    """An add answers what it has stored, and then what was there already."""

    async def add(self, jobs: Sequence[Job]) -> Sequence[Job]:
        there = {job.id for job in jobs if self.store.row(job.id).job is not None}
        return sorted(await super().add(jobs), key=lambda job: job.id in there)
