"""How steps are run on a connection: this package's own or a caller's, synchronous or not."""

from __future__ import annotations

from typing import Any, TypeVar

from psycopg import AsyncConnection, Connection
from psycopg.rows import tuple_row

from sched_sql._shared.moments import Row
from sched_sql.postgres.server import MEANING, flat
from sched_sql.postgres.sql import Query, Steps

T = TypeVar("T")


def borrowed(steps: Steps[T]) -> Steps[T]:
    """Run steps in a session of the caller's: its settings are put back afterwards.

    Inside a savepoint or at the end of a transaction: what raises takes the settings back with it.
    """
    (row,) = yield Query(f"SELECT {_ASK}, {_SET}", flat(MEANING))
    # Where the client's encoding was none, what was read before it was set came as bytes.
    before = [value.decode() if isinstance(value, bytes) else value for value in row]
    result = yield from steps
    yield Query(f"SELECT {_SET}", flat(dict(zip(MEANING, before, strict=False))))
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
