"""Every backend under torture: real processes and servers, killed, stopped, cut off."""

from __future__ import annotations

import pytest

from sched_testkit.torture.run import Run
from sched_testkit.torture.timeline import timeline

SEED = 20260101


def holds(harness: str, seconds: float, every: float) -> None:
    run = Run(f"tests.torture.harnesses:{harness}", SEED, seconds, every, scale=3)
    report = run.play()
    told = "\n".join(
        f"{one.name}: {one.about}\n{timeline(run.evidence, one)}" for one in report.findings
    )
    assert not report.findings, f"{run.faults()}: {report.summary()}\n{told}"
    assert len(run.evidence.harms) >= seconds / every / 3


@pytest.mark.parametrize("harness", ["Sqlite", "Postgres", "JetStream"])
def test_it_holds_for_some_seconds(harness: str) -> None:
    holds(harness, 8.0, 0.7)


@pytest.mark.deep
@pytest.mark.parametrize("harness", ["Sqlite", "Postgres", "JetStream", "JetStreamCluster"])
def test_it_holds_for_twenty_minutes(harness: str) -> None:
    holds(harness, 20 * 60.0, 4.0)
