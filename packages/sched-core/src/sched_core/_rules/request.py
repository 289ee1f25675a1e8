"""Requests: a trigger, a rerun and a backfill add occurrences to those of the schedule."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime

from sched_core._model.claim import Requested
from sched_core._model.execution import Kind
from sched_core._model.job import Job
from sched_core._model.occurrence import MOST_REQUESTS, Pending
from sched_core._rules.grid import TICK, requestable_grid
from sched_core._rules.operate import activated, is_placeholder
from sched_core._rules.standing import has_begun, is_held_back, with_due_at
from sched_core._support.values import evolve
from sched_core.errors import InvalidDefinition, TooManyRequests
from sched_core.schedule import counts_from_end


def trigger(
    job: Job,
    *,
    now: datetime,
    args: Mapping[str, str] | None = None,
    key: str | None = None,
    actor: str | None = None,
) -> Requested:
    """Return the job with one more occurrence, due now.

    An earlier request answers this one, too, if it has the same key; without key and arguments, if
    it is as plain, may run and has not begun.

    Raises:
        TooManyRequests: 16 wait already.
    """
    for one in job.standing.requests:
        is_plain = one.kind is Kind.TRIGGERED and one.key is None and one.args is None
        waits = is_plain and not has_begun(job, one) and not is_held_back(job.standing, one)
        if key is None and args is None and waits and one.due_at <= now:
            return Requested(job, one.number)
    asked = Pending(0, now, now, Kind.TRIGGERED, key=key, args=args, actor=actor)
    return _with_request(job, asked, now)


def rerun(
    job: Job,
    moment: datetime,
    *,
    now: datetime,
    key: str,
    args: Mapping[str, str] | None = None,
    actor: str | None = None,
) -> Requested:
    """Return the job with one more occurrence for a moment that has had one.

    Args:
        job: The job as it is stored, with what is held of it.
        moment: The nominal moment of the execution that is repeated.
        now: The present moment, by the clock that decides.
        key: The execution's id: while it is repeated, repeating it again is the same.
        args: The arguments of the execution.
        actor: Who asks for it.

    Raises:
        TooManyRequests: 16 wait already.
    """
    one = Pending(0, moment, now, Kind.RERUN, key=key, args=args, actor=actor)
    return _with_request(job, one, now)


def repeat(
    job: Job,
    moments: Sequence[datetime],
    *,
    now: datetime,
    kind: Kind,
    key: str | None = None,
    args: Mapping[str, str] | None = None,
    actor: str | None = None,
) -> Requested:
    """Return the job with an occurrence for each of these moments: one request for all.

    They run one after the other. What earlier requests of the kind name and have not run is not
    asked for a second time; where nothing else is left, the newest of them answers this one, too.

    Args:
        job: The job as it is stored, with what is held of it.
        moments: The nominal moments, in order, each once; from 1 to 10,000.
        now: The present moment, by the clock that decides.
        kind: ``RERUN`` or ``BACKFILLED``.
        key: While a request with it has not ended, this one is the same.
        args: The arguments of what is repeated.
        actor: Who asks for it.

    Raises:
        TooManyRequests: 16 wait already.
    """
    for other in job.standing.requests:
        if key is not None and (other.kind, other.key) == (kind, key):
            return Requested(job, other.number)
    left, before = list(moments), None
    for other in job.standing.requests:
        if other.kind is kind and other.until is None and other.args == args:
            named = {other.scheduled_at, *other.moments}
            rest = [moment for moment in left if moment not in named]
            before, left = (before if rest == left else other), rest
    if before is not None and not left:
        return Requested(job, before.number)
    first, *further = left
    one = Pending(0, first, now, kind, key=key, args=args, actor=actor, moments=tuple(further))
    return _with_request(job, one, now)


def backfill(
    job: Job, *, since: datetime, until: datetime, now: datetime, actor: str | None = None
) -> Requested:
    """Return the job with an occurrence for each moment of its schedule from one to the other.

    They are one request, and run one after the other. Calendar moments may lie before the anchor.

    Raises:
        InvalidDefinition: There is no such moment up to now.
        TooManyRequests: 16 wait already.
    """
    first = first_to_backfill(job, since, until, now)
    key = f"{since.isoformat()}/{until.isoformat()}"
    one = Pending(0, first, now, Kind.BACKFILLED, key=key, until=until, actor=actor)
    return _with_request(job, one, now)


def first_to_backfill(job: Job, since: datetime, until: datetime, now: datetime) -> datetime:
    """Return the schedule's first moment of a range.

    Raises:
        InvalidDefinition: There is none, or the range ends after now.
    """
    first = (
        None
        if counts_from_end(job.spec.schedule)
        else requestable_grid(job, since).after(since - TICK)
    )
    if first is None or first > until or until > now:
        raise InvalidDefinition(
            "start", "the schedule has no moment from it to `end`, or `end` lies in the future"
        )
    return first


def _with_request(job: Job, one: Pending, now: datetime) -> Requested:
    for other in job.standing.requests:
        if one.key is not None and (other.kind, other.key) == (one.kind, one.key):
            return Requested(job, other.number)
    if is_placeholder(job.standing):
        job = activated(job, now)
    standing = job.standing
    if len(standing.requests) >= MOST_REQUESTS:
        raise TooManyRequests(
            "id",
            f"{MOST_REQUESTS} requests of job {job.spec.id!r} wait already: let them run, "
            "or cancel some",
        )
    number = standing.last_number + 1
    requests = (*standing.requests, evolve(one, number=number, origin=number))
    asked = evolve(standing, last_number=number, requests=requests)
    return Requested(evolve(job, standing=with_due_at(job, asked, now)), number)
