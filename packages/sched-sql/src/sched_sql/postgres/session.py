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
from psycopg import AsyncConnection, Connection, Notify, conninfo, errors
from psycopg.abc import PQGen
from psycopg.pq import TransactionStatus
from psycopg.rows import tuple_row

from sched_core.errors import InvalidDefinition
from sched_sql.moments import Row
from sched_sql.postgres.failures import ends_sessions
from sched_sql.postgres.sql import Query, Steps

T = TypeVar("T")

MEANING: Mapping[str, str] = {
    # Names that are not qualified are the server's own: of functions, operators and types, too.
    # pg_temp is named because it would come first otherwise.
    "search_path": "pg_catalog, pg_temp",
    "client_encoding": "UTF8",
    "array_nulls": "on",
    "standard_conforming_strings": "on",
    "transform_null_equals": "off",
    # A policy that hides rows from us is an error, and no empty queue.
    "row_security": "off",
}
"""What our statements mean depends on these; they are set in sessions of others, too."""

SETTINGS: Mapping[str, str] = {
    # The statements are written for their indexes, whatever statistics say or miss; planned once.
    "enable_seqscan": "off",
    "enable_bitmapscan": "off",
    "enable_hashjoin": "off",
    "enable_mergejoin": "off",
    "plan_cache_mode": "force_generic_plan",
    "jit": "off",
    "enable_indexscan": "on",
    "enable_indexonlyscan": "on",
    "enable_nestloop": "on",
    "enable_tidscan": "on",
    "enable_sort": "on",
    "enable_material": "on",
    "max_parallel_workers_per_gather": "0",
    "default_transaction_isolation": "read committed",
    # A process that freezes inside a transaction must not keep its locks.
    "idle_in_transaction_session_timeout": "10s",
    # A role's or a database's default must not end sessions that wait for work.
    "idle_session_timeout": "0",
    "default_table_access_method": "heap",  # a claim names the place of its row
    **MEANING,
}
"""The settings of this package's sessions, whatever the role's and the database's defaults are.

Not among them: default_transaction_read_only, by which a DBA fences a server off.
"""


class Address:
    """The address of the server, and the user to connect as.

    Args:
        where: The address for libpq: a URI or ``key=value`` pairs; what it leaves out comes from
            a service file and the environment.
        timeout: Seconds after which a server that does not answer counts as unreachable.
        settings: The settings of every session.

    Raises:
        InvalidDefinition: libpq does not understand it.
    """

    def __init__(self, where: str, *, timeout: float, settings: Mapping[str, str]) -> None:
        given = _understood(where)
        if given is None:  # raised here: libpq's own error, which quotes passwords, is no context
            raise InvalidDefinition(
                "where",
                "libpq does not understand it: write 'postgresql://user@host:5432/database', with "
                "what is special in user and password percent-encoded",
            )
        quick = str(max(1, min(10, round(timeout))))
        defaults = {
            "application_name": "sched",
            "connect_timeout": quick,
            "keepalives_idle": quick,
            "keepalives_interval": "2",
            "keepalives_count": "3",
            "tcp_user_timeout": str(round(timeout * 1000)),
        }
        # As what the role or the database has for a default, nothing but ASCII might pass.
        always = {"client_encoding": "UTF8"}
        self.conninfo = conninfo.make_conninfo("", **{**defaults, **given, **always})
        self.timeout = timeout
        self.settings = dict(settings)

    def __str__(self) -> str:
        """Return what may be shown: no password."""
        shown = conninfo.conninfo_to_dict(self.conninfo)
        host = shown.get("host") or shown.get("hostaddr") or "(local)"
        port, database = shown.get("port"), shown.get("dbname")
        service, user = shown.get("service"), shown.get("user")
        text = f"PostgreSQL at {host}" + (f":{port}" if port else "")
        text = f"PostgreSQL service {service}" if service else text
        text += f", database {database}" if database else ""
        return text + (f", user {user}" if user else "")


def _understood(where: str) -> dict[str, Any] | None:
    try:
        return dict(conninfo.conninfo_to_dict(where))
    except psycopg.ProgrammingError:
        return None


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
        self._address = address
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
            session.patience = self._address.timeout if patience == 0.0 else patience
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
            self._address.conninfo,
            autocommit=True,
            prepare_threshold=None if self._pooled else 1,
            row_factory=tuple_row,
        )
        session.patience = self._address.timeout
        self._session, self._made_in, self._is_set = session, made_in, False
        self._handle = SocketHandle(session.fileno())
        if self._closed.is_set():  # meanwhile
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
    return f"SELECT {calls}", _flat(settings)


def _flat(settings: Mapping[str, str]) -> list[str]:
    return [part for setting in settings.items() for part in setting]


def borrowed(steps: Steps[T]) -> Steps[T]:
    """Run steps in a session of the caller's: its settings are put back afterwards.

    Inside a savepoint or at the end of a transaction: what raises takes the settings back with it.
    """
    (row,) = yield Query(f"SELECT {_ASK}, {_SET}", _flat(MEANING))
    # Where the client's encoding was none, what was read before it was set came as bytes.
    before = [value.decode() if isinstance(value, bytes) else value for value in row]
    result = yield from steps
    yield Query(f"SELECT {_SET}", _flat(dict(zip(MEANING, before, strict=False))))
    return result


_ASK = ", ".join(f"pg_catalog.current_setting('{name}')" for name in MEANING)
_SET = ", ".join("pg_catalog.set_config(%s, %s, true)" for _ in MEANING)


def run(connection: Connection[Any], steps: Steps[T]) -> T:
    """Run steps on a connection, and return what they return."""
    rows: list[Row] | None = None
    with connection.cursor(row_factory=tuple_row) as cursor:
        try:
            while True:
                query: Query = next(steps) if rows is None else steps.send(rows)
                if query.values:
                    cursor.execute(query.statement, query.values)
                else:
                    cursor.execute(query.statement.replace("%%", "%"), prepare=False)
                rows = cursor.fetchall() if cursor.description else []
        except StopIteration as end:
            result: T = end.value
            return result


async def run_async(connection: AsyncConnection[Any], steps: Steps[T]) -> T:
    """Run steps on an asynchronous connection, and return what they return."""
    rows: list[Row] | None = None
    async with connection.cursor(row_factory=tuple_row) as cursor:
        while True:
            try:
                query: Query = next(steps) if rows is None else steps.send(rows)
            except StopIteration as end:
                result: T = end.value
                return result
            if query.values:
                await cursor.execute(query.statement, query.values)
            else:
                await cursor.execute(query.statement.replace("%%", "%"), prepare=False)
            rows = await cursor.fetchall() if cursor.description else []
