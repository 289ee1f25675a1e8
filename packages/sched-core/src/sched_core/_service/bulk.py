"""Operates many jobs: finds them by a query and changes each as the call for a single one does."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime

from attrs import field, frozen

from sched_core._model.execution import describe, occurrence_key
from sched_core._model.job import RESERVED, Job, check_text, texts_of
from sched_core._rules import operate
from sched_core._service.definitions import Definitions
from sched_core._service.names import PAGE, checked_actor, checked_reason
from sched_core._service.operations import Operations
from sched_core._service.requests import Requests
from sched_core._support.logger import Logger
from sched_core.clock import Clock
from sched_core.errors import (
    BackendUnavailable,
    BulkInterrupted,
    InvalidDefinition,
    JobNotFound,
    NothingToCancel,
    shown,
)
from sched_core.ports import Backend, JobQuery, Undecodable

logger = Logger("sched_core")

MOST_FAILURES = 1_000
"""The most failures that a result names."""

Act = Callable[[Job], Awaitable[bool]]
"""Operates a job as it was listed; returns whether that changed it."""


@frozen
class BulkResult:
    """What a call that operates many jobs has done, or with ``dry_run`` would do.

    Attributes:
        matched: How many jobs the query has found.
        changed: How many of them were changed.
        unchanged: How many were left as they were, because there was nothing to change, or because
            they were removed in the meantime.
        failed: How many could not be operated: this version cannot read the record, or the call for
            this one job has failed.
        failures: Why, by the id of the job; the first 1,000.
    """

    matched: int = 0
    changed: int = 0
    unchanged: int = 0
    failed: int = 0
    failures: Mapping[str, str] = field(factory=dict)


class _Tally:
    """Counts what is done."""

    def __init__(self) -> None:
        self.changed = self.unchanged = self.failed = 0
        self.failures: dict[str, str] = {}

    def fail(self, job_id: str, problem: str) -> None:
        self.failed += 1
        if len(self.failures) < MOST_FAILURES:
            self.failures[job_id] = problem

    @property
    def matched(self) -> int:
        return self.changed + self.unchanged + self.failed

    def result(self) -> BulkResult:
        return BulkResult(
            self.matched, self.changed, self.unchanged, self.failed, dict(self.failures)
        )


@frozen
class BulkParts:
    """What bulk calls need of an open scheduler."""

    backend: Backend
    clock: Clock
    definitions: Definitions
    operations: Operations
    requests: Requests
    look: Callable[[str], Awaitable[None]]
    """Called with the id of a job one of whose runs was told to stop."""


class Bulk(ABC):
    """The calls of a scheduler that operate many jobs.

    Jobs are found by a :class:`~sched_core.JobQuery`; ``JobQuery()`` finds all, and is never
    assumed. Each job is operated alone, as the call for a single one does it: there is no
    transaction over all. The failure of one stops no other. A store that cannot be reached stops
    the call, by :class:`~sched_core.BulkInterrupted`, which says how far it came; the same call
    again does the rest.
    """

    @abstractmethod
    def _bulk(self) -> BulkParts:
        """Return the parts of the open scheduler."""

    async def pause_jobs(
        self,
        query: JobQuery,
        *,
        until: datetime | None = None,
        reason: str | None = None,
        actor: str | None = None,
        dry_run: bool = False,
    ) -> BulkResult:
        """Pause jobs, as ``pause_job`` does. A job that is paused already keeps its end and reason.

        Give a reason that no other pause has: ``resume_jobs(query, reason=…)`` then ends these
        pauses, and no others.

        Args:
            query: The choice of jobs.
            until: The time when the pauses end on their own; ``None`` pauses until further notice.
            reason: A text for people.
            actor: Who pauses them, for people.
            dry_run: Whether to count what would be paused, and to write nothing.

        Raises:
            InvalidDefinition: The query is none, or ``until`` has no time zone or has passed.
            BulkInterrupted: The store cannot be reached. Call again.
        """
        parts, by, why = self._bulk(), checked_actor(actor), checked_reason(reason)
        ends = operate.checked_until(until, now=parts.clock.now())

        def pause(job: Job, now: datetime) -> Job:
            if job.standing.pause is not None:
                return job
            return operate.pause(job, until=ends, reason=why, now=now, actor=by)

        return await _each(parts, query, _editing(parts, pause, dry_run))

    async def resume_jobs(
        self,
        query: JobQuery,
        *,
        reason: str | None = None,
        actor: str | None = None,
        dry_run: bool = False,
    ) -> BulkResult:
        """End pauses, as ``resume_job`` does.

        Args:
            query: The choice of jobs.
            reason: The reason of the pauses that end, exactly. ``None`` ends all, also those that a
                policy began after failures.
            actor: Who ends them, for the log.
            dry_run: Whether to count what would be resumed, and to write nothing.

        Raises:
            InvalidDefinition: The query is none.
            BulkInterrupted: The store cannot be reached. Call again.
        """
        parts, by, why = self._bulk(), checked_actor(actor), checked_reason(reason)

        def resume(job: Job, now: datetime) -> Job:
            paused = job.standing.pause
            if paused is None or operate.is_placeholder(job.standing):
                return job
            if why is not None and checked_reason(paused.reason) != why:
                return job
            return parts.operations.resumed(job, now)

        result = await _each(parts, query, _editing(parts, resume, dry_run))
        if by is not None and not dry_run:
            logger.info("%s jobs resumed by %s", result.changed, by)
        return result

    async def trigger_jobs(
        self,
        query: JobQuery,
        *,
        args: Mapping[str, str] | None = None,
        request_key: str | None = None,
        actor: str | None = None,
        dry_run: bool = False,
    ) -> BulkResult:
        """Run jobs once more, now, as ``trigger_job`` does, even if they are paused or finished.

        A job with the same request, not yet begun or not yet ended as ``trigger_job`` says, is left
        as it is. What has run by the time of a further call is triggered again: name the states or
        the group that you mean. Jobs under maintenance are told as failures.

        Args:
            query: The choice of jobs.
            args: Texts by name for the handlers; 64 KiB at most.
            request_key: A name for the request. Until it has ended, a further call with the same
                name asks the same job for nothing more.
            actor: Who asks for it, for people.
            dry_run: Whether to count the jobs, and to write nothing.

        Raises:
            InvalidDefinition: The query is none, or an argument is out of bounds.
            BulkInterrupted: The store cannot be reached. Call again.
        """
        parts, by, given = self._bulk(), checked_actor(actor), texts_of("args", args)
        if request_key is not None:
            check_text("request_key", request_key)

        async def trigger(job: Job) -> bool:
            if dry_run:
                return True
            asked = await parts.requests.ask_to_run(
                job.id, args=given, request_key=request_key, actor=by
            )
            return asked.is_new

        return await _each(parts, query, trigger)

    async def cancel_runs(
        self,
        query: JobQuery,
        *,
        reason: str | None = None,
        actor: str | None = None,
        dry_run: bool = False,
    ) -> BulkResult:
        """Cancel the runs in flight of jobs, as ``cancel_run`` does. What waits is left alone.

        Each is cancelled by its key: a run that began after its job was found goes on.

        Args:
            query: The jobs whose runs are cancelled.
            reason: Why, for people; the executions keep the first 2 KiB of it.
            actor: Who cancels them, for people; the executions keep it.
            dry_run: Whether to count the runs, and to write nothing.

        Raises:
            InvalidDefinition: The query is none.
            BulkInterrupted: The store cannot be reached. Call again.
        """
        parts, by, why = self._bulk(), checked_actor(actor), checked_reason(reason)

        async def cancel(job: Job) -> bool:
            if job.held is None or job.standing.is_marked(job.held):
                return False
            if not dry_run:
                key = occurrence_key(job.uid, job.held)
                try:
                    await parts.operations.cancel(key, job.id, reason=why, actor=by)
                except NothingToCancel:
                    return False  # it has ended
                await parts.look(job.id)
            return True

        return await _each(parts, query, cancel)

    async def remove_jobs(
        self,
        query: JobQuery,
        *,
        cancel: bool = False,
        reason: str | None = None,
        actor: str | None = None,
        dry_run: bool = False,
    ) -> BulkResult:
        """Remove jobs, as ``remove_job`` does.

        A job that was changed in the meantime so that the query finds it no more is left alone.

        Args:
            query: The choice of jobs.
            cancel: Whether to cancel their runs in flight; else these continue.
            reason: Why the runs are cancelled, for people.
            actor: Who removes them, for people; the executions of what ends with them keep it.
            dry_run: Whether to count the jobs, and to write nothing.

        Raises:
            InvalidDefinition: The query is none.
            BulkInterrupted: The store cannot be reached. Call again.
        """
        parts, by, why = self._bulk(), checked_actor(actor), checked_reason(reason)

        async def remove(job: Job) -> bool:
            if dry_run:
                return True
            removed = await parts.definitions.remove(
                job.id, cancel=cancel, reason=why, actor=by, only=query.matches
            )
            if removed and cancel:
                await parts.look(job.id)
            return removed

        return await _each(parts, query, remove)


def _editing(parts: BulkParts, edit: Callable[[Job, datetime], Job], dry_run: bool) -> Act:
    """Return what changes one job by an edit, which returns the job itself for no change."""

    async def act(job: Job) -> bool:
        if dry_run:
            now = parts.clock.now()
            there = operate.resumed_if_over(job, now=now)
            return edit(there, now) != there
        changed = False

        def noted(stored: Job, now: datetime) -> Job:
            nonlocal changed
            edited = edit(stored, now)
            changed = edited != stored
            return edited

        await parts.definitions.operate(job.id, noted)
        return changed

    return act


async def _each(parts: BulkParts, query: JobQuery, act: Act) -> BulkResult:
    """Operate every job that a query finds.

    Raises:
        InvalidDefinition: The query is none.
        BulkInterrupted: The store cannot be reached.
    """
    if not isinstance(query, JobQuery):
        raise InvalidDefinition(
            "query", f"must be a JobQuery, not {shown(query)}: JobQuery() means all jobs"
        )
    tally = _Tally()
    try:
        await _all(parts.backend, query, act, tally)
    except BackendUnavailable as error:
        raise BulkInterrupted(
            describe(error), matched=tally.matched, changed=tally.changed, failed=tally.failed
        ) from error
    return tally.result()


async def _all(backend: Backend, query: JobQuery, act: Act, tally: _Tally) -> None:
    # Where pages have no order, a job that was written in the meantime may be on a later one, too.
    seen: set[str] | None = None if backend.capabilities.ordered else set()
    after = None
    while True:
        page = await backend.jobs(query, after=after, limit=PAGE)
        for job in page.items:
            if job.id.startswith(RESERVED) or (seen is not None and job.id in seen):
                continue
            if seen is not None:
                seen.add(job.id)
            await _one(job, act, tally)
        if (after := page.next) is None:
            return


async def _one(job: Job | Undecodable, act: Act, tally: _Tally) -> None:
    if isinstance(job, Undecodable):
        tally.fail(job.id, f"this version cannot read it: {job.reason}")
        return
    try:
        changed = await act(job)
    except BackendUnavailable:
        raise
    except JobNotFound:
        changed = False  # it was removed in the meantime
    except Exception as error:  # noqa: BLE001 -- whatever it is, it is about this job
        tally.fail(job.id, describe(error))
        return
    if changed:
        tally.changed += 1
    else:
        tally.unchanged += 1
