"""What operators do, by the names that histories use."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from attrs import evolve
from tests.core.occurrences.clock import M

from sched_core._model.execution import Kind
from sched_core._model.job import Job
from sched_core._rules import define as defines
from sched_core._rules import operate, request
from sched_core.errors import RevisionConflict
from sched_testkit._oracle.incarnations import Request

if TYPE_CHECKING:
    from tests.core.occurrences.world import World


def edit(world: World, job: Job, argument: str) -> None:
    """Give the job the next schedule."""
    chosen, world.schedule = world.schedule, (world.schedule + 1) % len(world.scenario.schedules)
    schedule = world.next_schedule()
    change = defines.redefine(job, evolve(job.spec, schedule=schedule), now=world.now)
    if change is None:
        return
    try:
        world.row.check(job)
    except RevisionConflict:
        world.schedule = chosen
        raise
    if schedule == job.spec.schedule and change.job.next_run == job.next_run:
        world.replace(change.job)  # only a request's wait was put right
        return
    before = operate.resumed_if_over(job, now=world.now).standing.last_number
    world.judge.known.reschedule(job.uid, schedule, world.now, job, before)
    world.replace(change.job, change.executions)


def policy(world: World, job: Job, argument: str) -> None:
    """Give the job the next policy."""
    chosen = (world.policy + 1) % len(world.scenario.policies)
    spec = evolve(job.spec, policy=world.scenario.policies[chosen])
    change = defines.redefine(job, spec, now=world.now)
    if change is not None:
        world.row.check(job)
        if change.job.next_run != job.next_run:  # a clock that had been ahead is put right
            world.judge.known.reschedule(
                job.uid, spec.schedule, world.now, job, job.standing.last_number
            )
        world.replace(change.job, change.executions)
        world.policy = chosen
        world.judge.known.incarnations[job.uid].edits += 1
        # How many claims may be lost is another number now.
        world.judge.observed.fatal.clear()
        world.judge.observed.lost.clear()


def remove(world: World, job: Job, argument: str) -> None:
    """Remove the job."""
    found = defines.final_executions(job, now=world.now)
    world.row.check(job)
    world.judge.known.remove(job.uid, world.now, job)
    world.row.remove(job, found, world.judge.history)


def pause(world: World, job: Job, argument: str) -> None:
    """Pause the job, for so many minutes if any are told."""
    until = world.now + int(argument) * M if argument else None
    world.replace(operate.pause(job, until=until, reason=None, now=world.now))
    incarnation = world.judge.known.incarnations[job.uid]
    if job.standing.scheduled is None and not job.standing.requests:
        return
    in_force = incarnation.paused_at(world.now)
    if in_force is not None:
        in_force.end = in_force.until = until
        return
    one = job.standing.scheduled
    held = one.scheduled_at if one is not None and one.number == job.held else None
    incarnation.pause(world.now, until, world.judge.known.seq, held)


def resume(world: World, job: Job, argument: str) -> None:
    """End the pause."""
    world.replace(operate.resume(job, at=world.now))
    incarnation = world.judge.known.incarnations[job.uid]
    if incarnation.paused_at(world.now) is not None:
        incarnation.resume(world.judge.known.seq, world.now)


def trigger(world: World, job: Job, argument: str) -> None:
    """Ask for a run; with an argument, for one that has a key."""
    args = {"by": "me"} if argument else None
    number = world.ask(job, request.trigger(job, now=world.now, args=args, key=argument or None))
    asked = Request(world.read_at, number, Kind.TRIGGERED, args)
    world.judge.known.incarnations[job.uid].requests.append(asked)


def backfill(world: World, job: Job, argument: str) -> None:
    """Ask for the last 25 minutes."""
    since, until = world.now - 25 * M, world.now
    number = world.ask(job, request.backfill(job, since=since, until=until, now=world.now))
    asked = Request(world.read_at, number, Kind.BACKFILLED, None, since, until)
    world.judge.known.incarnations[job.uid].requests.append(asked)


def skip(world: World, job: Job, argument: str) -> None:
    """Mark the next moment."""
    world.replace(operate.skip_next(job, now=world.now))
    world.judge.known.incarnations[job.uid].skips.append((world.judge.known.seq, world.now))


def unskip(world: World, job: Job, argument: str) -> None:
    """Take the mark away."""
    world.replace(operate.unskip(job))
    world.judge.known.incarnations[job.uid].unskipped = True


def hurry(world: World, job: Job, argument: str) -> None:
    """Have what waits for its next attempt run now."""
    world.replace(operate.retry_now(job, now=world.now))
    world.waits.clear()
    world.judge.observed.lost.clear()


def cancel(world: World, job: Job, argument: str) -> None:
    """Cancel what is held, or else what is there."""
    standing = job.standing
    ones = [*standing.requests, *([standing.scheduled] if standing.scheduled else [])]
    number = None if job.held is not None or not ones else ones[0].number
    marked = operate.cancel(job, now=world.now, number=number)
    world.row.check(job)
    world.judge.known.incarnations[job.uid].cancels |= {
        mark.number for mark in marked.standing.cancels if mark not in standing.cancels
    }
    world.replace(marked)


COMMANDS: dict[str, Callable[[World, Job, str], None]] = {
    "edit": edit,
    "policy": policy,
    "remove": remove,
    "pause": pause,
    "resume": resume,
    "trigger": trigger,
    "backfill": backfill,
    "skip": skip,
    "unskip": unskip,
    "hurry": hurry,
    "cancel": cancel,
}
