"""Commands that look at what runs, stop it, and ask for it again, with a worker in this process."""

from __future__ import annotations

import getpass
import json
import os
import platform
import pty
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

import anyio
import anyio.lowlevel
import pytest
from typer.testing import CliRunner, Result

from sched_cli import main as _commands  # noqa: F401 -- puts them into the application
from sched_cli.application import actor_of, app
from sched_cli.records import _print_part
from sched_cli.text import progress_text
from sched_core import (
    Execution,
    Followed,
    Interval,
    JobEvent,
    Kind,
    Policy,
    Progress,
    Retry,
    Scheduler,
    Status,
)
from sched_sql import SqlBackend

T = TypeVar("T")


def sched(*words: str, code: int = 0) -> Result:
    result = CliRunner().invoke(app, words)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == code, result.output
    return result


def parsed(*words: str, code: int = 0) -> Any:
    return json.loads(sched(*words, "--json", code=code).stdout)


def until(look: Callable[[], T]) -> T:
    deadline = time.monotonic() + 60
    while not (found := look()):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return found


async def handle(event: JobEvent) -> None:
    event.log(f"args {dict(event.args or {})}")
    if event.id.startswith("long"):
        event.progress(30, 100, "reading")
        await anyio.sleep(600)
    if event.id.startswith("bad"):
        raise ValueError("on purpose")


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in [name for name in os.environ if name.startswith("SCHED")]:
        monkeypatch.delenv(name)
    path = tmp_path / "jobs.db"
    monkeypatch.setenv("SCHEDULER_MODE", "sql")
    monkeypatch.setenv("SCHEDULER_SQL_URL", str(path))
    monkeypatch.setenv("COLUMNS", "300")
    monkeypatch.chdir(tmp_path)
    return path


def on(path: Path, do: Callable[[Scheduler], Awaitable[T]]) -> T:
    async def main() -> T:
        async with Scheduler(SqlBackend(path), handler=handle) as scheduler:
            return await do(scheduler)

    return anyio.run(main)


@pytest.fixture
def store(path: Path) -> Path:
    """A store with jobs of two groups and two queues, of which nothing has run."""

    async def fill(scheduler: Scheduler) -> None:
        retry = Policy(retry=Retry(attempts=5, backoff=timedelta(hours=1)))
        for name, queue in (("long", "default"), ("bad", "default"), ("bulk-1", "bulk")):
            await scheduler.ensure_job(name, Interval(hours=10), queue=queue, group="shop")
        await scheduler.ensure_job("bulk-2", Interval(hours=10), queue="bulk")
        await scheduler.ensure_job("bad-retried", Interval(hours=10), policy=retry)

    on(path, fill)
    return path


@pytest.fixture
def worker(store: Path) -> Iterator[Path]:
    """The store, on which a worker runs that serves its two queues."""
    stops = list[Callable[[], None]]()
    begun = threading.Event()

    async def main() -> None:
        queues = {"default": 5, "bulk": 2}
        async with Scheduler(
            SqlBackend(store), handler=handle, worker="w", queues=queues
        ) as scheduler:
            stopped = anyio.Event()
            loop: Any = anyio.lowlevel.current_token().native_token
            stops.append(lambda: loop.call_soon_threadsafe(stopped.set))
            async with anyio.create_task_group() as group:
                group.start_soon(lambda: scheduler.run_forever(signals=False))
                await scheduler.wait_until_running()
                begun.set()
                await stopped.wait()
                await scheduler.stop(0)

    thread = threading.Thread(target=anyio.run, args=(main,))
    thread.start()
    try:
        assert begun.wait(60)
        yield store
    finally:
        stops[0]()
        thread.join(60)
        assert not thread.is_alive()


def asked(words: list[str], answer: str, before: Callable[[], object] = lambda: None) -> Any:
    """Run a command on a terminal; answer its question. Return the exit code and what it showed."""
    master, slave = pty.openpty()
    command = [sys.executable, "-m", "sched_cli", *words]
    with subprocess.Popen(command, stdin=slave, stdout=slave, stderr=slave) as process:
        os.close(slave)
        seen = ""
        while "[y/N]" not in seen:
            seen += os.read(master, 1000).decode()
        before()
        os.write(master, f"{answer}\n".encode())
        code = process.wait(timeout=60)
        try:
            while part := os.read(master, 1000):
                seen += part.decode()
        except OSError:  # its last program has left the terminal
            pass
    os.close(master)
    return code, seen


# -- what runs ---------------------------------------------------------------


def test_a_run_is_shown_and_cancelled(worker: Path) -> None:
    assert sched("running").stdout == "nothing runs\n"
    key = parsed("trigger", "long", "--arg", "day=1", "--actor", "me")["key"]
    (run,) = until(lambda: parsed("running"))
    assert (run["job_id"], run["key"], run["attempt"], run["kind"]) == ("long", key, 1, "triggered")
    assert run["worker"].startswith("w-")
    assert 0 < run["lease_left"] < 600
    shown = sched("running").stdout
    assert key in shown
    assert "long" in shown
    assert parsed("running", "--queue", "bulk") == []
    assert parsed("running", "--worker", "x") == []
    assert len(parsed("running", "--worker", "w-")) == 1

    one = until(lambda: [each for each in parsed("workers") if each["executing"]])[0]
    assert (one["name"], one["alive"], one["stopping"]) == (run["worker"], True, False)
    assert (one["host"], one["pid"]) == (platform.node(), os.getpid())
    assert (one["queues"], one["max_concurrency"]) == ({"default": 5, "bulk": 2}, 7)
    shown = sched("workers").stdout
    for text in ("alive", "1/7", "default=5, bulk=2", "ago"):
        assert text in shown

    job = parsed("show", "long")
    assert (job["running"], job["queue"], job["no_route_since"]) == (key, "default", None)
    assert [each["key"] for each in job["runs"]] == [key]
    (request,) = job["requests"]
    assert (request["actor"], request["args"]) == ("me", {"day": "1"})
    shown = sched("show", "long").stdout
    assert f"attempt 1, on {run['worker']}" in shown
    assert "triggered by me (day=1)" in shown
    assert "running" in sched("history", "long").stdout
    assert parsed("history", "long") == [], "a run is no record of the history"
    running = [line.split() for line in sched("jobs").stdout.splitlines() if "running" in line]
    assert [line[0] for line in running] == ["long"]
    assert parsed("counts")["running"] == 1

    assert "there is no terminal" in sched("cancel", "--job", "long", code=2).stderr
    cancelled = parsed("cancel", "--job", "long", "--yes", "--reason", "enough", "--actor", "you")
    assert cancelled == {"key": key}
    (ended,) = until(lambda: parsed("history", "long"))
    assert (ended["status"], ended["actor"], ended["args"]) == ("cancelled", "you", {"day": "1"})
    assert ended["reason"] == "enough"
    assert ended["progress"]["text"] == "reading"
    for words in (["--job", "long", "--yes"], [key]):
        assert sched("cancel", *words, code=1).stderr.startswith("sched: ")


def test_a_slow_finger_does_not_hit_the_next_run(worker: Path) -> None:
    first = parsed("trigger", "long")["key"]
    until(lambda: parsed("running"))

    def meanwhile() -> None:
        parsed("cancel", first)
        until(lambda: parsed("history", "long"))
        parsed("trigger", "long")
        until(lambda: parsed("running"))

    code, seen = asked(["cancel", "--job", "long"], "y", meanwhile)
    assert (code, f"Cancel run {first} of 'long', since " in seen) == (1, True), seen
    assert "it has ended" in seen
    (run,) = parsed("running")
    assert run["key"] != first
    parsed("cancel", run["key"])
    until(lambda: not parsed("running"))


def test_the_runs_of_many_jobs_are_cancelled_by_their_keys(worker: Path) -> None:
    assert parsed("cancel", "--all", "--yes")["done"] == []
    key = parsed("trigger", "long")["key"]
    until(lambda: parsed("running"))
    assert parsed("cancel", "--queue", "bulk", "--yes")["done"] == []
    found = parsed("cancel", "--group", "shop", "--yes")
    assert (found["done"], found["failed"]) == ([{"id": "long", "key": key}], [])
    until(lambda: not parsed("running"))


# -- again -------------------------------------------------------------------


def test_a_failure_is_read_and_repeated(store: Path) -> None:
    parsed("trigger", "bad", "--arg", "day=1")
    on(store, lambda scheduler: scheduler.run_due())
    (failed,) = parsed("history", "bad")
    assert failed["actor"] == f"{getpass.getuser()}@{platform.node()}"
    assert "traceback" not in failed
    whole = parsed("execution", failed["id"])
    assert whole["log"] == "args {'day': '1'}"
    assert "ValueError: on purpose" in whole["traceback"]
    shown = sched("execution", failed["id"]).stdout
    assert "traceback:\n  Traceback" in shown
    assert "log:\n  args {'day': '1'}\n" in shown
    assert "actor" in shown
    assert sched("execution", "x:1:1", code=1).stderr.startswith("sched: no execution 'x:1:1'")

    key = parsed("rerun", failed["id"], "--actor", "me")["key"]
    (request,) = parsed("show", "bad")["requests"]
    assert (request["key"], request["kind"], request["actor"]) == (key, "rerun", "me")
    assert request["args"] == {"day": "1"}
    on(store, lambda scheduler: scheduler.run_due())

    (wanted,) = parsed("rerun", "--failed", "--dry-run")
    assert (wanted["id"], wanted["key"], wanted["moments"]) == ("bad", None, 1)
    assert "bad: would run 1 moment of " in sched("rerun", "--failed", "--dry-run").stdout
    assert "no terminal" in sched("rerun", "--failed", code=2).stderr
    assert sched("rerun", "--failed", "--since", "0s", "--yes").stdout == "nothing has failed\n"
    assert parsed("rerun", "--failed", "--job", "long", "--yes") == []
    assert sched("rerun", "--failed", "--job", "typo", "--yes", code=1).stderr == (
        "sched: no job 'typo' is stored\n"
    )
    code, seen = asked(["rerun", "--failed", "--since", "2d"], "n")
    assert (code, "Run 1 moment of 1 job again?" in seen) == (1, True), seen
    assert parsed("show", "bad")["requests"] == []
    (done,) = parsed("rerun", "--failed", "--yes")
    assert done["key"] == parsed("show", "bad")["requests"][0]["key"]


def test_a_range_is_run_again(path: Path) -> None:
    hour = timedelta(hours=1)
    midnight = datetime(2026, 11, 1, tzinfo=UTC)

    async def fill(scheduler: Scheduler) -> None:
        await scheduler.ensure_job("hourly", Interval(hour, start=midnight))

    on(path, fill)
    words = ["backfill", "hourly", "2026-11-01T00:00Z", "2026-11-01T03:00Z"]
    assert "hourly: would run 4 moments from " in sched(*words, "--dry-run").stdout
    assert parsed("show", "hourly")["requests"] == []
    assert sched(*words, "--only", "missed").stdout == "nothing in the range was missed\n"
    assert sched(*words, "--only", "failed").stdout == "nothing in the range has failed\n"
    (asked_for,) = parsed(*words, "--actor", "me")
    assert asked_for["moments"] == 4
    assert asked_for["first"] == "2026-11-01T00:00:00Z"
    (request,) = parsed("show", "hourly")["requests"]
    assert (request["key"], request["actor"]) == (asked_for["key"], "me")
    assert parsed("cancel", asked_for["key"]) == {"key": asked_for["key"]}
    assert sched("backfill", "typo", "2d", "1d", code=1).stderr.startswith("sched: no job 'typo'")
    assert sched("backfill", "hourly", "1d", "2d", code=2).stderr.startswith("sched: start: ")


def test_a_retry_is_hurried(store: Path) -> None:
    key = parsed("trigger", "bad-retried")["key"]
    on(store, lambda scheduler: scheduler.run_due())
    on(store, lambda scheduler: scheduler.run_due())
    assert len(parsed("history", "bad-retried")) == 1
    for words in ([key], ["--job", "bad-retried"]):
        assert sched("retry", *words).stdout.startswith("bad-retried: active")
        on(store, lambda scheduler: scheduler.run_due())
    assert [each["attempt"] for each in parsed("history", "bad-retried")] == [3, 2, 1]
    assert sched("retry", "--job", "long", code=1).stderr.startswith("sched: nothing of job 'long'")


# -- many --------------------------------------------------------------------


def test_many_jobs_are_paused_and_resumed(store: Path) -> None:
    sched("pause", "long", "--reason", "disk full", "--actor", "me")
    assert "there is no terminal" in sched("pause", "--all", code=2).stderr
    for answer, code in (("n", 1), ("y", 0)):
        found = asked(["pause", "--group", "shop", "--reason", "release"], answer)
        assert (found[0], "Pause 2 jobs? [y/N]" in found[1]) == (code, True), found
        paused = {job["id"] for job in parsed("jobs", "--state", "paused")}
        assert paused == ({"long"} if code else {"long", "bad", "bulk-1"})
    assert "paused 2 jobs, left 1 as they were" in found[1]
    assert parsed("show", "long")["pause_reason"] == "disk full"
    assert parsed("show", "long")["pause_actor"] == "me"
    shown = sched("show", "long").stdout
    assert "paused by" in shown

    refused = sched("resume", "long", "--reason", "release", code=1).stderr
    assert refused == "sched: 'long' stays paused: its reason is 'disk full'\n"
    found = parsed("resume", "--all", "--reason", "release", "--yes")
    assert found == {
        "done": [{"id": "bad"}, {"id": "bulk-1"}],
        "left": 3,
        "failed": [],
        "unreadable": [],
    }
    assert [job["id"] for job in parsed("jobs", "--state", "paused")] == ["long"]
    assert sched("resume", "--state", "paused", "--yes").stdout == "resumed 1 job\n"


def test_what_was_paused_while_the_question_was_open_keeps_its_reason(store: Path) -> None:
    words = ["pause", "--queue", "bulk", "--reason", "release"]
    code, seen = asked(words, "y", lambda: sched("pause", "bulk-1", "--reason", "disk full"))
    assert (code, "paused 1 job, left 1 as they were" in seen) == (0, True), seen
    reasons = {job["id"]: job["pause_reason"] for job in parsed("jobs", "--queue", "bulk")}
    assert reasons == {"bulk-1": "disk full", "bulk-2": "release"}


def test_many_jobs_are_triggered_skipped_and_removed(store: Path) -> None:
    found = parsed("trigger", "--queue", "bulk", "--yes")
    assert [each["id"] for each in found["done"]] == ["bulk-1", "bulk-2"]
    assert all(each["key"].endswith(":2") for each in found["done"])
    found = parsed("skip", "--prefix", "bulk-", "--yes")
    jobs = {job["id"]: job for job in parsed("jobs", "--queue", "bulk")}
    assert {each["id"]: each["skips"] for each in found["done"]} == {
        job_id: job["next_run"] for job_id, job in jobs.items()
    }
    assert jobs["bulk-1"]["skip_actor"] == f"{getpass.getuser()}@{platform.node()}"
    assert len(parsed("skip", "--all", "--undo", "--yes")["done"]) == 2
    for number in range(15):
        parsed("trigger", "bulk-1", "--request-key", f"r{number}")
    failed = parsed("trigger", "--queue", "bulk", "--request-key", "one-more", "--yes", code=1)
    assert [each["id"] for each in failed["done"]] == ["bulk-2"]
    assert [each["id"] for each in failed["failed"]] == ["bulk-1"]
    assert sched("remove", "--queue", "bulk", "--cancel", "--yes").stdout == "removed 2 jobs\n"
    assert parsed("jobs", "--queue", "bulk") == []
    assert sched("remove", "--queue", "bulk", "--yes").stdout == "removed 0 jobs\n"
    later = parsed("show", "long")["upcoming"][2]
    assert parsed("skip", "long", "--at", later)["skips"] == later


def test_jobs_move_to_another_queue(store: Path) -> None:
    code, seen = asked(["requeue", "bulk", "heavy"], "y")
    assert (code, "Move to queue 'heavy' 2 jobs" in seen) == (0, True), seen
    assert [job["id"] for job in parsed("jobs", "--queue", "heavy")] == ["bulk-1", "bulk-2"]
    assert parsed("requeue", "bulk", "heavy", "--yes")["done"] == []
    header, first = sched("jobs").stdout.splitlines()[:2]
    assert header.split()[-1] == "queue", "where there are several"
    assert first.split()[-1] == "default"


# -- counts, and the history as it grows -------------------------------------


def test_what_there_is_is_counted(store: Path) -> None:
    parsed("trigger", "bad")
    on(store, lambda scheduler: scheduler.run_due())
    parsed("trigger", "bulk-1")
    found = parsed("counts", "--by", "error")
    assert found["jobs"]["active"] == 5
    assert found["executions"] == {"failed": 1}
    assert found["groups"] == {"ValueError": {"failed": 1}}
    assert (found["due"], found["overdue"], found["running"]) == (1, 0, 0)
    assert found["queues"]["bulk"]["due"] == 1
    assert list(found["unserved"]) == ["bulk"]
    assert list(parsed("counts", "--by", "job")["groups"]) == ["bad"]
    shown = sched("counts", "--by", "error", "--since", "2h").stdout
    for text in ("5 active", "due: 1, the oldest", "queue 'bulk': no live worker", "1 failed"):
        assert text in shown
    assert parsed("counts", "--since", "0s")["executions"] == {}


def test_the_history_is_followed(store: Path) -> None:
    parsed("trigger", "bad")
    on(store, lambda scheduler: scheduler.run_due())

    def watched(*words: str, lines: int) -> list[dict[str, Any]]:
        command = [sys.executable, "-m", "sched_cli", "watch", *words]
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        ) as process:
            assert process.stdout is not None
            assert process.stderr is not None
            found = [process.stdout.readline() for _ in range(lines)]
            process.send_signal(signal.SIGINT)
            assert process.wait(timeout=60) == 130
            said = process.stderr.read()
            assert "sched: interrupted\n" in said
            assert "Traceback" not in said
            assert ("sched watch --after" in said) is ("--json" not in words)
        return [json.loads(line) if "--json" in words else {"text": line} for line in found]

    (first,) = watched("--after", "", "--json", lines=1)
    assert (first["job_id"], first["status"]) == ("bad", "failed")
    parsed("trigger", "bulk-1")
    on(store, lambda scheduler: scheduler.run_due())
    (second,) = watched("--after", first["cursor"], "--json", lines=1)
    assert (second["job_id"], second["status"]) == ("bulk-1", "succeeded")
    (line,) = watched("--after", first["cursor"], lines=1)
    assert "bulk-1  succeeded" in line["text"]
    assert sched("watch", "--after", "nonsense", code=2).stderr.startswith("sched: after: ")


def test_a_cursor_loses_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    """Whoever goes on from the cursor of any line gets what came after that line."""
    at = datetime(2026, 11, 30, tzinfo=UTC)

    def execution(number: int) -> Execution:
        return Execution(
            f"u:{number}:1", "j", "u", number, 1, Kind.SCHEDULED, at, Status.SUCCEEDED, True, 1,
            "w", at, at, at,
        )  # fmt: skip

    _print_part(Followed([execution(1), execution(2), execution(3)], "new"), "old")
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["cursor"] for line in lines] == ["old", "old", "new"]


# -- who ---------------------------------------------------------------------


def test_who_does_something(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCHED_ACTOR", "deploy")
    sched("pause", "long")
    assert parsed("show", "long")["pause_actor"] == "deploy"
    sched("pause", "long", "--actor", "me")
    assert parsed("show", "long")["pause_actor"] == "me"
    assert sched("pause", "long", "--actor", "", code=2).stderr.startswith("sched: actor: ")
    assert "must not be empty" in sched("pause", "--all", "--yes", "--actor", "", code=2).stderr

    def nameless() -> str:
        raise OSError("no username")

    monkeypatch.setattr(getpass, "getuser", nameless)
    assert actor_of(None) == f"{os.getuid()}@{platform.node()}"


def test_progress_is_a_few_words() -> None:
    assert progress_text(None) == ""
    assert progress_text(Progress(30, 120, "reading")) == "30/120 (25%) reading"
    assert progress_text(Progress(0.5)) == "0.5"
    assert progress_text(Progress(3, 0)) == "3/0"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["pause"], "ID: give one, or choose jobs by --group"),
        (["pause", "x", "--all"], "ID: give either it, or options that choose jobs"),
        (["remove", "--prefix", "", "--yes"], "--prefix: must not be empty; --all takes all jobs"),
        (["trigger", "--all", "--group", "g", "--yes"], "--all: takes all jobs"),
        (["trigger", "x", "--arg", "day"], "--arg: must be like KEY=VALUE"),
        (["skip", "x", "--undo", "--at", "2h"], "--at: says what to skip"),
        (["cancel"], "KEY or --job: give one"),
        (["cancel", "k:1", "--job", "x"], "--job: give either it or KEY"),
        (["cancel", "k"], "key: must be an idempotency key"),
        (["retry"], "KEY: give either it or --job"),
        (["rerun"], "EXECUTION: give either it or --failed"),
        (["rerun", "u:1:1", "--since", "2h"], "--since: is for --failed"),
        (["rerun", "u"], "execution_id: must be the id of an execution"),
        (["backfill", "long", "soon", "0s"], "START: must be a moment such as"),
        (["backfill", "long", "2d", "0s", "--only", "late"], "Invalid value"),
        (["requeue", "a", "*", "--yes"], "queue: must be a queue's own name"),
        (["requeue", "a", "a", "--yes"], "NEW: must be another queue than 'a'"),
        (["counts", "--by", "day"], "Invalid value"),
        (["counts", "--since", "soon"], "--since: must be a moment such as"),
        (["pause", "--all", "--yes", "--until", "2000-01-01"], "until: must be after"),
    ],
)
def test_wrong_input_exits_with_2(store: Path, words: list[str], message: str) -> None:
    result = sched(*words, code=2)
    assert message in result.stderr
    assert result.stderr.count("\n") == 1
    assert result.stdout == ""
