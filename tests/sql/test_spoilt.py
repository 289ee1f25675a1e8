"""A row in which a column holds what no version of ours ever wrote costs that row only."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import Any

import anyio
import pytest
from tests.sql.stores import LEASE, NOW, Store, done, job, outcomes, run

from sched_core import JobQuery, Room, Undecodable
from sched_core.errors import JobUndecodable
from sched_sql._shared.holds import RECORD_COLUMNS

ODD: dict[str, Any] = {
    "text": "x",
    "nothing": None,
    "bytes": b"\xff\x00",
    "negative": -5,
    "huge": 2**63 - 1,
    "half": 1.5,
    "no JSON": '{"a":',
}


def spoil(path: Path, change: str, *values: object) -> bool:
    """Change a row by hand; return whether SQLite took the value."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        try:
            connection.execute(f"UPDATE sched_job SET {change} WHERE id = 'm'", values)
        except sqlite3.IntegrityError:
            return False
        return True


def row(path: Path) -> tuple[Any, ...]:
    with closing(sqlite3.connect(path)) as connection:
        connection.text_factory = bytes
        found: tuple[Any, ...] = connection.execute(
            "SELECT * FROM sched_job WHERE id NOT IN ('a', 'z')"
        ).fetchone()
        return found


COLUMNS = [*RECORD_COLUMNS.split(", "), "task", "args", "moved"]


@pytest.mark.parametrize("odd", ODD)
def test_any_value_in_any_column_stops_no_other_job(tmp_path: Path, odd: str, deep: bool) -> None:
    """While the row is free, or is held by a claim whose lease has ended: the long form has both.

    In the short form, every other value of a column meets the one, the next one the other.
    """
    number = list(ODD).index(odd)

    async def test(store: Store) -> None:
        backend, other = await store.open(), await store.open()
        for place, column in enumerate(COLUMNS):
            for held in (False, True) if deep else ((place + number) % 2 == 0,):
                await backend.add([job("a"), job("m"), job("z")])
                if held:
                    assert len((await other.claim_due(Room(9))).claims) == 3
                    store.clock.advance(LEASE)
                if not spoil(store.path, f"{column} = ?", ODD[odd]):
                    await wipe(store.path)
                    continue
                before = row(store.path)
                with anyio.move_on_after(0.001):
                    await backend.wait_due(Room(1))
                claims = [*(await backend.claim_due(Room(9))).claims]
                if held:
                    store.clock.advance(LEASE)  # what has lapsed waits
                claims += (await backend.claim_due(Room(9))).claims
                good = [claim for claim in claims if claim.job.id in {"a", "z"}]
                assert len(good) == 2, (column, held)
                page = await backend.jobs(JobQuery(), after=None, limit=9)
                listed = [one for one in page.items if one.id not in {"a", "z"}]
                assert len(page.items) - len(listed) == 2
                if listed and isinstance(listed[0], Undecodable):
                    assert listed[0].reason
                    if len(claims) == 2:
                        assert row(store.path) == before, (column, held)
                settled = await backend.settle([done(claim) for claim in good])
                assert outcomes(settled) == ["written"] * 2
                await backend.release([claim for claim in claims if claim not in good])
                await backend.check()
                await wipe(store.path)

    run(test, "sqlite", tmp_path)


async def wipe(path: Path) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("DELETE FROM sched_job")


@pytest.mark.parametrize(
    "change",
    [
        "lease_until = 0, worker = NULL",
        "lease_until = 0",
        "lease_until = 0, worker = 'w', claimed_at = 0, held = '{}'",
        "removed = 7",
    ],
)
def test_half_a_hold_is_listed_and_left_alone_until_it_is_repaired(
    tmp_path: Path, change: str
) -> None:
    async def test(store: Store) -> None:
        backend = await store.open()
        await backend.add([whole := job("m"), job("a"), job("z")])
        spoil(store.path, change)
        before = row(store.path)
        assert {one.job.id for one in (await backend.claim_due(Room(9))).claims} == {"a", "z"}
        found = await backend.get("m")
        assert isinstance(found, Undecodable)
        assert any(word in found.reason for word in ("hold", "claim", "removed"))
        page = await backend.jobs(JobQuery(), after=None, limit=9)
        assert [one.id for one in page.items if isinstance(one, Undecodable)] == ["m"]
        with pytest.raises(JobUndecodable):
            await backend.remove(whole)
        assert await backend.prune(NOW + timedelta(days=999)) == 0
        assert row(store.path) == before
        spoil(store.path, "lease_until = NULL, worker = NULL, held = NULL, removed = 0")
        with anyio.move_on_after(1):
            while not (claims := (await backend.claim_due(Room(9))).claims):
                await backend.wait_due(Room(1))
        assert [claim.job.id for claim in claims] == ["m"]

    run(test, "sqlite", tmp_path)
