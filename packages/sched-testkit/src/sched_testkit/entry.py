"""What the model keeps under one id, and what it derives from that alone."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from attrs import define

from sched_core.job import Claim, Execution, Job, LostClaim, Settlement, Status

Fence = tuple[int, str]
"""Token and worker of a claim."""


@define
class Entry:
    """What is stored under one id.

    Attributes:
        job: What comes next; ``None`` where it was removed during a run.
        hold: The claim that has not ended.
        settled: The newest settlement that was written here.
        lost: What a released claim had taken over, and of which occurrence.
    """

    job: Job | None = None
    hold: Claim | None = None
    settled: Settlement | None = None
    lost: tuple[LostClaim, str, int] | None = None

    def is_at(self, uid: str, number: int) -> bool:
        """Whether the job stands at that occurrence."""
        return self.job is not None and (self.job.uid, self.job.standing.number) == (uid, number)


def has_expired(kept: Any, now: datetime) -> bool:
    """Whether ``expires_at`` has come."""
    return kept.expires_at is not None and kept.expires_at <= now


def owed_line(hold: Claim, now: datetime, status: Status, attempt: int) -> Execution:
    """Return the line that the end of a claim owes its occurrence."""
    job, standing = hold.job, hold.job.standing
    manual = standing.triggered_at is not None and (standing.manual or standing.next_run is None)
    keep = job.spec.policy.keep_executions
    return Execution(
        id=f"{job.uid}:{standing.number}:{attempt}",
        job_id=job.id,
        uid=job.uid,
        number=standing.number,
        scheduled_at=(standing.triggered_at if manual else standing.next_run) or hold.claimed_at,
        manual=manual,
        attempt=attempt,
        status=status,
        final=status is Status.SUPERSEDED,
        token=hold.token,
        worker=hold.worker,
        claimed_at=hold.claimed_at,
        started_at=None,
        finished_at=now,
        expires_at=None if keep is None else now + keep,
    )


def fence_of(claim: Claim) -> Fence:
    """Return token and worker."""
    return claim.token, claim.worker
