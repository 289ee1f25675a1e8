"""Runs histories: one place, one clock, two real schedulers, one oracle.

Handlers act while they run, and processes have mishaps. The oracle judges every step.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import anyio
import anyio.from_thread
import anyio.lowlevel

from sched_core import (
    BackendError,
)
from sched_testkit._histories.commands import Commands
from sched_testkit._histories.handlers import HandlerAction, Handlers
from sched_testkit._histories.spy import SpyBackend
from sched_testkit._histories.stage import SchedulerProcess, Stage
from sched_testkit._oracle.calls import CallState
from sched_testkit._oracle.violation import Violation
from sched_testkit._stories.entry import pendings
from sched_testkit.harness import Harness

MOMENT = timedelta(milliseconds=1)
REST = timedelta(hours=2)
"""The time after which every retry of a history has been made."""
MOST_RUNS = 200
PATIENCE = 10
"""Real seconds after which something that must happen in no time has not happened."""


class Driver:
    """Lets a history happen step by step.

    Args:
        harness: The harness of the backend.
        place: A fresh place of the harness.

    Attributes:
        stage: The clock, the oracle, the story and the processes.
        commands: The commands that people give.
        handlers: What handlers do.
    """

    def __init__(self, harness: Harness, place: Any) -> None:
        self.stage = Stage(harness, place)
        self.commands = Commands(self.stage)
        self.handlers = Handlers(self.stage, self.commands)

    async def start(self) -> None:
        """Start two processes."""
        await self.stage.start(self.handlers.handle)

    # -- running

    async def run(self, index: int, acts: Sequence[HandlerAction] = ()) -> None:
        """Run what is due on a healthy process: afterwards, nothing may be left."""
        process, moment = self.stage.processes[index], self.stage.clock.now()
        for each in self.stage.processes:
            await each.spy.at_rest()
        # One that hangs may have written before it did: this one goes on from there.
        await self.stage.sync()
        self.handlers.actions = list(acts)
        before = len(self.stage.story)
        await process.scheduler.run_due()
        self.handlers.actions = []
        if len(self.stage.story) == before:
            self.stage.tell(f"{process.name} finds nothing to run")
        for each in self.stage.processes:
            await each.spy.at_rest()
        await self.stage.look()
        self.stage.oracle.expect_nothing_left(moment)

    async def rest(self) -> None:
        """Let one healthy process run everything to its end, and have the oracle account for it."""
        with anyio.fail_after(PATIENCE):
            for each in self.stage.processes:
                await each.spy.at_rest()
        self.stage.tell("all is to come to its end")
        now = self.stage.clock.now()
        await self.stage.advance(
            max(self.stage.oracle.stored.latest or now, now) - now + 2 * self.stage.lease
        )
        await self._drain()
        for job_id, job in sorted(self.stage.oracle.stored.jobs.items()):
            if job.standing.pause is not None:
                self.stage.oracle.accounting.expect_ends_in_pause(job.uid, self.stage.clock.now())
                await self.commands.operate(1, "resume", job_id)
        await self.stage.advance(REST)
        await self._drain()
        self.stage.oracle.accounting.account(self.stage.clock.now())

    async def _drain(self) -> None:
        """Run what is due, until all that waits for a retry has had it."""
        for _ in range(MOST_RUNS):
            await self.run(1)
            begun = [
                one.due_at
                for job in self.stage.oracle.stored.jobs.values()
                for one in pendings(job.standing)
                if (one.began_at is not None or not one.is_scheduled)
                and job.standing.due_at == one.due_at
            ]
            if not begun:
                return
            await self.stage.advance(max(min(begun) - self.stage.clock.now(), MOMENT))
        raise Violation("it does not come to rest")

    # -- mishaps

    async def mishap(self, index: int, kind: str) -> None:
        """Run what is due on a process that has a mishap during the run."""
        if kind in {"claimed", "settling", "settled", "die"}:
            await self._die(index, kind)
        else:
            await self._hang(index, kind)
        await self.stage.look()

    async def _die(self, index: int, kind: str) -> None:
        process = self.stage.processes[index]
        self.handlers.actions = [HandlerAction("die")] if kind == "die" else []
        process.spy.crash_at = None if kind == "die" else kind
        try:
            await process.scheduler.run_due()
        except BackendError:
            if not process.spy.dead:
                raise
        self.handlers.actions = []
        process.spy.crash_at = None
        if process.spy.dead:
            when = {"claimed": "right after a claim", "die": "in its handler"}
            self.stage.tell(f"{process.name} dies {when.get(kind, f'when {kind}')}")
            await self.stage.replace_dead(index)

    async def _hang(self, index: int, kind: str) -> None:
        process, other = self.stage.processes[index], self.stage.processes[1 - index]
        self.handlers.hang_next(deaf=kind == "deaf")
        process.cancelled_means = CallState.INTERRUPTED if kind == "stopped" else CallState.LOST
        done, scope = anyio.Event(), anyio.CancelScope()

        async def work() -> None:
            try:
                with scope:
                    await process.scheduler.run_due()
            except BackendError:
                if not process.spy.is_cut_off:
                    raise
            finally:
                done.set()
                self.handlers.reached.set()

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(work)
            await self.handlers.reached.wait()
            self.handlers.actions = []
            try:
                if not done.is_set():
                    kind = self._possible(kind, process)
                    with anyio.fail_after(PATIENCE):
                        await self._while_it_hangs(kind, process, other, done, scope)
            except TimeoutError:
                raise Violation(f"{process.name}: nothing happens, though it is {kind}") from None
            finally:
                self.handlers.gate.set()  # or a handler that does not stop would never end
        process.cancelled_means, self.handlers.deaf = CallState.LOST, False

    def _possible(self, kind: str, process: SchedulerProcess) -> str:
        """Return what can happen to the handler that hangs."""
        timeout = self._timeout()
        if process.plain:
            return "slow" if timeout is None else "deaf"  # a thread cannot be stopped
        if kind in {"timed out", "deaf"}:
            return "slow" if timeout is None else kind
        return kind if timeout is None or kind == "stopped" else "timed out"

    def _timeout(self) -> timedelta | None:
        assert self.handlers.hanging is not None
        spec = self.stage.oracle.known.current[self.handlers.hanging.id].spec
        return None if spec is None else spec.policy.timeout

    async def _while_it_hangs(
        self,
        kind: str,
        process: SchedulerProcess,
        other: SchedulerProcess,
        done: anyio.Event,
        scope: Any,
    ) -> None:
        spy, second = process.spy, self.stage.processes.index(other)
        if kind == "stopped":
            self.stage.tell(f"{process.name} is stopped")
            scope.cancel()
            await done.wait()
        elif kind == "cut off":
            spy.is_cut_off = True
            await self.stage.advance(self.stage.lease + timedelta(seconds=1))
            self.stage.tell(f"{process.name} has not reached the store for a lease")
            await done.wait()
            spy.is_cut_off = False
            await self.run(second)
        elif kind == "suspended":
            spy.renewals_hang_until = anyio.Event()
            await self.stage.advance(self.stage.lease + timedelta(seconds=1))
            self.stage.tell(f"{process.name} was suspended for a lease")
            await self.run(second)
            self.handlers.gate.set()
            spy.renewals_hang_until.set()
            spy.renewals_hang_until = None
            await done.wait()
        elif kind == "slow":
            await self._renews(spy)
            self.stage.tell(f"{process.name} is slow, and renews")
            await self.run(second)
            self.handlers.gate.set()
            await done.wait()
        elif kind in {"timed out", "deaf"}:
            await self._time_is_up(process)
            if kind == "deaf":
                await self._renews(spy)
                self.stage.tell(f"{process.name} does not stop, and renews")
                await self.run(second)
                self.handlers.gate.set()
            await done.wait()

    async def _renews(self, spy: SpyBackend) -> None:
        for _ in range(3):
            seen = spy.renewals
            await self.stage.advance(self.stage.lease * 2 / 3)
            while spy.renewals == seen:
                await anyio.lowlevel.checkpoint()

    async def _time_is_up(self, process: SchedulerProcess) -> None:
        """Let the time of the handler that hangs run out: it learns so then, and not before."""
        event, timeout = self.handlers.hanging, self._timeout()
        assert event is not None
        assert timeout is not None
        process.cancelled_means = CallState.FAILED
        left = event.started_at + timeout - self.stage.clock.now()
        await self.stage.advance(left - MOMENT)
        for _ in range(10):
            await anyio.lowlevel.checkpoint()
        if event.cancelled:
            raise Violation(f"the handler of {event.id!r} was cancelled before its time was up")
        self.stage.tell(f"the time of {event.id!r} is up")
        await self.stage.advance(MOMENT)
        while not event.cancelled:
            await anyio.lowlevel.checkpoint()
