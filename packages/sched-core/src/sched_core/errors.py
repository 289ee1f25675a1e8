"""Errors, arranged by whose fault it is.

* The caller's: :class:`InvalidDefinition`, :class:`JobAlreadyExists`, :class:`JobNotFound`,
  :class:`GroupConflict`, :class:`SchedulerNotStarted`, :class:`SchedulerForked`,
  :class:`WrongEventLoop`, :class:`HandlerNotSet`, :class:`NothingToSkip`,
  :class:`NothingToCancel`, :class:`NothingToRetry`, :class:`ExecutionNotFound`,
  :class:`TooManyRequests`, :class:`UnderMaintenance`. Change the call.
* The record's: :class:`JobUndecodable`. Run a version that can read it.
* The backend's: :class:`BackendUnavailable` and :class:`BulkInterrupted` (try again),
  :class:`BackendError` (don't).
* No one's: :class:`RevisionConflict`, :class:`ClaimLost`. Another writer was first: read again and
  decide again, or leave it to that writer.
"""

from __future__ import annotations

from datetime import datetime
from functools import partial
from typing import Any


class SchedError(Exception):
    """Base of every error that this family of packages raises on purpose."""


class InvalidDefinition(SchedError, ValueError):
    """A value that cannot be accepted: nothing was stored.

    Args:
        field: The name of the offending argument or attribute, as the caller wrote it.
        problem: What is wrong with it, and what to do instead.
    """

    def __init__(self, field: str, problem: str) -> None:
        super().__init__(f"{field}: {problem}")
        self.field = field
        self.problem = problem

    def __reduce__(self) -> tuple[type[InvalidDefinition], tuple[str, str]]:
        return type(self), (self.field, self.problem)


LONGEST_SHOWN = 200
"""The most characters of a value in a message: enough to recognise it."""


def shown(value: object) -> str:
    """Return a refused value as a message shows it, however large or odd it is."""
    if isinstance(value, str | bytes | bytearray) and len(value) > LONGEST_SHOWN:
        return f"{value[:LONGEST_SHOWN]!r} and {len(value) - LONGEST_SHOWN} more"
    try:
        text = repr(value)
    except Exception:  # noqa: BLE001 -- anything may fail at that, as an int of 5,000 digits does
        return f"a {type(value).__name__} that cannot be shown"
    return text if len(text) <= LONGEST_SHOWN else f"{text[:LONGEST_SHOWN]}…"


class ModeNotConfigured(SchedError):
    """The package of a mode, or what it connects to, is missing.

    Args:
        mode: The mode as it was written.
        problem: What is missing, and what to do about it.
    """

    def __init__(self, mode: str, problem: str) -> None:
        super().__init__(f"mode {mode!r} is not configured: {problem}")
        self.mode = mode
        self.problem = problem

    def __reduce__(self) -> tuple[type[ModeNotConfigured], tuple[str, str]]:
        return type(self), (self.mode, self.problem)


class ScheduleWarning(UserWarning):
    """A schedule that is right, and may mean something else than its author thinks."""


class _AboutJob(SchedError):
    """An error about one job id."""

    template = "{job_id}"

    def __init__(self, job_id: str) -> None:
        super().__init__(self.template.format(job_id=repr(job_id)))
        self.job_id = job_id

    def __reduce__(self) -> tuple[type[_AboutJob], tuple[str]]:
        return type(self), (self.job_id,)


class JobAlreadyExists(_AboutJob):
    """A job with this id is stored already. Use ``ensure_job`` or ``update_job`` to change it."""

    template = "job {job_id} exists already: use ensure_job or update_job to change it"


class JobNotFound(_AboutJob, LookupError):
    """No job with this id is stored."""

    template = "no job {job_id} is stored"


class RevisionConflict(_AboutJob):
    """The stored job is not the one that the write was decided on. Read it again."""

    template = "job {job_id} was changed in the meantime: read it again"


class ClaimLost(_AboutJob):
    """Another worker has taken the job over: nothing that this run wrote was committed."""

    template = "the claim of job {job_id} was lost: nothing was committed"


class JobUndecodable(SchedError):
    """The stored record cannot be read by this version; it was left as it is.

    Args:
        job_id: The id of the record.
        reason: Why it cannot be read.
    """

    def __init__(self, job_id: str, reason: str) -> None:
        super().__init__(
            f"the record of job {job_id!r} cannot be read here and was left alone: {reason}; "
            "run a version that knows it"
        )
        self.job_id = job_id
        self.reason = reason

    def __reduce__(self) -> tuple[type[JobUndecodable], tuple[str, str]]:
        return type(self), (self.job_id, self.reason)


class GroupConflict(SchedError):
    """``sync_jobs`` met an id that is not the group's; nothing was written.

    Args:
        job_id: The id.
        group: The group that was to be synced.
        owner: The group that has the job; ``None`` for one that was submitted and has none.
    """

    def __init__(self, job_id: str, group: str, owner: str | None) -> None:
        whose = "was submitted and has no group" if owner is None else f"is of the group {owner!r}"
        super().__init__(
            f"job {job_id!r} {whose}, so the group {group!r} cannot declare it: use another id, "
            "or remove that job first"
        )
        self.job_id = job_id
        self.group = group
        self.owner = owner

    def __reduce__(self) -> tuple[type[GroupConflict], tuple[str, str, str | None]]:
        return type(self), (self.job_id, self.group, self.owner)


class NothingToSkip(SchedError):
    """``skip_next`` on a job that has no further occurrence, or none at the moment given.

    Args:
        job_id: The job's id.
        moment: The moment that was to be skipped; ``None`` for the first one after now.
    """

    def __init__(self, job_id: str, moment: datetime | None = None) -> None:
        super().__init__(
            f"job {job_id!r} has no further occurrence to skip"
            if moment is None
            else f"job {job_id!r} has no occurrence to skip at {moment.isoformat()}: it has begun "
            "or passed, or the schedule has no such moment"
        )
        self.job_id = job_id
        self.moment = moment

    def __reduce__(self) -> tuple[type[NothingToSkip], tuple[str, datetime | None]]:
        return type(self), (self.job_id, self.moment)


class _AboutOccurrence(SchedError, LookupError):
    """An error about the occurrence that a key names, or about those of a job.

    Args:
        job_id: The job's id; empty where no stored job has the key's occurrence.
        key: The occurrence's idempotency key; ``None`` where none was given.
    """

    none = "{job_id}"
    unknown = "{key}"

    def __init__(self, job_id: str = "", key: str | None = None) -> None:
        template = self.none if key is None else self.unknown
        super().__init__(template.format(job_id=repr(job_id), key=repr(key)))
        self.job_id = job_id
        self.key = key

    def __reduce__(self) -> tuple[type[_AboutOccurrence], tuple[str, str | None]]:
        return type(self), (self.job_id, self.key)


class NothingToCancel(_AboutOccurrence):
    """No such occurrence runs or waits; without a key, the job is not running."""

    none = "job {job_id} is not running: give the key of the occurrence that is to be cancelled"
    unknown = "no occurrence {key} runs or waits: it has ended, or its job was removed"


class NothingToRetry(_AboutOccurrence):
    """No such occurrence has begun and waits for its next attempt; without a key, none has."""

    none = "nothing of job {job_id} waits for its next attempt: trigger_job runs it now"
    unknown = (
        "no occurrence {key} waits for its next attempt: it has ended or not begun, or its job "
        "was removed; trigger_job runs a job now"
    )


class TooManyRequests(InvalidDefinition):
    """The job has as many waiting requests as it may have: let them run, or cancel some."""


class UnderMaintenance(SchedError):
    """No further run of a job can be asked for while it is under maintenance: ask after its end.

    Args:
        job_id: The job's id.
        what: What is under maintenance, since when, by whom and why.
        reason: Why, as ``start_maintenance`` was told.
        actor: Who began it.
    """

    def __init__(
        self, job_id: str, what: str, *, reason: str | None = None, actor: str | None = None
    ) -> None:
        super().__init__(f"job {job_id!r} is under maintenance, ask again after its end: {what}")
        self.job_id = job_id
        self.what = what
        self.reason = reason
        self.actor = actor

    def __reduce__(self) -> tuple[Any, ...]:
        return partial(type(self), reason=self.reason, actor=self.actor), (self.job_id, self.what)


class ExecutionNotFound(SchedError, LookupError):
    """No execution has this id, none that this version can read, or its job was removed.

    Args:
        execution_id: The id that was asked for.
        reason: Why the execution is of no use; ``None`` where there is none.
    """

    def __init__(self, execution_id: str, reason: str | None = None) -> None:
        super().__init__(
            f"no execution {execution_id!r} is in the history: list_executions shows what there is"
            if reason is None
            else f"execution {execution_id!r}: {reason}"
        )
        self.execution_id = execution_id
        self.reason = reason

    def __reduce__(self) -> tuple[type[ExecutionNotFound], tuple[str, str | None]]:
        return type(self), (self.execution_id, self.reason)


class CursorExpired(SchedError):
    """Executions were deleted before they were followed: begin again, and look what is missing.

    Args:
        cursor: The cursor that was given.
    """

    def __init__(self, cursor: str) -> None:
        super().__init__(
            f"executions after the cursor {shown(cursor)} were deleted before they were read: "
            "follow again with after='' for all that is left, or after=None for what comes"
        )
        self.cursor = cursor

    def __reduce__(self) -> tuple[type[CursorExpired], tuple[str]]:
        return type(self), (self.cursor,)


class SchedulerNotStarted(SchedError):
    """The operation needs an open scheduler: use it inside ``async with scheduler``."""


class SchedulerRunning(SchedError):
    """The operation is not possible while ``run_forever`` or ``run_due`` is running."""


class SchedulerStopped(SchedError):
    """``run_forever`` has ended although nothing asked it to: no job runs any more."""


class SchedulerForked(SchedError):
    """A scheduler opened by the parent process was used in a forked child. Open a new one there."""


class WrongEventLoop(SchedError):
    """A scheduler or backend was used outside the event loop that opened it: hand the call over."""


class HandlerNotSet(SchedError):
    """There is nothing to run: give the scheduler a handler first."""


class NoRoute(SchedError):
    """Raised by a handler that does not know the job: it is released, and tried again elsewhere.

    Args:
        delay: Seconds for which this worker leaves the job alone.
    """

    def __init__(self, message: str = "no route for this job", *, delay: float = 5.0) -> None:
        super().__init__(message)
        self.delay = delay


class BackendError(SchedError):
    """The store refused or is broken in a way that trying again does not mend."""


class BackendUnavailable(BackendError):
    """The store cannot be reached or is busy: the outcome may be unknown; try the same again."""


class BulkInterrupted(BackendUnavailable):
    """The store could not be reached any more while many jobs were operated: call again.

    Args:
        problem: What the store said.
        matched: How many jobs had been found and operated by then.
        changed: How many of them were changed.
        failed: How many of them could not be.
    """

    def __init__(self, problem: str, *, matched: int, changed: int, failed: int) -> None:
        super().__init__(
            f"stopped after {matched} jobs, of which {changed} were changed and {failed} failed; "
            f"the same call again does the rest: {problem}"
        )
        self.problem = problem
        self.matched = matched
        self.changed = changed
        self.failed = failed

    def __reduce__(self) -> tuple[Any, ...]:
        make = partial(type(self), matched=self.matched, changed=self.changed, failed=self.failed)
        return make, (self.problem,)


class StoreNotFound(BackendError):
    """There is no store of jobs at the address, and with ``create=False`` none was made.

    Usually the address has a typing error, or the service that makes the store never ran.
    """


class SchemaTooNew(BackendError):
    """The store was written by a newer version of this package, which this one must not touch."""
