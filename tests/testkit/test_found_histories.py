"""Histories that the machine found to go wrong, shrunk; each stays an example for ever."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import timedelta

import anyio
import pytest
from attrs import evolve
from tests.conformance.harnesses.memory import MemoryHarness
from tests.conformance.harnesses.sqlite import SqliteHarness

from sched_core import CatchUp, FixedDelay, Interval, JobSpec, Once, Policy, Retry
from sched_testkit import Harness
from sched_testkit._histories.driver import Driver
from sched_testkit._histories.handlers import HandlerAction
from sched_testkit._suite.failure import innermost
from sched_testkit._suite.port import fresh

MINUTELY = JobSpec("a", Interval(seconds=60))
HOURLY = JobSpec("a", Interval(hours=1))

History = Callable[[Driver], Awaitable[None]]


def seconds(number: float) -> timedelta:
    return timedelta(seconds=number)


async def a_trigger_of_a_waiting_retry_after_the_clock_was_set_back(driver: Driver) -> None:
    """Its moment lies ahead again, and it has run all the same: the retry is made at once."""
    policy = Policy(retry=Retry(3, seconds(20)))
    await driver.commands.submit(
        0, JobSpec("a", Interval(seconds=60), policy=policy), declared=False
    )
    await driver.stage.advance(seconds(60))
    await driver.run(0, [HandlerAction("nothing", ends="fails")])
    await driver.stage.set_back(seconds(1))
    await driver.commands.operate(0, "trigger", "a")
    await driver.stage.advance(seconds(1))
    await driver.run(0)


async def a_trigger_and_an_edit_after_a_lost_claim_that_was_to_end_a_pause(driver: Driver) -> None:
    """The trigger comes behind the occurrence that became due when the pause had ended."""
    await driver.commands.submit(0, MINUTELY, declared=False)
    await driver.stage.advance(seconds(31))
    await driver.commands.pause(0, "a", seconds(20))
    await driver.stage.advance(seconds(29))
    await driver.mishap(0, "claimed")
    await driver.commands.operate(0, "trigger", "a")
    await driver.commands.update(0, "a", schedule=Interval(seconds=45))
    await driver.stage.advance(seconds(31))
    await driver.run(0)


async def a_pause_that_covers_what_had_begun_before_the_clock_was_set_back(driver: Driver) -> None:
    """It began before the pause, which covers its moment only since the clock was set."""
    await driver.commands.submit(0, MINUTELY, declared=False)
    await driver.stage.advance(seconds(60))
    await driver.mishap(0, "die")
    await driver.stage.set_back(seconds(1))
    await driver.commands.ensure(0, JobSpec("a", Interval(seconds=45)))
    await driver.commands.pause(0, "a", seconds(20))
    await driver.stage.advance(seconds(31))
    await driver.mishap(0, "die")


async def a_jitter_that_comes_during_a_pause(driver: Driver) -> None:
    """What was due when the pause began stays owed, whatever jitter is given to it later."""
    await driver.commands.submit(0, MINUTELY, declared=False)
    await driver.stage.advance(seconds(60))
    await driver.commands.pause(0, "a", seconds(20))
    await driver.commands.update(0, "a", policy=Policy(jitter=seconds(7)))
    await driver.stage.advance(seconds(29))
    await driver.run(0)


async def a_trigger_that_lies_ahead_again_and_a_pause(driver: Driver) -> None:
    """The trigger does not wait for its moment to come a second time, nor does the pause's end."""
    await driver.commands.submit(0, MINUTELY, declared=False)
    await driver.commands.operate(0, "trigger", "a")
    await driver.stage.set_back(seconds(31))
    await driver.commands.pause(0, "a", seconds(20))
    await driver.stage.advance(seconds(29))
    await driver.run(0)


async def a_pause_while_a_retry_of_a_trigger_waits(driver: Driver) -> None:
    """It goes on waiting, and is not stopped by the pause."""
    policy = Policy(retry=Retry(3, seconds(20)))
    await driver.commands.submit(
        0, JobSpec("a", Interval(seconds=60), policy=policy), declared=False
    )
    await driver.commands.operate(0, "trigger", "a")
    await driver.stage.advance(seconds(1))
    await driver.run(0, [HandlerAction("nothing", ends="fails")])
    await driver.commands.pause(0, "a", None)
    await driver.stage.advance(seconds(1))
    await driver.run(0)
    await driver.stage.advance(seconds(19))
    await driver.run(0)


async def an_occurrence_before_a_trigger_that_lies_ahead_again_and_a_pause(driver: Driver) -> None:
    """What the trigger waits behind runs inside the pause, whatever the clock says of both."""
    await driver.commands.submit(0, MINUTELY, declared=False)
    await driver.stage.advance(seconds(100))
    await driver.commands.operate(0, "trigger", "a")
    await driver.stage.set_back(seconds(31))
    await driver.commands.pause(0, "a", None)
    await driver.stage.advance(seconds(1))
    await driver.run(0)


async def an_edit_ends_a_trigger_that_is_retried_and_lost(driver: Driver) -> None:
    """Its line comes with the takeover; nothing of it is owed before."""
    policy = Policy(retry=Retry(3, seconds(20)))
    await driver.commands.submit(
        0, JobSpec("a", Interval(seconds=60), policy=policy), declared=False
    )
    await driver.commands.operate(0, "trigger", "a")
    await driver.stage.advance(seconds(8))
    await driver.run(0, [HandlerAction("nothing", ends="fails")])
    await driver.commands.operate(0, "trigger", "a")
    await driver.stage.advance(seconds(1))
    await driver.mishap(0, "claimed")
    await driver.commands.update(0, "a", schedule=Interval(seconds=45))
    await driver.stage.advance(seconds(30))
    await driver.run(0)
    await driver.stage.advance(seconds(60))
    await driver.run(0)


async def a_pause_hurries_a_retry_after_the_clock_was_set_back(driver: Driver) -> None:
    """The end of a pause ends the wait for a retry, though the failure lies ahead again."""
    policy = Policy(retry=Retry(3, seconds(20)))
    await driver.commands.submit(
        0, JobSpec("a", Interval(seconds=60), policy=policy), declared=False
    )
    await driver.stage.advance(seconds(100))
    await driver.run(0, [HandlerAction("nothing", ends="fails")])
    await driver.stage.set_back(seconds(31))
    await driver.commands.pause(0, "a", seconds(20))
    await driver.stage.advance(seconds(29))
    await driver.run(0)


async def an_edit_after_a_pause_that_ended_by_itself(driver: Driver) -> None:
    """An occurrence after the end of the pause was due, and is edited away: it has its line."""
    await driver.commands.submit(0, MINUTELY, declared=False)
    await driver.commands.pause(0, "a", seconds(20))
    await driver.stage.advance(seconds(60))
    await driver.commands.update(0, "a", schedule=Interval(seconds=45))


async def a_removal_after_a_pause_that_ended_by_itself(driver: Driver) -> None:
    await driver.commands.submit(0, MINUTELY, declared=False)
    await driver.commands.pause(0, "a", seconds(20))
    await driver.stage.advance(seconds(60))
    await driver.commands.remove(0, "a")


async def a_late_resume_of_a_pause_that_ended_by_itself(driver: Driver) -> None:
    """What was due between the end of the pause and the call of resume still runs."""
    await driver.commands.submit(0, MINUTELY, declared=False)
    await driver.commands.pause(0, "a", seconds(20))
    await driver.stage.advance(seconds(130))
    await driver.commands.operate(0, "resume", "a")
    await driver.run(0)


async def a_resume_before_the_next_occurrence(driver: Driver) -> None:
    """It is due when its moment comes, not when the pause ends."""
    await driver.commands.submit(0, MINUTELY, declared=False)
    await driver.stage.advance(seconds(20))
    await driver.commands.pause(0, "a", seconds(600))
    await driver.stage.advance(seconds(10))
    await driver.commands.operate(0, "resume", "a")
    await driver.run(0)
    await driver.stage.advance(seconds(30))
    await driver.run(0)


async def a_second_pause_after_one_that_ended_by_itself(driver: Driver) -> None:
    """What was due between the two pauses runs late, and is not forgotten."""
    await driver.commands.submit(0, MINUTELY, declared=False)
    await driver.commands.pause(0, "a", seconds(20))
    await driver.stage.advance(seconds(130))
    await driver.commands.pause(0, "a", None)
    await driver.stage.advance(seconds(100))
    await driver.commands.operate(0, "resume", "a")
    await driver.run(0)


async def a_pause_with_a_backlog(driver: Driver) -> None:
    """All that was due before the pause is one late occurrence after it."""
    await driver.commands.submit(0, MINUTELY, declared=False)
    await driver.stage.advance(seconds(200))
    await driver.commands.pause(0, "a", None)
    await driver.stage.advance(seconds(100))
    await driver.commands.operate(0, "resume", "a")
    await driver.stage.advance(seconds(100))
    await driver.run(0)


async def a_skip_outlives_a_lost_claim(driver: Driver) -> None:
    """A worker dies before it wrote that the occurrence is skipped: the next one skips it."""
    await driver.commands.submit(0, MINUTELY, declared=False)
    await driver.commands.operate(0, "skip the next of", "a")
    await driver.stage.advance(seconds(60))
    await driver.mishap(0, "claimed")
    await driver.stage.advance(seconds(31))
    await driver.run(0)


async def a_lost_claim_at_the_end_of_a_pause_begins_nothing(driver: Driver) -> None:
    """The claim that ends a pause is lost: the next occurrence is as early as it ever was."""
    await driver.commands.submit(0, HOURLY, declared=False)
    await driver.commands.pause(0, "a", seconds(20))
    await driver.stage.advance(seconds(29))
    await driver.mishap(0, "claimed")
    await driver.stage.advance(seconds(31))
    await driver.run(0)


async def a_trigger_during_a_manual_run_and_then_a_removal(driver: Driver) -> None:
    """The second trigger's moment lies a microsecond ahead; its line is written all the same."""
    await driver.commands.submit(0, MINUTELY, declared=False)
    await driver.stage.advance(seconds(61))
    await driver.run(0, [HandlerAction("trigger"), HandlerAction("trigger")])
    await driver.commands.remove(0, "a")


async def an_edit_while_claims_of_a_trigger_are_lost(driver: Driver) -> None:
    """The trigger runs once, under the number that the edit gave it."""
    await driver.commands.submit(0, MINUTELY, declared=False)
    await driver.commands.operate(0, "trigger", "a")
    await driver.stage.advance(seconds(1))
    await driver.mishap(0, "claimed")
    await driver.stage.advance(seconds(63))
    await driver.mishap(0, "claimed")
    await driver.commands.ensure(0, JobSpec("a", Interval(seconds=45)))
    await driver.stage.advance(seconds(31))
    await driver.run(1)


async def a_trigger_and_then_a_pause(driver: Driver) -> None:
    """A trigger runs on a paused job, also where it was to follow an occurrence that was due."""
    await driver.commands.submit(0, MINUTELY, declared=False)
    await driver.stage.advance(seconds(60))
    await driver.commands.operate(0, "trigger", "a")
    await driver.commands.pause(0, "a", None)
    await driver.stage.advance(seconds(1))
    await driver.run(0)


async def a_pause_over_a_waiting_retry(driver: Driver) -> None:
    """Occurrences inside the pause are not late after it: CatchUp does not run them."""
    policy = Policy(misfire=CatchUp(2, seconds(100)), retry=Retry(2, seconds(10)))
    await driver.commands.submit(0, evolve(MINUTELY, policy=policy), declared=False)
    await driver.stage.advance(seconds(60))
    await driver.run(0, [HandlerAction(ends="fails")])
    await driver.commands.pause(0, "a", seconds(200))
    await driver.stage.advance(seconds(300))
    await driver.run(0)


async def a_crash_and_then_a_trigger_and_a_pause(driver: Driver) -> None:
    """Inside the pause the occurrence that nobody ended runs, and the trigger after it."""
    await driver.commands.submit(0, MINUTELY, declared=False)
    await driver.stage.advance(seconds(60))
    await driver.mishap(0, "die")
    await driver.commands.operate(0, "trigger", "a")
    await driver.commands.pause(0, "a", None)
    await driver.stage.advance(seconds(31))
    await driver.run(0)
    await driver.commands.operate(0, "resume", "a")
    await driver.run(0)


async def an_edit_after_a_lost_claim_that_was_to_end_a_pause(driver: Driver) -> None:
    """What the lost claim held was not due yet; its number has its end all the same."""
    await driver.commands.submit(0, HOURLY, declared=False)
    await driver.commands.pause(0, "a", seconds(20))
    await driver.stage.advance(seconds(29))
    await driver.mishap(0, "claimed")
    await driver.commands.ensure(0, MINUTELY)
    await driver.stage.advance(seconds(60))
    await driver.mishap(0, "claimed")


async def an_edit_while_a_retry_of_a_trigger_is_lost(driver: Driver) -> None:
    """The edit ends the retries; the line is written when the job is claimed again."""
    policy = Policy(retry=Retry(2, seconds(10)))
    await driver.commands.submit(0, evolve(MINUTELY, policy=policy), declared=False)
    await driver.commands.operate(0, "trigger", "a")
    await driver.run(0, [HandlerAction(ends="fails")])
    await driver.stage.advance(seconds(10))
    await driver.mishap(0, "claimed")
    await driver.commands.update(0, "a", schedule=Interval(seconds=45))
    await driver.stage.advance(seconds(31))
    await driver.run(0)
    await driver.stage.advance(seconds(31))
    await driver.run(0)


async def an_edit_after_a_crash_a_trigger_and_a_pause(driver: Driver) -> None:
    """What was claimed, and lost, has one end, though a trigger came behind it."""
    await driver.commands.submit(0, MINUTELY, declared=False)
    await driver.stage.advance(seconds(60))
    await driver.mishap(0, "claimed")
    await driver.commands.operate(0, "trigger", "a")
    await driver.commands.pause(0, "a", None)
    await driver.commands.update(0, "a", schedule=Interval(seconds=45))
    await driver.stage.advance(seconds(31))
    await driver.mishap(0, "claimed")
    await driver.stage.advance(seconds(31))
    await driver.run(0)


async def a_lost_claim_that_was_to_end_a_pause_is_none_too_many(driver: Driver) -> None:
    """It began nothing: what comes after the pause runs, though one lost claim is the most."""
    await driver.commands.submit(0, evolve(MINUTELY, policy=Policy(max_lost=1)), declared=False)
    await driver.commands.pause(0, "a", seconds(200))
    await driver.stage.advance(seconds(300))
    await driver.mishap(0, "claimed")
    await driver.stage.advance(seconds(31))
    await driver.run(0)


async def a_removal_after_a_lost_claim_that_was_to_end_a_pause(driver: Driver) -> None:
    """What a claim was lost of has begun, though its moment is to come: it ends superseded."""
    await driver.commands.submit(0, HOURLY, declared=False)
    await driver.commands.pause(0, "a", seconds(20))
    await driver.stage.advance(seconds(29))
    await driver.mishap(0, "claimed")
    await driver.stage.advance(seconds(31))
    await driver.mishap(0, "die")
    await driver.commands.remove(0, "a")


async def a_second_pause_after_a_lost_claim_that_was_to_end_the_first(driver: Driver) -> None:
    """What has begun has its end, though the second pause takes it away."""
    await driver.commands.submit(0, MINUTELY, declared=False)
    await driver.commands.pause(0, "a", seconds(5))
    await driver.stage.advance(seconds(6))
    await driver.mishap(0, "claimed")
    await driver.stage.advance(seconds(36))
    await driver.run(0)
    await driver.commands.pause(0, "a", seconds(20))
    await driver.stage.advance(seconds(30))
    await driver.commands.remove(0, "a")


async def a_third_pause_takes_away_what_a_lost_claim_had_begun(driver: Driver) -> None:
    """It stands for itself alone: what was due since is folded into what comes next."""
    await driver.commands.submit(0, MINUTELY, declared=False)
    await driver.commands.pause(0, "a", seconds(5))
    await driver.stage.advance(seconds(6))
    await driver.mishap(0, "claimed")
    await driver.stage.advance(seconds(36))
    await driver.run(0)
    await driver.commands.pause(0, "a", seconds(20))
    await driver.stage.advance(seconds(80))
    await driver.commands.pause(0, "a", None)


async def a_trigger_before_the_clock_was_set_back_and_a_removal(driver: Driver) -> None:
    """A trigger is owed from the call on: its line ends before its moment."""
    await driver.commands.submit(0, MINUTELY, declared=False)
    await driver.commands.operate(0, "trigger", "a")
    await driver.stage.set_back(seconds(1))
    await driver.commands.remove(0, "a")


async def a_trigger_again_after_the_clock_was_set_back(driver: Driver) -> None:
    """It runs now, under the moment of the second call."""
    await driver.commands.submit(0, MINUTELY, declared=False)
    await driver.commands.operate(0, "trigger", "a")
    await driver.stage.set_back(seconds(100))
    await driver.commands.operate(0, "trigger", "a")
    await driver.run(0)


async def an_edit_after_the_clock_was_set_back(driver: Driver) -> None:
    """Moments that have run do not come again under the new schedule."""
    await driver.commands.submit(0, MINUTELY, declared=False)
    await driver.stage.advance(seconds(60))
    await driver.run(0)
    await driver.stage.set_back(seconds(100))
    await driver.commands.update(0, "a", schedule=Interval(seconds=45))
    await driver.stage.advance(seconds(50))
    await driver.run(0)
    await driver.stage.advance(seconds(60))
    await driver.run(0)


async def a_removal_after_the_clock_was_set_back(driver: Driver) -> None:
    """A retry that waits has begun: its line ends before its moment."""
    policy = Policy(retry=Retry(3, seconds(20)))
    await driver.commands.submit(
        0, JobSpec("a", FixedDelay(seconds=40), policy=policy), declared=False
    )
    await driver.stage.advance(seconds(61))
    await driver.run(0, [HandlerAction(ends="fails")])
    await driver.stage.set_back(seconds(100))
    await driver.commands.remove(0, "a")


async def an_interruption_before_the_clock_was_set_back(driver: Driver) -> None:
    """It goes on as soon as its moment has come again, not when it was interrupted."""
    await driver.commands.submit(0, MINUTELY, declared=False)
    await driver.stage.advance(seconds(100))
    await driver.mishap(0, "stopped")
    await driver.stage.set_back(seconds(31))
    await driver.stage.advance(seconds(1))
    await driver.run(0)


async def a_skip_of_what_has_begun_and_lies_ahead_again(driver: Driver) -> None:
    """The first occurrence after now, as the clock was set back: it is skipped."""
    await driver.commands.submit(
        0, JobSpec("a", Once(driver.stage.clock.now() + seconds(100))), declared=False
    )
    await driver.stage.advance(seconds(100))
    await driver.mishap(0, "stopped")
    await driver.stage.set_back(seconds(1))
    await driver.commands.operate(0, "skip the next of", "a")
    await driver.stage.advance(seconds(1))
    await driver.run(0)


async def an_edit_of_what_was_superseded_before_the_clock_was_set_back(driver: Driver) -> None:
    """What was superseded has not run: its moment may come again."""
    await driver.commands.submit(0, MINUTELY, declared=False)
    await driver.stage.advance(seconds(60))
    await driver.commands.update(0, "a", schedule=Interval(seconds=45))
    await driver.stage.set_back(seconds(100))
    await driver.commands.update(0, "a", schedule=Interval(seconds=60))
    await driver.stage.advance(seconds(60))
    await driver.run(0)


async def an_edit_behind_a_trigger_that_lies_ahead_again(driver: Driver) -> None:
    """The trigger holds up nothing: it runs, and what the edit made due after it."""
    await driver.commands.submit(0, MINUTELY, declared=False)
    await driver.commands.operate(0, "trigger", "a")
    await driver.stage.set_back(seconds(100))
    await driver.commands.update(0, "a", schedule=Once(driver.stage.clock.now() + seconds(30)))
    await driver.stage.advance(seconds(31))
    await driver.run(0)


async def a_late_occurrence_with_jitter(driver: Driver) -> None:
    """Jitter is no lateness: two of the five run, as if there were none."""
    policy = Policy(misfire=CatchUp(2, seconds(3600)), jitter=seconds(7))
    await driver.commands.submit(0, evolve(MINUTELY, policy=policy), declared=False)
    await driver.stage.advance(seconds(300))
    await driver.run(0)
    await driver.stage.advance(seconds(10))
    await driver.run(0)


async def a_retry_with_jitter(driver: Driver) -> None:
    """It waits longer than the backoff, by a share that everybody derives alike."""
    policy = Policy(retry=Retry(3, seconds(20), jitter=0.5))
    await driver.commands.submit(0, evolve(MINUTELY, policy=policy), declared=False)
    await driver.stage.advance(seconds(60))
    await driver.run(0, [HandlerAction(ends="fails")])
    await driver.stage.advance(seconds(20))
    await driver.run(0)
    await driver.stage.advance(seconds(10))
    await driver.run(0)


async def a_schedule_with_jitter(driver: Driver) -> None:
    """Each occurrence is due later than its moment, by a share that everybody derives alike."""
    policy = Policy(jitter=seconds(30))
    await driver.commands.submit(0, evolve(MINUTELY, policy=policy), declared=False)
    for _ in range(4):
        await driver.stage.advance(seconds(30))
        await driver.run(0)


async def a_trigger_and_a_pause_after_the_clock_was_set_back(driver: Driver) -> None:
    """What the trigger waited behind lies inside the pause then: the trigger waits no more."""
    await driver.commands.submit(0, MINUTELY, declared=False)
    await driver.stage.advance(seconds(61))
    await driver.commands.operate(0, "trigger", "a")
    await driver.stage.set_back(seconds(2))
    await driver.commands.pause(0, "a", None)
    await driver.stage.advance(seconds(1))
    await driver.run(0)
    await driver.stage.advance(seconds(1))
    await driver.run(0)
    await driver.stage.advance(seconds(100))
    await driver.commands.operate(0, "resume", "a")
    await driver.run(0)


async def a_fixed_delay_after_the_clock_was_set_back(driver: Driver) -> None:
    """It counts from the newest moment that has run."""
    await driver.commands.submit(0, MINUTELY, declared=False)
    await driver.stage.advance(seconds(60))
    await driver.run(0)
    await driver.stage.set_back(seconds(100))
    await driver.commands.ensure(0, JobSpec("a", FixedDelay(seconds=40)))
    await driver.stage.advance(seconds(200))
    await driver.run(0)


async def a_plain_function_whose_time_is_up(driver: Driver) -> None:
    """It cannot be stopped: it is told, keeps its claim, and has failed when it returns."""
    policy = Policy(timeout=seconds(25), retry=Retry(2, seconds(10)))
    await driver.stage.restart(0, plain=True)
    await driver.commands.submit(0, evolve(MINUTELY, policy=policy), declared=False)
    await driver.stage.advance(seconds(60))
    await driver.mishap(0, "deaf")
    await driver.run(0)


async def a_handler_whose_time_is_up(driver: Driver) -> None:
    """It is cancelled then and not before, and has failed."""
    policy = Policy(timeout=seconds(25), retry=Retry(2, seconds(10)))
    await driver.commands.submit(0, evolve(MINUTELY, policy=policy), declared=False)
    await driver.stage.advance(seconds(60))
    await driver.mishap(0, "timed out")
    await driver.mishap(1, "deaf")


async def a_mark_on_a_fixed_delay_is_used_up(driver: Driver) -> None:
    """The first occurrence is skipped; the next one, unread as yet, is none to be skipped."""
    await driver.commands.submit(0, HOURLY, declared=False)
    await driver.commands.submit(0, JobSpec("b", FixedDelay(seconds=40)), declared=False)
    await driver.commands.operate(0, "skip the next of", "b")
    await driver.stage.advance(seconds(3600))
    await driver.mishap(0, "slow")


async def a_removal_while_a_retry_of_the_last_occurrence_waits(driver: Driver) -> None:
    """A one-shot that passed inside a pause counts, so its removal has a line."""
    policy = Policy(retry=Retry(3, seconds(20)))
    once = JobSpec("a", Once(driver.stage.clock.now() + seconds(30)), policy=policy)
    await driver.commands.submit(0, once, declared=False)
    await driver.commands.pause(0, "a", seconds(200))
    await driver.stage.advance(seconds(300))
    await driver.run(0, [HandlerAction(ends="fails")])
    await driver.commands.remove(0, "a")


async def a_trigger_while_a_retry_waits(driver: Driver) -> None:
    """The retry is made at once, and the trigger runs right after it; also when asked twice."""
    policy = Policy(retry=Retry(2, seconds(200)))
    await driver.commands.submit(0, evolve(MINUTELY, policy=policy), declared=False)
    await driver.stage.advance(seconds(60))
    await driver.run(0, [HandlerAction("trigger", ends="fails")])
    await driver.commands.operate(0, "trigger", "a")
    await driver.run(0)


async def a_backlog_that_is_edited_away(driver: Driver) -> None:
    """One line stands for all that was due; what lay in a pause is not among it."""
    await driver.commands.submit(0, MINUTELY, declared=False)
    await driver.stage.advance(seconds(130))
    await driver.commands.pause(0, "a", seconds(100))
    await driver.stage.advance(seconds(200))
    await driver.commands.update(0, "a", schedule=Interval(seconds=45))
    await driver.stage.advance(seconds(100))
    await driver.commands.remove(0, "a")


async def retries_that_all_fail(driver: Driver) -> None:
    policy = Policy(retry=Retry(2, seconds(10)))
    await driver.commands.submit(0, evolve(MINUTELY, policy=policy), declared=False)
    await driver.stage.advance(seconds(60))
    await driver.run(0, [HandlerAction(ends="fails")])
    await driver.stage.advance(seconds(10))
    await driver.run(0, [HandlerAction(ends="fails")])


async def another_policy_keeps_what_a_lost_run_stood_for(driver: Driver) -> None:
    """An edit may write down what the occurrence stands for, and moves nothing else of it."""
    await driver.commands.submit(0, MINUTELY, declared=False)
    await driver.stage.advance(seconds(310))
    await driver.mishap(0, "cut off")
    await driver.commands.update(0, "a", policy=Policy(misfire=CatchUp(2, seconds(3600))))


async def what_one_took_over_before_it_was_cut_off_is_attempted_again(driver: Driver) -> None:
    """The attempt that it wrote down as lost counts, though nothing has come of its own run."""
    await driver.commands.submit(0, MINUTELY, declared=False)
    await driver.stage.advance(seconds(60))
    await driver.mishap(0, "claimed")
    await driver.commands.submit(0, evolve(MINUTELY, id="b"), declared=False)
    await driver.stage.advance(seconds(60))
    await driver.mishap(0, "cut off")


async def a_trigger_that_a_slow_one_took_over_is_attempted_again(driver: Driver) -> None:
    """The other one goes on from the attempt that was lost."""
    await driver.commands.submit(0, HOURLY, declared=False)
    await driver.commands.operate(0, "trigger", "a")
    await driver.mishap(0, "die")
    await driver.commands.submit(0, evolve(MINUTELY, id="b"), declared=False)
    await driver.stage.advance(seconds(60))
    await driver.mishap(0, "slow")


async def a_removal_under_a_run_that_had_been_put_off(driver: Driver) -> None:
    """Its execution tells how often, though nothing is stored any more that says it."""
    await driver.commands.submit(0, MINUTELY, declared=False)
    await driver.stage.advance(seconds(60))
    await driver.run(0, [HandlerAction(ends="snoozes", after=5)])
    await driver.stage.advance(seconds(5))
    await driver.run(0, [HandlerAction("remove")])


FOUND = [
    a_removal_under_a_run_that_had_been_put_off,
    what_one_took_over_before_it_was_cut_off_is_attempted_again,
    a_trigger_that_a_slow_one_took_over_is_attempted_again,
    another_policy_keeps_what_a_lost_run_stood_for,
    a_trigger_of_a_waiting_retry_after_the_clock_was_set_back,
    a_trigger_and_an_edit_after_a_lost_claim_that_was_to_end_a_pause,
    a_jitter_that_comes_during_a_pause,
    a_trigger_that_lies_ahead_again_and_a_pause,
    a_pause_while_a_retry_of_a_trigger_waits,
    an_occurrence_before_a_trigger_that_lies_ahead_again_and_a_pause,
    an_edit_ends_a_trigger_that_is_retried_and_lost,
    a_pause_hurries_a_retry_after_the_clock_was_set_back,
    retries_that_all_fail,
    a_late_occurrence_with_jitter,
    an_edit_of_what_was_superseded_before_the_clock_was_set_back,
    an_edit_behind_a_trigger_that_lies_ahead_again,
    an_interruption_before_the_clock_was_set_back,
    a_skip_of_what_has_begun_and_lies_ahead_again,
    an_edit_after_the_clock_was_set_back,
    a_removal_after_the_clock_was_set_back,
    a_retry_with_jitter,
    a_schedule_with_jitter,
    a_trigger_and_a_pause_after_the_clock_was_set_back,
    a_fixed_delay_after_the_clock_was_set_back,
    a_plain_function_whose_time_is_up,
    a_handler_whose_time_is_up,
    a_third_pause_takes_away_what_a_lost_claim_had_begun,
    a_trigger_before_the_clock_was_set_back_and_a_removal,
    a_trigger_again_after_the_clock_was_set_back,
    a_removal_after_a_lost_claim_that_was_to_end_a_pause,
    a_second_pause_after_a_lost_claim_that_was_to_end_the_first,
    a_mark_on_a_fixed_delay_is_used_up,
    a_removal_while_a_retry_of_the_last_occurrence_waits,
    a_pause_that_covers_what_had_begun_before_the_clock_was_set_back,
    a_trigger_while_a_retry_waits,
    a_backlog_that_is_edited_away,
    a_lost_claim_that_was_to_end_a_pause_is_none_too_many,
    an_edit_after_a_crash_a_trigger_and_a_pause,
    an_edit_after_a_lost_claim_that_was_to_end_a_pause,
    an_edit_while_a_retry_of_a_trigger_is_lost,
    a_trigger_and_then_a_pause,
    a_pause_over_a_waiting_retry,
    a_crash_and_then_a_trigger_and_a_pause,
    an_edit_after_a_pause_that_ended_by_itself,
    a_removal_after_a_pause_that_ended_by_itself,
    a_late_resume_of_a_pause_that_ended_by_itself,
    a_resume_before_the_next_occurrence,
    a_second_pause_after_one_that_ended_by_itself,
    a_pause_with_a_backlog,
    a_skip_outlives_a_lost_claim,
    a_lost_claim_at_the_end_of_a_pause_begins_nothing,
    a_trigger_during_a_manual_run_and_then_a_removal,
    an_edit_while_claims_of_a_trigger_are_lost,
]


async def judge(history: History, harness: Harness) -> None:
    with fresh(harness) as place:
        driver = Driver(harness, place)
        await driver.start()
        try:
            await history(driver)
            await driver.stage.look()
            await driver.rest()
        except Exception as error:
            found = innermost(error)
            found.add_note(driver.stage.narration())
            raise found from None
        finally:
            await driver.stage.close()


@pytest.mark.parametrize(
    ("harness", "loop"),
    [
        (MemoryHarness(), "asyncio"),
        pytest.param(MemoryHarness(), "trio", marks=pytest.mark.deep),
        (SqliteHarness(), "asyncio"),
        pytest.param(SqliteHarness(), "trio", marks=pytest.mark.deep),
    ],
    ids=lambda given: given if isinstance(given, str) else given.name,
)
@pytest.mark.parametrize("history", FOUND, ids=lambda history: history.__name__)
def test_a_found_history_ends_as_it_must(history: History, harness: Harness, loop: str) -> None:
    anyio.run(judge, history, harness, backend=loop)
