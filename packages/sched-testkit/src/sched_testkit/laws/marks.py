"""Runs that are marked to be cancelled: how their worker is woken, apart from its renewals."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import anyio
from attrs import evolve

from sched_core import Backend, BackendError, CancelMark, Claim
from sched_core.clock import pause
from sched_core.ports import MAX_POLL
from sched_testkit._suite.bench import Bench
from sched_testkit._suite.processes import open_there
from sched_testkit.laws.durability import THERE, other
from sched_testkit.laws.law import hears_others, law, transactional
from sched_testkit.laws.transactions import callers
from sched_testkit.laws.wakeups import POLLS, a_wait


def heard(capabilities: Any, harness: Any) -> str | None:
    """Applies where what another backend writes wakes at once."""
    return None if capabilities.notified else "notified is not declared"


def heard_in_transactions(capabilities: Any, harness: Any) -> str | None:
    """Applies where a caller's transaction wakes at once."""
    return transactional(capabilities, harness) or heard(capabilities, harness)


@asynccontextmanager
async def a_wait_for_marks(
    bench: Bench, backend: Backend, otherwise: str
) -> AsyncIterator[list[bool]]:
    """Start waiting, yield where the answer comes, and expect the wait to end."""
    answers: list[bool] = []
    ended = anyio.Event()

    async def wait() -> None:
        answers.append(await backend.wait_cancelled())
        ended.set()

    with anyio.move_on_after(bench.harness.patience) as scope:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(wait)
            await pause(0.05)
            yield answers
            await ended.wait()
    assert not scope.cancelled_caught, otherwise
    assert all(isinstance(answer, bool) for answer in answers), f"wait_cancelled said {answers}"


async def goes_on(bench: Bench, backend: Backend) -> bool:
    """Whether a wait for marks does not end on its own."""
    with anyio.move_on_after(min(0.5, bench.harness.patience / 2)) as scope:
        await backend.wait_cancelled()
    return scope.cancelled_caught


async def mark(bench: Bench, backend: Any, job_id: str, *numbers: int) -> None:
    """Mark occurrences of a job."""
    read, marks = await bench.stored(backend, job_id), tuple(map(CancelMark, numbers))
    await backend.replace(evolve(read, standing=evolve(read.standing, cancels=marks)))


async def expect_told(bench: Bench, backend: Backend, claim: Claim) -> None:
    """Expect that a renewal tells of the mark."""
    (renewed,) = await bench.renew(backend, [claim])
    assert renewed.cancel, "a run is marked, and the renewal does not tell"


@law
async def a_wait_for_marks_ends_by_the_longest_poll(bench: Bench) -> None:
    """Wait_cancelled ends by the longest poll, marked or not, also if the clock was set back."""
    backend = await bench.open()
    otherwise = "wait_cancelled went on after the longest poll"
    async with a_wait_for_marks(bench, backend, otherwise) as answers:
        await bench.advance(MAX_POLL)
    await bench.added(backend, bench.job())
    claim = await bench.claim(backend)
    async with a_wait_for_marks(bench, backend, otherwise) as answers:
        await bench.advance(timedelta(hours=-1))
        for _ in range(POLLS):
            if answers:
                break
            await pause(0.05)
            await bench.advance(MAX_POLL)
    assert answers
    assert (await bench.renew(backend, [claim]))[0].cancel is False


@law
async def a_mark_is_told_by_the_longest_poll(bench: Bench) -> None:
    """A mark on what a worker holds ends its wait by the longest poll, and its renewal tells."""
    one, two = await bench.open(), await bench.open()
    for marker in (one, two):
        await bench.added(one, bench.job(f"{marker is one}"))
        claim = await bench.claim(one)
        otherwise = "a mark did not end wait_cancelled, nor did the longest poll"
        async with a_wait_for_marks(bench, one, otherwise):
            await mark(bench, marker, claim.job.id, 1)
            await bench.advance(MAX_POLL)
        await expect_told(bench, one, claim)
        await bench.settle(one, bench.settlement(claim))


@law
async def waiting_for_marks_does_not_spin(bench: Bench) -> None:
    """While nothing is marked wait_cancelled waits, be it after a mark that was told already."""
    one, two = await bench.open(), await bench.open()
    assert await goes_on(bench, one), "wait_cancelled returned, and nothing is stored"
    await bench.added(one, bench.job(), bench.job("idle", due=None))
    claim = await bench.claim(one)
    assert await goes_on(bench, one), "wait_cancelled returned, and nothing is marked"
    await mark(bench, two, "job", 1)
    await expect_told(bench, one, claim)
    waits = [await goes_on(bench, one) for _ in range(3)]
    assert waits[-1], "wait_cancelled returns again and again for a mark that was told"
    waits = [await goes_on(bench, two) for _ in range(3)]
    assert waits[-1], "wait_cancelled returns again and again to a worker that holds nothing"


@law
async def closing_ends_a_wait_for_marks(bench: Bench) -> None:
    """A wait_cancelled under way when its backend is closed ends: it returns, or says why not."""
    backend = await bench.open()
    ended = anyio.Event()

    async def wait() -> None:
        try:
            await backend.wait_cancelled()
        except BackendError:
            pass  # it says that it is closed
        ended.set()

    with anyio.move_on_after(bench.harness.patience) as scope:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(wait)
            await pause(0.02)
            assert not ended.is_set(), "wait_cancelled returned although nothing is marked"
            await backend.close()
            await ended.wait()
    assert not scope.cancelled_caught, "wait_cancelled went on after close"


@law
async def a_wait_for_marks_leaves_other_waits_alone(bench: Bench) -> None:
    """While wait_cancelled waits, wait_due ends when a job is due, and that ends it alone."""
    one = await bench.open()
    await bench.added(one, bench.job("held"))
    await bench.claim(one)
    async with anyio.create_task_group() as tasks:
        ended = anyio.Event()

        async def wait() -> None:
            await one.wait_cancelled()
            ended.set()

        tasks.start_soon(wait)
        async with a_wait(bench, one, "wait_due did not end while wait_cancelled waits"):
            await bench.added(one, bench.job())
        assert not ended.is_set(), "a job that is due has ended wait_cancelled"
        tasks.cancel_scope.cancel()
    assert (await bench.claim(one)).job.id == "job"


# -- at once, where the store can wake


@law(needs=heard)
async def a_mark_wakes_its_worker(bench: Bench) -> None:
    """A mark on what a worker holds ends its wait at once with True, whichever backend made it."""
    one, two = await bench.open(), await bench.open()
    for marker in (one, two):
        names = [f"{marker is one} {n}" for n in range(2)]
        await bench.added(one, *(bench.job(name) for name in names))
        claims = await bench.due(one)
        for claim in claims:
            otherwise = "a mark ended no wait"
            async with a_wait_for_marks(bench, one, otherwise) as answers:
                await mark(bench, marker, claim.job.id, 1)
            assert answers == [True], "a wait that a mark has ended says that none is there"
            await expect_told(bench, one, claim)
        await one.settle([bench.settlement(claim) for claim in claims])


@law(needs=heard)
async def a_mark_before_the_wait_is_not_missed(bench: Bench) -> None:
    """A mark that was made since the last wait, or before the first one, ends the next at once."""
    one, two = await bench.open(), await bench.open()
    for turn in range(3):
        await bench.added(one, bench.job(f"{turn}"))
        claim = await bench.claim(one)
        with anyio.move_on_after(0.05):
            while turn:
                await one.wait_cancelled()
        await mark(bench, two, f"{turn}", 1)
        async with a_wait_for_marks(bench, one, "a mark was missed") as answers:
            pass
        assert answers == [True]
        await expect_told(bench, one, claim)
        await bench.settle(one, bench.settlement(claim))


@law(needs=heard_in_transactions, examines="transactions")
async def a_mark_within_a_transaction_wakes_its_worker(bench: Bench) -> None:
    """A mark that a caller's transaction commits ends the worker's wait at once with True."""
    one, two = await bench.open(), await bench.open()
    await bench.added(one, bench.job())
    claim = await bench.claim(one)
    async with (
        a_wait_for_marks(bench, one, "a mark that was committed ended no wait") as answers,
        callers(bench, two) as store,
    ):
        await mark(bench, store, "job", 1)
    assert answers == [True]
    await expect_told(bench, one, claim)


async def mark_there(bench: Bench) -> None:
    """Mark the job in the other process."""
    await mark(bench, bench.backends[0], "job", 1)


@law(needs=hears_others, examines="notified", elsewhere=True)
async def a_mark_of_another_process_wakes_its_worker(bench: Bench) -> None:
    """A mark that another process makes ends the worker's wait at once with True."""
    backend, there = await bench.open(), other(bench)
    await there.call(open_there, THERE)
    await bench.added(backend, bench.job())
    claim = await bench.claim(backend)
    async with a_wait_for_marks(bench, backend, "another process ended no wait") as answers:
        await there.call(mark_there)
    assert answers == [True]
    await expect_told(bench, backend, claim)
