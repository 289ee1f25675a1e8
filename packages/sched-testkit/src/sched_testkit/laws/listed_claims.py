"""What `claims` tells of those who hold something, and what a renewal stores with it."""

from __future__ import annotations

import itertools
from datetime import timedelta
from typing import Any

from attrs import evolve

from sched_core import (
    Backend,
    Claim,
    Hold,
    Pause,
    Pending,
    Progress,
    Renewal,
    Settlement,
    Status,
)
from sched_core.clock import FIRST, LAST
from sched_core.ports import ClaimQuery
from sched_testkit._stories.filters import finds
from sched_testkit._suite.bench import SECOND, Bench
from sched_testkit.laws.law import law, spoilable
from sched_testkit.laws.queues import add_all, queued


def hold_of(bench: Bench, claim: Claim, **changes: Any) -> Hold:
    """Build what is stored of a claim that was just made."""
    spec = claim.job.spec
    hold = Hold(
        spec.id,
        claim.job.uid,
        claim.token,
        claim.worker,
        claim.claimed_at,
        claim.claimed_at,
        claim.expires_at,
        bench.pending(claim),
        None,
        queue=spec.queue,
    )
    return evolve(hold, **changes)


async def holds(bench: Bench, backend: Backend, **query: Any) -> list[Hold]:
    """Return the claims that are listed, without how long executions are kept."""
    return [evolve(hold, keep=None) for hold in await bench.holds(backend, **query)]


async def the_hold(bench: Bench, backend: Backend, job_id: str = "job") -> Hold:
    """Return the one claim of a job that must be listed."""
    found = await holds(bench, backend, job_id=job_id)
    assert len(found) == 1, f"of {job_id!r} expected one claim, listed are {found}"
    return found[0]


@law
async def a_claim_is_listed_as_it_was_made(bench: Bench) -> None:
    """Claims lists each claim with its job, occurrence, worker, queue, moments and token."""
    one, two = await bench.open(), await bench.open()
    assert await holds(bench, one) == [], "claims are listed before there are any"
    now = bench.clock.now()
    again = bench.job("again", due=now, queue="bulk")
    tried = Pending(1, now, now, attempts=2, failures=1, began_at=now - SECOND)
    again = evolve(again, standing=evolve(again.standing, scheduled=tried))
    asked = bench.asked(bench.job("asked", due=None), bench.request(3, args={"n": "7"}))
    await bench.added(one, bench.job("plain"), again, bench.job("idle", due=None))
    await bench.added(two, asked)
    claims = sorted(
        [*await bench.due(one, 2), *await bench.due(two)], key=lambda claim: claim.job.id
    )
    assert [claim.job.id for claim in claims] == ["again", "asked", "plain"]
    expected = [hold_of(bench, claim) for claim in claims]
    for backend in (one, two, one):
        listed = await holds(bench, backend)
        assert listed == expected, f"listed are {listed}"
    keys = [(hold.key, hold.attempt) for hold in await holds(bench, two)]
    assert keys == [(f"{again.uid}:1", 3), (f"{asked.uid}:3", 1), (f"{claims[2].job.uid}:1", 1)]
    assert not await bench.due(one), "to list claims has freed one"
    answers = await one.settle([bench.settlement(claim) for claim in claims])
    assert [answer.outcome for answer in answers] == ["written"] * 3


@law
async def what_ends_a_claim_takes_it_from_the_list(bench: Bench) -> None:
    """A claim that was settled or released is listed no more; one that was refused is still."""
    one, two = await bench.open(), await bench.open()
    await add_all(bench, one, [bench.job(f"{n}") for n in range(4)])
    settled, freed, edited, kept = await bench.due(one)
    await bench.settle(one, bench.settlement(settled, due=bench.clock.now() + 60 * SECOND))
    await one.release([freed])
    await two.replace(bench.moved(await bench.stored(two, "2")))
    assert (await bench.settle(one, bench.settlement(edited))).outcome == "conflict"
    expected = [hold_of(bench, claim) for claim in (edited, kept)]
    for backend in (one, two):
        assert await holds(bench, backend) == expected
    await one.release([edited, evolve(kept, token=kept.token + 1), evolve(kept, worker="else")])
    forged = Settlement(evolve(kept, worker="else"), kept.job.revision, None, ())
    await bench.settle(two, forged)
    assert await holds(bench, two) == expected[1:], "what holds nothing has ended a claim"
    await bench.settle(one, bench.settlement(kept))
    assert await holds(bench, two) == []


@law
async def a_claim_past_its_lease_is_listed_until_it_is_ended(bench: Bench) -> None:
    """A claim whose lease has ended is listed until a call has ended it, and then the next one."""
    one, two = await bench.open(), await bench.open()
    await bench.added(one, bench.job(), bench.job("gone"))
    gone, old = await bench.due(one)
    if gone.job.id != "gone":
        gone, old = old, gone
    await bench.remove(two, "gone")
    await bench.advance(bench.lease + SECOND)
    expected = [hold_of(bench, gone), hold_of(bench, old)]
    for backend in (one, two):
        assert await holds(bench, backend) == expected, "the end of a lease has ended a claim"
        assert await bench.stored(backend) == bench.held(old.job, old)
    await bench.lapse(two)
    assert await holds(bench, one) == [], "what was lost is listed"
    await bench.advance(SECOND)
    new = await bench.claim(two)
    assert await holds(bench, one) == [hold_of(bench, new)]
    assert bench.pending(new).lost == 1


@law
async def the_claim_of_a_removed_job_is_listed(bench: Bench) -> None:
    """A removed job's claim is listed until it ends, under its own uid, be the id taken again."""
    one, two = await bench.open(), await bench.open()
    await bench.added(one, queued(bench, "job", "bulk"))
    claim = await bench.claim(one)
    await bench.remove(two, "job")
    expected = hold_of(bench, claim)
    assert await the_hold(bench, two) == expected, "the claim of a removed job is not listed"
    (new,) = await bench.added(two, queued(bench, "job", "alerts"))
    assert await the_hold(bench, one) == expected, "the claim is told as one of the new job"
    (renewed,) = await bench.renew(one, [claim])
    assert (await the_hold(bench, two)).expires_at == renewed.expires_at
    await bench.settle(one, Settlement(claim, None, None, ()))
    assert await holds(bench, two) == []
    newer = await bench.claim(two)
    assert newer.job == new
    assert await the_hold(bench, one) == hold_of(bench, newer)


@law
async def an_edit_changes_no_listed_claim(bench: Bench) -> None:
    """What is listed of a claim is what was claimed, whatever an edit makes of the job."""
    one, two = await bench.open(), await bench.open()
    await bench.added(one, queued(bench, "job", "bulk"))
    claim = await bench.claim(one)
    expected = hold_of(bench, claim)
    later = bench.clock.now() + timedelta(days=1)
    edited = bench.moved(await bench.stored(two), later, failures=3)
    edited = await two.replace(evolve(edited, spec=evolve(edited.spec, queue="alerts")))
    for query in ({}, {"queue": "bulk"}, {"worker": claim.worker}):
        assert await holds(bench, two, **query) == [expected], "an edit has changed a claim"
    assert await holds(bench, two, queue="alerts") == []
    (lost, ended) = await _lost(bench, two)
    assert (lost.queue, lost.status) == ("bulk", Status.ABANDONED)
    assert ended.queue == "bulk"
    assert (await bench.stored(two)).spec.queue == "alerts"


async def _lost(bench: Bench, backend: Backend) -> list[Any]:
    await bench.advance(bench.lease)
    return list(await bench.lapse(backend))


@law
async def a_renewal_is_seen_in_the_list(bench: Bench) -> None:
    """Claims tells the lease that the newest renewal stored, when, and since when it runs alone."""
    one, two = await bench.open(), await bench.open()
    await bench.added(one, bench.job())
    claim = await bench.claim(one)
    expected = hold_of(bench, claim)
    alone_at = None
    for alone in (False, True, True, False):
        now = await bench.advance(5 * SECOND)
        (claim,) = await bench.renew(one, [claim], alone=alone)
        alone_at = (alone_at or now) if alone else None
        expected = evolve(expected, renewed_at=now, expires_at=claim.expires_at, alone_at=alone_at)
        assert claim.expires_at == now + bench.lease
        assert await the_hold(bench, two) == expected
    forged = evolve(claim, token=claim.token + 1)
    await bench.advance(SECOND)
    assert not await bench.renew(two, [forged])
    assert await the_hold(bench, one) == expected, "a renewal that was refused is seen"


PROGRESS = (
    Progress(1),
    Progress(0.1, 3, "päge 1\n\u2028 of 'three'", FIRST),
    Progress(2**53 + 0.0, 1e300, "k" * 255, LAST),
    Progress(0, 0.0, ""),
    Progress(-1.5, None, "\U0001f600"),
)


@law
async def progress_travels_with_renewals(bench: Bench) -> None:
    """Claims tells the newest progress that a renewal brought; one that brings none leaves it."""
    one, two = await bench.open(), await bench.open()
    await bench.added(one, bench.job())
    claim = await bench.claim(one)
    assert (await the_hold(bench, two)).progress is None
    for progress in PROGRESS:
        (claim,) = await one.renew([Renewal(claim, progress=progress)])
        for _ in range(2):
            hold = await the_hold(bench, two)
            assert hold.progress == progress, f"of {progress} was kept {hold.progress}"
            await bench.advance(SECOND)
            (claim,) = await one.renew([Renewal(claim, alone=True)])
    forged = Renewal(evolve(claim, worker="else"), progress=Progress(9))
    assert not await two.renew([forged])
    assert (await the_hold(bench, two)).progress == PROGRESS[-1], "a refused one has told progress"
    await one.release([claim])
    claim = await bench.claim(two)
    assert (await the_hold(bench, one)).progress is None, "a claim has the progress of another one"


@law
async def each_renewal_brings_its_own_progress(bench: Bench) -> None:
    """Of several renewals in one call each stores its own progress, and others keep theirs."""
    backend = await bench.open()
    await add_all(bench, backend, [bench.job(f"{n}") for n in range(4)])
    claims = await bench.due(backend)
    told = [Progress(n, 4, f"{n}") for n in range(4)]
    pairs = zip(claims, told, strict=True)
    await backend.renew([Renewal(claim, progress=one) for claim, one in pairs])
    newest = [None, Progress(7), None, Progress(8)]
    renewals = [
        Renewal(claim, alone, one)
        for claim, one, alone in zip(claims, newest, (True, False, False, True), strict=True)
    ]
    await backend.renew(renewals[::-1])
    found = [hold.progress for hold in await holds(bench, backend)]
    assert found == [told[0], newest[1], told[2], newest[3]], f"kept were {found}"
    alone = [hold.alone_at is not None for hold in await holds(bench, backend)]
    assert alone == [True, False, False, True]


@law
async def what_was_lost_tells_its_progress(bench: Bench) -> None:
    """The execution of a lost claim has the claim's progress and queue; one not run has none."""
    one, two = await bench.open(), await bench.open()
    for kind in ("left alone", "edited", "removed"):
        await bench.added(one, queued(bench, kind, "bulk"))
        claim = await bench.claim(one)
        progress = Progress(3, 7, kind, bench.clock.now())
        await one.renew([Renewal(claim, progress=progress)])
        read = await bench.stored(two, kind)
        if kind == "edited":
            await two.replace(bench.moved(read, bench.clock.now() + timedelta(days=1)))
        elif kind == "removed":
            await two.remove(read)
        told = await _lost(bench, two)
        expected: list[tuple[Status, str, Progress | None]] = [(Status.ABANDONED, "bulk", progress)]
        if kind != "left alone":
            expected.append((Status.SUPERSEDED, "bulk", None))
        assert [(one.status, one.queue, one.progress) for one in told] == expected
        assert list(reversed(await bench.history(two, job_id=kind))) == told
        if kind == "left alone":
            await bench.remove(two, kind)


@law
async def pages_of_claims_are_complete(bench: Bench) -> None:
    """Claims come by the ids of their jobs, in pages of any size, the last one without a next."""
    one, two = await bench.open(), await bench.open()
    names = [f"{n}" for n in (3, 0, 6, 1, 5, 2, 4)]
    await add_all(bench, one, [queued(bench, name, "q", 9 - n) for n, name in enumerate(names)])
    await bench.due(one, 4)
    await bench.due(two, 3)
    for limit in (1, 2, 3, 7, 100):
        found = [hold.job_id for hold in await bench.holds(two, limit)]
        assert found == sorted(names), f"in pages of {limit}: {found}"
    page = await one.claims(ClaimQuery(), after=None, limit=7)
    assert page.next is None, "a full last page has a next"
    page = await one.claims(ClaimQuery(worker="nobody"), after=None, limit=7)
    assert (list(page.items), page.next) == ([], None)


@law
async def pages_of_claims_go_on_while_others_write(bench: Bench) -> None:
    """What stays claimed is listed once, whatever is claimed and freed between two pages."""
    one, two = await bench.open(), await bench.open()
    await add_all(bench, one, [bench.job(f"{n}") for n in (1, 3, 5, 7, 9)])
    claims = {claim.job.id: claim for claim in await bench.due(one)}
    seen: list[str] = []
    after: str | None = None
    for change in itertools.count():
        backend = (one, two)[change % 2]
        page = await backend.claims(ClaimQuery(), after=after, limit=1)
        seen += [hold.job_id for hold in page.items]
        after = page.next
        if after is None:
            break
        if change == 0:
            await one.release([claims["1"]])
        elif change == 1:
            await bench.settle(one, bench.settlement(claims["3"]))
            await bench.added(two, bench.job("0"), bench.job("8"))
            await bench.due(two)
        elif change == 2:
            await bench.renew(one, [claims["7"], claims["9"]])
    stays = [job_id for job_id in seen if job_id in {"5", "7", "9"}]
    assert sorted(stays) == ["5", "7", "9"], f"listed were {seen}"
    assert len(seen) == len(set(seen)), f"some are listed twice: {seen}"


@law
async def claims_are_filtered(bench: Bench) -> None:
    """Claims are listed by job, worker and queue, each exactly, and all that is given together."""
    one, two = await bench.open("w"), await bench.open("W2")
    names = {"job": "q", "job2": "q", "Job": "Q", "jo": "q2", "j%": "default", "x": "q"}
    jobs = [queued(bench, job_id, queue) for job_id, queue in names.items()]
    await add_all(bench, one, jobs)
    claims = [*await bench.due(one, 3), *await bench.due(two, 3)]
    expected = sorted((hold_of(bench, one) for one in claims), key=lambda hold: hold.job_id)
    choices = itertools.product(
        (None, *names, "jo_", "nothing"), (None, "w", "W2", "W", "%"), (None, *names.values(), "*")
    )
    for job_id, worker, queue in bench.some(choices):
        query = ClaimQuery(job_id, worker, queue)
        found = await holds(bench, two, limit=5, job_id=job_id, worker=worker, queue=queue)
        assert found == [hold for hold in expected if finds(query, hold)], f"{query}: {found}"


@law
async def a_claim_that_ends_a_pause_is_listed(bench: Bench) -> None:
    """The claim that ends a pause is listed without an occurrence, until it ends."""
    one, two = await bench.open(), await bench.open()
    now = bench.clock.now()
    paused = bench.job(due=None)
    standing = evolve(paused.standing, pause=Pause(now - SECOND, 1, now, "wait"), due_at=now)
    await bench.added(one, evolve(paused, standing=standing))
    claim = await bench.claim(one)
    hold = await the_hold(bench, two)
    assert hold == hold_of(bench, claim, pending=None)
    assert (hold.key, hold.attempt) == (None, 0)
    await one.release([claim])
    assert await holds(bench, two) == []


@law(needs=spoilable)
async def an_unreadable_record_is_no_listed_claim(bench: Bench) -> None:
    """A record that cannot be read is listed as no claim, and hides no other one."""
    backend = await bench.open()
    await add_all(bench, backend, [bench.job(name) for name in ("a", "spoiled", "z")])
    await bench.due(backend)
    await bench.harness.spoil(bench.place, "spoiled")
    for limit in (1, 2, 3):
        found = [hold.job_id for hold in await bench.holds(backend, limit)]
        assert found == ["a", "z"], f"in pages of {limit}: {found}"
    assert await bench.holds(backend, job_id="spoiled") == []
