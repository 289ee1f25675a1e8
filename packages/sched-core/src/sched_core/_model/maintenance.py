"""The maintenance switch: what is to wait, since when, why, and how that is stored."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from attrs import evolve, frozen

from sched_core._model.job import RESERVED, JobSpec, check_queue, check_text
from sched_core.errors import InvalidDefinition
from sched_core.schedule import utc

RECORD = f"{RESERVED}maintenance"
"""The id of the record that holds all switches of a store."""
_FORMAT = "1"


@frozen
class Maintenance:
    """A maintenance switch that is on: what it covers does not begin.

    Attributes:
        queue: The queue that it covers.
        group: The group of jobs that it covers. Neither this nor ``queue``: the whole store.
        since: When it was switched on; ``None`` where that cannot be read.
        until: When it ends on its own; ``None`` until further notice.
        reason: Why, in words for people.
        actor: Who switched it on.
    """

    queue: str | None = None
    group: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    reason: str | None = None
    actor: str | None = None

    @property
    def of_store(self) -> bool:
        """Whether it covers the whole store."""
        return self.queue is None and self.group is None

    def covers(self, spec: JobSpec) -> bool:
        """Whether a job is to wait."""
        return (self.queue is None or self.queue == spec.queue) and (
            self.group is None or self.group == spec.group
        )

    def is_on(self, now: datetime) -> bool:
        """Whether its end has not come."""
        return self.until is None or now < self.until

    def __str__(self) -> str:
        parts = ["the whole store" if self.of_store else ""]
        parts += [f"queue {self.queue!r}"] if self.queue is not None else []
        parts += [f"group {self.group!r}"] if self.group is not None else []
        text = " ".join(filter(None, parts))
        text += f" since {self.since.isoformat()}" if self.since is not None else ""
        text += f" until {self.until.isoformat()}" if self.until is not None else ""
        text += f" by {self.actor}" if self.actor is not None else ""
        return text + (f": {self.reason}" if self.reason is not None else "")


def scope(queue: str | None, group: str | None) -> Maintenance:
    """Return a switch of a queue, a group or the whole store.

    Raises:
        InvalidDefinition: It is neither a queue nor a group, or both are given.
    """
    if queue is not None:
        check_queue(queue)
    if group is not None:
        check_text("group", group)
        if queue is not None:
            raise InvalidDefinition(
                "group", "must not be given with a queue: use a switch for each of them"
            )
    return Maintenance(queue, group)


def switched_on(
    switches: Sequence[Maintenance], new: Maintenance, now: datetime
) -> tuple[Maintenance, ...]:
    """Return the switches with a further one; one for the same gets its end, reason and actor."""
    there = [one for one in switches if one.is_on(now)]
    others = [one for one in there if not _same(one, new)]
    since = next((one.since for one in there if _same(one, new)), now)
    return (*others, evolve(new, since=since))


def switched_off(
    switches: Sequence[Maintenance], old: Maintenance, now: datetime
) -> tuple[Maintenance, ...]:
    """Return the switches that stay on once the one for a scope is off."""
    return tuple(one for one in switches if one.is_on(now) and not _same(one, old))


def _same(one: Maintenance, other: Maintenance) -> bool:
    return (one.queue, one.group) == (other.queue, other.group)


# -- as it is stored


def as_metadata(switches: Sequence[Maintenance]) -> Mapping[str, str]:
    """Return switches as the metadata of their record."""
    return {"format": _FORMAT, "switches": json.dumps([_as_json(one) for one in switches])}


def _as_json(one: Maintenance) -> dict[str, str]:
    values = {
        "queue": one.queue,
        "group": one.group,
        "since": None if one.since is None else one.since.isoformat(),
        "until": None if one.until is None else one.until.isoformat(),
        "reason": one.reason,
        "actor": one.actor,
    }
    return {name: value for name, value in values.items() if value is not None}


def from_metadata(metadata: Mapping[str, str]) -> tuple[Maintenance, ...]:
    """Return the switches that a record holds.

    Raises:
        ValueError: It is none that this version writes; the text says why.
    """
    if metadata.get("format") != _FORMAT:
        raise ValueError(f"its format is {metadata.get('format')!r}, not {_FORMAT!r}")
    try:
        read = json.loads(metadata.get("switches", ""))
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    if not isinstance(read, list):
        raise ValueError("it has no list of switches")  # noqa: TRY004 -- one error for all that is wrong
    return tuple(_from_json(one) for one in read)


def _from_json(one: Any) -> Maintenance:
    names = {"queue", "group", "since", "until", "reason", "actor"}
    if not isinstance(one, dict) or not one.keys() <= names:
        raise ValueError("a switch has fields that this version does not know")
    if not all(isinstance(value, str) for value in one.values()):
        raise ValueError("a field of a switch is no text")
    moments = {
        name: utc(datetime.fromisoformat(one[name]), name)
        for name in ("since", "until")
        if name in one
    }
    return evolve(
        scope(one.get("queue"), one.get("group")),
        since=moments.get("since"),
        until=moments.get("until"),
        reason=one.get("reason"),
        actor=one.get("actor"),
    )
