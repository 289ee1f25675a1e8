"""Waking: when waiting ends, and what a clock that was set does."""

from __future__ import annotations

import functools
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import anyio
import anyio.lowlevel

from sched_core import Backend, Policy, Room
from sched_core.clock import pause
from sched_core.ports import MAX_POLL
from sched_testkit._suite.bench import Bench
from sched_testkit.laws.law import granular, law


@asynccontextmanager
async def a_wait(
    bench: Bench,
    backend: Backend,
    otherwise: str = "wait_due did not return",
    *,
    limit: int = 10,
    begins_within: float = 0.02,
    **room: Any,
) -> AsyncIterator[anyio.Event]:
    """Start waiting, yield what is set when the wait has ended, and expect it to end.

    Args:
        bench: The bench of the law.
        backend: The one that waits.
        otherwise: What is wrong if it does not end.
        limit: How many jobs are wanted.
        room: The queues that it wants, and what it accepts; all unless given.
        begins_within: Seconds until the body runs: it waits then, also where it does in a thread.
    """
    ended = anyio.Event()

    async def wait() -> None:
        await backend.wait_due(Room(limit, **room))
        ended.set()

    with anyio.move_on_after(bench.harness.patience) as scope:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(wait)
            await pause(begins_within)
            yield ended
            await ended.wait()
    assert not scope.cancelled_caught, otherwise


async def _returns(bench: Bench, backend: Backend, step: Callable[[], Awaitable[object]]) -> None:
    """Start waiting, do the step, and expect the wait to end."""
    async with a_wait(bench, backend):
        await step()


async def stays(bench: Bench, backend: Backend, **room: Any) -> None:
    """Expect that waiting does not end on its own."""
    with anyio.move_on_after(min(0.5, bench.harness.patience / 2)) as scope:
        await backend.wait_due(Room(10, **room))
    assert scope.cancelled_caught, "wait_due returned although nothing is due"


@law
async def waiting_ends_when_something_is_due(bench: Bench) -> None:
    """Wait_due returns at once where something is due, and when its moment comes."""
    backend = await bench.open()
    await bench.added(backend, bench.job("soon", due=bench.clock.now() + timedelta(seconds=3)))

    async def pass_time() -> None:
        await bench.advance(seconds=3)

    await _returns(bench, backend, pass_time)

    async def nothing() -> None: ...

    await _returns(bench, backend, nothing)


@law
async def waiting_ends_after_the_longest_poll(bench: Bench) -> None:
    """Wait_due never waits longer than the longest poll, even if nothing is due for years."""
    backend = await bench.open()
    await bench.added(backend, bench.job(due=bench.clock.now() + timedelta(days=999)))

    async def pass_time() -> None:
        await bench.advance(MAX_POLL)

    await _returns(bench, backend, pass_time)


@law
async def waiting_does_not_spin(bench: Bench) -> None:
    """While nothing is due and nothing changes, wait_due waits, be it for the shortest time."""
    backend = await bench.open()
    now = bench.clock.now()
    await bench.added(backend, bench.job("later", due=now + timedelta(seconds=4)))
    await bench.added(backend, bench.job("soon", due=now + granular(backend)))
    await bench.added(backend, bench.job("expired"))
    claim = await bench.claim(backend)
    execution = bench.execution(claim, expires_at=now)
    ended = bench.settlement(claim, executions=[execution], expires_at=now)
    await bench.settle(backend, ended)
    await stays(bench, backend)


@law
async def a_held_job_does_not_end_waiting(bench: Bench) -> None:
    """A due job that is claimed ends no wait before its lease ends, and then it does, once."""
    one = await bench.open()
    two = await bench.open()
    await bench.added(one, bench.job())
    await bench.claim(one)
    await bench.advance(bench.lease - timedelta(seconds=3))
    for backend in (one, two):
        await stays(bench, backend)

    async def pass_time() -> None:
        await bench.advance(seconds=3)

    await _returns(bench, two, pass_time)
    assert len(await bench.lapse(two)) == 1


@law
async def an_edit_wakes_who_waits(bench: Bench) -> None:
    """A job that an edit makes due at once wakes a waiting call, whichever backend edited it."""
    one = await bench.open()
    two = await bench.open()
    for editor in (one, two):
        job_id = f"job-{editor is one}"
        (job,) = await bench.added(one, bench.job(job_id, due=None))
        due = bench.put_off(job, bench.clock.now())
        await _returns(bench, one, functools.partial(editor.replace, due))
        assert (await bench.claim(one)).job.id == job_id


@law
async def a_release_wakes_who_waits(bench: Bench) -> None:
    """A job that is released wakes a waiting call, whichever backend released it."""
    one = await bench.open()
    two = await bench.open()
    await bench.added(one, bench.job())
    for holder in (one, two):
        claim = await bench.claim(holder)
        await _returns(bench, one, functools.partial(holder.release, [claim]))


@law
async def an_earlier_job_wakes_who_waits(bench: Bench) -> None:
    """A job that is due at once wakes a waiting call, whichever backend added it."""
    one = await bench.open()
    two = await bench.open()
    await bench.added(one, bench.job("far", due=bench.clock.now() + timedelta(days=1)))

    async def add_here() -> None:
        await bench.added(one, bench.job("here"))

    await _returns(bench, one, add_here)
    assert [claim.job.id for claim in await bench.due(one, 10)] == ["here"]

    async def add_there() -> None:
        await bench.added(two, bench.job("there"))

    await _returns(bench, one, add_there)
    assert [claim.job.id for claim in await bench.due(one, 10)] == ["there"]


@law
async def a_settlement_wakes_who_waits(bench: Bench) -> None:
    """A settlement after which a job is due at once wakes a waiting call, whichever settled it."""
    one = await bench.open()
    two = await bench.open()
    for holder in (one, two):
        job_id = f"job-{holder is one}"
        await bench.added(one, bench.job(job_id))
        claim = await bench.claim(holder)
        again = bench.settlement(claim, due=bench.clock.now())
        await _returns(bench, one, functools.partial(bench.settle, holder, again))
        claim = await bench.claim(one)
        assert (claim.job.id, bench.pending(claim).number) == (job_id, 2)


@law
async def a_clock_set_back_loses_nothing(bench: Bench) -> None:
    """After the clock was set back, nothing is handed out twice, and what is due then is."""
    one = await bench.open()
    two = await bench.open()
    now = bench.clock.now()
    await bench.added(one, bench.job("held"), bench.job("later", due=now + timedelta(minutes=1)))
    held = await bench.claim(one)
    await bench.advance(timedelta(hours=-1))
    assert not await bench.due(two, 10), "a held job was handed out after the clock went back"
    assert (await bench.settle(one, bench.settlement(held))).outcome == "written"
    half = bench.job("half", due=bench.clock.now() + timedelta(minutes=30))
    await bench.added(one, bench.job("new"), half)
    assert [claim.job.id for claim in await bench.due(two, 10)] == ["new"]
    await bench.advance(timedelta(hours=1, minutes=1))
    assert "later" in {claim.job.id for claim in await bench.due(one, 10)}


@law
async def a_clock_set_forward_hands_out_what_is_due(bench: Bench) -> None:
    """After the clock was set forward, everything due is handed out once, oldest first."""
    backend = await bench.open()
    now = bench.clock.now()
    await bench.added(backend, *(bench.job(f"{n}", due=now + timedelta(days=n)) for n in (3, 1, 2)))
    await bench.advance(days=3650)
    assert [claim.job.id for claim in await bench.due(backend, 10)] == ["1", "2", "3"]
    assert not await bench.due(backend, 10)


POLLS = 20
"""Moves of the clock: a slow store may have begun to wait only after the first of them."""


@law
async def a_clock_set_back_holds_up_no_wait(bench: Bench) -> None:
    """A wait that is under way when the clock is set back ends within the longest poll by it."""
    backend = await bench.open()
    await bench.added(backend, bench.job("far", due=bench.clock.now() + timedelta(seconds=4)))
    async with a_wait(bench, backend) as ended:
        await bench.advance(timedelta(hours=-1))
        for _ in range(POLLS):
            if ended.is_set():
                break
            await pause(0.05)
            await bench.advance(MAX_POLL)
    assert not await bench.due(backend, 10)
    await bench.added(backend, bench.job("new"))
    assert (await bench.claim(backend)).job.id == "new"


@law
async def the_end_of_any_lease_ends_waiting(bench: Bench) -> None:
    """A lease that ends wakes who waits, also where an edit has put its job off or removed it.

    Once that was taken note of, nothing is to be done, and waiting goes on.
    """
    one = await bench.open()
    two = await bench.open()
    for how in ("paused", "later", "removed"):
        await bench.added(one, bench.job(how))
        await bench.claim(one)
        held = await bench.stored(two, how)
        if how == "removed":
            await two.remove(held)
        else:
            due = None if how == "paused" else bench.clock.now() + timedelta(days=1)
            await two.replace(bench.put_off(held, due))
        await bench.advance(bench.lease - timedelta(seconds=3))
        await stays(bench, two)
        await _returns(bench, two, functools.partial(bench.advance, timedelta(seconds=3)))
        assert await bench.lapse(two), "the end of its lease has left nothing to write"
        await stays(bench, two)


@law
async def what_waits_after_a_lost_claim_wakes_at_its_moment(bench: Bench) -> None:
    """After a lost claim who waits is woken when the wait of its occurrence is over, not before."""
    one, two = await bench.open(), await bench.open()
    await bench.added(one, bench.job(policy=Policy(max_lost=9)))
    await bench.claim(one)
    for _ in range(3):
        await bench.take_over(two)
    await bench.advance(bench.lease)
    await bench.lapse(two)
    due = (await bench.stored(one)).standing.due_at
    assert due is not None
    await stays(bench, one)
    await _returns(bench, one, functools.partial(bench.advance, due - bench.clock.now()))
    assert (await bench.claim(one)).job.id == "job"


@law
async def a_cancelled_wait_takes_no_wake_with_it(bench: Bench) -> None:
    """After waits were cancelled, the next one is woken by the first job that is due earlier."""
    backend = await bench.open()
    await bench.added(backend, bench.job("far", due=bench.clock.now() + timedelta(days=1)))
    for _ in range(3):
        with anyio.move_on_after(0.02) as scope:
            await backend.wait_due(Room(10))
        assert scope.cancelled_caught, "wait_due returned although nothing is due"
    await _returns(bench, backend, functools.partial(bench.added, backend, bench.job()))
    assert (await bench.claim(backend)).job.id == "job"


@law
async def every_wait_is_woken(bench: Bench) -> None:
    """Each of several waits at once is woken by a job that is due earlier, from any backend."""
    one, two = await bench.open(), await bench.open()
    await bench.added(one, bench.job("far", due=bench.clock.now() + timedelta(days=1)))
    for writer in (one, two):
        async with (
            a_wait(bench, one, "the first of two waits was not woken"),
            a_wait(bench, one, "the second of two waits was not woken"),
            a_wait(bench, two, "the wait of another instance was not woken"),
        ):
            await bench.added(writer, bench.job())
        await bench.remove(writer, "job")


@law
async def what_is_added_while_a_wait_begins_ends_it(bench: Bench) -> None:
    """A job that is due earlier ends a wait, also if it came while the wait was looking."""
    one, two = await bench.open(), await bench.open()
    await bench.added(one, bench.job("far", due=bench.clock.now() + timedelta(days=1)))
    for turns in range(8):
        ended = anyio.Event()

        async def wait(ended: anyio.Event = ended) -> None:
            await one.wait_due(Room(10))
            ended.set()

        writer = two if turns % 2 else one
        with anyio.move_on_after(bench.harness.patience) as scope:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(wait)
                for _ in range(turns // 2 + 1):
                    await anyio.lowlevel.checkpoint()
                await bench.added(writer, bench.job())
                await ended.wait()
        assert not scope.cancelled_caught, "wait_due missed a job that came while it began"
        await bench.remove(one, "job")
