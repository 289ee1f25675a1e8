"""Every decision about a record: what may be written over it, and what that says. Pure.

A record is only ever replaced by a compare-and-set on its sequence, so each function takes what was
read and returns what to write in its place, with the ledger lines of the same step, or an answer.
The rules are those of :class:`sched_core.MemoryBackend`, for one row that lives elsewhere.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from typing import Literal

from attrs import evolve, frozen

from sched_core.errors import (
    JobAlreadyExists,
    JobNotFound,
    JobUndecodable,
    RevisionConflict,
)
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
from sched_core.ports import Undecodable
from sched_jetstream.record import (
    Hold,
    Record,
    Released,
    held_claim,
    record_of,
    remember,
    with_hold,
)


@frozen
class Found:
    """What lies under the subject of a record.

    Attributes:
        token: Of the subject.
        sequence: What a compare-and-set must expect: of the message, 0 where there is none.
        content: ``None`` where nothing is stored, or only the mark that something was removed.
    """

    token: str
    sequence: int
    content: Record | Undecodable | None

    def record(self, job_id: str) -> Record:
        """Return what can be read; an empty one where nothing is stored."""
        return self.content if isinstance(self.content, Record) else Record(job_id, None)


@frozen
class Write:
    """What replaces a record.

    Attributes:
        job_id: Of the record.
        record: ``None`` leaves only the mark that something was removed.
        lines: For the ledger, in the same step.
        unsure: Lines of which it is not certain that they are new: look before writing them.
    """

    job_id: str
    record: Record | None
    lines: Sequence[Execution] = ()
    unsure: bool = False


WRITTEN = Settled("written")
CLAIM_LOST = Settled("claim_lost")
LONG_AGO: Literal["long ago"] = "long ago"
"""The claim is no more: only the ledger can tell whether this settlement was written."""


# -- definitions -------------------------------------------------------------


def add(found: Found, job: Job) -> Write | Job:
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
            return old.job
        raise JobAlreadyExists(job.id)
    new = record_of(evolve(job, revision=0))
    if stored is None:
        return Write(job.id, new)
    return Write(job.id, evolve(new, hold=remember(old), ended=old.ended, schedule=old.schedule))


def replace(found: Found, job: Job, ledger: Sequence[Execution]) -> Write:
    """Store another state of a job.

    Raises:
        JobUndecodable, JobNotFound, RevisionConflict: As the port says.
    """
    old = _readable(found, job.id)
    if old.job is None:
        raise JobNotFound(job.id)
    if old.job.revision != job.revision:
        raise RevisionConflict(job.id)
    fresh = record_of(evolve(job, revision=0))
    if fresh.definition == old.definition:
        fresh = evolve(fresh, definition=old.definition)
    same = old.job.uid == job.uid
    moved = not same or old.job.standing.number != job.standing.number
    lines = _once(line for line in ledger if not _held(line, old))
    return Write(
        job.id,
        evolve(
            fresh,
            hold=remember(old),
            ended=old.ended,
            released=None if moved else old.released,
            schedule=old.schedule,
            closed=_closed(old.closed if same else 0, job.uid, lines),
        ),
        lines,
        unsure=_unsure(old, lines),
    )


def remove(
    found: Found, job_id: str, ledger: Sequence[Execution], expected: int | None
) -> Write | None:
    """Remove a job; ``None`` where there is none.

    Raises:
        JobUndecodable, RevisionConflict: As the port says.
    """
    old = _readable(found, job_id)
    if old.job is None:
        return None
    if expected is not None and old.job.revision != expected:
        raise RevisionConflict(job_id)
    lines = _once(line for line in ledger if not _held(line, old))
    tombstone = None
    if old.hold is not None:
        tombstone = Record(job_id, None, hold=remember(old), ended=old.ended, schedule=old.schedule)
    return Write(job_id, tombstone, lines, unsure=_unsure(old, lines))


def _readable(found: Found, job_id: str) -> Record:
    if isinstance(found.content, Undecodable):
        raise JobUndecodable(job_id, found.content.reason)
    return found.record(job_id)


def _held(line: Execution, record: Record) -> bool:
    """Whether the line is about the held occurrence: its fate is what the claim ends with."""
    hold, job = record.hold, record.job
    if hold is None:
        return False
    if hold.was is not None:
        return (line.uid, line.number) == (hold.was.uid, hold.was.number)
    return job is not None and (line.uid, line.number) == (job.uid, job.standing.number)


def _once(lines: Iterable[Execution]) -> list[Execution]:
    """Leave out what would be written twice by one step: a line, or the end of an occurrence."""
    kept: list[Execution] = []
    for line in lines:
        twice = any(
            line.id == other.id
            or (line.final and other.final and (line.uid, line.number) == (other.uid, other.number))
            for other in kept
        )
        if not twice:
            kept.append(line)
    return kept


def _closed(closed: int, uid: str, lines: Sequence[Execution]) -> int:
    for line in lines:
        if line.final and line.uid == uid and line.number > closed:
            closed = line.number
    return closed


def _unsure(record: Record, lines: Sequence[Execution]) -> bool:
    job = record.job
    return any(
        job is None or not line.final or line.uid != job.uid or line.number <= record.closed
        for line in lines
    )


# -- hints -------------------------------------------------------------------


class Verdict(enum.Enum):
    """What a hint is worth, by the record that it points at."""

    DUE = "due"
    """Since :attr:`Judged.at`, or then, which is near."""
    HELD = "held"
    """Somebody has the job until :attr:`Judged.at`."""
    IDLE = "idle"
    """Nothing is due, or it is far off and has a schedule of its own."""


@frozen
class Judged:
    """A verdict and its moment."""

    verdict: Verdict
    at: datetime | None = None


_IDLE = Judged(Verdict.IDLE)


def judge(found: Found, now: datetime, *, near: timedelta) -> Judged:
    """Say what a hint for this record is worth now."""
    record = found.content
    if not isinstance(record, Record):
        return _IDLE
    due = None if record.job is None else record.job.standing.due_at
    hold = record.hold
    if hold is not None:
        if record.job is not None and due is None:
            return _IDLE
        if hold.until > now:
            return Judged(Verdict.HELD, hold.until)
        if record.job is None:
            return Judged(Verdict.DUE, hold.until)
    if due is None:
        return _IDLE
    # A hold that has ended plays no part: lost claims come in the order of due_at, as all do.
    return Judged(Verdict.DUE, due) if due <= now + near else _IDLE


# -- claims ------------------------------------------------------------------


@frozen
class Taken:
    """What claiming writes.

    Attributes:
        write: The record with the new hold, or without the old one.
        claim: ``None`` where only a tombstone was cleared away.
    """

    write: Write
    claim: Claim | None


def claim(
    found: Found, now: datetime, *, worker: str, lease: timedelta, orphaned: bool = False
) -> Taken | None:
    """Claim a job that is due and that nobody holds; ``None`` where it is not.

    Args:
        found: What was read.
        now: By the clock that decides.
        worker: Who claims.
        lease: For how long.
        orphaned: The hold is one that this worker wrote and never learned of.
    """
    old = found.content
    if not isinstance(old, Record):
        return None
    job, hold = old.job, old.hold
    due = None if job is None else job.standing.due_at
    if hold is not None and hold.until > now and not orphaned:
        return None
    if job is not None and (due is None or due > now):
        return None
    lines: tuple[Execution, ...] = ()
    lost: LostClaim | None = None
    closed = old.closed
    if hold is not None and orphaned:
        lost = hold.lost
    elif hold is not None:
        moved_on = job is None or (hold.was is not None and not _stands_at(job, hold.was))
        taken = held_claim(old)
        if taken is not None:
            lines = abandoned_lines(taken, now, moved_on=moved_on)
            if job is not None:
                closed = _closed(closed, job.uid, lines)
        if not moved_on:
            lost = LostClaim(
                (0 if hold.lost is None else hold.lost.count) + 1, hold.worker, hold.claimed_at
            )
    if job is None:
        return Taken(Write(old.id, None, lines), None)
    released = old.released
    if released is not None and lost is None and _stands_at(job, released):
        lost = released.lost
    token = found.sequence
    new = Hold(token, worker, now, now + lease, lost)
    record = with_hold(old, new, None, closed)
    return Taken(Write(job.id, record, lines), Claim(job, token, worker, now, now + lease, lost))


def _stands_at(job: Job | None, occurrence: Released | object) -> bool:
    return (
        job is not None
        and job.uid == getattr(occurrence, "uid", None)
        and job.standing.number == getattr(occurrence, "number", None)
    )


def same(record: Record, claim: Claim) -> bool:
    """Whether the record is held by this claim."""
    hold = record.hold
    return hold is not None and hold.token == claim.token and hold.worker == claim.worker


def renew(found: Found, claim: Claim, until: datetime) -> Write | None:
    """Extend the hold; ``None`` where it is not this claim's any more."""
    record = found.content
    if not isinstance(record, Record) or record.hold is None or not same(record, claim):
        return None
    return Write(claim.job.id, evolve(record, hold=evolve(record.hold, until=until)))


def release(found: Found, claim: Claim, now: datetime) -> Write | None:
    """Free the hold as if it had never been; ``None`` where it is not this claim's any more."""
    record = found.content
    if not isinstance(record, Record) or record.hold is None or not same(record, claim):
        return None
    hold, job = record.hold, record.job
    moved_on = job is None or (hold.was is not None and not _stands_at(job, hold.was))
    lines: tuple[Execution, ...] = ()
    released, closed = record.released, record.closed
    if moved_on:
        held = held_claim(record)
        lines = () if held is None else (superseded_line(held, now),)
        if job is not None:
            closed = _closed(closed, job.uid, lines)
    elif hold.lost is not None and job is not None:
        released = Released(job.uid, job.standing.number, hold.lost)
    if job is None:
        return Write(claim.job.id, None, lines)
    return Write(
        claim.job.id,
        with_hold(record, None, released, closed),
        lines,
    )


# -- settlements -------------------------------------------------------------


def settle(found: Found, settlement: Settlement) -> Write | Settled | Literal["long ago"]:
    """End a claim: return what to write, or the answer, or that only the ledger knows it."""
    claim = settlement.claim
    record = found.content
    if isinstance(record, Undecodable):
        return LONG_AGO
    if record is None or not same(record, claim):
        if record is not None and record.ended == (claim.token, claim.worker):
            return WRITTEN
        return LONG_AGO
    job, standing = record.job, settlement.standing
    if standing is not None and (job is None or job.revision != settlement.expected):
        return Settled("conflict", job)
    held = held_claim(record)
    held_uid = claim.job.uid if held is None else held.job.uid
    held_number = claim.job.standing.number if held is None else held.job.standing.number
    stands = job is not None and (job.uid, job.standing.number) == (held_uid, held_number)
    lines = settlement.ledger if len(settlement.ledger) < 2 else _once(settlement.ledger)
    unsure = False
    for line in lines:
        if not line.final:
            # Of attempts that are not the last, the record does not keep which have their line.
            unsure = True
            continue
        own = (line.uid, line.number) == (held_uid, held_number)
        if standing is None and stands and own:
            return Settled("conflict", job)
        if job is None or line.uid != job.uid:
            unsure = unsure or not own
        elif line.number <= record.closed:
            unsure = True
    ended = (claim.token, claim.worker)
    if job is None:
        return Write(claim.job.id, None, lines, unsure=unsure)
    closed = _closed(record.closed, job.uid, lines)
    if standing is None:
        if held is not None and held.lost is not None and held.job.uid == job.uid:
            # What was lost is forgotten, and its lines have the ids of the attempts to come.
            closed = max(closed, held.job.standing.number)
        kept = evolve(record, hold=None, ended=ended, closed=closed)
        return Write(claim.job.id, kept, lines, unsure=unsure)
    after = Job(job.spec, job.uid, job.declared, job.anchor, standing, 0)
    return Write(
        claim.job.id,
        Record(record.id, after, record.definition, None, ended, None, record.schedule, closed),
        lines,
        unsure=unsure,
    )
