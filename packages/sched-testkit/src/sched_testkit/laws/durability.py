"""Durable and shared: what another process finds, and what it may rely on.

The other process was forked before anything was opened here: what it sees came through the store,
and not through the memory of the process that wrote it.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

from attrs import evolve

from sched_core import (
    Backend,
    Claim,
    Execution,
    ExecutionQuery,
    Job,
    JobQuery,
    RevisionConflict,
    Settlement,
    Status,
)
from sched_core.ports import MAX_POLL
from sched_testkit._suite.bench import SECOND, Bench
from sched_testkit._suite.processes import (
    Elsewhere,
    advance_there,
    call_there,
    close_there,
    open_there,
)
from sched_testkit.laws.law import (
    granular,
    hears_others,
    law,
    outlives_processes,
    several_processes,
)
from sched_testkit.laws.wakeups import a_wait

THERE = "worker-elsewhere"


def other(bench: Bench) -> Elsewhere:
    """Return the other process."""
    assert bench.other is not None, "the law was not given another process"
    return bench.other


# -- durable: one process after the other


async def write_all(bench: Bench) -> tuple[dict[str, Job], dict[str, Claim], Settlement]:
    """Write everything that a store keeps; return the jobs, the claims and a settlement."""
    backend = bench.backends[0]
    later = bench.clock.now() + timedelta(days=1)
    jobs = [bench.job(name, metadata={"a": "ä"}) for name in ("ran", "held", "gone", "removed")]
    await backend.add([*jobs, bench.job("later", due=later), bench.job("edited", due=None)])
    claims = {claim.job.id: claim for claim in await bench.due(backend, 10)}
    settlement = bench.settlement(
        claims["ran"], executions=[bench.execution(claims["ran"], reason="why")]
    )
    await backend.settle([settlement])
    await backend.release([claims["removed"]])
    await bench.remove(backend, "removed")
    await bench.remove(backend, "gone")
    await bench.renew(backend, [claims["held"]])
    found = [job for job in await bench.jobs(backend) if isinstance(job, Job)]
    written = {job.id: job for job in found}
    edited = written["edited"]  # last, so that no later call helps it to the store
    renamed = evolve(edited, spec=evolve(edited.spec, name="another"))
    written["edited"] = await backend.replace(renamed)
    return written, claims, settlement


async def expect_all(
    bench: Bench,
    backend: Backend,
    jobs: dict[str, Job],
    claims: dict[str, Claim],
    settlement: Settlement,
) -> None:
    """Assert that all of it is there, claims included."""
    found = {job.id: job for job in await bench.jobs(backend)}
    assert sorted(found) == ["edited", "held", "later", "ran"], f"stored are {sorted(found)}"
    assert found == jobs, "a job is not as it was written"
    executions = await bench.history(backend)
    assert executions == list(settlement.executions), f"the history is {executions}"
    repeated = await backend.settle([settlement])
    outcome = repeated[0].outcome
    assert outcome == "written", f"a settlement that was written, sent again, is {outcome}"
    await backend.add([bench.job("gone")])
    # A store may notice that a process is dead before its lease ends: it was lost all the same.
    taken: dict[str, Claim] = {}
    for wait in (timedelta(0), bench.lease, SECOND):
        await bench.advance(wait)
        await bench.renew(backend, list(taken.values()))
        taken |= {claim.job.id: claim for claim in await bench.due(backend)}
    assert sorted(taken) == ["gone", "held"], f"handed out after the lease: {sorted(taken)}"
    counted = {name: bench.pending(claim).lost for name, claim in taken.items()}
    assert counted == {"gone": 0, "held": 1}, f"the lost claims are counted as {counted}"
    for name, claim in taken.items():
        assert claim.token > claims[name].token, f"the token of {name} did not grow"
    ended = sorted(
        execution.status.value for execution in await bench.history(backend, job_id="gone")
    )
    assert ended == ["abandoned", "superseded"], f"the removed job's run ended {ended}"
    revisions = [job.revision for job in jobs.values()]
    again = await backend.replace(jobs["later"])
    assert again.revision not in revisions, "a revision was given again"


@law(needs=outlives_processes, examines="durable", elsewhere=True)
async def what_a_killed_process_wrote_is_there(bench: Bench) -> None:
    """What returned calls of a process wrote is there after the system has killed it."""
    await other(bench).call(open_there, THERE)
    written = await other(bench).call(write_all)
    other(bench).kill()
    await expect_all(bench, await bench.open(), *written)


@law(needs=outlives_processes, examines="durable", elsewhere=True)
async def what_a_process_wrote_is_there_after_it_closed(bench: Bench) -> None:
    """What a process wrote is there for another one after every backend was closed."""
    await bench.open("worker-1")
    written = await write_all(bench)
    await bench.close()
    await other(bench).call(open_there, THERE)
    await other(bench).call(expect_all_there, *written)


async def expect_all_there(
    bench: Bench, jobs: dict[str, Job], claims: dict[str, Claim], settlement: Settlement
) -> None:
    """Look in the other process."""
    await expect_all(bench, bench.backends[0], jobs, claims, settlement)


@law(needs=outlives_processes, examines="durable", elsewhere=True)
async def what_was_deleted_stays_deleted(bench: Bench) -> None:
    """What a process settled, removed and pruned before it was killed does not come back."""
    await other(bench).call(open_there, THERE)
    await other(bench).call(write_and_delete)
    other(bench).kill()
    backend = await bench.open()
    assert await bench.jobs(backend) == [], "removed or expired jobs are there again"
    assert await bench.history(backend) == [], "pruned executions are there again"
    await bench.advance(3 * bench.lease)
    assert not await bench.due(backend, 10), "a job that was removed is handed out"
    assert await bench.history(backend) == [], "a claim that had ended was taken over"


async def write_and_delete(bench: Bench) -> None:
    """Write, and delete all of it."""
    backend, now = bench.backends[0], bench.clock.now()
    await backend.add([bench.job("removed"), bench.job("expired")])
    for claim in await bench.due(backend, 10):
        await backend.settle([bench.settlement(claim, expires_at=now + timedelta(hours=1))])
    await bench.remove(backend, "removed")
    await bench.advance(timedelta(days=1))
    await backend.prune(bench.clock.now())


# -- shared: both at once


async def jobs_there(bench: Bench) -> list[Job]:
    """Return what another process lists."""
    return [job for job in await bench.jobs(bench.backends[0]) if isinstance(job, Job)]


async def executions_there(bench: Bench) -> list[Execution]:
    """Return the history that another process lists."""
    return await bench.history(bench.backends[0])


async def claims_there(bench: Bench, limit: int = 10) -> Sequence[Claim]:
    """Claim in the other process."""
    return await bench.due(bench.backends[0], limit)


@law(needs=several_processes, examines="shared", elsewhere=True)
async def another_process_sees_every_write_at_once(bench: Bench) -> None:
    """What a call wrote is seen by every other process from its return on, in every listing."""
    backend, there = await bench.open(), other(bench)
    await there.call(open_there, THERE)
    assert bench.apart(await there.call(jobs_there)) == [], "it has jobs before there are any"
    assert await there.call(claims_there) == []
    (job,) = await bench.added(backend, bench.job())
    assert bench.apart(await there.call(jobs_there)) == [job], "an added job is not listed"
    assert await there.call(call_there, "get", "job") == job, "an added job is not found"
    edited = await backend.replace(evolve(job, spec=evolve(job.spec, name="another")))
    assert await there.call(call_there, "get", "job") == edited, "an edit is not seen"
    assert bench.apart(await there.call(jobs_there)) == [edited], "an edit is not listed"
    claim = await bench.claim(backend)
    assert not await there.call(claims_there), "another process's claim is not seen"
    settlement = bench.settlement(claim, due=bench.clock.now())
    await bench.settle(backend, settlement)
    assert await there.call(executions_there) == list(settlement.executions), (
        "an execution is not listed"
    )
    standing = (await there.call(call_there, "get", "job")).standing
    assert standing == settlement.standing, "a settlement is not seen"
    (theirs,) = await there.call(claims_there)
    assert theirs.token > claim.token, "a token of another process was used again"
    assert not await bench.due(backend, 10), "the other process's claim is not seen here"
    claimed = await there.call(call_there, "get", "job")
    assert claimed.held == 2, "the other process's claim is not told"
    assert await backend.get("job") == claimed, "the other process's claim is not told here"
    await there.call(call_there, "remove", claimed)
    assert await backend.get("job") is None, "the other process's removal is not seen here"
    assert await bench.jobs(backend) == []


@law(needs=several_processes, examines="shared", elsewhere=True)
async def a_claim_is_fenced_against_other_processes(bench: Bench) -> None:
    """A claim that another process took over after its lease can write nothing any more."""
    backend, there = await bench.open(), other(bench)
    await there.call(open_there, THERE)
    await bench.added(backend, bench.job())
    old = await bench.claim(backend)
    await bench.advance(bench.lease - granular(backend))
    await there.call(advance_there, bench.lease - granular(backend))
    assert not await there.call(claims_there), "a claim was taken over before its lease ended"
    await bench.renew(backend, [old])
    await there.call(advance_there, granular(backend))
    assert not await there.call(claims_there), "a claim renewed here was taken over there"
    await bench.advance(bench.lease)
    await there.call(advance_there, bench.lease)
    assert not await there.call(claims_there), "it was handed out without a wait"
    await bench.advance(SECOND)
    await there.call(advance_there, SECOND)
    (new,) = await there.call(claims_there)
    assert new.token > old.token, "the token did not grow"
    assert bench.pending(new).lost == 1
    assert bench.summary(await bench.history(backend)) == [(1, 1, "abandoned")]
    assert await bench.renew(backend, [old]) == [], "a claim lost to another process was renewed"
    outcome = (await bench.settle(backend, bench.settlement(old))).outcome
    assert outcome == "claim_lost", f"a claim lost to another process was {outcome}"
    await backend.release([old])
    assert not await bench.due(backend, 10), "a release freed another process's claim"
    (answer,) = await there.call(call_there, "settle", [bench.settlement(new)])
    assert answer.outcome == "written"
    statuses = [execution.status for execution in await bench.history(backend)]
    assert statuses == [Status.SUCCEEDED, Status.ABANDONED]


@law(needs=several_processes, examines="shared", elsewhere=True)
async def numbers_of_two_processes_never_meet(bench: Bench) -> None:
    """Revisions, tokens and the order of the history stay right when two processes take turns."""
    backend, there = await bench.open(), other(bench)
    await there.call(open_there, THERE)
    (job,) = await bench.added(backend, bench.job())
    revisions, tokens = [job.revision], []
    for turn in range(4):
        here = turn % 2 == 0
        job = await (backend.replace(job) if here else there.call(call_there, "replace", job))
        revisions.append(job.revision)
        claims = await (bench.due(backend, 1) if here else there.call(claims_there, 1))
        tokens.append(claims[0].token)
        settlement = bench.settlement(claims[0], due=bench.clock.now())
        if here:
            await backend.settle([settlement])
        else:
            await there.call(call_there, "settle", [settlement])
        job = await bench.stored(backend)
        revisions.append(job.revision)
    assert len(set(revisions)) == len(revisions), f"a revision was given twice: {revisions}"
    assert tokens == sorted(set(tokens)), f"the tokens of one id did not grow: {tokens}"
    numbers = [execution.number for execution in await bench.history(backend)]
    assert numbers == [4, 3, 2, 1], f"the history, newest first, is of the runs {numbers}"
    page = await backend.executions(ExecutionQuery(), after=None, limit=2)
    rest = await there.call(page_there, page.next)
    assert [execution.number for execution in rest] == [2, 1], (
        "a page's next is of no use elsewhere"
    )


@law(needs=several_processes, examines="shared", elsewhere=True)
async def a_claim_of_another_process_is_told(bench: Bench) -> None:
    """What one process has claimed or freed is told as held, or not, by every other at once."""
    backend, there = await bench.open(), other(bench)
    await there.call(open_there, THERE)
    (job,) = await bench.added(backend, bench.job())
    for _ in range(2):
        (claim,) = await there.call(claims_there)
        held = bench.held(job, claim)
        assert await backend.get("job") == held, "a claim of another process is not told by get"
        assert await bench.jobs(backend) == [held], "it is not told by jobs"
        try:
            await backend.replace(job)
        except RevisionConflict:
            pass
        else:
            raise AssertionError("an edit passed over a claim that another process has made")
        await there.call(call_there, "release", [claim])
        assert await backend.get("job") == job, "a freed claim of another process is told as held"


async def page_there(bench: Bench, after: str) -> list[Execution]:
    """Return the next page of the history."""
    page = await bench.backends[0].executions(ExecutionQuery(), after=after, limit=10)
    return [execution for execution in page.items if isinstance(execution, Execution)]


@law(needs=several_processes, examines="shared", elsewhere=True)
async def a_process_that_closes_takes_nothing_from_others(bench: Bench) -> None:
    """One process closes its backend, and the claims and calls of another one continue."""
    backend, there = await bench.open(), other(bench)
    await there.call(open_there, THERE)
    await bench.added(backend, bench.job())
    claim = await bench.claim(backend)
    await there.call(close_there)
    await there.call(open_there, "worker-again")
    assert not await there.call(claims_there), "closing freed another process's claim"
    page = await backend.jobs(JobQuery(), after=None, limit=10)
    assert len(bench.apart(page.items)) == 1
    assert (await bench.settle(backend, bench.settlement(claim))).outcome == "written"


async def wakes(bench: Bench, poll: timedelta | None) -> None:
    """Let this process wait, and the other one add what is due."""
    backend, there = await bench.open(), other(bench)
    await there.call(open_there, THERE)
    await bench.added(backend, bench.job("later", due=bench.clock.now() + timedelta(days=1)))
    otherwise = "what another process added ended no wait"
    async with a_wait(bench, backend, otherwise, begins_within=0.05):
        await there.call(add_due)
        if poll is not None:
            await bench.advance(poll)
    assert (await bench.claim(backend)).job.id == "job"


async def add_due(bench: Bench) -> None:
    """Add a job that is due now."""
    await bench.backends[0].add([bench.job(due=bench.clock.now() - timedelta(minutes=1))])


@law(needs=several_processes, examines="shared", elsewhere=True)
async def another_process_wakes_who_waits(bench: Bench) -> None:
    """A job that another process adds ends a wait, after the longest poll at the latest."""
    await wakes(bench, MAX_POLL)


@law(needs=hears_others, examines="notified", elsewhere=True)
async def what_is_notified_wakes_at_once(bench: Bench) -> None:
    """A job that another process adds ends a wait at once, where notified is declared."""
    await wakes(bench, None)
