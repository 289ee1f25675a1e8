"""Whatever is wrong with the database is said with its remedy, and never with the password."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import anyio
import psycopg
import pytest
from tests import postgres_server
from tests.postgres.places import Place, past
from tests.postgres_server import PASSWORD, free_port

from sched_core import (
    BackendError,
    BackendUnavailable,
    InvalidDefinition,
    Once,
    Room,
    SystemClock,
)
from sched_sql import DatabaseBackend, SqlBackend

SECRET = "hunter2-hunter2"


async def use(backend: DatabaseBackend) -> None:
    try:
        await backend.open(SystemClock(), worker="w")
        await backend.check()
    finally:
        await backend.close()


def failure(where: str, **options: Any) -> BackendError:
    with pytest.raises(BackendError) as caught:
        anyio.run(use, SqlBackend(where, **options))
    chain: BaseException | None = caught.value
    while chain is not None:  # what a log would show
        assert PASSWORD not in str(chain)
        assert SECRET not in str(chain)
        chain = chain.__cause__ or chain.__context__
    return caught.value


@pytest.fixture
def reader() -> Iterator[str]:
    """A user who may connect, by password, and nothing else."""
    server = postgres_server.shared()
    server.admin(f"CREATE ROLE reader LOGIN PASSWORD '{SECRET}'")
    yield f"postgresql://reader:{SECRET}@127.0.0.1:{server.port}/sched"
    server.admin("DROP OWNED BY reader; DROP ROLE reader", "sched")


def test_a_wrong_password(reader: str) -> None:
    error = failure(reader.replace(SECRET, SECRET[::-1]))
    assert not isinstance(error, BackendUnavailable)
    assert re.search("password authentication failed.*check user, password", str(error))


def test_missing_rights(reader: str, here: Place) -> None:
    assert re.search("permission denied.*CREATE on the database", str(failure(reader)))
    anyio.run(use, here.backend())
    error = failure(reader, schema=here.schema)
    assert re.search("permission denied.*USAGE on schema", str(error))
    here.rows(f"GRANT USAGE ON SCHEMA {here.schema} TO reader")
    here.rows(f"GRANT SELECT ON ALL TABLES IN SCHEMA {here.schema} TO reader")
    error = failure(reader, schema=here.schema)
    assert re.search("permission denied.*UPDATE, DELETE on its tables", str(error))


def test_the_rights_that_are_named_suffice(reader: str, here: Place) -> None:
    anyio.run(use, here.backend())
    here.rows(f"GRANT USAGE ON SCHEMA {here.schema} TO reader")
    everything = "SELECT, INSERT, UPDATE, DELETE ON ALL TABLES"
    here.rows(f"GRANT {everything} IN SCHEMA {here.schema} TO reader")
    here.rows(f"GRANT USAGE ON SEQUENCE {here.schema}.serial TO reader")

    async def main() -> None:
        async def handle(event: object) -> None: ...

        async with Place(reader, here.schema).scheduler(handle) as scheduler:
            await scheduler.submit_job("a", Once(past()))
            assert await scheduler.run_due() == 1
            await scheduler.remove_job("a")

    anyio.run(main)


@pytest.mark.parametrize("table", ["job", "execution"])
def test_rows_that_a_policy_hides_are_an_error_and_no_empty_queue(
    reader: str, here: Place, table: str
) -> None:
    """Some hosts enable row security for every table: who does not own it sees nothing then."""

    async def use_it() -> None:
        async with Place(reader, here.schema).scheduler(lambda event: None) as scheduler:
            await scheduler.submit_job("a", Once(past()))
            assert await scheduler.run_due() == 1
            here.rows(f"ALTER TABLE @{table} ENABLE ROW LEVEL SECURITY")
            with pytest.raises(BackendError, match=rf"policy for table .{table}.*DISABLE ROW"):
                _ = [each async for each in scheduler.list_executions()]
                await scheduler.run_due()

    anyio.run(use, here.backend())
    here.rows(f"GRANT USAGE ON SCHEMA {here.schema} TO reader")
    everything = "SELECT, INSERT, UPDATE, DELETE ON ALL TABLES"
    here.rows(f"GRANT {everything} IN SCHEMA {here.schema} TO reader")
    here.rows(f"GRANT USAGE ON SEQUENCE {here.schema}.serial TO reader")
    try:
        anyio.run(use_it)
        assert "DISABLE ROW" in str(failure(reader, schema=here.schema))
    finally:
        here.rows(f"ALTER TABLE @{table} DISABLE ROW LEVEL SECURITY")


def test_a_missing_schema() -> None:
    where = postgres_server.shared().address()
    error = failure(where, schema="nowhere", migrate=False)
    assert "python -m sched_sql.postgres --schema nowhere" in str(error)


def test_a_schema_that_is_dropped_under_the_scheduler() -> None:
    server = postgres_server.shared()

    async def main() -> None:
        backend = SqlBackend(server.address(), schema="dropped")
        await backend.open(SystemClock(), worker="w")
        server.admin("DROP SCHEMA dropped CASCADE", "sched")
        with pytest.raises(BackendError, match="schema dropped is missing"):
            await backend.claim_due(Room(1))
        await backend.close()

    anyio.run(main)


def test_a_read_only_server(here: Place) -> None:
    anyio.run(use, here.backend())
    read_only = f"{here.address}?options=-c%20default_transaction_read_only%3Don"
    error = failure(read_only, schema=here.schema)
    assert isinstance(error, BackendUnavailable)  # it may be promoted
    assert "target_session_attrs=read-write" in str(error)


def test_no_database_and_no_server() -> None:
    server = postgres_server.shared()
    assert "does not exist" in str(failure(server.address("nothing")))
    port = free_port()
    where = f"postgresql://sched:{SECRET}@127.0.0.1:{port}/x"
    assert isinstance(failure(where, timeout=timedelta(seconds=1)), BackendUnavailable)


def test_an_encoding_that_cannot_hold_every_text() -> None:
    server = postgres_server.shared()
    server.admin(
        "CREATE DATABASE latin OWNER sched ENCODING 'LATIN1' TEMPLATE template0 "
        "LC_COLLATE 'C' LC_CTYPE 'C'"
    )
    assert "ENCODING 'UTF8'" in str(failure(server.address("latin")))


@pytest.mark.parametrize(
    ("where", "options", "says"),
    [
        (f"postgresql://u:{SECRET}@h:port/d?nonsense=1", {}, "libpq does not understand"),
        ("postgresql://", {"schema": ""}, "schema"),
        ("postgresql://", {"schema": "pg_sched"}, "schema"),
        ("postgresql://", {"schema": "é" * 32}, "at most 63 bytes"),
        ("postgresql://", {"time": "mine"}, "'store' or 'clock'"),
        ("postgresql://", {"synchronous": "FULL"}, "no option for PostgreSQL"),
        ("postgresql://", {"timeout": timedelta(0)}, "timeout"),
        (f"mysql://u:{SECRET}@h/d", {}, "postgresql://"),
    ],
)
def test_addresses_and_options_that_cannot_be(
    where: str, options: dict[str, Any], says: str
) -> None:
    with pytest.raises(InvalidDefinition, match=says) as caught:
        SqlBackend(where, **options)
    assert SECRET not in str(caught.value)


def test_an_address_from_the_environment_or_a_service(
    here: Place, monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    parts = psycopg.conninfo.conninfo_to_dict(here.address)
    service = tmp_path / "services"
    service.write_text("[mine]\n" + "".join(f"{key}={value}\n" for key, value in parts.items()))
    monkeypatch.setenv("PGSERVICEFILE", str(service))
    anyio.run(use, SqlBackend("postgresql://?service=mine", schema=here.schema))
    for key, value in parts.items():
        name = {"dbname": "PGDATABASE"}.get(key, f"PG{key.upper()}")
        monkeypatch.setenv(name, str(value))
    anyio.run(use, SqlBackend("postgresql://", schema=here.schema))
