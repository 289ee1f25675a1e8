"""Calls that overlap, are cancelled, or have no answer: on one backend, against a real server."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from attrs import evolve
from tests.nats_shared import delete_streams, shared_server
from tests.proxy import Proxy

from sched_core import (
    Claim,
    Execution,
    ExecutionQuery,
    Interval,
    Job,
    Renewal,
    Room,
    Scheduler,
    Settlement,
    Status,
    SystemClock,
)
from sched_core.errors import BackendUnavailable, JobAlreadyExists
from sched_core.ports import MAX_POLL, Page
from sched_core.testing import FakeClock
from sched_jetstream import JetStreamBackend
from sched_testkit._suite.builders import execution_of, occurrence_of, success_of

BUCKET = "overlapping"
LEASE = timedelta(seconds=6)
TIMEOUT = timedelta(seconds=0.5)


@pytest.fixture(autouse=True)
def fresh() -> Any:
    yield
    delete_streams(shared_server().url, f"KV_{BUCKET}", f"KV_{BUCKET}-lines")


def backend(url: str | None = None, **settings: Any) -> JetStreamBackend:
    return JetStreamBackend(
        url or shared_server().url,
        job_bucket=BUCKET,
        execution_bucket=f"{BUCKET}-lines",
        lease=LEASE,
        **{"timeout": TIMEOUT, **settings},
    )


@asynccontextmanager
async def opened(
    store: JetStreamBackend, worker: str = "one", clock: Any = None
) -> AsyncIterator[JetStreamBackend]:
    await store.open(clock or SystemClock(), worker=worker)
    try:
        yield store
    finally:
        await store.close()


async def due(*ids: str) -> None:
    """Store jobs that are due now, and every hour."""
    async with Scheduler(backend()) as scheduler:
        for job_id in ids:
            await scheduler.ensure_job(job_id, Interval(hours=1))
            await scheduler.trigger_job(job_id)


async def claimed(store: JetStreamBackend, wanted: int, seconds: float) -> list[Claim]:
    """Claim until so many are there."""
    claims: list[Claim] = []
    until = time.monotonic() + seconds
    while len(claims) < wanted and time.monotonic() < until:
        claims += (await store.claim_due(Room(wanted))).claims
        await asyncio.sleep(0.02)
    return claims


def stall_at_the_next_write(store: JetStreamBackend, proxy: Proxy) -> None:
    """Have the way to the server stall when something is about to be written."""
    assert store._session is not None
    writer = store._session.writer
    submit = writer.submit

    def stalling(*steps: Any) -> Any:
        writer.submit = submit  # type: ignore[method-assign]
        proxy.stall()
        return submit(*steps)

    writer.submit = stalling  # type: ignore[method-assign]


def through(proxy: Proxy) -> str:
    return f"nats://127.0.0.1:{proxy.port}"


def test_a_claim_without_an_answer_is_found_by_the_worker_that_wrote_it() -> None:
    """Another worker that gets the hints sees that the jobs are held, and leaves them alone."""

    async def main(proxy: Proxy) -> None:
        await due("a", "b")
        async with opened(backend(through(proxy))) as one, opened(backend(), "two") as two:
            stall_at_the_next_write(one, proxy)
            with pytest.raises(BackendUnavailable):
                await one.claim_due(Room(10))
            began = time.monotonic()
            proxy.heal()
            assert await claimed(two, 1, 2.0) == []  # and keeps all hints for a lease
            claims = await claimed(one, 2, 2.0)
            assert {claim.job.id for claim in claims} == {"a", "b"}
            assert time.monotonic() - began < LEASE.total_seconds()
            assert [occurrence_of(claim).attempts for claim in claims] == [0, 0]
            assert len(await one.renew([*map(Renewal, claims)])) == 2

    with Proxy(("127.0.0.1", shared_server().port)) as proxy:
        asyncio.run(main(proxy))


def test_a_claim_that_is_given_back_without_an_answer_is_free_before_its_lease_ends() -> None:
    async def main(proxy: Proxy) -> None:
        await due("a")
        async with opened(backend(through(proxy))) as one, opened(backend(), "two") as two:
            claims = await claimed(one, 1, 5.0)
            stall_at_the_next_write(one, proxy)
            releasing = asyncio.create_task(one.release(claims))
            await asyncio.sleep(3 * TIMEOUT.total_seconds())
            proxy.heal()
            await releasing
            (again,) = await claimed(two, 1, 2.0)
            assert occurrence_of(again).attempts == 0

    with Proxy(("127.0.0.1", shared_server().port)) as proxy:
        asyncio.run(main(proxy))


def test_what_is_decided_late_and_not_fetched_is_given_back() -> None:
    """All handlers may be busy by then, and no call claims."""

    async def main(proxy: Proxy) -> None:
        await due("a")
        slow = backend(through(proxy), timeout=LEASE)
        async with opened(slow) as one, opened(backend(), "two") as two:
            stall_at_the_next_write(one, proxy)
            assert not (await one.claim_due(Room(10))).claims
            proxy.heal()
            (claim,) = await claimed(two, 1, LEASE.total_seconds() * 0.6)
            assert occurrence_of(claim).attempts == 0

    with Proxy(("127.0.0.1", shared_server().port)) as proxy:
        asyncio.run(main(proxy))


def test_two_claims_at_once_share_what_is_due() -> None:
    async def main() -> None:
        ids = {f"job-{number}" for number in range(30)}
        await due(*ids)
        async with opened(backend()) as store:
            claims: list[Claim] = []
            async with asyncio.timeout(10):
                while len(claims) < len(ids):
                    for each in await asyncio.gather(
                        *(store.claim_due(Room(20)) for _ in range(4))
                    ):
                        claims += each.claims
            assert {claim.job.id for claim in claims} == ids
            assert len(claims) == len(ids)
            assert len(await store.renew([*map(Renewal, claims)])) == len(ids)

    asyncio.run(main())


def test_calls_of_all_kinds_overlap() -> None:
    async def main() -> None:
        ids = [f"job-{number}" for number in range(12)]
        await due(*ids)
        async with opened(backend()) as store:
            claims = await claimed(store, len(ids), 5.0)
            new = [evolve_id(claims[0].job, f"new-{number}") for number in range(10)]
            added = await asyncio.gather(
                *(store.add([job]) for job in new for _ in range(2)),
                store.add([evolve(new[0], uid="another")]),
                store.renew([*map(Renewal, claims)]),
                store.renew([*map(Renewal, claims)]),
                store.release(claims[:4]),
                store.settle([settlement(claim) for claim in claims[4:]]),
                store.settle([settlement(claim) for claim in claims[4:]]),
                store.claim_due(Room(5)),
                store.wait_due(Room(5)),
                store.wait_due(Room(5)),
                store.check(),
                return_exceptions=True,
            )
            # Of the three that add the same id, the first decides.
            refused = [each for each in added if isinstance(each, BaseException)]
            assert all(isinstance(error, JobAlreadyExists) for error in refused), refused
            assert len(refused) <= 2
            found = (await store.executions(ExecutionQuery(), after=None, limit=100)).items
            assert sorted(each.job_id for each in written(found)) == sorted(ids[4:])

    def written(found: Any) -> list[Execution]:
        return [each for each in found if isinstance(each, Execution)]

    asyncio.run(main())


def evolve_id(job: Job, job_id: str) -> Job:
    return evolve(job, uid=f"uid-{job_id}", revision=0, spec=evolve(job.spec, id=job_id))


def settlement(claim: Claim) -> Settlement:
    now = datetime.now(UTC)
    return success_of(claim, now, due=now + timedelta(hours=1), keep=True, requests=())


def test_a_settlement_leaves_executions_alone_that_are_stored() -> None:
    """Also that of an attempt that was not the last: a second claim of it may bring it again."""

    async def main() -> None:
        await due("a")
        async with opened(backend()) as store:
            (first,) = await claimed(store, 1, 5.0)
            again = evolve(first.job.standing, due_at=datetime.now(UTC))
            failed = execution_of(first, datetime.now(UTC), Status.FAILED, final=False)
            (answer,) = await store.settle(
                [Settlement(first, first.job.revision, again, (failed,))]
            )
            assert answer.outcome == "written"
            (second,) = await claimed(store, 1, 5.0)
            other = execution_of(second, datetime.now(UTC), Status.INTERRUPTED, attempt=1)
            await store.settle([Settlement(second, second.job.revision, again, (other,))])
            page: Page[Any] = await store.executions(ExecutionQuery(), after=None, limit=10)
            (stored,) = page.items
            assert (stored.status, stored.token) == (Status.FAILED, first.token)

    asyncio.run(main())


async def _soon(call: Awaitable[Any], seconds: float) -> float:
    """Cancel a call when it is under way; return how long it then takes to return."""
    task = asyncio.ensure_future(call)
    await asyncio.sleep(seconds)
    began = time.monotonic()
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()
    return time.monotonic() - began


def test_a_cancelled_call_returns_at_once_and_closing_ends_whatever_the_server_does() -> None:
    async def main(proxy: Proxy) -> None:
        await due("a", "b", "c")
        soon = timedelta(seconds=1)  # until what it was told of is told to others
        store = backend(through(proxy), timeout=timedelta(seconds=30), ack_wait=soon)
        async with opened(backend(ack_wait=soon), "two") as two:
            await store.open(SystemClock(), worker="one")
            (claim,) = (await store.claim_due(Room(1))).claims
            proxy.stall()
            calls: list[Callable[[], Awaitable[Any]]] = [
                lambda: store.claim_due(Room(5)),
                lambda: store.settle([settlement(claim)]),
                lambda: store.release([claim]),
                lambda: store.renew([Renewal(claim)]),
                lambda: store.add([evolve_id(claim.job, "new")]),
                lambda: store.get("a"),
                store.check,
            ]
            took = [await _soon(call(), 0.1) for call in calls]
            assert max(took) < 1.0, took
            began = time.monotonic()
            await store.close()
            assert time.monotonic() - began < 10.0
            proxy.heal()
            claims = await claimed(two, 2, 10.0)
            lost = {each.job.id for each in claims if occurrence_of(each).attempts}
            assert {each.job.id for each in claims} & {"b", "c"}
            assert lost <= {"a"}, "a cancelled claim_due kept what it had claimed"

    with Proxy(("127.0.0.1", shared_server().port)) as proxy:
        asyncio.run(main(proxy))


def test_waiting_ends_in_real_time_also_where_the_clock_is_set_back() -> None:
    async def wait(store: JetStreamBackend) -> None:
        clock = FakeClock(datetime.now(UTC))
        async with opened(store, clock=clock):
            began = time.monotonic()
            waiting = asyncio.create_task(store.wait_due(Room(5)))
            await asyncio.sleep(0.2)
            clock.jump(-timedelta(days=1))
            await waiting
            assert time.monotonic() - began < MAX_POLL.total_seconds() + 2

    async def main() -> None:
        await asyncio.gather(wait(backend(time="store")), wait(backend(time="clock")))

    asyncio.run(main())


def test_an_answer_that_came_while_the_loop_was_blocked_is_read() -> None:
    """A handler that computes in the loop does so, or a machine that stops the process."""

    async def main() -> None:
        await due("a")
        async with opened(backend()) as store:
            for turns in (2, 5, 9):
                asking = asyncio.create_task(store.get("a"))
                for _ in range(turns):
                    await asyncio.sleep(0)
                time.sleep(2 * TIMEOUT.total_seconds())  # noqa: ASYNC251 -- that is what is tried
                assert isinstance(await asking, Job)

    asyncio.run(main())
