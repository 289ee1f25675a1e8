"""One history: several real schedulers on one simulated store, everything decided by a seed."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime, timedelta
from random import Random
from typing import Any

import anyio
import anyio.abc
from attrs import define, field, frozen

from sched_core import (
    Backend,
    BackendError,
    CatchUp,
    Coalesce,
    Cron,
    Drop,
    Execution,
    FixedDelay,
    Interval,
    InvalidDefinition,
    JobAlreadyExists,
    JobEvent,
    JobNotFound,
    JobSpec,
    MemoryBackend,
    NothingToSkip,
    Once,
    Policy,
    Retry,
    Schedule,
    Scheduler,
)
from sched_core._runtime.loop import AFTER_STEP
from sched_core.memory import MemoryStore
from sched_testkit._oracle.attempts import Call, CallState
from sched_testkit._oracle.narration import describe, show
from sched_testkit._oracle.violation import Violation
from sched_testkit._stories.entry import pendings
from sched_testkit._suite.bench import START
from sched_testkit.simulation.account import Account, Command, Outcome, commanded
from sched_testkit.simulation.clock import Process, ProcessClock, SimulatedClock
from sched_testkit.simulation.loop import SimulatedLoop, Stuck
from sched_testkit.simulation.network import CALM, Network, Weather, remote

S = timedelta(seconds=1)
IDS = ("a", "b", "c", "d")
CALM_SECONDS = 12.0
"""How long everything is well at the end: longer than every back-off and poll."""
MOST_RUNS = 100
LATE = 7 * S
"""What is due longer than that at the end of the calm, and unclaimed, was forgotten."""

logger = logging.getLogger("sched_core")


class Planned(Exception):
    """A handler was told to fail."""


@frozen
class Setup:
    """What is simulated; a fault is planted by exchanging one of the parts.

    Attributes:
        backend: Makes a backend on the shared store with this lease.
        scheduler: Makes a scheduler; called like :class:`~sched_core.Scheduler`.
        store: Makes the shared store.
    """

    backend: Callable[[MemoryStore, timedelta], Backend] = lambda store, lease: MemoryBackend(
        store, lease=lease
    )
    scheduler: Callable[..., Scheduler] = Scheduler
    store: Callable[[], MemoryStore] = MemoryStore


@define
class _Running:
    process: Process
    scheduler: Scheduler
    inner: Backend
    scope: anyio.CancelScope = field(factory=anyio.CancelScope)
    ended: anyio.Event = field(factory=anyio.Event)


class World:
    """The stage of one history."""

    def __init__(self, seed: int, setup: Setup) -> None:
        self._setup = setup
        self._chance = chance = Random(seed)
        self._loop = SimulatedLoop(Random(chance.random()))  # type: ignore[abstract]  # only what is used
        self._clock = SimulatedClock(self._loop)
        self._store = setup.store()
        self._account = Account(seed, self._loop, self._clock, self._store)
        self.outcome, self._oracle = self._account.outcome, self._account.oracle
        self._running: list[_Running] = []
        self._names, self._ids = itertools.count(1), itertools.count(1)
        self._lease = chance.choice((2, 4, 8)) * S
        self._quiet = False
        self._calm = CALM_SECONDS

    # -- processes

    async def _start(self, network: Network) -> _Running:
        process = Process(f"p{next(self._names)}")
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
        self._account.noted(process, "starts")
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
                self._account.found(f"the scheduler of {process.name} failed: {error!r}")
            if not isinstance(error, Exception):
                raise
        finally:
            opened.set()
            running.ended.set()

    async def _kill(self, running: _Running) -> None:
        self._account.harmed.add(running.process.worker)
        self._account.noted(running.process, "is killed")
        running.process.kill()
        self._oracle.attempts.killed(running.process.worker)
        self._running.remove(running)
        running.scope.cancel()

    async def _stop(self, running: _Running, grace: float) -> None:
        if running not in self._running:
            return  # it was killed or stopped before this had its turn
        self._account.noted(running.process, "is stopped, grace", grace)
        self._running.remove(running)
        calm = self._quiet
        await running.scheduler.stop(grace)
        await running.ended.wait()
        self._account.noted(running.process, "has ended")
        for hold in self._oracle.claims.holds.values():
            mine = hold.claim.worker == running.process.worker
            if mine and hold.open and calm and hold.stored.expires_at > self._clock.now():
                self._account.found(
                    f"{running.process.name} has ended, and holds {hold.claim.job.id!r}"
                )

    # -- handlers

    async def _handle(self, running: _Running, event: JobEvent) -> None:
        process = running.process
        if process.dead:
            raise BackendError("the process is dead")
        self.outcome.runs += 1
        call = self._called(event)
        self._account.noted(process, "runs", f"{event.id} {event.key} attempt {event.attempt}")
        end = CallState.CANCELLED
        try:
            if not self._quiet:
                await self._act(running, event)
            if self._planned_to_fail():
                end = CallState.FAILED
                raise Planned("as planned")
            end = CallState.SUCCEEDED
        finally:
            if call is not None and not running.process.dead:
                self._account.noted(process, end, event.key)
                self._oracle.attempts.ended(call, end, self._clock.now())

    def _called(self, event: JobEvent) -> Call | None:
        try:
            return self._oracle.attempts.called(event, self._clock.now())
        except Violation as wrong:
            self._account.found(str(wrong))
            return None

    def _planned_to_fail(self) -> bool:
        return not self._quiet and self._chance.random() < 0.25

    async def _act(self, running: _Running, event: JobEvent) -> None:
        chance, process = self._chance, running.process
        lease = self._lease.total_seconds()
        lasts = chance.choice((0.0, 0.0, 0.01, 0.3, 0.3, lease / 2, lease * 1.5))
        clock = ProcessClock(self._clock, process)
        if lasts and not self._quiet:
            await clock.sleep_until(clock.now() + lasts * S)
        what = chance.random()
        if what < 0.15:
            await self._commanded(running, chance.choice(COMMANDS), event.id)
        elif what < 0.18 and not process.dead and not self._quiet:
            await self._kill(running)
            await anyio.sleep_forever()

    # -- commands

    async def _commanded(self, running: _Running, kind: str, job_id: str) -> None:
        process, chance = running.process, self._chance
        scheduler, now = running.scheduler, self._clock.now()
        schedule, policy = self._schedule(), POLICIES[chance.choice(tuple(POLICIES))]
        changes: dict[str, Any] = {}
        until: datetime | None = None
        if kind == "ensure":
            changes = {"schedule": schedule, "policy": policy, "metadata": {}, "name": None}
        elif kind == "update":
            changes = chance.choice(
                (
                    {"schedule": schedule},
                    {"policy": policy},
                    {"metadata": {"n": str(chance.randrange(3))}},
                )
            )
        elif kind == "pause" and chance.random() < 0.5:
            until = now + chance.choice((1, 5, 15)) * S
        said = ", ".join(f"{name} = {show(value)}" for name, value in changes.items() if value)
        self._account.noted(process, f"{kind} {job_id!r}", said)
        token = commanded.set(Command(kind, changes, until))
        try:
            if kind == "submit":
                spec = JobSpec(job_id, schedule, policy=policy)
                self._account.noted(process, "submit", describe(spec))
                await scheduler.submit_job(job_id, schedule, policy=policy)
            elif kind == "ensure":
                await scheduler.ensure_job(job_id, schedule, policy=policy)
            elif kind == "update":
                await scheduler.update_job(job_id, **changes)
            elif kind == "remove":
                await scheduler.remove_job(job_id)
            elif kind == "pause":
                await scheduler.pause_job(job_id, until=until)
            elif kind == "resume":
                await scheduler.resume_job(job_id)
            elif kind == "trigger":
                await scheduler.trigger_job(job_id)
            elif kind == "skip":
                await scheduler.skip_next(job_id)
            else:
                await scheduler.unskip(job_id)
        except (
            JobNotFound,
            JobAlreadyExists,
            NothingToSkip,
            InvalidDefinition,
            BackendError,
        ) as no:
            self._account.noted(process, f"{kind} {job_id!r}:", f"{type(no).__name__} {no}")
        finally:
            commanded.reset(token)

    async def _command(self, running: _Running, kind: str, job_id: str) -> None:
        with suppress(Exception):
            await self._commanded(running, kind, job_id)

    def _schedule(self) -> Schedule:
        name = self._chance.choice(tuple(SCHEDULES))
        schedule = SCHEDULES[name]
        if isinstance(schedule, timedelta):
            return Once(self._clock.now() + schedule)
        return schedule

    # -- the history

    def play(self) -> Outcome:
        """Play it and judge it."""
        disabled, logger.disabled = logger.disabled, True
        try:
            self._loop.run_until_complete(self._main())
        except Stuck as stuck:
            self._account.found(f"the schedulers hang: {stuck}")
        finally:
            logger.disabled = disabled
        for problem in self._loop.problems:
            self._account.found(
                f"in the event loop: {problem.get('message')} {problem.get('exception')!r}"
            )
        self.outcome.turns = self._loop.turns
        return self.outcome

    async def _main(self) -> None:
        async with anyio.create_task_group() as tasks:
            network = Network(self._clock, self._chance, self._account, tasks)
            for _ in range(self._chance.choice((1, 2, 2, 3))):
                await self._start(network)
            await self._commanded(self._running[0], "submit", "a")
            network.weather = self._weather()
            if network.weather is not CALM:
                self._account.harmed.add("")
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
            kind, job_id = chance.choice(COMMANDS), chance.choice(IDS[: chance.choice((1, 2, 4))])
            network.tasks.start_soon(self._command, running, kind, job_id)
        elif what < 0.65:
            await self._kill(running)
        elif what < 0.72 and len(self._running) > 1:
            grace = chance.choice((0.0, 0.2, 5.0))
            network.tasks.start_soon(self._stop, running, grace)
            await anyio.sleep(0.001)
        elif what < 0.80:
            self._account.harmed.add(process.worker)
            self._account.noted(process, "is suspended")
            process.stop()
            network.tasks.start_soon(self._later, chance.random() * 2 * lease, process.go_on)
        elif what < 0.88:
            self._account.harmed.add(process.worker)
            self._account.noted(process, "is cut off")
            process.cut = True
            network.tasks.start_soon(self._later, chance.random() * 2 * lease, process.heal)
        elif what < 0.94:
            by = chance.choice((1, lease / 2, lease + 1, 60, 3600)) * S
            self._account.noted(None, "the clock is set forward by", by)
            self._clock.step(by)
            self._account.harmed.add("")
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
        self._account.noted(None, "everything is well from now on")
        await anyio.sleep(self._calm + self._lease.total_seconds())
        self._forgotten()
        for running in list(self._running):
            await self._stop(running, 20.0)
        last = await self._start_last(network)
        for job_id, job in sorted(self._account.jobs().items()):
            if job.standing.pause is not None:
                token = commanded.set(Command("resume"))
                await last.resume_job(job_id)
                commanded.reset(token)
        moment = await self._drain(last)
        await last.__aexit__(None, None, None)
        with self._account.judging():
            history = [each for _, each in self._store.history if isinstance(each, Execution)]
            self._oracle.read(history, list(self._account.jobs().values()), self._clock.now())
            self._oracle.expect_nothing_left(moment)
            self._oracle.accounting.account(moment)

    async def _drain(self, last: Scheduler) -> datetime:
        """Run what is due until nothing that has begun waits; return when the last look began."""
        for _ in range(MOST_RUNS):
            moment = self._clock.now()
            await last.run_due()
            begun = [
                job.standing.due_at
                for job in self._account.jobs().values()
                for one in pendings(job.standing)
                if job.standing.due_at is not None
                and (one.began_at is not None or not one.is_scheduled)
            ]
            if not begun:
                return moment
            wait = (min(begun) - self._clock.now()).total_seconds()
            await anyio.sleep(max(wait, 0.001))
        self._account.found("it does not come to rest")
        return self._clock.now()

    async def _start_last(self, network: Network) -> Scheduler:
        process = Process("end")
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

    def _forgotten(self) -> None:
        now = self._clock.now()
        for job_id, row in self._store.rows.items():
            due = row.due()
            if due is not None and due < now - LATE:
                self._account.found(f"job {job_id!r} is due since {now - due}, and nobody takes it")


COMMANDS = (
    "submit",
    "submit",
    "ensure",
    "ensure",
    "update",
    "update",
    "remove",
    "pause",
    "resume",
    "trigger",
    "skip",
    "unskip",
)
SCHEDULES: dict[str, Schedule | timedelta] = {
    "every 2 s": Interval(seconds=2),
    "every 7 s": Interval(seconds=7),
    "every minute": Interval(seconds=60),
    "once now": 0 * S,
    "once in 3 s": 3 * S,
    "3 s after each run": FixedDelay(seconds=3),
    "cron": Cron("* * * * *"),
}
POLICIES = {
    "default": Policy(),
    "3 attempts": Policy(retry=Retry(3, 1 * S)),
    "2 attempts, slowly": Policy(retry=Retry(2, 10 * S)),
    "skip what passes": Policy(overlap="skip"),
    "paused after 2 failures": Policy(pause_after=2),
    "run all": Policy(misfire=CatchUp(3, 30 * S)),
    "run all, 2 attempts": Policy(misfire=CatchUp(2, 100 * S), retry=Retry(2, 2 * S)),
    "drop after 3 s": Policy(misfire=Drop(3 * S)),
    "drop at once, lost twice": Policy(misfire=Drop(S / 1000), max_lost=2),
    "lost once, kept 10 s": Policy(misfire=Coalesce(), max_lost=1, keep_finished=10 * S),
    "1 s at most": Policy(timeout=1 * S),
    "1 s at most, 2 attempts": Policy(timeout=1 * S, retry=Retry(2, 1 * S)),
}


def play(seed: int, setup: Setup | None = None) -> Outcome:
    """Play the history of a seed: the same one, whenever and wherever."""
    return World(seed, Setup() if setup is None else setup).play()


__all__ = ["POLICIES", "SCHEDULES", "START", "Outcome", "Setup", "World", "play"]
