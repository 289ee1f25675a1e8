"""From claims to settlements: calls handlers, renews what they hold, writes down how they ended.

The hot path: standing worker tasks instead of one task for each run, one heap of deadlines instead
of a timeout for each run, settlements written in batches. A worker that is about to call a handler
wakes another one first if more runs are queued: handlers that never wait are run by one task
without a switch, handlers that wait are overtaken.

A claim ends only after its handler has returned. What cannot be stopped (a thread, a coroutine
that swallows cancellation) keeps its claim, renewed, and its line is written when it returns.
"""

from __future__ import annotations

import functools
import heapq
import inspect
import logging
import sys
from collections import deque
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import Any

import anyio
import anyio.abc
import anyio.to_thread

from sched_core import lifecycle
from sched_core.clock import LAST, Alarm, Clock, backoff_pause, cpu_seconds, instant_after
from sched_core.errors import BackendError, BackendUnavailable, NoRoute
from sched_core.job import (
    Cancellation,
    Claim,
    Execution,
    Job,
    JobEvent,
    Settled,
    Settlement,
    Status,
    describe,
    occurrence_key,
)
from sched_core.lifecycle import SUCCESS, Decision, Ended, Start
from sched_core.ports import Backend, Handler
from sched_core.threads import HandlerThread

logger = logging.getLogger("sched_core")

BATCH = 500
"""Most settlements written at once."""
UNDECIDED = timedelta(seconds=60)
"""For how long a job is set aside whose schedule raised an exception."""
AHEAD = 5
"""While handlers end at once, claims go this many times beyond the concurrency."""
AT_ONCE = timedelta(milliseconds=50)
"""What ending at once means, for a whole batch."""
CONFLICTS = 100
"""After so many conflicts in a row something is wrong with the backend, not with the timing."""


class Run:
    """One claim from the moment it was made until it is settled."""

    __slots__ = (
        "cancellation",
        "claim",
        "conflicts",
        "decision",
        "ended",
        "expected",
        "finished_at",
        "postponed",
        "start",
        "started_at",
        "threaded",
        "why",
        "worker",
    )

    def __init__(self, claim: Claim) -> None:
        self.claim = claim
        self.start: Start | None = None
        self.started_at: datetime | None = None
        self.finished_at: datetime | None = None
        self.postponed: datetime | None = None
        self.ended: Ended | None = None
        self.decision: Decision | None = None
        self.worker: _Worker | None = None
        self.threaded = False
        self.cancellation = Cancellation()
        self.why = ""
        """Why it was cancelled: timeout, lost or stop."""
        self.conflicts = 0
        self.expected: int | None = claim.job.revision
        """The revision that the decision was made on."""


class _Worker:
    """A standing task."""

    __slots__ = ("scope", "thread", "woken")

    def __init__(self) -> None:
        self.scope = anyio.CancelScope()
        self.thread: HandlerThread | None = None
        self.woken = anyio.Event()


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
        self.backend, self.clock = backend, clock
        self.max_concurrency = max_concurrency
        self.on_line, self.on_trouble = on_line, on_trouble
        self.handler: Handler | None = None
        self.threaded = False
        self.limiter: anyio.CapacityLimiter | None = None
        self.lease = backend.capabilities.lease
        self.held: dict[str, Run] = {}
        self.unsettled: list[Run] = []
        self.active = 0
        """Runs queued or under way; those that only wait to be settled do not count."""
        self._limit = max_concurrency
        self._accepted_at = clock.now()
        self._called = 0
        self._overlapped = True
        self.completed = 0
        self.claims_lost = 0
        self.backend_errors = 0
        self.lateness: timedelta | None = None
        self._queue: deque[Run] = deque()
        self._successors: dict[str, Run] = {}
        self._idle: list[_Worker] = []
        self._workers = 0
        self._waking = 0
        self._closing = False
        self._tasks: anyio.abc.TaskGroup | None = None
        self._host: Any = None
        """The asyncio task that runs the group, ``None`` on trio."""
        self._threads: list[HandlerThread] = []
        self._undecided: dict[str, datetime] = {}
        self._renewals: list[float] = []
        """When those began that have not returned, by a clock that nobody sets."""
        self._deadlines: list[tuple[datetime, int, Run]] = []
        self._deadline_alarm = Alarm()
        self._settle_wanted = anyio.Event()
        self.changed = anyio.Event()
        """Set, and replaced, whenever a run has ended or was settled."""

    def set_handler(self, handler: Handler) -> None:
        """Use this handler for every run that has not begun."""
        self.handler = handler
        self.threaded = not _is_async(handler)

    # -- the tasks

    def start(self, tasks: anyio.abc.TaskGroup) -> None:
        """Start the standing tasks in the group; :meth:`close` ends them."""
        self._tasks = tasks
        self._host = _asyncio_task()
        self._closing = False
        self._renewals = []
        self.active = 0
        self._called = 0
        self.limiter = anyio.CapacityLimiter(self.max_concurrency)
        self._settle_wanted, self.changed = anyio.Event(), anyio.Event()
        tasks.start_soon(self._settle_all)
        tasks.start_soon(self._renew_all)

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
        self.held.clear()
        self.unsettled.clear()
        self._successors.clear()
        self.active = 0

    def room(self) -> int:
        """Return how many further claims to ask for.

        As many as handlers may run beside each other. More only while handlers never wait and
        whole batches end at once: what is claimed and queued here, nobody else can take.
        """
        if len(self.held) >= 10 * self.max_concurrency + 100:
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
        for claim in claims:
            run = Run(claim)
            job_id = claim.job.spec.id
            earlier = self.held.get(job_id)
            if earlier is not None:
                # Our own lease ran out unrenewed and we got the job again. One at a time all the
                # same: the new run waits until the old handler has returned.
                self._successors[job_id] = run
                self.cancel(earlier, "lost")
                continue
            self.held[job_id] = run
            self._begin(run, now)
        self._wake()

    def _begin(self, run: Run, now: datetime) -> None:
        try:
            what = lifecycle.begin(run.claim, now=now)
        except Exception as error:  # noqa: BLE001 -- a third party's schedule may raise anything
            self._cannot_decide(run, error, now)
            run.postponed = now + UNDECIDED
            what = lifecycle.postpone(run.claim, until=run.postponed, now=now, stored=run.claim.job)
        if isinstance(what, Decision):
            run.decision = what
            self._to_settle(run)
        else:
            run.start = what
            self.active += 1
            self._queue.append(run)

    def _wake(self) -> None:
        """See to it that somebody is going to look at the queue."""
        if not self._queue or self._waking:
            return
        if self._idle:
            self._waking += 1
            self._idle.pop().woken.set()
        elif self._workers < self.max_concurrency and self._tasks is not None:
            self._waking += 1
            self._workers += 1
            self._tasks.start_soon(self._work, _Worker())

    async def _work(self, worker: _Worker) -> None:
        self._waking -= 1
        queue = self._queue
        while not self._closing:
            with anyio.CancelScope() as worker.scope:
                while not worker.scope.cancel_called:
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

    async def _call(self, run: Run, worker: _Worker) -> None:
        claim, start, handler = run.claim, run.start, self.handler
        if start is None or handler is None or run.cancellation.requested:
            self._ended(run, None)
            return
        job = claim.job
        spec = job.spec
        now = self.clock.now()
        if claim.expires_at - now < self.lease / 3:
            # Something blocked the loop, or the clock was moved: make sure that it is still ours.
            await self.renew()
            claim, now = run.claim, self.clock.now()
            if run.why:
                run.postponed = now  # it never began
                self._ended(run, SUCCESS)
                return
        run.started_at = now
        run.worker, run.threaded = worker, self.threaded
        self.lateness = now - start.scheduled_at
        timeout = spec.policy.timeout
        if timeout is not None:
            self._set_deadline(run, now + timeout)
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
            else:
                result = handler(event)
            if result is not None and inspect.isawaitable(result):
                await result
        except NoRoute as error:
            run.postponed = _later(self.clock.now(), error.delay)
            logger.info("job %r: %s; tried again in %s s", spec.id, error, error.delay)
        except (Exception, BaseExceptionGroup, SystemExit) as error:
            ended = Ended(Status.FAILED, describe(error))
            if not run.cancellation.requested:
                logger.warning("job %r failed: %s", spec.id, ended.reason, exc_info=error)
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
            logger.warning("job %r failed: %s", spec.id, ended.reason, exc_info=error)
        finally:
            self._called -= 1
            run.worker = None
            self._ended(run, ended)

    async def _call_in_thread(self, handler: Handler, event: JobEvent, worker: _Worker) -> Any:
        if self._host is None:
            # In a tuple: trio refuses functions that return coroutines.
            (result,) = await anyio.to_thread.run_sync(
                lambda: (handler(event),), abandon_on_cancel=True, limiter=self.limiter
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
        self._decide(run, run.claim.job, now)

    def _decide(self, run: Run, stored: Job | None, now: datetime) -> None:
        claim, start, ended = run.claim, run.start, run.ended
        run.expected = None if stored is None else stored.revision
        try:
            if run.postponed is not None or start is None or ended is None:
                until = run.postponed or now
                run.decision = lifecycle.postpone(claim, until=until, now=now, stored=stored)
            else:
                run.decision = lifecycle.finish(
                    claim, start, ended, started_at=run.started_at or now, now=now, stored=stored
                )
        except Exception as error:  # noqa: BLE001 -- as above
            self._cannot_decide(run, error, now)
            run.decision = lifecycle.postpone(claim, until=now + UNDECIDED, now=now, stored=stored)
        self._to_settle(run)

    def _cannot_decide(self, run: Run, error: Exception, now: datetime) -> None:
        job_id = run.claim.job.spec.id
        logger.error("job %r: what comes next cannot be decided", job_id, exc_info=error)
        self.on_trouble(f"job {job_id}", f"cannot be decided: {describe(error)}")
        self._undecided[job_id] = now + 2 * UNDECIDED

    def _forget_undecided(self) -> None:
        """Turn healthy again where the trouble did not come back."""
        now = self.clock.now()
        for job_id in [job_id for job_id, until in self._undecided.items() if until <= now]:
            del self._undecided[job_id]
            self.on_trouble(f"job {job_id}", None)

    def _forget(self, run: Run) -> None:
        """Let go of a claim; a run of the same job that waited for it may begin."""
        job_id = run.claim.job.spec.id
        if self.held.get(job_id) is run:
            del self.held[job_id]
            successor = self._successors.pop(job_id, None)
            if successor is not None:
                self.held[job_id] = successor
                self._begin(successor, self.clock.now())
                self._wake()
        self._signal()

    def _signal(self) -> None:
        self.changed.set()
        self.changed = anyio.Event()

    # -- settling

    def _to_settle(self, run: Run) -> None:
        self.unsettled.append(run)
        self._settle_wanted.set()

    async def _settle_all(self) -> None:
        while True:
            if not self.unsettled:
                self._settle_wanted = anyio.Event()
                await self._settle_wanted.wait()
            batch, self.unsettled = self.unsettled[:BATCH], self.unsettled[BATCH:]
            if self.active < self.max_concurrency:
                self._signal()
            await self._settle(batch)

    async def _settle(self, batch: list[Run]) -> None:
        settlements = [_settlement(run) for run in batch]
        failures = 0
        while True:
            try:
                outcomes = await self.backend.settle(settlements)
                break
            except BackendUnavailable as error:
                # The outcome is unknown. The same settlement again is harmless.
                failures += 1
                self.trouble("settling", error)
                await backoff_pause(failures)
            except Exception as error:  # noqa: BLE001 -- a third party's backend may raise anything
                self.trouble("settling", error)
                if len(batch) > 1:
                    middle = len(batch) // 2
                    await self._settle(batch[:middle])
                    await self._settle(batch[middle:])
                    return
                job_id = batch[0].claim.job.spec.id
                logger.error("job %r: its end cannot be written, its lease must run out", job_id)
                self._forget(batch[0])
                return
        self.on_trouble("settling", None)
        busy = 0
        for run, settlement, settled in zip(batch, settlements, outcomes, strict=True):
            busy += self._settled(run, settlement, settled)
        self._signal()
        if busy == len(batch):
            await backoff_pause(1)

    def _settled(self, run: Run, settlement: Settlement, settled: Settled) -> bool:
        outcome = settled.outcome
        if outcome == "written":
            self._forget_quietly(run)
            if self.on_line is not None:
                for line in settlement.ledger:
                    self.on_line(line)
        elif outcome == "busy":
            self._to_settle(run)
            return True
        elif outcome == "conflict":
            run.conflicts += 1
            if run.conflicts > CONFLICTS:
                logger.error("job %r: conflicts for ever; its lease must run out", run.claim.job.id)
                self._forget(run)
            elif run.ended is None and run.postponed is None:
                # A fate was decided on a definition that is no more: hand back, and claim anew.
                now = self.clock.now()
                run.decision = lifecycle.postpone(run.claim, until=now, now=now, stored=settled.job)
                run.expected = None if settled.job is None else settled.job.revision
                self._to_settle(run)
            else:
                self._decide(run, settled.job, run.finished_at or self.clock.now())
        else:
            self.claims_lost += 1
            logger.warning(
                "job %r: claim %s was taken over by another worker; its end was not written",
                run.claim.job.id,
                run.claim.token,
            )
            self._forget(run)
        return False

    def _forget_quietly(self, run: Run) -> None:
        job_id = run.claim.job.spec.id
        if self._successors:
            self._forget(run)
        elif self.held.get(job_id) is run:
            del self.held[job_id]

    def trouble(self, doing: str, error: BaseException) -> None:
        """Count and log a failure to reach the backend, and turn unhealthy."""
        self.backend_errors += 1
        expected = isinstance(error, BackendError)
        logger.warning(
            "%s failed: %s", doing, describe(error), exc_info=None if expected else error
        )
        self.on_trouble(doing, describe(error))

    # -- leases and deadlines

    async def _renew_all(self) -> None:
        patience, seen = (self.lease / 10).total_seconds(), None
        while True:
            await self.clock.sleep_until(self._renew_at())
            if self._undecided:
                self._forget_undecided()
            began = self._renewals[0] if self._renewals else None
            if began is None and self._tasks is not None:
                self._tasks.start_soon(self.renew)
            elif began is not None and began == seen and cpu_seconds() - began >= patience:
                # A renewal that neither returns nor fails saves nothing. It was seen before:
                # what only waits for a loop that was blocked comes back at once.
                self._give_up(list(self.held.values()))
            seen = began

    def _renew_at(self) -> datetime:
        """Return when to renew: every third of a lease, and once more where one is about to end."""
        now = self.clock.now()
        ends = min(
            (
                run.claim.expires_at
                for run in self.held.values()
                if run.decision is None and run.why != "lost"
            ),
            default=LAST,
        )
        return max(min(ends, now + self.lease / 3), now + self.lease / 10)

    def _give_up(self, runs: Sequence[Run]) -> None:
        now = self.clock.now()
        for run in runs:
            if run.claim.expires_at <= now and run.decision is None:
                self._lost(run)

    async def renew(self) -> bool:
        """Renew what has less than two thirds of its lease left; give up what is lost.

        Returns:
            Whether the backend answered.
        """
        soon = self.clock.now() + self.lease * 2 / 3
        runs = [run for run in self.held.values() if run.claim.expires_at <= soon]
        if not runs:
            self.on_trouble("renewing", None)  # nothing depends on it any more
            return True
        renewals, began = self._renewals, cpu_seconds()
        renewals.append(began)
        try:
            renewed = await self.backend.renew([run.claim for run in runs])
        except Exception as error:  # noqa: BLE001 -- a third party's backend may raise anything
            self.trouble("renewing", error)
            self._give_up(runs)
            return False
        finally:
            renewals.remove(began)
        self.on_trouble("renewing", None)
        tokens = {claim.job.spec.id: claim for claim in renewed}
        for run in runs:
            claim = tokens.get(run.claim.job.spec.id)
            if claim is not None and claim.token == run.claim.token:
                held = run.claim
                run.claim = Claim(
                    held.job, held.token, held.worker, held.claimed_at, claim.expires_at, held.lost
                )
            elif run.ended is None and run.decision is None:
                self._lost(run)
            else:
                run.why = "lost"  # or written meanwhile: the settlement tells
        return True

    def _lost(self, run: Run) -> None:
        if run.why == "lost":
            return
        self.claims_lost += 1
        logger.warning("job %r: claim %s was lost", run.claim.job.id, run.claim.token)
        self.cancel(run, "lost")

    async def renew_expiring(self) -> None:
        """Renew before claiming where a lease is about to end, or we would take over ourselves."""
        for _ in range(10):  # what runs meanwhile may block the loop as well
            soon = self.clock.now() + self.lease / 10
            if not any(
                run.claim.expires_at <= soon and run.why != "lost" for run in self.held.values()
            ):
                return
            if not await self.renew():
                return

    def cancel(self, run: Run, why: str) -> None:
        """Tell a run to stop, and cancel it where it can be."""
        if run.ended is not None or run.decision is not None:
            return
        if not run.why or why == "lost":
            run.why = why
        run.cancellation.requested = True
        if run.worker is not None and not run.threaded:
            run.worker.scope.cancel()

    def _set_deadline(self, run: Run, deadline: datetime) -> None:
        deadlines = self._deadlines
        if not deadlines and self._tasks is not None:
            self._tasks.start_soon(self._watch_deadlines)
        if len(deadlines) > 4 * len(self.held) + 1000:
            deadlines[:] = [each for each in deadlines if each[2].finished_at is None]
            heapq.heapify(deadlines)
        heapq.heappush(deadlines, (deadline, id(run), run))
        if deadlines[0][2] is run:
            self._deadline_alarm.nudge()

    async def _watch_deadlines(self) -> None:
        deadlines = self._deadlines
        while deadlines:
            seen = self._deadline_alarm.count
            deadline, _, run = deadlines[0]
            if run.finished_at is not None:
                heapq.heappop(deadlines)
            elif deadline <= self.clock.now():
                heapq.heappop(deadlines)
                self.cancel(run, "timeout")
            else:
                await self._deadline_alarm.sleep(self.clock, deadline, seen)

    # -- stopping

    def take_queued(self) -> list[Claim]:
        """Return the claims whose handlers were never called; they are no longer held here."""
        queued = list(self._queue)
        self._queue.clear()
        self.active -= len(queued)
        claims = [run.claim for run in (*queued, *self._successors.values())]
        for run in queued:
            self.held.pop(run.claim.job.spec.id, None)
        self._successors.clear()
        return claims

    def cancel_all(self) -> None:
        """Tell every run to stop."""
        for run in list(self.held.values()):
            self.cancel(run, "stop")

    def abandon_threads(self) -> None:
        """Stop waiting for handlers in threads: they cannot be ended, only left behind."""
        for run in list(self.held.values()):
            if run.worker is not None:
                run.worker.scope.cancel()

    def hanging(self) -> bool:
        """Whether coroutines are left that the task group must wait for."""
        return any(run.worker is not None and not run.threaded for run in self.held.values())

    @property
    def queued(self) -> int:
        """Runs that have not begun."""
        return len(self._queue)

    async def until_idle(self) -> None:
        """Wait until no handler is under way."""
        while self.active:
            await self.changed.wait()

    async def until_settled(self) -> None:
        """Wait until everything that ended is written."""
        while len(self.held) > self.active:
            await self.changed.wait()

    def oldest_due(self) -> datetime | None:
        """Return the earliest due moment among what is held and not settled."""
        return min(
            (run.claim.job.standing.due_at or LAST for run in self.held.values()), default=None
        )


def _settlement(run: Run) -> Settlement:
    decision = run.decision or Decision(None, ())
    expected = None if decision.standing is None else run.expected
    return Settlement(run.claim, expected, decision.standing, decision.ledger)


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


def _later(now: datetime, seconds: float) -> datetime:
    try:
        return instant_after(now, timedelta(seconds=max(seconds, 0)))
    except (OverflowError, ValueError):
        return now + UNDECIDED


def _is_async(handler: Handler) -> bool:
    target: Any = handler
    while isinstance(target, functools.partial):
        target = target.func
    return inspect.iscoroutinefunction(target) or inspect.iscoroutinefunction(
        getattr(target, "__call__", None)  # noqa: B004 -- asks what kind of function it is
    )
