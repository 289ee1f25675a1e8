"""How long an execution is kept; decided when it is written."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest
from tests.core.rules.steps import (
    DAY,
    FAILURE,
    HOURLY,
    INTERRUPTION,
    MINUTE,
    T0,
    admit,
    changed,
    edit,
    passed_over,
    run,
    scheduled,
)

from sched_core._model.claim import SUCCESS, Ended
from sched_core._model.execution import Status
from sched_core._model.policy import CatchUp, Drop, Policy, Retry
from sched_core._rules import operate, request
from sched_core.schedule import Cron, FixedDelay, Interval, Once, Schedule


class TestHowLongExecutionsAreKept:
    """30 days or ten gaps of the schedule, whichever is longer, unless the policy says it."""

    YEARLY = Cron("0 0 1 7 *")
    YEARS = 10 * timedelta(days=365)

    @pytest.mark.parametrize("late", [timedelta(0), MINUTE])
    @pytest.mark.parametrize("ended", [SUCCESS, FAILURE, INTERRUPTION])
    @pytest.mark.parametrize(
        ("schedule", "keep"),
        [
            (HOURLY, 30 * DAY),
            (Interval(days=3), 30 * DAY),
            (Interval(days=4), 40 * DAY),
            (FixedDelay(days=4), 40 * DAY),
            (YEARLY, YEARS),
            (Once(T0), 30 * DAY),
        ],
    )
    def test_attempts(
        self, schedule: Schedule, keep: timedelta, ended: Ended, late: timedelta
    ) -> None:
        job = admit(schedule, Policy(retry=Retry(attempts=2)))
        now = scheduled(job).scheduled_at + late
        _, execution = run(job, now, ended)
        assert execution.expires_at == now + keep

    def test_a_run_for_several_is_kept_for_ten_gaps_after_the_last(self) -> None:
        now = datetime(2029, 8, 1, tzinfo=T0.tzinfo)
        _, execution = run(admit(self.YEARLY), now)
        assert execution.coalesced == 3
        assert execution.expires_at == now + self.YEARS

    @pytest.mark.parametrize("misfire", [CatchUp(window=DAY), Drop(grace=DAY)])
    def test_what_was_missed(self, misfire: CatchUp | Drop) -> None:
        now = datetime(2026, 8, 1, tzinfo=T0.tzinfo)
        _, (execution,) = passed_over(admit(self.YEARLY, Policy(misfire=misfire)), now)
        assert execution.status is Status.MISSED
        assert execution.expires_at == now + self.YEARS

    def test_what_was_skipped_superseded_or_lost_for_good(self) -> None:
        job = admit(self.YEARLY, Policy(max_lost=1))
        now = scheduled(job).scheduled_at
        found = [
            passed_over(operate.skip_next(job, now=T0), now)[1],
            passed_over(changed(job, lost=1), now)[1],
            edit(job, now, schedule=Cron("0 0 1 8 *")).executions,
        ]
        kept = {each.status: each.expires_at for executions in found for each in executions}
        assert kept == dict.fromkeys(
            (Status.SKIPPED, Status.FAILED, Status.SUPERSEDED), now + self.YEARS
        )

    def test_a_request_has_no_gap(self) -> None:
        _, execution = run(request.trigger(admit(self.YEARLY), now=T0).job, T0)
        assert execution.expires_at == T0 + 30 * DAY

    @pytest.mark.parametrize("keep", [timedelta(0), DAY])
    def test_the_policy_may_say_less(self, keep: timedelta) -> None:
        job = admit(self.YEARLY, Policy(keep_executions=keep))
        now = scheduled(job).scheduled_at
        assert run(job, now)[1].expires_at == now + keep
        assert passed_over(operate.skip_next(job, now=T0), now)[1][0].expires_at == now + keep

    @pytest.mark.parametrize("keep", [None, timedelta.max])
    def test_or_without_end(self, keep: timedelta | None) -> None:
        policy = Policy(keep_finished=keep, keep_executions=keep)
        job, execution = run(admit(Once(T0), policy, declared=False), T0)
        assert (job.standing.expires_at, execution.expires_at) == (None, None)

    def test_gaps_of_centuries_are_kept_without_end(self) -> None:
        class Rarely:
            def first(self, anchor: datetime) -> datetime | None:
                return T0

            def next_after(self, moment: datetime, anchor: datetime) -> datetime | None:
                return datetime(9000, 1, 1, tzinfo=T0.tzinfo)

        assert run(admit(Rarely()), T0)[1].expires_at is None
