"""What both dialects decide alike; no SQL in here, and nothing about a claim but the short way."""

from __future__ import annotations

from collections.abc import Sequence

from sched_core import Job, Settlement
from sched_core.errors import JobAlreadyExists
from sched_sql._shared.standings import only_run_fields_differ


def is_plain_run(settlement: Settlement) -> bool:
    """Whether it ends a plain run, whose execution is new if the row is as it was claimed.

    Such a settlement changes nothing but ``RUN_COLUMNS`` and appends its execution; the row's
    revision is the only thing that must be looked at. Everything else goes through
    :class:`sched_core.row.Row`.

    An occurrence that is pending with so many attempts has no execution of a later attempt, and no
    final one: whatever writes one of them writes the standing with it.
    """
    claim, standing, executions = settlement.claim, settlement.standing, settlement.executions
    if standing is None or len(executions) != 1:
        return False
    job, execution = claim.job, executions[0]
    one = job.standing.scheduled
    if one is None or execution.number != one.number or execution.uid != job.uid:
        return False
    left = standing.scheduled
    return (
        settlement.expected == job.revision
        and only_run_fields_differ(job.standing, standing)
        and (execution.attempt == 0 or execution.attempt == one.attempts + 1)
        and (left is None or left.number != one.number or 0 < execution.attempt <= left.attempts)
    )


def revised(job: Job, revision: int) -> Job:
    """Return the job with the revision that the store gave it, and without a claim."""
    parts = job.spec, job.uid, job.declared, job.anchor, job.standing
    return Job(*parts, revision, actor=job.actor)


def reject_duplicate_ids(jobs: Sequence[Job]) -> None:
    """Refuse jobs of which two have the same id.

    Raises:
        JobAlreadyExists: Names the id.
    """
    seen: set[str] = set()
    for job in jobs:
        if job.id in seen:
            raise JobAlreadyExists(job.id)
        seen.add(job.id)


def after_prefix(prefix: str) -> str | None:
    """Return the first text after all that begin with the prefix, ``None`` if there is none."""
    while prefix:
        code = ord(prefix[-1]) + 1
        if code <= 0x10FFFF:
            return prefix[:-1] + chr(0xE000 if 0xD800 <= code <= 0xDFFF else code)
        prefix = prefix[:-1]
    return None
