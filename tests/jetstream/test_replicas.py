"""Four replicas, one firing: processes are killed and stopped, and every occurrence ends once."""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from tests.jetstream.replicas import Replicas, judge
from tests.jetstream.waiting import unfinished
from tests.nats_shared import delete_streams, shared_server

from sched_core import Execution, Interval, JobSpec, Once, Policy, Scheduler
from sched_core.testing import history
from sched_jetstream import JetStreamBackend

KEPT = Policy(max_lost=1_000_000, keep_finished=None, keep_executions=None)


@pytest.mark.deep
@pytest.mark.parametrize(
    ("seconds", "shots", "recurring", "kills", "lease"),
    [(6, 600, 20, 3, 2), (60, 20_000, 500, 10, 10)],
    ids=["short", "long"],
)
def test_four_replicas_one_firing(
    seconds: int, shots: int, recurring: int, kills: int, lease: int, tmp_path: Path
) -> None:
    url = shared_server().url
    bucket = "four"
    replicas = Replicas(bucket, tmp_path, lease)
    backend = JetStreamBackend(url, job_bucket=bucket, execution_bucket=f"{bucket}-lines")

    async def main() -> list[Execution]:
        async with Scheduler(backend) as scheduler:
            for _ in range(4):
                replicas.start([url])
            start = datetime.now(UTC) + timedelta(seconds=3)
            specs = [
                JobSpec(
                    f"shot-{n}", Once(start + timedelta(seconds=seconds * n / shots)), policy=KEPT
                )
                for n in range(shots)
            ]
            await scheduler.submit_jobs(specs, atomic=False)
            every = [
                JobSpec(
                    f"every-{n}",
                    Interval(seconds=1 + n % 5),
                    metadata={"takes": "0.2"},
                    policy=KEPT,
                )
                for n in range(recurring)
            ]
            await scheduler.submit_jobs(every, atomic=False)
            await replicas.at_work(3, "every-")
            replicas.freeze(3)
            for number in range(kills):
                await asyncio.sleep(seconds / kills)
                await replicas.at_work(number % 2, "every-")
                replicas.kill(number % 2)
                if number == 1:
                    await asyncio.sleep(max(0.0, 2 * lease - 2 * seconds / kills))
                    replicas.thaw(3)
            for spec in every:
                await scheduler.remove_job(spec.id)
            until = time.monotonic() + 60
            while left := await unfinished(scheduler, replicas):
                assert time.monotonic() < until, f"{len(left)} are left: {sorted(left)[:5]}"
                await asyncio.sleep(1)
            await asyncio.to_thread(replicas.stop)
            return await history(scheduler)

    try:
        lines = asyncio.run(main())
        assert not replicas.errors()
        counted = judge(replicas.starts(), lines)
    finally:
        replicas.end()
        delete_streams(url, f"KV_{bucket}", f"KV_{bucket}-lines")
    ended = {line.job_id for line in lines if line.final}
    assert {f"shot-{n}" for n in range(shots)} <= ended
    numbers: dict[str, set[int]] = defaultdict(set)
    for line in lines:
        if line.final and line.job_id.startswith("every-"):
            numbers[line.job_id].add(line.number)
    assert len(numbers) == recurring, "a chain never began"
    for job_id, seen in numbers.items():
        assert seen == set(range(1, max(seen) + 1)), f"the chain of {job_id} has gaps: {seen}"
    assert counted["lost claims"] > 0, "nothing was lost: the test shows nothing"
    print(f"\n{counted}, {replicas.kills} kills")  # noqa: T201 -- figures of the long form
