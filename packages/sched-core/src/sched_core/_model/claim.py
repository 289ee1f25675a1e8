"""Who has a job, and what is decided about it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Literal

from attrs import frozen

from sched_core._model.execution import Execution, Kind, Status
from sched_core._model.job import Job
from sched_core._model.occurrence import Pending, Standing
from sched_core._support.values import quick


@quick
@frozen(weakref_slot=False)
class Hold:
    """A claim as it is stored: all that its executions need, whatever becomes of the job.

    Attributes:
        job_id: Of the job.
        uid: Of the incarnation.
        token: With ``worker`` the fence.
        worker: Who has it.
        claimed_at: By the clock that decides.
        renewed_at: When its holder last gave a sign of life.
        expires_at: When others may take it over.
        pending: The occurrence as it was claimed; ``None`` for a claim that ends a pause.
        keep: How long its executions are kept; ``None`` without end.
        alone_at: Since when its worker has run nothing else beside it; ``None``: it has.
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


@quick
@frozen(weakref_slot=False)
class Claim:
    """What a worker receives: the job as it was claimed, and the fence.

    Attributes:
        job: As it was claimed.
        token: Grows with every claim of the id.
        worker: Who has it.
        claimed_at: By the clock that decides.
        expires_at: When others may take it over, unless it is renewed.
        cancel: Seen at a renewal: the run is to be cancelled.
    """

    job: Job
    token: int
    worker: str
    claimed_at: datetime
    expires_at: datetime
    cancel: bool = False


@frozen
class Room:
    """What a worker can take.

    Attributes:
        limit: How many jobs at the most, in all. Where it is 0, lost claims end all the same.
    """

    limit: int


@frozen
class Claimed:
    """What a look for due jobs brought.

    Attributes:
        claims: In the order of ``due_at``.
        lapsed: The executions that were written about claims whose lease had ended.
    """

    claims: Sequence[Claim] = ()
    lapsed: Sequence[Execution] = ()


@frozen
class Renewal:
    """A claim whose lease is to be extended.

    Attributes:
        claim: As it was handed out or renewed.
        alone: Whether its worker runs nothing else beside it.
    """

    claim: Claim
    alone: bool = False


@frozen
class Settlement:
    """What a claim ends with; written atomically.

    Attributes:
        claim: That ends.
        expected: The revision that ``standing`` was decided on.
        standing: The new one; ``None`` leaves the job alone and only frees the claim.
        executions: To add.
    """

    claim: Claim
    expected: int | None
    standing: Standing | None
    executions: tuple[Execution, ...]


@frozen
class Settled:
    """What became of a settlement.

    Attributes:
        outcome: ``written`` now or by an earlier try; ``busy``: locked elsewhere, try again;
            ``conflict``: the job was edited, decide on ``job``; ``claim_lost``: nothing is written.
        job: With ``conflict``: what is stored now, ``None`` if it is gone.
    """

    outcome: Literal["written", "busy", "conflict", "claim_lost"]
    job: Job | None = None


@frozen
class Change:
    """A job to write, and the executions of the same step."""

    job: Job
    executions: tuple[Execution, ...] = ()


@frozen
class Asked:
    """A job with a request in it, and the number of the request's occurrence."""

    job: Job
    number: int


@quick
@frozen(weakref_slot=False)
class Start:
    """Call the handler.

    Attributes:
        number: Of the occurrence.
        scheduled_at: Its nominal moment.
        kind: Why it is there.
        attempt: From 1.
        coalesced: How many further moments the run stands for.
        coalesced_until: The last of them.
        deadline: With ``overlap="cancel"``: when the run is to be cancelled.
        alone: Whether the worker is to run nothing else beside it: the next lost claim is its last.
        args: For the handler.
        following: The moment after all that it stands for, where that is known.
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
        reason: For people.
        delay: Of a snooze, or of a failure that says itself when to try again.
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
