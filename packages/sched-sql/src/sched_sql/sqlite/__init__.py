"""The SQLite dialect."""

from sched_sql.sqlite.table import SqliteTable

__all__ = ["SqliteTable"]
