"""Removal: of idle jobs and of running ones, and adding them again."""

from __future__ import annotations

from attrs import evolve

from sched_core import Settlement, Status
from sched_testkit.bench import Bench
from sched_testkit.laws.law import law


@law
async def a_removed_job_is_gone(bench: Bench) -> None:
    """A removed job is in no listing, is never claimed, and its id can be used again."""
    backend = await bench.open()
    await bench.added(backend, bench.job(), bench.job("other", due=None))
    assert await backend.remove("job") is True
    assert await backend.get("job") is None
    assert [job.id for job in await bench.jobs(backend)] == ["other"]
    assert not list(await backend.claim_due(10))
    assert await backend.remove("job") is False
    await bench.added(backend, bench.job())
    assert (await bench.claim(backend)).lost is None


@law
async def a_settlement_cannot_bring_a_job_back(bench: Bench) -> None:
    """Settling a removed job conflicts with nothing stored; its lines alone are written, once."""
    backend = await bench.open()
    await bench.added(backend, bench.job())
    claim = await bench.claim(backend)
    assert await backend.remove("job") is True
    assert await backend.get("job") is None
    settled = await bench.settle(backend, bench.settlement(claim, due=bench.clock.now()))
    assert (settled.outcome, settled.job) == ("conflict", None)
    failed = bench.line(claim, Status.FAILED, final=False)
    ended = Settlement(claim, None, None, (failed, bench.line(claim, Status.SKIPPED, attempt=0)))
    assert (await bench.settle(backend, ended)).outcome == "written"
    assert (await bench.settle(backend, ended)).outcome == "written"
    assert await backend.get("job") is None
    assert await bench.lines(backend) == list(ended.ledger)[::-1]
    await bench.advance(3 * bench.lease)
    assert not list(await backend.claim_due(10))
    assert len(await bench.lines(backend)) == 2


@law
async def a_readded_job_waits_for_the_old_run(bench: Bench) -> None:
    """A job re-added while its former self is running is handed out once that run has ended."""
    one = await bench.open()
    two = await bench.open()
    await bench.added(one, bench.job())
    old = await bench.claim(one)
    await one.remove("job")
    (new,) = await bench.added(two, bench.job())
    assert await bench.stored(two) == new
    assert not list(await two.claim_due(10)), "two runs of one id at a time"
    settled = await bench.settle(one, bench.settlement(old))
    assert settled.outcome == "conflict"
    ended = Settlement(old, None, None, (bench.line(old),))
    assert (await bench.settle(one, ended)).outcome == "written"
    assert await bench.stored(two) == new, "the old run changed the new job"
    claim = await bench.claim(two)
    assert claim.job.uid == new.uid
    assert claim.token > old.token
    assert claim.lost is None


@law
async def a_readded_job_with_the_same_moment_is_another(bench: Bench) -> None:
    """Two incarnations of one id with the same due moment each get their own lines."""
    backend = await bench.open()
    now = bench.clock.now()
    for _ in range(2):
        await bench.added(backend, bench.job(due=now))
        claim = await bench.claim(backend)
        assert (await bench.settle(backend, bench.settlement(claim))).outcome == "written"
        assert await backend.remove("job") is True
    lines = await bench.lines(backend)
    assert len({line.id for line in lines}) == len(lines) == 2
    assert {line.scheduled_at for line in lines} == {now}


@law
async def what_a_lost_claim_left_behind_is_superseded(bench: Bench) -> None:
    """An occurrence edited away during a run that is then lost ends abandoned and superseded."""
    one = await bench.open()
    two = await bench.open()
    (job,) = await bench.added(one, bench.job())
    claim = await bench.claim(one)
    line = bench.line(claim, Status.SUPERSEDED, attempt=0)
    await two.replace(evolve(job, standing=evolve(job.standing, number=2)), [line])
    assert not await bench.lines(two), "the fate of a run under way was written before its end"
    await bench.advance(bench.lease)
    new = await bench.claim(two)
    assert new.lost is None, "claims of another occurrence do not count against this one"
    assert bench.fates(await bench.lines(two)) == [(1, 1, "abandoned"), (1, 0, "superseded")]


@law
async def a_lost_claim_of_a_removed_job_is_cleared(bench: Bench) -> None:
    """A job removed during a run that is then lost leaves its two lines, and nothing else."""
    one = await bench.open()
    two = await bench.open()
    await bench.added(one, bench.job())
    claim = await bench.claim(one)
    await two.remove("job", [bench.line(claim, Status.SUPERSEDED, attempt=0)])
    await bench.advance(bench.lease)
    assert not list(await two.claim_due(10))
    assert bench.fates(await bench.lines(two)) == [(1, 1, "abandoned"), (1, 0, "superseded")]
    ended = Settlement(claim, None, None, (bench.line(claim),))
    assert (await bench.settle(one, ended)).outcome == "claim_lost"


@law
async def releasing_what_was_edited_away_writes_its_fate(bench: Bench) -> None:
    """Releasing a claim whose occurrence was edited or removed away writes its superseded line."""
    backend = await bench.open()
    (job, _) = await bench.added(backend, bench.job(), bench.job("gone"))
    claims = await backend.claim_due(10)
    await backend.replace(evolve(job, standing=evolve(job.standing, number=2, due_at=None)))
    await backend.remove("gone")
    await backend.release(claims)
    lines = await bench.lines(backend)
    assert {(line.job_id, line.attempt, line.status.value) for line in lines} == {
        ("job", 0, "superseded"),
        ("gone", 0, "superseded"),
    }


@law
async def a_second_removal_keeps_the_hold(bench: Bench) -> None:
    """Removing a claimed job twice, or again after adding it again, leaves its claim alone."""
    one = await bench.open()
    two = await bench.open()
    await bench.added(one, bench.job())
    old = await bench.claim(one)
    assert await two.remove("job") is True
    assert await two.remove("job") is False
    await bench.added(two, bench.job())
    assert await one.remove("job") is True
    assert await one.remove("job") is False
    (new,) = await bench.added(two, bench.job())
    assert not list(await two.claim_due(10)), "a second removal freed a claim"
    (held,) = await one.renew([old])
    assert held.token == old.token
    ended = Settlement(held, None, None, (bench.line(old),))
    assert (await bench.settle(one, ended)).outcome == "written"
    claim = await bench.claim(two)
    assert (claim.job, claim.lost) == (new, None)
    assert claim.token > old.token


@law
async def the_run_of_a_removed_job_keeps_its_claim(bench: Bench) -> None:
    """The claim of a removed job can be renewed while its run takes, added again or not."""
    one = await bench.open()
    two = await bench.open()
    await bench.added(one, bench.job("gone"), bench.job("again"))
    claims = await one.claim_due(10)
    for claim in claims:
        await two.remove(claim.job.id)
    (new,) = await bench.added(two, bench.job("again"))
    for _ in range(3):
        await bench.advance(bench.lease * 0.75)
        assert len(await one.renew(claims)) == 2, "a removal or a new job took a claim away"
        assert not list(await two.claim_due(10)), "the claim of a removed job was taken over"
    assert not await bench.lines(one)
    for claim in claims:
        ended = Settlement(claim, None, None, (bench.line(claim),))
        assert (await bench.settle(one, ended)).outcome == "written"
    assert (await bench.claim(two)).job == new


@law
async def releasing_the_removed_frees_the_new(bench: Bench) -> None:
    """Releasing the claim of a removed job writes its superseded line and frees a re-added one."""
    backend = await bench.open()
    await bench.added(backend, bench.job())
    claim = await bench.claim(backend)
    await backend.remove("job")
    (new,) = await bench.added(backend, bench.job())
    await backend.release([claim])
    (line,) = await bench.lines(backend)
    assert (line.uid, line.attempt, line.status) == (claim.job.uid, 0, Status.SUPERSEDED)
    assert line.final
    again = await bench.claim(backend)
    assert (again.job, again.attempt, again.lost) == (new, 1, None)


@law
async def the_history_of_a_removed_job_stays(bench: Bench) -> None:
    """The lines of a job stay and are listed after it was removed, and when it is added again."""
    backend = await bench.open()
    await bench.added(backend, bench.job(), bench.job("other"))
    for claim in await backend.claim_due(10):
        await bench.settle(backend, bench.settlement(claim))
    before = await bench.lines(backend)
    assert len(before) == 2
    await backend.remove("job")
    assert await bench.lines(backend) == before
    assert [line.job_id for line in await bench.lines(backend, job_id="job")] == ["job"]
    await bench.added(backend, bench.job())
    assert await bench.lines(backend) == before
    assert [line.job_id for line in await bench.lines(backend, job_id="job")] == ["job"]


@law
async def a_removed_job_can_be_added_as_it_was(bench: Bench) -> None:
    """An add that comes again after a removal is no repeat: it stores the job, held or not."""
    backend = await bench.open()
    given = bench.job("held"), bench.job("idle", due=None)
    stored = await bench.added(backend, *given)
    claim = await bench.claim(backend)
    for job, old in zip(given, stored, strict=True):
        assert await backend.remove(job.id) is True
        (again,) = await backend.add([job])
        assert await bench.stored(backend, job.id) == again == evolve(job, revision=again.revision)
        assert again.revision > old.revision, "a revision was used again"
    assert not list(await backend.claim_due(10)), "adding a job again freed a claim"
    await backend.release([claim])
    assert (await bench.claim(backend)).job == await bench.stored(backend, "held")
    assert not await bench.lines(backend)
