"""Commands that examine the store and its service."""

from __future__ import annotations

import typer

from sched_cli.application import (
    FAILED,
    LOOK,
    WORKER,
    AsJson,
    app,
    config_of,
    with_scheduler,
)
from sched_cli.doctor import examine
from sched_cli.health import probe
from sched_cli.output import Cell, print_json, say
from sched_cli.text import iso
from sched_core import Scheduler


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
        for switch in facts.get("maintenance", ()):
            say(Cell(f"maintenance: {switch}", "yellow"))
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
