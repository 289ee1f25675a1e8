"""Connections to a SQLite file: how they are made, set up, and closed without touching a file."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import suppress

from sched_core.clock import monotonic_seconds
from sched_core.errors import BackendError
from sched_sql.sqlite.failures import is_busy

_NO_CHECKPOINT_ON_CLOSE = 1006
"""``SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE``."""


def connect(path: str, timeout: float) -> sqlite3.Connection:
    """Return a connection as the driver makes it; several threads may use it in turn."""
    return sqlite3.connect(
        path,
        timeout=timeout,
        isolation_level=None,
        check_same_thread=False,
        cached_statements=256,
    )


def prepare(
    connection: sqlite3.Connection, path: str, timeout: float, pause: Callable[[float], None]
) -> None:
    """Give the file a write-ahead log, and leave its checkpoints to this package.

    Args:
        connection: A connection to the file, under its lock.
        path: The file's path, for messages.
        timeout: Seconds to wait for other programs.
        pause: Waits so many seconds, or raises if the backend is closing.
    """
    _into_wal(connection, path, timeout, pause)
    connection.execute("PRAGMA wal_autocheckpoint = 0")
    connection.execute("PRAGMA fullfsync = ON")
    connection.execute("PRAGMA cache_size = -8000")  # kilobytes


def _into_wal(
    connection: sqlite3.Connection, path: str, timeout: float, pause: Callable[[float], None]
) -> None:
    """Have the file keep a write-ahead log; SQLite itself does not wait for others here."""
    if connection.execute("PRAGMA journal_mode").fetchone() == ("wal",):
        return
    deadline = monotonic_seconds() + timeout
    while True:
        try:
            (mode,) = connection.execute("PRAGMA journal_mode = WAL").fetchone()
        except sqlite3.OperationalError as error:
            if not is_busy(error) or monotonic_seconds() > deadline:
                raise
            pause(0.01)
            continue
        if mode != "wal":
            raise BackendError(
                f"{path}: a write-ahead log is not possible here (its journal is "
                f"{mode!r}): put the database on a local disk"
            )
        return


def close_quietly(connection: sqlite3.Connection) -> None:
    """Close without touching any file: while our locks are held, SQLite cannot either."""
    configure = getattr(connection, "setconfig", None)  # of Python 3.12
    if configure is not None:
        with suppress(sqlite3.ProgrammingError):  # closed already
            configure(_NO_CHECKPOINT_ON_CLOSE, True)
    connection.close()


def lenient_text(text: bytes) -> str:
    """Return text that is maybe no UTF-8, with a lone surrogate for each byte that is not."""
    return text.decode(errors="surrogateescape")
