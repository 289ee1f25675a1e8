"""Planted faults are caught by the torture within five minutes, by name."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import time

import pytest

CAUGHT = {
    "planted:RenewalThatNeverFires": {"taken over without a fault"},
    "planted:RenewalEveryThirdTime": {"taken over without a fault"},
    "planted:AckBeforeCommit": {"left behind by a stop", "run without an execution"},
    "planted:ClaimWithoutHold": {"doubled", "two at a time"},
    "planted:LossForgotten": {"execution of another claim", "attempts not in order", "doubled"},
    "planted:ReleaseOfWhatRuns": {"run without an execution"},
    "planted:StopThatDropsClaims": {"left behind by a stop", "run without an execution"},
    "planted:StopBeforeSettling": {"left behind by a stop"},
    "planted:LeaseByAnotherClock": {"early"},
    "planted:WakeUpLost": {"left lying", "late"},
    "planted:SettleRevertsEdits": {"edit reverted"},
    "planted:EditOfWhatWasRead": {"doubled", "two final executions"},
    "planted:EditsOverlookClaims": {
        "trigger lost",
        "number given twice",
        "doubled",
        "two final executions",
    },
    "planted:SettleWithoutRevision": {"claimed in a pause", "edit reverted"},
    "planted:EndsUnasked": {"died on its own"},
    "planted:SettleResurrects": {"resurrected", "claimed after its removal"},
    "planted_stores:SettleInTwoTransactions": {"doubled"},
    "planted_stores:TokenNotChecked": {
        "doubled",
        "token not growing",
        "attempts not in order",
        "left without an end",
    },
    "planted_stores:NoTombstone": {"run without an execution", "no end after its removal"},
    "planted_stores:NothingOfTheLost": {
        "attempts not in order",
        "run without an execution",
        "doubled",
    },
    "planted_stores:LossesCountedOnly": {"attempts not in order", "run without an execution"},
    "planted_stores:FreedWithoutAnEnd": {"left without an end", "no end after its removal"},
    "planted_stores:TheHeldIsDerivedAnew": {"left without an end", "run without an execution"},
    "planted_stores:TakeoverBeforeTheEnd": {"taken over early"},
    "planted_stores:TheLivingTakenForDead": {"taken over early"},
    "planted_stores:ClaimByWhatWasRead": {"doubled", "two at a time"},
    "planted_stores:TokensOfEachProcess": {"token not growing"},
    "planted_stores:RenewalsInRowsOnly": {"taken over without a fault", "two at a time"},
    "planted_stores:ClaimsThatDoNotWait": {"doubled", "execution of another claim"},
    "planted_stores:LeaseByTheLocalClock": {"early"},
}
"""The invariants, by harness, of which at least one must be broken."""
WITHIN = 300.0
"""Seconds, all tries together."""


def caught(name: str, seconds: float, seed: int) -> set[str]:
    options = {"minutes": seconds / 60, "seed": seed, "every": 1.0, "scale": 3}
    command = [sys.executable, "-m", "sched_testkit.torture", f"tests.torture.{name}"]
    command += [word for key, value in options.items() for word in (f"--{key}", str(value))]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    for kept in re.findall(r"journals and logs are kept in (.*)", done.stderr):
        shutil.rmtree(kept)
    told = re.search(r"findings: (.*)", done.stdout)
    assert told is not None, done.stderr[-5000:]
    return {re.sub(r"^\d+ ", "", found) for found in told[1].split(", ")} - {"none"}


@pytest.mark.deep
def test_one_is_caught_quickly() -> None:
    assert "early" in caught("planted:LeaseByAnotherClock", 4.0, 3)


@pytest.mark.deep
def test_nothing_is_found_where_nothing_is_planted() -> None:
    for seed in (3, 4):
        assert caught("planted:NothingPlanted", 40.0, seed) == set()


@pytest.mark.deep
@pytest.mark.parametrize("name", CAUGHT)
def test_each_is_caught(name: str) -> None:
    names: set[str] = set()
    began, seed = time.monotonic(), 3
    while not names & CAUGHT[name]:
        assert time.monotonic() - began < WITHIN - 60, f"{name}: {names or 'nothing'}"
        names |= caught(name, 40.0, seed)
        seed += 1
