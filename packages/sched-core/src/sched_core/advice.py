"""Advice about definitions that are right and may surprise: sentences for people, no errors."""

from __future__ import annotations

from datetime import datetime, timedelta
from functools import lru_cache
from itertools import pairwise

from sched_core._model.job import Job, JobSpec
from sched_core._model.policy import Drop
from sched_core._rules.moment import stray, without_future_waits
from sched_core.schedule import Cron, Schedule, dst_warnings, first_occurrence, parts, upcoming

MOST = 3
"""The most sentences about nights of one schedule; in most zones a year has two such nights."""


def advise(spec: JobSpec, *, now: datetime) -> list[str]:
    """Return what may surprise the author of a definition; nothing for most.

    Args:
        spec: The definition.
        now: The moment from which on it would hold, timezone-aware.

    Returns:
        One sentence for each of these: the schedule has no occurrence; nights of the coming year in
        which local times are missing or come twice, with their dates; two restricted day fields,
        which cron joins by *or*; a jitter that outlasts the gap to the next occurrence, or the
        time after which an occurrence is dropped, or counts as overdue.
    """
    schedule, policy = spec.schedule, spec.policy
    found = []
    first = first_occurrence(schedule, now)
    if first is None:
        found.append("the schedule has no occurrence: the job is finished at once")
    found += _of_crons(schedule, now.replace(hour=0, minute=0, second=0, microsecond=0))
    if policy.jitter:
        if isinstance(policy.misfire, Drop) and policy.misfire.grace < policy.jitter:
            found.append(
                f"policy.jitter ({policy.jitter}) is more than the grace of Drop "
                f"({policy.misfire.grace}): what the jitter delays beyond that is dropped"
            )
        if policy.overdue is not None and policy.overdue <= policy.jitter:
            found.append(
                f"policy.jitter ({policy.jitter}) is not below policy.overdue ({policy.overdue}): "
                "what nothing but the jitter delays counts as overdue"
            )
        gap = _shortest_gap(schedule, now)
        if gap is not None and gap <= policy.jitter:
            found.append(
                f"policy.jitter ({policy.jitter}) is not below the gap of {gap} between "
                "occurrences: some are coalesced into the one before"
            )
    return found


def far_ahead(job: Job, *, now: datetime) -> str | None:
    """Return what a clock that was far ahead has left behind in a stored job, ``None`` for most.

    Args:
        job: The job as it is stored.
        now: The present moment, timezone-aware.
    """
    moment, one = stray(job, now=now), job.standing.scheduled
    if moment is not None and one is not None:
        return (
            f"its next moment is {one.scheduled_at:%Y-%m-%d %H:%M:%S}Z, and that of its schedule "
            f"{moment:%Y-%m-%d %H:%M:%S}Z: a clock was far ahead; scheduler.reanchor_job mends it"
        )
    if without_future_waits(job, now=now) is not job:
        return (
            "it has a retry or a request that waits for a moment as far ahead as a clock was; "
            "scheduler.reanchor_job mends it"
        )
    return None


def _of_crons(schedule: Schedule, day: datetime) -> list[str]:
    if isinstance(schedule, Cron):
        return list(_of_cron(schedule, day))
    found = [sentence for part in parts(schedule) for sentence in _of_crons(part, day)]
    return list(dict.fromkeys(found))


@lru_cache(maxsize=1024)
def _of_cron(cron: Cron, day: datetime) -> tuple[str, ...]:
    """Look once a day at each expression, however many jobs have it."""
    found = dst_warnings(cron, day)[:MOST]
    fields = cron.expression.split()
    if len(fields) >= 5 and not (fields[-3].startswith("*") or fields[-1].startswith("*")):
        found.append(
            f"{cron.expression!r} restricts the day of month and the day of week: cron runs it "
            "on each day that matches one of them"
        )
    return tuple(found)


def _shortest_gap(schedule: Schedule, now: datetime) -> timedelta | None:
    moments = upcoming(schedule, now, 5)
    gaps = [later - earlier for earlier, later in pairwise(moments)]
    return min(gaps, default=None)
