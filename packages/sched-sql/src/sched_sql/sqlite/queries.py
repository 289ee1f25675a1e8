"""Pages of the SQLite dialect; see :mod:`sched_sql._shared.pages`."""

# ruff: noqa: S608 -- statements are made of constants; values are bound

from __future__ import annotations

import json
from collections.abc import Sequence
from operator import itemgetter
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
from sched_sql._shared.history import EXECUTION_COLUMNS, RARE_NAMES, no_age, unsound_execution
from sched_sql._shared.holds import RECORD_COLUMNS
from sched_sql._shared.moments import Row
from sched_sql._shared.pages import ExecutionPage, Filter, JobPage
from sched_sql._shared.rows import unsound_job
from sched_sql.sqlite.database import Database
from sched_sql.sqlite.records import read_record

IS_WHOLE = "typeof({}) = 'integer'"
_UNSOUND_JOB, _NO_AGE = unsound_job(IS_WHOLE), no_age(IS_WHOLE)
# Any column may hold a value of any type.
_UNSOUND_EXECUTION = " OR ".join(
    [
        unsound_execution(IS_WHOLE),
        *(f"typeof({name}) <> 'text'" for name in ("job_id", "uid", "kind", "status", "worker")),
        *(f"typeof({name}) NOT IN ('text', 'null')" for name in ("reason", *RARE_NAMES)),
        "final NOT IN (0, 1)",
    ]
)


def jobs(
    database: Database, query: JobQuery, after: str | None, limit: int
) -> Page[Job | Undecodable]:
    """Return a page of jobs; ids compare as UTF-8, which is the order of code points."""
    page = JobPage(query, after, limit)
    while True:
        rows = _job_rows(database, query, page.after, page.wanted)
        # The query judges again: SQLite's JSON functions end texts at a NUL.
        read = (read_record(row).read() for row in rows)
        complete = page.take(rows, read, lambda: _without_text_ids(database, query))
        if complete is not None:
            return complete


def _job_rows(database: Database, query: JobQuery, after: str | None, limit: int) -> list[Row]:
    # Whatever is no text comes after all texts.
    where = Filter("?", "removed <> 1", "id < x''")
    if after is not None:
        try:
            after.encode()
            where.add("id > ?", after)
        except UnicodeEncodeError:  # the id of a row that is no UTF-8
            where.add("id > CAST(? AS TEXT)", after.encode(errors="surrogateescape"))
    if query.id_prefix:
        prefix = query.id_prefix
        where.add_job_prefix(query, "substr(id, 1, ?) = ?", len(prefix), prefix)
    wanted = _wanted(query)
    if wanted.conditions:
        tags = codec.known_tags()
        unreadable = f"format <> ? OR tag NOT IN ({', '.join('?' * len(tags))}) OR {_UNSOUND_JOB}"
        where.add(f"({unreadable} OR ({wanted}))", codec.FORMAT, *tags, *wanted.values)
    return database.read(
        f"SELECT {RECORD_COLUMNS} FROM sched_job WHERE {where} ORDER BY id LIMIT ?",
        (*where.values, limit),
    )


def _without_text_ids(database: Database, query: JobQuery) -> list[Job | Undecodable]:
    """Return rows whose id is no text: no page can begin after one, so the last one has them."""
    if query.id_prefix:
        return []
    rows = database.read(
        f"SELECT {RECORD_COLUMNS} FROM sched_job WHERE id >= x'' AND removed <> 1 ORDER BY id"
    )
    return [job for row in rows if (job := read_record(row).read()) is not None]


def _wanted(query: JobQuery) -> Filter:
    wanted = Filter("?")
    wanted.add_job_state(query)
    if query.metadata:
        wanted.add(
            "(CASE WHEN metadata = '' THEN 0 WHEN NOT json_valid(metadata) THEN 1 ELSE "
            "(SELECT count(*) FROM json_each(?) q JOIN json_each(metadata) m "
            "ON m.key = q.key AND m.value = q.value) = ? END)",
            json.dumps(dict(query.metadata)),
            len(query.metadata),
        )
    return wanted


def executions(
    database: Database, query: ExecutionQuery, after: str | None, limit: int
) -> Page[Execution | UndecodableExecution]:
    """Return a page of the history, newest first."""
    page = ExecutionPage(query, after, limit)
    while True:
        complete = page.take(_execution_rows(database, query, page.after, page.wanted))
        if complete is not None:
            return complete


def _execution_rows(
    database: Database, query: ExecutionQuery, after: str | None, limit: int
) -> list[Row]:
    where = Filter("?", "1")
    if after is not None:
        where.add("seq < ?", int(after))
    where.add_times(query, _NO_AGE)
    wanted = Filter("?")
    if query.statuses:
        statuses = sorted(status.value for status in query.statuses)
        wanted.add(f"status IN ({', '.join('?' * len(statuses))})", *statuses)
    wanted.add_final(query)
    if wanted.conditions:
        # What cannot be judged is let through, and looked at again after reading.
        where.add(f"({wanted} OR {_UNSOUND_EXECUTION})", *wanted.values)
    if query.job_id is None:
        return _rows(database, str(where), where.values, limit)
    # What is not indexed yet is looked through: it is not much. Bytes in place of an id come after
    # all texts, and might be anybody's.
    database.connection.execute("BEGIN")
    try:
        rows = [
            row
            for whose in (
                "job_id = ? AND indexed = 1",
                "job_id >= x'' AND indexed = 1 AND ? IS NOT NULL",
                f"(job_id = ? OR typeof(job_id) <> 'text') AND {_UNINDEXED}",
            )
            for row in _rows(database, f"{where} AND {whose}", [*where.values, query.job_id], limit)
        ]
    finally:
        database.connection.execute("ROLLBACK")
    rows.sort(key=itemgetter(-1), reverse=True)
    return rows[:limit]


_UNINDEXED = "indexed = 0 AND seq > (SELECT value FROM sched_meta WHERE key = 'indexed')"


def _rows(database: Database, where: str, values: Sequence[Any], limit: int) -> list[Row]:
    return database.read(
        f"SELECT {EXECUTION_COLUMNS}, seq FROM sched_execution WHERE {where} "
        "ORDER BY seq DESC LIMIT ?",
        (*values, limit),
    )
