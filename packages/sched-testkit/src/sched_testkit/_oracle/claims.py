"""Judges claims: tokens grow, one worker holds a job, and only a lease that ended is lost."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime

from attrs import Factory, define, evolve

from sched_core import Claim, Execution, Pending, Renewal, Status
from sched_core import Hold as Stored
from sched_testkit._oracle.incarnations import Incarnation
from sched_testkit._oracle.known import Known
from sched_testkit._oracle.observed import Key, Observed
from sched_testkit._oracle.violation import Violation, at
from sched_testkit._stories.entry import count_of_lost, kept_by, next_of


@define
class Hold:
    """A claim that a backend handed out.

    Attributes:
        claim: The claim as the worker got it.
        stored: The hold as the store should have it.
        seen: What was commanded when the claim was made.
        open: Whether it was neither settled, nor released, nor lost.
        crashed: Whether its worker is gone.
    """

    claim: Claim
    stored: Stored
    seen: Incarnation
    open: bool = True
    crashed: bool = False

    @property
    def pending(self) -> Pending | None:
        """The occurrence that it is for; ``None`` where it only ends a pause."""
        return self.stored.pending

    def has_lapsed(self, now: datetime) -> bool:
        """Return whether another worker may end it: its lease has ended, or its worker is gone."""
        return self.crashed or self.stored.expires_at <= now

    def lapse_unseen(self, now: datetime) -> bool:
        """End a claim that only ends a pause, once its lease has ended; return whether it did.

        No execution says that such a claim was lost.
        """
        if self.pending is not None or not self.has_lapsed(now):
            return False
        self.open = False
        return True


@define
class Claims:
    """All claims of a history.

    Attributes:
        known: What was commanded.
        observed: What was seen of each occurrence.
        holds: The claims by job id and token; two jobs may have the same token.
        tokens: The newest token of each job id.
        began: When the first claim of an occurrence was made that was not handed back.
    """

    known: Known
    observed: Observed
    holds: dict[tuple[str, int], Hold] = Factory(dict)
    tokens: dict[str, int] = Factory(dict)
    began: dict[Key, datetime] = Factory(dict)

    def find(self, claim: Claim) -> Hold | None:
        """Return what is known of a claim."""
        return self.holds.get((claim.job.id, claim.token))

    def open_of(self, job_id: str) -> Iterator[Hold]:
        """Yield the claims of a job that have not ended."""
        return (hold for (of, _), hold in self.holds.items() if of == job_id and hold.open)

    def claimed(self, claim: Claim, now: datetime) -> None:
        """Judge a claim that a backend handed out."""
        self.known.next_seq()
        job, job_id = claim.job, claim.job.id
        if claim.token <= self.tokens.get(job_id, 0):
            raise Violation(
                f"the claim of {job_id!r} has the token {claim.token}, which is not higher"
            )
        self.tokens[job_id] = claim.token
        incarnation = self.known.incarnations.get(job.uid)
        if incarnation is None or incarnation.removed is not None:
            raise Violation(f"job {job_id!r} ({job.uid}) was handed out though it is gone")
        for hold in [*self.open_of(job_id)]:
            if not hold.lapse_unseen(now):
                raise Violation(f"job {job_id!r} was handed out, and {hold.claim.worker} has it")
        due = job.standing.due_at
        if due is None or due > now:
            raise Violation(f"job {job_id!r} was handed out at {at(now)}, and is due {at(due)}")
        stored = Stored(
            job_id=job_id,
            uid=job.uid,
            token=claim.token,
            worker=claim.worker,
            claimed_at=claim.claimed_at,
            renewed_at=claim.claimed_at,
            expires_at=claim.expires_at,
            pending=next_of(job.standing),
            keep=kept_by(job),
        )
        self.holds[job_id, claim.token] = Hold(claim, stored, incarnation.copy())

    def lapsed(self, executions: Sequence[Execution], now: datetime) -> None:
        """Judge the executions that a backend wrote for claims whose lease had ended."""
        self.known.next_seq()
        for each in executions:
            hold = self.holds.get((each.job_id, each.token))
            if hold is None or each.status is not Status.ABANDONED:
                continue
            if not hold.open:
                raise Violation(f"{each.id} tells of a claim that has ended already")
            if not hold.has_lapsed(now):
                raise Violation(f"{each.id} was lost before its lease ended")
            hold.open = False
            key = (each.uid, each.number)
            self.observed.lost[key] = now
            self.observed.asked.pop(key, None)
            self.began.setdefault(key, hold.stored.claimed_at)
            self._count_loss(hold, key)

    def _count_loss(self, hold: Hold, key: Key) -> None:
        """Note whether a lost claim was the last that may be lost."""
        incarnation, one = self.known.incarnations[key[0]], hold.pending
        if one is None or incarnation.spec is None or incarnation.removed is not None:
            return
        most = incarnation.spec.policy.max_lost
        if count_of_lost(one, most, hold.stored) >= most:
            self.observed.fatal.add(key)

    def renewed(self, renewals: Sequence[Renewal], claims: Sequence[Claim], now: datetime) -> None:
        """Note that a backend has prolonged these claims."""
        self.known.next_seq()
        alone = {(each.claim.job.id, each.claim.token): each.alone for each in renewals}
        for claim in claims:
            hold = self.holds[claim.job.id, claim.token]
            is_alone = alone[claim.job.id, claim.token]
            hold.stored = evolve(
                hold.stored,
                renewed_at=now,
                expires_at=max(hold.stored.expires_at, claim.expires_at),
                alone_at=(hold.stored.alone_at or now) if is_alone else None,
            )

    def expect_noticed(self, moment: datetime, job_ids: set[str]) -> None:
        """Expect that a worker has ended each claim of these jobs whose lease had ended."""
        for (job_id, _), hold in self.holds.items():
            ended = hold.open and hold.stored.expires_at <= moment
            if ended and hold.pending is not None and job_id in job_ids:
                raise Violation(f"the lease of {job_id!r} has ended, and no worker has noted it")
