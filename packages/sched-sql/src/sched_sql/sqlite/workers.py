"""The workers that are alive: a file per worker, locked by its process as long as it lives.

The operating system lets go of the lock however the process ends, so no worker has to wait for a
lease to find out. What else lies in the directory is not ours, and is passed over.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import stat
import threading
from contextlib import suppress
from pathlib import Path

LOOKS = 200
"""Tries, a millisecond apart, to lock a file at which others may look at the same time."""

_OURS = re.compile(r"[0-9a-f]{32}")


class WorkerFiles:
    """The files of all workers on one database. Every method is called under the database's lock.

    Args:
        path: The directory.
    """

    def __init__(self, path: str) -> None:
        self._path = Path(path)
        self._own: Path | None = None
        self._file = -1

    def register(self, worker: str) -> None:
        """Make and lock the file of this process's worker."""
        self._path.mkdir(exist_ok=True)
        path = self._path / _name(worker)
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o666)
        if not _lock(file):
            os.close(file)  # another backend of this worker keeps it alive
            return
        os.write(file, worker.encode())
        self._own, self._file = path, file

    def leave(self) -> None:
        """Delete the file: its claims are left to their leases."""
        if self._own is not None:
            self._own.unlink(missing_ok=True)
            self._own = None
        self.let_go()

    def let_go(self) -> None:
        """Close the file without unlocking it for a parent process that has it, too."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def others(self) -> list[Path]:
        """Return the files of all other workers; also without the lock, for a first look."""
        try:
            with os.scandir(self._path) as entries:
                found = [
                    self._path / entry.name
                    for entry in entries
                    if _OURS.fullmatch(entry.name) and entry.is_file(follow_symlinks=False)
                ]
        except (FileNotFoundError, NotADirectoryError):
            return []
        return [path for path in found if path != self._own]

    def lives(self, worker: str) -> bool:
        """Whether a worker, this one included, is alive; also without the lock."""
        path = self._path / _name(worker)
        return path.exists() and is_locked(path)


def _name(worker: str) -> str:
    return hashlib.blake2b(worker.encode(errors="surrogateescape"), digest_size=16).hexdigest()


def _lock(file: int) -> bool:
    """Lock a worker's file; a process that only looks whether it is locked soon lets go of it."""
    pause = threading.Event()
    for _ in range(LOOKS):
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            pause.wait(0.001)
        else:
            return True
    return False


def is_locked(path: Path) -> bool:
    """Whether the worker of this file is alive."""
    try:
        file = _open(path)
    except OSError:
        return True  # it is gone by now, or not readable
    try:
        # Shared, so that of two that look at a dead worker's file none takes it for alive.
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        return False
    except BlockingIOError:
        return True
    finally:
        os.close(file)


def worker_of(path: Path) -> str | None:
    """Return whose file this is: ``""`` if its process died before it wrote that.

    ``None``: it is gone, or is no worker's file.
    """
    try:
        file = _open(path)
    except OSError:
        return None
    try:
        if not stat.S_ISREG(os.fstat(file).st_mode):
            return None
        content = os.read(file, 4096)
    finally:
        os.close(file)
    with suppress(UnicodeDecodeError):
        worker = content.decode()
        if not worker or _name(worker) == path.name:
            return worker
    return None


def _open(path: Path) -> int:
    return os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
