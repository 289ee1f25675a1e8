from tests.conformance.harnesses.sqlite import SqliteHarness

from sched_testkit import conformance
from sched_testkit.conformance import DEEP


class Harness(SqliteHarness):
    share = 1.0 if DEEP else 0.15


TestSqlite = conformance(Harness())
