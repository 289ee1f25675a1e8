"""What workers report, kept otherwise."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

from attrs import evolve
from tests.testkit.mutants.base import Sound, breaks

from sched_core import WorkerState


@breaks("what_workers_report_is_told")
class NoQueuesAreAllQueues(Sound):
    """An empty mapping of queues is stored as none."""

    async def report(self, state: WorkerState) -> None:
        await super().report(evolve(state, queues=state.queues or None))


@breaks("what_workers_report_is_told")
class WorkersComeAsTheyReported(Sound):
    """Workers are told in the order in which they came."""

    async def workers(self) -> Sequence[WorkerState]:
        self._now()
        return list(self.store.workers.values())


@breaks("a_report_takes_the_place_of_the_last_one")
class ReportsAreMerged(Sound):
    """A report leaves alone what it has no value for."""

    async def report(self, state: WorkerState) -> None:
        before = self.store.workers.get(state.name)
        if before is not None:
            state = evolve(
                state,
                queues=state.queues or before.queues,
                unrouted=state.unrouted or before.unrouted,
                host=state.host or before.host,
            )
        await super().report(state)


@breaks("a_report_takes_the_place_of_the_last_one")
class ReportsAreAppended(Sound):
    """INSERT: each report is one more worker."""

    async def report(self, state: WorkerState) -> None:
        self._now()
        self.store.workers[f"{state.name} {self.store.next_serial()}"] = state


@breaks("close_takes_back_its_own_report")
class CloseLeavesItsReport(Sound):
    """A worker that has closed is forgotten by prune."""

    async def close(self) -> None:
        worker, self._worker = self._worker, ""
        await super().close()
        self._worker = worker


@breaks("close_takes_back_its_own_report")
class CloseDeletesAllReports(Sound):
    """DELETE FROM workers: who closes is the last one."""

    async def close(self) -> None:
        if self._clock is not None:
            self.store.workers.clear()
        await super().close()


@breaks("to_report_changes_nothing_else")
class CloseDeletesWhatItWrote(Sound):
    """Close deletes what came through this connection, whichever worker that was of."""

    async def report(self, state: WorkerState) -> None:
        await super().report(state)
        self.mine = {*getattr(self, "mine", ()), state.name}

    async def close(self) -> None:
        for name in getattr(self, "mine", ()):
            self.store.workers.pop(name, None)
        await super().close()


@breaks("a_worker_that_died_is_told_until_it_is_forgotten")
class TellsTheLivelyAlone(Sound):
    """A worker that has not reported for a minute is not told."""

    async def workers(self) -> Sequence[WorkerState]:
        now = self._now()
        told = await super().workers()
        return [each for each in told if each.seen_at > now - timedelta(minutes=1)]


@breaks("a_worker_that_died_is_told_until_it_is_forgotten")
class ForgetsByTheStart(Sound):
    """Prune deletes workers by when they started."""

    async def report(self, state: WorkerState) -> None:
        await super().report(evolve(state, seen_at=min(state.started_at, state.seen_at)))
