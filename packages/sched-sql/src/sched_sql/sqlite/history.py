"""The history in SQLite: appending executions, finding some again, deleting old ones.

The execution of a run is appended without touching an index: two random pages each would cost more
than the rest of the run. What is appended is indexed in bulk, some thousands at a time or when one
must be looked up before another is written; readers look through the short rest themselves.
"""

# ruff: noqa: S608 -- statements are made of constants; values are bound

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence

from sched_core import Execution, UndecodableExecution
from sched_sql._shared.history import (
    EXECUTION_COLUMNS,
    EXECUTION_NAMES,
    execution_values,
    named,
    read_execution,
)
from sched_sql._shared.moments import EARLIEST, Row
from sched_sql.sqlite import nulls
from sched_sql.sqlite.database import Database, Serial

_MARKS = ", ".join("?" * (EXECUTION_COLUMNS.count(",") + 1))
_APPEND = f"INSERT INTO sched_execution (seq, indexed, {EXECUTION_COLUMNS}) VALUES (?, 0, {_MARKS})"
_INSERT = f"INSERT INTO sched_execution (seq, indexed, {EXECUTION_COLUMNS}) VALUES (?, 1, {_MARKS})"
_FIND = f"""
SELECT {EXECUTION_COLUMNS}, seq FROM sched_execution
WHERE uid = ? AND number = ? AND indexed = 1 AND attempt = ?
"""

_INDEX = """
UPDATE sched_execution SET indexed = 1
WHERE seq > (SELECT value FROM sched_meta WHERE key = 'indexed') AND indexed = 0
"""

FINAL = EXECUTION_NAMES.index("final")
AFTER = FINAL + 1
"""A truth value is written as the number that it is: sqlite3 binds that as fast as others."""
UNINDEXED = 4_000
"""Executions that a process appends before it indexes them."""

CHUNK = 1_000
"""Rows that one transaction of a prune deletes at most."""

_WINDOW = 20_000
"""Executions that one step of a prune looks at."""


def _is_moment(column: str) -> str:
    """Return a condition on what is compared with a later moment: what cannot be read stays."""
    return f"typeof({column}) = 'integer' AND {column} >= {EARLIEST}"


class History:
    """Executions in a database. What writes is called inside a transaction."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._unindexed = 0

    def extend(self, executions: Iterable[Row], serial: Serial) -> None:
        """Append executions of which it is certain that their ids are new."""
        values = [
            (serial.next(), *one[:FINAL], int(one[FINAL]), *one[AFTER:]) for one in executions
        ]
        nulls.execute_many(self._database.connection, _APPEND, values)
        self._unindexed += len(values)
        if self._unindexed >= UNINDEXED:
            self.index(serial)

    def index(self, serial: Serial) -> None:
        """Index all executions."""
        execute = self._database.connection.execute
        execute(_INDEX)
        execute("UPDATE sched_meta SET value = ? WHERE key = 'indexed'", (serial.value,))
        self._unindexed = 0

    def within(self, serial: Serial) -> Written:
        """Return the history as rows look at it and write to it, in a transaction."""
        return Written(self, self._database, serial)

    def prune_old(self, before: int, cursor: int) -> tuple[int, int | None]:
        """Delete a chunk of what finished before; return how many, and where to go on."""
        self._database.look()
        connection = self._database.connection
        first, newest = connection.execute(
            "SELECT min(seq), (SELECT max(seq) FROM sched_execution) FROM sched_execution "
            "WHERE seq > ?",
            (cursor,),
        ).fetchone()
        if first is None:
            return 0, None
        end = first + _WINDOW
        found = connection.execute(
            "SELECT seq FROM sched_execution WHERE seq BETWEEN ? AND ? AND finished_at < ? "
            f"AND {_is_moment('finished_at')} ORDER BY seq LIMIT ?",
            (first, end, before, CHUNK),
        ).fetchall()
        if found:
            with self._database.write(durable=False):
                self._note_deleted(found)
                self._database.connection.execute(
                    "DELETE FROM sched_execution WHERE seq IN (SELECT value FROM json_each(?))",
                    (json.dumps([seq for (seq,) in found]),),
                )
        if len(found) == CHUNK:
            end = found[-1][0]
        return len(found), (end if end < newest else None)

    def prune_expired(self, now: int) -> int:
        """Delete a chunk of what has expired; of what is indexed."""
        gone = self._database.connection.execute(
            "DELETE FROM sched_execution WHERE seq IN (SELECT seq FROM sched_execution "
            "WHERE indexed = 1 AND expires_at IS NOT NULL AND expires_at <= ? "
            f"AND {_is_moment('expires_at')} LIMIT ?) RETURNING seq",
            (now, CHUNK),
        ).fetchall()
        self._note_deleted(gone)
        return len(gone)

    def _note_deleted(self, gone: Sequence[Row]) -> None:
        """Have cursors expire that are before one of these; in the transaction that deletes."""
        if gone:
            self._database.connection.execute(
                "UPDATE sched_meta SET value = max(value, ?) WHERE key = 'deleted'", (max(gone)[0],)
            )


class Written:
    """The history inside a transaction; see :class:`sched_core.row.History`."""

    def __init__(self, history: History, database: Database, serial: Serial) -> None:
        self._history = history
        self._database = database
        self._serial = serial
        self._is_indexed = False

    def stored(self, execution_id: str) -> Execution | UndecodableExecution | None:
        """Return the execution with the id."""
        if not self._is_indexed:
            self._history.index(self._serial)
            self._is_indexed = True
        name = named(execution_id)
        rows = [] if name is None else self._database.read(_FIND, name)
        return read_execution(rows[0]) if rows else None

    def append(self, execution: Execution) -> None:
        """Add an execution; where one with its id is stored, leave that as it is."""
        if self.stored(execution.id) is None:
            values = (self._serial.next(), *execution_values(execution))
            nulls.execute(self._database.connection, _INSERT, values)
