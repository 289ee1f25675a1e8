"""Triggers, reruns and backfills: occurrences that were asked for, with those of the schedule."""

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
    SECOND,
    T0,
    admit,
    begun,
    end,
    lose,
    pause,
    run,
    running,
    scheduled,
)

from sched_core._model.claim import Ended
from sched_core._model.execution import Kind, Status
from sched_core._model.job import Job
from sched_core._model.occurrence import MOST_REQUESTS, State
from sched_core._model.policy import Policy, Retry
from sched_core._rules.operate import resume
from sched_core._rules.request import backfill, rerun, trigger
from sched_core.errors import InvalidDefinition, TooManyRequests
from sched_core.schedule import AnyOf, Between, Cron, FixedDelay, Interval, Once

RETRY = Policy(retry=Retry(attempts=3, backoff=10 * MINUTE))


class TestTrigger:
    def test_it_is_one_more_occurrence_now_and_leaves_the_schedule_alone(self) -> None:
        asked = trigger(admit(HOURLY), now=T0 + MINUTE)
        job, execution = run(asked.job, T0 + 2 * MINUTE)
        assert (execution.kind, execution.scheduled_at) == (Kind.TRIGGERED, T0 + MINUTE)
        assert execution.number == asked.number == 2
        assert (job.standing.due_at, scheduled(job).number) == (T0 + HOUR, 1)
        assert job.standing.requests == ()

    def test_it_waits_for_no_retry_and_hurries_none(self) -> None:
        job, _ = run(admit(HOURLY, RETRY), T0 + HOUR, FAILURE)
        job, execution = run(trigger(job, now=T0 + HOUR + MINUTE).job, T0 + HOUR + MINUTE)
        assert (execution.manual, execution.attempt) == (True, 1)
        assert (scheduled(job).attempts, job.standing.due_at) == (1, T0 + HOUR + 10 * MINUTE)

    def test_behind_what_is_due_already_it_runs_right_after(self) -> None:
        job = trigger(admit(HOURLY), now=T0 + 61 * MINUTE).job
        job, first = run(job, T0 + 62 * MINUTE)
        job, second = run(job, T0 + 62 * MINUTE)
        assert (first.manual, second.manual) == (False, True)
        assert (second.scheduled_at, job.standing.due_at) == (T0 + 61 * MINUTE, T0 + 2 * HOUR)

    @pytest.mark.parametrize("ended", [FAILURE, INTERRUPTION, Ended(Status.SNOOZED)])
    def test_it_has_retries_of_its_own(self, ended: Ended) -> None:
        claim, start = begun(trigger(admit(HOURLY, RETRY), now=T0).job, T0)
        job, _ = end(claim, start, T0, ended)
        (one,) = job.standing.requests
        assert (one.number, one.key, one.origin) == (2, None, 2)
        _, execution = run(job, one.due_at)
        assert (execution.number, execution.status) == (2, Status.SUCCEEDED)

    def test_a_second_one_before_the_first_has_begun_is_the_same(self) -> None:
        asked = trigger(admit(HOURLY), now=T0 + MINUTE)
        again = trigger(asked.job, now=T0 + 2 * MINUTE)
        assert (again.job, again.number) == (asked.job, asked.number)

    def test_once_the_first_has_begun_it_is_another_one(self) -> None:
        job = trigger(admit(HOURLY, RETRY), now=T0).job
        lost, _ = lose(job, T0)
        failed, _ = run(job, T0, FAILURE)
        for begun_one in (running(job, T0), lost, failed):
            again = trigger(begun_one, now=T0 + HOUR)
            assert again.number == 3
            assert [one.number for one in again.job.standing.requests] == [2, 3]

    def test_a_retry_of_the_first_continues_alongside_it(self) -> None:
        job, _ = run(trigger(admit(HOURLY, RETRY), now=T0).job, T0, FAILURE)
        job, second = run(trigger(job, now=T0 + MINUTE).job, T0 + MINUTE)
        job, retry = run(job, T0 + 10 * MINUTE)
        assert [(second.number, second.attempt), (retry.number, retry.attempt)] == [(3, 1), (2, 2)]

    def test_what_comes_with_arguments_is_never_the_same(self) -> None:
        job = trigger(admit(HOURLY), now=T0, args={"a": "1"}).job
        asked = trigger(job, now=T0, args={"a": "1"})
        assert [one.args for one in asked.job.standing.requests] == [{"a": "1"}, {"a": "1"}]
        assert trigger(asked.job, now=T0).number == 4

    def test_a_key_that_has_ended_asks_again(self) -> None:
        asked = trigger(admit(HOURLY), now=T0, key="order 7")
        job, _ = run(asked.job, T0)
        assert trigger(job, now=T0 + MINUTE, key="order 7").number > asked.number

    def test_a_key_that_runs_is_the_same(self) -> None:
        asked = trigger(admit(HOURLY), now=T0, key="order 7")
        again = trigger(running(asked.job, T0), now=T0 + MINUTE, key="order 7")
        assert (again.number, again.job.standing) == (asked.number, asked.job.standing)

    @pytest.mark.parametrize("until", [None, T0 + DAY])
    def test_a_paused_job_runs_and_stays_paused(self, until: datetime | None) -> None:
        job = trigger(pause(admit(HOURLY), T0, until), now=T0 + MINUTE).job
        job, execution = run(job, T0 + MINUTE)
        assert execution.manual
        assert (job.state, job.standing.due_at) == (State.PAUSED, until)
        assert job.next_run == T0 + HOUR

    def test_in_a_pause_only_the_trigger_runs_with_its_retries(self) -> None:
        job, _ = run(admit(HOURLY, RETRY), T0 + HOUR, FAILURE)
        job = trigger(pause(job, T0 + HOUR), now=T0 + 2 * HOUR).job
        job, first = run(job, T0 + 2 * HOUR, FAILURE)
        assert (first.manual, job.standing.due_at) == (True, T0 + 2 * HOUR + 10 * MINUTE)
        job, second = run(job, T0 + 3 * HOUR)
        assert (second.manual, second.attempt) == (True, 2)
        assert job.standing.due_at is None

    def test_a_pause_holds_those_that_were_there(self) -> None:
        job = trigger(admit(HOURLY), now=T0).job
        paused = pause(job, T0)
        assert paused.standing.due_at is None
        # Another one runs in the pause: it is not the one that waits.
        asked = trigger(paused, now=T0 + MINUTE)
        assert (asked.number, asked.job.standing.due_at) == (3, T0 + MINUTE)
        assert run(resume(paused, at=T0 + MINUTE), T0 + MINUTE)[1].number == 2

    def test_a_finished_job_runs_and_is_finished_again(self) -> None:
        job, _ = run(admit(Once(T0), declared=False), T0)
        job = trigger(job, now=T0 + HOUR).job
        assert (job.state, job.standing.expires_at) == (State.ACTIVE, None)
        job, execution = run(job, T0 + HOUR)
        assert (execution.number, execution.manual) == (2, True)
        assert job.state is State.FINISHED
        assert job.standing.expires_at == T0 + HOUR + timedelta(days=7)

    def test_a_fixed_delay_is_not_moved_by_it(self) -> None:
        job, _ = run(trigger(admit(FixedDelay(hours=1)), now=T0).job, T0 + MINUTE)
        assert job.next_run == T0 + HOUR

    def test_the_schedules_last_moment_is_not_its(self) -> None:
        job, _ = run(trigger(admit(HOURLY), now=T0).job, T0)
        assert job.standing.last_scheduled_at is None
        assert (job.standing.last_finished_at, job.standing.last_status) == (T0, Status.SUCCEEDED)


class TestRerun:
    def test_it_runs_for_the_moment_that_has_had_one(self) -> None:
        job, failed = run(admit(HOURLY), T0 + HOUR, FAILURE)
        asked = rerun(job, failed.scheduled_at, now=T0 + 90 * MINUTE, key=failed.id)
        job, execution = run(asked.job, T0 + 90 * MINUTE)
        assert (execution.kind, execution.scheduled_at) == (Kind.RERUN, T0 + HOUR)
        assert execution.number == asked.number == 3
        assert job.next_run == T0 + 2 * HOUR

    def test_its_arguments_come_with_every_attempt(self) -> None:
        job = rerun(admit(HOURLY, RETRY), T0, now=T0, key="u:1:1", args={"a": "1"}).job
        for attempt in (1, 2, 3):
            (one,) = job.standing.requests
            claim, start = begun(job, one.due_at)
            assert (start.attempt, start.args) == (attempt, {"a": "1"})
            job, _ = end(claim, start, one.due_at, FAILURE)

    def test_of_another_execution_it_is_another_request(self) -> None:
        asked = rerun(admit(HOURLY), T0, now=T0, key="u:1:1")
        assert rerun(asked.job, T0, now=T0, key="u:2:1").number != asked.number

    def test_the_same_text_as_the_key_of_a_trigger_is_not_the_same(self) -> None:
        asked = trigger(admit(HOURLY), now=T0, key="u:1:1")
        assert rerun(asked.job, T0, now=T0, key="u:1:1").number != asked.number


class TestBackfill:
    NOW = T0 + 5 * HOUR + 30 * MINUTE

    def asked(self) -> Job:
        job = admit(HOURLY, RETRY, now=T0)
        job = evolve(job, standing=evolve(job.standing, scheduled=None, last_number=9))
        return backfill(job, since=T0 + HOUR, until=T0 + 3 * HOUR, now=self.NOW).job

    def test_every_moment_of_the_range_runs_one_after_the_other(self) -> None:
        job, found = self.asked(), []
        while job.standing.requests:
            job, execution = run(job, self.NOW)
            assert execution.kind is Kind.BACKFILLED
            found.append((execution.number, execution.scheduled_at))
        assert found == [(10, T0 + HOUR), (11, T0 + 2 * HOUR), (12, T0 + 3 * HOUR)]

    def test_it_is_one_request_however_long_and_the_same_until_its_end(self) -> None:
        job, _ = run(self.asked(), self.NOW)
        again = backfill(job, since=T0 + HOUR, until=T0 + 3 * HOUR, now=self.NOW)
        assert again.job is job
        assert len(job.standing.requests) == 1
        other = backfill(job, since=T0 + HOUR, until=T0 + 2 * HOUR, now=self.NOW)
        assert len(other.job.standing.requests) == 2

    def test_a_failure_is_retried_before_the_next_moment_and_final_it_goes_on(self) -> None:
        job, now = self.asked(), self.NOW
        for attempt in (1, 2, 3):
            job, execution = run(job, now, FAILURE)
            assert (execution.scheduled_at, execution.attempt) == (T0 + HOUR, attempt)
            assert job.standing.due_at is not None
            now = max(now, job.standing.due_at)
        assert execution.final
        assert run(job, now)[1].scheduled_at == T0 + 2 * HOUR

    def test_a_pause_holds_the_rest_of_it(self) -> None:
        job, _ = run(self.asked(), self.NOW)
        job = pause(job, self.NOW)
        assert job.standing.due_at is None
        claim, start = begun(resume(job, at=self.NOW + MINUTE), self.NOW + MINUTE)
        held = pause(running(claim.job, self.NOW + MINUTE), self.NOW + MINUTE)
        job, _ = end(claim, start, self.NOW + MINUTE, stored=held)
        assert len(job.standing.requests) == 1
        assert job.standing.due_at is None

    def test_one_that_was_asked_for_in_a_pause_runs_as_a_whole(self) -> None:
        paused = pause(admit(HOURLY), T0)
        job = backfill(paused, since=T0 + HOUR, until=T0 + 3 * HOUR, now=self.NOW).job
        for _ in range(3):
            job, _ = run(job, self.NOW)
        assert (job.standing.requests, job.standing.due_at) == ((), None)

    @pytest.mark.parametrize(
        ("since", "until"),
        [
            (T0 + 4 * HOUR + SECOND, T0 + 5 * HOUR - SECOND),
            (T0 + 3 * HOUR, T0 + 2 * HOUR),
            (T0 + 3 * HOUR, T0 + 6 * HOUR),
        ],
        ids=["nothing in it", "upside down", "not over"],
    )
    def test_a_range_without_a_moment_that_has_passed_is_refused(
        self, since: datetime, until: datetime
    ) -> None:
        with pytest.raises(InvalidDefinition, match="start"):
            backfill(admit(HOURLY), since=since, until=until, now=self.NOW)

    def test_a_fixed_delay_has_no_moments_to_ask_for(self) -> None:
        with pytest.raises(InvalidDefinition, match="start"):
            backfill(admit(FixedDelay(hours=1)), since=T0, until=T0 + HOUR, now=self.NOW)

    def test_an_interval_has_none_before_its_anchor_and_a_calendar_has(self) -> None:
        for schedule, first in (
            (HOURLY, T0 + HOUR),
            (Between(HOURLY, end=T0 + DAY), T0 + HOUR),
            (AnyOf(HOURLY, Interval(hours=5, start=T0 - DAY)), T0 + HOUR),
            (Between(Cron("0 * * * *"), end=T0 + DAY), T0 - 2 * HOUR),
            (Interval(hours=1, start=T0 - DAY), T0 - 2 * HOUR),
            (Cron("0 * * * *"), T0 - 2 * HOUR),
        ):
            asked = backfill(admit(schedule), since=T0 - 2 * HOUR, until=self.NOW, now=self.NOW)
            assert asked.job.standing.requests[0].scheduled_at == first

    def test_moments_inside_a_pause_can_be_asked_for(self) -> None:
        job = resume(pause(admit(HOURLY), T0), at=T0 + 5 * HOUR + MINUTE)
        asked = backfill(job, since=T0 + 2 * HOUR, until=T0 + 3 * HOUR, now=self.NOW)
        assert asked.job.standing.requests[0].scheduled_at == T0 + 2 * HOUR


class TestHowMany:
    def test_sixteen_may_wait_and_one_that_has_ended_makes_room(self) -> None:
        job = admit(HOURLY)
        for number in range(MOST_REQUESTS):
            job = trigger(job, now=T0, key=str(number)).job
        with pytest.raises(TooManyRequests, match="let them run, or cancel some"):
            backfill(job, since=T0, until=T0 + HOUR, now=T0 + HOUR)
        with pytest.raises(TooManyRequests):
            rerun(job, T0, now=T0, key="x")
        assert trigger(job, now=T0, key="3").job is job
        job, _ = run(job, T0)
        assert len(trigger(job, now=T0).job.standing.requests) == MOST_REQUESTS
