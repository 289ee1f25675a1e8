"""The commands of a history: each adds a sentence to the story, and gives the oracle the facts."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from attrs import evolve

from sched_core import (
    InvalidDefinition,
    Job,
    JobSpec,
    NothingToSkip,
)
from sched_testkit._histories.stage import Stage
from sched_testkit._oracle.narration import describe, seconds, show
from sched_testkit._oracle.violation import Violation

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

    async def remove(self, index: int, job_id: str) -> None:
        """Remove a job."""
        self._stage.tell(f"remove {job_id!r}")
        before = await self._before(job_id)
        await self._stage.processes[index].scheduler.remove_job(job_id)
        self._stage.oracle.commands.removed(before, self._stage.clock.now())

    async def pause(self, index: int, job_id: str, lasts: timedelta | None) -> None:
        """Pause a job."""
        until = None if lasts is None else self._stage.clock.now() + lasts
        self._stage.tell(f"pause {job_id!r}" + (f" for {seconds(lasts)}" if lasts else ""))
        before = await self._before(job_id)
        job = await self._stage.processes[index].scheduler.pause_job(job_id, until=until)
        self._stage.oracle.commands.paused(before, job, until, self._stage.clock.now())

    async def trigger(self, index: int, job_id: str) -> None:
        """Trigger a job."""
        self._stage.tell(f"trigger {job_id!r}")
        before = await self._before(job_id)
        read_at = self._stage.oracle.known.seq
        try:
            key = await self._stage.processes[index].scheduler.trigger_job(job_id)
        except InvalidDefinition:
            if len(before.standing.requests) < MOST_REQUESTS:
                raise
            self._stage.tell("so many wait already")
            return
        self._stage.oracle.commands.triggered(before, key, read_at)

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
