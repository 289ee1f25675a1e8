"""Removal: of idle jobs and of running ones, and adding them again."""

from __future__ import annotations

from attrs import evolve

from sched_core import Backend, Job, JobAlreadyExists, JobNotFound, Settlement, Status
from sched_testkit._suite.bench import Bench
from sched_testkit.laws.law import law


@law
async def a_removed_job_is_gone(bench: Bench) -> None:
    """A removed job is in no listing, is never claimed, and its id can be used again."""
    backend = await bench.open()
    await bench.added(backend, bench.job(), bench.job("other", due=None))
    await bench.remove(backend, "job")
    assert await backend.get("job") is None
    assert [job.id for job in await bench.jobs(backend)] == ["other"]
    assert not await bench.due(backend, 10)
    try:
        await bench.added(backend, bench.job("other"))
    except JobAlreadyExists:
        pass
    else:
        raise AssertionError("a removal took the id of another job with it")
    await bench.added(backend, bench.job())
    assert bench.pending(await bench.claim(backend)).attempts == 0


@law
async def a_settlement_cannot_bring_a_job_back(bench: Bench) -> None:
    """Settling a removed job conflicts with no job; its executions alone are written, once."""
    backend = await bench.open()
    await bench.added(backend, bench.job())
    claim = await bench.claim(backend)
    await bench.remove(backend, "job")
    assert await backend.get("job") is None
    settled = await bench.settle(backend, bench.settlement(claim, due=bench.clock.now()))
    assert (settled.outcome, settled.job) == ("conflict", None)
    failed = bench.execution(claim, Status.FAILED, final=False)
    skipped = bench.execution(claim, Status.SKIPPED, attempt=0)
    ended = Settlement(claim, None, None, (failed, skipped))
    assert (await bench.settle(backend, ended)).outcome == "written"
    assert (await bench.settle(backend, ended)).outcome == "written"
    assert await backend.get("job") is None
    assert await bench.history(backend) == [skipped, failed]
    await bench.advance(3 * bench.lease)
    assert not await bench.due(backend, 10)
    assert len(await bench.history(backend)) == 2


@law
async def a_readded_job_waits_for_the_old_run(bench: Bench) -> None:
    """A job re-added while its former self is running is handed out once that run has ended."""
    one = await bench.open()
    two = await bench.open()
    await bench.added(one, bench.job())
    old = await bench.claim(one)
    await bench.remove(one, "job")
    (new,) = await bench.added(two, bench.job())
    assert await bench.stored(two) == new
    assert not await bench.due(two, 10), "two runs of one id at a time"
    settled = await bench.settle(one, bench.settlement(old))
    assert settled.outcome == "conflict"
    ended = Settlement(old, None, None, (bench.execution(old),))
    assert (await bench.settle(one, ended)).outcome == "written"
    assert await bench.stored(two) == new, "the old run changed the new job"
    claim = await bench.claim(two)
    assert claim.job.uid == new.uid
    assert claim.token > old.token


@law
async def a_readded_job_with_the_same_moment_is_another(bench: Bench) -> None:
    """Two incarnations of one id with the same due moment each get their own executions."""
    backend = await bench.open()
    now = bench.clock.now()
    for _ in range(2):
        await bench.added(backend, bench.job(due=now))
        claim = await bench.claim(backend)
        assert (await bench.settle(backend, bench.settlement(claim))).outcome == "written"
        await bench.remove(backend, "job")
    executions = await bench.history(backend)
    assert len({execution.id for execution in executions}) == len(executions) == 2
    assert {execution.scheduled_at for execution in executions} == {now}


async def _expect_gone(backend: Backend, job: Job) -> None:
    try:
        await backend.remove(job)
    except JobNotFound:
        return
    raise AssertionError("a removed job was removed again")


@law
async def a_second_removal_keeps_the_hold(bench: Bench) -> None:
    """Removing a claimed job twice, or again after adding it again, leaves its claim alone."""
    one = await bench.open()
    two = await bench.open()
    await bench.added(one, bench.job())
    old = await bench.claim(one)
    await bench.remove(two, "job")
    gone = bench.held(old.job, old)
    await _expect_gone(two, gone)
    await bench.added(two, bench.job())
    await bench.remove(one, "job")
    await _expect_gone(one, gone)
    (new,) = await bench.added(two, bench.job())
    assert not await bench.due(two, 10), "a second removal freed a claim"
    (held,) = await bench.renew(one, [old])
    assert held.token == old.token
    ended = Settlement(held, None, None, (bench.execution(old),))
    assert (await bench.settle(one, ended)).outcome == "written"
    claim = await bench.claim(two)
    assert claim.job == new
    assert claim.token > old.token


@law
async def the_run_of_a_removed_job_keeps_its_claim(bench: Bench) -> None:
    """The claim of a removed job can be renewed while its run takes, added again or not."""
    one = await bench.open()
    two = await bench.open()
    await bench.added(one, bench.job("gone"), bench.job("again"))
    claims = await bench.due(one, 10)
    for claim in claims:
        await bench.remove(two, claim.job.id)
    (new,) = await bench.added(two, bench.job("again"))
    for _ in range(3):
        await bench.advance(bench.lease * 0.75)
        assert len(await bench.renew(one, claims)) == 2, "a removal or a new job took a claim away"
        assert not await bench.due(two, 10), "the claim of a removed job was taken over"
    assert not await bench.history(one)
    for claim in claims:
        ended = Settlement(claim, None, None, (bench.execution(claim),))
        assert (await bench.settle(one, ended)).outcome == "written"
    assert (await bench.claim(two)).job == new


@law
async def releasing_the_removed_frees_the_new(bench: Bench) -> None:
    """Releasing the claim of a removed job writes its superseded end and frees a re-added one."""
    backend = await bench.open()
    await bench.added(backend, bench.job())
    claim = await bench.claim(backend)
    await bench.remove(backend, "job")
    (new,) = await bench.added(backend, bench.job())
    await backend.release([claim])
    (execution,) = await bench.history(backend)
    assert (execution.uid, execution.attempt, execution.status) == (
        claim.job.uid,
        0,
        Status.SUPERSEDED,
    )
    assert execution.final
    again = await bench.claim(backend)
    assert again.job == new


@law
async def the_history_of_a_removed_job_stays(bench: Bench) -> None:
    """The executions of a job are listed after it was removed, and when it is added again."""
    backend = await bench.open()
    await bench.added(backend, bench.job(), bench.job("other"))
    for claim in await bench.due(backend, 10):
        await bench.settle(backend, bench.settlement(claim))
    before = await bench.history(backend)
    assert len(before) == 2
    await bench.remove(backend, "job")
    assert await bench.history(backend) == before
    assert [execution.job_id for execution in await bench.history(backend, job_id="job")] == ["job"]
    await bench.added(backend, bench.job())
    assert await bench.history(backend) == before
    assert [execution.job_id for execution in await bench.history(backend, job_id="job")] == ["job"]


@law
async def a_removed_job_can_be_added_as_it_was(bench: Bench) -> None:
    """An add that comes again after a removal is no repeat: it stores the job, held or not."""
    backend = await bench.open()
    given = bench.job("held"), bench.job("idle", due=None)
    stored = await bench.added(backend, *given)
    claim = await bench.claim(backend)
    for job, old in zip(given, stored, strict=True):
        await bench.remove(backend, job.id)
        (again,) = await backend.add([job])
        assert await bench.stored(backend, job.id) == again
        new = evolve(job, revision=again.revision)
        assert again == (bench.held(new, claim) if job.id == "held" else new)
        assert again.revision > old.revision, "a revision was used again"
    assert not await bench.due(backend, 10), "adding a job again freed a claim"
    await backend.release([claim])
    free = await bench.stored(backend, "held")
    assert (await bench.claim(backend)).job == free
    assert not await bench.history(backend)
