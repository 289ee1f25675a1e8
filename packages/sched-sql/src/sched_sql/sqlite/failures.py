"""Errors of SQLite and of the system, as the port's."""

from __future__ import annotations

import errno
import sqlite3

from sched_core.errors import BackendError, BackendUnavailable
from sched_sql._shared.table import Locked


def is_busy(error: sqlite3.Error) -> bool:
    """Whether another connection has a lock that may be gone in a moment."""
    return _code(error) in {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}


def _code(error: sqlite3.Error) -> int:
    return getattr(error, "sqlite_errorcode", 0) & 0xFF


def translate(error: Exception, path: str) -> Exception:
    """Return the port's error for one of SQLite or of the system, naming file and remedy."""
    if isinstance(error, sqlite3.Error):
        unavailable, remedy = _REMEDIES.get(_code(error), (False, ""))
        kind = BackendUnavailable if unavailable else BackendError
        if is_busy(error):
            kind = Locked
        return kind(f"{path}: {error}{remedy and ': '}{remedy}")
    if isinstance(error, OSError):
        where = error.filename or path
        if error.errno in _PASSING:
            return BackendUnavailable(f"{where}: {error.strerror}: the system ran out of something")
        return BackendError(
            f"{where}: {error.strerror}: the directory of the database must exist, have space, and "
            "be writable for this user"
        )
    return error


_PASSING = {
    errno.EAGAIN,
    errno.EDQUOT,
    errno.EINTR,
    errno.EIO,
    errno.EMFILE,
    errno.ENFILE,
    errno.ENOLCK,
    errno.ENOMEM,
    errno.ENOSPC,
}
"""What may be over in a moment."""

_REMEDIES = {
    sqlite3.SQLITE_BUSY: (True, "another program holds a lock on it; end its transaction"),
    sqlite3.SQLITE_LOCKED: (True, "another program holds a lock on it; end its transaction"),
    sqlite3.SQLITE_FULL: (True, "free disk space, or raise its max_page_count"),
    sqlite3.SQLITE_IOERR: (True, "look at the disk and the system's log"),
    sqlite3.SQLITE_NOTADB: (False, "name another file; this one was left as it is"),
    sqlite3.SQLITE_CORRUPT: (False, "run PRAGMA integrity_check, and restore a backup"),
    sqlite3.SQLITE_READONLY: (False, "give this user write permission to it and its directory"),
    sqlite3.SQLITE_CANTOPEN: (
        False,
        "its directory must exist and be writable, and it must be a file",
    ),
}
