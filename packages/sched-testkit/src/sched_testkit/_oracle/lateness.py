"""Judges what a misfire policy makes of late occurrences, where nothing else affects them.

Edits, pauses and clocks that were set back change what is late. Of occurrences that one of these
affects, :class:`~sched_testkit._oracle.accounting.Accounting` judges which moments they cover.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from hashlib import blake2b

from sched_core import CatchUp, Coalesce, Drop, Execution, JobEvent, Policy
from sched_testkit._oracle.incarnations import Incarnation, ScheduleEra
from sched_testkit._oracle.violation import Violation, at


def jitter_fraction(text: str) -> float:
    """Return the number in [0, 1) that every worker derives from the text."""
    return int.from_bytes(blake2b(text.encode(), digest_size=6).digest(), "big") / 2**48


def is_plain(incarnation: Incarnation) -> bool:
    """Whether only one schedule and one policy decide what is late in an incarnation."""
    return (
        incarnation.spec is not None
        and not incarnation.edits
        and len(incarnation.eras) == 1
        and not incarnation.pauses
    )


def expect_allowed(
    incarnation: Incarnation,
    event: JobEvent,
    claimed_at: datetime,
    began_at: datetime,
    *,
    again: bool,
) -> None:
    """Expect that the policy lets an occurrence run, and cover as many others as it does.

    Args:
        incarnation: A plain incarnation.
        event: The event that the handler got.
        claimed_at: The moment of the claim under which it runs.
        began_at: The moment of the first claim that was not handed back.
        again: Whether a call of it has failed or snoozed: what follows is not judged again.
    """
    assert incarnation.spec is not None
    policy, era = incarnation.spec.policy, incarnation.eras[-1]
    what = f"the handler was called for {event.id!r} at {at(event.scheduled_at)}"
    passed = era.passed(event.scheduled_at, began_at)
    if not isinstance(policy.misfire, Coalesce):
        passed = []
    expected = len(passed), passed[-1] if passed else None
    if (event.coalesced, event.coalesced_until) != expected:
        raise Violation(
            f"{what}, which covers {event.coalesced} more until {at(event.coalesced_until)}, "
            f"not {expected[0]} until {at(expected[1])}"
        )
    late = _judged_at(policy, claimed_at, event.key)
    is_first = began_at == claimed_at
    if not again and _is_passed_over(policy, era, event.scheduled_at, late, is_first=is_first):
        raise Violation(f"{what}, though {policy.misfire} forbids it")


def expect_excused(incarnation: Incarnation, found: Execution, began_at: datetime | None) -> None:
    """Expect that the policy passes over what an execution says was missed, all of it."""
    assert incarnation.spec is not None
    policy, era = incarnation.spec.policy, incarnation.eras[-1]
    late = _judged_at(policy, found.claimed_at, f"{found.uid}:{found.number}")
    newest, is_first = found.coalesced_until or found.scheduled_at, began_at is None
    if not _is_passed_over(policy, era, newest, late, is_first=is_first):
        raise Violation(f"{found.id} is missed, and {policy.misfire} does not excuse it")


def _judged_at(policy: Policy, claimed_at: datetime, key: str) -> datetime:
    """Return the moment up to which lateness is counted: jitter is not lateness."""
    return claimed_at - policy.jitter * jitter_fraction(key)


def _is_passed_over(
    policy: Policy, era: ScheduleEra, moment: datetime, now: datetime, *, is_first: bool
) -> bool:
    misfire, late = policy.misfire, now - moment
    if late <= timedelta(0):
        return False
    if isinstance(misfire, Drop):
        return late > misfire.grace
    if isinstance(misfire, CatchUp):
        if misfire.window is not None and late > misfire.window:
            return True
        # What an overlap has skipped is no part of what is caught up.
        counts = is_first and policy.overlap != "skip"
        return counts and len(era.passed(moment, now)) >= misfire.limit
    return False
