"""The machine finds what is wrong in the scheduler itself, and tells it as a story."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Any

import anyio
import pytest
from attrs import evolve
from tests.conformance.harnesses.memory import MemoryHarness
from tests.testkit.test_found_histories import (
    History,
    a_schedule_with_jitter,
    an_interruption_before_the_clock_was_set_back,
    judge,
    retries_that_all_fail,
    seconds,
    what_one_took_over_before_it_was_cut_off_is_attempted_again,
)

from sched_core import (
    Drop,
    Execution,
    Interval,
    Job,
    JobSpec,
    Pending,
    Policy,
    Retry,
    Standing,
    Status,
    row,
)
from sched_core._model.claim import Ended, Requested, Start
from sched_core._rules import begin, define, finish, operate, request, standing
from sched_core._runtime import completion, outcomes
from sched_core._runtime.leases import Deadlines
from sched_core._runtime.threads import HandlerThread
from sched_testkit._histories import driver as drivers
from sched_testkit._histories.driver import Driver
from sched_testkit._histories.handlers import HandlerAction, Planned
from sched_testkit._histories.machine import run_histories
from sched_testkit._oracle.violation import Violation

begins, finishes, lapses = begin.begin, finish.finish, row.lapse
lapses_in_store = row.Row.lapse
redefines, calls = define.redefine, HandlerThread.call
triggers, reruns, holds_back = request.trigger, request.rerun, standing.is_held_back
outcome, asked_for, judges_late = finish._outcome, outcomes._asked_for, begin._missed
MINUTELY = JobSpec("a", Interval(seconds=60))


# -- what is wrong


def stands_for_one_less(*arguments: Any, **options: Any) -> Any:
    start = begins(*arguments, **options)
    if not isinstance(start, Start) or not start.coalesced:
        return start
    return evolve(start, coalesced=start.coalesced - 1)


def changed(decision: Any, **changes: Any) -> Any:
    standing = decision.standing
    if standing is None or standing.scheduled is None:
        return decision
    one = evolve(standing.scheduled, **changes)
    return evolve(decision, standing=evolve(standing, scheduled=one))


def retries_forget_failures(*arguments: Any, **options: Any) -> Any:
    return changed(finishes(*arguments, **options), failures=0)


def interruptions_forget_the_attempt(*arguments: Any, **options: Any) -> Any:
    decision = finishes(*arguments, **options)
    interrupted = any(each.status is Status.INTERRUPTED for each in decision.executions)
    return changed(decision, attempts=0) if interrupted else decision


def pauses_are_ignored(job: Job, **options: Any) -> Job:
    return job


def marks_are_ignored(job: Job, **options: Any) -> Job:
    return job


def triggers_are_lost(job: Job, **options: Any) -> Requested:
    return Requested(job, job.standing.last_number)


def edits_move_the_schedule(job: Job, spec: Any, **options: Any) -> Any:
    change = redefines(job, spec, **options)
    if change is None or change.job.standing.scheduled is None:
        return change
    one = change.job.standing.scheduled
    later = one.scheduled_at + timedelta(seconds=1)
    moved = evolve(one, scheduled_at=later, due_at=later)
    standing = evolve(change.job.standing, scheduled=moved, due_at=later)
    return evolve(change, job=evolve(change.job, standing=standing))


def removals_write_nothing(job: Job, **options: Any) -> tuple[()]:
    return ()


def retries_do_not_wait(*arguments: Any) -> timedelta:
    return timedelta(0)


def types_of_errors_do_not_matter(*arguments: Any) -> bool:
    return True


def no_error_is_retried(*arguments: Any) -> bool:
    return False


def the_lost_do_not_wait(job: Job, hold: Any, *, now: Any) -> Any:
    after, executions = lapses(job, hold, now=now)
    standing: Standing | None = None if after is None else after.standing
    if after is None or standing is None or standing.scheduled is None:
        return after, executions
    one = evolve(standing.scheduled, due_at=now)
    return evolve(after, standing=evolve(standing, scheduled=one, due_at=now)), executions


class Forgetful:
    """A history that keeps nothing."""

    def stored(self, execution_id: str) -> None:
        return None

    def append(self, execution: Execution) -> None:
        pass


def a_lost_attempt_is_told_and_not_written(self: row.Row, now: Any, revision: int, to: Any) -> Any:
    return lapses_in_store(self, now, revision, Forgetful())


def attempts_jump(*arguments: Any, **options: Any) -> Any:
    start = begins(*arguments, **options)
    if not isinstance(start, Start) or start.attempt == 1:
        return start
    return evolve(start, attempt=start.attempt + 1)


def first_attempts_are_second_ones(*arguments: Any, **options: Any) -> Any:
    start = begins(*arguments, **options)
    return evolve(start, attempt=2) if isinstance(start, Start) else start


def nothing_is_told_to_be_held(job: Job, hold: Any) -> Job:
    return job


def no_jitter(job: Job, number: int, moment: Any) -> Any:
    return Pending(number, moment, moment)


def snoozes_are_failures(error: BaseException) -> Ended | None:
    ended = asked_for(error)
    is_snooze = ended is not None and ended.status is Status.SNOOZED
    return Ended(Status.FAILED, "later") if is_snooze else ended


def snoozes_use_up_the_attempt(*arguments: Any, **options: Any) -> Any:
    decision = finishes(*arguments, **options)
    return changed(decision, attempts=1) if not decision.executions else decision


def snoozes_are_not_counted(*arguments: Any, **options: Any) -> Any:
    return changed(finishes(*arguments, **options), snoozes=0)


def snoozes_without_bound(job: Any, one: Any, start: Any, ended: Any, policy: Any) -> Any:
    return outcome(job, one, start, ended, evolve(policy, max_snoozes=1_000_000))


def snoozed_and_forgotten(*arguments: Any, **options: Any) -> Any:
    """The next occurrence takes the place of the one that was put off."""
    decision = finishes(*arguments, **options)
    found: Standing | None = decision.standing
    one = None if found is None else found.scheduled
    if decision.executions or found is None or one is None:
        return decision
    moment = one.scheduled_at + seconds(60)
    found = evolve(
        found,
        last_number=one.number + 1,
        scheduled=Pending(one.number + 1, moment, moment),
        due_at=moment,
    )
    return evolve(decision, standing=found)


def what_was_put_off_is_late(claim: Any, one: Pending, now: Any) -> Any:
    decision = judges_late(claim, evolve(one, failures=0, snoozes=0), now)
    ends = () if decision is None else decision.executions
    return decision and evolve(
        decision, executions=tuple(evolve(each, snoozes=one.snoozes) for each in ends)
    )


def what_is_discarded_is_retried(error: BaseException) -> Ended | None:
    ended = asked_for(error)
    return ended and evolve(ended, retry=True)


def the_policy_says_when(error: BaseException) -> Ended | None:
    ended = asked_for(error)
    is_failure = ended is not None and ended.status is Status.FAILED
    return ended and (evolve(ended, delay=None) if is_failure else ended)


def no_more_attempts_than_asked_for(error: BaseException) -> Ended | None:
    """What asks for another attempt is put off, so that its policy does not bound it."""
    ended = asked_for(error)
    return Ended(Status.SNOOZED, delay=ended.delay) if ended and ended.delay else ended


def cancels_are_ignored(job: Job, **options: Any) -> Job:
    return job


def marks_do_not_end_a_run(job: Any, *arguments: Any) -> Any:
    return outcome(None, *arguments)


def a_pause_holds_what_is_cancelled(standing: Standing, one: Pending) -> bool:
    return holds_back(evolve(standing, cancels=()), one)


def nothing_is_hurried(job: Job, **options: Any) -> Job:
    return job


def names_are_forgotten(job: Job, *, key: Any, **options: Any) -> Requested:
    return triggers(job, key=None, **options)


def arguments_are_lost(job: Job, *, args: Any, **options: Any) -> Requested:
    return triggers(job, args=None, **options)


def reruns_are_of_now(job: Job, moment: Any, *, now: Any, **options: Any) -> Requested:
    return reruns(job, now, now=now, **options)


def a_backfill_is_its_first_moment(*arguments: Any) -> tuple[()]:
    return ()


# -- the histories that show it


async def a_late_run(driver: Driver) -> None:
    await driver.commands.submit(0, MINUTELY, declared=False)
    await driver.stage.advance(seconds(330))
    await driver.run(0)


async def a_pause(driver: Driver) -> None:
    await driver.commands.submit(0, MINUTELY, declared=False)
    await driver.commands.pause(0, "a", None)


async def a_skip(driver: Driver) -> None:
    await driver.commands.submit(0, MINUTELY, declared=False)
    await driver.commands.operate(0, "skip the next of", "a")


async def a_trigger(driver: Driver) -> None:
    await driver.commands.submit(0, MINUTELY, declared=False)
    await driver.commands.operate(0, "trigger", "a")


async def an_edit_of_metadata(driver: Driver) -> None:
    await driver.commands.submit(0, MINUTELY, declared=False)
    await driver.commands.update(0, "a", metadata={"text": "x"})
    await driver.stage.advance(seconds(70))
    await driver.run(0)


async def a_removal_of_what_is_due(driver: Driver) -> None:
    await driver.commands.submit(0, MINUTELY, declared=False)
    await driver.stage.advance(seconds(61))
    await driver.commands.remove(0, "a")


async def a_failure(driver: Driver) -> None:
    policy = Policy(retry=Retry(3, seconds(20)))
    await driver.commands.submit(0, evolve(MINUTELY, policy=policy), declared=False)
    await driver.stage.advance(seconds(60))
    await driver.run(0, [HandlerAction("nothing", ends="fails")])


async def a_failure_after_which_no_attempt_follows(driver: Driver) -> None:
    policy = Policy(retry=Retry(3, seconds(20), never=(Planned,)))
    await driver.commands.submit(0, evolve(MINUTELY, policy=policy), declared=False)
    await driver.stage.advance(seconds(60))
    await driver.run(0, [HandlerAction("nothing", ends="fails")])


async def a_failure_of_the_only_type(driver: Driver) -> None:
    policy = Policy(retry=Retry(delays=(seconds(20), seconds(5)), only=(Planned,)))
    await driver.commands.submit(0, evolve(MINUTELY, policy=policy), declared=False)
    await driver.stage.advance(seconds(60))
    await driver.run(0, [HandlerAction("nothing", ends="fails")])


async def a_crash(driver: Driver) -> None:
    await driver.commands.submit(0, MINUTELY, declared=False)
    await driver.stage.advance(seconds(60))
    await driver.mishap(0, "die")
    await driver.stage.advance(seconds(31))
    await driver.run(1)


async def a_slow_run(driver: Driver) -> None:
    await driver.commands.submit(0, MINUTELY, declared=False)
    await driver.stage.advance(seconds(60))
    await driver.mishap(0, "slow")


ASKING = Policy(misfire=Drop(seconds(30)), retry=Retry(2, seconds(100)), max_snoozes=1)


async def asks(driver: Driver, *acts: HandlerAction) -> None:
    """A handler ends as it is told, each time that it is called."""
    await driver.commands.submit(0, evolve(MINUTELY, policy=ASKING), declared=False)
    await driver.stage.advance(seconds(60))
    for act in acts:
        await driver.run(0, [act])
        await driver.stage.advance(seconds(act.after))


async def a_snooze(driver: Driver) -> None:
    await asks(driver, HandlerAction(ends="snoozes", after=40), HandlerAction())


async def snoozes(driver: Driver) -> None:
    await asks(driver, *[HandlerAction(ends="snoozes", after=10)] * 3)


async def a_wish_for_another_attempt(driver: Driver) -> None:
    await asks(driver, HandlerAction(ends="asks for another attempt", after=10), HandlerAction())


async def a_discard(driver: Driver) -> None:
    await asks(driver, HandlerAction(ends="discards"))


async def a_cancel(driver: Driver) -> None:
    await driver.commands.submit(0, MINUTELY, declared=False)
    await driver.commands.cancel(0, "a", "schedule")
    await driver.stage.advance(seconds(60))
    await driver.run(0)


async def a_cancel_inside_a_pause(driver: Driver) -> None:
    await driver.commands.submit(0, MINUTELY, declared=False)
    await driver.commands.pause(0, "a", None)
    await driver.commands.cancel(0, "a", "schedule")
    await driver.run(0)


async def a_cancel_of_a_run_that_fails(driver: Driver) -> None:
    policy = Policy(retry=Retry(3, seconds(20)))
    await driver.commands.submit(0, evolve(MINUTELY, policy=policy), declared=False)
    await driver.stage.advance(seconds(60))
    await driver.run(0, [HandlerAction("be cancelled", ends="fails")])


async def a_retry_at_once(driver: Driver) -> None:
    await a_failure(driver)
    await driver.commands.hurry(0, "a")
    await driver.run(0)


async def a_trigger_by_name(driver: Driver) -> None:
    await driver.commands.submit(0, MINUTELY, declared=False)
    await driver.commands.trigger(0, "a", {"n": "1"}, "x")
    await driver.commands.trigger(1, "a", {"n": "2"}, "x")
    await driver.run(0)


async def a_rerun(driver: Driver) -> None:
    await driver.commands.submit(0, MINUTELY, declared=False)
    await driver.stage.advance(seconds(60))
    await driver.run(0)
    await driver.stage.advance(seconds(5))
    await driver.commands.rerun(0, "a", 0)
    await driver.run(0)


async def a_backfill(driver: Driver) -> None:
    await driver.commands.submit(0, MINUTELY, declared=False)
    await driver.stage.advance(seconds(150))
    await driver.run(0)
    await driver.commands.backfill(0, "a", seconds(400))
    await driver.run(0)


@pytest.mark.parametrize(
    ("place", "name", "mutant", "history", "message"),
    [
        (operate, "cancel", cancels_are_ignored, a_cancel, "starts though it was cancelled"),
        (
            finish,
            "_outcome",
            marks_do_not_end_a_run,
            a_cancel_of_a_run_that_fails,
            "had been cancelled",
        ),
        (
            standing,
            "is_held_back",
            a_pause_holds_what_is_cancelled,
            a_cancel_inside_a_pause,
            "is due never",
        ),
        (operate, "retry_now", nothing_is_hurried, a_retry_at_once, "to be retried now, and waits"),
        (request, "trigger", names_are_forgotten, a_trigger_by_name, "is the same and has not"),
        (request, "trigger", arguments_are_lost, a_trigger_by_name, "got None, not"),
        (request, "rerun", reruns_are_of_now, a_rerun, "repeats .*, and asked for was"),
        (finish, "_next_of_backfill", a_backfill_is_its_first_moment, a_backfill, "0 executions"),
        (outcomes, "_asked_for", snoozes_are_failures, a_snooze, "but the handler snoozed"),
        (completion, "finish", snoozes_use_up_the_attempt, a_snooze, "starts attempt 2 after 0"),
        (completion, "finish", snoozes_are_not_counted, snoozes, "and 0 are counted"),
        (completion, "finish", snoozed_and_forgotten, a_snooze, "has no final execution"),
        (finish, "_outcome", snoozes_without_bound, snoozes, "after more than 1 snoozes"),
        (begin, "_missed", what_was_put_off_is_late, a_snooze, "was to be called again"),
        (outcomes, "_asked_for", what_is_discarded_is_retried, a_discard, "must be the last"),
        (outcomes, "_asked_for", the_policy_says_when, a_wish_for_another_attempt, "asked for"),
        (
            outcomes,
            "_asked_for",
            no_more_attempts_than_asked_for,
            a_wish_for_another_attempt,
            "failed, and has no execution",
        ),
        (completion, "begin", stands_for_one_less, a_late_run, "covers 3 more"),
        (completion, "finish", retries_forget_failures, retries_that_all_fail, "must be the last"),
        (
            completion,
            "finish",
            interruptions_forget_the_attempt,
            an_interruption_before_the_clock_was_set_back,
            "starts attempt|after 1 attempts",
        ),
        (operate, "pause", pauses_are_ignored, a_pause, "though it was paused"),
        (operate, "skip_next", marks_are_ignored, a_skip, "has marked nothing"),
        (request, "trigger", triggers_are_lost, a_trigger, "has no end|its end is scheduled"),
        (define, "redefine", edits_move_the_schedule, an_edit_of_metadata, "moved its standing"),
        (define, "final_executions", removals_write_nothing, a_removal_of_what_is_due, "0 own"),
        (finish, "backoff", retries_do_not_wait, a_failure, "before its retry was due"),
        (finish, "backoff", retries_do_not_wait, a_failure_of_the_only_type, "before its retry"),
        (
            finish,
            "retried",
            types_of_errors_do_not_matter,
            a_failure_after_which_no_attempt_follows,
            "failure 1 of 0 must be the last",
        ),
        (
            finish,
            "retried",
            no_error_is_retried,
            a_failure_of_the_only_type,
            "failure 1 of 3 must not be the last",
        ),
        (row, "lapse", the_lost_do_not_wait, a_crash, "starts at once after a lost claim"),
        (
            row.Row,
            "lapse",
            a_lost_attempt_is_told_and_not_written,
            what_one_took_over_before_it_was_cut_off_is_attempted_again,
            "starts attempt 2 after 0",
        ),
        (
            completion,
            "begin",
            attempts_jump,
            what_one_took_over_before_it_was_cut_off_is_attempted_again,
            "starts attempt 3 after 1",
        ),
        (
            completion,
            "begin",
            first_attempts_are_second_ones,
            a_late_run,
            "starts attempt 2 after 0",
        ),
        (row, "with_hold", nothing_is_told_to_be_held, a_slow_run, "None is told to be held"),
        (define, "scheduled", no_jitter, a_schedule_with_jitter, "its jitter makes it due"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_history_kills_the_mutant(
    place: Any,
    name: str,
    mutant: Any,
    history: History,
    message: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    anyio.run(judge, history, MemoryHarness())
    monkeypatch.setattr(place, name, mutant)
    with pytest.raises(Violation, match=message):
        anyio.run(judge, history, MemoryHarness())


def test_the_machine_kills_a_mutant(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(operate, "pause", pauses_are_ignored)
    with pytest.raises(Violation, match="though it was paused"):
        run_histories(MemoryHarness(), examples=5_000, steps=30, shrink=False)


async def fails_in_silence(self: HandlerThread, *arguments: Any) -> Any:
    try:
        return await calls(self, *arguments)
    except Exception:
        return None


@pytest.mark.deep
def test_the_machine_runs_plain_functions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(HandlerThread, "call", fails_in_silence)
    with pytest.raises(Violation, match="but the handler failed"):
        run_histories(MemoryHarness(), examples=5_000, steps=30, shrink=False)


@pytest.mark.parametrize("kind", ["timed out", "deaf"])
def test_a_timeout_that_never_comes_is_told(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async def a_run_past_its_timeout(driver: Driver) -> None:
        policy = Policy(timeout=seconds(25))
        await driver.commands.submit(0, evolve(MINUTELY, policy=policy), declared=False)
        await driver.stage.advance(seconds(60))
        await driver.mishap(0, kind)

    anyio.run(judge, a_run_past_its_timeout, MemoryHarness())
    monkeypatch.setattr(Deadlines, "add", lambda *arguments: None)
    monkeypatch.setattr(drivers, "PATIENCE", 1)
    with pytest.raises(Violation, match=f"nothing happens, though it is {kind}"):
        anyio.run(judge, a_run_past_its_timeout, MemoryHarness())


@pytest.mark.deep  # it takes some hundred histories until one has a timeout
def test_the_machine_lets_time_run_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Deadlines, "add", lambda *arguments: None)
    monkeypatch.setattr(drivers, "PATIENCE", 1)
    with pytest.raises(Violation, match=r"nothing happens, though it is (timed out|deaf)"):
        run_histories(MemoryHarness(), examples=5_000, steps=30, shrink=False)


def test_a_wrong_history_is_told_step_by_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(operate, "pause", pauses_are_ignored)
    with pytest.raises(Violation, match="though it was paused") as caught:
        run_histories(MemoryHarness(), examples=300, steps=10)
    story = next(note for note in caught.value.__notes__ if "What happened" in note)
    header, *lines = story.strip().splitlines()
    assert header == "What happened:"
    assert lines[0] == "  1. at +0 s: submit job 'a' every 60 s"
    assert [line.split(".")[0].strip() for line in lines] == [
        str(number) for number in range(1, len(lines) + 1)
    ]
    assert re.fullmatch(r" +\d+\. at \+\d+ s: pause.*", lines[-1])
    assert len(lines) <= 3
