"""The values of the domain: immutable, without a clock, without I/O.

Nothing runs on them yet: the scheduler and the backends still use ``sched_core.job``. They are here
with :mod:`sched_core._rules`, which decides on them, and with the exhaustive search of
``tests/core/occurrences``, until every backend stores them.
"""
