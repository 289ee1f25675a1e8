"""Listings: pages, filters and order of jobs and of the history."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

from attrs import evolve

from sched_core import Claim, Execution, ExecutionQuery, Job, JobQuery, State, Status
from sched_testkit._stories.filters import picks, selects
from sched_testkit._suite.bench import START, Bench, onward
from sched_testkit.laws.law import law, ordered


@law
async def pages_are_complete(bench: Bench) -> None:
    """Listing through pages of any size returns every job once."""
    backend = await bench.open()
    names = {f"job-{n:03}" for n in range(23)} | {"Ä", "z", "A", "日本", "\U0001f600", "\ufffd"}
    await bench.added(backend, *(bench.job(name) for name in sorted(names)[:15]))
    await bench.added(backend, *(bench.job(name) for name in sorted(names)[15:]))
    for limit in (1, 2, 7, 29, 100):
        found = [job.id for job in await bench.jobs(backend, limit=limit)]
        assert sorted(found) == sorted(names), f"pages of {limit} are not complete"


@law(needs=ordered)
async def jobs_come_in_id_order(bench: Bench) -> None:
    """Jobs are listed in the order of their ids by code point."""
    backend = await bench.open()
    names = ["b", "a", "Z", "é", "~", "日本", "\U0001f600", "\ufffd", "aa", "a b", "1", "10", "2"]
    await bench.added(backend, *(bench.job(name) for name in names))
    assert [job.id for job in await bench.jobs(backend)] == sorted(names)


@law
async def filters_select(bench: Bench) -> None:
    """State, id prefix, group and metadata filters return exactly the jobs for which all hold."""
    backend = await bench.open()
    active = bench.job("a-1", metadata={"k": "1", "x": "y"}, group="g")
    paused = bench.job("a_2", due=None, metadata={"k": "1"}, group="g")
    finished = bench.finished(bench.job("a%3", metadata={"k": "2"}))
    await bench.added(backend, active, paused, finished, bench.job("B"))

    async def found(**query: Any) -> list[str]:
        return sorted(job.id for job in await bench.jobs(backend, **query))

    assert await found() == sorted(["a-1", "a_2", "a%3", "B"])
    assert await found(state=State.PAUSED) == ["a_2"]
    assert await found(state=State.FINISHED) == ["a%3"]
    assert await found(id_prefix="a_") == ["a_2"]
    assert await found(id_prefix="a%") == ["a%3"]
    assert await found(id_prefix="b") == []
    assert await found(group="g") == sorted(["a-1", "a_2"])
    assert await found(metadata={"k": "1"}) == sorted(["a-1", "a_2"])
    assert await found(metadata={"k": "1", "x": "y"}) == ["a-1"]
    assert await found(metadata={"k": "1"}, state=State.PAUSED) == ["a_2"]


@law
async def the_history_is_filtered(bench: Bench) -> None:
    """History filters select by job, status, finality and a half-open range of finished_at."""
    backend = await bench.open()
    start = bench.clock.now()
    for name, status in (("a", Status.SUCCEEDED), ("b", Status.FAILED), ("a2", Status.SKIPPED)):
        await bench.added(backend, bench.job(name))
        claim = await bench.claim(backend)
        execution = bench.execution(claim, status, final=status is not Status.FAILED)
        await bench.settle(backend, bench.settlement(claim, executions=[execution]))
        await bench.advance(minutes=1)

    async def found(**query: Any) -> list[str]:
        return sorted(execution.job_id for execution in await bench.history(backend, **query))

    minute = timedelta(minutes=1)
    assert await found(job_id="a") == ["a"]
    assert await found(statuses=frozenset({Status.FAILED, Status.SKIPPED})) == ["a2", "b"]
    assert await found(final=False) == ["b"]
    assert await found(final=True) == ["a", "a2"]
    assert await found(since=start + minute) == ["a2", "b"]
    assert await found(until=start + minute) == ["a"]
    assert await found(since=start + minute, until=start + 2 * minute) == ["b"]
    assert await found(job_id="b", final=True) == []
    assert await found(job_id="a", statuses=frozenset({Status.FAILED})) == []
    assert await found(job_id="unknown") == []


@law
async def the_history_comes_newest_first(bench: Bench) -> None:
    """The executions of a job are listed newest first, through pages, each of them once."""
    backend = await bench.open()
    await bench.added(backend, bench.job())
    for _ in range(8):
        claim = await bench.claim(backend)
        await bench.settle(backend, bench.settlement(claim, due=bench.clock.now()))
    numbers = [execution.number for execution in await bench.history(backend, job_id="job")]
    assert numbers == [8, 7, 6, 5, 4, 3, 2, 1]


@law(needs=ordered)
async def the_whole_history_comes_newest_first(bench: Bench) -> None:
    """Across jobs, too, executions are listed in the reverse order of their writing."""
    backend = await bench.open()
    written = []
    for name in ("c", "a", "b", "a0"):
        await bench.added(backend, bench.job(name))
        claim = await bench.claim(backend)
        await bench.settle(backend, bench.settlement(claim))
        written.append(name)
    assert [execution.job_id for execution in await bench.history(backend)] == written[::-1]


@law
async def pages_of_jobs_are_stable(bench: Bench) -> None:
    """What is there all along is listed once, whatever is added or removed between two pages."""
    backend = await bench.open()
    names = [f"job-{n:02}" for n in range(12)]
    await bench.added(backend, *(bench.job(name) for name in names))
    page = await backend.jobs(JobQuery(), after=None, limit=4)
    found = [job.id for job in bench.apart(page.items)]
    gone = {found[0], found[-1]}
    for name in gone:
        await bench.remove(backend, name)
    new = {"a-new", "job-05-new", "z-new"}
    await bench.added(backend, *(bench.job(name) for name in sorted(new)))
    seen: set[str] = set()
    while (after := onward(page, seen)) is not None:
        page = await backend.jobs(JobQuery(), after=after, limit=4)
        found += [job.id for job in bench.apart(page.items)]
    assert sorted(set(found) - gone - new) == sorted(set(names) - gone), "a job was left out"
    assert len(found) == len(set(found)), "a job was listed twice"


@law
async def pages_of_the_history_are_stable(bench: Bench) -> None:
    """Executions are listed once, whatever is written or pruned between two pages."""
    backend = await bench.open()
    await bench.added(backend, bench.job())

    async def run() -> None:
        claim = await bench.claim(backend)
        due = await bench.advance(minutes=1)
        await bench.settle(backend, bench.settlement(claim, due=due))

    for _ in range(9):
        await run()
    page = await backend.executions(ExecutionQuery(), after=None, limit=4)
    found = [execution.number for execution in page.items if isinstance(execution, Execution)]
    await run()
    await run()
    await backend.prune(START + timedelta(minutes=2))
    seen: set[str] = set()
    while (after := onward(page, seen)) is not None:
        page = await backend.executions(ExecutionQuery(), after=after, limit=4)
        found += [execution.number for execution in page.items if isinstance(execution, Execution)]
    assert found == [9, 8, 7, 6, 5, 4, 3, 2]


@law
async def listings_show_what_was_written_elsewhere(bench: Bench) -> None:
    """A listing shows every job and execution that another instance wrote before it."""
    one, other = await bench.open(), await bench.open()
    assert await bench.jobs(other) == []
    (job,) = await bench.added(one, bench.job("a"))
    assert await bench.jobs(other) == [job]
    claim = await bench.claim(one)
    await bench.settle(one, bench.settlement(claim))
    assert [execution.id for execution in await bench.history(other)] == [bench.execution(claim).id]
    stored = await bench.stored(one, "a")
    assert await bench.jobs(other) == [stored]
    await bench.remove(one, "a")
    assert await bench.jobs(other) == []


@law
async def the_history_is_listed_by_writing_and_selected_by_its_end(bench: Bench) -> None:
    """Executions are listed in the order of writing and selected by finished_at alone."""
    backend = await bench.open()
    start, minute = bench.clock.now(), timedelta(minutes=1)
    await bench.added(backend, bench.job())
    for minutes in (3, 1, 2):  # when the attempt ends; all of them are claimed at the start
        claim = await bench.claim(backend)
        execution = bench.execution(
            claim, scheduled_at=start - minute, finished_at=start + minutes * minute
        )
        await bench.settle(backend, bench.settlement(claim, due=start, executions=[execution]))

    async def found(**query: Any) -> list[int]:
        return [execution.number for execution in await bench.history(backend, **query)]

    assert await found() == [3, 2, 1], "executions are not listed in the reverse order of writing"
    assert await found(since=start + 2 * minute) == [3, 1]
    assert await found(until=start + 2 * minute) == [2]
    assert await found(since=start + minute, until=start + 3 * minute) == [3, 2]
    assert await found(until=start + minute / 2) == [], "selected by another moment than its end"
    assert await found(since=start + minute / 2) == [3, 2, 1]
    claim = await bench.claim(backend)
    executions = [
        bench.execution(
            claim, Status.MISSED, number=n, attempt=0, id=f"{claim.job.uid}:{n}:0", finished_at=end
        )
        for n, end in ((9, start + 9 * minute), (7, start), (8, start + minute))
    ]
    await backend.replace(await bench.stored(backend), executions)
    assert await found() == [8, 7, 9, 3, 2, 1], "those of one call are not in the order given"


@law
async def executions_of_a_job_are_listed_in_the_order_of_writing(bench: Bench) -> None:
    """What was written last comes first, of one job, too, whatever its occurrence and attempt."""
    backend = await bench.open()
    (job,) = await bench.added(backend, bench.job(due=None))
    now = bench.clock.now()
    for number, attempt in ((9, 1), (5, 2), (7, 1), (5, 1)):
        execution = bench.execution(
            Claim(job, 1, "worker-1", now, now), Status.FAILED, attempt=attempt
        )
        written = evolve(execution, number=number, final=False, id=f"{job.uid}:{number}:{attempt}")
        job = await backend.replace(job, [written])
    for query in ({}, {"job_id": "job"}, {"final": False}):
        found = [
            (execution.number, execution.attempt)
            for execution in await bench.history(backend, **query)
        ]
        assert found == [(5, 1), (7, 1), (5, 2), (9, 1)], f"by {query} they come as {found}"


@law
async def a_full_last_page_has_no_next(bench: Bench) -> None:
    """The page with the last item has no next, also where it is full, and so has an empty one."""
    backend = await bench.open()
    query, history = JobQuery(group="paged"), ExecutionQuery()
    for listing in (
        backend.jobs(query, after=None, limit=2),
        backend.executions(history, after=None, limit=2),
    ):
        page = await listing
        assert (list(page.items), page.next) == ([], None)
    ids = ("-", "0", "1", "2", "3", "4")
    groups = (None, "paged", "paged", "paged", "paged", "other")
    jobs = [bench.job(each, group=group) for each, group in zip(ids, groups, strict=True)]
    await bench.added(backend, *jobs)
    for claim in await bench.due(backend, 10):
        await bench.settle(backend, bench.settlement(claim))
    page = await backend.jobs(query, after=None, limit=2)
    assert page.next is not None
    page = await backend.jobs(query, after=page.next, limit=2)
    assert (len(page.items), page.next) == (2, None), "a full last page promises another one"
    executions = await backend.executions(history, after=None, limit=5)
    assert executions.next is not None
    executions = await backend.executions(history, after=executions.next, limit=1)
    assert (len(executions.items), executions.next) == (1, None), (
        "a full last page promises another one"
    )
    for each in ids:  # older and newer ones do not match
        executions = await backend.executions(ExecutionQuery(job_id=each), after=None, limit=1)
        found = (len(executions.items), executions.next)
        assert found == (1, None), "it promises what does not match"


def _together(single: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Yield every two filters; and three and more of different kinds, the first one of each."""
    for one, other in itertools.combinations(single, 2):
        yield one | other
    kinds: dict[str, list[dict[str, Any]]] = {}
    for query in single:
        kinds.setdefault(next(iter(query)), []).append(query)
    for count in range(3, len(kinds) + 1):
        for some in itertools.combinations(kinds.values(), count):
            yield {key: value for kind in some for key, value in kind[0].items()}


@law
async def filters_of_jobs_hold_together(bench: Bench) -> None:
    """Filters of jobs select what all of them select, be they two, three or four."""
    backend = await bench.open()
    jobs: list[Job] = []
    for number, (state, prefix, group, kind) in enumerate(
        itertools.product(State, ("a%", "a_", "b"), ("g", "G", None), ("1", "2"))
    ):
        due = bench.clock.now() if state is State.ACTIVE else None
        said: dict[str | None, dict[str, str]] = {"g": {"e": ""}, "G": {"e": "\0x"}, None: {}}
        metadata = {"kind": kind, "x": prefix} | said[group]
        job = bench.job(f"{prefix}{number:02}", due=due, group=group, metadata=metadata)
        jobs.append(bench.finished(job) if state is State.FINISHED else job)
    limit = backend.capabilities.bulk_limit or len(jobs)
    for start in range(0, len(jobs), limit):
        await bench.added(backend, *jobs[start : start + limit])
    single: list[dict[str, Any]] = [
        *({"state": state} for state in State),
        *({"id_prefix": prefix} for prefix in ("a", "a%", "a_", "A")),
        *({"group": group} for group in ("g", "G", "g ", "")),
        *({"metadata": wanted} for wanted in ({"kind": "1"}, {"kind": "2", "x": "b"}, {"y": "1"})),
        {"metadata": {"e": ""}},  # not the same as none, nor as what begins with a NUL
    ]
    for query in bench.some(_together(single)):
        limit = 20 if len(query) < 3 else 1  # a later page is as the first one
        found = [job.id for job in await bench.jobs(backend, limit=limit, **query)]
        expected = [job.id for job in jobs if selects(JobQuery(**query), job)]
        assert sorted(found) == sorted(expected), f"by {query} got {found}"


@law
async def filters_of_the_history_hold_together(bench: Bench) -> None:
    """Filters of the history select what all of them select, be they two or five."""
    backend = await bench.open()
    tick = bench.tick
    start = bench.clock.now()
    stored = await bench.added(backend, bench.job("a", due=None), bench.job("A", due=None))
    executions: list[Execution] = []
    kinds = itertools.product(
        (Status.SUCCEEDED, Status.FAILED, Status.MISSED), (True, False), range(3)
    )
    for number, (status, final, ticks) in enumerate(kinds, 10):
        for place, job in enumerate(stored):
            claim = Claim(job, 1, "worker-1", start, start)
            execution = bench.execution(
                claim, status, final=final, finished_at=start + ticks * tick
            )
            execution = evolve(execution, number=number, id=f"{job.uid}:{number}:1")
            stored[place] = await backend.replace(job, [execution])
            executions.append(execution)
    single: list[dict[str, Any]] = [
        *({"job_id": name} for name in ("a", "A", "b", "")),
        *({"final": final} for final in (True, False)),
        *({"statuses": frozenset(some)} for some in ({Status.FAILED}, {Status.MISSED}, ())),
        {"statuses": frozenset({Status.SUCCEEDED, Status.FAILED})},
        *({"since": start + ticks * tick} for ticks in (1, 0, 2, 3)),
        *({"until": start + ticks * tick} for ticks in (2, 3, 1, 0)),
    ]
    for query in bench.some(_together(single)):
        limit = 20 if len(query) < 3 else 1  # a later page is as the first one
        found = [execution.id for execution in await bench.records(backend, limit, **query)]
        expected = [
            execution.id for execution in executions if picks(ExecutionQuery(**query), execution)
        ]
        assert sorted(found) == sorted(expected), f"by {query} got {found}"


@law
async def pages_go_on_where_the_last_one_was_deleted(bench: Bench) -> None:
    """A page goes on after the last one, also when everything that was on that one is deleted."""
    backend = await bench.open()
    names = [f"job-{n}" for n in range(9)]
    await bench.added(backend, *(bench.job(name) for name in names))
    for claim in await bench.due(backend, 10):
        await bench.settle(backend, bench.settlement(claim, executions=[bench.execution(claim)]))
        await bench.advance(minutes=1)
    listed = await bench.records(backend)
    first = await backend.executions(ExecutionQuery(), after=None, limit=4)
    assert list(first.items) == listed[:4]
    await bench.advance(days=1)
    page = await backend.jobs(JobQuery(id_prefix="job-"), after=None, limit=4)
    shown = {job.id for job in page.items}
    for name in shown:
        await bench.remove(backend, name)
    rest: list[str] = []
    seen: set[str] = set()
    while (after := onward(page, seen)) is not None:
        page = await backend.jobs(JobQuery(id_prefix="job-"), after=after, limit=4)
        rest += [job.id for job in page.items]
    assert sorted(rest) == sorted(set(names) - shown), "jobs were left out, or listed again"
    assert await backend.prune(bench.clock.now()) == 9
    second = await backend.executions(ExecutionQuery(), after=first.next, limit=4)
    assert not list(second.items), "what was pruned is listed"
    (job,) = await bench.added(backend, bench.job("new"))
    await bench.settle(backend, bench.settlement(await bench.claim(backend)))
    third = await backend.executions(ExecutionQuery(), after=first.next, limit=4)
    assert not list(third.items), f"an execution that is newer than the page before: {job.id}"
    assert len(await bench.records(backend)) == 1


@law
async def the_history_goes_on_where_executions_have_expired(bench: Bench) -> None:
    """A page goes on with older executions, also when all on the page before have expired."""
    backend = await bench.open()
    now = bench.clock.now()
    await bench.added(backend, *(bench.job(f"job-{n}") for n in range(7)))
    for number, claim in enumerate(await bench.due(backend)):
        soon = timedelta(hours=1) if number > 3 else timedelta(days=30)
        execution = bench.execution(claim, expires_at=now + soon)
        await bench.settle(backend, bench.settlement(claim, executions=[execution]))
    listed = await bench.records(backend)
    first = await backend.executions(ExecutionQuery(), after=None, limit=3)
    assert list(first.items) == listed[:3]
    await bench.advance(days=1)
    assert await backend.prune(now - timedelta(days=1)) == 3
    second = await backend.executions(ExecutionQuery(), after=first.next, limit=9)
    assert list(second.items) == listed[3:], "older executions were left out, or listed again"
    assert second.next is None
