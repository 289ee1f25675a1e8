"""What the end of a run means, and what comes next."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest
from attrs import evolve
from tests.core.rules.steps import (
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
    running,
    scheduled,
    statuses,
    told,
)

from sched_core._model.claim import SUCCESS, Decision, Ended
from sched_core._model.execution import Kind, Status
from sched_core._model.job import Job
from sched_core._model.occurrence import State
from sched_core._model.policy import Policy, Retry, backoff
from sched_core._rules import operate, request
from sched_core._rules.finish import finish, postpone
from sched_core.schedule import Cron, FixedDelay, Interval, Once, Schedule

AT_QUARTER = Cron("15 * * * *")
"""A calendar that lacks every moment of an hourly job."""
SNOOZE = Ended(Status.SNOOZED, delay=20 * MINUTE)


class Cooling:
    """Another package's kind: it rests as long after each run as it first waited."""

    counts_from_end = True

    def first(self, anchor: datetime) -> datetime | None:
        return self.next_after(anchor, anchor)

    def next_after(self, moment: datetime, anchor: datetime) -> datetime | None:
        return moment + HOUR


class TestWhatComesNext:
    def test_it_is_computed_from_the_occurrence_so_that_nothing_drifts(self) -> None:
        job = admit(HOURLY)
        for hour in range(1, 50):
            job, execution = run(job, T0 + hour * HOUR + timedelta(minutes=hour))
            assert execution.scheduled_at == T0 + hour * HOUR
            assert job.next_run == T0 + (hour + 1) * HOUR

    @pytest.mark.parametrize("schedule", [FixedDelay(hours=1), Cooling()])
    def test_a_schedule_may_count_from_the_end_of_a_run(self, schedule: Schedule) -> None:
        claim, start = begun(admit(schedule), T0 + HOUR)
        job, _ = end(claim, start, T0 + 5 * HOUR)
        assert job.next_run == T0 + 6 * HOUR

    def test_every_occurrence_has_a_number_of_its_own(self) -> None:
        job, numbers = admit(HOURLY), []
        for hour in range(1, 5):
            job, execution = run(job, T0 + hour * HOUR, SUCCESS if hour % 2 else FAILURE)
            assert execution.final
            assert execution.id == f"uid:{execution.number}:1"
            numbers.append(execution.number)
        assert numbers == [1, 2, 3, 4]
        assert (scheduled(job).number, job.standing.last_number) == (5, 5)

    def test_the_last_fields_tell_how_the_newest_occurrence_ended(self) -> None:
        job, _ = run(admit(HOURLY), T0 + 61 * MINUTE, FAILURE)
        standing = job.standing
        assert standing.last_scheduled_at == T0 + HOUR
        assert standing.last_finished_at == T0 + 61 * MINUTE
        assert standing.last_status is Status.FAILED

    def test_what_passed_during_the_run_is_the_next_ones(self) -> None:
        claim, start = begun(admit(HOURLY), T0 + HOUR)
        job, (execution,) = end(claim, start, T0 + 4 * HOUR)
        assert execution.coalesced == 0
        _, start = begun(job, T0 + 4 * HOUR)
        assert (start.scheduled_at, start.coalesced) == (T0 + 2 * HOUR, 2)

    def test_a_submitted_job_expires_once_finished_and_a_declared_one_never_does(self) -> None:
        submitted, _ = run(admit(Once(T0), declared=False), T0)
        declared, _ = run(admit(Once(T0), declared=True), T0)
        assert submitted.standing.expires_at == T0 + timedelta(days=7)
        assert declared.standing.expires_at is None
        assert submitted.state is declared.state is State.FINISHED
        assert declared.standing.due_at is None


class TestFailure:
    def test_the_same_occurrence_becomes_due_again_after_growing_waits(self) -> None:
        policy = Policy(retry=Retry(attempts=4, backoff=SECOND, factor=3, maximum=5 * SECOND))
        job, now, waits = admit(HOURLY, policy), T0 + HOUR, []
        for attempt in (1, 2, 3):
            job, execution = run(job, now, FAILURE)
            assert (execution.number, execution.attempt) == (1, attempt)
            assert not execution.final
            due = scheduled(job).due_at
            waits.append(due - now)
            now = due
        assert waits == [SECOND, 3 * SECOND, 5 * SECOND]
        job, execution = run(job, now, FAILURE)
        assert (execution.attempt, execution.final, execution.reason) == (4, True, "ValueError: no")
        assert job.standing.due_at == T0 + 2 * HOUR
        one = scheduled(job)
        assert (one.number, one.attempts, one.failures, one.began_at) == (2, 0, 0, None)

    def test_only_failures_of_the_handler_count(self) -> None:
        job, execution = run(
            admit(HOURLY, Policy(retry=Retry(attempts=2))), T0 + HOUR, INTERRUPTION
        )
        assert (execution.status, execution.final) == (Status.INTERRUPTED, False)
        job, _ = lose(job, T0 + HOUR)
        job, _ = lose(job, T0 + 2 * HOUR)
        assert (scheduled(job).attempts, scheduled(job).failures) == (3, 0)
        job, execution = run(job, T0 + 3 * HOUR, FAILURE)
        assert (execution.id, execution.final) == ("uid:1:4", False)
        assert (scheduled(job).failures, scheduled(job).lost) == (1, 0)

    def test_the_wait_is_jittered_alike_everywhere(self) -> None:
        retry = Retry(attempts=9, backoff=MINUTE, factor=1, jitter=0.5)
        waits = {backoff(retry, 1, f"uid:1:{attempt}") for attempt in range(1, 50)}
        assert all(MINUTE <= wait <= 1.5 * MINUTE for wait in waits)
        assert len(waits) > 40
        assert backoff(retry, 1, "k") == backoff(retry, 1, "k")
        job, _ = run(admit(HOURLY, Policy(retry=retry)), T0 + HOUR, FAILURE)
        assert scheduled(job).due_at == T0 + HOUR + backoff(retry, 1, "uid:1:1")

    @pytest.mark.parametrize("factor", [1000, 1000.0, 1.0000001])
    @pytest.mark.parametrize("first", [timedelta(microseconds=1), timedelta.max])
    @pytest.mark.parametrize("failures", [1, 100, 999_999])
    def test_no_wait_overflows(self, factor: float, first: timedelta, failures: int) -> None:
        retry = Retry(
            attempts=1_000_000, backoff=first, factor=factor, maximum=timedelta.max, jitter=1
        )
        assert backoff(retry, failures, "key") > timedelta(0)
        job = changed(admit(HOURLY, Policy(retry=retry)), failures=failures - 1)
        job, _ = run(job, T0 + HOUR, FAILURE)
        assert scheduled(job).due_at > T0 + HOUR

    def test_no_backoff_is_no_wait_however_often_it_failed(self) -> None:
        retry = Retry(attempts=1_000_000, backoff=timedelta(0), factor=1000)
        assert backoff(retry, 900_000, "key") == timedelta(0)

    def test_a_failure_may_say_when_to_try_again(self) -> None:
        policy = Policy(retry=Retry(attempts=2, backoff=SECOND))
        said = Ended(Status.FAILED, "429", delay=17 * MINUTE)
        job, execution = run(admit(HOURLY, policy), T0 + HOUR, said)
        assert not execution.final
        assert scheduled(job).due_at == T0 + HOUR + 17 * MINUTE
        assert run(job, T0 + HOUR + 17 * MINUTE, said)[1].final

    def test_a_failure_may_say_never(self) -> None:
        said = Ended(Status.FAILED, "gone", retry=False)
        job, execution = run(admit(HOURLY, Policy(retry=Retry(attempts=9))), T0 + HOUR, said)
        assert execution.final
        assert (job.standing.failing, job.next_run) == (1, T0 + 2 * HOUR)

    def test_so_many_in_a_row_pause_the_job_and_say_why(self) -> None:
        policy = Policy(pause_after=2, retry=Retry(attempts=2, backoff=SECOND))
        job, now = admit(HOURLY, policy), T0 + HOUR
        for ended in (FAILURE, FAILURE, FAILURE, SUCCESS):  # one final failure, and a success
            job, _ = run(job, now, ended)
            now = scheduled(job).due_at
        assert job.standing.failing == 0
        for _ in range(4):
            assert job.state is State.ACTIVE
            job, _ = run(job, now, FAILURE)
            now = scheduled(job).due_at
        pause = job.standing.pause
        assert pause is not None
        assert (pause.reason, pause.until) == ("ValueError: no", None)
        assert job.standing.failing == 0
        resumed = operate.resume(job, at=now + 5 * HOUR)
        assert resumed.next_run == now + 6 * HOUR

    def test_failures_of_requests_pause_nothing(self) -> None:
        job = request.trigger(admit(HOURLY, Policy(pause_after=1)), now=T0).job
        job, execution = run(job, T0, FAILURE)
        assert execution.final
        assert (job.state, job.standing.failing) == (State.ACTIVE, 0)

    def test_lost_claims_pause_it_as_failures_do(self) -> None:
        job = changed(admit(HOURLY, Policy(pause_after=1, max_lost=2)), lost=2)
        job, (execution,) = passed_over(job, T0 + HOUR)
        assert (execution.status, job.state) == (Status.FAILED, State.PAUSED)


class TestInterrupted:
    def test_by_a_stop_it_is_due_as_early_as_it_was(self) -> None:
        job, _ = run(admit(HOURLY), T0 + HOUR + MINUTE, INTERRUPTION)
        assert job.standing.due_at == T0 + HOUR
        claim, start = begun(job, T0 + 2 * HOUR)
        job, _ = end(claim, start, T0 + 30 * MINUTE, INTERRUPTION)  # the clock was set back
        assert job.standing.due_at == T0 + 30 * MINUTE

    def test_by_the_store_it_waits_longer_each_time(self) -> None:
        by_store = Ended(Status.INTERRUPTED, "gone", by_store=True)
        job, now, waits = admit(HOURLY), T0 + HOUR, []
        for _ in range(8):
            job, _ = run(job, now, by_store)
            due = scheduled(job).due_at
            waits.append(due - now)
            now = due
        assert all(SECOND * 2**n <= wait <= 1.5 * SECOND * 2**n for n, wait in enumerate(waits[:6]))
        assert all(MINUTE <= wait <= 1.5 * MINUTE for wait in waits[6:])
        assert scheduled(job).failures == 0


class TestSnoozed:
    def test_it_is_neither_an_attempt_nor_a_failure_and_leaves_no_execution(self) -> None:
        claim, start = begun(admit(HOURLY), T0 + HOUR)
        job, executions = end(claim, start, T0 + HOUR, SNOOZE)
        one = scheduled(job)
        assert executions == ()
        assert (one.number, one.attempts, one.failures, one.snoozes) == (1, 0, 0, 1)
        assert one.due_at == T0 + HOUR + 20 * MINUTE
        job, execution = run(job, one.due_at)
        assert (execution.attempt, execution.snoozes, execution.final) == (1, 1, True)

    def test_one_too_many_is_a_failure(self) -> None:
        policy = Policy(max_snoozes=2, retry=Retry(attempts=2, backoff=SECOND))
        job, now = admit(HOURLY, policy), T0 + HOUR
        for _ in range(2):
            claim, start = begun(job, now)
            job, executions = end(claim, start, now, SNOOZE)
            assert executions == ()
            now = scheduled(job).due_at
        for final in (False, True):
            job, execution = run(job, now, SNOOZE)
            assert (execution.status, execution.final) == (Status.FAILED, final)
            assert execution.reason == "snoozed more than 2 times"
            now = scheduled(job).due_at

    def test_it_ends_a_row_of_lost_claims(self) -> None:
        job, _ = lose(admit(HOURLY), T0 + HOUR)
        claim, start = begun(job, T0 + 2 * HOUR)
        job, _ = end(claim, start, T0 + 2 * HOUR, SNOOZE)
        assert (scheduled(job).lost, scheduled(job).attempts) == (0, 1)


class TestCancelled:
    @pytest.mark.parametrize("ended", [FAILURE, INTERRUPTION, SNOOZE])
    def test_a_run_that_is_marked_ends_cancelled_and_is_not_attempted_again(
        self, ended: Ended
    ) -> None:
        claim, start = begun(admit(HOURLY, Policy(retry=Retry(attempts=9))), T0 + HOUR)
        stored = operate.cancel(evolve(claim.job, held=1, held_at=T0 + HOUR), now=T0 + HOUR)
        job, (execution,) = end(claim, start, T0 + HOUR, ended, stored=stored)
        assert (execution.status, execution.final) == (Status.CANCELLED, True)
        assert execution.attempt == 1
        assert (job.standing.cancels, job.next_run) == ((), T0 + 2 * HOUR)

    def test_one_that_succeeded_all_the_same_has_succeeded(self) -> None:
        claim, start = begun(admit(HOURLY), T0 + HOUR)
        stored = operate.cancel(evolve(claim.job, held=1, held_at=T0 + HOUR), now=T0 + HOUR)
        job, (execution,) = end(claim, start, T0 + HOUR, SUCCESS, stored=stored)
        assert (execution.status, job.standing.cancels) == (Status.SUCCEEDED, ())


class TestOnWhatIsStoredNow:
    @pytest.mark.parametrize("stored", [None, evolve(admit(Interval(hours=3)), uid="another")])
    @pytest.mark.parametrize("ended", [SUCCESS, FAILURE, INTERRUPTION, SNOOZE])
    def test_a_removed_or_added_job_is_left_alone(self, stored: Job | None, ended: Ended) -> None:
        claim, start = begun(admit(HOURLY, Policy(retry=Retry(attempts=5))), T0 + HOUR)
        decision = finish(claim, start, ended, started_at=T0 + HOUR, now=T0 + HOUR, stored=stored)
        assert decision.standing is None
        if ended is SNOOZE:  # the backend writes how it ended as it frees the claim
            assert decision.executions == ()
            return
        (execution,) = decision.executions
        assert (execution.status, execution.uid) == (ended.status, "uid")
        assert execution.final == (ended is not INTERRUPTION)

    def test_a_job_that_went_on_without_it_keeps_what_is_pending(self) -> None:
        claim, start = begun(admit(HOURLY), T0 + HOUR)
        stored = edit(claim.job, T0 + HOUR, schedule=Cron("30 * * * *")).job
        job, executions = end(claim, start, T0 + 2 * HOUR, stored=stored)
        assert statuses(executions) == [Status.SUCCEEDED]
        assert job.standing == evolve(
            stored.standing,
            last_scheduled_at=T0 + HOUR,
            last_finished_at=T0 + 2 * HOUR,
            last_status=Status.SUCCEEDED,
        )

    def test_a_job_that_was_edited_meanwhile_repeats_nothing_that_it_covered(self) -> None:
        claim, start = begun(admit(HOURLY), T0 + 5 * HOUR)
        stored = edit(running(claim.job, T0 + 5 * HOUR), T0 + 5 * HOUR, schedule=AT_QUARTER).job
        job, executions = end(claim, start, T0 + 5 * HOUR + MINUTE, stored=stored)
        assert told(executions) == [("succeeded", 1, 4)]
        assert job.standing.last_scheduled_at == T0 + 5 * HOUR
        job = evolve(job, held=None, held_at=None)
        back = T0 + 4 * HOUR + 50 * MINUTE
        assert edit(job, back, schedule=Cron("0 * * * *")).job.next_run == T0 + 6 * HOUR

    def test_nor_does_it_say_that_an_execution_was_snoozed(self) -> None:
        claim, start = begun(admit(HOURLY), T0 + HOUR)
        stored = edit(running(claim.job, T0 + HOUR), T0 + HOUR, schedule=AT_QUARTER).job
        snoozed = Ended(Status.SNOOZED, delay=HOUR)
        job, executions = end(claim, start, T0 + HOUR + MINUTE, snoozed, stored=stored)
        assert executions == ()
        assert job.standing.last_status is Status.SUPERSEDED

    @pytest.mark.parametrize("is_removed", [True, False], ids=["removed", "edited"])
    def test_its_snoozes_are_told_though_the_job_goes_on_without_it(self, is_removed: bool) -> None:
        job = changed(admit(HOURLY), snoozes=3)
        claim, start = begun(job, T0 + HOUR)
        there = None
        if not is_removed:
            there = edit(running(job, T0 + HOUR), T0 + HOUR, schedule=AT_QUARTER).job
        decision = finish(claim, start, SUCCESS, started_at=T0, now=T0 + HOUR, stored=there)
        assert [each.snoozes for each in decision.executions] == [3]

    def test_a_failure_of_what_was_edited_away_is_final(self) -> None:
        claim, start = begun(admit(HOURLY, Policy(retry=Retry(attempts=5))), T0 + HOUR)
        stored = edit(claim.job, T0 + HOUR, schedule=Cron("30 * * * *")).job
        job, (execution,) = end(claim, start, T0 + 61 * MINUTE, FAILURE, stored=stored)
        assert (execution.status, execution.final, execution.number) == (Status.FAILED, True, 1)
        assert (scheduled(job).number, job.standing.due_at) == (2, T0 + 90 * MINUTE)

    def test_the_policy_is_the_stored_one(self) -> None:
        claim, start = begun(admit(HOURLY), T0 + HOUR)
        stored = edit(claim.job, T0 + HOUR, policy=Policy(retry=Retry(attempts=2))).job
        job, (execution,) = end(claim, start, T0 + HOUR, FAILURE, stored=stored)
        assert not execution.final
        assert scheduled(job).number == 1

    def test_what_follows_is_the_stored_schedules(self) -> None:
        claim, start = begun(admit(HOURLY), T0 + 61 * MINUTE)
        stored = edit(claim.job, T0 + 61 * MINUTE, schedule=Interval(hours=5)).job
        job, _ = end(claim, start, T0 + 62 * MINUTE, stored=stored)
        assert job.next_run == T0 + 61 * MINUTE + 5 * HOUR

    @pytest.mark.parametrize("ended", [SUCCESS, FAILURE, INTERRUPTION, SNOOZE])
    def test_in_a_pause_what_follows_waits_for_its_end(self, ended: Ended) -> None:
        claim, start = begun(admit(HOURLY, Policy(retry=Retry(attempts=3))), T0 + HOUR)
        stored = pause(claim.job, T0 + HOUR)
        job, _ = end(claim, start, T0 + HOUR, ended, stored=stored)
        assert (job.state, job.standing.due_at) == (State.PAUSED, None)

    def test_a_request_that_came_meanwhile_is_next(self) -> None:
        claim, start = begun(admit(HOURLY), T0 + HOUR)
        asked = request.trigger(claim.job, now=T0 + HOUR)
        job, (execution,) = end(claim, start, T0 + HOUR, stored=asked.job)
        assert (execution.manual, execution.number) == (False, 1)
        _, execution = run(job, T0 + HOUR)
        assert (execution.kind, execution.number) == (Kind.TRIGGERED, asked.number)


class TestPostpone:
    def test_the_occurrence_comes_again_at_the_moment_and_it_was_no_attempt(self) -> None:
        job, until = admit(HOURLY), T0 + HOUR + SECOND
        decision = postpone(claimed(job, T0 + HOUR), until=until, now=T0 + HOUR, stored=job)
        assert decision.standing is not None
        assert decision.executions == ()
        assert decision.standing.due_at == until
        later = evolve(job, standing=decision.standing)
        assert scheduled(later) == evolve(scheduled(job), due_at=until)

    def test_others_of_the_job_do_not_wait_for_it(self) -> None:
        job, now = request.trigger(admit(HOURLY), now=T0 + HOUR).job, T0 + HOUR
        decision = postpone(claimed(job, now), until=T0 + 2 * HOUR, now=now, stored=job)
        assert decision.standing is not None
        _, start = begun(evolve(job, standing=decision.standing), now)
        assert start.kind is Kind.TRIGGERED

    @pytest.mark.parametrize("stored", ["edited", "removed", "added again"])
    def test_what_was_edited_away_is_left_to_the_call_that_frees_the_claim(
        self, stored: str
    ) -> None:
        job, now = admit(HOURLY), T0 + HOUR
        there = {
            "edited": edit(job, now, schedule=Cron("30 * * * *")).job,
            "removed": None,
            "added again": evolve(job, uid="another"),
        }[stored]
        claim = claimed(job, now)
        assert postpone(claim, until=now + SECOND, now=now, stored=there) == Decision(None)

    def test_a_claim_for_nothing_is_only_freed(self) -> None:
        job = pause(admit(HOURLY), T0, until=T0 + MINUTE)
        claim, now = claimed(job, T0 + MINUTE), T0 + MINUTE
        assert postpone(claim, until=now, now=now, stored=job) == Decision(None)

    def test_a_pause_meanwhile_holds_it(self) -> None:
        job, now = admit(HOURLY), T0 + HOUR
        claim, paused = claimed(job, now), pause(admit(HOURLY), now)
        decision = postpone(claim, until=T0 + 2 * HOUR, now=now, stored=paused)
        assert decision.standing is not None
        assert decision.standing.pause == paused.standing.pause
        assert decision.standing.due_at is None
