"""Cron by example: the language, and both nights of the year."""

from __future__ import annotations

import copy
import pickle
from calendar import leapdays
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from sched_core.errors import InvalidDefinition
from sched_core.schedule import Countable, Cron, DstRule, Schedule, dst_warnings
from sched_core.schedule.cron_fields import DAY_OF_MONTH, DAY_OF_WEEK, HOUR, MINUTE, MONTH, parse

START = datetime(2026, 1, 1, tzinfo=UTC)
NEW_YORK = ZoneInfo("America/New_York")
SPRING = datetime(2027, 3, 14, tzinfo=NEW_YORK)
AUTUMN = datetime(2026, 11, 1, tzinfo=NEW_YORK)


def night(expression: str, midnight: datetime, **settings: Any) -> list[str]:
    """List the occurrences of one local day, as "01:30 -05"."""
    schedule = Cron(expression, tz="America/New_York", **settings)
    before = midnight.astimezone(UTC) - timedelta(microseconds=1)
    end = datetime.combine(midnight.date() + timedelta(days=1), midnight.timetz())
    found = [
        moment.astimezone(NEW_YORK)
        for moment in schedule.upcoming(before, 100)
        if moment < end.astimezone(UTC)
    ]
    assert schedule.count(before, end - timedelta(seconds=1), before) == len(found)
    return [f"{moment:%H:%M} {moment:%z}"[:-2] for moment in found]


SPRING_NIGHT = [
    ("30 2 * * *", ["03:00 -04"]),
    ("24,31 2 * * *", ["03:00 -04"]),
    ("30 1-3 * * *", ["01:30 -05", "03:00 -04", "03:30 -04"]),
    ("0,30 2-3 * * *", ["03:00 -04", "03:30 -04"]),
    ("* 2 * * *", []),
    ("15 0 * * *", ["00:15 -05"]),
    ("59 1 * * *", ["01:59 -05"]),
    ("0 3 * * *", ["03:00 -04"]),
]

AUTUMN_NIGHT = [
    ("30 1 * * *", ["01:30 -04"]),
    ("30 1-3 * * *", ["01:30 -04", "02:30 -05", "03:30 -05"]),
    ("*/30 1 * * *", ["01:00 -04", "01:30 -04", "01:00 -05", "01:30 -05"]),
    ("0 2 * * *", ["02:00 -05"]),
    ("59 0 * * *", ["00:59 -04"]),
]


@pytest.mark.parametrize(("expression", "expected"), SPRING_NIGHT)
def test_the_night_of_the_gap(expression: str, expected: list[str]) -> None:
    assert night(expression, SPRING) == expected


@pytest.mark.parametrize(("expression", "expected"), AUTUMN_NIGHT)
def test_the_night_of_the_overlap(expression: str, expected: list[str]) -> None:
    assert night(expression, AUTUMN) == expected


def test_a_starred_hour_makes_nothing_up() -> None:
    assert night("23 */2 * * *", SPRING)[:2] == ["00:23 -05", "04:23 -04"]


def test_a_starred_hour_runs_in_both_hours() -> None:
    expected = ["00:30 -04", "01:30 -04", "01:30 -05", "02:30 -05"]
    assert night("30 * * * *", AUTUMN)[:4] == expected


def test_after_the_second_pass_of_a_fixed_time_comes_the_next_day() -> None:
    second_pass = datetime(2026, 11, 1, 1, 10, tzinfo=NEW_YORK, fold=1)
    found = Cron("30 1 * * *", tz="America/New_York").next_after(second_pass, second_pass)
    assert found == datetime(2026, 11, 2, 1, 30, tzinfo=NEW_YORK)


@pytest.mark.parametrize(
    ("expression", "rule", "midnight", "expected"),
    [
        ("30 2 * * *", DstRule(gap="skip"), SPRING, []),
        ("* 2 * * *", DstRule(), SPRING, ["03:00 -04"]),
        ("30 1 * * *", DstRule(fold="first"), AUTUMN, ["01:30 -04"]),
        ("30 1 * * *", DstRule(fold="both"), AUTUMN, ["01:30 -04", "01:30 -05"]),
        ("30 1 * * *", DstRule(fold="last"), AUTUMN, ["01:30 -05"]),
        ("*/30 1 * * *", DstRule(fold="last"), AUTUMN, ["01:00 -05", "01:30 -05"]),
        ("30 0-2 * * *", DstRule(fold="last"), AUTUMN, ["00:30 -04", "01:30 -05", "02:30 -05"]),
        ("*/30 1 * * *", DstRule(fold="first"), AUTUMN, ["01:00 -04", "01:30 -04"]),
    ],
)
def test_an_explicit_rule(
    expression: str, rule: DstRule, midnight: datetime, expected: list[str]
) -> None:
    assert night(expression, midnight, dst=rule) == expected


def test_the_day_that_apia_skipped_is_made_up_for_once() -> None:
    apia = ZoneInfo("Pacific/Apia")
    start = datetime(2011, 12, 29, 12, tzinfo=apia)
    found = Cron("0,30 5,7 * * *", tz="Pacific/Apia").upcoming(start, 3)
    assert [moment.astimezone(apia).strftime("%d %H:%M") for moment in found] == [
        "31 00:00",
        "31 05:00",
        "31 05:30",
    ]


def test_seconds_come_first_and_expand_within_the_rule() -> None:
    assert Cron("15,45 30 2 * * *").upcoming(START, 2) == [
        datetime(2026, 1, 1, 2, 30, 15, tzinfo=UTC),
        datetime(2026, 1, 1, 2, 30, 45, tzinfo=UTC),
    ]
    assert night("15,45 30 2 * * *", SPRING) == ["03:00 -04"]
    assert night("15,45 30 1 * * *", AUTUMN) == ["01:30 -04", "01:30 -04"]
    assert len(night("*/10 10 1 * * *", AUTUMN)) == 6
    assert len(night("0 */30 1 * * *", AUTUMN)) == 4


# ------------------------------------------------------------------------------------ the language


@pytest.mark.parametrize(
    ("written", "plain"),
    [
        ("0 0 * * 2-2", "0 0 * * 2"),
        ("5-5 * * * *", "5 * * * *"),
        ("5-5/2 * * * *", "5 * * * *"),
        ("0 0 1-1 jan-jan *", "0 0 1 1 *"),
        ("0 0 * * 7", "0 0 * * 0"),
        ("0 0 * * 7-7", "0 0 * * sun"),
        ("0 0 * * 5-7", "0 0 * * 0,5,6"),
        ("0 0 * * 0-7", "0 0 * * 0,1,2,3,4,5,6"),
        ("0 0 * * fri-mon", "0 0 * * 0,1,5,6"),
        ("0 0 * * sat-sun", "0 0 * * 0,6"),
        ("0 0 * * 7-2", "0 0 * * 0,1,2"),
        ("0 0 * * fri-mon/2", "0 0 * * 0,5"),
        ("0 0 * * MON-Fri", "0 0 * * 1,2,3,4,5"),
        ("0 0 * DEC *", "0 0 * 12 *"),
        ("50/5 * * * *", "50,55 * * * *"),
        ("59/5 * * * *", "59 * * * *"),
        ("0 0 * * 3/2", "0 0 * * 0,3,5"),
        ("10-20/5,40 * * * *", "10,15,20,40 * * * *"),
        ("05 008 * * *", "5 8 * * *"),
        ("@yearly", "0 0 1 1 *"),
        ("@annually", "0 0 1 1 *"),
        ("@monthly", "0 0 1 * *"),
        ("@weekly", "0 0 * * 0"),
        ("@daily", "0 0 * * *"),
        ("@midnight", "0 0 * * *"),
        ("@Hourly", "0 * * * *"),
        ("0 0 3 * * *", "0 3 * * *"),
        ("  0\t3  * * * ", "0 3 * * *"),
    ],
)
def test_two_ways_to_write_the_same(written: str, plain: str) -> None:
    assert Cron(written).upcoming(START, 20) == Cron(plain).upcoming(START, 20)


@pytest.mark.parametrize(
    ("expression", "says"),
    [
        ("R * * * *", "random"),
        ("R(1-5) * * * *", "random"),
        ("R/5 * * * *", "random"),
        ("H * * * *", "hash"),
        ("H(0-29)/10 * * * *", "hash"),
        ("1-0 * * * *", "reversed"),
        ("0 20-4 * * *", "reversed: write 20-23,0-4"),
        ("0 0 * nov-feb *", "reversed"),
        ("0 0 30-2 * *", "reversed"),
        ("0 0 31 2 *", "never fire"),
        ("0 0 30 2 *", "never fire"),
        ("0 0 31 4,6,9,11 *", "never fire"),
        ("0 0 31 2 */2", "never fire"),
        ("0 0 */31 2 1", None),
        ("@reboot", "Once"),
        ("@fortnightly", "@weekly"),
        ("", "0 fields"),
        ("* * * *", "4 fields"),
        ("0 0 0 1 1 * 2027", "no field for years"),
        ("60 * * * *", "0-59"),
        ("* 24 * * *", "0-23"),
        ("* * 0 * *", "1-31"),
        ("* * * 13 *", "1-12"),
        ("* * * * 8", "0-7"),
        ("*/0 * * * *", "step"),
        ("0 0 L * *", "Debian"),
        ("0 0 LW * *", "Debian"),
        ("0 0 15W * *", "Debian"),
        ("0 0 * * 5L", "Debian"),
        ("0 0 * * 1#2", "Debian"),
        ("0 0 ? * 1", "instead of ?"),
        ("0 0 * * monday", "three-letter"),
        ("0 0 * mon *", "three-letter"),
        ("-5 * * * *", "numbers"),
        ("5- * * * *", "numbers"),
        (", * * * *", "numbers"),
        ("1,,2 * * * *", "numbers"),
        ("*-5 * * * *", "numbers"),
        ("5/ * * * *", "numbers"),
        ("1.5 * * * *", "numbers"),
        ("٣ * * * *", "numbers"),
        ("9" * 900 + " * * * *", "numbers"),
        ("9" * 5000 + " * * * *", "at most 1000 characters"),
        ("1," * 500_000 + "1 * * * *", "at most 1000 characters"),
        ("CRON_TZ=Europe/Berlin 0 9 * * *", "Cron('0 9 * * *', tz='Europe/Berlin')"),
        ("tz='Asia/Tokyo'  */5 * * * *", "Cron('*/5 * * * *', tz='Asia/Tokyo')"),
        ("TZ=Asia/Tokyo", "tz='Asia/Tokyo'"),
        ("CRON_TZ= 0 9 * * *", "an argument here"),
    ],
)
def test_what_is_refused_says_why(expression: str, says: str | None) -> None:
    if says is None:
        assert Cron(expression).upcoming(START, 1)
        return

    with pytest.raises(InvalidDefinition) as error:
        Cron(expression)

    assert error.value.field == "expression"
    assert says in str(error.value)


def test_every_term_expands_as_vixie_does() -> None:
    """All single values, ranges and steps of all fields."""
    for index, kind in enumerate((MINUTE, HOUR, DAY_OF_MONTH, MONTH, DAY_OF_WEEK)):
        for low in range(kind.low, kind.high + 1, 3):
            for high in range(low, kind.high + 1):
                for step in (1, 2, 5, 7, 40):
                    columns = ["*"] * 5
                    columns[index] = f"{low}-{high}/{step}"
                    fields = parse.__wrapped__(" ".join(columns))
                    parsed = (
                        fields.minutes,
                        fields.hours,
                        fields.days,
                        fields.months,
                        fields.weekdays,
                    )[index]
                    expected = set(range(low, high + 1, step))

                    if kind is DAY_OF_WEEK:
                        expected = {day % 7 for day in expected}

                    assert parsed == tuple(sorted(expected)), columns


@pytest.mark.parametrize(
    ("expression", "days"),
    [
        ("0 0 13 * 5", [2, 9, 13, 16, 23, 30]),  # both restricted: OR
        ("0 0 13 * *", [13]),
        ("0 0 * * 5", [2, 9, 16, 23, 30]),
        ("0 0 */2 * 5", [9, 23]),  # one begins with a star: AND
        ("0 0 1-20 * */5", [2, 4, 9, 11, 16, 18]),
        ("0 0 1-31 * 1", list(range(1, 32))),
    ],
)
def test_how_the_day_fields_are_joined(expression: str, days: list[int]) -> None:
    found = Cron(expression).upcoming(START - timedelta(seconds=1), 40)
    month = [moment.day for moment in found if (moment.year, moment.month) == (2026, 1)]

    assert month == days


def test_a_day_in_february_or_a_weekday_can_fire() -> None:
    found = Cron("0 0 31 2 1").upcoming(START, 1)
    assert found == [datetime(2026, 2, 2, tzinfo=UTC)]


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("0 0 29 2 *", datetime(2028, 2, 29, tzinfo=UTC)),
        ("0 0 29 2 */6", datetime(2032, 2, 29, tzinfo=UTC)),
        ("0 0 */28 2 1", datetime(2044, 2, 29, tzinfo=UTC)),
    ],
)
def test_rare_days(expression: str, expected: datetime) -> None:
    assert expected in Cron(expression).upcoming(START, 5)


# ------------------------------------------------------------------------------ zones and arguments


@pytest.mark.parametrize(
    "zone", ["Mars/Olympus", "", "America", "../etc/passwd", "/etc/localtime", "a\0b", "é"]
)
def test_an_unknown_zone_is_named(zone: str) -> None:
    with pytest.raises(InvalidDefinition) as error:
        Cron("0 3 * * *", tz=zone)

    assert error.value.field == "tz"
    assert "IANA" in str(error.value)


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        ({"expression": None}, "expression"),
        ({"expression": 5}, "expression"),
        ({"expression": "0 3 * * *", "tz": None}, "tz"),
        ({"expression": "0 3 * * *", "tz": UTC}, "tz"),
        ({"expression": "0 3 * * *", "dst": "vixie"}, "dst"),
        ({"expression": "0 3 * * *", "dst": None}, "dst"),
    ],
)
def test_other_types_are_refused(arguments: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidDefinition) as error:
        Cron(**arguments)

    assert error.value.field == field


@pytest.mark.parametrize(("gap", "fold"), [("made-up", "first"), ("skip", "never")])
def test_an_unknown_word_in_a_rule_is_refused(gap: str, fold: str) -> None:
    with pytest.raises(InvalidDefinition):
        DstRule(gap=gap, fold=fold)  # type: ignore[arg-type]


def test_naive_moments_are_refused() -> None:
    schedule = Cron("0 3 * * *")
    naive = datetime(2026, 1, 1)  # noqa: DTZ001

    for call in (
        lambda: schedule.first(naive),
        lambda: schedule.next_after(naive, START),
        lambda: schedule.next_after(START, naive),
        lambda: schedule.count(naive, START, START),
        lambda: schedule.count(START, naive, START),
        lambda: schedule.last_until(naive, START),
        lambda: schedule.upcoming(naive, 1),
        lambda: dst_warnings(schedule, naive),
    ):
        with pytest.raises(ValueError, match="naive"):
            call()


def test_it_is_a_value() -> None:
    schedule = Cron("0  3 * * *", tz="Europe/Berlin")
    same = Cron("0 3 * * *", "Europe/Berlin")
    assert isinstance(schedule, Schedule)
    assert isinstance(schedule, Countable)
    assert schedule == same
    assert hash(schedule) == hash(same)
    assert repr(schedule) == "Cron(expression='0 3 * * *', tz='Europe/Berlin', dst='debian')"
    assert schedule != Cron("0 3 * * *")
    assert schedule != Cron("0 3 * * *", tz="Europe/Berlin", dst=DstRule())
    assert pickle.loads(pickle.dumps(schedule)) == schedule
    assert copy.deepcopy(schedule).upcoming(START, 3) == schedule.upcoming(START, 3)

    with pytest.raises(AttributeError):
        schedule.tz = "UTC"  # type: ignore[misc]


def test_nothing_comes_after_the_calendars_end_or_before_the_anchor() -> None:
    newest = datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)
    assert Cron("0 3 * * *").next_after(newest, START) is None
    assert Cron("* * * * * *", tz="Asia/Tokyo").next_after(newest, START) is None
    assert Cron("0 23 31 12 *", tz="America/New_York").upcoming(newest - timedelta(1), 5) == []
    oldest = datetime(1, 1, 1, tzinfo=UTC)
    assert Cron("0 3 * * *", tz="America/New_York").next_after(oldest, oldest) is not None
    assert Cron("0 3 * * *").last_until(START, START) is None
    assert Cron("0 3 * * *").last_until(oldest, START) is None
    assert Cron("0 3 * * *").next_after(oldest, START) == START + timedelta(hours=3)
    assert Cron("0 3 * * *").count(oldest, START + timedelta(days=1), START) == 1
    assert Cron("0 0 29 2 *", tz="America/New_York").count(START, newest, START) == (
        leapdays(2026, 10_000)
    )


def test_ten_years_are_counted_exactly() -> None:
    end = datetime(2036, 1, 1, tzinfo=UTC)
    seconds = int((end - START).total_seconds())

    for zone in ("UTC", "America/New_York", "Australia/Lord_Howe"):
        assert Cron("* * * * * *", tz=zone).count(START, end, START) == seconds
        assert Cron("*/5 * * * *", tz=zone).count(START, end, START) == seconds // 300
        assert Cron("30 2 * * *", tz=zone).count(START, end, START) == 3652


def test_warnings_name_the_nights() -> None:
    daily = dst_warnings(Cron("30 2 * * *", tz="America/New_York"), START, years=2)
    assert [warning[:10] for warning in daily] == ["2026-03-08", "2027-03-14"]
    assert "02:00 to 03:00 does not exist" in daily[0]
    assert "once, at 03:00" in daily[0]

    early = dst_warnings(Cron("30 1 * * *", tz="America/New_York"), START)
    assert [warning[:10] for warning in early] == ["2026-11-01"]
    assert "01:00 to 02:00 comes twice" in early[0]
    assert "only the first time" in early[0]

    assert dst_warnings(Cron("*/5 * * * *", tz="America/New_York"), START) == []
    assert dst_warnings(Cron("30 12 * * *", tz="America/New_York"), START) == []
    assert dst_warnings(Cron("30 2 * * *"), START) == []
    assert len(dst_warnings(Cron("0 0-23 * * *", tz="America/New_York"), START)) == 2
    skipped = dst_warnings(Cron("* 2 * * *", tz="America/New_York"), START)
    assert "does not run" in skipped[0]
