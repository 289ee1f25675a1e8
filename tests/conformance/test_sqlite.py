from tests.conformance.harnesses.sqlite import SqliteHarness

from sched_testkit import conformance

TestSqlite = conformance(SqliteHarness())
