"""What a DBA sets on the role or on the database changes nothing of what jobs mean."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

import anyio
import psycopg
import pytest
from tests import postgres_server
from tests.postgres.places import Place, past

from sched_core import Job, JobEvent, JobSpec, Once, Policy, Retry

TEXT = "日本語 é"

DEFAULTS = {
    "array_nulls": "off",
    "backslash_quote": "on",
    "bytea_output": "escape",
    "client_encoding": "LATIN1",
    "datestyle": "SQL, DMY",
    "default_transaction_isolation": "serializable",
    "default_transaction_deferrable": "on",
    "enable_indexscan": "off",
    "enable_nestloop": "off",
    "enable_tidscan": "off",
    "extra_float_digits": "-15",
    "intervalstyle": "sql_standard",
    "max_parallel_workers_per_gather": "8",
    "quote_all_identifiers": "on",
    "row_security": "on",
    "search_path": "public, pg_catalog",
    "standard_conforming_strings": "off",
    "statement_timeout": "20s",
    "lock_timeout": "20s",
    "idle_in_transaction_session_timeout": "20s",
    "synchronous_commit": "off",
    "timezone": "Asia/Kathmandu",
    "transform_null_equals": "on",
}
"""Each as far from the server's own default as it can be.

The time limits hold for a handler's own statements, too, and a busy machine needs seconds for one.
"""


@pytest.fixture
def strange() -> Iterator[Place]:
    """A database in which everything is set otherwise."""
    server = postgres_server.shared()
    server.admin("DROP DATABASE IF EXISTS strange WITH (FORCE)")
    server.admin("CREATE DATABASE strange OWNER sched")
    for name, value in DEFAULTS.items():
        quoted = value if name == "search_path" else f"'{value}'"
        server.admin(f"ALTER ROLE sched IN DATABASE strange SET {name} = {quoted}")
    yield Place(server.address("strange"), "back\\slash")
    server.admin("DROP DATABASE IF EXISTS strange WITH (FORCE)")


def test_a_role_with_strange_defaults(strange: Place) -> None:
    told: list[tuple[str, str | None]] = []

    async def handle(event: JobEvent) -> None:
        if event.attempt == 1 and event.id == "retried":
            raise ValueError(TEXT)
        async with event.transaction():
            told.append((event.id, event.metadata.get("title")))

    async def main() -> None:
        async with strange.scheduler(handle) as scheduler:
            policy = Policy(retry=Retry(attempts=2, backoff=timedelta(milliseconds=1)))
            titled = {"title": TEXT}
            await scheduler.submit_jobs(
                [JobSpec("many-1", Once(past())), JobSpec("many-2", Once(past()), metadata=titled)]
            )
            await scheduler.submit_job("retried", Once(past()), metadata=titled, policy=policy)
            with anyio.fail_after(60):
                while len(told) < 3:
                    await scheduler.run_due()
            async with await psycopg.AsyncConnection.connect(strange.address) as connection:
                async with connection.transaction():
                    jobs = scheduler.in_transaction(connection)
                    await jobs.submit_job("mine", Once(past()), metadata=titled)
                    await jobs.update_job("mine", name=TEXT)
                assert connection.info.encoding == "iso8859-1"
                cursor = await connection.execute("SHOW search_path")
                assert await cursor.fetchone() == ("public, pg_catalog",)
            await scheduler.run_due()
            mine = await scheduler.get_job("mine")
            assert isinstance(mine, Job)
            assert mine.spec.name == TEXT
            reasons = [line.reason async for line in scheduler.list_executions("retried")]
            assert TEXT in str(reasons[-1])

    anyio.run(main)
    assert sorted(told) == [
        ("many-1", None),
        ("many-2", TEXT),
        ("mine", TEXT),
        ("retried", TEXT),
    ]


def test_what_the_server_does_not_convert(here: Place) -> None:
    """A caller whose session has no encoding at all stores what another one reads."""

    async def main() -> None:
        async with here.scheduler() as scheduler:
            with here.connect() as connection:
                connection.execute("SET client_encoding = 'SQL_ASCII'")
                jobs = scheduler.in_transaction(connection)
                await jobs.submit_job("plain", Once(past()), metadata={"title": TEXT})
                connection.commit()
                assert connection.execute("SHOW client_encoding").fetchone() == (b"SQL_ASCII",)
            stored = await scheduler.get_job("plain")
            assert isinstance(stored, Job)
            assert stored.spec.metadata == {"title": TEXT}

    anyio.run(main)
