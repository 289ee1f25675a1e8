"""The commands of a history: each adds a sentence to the story, and gives the oracle the facts."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any

from attrs import evolve

from sched_core import (
    InvalidDefinition,
    Job,
    JobSpec,
    Kind,
    NothingToCancel,
    NothingToRetry,
    NothingToSkip,
    Pending,
    TooManyRequests,
)
from sched_testkit._histories.stage import Stage
from sched_testkit._oracle.incarnations import Request
from sched_testkit._oracle.narration import describe, seconds, show
from sched_testkit._oracle.violation import Violation
from sched_testkit._stories.entry import pendings

MOST_REQUESTS = 16
"""The number of requests that may wait in one job."""


class Commands:
    """Gives commands to the schedulers of a stage, and their results to the oracle."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage

    async def _before(self, job_id: str) -> Job:
        """Return a job as it is read before a command."""
        await self._stage.sync()
        job = await self._stage.processes[0].spy.inner.get(job_id)
        if not isinstance(job, Job):
            raise Violation(f"job {job_id!r} cannot be read: {job!r}")
        return job

    async def submit(self, index: int, spec: JobSpec, *, declared: bool) -> None:
        """Submit or declare a job whose id is free."""
        scheduler, now = self._stage.processes[index].scheduler, self._stage.clock.now()
        add = scheduler.ensure_job if declared else scheduler.submit_job
        self._stage.tell(f"{'ensure' if declared else 'submit'} {describe(spec)}")
        self._stage.ids.add(spec.id)
        job = await add(spec.id, spec.schedule, metadata=spec.metadata, policy=spec.policy)
        self._stage.oracle.commands.added(job, spec, declared=declared, now=now)

    async def ensure(self, index: int, spec: JobSpec) -> None:
        """Declare a job that exists."""
        known = self._stage.oracle.known.current[spec.id]
        same = " as it is" if known.spec == spec else ""
        self._stage.tell(f"ensure {describe(spec)}{same}")
        before = await self._before(spec.id)
        job = await self._stage.processes[index].scheduler.ensure_job(
            spec.id, spec.schedule, metadata=spec.metadata, policy=spec.policy
        )
        self._stage.oracle.commands.redefined(
            before, job, spec, declared=True, now=self._stage.clock.now()
        )

    async def update(self, index: int, job_id: str, **changes: Any) -> None:
        """Change a part of a job."""
        before = await self._before(job_id)
        spec = evolve(before.spec, **changes)
        what = ", ".join(f"{name} = {show(value)}" for name, value in changes.items())
        self._stage.tell(f"update {job_id!r}: {what}")
        job = await self._stage.processes[index].scheduler.update_job(job_id, **changes)
        self._stage.oracle.commands.redefined(before, job, spec, now=self._stage.clock.now())

    async def remove(self, index: int, job_id: str, *, cancel: bool = False) -> None:
        """Remove a job, and perhaps cancel its run in flight."""
        self._stage.tell(f"remove {job_id!r}" + (", and cancel its run" if cancel else ""))
        before = await self._before(job_id)
        await self._stage.processes[index].scheduler.remove_job(job_id, cancel=cancel)
        self._stage.oracle.commands.removed(before, self._stage.clock.now(), cancel=cancel)

    async def pause(self, index: int, job_id: str, lasts: timedelta | None) -> None:
        """Pause a job."""
        until = None if lasts is None else self._stage.clock.now() + lasts
        self._stage.tell(f"pause {job_id!r}" + (f" for {seconds(lasts)}" if lasts else ""))
        before = await self._before(job_id)
        job = await self._stage.processes[index].scheduler.pause_job(job_id, until=until)
        self._stage.oracle.commands.paused(before, job, until, self._stage.clock.now())

    # -- requests

    async def trigger(
        self,
        index: int,
        job_id: str,
        args: dict[str, str] | None = None,
        key: str | None = None,
    ) -> None:
        """Trigger a job."""
        named = f" with {args}" if args else ""
        self._stage.tell(f"trigger {job_id!r}{named}" + (f", named {key!r}" if key else ""))
        scheduler = self._stage.processes[index].scheduler
        await self._ask(
            job_id,
            Request(0, 0, Kind.TRIGGERED, args, key=key),
            lambda: scheduler.trigger_job(job_id, args=args, request_key=key),
        )

    async def backfill(self, index: int, job_id: str, span: timedelta) -> None:
        """Ask for the moments of the last while."""
        until = self._stage.clock.now()
        since = until - span
        self._stage.tell(f"backfill the last {seconds(span)} of {job_id!r}")
        scheduler = self._stage.processes[index].scheduler

        async def ask() -> str:
            asked = await scheduler.backfill_job(job_id, since, until)
            if asked is None or asked.key is None:
                raise Violation(f"job {job_id!r}: the backfill has no key: {asked}")
            return asked.key

        request = Request(0, 0, Kind.BACKFILLED, None, since, until, f"{since} {until}")
        await self._ask(job_id, request, ask)

    async def rerun(self, index: int, job_id: str, which: int) -> None:
        """Repeat one of a job's executions."""
        await self._stage.sync()
        oracle, scheduler = self._stage.oracle, self._stage.processes[index].scheduler
        uid, gone = oracle.known.current[job_id].uid, oracle.executions.pruned
        known = [one for one in oracle.executions.history.executions if one.uid == uid]
        there = [one for one in known if one.id not in gone]
        if not there:
            return
        one = there[which % len(there)]
        self._stage.tell(f"rerun {one.id} of {job_id!r}")
        args, moment = one.args and dict(one.args), one.scheduled_at
        request = Request(0, 0, Kind.RERUN, args, moment, moment, one.id)
        await self._ask(job_id, request, lambda: scheduler.rerun(one.id), repeated=one.number)

    async def _ask(
        self,
        job_id: str,
        request: Request,
        ask: Callable[[], Awaitable[str]],
        repeated: int | None = None,
    ) -> None:
        """Ask for a run.

        Args:
            job_id: The job's id.
            request: What the oracle is to know of it; it gets its place here.
            ask: The call, which returns the key.
            repeated: The number of what is repeated: it must have ended.
        """
        before = await self._before(job_id)
        request.seq = self._stage.oracle.known.seq
        try:
            key = await ask()
        except TooManyRequests:
            if len(before.standing.requests) < MOST_REQUESTS:
                raise
            self._stage.tell("so many wait already")
        except InvalidDefinition as refused:
            pending = [one.number for one in pendings(before.standing)]
            if repeated not in pending:
                self._stage.oracle.commands.refused(before, request)
            self._stage.tell(f"that cannot be: {refused.field}")
        else:
            await self._stage.sync()  # what is the same request may have ended just now
            self._stage.oracle.commands.asked(before, key, request)

    # -- one occurrence

    async def cancel(
        self, index: int, job_id: str, what: str = "runs", *, alone: bool = True
    ) -> None:
        """Cancel what runs, or what waits: the schedule's occurrence, or a request.

        Args:
            index: The process that gets the command.
            job_id: The job's id.
            what: The occurrence: the one that ``runs``, the next of the ``schedule``, the ``first
                request`` or the ``last request``.
            alone: Whether nothing else happens meanwhile.
        """
        before = await self._before(job_id)
        standing, oracle = before.standing, self._stage.oracle
        one: Pending | None = None
        if what == "schedule":
            one = standing.scheduled
        elif what != "runs" and standing.requests:
            one = standing.requests[0 if what == "first request" else -1]
        key = None if one is None else f"{before.uid}:{one.number}"
        self._stage.tell(f"cancel {key or 'what runs'} of {job_id!r}")
        scheduler = self._stage.processes[index].scheduler
        try:
            marked = await scheduler.cancel_run(key, job_id=job_id)
        except NothingToCancel:
            self._stage.tell("there is nothing to cancel")
            if alone:
                oracle.commands.nothing_to_cancel(before, None if one is None else one.number)
        else:
            oracle.commands.cancelled(before, marked, by_key=one is not None)

    async def hurry(self, index: int, job_id: str) -> None:
        """Have all that waits for its next attempt attempted now."""
        self._stage.tell(f"retry what waits of {job_id!r}")
        await self._before(job_id)
        try:
            job = await self._stage.processes[index].scheduler.retry_now(job_id=job_id)
        except NothingToRetry:
            self._stage.tell("nothing waits")
        else:
            self._stage.oracle.commands.hurried(job, self._stage.clock.now())

    async def operate(self, index: int, what: str, job_id: str) -> None:
        """Resume, trigger, skip the next occurrence of, or unskip a job."""
        scheduler, oracle = self._stage.processes[index].scheduler, self._stage.oracle
        if what == "trigger":
            await self.trigger(index, job_id)
            return
        self._stage.tell(f"{what} {job_id!r}")
        await self._before(job_id)
        now = self._stage.clock.now()
        if what == "resume":
            oracle.commands.resumed(await scheduler.resume_job(job_id), now)
        elif what == "unskip":
            oracle.commands.unskipped(await scheduler.unskip(job_id), now)
        else:
            try:
                oracle.commands.skipped(await scheduler.skip_next(job_id), now)
            except NothingToSkip:
                self._stage.tell("there is nothing to skip")

    async def prune(self, index: int, age: timedelta) -> None:
        """Prune the history."""
        before = self._stage.clock.now() - age
        self._stage.tell(f"prune what ended more than {seconds(age)} ago")
        await self._stage.processes[index].scheduler.prune(before)
        await self._stage.look(pruned=before)
