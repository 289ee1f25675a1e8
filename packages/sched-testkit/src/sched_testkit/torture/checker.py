"""The verdict: reads the ledger, the stored jobs and the journals, and nothing else.

Each invariant has a name, by which a finding is told and a planted fault is known to be caught.
"""

from __future__ import annotations

import itertools
import statistics
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from typing import Any

from attrs import define, field, frozen

from sched_core import Execution, FixedDelay, Interval, Job, Once, Status
from sched_core.ports import MAX_POLL

S = timedelta(seconds=1)
LATE = MAX_POLL + 1 * S
"""How late a first attempt may begin while nothing is wrong: a lost notification, and some more."""


@frozen
class Finding:
    """Something that must not be.

    Attributes:
        name: Of the invariant.
        about: What broke it.
        at: When, for the timeline.
        job_id: Of the job.
    """

    name: str
    about: str
    at: datetime
    job_id: str = ""


@define
class Evidence:
    """All that the checker sees.

    Attributes:
        jobs: As stored at the end.
        lines: The ledger, oldest line first.
        entries: What the workers wrote, in order of time.
        commands: What was commanded, with its outcome: ok, fail or info (unknown).
        faults: What was done to whom, with ``began`` and ``ended`` as moments.
        rested: When everything had been well for a while; ``None`` if it never was.
        resting: The jobs as stored then.
        lease: Of the claims.
    """

    jobs: Sequence[Job]
    lines: Sequence[Execution]
    entries: Sequence[dict[str, Any]]
    commands: Sequence[dict[str, Any]]
    faults: Sequence[dict[str, Any]]
    rested: datetime | None
    resting: Sequence[Job]
    lease: timedelta


@define
class Report:
    """What came of a run."""

    findings: list[Finding] = field(factory=list)
    counts: Counter[str] = field(factory=Counter)
    recovery: list[float] = field(factory=list)
    """Seconds from a kill until a run that it cut off was taken over."""

    def names(self) -> set[str]:
        """Return the names of the invariants that were broken."""
        return {finding.name for finding in self.findings}

    def summary(self) -> str:
        """Return it in one paragraph."""
        counted = ", ".join(f"{count} {name}" for name, count in sorted(self.counts.items()))
        took = ""
        if self.recovery:
            p50 = statistics.median(self.recovery)
            took = f"; recovery p50 {p50:.2f} s, max {max(self.recovery):.2f} s"
        found = ", ".join(
            f"{n} {name}" for name, n in Counter(f.name for f in self.findings).items()
        )
        return f"{counted}{took}; findings: {found or 'none'}"


def check(evidence: Evidence) -> Report:
    """Judge a run."""
    report = Report()
    for part in (_lines, _runs, _chains, _early_and_late, _edits, _takeovers, _rest):
        report.findings += part(evidence, report)
    report.findings += _vacuous(evidence, report)
    report.findings.sort(key=lambda finding: finding.at)
    return report


def _moment(entry: dict[str, Any]) -> datetime:
    return datetime.fromisoformat(entry["at"])


def _starts(evidence: Evidence) -> list[dict[str, Any]]:
    return [entry for entry in evidence.entries if entry["what"] == "start"]


def _lines(evidence: Evidence, report: Report) -> Iterator[Finding]:
    """Attempts follow each other up to one final line; tokens grow."""
    by_occurrence: dict[tuple[str, int], list[Execution]] = defaultdict(list)
    tokens: dict[str, int] = {}
    for line in evidence.lines:
        report.counts[f"{line.status.value} lines"] += 1
        by_occurrence[line.uid, line.number].append(line)
        if line.attempt > 0:
            if line.token <= tokens.get(line.job_id, 0):
                yield Finding(
                    "token not growing", f"{line.id}: {line.token}", line.finished_at, line.job_id
                )
            tokens[line.job_id] = max(line.token, tokens.get(line.job_id, 0))
    for (uid, number), lines in by_occurrence.items():
        finals = [line for line in lines if line.final]
        last = lines[-1]
        if len(finals) > 1:
            yield Finding("two final lines", f"{uid}:{number}", last.finished_at, last.job_id)
        attempts = [line.attempt for line in lines if line.attempt > 0]
        if attempts != list(range(1, len(attempts) + 1)):
            yield Finding(
                "attempts not in order",
                f"{uid}:{number}: {attempts}",
                last.finished_at,
                last.job_id,
            )
        if finals and not last.final:
            yield Finding(
                "attempt after the final line", f"{last.id}", last.finished_at, last.job_id
            )


def _runs(evidence: Evidence, report: Report) -> Iterator[Finding]:
    """Runs and lines stand for each other; nothing runs twice, or beside itself, for no reason."""
    ledger = {(f"{line.uid}:{line.number}", line.attempt): line for line in evidence.lines}
    ends = {
        (entry["key"], entry["attempt"], entry["token"]): entry
        for entry in evidence.entries
        if entry["what"] in {"end", "failed", "cancelled"}
    }
    starts: dict[tuple[str, int], dict[str, Any]] = {}
    by_job: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for entry in _starts(evidence):
        report.counts["runs"] += 1
        name, at, job_id = (entry["key"], entry["attempt"]), _moment(entry), entry["id"]
        if name in starts:
            yield Finding("doubled", f"{name[0]} attempt {name[1]} ran twice", at, job_id)
        starts[name] = entry
        line = ledger.get(name)
        if line is None:
            yield Finding("run without a line", f"{name[0]} attempt {name[1]}", at, job_id)
        elif line.token != entry["token"]:
            yield Finding("line of another claim", f"{line.id}", at, job_id)
        if entry["attempt"] > 1:
            report.counts["repeated runs"] += 1
        for earlier in by_job[job_id]:
            yield from _beside(earlier, entry, ledger, ends)
        by_job[job_id] = [*by_job[job_id][-3:], entry]
    for name, line in ledger.items():
        if line.attempt == 0 or line.status is Status.ABANDONED:
            continue
        end = ends.get((*name, line.token))
        if name not in starts:
            yield Finding("line without a run", line.id, line.finished_at, line.job_id)
        elif line.status is Status.SUCCEEDED and (end is None or end["what"] != "end"):
            yield Finding("success without an end", line.id, line.finished_at, line.job_id)
    for name, line in ledger.items():
        end = ends.get((*name, line.token))
        if line.status is Status.ABANDONED and end is not None:
            report.counts["refused late ends"] += 1


def _beside(
    earlier: dict[str, Any],
    entry: dict[str, Any],
    ledger: dict[tuple[str, int], Execution],
    ends: dict[tuple[str, int, int], dict[str, Any]],
) -> Iterator[Finding]:
    name, at, job_id = (earlier["key"], earlier["attempt"]), _moment(entry), entry["id"]
    line = ledger.get(name)
    abandoned = line is not None and line.status is Status.ABANDONED
    end = ends.get((*name, earlier["token"]))
    overlap = end is None or end["mono"] > entry["mono"]
    if overlap and not abandoned:
        yield Finding("two at a time", f"{name[0]} and {entry['key']}", at, job_id)
    if earlier["key"] == entry["key"] and (line is None or line.final):
        yield Finding("doubled", f"{entry['key']} again without a reason", at, job_id)
    if earlier["token"] >= entry["token"]:
        yield Finding("token not growing", f"{entry['key']}: {entry['token']}", at, job_id)


def _commanded(evidence: Evidence) -> set[str]:
    return {command["id"] for command in evidence.commands if command["what"] != "submit"}


def _chains(evidence: Evidence, report: Report) -> Iterator[Finding]:
    """Jobs that nobody touched: from the first occurrence to the pending one nothing is missing."""
    touched = _commanded(evidence)
    finals: dict[str, list[Execution]] = defaultdict(list)
    for line in evidence.lines:
        if line.final and not line.manual:
            finals[line.uid].append(line)
    for job in evidence.jobs:
        if job.id in touched:
            continue
        mine = sorted(finals[job.uid], key=lambda line: line.number)
        at = mine[-1].finished_at if mine else job.anchor
        report.counts["chains"] += 1
        if [line.number for line in mine] != list(range(1, job.standing.number)):
            yield Finding(
                "lost", f"{job.id}: {len(mine)} of {job.standing.number - 1} ended", at, job.id
            )
            continue
        broken = _broken(job, mine)
        if broken:
            yield Finding("chain broken", f"{job.id}: {broken}", at, job.id)


def _broken(job: Job, finals: Sequence[Execution]) -> str:
    schedule, following = job.spec.schedule, job.standing.next_run
    if isinstance(schedule, Once):
        return "" if not finals or finals[0].scheduled_at == schedule.at else "another moment"
    moments = [(line.scheduled_at, line.folded_until or line.scheduled_at) for line in finals]
    if following is None:
        return "it has stopped"
    moments.append((following, following))
    if isinstance(schedule, FixedDelay):
        for line, (moment, _) in zip(finals, moments[1:], strict=True):
            if moment != line.finished_at + schedule.every:
                return f"{moment} does not follow {line.finished_at}"
        return ""
    if isinstance(schedule, Interval):
        period, first = schedule.every, job.anchor + schedule.every
        if moments[0][0] != first:
            return f"it begins at {moments[0][0]}, not at {first}"
    else:
        period = S  # cron, every second
    for line, ((begin, end), (after, _)) in zip(finals, itertools.pairwise(moments), strict=True):
        if end != begin + line.folded * period or after != end + period:
            return f"from {begin} over {line.folded} to {end} and {after}"
    return ""


def _early_and_late(evidence: Evidence, report: Report) -> Iterator[Finding]:
    touched = _commanded(evidence)
    kinds = {job.id: job.spec.metadata.get("kind", "") for job in evidence.jobs}
    for entry in _starts(evidence):
        at, scheduled = _moment(entry), datetime.fromisoformat(entry["scheduled_at"])
        if at < scheduled:
            yield Finding("early", f"{entry['key']} by {scheduled - at}", at, entry["id"])
        if entry["attempt"] > 1 or entry["id"] in touched or kinds.get(entry["id"]) != "quick":
            continue
        if at - scheduled > LATE and not _harm(evidence, scheduled - evidence.lease, at):
            yield Finding("late", f"{entry['key']} by {at - scheduled}", at, entry["id"])


def _harm(evidence: Evidence, since: datetime, until: datetime) -> bool:
    """Whether a fault was at work in the span, or its aftermath of a lease and a poll."""
    after = evidence.lease + MAX_POLL
    return any(
        fault["began"] <= until and fault["ended"] + after >= since for fault in evidence.faults
    )


def _edits(evidence: Evidence, report: Report) -> Iterator[Finding]:
    """What was accepted last is what is stored; what was removed is gone."""
    stored = {job.id: job for job in evidence.jobs}
    by_job: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for command in evidence.commands:
        report.counts[f"commands {command['outcome']}"] += 1
        if command["outcome"] != "fail":
            by_job[command["id"]].append(command)
    for job_id, commands in by_job.items():
        known = [command for command in commands if command["outcome"] == "ok"]
        if not known:
            continue
        last = known[-1]
        unknown = [c for c in commands if c["outcome"] == "info" and c["at"] > last["at"]]
        possible = [last, *unknown]
        job, at = stored.get(job_id), last["at"]
        removes = [command["what"] == "remove" for command in possible]
        if job is None:
            if not any(removes) and last.get("stays", True):
                yield Finding("job vanished", job_id, at, job_id)
            continue
        if all(removes):
            yield Finding("resurrected", job_id, at, job_id)
        edits = [command for command in commands if "version" in command]
        if edits and not any(removes) and last["what"] in {"update", "ensure"}:
            versions = {command["version"] for command in possible if "version" in command}
            if job.spec.metadata.get("version") not in versions:
                found = job.spec.metadata.get("version")
                yield Finding("edit reverted", f"{job_id}: {found}, not {versions}", at, job_id)
    removed = {
        command["uid"]: command["ended"]
        for command in evidence.commands
        if command["what"] == "remove" and command["outcome"] == "ok" and command.get("uid")
    }
    for line in evidence.lines:
        gone = removed.get(line.uid)
        if gone is not None and line.attempt > 0 and line.claimed_at > gone:
            yield Finding("claimed after its removal", line.id, line.claimed_at, line.job_id)
    for uid, gone in removed.items():
        open_ends = {
            line.number for line in evidence.lines if line.uid == uid and line.attempt > 0
        } - {line.number for line in evidence.lines if line.uid == uid and line.final}
        for number in open_ends:
            yield Finding("no end after its removal", f"{uid}:{number}", gone)


def _pids(evidence: Evidence) -> dict[str, int]:
    """Return the process of each worker that ran anything whose line is there."""
    workers = {(line.job_id, line.token): line.worker for line in evidence.lines}
    return {
        workers[entry["id"], entry["token"]]: entry["pid"]
        for entry in _starts(evidence)
        if (entry["id"], entry["token"]) in workers
    }


def _takeovers(evidence: Evidence, report: Report) -> Iterator[Finding]:
    """A claim is lost for a reason, and not before its lease has ended unless its process has."""
    pids = _pids(evidence)
    stopped = {e["pid"]: _moment(e) for e in evidence.entries if e["what"] == "stopped"}
    for line in evidence.lines:
        if line.status is Status.INTERRUPTED:
            harmed = [f for f in evidence.faults if f["what"] == "terminate"]
            if not any(f["began"] <= line.finished_at <= f["ended"] + 30 * S for f in harmed):
                yield Finding("interrupted without a stop", line.id, line.finished_at, line.job_id)
        if line.status is not Status.ABANDONED:
            continue
        report.counts["takeovers"] += 1
        since, until = line.claimed_at - S, line.finished_at
        pid = pids.get(line.worker)
        # Who is stopped may hold a lock of the store, and so keep all others from renewing.
        harm = [
            fault
            for fault in evidence.faults
            if fault["began"] <= until
            and fault["ended"] >= since
            and (pid is None or fault["pid"] in {0, pid} or fault["what"] == "stop")
        ]
        if not harm:
            yield Finding("taken over without a fault", line.id, line.finished_at, line.job_id)
        deadly = [f for f in harm if f["what"] in {"kill", "suicide", "terminate"}]
        if not deadly and line.finished_at - line.claimed_at < evidence.lease - S / 100:
            yield Finding("taken over early", line.id, line.finished_at, line.job_id)
        if pid in stopped and line.finished_at > stopped[pid] > line.claimed_at:
            yield Finding("left behind by a stop", line.id, line.finished_at, line.job_id)
        for fault in deadly:
            killed = fault["what"] in {"kill", "suicide"} and fault["pid"] == pid
            if killed and line.claimed_at <= fault["began"]:
                report.recovery.append((until - fault["began"]).total_seconds())


def _rest(evidence: Evidence, report: Report) -> Iterator[Finding]:
    """After a calm nothing is due and forgotten."""
    if evidence.rested is None:
        return
    running = {
        entry["id"]
        for entry in _starts(evidence)
        if _moment(entry) <= evidence.rested
        and evidence.rested - _moment(entry) < 3 * evidence.lease
    }
    for job in evidence.resting:
        due = job.standing.due_at
        if due is not None and due < evidence.rested - LATE and job.id not in running:
            late = evidence.rested - due
            yield Finding("left lying", f"{job.id} is due since {late}", evidence.rested, job.id)


def _vacuous(evidence: Evidence, report: Report) -> Iterator[Finding]:
    for needed in ("takeovers", "repeated runs", "runs", "commands ok", "chains"):
        if not report.counts[needed]:
            at = evidence.faults[-1]["ended"] if evidence.faults else evidence.jobs[0].anchor
            yield Finding("vacuous", f"no {needed}: this run shows nothing", at)
