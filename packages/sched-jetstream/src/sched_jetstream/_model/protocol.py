"""Every decision about a record: what may be written over it, and what that says. Pure.

A record is only ever replaced by a compare-and-set on its sequence, so each function takes what was
read and returns what to write in its place, with the executions of the same step, or an answer.
What a claim means is decided by ``sched_core.row``, as for every backend; this is
:class:`sched_core.row.Row` for one row that lives elsewhere.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from typing import Literal

from attrs import evolve, frozen

from sched_core import Claim, Execution, Hold, Job, Renewal, Settled, Settlement, Standing
from sched_core.errors import JobAlreadyExists, JobNotFound, JobUndecodable, RevisionConflict
from sched_core.ports import Undecodable
from sched_core.row import (
    CLAIM_LOST,
    WRITTEN,
    as_left,
    current,
    freed,
    held,
    is_held_by,
    is_left_to_claim,
    is_to_be_cancelled,
    lapse,
    leaves_pending,
    renewed,
    same_as_read,
)
from sched_jetstream._model.record import Record, record_of, with_claim

__all__ = ["ASK_HISTORY", "CLAIM_LOST", "WRITTEN"]


@frozen
class StoredRecord:
    """What is stored under the subject of a record.

    Attributes:
        token: The token of the subject.
        sequence: The sequence of the message, which a compare-and-set must expect; 0 for none.
        content: The record; ``None`` where nothing is stored, or only the mark of a removal.
    """

    token: str
    sequence: int
    content: Record | Undecodable | None

    def record(self, job_id: str) -> Record:
        """Return what can be read; an empty one where nothing is stored."""
        return self.content if isinstance(self.content, Record) else Record(job_id, None)

    def read(self) -> Job | Undecodable | None:
        """Return the job as ``get`` and ``jobs`` give it."""
        return self.content.read() if isinstance(self.content, Record) else self.content


@frozen
class Write:
    """What replaces a record.

    Attributes:
        job_id: The id of the job.
        record: The new record; ``None`` leaves only the mark of a removal.
        executions: The executions to add, in the same atomic write.
        may_exist: Whether some may be stored already, to be looked up before they are written. Of
            those that the core decides on, the record shows that they are new.
    """

    job_id: str
    record: Record | None
    executions: Sequence[Execution] = ()
    may_exist: bool = False


AskHistory = Literal["ask the history"]
ASK_HISTORY: AskHistory = "ask the history"
"""The claim is no more: only the history can tell whether this settlement was written."""


# -- definitions -------------------------------------------------------------


def add(found: StoredRecord, job: Job) -> Write | Job:
    """Store a new job; return the stored one where this is a repeat.

    Raises:
        JobAlreadyExists: Another incarnation, or something unreadable, is there.
    """
    stored = found.content
    if isinstance(stored, Undecodable):
        raise JobAlreadyExists(job.id)
    old = found.record(job.id)
    if old.job is not None:
        if old.job.uid == job.uid:
            return old.read() or old.job
        raise JobAlreadyExists(job.id)
    new = record_of(_open(job))
    if stored is None:
        return Write(job.id, new)
    return Write(job.id, _over(old, new))


def replace(found: StoredRecord, job: Job, executions: Sequence[Execution]) -> Write:
    """Store another state of a job.

    Raises:
        JobUndecodable, JobNotFound, RevisionConflict: As the port says.
    """
    old = _as_read(found, job)
    fresh = record_of(_open(job))
    if fresh.definition == old.definition:
        fresh = evolve(fresh, definition=old.definition)
    new = _with_left(_over(old, fresh), executions)
    return _write(old, new, _not_left(old, executions), job.standing)


def remove(found: StoredRecord, job: Job, executions: Sequence[Execution]) -> Write:
    """Remove a job; what holds it stays.

    Raises:
        JobUndecodable, JobNotFound, RevisionConflict: As the port says.
    """
    old = _as_read(found, job)
    tombstone = None
    if old.hold is not None:
        tombstone = _with_left(_over(old, Record(job.id, None)), executions)
    return _write(old, tombstone, _not_left(old, executions), None)


def _as_read(found: StoredRecord, job: Job) -> Record:
    if isinstance(found.content, Undecodable):
        raise JobUndecodable(job.id, found.content.reason)
    old = found.record(job.id)
    stored = old.read()
    if stored is None:
        raise JobNotFound(job.id)
    if not same_as_read(job, stored):
        raise RevisionConflict(job.id)
    return old


def _open(job: Job) -> Job:
    """Return the job as it is written: its revision is the sequence that the record gets."""
    return Job(job.spec, job.uid, job.declared, job.anchor, job.standing, actor=job.actor)


def _over(old: Record, new: Record) -> Record:
    """Return a new record with what belongs to claims, and not to the job."""
    return Record(new.id, new.job, new.definition, old.hold, old.ended, old.schedule, old.doubtful)


def _with_left(record: Record, executions: Sequence[Execution]) -> Record:
    hold = as_left(record.hold, executions)
    return record if hold is record.hold else with_claim(record, hold)


def _not_left(old: Record, executions: Sequence[Execution]) -> Iterable[Execution]:
    return (each for each in executions if not is_left_to_claim(old.hold, each))


# -- executions --------------------------------------------------------------


def _write(
    old: Record,
    record: Record | None,
    executions: Iterable[Execution],
    after: Standing | None,
) -> Write:
    """Return a write with executions, each id once.

    Args:
        old: What is replaced.
        record: What replaces it.
        executions: The executions to add.
        after: The standing that is written, ``None`` where the job is gone.
    """
    new = tuple(executions)
    if len(new) > 1:
        once: dict[str, Execution] = {}
        for each in new:
            once.setdefault(each.id, each)
        new = tuple(once.values())
    may_exist = not all(_is_new(old, each) for each in new)
    job = old.job
    if record is not None and job is not None and after is not None:
        for each in new:
            if each.uid == job.uid and not _is_accounted(after, each):
                record = evolve(record, doubtful=max(record.doubtful, each.number))
    return Write(old.id, record, new, may_exist)


def _is_new(old: Record, execution: Execution) -> bool:
    """Whether a record shows that an execution is not stored yet.

    What is pending or held has no final execution, and of attempts those that it counts; and what
    has a number above the newest has none.
    """
    hold, job = old.hold, old.job
    if execution.number <= old.doubtful:
        return False
    if hold is not None and is_left_to_claim(hold, execution):
        one = hold.pending
    elif job is None or job.uid != execution.uid:
        return False
    elif execution.number > job.standing.last_number:
        return True
    else:
        one = job.standing.find(execution.number)
    return one is not None and (execution.attempt == 0 or execution.attempt > one.attempts)


def _is_accounted(after: Standing, execution: Execution) -> bool:
    """Whether :func:`_is_new` will know of an execution, once the standing is stored."""
    one = after.find(execution.number)
    if one is None:
        return execution.number <= after.last_number
    return 0 < execution.attempt <= one.attempts


# -- hints -------------------------------------------------------------------


class Verdict(enum.Enum):
    """What a hint is worth, by the record that it points at."""

    DUE = "due"
    """Something is to be done at :attr:`Assessment.at`, which has come or is near."""
    HELD = "held"
    """A claim has the job until :attr:`Assessment.at`."""
    IDLE = "idle"
    """Nothing is due, or it is far off and has a schedule of its own."""


@frozen
class Assessment:
    """A verdict and its moment."""

    verdict: Verdict
    at: datetime | None = None


_IDLE = Assessment(Verdict.IDLE)


def assess(found: StoredRecord, now: datetime, *, near: timedelta) -> Assessment:
    """Say what a hint for this record is worth now.

    A record that is held is looked at when its lease ends, whether or not its job is due.
    """
    record = found.content
    if not isinstance(record, Record):
        return _IDLE
    hold, job = record.hold, record.job
    if hold is not None:
        return Assessment(Verdict.HELD if hold.expires_at > now else Verdict.DUE, hold.expires_at)
    due = None if job is None else job.standing.due_at
    return Assessment(Verdict.DUE, due) if due is not None and due <= now + near else _IDLE


# -- claims ------------------------------------------------------------------


@frozen
class ClaimDecision:
    """What claiming writes: the record with the hold."""

    write: Write
    claim: Claim


def claim(
    found: StoredRecord, now: datetime, *, worker: str, lease: timedelta
) -> ClaimDecision | None:
    """Claim a job that is due and that no worker holds; ``None`` where it is not.

    Args:
        found: What was read.
        now: The time, by the clock that decides.
        worker: The name of the worker that claims.
        lease: How long the claim lives unless it is renewed.
    """
    record = found.content
    if not isinstance(record, Record) or record.job is None or record.hold is not None:
        return None
    job, standing = record.job, record.job.standing
    if standing.due_at is None or standing.due_at > now:
        return None
    hold = held(job, current(standing), found.sequence, worker, now, lease)
    made = Claim(job, hold.token, worker, now, hold.expires_at)
    return ClaimDecision(Write(record.id, with_claim(record, hold)), made)


def end_of_lease(found: StoredRecord, now: datetime) -> Write | None:
    """End a claim whose lease has ended; ``None`` where there is none. The job may be due later."""
    record = found.content
    if not isinstance(record, Record) or record.hold is None or record.hold.expires_at > now:
        return None
    job = record.job
    after, executions = lapse(job, record.hold, now=now)
    if job is None or after is None:
        return _write(record, None, executions, None)
    free = with_claim(record, None)
    if after is not job:
        free = evolve(free, job=_open(after))
    return _write(record, free, executions, after.standing)


def end_unconfirmed(found: StoredRecord, now: datetime) -> Write | None:
    """End a claim that was written and that no caller got: nothing has begun."""
    record = found.content
    if not isinstance(record, Record) or record.hold is None:
        return None
    return _freed(record, record.hold, now)


def release(found: StoredRecord, claim: Claim, now: datetime) -> Write | None:
    """Free the hold of a claim whose handler was not called; ``None`` where it has none."""
    record = found.content
    if not isinstance(record, Record) or record.hold is None:
        return None
    return _freed(record, record.hold, now) if is_held_by(record.hold, claim) else None


def _freed(record: Record, hold: Hold, now: datetime) -> Write:
    executions, job = freed(record.job, hold, now=now), record.job
    if job is None:
        return _write(record, None, executions, None)
    return _write(record, with_claim(record, None), executions, job.standing)


@frozen
class RenewalDecision:
    """What a renewal writes: the record with the longer lease."""

    write: Write
    claim: Claim


def renew(
    found: StoredRecord, renewal: Renewal, now: datetime, lease: timedelta
) -> RenewalDecision | None:
    """Extend the lease of a claim; ``None`` where it holds nothing any more."""
    record, claim = found.content, renewal.claim
    if not isinstance(record, Record) or record.hold is None:
        return None
    if not is_held_by(record.hold, claim):
        return None
    hold = renewed(record.hold, now, lease, alone=renewal.alone, progress=renewal.progress)
    cancel = is_to_be_cancelled(record.job, hold)
    longer = Claim(claim.job, claim.token, claim.worker, claim.claimed_at, hold.expires_at, cancel)
    return RenewalDecision(Write(record.id, with_claim(record, hold)), longer)


# -- settlements -------------------------------------------------------------


def settle(
    found: StoredRecord, settlement: Settlement, now: datetime
) -> Write | Settled | AskHistory:
    """End a claim: return what to write, or the answer, or that only the history knows it."""
    claim, record = settlement.claim, found.content
    hold = record.hold if isinstance(record, Record) else None
    if not isinstance(record, Record) or hold is None or not is_held_by(hold, claim):
        fence = claim.token, claim.worker
        repeat = isinstance(record, Record) and record.ended == fence
        return WRITTEN if repeat else ASK_HISTORY
    job, standing = record.job, settlement.standing
    edited = standing is not None and (job is None or job.revision != settlement.expected)
    if edited or leaves_pending(job, hold, settlement):
        return Settled("conflict", record.read())
    executions = freed(job, hold, settlement.executions, now=now)
    if job is None:
        return _write(record, None, executions, None)
    after = job
    if standing is not None:
        # Three times as fast as evolve, on the way of every run; its revision is as by _open.
        after = Job(job.spec, job.uid, job.declared, job.anchor, standing, actor=job.actor)
    ended = Record(
        record.id,
        after,
        record.definition,
        None,
        (hold.token, hold.worker),
        record.schedule,
        record.doubtful,
    )
    return _write(record, ended, executions, after.standing)
