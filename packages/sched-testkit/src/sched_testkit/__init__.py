"""The conformance suite for backends of the scheduler, and tools for testing with it.

Who uses what:

- Authors of backends: this package, that is :class:`Harness` and :func:`conformance`, and
  :mod:`sched_testkit.torture` for real processes under faults.
- Users of the scheduler, in their tests: the pytest fixtures of :mod:`sched_testkit.fixtures`,
  which are there without an import, and the hypothesis strategies of
  :mod:`sched_testkit.strategies`.
- The project itself: :mod:`sched_testkit.simulation`, which proves sched-core.

:mod:`sched_testkit.laws` may be read, but is not imported by others. What begins with an
underscore is internal.
"""

import pytest

# So that a law which fails shows the values that it compared.
pytest.register_assert_rewrite(
    "sched_testkit.laws", "sched_testkit._suite.bench", "sched_testkit._suite.overlap"
)

from sched_testkit._suite.failure import LawBroken  # noqa: E402 -- as above
from sched_testkit.conformance import conformance  # noqa: E402 -- after the line above
from sched_testkit.harness import Harness, Unfit  # noqa: E402 -- as above

__all__ = ["Harness", "LawBroken", "Unfit", "conformance"]
