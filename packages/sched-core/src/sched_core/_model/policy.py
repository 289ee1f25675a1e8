"""How a job's occurrences are treated: late ones, overlapping ones, failed ones, lost ones."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import timedelta
from hashlib import blake2b
from typing import Any, Final, Literal, get_args

from attrs import Factory, field, fields, frozen

from sched_core._support.error_types import is_builtin, name_of
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


MOST_DELAYS = 100
"""The most delays of a retry policy; the last one repeats."""
MOST_TYPES = 100
"""The most exception types that a retry policy names."""
LONGEST_TYPE = 255
"""Characters in the name of an exception type."""


def _delays(value: Sequence[timedelta]) -> tuple[timedelta, ...]:
    name, given = "policy.retry.delays", _listed("policy.retry.delays", value, "timedeltas")
    if len(given) > MOST_DELAYS:
        raise InvalidDefinition(name, f"must be at most {MOST_DELAYS}, not {len(given)}")
    for each in given:
        _duration(name, each, zero=True)
    return given


def _never(value: Iterable[type[BaseException] | str]) -> tuple[str, ...]:
    return _error_types("policy.retry.never", value)


def _only(value: Iterable[type[BaseException] | str]) -> tuple[str, ...]:
    return _error_types("policy.retry.only", value)


def _error_types(name: str, value: Iterable[type[BaseException] | str]) -> tuple[str, ...]:
    """Return the names in one order, so that a set makes the same definition in every process."""
    given = _listed(name, value, "exception types, or of their names")
    names = sorted({_error_type(name, each) for each in given})
    if len(names) > MOST_TYPES:
        raise InvalidDefinition(name, f"must be at most {MOST_TYPES} types, not {len(names)}")
    return tuple(names)


def _error_type(name: str, value: Any) -> str:
    found = value
    if isinstance(value, type) and issubclass(value, BaseException):
        found = name_of(value)
    if not isinstance(found, str) or not 0 < len(found) <= LONGEST_TYPE:
        raise InvalidDefinition(
            name,
            "must hold exception types, or their names of at most "
            f"{LONGEST_TYPE} characters, not {shown(value)}",
        )
    found = found.removeprefix("builtins.")
    parts = found.split(".")
    if not all(part.isidentifier() or part == "<locals>" for part in parts):
        raise InvalidDefinition(name, f"{shown(found)} is no name of a type")
    if len(parts) == 1 and not is_builtin(found):
        raise InvalidDefinition(
            name, f"{found!r} is no built-in exception: write its module, too, or give the class"
        )
    return found


def _listed(name: str, value: Any, of: str) -> tuple[Any, ...]:
    if isinstance(value, list | tuple | set | frozenset):
        return tuple(value)
    raise InvalidDefinition(name, f"must be a tuple of {of}, not {shown(value)}")


@frozen
class Retry:
    """What a failure does.

    The waits between attempts are ``delays``, one by one, or they grow from ``backoff`` by
    ``factor`` up to ``maximum``::

        Retry(attempts=5, backoff=timedelta(seconds=10))
        Retry(delays=(timedelta(seconds=10), timedelta(minutes=5), timedelta(hours=1)))
        Retry(attempts=5, never=(ValueError, "httpx.InvalidURL"))

    ``never`` and ``only`` say which failures are followed by another attempt at all: by the type of
    the error that the handler raised, or one of its bases. They are stored as names,
    ``"module.QualName"`` or ``"ValueError"``, and compared as names: nothing is imported. A group
    that holds one error counts as that one, and a run that ``Policy.timeout`` ends as
    ``TimeoutError``. Other failures without an error, as a snooze too many, are in no ``only``. A
    handler that raises ``RetryAfter`` asks for another attempt itself: for it, only ``attempts``
    counts.

    Args:
        attempts: Failures that settle the occurrence, the first included; 1 is no retry. With
            ``delays``, one more than these unless it is given.
        backoff: The pause after the first failure.
        factor: The factor by which the pause grows with each further failure.
        maximum: The longest pause.
        jitter: A share of the pause, from 0 to 1, by which it is lengthened; derived from the
            occurrence's key, so that every replica computes the same.
        delays: The pauses before the second attempt, the third, and so on, instead of ``backoff``,
            ``factor`` and ``maximum``. If there are more attempts, the last pause repeats.
        never: Errors that are final at once: classes, or names of classes.
        only: The only errors that are not final at once. One of the two, not both.

    Raises:
        InvalidDefinition: A value is out of its range; ``attempts`` leaves no attempt for one of
            the ``delays``; ``delays`` and one of what they replace are given, or ``never`` and
            ``only``; or a name can be that of no class.
    """

    # The number of attempts follows from the delays: attrs sets fields in this order.
    delays: tuple[timedelta, ...] = field(default=(), converter=_delays, kw_only=True)
    attempts: int = field(default=Factory(lambda self: len(self.delays) + 1, takes_self=True))
    backoff: timedelta = timedelta(seconds=1)
    factor: float = 2.0
    maximum: timedelta = timedelta(hours=1)
    jitter: float = 0.0
    never: tuple[str, ...] = field(default=(), converter=_never, kw_only=True)
    only: tuple[str, ...] = field(default=(), converter=_only, kw_only=True)

    def __attrs_post_init__(self) -> None:
        _whole("policy.retry.attempts", self.attempts, least=1, most=1_000_000)
        _duration("policy.retry.backoff", self.backoff, zero=True)
        _number("policy.retry.factor", self.factor, least=1, most=1000)
        _duration("policy.retry.maximum", self.maximum, zero=True)
        _number("policy.retry.jitter", self.jitter, least=0, most=1)
        if self.delays:
            self._check_delays()
        if self.never and self.only:
            raise InvalidDefinition("policy.retry.only", "give it or never, not both")

    def _check_delays(self) -> None:
        if self.attempts <= len(self.delays):
            raise InvalidDefinition(
                "policy.retry.attempts",
                f"must be at least {len(self.delays) + 1}, for {len(self.delays)} delays, not "
                f"{self.attempts}: leave it out, or leave out delays",
            )
        for each in (fields(Retry).backoff, fields(Retry).factor, fields(Retry).maximum):
            if getattr(self, each.name) != each.default:
                raise InvalidDefinition(
                    f"policy.retry.{each.name}", "has no effect with delays: leave it out"
                )


def retried(retry: Retry, error_types: Sequence[str]) -> bool:
    """Say whether a failure may be followed by another attempt, however many there were.

    Args:
        retry: The policy.
        error_types: The names of the error's type and of its bases; none where there is no error.
    """
    if retry.only:
        return any(name in retry.only for name in error_types)
    return not any(name in retry.never for name in error_types)


def share(text: str) -> float:
    """Return a number in [0, 1) that every worker derives alike."""
    return int.from_bytes(blake2b(text.encode(), digest_size=6).digest()) / 2**48


def backoff(retry: Retry, failures: int, key: str) -> timedelta:
    """Return the wait after so many failures; the same for a key on every worker."""
    if retry.delays:
        delay = retry.delays[min(failures, len(retry.delays)) - 1]
    elif not retry.backoff:
        return retry.backoff
    else:
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
        overdue: How long after its moment an occurrence may wait for its first attempt before it
            counts as overdue, which people are told; ``None``: it never does. No run depends on it.
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
    overdue: timedelta | None = None

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
        _duration("policy.overdue", self.overdue, optional=True)
        _duration("policy.keep_finished", self.keep_finished, zero=True, optional=True)
        if self.keep_executions != "default":
            _duration("policy.keep_executions", self.keep_executions, zero=True, optional=True)


DEFAULT: Final = Policy()
