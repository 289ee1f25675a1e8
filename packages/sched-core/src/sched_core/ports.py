"""The scheduler port: what a backend does, and every error it may raise.

This file is for authors of backends, and is read as one: the values that a backend returns or is
asked with come first, then the protocols. A backend inherits nothing from here.

A backend stores jobs and wakes workers; it never decides when a job next runs. It compares one
moment, ``standing.due_at``, with the clock that decides, and looks at no schedule, pause or retry.
Apart from the job it keeps the *hold*: the claim as it is stored, with the occurrence that it is
for. Functions of :mod:`sched_core.row` decide what a claim does to what is stored: ``is_held_by``
says which claim it is, ``lapse`` what is left of one whose lease has ended, and ``freed`` what the
end of any claim writes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Generic, Literal, Protocol, TypeVar, runtime_checkable

from attrs import field, frozen

from sched_core._model.claim import Claim, Claimed, Hold, Renewal, Room, Settled, Settlement
from sched_core._model.execution import Execution, Status
from sched_core._model.job import Job
from sched_core._model.occurrence import State
from sched_core._model.survey import CountQuery, Counts, WorkerState
from sched_core.clock import Clock
from sched_core.errors import InvalidDefinition

T = TypeVar("T")

MAX_POLL = timedelta(seconds=5)
"""A backend looks for due jobs at least this often, even if a notification got lost."""

FORGOTTEN = timedelta(days=1)
"""After this time, what a worker has reported is deleted by ``prune``."""


def position_of(cursor: str) -> int:
    """Return the position that a cursor of ``follow`` names, where it is a number; empty for 0.

    Raises:
        InvalidDefinition: It is no such cursor.
    """
    if cursor and not (cursor.isascii() and cursor.isdigit()):
        raise InvalidDefinition("after", f"must be a cursor that follow returned, not {cursor!r}")
    return int(cursor or 0)


# -- what a backend returns, and what it is asked with


@frozen
class Undecodable:
    """A stored record that this version cannot read. It is listed, and otherwise left alone.

    Attributes:
        id: The job's id.
        reason: Why it cannot be read.
        format: The format that its header names.
        record: Its bytes, unchanged.
        tag: The kind of schedule that its header names; empty where a backend does not say.
    """

    id: str
    reason: str
    format: int
    record: bytes
    tag: str = ""


@frozen
class UndecodableExecution:
    """A record of the history that this version cannot read. It is listed, otherwise left alone.

    Attributes:
        id: The record's id where the store tells it apart from the body; else a name within the
            store that stays the same.
        job_id: The job's id where that can be read; else empty.
        reason: Why it cannot be read.
        record: Its bytes, unchanged; of a store with columns, these in the form that its
            documentation names.
        finished_at: When it ended, where that can be read: listings select it and ``prune``
            deletes it by that moment, as they do others.
        expires_at: When it may be deleted, where that can be read and there is such a moment.
    """

    id: str
    job_id: str
    reason: str
    record: bytes
    finished_at: datetime | None = None
    expires_at: datetime | None = None


@frozen
class Page(Generic[T]):
    """A part of a listing.

    Attributes:
        items: The items, in the listing's order.
        next: What to pass as ``after`` for the next page; opaque; ``None`` on the last page, also
            where that is full.
    """

    items: Sequence[T]
    next: str | None


@frozen
class JobQuery:
    """A choice of jobs to list. A job must match all that is given; it may have more metadata.

    An undecodable record is listed unless the id prefix excludes it: the rest of it is unknown.
    """

    state: State | None = None
    id_prefix: str = ""
    group: str | None = None
    metadata: Mapping[str, str] = field(factory=dict)
    queue: str | None = None
    uid: str | None = None

    def matches(self, job: Job | Undecodable) -> bool:
        """Whether to list it: for backends that select in Python."""
        if not job.id.startswith(self.id_prefix):
            return False
        return isinstance(job, Undecodable) or (
            (self.state is None or job.standing.state is self.state)
            and (self.group is None or job.spec.group == self.group)
            and (self.queue is None or job.spec.queue == self.queue)
            and (self.uid is None or job.uid == self.uid)
            and self.metadata.items() <= job.spec.metadata.items()
        )


@frozen
class ExecutionQuery:
    """A choice of records of the history to list: ``finished_at`` in ``[since, until)``.

    An undecodable one is listed unless its job or its ``finished_at``, where these can be read,
    exclude it: the rest of it is unknown.
    """

    job_id: str | None = None
    statuses: frozenset[Status] = frozenset()
    final: bool | None = None
    since: datetime | None = None
    until: datetime | None = None

    def matches(self, one: Execution | UndecodableExecution) -> bool:
        """Whether to list it: for backends that select in Python."""
        if isinstance(one, UndecodableExecution):
            return (not one.job_id or self._of_the_job(one.job_id)) and (
                one.finished_at is None or self._in_time(one.finished_at)
            )
        return (
            self._of_the_job(one.job_id)
            and (not self.statuses or one.status in self.statuses)
            and (self.final is None or one.final is self.final)
            and self._in_time(one.finished_at)
        )

    def _of_the_job(self, job_id: str) -> bool:
        return self.job_id is None or job_id == self.job_id

    def _in_time(self, finished_at: datetime) -> bool:
        return (self.since is None or finished_at >= self.since) and (
            self.until is None or finished_at < self.until
        )


@frozen
class ClaimQuery:
    """A choice of stored claims to list. A claim must match all that is given."""

    job_id: str | None = None
    worker: str | None = None
    queue: str | None = None

    def matches(self, hold: Hold) -> bool:
        """Whether to list it: for backends that select in Python."""
        return (
            (self.job_id is None or hold.job_id == self.job_id)
            and (self.worker is None or hold.worker == self.worker)
            and (self.queue is None or hold.queue == self.queue)
        )


@frozen
class Followed:
    """A part of the history, in the order in which it was committed.

    Attributes:
        executions: The executions after the cursor that was given.
        cursor: What to pass as ``after`` next; opaque.
        waits_since: Since when a transaction is open that keeps later executions back; ``None``
            where none does, or the store has no such transactions.
    """

    executions: Sequence[Execution | UndecodableExecution]
    cursor: str
    waits_since: datetime | None = None


@frozen
class Capabilities:
    """What a backend promises beyond what every backend must do.

    Attributes:
        durable: What a returned call wrote survives the death of every process.
        shared: Several processes may use the same data.
        time: The clock that decides what is due: the ``clock`` given to ``open``, or that of the
            ``store``.
        granularity: The finest difference between two moments that it keeps.
        lease: How long a claim lives unless it is renewed.
        bulk_limit: The most jobs that one ``add`` takes all-or-nothing; ``None`` for any number.
        ordered: Pages come in id order, the history newest first across jobs.
        transactions: Jobs can be written inside the caller's own transaction.
        loops: The event loops it runs on.
        notified: What another process writes wakes a waiting call at once; else the call looks for
            it from time to time.
    """

    durable: bool
    shared: bool
    time: Literal["clock", "store"]
    granularity: timedelta
    lease: timedelta
    bulk_limit: int | None = None
    ordered: bool = True
    transactions: bool = False
    loops: frozenset[str] = frozenset({"asyncio", "trio"})
    notified: bool = False


# -- the port


class JobStore(Protocol):
    """The part of the port that stores definitions; a transaction of the caller's has it, too.

    Every method raises :class:`~sched_core.errors.BackendUnavailable` where trying again may help
    and :class:`~sched_core.errors.BackendError` where it does not.
    """

    async def add(self, jobs: Sequence[Job]) -> Sequence[Job]:
        """Store new jobs, all or none; return them with their revisions, in the order given.

        A job whose ``uid`` is stored already under its id is a repeat of this call, and returned
        as it is stored. An id that was removed while claimed is taken over with its hold: the new
        job is handed out once the old run has ended. More jobs than ``bulk_limit`` are refused as a
        whole, by an error that names the limit, or stored as a whole.

        Raises:
            JobAlreadyExists: Another incarnation is stored under one of the ids, or two of the jobs
                have the same id. None is added.
        """
        ...

    async def get(self, job_id: str) -> Job | Undecodable | None:
        """Return what is stored under the id, ``None`` if nothing is.

        ``Job.held`` and ``Job.held_at`` tell of the claim that has not ended, also where its lease
        has and no worker has taken note yet: what an edit does to an occurrence depends on whether
        it has begun.
        """
        ...

    async def replace(self, job: Job, executions: Sequence[Execution] = ()) -> Job:
        """Store the job if it is still what was read; return it as it is stored, with its revision.

        It is not where its revision is another one, or where it was claimed or freed in the
        meantime: ``row.same_as_read`` decides. The hold of a running claim is kept. Executions of
        the held occurrence are not written: the claim writes its end (``row.is_left_to_claim``).
        The hold keeps the moments that such an execution covers (``row.as_left``). One whose id is
        stored already is passed over.

        Raises:
            JobNotFound: Nothing is stored under the id.
            RevisionConflict: It is not what was read. Nothing was written.
            JobUndecodable: The stored record cannot be read here. Nothing was written.
        """
        ...

    async def remove(self, job: Job, executions: Sequence[Execution] = ()) -> None:
        """Remove the job if it is still what was read.

        A claimed job stays as an invisible tombstone that carries the hold until it ends.
        Executions are written, left to the claim and passed over as by :meth:`replace`. One that
        is left and says ``cancelled`` marks the hold (``row.as_left``): renewals tell its worker,
        and its end is ``cancelled``, by whom and why the execution says. The history of a removed
        job stays.

        Raises:
            JobNotFound: Nothing is stored under the id.
            RevisionConflict: It is not what was read. Nothing was written.
            JobUndecodable: The stored record cannot be read here. Nothing was written.
        """
        ...


class Backend(JobStore, Protocol):
    """The scheduler port.

    A backend works in the process and the event loop that opened it. Elsewhere every call raises
    ``SchedulerForked`` or ``WrongEventLoop``: :class:`~sched_core.affinity.Affinity` does that.

    A call that is cancelled returns at once, whatever the store does, and so does :meth:`close`
    within seconds: a stop has a deadline.

    A closed backend can be opened again, as another worker. While it is not open, every call but
    :meth:`open` and :meth:`close` raises :class:`~sched_core.errors.BackendError` and does nothing.
    Calls of one backend may overlap. Every moment from the year 1 to the year 9999 is kept exactly,
    as far as ``capabilities.granularity`` says.
    """

    @property
    def capabilities(self) -> Capabilities:
        """What this backend promises; constant."""
        ...

    async def open(self, clock: Clock, *, worker: str) -> Clock:
        """Connect, and return the clock that decides: the given one, or the store's own.

        Args:
            clock: The clock that tells the time and waits.
            worker: The worker's name, unique to this start of this process; it and the token tell
                a claim from every other.

        Raises:
            SchemaTooNew: The store was written by a newer version. Nothing was changed.
            BackendError: This backend is open already, and stays as it is.
        """
        ...

    async def close(self) -> None:
        """Disconnect. Claims are left to their lease. A wait that is under way ends.

        Closing twice is harmless, and so is closing what was never open.
        """
        ...

    async def check(self) -> None:
        """Write something and read it back: a read alone proves nothing."""
        ...

    async def jobs(
        self, query: JobQuery, *, after: str | None, limit: int
    ) -> Page[Job | Undecodable]:
        """List jobs, in id order (by code point) where ``capabilities.ordered``.

        They tell what is held of them, as :meth:`get` does.

        The first page shows all that was written by calls that had returned before, here or in
        another process: ``sync_jobs`` of several deployments relies on it.
        """
        ...

    async def wait_due(self, room: Room) -> None:
        """Return when something may be due, after ``MAX_POLL`` at the latest.

        A job that becomes due earlier than all others wakes a waiting call, whichever backend wrote
        it; so does the end of a lease, when :meth:`claim_due` has something to write. Other writes
        may wake it, too. While nothing is written and nothing is due, it waits: callers ask again
        at once. What the room does not take, by its queue or its id, wakes no call. A clock that
        was set back makes no wait longer.
        """
        ...

    async def wait_cancelled(self) -> bool:
        """Return when a claim of this worker may be marked to be cancelled.

        True: ask :meth:`renew`, which tells. False: ``MAX_POLL`` has passed; the next renewal
        tells. A store that cannot wake waits all the same: callers ask again at once. A mark that
        was made before the call ends it, too, unless a call before has told of it.
        """
        ...

    async def claim_due(self, room: Room) -> Claimed:
        """Claim up to ``room.limit`` jobs that are due, oldest ``due_at`` first; do not wait.

        First it ends every claim whose lease has ended, in one step with the executions that
        ``row.lapse`` returns, and stores the job that it returns under a new revision: the
        occurrence has had an attempt, and may be due only later. These executions are returned,
        too. Then it claims: a job is due from its ``due_at`` on, unless a claim holds it. Claims
        come in the order of ``due_at``. Of the queues that ``room.queues`` names, it claims the
        oldest of each, up to the queue's number; of other queues nothing. Ids that ``room.accepts``
        refuses are passed over and left to other workers, and jobs behind them are claimed. What it
        raises comes out, and nothing is claimed. A store that fetches ahead may hand out what it
        has fetched before what was released only now. Records that cannot be read are passed over.
        A cancelled call leaves nothing claimed. A call that waited for more than a tenth of a lease
        may claim nothing: the caller should renew its claims first, or this call would end them.
        """
        ...

    async def renew(self, renewals: Sequence[Renewal]) -> Sequence[Claim]:
        """Extend the leases of those still held; return their claims with the new ``expires_at``.

        ``Claim.cancel`` tells the worker that the run is to be cancelled. A claim whose lease has
        ended is still held until a call has ended it. A lease that ends because another client has
        locked the record is no reason to end the claim before its worker could renew it: where
        others can lock a store's records, a renewal must be possible apart from the record, and
        :meth:`claim_due` must look there, in one step with what it writes.
        """
        ...

    async def settle(self, settlements: Sequence[Settlement]) -> Sequence[Settled]:
        """End claims: each settlement is one atomic write with one answer, in the order given.

        What ``row.freed`` returns is written, also if the job was edited or removed since.

        ==============  ========================================================================
        ``written``     now, or by an earlier try: the newest claim that was settled is this one, or
                        all its executions are stored with its token, worker and status
        ``conflict``    ``expected`` is not the stored revision, or ``standing`` is ``None`` and
                        the end of what would still be pending is among the executions
        ``claim_lost``  the claim holds nothing any more
        ``busy``        another client has locked the record: try again
        ==============  ========================================================================

        Executions whose ids are stored already are passed over.
        """
        ...

    async def release(self, claims: Sequence[Claim]) -> None:
        """Free claims whose handlers were never called: nothing has begun, no attempt is counted.

        What ``row.freed`` returns is written: an occurrence that was edited or removed away in the
        meantime ends.
        """
        ...

    async def executions(
        self, query: ExecutionQuery, *, after: str | None, limit: int
    ) -> Page[Execution | UndecodableExecution]:
        """List records of the history, newest first, in the order in which they were written.

        A record that cannot be read is listed in its place, and hinders no other call.
        """
        ...

    async def execution(self, execution_id: str) -> Execution | UndecodableExecution | None:
        """Return the execution with the id, ``None`` if there is none."""
        ...

    async def recent(
        self, job_ids: Sequence[str], *, limit: int
    ) -> Mapping[str, Sequence[Execution | UndecodableExecution]]:
        """Return the newest executions of each job, newest first, at most ``limit`` for each.

        A job without executions is left out. One call is cheaper than a page for each job.
        """
        ...

    async def follow(self, after: str | None, *, limit: int) -> Followed:
        """Return executions in the order in which they were committed.

        An execution that was committed late comes late: none is left out, and none comes before all
        that it could be overtaken by is known. So an open transaction keeps later executions back;
        ``waits_since`` tells of it.

        Args:
            after: A cursor that an earlier call returned; ``None`` returns no executions, and the
                cursor of the present end; an empty text begins with the oldest.
            limit: The most executions to return.

        Raises:
            CursorExpired: Executions after the cursor have been deleted before they were returned.
            InvalidDefinition: The text is no cursor of this store.
        """
        ...

    # -- what is going on

    async def claims(self, query: ClaimQuery, *, after: str | None, limit: int) -> Page[Hold]:
        """List the claims that are stored, in the order of their jobs' ids where ``ordered``.

        One whose lease has ended is listed until a call has ended it; so is that of a removed job.
        It has the progress and the lease that the newest renewal stored. A record that cannot be
        read is left out: nothing says that it is a claim.
        """
        ...

    async def report(self, state: WorkerState) -> None:
        """Store that a worker is alive, in the place of what it reported before.

        :meth:`close` deletes what this backend's worker has reported, if the store can be reached.
        :meth:`prune` deletes what was reported more than a day ago.
        """
        ...

    async def workers(self) -> Sequence[WorkerState]:
        """Return what workers have reported, by name; what cannot be read is left out."""
        ...

    async def counts(self, query: CountQuery) -> Counts:
        """Count jobs, claims and executions.

        Records of the scheduler's own, whose ids begin with ``sched:``, are left out. A job is due
        that has ``due_at`` behind it and no claim. What cannot be read is counted as
        ``undecodable`` alone. A store that cannot count everything in a short time says so by
        ``complete``.
        """
        ...

    async def prune(self, before: datetime) -> int:
        """Delete executions with ``finished_at < before``, and whatever has expired.

        Executions are deleted without their jobs and jobs without their executions. A claimed job
        stays, and so does the hold of a removed one. An execution that cannot be read is deleted as
        others are where its age can be read; where it cannot, it stays until a version that knows
        it prunes.

        Returns:
            How many executions and jobs were deleted.
        """
        ...


# -- what a backend may have in addition


class Transaction(Protocol):
    """A transaction as a context manager of its connection, for ``with`` and ``async with``."""

    def __enter__(self) -> Any:
        """Begin, and return a synchronous connection."""
        ...

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        """Settle and commit, or roll back."""
        ...

    async def __aenter__(self) -> Any:
        """Begin, and return an asynchronous connection."""
        ...

    async def __aexit__(self, kind: Any, error: Any, trace: Any) -> None:
        """Settle and commit, or roll back."""
        ...


@runtime_checkable
class Probed(Protocol):
    """What a backend may have in addition, for probes: live state, without the history."""

    async def due_since(self) -> datetime | None:
        """Return since when a job is due that no claim holds, ``None`` where there is none.

        A claim whose lease has ended holds nothing. Unlike a claim, this changes nothing.
        """
        ...

    async def live_workers(self) -> Sequence[str] | None:
        """Return the other workers that are alive, ``None`` where the store cannot tell."""
        ...


class Transactional(Protocol):
    """What a backend has in addition where ``capabilities.transactions``.

    A backend that wraps another one defines both itself: the scheduler refuses what ``__getattr__``
    hands on, because it would be written past the wrapper.
    """

    def within(self, connection: Any) -> JobStore:
        """Return definitions that are written inside the caller's transaction.

        Args:
            connection: A connection of the store's driver, synchronous or not, to the same
                database.

        Raises:
            InvalidDefinition: It is no such connection, or has no transaction that could be joined.
        """
        ...

    def transaction(
        self,
        claim: Claim,
        decide: Callable[[Job | None], Settlement],
        committed: Callable[[Settlement], None],
    ) -> Transaction:
        """Return a transaction that ends with a settlement.

        When its block is left without an exception, the job is locked and read, ``decide`` is
        called with it (``None`` if it was removed), and the settlement is written before the
        commit; ``committed`` is called after it. If the claim is lost, everything is rolled back
        and :class:`~sched_core.errors.ClaimLost` is raised.
        """
        ...
