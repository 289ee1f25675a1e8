"""Locks on SQLite's files that closing another descriptor cannot take away.

POSIX drops every lock of a process on a file when the process closes any descriptor of it: a
handler that copies the database for a backup is enough. Another process then takes itself for the
last one and deletes the write-ahead log, or empties its index, under this one. So the bytes by
which SQLite knows who is there are locked a second time, with locks that belong to a descriptor of
ours ("open file description locks"). They are shared ones: SQLite's own go on as ever.

For the same reason a descriptor of ours is not closed while the application might have connections
of its own to the file: it is kept for the next time.
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct
import sys
import threading
from contextlib import suppress

from sched_core.errors import BackendUnavailable

Identity = tuple[int, int]
"""Device and inode: what a file is, whatever its name."""

SPARE = 32
"""Descriptors that are kept although nothing holds them."""

_PRESENT = (0x4000_0002, 510)
"""Bytes of the database: who deletes its log must lock them all for itself."""

_INDEX_USED = (128, 1)
"""A byte of the log's index: who finds it free empties the index."""

_TRIES = 200
"""A millisecond apart; SQLite has these bytes for itself only while it opens and closes."""

_IS_POSSIBLE = sys.platform == "linux" and hasattr(fcntl, "F_OFD_SETLK")
_UNSUPPORTED = {errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP}


def identity_of(path: str) -> Identity | None:
    """Return what file has this name, ``None`` for none."""
    try:
        found = os.stat(path)  # noqa: PTH116 -- asked often
    except FileNotFoundError:
        return None
    return found.st_dev, found.st_ino


class Held:
    """A file with a lock of ours: shared by all connections of this process."""

    __slots__ = ("bytes", "descriptor", "holders", "identity")

    def __init__(self, path: str, locked: tuple[int, int]) -> None:
        self.descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        found = os.fstat(self.descriptor)
        self.identity: Identity = (found.st_dev, found.st_ino)
        self.bytes = locked
        self.holders = 0


_files: dict[Identity, Held] = {}
"""All of this process, those held last at the end."""

_mutex = threading.Lock()


class Guard:
    """The second locks of one connection."""

    def __init__(self) -> None:
        self.database: Held | None = None
        self.index: Held | None = None

    def take(self, path: str) -> None:
        """Lock the database and the index of its log, which a connection has open."""
        self.database = _hold(path, _PRESENT)
        self.index = _hold(f"{path}-shm", _INDEX_USED)

    def let_go(self) -> None:
        """Unlock what is locked; twice is harmless."""
        for file in (self.index, self.database):
            if file is not None:
                _let_go(file)
        self.database = self.index = None

    def header(self) -> bytes:
        """Return the first bytes of the database file, as they are on the disk."""
        return b"" if self.database is None else os.pread(self.database.descriptor, 100, 0)

    def progress(self) -> bytes:
        """Return what changes in the log's index when a checkpoint begins, and when it ends."""
        index = self._read_index()
        return index[32:40] + index[96:100] + index[128:132]

    def is_written_back(self) -> bool:
        """Whether the database holds all that its log does."""
        index = self._read_index()
        return index[16:20] == index[96:100]

    def _read_index(self) -> bytes:
        return b"" if self.index is None else os.pread(self.index.descriptor, 136, 0)


def _hold(path: str, locked: tuple[int, int]) -> Held:
    with _mutex:
        _tidy()
        file = _files.get(identity_of(path) or (-1, -1))
        if file is None:
            file = Held(path, locked)
            # Where another file has taken the name, the descriptor is of no use, but stays open.
            file = _files.setdefault(file.identity, file)
        if not file.holders:
            _lock(file, path)
        file.holders += 1
        return file


def _let_go(file: Held) -> None:
    with _mutex:
        if _files.pop(file.identity, None) is None:
            return  # in a forked child
        _files[file.identity] = file
        file.holders -= 1
        if not file.holders and _IS_POSSIBLE:
            with suppress(OSError):
                _set(file, fcntl.F_UNLCK)


def _tidy() -> None:
    """Close descriptors of files that are gone, and the oldest ones where they get many."""
    spare = [identity for identity, file in _files.items() if not file.holders]
    for number, identity in enumerate(reversed(spare)):
        if number >= SPARE or not os.fstat(_files[identity].descriptor).st_nlink:
            os.close(_files.pop(identity).descriptor)


def _lock(file: Held, path: str) -> None:
    if not _IS_POSSIBLE:
        return
    pause = threading.Event()
    for _ in range(_TRIES):
        try:
            _set(file, fcntl.F_RDLCK)
        except OSError as error:
            if error.errno in _UNSUPPORTED:
                return  # by this file system
            if error.errno not in {errno.EAGAIN, errno.EACCES}:
                raise
        else:
            return
        pause.wait(0.001)
    raise BackendUnavailable(f"{path}: another program has it for itself; end that program")


def _set(file: Held, kind: int) -> None:
    first, length = file.bytes
    fcntl.fcntl(
        file.descriptor,
        fcntl.F_OFD_SETLK,
        struct.pack("hhqqi4x", kind, os.SEEK_SET, first, length, 0),
    )


def _in_child() -> None:
    """Close, in a forked child, what would keep the locks after the parent's death."""
    while _files:
        _, file = _files.popitem()
        os.close(file.descriptor)
    _mutex.release()


os.register_at_fork(before=_mutex.acquire, after_in_parent=_mutex.release, after_in_child=_in_child)
