"""The judge knows cancels, retries and requests: guilty histories, and innocent ones like them."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from attrs import evolve
from tests.testkit.hand import MINUTE, SPEC, Hand, at

from sched_core import CancelMark, Kind, Pause, Pending, Policy, Retry, Status
from sched_testkit._oracle.calls import CallState
from sched_testkit._oracle.incarnations import Request
from sched_testkit._oracle.violation import Violation

POLICY = Policy(retry=Retry(2, MINUTE))

FAILED_STATE, CANCELLED_STATE = CallState.FAILED, CallState.CANCELLED
SUCCEEDED_STATE = CallState.SUCCEEDED


def judged(history: Callable[[Hand], None]) -> None:
    hand = Hand(evolve(SPEC, policy=POLICY))
    history(hand)
    hand.look()
    hand.oracle.accounting.account(hand.now)


# -- cancels


def cancels(hand: Hand, number: int = 1, *, at_minute: float = 0.5) -> None:
    """An occurrence is cancelled by its key: it is marked, and due at once."""
    before = hand.job
    hand.moved(cancels=(*hand.job.standing.cancels, CancelMark(number)))
    if hand.job.standing.scheduled is not None and hand.job.standing.scheduled.number == number:
        hand.waits(due_at=at(at_minute))
    hand.oracle.commands.cancelled(before, f"u:{number}", by_key=True)


def ends_cancelled(hand: Hand, minutes: float, token: int, **changes: object) -> None:
    """What was cancelled while it waited is claimed, and ends without a run."""
    hand.passed_over(minutes, token, Status.CANCELLED, **changes)
    hand.moved(cancels=())


def cancelled_and_run(hand: Hand) -> None:
    cancels(hand)
    hand.ran(1, 1)


def cancelled_and_forgotten(hand: Hand) -> None:
    cancels(hand)
    hand.goes_on(2)
    hand.ran(2, 1)


def cancelled_and_skipped(hand: Hand) -> None:
    cancels(hand)
    hand.passed_over(1, 1, Status.SKIPPED)


def cancelled_and_failed(hand: Hand) -> None:
    claim = hand.claim(1, 1)
    cancels(hand)
    hand.oracle.attempts.ended(hand.call(claim, 1), FAILED_STATE, at(1))
    hand.settled(claim, hand.written(claim, 1, status=Status.FAILED, final=False))


def cancelled_and_retried(hand: Hand) -> None:
    claim = hand.ended(1, 1, "failed")
    hand.executions.append(hand.written(claim, 1, status=Status.FAILED, final=False))
    hand.waits(attempts=1, failures=1, began_at=at(1), due_at=at(2))
    hand.look(1)
    cancels(hand, at_minute=1.2)
    hand.ran(2, 2, attempt=2)


def cancelled_twice(hand: Hand) -> None:
    cancels(hand)
    ends_cancelled(hand, 0.5, 1)
    hand.executions.append(evolve(hand.executions[0], id="u:1:1", attempt=1))


def cancelled_another(hand: Hand) -> None:
    cancels(hand)
    ends_cancelled(hand, 0.5, 1)
    hand.passed_over(2, 2, Status.CANCELLED)


def cancelled_what_has_ended(hand: Hand) -> None:
    hand.ran(1, 1)
    hand.look(1)
    hand.oracle.commands.cancelled(hand.job, "u:1", by_key=True)


def cancelled_what_does_not_run(hand: Hand) -> None:
    hand.oracle.commands.cancelled(hand.job, "u:1", by_key=False)


def cancelled_of_another_incarnation(hand: Hand) -> None:
    hand.oracle.commands.cancelled(hand.job, "v:1", by_key=True)


def nothing_to_cancel(hand: Hand) -> None:
    hand.oracle.commands.nothing_to_cancel(hand.job, 1)


def nothing_to_cancel_though_it_runs(hand: Hand) -> None:
    hand.oracle.commands.nothing_to_cancel(evolve(hand.job, held=1), None)


def cancelled_and_held_by_a_pause(hand: Hand) -> None:
    paused(hand)
    cancels(hand)
    hand.oracle.accounting.expect_ends_in_pause("u", at(5))


# -- retries


def waits(hand: Hand) -> None:
    """A first attempt has failed; the next one is due in a minute."""
    claim = hand.ended(1, 1, "failed")
    hand.executions.append(hand.written(claim, 1, status=Status.FAILED, final=False))
    hand.waits(attempts=1, failures=1, began_at=at(1), due_at=at(2))
    hand.look(1)


def hurried_and_still_waiting(hand: Hand) -> None:
    waits(hand)
    hand.oracle.commands.hurried(hand.moved(), at(1.2))


def hurried_before_it_failed(hand: Hand) -> None:
    claim = hand.claim(1, 1)
    call = hand.call(claim, 1)
    hand.waits(began_at=at(1), due_at=at(1))
    hand.oracle.commands.hurried(evolve(hand.job, held=1), at(1))
    hand.oracle.attempts.ended(call, FAILED_STATE, at(1))
    hand.oracle.unclaimed(claim)
    hand.executions.append(hand.written(claim, 1, status=Status.FAILED, final=False))
    hand.waits(attempts=1, failures=1, due_at=at(1.5))
    hand.look(1)
    hand.ran(1.5, 2, attempt=2)


# -- requests


def asked(hand: Hand, number: int = 2, kind: Kind = Kind.TRIGGERED, **changes: object) -> Request:
    """A request is made, and stored as due at once."""
    moment = changes.pop("moment", at(0.5))
    one = Pending(number, moment, at(0.5), kind, origin=number, args=changes.get("args"))  # type: ignore[arg-type]  # by name
    request = evolve(Request(hand.oracle.known.seq, 0, kind), **changes)  # type: ignore[arg-type]
    hand.oracle.commands.asked(hand.job, f"u:{number}", request)
    requests = (*hand.job.standing.requests, one)
    hand.moved(last_number=max(number, hand.job.standing.last_number), requests=requests)
    hand.moved(due_at=at(0.5))
    return request


def answers(hand: Hand, token: int, **changes: object) -> None:
    """The first request is claimed, and has run."""
    hand.ran(0.5, token, **changes)
    rest = hand.job.standing.requests[1:]
    hand.moved(requests=rest, due_at=at(0.5) if rest else at(1))
    hand.look(0.5)


def a_name_that_is_asked_for_twice(hand: Hand) -> None:
    asked(hand, key="x")
    asked(hand, 3, key="x")


def a_name_that_has_ended(hand: Hand) -> None:
    asked(hand, key="x")
    answers(hand, 1)
    hand.oracle.commands.asked(hand.job, "u:2", Request(9, 0, Kind.TRIGGERED, key="x"))


def another_argument_than_asked_for(hand: Hand) -> None:
    asked(hand, args={"n": "1"})
    answers(hand, 1)


def another_argument_in_the_history(hand: Hand) -> None:
    asked(hand)
    answers(hand, 1, args={"n": "1"})


def a_rerun_of_another_moment(hand: Hand) -> None:
    asked(hand, kind=Kind.RERUN, since=at(0.2), until=at(0.2), key="u:0:1")
    answers(hand, 1)


def a_rerun_that_is_lost(hand: Hand) -> None:
    request = Request(hand.oracle.known.seq, 0, Kind.RERUN, None, at(1), at(1), "u:1:1")
    hand.oracle.commands.asked(hand.job, "u:2", request)


def a_rerun_nobody_asked_for(hand: Hand) -> None:
    asked(hand, kind=Kind.RERUN, since=at(0.5), until=at(0.5), key="u:0:1")
    hand.oracle.known.current["a"].requests.clear()
    answers(hand, 1)


def a_backfill_with_a_moment_left_out(hand: Hand) -> None:
    hand.ran(1, 1)
    hand.ran(2, 2)
    asked(hand, 4, Kind.BACKFILLED, moment=at(1), since=at(1), until=at(2), key="x")
    hand.moved(due_at=at(2.5), requests=(evolve(hand.job.standing.requests[0], due_at=at(2.5)),))
    hand.ran(2.5, 3)
    hand.moved(requests=(), due_at=at(3))


def a_backfill_that_is_refused(hand: Hand) -> None:
    request = Request(0, 0, Kind.BACKFILLED, None, at(0.5), at(1.5))
    hand.oracle.commands.refused(hand.job, request)


def asked_for_inside_a_pause_and_held_by_it(hand: Hand) -> None:
    paused(hand)
    asked(hand, key="x")
    hand.oracle.accounting.expect_ends_in_pause("u", at(5))


def paused(hand: Hand) -> None:
    active = hand.job
    hand.moved(pause=Pause(at(0.2), 1), due_at=None)
    hand.oracle.commands.paused(active, hand.job, None, at(0.2))


WRONG: list[tuple[Callable[[Hand], None], str]] = [
    (cancelled_and_run, "starts though it was cancelled"),
    (cancelled_and_forgotten, "0 own, 0 covering"),
    (cancelled_and_skipped, "skipped had been cancelled"),
    (cancelled_and_failed, "failed had been cancelled"),
    (cancelled_and_retried, "starts though it was cancelled"),
    (cancelled_twice, "never called"),
    (cancelled_another, "cancelled; asked for were {1}"),
    (cancelled_what_has_ended, "cancelled is u:1, which has ended"),
    (cancelled_what_does_not_run, "cancelled is u:1, and None runs"),
    (cancelled_of_another_incarnation, "cancelled is v:1, not of u"),
    (nothing_to_cancel, "nothing was to be cancelled, and 1 is there"),
    (nothing_to_cancel_though_it_runs, "nothing was to be cancelled"),
    (cancelled_and_held_by_a_pause, "was to be cancelled, and waits for the pause's end"),
    (hurried_and_still_waiting, "was to be retried now, and waits"),
    (hurried_before_it_failed, "before its retry was due"),
    (a_name_that_is_asked_for_twice, "though 2 is the same and has not ended"),
    (a_name_that_has_ended, "has the key u:2, which has ended"),
    (another_argument_than_asked_for, "got None, not {'n': '1'}"),
    (another_argument_in_the_history, "was asked with {'n': '1'}"),
    (a_rerun_of_another_moment, "repeats .*, and asked for was"),
    (a_rerun_that_is_lost, "has no end"),
    (a_rerun_nobody_asked_for, "2 runs, and no command asked for it"),
    (a_backfill_with_a_moment_left_out, "backfill of .*: 0 executions"),
    (a_backfill_that_is_refused, "nothing to backfill, though"),
    (asked_for_inside_a_pause_and_held_by_it, "was asked for inside the pause, and waits"),
]


@pytest.mark.parametrize(
    ("history", "message"), WRONG, ids=lambda what: getattr(what, "__name__", "")
)
def test_a_wrong_history_is_refused(history: Callable[[Hand], None], message: str) -> None:
    with pytest.raises(Violation, match=message):
        judged(history)


# -- what is right


def cancelled_while_it_waits(hand: Hand) -> None:
    cancels(hand)
    ends_cancelled(hand, 0.5, 1)
    hand.look(0.5)
    hand.oracle.expect_nothing_left(at(0.5))
    hand.ran(2, 2)


def cancelled_inside_a_pause(hand: Hand) -> None:
    paused(hand)
    cancels(hand)
    hand.moved(due_at=at(0.5))
    ends_cancelled(hand, 0.5, 1)
    hand.moved(due_at=None)
    hand.look(0.6)
    hand.oracle.accounting.expect_ends_in_pause("u", at(0.6))


def cancelled_while_it_runs(hand: Hand) -> None:
    claim = hand.claim(1, 1)
    call = hand.call(claim, 1)
    cancels(hand)
    hand.oracle.attempts.ended(call, CANCELLED_STATE, at(1))
    hand.settled(claim, hand.written(claim, 1, status=Status.CANCELLED))
    hand.moved(cancels=())


def cancelled_and_returned_before_that(hand: Hand) -> None:
    claim = hand.claim(1, 1)
    call = hand.call(claim, 1)
    cancels(hand)
    hand.oracle.attempts.ended(call, SUCCEEDED_STATE, at(1))
    hand.settled(claim, hand.written(claim, 1))
    hand.moved(cancels=())


def cancelled_and_failed_meanwhile(hand: Hand) -> None:
    claim = hand.claim(1, 1)
    call = hand.call(claim, 1)
    cancels(hand)
    hand.oracle.attempts.ended(call, FAILED_STATE, at(1))
    hand.settled(claim, hand.written(claim, 1, status=Status.CANCELLED))
    hand.moved(cancels=())


def cancelled_while_a_snooze_waits(hand: Hand) -> None:
    hand.snoozed(1, 1)
    cancels(hand, at_minute=1.2)
    ends_cancelled(hand, 1.2, 2, snoozes=1)


def hurried(hand: Hand) -> None:
    waits(hand)
    hand.waits(due_at=at(1.2))
    hand.oracle.commands.hurried(hand.job, at(1.2))
    hand.ran(1.2, 2, attempt=2)


def hurried_after_a_snooze(hand: Hand) -> None:
    hand.snoozed(1, 1)
    hand.waits(due_at=at(1.2))
    hand.oracle.commands.hurried(hand.job, at(1.2))
    hand.ran(1.2, 2, snoozes=1)


def a_name_that_is_the_same_until_it_has_ended(hand: Hand) -> None:
    asked(hand, key="x")
    hand.oracle.commands.asked(
        hand.job, "u:2", Request(9, 0, Kind.TRIGGERED, {"other": "arguments"}, key="x")
    )
    answers(hand, 1)
    asked(hand, 3, key="x")
    answers(hand, 2)


def a_rerun(hand: Hand) -> None:
    asked(hand, kind=Kind.RERUN, moment=at(0.2), since=at(0.2), until=at(0.2), key="u:0:1")
    answers(hand, 1)


def asked_for_inside_a_pause(hand: Hand) -> None:
    paused(hand)
    asked(hand, key="x")
    hand.ran(0.5, 1)
    hand.moved(requests=(), due_at=None)
    hand.look(0.5)
    hand.oracle.accounting.expect_ends_in_pause("u", at(5))


@pytest.mark.parametrize(
    "history",
    [
        cancelled_while_it_waits,
        cancelled_inside_a_pause,
        cancelled_while_it_runs,
        cancelled_and_returned_before_that,
        cancelled_and_failed_meanwhile,
        cancelled_while_a_snooze_waits,
        hurried,
        hurried_after_a_snooze,
        a_name_that_is_the_same_until_it_has_ended,
        a_rerun,
        asked_for_inside_a_pause,
    ],
)
def test_its_innocent_twin_is_accepted(history: Callable[[Hand], None]) -> None:
    judged(history)
