"""From claims to ends of runs: calls handlers.

The hot path: standing worker tasks instead of one task for each run, one heap of deadlines instead
of a timeout for each run, settlements written in batches. A worker that is about to call a handler
wakes another one first if more runs are queued: handlers that never wait are run by one task
without a switch, handlers that wait are overtaken.

A claim ends only after its handler has returned. What cannot be stopped (a thread, a coroutine
that swallows cancellation) keeps its claim, renewed, and its execution is written when it returns.
"""

from __future__ import annotations

import functools
import inspect
import sys
from collections import deque
from collections.abc import Callable, Sequence
from contextvars import Context, copy_context
from datetime import datetime, timedelta
from typing import Any

import anyio
import anyio.abc

from sched_core._model.claim import SUCCESS, Claim
from sched_core._model.event import JobEvent
from sched_core._model.execution import Execution, describe, occurrence_key
from sched_core._runtime.caller import Caller
from sched_core._runtime.completion import BATCH, UNDECIDED, Settler
from sched_core._runtime.in_flight import Holdings
from sched_core._runtime.leases import Deadlines, Leases
from sched_core._runtime.quarantine import Quarantine
from sched_core._runtime.runs import Outcome, Postponed, Run, Why, Worker, failure, told_to_stop
from sched_core._runtime.supervision import absorb, asyncio_task, is_stray, keep_up, uncancel
from sched_core._runtime.transactions import Transactions
from sched_core._support.logger import Logger, from_user_code
from sched_core.clock import Clock, instant_after
from sched_core.errors import NoRoute
from sched_core.ports import Backend

logger = Logger("sched_core")

AHEAD = 5
"""While handlers end at once, claims go this many times beyond the concurrency."""
AT_ONCE = timedelta(milliseconds=50)
"""What ending at once means, for a whole batch."""


class Workers:
    """Runs claims on a task group, at most ``max_concurrency`` at a time.

    Args:
        backend: Where claims are renewed and settled.
        clock: The one that decides.
        max_concurrency: Handlers at a time, and threads for sync ones.
        on_execution: Called with each execution once it is written.
        on_trouble: Called with a topic and what is wrong with it, or ``None`` when it is right.
        on_notice: The same for what people should know.
    """

    def __init__(
        self,
        backend: Backend,
        clock: Clock,
        *,
        max_concurrency: int,
        on_execution: Callable[[Execution], None] | None,
        on_trouble: Callable[[str, str | None], None],
        on_notice: Callable[[str, str | None], None],
    ) -> None:
        self.clock = clock
        self.max_concurrency = max_concurrency
        self.holdings = Holdings(backend, clock, on_trouble, on_notice)
        self.leases = Leases(self.holdings)
        self.caller = Caller(slots=max_concurrency)
        self.active = 0
        """Runs queued or under way; those that only wait to be settled do not count."""
        self.completed = 0
        self.lateness: timedelta | None = None
        self._settler = Settler(self.holdings, forget=self._forget, on_execution=on_execution)
        self._deadlines = Deadlines(self.holdings, slots=max_concurrency)
        self._quarantine = Quarantine(
            self.holdings, self.leases, call=self._queue_one, others=self._others
        )
        self._effects = (
            Transactions(self.holdings, backend) if backend.capabilities.transactions else None
        )
        self._third_of_lease = self.holdings.lease / 3
        self._limit = max_concurrency
        self._accepted_at = clock.now()
        self._called = 0
        self._overlapped = True
        self._queue: deque[Run] = deque()
        self._idle: list[Worker] = []
        self._workers = 0
        self._waking = 0
        self._closing = False
        self._tasks: anyio.abc.TaskGroup | None = None
        self.host: Any = None
        """The task of asyncio that runs the group, ``None`` on trio."""
        self._context = copy_context()
        """That every worker begins with."""

    # -- the tasks

    def start(self, tasks: anyio.abc.TaskGroup, context: Context, *, insists: bool = False) -> None:
        """Start the standing tasks in the group; :meth:`close` ends them.

        Args:
            tasks: Where they run.
            context: That every handler begins with.
            insists: Whether an end that the store refuses is written again and again.
        """
        self._tasks = tasks
        self._context = context
        self.host = asyncio_task()
        self._closing = False
        self.active = 0
        self._called = 0
        self.caller.start(self.host)
        self.holdings.changed = anyio.Event()
        self._settler.start(insists=insists)
        tasks.start_soon(keep_up, "the task that settles", self.host, self._settle_all)
        keep = functools.partial(self.leases.keep, tasks, host=self.host, tick=self._settler.tick)
        tasks.start_soon(keep_up, "the task that renews", self.host, keep)

    async def _settle_all(self) -> None:
        await self._settler.write_all(begun=self._room_again)

    def _room_again(self) -> None:
        if self.active < self.max_concurrency:
            self.holdings.signal()

    def close(self) -> None:
        """End the standing tasks. What is still running is left to its lease."""
        self._closing = True
        if self._tasks is not None:
            self._tasks.cancel_scope.cancel()
        self._tasks = self.host = None
        self.caller.close()
        self._idle.clear()
        self._workers = self._waking = 0
        self._deadlines.clear()
        self._queue.clear()
        self._quarantine.clear()
        self._settler.clear()
        self.holdings.clear()
        self.active = 0

    def room(self) -> int:
        """Return how many further claims to ask for.

        As many as handlers may run beside each other. More only while handlers never wait and
        whole batches end at once: what is claimed and queued here, nobody else can take.
        """
        if self._quarantine.closed or len(self.holdings.runs) >= 10 * self.max_concurrency + 100:
            return 0
        if self.active == 0:
            quick = not self._overlapped and self.clock.now() - self._accepted_at < AT_ONCE
            most = max(min(AHEAD * self.max_concurrency, BATCH), self.max_concurrency)
            self._limit = min(2 * self._limit, most) if quick else self.max_concurrency
        elif self._overlapped:
            self._limit = self.max_concurrency
        return self._limit - self.active

    def accept(self, claims: Sequence[Claim]) -> None:
        """Take over claims: run them, or settle them without one."""
        now = self._accepted_at = self.clock.now()
        self._overlapped = self._called > 0
        holdings = self.holdings
        for claim in claims:
            run = Run(claim)
            job_id = claim.job.spec.id
            earlier = holdings.runs.get(job_id)
            if earlier is not None:
                # Our own lease ran out unrenewed and we got the job again. One at a time all the
                # same: the new run waits until the old handler has returned.
                holdings.successors[job_id] = run
                earlier.cancel("lost")
                continue
            holdings.runs[job_id] = run
            self._begin(run, now)
        self._wake()

    def _begin(self, run: Run, now: datetime) -> None:
        if not self._settler.begin(run, now):
            return
        self.active += 1
        if run.start is not None and run.start.alone and self._tasks is not None:
            self._quarantine.admit(run, self._tasks, self.host)
        else:
            self._queue.append(run)

    def _queue_one(self, run: Run) -> None:
        self._queue.append(run)
        self._wake()

    def _others(self) -> int:
        """Return how many runs are queued or under way, without those that are to begin alone."""
        return self.active - len(self._quarantine)

    def _wake(self) -> None:
        """See to it that somebody is going to look at the queue."""
        if not self._queue or self._waking:
            return
        if self._idle:
            self._waking += 1
            self._idle.pop().woken.set()
        elif self._workers < self.max_concurrency:
            self._workers += 1
            self._begin_work(Worker())

    def _begin_work(self, worker: Worker) -> None:
        if self._tasks is not None:
            self._waking += 1
            self._context.run(self._tasks.start_soon, self._work, worker)

    async def _work(self, worker: Worker) -> None:
        self._waking -= 1
        try:
            await self._serve(worker)
        except BaseException as error:
            if self._closing or worker.scope.cancel_called:
                raise
            if isinstance(error, Exception):
                # Of a run that made this fail. All others go on.
                logger.error("calling a handler failed", exc_info=error)
            elif is_stray(error, self.host):
                uncancel(asyncio_task())
                logger.warning("a worker's task was cancelled from outside; another takes over")
            else:
                raise
            self._replace(worker)

    def _replace(self, worker: Worker) -> None:
        """Have another task call handlers in the place of this one."""
        successor = Worker()
        successor.thread = worker.thread
        self._begin_work(successor)

    async def _serve(self, worker: Worker) -> None:
        queue, context, task = self._queue, copy_context(), asyncio_task()
        while not self._closing:
            with anyio.CancelScope() as worker.scope:
                while not worker.scope.cancel_called:
                    if _differ(copy_context(), context):
                        # No job finds what another one left in context variables.
                        self._replace(worker)
                        return
                    if not queue:
                        await self._sleep(worker)
                        continue
                    run = queue.popleft()
                    if queue:
                        self._wake()
                    references = _references(task)
                    await self._call(run, worker)
                    # No other job's handler may be called in a task that was cancelled when the
                    # handler had returned, or is kept by someone who may cancel it.
                    kept = _references(task) > references
                    if (
                        task is not None
                        and (kept or task.cancelling())
                        and not self._is_ending(worker)
                    ):
                        await absorb(task)
                        self._replace(worker)
                        return

    def _is_ending(self, worker: Worker) -> bool:
        """Whether the worker's task was cancelled by the scheduler, or by the program's end."""
        return worker.scope.cancel_called or self._closing or self.host.cancelling() > 0

    async def _sleep(self, worker: Worker) -> None:
        worker.woken = anyio.Event()
        self._idle.append(worker)
        try:
            await worker.woken.wait()
        except BaseException:
            if worker in self._idle:
                self._idle.remove(worker)
            elif not self._closing:
                self._waking -= 1
            raise
        self._waking -= 1

    async def _call(self, run: Run, worker: Worker) -> None:
        claim, start, handler = run.claim, run.start, self.caller.handler
        if start is None or handler is None or run.cancellation.requested:
            # Told to stop before it began: it was no attempt. A mark to cancel ends the next claim.
            self._ended(run, Postponed(self.clock.now()) if run.why else None, None)
            return
        job = claim.job
        spec = job.spec
        now = self.clock.now()
        if claim.expires_at - now < self._third_of_lease:
            # Something blocked the loop, or the clock was moved: make sure that it is still ours.
            await self.leases.renew()
            claim, now = run.claim, self.clock.now()
            if run.why:
                self._ended(run, Postponed(now), None)
                return
        run.call(worker, now, in_thread=self.caller.threaded)
        self.lateness = now - start.scheduled_at
        timeout, deadline = spec.policy.timeout, start.deadline
        if (timeout is not None or deadline is not None) and self._tasks is not None:
            why, after = _limit(timeout, deadline, now)
            self._deadlines.add(run, why, after, self._tasks, self.host)
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
            run.cancellation,
            self._effects,
        )
        outcome: Outcome | None = None  # where the loop ends: left to its lease
        raised: BaseException | None = None
        if self._called:
            self._overlapped = True
        self._called += 1
        try:
            result = self.caller.call(run, handler, event, worker)
            if result is not None and inspect.isawaitable(result):
                await result
            outcome = SUCCESS
        except NoRoute as error:
            outcome = Postponed(_later(self.clock.now(), error.delay))
            logger.info("job %r: %s; tried again in %s s", spec.id, describe(error), error.delay)
        except (Exception, BaseExceptionGroup, SystemExit) as error:  # noqa: BLE001 -- the settler logs it
            outcome, raised = failure(error), error
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt) and not run.in_thread:
                raise
            if worker.scope.cancel_called or self._closing:
                # A thread goes on when its worker is cancelled: its claim is left to its lease.
                outcome = None if run.in_thread else failure(error)
                raise
            if self.host is not None and self.host.cancelling() and not run.in_thread:
                # As asyncio.run does at its end, to all tasks.
                raise
            # The handler awaited what was cancelled elsewhere, or cancelled its own task.
            uncancel(asyncio_task())
            outcome, raised = failure(error), error
        finally:
            self._called -= 1
            self._ended(run, outcome, raised)

    def _ended(self, run: Run, outcome: Outcome | None, error: BaseException | None) -> None:
        """Note how a run ended; ``None`` where nothing may be written."""
        if self._closing:
            return
        self.active -= 1
        now = self.clock.now()
        if run.overdue:
            self._deadlines.returned(run)
        if run.phase == "committed" and run.offered is not None:
            run.finish(SUCCESS, error, now)
            self.completed += 1
            self._forget(run)
            self._settler.tell(run.offered.executions)
            if error is not None:
                logger.warning(
                    "job %r: its handler failed after it had committed; the run has succeeded: %s",
                    run.claim.job.spec.id,
                    describe(error),
                    exc_info=from_user_code(error),
                )
            return
        if run.why == "lost" or outcome is None:
            run.finish(None, error, now)
            self._forget(run)
            return
        if run.why is not None:
            outcome = told_to_stop(run.why, outcome, run.claim.job.spec.policy.timeout)
        run.finish(outcome, None if run.cancellation.requested else error, now)
        self.completed += 1
        self._settler.finish(run, run.claim.job, now)

    def _forget(self, run: Run) -> None:
        """Let go of a claim; a run of the same job that waited for it may begin."""
        successor = self.holdings.forget(run)
        if successor is not None:
            self._begin(successor, self.clock.now())
            self._wake()
        self.holdings.signal()

    # -- stopping

    @property
    def queued(self) -> int:
        """Runs that have not begun."""
        return len(self._queue)

    def take_queued(self) -> list[Claim]:
        """Return the claims whose handlers were never called; they are no longer held here."""
        queued = list(self._queue)
        self._queue.clear()
        return self._take(queued)

    def _take(self, queued: list[Run]) -> list[Claim]:
        self.active -= len(queued)
        for run in queued:
            self.holdings.runs.pop(run.claim.job.spec.id, None)
            run.let_go()
        return [run.claim for run in queued]

    def take_all_unbegun(self) -> list[Claim]:
        """Return those as well that wait for an earlier run of their job."""
        successors = list(self.holdings.successors.values())
        self.holdings.successors.clear()
        for run in successors:
            run.let_go()
        suspects = self._take(self._quarantine.take_all())
        return self.take_queued() + suspects + [run.claim for run in successors]

    def cancel_all(self) -> None:
        """Tell every run to stop."""
        for run in list(self.holdings.runs.values()):
            run.cancel("stop")

    def abandon_threads(self) -> None:
        """Stop waiting for handlers in threads: they cannot be ended, only left behind."""
        for run in list(self.holdings.runs.values()):
            run.abandon()

    def hanging(self) -> bool:
        """Whether coroutines are left that the task group must wait for."""
        runs = self.holdings.runs.values()
        return any(run.worker is not None and not run.in_thread for run in runs)

    async def until_idle(self) -> None:
        """Wait until no handler is under way."""
        while self.active:
            await self.holdings.changed.wait()

    async def until_settled(self) -> None:
        """Wait until everything that ended is written."""
        while len(self.holdings.runs) > self.active:
            await self.holdings.changed.wait()


_references: Callable[[Any], int] = getattr(sys, "getrefcount", lambda _: 0)
"""Interpreters other than CPython do not count: there a task that was kept is not noticed."""


def _differ(one: Context, other: Context) -> bool:
    try:
        return one != other
    except Exception:  # noqa: BLE001 -- compares what handlers left there, if they left anything
        return True


def _limit(
    timeout: timedelta | None, deadline: datetime | None, now: datetime
) -> tuple[Why, timedelta]:
    """Return what ends a run first, and after how long."""
    left = timedelta.max if deadline is None else max(deadline - now, timedelta(0))
    return ("timeout", timeout) if timeout is not None and timeout <= left else ("overlap", left)


def _later(now: datetime, seconds: float) -> datetime:
    try:
        return instant_after(now, timedelta(seconds=max(seconds, 0)))
    except (OverflowError, TypeError, ValueError):
        return now + UNDECIDED
