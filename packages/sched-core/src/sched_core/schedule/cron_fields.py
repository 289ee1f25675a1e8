"""The parser of cron expressions.

The language is Vixie cron's as Debian ships it: numbers, names, ``*``, ranges, steps, lists and
the ``@`` nicknames, with an optional field for seconds in front. What other dialects add is
refused, with the remedy:

* A reversed range is an error, as in Vixie cron, except in the day of week. There ``fri-mon``
  has one possible meaning, so it wraps; Vixie cron refuses it, and no crontab relies on that.
* ``R`` is refused: it draws a value at every parse. So is ``H``, which needs a hash of the job.
* ``L``, ``W``, ``#``, ``?`` and years are refused: they are no part of Debian's cron.
* A time zone in front, ``CRON_TZ=…``, is refused: it is an argument here.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache

from attrs import frozen

from sched_core.errors import InvalidDefinition, shown

NICKNAMES = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}
"""Vixie cron's nicknames, except ``@reboot``, which names no moment."""

LONGEST_EXPRESSION = 1000
"""The most characters in an expression. One that lists every value of all six fields has 530; a
longer one only repeats itself, and takes time to read in which nothing else runs."""

LONGEST_MONTHS = (0, 31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)


@frozen
class FieldKind:
    """One column of an expression: the values it may hold, and names for some of them."""

    name: str
    low: int
    high: int
    names: tuple[str, ...] = ()


SECOND = FieldKind("second", 0, 59)
MINUTE = FieldKind("minute", 0, 59)
HOUR = FieldKind("hour", 0, 23)
DAY_OF_MONTH = FieldKind("day of month", 1, 31)
# fmt: off
MONTH = FieldKind("month", 1, 12, (
    "jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec",
))
DAY_OF_WEEK = FieldKind("day of week", 0, 7, ("sun", "mon", "tue", "wed", "thu", "fri", "sat"))
# fmt: on
KINDS = (SECOND, MINUTE, HOUR, DAY_OF_MONTH, MONTH, DAY_OF_WEEK)

_ZONE_IN_FRONT = re.compile(r"(?:cron_)?tz=['\"]?([^\s'\"]*)['\"]?\s*(.*)", re.IGNORECASE)
_TERM = re.compile(
    r"(?:(?P<star>\*)|(?P<low>\d{1,9}|[a-z]{3})(?:-(?P<high>\d{1,9}|[a-z]{3}))?)"
    r"(?:/(?P<step>\d{1,9}))?",
    re.ASCII,
)


@frozen
class Fields:
    """What an expression says.

    Attributes:
        seconds, minutes, hours, days, months: Values, ascending.
        weekdays: 0 to 6, Sunday being 0.
        joined_by_and: A day must match both day fields, because one of them begins with ``*``
            (Vixie cron's rule); otherwise one of the two is enough.
        elapsed: The minute or the hour field begins with ``*``: Debian's cron lets such a job
            follow elapsed time when the offset changes, and gives any other fixed times.
    """

    seconds: tuple[int, ...]
    minutes: tuple[int, ...]
    hours: tuple[int, ...]
    days: tuple[int, ...]
    months: tuple[int, ...]
    weekdays: tuple[int, ...]
    joined_by_and: bool
    elapsed: bool


@lru_cache(maxsize=1024)
def parse(expression: str) -> Fields:
    """Read five fields, or six with seconds first, or a nickname.

    Raises:
        InvalidDefinition: The expression is malformed, not Debian's, or can never fire.
    """
    texts = _columns(expression)
    seconds, minutes, hours, days, months, weekdays = (
        tuple(sorted({value for term in text.split(",") for value in _values(term, kind)}))
        for text, kind in zip(texts, KINDS, strict=True)
    )
    joined_by_and = texts[3].startswith("*") or texts[5].startswith("*")

    if joined_by_and and min(days) > max(LONGEST_MONTHS[month] for month in months):
        raise InvalidDefinition(
            "expression",
            f"{expression!r} can never fire: no month in {texts[4]!r} has a day in {texts[3]!r}",
        )

    return Fields(
        seconds=seconds,
        minutes=minutes,
        hours=hours,
        days=days,
        months=months,
        weekdays=weekdays,
        joined_by_and=joined_by_and,
        elapsed=texts[1].startswith("*") or texts[2].startswith("*"),
    )


def bounded(name: str, text: str) -> str:
    """Refuse what is too long to be an expression, or a field of one.

    Raises:
        InvalidDefinition: It has more than 1,000 characters.
    """
    if len(text) > LONGEST_EXPRESSION:
        raise InvalidDefinition(
            name,
            f"must have at most {LONGEST_EXPRESSION} characters, not {len(text)}: write ranges "
            "and steps, such as 0-30/2",
        )

    return text


def _columns(expression: str) -> list[str]:
    """Return the texts of six fields, seconds first."""
    text = bounded("expression", expression).lower()

    if match := _ZONE_IN_FRONT.fullmatch(expression):
        zone, rest = match.groups()
        call = f"Cron({rest or '0 9 * * *'!r}, tz={zone or 'Europe/Berlin'!r})"
        raise InvalidDefinition(
            "expression",
            f"{shown(expression)} has a time zone in front, which is an argument here: {call}",
        )

    if text.startswith("@"):
        if text == "@reboot":
            raise InvalidDefinition(
                "expression",
                "'@reboot' names no moment: do the work when your service starts, or declare a "
                "job with Once(at)",
            )

        if text not in NICKNAMES:
            raise InvalidDefinition(
                "expression", f"{expression!r} is not one of {', '.join(NICKNAMES)}"
            )

        text = NICKNAMES[text]

    texts = text.split()

    if len(texts) == 5:
        return ["0", *texts]

    if len(texts) == 6:
        return texts

    raise InvalidDefinition(
        "expression",
        f"{expression!r} has {len(texts)} fields: give five (minute, hour, day of month, month, "
        "day of week) or six with the second in front; there is no field for years",
    )


def _values(term: str, kind: FieldKind) -> Iterable[int]:
    """Return the values of a term, as Debian's cron reads it."""
    match = _TERM.fullmatch(term)

    if match is None:
        raise _refusal(term, kind, _remedy(term))

    step = 1 if match["step"] is None else int(match["step"])

    if step == 0:
        raise _refusal(term, kind, "a step is 1 or more")

    if match["star"] is not None:
        low, high = kind.low, kind.high
    elif match["high"] is not None:
        low = _value(match["low"], term, kind)
        high = _value(match["high"], term, kind)
    else:
        low = _value(match["low"], term, kind)
        high = low if match["step"] is None else kind.high

    if kind is DAY_OF_WEEK:
        if high < low:
            high += 7

        return {day % 7 for day in range(low, high + 1, step)}

    if high < low:
        raise _refusal(
            term, kind, f"the range is reversed: write {low}-{kind.high},{kind.low}-{high}"
        )

    return range(low, high + 1, step)


def _value(text: str, term: str, kind: FieldKind) -> int:
    if text in kind.names:
        return kind.names.index(text) + kind.low

    if not text.isdigit():
        raise _refusal(term, kind, _remedy(term))

    if not kind.low <= int(text) <= kind.high:
        raise _refusal(term, kind, f"{text} is not in {kind.low}-{kind.high}")

    return int(text)


def _refusal(term: str, kind: FieldKind, reason: str) -> InvalidDefinition:
    return InvalidDefinition("expression", f"{term!r} is no {kind.name}: {reason}")


def _remedy(term: str) -> str:
    if re.match(r"r(\(|/|$)", term):
        return "R draws a random value at every parse, so two replicas would disagree; give a value"

    if re.match(r"h(\(|/|$)", term):
        return "H needs a hash of the job; give a value, or spread the job with Policy.jitter"

    if "?" in term:
        return "write * instead of ?"

    if "#" in term or "w" in term or re.search(r"(^|\d|-)l", term):
        return (
            "L, W and # are no part of Debian's cron; use plain days and let the handler "
            "leave the others out"
        )

    return "use numbers, three-letter names, *, ranges (1-5), steps (*/5) and lists (1,2)"
