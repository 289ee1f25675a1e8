"""Four replicas, one firing: real processes that are killed, stopped and started again.

The journal of the handlers and the ledger are compared from outside: nothing here asks the code
that it examines.
"""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import anyio
import pytest
from tests.postgres import replica
from tests.postgres.places import Place

from sched_core import Execution, Interval, JobSpec, Once, Scheduler, State, Status
from sched_core.testing import history

LEASE = 1.5


class Replica:
    """A process that runs jobs."""

    def __init__(self, here: Place, journal: Path) -> None:
        self._command = [sys.executable, replica.__file__, here.address, here.schema, str(journal)]
        self.start()

    def start(self) -> None:
        self.process = subprocess.Popen([*self._command, str(LEASE)], stdin=subprocess.PIPE)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()
        assert self.process.stdin is not None
        self.process.stdin.close()

    def stop(self) -> int:
        assert self.process.stdin is not None
        self.process.stdin.close()
        return self.process.wait(30)


@contextmanager
def replicas(here: Place, journal: Path, count: int) -> Iterator[list[Replica]]:
    made = [Replica(here, journal) for _ in range(count)]
    try:
        yield made
    finally:
        for each in made:
            if each.process.poll() is None:
                each.process.send_signal(signal.SIGCONT)
                each.kill()


def read(journal: Path) -> list[dict[str, Any]]:
    lines = journal.read_bytes().split(b"\n")
    return [json.loads(line) for line in lines[:-1]]


async def define(here: Place, once: int, often: int, seconds: float) -> datetime:
    async with here.scheduler() as scheduler:
        begin = datetime.now(UTC) + timedelta(seconds=1)
        chance = random.Random(7)
        await scheduler.submit_jobs(
            [
                JobSpec(f"once-{n}", Once(begin + timedelta(seconds=chance.uniform(0, seconds))))
                for n in range(once)
            ]
            + [JobSpec(f"often-{n}", Interval(seconds=2, start=begin)) for n in range(often)]
        )
    return begin


async def settled(here: Place, once: int) -> list[Execution]:
    """Wait until everything is done, and return the ledger, oldest first."""
    async with here.scheduler() as scheduler:
        with anyio.fail_after(60):
            while True:
                (done,) = here.rows(
                    "SELECT (SELECT count(*) FROM @job WHERE id LIKE 'once%%' "
                    "AND state = 'finished'), (SELECT count(*) FROM @job "
                    "WHERE lease_until IS NOT NULL)",
                    (),
                )
                if done == (once, 0):
                    break
                await anyio.sleep(0.2)
        return (await history(scheduler))[::-1]


async def pause_recurring(here: Place, often: int) -> None:
    async with here.scheduler() as scheduler:
        for number in range(often):
            await scheduler.pause_job(f"often-{number}")


def by_occurrence(lines: list[Execution]) -> dict[tuple[str, int], list[Execution]]:
    found: dict[tuple[str, int], list[Execution]] = defaultdict(list)
    for line in lines:
        found[line.job_id, line.number].append(line)
    return found


def check(lines: list[Execution], journal: list[dict[str, Any]], once: int, often: int) -> None:
    occurrences = by_occurrence(lines)
    for where, found in occurrences.items():
        assert sum(line.final for line in found) == 1, f"{where}: {found}"
        attempts = sorted(line.attempt for line in found)
        assert attempts == list(range(1, len(found) + 1)), f"{where}: {found}"
        for line in found:
            if not line.final:
                # A repeat has a reason: the claim was lost, or handed back at the stop.
                assert line.status in {Status.ABANDONED, Status.INTERRUPTED}, f"{where}: {found}"
    assert sum(job.startswith("once") for job, _ in occurrences) == once
    numbers: dict[str, list[int]] = defaultdict(list)
    for job, number in occurrences:
        numbers[job].append(number)
    for job, found_numbers in numbers.items():
        assert sorted(found_numbers) == list(range(1, len(found_numbers) + 1)), job
    assert len(numbers) == once + often

    # Never two live claims: by the store's clock, each ends before the next of its job begins.
    claims: dict[str, dict[int, Execution]] = defaultdict(dict)
    for line in lines:
        claims[line.job_id][line.token] = line
    for job, tokens in claims.items():
        ordered = [tokens[token] for token in sorted(tokens)]
        for one, other in pairwise(ordered):
            assert one.finished_at <= other.claimed_at + timedelta(milliseconds=1), f"{job}: {one}"

    # What was started has its line, with the same fence, and what succeeded was run to its end.
    fences = {(line.job_id, line.token): line for line in lines}
    starts = Counter((each["job"], each["token"]) for each in journal if each["what"] == "start")
    ends = {(entry["job"], entry["token"]) for entry in journal if entry["what"] == "end"}
    assert not [fence for fence, count in starts.items() if count > 1]
    assert not starts.keys() - fences.keys()
    for fence, line in fences.items():
        if line.status is Status.SUCCEEDED:
            assert fence in starts
            assert fence in ends


def held(here: Place, replica: Replica) -> set[tuple[str, int]]:
    """Return job and token of what a process holds."""
    rows = here.rows(
        "SELECT id, token FROM @job WHERE lease_until IS NOT NULL AND starts_with(worker, %s)",
        (f"pid{replica.process.pid}-",),
    )
    return {(job, token) for job, token in rows}


def under_way(journal: Path) -> set[tuple[str, int]]:
    """Return job and token of the handlers that have begun and not ended."""
    entries = read(journal) if journal.exists() else []
    fences: dict[str, set[tuple[str, int]]] = {"start": set(), "end": set()}
    for entry in entries:
        fences[entry["what"]].add((entry["job"], entry["token"]))
    return fences["start"] - fences["end"]


def freeze(here: Place, replica: Replica, journal: Path) -> float:
    """Stop a process while a handler of it is under way; return when."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        if held(here, replica):
            replica.process.send_signal(signal.SIGSTOP)
            time.sleep(0.05)
            if held(here, replica) & under_way(journal):
                return time.monotonic()
            replica.process.send_signal(signal.SIGCONT)
        time.sleep(0.01)
    raise AssertionError("no handler of it is ever under way")


def kill(here: Place, replica: Replica) -> None:
    """Kill a process, if it is to be had at a moment at which it holds something."""
    deadline = time.monotonic() + 2
    while time.monotonic() < deadline and not held(here, replica):
        time.sleep(0.01)
    replica.kill()


@pytest.mark.deep
@pytest.mark.parametrize("form", ["short", "long"])
def test_four_replicas_one_firing(here: Place, tmp_path: Path, form: str) -> None:
    short = form == "short"
    once, often, seconds, kills = (2_000, 40, 9.0, 3) if short else (20_000, 500, 60.0, 10)
    journal = tmp_path / "journal"
    begin = anyio.run(define, here, once, often, seconds)
    chance = random.Random(11)
    with replicas(here, journal, 4) as running:
        killed, stopped = running[:2], running[2]
        frozen_at = freeze(here, stopped, journal)
        for turn in range(kills):
            for each in killed:
                time.sleep(chance.uniform(0.2, 0.8) * seconds / kills / 2)
                kill(here, each)
                each.start()
            if turn == 0:
                time.sleep(max(0, frozen_at + 2 * LEASE - time.monotonic()))
                stopped.process.send_signal(signal.SIGCONT)
        remaining = (begin + timedelta(seconds=seconds) - datetime.now(UTC)).total_seconds()
        # A paused job is due never, so no worker would take a lost claim of it over: not before all
        # that the kills have left behind was taken.
        time.sleep(max(0, remaining) + 3 * LEASE)
        anyio.run(pause_recurring, here, often)
        lines = anyio.run(settled, here, once)
        for each in running:
            assert each.stop() == 0
    entries = read(journal)
    check(lines, entries, once, often)
    # Not vacuous: claims were lost to kills and to the freeze, and the zombie woke up with some.
    abandoned = [line for line in lines if line.status is Status.ABANDONED]
    zombie = f"pid{stopped.process.pid}-"
    assert any(line.worker.startswith(zombie) for line in abandoned)
    assert any(not line.worker.startswith(zombie) for line in abandoned)
    begun = {(entry["job"], entry["token"]) for entry in entries}
    lost = {(line.job_id, line.token) for line in abandoned if line.worker.startswith(zombie)}
    assert lost & begun, "the zombie had begun nothing that it lost"
    jobs = anyio.run(stored, here)
    assert all(job.standing.state is State.PAUSED for job in jobs if job.id.startswith("often"))


async def stored(here: Place) -> list[Any]:
    async with here.scheduler() as scheduler:
        assert isinstance(scheduler, Scheduler)
        return [job async for job in scheduler.list_jobs()]
