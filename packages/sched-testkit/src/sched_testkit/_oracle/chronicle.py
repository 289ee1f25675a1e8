"""Writes a history down as real schedulers make it: claims, calls of the handler, what is stored.

What cannot be right whatever else is known is refused at once; the oracle judges the rest.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta

from attrs import define, evolve

from sched_core import (
    Claim,
    Execution,
    Job,
    JobEvent,
    JobSpec,
    Kind,
    Pending,
    Renewal,
    Retry,
    Status,
)
from sched_core import Hold as Stored
from sched_testkit._oracle.accounting import Key
from sched_testkit._oracle.annals import Life, Wrong, at
from sched_testkit._oracle.lateness import expect_allowed, is_plain, share
from sched_testkit._oracle.oracle import Oracle, Start
from sched_testkit._stories.entry import count_of_lost, kept_by, next_of


@define
class Hold:
    """A claim that was handed out.

    Attributes:
        claim: As handed out.
        stored: As the store should have it.
        seen: What was commanded when it was made.
        open: Until it was settled, released or lost.
        crashed: Whether its worker is gone.
    """

    claim: Claim
    stored: Stored
    seen: Life
    open: bool = True
    crashed: bool = False

    @property
    def pending(self) -> Pending | None:
        """What it is for; ``None``: it ends a pause."""
        return self.stored.pending


@define(eq=False)
class Call:
    """A call of the handler; ``how`` it ended: succeeded, failed, interrupted, lost, crashed."""

    event: JobEvent
    uid: str
    number: int
    worker: str
    spec: JobSpec
    how: str = "running"
    ended_at: datetime | None = None
    failures: int = 0
    settled: bool = False
    execution: Execution | None = None

    def __str__(self) -> str:
        return f"attempt {self.event.attempt} at {self.uid}:{self.number}"


class Chronicle(Oracle):
    """Knows the whole history of one place, from the beginning."""

    def __init__(self, grace: timedelta | None = None) -> None:
        super().__init__(grace)
        self.current: dict[str, Life] = {}
        """The incarnation that each id has now."""
        self.holds: dict[tuple[str, int], Hold] = {}
        """By job id and token: tokens need not differ between jobs."""
        self.calls: dict[tuple[str, int, int], Call] = {}
        self.tokens: dict[str, int] = {}
        self.began: dict[Key, datetime] = {}
        """When the first claim of an occurrence was made that was not handed back."""
        self.stored_jobs: dict[str, Job] = {}
        """As they were looked at last."""
        self.latest: datetime | None = None

    def alive(self) -> list[str]:
        """Return the ids that have a job, sorted."""
        return sorted(self.current)

    def place(self) -> int:
        """Return the next place in the order of all that happens."""
        self.seq += 1
        return self.seq

    # -- claims

    def claimed(self, claim: Claim, now: datetime) -> None:
        """A backend handed out this claim."""
        self.place()
        job, job_id = claim.job, claim.job.id
        if claim.token <= self.tokens.get(job_id, 0):
            raise Wrong(f"the claim of {job_id!r} has the token {claim.token}, which is not higher")
        self.tokens[job_id] = claim.token
        life = self.lives.get(job.uid)
        if life is None or life.removed is not None:
            raise Wrong(f"job {job_id!r} ({job.uid}) was handed out though it is gone")
        for hold in [*self._open(job_id)]:
            if hold.pending is None and (hold.crashed or hold.stored.expires_at <= now):
                hold.open = False  # lost, it leaves nothing that could be told
                continue
            raise Wrong(f"job {job_id!r} was handed out, and {hold.claim.worker} has it")
        due = job.standing.due_at
        if due is None or due > now:
            raise Wrong(f"job {job_id!r} was handed out at {at(now)}, and is due {at(due)}")
        self.holds[job_id, claim.token] = Hold(
            claim,
            Stored(
                job_id=job_id,
                uid=job.uid,
                token=claim.token,
                worker=claim.worker,
                claimed_at=claim.claimed_at,
                renewed_at=claim.claimed_at,
                expires_at=claim.expires_at,
                pending=next_of(job.standing),
                keep=kept_by(job),
            ),
            life.copy(),
        )

    def lapsed(self, executions: Sequence[Execution], now: datetime) -> None:
        """A backend told what it wrote of claims whose lease had ended."""
        self.place()
        for each in executions:
            hold = self.holds.get((each.job_id, each.token))
            if hold is None or each.status is not Status.ABANDONED:
                continue
            if not hold.open:
                raise Wrong(f"{each.id} tells of a claim that has ended already")
            if hold.stored.expires_at > now and not hold.crashed:
                raise Wrong(f"{each.id} was lost before its lease ended")
            hold.open = False
            self.lost[each.uid, each.number] = now
            self.began.setdefault((each.uid, each.number), hold.stored.claimed_at)
            self._count(hold, (each.uid, each.number))

    def _count(self, hold: Hold, key: Key) -> None:
        """Note whether a lost claim was the last that may be lost."""
        life, one = self.lives[key[0]], hold.pending
        if one is None or life.spec is None or life.removed is not None:
            return
        most = life.spec.policy.max_lost
        if count_of_lost(one, most, hold.stored) >= most:
            self.fatal.add(key)

    def renewed(self, renewals: Sequence[Renewal], claims: Sequence[Claim], now: datetime) -> None:
        """A backend prolonged these claims."""
        self.place()
        alone = {(each.claim.job.id, each.claim.token): each.alone for each in renewals}
        for claim in claims:
            hold = self.holds[claim.job.id, claim.token]
            said = alone[claim.job.id, claim.token]
            hold.stored = evolve(
                hold.stored,
                renewed_at=now,
                expires_at=max(hold.stored.expires_at, claim.expires_at),
                alone_at=(hold.stored.alone_at or now) if said else None,
            )

    def unclaimed(self, claim: Claim, *, written: bool = True) -> None:
        """A claim was settled or released, or, if not ``written``, was found to be lost."""
        self.place()
        hold = self.holds.get((claim.job.id, claim.token))
        if hold is not None:
            hold.open &= not written
        for call in self._of(claim):
            call.settled = written
            call.how = call.how if written else "lost"

    def crashed(self, worker: str) -> None:
        """A worker is gone; its claims are left to their lease."""
        self.place()
        for hold in self.holds.values():
            if hold.claim.worker == worker:
                hold.crashed = True
        for call in self.calls.values():
            if call.worker == worker and not call.settled:
                call.how = "crashed"

    def _of(self, claim: Claim) -> Iterator[Call]:
        for call in self.calls.values():
            if (call.event.id, call.event.token) == (claim.job.id, claim.token):
                yield call

    def _open(self, job_id: str) -> Iterator[Hold]:
        return (hold for (of, _), hold in self.holds.items() if of == job_id and hold.open)

    # -- calls

    def called(self, event: JobEvent, now: datetime) -> Call:
        """The handler is called."""
        self.place()
        hold = self.holds.get((event.id, event.token))
        what = f"the handler was called for {event.id!r} at {at(event.scheduled_at)}"
        if hold is None or hold.pending is None:
            raise Wrong(f"{what} without a claim of an occurrence")
        uid, number = hold.claim.job.uid, hold.pending.number
        if event.key != f"{uid}:{number}":
            raise Wrong(f"{what} with the key {event.key}, not {uid}:{number}")
        if event.started_at != now:
            raise Wrong(f"{what}, and told that it began at {event.started_at}; it is {now}")
        for other in self.calls.values():
            held = self.holds[other.event.id, other.event.token].stored
            beside = other.event.id == event.id and held.expires_at > now
            if other.how == "running" and beside:
                raise Wrong(f"{what} while {other} is running")
        life = self.lives[uid]
        call = Call(event, uid, number, hold.claim.worker, life.spec or hold.claim.job.spec)
        self._check_again(call, what)
        self._check_jitter(life, call, now, what)
        began_at = self.began.setdefault((uid, number), hold.stored.claimed_at)
        start = Start(
            number,
            event.scheduled_at,
            event.kind,
            event.attempt,
            event.coalesced,
            event.coalesced_until,
        )
        self.start(hold.claim.job, start, now, hold.seen)
        if event.kind is Kind.SCHEDULED and is_plain(hold.seen) and not self.set_back:
            failed = call.failures > 0
            expect_allowed(hold.seen, event, hold.stored.claimed_at, began_at, failed=failed)
        self.calls[uid, number, event.attempt] = call
        return call

    def _check_jitter(self, life: Life, call: Call, now: datetime, what: str) -> None:
        event = call.event
        if event.kind is not Kind.SCHEDULED or life.edits or len(life.epochs) > 1:
            return
        due = event.scheduled_at + call.spec.policy.jitter * share(event.key)
        if now < due and not self.set_back:
            raise Wrong(f"{what}, but its jitter makes it due at {at(due)}")

    def _check_again(self, call: Call, what: str) -> None:
        event = call.event
        # Of an attempt whose claim never reached its worker there is no call.
        before = range(event.attempt - 1, 0, -1)
        names = ((call.uid, call.number, attempt) for attempt in before)
        earlier = next((self.calls[name] for name in names if name in self.calls), None)
        if earlier is None:
            return
        call.failures = earlier.failures
        # One that nobody could settle before its lease ended is repeated.
        if earlier.how == "succeeded" and earlier.settled:
            raise Wrong(f"{what} again, though {earlier} succeeded")
        if earlier.how == "failed" and earlier.settled and earlier.ended_at is not None:
            # A run that is edited ends by the policy that is stored then.
            retries = [earlier.spec.policy.retry, *self.lives[call.uid].retries]
            due = earlier.ended_at + min(backoff(earlier, retry) for retry in retries)
            if event.started_at < due and not self.set_back:
                raise Wrong(f"{what} before its retry was due at {at(due)}")

    def ended(self, call: Call, how: str, now: datetime) -> None:
        """The handler has returned or raised, or was cancelled."""
        self.place()
        if call.how == "running":
            call.how, call.ended_at = how, now
            call.failures += how == "failed"
            call.spec = self.lives[call.uid].spec or call.spec


def backoff(call: Call, retry: Retry) -> timedelta:
    """Return how long the retry after a failed call waits, by that policy."""
    delay = retry.backoff
    for _ in range(call.failures - 1):
        delay = min(delay * retry.factor, retry.maximum)
    delay = min(delay, retry.maximum)
    return delay * (1 + retry.jitter * share(f"{call.event.key}:{call.event.attempt}"))
