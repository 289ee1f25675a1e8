"""Judges the stored history: no execution vanishes, changes or contradicts what is known."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from attrs import Factory, define

from sched_core import Execution, Kind, Status
from sched_testkit._oracle.attempts import Attempts
from sched_testkit._oracle.claims import Claims
from sched_testkit._oracle.history import History
from sched_testkit._oracle.incarnations import Incarnation
from sched_testkit._oracle.known import Known
from sched_testkit._oracle.lateness import expect_excused, is_plain
from sched_testkit._oracle.violation import Violation, at

NEVER_FINAL = {Status.INTERRUPTED, Status.ABANDONED}
NEVER_RAN = {Status.MISSED, Status.SKIPPED, Status.SUPERSEDED}
MAY_RUN = {Status.FAILED, Status.CANCELLED}
"""An attempt may end like this, and so may an occurrence that had no further attempt."""


@define
class Executions:
    """Reads the history of a store.

    Attributes:
        known: What was commanded.
        claims: The claims that executions name.
        attempts: The calls that executions are about.
        history: What was read before.
        pruned: Ids of executions that were there, and have gone as they may.
    """

    known: Known
    claims: Claims
    attempts: Attempts
    history: History
    pruned: set[str] = Factory(set)

    def read(
        self, history: Sequence[Execution], now: datetime, pruned: datetime | None = None
    ) -> None:
        """Judge the whole history, oldest first.

        Args:
            history: The history as it is stored.
            now: The moment by the clock.
            pruned: The moment before which executions were just pruned.
        """
        found = {each.id: each for each in history}
        if len(found) != len(history):
            raise Violation("an execution is there twice")
        for known in self.history.executions:
            if known.id in found:
                if found[known.id] != known:
                    raise Violation(f"{known.id} was rewritten")
            elif known.id not in self.pruned:
                expired = known.expires_at is not None and known.expires_at <= now
                if not expired and (pruned is None or known.finished_at >= pruned):
                    raise Violation(f"{known.id} has vanished")
                self.pruned.add(known.id)
        if pruned is not None and any(each.finished_at < pruned for each in history):
            raise Violation("prune left executions that are older")
        for each in history:
            if each.id not in self.history.places:
                self.add(each)

    def add(self, found: Execution) -> None:
        """Judge an execution that was not there before."""
        incarnation = self.known.incarnations.get(found.uid)
        if incarnation is None:
            raise Violation(f"{found.id} belongs to no job that ever was")
        if found.id != f"{found.uid}:{found.number}:{found.attempt}":
            raise Violation(f"{found.id} is of {found.uid}:{found.number}:{found.attempt}")
        self._judge_form(incarnation, found)
        if found.status is Status.ABANDONED:
            self._judge_abandoned(found)
            call = self.attempts.find(found)
            if call is not None and call.event.token == found.token:
                call.execution = found
        elif found.attempt:
            self.attempts.judge_attempt(found)
        else:
            self.attempts.judge_without_attempt(found)
        missed = found.status is Status.MISSED and is_plain(incarnation)
        if missed and not self.known.set_back:
            began_at = self.claims.began.get((found.uid, found.number))
            expect_excused(incarnation, found, began_at)
        self.history.append(found)

    def _judge_form(self, incarnation: Incarnation, found: Execution) -> None:
        """Refuse an execution that contradicts itself, its job or the attempt before it."""
        what = f"{found.id} {found.status.value}"
        if incarnation.spec is not None and found.job_id != incarnation.spec.id:
            raise Violation(f"{what} is of the job {found.job_id!r}, not {incarnation.spec.id!r}")
        if found.final == (found.status in NEVER_FINAL) and found.status is not Status.FAILED:
            raise Violation(f"{what}, and final is {found.final}")
        if (found.attempt == 0) != (found.status in NEVER_RAN) and found.status not in MAY_RUN:
            raise Violation(f"{what} has the attempt {found.attempt}")
        if (found.coalesced > 0) != (found.coalesced_until is not None):
            raise Violation(f"{what} covers {found.coalesced} until {at(found.coalesced_until)}")
        before = self.history.stored(f"{found.uid}:{found.number}:{found.attempt - 1}")
        if found.attempt > 1 and before is not None and before.token >= found.token:
            raise Violation(f"{what} has the token {found.token}, after {before.token}")
        early = found.finished_at < found.scheduled_at and found.kind is Kind.SCHEDULED
        passed_over = found.status in {Status.MISSED, Status.SKIPPED}
        if early and passed_over and not self.known.set_back:
            raise Violation(f"{what} at {at(found.finished_at)}, before it was due")

    def _judge_abandoned(self, found: Execution) -> None:
        what, hold = f"{found.id} abandoned", self.claims.holds.get((found.job_id, found.token))
        if hold is None or hold.claim.job.uid != found.uid:
            raise Violation(f"{what} has the token {found.token}, which no claim of the job had")
        if not hold.has_lapsed(found.finished_at):
            raise Violation(f"{what} at {at(found.finished_at)}, before its lease ended")
        if hold.pending is not None and hold.pending.snoozes != found.snoozes:
            raise Violation(f"{what} counts {found.snoozes} snoozes, not {hold.pending.snoozes}")
