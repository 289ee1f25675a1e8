"""Overlap of what is told with what is written: claims, progress, queues and the history."""

from __future__ import annotations

from attrs import evolve

from sched_core import Execution, Progress, Renewal, Room
from sched_core.ports import ClaimQuery
from sched_testkit._suite.bench import SECOND
from sched_testkit._suite.overlap import Overlap
from sched_testkit.laws.law import law_of_overlap
from sched_testkit.laws.listed_claims import hold_of


@law_of_overlap
async def a_claim_and_its_listing_agree(both: Overlap) -> None:
    """A listing of claims while one is made or ends shows the whole claim, or none of it."""
    await both.added(both.job())
    query = ClaimQuery(job_id=f"{both.name}")
    first, second = await both.both(
        both.claimed, lambda two: two.claims(query, after=None, limit=9)
    )
    (claim,) = first.claims
    expected = [evolve(hold_of(both.bench, claim), keep=None)]
    found = [evolve(hold, keep=None) for hold in second.value.items]
    assert found in ([], expected), f"listed was {found}"
    page = await both.two.claims(query, after=None, limit=9)
    assert [evolve(hold, keep=None) for hold in page.items] == expected


@law_of_overlap
async def an_edit_takes_no_progress_with_it(both: Overlap) -> None:
    """A renewal during an edit of its job: the edit is stored, and the progress and lease, too."""
    read, claim = await both.held()
    progress = Progress(3, 7, "päge")
    await both.advance(SECOND)
    edited = evolve(read, spec=evolve(read.spec, name="another"))
    first, second = await both.both(
        lambda one: one.renew([Renewal(claim, progress=progress)]),
        lambda two: two.replace(edited),
    )
    (renewed,) = first.claims
    assert second.error is None, f"the edit raised {second}"
    page = await both.two.claims(ClaimQuery(job_id=claim.job.id), after=None, limit=9)
    (hold,) = page.items
    assert hold.progress == progress, f"the progress is {hold.progress}"
    assert hold.expires_at == renewed.expires_at, "an edit has taken back a renewal"
    assert (await both.stored()).spec.name == "another"


@law_of_overlap
async def two_claims_share_a_queue(both: Overlap) -> None:
    """Two claims at once of one queue: each takes up to its number, and no job is claimed twice."""
    jobs = [both.job(f"{n}", queue=queue) for n, queue in enumerate("aabba")]
    at_once = both.one.capabilities.bulk_limit or len(jobs)
    for start in range(0, len(jobs), at_once):
        await both.added(*jobs[start : start + at_once])
    room = Room(9, {"a": 2, "b": 1})
    first, second = await both.both(
        lambda one: one.claim_due(room), lambda two: two.claim_due(room)
    )
    for answer in (first, second):
        assert answer.error is None, f"claim_due raised {answer}"
        queues = sorted(claim.job.spec.queue for claim in answer.value.claims)
        assert queues.count("a") <= 2 and queues.count("b") <= 1, f"claimed of {queues}"
    claims = [*first.value.claims, *second.value.claims]
    mine = [claim.job.id for claim in claims if claim.job.id.startswith(both.name)]
    assert len(mine) == len(set(mine)), f"claimed were {mine}"
    rest = await both.claimed(both.one)
    left = [claim.job.id for claim in rest]
    assert sorted((*mine, *left)) == sorted(job.id for job in jobs), f"{mine}, and then {left}"


@law_of_overlap
async def follow_misses_nothing_that_is_written_meanwhile(both: Overlap) -> None:
    """Who follows the history while it is written gets every execution once, in the end."""
    names = [f"{n}" for n in range(3)]
    for name in names:
        await both.added(both.job(name))
    cursor = (await both.two.follow(None, limit=1)).cursor
    claims = await both.claimed(both.one)
    settlements = [both.bench.settlement(claim) for claim in claims]
    first, second = await both.both(
        lambda one: one.settle(settlements), lambda two: two.follow(cursor, limit=2)
    )
    assert [answer.outcome for answer in first.value] == ["written"] * 3
    assert second.error is None, f"follow raised {second}"
    rest, _ = await both.bench.followed(both.two, second.value.cursor)
    found = [one.id for one in (*second.value.executions, *rest)]
    written = [one.id for settlement in settlements for one in settlement.executions]
    assert sorted(found) == sorted(written), f"written were {written}, followed {found}"


@law_of_overlap
async def two_settlements_come_in_one_order(both: Overlap) -> None:
    """Two settlements at once: all that follow the history get both, in the same order."""
    await both.added(both.job("0"))
    await both.added(both.job("1"))
    cursors = [(await one.follow(None, limit=1)).cursor for one in (both.one, both.two)]
    mine, theirs = [both.bench.settlement(claim) for claim in await both.claimed(both.one)]
    first, second = await both.both(
        lambda one: one.settle([mine]), lambda two: two.settle([theirs])
    )
    assert [answer.value[0].outcome for answer in (first, second)] == ["written", "written"]
    written = sorted(one.id for each in (mine, theirs) for one in each.executions)
    orders = []
    for backend, cursor in zip((both.one, both.two), cursors, strict=True):
        found, _ = await both.bench.followed(backend, cursor, limit=1)
        orders.append([one.id for one in found if isinstance(one, Execution)])
    assert orders[0] == orders[1], f"they come in the orders {orders}"
    assert sorted(orders[0]) == written, f"written were {written}, followed {orders[0]}"
