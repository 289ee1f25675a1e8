"""The verdict: reads the ledger, the stored jobs and the journals, and nothing else.

Each invariant has a name, by which a finding is told and a planted fault is known to be caught.
This file has those that hold whatever is done to processes and stores; ``causes`` those that ask
what was done, ``commanded`` those that ask what was commanded.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from typing import Any

from sched_core import Execution, FixedDelay, Interval, Job, Once, Status
from sched_testkit.torture import causes, commanded
from sched_testkit.torture.evidence import Evidence, Report, moment
from sched_testkit.torture.finding import Finding
from sched_testkit.torture.journal import ENDS

S = timedelta(seconds=1)


def check(evidence: Evidence) -> Report:
    """Judge a run."""
    report = Report()
    report.findings += evidence.broken
    for part in (_lines, _runs, _chains, _early, *commanded.PARTS, *causes.PARTS, _vacuous):
        report.findings += part(evidence, report)
    report.findings.sort(key=lambda finding: finding.at)
    return report


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
        if entry["what"] in ENDS
    }
    died = _died_last(evidence)
    starts: dict[tuple[str, int], dict[str, Any]] = {}
    by_job: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for entry in evidence.starts():
        report.counts["runs"] += 1
        name, at, job_id = (entry["key"], entry["attempt"]), moment(entry), entry["id"]
        if name in starts:
            yield Finding("doubled", f"{name[0]} attempt {name[1]} ran twice", at, job_id)
        starts[name] = entry
        line = ledger.get(name)
        end = ends.get((*name, entry["token"]))
        if line is None and _cut_off(end, died.get(entry["worker"]), evidence.rules.lease):
            report.counts["runs of who died at the end"] += 1
        elif line is None:
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


def _died_last(evidence: Evidence) -> dict[int, datetime]:
    """Return who died so late that nobody could take over yet what it held, and when."""
    since = evidence.rested - evidence.rules.lease - causes.LATE
    return {
        harm.worker: harm.began
        for harm in evidence.harms
        if harm.what in {"kill", "suicide"} and harm.began > since
    }


def _cut_off(end: dict[str, Any] | None, died: datetime | None, lease: timedelta) -> bool:
    """Whether the process died during the run, or before it can have written how it ended."""
    return died is not None and (end is None or moment(end) > died - 2 * lease)


def _beside(
    earlier: dict[str, Any],
    entry: dict[str, Any],
    ledger: dict[tuple[str, int], Execution],
    ends: dict[tuple[str, int, int], dict[str, Any]],
) -> Iterator[Finding]:
    name, at, job_id = (earlier["key"], earlier["attempt"]), moment(entry), entry["id"]
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


def _chains(evidence: Evidence, report: Report) -> Iterator[Finding]:
    """Jobs that nobody touched: from the first occurrence to the pending one nothing is missing."""
    touched = evidence.touched()
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


def _early(evidence: Evidence, report: Report) -> Iterator[Finding]:
    for entry in evidence.starts():
        at, scheduled = moment(entry), datetime.fromisoformat(entry["scheduled_at"])
        if at < scheduled:
            yield Finding("early", f"{entry['key']} by {scheduled - at}", at, entry["id"])


def _vacuous(evidence: Evidence, report: Report) -> Iterator[Finding]:
    needed = ["takeovers", "repeated runs", "runs", "commands ok", "chains"]
    if evidence.rules.store_faults:
        needed.append("faults of the store")
    for name in needed:
        if not report.counts[name]:
            yield Finding("vacuous", f"no {name}: this run shows nothing", evidence.rested)
