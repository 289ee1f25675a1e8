"""Two processes on one file: each one-shot once, and a process that was asleep changes nothing."""

from __future__ import annotations

import signal
import time
from collections import Counter
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import anyio
from tests.crash.harness import Service, alive, now, send, service

from sched_core import BackendError, JobSpec, Once, Scheduler, Status
from sched_sql import SqlBackend

ONE_SHOTS = 5_000


def wait(what: Callable[[], Any], *, within: float = 60) -> Any:
    deadline = time.monotonic() + within
    while not (answer := what()):
        assert time.monotonic() < deadline, "did not come true in time"
        time.sleep(0.02)
    return answer


def submit(host: Service, *jobs: JobSpec) -> None:
    async def main() -> None:
        async with Scheduler(SqlBackend(host.database)) as scheduler:
            await scheduler.submit_jobs(jobs)

    anyio.run(main)


def test_each_one_shot_is_executed_once(tmp_path: Path) -> None:
    with service(tmp_path) as host:
        first = host.start("plain")
        second = host.start("plain")
        at = now() + timedelta(seconds=1.5)
        submit(host, *(JobSpec(f"job-{n}", Once(at)) for n in range(ONE_SHOTS)))
        wait(lambda: len(host.starts()) >= ONE_SHOTS)
        assert host.end(first, signal.SIGTERM) == 0, host.log.read_text()
        assert host.end(second, signal.SIGTERM) == 0, host.log.read_text()

        starts, executions = host.starts(), host.history()
        expected = {f"job-{n}" for n in range(ONE_SHOTS)}
        assert Counter(entry["id"] for entry in starts) == Counter(expected)
        assert Counter(each.job_id for each in executions) == Counter(expected)
        assert {(each.status, each.attempt, each.final) for each in executions} == {
            (Status.SUCCEEDED, 1, True)
        }
        shares = Counter(entry["pid"] for entry in starts)
        assert set(shares) == {first.pid, second.pid}, f"one did everything: {shares}"
        assert len({each.worker for each in executions}) == 2
        assert all(each.started_at is not None and each.started_at >= at for each in executions)
        tokens = [each.token for each in executions]
        assert len(set(tokens)) == len(tokens)
        assert host.integrity() == "ok"


def test_a_process_that_slept_past_its_lease_is_refused(tmp_path: Path) -> None:
    with service(tmp_path) as host:
        sleeper = host.start("plain", "--lease", "1")
        metadata = {"kind": "sleep", "seconds": "0.8"}
        submit(host, JobSpec("job", Once(now()), metadata=metadata))
        (start,) = wait(host.starts)
        assert (start["pid"], start["attempt"]) == (sleeper.pid, 1)
        stop_between_transactions(host, sleeper)
        assert [entry["what"] for entry in host.entries()] == ["start"]

        successor = host.start("plain", "--lease", "1")
        executions = wait(
            lambda: [each for each in host.history() if each.final] and host.history()
        )
        assert [(each.status, each.attempt) for each in executions] == [
            (Status.ABANDONED, 1),
            (Status.SUCCEEDED, 2),
        ]
        assert executions[0].token == start["token"] < executions[1].token
        assert [(entry["what"], entry["pid"]) for entry in host.entries()] == [
            ("start", sleeper.pid),
            ("start", successor.pid),
            ("end", successor.pid),
        ]

        send(sleeper, signal.SIGCONT)
        wait(lambda: len(host.entries()) == 4)  # its handler ends or is cancelled
        time.sleep(1)
        assert host.history() == executions
        assert alive(sleeper)

        # It is well: alone, it runs what comes next.
        assert host.end(successor, signal.SIGTERM) == 0
        submit(host, JobSpec("next", Once(now())))
        wait(lambda: len(host.starts()) == 3)
        assert host.starts()[-1]["pid"] == sleeper.pid
        assert host.end(sleeper, signal.SIGTERM) == 0, host.log.read_text()
        (each,) = [each for each in host.history() if each.job_id == "next"]
        assert (each.status, each.attempt) == (Status.SUCCEEDED, 1)


def stop_between_transactions(host: Service, process: Any) -> None:
    """Stop a process where it does not hold the file's lock: others could do nothing at all."""

    async def free() -> bool:
        backend = SqlBackend(host.database, timeout=timedelta(milliseconds=100))
        try:
            async with Scheduler(backend):
                return True
        except BackendError:
            return False

    for _ in range(20):
        send(process, signal.SIGSTOP)
        time.sleep(0.05)
        if anyio.run(free):
            return
        send(process, signal.SIGCONT)
        time.sleep(0.01)
    raise AssertionError("the lock is always held")
