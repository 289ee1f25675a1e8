"""Values: moments, texts and numbers that stores take for others."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime, timedelta
from typing import Any

from attrs import evolve

from sched_core import CancelMark, Execution, ExecutionQuery, Interval, Job, Kind, Pause, Status
from sched_testkit._suite.bench import SECOND, Bench, whole
from sched_testkit.laws.law import granular, law

FIRST = datetime(1, 1, 1, tzinfo=UTC)
LAST = datetime(9999, 12, 31, 23, 59, 59, 999999, tzinfo=UTC)
LOOK_ALIKE = (
    *("a", "A", "a ", " a", "a  ", "aa", "á", "a\u0301", "å", "Å", "A\u030a", "\uff41", "\u0131"),
    *("a.", ".a", "a.b", "a/b", "a\\b", "a*", "*", ">", "a>", "%", "a%", "_", "a_", "?", "a?"),
    *("a:b", "a'b", 'a"b', "a;b", "a|b", "a\u00a0", "a\u200b", "I", "i", "\u0130", "ß", "ss"),
    *("{a}", "b{a}", "[a]", "(a)", "^a", "a$", "%61", "a%20", "a+", "&lt;", "<", "a,b", "a=b"),
    *("null", "None", "0", "00", "1", "01", "1.0", "1e0", "true", "-", "--", "~", "..", "$", "#"),
)
"""Ids that one store or another takes for the same, or for a pattern, or for a path."""


@law
async def moments_are_compared_as_moments(bench: Bench) -> None:
    """A job is due at its moment, be that a whole second or a fraction of one, and not before."""
    backend = await bench.open()
    tick = granular(backend)
    now = whole(await bench.advance(seconds=1)) + SECOND
    await bench.advance(now - bench.clock.now())
    await bench.added(
        backend,
        bench.job("whole", due=now),
        bench.job("before", due=now - tick),
        bench.job("after", due=now + tick),
        bench.job("next", due=now + SECOND),
    )
    claims = [claim.job.id for claim in await bench.due(backend, 10)]
    assert claims == ["before", "whole"], f"at a whole second got {claims}"
    await bench.advance(tick)
    await bench.added(backend, bench.job("passed", due=now))
    claims = [claim.job.id for claim in await bench.due(backend, 10)]
    assert claims == ["passed", "after"], f"a fraction of a second later got {claims}"
    await bench.advance(SECOND - 2 * tick)
    assert not await bench.due(backend, 10), "a whole second was due before it came"
    await bench.advance(tick)
    (claim,) = await bench.due(backend, 10)
    assert claim.job.id == "next"


@law
async def what_is_due_within_a_second_comes_in_order(bench: Bench) -> None:
    """What is due within one second comes oldest first, whole seconds before fractions."""
    backend = await bench.open()
    start = whole(bench.clock.now()) - 60 * SECOND
    tick = granular(backend)
    moments = {
        "e": start + SECOND,
        "c": start + tick,
        "d": start,
        "a": start + SECOND - tick,
        "b": start + SECOND / 2,
        "f": start - tick,
    }
    await bench.added(backend, *(bench.job(name, due=due) for name, due in moments.items()))
    claims = [claim.job.id for claim in await bench.due(backend, 3)]
    claims += [claim.job.id for claim in await bench.due(backend, 3)]
    assert claims == ["f", "d", "c", "b", "a", "e"], f"expected the oldest first, got {claims}"


@law
async def leases_end_at_whole_seconds_and_between(bench: Bench) -> None:
    """A lease ends at its moment, not before and not after, in the middle of a second or not."""
    one, two = await bench.open(), await bench.open()
    tick = granular(one)
    to_next = whole(bench.clock.now()) + SECOND - bench.clock.now()
    for name, wait in (("whole", to_next), ("fraction", SECOND / 4 + tick)):
        await bench.advance(wait)
        await bench.added(one, bench.job(name))
        held = await bench.claim(one)
        await bench.advance(bench.lease - tick)
        assert not await bench.lapse(two), "a claim was ended before its lease was over"
        await bench.advance(tick)
        (lost,) = await bench.lapse(two)
        assert (lost.job_id, lost.claimed_at) == (name, held.claimed_at)
        await bench.remove(one, name)


@law
async def records_are_selected_to_the_microsecond(bench: Bench) -> None:
    """The since is inclusive, the until exclusive, to the finest moment, at whole seconds, too."""
    backend = await bench.open()
    tick = granular(backend)
    (job,) = await bench.added(backend, bench.job(due=None))
    second = whole(bench.clock.now()) - 5 * SECOND
    ends = [second - tick, second, second + tick, second + SECOND - tick, second + SECOND]
    job = await _with_executions(bench, job, ends)
    for bound in ends:
        listed = await bench.history(backend, since=bound)
        assert [execution.finished_at for execution in listed][::-1] == [
            end for end in ends if end >= bound
        ]
        listed = await bench.history(backend, until=bound)
        assert [execution.finished_at for execution in listed][::-1] == [
            end for end in ends if end < bound
        ]
        assert not await bench.history(backend, since=bound, until=bound)
    assert await backend.prune(second) == 1, "prune deletes what ended before, and no more"
    assert [execution.finished_at for execution in await bench.history(backend)][::-1] == ends[1:]
    assert await backend.prune(second + tick) == 1
    assert await backend.prune(second + SECOND) == 2
    assert [execution.finished_at for execution in await bench.history(backend)] == [ends[-1]]


async def _with_executions(bench: Bench, job: Job, ends: list[datetime]) -> Job:
    """Write an execution for each moment, in the order given."""
    backend = bench.backends[0]
    for number, end in enumerate(ends, 100):
        job = await backend.replace(job, [_execution(job, number, end)])
    return job


def _execution(job: Job, number: int, end: datetime, **changes: Any) -> Execution:
    execution = Execution(
        id=f"{job.uid}:{number}:0",
        job_id=job.id,
        uid=job.uid,
        number=number,
        scheduled_at=end,
        attempt=0,
        kind=Kind.SCHEDULED,
        status=Status.MISSED,
        final=True,
        token=0,
        worker="worker-1",
        claimed_at=end,
        started_at=None,
        finished_at=end,
    )
    return evolve(execution, **changes)


@law
async def any_moment_can_be_kept(bench: Bench) -> None:
    """Every moment of a datetime can be kept, from the first to the last, and is claimed by age."""
    backend = await bench.open()
    moments = {
        "first": FIRST,
        "middle ages": datetime(999, 2, 3, 4, 5, 6, 7, tzinfo=UTC),
        "before 1970": datetime(1969, 12, 31, 23, 59, 59, 999999, tzinfo=UTC),
        "1970": datetime(1970, 1, 1, tzinfo=UTC),
        "2038": datetime(2038, 1, 19, 3, 14, 8, 1, tzinfo=UTC),
        "2262": datetime(2262, 4, 11, 23, 47, 17, tzinfo=UTC),
        "last second": whole(LAST),
        "last": LAST,
    }
    jobs = []
    for name, moment in moments.items():
        job = bench.job(name, due=moment, schedule=Interval(hours=1, start=moment))
        standing = evolve(
            job.standing, last_scheduled_at=moment, last_finished_at=moment, skip=moment
        )
        jobs.append(evolve(job, anchor=moment, standing=standing))
    stored = {job.id: job for job in await bench.added(backend, *jobs)}
    for job in jobs:
        assert await bench.stored(backend, job.id) == evolve(job, revision=stored[job.id].revision)
    claims = [claim.job.id for claim in await bench.due(backend, 20)]
    past = [name for name, moment in moments.items() if moment <= bench.clock.now()]
    assert claims == past, f"expected {past}, oldest first, got {claims}"
    (job,) = await bench.added(backend, bench.job(due=None))
    await _with_executions(bench, job, list(moments.values()))
    ends = [execution.finished_at for execution in await bench.history(backend, job_id="job")]
    assert ends == [*moments.values()][::-1]
    old = await bench.history(backend, until=datetime(1970, 1, 1, tzinfo=UTC))
    assert [execution.finished_at for execution in old][::-1] == [*moments.values()][:3]
    assert len(await bench.history(backend, since=whole(LAST))) == 2
    assert len(await bench.history(backend, since=FIRST, until=LAST)) == len(moments) - 1
    assert await backend.prune(FIRST) == 0


@law
async def ids_that_look_alike_are_different(bench: Bench) -> None:
    """Ids differ as texts differ: in case, blanks, accents and how these are written."""
    backend = await bench.open()
    limit = backend.capabilities.bulk_limit or len(LOOK_ALIKE)
    stored: dict[str, Job] = {}
    for start in range(0, len(LOOK_ALIKE), limit):
        some = LOOK_ALIKE[start : start + limit]
        jobs = [bench.job(name, name=name, group=name, metadata={name: name}) for name in some]
        stored |= {job.id: job for job in await bench.added(backend, *jobs)}
    assert stored.keys() == set(LOOK_ALIKE)
    for name in LOOK_ALIKE:
        assert await bench.stored(backend, name) == stored[name], f"{name!r} is another job"
    listed = [job.id for job in await bench.jobs(backend, limit=20)]
    assert sorted(listed) == sorted(LOOK_ALIKE)
    claims = {claim.job.id: claim for claim in await bench.due(backend, len(LOOK_ALIKE))}
    assert claims.keys() == set(LOOK_ALIKE)
    await backend.settle([bench.settlement(claim) for claim in claims.values()])
    for name in LOOK_ALIKE:
        executions = await bench.history(backend, job_id=name)
        assert [execution.id for execution in executions] == [f"{stored[name].uid}:1:1"], (
            f"executions of {name!r}"
        )
    gone = LOOK_ALIKE[::2]
    for name in gone:
        await bench.remove(backend, name)
    left = [job.id for job in await bench.jobs(backend, limit=20)]
    assert sorted(left) == sorted(LOOK_ALIKE[1::2]), "a removal took another job with it"


@law
async def look_alikes_are_told_apart_by_filters(bench: Bench) -> None:
    """Prefixes, groups and metadata are compared as texts: no pattern, no case, no normal form."""
    backend = await bench.open()
    limit = backend.capabilities.bulk_limit or len(LOOK_ALIKE)
    for start in range(0, len(LOOK_ALIKE), limit):
        some = LOOK_ALIKE[start : start + limit]
        jobs = [bench.job(name, group=name, metadata={"k": name, name: "v"}) for name in some]
        await bench.added(backend, *jobs)
    for name in bench.some(LOOK_ALIKE):
        found = [job.id for job in await bench.jobs(backend, limit=20, id_prefix=name)]
        expected = [other for other in LOOK_ALIKE if other[: len(name)] == name]
        assert sorted(found) == sorted(expected), f"with the prefix {name!r} got {found}"
    queries: list[dict[str, Any]] = [{"group": name} for name in LOOK_ALIKE]
    queries += ({"metadata": {"k": name}} for name in LOOK_ALIKE)
    queries += ({"metadata": {name: "v"}} for name in LOOK_ALIKE)
    for number, query in bench.some(enumerate(queries)):
        found = [job.id for job in await bench.jobs(backend, limit=20, **query)]
        assert found == [LOOK_ALIKE[number % len(LOOK_ALIKE)]], f"by {query} got {found}"


@law
async def a_prefix_may_end_at_the_last_character(bench: Bench) -> None:
    """A prefix selects what begins with it, also where no character comes after its last one."""
    backend = await bench.open()
    names = ["a\U0010ffff", "a\U0010ffffb", "a\uffff", "a\uffffb", "a\ud7ff", "a\ue000", "b"]
    await bench.added(backend, *(bench.job(name) for name in names))
    for prefix in ("a\U0010ffff", "a\uffff", "a\ud7ff", "a\ue000", "a", "\U0010ffff"):
        found = [job.id for job in await bench.jobs(backend, limit=2, id_prefix=prefix)]
        expected = sorted(name for name in names if name.startswith(prefix))
        assert sorted(found) == expected, f"with the prefix {prefix!r} got {found!r}"


@law
async def the_longest_texts_are_kept(bench: Bench) -> None:
    """Ids, names, groups and metadata are kept at their longest, and differ at their very end."""
    backend = await bench.open()
    ends = ("x", "y", "\U0001f600")
    ids = [f"{character * 254}{end}" for character in ("a", "ä", "\U0001f600") for end in ends]
    big = {"k" * 1000: "v" * 20_000, "w": "\U0001f600" * 10_000}
    jobs = [bench.job(name, name=name, group=name, metadata=big, due=None) for name in ids[:3]]
    jobs += [bench.job(name, name=name, group=name) for name in ids[3:]]
    long, reason = "r" * 2048, "\u2713" * 682  # of executions and of pauses: 2 KiB
    pauses = [Pause(bench.clock.now(), 1, None, each) for each in (reason, long)]
    jobs[:2] = [
        evolve(job, standing=evolve(job.standing, pause=pause))
        for job, pause in zip(jobs, pauses, strict=False)
    ]
    for job in jobs:
        (stored,) = await bench.added(backend, job)
        assert await bench.stored(backend, job.id) == evolve(job, revision=stored.revision)
    assert sorted(job.id for job in await bench.jobs(backend)) == sorted(ids)
    for name in ids:
        assert [job.id for job in await bench.jobs(backend, group=name)] == [name]
    claims = await bench.due(backend, 20)
    assert sorted(claim.job.id for claim in claims) == sorted(ids[3:])
    executions = [
        bench.execution(claim, Status.FAILED, reason=each, final=True)
        for claim, each in zip(claims, itertools.cycle((reason, long)))
    ]
    settlements = [
        bench.settlement(claim, executions=[execution], pause=pause)
        for claim, execution, pause in zip(claims, executions, itertools.cycle(pauses))
    ]
    assert {one.outcome for one in await backend.settle(settlements)} == {"written"}
    for settlement in settlements:
        stored = await bench.stored(backend, settlement.claim.job.id)
        assert stored.standing == settlement.standing
    for execution in executions:
        assert await bench.history(backend, job_id=execution.job_id) == [execution]


@law
async def types_are_kept(bench: Bench) -> None:
    """What is read has the types that were written: a bool is no number, no text is not None."""
    backend = await bench.open()
    large = 2**53 + 1
    job = bench.job(due=None, name=None, group=None, metadata={"": "", "0": "0", "None": "null"})
    one = job.standing.scheduled
    assert one is not None
    standing = evolve(
        job.standing,
        last_number=large,
        scheduled=evolve(one, number=large, attempts=large, failures=large, snoozes=large),
        requests=(bench.request(large - 1, key="", args={"": "0", "1": "None"}, actor=""),),
        pause=Pause(bench.clock.now(), large, None, "", ""),
        cancels=(CancelMark(1, "", ""), CancelMark(large)),
        failing=large,
        last_status=None,
        last_scheduled_at=None,
        skip=bench.clock.now(),
        skip_actor="",
    )
    (stored,) = await bench.added(backend, evolve(job, declared=True, standing=standing))
    execution = _execution(stored, large, bench.clock.now(), coalesced=large, token=large)
    execution = evolve(
        execution,
        id=f"{stored.uid}:{large}:{large}",
        attempt=large,
        reason="",
        final=False,
        actor="",
        args={},
    )
    again = await bench.stored(backend)
    await backend.replace(stored, [execution])
    (listed,) = await bench.history(backend)
    assert listed == execution
    kept = again.standing
    assert kept == standing
    values = (again.declared, listed.final)
    assert [type(value) for value in values] == [bool] * 2, f"expected truth values, got {values}"
    assert kept.scheduled is not None
    assert kept.pause is not None
    numbers = (
        kept.scheduled.snoozes,
        again.revision,
        listed.attempt,
        listed.token,
        kept.cancels[1].number,
    )
    assert [type(value) for value in numbers] == [int] * 5, f"expected numbers, got {numbers}"
    assert (again.spec.name, again.spec.group, kept.last_status) == (None, None, None)
    asked = kept.requests[0]
    mark = kept.cancels[0]
    texts = [kept.pause.reason, listed.reason, asked.key, kept.pause.actor, listed.actor]
    texts += [asked.actor, kept.skip_actor, mark.reason, mark.actor]
    assert texts == [""] * 9, "an empty text was taken for none"
    assert listed.args == {}, "no arguments at all were taken for an empty set of them"
    assert dict(again.spec.metadata) == {"": "", "0": "0", "None": "null"}
    moments = (again.anchor, kept.scheduled.due_at, listed.finished_at)
    assert all(moment.tzinfo == UTC for moment in moments)


@law
async def filters_hold_when_the_clock_does_not_move(bench: Bench) -> None:
    """Executions that ended at one moment are all listed, and told apart by every other filter."""
    backend = await bench.open()
    await bench.added(backend, *(bench.job(f"job-{n}") for n in range(8)))
    claims = await bench.due(backend, 10)
    statuses = (Status.SUCCEEDED, Status.FAILED, Status.INTERRUPTED, Status.SKIPPED)
    executions = [bench.execution(claim, statuses[n % 4]) for n, claim in enumerate(claims)]
    await backend.settle(
        [
            bench.settlement(claim, executions=[execution])
            for claim, execution in zip(claims, executions, strict=True)
        ]
    )
    now = bench.clock.now()
    for limit in (1, 3, 8):
        found = await bench.records(backend, limit)
        assert sorted(execution.id for execution in found) == sorted(
            execution.id for execution in executions
        )
    for status in statuses:
        found = await bench.records(backend, statuses=frozenset({status}), since=now)
        expected = [execution.id for execution in executions if execution.status is status]
        assert sorted(execution.id for execution in found) == sorted(expected)
    page = await backend.executions(ExecutionQuery(until=now), after=None, limit=10)
    assert not list(page.items)
    assert await backend.prune(now) == 0
    assert await backend.prune(now + timedelta(seconds=1)) == 8
