"""One SQLite file: connection, the lock around every write, checkpoints, migrations, its failures.

SQLite before 3.51.3 can corrupt a WAL when two connections write and checkpoint at the same
instant, and its busy handler is unfair. So every write transaction, every checkpoint, opening and
closing hold one ``flock`` on a file beside the database; nobody but us checkpoints.
"""

from __future__ import annotations

import errno
import fcntl
import os
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from sched_core.clock import cpu_seconds
from sched_core.errors import BackendError, BackendUnavailable, SchemaTooNew

Row = tuple[Any, ...]

OLDEST_SQLITE = (3, 35, 0)
"""The first with RETURNING."""

WAL_PAGES = 2_000
"""After about as many pages in the WAL there is a checkpoint."""

_MIGRATIONS = Path(__file__).parent / "migrations"


class Serial:
    """Numbers that never came before: revisions and tokens."""

    __slots__ = ("value",)

    def __init__(self, value: int) -> None:
        self.value = value

    def next(self) -> int:
        """Return one."""
        self.value += 1
        return self.value


class Lock:
    """An ``flock`` that several processes, and several backends of one, take in turn."""

    def __init__(self, path: str, timeout: float) -> None:
        self._path = path
        self._timeout = timeout
        self._file = -1
        self._pause = threading.Event()

    def open(self) -> None:
        """Make the lock file if it is missing."""
        self._pause.clear()
        if self._file < 0:
            self._file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)

    def close(self) -> None:
        """Close the file, which also unlocks it; in a forked child it does not."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def cut_off(self) -> None:
        """End the waiting for the lock, now and from now on; from any thread."""
        self._pause.set()

    def __enter__(self) -> None:
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._wait()

    def _wait(self) -> None:
        # A blocking flock would be fairer, but would hang with a process that hangs in its
        # transaction; with pauses this short the worst wait is a few milliseconds.
        deadline, pause = cpu_seconds() + self._timeout, 0.0002
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
                if cpu_seconds() > deadline:
                    raise BackendUnavailable(
                        f"{self._path}: another process has held the lock for "
                        f"{self._timeout:g} s; see which with `fuser {self._path}`"
                    ) from None

    def __exit__(self, *_: object) -> None:
        fcntl.flock(self._file, fcntl.LOCK_UN)


class Database:
    """A connection to one file.

    Args:
        path: Of the file; made if it is missing.
        synchronous: ``FULL``: what a commit wrote survives a power loss. ``NORMAL``: it survives
            the death of every process.
        timeout: Seconds to wait for a lock.
    """

    def __init__(self, path: str, *, synchronous: str, timeout: float) -> None:
        self.path = path
        self.lock = Lock(f"{path}-lock", timeout)
        self._durable = synchronous
        self._timeout = timeout
        self._level = ""
        self._connection: sqlite3.Connection | None = None
        self._identity: tuple[int, int] | None = None
        self._seen = 0
        self._checkpointed = 0
        self._checkpoint_at = 0
        self._pages_each = 0.0
        """Of the WAL, for each row that is changed."""
        self._syncing: threading.Thread | None = None
        """Syncs the WAL, or has synced it for the next checkpoint."""

    @property
    def connection(self) -> sqlite3.Connection:
        """The open connection."""
        if self._connection is None:
            raise BackendError(f"{self.path}: the backend is not open: use it through a Scheduler")
        return self._connection

    def open(self) -> None:
        """Connect, and bring the schema up to date."""
        if sqlite3.sqlite_version_info < OLDEST_SQLITE:
            raise BackendError(
                f"SQLite {sqlite3.sqlite_version} is too old, 3.35 is needed: "
                "use a Python that is built with a newer one"
            )
        self.lock.open()
        with self.lock:
            self._connect()

    def _connect(self) -> None:
        connection = sqlite3.connect(
            self.path,
            timeout=self._timeout,
            isolation_level=None,
            check_same_thread=False,
            cached_statements=256,
        )
        try:
            version = self._version(connection)
            newest = int(max(_MIGRATIONS.glob("*.sql")).name[:4])
            if version > newest:
                raise SchemaTooNew(  # noqa: TRY301 -- what is open must be closed, as for any error
                    f"{self.path}: its schema {version} was written by a newer sched-sql, this one "
                    f"knows {newest}: upgrade sched-sql; nothing was changed"
                )
            if connection.execute("PRAGMA journal_mode").fetchone() != ("wal",):
                connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA wal_autocheckpoint = 0")
            connection.execute("PRAGMA fullfsync = ON")
            connection.execute("PRAGMA cache_size = -8000")  # kilobytes
            if version < newest:
                self._migrate(connection, version)
        except BaseException:
            connection.close()
            raise
        self._connection, self._level = connection, ""
        self._identity = self._identify()
        self._checkpointed = connection.total_changes
        self._checkpoint_at = self._checkpointed + WAL_PAGES // 2

    @staticmethod
    def _version(connection: sqlite3.Connection) -> int:
        known = connection.execute(
            "SELECT count(*) FROM sqlite_master WHERE type = 'table' AND name = 'sched_meta'"
        ).fetchone()[0]
        if not known:
            return 0
        found = connection.execute("SELECT value FROM sched_meta WHERE key = 'schema'").fetchone()
        return int(found[0]) if found else 0

    @staticmethod
    def _migrate(connection: sqlite3.Connection, version: int) -> None:
        connection.execute("BEGIN IMMEDIATE")
        try:
            for path in sorted(_MIGRATIONS.glob("*.sql")):
                number = int(path.name[:4])
                if number > version:
                    for statement in _statements(path.read_text(encoding="utf-8")):
                        connection.execute(statement)
                    connection.execute(
                        "UPDATE sched_meta SET value = ? WHERE key = 'schema'", (number,)
                    )
            connection.execute("COMMIT")
        except BaseException:
            _roll_back(connection)
            raise

    def close(self) -> None:
        """Disconnect, under the lock: the last one to close writes the WAL back."""
        connection, self._connection = self._connection, None
        if connection is not None:
            try:
                with self.lock:
                    connection.close()
            except BackendUnavailable:
                _LEFT.append(connection)
                raise
            finally:
                self.lock.close()

    def read(self, statement: str, values: Sequence[Any] = ()) -> list[Row]:
        """Return the rows of a query; text that is no UTF-8 does not hide the others."""
        connection = self.connection
        try:
            return connection.execute(statement, values).fetchall()
        except sqlite3.OperationalError as error:
            if "decode to UTF-8" not in str(error):
                raise
            connection.text_factory = _lenient_text
            return connection.execute(statement, values).fetchall()

    @contextmanager
    def write(self, *, durable: bool = True) -> Iterator[Serial]:
        """Run a transaction; what it takes from the serial is kept.

        Args:
            durable: Whether what it writes must survive a power loss; a claim need not, because
                the fence is made of the worker, too.
        """
        connection = self.connection
        with self.lock:
            if self._identify() != self._identity:
                connection = self._reconnect()
            level = self._durable if durable else "NORMAL"
            if level != self._level:
                connection.execute(f"PRAGMA synchronous = {level}")
                self._level = level
            connection.execute("BEGIN IMMEDIATE")
            try:
                (stored,) = connection.execute(
                    "SELECT value FROM sched_meta WHERE key = 'serial'"
                ).fetchone()
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
                _roll_back(connection)
                raise
            if connection.total_changes >= self._checkpoint_at and self._have_log_synced():
                self._checkpoint(connection)

    def _have_log_synced(self) -> bool:
        """Return whether a checkpoint may begin; first, have a thread sync what commits did not.

        A checkpoint begins with that, under the lock: everybody would wait for thousands of pages.
        """
        if self._durable == "FULL":
            return True
        if self._syncing is None:
            syncing = threading.Thread(
                target=_sync, args=(f"{self.path}-wal",), name="sched-sync", daemon=True
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

    def _checkpoint(self, connection: sqlite3.Connection) -> None:
        """Write the WAL back, and guess after how many changed rows it is due again."""
        changes = connection.total_changes
        try:
            _, pages, _ = connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
        except sqlite3.Error:
            pages = WAL_PAGES  # what was committed is safe in the WAL: this can wait
        # Deletions in bulk change many rows and few pages: what comes next is not as cheap.
        found = max(pages, 1) / max(changes - self._checkpointed, 1)
        self._pages_each = max(found, 0.9 * self._pages_each)
        self._checkpointed = changes
        self._checkpoint_at = changes + min(max(int(WAL_PAGES / self._pages_each), 200), 50_000)

    def _identify(self) -> tuple[int, int]:
        try:
            found = os.stat(self.path)  # noqa: PTH116 -- asked before every write
        except FileNotFoundError:
            raise BackendError(
                f"{self.path}: the file was removed under the scheduler: put it back, or restart"
            ) from None
        return found.st_dev, found.st_ino

    def _reconnect(self) -> sqlite3.Connection:
        """Open the file that took the place of the one that was open."""
        self.connection.close()
        self._connection = None
        self._connect()
        return self.connection


_LEFT: list[sqlite3.Connection] = []
"""Connections that could not be closed under the lock: without it, they would write beside others.
They end with the process, which does not write the log back."""


def _sync(path: str) -> None:
    # SQLite has no POSIX lock on its log, which closing another descriptor would take away.
    with suppress(OSError):  # the checkpoint finds the same trouble
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(file)
        finally:
            os.close(file)


def _lenient_text(text: bytes) -> str:
    return text.decode(errors="surrogateescape")


def _statements(script: str) -> Iterator[str]:
    """Split a script; ``executescript`` would end the transaction it is part of."""
    statement = ""
    for line in script.splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""


def _roll_back(connection: sqlite3.Connection) -> None:
    if connection.in_transaction:
        try:
            connection.execute("ROLLBACK")
        except sqlite3.Error:
            pass  # the error that led here says more


def translate(error: Exception, path: str) -> Exception:
    """Return the port's error for one of SQLite or of the system, naming file and remedy."""
    if isinstance(error, sqlite3.Error):
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF
        unavailable, remedy = _REMEDIES.get(code, (False, ""))
        kind = BackendUnavailable if unavailable else BackendError
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
