"""Invariants of what handlers ask for: to be called again in the same attempt, or never again.

A run that its handler put off has no execution of its own. The handler is called again in the same
attempt, unless the occurrence ends by an edit or a removal.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from datetime import timedelta
from typing import Any, TypeAlias

from sched_core import Execution, Status
from sched_testkit.torture.evidence import Evidence, Report, moment
from sched_testkit.torture.finding import Finding
from sched_testkit.torture.journal import DISCARDED, ENDS, SNOOZED, key_of

CLOCKS = timedelta(seconds=0.1)
"""How much a journal may differ from the clock that decides."""
Entry: TypeAlias = dict[str, Any]
Run: TypeAlias = tuple[str, int, int]
"""Names a run: the occurrence, the attempt and the token."""


def run_of(entry: Entry) -> Run:
    """Return the name of the run that a journal's line is about."""
    return entry["key"], entry["attempt"], entry["token"]


def put_off(evidence: Evidence) -> dict[Run, Entry]:
    """Return the ends of the runs whose handlers snoozed, and that were written as that.

    One that was not written has an execution of its own: its claim was lost.
    """
    written = {(key_of(each), each.attempt, each.token) for each in evidence.executions}
    return {
        run_of(entry): entry
        for entry in evidence.entries
        if entry["what"] == SNOOZED and run_of(entry) not in written
    }


def _snoozes(evidence: Evidence, report: Report) -> Iterator[Finding]:
    """What was put off is called again, in time, and each execution tells how often it was."""
    snoozes, by_occurrence = put_off(evidence), defaultdict[str, list[Execution]](list)
    for each in evidence.executions:
        by_occurrence[key_of(each)].append(each)
    starts = defaultdict[str, list[Entry]](list)
    for entry in evidence.starts():
        starts[entry["key"]].append(entry)
    pending = {
        f"{job.uid}:{one.number}"
        for job in evidence.jobs
        for one in (job.standing.scheduled, *job.standing.requests)
        if one is not None
    }
    report.counts["snoozes"] += len(snoozes)
    for (key, attempt, token), entry in snoozes.items():
        at, told = moment(entry), f"{key} attempt {attempt} token {token}"
        later = [one for one in starts[key] if one["token"] > token]
        if later and moment(later[0]) < at + timedelta(seconds=entry["wait"]) - CLOCKS:
            yield Finding(
                "called too early", f"{told}, again at {moment(later[0])}", at, entry["id"]
            )
        goes_on = any(each.token > token or not each.attempt for each in by_occurrence[key])
        if not (later or goes_on or key in pending):
            yield Finding("snooze forgotten", told, at, entry["id"])
    for key, executions in by_occurrence.items():
        mine = [token for of, _, token in snoozes if of == key]
        for each in executions:
            count = sum(token < each.token or not each.token for token in mine)
            if each.snoozes != count:
                told = f"{each.id} {each.status.value}: {each.snoozes}, and there were {count}"
                yield Finding("snoozes miscounted", told, each.finished_at, each.job_id)


def _own_ends(evidence: Evidence, report: Report) -> Iterator[Finding]:
    """What has an execution although it was put off was put off too often, or its claim lost."""
    ends = {run_of(entry): entry["what"] for entry in evidence.entries if entry["what"] in ENDS}
    most = {job.uid: job.spec.policy.max_snoozes for job in evidence.jobs}
    for each in evidence.executions:
        how = ends.get((key_of(each), each.attempt, each.token))
        if each.status in {Status.ABANDONED, Status.CANCELLED} or not each.attempt:
            continue
        told = f"{each.id} {each.status.value}, and the handler {how}"
        if how == SNOOZED:
            report.counts["snoozes too many"] += 1
            too_many = each.snoozes >= most.get(each.uid, each.snoozes)
            if each.status is not Status.FAILED or not too_many:
                yield Finding("snooze not granted", told, each.finished_at, each.job_id)
        elif how == DISCARDED:
            report.counts["discarded"] += 1
            if each.status is not Status.FAILED or not each.final:
                yield Finding("discarded and retried", told, each.finished_at, each.job_id)
        if each.snoozes > most.get(each.uid, each.snoozes):
            yield Finding("snoozed too often", told, each.finished_at, each.job_id)


PARTS = (_snoozes, _own_ends)
