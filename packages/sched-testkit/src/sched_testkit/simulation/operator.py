"""Gives the commands of a simulated history: chance decides what they say."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from random import Random
from typing import Any

from attrs import evolve, frozen

from sched_core import (
    BackendError,
    CatchUp,
    Coalesce,
    Cron,
    Drop,
    ExecutionNotFound,
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
from sched_testkit._oracle.narration import describe, show
from sched_testkit._stories.entry import pendings
from sched_testkit.simulation.clock import SimulatedClock, SimulatedProcess
from sched_testkit.simulation.endings import PlannedAgain
from sched_testkit.simulation.observer import Command, Observer, commanded

S = timedelta(seconds=1)
FIRST_COMMANDS = (
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
COMMANDS = (*FIRST_COMMANDS, "cancel", "cancel", "retry", "ask", "rerun", "backfill")
SCHEDULES: dict[str, Schedule | timedelta] = {
    "every 2 s": Interval(seconds=2),
    "every 7 s": Interval(seconds=7),
    "every minute": Interval(seconds=60),
    "once now": 0 * S,
    "once in 3 s": 3 * S,
    "3 s after each run": FixedDelay(seconds=3),
    "cron": Cron("* * * * *"),
}


FIRST_POLICIES = {
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
}
POLICIES = {
    **FIRST_POLICIES,
    "1 s and 4 s apart": Policy(retry=Retry(4, delays=(1 * S, 4 * S), jitter=0.2)),
    "1 s at most, only timeouts": Policy(
        timeout=1 * S, retry=Retry(3, 1 * S, only=(TimeoutError,))
    ),
    "never again": Policy(retry=Retry(5, 1 * S, never=(PlannedAgain,)), overdue=5 * S),
    "snoozed once": Policy(max_snoozes=1),
    "never snoozed, 3 attempts": Policy(max_snoozes=0, retry=Retry(3, 1 * S)),
}


@frozen
class Repertoire:
    """What may happen in a history; a seed draws from it, so it is a part of the seed's name.

    Attributes:
        commands: The commands; one that is there twice is given twice as often.
        policies: The policies of jobs.
        handlers_ask: Whether handlers snooze, ask for another attempt and discard.
    """

    commands: tuple[str, ...]
    policies: Mapping[str, Policy]
    handlers_ask: bool = True


WHOLE = Repertoire(COMMANDS, POLICIES)
FIRST = Repertoire(FIRST_COMMANDS, FIRST_POLICIES, handlers_ask=False)
"""What happened in the first histories: seeds that had a finding then play them again."""


class Operator:
    """Gives commands to schedulers.

    Args:
        chance: The source of every decision.
        clock: The clock of the simulated machine.
        observer: The observer that must know which command a write belongs to.
        repertoire: The commands and policies to choose from.
    """

    def __init__(
        self, chance: Random, clock: SimulatedClock, observer: Observer, repertoire: Repertoire
    ) -> None:
        self._chance, self._clock, self._observer = chance, clock, observer
        self._repertoire = repertoire

    async def command(
        self, process: SimulatedProcess, scheduler: Scheduler, kind: str, job_id: str
    ) -> None:
        """Give one command, with parameters that chance decides.

        Args:
            process: The process whose scheduler gets the command.
            scheduler: The scheduler.
            kind: The command, one of the repertoire.
            job_id: The id of the job.
        """
        chance, now, policies = self._chance, self._clock.now(), self._repertoire.policies
        schedule, policy = self._schedule(), policies[chance.choice(tuple(policies))]
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
        order = self._order(kind, job_id, Command(kind, changes, until))
        self._observer.noted(process, f"{kind} {job_id!r}", changed or order.about)
        token = commanded.set(order)
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
                await scheduler.remove_job(job_id, cancel=order.cancel)
            elif kind == "pause":
                await scheduler.pause_job(job_id, until=until)
            elif kind == "resume":
                await scheduler.resume_job(job_id)
            elif kind == "trigger":
                await scheduler.trigger_job(job_id)
            elif kind == "skip":
                await scheduler.skip_next(job_id)
            elif kind == "unskip":
                await scheduler.unskip(job_id)
            else:
                await self._repeat(scheduler, kind, job_id, order)
        except (
            JobNotFound,
            JobAlreadyExists,
            NothingToSkip,
            NothingToCancel,
            NothingToRetry,
            ExecutionNotFound,
            InvalidDefinition,
            BackendError,
        ) as refused:
            what = f"{type(refused).__name__} {refused}"
            self._observer.noted(process, f"{kind} {job_id!r}:", what)
        finally:
            commanded.reset(token)

    async def _repeat(self, scheduler: Scheduler, kind: str, job_id: str, order: Command) -> None:
        commands = self._observer.oracle.commands
        if kind == "cancel":
            key = await scheduler.cancel_run(order.key, job_id=job_id)
            with self._observer.judging():
                commands.expect_marked(key)
        elif kind == "retry":
            job = await scheduler.retry_now(order.key, job_id=job_id)
            number = order.key and int(order.key.rpartition(":")[2])
            with self._observer.judging():
                commands.expect_hurried(job, self._clock.now(), number or None)
        elif kind == "ask":
            await scheduler.trigger_job(job_id, args=order.args, request_key=order.key)
        elif kind == "rerun":
            await scheduler.rerun(order.key or "")
        elif order.since is not None and order.until is not None:
            await scheduler.backfill_job(job_id, order.since, order.until)

    def _order(self, kind: str, job_id: str, order: Command) -> Command:
        """Return a command with what it names: an occurrence, a request, a range, an execution."""
        chance, oracle = self._chance, self._observer.oracle
        job = self._observer.jobs().get(job_id)
        if kind == "remove" and "cancel" in self._repertoire.commands:
            return evolve(order, cancel=chance.random() < 0.5)
        if kind in {"cancel", "retry"} and job is not None and chance.random() < 0.6:
            numbers = [one.number for one in pendings(job.standing)] or [1]
            return evolve(order, key=f"{job.uid}:{chance.choice(numbers)}")
        if kind == "ask":
            args = {"n": str(chance.randrange(3))} if chance.random() < 0.5 else None
            return evolve(order, args=args, key=chance.choice((None, "x", "x")))
        if kind == "rerun":
            uid = "" if job is None else job.uid
            ids = [one.id for one in oracle.executions.history.executions if one.uid == uid]
            return evolve(order, key=chance.choice(ids) if ids else f"{uid}:1:1")
        if kind == "backfill":
            until = self._clock.now()
            return evolve(order, since=until - chance.choice((2, 8, 30)) * S, until=until)
        return order

    def _schedule(self) -> Schedule:
        name = self._chance.choice(tuple(SCHEDULES))
        schedule = SCHEDULES[name]
        if isinstance(schedule, timedelta):
            return Once(self._clock.now() + schedule)
        return schedule
