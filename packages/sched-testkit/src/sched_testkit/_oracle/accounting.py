"""Accounts for a history that has come to rest: every moment, request and begun occurrence."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from sched_core import Execution, FixedDelay, Kind, Status
from sched_testkit._oracle.annals import Epoch, Life, Request, Wrong, at

STILL_RUNNING = "still running"
Key = tuple[str, int]
"""Of an occurrence: the incarnation and the number."""
MARKED = timedelta(minutes=100)
"""How far ahead the moment that a mark is for is looked for."""


class Accounting:
    """What is known of a history, and what must be true of it at its end.

    Attributes:
        jitter: The most that any of its policies has.
        set_back: Whether the clock was set back: what has run may then seem early.
    """

    def __init__(self) -> None:
        self.jitter = timedelta(minutes=5)
        self.lives: dict[str, Life] = {}
        self.finals: dict[Key, tuple[int, Execution]] = {}
        self.names: dict[Key, tuple[Kind, datetime]] = {}
        self.starts: dict[Key, int] = {}
        self.attempts: dict[Key, int] = {}
        self.args: dict[Key, Any] = {}
        self.set_back = False

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
                for epoch in self._covered(life, found, place)
                for moment in epoch.moments(until if epoch.end is None else min(until, epoch.end))
                if found.scheduled_at < moment
                and (epoch is life.epochs[place] or epoch.anchor < moment)
                and moment not in epoch.cancelled
                and not life.is_taken(moment, epoch)
            ]
            apart = sum(self._is_told_apart(found, moment, scheduled) for moment in covered)
            if covered and found.coalesced_until != covered[-1] and not self.set_back:
                raise Wrong(f"{found.id} ends at {at(found.coalesced_until)}: that is no moment")
            if len(covered) - apart != found.coalesced and not self.set_back:
                raise Wrong(
                    f"{found.id} {found.status.value} {at(found.scheduled_at)} says "
                    f"{found.coalesced} until {at(found.coalesced_until)}, not {len(covered)}"
                )

    def _covered(self, life: Life, found: Execution, place: int) -> list[Epoch]:
        """Return the epochs that an occurrence may stand for moments of.

        What an edit has superseded is no part of the schedule that the edit has brought.
        """
        seq = self.finals[found.uid, found.number][0]
        edited = found.status is Status.SUPERSEDED and not found.token
        if not edited or (life.removed is not None and life.removed < seq):
            return life.epochs[place:]
        newest = [epoch for epoch in life.epochs if epoch.seq < seq][-1]
        before = [epoch for epoch in life.epochs[place:] if epoch.seq < newest.seq]
        return before or life.epochs[place : place + 1]

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
        end = horizon - self.jitter if epoch.end is None else epoch.end
        cancelled = {found.scheduled_at for found in scheduled if found.number in life.cancels}
        for moment in epoch.moments(end):
            own, covering, apart = self._told_of(moment, epoch, life, scheduled)
            told = f"{life.uid} {at(moment)}: {own} own, {covering} covering"
            if moment in epoch.cancelled:
                if own:
                    raise Wrong(f"{told}: it had been cancelled before the edit")
                continue
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
        covering: list[tuple[Execution, bool]] = []
        apart = False
        for found in scheduled:
            of = life.epochs.index(life.epoch_of(found.number))
            rest = found.status is Status.SUPERSEDED and found.attempt == 0
            since = self.finals[found.uid, found.number][0]
            # An edit gives what it supersedes behind a held occurrence numbers of the new schedule.
            early = rest and not found.token and (epoch.end_seq is None or since <= epoch.end_seq)
            mine = (of == place and not early) or (rest and of == place + 1)
            if found.scheduled_at == moment and mine:
                own.append(found)
            elif found.scheduled_at == moment and of < place and since > epoch.seq:
                kept.append(found)  # the new schedule has taken it over, perhaps
                continue
            elif (
                found.coalesced_until is not None
                and of <= place + rest
                and found.scheduled_at < moment <= found.coalesced_until
            ):
                # A schedule may come with a moment that passed before it came: one of its own.
                covering.append((found, of == place or epoch.anchor < moment))
            else:
                continue
            apart = apart or rest or found.reason == STILL_RUNNING
        if own:
            covering = [(found, shared) for found, shared in covering if shared]
        if not own and not covering:
            ended = epoch.end is not None and not self.set_back
            own = [found for found in kept if ended or found.status is not Status.SUPERSEDED]
            apart = apart or bool(own)  # it was under way already: no run of the new schedule
        return len(own), len(covering), apart

    def _requests(self, life: Life, finals: list[Execution]) -> None:
        """Expect that each request had its end, after it was made."""
        for asked in life.requests:
            key = (life.uid, asked.number)
            if key not in self.finals:
                raise Wrong(f"{key} was asked for at {asked.seq}, and has no end")
            kind = self.finals[key][1].kind
            if kind is not asked.kind:
                raise Wrong(f"{key} was asked for at {asked.seq}, and its end is {kind.value}")
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
        # Asked for again, it is the same request, of the schedule that it was asked for with.
        span = asked.since, asked.until
        first = min(one.seq for one in life.requests if (one.since, one.until) == span)
        epoch = [each for each in life.epochs if each.seq <= first][-1]
        if asked.until is None or asked.since is None:
            return
        if epoch is not life.epochs[-1]:
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
        for moment in epoch.moments(asked + MARKED):
            if moment <= asked:
                continue
            if life.around(moment, epoch) and moment != epoch.last:
                return  # a pause has taken it
            for found in scheduled:
                passed = {Status.SKIPPED, Status.MISSED, Status.CANCELLED, Status.SUPERSEDED}
                if found.scheduled_at == moment and found.status not in passed:
                    raise Wrong(f"{at(moment)} was to be skipped, and {found.status.value}")
            return
