"""Requests, marks and pauses: what a claim is for when there is more than the schedule."""

from __future__ import annotations

from datetime import timedelta

from attrs import evolve

from sched_core import CancelMark, Kind, Settlement, Status
from sched_testkit._stories.entry import without
from sched_testkit._suite.bench import SECOND, Bench
from sched_testkit.laws.law import law


@law
async def a_claim_is_for_the_earliest_of_requests_and_schedule(bench: Bench) -> None:
    """A claim is for the earliest of schedule and requests, by due moment and then by number.

    What is held is told by its number, and only its own execution is left to the claim.
    """
    backend = await bench.open()
    now = bench.clock.now()
    job = bench.job(due=now - 2 * SECOND)
    asked = (
        bench.request(4, now - SECOND, key="later"),
        bench.request(3, now - 2 * SECOND, args={"a": "1"}),
        bench.request(2, now - 3 * SECOND, kind=Kind.BACKFILLED, until=now),
        bench.request(5, now + SECOND),
    )
    (job,) = await bench.added(backend, bench.asked(job, *asked))
    assert job.standing.due_at == now - 3 * SECOND
    for number in (2, 1, 3, 4):
        claim = await bench.claim(backend)
        held = await bench.stored(backend)
        assert held.held == number, f"{held.held} is told to be held, expected {number}"
        assert not await bench.due(backend), "a job was handed out for two occurrences at once"
        rest = without(claim.job.standing, number)
        ended = Settlement(claim, claim.job.revision, rest, (bench.execution(claim),))
        assert ended.executions[0].number == number
        assert (await bench.settle(backend, ended)).outcome == "written"
        assert (await bench.stored(backend)).standing == rest
    assert not await bench.due(backend), "a request was handed out before its moment"
    await bench.advance(seconds=1)
    assert bench.pending(await bench.claim(backend)) == asked[3]


@law
async def requests_keep_their_numbers_and_their_order(bench: Bench) -> None:
    """Requests stay in the order of asking, each as it was, while others of them run and end."""
    one, two = await bench.open(), await bench.open()
    now, due = bench.clock.now(), bench.clock.now() + timedelta(days=1)
    numbers = (9, 3, 16, 4, 12, 2, 7, 5)
    asked = [
        bench.request(n, now - n * SECOND, key=f"key {n}", origin=n - 1, args={"n": f"{n}"})
        for n in numbers
    ]
    (job,) = await bench.added(one, bench.asked(bench.job(due=due), *asked))
    left, last = list(asked), job.standing
    for backend in (one, two, one):
        claim = await bench.claim(backend)
        first = min(left, key=lambda each: each.due_at)
        assert bench.pending(claim) == first
        left.remove(first)
        last = evolve(without(claim.job.standing, first.number), last_number=20)
        ended = Settlement(claim, claim.job.revision, last, (bench.execution(claim),))
        assert (await bench.settle(backend, ended)).outcome == "written"
        stored = await bench.stored(two)
        assert stored.standing == last
        assert list(stored.standing.requests) == left, "requests have lost their order"
    failing = await bench.claim(two)
    assert (await bench.settle(two, bench.retry(failing, due=due))).outcome == "written"
    order = [each.number for each in (await bench.stored(one)).standing.requests]
    assert order == [each.number for each in left], "a retry has moved a request"


@law
async def an_edit_leaves_a_held_occurrence_its_number(bench: Bench) -> None:
    """What a claim is for does not change with edits: a request that is due earlier takes nothing.

    Its end is that of the occurrence that was claimed.
    """
    one, two = await bench.open(), await bench.open()
    now = bench.clock.now()
    (job,) = await bench.added(one, bench.job(due=now - SECOND))
    claim = await bench.claim(one)
    earlier = bench.request(2, now - 9 * SECOND)
    edited = await two.replace(bench.asked(bench.held(job, claim), earlier))
    assert edited.held == 1, "an edit has changed what is told to be held"
    assert not await bench.due(two), "a request was handed out during a run of its job"
    stored = await bench.stored(two)
    without_it = evolve(stored.standing, scheduled=None)
    await two.replace(evolve(stored, standing=without_it), [bench.owed(claim, Status.SUPERSEDED)])
    assert (await bench.stored(one)).held == 1, "an edit has changed what is told to be held"
    await one.release([claim])
    assert bench.summary(await bench.history(two)) == [(1, 0, "superseded")]
    assert bench.pending(await bench.claim(two)) == earlier


@law
async def a_renewal_tells_that_a_run_is_to_be_cancelled(bench: Bench) -> None:
    """Renew tells the holder whether the occurrence that it holds is marked to be cancelled."""
    one, two = await bench.open(), await bench.open()
    await bench.added(one, bench.asked(bench.job(), bench.request(2)))
    (claim,) = await bench.due(one)

    async def cancel(stored: bool, *numbers: int) -> bool:
        read = await bench.stored(two)
        standing = evolve(read.standing, cancels=tuple(map(CancelMark, numbers)))
        if not stored:
            standing = without(standing, 1)
        await two.replace(evolve(read, standing=standing))
        (renewed,) = await bench.renew(one, [claim])
        assert renewed == evolve(claim, expires_at=renewed.expires_at, cancel=renewed.cancel)
        return renewed.cancel

    assert (await bench.renew(one, [claim]))[0].cancel is False, "it was not marked"
    assert await cancel(True, 2) is False, "another occurrence is marked"
    assert await cancel(True, 1, 2) is True, "it is marked, and its holder is not told"
    assert await cancel(True, 2) is False, "its mark was taken away"
    assert await cancel(False, 1) is True, "what was edited away can still be cancelled"
    await bench.remove(two, "job")
    assert (await bench.renew(one, [claim]))[0].cancel is False, "there is no mark any more"
    standing = evolve(bench.job().standing, cancels=(CancelMark(1),))
    await bench.added(two, evolve(bench.job(), standing=standing))
    (renewed,) = await bench.renew(one, [claim])
    assert renewed.cancel is False, "the mark of another incarnation was told"
    later = bench.job("asked", due=bench.clock.now() + timedelta(days=1))
    (later,) = await bench.added(one, bench.asked(later, bench.request(2)))
    (claim,) = [each for each in await bench.due(one) if each.job.id == "asked"]
    for number in (1, 2):
        read = await bench.stored(two, "asked")
        await two.replace(
            evolve(read, standing=evolve(read.standing, cancels=(CancelMark(number),)))
        )
        (renewed,) = await bench.renew(one, [claim])
        assert renewed.cancel is (number == 2), f"{number} is marked, and the request 2 is held"


@law
async def a_removal_can_cancel_what_is_held(bench: Bench) -> None:
    """A removal that leaves a cancelled execution to a claim marks its run to be cancelled.

    However the claim ends, its occurrence has ended as that says, by whom and why.
    """
    one, two = await bench.open(), await bench.open()
    ends = {"lost": (1, 0), "released": (0,), "settled": (1,)}
    told = (Status.CANCELLED, "why", "who")
    for name, attempts in ends.items():
        await bench.added(one, bench.job(name))
        (claim,) = await bench.due(one)
        left = bench.owed(claim, Status.SUPERSEDED)
        left = evolve(left, status=Status.CANCELLED, reason="why", actor="who")
        await bench.remove(two, name, [left])
        assert not await bench.history(two, job_id=name), "it is left to the claim, and written"
        (renewed,) = await bench.renew(one, [claim])
        assert renewed.cancel is True, "the holder of a removed job is not told to stop"
        if name == "released":
            await one.release([claim])
        elif name == "settled":
            ended = bench.execution(claim, Status.CANCELLED, reason="stopped")
            settled = await bench.settle(one, Settlement(claim, None, None, (ended,)))
            assert settled.outcome == "written"
        else:
            await bench.advance(bench.lease)
            await bench.lapse(two)
        found = {each.attempt: each for each in await bench.history(two, job_id=name)}
        assert set(found) == set(attempts), f"{name}: executions of the attempts {set(found)}"
        last = next(each for each in found.values() if each.final)
        assert (last.status, last.reason, last.actor) == told


@law
async def a_pause_is_ended_by_its_claim(bench: Bench) -> None:
    """A paused job with an end is due at that moment; its claim can be settled or released.

    Neither leaves an execution that it does not bring.
    """
    backend = await bench.open()
    ends = bench.clock.now() + timedelta(minutes=1)
    job = bench.job(due=None)
    pause = job.standing.pause
    assert pause is not None
    paused = evolve(job.standing, pause=evolve(pause, until=ends), due_at=ends)
    (job,) = await bench.added(backend, evolve(job, standing=paused))
    assert not await bench.due(backend)
    await bench.advance(minutes=1)
    claim = await bench.claim(backend)
    await backend.release([claim])
    assert await bench.stored(backend) == job
    claim = await bench.claim(backend)
    assert len(await bench.renew(backend, [claim])) == 1
    resumed = evolve(paused, pause=None, due_at=bench.clock.now())
    ended = Settlement(claim, claim.job.revision, resumed, ())
    assert (await bench.settle(backend, ended)).outcome == "written"
    stored = await bench.stored(backend)
    assert (stored.standing, stored.held) == (resumed, None)
    assert not await bench.history(backend), "the end of a pause has left an execution"
    assert bench.pending(await bench.claim(backend)) == paused.scheduled
