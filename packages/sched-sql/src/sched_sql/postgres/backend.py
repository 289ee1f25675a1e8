"""The backend for PostgreSQL: a thread for each lane, the server's clock, and notifications."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable
from datetime import timedelta
from typing import Literal

import anyio

from sched_core import Capabilities, Claim, Job, JobStore, Settlement
from sched_core.clock import Clock, pause
from sched_core.errors import InvalidDefinition
from sched_core.ports import Transaction
from sched_core.row import check_text
from sched_sql._shared.address import Postgres, address_of
from sched_sql._shared.threads import Lane
from sched_sql._shared.waking import LOOK_EVERY
from sched_sql.backend import LEASE, TIMEOUT, DatabaseBackend, check_duration
from sched_sql.postgres.table import PostgresTable

LONGEST_NAME = 63
"""Bytes in a name of PostgreSQL's."""

HANDLER_CONNECTIONS = 10
"""Connections for handlers unless told otherwise: a small server has a hundred in all."""


class PostgresBackend(DatabaseBackend):
    """Jobs in a PostgreSQL database that many machines may share.

    Args:
        where: ``"postgresql://user@host/database"``; what it leaves out, all of it even, comes from
            a libpq service (``"postgresql://?service=name"``) or the environment.
        lease: How long a claim lives unless it is renewed.
        timeout: How long to wait for a lock, and for a server that does not answer.
        time: Who decides what is due and when a lease ends. ``"store"``: the server's clock, so
            that the machines' clocks play no role. ``"clock"``: the clock that the scheduler was
            given, for tests that move time by hand.
        schema: The schema's name. Schedulers on different schemas do not see each other.
        migrate: False: never change the schema, and refuse one that is missing or too old;
            ``python -m sched_sql.postgres`` prints the SQL.
        pooled: The address is that of a pooler which may give each transaction another session
            (PgBouncer in transaction mode): nothing is prepared or listened to, and other
            processes' jobs are found by looking.
        create: False: open a store that is there, and make none; opening raises
            :class:`~sched_core.errors.StoreNotFound` where there is none, and a
            :class:`~sched_core.errors.BackendError` where an older version's is.
        handler_connections: How many connections ``event.transaction()`` uses at most; further
            handlers wait for one. They come on top of the five that each backend has.

    Raises:
        InvalidDefinition: The address or an option cannot be.
    """

    _table: PostgresTable

    def __init__(
        self,
        where: str,
        *,
        lease: timedelta = LEASE,
        timeout: timedelta = TIMEOUT,
        time: Literal["store", "clock"] = "store",
        schema: str = "sched",
        migrate: bool = True,
        pooled: bool = False,
        create: bool = True,
        handler_connections: int = HANDLER_CONNECTIONS,
    ) -> None:
        check_duration("lease", lease, least=timedelta(milliseconds=1))
        check_duration("timeout", timeout, least=timedelta(milliseconds=100))
        address = address_of(where)
        if not isinstance(address, Postgres):
            raise InvalidDefinition("where", "names a file: use SqliteBackend")
        if time not in {"store", "clock"}:
            raise InvalidDefinition("time", f"must be 'store' or 'clock', not {time!r}")
        check_text("schema", schema)
        if len(schema.encode()) > LONGEST_NAME or schema.startswith("pg_"):
            raise InvalidDefinition(
                "schema",
                f"must have at most {LONGEST_NAME} bytes and not begin with pg_: {schema!r}",
            )
        if type(handler_connections) is not int or handler_connections < 1:
            raise InvalidDefinition(
                "handler_connections",
                f"must be a whole number above 0, not {handler_connections!r}",
            )
        table = PostgresTable(
            address.uri,
            schema=schema,
            time=time,
            lease=lease,
            timeout=timeout.total_seconds(),
            migrate=migrate,
            pooled=pooled,
            create=create,
            handler_connections=handler_connections,
        )
        capabilities = Capabilities(
            durable=True,
            shared=True,
            time=time,
            granularity=timedelta(microseconds=1),
            lease=lease,
            transactions=True,
            notified=not pooled,
        )
        super().__init__(table, capabilities)
        self._hearing = False
        self._was_heard = anyio.Event()
        self._news_seen: int | None = None
        self._cancels_heard = 0

    def _deciding(self, clock: Clock) -> Clock:
        return self._table.clock(clock)

    def _leave_loop(self) -> None:
        self._table.leave_loop()

    # -- transactions of the caller and of handlers

    def within(self, connection: object) -> JobStore:
        """Return definitions inside a transaction of the caller's; see ``ports.Transactional``."""
        return self._table.within(connection)

    def transaction(
        self,
        claim: Claim,
        decide: Callable[[Job | None], Settlement],
        committed: Callable[[Settlement], None],
    ) -> Transaction:
        """Return a transaction that ends with a settlement; see ``ports.Transactional``."""
        self._affinity.check_process()

        def done(settlement: Settlement) -> None:
            committed(settlement)
            if threading.get_ident() == self._loop_thread:
                self._after([settlement])
                return
            try:
                if self._soon is not None:
                    self._soon(functools.partial(self._after, [settlement]))
            except RuntimeError:
                pass  # the loop has ended, so no worker sleeps in it

        return self._table.transaction(claim, decide, done)

    # -- waking up

    async def _before_wait(self) -> None:
        if self._table.descriptor is None:
            await self._listen()

    async def _until_changed(self) -> None:
        if self._table.news == self._news_seen is not None:
            await self._heard()

    async def _has_changed(self) -> bool:
        before, self._news_seen = self._news_seen, self._table.news
        return self._news_seen is None or self._news_seen != before

    async def _until_cancelled(self) -> None:
        if not self.capabilities.notified:
            await anyio.sleep_forever()  # but for what this process marks itself
        if self._table.descriptor is None:
            await self._listen()
        while self._table.cancels == self._cancels_heard:
            await self._heard()
        self._cancels_heard = self._table.cancels

    async def _heard(self) -> None:
        """Wait until something may have been announced, and is taken in.

        One task reads the connection, whatever it waits for; all others wait for that one.
        """
        if self._hearing:
            await self._was_heard.wait()
            return
        self._hearing = True
        try:
            await self._until_readable()
            await self._call(Lane.LISTEN, self._table.hear)
        finally:
            self._hearing = False
            was_heard, self._was_heard = self._was_heard, anyio.Event()
            was_heard.set()

    async def _until_readable(self) -> None:
        descriptor = self._table.descriptor
        if descriptor is None:
            await pause(LOOK_EVERY)
            await self._listen()
            return
        with anyio.move_on_after(self._table.silence()):
            try:
                await anyio.wait_readable(descriptor)
            except (OSError, ValueError, anyio.ClosedResourceError, anyio.BusyResourceError):
                # It was closed, or another wait uses it: looking finds what was announced.
                await pause(LOOK_EVERY)

    async def _listen(self) -> None:
        if self._table.may_listen():
            await self._call(Lane.LISTEN, self._table.listen)
