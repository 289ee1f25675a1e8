"""Settlements: what ends a claim, once, and what is refused."""

from __future__ import annotations

import functools
from datetime import timedelta

from attrs import evolve

from sched_core import Interval, Settlement, Status
from sched_testkit.bench import Bench
from sched_testkit.laws.law import TICK, law


@law
async def a_settlement_writes_the_standing_and_the_ledger(bench: Bench) -> None:
    """A settlement stores standing and lines as given, frees the claim and moves the revision."""
    backend = await bench.open()
    (job,) = await bench.added(backend, bench.job(schedule=Interval(hours=1)))
    claim = await bench.claim(backend)
    due = bench.clock.now() + timedelta(hours=1, microseconds=1)
    line = bench.line(
        claim,
        Status.FAILED,
        reason="ValueError: ✗",
        folded=3,
        folded_until=bench.clock.now() + TICK,
    )
    settlement = bench.settlement(claim, due=due, lines=[line])
    assert (await bench.settle(backend, settlement)).outcome == "written"
    stored = await bench.stored(backend)
    assert stored.standing == settlement.standing
    assert (stored.spec, stored.uid, stored.anchor) == (job.spec, job.uid, job.anchor)
    assert stored.revision != job.revision
    assert await bench.lines(backend) == [line]
    assert not list(await backend.claim_due(10)), "it is handed out before its new due moment"
    await bench.advance(due - bench.clock.now())
    assert (await bench.claim(backend)).lost is None


@law
async def a_settled_job_can_be_due_at_once(bench: Bench) -> None:
    """A settlement whose standing is due already makes the job claimable at once."""
    backend = await bench.open()
    await bench.added(backend, bench.job())
    claim = await bench.claim(backend)
    await bench.settle(backend, bench.settlement(claim, due=bench.clock.now()))
    again = await bench.claim(backend)
    assert again.job.standing.number == 2
    assert again.token > claim.token


@law
async def a_repeated_settlement_is_written_once(bench: Bench) -> None:
    """Repeating a settlement that was written answers written and changes nothing, also later."""
    one = await bench.open()
    two = await bench.open()
    await bench.added(one, bench.job())
    claim = await bench.claim(one)
    settlement = bench.settlement(claim, due=bench.clock.now())
    assert (await bench.settle(one, settlement)).outcome == "written"
    stored = await bench.stored(one)
    assert (await bench.settle(one, settlement)).outcome == "written"
    assert await bench.stored(one) == stored
    later = await bench.claim(two)
    assert (await bench.settle(one, settlement)).outcome == "written"
    await bench.settle(two, bench.settlement(later))
    assert (await bench.settle(one, settlement)).outcome == "written"
    await two.remove("job")
    assert (await bench.settle(one, settlement)).outcome == "written"
    assert len(await bench.lines(one)) == 2


@law
async def a_stale_settlement_changes_nothing(bench: Bench) -> None:
    """Settling a claim that another worker took over answers claim_lost and writes nothing."""
    one = await bench.open()
    two = await bench.open()
    await bench.added(one, bench.job())
    old = await bench.claim(one)
    await bench.advance(bench.lease)
    new = await bench.claim(two)
    before = await bench.lines(one)
    assert (await bench.settle(one, bench.settlement(old))).outcome == "claim_lost"
    assert await bench.lines(one) == before
    assert await bench.stored(one) == new.job
    assert (await bench.settle(two, bench.settlement(new))).outcome == "written"
    assert (await bench.settle(one, bench.settlement(old))).outcome == "claim_lost"


@law
async def the_fence_is_token_and_worker(bench: Bench) -> None:
    """A claim is held by token and worker together: with either of them alone it is lost."""
    backend = await bench.open()
    await bench.added(backend, bench.job())
    claim = await bench.claim(backend)
    for forged in (evolve(claim, worker="somebody"), evolve(claim, token=claim.token + 1)):
        outcome = (await bench.settle(backend, bench.settlement(forged))).outcome
        assert outcome == "claim_lost", f"a forged claim was {outcome}"
        assert not list(await backend.renew([forged])), "a forged claim was renewed"
        await backend.release([forged])
    assert not list(await backend.claim_due(10)), "a forged release freed the claim"
    assert (await bench.settle(backend, bench.settlement(claim))).outcome == "written"


@law
async def an_edit_wins_over_a_settlement(bench: Bench) -> None:
    """A settlement decided before an edit is a conflict, writes nothing and returns what stands."""
    backend = await bench.open()
    (job,) = await bench.added(backend, bench.job(metadata={"v": "1"}))
    claim = await bench.claim(backend)
    edited = await backend.replace(evolve(job, spec=evolve(job.spec, metadata={"v": "2"})))
    settled = await bench.settle(backend, bench.settlement(claim))
    assert (settled.outcome, settled.job) == ("conflict", edited)
    assert await bench.stored(backend) == edited
    assert not await bench.lines(backend), "a conflict wrote to the ledger"
    again = evolve(bench.settlement(claim), expected=edited.revision)
    assert (await bench.settle(backend, again)).outcome == "written"
    assert dict((await bench.stored(backend)).spec.metadata) == {"v": "2"}


@law
async def an_edit_keeps_the_hold(bench: Bench) -> None:
    """Replacing a claimed job does not free it: it is handed out when the run has ended."""
    one = await bench.open()
    two = await bench.open()
    (job,) = await bench.added(one, bench.job())
    claim = await bench.claim(one)
    moved = evolve(job.standing, number=2)
    await two.replace(evolve(job, standing=moved))
    assert not list(await two.claim_due(10)), "an edit freed somebody's claim"
    ended = Settlement(claim, None, None, (bench.line(claim),))
    assert (await bench.settle(one, ended)).outcome == "written"
    assert (await bench.claim(two)).job.standing.number == 2
    assert bench.fates(await bench.lines(one)) == [(1, 1, "succeeded")]


@law
async def a_ledger_only_settlement_needs_a_job_that_moved_on(bench: Bench) -> None:
    """A final line without a standing is refused while the job stands at its occurrence."""
    backend = await bench.open()
    await bench.added(backend, bench.job())
    claim = await bench.claim(backend)
    alone = Settlement(claim, None, None, (bench.line(claim),))
    assert (await bench.settle(backend, alone)).outcome == "conflict"
    assert not await bench.lines(backend)
    assert not list(await backend.claim_due(10)), "a refused settlement freed the claim"


@law
async def a_claim_can_be_freed_without_a_word(bench: Bench) -> None:
    """A settlement without standing and lines only frees the claim."""
    backend = await bench.open()
    (job,) = await bench.added(backend, bench.job())
    claim = await bench.claim(backend)
    assert (await bench.settle(backend, Settlement(claim, None, None, ()))).outcome == "written"
    assert await bench.stored(backend) == job
    assert (await bench.claim(backend)).lost is None


@law
async def a_second_final_line_is_refused(bench: Bench) -> None:
    """An occurrence that has its final line never gets another, whatever a settlement says."""
    backend = await bench.open()
    await bench.added(backend, bench.job())
    claim = await bench.claim(backend)
    now = bench.clock.now()
    stays = bench.settlement(claim, due=now, number=1)
    assert (await bench.settle(backend, stays)).outcome == "written"
    claim = await bench.claim(backend)
    second = bench.settlement(claim, due=now, number=1, lines=[bench.line(claim, attempt=2)])
    assert (await bench.settle(backend, second)).outcome == "conflict"
    finals = [line for line in await bench.lines(backend) if line.final]
    assert len(finals) == 1


@law
async def a_batch_reports_each_settlement(bench: Bench) -> None:
    """One bad settlement never fails its batch: each gets its own answer, in order."""
    one = await bench.open()
    two = await bench.open()
    names = ["good", "lost", "edited", "repeated", "gone", "fine"]
    await bench.added(one, *(bench.job(name) for name in names))
    claims = {claim.job.id: claim for claim in await one.claim_due(10)}
    repeated = bench.settlement(claims["repeated"])
    await bench.settle(one, repeated)
    edited = await two.replace(await bench.stored(two, "edited"))
    await two.remove("gone")
    kept = [claims[name] for name in names if name not in {"lost", "repeated"}]
    await bench.advance(bench.lease)
    await one.renew(kept)
    taken = [claim.job.id for claim in await two.claim_due(10)]
    assert taken == ["lost"], f"expected only the expired claim, got {taken}"
    batch = [repeated if name == "repeated" else bench.settlement(claims[name]) for name in names]
    answers = await one.settle(batch)
    outcomes = [answer.outcome for answer in answers]
    assert outcomes == ["written", "claim_lost", "conflict", "written", "conflict", "written"]
    assert (answers[2].job, answers[4].job) == (edited, None)
    written = {line.job_id for line in await bench.lines(one) if line.status is Status.SUCCEEDED}
    assert written == {"good", "repeated", "fine"}


@law
async def each_attempt_has_a_line_of_its_own(bench: Bench) -> None:
    """Attempts at one occurrence settle one after the other, and only the last line is final."""
    backend = await bench.open()
    await bench.added(backend, bench.job())
    for attempt, status in enumerate((Status.INTERRUPTED, Status.FAILED, Status.SUCCEEDED), 1):
        claim = await bench.claim(backend)
        assert (claim.attempt, claim.job.standing.number) == (attempt, 1)
        final = status is Status.SUCCEEDED
        again = bench.settlement(
            claim,
            due=bench.clock.now(),
            lines=[bench.line(claim, status, final=final)],
            number=2 if final else 1,
            attempts=0 if final else attempt,
        )
        assert (await bench.settle(backend, again)).outcome == "written"
    assert bench.fates(await bench.lines(backend)) == [
        (1, 1, "interrupted"),
        (1, 2, "failed"),
        (1, 3, "succeeded"),
    ]


@law
async def a_cancelled_settlement_is_whole(bench: Bench) -> None:
    """A settlement cancelled under way is written whole or not at all, and can be sent again."""
    backend = await bench.open()
    for steps in range(6):
        name = f"job-{steps}"
        await bench.added(backend, bench.job(name))
        settlement = bench.settlement(await bench.claim(backend))
        await bench.cancelled_after(steps, functools.partial(backend.settle, [settlement]))
        lines = await bench.lines(backend, job_id=name)
        stands_after = (await bench.stored(backend, name)).standing == settlement.standing
        assert bool(lines) is stands_after, "one of standing and ledger was written alone"
        assert (await bench.settle(backend, settlement)).outcome == "written"
        assert await bench.lines(backend, job_id=name) == list(settlement.ledger)
        assert (await bench.stored(backend, name)).standing == settlement.standing


@law
async def a_fate_written_beside_a_run_stands(bench: Bench) -> None:
    """A settlement writes all its lines: of other occurrences, folded or missed ones, too."""
    backend = await bench.open()
    await bench.added(backend, bench.job())
    claim = await bench.claim(backend)
    own = bench.line(claim)
    missed = bench.line(claim, Status.MISSED, attempt=0, number=2, id=f"{own.uid}:2:0")
    settlement = bench.settlement(claim, lines=[own, missed], number=3)
    assert (await bench.settle(backend, settlement)).outcome == "written"
    assert await bench.lines(backend) == [missed, own]
