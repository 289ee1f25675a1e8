"""Commands that show jobs, and change nothing."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Annotated

import typer

from sched_cli.application import (
    LOOK,
    AsJson,
    JobId,
    app,
    entry_of,
    now_of,
    settings_of,
    with_scheduler,
)
from sched_cli.cells import print_fields, print_table, state_cell, status_cell
from sched_cli.fields import job_fields, running_fields
from sched_cli.fleet import no_route_since
from sched_cli.output import Cell, Column, folded_to_edge, print_json, say
from sched_cli.text import (
    entries_text,
    iso,
    local,
    next_of,
    policy_text,
    progress_text,
    relative,
    schedule_of,
    schedule_text,
    span,
)
from sched_cli.timeline import FAILED as FAILED_HERE
from sched_cli.timeline import LEGEND, OTHER, plot
from sched_core import (
    ClaimQuery,
    Cron,
    Execution,
    ExecutionQuery,
    Job,
    JobQuery,
    JobSpec,
    Pending,
    Running,
    Scheduler,
    State,
    SystemClock,
    Undecodable,
    upcoming,
)
from sched_core.advice import advise

JOBS = (
    Column("id", key=True),
    Column("schedule", least=14),
    Column("state", least=7),
    Column("next"),
    Column("last"),
    Column("group", least=8, optional=True),
)
QUEUE = Column("queue", least=8, optional=True)


@app.command(rich_help_panel=LOOK, epilog="Example: sched jobs --prefix report- --state paused")
def jobs(
    context: typer.Context,
    prefix: Annotated[str, typer.Option(help="Only jobs whose id starts with this text.")] = "",
    state: Annotated[State | None, typer.Option(help="Only jobs in this state.")] = None,
    group: Annotated[str | None, typer.Option(help="Only jobs of this group.")] = None,
    queue: Annotated[str | None, typer.Option(help="Only jobs of this queue.")] = None,
    metadata: Annotated[
        list[str] | None,
        typer.Option(
            "--meta",
            metavar="KEY=VALUE",
            help="Only jobs with this entry in their metadata; may be repeated.",
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """List jobs with their schedule and their next run."""
    entries = dict(entry_of(text, "--meta") for text in metadata or [])
    query = JobQuery(state, prefix, group, entries, queue)

    async def main(scheduler: Scheduler) -> None:
        found = [job async for job in scheduler.list_jobs(query)]
        workers, now = await scheduler.list_workers(), now_of(scheduler)
        readable = [job for job in found if isinstance(job, Job)]
        no_route = {
            job.id: since
            for job in readable
            if (since := no_route_since(job, workers, now)) is not None
        }
        if as_json:
            print_json([job_fields(job, no_route.get(job.id)) for job in found])
            return
        # Most stores have one queue: it needs no column.
        several = len({job.spec.queue for job in readable}) > 1
        rows: list[list[str | Cell]] = []
        for job in found:
            if isinstance(job, Undecodable):
                unreadable = Cell("unreadable", "red")
                rows.append([job.id, job.reason, unreadable, "-", "-", "", *[""] * several])
                continue
            row: list[str | Cell] = [
                job.id,
                schedule_text(job.spec.schedule),
                state_cell(job, no_route=job.id in no_route),
                relative(next_of(job), now),
                status_cell(job.standing.last_status),
                job.spec.group or "",
            ]
            rows.append([*row, job.spec.queue] if several else row)
        print_table((*JOBS, QUEUE) if several else JOBS, rows, "no jobs")

    with_scheduler(context, main)


@app.command(rich_help_panel=LOOK)
def show(context: typer.Context, job_id: JobId, as_json: AsJson = False) -> None:
    """Show one job: its definition, its state, its run, its last one and its next ones."""
    utc = settings_of(context).utc

    async def main(scheduler: Scheduler) -> None:
        job = await scheduler.get_job(job_id)
        runs = [run async for run in scheduler.list_running(ClaimQuery(job_id=job_id))]
        workers, now = await scheduler.list_workers(), now_of(scheduler)
        no_route, coming = no_route_since(job, workers, now), _coming(job, now)
        if as_json:
            more = {
                "runs": [running_fields(run) for run in runs],
                "upcoming": [iso(moment) for moment in coming],
            }
            print_json(job_fields(job, no_route) | more)
            return
        rows = _rows_of(job, _run(job, runs, utc=utc), no_route, utc=utc)
        for number, moment in enumerate(coming):
            shown = f"{local(moment, utc=utc)}  {relative(moment, now)}"
            rows.append(("next" if number == 0 else "", shown))
        # Only what names the job is copied as a whole.
        print_fields(rows, frozenset({"id", "name", "group", "queue"}))

    with_scheduler(context, main)


def _rows_of(
    job: Job, run: str | None, no_route: datetime | None, *, utc: bool
) -> list[tuple[str, object]]:
    spec, standing = job.spec, job.standing
    one, pause, skip = standing.scheduled, standing.pause, standing.skip
    return [
        ("id", spec.id),
        ("name", spec.name),
        ("group", spec.group),
        ("queue", spec.queue),
        ("schedule", schedule_text(spec.schedule)),
        ("metadata", entries_text(spec.metadata)),
        ("policy", policy_text(spec.policy)),
        ("declared", "by the service" if job.declared else "submitted"),
        ("state", job.state.value),
        ("running", run),
        (
            "no route",
            no_route and f"since {local(no_route, utc=utc)}: no live worker has a function for it",
        ),
        ("paused by", pause and pause.actor),
        ("paused until", pause and pause.until and local(pause.until, utc=utc)),
        ("pause reason", pause and pause.reason),
        ("skips", skip and local(skip, utc=utc) + _by(standing.skip_actor)),
        ("requests", ", ".join(_request(asked) for asked in standing.requests)),
        (
            "cancels",
            ", ".join(f"{job.uid}:{mark.number}{_by(mark.actor)}" for mark in standing.cancels),
        ),
        ("attempts", f"{one.attempts}, {one.failures} failed" if one and one.attempts else None),
        ("last", standing.last_status and standing.last_status.value),
        ("last ended", standing.last_finished_at and local(standing.last_finished_at, utc=utc)),
        ("expires", standing.expires_at and local(standing.expires_at, utc=utc)),
    ]


def _by(actor: str | None) -> str:
    return f" by {actor}" if actor else ""


def _request(asked: Pending) -> str:
    args = f" ({entries_text(asked.args)})" if asked.args else ""
    return f"{asked.kind.value}{_by(asked.actor)}{args}"


def _run(job: Job, runs: list[Running], *, utc: bool) -> str | None:
    run = next((run for run in runs if run.key == f"{job.uid}:{job.held}"), None)
    if run is None:
        return None if job.held_at is None else f"since {local(job.held_at, utc=utc)}"
    said = [f"since {local(run.since, utc=utc)}", f"attempt {run.attempt}", f"on {run.worker}"]
    if run.lease_left.total_seconds() < 0:
        said.append(f"its lease ended {span(run.lease_left)} ago")
    if run.progress is not None:
        said.append(progress_text(run.progress))
    return ", ".join(said)


@app.command(
    "next",
    rich_help_panel=LOOK,
    epilog="Example: sched next '30 2 * * *' --tz Europe/Berlin",
)
def next_(
    context: typer.Context,
    expression: Annotated[
        str,
        typer.Argument(
            metavar="EXPR",
            help="A cron expression, [bold]every 90s[/], or a moment.",
            show_default=False,
        ),
    ],
    tz: Annotated[
        str | None, typer.Option(help="The time zone of a cron expression; UTC unless given.")
    ] = None,
    count: Annotated[
        int,
        typer.Option("--count", "-n", metavar="N", min=1, max=1000, help="Show N occurrences."),
    ] = 5,
    as_json: AsJson = False,
) -> None:
    """Show when a schedule occurs next, and what may surprise about it; needs no store."""
    now = SystemClock().now()
    zone = "UTC" if tz is None else Cron("0 0 * * *", tz).tz  # which says what is wrong with it
    schedule = schedule_of(expression, zone)
    moments = upcoming(schedule, now, count)
    advice = advise(JobSpec("next", schedule), now=now)
    if as_json:
        print_json({"upcoming": [iso(moment) for moment in moments], "advice": advice})
        return
    for moment in moments:
        say(f"{local(moment, utc=settings_of(context).utc, tz=tz)}  {relative(moment, now)}")
    if not moments:
        say("never again")
    for sentence in advice:
        say(Cell(f"note: {sentence}", "yellow"))


@app.command(rich_help_panel=LOOK)
def day(
    context: typer.Context,
    prefix: Annotated[str, typer.Option(help="Only jobs whose id starts with this text.")] = "",
    hours: Annotated[
        int,
        typer.Option(metavar="N", min=1, max=24 * 31, help="Draw N hours back and N hours ahead."),
    ] = 24,
    as_json: AsJson = False,
) -> None:
    """Draw the last day and the next day, one row per job."""

    async def main(scheduler: Scheduler) -> None:
        now, reach = now_of(scheduler), timedelta(hours=hours)
        listed = [job async for job in scheduler.list_jobs(JobQuery(id_prefix=prefix))]
        query = ExecutionQuery(since=now - reach)
        executions = [
            each
            async for each in scheduler.list_executions(query)
            if isinstance(each, Execution) and each.job_id.startswith(prefix)
        ]
        stored = [job for job in listed if isinstance(job, Job)]
        rows = plot(stored, executions, now=now, reach=reach)
        if as_json:
            print_json([{"id": row.id, "past": row.past, "future": row.future} for row in rows])
            return
        columns = [Column("job", key=True), Column(f"last {hours} h"), Column(f"next {hours} h")]
        print_table(
            columns,
            [[row.id, Cell(row.past, _colour(row.past)), Cell(row.future, "cyan")] for row in rows],
            "no jobs",
        )
        if rows:
            for line in folded_to_edge(LEGEND, 0):
                say(line)

    with_scheduler(context, main)


def _coming(job: Job, now: datetime) -> list[datetime]:
    first = job.next_run
    if first is None:
        return []
    return [first, *upcoming(job.spec.schedule, max(first, now), 4, anchor=job.anchor)]


def _colour(past: str) -> str:
    return "red" if FAILED_HERE in past else "yellow" if OTHER in past else "green"
