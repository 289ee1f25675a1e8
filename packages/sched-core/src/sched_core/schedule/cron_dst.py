"""Time zones as integer arithmetic: when offsets change, and what a rule makes of such nights.

Moments are whole seconds since 1970-01-01 UTC; *local seconds* are the same plus the offset.
A zone becomes a row of pieces in which the offset does not change. What cron does in a gap or an
overlap is decided once, when the pieces are cut, so that searching them needs no special cases.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, tzinfo
from functools import cache, lru_cache
from itertools import pairwise
from typing import Literal, NamedTuple
from zoneinfo import ZoneInfo, available_timezones

from attrs import frozen

from sched_core.errors import InvalidDefinition, shown

Gap = Literal["once-after", "skip"]
Fold = Literal["first", "both", "last"]

DAY = 86_400
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
EARLIEST = -62_135_596_800
LATEST = 253_402_300_799
"""The first and the last second that a datetime can hold."""

_BLOCK_BITS = 25
"""Zones are cut into blocks of 2**25 seconds (388 days), so that only what is asked for is read."""

_PROBE = 6 * DAY
"""No zone changes its offset twice within this time: the closest two in tzdata 2026 are 6.96 days
apart (Gaza, Recife)."""

_MARGIN = 2 * DAY
"""More than any offset jumps: Apia's skipped day was 24 hours."""

_NEVER_BEFORE = EARLIEST - 8 * DAY
_NEVER_AFTER = LATEST + 8 * DAY


@frozen
class DstRule:
    """What happens to local times that do not exist or exist twice, for any expression.

    The default of ``Cron`` is no such rule but Debian cron's, which depends on the expression:
    one whose minute or hour field begins with ``*`` follows elapsed time, as
    ``DstRule(gap="skip", fold="both")`` does; any other has fixed times, as
    ``DstRule(gap="once-after", fold="first")`` does.

    Args:
        gap: ``"once-after"``: all times that a night lacks run once, at the first moment after
            the gap; ``"skip"``: they do not run.
        fold: which of two equal local times runs: the ``"first"``, the ``"last"`` or ``"both"``.

    Raises:
        InvalidDefinition: Another word was given.
    """

    gap: Gap = "once-after"
    fold: Fold = "first"

    def __attrs_post_init__(self) -> None:
        _one_of("gap", self.gap, ("once-after", "skip"))
        _one_of("fold", self.fold, ("first", "both", "last"))


def _one_of(name: str, value: object, words: tuple[str, ...]) -> None:
    if value not in words:
        raise InvalidDefinition(name, f"{shown(value)} is not one of {', '.join(map(repr, words))}")


class Transition(NamedTuple):
    """A change of a zone's offset: the moment, and the offsets before and from it, in seconds."""

    moment: int
    before: int
    after: int


class Piece(NamedTuple):
    """A stretch of time with one offset: ``[start, end)`` in seconds since 1970 UTC.

    Attributes:
        offset: Local seconds minus seconds.
        missing: The first of the local seconds that are made up for at ``start``; equal to
            ``start + offset`` where none are.
    """

    start: int
    end: int
    offset: int
    missing: int


class Timeline:
    """A zone's time as pieces with one offset each, cut by one rule.

    Args:
        zone: UTC or an IANA zone.
        rule: The rule for gaps and overlaps.
    """

    __slots__ = ("_rule", "_zone")

    def __init__(self, zone: tzinfo, rule: DstRule) -> None:
        self._zone = zone
        self._rule = rule

    def pieces_from(self, second: int) -> Iterator[Piece]:
        """Yield the pieces that end after ``second``, ascending, until the calendar's end."""
        number = _clamped(second) >> _BLOCK_BITS

        while number <= LATEST >> _BLOCK_BITS:
            ends, pieces = _block(self._zone, self._rule, number)
            yield from pieces[bisect_right(ends, second) :]

            if ends[-1] == _NEVER_AFTER:
                return

            number += 1

    def pieces_until(self, second: int) -> Iterator[Piece]:
        """Yield the pieces that start at or before ``second``, descending."""
        number = _clamped(second) >> _BLOCK_BITS

        while number >= EARLIEST >> _BLOCK_BITS:
            _, pieces = _block(self._zone, self._rule, number)

            for piece in reversed(pieces):
                if piece.start <= second:
                    yield piece

            if pieces[0].start == _NEVER_BEFORE:
                return

            number -= 1


def zone_named(name: object) -> tzinfo:
    """Return the zone of an IANA name.

    The names are those of the package tzdata, and not whatever lies among the zones of a machine:
    ``localtime`` and ``posixrules`` are another time on each, ``right/…`` counts leap seconds, and
    ``europe/berlin`` is a file on some systems only. A place that the package does not know yet is
    taken from the machine: a country's new rules may come there first.

    Raises:
        InvalidDefinition: It is no such name, or there is no such zone here.
    """
    if not isinstance(name, str):
        raise InvalidDefinition(
            "tz", f"must be the name of a time zone such as 'Europe/Berlin', not {shown(name)}"
        )

    if name == "UTC":
        return UTC

    try:
        if name in _names() or _is_newer(name):
            return ZoneInfo(name)
    except (KeyError, ValueError, OSError):
        pass  # a zone that is listed and cannot be read is as good as none

    raise InvalidDefinition("tz", _unknown(name))


def _is_newer(name: str) -> bool:
    """Whether the machine alone knows a place; one in other letters is none."""
    alike = any(len(known) == len(name) and known.lower() == name.lower() for known in _names())
    return "/" in name and not alike and name in available_timezones()


def _unknown(name: str) -> str:
    for known in _names():
        if len(known) == len(name) and known.lower() == name.lower():
            return f"no time zone {name!r} is known here: its name is {known!r}"

    return (
        f"no time zone {shown(name)} is known here: use an IANA name such as 'Europe/Berlin' or "
        "'UTC', which means the same on every machine; if the name is right, upgrade the package "
        "tzdata"
    )


@cache
def _names() -> frozenset[str]:
    """Return IANA's names of zones."""
    # Here and not at the top: it takes longer than the rest, and UTC needs none.
    from importlib import resources

    text = resources.files("tzdata").joinpath("zones").read_text("utf-8")
    return frozenset(text.split()) - {"Factory"}  # the name of a zone that is not set


def transitions(zone: tzinfo, start: int, end: int) -> list[Transition]:
    """Return the changes of offset in ``(start, end]``, both in seconds since 1970 UTC."""
    if zone is UTC:
        return []

    found = []
    probes = [*range(start, end, _PROBE), end]
    offsets = [offset_at(zone, probe) for probe in probes]

    for (low, high), (before, after) in zip(pairwise(probes), pairwise(offsets), strict=True):
        if before == after:
            continue

        seconds = range(low, high + 1)
        changed = bisect_left(seconds, True, key=lambda second: offset_at(zone, second) != before)
        found.append(Transition(seconds[changed], before, after))

    return found


def _clamped(second: int) -> int:
    return min(max(second, EARLIEST), LATEST)


def offset_at(zone: tzinfo, second: int) -> int:
    """Return a zone's offset at a moment, both in seconds."""
    # Within a day of the calendar's ends the local time may have no datetime.
    second = min(max(second, EARLIEST + DAY), LATEST - DAY)
    offset = (EPOCH + timedelta(0, second)).astimezone(zone).utcoffset() or timedelta(0)
    return offset.days * DAY + offset.seconds


@lru_cache(maxsize=4096)
def _block(zone: tzinfo, rule: DstRule, number: int) -> tuple[list[int], list[Piece]]:
    """Return the pieces of one block, and apart from them their ends, to search in."""
    if zone is UTC:
        return [_NEVER_AFTER], [Piece(_NEVER_BEFORE, _NEVER_AFTER, 0, _NEVER_BEFORE)]

    low, high = number << _BLOCK_BITS, (number + 1) << _BLOCK_BITS
    changes = transitions(zone, low - _MARGIN, high + _MARGIN)
    first = changes[0].before if changes else offset_at(zone, low)
    starts = [Transition(low - _MARGIN, first, first), *changes]
    ends = [*changes, Transition(high + _MARGIN, first, first)]
    pieces = []

    for begin, end in zip(starts, ends, strict=True):
        start, stop, offset = begin.moment, end.moment, begin.after
        missing = start + offset

        if begin.after > begin.before and rule.gap == "once-after":
            missing = start + begin.before

        if begin.after < begin.before and rule.fold == "first":
            start += begin.before - begin.after
            missing = start + offset

        if end.after < end.before and rule.fold == "last":
            stop -= end.before - end.after

        if start < low:
            start, missing = low, low + offset

        stop = min(stop, high)

        if start < stop:
            pieces.append(Piece(start, stop, offset, missing))

    return [piece.end for piece in pieces], pieces
