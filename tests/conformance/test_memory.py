from tests.conformance.harnesses import MemoryHarness

from sched_testkit import conformance

TestMemory = conformance(MemoryHarness())
