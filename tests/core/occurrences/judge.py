"""Knows what was commanded and what was observed, and says what cannot be true of it.

It calls nothing of the rules. What it knows of schedules are the kinds of the histories: an
interval, one with an end, a single moment, and a delay after each end.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

from attrs import Factory, define, evolve

from sched_core._model.claim import Start
from sched_core._model.execution import Execution, Status
from sched_core._model.occurrence import Job, Kind
from sched_core.schedule import Between, FixedDelay, Interval, Once

T0 = datetime(2026, 1, 1, tzinfo=UTC)
M = timedelta(minutes=1)
JITTER = 5 * M
"""The most that a history's policy has."""
STILL_RUNNING = "still running"
Key = tuple[str, int]


class Wrong(AssertionError):
    """Something that cannot be true."""


def at(moment: datetime | None) -> float | None:
    """Return minutes: what people read in a history."""
    return None if moment is None else (moment - T0) / M


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

    def moments(self, until: datetime) -> list[datetime]:
        """Return the moments of the schedule up to one, computed by hand."""
        schedule = self.schedule
        stops: datetime | None = None
        if isinstance(schedule, FixedDelay):
            return []
        if isinstance(schedule, Once):
            return [schedule.at] if schedule.at <= until else []
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

    def has(self, moment: datetime) -> bool:
        """Whether the moment is one of the schedule's."""
        return isinstance(self.schedule, FixedDelay) or moment in self.moments(moment)

    @property
    def last(self) -> datetime | None:
        """The last moment of all, where there is one."""
        if isinstance(self.schedule, Once):
            return self.schedule.at
        if isinstance(self.schedule, Between) and self.schedule.end is not None:
            return max(self.moments(self.schedule.end), default=None)
        return None

    @property
    def is_calendar(self) -> bool:
        """Whether its moments do not depend on when it took effect."""
        inner = self.schedule.schedule if isinstance(self.schedule, Between) else self.schedule
        return (
            isinstance(self.schedule, Between)
            or getattr(inner, "every", None) is None
            or (getattr(inner, "start", None) is not None)
        )


@define
class Pause:
    """A pause, as it was commanded.

    Attributes:
        since: When it began.
        end: When it ended, or will by itself.
        seq: From when on it counts, in the order of all that happened.
        asked_seq: When it was commanded.
        begun: Moments of what had begun before it.
        end_seq: When it was ended, in the order of all that happened.
    """

    since: datetime
    end: datetime | None
    seq: int
    begun: frozenset[datetime]
    asked_seq: int
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
    """One incarnation."""

    uid: str
    epochs: list[Epoch] = Factory(list)
    pauses: list[Pause] = Factory(list)
    resumed: bool = True
    requests: list[Request] = Factory(list)
    skips: list[tuple[int, datetime]] = Factory(list)
    unskipped: bool = False
    cancels: set[int] = Factory(set)
    begun: dict[int, datetime] = Factory(dict)
    edits: int = 0
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

    def pause(self, now: datetime, until: datetime | None, seq: int, held: datetime | None) -> None:
        """Begin one."""
        begun = {*self.begun.values()} | ({held} if held is not None else set())
        if self.pauses and self.pauses[-1].end_seq is None:
            self.pauses[-1].end_seq = seq
        self.pauses.append(Pause(now, until, seq, frozenset(begun), seq))
        self.resumed = False

    def resume(self, seq: int, now: datetime | None = None) -> None:
        """End the one that is in force."""
        if now is not None:
            self.pauses[-1].end = now
        self.pauses[-1].end_seq = seq
        self.resumed = True


class Judge:
    """Of one history."""

    def __init__(self) -> None:
        self.seq = 0
        self.lives: dict[str, Life] = {}
        self.executions: list[Execution] = []
        self.ids: dict[str, int] = {}
        self.finals: dict[Key, tuple[int, Execution]] = {}
        self.attempts: dict[Key, int] = {}
        self.names: dict[Key, tuple[str, datetime]] = {}
        self.starts: dict[Key, int] = {}
        self.content: dict[Key, tuple[Any, ...]] = {}
        self.lost: dict[Key, tuple[int, datetime]] = {}
        self.fatal: set[Key] = set()
        self.args: dict[Key, Any] = {}
        self.set_back = False

    def copy(self) -> Judge:
        """Return one that goes its own way."""
        new = Judge()
        for name, value in vars(self).items():
            setattr(new, name, value.copy() if hasattr(value, "copy") else value)
        new.lives = {uid: life.copy() for uid, life in self.lives.items()}
        return new

    # -- the history, as the stored id sees it

    def stored(self, execution_id: str) -> Execution | None:
        """Return an execution."""
        return self.executions[self.ids[execution_id]] if execution_id in self.ids else None

    def append(self, found: Execution) -> None:
        """Take in an execution."""
        self.seq += 1
        key, life = (found.uid, found.number), self.lives[found.uid]
        told = f"{found.id} {found.status.value}"
        if found.id in self.ids:
            raise Wrong(f"{told} is written twice")
        if key in self.finals:
            raise Wrong(f"{told} after the final one")
        self._name(key, found.kind, found.scheduled_at)
        if found.attempt:
            if found.attempt != self.attempts.get(key, 0) + 1:
                raise Wrong(f"{told} after {self.attempts.get(key, 0)} attempts")
            self.attempts[key] = found.attempt
            cancelled = found.number in life.cancels and life.removed is None
            if cancelled and found.status in {Status.FAILED, Status.INTERRUPTED}:
                raise Wrong(f"{told} had been cancelled")
            if found.status is Status.ABANDONED:
                self.lost[key] = self.lost.get(key, (0, T0))[0] + 1, found.finished_at
            else:
                self.lost.pop(key, None)
        self.ids[found.id] = len(self.executions)
        self.executions.append(found)
        if found.final:
            self.finals[key] = (self.seq, found)
            self._ended(life, found, told)
        scheduled = found.kind == Kind.SCHEDULED.value
        if scheduled and (found.attempt or found.status is not Status.SUPERSEDED):
            life.begun[found.number] = found.scheduled_at

    def _ended(self, life: Life, found: Execution, told: str) -> None:
        """Judge the end of an occurrence."""
        if found.status is Status.SKIPPED and not found.reason and found.coalesced:
            raise Wrong(f"{told}: {found.coalesced} more than was asked for")
        edited = life.epoch_of(found.number).end is not None and found.kind == Kind.SCHEDULED.value
        # What an edit supersedes behind a held occurrence gets a number of the schedule after it.
        edited = edited or (len(life.epochs) > 1 and found.kind == Kind.SCHEDULED.value)
        if found.status is Status.SUPERSEDED and not (life.removed is not None or edited):
            raise Wrong(f"{told}, and nothing was edited")
        deadline = "next occurrence" in (found.reason or "")
        if found.status is Status.CANCELLED and not deadline and found.number not in life.cancels:
            raise Wrong(f"{told}; asked for were {life.cancels}")
        lost = (found.reason or "").startswith("lost:")
        if lost and (life.uid, found.number) not in self.fatal and not life.edits:
            raise Wrong(f"{told}: no claim of it was lost alone")

    def _name(self, key: Key, kind: str, moment: datetime) -> None:
        if self.names.setdefault(key, (kind, moment)) != (kind, moment):
            raise Wrong(f"{key} named {self.names[key]} before, and now {(kind, at(moment))}")

    def start(self, job: Job, start: Start, now: datetime) -> None:
        """Take in that a handler is called."""
        self.seq += 1
        key, life = (job.uid, start.number), self.lives[job.uid]
        if key in self.finals:
            raise Wrong(f"{key} attempt {start.attempt} starts after its final execution")
        if key in self.fatal:
            raise Wrong(f"{key} starts after the lost claim that was to be its last")
        if start.number in life.cancels:
            raise Wrong(f"{key} starts though it was cancelled")
        if start.attempt != self.attempts.get(key, 0) + 1:
            raise Wrong(f"{key} starts attempt {start.attempt} after {self.attempts.get(key, 0)}")
        waits_until = self.lost[key][1] + timedelta(seconds=0.5) if key in self.lost else now
        if now < waits_until and not self.set_back:
            raise Wrong(f"{key} starts at once after a lost claim")
        if start.deadline is not None and start.deadline <= now and not self.set_back:
            raise Wrong(f"{key} starts at {at(now)} after its deadline {at(start.deadline)}")
        self._name(key, start.kind.value, start.scheduled_at)
        self.starts.setdefault(key, self.seq)
        self.args[key] = start.args
        held = (start.coalesced, start.coalesced_until, life.edits)
        before = self.content.get(key)
        if before and not self.set_back and before[2] == held[2] and before != held:
            raise Wrong(f"{key} stood for {before}, now for {held}")
        self.content[key] = held
        pause = life.paused_at(now)
        if start.kind is Kind.SCHEDULED:
            life.begun[start.number] = start.scheduled_at
            if pause is not None:
                raise Wrong(f"{key} begins inside a pause")
            if start.scheduled_at > now and not self.set_back:
                raise Wrong(f"{key} begins early")
        elif pause is not None and self._was_asked(life, start.number) < pause.asked_seq:
            raise Wrong(f"{key} was asked for before the pause, and begins inside it")

    @staticmethod
    def _was_asked(life: Life, number: int) -> int:
        """Return when a request was made: of a backfill the last one before its number."""
        return max(
            (asked.seq for asked in life.requests if asked.number == number),
            default=max(
                (asked.seq for asked in life.requests if asked.kind is Kind.BACKFILLED), default=0
            ),
        )

    def unbegun(self, uid: str, start: Start) -> None:
        """Take in that a claim was handed back: its handler was not called."""
        key = (uid, start.number)
        if key not in self.attempts:
            self.content.pop(key, None)
            self.starts.pop(key, None)
            self.lives[uid].begun.pop(start.number, None)

    # -- commands

    def edited(
        self, uid: str, schedule: Any, now: datetime, held: Job | None, number: int = 0
    ) -> None:
        """Take in another schedule.

        Args:
            uid: Of the incarnation.
            schedule: The new one.
            now: By the clock.
            held: The job before, with what is held.
            number: The newest number of before.
        """
        life = self.lives.setdefault(uid, Life(uid))
        if not life.epochs:
            life.epochs.append(Epoch(schedule, now, number, self.seq))
            return
        self._end(life, now, held)
        mine = [found for (of, _), (_, found) in self.finals.items() if of == uid]
        ran = [
            found
            for found in mine
            if found.kind == Kind.SCHEDULED.value and found.status is not Status.SUPERSEDED
        ]
        must = max((found.scheduled_at for found in ran), default=None)
        covered = [found.coalesced_until or found.scheduled_at for found in ran]
        begun = [*life.begun.values(), *covered]
        one = None if held is None else held.standing.scheduled
        if held is not None and one is not None and one.number == held.held:
            begun.append(one.scheduled_at)
        life.epochs.append(Epoch(schedule, now, number, self.seq, must, max(begun, default=None)))
        pause = life.paused_at(now)
        if pause is not None and pause.since > now:
            pause.end_seq = self.seq - 1
            life.pauses.append(Pause(now, pause.end, self.seq, pause.begun, pause.asked_seq))

    def removed(self, uid: str, now: datetime, held: Job | None) -> None:
        """Take in that the job was removed."""
        life = self.lives[uid]
        self._end(life, now, held)
        life.removed = self.seq

    def _end(self, life: Life, now: datetime, held: Job | None) -> None:
        epoch, pause = life.epochs[-1], life.paused_at(now)
        one = None if held is None else held.standing.scheduled
        if held is not None and one is not None and one.number == held.held:
            epoch.held = one.scheduled_at, one.began_at or held.held_at or now
        epoch.end, epoch.end_seq = now, self.seq
        epoch.paused = None if pause is None else pause.since

    # -- the end

    def account(self, horizon: datetime) -> None:
        """Expect that all has its end that must have one."""
        for key in (*self.starts, *self.attempts):
            if key not in self.finals:
                raise Wrong(f"{key} was begun and has no final execution")
        for life in self.lives.values():
            finals = [found for (uid, _), (_, found) in self.finals.items() if uid == life.uid]
            scheduled = [found for found in finals if found.kind == Kind.SCHEDULED.value]
            for epoch in life.epochs:
                self._moments(life, epoch, scheduled, horizon)
            self._contents(life, scheduled)
            self._requests(life, finals)
            self._skips(life, scheduled)

    def _contents(self, life: Life, scheduled: list[Execution]) -> None:
        """Expect that what an execution says it stands for is true."""
        for found in scheduled:
            first = life.epoch_of(found.number)
            place = life.epochs.index(first)
            mine = [epoch for epoch in life.epochs[: place + 1] if epoch.has(found.scheduled_at)]
            if not mine:
                raise Wrong(f"{found.id}: {at(found.scheduled_at)} is no moment of its schedule")
            if found.coalesced_until is None or (self.set_back and life.pauses):
                continue
            known = [epoch for epoch in mine if not isinstance(epoch.schedule, FixedDelay)]
            place = life.epochs.index((known or mine)[-1])
            until = found.coalesced_until
            covered = [
                moment
                for epoch in life.epochs[place:]
                for moment in epoch.moments(until if epoch.end is None else min(until, epoch.end))
                if found.scheduled_at < moment
                and (moment == epoch.last or not life.around(moment, epoch))
            ]
            apart = sum(self._is_told_apart(found, moment, scheduled) for moment in covered)
            if len(covered) - apart != found.coalesced and not self.set_back:
                raise Wrong(
                    f"{found.id} {found.status.value} {at(found.scheduled_at)} says "
                    f"{found.coalesced} until {at(found.coalesced_until)}, not {len(covered)}"
                )

    @staticmethod
    def _is_told_apart(mine: Execution, moment: datetime, scheduled: list[Execution]) -> bool:
        """Whether another execution says what became of a moment that passed meanwhile."""
        return any(
            found is not mine
            and (
                found.reason == STILL_RUNNING
                or (found.status is Status.SUPERSEDED and found.number > mine.number)
            )
            and mine.scheduled_at
            < found.scheduled_at
            <= moment
            <= (found.coalesced_until or found.scheduled_at)
            for found in scheduled
        )

    def _moments(
        self, life: Life, epoch: Epoch, scheduled: list[Execution], horizon: datetime
    ) -> None:
        """Expect that each moment of a schedule was accounted for, once."""
        end = horizon - JITTER if epoch.end is None else epoch.end
        cancelled = {found.scheduled_at for found in scheduled if found.number in life.cancels}
        for moment in epoch.moments(end):
            own, covering, apart = self._told_of(moment, epoch, life, scheduled)
            told = f"{life.uid} {at(moment)}: {own} own, {covering} covering"
            pause = life.around(moment, epoch)
            if apart and own + covering > 1:
                covering -= 1  # a range that goes on behind what was skipped
            if own > 1 or covering > 1 or (own and covering and not pause):
                raise Wrong(told)
            if pause is not None:
                if own and moment not in pause.begun | cancelled and moment != epoch.last:
                    raise Wrong(f"{told}, inside a pause")
                if own or covering or moment != epoch.last or epoch.end is not None:
                    continue
            if own and epoch.must is not None and moment <= epoch.must and not apart:
                raise Wrong(f"{told}: it had run before the edit")
            if own + covering == 1 or (epoch.may is not None and moment <= epoch.may):
                continue
            if epoch.end is not None and epoch.paused is not None and moment > epoch.paused:
                continue
            if self.set_back and epoch.end is not None:
                continue
            if epoch.held is not None and epoch.held[0] < moment <= epoch.held[1]:
                continue  # what the run stood for that was lost with it
            raise Wrong(told)

    def _told_of(
        self, moment: datetime, epoch: Epoch, life: Life, scheduled: list[Execution]
    ) -> tuple[int, int, bool]:
        """Return how many executions are of a moment, and how many cover it.

        The third says whether one of them is apart from the occurrence that was under way.
        """
        place = life.epochs.index(epoch)
        own: list[Execution] = []
        kept: list[Execution] = []
        covering: list[Execution] = []
        apart = False
        for found in scheduled:
            of = life.epochs.index(life.epoch_of(found.number))
            rest = found.status is Status.SUPERSEDED and found.attempt == 0
            since = self.finals[found.uid, found.number][0]
            if found.scheduled_at == moment and (of == place or (rest and of == place + 1)):
                own.append(found)
            elif found.scheduled_at == moment and of < place and since > epoch.seq:
                kept.append(found)  # the new schedule has taken it over, perhaps
                continue
            elif (
                found.coalesced_until is not None
                and of <= place + rest
                and found.scheduled_at < moment <= found.coalesced_until
            ):
                covering.append(found)
            else:
                continue
            apart = apart or rest or found.reason == STILL_RUNNING
        if not own and not covering:
            own = [found for found in kept if epoch.end or found.status is not Status.SUPERSEDED]
        return len(own), len(covering), apart

    def _requests(self, life: Life, finals: list[Execution]) -> None:
        """Expect that each request had its end, after it was made."""
        for asked in life.requests:
            key = (life.uid, asked.number)
            if key not in self.finals:
                raise Wrong(f"{key} was asked for at {asked.seq}, and has no end")
            plain = asked.kind is Kind.TRIGGERED and asked.args is None
            if plain and self.starts.get(key, self.finals[key][0]) < asked.seq:
                raise Wrong(f"{key} had begun before it was asked for at {asked.seq}")
            if asked.args is not None and self.args.get(key, asked.args) != asked.args:
                raise Wrong(f"{key} was told {self.args[key]}, not {asked.args}")
            if asked.kind is Kind.BACKFILLED:
                self._backfilled(life, asked, finals)
        told = {asked.number for asked in life.requests}
        for uid, number in self.names:
            kind = self.names[uid, number][0]
            if uid == life.uid and kind == Kind.TRIGGERED.value and number not in told:
                raise Wrong(f"{number} runs, and nobody asked for it")

    @staticmethod
    def _backfilled(life: Life, asked: Request, finals: list[Execution]) -> None:
        """Expect an execution for each moment of a range, or one for the rest."""
        epoch = [each for each in life.epochs if each.seq <= asked.seq][-1]
        if epoch.end_seq is not None or asked.until is None or asked.since is None:
            return  # edited meanwhile: the rest is of another schedule
        mine = [found for found in finals if found.kind == Kind.BACKFILLED.value]
        for moment in epoch.moments(asked.until):
            if moment < asked.since:
                continue
            found = sum(
                each.scheduled_at == moment
                or (
                    each.coalesced_until is not None
                    and each.scheduled_at < moment <= each.coalesced_until
                )
                for each in mine
            )
            ranges = {(one.number, one.since, one.until) for one in life.requests}
            most = sum(
                since is not None and until is not None and since <= moment <= until
                for _, since, until in ranges
            )
            if not 1 <= found <= most:
                raise Wrong(f"backfill of {at(moment)}: {found} executions, {most} asked for")

    def _skips(self, life: Life, scheduled: list[Execution]) -> None:
        """Expect that a moment that was marked did not run."""
        skipped = [
            found for found in scheduled if found.status is Status.SKIPPED and not found.reason
        ]
        if len(skipped) > len(life.skips):
            raise Wrong(f"{len(skipped)} skipped, {len(life.skips)} asked for")
        if not life.skips or self.set_back or life.unskipped:
            return
        seq, asked = life.skips[-1]
        epoch = [each for each in life.epochs if each.seq <= seq][-1]
        if epoch.end_seq is not None:
            return
        for moment in epoch.moments(asked + 100 * M):
            if moment <= asked:
                continue
            if life.around(moment, epoch) and moment != epoch.last:
                return  # a pause has taken it
            for found in scheduled:
                passed = {Status.SKIPPED, Status.MISSED, Status.CANCELLED, Status.SUPERSEDED}
                if found.scheduled_at == moment and found.status not in passed:
                    raise Wrong(f"{at(moment)} was to be skipped, and {found.status.value}")
            return


def minutes(executions: list[Execution]) -> Iterator[str]:
    """Tell executions as people read them."""
    for each in executions:
        behind = f" +{each.coalesced} to {at(each.coalesced_until)}" if each.coalesced else ""
        yield f"{each.id} {each.kind} {at(each.scheduled_at)} {each.status.value}{behind}"
