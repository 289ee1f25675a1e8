"""Claims of jobs, and what is decided about them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Literal

from attrs import define, field, frozen

from sched_core._model.execution import DEFAULT_QUEUE, Execution, Kind, Progress, Status
from sched_core._model.job import REST, Job
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
        queue: The job's queue when it was claimed.
        progress: The newest progress that a renewal brought.
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
    queue: str = DEFAULT_QUEUE
    progress: Progress | None = None
    cancel: CancelMark | None = None

    @property
    def key(self) -> str | None:
        """The idempotency key of the occurrence; ``None`` for a claim that ends a pause."""
        return None if self.pending is None else f"{self.uid}:{self.pending.number}"

    @property
    def attempt(self) -> int:
        """The number of the attempt that it is for, counted from 1; 0 if it ends a pause."""
        return 0 if self.pending is None else self.pending.attempts + 1


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
    """The jobs that a worker can take, and how many more.

    Attributes:
        limit: The most jobs to claim. Where it is 0, lost claims end all the same.
        queues: The queues that the worker serves, and the most jobs of each to claim; ``None`` for
            all queues, without a limit of their own. ``"*"`` means all that are not named, and
            its number is for these together. Of a queue whose number is 0 none is claimed now.
        accepts: Tells by a job's id whether this worker may take it; ``None`` for any job. It
            answers quickly and calls nothing. Where it says no, the job is passed over.
    """

    limit: int
    queues: Mapping[str, int] | None = None
    accepts: Callable[[str], bool] | None = None

    @property
    def takes_any(self) -> bool:
        """Whether it takes jobs of every queue and id."""
        return self.queues is None and self.accepts is None

    def lane(self, queue: str) -> str | None:
        """Return the name in ``queues`` under which a queue's jobs count.

        ``None``: the worker does not serve it. Without ``queues`` all count under ``"*"``.
        """
        if self.queues is None:
            return REST
        if queue in self.queues:
            return queue
        return REST if REST in self.queues else None

    def most(self, lane: str) -> int:
        """Return how many jobs to claim under a name of ``queues``, at most ``limit``."""
        return self.limit if self.queues is None else min(self.queues[lane], self.limit)


@define
class Filling:
    """How much of a worker's room a search for due jobs has filled.

    For backends that choose jobs in Python: offer each job, oldest first, until it :attr:`is_full`.
    """

    room: Room
    _taken: int = 0
    _by_lane: dict[str, int] = field(factory=dict)

    @property
    def is_full(self) -> bool:
        """Whether no further job fits."""
        return self._taken >= self.room.limit

    def fits(self, job_id: str, queue: str) -> bool:
        """Whether a job fits into what is left."""
        room = self.room
        lane = room.lane(queue)
        return (
            not self.is_full
            and lane is not None
            and self._by_lane.get(lane, 0) < room.most(lane)
            and (room.accepts is None or room.accepts(job_id))
        )

    def add(self, queue: str) -> None:
        """Count a job that fits as taken."""
        lane = self.room.lane(queue) or REST
        self._taken += 1
        self._by_lane[lane] = self._by_lane.get(lane, 0) + 1


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
        progress: The newest that the handler has told; ``None`` leaves what is stored.
    """

    claim: Claim
    alone: bool = False
    progress: Progress | None = None


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
        error_types: The names of a failure's type of error and of its bases, by which the policy
            says whether it is attempted again; none where there was no error.
        by_store: Whether it was interrupted by a failure of the store, and not by a stop: it is
            attempted again after a wait that grows.
        traceback: Where a failure was raised.
        log: What the handler has written by ``event.log``.
        progress: The newest that it has told by ``event.progress``.
    """

    status: Status
    reason: str | None = None
    delay: timedelta | None = None
    retry: bool = True
    by_store: bool = False
    error_types: tuple[str, ...] = ()
    traceback: str | None = None
    log: str | None = None
    progress: Progress | None = None


SUCCESS = Ended(Status.SUCCEEDED)
