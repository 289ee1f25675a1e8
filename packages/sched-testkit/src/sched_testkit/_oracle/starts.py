"""Judges what a handler is told when it is called."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from attrs import define, frozen

from sched_core import Job, Kind
from sched_testkit._oracle.incarnations import Incarnation
from sched_testkit._oracle.known import Known
from sched_testkit._oracle.observed import Key, Observed
from sched_testkit._oracle.violation import Violation, at

SHORTEST_WAIT = timedelta(seconds=0.5)
"""The least time between a lost claim and the next attempt."""


@frozen
class Start:
    """What a handler is told when it is called."""

    number: int
    scheduled_at: datetime
    kind: Kind
    attempt: int
    coalesced: int = 0
    coalesced_until: datetime | None = None
    deadline: datetime | None = None
    args: Any = None


@define
class Starts:
    """Judges the calls of handlers by what was commanded and observed before them."""

    known: Known
    observed: Observed

    def start(self, job: Job, start: Start, now: datetime, seen: Incarnation | None = None) -> None:
        """Judge a call of the handler.

        Args:
            job: The job as it was claimed.
            start: What the handler is told.
            now: The moment by the clock.
            seen: What was commanded when the claim was made; by default, what is known now.
        """
        seq = self.known.next_seq()
        key, incarnation = (job.uid, start.number), self.known.incarnations[job.uid]
        seen = incarnation if seen is None else seen
        self._expect_pending(key, start, now, seen)
        self.observed.name(key, start.kind, start.scheduled_at)
        is_first = key not in self.observed.starts and start.kind is Kind.SCHEDULED
        if is_first and not seen.eras[-1].fits(start.scheduled_at):
            raise Violation(f"{key} begins at {at(start.scheduled_at)}: the calendar lacks it")
        until = start.coalesced_until
        if until is not None and until > now and not self.known.set_back:
            raise Violation(f"{key} at {at(now)} covers moments until {at(until)}")
        self.observed.starts.setdefault(key, seq)
        self.observed.args[key] = start.args
        self._expect_same_content(key, start)
        self._expect_no_pause(key, start, now, seen, incarnation)

    def _expect_pending(self, key: Key, start: Start, now: datetime, seen: Incarnation) -> None:
        """Expect that the occurrence has not ended, and that this attempt is its next one."""
        observed, set_back = self.observed, self.known.set_back
        if key in observed.finals:
            raise Violation(f"{key} attempt {start.attempt} starts after its final execution")
        if key in observed.fatal:
            raise Violation(f"{key} starts after the lost claim that was to be its last")
        if start.number in seen.cancels:
            raise Violation(f"{key} starts though it was cancelled")
        waits_until = observed.lost[key] + SHORTEST_WAIT if key in observed.lost else now
        if now < waits_until and not set_back:
            raise Violation(f"{key} starts at once after a lost claim")
        attempts = observed.attempts.get(key, 0)
        if start.attempt != attempts + 1:
            raise Violation(f"{key} starts attempt {start.attempt} after {attempts}")
        if start.deadline is not None and start.deadline <= now and not set_back:
            raise Violation(f"{key} starts at {at(now)} after its deadline {at(start.deadline)}")

    def _expect_same_content(self, key: Key, start: Start) -> None:
        """Expect that all attempts of an occurrence cover the same moments."""
        content = (start.coalesced, start.coalesced_until)
        before = self.observed.contents.setdefault(key, content)
        if before != content:
            raise Violation(f"{key} covered {before}, now {content}")

    def _expect_no_pause(
        self,
        key: Key,
        start: Start,
        now: datetime,
        seen: Incarnation,
        incarnation: Incarnation,
    ) -> None:
        """Expect that no pause holds the occurrence, and that its moment has come."""
        pause = seen.paused_at(now)
        if start.kind is Kind.SCHEDULED:
            incarnation.begun[start.number] = start.scheduled_at
            if pause is not None:
                raise Violation(f"{key} begins inside a pause")
            if start.scheduled_at > now and not self.known.set_back:
                raise Violation(f"{key} begins early")
        elif pause is not None and _asked_at(seen, start.number) < pause.asked_seq:
            raise Violation(f"{key} was asked for before the pause, and begins inside it")

    def hand_back(self, uid: str, start: Start) -> None:
        """Forget a start: the worker has handed its claim back without calling the handler."""
        key = (uid, start.number)
        if key not in self.observed.attempts:
            self.observed.contents.pop(key, None)
            self.observed.starts.pop(key, None)
            self.known.incarnations[uid].begun.pop(start.number, None)


def _asked_at(incarnation: Incarnation, number: int) -> int:
    """Return when a request was made: of a backfill the last one before its number."""
    return max(
        (asked.seq for asked in incarnation.requests if asked.number == number),
        default=max(
            (asked.seq for asked in incarnation.requests if asked.kind is Kind.BACKFILLED),
            default=0,
        ),
    )
