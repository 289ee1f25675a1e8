"""Admitted, edited, removed: what a definition makes of occurrences that are there."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest
from attrs import evolve
from tests.core.rules.steps import (
    DAY,
    FAILURE,
    HOUR,
    HOURLY,
    MINUTE,
    T0,
    admit,
    begun,
    edit,
    end,
    lose,
    pause,
    run,
    running,
    scheduled,
    statuses,
    told,
)

from sched_core._model.claim import Change
from sched_core._model.execution import Status
from sched_core._model.job import Job
from sched_core._model.occurrence import State
from sched_core._model.policy import CatchUp, Policy, Retry
from sched_core._rules import define, operate, request
from sched_core.errors import InvalidDefinition
from sched_core.schedule import Cron, FixedDelay, Interval, Once, Schedule

RETRY = Policy(retry=Retry(attempts=3, backoff=10 * MINUTE))
AT_HALF = Cron("30 * * * *")
"""A calendar that lacks every moment of an hourly job."""


class Never:
    def first(self, anchor: datetime) -> datetime | None:
        return None

    def next_after(self, moment: datetime, anchor: datetime) -> datetime | None:
        return None


class TestAdmit:
    @pytest.mark.parametrize(
        ("schedule", "first"),
        [
            (Once(T0 + HOUR), T0 + HOUR),
            (Once(T0 - DAY), T0 - DAY),
            (Interval(hours=24), T0 + DAY),
            (Interval(hours=24, start=T0), T0),
            (Interval(hours=24, start=T0 - HOUR), T0 + 23 * HOUR),
            (Cron("0 3 * * *"), T0 + 3 * HOUR),
            (FixedDelay(minutes=5), T0 + 5 * MINUTE),
        ],
    )
    def test_the_first_occurrence_is_the_schedules_first(
        self, schedule: Schedule, first: datetime
    ) -> None:
        job = admit(schedule)
        assert (job.state, scheduled(job).number) == (State.ACTIVE, 1)
        assert job.next_run == job.standing.due_at == first

    def test_a_one_shot_in_the_past_runs_at_once_and_is_named_by_its_moment(self) -> None:
        job, execution = run(admit(Once(T0 - DAY)), T0)
        assert execution.scheduled_at == T0 - DAY
        assert job.state is State.FINISHED

    def test_a_schedule_without_a_moment_is_finished_from_the_start(self) -> None:
        job = admit(Never(), declared=False)
        assert (job.state, job.standing.due_at) == (State.FINISHED, None)
        assert job.standing.expires_at == T0 + timedelta(days=7)

    def test_a_schedule_that_returns_a_naive_moment_is_refused(self) -> None:
        class Naive(Never):
            def first(self, anchor: datetime) -> datetime | None:
                return anchor.replace(tzinfo=None)

        with pytest.raises(InvalidDefinition, match="naive"):
            admit(Naive())

    def test_jitter_delays_the_claim_alike_everywhere_and_never_the_name(self) -> None:
        policy = Policy(jitter=MINUTE)
        one, same = scheduled(admit(HOURLY, policy)), scheduled(admit(HOURLY, policy))
        assert T0 + HOUR < one.due_at < T0 + HOUR + MINUTE
        assert one == same
        assert one.scheduled_at == T0 + HOUR

    def test_the_longest_jitter_does_not_overflow(self) -> None:
        assert scheduled(admit(HOURLY, Policy(jitter=timedelta.max))).due_at > T0 + HOUR


class TestAnnounced:
    def announced(self) -> Job:
        return define.placeholder(admit(HOURLY).spec, uid="uid", now=T0)

    def test_it_is_not_due_and_the_next_process_to_declare_it_finishes_the_work(self) -> None:
        job = self.announced()
        assert (job.state, job.standing.due_at) == (State.PAUSED, None)
        change = define.redefine(job, job.spec, declared=True, now=T0 + DAY)
        assert change == Change(admit(HOURLY, now=T0 + DAY))

    def test_a_resume_and_a_trigger_begin_it_too(self) -> None:
        resumed = operate.resume(self.announced(), at=T0 + DAY)
        assert (resumed.next_run, resumed.anchor) == (T0 + DAY + HOUR, T0 + DAY)
        job = request.trigger(self.announced(), now=T0 + DAY).job
        assert (job.state, job.next_run) == (State.ACTIVE, T0 + DAY + HOUR)
        assert run(job, T0 + DAY)[1].manual

    def test_a_removal_leaves_nothing(self) -> None:
        assert define.final_executions(self.announced(), now=T0 + DAY) == ()


class TestRedefine:
    @pytest.mark.parametrize(
        "schedule", [HOURLY, Once(T0), Cron("0 3 * * *"), FixedDelay(minutes=1), Never()]
    )
    def test_the_same_definition_changes_nothing(self, schedule: Schedule) -> None:
        job = admit(schedule)
        assert define.redefine(job, job.spec, declared=True, now=T0 + 400 * DAY) is None

    def test_only_a_changed_schedule_moves_anything(self) -> None:
        job, _ = run(admit(HOURLY, RETRY), T0 + HOUR, FAILURE)
        for changes in ({"metadata": {"a": "b"}}, {"name": "n"}, {"policy": Policy(max_lost=1)}):
            kept = edit(job, T0 + 2 * HOUR, **changes)
            assert (kept.job.anchor, kept.job.standing) == (T0, job.standing)
            assert kept.executions == ()

    def test_what_is_not_due_is_replaced_and_leaves_no_execution(self) -> None:
        change = edit(admit(HOURLY), T0 + 59 * MINUTE, schedule=Interval(hours=2))
        assert change.executions == ()
        assert change.job.anchor == T0 + 59 * MINUTE
        one = scheduled(change.job)
        assert (one.number, one.scheduled_at) == (2, T0 + 59 * MINUTE + 2 * HOUR)

    def test_what_is_due_is_kept_for_all_that_was_due_behind_it(self) -> None:
        change = edit(admit(HOURLY), T0 + 3 * HOUR + MINUTE, schedule=Interval(hours=5))
        assert change.executions == ()
        job, execution = run(change.job, T0 + 4 * HOUR)
        assert told((execution,)) == [("succeeded", 1, 2)]
        assert execution.coalesced_until == T0 + 3 * HOUR
        assert job.next_run == T0 + 8 * HOUR + MINUTE

    def test_each_further_edit_adds_what_became_due(self) -> None:
        change = edit(admit(HOURLY), T0 + 2 * HOUR, schedule=Interval(minutes=90))
        change = edit(change.job, T0 + 4 * HOUR, schedule=Interval(hours=5))
        job, execution = run(change.job, T0 + 4 * HOUR)
        assert (execution.scheduled_at, execution.coalesced) == (T0 + HOUR, 2)
        assert execution.coalesced_until == T0 + 210 * MINUTE
        assert job.next_run == T0 + 9 * HOUR

    def test_a_retry_that_waits_is_kept_and_what_was_due_behind_it_is_superseded(self) -> None:
        policy = evolve(RETRY, retry=Retry(attempts=3, backoff=4 * HOUR, maximum=DAY))
        job, _ = run(admit(HOURLY, policy), T0 + HOUR, FAILURE)
        change = edit(job, T0 + 3 * HOUR, schedule=Interval(hours=9))
        assert told(change.executions) == [("superseded", 2, 1)]
        assert change.executions[0].number == 2
        one = scheduled(change.job)
        assert (one.number, one.failures, one.due_at) == (1, 1, T0 + 5 * HOUR)
        job, execution = run(change.job, T0 + 5 * HOUR)
        assert (execution.attempt, execution.coalesced) == (2, 0)
        assert job.next_run == T0 + 12 * HOUR

    def test_a_calendar_that_lacks_it_supersedes_it_with_all_behind_it(self) -> None:
        change = edit(admit(HOURLY), T0 + 3 * HOUR + MINUTE, schedule=AT_HALF)
        (execution,) = change.executions
        assert told(change.executions) == [("superseded", 1, 2)]
        assert (execution.final, execution.attempt) == (True, 0)
        assert execution.reason == "edited or removed"
        one = scheduled(change.job)
        assert (one.number, one.scheduled_at) == (2, T0 + 3 * HOUR + 30 * MINUTE)

    def test_it_ends_the_retries_of_what_it_lacks(self) -> None:
        job, _ = run(admit(HOURLY, RETRY), T0 + HOUR, FAILURE)
        change = edit(job, T0 + HOUR, schedule=AT_HALF)
        assert told(change.executions) == [("superseded", 1, 0)]
        one = scheduled(change.job)
        assert (one.number, one.attempts, one.failures) == (2, 0, 0)

    def test_what_is_held_is_kept_and_what_was_due_behind_it_has_its_end(self) -> None:
        """What an occurrence covers is fixed at its claim, also while only that shows it."""
        claim, start = begun(admit(HOURLY, RETRY), T0 + HOUR)
        change = edit(running(claim.job, T0 + HOUR), T0 + 3 * HOUR, schedule=Interval(hours=9))
        assert told(change.executions) == [("superseded", 2, 1)]
        stored = evolve(change.job, held=None, held_at=None)
        job, executions = end(claim, start, T0 + 3 * HOUR, FAILURE, stored=stored)
        assert told(executions) == [("failed", 1, 0)]
        assert begun(job, T0 + 4 * HOUR)[1].attempt == 2

    def test_a_finished_one_shot_stays_finished_unless_its_schedule_changes(self) -> None:
        job, _ = run(admit(Once(T0)), T0)
        assert edit(job, T0 + DAY, metadata={"a": "b"}).job.state is State.FINISHED
        again = edit(job, T0 + DAY, schedule=Once(T0 + 2 * DAY)).job
        assert (again.state, again.standing.due_at) == (State.ACTIVE, T0 + 2 * DAY)
        assert scheduled(again).number == 2

    def test_an_edit_to_nothing_finishes_the_job(self) -> None:
        change = edit(admit(HOURLY, declared=False), T0, schedule=Never())
        assert change.job.state is State.FINISHED
        assert change.job.standing.expires_at == T0 + timedelta(days=7)

    def test_declaring_a_submitted_job_keeps_it_without_end(self) -> None:
        job, _ = run(admit(Once(T0), declared=False), T0)
        change = define.redefine(job, job.spec, declared=True, now=T0 + HOUR)
        assert change is not None
        assert change.job.declared
        assert change.job.standing.expires_at is None
        assert change.job.state is State.FINISHED

    def test_a_shorter_keep_finished_counts_from_the_edit(self) -> None:
        job, _ = run(admit(Once(T0), declared=False), T0)
        change = edit(job, T0 + HOUR, policy=Policy(keep_finished=DAY))
        assert change.job.standing.expires_at == T0 + HOUR + DAY

    def test_requests_are_untouched(self) -> None:
        job = request.trigger(admit(HOURLY, RETRY), now=T0).job
        job, _ = run(job, T0, FAILURE)
        job = request.trigger(job, now=T0 + MINUTE, key="k", args={"a": "1"}).job
        change = edit(job, T0 + 2 * HOUR, schedule=AT_HALF)
        assert told(change.executions) == [("superseded", 1, 1)]
        assert change.job.standing.requests == job.standing.requests

    def test_a_paused_job_stays_paused(self) -> None:
        job = operate.pause(admit(HOURLY), until=None, reason="why", now=T0 + MINUTE)
        change = edit(job, T0 + 2 * HOUR, schedule=AT_HALF)
        assert change.executions == ()  # it was in the pause, and so not due
        assert change.job.standing.pause == job.standing.pause
        assert change.job.standing.due_at is None
        assert operate.resume(change.job, at=T0 + 3 * HOUR).next_run == T0 + 3 * HOUR + 30 * MINUTE

    def test_a_pause_that_has_ended_unseen_is_over(self) -> None:
        job = pause(admit(HOURLY), T0, until=T0 + 90 * MINUTE)
        change = edit(job, T0 + 150 * MINUTE, schedule=Cron("45 * * * *"))
        assert told(change.executions) == [("superseded", 2, 0)]
        assert change.job.state is State.ACTIVE

    def test_the_mark_of_a_skip_goes_with_the_schedule(self) -> None:
        job = operate.skip_next(admit(HOURLY), now=T0)
        assert edit(job, T0, schedule=Interval(hours=2)).job.standing.skip is None
        assert edit(job, T0, name="n").job.standing.skip == T0 + HOUR

    @pytest.mark.parametrize("schedule", [AT_HALF, Interval(hours=3)])
    def test_what_is_to_be_cancelled_has_its_end_and_does_not_run(self, schedule: Schedule) -> None:
        job = operate.cancel(admit(HOURLY), now=T0, number=1)
        change = edit(job, T0 + MINUTE, schedule=schedule)
        assert told(change.executions) == [("superseded", 1, 0)]
        assert scheduled(change.job).number == 2


class TestRetire:
    def test_what_was_not_due_leaves_no_execution(self) -> None:
        assert define.final_executions(admit(HOURLY), now=T0 + 59 * MINUTE) == ()

    @pytest.mark.parametrize("policy", [Policy(), Policy(misfire=CatchUp(limit=2))])
    def test_one_execution_is_for_all_that_was_due(self, policy: Policy) -> None:
        (execution,) = define.final_executions(admit(HOURLY, policy), now=T0 + 5 * HOUR + MINUTE)
        assert (execution.status, execution.final) == (Status.SUPERSEDED, True)
        assert (execution.scheduled_at, execution.coalesced) == (T0 + HOUR, 4)
        assert execution.coalesced_until == T0 + 5 * HOUR

    def test_what_has_begun_ends_alone_and_what_was_due_behind_it_in_another(self) -> None:
        job, _ = run(admit(HOURLY, RETRY), T0 + HOUR, FAILURE)
        executions = define.final_executions(job, now=T0 + 3 * HOUR)
        assert told(executions) == [("superseded", 1, 0), ("superseded", 2, 1)]
        assert len({each.number for each in executions}) == 2

    def test_what_a_lost_claim_has_begun_ends_before_it_is_due_again(self) -> None:
        job, _ = lose(admit(HOURLY), T0 + HOUR)
        assert told(define.final_executions(job, now=T0 + HOUR)) == [("superseded", 1, 0)]

    def test_what_lay_in_a_pause_is_not_among_it(self) -> None:
        paused = pause(admit(HOURLY), T0 + 2 * HOUR)
        assert told(define.final_executions(paused, now=T0 + 5 * HOUR)) == [("superseded", 1, 1)]
        assert define.final_executions(pause(admit(HOURLY), T0), now=T0 + 5 * HOUR) == ()

    def test_every_request_has_its_end_a_backfill_with_its_rest(self) -> None:
        job = request.trigger(admit(HOURLY), now=T0 + 150 * MINUTE).job
        job = request.backfill(job, since=T0 + HOUR, until=T0 + 2 * HOUR, now=T0 + 150 * MINUTE).job
        executions = define.final_executions(job, now=T0 + 150 * MINUTE)
        assert statuses(executions) == [Status.SUPERSEDED] * 3
        assert [(each.number, each.coalesced) for each in executions] == [(1, 1), (2, 0), (3, 1)]

    def test_a_finished_job_leaves_none(self) -> None:
        job, _ = run(admit(Once(T0)), T0)
        assert define.final_executions(job, now=T0 + DAY) == ()
