"""The ledger of the SQLite dialect: appending lines, finding some again, deleting old ones.

A line of a run is appended without touching an index: two random pages per line would cost more
than the rest of the run. What is appended is indexed in bulk, some thousands at a time or when
somebody has to look a line up before writing; readers look through the short rest themselves.
"""

# ruff: noqa: S608 -- statements are made of constants; values are bound

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence

from sched_core.job import Execution, Standing
from sched_sql.rows import EARLIEST, LEDGER_COLUMNS, Row, line_values
from sched_sql.sqlite.database import Database, Serial

_MARKS = ", ".join("?" * (LEDGER_COLUMNS.count(",") + 1))
_APPEND = f"INSERT INTO sched_ledger (seq, indexed, {LEDGER_COLUMNS}) VALUES (?, 0, {_MARKS})"
_INSERT = f"INSERT INTO sched_ledger (seq, indexed, {LEDGER_COLUMNS}) VALUES (?, 1, {_MARKS})"

_INDEX = """
UPDATE sched_ledger SET indexed = 1
WHERE seq > (SELECT value FROM sched_meta WHERE key = 'indexed') AND indexed = 0
"""

UNINDEXED = 4_000
"""Lines that a process appends before it indexes them."""

CHUNK = 1_000
"""Rows that one transaction of a prune deletes at most."""

_WINDOW = 20_000
"""Lines that one step of a prune looks at."""


def _is_moment(column: str) -> str:
    """Return a condition on what is compared with a later moment: what cannot be read stays."""
    return f"typeof({column}) = 'integer' AND {column} >= {EARLIEST}"


class Ledger:
    """Lines in a database. What writes is called inside a transaction."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._unindexed = 0

    def append(self, lines: Iterable[Row], serial: Serial) -> None:
        """Append lines of which it is certain that they are the first of their kind."""
        values = [(serial.next(), *line) for line in lines]
        self._database.connection.executemany(_APPEND, values)
        self._unindexed += len(values)
        if self._unindexed >= UNINDEXED:
            self.index(serial)

    def index(self, serial: Serial) -> None:
        """Index all lines."""
        execute = self._database.connection.execute
        execute(_INDEX)
        execute("UPDATE sched_meta SET value = ? WHERE key = 'indexed'", (serial.value,))
        self._unindexed = 0

    def write(self, lines: Sequence[Execution], serial: Serial) -> None:
        """Write lines; pass over those that are stored already, and second final ones."""
        if not lines:
            return
        self.index(serial)
        for line in lines:
            if self.stored(line) is None and not (
                line.final and self.has_final(line.uid, line.number)
            ):
                self._database.connection.execute(_INSERT, (serial.next(), *line_values(line)))

    def has_final(self, uid: str, number: int) -> bool:
        """Whether the occurrence has its final line; of what is indexed."""
        found = self._database.connection.execute(
            "SELECT 1 FROM sched_ledger WHERE uid = ? AND number = ? AND indexed = 1 AND final",
            (uid, number),
        ).fetchone()
        return found is not None

    def is_ahead_of(self, uid: str, standing: Standing, serial: Serial) -> bool:
        """Whether a line is stored that a run of what is pending, or a later one, would write."""
        self.index(serial)
        found = self._database.connection.execute(
            "SELECT 1 FROM sched_ledger WHERE uid = ? AND number >= ? AND indexed = 1 "
            "AND (final OR (number = ? AND attempt > ?)) LIMIT 1",
            (uid, standing.number, standing.number, standing.attempts),
        ).fetchone()
        return found is not None

    def stored(self, line: Execution) -> tuple[str, int, str] | None:
        """Return status, token and worker of the line with the same id; of what is indexed."""
        rows = self._database.read(
            "SELECT status, token, worker FROM sched_ledger "
            "WHERE uid = ? AND number = ? AND indexed = 1 AND attempt = ?",
            (line.uid, line.number, line.attempt),
        )
        return rows[0] if rows else None

    def prune_old(self, before: int, cursor: int) -> tuple[int, int | None]:
        """Delete a chunk of the lines that finished before; return how many, and where to go on."""
        self._database.look()
        connection = self._database.connection
        first, newest = connection.execute(
            "SELECT min(seq), (SELECT max(seq) FROM sched_ledger) FROM sched_ledger WHERE seq > ?",
            (cursor,),
        ).fetchone()
        if first is None:
            return 0, None
        end = first + _WINDOW
        found = connection.execute(
            "SELECT seq FROM sched_ledger WHERE seq BETWEEN ? AND ? AND finished_at < ? "
            f"AND {_is_moment('finished_at')} ORDER BY seq LIMIT ?",
            (first, end, before, CHUNK),
        ).fetchall()
        if found:
            with self._database.write(durable=False):
                self._database.connection.execute(
                    "DELETE FROM sched_ledger WHERE seq IN (SELECT value FROM json_each(?))",
                    (json.dumps([seq for (seq,) in found]),),
                )
        if len(found) == CHUNK:
            end = found[-1][0]
        return len(found), (end if end < newest else None)

    def prune_expired(self, now: int) -> int:
        """Delete a chunk of the lines that have expired; of what is indexed."""
        return self._database.connection.execute(
            "DELETE FROM sched_ledger WHERE seq IN (SELECT seq FROM sched_ledger "
            "WHERE indexed = 1 AND expires_at IS NOT NULL AND expires_at <= ? "
            f"AND {_is_moment('expires_at')} LIMIT ?)",
            (now, CHUNK),
        ).rowcount
