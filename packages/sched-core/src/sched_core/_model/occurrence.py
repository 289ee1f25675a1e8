"""Occurrences that have not ended, and what is stored around them."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from datetime import datetime

from attrs import frozen

from sched_core._model.execution import Kind, Status
from sched_core._support.values import quick

MOST_REQUESTS = 16
"""Requests that may wait in one job."""
_SCHEDULED = Kind.SCHEDULED  # a member of an enumeration takes ten times as long to look up
MOST_GAPS = 16
"""Gaps behind one occurrence that are told apart; of more, the newest two are one."""


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
        number: From the job's counter; it never changes and is never used again.
        scheduled_at: Its nominal moment.
        due_at: From when on it may be claimed: jitter, a retry's wait, a snooze.
        kind: Why it is there.
        attempts: That have their execution.
        failures: Those of them that failed.
        lost: Claims of it that were lost in a row.
        snoozes: How often its handler has asked for later.
        began_at: When it was first claimed and did not end with that claim. What it stands for is
            fixed then, and is the same at every attempt.
        coalesced, coalesced_until: What an edit has fixed of what it stands for: how many moments
            of the schedule before, and the last of them.
        key: Of a request: the same key, not yet ended, is the same request.
        origin: Of a request: the number that it was asked for with; its own but in a backfill.
        until: Of a backfill: the end of its range. Of the schedule's: it stands for nothing after
            this moment, because it had begun when it was edited or paused.
        args: Of a request: for the handler.
        derived_from: Of the schedule's: what its moment was derived from besides the schedule, as
            ``schedule.derivation`` writes it.
        retry_at: Where ``due_at`` is a deadline that comes first: when the next attempt is due.
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

    @property
    def is_scheduled(self) -> bool:
        """Whether it is the schedule's, and no request."""
        return self.kind is _SCHEDULED


@frozen
class Pause:
    """Holds what was there when it began: the schedule, and requests up to ``last_number``.

    Attributes:
        since: When it began.
        last_number: The newest number that was given by then.
        until: When it ends by itself, ``None`` for not.
        reason: For people.
    """

    since: datetime
    last_number: int
    until: datetime | None = None
    reason: str | None = None


@frozen
class Gap:
    """Moments in ``(since, end]`` are not the schedule's.

    A pause, what an overlap skipped, or one moment that was cancelled before it came.
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
        requests: What was asked for besides the schedule, in the order of asking.
        pause: That is in force.
        gaps: Behind ``scheduled``, in order; empty but where it outlived a pause or an overlap, or
            what was before it was cancelled and has not come.
        spare: The last moment of a schedule, inside a pause after which it has none: no misfire
            policy passes it over.
        skip: The moment that ``skip_next`` marked.
        cancels: The numbers of occurrences that are to be cancelled.
        failing: Final failures of scheduled occurrences in a row.
        last_scheduled_at: The newest moment of the schedule that has its final execution, or began;
            not what was cancelled before it came.
        last_finished_at: When the newest run ended.
        last_status: Of the newest execution.
        expires_at: From when on a finished job may be deleted.
    """

    last_number: int
    scheduled: Pending | None
    due_at: datetime | None
    requests: tuple[Pending, ...] = ()
    pause: Pause | None = None
    gaps: tuple[Gap, ...] = ()
    spare: datetime | None = None
    skip: datetime | None = None
    cancels: tuple[int, ...] = ()
    failing: int = 0
    last_scheduled_at: datetime | None = None
    last_finished_at: datetime | None = None
    last_status: Status | None = None
    expires_at: datetime | None = None

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

    def find(self, number: int) -> Pending | None:
        """Return the pending occurrence with the number."""
        if self.scheduled is not None and self.scheduled.number == number:
            return self.scheduled
        return next((one for one in self.requests if one.number == number), None)
