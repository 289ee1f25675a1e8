"""What happened around a finding, for a person to follow."""

from __future__ import annotations

from datetime import datetime, timedelta

from sched_testkit.torture.evidence import Evidence
from sched_testkit.torture.finding import Finding

S = timedelta(seconds=1)
MOST = 80
"""Lines."""


def timeline(evidence: Evidence, finding: Finding, *, span: timedelta = 6 * S) -> str:
    """Return what happened around a finding, in order; of other jobs nothing."""
    events: list[tuple[datetime, str]] = []
    job = finding.job_id
    for entry in evidence.entries:
        if entry["what"] in {"ready", "stopped"} or entry.get("id") == job:
            at, about = datetime.fromisoformat(entry["at"]), entry["what"]
            if "key" in entry:
                about += f" {entry['key']} attempt {entry['attempt']} token {entry['token']}"
            events.append((at, f"worker {entry['worker']}: {about}"))
    for each in evidence.executions:
        if each.job_id == job:
            told = f"{each.id} {each.status.value}, token {each.token} of {each.worker}"
            events.append((each.claimed_at, f"history: claimed, token {each.token}"))
            events.append((each.finished_at, f"history: {told}{', final' if each.final else ''}"))
    for fault in evidence.injected:
        who = f" of worker {fault.worker}" if fault.worker else ""
        events.append((fault.began, f"fault: {fault.what}{who}"))
        events.append((fault.ended, f"fault ends: {fault.what}{who}"))
    for command in evidence.commands:
        if command.job_id == job:
            events.append((command.began, f"command: {command.what}"))
            events.append((command.ended, f"command: {command.what}: {command.outcome}"))
    near = [e for e in sorted(events) if abs(e[0] - finding.at) <= span]
    middle = sum(at <= finding.at for at, _ in near)
    first = max(0, middle - MOST // 2)
    return "\n".join(f"  {at:%H:%M:%S.%f} {what}" for at, what in near[first : first + MOST])
