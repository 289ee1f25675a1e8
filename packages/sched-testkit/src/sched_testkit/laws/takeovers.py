"""Takeovers: which lost claims are taken over, when, by which worker, and what they leave."""

from __future__ import annotations

from datetime import timedelta

from attrs import evolve

from sched_core import Execution, LostClaim, Policy, State, Status
from sched_core.job import Claim
from sched_testkit.bench import Bench
from sched_testkit.laws.law import granular, law

KEPT = timedelta(days=3)
"""How long the history of the jobs here is kept."""


def _abandoned(bench: Bench, lost: Claim) -> Execution:
    expires = bench.clock.now() + KEPT
    return bench.line(lost, Status.ABANDONED, started_at=None, expires_at=expires)


def _superseded(bench: Bench, lost: Claim) -> Execution:
    expires = bench.clock.now() + KEPT
    return bench.line(lost, Status.SUPERSEDED, attempt=0, started_at=None, expires_at=expires)


@law
async def a_worker_takes_over_what_it_lost_itself(bench: Bench) -> None:
    """A worker whose own lease has ended gets the job again, as lost and with a new token."""
    backend = await bench.open()
    await bench.added(backend, bench.job())
    first = await bench.claim(backend)
    await bench.advance(bench.lease)
    second = await bench.claim(backend)
    assert second.worker == first.worker
    assert second.token > first.token, "a worker took over from itself with the same token"
    assert second.lost == LostClaim(1, first.worker, first.claimed_at)
    assert bench.fates(await bench.lines(backend)) == [(1, 1, "abandoned")]
    assert not list(await backend.renew([first])), "the worker's older claim was renewed"
    await backend.release([first])
    assert not list(await backend.claim_due(10)), "the worker's older claim was released"
    assert (await bench.settle(backend, bench.settlement(first))).outcome == "claim_lost"
    assert (await bench.settle(backend, bench.settlement(second))).outcome == "written"


@law
async def what_was_put_off_is_not_taken_over_before_it_is_due(bench: Bench) -> None:
    """A job that an edit puts off during a claim is not taken over before its new due_at."""
    one = await bench.open()
    two = await bench.open()
    (job,) = await bench.added(one, bench.job())
    lost = await bench.claim(one)
    due = bench.clock.now() + 3 * bench.lease
    await two.replace(evolve(job, standing=evolve(job.standing, due_at=due)))
    await bench.advance(due - granular(one) - bench.clock.now())
    for backend in (one, two):
        assert not list(await backend.claim_due(10)), "a job was taken over before it was due"
    assert not await bench.lines(two)
    await bench.advance(granular(one))
    taken = await bench.claim(two)
    assert taken.lost == LostClaim(1, lost.worker, lost.claimed_at)
    assert bench.fates(await bench.lines(two)) == [(1, 1, "abandoned")]


@law
async def what_was_paused_is_not_taken_over(bench: Bench) -> None:
    """A job that an edit leaves without due_at during a claim is its holder's until it has one."""
    one = await bench.open()
    two = await bench.open()
    jobs = await bench.added(one, bench.job("lost"), bench.job("slow"))
    claims = {claim.job.id: claim for claim in await one.claim_due(10)}
    paused = {
        job.id: await two.replace(
            evolve(job, standing=evolve(job.standing, state=State.PAUSED, due_at=None))
        )
        for job in jobs
    }
    await bench.advance(days=100)
    for backend in (one, two):
        assert not list(await backend.claim_due(10)), "a paused job was taken over"
    assert not await bench.lines(two)
    assert len(await one.renew([claims["slow"]])) == 1
    ended = evolve(bench.settlement(claims["slow"]), expected=paused["slow"].revision)
    assert (await bench.settle(one, ended)).outcome == "written"
    resumed = evolve(paused["lost"].standing, state=State.ACTIVE, due_at=bench.clock.now())
    await two.replace(evolve(paused["lost"], standing=resumed))
    taken = await bench.claim(two)
    assert taken.lost == LostClaim(1, claims["lost"].worker, claims["lost"].claimed_at)


@law
async def an_abandoned_line_says_what_was_lost(bench: Bench) -> None:
    """An abandoned line names the lost claim, ends at the takeover, and is kept by the policy."""
    one = await bench.open()
    two = await bench.open()
    await bench.added(one, bench.job(policy=Policy(keep_executions=KEPT)))
    await bench.advance(seconds=7)
    first = await bench.claim(one)
    await bench.advance(bench.lease + timedelta(seconds=11))
    expected = [_abandoned(bench, first)]
    second = await bench.claim(two)
    assert await bench.lines(one) == expected
    await bench.advance(bench.lease + timedelta(seconds=13))
    expected.insert(0, _abandoned(bench, second))
    await bench.claim(one)
    assert await bench.lines(one) == expected


@law
async def a_takeover_of_what_moved_on_ends_it(bench: Bench) -> None:
    """The lines of a lost claim say what was claimed, whatever an edit made of the job since."""
    one = await bench.open()
    two = await bench.open()
    (job,) = await bench.added(one, bench.job(policy=Policy(keep_executions=KEPT)))
    lost = await bench.claim(one)
    later = bench.clock.now() + timedelta(seconds=1)
    spec = evolve(job.spec, policy=Policy(keep_executions=None), name="another")
    moved = evolve(job.standing, number=5, attempts=2, next_run=later, due_at=later)
    edited = await two.replace(evolve(job, spec=spec, standing=moved))
    await bench.advance(bench.lease)
    expected = [_superseded(bench, lost), _abandoned(bench, lost)]
    taken = await bench.claim(two)
    assert (taken.job, taken.attempt, taken.lost) == (edited, 3, None)
    assert await bench.lines(two) == expected
    assert (await bench.settle(one, bench.settlement(lost))).outcome == "claim_lost"


@law
async def a_takeover_of_what_was_added_again_ends_the_old(bench: Bench) -> None:
    """The lost claim of a removed incarnation leaves its lines and counts for no other one."""
    one = await bench.open()
    two = await bench.open()
    await bench.added(one, bench.job(policy=Policy(keep_executions=KEPT)))
    lost = await bench.claim(one)
    await two.remove("job")
    (new,) = await bench.added(two, bench.job())
    await bench.advance(bench.lease)
    expected = [_superseded(bench, lost), _abandoned(bench, lost)]
    taken = await bench.claim(two)
    assert (taken.job, taken.attempt, taken.lost) == (new, 1, None)
    assert await bench.lines(two) == expected


@law
async def a_settled_attempt_starts_the_count_of_lost_ones_again(bench: Bench) -> None:
    """What was lost before an attempt that was settled is not reported to the next attempt."""
    one = await bench.open()
    two = await bench.open()
    await bench.added(one, bench.job())
    await bench.claim(one)
    await bench.advance(bench.lease)
    taken = await bench.claim(two)
    failed = bench.line(taken, Status.FAILED, final=False)
    again = bench.settlement(taken, due=bench.clock.now(), lines=[failed], number=1, attempts=2)
    assert (await bench.settle(two, again)).outcome == "written"
    retry = await bench.claim(one)
    assert (retry.attempt, retry.lost) == (3, None)


@law
async def an_edit_keeps_what_was_lost(bench: Bench) -> None:
    """An edit that leaves the occurrence alone keeps the count of its lost claims."""
    one = await bench.open()
    two = await bench.open()
    await bench.added(one, bench.job())
    lost = await bench.claim(one)
    await bench.advance(bench.lease)
    await two.release([await bench.claim(two)])
    for name in ("one", "two"):
        job = await bench.stored(one)
        await one.replace(evolve(job, spec=evolve(job.spec, name=name)))
    taken = await bench.claim(two)
    assert taken.lost == LostClaim(1, lost.worker, lost.claimed_at)
    assert taken.attempt == 2, "the next line would be taken for a repeat of the abandoned one"
    job = await bench.stored(one)
    await one.replace(evolve(job, spec=evolve(job.spec, name="three")))
    await bench.advance(bench.lease)
    third = await bench.claim(one)
    assert third.lost == LostClaim(2, taken.worker, taken.claimed_at)


@law
async def lost_claims_come_in_the_order_of_due_at(bench: Bench) -> None:
    """Jobs whose claims were lost and jobs that were never claimed come by due_at alike."""
    one = await bench.open()
    two = await bench.open()
    start = bench.clock.now()
    ages = {"d": 1, "a": 40, "c": 20}
    for job_id, age in ages.items():  # each is claimed alone, so that leases end in this order
        await bench.added(one, bench.job(job_id, due=start - timedelta(seconds=age)))
        await bench.claim(one)
        await bench.advance(seconds=1)
    await bench.advance(bench.lease)
    await bench.added(
        one,
        bench.job("b", due=start - timedelta(seconds=30)),
        bench.job("e", due=start + timedelta(seconds=1)),
    )
    found: list[str] = []
    for limit in (1, 2, 10):
        found += [claim.job.id for claim in await two.claim_due(limit)]
    assert found == ["a", "b", "c", "d", "e"], f"expected the oldest due first, got {found}"
