"""The schema of a SQLite file: which version it has, and bringing it up to date."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from sched_core.errors import SchemaTooNew

_MIGRATIONS = Path(__file__).parent / "migrations"


def version_of(connection: sqlite3.Connection, path: str) -> tuple[int, int]:
    """Return the version of the schema that is there, 0 for none, and the newest one.

    Raises:
        SchemaTooNew: It was written by a newer version of this package.
    """
    known = connection.execute(
        "SELECT count(*) FROM sqlite_master WHERE type = 'table' AND name = 'sched_meta'"
    ).fetchone()[0]
    version = 0
    if known:
        found = connection.execute("SELECT value FROM sched_meta WHERE key = 'schema'").fetchone()
        version = int(found[0]) if found else 0
    newest = int(max(_MIGRATIONS.glob("*.sql")).name[:4])
    if version > newest:
        raise SchemaTooNew(
            f"{path}: its schema {version} was written by a newer sched-sql, this one "
            f"knows {newest}: upgrade sched-sql; nothing was changed"
        )
    return version, newest


def migrate(connection: sqlite3.Connection, version: int) -> None:
    """Apply, in one transaction, all migrations after a version."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        for path in sorted(_MIGRATIONS.glob("*.sql")):
            number = int(path.name[:4])
            if number > version:
                for statement in _statements(path.read_text(encoding="utf-8")):
                    connection.execute(statement)
                connection.execute(
                    "UPDATE sched_meta SET value = ? WHERE key = 'schema'", (number,)
                )
        connection.execute("COMMIT")
    except BaseException:
        roll_back(connection)
        raise


def roll_back(connection: sqlite3.Connection) -> None:
    """Take a transaction back, if there is one; the error that led here says more than this one."""
    if connection.in_transaction:
        with suppress(sqlite3.Error):
            connection.execute("ROLLBACK")


def _statements(script: str) -> Iterator[str]:
    """Split a script; ``executescript`` would end the transaction it is part of."""
    statement = ""
    for line in script.splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""
