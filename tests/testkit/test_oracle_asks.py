"""The judge knows what handlers may ask for: guilty histories, and innocent ones much like them."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

import pytest
from attrs import evolve
from tests.testkit.hand import HALF, MINUTE, SPEC, Hand, at

from sched_core import Drop, Interval, Policy, Retry, Status
from sched_testkit._oracle.violation import Violation

POLICY = Policy(retry=Retry(2, MINUTE), max_snoozes=2)
HALF_A_MINUTE = Interval(seconds=30)


def judged(history: Callable[[Hand], None]) -> None:
    hand = Hand(evolve(SPEC, policy=POLICY))
    history(hand)
    hand.look()
    hand.oracle.accounting.account(hand.now)


# -- snoozes


def snoozed_and_written_as_a_failure(hand: Hand) -> None:
    claim = hand.ended(1, 1, "snoozed", wait=HALF)
    hand.settled(claim, hand.written(claim, 1, status=Status.FAILED, final=False))


def snoozed_and_written_as_a_success(hand: Hand) -> None:
    claim = hand.ended(1, 1, "snoozed", wait=HALF)
    hand.settled(claim, hand.written(claim, 1))


def snoozed_and_forgotten(hand: Hand) -> None:
    hand.snoozed(1, 1)
    hand.goes_on(2)
    hand.ran(2, 2)


def called_before_its_snooze_is_over(hand: Hand) -> None:
    hand.snoozed(1, 1)
    hand.waits(due_at=at(1.4))
    hand.ran(1.4, 2, snoozes=1)


def called_in_another_attempt(hand: Hand) -> None:
    hand.snoozed(1, 1)
    hand.ran(1.5, 2, attempt=2, snoozes=1)


def a_snooze_that_nobody_counts(hand: Hand) -> None:
    hand.snoozed(1, 1, snoozes=0)
    hand.ran(1.5, 2)


def a_snooze_that_is_counted_though_it_was_lost(hand: Hand) -> None:
    claim = hand.ended(1, 1, "snoozed", wait=HALF, settled=False)
    hand.oracle.unclaimed(claim, written=False)
    hand.oracle.claims.holds["a", 1].open = True
    lost = hand.lost(claim, 1.5)
    hand.oracle.claims.lapsed([lost], at(1.5))
    hand.executions.append(lost)
    hand.look(1.5)
    hand.waits(attempts=1, snoozes=1, due_at=at(1.6))
    hand.ran(1.6, 2, attempt=2, snoozes=1)


def snoozed_too_often(hand: Hand) -> None:
    for number in range(3):
        hand.snoozed(1 + number / 2, 1 + number)
    hand.ran(2.5, 4, snoozes=3)


def another_number_of_snoozes(hand: Hand) -> None:
    hand.snoozed(1, 1)
    hand.ran(1.5, 2, snoozes=2)


def another_number_of_snoozes_after_an_edit(hand: Hand) -> None:
    hand.snoozed(1, 1)
    edited_away(hand, snoozes=0)


def missed_after_a_snooze(hand: Hand) -> None:
    hand.snoozed(1, 1)
    hand.passed_over(1.5, 2, Status.MISSED, snoozes=1)


def put_off_for_longer(hand: Hand) -> None:
    hand.snoozed(1, 1, due_at=at(1.6))


def called_again_without_a_snooze(hand: Hand) -> None:
    hand.ended(1, 1, "interrupted")
    hand.ended(1, 2, "succeeded")


# -- further attempts


def attempted_before_the_handler_wants_it(hand: Hand) -> None:
    failed(hand, wait=2 * MINUTE, due=3)
    hand.waits(due_at=at(2.5))
    hand.ran(2.5, 2, attempt=2)


def attempted_later_than_the_handler_wants_it(hand: Hand) -> None:
    failed(hand, wait=HALF, due=2)
    hand.look(1)


def discarded_and_not_the_last(hand: Hand) -> None:
    claim = hand.ended(1, 1, "discarded")
    hand.settled(claim, hand.written(claim, 1, status=Status.FAILED, final=False))
    hand.look(1)


def discarded_and_attempted_again(hand: Hand) -> None:
    hand.ended(1, 1, "discarded")
    hand.ran(2, 2, attempt=2)


def discarded_and_written_as_a_success(hand: Hand) -> None:
    claim = hand.ended(1, 1, "discarded")
    hand.settled(claim, hand.written(claim, 1))


def discarded_and_not_written(hand: Hand) -> None:
    hand.ended(1, 1, "discarded")


WRONG: list[tuple[Callable[[Hand], None], str]] = [
    (snoozed_and_written_as_a_failure, "failed, but the handler snoozed"),
    (snoozed_and_written_as_a_success, "succeeded, but the handler snoozed"),
    (snoozed_and_forgotten, "was begun and has no final execution"),
    (called_before_its_snooze_is_over, "before its snooze was over"),
    (called_in_another_attempt, "starts attempt 2 after 0"),
    (a_snooze_that_nobody_counts, "after 1 snoozes, and 0 are counted"),
    (a_snooze_that_is_counted_though_it_was_lost, "after 0 snoozes, and 1 are counted"),
    (snoozed_too_often, "again, after more than 2 snoozes"),
    (another_number_of_snoozes, "counts 2 snoozes, not 1"),
    (another_number_of_snoozes_after_an_edit, "counts 0 snoozes, not 1"),
    (missed_after_a_snooze, "missed, though the handler was to be called again"),
    (put_off_for_longer, "waits until .*, and its handler asked for"),
    (called_again_without_a_snooze, "again, though attempt 1 at u:1 interrupted"),
    (attempted_before_the_handler_wants_it, "before its retry was due"),
    (attempted_later_than_the_handler_wants_it, "waits until .*, and its handler asked for"),
    (discarded_and_not_the_last, "must be the last"),
    (discarded_and_attempted_again, "again, though attempt 1 at u:1 discarded"),
    (discarded_and_written_as_a_success, "succeeded, but the handler discarded"),
    (discarded_and_not_written, "discarded, and has no execution"),
]


@pytest.mark.parametrize(
    ("history", "message"), WRONG, ids=lambda what: getattr(what, "__name__", "")
)
def test_a_wrong_history_is_refused(history: Callable[[Hand], None], message: str) -> None:
    with pytest.raises(Violation, match=message):
        judged(history)


# -- what is right


def failed(hand: Hand, *, wait: timedelta, due: float) -> None:
    """A first attempt failed; the next one is stored as due at that minute."""
    claim = hand.ended(1, 1, "failed", wait=wait)
    hand.executions.append(hand.written(claim, 1, status=Status.FAILED, final=False))
    hand.waits(attempts=1, failures=1, began_at=at(1), due_at=at(due))
    hand.look(1)


def edited_away(hand: Hand, *, snoozes: int) -> None:
    """A new schedule takes effect while an occurrence waits, and ends it."""
    before, new = hand.job, evolve(hand.job.spec, schedule=HALF_A_MINUTE)
    claim = hand.oracle.claims.holds["a", 1].claim
    end = hand.written(claim, 1.2, attempt=0, status=Status.SUPERSEDED, snoozes=snoozes)
    hand.goes_on(1.7)
    hand.job = evolve(hand.job, spec=new, anchor=at(1.2))
    hand.oracle.commands.redefined(before, hand.job, new, now=at(1.2))
    hand.executions.append(evolve(end, token=0, worker="", claimed_at=at(1.2)))
    hand.now = at(1.2)


def snoozed_and_called_again(hand: Hand) -> None:
    hand.snoozed(1, 1)
    hand.snoozed(1.5, 2)
    hand.ran(2, 3, snoozes=2)
    hand.ran(2, 4)


def snoozed_and_late(hand: Hand) -> None:
    hand.snoozed(1, 1)
    hand.ran(5, 2, snoozes=1)
    hand.goes_on(2, number=2)
    hand.ran(5, 3, coalesced=3, coalesced_until=at(5))


def one_snooze_too_many_is_a_failure(hand: Hand) -> None:
    hand.snoozed(1, 1)
    hand.snoozed(1.5, 2)
    claim = hand.ended(2, 3, "snoozed", wait=HALF)
    hand.executions.append(hand.written(claim, 2, status=Status.FAILED, final=False, snoozes=2))
    hand.waits(attempts=1, failures=1, due_at=at(2.5))
    hand.look(2)
    hand.ran(2.5, 4, attempt=2, snoozes=2)
    hand.ran(2.5, 5)


def edited_away_while_it_waits(hand: Hand) -> None:
    hand.snoozed(1, 1)
    edited_away(hand, snoozes=1)


def a_snooze_that_was_lost(hand: Hand) -> None:
    claim = hand.ended(1, 1, "snoozed", wait=HALF, settled=False)
    lost = hand.lost(claim, 1.5)
    hand.oracle.claims.lapsed([lost], at(1.5))
    hand.executions.append(lost)
    hand.look(1.5)
    hand.waits(attempts=1, due_at=at(1.6))
    hand.ran(1.6, 2, attempt=2)


def attempted_when_the_handler_wants_it(hand: Hand) -> None:
    failed(hand, wait=HALF, due=1.5)  # the policy would have it wait for a minute
    hand.ran(1.5, 2, attempt=2)


def discarded(hand: Hand) -> None:
    hand.ran(1, 1, how="discarded", status=Status.FAILED)


@pytest.mark.parametrize(
    "history",
    [
        snoozed_and_called_again,
        snoozed_and_late,
        one_snooze_too_many_is_a_failure,
        edited_away_while_it_waits,
        a_snooze_that_was_lost,
        attempted_when_the_handler_wants_it,
        discarded,
    ],
)
def test_its_innocent_twin_is_accepted(history: Callable[[Hand], None]) -> None:
    judged(history)


def test_what_was_put_off_is_not_judged_late_again() -> None:
    hand = Hand(evolve(SPEC, policy=Policy(misfire=Drop(timedelta(seconds=10)))))
    hand.snoozed(1, 1)
    hand.ran(1.5, 2, snoozes=1)
    hand.look()
