"""The verdict on a run, from the history, the stored jobs and the journals, and nothing else.

Each invariant has a name, by which a finding is told and a planted fault is known to be caught.
Those of :mod:`~sched_testkit.torture.invariants.history` hold whatever is done to processes and
stores; :mod:`~sched_testkit.torture.invariants.faults` asks what was done,
:mod:`~sched_testkit.torture.invariants.commands` and
:mod:`~sched_testkit.torture.invariants.requests` what was commanded, and
:mod:`~sched_testkit.torture.invariants.asks` what handlers asked for.
"""

from __future__ import annotations

from collections.abc import Iterator

from sched_testkit.torture.evidence import Evidence, Report
from sched_testkit.torture.finding import Finding
from sched_testkit.torture.invariants import asks, commands, faults, history, requests


def check(evidence: Evidence) -> Report:
    """Judge a run."""
    report = Report()
    report.findings += evidence.broken
    for part in (
        *history.PARTS,
        *asks.PARTS,
        *commands.PARTS,
        *requests.PARTS,
        *faults.PARTS,
        _vacuous,
    ):
        report.findings += part(evidence, report)
    report.findings.sort(key=lambda finding: finding.at)
    return report


def _vacuous(evidence: Evidence, report: Report) -> Iterator[Finding]:
    needed = ["takeovers", "repeated runs", "runs", "commands ok", "chains"]
    if evidence.rules.store_faults:
        needed.append("faults of the store")
    for name in needed:
        if not report.counts[name]:
            yield Finding("vacuous", f"no {name}: this run shows nothing", evidence.rested)
