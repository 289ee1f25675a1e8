"""What was commanded, as the oracle remembers it: schedules in force, pauses, requests."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from attrs import Factory, define, evolve

from sched_core import Between, Cron, FixedDelay, Interval, JobSpec, Kind, Once, Retry
from sched_testkit._oracle import occurrences

TICK = timedelta(microseconds=1)


class Wrong(AssertionError):
    """What happened must not have happened, or what must have happened has not."""


def at(moment: datetime | None) -> str:
    """Return a moment as people read it in a history."""
    return "never" if moment is None else f"{moment:%d. %H:%M:%S}"


@define
class Epoch:
    """The time in which one schedule was in force.

    Attributes:
        schedule: It.
        anchor: When it took effect.
        number: The newest number that was given before.
        seq: When that was, in the order of all that happened.
        must: Moments up to this one have run before: they must not run again.
        may: Moments up to this one have begun, or were accounted for: they need not.
        end: When the next schedule took effect, or the job was removed.
        end_seq: When that was, in the order of all that happened.
        paused: Since when it was paused at its end.
        held: At its end: the moment of what was held, and until when that may stand for others.
        cancelled: Moments that had been cancelled before it, and had not come.
    """

    schedule: Any
    anchor: datetime
    number: int
    seq: int
    must: datetime | None = None
    may: datetime | None = None
    end: datetime | None = None
    end_seq: int | None = None
    paused: datetime | None = None
    held: tuple[datetime, datetime] | None = None
    cancelled: frozenset[datetime] = frozenset()

    def moments(self, until: datetime) -> list[datetime]:
        """Return the moments of the schedule up to one, computed by hand."""
        schedule = self.schedule
        stops: datetime | None = None
        if isinstance(schedule, FixedDelay):
            return []
        if isinstance(schedule, Once):
            return [schedule.at] if schedule.at <= until else []
        if isinstance(schedule, Cron):
            return self._cron(schedule, until)
        if isinstance(schedule, Between):
            stops = schedule.end
            schedule = schedule.schedule
        assert isinstance(schedule, Interval)
        found: list[datetime] = []
        moment = self.anchor + schedule.every if schedule.start is None else schedule.start
        while moment <= until and (stops is None or moment < stops):
            if moment > self.anchor or moment == schedule.start == self.anchor:
                found.append(moment)
            moment += schedule.every
        return found

    def _cron(self, schedule: Cron, until: datetime) -> list[datetime]:
        found: list[datetime] = []
        moment = occurrences.first(schedule, self.anchor)
        while moment is not None and moment <= until:
            found.append(moment)
            moment = occurrences.after(schedule, moment, self.anchor)
        return found

    def has(self, moment: datetime) -> bool:
        """Whether the moment is one of the schedule's."""
        return isinstance(self.schedule, FixedDelay) or moment in self.moments(moment)

    def fits(self, moment: datetime) -> bool:
        """Whether the schedule would have the moment wherever it had taken effect."""
        schedule = self.schedule
        if isinstance(schedule, Between):
            if schedule.end is not None and moment >= schedule.end:
                return False
            schedule = schedule.schedule
        if isinstance(schedule, Once):
            return moment == schedule.at
        if isinstance(schedule, Cron):
            return occurrences.after(schedule, moment - TICK, moment - TICK) == moment
        if not isinstance(schedule, Interval) or schedule.start is None:
            return True
        return (moment - schedule.start) % schedule.every == timedelta(0)

    @property
    def last(self) -> datetime | None:
        """The last moment of all, where there is one."""
        if isinstance(self.schedule, Once):
            return self.schedule.at
        if isinstance(self.schedule, Between) and self.schedule.end is not None:
            return max(self.moments(self.schedule.end), default=None)
        return None


@define
class Pause:
    """A pause, as it was commanded.

    Attributes:
        since: When it began.
        end: When it ended, or will by itself.
        seq: From when on it counts, in the order of all that happened.
        asked_seq: When it was commanded.
        begun: Moments of what had begun before it.
        until: When it was to end by itself.
        end_seq: When it was ended, in the order of all that happened.
    """

    since: datetime
    end: datetime | None
    seq: int
    begun: frozenset[datetime]
    asked_seq: int
    until: datetime | None
    end_seq: int | None = None


@define
class Request:
    """A request, as it was made, and the number that it was told."""

    seq: int
    number: int
    kind: Kind
    args: Any = None
    since: datetime | None = None
    until: datetime | None = None


@define
class Life:
    """One incarnation.

    Attributes:
        uid: Names it.
        spec: The last accepted definition; ``None`` where only schedules are known.
        declared: Whether ``ensure_job`` made or adopted it.
        highest: The newest number that was seen.
        revision: The newest revision that was seen.
        is_over: Whether nothing was left to run when it was looked at last.
        edits: How often its policy was edited.
        retries: What its edits have said of retries.
    """

    uid: str
    spec: JobSpec | None = None
    declared: bool = False
    highest: int = 0
    revision: int = 0
    is_over: bool = False
    epochs: list[Epoch] = Factory(list)
    pauses: list[Pause] = Factory(list)
    resumed: bool = True
    requests: list[Request] = Factory(list)
    skips: list[tuple[int, datetime]] = Factory(list)
    unskipped: bool = False
    cancels: set[int] = Factory(set)
    begun: dict[int, datetime] = Factory(dict)
    edits: int = 0
    retries: list[Retry] = Factory(list)
    removed: int | None = None

    def copy(self) -> Life:
        """Return one that goes its own way."""
        return evolve(
            self,
            epochs=[evolve(epoch) for epoch in self.epochs],
            pauses=[evolve(pause) for pause in self.pauses],
            requests=list(self.requests),
            skips=list(self.skips),
            cancels=set(self.cancels),
            begun=dict(self.begun),
            retries=list(self.retries),
        )

    def epoch_of(self, number: int) -> Epoch:
        """Return in which epoch a number was given."""
        return [epoch for epoch in self.epochs if epoch.number < number][-1]

    def paused_at(self, now: datetime) -> Pause | None:
        """Return the pause that is in force."""
        if self.resumed or not self.pauses:
            return None
        pause = self.pauses[-1]
        return pause if pause.end is None or now < pause.end else None

    def around(self, moment: datetime, epoch: Epoch) -> Pause | None:
        """Return the pause that a moment of an epoch lies in."""
        for pause in self.pauses:
            applies = (epoch.end_seq is None or pause.seq <= epoch.end_seq) and (
                pause.end_seq is None or epoch.seq <= pause.end_seq
            )
            if applies and pause.since < moment and (pause.end is None or moment <= pause.end):
                return pause
        return None

    def is_taken(self, moment: datetime, epoch: Epoch) -> bool:
        """Whether a pause has taken a moment away: all but the last of a schedule, at its end."""
        pause = self.around(moment, epoch)
        if pause is None or moment != epoch.last:
            return pause is not None
        if epoch.end_seq is None or epoch.end is None:
            return False
        by_itself = pause.until is not None and pause.until <= epoch.end
        return not by_itself and (pause.end_seq is None or pause.end_seq > epoch.end_seq)

    def pause(self, now: datetime, until: datetime | None, seq: int, held: datetime | None) -> None:
        """Begin one."""
        begun = {*self.begun.values()} | ({held} if held is not None else set())
        if self.pauses and self.pauses[-1].end_seq is None:
            self.pauses[-1].end_seq = seq
        self.pauses.append(Pause(now, until, seq, frozenset(begun), seq, until))
        self.resumed = False

    def resume(self, seq: int, now: datetime | None = None) -> None:
        """End the one that is in force."""
        if now is not None:
            self.pauses[-1].end = now
        self.pauses[-1].end_seq = seq
        self.resumed = True
