"""Claims by queue and id where the server's clock decides, and by several workers at once."""

from __future__ import annotations

import random
from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Any

import anyio
import pytest
from tests.postgres.places import Place, past, pending
from tests.sql.test_queues import QUEUES, ids, rooms

from sched_core import Claim, MemoryBackend, Room, SystemClock
from sched_core.testing import FakeClock
from sched_sql import PostgresBackend
from sched_sql.postgres import due_index


async def opened(here: Place, worker: str = "w", **options: Any) -> PostgresBackend:
    backend = here.backend(**options)
    await backend.open(SystemClock(), worker=worker)
    return backend


@pytest.mark.parametrize("dear", [False, True])
@pytest.mark.parametrize("seed", range(4))
def test_the_same_is_claimed_as_in_memory(
    here: Place, seed: int, dear: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where each look from the beginning is so dear that it is avoided."""

    async def main() -> None:
        if dear:
            monkeypatch.setattr(due_index, "CHEAP", -1.0)
            monkeypatch.setattr(due_index, "SHARE", 1e9)
        chance = random.Random(seed)
        twin = MemoryBackend()
        await twin.open(FakeClock(datetime.now(UTC)), worker="w")
        backend = await opened(here)
        moments = [past(1000 - number) for number in range(80)]
        for number, at in enumerate(moments):
            one = pending(f"{number}", at, queue=chance.choice(QUEUES if seed else QUEUES[:1]))
            await twin.add([one])
            await backend.add([one])
        names = chance.sample([*QUEUES, "*"], 4)
        for _ in range(60):
            room = rooms(chance)
            if dear and room.queues is not None:
                # As a worker asks: for the same queues each time, with more or less room.
                room = Room(room.limit, dict(zip(names, room.queues.values(), strict=False)))
            earliest = datetime.now(UTC) + timedelta(days=1)
            expected = twin.store.earliest(room)
            found = backend._table.earliest(room, backend._now, earliest)
            assert (found is None) == (expected is None), room
            held = (await twin.claim_due(room)).claims
            claims = (await backend.claim_due(room)).claims
            assert [one.job.id for one in claims] == [one.job.id for one in held], room
            if chance.random() < 0.3:
                await twin.release(held)
                await backend.release(claims)
        await backend.close()

    anyio.run(main)


def statements(backend: PostgresBackend) -> Counter[str]:
    """Count from now on what is asked for on each connection."""
    counts = Counter[str]()
    for name, lane in backend._table._lanes.items():
        run = lane.run

        def counted(*args: Any, name: str = name, run: Any = run, **options: Any) -> Any:
            counts[name] += 1
            return run(*args, **options)

        lane.run = counted  # type: ignore[method-assign]
    return counts


@pytest.mark.parametrize(
    "room",
    [
        Room(5, None, lambda job_id: job_id != "no"),
        Room(5, {"alerts": 5, "bulk": 0}),
        Room(5, {"*": 5, "bulk": 0}, lambda job_id: job_id != "no"),
    ],
)
def test_what_is_not_taken_makes_no_busy_loop(here: Place, room: Room) -> None:
    async def main() -> None:
        backend, other = await opened(here), await opened(here, "other")
        await other.add([pending("no", past(9)), pending("bulk", past(9), queue="bulk")])
        if room.queues is None:
            await other.claim_due(Room(1, {"bulk": 1}))
        await ids(backend, room)
        with anyio.move_on_after(0.5):  # until it has looked around
            await backend.wait_due(room)
        counts, loops = statements(backend), 0
        with anyio.move_on_after(2):
            while True:
                await backend.wait_due(room)
                assert await ids(backend, room) == []
                loops += 1
        assert loops <= 2
        assert counts["claim"] <= 12, counts
        # And yet what is taken comes at once, from another process, too.
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(backend.wait_due, room)
            await anyio.sleep(0.3)
            await other.add([pending("yes", past(1), queue="alerts" if room.queues else "default")])
        assert await ids(backend, room) == ["yes"]
        for each in (backend, other):
            await each.close()

    anyio.run(main)


def test_refused_claims_are_as_if_they_had_never_been(here: Place) -> None:
    async def main() -> None:
        backend, other = await opened(here), await opened(here, "other")
        room = Room(3, None, lambda job_id: job_id.startswith("yes"))
        await backend.add([pending(f"no-{number:02}", past(100 - number)) for number in range(20)])
        await backend.add([pending("yes-1", past(5)), pending("yes-2", past(4))])
        assert await ids(backend, room) == ["yes-1", "yes-2"]
        before = here.rows("SELECT last_value FROM @serial")
        assert await ids(backend, room) == []
        assert here.rows("SELECT last_value FROM @serial") == before, "it took numbers for claims"
        held = here.rows("SELECT id FROM @job WHERE lease_until IS NOT NULL ORDER BY id")
        assert held == [("yes-1",), ("yes-2",)]
        assert here.rows("SELECT count(*) FROM @execution") == [(0,)]
        claims = (await other.claim_due(Room(99))).claims
        assert len(claims) == 20
        assert {claim.job.standing.scheduled.attempts for claim in claims} == {0}  # type: ignore[union-attr]
        for each in (backend, other):
            await each.close()

    anyio.run(main)


def test_a_refusing_worker_passes_over_locked_rows(here: Place) -> None:
    async def main() -> None:
        backend = await opened(here)
        room = Room(1, None, lambda job_id: job_id != "no")
        await backend.add(
            [pending("no", past(9)), pending("locked", past(8)), pending("c", past(7))]
        )
        with here.connect() as connection:
            connection.execute(f"SELECT FROM {here.schema}.job WHERE id = 'locked' FOR UPDATE")
            with anyio.fail_after(5):
                assert await ids(backend, room) == ["c"]
                assert await ids(backend, room) == []
        assert await ids(backend, room) == ["locked"]
        await backend.close()

    anyio.run(main)


def test_workers_share_queues_without_leaving_any_job(here: Place) -> None:
    """Each job is claimed once, by whichever of four workers, and no queue gives too much."""

    async def main() -> None:
        workers = [await opened(here, f"w{number}") for number in range(4)]
        room = Room(7, {"a": 3, "default": 2, "*": 4}, lambda job_id: not job_id.startswith("no"))
        jobs = [
            pending(f"{number}", past(1000 - number), queue=QUEUES[number % len(QUEUES)])
            for number in range(400)
        ]
        await workers[0].add([*jobs, *(pending(f"no{n}", past(2000), queue="a") for n in range(9))])
        claimed: list[Claim] = []

        async def work(worker: PostgresBackend) -> None:
            while claims := (await worker.claim_due(room)).claims:
                queues = Counter(claim.job.spec.queue for claim in claims)
                rest = sum(n for name, n in queues.items() if name not in {"a", "default"})
                assert (queues["a"] <= 3, queues["default"] <= 2, rest <= 4) == (True,) * 3
                claimed.extend(claims)

        with anyio.fail_after(20):
            async with anyio.create_task_group() as tasks:
                for worker in workers:
                    tasks.start_soon(work, worker)
            # One that found nothing may have come while another had locked the last ones.
            await work(workers[0])
        assert Counter(claim.job.id for claim in claimed) == Counter(str(n) for n in range(400))
        for worker in workers:
            await worker.close()

    anyio.run(main)
