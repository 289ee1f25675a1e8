"""The conformance suite for backends of the scheduler, and tools for testing with it."""

import pytest

# So that a law which fails shows the values that it compared.
pytest.register_assert_rewrite(
    "sched_testkit.laws", "sched_testkit._suite.bench", "sched_testkit._suite.overlap"
)

from sched_testkit._suite.failure import LawBroken  # noqa: E402 -- as above
from sched_testkit.conformance import conformance  # noqa: E402 -- after the line above
from sched_testkit.harness import Harness, Unfit  # noqa: E402 -- as above

__all__ = ["Harness", "LawBroken", "Unfit", "conformance"]
