"""What is told: pure functions of what a notifier remembers and what it reads."""

from __future__ import annotations

import fnmatch
from collections.abc import Mapping, Sequence
from datetime import datetime

from attrs import evolve, frozen

from sched_core._model.execution import OVERLAPPED, Execution, Status, occurrence_key
from sched_core._model.job import Job
from sched_core._model.occurrence import Pause, Pending
from sched_core.clock import instant_after
from sched_core.contrib.notify.notice import (
    KINDS,
    Notice,
    NoticeKind,
    notice_of,
    notice_of_overdue,
    summary,
)
from sched_core.contrib.notify.state import MOST_OVERDUE, More, State, digest

PREFIX = "notify:"
"""Ids that begin with it are those of notifiers: they do not tell of each other."""


@frozen
class Wanted:
    """What a notifier tells.

    Attributes:
        notifier: Its name.
        kinds: The kinds of notices.
        jobs: Globs of ids, as ``fnmatch`` reads them; ``None`` for all jobs.
        interrupted_after: How many interruptions of an occurrence are not told.
        most: How many notices of a kind one run delivers one by one; ``None`` for all.
    """

    notifier: str
    kinds: frozenset[NoticeKind]
    jobs: tuple[str, ...] | None
    interrupted_after: int
    most: int | None

    def concerns(self, job_id: str) -> bool:
        """Whether it tells of a job."""
        if job_id.startswith(PREFIX):
            return False
        return self.jobs is None or any(
            job_id == one or fnmatch.fnmatchcase(job_id, one) for one in self.jobs
        )


def derive(
    state: State,
    executions: Sequence[Execution],
    *,
    cursor: str,
    pauses: Mapping[str, Pause],
    wanted: Wanted,
) -> tuple[State, list[Notice]]:
    """Return what to remember after a part of the history, and what to tell of it, in its order.

    The same arguments give the same notices with the same ids.

    Args:
        state: What was remembered before.
        executions: The part, in the order of commit.
        cursor: Where the next part begins.
        pauses: The pauses that failures have caused, by the id of the execution.
        wanted: What the notifier tells.
    """
    telling = _Telling(state, wanted)
    for one in executions:
        if wanted.concerns(one.job_id):
            telling.tell_of(one, pauses.get(one.id))
    return telling.state(cursor), telling.found


class _Telling:
    """Works through one part of the history."""

    def __init__(self, state: State, wanted: Wanted) -> None:
        self._before, self._wanted = state, wanted
        self._failing, self._interrupted = dict(state.failing), dict(state.interrupted)
        self._told, self._more = dict(state.told), dict(state.more)
        self.found: list[Notice] = []

    def state(self, cursor: str) -> State:
        return evolve(
            self._before,
            cursor=cursor,
            failing=self._failing,
            interrupted=self._interrupted,
            told=self._told,
            more=self._more,
        )

    def tell_of(self, one: Execution, pause: Pause | None) -> None:
        job, key = digest(one.job_id), digest(occurrence_key(one.uid, one.number))
        status = one.status
        if status is Status.INTERRUPTED or status is Status.ABANDONED:
            times = self._interrupted.pop(key, 0) + 1
            self._interrupted[key] = times
            if times == self._wanted.interrupted_after + 1:
                why = f"{times} times by now, {one.reason or 'its worker was lost'}"
                self.add(notice_of("interrupted", one, self._wanted.notifier, reason=why))
        if not one.final:
            return
        self._interrupted.pop(key, None)
        if status is Status.FAILED:
            if "failed" in self._wanted.kinds:
                told = self.add(self._notice("failed", one))
                # What was told once is known, whatever becomes of a further failure.
                self._failing[job] = self._failing.pop(job, False) or told
            if pause is not None:
                self.add(self._notice("paused", one))
        elif status is Status.SUCCEEDED:
            self.add(self._notice("succeeded", one))
            if job in self._failing:
                notice = self._notice("recovered", one)
                if self._failing.pop(job):
                    self.add(notice)
                elif "recovered" in self._wanted.kinds:
                    self._sum_up(notice)  # its failure is in a summary that is not delivered yet
        elif status is Status.MISSED:
            self.add(self._notice("missed", one))
        elif status is Status.CANCELLED and one.reason == OVERLAPPED:
            self.add(self._notice("overlap", one))

    def _notice(self, kind: NoticeKind, one: Execution) -> Notice:
        return notice_of(kind, one, self._wanted.notifier, reason=one.reason)

    def add(self, notice: Notice) -> bool:
        """Note what is to be told; return whether it is a notice of its own."""
        if notice.kind not in self._wanted.kinds:
            return False
        told, most = self._told.get(notice.kind, 0), self._wanted.most
        if most is not None and told >= most:
            self._sum_up(notice)
            return False
        self._told[notice.kind] = told + 1
        self.found.append(notice)
        return True

    def _sum_up(self, notice: Notice) -> None:
        one = self._more.get(notice.kind)
        if one is None:
            self._more[notice.kind] = More(1, notice.id, notice.at, notice.at)
        else:
            self._more[notice.kind] = evolve(one, count=one.count + 1, until=notice.at)


# -- what has not begun


def overdue_of(job: Job, now: datetime) -> list[Pending]:
    """Return the occurrences of a job that have not begun for longer than its policy says.

    A scheduled one is judged by its moment, a request by the moment from which it was due: those of
    a backfill lie in the past. Jitter is no lateness, and what a pause holds waits for people.
    """
    limit, standing, pause = job.spec.policy.overdue, job.standing, job.standing.pause
    if limit is None:
        return []
    found = []
    for one in (standing.scheduled, *standing.requests):
        if one is None or one.began_at is not None or one.attempts or one.number == job.held:
            continue
        if pause is not None and (one.is_scheduled or one.number <= pause.last_number):
            continue
        due = one.due_at
        if one.is_scheduled:
            due = instant_after(one.scheduled_at, job.spec.policy.jitter)
        if now > instant_after(due, limit):
            found.append(one)
    return found


def derive_overdue(
    state: State, found: Sequence[tuple[Job, Pending]], *, now: datetime, wanted: Wanted
) -> tuple[State, list[Notice]]:
    """Return what to remember of all that is overdue now, and what to tell: each occurrence once.

    What has begun in the meantime is forgotten. If there is more than can be remembered, the rest
    is told once there is room.
    """
    keys = {digest(occurrence_key(job.uid, one.number)): (job, one) for job, one in found}
    known = [key for key in state.overdue if key in keys]
    new = sorted(keys.keys() - set(known), key=lambda key: (keys[key][1].scheduled_at, key))
    new = new[: MOST_OVERDUE - len(known)]
    telling = _Telling(state, wanted)
    for key in new:
        telling.add(notice_of_overdue(*keys[key], wanted.notifier, now))
    after = telling.state(state.cursor)
    return evolve(after, overdue=(*known, *new)), telling.found


# -- the end of a run


def summaries(state: State, wanted: Wanted) -> tuple[State, list[Notice]]:
    """Return what to remember at the end of a run, and one notice for each kind of the rest."""
    notices = [
        summary(kind, one.count, one.first_id, one.since, one.until, wanted.notifier)
        for kind in KINDS
        if (one := state.more.get(kind)) is not None
    ]
    failing = dict.fromkeys(state.failing, True)
    return evolve(state, failing=failing, told={}, more={}, handled={}), notices


def without_failures(before: State, after: State, refused: Sequence[Notice]) -> State:
    """Return what to remember, without failures that people were not told of after all.

    No recovery follows these.

    Args:
        before: What was remembered before the notices.
        after: What was to be remembered once all were delivered.
        refused: The notices that the receiver refused for too long.
    """
    untold = {digest(one.job_id) for one in refused if one.kind == "failed" and one.job_id}
    if any(one.kind == "failed" and one.job_id is None for one in refused):
        untold |= {job for job, told in before.failing.items() if not told}
    if not untold:
        return after
    left = {job: told for job, told in after.failing.items() if job not in untold}
    return evolve(after, failing=left)
