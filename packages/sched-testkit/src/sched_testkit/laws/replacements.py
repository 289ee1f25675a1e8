"""What a replacement or a settlement stores is all that is there afterwards."""

from __future__ import annotations

from datetime import timedelta

from attrs import evolve

from sched_core import CancelMark, Gap, Job, JobSpec, Kind, Pause, Pending, Standing, State, Status
from sched_testkit._suite.bench import SECOND, Bench
from sched_testkit.laws.law import law


def _full(bench: Bench, number: int) -> Standing:
    """Build a standing of which every field says something, all of it different.

    It is paused, and due by a request that was made during the pause.
    """
    now = bench.clock.now()
    scheduled = Pending(
        number,
        now - 8 * SECOND,
        now + 9 * SECOND,
        attempts=number + 1,
        failures=number + 2,
        lost=number + 3,
        snoozes=number + 4,
        began_at=now - 7 * SECOND,
        coalesced=number + 5,
        coalesced_until=now - 6 * SECOND,
        derived_from=f"2031a {number}",
        retry_at=now + 10 * SECOND,
    )
    asked = bench.request(number + 20, key=f"key {number}", args={"a": f"{number}"})
    range_ = bench.request(
        number + 30,
        now + SECOND,
        kind=Kind.BACKFILLED,
        origin=number + 29,
        until=now + 2 * SECOND,
    )
    return Standing(
        last_number=number + 40,
        scheduled=scheduled,
        due_at=now,
        requests=(asked, range_),
        pause=Pause(
            now - 4 * SECOND, number + 10, now + 6 * SECOND, f"why {number}", f"by {number}"
        ),
        gaps=(Gap(now - 11 * SECOND, now - 10 * SECOND), Gap(now - 9 * SECOND, now - 7 * SECOND)),
        spare=now + 5 * SECOND,
        skip=now + 7 * SECOND,
        cancels=(CancelMark(number + 30, f"why {number}", f"who {number}"),),
        failing=number + 6,
        last_scheduled_at=now - 13 * SECOND,
        last_finished_at=now - 5 * SECOND,
        last_status=Status.FAILED,
        expires_at=now + timedelta(days=number),
        skip_actor=f"skips {number}",
    )


def _bare(bench: Bench, number: int) -> Standing:
    """Build one that says as little as one that is due can."""
    now = bench.clock.now()
    return Standing(number, Pending(number, now, now), now)


def _finished(bench: Bench, number: int) -> Standing:
    """Build one that says nothing of what comes."""
    return Standing(number, None, None)


@law
async def a_replacement_keeps_nothing_of_what_was_before(bench: Bench) -> None:
    """A replacement stores every field as given, also an empty one that had a value before."""
    backend = await bench.open()
    full = bench.job(name="name", group="group", metadata={"k": "v", "": "", "x": "y"})
    full = evolve(full, declared=True, standing=_full(bench, 5))
    bare = evolve(full, spec=JobSpec(full.id, full.spec.schedule), standing=_bare(bench, 6))
    bare = evolve(bare, declared=False, anchor=full.anchor + SECOND)
    (stored,) = await bench.added(backend, full)
    for held in (False, True):
        if held:
            claim = await bench.claim(backend)
            assert claim.job == stored
            stored = bench.held(stored, claim)
        said = stored.held, stored.held_at
        for job in (bare, full, evolve(full, standing=_full(bench, 7)), bare, full):
            given = evolve(job, revision=stored.revision, held=said[0], held_at=said[1])
            stored = await backend.replace(given)
            assert evolve(stored, revision=given.revision) == given, "not all was stored as given"
            assert await bench.stored(backend) == stored
            for group in ("group", "reports"):
                found = await bench.jobs(backend, group=group)
                assert found == ([stored] if job.spec.group == group else [])
            found = await bench.jobs(backend, metadata={"k": "v"})
            assert found == ([stored] if job.spec.metadata else [])
            await _expect_listed(bench, stored)


@law
async def a_settlement_keeps_nothing_of_the_standing_before(bench: Bench) -> None:
    """A settlement stores every field of its standing, also where it says nothing, and no other."""
    backend = await bench.open()
    (job,) = await bench.added(backend, evolve(bench.job(), standing=_full(bench, 1)))
    after = (_bare, _full, _full, _bare, _full, _finished)
    for number, standing in enumerate((build(bench, n) for n, build in enumerate(after, 2)), 1):
        claim = await bench.claim(backend)
        assert claim.job == job, "the claim carries another job than the stored one"
        executions = [bench.execution(claim)]
        if number % 2:  # those of other occurrences take another way in many a store
            second = bench.execution(claim, Status.MISSED, attempt=0, number=number + 100)
            executions.append(evolve(second, id=f"{job.uid}:{number + 100}:0"))
        settlement = evolve(bench.settlement(claim, executions=executions), standing=standing)
        assert (await bench.settle(backend, settlement)).outcome == "written"
        settled = await bench.stored(backend)
        assert settled == evolve(job, standing=standing, revision=settled.revision)
        job = settled
        await _expect_listed(bench, job)


async def _expect_listed(bench: Bench, job: Job) -> None:
    """Expect that the job is found by its state, as it is stored, and by no other one."""
    for state in State:
        found = await bench.jobs(bench.backends[0], state=state)
        assert found == ([job] if job.state is state else []), f"by the state {state} got {found}"
