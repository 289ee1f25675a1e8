"""Cron fields by name, and the warnings where APScheduler would read them otherwise."""

from __future__ import annotations

import pickle
import warnings
from typing import Any

import pytest
from attrs import evolve

from sched_core import Cron, InvalidDefinition, ScheduleWarning


@pytest.mark.parametrize(
    ("fields", "expression"),
    [
        ({"hour": 3}, "0 3 * * *"),
        ({"hour": 3, "minute": 30}, "30 3 * * *"),
        ({"minute": "*/5"}, "*/5 * * * *"),
        ({"second": "*/10"}, "*/10 * * * * *"),
        ({"second": 0, "hour": 4}, "0 * 4 * * *"),
        ({"day": 1}, "0 0 1 * *"),
        ({"day": 15, "hour": 6}, "0 6 15 * *"),
        ({"month": 6}, "0 0 1 6 *"),
        ({"month": "jan,jul", "day": 1, "hour": 12}, "0 12 1 jan,jul *"),
        ({"day_of_week": "mon-fri", "hour": 9}, "0 9 * * mon-fri"),
        ({"day_of_week": "sun"}, "0 0 * * sun"),
        ({"day_of_week": "*", "hour": "8-18"}, "0 8-18 * * *"),
    ],
)
def test_what_is_left_out(fields: dict[str, Any], expression: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        cron = Cron(**fields, tz="Europe/Berlin")
    assert cron == Cron(expression, "Europe/Berlin")
    assert cron.expression == expression
    assert pickle.loads(pickle.dumps(cron)) == cron
    assert evolve(cron, tz="UTC") == Cron(expression)


@pytest.mark.parametrize(
    ("day_of_week", "days"),
    [(0, "sun"), ("1-5", "mon,tue,wed,thu,fri"), ("*/2", "sun,tue,thu,sat"), ("mon,6", "mon,sat")],
)
def test_numbers_of_weekdays_are_warned_of(day_of_week: int | str, days: str) -> None:
    with pytest.warns(ScheduleWarning, match="numbered from Sunday") as caught:
        Cron(day_of_week=day_of_week)
    assert f"is {days} here" in str(caught[0].message)
    assert caught[0].filename == __file__


@pytest.mark.parametrize("day_of_week", ["0-6", "mon", "mon-sun", "fri-mon", "*"])
def test_where_both_agree_there_is_no_warning(day_of_week: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Cron(day_of_week=day_of_week)
        Cron("0 0 1 * 0")  # an expression is cron's own language


def test_two_day_fields_are_warned_of() -> None:
    with pytest.warns(ScheduleWarning, match="joins the two by or"):
        cron = Cron(day="1-7", day_of_week="mon")
    assert cron.expression == "0 0 1-7 * mon"


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        ({}, "expression"),
        ({"expression": "0 3 * * *", "hour": 3}, "expression"),
        ({"hour": True}, "hour"),
        ({"hour": 3.5}, "hour"),
        ({"hour": ""}, "hour"),
        ({"hour": "3 4"}, "hour"),
        ({"hour": 24}, "expression"),
        ({"day_of_week": "moon"}, "expression"),
        ({"month": 2, "day": 30}, "expression"),
    ],
)
def test_what_cannot_be_is_refused(arguments: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidDefinition) as caught:
        Cron(**arguments)
    assert caught.value.field == field
