"""Definitions: what add, get, replace and remove keep, and when they refuse."""

from __future__ import annotations

import functools
from datetime import datetime, timedelta

from attrs import evolve

from sched_core import (
    CancelMark,
    CatchUp,
    Coalesce,
    Cron,
    Drop,
    DstRule,
    FixedDelay,
    Gap,
    Interval,
    Job,
    JobAlreadyExists,
    JobNotFound,
    Kind,
    Once,
    Pause,
    Pending,
    Policy,
    Retry,
    RevisionConflict,
    Schedule,
    Standing,
    Status,
)
from sched_core.clock import FIRST, LAST
from sched_testkit._suite.bench import Bench
from sched_testkit.laws.law import TICK, law


def every_field(at: datetime) -> Standing:
    """Return a standing of which no field has its default, and no two moments are one."""
    first = Pending(
        7,
        at + TICK,
        at + 2 * TICK,
        attempts=4,
        failures=2,
        lost=1,
        snoozes=3,
        began_at=at - TICK,
        coalesced=5,
        coalesced_until=at + 3 * TICK,
        derived_from="2025b:1a2b3c4d5e6f|2024a:6f5e4d3c2b1a",
        retry_at=at + 40 * TICK,
    )
    triggered = Pending(
        8,
        at + 4 * TICK,
        at + 5 * TICK,
        Kind.TRIGGERED,
        key="kéy",
        origin=8,
        args={"a": "ü", "": ""},
    )
    again = Pending(
        11,
        at - 90 * TICK,
        at,
        Kind.RERUN,
        attempts=1,
        key="uid:3:0",
        origin=11,
        actor="who",
        moments=(at - 70 * TICK, at),
    )
    filled = Pending(
        13,
        at - 80 * TICK,
        at,
        Kind.BACKFILLED,
        origin=9,
        key="since/until",
        until=at - 70 * TICK,
        actor="who",
    )
    return Standing(
        last_number=13,
        scheduled=first,
        due_at=at + 6 * TICK,
        requests=(triggered, again, filled),
        pause=Pause(at - 2 * TICK, 8, at + 7 * TICK, "why ünot", "who"),
        gaps=(Gap(at - 30 * TICK, at - 20 * TICK), Gap(at - 10 * TICK, at - 9 * TICK)),
        spare=at + 8 * TICK,
        skip=at + 9 * TICK,
        cancels=(CancelMark(7), CancelMark(13, "why ünot", "who")),
        failing=6,
        last_scheduled_at=at - 5 * TICK,
        last_finished_at=at - 4 * TICK,
        last_status=Status.FAILED,
        expires_at=at + timedelta(days=900),
        skip_actor="who",
    )


@law
async def an_added_job_is_stored_as_it_was_given(bench: Bench) -> None:
    """A job that was added is returned by get, equal in every field, with the revision of add."""
    backend = await bench.open()
    anchor = bench.clock.now()
    job = bench.job(
        "jöb ✓ 日本/x.y*z>",
        due=anchor + timedelta(days=400, microseconds=1),
        schedule=Cron("*/5 1-3 * * mon", tz="America/New_York"),
        name="A náme",
        metadata={"ключ": "значение\n\t\x00 😀", "": ""},
        policy=Policy(misfire=CatchUp(7, timedelta(minutes=3)), timeout=timedelta(microseconds=7)),
        group="grüp",
    )
    job = evolve(
        job,
        declared=True,
        standing=every_field(anchor),
    )
    (stored,) = await bench.added(backend, job)
    assert evolve(stored, revision=0) == job
    assert await bench.stored(backend, job.id) == stored


@law
async def get_of_an_unknown_id_is_none(bench: Bench) -> None:
    """Get returns None where nothing is stored, and remove raises JobNotFound."""
    backend = await bench.open()
    await bench.added(backend, bench.job("other"))
    assert await backend.get("job") is None
    try:
        await backend.remove(bench.job())
    except JobNotFound:
        pass
    else:
        raise AssertionError("what was never stored was removed")


@law
async def a_stored_job_shares_nothing_with_the_caller(bench: Bench) -> None:
    """What the caller does to its own mapping after add changes nothing that is stored."""
    backend = await bench.open()
    metadata = {"kind": "a"}
    job = bench.job(metadata=metadata)
    await bench.added(backend, job)
    metadata["kind"] = "b"
    assert dict((await bench.stored(backend)).spec.metadata) == {"kind": "a"}
    try:
        (await bench.stored(backend)).spec.metadata["kind"] = "c"  # type: ignore[index]  # must fail
    except TypeError:
        pass
    assert dict((await bench.stored(backend)).spec.metadata) == {"kind": "a"}


@law
async def a_taken_id_is_refused(bench: Bench) -> None:
    """Adding another incarnation under a stored id raises JobAlreadyExists and changes nothing."""
    backend = await bench.open()
    (first,) = await bench.added(backend, bench.job(metadata={"v": "1"}))
    try:
        await backend.add([bench.job(metadata={"v": "2"})])
    except JobAlreadyExists:
        pass
    else:
        raise AssertionError("a second job was added under the same id")
    assert await bench.stored(backend) == first


@law
async def adding_the_same_incarnation_again_is_a_repeat(bench: Bench) -> None:
    """Adding a job whose uid is stored returns what is stored: a reply may have got lost."""
    backend = await bench.open()
    job = bench.job()
    (first,) = await bench.added(backend, job)
    (again,) = await bench.added(backend, job)
    assert again == first == await bench.stored(backend)


@law
async def an_added_job_gets_a_revision_of_its_own(bench: Bench) -> None:
    """Add gives a new revision, whatever one the job brings along from another store."""
    backend = await bench.open()
    brought = 10**12
    (job,) = await bench.added(backend, evolve(bench.job(due=None), revision=brought))
    assert await bench.stored(backend) == job
    assert job.revision != brought, "a revision was brought along"
    assert (await backend.replace(job)).revision not in {brought, job.revision}


@law
async def a_bulk_add_is_all_or_nothing(bench: Bench) -> None:
    """A bulk add of which one id is taken adds none of the others."""
    backend = await bench.open()
    limit = backend.capabilities.bulk_limit or 20
    await bench.added(backend, bench.job("taken"))
    names = [f"new-{n}" for n in range(min(limit, 20) - 1)]
    jobs = [bench.job(name) for name in (*names[:2], "taken", *names[2:])]
    try:
        await backend.add(jobs)
    except JobAlreadyExists:
        pass
    else:
        raise AssertionError("a taken id was accepted")
    assert [job.id for job in await bench.jobs(backend) if isinstance(job, Job)] == ["taken"]


@law
async def revisions_only_grow(bench: Bench) -> None:
    """Every add, replace and settle gives a revision that this id never had, also after removal."""
    backend = await bench.open()
    seen = [(await bench.added(backend, bench.job()))[0].revision]
    seen.append((await backend.replace(await bench.stored(backend))).revision)
    claim = await bench.claim(backend)
    await bench.settle(backend, bench.settlement(claim, due=bench.clock.now()))
    seen.append((await bench.stored(backend)).revision)
    await bench.remove(backend, "job")
    seen.append((await bench.added(backend, bench.job()))[0].revision)
    assert len(set(seen)) == len(seen), f"a revision was used again: {seen}"


@law
async def replace_is_a_compare_and_set(bench: Bench) -> None:
    """Replacing a job of another revision than the stored one is refused and changes nothing."""
    backend = await bench.open()
    (old,) = await bench.added(backend, bench.job(metadata={"v": "1"}))
    new = await backend.replace(evolve(old, spec=evolve(old.spec, metadata={"v": "2"})))
    assert dict((await bench.stored(backend)).spec.metadata) == {"v": "2"}
    try:
        await backend.replace(evolve(old, spec=evolve(old.spec, metadata={"v": "3"})))
    except RevisionConflict:
        pass
    else:
        raise AssertionError("a replace on an old revision was accepted")
    assert await bench.stored(backend) == new


@law
async def replacing_what_is_gone_is_not_found(bench: Bench) -> None:
    """Replacing a removed job raises JobNotFound, and does not bring it back."""
    backend = await bench.open()
    (job,) = await bench.added(backend, bench.job())
    await bench.remove(backend, "job")
    try:
        await backend.replace(job)
    except JobNotFound:
        pass
    else:
        raise AssertionError("a removed job was replaced")
    assert await backend.get("job") is None
    assert not await bench.due(backend)


@law
async def removal_is_a_compare_and_set(bench: Bench) -> None:
    """Removing a job of another revision than the stored one is refused and changes nothing."""
    backend = await bench.open()
    (old,) = await bench.added(backend, bench.job())
    new = await backend.replace(old)
    try:
        await backend.remove(old)
    except RevisionConflict:
        pass
    else:
        raise AssertionError("a removal decided on an old revision was accepted")
    assert await bench.stored(backend) == new
    await backend.remove(new)
    assert await backend.get("job") is None


@law
async def executions_of_an_edit_are_written_with_it(bench: Bench) -> None:
    """Replace and remove write the executions they are given, in the same step."""
    backend = await bench.open()
    (job,) = await bench.added(backend, bench.job())
    claim = await bench.claim(backend)
    await backend.release([claim])
    execution = bench.execution(claim, Status.SUPERSEDED, attempt=0)
    moved = bench.moved(job, bench.clock.now() + timedelta(hours=1))
    job = await backend.replace(moved, [execution])
    assert bench.summary(await bench.history(backend)) == [(1, 0, "superseded")]
    second = evolve(execution, id=f"{job.uid}:2:0", number=2)
    await backend.remove(job, [second])
    assert bench.summary(await bench.history(backend)) == [
        (1, 0, "superseded"),
        (2, 0, "superseded"),
    ]


@law
async def open_returns_the_clock_that_decides(bench: Bench) -> None:
    """Open returns the clock by which the backend hands out: the given one, where that decides."""
    await bench.open()
    assert bench.decides[0].now() == bench.clock.now()
    await bench.advance(days=-400)
    assert bench.decides[0].now() == bench.clock.now()


@law
async def a_replacement_is_stored_as_it_was_given(bench: Bench) -> None:
    """Replace stores every field of the job it is given, and moves nothing but the revision."""
    backend = await bench.open()
    (old,) = await bench.added(backend, bench.job(metadata={"v": "1", "w": "1"}, group="g"))
    other = bench.job(
        due=bench.clock.now() + timedelta(days=3, microseconds=1),
        schedule=Cron("*/5 * * * *", tz="Asia/Kathmandu"),
        metadata={"v": "2"},
        name="new",
        policy=Policy(jitter=timedelta(seconds=3), max_lost=2),
    )
    standing = every_field(bench.clock.now())
    new = evolve(other, uid=old.uid, revision=old.revision, declared=True, standing=standing)
    stored = await backend.replace(new)
    assert evolve(stored, revision=old.revision) == new
    assert await bench.stored(backend) == stored


@law
async def an_id_twice_in_one_bulk_add_is_refused(bench: Bench) -> None:
    """A bulk add of two jobs with one id raises JobAlreadyExists and adds nothing."""
    backend = await bench.open()
    if (backend.capabilities.bulk_limit or 3) < 2:
        return
    try:
        await backend.add([bench.job("a"), bench.job("a")])
    except JobAlreadyExists:
        pass
    else:
        raise AssertionError("two jobs with one id were added")
    assert not await bench.jobs(backend)


@law
async def a_bulk_add_takes_as_many_as_declared(bench: Bench) -> None:
    """One add takes as many jobs as capabilities.bulk_limit says, and returns them in order."""
    backend = await bench.open()
    jobs = [
        bench.job(f"job-{n:04}") for n in range(min(backend.capabilities.bulk_limit or 700, 700))
    ]
    stored = await bench.added(backend, *jobs)
    assert [evolve(job, revision=0) for job in stored] == jobs
    listed = await bench.jobs(backend, limit=200)
    assert sorted(listed, key=lambda job: job.id) == stored


@law
async def a_cancelled_bulk_add_is_whole(bench: Bench) -> None:
    """A bulk add that was cancelled while under way has added all its jobs, or none."""
    backend = await bench.open()
    size = min(backend.capabilities.bulk_limit or 5, 5)
    for steps in range(6):
        jobs = [bench.job(f"job-{steps}-{n}") for n in range(size)]
        await bench.cancelled_after(steps, functools.partial(backend.add, jobs))
        found = [job.id for job in jobs if await backend.get(job.id) is not None]
        assert len(found) in {0, size}, f"only {found} were added"
        assert [job.id for job in await backend.add(jobs)] == [job.id for job in jobs]


@law
async def empty_batches_are_accepted(bench: Bench) -> None:
    """Adding, claiming, renewing, settling and releasing nothing is allowed and does nothing."""
    backend = await bench.open()
    (job,) = await bench.added(backend, bench.job())
    assert not list(await backend.add([]))
    assert not await bench.renew(backend, [])
    assert not list(await backend.settle([]))
    await backend.release([])
    assert not await bench.due(backend, 0)
    assert await bench.stored(backend) == job
    assert (await bench.claim(backend)).job == job


@law
async def every_kind_and_policy_is_kept(bench: Bench) -> None:
    """Every kind of schedule comes back with every policy, at the ends of their ranges, too."""
    backend = await bench.open()
    tick, long = TICK, timedelta.max
    policies = [
        Policy(
            misfire=CatchUp(3, timedelta(hours=2)),
            overlap="skip",
            retry=Retry(4, tick, 1.5, timedelta(days=1), 0.25),
            timeout=timedelta(seconds=1) + tick,
            jitter=timedelta(milliseconds=1),
            max_lost=2,
            max_snoozes=0,
            pause_after=1_000_000,
            keep_finished=None,
            keep_executions=long,
            overdue=tick,
        ),
        Policy(misfire=Drop(tick), overlap="cancel", keep_executions=None),
        Policy(misfire=CatchUp(1), retry=Retry(delays=(tick, long), never=(ValueError, "a.B"))),
        Policy(retry=Retry(2, only=("ünï.Cödé", TimeoutError))),
        Policy(misfire=Coalesce(), timeout=long),
    ]
    odd = timedelta(seconds=1) + tick
    schedules: list[Schedule] = [
        Cron("0 3 * * *"),
        Cron("*/7 5 * * 1-5", tz="Europe/Berlin", dst=DstRule("skip", "both")),
        Interval(odd),
        Interval(odd, start=bench.clock.now()),
        FixedDelay(minutes=1),
        Once(bench.clock.now()),
        Once(FIRST),
        Once(LAST),
    ]
    jobs = [
        bench.job(f"{number}-{index}", due=None, schedule=schedule, policy=policy)
        for number, schedule in enumerate(schedules)
        for index, policy in enumerate(policies)
    ]
    for job in jobs:  # one by one: an add may be limited
        (stored,) = await backend.add([job])
        assert evolve(stored, revision=0) == job
        assert await backend.get(job.id) == stored


@law
async def adds_answer_in_the_order_given(bench: Bench) -> None:
    """Add answers in the order of its arguments, repeats among new jobs in their places."""
    backend = await bench.open()
    if (backend.capabilities.bulk_limit or 4) < 4:
        return
    repeated = [bench.job("m"), bench.job("b")]
    stored = await bench.added(backend, *repeated)
    jobs = [bench.job("z"), repeated[0], bench.job("a"), repeated[1]]
    answers = list(await backend.add(jobs))
    assert [(job.id, job.uid) for job in answers] == [(job.id, job.uid) for job in jobs]
    assert [answers[1], answers[3]] == stored, "a repeat is not answered as it is stored"
    assert answers == [await bench.stored(backend, job.id) for job in jobs]
