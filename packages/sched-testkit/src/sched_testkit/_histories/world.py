"""Runs histories: one place, one clock, two real schedulers, one oracle.

Handlers act while they run, and processes have mishaps. The oracle judges every step.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

import anyio
import anyio.from_thread
import anyio.lowlevel

from sched_core import (
    BackendError,
    Execution,
    ExecutionQuery,
    FixedDelay,
    Interval,
    Job,
    JobEvent,
    JobQuery,
    Kind,
    Undecodable,
)
from sched_testkit._histories.commands import Commands, HandlerAction, SchedulerProcess
from sched_testkit._histories.spy import SpyBackend
from sched_testkit._oracle.attempts import Call, CallState
from sched_testkit._oracle.violation import Violation
from sched_testkit._stories.entry import pendings
from sched_testkit._suite.bench import onward

MOMENT = timedelta(milliseconds=1)
REST = timedelta(hours=2)
"""The time after which every retry of a history has been made."""
MOST_RUNS = 200
PATIENCE = 10
"""Real seconds after which something that must happen in no time has not happened."""


class Planned(Exception):
    """A handler was told to fail."""


class World(Commands):
    """Two schedulers on one place: see :class:`~sched_testkit._histories.commands.Commands`."""

    # -- running

    async def run(self, index: int, acts: Sequence[HandlerAction] = ()) -> None:
        """Run what is due on a healthy process: afterwards, nothing may be left."""
        process, moment = self.processes[index], self.clock.now()
        for each in self.processes:
            await each.spy.at_rest()
        # One that hangs may have written before it did: this one goes on from there.
        await self.sync()
        self.acts = list(acts)
        before = len(self.story)
        await process.scheduler.run_due()
        self.acts = []
        if len(self.story) == before:
            self.tell(f"{process.name} finds nothing to run")
        for each in self.processes:
            await each.spy.at_rest()
        await self.look()
        self.oracle.expect_nothing_left(moment)

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

    async def rest(self) -> None:
        """Let one healthy process run everything to its end, and have the oracle account for it."""
        with anyio.fail_after(PATIENCE):
            for each in self.processes:
                await each.spy.at_rest()
        self.tell("all is to come to its end")
        now = self.clock.now()
        await self.advance(max(self.oracle.stored.latest or now, now) - now + 2 * self.lease)
        await self._drain()
        for job_id, job in sorted(self.oracle.stored.jobs.items()):
            if job.standing.pause is not None:
                self.oracle.accounting.expect_ends_in_pause(job.uid, self.clock.now())
                await self.operate(1, "resume", job_id)
        await self.advance(REST)
        await self._drain()
        self.oracle.accounting.account(self.clock.now())

    async def _drain(self) -> None:
        """Run what is due, until all that waits for a retry has had it."""
        for _ in range(MOST_RUNS):
            await self.run(1)
            begun = [
                one.due_at
                for job in self.oracle.stored.jobs.values()
                for one in pendings(job.standing)
                if (one.began_at is not None or not one.is_scheduled)
                and job.standing.due_at == one.due_at
            ]
            if not begun:
                return
            await self.advance(max(min(begun) - self.clock.now(), MOMENT))
        raise Violation("it does not come to rest")

    async def _handle(self, process: SchedulerProcess, event: JobEvent) -> None:
        if process.spy.dead:
            return  # a dead process calls no handler
        call: Call | None = None
        with self.noting():
            call = self.oracle.attempts.called(event, self.clock.now())
        act = self.acts.pop(0) if self.acts else HandlerAction()
        kind = "as asked " if event.kind is not Kind.SCHEDULED else ""
        more = f", for {event.coalesced} more" if event.coalesced else ""
        doing = "" if act.does == "nothing" else f": {act.does}"
        end = ", fails" if act.fails else ""
        what = f"{process.name} runs {event.id!r} {kind}(attempt {event.attempt}{more}){doing}"
        self.tell(what + end)
        try:
            if act.does == "hang":
                await self._hang_on(event)  # without its turn: the others do not wait for it
            else:
                async with process.turn:
                    await self._do(process, event, act)
        except BaseException as error:
            planned = isinstance(error, Planned)
            if not planned and isinstance(error, Exception):
                self.verdicts.append(error)
            self._ended(
                call,
                CallState.FAILED if isinstance(error, Exception) else process.cancelled_means,
            )
            raise
        # A handler whose time is up, or whose claim is lost, returns without effect.
        is_cancelled = event.cancelled and process.cancelled_means is not CallState.INTERRUPTED
        self._ended(call, process.cancelled_means if is_cancelled else CallState.SUCCEEDED)

    def _ended(self, call: Call | None, state: CallState) -> None:
        if call is not None:
            with self.noting():
                self.oracle.attempts.ended(call, state, self.clock.now())

    async def _hang_on(self, event: JobEvent) -> None:
        self.hanging = event
        self.reached.set()
        with anyio.CancelScope(shield=self.deaf):
            await self.gate.wait()

    async def _do(self, process: SchedulerProcess, event: JobEvent, act: HandlerAction) -> None:
        index, job_id = self.processes.index(process), event.id
        if act.does == "die":
            process.spy.dead = True
            self.oracle.crashed(process.spy.worker)
        elif act.does == "take a while":
            self.clock.advance(self.lease / 5)
        elif job_id in self.oracle.known.current:
            spec = self.oracle.known.current[job_id].spec
            assert spec is not None
            if act.does == "change the schedule":
                await self.update(index, job_id, schedule=Interval(seconds=50))
            elif act.does == "slow the schedule down":
                await self.update(index, job_id, schedule=FixedDelay(seconds=90))
            elif act.does == "change the metadata":
                await self.update(index, job_id, metadata={"edit": str(self.oracle.known.seq)})
            elif act.does in {"remove", "remove and add again"}:
                await self.remove(index, job_id)
                if act.does != "remove":
                    await self.submit(index, spec, declared=False)
            elif act.does == "pause":
                await self.pause(index, job_id, None)
            elif act.does in {"trigger", "skip the next of"}:
                await self.operate(index, act.does, job_id)
        if act.fails:
            raise Planned("as planned")

    # -- mishaps

    async def mishap(self, index: int, kind: str) -> None:
        """Run what is due on a process that has a mishap during the run."""
        if kind in {"claimed", "settling", "settled", "die"}:
            await self._die(index, kind)
        else:
            await self._hang(index, kind)
        await self.look()

    async def _die(self, index: int, kind: str) -> None:
        process = self.processes[index]
        self.acts = [HandlerAction("die")] if kind == "die" else []
        process.spy.crash_at = None if kind == "die" else kind
        try:
            await process.scheduler.run_due()
        except BackendError:
            if not process.spy.dead:
                raise
        self.acts = []
        process.spy.crash_at = None
        if process.spy.dead:
            when = {"claimed": "right after a claim", "die": "in its handler"}
            self.tell(f"{process.name} dies {when.get(kind, f'when {kind}')}")
            await self.replace_dead(index)

    async def _hang(self, index: int, kind: str) -> None:
        process, other = self.processes[index], self.processes[1 - index]
        self.reached, self.gate = anyio.Event(), anyio.Event()
        self.acts, self.hanging, self.deaf = [HandlerAction("hang")], None, kind == "deaf"
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
                self.reached.set()

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(work)
            await self.reached.wait()
            self.acts = []
            try:
                if not done.is_set():
                    kind = self._possible(kind, process)
                    with anyio.fail_after(PATIENCE):
                        await self._while_it_hangs(kind, process, other, done, scope)
            except TimeoutError:
                raise Violation(f"{process.name}: nothing happens, though it is {kind}") from None
            finally:
                self.gate.set()  # or a handler that does not stop would never end
        process.cancelled_means, self.deaf = CallState.LOST, False

    def _possible(self, kind: str, process: SchedulerProcess) -> str:
        """Return what can happen to the handler that hangs."""
        timeout = self._timeout()
        if process.plain:
            return "slow" if timeout is None else "deaf"  # a thread cannot be stopped
        if kind in {"timed out", "deaf"}:
            return "slow" if timeout is None else kind
        return kind if timeout is None or kind == "stopped" else "timed out"

    def _timeout(self) -> timedelta | None:
        assert self.hanging is not None
        spec = self.oracle.known.current[self.hanging.id].spec
        return None if spec is None else spec.policy.timeout

    async def _while_it_hangs(
        self,
        kind: str,
        process: SchedulerProcess,
        other: SchedulerProcess,
        done: anyio.Event,
        scope: Any,
    ) -> None:
        spy, second = process.spy, self.processes.index(other)
        if kind == "stopped":
            self.tell(f"{process.name} is stopped")
            scope.cancel()
            await done.wait()
        elif kind == "cut off":
            spy.is_cut_off = True
            await self.advance(self.lease + timedelta(seconds=1))
            self.tell(f"{process.name} has not reached the store for a lease")
            await done.wait()
            spy.is_cut_off = False
            await self.run(second)
        elif kind == "suspended":
            spy.renewals_hang_until = anyio.Event()
            await self.advance(self.lease + timedelta(seconds=1))
            self.tell(f"{process.name} was suspended for a lease")
            await self.run(second)
            self.gate.set()
            spy.renewals_hang_until.set()
            spy.renewals_hang_until = None
            await done.wait()
        elif kind == "slow":
            await self._renews(spy)
            self.tell(f"{process.name} is slow, and renews")
            await self.run(second)
            self.gate.set()
            await done.wait()
        elif kind in {"timed out", "deaf"}:
            await self._time_is_up(process)
            if kind == "deaf":
                await self._renews(spy)
                self.tell(f"{process.name} does not stop, and renews")
                await self.run(second)
                self.gate.set()
            await done.wait()

    async def _renews(self, spy: SpyBackend) -> None:
        for _ in range(3):
            seen = spy.renewals
            await self.advance(self.lease * 2 / 3)
            while spy.renewals == seen:
                await anyio.lowlevel.checkpoint()

    async def _time_is_up(self, process: SchedulerProcess) -> None:
        """Let the time of the handler that hangs run out: it learns so then, and not before."""
        event, timeout = self.hanging, self._timeout()
        assert event is not None
        assert timeout is not None
        process.cancelled_means = CallState.FAILED
        left = event.started_at + timeout - self.clock.now()
        await self.advance(left - MOMENT)
        for _ in range(10):
            await anyio.lowlevel.checkpoint()
        if event.cancelled:
            raise Violation(f"the handler of {event.id!r} was cancelled before its time was up")
        self.tell(f"the time of {event.id!r} is up")
        await self.advance(MOMENT)
        while not event.cancelled:
            await anyio.lowlevel.checkpoint()


async def _all(pages: Any, query: Any) -> list[Any]:
    found, after = [], None
    seen: set[str] = set()
    while True:
        page = await pages(query, after=after, limit=500)
        found += page.items
        if (after := onward(page, seen)) is None:
            return found


__all__ = ["HandlerAction", "World"]
