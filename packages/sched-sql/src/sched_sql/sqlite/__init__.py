"""The SQLite dialect: it offers nothing of its own, see :class:`sched_sql.SqliteBackend`."""

__all__: list[str] = []
