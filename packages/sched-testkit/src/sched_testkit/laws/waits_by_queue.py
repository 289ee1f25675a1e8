"""What ends the wait of a worker that does not take every job."""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any

from attrs import evolve

from sched_core import Room
from sched_testkit._suite.bench import SECOND, Bench
from sched_testkit.laws.law import law
from sched_testkit.laws.queues import ids, queued
from sched_testkit.laws.wakeups import a_wait, stays

MINE = {"alerts": 5}


@law
async def a_served_job_wakes_past_others(bench: Bench) -> None:
    """A job that the room takes ends a wait though others are due since longer, however it came."""
    one, two = await bench.open(), await bench.open()
    await bench.added(one, queued(bench, "0 old", "bulk", 99), queued(bench, "1 old", "bulk", 50))
    for way in ("add", "edit", "queue", "settle", "release", "soon"):
        now = bench.clock.now()
        write: Callable[[], Awaitable[object]]
        if way in {"add", "soon"}:
            due = now + (2 * SECOND if way == "soon" else timedelta(0))
            write = functools.partial(bench.added, two, bench.job(way, due=due, queue="alerts"))
        elif way in {"edit", "queue"}:
            new = bench.job(way, due=None if way == "edit" else "now", queue="alerts")
            if way == "queue":
                new = evolve(new, spec=evolve(new.spec, queue="bulk"))
            (job,) = await bench.added(two, new)
            edited = bench.put_off(job, now) if way == "edit" else job
            edited = evolve(edited, spec=evolve(job.spec, queue="alerts"))
            write = functools.partial(two.replace, edited)
        else:
            await bench.added(two, queued(bench, way, "alerts"))
            (claim,) = await bench.due(two, queues=MINE)
            write = functools.partial(two.settle, [bench.settlement(claim, due=now)])
            if way == "release":
                write = functools.partial(two.release, [claim])
        otherwise = f"a wait slept past a job of its queue that came by {way}"
        async with a_wait(bench, one, otherwise, queues=MINE):
            await write()
            if way == "soon":
                await bench.advance(2 * SECOND)
        (claim,) = await bench.due(one, queues=MINE)
        assert claim.job.id == way
        assert (await bench.settle(one, bench.settlement(claim))).outcome == "written"
    assert ids(await bench.due(two, queues={"bulk": 9})) == ["0 old", "1 old"]


@law
async def an_accepted_id_wakes_past_refused_ones(bench: Bench) -> None:
    """A job that the room accepts ends a wait, though refused ones are due since longer."""
    one, two = await bench.open(), await bench.open()
    await bench.added(one, queued(bench, "no", "default", 99))

    def accepts(job_id: str) -> bool:
        return job_id != "no"

    for writer in (one, two):
        async with a_wait(bench, one, "a refused id hid one that is accepted", accepts=accepts):
            await bench.added(writer, queued(bench, "yes", "default"))
        (claim,) = await bench.due(one, accepts=accepts)
        assert claim.job.id == "yes"
        await bench.settle(one, bench.settlement(claim))
        await bench.remove(one, "yes")


@law
async def what_is_due_in_a_served_queue_ends_a_wait_at_once(bench: Bench) -> None:
    """A wait returns at once where something is due in a served queue, under "*", too."""
    backend = await bench.open()
    await bench.added(backend, queued(bench, "old", "bulk", 9), queued(bench, "job", "alerts"))
    for queues in (MINE, {"bulk": 0, "*": 1}, {"bulk": 1}, None):
        async with a_wait(bench, backend, f"{queues} waited for what is due", queues=queues):
            pass
    claims = await bench.due(backend, queues=MINE)
    await stays(bench, backend, queues={"bulk": 0, "*": 1})
    await bench.settle(backend, bench.settlement(claims[0]))


@law
async def to_pass_over_jobs_wakes_nobody(bench: Bench) -> None:
    """A claim_due that passes over jobs ends no wait of others: nothing has been written."""
    one, two = await bench.open(), await bench.open()
    await bench.added(one, queued(bench, "job", "third", 9), queued(bench, "other", "third"))
    await one.claim_due(Room(5, MINE))  # what it has to note it has noted then

    async def passes_over() -> None:
        for room in (Room(5, MINE), Room(5, accepts=lambda _: False)):
            claimed = await one.claim_due(room)
            assert not claimed.claims

    async with a_wait(bench, two, "it did not end where there was work", queues={"b": 1}) as ended:
        for _ in range(3):
            await passes_over()
        await stays(bench, one, queues=MINE)
        assert not ended.is_set(), "passing over a job has ended the wait of another worker"
        await bench.added(one, queued(bench, "mine", "b"))


@law
async def a_lease_that_ends_ends_every_wait(bench: Bench) -> None:
    """The end of a lease ends waits of workers that serve other queues, and accept other ids."""
    one, two = await bench.open(), await bench.open()
    rooms: list[dict[str, Any]] = [{"queues": MINE}, {"accepts": lambda _: False}]
    for number, room in enumerate(rooms):
        await bench.added(one, queued(bench, f"{number}", "bulk"))
        await bench.claim(one)
        await bench.advance(bench.lease - 3 * SECOND)
        await stays(bench, two, **room)
        async with a_wait(bench, two, "the end of a lease woke no wait", **room):
            await bench.advance(3 * SECOND)
        claimed = await two.claim_due(Room(10, **room))
        assert [lost.job_id for lost in claimed.lapsed] == [f"{number}"]
        await bench.advance(2 * SECOND)
        await stays(bench, two, **room)
        await bench.remove(one, f"{number}")
