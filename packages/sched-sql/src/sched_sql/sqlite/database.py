"""One SQLite file: its connection, transactions and checkpoints; and what happens to it.

SQLite before 3.51.3 can corrupt a WAL when two connections write and checkpoint at the same
instant, and its busy handler is unfair. So every write transaction, every checkpoint, opening and
closing hold one ``flock`` on a file next to the database; only this package checkpoints.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from sched_core._support.logger import Logger
from sched_core.clock import monotonic_seconds
from sched_core.errors import BackendError, BackendUnavailable
from sched_sql.sqlite import files
from sched_sql.sqlite.checkpoints import Checkpoints
from sched_sql.sqlite.connection import close_quietly, connect, lenient_text, prepare
from sched_sql.sqlite.files import FileChange, Seen
from sched_sql.sqlite.guard import Guard, Held, identity_of
from sched_sql.sqlite.lock import Lock
from sched_sql.sqlite.schema import StillClaimed, migrate, refuse_old, roll_back, version_of

Row = tuple[Any, ...]

OLDEST_SQLITE = (3, 35, 0)
"""The first with RETURNING."""

LOOK_EVERY = 0.01
"""Seconds for which it is believed that the files are still the same."""

STILL = 1.0
"""Seconds for which a file that took the place of the database must not have changed."""

_NUMBERS = """
SELECT value, (SELECT value FROM sched_meta WHERE key = 'schema') FROM sched_meta
WHERE key = 'serial'
"""

logger = Logger("sched_sql")


class Serial:
    """Numbers that never came before: revisions and tokens."""

    __slots__ = ("value",)

    def __init__(self, value: int) -> None:
        self.value = value

    def next(self) -> int:
        """Return the next number."""
        self.value += 1
        return self.value


class Database:
    """A connection to one file.

    Args:
        path: The file's path, without links in it; the file is made if it is missing.
        synchronous: ``FULL``: what a commit wrote survives a power loss. ``NORMAL``: it survives
            the death of every process.
        timeout: Seconds to wait for a lock, and for workers of an older version.
        lives: Tells whether a worker is alive.
        create: Whether a schema may be made, or brought up to date.
    """

    def __init__(
        self,
        path: str,
        *,
        synchronous: str,
        timeout: float,
        lives: Callable[[str], bool],
        create: bool = True,
    ) -> None:
        self.path = path
        self._lives = lives
        self._create = create
        self.lock = Lock(f"{path}-lock", timeout)
        self._durable = synchronous
        self._timeout = timeout
        self._level = ""
        self._connection: sqlite3.Connection | None = None
        self._guard = Guard()
        self._files: Seen | None = None
        """The files as they were when last looked at; ``None`` if none are open."""
        self._looked = 0.0
        self._is_open = False
        self._is_new = False
        """Whether another file took the database's place, and is not open yet."""
        self._left: Held | None = None
        """The index of a deleted log that other connections of this process may have open."""
        self._schema = 0
        self._seen = 0
        self._checkpoints = Checkpoints(path, commits_are_synced=synchronous == "FULL")

    @property
    def connection(self) -> sqlite3.Connection:
        """The open connection."""
        if self._connection is None:
            raise BackendError(f"{self.path}: the backend is not open: use it through a Scheduler")
        return self._connection

    # -- opening and closing

    def open(self) -> None:
        """Connect, and bring the schema up to date."""
        if sqlite3.sqlite_version_info < OLDEST_SQLITE:
            raise BackendError(
                f"SQLite {sqlite3.sqlite_version} is too old, 3.35 is needed: "
                "use a Python that is built with a newer one"
            )
        self.lock.open()
        deadline = monotonic_seconds() + self._timeout
        while True:
            try:
                with self.lock:
                    self._connect()
                break
            except StillClaimed:
                # Without the lock, or these claims could not end.
                if monotonic_seconds() > deadline:
                    raise
                self.lock.pause(0.05)
        self._is_open = True

    def _connect(self) -> None:
        note = self.lock.note()
        if files.is_log_of_another(self.path, note):
            raise BackendError(
                f"{self.path}: it was replaced, and next to it lies the log of the file that was "
                f"there before. To go on with what it holds: stop all processes, delete "
                f"{self.path}-wal and {self.path}-shm, start. Nothing was changed"
            )
        connection = connect(self.path, self._timeout)
        try:
            version, newest = version_of(connection, self.path)
            prepare(connection, self.path, self._timeout, self.lock.pause)
            self._bring_up_to_date(connection, version, newest)
            connection.execute("SELECT value FROM sched_meta").fetchone()  # opens the log
            self._guard.take(self.path)
            self._remember(files.see(self.path, self._guard))
        except BaseException:
            connection.close()
            self._guard.let_go()
            raise
        self._connection, self._level = connection, ""
        if note != (note := files.note_of(self.path)):
            self.lock.write_note(note)
        self._checkpoints.begin(connection)

    def _bring_up_to_date(self, connection: sqlite3.Connection, version: int, newest: int) -> None:
        if version < newest:
            refuse_old(version, newest, self.path, may_change=self._create)
            migrate(connection, version, self.path, self._lives)
        self._schema = newest

    def _is_of_another_schema(self, connection: sqlite3.Connection) -> bool:
        """Whether a backup of an older schema took the place of what was there; mend it, locked.

        Raises:
            SchemaTooNew: A newer version of this package has changed it.
        """
        version, newest = version_of(connection, self.path)
        if not 0 < version < newest:
            return False
        self._bring_up_to_date(connection, version, newest)
        return True

    def close(self, *, alone: bool) -> None:
        """Disconnect, under the lock: the last one to close writes the WAL back.

        Args:
            alone: Whether no other worker is alive. Where one is, its log is left alone, also on a
                system where no second locks keep SQLite from taking itself for the last one.
        """
        connection, self._connection = self._connection, None
        self._is_open = False
        try:
            if connection is not None:
                with self.lock:
                    self._disconnect(connection, alone=alone)
        except BackendUnavailable:
            _LEFT.append((connection, self._guard))
            raise
        except BaseException:
            if connection is not None:
                close_quietly(connection)
            self._guard.let_go()
            raise
        else:
            self._guard.let_go()
        finally:
            self._files = None
            self.lock.close()

    def _disconnect(self, connection: sqlite3.Connection, *, alone: bool) -> None:
        what = self._find_out()
        if what is FileChange.AS_IT_WAS and alone:
            self._guard.let_go()
            connection.close()
            if identity_of(f"{self.path}-wal") is None:
                self.lock.write_note("")
            return
        if what is FileChange.LOG_LOST:
            self._rescue(connection)
        close_quietly(connection)
        if what in {FileChange.REPLACED, FileChange.OVERWRITTEN}:
            self._set_aside(what)

    # -- what others do to the files

    def look(self) -> None:
        """Notice what others did to the files, and go on with what is there now.

        Raises:
            BackendError: There is nothing to go on with; it says what to do.
        """
        connection = self._connection
        if connection is None:
            if not self._is_open:
                return
        elif connection.in_transaction or self._is_as_it_was():
            return
        with self.lock:
            self._look()

    def doubt(self) -> None:
        """Have the next call look at the files, however short ago that was done."""
        self._looked = float("-inf")

    def _look(self) -> None:
        if self._connection is None and self._is_open:
            self._attach()
        elif self._connection is not None and not self._is_as_it_was():
            self._mend(self._connection)

    def _is_as_it_was(self) -> bool:
        return (
            monotonic_seconds() - self._looked < LOOK_EVERY
            or self._find_out() is FileChange.AS_IT_WAS
        )

    def _find_out(self) -> FileChange:
        looked, before = monotonic_seconds(), self._files
        if before is None:
            return FileChange.AS_IT_WAS
        seen = files.see(self.path, self._guard, before)
        what = files.file_change(before, seen)
        if what is FileChange.AS_IT_WAS:
            self._remember(seen, looked)
        return what

    def _remember(self, seen: Seen, looked: float = 0.0) -> None:
        self._files, self._looked = seen, looked

    def _mend(self, connection: sqlite3.Connection) -> None:
        """Leave files that no longer belong together; called under the lock."""
        what = self._find_out()
        if what is FileChange.AS_IT_WAS:
            return
        if what is FileChange.REMOVED:
            raise BackendError(
                f"{self.path}: the file was removed under the scheduler: put it back, or restart"
            )
        if what in {FileChange.REPLACED, FileChange.OVERWRITTEN} and files.is_empty(self.path):
            # Perhaps a backup is being copied into it: then that is what there is in a moment.
            raise BackendUnavailable(
                f"{self.path}: the file was emptied under the scheduler: put a backup in its "
                "place, or restart to begin without any job"
            )
        if what is FileChange.LOG_LOST:
            whole = self._rescue(connection)
            logger.warning(
                "%s: its write-ahead log was deleted under the scheduler; %s",
                self.path,
                "all of it was written back" if whole else "the newest commits are lost",
            )
        self._connection = None
        self._left = None if what is FileChange.REPLACED else self._guard.index
        close_quietly(connection)
        if what is FileChange.LOG_LOST:
            files.remove(f"{self.path}-shm", self._guard.index)
        else:
            self._is_new = True
            self._set_aside(what)
        self._guard.let_go()
        self._files = None
        self._attach()

    def _rescue(self, connection: sqlite3.Connection) -> bool:
        """Write back a log that no name leads to any more; return whether that was possible."""
        if not self._guard.is_written_back() and files.is_empty(f"{self.path}-wal"):
            connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
            if not self._guard.is_written_back():
                raise BackendUnavailable(
                    f"{self.path}: its write-ahead log was deleted, and cannot be written back "
                    "while another program reads: end long reads"
                )
        return self._guard.is_written_back()

    def _set_aside(self, what: FileChange) -> None:
        log = None if self._files is None else self._files.log
        kept = files.set_aside(self.path, log, self._guard.index)
        logger.warning(
            "%s: %s; going on with what is there now%s",
            self.path,
            what.value,
            f", the log of before is {kept}" if kept else "",
        )

    def _attach(self) -> None:
        """Connect again, once that cannot mix the files."""
        # After this pause no other connection believes any more that the files are the same.
        self.lock.pause(2 * LOOK_EVERY)
        if self._left is not None and self._left.holders:
            raise BackendUnavailable(
                f"{self.path}: its log is gone, and other schedulers of this process still have "
                "it open: they must do something, or be closed"
            )
        if self._is_new:
            self._wait_until_still()
        self._connect()
        if self._left is not None and (
            files.has_deleted_index_open(self.path) or identity_of(f"{self.path}-shm") is None
        ):
            connection, self._connection = self.connection, None
            close_quietly(connection)
            self._guard.let_go()
            self._files = None
            raise BackendError(
                f"{self.path}: its log is gone, and another connection of this process still has "
                "it open: restart the process"
            )
        self._left, self._is_new = None, False

    def _wait_until_still(self) -> None:
        """Wait until no program copies into the file any more."""
        deadline = monotonic_seconds() + max(self._timeout, 2 * STILL)
        while True:
            try:
                changed = os.stat(self.path).st_mtime_ns  # noqa: PTH116
            except FileNotFoundError:
                raise BackendError(
                    f"{self.path}: the file was removed under the scheduler: put it back, or "
                    "restart"
                ) from None
            if abs(self.lock.now() - changed) > STILL * 1e9:
                return
            if monotonic_seconds() > deadline:
                raise BackendUnavailable(f"{self.path}: another program writes into the file")
            self.lock.pause(0.05)

    # -- reading and writing

    def read(self, statement: str, values: Sequence[Any] = ()) -> list[Row]:
        """Return the rows of a query; text that is no UTF-8 does not hide the others."""
        self.look()
        connection = self.connection
        try:
            return connection.execute(statement, values).fetchall()
        except sqlite3.OperationalError as error:
            if "decode to UTF-8" not in str(error):
                if connection.in_transaction:
                    raise
                with self.lock:
                    if not self._is_of_another_schema(connection):
                        raise
                return connection.execute(statement, values).fetchall()
            connection.text_factory = lenient_text
            return connection.execute(statement, values).fetchall()

    @contextmanager
    def write(self, *, durable: bool = True) -> Iterator[Serial]:
        """Run a transaction; what it takes from the serial is kept.

        Args:
            durable: Whether what it writes must survive a power loss; a claim need not, because
                the fence is made of the worker, too.
        """
        with self.lock:
            self._look()
            connection = self.connection
            level = self._durable if durable else "NORMAL"
            if level != self._level:
                connection.execute(f"PRAGMA synchronous = {level}")
                self._level = level
            connection.execute("BEGIN IMMEDIATE")
            try:
                stored, schema = connection.execute(_NUMBERS).fetchone()
                if schema != self._schema:
                    connection.execute("ROLLBACK")
                    self._is_of_another_schema(connection)
                    connection.execute("BEGIN IMMEDIATE")
                    stored, _ = connection.execute(_NUMBERS).fetchone()
                # A store that was restored to an earlier state must not repeat a number.
                serial = Serial(max(stored, self._seen))
                yield serial
                if serial.value != stored:
                    self._seen = max(self._seen, serial.value)
                    connection.execute(
                        "UPDATE sched_meta SET value = ? WHERE key = 'serial'", (serial.value,)
                    )
                connection.execute("COMMIT")
            except BaseException:
                roll_back(connection)
                raise
            if (
                connection.total_changes >= self._checkpoints.due_at
                and self._checkpoints.may_begin()
            ):
                self._checkpoint(connection)

    def _checkpoint(self, connection: sqlite3.Connection) -> None:
        if self._find_out() is not FileChange.AS_IT_WAS:
            return  # the next write finds out more
        self._checkpoints.make(connection)
        self._find_out()


_LEFT: list[object] = []
"""Connections that could not be closed under the lock: without it, they would disturb a writer.
They end with the process, which does not write the log back."""
