"""Commands that change jobs: one by its id, or many by what they have in common."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Annotated, Any

import typer

from sched_cli.application import (
    ACT,
    FAILED,
    WRONG,
    Actor,
    AsJson,
    Reason,
    Yes,
    actor_of,
    app,
    entry_of,
    fail,
    now_of,
    settings_of,
    with_scheduler,
)
from sched_cli.asking import confirm
from sched_cli.fields import job_fields
from sched_cli.output import print_json, say
from sched_cli.selection import (
    Action,
    All,
    Choice,
    InState,
    MaybeJobId,
    OfGroup,
    OfQueue,
    WithPrefix,
    on_each,
    outcome,
    this_one,
)
from sched_cli.text import iso, local, moment_of, relative, schedule_text
from sched_core import Interval, Job, JobQuery, JobSpec, Scheduler, State


@app.command(
    rich_help_panel=ACT, epilog="Example: sched pause nightly --until 2h --reason 'disk full'"
)
def pause(
    context: typer.Context,
    job_id: MaybeJobId = None,
    group: OfGroup = None,
    queue: OfQueue = None,
    prefix: WithPrefix = None,
    state: InState = None,
    all_: All = False,
    until: Annotated[
        str | None,
        typer.Option(help="When the pause ends on its own: a moment, or 2h for in two hours."),
    ] = None,
    reason: Reason = None,
    actor: Actor = None,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Pause a job, or many; a run in flight ends as usual.

    Of many, those that are paused already keep their pause and its reason.
    """
    target, by = Choice(group, queue, prefix, state, all_).target(job_id), actor_of(actor)

    def end(scheduler: Scheduler) -> datetime | None:
        now = now_of(scheduler)
        return None if until is None else moment_of(until, now, past=False, field="--until")

    async def one(scheduler: Scheduler, job_id: str) -> Job:
        return await scheduler.pause_job(job_id, until=end(scheduler), reason=reason, actor=by)

    def each(scheduler: Scheduler, query: JobQuery) -> Action:
        ends = end(scheduler)

        async def act(job: Job) -> dict[str, Any] | None:
            # It leaves alone what was paused while the question was open.
            return outcome(
                await scheduler.pause_jobs(
                    this_one(query, job), until=ends, reason=reason, actor=by
                )
            )

        return Action("pause", "paused", lambda job: job.state is State.ACTIVE, act)

    _operate(context, target, one, each, yes=yes, as_json=as_json)


@app.command(rich_help_panel=ACT, epilog="Example: sched resume --all --reason 'disk full'")
def resume(
    context: typer.Context,
    job_id: MaybeJobId = None,
    group: OfGroup = None,
    queue: OfQueue = None,
    prefix: WithPrefix = None,
    state: InState = None,
    all_: All = False,
    reason: Annotated[
        str | None, typer.Option(help="Only where the pause has this reason.", show_default=False)
    ] = None,
    actor: Actor = None,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """End the pause of a job, or of many."""
    target, by = Choice(group, queue, prefix, state, all_).target(job_id), actor_of(actor)

    def is_meant(job: Job) -> bool:
        pause = job.standing.pause
        return pause is not None and (reason is None or pause.reason == reason)

    async def one(scheduler: Scheduler, job_id: str) -> Job:
        job = await scheduler.get_job(job_id)
        pause = job.standing.pause
        if pause is not None and not is_meant(job):
            fail(f"{job_id!r} stays paused: its reason is {pause.reason!r}", code=FAILED)
        return await scheduler.resume_job(job_id, actor=by)

    def each(scheduler: Scheduler, query: JobQuery) -> Action:
        async def act(job: Job) -> dict[str, Any] | None:
            only = this_one(query, job)
            return outcome(await scheduler.resume_jobs(only, reason=reason, actor=by))

        return Action("resume", "resumed", is_meant, act)

    _operate(context, target, one, each, yes=yes, as_json=as_json)


@app.command(rich_help_panel=ACT, epilog="Example: sched trigger report --arg day=2026-11-01")
def trigger(
    context: typer.Context,
    job_id: MaybeJobId = None,
    group: OfGroup = None,
    queue: OfQueue = None,
    prefix: WithPrefix = None,
    state: InState = None,
    all_: All = False,
    arg: Annotated[
        list[str] | None,
        typer.Option(metavar="KEY=VALUE", help="A text for the handler; may be repeated."),
    ] = None,
    request_key: Annotated[
        str | None,
        typer.Option(
            "--request-key",
            help="A name: until the run has ended, the same name is the same request.",
            show_default=False,
        ),
    ] = None,
    actor: Actor = None,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Run a job, or many, once now, in addition to the schedule, on a worker of the service."""
    target, by = Choice(group, queue, prefix, state, all_).target(job_id), actor_of(actor)
    args = dict(entry_of(text, "--arg") for text in arg or []) or None

    async def ask(scheduler: Scheduler, job_id: str) -> str:
        return await scheduler.trigger_job(job_id, args=args, request_key=request_key, actor=by)

    async def main(scheduler: Scheduler) -> int | None:
        if isinstance(target, JobQuery):

            async def act(job: Job) -> dict[str, Any]:
                return {"key": await ask(scheduler, job.id)}

            action = Action("trigger", "triggered", lambda _: True, act)
            return await on_each(scheduler, target, action, yes=yes, as_json=as_json)
        key = await ask(scheduler, target)
        if as_json:
            print_json({"id": target, "key": key})
        else:
            say(f"{target}: triggered, its key is {key}")
        return None

    with_scheduler(context, main)


@app.command(rich_help_panel=ACT)
def skip(
    context: typer.Context,
    job_id: MaybeJobId = None,
    group: OfGroup = None,
    queue: OfQueue = None,
    prefix: WithPrefix = None,
    state: InState = None,
    all_: All = False,
    at: Annotated[
        str | None,
        typer.Option(
            metavar="MOMENT",
            help="Skip the occurrence of this moment instead of the next one.",
            show_default=False,
        ),
    ] = None,
    undo: Annotated[bool, typer.Option("--undo", help="Take the skip back.")] = False,
    actor: Actor = None,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Skip the next occurrence of a job, or of many."""
    target, by = Choice(group, queue, prefix, state, all_).target(job_id), actor_of(actor)
    if undo and at is not None:
        fail("--at: says what to skip: leave it out with --undo", code=WRONG)

    async def one(scheduler: Scheduler, job_id: str) -> Job:
        if undo:
            return await scheduler.unskip(job_id, actor=by)
        now = now_of(scheduler)
        moment = None if at is None else moment_of(at, now, past=False, field="--at")
        return await scheduler.skip_next(job_id, moment=moment, actor=by)

    def is_meant(job: Job) -> bool:
        return job.standing.skip is not None if undo else job.next_run is not None

    def each(scheduler: Scheduler, _: JobQuery) -> Action:
        async def act(job: Job) -> dict[str, Any]:
            skipped = (await one(scheduler, job.id)).standing.skip
            return {} if skipped is None else {"skips": iso(skipped)}

        if undo:
            return Action("take the skip back from", "took the skip back from", is_meant, act)
        return Action("skip the next occurrence of", "skips the next occurrence of", is_meant, act)

    _operate(context, target, one, each, yes=yes, as_json=as_json)


@app.command(rich_help_panel=ACT)
def remove(
    context: typer.Context,
    job_id: MaybeJobId = None,
    group: OfGroup = None,
    queue: OfQueue = None,
    prefix: WithPrefix = None,
    state: InState = None,
    all_: All = False,
    cancel: Annotated[
        bool, typer.Option("--cancel", help="Cancel its run in flight, too; else that goes on.")
    ] = False,
    reason: Annotated[
        str | None, typer.Option(help="Why the run is cancelled, for people.", show_default=False)
    ] = None,
    actor: Actor = None,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Remove a job, or many; the history stays. A service that declares a job adds it again."""
    target, by = Choice(group, queue, prefix, state, all_).target(job_id), actor_of(actor)

    async def main(scheduler: Scheduler) -> int | None:
        if isinstance(target, JobQuery):

            async def act(job: Job) -> dict[str, Any] | None:
                only = this_one(target, job)
                return outcome(
                    await scheduler.remove_jobs(only, cancel=cancel, reason=reason, actor=by)
                )

            action = Action("remove", "removed", lambda _: True, act)
            return await on_each(scheduler, target, action, yes=yes, as_json=as_json)
        job = await scheduler.get_job(target)
        await confirm(f"Remove {target!r} ({schedule_text(job.spec.schedule)})?", yes=yes)
        await scheduler.remove_job(target, cancel=cancel, reason=reason, actor=by)
        if as_json:
            print_json({"removed": target})
        else:
            say(f"removed {target!r}")
        return None

    with_scheduler(context, main)


@app.command(rich_help_panel=ACT, epilog="Example: sched requeue bulk nightly-bulk")
def requeue(
    context: typer.Context,
    old: Annotated[str, typer.Argument(metavar="OLD", help="The queue.", show_default=False)],
    new: Annotated[
        str, typer.Argument(metavar="NEW", help="The queue they move to.", show_default=False)
    ],
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Move all jobs of a queue to another. A service that declares a job moves it back."""
    JobSpec("requeue", Interval(hours=1), queue=new)  # which says what is wrong with the name
    if old == new:
        fail(f"NEW: must be another queue than {old!r}", code=WRONG)

    async def main(scheduler: Scheduler) -> int:
        async def act(job: Job) -> dict[str, Any] | None:
            if (await scheduler.get_job(job.id)).spec.queue != old:
                return None
            await scheduler.update_job(job.id, queue=new)
            return {}

        name, done = f"move to queue {new!r}", f"moved to queue {new!r}:"
        action = Action(name, done, lambda _: True, act)
        return await on_each(scheduler, JobQuery(queue=old), action, yes=yes, as_json=as_json)

    with_scheduler(context, main)


@app.command(rich_help_panel=ACT, epilog="Example: sched prune --before 90d")
def prune(
    context: typer.Context,
    before: Annotated[
        str,
        typer.Option(help="Delete what ended before then: a moment, or 30d for 30 days ago."),
    ],
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Delete history that ended before a moment, and all that has expired."""

    async def main(scheduler: Scheduler) -> None:
        moment = moment_of(before, now_of(scheduler), past=True, field="--before")
        shown = local(moment, utc=settings_of(context).utc)
        await confirm(f"Delete all history that ended before {shown}?", yes=yes)
        deleted = await scheduler.prune(moment)
        if as_json:
            print_json({"deleted": deleted})
        else:
            say(f"deleted {deleted}")

    with_scheduler(context, main)


def _operate(
    context: typer.Context,
    target: JobQuery | str,
    one: Callable[[Scheduler, str], Awaitable[Job]],
    each: Callable[[Scheduler, JobQuery], Action],
    *,
    yes: bool,
    as_json: bool,
) -> None:
    """Change one job and show it, or change many."""

    async def main(scheduler: Scheduler) -> int | None:
        if isinstance(target, JobQuery):
            action = each(scheduler, target)
            return await on_each(scheduler, target, action, yes=yes, as_json=as_json)
        show_changed(context, scheduler, await one(scheduler, target), as_json=as_json)
        return None

    with_scheduler(context, main)


def show_changed(context: typer.Context, scheduler: Scheduler, job: Job, *, as_json: bool) -> None:
    """Show a job after a change."""
    if as_json:
        print_json(job_fields(job))
        return
    standing, pause, utc = job.standing, job.standing.pause, settings_of(context).utc
    said = [f"{job.id}: {job.state.value}"]
    if standing.skip is not None:
        said.append(f"skips {local(standing.skip, utc=utc)}")
    if pause is not None and pause.until is not None:
        said.append(f"until {local(pause.until, utc=utc)}")
    if job.next_run is not None:
        said.append(f"next {relative(job.next_run, now_of(scheduler))}")
    say(", ".join(said))
