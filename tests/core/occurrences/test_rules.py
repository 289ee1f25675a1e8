"""What the search does not look at: years, calendars, arguments, how long executions are kept."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from attrs import evolve

from sched_core._model.claim import Claim, Decision, Ended, Start
from sched_core._model.execution import Kind, Status
from sched_core._model.job import Job, JobSpec
from sched_core._model.policy import CatchUp, Drop, Policy, Retry
from sched_core._rules import define, moment, operate, request
from sched_core._rules.begin import begin
from sched_core._rules.finish import finish
from sched_core._rules.hold import held, lapse, renewed
from sched_core._rules.standing import current
from sched_core.errors import TooManyRequests
from sched_core.schedule import Cron, Interval, Once, Schedule

NOW = datetime(2026, 11, 30, 3, 1, tzinfo=UTC)  # a Monday
HOUR, DAY = timedelta(hours=1), timedelta(days=1)
LEASE = timedelta(seconds=30)


def admitted(schedule: Schedule, now: datetime, **policy: object) -> Job:
    spec = JobSpec("job", schedule, policy=Policy(**policy))  # type: ignore[arg-type]  # of a policy
    return define.admit(spec, uid="u", declared=True, now=now)


def started(job: Job, now: datetime) -> tuple[Claim, Start]:
    claim = Claim(job, 1, "worker", now, now + LEASE)
    start = begin(claim, now=now)
    assert isinstance(start, Start)
    return claim, start


def ran(job: Job, now: datetime, status: Status = Status.SUCCEEDED) -> tuple[Job, Decision]:
    claim, start = started(job, now)
    decision = finish(claim, start, Ended(status), started_at=now, now=now, stored=job)
    assert decision.standing is not None
    return evolve(job, standing=decision.standing), decision


@pytest.mark.parametrize(
    ("after", "is_kept"),
    [
        ("0 3 * * mon-fri", True),
        ("0 3 * * *", True),
        ("30 3 * * *", False),
        ("0 3 * * tue-fri", False),
    ],
)
def test_a_deploy_keeps_what_is_due_unless_the_calendar_lacks_it(after: str, is_kept: bool) -> None:
    job = admitted(Cron("0 3 * * sun,mon"), NOW - HOUR)
    if after == "0 3 * * *":
        job = admitted(Cron("0 3 * * mon"), NOW - HOUR)
    change = define.redefine(job, evolve(job.spec, schedule=Cron(after)), now=NOW)
    assert change is not None
    one = change.job.standing.scheduled
    assert one is not None
    if is_kept:
        assert (one.number, one.scheduled_at) == (1, NOW.replace(minute=0))
        assert change.executions == ()
        after_it, _ = ran(change.job, NOW)
        following = after_it.standing.scheduled
        assert following is not None
        assert following.scheduled_at == NOW.replace(minute=0) + DAY
    else:
        assert one.scheduled_at > NOW
        assert [each.status for each in change.executions] == [Status.SUPERSEDED]


def test_a_deploy_keeps_what_is_due_of_an_interval() -> None:
    job = admitted(Interval(hours=24), NOW - DAY)
    change = define.redefine(job, evolve(job.spec, schedule=Interval(hours=12)), now=NOW)
    assert change is not None
    assert change.job.standing.scheduled == job.standing.scheduled
    after_it, _ = ran(change.job, NOW)
    following = after_it.standing.scheduled
    assert following is not None
    assert following.scheduled_at == NOW + 12 * HOUR


# -- a clock that was years ahead


def years_ahead() -> Job:
    job = admitted(Interval(minutes=1), NOW)
    job, _ = ran(job, NOW.replace(year=2028))
    assert moment.stray(job, now=NOW.replace(year=2028)) is None
    return job


def test_a_moment_that_a_wrong_clock_has_put_years_away_is_known_and_mended() -> None:
    job = years_ahead()
    assert moment.stray(job, now=NOW) == NOW + timedelta(minutes=1)
    mended = moment.reanchored(job, now=NOW)
    assert mended is not None
    one = mended.standing.scheduled
    assert one is not None
    assert one.scheduled_at == NOW + timedelta(minutes=1)
    assert one.number > 1
    assert moment.reanchored(mended, now=NOW) is None


def test_an_edit_mends_it_too() -> None:
    job = years_ahead()
    change = define.redefine(job, evolve(job.spec, schedule=Interval(minutes=2)), now=NOW)
    assert change is not None
    one = change.job.standing.scheduled
    assert one is not None
    assert one.scheduled_at == NOW + timedelta(minutes=2)


def test_a_moment_that_ran_just_before_the_clock_was_set_back_is_not_repeated() -> None:
    job, _ = ran(admitted(Cron("0 * * * *"), NOW), NOW + HOUR)
    back = NOW + timedelta(minutes=55)
    assert moment.stray(job, now=back) is None
    change = define.redefine(job, evolve(job.spec, schedule=Cron("0,30 * * * *")), now=back)
    assert change is not None
    one = change.job.standing.scheduled
    assert one is not None
    assert one.scheduled_at == NOW.replace(hour=4, minute=30)


def test_a_pause_and_a_mark_are_no_wrong_clock() -> None:
    job = admitted(Interval(hours=1), NOW)
    paused = operate.pause(job, until=None, reason=None, now=NOW)
    assert moment.stray(paused, now=NOW + 5 * HOUR) is None
    assert moment.stray(operate.skip_next(job, now=NOW), now=NOW) is None


# -- misfire


def test_a_catch_up_without_a_window_runs_what_is_older_than_a_day() -> None:
    job = admitted(Cron("0 0 1 * *"), NOW - 40 * DAY, misfire=CatchUp())
    assert isinstance(begin(Claim(job, 1, "w", NOW, NOW + LEASE), now=NOW), Start)
    short = evolve(job, spec=evolve(job.spec, policy=Policy(misfire=CatchUp(window=DAY))))
    missed = begin(Claim(short, 1, "w", NOW, NOW + LEASE), now=NOW)
    assert isinstance(missed, Decision)
    assert [each.status for each in missed.executions] == [Status.MISSED]


def test_a_grace_is_judged_again_after_a_lost_claim_and_not_between_retries() -> None:
    policy = {"misfire": Drop(HOUR), "retry": Retry(attempts=2, backoff=3 * HOUR)}
    job = admitted(Once(NOW), NOW, **policy)
    hold = held(job, current(job.standing), 1, "w", NOW, LEASE)
    lost, _ = lapse(job, hold, now=NOW + LEASE)
    assert lost is not None
    late = NOW + 2 * HOUR
    missed = begin(Claim(lost, 2, "w", late, late + LEASE), now=late)
    assert isinstance(missed, Decision)
    assert [each.status for each in missed.executions] == [Status.MISSED]
    failed, _ = ran(job, NOW, Status.FAILED)
    late = NOW + 4 * HOUR
    assert isinstance(begin(Claim(failed, 2, "w", late, late + LEASE), now=late), Start)


# -- lost claims


def test_only_a_claim_that_was_lost_alone_ends_an_occurrence() -> None:
    job, now = admitted(Once(NOW), NOW, max_lost=3), NOW
    for _ in range(10):
        claim, start = started(job, now)
        hold = held(job, current(job.standing), claim.token, "w", now, LEASE)
        found, _ = lapse(job, hold, now=now + LEASE)
        assert found is not None
        due = found.standing.due_at
        assert due is not None
        assert timedelta(0) < due - now <= LEASE + timedelta(minutes=1)
        job, now = found, max(due, now + LEASE)
    assert start.alone
    hold = renewed(held(job, current(job.standing), 9, "w", now, LEASE), now, LEASE, alone=True)
    survived = renewed(hold, now + timedelta(seconds=31), LEASE, alone=True)
    for kept, ends in ((survived, False), (hold, True)):
        found, _ = lapse(job, kept, now=now + HOUR)
        assert found is not None
        due = found.standing.due_at
        assert due is not None
        later = max(due, now + HOUR)
        decided = begin(Claim(found, 10, "w", later, later + LEASE), now=later)
        assert isinstance(decided, Decision if ends else Start)
        if isinstance(decided, Decision):
            (execution,) = decided.executions
            assert execution.status is Status.FAILED
            assert (execution.reason or "").startswith("lost: 3 claims")


# -- requests


def test_a_rerun_keeps_its_arguments_and_is_the_same_while_it_has_not_ended() -> None:
    job = admitted(Interval(hours=1), NOW)
    asked = request.rerun(job, NOW - HOUR, now=NOW, key="u:7:1", args={"a": "1"})
    again = request.rerun(asked.job, NOW - HOUR, now=NOW, key="u:7:1", args={"a": "1"})
    assert again.number == asked.number
    _, start = started(asked.job, NOW)
    assert (start.kind, start.scheduled_at, start.args) == (Kind.RERUN, NOW - HOUR, {"a": "1"})


def test_the_key_of_a_trigger_stays_and_asks_once() -> None:
    job = admitted(Interval(hours=1), NOW)
    asked = request.trigger(job, now=NOW, key="order 7", args={"order": "7"})
    assert request.trigger(asked.job, now=NOW + HOUR, key="order 7").number == asked.number
    assert request.trigger(asked.job, now=NOW, key="order 8").number != asked.number
    plain = request.trigger(asked.job, now=NOW)
    assert request.trigger(plain.job, now=NOW).job is plain.job


def test_calendar_moments_before_the_anchor_can_be_backfilled() -> None:
    job = admitted(Cron("0 3 * * *"), NOW)
    asked = request.backfill(job, since=NOW - 3 * DAY, until=NOW, now=NOW)
    _, start = started(asked.job, NOW)
    assert start.scheduled_at == NOW.replace(minute=0) - 2 * DAY


def test_a_job_takes_sixteen_requests() -> None:
    job = admitted(Interval(hours=1), NOW)
    for number in range(16):
        job = request.trigger(job, now=NOW, args={"n": str(number)}).job
    with pytest.raises(TooManyRequests, match="16 requests"):
        request.trigger(job, now=NOW, args={"n": "17"})


# -- how long executions are kept


@pytest.mark.parametrize(
    ("schedule", "keep"),
    [(Cron("* * * * *"), 30 * DAY), (Cron("0 0 1 1 *"), 3650 * DAY), (Once(NOW), 30 * DAY)],
)
def test_an_execution_is_kept_for_thirty_days_or_ten_gaps(
    schedule: Schedule, keep: timedelta
) -> None:
    job = admitted(schedule, NOW)
    one = job.standing.scheduled
    assert one is not None
    now = one.scheduled_at + timedelta(milliseconds=1)
    _, decision = ran(job, now)
    (execution,) = decision.executions
    assert execution.expires_at == now + keep
