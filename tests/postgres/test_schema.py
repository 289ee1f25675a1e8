"""Schemas: made once however many begin, upgraded under running replicas, apart from each other."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import anyio
import pytest
from tests import postgres_server
from tests.postgres.places import Place, past

from sched_core import (
    BackendError,
    JobEvent,
    JobSpec,
    Once,
    SchemaTooNew,
    StoreNotFound,
    SystemClock,
)
from sched_sql import PostgresBackend
from sched_sql.postgres import migration

NEW = "fresh"
COLUMNS = """
    SELECT table_name, column_name, data_type, is_nullable FROM information_schema.columns
    WHERE table_schema = %s AND table_name !~ '^execution_[0-9]+$' ORDER BY 1, 2
"""


@pytest.fixture
def fresh() -> Iterator[Place]:
    """A schema that does not exist."""
    here = Place(postgres_server.shared().address(), NEW)
    here.rows(f"DROP SCHEMA IF EXISTS {NEW} CASCADE")
    yield here
    here.rows(f"DROP SCHEMA IF EXISTS {NEW} CASCADE")


async def opened(backend: PostgresBackend) -> None:
    await backend.open(SystemClock(), worker="w")
    await backend.check()
    await backend.close()


def test_ten_replicas_start_at_once(fresh: Place) -> None:
    with ThreadPoolExecutor(10) as threads:
        list(threads.map(lambda _: anyio.run(opened, fresh.backend()), range(10)))
    assert fresh.rows("SELECT value FROM @meta WHERE key = 'checks'") == [(10,)]
    assert len(fresh.rows("SELECT 1 FROM @meta")) == 4


def test_what_is_printed_makes_the_same_schema(fresh: Place, here: Place) -> None:
    printed = subprocess.run(
        [sys.executable, "-m", "sched_sql.postgres", "--schema", NEW],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    with pytest.raises(BackendError, match="is missing, and migrate=False"):
        anyio.run(opened, fresh.backend(migrate=False))
    with fresh.connect(autocommit=True) as connection:
        connection.execute(printed)
    anyio.run(opened, fresh.backend(migrate=False))
    anyio.run(opened, here.backend())
    assert fresh.rows(COLUMNS, (NEW,)) == fresh.rows(COLUMNS, (here.schema,))


def test_what_has_been_applied_is_not_printed_again() -> None:
    assert "CREATE" not in migration.migration_sql(after=migration.newest())


@pytest.fixture
def newer(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A version of this package that may have one migration more."""
    shutil.copytree(migration._MIGRATIONS, tmp_path, dirs_exist_ok=True)
    known = migration.migrations
    monkeypatch.setattr(migration, "migrations", lambda after=0: known(after, tmp_path))
    return tmp_path


def test_a_replica_runs_on_while_a_newer_one_upgrades(here: Place, newer: Path) -> None:
    ran: list[str] = []

    async def handle(event: JobEvent) -> None:
        ran.append(event.id)

    async def main() -> None:
        async with here.scheduler(handle) as old:
            await old.submit_job("before", Once(past()))
            await old.run_due()
            more = newer / f"{migration.newest() + 1:04}_more.sql"
            more.write_text(
                "ALTER TABLE @schema@.job ADD COLUMN more text; "
                "ALTER TABLE @schema@.execution ADD COLUMN more text;",
                encoding="utf-8",
            )
            async with here.scheduler(handle) as new:
                assert here.rows("SELECT value FROM @meta WHERE key = 'schema'") == [
                    (int(more.name[:4]),)
                ]
                await old.submit_job("old", Once(past()))
                await new.submit_job("new", Once(past()))
                assert await old.run_due() + await new.run_due() == 2
            more.unlink()
            async with here.scheduler(handle) as restarted:  # an old one, on the newer schema
                await restarted.submit_job("after", Once(past()))
                await restarted.run_due()

    try:
        anyio.run(main)
    finally:
        here.rows("DROP SCHEMA $ CASCADE".replace("$", here.schema))
        anyio.run(opened, here.backend())
    assert sorted(ran) == ["after", "before", "new", "old"]


def test_a_schema_that_older_versions_cannot_work_with_is_refused(here: Place) -> None:
    anyio.run(opened, here.backend())
    here.rows("UPDATE @meta SET value = 99 WHERE key IN ('schema', 'oldest')")
    try:
        with pytest.raises(SchemaTooNew, match=r"has version 99.*upgrade sched-sql"):
            anyio.run(opened, here.backend())
        assert here.rows("SELECT value FROM @meta WHERE key = 'checks'") != [(0,)]
    finally:
        here.rows("UPDATE @meta SET value = %s WHERE key = 'oldest'", (migration.BASE,))
        here.rows("UPDATE @meta SET value = %s WHERE key = 'schema'", (migration.newest(),))


def behind(here: Place) -> int:
    """Leave a sequence as logical replication does; return the highest number in the rows."""

    async def main() -> None:
        async with here.scheduler(lambda event: None) as scheduler:
            await scheduler.submit_jobs([JobSpec(f"{n}", Once(past())) for n in range(20)])
            await scheduler.run_due()
            await scheduler.submit_job("waits", Once(past()))

    anyio.run(main)
    here.rows("SELECT setval('@serial', 1, false)")
    ((highest,),) = here.rows(
        "SELECT greatest((SELECT max(seq) FROM @execution), (SELECT max(revision) FROM @job))"
    )
    assert isinstance(highest, int)
    assert highest > 40
    return highest


@pytest.mark.parametrize("lost", ["nothing", "the history", "the jobs"])
def test_a_sequence_behind_its_rows_is_set_forward(here: Place, lost: str) -> None:
    """However many open at once; and what runs then is written as always."""
    highest = behind(here)
    if lost != "nothing":
        here.rows("DELETE FROM @execution" if lost == "the history" else "DELETE FROM @job")

    async def main() -> None:
        async with here.scheduler(lambda event: None) as scheduler:
            await scheduler.submit_job("new", Once(past()))
            await scheduler.run_due()

    with ThreadPoolExecutor(5) as threads:
        list(threads.map(lambda _: anyio.run(opened, here.backend()), range(5)))
    ((first,),) = here.rows("SELECT last_value FROM @serial")
    anyio.run(main)
    assert here.rows("SELECT count(*) FROM @execution WHERE job_id = 'new'") == [(1,)]
    assert here.rows("SELECT min(token) > %s FROM @execution WHERE job_id = 'new'", (highest,))[0][
        0
    ]
    # Set once, and not again by those that opened at the same time or later.
    anyio.run(opened, here.backend())
    ((last,),) = here.rows("SELECT last_value FROM @serial")
    assert first <= last < first + 100


def test_who_may_not_set_a_sequence_says_what_to_run(here: Place) -> None:
    behind(here)
    server, schema = postgres_server.shared(), here.schema
    server.admin("CREATE ROLE runner LOGIN")
    server.admin(
        f"GRANT USAGE ON SCHEMA {schema} TO runner; GRANT USAGE ON SEQUENCE {schema}.serial TO "
        f"runner; GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA {schema} TO runner",
        "sched",
    )
    local = server.local.replace("user=postgres", "user=runner").replace("=postgres", "=sched")
    where = f"postgresql:///?{'&'.join(local.split())}"
    try:
        backend = PostgresBackend(where, schema=schema, migrate=False)
        with pytest.raises(
            BackendError, match=r"behind its rows.*may not set it: run SELECT"
        ) as no:
            anyio.run(opened, backend)
        here.rows(str(no.value).partition("run ")[2])
        anyio.run(opened, PostgresBackend(where, schema=schema, migrate=False))
    finally:
        server.admin("DROP OWNED BY runner; DROP ROLE runner", "sched")


def test_two_schemas_do_not_see_each_other(here: Place, fresh: Place) -> None:
    ran: list[tuple[str, str]] = []

    async def main() -> None:
        async def one(event: JobEvent) -> None:
            ran.append(("one", event.id))

        async def two(event: JobEvent) -> None:
            ran.append(("two", event.id))

        async with here.scheduler(one) as first, fresh.scheduler(two) as second:
            await first.submit_job("same", Once(past()))
            await second.submit_job("same", Once(past()))
            await second.submit_job("other", Once(past()))
            await first.run_due()
            assert [job.id async for job in second.list_jobs()] == ["other", "same"]
            assert [line.job_id async for line in second.list_executions()] == []
            await second.run_due()

    anyio.run(main)
    assert sorted(ran) == [("one", "same"), ("two", "other"), ("two", "same")]


@pytest.mark.parametrize("name", ["Sched", 'with "quotes"', "50%", "ümlaut", "a'b", "x" * 63])
def test_any_name_will_do(name: str) -> None:
    quoted = '"' + name.replace('"', '""').replace("%", "%%") + '"'
    here = Place(postgres_server.shared().address(), name)

    async def main() -> None:
        async def handle(event: JobEvent) -> None: ...

        async with here.scheduler(handle) as scheduler:
            await scheduler.submit_job("a", Once(past()), metadata={"k": "100% 'sure' \\ \"q\""})
            assert await scheduler.run_due() == 1
            await scheduler.remove_job("a")

    try:
        anyio.run(main)
    finally:
        with here.connect(autocommit=True) as connection:
            connection.execute(f"DROP SCHEMA IF EXISTS {quoted} CASCADE", ())


async def look(here: Place) -> None:
    async with here.scheduler(create=False) as scheduler:
        assert [job async for job in scheduler.list_jobs()] == []


def test_who_only_looks_makes_no_schema(fresh: Place) -> None:
    with pytest.raises(StoreNotFound, match=f"no schema {NEW}"):
        anyio.run(look, fresh)
    assert fresh.rows(f"SELECT 1 FROM pg_namespace WHERE nspname = '{NEW}'") == []
    elsewhere = Place(fresh.address.rpartition("/")[0] + "/no_such_jobs", NEW)
    with pytest.raises(StoreNotFound, match='database "no_such_jobs" does not exist'):
        anyio.run(look, elsewhere)
    anyio.run(opened, fresh.backend())
    anyio.run(look, fresh)
