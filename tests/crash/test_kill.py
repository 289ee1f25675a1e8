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
        jobs, executions = anyio.run(host.stored)
        assert host.integrity() == "ok"
        check(host, jobs, executions, drained, killed_at, stopped_at)

        # It went on at once: no worker waited for the lease of what had been killed.
        lost = [each for each in executions if each.status is Status.ABANDONED]
        assert lost, "not one kill hit a run: the test shows nothing"
        for each in lost:
            assert each.finished_at - each.claimed_at < LEASE / 2
            assert each.finished_at < restarted + LEASE / 3


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
    executions: list[Execution],
    drained: datetime,
    killed_at: list[tuple[datetime, datetime]],
    stopped_at: datetime,
) -> None:
    assert len(jobs) == 200
    by_job: dict[str, list[Execution]] = defaultdict(list)
    for each in executions:
        by_job[each.job_id].append(each)

    for job in jobs:
        mine = by_job[job.id]
        assert {each.uid for each in mine} <= {job.uid}
        check_attempts(job, mine, killed_at, stopped_at)
        check_chain(job, [each for each in mine if each.final], drained)
    check_journal(host, jobs, executions)

    seen = {each.status for each in executions}
    assert {Status.SUCCEEDED, Status.FAILED, Status.ABANDONED} <= seen
    assert any(each.attempt > 1 and each.status is Status.SUCCEEDED for each in executions)
    assert any((each.reason or "").startswith("timeout") for each in executions)
    assert {each.job_id.partition("-")[0] for each in executions} == {
        job.id.partition("-")[0] for job in jobs
    }


def check_attempts(
    job: Job,
    executions: list[Execution],
    killed_at: list[tuple[datetime, datetime]],
    stopped_at: datetime,
) -> None:
    """Attempts of an occurrence follow each other, for a reason each, up to one final execution."""
    tokens = [each.token for each in executions]
    assert tokens == sorted(set(tokens)), f"{job.id}: tokens do not grow"
    by_number: dict[int, list[Execution]] = defaultdict(list)
    for each in executions:
        by_number[each.number].append(each)
    for number, attempts in by_number.items():
        assert [each.attempt for each in attempts] == list(range(1, len(attempts) + 1)), (
            f"{job.id} {number}: {attempts}"
        )
        assert len({each.scheduled_at for each in attempts}) == 1
        for each in attempts[:-1]:
            assert not each.final, f"{job.id} {number}: attempts after the final execution"
        if job.standing.find(number) is None:
            assert attempts[-1].final, f"{job.id} {number}: no final execution"
        for each in attempts:
            if each.status is Status.ABANDONED:
                assert any(
                    each.claimed_at <= after and before <= each.finished_at
                    for before, after in killed_at
                ), f"{job.id}: abandoned without a kill"
            elif each.status is Status.INTERRUPTED:
                assert each.finished_at <= stopped_at
                assert killed_at[-1][1] <= each.claimed_at
            elif not each.final:
                assert each.status is Status.FAILED
                assert job.spec.policy.retry.attempts > 1


def check_chain(job: Job, finals: list[Execution], drained: datetime) -> None:
    """No occurrence from the first to the pending one is missing, twice there or invented."""
    standing, schedule = job.standing, job.spec.schedule
    waiting = 0 if standing.scheduled is None else 1
    assert [each.number for each in finals] == list(range(1, standing.last_number + 1 - waiting))
    assert standing.scheduled is None or standing.scheduled.number == standing.last_number
    assert standing.due_at is None or standing.due_at > drained
    if isinstance(schedule, Once):
        assert [each.scheduled_at for each in finals] == [schedule.at]
        assert standing.next_run is None
        return
    moments = [(each.scheduled_at, each.coalesced_until or each.scheduled_at) for each in finals]
    assert standing.next_run is not None
    moments.append((standing.next_run, standing.next_run))
    if isinstance(schedule, FixedDelay):
        for each, (moment, _) in zip(finals, moments[1:], strict=True):
            assert moment == each.finished_at + schedule.every
        return
    if isinstance(schedule, Interval):
        period, first = schedule.every, job.anchor + schedule.every
    else:
        period = timedelta(seconds=int(job.id.partition("-")[2]) % 3 + 1)
        first = moments[0][0]
        assert first.second % period.seconds == 0
        assert first - job.anchor <= period
    assert moments[0][0] == first
    for each, ((begin, end), (following, _)) in zip(
        finals, itertools.pairwise(moments), strict=True
    ):
        steps = round((end - begin) / period)
        assert end == begin + steps * period
        assert each.coalesced == steps
        assert following == end + period, f"{job.id}: from {end} to {following}"


def check_journal(host: Service, jobs: list[Job], executions: list[Execution]) -> None:
    history = {(f"{each.uid}:{each.number}", each.attempt): each for each in executions}
    assert len(history) == len(executions)
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
                assert history[before].status is Status.ABANDONED, "two runs of one job at a time"
            running[entry["id"]] = name
        else:
            ends[name] = entry["what"]

    for name, entry in starts.items():
        each = history[name]  # no run without an execution
        assert (each.token, each.job_id) == (entry["token"], entry["id"])
        assert each.scheduled_at.isoformat() == entry["scheduled_at"]
    for name, each in history.items():
        if each.status is Status.ABANDONED:
            continue
        assert name in starts, f"{each.job_id}: an execution without a run"
        if each.status is Status.SUCCEEDED:
            assert ends[name] == "end"
        elif each.status is Status.FAILED:
            assert ends[name] in {"failed", "cancelled"}
        else:
            assert (each.status, ends[name]) == (Status.INTERRUPTED, "cancelled")
