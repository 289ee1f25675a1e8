"""Planted faults are caught by the torture within five minutes, by name."""

from __future__ import annotations

import pytest

from sched_testkit.torture.run import Run

CAUGHT = {
    "RenewalThatNeverFires": {"taken over without a fault"},
    "RenewalEveryThirdTime": {"doubled", "token not growing", "two at a time"},
    "AckBeforeCommit": {"left behind by a stop", "run without a line"},
    "ClaimWithoutHold": {"doubled", "two at a time"},
    "LossForgotten": {"line of another claim", "attempts not in order", "doubled"},
    "SettleAfterTheLease": {"left lying"},
    "ReleaseOfWhatRuns": {"run without a line"},
    "StopBeforeSettling": {"left behind by a stop"},
    "LeaseByAnotherClock": {"early"},
}
"""By harness: at least one of the invariants that must be broken."""


def caught(name: str, seconds: float, seed: int) -> set[str]:
    run = Run(f"tests.torture.planted:{name}", seed, seconds, 1.0, scale=3)
    return run.play().names()


def test_one_is_caught_quickly() -> None:
    assert "early" in caught("LeaseByAnotherClock", 4.0, 3)


@pytest.mark.deep
@pytest.mark.parametrize("name", CAUGHT)
def test_each_is_caught(name: str) -> None:
    names: set[str] = set()
    for seed in range(3, 9):
        names |= caught(name, 45.0, seed)
        if names & CAUGHT[name]:
            return
    raise AssertionError(f"{name}: {names or 'nothing'}")
