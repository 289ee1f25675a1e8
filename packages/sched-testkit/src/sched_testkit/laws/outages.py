"""Reaching the store: its health, its absence, and records that cannot be read."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import anyio
import anyio.to_thread
from attrs import evolve

from sched_core import (
    Backend,
    BackendUnavailable,
    CountQuery,
    JobAlreadyExists,
    JobUndecodable,
    Renewal,
    Room,
    SchedError,
    State,
    Status,
    Undecodable,
    WorkerState,
    WrongEventLoop,
)
from sched_core.clock import pause
from sched_core.ports import MAX_POLL
from sched_testkit._suite.bench import Bench
from sched_testkit.laws.law import cuttable, law, spoilable
from sched_testkit.laws.lifetimes import calls_of


@law
async def check_succeeds_on_a_working_store(bench: Bench) -> None:
    """Check returns where the store can be written, and changes nothing that anybody sees."""
    backend = await bench.open()
    (job,) = await bench.added(backend, bench.job())
    await backend.check()
    await backend.check()
    assert await bench.jobs(backend) == [job]
    assert not await bench.history(backend)


@law
async def another_event_loop_is_refused(bench: Bench) -> None:
    """Every call in an event loop that did not open it raises WrongEventLoop and does nothing."""
    backend = await bench.open()
    await bench.added(backend, bench.job("held"))
    claim = await bench.claim(backend)
    (job,) = await bench.added(backend, bench.job())
    calls = calls_of(bench, backend, job, claim)
    for name, call in calls.items():
        end = functools.partial(_end_elsewhere, call, bench.harness.patience)
        ended = await anyio.to_thread.run_sync(end, abandon_on_cancel=True)
        assert isinstance(ended, WrongEventLoop), f"{name} in another event loop: {ended!r}"
    assert (await bench.claim(backend)).job == job
    assert (await bench.settle(backend, bench.settlement(claim))).outcome == "written"


def _end_elsewhere(call: Callable[[], Awaitable[object]], seconds: float) -> object:
    """Return what a call returns or raises in an event loop of this thread."""

    async def main() -> object:
        with anyio.fail_after(seconds):
            return await call()

    try:
        return anyio.run(main)
    except Exception as error:  # noqa: BLE001 -- returned
        return error


async def is_back(bench: Bench, backend: Backend) -> None:
    """Wait until the backend reaches its store again: a first call may still be told otherwise."""
    with anyio.fail_after(bench.harness.patience):
        while True:
            try:
                return await backend.check()
            except BackendUnavailable:
                await pause(0.05)


@law(needs=cuttable)
async def an_unreachable_store_is_said_to_be(bench: Bench) -> None:
    """Out of reach a write raises BackendUnavailable, and a read does so or tells the truth."""
    backend = await bench.open()
    await bench.added(backend, bench.job("ran"))
    await bench.settle(backend, bench.settlement(await bench.claim(backend)))
    job, held = await bench.added(backend, bench.job(due=None), bench.job("held"))
    claim = await bench.claim(backend)
    (ended,) = await bench.history(backend)
    holds = await bench.holds(backend)
    _, end = await bench.followed(backend, "")
    missed = bench.execution(claim, Status.MISSED, id="outage", number=9)
    writes: dict[str, Callable[[], Awaitable[object]]] = {
        "check": backend.check,
        "add": lambda: backend.add([bench.job("other")]),
        "replace": lambda: backend.replace(job, [missed]),
        "remove": lambda: backend.remove(job, [missed]),
        "claim_due": lambda: backend.claim_due(Room(10)),
        "renew": lambda: backend.renew([Renewal(claim)]),
        "settle": lambda: backend.settle([bench.settlement(claim)]),
        "release": lambda: backend.release([claim]),
        "prune": lambda: backend.prune(bench.clock.now() + timedelta(days=1)),
        "report": lambda: backend.report(WorkerState("late", claim.claimed_at, claim.claimed_at)),
    }
    reads: dict[str, tuple[Callable[[], Awaitable[object]], object]] = {
        "get": (lambda: backend.get("job"), job),
        "get of nothing": (lambda: backend.get("nothing"), None),
        "jobs": (lambda: bench.jobs(backend, id_prefix="job"), [job]),
        "executions": (lambda: bench.history(backend), [ended]),
        "executions of a job": (lambda: bench.history(backend, job_id="ran"), [ended]),
        "execution": (lambda: bench.found(backend, ended.id), ended),
        "execution of nothing": (lambda: bench.found(backend, "nothing"), None),
        "recent": (lambda: backend.recent(["ran", "job"], limit=3), {"ran": [ended]}),
        "follow": (lambda: bench.followed(backend, ""), ([ended], end)),
        "claims": (lambda: bench.holds(backend), holds),
        "counts": (lambda: _totals(bench, backend), (1, 0, 1)),
        "workers": (backend.workers, []),
    }
    held = bench.held(held, claim)
    await bench.advance(bench.lease)  # a release may try on while its claim lives
    await bench.harness.cut(bench.place)
    try:
        told = await _all_at_once(writes | {name: read for name, (read, _) in reads.items()})
        said = sorted(writes.keys() & told.keys())
        assert not said, f"{said} did not raise BackendUnavailable"
        for name, found in told.items():
            truth = reads[name][1]
            assert found == truth, f"{name} neither raised BackendUnavailable nor told the truth"
    finally:
        await bench.harness.heal(bench.place)
    await is_back(bench, backend)
    assert await bench.stored(backend) == job
    assert await bench.stored(backend, "held") == held
    assert await bench.history(backend) == [ended]
    assert await backend.get("other") is None
    assert (await bench.settle(backend, bench.settlement(claim))).outcome == "written"


async def _totals(bench: Bench, backend: Backend) -> tuple[int, int, int]:
    counts = await backend.counts(CountQuery(bench.clock.now() - timedelta(days=1)))
    return counts.running, counts.due, sum(counts.executions.values())


async def _all_at_once(calls: dict[str, Callable[[], Awaitable[object]]]) -> dict[str, object]:
    """Return what calls told that did not raise BackendUnavailable; each may wait for a while."""
    told: dict[str, object] = {}

    async def run(name: str) -> None:
        with contextlib.suppress(BackendUnavailable):
            told[name] = await calls[name]()

    async with anyio.create_task_group() as tasks:
        for name in calls:
            tasks.start_soon(run, name)
    return told


@law(needs=cuttable)
async def an_outage_costs_nothing_but_time(bench: Bench) -> None:
    """After an outage the same settlement, the same claim and the same job can be sent again."""
    backend = await bench.open()
    await bench.added(backend, bench.job())
    claim = await bench.claim(backend)
    new = bench.job("new")
    await bench.harness.cut(bench.place)
    try:
        await _all_at_once(
            {
                "add": functools.partial(backend.add, [new]),
                "settle": functools.partial(backend.settle, [bench.settlement(claim)]),
            }
        )
    finally:
        await bench.harness.heal(bench.place)
    await is_back(bench, backend)
    assert (await bench.settle(backend, bench.settlement(claim))).outcome == "written"
    assert len(await bench.history(backend)) == 1
    (added,) = await backend.add([new])
    assert (await bench.claim(backend)).job == added


@law(needs=cuttable)
async def a_wait_outlives_an_outage(bench: Bench) -> None:
    """A wait in an outage raises BackendUnavailable, or ends by the longest poll after it."""
    await expect_wait_to_outlive(bench, _out_of_reach(bench))


@asynccontextmanager
async def _out_of_reach(bench: Bench) -> AsyncIterator[None]:
    await bench.harness.cut(bench.place)
    try:
        yield
    finally:
        await bench.harness.heal(bench.place)


async def expect_wait_to_outlive(
    bench: Bench, trouble: contextlib.AbstractAsyncContextManager[None]
) -> None:
    """Expect that a wait ends which was under way when the store got into trouble."""
    backend, other = await bench.open(), await bench.open()
    later = bench.clock.now() + timedelta(days=1)
    await bench.added(backend, bench.job("later", due=later))
    ended = anyio.Event()

    async def wait() -> None:
        with contextlib.suppress(BackendUnavailable):
            await backend.wait_due(Room(10))
        ended.set()

    with anyio.move_on_after(bench.harness.patience) as scope:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(wait)
            await pause(0.05)
            async with trouble:
                await pause(0.05)
            await is_back(bench, other)
            await bench.added(other, bench.job())
            await is_back(bench, backend)
            while not ended.is_set():
                await bench.advance(MAX_POLL)
                await pause(0.02)
    assert not scope.cancelled_caught, "the wait did not return after it"
    assert "job" in {claim.job.id for claim in await bench.due(backend, 10)}


@law(needs=cuttable)
async def an_outage_can_be_opened_through(bench: Bench) -> None:
    """Open raises BackendUnavailable in an outage, or waits; then it opens, tried again or not."""
    await bench.added(await bench.open(), bench.job())
    late = bench.harness.backend(bench.place)
    failed: list[Exception] = []
    opened = anyio.Event()

    async def opens() -> None:
        try:
            await late.open(bench.clock, worker="late")
        except SchedError as error:
            failed.append(error)
        opened.set()

    with anyio.move_on_after(bench.harness.patience) as scope:
        async with anyio.create_task_group() as tasks:
            await bench.harness.cut(bench.place)
            try:
                tasks.start_soon(opens)
                with anyio.move_on_after(min(0.3, bench.harness.patience / 5)):
                    await opened.wait()
            finally:
                await bench.harness.heal(bench.place)
    assert not scope.cancelled_caught, "open did not return after the outage"
    for error in failed:
        assert isinstance(error, BackendUnavailable), f"open raised {error!r}"
        await late.open(bench.clock, worker="late")
    bench.backends.append(late)
    await is_back(bench, late)
    assert (await bench.claim(late)).worker == "late"


@law(needs=spoilable)
async def an_unreadable_record_is_shown(bench: Bench) -> None:
    """What cannot be read is listed and returned with id, reason, format and bytes."""
    backend = await bench.open()
    await bench.added(backend, *(bench.job(name) for name in ("a", "spoiled", "z")))
    await bench.harness.spoil(bench.place, "spoiled")
    shown = await backend.get("spoiled")
    assert isinstance(shown, Undecodable), f"expected an Undecodable, got {shown!r}"
    assert (shown.id, bool(shown.reason)) == ("spoiled", True)
    assert isinstance(shown.record, bytes)
    assert [job.id for job in await bench.jobs(backend, limit=1)] == ["a", "spoiled", "z"]
    filters: tuple[dict[str, Any], ...] = (
        {"state": State.PAUSED},
        {"group": "another"},
        {"metadata": {"another": "entry"}},
        {"state": State.PAUSED, "group": "another", "metadata": {"k": ""}, "id_prefix": "sp"},
    )
    for query in filters:
        assert await bench.jobs(backend, **query) == [shown], f"{query} hid it"
    assert not await bench.jobs(backend, id_prefix="b")


@law(needs=spoilable)
async def an_unreadable_record_is_left_alone(bench: Bench) -> None:
    """What cannot be read is never claimed, rewritten or deleted, and its id stays taken."""
    backend = await bench.open()
    job = bench.job("spoiled")
    expiring = evolve(job.standing, expires_at=bench.clock.now() + timedelta(days=1))
    (job,) = await bench.added(backend, evolve(job, standing=expiring))
    await bench.harness.spoil(bench.place, "spoiled")
    shown = await backend.get("spoiled")
    refusals: list[tuple[Callable[[], Awaitable[object]], type[Exception]]] = [
        (lambda: backend.replace(job), JobUndecodable),
        (lambda: backend.remove(job), JobUndecodable),
        (lambda: backend.add([bench.job("spoiled")]), JobAlreadyExists),
    ]
    for call, error in refusals:
        try:
            await call()
        except error:
            continue
        raise AssertionError(f"a write to an unreadable record did not raise {error.__name__}")
    assert not await bench.due(backend, 10)
    await bench.advance(days=4000)
    assert not await bench.due(backend, 10)
    assert await backend.prune(bench.clock.now()) == 0
    assert await backend.get("spoiled") == shown


@law(needs=spoilable)
async def an_unreadable_record_stops_nothing_else(bench: Bench) -> None:
    """An unreadable record that is due neither blocks the others nor wakes anybody."""
    backend = await bench.open()
    now = bench.clock.now()
    await bench.added(backend, bench.job("spoiled", due=now - timedelta(days=1)), bench.job())
    await bench.harness.spoil(bench.place, "spoiled")
    (claim,) = await bench.due(backend, 1)
    assert claim.job.id == "job"
    assert (await bench.settle(backend, bench.settlement(claim))).outcome == "written"
    with anyio.move_on_after(min(0.5, bench.harness.patience / 2)) as scope:
        await backend.wait_due(Room(10))
    assert scope.cancelled_caught, "an unreadable record keeps wait_due from waiting"
