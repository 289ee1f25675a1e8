"""Fingerprints of the data that moments are derived from.

Besides their schedule that is the rules of time zones, and the data of a kind. Both change while
jobs are stored: a country changes its rules, a calendar is corrected. A *fingerprint* names the
data that a moment was derived from, so that a process can see whether its own data are newer.

A fingerprint is ``version:digest``. The version is that of the time zone database, if the machine
tells it. The digest is of the rules of the zones that the schedule uses, so that a new release
which leaves these alone changes nothing. A third party's kind may have an attribute
``fingerprint``: a text that changes whenever its moments may.

A job stores a *trail*: the fingerprint that its moment was derived from, and after it the earlier
ones. While a fleet is being upgraded, an older process finds its own fingerprint there and does
not change the moment back.
"""

from __future__ import annotations

import zoneinfo
from collections.abc import Iterator
from functools import cache, lru_cache
from hashlib import blake2b
from importlib import resources
from pathlib import Path

from sched_core.schedule.base import Schedule
from sched_core.schedule.combined import parts
from sched_core.schedule.cron import Cron
from sched_core.schedule.excluding import Excluding
from sched_core.schedule.interval import FixedDelay, Interval, Once

LONGEST_TRAIL = 6
"""The most fingerprints that a job remembers."""
_FIXED = frozenset({Interval, FixedDelay, Once})
"""The kinds whose moments are derived from nothing else."""


def fingerprint(schedule: Schedule) -> str:
    """Return the name of the data that a schedule's moments are derived from; empty for no data."""
    if type(schedule) in _FIXED:
        return ""
    if type(schedule) is Cron:
        return "" if schedule.tz == "UTC" else _digest((schedule.tz,), ())
    zones, owns = tuple(sorted(set(_zones(schedule)))), tuple(_own(schedule))
    return _digest(zones, owns) if zones or owns else ""


@lru_cache(maxsize=1024)
def _digest(zones: tuple[str, ...], owns: tuple[str, ...]) -> str:
    digest, versions = blake2b(digest_size=6), []
    for zone in zones:
        version, rules = _rules_of(zone)
        versions.append(version)
        digest.update(rules)
    for own in owns:
        digest.update(own.encode())
    return f"{min(versions, default='')}:{digest.hexdigest()}"


def _zones(schedule: Schedule) -> Iterator[str]:
    zone = schedule.tz if isinstance(schedule, Cron | Excluding) else None
    if zone is not None and zone != "UTC":
        yield zone
    for part in parts(schedule):
        yield from _zones(part)


def _own(schedule: Schedule) -> Iterator[str]:
    own = getattr(schedule, "fingerprint", None)
    if isinstance(own, str):
        yield own
    for part in parts(schedule):
        yield from _own(part)


@cache
def _rules_of(zone: str) -> tuple[str, bytes]:
    """Return the version of the database that a zone comes from, if it tells it, and its rules."""
    for folder in map(Path, zoneinfo.TZPATH):
        try:
            return _version(folder), (folder / zone).read_bytes()
        except OSError:
            continue  # as zoneinfo does: the next one has it, or the package
    package = resources.files("tzdata").joinpath("zoneinfo")
    try:
        return _version(package), package.joinpath(*zone.split("/")).read_bytes()
    except OSError:
        return "", zone.encode()


@cache
def release() -> str:
    """Return the release of this machine's time zone rules, such as 2025b; empty where unknown."""
    folders = (Path(folder) for folder in zoneinfo.TZPATH)
    return next((found for folder in folders if (found := _version(folder))), "")


def _version(folder: object) -> str:
    """Return the release of a time zone database, such as 2025b; empty where it does not say."""
    try:
        first = folder.joinpath("tzdata.zi").read_text("utf-8").partition("\n")[0]  # type: ignore[attr-defined]  # a path, or its like in a package
    except OSError:
        return ""
    return first.rpartition(" ")[2] if first.startswith("# version ") else ""


def knows_better(mine: str, trail: str) -> bool:
    """Whether a process derives moments from newer data than a stored moment was.

    Args:
        mine: The process's fingerprint of the schedule.
        trail: The trail that is stored with the moment.
    """
    stored, *before = trail.split("|")
    if mine.partition(":")[2] == stored.partition(":")[2]:
        return False
    newer, older = mine.partition(":")[0], stored.partition(":")[0]
    if newer and older and newer != older:
        return newer > older
    return mine not in before


def trail_of(mine: str, trail: str) -> str:
    """Return the trail of a moment that was derived now.

    Args:
        mine: The process's fingerprint of the schedule.
        trail: The trail of the moment before.
    """
    if mine == trail or not trail:
        return mine
    before = [each for each in trail.split("|") if each != mine]
    return "|".join([mine, *before][:LONGEST_TRAIL])
