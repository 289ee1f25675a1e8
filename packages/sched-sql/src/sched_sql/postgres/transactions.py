"""Transactions that are not this package's alone: the caller's, and those of handlers."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from typing import Any, TypeVar

import anyio
import psycopg
from anyio import to_thread
from psycopg import AsyncConnection, Connection, IsolationLevel
from psycopg.pq import TransactionStatus
from psycopg.rows import tuple_row

from sched_core.errors import (
    BackendError,
    ClaimLost,
    InvalidDefinition,
    RevisionConflict,
)
from sched_core.job import Claim, Execution, Job, Settlement
from sched_core.ports import Undecodable
from sched_sql.postgres.definitions import Definitions
from sched_sql.postgres.names import Query, Steps
from sched_sql.postgres.session import Address, borrowed, run, run_async
from sched_sql.postgres.settling import Settling

T = TypeVar("T")

IDLE = 4
"""Connections of each kind that are kept for the next handler."""

_CLEAN = (
    "SET SESSION AUTHORIZATION DEFAULT; RESET ALL; CLOSE ALL; UNLISTEN *; "
    "SELECT pg_catalog.pg_advisory_unlock_all(); DISCARD TEMP; DISCARD SEQUENCES"
)
"""What DISCARD ALL does, except that what the driver has prepared stays."""

Translate = Callable[[Exception], Exception]


# -- the caller's ------------------------------------------------------------


class CallersStore:
    """Definitions inside a transaction of the caller's; see :class:`sched_core.ports.JobStore`.

    Each call is a savepoint: one that raises leaves the caller's transaction as it was.

    Args:
        connection: The caller's.
        definitions: Of the schema.
        translate: Turns the driver's errors into the port's.

    Raises:
        InvalidDefinition: It is no connection of psycopg's, or commits each statement.
    """

    def __init__(self, connection: object, definitions: Definitions, translate: Translate) -> None:
        if not isinstance(connection, (Connection, AsyncConnection)):
            raise InvalidDefinition(
                "connection",
                f"must be a psycopg.Connection or AsyncConnection, not {type(connection).__name__}",
            )
        idle = connection.info.transaction_status == TransactionStatus.IDLE
        if connection.autocommit and idle:
            raise InvalidDefinition(
                "connection",
                "commits each statement: begin a transaction first: connection.transaction()",
            )
        self._connection: Connection[Any] | AsyncConnection[Any] = connection
        self._definitions = definitions
        self._translate = translate

    async def _run(self, steps: Callable[[], Steps[T]]) -> T:
        connection = self._connection
        try:
            if isinstance(connection, AsyncConnection):
                if connection.info.transaction_status == TransactionStatus.IDLE:
                    await connection.execute(_BEGIN)
                async with connection.transaction():
                    return await run_async(connection, borrowed(steps()))
            return await to_thread.run_sync(_in_savepoint, connection, steps)
        except Exception as error:
            failure = self._translate(error)
            if failure is error:
                raise
            raise failure from error

    async def add(self, jobs: Sequence[Job]) -> Sequence[Job]:
        return await self._run(lambda: self._definitions.add(jobs))

    async def get(self, job_id: str) -> Job | Undecodable | None:
        return await self._run(lambda: self._definitions.get(job_id))

    async def replace(self, job: Job, ledger: Sequence[Execution] = ()) -> Job:
        return await self._run(lambda: self._definitions.replace(job, ledger))

    async def remove(
        self, job_id: str, ledger: Sequence[Execution] = (), *, expected: int | None = None
    ) -> bool:
        return await self._run(lambda: self._definitions.remove(job_id, ledger, expected))


_BEGIN = "SELECT"
"""Begins the caller's transaction, or the savepoint would be one of its own, and commit."""


def _in_savepoint(connection: Connection[Any], steps: Callable[[], Steps[T]]) -> T:
    if connection.info.transaction_status == TransactionStatus.IDLE:
        connection.execute(_BEGIN)
    with connection.transaction():
        return run(connection, borrowed(steps()))


# -- a handler's -------------------------------------------------------------


class Connections:
    """Connections for handlers, with nothing set that their own statements might notice.

    Args:
        address: Where to connect.
        pooled: Whether a pooler may give each transaction another session.
    """

    def __init__(self, address: Address, *, pooled: bool) -> None:
        self._address = address
        self._threshold = None if pooled else 5
        self._lock = threading.Lock()
        self._idle: list[Connection[Any]] = []
        self._idle_async: list[AsyncConnection[Any]] = []

    def take(self) -> Connection[Any]:
        """Return a connection in no transaction."""
        with self._lock:
            while self._idle:
                connection = self._idle.pop()
                if not connection.closed:
                    return connection
        return Connection.connect(
            self._address.conninfo, autocommit=True, prepare_threshold=self._threshold
        )

    def give_back(self, connection: Connection[Any]) -> None:
        """Keep it for the next handler if it is sound, cleaned of what this one set."""
        try:
            connection.execute(_CLEAN, prepare=False)
            connection.row_factory = tuple_row
        except psycopg.Error:
            connection.close()
            return
        with self._lock:
            if len(self._idle) < IDLE:
                self._idle.append(connection)
                return
        connection.close()

    async def take_async(self) -> AsyncConnection[Any]:
        """Return a connection in no transaction."""
        while self._idle_async:
            connection = self._idle_async.pop()
            if not connection.closed:
                return connection
        return await AsyncConnection.connect(
            self._address.conninfo, autocommit=True, prepare_threshold=self._threshold
        )

    async def give_back_async(self, connection: AsyncConnection[Any]) -> None:
        """Keep it for the next handler if it is sound, cleaned of what this one set."""
        try:
            await connection.execute(_CLEAN, prepare=False)
            connection.row_factory = tuple_row
        except psycopg.Error:
            await connection.close()
            return
        if len(self._idle_async) < IDLE:
            self._idle_async.append(connection)
        else:
            await connection.close()

    async def close(self) -> None:
        """Close what nobody uses."""
        with self._lock:
            for connection in self._idle:
                connection.close()
            self._idle.clear()
        while self._idle_async:
            await self._idle_async.pop().close()


class HandlersTransaction:
    """One transaction of a handler, which also settles its occurrence.

    Args:
        connections: Where its connection comes from.
        settling: Of the schema.
        claim: That it ends.
        decide: What is to be written, once the job is locked and read.
        committed: Told what was.
        translate: Turns the driver's errors into the port's.
        lease: Milliseconds for which a process that froze during the end keeps the job locked.
    """

    def __init__(
        self,
        connections: Connections,
        settling: Settling,
        claim: Claim,
        decide: Callable[[Job | None], Settlement],
        committed: Callable[[Settlement], None],
        translate: Translate,
        lease: int,
    ) -> None:
        self._connections = connections
        self._settling = settling
        self._claim = claim
        self._decide = decide
        self._committed = committed
        self._translate = translate
        self._lease = lease
        self._connection: Connection[Any] | None = None
        self._block: AbstractContextManager[Any] | None = None
        self._async_connection: AsyncConnection[Any] | None = None
        self._async_block: AbstractAsyncContextManager[Any] | None = None

    def _settle(self) -> Steps[Settlement]:
        job_id = self._claim.job.spec.id
        ((level,),) = yield Query("SELECT current_setting('transaction_isolation')")
        if level != "read committed":
            raise BackendError(
                f"the transaction is {level}: only read committed can see that the claim of "
                f"job {job_id!r} was renewed meanwhile; take the isolation level out"
            )
        yield Query(
            "SELECT set_config('idle_in_transaction_session_timeout', %s, true)",
            (f"{self._lease}ms",),
        )
        holds, stored = yield from self._settling.lock(self._claim)
        if not holds:
            raise ClaimLost(job_id)
        settlement = self._decide(stored)
        (settled,) = yield from self._settling.settle([settlement], wait=True)
        if settled.outcome == "claim_lost":
            raise ClaimLost(job_id)
        if settled.outcome != "written":
            raise RevisionConflict(job_id)
        return settlement

    # -- with

    def __enter__(self) -> Connection[Any]:
        try:
            connection = self._connections.take()
            connection.isolation_level = IsolationLevel.READ_COMMITTED  # not the role's default
            block = connection.transaction()
            block.__enter__()
        except Exception as error:
            raise self._translate(error) from error
        self._connection, self._block = connection, block
        return connection

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        connection, block = self._connection, self._block
        self._connection = self._block = None
        if connection is None or block is None:
            return
        try:
            if error is not None:
                block.__exit__(kind, error, trace)
                return
            try:
                settlement = run(connection, borrowed(self._settle()))
            except BaseException as failure:
                block.__exit__(type(failure), failure, failure.__traceback__)
                raise
            block.__exit__(None, None, None)
            self._committed(settlement)
        except Exception as failure:
            translated = self._translate(failure)
            if translated is failure:
                raise
            raise translated from failure
        finally:
            self._connections.give_back(connection)

    # -- async with

    async def __aenter__(self) -> AsyncConnection[Any]:
        try:
            connection = await self._connections.take_async()
            await connection.set_isolation_level(IsolationLevel.READ_COMMITTED)
            block = connection.transaction()
            await block.__aenter__()
        except Exception as error:
            raise self._translate(error) from error
        self._async_connection, self._async_block = connection, block
        return connection

    async def __aexit__(self, kind: Any, error: Any, trace: Any) -> None:
        connection, block = self._async_connection, self._async_block
        self._async_connection = self._async_block = None
        if connection is None or block is None:
            return
        # To be cancelled between the settlement and its commit would leave the outcome unknown.
        with anyio.CancelScope(shield=True):
            try:
                if error is not None:
                    await block.__aexit__(kind, error, trace)
                    return
                try:
                    settlement = await run_async(connection, borrowed(self._settle()))
                except BaseException as failure:
                    await block.__aexit__(type(failure), failure, failure.__traceback__)
                    raise
                await block.__aexit__(None, None, None)
                self._committed(settlement)
            except Exception as failure:
                translated = self._translate(failure)
                if translated is failure:
                    raise
                raise translated from failure
            finally:
                await self._connections.give_back_async(connection)
