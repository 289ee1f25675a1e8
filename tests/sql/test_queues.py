"""Claims by queue and by id in databases, compared with the backend in memory."""

from __future__ import annotations

import random
from datetime import timedelta
from pathlib import Path
from typing import Any

import anyio
import pytest
from attrs import evolve
from tests.sql.stores import LEASE, MINUTE, NOW, Store, done, job, outcomes, run, stored

from sched_core import Backend, JobQuery, MemoryBackend, Room
from sched_core.testing import FakeClock

KINDS = pytest.mark.parametrize("kind", ["sqlite", "postgres"])
QUEUES = ["default", "alerts", "bulk", "a", 'ü\\"%', "zz"]


def rooms(chance: random.Random) -> Room:
    """Return a room of any kind."""
    names = chance.sample([*QUEUES, "*", "nobody's"], chance.randint(1, 4))
    queues = {name: chance.randint(0, 3) for name in names}
    refused = chance.choice("0123456789")
    return Room(
        chance.randint(0, 6),
        chance.choice([None, queues]),
        chance.choice([None, lambda job_id: refused not in job_id]),
    )


async def ids(backend: Backend, room: Room) -> list[str]:
    claimed = await backend.claim_due(room)
    moments = [claim.job.standing.due_at for claim in claimed.claims]
    assert moments == sorted(moments, key=lambda at: at or NOW)
    return [claim.job.id for claim in claimed.claims]


@KINDS
@pytest.mark.parametrize("seed", range(6))
def test_the_same_is_claimed_as_in_memory(kind: str, seed: int, tmp_path: Path) -> None:
    async def test(store: Store) -> None:
        chance = random.Random(seed)
        twin, clock = MemoryBackend(lease=LEASE), FakeClock(NOW)
        await twin.open(clock, worker="w")
        workers = [await store.open(), await store.open()]
        used = QUEUES if seed % 3 else QUEUES[:1]
        for number in range(60):
            due = NOW + timedelta(seconds=number * 7 % 60)
            one = job(f"{number}", due, queue=chance.choice(used))
            await twin.add([one])
            await workers[number % 2].add([one])
        for _ in range(60):
            room, worker = rooms(chance), chance.choice(workers)
            earliest = store.clock.now() + timedelta(days=1)
            found = worker._table.earliest(room, store.clock.now, earliest)  # type: ignore[attr-defined]
            assert found == twin.store.earliest(room), room
            assert await ids(worker, room) == await ids(twin, room), room
            for each in (clock, store.clock):
                each.advance(timedelta(seconds=1))
        await twin.close()

    run(test, kind, tmp_path)


@KINDS
def test_a_job_keeps_its_queue_and_is_listed_by_it(kind: str, tmp_path: Path) -> None:
    async def test(store: Store) -> None:
        backend = await store.open()
        await backend.add([job("a"), job("b", queue=QUEUES[4]), job("c", None, queue="bulk")])

        async def listed(**query: Any) -> list[str]:
            page = await backend.jobs(JobQuery(**query), after=None, limit=9)
            return [each.id for each in page.items]

        assert await listed(queue="default") == ["a"]
        assert await listed(queue=QUEUES[4]) == ["b"]
        assert await listed(queue="bulk") == ["c"]
        assert await listed(queue="*") == []

    run(test, kind, tmp_path)


@KINDS
def test_what_is_refused_can_change(kind: str, tmp_path: Path) -> None:
    async def test(store: Store) -> None:
        backend, refused = await store.open(), {"a", "b"}
        room = Room(9, None, lambda job_id: job_id not in refused)
        await backend.add([job("a"), job("b"), job("c")])
        assert await ids(backend, room) == ["c"]
        assert await ids(backend, room) == []
        refused.discard("b")
        assert await ids(backend, room) == ["b"]
        assert await ids(backend, Room(9)) == ["a"]

    run(test, kind, tmp_path)


@KINDS
def test_a_predicate_that_raises_loses_no_claim(kind: str, tmp_path: Path) -> None:
    async def test(store: Store) -> None:
        backend = await store.open()

        def accepts(job_id: str) -> bool:
            if job_id == "b":
                raise LookupError(job_id)
            return True

        await backend.add([job("a"), job("b", NOW + timedelta(microseconds=1)), job("c")])
        store.clock.advance(MINUTE)
        with pytest.raises(LookupError):
            await backend.claim_due(Room(9, None, accepts))
        for each in ("a", "b", "c"):
            assert (await stored(backend, each)).held is None
        claims = (await backend.claim_due(Room(9))).claims
        assert sorted(claim.job.id for claim in claims) == ["a", "b", "c"]
        assert all(claim.job.standing.scheduled.attempts == 0 for claim in claims)  # type: ignore[union-attr]
        assert outcomes(await backend.settle([done(claim) for claim in claims])) == ["written"] * 3
        # Who only writes a job does not get it.
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(backend.wait_due, Room(1, None, accepts))
            while backend._sleeps_until is None:  # type: ignore[attr-defined]  # noqa: ASYNC110
                await anyio.sleep(0.01)
            await backend.add([job("b2"), job("b3")])

    run(test, kind, tmp_path)


@KINDS
@pytest.mark.parametrize(
    "room",
    [
        Room(5, None, lambda job_id: job_id != "no"),
        Room(5, {"alerts": 5, "bulk": 0}),
        Room(5, {"*": 5, "bulk": 0}, lambda job_id: job_id != "no"),
    ],
)
def test_what_is_not_taken_wakes_nobody(kind: str, room: Room, tmp_path: Path) -> None:
    async def test(store: Store) -> None:
        backend, other = await store.open(), await store.open()
        if room.queues is not None:
            await other.add([job("bulk", queue="bulk")])
        await other.add([job("no")])
        ended = anyio.Event()

        async def wait() -> None:
            await backend.wait_due(room)
            ended.set()

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(wait)
            while backend._sleeps_until is None:  # type: ignore[attr-defined]  # noqa: ASYNC110
                await anyio.sleep(0.01)
            for number, worker in enumerate([backend, other]):
                if room.queues is not None:
                    await worker.add([job(f"bulk-{number}", queue="bulk")])
                no = await stored(worker, "no")
                await worker.replace(evolve(no, spec=evolve(no.spec, name=f"{number}")))
            await anyio.sleep(0.5)
            assert not ended.is_set()
            await other.add([job("yes", queue="alerts" if room.queues else "default")])
            with anyio.fail_after(5):
                await ended.wait()
        assert await ids(backend, room) == ["yes"]

    run(test, kind, tmp_path)


@KINDS
def test_a_predicate_that_changes_its_mind_ends(kind: str, tmp_path: Path) -> None:
    async def test(store: Store) -> None:
        backend = await store.open()
        await backend.add([job(f"{number}") for number in range(9)])
        chance, claimed = random.Random(7), list[str]()
        with anyio.fail_after(20):
            while len(claimed) < 9:
                claimed += await ids(backend, Room(9, None, lambda _: chance.random() < 0.5))
        assert sorted(claimed) == [f"{number}" for number in range(9)]

    run(test, kind, tmp_path)
