"""The steps of a history that people cause: processes start and end, commands, time.

Every step adds a sentence to the story, and gives the oracle the facts.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import Any, cast

import anyio
import anyio.from_thread
import anyio.lowlevel
from attrs import define, evolve, field

from sched_core import (
    Backend,
    InvalidDefinition,
    Job,
    JobEvent,
    JobSpec,
    NothingToSkip,
    Scheduler,
)
from sched_core.testing import FakeClock
from sched_testkit._histories.spy import SpyBackend
from sched_testkit._oracle.attempts import CallState
from sched_testkit._oracle.narration import describe, seconds, show
from sched_testkit._oracle.oracle import Oracle
from sched_testkit._oracle.violation import Violation
from sched_testkit._suite.bench import START
from sched_testkit.harness import Harness

FARTHEST_BACK = timedelta(seconds=3000)
"""A clock that was ahead by an hour or more was wrong: what ran then may run again."""
MOST_REQUESTS = 16
"""The number of requests that may wait in one job."""


@define
class SchedulerProcess:
    """A worker process: a scheduler on a backend of its own."""

    name: str
    spy: SpyBackend
    scheduler: Scheduler
    plain: bool = False
    """Whether its handler is a function that runs in a thread."""
    cancelled_means: CallState = CallState.LOST
    turn: anyio.Lock = field(factory=anyio.Lock)
    """Handlers act one after the other, so that a history repeats exactly."""


@define(frozen=True)
class HandlerAction:
    """What a handler does when it is called, and whether it then fails."""

    does: str = "nothing"
    fails: bool = False


class Commands:
    """Two schedulers on one place, and what people ask of them.

    Args:
        harness: The harness of the backend.
        place: A fresh place of the harness.
    """

    def __init__(self, harness: Harness, place: Any) -> None:
        self.harness, self.place = harness, place
        self.clock = FakeClock(START)
        self.oracle = Oracle()
        self.story: list[str] = []
        self.processes: list[SchedulerProcess] = []
        self.ids: set[str] = set()
        self.verdicts: list[BaseException] = []
        self.acts: list[HandlerAction] = []
        self._names, self._new_ids = itertools.count(1), itertools.count(1)
        self.reached, self.gate = anyio.Event(), anyio.Event()
        self.hanging: JobEvent | None = None
        self.deaf = False
        self.lease = timedelta(0)

    # -- the story

    def tell(self, what: str) -> None:
        """Add a sentence to the story."""
        self.story.append(f"at +{seconds(self.clock.now() - START)}: {what}")

    def narration(self) -> str:
        """Return the story as a numbered list."""
        return "\n".join(f"{index:3}. {line}" for index, line in enumerate(self.story, 1))

    @contextmanager
    def noting(self) -> Iterator[None]:
        """Keep the oracle's objection where a scheduler would take it for a failure."""
        try:
            yield
        except Exception as error:  # noqa: BLE001 -- raised at the end of the step
            self.verdicts.append(error)

    # -- processes

    async def start(self) -> None:
        """Start two processes."""
        self.processes = [await self._open(), await self._open()]
        self.lease = self.processes[0].spy.inner.capabilities.lease

    async def _open(self, *, plain: bool = False) -> SchedulerProcess:
        name = f"worker {next(self._names)}"
        spy = SpyBackend(self.harness.backend(self.place), self.oracle, self.noting)

        async def handle(event: JobEvent) -> None:
            await self._handle(process, event)

        def handle_plainly(event: JobEvent) -> None:
            anyio.from_thread.run(self._handle, process, event)

        scheduler = Scheduler(
            cast("Backend", spy),
            handler=handle_plainly if plain else handle,
            clock=self.clock,
            worker=name,
            # Threads take turns as they please: one at a time, so that a history repeats exactly.
            max_concurrency=1 if plain else 3,
            new_id=lambda: f"{next(self._new_ids):04}",
        )
        process = SchedulerProcess(name, spy, scheduler, plain)
        await scheduler.__aenter__()
        return process

    async def close(self) -> None:
        """Close every process."""
        for process in self.processes:
            await process.scheduler.__aexit__(None, None, None)

    async def restart(self, index: int, *, plain: bool = False) -> None:
        """Close a process in order, and start another one."""
        old = self.processes[index]
        await old.scheduler.__aexit__(None, None, None)
        self.processes[index] = new = await self._open(plain=plain)
        threads = ", whose handler is a plain function" if plain else ""
        self.tell(f"{old.name} ends, {new.name} starts{threads}")

    async def replace_dead(self, index: int) -> None:
        """Start another process in the place of one that died."""
        old = self.processes[index]
        await self.harness.crash(old.spy.inner)
        self.processes[index] = await self._open()
        self.tell(f"{old.name} is dead, {self.processes[index].name} starts")

    # -- commands

    async def sync(self) -> None:
        """Have the oracle read the history: a command or a run comes after what was written."""
        raise NotImplementedError

    async def _before(self, job_id: str) -> Job:
        """Return a job as it is read before a command."""
        await self.sync()
        job = await self.processes[0].spy.inner.get(job_id)
        if not isinstance(job, Job):
            raise Violation(f"job {job_id!r} cannot be read: {job!r}")
        return job

    async def submit(self, index: int, spec: JobSpec, *, declared: bool) -> None:
        """Submit or declare a job whose id is free."""
        scheduler, now = self.processes[index].scheduler, self.clock.now()
        add = scheduler.ensure_job if declared else scheduler.submit_job
        self.tell(f"{'ensure' if declared else 'submit'} {describe(spec)}")
        self.ids.add(spec.id)
        job = await add(spec.id, spec.schedule, metadata=spec.metadata, policy=spec.policy)
        self.oracle.commands.added(job, spec, declared=declared, now=now)

    async def ensure(self, index: int, spec: JobSpec) -> None:
        """Declare a job that exists."""
        known = self.oracle.known.current[spec.id]
        same = " as it is" if known.spec == spec else ""
        self.tell(f"ensure {describe(spec)}{same}")
        before = await self._before(spec.id)
        job = await self.processes[index].scheduler.ensure_job(
            spec.id, spec.schedule, metadata=spec.metadata, policy=spec.policy
        )
        self.oracle.commands.redefined(before, job, spec, declared=True, now=self.clock.now())

    async def update(self, index: int, job_id: str, **changes: Any) -> None:
        """Change a part of a job."""
        before = await self._before(job_id)
        spec = evolve(before.spec, **changes)
        what = ", ".join(f"{name} = {show(value)}" for name, value in changes.items())
        self.tell(f"update {job_id!r}: {what}")
        job = await self.processes[index].scheduler.update_job(job_id, **changes)
        self.oracle.commands.redefined(before, job, spec, now=self.clock.now())

    async def remove(self, index: int, job_id: str) -> None:
        """Remove a job."""
        self.tell(f"remove {job_id!r}")
        before = await self._before(job_id)
        await self.processes[index].scheduler.remove_job(job_id)
        self.oracle.commands.removed(before, self.clock.now())

    async def pause(self, index: int, job_id: str, lasts: timedelta | None) -> None:
        """Pause a job."""
        until = None if lasts is None else self.clock.now() + lasts
        self.tell(f"pause {job_id!r}" + (f" for {seconds(lasts)}" if lasts else ""))
        before = await self._before(job_id)
        job = await self.processes[index].scheduler.pause_job(job_id, until=until)
        self.oracle.commands.paused(before, job, until, self.clock.now())

    async def trigger(self, index: int, job_id: str) -> None:
        """Trigger a job."""
        self.tell(f"trigger {job_id!r}")
        before = await self._before(job_id)
        read_at = self.oracle.known.seq
        try:
            key = await self.processes[index].scheduler.trigger_job(job_id)
        except InvalidDefinition:
            if len(before.standing.requests) < MOST_REQUESTS:
                raise
            self.tell("so many wait already")
            return
        self.oracle.commands.triggered(before, key, read_at)

    async def operate(self, index: int, what: str, job_id: str) -> None:
        """Resume, trigger, skip the next occurrence of, or unskip a job."""
        scheduler, oracle = self.processes[index].scheduler, self.oracle
        if what == "trigger":
            await self.trigger(index, job_id)
            return
        self.tell(f"{what} {job_id!r}")
        await self._before(job_id)
        now = self.clock.now()
        if what == "resume":
            oracle.commands.resumed(await scheduler.resume_job(job_id), now)
        elif what == "unskip":
            oracle.commands.unskipped(await scheduler.unskip(job_id), now)
        else:
            try:
                oracle.commands.skipped(await scheduler.skip_next(job_id), now)
            except NothingToSkip:
                self.tell("there is nothing to skip")

    async def prune(self, index: int, age: timedelta) -> None:
        """Prune the history."""
        before = self.clock.now() - age
        self.tell(f"prune what ended more than {seconds(age)} ago")
        await self.processes[index].scheduler.prune(before)
        await self.look(pruned=before)

    async def advance(self, by: timedelta) -> None:
        """Let time pass."""
        self.clock.advance(by)
        for process in self.processes:
            await self.harness.catch_up(process.spy.inner)

    async def set_back(self, by: timedelta) -> None:
        """Set the clock back, but not so far that schedulers ignore what it showed before."""
        await self.sync()
        now = self.clock.now()
        if max(self.oracle.stored.latest or now, now) - (now - by) > FARTHEST_BACK:
            return
        self.clock.jump(-by)
        self.oracle.known.set_back = True
        new = self.clock.now()
        self.story.append(f"at +{seconds(new - START)}: the clock was set back by {seconds(by)}")
        for process in self.processes:
            await self.harness.catch_up(process.spy.inner)

    async def look(self, pruned: datetime | None = None) -> None:
        """Have the oracle judge everything that is stored."""
        raise NotImplementedError

    async def _handle(self, process: SchedulerProcess, event: JobEvent) -> None:
        raise NotImplementedError
