"""What happened to the files of a database while a connection had them open.

SQLite pairs a database with the log of the same name, and believes it. So when either was moved,
deleted or written over, the two may not belong together any more, and to go on would mix them.
"""

from __future__ import annotations

import enum
import os
from contextlib import suppress
from typing import NamedTuple

from sched_sql.sqlite.guard import Guard, Held, Identity, identity_of


class Seen(NamedTuple):
    """The files at one moment."""

    database: Identity | None
    content: tuple[int, int]
    """Size of the database file, and when it was changed."""
    log: Identity | None
    progress: bytes
    header: bytes


class FileChange(enum.Enum):
    """A change of a database's files."""

    AS_IT_WAS = "as it was"
    REMOVED = "the database is gone"
    REPLACED = "another file has its name"
    OVERWRITTEN = "another database was copied into the file"
    LOG_LOST = "the log was deleted or replaced"


def see(path: str, guard: Guard, before: Seen | None = None) -> Seen:
    """Look at the files of a database."""
    progress = guard.progress()  # first: a checkpoint shows here before it shows in the file
    log = identity_of(f"{path}-wal")
    try:
        found = os.stat(path)  # noqa: PTH116 -- asked often
    except FileNotFoundError:
        return Seen(None, (0, 0), log, progress, b"")
    content = (found.st_size, found.st_mtime_ns)
    header = before.header if before and before.content == content else guard.header()
    return Seen((found.st_dev, found.st_ino), content, log, progress, header)


def file_change(before: Seen, now: Seen) -> FileChange:
    """Decide what happened between two looks."""
    if now.database is None:
        return FileChange.REMOVED
    if now.database != before.database:
        return FileChange.REPLACED
    changed = (now.content[0], now.header) != (before.content[0], before.header)
    if changed and now.progress == before.progress:
        return FileChange.OVERWRITTEN  # nothing but a checkpoint writes to the file
    if now.log != before.log:
        return FileChange.LOG_LOST
    return FileChange.AS_IT_WAS


def is_empty(path: str) -> bool:
    """Whether a file is missing, or has nothing in it."""
    try:
        return os.stat(path).st_size == 0  # noqa: PTH116
    except FileNotFoundError:
        return True


def set_aside(path: str, log: Identity | None, index: Held | None) -> str | None:
    """Take the log of another database away from this one; return where it is, if it is kept."""
    kept = None
    if log is not None and identity_of(f"{path}-wal") == log:
        if not is_empty(f"{path}-wal"):
            kept = f"{path}-wal.replaced"
            os.replace(f"{path}-wal", kept)  # noqa: PTH105
        else:
            os.unlink(f"{path}-wal")  # noqa: PTH108
    remove(f"{path}-shm", index)
    return kept


def remove(path: str, file: Held | None) -> None:
    """Delete a file if it is still the one that is meant."""
    if file is not None and identity_of(path) == file.identity:
        with suppress(FileNotFoundError):
            os.unlink(path)  # noqa: PTH108


def has_deleted_index_open(path: str) -> bool:
    """Whether a connection of this process still has the deleted index of a log mapped."""
    try:
        with open("/proc/self/maps", encoding="utf-8", errors="surrogateescape") as maps:  # noqa: PTH123
            return any(line.rstrip("\n").endswith(f"{path}-shm (deleted)") for line in maps)
    except OSError:
        return False  # another system


# -- the note of which files belong together


def note_of(path: str) -> str:
    """Return the note that a database and its log belong together."""
    return f"{_text(identity_of(path))} {_text(identity_of(f'{path}-wal'))}\n"


def is_log_of_another(path: str, note: str) -> bool:
    """Whether the log was noted as another database's, which had this one's name."""
    words = note.split()
    if len(words) != 2 or is_empty(f"{path}-wal") or is_empty(path):
        return False
    database, log = words
    return log == _text(identity_of(f"{path}-wal")) and database != _text(identity_of(path))


def _text(identity: Identity | None) -> str:
    return "-" if identity is None else f"{identity[0]}:{identity[1]}"
