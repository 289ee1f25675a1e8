"""The conformance exam for backends of the scheduler, and tools for testing with it."""

from sched_testkit.conformance import conformance
from sched_testkit.harness import Harness, Unfit

__all__ = ["Harness", "Unfit", "conformance"]
