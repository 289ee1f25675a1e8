"""Pages of the SQLite dialect: filters are part of the statement, so a page is what it costs."""

# ruff: noqa: S608 -- statements are made of constants; values are bound

from __future__ import annotations

import json
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
from sched_sql.history import EXECUTION_COLUMNS, no_age, odd_execution, read_execution
from sched_sql.holds import RECORD_COLUMNS
from sched_sql.moments import Row, micros
from sched_sql.rows import odd_job
from sched_sql.rules import after_prefix
from sched_sql.sqlite.database import Database
from sched_sql.sqlite.records import read_record
from sched_sql.standings import STATE

IS_WHOLE = "typeof({}) = 'integer'"
_ODD_JOB, _NO_AGE = odd_job(IS_WHOLE), no_age(IS_WHOLE)
# Any column may hold a value of any type.
_ODD_EXECUTION = " OR ".join(
    [
        odd_execution(IS_WHOLE),
        *(f"typeof({name}) <> 'text'" for name in ("job_id", "uid", "kind", "status", "worker")),
        "typeof(reason) NOT IN ('text', 'null')",
        "final NOT IN (0, 1)",
    ]
)


def jobs(
    database: Database, query: JobQuery, after: str | None, limit: int
) -> Page[Job | Undecodable]:
    """Return a page of jobs; ids compare as UTF-8, which is the order of code points."""
    items: list[Job | Undecodable] = []
    while True:
        wanted = limit + 1 - len(items)
        rows = _job_rows(database, query, after, wanted)
        # Looked at again: SQLite's JSON functions end texts at a NUL.
        read = (read_record(row).read() for row in rows)
        items += [job for job in read if job is not None and query.matches(job)]
        if len(items) > limit:
            return Page(items[:limit], items[limit - 1].id if limit else None)
        if len(rows) < wanted:
            return Page(items + _with_odd_ids(database, query), None)
        after = rows[-1][0]


def _job_rows(database: Database, query: JobQuery, after: str | None, limit: int) -> list[Row]:
    # Whatever is no text comes after all texts.
    conditions, values = ["removed <> 1", "id < x''"], list[Any]()
    if after is not None:
        try:
            after.encode()
            conditions.append("id > ?")
            values.append(after)
        except UnicodeEncodeError:  # the id of a row that is no UTF-8
            conditions.append("id > CAST(? AS TEXT)")
            values.append(after.encode(errors="surrogateescape"))
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
        unreadable = f"format <> ? OR tag NOT IN ({', '.join('?' * len(tags))}) OR {_ODD_JOB}"
        conditions.append(f"({unreadable} OR ({' AND '.join(wanted)}))")
        values += [codec.FORMAT, *tags, *wanted_values]
    return database.read(
        f"SELECT {RECORD_COLUMNS} FROM sched_job WHERE {' AND '.join(conditions)} "
        "ORDER BY id LIMIT ?",
        (*values, limit),
    )


def _with_odd_ids(database: Database, query: JobQuery) -> list[Job | Undecodable]:
    """Return rows whose id is no text: no page can begin after one, so the last one has them."""
    if query.id_prefix:
        return []
    rows = database.read(
        f"SELECT {RECORD_COLUMNS} FROM sched_job WHERE id >= x'' AND removed <> 1 ORDER BY id"
    )
    return [job for row in rows if (job := read_record(row).read()) is not None]


def _wanted(query: JobQuery) -> tuple[list[str], list[Any]]:
    conditions, values = list[str](), list[Any]()
    if query.state is not None:
        conditions.append(f"{STATE} = ?")
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
    database: Database, query: ExecutionQuery, after: str | None, limit: int
) -> Page[Execution | UndecodableExecution]:
    """Return a page of the history, newest first."""
    items: list[tuple[int, Execution | UndecodableExecution]] = []
    while True:
        wanted = limit + 1 - len(items)
        rows = _execution_rows(database, query, after, wanted)
        items += [(row[-1], each) for row in rows if query.matches(each := read_execution(row))]
        if len(items) > limit:
            following = str(items[limit - 1][0]) if limit else None
            return Page([each for _, each in items[:limit]], following)
        if len(rows) < wanted:
            return Page([each for _, each in items], None)
        after = str(rows[-1][-1])


def _execution_rows(
    database: Database, query: ExecutionQuery, after: str | None, limit: int
) -> list[Row]:
    conditions, values = ["1"], list[Any]()
    if after is not None:
        conditions.append("seq < ?")
        values.append(int(after))
    if query.since is not None:
        conditions.append(f"(finished_at >= ? OR {_NO_AGE})")
        values.append(micros(query.since))
    if query.until is not None:
        conditions.append(f"(finished_at < ? OR {_NO_AGE})")
        values.append(micros(query.until))
    wanted = list[str]()
    if query.statuses:
        wanted.append(f"status IN ({', '.join('?' * len(query.statuses))})")
        values += sorted(status.value for status in query.statuses)
    if query.final is not None:
        wanted.append("final = ?")
        values.append(query.final)
    if wanted:
        # What cannot be judged is let through, and looked at again after reading.
        conditions.append(f"({' AND '.join(wanted)} OR {_ODD_EXECUTION})")
    where = " AND ".join(conditions)
    if query.job_id is None:
        return _rows(database, where, values, limit)
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
            for row in _rows(database, f"{where} AND {whose}", [*values, query.job_id], limit)
        ]
    finally:
        database.connection.execute("ROLLBACK")
    rows.sort(key=itemgetter(-1), reverse=True)
    return rows[:limit]


_UNINDEXED = "indexed = 0 AND seq > (SELECT value FROM sched_meta WHERE key = 'indexed')"


def _rows(database: Database, where: str, values: list[Any], limit: int) -> list[Row]:
    return database.read(
        f"SELECT {EXECUTION_COLUMNS}, seq FROM sched_execution WHERE {where} "
        "ORDER BY seq DESC LIMIT ?",
        (*values, limit),
    )
