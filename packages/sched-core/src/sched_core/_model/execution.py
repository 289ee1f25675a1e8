"""One record of the history."""

from __future__ import annotations

import enum
from datetime import datetime

from attrs import frozen


class Status(enum.Enum):
    """How an attempt or an occurrence finished."""

    SUCCEEDED = "succeeded"
    FAILED = "failed"
    """Final unless a retry follows."""
    MISSED = "missed"
    """Passed over by the misfire policy."""
    SKIPPED = "skipped"
    """By ``skip_next``, or because another occurrence was under way."""
    CANCELLED = "cancelled"
    SUPERSEDED = "superseded"
    """Due or begun, and then edited or removed away."""
    SNOOZED = "snoozed"
    """How a run ended; no execution has it: the occurrence counts it."""
    INTERRUPTED = "interrupted"
    """The worker stopped, or the store failed, before the handler had ended; never final."""
    ABANDONED = "abandoned"
    """The claim was lost; never final."""


@frozen
class Execution:
    """One attempt, or the status of an occurrence or of a range of them that never ran.

    Attributes:
        id: ``uid:number:attempt``; what makes a repeated settlement harmless.
        job_id: Of the job.
        uid: Of the incarnation.
        number: With the uid: the occurrence.
        attempt: From 1; 0 where nothing ran.
        kind: Why the occurrence was there; the value of a ``Kind``.
        scheduled_at: The occurrence's nominal moment.
        status: How it ended.
        final: Whether the occurrence ended with it; at most one for each is final.
        token: Of the claim.
        worker: Who wrote it, or who was lost.
        claimed_at: When the claim was made.
        started_at: When the handler was called, ``None`` if it was not.
        finished_at: When it ended.
        reason: For people.
        coalesced: Further moments after ``scheduled_at`` that it stands for.
        coalesced_until: The last of them.
        snoozes: Of the occurrence.
        expires_at: From when on the backend may delete it.
    """

    id: str
    job_id: str
    uid: str
    number: int
    attempt: int
    kind: str
    scheduled_at: datetime
    status: Status
    final: bool
    token: int
    worker: str
    claimed_at: datetime
    started_at: datetime | None
    finished_at: datetime
    reason: str | None = None
    coalesced: int = 0
    coalesced_until: datetime | None = None
    snoozes: int = 0
    expires_at: datetime | None = None
