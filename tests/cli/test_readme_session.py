"""The terminal session of the README is what the commands print."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from functools import partial
from pathlib import Path

import pytest
from typer.testing import CliRunner

from sched_cli import main as _commands  # noqa: F401 -- puts them into the application
from sched_cli.application import app

ROOT = Path(__file__).parents[2]
README = ROOT / "packages" / "sched-cli" / "README.md"


FIRST = ROOT / "README.md"


def block(page: Path, language: str, part: str = "") -> str:
    """Return the first block of a page that has something in it."""
    blocks: list[str] = re.findall(
        rf"^```{language}\n(.*?)^```$", page.read_text(), re.DOTALL | re.MULTILINE
    )
    return next(text for text in blocks if part in text)


def plain(text: str) -> list[str]:
    """Leave out what differs from run to run: numbers, units of time, and the widths that follow.

    Only of the drawing every character counts.
    """
    lines = []
    for line in text.splitlines():
        words = re.sub(r"\b[0-9a-f]{32}:", "UID:", line)
        words = re.sub(r"\S+@\S+", "WHO", words)
        words = re.sub(r"\d[\d.:+-]*", "0", words)
        words = re.sub(r"in (0[dhms] ?)+(?=$|\s)", "in TIME ", words)
        lines.append(" ".join(words.split()))
    return lines


@pytest.mark.parametrize("page", [FIRST, README], ids=["first page", "package"])
def test_the_session_is_true(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The files of the page, copied into an empty folder, print what the page shows.

    The service is a process of its own; the commands run in this one, which has imported them.
    """
    (tmp_path / "service.py").write_text(block(page, "python", "@router"), encoding="utf-8")
    (tmp_path / "scheduler.toml").write_text(block(page, "toml"), encoding="utf-8")
    assert "`sched run service:router`" in page.read_text()
    for name in [name for name in os.environ if name.startswith("SCHEDULER_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.chdir(tmp_path)
    command = [sys.executable, "-m", "sched_cli", "run", "service:router", "--log", "json"]
    with (tmp_path / "log").open("w") as log:
        service = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        waits_until(lambda: "runs on SQLite" in (tmp_path / "log").read_text())
        session = block(page, "console")
        for part in session.split("$ sched ")[1:]:
            words, expected = part.split("\n", 1)
            done = CliRunner().invoke(app, shlex.split(words))
            assert done.stderr == ""
            assert plain(done.stdout) == plain(expected), done.stdout
            if words.startswith("trigger"):
                job_id = words.split()[1]
                waits_until(partial(ran, tmp_path, job_id))
        service.send_signal(signal.SIGTERM)
        assert service.wait(timeout=30) == 0
    finally:
        service.kill()
    records = [json.loads(line) for line in (tmp_path / "log").read_text().splitlines()]
    assert records


def ran(folder: Path, job_id: str) -> bool:
    """Whether a run of a job has ended."""
    with closing(sqlite3.connect(f"file:{folder / 'jobs.db'}?mode=ro", uri=True)) as connection:
        found = connection.execute(
            "SELECT count(*) FROM sched_execution WHERE job_id = ?", (job_id,)
        ).fetchone()
    return bool(found[0])


def waits_until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.02)
