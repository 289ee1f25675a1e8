"""Everything that a job, an occurrence or a claim says is in columns, or in the marks."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from enum import EnumMeta
from typing import Any

import attrs
import pytest
from attrs import evolve

from sched_core import (
    CancelMark,
    Claim,
    Execution,
    Gap,
    Hold,
    Interval,
    Job,
    JobSpec,
    Kind,
    Pause,
    Pending,
    Progress,
    Settlement,
    Standing,
    Status,
)
from sched_core.codec import Malformed
from sched_sql._shared import holds, rows, standings
from sched_sql._shared.history import EXECUTION_COLUMNS, execution_values, read_execution
from sched_sql._shared.moments import micros
from sched_sql._shared.rules import is_plain_run

NOW = datetime(2026, 1, 1, 12, 0, 0, 123456, tzinfo=UTC)
LATER = NOW + timedelta(microseconds=1)
ONE = Pending(3, NOW, NOW)
STANDING = Standing(3, ONE, NOW)
JOB = Job(JobSpec("a", Interval(minutes=1)), "u", False, NOW, STANDING)

OTHER: dict[str, Any] = {
    "int": 7,
    "int | None": 7,
    "str": "x",
    "str | None": "x",
    "datetime": LATER,
    "datetime | None": LATER,
    "Kind": Kind.RERUN,
    "Mapping[str, str] | None": {"a": "b"},
    "Pending | None": evolve(ONE, scheduled_at=LATER),
    "tuple[Pending, ...]": (evolve(ONE, number=2, kind=Kind.TRIGGERED, args={}),),
    "Pause | None": Pause(NOW, 2, LATER, "x"),
    "tuple[Gap, ...]": (Gap(NOW, LATER),),
    "tuple[CancelMark, ...]": (CancelMark(3, "x", "y"),),
    "CancelMark | None": CancelMark(3),
    "tuple[datetime, ...]": (LATER, LATER + timedelta(days=1)),
    "Status | None": Status.FAILED,
    "Status": Status.FAILED,
    "bool": True,
    "timedelta | None": timedelta(days=400_000),
    "Progress | None": Progress(1, 2.5, 'x"é', LATER),
}
"""Another value than there is, by the annotation of the field: a new one is missing here."""


def fields(cls: type) -> list[str]:
    return [each.name for each in attrs.fields(cls)]


def changed(value: Any, name: str) -> Any:
    (field,) = (each for each in attrs.fields(type(value)) if each.name == name)
    kind = field.type.__name__ if type(field.type) in {type, EnumMeta} else str(field.type)
    return evolve(value, **{name: OTHER[re.sub(r"\w+\.", "", kind)]})


def read(job: Job) -> Job:
    return rows.read_job(rows.job_values(job, job.revision))


@pytest.mark.parametrize("name", fields(Standing))
def test_every_field_of_a_standing(name: str) -> None:
    standing = changed(STANDING, name)
    assert standing != STANDING
    assert read(evolve(JOB, standing=standing)).standing == standing


@pytest.mark.parametrize("name", fields(Pending))
def test_every_field_of_a_scheduled_occurrence(name: str) -> None:
    standing = evolve(STANDING, scheduled=changed(ONE, name))
    assert standing != STANDING
    assert read(evolve(JOB, standing=standing)).standing == standing
    in_columns = standings.only_run_fields_differ(STANDING, standing)
    assert in_columns == (standings.standing_values(standing)[-1] is None)


@pytest.mark.parametrize("name", ["uid", "declared", "anchor", "revision"])
def test_every_field_of_a_job(name: str) -> None:
    job = changed(JOB, name)
    assert read(job) == job != JOB


@pytest.mark.parametrize("name", fields(Hold))
def test_every_field_of_a_hold_that_an_edit_leaves(name: str) -> None:
    hold = Hold("a", "u", 5, "w", NOW, NOW, LATER, ONE, None)
    if name != "job_id":
        hold = changed(hold, name)
    columns = (
        hold.token,
        hold.worker,
        micros(hold.claimed_at),
        micros(hold.renewed_at),
        micros(hold.expires_at),
        None if hold.alone_at is None else micros(hold.alone_at),
        holds.held_text(hold),
        holds.progress_text(hold.progress),
    )
    assert holds.read_hold(columns, None) == hold


@pytest.mark.parametrize("name", [name for name in fields(Execution) if name != "id"])
def test_every_field_of_an_execution(name: str) -> None:
    one = Execution(
        *("u:3:1", "a", "u", 3, 1, Kind.SCHEDULED, NOW, Status.SUCCEEDED, False, 5, "w", NOW),
        *(None, NOW),
    )
    one = changed(one, name)
    one = evolve(one, id=f"{one.uid}:{one.number}:{one.attempt}")
    assert EXECUTION_COLUMNS.count(",") + 1 == len(execution_values(one))
    assert read_execution((*execution_values(one), 9)) == one


@pytest.mark.parametrize("name", fields(Pending))
def test_what_a_steady_run_does_not_write_is_as_it_was(name: str) -> None:
    """Whatever differs between two standings: six columns are written only where that says all."""
    following = Pending(4, LATER, LATER)
    after = evolve(STANDING, last_number=4, scheduled=following, due_at=LATER)
    for before, then in (
        (evolve(STANDING, scheduled=changed(ONE, name)), after),
        (STANDING, evolve(after, scheduled=changed(following, name))),
    ):
        _steady_or_not(before, then)


@pytest.mark.parametrize("name", fields(Standing))
def test_what_a_steady_run_does_not_write_of_the_standing(name: str) -> None:
    following = Pending(4, LATER, LATER)
    after = evolve(STANDING, last_number=4, scheduled=following, due_at=LATER)
    _steady_or_not(changed(STANDING, name), after)
    _steady_or_not(STANDING, changed(after, name))


def _steady_or_not(before: Standing, after: Standing) -> None:
    if not standings.only_run_fields_differ(before, after):
        return
    steady = standings.steady_values(before, after)
    if steady is None:
        return
    names = standings.RUN_COLUMNS.split(", ")
    row = dict(zip(names, standings.run_values(before), strict=True))
    row |= dict(zip(standings.STEADY_COLUMNS.split(", "), steady, strict=True))
    assert tuple(row.values()) == standings.run_values(after)


def test_the_usual_run_is_plain_and_steady() -> None:
    after = evolve(STANDING, last_number=4, scheduled=Pending(4, LATER, LATER), due_at=LATER)
    assert standings.steady_values(STANDING, after) is not None
    claim = Claim(JOB, 5, "w", NOW, LATER)
    execution = Execution(
        *("u:3:1", "a", "u", 3, 1, Kind.SCHEDULED, NOW, Status.SUCCEEDED, True, 5, "w", NOW),
        *(NOW, NOW),
    )
    settlement = Settlement(claim, 0, after, (execution,))
    assert is_plain_run(settlement)
    for odd in (
        evolve(settlement, expected=1),
        evolve(settlement, executions=()),
        evolve(settlement, executions=(execution, execution)),
        evolve(settlement, standing=None),
        # Its execution might be stored already, or might be written once more.
        evolve(settlement, executions=(evolve(execution, uid="v"),)),
        evolve(settlement, executions=(evolve(execution, number=2),)),
        evolve(settlement, executions=(evolve(execution, attempt=2),)),
        evolve(settlement, standing=STANDING),
        evolve(settlement, standing=evolve(after, requests=(ONE,))),
        evolve(settlement, standing=evolve(after, pause=Pause(NOW, 3))),
    ):
        assert not is_plain_run(odd), odd


@pytest.mark.parametrize(
    "changed_columns",
    [
        {"number": -1},
        {"attempts": 2**60},
        {"last_number": None, "number": None},
        {"due_at": None},
        {"next_run": 2**62},
        {"paused_at": 0},
        {"requests": "{"},
        {"requests": '[{"number":1}]'},
        {"marks": '{"later":1}'},
        {"last_status": "asleep"},
    ],
    ids=str,
)
def test_what_makes_no_sense_is_malformed(changed_columns: dict[str, Any]) -> None:
    names = rows.JOB_COLUMNS.split(", ")
    values = dict(zip(names, rows.job_values(JOB, 1), strict=True)) | changed_columns
    with pytest.raises(Malformed):
        rows.read_job(tuple(values.values()))
