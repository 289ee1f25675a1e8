"""The oracle refuses hand-made histories, each wrong in one way, and says what is wrong."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from attrs import evolve

from sched_core import Claim, Drop, Execution, Interval, Job, JobEvent, JobSpec, Policy, Retry
from sched_core.job import Standing, State, Status
from sched_testkit.annals import Wrong
from sched_testkit.bench import START
from sched_testkit.oracle import Oracle

MINUTE = timedelta(seconds=60)
SPEC = JobSpec("a", Interval(seconds=60))
LEASE = timedelta(seconds=30)


def at(minutes: float) -> Any:
    return START + minutes * MINUTE


class Hand:
    """Writes a history by hand: one job, due every minute, and its ledger."""

    def __init__(self, spec: JobSpec = SPEC) -> None:
        self.oracle = Oracle()
        self.lines: list[Execution] = []
        self.revision = 1
        standing = Standing(State.ACTIVE, number=1, next_run=at(1), due_at=at(1))
        self.job = Job(spec, "u", False, START, standing, self.revision)
        self.oracle.added(self.job, spec, declared=False, now=START)

    def moved(self, **changes: Any) -> Job:
        """Return the job, stored anew with another standing."""
        self.revision += 1
        standing = evolve(self.job.standing, **changes)
        self.job = evolve(self.job, standing=standing, revision=self.revision)
        return self.job

    def claim(self, minutes: float, token: int) -> Claim:
        claim = Claim(self.job, token, "w", at(minutes), at(minutes) + LEASE)
        self.oracle.claimed(claim, at(minutes))
        return claim

    def call(self, claim: Claim, scheduled: float, minutes: float, attempt: int = 1) -> Any:
        number = claim.job.standing.number
        event = JobEvent(
            "a",
            claim.job.spec.schedule,
            at(scheduled),
            at(minutes),
            f"u:{number}",
            attempt=attempt,
            token=claim.token,
        )
        return self.oracle.called(event, at(minutes))

    def line(self, claim: Claim, scheduled: float, minutes: float, **changes: Any) -> Execution:
        attempt = changes.pop("attempt", 1)
        status = changes.pop("status", Status.SUCCEEDED)
        number = claim.job.standing.number
        line = Execution(
            f"u:{number}:{attempt}",
            "a",
            "u",
            number,
            at(scheduled),
            False,
            attempt,
            status,
            True,
            claim.token,
            "w",
            at(minutes),
            at(minutes) if attempt else None,
            at(minutes),
        )
        return evolve(line, **changes)

    def ran(self, scheduled: float, minutes: float, token: int, **changes: Any) -> Execution:
        """An occurrence was claimed, ran well, and was settled; the job stands at the next one."""
        claim = self.claim(minutes, token)
        how = changes.pop("how", "succeeded")
        call = self.call(claim, scheduled, minutes, changes.get("attempt", 1))
        self.oracle.ended(call, how, at(minutes))
        line = self.line(claim, scheduled, minutes, **changes)
        self.oracle.unclaimed(claim)
        self.lines.append(line)
        if line.final:
            following = line.folded_until or line.scheduled_at
            number = self.job.standing.number + 1
            self.moved(number=number, next_run=following + MINUTE, due_at=following + MINUTE)
        return line

    def look(self, minutes: float = 100, **options: Any) -> None:
        self.oracle.look(self.lines, [self.job], at(minutes), **options)


def test_a_right_history_is_accepted() -> None:
    hand = Hand()
    hand.ran(1, 1, 1)
    hand.ran(2, 4.5, 2, folded=2, folded_until=at(4))
    hand.ran(5, 5, 3)
    hand.look(5)
    hand.oracle.nothing_left(at(5), hand.oracle.seq)
    hand.lines.clear()
    hand.look(9, pruned=at(9))


def second_final_line(hand: Hand) -> None:
    line = hand.ran(1, 1, 1)
    hand.lines.append(evolve(line, id="u:1:0", attempt=0, status=Status.SUPERSEDED))


def missing_occurrence(hand: Hand) -> None:
    hand.moved(number=2, next_run=at(2), due_at=at(2))
    hand.ran(2, 2, 1)


def too_many_folded(hand: Hand) -> None:
    hand.ran(1, 4.5, 1, folded=4, folded_until=at(5))


def too_few_folded(hand: Hand) -> None:
    hand.ran(1, 4.5, 1)


def early_run(hand: Hand) -> None:
    hand.ran(1, 0.5, 1)


def invented_occurrence(hand: Hand) -> None:
    hand.moved(next_run=at(1.5))
    hand.ran(1.5, 1.7, 1)


def line_without_a_call(hand: Hand) -> None:
    hand.lines.append(hand.line(hand.claim(1, 1), 1, 1))


def call_without_a_line(hand: Hand) -> None:
    hand.ran(1, 1, 1)
    hand.lines.clear()


def success_written_as_failure(hand: Hand) -> None:
    hand.ran(1, 1, 1, status=Status.FAILED)


def vanished_line(hand: Hand) -> None:
    hand.ran(1, 1, 1)
    hand.look(1)
    hand.lines.clear()


def rewritten_line(hand: Hand) -> None:
    line = hand.ran(1, 1, 1)
    hand.look(1)
    hand.lines[0] = evolve(line, reason="another")


def pruned_too_little(hand: Hand) -> None:
    hand.ran(1, 1, 1)
    hand.look(2, pruned=at(2))


def reverted_edit(hand: Hand) -> None:
    new = evolve(SPEC, metadata={"k": "v"})
    edited = evolve(hand.job, spec=new, revision=2)
    hand.oracle.edited(edited, new, now=at(0.5))
    hand.job = evolve(hand.job, revision=3)


def resurrection(hand: Hand) -> None:
    hand.oracle.removed("a", at(0.5))


def vanished_job(hand: Hand) -> None:
    hand.oracle.look([], [], at(1))


def run_after_removal(hand: Hand) -> None:
    hand.oracle.removed("a", at(0.5))
    hand.claim(1, 1)


def token_going_back(hand: Hand) -> None:
    hand.ran(1, 1, 7)
    hand.ran(2, 2, 6)


def number_going_back(hand: Hand) -> None:
    hand.ran(1, 1, 1)
    hand.look(1)
    hand.moved(number=1)


def revision_going_back(hand: Hand) -> None:
    hand.job = evolve(hand.job, revision=0)


def two_at_a_time(hand: Hand) -> None:
    hand.claim(1, 1)
    hand.claim(1.2, 2)


def again_after_success(hand: Hand) -> None:
    hand.ran(1, 1, 1)
    hand.job = evolve(hand.job, standing=evolve(hand.job.standing, number=1), revision=9)
    hand.oracle.current["a"].job = hand.job
    hand.ran(1, 2, 2, attempt=2)


def attempt_left_out(hand: Hand) -> None:
    hand.ran(1, 1, 1, attempt=2)


def run_inside_a_pause(hand: Hand) -> None:
    paused = hand.moved(state=State.PAUSED, due_at=None)
    hand.oracle.paused(paused, None, at(0.5))
    hand.ran(1, 1, 1)


def paused_but_active(hand: Hand) -> None:
    hand.oracle.paused(hand.job, None, at(0.5))


def skipped_and_run(hand: Hand) -> None:
    hand.oracle.skipped(hand.moved(skipped_run=at(1)), at(0.5))
    hand.ran(1, 1, 1)


def wrong_occurrence_marked(hand: Hand) -> None:
    hand.oracle.skipped(hand.moved(skipped_run=at(2)), at(0.5))


def skipped_unasked(hand: Hand) -> None:
    claim = hand.claim(1, 1)
    hand.lines.append(hand.line(claim, 1, 1, attempt=0, status=Status.SKIPPED))


def missed_without_excuse(hand: Hand) -> None:
    claim = hand.claim(1, 1)
    hand.lines.append(hand.line(claim, 1, 1, attempt=0, status=Status.MISSED))


def trigger_nobody_asked_for(hand: Hand) -> None:
    claim = hand.claim(1, 1)
    fate = hand.line(claim, 0.5, 1, attempt=0, status=Status.SUPERSEDED, manual=True)
    hand.lines.append(fate)


def lost_trigger(hand: Hand) -> None:
    hand.oracle.triggered(hand.moved(triggered_at=at(0.5)), at(0.5))
    hand.look(0.6)
    hand.oracle.nothing_left(at(0.6), hand.oracle.seq + 1)


def left_undone(hand: Hand) -> None:
    hand.look(1)
    hand.oracle.nothing_left(at(1), hand.oracle.seq)


def edited_away_without_a_line(hand: Hand) -> None:
    new = evolve(SPEC, schedule=Interval(seconds=90))
    standing = evolve(hand.job.standing, number=2, next_run=at(3), due_at=at(3))
    hand.job = evolve(hand.job, spec=new, anchor=at(1.5), standing=standing, revision=2)
    hand.oracle.edited(hand.job, new, now=at(1.5))


def abandoned_too_soon(hand: Hand) -> None:
    claim = hand.claim(1, 1)
    lost = hand.line(claim, 1, 1.1, status=Status.ABANDONED, final=False, started_at=None)
    hand.lines.append(lost)


WRONG: list[tuple[Any, str]] = [
    (second_final_line, "second final line"),
    (missing_occurrence, "lie before it and have no line"),
    (too_many_folded, "folds 4, not 3"),
    (too_few_folded, "folds 0, not 3"),
    (early_run, "told that it began at"),
    (invented_occurrence, "has no occurrence there"),
    (line_without_a_call, "the handler was never called"),
    (call_without_a_line, "has no line"),
    (success_written_as_failure, "but the handler succeeded"),
    (vanished_line, "has vanished"),
    (rewritten_line, "was rewritten"),
    (pruned_too_little, "prune left lines"),
    (reverted_edit, "an edit was lost"),
    (resurrection, "is stored though it was removed"),
    (vanished_job, "has vanished"),
    (run_after_removal, "though it is gone"),
    (token_going_back, "the token 6, which is not higher"),
    (number_going_back, "its number went back"),
    (revision_going_back, "its revision went back"),
    (two_at_a_time, "to two at a time"),
    (again_after_success, "attempt 1 at u:1 succeeded"),
    (attempt_left_out, "attempts must go on with 1"),
    (run_inside_a_pause, "inside a pause"),
    (paused_but_active, "though it was paused"),
    (skipped_and_run, "was to be skipped"),
    (wrong_occurrence_marked, "skip_next marked"),
    (skipped_unasked, "nobody asked for that"),
    (missed_without_excuse, "does not excuse it"),
    (trigger_nobody_asked_for, "nobody triggered it"),
    (lost_trigger, "was triggered at .* and did not run"),
    (left_undone, "was left undone"),
    (edited_away_without_a_line, "has no final line"),
    (abandoned_too_soon, "before its lease ended"),
]


def told(history: Any, hand: Hand) -> None:
    history(hand)
    hand.look()


@pytest.mark.parametrize(
    ("history", "message"), WRONG, ids=lambda what: getattr(what, "__name__", "")
)
def test_a_wrong_history_is_refused(history: Any, message: str) -> None:
    hand = Hand()
    with pytest.raises(Wrong, match=message):
        told(history, hand)


def test_a_drop_policy_is_held_to_its_grace() -> None:
    hand = Hand(evolve(SPEC, policy=Policy(misfire=Drop(timedelta(seconds=10)))))
    hand.ran(1, 1.5, 1)
    with pytest.raises(Wrong, match="forbids it"):
        hand.look()


def test_retries_are_counted_and_wait() -> None:
    spec = evolve(SPEC, policy=Policy(retry=Retry(2, MINUTE / 2)))
    hand = Hand(spec)
    hand.ran(1, 1, 1, how="failed", status=Status.FAILED)
    with pytest.raises(Wrong, match="failure 1 of 2 must not be the last"):
        hand.look()

    hand = Hand(spec)
    hand.ran(1, 1, 1, how="failed", status=Status.FAILED, final=False)
    with pytest.raises(Wrong, match="before its retry was due"):
        hand.ran(1, 1.2, 2, attempt=2)

    hand = Hand(spec)
    hand.ran(1, 1, 1, how="failed", status=Status.FAILED, final=False)
    hand.ran(1, 1.5, 2, attempt=2, how="failed", status=Status.FAILED, final=False)
    with pytest.raises(Wrong, match="failure 2 of 2 must be the last"):
        hand.look()
