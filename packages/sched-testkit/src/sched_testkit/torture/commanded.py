"""Invariants that ask what was commanded: what was accepted holds, from then on and at the end.

Commands are given one after the other, so an accepted one comes after all that were given before
it: even one whose answer was lost cannot be done any more, once another change of the same job was
accepted. It may be done later only if nothing else was.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from operator import attrgetter

from sched_core import Execution, Job
from sched_testkit.torture.commands import Command
from sched_testkit.torture.evidence import Evidence, Report, moment
from sched_testkit.torture.faults import ABSENT, STARVED
from sched_testkit.torture.finding import Finding

S = timedelta(seconds=1)
SOON = 30 * S
"""A trigger runs within so much, with faults of the store on the way, while processes can run."""
ENDS_A_PAUSE = frozenset({"resume", "trigger", "remove", "pause", "submit", "ensure"})


def _by_job(evidence: Evidence) -> dict[str, list[Command]]:
    """Return what may have been done to each job, in order."""
    found: dict[str, list[Command]] = defaultdict(list)
    for command in evidence.commands:
        if command.outcome != "fail":
            found[command.job_id].append(command)
    return found


def _stored(evidence: Evidence, report: Report) -> Iterator[Finding]:
    """What was accepted last is what is stored; what was removed is gone."""
    stored = {job.id: job for job in evidence.jobs}
    for command in evidence.commands:
        report.counts[f"commands {command.outcome}"] += 1
    for job_id, commands in _by_job(evidence).items():
        changes = [command for command in commands if command.changes]
        last = next((c for c in reversed(changes) if c.outcome == "ok"), None)
        if last is None:
            continue
        possible = [last, *(c for c in changes if c.began > last.began)]
        removes = [command.what == "remove" for command in possible]
        job = stored.get(job_id)
        if job is None:
            if not any(removes):
                yield Finding("job vanished", job_id, last.ended, job_id)
        elif all(removes):
            yield Finding("resurrected", job_id, last.ended, job_id)
        elif not any(removes):
            yield from _as_commanded(job, changes, possible)


def _as_commanded(
    job: Job, changes: Sequence[Command], possible: Sequence[Command]
) -> Iterator[Finding]:
    at, found = possible[0].ended, int(job.spec.metadata.get("version", 0))
    versions = {command.version for command in possible}
    if found not in versions:
        yield Finding("edit reverted", f"{job.id}: {found}, not {versions}", at, job.id)
        return
    setting = [c for c in changes if c.schedule is not None and c.version <= found]
    if setting and setting[-1].outcome == "ok" and job.spec.schedule != setting[-1].schedule:
        told = f"{job.id}: {job.spec.schedule}, not {setting[-1].schedule}"
        yield Finding("edit reverted", told, at, job.id)


def _seen(evidence: Evidence, report: Report) -> Iterator[Finding]:
    """What is claimed after an edit was accepted runs with that edit, or with a later one."""
    accepted: dict[str, list[Command]] = defaultdict(list)
    for job_id, commands in _by_job(evidence).items():
        accepted[job_id] = [c for c in commands if c.changes and c.outcome == "ok"]
    claimed = {(line.id, line.token): line.claimed_at for line in evidence.lines}
    for entry in evidence.starts():
        job_id, name = entry["id"], f"{entry['key']}:{entry['attempt']}"
        since = claimed.get((name, entry["token"]))
        if since is None:
            continue
        before = bisect_left(accepted[job_id], since, key=attrgetter("ended"))
        if not before:
            continue
        last = accepted[job_id][before - 1]
        report.counts["runs after an edit"] += last.version > 0
        if int(entry["version"]) < last.version:
            told = f"{name} ran with {entry['version']}, claimed after {last.version} was accepted"
            yield Finding("edit reverted", told, moment(entry), job_id)


def _pauses(evidence: Evidence, report: Report) -> Iterator[Finding]:
    """While a job is paused nothing of it is claimed, apart from what was triggered.

    A trigger goes on in a pause, with what it waits behind; so pauses soon after one say nothing.
    """
    lines = _attempts(evidence)
    for job_id, commands in _by_job(evidence).items():
        for place, command in enumerate(commands):
            if command.what != "pause" or command.outcome != "ok":
                continue
            if any(
                c.what == "trigger" and c.ended > command.began - SOON for c in commands[:place]
            ):
                continue
            following = [c.began for c in commands[place + 1 :] if c.what in ENDS_A_PAUSE]
            until = min([*following[:1], command.until or evidence.rested, evidence.rested])
            report.counts["pauses"] += 1
            for line in _between(lines[job_id], command.ended, until):
                if not line.manual:
                    yield Finding("claimed in a pause", line.id, line.claimed_at, job_id)


def _triggers(evidence: Evidence, report: Report) -> Iterator[Finding]:
    """A trigger that was accepted runs, unless the job is removed before it can."""
    lines = _attempts(evidence)
    for job_id, commands in _by_job(evidence).items():
        for place, command in enumerate(commands):
            if command.what != "trigger" or command.outcome != "ok":
                continue
            removed = [c.began for c in commands[place + 1 :] if c.what == "remove"]
            until = min([*removed[:1], evidence.rested])
            deadline = _soon(evidence, command.ended)
            if until < deadline:
                continue
            report.counts["triggers"] += 1
            made = _between(lines[job_id], command.began, deadline)
            if not any(line.manual for line in made):
                yield Finding("trigger lost", f"{job_id}", command.ended, job_id)


def _soon(evidence: Evidence, since: datetime) -> datetime:
    """Return when SOON has passed, without the time in which no process was there, or could run."""
    deadline, counted = since + SOON, since
    for harm in sorted(evidence.harms, key=attrgetter("began")):
        if harm.worker == 0 and harm.what in {ABSENT, STARVED} and harm.began < deadline:
            deadline += max(harm.ended - max(harm.began, counted), timedelta(0))
            counted = max(counted, harm.ended)
    return deadline


def _attempts(evidence: Evidence) -> dict[str, list[Execution]]:
    """Return the attempts of each job, by the moments of their claims."""
    found: dict[str, list[Execution]] = defaultdict(list)
    for line in evidence.lines:
        if line.attempt > 0:
            found[line.job_id].append(line)
    for lines in found.values():
        lines.sort(key=attrgetter("claimed_at"))
    return found


def _between(lines: Sequence[Execution], since: datetime, until: datetime) -> Sequence[Execution]:
    """Return those that were claimed after one moment and before the other."""
    first = bisect_right(lines, since, key=attrgetter("claimed_at"))
    return lines[first : bisect_left(lines, until, key=attrgetter("claimed_at"))]


def _removals(evidence: Evidence, report: Report) -> Iterator[Finding]:
    """What was removed is not claimed any more; what ran then comes to its end."""
    removed = {
        command.uid: command.ended
        for command in evidence.commands
        if command.what == "remove" and command.outcome == "ok"
    }
    report.counts["removals"] += len(removed)
    attempted: dict[str, set[int]] = defaultdict(set)
    ended: dict[str, set[int]] = defaultdict(set)
    for line in evidence.lines:
        gone = removed.get(line.uid)
        if line.attempt > 0:
            attempted[line.uid].add(line.number)
            if gone is not None and line.claimed_at > gone:
                yield Finding("claimed after its removal", line.id, line.claimed_at, line.job_id)
        if line.final:
            ended[line.uid].add(line.number)
    for uid, gone in removed.items():
        for number in attempted[uid] - ended[uid]:
            yield Finding("no end after its removal", f"{uid}:{number}", gone)


PARTS = (_stored, _seen, _pauses, _triggers, _removals)
