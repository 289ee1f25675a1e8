"""What the oracle remembers: incarnations, the definitions they had, pauses, marks, claims, calls.

Plain records of what was commanded and seen, each with its place (``seq``) in the history: several
things may happen at one moment, but never at one place.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from hashlib import blake2b

from attrs import define, field

from sched_core import Claim, Execution, FixedDelay, Job, JobEvent, JobSpec, Schedule
from sched_testkit import occurrences


class Wrong(AssertionError):
    """What happened must not have happened, or what must have happened has not."""


@define
class Pause:
    """From ``began`` until it was ended, or ended by itself."""

    began: datetime
    until: datetime | None
    ended: datetime | None = None

    @property
    def end(self) -> datetime | None:
        """When it ended or will end; ``None`` if nothing says so yet."""
        ends = [end for end in (self.until, self.ended) if end is not None]
        return min(ends, default=None)

    def covers(self, moment: datetime) -> bool:
        """Whether an occurrence at the moment is not due; one at its very beginning is."""
        return self.began < moment and (self.end is None or moment <= self.end)

    def holds(self, now: datetime) -> bool:
        """Whether the job is paused at the moment."""
        return self.began <= now and (self.end is None or now < self.end)


@define
class Epoch:
    """A schedule in force: from an anchor until the next change of schedule, or the removal.

    Attributes:
        schedule: The one in force.
        anchor: When it took effect.
        number: Scheduled occurrences with this number or a higher one belong to it.
        next: The first occurrence that has no final line yet.
        owed: An occurrence that was due or begun when this epoch ended: it must end, too.
    """

    schedule: Schedule
    anchor: datetime
    number: int
    next: datetime | None
    owed: datetime | None = None

    def is_last(self, moment: datetime) -> bool:
        """Whether the schedule has nothing after this occurrence that could replace it."""
        return (
            isinstance(self.schedule, FixedDelay)
            or occurrences.after(self.schedule, moment, self.anchor) is None
        )


@define
class Mark:
    """``skip_next`` was called: the first occurrence after ``at`` is not to run."""

    seq: int
    at: datetime
    moment: datetime


@define
class Hold:
    """A claim that was handed out.

    Attributes:
        claim: As handed out.
        seq: Its place in the history.
        expires_at: Of the lease, as renewed last.
        paused: Whether the job was paused then.
        open: Until it was settled, released or lost.
        crashed: Whether its worker is gone.
    """

    claim: Claim
    seq: int
    expires_at: datetime
    paused: bool
    open: bool = True
    crashed: bool = False


@define(eq=False)
class Call:
    """A call of the handler; ``how`` it ended: succeeded, failed, interrupted, lost, crashed."""

    event: JobEvent
    uid: str
    number: int
    worker: str
    seq: int
    how: str = "running"
    ended_at: datetime | None = None
    end_seq: int = 0
    spec: JobSpec | None = None
    failed_before: int = 0
    settled: bool = False
    line: Execution | None = None

    @property
    def failures(self) -> int:
        """How often the occurrence has failed, this attempt included."""
        return self.failed_before + (self.how == "failed")

    def __str__(self) -> str:
        return f"attempt {self.event.attempt} at {self.uid}:{self.number}"


@define
class Trigger:
    """``trigger_job`` was called."""

    seq: int
    at: datetime


@define
class Life:
    """One incarnation of a job.

    Attributes:
        job: As stored or returned last.
        spec: The last accepted definition.
        declared: Whether ``ensure_job`` made or adopted it.
        removed: The place of its removal.
        touched: The place of the last command.
        redefined_at: When its definition was changed last.
    """

    uid: str
    job: Job
    spec: JobSpec
    declared: bool
    seq: int
    touched: int
    redefined_at: datetime
    removed: int | None = None
    gone: bool = False
    epochs: list[Epoch] = field(factory=list)
    pauses: list[Pause] = field(factory=list)
    marks: list[Mark] = field(factory=list)
    old_marks: list[Mark] = field(factory=list)
    triggers: list[Trigger] = field(factory=list)
    commands: list[tuple[int, str]] = field(factory=list)
    called: set[tuple[int, datetime]] = field(factory=set)
    """For which scheduled occurrences the handler was called: epoch's number, and moment."""
    finals: dict[int, Execution] = field(factory=dict)
    attempts: dict[int, list[Execution]] = field(factory=dict)
    jitters: set[timedelta] = field(factory=set)
    """Of all the policies that it had."""
    past: datetime | None = None
    """The newest moment that has run, or was passed over."""
    answered: int = 0
    """The place at which a manual occurrence was called or ended last."""
    owes_manual: bool = False
    manual_lines: int = 0

    @property
    def epoch(self) -> Epoch:
        """The schedule in force."""
        return self.epochs[-1]

    def paused(self, now: datetime) -> bool:
        """Whether it is paused at the moment."""
        return bool(self.pauses) and self.pauses[-1].holds(now)

    def commanded(self, since: int, *kinds: str) -> bool:
        """Whether one of the commands was given after that place."""
        return any(seq > since and kind in kinds for seq, kind in self.commands)

    def epoch_of(self, number: int) -> Epoch:
        """Return the epoch that a scheduled occurrence's number belongs to."""
        found = self.epochs[0]
        for epoch in self.epochs:
            if epoch.number <= number:
                found = epoch
        return found

    def ended_pauses(self, since: datetime, now: datetime) -> list[Pause]:
        """Return the pauses that an occurrence at the first moment outlived until the second."""
        return [
            pause
            for pause in self.pauses
            if since <= pause.began and pause.end is not None and pause.end <= now
        ]

    def behind(self, epoch: Epoch, since: datetime, until: datetime) -> int:
        """Return how many occurrences in ``(since, until]`` lie in no pause."""
        found = occurrences.count(epoch.schedule, since, until, epoch.anchor)
        for pause in self.pauses:
            begins, ends = max(pause.began, since), min(pause.end or until, until)
            if begins < ends:
                found -= occurrences.count(epoch.schedule, begins, ends, epoch.anchor)
        return found

    def first_due(self, epoch: Epoch) -> tuple[datetime | None, datetime | None]:
        """Return the first occurrence without a final line that counts, and when it is due at last.

        Occurrences inside a pause do not count, but for those that have begun (a clock that is set
        back can lay a pause over them), and for the last that a schedule has: that is due when the
        pause ends; ``None`` as the second if nobody knows when.
        """
        moment, jitter = epoch.next, max(self.jitters)
        while moment is not None:
            pause = next((pause for pause in self.pauses if pause.covers(moment)), None)
            if pause is None or (epoch.number, moment) in self.called:
                return moment, moment + jitter
            if epoch.is_last(moment) or pause.end is None:
                return moment, pause.end and max(pause.end, moment + jitter)
            moment = occurrences.after(epoch.schedule, pause.end, epoch.anchor)
        return None, None


def share(text: str) -> float:
    """Return what everybody makes of the text: a number in [0, 1)."""
    return int.from_bytes(blake2b(text.encode(), digest_size=6).digest(), "big") / 2**48
