from tests.conformance.harnesses import PostgresHarness

from sched_testkit import conformance

TestPostgres = conformance(PostgresHarness())
