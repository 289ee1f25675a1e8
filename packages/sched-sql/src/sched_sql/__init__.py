"""Durable jobs for sched-core in a SQLite file that several processes may share."""

from sched_sql.backend import SqlBackend

__all__ = ["SqlBackend"]
