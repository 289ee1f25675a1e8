"""Connections to PostgreSQL: made again when they fail, dropped together, bounded in time.

Each lane has a connection of its own, so an edit that waits for a row, or a long listing, does not
delay claims, settlements and renewals.
"""

from __future__ import annotations

import os
import select
import socket
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, TypeVar

import psycopg
from psycopg import AsyncConnection, Connection, Notify, errors
from psycopg.abc import PQGen
from psycopg.pq import TransactionStatus
from psycopg.rows import tuple_row

from sched_sql._shared.moments import Row
from sched_sql.postgres.failures import ends_sessions
from sched_sql.postgres.server import Address, flat
from sched_sql.postgres.sql import Steps
from sched_sql.postgres.steps import run

T = TypeVar("T")


class Epoch:
    """Counts how often the connections turned out to lead to the wrong server, or to one that ends.

    A connection belongs to the epoch in which it was made: in a later one it is not used any more.

    Args:
        ended: Called when an epoch has ended, to drop idle connections.
    """

    def __init__(self, ended: Callable[[], object]) -> None:
        self.number = 0
        self._ended = ended
        self._lock = threading.Lock()

    def end(self, number: int) -> None:
        """End an epoch, once, however many connections tell so."""
        with self._lock:
            ends = number == self.number
            self.number += ends
        if ends:
            self._ended()


class SocketHandle:
    """A second handle of a connection's socket, by which another thread cuts it off.

    It does not use the first handle: its number may belong to another file once that is closed.
    """

    def __init__(self, descriptor: int) -> None:
        self._socket = socket.socket(fileno=os.dup(descriptor))
        self._lock = threading.Lock()

    def cut(self) -> None:
        """Make everything that waits for the connection fail."""
        with self._lock, suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Let go of the handle."""
        with self._lock:
            self._socket.close()


class Session(Connection[Row]):
    """A connection that waits for an answer no longer than it is told to."""

    patience: float | None = 10.0
    """Seconds for one exchange with the server."""

    def wait(self, gen: PQGen[T], interval: float = 0.1, timeout: float | None = None) -> T:
        """Wait as every method of a connection does, at most for :attr:`patience`."""
        return super().wait(gen, interval, self.patience if timeout is None else timeout)


IS_READ_ONLY = (
    "SELECT pg_catalog.pg_is_in_recovery() "
    "OR pg_catalog.current_setting('default_transaction_read_only')::pg_catalog.bool"
)
"""Whether a server, or a session, is of no use here."""

BUSY = 1.0
"""Seconds to wait for a lane that is in use, before going on without it."""


class LaneConnection:
    """One connection to an address, for one caller at a time.

    Args:
        address: Where to connect.
        epoch: The epoch that all connections of the backend share.
        pooled: Whether a pooler may give each transaction another session: nothing is prepared,
            and the settings go into every transaction.
        first: A lane that is connected before this one.
    """

    def __init__(
        self, address: Address, epoch: Epoch, *, pooled: bool, first: LaneConnection | None = None
    ) -> None:
        self.address = address
        self._epoch = epoch
        self._pooled = pooled
        self._first = first
        self._session: Session | None = None
        self._handle: SocketHandle | None = None
        self._made_in = 0
        self._is_set = False
        self._closed = threading.Event()
        self._turn = threading.Lock()
        self._set = _settings_query(address.settings, local=pooled)

    @property
    def is_current(self) -> bool:
        """Whether there is a connection, as far as is known, and of this epoch."""
        return self._session is not None and self._made_in == self._epoch.number

    def run(
        self,
        steps: Callable[[], Steps[T]],
        *,
        transaction: bool = True,
        patience: float | None = 0.0,
    ) -> T:
        """Run steps on the connection.

        Args:
            steps: Makes them.
            transaction: False where they are one statement, which is atomic.
            patience: Seconds for each answer; ``None`` for any number, 0 for the address's.
        """
        with self._turn:
            session = self._connected()
            session.patience = self.address.timeout if patience == 0.0 else patience
            try:
                if not transaction and not self._pooled:
                    return run(session, steps())
                with session.transaction():
                    if self._pooled:
                        session.execute(*self._set)
                    return run(session, steps())
            except psycopg.Error as error:
                self._end_epoch(error)
                raise
            finally:
                self._drop_unless_sound(session)

    def connect(self, patience: float = BUSY) -> bool:
        """See to it that there is a connection; return False where the lane stayed in use.

        Nothing is set in its session by that.

        Args:
            patience: Seconds to wait for the lane.
        """
        if not self._turn.acquire(timeout=patience):
            return False
        try:
            self._connection()
        finally:
            self._turn.release()
        return True

    def processes(self) -> tuple[int, int]:
        """Return the server process that the connection was told of, and the one that answers.

        Nothing has been set in the session before this, where it is the first thing asked for.
        """
        with self._turn:
            session = self._connection()
            try:
                (answers,) = session.execute(_PROCESS, prepare=False).fetchone() or (0,)
            finally:
                self._drop_unless_sound(session)
            return session.info.backend_pid, int(answers)

    def listen(self, channel: str, on_notice: Callable[[Notify], None]) -> int:
        """Listen on a channel; return a descriptor that the caller closes.

        It becomes readable when something is announced, and when the connection has ended.
        """
        with self._turn:
            session = self._connected()
            try:
                session.add_notify_handler(on_notice)
                session.execute(f'LISTEN "{channel}"')
            except BaseException:
                self._drop()
                raise
            return os.dup(session.fileno())

    def ask(self, question: str, patience: float) -> Row | None:
        """Ask for a sign of life on the connection that there is; return the last row, if any.

        Args:
            question: A statement, or several of which the last one tells whether it is read-only.
            patience: Seconds to wait for the answer.

        Raises:
            psycopg.Error: There is none, or the server is read-only; the connection is dropped.
        """
        with self._turn:
            session = self._session
            if session is None or not self.is_current:
                self._drop()
                raise psycopg.OperationalError("the connection was lost")
            session.patience, before = patience, session.patience
            try:
                cursor = session.execute(question, prepare=False)
                while cursor.nextset():
                    pass
                row = cursor.fetchone() if cursor.description else None
                if row and row[0] is True:
                    raise errors.ReadOnlySqlTransaction("the server is read-only")  # noqa: TRY301 -- as if it had said so
            except BaseException as error:
                self._end_epoch(error)
                self._drop()
                raise
            session.patience = before
            return row

    def _end_epoch(self, error: BaseException) -> None:
        if ends_sessions(error):
            self._epoch.end(self._made_in)

    def _drop_unless_sound(self, session: Session) -> None:
        busy = session.closed or session.info.transaction_status != TransactionStatus.IDLE
        if busy or self._closed.is_set() or not self.is_current:
            self._drop()

    def _connected(self) -> Session:
        """Return a connection with everything set."""
        session = self._connection()
        if not self._is_set and not self._pooled:
            try:
                session.execute(*self._set)
            except BaseException:
                self._drop()
                raise
        self._is_set = True
        return session

    def _connection(self) -> Session:
        """Return a connection that the server has not hung up, as it is."""
        if self._closed.is_set():
            raise psycopg.OperationalError("the backend is being closed")
        session = self._session
        if session is not None and self.is_current and not is_stale(session):
            return session
        self._drop()
        if self._first is not None:
            self._first.connect()
        made_in = self._epoch.number
        session = Session.connect(
            self.address.conninfo,
            autocommit=True,
            prepare_threshold=None if self._pooled else 1,
            row_factory=tuple_row,
        )
        session.patience = self.address.timeout
        self._session, self._made_in, self._is_set = session, made_in, False
        self._handle = SocketHandle(session.fileno())
        if self._closed.is_set():  # while it connected
            self._drop()
            raise psycopg.OperationalError("the backend is being closed")
        return session

    def _drop(self) -> None:
        line, self._handle = self._handle, None
        session, self._session = self._session, None
        if session is not None:
            session.close()
        if line is not None:
            line.cut()
            line.close()

    def leave_old(self) -> None:
        """Drop a connection of an earlier epoch, unless it is in use."""
        if self._session is not None and self._turn.acquire(blocking=False):
            try:
                if not self.is_current:
                    self._drop()
            finally:
                self._turn.release()

    def open(self) -> None:
        """Allow for connections, after :meth:`close`."""
        self._closed.clear()

    def is_closed_within(self, seconds: float) -> bool:
        """Wait so long, but no longer than until the lane is closed; return whether it is."""
        return self._closed.wait(seconds)

    def cut_off(self) -> None:
        """Make what hangs in the connection fail, and do without one; from any thread."""
        self._closed.set()
        line = self._handle
        if line is not None:
            line.cut()

    def close(self) -> None:
        """Disconnect; where the lane is in use, the thread that uses it does."""
        self._closed.set()
        if self._turn.acquire(timeout=BUSY):
            try:
                self._drop()
            finally:
                self._turn.release()

    def forget(self) -> None:
        """Let go of the parent's connection in a forked child, without a word to the server."""
        self._turn = threading.Lock()
        _INHERITED.append((self._session, self._handle))
        self._session = self._handle = None


_PROCESS = "SELECT pg_catalog.pg_backend_pid()"

_INHERITED: list[tuple[Session | None, SocketHandle | None]] = []
"""Connections of parent processes: closing them would end the parent's sessions."""


def is_stale(connection: Connection[Any] | AsyncConnection[Any]) -> bool:
    """Whether the server has hung up: to an idle connection it has hardly anything else to say."""
    if connection.closed:
        return True
    poll = select.poll()
    poll.register(connection.fileno(), select.POLLIN)
    return bool(poll.poll(0))


def _settings_query(settings: Mapping[str, str], *, local: bool) -> tuple[str, list[str]]:
    # Qualified, because the search path is not set yet.
    calls = ", ".join(f"pg_catalog.set_config(%s, %s, {str(local).lower()})" for _ in settings)
    return f"SELECT {calls}", flat(settings)
