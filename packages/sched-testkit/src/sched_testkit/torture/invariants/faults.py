"""Invariants that ask what was done to whom: takeovers need a reason, recovery has a bound.

Faults excuse what they cause and nothing else. A fault of the store keeps everybody waiting while
it lasts, and for ``recovery`` afterwards; one that costs no claim excuses no takeover. A process
that ends or stops keeps its own claims for a lease at most. A clock that does not decide excuses
nothing, and neither does a handler that meddles with the store.
"""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Iterator
from datetime import datetime, timedelta
from itertools import pairwise
from operator import itemgetter

from sched_core import Execution, Status
from sched_core.ports import MAX_POLL
from sched_testkit.torture.evidence import Evidence, Report, Rules, moment
from sched_testkit.torture.faults import ABSENT, STARVED, InjectedFault
from sched_testkit.torture.finding import Finding

S = timedelta(seconds=1)
LATE = MAX_POLL + 1 * S
"""How late a first attempt may begin while nothing is wrong: a lost notification, and some more."""
FLUSH = 5 * S
"""The time for which a process that stops tries to hand back what it holds."""
WORKER = re.compile(r"w(\d+)-")


def _number(worker: str) -> int | None:
    found = WORKER.match(worker)
    return int(found[1]) if found else None


def _takeovers(evidence: Evidence, report: Report) -> Iterator[Finding]:
    """A claim is lost for a reason, and not before its lease has ended."""
    rules, calm = evidence.rules, Calm(evidence)
    stopped = {e["worker"]: moment(e) for e in evidence.entries if e["what"] == "stopped"}
    for each in evidence.executions:
        if each.status is Status.INTERRUPTED and not _was_told_to_stop(evidence, each):
            yield Finding("interrupted without a stop", each.id, each.finished_at, each.job_id)
        if each.status is not Status.ABANDONED:
            continue
        report.counts["takeovers"] += 1
        since, until = each.claimed_at - S, each.finished_at
        number = _number(each.worker)
        injected = [
            fault
            for fault in evidence.injected
            if fault.excuses
            and fault.costly
            and fault.began <= until
            and fault.ended >= since
            and (number is None or fault.worker in {0, number} or _locks_all(fault, rules))
        ]
        if not injected:
            yield Finding("taken over without a fault", each.id, until, each.job_id)
        deadly = [fault for fault in injected if fault.deadly]
        free = bool(deadly) and rules.dead_are_free
        if not free and until - each.claimed_at < rules.lease - S / 100:
            yield Finding("taken over early", each.id, until, each.job_id)
        left = stopped.get(number) if number is not None else None
        if left is not None and each.claimed_at < left < until and not _cut_off(evidence, left):
            yield Finding("left behind by a stop", each.id, until, each.job_id)
        for fault in deadly:
            killed = fault.what in {"kill", "suicide"} and fault.worker == number
            if killed and each.claimed_at <= fault.began:
                report.recovery["a kill"].append((until - fault.began).total_seconds())
                waited = calm.between(fault.began + rules.lease, until)
                if waited > LATE:
                    told = f"{each.id}: {waited} of calm after its lease"
                    yield Finding("taken over late", told, until, each.job_id)


def _was_told_to_stop(evidence: Evidence, each: Execution) -> bool:
    number = _number(each.worker)
    return any(
        fault.what == "terminate"
        and fault.worker in {0, number}
        and fault.began <= each.finished_at <= fault.ended + 30 * S
        for fault in evidence.injected
    )


def _cut_off(evidence: Evidence, stopped: datetime) -> bool:
    """Whether a process that ended then could perhaps not reach the store to hand back claims."""
    return any(
        (fault.store or fault.what == STARVED)
        and fault.began <= stopped
        and fault.ended >= stopped - evidence.rules.recovery - FLUSH
        for fault in evidence.injected
    )


class Calm:
    """The times in which nothing was wrong.

    Args:
        evidence: What the run left.
    """

    def __init__(self, evidence: Evidence) -> None:
        self._begins: list[datetime] = []
        self._ends: list[datetime] = []
        rules = evidence.rules
        for fault in sorted(evidence.injected, key=lambda fault: fault.began):
            if not fault.excuses:
                continue
            ended = fault.ended + (rules.recovery if fault.store else rules.lease)
            if self._ends and fault.began <= self._ends[-1]:
                self._ends[-1] = max(ended, self._ends[-1])
            else:
                self._begins.append(fault.began)
                self._ends.append(ended)

    def between(self, since: datetime, until: datetime) -> timedelta:
        """Return how much of the span was calm."""
        calm = until - since
        first = max(0, bisect_right(self._begins, since) - 1)
        for begin, end in zip(self._begins[first:], self._ends[first:], strict=True):
            if begin >= until:
                break
            calm -= max(min(end, until) - max(begin, since), timedelta(0))
        return calm


def _late(evidence: Evidence, report: Report) -> Iterator[Finding]:
    """First attempts begin in time, once there are workers and the job's run before has ended."""
    ready = [moment(entry) for entry in evidence.entries if entry["what"] == "ready"]
    touched, calm = evidence.touched(), Calm(evidence)
    kinds = {job.id: job.spec.metadata.get("kind", "") for job in evidence.jobs}
    freed: dict[str, list[tuple[int, datetime]]] = defaultdict(list)
    for each in evidence.executions:
        freed[each.job_id].append((each.token, each.finished_at))
    for ends in freed.values():
        ends.sort()
    for entry in evidence.starts():
        job_id, at = entry["id"], moment(entry)
        if entry["attempt"] > 1 or job_id in touched or kinds.get(job_id) != "quick":
            continue
        due = max(datetime.fromisoformat(entry["scheduled_at"]), min(ready, default=at))
        before = bisect_left(freed[job_id], entry["token"], key=itemgetter(0))
        if before:
            due = max(due, freed[job_id][before - 1][1])
        waited = calm.between(due, at)
        if waited > LATE:
            yield Finding("late", f"{entry['key']} by {waited} of calm", at, job_id)
        if at >= due and waited == at - due:
            report.lateness.append(waited.total_seconds())


def _recovery(evidence: Evidence, report: Report) -> Iterator[Finding]:
    """After a fault of the store something runs again soon."""
    report.counts["failures of the store seen by workers"] += sum(
        entry.get("errors", 0) for entry in evidence.entries
    )
    starts = sorted(moment(entry) for entry in evidence.starts())
    store = sorted(
        (fault for fault in evidence.injected if fault.store), key=lambda fault: fault.began
    )
    for fault, following in zip(store, [*store[1:], None], strict=False):  # there may be none
        report.counts["faults of the store"] += 1
        place = bisect_right(starts, fault.ended)
        again = starts[place] if place < len(starts) else evidence.rested
        if following is not None and following.began < again:
            continue  # it was hurt again before it could be seen
        took = again - fault.ended
        report.recovery[fault.what].append(took.total_seconds())
        during = [fault.began, *starts[bisect_left(starts, fault.began) : place], again]
        silence = max(after - before for before, after in pairwise(during))
        report.silence[fault.what].append(silence.total_seconds())
        if took > evidence.rules.recovery and not _held_up(evidence, fault.ended, again):
            yield Finding("slow to recover", f"{fault.what}: {took}", again)


def _locks_all(fault: InjectedFault, rules: Rules) -> bool:
    """Whether a process was stopped that may then hold what all others need."""
    return fault.what == "stop" and rules.stopped_may_lock


def _held_up(evidence: Evidence, since: datetime, until: datetime) -> bool:
    """Whether all waited for one process, or the machine held all up, so that none is to blame."""
    return any(
        (_locks_all(fault, evidence.rules) or fault.what in {STARVED, ABSENT})
        and fault.began < until
        and fault.ended > since
        for fault in evidence.injected
    )


def _rest(evidence: Evidence, report: Report) -> Iterator[Finding]:
    """After a calm nothing is due and forgotten."""
    rested, lease = evidence.rested, evidence.rules.lease
    running = {
        entry["id"]
        for entry in evidence.starts()
        if moment(entry) <= rested and rested - moment(entry) < 3 * lease
    }
    for job in evidence.resting:
        due = job.standing.due_at
        if due is not None and due < rested - LATE and job.id not in running:
            yield Finding("left lying", f"{job.id} is due since {rested - due}", rested, job.id)


def _exits(evidence: Evidence, report: Report) -> Iterator[Finding]:
    """Processes end when they are made to, and then they do."""
    made_to: dict[int, list[InjectedFault]] = defaultdict(list)
    for fault in evidence.injected:
        made_to[fault.worker].append(fault)
    for end in evidence.exits:
        suffered = made_to[end.worker] + made_to[0]
        made = {fault.what for fault in suffered if fault.began <= end.at}
        codes: set[int] = set()
        if made & {"kill", "suicide"}:
            codes.add(-9)
        if "terminate" in made:
            codes |= {0, -15}
        if end.code not in codes and end.worker not in evidence.hanging:
            told = f"worker {end.worker} ended with {end.code}: ...{end.log}"
            yield Finding("died on its own", told, end.at)
    for number in evidence.hanging:
        yield Finding("does not stop", f"worker {number}", evidence.rested)


PARTS = (_takeovers, _late, _recovery, _rest, _exits)
