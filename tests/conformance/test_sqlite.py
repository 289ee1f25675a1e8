from tests.conformance.harnesses import SqliteHarness

from sched_testkit import conformance

TestSqlite = conformance(SqliteHarness())
