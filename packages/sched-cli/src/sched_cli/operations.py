"""Commands that change jobs."""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable
from typing import Annotated

import anyio
import typer

from sched_cli.application import (
    ACT,
    FAILED,
    WRONG,
    AsJson,
    JobId,
    Yes,
    app,
    fail,
    now_of,
    settings_of,
    with_scheduler,
)
from sched_cli.output import print_json, printable, say
from sched_cli.text import (
    job_fields,
    local,
    moment_of,
    relative,
    schedule_text,
)
from sched_core import (
    Job,
    Scheduler,
)


@app.command(
    rich_help_panel=ACT, epilog="Example: sched pause nightly --until 2h --reason 'disk full'"
)
def pause(
    context: typer.Context,
    job_id: JobId,
    until: Annotated[
        str | None,
        typer.Option(help="When the pause ends on its own: a moment, or 2h for in two hours."),
    ] = None,
    reason: Annotated[str | None, typer.Option(help="Why, for people.")] = None,
    as_json: AsJson = False,
) -> None:
    """Pause a job; a run in flight ends as usual."""

    async def act(scheduler: Scheduler) -> Job:
        now = now_of(scheduler)
        end = None if until is None else moment_of(until, now, past=False, field="--until")
        return await scheduler.pause_job(job_id, until=end, reason=reason)

    _operate(context, act, as_json=as_json)


@app.command(rich_help_panel=ACT)
def resume(context: typer.Context, job_id: JobId, as_json: AsJson = False) -> None:
    """End a pause."""
    _operate(context, lambda scheduler: scheduler.resume_job(job_id), as_json=as_json)


@app.command(rich_help_panel=ACT)
def trigger(context: typer.Context, job_id: JobId, as_json: AsJson = False) -> None:
    """Run a job once now, in addition to its schedule, on a worker of its service."""

    async def main(scheduler: Scheduler) -> None:
        key = await scheduler.trigger_job(job_id)
        if as_json:
            print_json({"id": job_id, "key": key})
        else:
            say(f"{job_id}: triggered, its key is {key}")

    with_scheduler(context, main)


@app.command(rich_help_panel=ACT)
def skip(
    context: typer.Context,
    job_id: JobId,
    undo: Annotated[bool, typer.Option("--undo", help="Take the skip back.")] = False,
    as_json: AsJson = False,
) -> None:
    """Skip the next occurrence of a job."""

    async def act(scheduler: Scheduler) -> Job:
        return await (scheduler.unskip(job_id) if undo else scheduler.skip_next(job_id))

    _operate(context, act, as_json=as_json)


@app.command(rich_help_panel=ACT)
def remove(
    context: typer.Context, job_id: JobId, yes: Yes = False, as_json: AsJson = False
) -> None:
    """Remove a job; its history stays. A service that declares it adds it again."""

    async def main(scheduler: Scheduler) -> None:
        job = await scheduler.get_job(job_id)
        await _confirm(f"Remove {job_id!r} ({schedule_text(job.spec.schedule)})?", yes=yes)
        await scheduler.remove_job(job_id)
        if as_json:
            print_json({"removed": job_id})
        else:
            say(f"removed {job_id!r}")

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
        await _confirm(f"Delete all history that ended before {shown}?", yes=yes)
        deleted = await scheduler.prune(moment)
        if as_json:
            print_json({"deleted": deleted})
        else:
            say(f"deleted {deleted}")

    with_scheduler(context, main)


def _operate(
    context: typer.Context, act: Callable[[Scheduler], Awaitable[Job]], *, as_json: bool
) -> None:
    async def main(scheduler: Scheduler) -> None:
        job = await act(scheduler)
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

    with_scheduler(context, main)


async def _confirm(question: str, *, yes: bool) -> None:
    if yes:
        return
    if not sys.stdin.isatty():
        fail("this needs a yes, and there is no terminal to ask at: pass --yes", code=WRONG)
    sys.stdout.write(f"{printable(question)} [y/N]: ")
    sys.stdout.flush()
    # Not by input(), which would keep Ctrl-C from the event loop until there is an answer.
    await anyio.wait_readable(sys.stdin)
    if sys.stdin.readline().strip().lower() not in {"y", "yes"}:
        raise typer.Exit(FAILED)
