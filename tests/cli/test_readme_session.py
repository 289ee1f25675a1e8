"""The terminal session of the README is what the commands print."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).parents[2]
ROOT_SESSION = re.findall(
    r"^```console\n(.*?)^```$", (ROOT / "README.md").read_text(), re.DOTALL | re.MULTILINE
)[0]
README = ROOT / "packages" / "sched-cli" / "README.md"


def block(language: str) -> str:
    found = re.search(rf"^```{language}\n(.*?)^```$", README.read_text(), re.DOTALL | re.MULTILINE)
    assert found is not None
    return found.group(1)


def plain(text: str) -> list[str]:
    """Leave out what differs from run to run: numbers, units of time, and the widths that follow.

    Only of the drawing every character counts.
    """
    lines = []
    for line in text.splitlines():
        words = re.sub(r"\d[\d.:+-]*", "0", line)
        words = re.sub(r"in (0[dhms] ?)+(?=$|\s)", "in TIME ", words)
        lines.append(" ".join(words.split()))
    return lines


def test_the_session_is_true(tmp_path: Path) -> None:
    (tmp_path / "service.py").write_text(block("python"), encoding="utf-8")
    (tmp_path / "scheduler.toml").write_text(block("toml"), encoding="utf-8")
    environ = {k: v for k, v in os.environ.items() if not k.startswith("SCHEDULER_")}
    environ["COLUMNS"] = "200"
    sched = [sys.executable, "-m", "sched_cli"]
    with (tmp_path / "log").open("w") as log:
        service = subprocess.Popen(
            [*sched, "run", "service:router", "--log", "json"],
            cwd=tmp_path,
            env=environ,
            stdout=log,
            stderr=log,
        )
    try:
        waits_until(lambda: "nightly" in (tmp_path / "log").read_text())
        session = block("console")
        for line in ROOT_SESSION.splitlines():
            assert line in session, "the session of the main README is a part of this one"
        for part in session.split("$ sched ")[1:]:
            command, expected = part.split("\n", 1)
            done = subprocess.run(
                [*sched, *shlex.split(command)],
                cwd=tmp_path,
                env=environ,
                capture_output=True,
                text=True,
                check=False,
            )
            assert done.stderr == ""
            assert plain(done.stdout) == plain(expected), done.stdout
            if command.startswith("trigger"):
                waits_until(lambda: "Traceback" in (tmp_path / "log").read_text())
        service.send_signal(signal.SIGTERM)
        assert service.wait(timeout=30) == 0
    finally:
        service.kill()
    records = [json.loads(line) for line in (tmp_path / "log").read_text().splitlines()]
    assert any(record.get("job_id") == "nightly" for record in records)


def waits_until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.02)
