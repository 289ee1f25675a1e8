"""A history that is written by hand: one job, due every minute, and what is told to the judge."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from attrs import evolve

from sched_core import (
    Claim,
    Execution,
    Interval,
    Job,
    JobEvent,
    JobSpec,
    Kind,
    Pending,
    Standing,
    Status,
)
from sched_testkit._oracle.calls import Call, CallState
from sched_testkit._oracle.oracle import Oracle
from sched_testkit._stories.entry import next_of
from sched_testkit._suite.bench import START

MINUTE = timedelta(seconds=60)
HALF = MINUTE / 2
SPEC = JobSpec("a", Interval(seconds=60))
LEASE = timedelta(seconds=30)


def at(minutes: float) -> datetime:
    return START + minutes * MINUTE


class Hand:
    """Writes a history by hand: one job, due every minute, and its executions."""

    def __init__(self, spec: JobSpec = SPEC) -> None:
        self.oracle = Oracle(jitter=timedelta(0))
        self.executions: list[Execution] = []
        self.now = START
        standing = Standing(1, Pending(1, at(1), at(1)), at(1))
        self.job = Job(spec, "u", False, START, standing, 1)
        self.oracle.commands.added(self.job, spec, declared=False, now=START)

    def moved(self, **changes: Any) -> Job:
        """Return the job, stored anew with another standing."""
        standing = evolve(self.job.standing, **changes)
        self.job = evolve(self.job, standing=standing, revision=self.job.revision + 1)
        return self.job

    def goes_on(self, minutes: float, *, number: int | None = None) -> Job:
        """Return the job with another occurrence of its schedule as the next one."""
        number = self.job.standing.last_number + 1 if number is None else number
        one = Pending(number, at(minutes), at(minutes))
        return self.moved(last_number=number, scheduled=one, due_at=one.due_at)

    def claim(self, minutes: float, token: int) -> Claim:
        """Hand the job out."""
        self.now = at(minutes)
        claim = Claim(self.job, token, "w", self.now, self.now + LEASE)
        self.oracle.claims.claimed(claim, self.now)
        return claim

    def call(
        self,
        claim: Claim,
        minutes: float,
        *,
        attempt: int = 1,
        coalesced: int = 0,
        coalesced_until: datetime | None = None,
    ) -> Call:
        """Call the handler."""
        one = next_of(claim.job.standing)
        assert one is not None
        event = JobEvent(
            "a",
            claim.job.spec.schedule,
            one.scheduled_at,
            at(minutes),
            f"u:{one.number}",
            attempt=attempt,
            token=claim.token,
            kind=one.kind,
            coalesced=coalesced,
            coalesced_until=coalesced_until,
        )
        return self.oracle.attempts.called(event, at(minutes))

    def written(self, claim: Claim, minutes: float, **changes: Any) -> Execution:
        """Return an execution under a claim; final, and of a first attempt that succeeded."""
        one, attempt = next_of(claim.job.standing), changes.pop("attempt", 1)
        assert one is not None
        execution = Execution(
            f"u:{one.number}:{attempt}",
            "a",
            "u",
            one.number,
            attempt,
            one.kind,
            one.scheduled_at,
            changes.pop("status", Status.SUCCEEDED),
            True,
            claim.token,
            "w",
            claim.claimed_at,
            at(minutes) if attempt else None,
            at(minutes),
        )
        return evolve(execution, **changes)

    def settled(self, claim: Claim, execution: Execution) -> None:
        """End a claim with an execution; after a final one the job goes on."""
        self.oracle.unclaimed(claim)
        self.executions.append(execution)
        if execution.final and execution.kind is Kind.SCHEDULED:
            following = (execution.coalesced_until or execution.scheduled_at) + MINUTE
            self.goes_on((following - START) / MINUTE)

    def ran(self, minutes: float, token: int, **changes: Any) -> Execution:
        """An occurrence was claimed, ran well, and was settled."""
        claim, how = self.claim(minutes, token), CallState(changes.pop("how", "succeeded"))
        told = {
            name: changes[name]
            for name in ("attempt", "coalesced", "coalesced_until")
            if name in changes
        }
        call = self.call(claim, minutes, **told)
        self.oracle.attempts.ended(call, how, at(minutes))
        execution = self.written(claim, minutes, **changes)
        self.settled(claim, execution)
        return execution

    def ended(
        self,
        minutes: float,
        token: int,
        how: str,
        *,
        attempt: int = 1,
        wait: timedelta | None = None,
        settled: bool = True,
    ) -> Claim:
        """An occurrence was claimed, and its handler ended; nothing is told of what was written."""
        claim = self.claim(minutes, token)
        call = self.call(claim, minutes, attempt=attempt)
        self.oracle.attempts.ended(call, CallState(how), at(minutes), wait=wait)
        if settled:
            self.oracle.unclaimed(claim)
        return claim

    def snoozed(self, minutes: float, token: int, *, attempt: int = 1, **changes: Any) -> None:
        """An occurrence was claimed, and its handler asked for half a minute later."""
        self.ended(minutes, token, "snoozed", attempt=attempt, wait=HALF)
        one = next_of(self.job.standing)
        assert one is not None
        plain = {"snoozes": one.snoozes + 1, "began_at": at(minutes), "due_at": at(minutes) + HALF}
        self.waits(**(plain | changes))

    def waits(self, **changes: Any) -> None:
        """The occurrence of the schedule is stored with other fields."""
        one = self.job.standing.scheduled
        assert one is not None
        one = evolve(one, **changes)
        self.moved(scheduled=one, due_at=one.due_at)

    def passed_over(self, minutes: float, token: int, status: Status, **changes: Any) -> None:
        """An occurrence was claimed, and ended without an attempt."""
        claim = self.claim(minutes, token)
        self.settled(claim, self.written(claim, minutes, attempt=0, status=status, **changes))

    def lost(self, claim: Claim, minutes: float) -> Execution:
        """Return the execution of a claim that was lost."""
        return self.written(claim, minutes, status=Status.ABANDONED, final=False, started_at=None)

    def look(self, minutes: float = 100, **options: Any) -> None:
        """Have all of it judged, as it stands."""
        self.oracle.read(self.executions, [self.job], at(minutes), **options)
