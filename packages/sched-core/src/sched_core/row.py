"""The record of one job as backends store it, and what each call of the port does to it.

A backend loads a row and calls the method of the port's name on it, which changes the row and
writes executions through the :class:`History`; then it saves both, in one transaction of its
store::

    with transaction() as data:
        data.row(job.id).replace(job, executions, revision=data.next_number(), to=data)

Nothing here waits, or reads a clock, or knows a store. Backends that do the same in SQL or in
messages use the decisions about claims, which this module offers as functions: ``current``,
``held``, ``renewed``, ``lapse``, ``freed``, ``is_held_by``, ``is_left_to_claim``, ``as_left``,
``is_to_be_cancelled``, ``is_repeat`` and ``leaves_pending``; ``kept`` says how long the executions
of a hold are kept where that is not stored with it. ``Filling`` keeps count of a worker's room, and
``Tally`` counts for ``counts``.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any, Protocol

from attrs import define, evolve

from sched_core._model.claim import Claim, Filling, Hold, Renewal, Settled, Settlement
from sched_core._model.execution import Execution, bounded
from sched_core._model.job import Job, check_text
from sched_core._model.occurrence import Standing
from sched_core._model.survey import Tally, error_kind
from sched_core._rules.hold import (
    as_left,
    freed,
    held,
    is_held_by,
    is_left_to_claim,
    is_repeat,
    is_to_be_cancelled,
    lapse,
    leaves_pending,
    renewed,
)
from sched_core._rules.record import kept
from sched_core._rules.standing import current
from sched_core.codec import (
    Malformed,
    Record,
    decode_hold,
    decode_job,
    encode_hold,
    encode_job,
    readable,
)
from sched_core.errors import JobAlreadyExists, JobNotFound, JobUndecodable, RevisionConflict
from sched_core.ports import Undecodable, UndecodableExecution

__all__ = [
    "CLAIM_LOST",
    "WRITTEN",
    "Filling",
    "History",
    "Row",
    "Tally",
    "as_left",
    "bounded",
    "check_text",
    "current",
    "error_kind",
    "freed",
    "held",
    "is_held_by",
    "is_left_to_claim",
    "is_repeat",
    "is_to_be_cancelled",
    "kept",
    "lapse",
    "leaves_pending",
    "renewed",
    "same_as_read",
    "with_hold",
]

WRITTEN = Settled("written")
CLAIM_LOST = Settled("claim_lost")


class History(Protocol):
    """The executions of all jobs, as far as a row must know them."""

    def stored(self, execution_id: str) -> Execution | UndecodableExecution | None:
        """Return the execution with the id."""
        ...

    def append(self, execution: Execution) -> None:
        """Add an execution; where one with its id is stored, leave that as it is."""
        ...


def with_hold(job: Job, hold: Hold | None) -> Job:
    """Return a job as a reader gets it: with what a claim holds of it."""
    if hold is None or hold.pending is None or hold.uid != job.uid:
        number = at = None
    else:
        number, at = hold.pending.number, hold.claimed_at
    if job.held == number and job.held_at == at:
        return job
    return evolve(job, held=number, held_at=at)


def same_as_read(job: Job, stored: Job) -> bool:
    """Whether a job that a caller has read and edited is still what is stored.

    What an edit does to an occurrence depends on whether it has begun, so a claim that was made or
    ended in the meantime is a change, too.

    Args:
        job: The edited job.
        stored: The stored job as a caller would read it now, by :func:`with_hold`.
    """
    return (job.uid, job.revision, job.held, job.held_at) == (
        stored.uid,
        stored.revision,
        stored.held,
        stored.held_at,
    )


@define
class Row:
    """The record of one id: the job, and apart from it the claim that holds it.

    Attributes:
        job: The job; ``None`` for a tombstone, which carries a hold, and for an empty row.
        hold: The claim that has not ended.
        ended: The token and the worker of the newest claim that was settled: they tell a repeat.
    """

    job: Job | Undecodable | None = None
    hold: Hold | None = None
    ended: tuple[int, str] | None = None

    # -- questions

    def is_empty(self) -> bool:
        """Whether there is nothing to store: delete it."""
        return self.job is None and self.hold is None

    def due(self) -> datetime | None:
        """Return the moment from which on to call :meth:`claim`, ``None`` for never.

        The moment of a held row is the end of its lease, whether or not its job is due.
        """
        if isinstance(self.job, Undecodable):
            return None
        if self.hold is not None:
            return self.hold.expires_at
        return None if self.job is None else self.job.standing.due_at

    def read(self) -> Job | Undecodable | None:
        """Return the job as ``get`` and ``jobs`` return it: with what is held of it."""
        return with_hold(self.job, self.hold) if isinstance(self.job, Job) else self.job

    def readable(self, job_id: str) -> Job:
        """Return the job as a reader gets it.

        Raises:
            JobNotFound: There is none.
            JobUndecodable: It cannot be read here.
        """
        job = self.read()
        if job is None:
            raise JobNotFound(job_id)
        if isinstance(job, Undecodable):
            raise JobUndecodable(job_id, job.reason)
        return job

    def has_expired(self, now: datetime) -> bool:
        """Whether ``prune`` may delete it: the job has expired, and no claim holds it."""
        expires_at = self.job.standing.expires_at if isinstance(self.job, Job) else None
        return expires_at is not None and expires_at <= now and self.hold is None

    def refuses(self, job: Job) -> bool:
        """Whether the id is taken: by another incarnation, or by what cannot be read."""
        stored = self.job
        return stored is not None and not (isinstance(stored, Job) and stored.uid == job.uid)

    # -- definitions

    def add(self, job: Job, revision: int) -> Job:
        """Store a new job, or return the stored one if this is a repeat; a hold stays.

        Raises:
            JobAlreadyExists: Another incarnation is stored, or what cannot be read.
        """
        if self.refuses(job):
            raise JobAlreadyExists(job.id)
        if self.job is None:
            self.job = _stored(job, job.standing, revision)
        return self.readable(job.id)

    def replace(self, job: Job, executions: Sequence[Execution], revision: int, to: History) -> Job:
        """Store an edited job, and write its executions, except those that are left to a claim.

        Raises:
            JobNotFound: There is none.
            RevisionConflict: It was edited, claimed or freed since the job was read.
            JobUndecodable: It cannot be read here.
        """
        if not same_as_read(job, self.readable(job.id)):
            raise RevisionConflict(job.id)
        self.job = _stored(job, job.standing, revision)
        self._write(executions, to)
        return self.readable(job.id)

    def remove(self, job: Job, executions: Sequence[Execution], to: History) -> None:
        """Remove the job; a held one leaves a tombstone. Write executions as :meth:`replace` does.

        Raises:
            JobNotFound: There is none.
            RevisionConflict: It was edited, claimed or freed since the job was read.
            JobUndecodable: It cannot be read here.
        """
        if not same_as_read(job, self.readable(job.id)):
            raise RevisionConflict(job.id)
        self.job = None
        self._write(executions, to)

    def _write(self, executions: Sequence[Execution], to: History) -> None:
        for each in executions:
            if not is_left_to_claim(self.hold, each):
                to.append(each)
        self.hold = as_left(self.hold, executions)

    # -- claims

    def lapse(self, now: datetime, revision: int, to: History) -> tuple[Execution, ...]:
        """Free the row of a claim whose lease has ended; return the executions that it wrote.

        Nothing happens where there is no such claim. The job may be due later now.
        """
        hold, job = self.hold, self.job
        if hold is None or hold.expires_at > now or isinstance(job, Undecodable):
            return ()
        after, executions = lapse(job, hold, now=now)
        if after is not None and after is not job:
            self.job = evolve(after, revision=revision)
        self.hold = None
        for each in executions:
            to.append(each)
        return executions

    def claim(self, token: int, worker: str, now: datetime, lease: timedelta) -> Claim | None:
        """Hand the job out if it is due and no claim holds it; call :meth:`lapse` first."""
        job = self.job
        if self.hold is not None or not isinstance(job, Job):
            return None
        due_at = job.standing.due_at
        if due_at is None or due_at > now:
            return None
        self.hold = hold = held(job, current(job.standing), token, worker, now, lease)
        return Claim(job, token, worker, now, hold.expires_at)

    def renew(self, renewal: Renewal, now: datetime, lease: timedelta) -> Claim | None:
        """Extend the lease, also one that has ended; ``None`` if the claim holds nothing.

        The returned claim tells whether its run is to be cancelled. Where others can lock the
        stored row, store the renewal apart from it: a lease that ended because its row was locked
        is no reason to :meth:`lapse` before its worker could renew it.
        """
        claim, hold, job = renewal.claim, self.hold, self.job
        if hold is None or not is_held_by(hold, claim):
            return None
        self.hold = hold = renewed(hold, now, lease, alone=renewal.alone, progress=renewal.progress)
        cancel = is_to_be_cancelled(job if isinstance(job, Job) else None, hold)
        return Claim(
            claim.job, claim.token, claim.worker, claim.claimed_at, hold.expires_at, cancel
        )

    def release(self, claim: Claim, now: datetime, to: History) -> bool:
        """Free a claim whose handler was not called; return whether it held the row.

        An occurrence that was edited or removed away in the meantime ends here.
        """
        hold, job = self.hold, self.job
        if hold is None or not is_held_by(hold, claim):
            return False
        self.hold = None
        for each in freed(job if isinstance(job, Job) else None, hold, now=now):
            to.append(each)
        return True

    def settle(self, settlement: Settlement, now: datetime, revision: int, to: History) -> Settled:
        """End a claim with its standing and its executions, or say why not."""
        hold, job, standing = self.hold, self.job, settlement.standing
        claim = settlement.claim
        if hold is None or not is_held_by(hold, claim):
            fence = claim.token, claim.worker
            found = tuple(to.stored(each.id) for each in settlement.executions)
            repeat = self.ended == fence or is_repeat(settlement, found)
            return WRITTEN if repeat else CLAIM_LOST
        if isinstance(job, Undecodable):
            return CLAIM_LOST
        edited = standing is not None and (job is None or job.revision != settlement.expected)
        if edited or (standing is None and leaves_pending(job, hold, settlement)):
            return Settled("conflict", None if job is None else with_hold(job, hold))
        for each in freed(job, hold, settlement.executions, now=now):
            to.append(each)
        self.hold, self.ended = None, (hold.token, hold.worker)
        if job is not None and standing is not None:
            # Three times as fast as evolve, on the way of every run.
            self.job = _stored(job, standing, revision)
        return WRITTEN

    # -- as a value to store

    def encode(self) -> Record:
        """Return what :meth:`decode` reads: a header, and a body that is parsed if it can be.

        Raises:
            ValueError: The row is empty: delete it.
        """
        if self.is_empty():
            raise ValueError("an empty row is deleted, not stored")
        if isinstance(self.job, Undecodable):
            return Record(self.job.format, self.job.tag, self.job.record)
        parts = {
            "job": None if self.job is None else _encoded(encode_job(self.job)),
            "hold": None if self.hold is None else _encoded(encode_hold(self.hold)),
            "ended": self.ended,
        }
        header = parts["job"] or parts["hold"] or []
        return Record(header[0], header[1], json.dumps(parts, ensure_ascii=False).encode())

    @classmethod
    def decode(cls, job_id: str, record: Record) -> Row:
        """Return the row; what this version cannot read is encoded again as it was."""
        reason = readable(record.format, record.tag)
        if reason is None:
            try:
                return cls._decode(json.loads(record.body))
            except Malformed as error:
                reason = str(error)
            except Exception as error:  # noqa: BLE001 -- whatever bytes of others make of the parts
                reason = f"the row is malformed: {type(error).__name__}: {error}"[:500]
        return cls(Undecodable(job_id, reason, record.format, record.body, record.tag))

    @classmethod
    def _decode(cls, parts: dict[str, Any]) -> Row:
        job, hold, ended = parts["job"], parts["hold"], parts["ended"]
        return cls(
            None if job is None else decode_job(_record(job)),
            None if hold is None else decode_hold(_record(hold)),
            None if ended is None else (ended[0], ended[1]),
        )


def _stored(job: Job, standing: Standing, revision: int) -> Job:
    """Return a job as it is stored: without what a claim holds of it."""
    return Job(job.spec, job.uid, job.declared, job.anchor, standing, revision, actor=job.actor)


def _encoded(record: Record) -> list[Any]:
    return [record.format, record.tag, record.body.decode()]


def _record(parts: list[Any]) -> Record:
    return Record(parts[0], parts[1], parts[2].encode())
