"""Simulated histories: none goes wrong, each repeats exactly, and planted faults are found."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import pytest
from tests.testkit import test_machine as mutants
from tests.torture.planted import SIMULATED

from sched_core._rules import finish, operate, request
from sched_core._runtime import completion, outcomes
from sched_testkit.simulation import Setup, play
from sched_testkit.simulation.operator import FIRST

HISTORIES = 40
DEEP_HISTORIES = 20_000
FOUND = (
    1347,
    6706,
    6841,
    7680,
    9802,
    16840,
    17596,
    18196,
    22808,
    37282,
    38407,
    40170,
    53118,
    54360,
    79232,
    94144,
    96782,
)
"""Seeds that once had a finding."""
SHORT = 4
"""So many planted faults are searched for in the short form."""


def test_nothing_goes_wrong(deep: bool) -> None:
    takeovers = 0
    histories = DEEP_HISTORIES if deep else HISTORIES
    for seed in range(histories):
        outcome = play(seed)
        assert not outcome.finding, f"seed {seed}: {outcome.finding}\n{outcome.narration()}"
        takeovers += outcome.takeovers
    assert takeovers > histories / 20, "hardly anything was taken over: this shows nothing"


@pytest.mark.parametrize("seed", FOUND)
def test_what_was_found_once_is_not_found_again(seed: int) -> None:
    outcome = play(seed, Setup(repertoire=FIRST))
    assert not outcome.finding, f"{outcome.finding}\n{outcome.narration()}"


def test_a_seed_plays_the_same_history_again(deep: bool) -> None:
    for seed in range(50 if deep else 8):
        first, second = play(seed), play(seed)
        assert first.story == second.story
        assert first.turns == second.turns


def test_a_seed_plays_the_same_history_in_another_process(deep: bool) -> None:
    """The other one begins with another seed of its hashes than this one."""
    seeds = 8 if deep else 3
    play_all = f"for seed in range({seeds}): print(play(seed).narration())"
    done = subprocess.run(
        [sys.executable, "-c", f"from sched_testkit.simulation import play\n{play_all}"],
        env={"PYTHONHASHSEED": "2" if os.environ.get("PYTHONHASHSEED") == "1" else "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "".join(play(seed).narration() + "\n" for seed in range(seeds))
    assert done.stdout.count("claimed:") > seeds


@pytest.mark.parametrize(
    ("place", "name", "wrong"),
    [
        (outcomes, "_asked_for", mutants.snoozes_are_failures),
        (completion, "finish", mutants.snoozes_use_up_the_attempt),
        (finish, "_outcome", mutants.snoozes_without_bound),
        (outcomes, "_asked_for", mutants.what_is_discarded_is_retried),
        (operate, "cancel", mutants.cancels_are_ignored),
        (request, "trigger", mutants.arguments_are_lost),
        (request, "rerun", mutants.reruns_are_of_now),
        pytest.param(finish, "_outcome", mutants.marks_do_not_end_a_run, marks=pytest.mark.deep),
        pytest.param(operate, "retry_now", mutants.nothing_is_hurried, marks=pytest.mark.deep),
        pytest.param(
            finish,
            "_next_of_backfill",
            mutants.a_backfill_is_its_first_moment,
            marks=pytest.mark.deep,
        ),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_wrong_rule_is_found(
    place: Any, name: str, wrong: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(place, name, wrong)
    assert any(play(seed).finding for seed in range(400)), f"{wrong.__name__} was not found"


@pytest.mark.parametrize(
    "name",
    [
        name if number < SHORT else pytest.param(name, marks=pytest.mark.deep)
        for number, name in enumerate(SIMULATED)
    ],
)
def test_planted_faults_are_found(name: str) -> None:
    setup = SIMULATED[name]
    assert any(play(seed, setup).finding for seed in range(400)), f"{name} was not found"
