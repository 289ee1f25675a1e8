"""What both dialects decide alike, rule by rule as in ``sched_core.memory``; no SQL in here."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from sched_core.errors import JobAlreadyExists
from sched_core.job import Execution, Job, Settled, Settlement
from sched_sql.rows import differ_by_a_run

WRITTEN = Settled("written")
CLAIM_LOST = Settled("claim_lost")


class Lines(Protocol):
    """Ledger lines that can be found again."""

    def stored(self, line: Execution) -> tuple[str, int, str] | None:
        """Return status, token and worker of the stored line with the same id."""
        ...

    def has_final(self, uid: str, number: int) -> bool:
        """Whether the occurrence has its final line."""
        ...


# -- settling ----------------------------------------------------------------


def is_common(settlement: Settlement) -> bool:
    """Whether it ends a plain run, whose line cannot be stored if the row is as it was claimed."""
    claim, standing, lines = settlement.claim, settlement.standing, settlement.ledger
    if standing is None or len(lines) != 1 or claim.lost is not None:
        return False
    job, line = claim.job, lines[0]
    number = job.standing.number
    return (
        settlement.expected == job.revision
        and differ_by_a_run(job.standing, standing)
        and line.number == number
        and line.uid == job.uid
        and (
            standing.number > number
            if line.final
            else line.attempt == claim.attempt and standing.attempts >= line.attempt
        )
    )


def refusal(
    settlement: Settlement, held: tuple[Any, ...], job: Job | None, lines: Lines
) -> Settled | None:
    """Return why a settlement whose claim still holds cannot be written, ``None`` if it can.

    Args:
        settlement: To be written.
        held: Incarnation and number of the occurrence that the claim holds.
        job: What is stored, ``None`` for a tombstone.
        lines: The ledger, as far as the settlement's lines are concerned.
    """
    if settlement.standing is not None and (job is None or job.revision != settlement.expected):
        return Settled("conflict", job)
    for line in settlement.ledger:
        if not line.final:
            continue
        about = (line.uid, line.number)
        if lines.stored(line) is None and lines.has_final(*about):
            return Settled("conflict", job)
        pending = None if job is None else (job.uid, job.standing.number)
        if settlement.standing is None and about == pending == held:
            return Settled("conflict", job)
    return None


def is_in_ledger(settlement: Settlement, lines: Lines) -> bool:
    """Whether an earlier try of the same settlement wrote its lines."""
    fence = (settlement.claim.token, settlement.claim.worker)
    return bool(settlement.ledger) and all(
        lines.stored(line) == (line.status.value, *fence) for line in settlement.ledger
    )


def is_doubtful(uid: str, number: int, lines: Sequence[Execution]) -> bool:
    """Whether lines end an occurrence that a row at this number has not passed."""
    return any(line.final and line.uid == uid and line.number >= number for line in lines)


# -- jobs --------------------------------------------------------------------


def at_same_occurrence(one: Job, other: Job) -> bool:
    """Whether two states of a job have the same pending occurrence."""
    return one.uid == other.uid and one.standing.number == other.standing.number


def revised(job: Job, revision: int) -> Job:
    """Return the job with the revision that the store gave it."""
    return Job(job.spec, job.uid, job.declared, job.anchor, job.standing, revision)


def refuse_twins(jobs: Sequence[Job]) -> None:
    """Refuse jobs of which two have the same id.

    Raises:
        JobAlreadyExists: Names the id.
    """
    seen: set[str] = set()
    for job in jobs:
        if job.id in seen:
            raise JobAlreadyExists(job.id)
        seen.add(job.id)


# -- listing -----------------------------------------------------------------


def after_prefix(prefix: str) -> str | None:
    """Return the first text after all that begin with the prefix, ``None`` if there is none."""
    while prefix:
        code = ord(prefix[-1]) + 1
        if code <= 0x10FFFF:
            return prefix[:-1] + chr(0xE000 if 0xD800 <= code <= 0xDFFF else code)
        prefix = prefix[:-1]
    return None
