"""Every backend under torture: real processes and servers, killed, stopped, cut off.

Each run is a process of its own, as the author of a backend starts it.
"""

from __future__ import annotations

import subprocess
import sys

import pytest

SEED = 20260101


def holds(harness: str, seconds: float, every: float) -> None:
    options = {"minutes": seconds / 60, "seed": SEED, "every": every, "scale": 3}
    command = [sys.executable, "-m", "sched_testkit.torture", f"tests.torture.harnesses:{harness}"]
    command += [word for name, value in options.items() for word in (f"--{name}", str(value))]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr[-5000:]}"
    assert "findings: none" in done.stdout


@pytest.mark.deep
@pytest.mark.parametrize("harness", ["Sqlite", "Postgres", "JetStream"])
def test_it_holds_for_some_seconds(harness: str) -> None:
    holds(harness, 6.0, 0.5)
