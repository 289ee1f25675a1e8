"""The world in which histories happen: one place, one clock, two real schedulers, one oracle.

Every step tells the story in words, the oracle in facts, and is judged afterwards.
"""

from __future__ import annotations

import itertools
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import Any, cast

import anyio
import anyio.from_thread
import anyio.lowlevel
from attrs import define, evolve, field

from sched_core import (
    Backend,
    BackendError,
    Execution,
    ExecutionQuery,
    FixedDelay,
    Interval,
    Job,
    JobEvent,
    JobQuery,
    JobSpec,
    NothingToSkip,
    Scheduler,
    Undecodable,
)
from sched_core.testing import FakeClock
from sched_testkit import occurrences
from sched_testkit.annals import Call, Wrong
from sched_testkit.bench import START
from sched_testkit.harness import Harness
from sched_testkit.oracle import Oracle
from sched_testkit.watched import Watched
from sched_testkit.words import describe, seconds, show

MOMENT = timedelta(milliseconds=1)
PATIENCE = 10
"""Real seconds after which something that must happen in no time has not happened."""


class Planned(Exception):
    """A handler was told to fail."""


@define
class Instance:
    """One process, so to speak."""

    name: str
    watched: Watched
    scheduler: Scheduler
    plain: bool = False
    """Whether its handler is a function that runs in a thread."""
    cancelled_means: str = "lost"
    turn: anyio.Lock = field(factory=anyio.Lock)
    """Handlers act one after the other, so that a history repeats exactly."""


@define(frozen=True)
class Act:
    """What a handler does when it is called: something, and then return or raise."""

    does: str = "nothing"
    fails: bool = False


class World:
    """Two schedulers on one place.

    Args:
        harness: Of the backend.
        place: A fresh one.
    """

    def __init__(self, harness: Harness, place: Any) -> None:
        self.harness, self.place = harness, place
        self.clock = FakeClock(START)
        self.oracle = Oracle()
        self.story: list[str] = []
        self.instances: list[Instance] = []
        self.ids: set[str] = set()
        self.verdicts: list[BaseException] = []
        self.acts: list[Act] = []
        self._names, self._new_ids = itertools.count(1), itertools.count(1)
        self.reached, self.gate = anyio.Event(), anyio.Event()
        self.hanging: JobEvent | None = None
        self.deaf = False
        self.lease = timedelta(0)

    # -- telling

    def tell(self, what: str) -> None:
        """Add a sentence to the story."""
        self.story.append(f"at +{seconds(self.clock.now() - START)}: {what}")

    def told(self) -> str:
        """Return the story as a numbered list."""
        return "\n".join(f"{index:3}. {line}" for index, line in enumerate(self.story, 1))

    @contextmanager
    def noting(self) -> Iterator[None]:
        """Keep what the oracle objects to where a scheduler would take it for a failure."""
        try:
            yield
        except Exception as error:  # noqa: BLE001 -- raised at the end of the step
            self.verdicts.append(error)

    # -- processes

    async def start(self) -> None:
        """Start two instances."""
        self.instances = [await self._open(), await self._open()]
        self.lease = self.instances[0].watched.inner.capabilities.lease

    async def _open(self, *, plain: bool = False) -> Instance:
        name = f"worker {next(self._names)}"
        watched = Watched(self.harness.backend(self.place), self.oracle, self.noting)

        async def handle(event: JobEvent) -> None:
            await self._handle(instance, event)

        def handle_plainly(event: JobEvent) -> None:
            anyio.from_thread.run(self._handle, instance, event)

        scheduler = Scheduler(
            cast("Backend", watched),
            handler=handle_plainly if plain else handle,
            clock=self.clock,
            worker=name,
            # Threads take turns as they please: one at a time, so that a history repeats exactly.
            max_concurrency=1 if plain else 3,
            new_id=lambda: f"{next(self._new_ids):04}",
        )
        instance = Instance(name, watched, scheduler, plain)
        await scheduler.__aenter__()
        return instance

    async def close(self) -> None:
        """Close what lives."""
        for instance in self.instances:
            await instance.scheduler.__aexit__(None, None, None)

    async def restart(self, index: int, *, plain: bool = False) -> None:
        """Close an instance in order, and start another one."""
        old = self.instances[index]
        await old.scheduler.__aexit__(None, None, None)
        self.instances[index] = new = await self._open(plain=plain)
        threads = ", whose handler is a plain function" if plain else ""
        self.tell(f"{old.name} ends, {new.name} starts{threads}")

    async def replace_dead(self, index: int) -> None:
        """Start another one in the place of one that died."""
        old = self.instances[index]
        await self.harness.crash(old.watched.inner)
        self.instances[index] = await self._open()
        self.tell(f"{old.name} is dead, {self.instances[index].name} starts")

    # -- commands

    async def submit(self, index: int, spec: JobSpec, *, declared: bool) -> None:
        """Submit or declare a job whose id is free."""
        scheduler, now = self.instances[index].scheduler, self.clock.now()
        add = scheduler.ensure_job if declared else scheduler.submit_job
        self.tell(f"{'ensure' if declared else 'submit'} {describe(spec)}")
        self.ids.add(spec.id)
        job = await add(spec.id, spec.schedule, metadata=spec.metadata, policy=spec.policy)
        self.oracle.added(job, spec, declared=declared, now=now)

    async def ensure(self, index: int, spec: JobSpec) -> None:
        """Declare a job that exists."""
        known = self.oracle.current[spec.id]
        same = " as it is" if known.spec == spec else ""
        self.tell(f"ensure {describe(spec)}{same}")
        job = await self.instances[index].scheduler.ensure_job(
            spec.id, spec.schedule, metadata=spec.metadata, policy=spec.policy
        )
        self.oracle.edited(job, spec, declared=True, now=self.clock.now())

    async def update(self, index: int, job_id: str, **changes: Any) -> None:
        """Change a part of a job."""
        spec = evolve(self.oracle.current[job_id].spec, **changes)
        what = ", ".join(f"{name} = {show(value)}" for name, value in changes.items())
        self.tell(f"update {job_id!r}: {what}")
        job = await self.instances[index].scheduler.update_job(job_id, **changes)
        self.oracle.edited(job, spec, now=self.clock.now())

    async def remove(self, index: int, job_id: str) -> None:
        """Remove a job."""
        self.tell(f"remove {job_id!r}")
        await self.instances[index].scheduler.remove_job(job_id)
        self.oracle.removed(job_id, self.clock.now())

    async def out_of_jitter(self, job_id: str) -> None:
        """Let time pass until no occurrence lies between its moment and the end of its jitter.

        Whether a pause takes such a one away depends on the job's uid: nobody could foresee it.
        """
        life, now = self.oracle.current[job_id], self.clock.now()
        epoch, jitter = life.epoch, max(life.jitters)
        begins = now - jitter
        if isinstance(epoch.schedule, FixedDelay):
            moment = epoch.next
        else:
            moment = occurrences.after(epoch.schedule, begins, epoch.anchor)
        if moment is not None and begins < moment <= now:
            await self.advance(jitter)

    async def pause(self, index: int, job_id: str, lasts: timedelta | None) -> None:
        """Pause a job; one with jitter without an end, which might lie in its jitter."""
        if max(self.oracle.current[job_id].jitters):
            lasts = None
            await self.out_of_jitter(job_id)
        until = None if lasts is None else self.clock.now() + lasts
        self.tell(f"pause {job_id!r}" + (f" for {seconds(lasts)}" if lasts else ""))
        job = await self.instances[index].scheduler.pause_job(job_id, until=until)
        self.oracle.paused(job, until, self.clock.now())

    async def operate(self, index: int, what: str, job_id: str) -> None:
        """Resume, trigger, skip the next occurrence of, or unskip a job."""
        scheduler, oracle, now = self.instances[index].scheduler, self.oracle, self.clock.now()
        self.tell(f"{what} {job_id!r}")
        if what == "resume" and max(oracle.current[job_id].jitters):
            await self.out_of_jitter(job_id)
            now = self.clock.now()
        calls: dict[str, tuple[Callable[[str], Awaitable[Job]], Callable[[Job, datetime], None]]]
        calls = {
            "resume": (scheduler.resume_job, oracle.resumed),
            "trigger": (scheduler.trigger_job, oracle.triggered),
            "skip the next of": (scheduler.skip_next, oracle.skipped),
            "unskip": (scheduler.unskip, oracle.unskipped),
        }
        act, note = calls[what]
        try:
            job = await act(job_id)
        except NothingToSkip:
            moment = oracle.to_skip(job_id, now)
            if moment is not None:
                raise Wrong(
                    f"there is nothing to skip, but {job_id!r} occurs at {moment}"
                ) from None
            self.tell("there is nothing to skip")
            return
        note(job, now)

    async def prune(self, index: int, age: timedelta) -> None:
        """Prune the ledger."""
        before = self.clock.now() - age
        self.tell(f"prune what ended more than {seconds(age)} ago")
        await self.instances[index].scheduler.prune(before)
        await self.look(pruned=before)

    async def advance(self, by: timedelta) -> None:
        """Let time pass."""
        self.clock.advance(by)
        for instance in self.instances:
            await self.harness.catch_up(instance.watched.inner)

    async def set_back(self, by: timedelta) -> None:
        """Set the clock back, unless a pause has begun or ended since then."""
        new = self.clock.now() - by
        for life in self.oracle.current.values():
            for pause in life.pauses:
                if pause.began > new or pause.end is None or pause.end > new:
                    return
        self.clock.jump(-by)
        self.story.append(f"at +{seconds(new - START)}: the clock was set back by {seconds(by)}")
        for instance in self.instances:
            await self.harness.catch_up(instance.watched.inner)

    # -- running

    async def run(self, index: int, acts: Sequence[Act] = ()) -> None:
        """Run what is due on a healthy instance: afterwards nothing may be left."""
        instance, since, moment = self.instances[index], self.oracle.seq, self.clock.now()
        self.acts = list(acts)
        told = len(self.story)
        await instance.scheduler.run_due()
        self.acts = []
        if len(self.story) == told:
            self.tell(f"{instance.name} finds nothing to run")
        await self.look()
        self.oracle.nothing_left(moment, since)

    async def look(self, pruned: datetime | None = None) -> None:
        """Have the oracle judge what stands."""
        if self.verdicts:
            raise self.verdicts[0]
        backend = self.instances[0].watched.inner
        lines: list[Execution] = []
        for job_id in sorted(self.ids):
            query = ExecutionQuery(job_id=job_id)
            found: list[Execution] = list(await _all(backend.executions, query))
            lines += reversed(found)
        jobs: list[Job | Undecodable] = list(await _all(backend.jobs, JobQuery()))
        known = [job for job in jobs if isinstance(job, Job)]
        self.oracle.look(lines, known, self.clock.now(), pruned)

    async def _handle(self, instance: Instance, event: JobEvent) -> None:
        if instance.watched.dead:
            return  # a dead process calls nobody
        call: Call | None = None
        with self.noting():
            call = self.oracle.called(event, self.clock.now())
        act = self.acts.pop(0) if self.acts else Act()
        kind = "manually " if event.manual else ""
        folds = f", folding {event.folded}" if event.folded else ""
        doing = "" if act.does == "nothing" else f": {act.does}"
        end = ", fails" if act.fails else ""
        what = f"{instance.name} runs {event.id!r} {kind}(attempt {event.attempt}{folds}){doing}"
        self.tell(what + end)
        try:
            async with instance.turn:
                await self._do(instance, event, act)
        except BaseException as error:
            planned = isinstance(error, Planned)
            if not planned and isinstance(error, Exception):
                self.verdicts.append(error)
            self._ended(
                call, "failed" if isinstance(error, Exception) else instance.cancelled_means
            )
            raise
        # Told that its time is up, it has failed, whatever it returns.
        self._ended(call, "failed" if event.cancelled else "succeeded")

    def _ended(self, call: Call | None, how: str) -> None:
        if call is not None:
            with self.noting():
                self.oracle.ended(call, how, self.clock.now())

    async def _do(self, instance: Instance, event: JobEvent, act: Act) -> None:
        index, job_id = self.instances.index(instance), event.id
        if act.does == "hang":
            self.hanging = event
            self.reached.set()
            with anyio.CancelScope(shield=self.deaf):
                await self.gate.wait()
        elif act.does == "die":
            instance.watched.dead = True
            self.oracle.crashed(instance.watched.worker)
        elif act.does == "take a while":
            self.clock.advance(self.lease / 5)
        elif job_id in self.oracle.current:
            spec = self.oracle.current[job_id].spec
            if act.does == "change the schedule":
                await self.update(index, job_id, schedule=Interval(seconds=50))
            elif act.does == "slow the schedule down":
                await self.update(index, job_id, schedule=FixedDelay(seconds=90))
            elif act.does == "change the metadata":
                await self.update(index, job_id, metadata={"edit": str(self.oracle.seq)})
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
        """Run what is due on an instance to which something happens meanwhile."""
        if kind in {"claimed", "settling", "settled", "die"}:
            await self._die(index, kind)
        else:
            await self._hang(index, kind)
        await self.look()

    async def _die(self, index: int, kind: str) -> None:
        instance = self.instances[index]
        self.acts = [Act("die")] if kind == "die" else []
        instance.watched.dies = None if kind == "die" else kind
        try:
            await instance.scheduler.run_due()
        except BackendError:
            if not instance.watched.dead:
                raise
        self.acts = []
        instance.watched.dies = None
        if instance.watched.dead:
            when = {"claimed": "right after a claim", "die": "in its handler"}
            self.tell(f"{instance.name} dies {when.get(kind, f'when {kind}')}")
            await self.replace_dead(index)

    async def _hang(self, index: int, kind: str) -> None:
        instance, other = self.instances[index], self.instances[1 - index]
        self.reached, self.gate = anyio.Event(), anyio.Event()
        self.acts, self.hanging, self.deaf = [Act("hang")], None, kind == "deaf"
        instance.cancelled_means = "interrupted" if kind == "stopped" else "lost"
        done, scope = anyio.Event(), anyio.CancelScope()

        async def work() -> None:
            try:
                with scope:
                    await instance.scheduler.run_due()
            except BackendError:
                if not instance.watched.cut:
                    raise
            finally:
                done.set()
                self.reached.set()

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(work)
            await self.reached.wait()
            self.acts = []
            if not done.is_set():
                kind = self._possible(kind, instance)
                try:
                    with anyio.fail_after(PATIENCE):
                        await self._while_it_hangs(kind, instance, other, done, scope)
                except TimeoutError:
                    self.gate.set()
                    raise Wrong(f"{instance.name}: nothing happens, though it is {kind}") from None
            self.gate.set()
        instance.cancelled_means, self.deaf = "lost", False

    def _possible(self, kind: str, instance: Instance) -> str:
        """Return what can happen to the handler that hangs."""
        timeout = self._timeout()
        if instance.plain:
            return "slow" if timeout is None else "deaf"  # a thread cannot be stopped
        if kind in {"timed out", "deaf"}:
            return "slow" if timeout is None else kind
        return kind if timeout is None or kind == "stopped" else "timed out"

    def _timeout(self) -> timedelta | None:
        assert self.hanging is not None
        return self.oracle.current[self.hanging.id].spec.policy.timeout

    async def _while_it_hangs(
        self, kind: str, instance: Instance, other: Instance, done: anyio.Event, scope: Any
    ) -> None:
        watched, second = instance.watched, self.instances.index(other)
        if kind == "stopped":
            self.tell(f"{instance.name} is stopped")
            scope.cancel()
            await done.wait()
        elif kind == "cut off":
            watched.cut = True
            await self.advance(self.lease + timedelta(seconds=1))
            self.tell(f"{instance.name} has not reached the store for a lease")
            await done.wait()
            watched.cut = False
            await self.run(second)
        elif kind == "suspended":
            watched.stall = anyio.Event()
            await self.advance(self.lease + timedelta(seconds=1))
            self.tell(f"{instance.name} was suspended for a lease")
            await self.run(second)
            self.gate.set()
            watched.stall.set()
            watched.stall = None
            await done.wait()
        elif kind == "slow":
            await self._renews(watched)
            self.tell(f"{instance.name} is slow, and renews")
            await self.run(second)
            self.gate.set()
            await done.wait()
        elif kind in {"timed out", "deaf"}:
            await self._time_is_up(instance)
            if kind == "deaf":
                await self._renews(watched)
                self.tell(f"{instance.name} does not stop, and renews")
                await self.run(second)
                self.gate.set()
            await done.wait()

    async def _renews(self, watched: Watched) -> None:
        for _ in range(3):
            seen = watched.renewals
            await self.advance(self.lease * 2 / 3)
            while watched.renewals == seen:
                await anyio.lowlevel.checkpoint()

    async def _time_is_up(self, instance: Instance) -> None:
        """Let the time of the handler that hangs run out: it is told then, and not before."""
        event, timeout = self.hanging, self._timeout()
        assert event is not None
        assert timeout is not None
        instance.cancelled_means = "failed"
        left = event.started_at + timeout - self.clock.now()
        await self.advance(left - MOMENT)
        for _ in range(10):
            await anyio.lowlevel.checkpoint()
        if event.cancelled:
            raise Wrong(f"the handler of {event.id!r} was cancelled before its time was up")
        self.tell(f"the time of {event.id!r} is up")
        await self.advance(MOMENT)
        while not event.cancelled:
            await anyio.lowlevel.checkpoint()


async def _all(pages: Any, query: Any) -> list[Any]:
    found, after = [], None
    while True:
        page = await pages(query, after=after, limit=500)
        found += page.items
        if (after := page.next) is None:
            return found
