"""Overlap around runs: claims, renewals, settlements, edits and takeovers at once.

Each law is one round; :mod:`sched_testkit._suite.overlap` says in which constellations it is
played.
"""

from __future__ import annotations

from collections import Counter
from datetime import timedelta

import anyio
from attrs import evolve

from sched_core import Backend, Claim, RevisionConflict, Settlement, Status
from sched_testkit._suite.bench import Bench
from sched_testkit._suite.overlap import Overlap, settled
from sched_testkit.laws.law import law, law_of_overlap

MANY = 24


@law_of_overlap
async def a_job_is_claimed_once(both: Overlap) -> None:
    """Two workers claim at once: one gets a job and the other does not."""
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
        while found := await bench.due(backend, limit):
            claims.extend(found)
            assert len(claims) <= MANY, "a job that is claimed is handed out again and again"

    async with anyio.create_task_group() as tasks:
        for backend, limit in ((one, 1), (two, 2), (one, 3), (two, 5)):
            tasks.start_soon(claimer, backend, limit)
    claims += await bench.due(one, MANY)
    counted = Counter(claim.job.id for claim in claims)
    assert sorted(counted.elements()) == names, f"handed out: {counted}"
    answers = await one.settle([bench.settlement(claim) for claim in claims])
    outcomes = {answer.outcome for answer in answers}
    assert outcomes == {"written"}, f"settlements of what was claimed are {outcomes}"
    assert len({execution.id for execution in await bench.history(two)}) == MANY


@law_of_overlap
async def an_edit_during_a_claim_knows_of_it(both: Overlap) -> None:
    """An edit and a claim at once: the edit is refused, or what it puts off is not claimed."""
    (job,) = await both.added(both.job())
    edited = both.bench.put_off(job, both.bench.clock.now() + timedelta(days=1))
    first, second = await both.both(both.claimed, lambda two: two.replace(edited))
    if second.error is None:
        assert not first.claims, "an edit passed over a claim that was made, or was claimed"
        assert await both.stored() == second.value, "a claim took back an edit"
        assert not await both.claimed(both.two), "it was put off, and is handed out"
        return
    assert second.raised(RevisionConflict), f"the edit: {second}"
    assert len(first.claims) == 1, "an edit was refused, and no worker has claimed the job"
    (claim,) = first.claims
    assert claim.job == job, f"claimed was {claim.job}, and a refused edit has changed it"
    assert await both.stored() == both.bench.held(job, claim)
    assert (await both.settle(both.bench.settlement(claim))).outcome == "written"


@law_of_overlap
async def a_removal_during_a_claim_knows_of_it(both: Overlap) -> None:
    """A removal and a claim at once: the removal is refused, or nothing was claimed."""
    (job,) = await both.added(both.job())
    first, second = await both.both(both.claimed, lambda two: two.remove(job))
    if second.error is None:
        assert not first.claims, "a removal passed over a claim that was made"
        assert await both.seen() is None, "a claim brought a removed job back"
        return
    assert second.raised(RevisionConflict), f"the removal: {second}"
    (claim,) = first.claims
    await both.two.remove(both.bench.held(job, claim))
    (new,) = await both.added(both.job())
    assert not await both.claimed(both.two), "two runs of one id at once"
    ended = Settlement(claim, None, None, (both.bench.execution(claim),))
    assert (await both.settle(ended)).outcome == "written", "the removal cost the claim"
    again = await both.claim()
    assert again.job == new
    assert again.token > claim.token, "a token was used again"


@law_of_overlap
async def one_of_two_ends_a_lost_claim(both: Overlap) -> None:
    """Two workers find a lease ended at once: one ends it, it counts once, and is told once."""
    _, claim = await both.held()
    await both.end_leases()
    first, second = await both.both(both.claimed, both.claimed)
    assert not first.claims and not second.claims, "it was handed out without a wait"
    await both.claimed(both.one)
    assert await both.history() == both.lapsed, "told and written do not agree"
    (lost,) = both.lapsed
    assert (lost.token, lost.attempt, lost.status) == (claim.token, 1, Status.ABANDONED)
    await both.wait()
    first, second = await both.both(both.claimed, both.claimed)
    claims = [*first.claims, *second.claims, *await both.claimed(both.one)]
    assert len(claims) == 1, f"taken over {len(claims)} times"
    one = both.bench.pending(claims[0])
    assert (one.attempts, one.lost) == (1, 1), f"counted as {one}"
    assert await both.statuses() == ["abandoned"]
    assert (await both.settle(both.bench.settlement(claims[0]))).outcome == "written"


@law_of_overlap
async def the_end_of_a_lease_or_a_settlement_ends_a_claim(both: Overlap) -> None:
    """An expired claim that is settled during a claim_due is settled or lost, never both."""
    _, old = await both.held()
    await both.end_leases()
    settlement = both.bench.settlement(old)
    first, second = await both.both(lambda one: settled(one, settlement), both.claimed)
    assert not second.claims, "it was handed out without a wait"
    await both.claimed(both.one)
    outcome = first.outcome
    if outcome == "written":
        assert not both.lapsed, "a claim was lost though its run had settled"
        assert await both.statuses() == ["succeeded"]
        assert (await both.stored()).standing == settlement.standing
        return
    assert outcome == "claim_lost", f"the settlement is {outcome}"
    assert len(both.lapsed) == 1, "the claim was lost, and no call told of it"
    assert await both.statuses() == ["abandoned"], "a lost claim wrote to the history"
    await both.wait()
    taken = await both.claim()
    assert both.bench.pending(taken).lost == 1, "a lost claim changed the job"
    assert (await both.settle(both.bench.settlement(taken))).outcome == "written"


@law_of_overlap
async def the_end_of_a_lease_or_a_renewal_comes_first(both: Overlap) -> None:
    """An expired claim that is renewed during a claim_due is renewed or lost, never both."""
    _, old = await both.held()
    await both.end_leases()
    first, second = await both.both(lambda one: both.renewed(one, old), both.claimed)
    assert not second.claims, "it was handed out without a wait"
    await both.claimed(both.one)
    if first.claims:
        assert not both.lapsed, "a claim was renewed and lost"
        assert (await both.settle(both.bench.settlement(old))).outcome == "written"
        assert await both.statuses() == ["succeeded"]
        return
    assert len(both.lapsed) == 1, "a renewal was refused, and no worker ended the claim"
    assert (await both.settle(both.bench.settlement(old))).outcome == "claim_lost"
    await both.wait()
    assert (await both.settle(both.bench.settlement(await both.claim()))).outcome == "written"
    assert await both.statuses() == ["abandoned", "succeeded"]


@law_of_overlap
async def a_release_frees_no_other_claim(both: Overlap) -> None:
    """An expired claim that is released during a claim_due is one of both: released or lost."""
    _, old = await both.held()
    await both.end_leases()
    _, second = await both.both(lambda one: one.release([old]), both.claimed)
    taken = [*second.claims, *await both.claimed(both.one)]
    if both.lapsed:
        assert not taken, "it was handed out without a wait after it was lost"
        await both.wait()
        taken = await both.claimed(both.one)
    assert len(taken) == 1, "no worker got a job that was released or lost"
    lost = both.bench.pending(taken[0]).lost
    assert lost == len(both.lapsed), "a release is counted as lost, or a loss is not"
    assert await both.statuses() == ["abandoned"] * lost, "counted as lost and written differ"
    await both.one.release([old])
    assert not await both.claimed(both.one), "a late release freed the claim that took over"
    assert (await both.settle(both.bench.settlement(old))).outcome == "claim_lost"
    assert (await both.settle(both.bench.settlement(taken[0]))).outcome == "written"


@law_of_overlap
async def a_release_frees_no_claim_of_what_came_after(both: Overlap) -> None:
    """An expired claim of what was edited away is released or lost, and the next one is kept."""
    held, old = await both.held()
    await both.one.replace(both.bench.moved(held), [both.bench.owed(old, Status.SUPERSEDED)])
    await both.end_leases()
    _, second = await both.both(lambda one: one.release([old]), both.claimed)
    taken = [*second.claims, *await both.claimed(both.one)]
    assert len(taken) == 1, "no worker got what came after, or two did"
    assert not await both.claimed(both.two), "a late release freed the claim that came after"
    expected = ["abandoned", "superseded"] if both.lapsed else ["superseded"]
    assert await both.statuses() == expected
    assert (await both.settle(both.bench.settlement(taken[0]))).outcome == "written"


@law_of_overlap
async def an_edit_or_a_settlement_of_a_revision_wins(both: Overlap) -> None:
    """An edit and a settlement decided on one revision: the later one is told of a conflict."""
    job, claim = await both.held()
    edited = evolve(job, spec=evolve(job.spec, metadata={"edited": "yes"}))
    settlement = both.bench.settlement(claim)
    first, second = await both.both(
        lambda one: settled(one, settlement), lambda two: two.replace(edited)
    )
    outcome, stored = first.outcome, await both.stored()
    if second.error is None:
        assert outcome == "conflict", f"both happened: the settlement is {outcome}, too"
        assert first.value.job == stored == second.value, "the edit is not what is stored"
        assert not await both.history(), "a conflict wrote to the history"
        again = evolve(settlement, expected=stored.revision)
        assert (await both.settle(again)).outcome == "written", "the edit cost the claim"
    else:
        assert second.raised(RevisionConflict), f"the edit: {second}"
        assert outcome == "written", f"both were refused: {outcome} and {second}"
        assert stored.standing == settlement.standing
        assert stored.spec == job.spec, "a refused edit is stored"
    assert await both.statuses() == ["succeeded"]


@law_of_overlap
async def a_settlement_during_a_removal_brings_nothing_back(both: Overlap) -> None:
    """A settlement and a removal of one revision at once: one happens first and is kept."""
    held, claim = await both.held()
    settlement = both.bench.settlement(claim, due=both.bench.clock.now())
    first, second = await both.both(
        lambda one: settled(one, settlement), lambda two: two.remove(held)
    )
    if second.error is not None:
        assert second.raised(RevisionConflict), f"the removal: {second}"
        assert first.outcome == "written", f"both were refused: {first}"
        assert (await both.stored()).standing == settlement.standing
    else:
        assert await both.seen() is None, "a settlement brought a removed job back"
        assert (first.outcome, first.value.job) == ("conflict", None)
        assert not await both.history(), "a conflict wrote to the history"
        ended = Settlement(claim, None, None, settlement.executions)
        assert (await both.settle(ended)).outcome == "written", "the removal cost the claim"
        (new,) = await both.added(both.job())
        assert (await both.claim()).job == new, "the new job waits for a run that has ended"
    assert await both.statuses() == ["succeeded"]


@law_of_overlap
async def an_add_at_the_end_of_a_removed_run_is_kept(both: Overlap) -> None:
    """A job added under a removed id while the old run settles is there, and handed out."""
    (old,) = await both.added(both.job())
    claim = await both.claim()
    await both.one.remove(both.bench.held(old, claim))
    new = both.job()
    ended = Settlement(claim, None, None, (both.bench.execution(claim),))
    first, second = await both.both(lambda one: settled(one, ended), lambda two: two.add([new]))
    assert second.error is None, f"the id is free, yet: {second}"
    assert [await both.stored()] == list(second.value), "the end of the old run took the new job"
    assert first.outcome == "written", f"the old run's end is {first.outcome}"
    assert await both.statuses() == ["succeeded"]
    assert (await both.claim()).job.uid == new.uid


@law_of_overlap
async def two_settlements_of_a_claim_write_one_execution(both: Overlap) -> None:
    """Two different settlements of one claim at once write one of them, whole; both say written."""
    await both.added(both.job())
    claim = await both.claim()
    later = both.bench.clock.now() + timedelta(days=1)
    mine = both.bench.settlement(claim)
    failed = both.bench.execution(claim, Status.FAILED)
    theirs = both.bench.settlement(claim, due=later, executions=[failed], last_status=Status.FAILED)
    first, second = await both.both(
        lambda one: settled(one, mine), lambda two: settled(two, theirs)
    )
    outcomes = [first.outcome, second.outcome]
    assert outcomes == ["written", "written"], f"the claim's own settlements are {outcomes}"
    written = [settlement for settlement in (mine, theirs) if settlement.standing is not None]
    stored = (await both.stored()).standing
    whole = [one for one in written if one.standing == stored]
    assert whole, f"stored is neither's standing: {stored}"
    assert await both.history() == list(whole[0].executions), "standing and history are of two"


@law_of_overlap
async def a_renewal_brings_no_ended_claim_back(both: Overlap) -> None:
    """A claim that is renewed while it settles has ended: its job can be claimed at once."""
    await both.added(both.job())
    claim = await both.claim()
    settlement = both.bench.settlement(claim, due=both.bench.clock.now())
    first, _ = await both.both(
        lambda one: settled(one, settlement), lambda two: both.renewed(two, claim)
    )
    assert first.outcome == "written", f"a renewal cost the claim: {first.outcome}"
    assert (await both.stored()).standing == settlement.standing, "a renewal took a run back"
    assert await both.statuses() == ["succeeded"]
    again = await both.claim()
    assert again.token > claim.token


@law_of_overlap
async def a_renewal_during_an_edit_keeps_both(both: Overlap) -> None:
    """An edit during a renewal is kept, and the claim is held for a whole lease from then on."""
    job, claim = await both.held()
    await both.advance(both.one.capabilities.lease / 2)
    edited = evolve(job, spec=evolve(job.spec, metadata={"edited": "yes"}))
    first, second = await both.both(
        lambda one: both.renewed(one, claim), lambda two: two.replace(edited)
    )
    assert second.error is None, f"a renewal is no edit, yet: {second}"
    assert await both.stored() == second.value, "a renewal took back an edit"
    assert len(first.claims) == 1, f"an edit cost the claim: {first}"
    await both.advance(both.one.capabilities.lease * 0.75)
    assert not await both.claimed(both.two), "an edit took back a renewal"
    ended = evolve(both.bench.settlement(claim), expected=second.value.revision)
    assert (await both.settle(ended)).outcome == "written"


@law_of_overlap
async def a_renewal_during_a_removal_brings_nothing_back(both: Overlap) -> None:
    """A job removed while its claim is renewed is gone, and the claim is held to its end."""
    job, claim = await both.held()
    first, second = await both.both(
        lambda one: both.renewed(one, claim), lambda two: two.remove(job)
    )
    assert second.error is None, f"a renewal is no edit, yet: {second}"
    assert len(first.claims) == 1, f"a removal cost the claim: {first}"
    assert await both.seen() is None, "a renewal brought a removed job back"
    ended = Settlement(claim, None, None, (both.bench.execution(claim),))
    assert (await both.settle(ended)).outcome == "written"
    assert await both.statuses() == ["succeeded"]


@law_of_overlap
async def a_release_during_an_edit_frees_the_job(both: Overlap) -> None:
    """An edit during the release of a claim is stored or refused, and the job is free."""
    held, claim = await both.held()
    edited = evolve(held, spec=evolve(held.spec, metadata={"edited": "yes"}))
    first, second = await both.both(
        lambda one: one.release([claim]), lambda two: two.replace(edited)
    )
    assert first.error is None, f"the release: {first}"
    stored = await both.stored()
    if second.error is None:
        assert stored == evolve(second.value, held=None, held_at=None), "an edit was taken back"
    else:
        assert second.raised(RevisionConflict), f"the edit: {second}"
        assert stored == claim.job, "a refused edit has changed the job"
    assert (await both.claim()).job == stored, "an edit took back a release"
    assert not await both.history()


@law_of_overlap
async def a_release_ends_what_is_edited_away_meanwhile_once(both: Overlap) -> None:
    """What an edit takes away during the release of its claim has one end, or is still there."""
    held, claim = await both.held()
    edited = both.bench.put_off(both.bench.moved(held), None)
    superseded = both.bench.owed(claim, Status.SUPERSEDED)
    first, second = await both.both(
        lambda one: one.release([claim]), lambda two: two.replace(edited, [superseded])
    )
    assert first.error is None, f"the release: {first}"
    if second.error is None:
        assert await both.statuses() == ["superseded"], "what was edited away has not one end"
        return
    assert second.raised(RevisionConflict), f"the edit: {second}"
    assert not await both.history(), "a refused edit has written the end"
    assert (await both.claim()).job == claim.job


@law_of_overlap
async def a_lost_claim_ends_what_is_edited_away_meanwhile_once(both: Overlap) -> None:
    """What an edit takes away as its lease ends has one end, or is still there."""
    held, claim = await both.held()
    await both.end_leases()
    edited = both.bench.put_off(both.bench.moved(held), None)
    superseded = both.bench.owed(claim, Status.SUPERSEDED)
    first, second = await both.both(both.claimed, lambda two: two.replace(edited, [superseded]))
    assert not first.claims
    await both.claimed(both.one)
    if second.error is None:
        assert await both.statuses() == ["abandoned", "superseded"]
        assert (await both.stored()).standing == edited.standing
        return
    assert second.raised(RevisionConflict), f"the edit: {second}"
    assert await both.statuses() == ["abandoned"], "a refused edit has written the end"
    assert (await both.stored()).standing.scheduled is not None


@law_of_overlap
async def settlements_of_different_jobs_are_all_kept(both: Overlap) -> None:
    """Two settlements at once of different jobs are both written, and both listed."""
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
        assert await both.history(suffix) == list(settlement.executions), "an execution was lost"
    listed = {execution.id for execution in await both.newest(2)}
    assert listed == {mine.executions[0].id, theirs.executions[0].id}, f"listed are {listed}"


@law_of_overlap
async def pruning_keeps_what_is_claimed_meanwhile(both: Overlap) -> None:
    """An expired job that is claimed during a prune is deleted or claimed, never both."""
    now = both.bench.clock.now()
    job = both.job()
    expired = evolve(job.standing, expires_at=now - timedelta(hours=1))
    (job,) = await both.added(evolve(job, standing=expired))
    first, second = await both.both(both.claimed, lambda two: two.prune(now - timedelta(days=1)))
    assert second.error is None, f"prune: {second}"
    if first.claims:
        held = both.bench.held(job, first.claims[0])
        assert await both.seen() == held, "prune deleted a job that was claimed"
        settlement = both.bench.settlement(first.claims[0])
        assert (await both.settle(settlement)).outcome == "written", "prune took a claim away"
        assert await both.statuses() == ["succeeded"]
    elif await both.seen() is None:
        assert second.value == 1, f"prune deleted a job and tells of {second}"
        assert not await both.claimed(both.one), "a deleted job was handed out"
