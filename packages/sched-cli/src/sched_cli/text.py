"""Values as text for people."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from attrs import Factory, fields, has

from sched_core import (
    AnyOf,
    Between,
    Cron,
    Excluding,
    FixedDelay,
    Interval,
    InvalidDefinition,
    Job,
    Once,
    Policy,
    Progress,
    Schedule,
)
from sched_core.settings import duration

_UNITS = ((86_400, "d"), (3600, "h"), (60, "m"), (1, "s"))


def span(length: timedelta) -> str:
    """Return a duration of any size in at most two units: ``3h 12m``."""
    seconds = abs(length.total_seconds())
    if seconds < 10:
        return f"{seconds:.3g}s"
    left, parts = round(seconds), list[str]()
    for size, unit in _UNITS:
        amount, left = divmod(left, size)
        if amount:
            parts.append(f"{amount}{unit}")
    return " ".join(parts[:2])


def relative(moment: datetime | None, now: datetime) -> str:
    """Return a moment as seen from now: ``in 3h 12m``, ``5m ago``, ``-`` for none."""
    if moment is None:
        return "-"
    return f"in {span(moment - now)}" if moment > now else f"{span(now - moment)} ago"


def local(moment: datetime | None, *, utc: bool, tz: str | None = None) -> str:
    """Return a moment in UTC, in a zone, or in this machine's zone, to the second."""
    if moment is None:
        return "-"
    try:
        shown = moment.astimezone(UTC if utc else None if tz is None else ZoneInfo(tz))
    except (OverflowError, ValueError):  # at the ends of the calendar there is no local time
        shown, utc = moment.astimezone(UTC), True
    return f"{shown.replace(tzinfo=None, microsecond=0)}{'Z' if utc else f'{shown:%z}'}"


def schedule_text(schedule: Schedule) -> str:
    """Return a schedule in a few words."""
    match schedule:
        case Cron():
            return schedule.expression + ("" if schedule.tz == "UTC" else f" {schedule.tz}")
        case Interval():
            start = "" if schedule.start is None else f" from {iso(schedule.start)}"
            return f"every {span(schedule.every)}{start}"
        case FixedDelay():
            return f"{span(schedule.every)} after each run"
        case Once():
            return f"once {iso(schedule.at)}"
        case AnyOf():
            return " or ".join(f"({schedule_text(part)})" for part in schedule.schedules)
        case Between():
            since = "" if schedule.start is None else f" from {iso(schedule.start)}"
            until = "" if schedule.end is None else f" until {iso(schedule.end)}"
            return f"({schedule_text(schedule.schedule)}){since}{until}"
        case Excluding():
            return f"({schedule_text(schedule.schedule)}) except {len(schedule.dates)} dates"
        case _:
            return repr(schedule)


def policy_text(policy: Policy) -> str:
    """Return what a policy says beyond the default one: ``retry=Retry(attempts=3), timeout=5m``."""
    return ", ".join(_changed(policy))


def _changed(value: Any) -> Iterator[str]:
    """Yield the fields of a policy, or of a part of one, that do not have their default."""
    for field in fields(type(value)):
        found, default = getattr(value, field.name), field.default
        if isinstance(default, Factory):  # type: ignore[arg-type]  # a class, though typed as a function
            default = default.factory(value) if default.takes_self else default.factory()
        if found != default:
            yield f"{field.name}={_value_text(found)}"


def _value_text(value: object) -> str:
    if isinstance(value, timedelta):
        return span(value)
    if isinstance(value, tuple):
        return "[" + ", ".join(map(_value_text, value)) + "]"
    if has(type(value)):
        return f"{type(value).__name__}({', '.join(_changed(value))})"
    return str(value)


def schedule_of(text: str, tz: str) -> Schedule:
    """Return the schedule of a text: a cron expression, ``every 90s``, or a moment.

    Raises:
        InvalidDefinition: It is none of them.
    """
    words = text.split()
    if words[:1] == ["every"]:
        try:
            return Interval(duration("".join(words[1:])))
        except ValueError as error:
            raise InvalidDefinition("expression", f"{text!r}: {error}") from None
    try:
        return Once(datetime.fromisoformat(text))
    except ValueError:
        return Cron(text, tz)


def moment_of(text: str, now: datetime, *, past: bool, field: str) -> datetime:
    """Return the moment of ISO 8601 text, or of a duration from now.

    Args:
        text: ``2026-12-01T10:00+01:00``, or a duration such as ``2h``; without an offset, a moment
            is in this machine's zone.
        now: The present moment.
        past: Whether a duration goes back.
        field: The option's name, for the error.

    Raises:
        InvalidDefinition: It is neither.
    """
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        try:
            length = duration(text)
        except ValueError:
            raise InvalidDefinition(
                field,
                f"must be a moment such as 2026-12-01T10:00, or a duration such as 2h, "
                f"not {text!r}",
            ) from None
        try:
            return now - length if past else now + length
        except OverflowError:
            raise InvalidDefinition(field, f"{text!r} is too far away") from None
    try:
        return moment.astimezone()
    except (OverflowError, ValueError):  # the ends of the calendar have no local time
        raise InvalidDefinition(field, f"{text!r} is too far away") from None


def iso(moment: datetime) -> str:
    """Return a moment for programs: ISO 8601 in UTC."""
    return moment.astimezone(UTC).isoformat().replace("+00:00", "Z")


def next_of(job: Job) -> datetime | None:
    """Return when a job runs next: for a request, or else by its schedule."""
    return min((asked.due_at for asked in job.standing.requests), default=job.next_run)


def progress_text(progress: Progress | None) -> str:
    """Return how far a handler has come: ``30/100 (30%) reading``; empty where it told nothing."""
    if progress is None:
        return ""
    shown = f"{progress.done:g}"
    if progress.of is not None:
        shown += f"/{progress.of:g}"
        if progress.of > 0:
            shown += f" ({progress.done / progress.of:.0%})"
    return f"{shown} {progress.text}" if progress.text else shown


def entries_text(entries: Mapping[str, str] | None) -> str:
    """Return texts by name in a line: ``kind=beat size=3``."""
    return " ".join(f"{name}={value}" for name, value in (entries or {}).items())


def counted(number: int, word: str) -> str:
    """Return a number of things: ``1 job``, ``3 jobs``."""
    return f"{number} {word}" if number == 1 else f"{number} {word}s"
