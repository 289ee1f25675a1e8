"""The schema of a SQLite file: which version it has, and bringing it up to date.

All migrations that are due are one transaction. What a statement cannot say is a step in Python
behind the file of its number.
"""

# ruff: noqa: S608 -- statements are made of constants; values are bound

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

from sched_core._support.logger import Logger
from sched_core.errors import BackendError, BackendUnavailable, SchemaTooNew
from sched_sql._shared.holds import RECORD_COLUMNS
from sched_sql._shared.upgrade import OLD_COLUMNS, upgraded

logger = Logger("sched_sql")

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


def refuse_old(version: int, newest: int, path: str, *, may_change: bool) -> None:
    """Refuse a schema that must be brought up to date, where it may not be.

    Raises:
        BackendError: Says who may.
    """
    if not may_change:
        raise BackendError(
            f"{path}: its schema {version} is older than {newest}, and who only looks at a store "
            "does not change it: start the upgraded service first"
        )


class StillClaimed(BackendUnavailable):
    """Workers of an older version hold claims that they could not end any more."""


def migrate(
    connection: sqlite3.Connection, version: int, path: str, lives: Callable[[str], bool]
) -> None:
    """Apply, in one transaction, all migrations after a version.

    Args:
        connection: A connection to the database, under its lock: no worker of any version writes.
        version: The version of the schema.
        path: The database's path.
        lives: Tells whether a worker is alive.

    Raises:
        StillClaimed: A worker that is alive holds a claim. Nothing was changed.
    """
    connection.execute("BEGIN IMMEDIATE")
    try:
        if version:
            _refuse_claims(connection, path, lives)
        for script in sorted(_MIGRATIONS.glob("*.sql")):
            number = int(script.name[:4])
            if number > version:
                for statement in _statements(script.read_text(encoding="utf-8")):
                    connection.execute(statement)
                _STEPS.get(number, _nothing)(connection)
                connection.execute(
                    "UPDATE sched_meta SET value = ? WHERE key = 'schema'", (number,)
                )
        connection.execute("COMMIT")
    except BaseException:
        roll_back(connection)
        raise
    if version:
        logger.info("%s: its schema %s was brought up to date", path, version)


def _refuse_claims(connection: sqlite3.Connection, path: str, lives: Callable[[str], bool]) -> None:
    found = connection.execute(
        "SELECT worker, count(*), min(id) FROM sched_job "
        "WHERE lease_until IS NOT NULL AND typeof(worker) = 'text' GROUP BY worker ORDER BY worker"
    )
    claims = [
        f"{worker} ({job_id!r}{f' and {count - 1} more' if count > 1 else ''})"
        for worker, count, job_id in found
        if lives(worker)
    ]
    if claims:
        raise StillClaimed(
            f"{path}: its schema must be brought up to date, and workers of an older sched-sql "
            f"still run jobs: {', '.join(claims)}: stop them, or wait until these runs have "
            "ended; nothing was changed"
        )


def _nothing(_: sqlite3.Connection) -> None:
    """Do without a step in Python."""


def _copy_jobs(connection: sqlite3.Connection) -> None:
    old = connection.execute(f"SELECT {OLD_COLUMNS} FROM sched_job_old ORDER BY rowid")
    # The later migrations are not applied yet.
    present = {row[1] for row in connection.execute("PRAGMA table_info(sched_job)")}
    names = RECORD_COLUMNS.split(", ")
    places = [place for place, name in enumerate(names) if name in present]
    columns, marks = ", ".join(names[place] for place in places), ", ".join("?" * len(places))
    connection.executemany(
        f"INSERT INTO sched_job ({columns}) VALUES ({marks})",
        (tuple(row[place] for place in places) for row in map(upgraded, old)),
    )
    old.close()
    connection.execute("DROP TABLE sched_job_old")


_STEPS: dict[int, Callable[[sqlite3.Connection], None]] = {2: _copy_jobs}


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
