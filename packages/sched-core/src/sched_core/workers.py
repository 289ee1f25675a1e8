"""From claims to ends of runs: calls handlers.

The hot path: standing worker tasks instead of one task for each run, one heap of deadlines instead
of a timeout for each run, settlements written in batches. A worker that is about to call a handler
wakes another one first if more runs are queued: handlers that never wait are run by one task
without a switch, handlers that wait are overtaken.

A claim ends only after its handler has returned. What cannot be stopped (a thread, a coroutine
that swallows cancellation) keeps its claim, renewed, and its line is written when it returns.
"""

from __future__ import annotations

import functools
import inspect
import logging
import sys
from collections import deque
from collections.abc import Callable, Sequence
from contextvars import Context, copy_context
from datetime import datetime, timedelta
from typing import Any, cast

import anyio
import anyio.abc
import anyio.to_thread

from sched_core.clock import Clock, instant_after
from sched_core.effects import Transactions
from sched_core.errors import NoRoute
from sched_core.holdings import Holdings, Run, Worker
from sched_core.job import Claim, Execution, JobEvent, Status, describe, occurrence_key
from sched_core.leases import Deadlines, Leases
from sched_core.lifecycle import SUCCESS, Ended
from sched_core.ports import Backend, Dispatcher, Handler, Transactional
from sched_core.settler import BATCH, UNDECIDED, Settler
from sched_core.threads import HandlerThread

logger = logging.getLogger("sched_core")

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
        on_line: Called with each ledger line once it is written.
        on_trouble: Called with a topic and what is wrong with it, or ``None`` when it is right.
    """

    def __init__(
        self,
        backend: Backend,
        clock: Clock,
        *,
        max_concurrency: int,
        on_line: Callable[[Execution], None] | None,
        on_trouble: Callable[[str, str | None], None],
    ) -> None:
        self.clock = clock
        self.max_concurrency = max_concurrency
        self.holdings = Holdings(backend, clock, on_trouble)
        self.leases = Leases(self.holdings)
        self.handler: Handler | None = None
        self.dispatcher: Dispatcher | None = None
        self.threaded = False
        self.active = 0
        """Runs queued or under way; those that only wait to be settled do not count."""
        self.completed = 0
        self.lateness: timedelta | None = None
        self._settler = Settler(self.holdings, forget=self._forget, on_line=on_line)
        self._deadlines = Deadlines(self.holdings)
        self._effects = (
            Transactions(self.holdings, cast("Transactional", backend))
            if backend.capabilities.transactions
            else None
        )
        self._third_of_lease = self.holdings.lease / 3
        self._limiter: anyio.CapacityLimiter | None = None
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
        self._host: Any = None
        """The asyncio task that runs the group, ``None`` on trio."""
        self._threads: list[HandlerThread] = []
        self._context = copy_context()
        """That every worker begins with."""

    def set_handler(self, handler: Handler) -> None:
        """Use this handler for every run that has not begun."""
        self.handler = handler
        candidate: Any = handler
        self.dispatcher = candidate if isinstance(candidate, Dispatcher) else None
        self.threaded = self.dispatcher is None and not is_async(handler)

    # -- the tasks

    def start(self, tasks: anyio.abc.TaskGroup) -> None:
        """Start the standing tasks in the group; :meth:`close` ends them."""
        self._tasks = tasks
        self._context = copy_context()
        self._host = _asyncio_task()
        self._closing = False
        self.active = 0
        self._called = 0
        self._limiter = anyio.CapacityLimiter(self.max_concurrency)
        self.holdings.changed = anyio.Event()
        self._settler.start()
        tasks.start_soon(self._settle_all)
        tasks.start_soon(self._keep_leases, tasks)

    async def _settle_all(self) -> None:
        await self._settler.write_all(begun=self._room_again)

    def _room_again(self) -> None:
        if self.active < self.max_concurrency:
            self.holdings.signal()

    async def _keep_leases(self, tasks: anyio.abc.TaskGroup) -> None:
        await self.leases.keep(tasks, tick=self._settler.forget_undecided)

    def close(self) -> None:
        """End the standing tasks. What is still running is left to its lease."""
        self._closing = True
        if self._tasks is not None:
            self._tasks.cancel_scope.cancel()
        self._tasks = self._host = None
        for thread in self._threads:
            thread.end()
        self._threads.clear()
        self._idle.clear()
        self._workers = self._waking = 0
        self._deadlines.clear()
        self._queue.clear()
        self._settler.clear()
        self.holdings.clear()
        self.active = 0

    def room(self) -> int:
        """Return how many further claims to ask for.

        As many as handlers may run beside each other. More only while handlers never wait and
        whole batches end at once: what is claimed and queued here, nobody else can take.
        """
        if len(self.holdings.runs) >= 10 * self.max_concurrency + 100:
            return 0
        if self.active == 0:
            quick = not self._overlapped and self.clock.now() - self._accepted_at < AT_ONCE
            most = max(min(AHEAD * self.max_concurrency, BATCH), self.max_concurrency)
            self._limit = min(2 * self._limit, most) if quick else self.max_concurrency
        elif self._overlapped:
            self._limit = self.max_concurrency
        return self._limit - self.active

    def accept(self, claims: Sequence[Claim]) -> None:
        """Take over claims: run them, or settle them with their fate."""
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
                holdings.cancel(earlier, "lost")
                continue
            holdings.runs[job_id] = run
            self._begin(run, now)
        self._wake()

    def _begin(self, run: Run, now: datetime) -> None:
        if self._settler.begin(run, now):
            self.active += 1
            self._queue.append(run)

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
        queue, context = self._queue, copy_context()
        while not self._closing:
            with anyio.CancelScope() as worker.scope:
                while not worker.scope.cancel_called:
                    if _differ(copy_context(), context):
                        # No job finds what another one left in context variables.
                        successor = Worker()
                        successor.thread = worker.thread
                        self._begin_work(successor)
                        return
                    if not queue:
                        worker.woken = anyio.Event()
                        self._idle.append(worker)
                        await worker.woken.wait()
                        self._waking -= 1
                        continue
                    run = queue.popleft()
                    if queue:
                        self._wake()
                    await self._call(run, worker)

    async def _call(self, run: Run, worker: Worker) -> None:
        claim, start, handler = run.claim, run.start, self.handler
        if start is None or handler is None or run.cancellation.requested:
            self._ended(run, None)
            return
        job = claim.job
        spec = job.spec
        now = self.clock.now()
        if claim.expires_at - now < self._third_of_lease:
            # Something blocked the loop, or the clock was moved: make sure that it is still ours.
            await self.leases.renew()
            claim, now = run.claim, self.clock.now()
            if run.why:
                run.postponed = now  # it never began
                self._ended(run, SUCCESS)
                return
        run.started_at = now
        run.worker, run.threaded = worker, self.threaded
        self.lateness = now - start.scheduled_at
        timeout = spec.policy.timeout
        if timeout is not None and self._tasks is not None:
            self._deadlines.add(run, timeout, self._tasks)
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
            start.manual,
            start.folded,
            start.folded_until,
            job.standing.last_finished_at,
            run.cancellation,
            self._effects,
        )
        ended: Ended | None = SUCCESS
        if self._called:
            self._overlapped = True
        self._called += 1
        try:
            if run.threaded:
                result = await self._call_in_thread(handler, event, worker)
                run.threaded = False
                if run.why and inspect.isawaitable(result):
                    worker.scope.cancel()
            elif self.dispatcher is not None:
                in_thread = functools.partial(self._in_thread, run, worker)
                result = self.dispatcher.dispatch(event, in_thread)
            else:
                result = handler(event)
            if result is not None and inspect.isawaitable(result):
                await result
        except NoRoute as error:
            run.postponed = _later(self.clock.now(), error.delay)
            logger.info("job %r: %s; tried again in %s s", spec.id, error, error.delay)
        except (Exception, BaseExceptionGroup, SystemExit) as error:  # noqa: BLE001 -- logged below
            ended = Ended(Status.FAILED, describe(error))
            if not run.cancellation.requested:
                self._log_failure(event, ended, error)
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt):
                ended = None
                raise
            if worker.scope.cancel_called or self._closing:
                # A thread goes on when its worker is cancelled: its claim is left to its lease.
                ended = None if run.threaded else Ended(Status.FAILED, describe(error))
                raise
            if self._host is not None and self._host.cancelling():
                # As asyncio.run does at its end, to all tasks.
                ended = None
                raise
            # The handler awaited what was cancelled elsewhere, or cancelled its own task.
            _uncancel()
            ended = Ended(Status.FAILED, describe(error))
            self._log_failure(event, ended, error)
        finally:
            self._called -= 1
            run.worker = None
            self._ended(run, ended)

    @staticmethod
    def _log_failure(event: JobEvent, ended: Ended, error: BaseException) -> None:
        fields = {"job_id": event.id, "key": event.key, "attempt": event.attempt}
        logger.warning("job %r failed: %s", event.id, ended.reason, exc_info=error, extra=fields)

    async def _in_thread(self, run: Run, worker: Worker, handler: Handler, event: JobEvent) -> Any:
        """Call a function that a dispatcher chose; what waits for it here can go on afterwards."""
        run.threaded = True
        try:
            result = await self._call_in_thread(handler, event, worker)
        except Exception:
            self._back_from_thread(run, worker)
            raise
        self._back_from_thread(run, worker)
        return result

    @staticmethod
    def _back_from_thread(run: Run, worker: Worker) -> None:
        run.threaded = False
        if run.why:  # it could not be cancelled before
            worker.scope.cancel()

    async def _call_in_thread(self, handler: Handler, event: JobEvent, worker: Worker) -> Any:
        if self._host is None:
            # In a tuple: trio refuses functions that return coroutines.
            (result,) = await anyio.to_thread.run_sync(
                lambda: (handler(event),), abandon_on_cancel=True, limiter=self._limiter
            )
            return result
        thread = worker.thread
        if thread is None:
            thread = worker.thread = HandlerThread(self._host.get_loop())
            self._threads.append(thread)
        try:
            return await thread.call(handler, event)
        except BaseException:
            if thread.busy:  # left behind
                thread.end()
                worker.thread = None
            raise

    def _ended(self, run: Run, ended: Ended | None) -> None:
        """Note how a run ended; ``None`` where nothing may be written."""
        if self._closing:
            return
        self.active -= 1
        now = run.finished_at = self.clock.now()
        if run.written is not None:
            run.ended = SUCCESS
            self.completed += 1
            self._settler.tell(run.written)
            self._forget(run)
            return
        if run.why == "lost" or ended is None:
            self._forget(run)
            return
        if run.why == "timeout":
            timeout = run.claim.job.spec.policy.timeout
            ended = Ended(Status.FAILED, f"timeout: cancelled after {timeout}")
        elif run.why == "stop":
            ended = Ended(Status.INTERRUPTED, "the worker stopped before the handler had ended")
        run.ended = ended
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
        self.active -= len(queued)
        for run in queued:
            self.holdings.runs.pop(run.claim.job.spec.id, None)
        return [run.claim for run in queued]

    def take_all_unbegun(self) -> list[Claim]:
        """Return those as well that wait for an earlier run of their job."""
        successors = [run.claim for run in self.holdings.successors.values()]
        self.holdings.successors.clear()
        return self.take_queued() + successors

    def cancel_all(self) -> None:
        """Tell every run to stop."""
        for run in list(self.holdings.runs.values()):
            self.holdings.cancel(run, "stop")

    def abandon_threads(self) -> None:
        """Stop waiting for handlers in threads: they cannot be ended, only left behind."""
        for run in list(self.holdings.runs.values()):
            if run.worker is not None:
                run.worker.scope.cancel()

    def hanging(self) -> bool:
        """Whether coroutines are left that the task group must wait for."""
        runs = self.holdings.runs.values()
        return any(run.worker is not None and not run.threaded for run in runs)

    async def until_idle(self) -> None:
        """Wait until no handler is under way."""
        while self.active:
            await self.holdings.changed.wait()

    async def until_settled(self) -> None:
        """Wait until everything that ended is written."""
        while len(self.holdings.runs) > self.active:
            await self.holdings.changed.wait()


def _asyncio_task() -> Any:
    asyncio = sys.modules.get("asyncio")
    try:
        return None if asyncio is None else asyncio.current_task()
    except RuntimeError:
        return None


def _uncancel() -> None:
    """Take back that a handler cancelled the task that it runs in: others will run in it."""
    task = _asyncio_task()
    while task is not None and task.cancelling():
        task.uncancel()


def _differ(one: Context, other: Context) -> bool:
    try:
        return one != other
    except Exception:  # noqa: BLE001 -- compares what handlers left there, if they left anything
        return True


def _later(now: datetime, seconds: float) -> datetime:
    try:
        return instant_after(now, timedelta(seconds=max(seconds, 0)))
    except (OverflowError, ValueError):
        return now + UNDECIDED


def is_async(handler: Callable[..., Any]) -> bool:
    """Say whether a handler is called in the loop; any other is called in a thread."""
    target: Any = handler
    while isinstance(target, functools.partial):
        target = target.func
    return inspect.iscoroutinefunction(target) or inspect.iscoroutinefunction(
        getattr(target, "__call__", None)  # noqa: B004 -- asks what kind of function it is
    )
