"""Runs claimed jobs: calls their handlers, at most ``max_concurrency`` at a time.

This is the hot path. So lasting tasks call handlers, instead of one task for each run; one heap
holds all deadlines, instead of a timeout for each run; and settlements are written in batches.

A claim ends only after its handler has returned. A handler that cannot be stopped (it runs in a
thread, or swallows cancellation) keeps its claim, which is renewed until the handler returns.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from contextvars import Context
from datetime import datetime, timedelta
from typing import Any

import anyio
import anyio.abc

from sched_core._model.claim import SUCCESS, Claim, Ended, Room
from sched_core._model.event import JobEvent
from sched_core._model.execution import Execution, describe, occurrence_key
from sched_core._model.job import NOTHING, Metadata
from sched_core._runtime.caller import Caller
from sched_core._runtime.cancels import CancelWatch
from sched_core._runtime.completion import BATCH, SCHEDULE_ERROR_DELAY, Completer
from sched_core._runtime.in_flight import InFlight
from sched_core._runtime.lanes import Lanes
from sched_core._runtime.leases import Deadlines, Leases
from sched_core._runtime.outcomes import (
    CancelReason,
    Outcome,
    Postponed,
    Unknown,
    cancelled_outcome,
    failure,
    with_traceback,
)
from sched_core._runtime.pool import TaskPool
from sched_core._runtime.quarantine import Quarantine
from sched_core._runtime.runs import Run, WorkerTask
from sched_core._runtime.supervision import asyncio_task, keep_up, uncancel
from sched_core._runtime.switches import Switches
from sched_core._runtime.transactions import HandlerTransactions
from sched_core._runtime.unrouted import Unrouted
from sched_core._support.logger import Logger, from_user_code
from sched_core.clock import Clock
from sched_core.errors import NoRoute
from sched_core.handlers import Handler
from sched_core.ports import Backend

logger = Logger("sched_core")

PREFETCH_FACTOR = 5
"""While whole batches end at once, the worker claims up to this many times the concurrency."""
INSTANT_BATCH = timedelta(milliseconds=50)
"""A batch that takes less than this ends at once."""


class Workers:
    """Runs claims on a task group, at most ``max_concurrency`` at a time.

    Args:
        backend: The backend that renews and settles claims.
        clock: The clock that decides.
        max_concurrency: The most handlers at a time, and the most threads for plain functions.
        on_execution: Called with each execution once it is written.
        set_problem: Called with a topic of health and its problem, ``None`` once that is over.
        set_notice: Called with a topic and what people should know of it, ``None`` once that is
            over.
        queues: The queues to serve, and how many runs of each at a time; ``None`` for all.

    Attributes:
        lanes: How many runs of each queue there are.
        unrouted: What this worker passes over.
        active: How many runs are queued or under way. Runs that only wait to be settled do not
            count.
        completed: How many runs have ended.
        lateness: How late the newest run began.
        host: The asyncio task that runs the group, ``None`` on trio.
    """

    def __init__(
        self,
        backend: Backend,
        clock: Clock,
        *,
        max_concurrency: int,
        on_execution: Callable[[Execution], None] | None,
        set_problem: Callable[[str, str | None], None],
        set_notice: Callable[[str, str | None], None],
        queues: Mapping[str, int] | None = None,
    ) -> None:
        self.clock = clock
        self.max_concurrency = max_concurrency
        self.unrouted = Unrouted(clock, set_problem)
        self.in_flight = InFlight(backend, clock, set_problem, set_notice)
        self.switches = Switches(backend, clock, set_notice, self.in_flight.signal)
        self.lanes = Lanes(queues, self._predicate, lambda: self.switches.queues)
        self.leases = Leases(self.in_flight)
        self.caller = Caller(slots=max_concurrency)
        self.active = 0
        self.completed = 0
        self.lateness: timedelta | None = None
        self._completer = Completer(self.in_flight, forget=self._forget, on_execution=on_execution)
        self._deadlines = Deadlines(self.in_flight, slots=max_concurrency)
        self._quarantine = Quarantine(
            self.in_flight, self.leases, call=self._queue_one, others=self._others
        )
        self._transactions = (
            HandlerTransactions(self.in_flight, backend)
            if backend.capabilities.transactions
            else None
        )
        self._cancels = CancelWatch(self.in_flight, self.leases)
        self._third_of_lease = self.in_flight.lease / 3
        self._limit = max_concurrency
        self._accepted_at = clock.now()
        self._called = 0
        self._overlapped = True
        self._pool = TaskPool(self._call, size=max_concurrency)
        self._queue = self._pool.queue
        self._tasks: anyio.abc.TaskGroup | None = None
        """The task group of all that runs here; ``None`` once that is to end."""
        self.host: Any = None

    # -- the tasks

    def start(
        self, tasks: anyio.abc.TaskGroup, context: Context, *, retry_refused: bool = False
    ) -> None:
        """Start the lasting tasks in a task group; :meth:`close` ends them.

        Args:
            tasks: The task group.
            context: The context variables that every handler begins with.
            retry_refused: Whether a run that the store refuses to write is written again later.
        """
        self._tasks = tasks
        self.host = asyncio_task()
        self.active = 0
        self._called = 0
        self.caller.start(self.host)
        self._pool.start(tasks, context, self.host)
        self.in_flight.changed = anyio.Event()
        self._completer.start(retry_refused=retry_refused)
        tasks.start_soon(keep_up, "the task that settles", self.host, self._settle_all)
        keep = functools.partial(self.leases.keep, tasks, host=self.host, tick=self._completer.tick)
        tasks.start_soon(keep_up, "the task that renews", self.host, keep)
        tasks.start_soon(keep_up, "the watch for cancelled runs", self.host, self._cancels.watch)

    async def _settle_all(self) -> None:
        await self._completer.write_all(begun=self._room_again)

    def _room_again(self) -> None:
        if self.active < self.max_concurrency:
            self.in_flight.signal()

    def close(self) -> None:
        """End the lasting tasks. The leases of handlers that still run will run out."""
        tasks, self._tasks, self.host = self._tasks, None, None
        self._pool.close()
        if tasks is not None:
            tasks.cancel_scope.cancel()
        self.caller.close()
        self._deadlines.clear()
        self._quarantine.clear()
        self._completer.clear()
        self.in_flight.clear()
        self.lanes.clear()
        self.active = 0

    def set_handler(self, handler: Handler) -> None:
        """Use this handler for every run that has not begun."""
        self.caller.set_handler(handler)
        self.unrouted.set_dispatcher(self.caller.knows)

    def room(self) -> Room | None:
        """Return what to claim; ``None`` where there is no room, or all is under maintenance."""
        if self.switches.hold_store:
            return None
        limit = self._free()
        room = self.lanes.room(limit) if limit > 0 else None
        return room if room is not None and room.limit > 0 else None

    @property
    def is_held(self) -> bool:
        """Whether nothing may begin of all that this worker serves: it is under maintenance."""
        return self.switches.hold_store or self.lanes.are_shut()

    def _predicate(self) -> Callable[[str], bool] | None:
        """Return the test that backends ask; ``None`` where this worker takes any job."""
        return self._accepts if self.switches.pass_some else self.unrouted.predicate()

    def _accepts(self, job_id: str) -> bool:
        return self.switches.accepts(job_id) and self.unrouted.accepts(job_id)

    def _free(self) -> int:
        """Return how many further claims to ask for.

        Usually that is as many as handlers may run at a time. It is more only while handlers never
        wait and whole batches end at once: no other worker can take the claims that are queued.
        Where queues have numbers of their own, it is never more.
        """
        if self._quarantine.closed or len(self.in_flight.runs) >= 10 * self.max_concurrency + 100:
            return 0
        if self.lanes.queues is not None:
            return self.max_concurrency - self.active
        if self.active == 0:
            quick = not self._overlapped and self.clock.now() - self._accepted_at < INSTANT_BATCH
            most = max(min(PREFETCH_FACTOR * self.max_concurrency, BATCH), self.max_concurrency)
            self._limit = min(2 * self._limit, most) if quick else self.max_concurrency
        elif self._overlapped:
            self._limit = self.max_concurrency
        return self._limit - self.active

    def accept(self, claims: Sequence[Claim]) -> None:
        """Run claims, or settle those for which no handler is to be called."""
        now = self._accepted_at = self.clock.now()
        self._overlapped = self._called > 0
        in_flight = self.in_flight
        for claim in claims:
            run = Run(claim)
            job_id = claim.job.spec.id
            earlier = in_flight.runs.get(job_id)
            if earlier is not None:
                # The lease of an earlier claim ran out here, and this worker claimed the job again.
                # The new run waits until the old handler has returned.
                in_flight.successors[job_id] = run
                earlier.cancel("lost")
                continue
            in_flight.runs[job_id] = run
            self._begin(run, now)
        self._pool.wake()
        self._cancels.wake()

    def _begin(self, run: Run, now: datetime) -> None:
        if not self._completer.begin(run, now):
            return
        self.active += 1
        self.lanes.begin(run.claim.job.spec.queue)
        if run.start is not None and run.start.alone and self._tasks is not None:
            self._quarantine.admit(run, self._tasks, self.host)
        else:
            self._queue.append(run)

    def _queue_one(self, run: Run) -> None:
        self._queue.append(run)
        self._pool.wake()

    def _others(self) -> int:
        """Return how many runs are queued or under way, without those that are to begin alone."""
        return self.active - len(self._quarantine)

    async def _call(self, run: Run, worker: WorkerTask) -> None:
        claim, start, handler = run.claim, run.start, self.caller.handler
        if start is None or handler is None or run.cancellation.requested:
            # It was told to stop before it began: no attempt. A mark to cancel ends the next claim.
            self._on_return(run, Postponed(self.clock.now()) if run.cancel_reason else None, None)
            return
        job = claim.job
        spec = job.spec
        if self.switches.hold(spec):
            self._give_back(run)
            return
        now = self.clock.now()
        if claim.expires_at - now < self._third_of_lease:
            # Something blocked the loop, or the clock was set: is the claim still ours?
            await self.leases.renew()
            claim, now = run.claim, self.clock.now()
            if run.cancel_reason:
                self._on_return(run, Postponed(now), None)
                return
        run.call(worker, now, in_thread=self.caller.threaded)
        self.lateness = now - start.scheduled_at
        timeout, deadline = spec.policy.timeout, start.deadline
        if (timeout is not None or deadline is not None) and self._tasks is not None:
            reason, after = _limit(timeout, deadline, now)
            self._deadlines.add(run, reason, after, self._tasks, self.host)
        event = JobEvent(
            spec.id,
            spec.schedule,
            start.scheduled_at,
            now,
            occurrence_key(job.uid, start.number),
            spec.name,
            spec.metadata,
            start.attempt,
            claim.token,
            start.kind,
            start.coalesced,
            start.coalesced_until,
            job.standing.last_finished_at,
            Metadata(start.args) if start.args else NOTHING,
            run.cancellation,
            self._transactions,
            job,
            self.in_flight,
        )
        outcome: Outcome | None = None  # if the loop ends: the lease runs out
        raised: BaseException | None = None
        if self._called:
            self._overlapped = True
        self._called += 1
        try:
            result = self.caller.call(run, handler, event, worker)
            if result is not None and inspect.isawaitable(result):
                await result
            outcome = SUCCESS
            self.unrouted.has_run(spec.id)
        except NoRoute as error:
            outcome = Unknown()
            pause = self.unrouted.refuse(spec.id, _seconds(error.delay))
            logger.info("job %r: %s; this worker leaves it alone for %s", spec.id, error, pause)
        except (Exception, BaseExceptionGroup, SystemExit) as error:  # noqa: BLE001 -- the completer logs it
            outcome, raised = failure(error), error
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt) and not run.in_thread:
                raise
            if worker.scope.cancel_called or self._tasks is None:
                # A thread still runs after its task was cancelled: the lease of its claim runs out.
                outcome = None if run.in_thread else failure(error)
                if run.cancel_reason == "timeout" and isinstance(outcome, Ended):
                    outcome = with_traceback(outcome, error)  # where its time was up
                raise
            if self.host is not None and self.host.cancelling() and not run.in_thread:
                # As asyncio.run does at its end, to all tasks.
                raise
            # The handler awaited what was cancelled elsewhere, or cancelled its own task.
            uncancel(asyncio_task())
            outcome, raised = failure(error), error
        finally:
            self._called -= 1
            self._on_return(run, outcome, raised)

    def _on_return(self, run: Run, outcome: Outcome | None, error: BaseException | None) -> None:
        """Note how a run ended; an outcome of ``None`` writes nothing."""
        if self._tasks is None:
            return
        self.active -= 1
        self.lanes.end(run.claim.job.spec.queue)
        now = self.clock.now()
        if run.overdue:
            self._deadlines.returned(run)
        if run.phase == "committed" and run.offered is not None:
            run.finish(SUCCESS, error, now)
            self.completed += 1
            self._forget(run)
            self._completer.notify(run.offered.executions)
            if error is not None:
                logger.warning(
                    "job %r: its handler failed after it had committed; the run has succeeded: %s",
                    run.claim.job.spec.id,
                    describe(error),
                    exc_info=from_user_code(error),
                )
            return
        if run.cancel_reason == "lost" or outcome is None:
            run.finish(None, error, now)
            self._forget(run)
            return
        if run.cancel_reason is not None:
            outcome = cancelled_outcome(
                run.cancel_reason, outcome, run.claim.job.spec.policy.timeout
            )
        if error is not None and isinstance(outcome, Ended):
            outcome = with_traceback(outcome, error)
        if run.notes is not None and isinstance(outcome, Ended):
            outcome = run.with_notes(outcome)
        run.finish(outcome, None if run.cancellation.requested else error, now)
        self.completed += 1
        self._completer.finish(run, run.claim.job, now)

    def _give_back(self, run: Run) -> None:
        """Let a claim go whose handler must not be called now: nothing has begun."""
        spec, now = run.claim.job.spec, self.clock.now()
        self.switches.pass_over(spec)
        self.active -= 1
        self.lanes.end(spec.queue)
        run.finish(Unknown(), None, now)
        self._completer.finish(run, run.claim.job, now)

    def _forget(self, run: Run) -> None:
        """Let go of a claim, and begin the run of the same job that waited for it, if any."""
        successor = self.in_flight.forget(run)
        if successor is not None:
            self._begin(successor, self.clock.now())
            self._pool.wake()
        self.in_flight.signal()

    # -- stopping

    @property
    def queued(self) -> int:
        """How many queued runs have not begun."""
        return len(self._queue)

    def take_queued(self) -> list[Claim]:
        """Take out and return the claims whose handlers were not called."""
        queued = list(self._queue)
        self._queue.clear()
        return self._take(queued)

    def _take(self, queued: list[Run]) -> list[Claim]:
        self.active -= len(queued)
        for run in queued:
            self.lanes.end(run.claim.job.spec.queue)
            self.in_flight.runs.pop(run.claim.job.spec.id, None)
            run.let_go()
        return [run.claim for run in queued]

    def take_all_unbegun(self) -> list[Claim]:
        """Take out and return all claims whose handlers were not called, waiting ones included."""
        successors = list(self.in_flight.successors.values())
        self.in_flight.successors.clear()
        for run in successors:
            run.let_go()
        suspects = self._take(self._quarantine.take_all())
        return self.take_queued() + suspects + [run.claim for run in successors]

    def cancel_all(self) -> None:
        """Tell every run to stop."""
        for run in list(self.in_flight.runs.values()):
            run.cancel("stop")

    def abandon_threads(self) -> None:
        """Stop waiting for handlers in threads, which cannot be ended."""
        for run in list(self.in_flight.runs.values()):
            run.abandon()

    async def until_idle(self) -> None:
        """Wait until no handler is under way."""
        while self.active:
            await self.in_flight.changed.wait()

    async def until_settled(self) -> None:
        """Wait until everything that ended is written."""
        while len(self.in_flight.runs) > self.active:
            await self.in_flight.changed.wait()


def _limit(
    timeout: timedelta | None, deadline: datetime | None, now: datetime
) -> tuple[CancelReason, timedelta]:
    """Return which limit ends a run first, and after how long."""
    left = timedelta.max if deadline is None else max(deadline - now, timedelta(0))
    return ("timeout", timeout) if timeout is not None and timeout <= left else ("overlap", left)


def _seconds(given: float) -> timedelta:
    """Return a pause that a user's ``NoRoute`` names, or another one where that is none."""
    try:
        return timedelta(seconds=max(given, 0.1))
    except (OverflowError, TypeError, ValueError):
        return SCHEDULE_ERROR_DELAY
