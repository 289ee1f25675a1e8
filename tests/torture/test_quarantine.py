"""One handler that kills its process, among others: real processes, restarted at once."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import anyio
import pytest
from attrs import define, field
from tests.torture.quarantined import CHARGED, GUILTY, LONG

from sched_core import Execution, Job, Once, Scheduler, State, Status
from sched_core._rules.hold import QUARANTINE
from sched_core.testing import history
from sched_testkit.torture.journal import read
from sched_testkit.torture.worker import load

INNOCENT = [LONG, *(f"innocent-{number}" for number in range(29))]
BOUND = 2 * QUARANTINE
"""What runs has one to end, and then the suspect has one to itself."""
SLACK = timedelta(seconds=15)
"""The time for a process to begin again, and for the lease of what the former one had claimed."""
LIMIT = 400.0
"""Seconds in all; then the guilty one is thought to go on until further notice."""


@define
class Story:
    """What came of it.

    Attributes:
        starts: Processes that were started.
        final: The final execution of each job.
        waited: How long each job that came later waited until it first began.
    """

    starts: int = 0
    final: dict[str, Execution] = field(factory=dict)
    waited: dict[str, timedelta] = field(factory=dict)

    def status(self, job_id: str) -> tuple[Status, str]:
        """Return how a job ended, and the first word of why."""
        execution = self.final[job_id]
        return execution.status, (execution.reason or "").partition(":")[0]


async def play(harness: str, fault: str) -> Story:
    """Have a service run all jobs to their ends, and submit one more each second meanwhile."""
    story, asked = Story(), dict[str, datetime]()
    made = load(f"tests.torture.harnesses:{harness}")
    with tempfile.TemporaryDirectory() as folder:
        path, store = Path(folder) / "journal", Path(folder) / "store"
        store.mkdir()
        with made.place(str(store)) as address:
            async with Scheduler(made.backend(address)) as scheduler:
                for job_id in (GUILTY, *INNOCENT):
                    await scheduler.submit_job(job_id, Once(datetime.now(UTC)))
                command = [sys.executable, "-m", "tests.torture.quarantined"]
                command += [f"tests.torture.harnesses:{harness}", address, str(path)]
                with anyio.fail_after(LIMIT), service(command, fault, story) as keep_up:
                    while not await is_over(scheduler):
                        until = anyio.current_time() + 1
                        while anyio.current_time() < until:
                            keep_up()
                            await anyio.sleep(0.02)
                        if GUILTY not in story.final:
                            late = f"late-{len(asked)}"
                            asked[late] = datetime.now(UTC)
                            await scheduler.submit_job(late, Once(asked[late]))
                        story.final = await finals(scheduler)
                story.final = await finals(scheduler)
        for entry in read(path):
            if entry["id"] in asked:
                at = datetime.fromisoformat(entry["at"])
                story.waited.setdefault(entry["id"], at - asked[entry["id"]])
    assert story.waited.keys() == asked.keys()
    assert story.final.keys() == {GUILTY, *INNOCENT, *asked}
    return story


@contextmanager
def service(command: list[str], fault: str, story: Story) -> Iterator[Callable[[], None]]:
    """Have one process run; what is given starts it again where it has died."""
    processes: list[subprocess.Popen[bytes]] = []

    def keep_up() -> None:
        code = processes[-1].poll() if processes else 9
        assert code in {None, 9}, f"a process ended with {code}"
        if code is not None:
            story.starts += 1
            processes.append(subprocess.Popen([*command, str(story.starts), fault]))

    try:
        yield keep_up
    finally:
        for process in processes:
            process.terminate()
            process.wait()


async def is_over(scheduler: Scheduler) -> bool:
    states = {job.state async for job in scheduler.list_jobs() if isinstance(job, Job)}
    return states == {State.FINISHED}


async def finals(scheduler: Scheduler) -> dict[str, Execution]:
    return {one.job_id: one for one in await history(scheduler) if one.final}


@pytest.mark.deep
@pytest.mark.parametrize("harness", ["Sqlite", "Postgres", "JetStream"])
def test_the_guilty_one_ends_and_all_others_succeed(harness: str) -> None:
    story = anyio.run(play, harness, "")
    assert story.status(GUILTY) == (Status.FAILED, "lost")
    others = {job_id: story.status(job_id) for job_id in story.final if job_id != GUILTY}
    assert others == dict.fromkeys(others, (Status.SUCCEEDED, ""))
    assert story.starts > 5, "its process was hardly ever killed: this shows nothing"
    assert max(story.waited.values()) < BOUND + SLACK


@pytest.mark.deep
def test_where_all_are_charged_the_innocent_fail() -> None:
    story = anyio.run(play, "Sqlite", CHARGED)
    assert {story.status(job_id) for job_id in INNOCENT} > {(Status.FAILED, "lost")}
