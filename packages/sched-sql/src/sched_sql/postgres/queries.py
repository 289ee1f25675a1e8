"""Pages of the PostgreSQL dialect; see :mod:`sched_sql._shared.pages`."""

# ruff: noqa: S608 -- statements are made of constants; values are bound

from __future__ import annotations

import json

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
from sched_sql._shared.history import EXECUTION_COLUMNS, no_age, unsound_execution
from sched_sql._shared.holds import RECORD_COLUMNS, read_record
from sched_sql._shared.pages import ExecutionPage, Filter, JobPage
from sched_sql._shared.rows import unsound_job
from sched_sql.postgres.sql import Names, Query, Steps, texts


def jobs(
    names: Names, query: JobQuery, after: str | None, limit: int
) -> Steps[Page[Job | Undecodable]]:
    """Return a page of jobs; ids compare as UTF-8, which is the order of code points."""
    page = JobPage(query, after, limit)
    while True:
        rows = yield _job_rows(names, query, page.after, page.wanted)
        complete = page.take(rows, (read_record(row).read() for row in rows))
        if complete is not None:
            return complete


def _job_rows(names: Names, query: JobQuery, after: str | None, limit: int) -> Query:
    where = Filter("%s", "NOT removed")
    if after is not None:
        where.add("id > ?", after)
    if query.id_prefix:
        where.add_job_prefix(query, "starts_with(id, ?)", query.id_prefix)
    wanted = _wanted(query)
    if wanted.conditions:
        # What cannot be judged is let through, and looked at again after reading.
        unreadable = f"format <> ? OR NOT tag = ANY(?::text[]) OR {unsound_job()}"
        where.add(
            f"({unreadable} OR ({wanted}))",
            codec.FORMAT,
            texts(codec.known_tags()),
            *wanted.values,
        )
    return Query(
        f"SELECT {RECORD_COLUMNS} FROM {names.job} WHERE {where} ORDER BY id LIMIT %s",
        (*where.values, limit),
    )


def _wanted(query: JobQuery) -> Filter:
    wanted = Filter("%s")
    wanted.add_job_state(query)
    for key, value in query.metadata.items():
        # As the codec writes an entry. What looks otherwise is no metadata, and looked at again
        # after reading; PostgreSQL's own JSON functions refuse texts with a NUL.
        entry = json.dumps({key: value}, ensure_ascii=False, separators=(",", ":"))
        wanted.add("(strpos(metadata, ?) > 0 OR NOT metadata LIKE '{\"%%\"}')", entry[1:-1])
    if query.metadata:
        wanted.add("metadata <> ''")
    return wanted


def executions(
    names: Names, query: ExecutionQuery, after: str | None, limit: int
) -> Steps[Page[Execution | UndecodableExecution]]:
    """Return a page of the history, newest first."""
    page = ExecutionPage(query, after, limit)
    while True:
        complete = page.take((yield _execution_rows(names, query, page.after, page.wanted)))
        if complete is not None:
            return complete


def _execution_rows(names: Names, query: ExecutionQuery, after: str | None, limit: int) -> Query:
    where = Filter("%s", "true")
    if after is not None:
        where.add("seq < ?", int(after))
    if query.job_id is not None:
        where.add("job_id = ?", query.job_id)
    where.add_times(query, no_age())
    wanted = Filter("%s")
    if query.statuses:
        statuses = texts(sorted(status.value for status in query.statuses))
        wanted.add("status = ANY(?::text[])", statuses)
    wanted.add_final(query)
    if wanted.conditions:
        # What cannot be judged is let through, and looked at again after reading.
        where.add(f"({wanted} OR {unsound_execution()})", *wanted.values)
    return Query(
        f"SELECT {EXECUTION_COLUMNS}, seq FROM {names.execution} WHERE {where} "
        "ORDER BY seq DESC LIMIT %s",
        (*where.values, limit),
    )
