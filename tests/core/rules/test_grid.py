"""The moments of a schedule without those inside gaps."""

from __future__ import annotations

from datetime import datetime

import pytest
from tests.core.rules.steps import DAY, HOUR, MINUTE, T0, admit, pause, run

from sched_core._model.occurrence import Gap
from sched_core._rules.grid import Grid
from sched_core._rules.operate import resume
from sched_core.schedule import Interval, Schedule
from sched_core.schedule.base import STEPPING_LIMIT


class Stepped:
    """Each minute, of a kind of one's own that can only be stepped through."""

    def first(self, anchor: datetime) -> datetime | None:
        return self.next_after(anchor, anchor)

    def next_after(self, moment: datetime, anchor: datetime) -> datetime | None:
        return moment.replace(second=0, microsecond=0) + MINUTE


MINUTELY = Interval(minutes=1)
EACH = pytest.mark.parametrize("schedule", [MINUTELY, Stepped()], ids=["counted", "stepped"])


@EACH
def test_what_was_due_before_a_long_pause_runs_once_after_it(schedule: Schedule) -> None:
    """2,880 moments lie in the pause: more than are stepped through."""
    job = pause(admit(schedule), T0 + 500 * MINUTE)
    resumed = T0 + 500 * MINUTE + 2 * DAY
    job, execution = run(resume(job, at=resumed), resumed + HOUR)
    assert (execution.coalesced, execution.coalesced_until) == (499 + 60, resumed + HOUR)
    assert job.next_run == resumed + HOUR + MINUTE


def test_a_stepped_schedule_says_at_least_and_how_far_it_came() -> None:
    gaps = (Gap(T0 + 10 * MINUTE, T0 + 2 * DAY),)
    found = Grid(Stepped(), T0, gaps).between(T0, T0 + 4 * DAY)
    assert found.number == 10 + STEPPING_LIMIT
    assert found.last == T0 + 2 * DAY + STEPPING_LIMIT * MINUTE
    assert Grid(Stepped(), T0).between(T0, T0 + 2 * DAY).last == T0 + STEPPING_LIMIT * MINUTE


@EACH
@pytest.mark.parametrize("after", range(0, 13, 3))
@pytest.mark.parametrize("until", range(0, 17, 2))
def test_it_agrees_with_its_moments(schedule: Schedule, after: int, until: int) -> None:
    gaps = tuple(Gap(T0 + a * MINUTE, T0 + b * MINUTE) for a, b in ((2, 4), (4, 5), (9, 12)))
    inside = {3, 4, 5, 10, 11, 12}
    grid = Grid(schedule, T0, gaps)
    expected = [T0 + each * MINUTE for each in range(after + 1, until + 1) if each not in inside]
    since, end = T0 + after * MINUTE, T0 + until * MINUTE
    newest = expected[-1] if expected else None
    assert grid.count(since, end) == len(expected)
    assert grid.last(since, end) == newest
    assert grid.between(since, end) == (len(expected), newest)
    following = (T0 + each * MINUTE for each in range(after + 1, 99) if each not in inside)
    assert grid.after(since) == next(following)
