"""Runs that are cancelled: by the next moment of their schedule, or by a mark."""

from __future__ import annotations

import threading
import time
from typing import Any

import anyio
import pytest
from tests.core.running import (
    executions_of,
    gate,
    run,
    running,
    seconds,
    until,
    wait_for_executions,
)

from sched_core import (
    Execution,
    Interval,
    JobEvent,
    Kind,
    MemoryBackend,
    MemoryStore,
    Once,
    Policy,
    Retry,
    Room,
    Scheduler,
    Status,
)
from sched_core._rules import operate
from sched_core.testing import EPOCH, FakeClock

LEASE = seconds(30)
CANCELS = Policy(overlap="cancel", retry=Retry(attempts=3))
"""The schedule of a job whose runs last longer than it allows."""


class Endless:
    """A handler that runs until it is cancelled, in the loop or in a thread."""

    def __init__(self, *, in_thread: bool) -> None:
        self.events: list[JobEvent] = []
        self.told: list[str] = []
        self.over = threading.Event()
        self.handler: Any = self.in_thread if in_thread else self.in_loop

    async def in_loop(self, event: JobEvent) -> None:
        self.events.append(event)
        try:
            await anyio.sleep_forever()
        finally:
            if event.cancelled:
                self.told.append(event.key)

    def in_thread(self, event: JobEvent) -> None:
        self.events.append(event)
        while not event.cancelled and not self.over.is_set():
            time.sleep(0.005)
        if event.cancelled:
            self.told.append(event.key)


where = pytest.mark.parametrize("in_thread", [False, True], ids=["loop", "thread"])


@where
def test_the_next_moment_cancels_the_run_before(loop: str, in_thread: bool) -> None:
    clock, endless = FakeClock(), Endless(in_thread=in_thread)

    async def main() -> None:
        async with running(MemoryBackend(), endless.handler, clock=clock, grace=0) as scheduler:
            every = Interval(seconds=20, start=EPOCH)
            job = await scheduler.ensure_job("a", every, policy=CANCELS)
            for number in (1, 2, 3):
                await until(lambda: len(endless.events) == number)  # noqa: B023 -- awaited at once
                clock.advance(seconds(20))
                found = await wait_for_executions(scheduler, number)
                assert found[-1].status is Status.CANCELLED
                assert found[-1].reason == "the next occurrence's moment has come"
                assert (found[-1].final, found[-1].attempt) == (True, 1)
            moments = [each.scheduled_at for each in await executions_of(scheduler)]
            assert moments == [EPOCH + number * seconds(20) for number in range(3)]
            assert endless.told[:3] == [f"{job.uid}:{number}" for number in (1, 2, 3)]
            endless.over.set()

    run(loop, main)


@where
@pytest.mark.parametrize(
    ("timeout", "status"), [(5, Status.FAILED), (20, Status.FAILED), (60, Status.CANCELLED)]
)
def test_what_comes_first_of_timeout_and_deadline_decides(
    loop: str, in_thread: bool, timeout: float, status: Status
) -> None:
    clock, endless = FakeClock(), Endless(in_thread=in_thread)

    async def main() -> None:
        async with running(MemoryBackend(), endless.handler, clock=clock, grace=0) as scheduler:
            policy = Policy(overlap="cancel", timeout=seconds(timeout))
            await scheduler.ensure_job("a", Interval(seconds=20, start=EPOCH), policy=policy)
            await until(lambda: endless.events)
            clock.advance(seconds(min(timeout, 20)))
            (execution,) = await wait_for_executions(scheduler, 1)
            assert execution.status is status
            endless.over.set()

    run(loop, main)


def test_a_run_that_cannot_be_stopped_is_told_of_while_it_goes_on(loop: str) -> None:
    clock, begun = FakeClock(), threading.Event()

    async def main() -> None:
        with gate() as let_go:

            def handler(event: JobEvent) -> None:
                begun.set()
                let_go.wait()

            async with running(MemoryBackend(), handler, clock=clock) as scheduler:
                await scheduler.ensure_job("a", Interval(seconds=20, start=EPOCH), policy=CANCELS)
                await until(begun.is_set)
                clock.advance(seconds(20))

                async def notice() -> str:
                    return "".join((await scheduler.health()).notices)

                assert "past the next occurrence's moment" in await until(notice)
                assert await executions_of(scheduler) == []
                let_go.set()
                found = await wait_for_executions(scheduler, 1)
                assert found[0].status is Status.CANCELLED
                assert await notice() == ""

    run(loop, main)


async def mark(scheduler: Scheduler, job_id: str, number: int | None = None) -> None:
    """Mark an occurrence to be cancelled, as an operator does elsewhere."""
    job = await scheduler.get_job(job_id)
    marked = operate.cancel(job, now=job.held_at or EPOCH, number=number)
    await scheduler.backend.replace(marked)


@where
def test_a_mark_that_a_renewal_brings_ends_the_run_cancelled(loop: str, in_thread: bool) -> None:
    clock, endless = FakeClock(), Endless(in_thread=in_thread)

    async def main() -> None:
        backend = MemoryBackend(lease=LEASE)
        async with running(backend, endless.handler, clock=clock) as scheduler:
            job = await scheduler.submit_job("a", Once(EPOCH), policy=CANCELS)
            await until(lambda: endless.events)
            await mark(scheduler, "a")
            assert endless.told == []
            clock.advance(LEASE / 3)
            (execution,) = await wait_for_executions(scheduler, 1)
            assert (execution.status, execution.final) == (Status.CANCELLED, True)
            assert (execution.attempt, execution.reason) == (1, "cancelled")
            assert endless.told == [f"{job.uid}:1"]
            assert (await scheduler.get_job("a")).standing.cancels == ()
            assert (await scheduler.health()).claims_lost == 0

    run(loop, main)


def test_a_run_that_ends_before_the_renewal_has_ended_on_its_own(loop: str) -> None:
    clock, let_go, begun = FakeClock(), anyio.Event(), anyio.Event()

    async def handler(event: JobEvent) -> None:
        begun.set()
        await let_go.wait()
        if event.id == "fails":
            raise ValueError("no")

    async def main() -> None:
        async with running(MemoryBackend(lease=LEASE), handler, clock=clock) as scheduler:
            for job_id in ("ends", "fails"):
                await scheduler.submit_job(job_id, Once(EPOCH), policy=CANCELS)
            await begun.wait()
            await until(lambda: scheduler.snapshot().executing == 2)  # type: ignore[union-attr]
            for job_id in ("ends", "fails"):
                await mark(scheduler, job_id)
            let_go.set()
            found = {each.job_id: each for each in await wait_for_executions(scheduler, 2)}
            assert found["ends"].status is Status.SUCCEEDED
            assert (found["fails"].status, found["fails"].final) == (Status.CANCELLED, True)

    run(loop, main)


def test_one_that_waits_for_a_retry_ends_without_another_call(loop: str) -> None:
    clock, calls = FakeClock(), list[int]()

    async def handler(event: JobEvent) -> None:
        calls.append(event.attempt)
        raise ValueError("no")

    async def main() -> None:
        async with Scheduler(MemoryBackend(), handler=handler, clock=clock) as scheduler:
            policy = Policy(retry=Retry(attempts=3, backoff=seconds(600)))
            await scheduler.submit_job("a", Once(EPOCH), policy=policy)
            await scheduler.run_due()
            await mark(scheduler, "a", 1)
            await scheduler.run_due()
            statuses = [each.status for each in await executions_of(scheduler)]
            assert statuses == [Status.FAILED, Status.CANCELLED]
            assert calls == [1]

    run(loop, main)


def test_observers_are_told_of_claims_that_were_lost(loop: str) -> None:
    clock, store, told = FakeClock(), MemoryStore(), list[Execution]()

    def observer(what: object) -> None:
        if isinstance(what, Execution):
            told.append(what)

    async def handler(event: JobEvent) -> None:
        pass

    async def main() -> None:
        dead = MemoryBackend(store, lease=LEASE)
        await dead.open(clock, worker="dead")
        async with Scheduler(
            MemoryBackend(store, lease=LEASE), handler=handler, clock=clock, observers=[observer]
        ) as scheduler:
            await scheduler.submit_job("a", Once(EPOCH))
            assert (await dead.claim_due(Room(1))).claims
            clock.advance(LEASE)
            assert await scheduler.run_due() == 0
            assert [(each.status, each.worker) for each in told] == [(Status.ABANDONED, "dead")]
            clock.advance(seconds(1))
            assert await scheduler.run_due() == 1
            assert [each.attempt for each in told] == [1, 2]
            assert told == await executions_of(scheduler)

    run(loop, main)


def test_a_trigger_returns_the_key_of_its_occurrence(loop: str) -> None:
    clock, events = FakeClock(), list[JobEvent]()

    async def handler(event: JobEvent) -> None:
        events.append(event)

    async def main() -> None:
        async with Scheduler(MemoryBackend(), handler=handler, clock=clock) as scheduler:
            job = await scheduler.submit_job("a", Interval(hours=1))
            key = await scheduler.trigger_job("a")
            assert key == await scheduler.trigger_job("a") == f"{job.uid}:2"
            await scheduler.run_due()
            (event,) = events
            assert (event.key, event.kind, event.manual) == (key, Kind.TRIGGERED, True)
            (execution,) = await executions_of(scheduler)
            assert execution.id == f"{key}:1"
            assert await scheduler.trigger_job("a") != key

    run(loop, main)
