"""The end of a lease is seen by the server's own timers, whether or not its job is due."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from attrs import evolve
from tests.nats_shared import delete_streams, shared_server

from sched_core import (
    Claim,
    Execution,
    ExecutionQuery,
    Job,
    JobEvent,
    Once,
    Policy,
    Renewal,
    Room,
    Scheduler,
    SystemClock,
)
from sched_core.testing import history
from sched_jetstream import JetStreamBackend

BUCKET = "leases"
LEASE = timedelta(seconds=2)


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    yield
    delete_streams(shared_server().url, f"KV_{BUCKET}", f"KV_{BUCKET}-lines")


def backend(**settings: Any) -> JetStreamBackend:
    settings = {"lease": LEASE, "reconcile_interval": timedelta(hours=1)} | settings
    return JetStreamBackend(
        shared_server().url,
        job_bucket=BUCKET,
        execution_bucket=f"{BUCKET}-lines",
        **settings,
    )


async def claimed(store: JetStreamBackend, *ids: str) -> list[Claim]:
    claims: list[Claim] = []
    async with asyncio.timeout(20):
        while {claim.job.id for claim in claims} < set(ids):
            await store.wait_due(Room(10))
            claims += (await store.claim_due(Room(10))).claims
    return claims


async def die(store: JetStreamBackend) -> None:
    """Take away the connection and the tasks, as the system does with a dead process."""
    session, store._session = store._session, None
    assert session is not None
    session.background.stop()
    await session.wire.close()


async def until_abandoned(scheduler: Scheduler, ids: set[str]) -> list[Execution]:
    async with asyncio.timeout(30):
        while True:
            found = await history(scheduler, ExecutionQuery())
            if {each.job_id for each in found if each.status.value == "abandoned"} >= ids:
                return found
            await asyncio.sleep(0.05)


def test_a_lost_claim_is_noted_also_where_nothing_is_due() -> None:
    """Nothing but the server's redelivery of its hint tells of it: no reconciler goes by."""
    ran: list[str] = []

    async def handle(event: JobEvent) -> None:
        ran.append(event.id)

    async def main() -> None:
        ids = {"paused", "later", "removed", "plain"}
        later = datetime.now(UTC) + timedelta(days=1)
        async with Scheduler(backend(), handler=handle) as scheduler:
            for name in ids:
                await scheduler.submit_job(name, Once(datetime.now(UTC)))
            doomed = backend()
            await doomed.open(SystemClock(), worker="doomed")
            await claimed(doomed, *ids)
            await scheduler.pause_job("paused")
            await scheduler.remove_job("removed")
            job = await scheduler._backend.get("later")
            assert isinstance(job, Job)
            one = job.standing.scheduled
            assert one is not None
            standing = evolve(job.standing, scheduled=evolve(one, due_at=later), due_at=later)
            await scheduler._backend.replace(evolve(job, standing=standing))
            await die(doomed)
            task = asyncio.create_task(scheduler.run_forever(signals=False))
            found = await until_abandoned(scheduler, ids)
            ends = {each.job_id: each.status.value for each in found if each.final}
            assert ends.get("removed") == "superseded"
            async with asyncio.timeout(20):
                while ran != ["plain"]:
                    await asyncio.sleep(0.05)
            await scheduler.stop(1)
            await task

    asyncio.run(main())
    assert ran == ["plain"]


def test_a_finished_job_is_not_deleted_under_its_claim() -> None:
    """The server deletes finished jobs by their age, and would take the hold with them."""

    async def main() -> None:
        async with Scheduler(backend()) as scheduler:
            short = Policy(keep_finished=timedelta(seconds=1))
            await scheduler.submit_job("a", Once(datetime.now(UTC)), policy=short)
            store = backend()
            await store.open(SystemClock(), worker="one")
            (claim,) = await claimed(store, "a")
            job = await scheduler._backend.get("a")
            assert isinstance(job, Job)
            now = datetime.now(UTC)
            finished = evolve(
                job.standing, scheduled=None, due_at=None, expires_at=now + timedelta(seconds=1)
            )
            await scheduler._backend.replace(evolve(job, standing=finished))
            for _ in range(5):
                await asyncio.sleep(LEASE.total_seconds() / 3)
                assert await store.renew([Renewal(claim)]), "its hold was deleted with it"
            await store.release([claim])
            async with asyncio.timeout(20):
                while await scheduler._backend.get("a") is not None:
                    await asyncio.sleep(0.1)
            (ended,) = await history(scheduler, ExecutionQuery())
            assert ended.status.value == "superseded"
            await store.close()

    asyncio.run(main())
