"""Connections for handlers: a bounded number, given in order, each tested before use."""

from __future__ import annotations

import threading
from typing import Any

import anyio
import psycopg
from anyio import to_thread
from psycopg import AsyncConnection
from psycopg.pq import TransactionStatus
from psycopg.rows import tuple_row

from sched_core.clock import boot_seconds, pause
from sched_core.errors import BackendUnavailable
from sched_sql.postgres.failures import ends_sessions, is_full
from sched_sql.postgres.server import Address
from sched_sql.postgres.session import (
    IS_READ_ONLY,
    Epoch,
    LaneConnection,
    Session,
    SocketHandle,
    is_stale,
)
from sched_sql.postgres.slots import Slots

IDLE = 4
"""Connections that are kept for the next handler."""

FRESH = 1.0
"""Seconds for which a connection that was in order is believed to be."""

PATIENCE = 30.0
"""Seconds to wait for a connection that other handlers have."""

_CLEAN = (
    "SET SESSION AUTHORIZATION DEFAULT; RESET ALL; CLOSE ALL; UNLISTEN *; "
    "SELECT pg_catalog.pg_advisory_unlock_all(); DISCARD TEMP; DISCARD SEQUENCES; " + IS_READ_ONLY
)
"""What DISCARD ALL does, except that what the driver has prepared stays; and whether the server is
of use."""


class Patience:
    """How long to wait for a server that has no more connections, and how long between attempts."""

    def __init__(self) -> None:
        self._ends = boot_seconds() + PATIENCE
        self._pause = 0.05

    def is_over(self) -> bool:
        """Whether it is."""
        return boot_seconds() >= self._ends

    def pause(self) -> float:
        """Return the seconds until the next attempt."""
        self._pause = min(2 * self._pause, 2.0)
        return self._pause


class _Idle:
    """An idle connection, and the moment since which it is idle."""

    __slots__ = ("connection", "since")

    def __init__(self, connection: Any, since: float) -> None:
        self.connection = connection
        self.since = since


class HandlerConnections:
    """Connections for handlers, with nothing set that their own statements might notice.

    Args:
        address: Where to connect.
        epoch: The epoch that all connections of the backend share.
        size: How many there may be.
        first: What is connected before any of them: without it, no claim is renewed.
        pooled: Whether a pooler may give each transaction another session.
    """

    def __init__(
        self, address: Address, epoch: Epoch, *, size: int, first: LaneConnection, pooled: bool
    ) -> None:
        self._address = address
        self._epoch = epoch
        self._first = first
        self._threshold = None if pooled else 5
        self._slots = Slots(size)
        self._lock = threading.Lock()
        self._idle: list[_Idle] = []
        self._made: dict[Any, tuple[int, SocketHandle]] = {}
        """All there are, and the epochs in which they were made."""
        self._ended = threading.Event()

    # -- for functions

    def take(self) -> Session:
        """Return a connection in no transaction.

        Raises:
            BackendUnavailable: The others are in use, and stay so.
            psycopg.Error: There is none to be had.
        """
        if not self._slots.take(PATIENCE):
            raise self._none_in_time()
        try:
            patience = Patience()
            while True:
                connection = self._idle_one()
                if connection is not None:
                    return connection
                try:
                    return self._connect()
                except psycopg.OperationalError as error:
                    if not self._may_wait(error, Session, patience):
                        raise
                self._ended.wait(patience.pause())
        except BaseException:
            self._slots.give_back()
            raise

    def _idle_one(self) -> Session | None:
        while (found := self._pop(Session)) is not None:
            connection: Session = found.connection
            if boot_seconds() - found.since < FRESH or self._is_sound(connection):
                return connection
            self._discard(connection)
        return None

    def _connect(self) -> Session:
        self._make_room()
        self._first.connect()
        epoch = self._epoch.number
        connection = Session.connect(
            self._address.conninfo, autocommit=True, prepare_threshold=self._threshold
        )
        self._note(connection, epoch)
        return connection

    def _is_sound(self, connection: Session) -> bool:
        connection.patience = self._address.timeout
        try:
            row = connection.execute(IS_READ_ONLY, prepare=False).fetchone()
        except psycopg.Error:
            return False
        return not self._is_wrong(connection, row)

    def give_back(self, connection: Session) -> bool:
        """Keep it for the next handler if it is sound, cleaned of what this one set.

        Returns:
            Whether it was.
        """
        connection.patience = self._address.timeout
        row: Any = (True,)
        try:
            if connection.info.transaction_status == TransactionStatus.IDLE:
                cursor = connection.execute(_CLEAN, prepare=False)
                while cursor.nextset():
                    pass
                row = cursor.fetchone()
                connection.row_factory = tuple_row
            return self._keep(connection, row)
        except psycopg.Error as error:
            self.failed(connection, error)
            self._discard(connection)
            return False
        finally:
            self._slots.give_back()

    # -- for coroutines

    async def take_async(self) -> AsyncConnection[Any]:
        """Return a connection in no transaction; raises as :meth:`take` does."""
        if not await self._slots.take_async(PATIENCE):
            raise self._none_in_time()
        try:
            patience = Patience()
            while True:
                connection = await self._idle_one_async()
                if connection is not None:
                    return connection
                try:
                    return await self._connect_async()
                except psycopg.OperationalError as error:
                    if not self._may_wait(error, AsyncConnection, patience):
                        raise
                await pause(patience.pause())
        except BaseException:
            self._slots.give_back()
            raise

    async def _idle_one_async(self) -> AsyncConnection[Any] | None:
        while (found := self._pop(AsyncConnection)) is not None:
            connection: AsyncConnection[Any] = found.connection
            if boot_seconds() - found.since < FRESH or await self._is_sound_async(connection):
                return connection
            self._discard(connection)
        return None

    async def _connect_async(self) -> AsyncConnection[Any]:
        self._make_room()
        if not self._first.is_current:
            await to_thread.run_sync(self._first.connect, abandon_on_cancel=True)
        epoch = self._epoch.number
        connection = await AsyncConnection.connect(
            self._address.conninfo, autocommit=True, prepare_threshold=self._threshold
        )
        self._note(connection, epoch)
        return connection

    async def _is_sound_async(self, connection: AsyncConnection[Any]) -> bool:
        try:
            with anyio.fail_after(self._address.timeout):
                row = await (await connection.execute(IS_READ_ONLY, prepare=False)).fetchone()
        except (psycopg.Error, TimeoutError):
            return False
        except BaseException:
            self._discard(connection)
            raise
        return not self._is_wrong(connection, row)

    async def give_back_async(self, connection: AsyncConnection[Any]) -> bool:
        """Keep it for the next handler, as :meth:`give_back` does."""
        row: Any = (True,)
        try:
            if connection.info.transaction_status == TransactionStatus.IDLE:
                cursor = await connection.execute(_CLEAN, prepare=False)
                while cursor.nextset():
                    pass
                row = await cursor.fetchone()
                connection.row_factory = tuple_row
            return self._keep(connection, row)
        except psycopg.Error:
            self._discard(connection)
            return False
        except BaseException:
            self._discard(connection)
            raise
        finally:
            self._slots.give_back()

    # -- for both

    def _none_in_time(self) -> BackendUnavailable:
        return BackendUnavailable(
            f"{self._address}: all {self._slots.size} connections for event.transaction() were in "
            f"use for {PATIENCE:.0f} s: keep transactions short, open one at a time in a handler, "
            "or raise handler_connections"
        )

    def _may_wait(self, error: psycopg.Error, kind: type[Any], patience: Patience) -> bool:
        """Whether a connection may be had later: the server has no more, but handlers have some."""
        if not is_full(error) or self._ended.is_set() or patience.is_over():
            return False
        with self._lock:
            others = [each for each in self._idle if not isinstance(each.connection, kind)]
            self._idle = [each for each in self._idle if each not in others]
        for each in others:
            self._discard(each.connection)
        return bool(others or self._made or self._slots.taken > 1)

    def _note(self, connection: Any, epoch: int) -> None:
        line = SocketHandle(connection.fileno())
        with self._lock:
            self._made[connection] = (epoch, line)
        if self._ended.is_set():
            line.cut()  # as all others were

    def _pop(self, kind: type[Any]) -> _Idle | None:
        """Return the newest idle one of a kind that seems to be of use."""
        while True:
            with self._lock:
                at = next(
                    (n for n, each in enumerate(self._idle) if isinstance(each.connection, kind)),
                    None,
                )
                if at is None:
                    return None
                found = self._idle.pop(at)
            connection = found.connection
            if self._is_current(connection) and not is_stale(connection):
                return found
            self._discard(connection)

    def _make_room(self) -> None:
        """Close idle ones of the other kind where there would be too many."""
        with self._lock:
            surplus = len(self._idle) + self._slots.taken - self._slots.size
            gone = [self._idle.pop() for _ in range(min(max(surplus, 0), len(self._idle)))]
        for each in gone:
            self._discard(each.connection)

    def _is_current(self, connection: Any) -> bool:
        known = self._made.get(connection)
        return known is not None and known[0] == self._epoch.number

    def _is_wrong(self, connection: Any, row: Any) -> bool:
        """Whether its server is read-only; if so, no connection is used any more."""
        if row is None or row[0] is not True:
            return False
        known = self._made.get(connection)
        if known is not None:
            self._epoch.end(known[0])
        return True

    def _keep(self, connection: Any, row: Any) -> bool:
        """Keep a connection that was cleaned; return whether it was sound."""
        if connection.info.transaction_status != TransactionStatus.IDLE:
            self._discard(connection)
            return False
        if self._is_wrong(connection, row):
            self._discard(connection)
            return False
        with self._lock:
            keep = (
                not self._ended.is_set() and len(self._idle) < IDLE and self._is_current(connection)
            )
            if keep:
                self._idle.insert(0, _Idle(connection, boot_seconds()))
        if not keep:
            self._discard(connection)
        return True

    def _discard(self, connection: Any) -> None:
        """Disconnect, from any thread; for an asynchronous one, closing does no more than this."""
        connection.pgconn.finish()
        with self._lock:
            known = self._made.pop(connection, None)
        if known is not None:
            known[1].close()

    def failed(self, connection: Any, error: BaseException) -> None:
        """Take in what went wrong on a connection: it may tell that none is of use any more."""
        known = self._made.get(connection)
        if known is not None and ends_sessions(error):
            self._epoch.end(known[0])

    def leave_old(self) -> None:
        """Disconnect what is idle and of an earlier epoch."""
        with self._lock:
            gone = [each for each in self._idle if not self._is_current(each.connection)]
            self._idle = [each for each in self._idle if each not in gone]
        for each in gone:
            self._discard(each.connection)

    def open(self) -> None:
        """Allow for connections, after :meth:`close`."""
        self._ended.clear()

    def close(self) -> None:
        """Close idle connections, and cut off those of handlers that do not finish."""
        self._ended.set()
        with self._lock:
            idle, self._idle = self._idle, []
            used = [line for _, line in self._made.values()]
        for each in idle:
            self._discard(each.connection)
        for line in used:
            line.cut()
