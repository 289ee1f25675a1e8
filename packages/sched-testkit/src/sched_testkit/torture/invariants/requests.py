"""Invariants of what was cancelled, asked for by name, and backfilled."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from datetime import datetime
from operator import attrgetter

from sched_core import Execution, Kind, Status
from sched_testkit.torture.commands import Command
from sched_testkit.torture.evidence import Evidence, Report
from sched_testkit.torture.finding import Finding
from sched_testkit.torture.invariants.commands import CLOCKS, S, soon
from sched_testkit.torture.journal import key_of

MAY_END = frozenset({Status.CANCELLED, Status.SUCCEEDED, Status.SUPERSEDED})
"""How an occurrence may end that was to be cancelled: what had returned before has succeeded."""


def _accepted(evidence: Evidence, what: str) -> Iterator[tuple[Command, Sequence[Command]]]:
    """Yield the accepted commands of a name, each with those that came after it for its job."""
    by_job: dict[str, list[Command]] = defaultdict(list)
    for command in evidence.commands:
        by_job[command.job_id].append(command)
    for commands in by_job.values():
        for place, command in enumerate(commands):
            if command.what == what and command.outcome == "ok":
                yield command, [c for c in commands[place + 1 :] if c.outcome != "fail"]


def _first(commands: Sequence[Command], *what: str) -> datetime | None:
    """Return when the first of these commands was sent."""
    return min((c.began for c in commands if c.what in what), default=None)


def _executions(evidence: Evidence) -> dict[str, list[Execution]]:
    found: dict[str, list[Execution]] = defaultdict(list)
    for each in evidence.executions:
        found[key_of(each)].append(each)
    return found


def _cancels(evidence: Evidence, report: Report) -> Iterator[Finding]:
    """What was to be cancelled ends soon, as that, and does not run any more."""
    executions = _executions(evidence)
    for command, following in _accepted(evidence, "cancel"):
        report.counts["cancels"] += 1
        mine, told = executions[command.key], f"{command.job_id}: {command.key}"
        at, removed = command.ended, _first(following, "remove")
        for each in mine:
            runs = each.started_at is not None and each.claimed_at > command.ended + CLOCKS
            if runs:
                yield Finding("run after its cancel", each.id, each.claimed_at, each.job_id)
        end = next((each for each in mine if each.final), None)
        if end is not None and end.status not in MAY_END and removed is None:
            yield Finding("cancel ignored", f"{end.id} {end.status.value}", at, command.job_id)
        report.counts["runs cancelled"] += end is not None and end.attempt > 0
        deadline = soon(evidence, command.ended)
        late = end is None or end.finished_at > deadline
        if late and min(removed or evidence.rested, evidence.rested) > deadline:
            yield Finding("cancel lost", told, at, command.job_id)


def _names(evidence: Evidence, report: Report) -> Iterator[Finding]:
    """A request has its end and its arguments; the same name is the same one until then."""
    executions, asked = _executions(evidence), defaultdict[tuple[str, str], list[Command]](list)
    arguments: dict[str, dict[str, str]] = {}
    for command, following in _accepted(evidence, "ask"):
        report.counts["requests by name"] += 1
        mine = executions[command.key]
        end = next((each for each in mine if each.final), None)
        arguments.setdefault(command.key, command.args)
        # A later pause holds what has not begun before it.
        stopped = _first(following, "remove", "pause")
        deadline = soon(evidence, command.ended)
        late = end is None or end.finished_at > deadline
        if late and min(stopped or evidence.rested, evidence.rested) > deadline:
            told = f"{command.job_id}: {command.key}"
            yield Finding("request lost", told, command.ended, command.job_id)
        uid = command.key.rpartition(":")[0]
        for earlier in asked[uid, command.name]:
            before = next((each for each in executions[earlier.key] if each.final), None)
            has_ended = before is not None and before.finished_at <= command.ended + CLOCKS
            if earlier.key != command.key and not has_ended:
                told = f"{command.name!r} of {command.job_id}: {earlier.key}, and {command.key}"
                yield Finding("asked for twice", told, command.ended, command.job_id)
        asked[uid, command.name].append(command)
    for key, args in arguments.items():
        for each in executions[key]:
            if each.attempt and dict(each.args or {}) != args:
                told = f"{each.id}: {each.args}, not {args}"
                yield Finding("arguments lost", told, each.finished_at, each.job_id)


def _backfills(evidence: Evidence, report: Report) -> Iterator[Finding]:
    """Each moment of a range runs once for each time that it was asked for."""
    found: dict[tuple[str, datetime], int] = defaultdict(int)
    for each in evidence.executions:
        if each.kind is Kind.BACKFILLED and each.final:
            found[each.job_id, each.scheduled_at] += 1
    least: dict[tuple[str, datetime], Command] = {}
    most: dict[tuple[str, datetime], int] = defaultdict(int)
    for command in sorted(evidence.commands, key=attrgetter("began")):
        if command.what != "backfill" or command.outcome == "fail" or command.since is None:
            continue
        moment = command.since.replace(microsecond=0)
        while command.until is not None and moment <= command.until:
            if moment >= command.since:
                most[command.job_id, moment] += 1
                if command.outcome == "ok" and soon(evidence, command.ended) < evidence.rested:
                    least[command.job_id, moment] = command
            moment += S
    report.counts["moments backfilled"] += sum(found.values())
    for (job_id, moment), command in least.items():
        if not found[job_id, moment]:
            yield Finding("backfill lost", f"{job_id}: {moment}", command.ended, job_id)
    for (job_id, moment), times in found.items():
        if times > most[job_id, moment]:
            told = f"{job_id}: {moment} ran {times} times, asked for were {most[job_id, moment]}"
            yield Finding("backfilled too often", told, moment, job_id)


PARTS = (_cancels, _names, _backfills)
