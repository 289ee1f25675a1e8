"""A store that revision 1996364 wrote opens and goes on.

``stored/1996364.sql`` is all of it as text; ``stored/make_1996364.py.txt`` has made it there.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import anyio
import psycopg
import pytest
from tests import postgres_server
from tests.postgres.places import Place
from tests.postgres.test_schema import COLUMNS

from sched_core import (
    BackendError,
    BackendUnavailable,
    Execution,
    Job,
    JobEvent,
    JobQuery,
    Kind,
    Room,
    State,
    Status,
    Undecodable,
)
from sched_core.testing import FakeClock, history
from sched_sql import PostgresBackend
from sched_sql._shared.holds import RECORD_COLUMNS, read_record
from sched_sql._shared.moments import EPOCH
from sched_sql._shared.upgrade import OLD_COLUMNS, upgraded
from sched_sql.postgres import migration

STORED = Path(__file__).parent / "stored"
STOPPED = datetime(2026, 1, 1, 8, 12, 1, tzinfo=UTC)
"""The time of the clock when the store was written."""
LEASE = timedelta(minutes=5)
SCHEMA = "stored"
OBJECTS = """
    SELECT relkind::text, regexp_replace(relname, '_[0-9]+(_|$)', '_N\\1') FROM pg_class
    WHERE relnamespace = %s::regnamespace AND relname !~ '^execution_[0-9]+' ORDER BY 1, 2
"""


@pytest.fixture
def stored(monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    """The store as it was left."""
    monkeypatch.setattr(migration, "PATIENCE", 0.0)
    here = Place(postgres_server.shared().address(), SCHEMA)
    here.rows(f"DROP SCHEMA IF EXISTS {SCHEMA} CASCADE")
    load(here, "1996364.sql")
    yield here
    here.rows(f"DROP SCHEMA {SCHEMA} CASCADE")


def load(here: Place, name: str) -> None:
    with here.connect(autocommit=True) as connection:
        connection.execute(
            (STORED / name).read_text(encoding="utf-8").replace("@schema@", here.schema)
        )


def backend(here: Place, **options: Any) -> PostgresBackend:
    return here.backend(time="clock", lease=LEASE, **options)


def opened(here: Place, at: datetime = STOPPED + LEASE, **options: Any) -> None:
    """Open it at a moment, by default when all leases have ended."""

    async def main() -> None:
        made = backend(here, **options)
        await made.open(FakeClock(at), worker="new")
        await made.close()

    anyio.run(main)


def contents(here: Place) -> list[Any]:
    tables = [("meta", "key"), ("job", "id"), ("ledger", "seq")]
    return [here.rows(f"SELECT * FROM @{table} ORDER BY {order}") for table, order in tables]


def test_workers_of_the_older_version_are_waited_for_and_named(stored: Place) -> None:
    before = contents(stored)
    with pytest.raises(
        BackendError,
        match=r"worker two holds 'claimed', 'lost', 'lost twice' until .*: stop them",
    ):
        opened(stored, STOPPED)
    assert contents(stored) == before
    stored.rows("UPDATE @job SET lease_until = NULL WHERE worker = 'two'")  # as they do who stop
    opened(stored, STOPPED)


def test_a_lease_with_an_unlocked_renewal_is_waited_for(stored: Place) -> None:
    load(stored, "renewals.sql")
    stored.rows("UPDATE @meta SET value = 2 WHERE key = 'schema'")
    ((token, until),) = stored.rows("SELECT token, lease_until FROM @job WHERE id = 'claimed'")
    later = until + 600_000_000
    stored.rows("INSERT INTO @renewal VALUES (%s, 'two', %s)", (token, later))
    with pytest.raises(BackendError, match="worker two holds 'claimed' until"):
        opened(stored)
    opened(stored, STOPPED + 4 * LEASE)
    assert stored.rows("SELECT lease_until FROM @job WHERE id = 'claimed'") == [(later,)]


def test_a_worker_that_lets_go_is_waited_for(
    stored: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(migration, "PATIENCE", 20.0)
    with ThreadPoolExecutor(1) as thread:
        opening = thread.submit(opened, stored, STOPPED)
        anyio.run(anyio.sleep, 1.0)
        assert not opening.done()
        # It can write what it has to write meanwhile.
        stored.rows("UPDATE @job SET lease_until = NULL WHERE worker = 'two'")
        opening.result(20)


def test_the_schema_is_that_of_a_new_store(stored: Place, here: Place) -> None:
    opened(stored)
    anyio.run(_made, here)
    for what in (COLUMNS, OBJECTS):
        assert stored.rows(what, (SCHEMA,)) == stored.rows(what, (here.schema,))
    values = dict(stored.rows("SELECT key, value FROM @meta"))
    assert values.pop("store") > 0
    assert values == {"schema": 5, "oldest": 3, "checks": 0}, "older code would open it"


async def _made(here: Place) -> None:
    async with here.scheduler():
        pass


def test_the_history_is_kept(stored: Place) -> None:
    before = stored.rows(
        "SELECT seq, job_id, uid, number, attempt, manual, scheduled_at, status, final, token, "
        "worker, claimed_at, started_at, finished_at, reason, folded, folded_until, expires_at "
        "FROM @ledger ORDER BY seq"
    )
    statuses = Counter(row[7] for row in before)
    assert statuses.keys() == {
        *("succeeded", "failed", "missed", "skipped", "superseded", "interrupted", "abandoned")
    }
    opened(stored)
    after = stored.rows(
        "SELECT seq, job_id, uid, number, attempt, kind = 'triggered', scheduled_at, status, "
        "final, token, worker, claimed_at, started_at, finished_at, reason, coalesced, "
        "coalesced_until, expires_at FROM @execution ORDER BY seq"
    )
    assert after == before
    expired = stored.rows("SELECT 1 FROM @execution WHERE drop_at < expires_at")
    assert not expired
    assert len(stored.rows("SELECT DISTINCT tableoid FROM @execution")) > 2


def test_the_jobs_are_kept(stored: Place) -> None:
    old = {row[0]: row for row in stored.rows(f"SELECT {OLD_COLUMNS} FROM @job")}
    opened(stored)
    found = {row[0]: read_record(row) for row in stored.rows(f"SELECT {RECORD_COLUMNS} FROM @job")}
    assert found.keys() == old.keys()
    # What else there is to say of each job is said by the other dialect, which does it in Python.
    for job_id, row in old.items():
        record, other = found[job_id], read_record(upgraded(row))
        assert record.ended == other.ended
        assert (record.job is None) == (other.job is None)
        assert _told(record.hold) == _told(other.hold)
        if isinstance(record.job, Job) and isinstance(other.job, Job):
            assert record.job.spec == other.job.spec
            one, two = record.job.standing, other.job.standing
            assert one.state is two.state
            assert (one.last_number, one.due_at, one.pause) == (
                two.last_number,
                two.due_at,
                two.pause,
            )
            assert (one.gaps, one.skip, one.last_status) == (two.gaps, two.skip, two.last_status)
            assert [_told(each) for each in one.requests] == [_told(each) for each in two.requests]
            assert _told(one.scheduled) == _told(two.scheduled)
    states = Counter(record.job.state for record in found.values() if isinstance(record.job, Job))
    assert states.keys() == set(State)


def _told(value: Any) -> Any:
    """Return the part of an occurrence or a hold that both dialects know alike."""
    if value is None:
        return None
    if hasattr(value, "pending"):
        return value.token, value.worker, value.uid, value.keep, _told(value.pending)
    names = ("number", "scheduled_at", "kind", "attempts", "failures", "lost", "origin")
    return *(getattr(value, name) for name in names), value.began_at is None


def test_what_was_running_and_what_was_due_goes_on(stored: Place) -> None:
    ran: list[tuple[str, str, int]] = []

    async def handle(event: JobEvent) -> None:
        ran.append((event.id, event.kind.value, event.attempt))

    async def main() -> None:
        clock = FakeClock(STOPPED + LEASE)
        async with stored.scheduler(handle, clock=clock, time="clock", lease=LEASE) as scheduler:
            held = {"edited while claimed": 1, "paused while claimed": 1, "manual claimed": 1}
            for job_id, number in held.items():
                assert (await scheduler.get_job(job_id)).held == number
            before = {one.id for one in await history(scheduler)}
            await scheduler.run_due()
            clock.advance(minutes=2)
            await scheduler.run_due()
            written.extend(one for one in await history(scheduler) if one.id not in before)
            await scheduler.resume_job("paused while claimed")
            await scheduler.resume_job("paused, due")
            ran.append(("--", "resumed", 0))
            await scheduler.run_due()

    written: list[Execution] = []
    anyio.run(main)
    quiet = {"all", "all windowed", "dropping"}
    first = ran[: ran.index(("--", "resumed", 0))]
    assert {each for each in first if each[0] not in quiet} == {
        ("claimed", "scheduled", 2),
        ("interrupted", "scheduled", 2),
        ("lost", "scheduled", 3),
        ("lost and released", "scheduled", 2),
        ("lost twice", "scheduled", 3),
        ("manual claimed", "triggered", 2),
        ("paused, triggered", "triggered", 1),
        ("resumed", "scheduled", 1),
        ("retried, triggered", "scheduled", 2),
        ("retried, triggered", "triggered", 1),
        ("retrying, then triggered", "scheduled", 2),
        ("retrying, then triggered", "triggered", 1),
        ("triggered", "triggered", 1),
        ("triggered while claimed", "scheduled", 2),
        ("triggered while claimed", "triggered", 1),
    }
    second = {each for each in ran[len(first) + 1 :] if each[0] not in quiet}
    assert second == {("paused while claimed", "scheduled", 2), ("paused, due", "scheduled", 1)}
    lost = {(one.job_id, one.attempt) for one in written if one.status is Status.ABANDONED}
    assert lost == {
        ("claimed", 1),
        ("edited while claimed", 1),
        ("lost", 2),
        ("lost twice", 2),
        ("manual claimed", 1),
        ("paused while claimed", 1),
        ("re-added while claimed", 1),
        ("removed while claimed", 1),
        ("triggered while claimed", 1),
    }
    ended = {one.job_id for one in written if one.status is Status.SUPERSEDED}
    assert ended == {
        "edited while claimed",
        "re-added while claimed",
        "removed while claimed",
    }
    resumed = next(one for one in written if one.job_id == "resumed")
    assert resumed.coalesced == 1, "what was due before the pause"
    assert {one.kind for one in written} == {Kind.SCHEDULED, Kind.TRIGGERED}
    assert stored.rows("SELECT 1 FROM @job WHERE removed") == []


SPOILT = [
    {"state": "deferred"},
    {"last_status": "deferred"},
    {"next_run": 2**63 - 1},
    {"due_at": -(2**63), "next_run": None},
    {"number": 2**63 - 1, "triggered_at": 0},
    {"attempts": -1},
    {"lost": 2**63 - 1, "lease_until": 0},
    {"held_number": 2**63 - 1, "held_attempt": -(2**63), "lease_until": 0},
    {"backlog": "[1"},
    {"format": 7},
]


@pytest.mark.parametrize("changed", SPOILT, ids=str)
def test_a_job_that_makes_no_sense_is_left_alone_and_stops_nothing(
    stored: Place, changed: dict[str, Any]
) -> None:
    sets = ", ".join(f"{name} = %({name})s" for name in changed)
    stored.rows(f"UPDATE @job SET {sets} WHERE id = 'once'", changed)

    async def main() -> None:
        made = backend(stored)
        await made.open(FakeClock(STOPPED + LEASE), worker="new")
        found = await made.get("once")
        assert isinstance(found, Undecodable)
        assert found.format == changed.get("format", 1)
        assert b"2026-01-02" in found.record
        page = await made.jobs(JobQuery(), after=None, limit=1000)
        assert sum(isinstance(job, Undecodable) for job in page.items) == 1
        assert len((await made.claim_due(Room(100))).claims) > 5
        await made.close()

    anyio.run(main)


def test_an_execution_that_makes_no_sense_is_kept(stored: Place) -> None:
    stored.rows(
        "UPDATE @ledger SET expires_at = %s, finished_at = %s WHERE seq = (SELECT min(seq) "
        "FROM @ledger)",
        (2**63 - 1, -(2**63)),
    )
    ((count,),) = stored.rows("SELECT count(*) FROM @ledger")
    opened(stored)
    assert stored.rows("SELECT count(*) FROM @execution") == [(count,)]


def test_ten_replicas_bring_it_up_to_date_at_once(stored: Place) -> None:
    with ThreadPoolExecutor(10) as threads:
        list(threads.map(lambda _: opened(stored), range(10)))
    assert stored.rows("SELECT value FROM @meta WHERE key = 'schema'") == [(5,)]


def test_what_is_printed_brings_it_up_to_date(stored: Place) -> None:
    with pytest.raises(BackendError, match=r"has version 1, 5 is needed.*--after 1"):
        opened(stored, migrate=False)
    with stored.connect(autocommit=True) as connection:
        connection.execute(migration.migration_sql(SCHEMA, after=1))
    opened(stored, migrate=False)


def test_a_view_of_others_is_named_and_nothing_is_changed(stored: Place) -> None:
    before = contents(stored)
    stored.rows("CREATE VIEW dashboard AS SELECT job_id FROM @executions")
    with pytest.raises(BackendError, match=r"view public.dashboard depends on .*: drop what"):
        opened(stored)
    assert contents(stored) == before
    assert stored.rows("SELECT count(*) FROM dashboard") == stored.rows(
        "SELECT count(*) FROM @ledger"
    )
    stored.rows("DROP VIEW dashboard")
    opened(stored)


def test_who_only_looks_changes_nothing(stored: Place) -> None:
    before = contents(stored)
    with pytest.raises(BackendError, match="version 1, which is older than 5, and who only looks"):
        opened(stored, create=False)
    assert contents(stored) == before


def test_who_may_use_the_tables_may_still(stored: Place) -> None:
    server = postgres_server.shared()
    server.admin("CREATE ROLE clerk LOGIN")
    stored.rows(f"GRANT USAGE ON SCHEMA {SCHEMA} TO clerk")
    stored.rows(f"GRANT USAGE ON SEQUENCE {SCHEMA}.serial TO clerk")
    tables = "SELECT, INSERT, UPDATE, DELETE ON ALL TABLES"
    stored.rows(f"GRANT {tables} IN SCHEMA {SCHEMA} TO clerk")
    opened(stored)
    local = server.local.replace("user=postgres", "user=clerk").replace("=postgres", "=sched")
    clerk = Place(f"postgresql:///?{'&'.join(local.split())}", SCHEMA)

    later = STOPPED + timedelta(days=400)

    async def main() -> None:
        clock = FakeClock(later)
        options: dict[str, Any] = {"time": "clock", "migrate": False}
        async with clerk.scheduler(lambda event: None, clock=clock, **options) as scheduler:
            # Into partitions that were not there, and then it deletes what has expired.
            assert await scheduler.run_due() > 10
            clock.advance(seconds=1)
            assert await scheduler.prune(clock.now()) > 0

    try:
        anyio.run(main)
        assert clerk.rows("SELECT 1 FROM @executions") == []
        partitions = stored.rows(
            "SELECT substr(c.relname, 11)::bigint FROM pg_inherits i JOIN pg_class c "
            "ON c.oid = i.inhrelid WHERE inhparent = '@execution'::regclass "
            "AND c.relname ~ '^execution_[0-9]+$'"
        )
        assert all(timedelta(days=days) + EPOCH > later for (days,) in partitions)
    finally:
        server.admin("DROP OWNED BY clerk; DROP ROLE clerk", "sched")


def statements() -> list[str]:
    """Return the statements of the migration, one by one."""
    (number, text), *_ = migration.migrations(1)
    assert number == migration.BASE
    found, open_ends, statement = list[str](), Counter[str](), ""
    for line in text.splitlines(keepends=True):
        statement += line
        open_ends.update(re.findall(r"\$\w*\$", line))
        if line.rstrip().endswith(";") and not any(count % 2 for count in open_ends.values()):
            found.append(statement)
            statement = ""
    assert not statement.strip()
    return found


COUNT = len(statements())


def test_a_migration_that_is_killed_at_any_statement_begins_again(
    stored: Place, monkeypatch: pytest.MonkeyPatch, deep: bool
) -> None:
    assert COUNT > 30
    before, parts, whole = contents(stored), statements(), migration.migrations
    for place in range(1, COUNT + 1, 1 if deep else 5):
        killed = [*parts[:place], "SELECT pg_terminate_backend(pg_backend_pid());", *parts[place:]]
        monkeypatch.setattr(migration, "migrations", lambda after=0, t=killed: [(3, "\n".join(t))])
        with pytest.raises((BackendUnavailable, psycopg.Error)):
            opened(stored)
        assert contents(stored) == before
    monkeypatch.setattr(migration, "migrations", whole)
    opened(stored)
