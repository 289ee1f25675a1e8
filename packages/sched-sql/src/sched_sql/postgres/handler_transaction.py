"""The transaction of a handler, which also settles its occurrence: both commit, or neither does."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager, AbstractContextManager, suppress
from typing import Any

import anyio
import psycopg
from psycopg import AsyncConnection, Connection, IsolationLevel
from psycopg.pq import TransactionStatus

from sched_core import Claim, Job, Settlement
from sched_core.clock import loop_seconds
from sched_core.errors import (
    BackendError,
    BackendUnavailable,
    ClaimLost,
    RevisionConflict,
    SchedError,
)
from sched_sql.postgres.failures import ends_sessions
from sched_sql.postgres.pool import HandlerConnections
from sched_sql.postgres.session import Session
from sched_sql.postgres.settlements import Settler
from sched_sql.postgres.sql import Query, Steps
from sched_sql.postgres.steps import borrowed, run, run_async

CANCELLED_GRACE = 2.0
"""Seconds that the end of a transaction may still take when its handler was cancelled."""

Translate = Callable[[Exception], Exception]
"""Turns the driver's errors into the port's."""


class HandlerTransaction:
    """One transaction of a handler, which also settles its occurrence.

    Args:
        connections: Where its connection comes from.
        settler: Settles claims in the schema.
        claim: The claim that the transaction settles.
        decide: What is to be written, once the job is locked and read.
        committed: Told what was.
        fixed: Tells the moment where the clock decides, and not the server's.
        translate: Turns the driver's errors into the port's.
        lease: Milliseconds for which a process that froze during the end keeps the job locked.
        timeout: Seconds for the end of the transaction.
    """

    def __init__(
        self,
        connections: HandlerConnections,
        settler: Settler,
        claim: Claim,
        decide: Callable[[Job | None], Settlement],
        committed: Callable[[Settlement], None],
        fixed: Callable[[], int | None],
        translate: Translate,
        lease: int,
        timeout: float,
    ) -> None:
        self._connections = connections
        self._settler = settler
        self._claim = claim
        self._decide = decide
        self._committed = committed
        self._fixed = fixed
        self._translate = translate
        self._lease = lease
        self._timeout = timeout
        self._connection: Session | None = None
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
            "SELECT set_config('idle_in_transaction_session_timeout', %s, true), "
            "set_config('lock_timeout', %s, true)",
            (f"{self._lease}ms", f"{max(1, round(self._timeout * 900))}ms"),
        )
        now = self._fixed()
        holds, stored = yield from self._settler.lock(self._claim, now)
        if not holds:
            raise ClaimLost(job_id)
        settlement = self._decide(stored)
        (settled,) = yield from self._settler.settle([settlement], now, wait=True)
        if settled.outcome == "claim_lost":
            raise ClaimLost(job_id)
        if settled.outcome != "written":
            raise RevisionConflict(job_id)
        return settlement

    # -- with

    def __enter__(self) -> Connection[Any]:
        try:
            connection = self._connections.take()
        except Exception as error:
            raise self._unavailable(error) from error
        block = connection.transaction()
        try:
            connection.isolation_level = IsolationLevel.READ_COMMITTED  # not the role's default
            block.__enter__()
        except BaseException as error:
            self._connections.failed(connection, error)
            connection.close()
            self._connections.give_back(connection)
            if not isinstance(error, Exception):
                raise
            raise self._unavailable(error) from error
        connection.patience = None  # the handler's own statements may take their time
        self._connection, self._block = connection, block
        return connection

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        connection, block = self._connection, self._block
        self._connection = self._block = None
        if connection is None or block is None:
            return
        connection.patience = self._timeout
        ending = _Ending(error, broken=connection.broken)
        try:
            if error is None:
                try:
                    settlement = run(connection, borrowed(self._settle()))
                    ending.settled = True
                    block.__exit__(None, None, None)
                    self._committed(settlement)
                except Exception as failure:  # noqa: BLE001 -- raised below
                    ending.failed(failure, broken=connection.broken)
            if ending.failure is not None:
                self._connections.failed(connection, ending.failure)
                if not ending.may_roll_back(connection):
                    connection.close()
                if not ending.settled:
                    with suppress(psycopg.Error):  # what led here says more
                        block.__exit__(type(ending.failure), ending.failure, None)
        finally:
            ending.sound = self._connections.give_back(connection)
        self._raise(ending)

    # -- async with

    async def __aenter__(self) -> AsyncConnection[Any]:
        try:
            connection = await self._connections.take_async()
        except Exception as error:
            raise self._unavailable(error) from error
        block = connection.transaction()
        try:
            await connection.set_isolation_level(IsolationLevel.READ_COMMITTED)
            with anyio.fail_after(self._timeout):
                await block.__aenter__()
        except BaseException as error:
            self._connections.failed(connection, error)
            connection.pgconn.finish()
            await self._connections.give_back_async(connection)
            if not isinstance(error, Exception):
                raise
            raise self._unavailable(error) from error
        self._async_connection, self._async_block = connection, block
        return connection

    async def __aexit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        connection, block = self._async_connection, self._async_block
        self._async_connection = self._async_block = None
        if connection is None or block is None:
            return
        ending = _Ending(error, broken=connection.broken)

        async def end() -> None:
            try:
                if error is None:
                    try:
                        settlement = await run_async(connection, borrowed(self._settle()))
                        ending.settled = True
                        await block.__aexit__(None, None, None)
                        self._committed(settlement)
                    except Exception as failure:  # noqa: BLE001 -- raised below
                        ending.failed(failure, broken=connection.broken)
                if ending.failure is not None:
                    self._connections.failed(connection, ending.failure)
                    if not ending.may_roll_back(connection):
                        connection.pgconn.finish()
                    if not ending.settled:
                        with suppress(psycopg.Error):  # what led here says more
                            await block.__aexit__(type(ending.failure), ending.failure, None)
            finally:
                ending.sound = await self._connections.give_back_async(connection)

        # To be cancelled between the settlement and its commit would leave the outcome unknown.
        if not await _hurried(end, self._timeout) and error is None:
            raise BackendUnavailable(
                "the end of the transaction was not confirmed in time: the outcome is not known"
            )
        self._raise(ending)

    # -- what went wrong

    def _unavailable(self, error: BaseException) -> BaseException:
        """Return the error for what is never the handler's failure; a lost claim stays one."""
        if isinstance(error, SchedError) and type(error) is not BackendError:
            return error
        failure = self._translate(error) if isinstance(error, Exception) else error
        return BackendUnavailable(str(failure) or type(failure).__name__)

    def _raise(self, ending: _Ending) -> None:
        """Raise what leaves the block, unless it is the handler's own error, which goes on."""
        failure = ending.failure
        if not isinstance(failure, Exception):
            return
        if ending.is_the_stores():
            raise self._unavailable(failure) from failure
        if ending.is_the_handlers():
            if not ending.from_block:
                raise failure
            return
        translated = self._translate(failure)
        if translated is failure:
            raise failure
        raise translated from failure


class _Ending:
    """How a transaction of a handler's ends.

    Args:
        failure: What left the block.
        broken: Whether its connection was found to be broken by then.
    """

    def __init__(self, failure: BaseException | None, *, broken: bool) -> None:
        self.failure = failure
        self.from_block = failure is not None
        """Whether it left the block, and did not come up at its end."""
        self.broken = broken
        self.settled = False
        """Whether all was written and the commit asked for: the block has ended, with it or not."""
        self.sound = True
        """Whether the connection was in order afterwards, on a server of use."""

    def failed(self, failure: Exception, *, broken: bool) -> None:
        """Note what went wrong at the end."""
        self.failure, self.broken = failure, broken

    def may_roll_back(self, connection: Connection[Any] | AsyncConnection[Any]) -> bool:
        """Whether the server waits for a statement: else all that is left is to disconnect."""
        status = connection.info.transaction_status
        if self.settled:
            return status == TransactionStatus.IDLE
        return status in {TransactionStatus.INTRANS, TransactionStatus.INERROR}

    def is_the_stores(self) -> bool:
        """Whether the store has failed: the connection broke, or its server is of no use."""
        if self.failure is None or isinstance(self.failure, (ClaimLost, RevisionConflict)):
            return False
        if self.broken:
            return True
        # A server that is found to be read-only only now has nothing to do with other errors.
        return not self.sound and any(map(_is_the_drivers, _causes(self.failure)))

    def is_the_handlers(self) -> bool:
        """Whether a statement of the handler's has failed, be it at the commit."""
        return self.from_block or (self.settled and isinstance(self.failure, psycopg.Error))


def _is_the_drivers(error: BaseException) -> bool:
    return isinstance(error, (psycopg.OperationalError, psycopg.InterfaceError)) or (
        isinstance(error, psycopg.Error) and (ends_sessions(error) or error.sqlstate == _ABORTED)
    )


_ABORTED = "25P02"
"""A statement after one that failed, and was not told of."""


def _causes(error: BaseException) -> Iterator[BaseException]:
    """Yield an error, what it holds, and what led to it."""
    seen: set[int] = set()
    left = [error]
    while left:
        each = left.pop()
        if id(each) in seen:
            continue
        seen.add(id(each))
        yield each
        left += [found for found in (each.__cause__, each.__context__) if found is not None]
        left += each.exceptions if isinstance(each, BaseExceptionGroup) else ()


async def _hurried(work: Callable[[], Awaitable[None]], patience: float) -> bool:
    """Do something although the caller is cancelled, which only hurries it.

    Returns:
        Whether it came to its end in time.
    """
    failure: Exception | None = None
    async with anyio.create_task_group() as tasks:
        with anyio.move_on_after(patience, shield=True) as scope:
            tasks.start_soon(_hurry, scope)
            try:
                await work()
            except Exception as error:  # noqa: BLE001 -- raised below, not in an ExceptionGroup
                failure = error
        tasks.cancel_scope.cancel()
    if failure is not None:
        raise failure
    return not scope.cancelled_caught


async def _hurry(scope: anyio.CancelScope) -> None:
    try:
        await anyio.sleep_forever()
    finally:
        scope.deadline = min(scope.deadline, loop_seconds() + CANCELLED_GRACE)
