"""Commands that cancel runs, and that ask for them again."""

from __future__ import annotations

from enum import Enum
from typing import Annotated, Any

import typer

from sched_cli.application import (
    ACT,
    WRONG,
    Actor,
    AsJson,
    DryRun,
    JobId,
    Reason,
    Yes,
    actor_of,
    app,
    fail,
    now_of,
    settings_of,
    with_scheduler,
)
from sched_cli.asking import confirm, need_answer
from sched_cli.fields import request_fields
from sched_cli.operations import show_changed
from sched_cli.output import print_json, say
from sched_cli.selection import (
    Action,
    All,
    Choice,
    InState,
    OfGroup,
    OfQueue,
    WithPrefix,
    on_each,
)
from sched_cli.text import counted, local, moment_of, relative
from sched_core import (
    ClaimQuery,
    ExecutionQuery,
    Job,
    JobQuery,
    NothingToCancel,
    Request,
    Scheduler,
    Status,
)

KEY = "The occurrence's idempotency key: running, show --json and trigger name it."
MaybeKey = Annotated[str | None, typer.Argument(metavar="KEY", help=KEY, show_default=False)]


class Only(Enum):
    """The moments of a range that are backfilled."""

    MISSED = "missed"
    FAILED = "failed"


@app.command(rich_help_panel=ACT, epilog="Example: sched cancel 1f0c9b5e7a4d4c0f8a3e2b6d9c7f5a10:2")
def cancel(
    context: typer.Context,
    key: MaybeKey = None,
    job: Annotated[
        str | None,
        typer.Option(
            metavar="ID",
            help="The run of this job: it names the run's key, asks, and cancels that run alone.",
            show_default=False,
        ),
    ] = None,
    group: OfGroup = None,
    queue: OfQueue = None,
    prefix: WithPrefix = None,
    state: InState = None,
    all_: All = False,
    reason: Reason = None,
    actor: Actor = None,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Cancel an occurrence, whether it runs or waits, or the runs of many jobs; no retry follows.

    The worker of a run cancels its handler within seconds.
    """
    if key is not None and job is not None:
        fail("--job: give either it or KEY", code=WRONG)
    one, by = key if job is None else job, actor_of(actor)
    target = Choice(group, queue, prefix, state, all_).target(one, name="KEY or --job")

    async def main(scheduler: Scheduler) -> int | None:
        if isinstance(target, JobQuery):

            async def act(found: Job) -> dict[str, Any] | None:
                # By the key that was counted: a run that has begun since is another one.
                held = f"{found.uid}:{found.held}"
                try:
                    marked = await scheduler.cancel_run(
                        held, job_id=found.id, reason=reason, actor=by
                    )
                except NothingToCancel:
                    return None
                return {"key": marked}

            action = Action("cancel", "cancelled", lambda each: each.running, act, "run")
            return await on_each(scheduler, target, action, yes=yes, as_json=as_json)
        named = target
        if job is not None:
            named, shown = await _run_of(scheduler, job)
            await confirm(f"Cancel {shown}?", yes=yes)
        marked = await scheduler.cancel_run(named, job_id=job, reason=reason, actor=by)
        if as_json:
            print_json({"key": marked})
        else:
            say(f"{marked}: to be cancelled")
        return None

    with_scheduler(context, main)


async def _run_of(scheduler: Scheduler, job_id: str) -> tuple[str, str]:
    """Return the key of a job's run, and the run in words.

    Raises:
        NothingToCancel: It does not run.
    """
    job = await scheduler.get_job(job_id)
    if job.held is None:
        raise NothingToCancel(job_id)
    key = f"{job.uid}:{job.held}"
    shown = f"run {key} of {job_id!r}"
    async for run in scheduler.list_running(ClaimQuery(job_id=job_id)):
        if run.key == key:
            shown += f", since {relative(run.since, now_of(scheduler))} on {run.worker}"
    return key, shown


@app.command(rich_help_panel=ACT)
def retry(
    context: typer.Context,
    key: MaybeKey = None,
    job: Annotated[
        str | None,
        typer.Option(metavar="ID", help="All that waits of this job.", show_default=False),
    ] = None,
    actor: Actor = None,
    as_json: AsJson = False,
) -> None:
    """Attempt now what waits for its next attempt, after a failure, a snooze or a lost claim."""
    if (key is None) == (job is None):
        fail("KEY: give either it or --job", code=WRONG)
    by = actor_of(actor)

    async def main(scheduler: Scheduler) -> None:
        changed = await scheduler.retry_now(key, job_id=job, actor=by)
        show_changed(context, scheduler, changed, as_json=as_json)

    with_scheduler(context, main)


@app.command(rich_help_panel=ACT, epilog="Example: sched rerun --failed --since 12h --job nightly")
def rerun(
    context: typer.Context,
    execution_id: Annotated[
        str | None,
        typer.Argument(
            metavar="EXECUTION",
            help="The execution's id: history --json shows it.",
            show_default=False,
        ),
    ] = None,
    failed: Annotated[
        bool, typer.Option("--failed", help="All moments whose newest outcome is a failure.")
    ] = False,
    since: Annotated[
        str | None,
        typer.Option(
            help="With --failed: what ended since then; a moment, or 2h for two hours ago.",
            show_default="24h",
        ),
    ] = None,
    job: Annotated[
        str | None,
        typer.Option(metavar="ID", help="With --failed: only of this job.", show_default=False),
    ] = None,
    dry_run: DryRun = False,
    actor: Actor = None,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Run again what an execution tells of, or all that failed: for its moment, with its arguments.

    What has succeeded since it failed is left alone.
    """
    if (execution_id is None) != failed:
        fail("EXECUTION: give either it or --failed", code=WRONG)
    for option, given in (("--since", since), ("--job", job), ("--dry-run", dry_run or None)):
        if given is not None and not failed:
            fail(f"{option}: is for --failed", code=WRONG)
    by = actor_of(actor)

    async def main(scheduler: Scheduler) -> None:
        if execution_id is not None:
            key = await scheduler.rerun(execution_id, actor=by)
            if as_json:
                print_json({"execution": execution_id, "key": key})
            else:
                say(f"{execution_id}: runs again, its key is {key}")
            return
        if not dry_run:
            need_answer(yes=yes)
        after = moment_of(since or "24h", now_of(scheduler), past=True, field="--since")
        if job is not None:
            await scheduler.get_job(job)  # an unknown id is a typing error, and no empty choice
        query = ExecutionQuery(job_id=job, statuses=frozenset({Status.FAILED}), since=after)
        asked = await scheduler.rerun_all(query, dry_run=True)
        if not dry_run and asked:
            await confirm(f"Run {_moments(asked)} again?", yes=yes)
            asked = await scheduler.rerun_all(query, actor=by)
        _print_requests(context, asked, "nothing has failed", dry_run=dry_run, as_json=as_json)

    with_scheduler(context, main)


@app.command(
    rich_help_panel=ACT,
    epilog="Example: sched backfill report 2026-11-01 2026-11-30 --only missed --dry-run",
)
def backfill(
    context: typer.Context,
    job_id: JobId,
    start: Annotated[
        str,
        typer.Argument(metavar="START", help="A moment, or 7d for a week ago.", show_default=False),
    ],
    end: Annotated[
        str,
        typer.Argument(metavar="END", help="A moment, or 0s for now.", show_default=False),
    ],
    only: Annotated[
        Only | None,
        typer.Option(help="Only moments whose newest outcome is this one.", show_default=False),
    ] = None,
    dry_run: DryRun = False,
    actor: Actor = None,
    as_json: AsJson = False,
) -> None:
    """Run a job for the moments of its schedule from START to END, one after the other."""
    by = actor_of(actor)

    async def main(scheduler: Scheduler) -> None:
        now = now_of(scheduler)
        asked = await scheduler.backfill_job(
            job_id,
            moment_of(start, now, past=True, field="START"),
            moment_of(end, now, past=True, field="END"),
            only=None if only is None else only.value,
            dry_run=dry_run,
            actor=by,
        )
        requests = [] if asked is None else [asked]
        nothing = (
            f"nothing in the range was {only.value}"
            if only is Only.MISSED
            else ("nothing in the range has failed")
        )
        _print_requests(context, requests, nothing, dry_run=dry_run, as_json=as_json)

    with_scheduler(context, main)


def _moments(requests: list[Request]) -> str:
    moments = counted(sum(request.moments for request in requests), "moment")
    return f"{moments} of {counted(len({request.job_id for request in requests}), 'job')}"


def _print_requests(
    context: typer.Context,
    requests: list[Request],
    nothing: str,
    *,
    dry_run: bool,
    as_json: bool,
) -> None:
    if as_json:
        print_json([request_fields(request) for request in requests])
        return
    utc = settings_of(context).utc
    for request in requests:
        first, last = local(request.first, utc=utc), local(request.last, utc=utc)
        span = f"of {first}" if request.moments == 1 else f"from {first} to {last}"
        key = "" if request.key is None else f", the key is {request.key}"
        verb = "would run" if dry_run else "runs"
        say(f"{request.job_id}: {verb} {counted(request.moments, 'moment')} {span}{key}")
    if not requests:
        say(nothing)
