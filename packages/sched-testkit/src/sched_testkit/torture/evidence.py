"""What the checker sees of a run, and what it says."""

from __future__ import annotations

import statistics
from collections import Counter, defaultdict
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from attrs import define, field, frozen

from sched_core import Execution, Job
from sched_testkit.torture.commands import Command
from sched_testkit.torture.faults import InjectedFault
from sched_testkit.torture.finding import Finding
from sched_testkit.torture.processes import Exit


@frozen
class Rules:
    """What the backend is allowed; see the attributes of the harness.

    Attributes:
        lease: How long a claim lives.
        recovery: How long after a fault of the store it may take until something runs again.
        dead_are_free: Whether the claims of a dead process may be taken over at once.
        store_faults: Whether the run was to make faults of the store.
        clocks: Whether its processes have clocks of their own, because the store's decides.
        stopped_may_lock: Whether a process that is stopped may hold a lock that all others need.
    """

    lease: timedelta
    recovery: timedelta
    dead_are_free: bool
    store_faults: bool
    clocks: bool
    stopped_may_lock: bool


@define
class Evidence:
    """All that the checker sees.

    Attributes:
        rules: What the backend is allowed.
        jobs: The jobs as stored at the end.
        executions: The history, oldest execution first.
        entries: What the workers wrote, in order of time.
        commands: What was commanded, one after the other.
        injected: The faults that were injected, and which worker had each.
        exits: How the processes ended.
        hanging: The processes that did not end when asked to.
        rested: When everything had been well for a while.
        resting: The jobs as stored then.
        broken: What of the run itself did not work.
    """

    rules: Rules
    jobs: Sequence[Job]
    executions: Sequence[Execution]
    entries: Sequence[dict[str, Any]]
    commands: Sequence[Command]
    injected: Sequence[InjectedFault]
    exits: Sequence[Exit]
    hanging: Sequence[int]
    rested: datetime
    resting: Sequence[Job]
    broken: Sequence[Finding] = ()

    def starts(self) -> list[dict[str, Any]]:
        """Return the entries of handlers that began."""
        return [entry for entry in self.entries if entry["what"] == "start"]

    def touched(self) -> set[str]:
        """Return the ids of jobs that commands were about."""
        return {command.job_id for command in self.commands if command.what != "submit"}


def moment(entry: dict[str, Any]) -> datetime:
    """Return when a line of a journal was written."""
    return datetime.fromisoformat(entry["at"])


@define
class Report:
    """What came of a run.

    Attributes:
        findings: What must not be, in order of time.
        counts: How often each thing was seen.
        recovery: Seconds, by fault: from a kill until a run that it cut off was taken over; from
            the end of a fault of the store until something ran again.
        silence: Seconds, by fault of the store: the longest time in which nothing began, from its
            beginning until something ran again.
        lateness: Seconds by which undisturbed first attempts began late while nothing was wrong.
    """

    findings: list[Finding] = field(factory=list)
    counts: Counter[str] = field(factory=Counter)
    recovery: dict[str, list[float]] = field(factory=lambda: defaultdict(list))
    silence: dict[str, list[float]] = field(factory=lambda: defaultdict(list))
    lateness: list[float] = field(factory=list)

    def names(self) -> set[str]:
        """Return the names of the invariants that were broken."""
        return {finding.name for finding in self.findings}

    def summary(self) -> str:
        """Return it in one paragraph."""
        parts = [", ".join(f"{count} {name}" for name, count in sorted(self.counts.items()))]
        for title, all_of_them in (
            ("recovery after", self.recovery),
            ("nothing began during", self.silence),
        ):
            for what, took in sorted(all_of_them.items()):
                p50 = statistics.median(took)
                parts.append(f"{title} {what}: {len(took)}, p50 {p50:.2f} s, max {max(took):.2f} s")
        if self.lateness:
            ordered = sorted(self.lateness)
            p50, p99 = (ordered[int(share * (len(ordered) - 1))] for share in (0.5, 0.99))
            parts.append(
                f"lateness of {len(ordered)} runs in calm: p50 {1000 * p50:.1f} ms, "
                f"p99 {1000 * p99:.1f} ms, max {1000 * ordered[-1]:.1f} ms"
            )
        found = Counter(finding.name for finding in self.findings)
        told = ", ".join(f"{count} {name}" for name, count in found.items())
        parts.append(f"findings: {told or 'none'}")
        return "; ".join(parts)
