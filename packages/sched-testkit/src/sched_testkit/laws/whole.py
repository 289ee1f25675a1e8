"""What a replacement or a settlement stores is all that is there afterwards."""

from __future__ import annotations

from datetime import timedelta

from attrs import evolve

from sched_core import Backlog, Job, JobSpec, Standing, State, Status
from sched_testkit.bench import SECOND, Bench
from sched_testkit.laws.law import law


def _full(bench: Bench, number: int) -> Standing:
    """Build a standing of which every field says something, all of it different."""
    now = bench.clock.now()
    return Standing(
        State.ACTIVE,
        number,
        next_run=now - 8 * SECOND,
        due_at=now,
        triggered_at=now - 7 * SECOND,
        attempts=number + 1,
        failures=number + 2,
        skipped_run=now + 7 * SECOND,
        paused_until=now + 6 * SECOND,
        pause_reason=f"why {number}",
        last_scheduled_at=now - 6 * SECOND,
        last_finished_at=now - 5 * SECOND,
        last_status=Status.FAILED,
        expires_at=now + timedelta(days=number),
        manual=True,
        paused_at=now - 4 * SECOND,
        backlog=Backlog(now - 3 * SECOND, number + 3, now - 10 * SECOND, now - 9 * SECOND),
    )


def _bare(bench: Bench, number: int) -> Standing:
    """Build one that says as little as one that is due can."""
    return Standing(State.ACTIVE, number, next_run=None, due_at=bench.clock.now())


@law
async def a_replacement_keeps_nothing_of_what_was_before(bench: Bench) -> None:
    """A replacement stores every field as given, also where it says nothing and something stood."""
    backend = await bench.open()
    full = bench.job(name="name", group="group", metadata={"k": "v", "": "", "x": "y"})
    full = evolve(full, declared=True, standing=_full(bench, 5))
    bare = evolve(full, spec=JobSpec(full.id, full.spec.schedule), standing=_bare(bench, 6))
    bare = evolve(bare, declared=False, anchor=full.anchor + SECOND)
    (stored,) = await bench.added(backend, full)
    for held in (False, True):
        if held:
            assert (await bench.claim(backend)).job == stored
        for job in (bare, full, evolve(full, standing=_full(bench, 7)), bare, full):
            stored = await backend.replace(evolve(job, revision=stored.revision))
            assert evolve(stored, revision=0) == job, "not all was stored as it was given"
            assert await bench.stored(backend) == stored
            for group in ("group", "reports"):
                found = await bench.jobs(backend, group=group)
                assert found == ([stored] if job.spec.group == group else [])
            found = await bench.jobs(backend, metadata={"k": "v"})
            assert found == ([stored] if job.spec.metadata else [])


@law
async def a_settlement_keeps_nothing_of_the_standing_before(bench: Bench) -> None:
    """A settlement stores every field of its standing, also where it says nothing, and no other."""
    backend = await bench.open()
    (job,) = await bench.added(backend, evolve(bench.job(), standing=_full(bench, 1)))
    after = (_bare, _full, _full, _bare, _full)
    for number, standing in enumerate((build(bench, n) for n, build in enumerate(after, 2)), 1):
        claim = await bench.claim(backend)
        assert claim.job == job, "the claim carries another job than the stored one"
        lines = [bench.line(claim)]
        if number % 2:  # lines of other occurrences take another way in many a store
            beside = bench.line(claim, Status.MISSED, attempt=0, number=number + 100)
            lines.append(evolve(beside, id=f"{job.uid}:{number + 100}:0"))
        settlement = evolve(bench.settlement(claim, lines=lines), standing=standing)
        assert (await bench.settle(backend, settlement)).outcome == "written"
        settled = await bench.stored(backend)
        assert settled == evolve(job, standing=standing, revision=settled.revision)
        job = settled
        assert await _listed(bench, job, State.ACTIVE)
    claim = await bench.claim(backend)
    standing = evolve(_full(bench, 9), state=State.PAUSED, due_at=None)
    assert (
        await bench.settle(backend, evolve(bench.settlement(claim), standing=standing))
    ).outcome == "written"
    job = evolve(job, standing=standing, revision=(await bench.stored(backend)).revision)
    assert await _listed(bench, job, State.PAUSED)
    assert not await _listed(bench, job, State.ACTIVE)


async def _listed(bench: Bench, job: Job, state: State) -> bool:
    """Whether the job is found by a state, as it is stored."""
    found = await bench.jobs(bench.backends[0], state=state)
    assert found in ([], [job]), f"by the state {state} got {found}"
    return bool(found)
