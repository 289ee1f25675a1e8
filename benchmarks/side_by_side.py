"""Ours, what users would pick instead, and what the stores can do on their own.

    ./dev bench side_by_side                       everything
    ./dev bench side_by_side burst register        these workloads only
    ./dev bench side_by_side start-0 postgres      this workload, on this store only
    ./dev bench side_by_side lateness --ours --runs 2000 --seconds 20    without the peers
    ./dev bench side_by_side --quick               small numbers, one round: whether it works at all
    ./dev bench side_by_side --compare A.json B.json

Each figure is made by a process of its own, systems interleaved round by round; the table has the
median, and least and most, which is the machine's noise. Only ratios within one run mean anything,
and ours have theirs to the peer that comes nearest. Servers are started fresh, as durable as their
defaults or more (``synced``: JetStream with ``sync_interval: always``). Peers run in environments
of their own below ``.dev/peers``. Results go to ``.dev/side_by_side/``: JSON, and one plot (PNG and
SVG) for each workload.

Register: one-shots due in a year. Burst: one-shots all due now, until all have run and are recorded
as far as the system records. Two: the same with two processes. Growth: 2,000 due one-shots among n
recurring jobs. Start: from the start of a process until it runs a job that is due at once, n others
stored. Steady: a thousand jobs every second. Idle: a hundred one-shots at random moments, which the
slowest can do too. Lateness: idle among n stored recurring jobs that are not due. Schedule
arithmetic has a table of its own: cron_rate.
"""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # for a start as a script

from benchmarks import _tables
from benchmarks._processes import OWN, Failed, Figures, interpreter
from benchmarks._servers import Places
from benchmarks._systems import (
    ENVIRONMENTS,
    SYSTEMS,
    WORKLOADS,
    System,
    measure,
    size_of,
    takes_part,
)

ROOT = Path(__file__).resolve().parent.parent
OUT = OWN / "side_by_side"
STORES = ("memory", "sqlite", "postgres", "jetstream")
ROUNDS, SECONDS, RUNS = 3, 8.0, 100
QUICK_SECONDS, QUICK_DIVIDES, QUICK_AT_A_TIME = 1.5, 20, 6


class Run:
    """One run of the benchmark.

    Args:
        systems: Its rows.
        rounds: How often each figure is made.
        told: What each process is told: for how long to look, and how many runs to spread over it.
        quick: Small numbers, and several processes at a time: the figures mean nothing.
    """

    def __init__(
        self,
        systems: Sequence[System],
        *,
        rounds: int,
        told: Mapping[str, float],
        quick: bool,
    ) -> None:
        self._systems, self._rounds, self._quick = systems, 1 if quick else rounds, quick
        self._told = {**told, "seconds": QUICK_SECONDS} if quick else told
        self.failed: list[str] = []

    def table(self, name: str, places: Places) -> _tables.Rows:
        """Measure a workload on all systems in turn, so many rounds."""
        systems = [system for system in self._systems if takes_part(system, name)]
        samples: dict[str, list[Figures]] = {system.name: [] for system in systems}
        with ThreadPoolExecutor(QUICK_AT_A_TIME if self._quick else 1) as threads:
            for _ in range(self._rounds):
                found = threads.map(lambda system: self._measured(system, name, places), systems)
                for system, figures in zip(systems, found, strict=True):
                    if figures is not None:
                        samples[system.name].append(figures)
        kinds = {s.name: "ours" if s.is_ours else "raw" if s.is_raw else "peer" for s in systems}
        return {
            system: {"kind": kinds[system], **_tables.summary(found)}
            for system, found in samples.items()
            if found
        }

    def _measured(self, system: System, name: str, places: Places) -> Figures | None:
        n = size_of(system, name, QUICK_DIVIDES if self._quick else 1)
        try:
            found = measure(system, name, places, n=n, told=self._told)
        except (Failed, subprocess.CalledProcessError) as error:
            self._fail(f"{name}: {system.name}: {error}")
            return None
        if found is None:
            self._fail(f"{name}: {system.name}: takes too long")
            return None
        return {"n": n, **found}

    def _fail(self, text: str) -> None:
        print(f"failed: {text}", file=sys.stderr, flush=True)
        self.failed.append(text)


def main() -> int:
    """Measure, print, store, plot."""
    parser = argparse.ArgumentParser(description="Ours next to the peers; see the file's beginning")
    parser.add_argument("chosen", nargs="*", metavar="WORKLOAD|STORE")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--ours", action="store_true", help="without peers and raw limits")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--seconds", type=float, default=SECONDS, help="of steady and idle")
    parser.add_argument("--runs", type=int, default=RUNS, help="of idle and lateness")
    parser.add_argument("--compare", nargs=2, type=Path, metavar=("BEFORE", "AFTER"))
    arguments = parser.parse_args()
    if arguments.compare:
        before, after = (json.loads(path.read_text()) for path in arguments.compare)
        print("\n".join(_tables.compared(before, after)))
        return 0
    chosen = set(arguments.chosen)
    workloads = [name for name in WORKLOADS if chosen & {name, WORKLOADS[name].act}]
    stores = [store for store in STORES if store in chosen] or list(STORES)
    known = {*WORKLOADS, *STORES, *(workload.act for workload in WORKLOADS.values())}
    if unknown := chosen - known:
        parser.error(f"unknown: {', '.join(unknown)}; there are {', '.join(sorted(known))}")
    systems = [
        system
        for system in SYSTEMS
        if system.store.startswith(tuple(stores)) and (system.is_ours or not arguments.ours)
    ]
    told = {"seconds": arguments.seconds, "runs": arguments.runs}
    run = Run(systems, rounds=arguments.rounds, told=told, quick=arguments.quick)
    return _report(run, workloads or list(WORKLOADS), quick=arguments.quick)


def _report(run: Run, workloads: Sequence[str], *, quick: bool) -> int:
    OUT.mkdir(parents=True, exist_ok=True)
    results: dict[str, Any] = {
        "at": datetime.now(UTC).isoformat(),
        "machine": f"{platform.platform()}, Python {platform.python_version()}",
        "quick": quick,
        "workloads": {},
    }
    path = OUT / f"{datetime.now(UTC):%Y-%m-%dT%H%M%S}{'-quick' if quick else ''}.json"
    with Places() as places:
        for name in workloads:
            rows = run.table(name, places)
            workload = WORKLOADS[name]
            results["workloads"][name] = {
                "counts": workload.counts,
                "unit": workload.unit,
                "rows": rows,
            }
            print("\n".join(_tables.lines(name, rows)), flush=True)
            path.write_text(json.dumps(results, indent=1))
    if (noise := _tables.noise(results)) is not None:
        print(f"\nnoise: {noise:.0%} of the median between least and most")
    for line in _tables.behind(results):
        print(f"behind: {line}")
    if run.failed:
        print(f"{len(run.failed)} failed: see above")
    plotter = interpreter("plots", ENVIRONMENTS)
    script = ROOT / "benchmarks" / "_peers" / "plot.py"
    subprocess.run([plotter, str(script), str(path), str(OUT)], check=True)
    print(f"results: {path.relative_to(ROOT)}; plots in the same folder")
    return int(bool(run.failed))


if __name__ == "__main__":
    sys.exit(main())
