"""Two replicas with one notifier, and its receiver, are killed: no notice is lost."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import anyio
import pytest
from tests.core.notified import Receiver, receiver

from sched_core import Execution, Scheduler, Status
from sched_core.testing import history
from sched_sql import SqlBackend

SERVICE = Path(__file__).with_name("notifying.py")


class Replicas:
    """Processes of the service on one file."""

    def __init__(self, folder: Path, url: str) -> None:
        self.database, self.log = folder / "jobs.db", folder / "log.txt"
        self._url = url
        self.processes: list[subprocess.Popen[bytes]] = []

    def start(self) -> None:
        command = [sys.executable, str(SERVICE), str(self.database), self._url]
        with self.log.open("ab") as log:
            process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log)
        self.processes.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n", self.log.read_text()

    def kill(self) -> None:
        """Kill the oldest one."""
        self.end(self.processes.pop(0), signal.SIGKILL)

    @staticmethod
    def end(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
        process.send_signal(number)
        process.wait(timeout=60)
        if process.stdout is not None:
            process.stdout.close()

    def failures(self) -> list[Execution]:
        """Return the failures of the history, oldest first."""

        async def main() -> list[Execution]:
            async with Scheduler(SqlBackend(self.database)) as scheduler:
                return (await history(scheduler))[::-1]

        return [
            one
            for one in anyio.run(main)
            if one.status is Status.FAILED and one.final and not one.job_id.startswith("notify:")
        ]


@contextmanager
def replicas(folder: Path, url: str) -> Iterator[Replicas]:
    made = Replicas(folder, url)
    try:
        yield made
    finally:
        while made.processes:
            made.kill()


def wait(what: Callable[[], object], *, within: float = 60) -> None:
    deadline = time.monotonic() + within
    while not what():
        assert time.monotonic() < deadline, "did not come true in time"
        time.sleep(0.05)


@pytest.mark.parametrize("seed", [1])
def test_no_notice_is_lost_however_replicas_and_receiver_die(
    tmp_path: Path, seed: int, deep: bool
) -> None:
    chance = random.Random(seed)
    with receiver(tmp_path) as there, replicas(tmp_path, there.url) as service:
        service.start()
        service.start()
        wait(there.received)
        for _ in range(80 if deep else 4):
            if chance.random() < 0.5:
                there.kill()
                time.sleep(chance.uniform(0, 0.5))
                service.kill()
                service.start()
                time.sleep(chance.uniform(0, 0.5))
                there.start()
            else:
                service.kill()
                service.start()
            time.sleep(chance.uniform(0.1, 1))
        since = len(there.received())
        wait(lambda: len(there.received()) > since + 20)
        while service.processes:
            service.end(service.processes.pop(), signal.SIGTERM)
        last = [one for one in there.notices() if one["kind"] == "failed"][-1]
        failures = [one.id for one in service.failures()]
    judge(there, failures, last["execution_id"])


def judge(there: Receiver, failures: list[str], last: str) -> None:
    """Check that all failures from the first to the last one told are told, and in order."""
    told = there.notices()
    failed = [one["execution_id"] for one in told if one["kind"] == "failed"]
    expected = failures[failures.index(failed[0]) : failures.index(last) + 1]
    assert len(expected) > 20
    assert [one for one in expected if one not in set(failed)] == []
    order = list(dict.fromkeys(failed))
    assert order == [one for one in failures if one in set(order)]
    # A repeat of what was told before may come at any time; a first recovery follows a failure.
    failing, seen = set[str](), set[str]()
    recoveries = 0
    for one in told:
        if one["id"] in seen:
            continue
        seen.add(one["id"])
        if one["kind"] == "failed":
            failing.add(one["job_id"])
        elif one["kind"] == "recovered":
            assert one["job_id"] in failing
            failing.remove(one["job_id"])
            recoveries += 1
    assert recoveries > 5
    assert "fails" in failing
