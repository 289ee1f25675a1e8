"""Looks at a store of SQL: what no law can show, because it needs rows, files or plans."""

from __future__ import annotations

import json
import random
import shutil
import sqlite3
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import anyio
import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as some
from tests.sql.stores import LEASE, MINUTE, NOW, Store, done, job, run

from sched_core import (
    Backend,
    Claim,
    ClaimQuery,
    CountQuery,
    CursorExpired,
    Execution,
    InvalidDefinition,
    Renewal,
    Room,
    State,
    Status,
    UndecodableExecution,
    WorkerState,
)
from sched_sql._shared.cursors import Cursor, read_cursor
from sched_sql._shared.moments import micros
from sched_sql._shared.survey import MOST_EXECUTIONS, NEAR, search
from sched_sql.postgres.partitions import NEVER
from sched_sql.sqlite import survey as sqlite_survey
from sched_sql.sqlite.table import SqliteTable

BOTH = pytest.mark.parametrize("kind", ["sqlite", "postgres"])


class Raw:
    """The tables of a store, for statements that are the same in both dialects but for names."""

    def __init__(self, store: Store) -> None:
        self.is_postgres = store.kind == "postgres"
        self._connection: Any
        if store._place is not None:
            address, schema = store._place
            self._prefix = f"{schema}."
            self._connection = psycopg.connect(address, autocommit=True)
        else:
            self._prefix = "sched_"
            self._connection = sqlite3.connect(store.path, isolation_level=None)

    def rows(self, statement: str, values: Any = ()) -> list[Any]:
        filled = statement.replace("@", self._prefix)
        if self.is_postgres:
            filled = filled.replace("?", "%s")
        cursor = self._connection.execute(filled, values)
        return list(cursor.fetchall()) if cursor.description else []

    def insert(self, finished: list[int], statuses: list[str]) -> None:
        """Write executions in this order."""
        own = ("drop_at", NEVER) if self.is_postgres else ("indexed", 1)
        last = max(1000, *(row[0] or 0 for row in self.rows("SELECT max(seq) FROM @execution")))
        rows = [
            (last + n, f"j{n % 7}", "u", last + n, 1, "scheduled", 0, text, True, 0, "w", 0, at)
            for n, (at, text) in enumerate(zip(finished, statuses, strict=True), 1)
        ]
        statement = (
            "INSERT INTO @execution (seq, job_id, uid, number, attempt, kind, scheduled_at, "
            f"status, final, token, worker, claimed_at, finished_at, {own[0]}) "
            f"VALUES ({', '.join('?' * 13)}, {own[1]})"
        ).replace("@", self._prefix)
        cursor = self._connection.cursor()
        cursor.execute("BEGIN")
        marks = statement.replace("?", "%s") if self.is_postgres else statement
        cursor.executemany(marks, rows)
        cursor.execute("COMMIT")

    def close(self) -> None:
        self._connection.close()


@contextmanager
def raw(store: Store) -> Iterator[Raw]:
    with closing(Raw(store)) as made:
        yield made


async def one_run(store: Store, backend: Backend, job_id: str = "a") -> Claim:
    found = await backend.get(job_id)
    if found is None:
        await backend.add([job(job_id, store.clock.now())])
    (claim,) = (await backend.claim_due(Room(1, accepts=lambda each: each == job_id))).claims
    following = store.clock.now() + MINUTE
    await backend.settle([done(claim, store.clock.now(), next_run=following)])
    store.clock.advance(minutes=1)
    return claim


# -- what is not indexed yet


def test_what_is_not_indexed_yet_is_found_among_what_is(tmp_path: Path) -> None:
    async def test(store: Store) -> None:
        backend = await store.open()
        for _ in range(3):
            await one_run(store, backend)
        await backend.prune(NOW - timedelta(days=1))  # indexes all
        for job_id in ("a", "b", "a"):
            await one_run(store, backend, job_id)
        with raw(store) as table:
            rows = table.rows("SELECT indexed FROM @execution ORDER BY seq")
            assert rows == [(1,), (1,), (1,), (0,), (0,), (0,)]
        recent = await backend.recent(["b", "a", "none"], limit=4)
        assert {name: [each.number for each in found] for name, found in recent.items()} == {  # type: ignore[union-attr]
            "a": [5, 4, 3, 2],
            "b": [1],
        }
        for found in recent.values():
            for each in found:
                assert await backend.execution(each.id) == each
        part = await backend.follow("", limit=10)
        assert [each.job_id for each in part.executions] == ["a", "a", "a", "a", "b", "a"]

    run(test, "sqlite", tmp_path)


def test_an_execution_whose_name_cannot_be_read_is_found_by_its_number(tmp_path: Path) -> None:
    async def test(store: Store) -> None:
        backend = await store.open()
        await one_run(store, backend)
        with raw(store) as table:
            table.rows("UPDATE @execution SET uid = x'ff'")
        (found,) = (await backend.follow("", limit=1)).executions
        assert isinstance(found, UndecodableExecution)
        assert found.id.startswith("seq:")
        assert await backend.execution(found.id) == found
        for strange in ("seq:", "seq:1", "seq:-1", f"seq:{2**70}", f"u:{2**70}:1", "u:1:1\0"):
            assert await backend.execution(strange) is None

    run(test, "sqlite", tmp_path)


# -- how much there is


@given(
    some.lists(some.integers(0, 10**12), min_size=1, max_size=50).map(sorted),
    some.integers(-1, 10**12 + 1),
    some.integers(1, 10**6),
)
def test_the_place_of_a_moment_is_between_what_is_returned(
    moments: list[int], at: int, step: int
) -> None:
    rows = [(step * (1 + n * n), moment) for n, moment in enumerate(moments)]
    searching, looks = search(rows[0], rows[-1], at), 0
    try:
        middle = next(searching)
        while True:
            looks += 1
            middle = searching.send(next(row for row in rows if row[0] >= middle))
    except StopIteration as end:
        before, after = end.value
    assert all(seq <= after - 1 for seq, moment in rows if moment < at)
    assert all(seq > before for seq, moment in rows if moment >= at)
    assert looks < 100


@BOTH
@pytest.mark.parametrize("by", [None, "hour", "job"])
def test_what_finished_in_a_part_of_a_long_history(kind: str, by: Any, tmp_path: Path) -> None:
    """Also what was written up to an hour late is counted."""
    count, step = 4 * NEAR, 10_000_000
    shuffled = random.Random(7)
    finished = [micros(NOW) + n * step - shuffled.randrange(3_500_000_000) for n in range(count)]
    statuses = [shuffled.choice(["succeeded", "failed", "deferred"]) for _ in range(count)]

    async def test(store: Store) -> None:
        backend = await store.open()
        with raw(store) as table:
            table.insert(finished, statuses)
        for begin, end in ((0, 1), (5, 9), (20, None), (100, None), (200, 300)):
            since = NOW + timedelta(hours=begin)
            until = None if end is None else NOW + timedelta(hours=end)
            counts = await backend.counts(CountQuery(since, until, by=by))
            last = micros(until) if until else 2**62
            wanted = Counter(
                Status(text)
                for at, text in zip(finished, statuses, strict=True)
                if micros(since) <= at < last and text != "deferred"
            )
            assert (dict(counts.executions), counts.complete) == (dict(wanted), True)
            if by is not None:
                grouped = Counter[Status]()
                for each in counts.groups.values():
                    grouped.update(each)
                assert grouped == wanted

    run(test, kind, tmp_path)


def test_of_more_than_can_be_counted_soon_the_newest_is_counted(tmp_path: Path) -> None:
    count = 2 * MOST_EXECUTIONS + 10

    async def test(store: Store) -> None:
        backend = await store.open()
        with raw(store) as table:
            table.insert([micros(NOW) + n for n in range(count)], ["succeeded"] * count)
        counts = await backend.counts(CountQuery(NOW))
        assert (counts.executions, counts.complete) == (
            {Status.SUCCEEDED: MOST_EXECUTIONS},
            False,
        )

    run(test, "sqlite", tmp_path)


@BOTH
def test_jobs_by_state_beside_tombstones_and_what_cannot_be_read(kind: str, tmp_path: Path) -> None:
    async def test(store: Store) -> None:
        backend = await store.open()
        await backend.add([job(name) for name in "abcdef"] + [job("done", None)])
        (claim,) = (await backend.claim_due(Room(1))).claims
        held = await backend.get(claim.job.id)
        await backend.remove(held)  # type: ignore[arg-type]  # it can be read
        left = [name for name in "abcdef" if name != claim.job.id]
        with raw(store) as table:
            table.rows("UPDATE @job SET format = 99 WHERE id = ?", (left[0],))
            table.rows("UPDATE @job SET tag = 'moon' WHERE id IN (?, 'done')", (left[1],))
        counts = await backend.counts(CountQuery(NOW))
        assert (counts.jobs, counts.undecodable) == ({State.ACTIVE: 3}, 3)
        assert (counts.due, counts.running, counts.oldest_due) == (3, 1, NOW)

    run(test, kind, tmp_path)


# -- claims


@BOTH
def test_a_claim_is_listed_with_a_lease_that_was_extended_without_its_row(
    kind: str, tmp_path: Path
) -> None:
    async def test(store: Store) -> None:
        backend = await store.open()
        await backend.add([job("a")])
        (claim,) = (await backend.claim_due(Room(1))).claims
        store.clock.advance(seconds=20)
        with raw(store) as table:
            table.rows("BEGIN" if table.is_postgres else "BEGIN IMMEDIATE")
            table.rows("UPDATE @job SET name = 'other'")
            assert len(await backend.renew([Renewal(claim)])) == 1
            table.rows("ROLLBACK")
        (hold,) = (await backend.claims(ClaimQuery(), after=None, limit=9)).items
        assert (hold.token, hold.expires_at) == (claim.token, NOW + timedelta(seconds=20) + LEASE)

    run(test, kind, tmp_path)


def test_a_claim_is_listed_after_the_clock_was_set_back(tmp_path: Path) -> None:
    """In PostgreSQL what is held is found by when it was due."""

    async def test(store: Store) -> None:
        backend = await store.open()
        store.clock.advance(hours=2)
        await backend.add([job("a", store.clock.now())])
        assert (await backend.claim_due(Room(1))).claims
        now = store.clock.now()
        await backend.report(WorkerState("worker-1", now, now))
        store.clock.jump(NOW)
        other = await store.open()
        for each in (backend, other):
            assert len((await each.claims(ClaimQuery(), after=None, limit=9)).items) == 1

    run(test, "postgres", tmp_path)


# -- workers


@BOTH
def test_reports_that_cannot_be_read_are_left_out(kind: str, tmp_path: Path) -> None:
    async def test(store: Store) -> None:
        backend = await store.open()
        state = WorkerState("worker-1", NOW, NOW, queues={"a": 1}, unrouted={"x": NOW})
        await backend.report(state)
        with raw(store) as table:
            ((details,),) = table.rows("SELECT details FROM @worker")
            told = json.loads(details)
            for name, text in (
                ("b", ""),
                ("c", "[]"),
                ("d", details),
                ("e", json.dumps(told | {"name": "e", "moons": 2})),
                ("f", json.dumps(told | {"name": "f", "pid": "one"})),
            ):
                columns = "worker, started_at, seen_at, details"
                table.rows(
                    f"INSERT INTO @worker ({columns}) VALUES (?, ?, ?, ?)",
                    (name, 0, micros(NOW), text),
                )
        assert await backend.workers() == [state]
        store.clock.advance(days=2)
        await backend.prune(NOW - timedelta(days=1))
        with raw(store) as table:
            assert table.rows("SELECT count(*) FROM @worker") == [(0,)]

    run(test, kind, tmp_path)


def test_closing_withdraws_no_report_that_a_locked_file_keeps(tmp_path: Path) -> None:
    """It takes no longer than its bound, and the report is forgotten a day later."""

    async def test(store: Store) -> None:
        backend = await store.open()
        await backend.report(WorkerState("worker-1", NOW, NOW))
        with raw(store) as table:
            table.rows("BEGIN IMMEDIATE")
            with anyio.fail_after(8):
                try:
                    await backend.close()
                finally:
                    table.rows("ROLLBACK")
            assert table.rows("SELECT worker FROM @worker") == [("worker-1",)]
        store._opened.clear()

    run(test, "sqlite", tmp_path)


# -- following a file


def test_a_cursor_of_a_state_that_was_restored_away_has_expired(tmp_path: Path) -> None:
    """Numbers come again after a restore, and what has them now was never returned."""

    async def test(store: Store) -> None:
        backend = await store.open()
        await one_run(store, backend)
        kept = (await backend.follow("", limit=5)).cursor
        await backend.close()
        shutil.copy(store.path, tmp_path / "backup.db")
        backend = await store.open()
        await one_run(store, backend)
        lost = (await backend.follow("", limit=5)).cursor
        await backend.close()
        shutil.copy(tmp_path / "backup.db", store.path)
        backend = await store.open()
        with pytest.raises(CursorExpired):
            await backend.follow(lost, limit=5)
        for job_id in ("b", "c"):
            await one_run(store, backend, job_id)
        with pytest.raises(CursorExpired):
            await backend.follow(lost, limit=5)
        part = await backend.follow(kept, limit=5)
        assert [each.job_id for each in part.executions] == ["b", "c"]
        await backend.close()
        store._opened.clear()

    run(test, "sqlite", tmp_path)


def test_who_begins_with_the_oldest_knows_what_is_gone_by_then(tmp_path: Path) -> None:
    async def test(store: Store) -> None:
        backend = await store.open()
        for _ in range(4):
            await one_run(store, backend)
        with raw(store) as table:
            numbers = [seq for (seq,) in table.rows("SELECT seq FROM @execution ORDER BY seq")]
            # As a retention that is shorter than the others'.
            table.rows("UPDATE @execution SET expires_at = 0 WHERE seq = ?", (numbers[2],))
        before = (await backend.follow("", limit=1)).cursor
        await backend.prune(NOW - timedelta(days=1))
        with pytest.raises(CursorExpired):
            await backend.follow(before, limit=1)
        cursor, found = "", list[int]()
        while (part := await backend.follow(cursor, limit=1)).executions:
            found += [each.number for each in part.executions if isinstance(each, Execution)]
            cursor = part.cursor
        assert found == [1, 2, 4]

    run(test, "sqlite", tmp_path)


@given(some.builds(Cursor, *[some.integers(1, 2**60)] * 3, some.integers(0, 2**32 - 1)))
def test_a_cursor_is_read_as_it_was_written(cursor: Cursor) -> None:
    known = Cursor(cursor.store, cursor.xact, cursor.seq, cursor.mark, (7, 8))
    for each in (cursor, known):
        assert read_cursor(str(each), each.store) == each
        with pytest.raises(InvalidDefinition, match="another store"):
            read_cursor(str(each), each.store + 1)
    for odd in (" ", "1", f"{cursor}.", f"{cursor} ", f"{cursor}.1", "x.1.1.1", "1.1.1.1.1"):
        with pytest.raises(InvalidDefinition, match="that follow returned"):
            read_cursor(odd, cursor.store)


# -- plans


def test_plans(tmp_path: Path) -> None:
    """No look reads the table of jobs, and none of the history reads more than it shows."""
    table = SqliteTable(
        str(tmp_path / "jobs.db"), synchronous="NORMAL", timeout=1.0, lease=timedelta(seconds=30)
    )
    table.open("w-1", lambda: NOW)
    seen = list[tuple[str, list[str]]]()
    database = table._database
    read = database.read

    def explained(statement: str, values: Any = ()) -> list[Any]:
        if statement.lstrip().startswith(("SELECT", "WITH")):
            plan = read(f"EXPLAIN QUERY PLAN {statement}", values)
            seen.append((statement, [row[-1] for row in plan]))
        return read(statement, values)

    database.read = explained  # type: ignore[method-assign]
    table.add([job("a"), job("b", queue="other")])
    seen.clear()
    for by in sqlite_survey._GROUPS:
        table.counts(CountQuery(NOW, by=by), lambda: NOW)  # type: ignore[arg-type]
    table.claims(ClaimQuery(), None, 10, lambda: NOW)
    table.execution("u:1:1")
    table.recent(["a", "b"], 10)
    table.follow("", 10, lambda: NOW)
    table.follow(None, 10, lambda: NOW)
    table.close()
    assert len(seen) > 20
    for statement, plan in seen:
        for line in plan:
            scans = line.startswith("SCAN") and "sched_" in line
            # A count of all rows reads the smallest index, and the newest row is an end.
            indexed = "USING INDEX" in line or "USING COVERING INDEX" in line
            ends = "ORDER BY seq DESC\nLIMIT 1" in statement or "DESC LIMIT 1" in statement
            assert not scans or indexed or ends, f"{line} in {statement}"
