"""A day that was and a day to come, one row of characters for each job."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta

from attrs import frozen

from sched_core import Execution, Job, State, Status, upcoming

NOTHING, SUCCEEDED, FAILED, OTHER = "·", "■", "x", "-"
EXPECTED = "▁▂▃▄▅▆▇█"
"""One occurrence, two, three, four, up to 8, 16, 32, and more."""
LEGEND = (
    "■ succeeded  x failed  - missed, skipped or replaced  ▁▂▃▄▅▆▇█ 1, 2, 3, 4, 8 … are to come"
)
MOST = 500
"""The most occurrences of one job that are counted."""

_WORSE = (NOTHING, SUCCEEDED, OTHER, FAILED)


@frozen
class Row:
    """The row of one job.

    Attributes:
        id: The job's id.
        past: One character per cell, oldest first: the worst status that ended in the cell.
        future: One character per cell, by how many occurrences are expected in the cell.
    """

    id: str
    past: str
    future: str


def plot(
    jobs: Sequence[Job],
    executions: Iterable[Execution],
    *,
    now: datetime,
    reach: timedelta = timedelta(days=1),
    cells: int = 24,
) -> list[Row]:
    """Return a row for each job, and for each removed one that has left executions.

    Args:
        jobs: The stored jobs.
        executions: The history of the time ``reach`` before now; others are ignored.
        now: The present moment.
        reach: How far to look, back and ahead.
        cells: Characters per row, on each side.
    """
    width = reach / cells
    past: dict[str, list[str]] = {job.id: [NOTHING] * cells for job in jobs}
    for each in executions:
        cell = cells - 1 - (now - each.finished_at) // width
        if each.final and 0 <= cell < cells:
            row = past.setdefault(each.job_id, [NOTHING] * cells)
            row[cell] = max(row[cell], _mark(each.status), key=_WORSE.index)
    future = {job.id: _expected(job, now, reach, cells) for job in jobs}
    nothing = NOTHING * cells
    return [Row(job_id, "".join(past[job_id]), future.get(job_id, nothing)) for job_id in past]


def _mark(status: Status) -> str:
    return {Status.SUCCEEDED: SUCCEEDED, Status.FAILED: FAILED}.get(status, OTHER)


def _expected(job: Job, now: datetime, reach: timedelta, cells: int) -> str:
    end, counts = now + reach, [0] * cells
    if job.state is not State.ACTIVE:
        return NOTHING * cells
    moments = upcoming(job.spec.schedule, now, MOST, anchor=job.anchor)
    if job.next_run is not None and job.next_run <= now:
        moments.insert(0, now)  # late: expected at once
    for moment in moments:
        if moment < end and moment != job.standing.skip:
            counts[(moment - now) * cells // reach] += 1
    if len(moments) >= MOST and moments[-1] < end:
        # Too many to list: what is not reached goes on as densely as what is.
        reached = (moments[-1] - now) * cells // reach
        dense = max(counts[: reached + 1])
        counts[reached:] = [dense] * (cells - reached)
    return "".join(_height(count) for count in counts)


def _height(count: int) -> str:
    if count <= 4:
        return EXPECTED[count - 1] if count else NOTHING
    return EXPECTED[min((count - 1).bit_length() + 1, len(EXPECTED) - 1)]
