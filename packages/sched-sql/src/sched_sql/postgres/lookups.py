"""Looks into the history of PostgreSQL by id and by jobs."""

# ruff: noqa: S608 -- statements are made of constants; values are bound

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sched_core import Execution, UndecodableExecution
from sched_sql._shared.history import (
    EXECUTION_COLUMNS,
    can_be_stored,
    position_named,
    read_execution,
)
from sched_sql.postgres.sql import Names, Query, Steps, qualified, texts


def execution(names: Names, execution_id: str) -> Steps[Execution | UndecodableExecution | None]:
    """Return the execution with the id."""
    name, seq = position_named(execution_id)
    select = f"SELECT {EXECUTION_COLUMNS}, seq FROM {names.execution}"
    if name is not None:
        rows = yield Query(f"{select} WHERE uid = %s AND number = %s AND attempt = %s", name)
    else:
        rows = [] if seq is None else (yield Query(f"{select} WHERE seq = %s", (seq,)))
    found = read_execution(rows[0]) if rows else None
    return found if found is not None and found.id == execution_id else None


def recent(
    names: Names, job_ids: Sequence[str], limit: int
) -> Steps[Mapping[str, Sequence[Execution | UndecodableExecution]]]:
    """Return the newest executions of each job, newest first."""
    ids = [each for each in dict.fromkeys(job_ids) if can_be_stored(each)]
    found: dict[str, list[Execution | UndecodableExecution]] = {}
    if ids:
        rows = yield Query(
            f"SELECT {qualified('e', EXECUTION_COLUMNS)}, e.seq "
            "FROM unnest(%s::text[]) AS i(id) CROSS JOIN LATERAL ("
            f"SELECT {EXECUTION_COLUMNS}, seq FROM {names.execution} "
            "WHERE job_id = i.id ORDER BY seq DESC LIMIT %s) e",
            (texts(ids), limit),
        )
        for row in sorted(rows, key=_seq, reverse=True):
            found.setdefault(row[0], []).append(read_execution(row))
    return found


def _seq(row: Sequence[int]) -> int:
    return row[-1]
