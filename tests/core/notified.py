"""What the tests of notifiers share: a sink that keeps notices, and a receiver in a process."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

from tests.core.running import running, until, wait_for_executions

from sched_core import Interval, JobEvent, JobRouter, Policy
from sched_core.contrib.notify import Notice, NoticeKind, Notifier

RECEIVER = Path(__file__).with_name("receiver.py")


class Told:
    """A sink that keeps what it gets, and fails when the test says so.

    Args:
        fails: How many deliveries fail, each before the notice is kept.
    """

    def __init__(self, fails: int = 0) -> None:
        self.notices: list[Notice] = []
        self.fails = fails
        self.error: Exception = ConnectionError("away")

    async def __call__(self, notice: Notice) -> None:
        if self.fails:
            self.fails -= 1
            raise self.error
        self.notices.append(notice)

    @property
    def kinds_told(self) -> list[NoticeKind]:
        return [one.kind for one in self.notices]

    @property
    def said(self) -> list[tuple[NoticeKind, str | None]]:
        return [(one.kind, one.job_id) for one in self.notices]


class Receiver:
    """A real HTTP server in a process of its own, which appends what it gets to a file.

    Args:
        folder: Where the file goes.
    """

    def __init__(self, folder: Path) -> None:
        self.journal = folder / "received.jsonl"
        self.port = 0
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/hook/SECRET-TOKEN"

    def start(self, *answers: str) -> None:
        """Start it, at the same port as before; the answers are its first ones."""
        command = [sys.executable, str(RECEIVER), str(self.journal), str(self.port), *answers]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE)
        assert self._process.stdout is not None
        self.port = int(self._process.stdout.readline())

    def kill(self) -> None:
        if self._process is not None:
            os.kill(self._process.pid, signal.SIGKILL)
            self._process.wait(timeout=60)
            if self._process.stdout is not None:
                self._process.stdout.close()
            self._process = None

    def received(self) -> list[dict[str, Any]]:
        """Return the requests that were answered with success, in order."""
        if not self.journal.exists():
            return []
        whole, _, _ = self.journal.read_text("utf-8").rpartition("\n")
        return [json.loads(line) for line in whole.splitlines()]

    def notices(self) -> list[dict[str, Any]]:
        return [json.loads(one["body"]) for one in self.received()]


async def told_of_all(backend: Callable[[], Any]) -> None:
    """Have real jobs on a store fail, recover, be paused, and not begin; check what is told."""
    told, fails = Told(), set[str]()
    router = JobRouter()
    Notifier("ops", told, every=timedelta(milliseconds=200)).declare(router)

    async def work(event: JobEvent) -> None:
        if event.id in fails:
            raise ValueError(event.id)

    router.job("flaps", Interval(milliseconds=300))(work)
    router.job("paused", Interval(milliseconds=300), policy=Policy(pause_after=2))(work)
    async with running(backend(), router) as scheduler:
        overdue = Policy(overdue=timedelta(seconds=1))
        await wait_for_executions(scheduler, 1, "notify:ops", within=30)
        fails.update(["flaps", "paused"])
        await scheduler.ensure_job("elsewhere", Interval(milliseconds=300), policy=overdue)
        await until(lambda: ("failed", "flaps") in told.said, within=30)
        fails.discard("flaps")
        wanted = [("recovered", "flaps"), ("paused", "paused"), ("overdue", "elsewhere")]
        await until(lambda: all(one in told.said for one in wanted), within=30)
        paused = (await scheduler.get_job("paused")).standing.pause
        assert paused is not None
        count = len(told.notices)
    ids = [one.id for one in told.notices]
    assert len(set(ids)) == len(ids)
    assert told.said.index(("failed", "flaps")) < told.said.index(("recovered", "flaps"))
    assert [one.reason for one in told.notices if one.kind == "paused"] == [paused.reason]

    # Another process goes on where the first one was.
    fails.add("flaps")
    async with running(backend(), router):
        await until(lambda: ("failed", "flaps") in told.said[count:], within=30)
    ids = [one.id for one in told.notices]
    assert len(set(ids)) == len(ids)


@contextmanager
def receiver(folder: Path, *answers: str) -> Iterator[Receiver]:
    made = Receiver(folder)
    try:
        made.start(*answers)
        yield made
    finally:
        made.kill()
