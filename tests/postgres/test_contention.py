"""Many processes at the same rows, others' locks and snapshots: no process waits for another."""

from __future__ import annotations

import json
import random
import statistics
import subprocess
import sys
import time
from collections import Counter
from datetime import UTC, datetime
from typing import Any

import anyio
import psycopg
from tests import postgres_server
from tests.postgres import contender
from tests.postgres.places import Place, past, settlement

from sched_core import (
    JobEvent,
    JobSpec,
    Once,
    Room,
    SystemClock,
)


def deadlocks() -> int:
    ((count,),) = postgres_server.shared().admin(
        "SELECT deadlocks FROM pg_stat_database WHERE datname = 'sched'"
    )
    assert isinstance(count, int)
    return count


async def fill(here: Place) -> None:
    async with here.scheduler():
        pass
    backend = here.backend()
    await backend.open(SystemClock(), worker="filler")
    now = datetime.now(UTC)
    await backend.add([contender.new_job(f"job-{n}", now) for n in range(contender.JOBS)])
    await backend.close()


def lock_rows(here: Place, seconds: float) -> int:
    """Hold rows as an open transaction of another program does; return how often."""
    chance, until, times = random.Random(3), time.monotonic() + seconds, 0
    with here.connect() as connection:
        while time.monotonic() < until:
            some = [f"job-{chance.randrange(contender.JOBS)}" for _ in range(5)]
            connection.execute(
                f"SELECT id FROM {here.schema}.job WHERE id = ANY(%s) ORDER BY id FOR UPDATE",
                (some,),
            )
            time.sleep(0.5)
            connection.rollback()
            times += 1
    return times


def test_random_batches_of_four_processes(here: Place, deep: bool) -> None:
    seconds = 60.0 if deep else 4.0
    anyio.run(fill, here)
    before = deadlocks()
    command = [sys.executable, contender.__file__, here.address, here.schema]
    running = [
        subprocess.Popen([*command, str(seed), str(seconds)], stdout=subprocess.PIPE)
        for seed in range(4)
    ]
    locked = lock_rows(here, seconds)
    told = []
    for process in running:
        output, _ = process.communicate(timeout=seconds + 60)
        assert process.returncode == 0
        told.append(json.loads(output))
    counts: Counter[str] = Counter()
    for each in told:
        counts.update(each["counts"])
    time.sleep(1.2)  # the statistics of sessions that have ended
    assert deadlocks() == before
    # A lock was held for half a second at a time, and settles did not wait for it.
    assert locked > 3
    assert max(each["slowest"] for each in told) < 0.45, told
    check(here)
    # What is rare happens in a minute for certain, in four seconds by chance.
    rare = ("busy", "conflict") if deep else ()
    for what in ("lost", "claim_lost", "removed", "edited", "written", *rare):
        assert counts[what] > 0, f"no {what}: {counts}"


def check(here: Place) -> None:
    """Look at the history from outside."""
    twice = here.rows(
        "SELECT uid, number, count(*) FROM @execution WHERE final GROUP BY 1, 2 HAVING count(*) > 1"
    )
    assert not twice
    # Attempts of an occurrence have one execution each, and tokens and attempts grow together.
    wrong = here.rows(
        "SELECT a.uid, a.number FROM @execution a JOIN @execution b USING (uid, number) "
        "WHERE a.attempt > 0 AND b.attempt > a.attempt AND b.token <= a.token"
    )
    assert not wrong
    overlapping = here.rows(
        """
        SELECT * FROM (
            SELECT job_id, token, claimed_at, finished_at,
                lead(claimed_at) OVER (PARTITION BY job_id ORDER BY token) AS following
            FROM (SELECT job_id, token, min(claimed_at) AS claimed_at,
                    max(finished_at) AS finished_at
                FROM @execution WHERE attempt > 0 GROUP BY 1, 2) claims
        ) ordered WHERE following < claimed_at
        """
    )
    assert not overlapping
    # Every occurrence that has begun and is not pending any more has its final execution.
    open_ended = here.rows(
        "SELECT l.job_id, l.number FROM @execution l JOIN @job j USING (uid) "
        "WHERE l.number IS DISTINCT FROM j.number AND j.lease_until IS NULL "
        "GROUP BY 1, 2 HAVING NOT bool_or(l.final)"
    )
    assert not open_ended


def test_a_locked_row_holds_up_no_worker_and_spins_nothing(here: Place) -> None:
    async def main() -> None:
        done = anyio.Event()
        ran: list[str] = []

        async def handle(event: JobEvent) -> None:
            ran.append(event.id)
            if len(ran) == 3:
                done.set()

        async with here.scheduler(handle) as scheduler:
            await scheduler.submit_job("locked", Once(past(10)))
            calls = 0
            table: Any = scheduler._backend._table  # type: ignore[attr-defined]  # ours
            lane, run = table._lanes["claim"], table._lanes["claim"].run

            def counted(*args: Any, **options: Any) -> Any:
                nonlocal calls
                calls += 1
                return run(*args, **options)

            lane.run = counted
            with here.connect() as connection:
                connection.execute(f"SELECT * FROM {here.schema}.job FOR UPDATE")
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(scheduler.run_forever)
                    await anyio.sleep(1)
                    assert calls < 60, "a tight loop"
                    await scheduler.submit_jobs([JobSpec(x, Once(past())) for x in "ab"])
                    with anyio.fail_after(3):
                        while sorted(ran) != ["a", "b"]:  # noqa: ASYNC110
                            await anyio.sleep(0.01)
                    connection.rollback()
                    with anyio.fail_after(3):
                        await done.wait()
                    await scheduler.stop()

    anyio.run(main)


def test_an_old_snapshot_does_not_slow_the_claim(here: Place, deep: bool) -> None:
    """While it is open, nothing that ran can be cleared away from the head of the queue."""
    seconds, jobs = (60.0, 5_000) if deep else (5.0, 2_000)

    async def main() -> list[tuple[float, float]]:
        times: list[tuple[float, float]] = []
        backend = here.backend()
        await backend.open(SystemClock(), worker="w")
        now = datetime.now(UTC)
        await backend.add([contender.new_job(f"job-{n}", now) for n in range(jobs)])
        with here.connect() as snapshot:
            snapshot.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
            snapshot.execute(f"SELECT count(*) FROM {here.schema}.job")
            begin = time.monotonic()
            while (at := time.monotonic()) - begin < seconds:
                claims = (await backend.claim_due(Room(100))).claims
                times.append((at - begin, time.monotonic() - at))
                if claims:
                    await backend.settle([settlement(claim) for claim in claims])
                else:
                    await backend.wait_due(Room(100))
        await backend.close()
        return times

    times = anyio.run(main)
    ((ran,),) = here.rows("SELECT count(*) FROM @execution")
    assert ran > jobs, "no load"
    third = seconds / 3
    early = statistics.median(took for at, took in times if at < third)
    late = statistics.median(took for at, took in times if at > 2 * third)
    assert late < 3 * early, f"claims grew from {early * 1e3:.2f} to {late * 1e3:.2f} ms"
