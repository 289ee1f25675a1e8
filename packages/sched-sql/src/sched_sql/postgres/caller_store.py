"""Definitions inside a transaction of the caller's: they commit and roll back with it."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeVar

import psycopg
from anyio import to_thread
from psycopg import AsyncConnection, Connection, errors
from psycopg.pq import TransactionStatus

from sched_core import Execution, Job, Undecodable
from sched_core.errors import BackendError, InvalidDefinition
from sched_sql.postgres.definitions import Definitions
from sched_sql.postgres.sql import Steps
from sched_sql.postgres.steps import borrowed, run, run_async

T = TypeVar("T")

Translate = Callable[[Exception], Exception]


class MakeRoom(Protocol):
    """Makes the partitions for executions; see :class:`CallerStore`."""

    def __call__(self, executions: Sequence[Execution], *, again: bool) -> None:
        """Make what is missing."""
        ...


class CallerStore:
    """Definitions inside a transaction of the caller's; see :class:`sched_core.ports.JobStore`.

    Each call is a savepoint: one that raises leaves the caller's transaction as it was.

    Args:
        connection: The caller's.
        definitions: The definitions in the schema.
        make_room: Makes the partitions for executions, where they are missing, in a transaction of
            its own; ``again``: one that was there is gone.
        translate: Turns the driver's errors into the port's.

    Raises:
        InvalidDefinition: It is no connection of psycopg's, or commits each statement.
    """

    def __init__(
        self,
        connection: object,
        definitions: Definitions,
        make_room: MakeRoom,
        translate: Translate,
    ) -> None:
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
        self._make_room = make_room
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

    async def replace(self, job: Job, executions: Sequence[Execution] = ()) -> Job:
        return await self._write(executions, lambda: self._definitions.replace(job, executions))

    async def remove(self, job: Job, executions: Sequence[Execution] = ()) -> None:
        await self._write(executions, lambda: self._definitions.remove(job, executions))

    async def _write(self, executions: Sequence[Execution], steps: Callable[[], Steps[T]]) -> T:
        if not executions:
            return await self._run(steps)
        await self._room(executions, again=False)
        try:
            return await self._run(steps)
        except BackendError as error:
            if not isinstance(error.__cause__, errors.CheckViolation):
                raise
        await self._room(executions, again=True)
        return await self._run(steps)

    async def _room(self, executions: Sequence[Execution], *, again: bool) -> None:
        try:
            await to_thread.run_sync(functools.partial(self._make_room, executions, again=again))
        except psycopg.Error as error:
            raise self._translate(error) from error


_BEGIN = "SELECT"
"""Begins the caller's transaction, or the savepoint would be one of its own, and commit."""


def _in_savepoint(connection: Connection[Any], steps: Callable[[], Steps[T]]) -> T:
    if connection.info.transaction_status == TransactionStatus.IDLE:
        connection.execute(_BEGIN)
    with connection.transaction():
        return run(connection, borrowed(steps()))
