"""Commands that show what is stored, and change nothing."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Annotated, Any

import typer

from sched_cli.application import (
    FAILED,
    LOOK,
    WORKER,
    WRONG,
    AsJson,
    JobId,
    app,
    config_of,
    fail,
    now_of,
    settings_of,
    with_scheduler,
)
from sched_cli.doctor import examine
from sched_cli.health import probe
from sched_cli.output import Cell, Column, folded_to_edge, print_json, say, table
from sched_cli.text import (
    execution_fields,
    iso,
    job_fields,
    local,
    moment_of,
    next_of,
    policy_text,
    relative,
    schedule_of,
    schedule_text,
)
from sched_cli.timeline import FAILED as FAILED_HERE
from sched_cli.timeline import LEGEND, OTHER, plot
from sched_core import (
    Cron,
    Execution,
    ExecutionQuery,
    Job,
    JobQuery,
    JobSpec,
    Scheduler,
    State,
    Status,
    SystemClock,
    Undecodable,
    UndecodableExecution,
    upcoming,
)
from sched_core.advice import advise

JOBS = (
    Column("id", key=True),
    Column("schedule", least=14),
    Column("state"),
    Column("next"),
    Column("last"),
    Column("group", least=8, optional=True),
)
HISTORY = (
    Column("ended"),
    Column("job", key=True),
    Column("status"),
    Column("scheduled", optional=True),
    Column("took"),
    Column("attempt"),
    Column("reason", least=10),
)


@app.command(rich_help_panel=LOOK, epilog="Example: sched jobs --prefix report- --state paused")
def jobs(
    context: typer.Context,
    prefix: Annotated[str, typer.Option(help="Only jobs whose id starts with this text.")] = "",
    state: Annotated[State | None, typer.Option(help="Only jobs in this state.")] = None,
    group: Annotated[str | None, typer.Option(help="Only jobs of this group.")] = None,
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
    entries = dict(_entry(text) for text in metadata or [])
    query = JobQuery(state, prefix, group, entries)

    async def main(scheduler: Scheduler) -> None:
        found = [job async for job in scheduler.list_jobs(query)]
        if as_json:
            print_json([job_fields(job) for job in found])
            return
        now = now_of(scheduler)
        rows: list[list[str | Cell]] = []
        for job in found:
            if isinstance(job, Undecodable):
                rows.append([job.id, job.reason, Cell("unreadable", "red"), "-", "-", ""])
                continue
            standing = job.standing
            rows.append(
                [
                    job.id,
                    schedule_text(job.spec.schedule),
                    _state(job.state),
                    relative(next_of(job), now),
                    _status(standing.last_status),
                    job.spec.group or "",
                ]
            )
        _print(JOBS, rows, "no jobs")

    with_scheduler(context, main)


@app.command(rich_help_panel=LOOK)
def show(context: typer.Context, job_id: JobId, as_json: AsJson = False) -> None:
    """Show one job: its definition, its state, its last run and its next ones."""
    utc = settings_of(context).utc

    async def main(scheduler: Scheduler) -> None:
        job, now = await scheduler.get_job(job_id), now_of(scheduler)
        coming = _coming(job, now)
        if as_json:
            print_json(job_fields(job) | {"upcoming": [iso(moment) for moment in coming]})
            return
        spec, standing = job.spec, job.standing
        one, pause = standing.scheduled, standing.pause
        rows: list[tuple[str, str]] = []
        for name, value in (
            ("id", spec.id),
            ("name", spec.name),
            ("group", spec.group),
            ("schedule", schedule_text(spec.schedule)),
            ("metadata", " ".join(f"{key}={value}" for key, value in spec.metadata.items())),
            ("policy", policy_text(spec.policy)),
            ("declared", "by the service" if job.declared else "submitted"),
            ("state", job.state.value),
            ("running", job.held_at and f"since {local(job.held_at, utc=utc)}"),
            ("paused until", pause and pause.until and local(pause.until, utc=utc)),
            ("pause reason", pause and pause.reason),
            ("skips", standing.skip and local(standing.skip, utc=utc)),
            ("requests", " ".join(asked.kind.value for asked in standing.requests)),
            (
                "attempts",
                f"{one.attempts}, {one.failures} failed" if one and one.attempts else None,
            ),
            ("last", standing.last_status and standing.last_status.value),
            ("last ended", standing.last_finished_at and local(standing.last_finished_at, utc=utc)),
            ("expires", standing.expires_at and local(standing.expires_at, utc=utc)),
        ):
            if value:
                rows.append((name, str(value)))
        for number, moment in enumerate(coming):
            shown = f"{local(moment, utc=utc)}  {relative(moment, now)}"
            rows.append(("next" if number == 0 else "", shown))
        width = max(len(name) for name, _ in rows)
        for name, text in rows:
            # Only what names the job is copied as a whole.
            parts = [text] if name in {"id", "name", "group"} else folded_to_edge(text, width + 2)
            for number, part in enumerate(parts):
                say(Cell((name if number == 0 else "").ljust(width), bold=True), "  ", part)

    with_scheduler(context, main)


@app.command(
    rich_help_panel=LOOK, epilog="Example: sched history nightly --status failed --since 2d"
)
def history(
    context: typer.Context,
    job_id: Annotated[
        str | None,
        typer.Argument(metavar="ID", help="Only entries of this job.", show_default=False),
    ] = None,
    status: Annotated[
        list[Status] | None,
        typer.Option(help="Only entries with this status; may be repeated."),
    ] = None,
    since: Annotated[
        str | None,
        typer.Option(help="Only entries that ended since then: a moment, or 2h for two hours ago."),
    ] = None,
    limit: Annotated[
        int, typer.Option("--limit", "-n", metavar="N", min=1, help="Show at most N entries.")
    ] = 20,
    as_json: AsJson = False,
) -> None:
    """List what ran and what did not run, newest first."""
    utc = settings_of(context).utc

    async def main(scheduler: Scheduler) -> None:
        now = now_of(scheduler)
        if job_id is not None:
            await _exists_or_ran(scheduler, job_id)
        after = None if since is None else moment_of(since, now, past=True, field="--since")
        query = ExecutionQuery(job_id=job_id, statuses=frozenset(status or ()), since=after)
        found = []
        async for each in scheduler.list_executions(query):
            found.append(each)
            if len(found) == limit:
                break
        if as_json:
            print_json([execution_fields(each) for each in found])
            return
        rows: list[list[str | Cell]] = []
        for each in found:
            if isinstance(each, UndecodableExecution):
                ended, job = local(each.finished_at, utc=utc), each.job_id or "-"
                rows.append([ended, job, Cell("unreadable", "red"), "-", "-", "-", each.reason])
                continue
            took = (
                "-"
                if each.started_at is None
                else f"{(each.finished_at - each.started_at).total_seconds():.3f}s"
            )
            further = f" +{each.coalesced}" if each.coalesced else ""
            rows.append(
                [
                    local(each.finished_at, utc=utc),
                    each.job_id,
                    _status(each.status, "" if each.final else " …"),
                    local(each.scheduled_at, utc=utc) + further,
                    took,
                    str(each.attempt or "-"),
                    each.reason or "",
                ]
            )
        _print(HISTORY, rows, "nothing has run")

    with_scheduler(context, main)


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
        _print(
            columns,
            [[row.id, Cell(row.past, _colour(row.past)), Cell(row.future, "cyan")] for row in rows],
            "no jobs",
        )
        if rows:
            for line in folded_to_edge(LEGEND, 0):
                say(line)

    with_scheduler(context, main)


@app.command(rich_help_panel=LOOK)
def health(context: typer.Context, as_json: AsJson = False) -> None:
    """Write to the store, and report whether jobs are overdue that no worker runs: for probes."""

    async def main(scheduler: Scheduler) -> int:
        found = await probe(scheduler, own=WORKER)
        facts = found.facts
        if as_json:
            since = facts.get("due_since")
            told = facts | {"due_since": None if since is None else iso(since)}
            print_json(told | {"problems": found.problems, "ok": not found.problems})
            return FAILED if found.problems else 0
        say(facts["store"])
        alive = facts.get("workers")
        if alive is not None:
            say(f"workers alive: {', '.join(alive) or 'none'}")
        for problem in found.problems:
            say(Cell(f"problem: {problem}", "red", bold=True))
        if not found.problems:
            say(Cell("healthy", "green"))
        return FAILED if found.problems else 0

    with_scheduler(context, main)


@app.command(rich_help_panel=LOOK)
def doctor(context: typer.Context, as_json: AsJson = False) -> None:
    """Write to the store, read every job and the last day's history, and report what is wrong."""
    config = config_of(context)

    async def main(scheduler: Scheduler) -> int:
        found = await examine(scheduler)
        place = {"mode": config.general.mode, "config": config.source}
        if as_json:
            told = {"problems": found.problems, "notices": found.notices, "advice": found.advice}
            print_json(place | found.facts | told | {"ok": not found.problems})
            return FAILED if found.problems else 0
        say(f"mode {place['mode']}, from {place['config']}")
        for name, numbers in found.facts.items():
            counted = ", ".join(f"{number} {word}" for word, number in sorted(numbers.items()))
            say(f"{name}: {counted or 'none'}")
        for problem in found.problems:
            say(Cell(f"problem: {problem}", "red", bold=True))
        for sentence in found.notices:
            say(Cell(f"notice: {sentence}", "yellow"))
        for sentence in found.advice:
            say(Cell(f"note: {sentence}", "yellow"))
        if not found.problems:
            say(Cell("all is well", "green"))
        return FAILED if found.problems else 0

    with_scheduler(context, main)


async def _exists_or_ran(scheduler: Scheduler, job_id: str) -> None:
    """Refuse an id that the store does not know: it is a typing error, not an empty history."""
    async for _ in scheduler.list_executions(job_id):
        return
    await scheduler.get_job(job_id)


def _coming(job: Job, now: Any) -> list[Any]:
    first = job.next_run
    if first is None:
        return []
    return [first, *upcoming(job.spec.schedule, max(first, now), 4, anchor=job.anchor)]


def _entry(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not equals:
        fail(f"--meta: must be like KEY=VALUE, not {text!r}", code=WRONG)
    return key, value


def _print(columns: Sequence[Column], rows: Sequence[Sequence[str | Cell]], nothing: str) -> None:
    if rows:
        table(columns, rows)
    else:
        say(nothing)


def _state(state: State) -> Cell:
    colours = {State.ACTIVE: "green", State.PAUSED: "yellow", State.FINISHED: "bright_black"}
    return Cell(state.value, colours[state])


def _status(status: Status | None, more: str = "") -> Cell:
    if status is None:
        return Cell("-")
    good, bad = {Status.SUCCEEDED}, {Status.FAILED, Status.ABANDONED}
    colour = "green" if status in good else "red" if status in bad else "yellow"
    return Cell(status.value + more, colour)


def _colour(past: str) -> str:
    return "red" if FAILED_HERE in past else "yellow" if OTHER in past else "green"
