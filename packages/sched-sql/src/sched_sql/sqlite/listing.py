"""Pages of the SQLite dialect: filters are part of the statement, so a page is what it costs."""

# ruff: noqa: S608 -- statements are made of constants; values are bound

from __future__ import annotations

import json
import sqlite3
from operator import itemgetter
from typing import Any

from sched_core import codec
from sched_core.job import Execution, Job
from sched_core.ports import ExecutionQuery, JobQuery, Page, Undecodable, UndecodableExecution
from sched_sql.rows import (
    JOB_COLUMNS,
    LEDGER_COLUMNS,
    Row,
    micros,
    read_job_or_undecodable,
    read_line,
)
from sched_sql.rules import after_prefix, has_metadata
from sched_sql.sqlite.database import Database


def jobs(
    database: Database, query: JobQuery, after: str | None, limit: int
) -> Page[Job | Undecodable]:
    """Return a page of jobs; ids compare as UTF-8, which is the order of code points."""
    items: list[Job | Undecodable] = []
    while True:
        wanted = limit + 1 - len(items)
        rows = _job_rows(database, query, after, wanted)
        # Looked at again: SQLite's JSON functions end texts at a NUL.
        items += [job for row in rows if has_metadata(job := read_job_or_undecodable(row), query)]
        if len(items) > limit:
            return Page(items[:limit], items[limit - 1].id if limit else None)
        if len(rows) < wanted:
            return Page(items, None)
        after = rows[-1][0]


def _job_rows(database: Database, query: JobQuery, after: str | None, limit: int) -> list[Row]:
    conditions, values = ["removed = 0"], list[Any]()
    if after is not None:
        conditions.append("id > ?")
        values.append(after)
    if query.id_prefix:
        conditions.append("id >= ? AND substr(id, 1, ?) = ?")
        values += [query.id_prefix, len(query.id_prefix), query.id_prefix]
        end = after_prefix(query.id_prefix)
        if end is not None:
            conditions.append("id < ?")
            values.append(end)
    wanted, wanted_values = _wanted(query)
    if wanted:
        tags = codec.known_tags()
        unreadable = f"format > ? OR tag NOT IN ({', '.join('?' * len(tags))})"
        conditions.append(f"({unreadable} OR ({' AND '.join(wanted)}))")
        values += [codec.FORMAT, *tags, *wanted_values]
    return database.read(
        f"SELECT {JOB_COLUMNS} FROM sched_job WHERE {' AND '.join(conditions)} ORDER BY id LIMIT ?",
        (*values, limit),
    )


def _wanted(query: JobQuery) -> tuple[list[str], list[Any]]:
    conditions, values = list[str](), list[Any]()
    if query.state is not None:
        conditions.append("state = ?")
        values.append(query.state.value)
    if query.group is not None:
        conditions.append("group_name = ?")
        values.append(query.group)
    if query.metadata:
        conditions.append(
            "(CASE WHEN metadata = '' THEN 0 WHEN NOT json_valid(metadata) THEN 1 ELSE "
            "(SELECT count(*) FROM json_each(?) q JOIN json_each(metadata) m "
            "ON m.key = q.key AND m.value = q.value) = ? END)"
        )
        values += [json.dumps(dict(query.metadata)), len(query.metadata)]
    return conditions, values


def executions(
    connection: sqlite3.Connection, query: ExecutionQuery, after: str | None, limit: int
) -> Page[Execution | UndecodableExecution]:
    """Return a page of ledger lines, newest first."""
    conditions, values = ["1"], list[Any]()
    if after is not None:
        conditions.append("seq < ?")
        values.append(int(after))
    if query.statuses:
        conditions.append(f"status IN ({', '.join('?' * len(query.statuses))})")
        values += sorted(status.value for status in query.statuses)
    if query.final is not None:
        conditions.append("final = ?")
        values.append(query.final)
    if query.since is not None:
        conditions.append("finished_at >= ?")
        values.append(micros(query.since))
    if query.until is not None:
        conditions.append("finished_at < ?")
        values.append(micros(query.until))
    where = " AND ".join(conditions)
    if query.job_id is None:
        rows = _lines(connection, where, values, limit + 1)
    else:
        # What is not indexed yet is looked through: it is not much.
        where += " AND job_id = ?"
        values.append(query.job_id)
        connection.execute("BEGIN")
        try:
            rows = _lines(connection, f"{where} AND indexed = 1", values, limit + 1)
            rows += _lines(connection, f"{where} AND {_UNINDEXED}", values, limit + 1)
        finally:
            connection.execute("ROLLBACK")
        rows.sort(key=itemgetter(-1), reverse=True)
    items = [read_line(row[:-1]) for row in rows[:limit]]
    return Page(items, str(rows[limit - 1][-1]) if len(rows) > limit > 0 else None)


_UNINDEXED = "indexed = 0 AND seq > (SELECT value FROM sched_meta WHERE key = 'indexed')"


def _lines(connection: sqlite3.Connection, where: str, values: list[Any], limit: int) -> list[Row]:
    return connection.execute(
        f"SELECT {LEDGER_COLUMNS}, seq FROM sched_ledger WHERE {where} ORDER BY seq DESC LIMIT ?",
        (*values, limit),
    ).fetchall()
