"""The loop that claims due jobs and has them run."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from contextvars import Context, ContextVar, copy_context
from datetime import datetime, timedelta
from functools import partial

import anyio
from anyio.lowlevel import checkpoint

from sched_core._model.claim import Claim, Room
from sched_core._model.execution import describe
from sched_core._runtime.maintenance import MomentsCheck, Retention, UnreadableCheck, wait
from sched_core._runtime.observers import Observers
from sched_core._runtime.reporting import Reporting
from sched_core._runtime.shutdown import Shutdown, wind_down
from sched_core._runtime.signals import stop_signals
from sched_core._runtime.supervision import first_of, keep_up, until
from sched_core._runtime.workers import Workers
from sched_core._support.logger import Logger
from sched_core.clock import (
    Clock,
    StepWatch,
    backoff_pause,
    elapsed,
    instant_after,
)
from sched_core.errors import SchedulerStopped
from sched_core.ports import Backend

logger = Logger("sched_core")

RELEASE_TIMEOUT = 5.0
"""Seconds that the store has to take claims back."""
STALLED = timedelta(seconds=30)
"""A loop that has not looked for work for longer than this is reported as stalled."""

AFTER_STEP = timedelta(seconds=10)
"""How long the loop claims nothing after the clock was set forward.

Workers renew their claims first, or others would take over what is running. And if the clock is put
right at once, a day's occurrences must not have been coalesced into one run.
"""
HELD = timedelta(seconds=5)
"""How long the loop sleeps at most while all that it serves is under maintenance."""
PAUSE_OF_FULL = timedelta(seconds=1)
"""How long the loop waits where more jobs of a group wait for the end of maintenance than it can
remember."""
IDLE_TURNS = 3
"""After so many turns of the event loop in which no handler was called, all of them wait."""


class Loop:
    """Claims due jobs and has them run, while ``run_forever`` or ``run_due`` is under way.

    Args:
        backend: The backend that hands out claims.
        clock: The clock that decides.
        workers: The tasks that run the claims.
        observers: They learn of lost claims, and keep the problems for health.
        handler_set: Set once the scheduler has a handler.
        worker: The worker's name, as claims carry it.

    Attributes:
        reporting: What the worker tells of itself, and the newest counts of the store.
        running: Whether ``run_forever`` is running.
        full_since: The time since which all handlers are busy and the loop claims nothing more;
            ``None`` while there is room.
        looked_at: The time when the loop last looked for work.
    """

    def __init__(
        self,
        backend: Backend,
        clock: Clock,
        workers: Workers,
        observers: Observers,
        handler_set: anyio.Event,
        *,
        worker: str,
    ) -> None:
        self._backend = backend
        self._clock = clock
        self._workers = workers
        self._observers = observers
        self._handler_set = handler_set
        self._shutdown = Shutdown()
        self._stopped = anyio.Event()
        self._steps = StepWatch(clock)
        self._retention = Retention(backend, clock, observers, step=workers.in_flight.lease / 4)
        self._unreadable = UnreadableCheck(backend, clock, observers)
        self._moments = MomentsCheck(backend, clock, observers)
        self.reporting = Reporting(backend, clock, workers, observers, worker=worker)
        self._inside: ContextVar[bool] = ContextVar("sched_core.inside", default=False)
        self.running = False
        self.full_since: datetime | None = None
        self.looked_at: datetime | None = None
        self._gave_back = False

    async def stop(self, grace: float) -> None:
        """Stop ``run_forever``; return once it has ended, or its deadline has passed.

        Called by a handler of this scheduler, it returns at once: else it would wait for its own
        caller.
        """
        if self.running:
            self._shutdown.request(grace)
            if not self._inside.get():
                await self._stopped.wait()

    def left_to_close(self) -> float:
        """Return the seconds that the backend has to close; a few where no stop was requested."""
        return self._shutdown.left_to_close()

    def stalled(self) -> bool:
        """Whether the loop has not looked for work for too long."""
        looked_at = self.looked_at
        return (
            self.running
            and self.full_since is None
            and looked_at is not None
            and self._clock.now() - looked_at > STALLED
        )

    # -- the frame

    async def run_forever(self, *, signals: bool, running: Callable[[], None]) -> None:
        """Run due jobs until a stop is requested; if cancelled, stop without grace.

        Args:
            signals: Whether SIGINT and SIGTERM stop it, if their handlers are the default ones.
            running: Called once the loop begins to look for work.
        """
        self.running, self._stopped = True, anyio.Event()
        try:
            await self._run(lambda: self._dispatch(running), signals=signals)
        finally:
            self.running = False
            self._stopped.set()

    async def run_due(self, moment: datetime) -> None:
        """Run until no job is left that was due at the moment."""
        self._workers.unrouted.reconsider()
        await self._run(lambda: self._run_until(moment), signals=False)
        await self._retention.sometimes()

    async def _run(self, work: Callable[[], Awaitable[None]], *, signals: bool) -> None:
        shutdown = self._shutdown = Shutdown()
        failure: list[Exception] = []
        async with anyio.create_task_group() as host:
            host.start_soon(self._serve, shutdown, work, failure)
            host.start_soon(self._watch_deadline, shutdown)
            try:
                async with stop_signals(enabled=signals, on_signal=shutdown.on_signal):
                    await shutdown.done.wait()
            except BaseException:
                shutdown.request(0)
                raise
        if failure:
            raise failure[0]

    async def _watch_deadline(self, shutdown: Shutdown) -> None:
        """Let ``run_forever`` and ``stop`` return at the deadline, whatever still hangs then."""
        with anyio.CancelScope(shield=True):
            await first_of(shutdown.requested.wait, shutdown.finished.wait)
            await until(shutdown.finished.wait, shutdown.patience)
        if not shutdown.finished.is_set():
            logger.error(
                "the scheduler has stopped, although a handler or a call of the store still hangs"
            )
            shutdown.done.set()
            self._stopped.set()

    async def _serve(
        self,
        shutdown: Shutdown,
        work: Callable[[], Awaitable[None]],
        failure: list[Exception],
    ) -> None:
        # No cancellation from outside reaches this: the request alone decides when it ends.
        done = False
        with anyio.CancelScope(shield=True):
            try:
                async with anyio.create_task_group() as tasks:
                    self._workers.start(tasks, self._handlers_context(), retry_refused=self.running)
                    over = anyio.Event()
                    tasks.start_soon(_do, work, failure, over)
                    await first_of(over.wait, shutdown.requested.wait)
                    await self._wind_down(shutdown, over)
                    done = True
            except Exception as error:
                logger.exception("the scheduler's loop failed")
                failure.append(error)
            finally:
                if not done and not failure:
                    failure.append(SchedulerStopped("its loop was cancelled from outside"))
                    logger.error("the scheduler's loop was cancelled from outside: no job runs")
                shutdown.finished.set()
                shutdown.done.set()

    def _handlers_context(self) -> Context:
        context = copy_context()
        context.run(self._inside.set, True)
        return context

    # -- until nothing is due

    async def _run_until(self, moment: datetime) -> None:
        workers, shutdown = self._workers, self._shutdown
        await shutdown.wait(workers.switches.look)
        moment, claims = await self._claim_first(moment)
        while claims:
            if shutdown.requested.is_set():
                await self._release(claims)
                return
            workers.accept(claims)
            await shutdown.wait(workers.until_idle)
            await shutdown.wait(workers.until_settled)
            claims = await self._claim_until(moment)

    async def _claim_first(self, moment: datetime) -> tuple[datetime, Sequence[Claim]]:
        """Claim due jobs; return the moment up to which ``run_due`` runs, and the claims.

        This process's estimate of the store's clock may lag, by as long as the store's first
        answers took. What the store hands out is due, so the moment is the latest of the claims.
        """
        claims = await self._claim_some()
        latest = max((claim.job.standing.due_at or moment for claim in claims), default=moment)
        return (moment if latest <= moment else max(latest, self._clock.now())), claims

    async def _claim_until(self, moment: datetime) -> Sequence[Claim]:
        claims = await self._claim_some()
        due = [claim for claim in claims if (claim.job.standing.due_at or moment) <= moment]
        if len(due) != len(claims):
            chosen = {claim.token for claim in due}
            await self._release([claim for claim in claims if claim.token not in chosen])
        return due

    async def _claim_some(self) -> Sequence[Claim]:
        claims: Sequence[Claim] = ()
        again = True
        while again and not claims and not self._shutdown.requested.is_set():
            if self._workers.is_held:
                return ()
            changed, room = self._workers.in_flight.changed, self._workers.room()
            if room is None:  # a run that was alone has just ended, and others may not begin yet
                await self._shutdown.wait(changed.wait)
                continue
            # A backend that had to wait long claims nothing, so that claims are renewed first.
            self.looked_at = self._clock.now()
            claims = await self._claim(room)
            took = self._clock.now() - self.looked_at
            again = self._gave_back or took > self._workers.in_flight.lease / 10
        return claims

    async def _claim(self, room: Room) -> Sequence[Claim]:
        claimed = await self._shutdown.wait(self._backend.claim_due, room)
        if claimed is None:
            return ()
        for execution in claimed.lapsed:
            self._observers.notify(execution)
        return await self._without_held(claimed.claims)

    async def _without_held(self, claims: Sequence[Claim]) -> Sequence[Claim]:
        """Give back what is under maintenance: no handler is called for it, and nothing counted.

        A backend cannot leave a group out, nor what was switched on while it claimed.
        """
        switches, self._gave_back = self._workers.switches, False
        if not switches.on:
            return claims
        kept, held = list[Claim](), list[Claim]()
        for claim in claims:
            (held if switches.hold(claim.job.spec) else kept).append(claim)
        for claim in held:
            switches.pass_over(claim.job.spec)
        await self._release(held)
        # Where they cannot be remembered, they come back at once.
        self._gave_back = bool(held) and not switches.is_full
        if held and not kept and switches.is_full:
            await self._shutdown.wait(wait, self._clock, PAUSE_OF_FULL)
        return kept

    # -- until it is stopped

    async def _dispatch(self, running: Callable[[], None]) -> None:
        host = self._workers.host
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(keep_up, "retention", host, self._retention.run)
            tasks.start_soon(keep_up, "the check for unreadable jobs", host, self._unreadable.run)
            tasks.start_soon(keep_up, "the check for wrong moments", host, self._moments.run)
            tasks.start_soon(keep_up, "the worker's report", host, self.reporting.run)
            tasks.start_soon(keep_up, "the look at other work", host, self.reporting.survey)
            running()
            await keep_up("the loop", host, self._claim_and_run)
            tasks.cancel_scope.cancel()

    async def _claim_and_run(self) -> None:
        workers, shutdown, failures = self._workers, self._shutdown, 0
        has_looked = False
        while not shutdown.requested.is_set():
            self.looked_at = self._clock.now()
            try:
                if workers.caller.handler is None:
                    self._observers.set_problem("handler", "no handler is set: nothing is claimed")
                    await shutdown.wait(self._handler_set.wait)
                    continue
                self._observers.set_problem("handler", None)
                if not has_looked:  # nothing may be claimed before it is known what has to wait
                    await shutdown.wait(workers.switches.look)
                    has_looked = True
                changed = workers.in_flight.changed
                if workers.is_held:
                    self.full_since = None
                    await shutdown.wait(first_of, changed.wait, partial(wait, self._clock, HELD))
                    continue
                room = workers.room()
                if room is None:
                    self.full_since = self.full_since or self.looked_at
                    await shutdown.wait(changed.wait)
                    continue
                self.full_since = None
                if self._steps.step() > workers.in_flight.lease / 4:
                    await self._wait_out_step()
                    continue
                if workers.in_flight.runs:
                    await shutdown.wait(workers.leases.renew_expiring)
                claims = await self._claim(room)
                if claims and shutdown.requested.is_set():
                    await self._release(claims)
                elif claims:
                    workers.accept(claims)
                    await self._let_workers_start()
                elif workers.lanes.has_full(room) or workers.switches.on:
                    waits = partial(self._backend.wait_due, room), changed.wait
                    await shutdown.wait(first_of, *waits)
                else:
                    await shutdown.wait(self._backend.wait_due, room)
                if failures:
                    failures = 0
                    self._observers.set_problem("claiming", None)
            except Exception as error:  # noqa: BLE001 -- a third party's backend may raise anything
                failures += 1
                workers.in_flight.backend_failed("claiming", error)
                await shutdown.wait(backoff_pause, failures)

    async def _wait_out_step(self) -> None:
        """Wait after the clock was set forward, until it has stayed so or was set back."""
        self._observers.set_problem(
            "clock", f"was set forward: nothing is claimed for {AFTER_STEP}"
        )
        logger.warning("the clock was set forward: nothing is claimed for %s", AFTER_STEP)
        await self._shutdown.wait(self._workers.leases.renew)
        ends = elapsed(self._clock) + AFTER_STEP.total_seconds()
        while (
            remaining := ends - elapsed(self._clock)
        ) > 0 and not self._shutdown.requested.is_set():
            until = instant_after(self._clock.now(), timedelta(seconds=remaining))
            await self._shutdown.wait(self._clock.sleep_until, until)
            self.looked_at = self._clock.now()
            step = self._steps.step()
            if step < -self._workers.in_flight.lease / 4:
                break
            if step > self._workers.in_flight.lease / 4:
                ends = elapsed(self._clock) + AFTER_STEP.total_seconds()
        self._observers.set_problem("clock", None)

    async def _let_workers_start(self) -> None:
        """Let handlers begin, so that leases are renewed before the next claim if one blocks.

        Claims beyond the concurrency cannot begin if handlers wait after all. They are given back:
        another process may have nothing to do.
        """
        queued, unchanged = self._workers.queued, 0
        while queued and unchanged < IDLE_TURNS and not self._shutdown.requested.is_set():
            await checkpoint()
            unchanged = unchanged + 1 if self._workers.queued == queued else 0
            queued = self._workers.queued
        if queued and not self._shutdown.requested.is_set():
            await self._release(self._workers.take_queued())

    # -- the end

    async def _wind_down(self, shutdown: Shutdown, over: anyio.Event) -> None:
        await wind_down(self._workers, shutdown, over, self._release)

    async def _release(self, claims: Sequence[Claim]) -> None:
        if not claims:
            return
        try:
            with anyio.fail_after(RELEASE_TIMEOUT):
                await self._backend.release(claims)
            self._observers.set_problem("releasing", None)
        except Exception as error:
            logger.exception("claims could not be released; they end with their leases")
            self._observers.set_problem("releasing", describe(error))


async def _do(
    work: Callable[[], Awaitable[None]], failure: list[Exception], over: anyio.Event
) -> None:
    try:
        await work()
    except Exception as error:  # noqa: BLE001 -- raised by Loop._run
        failure.append(error)
    finally:
        over.set()
