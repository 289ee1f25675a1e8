"""Checkpoints: when the write-ahead log is written back into the database."""

from __future__ import annotations

import os
import sqlite3
import threading
from contextlib import suppress

WAL_PAGES = 2_000
"""After about as many pages in the WAL there is a checkpoint."""


class Checkpoints:
    """Decides when a checkpoint is due, and makes it.

    Args:
        path: The database's path.
        commits_are_synced: Whether each commit is synced, so that a checkpoint need not sync them.
    """

    def __init__(self, path: str, *, commits_are_synced: bool) -> None:
        self._path = path
        self._commits_are_synced = commits_are_synced
        self.due_at = 0
        """The number of the connection's changes after which a checkpoint is due."""
        self._changes = 0
        """The number of changes at the last checkpoint."""
        self._pages_each = 0.0
        """Pages of the WAL for each changed row, as measured."""
        self._syncing: threading.Thread | None = None
        """Syncs the WAL, or has synced it for the next checkpoint."""

    def begin(self, connection: sqlite3.Connection) -> None:
        """Count from the changes of a new connection."""
        self._changes = connection.total_changes
        self.due_at = self._changes + WAL_PAGES // 2

    def may_begin(self) -> bool:
        """Return whether a checkpoint may begin; first, have a thread sync what commits did not.

        A checkpoint begins with that, under the lock: all would wait for thousands of pages.
        """
        if self._commits_are_synced:
            return True
        if self._syncing is None:
            syncing = threading.Thread(
                target=_sync, args=(f"{self._path}-wal",), name="sched-sync", daemon=True
            )
            try:
                syncing.start()
            except RuntimeError:
                return True  # no thread can be had: the checkpoint does it
            self._syncing = syncing
        if self._syncing.is_alive():
            return False
        self._syncing = None
        return True

    def make(self, connection: sqlite3.Connection) -> None:
        """Write the WAL back, and guess after how many changed rows it is due again."""
        changes = connection.total_changes
        try:
            _, pages, _ = connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
        except sqlite3.Error:
            pages = WAL_PAGES  # what was committed is safe in the WAL: this can wait
        # Deletions in bulk change many rows and few pages: what comes next is not as cheap.
        found = max(pages, 1) / max(changes - self._changes, 1)
        self._pages_each = max(found, 0.9 * self._pages_each)
        self._changes = changes
        self.due_at = changes + min(max(int(WAL_PAGES / self._pages_each), 200), 50_000)


def _sync(path: str) -> None:
    # SQLite has no POSIX lock on its log, which closing another descriptor would take away.
    with suppress(OSError):  # the checkpoint finds the same trouble
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(file)
        finally:
            os.close(file)
