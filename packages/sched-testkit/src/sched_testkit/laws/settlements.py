"""Settlements: what ends a claim, once, and what is refused."""

from __future__ import annotations

import functools
from datetime import timedelta

from attrs import evolve

from sched_core import Interval, Kind, Pending, Policy, Settlement, Status
from sched_testkit._stories.entry import due_of
from sched_testkit._suite.bench import KEEP, Bench
from sched_testkit.laws.law import TICK, law


@law
async def a_settlement_writes_the_standing_and_the_history(bench: Bench) -> None:
    """A settlement stores standing and executions as given, frees the claim, moves the revision."""
    backend = await bench.open()
    (job,) = await bench.added(backend, bench.job(schedule=Interval(hours=1)))
    claim = await bench.claim(backend)
    due = bench.clock.now() + timedelta(hours=1, microseconds=1)
    execution = bench.execution(
        claim,
        Status.FAILED,
        reason="ValueError: ✗",
        snoozes=2,
        coalesced=3,
        coalesced_until=bench.clock.now() + TICK,
    )
    settlement = bench.settlement(claim, due=due, executions=[execution])
    assert (await bench.settle(backend, settlement)).outcome == "written"
    stored = await bench.stored(backend)
    assert stored.standing == settlement.standing
    assert (stored.spec, stored.uid, stored.anchor) == (job.spec, job.uid, job.anchor)
    assert stored.revision != job.revision
    assert await bench.history(backend) == [execution]
    assert not await bench.due(backend, 10), "it is handed out before its new due moment"
    await bench.advance(due - bench.clock.now())
    assert bench.pending(await bench.claim(backend)).number == 2


@law
async def a_settled_job_can_be_due_at_once(bench: Bench) -> None:
    """A settlement whose standing is due already makes the job claimable at once."""
    backend = await bench.open()
    await bench.added(backend, bench.job())
    claim = await bench.claim(backend)
    await bench.settle(backend, bench.settlement(claim, due=bench.clock.now()))
    again = await bench.claim(backend)
    assert bench.pending(again).number == 2
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
    await bench.remove(two, "job")
    assert (await bench.settle(one, settlement)).outcome == "written"
    assert len(await bench.history(one)) == 2


@law
async def a_stale_settlement_changes_nothing(bench: Bench) -> None:
    """Settling a claim that was lost answers claim_lost and writes nothing."""
    one = await bench.open()
    two = await bench.open()
    await bench.added(one, bench.job())
    old = await bench.claim(one)
    new = await bench.take_over(two)
    before = await bench.history(one)
    assert (await bench.settle(one, bench.settlement(old))).outcome == "claim_lost"
    assert await bench.history(one) == before
    assert await bench.stored(one) == bench.held(new.job, new)
    assert (await bench.settle(two, bench.settlement(new))).outcome == "written"
    assert (await bench.settle(one, bench.settlement(old))).outcome == "claim_lost"


@law
async def the_fence_is_token_and_worker(bench: Bench) -> None:
    """A claim is held by token and worker together: with either of them alone it is lost."""
    backend = await bench.open()
    await bench.added(backend, bench.job())
    claim = await bench.claim(backend)
    for forged in (evolve(claim, worker="stranger"), evolve(claim, token=claim.token + 1)):
        outcome = (await bench.settle(backend, bench.settlement(forged))).outcome
        assert outcome == "claim_lost", f"a forged claim was {outcome}"
        assert not await bench.renew(backend, [forged]), "a forged claim was renewed"
        await backend.release([forged])
    assert not await bench.due(backend, 10), "a forged release freed the claim"
    assert (await bench.settle(backend, bench.settlement(claim))).outcome == "written"


@law
async def an_edit_wins_over_a_settlement(bench: Bench) -> None:
    """A settlement decided before an edit is a conflict, writes nothing and returns the job."""
    backend = await bench.open()
    (job,) = await bench.added(backend, bench.job(metadata={"v": "1"}))
    claim = await bench.claim(backend)
    changed = evolve(job, spec=evolve(job.spec, metadata={"v": "2"}))
    edited = await backend.replace(bench.held(changed, claim))
    settled = await bench.settle(backend, bench.settlement(claim))
    assert (settled.outcome, settled.job) == ("conflict", edited)
    assert await bench.stored(backend) == edited
    assert not await bench.history(backend), "a conflict wrote to the history"
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
    await two.replace(bench.moved(bench.held(job, claim)))
    assert not await bench.due(two), "an edit freed a worker's claim"
    ended = Settlement(claim, None, None, (bench.execution(claim),))
    assert (await bench.settle(one, ended)).outcome == "written"
    assert bench.pending(await bench.claim(two)).number == 2
    assert bench.summary(await bench.history(one)) == [(1, 1, "succeeded")]


@law
async def what_is_still_pending_does_not_end_without_a_standing(bench: Bench) -> None:
    """A settlement that leaves the job alone and ends what is still pending there is a conflict.

    As one is that was decided on a removed job, and the same one has been added again since.
    """
    backend = await bench.open()
    (job,) = await bench.added(backend, bench.job())
    claim = await bench.claim(backend)
    alone = Settlement(claim, None, None, (bench.execution(claim),))
    settled = await bench.settle(backend, alone)
    assert (settled.outcome, settled.job) == ("conflict", bench.held(job, claim))
    assert not await bench.history(backend)
    assert not await bench.due(backend), "a refused settlement freed the claim"
    await bench.remove(backend, "job")
    (again,) = await bench.added(backend, job)
    assert again.held == 1, "the same incarnation was added again, and its run is not held"
    settled = await bench.settle(backend, alone)
    assert (settled.outcome, settled.job) == ("conflict", again)
    assert not await bench.history(backend)
    ended = evolve(bench.settlement(claim), expected=again.revision)
    assert (await bench.settle(backend, ended)).outcome == "written"


@law
async def an_attempt_that_is_not_final_can_be_written_alone(bench: Bench) -> None:
    """A settlement without standing writes executions that end nothing, and frees the claim."""
    backend = await bench.open()
    (job,) = await bench.added(backend, bench.job())
    claim = await bench.claim(backend)
    failed = bench.execution(claim, Status.INTERRUPTED)
    assert (
        await bench.settle(backend, Settlement(claim, None, None, (failed,)))
    ).outcome == "written"
    assert await bench.history(backend) == [failed], "what is pending was ended"
    assert await bench.stored(backend) == job
    assert (await bench.claim(backend)).job == job


@law
async def a_claim_can_be_freed_without_a_word(bench: Bench) -> None:
    """A settlement without standing and executions only frees the claim."""
    backend = await bench.open()
    (job,) = await bench.added(backend, bench.job())
    claim = await bench.claim(backend)
    assert (await bench.settle(backend, Settlement(claim, None, None, ()))).outcome == "written"
    assert await bench.stored(backend) == job
    assert (await bench.claim(backend)).job == job


@law
async def a_batch_reports_each_settlement(bench: Bench) -> None:
    """One bad settlement never fails its batch: each gets its own answer, in order."""
    one = await bench.open()
    two = await bench.open()
    names = ["good", "lost", "edited", "repeated", "gone", "fine"]
    await bench.added(one, *(bench.job(name) for name in names))
    claims = {claim.job.id: claim for claim in await bench.due(one, 10)}
    repeated = bench.settlement(claims["repeated"])
    await bench.settle(one, repeated)
    edited = await two.replace(await bench.stored(two, "edited"))
    await bench.remove(two, "gone")
    kept = [claims[name] for name in names if name not in {"lost", "repeated"}]
    await bench.advance(bench.lease)
    await bench.renew(one, kept)
    lost = [each.job_id for each in await bench.lapse(two)]
    assert lost == ["lost"], f"expected only the expired claim to end, got {lost}"
    batch = [repeated if name == "repeated" else bench.settlement(claims[name]) for name in names]
    answers = await one.settle(batch)
    outcomes = [answer.outcome for answer in answers]
    assert outcomes == ["written", "claim_lost", "conflict", "written", "conflict", "written"]
    assert (answers[2].job, answers[4].job) == (edited, None)
    written = {
        execution.job_id
        for execution in await bench.history(one)
        if execution.status is Status.SUCCEEDED
    }
    assert written == {"good", "repeated", "fine"}


@law
async def each_attempt_has_an_execution_of_its_own(bench: Bench) -> None:
    """Attempts at one occurrence settle one after the other, and only the last is final."""
    backend = await bench.open()
    await bench.added(backend, bench.job())
    for attempt, status in enumerate((Status.INTERRUPTED, Status.FAILED, Status.SUCCEEDED), 1):
        claim = await bench.claim(backend)
        one = bench.pending(claim)
        assert (one.attempts, one.number) == (attempt - 1, 1)
        final = status is Status.SUCCEEDED
        ended = bench.settlement(claim) if final else bench.retry(claim, status)
        assert (await bench.settle(backend, ended)).outcome == "written"
        assert (await bench.stored(backend)).standing == ended.standing
    assert bench.summary(await bench.history(backend)) == [
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
        executions = await bench.history(backend, job_id=name)
        is_stored = (await bench.stored(backend, name)).standing == settlement.standing
        assert bool(executions) is is_stored, "one of standing and history was written alone"
        assert (await bench.settle(backend, settlement)).outcome == "written"
        assert await bench.history(backend, job_id=name) == list(settlement.executions)
        assert (await bench.stored(backend, name)).standing == settlement.standing


@law
async def a_settlement_writes_what_ended_during_its_run(bench: Bench) -> None:
    """A settlement writes all its executions: of other occurrences, missed or skipped, too."""
    backend = await bench.open()
    await bench.added(backend, bench.job())
    claim = await bench.claim(backend)
    own = bench.execution(claim)
    missed = bench.execution(claim, Status.MISSED, attempt=0, number=2, id=f"{own.uid}:2:0")
    settlement = bench.settlement(claim, executions=[own, missed], last_number=2)
    assert (await bench.settle(backend, settlement)).outcome == "written"
    assert await bench.history(backend) == [missed, own]


# -- what was edited or removed away during the run


@law
async def what_was_edited_away_ends_with_its_claim(bench: Bench) -> None:
    """A claim whose occurrence was edited away writes its `superseded` end when it is freed, once.

    So does one that was removed; and none does whose settlement has the end.
    """
    one, two = await bench.open(), await bench.open()
    for edit in ("edit", "removal"):
        for how in ("freed", "released", "interrupted", "run", "with a standing"):
            name = f"{edit} {how}"
            (job,) = await bench.added(one, bench.job(name))
            claim = await bench.claim(one)
            held, superseded = bench.held(job, claim), bench.owed(claim, Status.SUPERSEDED)
            expected = job.revision
            if edit == "edit":
                moved = await two.replace(bench.put_off(bench.moved(held), None), [superseded])
                expected = moved.revision
            else:
                await two.remove(held, [superseded])
            assert not await bench.history(one, job_id=name), "the claim has not ended yet"
            own = bench.execution(
                claim, Status.INTERRUPTED if how == "interrupted" else Status.FAILED
            )
            written = () if how in {"freed", "released", "with a standing"} else (own,)
            await bench.advance(seconds=1)
            if how == "released":
                await one.release([claim])
                await one.release([claim])
            else:
                ended = Settlement(claim, None, None, written)
                if how == "with a standing" and edit == "edit":
                    ended = Settlement(claim, expected, moved.standing, ())
                again = edit == "edit" or written != ()  # else nothing is left to know it by
                for _ in range(1 + again):
                    assert (await bench.settle(one, ended)).outcome == "written"
            end = evolve(superseded, finished_at=bench.clock.now())
            end = evolve(end, expires_at=end.finished_at + KEEP)
            left = [*written] if how == "run" else [*written, end]
            assert await bench.history(two, job_id=name) == left[::-1], f"{name}: the history"
            if edit == "edit":
                await bench.remove(two, name)
                assert len(await bench.history(two, job_id=name)) == len(left)


@law
async def a_last_execution_says_what_the_occurrence_covered(bench: Bench) -> None:
    """The end of what was edited away says its kind, moment, snoozes and what it covered."""
    backend = await bench.open()
    now = bench.clock.now()
    job = bench.job(policy=Policy(keep_executions=None))
    moment, until = now - timedelta(hours=3), now - timedelta(hours=1)
    one = Pending(1, moment, now, snoozes=4, attempts=2, coalesced=2, coalesced_until=until)
    asked = Pending(2, moment, now, Kind.RERUN, key="k", origin=2, snoozes=1)
    standing = evolve(job.standing, last_number=2, scheduled=one, requests=(asked,))
    (job,) = await bench.added(backend, evolve(job, standing=standing))
    for number, expected in ((1, one), (2, asked)):
        claim = await bench.claim(backend)
        assert bench.pending(claim).number == number
        stored = await bench.stored(backend)
        rest = evolve(stored.standing, scheduled=None, requests=(asked,) if number == 1 else ())
        await backend.replace(evolve(stored, standing=evolve(rest, due_at=due_of(rest))))
        await backend.release([claim])
        (end,) = await bench.history(backend, since=bench.clock.now())
        assert (end.number, end.attempt, end.status) == (number, 0, Status.SUPERSEDED)
        assert (end.kind, end.scheduled_at) == (expected.kind, moment)
        assert end.snoozes == expected.snoozes
        assert (end.coalesced, end.coalesced_until) == (
            expected.coalesced,
            expected.coalesced_until,
        )
        assert (end.token, end.worker) == (claim.token, claim.worker)
        assert (end.final, end.started_at, end.expires_at) == (True, None, None)
        await bench.advance(seconds=1)
