"""Looks into the history of a SQLite file: by id, by jobs, and in the order of commit.

There is one writer at a time, and it draws ``seq`` from the serial while it has the lock: ``seq``
is the order of commits, and nothing is committed behind what was read.
"""

# ruff: noqa: S608 -- statements are made of constants; values are bound

from __future__ import annotations

from collections.abc import Mapping, Sequence
from operator import itemgetter
from typing import Any

from sched_core import Execution, Followed, UndecodableExecution
from sched_core.errors import CursorExpired
from sched_sql._shared.cursors import Cursor, mark_of, read_cursor
from sched_sql._shared.history import (
    EXECUTION_COLUMNS,
    can_be_stored,
    position_named,
    read_execution,
)
from sched_sql._shared.moments import Row
from sched_sql.sqlite.database import Database

_SELECT = f"SELECT {EXECUTION_COLUMNS}, seq FROM sched_execution"
_UNINDEXED = "indexed = 0 AND seq > (SELECT value FROM sched_meta WHERE key = 'indexed')"
_NAMED = "uid = ?1 AND number = ?2 AND attempt = ?3"
_BY_ID = f"""
{_SELECT} WHERE {_NAMED} AND indexed = 1
UNION ALL {_SELECT} WHERE {_NAMED} AND {_UNINDEXED} LIMIT 1
"""
_AT = f"{_SELECT} WHERE seq = ?"
_AFTER = f"{_SELECT} WHERE seq > ? ORDER BY seq LIMIT ?"
_NEWEST = f"{_SELECT} ORDER BY seq DESC LIMIT 1"
_STORE = "SELECT key, value FROM sched_meta WHERE key IN ('store', 'deleted')"

_JOBS = 500
"""Jobs of one statement: SQLite 3.31 binds at most 999 values."""


def execution(database: Database, execution_id: str) -> Execution | UndecodableExecution | None:
    """Return the execution with the id, also one that is not indexed yet."""
    name, seq = position_named(execution_id)
    if name is not None:
        rows = database.read(_BY_ID, name)
    else:
        rows = [] if seq is None else database.read(_AT, (seq,))
    found = read_execution(rows[0]) if rows else None
    return found if found is not None and found.id == execution_id else None


def recent(
    database: Database, job_ids: Sequence[str], limit: int
) -> Mapping[str, Sequence[Execution | UndecodableExecution]]:
    """Return the newest executions of each job, newest first."""
    ids = [each for each in dict.fromkeys(job_ids) if can_be_stored(each)]
    found: dict[str, list[Execution | UndecodableExecution]] = {}
    for first in range(0, len(ids), _JOBS):
        part = ids[first : first + _JOBS]
        for row in sorted(_recent_rows(database, part, limit), key=itemgetter(-1), reverse=True):
            its = found.setdefault(row[0], [])
            if len(its) < limit:
                its.append(read_execution(row))
    return {job_id: its for job_id, its in found.items() if its}


def _recent_rows(database: Database, ids: Sequence[str], limit: int) -> list[Row]:
    wanted = ", ".join("(?)" for _ in ids)
    statement = f"""
        WITH wanted(id) AS (VALUES {wanted})
        {_SELECT} WHERE seq IN (
            SELECT e.seq FROM wanted CROSS JOIN sched_execution e ON e.seq IN (
                SELECT seq FROM sched_execution INDEXED BY sched_execution_job
                WHERE job_id = wanted.id AND indexed = 1 ORDER BY seq DESC LIMIT ?))
        UNION ALL {_SELECT} WHERE {_UNINDEXED} AND job_id IN (SELECT id FROM wanted)
    """
    return database.read(statement, (*ids, limit))


def follow(database: Database, after: str | None, limit: int) -> Followed:
    """Return executions in the order of commit, all of one moment."""
    database.look()
    database.connection.execute("BEGIN")
    try:
        known: dict[str, Any] = dict(database.read(_STORE))
        store, deleted = int(known["store"]), int(known["deleted"])
        if after is None:
            newest = database.read(_NEWEST)
            begin = _cursor(store, newest[0]) if newest else Cursor(store)
            return Followed((), str(_no_earlier(begin, deleted)))
        cursor = read_cursor(after, store)
        if after:
            _check(database, cursor, after, deleted)
        rows = database.read(_AFTER, (cursor.seq, limit))
    finally:
        database.connection.execute("ROLLBACK")
    if rows:
        following = _cursor(store, rows[-1], cursor.known[1] if after else deleted)
    else:
        following = _no_earlier(cursor, deleted) if limit else cursor
    return Followed([read_execution(row) for row in rows], str(following))


def _check(database: Database, cursor: Cursor, text: str, deleted: int) -> None:
    """Refuse a cursor after which something is missing.

    Raises:
        CursorExpired: It was deleted, or the file was restored to a state before the cursor.
    """
    if max(cursor.seq, cursor.known[1]) < deleted:
        raise CursorExpired(text)
    if cursor.seq > deleted:
        rows = database.read(_AT, (cursor.seq,))
        if not rows or mark_of(read_execution(rows[0]).id) != cursor.mark:
            raise CursorExpired(text)


def _cursor(store: int, row: Row, known: int = 0) -> Cursor:
    seq, mark = row[-1], mark_of(read_execution(row).id)
    return Cursor(store, 0, seq, mark, (0, known if known > seq else 0))


def _no_earlier(cursor: Cursor, deleted: int) -> Cursor:
    """Return the cursor, or that of the newest execution that was deleted."""
    return cursor if cursor.seq >= deleted else Cursor(cursor.store, 0, deleted)
