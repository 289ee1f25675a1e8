"""What is asked of the scheduler under torture: jobs of every kind, and commands about some."""

from __future__ import annotations

import random
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import anyio
from attrs import frozen

from sched_core import (
    BackendError,
    Cron,
    FixedDelay,
    Interval,
    InvalidDefinition,
    JobAlreadyExists,
    JobNotFound,
    JobSpec,
    NothingToSkip,
    Once,
    Policy,
    Retry,
    RunAll,
    Schedule,
    Scheduler,
)
from sched_testkit.torture.journal import now

S = timedelta(seconds=1)
KEPT: dict[str, Any] = {"max_lost": 1_000_000, "keep_executions": None, "keep_finished": None}


def workload(base: datetime, seconds: float, scale: int) -> list[JobSpec]:
    """Return the jobs that run undisturbed, and those (``edited-``) that commands are for."""
    specs: list[JobSpec] = []

    def add(
        name: str, count: int, schedule: Callable[[int], Schedule], kind: str, **rules: Any
    ) -> None:
        for n in range(count):
            policy = Policy(**KEPT, **rules)
            specs.append(JobSpec(f"{name}-{n}", schedule(n), None, {"kind": kind}, policy))

    add("cron", scale, lambda _: Cron("* * * * * *"), "quick")
    add("interval", 2 * scale, lambda n: Interval(milliseconds=700 + 60 * n), "quick")
    add(
        "all", scale, lambda n: Interval(milliseconds=900 + 50 * n), "quick", misfire=RunAll(10_000)
    )
    span = seconds / (4 * scale)
    add("once", 4 * scale, lambda n: Once(base + n * span * S), "quick")
    add(
        "retry",
        scale,
        lambda n: Interval(milliseconds=1500 + 40 * n),
        "fails",
        retry=Retry(3, S / 10),
    )
    add("delay", scale, lambda n: FixedDelay(milliseconds=400 + 20 * n), "slow")
    add("long", scale, lambda n: Interval(seconds=5 + n), "long")
    add("suicide", scale, lambda n: Interval(seconds=3 + n), "suicide")
    add("block", 1, lambda _: Interval(seconds=4), "block")
    add("timeout", scale, lambda n: Interval(seconds=4 + n), "long", timeout=S / 2)
    add("edited", 2 * scale, lambda n: Interval(milliseconds=600 + 90 * n), "slow")
    return specs


@frozen
class Command:
    """What was asked for.

    Attributes:
        what: It.
        job_id: Of the job.
        outcome: ``ok``, ``fail``, or ``info``: it may have been done, or not, or may still be.
        began: When it was sent.
        ended: When its outcome was known.
        changes: Whether it changes what the checker knows of the definition.
        version: That it leaves in the metadata.
        uid: Of the incarnation that it removed.
    """

    what: str
    job_id: str
    outcome: str
    began: datetime
    ended: datetime
    changes: bool
    version: str = ""
    uid: str = ""


class Commands:
    """Issues commands about the jobs ``edited-`` one after the other, and keeps what came of them.

    Args:
        scheduler: An open one.
        chance: Of the run.
        jobs: How many jobs there are to choose from.
    """

    def __init__(self, scheduler: Scheduler, chance: random.Random, jobs: int) -> None:
        self.record: list[Command] = []
        self._scheduler, self._chance, self._jobs = scheduler, chance, jobs
        self._version = 0

    async def submit(self, specs: list[JobSpec]) -> None:
        """Add the jobs of the workload."""
        began = now()
        await self._scheduler.submit_jobs(specs, atomic=False)
        for spec in specs:
            self.record.append(Command("submit", spec.id, "ok", began, now(), changes=True))

    async def issue(self) -> None:
        """Issue commands until cancelled."""
        kinds: tuple[str, ...] = ("update", "update", "reschedule", "ensure", "remove", "submit")
        kinds += ("pause", "resume", "trigger", "skip", "unskip")
        while True:
            await anyio.sleep(self._chance.expovariate(4))
            what = self._chance.choice(kinds)
            with anyio.CancelScope(shield=True):
                await self._command(what, f"edited-{self._chance.randrange(self._jobs)}")

    async def _command(self, what: str, job_id: str) -> None:
        self._version += 1
        metadata = {"kind": "slow", "version": str(self._version)}
        every = Interval(milliseconds=600 + 90 * self._chance.randrange(8))
        policy, version, uid = Policy(**KEPT), "", ""
        scheduler, began = self._scheduler, now()
        try:
            if what == "update":
                version = str(self._version)
                await scheduler.update_job(job_id, metadata=metadata)
            elif what == "reschedule":
                await scheduler.update_job(job_id, every)
            elif what in {"ensure", "submit"}:
                version = str(self._version)
                add = scheduler.ensure_job if what == "ensure" else scheduler.submit_job
                await add(job_id, every, metadata=metadata, policy=policy)
            elif what == "remove":
                job = await scheduler.get_job(job_id)
                uid = job.uid
                await scheduler.remove_job(job_id)
            elif what == "pause":
                until = now() + self._chance.choice((1, 3)) * S
                await scheduler.pause_job(job_id, until=until if self._version % 2 else None)
            else:
                act = {
                    "resume": scheduler.resume_job,
                    "trigger": scheduler.trigger_job,
                    "skip": scheduler.skip_next,
                    "unskip": scheduler.unskip,
                }[what]
                await act(job_id)
            outcome = "ok"
        except (JobNotFound, JobAlreadyExists, NothingToSkip):
            outcome = "fail"
        except InvalidDefinition:
            if what != "pause":
                raise
            outcome = "fail"  # the store was away for so long that the pause was over
        except BackendError:
            outcome = "info"  # it may have been done, or not
        changes = what in {"update", "ensure", "submit", "remove"}
        self.record.append(
            Command(what, job_id, outcome, began, now(), changes=changes, version=version, uid=uid)
        )
