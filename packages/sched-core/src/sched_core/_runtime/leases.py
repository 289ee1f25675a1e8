"""The time limits of runs: leases that are renewed, and handlers whose time is up."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import Any

import anyio.abc

from sched_core._model.claim import Claim, Renewal
from sched_core._runtime.in_flight import InFlight
from sched_core._runtime.outcomes import CancelReason
from sched_core._runtime.runs import Run
from sched_core._runtime.supervision import keep_up
from sched_core._support.logger import Logger
from sched_core.clock import LAST, Alarm, elapsed, instant_after, loop_seconds

logger = Logger("sched_core")

MICROSECOND = 1e-6
PROGRESS_WITHIN = timedelta(seconds=5)
"""A renewal brings progress to the store at the latest so long after a handler told it."""
LONGEST_NAP = 86_400.0
"""The most seconds between two looks at deadlines; a timedelta cannot hold any float."""
PATIENCE = 1.0
"""Seconds that a cancelled coroutine has to return before a notice names it."""


class Leases:
    """Renews claims while their handlers run, and gives up those that could not be renewed."""

    def __init__(self, in_flight: InFlight) -> None:
        self._in_flight = in_flight
        self._renewals: list[float] = []
        """The start times of renewals that have not returned, by the event loop's clock."""

    async def keep(
        self, tasks: anyio.abc.TaskGroup, *, host: Any, tick: Callable[[], None]
    ) -> None:
        """Renew claims until cancelled: three times per lease, and where a handler told progress.

        Args:
            tasks: The task group that renewals run in: one that hangs does not stop the next.
            host: The task that the group belongs to; see ``supervision``.
            tick: Called before each renewal.
        """
        in_flight = self._in_flight
        self._renewals = []
        patience, seen = (in_flight.lease / 10).total_seconds(), None
        while True:
            await in_flight.clock.sleep_until(self._renew_at())
            tick()
            began = self._renewals[0] if self._renewals else None
            if began is None:
                tasks.start_soon(keep_up, "a renewal", host, self.renew)
            elif began == seen and loop_seconds() - began >= patience:
                # A renewal that neither returns nor fails saves no claim. It hung at the last look,
                # too: one that only waited for a blocked loop would have returned since.
                self._give_up(list(in_flight.runs.values()))
            seen = began

    def _renew_at(self) -> datetime:
        """Return when to look: each third of a lease, and before the earliest lease ends.

        And every few seconds: a handler that tells progress, in whatever thread, wakes no task.
        """
        now, lease = self._in_flight.clock.now(), self._in_flight.lease
        ends = min(
            (run.claim.expires_at for run in self._in_flight.runs.values() if run.needs_lease),
            default=LAST,
        )
        soon = now + PROGRESS_WITHIN
        return min(max(min(ends, now + lease / 3), now + lease / 10), soon)

    def _give_up(self, runs: Sequence[Run]) -> None:
        now = self._in_flight.clock.now()
        for run in runs:
            if run.claim.expires_at <= now and run.is_open:
                self._in_flight.lose(run)

    async def renew(self) -> bool:
        """Renew claims with less than two thirds of their lease left, or progress to store.

        Lost ones are given up.

        Returns:
            Whether the backend answered.
        """
        in_flight = self._in_flight
        soon = in_flight.clock.now() + in_flight.lease * 2 / 3
        runs = [
            run
            for run in in_flight.runs.values()
            if run.claim.expires_at <= soon or (run.notes is not None and _has_more(run))
        ]
        if not runs:
            in_flight.set_problem("renewing", None)  # no claim depends on it any more
            return True
        return await self._renew(runs)

    async def renew_all(self) -> bool:
        """Renew every claim, however long its lease still is: the answers tell of marks to cancel.

        Returns:
            Whether the backend answered.
        """
        runs = [run for run in self._in_flight.runs.values() if run.needs_lease]
        return not runs or await self._renew(runs)

    async def look(self, job_id: str) -> None:
        """Renew the claim of a job's run in this process, to see whether it is to be cancelled."""
        run = self._in_flight.runs.get(job_id)
        if run is not None and run.is_under_way:
            await self._renew([run])

    async def renew_one(self, run: Run) -> bool:
        """Renew a claim, however long its lease still is; return whether the backend answered."""
        return await self._renew([run])

    async def _renew(self, runs: Sequence[Run]) -> bool:
        in_flight = self._in_flight
        renewals, began = self._renewals, loop_seconds()
        renewals.append(began)
        try:
            batch = [_renewal(run) for run in runs]
            renewed = await in_flight.backend.renew(batch)
        except Exception as error:  # noqa: BLE001 -- a third party's backend may raise anything
            in_flight.backend_failed("renewing", error)
            self._give_up(runs)
            return False
        finally:
            renewals.remove(began)
        in_flight.set_problem("renewing", None)
        held = {claim.job.spec.id: claim for claim in renewed}
        for run, sent in zip(runs, batch, strict=True):
            claim = held.get(run.claim.job.spec.id)
            if claim is not None and claim.token == run.claim.token:
                if run.notes is not None and sent.progress is not None:
                    run.notes.stored = sent.progress
                run.renew(_extended(run.claim, claim.expires_at))
                if claim.cancel:
                    run.cancel("cancel")
            elif run.is_open:
                in_flight.lose(run)
            else:
                run.miss_renewal()
        return True

    async def renew_expiring(self) -> None:
        """Renew leases that are about to end, or the next claim would take over our own runs."""
        in_flight = self._in_flight
        for _ in range(10):  # handlers may block the loop during a renewal as well
            soon = in_flight.clock.now() + in_flight.lease / 10
            if not any(
                run.claim.expires_at <= soon and not run.is_lost for run in in_flight.runs.values()
            ):
                return
            if not await self.renew():
                return


class Deadlines:
    """Cancels handlers whose time is up, with one heap for all instead of a timer for each.

    Time is measured by ``elapsed``, so setting the clock ends no run. A notice names each handler
    that cannot be cancelled, or still runs although it was cancelled.

    Args:
        in_flight: The runs in flight.
        slots: How many handlers may run at a time.
    """

    def __init__(self, in_flight: InFlight, *, slots: int) -> None:
        self._in_flight = in_flight
        self._slots = slots
        self._heap: list[tuple[float, int, Run, CancelReason]] = []
        self._serial = 0
        self._alarm = Alarm()
        self._overdue = 0

    def add(
        self,
        run: Run,
        reason: CancelReason,
        after: timedelta,
        tasks: anyio.abc.TaskGroup,
        host: Any,
    ) -> None:
        """Cancel the run after a while, unless it has ended by then."""
        heap = self._heap
        deadline = elapsed(self._in_flight.clock) + after.total_seconds()
        if not heap:
            tasks.start_soon(keep_up, "the watch over timeouts", host, self._watch)
        if len(heap) > 4 * len(self._in_flight.runs) + 1000:
            heap[:] = [each for each in heap if not each[2].has_returned]
            heapq.heapify(heap)
        self._push(deadline, run, reason)
        if heap[0][2] is run:
            self._alarm.nudge()

    def _push(self, deadline: float, run: Run, reason: CancelReason) -> None:
        self._serial += 1
        heapq.heappush(self._heap, (deadline, self._serial, run, reason))

    def clear(self) -> None:
        """Forget all deadlines."""
        self._heap.clear()
        self._overdue = 0

    def returned(self, run: Run) -> None:
        """Clear the notice of an overdue handler, which has returned."""
        if run.overdue:
            run.overdue = False
            self._overdue -= 1
            self._in_flight.set_notice(_topic(run), None)
            self._tell_of_slots()

    async def _watch(self) -> None:
        heap, clock = self._heap, self._in_flight.clock
        while heap:
            seen = self._alarm.count
            deadline, _, run, reason = heap[0]
            if run.has_returned:
                heapq.heappop(heap)
            elif (remaining := deadline - elapsed(clock)) < MICROSECOND:
                heapq.heappop(heap)
                first = run.cancel_reason is None
                run.cancel(reason)
                if first and not run.in_thread:
                    self._push(deadline + PATIENCE, run, reason)
                elif run.is_open and not run.overdue:
                    self._overrun(run, reason)
            else:
                until = instant_after(clock.now(), timedelta(seconds=min(remaining, LONGEST_NAP)))
                await self._alarm.sleep(clock, until, seen)

    def _overrun(self, run: Run, reason: CancelReason) -> None:
        run.overdue = True
        self._overdue += 1
        spec = run.claim.job.spec
        how = (
            "it runs in a thread, which cannot be stopped: let it look at event.cancelled"
            if run.in_thread
            else "it still runs although it was cancelled"
        )
        past = (
            "the next occurrence's moment"
            if reason == "overlap"
            else (f"its timeout of {spec.policy.timeout}")
        )
        text = f"its handler is past {past}, since {run.started_at}"
        logger.warning(
            "job %r: %s; %s", spec.id, text, how, extra={"job_id": spec.id, "since": run.started_at}
        )
        self._in_flight.set_notice(_topic(run), f"{text}; {how}")
        self._tell_of_slots()

    def _tell_of_slots(self) -> None:
        full = self._overdue >= self._slots
        self._in_flight.set_problem(
            "handlers",
            f"all {self._slots} slots are taken by handlers past their timeout: nothing runs"
            if full
            else None,
        )


def _topic(run: Run) -> str:
    return f"handler of job {run.claim.job.spec.id}"


def _has_more(run: Run) -> bool:
    """Return whether the handler has told progress that the store does not have."""
    return run.is_open and run.notes is not None and run.notes.unsent is not None


def _renewal(run: Run) -> Renewal:
    progress = None if run.notes is None else run.notes.unsent
    return Renewal(run.claim, run.alone, progress)


def _extended(claim: Claim, expires_at: datetime) -> Claim:
    return Claim(claim.job, claim.token, claim.worker, claim.claimed_at, expires_at)
