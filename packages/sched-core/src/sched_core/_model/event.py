"""What a handler receives."""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any, Protocol

from attrs import field, frozen

from sched_core._model.execution import Kind, bounded
from sched_core._model.job import NOTHING, Job
from sched_core._support.values import quick
from sched_core.errors import BackendError, InvalidDefinition, shown
from sched_core.schedule import Schedule


class Effects(Protocol):
    """The maker of transactions in which handlers write and their occurrences are settled."""

    def begin(self, event: JobEvent) -> Any:
        """Return what ``event.transaction()`` returns."""
        ...


class Listener(Protocol):
    """Takes what handlers tell of their runs. Any thread may call it."""

    def hear_progress(
        self, event: JobEvent, done: float, of: float | None, text: str | None
    ) -> None:
        """Note how far a run has come."""
        ...

    def hear_log(self, event: JobEvent, text: str) -> None:
        """Note a line for the history."""
        ...


class Cancellation:
    """Tells a running handler that it should stop; safe to read from any thread."""

    __slots__ = ("requested",)

    def __init__(self) -> None:
        self.requested = False


@quick
@frozen(eq=False, weakref_slot=False)
class JobEvent:
    """What a handler receives.

    Attributes:
        id: The job's id.
        name: The job's name.
        metadata: The job's metadata, read-only.
        schedule: The job's schedule.
        scheduled_at: The occurrence's nominal moment, in UTC.
        started_at: When this attempt began.
        attempt: The attempt's number, counted from 1.
        key: The same for every attempt at this occurrence and no other: use it for idempotency.
        token: Higher for every later claim of this job: hand it to stores that can fence.
        kind: Why the occurrence is there: its schedule, or a request.
        coalesced: How many further occurrences this run covers; the same at every attempt.
        coalesced_until: The last of them.
        last_completed_at: When the newest earlier run ended.
        args: The arguments of the request that asked for the occurrence, read-only; without any,
            and for the schedule's own occurrences, empty.
    """

    id: str
    schedule: Schedule
    scheduled_at: datetime
    started_at: datetime
    key: str
    name: str | None = None
    metadata: Mapping[str, str] = NOTHING
    attempt: int = 1
    token: int = 0
    kind: Kind = Kind.SCHEDULED
    coalesced: int = 0
    coalesced_until: datetime | None = None
    last_completed_at: datetime | None = None
    args: Mapping[str, str] = NOTHING
    _cancellation: Cancellation = field(factory=Cancellation, repr=False)
    _effects: Effects | None = field(default=None, repr=False)
    _job: Job | None = field(default=None, repr=False)
    _listener: Listener | None = field(default=None, repr=False)

    @property
    def idempotency_key(self) -> str:
        """The same as ``key``: one text for all attempts at this occurrence, and no other's."""
        return self.key

    @property
    def fencing_token(self) -> int:
        """The same as ``token``: it is higher for every later claim of this job."""
        return self.token

    @property
    def last_attempt(self) -> bool:
        """Whether a failure of this attempt is final: the policy allows no further one.

        An edit of the job during the attempt may change that. It cannot know which error will be
        raised: one that ``Retry.never`` or ``Retry.only`` ends is final before the last attempt.
        Outside a scheduler, as in a test of the handler alone, it is the last one.
        """
        if self._job is None:
            return True
        one = self._job.standing.find(int(self.key.rpartition(":")[2]))
        failures = 0 if one is None else one.failures
        return failures + 1 >= self._job.spec.policy.retry.attempts

    @property
    def manual(self) -> bool:
        """Whether it was asked for, and is not the schedule's."""
        return self.kind is not Kind.SCHEDULED

    @property
    def delay(self) -> timedelta:
        """How long after its nominal moment the attempt began."""
        return self.started_at - self.scheduled_at

    @property
    def cancelled(self) -> bool:
        """Whether the handler should stop: its time is up, its claim lost, or the worker stops."""
        return self._cancellation.requested

    def progress(self, done: float, of: float | None = None, text: str | None = None) -> None:
        """Tell how far the run has come; any thread may call it, and as often as it likes.

        Only the newest counts. ``list_running`` shows it within seconds, wherever it is called, and
        the run's execution keeps it::

            for number, invoice in enumerate(invoices):
                event.progress(number, len(invoices), f"invoice {invoice.id}")
                ...

        Outside a scheduler, as in a test of the handler alone, it only checks its arguments.

        Args:
            done: How much is done, in a unit of your own; zero or more.
            of: How much there is to do, if you know; zero or more.
            text: What the handler does now, in words for people; 2 KiB of it are kept.

        Raises:
            InvalidDefinition: An argument is no such value.
        """
        done = _amount("done", done)
        of = None if of is None else _amount("of", of)
        if text is not None:
            text = bounded(_text(text))
        if self._listener is not None:
            self._listener.hear_progress(self, done, of, text)

    def log(self, text: str) -> None:
        """Write a line for the history; any thread may call it.

        The run's execution has it as ``log``: the newest 16 KiB of UTF-8, and a mark where older
        lines were left out. A run that snoozes has no execution, so its lines are gone. Outside a
        scheduler, as in a test of the handler alone, it only checks its argument.

        Args:
            text: One line or more.

        Raises:
            InvalidDefinition: It is no text.
        """
        _text(text)
        if self._listener is not None:
            self._listener.hear_log(self, text)

    def transaction(self) -> Any:
        """Open a transaction in the backend's database that settles this occurrence, too.

        What the handler writes in it, the execution ``succeeded`` and the next due moment commit
        together or not at all::

            async with event.transaction() as connection:
                await connection.execute("INSERT INTO invoices …")

        In a plain function it is ``with``, and the connection a synchronous one. Leaving the block
        settles the occurrence and commits. An exception inside it rolls back, and the occurrence
        ends as the handler does. The run has succeeded once the block was left: what the handler
        does after it is not part of the occurrence any more, and is best nothing.

        Returns:
            A context manager of the connection, asynchronous and not; for one block.

        Raises:
            BackendError: The backend has no transactions, or the occurrence is settled already.
            ClaimLost: When it is opened or left: another worker has the job, and nothing was
                committed.
            BackendUnavailable: There is no connection, or it was lost. Let it leave the handler:
                the attempt is then ``interrupted`` and made again after a wait that grows, unless
                the store shows that the commit was made. It is never the job's failure.
        """
        if self._effects is None:
            raise BackendError(
                "this backend has no transactions: use event.key to make the handler idempotent"
            )
        return self._effects.begin(self)


EXACT = 2**53
"""Whole numbers up to this one are kept as they are, larger ones as floats: so JSON keeps them."""


def _amount(name: str, value: Any) -> float:
    """Return an amount of work as it is stored."""
    if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < math.inf:
        if type(value) is int and value <= EXACT:
            return value
        try:
            return float(value)
        except OverflowError:
            pass  # said below, as of all other numbers that no float holds
    raise InvalidDefinition(name, f"must be a number, zero or more, not {shown(value)}")


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise InvalidDefinition("text", f"must be a text, not {shown(value)}: use str(...)")
    return value
