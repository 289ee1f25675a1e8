"""What an occurrence covers: fixed when it begins, whatever is edited or paused afterwards."""

from __future__ import annotations

from datetime import datetime

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
    edit,
    end,
    lose,
    pause,
    run,
    running,
    scheduled,
    told,
)

from sched_core._model.claim import Ended
from sched_core._model.job import Job
from sched_core._model.policy import CatchUp, Coalesce, Drop, Policy, Retry
from sched_core._rules import define, operate
from sched_core.schedule import Interval

RETRY = Retry(attempts=3, backoff=10 * MINUTE)
LATE = T0 + 5 * HOUR + 30 * MINUTE
"""The occurrence of 1:00 begins then; four more have passed."""
SINGLE = pytest.mark.parametrize("misfire", [CatchUp(), Drop(DAY)])
TO_COALESCE = Policy(misfire=Coalesce(), retry=RETRY)


def failed(misfire: Coalesce | CatchUp | Drop, ended: Ended = FAILURE) -> Job:
    job, _ = run(admit(HOURLY, Policy(misfire=misfire, retry=RETRY)), LATE, ended)
    return job


def told_at(job: Job, now: datetime) -> tuple[int, datetime | None]:
    _, start = begun(job, now)
    return start.coalesced, start.coalesced_until


@SINGLE
@pytest.mark.parametrize("ended", [FAILURE, INTERRUPTION])
def test_a_policy_that_coalesces_adds_nothing_to_what_waits_for_its_next_attempt(
    misfire: CatchUp | Drop, ended: Ended
) -> None:
    job = edit(failed(misfire, ended), LATE + MINUTE, policy=TO_COALESCE).job
    assert told_at(job, LATE + HOUR) == (0, None)
    job, execution = run(job, LATE + HOUR)
    assert told((execution,)) == [("succeeded", 1, 0)]
    job, execution = run(job, LATE + HOUR)
    assert told((execution,)) == [("succeeded", 2, 4)]


@SINGLE
def test_nor_to_what_runs_when_it_is_edited(misfire: CatchUp | Drop) -> None:
    job = admit(HOURLY, Policy(misfire=misfire, retry=RETRY))
    claim, start = begun(job, LATE)
    assert (start.coalesced, start.coalesced_until) == (0, None)
    stored = edit(running(job, LATE), LATE + MINUTE, policy=TO_COALESCE).job
    job, _ = end(claim, start, LATE + MINUTE, FAILURE, stored=stored)
    assert told_at(job, LATE + HOUR) == (0, None)


@SINGLE
def test_nor_to_what_a_lost_claim_has_begun(misfire: CatchUp | Drop) -> None:
    job = admit(HOURLY, Policy(misfire=misfire, max_lost=1))
    stored = edit(running(job, LATE), LATE + MINUTE, policy=Policy(max_lost=1)).job
    job, executions = lose(job, LATE, stored=stored)
    assert told(executions) == [("abandoned", 1, 0)]
    decision = define.final_executions(job, now=LATE + MINUTE)
    assert told(decision) == [("superseded", 1, 0), ("superseded", 2, 3)]


def test_there_and_back_again_changes_nothing() -> None:
    job = failed(Coalesce())
    four = (4, T0 + 5 * HOUR)
    misfires: list[Coalesce | CatchUp | Drop] = [CatchUp(), Coalesce(), Drop(DAY), Coalesce()]
    for minute, misfire in enumerate(misfires):
        policy = Policy(misfire=misfire, retry=RETRY)
        job = edit(job, LATE + minute * MINUTE, policy=policy).job
        assert told_at(job, LATE + HOUR) == four


def test_an_edited_schedule_adds_nothing_either_although_the_clock_was_set_back() -> None:
    job = edit(failed(Coalesce()), T0 + 3 * HOUR, schedule=Interval(minutes=30)).job
    assert told_at(job, LATE + HOUR) == (4, T0 + 5 * HOUR)


def test_a_pause_takes_nothing_away_although_the_clock_was_set_back() -> None:
    job = operate.resume(pause(failed(Coalesce()), T0 + 3 * HOUR), at=T0 + 4 * HOUR)
    assert told_at(job, LATE + HOUR) == (4, T0 + 5 * HOUR)


def test_what_has_not_begun_is_judged_by_the_policy_of_when_it_begins() -> None:
    job = edit(admit(HOURLY, Policy(misfire=CatchUp())), LATE, policy=Policy()).job
    assert scheduled(job).until is None
    assert told_at(job, LATE) == (4, T0 + 5 * HOUR)


def test_what_was_fixed_before_it_began_grows_until_it_does() -> None:
    job = edit(admit(HOURLY), T0 + 3 * HOUR, schedule=Interval(minutes=90)).job
    assert told_at(job, T0 + 6 * HOUR) == (4, T0 + 6 * HOUR)
    job, _ = run(evolve(job, spec=evolve(job.spec, policy=TO_COALESCE)), T0 + 6 * HOUR, FAILURE)
    assert told_at(job, T0 + 9 * HOUR) == (4, T0 + 6 * HOUR)
