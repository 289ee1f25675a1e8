"""Cron expressions with Debian's rule for nights in which the clock changes.

Debian's cron: a job whose minute or hour field begins with ``*`` follows elapsed time; in an
overlap it runs in both hours, in a gap nothing is made up. Any other job has fixed times: those
that a gap swallows run once at the first moment after it, and in an overlap only the first of two
equal times runs.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from functools import lru_cache
from typing import Any, Literal

from attrs import field, frozen

from sched_core.errors import InvalidDefinition, shown
from sched_core.schedule import cron_keywords
from sched_core.schedule.base import BuiltIn, utc
from sched_core.schedule.cron_calendar import Calendar
from sched_core.schedule.cron_dst import (
    DAY,
    EPOCH,
    LATEST,
    DstRule,
    Timeline,
    transitions,
    zone_named,
)
from sched_core.schedule.cron_fields import bounded, parse
from sched_core.schedule.encoding import fields_of

_ELAPSED = DstRule(gap="skip", fold="both")
_FIXED = DstRule(gap="once-after", fold="first")


_FAR = 4 * DAY
"""More than an offset can move a local time, and less than lies between two changes of a zone."""

_CYCLE = 146_097 * DAY
"""400 years, after which the calendar repeats, days of the week included."""

_SETTLED = 7_258_118_400
"""The year 2200: from then on every zone follows one rule, which repeats with the calendar."""


class _Plan:
    """Everything that is derived from the definition: built once, shared by equal schedules."""

    __slots__ = ("calendar", "indifferent", "rule", "timeline", "zone")

    def __init__(self, expression: str, tz: str, dst: Literal["debian"] | DstRule) -> None:
        fields = parse(expression)
        self.zone = zone_named(tz)
        self.calendar = Calendar(fields)
        if isinstance(dst, DstRule):
            self.rule = dst
        else:
            self.rule = _ELAPSED if fields.elapsed else _FIXED

        self.timeline = Timeline(self.zone, self.rule)
        self.indifferent = self.rule == _ELAPSED and len(fields.hours) == 24

    def next_from(self, second: int) -> int | None:
        """Return the first occurrence at or after ``second``, both in seconds since 1970 UTC."""
        calendar = self.calendar
        searched, found = 0, -1

        for start, end, offset, missing in self.timeline.pieces_from(second):
            local = missing if second <= start else second + offset

            # Nothing lies between what was searched from and what was found, so most pieces need
            # no search of their own.
            if not searched <= local <= found:
                result = calendar.next_from(local)

                if result is None:
                    return None

                searched, found = local, result

            if found < start + offset:
                return start

            if found < end + offset:
                return found - offset

            # Nothing lies between, so the pieces between need not be made. They are looked at for
            # as long as a clock that is set back can repeat what was before the one searched from.
            if end + offset - searched > _FAR and found - (end + offset) > _FAR:
                return self.next_from(found - 2 * DAY)

        return None

    def newest_until(self, second: int, lowest: int) -> int | None:
        """Return the last occurrence in ``[lowest, second]``."""
        calendar = self.calendar

        for start, end, offset, missing in self.timeline.pieces_until(second):
            if end <= lowest:
                return None

            latest, begins = min(second, end - 1) + offset, start + offset
            found = calendar.newest_until(latest, lowest - 2 * DAY)

            if found is not None and found >= max(start, lowest) + offset:
                return found - offset

            if start >= lowest and calendar.count(missing, begins):
                return start

            # As above, in the other direction.
            if latest - begins > _FAR and (found is None or begins - found > _FAR):
                return None if found is None else self.newest_until(found + 2 * DAY, lowest)

        return None

    def count(self, low: int, high: int) -> int:
        """Return how many occurrences there are in ``[low, high)``."""
        settled = max(low, _SETTLED)
        cycles = (high - settled) // _CYCLE

        if cycles > 1:
            end = settled + cycles * _CYCLE
            cycle = self.count(settled, settled + _CYCLE)
            return self.count(low, settled) + cycles * cycle + self.count(end, high)

        calendar = self.calendar
        number = 0

        for start, end, offset, missing in self.timeline.pieces_from(low):
            if start >= high:
                break

            local = start + offset
            number += calendar.count(max(low, start) + offset, min(high, end) + offset)

            # What is made up for coincides with an occurrence that is due at that moment anyway.
            if (
                start >= low
                and calendar.count(missing, local)
                and not calendar.count(local, local + 1)
            ):
                number += 1

        return number


_plan = lru_cache(maxsize=1024)(_Plan)


def _text(expression: object) -> str:
    if not isinstance(expression, str):
        raise InvalidDefinition(
            "expression", f"must be text such as '0 3 * * *', not {type(expression).__name__}"
        )

    return " ".join(bounded("expression", expression).split())


def _zone_name(tz: object) -> str:
    zone_named(tz)
    return str(tz)


def _rule(dst: object) -> Literal["debian"] | DstRule:
    if isinstance(dst, DstRule):
        return dst

    if dst == "debian":
        return "debian"

    raise InvalidDefinition("dst", f"must be 'debian' or a DstRule, not {shown(dst)}")


@frozen(init=False)
class Cron(BuiltIn):
    """Times of day and days of the calendar, in a time zone.

    Five fields (minute, hour, day of month, month, day of week), or six with the second **first**,
    or a nickname such as ``@daily``. The two day fields are joined with AND if one of them begins
    with ``*``, with OR otherwise (Vixie cron). Sunday is 0 and 7.

    Fields can be given by name instead: ``Cron(hour=3)`` is ``Cron("0 3 * * *")``. What is smaller
    than the smallest one given is at its start, what is larger is every.

    Args:
        expression: The text; it is kept with single spaces.
        tz: An IANA time zone name.
        dst: ``"debian"``, or a :class:`DstRule` for every expression alike.
        second, minute, hour, day, month, day_of_week: Numbers, or texts such as ``"*/5"``.

    Raises:
        InvalidDefinition: The expression is malformed or can never fire, the zone is unknown, or
            both an expression and a field were given.

    Warns:
        ScheduleWarning: APScheduler would read the fields otherwise.
    """

    expression: str
    tz: str
    dst: Literal["debian"] | DstRule
    _derived: _Plan = field(init=False, eq=False, repr=False)

    def __init__(
        self,
        expression: str | None = None,
        tz: str = "UTC",
        dst: Literal["debian"] | DstRule = "debian",
        *,
        second: int | str | None = None,
        minute: int | str | None = None,
        hour: int | str | None = None,
        day: int | str | None = None,
        month: int | str | None = None,
        day_of_week: int | str | None = None,
    ) -> None:
        fields = {
            "second": second,
            "minute": minute,
            "hour": hour,
            "day": day,
            "month": month,
            "day_of_week": day_of_week,
        }
        if expression is None:
            expression = cron_keywords.expression(fields)
        elif given := [name for name, value in fields.items() if value is not None]:
            raise InvalidDefinition(
                "expression", f"is given, and so is {', '.join(given)}: give one or the other"
            )
        text, zone, rule = _text(expression), _zone_name(tz), _rule(dst)
        self.__attrs_init__(text, zone, rule)
        object.__setattr__(self, "_derived", _plan(text, zone, rule))

    def __reduce__(self) -> tuple[type[Cron], tuple[object, ...]]:
        return type(self), (self.expression, self.tz, self.dst)

    def first(self, anchor: datetime) -> datetime | None:
        """Return the first occurrence strictly after the anchor, in UTC."""
        return self.next_after(anchor, anchor)

    def next_after(self, moment: datetime, anchor: datetime) -> datetime | None:
        """Return the first occurrence strictly after ``moment``, never before the first.

        Returns:
            A moment in UTC, or ``None`` past the year 9999.
        """
        moment = utc(moment, "moment")

        if anchor is not moment:
            moment = max(moment, utc(anchor, "anchor"))

        second = self._derived.next_from(_second(moment) + 1)
        return None if second is None else _moment(second)

    def count(self, after: datetime, until: datetime, anchor: datetime) -> int:
        """Return the exact number of occurrences in ``(after, until]``, none before the first."""
        after = max(utc(after, "after"), utc(anchor, "anchor"))
        return self._derived.count(_second(after) + 1, _second(utc(until, "until")) + 1)

    def last_until(self, moment: datetime, anchor: datetime) -> datetime | None:
        """Return the newest occurrence at or before ``moment``; ``None`` before the first."""
        lowest = _second(utc(anchor, "anchor")) + 1
        second = self._derived.newest_until(_second(utc(moment, "moment")), lowest)
        return None if second is None else _moment(second)


def dst_warnings(cron: Cron, after: datetime, years: int = 1) -> list[str]:
    """Return a warning for each night in which a schedule meets missing or repeated local times.

    A schedule that follows elapsed time in all 24 hours meets nothing odd and gets no warning.

    Args:
        cron: The schedule.
        after: A timezone-aware moment from which on to look.
        years: How far to look, in years of 365.25 days.

    Returns:
        One sentence per night, with its local date, ascending.
    """
    plan = _plan(cron.expression, cron.tz, cron.dst)

    if plan.indifferent:
        return []

    start = _second(utc(after, "after"))
    end = min(start + years * 36525 * DAY // 100, LATEST)
    warnings = []

    for moment, before, later in transitions(plan.zone, start, end):
        low, high = sorted((moment + before, moment + later))

        if not plan.calendar.count(low, high):
            continue

        span = f"{_clock(low)} to {_clock(high)}"

        if later > before:
            effect = (
                f"what is due then runs once, at {_clock(high)}"
                if plan.rule.gap == "once-after"
                else "what is due then does not run"
            )
            night = f"{span} does not exist; {effect}"
        else:
            which = {"first": "only the first time", "last": "only the second time"}
            times = which.get(plan.rule.fold, "both times")
            night = f"{span} comes twice; what is due then runs {times}"

        warnings.append(f"{_local(low):%Y-%m-%d}: in {cron.tz} {night} ({cron.expression})")

    return warnings


def _second(moment: datetime) -> int:
    """Return the whole seconds since 1970 at or before a moment in UTC."""
    since = moment - EPOCH
    return since.days * DAY + since.seconds


def _moment(second: int) -> datetime | None:
    try:
        return EPOCH + timedelta(0, second)
    except OverflowError:
        return None


def _local(second: int) -> datetime:
    """Return local seconds as a datetime whose fields show the wall clock; it is not UTC."""
    return EPOCH + timedelta(0, second)


def _clock(second: int) -> str:
    return f"{_local(second):%H:%M}"


def encode_cron(cron: Cron) -> dict[str, Any]:
    """Return how the schedule is stored: what ``json`` can write."""
    body: dict[str, Any] = {"expression": cron.expression}
    if cron.tz != "UTC":
        body["tz"] = cron.tz
    if isinstance(cron.dst, DstRule):
        body["dst"] = {"gap": cron.dst.gap, "fold": cron.dst.fold}
    return body


def decode_cron(value: Any) -> Cron:
    """Return the schedule that is stored so; raise an error if none is."""
    body = fields_of(value, "expression", "tz dst")
    rule = fields_of(body["dst"], "gap fold") if "dst" in body else None
    dst: Literal["debian"] | DstRule = DstRule(rule["gap"], rule["fold"]) if rule else "debian"
    return Cron(body["expression"], body.get("tz", "UTC"), dst)
