"""How handlers end in a simulated history: chance decides."""

from __future__ import annotations

from random import Random

from sched_core import Discard, JobEvent, RetryAfter, Snooze
from sched_testkit._oracle.calls import CallState

WAITS = (0.0, 0.5, 3.0, 10.0)
"""Seconds after which a handler asks to be called again."""


class Planned(Exception):
    """A handler was told to fail."""


class PlannedAgain(Planned):
    """A handler was told to fail at an even attempt, which policies can tell from an odd one."""


def drawn(chance: Random, event: JobEvent, *, asks: bool) -> tuple[CallState, Exception | None]:
    """Return how a handler ends, and what it raises.

    Args:
        chance: The source of every decision.
        event: The event of the call.
        asks: Whether a handler may ask for something.
    """
    what = chance.random()
    if what < 0.25:
        if asks and chance.random() < 0.4:
            return CallState.FAILED, RetryAfter(chance.choice(WAITS), "as planned")
        if asks and chance.random() < 0.3:
            return CallState.DISCARDED, Discard("as planned")
        kind = Planned if event.attempt % 2 else PlannedAgain
        return CallState.FAILED, kind("as planned")
    if asks and what < 0.4:
        return CallState.SNOOZED, Snooze(chance.choice(WAITS))
    return CallState.SUCCEEDED, None
