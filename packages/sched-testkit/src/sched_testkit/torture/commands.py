"""What is asked of the scheduler under torture: jobs of every kind, and commands about some."""

from __future__ import annotations

import logging
import random
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import anyio
from attrs import field, frozen

from sched_core import (
    BackendError,
    CatchUp,
    Cron,
    FixedDelay,
    Interval,
    InvalidDefinition,
    JobAlreadyExists,
    JobNotFound,
    JobSpec,
    NothingToCancel,
    NothingToRetry,
    NothingToSkip,
    Once,
    Policy,
    Retry,
    Schedule,
    Scheduler,
)
from sched_testkit.torture.finding import Finding
from sched_testkit.torture.journal import now

S = timedelta(seconds=1)
_log = logging.getLogger(__name__)
AGAIN = 0.3
"""Seconds after which a trigger is asked for again; a run of these jobs lasts longer."""
RANGE = 3 * S
"""How much is backfilled at once."""
REFUSALS = (JobNotFound, JobAlreadyExists, NothingToSkip, NothingToCancel, NothingToRetry)
MAY_BE_LATE = frozenset({"pause", "trigger", "ask", "backfill"})
"""Commands that may be refused: a pause was over by then, or so many requests wait already."""
CHANGES = frozenset({"update", "reschedule", "ensure", "submit", "remove"})
VERSIONED = CHANGES - {"remove"}
RESCHEDULING = VERSIONED - {"update"}
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
        "all",
        scale,
        lambda n: Interval(milliseconds=900 + 50 * n),
        "quick",
        misfire=CatchUp(10_000),
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
    add(
        "asks",
        scale,
        lambda n: Interval(milliseconds=1200 + 70 * n),
        "asks",
        retry=Retry(3, S / 10),
        max_snoozes=2,
    )
    add("delay", scale, lambda n: FixedDelay(milliseconds=400 + 20 * n), "slow")
    add("long", scale, lambda n: Interval(seconds=5 + n), "long")
    add("suicide", scale, lambda n: Interval(seconds=3 + n), "suicide")
    add("meddles", scale, lambda n: Interval(milliseconds=1700 + 300 * n), "meddles")
    add("block", 1, lambda _: Interval(seconds=4), "block")
    add("timeout", scale, lambda n: Interval(seconds=4 + n), "long", timeout=S / 2)
    add("again", 2 * scale, lambda _: Cron("* * * * * *"), "quick")
    add("edited", 2 * scale, lambda n: Interval(milliseconds=600 + 90 * n), "slow")
    return specs


@frozen
class Command:
    """What was asked for.

    Attributes:
        what: The name of the command.
        job_id: The job's id.
        outcome: ``ok``, ``fail``, or ``info``: it may have been done, or not, or may still be.
        began: When it was sent.
        ended: When its outcome was known.
        changes: Whether it changes what the checker knows of the definition.
        version: The version that it leaves in the metadata, 0 where it leaves none; versions grow.
        schedule: The schedule that it leaves.
        uid: The incarnation that it removed.
        key: The occurrence that it asked for.
        until: The end of the pause that it makes, or of the range that it backfills.
        since: The beginning of that range.
        name: The name of the request that it makes.
        args: The arguments of that request.
    """

    what: str
    job_id: str
    outcome: str
    began: datetime
    ended: datetime
    changes: bool
    version: int = 0
    schedule: Schedule | None = None
    uid: str = ""
    key: str = ""
    until: datetime | None = None
    since: datetime | None = None
    name: str = ""
    args: dict[str, str] = field(factory=dict)


class Commands:
    """Issues commands one after the other, and keeps what came of them.

    Backfills are of the jobs ``again-``, all others of the jobs ``edited-``.

    Args:
        scheduler: An open one.
        chance: The randomness of the run.
        jobs: How many jobs there are to choose from.

    Attributes:
        record: What was commanded, and what came of it.
        broken: What raised something that is no answer.
    """

    def __init__(self, scheduler: Scheduler, chance: random.Random, jobs: int) -> None:
        self.record: list[Command] = []
        self.broken: list[Finding] = []
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
        kinds += ("cancel", "cancel", "retry", "ask", "ask", "backfill")
        while True:
            await anyio.sleep(self._chance.expovariate(4))
            what = self._chance.choice(kinds)
            kind = "again" if what == "backfill" else "edited"
            job_id = f"{kind}-{self._chance.randrange(self._jobs)}"
            with anyio.CancelScope(shield=True):
                await self._command(what, job_id)
                if what == "trigger":
                    # What was asked for may be under way now: then this is one more.
                    await anyio.sleep(AGAIN)
                    await self._command(what, job_id)

    async def _command(self, what: str, job_id: str) -> None:
        self._version += 1
        began = now()
        order = Order(what, job_id, self._version, *self._drawn(what, began))
        try:
            told = await order.give(self._scheduler)
            outcome = "ok"
        except REFUSALS:
            told, outcome = "", "fail"
        except BackendError:
            told, outcome = "", "info"  # it may have been done, or not
        except Exception as error:
            if what in MAY_BE_LATE and isinstance(error, InvalidDefinition):
                told, outcome = "", "fail"  # the pause was over by then; so many wait already
            else:
                told, outcome = "", "info"
                self.broken.append(Finding("command failed", f"{what}: {error!r}", now(), job_id))
                _log.exception("%s %s", what, job_id)
        self.record.append(
            Command(
                what,
                job_id,
                outcome,
                began,
                now(),
                changes=what in CHANGES,
                version=order.version if what in VERSIONED else 0,
                schedule=order.every if what in RESCHEDULING else None,
                uid=told if what == "remove" else "",
                key=told if what in {"trigger", "ask", "cancel"} else "",
                until=order.until,
                since=order.until - RANGE if what == "backfill" and order.until else None,
                name=order.name if what == "ask" else "",
                args=order.args if what == "ask" else {},
            )
        )

    def _drawn(self, what: str, at: datetime) -> tuple[Interval, datetime | None]:
        every = Interval(milliseconds=600 + 90 * self._chance.randrange(8))
        lasts = self._chance.choice((1, 3)) * S
        if what == "backfill":
            return every, at - S  # clocks differ, and it must not end in the future
        return every, at + lasts if what == "pause" and self._version % 2 else None


@frozen
class Order:
    """A command before it is given.

    Attributes:
        what: The name of the command.
        job_id: The job's id.
        version: The version for the metadata.
        every: The period of the schedule.
        until: The end of a pause, or of a range.
    """

    what: str
    job_id: str
    version: int
    every: Interval
    until: datetime | None

    @property
    def name(self) -> str:
        """The name of a request."""
        return f"name {self.version % 2}"

    @property
    def args(self) -> dict[str, str]:
        """The arguments of a request."""
        return {"version": str(self.version)}

    async def give(self, scheduler: Scheduler) -> str:
        """Do it; return the uid of what was removed, or the key of what is asked for."""
        job_id, metadata = self.job_id, {"kind": "slow", "version": str(self.version)}
        if self.what == "update":
            await scheduler.update_job(job_id, metadata=metadata)
        elif self.what == "reschedule":
            await scheduler.update_job(job_id, self.every, metadata=metadata)
        elif self.what in {"ensure", "submit"}:
            add = scheduler.ensure_job if self.what == "ensure" else scheduler.submit_job
            await add(job_id, self.every, metadata=metadata, policy=Policy(**KEPT))
        elif self.what == "remove":
            uid = (await scheduler.get_job(job_id)).uid
            await scheduler.remove_job(job_id)
            return uid
        elif self.what == "pause":
            await scheduler.pause_job(job_id, until=self.until)
        elif self.what == "trigger":
            return await scheduler.trigger_job(job_id)
        elif self.what == "ask":
            name = self.name
            return await scheduler.trigger_job(job_id, args=self.args, request_key=name)
        elif self.what == "cancel":
            return await self._cancel(scheduler)
        elif self.what == "retry":
            await scheduler.retry_now(job_id=job_id)
        elif self.what == "backfill":
            assert self.until is not None
            await scheduler.backfill_job(job_id, self.until - RANGE, self.until)
        else:
            act = {
                "resume": scheduler.resume_job,
                "skip": scheduler.skip_next,
                "unskip": scheduler.unskip,
            }[self.what]
            await act(job_id)
        return ""

    async def _cancel(self, scheduler: Scheduler) -> str:
        """Cancel what runs, or by its key what the schedule has next."""
        key, job = None, await scheduler.get_job(self.job_id)
        if self.version % 3 and job.standing.scheduled is not None:
            key = f"{job.uid}:{job.standing.scheduled.number}"
        return await scheduler.cancel_run(key, job_id=self.job_id)
