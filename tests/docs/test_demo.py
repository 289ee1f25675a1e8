"""The demo, as a person uses it: Ctrl-C drains; killed and started again it goes on."""

from __future__ import annotations

import os
import re
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).parents[2]


class Demo:
    """A demo under way, in lines."""

    def __init__(self, database: Path, *args: str) -> None:
        command = [sys.executable, str(ROOT / "examples" / "demo.py"), *args]
        command += ["--database", str(database)]
        environment = {name: value for name, value in os.environ.items() if name != "COLUMNS"}
        self.process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=database.parent,
            env=environment,
        )
        self.lines: list[str] = []

    def until(self, shown: Callable[[str], object]) -> str:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append(line)
            if shown(line):
                return line
        raise AssertionError("the demo ended:\n" + "".join(self.lines))

    def end(self, number: signal.Signals) -> str:
        self.process.send_signal(number)
        rest = self.process.communicate(timeout=30)[0]
        self.lines += rest.splitlines(keepends=True)
        return rest


def test_jobs_fire_and_ctrl_c_drains(tmp_path: Path) -> None:
    demo = Demo(tmp_path / "demo.db", "--plain")

    demo.until(re.compile(r"heartbeat +succeeded").search)
    demo.until(re.compile(r"round_seconds +succeeded").search)
    rest = demo.end(signal.SIGINT)

    assert demo.process.returncode == 0, rest
    assert demo.lines[0].startswith("A new file")
    assert "draining: " in rest
    assert re.search(r"Drained: \d+ runs since this start are written", rest)
    assert re.search(r"\d+ jobs wait in .*demo\.db; start again to go on", rest)


def test_a_killed_demo_goes_on_where_it_was(tmp_path: Path) -> None:
    database = tmp_path / "demo.db"
    first = Demo(database, "--plain")
    first.until(re.compile(r"heartbeat +succeeded").search)
    first.end(signal.SIGKILL)
    before = rows(database, "SELECT id, uid, anchor FROM sched_job WHERE declared ORDER BY id")

    second = Demo(database, "--plain")  # not a terminal: --plain would not be needed
    assert second.until(str).startswith("Picked up where it was: ")
    second.until(re.compile(r"heartbeat +succeeded").search)
    second.end(signal.SIGTERM)

    assert second.process.returncode == 0
    jobs = rows(database, "SELECT id, uid, anchor FROM sched_job WHERE declared ORDER BY id")
    assert jobs == before
    assert len(jobs) == 6
    twice = "SELECT uid, number FROM sched_execution WHERE final GROUP BY 1, 2 HAVING count(*) > 1"
    assert rows(database, twice) == []
    assert len(rows(database, "SELECT * FROM sched_execution WHERE job_id = 'heartbeat'")) >= 2


def test_it_ends_by_itself_and_writes_lines_where_there_is_no_terminal(tmp_path: Path) -> None:
    demo = Demo(tmp_path / "demo.db", "--seconds", "0.5")

    rest = demo.process.communicate(timeout=30)[0]

    assert demo.process.returncode == 0, rest
    assert "\x1b" not in rest
    assert "Drained: " in rest


def rows(database: Path, query: str) -> list[tuple[object, ...]]:
    connection = sqlite3.connect(database)
    try:
        return connection.execute(query).fetchall()
    finally:
        connection.close()
