"""Records of the history that cannot be read: shown, left alone, and in no other's way."""

from __future__ import annotations

from datetime import timedelta

from sched_core import Backend, Execution, Status, UndecodableExecution
from sched_testkit._suite.bench import Bench
from sched_testkit.laws.law import law, spoilable_execution


@law(needs=spoilable_execution)
async def an_unreadable_execution_is_shown_in_its_place(bench: Bench) -> None:
    """An execution that cannot be read is listed where it lies, with reason and bytes."""
    backend = await bench.open()
    oldest, odd, newest = await _history(bench, backend)
    assert isinstance(odd, UndecodableExecution), f"expected an UndecodableExecution, got {odd!r}"
    assert odd.id, "it has no name"
    assert odd.job_id in {"", "job"}
    assert odd.reason, "it says no reason"
    assert isinstance(odd.record, bytes)
    for limit in (1, 2, 7):
        listed = await bench.records(backend, limit=limit)
        assert listed == [newest, odd, oldest], f"pages of {limit} are not complete"
    assert await bench.records(backend, job_id="job") == [newest, odd, oldest]
    missed = await bench.records(backend, statuses=frozenset({Status.MISSED}))
    assert missed == [odd], "a filter by status hid it, or hid no other"
    assert await bench.records(backend, final=False) == [odd], "a filter hid it, or hid no other"
    later = bench.clock.now() + timedelta(days=1)
    assert (odd in await bench.records(backend, since=later)) is (odd.finished_at is None)
    assert (odd in await bench.records(backend, job_id="other")) is (not odd.job_id)


@law(needs=spoilable_execution)
async def an_unreadable_execution_stops_nothing_else(bench: Bench) -> None:
    """Claims, settlements and takeovers continue and write next to an unreadable execution."""
    backend, other = await bench.open(), await bench.open()
    await _history(bench, backend)
    claim = await bench.claim(backend)
    due = await bench.advance(minutes=1)
    settlement = bench.settlement(claim, due=due)
    assert (await bench.settle(backend, settlement)).outcome == "written"
    await bench.claim(backend)
    taken = await bench.take_over(other)
    assert bench.pending(taken).attempts == 1, "the lost attempt is not counted"
    assert (await bench.settle(other, settlement)).outcome == "written", "a repeat is not known"
    assert (await bench.settle(other, bench.settlement(taken))).outcome == "written"
    await bench.added(backend, bench.job("another", due=None))
    await bench.remove(backend, "another")
    executions = [
        execution for execution in await bench.records(other) if isinstance(execution, Execution)
    ]
    assert bench.summary(executions) == [
        (1, 1, "succeeded"),
        (3, 1, "succeeded"),
        (4, 1, "succeeded"),
        (5, 1, "abandoned"),
        (5, 2, "succeeded"),
    ]


@law(needs=spoilable_execution)
async def an_unreadable_execution_is_pruned_by_its_age(bench: Bench) -> None:
    """Prune deletes an unreadable execution by its age if that can be read, or leaves it alone."""
    backend = await bench.open()
    _, odd, _ = await _history(bench, backend)
    assert isinstance(odd, UndecodableExecution)
    assert await backend.prune(bench.clock.now() - timedelta(days=1)) == 0
    assert len(await bench.records(backend)) == 3
    await bench.advance(days=4000)
    aged = odd.finished_at is not None
    assert await backend.prune(bench.clock.now()) == 2 + aged
    assert await bench.records(backend) == ([] if aged else [odd])


@law(needs=spoilable_execution)
async def a_settlement_whose_execution_cannot_be_read_is_written_once(bench: Bench) -> None:
    """A settlement that is sent again when its execution cannot be read writes no other one."""
    backend, other = await bench.open(), await bench.open()
    await bench.added(backend, bench.job())
    claim = await bench.claim(backend)
    settlement = bench.settlement(claim)
    assert (await bench.settle(backend, settlement)).outcome == "written"
    await bench.harness.spoil_execution(bench.place, "job")
    (odd,) = await bench.records(other)
    for again in (backend, other):
        outcome = (await bench.settle(again, settlement)).outcome
        assert outcome in {"written", "claim_lost"}, f"it is said to be {outcome}"
    assert await bench.records(other) == [odd], (
        "the execution was written again, next to the other one"
    )


async def _history(bench: Bench, backend: Backend) -> list[Execution | UndecodableExecution]:
    """Run a job three times, and spoil what the second wrote; return the history, oldest first."""
    await bench.added(backend, bench.job())
    for number in (1, 2, 3):
        if number == 3:
            await bench.harness.spoil_execution(bench.place, "job")
        claim = await bench.claim(backend)
        due = await bench.advance(minutes=1)
        assert (await bench.settle(backend, bench.settlement(claim, due=due))).outcome == "written"
    found = await bench.records(backend)
    assert len(found) == 3, f"expected three executions, of which one was spoiled, got {found!r}"
    return found[::-1]
