"""A rolling deploy of real processes on one SQLite file: pods, kills, old ones that return."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path

import anyio
from tests.crash.deployed import HALF, SETS

from sched_core import Execution, Interval, Job, Scheduler, Status
from sched_core.testing import history
from sched_sql import SqlBackend

POD = Path(__file__).with_name("deployed.py")


class Pods:
    """Starts pods, and ends only those that it started."""

    def __init__(self, database: Path) -> None:
        self.database = database
        self.running: list[subprocess.Popen[str]] = []

    def begin(self, version: int) -> subprocess.Popen[str]:
        """Start a pod."""
        pod = subprocess.Popen(
            [sys.executable, str(POD), str(self.database), str(version)],
            stdout=subprocess.PIPE,
            text=True,
        )
        self.running.append(pod)
        return pod

    def ready(self, pod: subprocess.Popen[str]) -> datetime:
        """Wait until a pod is running; return when it had declared its set."""
        assert pod.stdout is not None
        return datetime.fromisoformat(pod.stdout.readline().removeprefix("ready ").strip())

    def end(self, pod: subprocess.Popen[str], *, kill: bool) -> None:
        if kill:
            pod.kill()
            pod.wait()
        else:
            pod.send_signal(signal.SIGTERM)
            assert pod.wait(timeout=30) == 0
        assert pod.stdout is not None
        pod.stdout.close()
        self.running.remove(pod)


@contextmanager
def pods_on(database: Path) -> Iterator[Pods]:
    pods = Pods(database)
    try:
        yield pods
    finally:
        for pod in list(pods.running):
            pods.end(pod, kill=True)


def look(database: Path) -> tuple[dict[str, Job], list[Execution]]:
    async def main() -> tuple[dict[str, Job], list[Execution]]:
        async with Scheduler(SqlBackend(database)) as scheduler:
            jobs = {job.id: job async for job in scheduler.list_jobs() if isinstance(job, Job)}
            return jobs, await history(scheduler)

    return anyio.run(main)


def test_the_new_set_wins_and_stays_and_nothing_is_lost(deep: bool, tmp_path: Path) -> None:
    database = tmp_path / "jobs.db"
    with pods_on(database) as pods:
        old = [pods.begin(1) for _ in range(5 if deep else 3)]
        for pod in old:
            pods.ready(pod)
        before, _ = look(database)
        deployed: datetime | None = None
        for number, pod in enumerate(old):
            new = pods.begin(2)
            if number in {1, 3}:  # an old one that starts again, next to a new one
                pods.end(pod, kill=True)
                pod = pods.begin(1)  # noqa: PLW2901 -- it is that pod's successor
                pods.ready(pod)
            ready = pods.ready(new)
            deployed = deployed or ready
            pods.end(pod, kill=number % 2 == 0)
        time.sleep(1)
        ended = look(database)[1][0].finished_at
        for pod in list(pods.running):
            pods.end(pod, kill=False)

    jobs, executions = look(database)
    assert {job_id: job.spec.schedule for job_id, job in jobs.items()} == {
        job_id: Interval(every) for job_id, every in SETS[2].items()
    }
    kept = jobs["kept"]
    assert (kept.uid, kept.anchor) == (before["kept"].uid, before["kept"].anchor)

    final = sorted(
        (each for each in executions if each.job_id == "kept" and each.final),
        key=lambda each: each.number,
    )
    assert [each.number for each in final] == list(range(1, len(final) + 1))
    assert {each.status for each in final} == {Status.SUCCEEDED}
    moment = kept.anchor
    for each in final:  # each point of the grid ran, or the one before covers it
        moment += HALF
        assert each.scheduled_at == moment
        moment += each.coalesced * HALF
    assert moment > ended - timedelta(seconds=2)

    assert deployed is not None
    late = [each for each in executions if each.job_id == "gone" and each.claimed_at > deployed]
    assert {each.status for each in late} <= {Status.ABANDONED, Status.SUPERSEDED}
    fresh = [each for each in executions if each.job_id == "fresh" and each.final]
    assert len(fresh) >= 3
