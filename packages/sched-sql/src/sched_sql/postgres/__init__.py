"""The PostgreSQL dialect; needs ``sched-sql[postgres]``."""

from sched_sql.postgres.migration import migration_sql
from sched_sql.postgres.table import PostgresTable

__all__ = ["PostgresTable", "migration_sql"]
