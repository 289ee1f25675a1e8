"""A record of the history that this version cannot read, on the command line."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import anyio
import pytest
from typer.testing import CliRunner, Result

from sched_cli import main as _commands  # noqa: F401 -- puts them into the application
from sched_cli.application import app
from sched_cli.text import local
from sched_core import Once, Scheduler
from sched_sql import SqlBackend

Sched = Callable[..., Result]


@pytest.fixture
def sched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Sched:
    """The program, on a store with three runs, of which the second one has an unknown status."""
    path = tmp_path / "jobs.db"

    async def fill() -> None:
        async with Scheduler(SqlBackend(path), handler=lambda event: None) as scheduler:
            for name in ("first", "odd", "last"):
                await scheduler.submit_job(name, Once(datetime.now(UTC)))
                await scheduler.run_due()

    anyio.run(fill)
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("UPDATE sched_execution SET status = 'deferred' WHERE job_id = 'odd'")
    monkeypatch.setenv("SCHEDULER_MODE", "sql")
    monkeypatch.setenv("SCHEDULER_SQL_URL", f"sqlite:///{path}")
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.chdir(tmp_path)
    return lambda *arguments: CliRunner().invoke(app, list(arguments))


def test_history_shows_it_as_a_row_with_the_reason(sched: Sched) -> None:
    shown = sched("history")
    assert shown.exit_code == 0, shown.output
    last, odd, first = shown.output.splitlines()[-3:]
    assert "last" in last
    assert "succeeded" in last
    assert "unreadable" in odd
    assert "deferred" in odd
    assert "first" in first
    (record,) = json.loads(sched("history", "odd", "--json").output)
    assert (record["readable"], record["job_id"]) == (False, "odd")
    assert json.loads(record["record"])["status"] == "deferred"
    readable = [record["readable"] for record in json.loads(sched("history", "--json").output)]
    assert readable == [True, False, True]


def test_the_doctor_names_it_and_the_day_passes_over_it(sched: Sched) -> None:
    found = sched("doctor", "--json")
    assert found.exit_code == 1
    (problem,) = json.loads(found.output)["problems"]
    assert "'odd'" in problem
    assert "'deferred'" in problem
    day = sched("day", "--json")
    assert day.exit_code == 0, day.output
    marks = {row["id"]: row["past"][-1] for row in json.loads(day.output)}
    assert marks == {"first": "■", "odd": "·", "last": "■"}


@pytest.mark.parametrize(
    "moment", [datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)]
)
@pytest.mark.parametrize("zone", ["Pacific/Kiritimati", "Pacific/Pago_Pago"])
def test_the_first_and_the_last_moment_can_be_shown(moment: datetime, zone: str) -> None:
    assert local(moment, utc=False, tz=zone)
