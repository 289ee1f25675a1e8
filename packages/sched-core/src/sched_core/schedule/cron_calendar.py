"""Finds and counts the local times that an expression names, on a calendar without time zones.

*Local seconds* are seconds since 1970-01-01 00:00 on the wall clock. *Days* are days since then.
A month is one integer whose bit ``d`` says whether day ``d`` matches: the search is shifting, the
count is counting bits.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from calendar import isleap
from datetime import date

from sched_core.schedule.cron_fields import LONGEST_MONTHS, Fields

_DAY = 86_400
_EPOCH = date(1970, 1, 1).toordinal()
_FIRST_DAY = date.min.toordinal() - _EPOCH
_LAST_DAY = date.max.toordinal() - _EPOCH


class Calendar:
    """The local times of one expression, in the years 1 to 9999."""

    __slots__ = (
        "_days",
        "_every_day",
        "_joined_by_and",
        "_minutes",
        "_month_after",
        "_month_before",
        "_months",
        "_per_day",
        "_seconds",
        "_weekdays",
    )

    def __init__(self, fields: Fields) -> None:
        self._seconds = fields.seconds
        self._minutes = [hour * 60 + minute for hour in fields.hours for minute in fields.minutes]
        self._per_day = len(self._minutes) * len(self._seconds)
        self._months = frozenset(fields.months)
        self._month_after = [_following(fields.months, month) for month in range(13)]
        self._month_before = [_preceding(fields.months, month) for month in range(13)]
        self._joined_by_and = fields.joined_by_and
        self._days = sum(1 << day for day in fields.days)
        # One mask per weekday that the first of the month may be, Monday being 0.
        self._weekdays = [
            sum(1 << day for day in range(1, 32) if (first + day) % 7 in fields.weekdays)
            for first in range(7)
        ]
        every_day = (2 << 31) - 2
        self._every_day = len(fields.months) == 12 and all(
            self._matching(first) == every_day for first in range(7)
        )

    def next_from(self, second: int) -> int | None:
        """Return the first local second at or after ``second``; ``None`` past the year 9999."""
        day, rest = divmod(second, _DAY)
        matching = day if self._every_day else self._day_from(day)

        if matching == day:
            minute, rest = divmod(rest, 60)
            minutes = self._minutes
            index = bisect_left(minutes, minute)

            if index < len(minutes):
                if minutes[index] > minute:
                    return day * _DAY + minutes[index] * 60 + self._seconds[0]

                if rest <= self._seconds[-1]:
                    rest = self._seconds[bisect_left(self._seconds, rest)]
                    return day * _DAY + minute * 60 + rest

                if index + 1 < len(minutes):
                    return day * _DAY + minutes[index + 1] * 60 + self._seconds[0]

            matching = day + 1 if self._every_day else self._day_from(day + 1)

        if matching is None or not _FIRST_DAY <= matching <= _LAST_DAY:
            return None

        return matching * _DAY + self._minutes[0] * 60 + self._seconds[0]

    def newest_until(self, second: int, lowest: int) -> int | None:
        """Return the last local second in ``[lowest, second]``; ``None`` if there is none."""
        day, rest = divmod(second, _DAY)
        matching = self._day_until(day)

        if matching == day:
            minute, rest = divmod(rest, 60)
            index = bisect_right(self._minutes, minute) - 1

            if index >= 0 and self._minutes[index] == minute and rest < self._seconds[0]:
                index -= 1
                rest = 59
            elif index >= 0 and self._minutes[index] < minute:
                rest = 59

            if index >= 0:
                rest = self._seconds[bisect_right(self._seconds, rest) - 1]
                found = day * _DAY + self._minutes[index] * 60 + rest
                return found if found >= lowest else None

            matching = self._day_until(day - 1)

        if matching is None:
            return None

        found = matching * _DAY + self._minutes[-1] * 60 + self._seconds[-1]
        return found if found >= lowest else None

    def count(self, start: int, end: int) -> int:
        """Return how many local seconds there are in ``[start, end)``."""
        if start >= end:
            return 0

        first, rest = divmod(start, _DAY)
        last, end_rest = divmod(end, _DAY)
        number = self._count_days(first, last) * self._per_day

        if self._day_from(first) == first:
            number -= self._count_before(rest)

        if self._day_from(last) == last:
            number += self._count_before(end_rest)

        return number

    def _count_before(self, rest: int) -> int:
        """Return how many times of a matching day are before the second ``rest`` of it."""
        minute, rest = divmod(rest, 60)
        index = bisect_left(self._minutes, minute)
        number = index * len(self._seconds)

        if index < len(self._minutes) and self._minutes[index] == minute:
            number += bisect_left(self._seconds, rest)

        return number

    def _day_from(self, day: int) -> int | None:
        """Return the first matching day at or after ``day``."""
        if self._every_day:
            return day

        day = max(day, _FIRST_DAY)

        if day > _LAST_DAY:
            return None

        start = date.fromordinal(day + _EPOCH)
        year, month = start.year, start.month

        if month in self._months:
            first = day - start.day + 1
            mask = self._mask(year, month, first) >> start.day

            if mask:
                return day + (mask & -mask).bit_length() - 1

        while True:
            following = self._month_after[month]
            year += following <= month
            month = following

            if year > 9999:
                return None

            first = date(year, month, 1).toordinal() - _EPOCH
            mask = self._mask(year, month, first)

            if mask:
                return first + (mask & -mask).bit_length() - 2

    def _day_until(self, day: int) -> int | None:
        """Return the last matching day at or before ``day``."""
        if self._every_day:
            return day

        day = min(day, _LAST_DAY)

        if day < _FIRST_DAY:
            return None

        start = date.fromordinal(day + _EPOCH)
        year, month = start.year, start.month

        if month in self._months:
            first = day - start.day + 1
            mask = self._mask(year, month, first) & ((2 << start.day) - 1)

            if mask:
                return first + mask.bit_length() - 2

        while True:
            preceding = self._month_before[month]
            year -= preceding >= month
            month = preceding

            if year < 1:
                return None

            first = date(year, month, 1).toordinal() - _EPOCH
            mask = self._mask(year, month, first)

            if mask:
                return first + mask.bit_length() - 2

    def _count_days(self, start: int, end: int) -> int:
        """Return how many days in ``[start, end)`` match."""
        if self._every_day:
            return end - start

        number = 0
        day = max(start, _FIRST_DAY)
        end = min(end, _LAST_DAY + 1)

        while day < end:
            begin = date.fromordinal(day + _EPOCH)
            first = day - begin.day + 1
            length = _length(begin.year, begin.month)

            if begin.month in self._months:
                mask = self._mask(begin.year, begin.month, first) >> begin.day

                if end < first + length:
                    mask &= (1 << (end - day)) - 1

                number += mask.bit_count()

            day = first + length

        return number

    def _mask(self, year: int, month: int, first: int) -> int:
        """Return the matching days of a month that starts on day ``first``."""
        return self._matching((first + 3) % 7) & ((2 << _length(year, month)) - 2)

    def _matching(self, first: int) -> int:
        """Return the matching days of a month that starts on weekday ``first``, Monday being 0."""
        weekdays = self._weekdays[first]
        return self._days & weekdays if self._joined_by_and else self._days | weekdays


def _length(year: int, month: int) -> int:
    return 28 if month == 2 and not isleap(year) else LONGEST_MONTHS[month]


def _following(months: tuple[int, ...], month: int) -> int:
    return next((other for other in months if other > month), months[0])


def _preceding(months: tuple[int, ...], month: int) -> int:
    return next((other for other in reversed(months) if other < month), months[-1])
