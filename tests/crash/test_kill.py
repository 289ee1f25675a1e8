"""A service killed at random moments and started again: nothing lost, nothing doubled."""

from __future__ import annotations

import itertools
import random
import signal
import time
from collections import defaultdict
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import anyio
from tests.crash.harness import Service, now, service
from tests.crash.worker import Handler, Journal

from sched_core import Execution, FixedDelay, Interval, Job, Once, Scheduler, Status
from sched_sql import SqlBackend

SEED = 20260101
LEASE = timedelta(seconds=30)


def test_killed_and_restarted(deep: bool, tmp_path: Path) -> None:
    kills = 40 if deep else 8
    chance = random.Random(SEED)
    killed_at: list[tuple[datetime, datetime]] = []
    with service(tmp_path) as host:
        base = now() + timedelta(seconds=1)
        for number in range(kills):
            # Every fourth dies while it starts.
            starting = number % 4 == 3
            process = host.start("kinds", "--base", base.isoformat(), ready=not starting)
            time.sleep(chance.uniform(0.05, 0.5) if starting else chance.uniform(0.2, 1.5))
            before = now()
            code = host.end(process, signal.SIGKILL)
            assert code == -signal.SIGKILL, host.log.read_text()
            killed_at.append((before, now()))
        process = host.start("kinds", "--base", base.isoformat())
        restarted = now()
        time.sleep(2)
        assert host.end(process, signal.SIGTERM) == 0, host.log.read_text()
        stopped_at = now()

        drained = anyio.run(drain, host)
        jobs, lines = anyio.run(host.stored)
        assert host.integrity() == "ok"
        check(host, jobs, lines, drained, killed_at, stopped_at)

        # It went on at once: no worker waited for the lease of what had been killed.
        lost = [line for line in lines if line.status is Status.ABANDONED]
        assert lost, "not one kill hit a run: the test shows nothing"
        for line in lost:
            assert line.finished_at - line.claimed_at < LEASE / 2
            assert line.finished_at < restarted + LEASE / 3


async def drain(host: Service) -> datetime:
    """Run what was due when the last process stopped; return the moment of looking."""
    handler = Handler(Journal(str(host.journal)))
    async with Scheduler(SqlBackend(host.database), handler=handler) as scheduler:
        at = now()
        await scheduler.run_due()
    return at


def check(
    host: Service,
    jobs: list[Job],
    lines: list[Execution],
    drained: datetime,
    killed_at: list[tuple[datetime, datetime]],
    stopped_at: datetime,
) -> None:
    assert len(jobs) == 200
    by_job: dict[str, list[Execution]] = defaultdict(list)
    for line in lines:
        by_job[line.job_id].append(line)

    for job in jobs:
        mine = by_job[job.id]
        assert {line.uid for line in mine} <= {job.uid}
        check_attempts(job, mine, killed_at, stopped_at)
        check_chain(job, [line for line in mine if line.final], drained)
    check_journal(host, jobs, lines)

    seen = {line.status for line in lines}
    assert {Status.SUCCEEDED, Status.FAILED, Status.ABANDONED} <= seen
    assert any(line.attempt > 1 and line.status is Status.SUCCEEDED for line in lines)
    assert any((line.reason or "").startswith("timeout") for line in lines)
    assert {line.job_id.partition("-")[0] for line in lines} == {
        job.id.partition("-")[0] for job in jobs
    }


def check_attempts(
    job: Job,
    lines: list[Execution],
    killed_at: list[tuple[datetime, datetime]],
    stopped_at: datetime,
) -> None:
    """Attempts of an occurrence follow each other, for a reason each, up to one final line."""
    tokens = [line.token for line in lines]
    assert tokens == sorted(set(tokens)), f"{job.id}: tokens do not grow"
    by_number: dict[int, list[Execution]] = defaultdict(list)
    for line in lines:
        by_number[line.number].append(line)
    for number, attempts in by_number.items():
        assert [line.attempt for line in attempts] == list(range(1, len(attempts) + 1)), (
            f"{job.id} {number}: {attempts}"
        )
        assert len({line.scheduled_at for line in attempts}) == 1
        for line in attempts[:-1]:
            assert not line.final, f"{job.id} {number}: attempts after the final line"
        if job.standing.find(number) is None:
            assert attempts[-1].final, f"{job.id} {number}: no final line"
        for line in attempts:
            if line.status is Status.ABANDONED:
                assert any(
                    line.claimed_at <= after and before <= line.finished_at
                    for before, after in killed_at
                ), f"{job.id}: abandoned without a kill"
            elif line.status is Status.INTERRUPTED:
                assert line.finished_at <= stopped_at
                assert killed_at[-1][1] <= line.claimed_at
            elif not line.final:
                assert line.status is Status.FAILED
                assert job.spec.policy.retry.attempts > 1


def check_chain(job: Job, finals: list[Execution], drained: datetime) -> None:
    """No occurrence from the first to the pending one is missing, twice there or invented."""
    standing, schedule = job.standing, job.spec.schedule
    waiting = 0 if standing.scheduled is None else 1
    assert [line.number for line in finals] == list(range(1, standing.last_number + 1 - waiting))
    assert standing.scheduled is None or standing.scheduled.number == standing.last_number
    assert standing.due_at is None or standing.due_at > drained
    if isinstance(schedule, Once):
        assert [line.scheduled_at for line in finals] == [schedule.at]
        assert standing.next_run is None
        return
    moments = [(line.scheduled_at, line.coalesced_until or line.scheduled_at) for line in finals]
    assert standing.next_run is not None
    moments.append((standing.next_run, standing.next_run))
    if isinstance(schedule, FixedDelay):
        for line, (moment, _) in zip(finals, moments[1:], strict=True):
            assert moment == line.finished_at + schedule.every
        return
    if isinstance(schedule, Interval):
        period, first = schedule.every, job.anchor + schedule.every
    else:
        period = timedelta(seconds=int(job.id.partition("-")[2]) % 3 + 1)
        first = moments[0][0]
        assert first.second % period.seconds == 0
        assert first - job.anchor <= period
    assert moments[0][0] == first
    for line, ((begin, end), (following, _)) in zip(
        finals, itertools.pairwise(moments), strict=True
    ):
        steps = round((end - begin) / period)
        assert end == begin + steps * period
        assert line.coalesced == steps
        assert following == end + period, f"{job.id}: from {end} to {following}"


def check_journal(host: Service, jobs: list[Job], lines: list[Execution]) -> None:
    ledger = {(f"{line.uid}:{line.number}", line.attempt): line for line in lines}
    assert len(ledger) == len(lines)
    starts: dict[tuple[str, int], dict[str, Any]] = {}
    ends: dict[tuple[str, int], str] = {}
    running: dict[str, tuple[str, int]] = {}
    for entry in host.entries():
        name = (entry["key"], entry["attempt"])
        if entry["what"] == "start":
            assert name not in starts, f"{entry['id']}: attempt {name} ran twice"
            starts[name] = entry
            before = running.get(entry["id"])
            if before is not None and before not in ends:
                assert ledger[before].status is Status.ABANDONED, "two runs of one job at a time"
            running[entry["id"]] = name
        else:
            ends[name] = entry["what"]

    for name, entry in starts.items():
        line = ledger[name]  # no run without a line
        assert (line.token, line.job_id) == (entry["token"], entry["id"])
        assert line.scheduled_at.isoformat() == entry["scheduled_at"]
    for name, line in ledger.items():
        if line.status is Status.ABANDONED:
            continue
        assert name in starts, f"{line.job_id}: a line without a run"
        if line.status is Status.SUCCEEDED:
            assert ends[name] == "end"
        elif line.status is Status.FAILED:
            assert ends[name] in {"failed", "cancelled"}
        else:
            assert (line.status, ends[name]) == (Status.INTERRUPTED, "cancelled")
