"""Repeats: a settlement that was written is known again, however little it left behind."""

from __future__ import annotations

from datetime import timedelta

from attrs import evolve

from sched_core import Settlement, Status
from sched_testkit.bench import Bench
from sched_testkit.laws.law import law


@law
async def a_repeat_without_lines_is_known(bench: Bench) -> None:
    """A settlement without lines is known as written until a later claim of the job is settled."""
    one = await bench.open()
    two = await bench.open()
    await bench.added(one, bench.job())
    for number, lost in enumerate((False, True), 1):
        claim = await bench.claim(one)
        silent = bench.settlement(claim, due=bench.clock.now(), lines=[], number=number, attempts=1)
        assert (await bench.settle(one, silent)).outcome == "written"
        stored = await bench.stored(one)
        for backend in (one, two):
            assert (await bench.settle(backend, silent)).outcome == "written"
        later = await bench.claim(two)
        assert (await bench.settle(one, silent)).outcome == "written", "a claim hid who settled"
        if lost:
            await bench.advance(bench.lease)
            later = await bench.claim(two)
            assert (await bench.settle(one, silent)).outcome == "written", "a takeover hid it"
        assert await bench.stored(one) == stored
        ended = bench.settlement(later, due=bench.clock.now())
        assert (await bench.settle(two, ended)).outcome == "written"
        assert (await bench.settle(one, silent)).outcome == "claim_lost"
        assert (await bench.settle(one, ended)).outcome == "written"


@law
async def a_freed_claim_is_known(bench: Bench) -> None:
    """A settlement without standing and lines is known as written when it is repeated."""
    one = await bench.open()
    two = await bench.open()
    (job,) = await bench.added(one, bench.job())
    freed = Settlement(await bench.claim(one), None, None, ())
    assert (await bench.settle(one, freed)).outcome == "written"
    claim = await bench.claim(two)
    assert (await bench.settle(one, freed)).outcome == "written"
    assert not list(await one.claim_due(10)), "the repeat freed another worker's claim"
    assert await bench.stored(one) == job
    assert (await bench.settle(two, bench.settlement(claim))).outcome == "written"


@law
async def a_repeat_whose_lines_were_pruned_is_known(bench: Bench) -> None:
    """A settlement is known as written after its lines were pruned, if nothing came after it."""
    one = await bench.open()
    two = await bench.open()
    await bench.added(one, bench.job())
    settlement = bench.settlement(await bench.claim(one), due=bench.clock.now())
    assert (await bench.settle(one, settlement)).outcome == "written"
    stored = await bench.stored(one)
    assert await two.prune(bench.clock.now() + timedelta(minutes=1)) == 1
    for backend in (one, two):
        assert (await bench.settle(backend, settlement)).outcome == "written"
    assert await bench.stored(one) == stored
    assert not await bench.lines(one), "a repeat wrote its lines again"


@law
async def a_settlement_twice_in_one_batch_is_written_once(bench: Bench) -> None:
    """One batch may hold a settlement twice: both are answered as written, and it is once."""
    backend = await bench.open()
    await bench.added(backend, bench.job("a"), bench.job("b"))
    claims = await backend.claim_due(10)
    first, second = (bench.settlement(claim, due=bench.clock.now()) for claim in claims)
    answers = await backend.settle([first, second, first])
    assert [answer.outcome for answer in answers] == ["written"] * 3
    answers = await backend.settle([second, second, first])
    assert [answer.outcome for answer in answers] == ["written"] * 3
    assert len(await bench.lines(backend)) == 2
    again = {claim.job.id: claim for claim in await backend.claim_due(10)}
    assert {job_id: claim.job.standing.number for job_id, claim in again.items()} == {
        "a": 2,
        "b": 2,
    }


@law
async def two_claims_of_a_job_in_one_batch_are_judged_apart(bench: Bench) -> None:
    """One batch may hold settlements of two claims of one job: each gets its own answer."""
    backend = await bench.open()
    await bench.added(backend, bench.job())
    lost = await bench.claim(backend)
    await bench.advance(bench.lease)
    held = await bench.claim(backend)
    old, new = (bench.settlement(claim, due=bench.clock.now()) for claim in (lost, held))
    for batch, expected in (
        ([old, new, old], ["claim_lost", "written", "claim_lost"]),
        ([new, old], ["written", "claim_lost"]),
    ):
        answers = await backend.settle(batch)
        assert [answer.outcome for answer in answers] == expected
    assert (await bench.stored(backend)).standing == new.standing
    assert bench.fates(await bench.lines(backend)) == [(1, 1, "abandoned"), (1, 2, "succeeded")]


@law
async def a_repeat_of_another_claim_is_none(bench: Bench) -> None:
    """A settlement with the lines of another claim is no repeat: its token and worker decide."""
    one = await bench.open()
    two = await bench.open()
    await bench.added(one, bench.job())
    stale = await bench.claim(one)
    await bench.advance(bench.lease)
    taken = await bench.claim(two)
    written = bench.settlement(taken, due=bench.clock.now())
    assert (await bench.settle(two, written)).outcome == "written"
    forged = (evolve(taken, worker="another"), evolve(taken, token=taken.token + 1))
    for claim in (stale, *forged):
        same_lines = evolve(written, claim=claim)
        assert (await bench.settle(one, same_lines)).outcome == "claim_lost"
    alone = Settlement(stale, None, None, (bench.line(stale),))
    assert (await bench.settle(one, alone)).outcome == "claim_lost"
    assert len(await bench.lines(one)) == 2


@law
async def a_repeat_has_all_its_lines(bench: Bench) -> None:
    """Where some lines of a settlement are stored and others are not, it is no repeat."""
    backend = await bench.open()
    (job,) = await bench.added(backend, bench.job())
    claim = await bench.claim(backend)
    own = bench.line(claim)
    missed = bench.line(claim, Status.MISSED, attempt=0, number=7, id=f"{job.uid}:7:0")
    first = bench.settlement(claim, due=bench.clock.now(), lines=[own])
    assert (await bench.settle(backend, first)).outcome == "written"
    later = bench.settlement(await bench.claim(backend), due=bench.clock.now())
    assert (await bench.settle(backend, later)).outcome == "written"
    for lines in ([missed, own], [own, missed]):
        settled = await bench.settle(backend, evolve(first, ledger=tuple(lines)))
        assert settled.outcome == "claim_lost", f"{settled.outcome}, and one line is not stored"
    assert (await bench.settle(backend, first)).outcome == "written"
    assert await bench.lines(backend) == [*later.ledger, own]


@law
async def a_released_claim_cannot_settle(bench: Bench) -> None:
    """A claim that was released has ended: settling it is claim_lost and writes nothing."""
    backend = await bench.open()
    (job,) = await bench.added(backend, bench.job())
    claim = await bench.claim(backend)
    await backend.release([claim])
    for settlement in (
        bench.settlement(claim),
        Settlement(claim, None, None, (bench.line(claim),)),
        Settlement(claim, None, None, ()),
    ):
        assert (await bench.settle(backend, settlement)).outcome == "claim_lost"
    assert await bench.stored(backend) == job
    assert not await bench.lines(backend)
    assert not list(await backend.renew([claim]))
