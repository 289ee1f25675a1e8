"""What the command line shows on a terminal and into a pipe, whatever jobs are called."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import anyio
import pytest
from attrs import frozen
from hypothesis import given
from hypothesis import strategies as st

from sched_cli.output import Cell, Column, json_text, layout, printable
from sched_cli.text import policy_text
from sched_core import CatchUp, Cron, Drop, Interval, JobEvent, Once, Policy, Retry, Scheduler
from sched_sql import SqlBackend

EVIL = "\x1b]0;title\x07\x1b[2J\x9b31m\u202eevil\u2028\u2067\x7f\r\n"
TURNED = "\u202eevil\u2067"
"""What may be in ids, too."""
LONG = "invoice-2026-11-customer-0192837465-reminder-second-try"
LONGER = "x" * 75
COLOURS = re.compile(r"\x1b\[[0-9;]*m")


@frozen
class Shown:
    code: int
    output: str
    errors: str


Drive = Callable[..., list[Shown]]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database with jobs that are hard to show."""
    path = tmp_path_factory.mktemp("store") / "jobs.db"

    async def fail(event: JobEvent) -> None:
        raise ValueError(
            f"customer {EVIL} is unknown, and this reason is a long one: " + "so " * 40
        )

    async def fill() -> None:
        async with Scheduler(SqlBackend(path), handler=fail, worker=TURNED) as scheduler:
            at = datetime.now(UTC)
            metadata = {"name": EVIL, f"k{TURNED}": "v"}
            await scheduler.submit_job(f"a{TURNED}", Once(at), metadata=metadata, name=TURNED)
            await scheduler.submit_job(LONG, Once(at), group=f"g{TURNED}")
            await scheduler.submit_job(LONGER, Interval(hours=1))
            await scheduler.submit_job("hourly", Interval(hours=1), group="a-rather-long-group")
            cron = Cron("*/5 9-17 * * mon-fri", tz="America/Argentina/Buenos_Aires")
            await scheduler.submit_job("often", cron)
            await scheduler.submit_job("täglich", Interval(days=1))
            await scheduler.run_due()
            await scheduler.pause_job("hourly", reason=f"because {EVIL}")

    anyio.run(fill)
    return path


@pytest.fixture(scope="module")
def drive(store: Path) -> Iterator[Drive]:
    environ = {k: v for k, v in os.environ.items() if not k.startswith("SCHEDULER_")}
    environ |= {"SCHEDULER_MODE": "sql", "SCHEDULER_SQL_URL": str(store), "PYTHONUTF8": "1"}
    environ.pop("COLUMNS", None)

    with subprocess.Popen(
        [sys.executable, str(Path(__file__).with_name("driven.py"))],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=environ,
        cwd=store.parent,
        text=True,
    ) as driven:

        def run(how: str, *commands: list[str], **environment: str) -> list[Shown]:
            assert driven.stdin is not None
            assert driven.stdout is not None
            asked = json.dumps([[how, words, environment] for words in commands])
            driven.stdin.write(f"{asked}\n")
            driven.stdin.flush()
            return [Shown(*answer) for answer in json.loads(driven.stdout.readline())]

        yield run


COMMANDS = [
    ["jobs"],
    ["show", f"a{TURNED}"],
    ["show", LONG],
    ["show", LONGER],
    ["show", "hourly"],
    ["history"],
    ["history", f"a{TURNED}"],
    ["day"],
    ["next", "30 2 * * *", "--tz", "Europe/Berlin"],
    ["pause", LONG.replace("second", "third")],
    ["pause", "often", "--reason", EVIL],
    ["resume", "often"],
    ["skip", "often"],
    ["skip", "often", "--undo"],
    ["trigger", "often"],
    ["prune", "--before", "30d", "--yes"],
    ["show", f"none{EVIL}"],
    ["remove", f"none{EVIL}", "--yes"],
    ["history", "--since", EVIL],
    ["jobs", "--meta", EVIL],
    ["jobs", EVIL],
    ["explode", EVIL],
    ["next", EVIL],
    ["run", f"{EVIL}:x"],
    ["--config", EVIL, "jobs"],
    ["--url", f"sqlite:///{EVIL}", "jobs"],
    ["completion", EVIL],
    ["doctor"],
    ["health"],
    ["running"],
    ["workers"],
    ["counts", "--by", "job"],
    ["counts", "--by", "error"],
    ["execution", f"none{EVIL}"],
    ["trigger", f"a{TURNED}", "--arg", f"{TURNED}={EVIL}", "--actor", TURNED],
    ["show", f"a{TURNED}"],
    ["pause", "--prefix", "a", "--reason", EVIL, "--actor", TURNED, "--yes"],
    ["resume", "--all", "--reason", EVIL, "--yes"],
    ["skip", "--all", "--yes"],
    ["skip", "--all", "--undo", "--yes"],
    ["cancel", f"x{TURNED}:1"],
    ["cancel", "--job", f"a{TURNED}", "--yes"],
    ["retry", "--job", f"a{TURNED}"],
    ["rerun", "--failed", "--dry-run"],
    ["backfill", f"none{EVIL}", "2d", "1d"],
    ["requeue", "default", TURNED, "--yes"],
    ["requeue", TURNED, "default", "--yes"],
    ["watch", "--after", EVIL],
]


@pytest.mark.parametrize("how", ["terminal", "pipe"])
def test_what_cannot_be_printed_is_escaped(drive: Drive, how: str) -> None:
    shown = drive(how, *COMMANDS)
    for words, each in zip(COMMANDS, shown, strict=True):
        text = COLOURS.sub("", each.output) if how == "terminal" else each.output
        text = (text + each.errors).replace("\r\n", "\n")
        assert text, words
        for line in text.split("\n"):
            assert line.isprintable(), (words, line)
        assert "Traceback" not in text, words
        assert each.code in {0, 1, 2}, words
    assert r"\x1b]0;title\x07" in shown[1].output
    assert r"a\u202eevil\u2067" in shown[5].output


def test_rows_fit_a_terminal_and_ids_can_be_copied(drive: Drive) -> None:
    tables = [["jobs"], ["history"], ["day"], ["show", LONG], ["show", "hourly"], ["show", "often"]]
    tables += [["running"], ["workers"], ["counts", "--by", "job"], ["jobs", "--queue", "default"]]
    shown = drive("terminal", *tables, NO_COLOR="1")
    for words, each in zip(tables, shown, strict=True):
        assert each.code == 0, each.output
        rows = [line for line in each.output.splitlines() if not line.startswith("problem: ")]
        for line in rows:  # what is wrong is said in a sentence, as soon as a job is due
            assert len(line) <= 80, (words, line)
    for number in (0, 2):
        assert LONG in shown[number].output
        assert LONGER in shown[number].output
    assert "…" in shown[1].output, "a long reason is shortened"
    (piped,) = drive("pipe", ["history", LONG], COLUMNS="80")
    assert "so so so so so so so so so so so" in piped.output, "and is whole in a pipe"
    assert LONG in piped.output
    assert "…" not in piped.output


def test_json_is_valid_and_can_be_printed(drive: Drive) -> None:
    commands = [[*words, "--json"] for words in (["jobs"], ["history"], ["show", f"a{TURNED}"])]
    jobs, history, show = drive("terminal", *commands)
    assert f"a{TURNED}" in {job["id"] for job in json.loads(jobs.output)}
    assert any(EVIL in each["reason"] for each in json.loads(history.output))
    assert json.loads(show.output)["metadata"]["name"] == EVIL
    for each in (jobs, history, show):
        assert all(line.isprintable() for line in each.output.splitlines())


def test_an_output_that_cannot_show_a_line(drive: Drive) -> None:
    everything = [["jobs"], ["history"], ["day"], ["jobs", "--json"], ["--help"], ["show", "ä"]]
    shown = drive("pipe", *everything, PYTHONIOENCODING="ascii")
    assert [each.code for each in shown] == [0, 0, 0, 0, 0, 1]
    assert r"t\xe4glich" in shown[0].output
    assert "täglich" in {job["id"] for job in json.loads(shown[3].output)}
    assert shown[5].errors == "sched: no job '\\xe4' is stored\n"


def test_the_reader_of_the_output_has_ended(drive: Drive) -> None:
    commands = [["jobs"], ["history", "--json"], ["--help"], ["next", "* * * * *"]]
    for each in drive("unheard", *commands, ["watch", "--after", ""], ["counts"]):
        assert (each.code, each.errors) == (141, "")


WRONG = [
    ["history", "--since", "0001-01-01"],
    ["history", "--since", "9999-12-31T23:59:59-12:00"],
    ["history", "--since", "99999999999d"],
    ["history", "--since", "2026-02-30"],
    ["history", "--limit", "0"],
    ["history", "--limit", "ten"],
    ["history", "--status", "done"],
    ["history", "one", "two"],
    ["pause", "hourly", "--until", "99999999d"],
    ["pause", "hourly", "--until", "9" * 400 + "d"],
    ["pause", "hourly", "--until", ""],
    ["pause"],
    ["prune", "--before", "99999999d", "--yes"],
    ["prune", "--before", "30d"],
    ["day", "--hours", "-1"],
    ["next", "* * * * *", "--tz", ""],
    ["next", "* * * * *", "--tz", "../../etc/passwd"],
    ["next", "every 90s", "--tz", "Mars"],
    ["next", "every 9999999999d"],
    ["next", ""],
    ["next", "* * * * *", "-n", "1001"],
    ["run", "../jobs:scheduler"],
    ["run", "jobs.py:scheduler"],
    ["run", "/tmp/jobs:scheduler"],
    ["run", ".jobs:scheduler"],
    ["run", ":scheduler"],
    ["run", "jobs:"],
    ["run", "json:nothing"],
    ["run", "json:__name__"],
    ["--config", "/", "jobs"],
    ["--config", "/dev/null", "jobs"],
    ["--config", "none.toml", "jobs"],
    ["--url", "", "jobs"],
    ["--url", "mysql://u:hunter2@h/jobs", "jobs"],
    ["--url", "postgresql://u:a/hunter2@h/jobs", "jobs"],
    ["--url", "host=h password=hunter2", "jobs"],
    ["--url", "jbos.db", "jobs"],
    ["--url", "/", "jobs"],
    ["--utc=maybe", "jobs"],
    ["jobs", "--state", "asleep"],
    ["jobs", "postgresql://u:a/hunter2@h/jobs"],
    ["completion", "tcsh"],
    ["completion"],
    ["\udcff"],
]


def test_a_wrong_argument_is_one_line(drive: Drive, store: Path) -> None:
    for words, each in zip(WRONG, drive("pipe", *WRONG, TZ="Europe/Berlin"), strict=True):
        assert each.code == 2, (words, each)
        assert each.output == ""
        assert each.errors.startswith("sched: "), words
        assert each.errors.count("\n") == 1, each.errors
        assert "hunter2" not in each.errors
    assert sorted(path.name for path in store.parent.iterdir() if "jobs.db" not in path.name) == []


def test_an_argument_that_is_no_text(drive: Drive) -> None:
    for each in drive("pipe", ["show", "\udcff"], ["jobs", "--prefix", "\udcff"]):
        assert each.code in {0, 1, 2}, each.errors
        assert "Traceback" not in each.errors


def test_every_day_that_there_is_can_be_asked_for(drive: Drive) -> None:
    words = (
        ["next", "9999-12-31T23:59:59Z"],
        ["next", "every 30000d"],
        ["next", "0001-01-01T00:00Z"],
    )
    for each in drive("pipe", *words, TZ="Pacific/Kiritimati"):
        assert each.code == 0, each.errors


# -- the pure half -----------------------------------------------------------


@given(st.text())
def test_a_text_is_one_printable_line(text: str) -> None:
    assert printable(text).isprintable()
    if text.isprintable():
        assert printable(text) == text
    shown = json_text([text])
    assert json.loads(shown) == [text]
    assert all(line.isprintable() for line in shown.split("\n"))


CELLS = st.text(st.sampled_from("ab-äé漢字\x1b "), max_size=90).map(Cell)


@given(st.lists(st.tuples(CELLS, CELLS, CELLS), min_size=1, max_size=4), st.integers(30, 120))
def test_a_table_keeps_its_keys_and_its_edge(rows: Any, width: int) -> None:
    columns = [
        Column("what", least=6),
        Column("id", key=True),
        Column("more", least=4, optional=True),
    ]
    lines = ["".join(cell.text for cell in line) for line in layout(columns, rows, width)]
    for row in rows:
        assert any(row[1].text.rstrip() in line for line in lines)
    from rich.cells import cell_len

    for line in lines:
        alone = [row[1].text for row in rows if line == row[1].text or line == row[1].text.rstrip()]
        assert alone or cell_len(line) <= width
    whole = ["".join(cell.text for cell in line) for line in layout(columns, rows, None)]
    assert len(whole) == len(rows) + 1
    for row, line in zip(rows, whole[1:], strict=True):
        for cell in row:
            assert cell.text.strip() in line


def test_the_time_of_an_overflow_is_no_error() -> None:
    from sched_cli.text import local

    last = datetime.max.replace(tzinfo=UTC)
    assert local(last, utc=False, tz="Pacific/Kiritimati") == "9999-12-31 23:59:59Z"
    assert (
        local(datetime.min.replace(tzinfo=UTC) + timedelta(1), utc=True) == "0001-01-02 00:00:00Z"
    )


def test_a_policy_says_what_it_has_beyond_the_default() -> None:
    five, hour = timedelta(seconds=5), timedelta(hours=1)
    assert policy_text(Policy()) == ""
    assert policy_text(Policy(misfire=CatchUp(), overdue=hour)) == "misfire=CatchUp(), overdue=1h"
    drops = Policy(misfire=Drop(five), keep_finished=None, retry=Retry(3, 2 * hour))
    assert policy_text(drops) == (
        "misfire=Drop(grace=5s), retry=Retry(attempts=3, backoff=2h), keep_finished=None"
    )
    listed = Retry(delays=(five, hour), never=(ValueError, "httpx.InvalidURL"))
    assert policy_text(Policy(retry=listed)) == (
        "retry=Retry(delays=[5s, 1h], never=[ValueError, httpx.InvalidURL])"
    )
