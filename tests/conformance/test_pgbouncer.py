import pytest
from tests.conformance.harnesses.postgres import PooledPostgresHarness

from sched_testkit import conformance

TestPooledPostgres = pytest.mark.deep(conformance(PooledPostgresHarness()))
