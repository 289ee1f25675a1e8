"""Paused, resumed, skipped, cancelled, hurried."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest
from attrs import evolve
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
    end,
    lose,
    passed_over,
    pause,
    run,
    running,
    scheduled,
    statuses,
    told,
)

from sched_core._model.claim import Ended
from sched_core._model.execution import Execution, Kind, Status
from sched_core._model.job import Job
from sched_core._model.occurrence import MOST_GAPS, CancelMark, Gap, Pause, State
from sched_core._model.policy import CatchUp, Coalesce, Drop, Policy, Retry
from sched_core._rules import operate, request
from sched_core._rules.operate import resume
from sched_core.errors import InvalidDefinition, NothingToCancel, NothingToRetry, NothingToSkip
from sched_core.schedule import Between, Cron, FixedDelay, Interval, Once, Schedule

RETRY = Policy(retry=Retry(attempts=3, backoff=10 * MINUTE))
LIMITED = Between(Interval(hours=1, start=T0), end=T0 + 4 * HOUR + MINUTE)
"""A job at each full hour up to 4:00."""


class TestPause:
    def test_moments_inside_it_are_not_due_and_leave_no_execution(self) -> None:
        job = operate.pause(admit(HOURLY), until=None, reason="r", now=T0 + MINUTE)
        assert job.standing.pause == Pause(T0 + MINUTE, 1, None, "r")
        assert (job.state, job.standing.due_at) == (State.PAUSED, None)
        job = resume(job, at=T0 + 5 * HOUR + MINUTE)
        assert (job.state, job.standing.due_at) == (State.ACTIVE, T0 + 6 * HOUR)
        assert (job.standing.pause, job.standing.gaps) == (None, ())
        assert (scheduled(job).number, job.standing.last_number) == (2, 2)

    def test_the_end_belongs_to_it_and_the_beginning_does_not(self) -> None:
        job = pause(admit(HOURLY), T0 + HOUR)
        job, execution = run(resume(job, at=T0 + 3 * HOUR), T0 + 3 * HOUR)
        assert told((execution,)) == [("succeeded", 1, 0)]
        assert job.next_run == T0 + 4 * HOUR

    @pytest.mark.parametrize(
        ("misfire", "expected"),
        [
            (Coalesce(), [("succeeded", 1, 2)]),
            (CatchUp(9), [("succeeded", 1, 0), ("succeeded", 2, 0), ("succeeded", 3, 0)]),
            (CatchUp(2), [("missed", 1, 0), ("succeeded", 2, 0), ("succeeded", 3, 0)]),
            (CatchUp(9, 5 * HOUR), [("missed", 1, 0), ("succeeded", 2, 0), ("succeeded", 3, 0)]),
            (Drop(HOUR), [("missed", 1, 2)]),
            (Drop(4 * HOUR), [("missed", 1, 1), ("succeeded", 3, 0)]),
        ],
        ids=str,
    )
    def test_what_was_due_before_is_late_after_it(
        self, misfire: Coalesce | CatchUp | Drop, expected: list[tuple[str, int, int]]
    ) -> None:
        job = pause(admit(HOURLY, Policy(misfire=misfire)), T0 + 3 * HOUR)
        job, now = resume(job, at=T0 + 7 * HOUR), T0 + 7 * HOUR
        assert told(all_due(job, now)) == expected

    def test_several_pauses_leave_out_what_lies_inside_each(self) -> None:
        job = pause(admit(HOURLY), T0 + 2 * HOUR)
        job = pause(resume(job, at=T0 + 4 * HOUR), T0 + 6 * HOUR)
        job = resume(job, at=T0 + 8 * HOUR)
        # 2:00 was due before the first pause, 5:00 and 6:00 between the two, 9:00 after them.
        job, execution = run(job, T0 + 9 * HOUR)
        assert told((execution,)) == [("succeeded", 1, 4)]
        assert execution.coalesced_until == T0 + 9 * HOUR
        assert job.standing.gaps == ()

    def test_of_many_pauses_behind_one_occurrence_the_newest_are_one_gap(self) -> None:
        job = admit(Interval(minutes=1))
        for hour in range(1, MOST_GAPS + 3):
            job = resume(pause(job, T0 + hour * HOUR), at=T0 + hour * HOUR + 10 * MINUTE)
        gaps = job.standing.gaps
        assert len(gaps) == MOST_GAPS
        assert gaps[0] == Gap(T0 + HOUR, T0 + HOUR + 10 * MINUTE)
        assert gaps[-1].end == T0 + (MOST_GAPS + 2) * HOUR + 10 * MINUTE

    @pytest.mark.parametrize("ended", [FAILURE, INTERRUPTION, Ended(Status.SNOOZED)])
    def test_what_has_begun_continues_after_it_and_covers_the_same(self, ended: Ended) -> None:
        claim, start = begun(admit(HOURLY, RETRY), T0 + 2 * HOUR + MINUTE)
        job, _ = end(claim, start, T0 + 2 * HOUR + MINUTE, ended)
        job = pause(job, T0 + 2 * HOUR + MINUTE)
        assert job.standing.due_at is None
        job, execution = run(resume(job, at=T0 + 5 * HOUR), T0 + 6 * HOUR)
        assert told((execution,)) == [("succeeded", 1, 1)]
        assert job.next_run == T0 + 6 * HOUR

    def test_a_retry_waits_for_both_its_moment_and_the_end_of_the_pause(self) -> None:
        job, _ = run(admit(HOURLY, RETRY), T0 + HOUR, FAILURE)
        paused = pause(job, T0 + HOUR)
        assert resume(paused, at=T0 + HOUR + MINUTE).standing.due_at == T0 + HOUR + 10 * MINUTE

    def test_what_a_lost_claim_has_begun_goes_on_too(self) -> None:
        job, _ = lose(admit(HOURLY), T0 + HOUR)
        job = resume(pause(job, T0 + 2 * HOUR), at=T0 + 5 * HOUR)
        assert begun(job, T0 + 5 * HOUR)[1].attempt == 2

    def test_what_is_held_goes_on_although_only_its_claim_shows_that_it_began(self) -> None:
        claim, start = begun(admit(HOURLY, RETRY), T0 + HOUR)
        job = resume(pause(running(claim.job, T0 + HOUR), T0 + 30 * MINUTE), at=T0 + 3 * HOUR)
        job, _ = end(claim, start, T0 + 3 * HOUR, FAILURE, stored=job)
        assert scheduled(job).number == 1

    def test_it_ends_on_its_own_at_its_end_however_late_that_is_noticed(self) -> None:
        job = pause(admit(HOURLY), T0, until=T0 + 150 * MINUTE)
        for noticed in (
            resume(job, at=T0 + 5 * HOUR),
            operate.resumed_if_over(job, now=T0 + 5 * HOUR),
        ):
            assert noticed.next_run == T0 + 3 * HOUR
        assert operate.resumed_if_over(job, now=T0 + 149 * MINUTE) is job

    @pytest.mark.parametrize("until", [T0, T0 - DAY, datetime(2027, 1, 1)])  # noqa: DTZ001
    def test_its_end_must_be_aware_and_ahead(self, until: datetime) -> None:
        with pytest.raises(InvalidDefinition, match="until"):
            pause(admit(HOURLY), T0, until=until)

    def test_pausing_twice_keeps_the_beginning_and_takes_the_new_end(self) -> None:
        job = operate.pause(admit(HOURLY), until=T0 + HOUR, reason="a", now=T0)
        job = operate.pause(job, until=None, reason="b", now=T0 + MINUTE)
        assert job.standing.pause == Pause(T0, 1, None, "b")
        assert job.standing.due_at is None

    def test_a_finished_job_is_not_paused_and_an_active_one_not_resumed(self) -> None:
        job, _ = run(admit(Once(T0)), T0)
        assert pause(job, T0) is job
        assert resume(job, at=T0) is job
        active = admit(HOURLY)
        assert resume(active, at=T0) is active

    def test_a_resume_before_the_occurrence_changes_nothing_about_it(self) -> None:
        job = admit(HOURLY)
        assert resume(pause(job, T0), at=T0 + MINUTE) == job

    def test_a_fixed_delay_is_due_at_the_end(self) -> None:
        job = resume(pause(admit(FixedDelay(hours=1)), T0), at=T0 + 9 * HOUR)
        assert begun(job, T0 + 9 * HOUR)[1].scheduled_at == T0 + HOUR


def all_due(job: Job, now: datetime) -> tuple[Execution, ...]:
    """Run what is due at the moment; return all executions."""
    found: list[Execution] = []
    while (due := job.standing.due_at) is not None and due <= now:
        try:
            job, execution = run(job, now)
            found.append(execution)
        except AssertionError:
            job, executions = passed_over(job, now)
            found += executions
    return tuple(found)


class TestSpare:
    """A schedule with nothing left after a pause runs its last moment inside it, once."""

    MISFIRES = (Coalesce(), CatchUp(limit=2, window=MINUTE), Drop(grace=MINUTE))

    @pytest.mark.parametrize("misfire", MISFIRES, ids=str)
    @pytest.mark.parametrize("schedule", [Once(T0 + 4 * HOUR), LIMITED])
    def test_whatever_the_misfire_policy(
        self, schedule: Schedule, misfire: Coalesce | CatchUp | Drop
    ) -> None:
        job = pause(admit(schedule, Policy(misfire=misfire), now=T0 + MINUTE), T0 + 30 * MINUTE)
        job = resume(job, at=T0 + DAY)
        assert job.standing.spare == job.next_run == T0 + 4 * HOUR
        assert told(all_due(job, T0 + DAY)) == [("succeeded", 4, 0)]

    def test_what_was_due_before_the_pause_is_judged_by_misfire_and_then_it_runs(self) -> None:
        policy = Policy(misfire=Drop(grace=MINUTE))
        job = pause(admit(LIMITED, policy, now=T0 + MINUTE), T0 + 2 * HOUR)
        job = resume(job, at=T0 + DAY)
        assert (job.next_run, job.standing.spare) == (T0 + HOUR, T0 + 4 * HOUR)
        assert told(all_due(job, T0 + DAY)) == [("missed", 1, 1), ("succeeded", 4, 0)]

    def test_with_something_left_there_is_none(self) -> None:
        job = pause(admit(LIMITED, now=T0 + MINUTE), T0 + 30 * MINUTE)
        job = resume(job, at=T0 + 3 * HOUR + MINUTE)
        assert (job.standing.spare, job.next_run) == (None, T0 + 4 * HOUR)

    def test_what_was_due_before_the_pause_may_be_the_last_of_all(self) -> None:
        job = resume(pause(admit(Once(T0 + HOUR)), T0 + 2 * HOUR), at=T0 + DAY)
        assert job.standing.spare is None
        job, execution = run(job, T0 + DAY)
        assert (execution.scheduled_at, job.state) == (T0 + HOUR, State.FINISHED)


class TestSkip:
    def test_the_first_occurrence_after_now_is_skipped_when_its_turn_comes(self) -> None:
        job = operate.skip_next(admit(HOURLY), now=T0)
        assert job.standing.due_at == T0 + HOUR
        job, executions = passed_over(job, T0 + HOUR)
        assert told(executions) == [("skipped", 1, 0)]
        assert (job.standing.due_at, job.standing.skip) == (T0 + 2 * HOUR, None)
        run(job, T0 + 2 * HOUR)

    def test_twice_is_once_and_unskip_takes_it_back(self) -> None:
        once = operate.skip_next(admit(HOURLY), now=T0)
        assert operate.skip_next(once, now=T0 + MINUTE) == once
        assert operate.unskip(once) == admit(HOURLY)

    def test_what_is_due_or_runs_is_not_the_next(self) -> None:
        job = operate.skip_next(admit(HOURLY), now=T0 + 61 * MINUTE)
        assert job.standing.skip == T0 + 2 * HOUR
        held = operate.skip_next(running(admit(HOURLY), T0 + HOUR), now=T0 + 59 * MINUTE)
        assert held.standing.skip == T0 + 2 * HOUR
        job, _ = run(job, T0 + 61 * MINUTE)
        assert statuses(passed_over(job, T0 + 2 * HOUR)[1]) == [Status.SKIPPED]

    def test_a_skipped_one_shot_is_finished(self) -> None:
        job = operate.skip_next(admit(Once(T0 + HOUR)), now=T0)
        job, executions = passed_over(job, T0 + HOUR)
        assert (statuses(executions), job.state) == ([Status.SKIPPED], State.FINISHED)
        with pytest.raises(NothingToSkip):
            operate.skip_next(job, now=T0 + DAY)

    def test_a_fixed_delay_skips_the_run_after_the_present_one(self) -> None:
        claim, start = begun(admit(FixedDelay(hours=1)), T0 + HOUR)
        marked = operate.skip_next(claim.job, now=T0 + 61 * MINUTE)
        job, _ = end(claim, start, T0 + 3 * HOUR, stored=marked)
        job, (execution,) = passed_over(job, T0 + 4 * HOUR)
        assert (execution.status, execution.scheduled_at) == (Status.SKIPPED, T0 + 4 * HOUR)
        assert job.standing.due_at == T0 + 5 * HOUR
        run(job, T0 + 5 * HOUR)

    def test_a_pause_over_the_marked_moment_uses_the_mark_up(self) -> None:
        job = pause(operate.skip_next(admit(HOURLY), now=T0), T0 + MINUTE)
        job = resume(job, at=T0 + 90 * MINUTE)
        assert run(job, T0 + 2 * HOUR)[0].standing.skip is None


class TestCancel:
    def test_what_waits_is_due_at_once_and_ends_by_its_next_claim(self) -> None:
        job, _ = run(admit(HOURLY, RETRY), T0 + HOUR, FAILURE)
        job = operate.cancel(job, now=T0 + HOUR + MINUTE, number=1)
        assert job.standing.due_at == T0 + HOUR + MINUTE
        job, executions = passed_over(job, T0 + HOUR + MINUTE)
        assert told(executions) == [("cancelled", 1, 0)]
        assert (job.next_run, job.standing.cancels) == (T0 + 2 * HOUR, ())

    def test_also_inside_a_pause(self) -> None:
        job = operate.cancel(pause(admit(HOURLY), T0), now=T0 + MINUTE, number=1)
        job, executions = passed_over(job, T0 + MINUTE)
        assert told(executions) == [("cancelled", 1, 0)]
        assert (job.state, job.standing.due_at) == (State.PAUSED, None)

    def test_by_the_job_it_is_what_is_held(self) -> None:
        job = operate.cancel(running(admit(HOURLY), T0 + HOUR), now=T0 + HOUR)
        assert job.standing.cancels == (CancelMark(1),)
        with pytest.raises(NothingToCancel):
            operate.cancel(admit(HOURLY), now=T0)

    def test_what_is_held_can_be_cancelled_although_it_was_edited_away(self) -> None:
        job = evolve(admit(HOURLY), held=7, held_at=T0)
        assert operate.cancel(job, now=T0, number=7).standing.cancels == (CancelMark(7),)
        freed = evolve(operate.cancel(job, now=T0), held=None, held_at=None)
        assert operate.cancel(freed, now=T0, number=1).standing.cancels == (CancelMark(1),)

    @pytest.mark.parametrize("number", [0, 2, 99])
    def test_what_is_not_there_is_refused(self, number: int) -> None:
        with pytest.raises(NothingToCancel):
            operate.cancel(admit(HOURLY), now=T0, number=number)

    def test_a_backfill_ends_with_its_rest(self) -> None:
        now = T0 + 5 * HOUR
        job = request.backfill(admit(HOURLY), since=T0, until=T0 + 4 * HOUR, now=now).job
        job = operate.cancel(job, now=now, number=2)
        job = evolve(job, standing=evolve(job.standing, scheduled=None))
        job, (execution,) = passed_over(job, now)
        assert (execution.kind, execution.status) == (Kind.BACKFILLED, Status.CANCELLED)
        assert told((execution,)) == [("cancelled", 1, 3)]
        assert job.standing.requests == ()


class TestRetryNow:
    def test_what_waits_for_its_next_attempt_is_due_now(self) -> None:
        job, _ = run(admit(HOURLY, RETRY), T0 + HOUR, FAILURE)
        job = operate.retry_now(job, now=T0 + HOUR + MINUTE)
        _, start = begun(job, T0 + HOUR + MINUTE)
        assert (start.number, start.attempt) == (1, 2)

    def test_requests_too_and_what_waits_after_a_lost_claim(self) -> None:
        job = request.trigger(admit(HOURLY, RETRY), now=T0).job
        job, _ = run(job, T0, FAILURE)
        job, _ = lose(job, T0 + HOUR)  # of the retry, by now
        job = operate.retry_now(job, now=T0 + HOUR)
        assert [one.due_at <= T0 + HOUR for one in job.standing.requests] == [True]

    def test_what_has_not_begun_is_not_hurried(self) -> None:
        job = admit(HOURLY, Policy(jitter=30 * MINUTE))
        with pytest.raises(NothingToRetry, match="trigger_job"):
            operate.retry_now(job, now=T0)

    def test_a_pause_holds_it(self) -> None:
        job, _ = run(admit(HOURLY, RETRY), T0 + HOUR, FAILURE)
        job = operate.retry_now(pause(job, T0 + HOUR), now=T0 + HOUR + MINUTE)
        assert job.standing.due_at is None
        assert resume(job, at=T0 + 65 * MINUTE).standing.due_at == T0 + HOUR + MINUTE


@pytest.mark.parametrize("schedule", [HOURLY, Cron("0 * * * *"), FixedDelay(hours=1)])
def test_what_operators_do_writes_nothing_about_a_job_that_never_ran(schedule: Schedule) -> None:
    job = admit(schedule)
    job = operate.unskip(operate.skip_next(job, now=T0))
    job = resume(pause(job, T0, until=T0 + timedelta(minutes=5)), at=T0 + MINUTE)
    assert job == admit(schedule)
