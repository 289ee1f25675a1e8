"""``python -m sched_testkit.torture my_package:Harness --minutes 5 --seed 7``."""

from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path

from sched_testkit._numbers import above_zero
from sched_testkit._suite.certificate import verdict
from sched_testkit.torture.processes import NotReady
from sched_testkit.torture.run import Run
from sched_testkit.torture.timeline import timeline
from sched_testkit.torture.worker import load

TOLD = 3


def main() -> int:
    """Run it; return 0 if everything held, 1 if not, 2 if it could not be run."""
    parser = argparse.ArgumentParser(prog="python -m sched_testkit.torture", description=__doc__)
    parser.add_argument("harness", help="package.module:Class, a subclass of TortureHarness")
    number = above_zero(float)
    parser.add_argument("--minutes", type=number, default=5)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--every", type=number, default=2.0, help="seconds between two faults")
    parser.add_argument("--scale", type=above_zero(int), default=4, help="of the workload")
    parser.add_argument(
        "--verdict", metavar="FILE", help="write it for pytest --sched-torture FILE"
    )
    options = parser.parse_args()
    try:
        load(options.harness)
    except ValueError as error:
        parser.error(str(error))
    logging.basicConfig(level=logging.ERROR)  # that the store is away is what is wanted
    run = Run(options.harness, options.seed, options.minutes * 60, options.every, options.scale)
    try:
        report = run.play()
    except NotReady as error:
        parser.exit(2, f"{error}\n")
    finally:
        if run.kept is not None:
            print(f"journals and logs are kept in {run.kept}", file=sys.stderr)
    print(
        f"{run.harness.name}, seed {options.seed}, {options.minutes:g} minutes, "
        f"{run.harness.processes} processes, {run.faults()}: {report.summary()}"
    )
    if options.verdict:
        told = verdict(run.harness.name, options.minutes, options.seed, len(report.findings))
        Path(options.verdict).write_text(told, encoding="utf-8")
    for left_out, why in run.left_out().items():
        print(f"left out: {left_out}: {why}")
    for finding in report.findings[:TOLD]:
        print(f"\n{finding.name.upper()}: {finding.about}\n{timeline(run.evidence, finding)}")
    return int(bool(report.findings))


if __name__ == "__main__":
    sys.exit(main())
