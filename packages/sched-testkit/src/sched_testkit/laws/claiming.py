"""Claims: who gets a job, when, for how long, and what a lost one leaves."""

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
    JobQuery,
    Policy,
    State,
    Status,
)
from sched_core.clock import LAST
from sched_testkit.bench import Bench
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
    assert {claim.job.id for claim in await backend.claim_due(10)} == {"past", "present"}
    await bench.advance(tick)
    assert {claim.job.id for claim in await backend.claim_due(10)} == {"soon"}
    await bench.advance(days=9000)
    assert "never" not in {claim.job.id for claim in await backend.claim_due(10)}


@law
async def a_claim_carries_the_stored_job(bench: Bench) -> None:
    """A claim holds the whole job as it is stored, revision included, and does not change it."""
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
    standing = evolve(
        job.standing,
        number=7,
        attempts=2,
        failures=1,
        last_scheduled_at=now - timedelta(days=1),
        last_finished_at=now - timedelta(hours=1),
        last_status=Status.FAILED,
        expires_at=now + timedelta(days=9),
    )
    (job,) = await bench.added(backend, evolve(job, declared=True, standing=standing))
    claim = await bench.claim(backend)
    assert claim.job == job == await bench.stored(backend, job.id)
    assert claim.worker == "worker-1"
    assert claim.claimed_at == bench.clock.now()
    assert claim.expires_at == bench.clock.now() + bench.lease
    assert (claim.attempt, claim.lost) == (3, None)
    await bench.advance(bench.lease)
    taken = await bench.claim(backend)
    assert taken.job == job, "a takeover carries another job than what is stored"
    edited = await backend.replace(evolve(job, spec=evolve(job.spec, name=None, group="other")))
    settled = await bench.settle(backend, bench.settlement(taken))
    assert settled.job == edited, "a conflict carries another job than what is stored"
    await bench.advance(bench.lease)
    assert (await bench.claim(backend)).job == edited
    assert taken.job == job == evolve(edited, spec=job.spec, revision=job.revision)


@law
async def the_oldest_due_come_first(bench: Bench) -> None:
    """Claims come in the order of due_at, whatever the order of adding, up to the limit."""
    backend = await bench.open()
    now = bench.clock.now()
    minutes = [5, 1, 9, 3, 7]
    await bench.added(
        backend, *(bench.job(f"{m}", due=now - timedelta(minutes=m)) for m in minutes)
    )
    first = [claim.job.id for claim in await backend.claim_due(2)]
    rest = [claim.job.id for claim in await backend.claim_due(10)]
    assert first == ["9", "7"], f"expected the two oldest, got {first}"
    assert rest == ["5", "3", "1"], f"expected the rest, oldest first, got {rest}"


@law
async def a_claim_is_exclusive(bench: Bench) -> None:
    """While a claim lives, nobody else gets the job: neither another worker nor the same."""
    one = await bench.open()
    two = await bench.open()
    await bench.added(one, *(bench.job(f"job-{n}") for n in range(6)))
    mine = [claim.job.id for claim in await one.claim_due(3)]
    theirs = [claim.job.id for claim in await two.claim_due(10)]
    assert sorted(mine + theirs) == [f"job-{n}" for n in range(6)]
    await bench.advance(bench.lease - granular(one))
    assert not list(await one.claim_due(10))
    assert not list(await two.claim_due(10))


@law
async def tokens_grow(bench: Bench) -> None:
    """Every claim of an id has a higher token, over settle, takeover, removal and re-add, too."""
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
    await bench.advance(bench.lease)
    claim = await bench.claim(other)
    tokens.append(claim.token)
    await bench.settle(other, bench.settlement(claim, due=bench.clock.now()))
    await backend.remove("job")
    await bench.added(backend, bench.job())
    tokens.append((await bench.claim(backend)).token)
    assert tokens == sorted(set(tokens)), f"tokens did not grow: {tokens}"


@law
async def an_expired_claim_is_taken_over(bench: Bench) -> None:
    """From the end of its lease on a claimed job is handed out again, and what was lost is told."""
    one = await bench.open()
    two = await bench.open()
    await bench.added(one, bench.job())
    first = await bench.claim(one)
    await bench.advance(bench.lease)
    second = await bench.claim(two)
    assert second.lost is not None, "the takeover does not report what was lost"
    assert (second.lost.count, second.lost.worker) == (1, first.worker)
    assert second.lost.claimed_at == first.claimed_at
    assert second.job == first.job
    await bench.advance(bench.lease)
    third = await bench.claim(one)
    assert third.lost is not None
    assert (third.lost.count, third.lost.worker) == (2, second.worker)


@law
async def a_takeover_writes_the_abandoned_line(bench: Bench) -> None:
    """The claim that takes over writes the lost attempt's abandoned line, never final, at once."""
    one = await bench.open()
    two = await bench.open()
    await bench.added(one, bench.job())
    first = await bench.claim(one)
    assert not await bench.lines(two)
    await bench.advance(bench.lease)
    second = await bench.claim(two)
    (line,) = await bench.lines(two)
    assert (line.id, line.attempt, line.status) == (f"{first.job.uid}:1:1", 1, Status.ABANDONED)
    assert not line.final
    assert (line.token, line.worker) == (first.token, first.worker)
    await bench.advance(bench.lease)
    await bench.claim(one)
    assert bench.fates(await bench.lines(two)) == [(1, 1, "abandoned"), (1, 2, "abandoned")]
    assert (await bench.lines(two))[0].token == second.token


@law
async def renewing_extends_the_lease(bench: Bench) -> None:
    """A renewed claim lives for a whole lease from the renewal on, and keeps its token."""
    one = await bench.open()
    two = await bench.open()
    await bench.added(one, bench.job())
    claim = await bench.claim(one)
    for passed in (bench.lease - granular(one), granular(one), bench.lease / 4):
        await bench.advance(passed)
        (renewed,) = await one.renew([claim])
        assert renewed.token == claim.token
        assert renewed.expires_at == bench.clock.now() + bench.lease
    await bench.advance(bench.lease - granular(one))
    assert not list(await two.claim_due(10)), "a renewed claim was taken over"
    await bench.advance(granular(one))
    assert len(await two.claim_due(10)) == 1


@law
async def an_expired_claim_nobody_took_is_still_held(bench: Bench) -> None:
    """After its lease a claim can still be renewed or settled, as long as nobody took it over."""
    backend = await bench.open()
    await bench.added(backend, bench.job("a"), bench.job("b"))
    claims = {claim.job.id: claim for claim in await backend.claim_due(10)}
    await bench.advance(3 * bench.lease)
    assert len(await backend.renew([claims["a"]])) == 1
    settled = await bench.settle(backend, bench.settlement(claims["b"]))
    assert settled.outcome == "written"


@law(needs=lockable)
async def a_locked_record_can_be_renewed(bench: Bench) -> None:
    """A claim that is renewed is not taken over because others locked its record past its lease."""
    one = await bench.open()
    two = await bench.open()
    await bench.added(one, bench.job())
    claim = await bench.claim(one)
    for _ in range(2):
        with bench.harness.lock(bench.place, "job"):
            for _ in range(3):
                await bench.advance(bench.lease / 2)
                renewed = await one.renew([claim])
                assert [each.token for each in renewed] == [claim.token], "the claim was given up"
                with suppress(BackendUnavailable):  # the lock may keep it from all records
                    assert not list(await two.claim_due(10))
        assert not list(await two.claim_due(10)), "a healthy owner's claim was taken over"
    assert (await bench.settle(one, bench.settlement(claim))).outcome == "written"
    assert bench.fates(await bench.lines(two)) == [(1, 1, "succeeded")]


@law(needs=lockable)
async def a_locked_record_outlives_no_lease(bench: Bench) -> None:
    """A lost claim is taken over a lease after its last renewal, also if others had it locked."""
    one = await bench.open()
    two = await bench.open()
    await bench.added(one, bench.job())
    claim = await bench.claim(one)
    with bench.harness.lock(bench.place, "job"):
        await bench.advance(bench.lease / 2)
        assert len(await one.renew([claim])) == 1
        await bench.advance(bench.lease - granular(one))
    assert not list(await two.claim_due(10)), "a renewed claim was taken over"
    await bench.advance(granular(one))
    taken = await bench.claim(two)
    assert taken.lost is not None
    assert not list(await one.renew([claim])), "a claim that was taken over is said to be held"
    with bench.harness.lock(bench.place, "job"):
        await bench.advance(bench.lease)
    again = await bench.claim(one)
    assert again.lost is not None
    assert again.lost.count == 2


@law
async def a_lost_claim_is_not_renewed(bench: Bench) -> None:
    """Renew returns only what is still held: not what was taken over, released or settled."""
    one = await bench.open()
    two = await bench.open()
    await bench.added(one, *(bench.job(name) for name in ("held", "lost", "freed", "settled")))
    claims = {claim.job.id: claim for claim in await one.claim_due(10)}
    await one.release([claims["freed"]])
    await bench.settle(one, bench.settlement(claims["settled"]))
    await bench.advance(bench.lease)
    await one.renew([claims["held"]])
    await two.claim_due(10)
    renewed = await one.renew(list(claims.values()))
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
    assert again.lost is None
    assert again.job == job
    assert not await bench.lines(one)


@law
async def releasing_what_is_not_held_does_nothing(bench: Bench) -> None:
    """Releasing a claim that was taken over leaves the new holder's claim alone."""
    one = await bench.open()
    two = await bench.open()
    await bench.added(one, bench.job())
    old = await bench.claim(one)
    await bench.advance(bench.lease)
    new = await bench.claim(two)
    await one.release([old])
    assert not list(await one.claim_due(10)), "a stale release freed somebody else's claim"
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
    await backend.release(await backend.claim_due(1))
    # All at once: a backend that fetches what is due in advance may know it only when it looks.
    again = [claim.job.id for claim in await backend.claim_due(10)]
    assert again == ["c", "a", "b"], f"the released job is 'c', and they came as {again}"


@law
async def lost_attempts_keep_counting_after_a_release(bench: Bench) -> None:
    """A takeover that is released still hands on how many claims were lost before it."""
    one = await bench.open()
    two = await bench.open()
    await bench.added(one, bench.job())
    await bench.claim(one)
    await bench.advance(bench.lease)
    taken = await bench.claim(two)
    await two.release([taken])
    again = await bench.claim(one)
    assert again.lost == taken.lost
    assert again.attempt == 2, "an attempt was counted twice, or forgotten"
    await one.release([again])
    await bench.settle(two, bench.settlement(await bench.claim(two), due=bench.clock.now()))
    assert (await bench.claim(one)).lost is None, "lost claims of a settled occurrence still count"


@law
async def what_was_lost_ends_with_its_occurrence(bench: Bench) -> None:
    """What was lost of an occurrence that is edited away after a release counts no further."""
    one = await bench.open()
    two = await bench.open()
    await bench.added(one, bench.job())
    await bench.claim(one)
    await bench.advance(bench.lease)
    await two.release([await bench.claim(two)])
    job = await bench.stored(one)
    await one.replace(evolve(job, standing=evolve(job.standing, number=2)))
    claim = await bench.claim(two)
    assert claim.lost is None, "the lost claims of another occurrence are reported"
    assert claim.attempt == 1


@law
async def renewing_keeps_what_was_lost(bench: Bench) -> None:
    """A renewed takeover still reports what it took over, and its own loss counts on from there."""
    one = await bench.open()
    two = await bench.open()
    await bench.added(one, bench.job())
    await bench.claim(one)
    await bench.advance(bench.lease)
    taken = await bench.claim(two)
    (renewed,) = await two.renew([taken])
    assert renewed == evolve(taken, expires_at=renewed.expires_at)
    await bench.advance(bench.lease)
    third = await bench.claim(one)
    assert third.lost is not None
    assert third.lost.count == 2


@law
async def an_empty_claim_means_that_nothing_is_due(bench: Bench) -> None:
    """As long as something is due claim_due returns something, whatever it clears away first."""
    one = await bench.open()
    two = await bench.open()
    now = bench.clock.now()
    long_ago = now - timedelta(days=1)
    await bench.added(one, *(bench.job(f"gone-{n}", due=long_ago) for n in range(3)))
    assert len(await one.claim_due(3)) == 3
    for n in range(3):
        await two.remove(f"gone-{n}")
    await bench.advance(bench.lease + timedelta(minutes=1))
    await bench.added(one, *(bench.job(f"due-{n}") for n in range(3)))
    found: list[str] = []
    while len(found) < 9 and (claims := await two.claim_due(1)):
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
            got.extend(await backend.claim_due(10))

        await bench.cancelled_after(steps, claim)
        await backend.release(got)
        again = await backend.claim_due(10)
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
        jobs = [bench.job(f"{number}-{n}") for n in range(number + 2)]
        await bench.settle_in(backend)
        keep("add", await backend.add(jobs))
        claims = keep("renew", await backend.renew(keep("claim_due", await backend.claim_due(9))))
        assert len(claims) == len(jobs)
        keep("settle", await backend.settle([bench.settlement(claim) for claim in claims]))
        keep("jobs", (await backend.jobs(JobQuery(), after=None, limit=9)).items)
        keep("executions", (await backend.executions(ExecutionQuery(), after=None, limit=9)).items)
    for name, answer, before in given:
        assert list(answer) == before, f"an answer of {name} was changed by a later call"


@law
async def due_at_alone_decides_what_is_due(bench: Bench) -> None:
    """What is due is handed out whatever else its standing says: its state, a pause or an end."""
    backend = await bench.open()
    now = bench.clock.now()
    jobs = []
    for state in State:
        job = bench.job(state.value)
        ends = evolve(job.standing, state=state, expires_at=now, paused_at=now, paused_until=LAST)
        jobs.append(evolve(job, standing=ends))
    stored = await bench.added(backend, *jobs)
    claims = await backend.claim_due(10)
    assert sorted(claim.job.id for claim in claims) == sorted(job.id for job in stored)
