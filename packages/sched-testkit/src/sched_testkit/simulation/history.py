"""One history: several real schedulers on one simulated store; a seed decides everything."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime, timedelta
from random import Random

import anyio
import anyio.abc
from attrs import define, field, frozen

from sched_core import (
    Backend,
    BackendError,
    Execution,
    JobEvent,
    MemoryBackend,
    RetryAfter,
    Scheduler,
    Snooze,
)
from sched_core._runtime.loop import AFTER_STEP
from sched_core.memory import MemoryStore
from sched_testkit._oracle.calls import Call, CallState
from sched_testkit._oracle.violation import Violation
from sched_testkit._stories.entry import pendings
from sched_testkit.simulation.clock import ProcessClock, SimulatedClock, SimulatedProcess
from sched_testkit.simulation.endings import drawn
from sched_testkit.simulation.loop import SimulatedLoop, Stuck
from sched_testkit.simulation.network import CALM, Network, Weather, remote
from sched_testkit.simulation.observer import Command, Observer, Outcome, commanded
from sched_testkit.simulation.operator import WHOLE, Operator, Repertoire

S = timedelta(seconds=1)
IDS = ("a", "b", "c", "d")
CALM_SECONDS = 12.0
"""Seconds without faults at the end: longer than every back-off and poll."""
MOST_RUNS = 100
LATE = 7 * S
"""A job that is due for longer at the end of the calm, and unclaimed, was forgotten."""

logger = logging.getLogger("sched_core")


@frozen
class Setup:
    """The parts that are simulated; a test plants a fault by exchanging one of them.

    Attributes:
        backend: Makes a backend on the shared store with this lease.
        scheduler: Makes a scheduler; called like :class:`~sched_core.Scheduler`.
        store: Makes the shared store.
        repertoire: What may happen.
    """

    backend: Callable[[MemoryStore, timedelta], Backend] = lambda store, lease: MemoryBackend(
        store, lease=lease
    )
    scheduler: Callable[..., Scheduler] = Scheduler
    store: Callable[[], MemoryStore] = MemoryStore
    repertoire: Repertoire = WHOLE


@define
class _Running:
    process: SimulatedProcess
    scheduler: Scheduler
    inner: Backend
    scope: anyio.CancelScope = field(factory=anyio.CancelScope)
    ended: anyio.Event = field(factory=anyio.Event)


class SimulatedHistory:
    """One history: its processes, what happens to them, and its end."""

    def __init__(self, seed: int, setup: Setup) -> None:
        self._setup = setup
        self._chance = chance = Random(seed)
        self._loop = SimulatedLoop(Random(chance.random()))  # type: ignore[abstract]  # only what is used
        self._clock = SimulatedClock(self._loop)
        self._store = setup.store()
        self._observer = Observer(seed, self._loop, self._clock, self._store)
        self._repertoire = setup.repertoire
        self._operator = Operator(chance, self._clock, self._observer, self._repertoire)
        self.outcome, self._oracle = self._observer.outcome, self._observer.oracle
        self._running: list[_Running] = []
        self._names, self._ids = itertools.count(1), itertools.count(1)
        self._lease = chance.choice((2, 4, 8)) * S
        self._quiet = False
        self._calm = CALM_SECONDS

    # -- processes

    async def _start(self, network: Network) -> _Running:
        process = SimulatedProcess(f"p{next(self._names)}")
        inner = self._setup.backend(self._store, self._lease)

        async def handle(event: JobEvent) -> None:
            await self._handle(running, event)

        scheduler = self._setup.scheduler(
            remote(inner, process, network),
            handler=handle,
            clock=ProcessClock(self._clock, process),
            worker=process.name,
            max_concurrency=self._chance.choice((1, 3)),
            new_id=lambda: f"{next(self._ids):03}",
        )
        running = _Running(process, scheduler, inner)
        self._running.append(running)
        self._observer.noted(process, "starts")
        opened = anyio.Event()
        network.tasks.start_soon(self._live, running, opened)
        await opened.wait()
        return running

    async def _live(self, running: _Running, opened: anyio.Event) -> None:
        process = running.process
        try:
            with running.scope:
                async with running.scheduler as scheduler:
                    opened.set()
                    await scheduler.run_forever(signals=False)
        except BaseException as error:
            if not process.dead and isinstance(error, Exception):
                self._observer.found(f"the scheduler of {process.name} failed: {error!r}")
            if not isinstance(error, Exception):
                raise
        finally:
            opened.set()
            running.ended.set()

    async def _kill(self, running: _Running) -> None:
        self._observer.harmed.add(running.process.worker)
        self._observer.noted(running.process, "is killed")
        running.process.kill()
        self._oracle.attempts.killed(running.process.worker)
        self._running.remove(running)
        running.scope.cancel()

    async def _stop(self, running: _Running, grace: float) -> None:
        if running not in self._running:
            return  # it was killed or stopped before this had its turn
        self._observer.noted(running.process, "is stopped, grace", grace)
        self._running.remove(running)
        calm = self._quiet
        await running.scheduler.stop(grace)
        await running.ended.wait()
        self._observer.noted(running.process, "has ended")
        for hold in self._oracle.claims.holds.values():
            mine = hold.claim.worker == running.process.worker
            if mine and hold.open and calm and hold.stored.expires_at > self._clock.now():
                self._observer.found(
                    f"{running.process.name} has ended, and holds {hold.claim.job.id!r}"
                )

    # -- handlers

    async def _handle(self, running: _Running, event: JobEvent) -> None:
        process = running.process
        if process.dead:
            raise BackendError("the process is dead")
        self.outcome.runs += 1
        call = self._called(event)
        self._observer.noted(process, "runs", f"{event.id} {event.key} attempt {event.attempt}")
        end, wait, error = CallState.CANCELLED, None, None
        try:
            if not self._quiet:
                await self._act(running, event)
            end = CallState.SUCCEEDED
            if not self._quiet:
                end, error = drawn(self._chance, event, asks=self._repertoire.handlers_ask)
            if error is None and event.cancelled:
                end = CallState.CANCELLED  # it returns without effect
            if isinstance(error, Snooze | RetryAfter):
                wait = error.delay
            if error is not None:
                raise error
        finally:
            if call is not None and not running.process.dead:
                until = "" if wait is None else f" again in {wait.total_seconds():g} s"
                self._observer.noted(process, end, event.key + until)
                raised = None if error is None else type(error)
                self._oracle.attempts.ended(call, end, self._clock.now(), raised, wait)

    def _called(self, event: JobEvent) -> Call | None:
        try:
            return self._oracle.attempts.called(event, self._clock.now())
        except Violation as wrong:
            self._observer.found(str(wrong))
            return None

    async def _act(self, running: _Running, event: JobEvent) -> None:
        chance, process = self._chance, running.process
        lease = self._lease.total_seconds()
        lasts = chance.choice((0.0, 0.0, 0.01, 0.3, 0.3, lease / 2, lease * 1.5))
        clock = ProcessClock(self._clock, process)
        if lasts and not self._quiet:
            await clock.sleep_until(clock.now() + lasts * S)
        what = chance.random()
        if what < 0.15:
            kind = chance.choice(self._repertoire.commands)
            await self._operator.command(process, running.scheduler, kind, event.id)
        elif what < 0.18 and not process.dead and not self._quiet:
            await self._kill(running)
            await anyio.sleep_forever()

    async def _command(self, running: _Running, kind: str, job_id: str) -> None:
        with suppress(Exception):
            await self._operator.command(running.process, running.scheduler, kind, job_id)

    # -- the history

    def play(self) -> Outcome:
        """Play it and judge it."""
        disabled, logger.disabled = logger.disabled, True
        try:
            self._loop.run_until_complete(self._main())
        except Stuck as stuck:
            self._observer.found(f"the schedulers hang: {stuck}")
        finally:
            logger.disabled = disabled
        for problem in self._loop.problems:
            self._observer.found(
                f"in the event loop: {problem.get('message')} {problem.get('exception')!r}"
            )
        self.outcome.turns = self._loop.turns
        return self.outcome

    async def _main(self) -> None:
        async with anyio.create_task_group() as tasks:
            network = Network(self._clock, self._chance, self._observer, tasks)
            for _ in range(self._chance.choice((1, 2, 2, 3))):
                await self._start(network)
            first = self._running[0]
            await self._operator.command(first.process, first.scheduler, "submit", "a")
            network.weather = self._weather()
            if network.weather is not CALM:
                self._observer.harmed.add("")
            for _ in range(self._chance.randrange(4, 16)):
                await anyio.sleep(self._chance.choice((0.0, 0.01, 0.4, 1.0, 3.0)))
                await self._step(network)
                if self.outcome.finding:
                    break
            await self._end(network)
            tasks.cancel_scope.cancel()

    def _weather(self) -> Weather:
        chance = self._chance
        if chance.random() < 0.3:
            return CALM
        lease = self._lease.total_seconds()
        return Weather(
            latency=chance.choice((0.001, 0.02)),
            spikes=chance.choice((0.0, 0.05)),
            spike=chance.choice((1.0, 2 * lease)),
            refused=chance.choice((0.0, 0.05)),
            lost=chance.choice((0.0, 0.05, 0.2)),
            late=chance.choice((0.0, 0.05)),
        )

    async def _step(self, network: Network) -> None:
        chance = self._chance
        if not self._running:
            await self._start(network)
        running = chance.choice(self._running)
        process, what = running.process, chance.random()
        lease = self._lease.total_seconds()
        if what < 0.55:
            kind = chance.choice(self._repertoire.commands)
            job_id = chance.choice(IDS[: chance.choice((1, 2, 4))])
            network.tasks.start_soon(self._command, running, kind, job_id)
        elif what < 0.65:
            await self._kill(running)
        elif what < 0.72 and len(self._running) > 1:
            grace = chance.choice((0.0, 0.2, 5.0))
            network.tasks.start_soon(self._stop, running, grace)
            await anyio.sleep(0.001)
        elif what < 0.80:
            self._observer.harmed.add(process.worker)
            self._observer.noted(process, "is suspended")
            process.stop()
            network.tasks.start_soon(self._later, chance.random() * 2 * lease, process.go_on)
        elif what < 0.88:
            self._observer.harmed.add(process.worker)
            self._observer.noted(process, "is cut off")
            process.cut = True
            network.tasks.start_soon(self._later, chance.random() * 2 * lease, process.heal)
        elif what < 0.94:
            by = chance.choice((1, lease / 2, lease + 1, 60, 3600)) * S
            self._observer.noted(None, "the clock is set forward by", by)
            self._clock.step(by)
            self._observer.harmed.add("")
            self._calm = CALM_SECONDS + 2 * AFTER_STEP.total_seconds()
        else:
            await self._start(network)

    async def _later(self, seconds: float, act: Callable[[], None]) -> None:
        await anyio.sleep(seconds)
        act()

    async def _end(self, network: Network) -> None:
        if self.outcome.finding:
            return
        self._quiet, network.weather = True, CALM
        for running in self._running:
            running.process.go_on()
            running.process.heal()
        if not self._running:
            await self._start(network)
        self._observer.noted(None, "everything is well from now on")
        await anyio.sleep(self._calm + self._lease.total_seconds())
        self._expect_none_forgotten()
        for running in list(self._running):
            await self._stop(running, 20.0)
        last = await self._start_last(network)
        for job_id, job in sorted(self._observer.jobs().items()):
            if job.standing.pause is not None:
                token = commanded.set(Command("resume"))
                await last.resume_job(job_id)
                commanded.reset(token)
        moment = await self._drain(last)
        await last.__aexit__(None, None, None)
        with self._observer.judging():
            history = [each for _, each in self._store.history if isinstance(each, Execution)]
            self._oracle.read(history, list(self._observer.jobs().values()), self._clock.now())
            self._oracle.expect_nothing_left(moment)
            self._oracle.accounting.account(moment)

    async def _drain(self, last: Scheduler) -> datetime:
        """Run what is due until nothing that has begun waits; return when the last look began."""
        for _ in range(MOST_RUNS):
            moment = self._clock.now()
            await last.run_due()
            begun = [
                job.standing.due_at
                for job in self._observer.jobs().values()
                for one in pendings(job.standing)
                if job.standing.due_at is not None
                and (one.began_at is not None or not one.is_scheduled)
            ]
            if not begun:
                return moment
            wait = (min(begun) - self._clock.now()).total_seconds()
            await anyio.sleep(max(wait, 0.001))
        self._observer.found("it does not come to rest")
        return self._clock.now()

    async def _start_last(self, network: Network) -> Scheduler:
        process = SimulatedProcess("end")
        inner = self._setup.backend(self._store, self._lease)

        async def handle(event: JobEvent) -> None:
            await self._handle(running, event)

        scheduler = self._setup.scheduler(
            remote(inner, process, network),
            handler=handle,
            clock=ProcessClock(self._clock, process),
            worker="end",
            new_id=lambda: f"{next(self._ids):03}",
        )
        running = _Running(process, scheduler, inner)
        return await scheduler.__aenter__()

    def _expect_none_forgotten(self) -> None:
        now = self._clock.now()
        for job_id, row in self._store.rows.items():
            due = row.due()
            if due is not None and due < now - LATE:
                late = f"job {job_id!r} is due since {now - due}"
                self._observer.found(f"{late}, and no worker takes it")


def play(seed: int, setup: Setup | None = None) -> Outcome:
    """Play the history of a seed: it is the same one in every process and on every machine."""
    return SimulatedHistory(seed, Setup() if setup is None else setup).play()


__all__ = ["Outcome", "Setup", "SimulatedHistory", "play"]
