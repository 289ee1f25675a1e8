"""Claims of jobs, and what is decided about them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Literal

from attrs import frozen

from sched_core._model.execution import Execution, Kind, Status
from sched_core._model.job import Job
from sched_core._model.occurrence import CancelMark, Pending, Standing
from sched_core._support.values import quick


@quick
@frozen(weakref_slot=False)
class Hold:
    """A claim as it is stored: all that its executions need, even if the job is edited or removed.

    Attributes:
        job_id: The job's id.
        uid: The uid of the job's incarnation.
        token: The fencing token: it and ``worker`` tell this claim from every other.
        worker: The worker that has it.
        claimed_at: When it was made, by the clock that decides.
        renewed_at: When its worker last renewed it; before that, ``claimed_at``.
        expires_at: When others may take it over.
        pending: The occurrence as it was claimed; ``None`` for a claim that ends a pause.
        keep: How long its executions are kept; ``None`` without end.
        alone_at: Since when its worker has run nothing else at the same time; ``None`` where the
            worker runs other jobs, too.
        cancel: The mark that a removal of the job has left: the run is to be cancelled.
    """

    job_id: str
    uid: str
    token: int
    worker: str
    claimed_at: datetime
    renewed_at: datetime
    expires_at: datetime
    pending: Pending | None
    keep: timedelta | None
    alone_at: datetime | None = None
    cancel: CancelMark | None = None


@quick
@frozen(weakref_slot=False)
class Claim:
    """What a worker receives: the job as it was claimed, and the fencing token.

    Attributes:
        job: The job as it was claimed.
        token: The fencing token; it grows with every claim of the id.
        worker: The worker that has the claim.
        claimed_at: When it was made, by the clock that decides.
        expires_at: When others may take it over, unless it is renewed.
        cancel: Whether the run is to be cancelled; a renewal tells it.
    """

    job: Job
    token: int
    worker: str
    claimed_at: datetime
    expires_at: datetime
    cancel: bool = False


@frozen
class Room:
    """How many more jobs a worker can take.

    Attributes:
        limit: The most jobs to claim. Where it is 0, lost claims end all the same.
    """

    limit: int


@frozen
class Claimed:
    """What a search for due jobs brought.

    Attributes:
        claims: The new claims, in the order of ``due_at``.
        lapsed: The executions that were written about claims whose lease had ended.
    """

    claims: Sequence[Claim] = ()
    lapsed: Sequence[Execution] = ()


@frozen
class Renewal:
    """A claim whose lease is to be extended.

    Attributes:
        claim: The claim as it was handed out or last renewed.
        alone: Whether its worker runs nothing else at the same time.
    """

    claim: Claim
    alone: bool = False


@frozen
class Settlement:
    """What a claim ends with; written atomically.

    Attributes:
        claim: The claim that ends.
        expected: The revision that ``standing`` was decided on.
        standing: The job's new standing; ``None`` leaves the job alone and only frees the claim.
        executions: The executions to add.
    """

    claim: Claim
    expected: int | None
    standing: Standing | None
    executions: tuple[Execution, ...]


@frozen
class Settled:
    """What the backend did with a settlement.

    Attributes:
        outcome: ``written`` now or by an earlier try; ``busy``: locked elsewhere, try again;
            ``conflict``: the job was edited, decide on ``job``; ``claim_lost``: nothing is written.
        job: What is stored now, with ``conflict``; ``None`` if it is gone.
    """

    outcome: Literal["written", "busy", "conflict", "claim_lost"]
    job: Job | None = None


@frozen
class Change:
    """A job to write, and the executions of the same step."""

    job: Job
    executions: tuple[Execution, ...] = ()


@frozen
class Requested:
    """A job with a request in it, and the number of the request's occurrence."""

    job: Job
    number: int


@quick
@frozen(weakref_slot=False)
class Start:
    """Call the handler.

    Attributes:
        number: The occurrence's number.
        scheduled_at: The occurrence's nominal moment.
        kind: Why the occurrence is there.
        attempt: The attempt's number, counted from 1.
        coalesced: How many further moments the run covers.
        coalesced_until: The last of them.
        deadline: When the run is to be cancelled, with ``overlap="cancel"``.
        alone: Whether the worker is to run nothing else at the same time: the next lost claim is
            the occurrence's last.
        args: The request's arguments for the handler.
        following: The moment after all that the run covers, where that is known.
        actor: Who asked for the occurrence.
    """

    number: int
    scheduled_at: datetime
    kind: Kind
    attempt: int
    coalesced: int = 0
    coalesced_until: datetime | None = None
    deadline: datetime | None = None
    alone: bool = False
    args: Mapping[str, str] | None = None
    following: datetime | None = None
    actor: str | None = None


@frozen
class Decision:
    """Settle the claim with this; ``None`` leaves the job alone and only frees the claim."""

    standing: Standing | None
    executions: tuple[Execution, ...] = ()


@frozen
class Ended:
    """How a run ended.

    Attributes:
        status: SUCCEEDED, FAILED, INTERRUPTED, SNOOZED or CANCELLED.
        reason: Why, in words for people.
        delay: The wait before the next attempt, of a snooze or of a failure that asks for one.
        retry: False for a failure that is final, whatever the policy.
        by_store: Whether it was interrupted by a failure of the store, and not by a stop: it is
            attempted again after a wait that grows.
    """

    status: Status
    reason: str | None = None
    delay: timedelta | None = None
    retry: bool = True
    by_store: bool = False


SUCCESS = Ended(Status.SUCCEEDED)
