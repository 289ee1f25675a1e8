"""What workers report of themselves, and for how long it is told."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from attrs import evolve

from sched_core import WorkerState
from sched_core.clock import FIRST
from sched_core.ports import FORGOTTEN
from sched_testkit._suite.bench import SECOND, Bench
from sched_testkit.laws.law import granular, law


def state(bench: Bench, name: str, **changes: Any) -> WorkerState:
    """Build what a worker reports now."""
    now = bench.clock.now()
    full = WorkerState(
        name=name,
        started_at=now - 60 * SECOND,
        seen_at=now,
        host="höst.example",
        pid=4711,
        version="0.2.0",
        max_concurrency=50,
        executing=7,
        queues={"alerts": 20, "*": 5},
        unrouted={"a job": now - SECOND, "\U0001f600 'x'": FIRST},
        stopping=True,
    )
    return evolve(full, **changes)


@law
async def what_workers_report_is_told(bench: Bench) -> None:
    """Workers returns what each worker has reported, in every field, by name, to all backends."""
    one, two = await bench.open("b"), await bench.open("a")
    assert list(await one.workers()) == [], "workers are told before one has reported"
    states = [
        state(bench, "b"),
        state(bench, "a", queues=None, unrouted={}, stopping=False),
        state(bench, "B", queues={}, host="", pid=0, version="", executing=0, max_concurrency=0),
        state(bench, "pod.of-a:long name/" + "7" * 60),
    ]
    for number, each in enumerate(states):
        await (one, two)[number % 2].report(each)
    expected = sorted(states, key=lambda each: each.name)
    for backend in (one, two):
        told = list(await backend.workers())
        assert told == expected, f"told were {told}"
        queues = {each.name: each.queues for each in told}
        assert (queues["a"], queues["B"]) == (None, {}), "no queues and all queues are the same"


@law
async def a_report_takes_the_place_of_the_last_one(bench: Bench) -> None:
    """A report replaces what the same worker reported before, in every field, and no other's."""
    one, two = await bench.open("a"), await bench.open("b")
    other = state(bench, "b")
    await two.report(other)
    await one.report(state(bench, "a"))
    for executing in (3, 0):
        await bench.advance(SECOND)
        newer = WorkerState("a", bench.clock.now(), bench.clock.now(), executing=executing)
        await one.report(newer)
        for backend in (one, two):
            told = list(await backend.workers())
            assert told == [newer, other], f"told were {told}"


@law
async def close_takes_back_its_own_report(bench: Bench) -> None:
    """Close deletes what this backend's worker has reported, and what no other one has."""
    one, two, silent = await bench.open("a"), await bench.open("b"), await bench.open("c")
    states = [state(bench, "a"), state(bench, "b")]
    await one.report(states[0])
    await two.report(states[1])
    await silent.close()
    assert list(await one.workers()) == states, "a worker that reported nothing has taken others"
    await one.close()
    assert list(await two.workers()) == states[1:], "a worker that has closed is told as alive"
    await one.open(bench.clock, worker="again")
    assert list(await one.workers()) == states[1:]
    again = state(bench, "again")
    await one.report(again)
    assert list(await two.workers()) == [again, states[1]]
    await one.close()
    await two.close()
    late = await bench.open("late")
    assert list(await late.workers()) == []


@law
async def a_worker_that_died_is_told_until_it_is_forgotten(bench: Bench) -> None:
    """Prune deletes what was reported more than a day ago, and tells of no execution for it."""
    one, two = await bench.open("dead"), await bench.open("b")
    dead = state(bench, "dead", started_at=bench.clock.now() - timedelta(days=9))
    await one.report(dead)
    await bench.crash(one)
    assert list(await two.workers()) == [dead], "a worker that died is not told"
    await bench.advance(FORGOTTEN)
    alive = state(bench, "b")
    await two.report(alive)
    assert await two.prune(bench.clock.now()) == 0
    assert list(await two.workers()) == [alive, dead], "what is a day old is forgotten"
    await bench.advance(granular(two))
    assert list(await two.workers()) == [alive, dead], "it is forgotten without a prune"
    assert await two.prune(bench.clock.now() - timedelta(days=30)) == 0
    assert list(await two.workers()) == [alive], "what is older than a day is told"


@law
async def to_report_changes_nothing_else(bench: Bench) -> None:
    """A report is seen in no listing, frees and claims nothing, and is not told as a claim."""
    backend = await bench.open()
    (job,) = await bench.added(backend, bench.job())
    claim = await bench.claim(backend)
    await backend.report(state(bench, claim.worker))
    await backend.report(state(bench, "worker-without-claims", started_at=FIRST))
    assert await bench.jobs(backend) == [bench.held(job, claim)]
    assert not await bench.history(backend)
    assert (await bench.settle(backend, bench.settlement(claim))).outcome == "written"
    await backend.close()
    again = await bench.open("again")
    told = [each.name for each in await again.workers()]
    assert told == ["worker-without-claims"], f"told were {told}"
