"""What is going on in a store: what both dialects read and count alike.

An index would make every run dearer than these rare questions are worth. So only what is rare is in
an index of its own (jobs that are paused, that have finished, whose kind no version of this package
has), and executions are counted from where the time that is asked for begins.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Generator, Iterable, Sequence
from datetime import datetime, timedelta
from typing import Any

from attrs import define, field

from sched_core import CountQuery, Counts, QueueCounts, State, Status, WorkerState, codec
from sched_core._model.survey import hour_of, largest_groups
from sched_core.errors import SchedError
from sched_sql._shared.history import KINDS
from sched_sql._shared.moments import Row, micros, moment, moment_if_any

MOST_EXECUTIONS = 100_000
"""The most executions that are counted: so many take some 50 ms."""
OWN = "id >= 'sched:' AND id < 'sched;'"
"""Condition on the records of the scheduler's own: they have finished, and are not counted."""
MOST_DUE = 50_000
"""The most due jobs of one queue that are counted."""
DISORDER = timedelta(hours=1)
"""How much earlier an execution may have finished than one that was written before it, and still be
counted."""
NEAR = 10_000
"""The most numbers of the history that are looked through rather than searched in."""

HOUR = 3_600_000_000
"""Microseconds."""
_CLOSE = HOUR // 4

BUILT_IN = ("cron", "interval", "fixed_delay", "once", "any_of", "between", "excluding")
"""The kinds of schedules in the predicates of the index ``job_strange``."""

Place = tuple[int, int]
"""``seq`` and ``finished_at`` of an execution."""


def search(oldest: Place, newest: Place, at: int) -> Generator[int, Place, Place]:
    """Find where the history reaches a moment: between two numbers, which are returned.

    ``seq`` is the order of writing, which is nearly that of ``finished_at``. Yields a number, and
    is sent the first execution from it on. All that finished before the moment, as far as there is
    order, is before the second number; all that finished later, after the first one.

    Args:
        oldest: The oldest execution.
        newest: The newest one.
        at: The moment, in microseconds since 1970.
    """
    if oldest[1] >= at:
        return oldest[0] - 1, oldest[0]
    if newest[1] < at:
        return newest[0], newest[0] + 1
    before, after, halve = oldest, newest, False
    while after[0] - before[0] > NEAR and at - before[1] > _CLOSE:
        between, time = after[0] - before[0], max(1, after[1] - before[1])
        share = between // 2 if halve else between * (at - before[1]) // time
        middle = before[0] + min(max(share, between // 64), between - 1)
        found = yield middle
        if found[0] >= after[0]:
            after = middle, after[1]
        elif found[1] < at:
            before = found
        else:
            after = middle, found[1]
        halve = not halve
    return before[0], after[0]


@define
class Counting:
    """Collects what the statements of a dialect count.

    Attributes:
        query: What to count.
        now: The moment, by the clock that decides.
    """

    query: CountQuery
    now: datetime
    _kinds: dict[str, Counter[bool]] = field(factory=dict)
    _due: Counter[str] = field(factory=Counter)
    _oldest: dict[str, datetime] = field(factory=dict)
    _overdue: int = 0
    _running: Counter[str] = field(factory=Counter)
    _statuses: Counter[Status] = field(factory=Counter)
    _groups: dict[str, dict[Status, int]] = field(factory=dict)
    _total: int = 0
    _complete: bool = True

    @property
    def overdue_before(self) -> int:
        """The moment before which a job must have become due to be overdue."""
        try:
            return micros(self.now - self.query.overdue)
        except OverflowError:
            return -(2**62)

    def add_total(self, number: int) -> None:
        """Count jobs, whatever their state is and whether they can be read."""
        self._total += number

    def add_kinds(self, rows: Iterable[Row]) -> None:
        """Count jobs of an index.

        Args:
            rows: The index (``paused``, ``finished`` or ``strange``), format, tag, and how many.
        """
        for index, record_format, tag, number in rows:
            readable = type(tag) is str and codec.readable(record_format, tag) is None
            self._kinds.setdefault(index, Counter())[readable] += number

    def add_due(self, rows: Iterable[Row]) -> None:
        """Count jobs that are due: queue, how many, the earliest moment, and how many overdue."""
        for queue, number, earliest, overdue in rows:
            if not number:
                continue
            self._due[queue] += number
            self._oldest[queue] = moment_if_any(earliest) or self.now
            self._overdue += overdue
            self._complete &= number < MOST_DUE

    def add_running(self, rows: Iterable[Row]) -> None:
        """Count jobs that a worker has: queue, and how many."""
        for queue, number in rows:
            self._running[queue] += number

    def add_executions(self, rows: Iterable[Row], *, complete: bool) -> None:
        """Count executions.

        Args:
            rows: Kind, status and group of executions, and how many there are.
            complete: Whether these are all that finished in the time that was asked for.
        """
        by, groups = self.query.by, self._groups
        for kind, text, group, number in rows:
            status = _STATUSES.get(text)
            if status is None or kind not in KINDS:
                continue  # it cannot be read
            self._statuses[status] += number
            if by is None or (by == "error" and status is not Status.FAILED):
                continue
            name = hour_of(moment(group)) if by == "hour" else group
            its = groups.get(name)
            if its is None:
                groups[name] = {status: number}
            else:
                its[status] = its.get(status, 0) + number
        self._complete &= complete

    def counts(self) -> Counts:
        """Return what was counted."""
        kinds = self._kinds
        paused, finished = (kinds.get(name, Counter())[True] for name in ("paused", "finished"))
        unreadable = kinds.get("strange", Counter())[False]
        active = self._total - paused - finished - unreadable
        states = {State.ACTIVE: active, State.PAUSED: paused, State.FINISHED: finished}
        return Counts(
            self.now,
            {state: number for state, number in states.items() if number > 0},
            unreadable,
            self._running.total(),
            self._due.total(),
            self._overdue,
            min(self._oldest.values(), default=None),
            {
                queue: QueueCounts(self._due[queue], self._running[queue], self._oldest.get(queue))
                for queue in sorted(self._due.keys() | self._running.keys())
            },
            dict(self._statuses),
            largest_groups(self._groups),
            self._complete,
        )


_STATUSES: dict[Any, Status] = {status.value: status for status in Status}


def window(query: CountQuery) -> tuple[int, int | None]:
    """Return the moments between which executions are counted, in microseconds since 1970."""
    return micros(query.since), None if query.until is None else micros(query.until)


def worker_values(state: WorkerState) -> Row:
    """Return the values of ``worker``, ``started_at``, ``seen_at`` and ``details``."""
    details = codec.encode_value(state)
    return state.name, micros(state.started_at), micros(state.seen_at), details


def read_workers(rows: Sequence[Row]) -> list[WorkerState]:
    """Return the workers of rows of ``worker`` and ``details``; what cannot be read is left out."""
    found: list[WorkerState] = []
    for name, details in rows:
        if type(details) is not str:
            continue
        try:
            state = codec.decode_value(details, WorkerState)
        except SchedError:
            continue
        if state.name == name:
            found.append(state)
    return found
