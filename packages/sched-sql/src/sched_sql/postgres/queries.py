"""Pages of the PostgreSQL dialect: filters are part of the statement."""

# ruff: noqa: S608 -- statements are made of constants; values are bound

from __future__ import annotations

import json
from typing import Any

from sched_core import (
    Execution,
    ExecutionQuery,
    Job,
    JobQuery,
    Page,
    Undecodable,
    UndecodableExecution,
    codec,
)
from sched_sql.history import EXECUTION_COLUMNS, no_age, odd_execution, read_execution
from sched_sql.holds import RECORD_COLUMNS, read_record
from sched_sql.moments import micros
from sched_sql.postgres.sql import Names, Query, Steps, texts
from sched_sql.rows import odd_job
from sched_sql.rules import after_prefix
from sched_sql.standings import STATE


def jobs(
    names: Names, query: JobQuery, after: str | None, limit: int
) -> Steps[Page[Job | Undecodable]]:
    """Return a page of jobs; ids compare as UTF-8, which is the order of code points."""
    items: list[Job | Undecodable] = []
    while True:
        wanted = limit + 1 - len(items)
        rows = yield _job_rows(names, query, after, wanted)
        jobs = (read_record(row).read() for row in rows)
        items += [job for job in jobs if job is not None and query.matches(job)]
        if len(items) > limit:
            return Page(items[:limit], items[limit - 1].id if limit else None)
        if len(rows) < wanted:
            return Page(items, None)
        after = rows[-1][0]


def _job_rows(names: Names, query: JobQuery, after: str | None, limit: int) -> Query:
    conditions, values = ["NOT removed"], list[Any]()
    if after is not None:
        conditions.append("id > %s")
        values.append(after)
    if query.id_prefix:
        conditions.append("id >= %s AND starts_with(id, %s)")
        values += [query.id_prefix, query.id_prefix]
        end = after_prefix(query.id_prefix)
        if end is not None:
            conditions.append("id < %s")
            values.append(end)
    wanted, wanted_values = _wanted(query)
    if wanted:
        # What cannot be judged is let through, and looked at again after reading.
        unreadable = f"format <> %s OR NOT tag = ANY(%s::text[]) OR {odd_job()}"
        conditions.append(f"({unreadable} OR ({' AND '.join(wanted)}))")
        values += [codec.FORMAT, texts(codec.known_tags()), *wanted_values]
    return Query(
        f"SELECT {RECORD_COLUMNS} FROM {names.job} WHERE {' AND '.join(conditions)} "
        "ORDER BY id LIMIT %s",
        (*values, limit),
    )


def _wanted(query: JobQuery) -> tuple[list[str], list[Any]]:
    conditions, values = list[str](), list[Any]()
    if query.state is not None:
        conditions.append(f"{STATE} = %s")
        values.append(query.state.value)
    if query.group is not None:
        conditions.append("group_name = %s")
        values.append(query.group)
    for key, value in query.metadata.items():
        # As the codec writes an entry. What looks otherwise is no metadata, and looked at again
        # after reading; PostgreSQL's own JSON functions refuse texts with a NUL.
        conditions.append("(strpos(metadata, %s) > 0 OR NOT metadata LIKE '{\"%%\"}')")
        entry = json.dumps({key: value}, ensure_ascii=False, separators=(",", ":"))
        values.append(entry[1:-1])
    if query.metadata:
        conditions.append("metadata <> ''")
    return conditions, values


def executions(
    names: Names, query: ExecutionQuery, after: str | None, limit: int
) -> Steps[Page[Execution | UndecodableExecution]]:
    """Return a page of the history, newest first."""
    items: list[tuple[int, Execution | UndecodableExecution]] = []
    while True:
        wanted = limit + 1 - len(items)
        rows = yield _execution_rows(names, query, after, wanted)
        items += [(row[-1], each) for row in rows if query.matches(each := read_execution(row))]
        if len(items) > limit:
            following = str(items[limit - 1][0]) if limit else None
            return Page([each for _, each in items[:limit]], following)
        if len(rows) < wanted:
            return Page([each for _, each in items], None)
        after = str(rows[-1][-1])


def _execution_rows(names: Names, query: ExecutionQuery, after: str | None, limit: int) -> Query:
    conditions, values = ["true"], list[Any]()
    if after is not None:
        conditions.append("seq < %s")
        values.append(int(after))
    if query.job_id is not None:
        conditions.append("job_id = %s")
        values.append(query.job_id)
    if query.since is not None:
        conditions.append(f"(finished_at >= %s OR {no_age()})")
        values.append(micros(query.since))
    if query.until is not None:
        conditions.append(f"(finished_at < %s OR {no_age()})")
        values.append(micros(query.until))
    wanted = list[str]()
    if query.statuses:
        wanted.append("status = ANY(%s::text[])")
        values.append(texts(sorted(status.value for status in query.statuses)))
    if query.final is not None:
        wanted.append("final = %s")
        values.append(query.final)
    if wanted:
        # What cannot be judged is let through, and looked at again after reading.
        conditions.append(f"({' AND '.join(wanted)} OR {odd_execution()})")
    return Query(
        f"SELECT {EXECUTION_COLUMNS}, seq FROM {names.execution} WHERE {' AND '.join(conditions)} "
        "ORDER BY seq DESC LIMIT %s",
        (*values, limit),
    )
