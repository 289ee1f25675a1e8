"""Claims: who gets a job, when, for how long, and what is told of it."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from datetime import timedelta
from typing import Any

from attrs import evolve

from sched_core import (
    BackendUnavailable,
    Claim,
    Cron,
    ExecutionQuery,
    Gap,
    Job,
    JobQuery,
    Pause,
    Pending,
    Policy,
    Renewal,
    Room,
    State,
    Status,
)
from sched_core.clock import LAST
from sched_testkit._suite.bench import Bench
from sched_testkit.laws.law import granular, law, lockable


@law
async def only_what_is_due_is_claimed(bench: Bench) -> None:
    """A job is handed out from the moment due_at on and not before; never without a due_at."""
    backend = await bench.open()
    now = bench.clock.now()
    tick = granular(backend)
    await bench.added(
        backend,
        bench.job("past", due=now - timedelta(days=1000)),
        bench.job("present", due=now),
        bench.job("soon", due=now + tick),
        bench.job("never", due=None),
    )
    assert {claim.job.id for claim in await bench.due(backend, 10)} == {"past", "present"}
    await bench.advance(tick)
    assert {claim.job.id for claim in await bench.due(backend, 10)} == {"soon"}
    await bench.advance(days=9000)
    assert "never" not in {claim.job.id for claim in await bench.due(backend, 10)}


@law
async def a_claim_carries_the_stored_job(bench: Bench) -> None:
    """A claim holds the whole job as it was stored, revision included, and does not change it."""
    backend = await bench.open()
    now = bench.clock.now()
    job = bench.job(
        "whole ✓",
        schedule=Cron("*/5 * * * *", tz="Asia/Kathmandu"),
        name="A náme",
        group="grüp",
        metadata={"a": "b", "": "ü"},
        policy=Policy(timeout=timedelta(seconds=7), max_lost=2, keep_executions=None),
    )
    one = Pending(7, now, now, attempts=2, failures=1, began_at=now - timedelta(minutes=1))
    standing = evolve(
        job.standing,
        last_number=9,
        scheduled=one,
        skip=now + timedelta(days=2),
        gaps=(Gap(now - timedelta(days=3), now - timedelta(days=2)),),
        failing=2,
        last_scheduled_at=now - timedelta(days=1),
        last_finished_at=now - timedelta(hours=1),
        expires_at=now + timedelta(days=9),
    )
    (job,) = await bench.added(backend, evolve(job, declared=True, standing=standing))
    claim = await bench.claim(backend)
    assert claim.job == job, "the claim has another job than what was stored"
    assert await bench.stored(backend, job.id) == bench.held(job, claim)
    assert claim.worker == "worker-1"
    assert claim.claimed_at == bench.clock.now()
    assert claim.expires_at == bench.clock.now() + bench.lease
    assert claim.cancel is False, "a claim is made, and its run is said to be cancelled"
    renamed = evolve(bench.held(job, claim), spec=evolve(job.spec, name=None, group="other"))
    edited = await backend.replace(renamed)
    settled = await bench.settle(backend, bench.settlement(claim))
    assert settled.job == edited, "a conflict carries another job than what is stored"
    taken = await bench.take_over(backend, job.id)
    assert taken.job == evolve(await bench.stored(backend, job.id), held=None, held_at=None)
    assert taken.job.spec == edited.spec
    assert claim.job == job, "a claim changed after it was made"


@law
async def the_holder_is_told_by_get_and_jobs(bench: Bench) -> None:
    """Get and jobs tell which occurrence a claim holds and since when, until the claim has ended.

    Renewed, edited or past its lease, it has not ended.
    """
    one, two = await bench.open(), await bench.open()
    (job,) = await bench.added(one, bench.job())
    await bench.advance(seconds=1)
    claim = await bench.claim(one)

    async def expect(job: Job, why: str) -> None:
        for backend in (one, two):
            stored = await bench.stored(backend)
            told = stored.held, stored.held_at
            assert stored == job, f"{why}: get tells {told}, not {(job.held, job.held_at)}"
            assert await bench.jobs(backend) == [job], f"{why}: jobs tells something else"

    await expect(bench.held(job, claim), "claimed")
    await bench.advance(bench.lease / 2)
    await bench.renew(one, [claim])
    await expect(bench.held(job, claim), "renewed")
    edited = await two.replace(evolve(bench.held(job, claim), declared=True))
    await expect(bench.held(edited, claim), "edited")
    moved = await two.replace(bench.moved(edited))
    await expect(bench.held(moved, claim), "held, and edited away")
    await bench.advance(3 * bench.lease)
    await expect(bench.held(moved, claim), "held by a lease that no worker has ended yet")
    await one.release([claim])
    await expect(evolve(moved, held=None, held_at=None), "released")


@law
async def what_is_held_is_told_by_every_answer(bench: Bench) -> None:
    """Add, replace and settle answer with a held job as get tells it: with what is held."""
    backend = await bench.open()
    job = bench.job()
    (stored,) = await bench.added(backend, job)
    claim = await bench.claim(backend)
    held = bench.held(stored, claim)
    assert list(await backend.add([job])) == [held], "a repeated add tells another job than get"
    edited = await backend.replace(evolve(held, declared=True))
    assert edited == evolve(held, declared=True, revision=edited.revision)
    settled = await bench.settle(backend, bench.settlement(claim))
    assert (settled.outcome, settled.job) == ("conflict", edited)


@law
async def what_is_settled_is_held_no_more(bench: Bench) -> None:
    """Once a claim was settled, released or ended by its lease, nothing is told to be held."""
    backend = await bench.open()
    await bench.added(backend, *(bench.job(name) for name in ("settled", "released", "lost")))
    claims = {claim.job.id: claim for claim in await bench.due(backend)}
    await bench.settle(backend, bench.settlement(claims["settled"]))
    await backend.release([claims["released"]])
    await bench.advance(bench.lease)
    await bench.remove(backend, "released")
    assert len(await bench.lapse(backend)) == 1
    await bench.added(backend, bench.job("released", due=None))
    for name in claims:
        stored = await bench.stored(backend, name)
        assert (stored.held, stored.held_at) == (None, None), f"{name!r} is told to be held"


@law
async def another_incarnations_hold_is_not_told(bench: Bench) -> None:
    """A job that waits for the run of its removed namesake is not told to be held itself."""
    backend = await bench.open()
    await bench.added(backend, bench.job())
    claim = await bench.claim(backend)
    await bench.remove(backend, "job")
    (new,) = await bench.added(backend, bench.job())
    assert (new.held, new.held_at) == (None, None), "the new job is told to be held"
    assert await bench.stored(backend) == new
    assert await bench.jobs(backend) == [new]
    edited = await backend.replace(evolve(new, declared=True))
    assert len(await bench.renew(backend, [claim])) == 1
    assert await bench.stored(backend) == edited


@law
async def the_oldest_due_come_first(bench: Bench) -> None:
    """Claims come in the order of due_at, whatever the order of adding, up to the limit."""
    backend = await bench.open()
    now = bench.clock.now()
    minutes = [5, 1, 9, 3, 7]
    await bench.added(
        backend, *(bench.job(f"{m}", due=now - timedelta(minutes=m)) for m in minutes)
    )
    first = [claim.job.id for claim in await bench.due(backend, 2)]
    rest = [claim.job.id for claim in await bench.due(backend, 10)]
    assert first == ["9", "7"], f"expected the two oldest, got {first}"
    assert rest == ["5", "3", "1"], f"expected the rest, oldest first, got {rest}"


@law
async def a_claim_is_exclusive(bench: Bench) -> None:
    """While a claim lives, no worker gets the job: neither another one nor the same."""
    one = await bench.open()
    two = await bench.open()
    await bench.added(one, *(bench.job(f"job-{n}") for n in range(6)))
    mine = [claim.job.id for claim in await bench.due(one, 3)]
    theirs = [claim.job.id for claim in await bench.due(two, 10)]
    assert sorted(mine + theirs) == [f"job-{n}" for n in range(6)]
    await bench.advance(bench.lease - granular(one))
    assert not await bench.due(one, 10)
    assert not await bench.due(two, 10)


@law
async def tokens_grow(bench: Bench) -> None:
    """Every claim of an id has a higher token, also after a lost one, a removal and a re-add."""
    backend = await bench.open()
    other = await bench.open()
    await bench.added(backend, bench.job())
    tokens = []
    claim = await bench.claim(backend)
    tokens.append(claim.token)
    await bench.settle(backend, bench.settlement(claim, due=bench.clock.now()))
    claim = await bench.claim(other)
    tokens.append(claim.token)
    await other.release([claim])
    claim = await bench.claim(backend)
    tokens.append(claim.token)
    claim = await bench.take_over(other)
    tokens.append(claim.token)
    await bench.settle(other, bench.settlement(claim, due=bench.clock.now()))
    await bench.remove(backend, "job")
    await bench.added(backend, bench.job())
    tokens.append((await bench.claim(backend)).token)
    assert tokens == sorted(set(tokens)), f"tokens did not grow: {tokens}"


@law
async def renewing_extends_the_lease(bench: Bench) -> None:
    """A renewed claim lives for a whole lease from the renewal on, and keeps its token."""
    one = await bench.open()
    two = await bench.open()
    await bench.added(one, bench.job())
    claim = await bench.claim(one)
    for passed in (bench.lease - granular(one), granular(one), bench.lease / 4):
        await bench.advance(passed)
        (renewed,) = await bench.renew(one, [claim])
        assert renewed.token == claim.token
        assert renewed.expires_at == bench.clock.now() + bench.lease
    await bench.advance(bench.lease - granular(one))
    assert not await bench.due(two, 10), "a renewed claim was taken over"
    await bench.advance(granular(one))
    (lost,) = await bench.lapse(two)
    assert (lost.token, lost.status) == (claim.token, Status.ABANDONED)


@law
async def an_expired_claim_that_is_not_taken_over_is_still_held(bench: Bench) -> None:
    """After its lease a claim can still be renewed or settled, until a worker has ended it."""
    backend = await bench.open()
    await bench.added(backend, bench.job("a"), bench.job("b"))
    claims = {claim.job.id: claim for claim in await bench.due(backend, 10)}
    await bench.advance(3 * bench.lease)
    assert len(await bench.renew(backend, [claims["a"]])) == 1
    settled = await bench.settle(backend, bench.settlement(claims["b"]))
    assert settled.outcome == "written"


@law(needs=lockable)
async def a_locked_record_can_be_renewed(bench: Bench) -> None:
    """A claim that is renewed is not ended because others locked its record past its lease."""
    one = await bench.open()
    two = await bench.open()
    await bench.added(one, bench.job())
    claim = await bench.claim(one)
    for _ in range(2):
        with bench.harness.lock(bench.place, "job"):
            for _ in range(3):
                await bench.advance(bench.lease / 2)
                renewed = await bench.renew(one, [claim])
                assert [each.token for each in renewed] == [claim.token], "the claim was given up"
                with suppress(BackendUnavailable):  # the lock may keep it from all records
                    assert not await bench.lapse(two), "a healthy owner's claim was ended"
        assert not await bench.lapse(two), "a healthy owner's claim was ended"
    assert (await bench.settle(one, bench.settlement(claim))).outcome == "written"
    assert bench.summary(await bench.history(two)) == [(1, 1, "succeeded")]


@law(needs=lockable)
async def a_locked_record_outlives_no_lease(bench: Bench) -> None:
    """A lost claim is ended a lease after its last renewal, also if others had it locked."""
    one = await bench.open()
    two = await bench.open()
    await bench.added(one, bench.job())
    claim = await bench.claim(one)
    with bench.harness.lock(bench.place, "job"):
        await bench.advance(bench.lease / 2)
        assert len(await bench.renew(one, [claim])) == 1
        await bench.advance(bench.lease - granular(one))
    assert not await bench.lapse(two), "a renewed claim was ended"
    await bench.advance(granular(one))
    assert len(await bench.lapse(two)) == 1
    assert not await bench.renew(one, [claim]), "a claim that was ended is said to be held"
    await bench.advance(seconds=1)
    await bench.claim(two)
    with bench.harness.lock(bench.place, "job"):
        await bench.advance(bench.lease)
    assert len(await bench.lapse(one)) == 1
    assert bench.summary(await bench.history(one)) == [(1, 1, "abandoned"), (1, 2, "abandoned")]


@law
async def a_lost_claim_is_not_renewed(bench: Bench) -> None:
    """Renew returns only what is still held: not what was lost, released or settled."""
    one = await bench.open()
    two = await bench.open()
    await bench.added(one, *(bench.job(name) for name in ("held", "lost", "freed", "settled")))
    claims = {claim.job.id: claim for claim in await bench.due(one, 10)}
    await one.release([claims["freed"]])
    await bench.settle(one, bench.settlement(claims["settled"]))
    await bench.advance(bench.lease)
    await bench.renew(one, [claims["held"]])
    await bench.due(two, 10)
    renewed = await bench.renew(one, list(claims.values()))
    assert [claim.job.id for claim in renewed] == ["held"]


@law
async def a_released_job_is_due_again_at_once(bench: Bench) -> None:
    """A released job can be claimed at once, by anybody, as the same attempt, with nothing lost."""
    one = await bench.open()
    two = await bench.open()
    (job,) = await bench.added(one, bench.job())
    claim = await bench.claim(one)
    await one.release([claim])
    again = await bench.claim(two)
    assert again.job == job
    assert not await bench.history(one)


@law
async def releasing_what_is_not_held_does_nothing(bench: Bench) -> None:
    """Releasing a claim that was lost leaves the new holder's claim alone."""
    one = await bench.open()
    two = await bench.open()
    await bench.added(one, bench.job())
    old = await bench.claim(one)
    new = await bench.take_over(two)
    await one.release([old])
    assert not await bench.due(one, 10), "a stale release freed another worker's claim"
    (other,) = await bench.added(one, bench.job("other"))
    held = await bench.claim(one)
    await one.release([old, held])
    assert (await bench.claim(one)).job == other, "what is not held kept the rest from being freed"
    assert (await bench.settle(two, bench.settlement(new))).outcome == "written"


@law
async def a_released_job_keeps_its_place(bench: Bench) -> None:
    """A released job is handed out in the order of due_at again, before what is due later."""
    backend = await bench.open()
    due = bench.clock.now() - timedelta(minutes=9)
    jobs = [bench.job(name, due=due + n * timedelta(minutes=1)) for n, name in enumerate("cab")]
    await bench.added(backend, *jobs)
    await backend.release(await bench.due(backend, 1))
    # All at once: a backend that fetches what is due in advance may know it only when it looks.
    again = [claim.job.id for claim in await bench.due(backend, 10)]
    assert again == ["c", "a", "b"], f"the released job is 'c', and they came as {again}"


@law
async def an_empty_claim_means_that_nothing_is_due(bench: Bench) -> None:
    """claim_due returns something as long as something is due, whatever it clears away first."""
    one = await bench.open()
    two = await bench.open()
    now = bench.clock.now()
    long_ago = now - timedelta(days=1)
    await bench.added(one, *(bench.job(f"gone-{n}", due=long_ago) for n in range(3)))
    assert len(await bench.due(one, 3)) == 3
    for n in range(3):
        await bench.remove(two, f"gone-{n}")
    await bench.advance(bench.lease + timedelta(minutes=1))
    await bench.added(one, *(bench.job(f"due-{n}") for n in range(3)))
    found: list[str] = []
    while len(found) < 9 and (claims := await bench.due(two, 1)):
        found += [claim.job.id for claim in claims]
    assert sorted(found) == ["due-0", "due-1", "due-2"]


@law
async def a_cancelled_claim_leaves_nothing_claimed(bench: Bench) -> None:
    """A claim_due that was cancelled while under way holds nothing afterwards."""
    backend = await bench.open()
    await bench.added(backend, *(bench.job(f"{n}") for n in range(5)))
    for steps in range(6):
        got: list[Claim] = []

        async def claim(got: list[Claim] = got) -> None:
            got.extend(await bench.due(backend))

        await bench.cancelled_after(steps, claim)
        await backend.release(got)
        again = await bench.due(backend, 10)
        assert len(again) == 5, "a cancelled claim_due kept what it had claimed"
        await backend.release(again)


@law
async def answers_stay_as_they_were(bench: Bench) -> None:
    """What a call has returned is the caller's: later calls change nothing in it."""
    backend = await bench.open()
    given: list[tuple[str, Sequence[Any], list[Any]]] = []

    def keep(name: str, answer: Sequence[Any]) -> list[Any]:
        given.append((name, answer, list(answer)))
        return list(answer)

    for number in range(2):
        await bench.added(backend, bench.job("lost"))
        await bench.claim(backend)
        await bench.advance(bench.lease)
        jobs = [bench.job(f"{number}-{n}") for n in range(number + 2)]
        keep("add", await backend.add(jobs))
        claimed = await backend.claim_due(Room(9))
        claims, lapsed = keep("claims", claimed.claims), keep("lapsed", claimed.lapsed)
        assert (len(claims), len(lapsed)) == (len(jobs), 1)
        claims = keep("renew", await backend.renew([Renewal(claim) for claim in claims]))
        assert len(claims) == len(jobs)
        keep("settle", await backend.settle([bench.settlement(claim) for claim in claims]))
        await bench.remove(backend, "lost")
        keep("jobs", (await backend.jobs(JobQuery(), after=None, limit=9)).items)
        keep("executions", (await backend.executions(ExecutionQuery(), after=None, limit=9)).items)
    for name, answer, before in given:
        assert list(answer) == before, f"an answer of {name} was changed by a later call"


@law
async def due_at_alone_decides_what_is_due(bench: Bench) -> None:
    """What is due is handed out whatever else its standing says: its state, a pause or an end."""
    backend = await bench.open()
    now = bench.clock.now()
    active, paused, finished = (bench.job(state.value) for state in State)
    paused = evolve(paused, standing=evolve(paused.standing, pause=Pause(now, 1, LAST)))
    finished = bench.finished(finished, due_at=now)
    jobs = [
        evolve(job, standing=evolve(job.standing, expires_at=now))
        for job in (active, paused, finished)
    ]
    assert [job.state for job in jobs] == list(State)
    stored = await bench.added(backend, *jobs)
    claims = await bench.due(backend)
    assert sorted(claim.job.id for claim in claims) == sorted(job.id for job in stored)
