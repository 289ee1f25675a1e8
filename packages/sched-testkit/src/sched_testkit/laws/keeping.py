"""Keeping: retention, closing, crashing, reopening."""

from __future__ import annotations

from datetime import timedelta

from attrs import evolve

from sched_core import Job
from sched_testkit.bench import Bench
from sched_testkit.laws.law import durable, granular, law


@law
async def prune_deletes_what_is_old_and_nothing_else(bench: Bench) -> None:
    """Prune deletes the lines that ended before the moment, tells how many, and nothing else."""
    backend = await bench.open()
    await bench.added(backend, bench.job(), bench.job("idle", due=None))
    moments = []
    for _ in range(4):
        claim = await bench.claim(backend)
        moments.append(bench.clock.now())
        await bench.settle(
            backend, bench.settlement(claim, due=bench.clock.now() + timedelta(minutes=1))
        )
        await bench.advance(minutes=1)
    assert await backend.prune(moments[2]) == 2
    assert [line.finished_at for line in await bench.lines(backend)] == [moments[3], moments[2]]
    assert await backend.prune(moments[2]) == 0
    assert {job.id for job in await bench.jobs(backend)} == {"job", "idle"}


@law
async def what_has_expired_is_deleted(bench: Bench) -> None:
    """Lines and finished jobs are deleted by prune from expires_at on, and never before."""
    backend = await bench.open()
    tick = granular(backend)
    now = bench.clock.now()
    ends = now + timedelta(days=2)
    await bench.added(backend, bench.job(), bench.job("kept"))
    for claim in await backend.claim_due(10):
        expires = ends if claim.job.id == "job" else None
        line = bench.line(claim, expires_at=expires)
        await bench.settle(backend, bench.settlement(claim, lines=[line], expires_at=expires))
    long_ago = now - timedelta(days=1000)
    await bench.advance(ends - tick - now)
    assert await backend.prune(long_ago) == 0
    assert isinstance(await backend.get("job"), Job)
    await bench.advance(tick)
    await backend.prune(long_ago)
    assert await backend.get("job") is None
    assert isinstance(await backend.get("kept"), Job)
    assert [line.job_id for line in await bench.lines(backend)] == ["kept"]


@law(needs=durable)
async def everything_survives_reopening(bench: Bench) -> None:
    """What was written before a crash is there when the data is opened again, claims included."""
    first = await bench.open()
    await bench.added(first, bench.job("ran"), bench.job("held"))
    (later,) = await bench.added(first, bench.job("later", due=bench.clock.now() + timedelta(1)))
    claims = {claim.job.id: claim for claim in await first.claim_due(10)}
    settlement = bench.settlement(claims["ran"])
    await bench.settle(first, settlement)
    await bench.crash(first)
    second = await bench.open()
    assert await bench.stored(second, "later") == later
    assert (await bench.stored(second, "ran")).standing == settlement.standing
    assert await bench.lines(second) == list(settlement.ledger)
    await bench.advance(second.capabilities.lease)
    taken = await bench.claim(second)
    assert taken.job.id == "held"
    assert taken.token > claims["held"].token
    assert taken.lost is not None
    assert taken.lost.count == 1


@law
async def closing_keeps_what_was_written(bench: Bench) -> None:
    """After close, another backend on the same data finds everything; closing twice is harmless."""
    first = await bench.open()
    second = await bench.open()
    (job,) = await bench.added(first, bench.job())
    await first.close()
    await first.close()
    assert await bench.stored(second) == job
    assert (await bench.claim(second)).job == job


@law
async def prune_leaves_what_is_claimed(bench: Bench) -> None:
    """Prune deletes no claimed job, though it has expired, nor what holds a removed one."""
    one = await bench.open()
    two = await bench.open()
    expired = bench.clock.now() - timedelta(days=1)
    job = bench.job()
    job = evolve(job, standing=evolve(job.standing, expires_at=expired))
    await bench.added(one, job, bench.job("gone"))
    claims = {claim.job.id: claim for claim in await one.claim_due(10)}
    await one.remove("gone")
    await two.prune(bench.clock.now())
    settlement = bench.settlement(claims["job"], expires_at=expired)
    await bench.added(two, bench.job("gone"))
    assert not list(await two.claim_due(10)), "two runs of one id at a time"
    assert (await bench.settle(one, settlement)).outcome == "written"
    assert await one.prune(expired) == 1
    assert await one.get("job") is None


@law
async def closing_leaves_claims_to_their_lease(bench: Bench) -> None:
    """What a closed backend held is taken over as lost, at the end of its lease at the latest."""
    one = await bench.open()
    two = await bench.open()
    await bench.added(one, bench.job())
    held = await bench.claim(one)
    await one.close()
    await bench.advance(two.capabilities.lease)
    taken = await bench.claim(two)
    assert taken.token > held.token
    assert taken.lost is not None, "closing freed a claim whose fate nobody knows"
    assert bench.fates(await bench.lines(two)) == [(1, 1, "abandoned")]
