"""Judges the order of an occurrence's executions, and how it may end."""

from __future__ import annotations

from datetime import timedelta

from attrs import Factory, define, evolve

from sched_core import Execution, Kind, Status
from sched_testkit._oracle.incarnations import Incarnation
from sched_testkit._oracle.known import Known
from sched_testkit._oracle.observed import Key, Observed
from sched_testkit._oracle.violation import Violation, at


@define
class History:
    """All executions, in the order in which they were written.

    Attributes:
        known: What was commanded.
        observed: What was seen of each occurrence.
        grace: The grace of ``Drop`` where all policies have the same one.
        executions: The executions, oldest first.
        places: The place of each execution among them, by its id.
    """

    known: Known
    observed: Observed
    grace: timedelta | None = None
    executions: list[Execution] = Factory(list)
    places: dict[str, int] = Factory(dict)

    def copy(self, known: Known, observed: Observed) -> History:
        """Return an independent copy that holds other knowledge."""
        return evolve(
            self,
            known=known,
            observed=observed,
            executions=list(self.executions),
            places=dict(self.places),
        )

    def stored(self, execution_id: str) -> Execution | None:
        """Return an execution."""
        place = self.places.get(execution_id)
        return None if place is None else self.executions[place]

    def append(self, found: Execution) -> None:
        """Judge an execution by those before it, and add it."""
        seq, observed = self.known.next_seq(), self.observed
        key, incarnation = (found.uid, found.number), self.known.incarnations[found.uid]
        what = f"{found.id} {found.status.value}"
        if found.id in self.places:
            raise Violation(f"{what} is written twice")
        if key in observed.finals:
            raise Violation(f"{what} after the final one")
        observed.name(key, found.kind, found.scheduled_at)
        if found.attempt:
            self._add_attempt(key, incarnation, found, what)
        self.places[found.id] = len(self.executions)
        self.executions.append(found)
        if found.final:
            observed.finals[key] = (seq, found)
            self._judge_end(incarnation, found, what)
        scheduled = found.kind is Kind.SCHEDULED
        if scheduled and (found.attempt or found.status is not Status.SUPERSEDED):
            incarnation.begun[found.number] = found.scheduled_at

    def _add_attempt(self, key: Key, incarnation: Incarnation, found: Execution, what: str) -> None:
        observed = self.observed
        before = observed.attempts.get(key, 0)
        if found.attempt != before + 1:
            raise Violation(f"{what} after {before} attempts")
        observed.attempts[key] = found.attempt
        cancelled = found.number in incarnation.cancels and incarnation.removed is None
        if cancelled and found.status in {Status.FAILED, Status.INTERRUPTED}:
            raise Violation(f"{what} had been cancelled")
        if found.status is Status.ABANDONED:
            observed.lost[key] = found.finished_at
        else:
            observed.lost.pop(key, None)

    def _judge_end(self, incarnation: Incarnation, found: Execution, what: str) -> None:
        """Judge how an occurrence has ended."""
        if found.status is Status.SKIPPED and not found.reason and found.coalesced:
            raise Violation(f"{what}: {found.coalesced} more than was asked for")
        # What an edit supersedes behind a held occurrence gets a number of the schedule after it.
        edited = len(incarnation.eras) > 1 and found.kind is Kind.SCHEDULED
        removed = incarnation.removed is not None
        if found.status is Status.SUPERSEDED and not (removed or edited):
            raise Violation(f"{what}, and nothing was edited")
        deadline = "next occurrence" in (found.reason or "")
        cancelled = found.status is Status.CANCELLED and not deadline
        if cancelled and found.number not in incarnation.cancels:
            raise Violation(f"{what}; asked for were {incarnation.cancels}")
        passed_over = {Status.MISSED, Status.SKIPPED, Status.FAILED}
        if found.status in passed_over and not removed and found.number in incarnation.cancels:
            raise Violation(f"{what} had been cancelled")
        if found.status is Status.MISSED:
            self._judge_missed(incarnation, found, what)
        lost = (found.reason or "").startswith("lost:")
        is_fatal = (incarnation.uid, found.number) in self.observed.fatal
        if lost and not is_fatal and not incarnation.edits:
            raise Violation(f"{what}: no claim of it was lost alone")

    def _judge_missed(self, incarnation: Incarnation, found: Execution, what: str) -> None:
        until = found.coalesced_until or found.scheduled_at
        if self.grace is not None and until > found.claimed_at - self.grace:
            raise Violation(f"{what} until {at(until)}, within the grace")
        for era in incarnation.eras:
            last = era.last
            if last is None or era.end is not None or not found.scheduled_at <= last <= until:
                continue
            pause = incarnation.pause_around(last, era)
            if pause is not None and last not in pause.begun:
                raise Violation(f"{what}: the last moment of all, inside a pause")
