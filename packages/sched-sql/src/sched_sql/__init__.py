"""Durable jobs for sched-core: in a SQLite file, or in PostgreSQL."""

from typing import TYPE_CHECKING

from sched_sql import dialects
from sched_sql.backend import DatabaseBackend
from sched_sql.dialects import SqlBackend

if TYPE_CHECKING:
    from sched_sql.postgres.backend import PostgresBackend
    from sched_sql.sqlite.backend import SqliteBackend
else:

    def __getattr__(name: str) -> type[DatabaseBackend]:
        """Import one dialect's backend when it is asked for: no user needs both drivers."""
        if name == "SqliteBackend":
            return dialects.sqlite_backend()
        if name == "PostgresBackend":
            return dialects.postgres_backend()
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


__all__ = ["DatabaseBackend", "PostgresBackend", "SqlBackend", "SqliteBackend"]
