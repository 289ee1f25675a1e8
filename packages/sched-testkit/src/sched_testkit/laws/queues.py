"""Queues and refused ids: what a worker's room takes, what it leaves to others."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

from attrs import evolve

from sched_core import Backend, Claim, Job, Room, Status
from sched_testkit._suite.bench import SECOND, Bench
from sched_testkit.laws.law import law
from sched_testkit.laws.wakeups import stays

MANY = 40
"""More jobs than a store looks at in one go, as far as stores do that."""


def queued(bench: Bench, job_id: str, queue: str, ago: float = 0) -> Job:
    """Build a job of a queue that is due since some seconds."""
    return bench.job(job_id, due=bench.clock.now() - ago * SECOND, queue=queue)


async def add_all(bench: Bench, backend: Backend, jobs: Sequence[Job]) -> list[Job]:
    """Add jobs, as many at once as the backend takes."""
    at_once = backend.capabilities.bulk_limit or len(jobs)
    added: list[Job] = []
    for start in range(0, len(jobs), at_once):
        added += await bench.added(backend, *jobs[start : start + at_once])
    return added


def ids(claims: Sequence[Claim]) -> list[str]:
    """Return the ids of the jobs that were claimed."""
    return [claim.job.id for claim in claims]


@law
async def a_claim_takes_from_served_queues_alone(bench: Bench) -> None:
    """Claim_due takes jobs of the queues that the room names, and leaves others as they are."""
    backend, other = await bench.open(), await bench.open()
    names = ("default", "alerts", "Alerts", "alerts ", "alert", "alerts2", "al%", "bulk")
    jobs = [queued(bench, f"{n}", name, 9 - n) for n, name in enumerate(names)]
    added = {job.id: job for job in await add_all(bench, backend, jobs)}
    assert await bench.due(backend, queues={}) == [], "no queue is served, and a job was claimed"
    assert await bench.due(backend, queues={"al": 9, "%": 9, "a_erts": 9}) == []
    claims = await bench.due(backend, queues={"alerts": 9})
    assert ids(claims) == ["1"], f"of the queues {names}, 'alerts' has given {ids(claims)}"
    assert claims[0].job == added["1"], "the claim has another job than was added"
    assert await bench.due(backend, queues={"alerts": 9}) == []
    assert ids(await bench.due(other, queues={"bulk": 1, "al%": 1})) == ["6", "7"]
    for left in ("0", "2", "3", "4", "5"):
        assert await bench.stored(other, left) == added[left], "a job of another queue has changed"
    assert ids(await bench.due(other)) == ["0", "2", "3", "4", "5"], "without queues all are served"
    assert not await bench.history(other)


@law
async def a_queue_gives_no_more_than_its_number(bench: Bench) -> None:
    """Claim_due takes the oldest of each queue, up to its number, and up to the limit of all."""
    backend = await bench.open()
    jobs = [queued(bench, f"{q}{age}", q, age) for q in ("a", "b", "c") for age in (2, 4, 1, 3)]
    await add_all(bench, backend, [evolve(job, standing=job.standing) for job in jobs])
    got = ids(await bench.due(backend, queues={"a": 2, "b": 3, "c": 0}))
    assert got[:2] in (["a4", "b4"], ["b4", "a4"]), f"claimed in the order {got}"
    assert sorted(got) == ["a3", "a4", "b2", "b3", "b4"], f"claimed {got}"
    got = ids(await bench.due(backend, 2, queues={"a": 50, "b": 50, "c": 1}))
    assert got == ["c4", "a2"], f"of more queues than the limit has room for, claimed {got}"
    got = ids(await bench.due(backend, 1, queues={"c": 7}))
    assert got == ["c3"], f"the number of a queue is no limit of its own: claimed {got}"
    got = ids(await bench.due(backend, 0, queues={"c": 7}))
    assert got == [], f"there is no room, and {got} were claimed"
    rest = ids(await bench.due(backend))
    assert rest[0] == "c2", f"without queues, claimed in the order {rest}"
    assert sorted(rest) == ["a1", "b1", "c1", "c2"], f"left were {rest}"


@law
async def all_other_queues_count_together(bench: Bench) -> None:
    """The name "*" means all queues that the room does not name, and its number for them."""
    backend = await bench.open()
    ages = {"a1": 9, "a2": 8, "x1": 7, "y1": 6, "default1": 5, "x2": 4, "a3": 3, "y2": 2}
    jobs = [queued(bench, key, key[:-1], age) for key, age in ages.items()]
    await add_all(bench, backend, jobs)
    got = ids(await bench.due(backend, queues={"a": 1, "*": 3}))
    assert got == ["a1", "x1", "y1", "default1"], f"claimed {got}"
    got = ids(await bench.due(backend, queues={"a": 0, "*": 1}))
    assert got == ["x2"], f"a queue that is named came under '*', or more of them: claimed {got}"
    got = ids(await bench.due(backend, queues={"*": 9}))
    assert got == ["a2", "a3", "y2"], f"claimed {got}"


@law
async def a_full_queue_holds_up_no_other(bench: Bench) -> None:
    """However many older jobs of one queue are due, those of another one are claimed at once."""
    backend = await bench.open()
    bulk = [queued(bench, f"bulk-{n:03}", "bulk", 900 - n) for n in range(MANY)]
    await add_all(bench, backend, bulk)
    await bench.added(backend, queued(bench, "alert", "alerts", 1))
    got = ids(await bench.due(backend, 1, queues={"alerts": 1}))
    assert got == ["alert"], f"claimed {got}"
    await bench.added(backend, queued(bench, "another", "alerts"))
    got = ids(await bench.due(backend, 10, queues={"bulk": 2, "alerts": 1}))
    assert got == ["bulk-000", "bulk-001", "another"], f"claimed {got}"
    await bench.added(backend, queued(bench, "third", "any"))
    got = ids(await bench.due(backend, 10, queues={"bulk": 0, "*": 5}))
    assert got == ["third"], f"claimed {got}"


@law
async def a_refused_id_is_left_to_others(bench: Bench) -> None:
    """Ids that the room refuses stay as they are, and every other worker can claim them at once."""
    backend, other = await bench.open(), await bench.open()
    jobs = [queued(bench, f"no-{n:03}", "default", 900 - n) for n in range(MANY)]
    jobs += [queued(bench, "yes-1", "default", 2), queued(bench, "yes-2", "default", 1)]
    added = {job.id: job for job in await add_all(bench, backend, jobs)}
    asked: list[str] = []

    def accepts(job_id: str) -> bool:
        asked.append(job_id)
        return job_id.startswith("yes")

    got = ids(await bench.due(backend, 1, accepts=accepts))
    assert got == ["yes-1"], f"refused ids held up others: claimed {got}"
    assert set(asked) <= set(added), f"asked about {sorted(set(asked) - set(added))}"
    got = ids(await bench.due(backend, 10, accepts=accepts))
    assert got == ["yes-2"], f"claimed {got}"
    assert await bench.due(backend, accepts=lambda _: False) == [], "a refused id was claimed"
    refused = [job for job in added.values() if job.id.startswith("no")]
    listed = await bench.jobs(other, limit=50, id_prefix="no")
    assert listed == refused, "what was refused has changed: an attempt, a claim or a revision"
    assert not await bench.history(other), "a refused id has left an execution"
    claims = await bench.due(other, MANY)
    assert ids(claims) == [job.id for job in refused], f"others got {ids(claims)}"
    assert all(bench.pending(claim).attempts == 0 for claim in claims)


@law
async def refused_ids_count_for_no_queue(bench: Bench) -> None:
    """An id that is refused takes none of its queue's number, nor of the limit."""
    backend = await bench.open()
    jobs = [queued(bench, f"{q}-{n}", q, 9 - n) for q in ("a", "b") for n in range(4)]
    await add_all(bench, backend, jobs)
    room = {"a": 1, "b": 1}
    got = ids(await bench.due(backend, 2, queues=room, accepts=lambda key: key[-1] in "23"))
    assert sorted(got) == ["a-2", "b-2"], f"claimed {got}"
    got = ids(await bench.due(backend, 9, queues={"a": 9}, accepts=lambda key: key[-1] != "0"))
    assert got == ["a-1", "a-3"], f"claimed {got}"


@law
async def what_accepts_raises_leaves_nothing_claimed(bench: Bench) -> None:
    """What the room's accepts raises comes out of claim_due, and nothing is claimed or lost."""
    backend, other = await bench.open(), await bench.open()
    added = await bench.added(backend, *(queued(bench, f"{n}", "q", 9 - n) for n in range(3)))
    for fails in ("0", "1", "2"):

        def accepts(job_id: str, fails: str = fails) -> bool:
            if job_id == fails:
                raise LookupError(f"no route for {job_id}")
            return True

        try:
            claimed = await backend.claim_due(Room(10, accepts=accepts))
        except LookupError:
            pass
        else:
            raise AssertionError(f"accepts has raised, and claim_due returned {claimed}")
        assert await bench.jobs(other) == added, "a claim that failed has left a job claimed"
    assert ids(await bench.due(backend)) == ["0", "1", "2"], "a claim that failed has lost a job"


@law
async def leases_end_in_every_queue(bench: Bench) -> None:
    """Whatever the room takes, claims whose lease has ended end, of all queues and ids."""
    backend, other = await bench.open(), await bench.open()
    rooms = (
        Room(10, {"alerts": 5}),
        Room(10, {}),
        Room(10, accepts=lambda _: False),
        Room(0, {"alerts": 0}),
    )
    for number, room in enumerate(rooms):
        await bench.added(backend, queued(bench, f"{number}", "bulk"))
        await bench.added(backend, queued(bench, f"gone {number}", "bulk"))
        await bench.due(backend, queues={"bulk": 2})
        await bench.remove(backend, f"gone {number}")
        await bench.advance(bench.lease)
        claimed = await other.claim_due(room)
        told = [(lost.job_id, lost.status) for lost in claimed.lapsed]
        expected = [
            (f"{number}", Status.ABANDONED),
            (f"gone {number}", Status.ABANDONED),
            (f"gone {number}", Status.SUPERSEDED),
        ]
        assert sorted(told, key=str) == expected, f"told of {told} by {room}"
        assert not claimed.claims
        assert {lost.queue for lost in claimed.lapsed} == {"bulk"}
        await bench.remove(backend, f"{number}")


@law
async def a_queue_is_changed_by_an_edit(bench: Bench) -> None:
    """A job is of the queue that is stored last; an edit under a claim counts from its end on."""
    backend, other = await bench.open(), await bench.open()
    (job,) = await bench.added(backend, queued(bench, "job", "bulk"))
    job = await other.replace(evolve(job, spec=evolve(job.spec, queue="alerts")))
    assert job.spec.queue == "alerts"
    assert await bench.due(backend, queues={"bulk": 9}) == [], "it is claimed by its old queue"
    (claim,) = await bench.due(backend, queues={"alerts": 9})
    assert claim.job == job
    held = await bench.stored(other)
    await other.replace(evolve(held, spec=evolve(held.spec, queue="third")))
    await backend.release([claim])
    assert await bench.due(other, queues={"alerts": 9}) == [], "an edit under a claim is forgotten"
    (claim,) = await bench.due(other, queues={"third": 9})
    await bench.remove(other, "job")
    await bench.added(backend, queued(bench, "job", "fourth"))
    await other.release([claim])
    assert await bench.due(backend, queues={"third": 9}) == [], "it has the queue of a removed job"
    (claim,) = await bench.due(backend, queues={"*": 9})
    settlement = bench.settlement(claim, due=bench.clock.now())
    assert (await bench.settle(backend, settlement)).outcome == "written"
    assert await bench.due(other, queues={"third": 9, "alerts": 9}) == []
    assert ids(await bench.due(other, queues={"fourth": 9})) == ["job"]


@law
async def what_comes_due_later_keeps_its_queue(bench: Bench) -> None:
    """A retry, a released claim and an occurrence after a lost claim are of their job's queue."""
    one, two = await bench.open(), await bench.open()
    await bench.added(one, queued(bench, "job", "q"))
    (claim,) = await bench.due(one, queues={"q": 1})
    await bench.settle(one, bench.retry(claim, due=bench.clock.now() + 5 * SECOND))
    await bench.advance(5 * SECOND)
    assert await bench.due(two, queues={"other": 9}) == []
    (claim,) = await bench.due(two, queues={"q": 1})
    await two.release([claim])
    (claim,) = await bench.due(one, queues={"q": 1})
    await bench.advance(bench.lease)
    await bench.lapse(two)
    await bench.advance(2 * SECOND)
    assert await bench.due(two, queues={"other": 9}) == []
    assert ids(await bench.due(two, queues={"q": 1})) == ["job"]


@law
async def jobs_are_listed_by_queue(bench: Bench) -> None:
    """Jobs are listed by the name of their queue, exactly, and joined with other filters."""
    backend = await bench.open()
    names = ("default", "alerts", "Alerts", "alerts2", "a_erts", "alerts", "default")
    jobs = [bench.job(f"{n}", due=None, queue=name) for n, name in enumerate(names)]
    added = await add_all(bench, backend, jobs)
    for name in {*names, "nothing", "%", "*"}:
        expected = [job for job in added if job.spec.queue == name]
        assert await bench.jobs(backend, limit=1, queue=name) == expected, f"of {name!r}"
    assert await bench.jobs(backend, queue="alerts", id_prefix="5") == [added[5]]
    assert await bench.jobs(backend, queue="alerts", group="another") == []
    moved = await backend.replace(evolve(added[1], spec=evolve(added[1].spec, queue="alerts2")))
    assert await bench.jobs(backend, queue="alerts") == [added[5]], "an edit has moved it away"
    assert await bench.jobs(backend, queue="alerts2") == [moved, added[3]]


# -- waiting


@law
async def what_the_room_does_not_take_wakes_no_wait(bench: Bench) -> None:
    """A due job of a queue that is not served, or of a refused id, ends no wait."""
    backend, other = await bench.open(), await bench.open()
    await bench.added(backend, queued(bench, "due", "bulk", 60))
    soon = bench.clock.now() + timedelta(seconds=2)
    await bench.added(backend, bench.job("soon", due=soon, queue="bulk"))
    for _ in range(2):
        await stays(bench, backend, queues={"alerts": 5})
        await stays(bench, other, queues={"alerts": 5, "bulk": 0})
        await stays(bench, other, accepts=lambda job_id: job_id == "other")
        await bench.advance(3 * SECOND)
    await bench.added(backend, queued(bench, "mine", "alerts"))
    assert ids(await bench.due(backend, queues={"alerts": 5})) == ["mine"]
    await stays(bench, backend, queues={"alerts": 5})
