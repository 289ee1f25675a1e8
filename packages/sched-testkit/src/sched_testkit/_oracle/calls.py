"""A call of a handler: how it may end, and what follows by its policy."""

from __future__ import annotations

from datetime import datetime, timedelta
from enum import StrEnum

from attrs import define

from sched_core import Execution, JobEvent, JobSpec, Retry, RetryAfter, Status
from sched_testkit._oracle.lateness import jitter_fraction


class CallState(StrEnum):
    """How a call of the handler has ended, as far as the oracle saw it."""

    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    DISCARDED = "discarded"
    """It failed, and asked for no further attempt."""
    SNOOZED = "snoozed"
    INTERRUPTED = "interrupted"
    CANCELLED = "cancelled"
    """It was cancelled; the execution will say what for."""
    LOST = "lost"
    CRASHED = "crashed"


ENDS = {
    Status.SUCCEEDED: {CallState.SUCCEEDED},
    Status.FAILED: {CallState.FAILED, CallState.DISCARDED, CallState.LOST},
    Status.INTERRUPTED: {CallState.INTERRUPTED},
    Status.CANCELLED: {
        CallState.LOST,
        CallState.FAILED,
        CallState.DISCARDED,
        CallState.SNOOZED,
        CallState.INTERRUPTED,
        CallState.CANCELLED,
    },
}
"""How the call may have ended where its attempt has this status.

A call counts as lost where the handler was cancelled, whatever the reason was.
"""
FAILURES = {CallState.FAILED, CallState.DISCARDED}
ALWAYS_WRITTEN = {CallState.SUCCEEDED, *FAILURES, CallState.INTERRUPTED}
ASKS = {CallState.SNOOZED, CallState.FAILED}
"""How a call may have ended whose handler says when it is to be called again."""


@define(eq=False)
class Call:
    """A call of the handler.

    Attributes:
        event: The event that the handler got.
        uid: The incarnation of the job.
        number: The number of the occurrence.
        worker: The worker that called it.
        spec: The definition under which it ran last.
        state: How it has ended.
        ended_at: The moment at which it has ended.
        wait: How long the handler asked to wait until it is called again.
        failures: The number of failed attempts of the occurrence so far.
        snoozes: The number of snoozes of the occurrence before it.
        settled: Whether the settlement of its claim was written.
        execution: The execution that was written for it.
        raised: The type of what the handler has raised.
    """

    event: JobEvent
    uid: str
    number: int
    worker: str
    spec: JobSpec
    state: CallState = CallState.RUNNING
    ended_at: datetime | None = None
    wait: timedelta | None = None
    failures: int = 0
    snoozes: int = 0
    settled: bool = False
    execution: Execution | None = None
    raised: type[BaseException] | None = None

    def __str__(self) -> str:
        return f"attempt {self.event.attempt} at {self.uid}:{self.number}"

    @property
    def has_snoozed(self) -> bool:
        """Whether the handler asked for later, and that was written: it is to be called again."""
        return self.state is CallState.SNOOZED and self.settled

    @property
    def snoozes_after(self) -> int:
        """The number of snoozes of the occurrence, with its own."""
        return self.snoozes + self.has_snoozed

    @property
    def due_again(self) -> datetime | None:
        """The moment for which the handler asked to be called again, where that was written."""
        if self.wait is None or self.ended_at is None or not self.settled:
            return None
        return self.ended_at + self.wait if self.state in ASKS else None


def backoff(call: Call, retry: Retry) -> timedelta:
    """Return how long the retry after a failed call waits, by that policy."""
    jitter = 1 + retry.jitter * jitter_fraction(f"{call.event.key}:{call.event.attempt}")
    if retry.delays:
        return (retry.delays + retry.delays[-1:] * call.failures)[call.failures - 1] * jitter
    delay = retry.backoff
    for _ in range(call.failures - 1):
        delay = min(delay * retry.factor, retry.maximum)
    delay = min(delay, retry.maximum)
    return delay * jitter


def failures_allowed(retry: Retry, raised: type[BaseException] | None) -> int:
    """Return after how many failures there is no other attempt; 0 if this error allows none.

    Where the handler asks for another attempt, the type of its error plays no role.
    """
    if raised is not None and issubclass(raised, RetryAfter):
        return retry.attempts
    kinds = () if raised is None else raised.__mro__
    names = {f"{kind.__module__}.{kind.__qualname__}" for kind in kinds}
    names |= {kind.__qualname__ for kind in kinds if kind.__module__ == "builtins"}
    is_final = not names & set(retry.only) if retry.only else bool(names & set(retry.never))
    return 0 if is_final else retry.attempts
