"""Which workers are alive: a file per worker, locked by its process for as long as it lives.

The operating system lets go of the lock however the process ends, so nobody has to wait for a
lease to find out.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import threading
from pathlib import Path

LOOKS = 200
"""Tries, a millisecond apart, to lock a file at which others may look at the same time."""


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
        path = self._path / hashlib.blake2b(worker.encode(), digest_size=16).hexdigest()
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
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
            return [path for path in self._path.iterdir() if path != self._own]
        except FileNotFoundError:
            return []


def _lock(file: int) -> bool:
    """Lock a worker's file; whoever only looks whether it is locked lets go of it at once."""
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
        file = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return True  # gone meanwhile, or not ours to judge
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return False
    except BlockingIOError:
        return True
    finally:
        os.close(file)
