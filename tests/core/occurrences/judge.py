"""Knows what was commanded and what was observed, and says what cannot be true of it.

It calls nothing of the rules. What it knows of schedules are the kinds of the histories: an
interval, one with an end, a single moment, and a delay after each end.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

from attrs import evolve
from tests.core.occurrences.known import T0, Epoch, Life, M, Request, Wrong, at

from sched_core._model.claim import Start
from sched_core._model.execution import Execution, Kind, Status
from sched_core._model.job import Job
from sched_core.schedule import FixedDelay

JITTER = 5 * M
"""The most that a history's policy has."""
STILL_RUNNING = "still running"
Key = tuple[str, int]


class Judge:
    """Of one history."""

    def __init__(self, grace: timedelta | None = None) -> None:
        self.grace = grace
        self.seq = 0
        self.lives: dict[str, Life] = {}
        self.executions: list[Execution] = []
        self.ids: dict[str, int] = {}
        self.finals: dict[Key, tuple[int, Execution]] = {}
        self.attempts: dict[Key, int] = {}
        self.names: dict[Key, tuple[Kind, datetime]] = {}
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
        scheduled = found.kind is Kind.SCHEDULED
        if scheduled and (found.attempt or found.status is not Status.SUPERSEDED):
            life.begun[found.number] = found.scheduled_at

    def _ended(self, life: Life, found: Execution, told: str) -> None:
        """Judge the end of an occurrence."""
        if found.status is Status.SKIPPED and not found.reason and found.coalesced:
            raise Wrong(f"{told}: {found.coalesced} more than was asked for")
        # What an edit supersedes behind a held occurrence gets a number of the schedule after it.
        edited = len(life.epochs) > 1 and found.kind is Kind.SCHEDULED
        if found.status is Status.SUPERSEDED and not (life.removed is not None or edited):
            raise Wrong(f"{told}, and nothing was edited")
        deadline = "next occurrence" in (found.reason or "")
        if found.status is Status.CANCELLED and not deadline and found.number not in life.cancels:
            raise Wrong(f"{told}; asked for were {life.cancels}")
        until = found.coalesced_until or found.scheduled_at
        is_missed = found.status is Status.MISSED
        if is_missed and self.grace is not None and until > found.claimed_at - self.grace:
            raise Wrong(f"{told} until {at(until)}, within the grace")
        if is_missed and any(
            found.scheduled_at <= epoch.last <= until and life.around(epoch.last, epoch)
            for epoch in life.epochs
            if epoch.last is not None and epoch.end is None
        ):
            raise Wrong(f"{told}: the last moment of all, inside a pause")
        lost = (found.reason or "").startswith("lost:")
        if lost and (life.uid, found.number) not in self.fatal and not life.edits:
            raise Wrong(f"{told}: no claim of it was lost alone")

    def _name(self, key: Key, kind: Kind, moment: datetime) -> None:
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
        self._name(key, start.kind, start.scheduled_at)
        is_first = key not in self.starts and start.kind is Kind.SCHEDULED
        if is_first and not life.epochs[-1].fits(start.scheduled_at):
            raise Wrong(f"{key} begins at {at(start.scheduled_at)}: the calendar lacks it")
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
            if found.kind is Kind.SCHEDULED and found.status is not Status.SUPERSEDED
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
            life.pauses.append(evolve(pause, since=now, seq=self.seq, end_seq=None))

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

    def expect_ends_in_pause(self, uid: str, now: datetime) -> None:
        """Expect that what a pause does not hold has ended before it does."""
        life = self.lives[uid]
        pause = life.paused_at(now)
        if pause is None:
            return
        for number in life.cancels:
            if (uid, number) not in self.finals:
                raise Wrong(f"{number} was to be cancelled, and waits for the pause's end")
        for asked in life.requests:
            plain = asked.kind is Kind.TRIGGERED and asked.args is None
            if plain and asked.seq > pause.asked_seq and (uid, asked.number) not in self.finals:
                raise Wrong(f"{asked.number} was asked for inside the pause, and waits")

    def account(self, horizon: datetime) -> None:
        """Expect that all has its end that must have one."""
        for key in (*self.starts, *self.attempts):
            if key not in self.finals:
                raise Wrong(f"{key} was begun and has no final execution")
        for life in self.lives.values():
            finals = [found for (uid, _), (_, found) in self.finals.items() if uid == life.uid]
            scheduled = [found for found in finals if found.kind is Kind.SCHEDULED]
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
                if found.scheduled_at < moment and not life.is_taken(moment, epoch)
            ]
            apart = sum(self._is_told_apart(found, moment, scheduled) for moment in covered)
            if covered and found.coalesced_until != covered[-1] and not self.set_back:
                raise Wrong(f"{found.id} ends at {at(found.coalesced_until)}: that is no moment")
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
                if own or covering or life.is_taken(moment, epoch):
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
            ended = epoch.end is not None and not self.set_back
            own = [found for found in kept if ended or found.status is not Status.SUPERSEDED]
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
            if uid == life.uid and kind == Kind.TRIGGERED and number not in told:
                raise Wrong(f"{number} runs, and nobody asked for it")

    @staticmethod
    def _backfilled(life: Life, asked: Request, finals: list[Execution]) -> None:
        """Expect an execution for each moment of a range, or one for the rest."""
        epoch = [each for each in life.epochs if each.seq <= asked.seq][-1]
        if epoch.end_seq is not None or asked.until is None or asked.since is None:
            return  # edited meanwhile: the rest is of another schedule
        mine = [found for found in finals if found.kind is Kind.BACKFILLED]
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
        yield f"{each.id} {each.kind.value} {at(each.scheduled_at)} {each.status.value}{behind}"
