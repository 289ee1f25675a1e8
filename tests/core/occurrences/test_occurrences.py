"""Short searches in each run, long ones in the deep form; and a search of the judge itself."""

from __future__ import annotations

import pytest
from tests.core.occurrences.planted import FAULTS, Planted, plant
from tests.core.occurrences.search import ALPHABETS, SCENARIOS, Search, randomly, replay

from sched_testkit._oracle.violation import Violation

BEGUN_AHEAD = (
    "edit edit t:10 policy t:10 t:7 t:10 back:12 t:7 t:10 policy back:12 t:10 claim:A policy "
    "back:12 pause:25"
)
FOUND = (
    ("catchup-all", "t:35 pause|claim backfill ok:A remove|claim ok:A"),
    ("once", "t:10 claim:A discard:A edit edit"),
    ("catchup", "pause:25 cancel t:35 pause|claim"),
    ("plain", "cancel edit"),
    ("catchup", "pause:25 t:10 t:10 t:10 edit|claim t:10 release:A edit|claim"),
    ("failing", "t:35 edit remove|claim"),
    ("drop", "pause trigger die-alone t:10 claim:A t:7 trigger|claim t:7"),
    ("limited", "policy pause policy t:35 t:10"),
    ("calendar", "edit back:12"),
    ("coalesce+skip+0", "t:10 die t:7 die t:7 die t:7 die t:7 die-alone t:7 die t:7 die"),
    ("limited", "pause|claim edit edit t:10 policy t:35 postpone:A edit resume t:35"),
    ("limited", "pause edit back:12 edit t:7 t:10 edit"),
    ("plain", "trigger:key die policy t:35 claim:A release:A policy"),
    ("limited", "t:35 claim:A policy edit ok:A"),
    ("catchup", "policy t:35 claim:A policy edit ok:A"),
    ("calendar", "edit|claim back:12 release:A trigger:key edit|claim"),
    ("limited", BEGUN_AHEAD),
    ("failing", " ".join(["back:12"] * 6 + ["policy", "t:10", "edit|claim"])),
    ("plain", "skip policy t:35 edit|claim freeze:A ok:A"),
    ("once", "edit remove t:10 add t:10 backfill edit|claim backfill"),
    ("catchup", "t:10 t:10 policy cancel trigger|claim policy ok:A edit"),
    ("fixed", "cancel claim:A ok:A back:12 back:12 t:7 t:7 back:12 back:12 back:12 back:12 edit"),
    ("drop+skip+5", "trigger back:12 back:12 back:12 pause:25 back:12 back:12 back:12 edit"),
    ("drop", "edit t:7 t:10 die-alone back:12 back:12 pause"),
    ("once", "edit t:35 remove add t:7 edit|claim ok:A edit|claim edit ok:A"),
)
"""Histories by which a rule, or the judge, was wrong once."""

SHORT = (
    ("plain", "all", 2),
    ("plain", "pauses", 3),
    ("plain", "triggers", 3),
    ("calendar", "edits", 3),
    ("limited", "pauses", 3),
    ("jitter", "clocks", 3),
    ("drop", "lost", 3),
    ("fixed", "cancels", 3),
    ("catchup+skip+5", "overlaps", 3),
    ("coalesce+cancel+0", "overlaps", 3),
)
LONG = (
    *((name, "all", 3) for name in SCENARIOS),
    *(("plain", alphabet, 5) for alphabet in ALPHABETS if alphabet not in {"all", "overlaps"}),
    *((name, "overlaps", 6) for name in SCENARIOS if "+" in name),
    ("calendar", "edits", 5),
    ("limited", "pauses", 5),
    ("limited-all", "pauses", 5),
    ("catchup", "clocks", 5),
    ("jitter", "clocks", 5),
)


def exhaustive(scenario: str, alphabet: str, depth: int) -> None:
    search = Search(SCENARIOS[scenario], ALPHABETS[alphabet], depth)
    search.run()
    assert search.histories > depth
    assert search.faults == {}


@pytest.mark.parametrize("case", SHORT, ids=lambda case: f"{case[0]}-{case[1]}-{case[2]}")
def test_all_short_histories(case: tuple[str, str, int]) -> None:
    exhaustive(*case)


@pytest.mark.deep
@pytest.mark.parametrize("case", LONG, ids=lambda case: f"{case[0]}-{case[1]}-{case[2]}")
def test_all_longer_histories(case: tuple[str, str, int]) -> None:
    exhaustive(*case)


def test_random_histories() -> None:
    faults, statuses = randomly(1, 250)
    assert faults == {}
    assert min(statuses[status] for status in ("succeeded", "failed", "missed", "skipped")) > 5


@pytest.mark.deep
@pytest.mark.parametrize("seed", range(0, 100_000, 5_000))
def test_many_random_histories(seed: int) -> None:
    faults, _ = randomly(1_000_000 + seed, 5_000)
    assert faults == {}


@pytest.mark.parametrize(("scenario", "history"), FOUND)
def test_a_history_that_was_wrong_once(scenario: str, history: str) -> None:
    replay(scenario, history.split()).drain()


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.what)
def test_the_judge_finds_a_planted_fault(fault: Planted) -> None:
    replay(fault.scenario, fault.history.split()).drain()
    with plant(fault), pytest.raises(Violation):  # an error in a rule itself would be no finding
        replay(fault.scenario, fault.history.split()).drain()
    replay(fault.scenario, fault.history.split()).drain()
