"""Knows what was commanded and what was observed, and says what cannot be true of it.

It calls nothing of the rules, and shares no code with what it judges. It is told every command,
claim and call of the handler at its place in the history, and every execution in the order of
writing. What shows only when all has come to rest is told by
:class:`~sched_testkit._oracle.accounting.Accounting`.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from attrs import evolve, frozen

from sched_core import Execution, Job, Kind, Status
from sched_testkit._oracle.accounting import Accounting, Key
from sched_testkit._oracle.annals import Epoch, Life, Wrong, at


@frozen
class Start:
    """What a handler was told when it was called."""

    number: int
    scheduled_at: datetime
    kind: Kind
    attempt: int
    coalesced: int = 0
    coalesced_until: datetime | None = None
    deadline: datetime | None = None
    args: Any = None


class Oracle(Accounting):
    """Of one history.

    Args:
        grace: Of ``Drop``, where all policies have the same.
    """

    def __init__(self, grace: timedelta | None = None) -> None:
        super().__init__()
        self.grace = grace
        self.seq = 0
        self.ids: dict[str, int] = {}
        self.executions: list[Execution] = []
        self.content: dict[Key, tuple[int, datetime | None]] = {}
        self.lost: dict[Key, datetime] = {}
        """When an attempt was lost last, until another one has ended in another way."""
        self.fatal: set[Key] = set()

    def copy(self) -> Oracle:
        """Return one that goes its own way."""
        new = Oracle()
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
                self.lost[key] = found.finished_at
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
        for epoch in life.epochs:
            last = epoch.last
            if not is_missed or last is None or epoch.end is not None:
                continue
            pause = life.around(last, epoch) if found.scheduled_at <= last <= until else None
            if pause is not None and last not in pause.begun:
                raise Wrong(f"{told}: the last moment of all, inside a pause")
        lost = (found.reason or "").startswith("lost:")
        if lost and (life.uid, found.number) not in self.fatal and not life.edits:
            raise Wrong(f"{told}: no claim of it was lost alone")

    def _name(self, key: Key, kind: Kind, moment: datetime) -> None:
        if self.names.setdefault(key, (kind, moment)) != (kind, moment):
            raise Wrong(f"{key} named {self.names[key]} before, and now {(kind, at(moment))}")

    def start(self, job: Job, start: Start, now: datetime, seen: Life | None = None) -> None:
        """Take in that a handler is called.

        Args:
            job: As it was claimed.
            start: What the handler is told.
            now: By the clock.
            seen: What was commanded when the claim was made; by default just now.
        """
        self.seq += 1
        key, life = (job.uid, start.number), self.lives[job.uid]
        seen = life if seen is None else seen
        if key in self.finals:
            raise Wrong(f"{key} attempt {start.attempt} starts after its final execution")
        if key in self.fatal:
            raise Wrong(f"{key} starts after the lost claim that was to be its last")
        if start.number in seen.cancels:
            raise Wrong(f"{key} starts though it was cancelled")
        waits_until = self.lost[key] + timedelta(seconds=0.5) if key in self.lost else now
        if now < waits_until and not self.set_back:
            raise Wrong(f"{key} starts at once after a lost claim")
        if start.attempt != self.attempts.get(key, 0) + 1:
            raise Wrong(f"{key} starts attempt {start.attempt} after {self.attempts.get(key, 0)}")
        if start.deadline is not None and start.deadline <= now and not self.set_back:
            raise Wrong(f"{key} starts at {at(now)} after its deadline {at(start.deadline)}")
        self._name(key, start.kind, start.scheduled_at)
        is_first = key not in self.starts and start.kind is Kind.SCHEDULED
        if is_first and not seen.epochs[-1].fits(start.scheduled_at):
            raise Wrong(f"{key} begins at {at(start.scheduled_at)}: the calendar lacks it")
        until = start.coalesced_until
        if until is not None and until > now and not self.set_back:
            raise Wrong(f"{key} stands at {at(now)} for moments until {at(until)}")
        self.starts.setdefault(key, self.seq)
        self.args[key] = start.args
        held = (start.coalesced, start.coalesced_until)
        before = self.content.get(key, held)
        if before != held:
            raise Wrong(f"{key} stood for {before}, now for {held}")
        self.content[key] = held
        pause = seen.paused_at(now)
        if start.kind is Kind.SCHEDULED:
            life.begun[start.number] = start.scheduled_at
            if pause is not None:
                raise Wrong(f"{key} begins inside a pause")
            if start.scheduled_at > now and not self.set_back:
                raise Wrong(f"{key} begins early")
        elif pause is not None and self._was_asked(seen, start.number) < pause.asked_seq:
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
        ahead = {found.number: found.scheduled_at for found in mine if self._is_ahead(found)}
        ran = [
            found
            for found in mine
            if found.kind is Kind.SCHEDULED and found.status is not Status.SUPERSEDED
            if found.number not in ahead
        ]
        must = max((found.scheduled_at for found in ran), default=None)
        covered = [found.coalesced_until or found.scheduled_at for found in ran]
        begun = [moment for number, moment in life.begun.items() if number not in ahead]
        begun += covered
        one = None if held is None else held.standing.scheduled
        if held is not None and one is not None and one.number == held.held:
            begun.append(one.scheduled_at)
        may = max(begun, default=None)
        cancelled = frozenset(moment for moment in ahead.values() if moment > now)
        life.epochs.append(Epoch(schedule, now, number, self.seq, must, may, cancelled=cancelled))
        pause = life.paused_at(now)
        if pause is not None and pause.since > now:
            pause.end_seq = self.seq - 1
            life.pauses.append(evolve(pause, since=now, seq=self.seq, end_seq=None))

    def _is_ahead(self, found: Execution) -> bool:
        """Whether an occurrence of the schedule was cancelled before its moment had come."""
        key = (found.uid, found.number)
        was_there = found.attempt or key in self.starts or key in self.attempts
        is_cancelled = found.kind is Kind.SCHEDULED and found.status is Status.CANCELLED
        return is_cancelled and not was_there and found.scheduled_at > found.finished_at

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
