"""One job's row holds what makes no sense: that costs the row, and never the queue."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import anyio
import psycopg
import pytest
from tests import postgres_server
from tests.sql.stores import (
    LEASE,
    MINUTE,
    NOW,
    Store,
    done,
    history,
    job,
    outcomes,
    renewals,
    run,
)

from sched_core import Backend, JobQuery, Room, State, Undecodable
from sched_core.errors import JobUndecodable

LAST = 2**63 - 1
LONG_AGO = 0
"""A moment that has come, of what is due or was held."""

JOBS: list[dict[str, Any]] = [
    {"last_status": "deferred"},
    {"next_run": LAST},
    {"due_at": -(2**62), "next_run": -LAST},
    {"scheduled_due": LAST},
    {"anchor": -LAST},
    {"number": LAST},
    {"number": None},
    {"attempts": -1},
    {"failures": LAST},
    {"lost": LAST},
    {"snoozes": -1},
    {"began_at": LAST},
    {"paused_at": 0},
    {"paused_at": 0, "pause_number": 1, "paused_until": 253_402_300_800_000_000},
    {"requests": "[1"},
    {"marks": '{"gaps":5}'},
    {"policy": '{"retry":5}'},
    {"metadata": "[]"},
]
UNSEEN = {"requests", "marks", "policy", "metadata"}
"""What no filter sees before the row is read."""
HELD = {"lease_until": LONG_AGO, "claimed_at": LONG_AGO, "token": 1, "worker": "gone"}
HOLDS: list[dict[str, Any]] = [
    {"lease_until": LONG_AGO},
    {**HELD, "worker": None},
    {**HELD, "claimed_at": None},
    {**HELD, "claimed_at": LAST},
    {**HELD, "lease_until": -LAST},
    {**HELD, "renewed_at": LAST},
    {**HELD, "alone_at": -LAST},
    {**HELD, "token": -1},
    {**HELD, "held": "{oops"},
    {**HELD, "held": "[]"},
]


def execute(store: Store, statement: str, values: dict[str, Any] | None = None) -> None:
    assert store._place is not None
    local = postgres_server.shared().local.replace("dbname=postgres", "dbname=sched")
    with psycopg.connect(local) as connection:
        connection.execute(statement.replace("@", f"{store._place[1]}."), values)


def spoil(store: Store, changed: dict[str, Any]) -> None:
    sets = ", ".join(f"{name} = %({name})s" for name in changed)
    execute(store, f"UPDATE @job SET {sets} WHERE id = 'spoilt'", changed)


async def the_others_run(backend: Backend, store: Store) -> None:
    """Run ``good`` once, claiming one job at a time and then all that are left."""
    claims = [
        *(await backend.claim_due(Room(1))).claims,
        *(await backend.claim_due(Room(10))).claims,
    ]
    assert "good" in [claim.job.id for claim in claims]
    due = store.clock.now() + MINUTE
    settled = await backend.settle(
        [done(claim, store.clock.now(), next_run=due) for claim in claims]
    )
    assert outcomes(settled) == ["written"] * len(claims)
    store.clock.jump(due)


@pytest.mark.parametrize("changed", JOBS, ids=str)
def test_a_row_that_is_no_job_is_shown_and_left_alone(
    changed: dict[str, Any], tmp_path: Path
) -> None:
    async def test(store: Store) -> None:
        backend = await store.open()
        await backend.add([job("good"), job("spoilt", NOW - MINUTE, expires_at=NOW)])
        spoil(store, changed)
        shown = await backend.get("spoilt")
        assert isinstance(shown, Undecodable)
        page = await backend.jobs(JobQuery(state=State.PAUSED), after=None, limit=5)
        if changed.keys() & UNSEEN:
            page = await backend.jobs(JobQuery(), after="good", limit=5)  # no filter sees it
        assert page.items == [shown]

        assert await backend.prune(NOW) == 0
        for _ in range(2):
            await the_others_run(backend, store)
        # What is due and cannot be run keeps no worker awake.
        (claim,) = (await backend.claim_due(Room(10))).claims
        with anyio.move_on_after(0.3) as scope:
            await backend.wait_due(Room(1))
        assert scope.cancelled_caught
        assert await backend.renew(renewals([claim]))
        assert await backend.get("spoilt") == shown

    run(test, "postgres", tmp_path)


@pytest.mark.parametrize("changed", HOLDS, ids=str)
def test_a_hold_that_makes_no_sense_is_shown_and_left_alone_until_it_is_repaired(
    changed: dict[str, Any], tmp_path: Path
) -> None:
    async def test(store: Store) -> None:
        backend = await store.open()
        (whole, _) = await backend.add([job("spoilt", NOW - MINUTE, expires_at=NOW), job("good")])
        spoil(store, changed)
        shown = await backend.get("spoilt")
        assert isinstance(shown, Undecodable)
        assert shown.reason
        for _ in range(2):
            await the_others_run(backend, store)
        assert await backend.prune(NOW) == 0
        with pytest.raises(JobUndecodable):
            await backend.remove(whole)
        page = await backend.jobs(JobQuery(), after=None, limit=5)
        assert shown in page.items
        assert await history(backend, "spoilt") == []
        execute(
            store,
            "UPDATE @job SET lease_until = NULL, worker = NULL, held = NULL, "
            "revision = nextval('@serial') WHERE id = 'spoilt'",
        )
        assert "spoilt" in [claim.job.id for claim in (await backend.claim_due(Room(10))).claims]

    run(test, "postgres", tmp_path)


@pytest.mark.parametrize("changed", [{"due_at": LAST}, {**HELD, "lease_until": LAST}], ids=str)
def test_a_moment_that_never_comes_keeps_no_worker_waiting(
    changed: dict[str, Any], tmp_path: Path
) -> None:
    async def test(store: Store) -> None:
        backend = await store.open()
        await backend.add([job("spoilt", NOW - MINUTE)])
        spoil(store, changed)
        with anyio.move_on_after(0.3) as scope:
            await backend.wait_due(Room(1))
        assert scope.cancelled_caught
        await backend.add([job("good")])
        await backend.wait_due(Room(1))
        await the_others_run(backend, store)
        store.clock.advance(LEASE * 2)
        await the_others_run(backend, store)

    run(test, "postgres", tmp_path)


@pytest.mark.parametrize("held", [True, False])
def test_rows_that_were_copied_by_hand_hold_up_no_worker(held: bool, tmp_path: Path) -> None:
    async def test(store: Store) -> None:
        one, other = await store.open(), await store.open()
        await one.add([job("a")])
        if held:
            await one.claim_due(Room(1))
        execute(
            store,
            "CREATE TEMPORARY TABLE twin ON COMMIT DROP AS SELECT * FROM @job; "
            "UPDATE twin SET id = 'b'; INSERT INTO @job SELECT * FROM twin",
        )
        await one.add([job("c")])
        store.clock.advance(LEASE * 2)
        claims = [*(await other.claim_due(Room(10))).claims]
        store.clock.advance(LEASE / 2)  # what was lost is due again by then
        claims += (await other.claim_due(Room(10))).claims
        assert sorted(claim.job.id for claim in claims) == ["a", "b", "c"]
        settled = await other.settle([done(claim, store.clock.now()) for claim in claims])
        assert outcomes(settled) == ["written"] * 3

    run(test, "postgres", tmp_path)
