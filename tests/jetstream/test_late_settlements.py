"""A settlement that comes too late costs the same whatever the job has behind it.

A worker that was stopped for a while comes back with many of them. When each looked through the
whole history of its job, a request for every execution, a busy server answered nothing else.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from datetime import timedelta
from typing import Any

import anyio
import pytest
from tests.conformance.harnesses.jetstream import JetStreamHarness
from tests.nats_shared import delete_streams, shared_server

from sched_core import (
    ExecutionQuery,
    Interval,
    JobEvent,
    Policy,
    Room,
    Scheduler,
    Status,
    SystemClock,
)
from sched_jetstream import JetStreamBackend
from sched_jetstream._store.wire import Wire
from sched_testkit._suite.bench import Bench
from sched_testkit._suite.builders import occurrence_of

BUCKET = "late"
RUNS = 30
FEW = 12
NEWEST = ExecutionQuery(job_id="a")


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    yield
    delete_streams(shared_server().url, f"KV_{BUCKET}", f"KV_{BUCKET}-lines")


def backend() -> JetStreamBackend:
    return JetStreamBackend(
        shared_server().url,
        job_bucket=BUCKET,
        execution_bucket=f"{BUCKET}-lines",
        lease=timedelta(seconds=1),
    )


@asynccontextmanager
async def a_job_with_a_history() -> AsyncIterator[tuple[JetStreamBackend, JetStreamBackend]]:
    """Yield two workers; the job ``a`` is due, and has run many times."""

    async def handle(event: JobEvent) -> None:
        pass

    async with AsyncExitStack() as stack:
        scheduler = await stack.enter_async_context(Scheduler(backend(), handler=handle))
        await scheduler.submit_job("a", Interval(hours=1), policy=Policy(keep_executions=None))
        for _ in range(RUNS):
            await scheduler.trigger_job("a")
            assert await scheduler.run_due() == 1
        await scheduler.trigger_job("a")
        opened = []
        for name in ("late", "other"):
            each = backend()
            await each.open(SystemClock(), worker=name)
            stack.push_async_callback(each.close)
            opened.append(each)
        yield opened[0], opened[1]


@contextmanager
def requests(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Collect the subjects of what is asked of the server."""
    asked: list[str] = []
    with monkeypatch.context() as patched:
        for name in ("request", "collect"):
            patched.setattr(Wire, name, counted(getattr(Wire, name), asked))
        yield asked


def counted(call: Any, asked: list[str]) -> Any:
    async def counts(self: Wire, subject: str, *arguments: Any, **options: Any) -> Any:
        asked.append(subject)
        return await call(self, subject, *arguments, **options)

    return counts


@pytest.mark.parametrize("status", [Status.SUCCEEDED, Status.FAILED])
def test_what_comes_too_late_asks_few_questions(
    status: Status, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether it ends the occurrence or only an attempt."""
    bench = Bench(JetStreamHarness(), None)
    bench.clock = SystemClock()  # type: ignore[assignment]  # in it, only the time is asked for

    async def main() -> None:
        async with a_job_with_a_history() as (late, other):
            (claim,) = await claimed(late)
            (successor,) = await claimed(other)
            assert occurrence_of(successor).attempts == 1, "it took over"
            ended = bench.settlement(successor)
            assert (await other.settle([ended]))[0].outcome == "written"
            own = bench.execution(claim, status, final=status is Status.SUCCEEDED)
            with requests(monkeypatch) as asked:
                (answer,) = await late.settle([bench.settlement(claim, executions=[own])])
            assert answer.outcome == "claim_lost"
            assert len(asked) <= FEW, asked
            # A repeat whose executions are stored is known as one, by as few questions.
            with requests(monkeypatch) as asked:
                (answer,) = await other.settle([ended])
            assert answer.outcome == "written"
            assert len(asked) <= FEW, asked

    anyio.run(main)


async def claimed(worker: JetStreamBackend) -> Any:
    with anyio.fail_after(20):
        while not (claims := (await worker.claim_due(Room(10))).claims):
            await worker.wait_due(Room(10))
    return claims


def test_a_failed_attempt_asks_few_questions(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(JetStreamHarness(), None)
    bench.clock = SystemClock()  # type: ignore[assignment]  # as above

    async def main() -> None:
        async with a_job_with_a_history() as (late, _):
            (claim,) = await claimed(late)
            settlement = bench.retry(claim, due=bench.clock.now() + timedelta(hours=1))
            with requests(monkeypatch) as asked:
                (answer,) = await late.settle([settlement])
            assert answer.outcome == "written"
            assert len(asked) == 1, asked
            newest = await late.executions(NEWEST, after=None, limit=1)
            assert newest.items == list(settlement.executions)

    anyio.run(main)


def test_an_execution_is_found_however_long_ago_its_claim_was(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """More of them than one answer has came after it."""
    monkeypatch.setattr("sched_jetstream._store.history.BATCH", 7)
    bench = Bench(JetStreamHarness(), None)
    bench.clock = SystemClock()  # type: ignore[assignment]  # as above

    async def main() -> None:
        async with a_job_with_a_history() as (late, other):
            (claim,) = await claimed(late)
            settlement = bench.settlement(claim, due=bench.clock.now())
            assert (await late.settle([settlement]))[0].outcome == "written"
            for _ in range(20):
                (following,) = await claimed(other)
                again = bench.settlement(following, due=bench.clock.now())
                assert (await other.settle([again]))[0].outcome == "written"
            assert (await late.settle([settlement]))[0].outcome == "written"
            found = await bench.history(late, job_id="a")
            assert len(found) == RUNS + 21
            assert len({each.id for each in found}) == len(found)

    anyio.run(main)
