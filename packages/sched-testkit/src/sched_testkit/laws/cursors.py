"""Turning the pages of a listing while others write."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import anyio
from anyio.lowlevel import checkpoint
from attrs import evolve

from sched_core import Backend, BackendUnavailable, Execution, ExecutionQuery, Job, JobQuery
from sched_testkit._suite.bench import Bench, onward
from sched_testkit.laws.law import law

TURNS = 3
"""How often all pages are turned."""


@asynccontextmanager
async def meanwhile(write: Callable[[int], Awaitable[object]]) -> AsyncIterator[None]:
    """Write on and on, once for each number, until the block is left."""
    ended = False

    async def go_on() -> None:
        number = 0
        while not ended:
            try:
                await write(number)
            except BackendUnavailable:
                pass  # busy with the one that reads
            number += 1
            await checkpoint()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(go_on)
        yield
        ended = True


@law
async def pages_of_jobs_are_complete_while_others_write(bench: Bench) -> None:
    """Pages turned while others add, edit and remove show once what is there all the time."""
    backend, other = await bench.open(), await bench.open()
    names = [f"stays-{n:02}" for n in range(21)]
    jobs = dict(zip(names, await bench.added(backend, *map(bench.job, names)), strict=True))

    async def write(number: int) -> None:
        coming, name = f"stays-{number * 7 % 21:02}-comes", names[number * 5 % 21]
        await other.add([bench.job(coming, due=None)])
        for _ in range(1 + number % 2):  # others see it, at each step of their calls
            await checkpoint()
        renamed = evolve(jobs[name], spec=evolve(jobs[name].spec, name=f"edit {number}"))
        jobs[name] = await other.replace(renamed)
        await bench.remove(other, coming)

    async with meanwhile(write):
        for _ in range(TURNS):
            found = Counter(await _ids(backend))
            counts = {name: found[name] for name in names if found[name] != 1}
            assert not counts, f"of the jobs that stay these were not shown once: {counts}"


async def _ids(backend: Backend) -> list[str]:
    found: list[str] = []
    seen: set[str] = set()
    query, after = JobQuery(id_prefix="stays-"), None
    while True:
        page = await backend.jobs(query, after=after, limit=4)
        found += [job.id for job in page.items if isinstance(job, Job)]
        await checkpoint()
        after = onward(page, seen)
        if after is None:
            return found


@law
async def a_page_goes_on_in_another_instance(bench: Bench) -> None:
    """A page's next is of use in every instance: a service may turn pages in another replica."""
    one, two = await bench.open(), await bench.open()
    names = [f"stays-{n}" for n in range(7)]
    await bench.added(one, *map(bench.job, names))
    for claim in await bench.due(one, 10):
        await one.settle([bench.settlement(claim)])
    jobs = await one.jobs(JobQuery(id_prefix="stays-"), after=None, limit=3)
    rest = await two.jobs(JobQuery(id_prefix="stays-"), after=jobs.next, limit=10)
    assert sorted(job.id for job in (*jobs.items, *rest.items)) == names
    executions = await one.executions(ExecutionQuery(), after=None, limit=3)
    older = await two.executions(ExecutionQuery(), after=executions.next, limit=10)
    assert sorted(execution.job_id for execution in (*executions.items, *older.items)) == names


@law
async def pages_of_the_history_are_complete_while_others_write(bench: Bench) -> None:
    """Pages of the history turned while others settle show each execution once, none lost."""
    backend, other = await bench.open(), await bench.open()
    await bench.added(backend, bench.job())

    async def run(_: int) -> None:
        for claim in await bench.due(other, 1):
            await other.settle([bench.settlement(claim, due=bench.clock.now())])

    for number in range(13):
        await run(number)
    async with meanwhile(run):
        for _ in range(TURNS):
            numbers = await _numbers(backend)
            expected = list(range(numbers[0] if numbers else 0, 0, -1))
            assert numbers == expected, f"the history, newest first, is of the runs {numbers}"
            assert len(numbers) >= 13, f"of 13 executions and more only {numbers} are listed"


async def _numbers(backend: Backend) -> list[int]:
    found: list[int] = []
    seen: set[str] = set()
    after: str | None = None
    while True:
        page = await backend.executions(ExecutionQuery(), after=after, limit=4)
        found += [execution.number for execution in page.items if isinstance(execution, Execution)]
        await checkpoint()
        after = onward(page, seen)
        if after is None:
            return found
