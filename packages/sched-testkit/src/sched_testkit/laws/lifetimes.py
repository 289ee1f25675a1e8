"""Laws about what a backend answers from before ``open`` to after ``close``."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any

import anyio
from anyio.lowlevel import checkpoint
from attrs import evolve

from sched_core import (
    Backend,
    BackendError,
    BackendUnavailable,
    Claim,
    ClaimQuery,
    CountQuery,
    ExecutionQuery,
    Gap,
    Job,
    JobQuery,
    Kind,
    Pending,
    Renewal,
    Room,
    Status,
    WorkerState,
)
from sched_core.clock import FIRST, LAST, pause
from sched_core.testing import FakeClock
from sched_testkit._suite.bench import Bench
from sched_testkit.laws.law import TICK, law


def calls_of(
    bench: Bench, backend: Backend, job: Job, claim: Claim
) -> dict[str, Callable[[], Awaitable[object]]]:
    """Return one call of each method that needs an open backend."""
    return {
        "add": lambda: backend.add([bench.job("other")]),
        "get": lambda: backend.get(job.id),
        "replace": lambda: backend.replace(job),
        "remove": lambda: backend.remove(job),
        "check": backend.check,
        "jobs": lambda: backend.jobs(JobQuery(), after=None, limit=10),
        "wait_due": lambda: backend.wait_due(Room(10)),
        "claim_due": lambda: backend.claim_due(Room(10)),
        "renew": lambda: backend.renew([Renewal(claim)]),
        "settle": lambda: backend.settle([bench.settlement(claim)]),
        "release": lambda: backend.release([claim]),
        "executions": lambda: backend.executions(ExecutionQuery(), after=None, limit=10),
        "prune": lambda: backend.prune(bench.clock.now()),
        "execution": lambda: bench.found(backend, "uid000000001:1:1"),
        "recent": lambda: backend.recent([job.id], limit=10),
        "follow": lambda: backend.follow(None, limit=10),
        "claims": lambda: backend.claims(ClaimQuery(), after=None, limit=10),
        "counts": lambda: backend.counts(CountQuery(bench.clock.now())),
        "report": lambda: backend.report(
            WorkerState(claim.worker, bench.clock.now(), bench.clock.now())
        ),
        "workers": backend.workers,
        "wait_cancelled": backend.wait_cancelled,
    }


async def _expect_refusals(
    bench: Bench, backend: Backend, job: Job, claim: Claim, when: str
) -> None:
    of_nothing: dict[str, Callable[[], Awaitable[object]]] = {
        "add of nothing": lambda: backend.add([]),
        "claim_due of nothing": lambda: backend.claim_due(Room(0)),
        "renew of nothing": lambda: backend.renew([]),
        "settle of nothing": lambda: backend.settle([]),
        "release of nothing": lambda: backend.release([]),
        "recent of nothing": lambda: backend.recent([], limit=10),
        "follow from the oldest": lambda: backend.follow("", limit=10),
    }
    for name, call in (calls_of(bench, backend, job, claim) | of_nothing).items():
        try:
            with anyio.fail_after(bench.harness.patience):
                await call()
        except BackendUnavailable as error:
            raise AssertionError(f"{name} {when} says that trying again may help") from error
        except BackendError:
            continue
        raise AssertionError(f"{name} {when} raised nothing")


@law
async def what_is_not_open_refuses_every_call(bench: Bench) -> None:
    """Before open and after close every call but close raises BackendError and does nothing."""
    witness = await bench.open()
    (job,) = await bench.added(witness, bench.job())
    claim = await bench.claim(witness)
    (idle,) = await bench.added(witness, bench.job("idle"))
    unopened = bench.harness.backend(bench.place)
    await unopened.close()
    await _expect_refusals(bench, unopened, idle, claim, "before open")
    closed = await bench.open()
    await closed.close()
    await _expect_refusals(bench, closed, idle, claim, "after close")
    assert await bench.jobs(witness) == [idle, bench.held(job, claim)]
    assert not await bench.history(witness)
    assert not await witness.workers(), "what is not open has reported a worker"
    assert (await bench.claim(witness)).job == idle
    assert (await bench.settle(witness, bench.settlement(claim))).outcome == "written"


@law
async def what_is_open_is_not_opened_again(bench: Bench) -> None:
    """Opening a backend that is open raises BackendError, and it works on as the same worker."""
    backend = await bench.open()
    await bench.added(backend, bench.job())
    try:
        await backend.open(bench.clock, worker="another")
    except BackendUnavailable as error:
        raise AssertionError("a second open says that trying again may help") from error
    except BackendError:
        pass
    else:
        raise AssertionError("an open backend was opened again")
    claim = await bench.claim(backend)
    assert claim.worker == "worker-1", "a refused open changed the worker"
    assert (await bench.settle(backend, bench.settlement(claim))).outcome == "written"


@law
async def what_was_closed_can_be_opened_again(bench: Bench) -> None:
    """A closed backend can be opened again, as another worker, and finds what was written."""
    backend = await bench.open()
    await bench.added(backend, bench.job("held"), bench.job("later", due=None))
    before = await bench.claim(backend)
    for number in (1, 2):
        await backend.close()
        clock = await backend.open(bench.clock, worker=f"again-{number}")
        assert clock.now() == bench.clock.now()
        assert {job.id for job in await bench.jobs(backend)} == {"held", "later"}
        assert not await bench.due(backend, 10), "closing freed a claim"
    await bench.added(backend, bench.job("new"))
    claim = await bench.claim(backend)
    assert claim.worker == "again-2", "claims are made in the name of an earlier opening"
    assert claim.token > before.token
    assert (await bench.settle(backend, bench.settlement(claim))).outcome == "written"
    await bench.advance(bench.lease)
    (lost,) = await bench.lapse(backend)
    assert (lost.job_id, lost.worker) == ("held", "worker-1")


@law
async def closing_ends_a_waiting_call(bench: Bench) -> None:
    """A wait that is under way when its backend is closed ends: it returns, or says why not."""
    backend = await bench.open()
    await bench.added(backend, bench.job(due=bench.clock.now() + timedelta(days=1)))
    ended = anyio.Event()

    async def wait() -> None:
        try:
            await backend.wait_due(Room(10))
        except BackendError:
            pass  # it says that it is closed
        ended.set()

    with anyio.move_on_after(bench.harness.patience) as scope:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(wait)
            await pause(0.02)  # so that it waits when the backend is closed
            assert not ended.is_set(), "wait_due returned although nothing is due"
            await backend.close()
            await ended.wait()
    assert not scope.cancelled_caught, "wait_due went on after close"


@law
async def calls_of_one_backend_overlap(bench: Bench) -> None:
    """Calls of one backend may be under way at once: each gets its answer, and none is refused."""
    backend = await bench.open()
    jobs = [bench.job(f"job-{number}") for number in range(8)]
    claims: list[Claim] = []
    outcomes: list[str] = []

    async def add(job: Job) -> None:
        (stored,) = await backend.add([job])
        assert evolve(stored, revision=0) == job

    async def claim() -> None:
        claims.extend(await bench.due(backend, 3))

    async def settle(claim: Claim) -> None:
        outcomes.append((await bench.settle(backend, bench.settlement(claim))).outcome)

    async def look() -> None:
        assert len(await bench.jobs(backend, id_prefix="job-")) == len(jobs)
        await backend.check()

    with anyio.fail_after(bench.harness.patience):
        async with anyio.create_task_group() as tasks:
            for job in jobs:
                tasks.start_soon(add, job)
        async with anyio.create_task_group() as tasks:
            for _ in range(4):
                tasks.start_soon(claim)
                tasks.start_soon(look)
        claims += await bench.due(backend, 10)  # what neighbours in the store have kept away
        assert sorted(claim.job.id for claim in claims) == [job.id for job in jobs]
        async with anyio.create_task_group() as tasks:
            for each in claims:
                tasks.start_soon(settle, each)
    assert outcomes == ["written"] * len(jobs)
    assert len(await bench.history(backend)) == len(jobs)


@law
async def a_wait_holds_up_no_other_call(bench: Bench) -> None:
    """While a wait is under way every other call of its backend returns, and does what it says."""
    backend = await bench.open()
    await bench.added(backend, bench.job("held"))
    claim = await bench.claim(backend)
    (job,) = await bench.added(backend, bench.job(due=None))
    calls = calls_of(bench, backend, job, claim)
    calls["add"] = lambda: backend.add([bench.job("other", due=None)])
    calls["remove"] = lambda: bench.remove(backend, job.id)
    del calls["wait_due"], calls["wait_cancelled"]
    for name, call in calls.items():
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(backend.wait_due, Room(10))
            tasks.start_soon(backend.wait_cancelled)
            await pause(0.01)
            with anyio.move_on_after(bench.harness.patience) as scope:
                await call()
            tasks.cancel_scope.cancel()
        assert not scope.cancelled_caught, f"{name} waited for a wait_due or wait_cancelled"
    stored = await bench.jobs(backend)
    assert sorted(job.id for job in stored) == ["held", "other"]
    assert (await bench.stored(backend, "held")).standing == bench.settlement(claim).standing


@law
async def the_first_and_the_last_moment_are_kept(bench: Bench) -> None:
    """Every moment from year 1 to year 9999 is kept exactly, in jobs and in the history."""
    backend = await bench.open()
    jobs = []
    for job_id, due in (("first", FIRST), ("second", FIRST + timedelta(1)), ("last", LAST)):
        job = bench.job(job_id, due=due)
        ends = evolve(
            job.standing,
            expires_at=LAST,
            last_scheduled_at=FIRST,
            last_finished_at=FIRST,
            skip=LAST,
            spare=FIRST,
            gaps=(Gap(FIRST, FIRST + TICK), Gap(LAST - TICK, LAST)),
            requests=(Pending(1, FIRST, LAST, Kind.BACKFILLED, origin=1, until=LAST),),
        )
        jobs.append(evolve(job, anchor=FIRST, standing=ends))
    given, jobs = jobs, await bench.added(backend, *jobs)
    assert [evolve(job, revision=0) for job in jobs] == given
    assert [await bench.stored(backend, job.id) for job in jobs] == jobs
    claims = await bench.due(backend, 10)
    assert [claim.job for claim in claims] == jobs[:2], "claims come in another order"
    executions = [
        bench.execution(
            claims[0],
            scheduled_at=FIRST,
            claimed_at=FIRST,
            started_at=FIRST,
            finished_at=FIRST,
            coalesced=1,
            coalesced_until=LAST,
            expires_at=LAST,
        ),
        bench.execution(
            claims[1], Status.FAILED, scheduled_at=LAST, claimed_at=LAST, finished_at=LAST
        ),
    ]
    for claim, execution in zip(claims, executions, strict=True):
        settlement = bench.settlement(
            claim, due=LAST, executions=[evolve(execution, expires_at=LAST)]
        )
        assert (await bench.settle(backend, settlement)).outcome == "written"
        assert (await bench.stored(backend, claim.job.id)).standing == settlement.standing
    kept = [evolve(execution, expires_at=LAST) for execution in executions][::-1]
    assert await bench.history(backend) == kept
    assert await bench.history(backend, since=FIRST, until=LAST) == kept[1:]
    assert await bench.history(backend, since=LAST) == kept[:1]
    assert await backend.prune(FIRST) == 0
    assert await bench.history(backend) == kept
    assert not await bench.due(backend, 10)


@law
async def workers_differ_to_their_last_character(bench: Bench) -> None:
    """The name of a worker is kept whole: it is the fence, and lies in claims and executions."""
    common = "a-pod-of-a-long-name.in-a-namespace.svc.cluster.local-" + "7" * 60
    one, two = await bench.open(f"{common}:a"), await bench.open(f"{common}:b")
    await bench.added(one, bench.job())
    claim = await bench.claim(one)
    assert claim.worker == f"{common}:a", f"claimed as {claim.worker!r}"
    for other in (f"{common}:b", f"{common}:A", f"{common}:a ", f" {common}:a", common):
        forged = evolve(claim, worker=other)
        assert not await bench.renew(two, [forged]), f"renewed as {other!r}"
        outcome = (await bench.settle(two, bench.settlement(forged))).outcome
        assert outcome == "claim_lost", f"settled as {other!r}"
    taken = await bench.take_over(two)
    assert taken.worker == f"{common}:b"
    assert [execution.worker for execution in await bench.history(two)] == [f"{common}:a"]


@law
async def what_is_opened_again_goes_by_its_new_clock(bench: Bench) -> None:
    """A backend that is opened again goes by the clock of this opening, not of an earlier one."""
    backend = await bench.open()
    await bench.added(backend, bench.job(due=bench.clock.now() + timedelta(days=1)))
    await backend.close()
    ahead = FakeClock(bench.clock.now() + timedelta(days=2))
    decides = await backend.open(ahead, worker="again")
    await bench.harness.catch_up(backend)
    assert decides.now() == ahead.now(), "another clock decides than the one that was given"
    claim = await bench.claim(backend)
    assert claim.claimed_at == ahead.now(), f"claimed at {claim.claimed_at}"
    assert claim.expires_at == ahead.now() + bench.lease, f"held until {claim.expires_at}"


@law
async def a_call_that_close_meets_tells_the_truth(bench: Bench) -> None:
    """A call under way at a close raises BackendError, or has done what it tells."""
    witness = await bench.open()
    for turns in range(4):
        backend = await bench.open()
        (job,) = await bench.added(witness, bench.job(f"run-{turns}"))
        settlement = bench.settlement(await bench.claim(witness))
        new = bench.job(f"new-{turns}", due=None)
        told: dict[str, Any] = {}

        async def call(name: str, make: Callable[[], Awaitable[Any]], into: Any = told) -> None:
            with contextlib.suppress(BackendError):
                into[name] = await make()

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(call, "settle", functools.partial(backend.settle, [settlement]))
            tasks.start_soon(call, "add", functools.partial(backend.add, [new]))
            for _ in range(turns):
                await checkpoint()
            await backend.close()
        bench.backends.remove(backend)
        executions = await bench.history(witness, job_id=job.id)
        if "settle" in told:
            assert [answer.outcome for answer in told["settle"]] == ["written"]
            assert executions == list(settlement.executions), (
                "a settlement was told, and is not written"
            )
        if "add" in told:
            stored = [await witness.get(new.id)]
            assert stored == list(told["add"]), "an add was told, and is not stored"
        assert (await bench.settle(witness, settlement)).outcome == "written"
        assert await bench.history(witness, job_id=job.id) == list(settlement.executions)
