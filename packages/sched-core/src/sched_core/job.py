"""The values of the domain: what a user declares, what is stored, what a run leaves behind.

All of them are immutable. Moments are timezone-aware and in UTC; durations are ``timedelta``.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any, Literal, NoReturn, Protocol

from attrs import field, frozen

from sched_core.errors import BackendError, InvalidDefinition, shown
from sched_core.logger import type_name
from sched_core.policy import Policy
from sched_core.schedule import Schedule
from sched_core.values import quick

LONGEST_TEXT = 255
"""Characters in an id, a name or a group."""
RESERVED = "sched:"
"""Ids that begin with it are this package's own records: never due, never listed."""
LARGEST_METADATA = 64 * 1024
"""Bytes of UTF-8 in all keys and values together."""
LONGEST_REASON = 2048
"""Bytes of UTF-8 in the reason of a ledger line."""

_UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff\u2028\u2029]")
_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")


class Metadata(dict[str, str]):
    """A dictionary that refuses to be changed; it can be copied, pickled and written as JSON."""

    def _refuse(self, *_: object, **__: object) -> NoReturn:
        raise TypeError("metadata is read-only: use update_job, or change a copy, dict(metadata)")

    __setitem__ = __delitem__ = __ior__ = _refuse
    clear = pop = popitem = setdefault = update = _refuse

    def __reduce__(self) -> tuple[type[Metadata], tuple[dict[str, str]]]:
        return type(self), (dict(self),)


_NOTHING: Mapping[str, str] = Metadata()


# -- what the user declares --------------------------------------------------


_DEFAULT_POLICY = Policy()


def check_text(name: str, value: object) -> None:
    """Refuse what cannot be an id, a name or a group.

    Raises:
        InvalidDefinition: Not a string, empty, over 255 characters, or with a control character.
    """
    if not isinstance(value, str):
        raise InvalidDefinition(name, f"must be a string, not {shown(value)}")
    if not value:
        raise InvalidDefinition(name, "must not be empty")
    if len(value) > LONGEST_TEXT:
        raise InvalidDefinition(
            name, f"must have at most {LONGEST_TEXT} characters, not {len(value)}"
        )
    if not (value.isascii() and value.isprintable()) and (found := _UNPRINTABLE.search(value)):
        raise InvalidDefinition(
            name, f"must not contain the control character {found.group()!r}; remove it"
        )


def _copied(metadata: object) -> Mapping[str, str]:
    if not metadata:
        metadata = {} if metadata is None else metadata
    if not isinstance(metadata, Mapping):
        raise InvalidDefinition("metadata", f"must map strings to strings, not {shown(metadata)}")
    if not metadata:
        return _NOTHING
    size = 0
    for key, value in metadata.items():
        if not isinstance(key, str) or not isinstance(value, str):
            raise InvalidDefinition(
                "metadata",
                f"must map strings to strings, not {shown(key)} to {shown(value)}: use str(...)",
            )
        try:
            size += len(key.encode()) + len(value.encode())
        except UnicodeEncodeError as error:
            raise InvalidDefinition(
                "metadata", f"the entry {shown(key)} is no valid Unicode text: {error.reason}"
            ) from None
    if size > LARGEST_METADATA:
        raise InvalidDefinition(
            "metadata",
            f"must be at most {LARGEST_METADATA} bytes in all, not {size}: "
            "store the data elsewhere and keep a reference here",
        )
    return Metadata(metadata)


@frozen
class JobSpec:
    """What a user declares.

    Args:
        id: 1 to 255 characters, none of them a control character.
        schedule: When the job occurs.
        name: For people; 255 characters at most.
        metadata: Handed to the handler; at most 64 KiB. Kept as a read-only copy.
        policy: How occurrences are treated.
        group: Of ``sync_jobs``.

    Raises:
        InvalidDefinition: A field is out of bounds; the message names it and the remedy.
    """

    id: str
    schedule: Schedule
    name: str | None = None
    metadata: Mapping[str, str] = field(factory=dict, converter=_copied, hash=False)
    policy: Policy = _DEFAULT_POLICY
    group: str | None = None

    def __attrs_post_init__(self) -> None:
        check_text("id", self.id)
        if isinstance(self.schedule, type) or not (
            hasattr(self.schedule, "first") and hasattr(self.schedule, "next_after")
        ):
            raise InvalidDefinition(
                "schedule",
                f"must be a schedule such as Cron('0 3 * * *') or Interval(hours=1), "
                f"not {shown(self.schedule)}",
            )
        if self.name is not None:
            check_text("name", self.name)
        if not isinstance(self.policy, Policy):
            raise InvalidDefinition("policy", f"must be a Policy, not {shown(self.policy)}")
        if self.group is not None:
            check_text("group", self.group)


# -- what is stored ----------------------------------------------------------


class State(enum.Enum):
    """Whether a job will be handed out."""

    ACTIVE = "active"
    PAUSED = "paused"
    FINISHED = "finished"


class Status(enum.Enum):
    """The fate of an attempt or of an occurrence."""

    SUCCEEDED = "succeeded"
    FAILED = "failed"
    MISSED = "missed"
    """Passed over by the misfire policy, or by a pause that began when it was due."""
    SKIPPED = "skipped"
    """Passed over because of ``skip_next``."""
    SUPERSEDED = "superseded"
    """Due or begun, and then edited or removed away."""
    INTERRUPTED = "interrupted"
    """The worker stopped, or the store failed, before the handler had ended; never final."""
    ABANDONED = "abandoned"
    """The claim was lost; never final; written by the claim that takes over."""


@frozen
class Backlog:
    """What a pause left behind an occurrence that was due before it and outlived it.

    Attributes:
        until: When the pause ended. Later occurrences are due; earlier ones are not, or are folded.
        folded: Occurrences that were due before the pause: they fold into the pending one.
        folded_from: The first of them, until it is pending itself.
        folded_until: The last of them.
    """

    until: datetime
    folded: int = 0
    folded_from: datetime | None = None
    folded_until: datetime | None = None


@quick
@frozen(weakref_slot=False)
class Standing:
    """The only part that runs change. Only ``lifecycle`` makes a new one.

    Attributes:
        state: Whether the job is handed out.
        number: Of the pending occurrence, or of the next one where none is pending. Only grows.
        next_run: The scheduled occurrence that is pending or running; ``None`` for never again.
        due_at: When a backend hands the job out; ``None`` for never.
        triggered_at: A manual occurrence that is pending or running.
        attempts: Attempts of the pending occurrence so far, lost and interrupted ones included.
        failures: Those of them that failed.
        skipped_run: The occurrence that ``skip_next`` marked.
        paused_until: When the pause ends by itself.
        pause_reason: Why the job is paused.
        last_scheduled_at: The newest occurrence that has its final line.
        last_finished_at: When the newest run ended.
        last_status: How the newest occurrence ended.
        expires_at: From when on the backend may delete the record; never before.
        manual: Whether the pending occurrence is the manual one, where both kinds are pending.
        paused_at: When the pause began.
        backlog: What a pause left behind the scheduled occurrence.
    """

    state: State
    number: int
    next_run: datetime | None
    due_at: datetime | None
    triggered_at: datetime | None = None
    attempts: int = 0
    failures: int = 0
    skipped_run: datetime | None = None
    paused_until: datetime | None = None
    pause_reason: str | None = None
    last_scheduled_at: datetime | None = None
    last_finished_at: datetime | None = None
    last_status: Status | None = None
    expires_at: datetime | None = None
    manual: bool = False
    paused_at: datetime | None = None
    backlog: Backlog | None = None


@frozen
class Job:
    """A stored job.

    Attributes:
        spec: What the user declared.
        uid: One incarnation: another one after remove and re-add.
        declared: By ``ensure_job`` (True) or submitted (False).
        anchor: When the schedule took effect.
        standing: What runs change.
        revision: Given by the backend on every write; never reused for this id.
    """

    spec: JobSpec
    uid: str
    declared: bool
    anchor: datetime
    standing: Standing
    revision: int = 0

    @property
    def id(self) -> str:
        """The id that the user gave."""
        return self.spec.id


# -- a run -------------------------------------------------------------------


@frozen
class LostClaim:
    """Claims of the pending occurrence that were lost since the last settle.

    A release in between does not reset them: their attempts have had their lines.

    Attributes:
        count: How many, in a row.
        worker: Who held the newest of them.
        claimed_at: When that one was made.
    """

    count: int
    worker: str | None
    claimed_at: datetime | None


@frozen
class Claim:
    """A worker's temporary, exclusive hold on a job.

    Attributes:
        job: As stored when claimed; a claim does not change its revision.
        token: Grows with every claim of this id. Token and worker together are the fence.
        worker: Who holds it.
        claimed_at: By the clock that decides.
        expires_at: When others may take it over, unless it is renewed.
        lost: What was taken over.
    """

    job: Job
    token: int
    worker: str
    claimed_at: datetime
    expires_at: datetime
    lost: LostClaim | None = None

    @property
    def attempt(self) -> int:
        """The number of this attempt at the pending occurrence, from 1."""
        lost = 0 if self.lost is None else self.lost.count
        return self.job.standing.attempts + lost + 1


@quick
@frozen(weakref_slot=False)
class Execution:
    """One line of the ledger: an attempt, or the fate of an occurrence that never ran.

    Attributes:
        id: ``uid:number:attempt``; what makes a repeated settlement harmless.
        job_id: Of the job.
        uid: Of the incarnation.
        number: With the uid: the occurrence.
        scheduled_at: The occurrence's nominal moment.
        manual: Made by ``trigger_job``.
        attempt: From 1; 0 where nothing ran.
        status: How it ended.
        final: Whether the occurrence ended with it; at most one final line for each.
        token: Of the claim.
        worker: Who wrote it, or who was lost.
        claimed_at: When the claim was made.
        started_at: When the handler was called, ``None`` if it was not.
        finished_at: When it ended.
        reason: ``"Type: text"``, at most 2 KiB.
        folded: Further occurrences after ``scheduled_at`` that this line stands for.
        folded_until: The last of them.
        expires_at: From when on the backend may delete the line.
    """

    id: str
    job_id: str
    uid: str
    number: int
    scheduled_at: datetime
    manual: bool
    attempt: int
    status: Status
    final: bool
    token: int
    worker: str
    claimed_at: datetime
    started_at: datetime | None
    finished_at: datetime
    reason: str | None = None
    folded: int = 0
    folded_until: datetime | None = None
    expires_at: datetime | None = None


@frozen
class Settlement:
    """What a claim ends with; written atomically.

    Attributes:
        claim: That ends.
        expected: The revision that ``standing`` was decided on.
        standing: The new one; ``None`` leaves the job alone and only frees the claim.
        ledger: Lines to add.
    """

    claim: Claim
    expected: int | None
    standing: Standing | None
    ledger: tuple[Execution, ...]


@frozen
class Settled:
    """What became of a settlement.

    Attributes:
        outcome: ``written`` now or by an earlier try; ``busy``: the row is locked elsewhere, try
            again; ``conflict``: the job was edited, decide anew; ``claim_lost``: nothing was
            written, and nothing will be.
        job: With ``conflict``: what is stored now, ``None`` if it is gone.
    """

    outcome: Literal["written", "busy", "conflict", "claim_lost"]
    job: Job | None = None


class Effects(Protocol):
    """Makes the transactions in which handlers write and their occurrences are settled."""

    def begin(self, event: JobEvent) -> Any:
        """Return what ``event.transaction()`` returns."""
        ...


class Cancellation:
    """Tells a running handler that it should stop; safe to read from any thread."""

    __slots__ = ("requested",)

    def __init__(self) -> None:
        self.requested = False


@quick
@frozen(eq=False, weakref_slot=False)
class JobEvent:
    """What a handler receives.

    Attributes:
        id: Of the job.
        name: Of the job.
        metadata: Of the job, read-only.
        schedule: Of the job.
        scheduled_at: The occurrence's nominal moment, in UTC.
        started_at: When this attempt began.
        attempt: From 1.
        key: The same for every attempt at this occurrence and no other: use it for idempotency.
        token: Higher for every later claim of this job: hand it to stores that can fence.
        manual: Made by ``trigger_job``.
        folded: How many further missed occurrences this run stands for.
        folded_until: The last of them.
        last_completed_at: When the newest earlier run ended.
    """

    id: str
    schedule: Schedule
    scheduled_at: datetime
    started_at: datetime
    key: str
    name: str | None = None
    metadata: Mapping[str, str] = _NOTHING
    attempt: int = 1
    token: int = 0
    manual: bool = False
    folded: int = 0
    folded_until: datetime | None = None
    last_completed_at: datetime | None = None
    _cancellation: Cancellation = field(factory=Cancellation, repr=False)
    _effects: Effects | None = field(default=None, repr=False)

    @property
    def delay(self) -> timedelta:
        """How long after its nominal moment the attempt began."""
        return self.started_at - self.scheduled_at

    @property
    def cancelled(self) -> bool:
        """Whether the handler should stop: its time is up, its claim lost, or the worker stops."""
        return self._cancellation.requested

    def transaction(self) -> Any:
        """Open a transaction in the backend's database that settles this occurrence, too.

        What the handler writes in it, the ledger line ``succeeded`` and the next due moment commit
        together or not at all::

            async with event.transaction() as connection:
                await connection.execute("INSERT INTO invoices …")

        In a plain function it is ``with``, and the connection a synchronous one. Leaving the block
        settles the occurrence and commits. An exception inside it rolls back, and the occurrence
        ends as the handler does. The run has succeeded once the block was left: what the handler
        does after it is not part of the occurrence any more, and is best nothing.

        Returns:
            A context manager of the connection, asynchronous and not; for one block.

        Raises:
            BackendError: The backend has no transactions, or the occurrence is settled already.
            ClaimLost: When it is opened or left: another worker has the job, and nothing was
                committed.
            BackendUnavailable: There is no connection, or it was lost. Let it leave the handler:
                the attempt is then ``interrupted`` and made again after a wait that grows, unless
                the store shows that the commit was made. It is never the job's failure.
        """
        if self._effects is None:
            raise BackendError(
                "this backend has no transactions: use event.key to make the handler idempotent"
            )
        return self._effects.begin(self)


def occurrence_key(uid: str, number: int) -> str:
    """Return what names an occurrence, and what its handlers use for idempotency."""
    return f"{uid}:{number}"


def abandoned_lines(claim: Claim, at: datetime, *, moved_on: bool) -> tuple[Execution, ...]:
    """Return the lines that a lost claim leaves; the backend writes them when it is taken over.

    Args:
        claim: The claim that was lost, as it was handed out.
        at: The moment of the takeover.
        moved_on: Whether the stored job is another incarnation, stands at another occurrence, or
            is removed: nobody will attempt this one again, so its final line is written, too.
    """
    lost = _line(claim, at, attempt=claim.attempt, status=Status.ABANDONED, final=False)
    return (lost, superseded_line(claim, at)) if moved_on else (lost,)


def superseded_line(claim: Claim, at: datetime) -> Execution:
    """Return the final line of an occurrence that was edited or removed away while claimed."""
    return _line(claim, at, attempt=0, status=Status.SUPERSEDED, final=True)


def _line(claim: Claim, at: datetime, *, attempt: int, status: Status, final: bool) -> Execution:
    job, standing = claim.job, claim.job.standing
    scheduled_at, manual = pending(standing)
    return Execution(
        id=f"{job.uid}:{standing.number}:{attempt}",
        job_id=job.spec.id,
        uid=job.uid,
        number=standing.number,
        scheduled_at=scheduled_at or claim.claimed_at,
        manual=manual,
        attempt=attempt,
        status=status,
        final=final,
        token=claim.token,
        worker=claim.worker,
        claimed_at=claim.claimed_at,
        started_at=None,
        finished_at=at,
        expires_at=line_expiry(job.spec.policy, at),
    )


def pending(standing: Standing) -> tuple[datetime | None, bool]:
    """Return the pending occurrence's nominal moment, and whether it is the manual one."""
    if standing.triggered_at is not None and (standing.manual or standing.next_run is None):
        return standing.triggered_at, True
    return standing.next_run, False


def line_expiry(policy: Policy, finished_at: datetime) -> datetime | None:
    """Return when a ledger line written at ``finished_at`` may be deleted."""
    keep = policy.keep_executions
    if keep is None:
        return None
    try:
        return finished_at + keep
    except OverflowError:
        return None


def describe(error: BaseException) -> str:
    """Return ``"Type: text"`` for the ledger, bounded and free of what no store can keep."""
    name = type_name(error)
    try:
        return bounded(f"{name}: {text}" if (text := str(error)) else name)
    except KeyboardInterrupt:
        raise
    except BaseException:  # noqa: BLE001 -- a handler's exception may fail at anything, this included
        return bounded(f"{name}: (its text could not be read)")


def bounded(reason: str) -> str:
    """Cut a reason to 2 KiB of UTF-8 and replace NULs and lone surrogates."""
    encoded = _UNSTORABLE.sub("\ufffd", reason).encode()
    if len(encoded) <= LONGEST_REASON:
        return encoded.decode()
    return encoded[: LONGEST_REASON - 3].decode(errors="ignore") + "…"
