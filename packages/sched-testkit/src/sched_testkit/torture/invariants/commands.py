"""Invariants that ask what was commanded: what was accepted holds, from then on and at the end.

Commands are given one after the other, so an accepted one comes after all that were given before
it: even one whose answer was lost cannot be done any more, once another change of the same job was
accepted. It may be done later only if nothing else was.
"""

from __future__ import annotations

import itertools
from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from operator import attrgetter

from sched_core import Execution, Job, Kind, Status
from sched_testkit.torture.commands import Command
from sched_testkit.torture.evidence import Evidence, Report, moment
from sched_testkit.torture.faults import ABSENT, STARVED
from sched_testkit.torture.finding import Finding

S = timedelta(seconds=1)
SOON = 30 * S
"""A trigger runs within so much, with faults of the store on the way, while processes can run."""
CLOCKS = S / 10
"""How much the clock that decides may differ from that of the run, which gives commands."""
ENDS_A_PAUSE = frozenset({"resume", "remove", "pause", "submit", "ensure"})


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
    claimed = {(each.id, each.token): each.claimed_at for each in evidence.executions}
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
    """While a job is paused nothing of it is claimed, apart from what was triggered since."""
    attempts = _attempts(evidence)
    for job_id, commands in _by_job(evidence).items():
        for place, command in enumerate(commands):
            if command.what != "pause" or command.outcome != "ok":
                continue
            following = [c.began for c in commands[place + 1 :] if c.what in ENDS_A_PAUSE]
            until = min([*following[:1], command.until or evidence.rested, evidence.rested])
            report.counts["pauses"] += 1
            for each in _between(attempts[job_id], command.ended, until):
                if each.kind is Kind.SCHEDULED:
                    yield Finding("claimed in a pause", each.id, each.claimed_at, job_id)


def _triggers(evidence: Evidence, report: Report) -> Iterator[Finding]:
    """A trigger that was accepted runs under the key that it told, unless the job is removed.

    What had begun before it was asked for is another run. When a handler begins tells that: the
    moment of a claim is read before its write, which may wait for as long as the store lets it.
    """
    attempts = _attempts(evidence)
    claimed: dict[str, datetime] = {}
    cancelled = [each for each in evidence.executions if each.status is Status.CANCELLED]
    for each in itertools.chain(*attempts.values(), cancelled):
        claimed.setdefault(f"{each.uid}:{each.number}", each.claimed_at)
    begun: dict[str, datetime] = {}
    for entry in evidence.starts():
        begun[entry["key"]] = min(begun.get(entry["key"], moment(entry)), moment(entry))
    for job_id, commands in _by_job(evidence).items():
        for place, command in enumerate(commands):
            if command.what != "trigger" or command.outcome != "ok":
                continue
            first, started = claimed.get(command.key), begun.get(command.key)
            told = f"{job_id}: {command.key}, first claimed at {first}, begun at {started}"
            if started is not None and started < command.began - CLOCKS:
                yield Finding("trigger lost", told, command.ended, job_id)
                continue
            following = commands[place + 1 :]
            removed = [c.began for c in following if c.what == "remove"]
            # A later pause holds what has not begun before it.
            paused = [c.began for c in following if c.what == "pause"]
            until = min([*removed[:1], *paused[:1], evidence.rested])
            deadline = soon(evidence, command.ended)
            if until < deadline:
                continue
            report.counts["triggers"] += 1
            if first is None or first > deadline:
                yield Finding("trigger lost", told, command.ended, job_id)


def soon(evidence: Evidence, since: datetime) -> datetime:
    """Return when SOON has passed, without the time in which no process was there, or could run."""
    deadline, counted = since + SOON, since
    for fault in sorted(evidence.injected, key=attrgetter("began")):
        if fault.worker == 0 and fault.what in {ABSENT, STARVED} and fault.began < deadline:
            deadline += max(fault.ended - max(fault.began, counted), timedelta(0))
            counted = max(counted, fault.ended)
    return deadline


def _attempts(evidence: Evidence) -> dict[str, list[Execution]]:
    """Return the attempts of each job, by the moments of their claims."""
    found: dict[str, list[Execution]] = defaultdict(list)
    for each in evidence.executions:
        if each.attempt > 0:
            found[each.job_id].append(each)
    for executions in found.values():
        executions.sort(key=attrgetter("claimed_at"))
    return found


def _between(
    executions: Sequence[Execution], since: datetime, until: datetime
) -> Sequence[Execution]:
    """Return those that were claimed after one moment and before the other."""
    first = bisect_right(executions, since, key=attrgetter("claimed_at"))
    return executions[first : bisect_left(executions, until, key=attrgetter("claimed_at"))]


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
    for each in evidence.executions:
        gone = removed.get(each.uid)
        if each.attempt > 0:
            attempted[each.uid].add(each.number)
            if gone is not None and each.claimed_at > gone:
                yield Finding(
                    "claimed after its removal",
                    each.id,
                    each.claimed_at,
                    each.job_id,
                )
        if each.final:
            ended[each.uid].add(each.number)
    for uid, gone in removed.items():
        for number in attempted[uid] - ended[uid]:
            yield Finding("no end after its removal", f"{uid}:{number}", gone)


def _ends(evidence: Evidence, report: Report) -> Iterator[Finding]:
    """What was attempted comes to its end, or is still pending, whatever was edited meanwhile."""
    standings = {job.uid: job.standing for job in evidence.jobs}
    ended = {(each.uid, each.number) for each in evidence.executions if each.final}
    attempted = {
        (each.uid, each.number): each
        for each in evidence.executions
        if each.attempt > 0 and each.uid in standings
    }
    for (uid, number), last in attempted.items():
        if (uid, number) not in ended and standings[uid].find(number) is None:
            yield Finding("left without an end", f"{uid}:{number}", last.finished_at, last.job_id)


PARTS = (_stored, _seen, _pauses, _triggers, _removals, _ends)
