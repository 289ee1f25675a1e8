from tests.conformance.harnesses.postgres import PostgresHarness

from sched_testkit import conformance
from sched_testkit.conformance import DEEP


class Harness(PostgresHarness):
    share = 1.0 if DEEP else 0.15


TestPostgres = conformance(Harness())
