"""Executions: the records of the history."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from datetime import datetime

from attrs import field, frozen

from sched_core._support.logger import type_name
from sched_core._support.texts import storable
from sched_core._support.values import quick

DEFAULT_QUEUE = "default"
"""The queue of every job that names none."""
OVERLAPPED = "the next occurrence's moment has come"
"""The reason of a run that its policy for overlaps has cancelled."""
LONGEST_REASON = 2048
"""Bytes of UTF-8 in the reason of an execution."""


class Kind(enum.Enum):
    """Why an occurrence is there."""

    SCHEDULED = "scheduled"
    TRIGGERED = "triggered"
    RERUN = "rerun"
    """A request to run an ended occurrence again, for its moment and with its arguments."""
    BACKFILLED = "backfilled"
    """A moment of the schedule that was asked for; the moments of a range one after the other."""


class Status(enum.Enum):
    """How an attempt or an occurrence finished."""

    SUCCEEDED = "succeeded"
    FAILED = "failed"
    """Final unless a retry follows."""
    MISSED = "missed"
    """Passed over by the misfire policy."""
    SKIPPED = "skipped"
    """Passed over by ``skip_next``, or because another occurrence was under way."""
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
class Progress:
    """How far a handler has come, as it told by ``event.progress``.

    Attributes:
        done: How much is done, in a unit of the handler's own.
        of: How much there is to do; ``None`` where the handler does not know.
        text: What it does now, in words for people.
        at: When it said so, by the clock that decides, in UTC.
    """

    done: float
    of: float | None = None
    text: str | None = None
    at: datetime | None = None


@quick
@frozen(weakref_slot=False)
class Execution:
    """One attempt, or the status of an occurrence or of a range of them that never ran.

    Attributes:
        id: ``uid:number:attempt``; what makes a repeated settlement harmless.
        job_id: The job's id.
        uid: The uid of the job's incarnation.
        number: The occurrence's number; with the uid it names the occurrence.
        attempt: The attempt's number, counted from 1; 0 where nothing ran.
        kind: Why the occurrence was there.
        scheduled_at: The occurrence's nominal moment.
        status: How it ended.
        final: Whether the occurrence ended with it; an occurrence has at most one such execution.
        token: The claim's fencing token.
        worker: The worker that wrote it, or whose claim was lost.
        claimed_at: When the claim was made.
        started_at: When the handler was called, ``None`` if it was not.
        finished_at: When it ended.
        reason: Why, in words for people.
        coalesced: How many further moments after ``scheduled_at`` it covers.
        coalesced_until: The last of them.
        snoozes: How often the occurrence's handler had asked for later.
        expires_at: The moment from which on the backend may delete it.
        queue: The job's queue at the time.
        traceback: Where a failure was raised: at most 16 KiB of UTF-8.
        log: What the handler wrote by ``event.log``: at most 16 KiB of UTF-8.
        progress: The newest that the handler told by ``event.progress``.
        metadata: The job's metadata as the run got it; ``None`` where there was none, or no run.
        actor: Who asked for the occurrence, or who cancelled, skipped, paused or removed it where
            this is what came of it.
        args: The arguments of the request that the occurrence came from.
    """

    id: str
    job_id: str
    uid: str
    number: int
    attempt: int
    kind: Kind
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
    queue: str = DEFAULT_QUEUE
    traceback: str | None = None
    log: str | None = None
    progress: Progress | None = None
    metadata: Mapping[str, str] | None = field(default=None, hash=False)
    actor: str | None = None
    args: Mapping[str, str] | None = field(default=None, hash=False)

    @property
    def manual(self) -> bool:
        """Whether the occurrence was asked for, and was not the schedule's."""
        return self.kind is not Kind.SCHEDULED


def occurrence_key(uid: str, number: int) -> str:
    """Return the occurrence's name, which its handlers use as idempotency key."""
    return f"{uid}:{number}"


def describe(error: BaseException) -> str:
    """Return ``"Type: text"`` for the history, bounded and free of what no store can keep."""
    name = type_name(error)
    try:
        return bounded(f"{name}: {text}" if (text := str(error)) else name)
    except KeyboardInterrupt:
        raise
    except BaseException:  # noqa: BLE001 -- a handler's exception may fail at anything, this included
        return bounded(f"{name}: (its text could not be read)")


def bounded(reason: str) -> str:
    """Cut a reason to 2 KiB of UTF-8 and replace NULs and lone surrogates."""
    encoded = storable(reason).encode()
    if len(encoded) <= LONGEST_REASON:
        return encoded.decode()
    return encoded[: LONGEST_REASON - 3].decode(errors="ignore") + "…"
