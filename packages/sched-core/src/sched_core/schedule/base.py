"""What a schedule is: a value that lists moments and remembers nothing.

A third-party schedule inherits nothing. It implements :class:`Schedule`, and :class:`Countable`
where it can count without stepping. All moments are timezone-aware ``datetime`` values with
microsecond precision; the built-in kinds return them in UTC.

A schedule is asked by :func:`first_occurrence`, :func:`next_occurrence`, :func:`count_occurrences`
and :func:`last_occurrence`: they refuse an answer that cannot be true, so that a mistake in a third
party's kind is an error with its name and not a job that runs without a pause.
"""

from __future__ import annotations

from datetime import UTC, datetime
from functools import lru_cache
from typing import ClassVar, NamedTuple, Protocol, cast, runtime_checkable

from sched_core.errors import InvalidDefinition, shown

STEPPING_LIMIT = 1000
"""How many occurrences core steps through before it says "at least"."""


@runtime_checkable
class Schedule(Protocol):
    """Lists moments. The anchor is the moment at which the schedule took effect for one job.

    A class may also declare attributes that the rules ask for: ``counts_from_end``
    (:func:`counts_from_end`), ``counts_from_anchor`` (:func:`counts_from_anchor`) and
    ``fingerprint`` (``sched_core.schedule.derivation``).
    """

    def first(self, anchor: datetime) -> datetime | None:
        """Return the first occurrence for a job anchored at ``anchor``; ``None`` for never."""
        ...

    def next_after(self, moment: datetime, anchor: datetime) -> datetime | None:
        """Return the first occurrence strictly after ``moment``; ``None`` for never again."""
        ...


@runtime_checkable
class Countable(Protocol):
    """What makes long gaps exact and cheap; optional for a :class:`Schedule`."""

    def count(self, after: datetime, until: datetime, anchor: datetime) -> int:
        """Return the number of occurrences in ``(after, until]``, none before the first."""
        ...

    def last_until(self, moment: datetime, anchor: datetime) -> datetime | None:
        """Return the newest occurrence at or before ``moment``, never one before the first."""
        ...


@runtime_checkable
class Measured(Protocol):
    """A schedule made of others: it can count as exactly as they can."""

    def measure(self, after: datetime, until: datetime, anchor: datetime) -> Counted:
        """Return the number of occurrences in ``(after, until]``, none before the first."""
        ...

    def newest(self, after: datetime, until: datetime, anchor: datetime) -> Newest:
        """Return the newest occurrence in ``(after, until]``, never one before the first."""
        ...


class Counted(NamedTuple):
    """How many occurrences there are.

    Attributes:
        number: Occurrences found.
        exact: False where stepping stopped at its limit: then there are *at least* ``number``.
    """

    number: int
    exact: bool


class Newest(NamedTuple):
    """The newest occurrence of a range.

    Attributes:
        moment: The occurrence, ``None`` where the range has none.
        exact: False where stepping stopped at its limit: then a newer one may exist.
    """

    moment: datetime | None
    exact: bool


def counts_from_end(schedule: Schedule) -> bool:
    """Say whether the next occurrence is counted from the end of a run, and unknown before it.

    A class declares that by an attribute ``counts_from_end = True``.
    """
    return getattr(schedule, "counts_from_end", False) is True


def counts_from_anchor(schedule: Schedule) -> bool:
    """Say whether the occurrences depend on when the schedule took effect for a job.

    A schedule declares that by an attribute ``counts_from_anchor``. One that does not is taken to
    count from the anchor where it has a period, ``every``, and no ``start``.
    """
    declared = getattr(schedule, "counts_from_anchor", None)
    if declared is not None:
        return bool(declared)
    return hasattr(schedule, "every") and getattr(schedule, "start", None) is None


class BuiltIn:
    """What the kinds of this package share; a third-party schedule need not inherit it."""

    __slots__ = ()
    counts_from_end: ClassVar[bool] = False

    def upcoming(
        self: Schedule, after: datetime, n: int, anchor: datetime | None = None
    ) -> list[datetime]:
        """List the next occurrences, for people to look at.

        Args:
            after: The occurrences listed are strictly after this moment.
            n: How many at most.
            anchor: Where the schedule took effect; ``after`` unless told.

        Returns:
            Up to ``n`` moments in UTC, ascending.

        Raises:
            InvalidDefinition: A moment is naive, or ``n`` is negative.
        """
        return upcoming(self, after, n, anchor)


def upcoming(
    schedule: Schedule, after: datetime, n: int, anchor: datetime | None = None
) -> list[datetime]:
    """List the next occurrences of any schedule, also a third party's, for people to look at.

    Args:
        schedule: The schedule.
        after: The occurrences listed are strictly after this moment.
        n: How many at most.
        anchor: Where the schedule took effect; ``after`` unless told.

    Returns:
        Up to ``n`` moments in UTC, ascending.

    Raises:
        InvalidDefinition: A moment is naive, or ``n`` is negative.
    """
    if n < 0:
        raise InvalidDefinition("n", f"must be 0 or more, not {n!r}")

    moment = utc(after, "after")
    anchor = moment if anchor is None else utc(anchor, "anchor")
    found: list[datetime] = []

    while len(found) < n:
        following = next_occurrence(schedule, moment, anchor)

        if following is None:
            break

        moment = utc(following, "schedule")
        found.append(moment)

    return found


def utc(moment: datetime, field: str) -> datetime:
    """Return the moment in UTC.

    Args:
        moment: A timezone-aware datetime.
        field: The name of the argument, for the error.

    Raises:
        InvalidDefinition: The moment is naive or no datetime, or has no place in UTC's calendar.
    """
    if not isinstance(moment, datetime):
        raise InvalidDefinition(
            field, f"must be a timezone-aware datetime, not {type(moment).__name__}"
        )

    if moment.tzinfo is UTC:
        return moment

    if moment.utcoffset() is None:
        raise InvalidDefinition(
            field,
            f"{moment.isoformat()} is naive, so it does not say which moment it means: "
            "give it a time zone, for example datetime(..., tzinfo=timezone.utc)",
        )

    try:
        return moment.astimezone(UTC)
    except OverflowError:
        raise InvalidDefinition(
            field, f"{moment.isoformat()} lies outside the years 1 to 9999 in UTC"
        ) from None


def first_occurrence(schedule: Schedule, anchor: datetime) -> datetime | None:
    """Return the first occurrence for a job anchored at ``anchor``; ``None`` for never.

    Raises:
        InvalidDefinition: The schedule answered with something else than an aware moment.
    """
    found = schedule.first(anchor)
    return None if found is None else _believed(schedule, "first", found)


def next_occurrence(schedule: Schedule, moment: datetime, anchor: datetime) -> datetime | None:
    """Return the first occurrence strictly after ``moment``; ``None`` for never again.

    Raises:
        InvalidDefinition: The schedule answered with something else than a later, aware moment.
    """
    found = schedule.next_after(moment, anchor)

    if found is None:
        return None

    believed = _believed(schedule, "next_after", found)

    if believed <= moment:
        raise _unbelievable(
            schedule,
            "next_after",
            f"{found.isoformat()}, which is not after the {moment.isoformat()} that it was given",
        )

    return believed


def count_occurrences(
    schedule: Schedule,
    after: datetime,
    until: datetime,
    anchor: datetime,
    *,
    most: int = STEPPING_LIMIT,
) -> Counted:
    """Count the occurrences in ``(after, until]``: exactly where the schedule can.

    A schedule that is not :class:`Countable` is stepped through, at most ``most`` times.

    Raises:
        InvalidDefinition: The schedule gave an answer that cannot be true.
    """
    if _is(type(schedule), Measured):
        return cast(Measured, schedule).measure(after, until, anchor)

    if _is(type(schedule), Countable):
        number = cast(Countable, schedule).count(after, until, anchor)
        if type(number) is not int or number < 0:
            raise _unbelievable(schedule, "count", f"{shown(number)}, which is no number of them")
        return Counted(number, exact=True)

    number, _, exact = step(schedule, after, until, anchor, most=most)
    return Counted(number, exact)


def last_occurrence(
    schedule: Schedule,
    after: datetime,
    until: datetime,
    anchor: datetime,
    *,
    most: int = STEPPING_LIMIT,
) -> Newest:
    """Find the newest occurrence in ``(after, until]``: exactly where the schedule can.

    A schedule that is not :class:`Countable` is stepped through, at most ``most`` times.

    Raises:
        InvalidDefinition: The schedule gave an answer that cannot be true.
    """
    if _is(type(schedule), Measured):
        return cast(Measured, schedule).newest(after, until, anchor)

    if _is(type(schedule), Countable):
        newest = cast(Countable, schedule).last_until(until, anchor)
        if newest is None:
            return Newest(None, exact=True)
        if _believed(schedule, "last_until", newest) > until:
            raise _unbelievable(
                schedule,
                "last_until",
                f"{newest.isoformat()}, which is after the {until.isoformat()} that it was given",
            )
        return Newest(newest if newest > after else None, exact=True)

    _, newest, exact = step(schedule, after, until, anchor, most=most)
    return Newest(newest, exact)


@lru_cache(maxsize=256)
def _is(kind: type, protocol: type) -> bool:
    """Say whether a class has a protocol's methods; looking that up costs more than they do."""
    return issubclass(kind, protocol)


def is_stepped(schedule: Schedule) -> bool:
    """Say whether a schedule can be counted by going from one occurrence to the next only."""
    return not (_is(type(schedule), Measured) or _is(type(schedule), Countable))


def step(
    schedule: Schedule, after: datetime, until: datetime, anchor: datetime, *, most: int
) -> tuple[int, datetime | None, bool]:
    """Go through the occurrences in ``(after, until]``, at most ``most`` of them.

    Returns:
        How many there are, the newest of them, and whether that was all.
    """
    newest: datetime | None = None

    for number in range(most):
        following = next_occurrence(schedule, after if newest is None else newest, anchor)

        if following is None or following > until:
            return number, newest, True

        newest = following

    return max(most, 0), newest, False


def _believed(schedule: Schedule, method: str, found: object) -> datetime:
    """Return what a schedule answered in UTC, if it is a moment."""
    if type(found) is datetime and found.tzinfo is UTC:
        return found

    if not isinstance(found, datetime):
        raise _unbelievable(schedule, method, f"{shown(found)}, which is no datetime")

    if found.utcoffset() is None:
        raise _unbelievable(
            schedule, method, f"{found.isoformat()}, which is naive: give it a time zone"
        )

    return utc(found, "schedule")


def _unbelievable(schedule: Schedule, method: str, answer: str) -> InvalidDefinition:
    return InvalidDefinition(
        "schedule", f"{type(schedule).__name__}.{method} returned {answer}: mend that method"
    )
