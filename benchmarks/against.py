"""This checkout compared with another revision of itself, in one run: whether something got slower.

    ./dev bench against REVISION                         burst on each store
    ./dev bench against REVISION postgres jetstream      on these stores only
    ./dev bench against REVISION steady postgres         another workload of side_by_side
    ./dev bench against REVISION --rounds 9 --jobs 2000

The revision gets a worktree and an environment of its own in a temporary folder. The load is this
checkout's for both. The two take turns, and who begins a round changes; a figure is the median of
the rounds, a ratio the median of the rounds' ratios, with least and most. Processor time for each
run, of the client and of the server, depends less on what else the machine does than the rate.

Without a revision it is HEAD: what is not committed yet is compared. A store is slower when the
later code loses every one of three rounds or more, and 5 % in the median. Then the exit code is 1,
and also where a process fails or takes too long.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # for a start as a script

from benchmarks._processes import Failed, Figures, figures
from benchmarks._servers import Places
from benchmarks._systems import SYSTEMS, WORKLOADS, System, Workload
from benchmarks._tables import times

ROOT = Path(__file__).resolve().parent.parent
ROUNDS = 5
ENOUGH = 3
"""The number of rounds from which something may be called slower."""
SLOWER = 0.95
"""The ratio below which a difference is not called noise, if no round contradicts."""
OURS = {system.store: system for system in SYSTEMS if system.is_ours}
COMPARED = [name for name, workload in WORKLOADS.items() if workload.act != "two"]
USUAL = ("memory", "sqlite-full", "postgres", "jetstream")
"""The stores that are compared unless others are named."""


def is_revision(name: str) -> bool:
    ask = ["git", "-C", str(ROOT), "rev-parse", "--verify", "--quiet", f"{name}^{{commit}}"]
    return subprocess.run(ask, stdout=subprocess.DEVNULL, check=False).returncode == 0


@contextlib.contextmanager
def environment_of(revision: str) -> Iterator[str]:
    """Make a worktree of a revision; return the interpreter that imports its packages."""
    with tempfile.TemporaryDirectory(prefix="sched-against-") as folder:
        tree = Path(folder) / "tree"
        git = ["git", "-C", str(ROOT), "worktree"]
        subprocess.run([*git, "add", "--quiet", "--detach", str(tree), revision], check=True)
        try:
            subprocess.run([tree / "dev", "setup"], check=True)
            yield str(tree / ".venv" / "bin" / "python")
        finally:
            subprocess.run([*git, "remove", "--force", str(tree)], check=True)


@dataclass(frozen=True)
class Comparison:
    """Measures two revisions in turn.

    Attributes:
        pythons: The interpreters of the earlier and of the later revision.
        places: Where jobs are kept.
        rounds: How often each figure is made.
        seconds: How long to measure where time is what is measured.
        jobs: How many, where it is not the workload's own number.
    """

    pythons: tuple[str, str]
    places: Places
    rounds: int
    seconds: float
    jobs: int | None

    def is_slower(self, name: str, system: System) -> bool:
        """Print a line of the table; return whether the later revision is slower than the noise.

        Raises:
            Failed: A process ended with an error, or not in time.
        """
        workload = WORKLOADS[name]
        found: tuple[list[Figures], list[Figures]] = ([], [])
        for number in range(self.rounds):
            for side in (1, 0) if number % 2 else (0, 1):
                found[side].append(self._measured(workload, system, self.pythons[side]))
        counts = workload.counts
        ratios = [
            times(workload, now[counts], then[counts]) for then, now in zip(*found, strict=True)
        ]
        then, now = (median(each[counts] for each in side) for side in found)
        slower = self.rounds >= ENOUGH and max(ratios) < 1 and median(ratios) < SLOWER
        print(
            f"  {system.name:<18}{then:>12,.1f}{now:>12,.1f}{median(ratios):>8.2f}"
            f"{f'{min(ratios):.2f} to {max(ratios):.2f}':>16}"
            f"{both(found, 'cpu_us'):>16}{both(found, 'server_us'):>16}"
            f"{'   SLOWER' if slower else ''}",
            flush=True,
        )
        return slower

    def _measured(self, workload: Workload, system: System, python: str) -> Figures:
        """Return the figures of one process that imports what *python* has installed."""
        with self.places.fresh(system.store) as place:
            n = workload.n if self.jobs is None else self.jobs
            call = (system.store, place.address, n)
            if workload.act == "start" and system.store != "memory":
                figures("ours", "fill", *call, python=python)
            told = {"server": place.server, "seconds": self.seconds}
            return figures("ours", workload.act, *call, python=python, **told)


def both(found: tuple[list[Figures], list[Figures]], key: str) -> str:
    """Return the medians of processor time before and after, where it was measured."""
    medians = [median(each.get(key, 0) for each in side) for side in found]
    return " → ".join(f"{each:,.0f}" for each in medians) if any(medians) else ""


def main() -> int:
    """Measure both revisions in turn; return 1 where the later one is slower."""
    parser = argparse.ArgumentParser(description="Two revisions; see the file's beginning")
    parser.add_argument("chosen", nargs="*", metavar="REVISION|WORKLOAD|STORE")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--seconds", type=float, default=8.0, help="of steady, idle and lateness")
    parser.add_argument("--jobs", type=int, help="instead of the workload's own number")
    wanted = parser.parse_args()
    chosen = {"sqlite-full" if each == "sqlite" else each for each in wanted.chosen}
    others = sorted(chosen - set(COMPARED) - OURS.keys()) or ["HEAD"]
    if unknown := [each for each in others if not is_revision(each)] or others[1:]:
        known = ", ".join((*COMPARED, *OURS))
        parser.error(f"{', '.join(unknown)}: one revision can be named, and of {known} any")
    revision = others[0]
    systems = [OURS[store] for store in OURS if store in (chosen & OURS.keys() or USUAL)]
    bad: list[str] = []
    with environment_of(revision) as then, Places() as places:
        pythons = (then, sys.executable)
        comparison = Comparison(pythons, places, wanted.rounds, wanted.seconds, wanted.jobs)
        for name in [each for each in COMPARED if each in (chosen & set(COMPARED) or {"burst"})]:
            print(
                f"\n{name}: {WORKLOADS[name].unit}; {wanted.rounds} rounds, load average "
                f"{os.getloadavg()[0]:.1f}\n  {'':<18}{revision[:11]:>12}{'now':>12}"
                f"{'times':>8}{'least to most':>16}{'client CPU µs':>16}{'server µs':>16}"
            )
            for system in systems:
                try:
                    if comparison.is_slower(name, system):
                        bad.append(f"slower: {name} on {system.name}")
                except Failed as error:
                    bad.append(f"failed: {name} on {system.name}: {error}")
    print(f"\nload average {os.getloadavg()[0]:.1f}")
    print("\n".join(bad))
    return int(bool(bad))


if __name__ == "__main__":
    sys.exit(main())
