"""``sched health`` and ``sched doctor``: what is wrong now, and what only was."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import pytest
from attrs import evolve
from tests import postgres_server
from tests.nats_shared import delete_streams, shared_server
from typer.testing import CliRunner

from sched_cli import main as _commands  # noqa: F401 -- puts them into the application
from sched_cli.application import app
from sched_cli.fleet import no_route_since
from sched_cli.health import waits_since
from sched_core import (
    Interval,
    Job,
    JobEvent,
    JobSpec,
    Once,
    Pending,
    Policy,
    Retry,
    Room,
    Scheduler,
    Standing,
    SystemClock,
    WorkerState,
    open_scheduler,
)
from sched_core.config import open_backend, read_config
from sched_core.ports import Backend
from sched_core.testing import FakeClock
from sched_sql import SqlBackend, SqliteBackend

AGO = timedelta(minutes=2)


def sched(*words: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, words)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.output


def asked(url: str, word: str) -> tuple[int, dict[str, Any]]:
    code, output = sched("--url", url, word, "--json")
    return code, json.loads(output)


async def nothing(event: JobEvent) -> None:
    return


async def make(backend: Backend, at: datetime | None = None) -> None:
    async with Scheduler(backend) as scheduler:
        await scheduler.ensure_job("hourly", Interval(hours=1))
        if at is not None:
            await scheduler.submit_job("late", Once(at))


@pytest.fixture(params=["sqlite", "postgres", "jetstream"])
def address(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path}/jobs.db"
    elif request.param == "postgres":
        server = postgres_server.shared()
        server.admin("DROP DATABASE IF EXISTS probed")
        server.make_database("probed")
        yield server.address().rpartition("/")[0] + "/probed"
    else:
        url = shared_server().url
        delete_streams(url, "KV_jobs", "KV_executions")
        yield url
        delete_streams(url, "KV_jobs", "KV_executions")


def backend_at(url: str) -> Backend:
    mode = "jetstream" if url.startswith("nats") else "sql"
    return open_backend(read_config({"mode": mode, mode: {"url": url}}, environ={}))


@pytest.mark.parametrize("scope", [{}, {"queue": "default"}, {"group": "mail"}])
def test_what_waits_for_the_end_of_maintenance_is_no_reason_to_restart(
    tmp_path: Path, scope: dict[str, Any]
) -> None:
    """What is not under maintenance, and overdue, is a problem as ever."""
    url = f"sqlite:///{tmp_path}/jobs.db"

    async def late(job_id: str, queue: str, group: str | None) -> None:
        async with Scheduler(backend_at(url)) as scheduler:
            at = Once(datetime.now(UTC) - AGO)
            await scheduler.submit_job(job_id, at, queue=queue, group=group)
            if job_id == "covered":
                await scheduler.start_maintenance(**scope, reason="new disk", actor="ann")

    anyio.run(late, "covered", "default", "mail")
    code, found = asked(url, "health")
    assert (code, found["problems"], found["due_since"]) == (0, [], None)
    (told,) = found["maintenance"]
    assert told.endswith("by ann: new disk")
    code, output = sched("--url", url, "health")
    assert (code, f"maintenance: {told}" in output) == (0, True)
    code, found = asked(url, "doctor")
    assert [text for text in found["problems"] if "'covered'" in text] == []
    assert (code == 0) is ("group" not in scope), "a queue that no worker serves is told of"
    assert f"maintenance: {told}" in found["notices"]
    if scope:
        anyio.run(late, "other", "bulk", None)
        for word in ("health", "doctor"):
            code, found = asked(url, word)
            assert code == 1
            assert "has been due since" in found["problems"][0]


def test_an_overdue_job_that_no_worker_runs_is_unhealthy(address: str) -> None:
    code, output = sched("--url", address, "health")
    assert (code, output.count("\n")) == (2, 1), "there is no store, and none is made"
    anyio.run(make, backend_at(address))
    code, found = asked(address, "health")
    assert (code, found["ok"], found["problems"], found["due_since"]) == (0, True, [], None)
    anyio.run(make, backend_at(address), datetime.now(UTC) - AGO)
    code, found = asked(address, "health")
    assert (code, found["ok"]) == (1, False)
    assert found["due_since"] is not None
    assert "a job has been due since" in found["problems"][0]

    async def held() -> None:
        """A long run is no reason to restart a container."""
        backend = backend_at(address)
        await backend.open(SystemClock(), worker="holds")
        try:
            claims = (await backend.claim_due(Room(5))).claims
            while not claims:  # where hints tell what is due
                await backend.wait_due(Room(5))
                claims = (await backend.claim_due(Room(5))).claims
            await anyio.to_thread.run_sync(probe_meanwhile)
        finally:
            await backend.close()

    def probe_meanwhile() -> None:
        code, found = asked(address, "health")
        assert (code, found["problems"]) == (0, [])
        if address.startswith("sqlite"):
            assert found["workers"] == ["holds"]

    anyio.run(held)


def test_an_unreachable_store_is_unhealthy(tmp_path: Path) -> None:
    code, output = sched("--url", "postgresql://u:hunter2@127.0.0.1:1/jobs", "health")
    assert code == 1
    assert output.startswith("sched: PostgreSQL at 127.0.0.1:1")
    assert "hunter2" not in output


def filled(tmp_path: Path, *, then: Callable[[int], bool]) -> str:
    runs = 0

    async def sometimes(event: JobEvent) -> None:
        nonlocal runs
        runs += 1
        if not then(runs):
            raise ConnectionError("no answer")

    async def run() -> None:
        async with Scheduler(SqlBackend(tmp_path / "jobs.db"), handler=sometimes) as scheduler:
            await scheduler.submit_job("hourly", Interval(hours=1))
            for _ in range(3):
                await scheduler.trigger_job("hourly")
                await scheduler.run_due()

    anyio.run(run)
    return str(tmp_path / "jobs.db")


def test_a_failure_that_is_over_is_a_notice(tmp_path: Path) -> None:
    url = filled(tmp_path, then=lambda run: run != 1)
    code, found = asked(url, "doctor")
    assert (code, found["problems"]) == (0, [])
    assert found["notices"] == ["job 'hourly' failed once in the last day, and has succeeded since"]
    assert "notice: job 'hourly' failed once" in sched("--url", url, "doctor")[1]
    assert asked(url, "health")[0] == 0


def test_a_failure_that_is_not_over_is_a_problem_and_no_matter_of_a_probe(tmp_path: Path) -> None:
    url = filled(tmp_path, then=lambda run: run != 3)
    code, found = asked(url, "doctor")
    assert (code, found["problems"]) == (1, ["job 'hourly' failed once in the last day"])
    assert asked(url, "health")[0] == 0


@pytest.mark.parametrize("fails", [False, True])
def test_what_a_clock_far_ahead_has_left_behind_is_a_problem(tmp_path: Path, fails: bool) -> None:
    async def handler(event: JobEvent) -> None:
        if fails:
            raise ValueError("no")

    async def main() -> None:
        clock = FakeClock(datetime.now(UTC))
        policy, backend = Policy(retry=Retry(attempts=2)), SqlBackend(tmp_path / "jobs.db")
        async with Scheduler(backend, handler=handler, clock=clock) as scheduler:
            await scheduler.ensure_job("hourly", Interval(hours=1), policy=policy)
            clock.jump(timedelta(days=3650))
            await scheduler.run_due()

    anyio.run(main)
    code, found = asked(str(tmp_path / "jobs.db"), "doctor")
    assert code == 1
    (problem,) = found["problems"]
    assert problem.startswith(
        "job 'hourly': its next moment is" if not fails else "job 'hourly': it has a retry"
    )


def test_the_address_on_the_command_line_wins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    anyio.run(make, SqlBackend("mine.db"))
    (tmp_path / "scheduler.toml").write_text(
        '[scheduler]\nmode = "gorm"\n[scheduler.gorm]\ndatabase = "theirs.db"\ntimeout = "3s"\n'
    )
    monkeypatch.setenv("SCHEDULER_SQL_DATABASE", "others.db")
    assert "there is no database at" in sched("jobs")[1]
    code, found = asked("mine.db", "doctor")
    assert code == 0
    assert found["config"] == "--url and scheduler.toml"
    assert found["jobs"] == {"active": 1}
    assert "scheduler.gorm.url (from --url): " in sched("--url", "mysql://h/d", "jobs")[1]
    (tmp_path / "scheduler.toml").write_text('[scheduler]\nmode = "memory"\n')
    assert "no other process sees them" in sched("jobs")[1]
    assert sched("--url", "mine.db", "jobs")[0] == 0
    assert [each.name for each in tmp_path.glob("*.db")] == ["mine.db"]
    (tmp_path / "own.py").write_text(
        "from sched_core import MemoryBackend, Scheduler\nscheduler = Scheduler(MemoryBackend())\n"
    )
    code, output = sched("--url", "mine.db", "run", "own:scheduler")
    assert (code, output) == (
        2,
        "sched: --url: is for handlers, and own:scheduler brings its own store\n",
    )


def test_a_million_records_would_not_be_read(tmp_path: Path) -> None:
    """Whatever is asked of the store, it is nothing of the history."""
    path = tmp_path / "jobs.db"
    filled(tmp_path, then=lambda run: True)

    async def look() -> None:
        from sched_cli.health import probe

        async with open_scheduler({"mode": "sql", "sql": {"url": str(path)}}, environ={}) as opened:
            statements: list[str] = []
            backend = opened.backend
            assert isinstance(backend, SqliteBackend)
            connection = backend._table._database.connection
            connection.set_trace_callback(statements.append)
            found = await probe(opened, own="sched-cli")
            assert found.problems == []
            assert statements
            assert [each for each in statements if "sched_execution" in each] == []

    anyio.run(look)


def reported(path: Path, *workers: WorkerState) -> tuple[dict[str, Any], ...]:
    """Return what health and doctor find beside workers, with a job that is overdue."""
    backends = [SqliteBackend(path) for _ in workers]
    found = list[dict[str, Any]]()

    async def main() -> None:
        await make(SqliteBackend(path), datetime.now(UTC) - AGO)
        for backend, state in zip(backends, workers, strict=True):
            await backend.open(SystemClock(), worker=state.name)
            await backend.report(state)
        try:
            for word in ("health", "doctor"):
                ask = partial(asked, str(path), word)
                code, one = await anyio.to_thread.run_sync(ask)
                assert code == 1
                found.append(one)
        finally:
            for backend in backends:
                await backend.close()

    anyio.run(main)
    return tuple(found)


def state(name: str, *, seen: timedelta = timedelta(0), **more: Any) -> WorkerState:
    now = datetime.now(UTC)
    return WorkerState(name, now, now - seen, **more)


def test_a_queue_that_no_live_worker_serves_is_named(tmp_path: Path) -> None:
    dead = state("dead", seen=timedelta(minutes=2))
    elsewhere = state("elsewhere", queues={"other": 1})
    for found in reported(tmp_path / "jobs.db", dead, elsewhere):
        assert any("queue 'default': no live worker" in each for each in found["problems"]), found


def test_a_job_that_no_live_worker_has_a_function_for_is_named(tmp_path: Path) -> None:
    unrouted = {"late": datetime.now(UTC) - AGO}
    first, second = state("a", unrouted=unrouted), state("b", unrouted=unrouted)
    for found in reported(tmp_path / "jobs.db", first, second):
        (problem,) = [each for each in found["problems"] if "has a function for it" in each]
        assert problem.startswith("job 'late' has been due since ")
        assert not any("queue" in each for each in found["problems"])
    knows = state("c")
    for found in reported(tmp_path / "more.db", first, knows):
        assert found["problems"]
        assert not any("function" in each for each in found["problems"])


def test_a_job_whose_workers_die_is_judged_by_when_it_first_began() -> None:
    at = datetime(2026, 11, 30, tzinfo=UTC)
    one = Pending(1, at, at + 3 * AGO, lost=2, began_at=at + timedelta(seconds=1))
    job = Job(JobSpec("j", Once(at)), "u", False, at, Standing(1, one, one.due_at))
    assert waits_since(job) == one.began_at
    kept = evolve(job.standing, scheduled=evolve(one, lost=0))
    assert waits_since(evolve(job, standing=kept)) == one.due_at, "a retry may wait"


def test_who_has_no_function() -> None:
    at = datetime(2026, 11, 30, tzinfo=UTC)
    due = Job(JobSpec("j", Once(at)), "u", False, at, Standing(1, Pending(1, at, at), at))
    now = at + AGO
    lacks = WorkerState("a", at, now, unrouted={"j": at})
    assert no_route_since(due, [lacks], now) == at
    assert no_route_since(evolve(due, held=1), [lacks], now) is None
    assert no_route_since(due, [lacks], at - AGO) is None
    assert no_route_since(due, [], now) is None
    assert no_route_since(due, [evolve(lacks, seen_at=at)], now) is None, "it is dead"
    assert no_route_since(due, [evolve(lacks, queues={"other": 1})], now) is None
    many = evolve(lacks, unrouted={f"j{number}": at for number in range(100)})
    assert no_route_since(due, [lacks, many], now) == at, "a worker does not tell of all"
    assert no_route_since(due, [lacks, evolve(lacks, unrouted={})], now) is None
