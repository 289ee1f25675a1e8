"""AnyOf, Between, Excluding: what they list equals what a plain list of moments gives."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from typing import Any, cast
from zoneinfo import ZoneInfo

import pytest
from attrs import evolve, frozen
from hypothesis import assume, given
from hypothesis import strategies as st

from sched_core import codec
from sched_core.errors import InvalidDefinition
from sched_core.schedule import (
    AnyOf,
    Between,
    Counted,
    Cron,
    Excluding,
    FixedDelay,
    Interval,
    Newest,
    Once,
    Schedule,
    count_occurrences,
    last_occurrence,
)

START = datetime(2026, 1, 1, tzinfo=UTC)
HOUR, DAY, TICK = timedelta(hours=1), timedelta(days=1), timedelta(microseconds=1)
HOURLY = Interval(hours=1, start=START)


# -- against lists -----------------------------------------------------------

HORIZON = START + 6 * DAY
anchors = st.integers(0, 72).map(lambda hours: START + hours * HOUR)
moments = st.integers(0, 6 * 24 * 4).map(lambda quarters: START + quarters * HOUR / 4)
zones = st.sampled_from(["UTC", "Europe/Berlin", "Pacific/Apia", "Asia/Kathmandu"])
simple: st.SearchStrategy[Schedule] = st.one_of(
    st.builds(Interval, st.sampled_from([HOUR / 2, HOUR, 7 * HOUR]), start=st.none() | moments),
    st.builds(Once, moments),
    st.builds(
        Cron, st.sampled_from(["0 * * * *", "30 2 * * *", "*/30 5,6 * * *", "0 0 * * fri"]), zones
    ),
)
dates = st.lists(st.dates(date(2025, 12, 31), date(2026, 1, 7)), max_size=3)


def combinations(part: st.SearchStrategy[Schedule]) -> st.SearchStrategy[Schedule]:
    both = st.lists(moments, min_size=2, max_size=2, unique=True).map(sorted)
    bounds: st.SearchStrategy[Any] = st.one_of(
        both, moments.map(lambda start: (start, None)), moments.map(lambda end: (None, end))
    )
    return st.one_of(
        st.lists(part, min_size=1, max_size=3).map(lambda some: AnyOf(*some)),
        st.builds(lambda inner, pair: Between(inner, *pair), part, bounds),
        st.builds(Excluding, part, dates, zones),
    )


combined = st.recursive(simple, combinations, max_leaves=5).filter(
    lambda schedule: isinstance(schedule, AnyOf | Between | Excluding)
)


def listed(schedule: Schedule, anchor: datetime) -> list[datetime]:
    """Compute all occurrences up to the horizon, the simple way."""
    if isinstance(schedule, AnyOf):
        found = {moment for part in schedule.schedules for moment in listed(part, anchor)}
        return sorted(found)
    if isinstance(schedule, Between):
        low, high = schedule.start or START - 9 * DAY, schedule.end or HORIZON + DAY
        return [moment for moment in listed(schedule.schedule, anchor) if low <= moment < high]
    if isinstance(schedule, Excluding):
        zone = ZoneInfo(schedule.tz)
        return [
            moment
            for moment in listed(schedule.schedule, anchor)
            if moment.astimezone(zone).date() not in schedule.dates
        ]
    found_here, moment = [], schedule.first(anchor)
    while moment is not None and moment <= HORIZON:
        found_here.append(moment)
        moment = schedule.next_after(moment, anchor)
    return found_here


@given(combined, anchors, moments, moments)
def test_a_combined_schedule_lists_what_its_definition_says(
    schedule: Schedule, anchor: datetime, one: datetime, two: datetime
) -> None:
    expected = listed(schedule, anchor)
    first = schedule.first(anchor)
    assert (None if first is None or first > HORIZON else first) == next(iter(expected), None)

    following = schedule.next_after(one, anchor)
    later = [moment for moment in expected if moment > one]
    assert (None if following is None or following > HORIZON else following) == next(
        iter(later), None
    )

    after, until = sorted((one, two))
    inside = [moment for moment in expected if after < moment <= until]
    assert count_occurrences(schedule, after, until, anchor) == Counted(len(inside), exact=True)
    newest = last_occurrence(schedule, after, until, anchor)
    assert newest == Newest(inside[-1] if inside else None, exact=True)


@given(combined)
def test_it_comes_back_from_the_codec_and_from_copies(schedule: Schedule) -> None:
    body = codec.encode_schedule(schedule)
    back = codec.decode_schedule(codec.tag_of(schedule), body)
    assert back == schedule
    assert hash(back) == hash(schedule)
    assert codec.encode_schedule(back) == body
    assert pickle.loads(pickle.dumps(schedule)) == copy.deepcopy(schedule) == schedule


# -- each alone --------------------------------------------------------------


def test_what_coincides_occurs_once() -> None:
    both = AnyOf(HOURLY, Cron("0 */2 * * *"), Once(START + 4 * HOUR))
    assert both.upcoming(START, 4) == [START + n * HOUR for n in (1, 2, 3, 4)]
    assert count_occurrences(both, START, START + DAY, START) == Counted(24, exact=True)


def test_a_long_gap_is_bounded_work_and_says_at_least() -> None:
    dense = AnyOf(Cron("* * * * * *"), Interval(seconds=1))
    decade = START + 3652 * DAY
    number, exact = count_occurrences(dense, START, decade, START)
    assert not exact
    assert number >= 3652 * 86_400
    assert last_occurrence(dense, START, decade, START) == Newest(decade, exact=True)


def test_a_span_is_half_open_and_keeps_the_grid() -> None:
    span = Between(Interval(hours=1), START + 90 * HOUR / 60, START + 4 * HOUR)
    assert span.first(START) == START + 2 * HOUR
    assert span.upcoming(START, 9) == [START + 2 * HOUR, START + 3 * HOUR]
    assert span.next_after(START + 3 * HOUR, START) is None
    closed = Between(HOURLY, START + HOUR, START + 2 * HOUR)
    assert closed.upcoming(START, 9) == [START + HOUR]
    assert Between(HOURLY, end=START + 2 * HOUR).upcoming(START, 9) == [START + HOUR]
    assert Between(HOURLY, START + 5 * HOUR).upcoming(START, 1) == [START + 5 * HOUR]


def test_a_one_shot_outside_its_span_never_occurs() -> None:
    assert Between(Once(START), START + HOUR).first(START) is None
    assert Between(Once(START), end=START).first(START) is None
    assert Between(Once(START), START, START + TICK).first(START + DAY) == START


def test_dates_are_those_of_the_cron_inside() -> None:
    berlin = Cron("30 0 * * *", tz="Europe/Berlin")  # 23:30 UTC the day before
    workdays = Excluding(berlin, [date(2026, 1, 3)])
    assert workdays.tz == "Europe/Berlin"
    assert [moment.day for moment in workdays.upcoming(START, 3)] == [1, 3, 4]
    in_utc = Excluding(berlin, [date(2026, 1, 3)], "UTC")
    assert [moment.day for moment in in_utc.upcoming(START, 3)] == [1, 2, 4]
    assert Excluding(AnyOf(HOURLY, Between(berlin, START)), []).tz == "Europe/Berlin"
    assert Excluding(HOURLY, []).tz == "UTC"


def test_dates_are_a_set() -> None:
    one, two = date(2026, 1, 3), date(2026, 1, 2)
    assert Excluding(HOURLY, [one, two, one]) == Excluding(HOURLY, (two, one))


def test_a_date_that_a_zone_skipped_excludes_nothing() -> None:
    # Samoa had no 2011-12-30.
    schedule = Excluding(Cron("0 12 * * *", tz="Pacific/Apia"), [date(2011, 12, 30)])
    noons = schedule.upcoming(datetime(2011, 12, 29, tzinfo=UTC), 2)
    assert [moment.astimezone(ZoneInfo("Pacific/Apia")).day for moment in noons] == [29, 31]


def test_a_date_whose_midnight_comes_twice_is_left_out_whole() -> None:
    # St. John's set clocks back from 00:01 to 23:01 of the day before: a date has two parts.
    zone = ZoneInfo("America/St_Johns")
    before = datetime(2010, 11, 6, 12, tzinfo=zone).astimezone(UTC)
    schedule = Excluding(Interval(minutes=1, start=before), [date(2010, 11, 7)], "America/St_Johns")
    until = before + 20 * HOUR
    kept = [moment for moment in schedule.upcoming(before, 2000, anchor=before) if moment <= until]
    assert all(moment.astimezone(zone).date() == date(2010, 11, 6) for moment in kept)
    assert count_occurrences(schedule, before, until, before).number == len(kept)


@pytest.mark.parametrize("day", [date.min, date.max])
def test_the_ends_of_the_calendar(day: date) -> None:
    for tz in ("UTC", "Pacific/Apia", "America/New_York"):
        schedule = Excluding(HOURLY, [day], tz)
        assert schedule.upcoming(START, 1) == [START + HOUR]
    late = datetime(9999, 12, 31, 12, tzinfo=UTC)
    assert Excluding(Once(late), [date.max]).first(START) is None


def test_an_ever_excluded_schedule_ends() -> None:
    schedule = Excluding(Between(HOURLY, START, START + DAY), [START.date()])
    assert schedule.first(START) is None
    assert schedule.upcoming(START - HOUR, 5) == []


@frozen
class Stepped:
    """A third party's kind that cannot count."""

    every: timedelta

    def first(self, anchor: datetime) -> datetime | None:
        return anchor + self.every

    def next_after(self, moment: datetime, anchor: datetime) -> datetime | None:
        return anchor + ((moment - anchor) // self.every + 1) * self.every


def test_parts_of_others_are_stepped_through() -> None:
    both = AnyOf(Stepped(HOUR), Stepped(2 * HOUR))
    assert count_occurrences(both, START, START + DAY, START) == Counted(24, exact=True)
    assert not count_occurrences(both, START, START + 365 * DAY, START).exact
    excluding = Excluding(Stepped(HOUR), [date(2026, 1, 2)])
    assert count_occurrences(excluding, START, START + 3 * DAY, START) == Counted(48, exact=True)
    newest = last_occurrence(excluding, START, START + 2 * DAY - HOUR, START)
    assert newest == Newest(START + DAY - HOUR, exact=True)


class Resting(Stepped):
    """A kind of one's own that counts from the end of a run."""

    counts_from_end = True


REFUSED: list[tuple[str, Callable[[], object], str, str]] = [
    ("no part", AnyOf, "schedules", "1 to 100"),
    ("too many", lambda: AnyOf(*[HOURLY] * 101), "schedules", "not 101"),
    ("a fixed delay", lambda: AnyOf(FixedDelay(hours=1)), "schedules", "use Interval"),
    ("a delay of one's own", lambda: AnyOf(Resting(HOUR)), "schedules", "Resting cannot be"),
    ("a class", lambda: AnyOf(cast(Any, Interval)), "schedules", "must be a schedule"),
    ("text", lambda: Between(cast(Any, "daily"), START), "schedule", "must be a schedule"),
    ("no bound", lambda: Between(HOURLY), "start", "give one of them"),
    ("an empty span", lambda: Between(HOURLY, START, START), "end", "must be after start"),
    ("a naive bound", lambda: Between(HOURLY, START.replace(tzinfo=None)), "start", "naive"),
    ("a fixed delay", lambda: Between(FixedDelay(hours=1), START), "schedule", "use Interval"),
    ("a datetime", lambda: Excluding(HOURLY, [START]), "dates", "date(2026, 12, 25)"),
    ("a text", lambda: Excluding(HOURLY, cast(Any, "2026-01-01")), "dates", "several dates"),
    ("one date", lambda: Excluding(HOURLY, cast(Any, START.date())), "dates", "several dates"),
    ("a zone", lambda: Excluding(HOURLY, [], "Mars/Olympus"), "tz", "IANA"),
    (
        "two zones",
        lambda: Excluding(AnyOf(Cron("@daily"), Cron("@daily", "Europe/Rome")), []),
        "tz",
        "name one",
    ),
    (
        "many dates",
        lambda: Excluding(HOURLY, [START.date() + n * DAY for n in range(5001)]),
        "dates",
        "at most 5000",
    ),
]


@pytest.mark.parametrize(("make", "field", "remedy"), [row[1:] for row in REFUSED])
def test_what_cannot_be_is_refused(make: Callable[[], object], field: str, remedy: str) -> None:
    with pytest.raises(InvalidDefinition) as caught:
        make()
    assert caught.value.field == field
    assert remedy in str(caught.value)


def test_a_part_of_an_unknown_kind_makes_the_whole_unreadable() -> None:
    text = '{"schedules":[["interval",{"every":60}],["lunar",{}]]}'
    with pytest.raises(codec.Malformed, match="'lunar' is not known here"):
        codec.decode_schedule("any_of", text)
    with pytest.raises(codec.Malformed):
        codec.decode_schedule("excluding", '{"schedule":["once",{}],"dates":["x"],"tz":"UTC"}')


@given(simple)
def test_parts_can_be_edited(schedule: Schedule) -> None:
    assume(not isinstance(schedule, Once))
    span = Between(schedule, START)
    assert evolve(span, end=START + DAY) == Between(schedule, START, START + DAY)
