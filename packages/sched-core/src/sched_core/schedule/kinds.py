"""The kinds of schedules that this process can store, each under a tag.

Every kind brings its own format: two functions next to its class. ``sched_core.codec`` registers
the built-in ones; other packages add theirs by an entry point, or call :func:`register`.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cache, lru_cache
from typing import Any, TypeVar

from attrs import frozen

from sched_core._support.logger import Logger
from sched_core.errors import InvalidDefinition
from sched_core.schedule.base import Schedule
from sched_core.schedule.encoding import Malformed, Reading

T = TypeVar("T")

logger = Logger("sched_core")

ENTRY_POINTS = "sched.schedules"
"""The group of entry points by which installed packages add kinds: the name is the tag, the object
a :class:`ScheduleKind`."""


@frozen
class ScheduleKind:
    """How one kind of schedule is stored; an entry point of ``sched.schedules`` names one.

    Args:
        cls: The class; subclasses are other kinds.
        encode: A function that returns what ``json`` can write, equal for equal schedules.
        decode: The reverse; it may raise any error for a value that it cannot read.
    """

    cls: type
    encode: Callable[[Any], Any]
    decode: Callable[[Any], Any]


KINDS: dict[str, ScheduleKind] = {}
TAGS: dict[type, str] = {}


def register(
    tag: str,
    cls: type[T],
    encode: Callable[[T], Any],
    decode: Callable[[Any], T],
) -> None:
    """Make a kind of schedule storable.

    Args:
        tag: The kind's name in stored records; it never changes.
        cls: The class; subclasses are other kinds.
        encode: A function that returns what ``json`` can write, equal for equal schedules.
        decode: The reverse; it may raise any error for a value that it cannot read.

    Raises:
        InvalidDefinition: The tag or the class is registered with another partner, or the class
            does not compare by value.
    """
    if TAGS.get(cls, tag) != tag or (tag in KINDS and TAGS.get(cls) != tag):
        raise InvalidDefinition("tag", f"{tag!r} or {cls.__name__} is registered already")
    if cls.__eq__ is object.__eq__:
        raise InvalidDefinition(
            "cls",
            f"{cls.__name__} must compare by value, or every ensure_job would be an edit: "
            "define __eq__ (attrs.frozen and dataclasses do)",
        )
    TAGS[cls] = tag
    KINDS[tag] = ScheduleKind(cls, encode, decode)
    known_tags.cache_clear()
    decoded.cache_clear()


@cache
def load_installed() -> None:
    """Register the kinds that installed packages offer; once for each process.

    A kind that cannot be loaded is logged and stays unknown: its jobs are left alone here.
    """
    # Here and not at the top: a process looks only if it meets a kind that is not built in.
    from importlib.metadata import entry_points

    for point in entry_points(group=ENTRY_POINTS):
        try:
            kind = point.load()
            if not isinstance(kind, ScheduleKind):
                raise TypeError(f"{point.value} is no ScheduleKind")  # noqa: TRY301 -- logged below
            register(point.name, kind.cls, kind.encode, kind.decode)
        except Exception:
            logger.exception("the kind of schedule %r (%s) cannot be used", point.name, point.value)


@cache
def known_tags() -> tuple[str, ...]:
    """Return the tags of the kinds of schedules that this process can read."""
    load_installed()
    return tuple(sorted(KINDS))


def tag_of(schedule: Schedule) -> str:
    """Return the tag of a schedule's kind.

    Raises:
        InvalidDefinition: The kind is not registered.
    """
    tag = TAGS.get(type(schedule))
    if tag is None:
        load_installed()
        tag = TAGS.get(type(schedule))
    if tag is None:
        raise InvalidDefinition(
            "schedule",
            f"{type(schedule).__name__} cannot be stored: sched_core.codec.register it, or install "
            f"a package with an entry point of the group {ENTRY_POINTS!r}",
        )
    return tag


def unknown(tag: str) -> str | None:
    """Return why schedules of a kind cannot be read here, ``None`` if they can."""
    if tag in KINDS or tag in known_tags():
        return None
    return f"the kind of schedule {tag!r} is not known here"


def kind_of(tag: str) -> ScheduleKind:
    """Return a kind by its tag.

    Raises:
        KeyError: It is not known here.
    """
    if tag not in KINDS:
        load_installed()
    return KINDS[tag]


@lru_cache(maxsize=4096)
def decoded(tag: str, text: str) -> Schedule:
    """Return the schedule of a stored text.

    Raises:
        Malformed: The text is no schedule of this kind.
    """
    with Reading("schedule"):
        schedule: Schedule = kind_of(tag).decode(json.loads(text))
        return schedule


def encode_part(schedule: Schedule) -> list[Any]:
    """Return a schedule inside another one as its tag and what its kind makes of it."""
    tag = tag_of(schedule)
    return [tag, KINDS[tag].encode(schedule)]


def decode_part(value: Any) -> Schedule:
    """Return the schedule inside another one.

    Raises:
        Malformed: Its kind is not known here. The kind itself may raise other errors.
    """
    tag, body = value
    reason = unknown(tag)
    if reason is not None:
        raise Malformed(reason)
    schedule: Schedule = kind_of(tag).decode(body)
    return schedule
