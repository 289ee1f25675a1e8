"""A store in trouble: silent for a while, read-only for a while, or of a newer version."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import anyio
from attrs import evolve

from sched_core import (
    Backend,
    BackendError,
    BackendUnavailable,
    Claim,
    Job,
    Renewal,
    Room,
    SchedError,
    SchemaTooNew,
    Settlement,
    Status,
    WorkerState,
)
from sched_core.clock import pause
from sched_testkit._suite.bench import SECOND, Bench
from sched_testkit.laws.law import law, newer, refusing, stallable
from sched_testkit.laws.lifetimes import calls_of
from sched_testkit.laws.outages import expect_wait_to_outlive, is_back

SILENCE = 0.2
"""Seconds of real time: some backends wait so long, and others give up."""

QUICKLY_STOPPED = (
    *("add", "get", "claim_due", "renew", "settle", "wait_due"),
    *("claims", "execution", "recent", "counts", "report", "workers", "follow", "wait_cancelled"),
)
"""Some are left out: what is behind them is the same as behind others."""

Calls = dict[str, Callable[[], Awaitable[Any]]]


# -- silent


@law(needs=stallable)
async def a_silent_store_loses_nothing_and_does_nothing_twice(bench: Bench) -> None:
    """Calls on a silent store wait or raise BackendUnavailable, and can be sent again after it."""
    backend = await bench.open()
    await bench.added(backend, bench.job("ran"))
    settlement = bench.settlement(await bench.claim(backend))
    idle, _ = await bench.added(backend, bench.job("idle", due=None), bench.job("due"))
    new, renamed = bench.job("new", due=None), evolve(idle, spec=evolve(idle.spec, name="another"))
    calls: Calls = {
        "add": lambda: backend.add([new]),
        "replace": lambda: backend.replace(renamed),
        "settle": lambda: backend.settle([settlement]),
        "claim_due": lambda: backend.claim_due(Room(10)),
        "get": lambda: backend.get("ran"),
        "get of nothing": lambda: backend.get("nothing"),
    }
    told: dict[str, Any] = {}

    async def call(name: str) -> None:
        try:
            told[name] = await calls[name]()
        except SchedError as error:
            told[name] = error

    with anyio.move_on_after(bench.harness.patience) as scope:
        async with anyio.create_task_group() as tasks:
            with bench.harness.stall(bench.place):
                for name in calls:
                    tasks.start_soon(call, name)
                await pause(min(SILENCE, bench.harness.patience / 5))
    left = sorted(calls.keys() - told.keys())
    assert not scope.cancelled_caught, f"not answered after the store spoke again: {left}"
    await is_back(bench, backend)
    for name, answer in told.items():
        if isinstance(answer, SchedError):
            assert isinstance(answer, BackendUnavailable), f"{name} raised {answer!r}"
    await _expect_done_once(bench, backend, told, new, renamed, settlement)


async def _expect_done_once(
    bench: Bench,
    backend: Backend,
    told: dict[str, Any],
    new: Job,
    renamed: Job,
    settlement: Settlement,
) -> None:
    done = {name for name, told_ in told.items() if not isinstance(told_, BackendUnavailable)}
    assert "get of nothing" not in done or told["get of nothing"] is None
    assert "get" not in done or isinstance(told["get"], Job), "a job that is stored was not told"
    if "settle" in done:
        assert [answer.outcome for answer in told["settle"]] == ["written"]
        assert len(await bench.history(backend)) == 1, "a settlement was told, and is not written"
    if "add" in done:
        assert list(told["add"]) == [await backend.get("new")], "an add was told, and is not stored"
    edited = await bench.stored(backend, "idle")
    if "replace" in done:
        assert edited == told["replace"], "an edit was told, and is not stored"
    assert edited.spec.name in {renamed.spec.name, "send report"}
    assert (await bench.settle(backend, settlement)).outcome == "written"
    assert len(await bench.history(backend)) == 1, "a settlement that was sent again is there twice"
    assert [evolve(job, revision=0) for job in await backend.add([new])] == [new]
    claims: list[Claim] = list(told["claim_due"].claims) if "claim_due" in done else []
    assert {claim.job.id for claim in claims} <= {"due"}, f"handed out: {claims}"
    if not claims:  # it may have been claimed, and no worker told
        await bench.advance(2 * bench.lease)
        claims = await bench.due(backend)
    if not claims:
        await bench.advance(SECOND)
        claims = await bench.due(backend)
    assert [claim.job.id for claim in claims] == ["due"], "a job was lost to a silent store"
    assert (await bench.settle(backend, bench.settlement(claims[0]))).outcome == "written"


@law(needs=stallable)
async def a_wait_outlives_a_silence(bench: Bench) -> None:
    """A wait on a silent store raises BackendUnavailable, or ends by the longest poll after it."""
    await expect_wait_to_outlive(bench, _silence(bench))


@asynccontextmanager
async def _silence(bench: Bench) -> AsyncIterator[None]:
    with bench.harness.stall(bench.place):
        yield


@law(needs=stallable)
async def a_silent_store_holds_up_no_stop(bench: Bench) -> None:
    """A call that is cancelled, and close, return within seconds although the store is silent."""
    backend = await bench.open()
    await bench.added(backend, bench.job("held"))
    claim = await bench.claim(backend)
    (job,) = await bench.added(backend, bench.job("idle", due=None))
    calls = calls_of(bench, backend, job, claim)
    await calls["report"]()  # which close takes back, if it can
    with contextlib.ExitStack() as silence:
        silence.enter_context(bench.harness.stall(bench.place))
        for name in QUICKLY_STOPPED:
            stops = functools.partial(bench.cancelled_after, 20, _quietly(calls[name]))
            assert await _soon(bench, silence, stops), f"{name} went on after it was cancelled"
        goodbye = _quietly(backend.close)
        assert await _soon(bench, silence, goodbye), "close waited for the store"
    again = await bench.open("again")
    await is_back(bench, again)
    assert await bench.stored(again, "idle") == job
    assert (await bench.settle(again, bench.settlement(claim))).outcome == "written"
    assert len(await bench.history(again, job_id="held")) == 1


async def _soon(
    bench: Bench, silence: contextlib.ExitStack, call: Callable[[], Awaitable[object]]
) -> bool:
    """Whether a call returns soon; if not, the silence ends, or the call would never return."""
    late = False

    async def watch() -> None:
        nonlocal late
        await pause(bench.harness.patience / 2)
        late = True
        silence.close()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(watch)
        await call()
        tasks.cancel_scope.cancel()
    return not late


def _quietly(call: Callable[[], Awaitable[object]]) -> Callable[[], Awaitable[object]]:
    async def called() -> object:
        try:
            return await call()
        except BackendUnavailable:
            return None

    return called


# -- read-only


@law(needs=refusing)
async def what_a_store_refuses_to_write_is_told(bench: Bench) -> None:
    """Calls raise BackendError where the store refuses writes, and none has half an effect."""
    backend = await bench.open()
    await bench.added(backend, bench.job("ran"))
    await bench.settle(backend, bench.settlement(await bench.claim(backend)))
    await bench.added(backend, bench.job("held"), bench.job("freed"))
    claims = {claim.job.id: claim for claim in await bench.due(backend, 10)}
    held = claims["held"]
    job, _ = await bench.added(backend, bench.job("idle", due=None), bench.job("due"))
    before = await bench.jobs(backend)
    ended = await bench.history(backend)
    missed = bench.execution(held, Status.MISSED, id="refused", number=9)
    settlement = bench.settlement(held, executions=[bench.execution(held), missed])
    writes: Calls = {
        "check": backend.check,
        "add": lambda: backend.add([bench.job("one", due=None), bench.job("two", due=None)]),
        "replace": lambda: backend.replace(evolve(job, declared=not job.declared), [missed]),
        "remove": lambda: backend.remove(job, [missed]),
        "claim_due": lambda: backend.claim_due(Room(10)),
        "settle": lambda: backend.settle([settlement]),
        "report": lambda: backend.report(WorkerState("w", held.claimed_at, held.claimed_at)),
    }
    await bench.advance(timedelta(seconds=1))
    with bench.harness.refuse_writes(bench.place):
        for name, write in writes.items():
            try:
                answer = await write()
            except BackendError:
                continue
            raise AssertionError(f"{name} was refused by the store, and told {answer!r}")
        may: Calls = {
            "renew": functools.partial(backend.renew, [Renewal(held)]),
            "release": functools.partial(backend.release, [claims["freed"]]),
            "prune": functools.partial(backend.prune, bench.clock.now() - timedelta(days=1)),
        }
        done = {name for name, call in may.items() if await _is_done(call)}
        try:
            seen = await bench.jobs(backend), await bench.history(backend)
        except BackendUnavailable:
            pass
        else:
            assert seen == (before, ended), "a refused write has an effect, or a read is not true"
    await is_back(bench, backend)
    freed = "release" in done
    expected = [
        evolve(each, held=None, held_at=None) if freed and each.id == "freed" else each
        for each in before
        if isinstance(each, Job)
    ]
    assert await bench.jobs(backend) == expected, "a refused write has had an effect"
    assert await bench.history(backend) == ended, "a refused write has left executions"
    assert not await backend.workers(), "a refused report is told"
    due = {claim.job.id for claim in await bench.due(backend, 10)}
    open_ = {"due", "freed"} if freed else {"due"}
    assert due == open_, f"handed out afterwards: {sorted(due)}, not {sorted(open_)}"
    assert (await bench.settle(backend, settlement)).outcome == "written"
    assert len(await bench.history(backend)) == len(ended) + 2


async def _is_done(call: Callable[[], Awaitable[object]]) -> bool:
    try:
        await call()
    except BackendError:
        return False
    return True


# -- newer


@law(needs=newer)
async def a_newer_store_is_refused_and_left_alone(bench: Bench) -> None:
    """Open refuses a store of a newer version with SchemaTooNew, and changes nothing of it."""
    backend = await bench.open()
    await bench.added(backend, bench.job("held"))
    claim = await bench.claim(backend)
    (job,) = await bench.added(backend, bench.job("due"))
    await backend.close()
    late = bench.harness.backend(bench.place)
    with bench.harness.make_newer(bench.place):
        for _ in range(2):
            try:
                await late.open(bench.clock, worker="late")
            except SchemaTooNew:
                continue
            raise AssertionError("a store of a newer version was opened")
        try:
            await late.get("due")
        except BackendError:
            pass
        else:
            raise AssertionError("a backend that was not opened answers")
        await late.close()
    again = await bench.open("again")
    assert await bench.stored(again, "due") == job, "a refused open has changed a job"
    assert not await bench.history(again), "a refused open has written executions"
    assert (await bench.claim(again)).job == job, "a refused open has changed claims"
    assert (await bench.settle(again, bench.settlement(claim))).outcome == "written"
