"""The stored id of a world: a real row, and what a world asks of it besides."""

from __future__ import annotations

from datetime import datetime, timedelta

from sched_core import Claim, Job, RevisionConflict
from sched_core.row import History, Row, same_as_read


class Stored(Row):
    """A row whose lapsed claims are ended by the next claim, as backends do."""

    def claim_due(
        self, token: int, worker: str, now: datetime, lease: timedelta, revision: int, to: History
    ) -> Claim | None:
        """End the claim whose lease has ended, and claim what is due."""
        self.lapse(now, revision, to)
        return self.claim(token, worker, now, lease)

    @property
    def found(self) -> Job | None:
        """The job, as it lies there."""
        return self.job if isinstance(self.job, Job) else None

    def check(self, job: Job) -> None:
        """Refuse an edit of what is not stored any more, or was claimed or freed since."""
        stored = self.read()
        if not isinstance(stored, Job) or not same_as_read(job, stored):
            raise RevisionConflict(job.id)
