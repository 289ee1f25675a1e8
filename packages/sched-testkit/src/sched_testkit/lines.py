"""What a single ledger line must be like: the half of the oracle that reads the ledger."""

from __future__ import annotations

from datetime import datetime, timedelta

from sched_core import (
    Coalesce,
    Drop,
    Execution,
    FixedDelay,
    Policy,
    RunAll,
    Status,
)
from sched_testkit import occurrences
from sched_testkit.annals import Call, Epoch, Hold, Life, Wrong, share

ALWAYS_FINAL = {Status.SUCCEEDED, Status.MISSED, Status.SKIPPED, Status.SUPERSEDED}
NEVER_FINAL = {Status.INTERRUPTED, Status.ABANDONED}
ENDED = {Status.FAILED, Status.INTERRUPTED}
FATES = {Status.MISSED, Status.SKIPPED, Status.SUPERSEDED}


def title(line: Execution) -> str:
    """Return what names a line in a message."""
    final = "final " if line.final else ""
    kind = "manual " if line.manual else ""
    what = f"the {final}{line.status.value} line {line.id}"
    return f"{what} of the {kind}occurrence at {line.scheduled_at:%d. %H:%M:%S}"


def check_form(line: Execution, life: Life) -> None:
    """Refuse what contradicts itself or the lines before it."""
    about = title(line)
    if line.id != f"{line.uid}:{line.number}:{line.attempt}":
        raise Wrong(f"{about}: its id must be {line.uid}:{line.number}:{line.attempt}")
    if line.job_id != life.job.id:
        raise Wrong(f"{about} carries the id {line.job_id!r}, the job is {life.job.id!r}")
    if line.final and line.number in life.finals:
        raise Wrong(
            f"{about} is the second final line; first was {title(life.finals[line.number])}"
        )
    if line.final == (line.status in NEVER_FINAL) and line.status is not Status.FAILED:
        raise Wrong(f"{about}: {line.status.value} is {'never' if line.final else 'always'} final")
    if (line.status in FATES) != (line.attempt == 0) and line.status is not Status.FAILED:
        raise Wrong(f"{about} has the attempt {line.attempt}")
    if line.attempt > 0:
        earlier = life.attempts.get(line.number, [])
        if line.attempt != len(earlier) + 1:
            raise Wrong(f"{about}: attempts must go on with {len(earlier) + 1}")
        if earlier and earlier[-1].token >= line.token:
            raise Wrong(f"{about}: its token {line.token} is not above {earlier[-1].token}")
        if line.number in life.finals:
            raise Wrong(f"{about} was written after {title(life.finals[line.number])}")
    if line.manual:
        return  # owed from the call on, and the clock may have been set back since
    # Begun is what a claim was lost of, or edited away from under one, that was to end a pause.
    begun = line.status is Status.SUPERSEDED and (line.number in life.attempts or line.token > 0)
    early = line.finished_at < line.scheduled_at
    if early and line.status not in NEVER_FINAL and not begun:
        raise Wrong(f"{about} ended at {line.finished_at:%H:%M:%S}, before it was due")
    if line.started_at is not None and line.started_at < line.scheduled_at:
        raise Wrong(f"{about} began early, at {line.started_at:%H:%M:%S}")


def check_attempt(line: Execution, call: Call | None, hold: Hold | None) -> None:
    """Compare the line of an attempt with the claim it was made under and the handler's call."""
    about = title(line)
    if hold is None or hold.claim.job.uid != line.uid:
        raise Wrong(f"{about} carries the token {line.token}, which no claim of the job had")
    if line.status is Status.ABANDONED:
        if not hold.crashed and hold.expires_at > line.finished_at:
            raise Wrong(f"{about} was taken over before its lease ended")
        if call is not None and call.event.token == line.token:
            call.line = line
        return
    if call is None:
        raise Wrong(f"{about}, but the handler was never called for it")
    seen = (call.event.token, call.worker, call.event.started_at, call.event.scheduled_at)
    if (line.token, line.worker, line.started_at, line.scheduled_at) != seen:
        raise Wrong(f"{about} and the handler's call differ: {seen}")
    policy = hold.claim.job.spec.policy
    over = policy.timeout is not None and line.finished_at - call.event.started_at >= policy.timeout
    if call.how == "lost" and over and line.status is Status.FAILED:
        call.how = "failed"  # its time was up as well
    if call.how != line.status.value:
        raise Wrong(f"{about}, but the handler {call.how}")
    call.line = line


def check_failure(line: Execution, life: Life, call: Call, policy: Policy, since: int) -> None:
    """Refuse a failure that ends an occurrence too early or not at all."""
    about, allowed = title(line), policy.retry.attempts
    # A trigger during a manual run asks for another one, instead of this one's next attempt.
    ends = ("schedule", "remove", "trigger") if line.manual else ("schedule", "remove")
    edited = life.commanded(since, *ends)
    if line.final and call.failures < allowed and not edited:
        raise Wrong(f"{about}: failure {call.failures} of {allowed} must not be the last")
    if not line.final and call.failures >= allowed:
        raise Wrong(f"{about}: failure {call.failures} of {allowed} must be the last")


def check_fold(line: Execution, life: Life, epoch: Epoch, policy: Policy | None) -> None:
    """Refuse a final line that stands for more or fewer occurrences than it must."""
    if (line.folded > 0) != (line.folded_until is not None):
        raise Wrong(f"{title(line)}: folded is {line.folded}, up to {line.folded_until}")
    expected = {0}
    if line.final and not line.manual and not isinstance(epoch.schedule, FixedDelay):
        expected = _folds(line, life, epoch, policy)
    if line.folded not in expected:
        raise Wrong(f"{title(line)} folds {line.folded}, not {' or '.join(map(str, expected))}")


def _folds(line: Execution, life: Life, epoch: Epoch, policy: Policy | None) -> set[int]:
    since, began = line.scheduled_at, line.claimed_at
    # What was due before a pause that it outlived folds into it, whatever the policy.
    kept, seen = (_kept(life, epoch, since, now) for now in (began, line.finished_at))
    coalesces = policy is not None and isinstance(policy.misfire, Coalesce)
    passed = life.behind(epoch, since, began) if coalesces else kept
    if line.attempt > 0:
        return {passed, seen} if seen > passed else {passed}  # a pause may end while it runs
    if line.status is Status.FAILED:
        return {kept}
    if _begun_in_a_pause(line, life, epoch):
        return {0}
    if line.status is Status.SUPERSEDED and line.token == 0:
        return {life.behind(epoch, since, line.finished_at)}  # all that was due when it was edited
    if line.status is Status.SUPERSEDED:
        attempts = life.attempts.get(line.number, ())
        ran = any(one.token == line.token and one.status in ENDED for one in attempts)
        return {passed} if ran else {0}
    return {0} if line.status is Status.SKIPPED else {line.folded}


def _kept(life: Life, epoch: Epoch, since: datetime, now: datetime) -> int:
    began = [pause.began for pause in life.ended_pauses(since, now)]
    return life.behind(epoch, since, max(began)) if began else 0


def check_within_policy(line: Execution, life: Life, epoch: Epoch, policy: Policy) -> None:
    """Refuse a first attempt that the misfire policy forbids."""
    if _too_late(life, epoch, line.scheduled_at, _judged_at(line, policy), policy):
        raise Wrong(f"{title(line)} ran, though {policy.misfire} forbids it")


def check_missed(line: Execution, life: Life, epoch: Epoch, policy: Policy | None) -> None:
    """Refuse a missed line that the misfire policy does not explain."""
    if policy is None:
        raise Wrong(f"{title(line)}: nothing excuses it")
    judged = line.folded_until or line.scheduled_at
    pauses = life.ended_pauses(line.scheduled_at, line.claimed_at)
    if pauses and judged <= max(pause.began for pause in pauses):
        judged = line.scheduled_at  # what was due before a pause is judged as one
    if not _too_late(life, epoch, judged, _judged_at(line, policy), policy):
        raise Wrong(f"{title(line)}: {policy.misfire} does not excuse it")


def _judged_at(line: Execution, policy: Policy) -> datetime:
    """Return when lateness is measured: jitter is none."""
    return line.claimed_at - policy.jitter * share(f"{line.uid}:{line.number}")


def _too_late(life: Life, epoch: Epoch, moment: datetime, now: datetime, policy: Policy) -> bool:
    misfire, late = policy.misfire, now - moment
    if isinstance(misfire, Drop):
        return late > misfire.grace
    if isinstance(misfire, RunAll):
        if late <= timedelta(0):
            return False
        if late > misfire.window:
            return True
        if isinstance(epoch.schedule, FixedDelay):
            return False
        ends = [pause.end for pause in life.ended_pauses(moment, now) if pause.end is not None]
        newer = life.behind(epoch, max([moment, *ends]), now)
        return newer >= misfire.limit
    return False


def _begun_in_a_pause(line: Execution, life: Life, epoch: Epoch) -> bool:
    """Whether only claims that were to end a pause have begun it: it does not count."""
    claimed = line.number in life.attempts or line.token > 0
    if line.status is not Status.SUPERSEDED or not claimed:
        return False
    inside = any(pause.covers(line.scheduled_at) for pause in life.pauses)
    return inside and line.scheduled_at != life.first_due(epoch)[0]


def account(line: Execution, life: Life) -> None:
    """Move the epoch past a scheduled occurrence's final line; refuse gaps and inventions."""
    epoch, about = life.epoch_of(line.number), title(line)
    if _begun_in_a_pause(line, life, epoch):
        return
    expected = epoch.next
    if expected is None:
        raise Wrong(f"{about}: its schedule has no occurrence left")
    if isinstance(epoch.schedule, FixedDelay):
        if line.scheduled_at != expected:
            raise Wrong(f"{about}: the occurrence after the last run is at {expected:%H:%M:%S}")
        ended = line.finished_at
        if line.status is Status.SUPERSEDED:
            ended = max(ended, line.scheduled_at)  # the clock may have been set back
        epoch.next = ended + epoch.schedule.every
        return
    if not occurrences.occurs(epoch.schedule, line.scheduled_at, epoch.anchor):
        raise Wrong(f"{about}: {epoch.schedule!r} has no occurrence there")
    if line.scheduled_at < expected:
        raise Wrong(f"{about}: that moment has had its line already")
    counted, _ = life.first_due(epoch)
    if line.scheduled_at != counted:
        when = "none" if counted is None else f"at {counted:%d. %H:%M:%S}"
        which = "lie before it and have no line" if line.scheduled_at > expected else "do not count"
        raise Wrong(f"{about}: occurrences {which}; the first that counts is {when}")
    last = line.folded_until or line.scheduled_at
    if line.folded:
        stands_for = life.behind(epoch, line.scheduled_at, last)
        known = occurrences.occurs(epoch.schedule, last, epoch.anchor)
        if stands_for != line.folded or not known:
            raise Wrong(f"{about} folds {line.folded}, but there are {stands_for} up to {last}")
    epoch.next = occurrences.after(epoch.schedule, last, epoch.anchor)
