"""The stage of a history: one place, one clock, one oracle, and the processes that live now."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import Any, cast

import anyio
import anyio.from_thread
import anyio.lowlevel
from attrs import define, field

from sched_core import (
    Backend,
    Execution,
    ExecutionQuery,
    Job,
    JobEvent,
    JobQuery,
    Scheduler,
    Undecodable,
)
from sched_core.testing import FakeClock
from sched_testkit._histories.spy import SpyBackend
from sched_testkit._oracle.calls import CallState
from sched_testkit._oracle.narration import seconds
from sched_testkit._oracle.oracle import Oracle
from sched_testkit._oracle.violation import Violation
from sched_testkit._suite.bench import START, onward
from sched_testkit.harness import Harness

HandlerOf = Callable[["SchedulerProcess", JobEvent], Coroutine[Any, Any, None]]
"""A function that acts as the handler of a process."""
FARTHEST_BACK = timedelta(seconds=3000)
"""A clock that was ahead by an hour or more was wrong: what ran then may run again."""


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


class Stage:
    """Everything that the steps of a history share.

    Args:
        harness: The harness of the backend.
        place: A fresh place of the harness.

    Attributes:
        story: The sentences of the story so far.
        processes: The two processes that live now.
        ids: The ids of all jobs that ever were.
        verdicts: The oracle's objections where a scheduler would take them for failures.
        lease: The lease of the backend.
    """

    def __init__(self, harness: Harness, place: Any) -> None:
        self.harness, self.place = harness, place
        self.clock = FakeClock(START)
        self.oracle = Oracle()
        self.story: list[str] = []
        self.processes: list[SchedulerProcess] = []
        self.ids: set[str] = set()
        self.verdicts: list[BaseException] = []
        self.lease = timedelta(0)
        self._names, self._new_ids = itertools.count(1), itertools.count(1)
        self._handler: HandlerOf = _no_handler

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

    async def start(self, handler: HandlerOf) -> None:
        """Start two processes, whose calls of the handler go to this function."""
        self._handler = handler
        self.processes = [await self._open(), await self._open()]
        self.lease = self.processes[0].spy.inner.capabilities.lease

    async def _open(self, *, plain: bool = False) -> SchedulerProcess:
        name = f"worker {next(self._names)}"
        spy = SpyBackend(self.harness.backend(self.place), self.oracle, self.noting)

        async def handle(event: JobEvent) -> None:
            await self._handler(process, event)

        def handle_plainly(event: JobEvent) -> None:
            anyio.from_thread.run(self._handler, process, event)

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

    # -- time

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

    # -- the oracle

    async def look(self, pruned: datetime | None = None) -> None:
        """Have the oracle judge what is stored."""
        if self.verdicts:
            raise self.verdicts[0]
        backend = self.processes[0].spy.inner
        jobs: list[Job | Undecodable] = list(await _all(backend.jobs, JobQuery()))
        known = [job for job in jobs if isinstance(job, Job)]
        self.oracle.read(await self._history(), known, self.clock.now(), pruned)

    async def sync(self) -> None:
        """Have the oracle read what was written: a command or a run comes after that."""
        self.oracle.executions.read(await self._history(), self.clock.now())

    async def _history(self) -> list[Execution]:
        backend = self.processes[0].spy.inner
        history: list[Execution] = []
        for job_id in sorted(self.ids):
            found = list(await _all(backend.executions, ExecutionQuery(job_id=job_id)))
            unreadable = [each for each in found if not isinstance(each, Execution)]
            if unreadable:
                raise Violation(f"records of {job_id!r} cannot be read: {unreadable}")
            history += reversed(found)
        return history


async def _no_handler(process: SchedulerProcess, event: JobEvent) -> None:
    raise AssertionError("a handler was called before the stage has started")


async def _all(pages: Any, query: Any) -> list[Any]:
    found, after = [], None
    seen: set[str] = set()
    while True:
        page = await pages(query, after=after, limit=500)
        found += page.items
        if (after := onward(page, seen)) is None:
            return found
