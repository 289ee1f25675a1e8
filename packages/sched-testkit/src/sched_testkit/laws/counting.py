"""How many jobs, claims and executions there are: what `counts` tells."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Literal

from attrs import evolve

from sched_core import (
    Backend,
    Claim,
    CountQuery,
    Counts,
    Job,
    Kind,
    Pause,
    Pending,
    QueueCounts,
    Room,
    State,
    Status,
)
from sched_testkit._suite.bench import SECOND, Bench
from sched_testkit.laws.law import granular, law, spoilable, spoilable_execution
from sched_testkit.laws.queues import add_all, queued

MINUTE = timedelta(minutes=1)
HOUR = timedelta(hours=1)


async def counted(bench: Bench, backend: Backend, **query: Any) -> Counts:
    """Count; leave out the neighbours, and what is not there."""
    asked = CountQuery(**({"since": bench.clock.now() - 9 * HOUR} | query))
    counts = await backend.counts(asked)
    assert counts.complete, "a store with some jobs says that it could not count all of them"
    assert counts.as_of == bench.clock.now(), f"counted as of {counts.as_of}"
    others = Counter(job.standing.state for job in bench.neighbours.values())
    left = {state: counts.jobs.get(state, 0) - others[state] for state in State}
    return evolve(
        counts,
        jobs={state: number for state, number in left.items() if number},
        executions={status: number for status, number in counts.executions.items() if number},
    )


def work(counts: Counts) -> tuple[int, int, int, datetime | None]:
    """Return how much is running, due and overdue, and since when."""
    return counts.running, counts.due, counts.overdue, counts.oldest_due


@law
async def jobs_are_counted_by_state(bench: Bench) -> None:
    """Counts has the number of jobs in each state, claimed ones too, and of none that is gone."""
    one, two = await bench.open(), await bench.open()
    empty = await one.counts(CountQuery(bench.clock.now()))
    assert (empty.running, empty.due, empty.undecodable) == (0, 0, 0)
    assert sum(empty.jobs.values()) == 0, f"of an empty store {empty.jobs} were counted"
    far = bench.clock.now() + timedelta(days=1)
    active = [bench.job(f"active {n}", due=far) for n in range(4)]
    paused = [bench.job(f"paused {n}", due=None) for n in range(2)]
    done = [bench.finished(bench.job(f"finished {n}")) for n in range(3)]
    asked = bench.asked(bench.finished(bench.job("asked")), bench.request(2, far))
    jobs = await add_all(bench, one, [*active, *paused, *done, asked])
    expected = {State.ACTIVE: 5, State.PAUSED: 2, State.FINISHED: 3}
    for backend in (one, two):
        assert (await counted(bench, backend)).jobs == expected
    await two.remove(jobs[0])
    await two.replace(bench.put_off(jobs[4], bench.clock.now()))
    claim = await bench.claim(one)
    expected = {State.ACTIVE: 5, State.PAUSED: 1, State.FINISHED: 3}
    assert (await counted(bench, two)).jobs == expected
    await bench.settle(one, bench.settlement(claim))
    expected = {State.ACTIVE: 4, State.PAUSED: 1, State.FINISHED: 4}
    assert (await counted(bench, two)).jobs == expected


@law
async def the_schedulers_own_records_are_not_counted(bench: Bench) -> None:
    """A record whose id begins with `sched:` is no job to counts, before it changes and after."""
    one, two = await bench.open(), await bench.open()
    own = bench.finished(bench.job("sched:record"))
    (stored,) = await one.add([own])
    await bench.added(two, bench.finished(bench.job("finished")))
    for backend in (one, two):
        assert (await counted(bench, backend)).jobs == {State.FINISHED: 1}
    stored = await two.replace(evolve(stored, spec=evolve(stored.spec, metadata={"a": "b"})))
    assert (await counted(bench, one)).jobs == {State.FINISHED: 1}
    await one.remove(stored)
    assert (await counted(bench, two)).jobs == {State.FINISHED: 1}


@law
async def due_is_what_no_claim_has(bench: Bench) -> None:
    """A job is due from its moment on, unless it is claimed; paused and finished ones are not."""
    one, two = await bench.open(), await bench.open()
    now = bench.clock.now()
    ago = [now - 3 * MINUTE, now - MINUTE, now - granular(one), now]
    jobs = [bench.job(f"due {n}", due=moment) for n, moment in enumerate(ago)]
    jobs.append(bench.job("future", due=now + granular(one)))
    jobs += [bench.job("paused", due=None), bench.finished(bench.job("finished"))]
    await add_all(bench, one, jobs)
    assert work(await counted(bench, two)) == (0, 4, 1, ago[0])
    (claim,) = await bench.due(one, 1)
    assert claim.job.id == "due 0"
    assert work(await counted(bench, two)) == (1, 3, 0, ago[1])
    await bench.advance(granular(one))
    assert work(await counted(bench, two)) == (1, 4, 1, ago[1])
    await bench.settle(one, bench.settlement(claim))
    assert work(await counted(bench, two)) == (0, 4, 1, ago[1])
    claims = await bench.due(two)
    assert work(await counted(bench, one)) == (4, 0, 0, None)
    await two.release(claims)
    assert work(await counted(bench, one)) == (0, 4, 1, ago[1])


@law
async def requests_make_a_paused_job_due(bench: Bench) -> None:
    """What is due is told by due_at alone: a request of a paused job counts, too."""
    backend = await bench.open()
    now = bench.clock.now()
    paused = bench.job(due=None, queue="q")
    asked = bench.asked(paused, bench.request(2, now - 5 * SECOND, kind=Kind.TRIGGERED))
    (stored,) = await bench.added(backend, asked)
    assert stored.standing.due_at == now - 5 * SECOND
    counts = await counted(bench, backend)
    assert counts.jobs == {State.PAUSED: 1}
    assert work(counts) == (0, 1, 0, now - 5 * SECOND)
    assert _queues(counts) == {"q": QueueCounts(1, 0, now - 5 * SECOND)}


@law
async def overdue_is_longer_than_was_asked(bench: Bench) -> None:
    """A job is overdue once it is due for longer than the query says, not when it is just that."""
    backend = await bench.open()
    now = bench.clock.now()
    tick = granular(backend)
    ages = (timedelta(0), tick, 10 * SECOND, 10 * SECOND + tick, HOUR)
    await add_all(bench, backend, [bench.job(f"{n}", due=now - age) for n, age in enumerate(ages)])
    bounds = {timedelta(0): 4, 10 * SECOND: 2, 10 * SECOND - tick: 3, HOUR: 0, HOUR - tick: 1}
    for bound, expected in bounds.items():
        counts = await counted(bench, backend, overdue=bound)
        assert (counts.due, counts.overdue) == (5, expected), f"overdue after {bound}"


@law
async def a_claim_that_was_not_ended_is_running(bench: Bench) -> None:
    """Claims past their lease and of removed jobs run until a call ends them, and are not due."""
    one, two = await bench.open(), await bench.open()
    await bench.added(one, queued(bench, "job", "a"), queued(bench, "gone", "b"))
    await bench.due(one)
    await bench.remove(two, "gone")
    (new,) = await bench.added(two, queued(bench, "gone", "c"))
    for _ in range(2):
        counts = await counted(bench, two)
        assert work(counts) == (2, 0, 0, None)
        assert {name: each.running for name, each in counts.queues.items()} == {"a": 1, "b": 1}
        assert counts.jobs == {State.ACTIVE: 2}
        await bench.advance(bench.lease)
    claimed = await two.claim_due(Room(0))
    assert len(claimed.lapsed) == 3
    counts = await counted(bench, two)
    assert (counts.running, counts.due) == (0, 1), "what was lost waits before it is due"
    assert counts.oldest_due == new.standing.due_at
    await bench.advance(2 * SECOND)
    counts = await counted(bench, two)
    assert (counts.running, counts.due) == (0, 2)


@law
async def queues_are_counted_apart(bench: Bench) -> None:
    """Counts names each queue with due or running jobs, how many, and since when the oldest is."""
    one, two = await bench.open(), await bench.open()
    jobs = [queued(bench, f"a{n}", "a", n) for n in range(1, 4)]
    jobs += [queued(bench, "b1", "b", 7), queued(bench, "d1", "default", 2)]
    jobs += [queued(bench, "B1", "B", 1), bench.job("idle", due=None, queue="idle")]
    jobs += [bench.job("later", due=bench.clock.now() + HOUR, queue="later")]
    await add_all(bench, one, jobs)
    now = bench.clock.now()
    expected = {
        "a": QueueCounts(3, 0, now - 3 * SECOND),
        "b": QueueCounts(1, 0, now - 7 * SECOND),
        "B": QueueCounts(1, 0, now - SECOND),
        "default": QueueCounts(1, 0, now - 2 * SECOND),
    }
    counts = await counted(bench, two)
    assert _queues(counts) == expected, f"counted {counts.queues}"
    assert (counts.due, counts.oldest_due) == (6, now - 7 * SECOND)
    claims = await bench.due(one, queues={"a": 1, "b": 1})
    held = await bench.stored(two, "b1")
    await two.replace(evolve(held, spec=evolve(held.spec, queue="moved")))
    expected["a"] = QueueCounts(2, 1, now - 2 * SECOND)
    expected["b"] = QueueCounts(0, 1, None)
    counts = await counted(bench, two)
    assert _queues(counts) == expected, f"after claims and an edit, counted {counts.queues}"
    await one.release(claims)
    expected["a"] = QueueCounts(3, 0, now - 3 * SECOND)
    expected["moved"] = QueueCounts(1, 0, now - 7 * SECOND)
    del expected["b"]
    assert _queues(await counted(bench, two)) == expected


def _queues(counts: Counts) -> dict[str, QueueCounts]:
    return {name: each for name, each in counts.queues.items() if each.due or each.running}


# -- executions


ENDS: tuple[tuple[str, Status, timedelta, str | None], ...] = (
    ("a", Status.SUCCEEDED, timedelta(0), None),
    ("a", Status.FAILED, -SECOND, "KeyError: 'x'"),
    ("b", Status.FAILED, -SECOND, "KeyError: 'y': z"),
    ("b", Status.FAILED, -HOUR, "timeout"),
    ("b", Status.MISSED, -HOUR, "KeyError: no failure"),
    ("a", Status.FAILED, -2 * HOUR, None),
    ("b", Status.SUCCEEDED, -HOUR, "ok: fine"),
    ("A", Status.ABANDONED, -3 * HOUR, None),
)
"""Job, status, when it finished, and why."""


async def with_executions(bench: Bench, backend: Backend) -> list[tuple[str, Status, datetime]]:
    """Write them at a whole hour; return job, status and end."""
    hour = bench.clock.now().replace(minute=0, second=0, microsecond=0) + HOUR
    await bench.advance(hour - bench.clock.now())
    for number, (name, status, ago, reason) in enumerate(ENDS, 1):
        if await backend.get(name) is None:
            await bench.added(backend, bench.job(name, due=None))
        job = await bench.stored(backend, name)
        execution = evolve(
            bench.execution(_claim(bench, job), status, final=False),
            id=f"{job.uid}:{number}:1",
            number=number,
            finished_at=hour + ago,
            reason=reason,
        )
        await backend.replace(job, [execution])
    return [(name, status, hour + ago) for name, status, ago, _ in ENDS]


def _claim(bench: Bench, job: Job) -> Claim:
    return Claim(job, 1, "worker-0", bench.clock.now(), bench.clock.now())


def _by(rows: Sequence[tuple[Any, Status]]) -> dict[Any, dict[Status, int]]:
    groups: dict[Any, Counter[Status]] = {}
    for name, status in rows:
        groups.setdefault(name, Counter())[status] += 1
    return {name: dict(found) for name, found in groups.items()}


def _groups(groups: Mapping[str, Mapping[Status, int]]) -> dict[str, dict[Status, int]]:
    return {name: {key: n for key, n in found.items() if n} for name, found in groups.items()}


@law
async def executions_are_counted_in_a_time(bench: Bench) -> None:
    """Counts has the executions that finished at its since or later, and before its until."""
    one, two = await bench.open(), await bench.open()
    written = await with_executions(bench, one)
    now, tick = bench.clock.now(), granular(one)
    moments = [now + each for each in (timedelta(0), -SECOND, -HOUR, -2 * HOUR, tick, -tick)]
    pairs = [(since, until) for since in moments for until in (None, *moments)]
    for since, until in bench.some(pairs):
        counts = await counted(bench, two, since=since, until=until)
        expected = Counter(
            status for _, status, at in written if at >= since and (until is None or at < until)
        )
        assert counts.executions == expected, f"since {since}, until {until}: {counts.executions}"
        assert counts.groups == {}, f"not asked for, and counted: {counts.groups}"


@law
async def executions_are_counted_by_hour_and_job(bench: Bench) -> None:
    """Counts groups the executions it counts by their hour in UTC, or their job, as was asked."""
    one, two = await bench.open(), await bench.open()
    written = await with_executions(bench, one)
    now = bench.clock.now()
    for since in (now - 9 * HOUR, now - HOUR, now - SECOND):
        within = [each for each in written if each[2] >= since]
        counts = await counted(bench, two, since=since, by="hour")
        hours = [(_hour(at), status) for _, status, at in within]
        assert _groups(counts.groups) == _by(hours), f"by hour since {since}: {counts.groups}"
        counts = await counted(bench, two, since=since, by="job")
        jobs = [(name, status) for name, status, _ in within]
        assert _groups(counts.groups) == _by(jobs), f"by job since {since}: {counts.groups}"
        assert counts.executions == Counter(status for _, status, _ in within)
    await bench.remove(one, "b")
    assert "b" in (await counted(bench, one, by="job")).groups, "the history of a removed job stays"


def _hour(moment: datetime) -> str:
    return f"{moment:%Y-%m-%dT%H}:00:00+00:00"


@law
async def failures_are_counted_by_their_kind(bench: Bench) -> None:
    """Failures alone are grouped by error: by what comes before the first colon of their reason."""
    backend = await bench.open()
    written = await with_executions(bench, backend)
    counts = await counted(bench, backend, by="error")
    expected = {"KeyError": 2, "timeout": 1, "": 1}
    assert _groups(counts.groups) == {
        name: {Status.FAILED: number} for name, number in expected.items()
    }, f"counted {counts.groups}"
    assert sum(counts.executions.values()) == len(written)
    long = "Ü" * 150
    job = await bench.stored(backend, "a")
    failed = bench.execution(_claim(bench, job), Status.FAILED, reason=f"{long}: x")
    await backend.replace(job, [evolve(failed, id=f"{job.uid}:50:1", number=50)])
    groups = (await counted(bench, backend, by="error")).groups
    assert long[:100] in groups, f"a long kind is not cut at 100 characters: {sorted(groups)}"


@law
async def what_was_deleted_is_not_counted(bench: Bench) -> None:
    """Executions that prune has deleted are counted no more."""
    backend = await bench.open()
    await with_executions(bench, backend)
    await backend.prune(bench.clock.now() - SECOND)
    counts = await counted(bench, backend, by="job")
    assert counts.executions == {Status.SUCCEEDED: 1, Status.FAILED: 2}
    assert _groups(counts.groups) == {
        "a": {Status.SUCCEEDED: 1, Status.FAILED: 1},
        "b": {Status.FAILED: 1},
    }


@law
async def to_count_changes_nothing(bench: Bench) -> None:
    """Counts changes nothing: it ends no claim, hands out nothing, and may be asked at any time."""
    one, two = await bench.open(), await bench.open()
    await bench.added(one, bench.job("held"))
    claim = await bench.claim(one)
    await bench.added(one, bench.job())
    await bench.advance(bench.lease)
    before = await bench.jobs(two)
    groupings: tuple[Literal["hour", "job", "error"] | None, ...] = (None, "hour", "job", "error")
    for by in groupings:
        first = await counted(bench, two, by=by)
        assert await counted(bench, one, by=by) == first, "two counts of one store differ"
    assert await bench.jobs(two) == before
    assert not await bench.history(two), "to count has ended a claim"
    assert (await bench.settle(one, bench.settlement(claim))).outcome == "written"


@law(needs=spoilable)
async def an_unreadable_job_is_counted_as_such_alone(bench: Bench) -> None:
    """A job that cannot be read is counted as undecodable, and not by state, due or running."""
    backend = await bench.open()
    names = ("held", "due", "paused", "a", "b")
    jobs = [bench.job(name, due=None if name == "paused" else "now", queue=name) for name in names]
    await add_all(bench, backend, jobs)
    await bench.due(backend, queues={"held": 1, "a": 1})
    for name in names[:3]:
        await bench.harness.spoil(bench.place, name)
    counts = await counted(bench, backend)
    assert (counts.undecodable, counts.jobs) == (3, {State.ACTIVE: 2})
    assert work(counts) == (1, 1, 0, bench.clock.now())
    assert {name: (each.due, each.running) for name, each in _queues(counts).items()} == {
        "a": (0, 1),
        "b": (1, 0),
    }


@law(needs=spoilable_execution)
async def an_unreadable_execution_is_not_counted(bench: Bench) -> None:
    """An execution that cannot be read is counted by no status, and hides no other one."""
    backend = await bench.open()
    await with_executions(bench, backend)
    await bench.harness.spoil_execution(bench.place, "A")
    counts = await counted(bench, backend, by="job")
    assert counts.executions == Counter(status for _, status, _, _ in ENDS[:-1])
    assert "A" not in _groups(counts.groups)


@law
async def the_end_of_a_pause_is_due(bench: Bench) -> None:
    """A paused job whose pause has an end is due from its due_at on, as every other."""
    backend = await bench.open()
    now = bench.clock.now()
    job = bench.job(due=None)
    standing = evolve(job.standing, pause=Pause(now, 1, now + MINUTE), due_at=now + MINUTE)
    standing = evolve(standing, scheduled=Pending(1, now, now))
    await bench.added(backend, evolve(job, standing=standing))
    assert work(await counted(bench, backend)) == (0, 0, 0, None)
    until = await bench.advance(MINUTE)
    counts = await counted(bench, backend)
    assert work(counts) == (0, 1, 0, until)
    assert counts.jobs == {State.PAUSED: 1}
