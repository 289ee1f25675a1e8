"""Connections to PostgreSQL: made when they are needed, dropped when they fail, bounded in time.

Each lane has a connection of its own, so that an edit that waits for a row, or a long listing,
keeps nobody from claiming, settling and renewing.
"""

from __future__ import annotations

import select
import threading
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import psycopg
from psycopg import AsyncConnection, Connection, Notify, conninfo
from psycopg.abc import PQGen
from psycopg.pq import TransactionStatus
from psycopg.rows import tuple_row

from sched_core.errors import InvalidDefinition
from sched_sql.postgres.names import Query, Steps
from sched_sql.rows import Row

T = TypeVar("T")

MEANING: Mapping[str, str] = {
    # Names that are not qualified are the server's own: of functions, operators and types, too.
    # pg_temp is named because it would come first otherwise.
    "search_path": "pg_catalog, pg_temp",
    "client_encoding": "UTF8",
    "array_nulls": "on",
    "standard_conforming_strings": "on",
    "transform_null_equals": "off",
    "row_security": "on",
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
"""Of every session of ours, whatever the role's and the database's defaults are.

Not among them: default_transaction_read_only, by which a DBA fences a server off.
"""


class Address:
    """Where the server is, and as whom to connect.

    Args:
        where: As libpq understands it: a URI or ``key=value`` pairs; what it leaves out comes from
            a service file and the environment.
        timeout: Seconds after which a server that does not answer counts as unreachable.
        settings: Of every session.

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


class Session(Connection[Row]):
    """A connection that does not wait for ever."""

    patience = 10.0
    """Seconds for one exchange with the server."""

    def wait(self, gen: PQGen[T], interval: float = 0.1, timeout: float | None = None) -> T:
        """Wait as every method of a connection does, at most for :attr:`patience`."""
        return super().wait(gen, interval, self.patience if timeout is None else timeout)


class Lane:
    """One connection to an address, for one caller at a time.

    Args:
        address: Where to connect.
        pooled: Whether a pooler may give each transaction another session: nothing is prepared,
            and the settings go into every transaction.
    """

    def __init__(self, address: Address, *, pooled: bool) -> None:
        self._address = address
        self._pooled = pooled
        self._session: Session | None = None
        self._turn = threading.Lock()
        self._set = _settings_query(address.settings, local=pooled)

    def run(self, steps: Callable[[], Steps[T]], *, transaction: bool = True) -> T:
        """Run steps on the connection.

        Args:
            steps: Makes them.
            transaction: False where they are one statement, which is atomic by itself.
        """
        with self._turn:
            session = self._connected()
            try:
                if not transaction and not self._pooled:
                    return run(session, steps())
                with session.transaction():
                    if self._pooled:
                        session.execute(*self._set)
                    return run(session, steps())
            finally:
                if session.closed or session.info.transaction_status != TransactionStatus.IDLE:
                    self._drop()

    def listen(self, channel: str, on_notice: Callable[[Notify], None]) -> int:
        """Listen on a channel; return what becomes readable when something is announced there."""
        with self._turn:
            self._drop()
            session = self._connected()
            try:
                session.add_notify_handler(on_notice)
                session.execute(f'LISTEN "{channel}"')
            except BaseException:
                self._drop()
                raise
            return session.fileno()

    def ping(self) -> None:
        """Ask the server for a sign of life on the connection that there is.

        Raises:
            psycopg.Error: There is none; the connection is dropped.
        """
        with self._turn:
            if self._session is None:
                raise psycopg.OperationalError("the connection was lost")
            try:
                self._session.execute("SELECT")
            except BaseException:
                self._drop()
                raise

    def _connected(self) -> Session:
        session = self._session
        if session is not None and not _is_stale(session):
            return session
        self._drop()
        session = Session.connect(
            self._address.conninfo,
            autocommit=True,
            prepare_threshold=None if self._pooled else 1,
            row_factory=tuple_row,
        )
        session.patience = self._address.timeout
        self._session = session
        if not self._pooled:
            session.execute(*self._set)
        return session

    def _drop(self) -> None:
        session, self._session = self._session, None
        if session is not None:
            session.close()

    def close(self) -> None:
        """Disconnect."""
        with self._turn:
            self._drop()

    def forget(self) -> None:
        """Let go of the parent's connection in a forked child, without a word to the server."""
        self._turn = threading.Lock()
        _INHERITED.append(self._session)
        self._session = None


_INHERITED: list[Session | None] = []
"""Connections of parent processes: closing them would end the parent's sessions."""


def _is_stale(session: Session) -> bool:
    """Whether the server has hung up: to an idle connection it has hardly anything else to say."""
    if session.closed:
        return True
    poll = select.poll()
    poll.register(session.fileno(), select.POLLIN)
    return bool(poll.poll(0))


def _settings_query(settings: Mapping[str, str], *, local: bool) -> tuple[str, list[str]]:
    # Qualified, because the search path is not set yet.
    calls = ", ".join(f"pg_catalog.set_config(%s, %s, {str(local).lower()})" for _ in settings)
    return f"SELECT {calls}", _flat(settings)


def _flat(settings: Mapping[str, str]) -> list[str]:
    return [part for setting in settings.items() for part in setting]


def borrowed(steps: Steps[T]) -> Steps[T]:
    """Run steps in a session of somebody else's: its settings are put back afterwards.

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
