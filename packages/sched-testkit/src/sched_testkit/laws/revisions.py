"""Edits that are refused, edits of what runs, and what becomes of the executions with them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any

from attrs import evolve

from sched_core import (
    Backend,
    Claim,
    Execution,
    Job,
    JobNotFound,
    RevisionConflict,
    Settlement,
    State,
    Status,
)
from sched_testkit._suite.bench import Bench
from sched_testkit.laws.law import law

Edit = Callable[[Backend, Job, list[Execution]], Awaitable[object]]


async def _replaces(backend: Backend, job: Job, executions: list[Execution]) -> object:
    return await backend.replace(evolve(job, spec=evolve(job.spec, name="refused")), executions)


async def _removes(backend: Backend, job: Job, executions: list[Execution]) -> object:
    await backend.remove(job, executions)
    return None


EDITS: dict[str, Edit] = {"replace": _replaces, "remove": _removes}


def unrun(bench: Bench, job: Job, number: int = 1, **changes: Any) -> Execution:
    """Build the final execution of an occurrence that no claim is about."""
    unclaimed = Claim(job, 0, "", bench.clock.now(), bench.clock.now())
    execution = bench.owed(unclaimed, Status.SUPERSEDED)
    return evolve(execution, id=f"{job.uid}:{number}:0", number=number, **changes)


async def _refused(backend: Backend, edit: Edit, job: Job, executions: list[Execution]) -> None:
    try:
        await edit(backend, job, executions)
    except RevisionConflict:
        return
    raise AssertionError(f"an edit on the revision {job.revision} was accepted")


@law
async def a_refused_edit_writes_nothing(bench: Bench) -> None:
    """Replace and remove on another revision write neither job nor executions, claimed or not."""
    backend = await bench.open()
    for name, edit in EDITS.items():
        ids = [f"{name}-{kind}" for kind in ("claimed", "idle", "paused")]
        dues = [bench.clock.now(), bench.clock.now() + timedelta(days=1), None]
        older = await bench.added(
            backend, *(bench.job(i, due=d) for i, d in zip(ids, dues, strict=True))
        )
        claim = await bench.claim(backend)
        older[0] = bench.held(older[0], claim)
        stored = [await backend.replace(job) for job in older]
        for old, new in zip(older, stored, strict=True):
            missed = unrun(bench, old, 7)
            for revision in (0, old.revision, new.revision + 1):
                for executions in ([], [missed]):
                    await _refused(backend, edit, evolve(old, revision=revision), executions)
            assert await bench.stored(backend, old.id) == new
        assert not await bench.history(backend), f"a refused {name} wrote its executions"
        assert not await bench.due(backend, 10), f"a refused {name} freed a claim"
        ended = evolve(bench.settlement(claim), expected=stored[0].revision, executions=())
        assert (await bench.settle(backend, ended)).outcome == "written"


@law
async def a_settlement_refuses_older_edits(bench: Bench) -> None:
    """What was decided before a settlement is refused after it, replace and remove alike."""
    backend = await bench.open()
    (old,) = await bench.added(backend, bench.job())
    await bench.settle(backend, bench.settlement(await bench.claim(backend)))
    for edit in EDITS.values():
        await _refused(backend, edit, old, [])
    assert (await bench.stored(backend)).state is State.FINISHED


@law
async def removing_what_is_gone_writes_nothing(bench: Bench) -> None:
    """Remove raises JobNotFound for what is not there, and writes no executions."""
    backend = await bench.open()
    (gone, held) = await bench.added(backend, bench.job("gone", due=None), bench.job("held"))
    await bench.claim(backend)
    for job in (gone, held):
        await bench.remove(backend, job.id)
        try:
            await backend.remove(job, [unrun(bench, job, 5)])
        except JobNotFound:
            continue
        raise AssertionError("what is gone was removed again")
    assert not await bench.history(backend), "the removal of what is gone wrote its executions"


@law
async def an_edit_leaves_the_running_occurrence_to_its_claim(bench: Bench) -> None:
    """Replace and remove write their executions but those about the occurrence that is claimed."""
    backend = await bench.open()
    for name in EDITS:
        (job,) = await bench.added(backend, bench.job(name))
        claim = await bench.claim(backend)
        own = [bench.owed(claim, Status.SUPERSEDED), bench.owed(claim, Status.ABANDONED)]
        other = unrun(bench, job, 9)
        moved = await backend.replace(bench.moved(bench.held(job, claim)))
        if name == "replace":
            await backend.replace(moved, [*own, other])
            assert not await bench.due(backend), "an edit freed a worker's claim"
        else:
            await backend.remove(moved, [*own, other])
        assert await bench.history(backend, job_id=name) == [other]
        ended = Settlement(claim, None, None, (bench.execution(claim),))
        assert (await bench.settle(backend, ended)).outcome == "written"
        if name == "replace":
            await bench.remove(backend, name)


@law
async def a_stored_execution_is_passed_over(bench: Bench) -> None:
    """Edits and settlements pass over executions whose id is stored already: the first stays."""
    backend = await bench.open()
    (job,) = await bench.added(backend, bench.job())
    ended = unrun(bench, job, 7, reason="the first")
    lost = evolve(ended, id=f"{job.uid}:7:1", attempt=1, status=Status.ABANDONED, final=False)
    first = [ended, lost]
    twice = [ended, lost, lost, ended]  # what comes before it in one call is stored, too
    later = bench.clock.now() + timedelta(1)
    second = [evolve(execution, reason="the second", finished_at=later) for execution in first]
    job = await backend.replace(job, twice)
    job = await backend.replace(job, second)
    assert await bench.history(backend) == first[::-1]
    claim = await bench.claim(backend)
    own = bench.execution(claim)
    due = bench.clock.now()
    settlement = bench.settlement(claim, executions=[*second, own, own], due=due)
    assert (await bench.settle(backend, settlement)).outcome == "written"
    again = [*second, evolve(own, reason="again")]  # one of them was written by a run
    await backend.replace(await bench.stored(backend), again)
    claim = await bench.claim(backend)
    await backend.replace(await bench.stored(backend), again)
    await backend.release([claim])
    await bench.remove(backend, "job", again)
    assert await bench.history(backend) == [own, *first[::-1]]


# -- what is claimed or freed meanwhile


@law
async def an_edit_conflicts_with_a_claim_made_since(bench: Bench) -> None:
    """Replace and remove are refused where the job was claimed since it was read."""
    one, two = await bench.open(), await bench.open()
    for name, edit in EDITS.items():
        (read,) = await bench.added(one, bench.job(name))
        claim = await bench.claim(one)
        for backend in (one, two):
            await _refused(backend, edit, read, [unrun(bench, read, 7)])
        stored = await bench.stored(two, name)
        assert stored == bench.held(read, claim), f"a refused {name} has changed the job"
        assert not await bench.history(two), f"a refused {name} wrote its executions"
        await edit(two, stored, [])
        assert len(await bench.renew(one, [claim])) == 1, f"a {name} took the claim away"
        await one.release([claim])
        if name == "replace":
            await bench.remove(two, name)
    assert await two.get("remove") is None


@law
async def an_edit_conflicts_with_a_claim_freed_since(bench: Bench) -> None:
    """Replace and remove are refused where the claim that was read has ended, also by a release."""
    one, two = await bench.open(), await bench.open()
    for name, edit in EDITS.items():
        (job,) = await bench.added(one, bench.job(name))
        claim = await bench.claim(one)
        read = await bench.stored(two, name)
        await one.release([claim])
        await _refused(two, edit, read, [unrun(bench, read, 7)])
        assert await bench.stored(two, name) == job, f"a refused {name} has changed the job"
        again = await bench.claim(two)
        await two.release([again])
        await bench.advance(bench.tick)
        newer = await bench.claim(two)
        await _refused(one, edit, bench.held(job, again), [])
        await edit(one, bench.held(job, newer), [])
        await two.release([newer])
        assert not await bench.history(two, statuses=frozenset({Status.MISSED}))
        if name == "replace":
            await bench.remove(one, name)


@law
async def an_edit_conflicts_with_a_lapse(bench: Bench) -> None:
    """Replace and remove of what was read are refused once its claim was ended by its lease."""
    one, two = await bench.open(), await bench.open()
    for name, edit in EDITS.items():
        await bench.added(one, bench.job(name))
        await bench.claim(one)
        read = await bench.stored(two, name)
        await bench.advance(bench.lease)
        assert await bench.stored(two, name) == read, "a lease ended, and none has taken note yet"
        assert len(await bench.lapse(two)) == 1
        await _refused(two, edit, read, [])
        await _refused(two, edit, evolve(read, held=None, held_at=None), [])
        await edit(two, await bench.stored(two, name), [])
        if name == "replace":
            await bench.remove(one, name)
