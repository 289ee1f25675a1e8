"""Overlap around runs: claims, renewals, settlements and edits at once, and takeovers beside them.

Each law is one round; :mod:`sched_testkit.overlap` says in which constellations it is played.
"""

from __future__ import annotations

from collections import Counter
from datetime import timedelta

import anyio
from attrs import evolve

from sched_core import Backend, Claim, Settlement, Status
from sched_testkit.bench import Bench
from sched_testkit.laws.law import law, law_of_overlap
from sched_testkit.overlap import Overlap, settled

MANY = 24


@law_of_overlap
async def a_job_is_claimed_once(both: Overlap) -> None:
    """Of two that claim at once, one gets a job and the other does not."""
    await both.added(*(both.job(name) for name in "abc"))
    first, second = await both.both(both.claimed, both.claimed)
    claims = [*first.claims, *second.claims, *await both.claimed(both.one)]
    counted = Counter(claim.job.id for claim in claims)
    twice = sorted(job_id for job_id, times in counted.items() if times > 1)
    assert not twice, f"claimed twice: {twice}"
    assert len(counted) == 3, f"never claimed, though due: all but {sorted(counted)}"
    for claim in claims:
        outcome = (await both.settle(both.bench.settlement(claim))).outcome
        assert outcome == "written", f"{claim.job.id} was claimed, and its settlement {outcome}"


@law(examines="overlap")
async def many_claimers_share_what_is_due(bench: Bench) -> None:
    """However many claim at once, each job that is due is handed out once, and none is left."""
    one, two = await bench.open(), await bench.open()
    names = [f"job-{n:02}" for n in range(MANY)]
    for name in names:
        await bench.added(one, bench.job(name))
    claims: list[Claim] = []

    async def claimer(backend: Backend, limit: int) -> None:
        while found := await backend.claim_due(limit):
            claims.extend(found)
            assert len(claims) <= MANY, "a job that is claimed is handed out again and again"

    async with anyio.create_task_group() as tasks:
        for backend, limit in ((one, 1), (two, 2), (one, 3), (two, 5)):
            tasks.start_soon(claimer, backend, limit)
    claims += await one.claim_due(MANY)
    counted = Counter(claim.job.id for claim in claims)
    assert sorted(counted.elements()) == names, f"handed out: {counted}"
    answers = await one.settle([bench.settlement(claim) for claim in claims])
    outcomes = {answer.outcome for answer in answers}
    assert outcomes == {"written"}, f"settlements of what was claimed are {outcomes}"
    assert len({line.id for line in await bench.lines(two)}) == MANY


@law_of_overlap
async def an_edit_beside_a_claim_is_kept(both: Overlap) -> None:
    """An edit beside a claim stands, and what is put off first is not claimed."""
    (job,) = await both.added(both.job())
    put_off = evolve(job.standing, due_at=both.bench.clock.now() + timedelta(days=1))
    edited = evolve(job, standing=put_off)
    first, second = await both.both(both.claimed, lambda two: two.replace(edited))
    assert second.error is None, f"a claim is no edit, yet: {second}"
    assert await both.stored() == second.value, "a claim took back an edit"
    for claim in first.claims:
        assert claim.job == job, f"claimed was {claim.job}, and not due any more"
        assert (await both.settle(both.bench.settlement(claim))).outcome == "conflict"
        ended = evolve(both.bench.settlement(claim), expected=second.value.revision)
        assert (await both.settle(ended)).outcome == "written", "the edit cost the claim"
    assert not await both.claimed(both.two), "it was put off, and is handed out"


@law_of_overlap
async def a_removal_beside_a_claim_is_kept(both: Overlap) -> None:
    """A job removed beside a claim is gone, and a new one of its id waits for what was claimed."""
    (job,) = await both.added(both.job())
    first, second = await both.both(both.claimed, lambda two: two.remove(job.id))
    assert second.value is True, f"the removal: {second}"
    assert await both.seen() is None, "a claim brought a removed job back"
    (new,) = await both.added(both.job())
    for claim in first.claims:
        assert not await both.claimed(both.two), "two runs of one id at once"
        ended = Settlement(claim, None, None, (both.bench.line(claim),))
        assert (await both.settle(ended)).outcome == "written", "the removal cost the claim"
    again = await both.claim()
    assert again.job == new
    assert all(again.token > claim.token for claim in first.claims), "a token was used again"


@law_of_overlap
async def one_of_two_takes_a_lost_claim_over(both: Overlap) -> None:
    """Of two that take over at once, one gets the job, and one abandoned line is written."""
    await both.added(both.job())
    await both.claim()
    await both.end_leases()
    first, second = await both.both(both.claimed, both.claimed)
    claims = [*first.claims, *second.claims, *await both.claimed(both.one)]
    assert len(claims) == 1, f"taken over {len(claims)} times"
    lost = claims[0].lost
    assert lost is not None and lost.count == 1, f"lost is {lost}"
    assert await both.statuses() == ["abandoned"]
    assert (await both.settle(both.bench.settlement(claims[0]))).outcome == "written"


@law_of_overlap
async def a_takeover_or_a_settlement_ends_a_claim(both: Overlap) -> None:
    """An expired claim that is settled beside a takeover is settled or taken over, never both."""
    await both.added(both.job())
    old = await both.claim()
    await both.end_leases()
    settlement = both.bench.settlement(old)
    first, second = await both.both(lambda one: settled(one, settlement), both.claimed)
    taken = second.claims or await both.claimed(both.one)
    outcome = first.outcome
    if outcome == "written":
        assert not taken, "a job was taken over though its run had settled"
        assert await both.statuses() == ["succeeded"]
        assert (await both.stored()).standing == settlement.standing
        return
    assert outcome == "claim_lost", f"the settlement is {outcome}"
    assert len(taken) == 1, "the claim was lost to nobody"
    assert await both.statuses() == ["abandoned"], "a lost claim wrote to the history"
    assert await both.stored() == taken[0].job, "a lost claim changed the job"
    assert (await both.settle(both.bench.settlement(taken[0]))).outcome == "written"


@law_of_overlap
async def a_takeover_or_a_renewal_keeps_a_claim(both: Overlap) -> None:
    """An expired claim that is renewed beside a takeover is renewed or taken over, never both."""
    await both.added(both.job())
    old = await both.claim()
    await both.end_leases()
    first, second = await both.both(lambda one: one.renew([old]), both.claimed)
    if first.claims:
        assert not second.claims, "a claim was renewed and taken over"
        assert not await both.claimed(both.one), "a renewed claim was taken over"
        assert (await both.settle(both.bench.settlement(old))).outcome == "written"
        assert await both.statuses() == ["succeeded"]
        return
    taken = second.claims or await both.claimed(both.one)
    assert len(taken) == 1, "a renewal was refused, and nobody took the claim"
    assert (await both.settle(both.bench.settlement(old))).outcome == "claim_lost"
    assert (await both.settle(both.bench.settlement(taken[0]))).outcome == "written"
    assert await both.statuses() == ["abandoned", "succeeded"]


@law_of_overlap
async def a_release_frees_no_other_claim(both: Overlap) -> None:
    """An expired claim that is released beside a takeover is one of both, and one worker has it."""
    await both.added(both.job())
    old = await both.claim()
    await both.end_leases()
    _, second = await both.both(lambda one: one.release([old]), both.claimed)
    taken = second.claims or await both.claimed(both.one)
    assert len(taken) == 1, "nobody got a job that was released or lost"
    assert not await both.claimed(both.one), "a late release freed the claim that took over"
    lost = 0 if taken[0].lost is None else taken[0].lost.count
    assert await both.statuses() == ["abandoned"] * lost, "told as lost and written do not agree"
    assert (await both.settle(both.bench.settlement(old))).outcome == "claim_lost"
    assert (await both.settle(both.bench.settlement(taken[0]))).outcome == "written"


@law_of_overlap
async def an_edit_or_a_settlement_of_a_revision_wins(both: Overlap) -> None:
    """Of an edit and a settlement decided on one revision, the later one is told of a conflict."""
    (job,) = await both.added(both.job())
    claim = await both.claim()
    edited = evolve(job, spec=evolve(job.spec, metadata={"edited": "yes"}))
    settlement = both.bench.settlement(claim)
    first, second = await both.both(
        lambda one: settled(one, settlement), lambda two: two.replace(edited)
    )
    outcome, stored = first.outcome, await both.stored()
    if second.error is None:
        assert outcome == "conflict", f"both happened: the settlement is {outcome}, too"
        assert first.value.job == stored == second.value, "the edit is not what is stored"
        assert not await both.lines(), "a conflict wrote to the history"
        again = evolve(settlement, expected=stored.revision)
        assert (await both.settle(again)).outcome == "written", "the edit cost the claim"
    else:
        assert outcome == "written", f"both were refused: {outcome} and {second}"
        assert stored.standing == settlement.standing
        assert stored.spec == job.spec, "a refused edit is stored"
    assert await both.statuses() == ["succeeded"]


@law_of_overlap
async def a_settlement_beside_a_removal_brings_nothing_back(both: Overlap) -> None:
    """A job that is removed while its run settles is gone, and its line is written or refused."""
    (job,) = await both.added(both.job())
    claim = await both.claim()
    settlement = both.bench.settlement(claim, due=both.bench.clock.now())
    first, second = await both.both(
        lambda one: settled(one, settlement), lambda two: two.remove(job.id)
    )
    assert second.value is True, f"the removal: {second}"
    assert await both.seen() is None, "a settlement brought a removed job back"
    if first.outcome == "conflict":
        assert not await both.lines(), "a conflict wrote to the history"
        ended = Settlement(claim, None, None, settlement.ledger)
        assert (await both.settle(ended)).outcome == "written", "the removal cost the claim"
    else:
        assert first.outcome == "written", f"the settlement is {first.outcome}"
    assert await both.statuses() == ["succeeded"]
    (new,) = await both.added(both.job())
    assert (await both.claim()).job == new, "the new job waits for a run that has ended"


@law_of_overlap
async def an_add_beside_the_end_of_a_removed_run_is_kept(both: Overlap) -> None:
    """A job added under a removed id while the old run settles is there, and handed out."""
    (old,) = await both.added(both.job())
    claim = await both.claim()
    await both.one.remove(old.id)
    new = both.job()
    ended = Settlement(claim, None, None, (both.bench.line(claim),))
    first, second = await both.both(lambda one: settled(one, ended), lambda two: two.add([new]))
    assert second.error is None, f"the id is free, yet: {second}"
    assert [await both.stored()] == list(second.value), "the end of the old run took the new job"
    assert first.outcome == "written", f"the old run's end is {first.outcome}"
    assert await both.statuses() == ["succeeded"]
    assert (await both.claim()).job.uid == new.uid


@law_of_overlap
async def two_settlements_of_a_claim_write_one_line(both: Overlap) -> None:
    """Two different settlements of one claim at once write one of them, whole; both say written."""
    await both.added(both.job())
    claim = await both.claim()
    later = both.bench.clock.now() + timedelta(days=1)
    mine = both.bench.settlement(claim)
    failed = both.bench.line(claim, Status.FAILED)
    theirs = both.bench.settlement(claim, due=later, lines=[failed], last_status=Status.FAILED)
    first, second = await both.both(
        lambda one: settled(one, mine), lambda two: settled(two, theirs)
    )
    outcomes = [first.outcome, second.outcome]
    assert outcomes == ["written", "written"], f"the claim's own settlements are {outcomes}"
    written = [settlement for settlement in (mine, theirs) if settlement.standing is not None]
    stored = (await both.stored()).standing
    whole = [one for one in written if one.standing == stored]
    assert whole, f"stored is neither's standing: {stored}"
    assert await both.lines() == list(whole[0].ledger), "standing and history are of two"


@law_of_overlap
async def a_renewal_brings_no_ended_claim_back(both: Overlap) -> None:
    """A claim that is renewed while it settles has ended: its job can be claimed at once."""
    await both.added(both.job())
    claim = await both.claim()
    settlement = both.bench.settlement(claim, due=both.bench.clock.now())
    first, _ = await both.both(lambda one: settled(one, settlement), lambda two: two.renew([claim]))
    assert first.outcome == "written", f"a renewal cost the claim: {first.outcome}"
    assert (await both.stored()).standing == settlement.standing, "a renewal took a run back"
    assert await both.statuses() == ["succeeded"]
    again = await both.claim()
    assert again.token > claim.token and again.lost is None


@law_of_overlap
async def a_renewal_beside_an_edit_keeps_both(both: Overlap) -> None:
    """An edit beside a renewal stands, and the claim is held for a whole lease from then on."""
    (job,) = await both.added(both.job())
    claim = await both.claim()
    await both.advance(both.one.capabilities.lease / 2)
    edited = evolve(job, spec=evolve(job.spec, metadata={"edited": "yes"}))
    first, second = await both.both(lambda one: one.renew([claim]), lambda two: two.replace(edited))
    assert second.error is None, f"a renewal is no edit, yet: {second}"
    assert await both.stored() == second.value, "a renewal took back an edit"
    assert len(first.claims) == 1, f"an edit cost the claim: {first}"
    await both.advance(both.one.capabilities.lease * 0.75)
    assert not await both.claimed(both.two), "an edit took back a renewal"
    ended = evolve(both.bench.settlement(claim), expected=second.value.revision)
    assert (await both.settle(ended)).outcome == "written"


@law_of_overlap
async def a_renewal_beside_a_removal_brings_nothing_back(both: Overlap) -> None:
    """A job removed while its claim is renewed is gone, and the claim is held to its end."""
    (job,) = await both.added(both.job())
    claim = await both.claim()
    first, second = await both.both(lambda one: one.renew([claim]), lambda two: two.remove(job.id))
    assert second.value is True, f"the removal: {second}"
    assert len(first.claims) == 1, f"a removal cost the claim: {first}"
    assert await both.seen() is None, "a renewal brought a removed job back"
    ended = Settlement(claim, None, None, (both.bench.line(claim),))
    assert (await both.settle(ended)).outcome == "written"
    assert await both.statuses() == ["succeeded"]


@law_of_overlap
async def a_release_beside_an_edit_keeps_both(both: Overlap) -> None:
    """An edit beside the release of a claim stands, and the job is free."""
    (job,) = await both.added(both.job())
    claim = await both.claim()
    edited = evolve(job, spec=evolve(job.spec, metadata={"edited": "yes"}))
    first, second = await both.both(
        lambda one: one.release([claim]), lambda two: two.replace(edited)
    )
    assert first.error is None and second.error is None, f"{first} and {second}"
    assert await both.stored() == second.value, "a release took back an edit"
    assert (await both.claim()).job == second.value, "an edit took back a release"
    assert not await both.lines()


@law_of_overlap
async def settlements_of_different_jobs_are_all_kept(both: Overlap) -> None:
    """Two settlements at once of different jobs are both written, and their lines both listed."""
    jobs = await both.added(both.job("a"), both.job("b"))
    claims = {claim.job.id: claim for claim in await both.claimed(both.one)}
    mine, theirs = (both.bench.settlement(claims[job.id]) for job in jobs)
    first, second = await both.both(
        lambda one: settled(one, mine), lambda two: settled(two, theirs)
    )
    outcomes = [first.outcome, second.outcome]
    assert outcomes == ["written", "written"], f"they are {outcomes}"
    for suffix, settlement in (("a", mine), ("b", theirs)):
        stored = await both.stored(suffix)
        assert stored.standing == settlement.standing, "a settlement was taken back"
        assert await both.lines(suffix) == list(settlement.ledger), "a line was lost"
    listed = {line.id for line in await both.newest(2)}
    assert listed == {mine.ledger[0].id, theirs.ledger[0].id}, f"listed are {listed}"


@law_of_overlap
async def pruning_keeps_what_is_claimed_beside_it(both: Overlap) -> None:
    """An expired job that is claimed beside prune is deleted or claimed, never both."""
    now = both.bench.clock.now()
    job = both.job()
    expired = evolve(job.standing, expires_at=now - timedelta(hours=1))
    (job,) = await both.added(evolve(job, standing=expired))
    first, second = await both.both(both.claimed, lambda two: two.prune(now - timedelta(days=1)))
    assert second.error is None, f"prune: {second}"
    if first.claims:
        assert await both.seen() == job, "prune deleted a job that was claimed"
        settlement = both.bench.settlement(first.claims[0])
        assert (await both.settle(settlement)).outcome == "written", "prune took a claim away"
        assert await both.statuses() == ["succeeded"]
    elif await both.seen() is None:
        assert second.value == 1, f"prune deleted a job and tells of {second}"
        assert not await both.claimed(both.one), "a deleted job was handed out"
