"""Torture: real processes, real stores, real kills, on any backend that has a harness.

``python -m sched_testkit.torture my_package:Harness --minutes 5 --seed 7``. A run is a workload, a
fault plan drawn from the seed, and a checker that reads nothing but the history, the stored jobs
and what handlers, commands and faults wrote into their journals.
"""

from sched_testkit.torture.evidence import Report
from sched_testkit.torture.finding import Finding
from sched_testkit.torture.harness import Fault, TortureHarness

__all__ = ["Fault", "Finding", "Report", "TortureHarness"]
