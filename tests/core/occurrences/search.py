"""Searches for histories that the judge calls wrong: all short ones, and long random ones.

python -m tests.core.occurrences.search random SEED COUNT
python -m tests.core.occurrences.search all SCENARIO ALPHABET DEPTH
"""

from __future__ import annotations

import random
import re
import sys
import time
from collections import Counter
from collections.abc import Sequence
from datetime import timedelta

from tests.core.occurrences.clock import T0, M
from tests.core.occurrences.world import Scenario, World

from sched_core._model.policy import CatchUp, Drop, Policy, Retry
from sched_core.schedule import Between, FixedDelay, Interval, Once

HOUR = timedelta(hours=1)
TEN, SEVEN = Interval(minutes=10), Interval(minutes=7)
ROUND = Interval(minutes=10, start=T0)
RETRY = Retry(attempts=2, backoff=12 * M)
PLAIN = Policy(retry=RETRY)
LIMITED = Between(ROUND, end=T0 + 45 * M)
JITTER = 5 * M

SCENARIOS = {
    "plain": Scenario([TEN, SEVEN], [PLAIN, Policy(retry=RETRY, max_lost=1)]),
    "once": Scenario([Once(T0 + 10 * M), "once"], [PLAIN]),
    "calendar": Scenario([ROUND, Interval(minutes=15, start=T0), TEN], [PLAIN]),
    "limited": Scenario([LIMITED, TEN], [PLAIN, Policy(misfire=Drop(3 * M), retry=RETRY)]),
    "limited-all": Scenario([LIMITED], [Policy(misfire=CatchUp(2, 15 * M), retry=RETRY)]),
    "catchup": Scenario([TEN, SEVEN], [Policy(misfire=CatchUp(2, HOUR), retry=RETRY), PLAIN]),
    "catchup-all": Scenario([TEN], [Policy(misfire=CatchUp(), retry=RETRY)]),
    "drop": Scenario([TEN, "once"], [Policy(misfire=Drop(12 * M), retry=RETRY, max_lost=2)]),
    "skip": Scenario([TEN, SEVEN], [Policy(overlap="skip", retry=RETRY), PLAIN]),
    "cancel": Scenario([TEN, SEVEN], [Policy(overlap="cancel", retry=RETRY)]),
    "jitter": Scenario([TEN, SEVEN], [Policy(jitter=JITTER, retry=RETRY), PLAIN]),
    "failing": Scenario([TEN, SEVEN], [Policy(pause_after=1), Policy(retry=RETRY, pause_after=2)]),
    "fixed": Scenario([FixedDelay(minutes=10), TEN], [PLAIN]),
    **{
        f"{name}+{overlap}+{jitter}": Scenario(
            [TEN],
            [
                Policy(
                    misfire=misfire,
                    overlap=overlap,
                    jitter=jitter * M,
                    retry=RETRY,
                    max_lost=3,
                )
            ],
        )
        for name, misfire in (
            ("coalesce", Policy().misfire),
            ("catchup", CatchUp(2, 25 * M)),
            ("drop", Drop(12 * M)),
        )
        for overlap in ("skip", "cancel")
        for jitter in (0, 5)
    },
}
"""Schedules that edits go through, and policies."""

ALL = (
    *("t:7", "t:10", "t:35", "back:12", "add", "remove", "edit", "policy", "pause", "pause:25"),
    *("resume", "hurry", "trigger", "trigger:key", "skip", "unskip", "cancel", "backfill"),
    *("claim:A", "claim:B", "die", "die-alone", "ok:A", "ok:B", "fail:A", "fail:B", "snooze:A"),
    *("later:A", "discard:A", "disconnect:A"),
    *("interrupt:A", "postpone:A", "release:A", "freeze:A", "repeat:A", "repeat:B"),
    *("edit|claim", "pause|claim", "trigger|claim", "cancel|claim", "remove|claim", "skip|claim"),
)
ALPHABETS = {
    "all": ALL,
    "pauses": (
        *("t:7", "t:35", "pause", "pause:25", "resume", "claim:A", "ok:A", "fail:A", "die"),
        *("trigger", "edit", "skip"),
    ),
    "triggers": (
        *("t:7", "t:10", "trigger", "trigger:key", "trigger|claim", "claim:A", "ok:A"),
        *("fail:A", "freeze:A", "claim:B", "edit", "pause", "cancel"),
    ),
    "edits": (
        *("t:10", "t:35", "edit", "edit|claim", "remove", "remove|claim", "add", "claim:A"),
        *("ok:A", "fail:A", "freeze:A", "claim:B", "ok:B", "release:A"),
    ),
    "clocks": (
        *("t:7", "t:10", "back:12", "pause", "pause:25", "resume", "claim:A", "ok:A"),
        *("interrupt:A", "fail:A", "edit", "trigger", "skip", "die"),
    ),
    "lost": (
        *("t:7", "t:10", "claim:A", "freeze:A", "ok:A", "fail:A", "claim:B", "ok:B"),
        *("repeat:A", "repeat:B", "edit", "cancel", "snooze:A", "die", "die-alone", "policy"),
    ),
    "cancels": (
        *("t:7", "t:10", "cancel", "cancel|claim", "claim:A", "ok:A", "fail:A", "snooze:A"),
        *("freeze:A", "claim:B", "trigger", "backfill", "pause"),
    ),
    "overlaps": (
        *("t:7", "t:10", "t:35", "claim:A", "ok:A", "fail:A", "interrupt:A", "die"),
        *("pause", "resume", "skip"),
    ),
}

Faults = dict[str, tuple[str, ...]]


def kind_of(error: BaseException) -> str:
    """Return the same text for faults of one kind."""
    return re.sub(r"\d+", "#", f"{type(error).__name__}: {error}")


class Search:
    """All histories of an alphabet, up to a length.

    Attributes:
        histories: How many were judged.
        faults: The shortest history of each kind.
    """

    def __init__(self, scenario: Scenario, alphabet: Sequence[str], depth: int) -> None:
        self._scenario, self._alphabet, self._depth = scenario, alphabet, depth
        self.histories = 0
        self.faults: Faults = {}

    def run(self) -> None:
        """Search."""
        self._visit(World(self._scenario), self._depth)

    def _visit(self, world: World, left: int) -> None:
        self.histories += 1
        if not self._is_right(world.copy(), None) or not left or len(self.faults) > 12:
            return
        for op in world.options(self._alphabet):
            following = world.copy()
            if self._is_right(following, op):
                self._visit(following, left - 1)

    def _is_right(self, world: World, op: str | None) -> bool:
        try:
            world.drain() if op is None else world.do(op)
        except Exception as error:
            kind = kind_of(error)
            if kind not in self.faults or len(world.told) < len(self.faults[kind]):
                self.faults[kind] = world.told
            return False
        return True


def replay(scenario: str, ops: Sequence[str]) -> World:
    """Return the world after a history."""
    world = World(SCENARIOS[scenario])
    for op in ops:
        world.do(op)
    return world


def shrunk(scenario: str, ops: Sequence[str], kind: str) -> tuple[str, ...]:
    """Leave out of a history what a fault of the kind does not need."""

    def fails(candidate: Sequence[str]) -> bool:
        world = World(SCENARIOS[scenario])
        try:
            for op in candidate:
                if op in world.options(ALL):
                    world.do(op)
            world.drain()
        except Exception as error:
            return kind_of(error) == kind
        return False

    found, again = tuple(ops), True
    while again:
        again = False
        for index in range(len(found)):
            shorter = found[:index] + found[index + 1 :]
            if fails(shorter):
                found, again = shorter, True
                break
    return found


def randomly(
    seed: int, count: int, *, longest: int = 60, names: Sequence[str] = tuple(SCENARIOS)
) -> tuple[dict[str, tuple[str, int, tuple[str, ...]]], Counter[str]]:
    """Play random histories; return of each kind of fault the scenario and a short history."""
    faults: dict[str, tuple[str, int, tuple[str, ...]]] = {}
    statuses: Counter[str] = Counter()
    for number in range(seed, seed + count):
        rng = random.Random(number)
        scenario = rng.choice(names)
        world = World(SCENARIOS[scenario])
        weights = {op: rng.choice([0, 1, 1, 3]) + 0.01 for op in ALL}
        for op in ("claim:A", "ok:A", "t:7", "t:10"):
            weights[op] += 2
        try:
            for _ in range(rng.randint(3, longest)):
                options = world.options(ALL)
                world.do(rng.choices(options, [weights[op] for op in options])[0])
            world.drain()
        except Exception as error:
            kind = kind_of(error)
            if kind not in faults:
                faults[kind] = scenario, number, shrunk(scenario, world.told, kind)
        statuses.update(each.status.value for each in world.judge.history.executions)
        if len(faults) > 10:
            break
    return faults, statuses


def main(arguments: Sequence[str]) -> int:
    """Search as the command line says; return how many kinds of faults there are."""
    begun, told = time.perf_counter(), sys.stdout.write
    if arguments[0] == "random":
        names = arguments[3:] or tuple(SCENARIOS)
        found, statuses = randomly(int(arguments[1]), int(arguments[2]), names=names)
        for kind, (scenario, seed, ops) in found.items():
            told(f"FAULT {scenario} seed {seed}: {kind}\n   {' '.join(ops)}\n")
        told(f"{arguments[2]} histories, {time.perf_counter() - begun:.0f} s, {dict(statuses)}\n")
        return len(found)
    scenario, alphabet, depth = arguments[1], arguments[2], int(arguments[3])
    search = Search(SCENARIOS[scenario], ALPHABETS[alphabet], depth)
    search.run()
    for kind, ops in search.faults.items():
        told(f"FAULT {kind}\n   {' '.join(ops)}\n")
    took = time.perf_counter() - begun
    told(f"{scenario}/{alphabet}, depth {depth}: {search.histories} histories, {took:.0f} s\n")
    return len(search.faults)


if __name__ == "__main__":
    sys.exit(min(main(sys.argv[1:]), 1))
