"""What operators name: occurrences by their keys, and themselves."""

from __future__ import annotations

from typing import NamedTuple

from sched_core._model.execution import bounded
from sched_core._model.job import Job, check_text
from sched_core.errors import InvalidDefinition, shown
from sched_core.ports import Backend, JobQuery

PAGE = 200
"""Jobs or executions that are read at once."""
LARGEST_NUMBER = 2**60
"""Occurrences are never numbered as high."""


class Name(NamedTuple):
    """An occurrence's name, in its parts."""

    uid: str
    number: int


def occurrence_of(key: object, field: str = "key") -> Name:
    """Return the parts of an idempotency key.

    Raises:
        InvalidDefinition: It is none.
    """
    check_text(field, key)
    uid, _, number = str(key).rpartition(":")
    if not uid or not (number.isascii() and number.isdecimal()) or len(number) > 19:
        raise InvalidDefinition(
            field,
            f"must be an idempotency key such as event.key or what trigger_job returns, "
            f"not {shown(key)}",
        )
    return Name(uid, min(int(number), LARGEST_NUMBER))


def checked_actor(actor: str | None) -> str | None:
    """Return who does something, as the caller names it.

    Raises:
        InvalidDefinition: It is no text of 1 to 255 characters.
    """
    if actor is not None:
        check_text("actor", actor)
    return actor


def checked_reason(reason: str | None) -> str | None:
    """Return a reason, cut to what an execution can keep.

    Raises:
        InvalidDefinition: It is no text.
    """
    if reason is None:
        return None
    if not isinstance(reason, str):
        raise InvalidDefinition("reason", f"must be a string, not {shown(reason)}")
    return bounded(reason)


async def job_of(backend: Backend, uid: str) -> Job | None:
    """Return the stored job of an incarnation."""
    after = None
    while True:
        page = await backend.jobs(JobQuery(uid=uid), after=after, limit=PAGE)
        for job in page.items:
            if isinstance(job, Job) and job.uid == uid:
                return job
        if (after := page.next) is None:
            return None
