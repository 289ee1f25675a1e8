"""Batches: many at once are what as many single ones are, whatever size a statement has."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from datetime import timedelta
from typing import TypeVar

from attrs import evolve

from sched_core import (
    Backend,
    BackendUnavailable,
    Capabilities,
    Claim,
    Job,
    JobAlreadyExists,
    Room,
    SchedError,
    Settlement,
    Status,
)
from sched_testkit._suite.bench import SECOND, Bench
from sched_testkit.harness import Harness
from sched_testkit.laws.law import law

MANY = 1001
"""More than stores like to take in one statement."""

FEW = 101
"""The size that is enough on the second loop, and for a store with a share of the examples."""

T = TypeVar("T")


def _many(bench: Bench, count: int = MANY) -> int:
    return max(FEW, round(count * bench.harness.share)) if bench.whole else FEW


async def _stored(bench: Bench, backend: Backend, count: int) -> list[Job]:
    """Add jobs that are due one after the other, as many at a time as the backend takes."""
    now, stored = bench.clock.now(), list[Job]()
    jobs = [
        bench.job(f"job-{n:04}", due=now - timedelta(milliseconds=count - n)) for n in range(count)
    ]
    for some in _parts(jobs, backend.capabilities.bulk_limit or count):
        stored += await bench.added(backend, *some)
    return stored


def _parts(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    return (items[start : start + size] for start in range(0, len(items), size))


async def _claimed(bench: Bench, backend: Backend, count: int) -> list[Claim]:
    """Claim so many, in as many calls as the backend makes of it."""
    claims: list[Claim] = []
    while len(claims) < count:
        some = await bench.due(backend, count - len(claims))
        assert some, f"{count - len(claims)} of {count} are due, and none was handed out"
        assert len(some) <= count - len(claims), "more was handed out than the limit says"
        claims += some
    return claims


@law
async def many_claims_are_as_single_ones(bench: Bench) -> None:
    """A claim, a renewal and a settlement of hundreds of jobs leave out none of them."""
    one, two = await bench.open(), await bench.open()
    many = _many(bench)
    jobs = await _stored(bench, one, many)
    claims = await _claimed(bench, one, many)
    assert [claim.job for claim in claims] == jobs, "they came in another order, or changed"
    assert len({claim.token for claim in claims}) == many, "two claims have one token"
    assert not await bench.due(two, many), "what is claimed was handed out again"
    await bench.advance(bench.lease / 2)
    renewed = {claim.job.id: claim for claim in await bench.renew(one, claims)}
    expected = bench.clock.now() + bench.lease
    assert len(renewed) == many, f"{many - len(renewed)} claims were not renewed"
    assert {claim.expires_at for claim in renewed.values()} == {expected}
    assert all(renewed[claim.job.id].token == claim.token for claim in claims)
    await bench.advance(bench.lease - SECOND)
    assert not await bench.due(two, many), "a renewed claim was taken over"
    settlements = [bench.settlement(claim) for claim in claims]
    answers = await one.settle(settlements)
    assert [answer.outcome for answer in answers] == ["written"] * many
    listed = await bench.jobs(two, limit=400)
    standings = {settled.claim.job.id: settled.standing for settled in settlements}
    assert {job.id: job.standing for job in listed if isinstance(job, Job)} == standings
    executions = await bench.records(two, limit=400)
    assert {execution.id for execution in executions} == {
        settled.executions[0].id for settled in settlements
    }
    assert len(executions) == many
    assert [answer.outcome for answer in await two.settle(settlements)] == ["written"] * many
    assert len(await bench.records(two, limit=400)) == many, "a repeat wrote executions again"


@law
async def many_claims_can_be_released(bench: Bench) -> None:
    """Releasing hundreds of claims frees each of them, at once, and nothing is lost."""
    one, two = await bench.open(), await bench.open()
    many = _many(bench, 501)
    jobs = await _stored(bench, one, many)
    claims = await _claimed(bench, one, many)
    kept = claims.pop(many // 2)
    await one.release(claims)
    again = await _claimed(bench, two, many - 1)
    assert [claim.job for claim in again] == [job for job in jobs if job.id != kept.job.id]
    assert not await bench.history(one)
    assert [claim.token for claim in await bench.renew(one, [*claims, kept])] == [kept.token]


@law
async def many_lost_claims_are_taken_over(bench: Bench) -> None:
    """Each of hundreds of claims that are lost at once is ended, told, and taken over."""
    one, two = await bench.open(), await bench.open()
    many = _many(bench, 301)
    await _stored(bench, one, many)
    lost = {claim.job.id: claim for claim in await _claimed(bench, one, many)}
    await bench.advance(bench.lease)
    told = list((await two.claim_due(Room(400))).lapsed)
    assert sorted(each.job_id for each in told) == sorted(lost), "a lost claim was left out"
    await bench.advance(SECOND)
    taken = await _claimed(bench, two, many)
    assert {claim.job.id for claim in taken} == lost.keys()
    assert {bench.pending(claim).lost for claim in taken} == {1}
    executions = await bench.records(two, 100, final=False, statuses=frozenset({Status.ABANDONED}))
    assert sorted(execution.job_id for execution in executions) == sorted(lost)
    assert not await bench.renew(one, [*lost.values()]), "a claim that was lost is still held"


@law
async def a_batch_is_judged_one_by_one(bench: Bench) -> None:
    """Each settlement in a batch of hundreds gets the answer that it would get alone, in order."""
    one, two = await bench.open(), await bench.open()
    rounds = 30 if bench.whole else 5
    await _stored(bench, one, 7 * rounds)
    claims = await _claimed(bench, one, 7 * rounds)
    kinds = ("good", "forged", "edited", "gone", "repeated", "unsaid", "refused")
    expected = ("written", "claim_lost", "conflict", "conflict", "written", "written", "conflict")
    batch: list[Settlement] = []
    edited: dict[str, Job | None] = {}
    for claim, kind in zip(claims, itertools.cycle(kinds), strict=False):
        settlement = bench.settlement(claim)
        if kind == "forged":
            settlement = evolve(settlement, claim=evolve(claim, worker="stranger"))
        elif kind == "edited":
            edited[claim.job.id] = await two.replace(bench.held(claim.job, claim))
        elif kind == "gone":
            await bench.remove(two, claim.job.id)
        elif kind == "repeated":
            assert (await bench.settle(one, settlement)).outcome == "written"
        elif kind == "unsaid":
            settlement = Settlement(claim, None, None, ())
        elif kind == "refused":
            settlement = Settlement(claim, None, None, settlement.executions)
            edited[claim.job.id] = bench.held(claim.job, claim)
        batch.append(settlement)
    answers = await one.settle(batch)
    assert [answer.outcome for answer in answers] == [*expected] * rounds
    for settlement, answer in zip(batch, answers, strict=True):
        if answer.outcome == "conflict":
            job_id = settlement.claim.job.id
            assert answer.job == edited.get(job_id), f"{job_id!r} conflicts with another job"
    executions = await bench.records(two, limit=100)
    assert len(executions) == len({execution.id for execution in executions}) == 2 * rounds


@law
async def a_bulk_add_of_as_many_as_declared_is_whole(bench: Bench) -> None:
    """A bulk add of as many jobs as are taken at once adds none if its last id is taken."""
    backend = await bench.open()
    count = min(backend.capabilities.bulk_limit or _many(bench), MANY)
    jobs = [bench.job(f"job-{n:04}", due=None) for n in range(count)]
    if count > 1:
        await bench.added(backend, bench.job(jobs[-1].id, due=None))
        await _refused(backend, jobs)
        assert len(await bench.jobs(backend)) == 1, "a part of a refused bulk add was added"
        await bench.remove(backend, jobs[-1].id)
        await _refused(backend, [*jobs[:-1], jobs[0]])
        assert not await bench.jobs(backend), "a part of a refused bulk add was added"
    stored = await backend.add(jobs)
    assert [evolve(job, revision=0) for job in stored] == jobs
    assert list(await backend.add(jobs)) == list(stored), "a repeat is what is stored"
    listed = await bench.jobs(backend, limit=300)
    assert sorted(listed, key=lambda job: job.id) == list(stored)


@law
async def many_records_are_pruned_at_once(bench: Bench) -> None:
    """One prune deletes all that is old and all that has expired, be it more than a thousand."""
    backend = await bench.open()
    now = bench.clock.now()
    jobs = await bench.added(backend, *(bench.job(f"job-{n}", due=None) for n in range(6)))
    for job in jobs:
        claim = Claim(job, 1, "worker-1", now, now)
        executions = [bench.execution(claim, Status.MISSED, number=n) for n in range(10, 210)]
        await backend.replace(job, [evolve(x, id=f"{job.uid}:{x.number}:1") for x in executions])
    stored = [bench.job(f"old-{n:03}", due=None) for n in range(250)]
    expires = now + timedelta(hours=1)
    for some in _parts(stored, backend.capabilities.bulk_limit or 250):
        old = [evolve(job, standing=evolve(job.standing, expires_at=expires)) for job in some]
        await bench.added(backend, *old)
    await bench.advance(days=1)
    assert await backend.prune(bench.clock.now()) == 1200 + 250
    assert not await bench.records(backend, limit=100), "executions were left to the next prune"
    left = await bench.jobs(backend, limit=100)
    assert [job.id for job in left] == [job.id for job in jobs], "not all that has expired is gone"


def _limited(capabilities: Capabilities, harness: Harness) -> str | None:
    return "bulk_limit is not declared" if capabilities.bulk_limit is None else None


@law(needs=_limited)
async def a_bulk_add_beyond_the_limit_is_whole_or_refused(bench: Bench) -> None:
    """One job more than bulk_limit: the add is taken whole, or refused whole and told why."""
    backend = await bench.open()
    limit = backend.capabilities.bulk_limit or 1
    jobs = [bench.job(f"job-{n:04}", due=None) for n in range(limit + 1)]
    try:
        stored = list(await backend.add(jobs))
    except BackendUnavailable as error:
        raise AssertionError("it is said that trying again may help") from error
    except SchedError as error:
        if str(limit) not in str(error):
            raise AssertionError(f"the limit of {limit} is not named: {error}") from error
        stored = []
    assert [evolve(job, revision=0) for job in stored] in ([], jobs), "a part of it was answered"
    listed = await bench.jobs(backend, limit=300)
    assert sorted(listed, key=lambda job: job.id) == stored, "a part of it was added"
    for job in stored:
        await backend.remove(job)
    await bench.added(backend, bench.job(jobs[-1].id, due=None))
    try:
        await backend.add(jobs)
    except SchedError:
        pass
    else:
        raise AssertionError("a taken id was accepted")
    assert len(await bench.jobs(backend, limit=300)) == 1, "a part of a refused bulk add was added"


async def _refused(backend: Backend, jobs: Sequence[Job]) -> None:
    try:
        await backend.add(jobs)
    except JobAlreadyExists:
        return
    raise AssertionError("a taken id was accepted")
