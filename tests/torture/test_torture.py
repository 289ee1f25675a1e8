"""SQLite under torture: real processes, killed, stopped and terminated."""

from __future__ import annotations

from sched_testkit.torture.run import Run, timeline

SEED = 20260101


def test_sqlite_holds(deep: bool) -> None:
    seconds, every = (20 * 60.0, 2.0) if deep else (8.0, 0.7)
    run = Run("tests.torture.harnesses:Sqlite", SEED, seconds, every, scale=3)
    report, evidence = run.play()
    told = "\n".join(
        f"{one.name}: {one.about}\n{timeline(evidence, one)}" for one in report.findings
    )
    assert not report.findings, f"{report.summary()}\n{told}"
    assert len(run.faults) >= seconds / every / 3
