"""Stored moments that are wrong by now: a clock was far ahead, or their data have changed."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest
from attrs import evolve, frozen
from tests.core.rules.steps import (
    DAY,
    FAILURE,
    HOUR,
    HOURLY,
    INTERRUPTION,
    MINUTE,
    T0,
    admit,
    begun,
    edit,
    lose,
    passed_over,
    pause,
    run,
    running,
    scheduled,
    statuses,
)

from sched_core._model.claim import Ended
from sched_core._model.execution import Status
from sched_core._model.job import Job
from sched_core._model.occurrence import State
from sched_core._model.policy import Policy, Retry
from sched_core._rules import define, moment, operate, request
from sched_core.schedule import Cron, FixedDelay, Interval, Once
from sched_core.schedule.derivation import LONGEST_TRAIL, knows_better, trail_of

RETRY = Policy(retry=Retry(attempts=3, backoff=10 * MINUTE))


def cancelled(job: Job, now: datetime) -> Job:
    """Cancel the schedule's next occurrence."""
    job = operate.cancel(job, now=now, number=scheduled(job).number)
    return passed_over(job, now)[0]


class TestAClockThatWasAhead:
    FAR = T0 + 700 * DAY

    def test_set_back_a_little_it_repeats_no_moment_that_has_run(self) -> None:
        job = admit(Cron("0 * * * *"))
        for hour in range(1, 6):
            job, _ = run(job, T0 + hour * HOUR)
        after = edit(job, T0 + 4 * HOUR + 10 * MINUTE, schedule=Cron("0,20 * * * *")).job
        assert after.next_run == T0 + 5 * HOUR + 20 * MINUTE

    def test_set_back_by_a_period_too_where_that_is_longer_than_an_hour(self) -> None:
        job, _ = run(admit(Cron("0 0 * * *")), T0 + DAY)
        back = T0 + 2 * HOUR
        assert moment.stray(job, now=back) is None
        assert edit(job, back, schedule=Cron("0 0 * * sun-sat")).job.next_run == T0 + 2 * DAY

    def test_set_back_further_it_was_wrong_before(self) -> None:
        job, _ = run(admit(HOURLY), self.FAR)
        assert moment.stray(job, now=T0 + MINUTE) == T0 + HOUR
        mended = moment.reanchored(job, now=T0 + MINUTE)
        assert mended is not None
        one = scheduled(mended)
        assert (one.number, one.scheduled_at) == (3, T0 + HOUR)
        assert (mended.anchor, mended.standing.last_scheduled_at) == (T0, None)
        assert moment.corrected(mended, now=T0 + MINUTE) is None
        job, _ = run(mended, T0 + HOUR)
        assert job.next_run == T0 + 2 * HOUR

    def test_a_mark_to_skip_the_next_one_goes_with_it(self) -> None:
        job, _ = run(admit(HOURLY), self.FAR)
        job = operate.skip_next(job, now=T0 + MINUTE)
        mended = moment.corrected(job, now=T0 + MINUTE)
        assert mended is not None
        job, executions = passed_over(mended, T0 + HOUR)
        assert statuses(executions) == [Status.SKIPPED]
        assert (job.next_run, job.standing.skip) == (T0 + 2 * HOUR, None)

    def test_a_schedule_that_took_effect_then_takes_effect_now(self) -> None:
        mended = moment.corrected(admit(HOURLY, now=self.FAR), now=T0 + MINUTE)
        assert mended is not None
        assert (mended.anchor, mended.next_run) == (T0 + MINUTE, T0 + HOUR + MINUTE)

    @pytest.mark.parametrize("what", ["begun", "held", "paused", "on time", "to be cancelled"])
    def test_nothing_is_moved_that_lies_ahead_for_a_reason(self, what: str) -> None:
        job, _ = run(admit(HOURLY, RETRY), self.FAR)
        if what == "begun":
            job, _ = run(job, self.FAR + HOUR, FAILURE)
        elif what == "held":
            job = running(job, self.FAR + HOUR)
        elif what == "paused":
            job = pause(job, T0)
        elif what == "to be cancelled":
            job = operate.cancel(job, now=T0, number=2)
        elif what == "on time":
            job = admit(HOURLY)
        assert moment.stray(job, now=T0) is None
        assert moment.reanchored(job, now=T0) is None

    @pytest.mark.parametrize("ran_at", [T0 + HOUR, T0 + 700 * DAY])
    def test_a_fixed_delay_is_counted_from_now_where_it_is_counted_from_far_ahead(
        self, ran_at: datetime
    ) -> None:
        job, _ = run(admit(FixedDelay(hours=1)), ran_at)
        assert moment.corrected(job, now=ran_at) is None
        assert moment.corrected(job, now=ran_at - 59 * MINUTE) is None
        back = ran_at - 2 * HOUR
        mended = moment.corrected(job, now=back)
        assert mended is not None
        assert mended.next_run == back + HOUR
        assert moment.corrected(mended, now=back) is None

    def test_a_fixed_delay_of_years_is_no_reason_and_two_of_them_are_one(self) -> None:
        job, _ = run(admit(FixedDelay(days=3650)), T0 + 3650 * DAY)
        assert moment.stray(job, now=T0) is None
        job, _ = run(admit(FixedDelay(days=365)), T0 + 3650 * DAY)
        assert moment.stray(job, now=T0) == T0 + 365 * DAY

    @pytest.mark.parametrize("ended", [FAILURE, INTERRUPTION])
    def test_what_waits_since_then_for_its_next_attempt_is_due_now(self, ended: Ended) -> None:
        job, first = run(admit(HOURLY, RETRY), self.FAR, ended)
        assert moment.corrected(job, now=self.FAR - HOUR) is None
        mended = moment.corrected(job, now=T0 + MINUTE)
        assert mended is not None
        assert mended.standing.due_at == T0 + MINUTE
        assert moment.corrected(mended, now=T0 + MINUTE) is None
        job, second = run(mended, T0 + MINUTE)
        assert (second.number, second.attempt) == (first.number, 2)
        assert second.coalesced == 700 * 24 - 1, "it covers what it began to cover"
        after = moment.corrected(job, now=T0 + MINUTE)
        assert after is not None
        assert after.next_run == T0 + HOUR

    def test_a_lost_claim_too_and_an_edit_of_the_schedule_does_it(self) -> None:
        job, _ = lose(admit(HOURLY, RETRY), self.FAR)
        job = edit(job, T0 + MINUTE, schedule=Interval(hours=2)).job
        assert job.standing.due_at == T0 + MINUTE

    def test_what_was_asked_for_then_is_due_now(self) -> None:
        job = request.trigger(admit(HOURLY), now=self.FAR).job
        mended = moment.corrected(job, now=T0)
        assert mended is not None
        assert mended.standing.due_at == T0
        assert moment.corrected(request.trigger(admit(HOURLY), now=T0).job, now=T0 - HOUR) is None

    def test_a_wait_of_years_that_began_in_the_present_is_no_wrong_clock(self) -> None:
        policy = Policy(retry=Retry(attempts=3, backoff=3650 * DAY, maximum=3650 * DAY))
        job, _ = run(admit(HOURLY, policy), T0 + HOUR, FAILURE)
        assert moment.corrected(job, now=T0 + HOUR) is None

    def test_what_was_cancelled_is_a_reason_however_far_ahead(self) -> None:
        job = admit(HOURLY)
        for hour in range(1, 13):
            job = cancelled(job, T0)
            assert job.next_run == T0 + (hour + 1) * HOUR
            assert moment.corrected(job, now=T0) is None
        assert define.redefine(job, job.spec, now=T0 + 90 * MINUTE) is None
        assert job.standing.last_scheduled_at is None
        job, _ = run(job, T0 + 13 * HOUR)
        assert (job.standing.gaps, job.next_run) == ((), T0 + 14 * HOUR)

    def test_what_was_cancelled_by_a_clock_that_was_ahead_is_none(self) -> None:
        job, _ = run(admit(HOURLY), self.FAR)
        job = cancelled(cancelled(job, self.FAR), self.FAR)
        assert moment.stray(job, now=T0 + MINUTE) == T0 + HOUR

    def test_an_edit_delays_nothing_and_leaves_out_what_was_cancelled(self) -> None:
        job = cancelled(admit(Cron("0 3 * * *")), T0)
        job = edit(job, T0, schedule=Cron("0 */3 * * *")).job
        assert job.next_run == T0 + 6 * HOUR
        job = edit(job, T0, schedule=Cron("30 */2 * * *")).job
        assert job.next_run == T0 + 30 * MINUTE
        job = edit(job, T0, schedule=Cron("0 * * * *")).job
        assert job.next_run == T0 + HOUR
        for hour in (1, 2):
            job, _ = run(job, T0 + hour * HOUR)
        assert job.next_run == T0 + 4 * HOUR

    def test_a_one_shot_that_was_cancelled_stays_so(self) -> None:
        job = cancelled(admit(Once(T0 + 3 * HOUR)), T0)
        assert job.state is State.FINISHED
        job = edit(job, T0, schedule=Once(T0 + 2 * HOUR)).job
        job = edit(job, T0, schedule=Once(T0 + 3 * HOUR)).job
        assert job.state is State.FINISHED

    def test_jitter_and_a_mark_are_reasons(self) -> None:
        assert moment.stray(admit(HOURLY, Policy(jitter=30 * DAY)), now=T0) is None
        assert moment.stray(operate.skip_next(admit(HOURLY), now=T0), now=T0) is None


@frozen
class Sunrise:
    """Daily at an hour that a calendar says."""

    hour: int = 3
    fingerprint: str = "first edition"

    def first(self, anchor: datetime) -> datetime | None:
        return self.next_after(anchor, anchor)

    def next_after(self, moment: datetime, anchor: datetime) -> datetime | None:
        found = moment.replace(hour=self.hour, minute=0, second=0, microsecond=0)
        return found if found > moment else found + DAY


def elsewhere(job: Job, schedule: Sunrise) -> Job:
    """Return the stored job as a process reads it that has other data for the same schedule."""
    return evolve(job, spec=evolve(job.spec, schedule=schedule))


OLD, NEW = Sunrise(), Sunrise(hour=4, fingerprint="second edition")


class TestDataThatHaveChanged:
    def test_there_is_one_run_at_the_new_hour(self) -> None:
        job = elsewhere(admit(OLD), NEW)
        assert moment.is_outdated(job)
        mended = moment.rederived(job, now=T0)
        assert mended is not None
        one = scheduled(mended)
        assert (one.number, one.scheduled_at, one.due_at) == (2, T0 + 4 * HOUR, T0 + 4 * HOUR)
        assert not moment.is_outdated(mended)

    def test_a_claim_finds_it_too_and_calls_no_handler_at_the_old_hour(self) -> None:
        job, executions = passed_over(elsewhere(admit(OLD), NEW), T0 + 3 * HOUR)
        assert executions == ()
        assert job.next_run == T0 + 4 * HOUR
        job, _ = run(job, T0 + 4 * HOUR)
        assert job.next_run == T0 + DAY + 4 * HOUR

    def test_an_earlier_hour_that_has_passed_runs_at_once(self) -> None:
        earlier = Sunrise(hour=2, fingerprint="second edition")
        job, _ = passed_over(elsewhere(admit(OLD), earlier), T0 + 3 * HOUR)
        _, start = begun(job, T0 + 3 * HOUR)
        assert start.scheduled_at == T0 + 2 * HOUR

    def test_what_has_run_does_not_run_again_at_the_new_hour(self) -> None:
        job, _ = run(admit(OLD), T0 + 3 * HOUR)
        mended = moment.rederived(elsewhere(job, NEW), now=T0 + 3 * HOUR)
        assert mended is not None
        assert mended.next_run == T0 + DAY + 4 * HOUR

    @pytest.mark.parametrize("ended", [FAILURE, INTERRUPTION])
    def test_what_has_begun_stays(self, ended: object) -> None:
        policy = Policy(retry=Retry(attempts=2))
        job, _ = run(admit(OLD, policy), T0 + 3 * HOUR, ended)  # type: ignore[arg-type]  # an Ended
        job = elsewhere(job, NEW)
        _, start = begun(job, T0 + 4 * HOUR)
        assert (start.number, start.attempt) == (1, 2)
        kept = moment.rederived(job, now=T0 + 4 * HOUR)
        assert kept is not None
        assert evolve(scheduled(kept), derived_from="") == evolve(scheduled(job), derived_from="")

    def test_an_edition_that_leaves_the_moment_alone_changes_only_what_it_came_from(self) -> None:
        job = elsewhere(admit(OLD), Sunrise(fingerprint="second edition"))
        kept = moment.rederived(job, now=T0)
        assert kept is not None
        assert (scheduled(kept).number, kept.next_run) == (1, T0 + 3 * HOUR)
        assert moment.rederived(kept, now=T0) is None
        assert begun(job, T0 + 3 * HOUR)[1].number == 1

    def test_two_processes_with_other_editions_do_not_move_it_to_and_fro(self) -> None:
        mended = moment.rederived(elsewhere(admit(OLD), NEW), now=T0)
        assert mended is not None
        back = elsewhere(mended, OLD)
        assert moment.rederived(back, now=T0) is None
        assert begun(back, T0 + 4 * HOUR)[1].scheduled_at == T0 + 4 * HOUR

    def test_what_was_to_be_skipped_is_skipped_at_the_new_hour(self) -> None:
        job = elsewhere(operate.skip_next(admit(OLD), now=T0), NEW)
        job, _ = passed_over(job, T0 + 3 * HOUR)
        job, executions = passed_over(job, T0 + 4 * HOUR)
        assert statuses(executions) == [Status.SKIPPED]
        assert (job.next_run, job.standing.skip) == (T0 + DAY + 4 * HOUR, None)

    def test_what_was_to_be_cancelled_is_cancelled_and_not_moved(self) -> None:
        job = elsewhere(operate.cancel(admit(OLD), now=T0, number=1), NEW)
        kept = moment.rederived(job, now=T0)
        assert kept is not None
        for each in (job, kept):
            _, executions = passed_over(each, T0)
            assert statuses(executions) == [Status.CANCELLED]

    def test_a_schedule_without_data_is_never_asked(self) -> None:
        job = admit(HOURLY)
        assert scheduled(job).derived_from == ""
        assert moment.corrected(job, now=T0) is None


class TestTrails:
    @pytest.mark.parametrize(
        ("mine", "trail", "knows"),
        [
            ("2025b:x", "2025a:y", True),
            ("2025a:y", "2025b:x", False),
            ("2025b:x", "2025a:x", False),  # the same rules in another release
            (":x", ":y", True),
            (":x", ":y|:x", False),
            ("2025b:x", ":y", True),
            (":y", "2025b:x|:y", False),
        ],
    )
    def test_who_knows_better(self, mine: str, trail: str, knows: bool) -> None:
        assert knows_better(mine, trail) == knows

    def test_a_trail_is_bounded_and_names_each_once(self) -> None:
        trail = ""
        for number in (*range(20), 18, 19):
            trail = trail_of(f":{number}", trail)
        newest = trail.split("|")
        assert newest[:2] == [":19", ":18"]
        assert len(newest) == len(set(newest)) == LONGEST_TRAIL
        assert trail_of(":19", ":19") == ":19"


def test_corrected_puts_both_right() -> None:
    far = T0 + timedelta(days=700)
    job, _ = run(admit(OLD), far + 3 * HOUR)
    mended = moment.corrected(elsewhere(job, NEW), now=T0)
    assert mended is not None
    assert mended.next_run == T0 + 4 * HOUR
    assert moment.corrected(mended, now=T0) is None
