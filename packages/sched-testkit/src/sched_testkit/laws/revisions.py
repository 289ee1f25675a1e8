"""Edits that are refused, edits of what runs, and what happens to the lines that come with them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any

from attrs import evolve

from sched_core import Backend, Claim, Execution, Job, RevisionConflict, Settlement, State, Status
from sched_testkit.bench import Bench
from sched_testkit.laws.law import law

Edit = Callable[[Backend, Job, list[Execution]], Awaitable[object]]


async def _replaces(backend: Backend, job: Job, lines: list[Execution]) -> object:
    return await backend.replace(evolve(job, spec=evolve(job.spec, name="refused")), lines)


async def _removes(backend: Backend, job: Job, lines: list[Execution]) -> object:
    return await backend.remove(job.id, lines, expected=job.revision)


EDITS: dict[str, Edit] = {"replace": _replaces, "remove": _removes}


def fate(bench: Bench, job: Job, number: int | None = None, **changes: Any) -> Execution:
    """Build the final line of an occurrence that no claim is about."""
    number = job.standing.number if number is None else number
    nobody = Claim(job, 0, "", bench.clock.now(), bench.clock.now())
    line = bench.line(nobody, Status.SUPERSEDED, attempt=0, started_at=None)
    return evolve(line, id=f"{job.uid}:{number}:0", number=number, **changes)


async def _refused(backend: Backend, edit: Edit, job: Job, lines: list[Execution]) -> None:
    try:
        await edit(backend, job, lines)
    except RevisionConflict:
        return
    raise AssertionError(f"an edit on the revision {job.revision} was accepted")


@law
async def a_refused_edit_writes_nothing(bench: Bench) -> None:
    """Replace and remove on another revision write neither job nor lines, claimed or not."""
    backend = await bench.open()
    for name, edit in EDITS.items():
        ids = [f"{name}-{kind}" for kind in ("claimed", "idle", "paused")]
        dues = [bench.clock.now(), bench.clock.now() + timedelta(days=1), None]
        older = await bench.added(
            backend, *(bench.job(i, due=d) for i, d in zip(ids, dues, strict=True))
        )
        claim = await bench.claim(backend)
        stored = [await backend.replace(job) for job in older]
        for old, new in zip(older, stored, strict=True):
            missed = fate(bench, old, 7)
            for revision in (0, old.revision, new.revision + 1):
                for lines in ([], [missed]):
                    await _refused(backend, edit, evolve(old, revision=revision), lines)
            assert await bench.stored(backend, old.id) == new
        assert not await bench.lines(backend), f"a refused {name} wrote its lines"
        assert not list(await backend.claim_due(10)), f"a refused {name} freed a claim"
        ended = evolve(bench.settlement(claim), expected=stored[0].revision, ledger=())
        assert (await bench.settle(backend, ended)).outcome == "written"


@law
async def a_settlement_refuses_older_edits(bench: Bench) -> None:
    """What was decided before a settlement is refused after it, replace and remove alike."""
    backend = await bench.open()
    (old,) = await bench.added(backend, bench.job())
    await bench.settle(backend, bench.settlement(await bench.claim(backend)))
    for edit in EDITS.values():
        await _refused(backend, edit, old, [])
    assert (await bench.stored(backend)).standing.state is State.FINISHED


@law
async def removing_what_is_gone_writes_nothing(bench: Bench) -> None:
    """Remove returns False for what is not there, whatever is expected, and writes no lines."""
    backend = await bench.open()
    (gone, held) = await bench.added(backend, bench.job("gone", due=None), bench.job("held"))
    await bench.claim(backend)
    for job in (gone, held):
        assert await backend.remove(job.id) is True
        for expected in (None, job.revision):
            lines = [fate(bench, job, 5)]
            assert await backend.remove(job.id, lines, expected=expected) is False
    assert not await bench.lines(backend), "the removal of what is gone wrote its lines"


@law
async def an_edit_leaves_the_running_occurrence_to_its_claim(bench: Bench) -> None:
    """Replace and remove write their lines but those about the occurrence that is claimed."""
    backend = await bench.open()
    for name in EDITS:
        (job,) = await bench.added(backend, bench.job(name))
        claim = await bench.claim(backend)
        own = bench.line(claim, Status.SUPERSEDED, attempt=0)
        other = fate(bench, job, 9)
        moved = await backend.replace(evolve(job, standing=evolve(job.standing, number=2)))
        if name == "replace":
            moved = await backend.replace(moved, [own, other])
            assert not list(await backend.claim_due(10)), "an edit freed somebody's claim"
        else:
            assert await backend.remove(name, [own, other], expected=moved.revision) is True
        assert await bench.lines(backend, job_id=name) == [other]
        ended = Settlement(claim, None, None, (bench.line(claim),))
        assert (await bench.settle(backend, ended)).outcome == "written"
        await backend.remove(name)


@law
async def a_stored_line_is_passed_over(bench: Bench) -> None:
    """Edits and settlements pass over lines whose id is stored already: the first one stays."""
    backend = await bench.open()
    (job,) = await bench.added(backend, bench.job())
    ended = fate(bench, job, 7, reason="the first")
    lost = evolve(ended, id=f"{job.uid}:7:1", attempt=1, status=Status.ABANDONED, final=False)
    first = [ended, lost]
    twice = [ended, lost, lost, ended]  # what stands before it in one call is stored, too
    later = bench.clock.now() + timedelta(1)
    second = [evolve(line, reason="the second", finished_at=later) for line in first]
    job = await backend.replace(job, twice)
    job = await backend.replace(job, second)
    assert await bench.lines(backend) == first[::-1]
    claim = await bench.claim(backend)
    own = bench.line(claim)
    due = bench.clock.now()
    settlement = bench.settlement(claim, lines=[*second, own, own], due=due, number=8)
    assert (await bench.settle(backend, settlement)).outcome == "written"
    assert await backend.remove("job", [*second, evolve(own, reason="again")]) is True
    assert await bench.lines(backend) == [own, *first[::-1]]


@law
async def an_edit_ends_no_occurrence_twice(bench: Bench) -> None:
    """A second final line of an occurrence is passed over by edits, be the first a run's."""
    backend = await bench.open()
    (job,) = await bench.added(backend, bench.job(due=None))
    first = fate(bench, job)
    second = evolve(first, id=f"{job.uid}:1:3", attempt=3, status=Status.FAILED)
    other = fate(bench, job, 2)
    job = await backend.replace(job, [first, second])
    job = await backend.replace(job, [second, other])
    assert await backend.remove("job", [second]) is True
    assert await bench.lines(backend) == [other, first]
    await bench.added(backend, bench.job("ran"))
    for edit, held in ((_replaces, False), (_replaces, True), (_removes, False)):
        run = bench.settlement(await bench.claim(backend), due=bench.clock.now())
        assert (await bench.settle(backend, run)).outcome == "written"
        claims = [await bench.claim(backend)] if held else []
        (own,) = run.ledger  # the first line is one of a run, written by nothing but it
        again = evolve(own, id=f"{own.uid}:{own.number}:9", attempt=9, status=Status.FAILED)
        before = await bench.lines(backend)
        await edit(backend, await bench.stored(backend, "ran"), [evolve(own, reason="x"), again])
        assert await bench.lines(backend) == before, "what a run has ended was ended again"
        await backend.release(claims)


@law
async def what_an_edit_ended_is_not_ended_again(bench: Bench) -> None:
    """A settlement with a final line of an occurrence that an edit has ended is a conflict."""
    backend = await bench.open()
    (job,) = await bench.added(backend, bench.job())
    early = fate(bench, job, 2)
    await backend.replace(job, [early])
    claim = await bench.claim(backend)
    first = bench.settlement(claim, due=bench.clock.now())
    assert (await bench.settle(backend, first)).outcome == "written"
    claim = await bench.claim(backend)
    new = fate(bench, job, 7)  # it may be written, and comes first
    for lines in ([bench.line(claim)], [new, bench.line(claim)]):
        settled = await bench.settle(backend, bench.settlement(claim, lines=lines))
        assert (settled.outcome, settled.job) == ("conflict", claim.job)
    assert await bench.lines(backend) == [first.ledger[0], early]
    assert not list(await backend.claim_due(10)), "a refused settlement freed the claim"
