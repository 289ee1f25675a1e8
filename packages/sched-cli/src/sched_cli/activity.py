"""Commands that show what goes on in the store: runs, workers, and how much there is."""

from __future__ import annotations

from datetime import datetime
from enum import Enum
from typing import Annotated

import typer

from sched_cli.application import LOOK, AsJson, app, now_of, settings_of, with_scheduler
from sched_cli.cells import WARNING, WRONG, print_table, statuses_text
from sched_cli.fields import counts_fields, running_fields, worker_fields
from sched_cli.fleet import is_alive
from sched_cli.output import Cell, Column, print_json, say, table
from sched_cli.text import local, moment_of, progress_text, relative, span
from sched_core import ClaimQuery, Counts, Running, Scheduler, WorkerState

RUNS = (
    Column("job", key=True),
    Column("since"),
    Column("attempt", optional=True),
    Column("lease", optional=True),
    Column("progress", least=8),
    Column("worker", least=8),
    Column("key", optional=True),
)
WORKERS = (
    Column("name", key=True),
    Column("state"),
    Column("seen"),
    Column("runs"),
    Column("queues", least=8),
    Column("host", least=8, optional=True),
    Column("pid", optional=True),
    Column("version", optional=True),
    Column("no route", least=8),
)
QUEUES = (Column("queue", key=True), Column("due"), Column("running"), Column("oldest"))


class By(Enum):
    """What executions are counted by."""

    HOUR = "hour"
    JOB = "job"
    ERROR = "error"


@app.command(rich_help_panel=LOOK, epilog="Example: sched running --queue bulk")
def running(
    context: typer.Context,
    queue: Annotated[str | None, typer.Option(help="Only runs of this queue.")] = None,
    worker: Annotated[
        str, typer.Option(help="Only runs of workers whose name starts with this text.")
    ] = "",
    as_json: AsJson = False,
) -> None:
    """List what runs now, where, since when, and how far it has come."""

    async def main(scheduler: Scheduler) -> None:
        found = [
            run
            async for run in scheduler.list_running(ClaimQuery(queue=queue))
            if run.worker.startswith(worker)
        ]
        if as_json:
            print_json([running_fields(run) for run in found])
            return
        now = now_of(scheduler)
        print_table(RUNS, [_run(run, now) for run in found], "nothing runs")

    with_scheduler(context, main)


def _run(run: Running, now: datetime) -> list[str | Cell]:
    ended = run.lease_left.total_seconds() < 0
    return [
        run.job_id,
        relative(run.since, now),
        str(run.attempt),
        Cell(f"ended {span(run.lease_left)} ago", WRONG) if ended else span(run.lease_left),
        progress_text(run.progress) or "-",
        run.worker,
        run.key,
    ]


@app.command(rich_help_panel=LOOK)
def workers(context: typer.Context, as_json: AsJson = False) -> None:
    """List the workers of the store, and when each has told of itself."""

    async def main(scheduler: Scheduler) -> None:
        found, now = await scheduler.list_workers(), now_of(scheduler)
        if as_json:
            print_json([worker_fields(one, alive=is_alive(one, now)) for one in found])
            return
        print_table(WORKERS, [_worker(one, now) for one in found], "no workers")

    with_scheduler(context, main)


def _worker(one: WorkerState, now: datetime) -> list[str | Cell]:
    if not is_alive(one, now):
        state = Cell("dead", WRONG)
    elif one.stopping:
        state = Cell("stopping", WARNING)
    else:
        state = Cell("alive", "green")
    queues = "all"
    if one.queues is not None:
        queues = ", ".join(f"{name}={number}" for name, number in one.queues.items())
    missing = ", ".join(
        f"{job_id} ({relative(since, now)})" for job_id, since in one.unrouted.items()
    )
    return [
        one.name,
        state,
        relative(one.seen_at, now),
        f"{one.executing}/{one.max_concurrency}",
        queues,
        one.host,
        str(one.pid or "-"),
        one.version,
        Cell(missing, WRONG) if missing else "-",
    ]


@app.command(rich_help_panel=LOOK, epilog="Example: sched counts --since 7d --by error")
def counts(
    context: typer.Context,
    since: Annotated[
        str,
        typer.Option(help="Count executions that ended since then: a moment, or 2h for so long."),
    ] = "24h",
    by: Annotated[
        By | None, typer.Option(help="Count executions by hour, job or kind of error, too.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Count jobs by state, what is due, what each queue has, and executions by status."""
    utc = settings_of(context).utc

    async def main(scheduler: Scheduler) -> None:
        after = moment_of(since, now_of(scheduler), past=True, field="--since")
        found = await scheduler.counts(after, by=None if by is None else by.value)
        if as_json:
            print_json(counts_fields(found))
            return
        _print_counts(found, after, by, utc=utc)

    with_scheduler(context, main)


def _print_counts(found: Counts, since: datetime, by: By | None, *, utc: bool) -> None:
    now = found.as_of
    jobs = [f"{number} {state.value}" for state, number in found.jobs.items() if number]
    if found.undecodable:
        jobs.append(f"{found.undecodable} unreadable")
    say(f"jobs: {', '.join(sorted(jobs)) or 'none'}")
    say(f"running: {found.running}")
    due = f"due: {found.due}"
    if found.oldest_due is not None:
        due += f", the oldest {relative(found.oldest_due, now)}"
    if found.overdue:
        due += f", {found.overdue} overdue"
    say(Cell(due, WARNING if found.overdue else None))
    if found.queues:
        table(
            QUEUES,
            [
                [name, str(queue.due), str(queue.running), relative(queue.oldest_due, now)]
                for name, queue in found.queues.items()
            ],
        )
    for name, at in found.unserved.items():
        shown = local(at, utc=utc)
        say(Cell(f"problem: queue {name!r}: no live worker serves it, due since {shown}", WRONG))
    say(f"executions since {local(since, utc=utc)}: {statuses_text(found.executions)}")
    if found.groups and by is not None:
        groups = found.groups.items()
        columns = (Column(by.value, key=True), Column("executions", least=10))
        table(columns, [[name or "-", statuses_text(each)] for name, each in groups])
    if not found.complete:
        say(Cell("notice: the store has more: only the newest was counted", WARNING))
