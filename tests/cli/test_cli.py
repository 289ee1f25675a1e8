"""The command line against a SQLite file that a running service uses."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner, Result

from sched_cli import main as _commands  # noqa: F401 -- puts them into the application
from sched_cli.application import app

SERVICE = """
from datetime import UTC, datetime, timedelta
from sched_core import Cron, Interval, JobRouter, Once, open_scheduler

router = JobRouter(group="service", version=3)

@router.job("heartbeat", Interval(milliseconds=200), metadata={"kind": "beat"})
async def heartbeat(event):
    print("beat\\n", end="", flush=True)

@router.job("nightly", Cron("30 2 * * *", tz="Europe/Berlin"), name="Clean up")
def nightly(event):
    print(f"nightly {event.manual}\\n", end="", flush=True)

@router.job("broken", Once(datetime(2026, 1, 1, tzinfo=UTC)))
async def broken(event):
    raise ValueError("on purpose")

def make():
    return open_scheduler("scheduler.toml", handler=router)

scheduler = open_scheduler("scheduler.toml", handler=router)
nothing = 5
"""

CONFIG = '[scheduler]\nmode = "sql"\n[scheduler.sql]\nurl = "sqlite:///jobs.db"\n'


def program(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "sched_cli", *arguments]


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder in which ``sched run service:router`` is running."""
    folder = tmp_path_factory.mktemp("service")
    (folder / "service.py").write_text(SERVICE, encoding="utf-8")
    (folder / "scheduler.toml").write_text(CONFIG, encoding="utf-8")
    environ = {k: v for k, v in os.environ.items() if not k.startswith("SCHEDULER_")}
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(
            program("run", "service:router"), cwd=folder, stdout=log, stderr=log, env=environ
        )
        try:
            wait_for(folder, "beat")
            yield folder
            assert process.poll() is None, (folder / "log").read_text()
            process.send_signal(signal.SIGTERM)
            assert process.wait(timeout=30) == 0, (folder / "log").read_text()
        finally:
            process.kill()


def wait_for(folder: Path, text: str) -> None:
    deadline = time.monotonic() + 30
    while text not in (folder / "log").read_text():
        assert time.monotonic() < deadline, (folder / "log").read_text()
        time.sleep(0.02)


@pytest.fixture
def here(service: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(service)
    monkeypatch.setenv("COLUMNS", "200")
    for name in list(os.environ):
        if name.startswith("SCHEDULER_"):
            monkeypatch.delenv(name)
    return service


def sched(*arguments: str, code: int = 0) -> Result:
    result = CliRunner().invoke(app, arguments)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == code, result.output
    return result


def parsed(*arguments: str, code: int = 0) -> Any:
    return json.loads(sched(*arguments, "--json", code=code).stdout)


# -- looking -----------------------------------------------------------------


def test_jobs(here: Path) -> None:
    shown = sched("jobs").stdout
    lines = [line.split() for line in shown.splitlines()]
    assert lines[0] == ["id", "schedule", "state", "next", "last", "group"]
    assert [line[0] for line in lines[1:]] == ["broken", "heartbeat", "nightly"]
    assert "30 2 * * * Europe/Berlin" in shown
    assert "every 0.2s" in shown

    found = {job["id"]: job for job in parsed("jobs")}
    assert set(found) == {"broken", "heartbeat", "nightly"}
    assert found["nightly"]["schedule"]["kind"] == "cron"
    assert found["heartbeat"]["metadata"] == {"kind": "beat"}
    assert found["nightly"]["state"] == "active"
    assert [job["id"] for job in parsed("jobs", "--prefix", "ni")] == ["nightly"]
    assert [job["id"] for job in parsed("jobs", "--state", "finished")] == ["broken"]
    assert [job["id"] for job in parsed("jobs", "--meta", "kind=beat")] == ["heartbeat"]
    assert len(parsed("jobs", "--group", "service")) == 3
    assert parsed("jobs", "--group", "other") == []
    assert sched("jobs", "--group", "other").stdout == "no jobs\n"


def test_show(here: Path) -> None:
    shown = sched("show", "nightly").stdout
    for text in ("Clean up", "30 2 * * * Europe/Berlin", "by the service", "in "):
        assert text in shown
    job = parsed("show", "nightly")
    assert len(job["upcoming"]) == 5
    assert job["upcoming"][0] == job["next_run"]
    assert parsed("show", "broken")["upcoming"] == []


def test_history(here: Path) -> None:
    assert "ValueError: on purpose" in sched("history", "broken").stdout
    (failed,) = parsed("history", "broken")
    assert (failed["status"], failed["attempt"], failed["final"]) == ("failed", 1, True)
    assert len(parsed("history", "-n", "2")) == 2
    beats = parsed("history", "heartbeat", "--status", "succeeded", "--since", "1h")
    assert beats
    assert {beat["status"] for beat in beats} == {"succeeded"}
    assert parsed("history", "--since", "2100-01-01") == []
    assert sched("history", "--since", "2100-01-01").stdout == "nothing has run\n"


def test_day(here: Path) -> None:
    rows = {row["id"]: row for row in parsed("day")}
    assert rows["heartbeat"]["past"].endswith("■")
    assert rows["heartbeat"]["future"] == "█" * 24
    assert rows["broken"]["past"].endswith("x")
    assert sorted(rows["nightly"]["future"]) == ["·"] * 23 + ["▁"] or (
        "▁" in rows["nightly"]["future"]
    )
    shown = sched("day", "--prefix", "h", "--hours", "2").stdout
    assert "last 2 h" in shown
    assert "succeeded" in shown
    assert "nightly" not in shown


def test_doctor(here: Path) -> None:
    found = parsed("doctor", code=1)
    assert found["mode"] == "sql"
    assert found["config"] == "scheduler.toml"
    assert found["jobs"] == {"active": 2, "finished": 1}
    assert found["problems"] == ["job 'broken' failed once in the last day"]
    assert any("does not exist" in sentence for sentence in found["advice"])
    shown = sched("doctor", code=1).stdout
    assert "mode sql, from scheduler.toml" in shown
    assert "problem: job 'broken' failed" in shown


# -- operating ---------------------------------------------------------------


def test_pause_trigger_skip_resume(here: Path) -> None:
    assert sched("pause", "nightly", "--until", "2h", "--reason", "disk").stdout.startswith(
        "nightly: paused, until "
    )
    job = parsed("show", "nightly")
    assert (job["state"], job["pause_reason"]) == ("paused", "disk")
    assert "pause reason" in sched("show", "nightly").stdout
    assert parsed("trigger", "nightly") == {"id": "nightly", "key": f"{job['uid']}:2"}
    wait_for(here, "nightly True")
    assert "nightly: active, next in" in sched("resume", "nightly").stdout
    skipped = parsed("skip", "nightly")
    assert skipped["skips"] == skipped["next_run"]
    assert "skips" in sched("show", "nightly").stdout
    assert parsed("skip", "nightly", "--undo")["skips"] is None
    (run,) = parsed("history", "nightly")
    assert (run["key"], run["kind"], run["status"]) == (f"{job['uid']}:2", "triggered", "succeeded")


def test_remove_and_prune_ask_first(here: Path) -> None:
    command = program("remove", "broken")
    done = subprocess.run(
        command, cwd=here, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        "sched: this needs a yes, and there is no terminal to ask at: pass --yes\n"
    )
    for answer, code in (("n", 1), ("y", 0)):
        master, slave = pty.openpty()
        with subprocess.Popen(command, cwd=here, stdin=slave, stdout=slave, stderr=slave) as asked:
            os.close(slave)
            seen = ""
            while "[y/N]" not in seen:
                seen += os.read(master, 1000).decode()
            assert "Remove 'broken'" in seen
            os.write(master, f"{answer}\n".encode())
            assert asked.wait(timeout=30) == code
        os.close(master)
        assert ("broken" in {job["id"] for job in parsed("jobs")}) == bool(code)
    assert parsed("history", "broken"), "its history stays"

    assert parsed("prune", "--before", "1h", "--yes") == {"deleted": 0}
    deleted = parsed("prune", "--before", "0s", "--yes")["deleted"]
    assert deleted > 0
    assert sched("prune", "--before", "2000-01-01", "-y").stdout == "deleted 0\n"
    assert parsed("remove", "nightly", "--yes") == {"removed": "nightly"}
    assert [job["id"] for job in parsed("jobs")] == ["heartbeat"]
    assert sched("remove", "nightly", "--yes", code=1).stderr == (
        "sched: no job 'nightly' is stored\n"
    )


# -- without a store ---------------------------------------------------------


def test_next() -> None:
    found = parsed("next", "30 2 * * *", "--tz", "Europe/Berlin", "-n", "3")
    assert len(found["upcoming"]) == 3
    assert any("does not exist" in sentence for sentence in found["advice"])
    shown = sched("next", "0 12 * * *", "--tz", "Asia/Kathmandu").stdout
    assert shown.count("12:00:00+0545") == 5
    assert len(sched("--utc", "next", "every 90s", "--count", "2").stdout.splitlines()) == 2
    assert sched("next", "2020-01-01T00:00Z").stdout == "never again\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["next", "0 3 * *"], "expression: '0 3 * *' has 4 fields"),
        (["next", "0 0 31 2 *"], "can never fire"),
        (["next", "every soon"], "'every soon': must be a duration"),
        (["next", "0 3 * * *", "--tz", "Mars"], "no time zone 'Mars'"),
        (["next"], "Missing argument"),
        (["next", "0 3 * * *", "-n", "0"], "Invalid value"),
        (["jobs", "--state", "asleep"], "Invalid value"),
        (["jobs", "--meta", "kind"], "--meta: must be like KEY=VALUE, not 'kind'"),
        (["history", "--since", "soon"], "--since: must be a moment such as"),
        (["pause", "heartbeat", "--until", "2000-01-01"], "until: must be after"),
        (["explode"], "No such command"),
        (["--config", "none.toml", "jobs"], "none.toml: No such file or directory"),
        (["run", "service"], "MODULE:NAME: must be like app.jobs:scheduler"),
        (["run", "missing:x"], "there is no module 'missing' here"),
        (["run", "service:missing"], "'service' has no 'missing'"),
        (["run", "service:nothing"], "service:nothing is no Scheduler"),
    ],
)
def test_wrong_input_is_told_and_exits_with_2(
    here: Path, arguments: list[str], message: str
) -> None:
    result = sched(*arguments, code=2)
    assert message in " ".join(result.stderr.replace("│", "").split())
    assert result.stdout == ""


@pytest.mark.parametrize(
    "arguments",
    [["show"], ["history"], ["resume"], ["trigger"], ["skip"], ["pause"], ["remove", "--yes"]],
    ids=lambda arguments: arguments[0],
)
def test_an_unknown_job_exits_with_1(here: Path, arguments: list[str]) -> None:
    assert sched(*arguments, "typo", code=1).stderr == "sched: no job 'typo' is stored\n"


def test_without_a_configuration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert "scheduler.mode: is missing" in sched("jobs", code=2).stderr
    (tmp_path / "pyproject.toml").write_text("[project]\n", encoding="utf-8")
    assert "scheduler.mode: is missing" in sched("jobs", code=2).stderr
    monkeypatch.setenv("SCHEDULER_MODE", "sql")
    monkeypatch.setenv("SCHEDULER_SQL_URL", "sqlite:///mine.db")
    assert "there is no database at" in sched("jobs", code=2).stderr
    assert not (tmp_path / "mine.db").exists()
    (tmp_path / "pyproject.toml").write_text('[tool.scheduler]\nmode = "jetsteam"\n')
    monkeypatch.delenv("SCHEDULER_MODE")
    assert "did you mean 'jetstream'?" in sched("jobs", code=2).stderr


@pytest.mark.parametrize("name", ["make", "scheduler"])
def test_run_takes_a_scheduler_or_a_function_that_makes_one(tmp_path: Path, name: str) -> None:
    (tmp_path / "service.py").write_text(SERVICE, encoding="utf-8")
    (tmp_path / "scheduler.toml").write_text(CONFIG, encoding="utf-8")
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen(
            program("run", f"service:{name}"), cwd=tmp_path, stdout=log, stderr=log
        )
        try:
            wait_for(tmp_path, "beat")
            wait_for(tmp_path, f"service:{name} runs on SQLite at {tmp_path}/jobs.db, with 3 jobs")
            process.send_signal(signal.SIGINT)
            assert process.wait(timeout=30) == 0, (tmp_path / "log").read_text()
        finally:
            process.kill()


def test_the_help_names_every_command(monkeypatch: pytest.MonkeyPatch) -> None:
    """The README of the package names it, too."""
    monkeypatch.setenv("COLUMNS", "120")
    shown = sched("--help").stdout
    group: Any = typer.main.get_command(app)
    commands = set(group.commands)
    assert {"jobs", "run", "completion"} <= commands
    page = (Path(__file__).parents[2] / "packages/sched-cli/README.md").read_text(encoding="utf-8")
    for command in commands:
        assert f"│ {command} " in shown
        assert re.search(rf"^\|[^|]*`{command}[ `]", page, re.MULTILINE), command
        each = sched(command, "--help").stdout
        assert "Usage: sched" in each
        assert "[[" not in each
        assert "Exit codes" in shown


def test_the_version() -> None:
    assert sched("--version").stdout == f"sched {version('sched-cli')}\n"


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_shell_completes(shell: str) -> None:
    script = sched("completion", shell).stdout
    assert "_SCHED_COMPLETE" in script
    asked = {"_SCHED_COMPLETE": f"complete_{shell}", "_TYPER_COMPLETE_ARGS": "sched he"}
    asked |= {
        "COMP_WORDS": "sched he",
        "COMP_CWORD": "1",
        "_TYPER_COMPLETE_FISH_ACTION": "get-args",
    }
    done = subprocess.run(
        [str(Path(sys.executable).with_name("sched"))],
        env={**os.environ, **asked},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "health" in done.stdout, done
    assert "doctor" not in done.stdout


def test_ctrl_c_while_a_question_is_asked(here: Path) -> None:
    master, slave = pty.openpty()
    command = program("prune", "--before", "1d")
    with subprocess.Popen(
        command, cwd=here, stdin=slave, stdout=slave, stderr=slave, start_new_session=True
    ) as asked:
        os.close(slave)
        seen = ""
        while "[y/N]" not in seen:
            seen += os.read(master, 1000).decode()
        asked.send_signal(signal.SIGINT)
        while "interrupted" not in seen:
            seen += os.read(master, 1000).decode()
        assert asked.wait(timeout=30) == 130
    os.close(master)
    assert "Traceback" not in seen
