"""Every rule of ``docs/semantics.md``, on ``lifecycle`` alone: values in, values out."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime, timedelta

import pytest
from attrs import evolve
from hypothesis import given, settings
from hypothesis import strategies as st

from sched_core import lifecycle
from sched_core.errors import InvalidDefinition, NothingToSkip
from sched_core.job import (
    Claim,
    Execution,
    Job,
    JobSpec,
    LostClaim,
    State,
    Status,
    abandoned_lines,
    occurrence_key,
    pending,
)
from sched_core.lifecycle import SUCCESS, Change, Decision, Ended, Start
from sched_core.policy import Coalesce, Drop, Policy, Retry, RunAll
from sched_core.schedule import Cron, FixedDelay, Interval, Once, Schedule

T0 = datetime(2026, 1, 1, tzinfo=UTC)
SECOND, MINUTE, HOUR, DAY = (
    timedelta(seconds=1),
    timedelta(minutes=1),
    timedelta(hours=1),
    timedelta(days=1),
)
FAILURE = Ended(Status.FAILED, "ValueError: no")
INTERRUPTION = Ended(Status.INTERRUPTED, "stop")
HOURLY = Interval(hours=1)
TOKENS = itertools.count(1)


def admit(
    schedule: Schedule, policy: Policy | None = None, *, declared: bool = True, now: datetime = T0
) -> Job:
    spec = JobSpec("job", schedule, policy=policy or Policy())
    return lifecycle.admit(spec, uid="uid", declared=declared, now=now)


def claimed(job: Job, now: datetime, *, lost: int = 0) -> Claim:
    losses = LostClaim(lost, "gone", now - MINUTE) if lost else None
    return Claim(job, next(TOKENS), "worker", now, now + SECOND * 30, losses)


def begun(job: Job, now: datetime, *, lost: int = 0) -> tuple[Claim, Start]:
    claim = claimed(job, now, lost=lost)
    start = lifecycle.begin(claim, now=now)
    assert isinstance(start, Start)
    return claim, start


def fate(job: Job, now: datetime, *, lost: int = 0) -> tuple[Job, tuple[Execution, ...]]:
    decision = lifecycle.begin(claimed(job, now, lost=lost), now=now)
    assert isinstance(decision, Decision)
    assert decision.standing is not None
    return evolve(job, standing=decision.standing), decision.ledger


def end(
    claim: Claim, start: Start, now: datetime, ended: Ended = SUCCESS, *, stored: Job | None = None
) -> tuple[Job, tuple[Execution, ...]]:
    stored = claim.job if stored is None else stored
    decision = lifecycle.finish(claim, start, ended, started_at=now, now=now, stored=stored)
    assert decision.standing is not None
    return evolve(stored, standing=decision.standing), decision.ledger


def run(job: Job, now: datetime, ended: Ended = SUCCESS) -> tuple[Job, Execution]:
    claim, start = begun(job, now)
    job, lines = end(claim, start, now, ended)
    assert len(lines) == 1
    return job, lines[0]


def edit(job: Job, now: datetime, **changes: object) -> Change:
    change = lifecycle.redefine(job, evolve(job.spec, **changes), now=now)  # type: ignore[arg-type]  # names of fields
    assert change is not None
    return change


def statuses(lines: tuple[Execution, ...]) -> list[Status]:
    return [line.status for line in lines]


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
    def test_first_occurrence_is_the_schedules_first(
        self, schedule: Schedule, first: datetime
    ) -> None:
        standing = admit(schedule).standing
        assert (standing.state, standing.number) == (State.ACTIVE, 1)
        assert standing.next_run == standing.due_at == first

    def test_a_one_shot_in_the_past_runs_at_once_and_is_named_by_its_moment(self) -> None:
        job, line = run(admit(Once(T0 - DAY)), T0)
        assert line.scheduled_at == T0 - DAY
        assert job.standing.state is State.FINISHED

    def test_a_schedule_without_a_moment_is_finished_from_the_start(self) -> None:
        class Never:
            def first(self, anchor: datetime) -> datetime | None:
                return None

            def next_after(self, moment: datetime, anchor: datetime) -> datetime | None:
                return None

        standing = admit(Never(), declared=False).standing
        assert (standing.state, standing.due_at) == (State.FINISHED, None)
        assert standing.expires_at == T0 + timedelta(days=7)

    def test_a_schedule_that_returns_a_naive_moment_is_refused(self) -> None:
        class Naive:
            def first(self, anchor: datetime) -> datetime | None:
                return anchor.replace(tzinfo=None)

            def next_after(self, moment: datetime, anchor: datetime) -> datetime | None:
                return None

        with pytest.raises(InvalidDefinition, match="naive"):
            admit(Naive())

    def test_jitter_delays_the_handing_out_alike_everywhere_and_never_the_name(self) -> None:
        policy = Policy(jitter=MINUTE)
        job, same = admit(HOURLY, policy), admit(HOURLY, policy)
        due = job.standing.due_at
        assert due is not None
        assert T0 + HOUR < due < T0 + HOUR + MINUTE
        assert due == same.standing.due_at
        assert job.standing.next_run == T0 + HOUR

    def test_the_longest_jitter_does_not_overflow(self) -> None:
        due = admit(HOURLY, Policy(jitter=timedelta.max)).standing.due_at
        assert due is not None
        assert due > T0 + HOUR


class TestWhatComesNext:
    def test_it_is_computed_from_the_occurrence_so_that_nothing_drifts(self) -> None:
        job = admit(HOURLY)
        for hour in range(1, 50):
            job, line = run(job, T0 + hour * HOUR + timedelta(minutes=hour))
            assert line.scheduled_at == T0 + hour * HOUR
            assert job.standing.next_run == T0 + (hour + 1) * HOUR

    def test_a_fixed_delay_counts_from_the_end_of_a_run(self) -> None:
        claim, start = begun(admit(FixedDelay(hours=1)), T0 + HOUR)
        job, _ = end(claim, start, T0 + 5 * HOUR)
        assert job.standing.next_run == T0 + 6 * HOUR

    def test_every_final_line_moves_the_number_up(self) -> None:
        job, numbers = admit(HOURLY), []
        for hour in range(1, 5):
            job, line = run(job, T0 + hour * HOUR, SUCCESS if hour % 2 else FAILURE)
            assert line.final
            numbers.append(line.number)
            assert line.id == f"uid:{line.number}:1"
        assert numbers == [1, 2, 3, 4]
        assert job.standing.number == 5

    def test_the_last_fields_tell_how_the_newest_occurrence_ended(self) -> None:
        job, _ = run(admit(HOURLY), T0 + 61 * MINUTE, FAILURE)
        standing = job.standing
        assert standing.last_scheduled_at == T0 + HOUR
        assert standing.last_finished_at == T0 + 61 * MINUTE
        assert standing.last_status is Status.FAILED


class TestFinished:
    def test_a_submitted_job_expires_and_a_declared_one_never_does(self) -> None:
        submitted, _ = run(admit(Once(T0), declared=False), T0)
        declared, _ = run(admit(Once(T0), declared=True), T0)
        assert submitted.standing.expires_at == T0 + timedelta(days=7)
        assert declared.standing.expires_at is None
        assert declared.standing.due_at is None

    def test_declaring_a_submitted_job_keeps_it_for_ever(self) -> None:
        job, _ = run(admit(Once(T0), declared=False), T0)
        change = lifecycle.redefine(job, job.spec, declared=True, now=T0 + HOUR)
        assert change is not None
        assert change.job.declared
        assert change.job.standing.expires_at is None
        assert change.job.standing.state is State.FINISHED

    @pytest.mark.parametrize("keep", [None, timedelta.max])
    def test_kept_for_ever_means_no_expiry(self, keep: timedelta | None) -> None:
        policy = Policy(keep_finished=keep, keep_executions=keep)
        job, line = run(admit(Once(T0), policy, declared=False), T0)
        assert job.standing.expires_at is None
        assert line.expires_at is None

    def test_a_shorter_keep_finished_applies_from_the_edit(self) -> None:
        job, _ = run(admit(Once(T0), declared=False), T0)
        change = edit(job, T0 + HOUR, policy=Policy(keep_finished=DAY))
        assert change.job.standing.expires_at == T0 + HOUR + DAY


class TestRedefine:
    @pytest.mark.parametrize(
        "schedule", [HOURLY, Once(T0), Cron("0 3 * * *"), FixedDelay(minutes=1)]
    )
    def test_the_same_definition_changes_nothing(self, schedule: Schedule) -> None:
        job = admit(schedule)
        assert lifecycle.redefine(job, job.spec, declared=True, now=T0 + 400 * DAY) is None

    def test_only_a_changed_schedule_moves_anchor_and_next_run(self) -> None:
        job = admit(HOURLY)
        for changes in ({"metadata": {"a": "b"}}, {"name": "n"}, {"policy": Policy(max_lost=1)}):
            kept = edit(job, T0 + 30 * MINUTE, **changes)
            assert (kept.job.anchor, kept.job.standing) == (T0, job.standing)
            assert not kept.ledger
        moved = edit(job, T0 + 30 * MINUTE, schedule=Interval(hours=2))
        assert moved.job.anchor == T0 + 30 * MINUTE
        assert moved.job.standing.next_run == T0 + 150 * MINUTE
        assert moved.job.standing.number == 2

    def test_metadata_and_policy_keep_the_retry_state(self) -> None:
        job, _ = run(admit(HOURLY, Policy(retry=Retry(attempts=3))), T0 + HOUR, FAILURE)
        for changes in ({"metadata": {"a": "b"}}, {"policy": Policy(retry=Retry(attempts=9))}):
            assert edit(job, T0 + HOUR, **changes).job.standing == job.standing

    def test_a_schedule_edit_ends_the_retries(self) -> None:
        job, _ = run(admit(HOURLY, Policy(retry=Retry(attempts=3))), T0 + HOUR, FAILURE)
        change = edit(job, T0 + HOUR, schedule=Interval(hours=2))
        (line,) = change.ledger
        assert (line.status, line.number, line.final) == (Status.SUPERSEDED, 1, True)
        standing = change.job.standing
        assert (standing.number, standing.attempts, standing.failures) == (2, 0, 0)
        assert standing.due_at == T0 + 3 * HOUR

    def test_what_was_due_is_superseded_and_what_was_not_due_has_no_line(self) -> None:
        job, two = admit(HOURLY), Interval(hours=2)
        assert edit(job, T0 + 59 * MINUTE, schedule=two).ledger == ()
        (line,) = edit(job, T0 + 61 * MINUTE, schedule=two).ledger
        assert (line.status, line.scheduled_at) == (Status.SUPERSEDED, T0 + HOUR)

    def test_a_finished_one_shot_stays_finished_unless_its_schedule_changes(self) -> None:
        job, _ = run(admit(Once(T0)), T0)
        assert edit(job, T0 + DAY, metadata={"a": "b"}).job.standing.state is State.FINISHED
        again = edit(job, T0 + DAY, schedule=Once(T0 + 2 * DAY)).job.standing
        assert (again.state, again.due_at) == (State.ACTIVE, T0 + 2 * DAY)

    def test_a_clock_set_back_does_not_repeat_moments_that_have_run(self) -> None:
        job = admit(Cron("0 * * * *"))
        for hour in range(1, 6):
            job, _ = run(job, T0 + hour * HOUR)
        standing = edit(job, T0 + HOUR, schedule=Cron("0 */1 * * *")).job.standing
        assert standing.next_run == T0 + 6 * HOUR

    def test_a_paused_job_stays_paused(self) -> None:
        job = lifecycle.pause(admit(HOURLY), until=None, reason="why", now=T0)
        standing = edit(job, T0, schedule=Interval(hours=2)).job.standing
        assert (standing.state, standing.due_at) == (State.PAUSED, None)
        assert standing.pause_reason == "why"

    def test_a_run_that_ends_after_a_schedule_edit_writes_its_line_and_is_not_retried(self) -> None:
        claim, start = begun(admit(HOURLY, Policy(retry=Retry(attempts=5))), T0 + HOUR)
        edited = edit(claim.job, T0 + HOUR, schedule=Interval(hours=2)).job
        job, (line,) = end(claim, start, T0 + 61 * MINUTE, FAILURE, stored=edited)
        assert (line.status, line.final, line.number) == (Status.FAILED, True, 1)
        assert job.standing.number == 2
        assert job.standing.due_at == T0 + 3 * HOUR

    def test_a_trigger_that_waits_survives_a_schedule_edit_and_shares_no_number(self) -> None:
        """The scheduled occurrence became due behind the trigger: both get a line of their own."""
        job = lifecycle.trigger(admit(HOURLY), now=T0)
        change = edit(job, T0 + 2 * HOUR, schedule=Interval(hours=3))
        (superseded,) = change.ledger
        job, manual = run(change.job, T0 + 2 * HOUR)
        assert manual.manual
        job, scheduled = run(job, T0 + 5 * HOUR)
        assert not scheduled.manual
        assert len({superseded.number, manual.number, scheduled.number}) == 3

    def test_a_manual_run_in_flight_over_such_an_edit_is_not_repeated(self) -> None:
        claim, start = begun(lifecycle.trigger(admit(HOURLY), now=T0), T0)
        edited = edit(claim.job, T0 + 2 * HOUR, schedule=Interval(hours=3)).job
        job, (line,) = end(claim, start, T0 + 2 * HOUR, stored=edited)
        assert (line.manual, line.number) == (True, start.number)
        assert job.standing.triggered_at is None
        assert job.standing.due_at == T0 + 5 * HOUR

    def test_a_manual_run_in_flight_over_a_schedule_edit_is_not_retried(self) -> None:
        job = lifecycle.trigger(admit(HOURLY, Policy(retry=Retry(attempts=5))), now=T0)
        claim, start = begun(job, T0)
        edited = edit(job, T0 + MINUTE, schedule=Interval(hours=3)).job
        job, (line,) = end(claim, start, T0 + 2 * MINUTE, FAILURE, stored=edited)
        assert (line.final, job.standing.triggered_at) == (True, None)

    def test_a_begun_trigger_and_a_due_occurrence_are_both_superseded(self) -> None:
        job = lifecycle.trigger(admit(HOURLY, Policy(retry=Retry(attempts=3))), now=T0)
        job, _ = run(job, T0, FAILURE)
        change = edit(job, T0 + 2 * HOUR, schedule=Interval(hours=3))
        assert sorted((line.number, line.manual) for line in change.ledger) == [
            (1, True),
            (2, False),
        ]
        assert change.job.standing.number == 3


class TestRetire:
    def test_what_was_not_due_leaves_no_line(self) -> None:
        assert lifecycle.retire(admit(HOURLY), now=T0 + 59 * MINUTE) == ()

    def test_what_was_due_or_begun_is_superseded(self) -> None:
        assert statuses(lifecycle.retire(admit(HOURLY), now=T0 + HOUR)) == [Status.SUPERSEDED]
        job, _ = run(admit(HOURLY, Policy(retry=Retry(attempts=2))), T0 + HOUR, FAILURE)
        (line,) = lifecycle.retire(job, now=T0 + HOUR)
        assert (line.number, line.attempt, line.final) == (1, 0, True)

    @pytest.mark.parametrize("policy", [Policy(), Policy(misfire=RunAll(limit=2))])
    def test_one_line_stands_for_all_that_was_due(self, policy: Policy) -> None:
        (line,) = lifecycle.retire(admit(HOURLY, policy), now=T0 + 5 * HOUR + MINUTE)
        assert (line.scheduled_at, line.folded) == (T0 + HOUR, 4)
        assert line.folded_until == T0 + 5 * HOUR

    def test_what_lay_in_a_pause_is_not_among_it(self) -> None:
        job = admit(HOURLY)
        paused = lifecycle.pause(job, until=None, reason=None, now=T0 + 2 * HOUR)
        (line,) = lifecycle.retire(paused, now=T0 + 5 * HOUR)
        assert (line.folded, line.folded_until) == (1, T0 + 2 * HOUR)

    def test_what_lost_claims_began_in_a_pause_is_superseded(self) -> None:
        job = lifecycle.pause(admit(HOURLY), until=T0 + MINUTE, reason=None, now=T0)
        job, _ = fate(job, T0 + 2 * MINUTE, lost=1)
        assert job.standing.attempts == 1
        job = lifecycle.pause(job, until=T0 + 2 * HOUR, reason=None, now=T0 + 3 * MINUTE)
        (line,) = lifecycle.retire(job, now=T0 + 2 * HOUR)
        assert (line.number, line.status, line.reason) == (1, Status.SUPERSEDED, "inside a pause")

    def test_a_trigger_and_a_due_occurrence_have_one_line_each(self) -> None:
        job = lifecycle.trigger(admit(HOURLY), now=T0)
        lines = lifecycle.retire(job, now=T0 + HOUR)
        assert sorted((line.number, line.manual) for line in lines) == [(1, True), (2, False)]

    def test_a_finished_job_leaves_none(self) -> None:
        job, _ = run(admit(Once(T0)), T0)
        assert lifecycle.retire(job, now=T0 + DAY) == ()


class TestLate:
    def test_coalesce_runs_the_first_missed_once_and_folds_the_rest(self) -> None:
        claim, start = begun(admit(HOURLY), T0 + 10 * HOUR + MINUTE)
        assert (start.scheduled_at, start.folded) == (T0 + HOUR, 9)
        assert start.folded_until == T0 + 10 * HOUR
        job, (line,) = end(claim, start, T0 + 10 * HOUR + 2 * MINUTE)
        assert (line.folded, line.folded_until) == (9, T0 + 10 * HOUR)
        assert job.standing.next_run == T0 + 11 * HOUR

    def test_what_passes_during_the_run_is_the_next_runs(self) -> None:
        claim, start = begun(admit(HOURLY), T0 + HOUR)
        job, (line,) = end(claim, start, T0 + 4 * HOUR)
        assert line.folded == 0
        _, start = begun(job, T0 + 4 * HOUR)
        assert (start.scheduled_at, start.folded) == (T0 + 2 * HOUR, 2)

    def test_folding_is_decided_anew_at_each_attempt(self) -> None:
        job, line = run(
            admit(HOURLY, Policy(retry=Retry(attempts=2, backoff=5 * HOUR, maximum=DAY))),
            T0 + 2 * HOUR,
            FAILURE,
        )
        assert (line.folded, line.final) == (0, False)
        _, start = begun(job, T0 + 7 * HOUR)
        assert (start.attempt, start.folded) == (2, 6)

    def test_drop_misses_what_is_older_than_the_grace(self) -> None:
        job = admit(HOURLY, Policy(misfire=Drop(grace=10 * MINUTE)))
        begun(job, T0 + HOUR + 10 * MINUTE)
        job, (line,) = fate(job, T0 + 5 * HOUR + 20 * MINUTE)
        assert (line.status, line.number, line.folded) == (Status.MISSED, 1, 4)
        assert line.folded_until == T0 + 5 * HOUR
        assert (job.standing.next_run, job.standing.number) == (T0 + 6 * HOUR, 2)

    def test_drop_is_judged_on_the_first_attempt_only(self) -> None:
        policy = Policy(misfire=Drop(grace=MINUTE), retry=Retry(attempts=2, backoff=30 * MINUTE))
        job, _ = run(admit(HOURLY, policy), T0 + HOUR, FAILURE)
        assert begun(job, T0 + 90 * MINUTE)[1].attempt == 2
        assert begun(admit(HOURLY, policy), T0 + 90 * MINUTE, lost=1)[1].attempt == 2

    def test_drop_keeps_the_occurrence_within_the_grace(self) -> None:
        job, (line,) = fate(
            admit(HOURLY, Policy(misfire=Drop(grace=10 * MINUTE))), T0 + 5 * HOUR + 5 * MINUTE
        )
        assert line.folded == 3
        assert job.standing.next_run == job.standing.due_at == T0 + 5 * HOUR

    def test_a_dropped_one_shot_is_finished(self) -> None:
        job, (line,) = fate(admit(Once(T0), Policy(misfire=Drop(grace=SECOND))), T0 + HOUR)
        assert line.status is Status.MISSED
        assert job.standing.state is State.FINISHED

    def test_run_all_runs_the_newest_oldest_first_and_misses_the_rest_in_one_line(self) -> None:
        job = admit(HOURLY, Policy(misfire=RunAll(limit=3)))
        now = T0 + 10 * HOUR + MINUTE
        job, (line,) = fate(job, now)
        assert (line.status, line.scheduled_at, line.folded) == (Status.MISSED, T0 + HOUR, 6)
        assert line.folded_until == T0 + 7 * HOUR
        moments = []
        for _ in range(3):
            job, line = run(job, now)
            assert line.folded == 0
            moments.append(line.scheduled_at)
        assert moments == [T0 + hour * HOUR for hour in (8, 9, 10)]
        assert job.standing.due_at == T0 + 11 * HOUR

    def test_run_all_is_bounded_by_its_window_as_well(self) -> None:
        job = admit(HOURLY, Policy(misfire=RunAll(limit=100, window=2 * HOUR)))
        job, (line,) = fate(job, T0 + 10 * HOUR + MINUTE)
        assert line.folded_until == T0 + 8 * HOUR
        assert job.standing.next_run == T0 + 9 * HOUR

    def test_run_all_of_exactly_the_limit_misses_nothing(self) -> None:
        policy = Policy(misfire=RunAll(limit=3))
        assert begun(admit(HOURLY, policy), T0 + 3 * HOUR)[1].scheduled_at == T0 + HOUR
        fate(admit(HOURLY, policy), T0 + 4 * HOUR)

    @pytest.mark.parametrize("schedule", [Interval(seconds=1), Cron("* * * * * *")])
    def test_ten_years_of_seconds_are_one_run_with_exactly_the_rest_folded(
        self, schedule: Schedule
    ) -> None:
        now = datetime(2036, 1, 1, tzinfo=UTC)
        seconds = int((now - T0).total_seconds())
        claim, start = begun(admit(schedule), now)
        assert (start.scheduled_at, start.folded) == (T0 + SECOND, seconds - 1)
        assert start.folded_until == now
        job, _ = end(claim, start, now)
        assert job.standing.next_run == now + SECOND

        job, (line,) = fate(admit(schedule, Policy(misfire=RunAll(limit=5))), now)
        assert line.folded + 1 + 5 == seconds
        assert job.standing.next_run == now - 4 * SECOND

        job, (line,) = fate(admit(schedule, Policy(misfire=Drop(grace=10 * SECOND))), now)
        assert line.folded + 1 + 11 == seconds
        assert job.standing.next_run == now - 10 * SECOND

    def test_bounds_that_reach_before_the_calendar_are_no_error(self) -> None:
        for misfire in (RunAll(window=timedelta.max), Drop(grace=timedelta.max)):
            begun(admit(HOURLY, Policy(misfire=misfire)), T0 + 3 * HOUR)

    def test_a_fixed_delay_has_nothing_to_fold(self) -> None:
        _, start = begun(admit(FixedDelay(seconds=1)), T0 + DAY)
        assert (start.folded, start.folded_until) == (0, None)

    def test_a_third_party_schedule_that_cannot_count_is_stepped_through(self) -> None:
        class Plain:
            def first(self, anchor: datetime) -> datetime | None:
                return anchor + HOUR

            def next_after(self, moment: datetime, anchor: datetime) -> datetime | None:
                return anchor + ((moment - anchor) // HOUR + 1) * HOUR

        _, start = begun(admit(Plain()), T0 + 10 * HOUR)
        assert (start.folded, start.folded_until) == (9, T0 + 10 * HOUR)
        _, (line,) = fate(admit(Plain(), Policy(misfire=RunAll(limit=3))), T0 + 10 * HOUR)
        assert (line.folded, line.folded_until) == (6, T0 + 7 * HOUR)

    def test_a_claim_handed_out_early_leaves_the_job_alone(self) -> None:
        job = admit(HOURLY)
        assert lifecycle.begin(claimed(job, T0), now=T0) == Decision(job.standing, ())


class TestFailure:
    def test_the_same_occurrence_becomes_due_again_with_growing_pauses(self) -> None:
        policy = Policy(retry=Retry(attempts=4, backoff=SECOND, factor=3, maximum=5 * SECOND))
        job, now, pauses = admit(HOURLY, policy), T0 + HOUR, []
        for attempt in (1, 2, 3):
            job, line = run(job, now, FAILURE)
            assert (line.number, line.attempt, line.final) == (1, attempt, False)
            due = job.standing.due_at
            assert due is not None
            pauses.append(due - now)
            now = due
        assert pauses == [SECOND, 3 * SECOND, 5 * SECOND]
        job, line = run(job, now, FAILURE)
        assert (line.attempt, line.final, line.reason) == (4, True, "ValueError: no")
        assert (job.standing.number, job.standing.due_at) == (2, T0 + 2 * HOUR)
        assert (job.standing.attempts, job.standing.failures) == (0, 0)

    def test_only_settled_failures_count(self) -> None:
        job, line = run(admit(HOURLY, Policy(retry=Retry(attempts=2))), T0 + HOUR, INTERRUPTION)
        assert (line.status, line.final) == (Status.INTERRUPTED, False)
        assert (job.standing.attempts, job.standing.failures) == (1, 0)
        assert job.standing.due_at == T0 + HOUR
        claim, start = begun(job, T0 + HOUR, lost=2)
        assert start.attempt == 4
        job, (line,) = end(claim, start, T0 + HOUR, FAILURE)
        assert (line.final, job.standing.failures) == (False, 1)
        assert occurrence_key("uid", line.number) == "uid:1"

    def test_the_pause_is_jittered_alike_everywhere(self) -> None:
        policy = Policy(retry=Retry(attempts=9, backoff=MINUTE, factor=1, jitter=0.5))
        pauses = {lifecycle.backoff(policy, 1, "uid:1", attempt) for attempt in range(1, 50)}
        assert all(MINUTE <= pause <= 1.5 * MINUTE for pause in pauses)
        assert len(pauses) > 40
        assert lifecycle.backoff(policy, 1, "k", 1) == lifecycle.backoff(policy, 1, "k", 1)

    @pytest.mark.parametrize("factor", [1000, 1000.0, 1.0000001])
    @pytest.mark.parametrize("backoff", [timedelta(microseconds=1), timedelta.max])
    @pytest.mark.parametrize("failures", [1, 100, 999_999])
    def test_no_pause_overflows(self, factor: float, backoff: timedelta, failures: int) -> None:
        retry = Retry(
            attempts=1_000_000, backoff=backoff, factor=factor, maximum=timedelta.max, jitter=1
        )
        policy = Policy(retry=retry)
        assert lifecycle.backoff(policy, failures, "key", failures) > timedelta(0)
        job = admit(HOURLY, policy)
        job = evolve(job, standing=evolve(job.standing, failures=failures - 1))
        job, _ = run(job, T0 + HOUR, FAILURE)
        assert job.standing.due_at is not None

    def test_no_backoff_is_no_pause_however_often_it_failed(self) -> None:
        policy = Policy(retry=Retry(attempts=1_000_000, backoff=timedelta(0), factor=1000))
        assert lifecycle.backoff(policy, 900_000, "key", 1) == timedelta(0)

    @pytest.mark.parametrize("manual", [False, True])
    def test_max_lost_claims_in_a_row_fail_the_occurrence(self, manual: bool) -> None:
        job = admit(HOURLY, Policy(max_lost=3))
        now = T0 + HOUR
        job = lifecycle.trigger(job, now=T0) if manual else job
        assert begun(job, now, lost=2)[1].attempt == 3
        job, (line,) = fate(job, now, lost=3)
        assert (line.status, line.final, line.manual) == (Status.FAILED, True, manual)
        assert line.reason is not None
        assert line.reason.startswith("lost")
        assert job.standing.number == 2


def resumed(job: Job, at: datetime) -> Job:
    after = lifecycle.resume(job, at=at)
    assert after is not None
    return after


class TestPause:
    def test_occurrences_inside_the_pause_are_not_due_and_leave_no_line(self) -> None:
        job = lifecycle.pause(admit(HOURLY), until=None, reason="r", now=T0 + MINUTE)
        assert (job.standing.due_at, job.standing.paused_at) == (None, T0 + MINUTE)
        standing = resumed(job, T0 + 5 * HOUR + MINUTE).standing
        assert (standing.state, standing.due_at) == (State.ACTIVE, T0 + 6 * HOUR)
        assert (standing.paused_at, standing.pause_reason) == (None, None)

    @pytest.mark.parametrize("misfire", [Coalesce(), RunAll(9, DAY), Drop(DAY)])
    def test_what_was_due_before_the_pause_runs_after_it_as_one(
        self, misfire: Coalesce | RunAll | Drop
    ) -> None:
        job = admit(HOURLY, Policy(misfire=misfire))
        job = lifecycle.pause(job, until=None, reason=None, now=T0 + 3 * HOUR)
        job = resumed(job, T0 + 7 * HOUR)
        assert job.standing.due_at == T0 + 7 * HOUR
        job, line = run(job, T0 + 7 * HOUR)
        assert (line.number, line.scheduled_at) == (1, T0 + HOUR)
        assert (line.folded, line.folded_until) == (2, T0 + 3 * HOUR)
        assert (job.standing.number, job.standing.due_at) == (2, T0 + 8 * HOUR)
        assert job.standing.backlog is None

    @pytest.mark.parametrize("misfire", [RunAll(9, HOUR), RunAll(2, DAY), Drop(HOUR)])
    def test_the_misfire_policy_judges_what_was_due_before(
        self, misfire: Coalesce | RunAll | Drop
    ) -> None:
        job = admit(HOURLY, Policy(misfire=misfire))
        job = lifecycle.pause(job, until=None, reason=None, now=T0 + 3 * HOUR)
        job = resumed(job, T0 + 7 * HOUR)
        job, (line,) = fate(job, T0 + 9 * HOUR)
        assert (line.status, line.scheduled_at) == (Status.MISSED, T0 + HOUR)
        assert (line.folded, line.folded_until) == (2, T0 + 3 * HOUR)
        assert job.standing.due_at == T0 + 8 * HOUR

    def test_several_pauses_leave_out_what_lies_inside_each(self) -> None:
        job = lifecycle.pause(admit(HOURLY), until=None, reason=None, now=T0 + 2 * HOUR)
        job = resumed(job, T0 + 4 * HOUR)
        job = lifecycle.pause(job, until=None, reason=None, now=T0 + 6 * HOUR)
        job = resumed(job, T0 + 8 * HOUR)
        # 2:00 was due before the first pause, 5:00 and 6:00 between the two, 9:00 after them.
        _, line = run(job, T0 + 9 * HOUR)
        assert (line.scheduled_at, line.folded) == (T0 + HOUR, 4)
        assert line.folded_until == T0 + 9 * HOUR

    def test_a_pause_that_ended_while_it_ran_is_left_out_too(self) -> None:
        claim, start = begun(admit(HOURLY), T0 + HOUR)
        job = lifecycle.pause(claim.job, until=None, reason=None, now=T0 + 3 * HOUR)
        job = resumed(job, T0 + 7 * HOUR)
        job, (line,) = end(claim, start, T0 + 7 * HOUR, stored=job)
        assert (line.folded, line.folded_until) == (2, T0 + 3 * HOUR)
        assert job.standing.due_at == T0 + 8 * HOUR

    def test_a_skipped_one_hands_on_what_was_due_behind_it(self) -> None:
        job = lifecycle.skip_next(admit(HOURLY), now=T0)
        job = lifecycle.pause(job, until=None, reason=None, now=T0 + 3 * HOUR)
        job, (line,) = fate(resumed(job, T0 + 7 * HOUR), T0 + 7 * HOUR)
        assert (line.status, line.folded) == (Status.SKIPPED, 0)
        job, line = run(job, T0 + 7 * HOUR)
        assert (line.scheduled_at, line.folded) == (T0 + 2 * HOUR, 1)
        assert (line.folded_until, job.standing.due_at) == (T0 + 3 * HOUR, T0 + 8 * HOUR)

    def test_a_lost_one_takes_along_what_was_due_behind_it(self) -> None:
        job = lifecycle.pause(admit(HOURLY), until=None, reason=None, now=T0 + 3 * HOUR)
        job = resumed(job, T0 + 7 * HOUR)
        job, (line,) = fate(job, T0 + 7 * HOUR, lost=job.spec.policy.max_lost)
        assert (line.status, line.folded) == (Status.FAILED, 2)
        assert job.standing.due_at == T0 + 8 * HOUR

    def test_a_resume_before_the_occurrence_changes_nothing_about_it(self) -> None:
        job = admit(HOURLY)
        paused = lifecycle.pause(job, until=None, reason=None, now=T0)
        assert resumed(paused, T0 + MINUTE).standing == job.standing

    def test_a_one_shot_that_passed_meanwhile_runs_at_resume(self) -> None:
        job = lifecycle.pause(admit(Once(T0 + HOUR)), until=None, reason=None, now=T0)
        job = resumed(job, T0 + DAY)
        assert job.standing.due_at == T0 + DAY
        _, line = run(job, T0 + DAY)
        assert (line.scheduled_at, line.number) == (T0 + HOUR, 1)

    def test_a_retry_waits_for_the_end_of_the_pause(self) -> None:
        job, _ = run(admit(HOURLY, Policy(retry=Retry(attempts=3))), T0 + HOUR, FAILURE)
        job = lifecycle.pause(job, until=None, reason=None, now=T0 + HOUR)
        assert job.standing.due_at is None
        job = resumed(job, T0 + 5 * HOUR)
        _, start = begun(job, T0 + 5 * HOUR)
        assert (start.number, start.attempt, start.folded) == (1, 2, 0)
        job, line = run(job, T0 + 6 * HOUR)
        assert (line.folded, line.folded_until) == (1, T0 + 6 * HOUR)

    def test_a_run_in_flight_settles_and_what_follows_waits(self) -> None:
        claim, start = begun(admit(HOURLY, Policy(retry=Retry(attempts=3))), T0 + HOUR)
        paused = lifecycle.pause(claim.job, until=None, reason=None, now=T0 + HOUR)
        for ended in (SUCCESS, FAILURE, INTERRUPTION):
            job, _ = end(claim, start, T0 + HOUR, ended, stored=paused)
            assert (job.standing.state, job.standing.due_at) == (State.PAUSED, None)

    def test_until_ends_the_pause_by_itself(self) -> None:
        until = T0 + 150 * MINUTE
        job = lifecycle.pause(admit(HOURLY), until=until, reason=None, now=T0)
        assert job.standing.due_at == until
        resumed, lines = fate(job, T0 + 4 * HOUR)
        assert lines == ()
        # The pause ended at 2:30, however late that was noticed: 3:00 and 4:00 are missed ones.
        assert (resumed.standing.state, resumed.standing.due_at) == (State.ACTIVE, T0 + 3 * HOUR)
        assert begun(resumed, T0 + 4 * HOUR)[1].folded == 1

    def test_until_ends_the_pause_of_a_one_shot_with_its_run(self) -> None:
        until = T0 + DAY
        job = lifecycle.pause(admit(Once(T0 + HOUR)), until=until, reason=None, now=T0)
        resumed, _ = fate(job, until)
        assert begun(resumed, until)[1].scheduled_at == T0 + HOUR

    def test_until_makes_one_due_that_was_due_before(self) -> None:
        job = lifecycle.pause(admit(HOURLY), until=T0 + 3 * HOUR, reason=None, now=T0 + HOUR)
        job, lines = fate(job, T0 + 3 * HOUR)
        assert (lines, job.standing.due_at) == ((), T0 + 3 * HOUR)

    @pytest.mark.parametrize("until", [T0, T0 - DAY, datetime(2027, 1, 1)])  # noqa: DTZ001
    def test_until_must_be_aware_and_ahead(self, until: datetime) -> None:
        with pytest.raises(InvalidDefinition, match="until"):
            lifecycle.pause(admit(HOURLY), until=until, reason=None, now=T0)

    def test_pausing_twice_keeps_the_beginning_and_takes_the_new_end(self) -> None:
        job = lifecycle.pause(admit(HOURLY), until=T0 + HOUR, reason="a", now=T0)
        job = lifecycle.pause(job, until=None, reason="b", now=T0 + MINUTE)
        standing = job.standing
        assert (standing.paused_at, standing.paused_until, standing.due_at) == (T0, None, None)
        assert standing.pause_reason == "b"

    def test_a_finished_job_is_not_paused_and_an_active_one_not_resumed(self) -> None:
        job, _ = run(admit(Once(T0)), T0)
        assert lifecycle.pause(job, until=None, reason=None, now=T0) is job
        assert lifecycle.resume(job, at=T0) is None
        assert lifecycle.resume(admit(HOURLY), at=T0) is None

    def test_what_was_due_before_follows_a_trigger_that_waits(self) -> None:
        job = lifecycle.trigger(admit(HOURLY), now=T0)
        job = lifecycle.pause(job, until=None, reason=None, now=T0 + 2 * HOUR)
        job, manual = run(resumed(job, T0 + 3 * HOUR), T0 + 3 * HOUR)
        job, scheduled = run(job, T0 + 3 * HOUR)
        assert (manual.number, manual.manual) == (1, True)
        assert (scheduled.number, scheduled.scheduled_at) == (2, T0 + HOUR)
        assert (scheduled.folded, job.standing.due_at) == (1, T0 + 4 * HOUR)

    @pytest.mark.parametrize("pause_first", [True, False])
    def test_a_trigger_brings_what_was_due_to_its_end_before_it_runs(
        self, *, pause_first: bool
    ) -> None:
        job, now = admit(HOURLY), T0 + 2 * HOUR
        if not pause_first:
            job = lifecycle.trigger(job, now=now)
        job = lifecycle.pause(job, until=None, reason=None, now=now)
        if pause_first:
            job = lifecycle.trigger(job, now=now)
        job, scheduled = run(job, now + 2 * HOUR)
        assert (scheduled.scheduled_at, scheduled.folded) == (T0 + HOUR, 1)
        job, manual = run(job, now + 2 * HOUR)
        assert (manual.number, manual.manual, job.standing.due_at) == (2, True, None)
        assert resumed(job, now + 2 * HOUR).standing.due_at == now + 3 * HOUR

    def test_a_trigger_ends_the_wait_of_a_retry_in_a_pause(self) -> None:
        job, _ = run(admit(HOURLY, Policy(retry=Retry(attempts=3))), T0 + HOUR, FAILURE)
        job = lifecycle.pause(job, until=None, reason=None, now=T0 + HOUR)
        job = lifecycle.trigger(job, now=T0 + 2 * HOUR)
        job, line = run(job, T0 + 2 * HOUR, FAILURE)
        assert (line.attempt, line.final) == (2, False)
        job, line = run(job, T0 + 3 * HOUR)
        assert (line.attempt, line.folded, job.standing.manual) == (3, 0, True)

    def test_a_long_reason_is_bounded(self) -> None:
        job = lifecycle.pause(admit(HOURLY), until=None, reason="x" * 10_000, now=T0)
        assert len(job.standing.pause_reason or "") <= 2048


class TestTrigger:
    @pytest.mark.parametrize("times", [1, 2])
    def test_a_retry_that_waits_is_made_at_once_and_the_trigger_runs_after_it(
        self, times: int
    ) -> None:
        job, _ = run(admit(HOURLY, Policy(retry=Retry(2, 10 * MINUTE))), T0 + HOUR, FAILURE)
        for _ in range(times):
            job = lifecycle.trigger(job, now=T0 + HOUR + MINUTE)
        assert job.standing.due_at == T0 + HOUR + MINUTE
        job, second = run(job, T0 + HOUR + MINUTE)
        assert (second.attempt, second.manual, second.number) == (2, False, 1)
        job, line = run(job, T0 + HOUR + MINUTE)
        assert (line.manual, line.number) == (True, 2)

    def test_asked_for_during_a_run_and_again_while_its_retry_waits(self) -> None:
        claim, start = begun(admit(HOURLY, Policy(retry=Retry(2, 10 * MINUTE))), T0 + HOUR)
        asked = lifecycle.trigger(claim.job, now=T0 + HOUR)
        job, _ = end(claim, start, T0 + HOUR, FAILURE, stored=asked)
        assert job.standing.due_at == T0 + HOUR + 10 * MINUTE
        assert lifecycle.trigger(job, now=T0 + HOUR + MINUTE).standing.due_at == T0 + HOUR + MINUTE

    def test_it_is_one_extra_occurrence_now_and_leaves_the_schedule_alone(self) -> None:
        job, line = run(lifecycle.trigger(admit(HOURLY), now=T0 + MINUTE), T0 + 2 * MINUTE)
        assert (line.manual, line.scheduled_at, line.number) == (True, T0 + MINUTE, 1)
        standing = job.standing
        assert (standing.due_at, standing.number, standing.manual) == (T0 + HOUR, 2, False)

    @pytest.mark.parametrize("until", [None, T0 + DAY])
    def test_a_paused_job_runs_and_stays_paused(self, until: datetime | None) -> None:
        job = lifecycle.pause(admit(HOURLY), until=until, reason=None, now=T0)
        job, line = run(lifecycle.trigger(job, now=T0 + MINUTE), T0 + MINUTE)
        assert line.manual
        assert (job.standing.state, job.standing.due_at) == (State.PAUSED, until)
        assert job.standing.next_run == T0 + HOUR

    def test_a_pause_does_not_hold_back_a_trigger_that_waits(self) -> None:
        job = lifecycle.trigger(admit(HOURLY), now=T0)
        job = lifecycle.pause(job, until=None, reason=None, now=T0)
        assert run(job, T0)[1].manual

    @pytest.mark.parametrize("ended", [FAILURE, INTERRUPTION])
    def test_a_paused_job_runs_again_when_the_triggered_run_did_not_succeed(
        self, ended: Ended
    ) -> None:
        job = admit(HOURLY, Policy(retry=Retry(attempts=2, backoff=timedelta(0))))
        job = lifecycle.pause(job, until=None, reason=None, now=T0)
        job, _ = run(lifecycle.trigger(job, now=T0), T0, ended)
        assert run(job, T0)[1].attempt == 2

    def test_a_finished_job_runs_and_is_finished_again(self) -> None:
        job, _ = run(admit(Once(T0), declared=False), T0)
        job = lifecycle.trigger(job, now=T0 + HOUR)
        assert (job.standing.state, job.standing.expires_at) == (State.ACTIVE, None)
        job, line = run(job, T0 + HOUR)
        assert (line.number, line.manual) == (2, True)
        assert job.standing.state is State.FINISHED
        assert job.standing.expires_at == T0 + HOUR + timedelta(days=7)

    def test_a_second_call_before_it_began_is_the_same_one(self) -> None:
        job = lifecycle.trigger(admit(HOURLY), now=T0 + MINUTE)
        job, _ = run(lifecycle.trigger(job, now=T0 + 2 * MINUTE), T0 + 3 * MINUTE)
        assert (job.standing.triggered_at, job.standing.due_at) == (None, T0 + HOUR)

    def test_behind_a_due_occurrence_it_runs_right_after_it(self) -> None:
        job = lifecycle.trigger(admit(HOURLY), now=T0 + 61 * MINUTE)
        assert lifecycle.trigger(job, now=T0 + 62 * MINUTE) is job
        job, first = run(job, T0 + 62 * MINUTE)
        job, second = run(job, T0 + 62 * MINUTE)
        assert (first.manual, second.manual) == (False, True)
        assert (first.number, second.number) == (1, 2)
        assert (second.scheduled_at, job.standing.due_at) == (T0 + 61 * MINUTE, T0 + 2 * HOUR)

    def test_during_a_manual_run_it_runs_once_more_right_after(self) -> None:
        claim, start = begun(lifecycle.trigger(admit(Once(T0 + DAY)), now=T0), T0)
        again = lifecycle.trigger(claim.job, now=T0 + MINUTE)
        for ended in (SUCCESS, FAILURE):
            job, (line,) = end(claim, start, T0 + HOUR, ended, stored=again)
            assert (line.number, line.scheduled_at, line.final) == (1, T0, True)
            job, line = run(job, T0 + HOUR)
            assert (line.number, line.scheduled_at, line.manual) == (2, T0 + MINUTE, True)
            assert job.standing.due_at == T0 + DAY

    def test_during_a_manual_run_that_would_be_retried_the_new_one_runs_instead(self) -> None:
        job = lifecycle.trigger(admit(HOURLY, Policy(retry=Retry(attempts=5))), now=T0)
        claim, start = begun(job, T0)
        again = lifecycle.trigger(job, now=T0 + MINUTE)
        job, lines = end(claim, start, T0 + MINUTE, FAILURE, stored=again)
        assert [(line.status, line.final) for line in lines] == [(Status.FAILED, True)]
        assert run(job, T0 + MINUTE)[1].scheduled_at == T0 + MINUTE
        job, lines = end(claim, start, T0 + MINUTE, INTERRUPTION, stored=again)
        assert statuses(lines) == [Status.INTERRUPTED, Status.SUPERSEDED]
        assert run(job, T0 + MINUTE)[1].number == 2

    def test_while_its_retry_waits_it_ends_the_wait_and_keeps_the_name(self) -> None:
        policy = Policy(retry=Retry(attempts=5, backoff=HOUR))
        job, _ = run(lifecycle.trigger(admit(HOURLY, policy), now=T0), T0, FAILURE)
        job = lifecycle.trigger(job, now=T0 + MINUTE)
        _, line = run(job, T0 + MINUTE)
        assert (line.number, line.attempt, line.scheduled_at) == (1, 2, T0)

    def test_while_a_scheduled_retry_waits_it_runs_after_the_occurrence_has_ended(self) -> None:
        job, _ = run(admit(HOURLY, Policy(retry=Retry(attempts=2))), T0 + HOUR, FAILURE)
        job = lifecycle.trigger(job, now=T0 + HOUR)
        job, line = run(job, T0 + HOUR + SECOND)
        assert (line.manual, line.attempt) == (False, 2)
        assert run(job, T0 + HOUR + SECOND)[1].manual

    def test_it_is_not_late_and_folds_nothing(self) -> None:
        job = lifecycle.trigger(admit(HOURLY, Policy(misfire=Drop(grace=SECOND))), now=T0)
        _, start = begun(job, T0 + 30 * MINUTE)
        assert (start.manual, start.folded) == (True, 0)

    def test_a_fixed_delay_is_not_moved_by_it(self) -> None:
        job, _ = run(lifecycle.trigger(admit(FixedDelay(hours=1)), now=T0), T0 + MINUTE)
        assert job.standing.next_run == T0 + HOUR

    def test_one_that_came_while_the_paused_job_ran_is_not_lost(self) -> None:
        claim, start = begun(admit(HOURLY), T0 + HOUR)
        paused = lifecycle.pause(claim.job, until=None, reason=None, now=T0 + HOUR)
        stored = lifecycle.trigger(paused, now=T0 + HOUR)
        job, (line,) = end(claim, start, T0 + HOUR, stored=stored)
        assert (line.manual, line.number) == (False, 1)
        assert run(job, T0 + HOUR)[1].number == 2


class TestSkip:
    def test_the_first_occurrence_after_now_is_skipped_when_its_turn_comes(self) -> None:
        job = lifecycle.skip_next(admit(HOURLY), now=T0)
        assert job.standing.due_at == T0 + HOUR
        job, (line,) = fate(job, T0 + HOUR)
        assert (line.status, line.scheduled_at) == (Status.SKIPPED, T0 + HOUR)
        assert (job.standing.due_at, job.standing.skipped_run) == (T0 + 2 * HOUR, None)
        run(job, T0 + 2 * HOUR)

    def test_twice_is_once(self) -> None:
        once = lifecycle.skip_next(admit(HOURLY), now=T0)
        assert lifecycle.skip_next(once, now=T0 + MINUTE) == once

    def test_a_due_or_running_occurrence_is_not_the_next(self) -> None:
        job = lifecycle.skip_next(admit(HOURLY), now=T0 + 61 * MINUTE)
        assert job.standing.skipped_run == T0 + 2 * HOUR
        job, _ = run(job, T0 + 61 * MINUTE)
        _, (line,) = fate(job, T0 + 2 * HOUR)
        assert line.status is Status.SKIPPED

    def test_unskip_takes_it_back(self) -> None:
        job = lifecycle.unskip(lifecycle.skip_next(admit(HOURLY), now=T0))
        assert job == admit(HOURLY)

    def test_a_skipped_one_shot_is_finished(self) -> None:
        job, (line,) = fate(lifecycle.skip_next(admit(Once(T0 + HOUR)), now=T0), T0 + HOUR)
        assert line.status is Status.SKIPPED
        assert job.standing.state is State.FINISHED
        with pytest.raises(NothingToSkip):
            lifecycle.skip_next(job, now=T0 + DAY)

    def test_a_fixed_delay_skips_the_run_after_the_present_one(self) -> None:
        claim, start = begun(admit(FixedDelay(hours=1)), T0 + HOUR)
        marked = lifecycle.skip_next(claim.job, now=T0 + 61 * MINUTE)
        job, _ = end(claim, start, T0 + 3 * HOUR, stored=marked)
        job, (line,) = fate(job, T0 + 4 * HOUR)
        assert (line.status, line.scheduled_at) == (Status.SKIPPED, T0 + 4 * HOUR)
        assert job.standing.due_at == T0 + 5 * HOUR
        run(job, T0 + 5 * HOUR)

    def test_a_trigger_is_not_skipped_and_does_not_use_up_the_mark(self) -> None:
        job = lifecycle.trigger(lifecycle.skip_next(admit(HOURLY), now=T0), now=T0)
        job, _ = run(job, T0)
        _, (line,) = fate(job, T0 + HOUR)
        assert line.status is Status.SKIPPED

    def test_a_schedule_edit_takes_the_mark_away(self) -> None:
        job = lifecycle.skip_next(admit(HOURLY), now=T0)
        assert edit(job, T0, schedule=Interval(hours=2)).job.standing.skipped_run is None


class TestPostpone:
    def test_the_job_comes_again_at_the_moment_and_the_attempt_does_not_count(self) -> None:
        job = admit(HOURLY)
        claim = claimed(job, T0 + HOUR)
        until = T0 + HOUR + SECOND
        decision = lifecycle.postpone(claim, until=until, now=T0 + HOUR, stored=job)
        assert decision == Decision(evolve(job.standing, due_at=until), ())

    def test_lost_attempts_keep_their_numbers(self) -> None:
        job = admit(HOURLY)
        claim = claimed(job, T0 + HOUR, lost=2)
        decision = lifecycle.postpone(claim, until=T0 + HOUR, now=T0 + HOUR, stored=job)
        assert decision.standing is not None
        assert begun(evolve(job, standing=decision.standing), T0 + HOUR)[1].attempt == 3
        paused = lifecycle.pause(job, until=T0 + 2 * HOUR, reason=None, now=T0 + HOUR)
        resumed, _ = fate(paused, T0 + 2 * HOUR, lost=2)
        assert begun(resumed, T0 + 2 * HOUR)[1].attempt == 3

    def test_an_edit_meanwhile_stands_and_the_occurrence_ends_superseded(self) -> None:
        job = admit(HOURLY)
        now = T0 + HOUR
        claim = claimed(job, now)
        edited = edit(job, now, schedule=Interval(hours=2)).job
        for stored in (edited, None, evolve(job, uid="another")):
            decision = lifecycle.postpone(claim, until=now + SECOND, now=now, stored=stored)
            assert decision.standing is None
            assert statuses(decision.ledger) == [Status.SUPERSEDED]

    def test_a_pause_meanwhile_stands(self) -> None:
        job = admit(HOURLY)
        claim = claimed(job, T0 + HOUR)
        paused = lifecycle.pause(job, until=None, reason=None, now=T0 + HOUR)
        decision = lifecycle.postpone(claim, until=T0 + 2 * HOUR, now=T0 + HOUR, stored=paused)
        assert decision == Decision(paused.standing, ())


class TestFinishOnAnotherJob:
    @pytest.mark.parametrize("stored", [None, evolve(admit(Interval(hours=3)), uid="another")])
    def test_a_removed_or_readded_job_is_left_alone(self, stored: Job | None) -> None:
        claim, start = begun(admit(HOURLY, Policy(retry=Retry(attempts=5))), T0 + HOUR)
        for ended, expected in (
            (SUCCESS, [Status.SUCCEEDED]),
            (FAILURE, [Status.FAILED]),
            (INTERRUPTION, [Status.INTERRUPTED, Status.SUPERSEDED]),
        ):
            decision = lifecycle.finish(
                claim, start, ended, started_at=T0 + HOUR, now=T0 + HOUR, stored=stored
            )
            assert decision.standing is None
            assert statuses(decision.ledger) == expected
            assert [line.final for line in decision.ledger].count(True) == 1
            assert {line.uid for line in decision.ledger} == {"uid"}

    def test_a_job_that_moved_on_keeps_where_it_stands(self) -> None:
        claim, start = begun(admit(HOURLY), T0 + HOUR)
        stored = edit(claim.job, T0 + HOUR, schedule=Once(T0 + DAY)).job
        job, lines = end(claim, start, T0 + 2 * HOUR, stored=stored)
        assert statuses(lines) == [Status.SUCCEEDED]
        assert job.standing == evolve(
            stored.standing,
            last_scheduled_at=T0 + HOUR,
            last_finished_at=T0 + 2 * HOUR,
            last_status=Status.SUCCEEDED,
        )


# -- the invariants, over random histories -----------------------------------

SCHEDULES: list[Schedule] = [
    Interval(minutes=10),
    Interval(minutes=7, start=T0),
    Cron("*/15 * * * *"),
    FixedDelay(minutes=5),
    Once(T0 + 30 * MINUTE),
    Once(T0 - HOUR),
    Once(T0 + 3 * HOUR),
]
POLICIES = [
    Policy(),
    Policy(misfire=RunAll(limit=2), max_lost=2),
    Policy(misfire=Drop(grace=MINUTE), retry=Retry(attempts=2, backoff=20 * MINUTE)),
    Policy(
        misfire=Coalesce(),
        jitter=3 * MINUTE,
        retry=Retry(attempts=3, backoff=3 * MINUTE, jitter=0.5),
    ),
]
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("wait"), st.sampled_from([0, 1, 4, 10, 60, -15])),
        st.tuples(st.just("claim"), st.just(0)),
        st.tuples(st.just("claim"), st.just(0)),
        st.tuples(st.just("finish"), st.integers(0, 2)),
        st.tuples(st.just("finish"), st.integers(0, 2)),
        st.tuples(st.just("lose"), st.just(0)),
        st.tuples(st.just("postpone"), st.integers(0, 5)),
        st.tuples(st.just("schedule"), st.integers(0, len(SCHEDULES) - 1)),
        st.tuples(st.just("policy"), st.integers(0, len(POLICIES) - 1)),
        st.tuples(st.just("pause"), st.sampled_from([0, 1, 30])),
        st.tuples(st.sampled_from(["resume", "trigger", "skip", "unskip", "remove"]), st.just(0)),
    ),
    max_size=40,
)


def _changed(spec: JobSpec, value: Schedule | Policy) -> JobSpec:
    if isinstance(value, Policy):
        return evolve(spec, policy=value)
    return evolve(spec, schedule=value)


class History:
    """One id: a job, a claim that may be under way, the ledger; and the rules that they keep."""

    def __init__(self, schedule: Schedule, policy: Policy) -> None:
        self.now = T0
        self.uids = itertools.count()
        self.job = self.fresh(JobSpec("job", schedule, policy=policy))
        self.claim: Claim | None = None
        self.start: Start | None = None
        self.lost = 0
        self.ledger: list[Execution] = []
        self.highest: dict[str, int] = {}

    def fresh(self, spec: JobSpec) -> Job:
        return lifecycle.admit(spec, uid=f"u{next(self.uids)}", declared=False, now=self.now)

    def moved_on(self, claim: Claim) -> bool:
        held = claim.job
        return (self.job.uid, self.job.standing.number) != (held.uid, held.standing.number)

    def write(self, job: Job, lines: tuple[Execution, ...], *, held: bool = True) -> None:
        """Do what a backend does: an edit's lines about the held occurrence are passed over."""
        if held and self.claim is not None:
            key = (self.claim.job.uid, self.claim.job.standing.number)
            lines = tuple(line for line in lines if (line.uid, line.number) != key)
        self.job = job
        self.ledger += lines
        self.check()

    def settle(self, decision: Decision) -> None:
        claim, self.claim, self.start = self.claim, None, None
        assert claim is not None
        standing = decision.standing
        if standing is None and not self.moved_on(claim):
            assert not any(line.final for line in decision.ledger)
        job = self.job if standing is None else evolve(self.job, standing=standing)
        self.lost = 0
        self.write(job, decision.ledger, held=False)

    def check(self) -> None:
        finals: dict[tuple[str, int], int] = {}
        for line in self.ledger:
            if line.final:
                key = (line.uid, line.number)
                finals[key] = finals.get(key, 0) + 1
        assert all(count == 1 for count in finals.values()), finals
        assert len({line.id for line in self.ledger}) == len(self.ledger)
        standing = self.job.standing
        assert standing.number >= self.highest.get(self.job.uid, 1)
        self.highest[self.job.uid] = standing.number
        assert (self.job.uid, standing.number) not in finals
        never = standing.state is State.FINISHED or (
            standing.state is State.PAUSED
            and standing.paused_until is None
            and standing.triggered_at is None
        )
        assert (standing.due_at is None) == never, standing
        if standing.state is State.FINISHED:
            assert (standing.next_run, standing.triggered_at) == (None, None)

    def step(self, what: str, argument: int) -> None:
        now, job = self.now, self.job
        if what == "wait":
            self.now = max(now + argument * MINUTE, T0)
        elif what == "claim":
            due = job.standing.due_at
            if self.claim is None and due is not None and due <= now:
                self.claim = claimed(job, now, lost=self.lost)
                begins = lifecycle.begin(self.claim, now=now)
                if isinstance(begins, Start):
                    assert begins.number == job.standing.number
                    assert begins.scheduled_at == pending(job.standing)[0]
                    self.start = begins
                else:
                    self.settle(begins)
        elif what == "finish" and self.claim is not None and self.start is not None:
            ended = (SUCCESS, FAILURE, INTERRUPTION)[argument]
            same = self.job.uid == self.claim.job.uid
            self.settle(
                lifecycle.finish(
                    self.claim,
                    self.start,
                    ended,
                    started_at=now,
                    now=now,
                    stored=self.job if same else None,
                )
            )
        elif what == "lose" and self.claim is not None:
            due = job.standing.due_at
            if due is None or due > now:
                return  # nobody looks at it before it is due
            moved_on = self.moved_on(self.claim)
            lines = abandoned_lines(self.claim, now, moved_on=moved_on)
            self.lost = 0 if moved_on else self.lost + 1
            self.claim = self.start = None
            self.write(job, lines)
            self.step("claim", 0)
        elif what == "postpone" and self.claim is not None:
            until = now + argument * MINUTE
            self.settle(lifecycle.postpone(self.claim, until=until, now=now, stored=job))
        elif what in {"schedule", "policy"}:
            value = SCHEDULES[argument] if what == "schedule" else POLICIES[argument]
            change = lifecycle.redefine(job, _changed(job.spec, value), now=now)
            if change is not None:
                self.write(change.job, change.ledger)
        elif what == "pause":
            until_ = now + argument * MINUTE if argument else None
            self.write(lifecycle.pause(job, until=until_, reason=None, now=now), ())
        elif what == "resume":
            after = lifecycle.resume(job, at=now)
            if after is not None:
                self.write(after, ())
        elif what == "trigger":
            self.write(lifecycle.trigger(job, now=now), ())
        elif what == "skip":
            try:
                self.write(lifecycle.skip_next(job, now=now), ())
            except NothingToSkip:
                pass
        elif what == "unskip":
            self.write(lifecycle.unskip(job), ())
        elif what == "remove":
            lines = lifecycle.retire(job, now=now)
            self.write(self.fresh(job.spec), lines)


@given(st.sampled_from(SCHEDULES), st.sampled_from(POLICIES), STEPS)
@settings(max_examples=settings().max_examples * 5)
def test_whatever_happens_the_invariants_hold(
    schedule: Schedule, policy: Policy, steps: list[tuple[str, int]]
) -> None:
    """One final line per occurrence at most, numbers and ids that never repeat, nothing stuck."""
    history = History(schedule, policy)
    history.check()
    for what, argument in steps:
        history.step(what, argument)
    # Left alone, whatever is active and due comes to an end, with a final line for each begun one.
    for _ in range(60):
        history.step("finish", 0)
        history.step("claim", 0)
    begun_ones = {(line.uid, line.number) for line in history.ledger if line.attempt}
    ended = {(line.uid, line.number) for line in history.ledger if line.final}
    open_ones = begun_ones - ended
    standing = history.job.standing
    assert open_ones <= {(history.job.uid, standing.number)}
    if open_ones:
        assert standing.state is State.PAUSED or standing.due_at is not None


class TestLostClaimsThatWereToEndAPause:
    def test_a_trigger_does_not_run_what_they_have_begun_before_its_time(self) -> None:
        """Found by simulation: the occurrence of the full hour ran when the trigger was given."""
        job = admit(HOURLY)
        paused = lifecycle.pause(job, until=T0 + SECOND, reason=None, now=T0)
        at = T0 + 2 * SECOND
        claim = evolve(claimed(paused, at), lost=LostClaim(1, "gone", T0 + SECOND))
        woken = lifecycle.begin(claim, now=at)
        assert isinstance(woken, Decision)
        assert woken.standing is not None
        assert woken.standing.attempts == 1
        triggered = lifecycle.trigger(evolve(paused, standing=woken.standing), now=at + SECOND)
        due_at, triggered_at = triggered.standing.due_at, triggered.standing.triggered_at
        assert (due_at, triggered_at) == (T0 + HOUR, at + SECOND)


class TestARetryAfterAPause:
    def test_a_pause_that_ended_during_the_run_does_not_hurry_it(self) -> None:
        """Found by simulation: the second attempt followed the first at once."""
        job = admit(HOURLY, Policy(retry=Retry(attempts=2, backoff=60 * SECOND)))
        due = T0 + HOUR
        claim = claimed(job, due)
        start = lifecycle.begin(claim, now=due)
        assert isinstance(start, Start)
        paused = lifecycle.pause(job, until=due + SECOND, reason=None, now=due)
        ended = due + 2 * SECOND
        after = lifecycle.finish(claim, start, FAILURE, started_at=due, now=ended, stored=paused)
        assert after.standing is not None
        assert after.standing.due_at == ended + 60 * SECOND
