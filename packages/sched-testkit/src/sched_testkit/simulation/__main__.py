"""Play many histories: ``python -m sched_testkit.simulation --histories 100000 --seed 1``.

Prints how many it played a minute, what they held, and the story of the first that went wrong.
Exits with 1 if one did, or if no claim was ever taken over: faults that never struck prove nothing.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor

from sched_testkit._numbers import above_zero
from sched_testkit.simulation.history import Outcome, play

CHUNK = 250


def _chunk(seeds: range) -> tuple[list[Outcome], int, int, float]:
    found, runs, takeovers, began = [], 0, 0, time.process_time()
    for seed in seeds:
        outcome = play(seed)
        runs, takeovers = runs + outcome.runs, takeovers + outcome.takeovers
        if outcome.finding:
            found.append(outcome)
    return found, runs, takeovers, time.process_time() - began


def main() -> int:
    """Play them on all cores; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m sched_testkit.simulation")
    parser.add_argument("--histories", type=above_zero(int), default=10_000)
    parser.add_argument("--seed", type=int, default=0, help="seed of the first history")
    parser.add_argument("--cores", type=above_zero(int), default=os.cpu_count() or 1)
    parser.add_argument("--play", type=int, help="play only this seed, and print its story")
    options = parser.parse_args()
    if options.play is not None:
        outcome = play(options.play)
        print(outcome.narration())
        return int(bool(outcome.finding))
    began = time.perf_counter()
    runs = takeovers = 0
    cpu, found = 0.0, list[Outcome]()
    with ProcessPoolExecutor(options.cores) as pool:
        chunks = _chunks(options.seed, options.histories)
        for wrong, ran, taken, spent in pool.map(_chunk, chunks):
            runs, takeovers, cpu = runs + ran, takeovers + taken, cpu + spent
            found += wrong
            for outcome in wrong:
                print(f"seed {outcome.seed}: {outcome.finding}", flush=True)
    minutes = (time.perf_counter() - began) / 60
    rate, per_core = options.histories / minutes, options.histories / cpu * 60
    print(
        f"{options.histories} histories in {minutes:.1f} minutes: {rate:.0f} a minute on "
        f"{options.cores} cores ({per_core:.0f} a minute and core of CPU); {runs} runs, "
        f"{takeovers} takeovers, {len(found)} findings"
    )
    if found:
        print(f"\nseed {found[0].seed}; the story:\n{found[0].narration()}")
        print(f"\nto see it again: python -m sched_testkit.simulation --play {found[0].seed}")
    if not takeovers:
        print("no claim was ever taken over: these histories show nothing")
    return int(bool(found) or not takeovers)


def _chunks(seed: int, histories: int) -> Iterator[range]:
    for first in range(seed, seed + histories, CHUNK):
        yield range(first, min(first + CHUNK, seed + histories))


if __name__ == "__main__":
    sys.exit(main())
