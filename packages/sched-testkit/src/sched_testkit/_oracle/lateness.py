"""What a misfire policy makes of late occurrences, where nothing else has a say in it.

Edits, pauses and clocks that were set back change what is late. What has met one of them is judged
by what it stands for (:class:`~sched_testkit._oracle.accounting.Accounting`), and not here.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from hashlib import blake2b

from sched_core import Between, CatchUp, Coalesce, Drop, Execution, FixedDelay, JobEvent, Policy
from sched_testkit._oracle import occurrences
from sched_testkit._oracle.annals import Epoch, Life, Wrong, at


def share(text: str) -> float:
    """Return what everybody makes of the text: a number in [0, 1)."""
    return int.from_bytes(blake2b(text.encode(), digest_size=6).digest(), "big") / 2**48


def is_plain(life: Life) -> bool:
    """Whether what is late in a life depends on its one schedule and its one policy alone."""
    return life.spec is not None and not life.edits and len(life.epochs) == 1 and not life.pauses


def expect_allowed(
    life: Life, event: JobEvent, claimed_at: datetime, began_at: datetime, *, failed: bool
) -> None:
    """Expect that the policy lets an occurrence of the schedule run, and for so many others.

    Args:
        life: A plain one.
        event: What the handler was told.
        claimed_at: When the claim was made under which it runs.
        began_at: When the first claim was made that was not handed back.
        failed: Whether an attempt has failed: it is a retry, and not judged again.
    """
    assert life.spec is not None
    policy, epoch = life.spec.policy, life.epochs[-1]
    what = f"the handler was called for {event.id!r} at {at(event.scheduled_at)}"
    passed = _passed(epoch, event.scheduled_at, began_at)
    if not isinstance(policy.misfire, Coalesce):
        passed = []
    expected = len(passed), passed[-1] if passed else None
    if (event.coalesced, event.coalesced_until) != expected:
        raise Wrong(
            f"{what}, which stands for {event.coalesced} more until {at(event.coalesced_until)}, "
            f"not for {expected[0]} until {at(expected[1])}"
        )
    late = _judged_at(policy, claimed_at, event.key)
    is_first = began_at == claimed_at
    if not failed and _is_passed_over(policy, epoch, event.scheduled_at, late, is_first=is_first):
        raise Wrong(f"{what}, though {policy.misfire} forbids it")


def expect_excused(life: Life, found: Execution, began_at: datetime | None) -> None:
    """Expect that the policy passes over what an execution says was missed, all of it."""
    assert life.spec is not None
    policy, epoch = life.spec.policy, life.epochs[-1]
    late = _judged_at(policy, found.claimed_at, f"{found.uid}:{found.number}")
    newest, is_first = found.coalesced_until or found.scheduled_at, began_at is None
    if not _is_passed_over(policy, epoch, newest, late, is_first=is_first):
        raise Wrong(f"{found.id} is missed, and {policy.misfire} does not excuse it")


def _judged_at(policy: Policy, claimed_at: datetime, key: str) -> datetime:
    """Return from when lateness is counted: jitter is none."""
    return claimed_at - policy.jitter * share(key)


def _is_passed_over(
    policy: Policy, epoch: Epoch, moment: datetime, now: datetime, *, is_first: bool
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
        return counts and len(_passed(epoch, moment, now)) >= misfire.limit
    return False


def _passed(epoch: Epoch, since: datetime, until: datetime) -> list[datetime]:
    """Return the moments of a schedule after one, up to another."""
    schedule = epoch.schedule
    if isinstance(schedule, FixedDelay):
        return []
    if isinstance(schedule, Between):
        return [moment for moment in epoch.moments(until) if moment > since]
    found: list[datetime] = []
    moment = occurrences.after(schedule, since, epoch.anchor)
    while moment is not None and moment <= until:
        found.append(moment)
        moment = occurrences.after(schedule, moment, epoch.anchor)
    return found
