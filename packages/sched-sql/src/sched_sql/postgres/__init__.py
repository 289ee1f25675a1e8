"""The PostgreSQL dialect; needs ``sched-sql[postgres]``."""

from sched_sql.postgres.migration import migration_sql

__all__ = ["migration_sql"]
