"""Gives the commands of a simulated history: chance decides what they say."""

from __future__ import annotations

from datetime import datetime, timedelta
from random import Random
from typing import Any

from sched_core import (
    BackendError,
    CatchUp,
    Coalesce,
    Cron,
    Drop,
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
    Schedule,
    Scheduler,
)
from sched_testkit._oracle.narration import describe, show
from sched_testkit.simulation.clock import SimulatedClock, SimulatedProcess
from sched_testkit.simulation.observer import Command, Observer, commanded

S = timedelta(seconds=1)
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


class Planned(Exception):
    """A handler was told to fail."""


class PlannedAgain(Planned):
    """A handler was told to fail at an even attempt, which policies can tell from an odd one."""


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
    "1 s and 4 s apart": Policy(retry=Retry(4, delays=(1 * S, 4 * S), jitter=0.2)),
    "1 s at most, only timeouts": Policy(
        timeout=1 * S, retry=Retry(3, 1 * S, only=(TimeoutError,))
    ),
    "never again": Policy(retry=Retry(5, 1 * S, never=(PlannedAgain,)), overdue=5 * S),
}


class Operator:
    """Gives commands to schedulers.

    Args:
        chance: The source of every decision.
        clock: The clock of the simulated machine.
        observer: The observer that must know which command a write belongs to.
    """

    def __init__(self, chance: Random, clock: SimulatedClock, observer: Observer) -> None:
        self._chance, self._clock, self._observer = chance, clock, observer

    async def command(
        self, process: SimulatedProcess, scheduler: Scheduler, kind: str, job_id: str
    ) -> None:
        """Give one command, with parameters that chance decides.

        Args:
            process: The process whose scheduler gets the command.
            scheduler: The scheduler.
            kind: The command, one of ``COMMANDS``.
            job_id: The id of the job.
        """
        chance, now = self._chance, self._clock.now()
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
        changed = ", ".join(f"{name} = {show(value)}" for name, value in changes.items() if value)
        self._observer.noted(process, f"{kind} {job_id!r}", changed)
        token = commanded.set(Command(kind, changes, until))
        try:
            if kind == "submit":
                spec = JobSpec(job_id, schedule, policy=policy)
                self._observer.noted(process, "submit", describe(spec))
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
        ) as refused:
            what = f"{type(refused).__name__} {refused}"
            self._observer.noted(process, f"{kind} {job_id!r}:", what)
        finally:
            commanded.reset(token)

    def _schedule(self) -> Schedule:
        name = self._chance.choice(tuple(SCHEDULES))
        schedule = SCHEDULES[name]
        if isinstance(schedule, timedelta):
            return Once(self._clock.now() + schedule)
        return schedule
