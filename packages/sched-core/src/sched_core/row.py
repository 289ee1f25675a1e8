"""What is stored under one id, and what each call of the port does to it: for backends to share.

A backend loads a row and calls the method of the port's name on it, which changes the row and
writes lines through the :class:`Ledger`; then it saves both, in one transaction of its store::

    with transaction() as data:
        data.row(job.id).replace(job, ledger, revision=data.next_number(), to=data)

Nothing here waits, or reads a clock, or knows a store. Backends that say the same in SQL or in
messages need none of it; their laws are these.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from typing import Any, Protocol

from attrs import define

from sched_core.clock import LAST
from sched_core.codec import (
    Malformed,
    Record,
    decode_claim,
    decode_job,
    encode_claim,
    encode_job,
    readable,
)
from sched_core.errors import JobAlreadyExists, JobNotFound, JobUndecodable, RevisionConflict
from sched_core.job import (
    Claim,
    Execution,
    Job,
    LostClaim,
    Settled,
    Settlement,
    abandoned_lines,
    superseded_line,
)
from sched_core.ports import Undecodable, UndecodableExecution

WRITTEN = Settled("written")
CLAIM_LOST = Settled("claim_lost")


class Ledger(Protocol):
    """The lines of all jobs, as far as a row must know them."""

    def line(self, line_id: str) -> Execution | UndecodableExecution | None:
        """Return the line with the id."""
        ...

    def has_final(self, uid: str, number: int) -> bool:
        """Whether the occurrence has its final line."""
        ...

    def append(self, line: Execution) -> None:
        """Add a line that is not there."""
        ...


@define
class Row:
    """One id: the job, and apart from it who holds it.

    Attributes:
        job: What comes next; ``None`` for a tombstone, which carries a hold, and for an empty row.
        hold: The claim that has not ended, as it was handed out or renewed.
        ended: Token and worker of the newest claim that was settled: by them a repeat is known.
        released: A claim that took over a lost one and was released: what was lost keeps counting.
    """

    job: Job | Undecodable | None = None
    hold: Claim | None = None
    ended: tuple[int, str] | None = None
    released: Claim | None = None

    # -- what it says

    def is_empty(self) -> bool:
        """Whether there is nothing to store: delete it."""
        return self.job is None and self.hold is None

    def due(self) -> datetime | None:
        """Return from when on :meth:`claim` hands it out or clears it, ``None`` for never."""
        job, hold = self.job, self.hold
        if job is None:
            return None if hold is None else hold.expires_at
        due = job.standing.due_at if isinstance(job, Job) else None
        if due is None or hold is None or hold.expires_at < due:
            return due
        return hold.expires_at

    def is_due(self, now: datetime) -> bool:
        """Whether :meth:`claim` hands it out or clears it now."""
        due = self.due()
        return due is not None and due <= now

    def place_in_queue(self) -> datetime:
        """Return by what rows that are due are ordered: ``due_at``, also after a lost claim.

        A tombstone, of which nothing is handed out, has its place by the end of its lease.
        """
        if isinstance(self.job, Job):
            return self.job.standing.due_at or LAST
        return LAST if self.hold is None else self.hold.expires_at

    def readable(self, job_id: str) -> Job:
        """Return the job.

        Raises:
            JobNotFound: There is none.
            JobUndecodable: It cannot be read here.
        """
        if self.job is None:
            raise JobNotFound(job_id)
        if isinstance(self.job, Undecodable):
            raise JobUndecodable(job_id, self.job.reason)
        return self.job

    def is_held_by(self, claim: Claim) -> bool:
        """Whether the claim is the one that holds it: the fence is token and worker together."""
        hold = self.hold
        return hold is not None and hold.token == claim.token and hold.worker == claim.worker

    def stands_at(self, claim: Claim) -> bool:
        """Whether the job stands at the claimed occurrence: it was neither edited nor removed."""
        job = self.job
        return (
            isinstance(job, Job)
            and job.uid == claim.job.uid
            and job.standing.number == claim.job.standing.number
        )

    def has_expired(self, now: datetime) -> bool:
        """Whether ``prune`` may delete it: the job has expired, and nobody holds it."""
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
            self.job = _revised(job, revision)
        return self.readable(job.id)

    def replace(self, job: Job, lines: Sequence[Execution], revision: int, to: Ledger) -> Job:
        """Store an edited job, and write its lines, but those about the held occurrence.

        Raises:
            JobNotFound: There is none.
            RevisionConflict: Another revision is stored.
            JobUndecodable: It cannot be read here.
        """
        if self.readable(job.id).revision != job.revision:
            raise RevisionConflict(job.id)
        self.job = new = _revised(job, revision)
        _write(lines, to, held=self.hold)
        return new

    def remove(
        self, job_id: str, lines: Sequence[Execution], expected: int | None, to: Ledger
    ) -> bool:
        """Remove the job; a held one leaves a tombstone. Lines are written as by :meth:`replace`.

        Raises:
            RevisionConflict: Another revision than ``expected`` is stored.
            JobUndecodable: It cannot be read here.
        """
        if self.job is None:
            return False
        if self.readable(job_id).revision != expected and expected is not None:
            raise RevisionConflict(job_id)
        self.job = None
        _write(lines, to, held=self.hold)
        return True

    # -- claims

    def claim(
        self, token: int, worker: str, now: datetime, expires_at: datetime, to: Ledger
    ) -> Claim | None:
        """Hand the job out, if it :meth:`is_due`. A lost claim's lines are written.

        Returns:
            The claim; ``None`` if nothing was due or another claim is alive, and the row is as it
            was; also ``None`` if the row was a tombstone, which is empty now.
        """
        if not self.is_due(now):
            return None
        lost, released, self.released = None, self.released, None
        if self.hold is not None:
            lost = self._take_over(self.hold, now, to)
        elif released is not None and self.stands_at(released):
            lost = released.lost
        if not isinstance(self.job, Job):
            return None
        self.hold = claim = Claim(self.job, token, worker, now, expires_at, lost)
        return claim

    def _take_over(self, hold: Claim, now: datetime, to: Ledger) -> LostClaim | None:
        moved_on = not self.stands_at(hold)
        _write(abandoned_lines(hold, now, moved_on=moved_on), to)
        self.hold = None
        if moved_on:
            return None
        earlier = 0 if hold.lost is None else hold.lost.count
        return LostClaim(earlier + 1, hold.worker, hold.claimed_at)

    def renew(self, claim: Claim, expires_at: datetime) -> Claim | None:
        """Extend the lease, also one that has ended; ``None`` if the claim holds nothing.

        Where others can lock the stored row, store the renewal beside it: a lease that ended
        because its row was locked is no reason to :meth:`claim` before its owner could renew.
        """
        hold = self.hold
        if hold is None or not self.is_held_by(claim):
            return None
        self.hold = renewed = Claim(
            hold.job, hold.token, hold.worker, hold.claimed_at, expires_at, hold.lost
        )
        return renewed

    def release(self, claim: Claim, now: datetime, to: Ledger) -> bool:
        """Free a claim whose handler was not called; return whether it held the row."""
        hold = self.hold
        if hold is None or not self.is_held_by(claim):
            return False
        self.hold = None
        if not self.stands_at(hold):
            _write([superseded_line(hold, now)], to)
        elif hold.lost is not None:
            self.released = hold
        return True

    def settle(self, settlement: Settlement, revision: int, to: Ledger) -> Settled:
        """End a claim with its standing and its lines, or say why not."""
        hold, job = self.hold, self.job
        if hold is None or not self.is_held_by(settlement.claim):
            fence = settlement.claim.token, settlement.claim.worker
            return WRITTEN if self.ended == fence or is_written(settlement, to.line) else CLAIM_LOST
        if isinstance(job, Undecodable):
            return CLAIM_LOST
        standing = settlement.standing
        if standing is not None and (job is None or job.revision != settlement.expected):
            return Settled("conflict", job)
        stays = standing is None and self.stands_at(hold)
        for line in settlement.ledger:
            if line.final and (
                (stays and _is_about(line, hold))
                or (to.has_final(line.uid, line.number) and to.line(line.id) is None)
            ):
                return Settled("conflict", job)

        _write(settlement.ledger, to)
        self.hold, self.ended = None, (hold.token, hold.worker)
        if job is not None and standing is not None:
            self.job = Job(job.spec, job.uid, job.declared, job.anchor, standing, revision)
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
            "hold": None if self.hold is None else _encoded(encode_claim(self.hold)),
            "ended": self.ended,
            "released": None if self.released is None else _encoded(encode_claim(self.released)),
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
        job, hold, released = parts["job"], parts["hold"], parts["released"]
        return cls(
            None if job is None else decode_job(_record(job)),
            None if hold is None else decode_claim(_record(hold)),
            None if parts["ended"] is None else (parts["ended"][0], parts["ended"][1]),
            None if released is None else decode_claim(_record(released)),
        )


def _write(lines: Iterable[Execution], to: Ledger, *, held: Claim | None = None) -> None:
    """Add the lines that are not there, end nothing twice, and are not about what is held."""
    for line in lines:
        if to.line(line.id) is not None or (held is not None and _is_about(line, held)):
            continue
        if not (line.final and to.has_final(line.uid, line.number)):
            to.append(line)


def _is_about(line: Execution, claim: Claim) -> bool:
    return line.number == claim.job.standing.number and line.uid == claim.job.uid


def is_written(
    settlement: Settlement, known: Callable[[str], Execution | UndecodableExecution | None]
) -> bool:
    """Whether an earlier try of the same settlement wrote its lines: none that it cannot read.

    Args:
        settlement: The later try.
        known: Returns the line that is stored under an id.
    """
    claim = settlement.claim
    for line in settlement.ledger:
        stored = known(line.id)
        if not isinstance(stored, Execution) or (stored.status, stored.token, stored.worker) != (
            line.status,
            claim.token,
            claim.worker,
        ):
            return False
    return bool(settlement.ledger)


def _revised(job: Job, revision: int) -> Job:
    # Three times as fast as evolve, on the way of every run.
    return Job(job.spec, job.uid, job.declared, job.anchor, job.standing, revision)


def _encoded(record: Record) -> list[Any]:
    return [record.format, record.tag, record.body.decode()]


def _record(parts: list[Any]) -> Record:
    return Record(parts[0], parts[1], parts[2].encode())
