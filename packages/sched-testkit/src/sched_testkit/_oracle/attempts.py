"""Judges the calls of handlers, and what is written of each of them."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from enum import StrEnum

from attrs import Factory, define

from sched_core import Claim, Execution, JobEvent, JobSpec, Kind, Retry, Status
from sched_testkit._oracle.claims import Claims
from sched_testkit._oracle.incarnations import Incarnation
from sched_testkit._oracle.known import Known
from sched_testkit._oracle.lateness import expect_allowed, is_plain, jitter_fraction
from sched_testkit._oracle.starts import Start, Starts
from sched_testkit._oracle.violation import Violation, at


class CallState(StrEnum):
    """How a call of the handler has ended, as far as the oracle saw it."""

    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    INTERRUPTED = "interrupted"
    CANCELLED = "cancelled"
    """It was cancelled; the execution will say what for."""
    LOST = "lost"
    CRASHED = "crashed"


ENDS = {
    Status.SUCCEEDED: {CallState.SUCCEEDED},
    Status.FAILED: {CallState.FAILED, CallState.LOST},
    Status.INTERRUPTED: {CallState.INTERRUPTED},
    Status.CANCELLED: {
        CallState.LOST,
        CallState.FAILED,
        CallState.INTERRUPTED,
        CallState.CANCELLED,
    },
}
"""How the call may have ended where its attempt has this status.

A call counts as lost where the handler was cancelled, whatever the reason was.
"""
ALWAYS_WRITTEN = {CallState.SUCCEEDED, CallState.FAILED, CallState.INTERRUPTED}


@define(eq=False)
class Call:
    """A call of the handler.

    Attributes:
        event: The event that the handler got.
        uid: The incarnation of the job.
        number: The number of the occurrence.
        worker: The worker that called it.
        spec: The definition under which it ran last.
        state: How it has ended.
        ended_at: The moment at which it has ended.
        failures: The number of failed attempts of the occurrence so far.
        settled: Whether the settlement of its claim was written.
        execution: The execution that was written for it.
        raised: The type of what the handler has raised.
    """

    event: JobEvent
    uid: str
    number: int
    worker: str
    spec: JobSpec
    state: CallState = CallState.RUNNING
    ended_at: datetime | None = None
    failures: int = 0
    settled: bool = False
    execution: Execution | None = None
    raised: type[BaseException] | None = None

    def __str__(self) -> str:
        return f"attempt {self.event.attempt} at {self.uid}:{self.number}"


@define
class Attempts:
    """All calls of handlers in a history.

    Attributes:
        known: What was commanded.
        claims: The claims under which handlers are called.
        starts: The judge of what a handler is told.
        calls: The calls, by incarnation, number and attempt.
    """

    known: Known
    claims: Claims
    starts: Starts
    calls: dict[tuple[str, int, int], Call] = Factory(dict)

    def find(self, execution: Execution) -> Call | None:
        """Return the call that an execution is about."""
        return self.calls.get((execution.uid, execution.number, execution.attempt))

    # -- calls begin

    def called(self, event: JobEvent, now: datetime) -> Call:
        """Judge a call of the handler, and return what is remembered of it."""
        self.known.next_seq()
        hold = self.claims.holds.get((event.id, event.token))
        what = f"the handler was called for {event.id!r} at {at(event.scheduled_at)}"
        if hold is None or hold.pending is None:
            raise Violation(f"{what} without a claim of an occurrence")
        uid, number = hold.claim.job.uid, hold.pending.number
        if event.key != f"{uid}:{number}":
            raise Violation(f"{what} with the key {event.key}, not {uid}:{number}")
        if event.started_at != now:
            raise Violation(f"{what}, and told that it began at {event.started_at}; it is {now}")
        self._expect_alone(event, now, what)
        incarnation = self.known.incarnations[uid]
        spec = incarnation.spec or hold.claim.job.spec
        call = Call(event, uid, number, hold.claim.worker, spec)
        self._expect_due_again(call, what)
        self._expect_jitter(incarnation, call, now, what)
        began_at = self.claims.began.setdefault((uid, number), hold.stored.claimed_at)
        start = Start(
            number,
            event.scheduled_at,
            event.kind,
            event.attempt,
            event.coalesced,
            event.coalesced_until,
        )
        self.starts.start(hold.claim.job, start, now, hold.seen)
        if event.kind is Kind.SCHEDULED and is_plain(hold.seen) and not self.known.set_back:
            failed = call.failures > 0
            expect_allowed(hold.seen, event, hold.stored.claimed_at, began_at, failed=failed)
        self.calls[uid, number, event.attempt] = call
        return call

    def _expect_alone(self, event: JobEvent, now: datetime, what: str) -> None:
        """Expect that no other call of the job runs under a lease that has not ended."""
        for other in self.calls.values():
            stored = self.claims.holds[other.event.id, other.event.token].stored
            overlaps = other.event.id == event.id and stored.expires_at > now
            if other.state is CallState.RUNNING and overlaps:
                raise Violation(f"{what} while {other} is running")

    def _expect_jitter(
        self, incarnation: Incarnation, call: Call, now: datetime, what: str
    ) -> None:
        event = call.event
        edited = incarnation.edits or len(incarnation.eras) > 1
        if event.kind is not Kind.SCHEDULED or edited:
            return
        due = event.scheduled_at + call.spec.policy.jitter * jitter_fraction(event.key)
        if now < due and not self.known.set_back:
            raise Violation(f"{what}, but its jitter makes it due at {at(due)}")

    def _expect_due_again(self, call: Call, what: str) -> None:
        """Expect that the attempt before this one allows another one, and that its wait is over."""
        event = call.event
        # An attempt whose claim never reached its worker has no call.
        before = range(event.attempt - 1, 0, -1)
        names = ((call.uid, call.number, attempt) for attempt in before)
        earlier = next((self.calls[name] for name in names if name in self.calls), None)
        if earlier is None:
            return
        call.failures = earlier.failures
        # A worker that could not settle it before its lease ended leaves it to be repeated.
        if earlier.state is CallState.SUCCEEDED and earlier.settled:
            raise Violation(f"{what} again, though {earlier} succeeded")
        failed = earlier.state is CallState.FAILED and earlier.settled
        if failed and earlier.ended_at is not None:
            # A run that is edited ends by the policy that is stored then.
            retries = [earlier.spec.policy.retry, *self.known.incarnations[call.uid].retries]
            due = earlier.ended_at + min(backoff(earlier, retry) for retry in retries)
            if event.started_at < due and not self.known.set_back:
                raise Violation(f"{what} before its retry was due at {at(due)}")

    # -- calls end

    def ended(
        self,
        call: Call,
        state: CallState,
        now: datetime,
        raised: type[BaseException] | None = None,
    ) -> None:
        """Note that the handler has returned or raised, or was cancelled."""
        self.known.next_seq()
        if call.state is CallState.RUNNING:
            call.state, call.ended_at, call.raised = state, now, raised
            call.failures += state is CallState.FAILED
            call.spec = self.known.incarnations[call.uid].spec or call.spec

    def settled(self, claim: Claim, *, written: bool) -> None:
        """Note that a claim was settled or released, or, if not ``written``, was lost."""
        for call in self._calls_of(claim):
            call.settled = written
            call.state = call.state if written else CallState.LOST

    def crashed(self, worker: str) -> None:
        """Note that a worker is gone, and that nothing it was about to write will arrive."""
        for call in self.calls.values():
            if call.worker == worker and not call.settled:
                call.state = CallState.CRASHED

    def killed(self, worker: str) -> None:
        """Note that a worker was killed; a settlement that it has sent may still arrive."""
        for call in self.calls.values():
            if call.worker == worker and call.state is CallState.RUNNING:
                call.state = CallState.CRASHED

    def learn_end(self, found: Execution) -> None:
        """Learn from an execution how a call ended that was cancelled, or whose worker is gone."""
        call = self.find(found)
        if call is None or call.event.token != found.token:
            return
        if found.status is Status.ABANDONED:
            if call.settled:
                raise Violation(f"{call} was settled, and is lost all the same")
            call.failures -= call.state is CallState.FAILED  # no execution says that it failed
            call.state = CallState.LOST
        elif call.state is CallState.CANCELLED:
            reason = found.reason or ""
            timed_out = found.status is Status.FAILED and reason.startswith("timeout")
            if timed_out or found.status in {Status.INTERRUPTED, Status.CANCELLED}:
                call.state = CallState(found.status.value)
                call.failures += timed_out

    def _calls_of(self, claim: Claim) -> Iterator[Call]:
        for call in self.calls.values():
            if (call.event.id, call.event.token) == (claim.job.id, claim.token):
                yield call

    # -- executions

    def judge_attempt(self, found: Execution) -> None:
        """Judge the execution of an attempt by the call that it is about."""
        call, what = self.find(found), f"{found.id} {found.status.value}"
        if call is None:
            raise Violation(f"{what}, but the handler was never called for it")
        event = call.event
        seen = event.token, call.worker, event.started_at, event.scheduled_at, event.kind
        mine = found.token, found.worker, found.started_at, found.scheduled_at, found.kind
        if seen != mine:
            raise Violation(f"{what} says {mine}, and the handler was called with {seen}")
        covers = (event.coalesced, event.coalesced_until) if found.final else (0, None)
        if event.kind is Kind.SCHEDULED and (found.coalesced, found.coalesced_until) != covers:
            raise Violation(
                f"{what} covers {found.coalesced} until {at(found.coalesced_until)}, "
                f"and the handler was called for {covers[0]} until {at(covers[1])}"
            )
        timeout = call.spec.policy.timeout
        timed_out = timeout is not None and found.finished_at - event.started_at >= timeout
        if call.state is CallState.LOST and timed_out and found.status is Status.FAILED:
            call.state, call.ended_at = CallState.FAILED, found.finished_at  # its time was up too
            call.failures += 1
        if call.state not in ENDS[found.status]:
            raise Violation(f"{what}, but the handler {call.state}")
        if found.status is Status.FAILED:
            self._judge_failure(found, call, what)
        call.execution = found

    def _judge_failure(self, found: Execution, call: Call, what: str) -> None:
        """Expect that a failure is final exactly where no retry is left."""
        incarnation = self.known.incarnations[found.uid]
        timed_out = (found.reason or "").startswith("timeout")
        raised = TimeoutError if timed_out else call.raised
        allowed = failures_allowed(call.spec.policy.retry, raised)
        untouched = (
            incarnation.removed is None and len(incarnation.eras) == 1 and not incarnation.edits
        )
        if found.final and call.failures < allowed and untouched:
            raise Violation(f"{what}: failure {call.failures} of {allowed} must not be the last")
        # A run that is edited ends by the policy that is stored then.
        edited = (failures_allowed(one, raised) for one in incarnation.retries)
        allowed = max([allowed, *edited])
        if not found.final and call.failures >= allowed:
            raise Violation(f"{what}: failure {call.failures} of {allowed} must be the last")

    def expect_executions(self) -> None:
        """Expect an execution for every call, except where no worker could write one."""
        for call in self.calls.values():
            if call.execution is None and call.state in ALWAYS_WRITTEN:
                raise Violation(f"{call} of {call.event.id!r} {call.state}, and has no execution")


def backoff(call: Call, retry: Retry) -> timedelta:
    """Return how long the retry after a failed call waits, by that policy."""
    jitter = 1 + retry.jitter * jitter_fraction(f"{call.event.key}:{call.event.attempt}")
    if retry.delays:
        return (retry.delays + retry.delays[-1:] * call.failures)[call.failures - 1] * jitter
    delay = retry.backoff
    for _ in range(call.failures - 1):
        delay = min(delay * retry.factor, retry.maximum)
    delay = min(delay, retry.maximum)
    return delay * jitter


def failures_allowed(retry: Retry, raised: type[BaseException] | None) -> int:
    """Return after how many failures there is no other attempt; 0 if this error allows none."""
    kinds = () if raised is None else raised.__mro__
    names = {f"{kind.__module__}.{kind.__qualname__}" for kind in kinds}
    names |= {kind.__qualname__ for kind in kinds if kind.__module__ == "builtins"}
    is_final = not names & set(retry.only) if retry.only else bool(names & set(retry.never))
    return 0 if is_final else retry.attempts
