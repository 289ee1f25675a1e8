"""One story of all that operates runs, for stores whose own tests lie elsewhere."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any

import anyio
from tests.core.running import running, until, wait_for_executions

from sched_core import (
    ExecutionQuery,
    Interval,
    JobEvent,
    JobQuery,
    Kind,
    Once,
    Policy,
    Retry,
    Scheduler,
    Status,
    SystemClock,
)
from sched_core.testing import FakeClock, history

HOUR = timedelta(hours=1)
FAILED = ExecutionQuery(statuses=frozenset({Status.FAILED}))


async def operated(make: Callable[[], Any], catch_up: Callable[[Any], Awaitable[None]]) -> None:
    """Cancel, retry, trigger, rerun and backfill on a store; read all of it from another instance.

    Args:
        make: Makes an instance that is on the clock given to ``open``.
        catch_up: Has an instance see at once what is due.
    """
    clock, events = FakeClock(), list[JobEvent]()

    async def handle(event: JobEvent) -> None:
        events.append(event)
        if event.kind is Kind.SCHEDULED and event.attempt == 1:
            raise ValueError("no")

    async with (
        Scheduler(make(), handler=handle, clock=clock) as scheduler,
        Scheduler(make(), clock=clock) as other,
    ):

        async def runs(expected: int) -> None:
            await catch_up(scheduler.backend)
            assert await scheduler.run_due() == expected

        policy = Policy(retry=Retry(attempts=2, backoff=HOUR / 2))
        job = await scheduler.ensure_job("a", Interval(hours=1), policy=policy)
        assert [each async for each in other.list_jobs(JobQuery(uid=job.uid))] == [job]

        key = await scheduler.trigger_job("a", args={"a": "ü"}, request_key="k", actor="ann")
        assert await other.trigger_job("a", request_key="k") == key
        assert (await other.get_job("a")).standing.requests[0].actor == "ann"
        await runs(1)
        assert (events[-1].key, events[-1].args) == (key, {"a": "ü"})
        (first,) = await history(other, "a")
        assert (first.actor, first.args) == ("ann", {"a": "ü"})

        again = await other.rerun(first.id, actor="bob")
        await other.pause_job("a", reason="r", actor="cleo")
        await other.cancel_run(again, reason="why ü", actor="dan")
        stored = (await scheduler.get_job("a")).standing
        assert stored.pause is not None
        assert (stored.pause.reason, stored.pause.actor) == ("r", "cleo")
        assert [(each.reason, each.actor) for each in stored.cancels] == [("why ü", "dan")]
        await runs(0)
        cancelled = (await history(other, "a"))[0]
        assert (cancelled.status, cancelled.reason) == (Status.CANCELLED, "why ü")
        assert (cancelled.actor, cancelled.args) == ("dan", {"a": "ü"})

        await other.resume_job("a")
        await other.skip_next("a", moment=job.anchor + 3 * HOUR, actor="eve")
        assert (await scheduler.get_job("a")).standing.skip_actor == "eve"
        for _ in range(2):
            clock.advance(HOUR)
            await runs(1)
            await other.retry_now(job_id="a", actor="fay")
            await runs(1)
        clock.advance(HOUR)
        await runs(0)
        told = [(each.status.value, each.actor) for each in await history(other, "a")][:3]
        assert told == [("skipped", "eve"), ("succeeded", "fay"), ("failed", None)]

        await other.update_job("a", policy=Policy())
        for _ in range(3):
            clock.advance(HOUR)
            await runs(1)
        (asked,) = await other.rerun_all(FAILED, actor="gus")
        assert asked.moments == 3
        (one,) = (await scheduler.get_job("a")).standing.requests
        assert (one.actor, len(one.moments)) == ("gus", 2)
        await runs(3)
        assert await other.rerun_all(FAILED) == []
        filled = await other.backfill_job("a", job.anchor + HOUR, job.anchor + 4 * HOUR)
        assert filled is not None
        assert filled.moments == 4
        await runs(4)


async def cancelled_elsewhere(make: Callable[[], Any]) -> None:
    """Cancel runs of one scheduler by another one, on clocks that go: by key, and with the job.

    Args:
        make: Makes an instance with a short lease.
    """
    begun, told = list[str](), list[str]()

    async def handler(event: JobEvent) -> None:
        begun.append(event.key)
        try:
            await anyio.sleep_forever()
        finally:
            told.append(event.key)

    past = Once(SystemClock().now() - timedelta(seconds=1))
    async with running(make(), handler) as scheduler, Scheduler(make()) as other:
        for job_id in ("a", "b"):
            await other.submit_job(job_id, past, policy=Policy(retry=Retry(attempts=3)))
            await until(lambda: begun)
            if job_id == "a":
                assert await other.cancel_run(begun[0], reason="why", actor="ann") == begun[0]
            else:
                await other.remove_job("b", cancel=True, reason="why", actor="ann")
            (execution,) = await wait_for_executions(scheduler, 1, job_id, within=30)
            assert (execution.status, execution.final) == (Status.CANCELLED, True)
            assert (execution.reason, execution.actor) == ("why", "ann")
            assert told == begun
            begun.clear()
            told.clear()
