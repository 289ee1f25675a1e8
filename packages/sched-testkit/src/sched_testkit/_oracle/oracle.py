"""The whole oracle: it watches a store, and says what cannot be true of what it has seen."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from sched_core import Claim, Execution, Job
from sched_testkit._oracle.attempts import Attempts
from sched_testkit._oracle.claims import Claims
from sched_testkit._oracle.commands import Commands
from sched_testkit._oracle.executions import Executions
from sched_testkit._oracle.judge import new_judge
from sched_testkit._oracle.stored import StoredJobs


class Oracle:
    """Judges the whole history of one store, from its beginning.

    A test gives it every command, claim and call of the handler in the order in which they happen,
    and shows it everything that is stored. It raises
    :class:`~sched_testkit._oracle.violation.Violation` at the first thing that cannot be right.

    Args:
        jitter: The longest jitter that any policy of the history has.

    Attributes:
        known: What was commanded.
        commands: The judge of what commands return.
        claims: The judge of claims.
        attempts: The judge of the handler's calls.
        executions: The judge of the stored history.
        stored: The judge of the stored jobs.
        accounting: The judge of what must be true at the end.
    """

    def __init__(self, *, jitter: timedelta = timedelta(minutes=5)) -> None:
        judge = new_judge(jitter=jitter)
        self.known, self.accounting = judge.known, judge.accounting
        observed = judge.observed
        self.claims = Claims(self.known, observed)
        self.attempts = Attempts(self.known, self.claims, judge.starts)
        self.executions = Executions(self.known, self.claims, self.attempts, judge.history)
        self.stored = StoredJobs(self.known, observed, self.claims)
        self.commands = Commands(self.known, observed, self.stored)

    def unclaimed(self, claim: Claim, *, written: bool = True) -> None:
        """Note that a claim was settled or released, or, if not ``written``, was lost."""
        self.known.next_seq()
        hold = self.claims.find(claim)
        if hold is not None:
            hold.open &= not written
        self.attempts.settled(claim, written=written)

    def crashed(self, worker: str) -> None:
        """Note that a worker is gone: its claims are left to their lease."""
        self.known.next_seq()
        for hold in self.claims.holds.values():
            if hold.claim.worker == worker:
                hold.crashed = True
        self.attempts.crashed(worker)

    def read(
        self,
        history: Sequence[Execution],
        jobs: Sequence[Job],
        now: datetime,
        pruned: datetime | None = None,
    ) -> None:
        """Judge everything that is stored.

        Args:
            history: The whole history, oldest first.
            jobs: All stored jobs.
            now: The moment by the clock.
            pruned: The moment before which executions were just pruned.
        """
        self.executions.read(history, now, pruned)
        self.stored.read({job.id: job for job in jobs}, now)
        self.attempts.expect_executions()

    def expect_nothing_left(self, moment: datetime) -> None:
        """Expect that a healthy worker has run everything that was due at the moment."""
        self.stored.expect_claimed(moment)
        self.claims.expect_noticed(moment, {*self.stored.jobs})
