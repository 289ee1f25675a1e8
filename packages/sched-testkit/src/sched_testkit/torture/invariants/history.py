"""Invariants of the history and the handlers' journals, whatever faults are made."""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from typing import Any

from sched_core import Execution, FixedDelay, Interval, Job, Kind, Once, Status
from sched_testkit.torture.evidence import Evidence, Report, moment
from sched_testkit.torture.finding import Finding
from sched_testkit.torture.invariants.asks import put_off, run_of
from sched_testkit.torture.invariants.faults import LATE
from sched_testkit.torture.journal import ENDS, key_of

S = timedelta(seconds=1)


def _executions(evidence: Evidence, report: Report) -> Iterator[Finding]:
    """Attempts follow each other up to one final execution; tokens grow."""
    by_occurrence: dict[tuple[str, int], list[Execution]] = defaultdict(list)
    tokens: dict[str, int] = {}
    for each in evidence.executions:
        report.counts[f"{each.status.value} executions"] += 1
        by_occurrence[each.uid, each.number].append(each)
        if each.attempt > 0:
            if each.token <= tokens.get(each.job_id, 0):
                yield Finding(
                    "token not growing",
                    f"{each.id}: {each.token}",
                    each.finished_at,
                    each.job_id,
                )
            tokens[each.job_id] = max(each.token, tokens.get(each.job_id, 0))
    for (uid, number), executions in by_occurrence.items():
        finals = [each for each in executions if each.final]
        last = executions[-1]
        if len(finals) > 1:
            yield Finding("two final executions", f"{uid}:{number}", last.finished_at, last.job_id)
        attempts = [each.attempt for each in executions if each.attempt > 0]
        if attempts != list(range(1, len(attempts) + 1)):
            yield Finding(
                "attempts not in order",
                f"{uid}:{number}: {attempts}",
                last.finished_at,
                last.job_id,
            )
        if finals and not last.final:
            yield Finding(
                "attempt after the final execution", f"{last.id}", last.finished_at, last.job_id
            )


def _names(evidence: Evidence, report: Report) -> Iterator[Finding]:
    """A number always names one occurrence, and all its attempts cover the same."""
    known: dict[tuple[str, int], tuple[Kind, datetime]] = {}
    for each in evidence.executions:
        key, name = (each.uid, each.number), (each.kind, each.scheduled_at)
        if known.setdefault(key, name) != name:
            told = f"{each.id}: {name[1]}, and before {known[key][1]}"
            yield Finding("number given twice", told, each.finished_at, each.job_id)
    touched = evidence.touched()
    content: dict[str, tuple[int, str]] = {}
    for entry in evidence.starts():
        if entry["id"] in touched:
            continue  # an edit may add to what was due
        found = entry.get("coalesced", 0), entry.get("coalesced_until") or ""
        before = content.setdefault(entry["key"], found)
        if before != found:
            told = f"{entry['key']} covered {before}, and then {found}"
            yield Finding("content changed", told, moment(entry), entry["id"])


def _runs(evidence: Evidence, report: Report) -> Iterator[Finding]:
    """Each run has its execution and vice versa; no job runs twice, or twice at a time."""
    history = {(key_of(each), each.attempt): each for each in evidence.executions}
    ends = {
        (entry["key"], entry["attempt"], entry["token"]): entry
        for entry in evidence.entries
        if entry["what"] in ENDS
    }
    died, snoozes = _died_last(evidence), put_off(evidence)
    starts: dict[tuple[str, int], dict[str, Any]] = {}
    by_job: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for entry in evidence.starts():
        report.counts["runs"] += 1
        name, at, job_id = (entry["key"], entry["attempt"]), moment(entry), entry["id"]
        if name in starts and run_of(starts[name]) not in snoozes:
            yield Finding("doubled", f"{name[0]} attempt {name[1]} ran twice", at, job_id)
        starts[name] = entry
        each = None if run_of(entry) in snoozes else history.get(name)
        end = ends.get((*name, entry["token"]))
        if run_of(entry) in snoozes:
            pass  # it has no execution of its own
        elif each is None and _cut_off(end, died.get(entry["worker"]), evidence.rules.lease):
            report.counts["runs of who died at the end"] += 1
        elif each is None:
            yield Finding("run without an execution", f"{name[0]} attempt {name[1]}", at, job_id)
        elif each.token != entry["token"]:
            yield Finding("execution of another claim", f"{each.id}", at, job_id)
        if entry["attempt"] > 1:
            report.counts["repeated runs"] += 1
        for earlier in by_job[job_id]:
            is_put_off = run_of(earlier) in snoozes
            yield from _one_after_the_other(earlier, entry, history, ends, is_put_off=is_put_off)
        by_job[job_id] = [*by_job[job_id][-3:], entry]
    for name, each in history.items():
        if each.attempt == 0 or each.status is Status.ABANDONED:
            continue
        end = ends.get((*name, each.token))
        if name not in starts:
            yield Finding("execution without a run", each.id, each.finished_at, each.job_id)
        elif each.status is Status.SUCCEEDED and (end is None or end["what"] != "end"):
            yield Finding("success without an end", each.id, each.finished_at, each.job_id)
    for name, each in history.items():
        end = ends.get((*name, each.token))
        if each.status is Status.ABANDONED and end is not None:
            report.counts["refused late ends"] += 1


def _died_last(evidence: Evidence) -> dict[int, datetime]:
    """Return the workers that died too late for a takeover of what they held, and when."""
    since = evidence.rested - evidence.rules.lease - LATE
    return {
        fault.worker: fault.began
        for fault in evidence.injected
        if fault.what in {"kill", "suicide"} and fault.began > since
    }


def _cut_off(end: dict[str, Any] | None, died: datetime | None, lease: timedelta) -> bool:
    """Whether the process died during the run, or before it can have written how it ended."""
    return died is not None and (end is None or moment(end) > died - 2 * lease)


def _one_after_the_other(
    earlier: dict[str, Any],
    entry: dict[str, Any],
    history: dict[tuple[str, int], Execution],
    ends: dict[tuple[str, int, int], dict[str, Any]],
    *,
    is_put_off: bool,
) -> Iterator[Finding]:
    name, at, job_id = (earlier["key"], earlier["attempt"]), moment(entry), entry["id"]
    each = None if is_put_off else history.get(name)
    abandoned = each is not None and each.status is Status.ABANDONED
    end = ends.get((*name, earlier["token"]))
    overlap = end is None or end["mono"] > entry["mono"]
    if overlap and not abandoned:
        yield Finding("two at a time", f"{name[0]} and {entry['key']}", at, job_id)
    same = earlier["key"] == entry["key"] and not is_put_off
    if same and (each is None or each.final):
        yield Finding("doubled", f"{entry['key']} again without a reason", at, job_id)
    if earlier["token"] >= entry["token"]:
        yield Finding("token not growing", f"{entry['key']}: {entry['token']}", at, job_id)


def _chains(evidence: Evidence, report: Report) -> Iterator[Finding]:
    """A job that no command touched misses no occurrence, from the first to the pending one."""
    touched = evidence.touched()
    finals: dict[str, list[Execution]] = defaultdict(list)
    for each in evidence.executions:
        if each.final and not each.manual:
            finals[each.uid].append(each)
    for job in evidence.jobs:
        if job.id in touched:
            continue
        mine = sorted(finals[job.uid], key=lambda each: each.number)
        at = mine[-1].finished_at if mine else job.anchor
        report.counts["chains"] += 1
        one = job.standing.scheduled
        given = job.standing.last_number + 1 if one is None else one.number
        if [each.number for each in mine] != list(range(1, given)):
            yield Finding("lost", f"{job.id}: {len(mine)} of {given - 1} ended", at, job.id)
            continue
        broken = _broken(job, mine)
        if broken:
            yield Finding("chain broken", f"{job.id}: {broken}", at, job.id)


def _broken(job: Job, finals: Sequence[Execution]) -> str:
    schedule, following = job.spec.schedule, job.next_run
    if isinstance(schedule, Once):
        return "" if not finals or finals[0].scheduled_at == schedule.at else "another moment"
    moments = [(each.scheduled_at, each.coalesced_until or each.scheduled_at) for each in finals]
    if following is None:
        return "it has stopped"
    moments.append((following, following))
    if isinstance(schedule, FixedDelay):
        for each, (moment, _) in zip(finals, moments[1:], strict=True):
            if moment != each.finished_at + schedule.every:
                return f"{moment} does not follow {each.finished_at}"
        return ""
    if isinstance(schedule, Interval):
        period, first = schedule.every, job.anchor + schedule.every
        if moments[0][0] != first:
            return f"it begins at {moments[0][0]}, not at {first}"
    else:
        period = S  # cron, every second
    for each, ((begin, end), (after, _)) in zip(finals, itertools.pairwise(moments), strict=True):
        if end != begin + each.coalesced * period or after != end + period:
            return f"from {begin} over {each.coalesced} to {end} and {after}"
    return ""


def _early(evidence: Evidence, report: Report) -> Iterator[Finding]:
    for entry in evidence.starts():
        at, scheduled = moment(entry), datetime.fromisoformat(entry["scheduled_at"])
        if at < scheduled:
            yield Finding("early", f"{entry['key']} by {scheduled - at}", at, entry["id"])


PARTS = (_executions, _names, _runs, _chains, _early)
