"""The judge refuses hand-made histories, each wrong in one way, and says what is wrong."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from itertools import accumulate
from typing import Any

import pytest
from attrs import evolve
from tests.testkit.hand import MINUTE, SPEC, Hand, at

from sched_core import (
    CatchUp,
    Drop,
    Interval,
    Job,
    JobEvent,
    Kind,
    Pause,
    Pending,
    Policy,
    Retry,
    Status,
)
from sched_testkit._oracle import executions
from sched_testkit._oracle.calls import ENDS, CallState
from sched_testkit._oracle.violation import Violation


def test_every_status_has_its_place_in_the_oracle() -> None:
    """A new one would end its judgement with a KeyError, or be judged as what never ran."""
    of_attempts, never_ran = set(ENDS), executions.NEVER_RAN
    assert not of_attempts & never_ran
    assert {*of_attempts, *never_ran, Status.ABANDONED, Status.SNOOZED} == set(Status)


def test_a_right_history_is_accepted() -> None:
    hand = Hand()
    hand.ran(1, 1)
    hand.ran(4.5, 2, coalesced=2, coalesced_until=at(4))
    hand.ran(5, 3)
    hand.look(5)
    hand.oracle.expect_nothing_left(at(5))
    hand.executions.clear()
    hand.look(9, pruned=at(9))
    hand.oracle.accounting.account(at(5))


# -- what has its end, and how often


def second_final_execution(hand: Hand) -> None:
    execution = hand.ran(1, 1)
    hand.executions.append(evolve(execution, id="u:1:0", attempt=0, status=Status.SUPERSEDED))


def missing_occurrence(hand: Hand) -> None:
    hand.goes_on(2)
    hand.ran(2, 1)


def invented_occurrence(hand: Hand) -> None:
    hand.ran(1, 1)
    hand.goes_on(1.5, number=2)
    hand.ran(1.7, 2)


def an_execution_under_another_name(hand: Hand) -> None:
    hand.ran(1, 1, id="u:7:1")


def an_execution_of_another_job(hand: Hand) -> None:
    hand.ran(1, 1, job_id="b")


def an_execution_of_no_job(hand: Hand) -> None:
    hand.ran(1, 1, uid="v")


def an_interrupted_end(hand: Hand) -> None:
    hand.ran(1, 1, how="interrupted", status=Status.INTERRUPTED)


def a_success_that_is_no_end(hand: Hand) -> None:
    hand.ran(1, 1, final=False)


def an_attempt_that_was_missed(hand: Hand) -> None:
    hand.ran(1, 1, status=Status.MISSED)


def a_success_without_an_attempt(hand: Hand) -> None:
    hand.passed_over(1, 1, Status.SUCCEEDED)


def pending_after_its_end(hand: Hand) -> None:
    hand.ran(1, 1)
    hand.goes_on(1, number=1)


def finished_without_an_end(hand: Hand) -> None:
    hand.moved(scheduled=None, due_at=None)


def left_undone(hand: Hand) -> None:
    hand.look(1)
    hand.oracle.expect_nothing_left(at(1))


def begun_and_left(hand: Hand) -> None:
    hand.ran(1, 1, how="interrupted", status=Status.INTERRUPTED, final=False)


# -- what it stands for


def stands_for_what_is_to_come(hand: Hand) -> None:
    hand.ran(4.5, 1, coalesced=4, coalesced_until=at(5))


def stands_for_too_few(hand: Hand) -> None:
    hand.ran(4.5, 1)


def stands_for_too_few_after_an_edit(hand: Hand) -> None:
    new, before = evolve(SPEC, policy=Policy(max_lost=7)), hand.job
    hand.job = evolve(hand.job, spec=new, revision=2)
    hand.oracle.commands.redefined(before, hand.job, new, now=at(0.5))
    hand.ran(4.5, 1, coalesced=2, coalesced_until=at(4))


def says_more_than_was_told(hand: Hand) -> None:
    claim = hand.claim(1, 1)
    hand.oracle.attempts.ended(hand.call(claim, 1), CallState.SUCCEEDED, at(1))
    more = hand.written(claim, 1, coalesced=1, coalesced_until=at(2))
    hand.settled(claim, more)


def stands_for_some_without_a_last(hand: Hand) -> None:
    hand.ran(1, 1)
    hand.executions[0] = evolve(hand.executions[0], coalesced=1)


# -- calls, and what is written of them


def early_claim(hand: Hand) -> None:
    hand.ran(0.5, 1)


def early_run(hand: Hand) -> None:
    hand.moved(scheduled=Pending(1, at(1), at(0.5)), due_at=at(0.5))
    hand.ran(0.5, 1)


def told_another_beginning(hand: Hand) -> None:
    claim = hand.claim(1, 1)
    event = JobEvent("a", SPEC.schedule, at(1), at(1), "u:1", token=claim.token)
    hand.oracle.attempts.called(event, at(1.2))


def told_another_key(hand: Hand) -> None:
    claim = hand.claim(1, 1)
    event = JobEvent("a", SPEC.schedule, at(1), at(1), "u:2", token=claim.token)
    hand.oracle.attempts.called(event, at(1))


def called_without_a_claim(hand: Hand) -> None:
    event = JobEvent("a", SPEC.schedule, at(1), at(1), "u:1", token=5)
    hand.oracle.attempts.called(event, at(1))


def execution_without_a_call(hand: Hand) -> None:
    claim = hand.claim(1, 1)
    hand.settled(claim, hand.written(claim, 1))


def call_without_an_execution(hand: Hand) -> None:
    hand.ran(1, 1)
    hand.executions.clear()


def another_start_than_the_calls(hand: Hand) -> None:
    hand.ran(1, 1, started_at=at(0.9))


def success_written_as_failure(hand: Hand) -> None:
    hand.ran(1, 1, status=Status.FAILED)


def again_after_success(hand: Hand) -> None:
    hand.ran(1, 1)
    hand.goes_on(1, number=1)
    hand.ran(2, 2, attempt=2)


def attempt_left_out(hand: Hand) -> None:
    hand.ran(1, 1, attempt=2)


def two_attempts_under_one_token(hand: Hand) -> None:
    for attempt in (1, 2):
        interrupted = {"how": "interrupted", "status": Status.INTERRUPTED, "final": False}
        hand.ran(attempt, attempt, attempt=attempt, **interrupted)
        hand.executions[-1] = evolve(hand.executions[-1], token=1)
        hand.look(attempt)


def two_runs_at_a_time(hand: Hand) -> None:
    hand.call(hand.claim(1, 1), 1)
    hand.oracle.claims.holds["a", 1].open = False
    hand.call(hand.claim(1.2, 2), 1.2, attempt=2)


# -- what is stored


def vanished_execution(hand: Hand) -> None:
    hand.ran(1, 1)
    hand.look(1)
    hand.executions.clear()


def rewritten_execution(hand: Hand) -> None:
    execution = hand.ran(1, 1)
    hand.look(1)
    hand.executions[0] = evolve(execution, reason="another")


def pruned_too_little(hand: Hand) -> None:
    hand.ran(1, 1)
    hand.look(2, pruned=at(2))


def reverted_edit(hand: Hand) -> None:
    new = evolve(SPEC, metadata={"k": "v"})
    edited = evolve(hand.job, spec=new, revision=2)
    hand.oracle.commands.redefined(hand.job, edited, new, now=at(0.5))
    hand.job = evolve(hand.job, revision=3)


def an_edit_that_moves_what_is_next(hand: Hand) -> None:
    before, new = hand.job, evolve(SPEC, metadata={"k": "v"})
    hand.goes_on(2, number=1)
    hand.oracle.commands.redefined(before, evolve(hand.job, spec=new), new, now=at(0.5))


def written_though_it_is_the_same(hand: Hand) -> None:
    hand.oracle.commands.redefined(hand.job, evolve(hand.job, revision=2), SPEC, now=at(0.5))


def resurrection(hand: Hand) -> None:
    hand.oracle.commands.removed(hand.job, at(0.5))


def vanished_job(hand: Hand) -> None:
    hand.oracle.read([], [], at(1))


def number_going_back(hand: Hand) -> None:
    hand.ran(1, 1)
    hand.look(1)
    hand.goes_on(1, number=1)


def revision_going_back(hand: Hand) -> None:
    hand.job = evolve(hand.job, revision=0)


def held_by_nobody(hand: Hand) -> None:
    hand.claim(1, 1)


def due_at_another_moment(hand: Hand) -> None:
    hand.moved(due_at=at(3))


# -- claims


def run_after_removal(hand: Hand) -> None:
    hand.oracle.commands.removed(hand.job, at(0.5))
    hand.claim(1, 1)


def token_going_back(hand: Hand) -> None:
    hand.ran(1, 7)
    hand.ran(2, 6)


def two_at_a_time(hand: Hand) -> None:
    hand.claim(1, 1)
    hand.claim(1.2, 2)


def abandoned_too_soon(hand: Hand) -> None:
    claim = hand.claim(1, 1)
    hand.executions.append(hand.lost(claim, 1.1))


def told_lost_too_soon(hand: Hand) -> None:
    claim = hand.claim(1, 1)
    hand.oracle.claims.lapsed([hand.lost(claim, 1.1)], at(1.1))


def told_lost_twice(hand: Hand) -> None:
    lost = hand.lost(hand.claim(1, 1), 1.5)
    hand.oracle.claims.lapsed([lost, lost], at(1.5))


def abandoned_by_nobody(hand: Hand) -> None:
    lost = hand.lost(hand.claim(1, 1), 1.5)
    hand.executions.append(evolve(lost, token=5))


def again_at_once_after_a_lost_claim(hand: Hand) -> None:
    lost = hand.lost(hand.claim(1, 1), 1.5)
    hand.oracle.claims.lapsed([lost], at(1.5))
    hand.call(hand.claim(1.5, 2), 1.5, attempt=2)


# -- pauses, marks and requests


def run_inside_a_pause(hand: Hand) -> None:
    active, paused = hand.job, hand.moved(pause=Pause(at(0.5), 1), due_at=None)
    hand.oracle.commands.paused(active, paused, None, at(0.5))
    hand.job = active
    hand.ran(1, 1)


def paused_but_active(hand: Hand) -> None:
    hand.oracle.commands.paused(hand.job, hand.job, None, at(0.5))


def paused_unasked(hand: Hand) -> None:
    hand.moved(pause=Pause(at(0.5), 1), due_at=None)


def skipped_and_run(hand: Hand) -> None:
    hand.oracle.commands.skipped(hand.moved(skip=at(1)), at(0.5))
    hand.ran(1, 1)


def wrong_occurrence_marked(hand: Hand) -> None:
    hand.oracle.commands.skipped(hand.moved(skip=at(2)), at(0.5))


def nothing_marked(hand: Hand) -> None:
    hand.oracle.commands.skipped(hand.job, at(0.5))


def skipped_unasked(hand: Hand) -> None:
    hand.passed_over(1, 1, Status.SKIPPED)


def skipped_before_its_moment(hand: Hand) -> None:
    hand.moved(scheduled=Pending(1, at(1), at(0.5)), due_at=at(0.5))
    hand.passed_over(0.5, 1, Status.SKIPPED)


def missed_without_excuse(hand: Hand) -> None:
    hand.passed_over(1, 1, Status.MISSED)


def superseded_without_an_edit(hand: Hand) -> None:
    hand.passed_over(1, 1, Status.SUPERSEDED)


def cancelled_unasked(hand: Hand) -> None:
    hand.passed_over(1, 1, Status.CANCELLED)


def requested(hand: Hand) -> Job:
    one = Pending(2, at(0.5), at(0.5), Kind.TRIGGERED, origin=2)
    return hand.moved(last_number=2, requests=(one,), due_at=at(0.5))


def trigger_nobody_asked_for(hand: Hand) -> None:
    requested(hand)
    hand.ran(0.5, 1)
    hand.moved(requests=(), due_at=at(1))


def trigger_of_another_incarnation(hand: Hand) -> None:
    hand.oracle.commands.triggered(hand.job, "v:2", hand.oracle.known.seq)


def lost_trigger(hand: Hand) -> None:
    hand.oracle.commands.triggered(hand.job, "u:2", hand.oracle.known.seq)


def a_trigger_that_the_schedule_answers(hand: Hand) -> None:
    hand.oracle.commands.triggered(hand.job, "u:2", hand.oracle.known.seq)
    hand.ran(1, 1)
    hand.ran(2, 2)


def a_trigger_that_had_begun_before(hand: Hand) -> None:
    requested(hand)
    hand.ran(0.5, 1)
    hand.moved(requests=(), due_at=at(1))
    hand.look(0.5)
    hand.oracle.commands.triggered(hand.job, "u:2", hand.oracle.known.seq)


def edited_away_without_an_end(hand: Hand) -> None:
    before, new = hand.job, evolve(SPEC, schedule=Interval(seconds=90))
    hand.goes_on(3)
    hand.job = evolve(hand.job, spec=new, anchor=at(1.5))
    hand.oracle.commands.redefined(before, hand.job, new, now=at(1.5))
    hand.now = at(1.5)


def removed_without_an_end(hand: Hand) -> None:
    hand.oracle.commands.removed(hand.job, at(1.5))
    hand.oracle.read([], [], at(1.5))
    hand.oracle.accounting.account(at(1.5))


WRONG: list[tuple[Callable[[Hand], None], str]] = [
    (second_final_execution, "after the final one"),
    (missing_occurrence, "0 own, 0 covering"),
    (invented_occurrence, "is no moment of its schedule"),
    (an_execution_under_another_name, "u:7:1 is of u:1:1"),
    (an_execution_of_another_job, "is of the job 'b', not 'a'"),
    (an_execution_of_no_job, "belongs to no job that ever was"),
    (an_interrupted_end, "interrupted, and final is True"),
    (a_success_that_is_no_end, "succeeded, and final is False"),
    (an_attempt_that_was_missed, "missed has the attempt 1"),
    (a_success_without_an_attempt, "succeeded has the attempt 0"),
    (pending_after_its_end, "is pending, and has its final execution"),
    (finished_without_an_end, "its schedule has no end"),
    (left_undone, "was left undone"),
    (begun_and_left, "was begun and has no final execution"),
    (stands_for_what_is_to_come, "covers moments until"),
    (stands_for_too_few, "covers 0 more until never, not 3"),
    (stands_for_too_few_after_an_edit, "says 2 until .*, not 3"),
    (says_more_than_was_told, "the handler was called for 0 until never"),
    (stands_for_some_without_a_last, "covers 1 until never"),
    (early_claim, "was handed out at .*, and is due"),
    (early_run, "makes it due at"),
    (told_another_beginning, "told that it began at"),
    (told_another_key, "with the key u:2, not u:1"),
    (called_without_a_claim, "without a claim of an occurrence"),
    (execution_without_a_call, "the handler was never called"),
    (call_without_an_execution, "has no execution"),
    (another_start_than_the_calls, "and the handler was called with"),
    (success_written_as_failure, "but the handler succeeded"),
    (again_after_success, "attempt 1 at u:1 succeeded"),
    (attempt_left_out, "starts attempt 2 after 0"),
    (two_attempts_under_one_token, "has the token 1, after 1"),
    (two_runs_at_a_time, "while attempt 1 at u:1 is running"),
    (vanished_execution, "has vanished"),
    (rewritten_execution, "was rewritten"),
    (pruned_too_little, "prune left executions"),
    (reverted_edit, "an edit was lost"),
    (an_edit_that_moves_what_is_next, "moved its standing"),
    (written_though_it_is_the_same, "was written though its definition is the same"),
    (resurrection, "is stored though it was removed"),
    (vanished_job, "has vanished"),
    (number_going_back, "its newest number went back"),
    (revision_going_back, "its revision or"),
    (held_by_nobody, "None is told to be held, and 1 is"),
    (due_at_another_moment, "is due .*, not"),
    (run_after_removal, "though it is gone"),
    (token_going_back, "the token 6, which is not higher"),
    (two_at_a_time, "was handed out, and w has it"),
    (abandoned_too_soon, "before its lease ended"),
    (told_lost_too_soon, "was lost before its lease ended"),
    (told_lost_twice, "tells of a claim that has ended already"),
    (abandoned_by_nobody, "which no claim of the job had"),
    (again_at_once_after_a_lost_claim, "starts at once after a lost claim"),
    (run_inside_a_pause, "inside a pause"),
    (paused_but_active, "though it was paused"),
    (paused_unasked, "is paused, and no command asked for it"),
    (skipped_and_run, "was to be skipped"),
    (wrong_occurrence_marked, "not what comes next"),
    (nothing_marked, "has marked nothing"),
    (skipped_unasked, "1 skipped, 0 asked for"),
    (skipped_before_its_moment, "before it was due"),
    (missed_without_excuse, "does not excuse it"),
    (superseded_without_an_edit, "and nothing was edited"),
    (cancelled_unasked, "cancelled; asked for were"),
    (trigger_nobody_asked_for, "2 runs, and no command asked for it"),
    (trigger_of_another_incarnation, "not of u"),
    (lost_trigger, "was asked for at .*, and has no end"),
    (a_trigger_that_the_schedule_answers, "its end is scheduled"),
    (a_trigger_that_had_begun_before, "had begun before it was asked for"),
    (edited_away_without_an_end, "0 own, 0 covering"),
    (removed_without_an_end, "0 own, 0 covering"),
]


def judged(hand: Hand) -> None:
    hand.look()
    hand.oracle.accounting.account(hand.now)


@pytest.mark.parametrize(
    ("history", "message"), WRONG, ids=lambda what: getattr(what, "__name__", "")
)
def test_a_wrong_history_is_refused(history: Callable[[Hand], None], message: str) -> None:
    hand = Hand()
    with pytest.raises(Violation, match=message):
        history(hand)
        judged(hand)


# -- policies


@pytest.mark.parametrize(
    ("misfire", "minutes"),
    [
        (Drop(timedelta(seconds=10)), 1.5),
        (CatchUp(2), 3.5),
        (CatchUp(9, 2 * MINUTE), 3.5),
    ],
    ids=str,
)
def test_a_policy_is_held_to_what_it_passes_over(misfire: Any, minutes: float) -> None:
    spec = evolve(SPEC, policy=Policy(misfire=misfire))
    with pytest.raises(Violation, match="forbids it"):
        Hand(spec).ran(minutes, 1)
    hand = Hand(spec)
    hand.passed_over(minutes, 1, Status.MISSED)
    hand.look()


@pytest.mark.parametrize("misfire", [Drop(MINUTE / 2), CatchUp(2), CatchUp(9, MINUTE / 2)], ids=str)
def test_a_policy_is_held_to_what_it_runs(misfire: Any) -> None:
    spec = evolve(SPEC, policy=Policy(misfire=misfire))
    hand = Hand(spec)
    hand.ran(1.5, 1)
    hand.look()
    hand = Hand(spec)
    hand.passed_over(1.5, 1, Status.MISSED)
    with pytest.raises(Violation, match="does not excuse it"):
        hand.look()


def test_what_is_caught_up_stands_for_itself() -> None:
    hand = Hand(evolve(SPEC, policy=Policy(misfire=CatchUp(9))))
    with pytest.raises(Violation, match=r"covers 1 more until .*, not 0 until never"):
        hand.ran(2.5, 1, coalesced=1, coalesced_until=at(2))


def test_retries_are_counted_and_wait() -> None:
    spec = evolve(SPEC, policy=Policy(retry=Retry(2, MINUTE / 2)))
    hand = Hand(spec)
    hand.ran(1, 1, how="failed", status=Status.FAILED)
    with pytest.raises(Violation, match="failure 1 of 2 must not be the last"):
        hand.look()

    hand = Hand(spec)
    hand.ran(1, 1, how="failed", status=Status.FAILED, final=False)
    hand.look(1)
    with pytest.raises(Violation, match="before its retry was due"):
        hand.ran(1.2, 2, attempt=2)

    hand = Hand(spec)
    hand.ran(1, 1, how="failed", status=Status.FAILED, final=False)
    hand.look(1)
    hand.ran(1.5, 2, attempt=2, how="failed", status=Status.FAILED, final=False)
    with pytest.raises(Violation, match="failure 2 of 2 must be the last"):
        hand.look()


def test_types_of_errors_end_an_occurrence_or_do_not() -> None:
    def fails(retry: Retry, raised: type[Exception], *, final: bool, reason: str = "no") -> None:
        hand = Hand(evolve(SPEC, policy=Policy(retry=retry)))
        claim = hand.claim(1, 1)
        hand.oracle.attempts.ended(hand.call(claim, 1), CallState.FAILED, at(1), raised)
        failed = hand.written(claim, 1, status=Status.FAILED, reason=reason)
        hand.settled(claim, evolve(failed, final=final))
        hand.look(1)

    never, only = Retry(3, never=(LookupError,)), Retry(3, only=(LookupError,))
    fails(never, KeyError, final=True)
    fails(only, KeyError, final=False)
    fails(never, ValueError, final=False)
    fails(only, ValueError, final=True)
    fails(Retry(3, only=(TimeoutError,)), KeyError, final=False, reason="timeout: cancelled")
    for retry, raised in ((never, KeyError), (only, ValueError)):
        with pytest.raises(Violation, match=r"failure 1 of 0 must be the last"):
            fails(retry, raised, final=False)
    for retry, raised in ((never, ValueError), (only, KeyError)):
        with pytest.raises(Violation, match=r"failure 1 of 3 must not be the last"):
            fails(retry, raised, final=True)


@pytest.mark.parametrize("failures", [1, 2, 3])
def test_delays_of_a_policy_are_waited_for(failures: int) -> None:
    waits = (0.5, 1.0, 1.0)
    spec = evolve(SPEC, policy=Policy(retry=Retry(4, delays=(MINUTE / 2, MINUTE))))
    moments = list(accumulate(waits[:failures], initial=1.0))

    def after_failures() -> Hand:
        hand = Hand(spec)
        for attempt, moment in enumerate(moments[:-1], start=1):
            failed = {"how": "failed", "status": Status.FAILED, "final": False}
            hand.ran(moment, attempt, attempt=attempt, **failed)
            hand.look(moment)
        return hand

    early = moments[-1] - 0.01
    with pytest.raises(Violation, match="before its retry was due"):
        after_failures().ran(early, 9, attempt=failures + 1)
    assert after_failures().ran(moments[-1], 9, attempt=failures + 1).final
