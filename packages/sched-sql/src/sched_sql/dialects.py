"""The choice of a backend by its address; only that database's driver is imported."""

from __future__ import annotations

import os
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Literal

from sched_core.errors import BackendError, InvalidDefinition
from sched_sql._shared.address import Postgres, address_of
from sched_sql.backend import LEASE, TIMEOUT, DatabaseBackend, check_duration

if TYPE_CHECKING:
    from sched_sql.postgres.backend import PostgresBackend
    from sched_sql.sqlite.backend import SqliteBackend


def SqlBackend(  # noqa: N802 -- the call makes a backend, as that of a class
    where: str | os.PathLike[str],
    *,
    lease: timedelta = LEASE,
    timeout: timedelta = TIMEOUT,
    synchronous: Literal["FULL", "NORMAL"] | None = None,
    time: Literal["store", "clock"] | None = None,
    schema: str | None = None,
    migrate: bool | None = None,
    pooled: bool | None = None,
    create: bool = True,
    handler_connections: int | None = None,
) -> DatabaseBackend:
    """Return the backend for an address: jobs in a SQLite file, or in PostgreSQL.

    Where the database is known beforehand, :class:`~sched_sql.SqliteBackend` and
    :class:`~sched_sql.PostgresBackend` offer only the options that it has.

    Args:
        where: SQLite: ``"sqlite:///relative.db"``, ``"sqlite:////absolute.db"``, or a path.
            PostgreSQL: ``"postgresql://user@host/database"``.
        lease: How long a claim lives unless it is renewed.
        timeout: How long to wait for a lock, and for a server that does not answer.
        synchronous: An option of :class:`~sched_sql.SqliteBackend`.
        time, schema, migrate, pooled, handler_connections: Options of
            :class:`~sched_sql.PostgresBackend`.
        create: False: open a store that is there, and make none.

    Raises:
        InvalidDefinition: The address or an option cannot be, or the database has no such option.
        BackendError: The package for PostgreSQL is missing.
    """
    check_duration("lease", lease, least=timedelta(milliseconds=1))
    check_duration("timeout", timeout, least=timedelta(0))
    sqlite: dict[str, Any] = {"synchronous": synchronous}
    postgres: dict[str, Any] = {
        "time": time,
        "schema": schema,
        "migrate": migrate,
        "pooled": pooled,
        "handler_connections": handler_connections,
    }
    if isinstance(address_of(where), Postgres):
        _refuse("PostgreSQL", sqlite)
        return postgres_backend()(
            os.fspath(where), lease=lease, timeout=timeout, create=create, **_given(postgres)
        )
    _refuse("SQLite", postgres)
    return sqlite_backend()(where, lease=lease, timeout=timeout, create=create, **_given(sqlite))


def _given(options: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in options.items() if value is not None}


def _refuse(database: str, options: dict[str, Any]) -> None:
    for name in _given(options):
        raise InvalidDefinition(name, f"is no option for {database}")


def sqlite_backend() -> type[SqliteBackend]:
    """Return the class, and import ``sqlite3``."""
    from sched_sql.sqlite.backend import SqliteBackend

    return SqliteBackend


def postgres_backend() -> type[PostgresBackend]:
    """Return the class, and import ``psycopg``.

    Raises:
        BackendError: It is not installed.
    """
    try:
        from sched_sql.postgres.backend import PostgresBackend
    except ModuleNotFoundError as error:
        if error.name != "psycopg":
            raise
        raise BackendError(
            "jobs in PostgreSQL need psycopg: pip install 'sched-sql[postgres]'"
        ) from None
    return PostgresBackend
