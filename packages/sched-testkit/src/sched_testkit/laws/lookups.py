"""Single executions by their ids, and the newest ones of many jobs."""

from __future__ import annotations

from datetime import timedelta

from attrs import evolve

from sched_core import Backend, Claim, Execution, Progress, Status, UndecodableExecution
from sched_testkit._suite.bench import SECOND, Bench
from sched_testkit.laws.law import law, spoilable_execution
from sched_testkit.laws.queues import add_all


async def ran(bench: Bench, backend: Backend, job_id: str = "job", times: int = 1) -> None:
    """Add a job if it is not there, and let it run some times; each run is its own occurrence."""
    if await backend.get(job_id) is None:
        await bench.added(backend, bench.job(job_id))
    for turn in range(times):
        (claim,) = await bench.due(backend)
        assert claim.job.id == job_id
        due = bench.clock.now() if turn + 1 < times else None
        assert (await bench.settle(backend, bench.settlement(claim, due=due))).outcome == "written"


@law
async def an_execution_is_found_by_its_id(bench: Bench) -> None:
    """Each execution is returned by its id, from every backend, and None for any other text."""
    one, two = await bench.open(), await bench.open()
    assert await bench.found(one, "uid000000001:1:1") is None
    await ran(bench, one, "a", 12)
    await ran(bench, two, "b", 2)
    await bench.remove(two, "b")
    await ran(bench, one, "b")
    history = await bench.history(one)
    assert len({execution.id for execution in history}) == 15
    for execution in bench.some(history):
        for backend in (one, two):
            assert await bench.found(backend, execution.id) == execution, f"by {execution.id!r}"
    sample = history[0].id
    strange = (sample[:-1], f"{sample}0", f" {sample}", sample.upper(), "%", "", "a", "\0", "é:1:1")
    for text in strange:
        assert await bench.found(two, text) is None, f"{text!r} has found an execution"


@law
async def what_is_found_is_as_it_was_written(bench: Bench) -> None:
    """An execution has every field by its id, among the recent ones and in the history."""
    backend = await bench.open()
    now = bench.clock.now()
    await bench.added(backend, bench.job(queue="bulk"))
    claim = await bench.claim(backend)
    failed = bench.execution(
        claim,
        Status.FAILED,
        final=False,
        reason="LookupError: no",
        queue="bulk",
        traceback='  File "päge.py", line 3, in run\n    raise LookupError("no")\n' * 200,
        log="line 1\n\u2028line 2\U0001f600\r\n" * 500,
        progress=Progress(1.5, 3, "half", now),
        metadata={"tenant": "7", "": "\0", "ü": "ñ" * 300},
    )
    empty = bench.execution(claim, id=f"{claim.job.uid}:9:1", number=9, queue="*q")
    empty = evolve(empty, traceback="", log="", metadata={})
    await bench.settle(backend, bench.retry(claim, executions=[failed, empty]))
    assert await bench.found(backend, failed.id) == failed
    assert await bench.found(backend, empty.id) == empty
    assert await bench.history(backend) == [empty, failed]
    found = await backend.recent(["job"], limit=9)
    assert list(found["job"]) == [empty, failed]
    followed, _ = await bench.followed(backend, "")
    assert followed == [failed, empty]


@law
async def what_was_deleted_is_not_found(bench: Bench) -> None:
    """An execution that prune has deleted is found no more, by its id or among the recent ones."""
    one, two = await bench.open(), await bench.open()
    await ran(bench, one, "a", 2)
    old = await bench.history(one)
    await bench.advance(timedelta(hours=1))
    await ran(bench, one, "b")
    assert await two.prune(bench.clock.now()) == 2
    for execution in old:
        assert await bench.found(one, execution.id) is None, "what was deleted is found"
    found = await one.recent(["a", "b"], limit=9)
    assert {key: len(executions) for key, executions in found.items()} == {"b": 1}


@law(needs=spoilable_execution)
async def an_unreadable_execution_is_found(bench: Bench) -> None:
    """An execution that cannot be read is found by the id it is listed with, and is recent."""
    backend = await bench.open()
    await ran(bench, backend, "a", 2)
    await ran(bench, backend, "b")
    await bench.harness.spoil_execution(bench.place, "a")
    records = await bench.records(backend)
    (odd,) = [record for record in records if isinstance(record, UndecodableExecution)]
    assert await bench.found(backend, odd.id) == odd
    found = await backend.recent(["a", "b"], limit=9)
    if odd.job_id:
        assert list(found["a"]) == [record for record in records if record.job_id == "a"]
    assert list(found["b"]) == [record for record in records if record.job_id == "b"]


@law
async def the_newest_of_each_job_are_told(bench: Bench) -> None:
    """Recent returns of each job that is asked for its newest executions, newest first."""
    one, two = await bench.open(), await bench.open()
    assert dict(await one.recent(["a"], limit=3)) == {}
    await ran(bench, one, "a", 3)
    await ran(bench, one, "b", 1)
    await ran(bench, two, "c", 4)
    await ran(bench, one, "d", 2)
    await bench.added(one, bench.job("never", due=None))
    await bench.remove(two, "d")
    (claim_of_a,) = await _again(bench, two, "a")
    late = bench.execution(claim_of_a, finished_at=bench.clock.now() - 3600 * SECOND)
    await bench.settle(two, bench.settlement(claim_of_a, executions=[late]))
    history = await bench.history(one)
    by_job = {
        name: [execution for execution in history if execution.job_id == name] for name in "abcd"
    }
    assert by_job["a"][0] == late, "the history is not in the order of writing"
    for limit in (1, 2, 3, 100):
        for wanted in ("abcd", "dcba", "b", "ca", "aab"):
            found = await one.recent(list(wanted), limit=limit)
            told = {name: list(executions) for name, executions in found.items()}
            expected = {name: by_job[name][:limit] for name in wanted}
            assert told == expected, f"of {wanted!r}, up to {limit}: {told}"
    found = await two.recent(["never", "nothing", "", "B", "%", "b"], limit=2)
    assert {name: list(executions) for name, executions in found.items()} == {"b": by_job["b"]}
    assert dict(await two.recent([], limit=2)) == {}


async def _again(bench: Bench, backend: Backend, job_id: str) -> list[Claim]:
    job = await bench.stored(backend, job_id)
    await backend.replace(bench.moved(job, bench.clock.now()))
    return list(await bench.due(backend))


@law
async def the_newest_of_many_jobs_are_told(bench: Bench) -> None:
    """Recent answers for as many jobs as a page shows, whatever their ids look like."""
    backend = await bench.open()
    odd = (
        "it's",
        '"q"',
        "a,b",
        "%",
        "_",
        "a b",
        "\u00e9",
        "e\u0301",
        "\U0001f600",
        "k" * 255,
        "{1}",
    )
    names = [*odd, *(f"{n:02}" for n in range(60))]
    await add_all(bench, backend, [bench.job(name) for name in names])
    claims = await bench.due(backend, len(names))
    answers = await backend.settle([bench.settlement(claim) for claim in claims])
    assert {answer.outcome for answer in answers} == {"written"}
    found = await backend.recent(names, limit=1)
    told = {name: [one.job_id for one in executions] for name, executions in found.items()}
    assert told == {name: [name] for name in names}
    assert all(isinstance(one, Execution) for some in found.values() for one in some)


@law
async def to_look_up_changes_nothing(bench: Bench) -> None:
    """Execution and recent change nothing that anyone sees, and what they return stays as it is."""
    backend = await bench.open()
    await ran(bench, backend, times=2)
    before = await bench.jobs(backend), await bench.history(backend)
    found = await backend.recent(["job"], limit=5)
    kept = list(found["job"])
    assert await bench.found(backend, kept[0].id) == kept[0]
    assert (await bench.jobs(backend), await bench.history(backend)) == before
    job = await bench.stored(backend)
    late = evolve(kept[0], id=f"{job.uid}:9:1") if isinstance(kept[0], Execution) else None
    assert late is not None
    await backend.replace(job, [late])
    assert list(found["job"]) == kept, "an answer of recent was changed by a later call"
