"""What passes while an occurrence is under way, with what passed before it began."""

from __future__ import annotations

from datetime import timedelta

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
    claimed,
    edit,
    end,
    passed_over,
    pause,
    run,
    scheduled,
    statuses,
    told,
)

from sched_core._model.claim import Decision, Ended
from sched_core._model.execution import Execution, Status
from sched_core._model.job import Job
from sched_core._model.occurrence import Gap
from sched_core._model.policy import CatchUp, Coalesce, Drop, Overlap, Policy, Retry
from sched_core._rules import operate, request
from sched_core._rules.begin import begin
from sched_core.schedule import FixedDelay, Once, Schedule

Misfire = Coalesce | CatchUp | Drop
MISFIRES: dict[str, Misfire] = {
    "coalesce": Coalesce(),
    "catch up": CatchUp(limit=2),
    "drop": Drop(grace=90 * MINUTE),
}
OUTCOMES: dict[tuple[str, Overlap], list[tuple[str, int, int]]] = {
    ("coalesce", "late"): [("succeeded", 1, 3), ("succeeded", 5, 1)],
    ("coalesce", "skip"): [("succeeded", 1, 3), ("skipped", 5, 1)],
    ("coalesce", "cancel"): [("cancelled", 1, 3), ("succeeded", 5, 1)],
    ("catch up", "late"): [
        ("missed", 1, 1),
        ("succeeded", 3, 0),
        ("missed", 4, 0),
        ("succeeded", 5, 0),
        ("succeeded", 6, 0),
    ],
    ("catch up", "skip"): [
        ("missed", 1, 1),
        ("succeeded", 3, 0),
        ("skipped", 5, 1),
        ("succeeded", 4, 0),
    ],
    ("catch up", "cancel"): [
        ("missed", 1, 1),
        ("cancelled", 3, 0),
        ("missed", 4, 0),
        ("succeeded", 5, 0),
        ("succeeded", 6, 0),
    ],
    ("drop", "late"): [
        ("missed", 1, 1),
        ("succeeded", 3, 0),
        ("missed", 4, 0),
        ("succeeded", 5, 0),
        ("succeeded", 6, 0),
    ],
    ("drop", "skip"): [
        ("missed", 1, 1),
        ("succeeded", 3, 0),
        ("skipped", 5, 1),
        ("missed", 4, 0),
    ],
    ("drop", "cancel"): [
        ("missed", 1, 1),
        ("cancelled", 3, 0),
        ("missed", 4, 0),
        ("succeeded", 5, 0),
        ("succeeded", 6, 0),
    ],
}
"""Cases of an hourly job that is claimed at 4:15, whose first run takes until 6:20."""


@pytest.mark.parametrize(("misfire", "overlap"), OUTCOMES)
@pytest.mark.parametrize("jitter", [timedelta(0), MINUTE])
def test_every_misfire_policy_with_every_overlap_policy(
    misfire: str, overlap: Overlap, jitter: timedelta
) -> None:
    """Each moment is accounted for once: before the begin by misfire, after it by overlap."""
    policy = Policy(misfire=MISFIRES[misfire], overlap=overlap, jitter=jitter)
    job, now, found = admit(HOURLY, policy), T0 + 4 * HOUR + 15 * MINUTE, list[Execution]()
    has_run = False
    while scheduled(job).due_at <= now:
        claim = claimed(job, now)
        what = begin(claim, now=now)
        if isinstance(what, Decision):
            assert what.standing is not None
            job, executions = evolve(job, standing=what.standing), what.executions
        else:
            ended = Ended(Status.SUCCEEDED)
            if not has_run:
                now = T0 + 6 * HOUR + 20 * MINUTE
                assert what.deadline == (T0 + 5 * HOUR if overlap == "cancel" else None)
                if overlap == "cancel":
                    ended = Ended(Status.CANCELLED)
            has_run = True
            job, executions = end(claim, what, now, ended)
        found += executions
    assert told(tuple(found)) == OUTCOMES[misfire, overlap]
    assert job.next_run == T0 + 7 * HOUR
    assert len({each.number for each in found}) == len(found)
    assert all(each.final for each in found)


class TestSkip:
    SKIP = Policy(overlap="skip", retry=Retry(attempts=3, backoff=2 * HOUR))

    def test_one_execution_is_for_all_that_passed_and_has_a_number_of_its_own(self) -> None:
        claim, start = begun(admit(HOURLY, self.SKIP), T0 + HOUR)
        job, (ran, skipped) = end(claim, start, T0 + 4 * HOUR + MINUTE)
        assert (ran.number, skipped.number, scheduled(job).number) == (1, 2, 3)
        assert (skipped.status, skipped.reason) == (Status.SKIPPED, "still running")
        assert (skipped.scheduled_at, skipped.coalesced) == (T0 + 2 * HOUR, 2)
        assert (skipped.coalesced_until, job.next_run) == (T0 + 4 * HOUR, T0 + 5 * HOUR)
        assert job.standing.last_scheduled_at == T0 + 4 * HOUR

    def test_nothing_is_said_where_nothing_passed(self) -> None:
        job, execution = run(admit(HOURLY, self.SKIP), T0 + 90 * MINUTE)
        assert (execution.status, job.next_run) == (Status.SUCCEEDED, T0 + 2 * HOUR)

    def test_an_occurrence_is_under_way_while_it_waits_for_its_retry(self) -> None:
        job, first = run(admit(HOURLY, self.SKIP), T0 + HOUR, FAILURE)
        claim, start = begun(job, T0 + 3 * HOUR)
        job, executions = end(claim, start, T0 + 3 * HOUR)
        assert told((first, *executions)) == [
            ("failed", 1, 0),
            ("succeeded", 1, 0),
            ("skipped", 2, 1),
        ]
        assert job.next_run == T0 + 4 * HOUR

    def test_what_lies_in_a_pause_is_not_among_it(self) -> None:
        claim, start = begun(admit(HOURLY, self.SKIP), T0 + HOUR)
        job = pause(claim.job, T0 + 150 * MINUTE)
        paused, executions = end(claim, start, T0 + 5 * HOUR, stored=job)
        assert told(executions) == [("succeeded", 1, 0), ("skipped", 2, 0)]
        assert scheduled(operate.resume(paused, at=T0 + 5 * HOUR)).scheduled_at == T0 + 6 * HOUR

    def test_an_occurrence_that_never_began_has_nothing_under_way(self) -> None:
        job = operate.skip_next(admit(HOURLY, self.SKIP), now=T0)
        job, executions = passed_over(job, T0 + 3 * HOUR)
        assert (statuses(executions), job.next_run) == ([Status.SKIPPED], T0 + 2 * HOUR)

    def test_the_run_of_a_request_lets_nothing_be_skipped(self) -> None:
        claim, start = begun(request.trigger(admit(HOURLY, self.SKIP), now=T0).job, T0)
        job, executions = end(claim, start, T0 + 3 * HOUR)
        assert (statuses(executions), job.next_run) == ([Status.SUCCEEDED], T0 + HOUR)

    def test_a_fixed_delay_has_nothing_that_could_pass(self) -> None:
        claim, start = begun(admit(FixedDelay(hours=1), self.SKIP), T0 + HOUR)
        job, executions = end(claim, start, T0 + 9 * HOUR)
        assert (statuses(executions), job.next_run) == ([Status.SUCCEEDED], T0 + 10 * HOUR)


class TestDeadline:
    CANCEL = Policy(overlap="cancel", retry=Retry(attempts=5, backoff=10 * MINUTE))

    @pytest.mark.parametrize("misfire", [Coalesce(), CatchUp(), Drop(DAY)])
    @pytest.mark.parametrize("late", [timedelta(0), MINUTE, 3 * HOUR, 3 * HOUR + MINUTE])
    def test_it_is_the_first_moment_after_the_begin(
        self, misfire: Misfire, late: timedelta
    ) -> None:
        policy = evolve(self.CANCEL, misfire=misfire)
        _, start = begun(admit(HOURLY, policy), T0 + HOUR + late)
        assert start.deadline == T0 + HOUR + late // HOUR * HOUR + HOUR

    def test_it_stays_for_the_retries_of_the_occurrence(self) -> None:
        job, _ = run(admit(HOURLY, self.CANCEL), T0 + HOUR, FAILURE)
        _, start = begun(job, T0 + HOUR + 10 * MINUTE)
        assert (start.attempt, start.deadline) == (2, T0 + 2 * HOUR)

    def test_an_occurrence_that_waits_for_a_retry_is_cancelled_at_its_deadline(self) -> None:
        job, _ = run(admit(HOURLY, self.CANCEL), T0 + HOUR + 55 * MINUTE, FAILURE)
        assert job.standing.due_at == T0 + 2 * HOUR
        job, (execution,) = passed_over(job, T0 + 2 * HOUR)
        assert (execution.number, execution.status) == (1, Status.CANCELLED)
        assert execution.reason == "the next occurrence's moment has come"
        assert job.standing.due_at == job.next_run == T0 + 2 * HOUR

    def waiting_beyond_it(self) -> Job:
        """Return a job with a retry ten minutes later: five minutes after the deadline."""
        return run(admit(HOURLY, self.CANCEL), T0 + HOUR + 55 * MINUTE, FAILURE)[0]

    def test_a_retry_is_no_earlier_where_a_pause_takes_the_deadline_away(self) -> None:
        job = pause(self.waiting_beyond_it(), T0 + HOUR + 56 * MINUTE)
        job = operate.resume(job, at=T0 + 2 * HOUR + MINUTE)
        job, executions = passed_over(job, T0 + 2 * HOUR + MINUTE)
        assert executions == ()
        assert job.standing.due_at == T0 + 2 * HOUR + 5 * MINUTE
        _, start = begun(job, T0 + 2 * HOUR + 5 * MINUTE)
        assert (start.number, start.attempt, start.deadline) == (1, 2, T0 + 3 * HOUR)

    @pytest.mark.parametrize("overlap", ["late", "skip"])
    def test_a_retry_is_no_earlier_where_an_edit_takes_the_deadline_away(
        self, overlap: Overlap
    ) -> None:
        policy = evolve(self.CANCEL, overlap=overlap)
        job = edit(self.waiting_beyond_it(), T0 + HOUR + 56 * MINUTE, policy=policy).job
        job, executions = passed_over(job, T0 + 2 * HOUR)
        assert executions == ()
        assert job.standing.due_at == T0 + 2 * HOUR + 5 * MINUTE
        _, start = begun(job, T0 + 2 * HOUR + 5 * MINUTE)
        assert (start.number, start.attempt, start.deadline) == (1, 2, None)

    def test_a_retry_that_waits_for_another_deadline_is_cancelled_at_that_one(self) -> None:
        policy = evolve(self.CANCEL, retry=Retry(attempts=5, backoff=2 * HOUR, maximum=2 * HOUR))
        job, _ = run(admit(HOURLY, policy), T0 + HOUR + 55 * MINUTE, FAILURE)
        job = operate.resume(pause(job, T0 + HOUR + 56 * MINUTE), at=T0 + 2 * HOUR + MINUTE)
        job, executions = passed_over(job, T0 + 2 * HOUR + MINUTE)
        assert (executions, job.standing.due_at) == ((), T0 + 3 * HOUR)
        _, (execution,) = passed_over(job, T0 + 3 * HOUR)
        assert (execution.number, execution.status) == (1, Status.CANCELLED)

    def test_what_waits_beyond_it_can_be_hurried(self) -> None:
        now = T0 + HOUR + 56 * MINUTE
        _, start = begun(operate.retry_now(self.waiting_beyond_it(), now=now), now)
        assert (start.attempt, start.deadline) == (2, T0 + 2 * HOUR)

    def test_one_that_has_not_begun_is_not_cancelled_however_late(self) -> None:
        begun(admit(HOURLY, self.CANCEL), T0 + 5 * HOUR)

    @pytest.mark.parametrize("schedule", [FixedDelay(hours=1), Once(T0 + HOUR)])
    def test_there_is_none_where_no_moment_follows(self, schedule: Schedule) -> None:
        assert begun(admit(schedule, self.CANCEL), T0 + HOUR)[1].deadline is None

    def test_a_request_has_none(self) -> None:
        job = request.trigger(admit(HOURLY, self.CANCEL), now=T0).job
        assert begun(job, T0)[1].deadline is None

    def test_it_lies_in_no_pause(self) -> None:
        job, _ = run(admit(HOURLY, self.CANCEL), T0 + HOUR, FAILURE)
        job = operate.resume(pause(job, T0 + 90 * MINUTE), at=T0 + 4 * HOUR + MINUTE)
        assert job.standing.gaps == (Gap(T0 + 90 * MINUTE, T0 + 4 * HOUR + MINUTE),)
        _, start = begun(job, T0 + 4 * HOUR + MINUTE)
        assert (start.number, start.deadline) == (1, T0 + 5 * HOUR)
