"""Repeats: a settlement that was written is known again, however little it left behind."""

from __future__ import annotations

from datetime import timedelta

from attrs import evolve

from sched_core import Settlement, Status
from sched_testkit._suite.bench import Bench
from sched_testkit.laws.law import law


@law
async def a_repeat_without_executions_is_known(bench: Bench) -> None:
    """A settlement without executions is known until a later claim of the job is settled.

    A later claim alone, and one that is lost, hide nothing.
    """
    one, two = await bench.open(), await bench.open()
    await bench.added(one, bench.job())
    for lost in (False, True):
        claim = await bench.claim(one)
        silent = bench.settlement(claim, due=bench.clock.now(), executions=[])
        assert (await bench.settle(one, silent)).outcome == "written"
        stored = (await bench.stored(one)).standing
        for backend in (one, two):
            assert (await bench.settle(backend, silent)).outcome == "written"
        later = await bench.claim(two)
        assert (await bench.settle(one, silent)).outcome == "written", "a claim hid who settled"
        assert (await bench.stored(one)).standing == stored
        if lost:
            later = await bench.take_over(two)
            assert (await bench.settle(one, silent)).outcome == "written", "a lost claim hid it"
        ended = bench.settlement(later, due=bench.clock.now())
        assert (await bench.settle(two, ended)).outcome == "written"
        assert (await bench.settle(one, silent)).outcome == "claim_lost"
        assert (await bench.settle(one, ended)).outcome == "written"


@law
async def a_freed_claim_is_known(bench: Bench) -> None:
    """A settlement without standing and executions is known as written when it is repeated."""
    one = await bench.open()
    two = await bench.open()
    (job,) = await bench.added(one, bench.job())
    freed = Settlement(await bench.claim(one), None, None, ())
    assert (await bench.settle(one, freed)).outcome == "written"
    claim = await bench.claim(two)
    assert (await bench.settle(one, freed)).outcome == "written"
    assert not await bench.due(one, 10), "the repeat freed another worker's claim"
    assert await bench.stored(one) == bench.held(job, claim)
    assert (await bench.settle(two, bench.settlement(claim))).outcome == "written"


@law
async def a_repeat_whose_executions_were_pruned_is_known(bench: Bench) -> None:
    """A settlement is known after its executions were pruned, if nothing came after it."""
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
    assert not await bench.history(one), "a repeat wrote its executions again"


@law
async def a_settlement_twice_in_one_batch_is_written_once(bench: Bench) -> None:
    """One batch may hold a settlement twice: both are answered as written, and it is once."""
    backend = await bench.open()
    await bench.added(backend, bench.job("a"), bench.job("b"))
    claims = await bench.due(backend, 10)
    first, second = (bench.settlement(claim, due=bench.clock.now()) for claim in claims)
    answers = await backend.settle([first, second, first])
    assert [answer.outcome for answer in answers] == ["written"] * 3
    answers = await backend.settle([second, second, first])
    assert [answer.outcome for answer in answers] == ["written"] * 3
    assert len(await bench.history(backend)) == 2
    again = {claim.job.id: claim for claim in await bench.due(backend, 10)}
    numbers = {job_id: bench.pending(claim).number for job_id, claim in again.items()}
    assert numbers == {"a": 2, "b": 2}


@law
async def two_claims_of_a_job_in_one_batch_are_judged_apart(bench: Bench) -> None:
    """One batch may hold settlements of two claims of one job: each gets its own answer."""
    backend = await bench.open()
    await bench.added(backend, bench.job())
    lost = await bench.claim(backend)
    held = await bench.take_over(backend)
    old, new = (bench.settlement(claim, due=bench.clock.now()) for claim in (lost, held))
    for batch, expected in (
        ([old, new, old], ["claim_lost", "written", "claim_lost"]),
        ([new, old], ["written", "claim_lost"]),
    ):
        answers = await backend.settle(batch)
        assert [answer.outcome for answer in answers] == expected
    assert (await bench.stored(backend)).standing == new.standing
    summary = bench.summary(await bench.history(backend))
    assert summary == [(1, 1, "abandoned"), (1, 2, "succeeded")]


@law
async def a_repeat_of_another_claim_is_none(bench: Bench) -> None:
    """A settlement with the executions of another claim is no repeat: token and worker decide."""
    one = await bench.open()
    two = await bench.open()
    await bench.added(one, bench.job())
    stale = await bench.claim(one)
    taken = await bench.take_over(two)
    written = bench.settlement(taken, due=bench.clock.now())
    assert (await bench.settle(two, written)).outcome == "written"
    forged = (evolve(taken, worker="another"), evolve(taken, token=taken.token + 1))
    for claim in (stale, *forged):
        same_executions = evolve(written, claim=claim)
        assert (await bench.settle(one, same_executions)).outcome == "claim_lost"
    alone = Settlement(stale, None, None, (bench.execution(stale),))
    assert (await bench.settle(one, alone)).outcome == "claim_lost"
    assert len(await bench.history(one)) == 2


@law
async def a_repeat_has_all_its_executions(bench: Bench) -> None:
    """A settlement is no repeat where some of its executions are stored and others are not."""
    backend = await bench.open()
    (job,) = await bench.added(backend, bench.job())
    claim = await bench.claim(backend)
    own = bench.execution(claim)
    missed = bench.execution(claim, Status.MISSED, attempt=0, number=7, id=f"{job.uid}:7:0")
    first = bench.settlement(claim, due=bench.clock.now(), executions=[own])
    assert (await bench.settle(backend, first)).outcome == "written"
    later = bench.settlement(await bench.claim(backend), due=bench.clock.now())
    assert (await bench.settle(backend, later)).outcome == "written"
    for executions in ([missed, own], [own, missed]):
        outcome = (await bench.settle(backend, evolve(first, executions=tuple(executions)))).outcome
        assert outcome == "claim_lost", f"one of two executions is not stored, and it is {outcome}"
    assert (await bench.settle(backend, first)).outcome == "written"
    assert await bench.history(backend) == [*later.executions, own]


@law
async def a_released_claim_cannot_settle(bench: Bench) -> None:
    """A claim that was released has ended: settling it is claim_lost and writes nothing."""
    backend = await bench.open()
    (job,) = await bench.added(backend, bench.job())
    claim = await bench.claim(backend)
    await backend.release([claim])
    for settlement in (
        bench.settlement(claim),
        Settlement(claim, None, None, (bench.execution(claim),)),
        Settlement(claim, None, None, ()),
    ):
        assert (await bench.settle(backend, settlement)).outcome == "claim_lost"
    assert await bench.stored(backend) == job
    assert not await bench.history(backend)
    assert not await bench.renew(backend, [claim])


@law
async def a_repeat_is_of_the_same_status(bench: Bench) -> None:
    """An older settlement is known by its executions: all stored, with its token, worker, status.

    A lost claim whose `abandoned` execution has the id that it would have written is no repeat.
    """
    one, two = await bench.open(), await bench.open()
    await bench.added(one, bench.job())
    stale = await bench.claim(one)
    taken = await bench.take_over(two)
    assert (await bench.settle(one, bench.settlement(stale))).outcome == "claim_lost"
    both = bench.settlement(taken, due=bench.clock.now())
    missed = bench.execution(taken, Status.MISSED, attempt=0, number=2, id=f"{taken.job.uid}:2:0")
    both = evolve(both, executions=(*both.executions, missed))
    assert (await bench.settle(two, both)).outcome == "written"
    later = bench.settlement(await bench.claim(two), due=bench.clock.now())
    assert (await bench.settle(two, later)).outcome == "written"
    assert (await bench.settle(one, both)).outcome == "written", "an older settlement is forgotten"
    own, _ = both.executions
    for other in (evolve(own, status=Status.FAILED), evolve(own, id=f"{taken.job.uid}:1:9")):
        odd = evolve(both, executions=(other, missed))
        outcome = (await bench.settle(one, odd)).outcome
        assert outcome == "claim_lost", f"one of two executions is stored, and it is {outcome}"
    assert len(await bench.history(two)) == 4
