"""One incarnation of a job as it was commanded: its schedules, its pauses, its requests."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from attrs import Factory, define, evolve

from sched_core import Between, Cron, FixedDelay, Interval, JobSpec, Kind, Once, Policy
from sched_testkit._oracle import moments

TICK = timedelta(microseconds=1)


@define
class ScheduleEra:
    """The time during which one schedule was in force.

    Attributes:
        schedule: The schedule.
        anchor: The moment at which it took effect.
        number: The newest number that the job had given before.
        seq: The place of its beginning in the order of everything that happened.
        must: Moments up to this one have run before the era: they must not run again.
        may: Moments up to this one have begun or were accounted for: they need not run.
        end: The moment at which the next schedule took effect, or the job was removed.
        end_seq: The place of its end in the order of everything that happened.
        paused: The beginning of the pause that was in force at its end.
        held: The moment of the occurrence that a worker held at its end, and the last moment that
            this occurrence may cover.
        cancelled: Moments that were cancelled before the era, and had not come yet.
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
        moment = moments.first(schedule, self.anchor)
        while moment is not None and moment <= until:
            found.append(moment)
            moment = moments.after(schedule, moment, self.anchor)
        return found

    def after(self, moment: datetime) -> datetime | None:
        """Return the first moment of the schedule after another one."""
        return moments.after(self.schedule, moment, self.anchor)

    def passed(self, since: datetime, until: datetime) -> list[datetime]:
        """Return the moments of the schedule after one, up to another."""
        if isinstance(self.schedule, FixedDelay):
            return []
        if isinstance(self.schedule, Between):
            return [moment for moment in self.moments(until) if moment > since]
        found: list[datetime] = []
        moment = self.after(since)
        while moment is not None and moment <= until:
            found.append(moment)
            moment = self.after(moment)
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
            return moments.after(schedule, moment - TICK, moment - TICK) == moment
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
        since: The moment at which it began.
        end: The moment at which it ended, or will end on its own.
        seq: The place from which it counts in the order of everything that happened.
        asked_seq: The place of the command in that order.
        begun: Moments of occurrences that had begun before it.
        until: The moment at which it was to end on its own.
        end_seq: The place of its end in that order.
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
    """A request as a caller made it, and the number that the caller got.

    Attributes:
        seq: The place at which the command began in the order of everything that happened.
        number: The number.
        kind: What was asked for.
        args: The arguments for the handler, where they are known.
        since: The beginning of a backfill's range; the moment of a rerun.
        until: The end of a backfill's range.
        key: The name by which a further call is the same request, until it has ended.
    """

    seq: int
    number: int
    kind: Kind
    args: Any = None
    since: datetime | None = None
    until: datetime | None = None
    key: str | None = None

    @property
    def is_plain(self) -> bool:
        """Whether it is a trigger without a name and arguments: until it has begun, it is one."""
        return self.kind is Kind.TRIGGERED and self.args is None and self.key is None


@define
class Incarnation:
    """One incarnation of a job.

    Attributes:
        uid: The name of the incarnation.
        spec: The last accepted definition; ``None`` where only schedules are known.
        declared: Whether ``ensure_job`` made or adopted it.
        highest: The newest number that was seen.
        revision: The newest revision that was seen.
        is_over: Whether the job had nothing left to run when it was read last.
        eras: The schedules that were in force, oldest first.
        pauses: The pauses, oldest first.
        resumed: Whether the newest pause was seen to end.
        requests: The requests, oldest first.
        skips: The place and the moment of each ``skip_next``.
        unskipped: Whether an ``unskip`` was seen.
        cancels: Numbers that were cancelled.
        begun: The moment of each occurrence of the schedule that has begun, by its number.
        edits: The number of edits of its policy.
        policies: The policies that its edits have brought.
        removed: The place of its removal in the order of everything that happened.
    """

    uid: str
    spec: JobSpec | None = None
    declared: bool = False
    highest: int = 0
    revision: int = 0
    is_over: bool = False
    eras: list[ScheduleEra] = Factory(list)
    pauses: list[Pause] = Factory(list)
    resumed: bool = True
    requests: list[Request] = Factory(list)
    skips: list[tuple[int, datetime]] = Factory(list)
    unskipped: bool = False
    cancels: set[int] = Factory(set)
    begun: dict[int, datetime] = Factory(dict)
    edits: int = 0
    policies: list[Policy] = Factory(list)
    removed: int | None = None

    def copy(self) -> Incarnation:
        """Return an independent copy."""
        return evolve(
            self,
            eras=[evolve(era) for era in self.eras],
            pauses=[evolve(pause) for pause in self.pauses],
            requests=list(self.requests),
            skips=list(self.skips),
            cancels=set(self.cancels),
            begun=dict(self.begun),
            policies=list(self.policies),
        )

    def asked_first(self, number: int) -> int:
        """Return the place at which a number was asked for first."""
        return min(asked.seq for asked in self.requests if asked.number == number)

    def newest_with(self, kind: Kind, key: str) -> Request | None:
        """Return the newest request of a kind that has a name."""
        named = [one for one in self.requests if (one.kind, one.key) == (kind, key)]
        return named[-1] if named else None

    def era_of(self, number: int) -> ScheduleEra:
        """Return the era in which a number was given."""
        return [era for era in self.eras if era.number < number][-1]

    def era_at(self, seq: int) -> ScheduleEra:
        """Return the era that had begun at a place in the order of everything that happened."""
        return [era for era in self.eras if era.seq <= seq][-1]

    def paused_at(self, now: datetime) -> Pause | None:
        """Return the pause that is in force."""
        if self.resumed or not self.pauses:
            return None
        pause = self.pauses[-1]
        return pause if pause.end is None or now < pause.end else None

    def pause_around(self, moment: datetime, era: ScheduleEra) -> Pause | None:
        """Return the pause that a moment of an era lies in."""
        for pause in self.pauses:
            applies = (era.end_seq is None or pause.seq <= era.end_seq) and (
                pause.end_seq is None or era.seq <= pause.end_seq
            )
            if applies and pause.since < moment and (pause.end is None or moment <= pause.end):
                return pause
        return None

    def is_taken(self, moment: datetime, era: ScheduleEra) -> bool:
        """Whether a pause has taken a moment away.

        It takes all but the last moment of a schedule: that one comes at the pause's end.
        """
        pause = self.pause_around(moment, era)
        if pause is None or moment != era.last:
            return pause is not None
        if era.end_seq is None or era.end is None:
            return False
        ended_alone = pause.until is not None and pause.until <= era.end
        return not ended_alone and (pause.end_seq is None or pause.end_seq > era.end_seq)

    def pause(self, now: datetime, until: datetime | None, seq: int, held: datetime | None) -> None:
        """Begin a pause.

        Args:
            now: The moment at which it begins.
            until: The moment at which it is to end on its own.
            seq: The place of the command in the order of everything that happened.
            held: The moment of the occurrence that a worker holds.
        """
        begun = {*self.begun.values()} | ({held} if held is not None else set())
        if self.pauses and self.pauses[-1].end_seq is None:
            self.pauses[-1].end_seq = seq
        self.pauses.append(Pause(now, until, seq, frozenset(begun), seq, until))
        self.resumed = False

    def resume(self, seq: int, now: datetime | None = None) -> None:
        """End the pause that is in force; without a moment, it has ended on its own."""
        if now is not None:
            self.pauses[-1].end = now
        self.pauses[-1].end_seq = seq
        self.resumed = True
