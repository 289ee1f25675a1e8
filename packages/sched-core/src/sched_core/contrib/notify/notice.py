"""Notices: what people are told, with the words for it."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final, Literal, get_args

from attrs import fields, frozen

from sched_core._model.execution import Execution, occurrence_key
from sched_core._model.job import Job
from sched_core._model.occurrence import Pending

NoticeKind = Literal[
    "failed",
    "paused",
    "recovered",
    "missed",
    "overdue",
    "overlap",
    "interrupted",
    "gap",
    "succeeded",
]
KINDS: Final[tuple[NoticeKind, ...]] = get_args(NoticeKind)
"""All kinds, in the order in which summaries are delivered: a recovery comes after its failure."""
DEFAULT_KINDS: Final = frozenset(KINDS) - {"succeeded"}
"""What a notifier tells unless it or its sink says otherwise."""


@frozen
class Notice:
    """What people are told of one occurrence, or of many in one sentence.

    ``kind`` is one of these:

    ===============  ==============================================================================
    ``failed``       an occurrence ended ``failed``, and no retry follows
    ``paused``       ``Policy.pause_after`` has paused the job
    ``recovered``    the first success of a job after a ``failed`` that was delivered
    ``missed``       an occurrence was passed over by the misfire policy
    ``overdue``      an occurrence has not begun for longer than ``Policy.overdue``
    ``overlap``      a run was cancelled because the next moment came
    ``interrupted``  an occurrence was cut off more often than the notifier bears
    ``gap``          a part of the history was deleted before the notifier had read it
    ``succeeded``    an occurrence succeeded
    ===============  ==============================================================================

    Attributes:
        id: The same whenever the notice is delivered again: receivers drop repeats by it.
        kind: What it is about.
        text: All of it in a sentence or two, for people.
        at: When it happened, in UTC; of ``overdue`` and ``gap``, when it was noticed.
        notifier: The name of the notifier.
        job_id: The job's id; ``None`` where it is about many, or a gap.
        key: The occurrence's idempotency key.
        execution_id: The id of the execution, for ``get_execution``.
        attempt: The attempt's number; 0 where nothing ran.
        scheduled_at: The occurrence's nominal moment.
        started_at: When the handler was called.
        reason: Why, as the history has it.
        worker: The worker that wrote the execution.
        count: How many occurrences it is about: 1 unless it is a summary.
    """

    id: str
    kind: NoticeKind
    text: str
    at: datetime
    notifier: str
    job_id: str | None = None
    key: str | None = None
    execution_id: str | None = None
    attempt: int | None = None
    scheduled_at: datetime | None = None
    started_at: datetime | None = None
    reason: str | None = None
    worker: str | None = None
    count: int = 1

    def as_json(self) -> dict[str, Any]:
        """Return all fields by name; moments are ISO 8601 texts."""
        found = {each.name: getattr(self, each.name) for each in fields(Notice)}
        return {
            name: value.isoformat() if isinstance(value, datetime) else value
            for name, value in found.items()
        }


def notice_of(kind: NoticeKind, one: Execution, notifier: str, *, reason: str | None) -> Notice:
    """Return the notice of an execution.

    Args:
        kind: What it is about.
        one: The execution.
        notifier: The notifier's name.
        reason: Why, where that is not the execution's own reason.
    """
    return Notice(
        f"{kind}:{one.id}",
        kind,
        _text(kind, one, reason),
        one.finished_at,
        notifier,
        one.job_id,
        occurrence_key(one.uid, one.number),
        one.id,
        one.attempt,
        one.scheduled_at,
        one.started_at,
        reason,
        one.worker or None,
    )


def _text(kind: NoticeKind, one: Execution, reason: str | None) -> str:
    moment, why = _shown(one.scheduled_at), f": {reason}" if reason else ""
    by = f" (worker {one.worker})" if one.worker else ""
    if kind == "failed":
        at = f" at attempt {one.attempt}" if one.attempt > 1 else ""
        return f"{one.job_id} failed{at}, for {moment}{why}{by}"
    if kind == "paused":
        return f"{one.job_id} is paused after too many failures in a row; resume_job goes on{why}"
    if kind == "recovered":
        return f"{one.job_id} has recovered: it succeeded for {moment}{by}"
    if kind == "missed":
        until = _shown(one.coalesced_until or one.scheduled_at)
        many = f" and {one.coalesced} more moments until {until}" if one.coalesced else ""
        return f"{one.job_id} missed {moment}{many}{why}"
    if kind == "overlap":
        return f"{one.job_id} was still at {moment} when its next moment came: cancelled{by}"
    if kind == "interrupted":
        return f"{one.job_id} is cut off again and again, for {moment}{why}{by}"
    return f"{one.job_id} succeeded, for {moment}{by}"


def notice_of_overdue(job: Job, one: Pending, notifier: str, now: datetime) -> Notice:
    """Return the notice of an occurrence that has not begun although it should have."""
    key = occurrence_key(job.uid, one.number)
    waited = str(now - one.scheduled_at).partition(".")[0]
    text = f"{job.id} has not begun for {_shown(one.scheduled_at)}: it is {waited} late"
    return Notice(
        f"overdue:{key}", "overdue", text, now, notifier, job.id, key, scheduled_at=one.scheduled_at
    )


def notice_of_gap(cursor: str, notifier: str, now: datetime, reason: str) -> Notice:
    """Return the notice that a part of the history was not read."""
    text = (
        f"the notifier {notifier} has not read a part of the history: {reason}. What happened in "
        "it is not told; sched history shows what is left"
    )
    return Notice(f"gap:{cursor}", "gap", text, now, notifier, reason=reason)


def summary(
    kind: NoticeKind, count: int, first_id: str, since: datetime, until: datetime, notifier: str
) -> Notice:
    """Return one notice for many occurrences.

    Args:
        kind: What it is about.
        count: How many occurrences.
        first_id: The id of the first notice that it replaces.
        since: When the first of them happened.
        until: When the last of them happened.
        notifier: The notifier's name.
    """
    text = f"{count} more: {kind}, from {_shown(since)} to {_shown(until)}; see sched history"
    id, _, rest = first_id.partition(":")
    return Notice(f"{id}+{count}:{rest}", kind, text, until, notifier, count=count)


def _shown(moment: datetime) -> str:
    return moment.isoformat(" ", "seconds")
