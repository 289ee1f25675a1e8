from tests.conformance.harnesses.memory import MemoryHarness

from sched_testkit import conformance

TestMemory = conformance(MemoryHarness())
