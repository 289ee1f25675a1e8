"""Keeping: retention, closing, crashing, reopening."""

from __future__ import annotations

from datetime import timedelta

from attrs import evolve

from sched_core import Job
from sched_core.clock import FIRST, LAST
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
        await bench.advance(bench.lease / 4)
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
    """Lines, final or not, and finished jobs are pruned from expires_at on, and never before."""
    backend = await bench.open()
    tick = granular(backend)
    now = bench.clock.now()
    ends = now + timedelta(days=2)
    await bench.added(backend, bench.job(), bench.job("kept"))
    for claim in await backend.claim_due(10):
        expires = ends if claim.job.id == "job" else None
        line = bench.line(claim, expires_at=expires)
        beside = evolve(line, id=f"{line.uid}:7:1", number=7, final=False)
        lines = [line, beside]
        await bench.settle(backend, bench.settlement(claim, lines=lines, expires_at=expires))
    long_ago = now - timedelta(days=1000)
    await bench.advance(ends - tick - now)
    assert await backend.prune(long_ago) == 0
    assert isinstance(await backend.get("job"), Job)
    await bench.advance(tick)
    await backend.prune(long_ago)
    assert await backend.get("job") is None
    assert isinstance(await backend.get("kept"), Job)
    assert [line.job_id for line in await bench.lines(backend)] == ["kept", "kept"]


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


@law
async def pruned_jobs_leave_their_lines(bench: Bench) -> None:
    """A job that has expired is deleted without its history, and the id can be used again."""
    backend = await bench.open()
    await bench.added(backend, bench.job(), bench.job("other"))
    for claim in await backend.claim_due(10):
        expires = bench.clock.now() if claim.job.id == "job" else None
        await bench.settle(backend, bench.settlement(claim, expires_at=expires))
    before = await bench.lines(backend)
    assert len(before) == 2
    assert await backend.prune(bench.clock.now() - timedelta(days=1)) == 1
    assert [job.id for job in await bench.jobs(backend)] == ["other"]
    assert await bench.lines(backend) == before, "the history of a pruned job was deleted with it"
    assert len(await bench.lines(backend, job_id="job")) == 1
    await bench.added(backend, bench.job())
    assert len(await bench.lines(backend, job_id="job")) == 1


@law
async def pruned_lines_leave_their_jobs(bench: Bench) -> None:
    """A job whose whole history is deleted stays as it is, claimed or not, and is handed out."""
    backend = await bench.open()
    await bench.added(backend, bench.job("idle"), bench.job("claimed"))
    for claim in await backend.claim_due(10):
        await bench.settle(backend, bench.settlement(claim, due=bench.clock.now()))
    claims = {claim.job.id: claim for claim in await backend.claim_due(10)}
    await backend.release([claims["idle"]])
    stored = await bench.jobs(backend)
    assert await backend.prune(bench.clock.now() + timedelta(days=1)) == 2
    assert not await bench.lines(backend)
    assert await bench.jobs(backend) == stored, "a job was deleted or changed with its history"
    assert (await bench.claim(backend)).job.id == "idle"
    settled = await bench.settle(backend, bench.settlement(claims["claimed"]))
    assert settled.outcome == "written"


@law
async def an_edit_takes_expiry_away(bench: Bench) -> None:
    """What expires is decided by the job as it is stored now: an edit moves, gives or takes it."""
    backend = await bench.open()
    now = bench.clock.now()
    far = now + timedelta(days=2)
    kinds = {"taken": now, "moved": now, "given": None, "settled": now}
    for job_id, expires in kinds.items():
        due = now if job_id == "settled" else None
        job = bench.job(job_id, due=due)
        (job,) = await bench.added(
            backend, evolve(job, standing=evolve(job.standing, expires_at=expires))
        )
        edited = {"taken": None, "moved": far, "given": now}.get(job_id, expires)
        if job_id != "settled":
            await backend.replace(evolve(job, standing=evolve(job.standing, expires_at=edited)))
    claim = await bench.claim(backend)
    await bench.settle(backend, bench.settlement(claim, expires_at=None))
    await bench.advance(days=1)
    assert await backend.prune(now) == 1
    assert {job.id for job in await bench.jobs(backend)} == {"taken", "moved", "settled"}
    await bench.advance(days=1)
    assert await backend.prune(now) == 1
    assert {job.id for job in await bench.jobs(backend)} == {"taken", "settled"}


@law
async def prune_counts_lines_and_jobs(bench: Bench) -> None:
    """Prune returns how many lines and jobs it deleted, for whichever moment it is given."""
    backend = await bench.open()
    now = bench.clock.now()
    await bench.added(backend, bench.job("a"), bench.job("b"), bench.job("c"))
    for claim, expires in zip(await backend.claim_due(10), (now, now, None), strict=True):
        line = bench.line(claim, expires_at=None if claim.job.id == "c" else now)
        await bench.settle(backend, bench.settlement(claim, lines=[line], expires_at=expires))
    for name in ("a", "b"):
        assert await backend.get(name) is not None, "what has expired was deleted without prune"
    assert await backend.prune(FIRST) == 4
    assert await backend.prune(FIRST) == 0
    assert await backend.prune(now) == 0, "a line that ended at the moment ended not before it"
    assert await backend.prune(LAST) == 1
    assert await backend.prune(LAST) == 0
    assert [job.id for job in await bench.jobs(backend)] == ["c"]


@law
async def numbers_grow_over_prune(bench: Bench) -> None:
    """A job whose id was pruned before gets a revision and tokens above all earlier ones."""
    backend = await bench.open()
    revisions: list[int] = []
    tokens: list[int] = []
    for _ in range(3):
        revisions += [job.revision for job in await bench.added(backend, bench.job())]
        claim = await bench.claim(backend)
        tokens.append(claim.token)
        ended = bench.settlement(claim, expires_at=bench.clock.now())
        assert (await bench.settle(backend, ended)).outcome == "written"
        revisions.append((await bench.stored(backend)).revision)
        assert await backend.prune(LAST) == 2
    assert revisions == sorted(set(revisions)), f"a revision was used again: {revisions}"
    assert tokens == sorted(set(tokens)), f"a token was used again: {tokens}"


@law
async def what_prune_leaves_is_known(bench: Bench) -> None:
    """A line that prune leaves is known by its id as before, and as the end of its occurrence."""
    backend = await bench.open()
    await bench.added(backend, bench.job("old"))
    settled = await bench.settle(backend, bench.settlement(await bench.claim(backend)))
    assert settled.outcome == "written"
    now = await bench.advance(minutes=1)
    (job,) = await bench.added(backend, bench.job())
    claim = await bench.claim(backend)
    own = bench.line(claim)
    lost = evolve(own, id=f"{job.uid}:7:1", number=7, final=False)
    kept = bench.settlement(claim, due=now, number=1, lines=[lost, own])
    assert (await bench.settle(backend, kept)).outcome == "written"
    assert await backend.prune(now) == 1
    again = [evolve(line, reason="again") for line in (lost, own)]
    second = evolve(own, id=f"{job.uid}:1:2", attempt=2)
    stored = await backend.replace(await bench.stored(backend), [*again, second])
    assert await bench.lines(backend) == [own, lost], "what is stored was written once more"
    claim = await bench.claim(backend)
    assert claim.job == stored
    refused = bench.settlement(claim, due=now, number=1, lines=[second])
    assert (await bench.settle(backend, refused)).outcome == "conflict"
    assert await bench.lines(backend) == [own, lost]


@law
async def a_prune_frees_no_claim(bench: Bench) -> None:
    """Prune leaves a claim whose lease ended long ago: it is held until a worker takes it over."""
    one, two = await bench.open(), await bench.open()
    await bench.added(one, bench.job())
    claim = await bench.claim(one)
    now = await bench.advance(days=40)
    assert await two.prune(now) == 0
    (held,) = await one.renew([claim])
    assert not list(await two.claim_due(10))
    assert (await bench.settle(one, bench.settlement(held))).outcome == "written"
