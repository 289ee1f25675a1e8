"""Judges the calls of handlers, and what is written of each of them."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta

from attrs import Factory, define

from sched_core import Claim, Execution, JobEvent, Kind, Policy, Status
from sched_testkit._oracle.calls import (
    ALWAYS_WRITTEN,
    ENDS,
    FAILURES,
    Call,
    CallState,
    backoff,
    failures_allowed,
)
from sched_testkit._oracle.claims import Claims
from sched_testkit._oracle.incarnations import Incarnation
from sched_testkit._oracle.known import Known
from sched_testkit._oracle.lateness import expect_allowed, is_plain, jitter_fraction
from sched_testkit._oracle.observed import Key
from sched_testkit._oracle.starts import Start, Starts
from sched_testkit._oracle.violation import Violation, at


@define
class Attempts:
    """All calls of handlers in a history.

    Attributes:
        known: What was commanded.
        claims: The claims under which handlers are called.
        starts: The judge of what a handler is told.
        calls: The calls, by incarnation, number and attempt; of those that snoozed the last.
        latest: The last call of each occurrence.
    """

    known: Known
    claims: Claims
    starts: Starts
    calls: dict[tuple[str, int, int], Call] = Factory(dict)
    latest: dict[Key, Call] = Factory(dict)

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
        earlier = self.latest.get((uid, number))
        if earlier is not None:
            self._expect_due_again(earlier, call, what)
            self._take_over(earlier, call, hold.pending.snoozes, what)
        if hold.pending.snoozes != call.snoozes:
            counted = hold.pending.snoozes
            raise Violation(f"{what} after {call.snoozes} snoozes, and {counted} are counted")
        self._expect_jitter(incarnation, call, now, what)
        began_at = self.claims.began.setdefault((uid, number), hold.stored.claimed_at)
        start = Start(
            number,
            event.scheduled_at,
            event.kind,
            event.attempt,
            event.coalesced,
            event.coalesced_until,
            args=dict(event.args) or None,
        )
        self.starts.start(hold.claim.job, start, now, hold.seen)
        same = earlier is not None and earlier.event.attempt == event.attempt
        if earlier is not None and same and not earlier.has_snoozed:
            raise Violation(f"{what} again, though {earlier} {earlier.state}")
        if event.kind is Kind.SCHEDULED and is_plain(hold.seen) and not self.known.set_back:
            again = call.failures + call.snoozes > 0
            expect_allowed(hold.seen, event, hold.stored.claimed_at, began_at, again=again)
        self.calls[uid, number, event.attempt] = self.latest[uid, number] = call
        self.starts.observed.asked.pop((uid, number), None)
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

    def _expect_due_again(self, earlier: Call, call: Call, what: str) -> None:
        """Expect that the call before this one allows another one, and that its wait is over."""
        # A worker that could not settle it before its lease ended leaves it to be repeated.
        if earlier.state in {CallState.SUCCEEDED, CallState.DISCARDED} and earlier.settled:
            raise Violation(f"{what} again, though {earlier} {earlier.state}")
        due = earlier.due_again
        failed = earlier.state is CallState.FAILED and earlier.settled
        if due is None and failed and earlier.ended_at is not None:
            wait = min(backoff(earlier, each.retry) for each in self._policies(earlier))
            due = earlier.ended_at + wait
        if (call.uid, call.number) in self.starts.observed.hurried or self.known.set_back:
            return
        if due is not None and call.event.started_at < due:
            asked = "its snooze was over" if earlier.has_snoozed else "its retry was due"
            raise Violation(f"{what} before {asked} at {at(due)}")

    def _take_over(self, earlier: Call, call: Call, counted: int, what: str) -> None:
        """Take over what is known of an occurrence from the call before this one.

        Args:
            earlier: The call before this one.
            call: This one.
            counted: How many snoozes the store says that there were.
            what: This one, in words.
        """
        if earlier.has_snoozed:
            most = [each.max_snoozes for each in self._policies(earlier)]
            if counted <= earlier.snoozes >= min(most):
                self._fail(earlier)  # it was one too many
            elif earlier.snoozes >= max(most):
                raise Violation(f"{what} again, after more than {max(most)} snoozes")
        call.failures, call.snoozes = earlier.failures, earlier.snoozes_after

    def _policies(self, call: Call) -> list[Policy]:
        """Return the policies by which a call may have ended: it is the one that is stored then."""
        return [call.spec.policy, *self.known.incarnations[call.uid].policies]

    @staticmethod
    def _fail(call: Call) -> None:
        call.state = CallState.FAILED
        call.failures += 1

    # -- calls end

    def ended(
        self,
        call: Call,
        state: CallState,
        now: datetime,
        raised: type[BaseException] | None = None,
        wait: timedelta | None = None,
    ) -> None:
        """Note that the handler has returned or raised, or was cancelled.

        Args:
            call: The call.
            state: How it has ended.
            now: The moment by the clock.
            raised: The type of what the handler has raised.
            wait: How long the handler asks to wait until it is called again.
        """
        self.known.next_seq()
        if call.state is CallState.RUNNING:
            call.state, call.ended_at, call.raised, call.wait = state, now, raised, wait
            self.starts.observed.hurried.discard((call.uid, call.number))
            call.failures += state in FAILURES
            call.spec = self.known.incarnations[call.uid].spec or call.spec

    def settled(self, claim: Claim, *, written: bool) -> None:
        """Note that a claim was settled or released, or, if not ``written``, was lost."""
        for call in self._calls_of(claim):
            call.settled = written
            call.state = call.state if written else CallState.LOST
            if call.due_again is not None:
                self.starts.observed.asked[call.uid, call.number] = call.due_again

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
            call.failures -= call.state in FAILURES  # no execution says that it failed
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
            self._fail(call)  # its time was up, too
            call.ended_at = found.finished_at
        most = min(each.max_snoozes for each in self._policies(call))
        snoozed = call.state is CallState.SNOOZED
        if snoozed and found.status is Status.FAILED and call.snoozes >= most:
            self._fail(call)  # it was one too many
        # A function in a thread may be told when it has returned, and its worker not know that yet.
        told = call.state is CallState.SUCCEEDED and event.cancelled
        is_told = told and found.status is Status.CANCELLED
        if call.state not in ENDS[found.status] and not is_told:
            raise Violation(f"{what}, but the handler {call.state}")
        self._expect_snoozes(found, call.snoozes)
        if dict(found.args or {}) != dict(event.args):
            raise Violation(f"{what} was asked with {found.args}, and called with {event.args}")
        if found.status is Status.FAILED:
            self._judge_failure(found, call, what)
        call.execution = found

    def _judge_failure(self, found: Execution, call: Call, what: str) -> None:
        """Expect that a failure is final exactly where no retry is left."""
        if call.state is CallState.DISCARDED:
            if not found.final:
                raise Violation(f"{what} must be the last: the handler asked for no further one")
            return
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
        allowed = max(failures_allowed(each.retry, raised) for each in self._policies(call))
        if not found.final and call.failures >= allowed:
            raise Violation(f"{what}: failure {call.failures} of {allowed} must be the last")

    def judge_without_attempt(self, found: Execution) -> None:
        """Judge the execution of what ended without an attempt by the last call before it."""
        call = self.latest.get((found.uid, found.number))
        snoozes = 0 if call is None else call.snoozes_after
        if call is not None and call.event.token == found.token:
            snoozes = call.snoozes  # what was edited away under it had ended before it could snooze
        self._expect_snoozes(found, snoozes)
        # What was put off is judged late no more.
        if snoozes and found.status is Status.MISSED:
            raise Violation(f"{found.id} missed, though the handler was to be called again")

    @staticmethod
    def _expect_snoozes(found: Execution, snoozes: int) -> None:
        if found.snoozes != snoozes:
            raise Violation(
                f"{found.id} {found.status.value} counts {found.snoozes} snoozes, not {snoozes}"
            )

    def expect_executions(self) -> None:
        """Expect an execution for every call, except where no worker could write one."""
        for call in self.calls.values():
            if call.execution is None and call.state in ALWAYS_WRITTEN:
                raise Violation(f"{call} of {call.event.id!r} {call.state}, and has no execution")
