"""Interval, StartAtInterval, FixedDelay, Once; and what holds for every kind of schedule."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta, timezone

import pytest
from attrs import frozen
from hypothesis import assume, example, given
from hypothesis import strategies as st

from sched_core.errors import InvalidDefinition
from sched_core.schedule import (
    Countable,
    Counted,
    Cron,
    DstRule,
    FixedDelay,
    Interval,
    Newest,
    Once,
    Schedule,
    StartAtInterval,
    count_occurrences,
    last_occurrence,
    utc,
)

START = datetime(2026, 1, 1, tzinfo=UTC)
NAIVE = datetime(2026, 1, 1)  # noqa: DTZ001
HOUR = timedelta(hours=1)


def test_the_grid_is_anchored_where_it_took_effect() -> None:
    hourly = Interval(hours=1)
    assert hourly.first(START) == START + HOUR
    assert hourly.next_after(START + timedelta(minutes=90), START) == START + 2 * HOUR
    assert hourly.next_after(START + HOUR, START) == START + 2 * HOUR
    assert hourly.next_after(START - 9 * HOUR, START) == START + HOUR
    assert hourly.count(START, START + 3 * HOUR, START) == 3
    assert hourly.count(START - 9 * HOUR, START + HOUR, START) == 1
    assert hourly.count(START + 5 * HOUR, START, START) == 0
    assert hourly.last_until(START + 3.5 * HOUR, START) == START + 3 * HOUR
    assert hourly.last_until(START, START) is None


def test_a_start_that_is_still_to_come_is_the_first_occurrence() -> None:
    schedule = StartAtInterval(START, HOUR)
    before = START - timedelta(days=3)
    assert schedule.first(before) == START
    assert schedule.first(START) == START
    assert schedule.next_after(before, before) == START
    assert schedule.count(before, START, before) == 1
    assert schedule.last_until(START, before) == START
    assert schedule.last_until(START - timedelta(seconds=1), before) is None


def test_a_start_in_the_past_gives_its_grid() -> None:
    schedule = StartAtInterval(START, hours=1)
    anchor = START + timedelta(minutes=150)
    assert schedule.first(anchor) == START + 3 * HOUR
    assert schedule.first(START + 2 * HOUR) == START + 3 * HOUR
    assert schedule.last_until(anchor, anchor) is None
    assert schedule.next_after(START, anchor) == START + 3 * HOUR
    assert schedule.count(START, START + 3 * HOUR, anchor) == 1


def test_start_at_interval_is_an_interval() -> None:
    assert StartAtInterval(START, HOUR) == Interval(HOUR, start=START)
    assert hash(StartAtInterval(START, HOUR)) == hash(Interval(hours=1, start=START))
    assert (
        Interval(hours=1) == Interval(timedelta(minutes=60)) == Interval(minutes=30, seconds=1800)
    )
    assert eval(
        repr(Interval(hours=1)), {"Interval": Interval, "datetime": __import__("datetime")}
    ) == Interval(hours=1)


def test_an_offset_is_the_same_moment() -> None:
    berlin = START.astimezone(timezone(HOUR))
    assert Interval(hours=1, start=berlin) == Interval(hours=1, start=START)
    assert Once(berlin) == Once(START)
    first = Interval(hours=1).first(berlin)
    assert first is not None
    assert first.tzinfo is UTC


def test_a_fixed_delay_counts_from_the_end_of_a_run() -> None:
    schedule = FixedDelay(minutes=5)
    assert schedule == FixedDelay(timedelta(minutes=5))
    assert schedule.first(START) == START + timedelta(minutes=5)
    assert schedule.next_after(START + HOUR, START) == START + HOUR + timedelta(minutes=5)
    assert schedule.count(START, START + 9 * HOUR, START) == 0
    assert schedule.last_until(START + 9 * HOUR, START) is None
    assert schedule.upcoming(START, 2) == [START + timedelta(minutes=m) for m in (5, 10)]


def test_once_is_first_also_when_it_has_passed() -> None:
    schedule = Once(START)
    later = START + HOUR
    assert schedule.first(later) == START
    assert schedule.next_after(START - HOUR, later) == START
    assert schedule.next_after(START, START) is None
    assert schedule.count(START - HOUR, later, later) == 1
    assert schedule.count(START, later, later) == 0
    assert schedule.last_until(START, later) == START
    assert schedule.last_until(START - HOUR, later) is None
    assert schedule.upcoming(START - HOUR, 3) == [START]


@pytest.mark.parametrize("kind", [Interval, FixedDelay])
@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        ({}, "every"),
        ({"every": timedelta(0)}, "every"),
        ({"every": -HOUR}, "every"),
        ({"every": timedelta(microseconds=999)}, "every"),
        ({"every": timedelta(days=36526)}, "every"),
        ({"every": timedelta.max}, "every"),
        ({"every": 5}, "every"),
        ({"every": "1h"}, "every"),
        ({"every": True}, "every"),
        ({"every": HOUR, "hours": 1}, "every"),
        ({"hours": 0}, "every"),
        ({"hours": -1}, "every"),
        ({"hours": True}, "hours"),
        ({"hours": False}, "hours"),
        ({"minutes": "5"}, "minutes"),
        ({"minutes": None}, "minutes"),
        ({"seconds": float("nan")}, "seconds"),
        ({"seconds": float("inf")}, "seconds"),
        ({"weeks": 10**30}, "weeks"),
    ],
)
def test_no_period(kind: type[Interval], arguments: dict[str, object], field: str) -> None:
    with pytest.raises(InvalidDefinition) as error:
        kind(**arguments)  # type: ignore[arg-type]

    assert error.value.field == field
    assert isinstance(error.value, ValueError)


def test_the_bounds_are_accepted() -> None:
    for every in (timedelta(milliseconds=1), timedelta(days=36525)):
        assert Interval(every).every == every

    assert Interval(milliseconds=1.5).every == timedelta(microseconds=1500)


def test_naive_moments_are_refused() -> None:
    for call in (
        lambda: utc(NAIVE, "moment"),
        lambda: utc("2026-01-01", "moment"),  # type: ignore[arg-type]
        lambda: Once(NAIVE),
        lambda: Interval(hours=1, start=NAIVE),
        lambda: StartAtInterval(NAIVE, HOUR),
        lambda: StartAtInterval(None, HOUR),  # type: ignore[arg-type]
        lambda: Interval(hours=1).first(NAIVE),
        lambda: Interval(hours=1).next_after(NAIVE, START),
        lambda: Interval(hours=1).next_after(START, NAIVE),
        lambda: Interval(hours=1).count(START, NAIVE, START),
        lambda: Interval(hours=1).last_until(NAIVE, START),
        lambda: FixedDelay(hours=1).first(NAIVE),
        lambda: FixedDelay(hours=1).next_after(NAIVE, START),
        lambda: Once(START).next_after(NAIVE, START),
        lambda: Once(START).upcoming(NAIVE, 1),
        lambda: Once(START).upcoming(START, -1),
        lambda: utc(datetime.max.replace(tzinfo=timezone(-HOUR)), "moment"),
    ):
        with pytest.raises(InvalidDefinition):
            call()


def test_the_calendar_ends_without_an_error() -> None:
    end = datetime.max.replace(tzinfo=UTC)

    for schedule in (Interval(hours=1), FixedDelay(hours=1), StartAtInterval(START, HOUR)):
        assert schedule.first(end) is None
        assert schedule.next_after(end, START) is None
        assert schedule.upcoming(end, 2) == []


def test_ten_years_of_seconds_take_no_time() -> None:
    schedule, later = Interval(seconds=1), datetime(2036, 1, 1, 0, 0, 0, 1, tzinfo=UTC)
    begun = time.perf_counter()

    for _ in range(100):
        assert schedule.next_after(later, START) == datetime(2036, 1, 1, 0, 0, 1, tzinfo=UTC)
        assert schedule.count(START, later, START) == 315_532_800
        assert schedule.last_until(later, START) == datetime(2036, 1, 1, tzinfo=UTC)

    assert time.perf_counter() - begun < 0.1


# ---------------------------------------------------------------------------------- not countable


@frozen
class Bare:
    """A third-party schedule that does only what it must."""

    every: timedelta

    def first(self, anchor: datetime) -> datetime | None:
        return anchor + self.every

    def next_after(self, moment: datetime, anchor: datetime) -> datetime | None:
        return anchor + ((moment - anchor) // self.every + 1) * self.every


def test_without_counting_core_steps_and_says_at_least() -> None:
    bare: Schedule = Bare(HOUR)
    assert isinstance(bare, Schedule)
    assert not isinstance(bare, Countable)
    ten, long = START + 10 * HOUR, START + 5000 * HOUR
    assert count_occurrences(bare, START, ten, START) == Counted(10, exact=True)
    assert last_occurrence(bare, START, ten, START) == Newest(ten, exact=True)
    assert count_occurrences(bare, START, long, START) == Counted(1000, exact=False)
    assert last_occurrence(bare, START, long, START) == Newest(START + 1000 * HOUR, exact=False)
    assert last_occurrence(bare, START, START, START) == Newest(None, exact=True)
    assert count_occurrences(Interval(HOUR), START, long, START) == Counted(5000, exact=True)
    assert last_occurrence(Interval(HOUR), START, long, START) == Newest(long, exact=True)
    assert last_occurrence(Interval(HOUR), ten, ten, START) == Newest(None, exact=True)


# ----------------------------------------------------------------------------- every kind, always

moments = st.datetimes(
    datetime(2000, 1, 1),  # noqa: DTZ001
    datetime(2040, 1, 1),  # noqa: DTZ001
    timezones=st.just(UTC),
)
periods = st.timedeltas(timedelta(milliseconds=1), timedelta(days=400))
zones = st.sampled_from(
    ["UTC", "America/New_York", "Australia/Lord_Howe", "Pacific/Apia", "Africa/Casablanca"]
)
rules = st.one_of(
    st.just("debian"),
    st.builds(
        DstRule, st.sampled_from(["once-after", "skip"]), st.sampled_from(["first", "both", "last"])
    ),
)


def columns(low: int, high: int) -> st.SearchStrategy[str]:
    values = st.integers(low, high)
    return st.one_of(
        st.just("*"),
        values.map(str),
        st.integers(1, high).map("*/{}".format),
        st.tuples(values, values).map(sorted).map(lambda pair: f"{pair[0]}-{pair[1]}"),
        st.lists(values, min_size=1, max_size=4).map(lambda some: ",".join(map(str, some))),
    )


texts = st.tuples(
    columns(0, 59), columns(0, 23), columns(1, 28), columns(1, 12), columns(0, 7)
).map(" ".join)
crons = st.builds(
    Cron, st.one_of(texts, st.tuples(columns(0, 59), texts).map(" ".join)), zones, rules
)
countables = st.one_of(
    st.builds(Interval, periods, start=st.none() | moments), st.builds(Once, moments), crons
)
schedules = st.one_of(countables, st.builds(FixedDelay, periods))


@given(schedules, moments, moments)
def test_next_is_strictly_after(schedule: Schedule, anchor: datetime, moment: datetime) -> None:
    for _ in range(5):
        following = schedule.next_after(moment, anchor)

        if following is None:
            return

        assert following > moment
        assert following.tzinfo is UTC
        moment = following


@given(countables, moments, moments)
def test_nothing_is_before_the_first(
    schedule: Interval | Once | Cron, anchor: datetime, moment: datetime
) -> None:
    first = schedule.first(anchor)
    assume(first is not None)
    assert first is not None
    instant = timedelta(microseconds=1)
    assert schedule.next_after(first - instant, anchor) == first
    assert schedule.last_until(first, anchor) == first
    assert schedule.last_until(first - instant, anchor) is None
    assert schedule.count(datetime(1990, 1, 1, tzinfo=UTC), first, anchor) == 1
    newest = schedule.last_until(moment, anchor)
    assert newest is None or first <= newest <= moment


@given(countables, moments, moments, st.integers(0, 30), st.timedeltas(timedelta(0), HOUR))
@example(  # days and weekdays that together cover some months were taken for every day
    Cron("3 */10 9,2-28 * 0,3-6"), datetime(2000, 10, 29, tzinfo=UTC), START, 5, timedelta(0)
)
def test_counting_equals_stepping(
    schedule: Interval | Once | Cron,
    anchor: datetime,
    after: datetime,
    steps: int,
    beyond: timedelta,
) -> None:
    found = schedule.upcoming(after, steps + 1, anchor=anchor)
    until = (found[steps - 1] if 0 < steps <= len(found) else after) + beyond

    if len(found) == steps + 1:
        until = min(until, found[steps] - timedelta(microseconds=1))

    expected = [moment for moment in found if moment <= until]
    assert schedule.count(after, until, anchor) == len(expected)

    if expected:
        assert schedule.last_until(until, anchor) == expected[-1]


@given(countables, moments, moments)
def test_last_until_and_next_after_meet(
    schedule: Interval | Once | Cron, anchor: datetime, moment: datetime
) -> None:
    newest = schedule.last_until(moment, anchor)
    following = schedule.next_after(moment, anchor)

    if newest is not None:
        assert newest <= moment
        assert schedule.next_after(newest, anchor) == following
        assert schedule.count(newest, moment, anchor) == 0

    if following is not None:
        assert schedule.last_until(following, anchor) == following


@given(countables, moments, moments, moments, moments)
def test_counts_add_up(
    schedule: Interval | Once | Cron,
    anchor: datetime,
    one: datetime,
    two: datetime,
    three: datetime,
) -> None:
    low, middle, high = sorted((one, two, three))
    whole = schedule.count(low, high, anchor)
    assert whole == schedule.count(low, middle, anchor) + schedule.count(middle, high, anchor)
    assert (whole == 0) == (last_occurrence(schedule, low, high, anchor).moment is None)
