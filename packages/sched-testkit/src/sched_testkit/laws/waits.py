"""What ends a wait, of whatever kind it is: few wanted, a lease, another opening, many writes."""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable
from datetime import timedelta

from sched_core import Room
from sched_core.clock import pause
from sched_core.ports import MAX_POLL
from sched_testkit._suite.bench import SECOND, Bench
from sched_testkit.laws.law import law
from sched_testkit.laws.wakeups import POLLS, a_wait


@law
async def the_first_of_many_ends_a_wait_for_few(bench: Bench) -> None:
    """What is due first ends a wait, whatever was added with it, and however few are wanted."""
    backend = await bench.open()
    now = bench.clock.now()
    await bench.added(backend, bench.job("far", due=now + timedelta(days=1)))
    jobs = [bench.job(f"{n}", due=now + timedelta(days=n)) for n in (1, 3, 2)]
    jobs.insert(min(backend.capabilities.bulk_limit or 2, 2) - 1, bench.job("z"))
    async with a_wait(bench, backend, "a job that was added with others woke no wait", limit=1):
        await bench.added(backend, *jobs[: backend.capabilities.bulk_limit])
    assert (await bench.claim(backend)).job.id == "z"
    await bench.added(backend, bench.job("zz", due=now + 3 * SECOND))
    async with a_wait(bench, backend, "a wait for one slept past what was due", limit=1):
        await bench.advance(3 * SECOND)
    assert (await bench.claim(backend)).job.id == "zz"


@law
async def every_lease_that_ends_ends_a_wait(bench: Bench) -> None:
    """A lease that ends wakes its own worker, too, also if the job was edited or added again."""
    one, two = await bench.open(), await bench.open()
    for kind in ("left alone", "edited", "added again"):
        await bench.added(one, bench.job(kind))
        await bench.claim(one)
        held = await bench.stored(two, kind)
        if kind == "edited":
            await two.replace(bench.moved(held))
        elif kind == "added again":
            await two.remove(held)
            await bench.added(two, bench.job(kind))
        await bench.advance(bench.lease - 3 * SECOND)
        async with a_wait(bench, one, f"the end of a lease woke no wait: {kind}"):
            await bench.advance(3 * SECOND)
        claimed = await one.claim_due(Room(10))
        assert [lost.job_id for lost in claimed.lapsed if not lost.final] == [kind]
        claims = list(claimed.claims)
        if kind == "left alone":
            assert not claims, "what was lost is handed out without a wait"
            await bench.advance(SECOND)
            claims = await bench.due(one)
        (taken,) = claims
        assert bench.held(taken.job, taken) == await bench.stored(two, kind)
        assert (await bench.settle(one, bench.settlement(taken))).outcome == "written"


@law
async def what_is_opened_again_is_woken(bench: Bench) -> None:
    """A backend that is opened again is woken by what another one writes, as at its first time."""
    one, two = await bench.open(), await bench.open()
    await bench.added(two, bench.job("far", due=bench.clock.now() + timedelta(days=1)))
    await one.close()
    await one.open(bench.clock, worker="again")
    async with a_wait(bench, one, "what was opened again was not woken"):
        await bench.added(two, bench.job())
    assert (await bench.claim(one)).job.id == "job"


@law
async def writes_prolong_no_wait(bench: Bench) -> None:
    """A wait ends after the longest poll, whatever is written meanwhile."""
    one, two = await bench.open(), await bench.open()
    far = bench.clock.now() + timedelta(days=1)
    await bench.added(one, bench.job("far", due=far))
    async with a_wait(bench, one, "each write prolongs a wait") as ended:
        for number in range(POLLS):
            if ended.is_set():
                break
            earlier = far - (number + 1) * timedelta(minutes=1)
            await bench.added(two, bench.job(f"{number}", due=earlier))
            await pause(0.02)
            await bench.advance(MAX_POLL * 0.4)


@law
async def what_comes_due_soon_ends_a_wait(bench: Bench) -> None:
    """A write after which a job is due soon ends a wait when that comes, whatever call wrote it."""
    one, two = await bench.open(), await bench.open()
    soon = 2 * SECOND
    for way in ("add", "replace", "settle", "release"):
        now = bench.clock.now()
        write: Callable[[], Awaitable[object]]
        if way == "add":
            write = functools.partial(bench.added, two, bench.job(way, due=now + soon))
        else:
            (job,) = await bench.added(two, bench.job(way, due=None if way == "replace" else now))
            if way == "replace":
                write = functools.partial(two.replace, bench.put_off(job, now + soon))
            else:
                claim = await bench.claim(two)
                settlement = bench.settlement(claim, due=now + soon)
                write = functools.partial(two.settle, [settlement])
                if way == "release":
                    await two.replace(bench.put_off(bench.held(job, claim), now + soon))
                    write = functools.partial(two.release, [claim])
        async with a_wait(bench, one, f"a wait slept past what was due soon by {way}"):
            await write()
            await bench.advance(soon)
        claim = await bench.claim(one)
        assert claim.job.id == way
        assert (await bench.settle(one, bench.settlement(claim))).outcome == "written"
