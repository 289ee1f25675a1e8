"""What a notifier remembers from run to run, and how it is stored: bounded, in one record."""

from __future__ import annotations

import json
from base64 import urlsafe_b64encode
from collections.abc import Mapping
from datetime import datetime
from hashlib import blake2b
from typing import TypeVar

from attrs import evolve, field, frozen

from sched_core.errors import BackendError

T = TypeVar("T")

FORMAT = "1"
MOST_FAILING = 2000
"""Failing jobs that are remembered; of more, the recovery of the oldest is not told."""
MOST_OVERDUE = 1000
"""Overdue occurrences that are remembered; more are told when some of these have begun."""
MOST_INTERRUPTED = 300
"""Occurrences whose interruptions are counted; of more, the count of the oldest is lost."""
MOST_HANDLED = 1000
"""Notices of an unfinished run that are known to be delivered."""


@frozen
class More:
    """Notices of one kind that are to be told in one sentence.

    Attributes:
        count: How many there are.
        first_id: The id of the first of them.
        since: When it happened.
        until: When the last of them happened.
    """

    count: int
    first_id: str
    since: datetime
    until: datetime


@frozen
class State:
    """What a notifier remembers. Jobs, occurrences and notices are named by their digests.

    Attributes:
        cursor: How far the history is handled.
        failing: The jobs whose newest outcome is a failure, and whether people were told of it.
        overdue: The overdue occurrences that people were told of.
        interrupted: How often occurrences that have not ended were cut off.
        told: How many notices of each kind this run has delivered one by one.
        more: What this run has still to sum up, by kind.
        handled: Notices of this run that need no delivery any more: True where they were delivered,
            False where the receiver refused them for too long.
        refused_since: Since when the receiver has refused every notice.
    """

    cursor: str
    failing: Mapping[str, bool] = field(factory=dict)
    overdue: tuple[str, ...] = ()
    interrupted: Mapping[str, int] = field(factory=dict)
    told: Mapping[str, int] = field(factory=dict)
    more: Mapping[str, More] = field(factory=dict)
    handled: Mapping[str, bool] = field(factory=dict)
    refused_since: datetime | None = None


def digest(text: str) -> str:
    """Return 11 characters in the place of a text: two of 1,000 texts hardly ever have the same."""
    return urlsafe_b64encode(blake2b(text.encode(), digest_size=8).digest())[:11].decode()


def bounded(state: State) -> State:
    """Return the state without the oldest of what is too much to be stored."""
    return evolve(
        state,
        failing=_newest(state.failing, MOST_FAILING),
        overdue=state.overdue[-MOST_OVERDUE:],
        interrupted=_newest(state.interrupted, MOST_INTERRUPTED),
        handled=_newest(state.handled, MOST_HANDLED),
    )


def _newest(found: Mapping[str, T], most: int) -> Mapping[str, T]:
    return found if len(found) <= most else dict(list(found.items())[-most:])


def encode(state: State) -> dict[str, str]:
    """Return the state as texts by name: the metadata of its record, below 64 KiB."""
    state = bounded(state)
    more = {
        kind: [one.count, one.first_id, one.since.isoformat(), one.until.isoformat()]
        for kind, one in state.more.items()
    }
    return {
        "format": FORMAT,
        "cursor": state.cursor,
        "failing": " ".join(one if told else f"{one}?" for one, told in state.failing.items()),
        "overdue": " ".join(state.overdue),
        "interrupted": _numbers(state.interrupted),
        "told": _numbers(state.told),
        "more": json.dumps(more) if more else "",
        "handled": " ".join(one if done else f"{one}?" for one, done in state.handled.items()),
        "refused_since": state.refused_since.isoformat() if state.refused_since else "",
    }


def _numbers(found: Mapping[str, int]) -> str:
    return " ".join(f"{name}:{number}" for name, number in found.items())


def decode(stored: Mapping[str, str]) -> State:
    """Return the state that is stored.

    Raises:
        BackendError: A newer version has written it, or it makes no sense.
    """
    if stored.get("format") != FORMAT:
        raise BackendError(
            f"the notifier's record has format {stored.get('format')!r}, and this version reads "
            f"{FORMAT!r}: run the newer version"
        )
    try:
        more = json.loads(stored["more"] or "{}")
        return State(
            stored["cursor"],
            _flags(stored["failing"]),
            tuple(stored["overdue"].split()),
            _counts(stored["interrupted"]),
            _counts(stored["told"]),
            {
                kind: More(count, first, datetime.fromisoformat(since), datetime.fromisoformat(end))
                for kind, (count, first, since, end) in more.items()
            },
            _flags(stored["handled"]),
            datetime.fromisoformat(at) if (at := stored["refused_since"]) else None,
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise BackendError(f"the notifier's record cannot be read: {error!r}") from None


def _flags(text: str) -> dict[str, bool]:
    return {one.removesuffix("?"): not one.endswith("?") for one in text.split()}


def _counts(text: str) -> dict[str, int]:
    return {name: int(number) for name, _, number in (one.rpartition(":") for one in text.split())}
