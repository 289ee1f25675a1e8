"""States and statuses in their colours, and tables that may be empty."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sched_cli.output import Cell, Column, folded_to_edge, say, table
from sched_core import Job, State, Status

_STATES = {State.ACTIVE: "green", State.PAUSED: "yellow", State.FINISHED: "bright_black"}
RUNNING, WRONG, WARNING = "cyan", "red", "yellow"


def state_cell(job: Job, *, no_route: bool = False) -> Cell:
    """Return a job's state, and whether it runs, or no worker has a function for it."""
    state = job.state
    if job.running:
        return Cell("running" if state is State.ACTIVE else f"{state.value}, running", RUNNING)
    if no_route:
        return Cell(f"{state.value}, no route", WRONG)
    return Cell(state.value, _STATES[state])


def status_cell(status: Status | None, more: str = "") -> Cell:
    """Return a status, and what follows it; ``-`` for none."""
    if status is None:
        return Cell("-")
    good, bad = {Status.SUCCEEDED}, {Status.FAILED, Status.ABANDONED}
    colour = "green" if status in good else WRONG if status in bad else WARNING
    return Cell(status.value + more, colour)


def statuses_text(numbers: Mapping[Status, int]) -> str:
    """Return how many there are of each status: ``12 succeeded, 1 failed``."""
    ordered = sorted(numbers.items(), key=lambda item: (-item[1], item[0].value))
    return ", ".join(f"{number} {status.value}" for status, number in ordered) or "none"


def print_table(
    columns: Sequence[Column], rows: Sequence[Sequence[str | Cell]], nothing: str
) -> None:
    """Print a table, or a text where it has no row."""
    if rows:
        table(columns, rows)
    else:
        say(nothing)


def print_fields(rows: Sequence[tuple[str, object]], whole: frozenset[str]) -> None:
    """Print names and their values, one below the other; a value that is empty is left out.

    Args:
        rows: The names and the values.
        whole: The names whose values are never folded, so that they can be copied.
    """
    shown = [(name, str(value)) for name, value in rows if value]
    width = max((len(name) for name, _ in shown), default=0)
    for name, text in shown:
        parts = [text] if name in whole else folded_to_edge(text, width + 2)
        for number, part in enumerate(parts):
            say(Cell((name if number == 0 else "").ljust(width), bold=True), "  ", part)
