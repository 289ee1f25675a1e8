"""The check that a file holds jobs, for programs that only look: it changes nothing."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

from sched_core.errors import StoreNotFound

PATIENCE = 5.0
"""Seconds for which to wait for a program that holds the file exclusively."""


def require(path: str) -> None:
    """See that a file is there and is one of ours; make nothing.

    Raises:
        StoreNotFound: It is not.
        sqlite3.Error: It cannot be read.
    """
    if not Path(path).exists():
        raise StoreNotFound(f"there is no database at {path}")
    # By SQLite itself: closing any other descriptor of the file would drop its locks.
    uri = f"{Path(path).as_uri()}?mode=ro"
    with closing(sqlite3.connect(uri, uri=True, timeout=PATIENCE)) as connection:
        (known,) = connection.execute(
            "SELECT count(*) FROM sqlite_master WHERE type = 'table' AND name = 'sched_meta'"
        ).fetchone()
    if not known:
        raise StoreNotFound(f"there are no jobs in the database at {path}: no service has used it")
