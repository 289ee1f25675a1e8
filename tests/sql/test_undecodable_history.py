"""Records of the history that this version cannot read: listed in their place, left alone."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
from tests import postgres_server
from tests.sql.stores import MINUTE, NOW, Store, done, job, outcomes, run

from sched_core import Backend, Execution, ExecutionQuery, Room, Status, UndecodableExecution

LAST = 2**63 - 1
BOTH: list[tuple[str, Any]] = [
    ("status", "deferred"),
    ("status", ""),
    *(
        (name, value)
        for name in ("scheduled_at", "claimed_at", "started_at", "finished_at")
        for value in (LAST, -LAST)
    ),
    ("coalesced_until", 253_402_300_800_000_000),
    ("expires_at", LAST),
]
SQLITE: list[tuple[str, Any]] = [
    ("finished_at", "soon"),
    ("finished_at", 1.5),
    ("expires_at", b"never"),
    ("uid", b"\xff"),
    ("job_id", b"\xff"),
    ("number", "many"),
    ("attempt", float("inf")),
    ("final", "yes"),
    ("kind", b"by hand"),
    ("snoozes", "some"),
    ("token", b""),
    ("reason", b"in bytes"),
]
NO_UTF_8 = ("reason", "uid", "status", "job_id")
MANNERS = [("sqlite", spoilt) for spoilt in BOTH + SQLITE] + [
    ("postgres", spoilt) for spoilt in BOTH
]


def execute(store: Store, statement: str, *values: Any) -> list[tuple[Any, ...]]:
    """Run a statement by hand; ``@`` is before the names of tables."""
    if store.kind == "sqlite":
        with closing(sqlite3.connect(store.path)) as connection, connection:
            return connection.execute(statement.replace("@", "sched_"), values).fetchall()
    assert store._place is not None
    statement = statement.replace("@", f"{store._place[1]}.").replace("?", "%s")
    local = postgres_server.shared().local.replace("dbname=postgres", "dbname=sched")
    with psycopg.connect(local) as server:
        cursor = server.execute(statement, values)
        return cursor.fetchall() if cursor.description else []


async def three_runs(store: Store, backend: Backend) -> list[Execution]:
    """Run a job three times, a minute apart; return its history, newest first."""
    await backend.add([job("a")])
    for number in range(1, 4):
        (claim,) = (await backend.claim_due(Room(1))).claims
        due = NOW + number * MINUTE
        assert outcomes(await backend.settle([done(claim, store.clock.now(), next_run=due)])) == [
            "written"
        ]
        store.clock.jump(due)
    found = [one for one in await listed(backend) if isinstance(one, Execution)]
    assert [one.number for one in found] == [3, 2, 1]
    return found


async def listed(
    backend: Backend, limit: int = 2, **query: Any
) -> list[Execution | UndecodableExecution]:
    found: list[Execution | UndecodableExecution] = []
    after = None
    while True:
        page = await backend.executions(ExecutionQuery(**query), after=after, limit=limit)
        assert len(page.items) <= limit
        found += page.items
        if (after := page.next) is None:
            return found


@pytest.mark.parametrize(("kind", "spoilt"), MANNERS, ids=str)
def test_a_spoilt_record_is_listed_in_its_place_and_hides_no_other(
    kind: str, spoilt: tuple[str, Any], tmp_path: Path
) -> None:
    column, value = spoilt

    async def test(store: Store) -> None:
        backend = await store.open()
        newest, middle, oldest = await three_runs(store, backend)
        execute(store, f"UPDATE @execution SET {column} = ? WHERE number = 2", value)

        for limit in (1, 2, 3, 10):
            first, odd, last = await listed(backend, limit)
            assert (first, last) == (newest, oldest)
        assert isinstance(odd, UndecodableExecution)
        assert odd.id == (
            middle.id if column not in {"uid", "number", "attempt"} else f"seq:{_seq(odd)}"
        )
        assert odd.job_id == ("" if column == "job_id" else "a")
        columns = json.loads(odd.record)
        assert columns[column] == ({"hex": value.hex()} if isinstance(value, bytes) else value)
        assert columns["worker"] == middle.worker
        assert odd.reason

        # A caller that asks for some of them gets what might be one of them.
        assert odd in await listed(backend, job_id="a")
        assert (odd in await listed(backend, job_id="b")) is (column == "job_id")
        assert await listed(backend, statuses=frozenset({Status.MISSED})) == [odd]
        assert await listed(backend, final=False) == [odd]
        knows_when = column != "finished_at"
        assert (odd in await listed(backend, since=newest.finished_at)) is not knows_when
        assert (odd in await listed(backend, until=middle.finished_at)) is not knows_when

        # The next run ends as ever, and its execution is looked up.
        (claim,) = (await backend.claim_due(Room(1))).claims
        settlement = done(claim, store.clock.now(), next_run=None)
        assert outcomes(await backend.settle([settlement])) == ["written"]
        assert outcomes(await backend.settle([settlement])) == ["written"]

        far = datetime(9999, 1, 1, tzinfo=UTC)
        assert await backend.prune(far) == (4 if knows_when else 3)
        assert await listed(backend) == ([] if knows_when else [odd])

    run(test, kind, tmp_path)


def _seq(record: UndecodableExecution) -> int:
    return int(json.loads(record.record)["seq"])


@pytest.mark.parametrize("column", NO_UTF_8)
def test_text_that_is_no_utf_8_hides_no_other_record(column: str, tmp_path: Path) -> None:
    async def test(store: Store) -> None:
        backend = await store.open()
        newest, _, oldest = await three_runs(store, backend)
        spoil = f"UPDATE sched_execution SET {column} = CAST(x'61ff' AS TEXT) WHERE number = 2"
        execute(store, spoil)
        first, odd, last = await listed(backend)
        assert (first, last) == (newest, oldest)
        assert isinstance(odd, UndecodableExecution)
        assert json.loads(odd.record)[column] == "a\udcff"
        assert f"{odd.id}{odd.job_id}{odd.reason}".encode(), "it can be shown to people"

    run(test, "sqlite", tmp_path)


@pytest.mark.parametrize("kind", ["sqlite", "postgres"])
def test_a_repeated_settlement_is_known_among_records_that_cannot_be_read(
    kind: str, tmp_path: Path
) -> None:
    async def test(store: Store) -> None:
        one, other = await store.open(), await store.open()
        await one.add([job("a")])
        (claim,) = (await one.claim_due(Room(1))).claims
        settlement = done(claim, next_run=NOW + MINUTE)
        await one.settle([settlement])
        execute(store, "UPDATE @execution SET claimed_at = ?", LAST)
        store.clock.advance(MINUTE)
        await other.claim_due(Room(1))
        assert outcomes(await one.settle([settlement])) == ["written"]
        # The claim of the other one is lost, and leaves its execution.
        store.clock.advance(timedelta(hours=1))
        (told,) = (await one.claim_due(Room(1))).lapsed
        lost, odd = await listed(one)
        assert lost == told
        assert isinstance(lost, Execution)
        assert lost.status is Status.ABANDONED
        assert isinstance(odd, UndecodableExecution)

    run(test, kind, tmp_path)
