"""Occurrences that have not ended, and what is stored around them."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from datetime import datetime

from attrs import frozen

from sched_core._model.execution import Kind, Status
from sched_core._support.values import quick

MOST_REQUESTS = 16
"""The most requests that may wait in one job."""
_SCHEDULED = Kind.SCHEDULED  # a member of an enumeration takes ten times as long to look up
MOST_GAPS = 16
"""The most gaps behind one occurrence that are told apart; of more, the newest two become one."""


class State(enum.Enum):
    """Whether a job is handed out."""

    ACTIVE = "active"
    PAUSED = "paused"
    FINISHED = "finished"


@quick
@frozen(weakref_slot=False)
class Pending:
    """One occurrence that has not ended. ``uid:number`` is its name, given once.

    Attributes:
        number: Its number from the job's counter; it never changes and is never used again.
        scheduled_at: Its nominal moment.
        due_at: The moment from which on it may be claimed; jitter, a retry's wait or a snooze put
            it after ``scheduled_at``.
        kind: Why it is there.
        attempts: How many attempts have their execution.
        failures: How many of them failed.
        lost: How many claims of it were lost in a row.
        snoozes: How often its handler has asked for later.
        began_at: When it was first claimed and did not end with that claim. The moments that it
            covers are fixed then, and are the same at every attempt.
        coalesced, coalesced_until: How many further moments of the schedule it covers, and the last
            of them, as far as an edit has fixed that.
        key: The key of a request: until it has ended, a request with the same key is the same.
        origin: The number that a request was made under; its own but in a backfill.
        until: The end of a backfill's range. An occurrence of the schedule covers nothing after
            this moment, because it had begun when it was edited or paused.
        args: The request's arguments for the handler.
        derived_from: The data that the schedule's moment was derived from, such as rules of time
            zones; ``schedule.derivation`` writes it.
        retry_at: When the next attempt is due, where ``due_at`` is a deadline that comes first.
        actor: Who asked for it, or last had it attempted at once.
        moments: The moments that a request names one by one and that come after this one, in order.
    """

    number: int
    scheduled_at: datetime
    due_at: datetime
    kind: Kind = Kind.SCHEDULED
    attempts: int = 0
    failures: int = 0
    lost: int = 0
    snoozes: int = 0
    began_at: datetime | None = None
    coalesced: int = 0
    coalesced_until: datetime | None = None
    key: str | None = None
    origin: int = 0
    until: datetime | None = None
    args: Mapping[str, str] | None = None
    derived_from: str = ""
    retry_at: datetime | None = None
    actor: str | None = None
    moments: tuple[datetime, ...] = ()

    @property
    def is_scheduled(self) -> bool:
        """Whether the schedule made it, and no request."""
        return self.kind is _SCHEDULED


@frozen
class Pause:
    """Holds what was there when it began: the schedule, and requests up to ``last_number``.

    Attributes:
        since: When it began.
        last_number: The newest number that was given by then.
        until: When it ends on its own; ``None`` until further notice.
        reason: Why, in words for people.
        actor: Who paused the job.
    """

    since: datetime
    last_number: int
    until: datetime | None = None
    reason: str | None = None
    actor: str | None = None


@frozen
class CancelMark:
    """Marks an occurrence that is to be cancelled: its worker ends it, or the next claim does.

    Attributes:
        number: The occurrence's number.
        reason: Why, in words for people.
        actor: Who asked for it.
    """

    number: int
    reason: str | None = None
    actor: str | None = None


@frozen
class Gap:
    """A span ``(since, end]`` whose moments do not count as the schedule's.

    It comes from a pause, from what an overlap skipped, or from one moment that was cancelled
    before it came.
    """

    since: datetime
    end: datetime


@quick
@frozen(weakref_slot=False)
class Standing:
    """What runs and operators change.

    Attributes:
        last_number: The newest number that was given.
        scheduled: The schedule's occurrence that is next, or under way.
        due_at: The one moment that backends compare: that of what a claim is for.
        requests: The requests that have not ended, in the order in which they were made.
        pause: The pause that is in force.
        gaps: The gaps behind ``scheduled``, in order. There are some only where it outlived a pause
            or an overlap, or where a moment before it was cancelled and has not come.
        spare: The last moment of a schedule, inside a pause after which it has none: no misfire
            policy passes it over.
        skip: The moment that ``skip_next`` marked.
        cancels: The marks of occurrences that are to be cancelled.
        failing: Final failures of scheduled occurrences in a row.
        last_scheduled_at: The newest moment of the schedule that has its final execution, or began;
            not what was cancelled before it came.
        last_finished_at: When the newest run ended.
        last_status: The newest execution's status.
        expires_at: The moment from which on a finished job may be deleted.
        skip_actor: Who called ``skip_next``.
    """

    last_number: int
    scheduled: Pending | None
    due_at: datetime | None
    requests: tuple[Pending, ...] = ()
    pause: Pause | None = None
    gaps: tuple[Gap, ...] = ()
    spare: datetime | None = None
    skip: datetime | None = None
    cancels: tuple[CancelMark, ...] = ()
    failing: int = 0
    last_scheduled_at: datetime | None = None
    last_finished_at: datetime | None = None
    last_status: Status | None = None
    expires_at: datetime | None = None
    skip_actor: str | None = None

    @property
    def state(self) -> State:
        """Whether the job is active, paused or finished."""
        if self.pause is not None:
            return State.PAUSED
        return State.FINISHED if self.scheduled is None and not self.requests else State.ACTIVE

    @property
    def next_run(self) -> datetime | None:
        """The nominal moment of the schedule's occurrence that is next, or under way."""
        return None if self.scheduled is None else self.scheduled.scheduled_at

    def is_marked(self, number: int) -> bool:
        """Whether the occurrence with the number is to be cancelled."""
        return bool(self.cancels) and self.mark_of(number) is not None

    def mark_of(self, number: int) -> CancelMark | None:
        """Return the mark of the occurrence that is to be cancelled."""
        return next((mark for mark in self.cancels if mark.number == number), None)

    def find(self, number: int) -> Pending | None:
        """Return the pending occurrence with the number."""
        if self.scheduled is not None and self.scheduled.number == number:
            return self.scheduled
        return next((one for one in self.requests if one.number == number), None)
