"""Commands that show the history."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Annotated

import typer

from sched_cli.application import (
    LOOK,
    AsJson,
    app,
    now_of,
    settings_of,
    with_scheduler,
)
from sched_cli.cells import RUNNING, print_fields, print_table, status_cell
from sched_cli.fields import execution_fields
from sched_cli.output import Cell, Column, complain, print_json, print_now, say, say_row
from sched_cli.text import entries_text, local, moment_of, progress_text
from sched_core import (
    ClaimQuery,
    Execution,
    ExecutionQuery,
    Followed,
    Running,
    Scheduler,
    Status,
    UndecodableExecution,
)

HISTORY = (
    Column("ended"),
    Column("job", key=True),
    Column("status"),
    Column("scheduled", optional=True),
    Column("took"),
    Column("attempt"),
    Column("reason", least=10),
    Column("by", least=8, optional=True),
)
LATE = timedelta(seconds=10)
"""How long a transaction must keep executions back until ``watch`` says so."""


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
    """List what ran and what did not run, newest first; of one job, also what runs now."""
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
        columns: Sequence[Column] = HISTORY
        rows = [_row(each, utc=utc) for each in found]
        if job_id is not None and not status and since is None:
            runs = scheduler.list_running(ClaimQuery(job_id=job_id))
            rows[:0] = [_running_row(run, now, utc=utc) async for run in runs]
        if not any(row[-1] for row in rows):  # what the schedule asked for has no actor
            columns, rows = HISTORY[:-1], [row[:-1] for row in rows]
        print_table(columns, rows, "nothing has run")

    with_scheduler(context, main)


@app.command(
    rich_help_panel=LOOK,
    epilog="Example: sched execution 1f0c9b5e7a4d4c0f8a3e2b6d9c7f5a10:2:1",
)
def execution(
    context: typer.Context,
    execution_id: Annotated[
        str,
        typer.Argument(
            metavar="EXECUTION",
            help="The execution's id: history --json shows it.",
            show_default=False,
        ),
    ],
    as_json: AsJson = False,
) -> None:
    """Show one record of the history, with its traceback and what its handler logged."""
    utc = settings_of(context).utc

    async def main(scheduler: Scheduler) -> None:
        one = await scheduler.get_execution(execution_id)
        if as_json:
            print_json(execution_fields(one, whole=True))
            return
        until = one.coalesced_until and local(one.coalesced_until, utc=utc)
        rows = [
            ("id", one.id),
            ("job", one.job_id),
            ("status", one.status.value + ("" if one.final else ", not final")),
            ("reason", one.reason),
            ("kind", one.kind.value),
            ("queue", one.queue),
            ("actor", one.actor),
            ("args", entries_text(one.args)),
            ("metadata", entries_text(one.metadata)),
            ("attempt", str(one.attempt or "")),
            ("snoozes", str(one.snoozes or "")),
            ("scheduled", local(one.scheduled_at, utc=utc)),
            ("coalesced", f"{one.coalesced} further, until {until}" if one.coalesced else None),
            ("claimed", local(one.claimed_at, utc=utc)),
            ("started", one.started_at and local(one.started_at, utc=utc)),
            ("ended", local(one.finished_at, utc=utc)),
            ("took", None if one.started_at is None else _took(one)),
            ("worker", one.worker),
            ("progress", progress_text(one.progress)),
        ]
        print_fields(rows, frozenset({"id", "job", "queue", "worker"}))
        for name, text in (("traceback", one.traceback), ("log", one.log)):
            if text:
                say(Cell(f"{name}:", bold=True))
                for line in text.rstrip("\n").split("\n"):
                    say("  ", line)

    with_scheduler(context, main)


@app.command(rich_help_panel=LOOK, epilog="Example: sched watch --json --after '' > history.jsonl")
def watch(
    context: typer.Context,
    after: Annotated[
        str | None,
        typer.Option(
            metavar="CURSOR",
            help="Go on from there; an empty text begins with the oldest that is kept. "
            "Unless given, only what ends from now on is shown.",
            show_default=False,
        ),
    ] = None,
    as_json: Annotated[
        bool,
        typer.Option(
            "--json", help="Print a line of JSON for each execution, with the cursor to go on from."
        ),
    ] = False,
) -> None:
    """Follow the history: print a line for each execution, by any worker, until Ctrl-C."""
    utc = settings_of(context).utc

    async def main(scheduler: Scheduler) -> None:
        cursor, told = after, None
        try:
            async for part in scheduler.follow(after):
                if as_json:
                    _print_part(part, cursor)
                else:
                    for each in part.executions:
                        say_row(*_row(each, utc=utc))
                cursor, since = part.cursor, part.waits_since
                if since is not None and since != told and now_of(scheduler) - since > LATE:
                    told = since
                    shown = local(since, utc=utc)
                    complain(f"a transaction is open since {shown}: what ended since is held back")
                print_now()
        finally:
            if cursor != after and not as_json:
                complain(f"to go on from here: sched watch --after {cursor}")

    with_scheduler(context, main)


def _print_part(part: Followed, before: str | None) -> None:
    """Print a part in lines; only the last one has the part's cursor, or a reader might lose some.

    Args:
        part: The part.
        before: The cursor of the part before it.
    """
    last = len(part.executions) - 1
    for number, each in enumerate(part.executions):
        cursor = part.cursor if number == last else before
        print_json(execution_fields(each) | {"cursor": cursor}, lines=False)


def _row(each: Execution | UndecodableExecution, *, utc: bool) -> list[str | Cell]:
    if isinstance(each, UndecodableExecution):
        ended, job = local(each.finished_at, utc=utc), each.job_id or "-"
        return [ended, job, Cell("unreadable", "red"), "-", "-", "-", each.reason, ""]
    further = f" +{each.coalesced}" if each.coalesced else ""
    return [
        local(each.finished_at, utc=utc),
        each.job_id,
        status_cell(each.status, "" if each.final else " …"),
        local(each.scheduled_at, utc=utc) + further,
        _took(each),
        str(each.attempt or "-"),
        each.reason or "",
        each.actor or "",
    ]


def _running_row(run: Running, now: datetime, *, utc: bool) -> list[str | Cell]:
    return [
        "-",
        run.job_id,
        Cell("running", RUNNING),
        local(run.scheduled_at, utc=utc),
        f"{(now - run.since).total_seconds():.3f}s",
        str(run.attempt),
        progress_text(run.progress),
        "",
    ]


def _took(one: Execution) -> str:
    if one.started_at is None:
        return "-"
    return f"{(one.finished_at - one.started_at).total_seconds():.3f}s"


async def _exists_or_ran(scheduler: Scheduler, job_id: str) -> None:
    """Refuse an id that the store does not know: it is a typing error, not an empty history."""
    async for _ in scheduler.list_executions(job_id):
        return
    await scheduler.get_job(job_id)
