"""What is left out once it is known that processes do not share: by name, and nothing else."""

from __future__ import annotations

import pytest
from tests.testkit.mutants import harness_of
from tests.testkit.mutants.durability import ADictionary

from sched_testkit import LawBroken, conformance
from sched_testkit._suite.runner import run_law
from sched_testkit.laws import LAWS

BY_NAME = {law.name: law for law in LAWS}
SHARED = BY_NAME["another_process_sees_every_write_at_once"]
OVERLAP = BY_NAME["two_adds_of_one_incarnation_store_it_once"]


def test_rounds_in_two_processes_are_left_out_once_a_law_of_sharing_has_failed() -> None:
    with pytest.raises(LawBroken, match="in two processes"):
        run_law(harness_of(ADictionary), OVERLAP)
    harness = harness_of(ADictionary)
    with pytest.raises(LawBroken):
        run_law(harness, SHARED)
    run_law(harness, OVERLAP)
    suite = conformance(harness)()
    with pytest.raises(pytest.skip.Exception, match=f"NOT examined.*{SHARED.name} failed"):
        getattr(suite, f"test_{OVERLAP.name}")(loop="asyncio")
