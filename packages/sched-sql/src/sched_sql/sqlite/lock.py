"""The lock around every write, checkpoint, opening and closing of a database."""

from __future__ import annotations

import fcntl
import os
import threading

from sched_core.clock import monotonic_seconds
from sched_core.errors import BackendUnavailable
from sched_sql._shared.table import Locked


class Lock:
    """An ``flock`` that several processes, and several backends of one, take in turn.

    Args:
        path: The lock file's path. The file may keep a note of a few bytes.
        timeout: Seconds to wait for it.
    """

    def __init__(self, path: str, timeout: float) -> None:
        self._path = path
        self._timeout = timeout
        self._file = -1
        self._pause = threading.Event()

    def open(self) -> None:
        """Make the lock file if it is missing."""
        self._pause.clear()
        if self._file < 0:
            self._file = _make(self._path)

    def close(self) -> None:
        """Close the file, which also unlocks it; in a forked child it does not."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def cut_off(self) -> None:
        """End the waiting for the lock, now and from now on; from any thread."""
        self._pause.set()

    def pause(self, seconds: float) -> None:
        """Wait for something else while the lock is held.

        Raises:
            BackendUnavailable: The waiting was cut off.
        """
        if self._pause.wait(seconds):
            raise BackendUnavailable(f"{self._path}: this backend is closing")

    def __enter__(self) -> None:
        while True:
            try:
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                self._wait()
            if os.fstat(self._file).st_nlink:
                return
            # The file was deleted: others have made another one, or will.
            os.close(self._file)
            self._file = _make(self._path)

    def _wait(self) -> None:
        # A blocking flock would be fairer, but would hang with a process that hangs in its
        # transaction; with pauses this short the worst wait is a few milliseconds.
        deadline, pause = monotonic_seconds() + self._timeout, 0.0002
        while True:
            if self._pause.wait(pause):
                raise BackendUnavailable(
                    f"{self._path}: another process holds the lock, and this backend is closing"
                )
            pause = min(pause * 1.5, 0.002)
            try:
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except BlockingIOError:
                if monotonic_seconds() > deadline:
                    raise Locked(
                        f"{self._path}: another process has held the lock for "
                        f"{self._timeout:g} s; see which with `fuser {self._path}`"
                    ) from None

    def __exit__(self, *_: object) -> None:
        fcntl.flock(self._file, fcntl.LOCK_UN)

    # -- the note

    def note(self) -> str:
        """Return what was noted last; empty if nothing was."""
        return os.pread(self._file, 200, 0).decode(errors="replace")

    def write_note(self, text: str) -> None:
        """Keep a note of less than 200 bytes for processes to come."""
        os.ftruncate(self._file, 0)
        os.pwrite(self._file, text.encode(), 0)

    def now(self) -> int:
        """Return the file system's time, in nanoseconds, as it stamps files with it."""
        os.utime(self._file)
        return os.fstat(self._file).st_mtime_ns


def _make(path: str) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
