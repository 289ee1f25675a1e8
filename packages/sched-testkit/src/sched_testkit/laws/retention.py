"""Keeping: retention, closing, crashing, reopening."""

from __future__ import annotations

from datetime import timedelta

from attrs import evolve

from sched_core import Job
from sched_core.clock import FIRST, LAST
from sched_testkit._suite.bench import Bench
from sched_testkit.laws.law import durable, granular, law


@law
async def prune_deletes_what_is_old_and_nothing_else(bench: Bench) -> None:
    """Prune deletes executions that ended before the moment, tells how many, and nothing else."""
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
    assert [execution.finished_at for execution in await bench.history(backend)] == [
        moments[3],
        moments[2],
    ]
    assert await backend.prune(moments[2]) == 0
    assert {job.id for job in await bench.jobs(backend)} == {"job", "idle"}


@law
async def what_has_expired_is_deleted(bench: Bench) -> None:
    """Executions, final or not, and finished jobs are pruned from expires_at on, never before."""
    backend = await bench.open()
    tick = granular(backend)
    now = bench.clock.now()
    ends = now + timedelta(days=2)
    await bench.added(backend, bench.job(), bench.job("kept"))
    for claim in await bench.due(backend, 10):
        expires = ends if claim.job.id == "job" else None
        execution = bench.execution(claim, expires_at=expires)
        other = evolve(execution, id=f"{execution.uid}:7:1", number=7, final=False)
        await bench.settle(
            backend,
            bench.settlement(claim, executions=[execution, other], expires_at=expires),
        )
    long_ago = now - timedelta(days=1000)
    await bench.advance(ends - tick - now)
    assert await backend.prune(long_ago) == 0
    assert isinstance(await backend.get("job"), Job)
    await bench.advance(tick)
    await backend.prune(long_ago)
    assert await backend.get("job") is None
    assert isinstance(await backend.get("kept"), Job)
    assert [execution.job_id for execution in await bench.history(backend)] == ["kept", "kept"]


@law(needs=durable)
async def everything_survives_reopening(bench: Bench) -> None:
    """What was written before a crash is there when the data is opened again, claims included."""
    first = await bench.open()
    await bench.added(first, bench.job("ran"), bench.job("held"))
    (later,) = await bench.added(first, bench.job("later", due=bench.clock.now() + timedelta(1)))
    claims = {claim.job.id: claim for claim in await bench.due(first, 10)}
    settlement = bench.settlement(claims["ran"])
    await bench.settle(first, settlement)
    await bench.crash(first)
    second = await bench.open()
    assert await bench.stored(second, "later") == later
    assert (await bench.stored(second, "ran")).standing == settlement.standing
    assert await bench.history(second) == list(settlement.executions)
    taken = await bench.take_over(second, "held")
    assert taken.job.id == "held"
    assert taken.token > claims["held"].token
    assert bench.pending(taken).lost == 1


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
    claims = {claim.job.id: claim for claim in await bench.due(one, 10)}
    await bench.remove(one, "gone")
    await two.prune(bench.clock.now())
    settlement = bench.settlement(claims["job"], expires_at=expired)
    await bench.added(two, bench.job("gone"))
    assert not await bench.due(two, 10), "two runs of one id at a time"
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
    bench.backends.remove(one)
    taken = await bench.take_over(two)
    assert taken.token > held.token
    assert bench.pending(taken).lost == 1, "closing freed a claim, and what it did is unknown"
    assert bench.summary(await bench.history(two)) == [(1, 1, "abandoned")]


@law
async def pruned_jobs_leave_their_executions(bench: Bench) -> None:
    """A job that has expired is deleted without its history, and the id can be used again."""
    backend = await bench.open()
    await bench.added(backend, bench.job(), bench.job("other"))
    for claim in await bench.due(backend, 10):
        expires = bench.clock.now() if claim.job.id == "job" else None
        await bench.settle(backend, bench.settlement(claim, expires_at=expires))
    before = await bench.history(backend)
    assert len(before) == 2
    assert await backend.prune(bench.clock.now() - timedelta(days=1)) == 1
    assert [job.id for job in await bench.jobs(backend)] == ["other"]
    assert await bench.history(backend) == before, "the history of a pruned job was deleted with it"
    assert len(await bench.history(backend, job_id="job")) == 1
    await bench.added(backend, bench.job())
    assert len(await bench.history(backend, job_id="job")) == 1


@law
async def pruned_executions_leave_their_jobs(bench: Bench) -> None:
    """A job whose whole history is deleted stays as it is, claimed or not, and is handed out."""
    backend = await bench.open()
    await bench.added(backend, bench.job("idle"), bench.job("claimed"))
    for claim in await bench.due(backend, 10):
        await bench.settle(backend, bench.settlement(claim, due=bench.clock.now()))
    claims = {claim.job.id: claim for claim in await bench.due(backend, 10)}
    await backend.release([claims["idle"]])
    stored = await bench.jobs(backend)
    assert await backend.prune(bench.clock.now() + timedelta(days=1)) == 2
    assert not await bench.history(backend)
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
async def prune_counts_executions_and_jobs(bench: Bench) -> None:
    """Prune returns how many executions and jobs it deleted, for whichever moment it is given."""
    backend = await bench.open()
    now = bench.clock.now()
    await bench.added(backend, bench.job("a"), bench.job("b"), bench.job("c"))
    for claim, expires in zip(await bench.due(backend, 10), (now, now, None), strict=True):
        execution = bench.execution(claim, expires_at=None if claim.job.id == "c" else now)
        await bench.settle(
            backend, bench.settlement(claim, executions=[execution], expires_at=expires)
        )
    for name in ("a", "b"):
        assert await backend.get(name) is not None, "what has expired was deleted without prune"
    assert await backend.prune(FIRST) == 4
    assert await backend.prune(FIRST) == 0
    assert await backend.prune(now) == 0, (
        "an execution that ended at the moment ended not before it"
    )
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
    """An execution that prune leaves is known by its id as before: by edits and by repeats."""
    backend = await bench.open()
    await bench.added(backend, bench.job("old"))
    settled = await bench.settle(backend, bench.settlement(await bench.claim(backend)))
    assert settled.outcome == "written"
    now = await bench.advance(minutes=1)
    (job,) = await bench.added(backend, bench.job())
    claim = await bench.claim(backend)
    own = bench.execution(claim)
    lost = evolve(own, id=f"{job.uid}:7:1", number=7, final=False)
    kept = bench.settlement(claim, due=now, executions=[lost, own])
    assert (await bench.settle(backend, kept)).outcome == "written"
    assert await backend.prune(now) == 1
    again = [evolve(execution, reason="again") for execution in (lost, own)]
    await backend.replace(await bench.stored(backend), again)
    assert await bench.history(backend) == [own, lost], "what is stored was written once more"
    later = bench.settlement(await bench.claim(backend), due=now)
    assert (await bench.settle(backend, later)).outcome == "written"
    outcome = (await bench.settle(backend, kept)).outcome
    assert outcome == "written", f"an older settlement is forgotten: its repeat is {outcome}"
    assert await bench.history(backend) == [*later.executions, own, lost]


@law
async def a_prune_frees_no_claim(bench: Bench) -> None:
    """Prune leaves a claim whose lease ended long ago: it is held until a worker takes it over."""
    one, two = await bench.open(), await bench.open()
    await bench.added(one, bench.job())
    claim = await bench.claim(one)
    now = await bench.advance(days=40)
    assert await two.prune(now) == 0
    (held,) = await bench.renew(one, [claim])
    assert not await bench.due(two)
    assert (await bench.settle(one, bench.settlement(held))).outcome == "written"
