"""Every example is run: as a user would, each in a process of its own."""

from __future__ import annotations

import configparser
import json
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"
ELSEWHERE = {"demo.py", "json_backend.py", "test_json_backend.py"}
"""Run by tests of their own, as is the folder sunrise."""


class Running:
    """A process whose output is read as it comes."""

    def __init__(self, process: subprocess.Popen[str], log: Path) -> None:
        self.process, self.log = process, log

    def shows(self, text: str, *, within: float = 30) -> str:
        self.until(lambda: text in self.log.read_text(), within)
        return self.log.read_text()

    def until(self, what: Callable[[], Any], within: float = 30) -> Any:
        deadline = time.monotonic() + within
        while not (answer := what()):
            assert self.process.poll() is None, self.log.read_text()
            assert time.monotonic() < deadline, self.log.read_text()
            time.sleep(0.02)
        return answer

    def shows_after(self, text: str) -> None:
        assert text in self.log.read_text()

    def ends(self, sent: signal.Signals, *, code: int = 0) -> None:
        self.process.send_signal(sent)
        assert self.process.wait(timeout=40) == code, self.log.read_text()


@contextmanager
def started(folder: Path, *command: str, **environ: str) -> Iterator[Running]:
    log = folder / "log"
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    with log.open("w") as output:
        process = subprocess.Popen(
            command,
            cwd=folder,
            stdout=output,
            stderr=output,
            text=True,
            env=os.environ | {"PATH": path, "PYTHONUNBUFFERED": "1"} | environ,
        )
        try:
            yield Running(process, log)
        finally:
            process.kill()
            process.wait()


def copied(name: str, folder: Path) -> Path:
    shutil.copy(EXAMPLES / name, folder)
    return folder / name


def test_quickstart(tmp_path: Path) -> None:
    copied("quickstart.py", tmp_path)
    for _ in range(2):
        with started(tmp_path, sys.executable, "quickstart.py") as process:
            process.shows("heartbeat: ")
            process.ends(signal.SIGINT)


def test_router(tmp_path: Path) -> None:
    copied("router.py", tmp_path)
    with started(tmp_path, sys.executable, "router.py") as process:
        process.shows("sent invoice-")
        process.shows("remember: tea")
        shown = process.shows("< poll-mailbox")
        assert "> poll-mailbox, attempt 1\nlooked into the mailbox\n" in shown
        process.ends(signal.SIGTERM)


def test_reminders(tmp_path: Path) -> None:
    path = str(copied("reminders.py", tmp_path))

    def call(*arguments: str, code: int = 0) -> str:
        done = subprocess.run(
            [sys.executable, path, *arguments],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == code, done.stderr
        return done.stdout + done.stderr

    with started(tmp_path, sys.executable, path, "run") as process:
        assert "later: at " in call("add", "later", "1h", "much later")
        assert "already" in call("add", "later", "1h", "again", code=1)
        assert "tea: at " in call("add", "tea", "100ms", "the tea is ready")
        process.shows("tea: the tea is ready")
        assert call("list").startswith("later: at ")
        assert call("cancel", "later") == "later: cancelled\n"
        assert "no reminder" in call("cancel", "later", code=1)
        assert call("list") == ""
        process.ends(signal.SIGINT)
    assert "usage" in call("explode", code=1)


def test_fastapi(tmp_path: Path) -> None:
    """Real HTTP against a real server; the jobs survive its restart."""
    copied("fastapi_app.py", tmp_path)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    address = f"http://127.0.0.1:{port}"
    command = (sys.executable, "-m", "uvicorn", "fastapi_app:app", "--port", str(port))

    def call(method: str, path: str, body: Any = None) -> tuple[int, Any]:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(
            address + path, data, {"content-type": "application/json"}, method=method
        )
        try:
            with urllib.request.urlopen(request, timeout=10) as response:
                text = response.read()
                return response.status, json.loads(text) if text else None
        except urllib.error.HTTPError as error:
            return error.code, json.loads(error.read())

    def healthy() -> bool:
        try:
            return call("GET", "/health") == (
                200,
                {"healthy": True, "problems": [], "running": True},
            )
        except urllib.error.URLError:
            return False

    soon = (datetime.now(UTC) + timedelta(seconds=1)).isoformat()
    later = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
    with started(tmp_path, *command) as server:
        server.until(healthy)
        assert call("PUT", "/reminders/tea", {"text": "tea", "at": soon})[0] == 201
        assert call("PUT", "/reminders/tea", {"text": "tea", "at": soon})[0] == 409
        assert call("PUT", "/reminders/x", {"text": "x", "at": "2026-01-01T00:00:00"})[0] == 422
        status, cake = call("PUT", "/reminders/cake", {"text": "cake", "at": later})
        assert (status, cake["name"], cake["state"]) == (201, "cake", "active")
        server.shows("remember: tea")
        server.ends(signal.SIGINT)
    with started(tmp_path, *command) as server:
        server.until(healthy)
        found = {each["name"]: each for each in call("GET", "/reminders")[1]}
        assert found["cake"] == cake
        assert found["tea"]["state"] == "finished"
        assert call("DELETE", "/reminders/cake")[0] == 204
        assert call("DELETE", "/reminders/cake")[0] == 404
        # Uvicorn ends in good order, and then by the signal that it was sent.
        server.ends(signal.SIGTERM, code=-signal.SIGTERM)
        server.shows_after("Application shutdown complete")


@pytest.mark.parametrize("name", ["test_your_jobs.py", "test_audited_backend.py"])
def test_tests_that_are_examples(name: str, tmp_path: Path, deep: bool) -> None:
    """In the short form, the suite on the composed backend is of those calls that it changes."""
    chosen = "not histories" if deep else "your or harness or tells or add or replac or remov"
    copied(name, tmp_path)
    copied("audited_backend.py", tmp_path)
    command = [sys.executable, "-m", "pytest", "-q", "-W", "error", "-p", "no:asyncio"]
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("SCHED_", "PYTEST_"))}
    done = subprocess.run(
        [*command, "-k", chosen, name],
        cwd=tmp_path,
        env=kept,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    assert " passed" in done.stdout


def unit() -> configparser.ConfigParser:
    parser = configparser.ConfigParser(strict=False, interpolation=None)
    parser.optionxform = str  # type: ignore[assignment, method-assign]  # as the manual has it
    parser.read(EXAMPLES / "deploy" / "sched-example.service")
    return parser


def docker(instruction: str) -> list[str]:
    text = (EXAMPLES / "deploy" / "Dockerfile").read_text()
    found = re.search(rf"^{instruction} .*?(\[.*\])$", text, re.MULTILINE)
    assert found is not None
    words: list[str] = json.loads(found.group(1))
    return words


def test_systemd(tmp_path: Path) -> None:
    """The unit's command runs the service, and ends it well within the unit's patience."""
    shutil.copytree(EXAMPLES / "deploy", tmp_path, dirs_exist_ok=True)
    service = unit()["Service"]
    assert float(service["TimeoutStopSec"]) > 20
    command = shlex.split(service["ExecStart"])
    name, _, value = service["Environment"].partition("=")
    value = value.replace("/var/lib/sched-example", str(tmp_path))
    with started(tmp_path, Path(command[0]).name, *command[1:], **{name: value}) as process:
        process.shows("alive")
        process.ends(signal.Signals[service["KillSignal"]])
    assert (tmp_path / "jobs.db").exists()


def test_a_container(tmp_path: Path) -> None:
    """The image's command and its health check, without the image."""
    shutil.copytree(EXAMPLES / "deploy", tmp_path, dirs_exist_ok=True)
    url = f"sqlite:///{tmp_path}/data.db"
    with started(tmp_path, *docker("CMD"), SCHEDULER_SQL_URL=url) as process:
        process.shows("alive")
        check = subprocess.run(
            [Path(sys.executable).parent / docker("HEALTHCHECK")[0], *docker("HEALTHCHECK")[1:]],
            cwd=tmp_path,
            env=os.environ | {"SCHEDULER_SQL_URL": url},
            capture_output=True,
            text=True,
            check=False,
        )
        assert check.returncode == 0, check.stdout
        process.ends(signal.SIGTERM)


def test_none_is_left_out() -> None:
    text = Path(__file__).read_text()
    for path in EXAMPLES.iterdir():
        if path.name not in ELSEWHERE and path.suffix in {".py", ".toml"}:
            assert path.name in text or path.stem in text, path.name
