"""Cron fields by name: ``Cron(hour=3, day_of_week="mon-fri")`` is ``Cron("0 3 * * mon-fri")``.

What is smaller than the smallest field given is at its start (second and minute 0, day and month
1), what is larger is every: as in APScheduler's ``CronTrigger``. Two things differ from there, and
are warned of where they matter: days of the week are numbered from Sunday, and two day fields are
joined by *or*, as in every cron.
"""

from __future__ import annotations

import re
import warnings

from sched_core.errors import InvalidDefinition, ScheduleWarning, shown
from sched_core.schedule.cron_fields import bounded, parse

# From large to small, each with its text where only larger fields are given.
_STARTS = {
    "month": "1",
    "day": "1",
    "day_of_week": "*",
    "hour": "0",
    "minute": "0",
    "second": "0",
}
_ORDER = ("minute", "hour", "day", "month", "day_of_week")
LARGEST = 10**9
"""No field has so large a number; one of 5,000 digits is slow to write, or cannot be."""
_NUMBER = re.compile(r"(?<![/\d])\d+")


def expression(given: dict[str, int | str | None]) -> str:
    """Return the expression of fields given by name.

    Raises:
        InvalidDefinition: No field was given, or one is neither a number nor text.
    """
    texts = {name: _text(name, value) for name, value in given.items() if value is not None}
    if not texts:
        raise InvalidDefinition(
            "expression", "is missing: give text such as '0 3 * * *', or fields such as hour=3"
        )
    smallest = max(list(_STARTS).index(name) for name in texts)
    for index, (name, start) in enumerate(_STARTS.items()):
        texts.setdefault(name, "*" if index < smallest else start)
    fields = [texts[name] for name in _ORDER]
    if given["second"] is not None:
        fields.insert(0, texts["second"])
    found = " ".join(fields)
    _warn(found, texts["day"], texts["day_of_week"])
    return found


def _text(name: str, value: object) -> str:
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise InvalidDefinition(
            name,
            f"must be a number or text such as '*/5', not {type(value).__name__} ({shown(value)})",
        )
    if isinstance(value, int) and abs(value) > LARGEST:
        raise InvalidDefinition(name, "is out of bounds: give a number of this field")
    text = bounded(name, str(value)).strip()
    if not text or len(text.split()) > 1:
        raise InvalidDefinition(name, f"must be one cron field such as '*/5', not {value!r}")
    return text


def _warn(found: str, day: str, day_of_week: str) -> None:
    if day_of_week != "*":
        here, there = (
            parse(f"0 0 * * {text}").weekdays
            for text in (day_of_week, _numbered_from_monday(day_of_week))
        )
        if here != there:
            names = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
            days = ",".join(names[day] for day in here)
            warnings.warn(
                f"day_of_week={day_of_week!r} is {days} here: days are numbered from Sunday, as in "
                "cron, and not from Monday, as in APScheduler; write names to be sure",
                ScheduleWarning,
                stacklevel=4,
            )
    if not day.startswith("*") and not day_of_week.startswith("*"):
        warnings.warn(
            f"{found!r} runs on each day that matches day={day!r} or day_of_week={day_of_week!r}: "
            "cron joins the two by or, APScheduler by and",
            ScheduleWarning,
            stacklevel=4,
        )


def _numbered_from_monday(text: str) -> str:
    """Return a field as it would have to be written if APScheduler's reading was meant."""
    if text.startswith("*"):
        text = text.replace("*", "0-6", 1)
    return _NUMBER.sub(lambda match: str((int(match.group()) + 1) % 8), text)
