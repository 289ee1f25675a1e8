"""Takeovers: what the end of a lease leaves, when the job comes again, and with which worker."""

from __future__ import annotations

from datetime import timedelta

from attrs import evolve

from sched_core import (
    Backend,
    CancelMark,
    Claim,
    Execution,
    Job,
    Kind,
    Pending,
    Policy,
    Room,
    Settlement,
    Status,
)
from sched_testkit._stories.entry import QUARANTINE, due_of, wait_after
from sched_testkit._suite.bench import SECOND, Bench
from sched_testkit.laws.law import granular, law

KEPT = timedelta(days=3)
"""How long the history of the jobs here is kept."""
POLICY = Policy(keep_executions=KEPT, max_lost=4)


def _owed(bench: Bench, lost: Claim, status: Status) -> Execution:
    return evolve(bench.owed(lost, status), expires_at=bench.clock.now() + KEPT)


def _end_of_three(bench: Bench, lost: Claim) -> Execution:
    """Return the end of what is held, which covers two more, as an edit knows."""
    end = _owed(bench, lost, Status.SUPERSEDED)
    return evolve(end, coalesced=2, coalesced_until=lost.claimed_at)


async def _lost(bench: Bench, one: Pending, claim: Claim, count: int, stored: Pending) -> None:
    """Expect that what is stored is an occurrence after a claim of it was lost."""
    least, most = wait_after(count)
    waits = stored.due_at - bench.clock.now()
    expected = evolve(
        one,
        attempts=one.attempts + 1,
        lost=count,
        began_at=one.began_at or claim.claimed_at,
        due_at=stored.due_at,
    )
    assert stored == expected, f"after a lost claim the occurrence is {stored}, not {expected}"
    assert least <= waits <= most, f"it waits {waits} after {count} lost claims in a row"


async def _scheduled(bench: Bench, backend: Backend) -> Pending:
    one = (await bench.stored(backend)).standing.scheduled
    assert one is not None, "the occurrence of a lost claim is gone"
    return one


@law
async def a_lease_that_has_ended_counts_an_attempt(bench: Bench) -> None:
    """Claim_due ends a claim whose lease has ended: its attempt counts, and comes after a wait.

    The executions of that are written, and returned in lapsed, once.
    """
    one, two = await bench.open(), await bench.open()
    (job,) = await bench.added(one, bench.job(policy=POLICY))
    before = await _scheduled(bench, one)
    worker, revisions = one, [job.revision]
    written: list[Execution] = []
    for count in (1, 2):
        claim = await bench.claim(worker)
        await bench.advance(bench.lease)
        assert len(await bench.history(two)) == count - 1, "written before anybody took note"
        abandoned = _owed(bench, claim, Status.ABANDONED)
        assert await bench.lapse(two) == [abandoned], "lapsed is not what the lost claim leaves"
        assert not await bench.lapse(two), "the end of a claim is told twice"
        assert not await bench.lapse(one), "the end of a claim is told twice"
        written.insert(0, abandoned)
        assert await bench.history(one) == written
        after = await _scheduled(bench, one)
        await _lost(bench, before, claim, count, after)
        stored = await bench.stored(two)
        assert stored.standing.due_at == after.due_at, "the job is due, and its occurrence waits"
        assert stored.revision not in revisions, "a lapse gives no new revision"
        revisions.append(stored.revision)
        rest = evolve(stored.standing, scheduled=job.standing.scheduled, due_at=job.standing.due_at)
        assert rest == job.standing, "a lapse has changed more than its occurrence"
        await bench.advance(after.due_at - bench.clock.now() - granular(one))
        assert not await bench.due(two), "it was handed out before its wait was over"
        await bench.advance(granular(one))
        before, worker = after, two
    taken = await bench.claim(one)
    assert (bench.pending(taken), taken.job.revision) == (before, revisions[-1])
    settled = await bench.settle(one, bench.settlement(taken))
    assert settled.outcome == "written"
    assert bench.summary(await bench.history(two)) == [
        (1, 1, "abandoned"),
        (1, 2, "abandoned"),
        (1, 3, "succeeded"),
    ]


@law
async def a_worker_takes_over_what_it_lost_itself(bench: Bench) -> None:
    """A worker whose own lease has ended gets the job again, as lost and with a new token."""
    backend = await bench.open()
    await bench.added(backend, bench.job())
    first = await bench.claim(backend)
    second = await bench.take_over(backend)
    assert second.worker == first.worker
    assert second.token > first.token, "a worker took over from itself with the same token"
    assert bench.pending(second).lost == 1
    assert bench.summary(await bench.history(backend)) == [(1, 1, "abandoned")]
    assert not await bench.renew(backend, [first]), "the worker's older claim was renewed"
    await backend.release([first])
    assert not await bench.due(backend), "the worker's older claim was released"
    assert (await bench.settle(backend, bench.settlement(first))).outcome == "claim_lost"
    assert (await bench.settle(backend, bench.settlement(second))).outcome == "written"


@law
async def a_lease_ends_whether_or_not_its_job_is_due(bench: Bench) -> None:
    """Claim_due ends a lease also where an edit has put off or paused its job.

    What waits for later still does so afterwards.
    """
    one, two = await bench.open(), await bench.open()
    jobs = await bench.added(one, bench.job("later", policy=POLICY), bench.job("paused"))
    claims = {claim.job.id: claim for claim in await bench.due(one)}
    due = bench.clock.now() + 9 * bench.lease
    edited: dict[str, Job] = {}
    for job in jobs:
        moment = due if job.id == "later" else None
        held = bench.held(job, claims[job.id])
        edited[job.id] = await two.replace(bench.put_off(held, moment))
    await bench.advance(bench.lease)
    lapsed = await bench.lapse(two)
    assert sorted(each.job_id for each in lapsed) == ["later", "paused"], "a lease has not ended"
    assert {(each.attempt, each.status) for each in lapsed} == {(1, Status.ABANDONED)}
    for name, edit in edited.items():
        stored, was = await bench.stored(one, name), edit.standing
        assert stored.held is None, f"{name!r} is still told to be held"
        assert stored.standing.due_at == was.due_at, f"{name!r} was put off, and is due otherwise"
        assert stored.standing.pause == was.pause
        assert stored.standing.scheduled is not None
        assert (stored.standing.scheduled.attempts, stored.standing.scheduled.lost) == (1, 1)
    assert not await bench.renew(one, [*claims.values()]), "a claim that was ended is renewed"
    await bench.advance(due - bench.clock.now())
    assert (await bench.claim(two)).job.id == "later"


@law
async def every_lease_that_has_ended_is_ended(bench: Bench) -> None:
    """A claim_due ends all claims whose lease has ended, however few jobs it may hand out."""
    one, two = await bench.open(), await bench.open()
    names = ["a", "b", "c", "d"]
    await bench.added(one, *(bench.job(name) for name in names))
    claims = {claim.job.id: claim for claim in await bench.due(one)}
    await bench.advance(bench.lease / 2)
    await bench.renew(one, [claims["d"]])
    await bench.advance(bench.lease / 2)
    await bench.added(one, bench.job("due"))
    claimed = await two.claim_due(Room(1))
    assert [claim.job.id for claim in claimed.claims] == ["due"]
    assert sorted(each.job_id for each in claimed.lapsed) == ["a", "b", "c"]
    assert sorted(each.job_id for each in await bench.history(two)) == ["a", "b", "c"]
    assert len(await bench.renew(one, [*claims.values()])) == 1


@law
async def an_abandoned_execution_says_what_was_lost(bench: Bench) -> None:
    """An abandoned execution is of what was claimed, and kept as the policy at the claim says."""
    one, two = await bench.open(), await bench.open()
    await bench.added(one, bench.job(policy=POLICY))
    await bench.advance(seconds=7)
    first = await bench.claim(one)
    edit = bench.held(first.job, first)
    spec = evolve(edit.spec, policy=Policy(keep_executions=None, max_lost=4), name="another")
    await two.replace(evolve(edit, spec=spec))
    await bench.advance(bench.lease + 11 * SECOND)
    expected = [_owed(bench, first, Status.ABANDONED)]
    assert await bench.lapse(two) == expected
    await bench.advance(SECOND)
    second = await bench.claim(two)
    await bench.advance(bench.lease + 13 * SECOND)
    expected.insert(0, evolve(_owed(bench, second, Status.ABANDONED), expires_at=None))
    await bench.lapse(two)
    assert await bench.history(one) == expected


@law
async def a_lost_claim_ends_what_was_edited_away(bench: Bench) -> None:
    """What an edit took away during a claim that is lost ends abandoned and superseded, once.

    The job that is stored by then counts no attempt, waits for nothing, and is handed out.
    """
    one, two = await bench.open(), await bench.open()
    (job,) = await bench.added(one, bench.job(policy=POLICY))
    lost = await bench.claim(one)
    superseded = _end_of_three(bench, lost)
    moved = bench.moved(bench.held(job, lost), attempts=2, began_at=bench.clock.now())
    edited = await two.replace(moved, [superseded])
    assert not await bench.history(two), "the end of a run under way was written before it"
    await bench.advance(bench.lease)
    superseded = _end_of_three(bench, lost)
    expected = [superseded, _owed(bench, lost, Status.ABANDONED)]
    claimed = await two.claim_due(Room(10))
    assert list(claimed.lapsed) == expected[::-1], "lapsed is not what the lost claim leaves"
    assert await bench.history(two) == expected
    (taken,) = claimed.claims
    assert taken.job == evolve(edited, held=None, held_at=None, revision=taken.job.revision)
    assert (await bench.settle(one, bench.settlement(lost))).outcome == "claim_lost"
    assert await bench.history(two) == expected


@law
async def a_lost_claim_ends_what_was_removed(bench: Bench) -> None:
    """A job removed during a run that is then lost leaves both executions, and nothing else."""
    one, two = await bench.open(), await bench.open()
    await bench.added(one, bench.job(policy=POLICY))
    lost = await bench.claim(one)
    await bench.remove(two, "job", [_end_of_three(bench, lost)])
    await bench.advance(bench.lease)
    superseded = _end_of_three(bench, lost)
    expected = [superseded, _owed(bench, lost, Status.ABANDONED)]
    assert await bench.lapse(two) == expected[::-1]
    assert await bench.history(two) == expected
    assert await two.get("job") is None
    ended = Settlement(lost, None, None, (bench.execution(lost),))
    assert (await bench.settle(one, ended)).outcome == "claim_lost"
    await bench.advance(days=1)
    assert not await bench.lapse(one)
    assert await bench.history(two) == expected


@law
async def a_lost_claim_of_a_removed_job_frees_the_new_one(bench: Bench) -> None:
    """The lost claim of a removed incarnation counts for no other one, which is due at once."""
    one, two = await bench.open(), await bench.open()
    await bench.added(one, bench.job(policy=POLICY))
    lost = await bench.claim(one)
    await bench.remove(two, "job")
    (new,) = await bench.added(two, bench.job())
    await bench.advance(bench.lease)
    expected = [_owed(bench, lost, Status.SUPERSEDED), _owed(bench, lost, Status.ABANDONED)]
    claimed = await two.claim_due(Room(10))
    assert list(claimed.lapsed) == expected[::-1]
    (taken,) = claimed.claims
    assert taken.job == new, "a lost claim of another incarnation has changed the job"
    assert await bench.history(two) == expected


# -- how many in a row


async def _lose(bench: Bench, backend: Backend, *, alone: tuple[bool, ...] = ()) -> Pending:
    """Claim the job, renew its claim so often, and let it be lost; return what is stored then."""
    await _wait(bench, backend)
    claim = await bench.claim(backend)
    for each in alone:
        await bench.advance(bench.lease / 3)
        assert await bench.renew(backend, [claim], alone=each)
    await bench.advance(bench.lease)
    await backend.release(await bench.due(backend))
    return await _scheduled(bench, backend)


async def _wait(bench: Bench, backend: Backend) -> None:
    due = (await bench.stored(backend)).standing.due_at
    assert due is not None
    await bench.advance(max(due - bench.clock.now(), timedelta(0)))


@law
async def only_a_loss_alone_is_the_last(bench: Bench) -> None:
    """A lost claim counts as the last only if its newest renewal said that its worker was alone.

    Others count up to one below, and wait; after the last one nothing waits any more.
    """
    for name, alone, last in (
        ("never renewed", (), False),
        ("among others", (False, False), False),
        ("alone at first", (True, False), False),
        ("alone", (True,), True),
        ("alone at last", (False, True, True), True),
    ):
        backend = await bench.open()
        await bench.added(backend, bench.job(policy=Policy(max_lost=3)))
        for count in (1, 2):
            assert (await _lose(bench, backend, alone=(True,))).lost == count, "not counted"
        lost = await _lose(bench, backend, alone=alone)
        assert lost.lost == (3 if last else 2), f"{name}: counted as {lost.lost} of 3"
        assert lost.attempts == 3
        waits = lost.due_at > bench.clock.now()
        assert waits is not last, f"{name}: {'waits' if waits else 'does not wait'} afterwards"
        await bench.remove(backend, "job")


@law
async def a_long_run_alone_is_not_to_blame(bench: Bench) -> None:
    """A claim that was renewed alone for half a minute or longer is no last one when it is lost."""
    for seconds, last in ((29, True), (30, False), (31, False)):
        backend = await bench.open()
        await bench.added(backend, bench.job(policy=Policy(max_lost=2)))
        assert (await _lose(bench, backend)).lost == 1
        await _wait(bench, backend)
        claim = await bench.claim(backend)
        await bench.renew(backend, [claim], alone=True)
        until = bench.clock.now() + QUARANTINE + (seconds - 30) * SECOND
        while bench.clock.now() < until:
            await bench.advance(min(bench.lease / 2, until - bench.clock.now()))
            await bench.renew(backend, [claim], alone=True)
        await bench.advance(bench.lease)
        await backend.release(await bench.due(backend))
        lost = (await _scheduled(bench, backend)).lost
        assert lost == (2 if last else 1), f"after {seconds} seconds alone it is counted as {lost}"
        await bench.remove(backend, "job")


@law
async def where_one_loss_is_the_last_any_is(bench: Bench) -> None:
    """The first lost claim is the last with max_lost 1, whatever ran at the same time."""
    backend = await bench.open()
    await bench.added(backend, bench.job(policy=Policy(max_lost=1)))
    lost = await _lose(bench, backend)
    assert lost.lost == 1
    assert lost.due_at <= bench.clock.now(), "it waits, and there is nothing to wait for"


@law
async def a_settled_attempt_starts_the_count_of_lost_ones_again(bench: Bench) -> None:
    """What was lost before an attempt that was settled is counted no further."""
    one, two = await bench.open(), await bench.open()
    await bench.added(one, bench.job())
    await bench.claim(one)
    taken = await bench.take_over(two)
    assert (await bench.settle(two, bench.retry(taken))).outcome == "written"
    retry = await bench.claim(one)
    assert (bench.pending(retry).attempts, bench.pending(retry).lost) == (2, 0)
    await bench.advance(bench.lease)
    await bench.lapse(one)
    assert (await _scheduled(bench, two)).lost == 1


@law
async def an_edit_keeps_what_was_lost(bench: Bench) -> None:
    """An edit that leaves the occurrence alone keeps the count of its lost claims."""
    one, two = await bench.open(), await bench.open()
    await bench.added(one, bench.job())
    await bench.claim(one)
    await two.release([await bench.take_over(two)])
    job = await bench.stored(one)
    await one.replace(evolve(job, spec=evolve(job.spec, name="another")))
    taken = await bench.claim(two)
    assert (bench.pending(taken).attempts, bench.pending(taken).lost) == (1, 1)
    held = await bench.stored(two)
    await two.replace(evolve(held, spec=evolve(held.spec, name="a third")))
    await bench.advance(bench.lease)
    await bench.lapse(one)
    after = await _scheduled(bench, one)
    assert (after.attempts, after.lost) == (2, 2), "an edit during a claim has cost the count"


@law
async def what_waits_after_lost_claims_comes_in_order(bench: Bench) -> None:
    """Jobs whose claims were lost and jobs that were never claimed come by due_at alike."""
    one, two = await bench.open(), await bench.open()
    await bench.added(one, *(bench.job(name) for name in "abc"))
    await bench.due(one)
    await bench.advance(bench.lease)
    assert len(await bench.lapse(two)) == 3
    now, waits = bench.clock.now(), (SECOND * 0, SECOND * 0, SECOND / 4, SECOND)
    await bench.added(
        one,
        *(bench.job(name, due=now + wait) for name, wait in zip("dfeg", waits, strict=True)),
    )
    await bench.advance(SECOND)
    dues = {}
    for name in "abcdefg":
        dues[name] = (await bench.stored(one, name)).standing.due_at
    found: list[Claim] = []
    for limit in (2, 1, 10):
        found += await bench.due(two, limit)
    moments = [due for claim in found if (due := dues[claim.job.id]) is not None]
    assert len(moments) == 7
    assert moments == sorted(moments), f"they came as {[claim.job.id for claim in found]}"


# -- what else a claim may be for


@law
async def a_lost_claim_that_ends_a_pause_begins_nothing(bench: Bench) -> None:
    """A claim that ends a pause holds no occurrence; lost, it leaves the job as it was, and due."""
    one, two = await bench.open(), await bench.open()
    now = bench.clock.now()
    job = bench.job(due=None)
    pause = job.standing.pause
    assert pause is not None
    ends = evolve(job.standing, pause=evolve(pause, until=now), due_at=now)
    (job,) = await bench.added(one, evolve(job, standing=ends))
    claim = await bench.claim(one)
    assert claim.job == job
    for backend in (one, two):
        assert await bench.stored(backend) == job, "a claim that ends a pause is told to be held"
    assert not await bench.due(two), "it was handed out twice"
    await bench.advance(bench.lease)
    claimed = await two.claim_due(Room(10))
    assert not claimed.lapsed, "a lost claim that ends a pause has left an execution"
    (again,) = claimed.claims
    assert again.token > claim.token
    assert again.job == job, "a lost claim that ends a pause has changed the job"
    await two.release([again])
    await bench.due(two)
    await bench.remove(two, "job")
    await bench.advance(bench.lease)
    assert not await bench.lapse(one)
    assert not await bench.history(one), "what ended a pause has left an execution"


@law
async def a_lost_request_leaves_the_schedule_alone(bench: Bench) -> None:
    """A lost claim of a request counts for that alone: others of its job keep their due moments."""
    one, two = await bench.open(), await bench.open()
    due = bench.clock.now() + timedelta(days=1)
    job = bench.job(due=due, policy=POLICY)
    asked = bench.request(2, args={"a": "1"}), bench.request(3, key="k", kind=Kind.RERUN)
    (job,) = await bench.added(one, bench.asked(job, *asked))
    claim = await bench.claim(one)
    assert bench.pending(claim) == asked[0]
    assert (await bench.stored(two)).held == 2
    await bench.advance(bench.lease)
    claimed = await two.claim_due(Room(10))
    abandoned = _owed(bench, claim, Status.ABANDONED)
    assert (abandoned.kind, abandoned.number) == (Kind.TRIGGERED, 2)
    assert list(claimed.lapsed) == [abandoned] == await bench.history(one)
    (other,) = claimed.claims
    assert bench.pending(other) == asked[1], "another request waits for the lost one"
    standing = (await bench.stored(one)).standing
    assert standing.scheduled == job.standing.scheduled
    await _lost(bench, asked[0], claim, 1, standing.requests[0])
    assert standing.requests[1:] == asked[1:]
    assert standing.due_at == due_of(standing) == asked[1].due_at


@law
async def what_is_to_be_cancelled_waits_for_nothing(bench: Bench) -> None:
    """An occurrence that is marked to be cancelled is due at once after a lost claim."""
    one, two = await bench.open(), await bench.open()
    (job,) = await bench.added(one, bench.job(policy=POLICY))
    claim = await bench.claim(one)
    held = bench.held(job, claim)
    await two.replace(evolve(held, standing=evolve(held.standing, cancels=(CancelMark(1),))))
    await bench.advance(bench.lease)
    claimed = await two.claim_due(Room(10))
    assert [each.status for each in claimed.lapsed] == [Status.ABANDONED]
    (taken,) = claimed.claims
    assert (bench.pending(taken).attempts, taken.job.standing.cancels) == (1, (CancelMark(1),))
