"""How a handler ended: success, a failure, what it asks for, or a failure of the store."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Literal

from attrs import evolve, frozen

from sched_core._model.claim import Ended
from sched_core._model.execution import OVERLAPPED, Status, bounded, describe
from sched_core._support.error_types import names_of
from sched_core._support.logger import attribute
from sched_core._support.tracebacks import traceback_of
from sched_core.errors import BackendUnavailable
from sched_core.handlers import Discard, RetryAfter, Snooze

CancelReason = Literal["stop", "timeout", "overlap", "cancel", "lost"]
"""Why a handler was told to stop."""


@frozen
class Unknown:
    """The outcome of a run that is not for this worker now: the claim is given back.

    Its handler has no function for the job, or was not called because of maintenance.
    """


@frozen
class Postponed:
    """The outcome of a run whose handler was not called.

    Attributes:
        until: The time from which the backend hands the job out again.
    """

    until: datetime


Outcome = Ended | Postponed | Unknown

_TIMED_OUT = names_of(TimeoutError)
"""What a run counts as that was ended by its time limit."""


def failure(error: BaseException) -> Ended:
    """Return the outcome of a handler that raised: its own failure, the store's, or as it asks."""
    asked = _asked_for(error)
    if asked is not None:
        return asked
    if _is_by_store(error):
        return Ended(Status.INTERRUPTED, describe(error), by_store=True)
    return Ended(Status.FAILED, describe(error), error_types=names_of(type(_alone(error))))


def with_traceback(ended: Ended, error: BaseException) -> Ended:
    """Return a failure with the traceback of its error, any other outcome as it is.

    Where a handler asks for something by the error, the traceback is that of its cause, if any.
    """
    if ended.status is not Status.FAILED:
        return ended
    return evolve(ended, traceback=traceback_of(_behind(error)))


def _alone(error: BaseException) -> BaseException:
    """Return the one error that a group holds, at any depth; else what was given.

    As below, only what a user's class cannot override is read.
    """
    while issubclass(type(error), BaseExceptionGroup):
        errors = attribute(BaseExceptionGroup, "exceptions", error)
        if len(errors) != 1:
            break
        (error,) = errors
    return error


def _behind(error: BaseException) -> BaseException:
    """Return the error for which a handler asks for something, if it was raised; else this one."""
    one = _alone(error)
    for kind in (RetryAfter, Discard):
        if issubclass(type(one), kind):
            try:
                cause = _cause(one, attribute(kind, "reason", one))
            except AttributeError:  # its constructor was never called
                return error
            raised = cause is not None and attribute(BaseException, "__traceback__", cause)
            return cause if cause is not None and raised else error
    return error


def _asked_for(error: BaseException) -> Ended | None:
    """Return the outcome that a handler asks for by a class of :mod:`sched_core.handlers`.

    A subclass that never called the constructor asks for nothing.
    """
    error = _alone(error)
    kind = type(error)
    try:
        if issubclass(kind, Snooze):
            return Ended(Status.SNOOZED, delay=attribute(Snooze, "delay", error))
        if issubclass(kind, RetryAfter):
            delay = attribute(RetryAfter, "delay", error)
            reason = _reason(attribute(RetryAfter, "reason", error), error, f"again in {delay}")
            return Ended(Status.FAILED, reason, delay=delay)
        if issubclass(kind, Discard):
            reason = _reason(attribute(Discard, "reason", error), error, "discarded")
            return Ended(Status.FAILED, reason, retry=False)
    except AttributeError:
        return None
    return None


def _reason(given: object, error: BaseException, otherwise: str) -> str:
    """Return the reason that a handler gave, or else the error that it raised its own from."""
    if isinstance(given, str):
        return bounded(given)
    cause = _cause(error, given)
    return otherwise if cause is None else describe(cause)


def _cause(error: BaseException, given: object) -> BaseException | None:
    """Return the error that a handler gave as a reason, or else raised this one from."""
    cause: BaseException | None = given if isinstance(given, BaseException) else None
    return attribute(BaseException, "__cause__", error) if cause is None else cause


def _is_by_store(error: BaseException) -> bool:
    """Whether an error is the store's, or was raised from one that is.

    A group of errors is the store's if all its errors are. Errors may be chained and grouped to any
    depth. Only what a user's class cannot override is read from them.
    """
    found, seen = False, set[int]()
    branches: list[BaseException | None] = [error]
    while branches:
        cause = branches.pop()
        if cause is None:
            return False
        if id(cause) in seen:
            continue  # two tasks that awaited the same failure, or a circle
        seen.add(id(cause))
        if issubclass(type(cause), BackendUnavailable):
            found = True
        elif issubclass(type(cause), BaseExceptionGroup):
            branches += attribute(BaseExceptionGroup, "exceptions", cause)
        else:
            branches.append(attribute(BaseException, "__cause__", cause))
    return found


def cancelled_outcome(
    reason: CancelReason | None, outcome: Outcome, timeout: timedelta | None
) -> Outcome:
    """Return the outcome to record for a handler that was told to stop, or else the given one."""
    if reason is None or isinstance(outcome, Postponed | Unknown) or outcome.by_store:
        return outcome
    if reason == "stop" and (outcome.delay is not None or not outcome.retry):
        return outcome  # the handler has said itself what comes next
    if reason == "timeout":
        text = f"timeout: cancelled after {timeout}"
        return Ended(Status.FAILED, text, error_types=_TIMED_OUT, traceback=outcome.traceback)
    if reason == "overlap":
        return Ended(Status.CANCELLED, OVERLAPPED)
    if reason == "cancel":
        return Ended(Status.CANCELLED)  # the mark that is stored says why
    return Ended(Status.INTERRUPTED, "the worker stopped before the handler had ended")
