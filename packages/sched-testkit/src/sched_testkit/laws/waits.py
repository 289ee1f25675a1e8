"""What ends a wait, of whatever kind it is: few wanted, a lease, another opening, many writes."""

from __future__ import annotations

from datetime import timedelta

from attrs import evolve

from sched_core.clock import pause
from sched_core.ports import MAX_POLL
from sched_testkit.bench import SECOND, Bench
from sched_testkit.laws.law import law
from sched_testkit.laws.waking import POLLS, a_wait


@law
async def the_first_of_many_ends_a_wait_for_few(bench: Bench) -> None:
    """What is due first ends a wait, whatever was added with it, and however few are wanted."""
    backend = await bench.open()
    now = bench.clock.now()
    await bench.added(backend, bench.job("far", due=now + timedelta(days=1)))
    jobs = [bench.job(f"{n}", due=now + timedelta(days=n)) for n in (1, 3, 2)]
    jobs.insert(min(backend.capabilities.bulk_limit or 2, 2) - 1, bench.job("z"))
    async with a_wait(bench, backend, "one of several that were added woke nobody", limit=1):
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
        (job,) = await bench.added(one, bench.job(kind))
        await bench.claim(one)
        if kind == "edited":
            await two.replace(evolve(job, standing=evolve(job.standing, number=2)))
        elif kind == "added again":
            await two.remove(kind)
            await bench.added(two, bench.job(kind))
        await bench.advance(bench.lease - 3 * SECOND)
        async with a_wait(bench, one, f"the end of a lease woke nobody: {kind}"):
            await bench.advance(3 * SECOND)
        taken = await bench.claim(one)
        assert taken.job == await bench.stored(two, kind)
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
