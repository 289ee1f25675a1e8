"""What a claim means: late occurrences, and those that no handler is called for."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from tests.core.rules.steps import (
    DAY,
    FAILURE,
    HOUR,
    HOURLY,
    INTERRUPTION,
    MINUTE,
    SECOND,
    T0,
    admit,
    begun,
    changed,
    claimed,
    edit,
    end,
    lose,
    passed_over,
    pause,
    run,
    scheduled,
    statuses,
    told,
)

from sched_core._model.claim import Decision, Ended, Start
from sched_core._model.execution import Kind, Status
from sched_core._model.occurrence import State
from sched_core._model.policy import CatchUp, Coalesce, Drop, Policy, Retry
from sched_core._rules import operate, request
from sched_core._rules.begin import begin
from sched_core.schedule import Cron, FixedDelay, Interval, Once, Schedule

Misfire = Coalesce | CatchUp | Drop


class TestLate:
    def test_coalesce_runs_the_first_missed_once_for_all(self) -> None:
        claim, start = begun(admit(HOURLY), T0 + 10 * HOUR + MINUTE)
        assert (start.scheduled_at, start.coalesced) == (T0 + HOUR, 9)
        assert start.coalesced_until == T0 + 10 * HOUR
        job, (execution,) = end(claim, start, T0 + 10 * HOUR + 2 * MINUTE)
        assert (execution.coalesced, execution.coalesced_until) == (9, T0 + 10 * HOUR)
        assert job.next_run == T0 + 11 * HOUR

    @pytest.mark.parametrize("ended", [FAILURE, INTERRUPTION, Ended(Status.SNOOZED)])
    def test_it_covers_the_same_at_every_attempt(self, ended: Ended) -> None:
        policy = Policy(retry=Retry(attempts=2, backoff=5 * HOUR, maximum=DAY))
        claim, start = begun(admit(HOURLY, policy), T0 + 2 * HOUR + MINUTE)
        job, _ = end(claim, start, T0 + 2 * HOUR + MINUTE, ended)
        _, again = begun(job, T0 + 8 * HOUR)
        assert (again.number, again.coalesced) == (start.number, 1) == (1, start.coalesced)
        job, execution = run(job, T0 + 8 * HOUR)
        assert (execution.coalesced, execution.coalesced_until) == (1, T0 + 2 * HOUR)
        assert job.next_run == T0 + 3 * HOUR

    def test_nor_does_a_lost_claim_change_it(self) -> None:
        job, _ = lose(admit(HOURLY), T0 + HOUR + MINUTE)
        _, start = begun(job, T0 + 9 * HOUR)
        assert (start.number, start.attempt, start.coalesced) == (1, 2, 0)

    def test_a_claim_that_was_handed_back_fixes_nothing(self) -> None:
        job = admit(HOURLY)
        begun(job, T0 + HOUR)
        assert begun(job, T0 + 3 * HOUR)[1].coalesced == 2

    def test_drop_misses_what_is_older_than_the_grace_in_one_execution(self) -> None:
        job = admit(HOURLY, Policy(misfire=Drop(grace=10 * MINUTE)))
        begun(job, T0 + HOUR + 10 * MINUTE)
        job, executions = passed_over(job, T0 + 5 * HOUR + 20 * MINUTE)
        assert told(executions) == [("missed", 1, 4)]
        assert executions[0].coalesced_until == T0 + 5 * HOUR
        assert (job.next_run, scheduled(job).number) == (T0 + 6 * HOUR, 2)

    def test_drop_runs_the_occurrences_within_the_grace(self) -> None:
        policy = Policy(misfire=Drop(grace=70 * MINUTE))
        job, executions = passed_over(admit(HOURLY, policy), T0 + 5 * HOUR + 5 * MINUTE)
        assert told(executions) == [("missed", 1, 2)]
        for hour in (4, 5):
            job, execution = run(job, T0 + 5 * HOUR + 5 * MINUTE)
            assert (execution.scheduled_at, execution.coalesced) == (T0 + hour * HOUR, 0)

    @pytest.mark.parametrize("misfire", [Drop(grace=MINUTE), CatchUp(window=MINUTE)])
    @pytest.mark.parametrize(
        ("ended", "is_judged"),
        [(INTERRUPTION, True), (FAILURE, False), (Ended(Status.SNOOZED), False)],
    )
    def test_it_is_judged_again_after_an_interruption_and_not_between_retries(
        self, misfire: Misfire, ended: Ended, is_judged: bool
    ) -> None:
        policy = Policy(misfire=misfire, retry=Retry(attempts=2, backoff=SECOND))
        claim, start = begun(admit(HOURLY, policy), T0 + HOUR)
        job, _ = end(claim, start, T0 + HOUR, ended)
        late = T0 + 3 * HOUR + 30 * MINUTE
        if not is_judged:
            assert begun(job, late)[1].number == 1
            return
        job, executions = passed_over(job, late)
        # What passed after it had begun is another occurrence, and judged separately.
        assert told(executions) == [("missed", 1, 0)]
        assert told(passed_over(job, late)[1]) == [("missed", 2, 1)]

    def test_a_dropped_one_shot_is_finished(self) -> None:
        policy = Policy(misfire=Drop(grace=SECOND))
        job, executions = passed_over(admit(Once(T0), policy), T0 + HOUR)
        assert statuses(executions) == [Status.MISSED]
        assert job.state is State.FINISHED

    def test_catch_up_runs_the_newest_oldest_first_and_misses_the_rest_in_one(self) -> None:
        job, now = admit(HOURLY, Policy(misfire=CatchUp(limit=3))), T0 + 10 * HOUR + MINUTE
        job, executions = passed_over(job, now)
        assert told(executions) == [("missed", 1, 6)]
        assert executions[0].coalesced_until == T0 + 7 * HOUR
        ran = []
        for _ in range(3):
            job, execution = run(job, now)
            ran.append((execution.scheduled_at, execution.coalesced))
        assert ran == [(T0 + hour * HOUR, 0) for hour in (8, 9, 10)]
        assert job.standing.due_at == T0 + 11 * HOUR

    def test_catch_up_is_bounded_by_its_window_as_well(self) -> None:
        policy = Policy(misfire=CatchUp(limit=100, window=2 * HOUR))
        job, (execution,) = passed_over(admit(HOURLY, policy), T0 + 10 * HOUR + MINUTE)
        assert execution.coalesced_until == T0 + 8 * HOUR
        assert execution.reason == "beyond the newest 100 within 2:00:00"
        assert job.next_run == T0 + 9 * HOUR

    def test_exactly_the_limit_misses_nothing(self) -> None:
        policy = Policy(misfire=CatchUp(limit=3))
        assert begun(admit(HOURLY, policy), T0 + 3 * HOUR)[1].scheduled_at == T0 + HOUR
        passed_over(admit(HOURLY, policy), T0 + 4 * HOUR)

    @pytest.mark.parametrize("limit", [1, 64, 65, 1000])
    @pytest.mark.parametrize("schedule", [Interval(seconds=1), Cron("* * * * * *")])
    def test_ten_years_of_seconds_are_bounded_work(self, schedule: Schedule, limit: int) -> None:
        now = datetime(2036, 1, 1, tzinfo=UTC)
        seconds = int((now - T0).total_seconds())
        claim, start = begun(admit(schedule), now)
        assert (start.scheduled_at, start.coalesced) == (T0 + SECOND, seconds - 1)
        assert start.coalesced_until == now
        job, _ = end(claim, start, now)
        assert job.next_run == now + SECOND

        policy = Policy(misfire=CatchUp(limit=limit))
        job, (execution,) = passed_over(admit(schedule, policy), now)
        assert execution.coalesced + 1 + limit == seconds
        assert job.next_run == now - (limit - 1) * SECOND

        policy = Policy(misfire=Drop(grace=10 * SECOND))
        job, (execution,) = passed_over(admit(schedule, policy), now)
        assert execution.coalesced + 1 + 11 == seconds
        assert job.next_run == now - 10 * SECOND

    def test_bounds_that_reach_before_the_calendar_are_no_error(self) -> None:
        for misfire in (CatchUp(window=timedelta.max), Drop(grace=timedelta.max)):
            begun(admit(HOURLY, Policy(misfire=misfire)), T0 + 3 * HOUR)

    def test_a_fixed_delay_has_nothing_behind_it(self) -> None:
        _, start = begun(admit(FixedDelay(seconds=1)), T0 + DAY)
        assert (start.coalesced, start.coalesced_until) == (0, None)

    def test_a_third_party_schedule_that_cannot_count_is_stepped_through(self) -> None:
        class Plain:
            def first(self, anchor: datetime) -> datetime | None:
                return anchor + HOUR

            def next_after(self, moment: datetime, anchor: datetime) -> datetime | None:
                return anchor + ((moment - anchor) // HOUR + 1) * HOUR

        _, start = begun(admit(Plain()), T0 + 10 * HOUR)
        assert (start.coalesced, start.coalesced_until) == (9, T0 + 10 * HOUR)
        policy = Policy(misfire=CatchUp(limit=3))
        _, (execution,) = passed_over(admit(Plain(), policy), T0 + 10 * HOUR)
        assert (execution.coalesced, execution.coalesced_until) == (6, T0 + 7 * HOUR)

    @pytest.mark.parametrize("misfire", [Drop(grace=MINUTE), CatchUp(window=MINUTE)])
    def test_jitter_is_no_lateness(self, misfire: Misfire) -> None:
        job = admit(HOURLY, Policy(misfire=misfire, jitter=30 * MINUTE))
        due = scheduled(job).due_at
        assert due > T0 + HOUR + MINUTE
        begun(job, due)
        begun(job, due + MINUTE)
        passed_over(job, due + MINUTE + SECOND)

    def test_jitter_longer_than_the_gap_leaves_a_run_for_all_that_passed(self) -> None:
        job = admit(HOURLY, Policy(jitter=30 * HOUR))
        due = scheduled(job).due_at
        hours = int((due - T0) / HOUR)
        assert hours > 1
        assert begun(job, due)[1].coalesced == hours - 1


class TestNotCalled:
    def test_a_claim_handed_out_early_leaves_the_job_alone(self) -> None:
        assert begin(claimed(admit(HOURLY), T0), now=T0) == Decision(None)

    def test_a_clock_that_was_set_back_after_the_claim_does_not_undo_it(self) -> None:
        claim = claimed(admit(HOURLY), T0 + HOUR)
        assert isinstance(begin(claim, now=T0), Start)

    @pytest.mark.parametrize("lost", [0, 9])
    def test_a_skipped_one_covers_itself_alone(self, lost: int) -> None:
        job = operate.skip_next(admit(HOURLY), now=T0)
        job = changed(job, lost=lost)
        job, executions = passed_over(job, T0 + 3 * HOUR)
        assert told(executions) == [("skipped", 1, 0)]
        assert (job.standing.skip, job.next_run) == (None, T0 + 2 * HOUR)
        assert begun(job, T0 + 3 * HOUR)[1].coalesced == 1

    def test_a_trigger_is_not_skipped_and_does_not_use_up_the_mark(self) -> None:
        job = request.trigger(operate.skip_next(admit(HOURLY), now=T0), now=T0).job
        job, execution = run(job, T0)
        assert execution.kind is Kind.TRIGGERED
        assert statuses(passed_over(job, T0 + HOUR)[1]) == [Status.SKIPPED]

    @pytest.mark.parametrize("lost", [0, 9])
    def test_a_cancelled_one_ends_so_before_all_else(self, lost: int) -> None:
        job = operate.skip_next(admit(HOURLY, Policy(misfire=Drop(MINUTE))), now=T0)
        job = operate.cancel(job, now=T0, number=1)
        job = changed(job, lost=lost)
        job, (execution,) = passed_over(job, T0 + 30 * MINUTE)
        assert (execution.status, execution.reason) == (Status.CANCELLED, "cancelled")
        assert execution.scheduled_at == T0 + HOUR
        assert (job.standing.cancels, job.next_run) == ((), T0 + 2 * HOUR)

    @pytest.mark.parametrize("asked", [False, True])
    def test_one_that_has_lost_all_its_claims_fails(self, asked: bool) -> None:
        job = admit(HOURLY, Policy(max_lost=3))
        job = request.trigger(job, now=T0 + 30 * MINUTE).job if asked else job
        job = changed(job, lost=3, attempts=3, began_at=T0 + HOUR)
        _, (execution,) = passed_over(job, T0 + HOUR)
        assert (execution.status, execution.final) == (Status.FAILED, True)
        assert execution.manual == asked
        assert execution.reason == "lost: 3 claims in a row were never settled"

    def test_a_claim_for_nothing_ends_the_pause(self) -> None:
        job = pause(admit(HOURLY), T0, until=T0 + 150 * MINUTE)
        assert job.standing.due_at == T0 + 150 * MINUTE
        job, executions = passed_over(job, T0 + 4 * HOUR)
        assert executions == ()
        # It had ended at 2:30, however late that was noticed: 3:00 and 4:00 are late.
        assert (job.state, job.standing.due_at) == (State.ACTIVE, T0 + 3 * HOUR)
        assert begun(job, T0 + 4 * HOUR)[1].coalesced == 1


class TestWhatTheHandlerIsTold:
    @pytest.mark.parametrize(
        ("max_lost", "lost", "alone"), [(3, 1, False), (3, 2, True), (1, 0, False), (2, 1, True)]
    )
    def test_the_attempt_before_max_lost_is_made_alone(
        self, max_lost: int, lost: int, alone: bool
    ) -> None:
        job = admit(HOURLY, Policy(max_lost=max_lost))
        job = changed(job, lost=lost)
        assert begun(job, T0 + HOUR)[1].alone == alone

    def test_a_request_brings_its_arguments_and_is_never_late(self) -> None:
        job = admit(HOURLY, Policy(misfire=Drop(grace=SECOND)))
        job = request.trigger(job, now=T0, args={"a": "1"}).job
        _, start = begun(job, T0 + 30 * MINUTE)
        assert (start.kind, start.args) == (Kind.TRIGGERED, {"a": "1"})
        assert (start.coalesced, start.coalesced_until) == (0, None)

    def test_the_last_of_a_schedule_that_an_edit_shortened_is_told(self) -> None:
        """What an edit has added to what an occurrence covers is told like the rest."""
        change = edit(admit(HOURLY), T0 + 3 * HOUR + MINUTE, schedule=Interval(hours=2))
        _, start = begun(change.job, T0 + 3 * HOUR + MINUTE)
        assert (start.coalesced, start.coalesced_until) == (2, T0 + 3 * HOUR)
        assert start.scheduled_at == T0 + HOUR
