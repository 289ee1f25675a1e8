"""How a job's occurrences are treated: late ones, overlapping ones, failed ones, lost ones."""

from __future__ import annotations

from datetime import timedelta
from hashlib import blake2b
from typing import Final, Literal, get_args

from attrs import frozen

from sched_core.errors import InvalidDefinition, shown

Overlap = Literal["late", "skip", "cancel"]

KEPT: Final = timedelta(days=30)
"""How long an execution is kept unless the policy says so, or its schedule's gaps are long."""
KEPT_GAPS = 10
"""How many gaps of its schedule an execution is kept, where those are long."""


def _duration(
    name: str, value: object, *, zero: bool = False, optional: bool = False
) -> timedelta | None:
    if value is None and optional:
        return None
    if not isinstance(value, timedelta):
        raise InvalidDefinition(
            name, f"must be a timedelta{' or None' if optional else ''}, not {shown(value)}"
        )
    if value < timedelta(0) or (value == timedelta(0) and not zero):
        raise InvalidDefinition(
            name, f"must be {'zero or more' if zero else 'more than zero'}, not {shown(value)}"
        )
    return value


def _whole(name: str, value: object, *, least: int, most: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise InvalidDefinition(
            name, f"must be a whole number from {least} to {most}, not {shown(value)}"
        )


def _number(name: str, value: object, *, least: float, most: float) -> None:
    fits = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not fits or not least <= value <= most:  # type: ignore[operator]  # narrowed by fits
        raise InvalidDefinition(
            name, f"must be a number from {least:g} to {most:g}, not {shown(value)}"
        )


@frozen
class Coalesce:
    """The first missed occurrence runs, once, and covers the further ones that passed."""


@frozen
class CatchUp:
    """The newest missed occurrences run, oldest first; one ``missed`` execution is for the rest.

    Args:
        limit: How many run at most.
        window: How old one may be and still run; ``None`` for any age.
    """

    limit: int = 100
    window: timedelta | None = None

    def __attrs_post_init__(self) -> None:
        _whole("policy.misfire.limit", self.limit, least=1, most=10_000)
        _duration("policy.misfire.window", self.window, optional=True)


@frozen
class Drop:
    """An occurrence older than the grace when its first attempt would begin is ``missed``.

    Args:
        grace: How late an occurrence may begin. Every run begins a little late, by milliseconds
            or by what a busy machine takes: less than a second drops runs that nothing is wrong
            with.
    """

    grace: timedelta

    def __attrs_post_init__(self) -> None:
        _duration("policy.misfire.grace", self.grace)


@frozen
class Retry:
    """What a failure does.

    Args:
        attempts: Failures that settle the occurrence, the first included; 1 is no retry.
        backoff: The pause after the first failure.
        factor: The factor by which the pause grows with each further failure.
        maximum: The longest pause.
        jitter: A share of the pause, from 0 to 1, by which it is lengthened; derived from the
            occurrence's key, so that every replica computes the same.
    """

    attempts: int = 1
    backoff: timedelta = timedelta(seconds=1)
    factor: float = 2.0
    maximum: timedelta = timedelta(hours=1)
    jitter: float = 0.0

    def __attrs_post_init__(self) -> None:
        _whole("policy.retry.attempts", self.attempts, least=1, most=1_000_000)
        _duration("policy.retry.backoff", self.backoff, zero=True)
        _number("policy.retry.factor", self.factor, least=1, most=1000)
        _duration("policy.retry.maximum", self.maximum, zero=True)
        _number("policy.retry.jitter", self.jitter, least=0, most=1)


def share(text: str) -> float:
    """Return a number in [0, 1) that every worker derives alike."""
    return int.from_bytes(blake2b(text.encode(), digest_size=6).digest()) / 2**48


def backoff(retry: Retry, failures: int, key: str) -> timedelta:
    """Return the wait after so many failures; the same for a key on every worker."""
    if not retry.backoff:
        return retry.backoff
    try:
        delay = min(retry.backoff * float(retry.factor) ** (failures - 1), retry.maximum)
    except OverflowError:
        delay = retry.maximum
    if not retry.jitter:
        return delay
    try:
        return delay * (1 + retry.jitter * share(key))
    except OverflowError:
        return timedelta.max


_COALESCE, _ONCE = Coalesce(), Retry()


@frozen
class Policy:
    """How a job's occurrences are treated.

    Args:
        misfire: What happens to occurrences that passed before they could begin.
        overlap: What happens to occurrences that pass while one is under way, its retries included:
            they are ``late`` like all others, or ``skip``ped with one execution for all of them; or
            the first of them ``cancel``s the one under way.
        retry: What happens to failed occurrences.
        timeout: How long a run may take before it is cancelled and failed.
        jitter: A job is handed out up to this much after its nominal moment.
        max_lost: How many claims in a row may be lost before the occurrence is ``failed``. A claim
            counts as the last of them only if the worker ran nothing else when it was lost.
        max_snoozes: How many snoozes an occurrence has; one more is a failure.
        pause_after: How many final failures of scheduled occurrences in a row pause the job.
        keep_finished: How long a finished job that was submitted is kept; ``None`` without end.
        keep_executions: How long executions are kept; ``None`` until ``prune``. Unless it is given,
            30 days or ten gaps of the schedule, whichever is longer.
    """

    misfire: Coalesce | CatchUp | Drop = _COALESCE
    overlap: Overlap = "late"
    retry: Retry = _ONCE
    timeout: timedelta | None = None
    jitter: timedelta = timedelta(0)
    max_lost: int = 5
    max_snoozes: int = 100
    pause_after: int | None = None
    keep_finished: timedelta | None = timedelta(days=7)
    keep_executions: timedelta | Literal["default"] | None = "default"

    def __attrs_post_init__(self) -> None:
        if not isinstance(self.misfire, (Coalesce, CatchUp, Drop)):
            raise InvalidDefinition(
                "policy.misfire",
                f"must be Coalesce(), CatchUp(...) or Drop(grace=...), not {shown(self.misfire)}",
            )
        if self.overlap not in get_args(Overlap):
            raise InvalidDefinition(
                "policy.overlap", f"must be 'late', 'skip' or 'cancel', not {shown(self.overlap)}"
            )
        if not isinstance(self.retry, Retry):
            raise InvalidDefinition("policy.retry", f"must be Retry(...), not {shown(self.retry)}")
        _duration("policy.timeout", self.timeout, optional=True)
        _duration("policy.jitter", self.jitter, zero=True)
        _whole("policy.max_lost", self.max_lost, least=1, most=1_000_000)
        _whole("policy.max_snoozes", self.max_snoozes, least=0, most=1_000_000)
        if self.pause_after is not None:
            _whole("policy.pause_after", self.pause_after, least=1, most=1_000_000)
        _duration("policy.keep_finished", self.keep_finished, zero=True, optional=True)
        if self.keep_executions != "default":
            _duration("policy.keep_executions", self.keep_executions, zero=True, optional=True)


DEFAULT: Final = Policy()
