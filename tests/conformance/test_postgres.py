"""PostgreSQL: the long form on sessions of its own, the short one on sessions of PgBouncer.

To begin a session takes the server longer than to play most laws.
"""

from tests.conformance.harnesses.postgres import PostgresHarness, SessionPostgresHarness

from sched_testkit import conformance
from sched_testkit.conformance import DEEP


class Short(SessionPostgresHarness):
    share = 0.05


TestPostgres = conformance(PostgresHarness() if DEEP else Short())
