"""A pooler in front of the server: what is refused, and what is left behind there."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from typing import Any

import anyio
import psycopg
import pytest
from tests import postgres_server
from tests.pgbouncer import pgbouncer
from tests.postgres.places import Place, past

from sched_core import BackendError, BackendUnavailable, Once

pytestmark = pytest.mark.deep  # they need a PgBouncer

ALONE: dict[str, Any] = {"default_pool_size": 1}
IN_TURN: dict[str, Any] = {"server_round_robin": 1, "min_pool_size": 5, "default_pool_size": 5}


async def work(here: Place, **options: Any) -> int:
    async with here.scheduler(lambda event: None, **options) as scheduler:
        for number in range(5):
            await scheduler.submit_job(f"{number}", Once(past()))
        return int(await scheduler.run_due())


def settings(address: str) -> set[str]:
    """What other users of an address find in their sessions."""
    found: set[str] = set()
    with closing(psycopg.connect(address, prepare_threshold=None, autocommit=True)) as connection:
        for _ in range(20):
            rows = connection.execute(
                "SELECT name || '=' || setting FROM pg_settings WHERE source = 'session'"
            ).fetchall()
            found |= {row[0] for row in rows if not row[0].startswith("application_name")}
    return found


@pytest.fixture
def quiet() -> Iterator[Place]:
    with postgres_server.schema() as (address, schema):
        yield Place(address, schema)


@pytest.mark.parametrize("mode", ["transaction", "statement"])
@pytest.mark.parametrize("options", [{}, ALONE, IN_TURN], ids=["usual", "one server", "in turn"])
def test_a_pooler_that_shares_sessions_is_refused_and_left_as_it_was(
    quiet: Place, mode: str, options: dict[str, Any]
) -> None:
    server = postgres_server.shared()
    with pgbouncer(server.port, mode=mode, **options) as port:
        address = server.address(port=port)
        before = settings(address)
        for _ in range(3):
            with pytest.raises(BackendError, match="pass pooled=True") as caught:
                anyio.run(work, Place(address, quiet.schema))
            assert not isinstance(caught.value, BackendUnavailable)
        assert settings(address) == before


def test_a_session_for_each_connection_is_as_good_as_none(quiet: Place) -> None:
    server = postgres_server.shared()
    with pgbouncer(server.port, mode="session") as port:
        assert anyio.run(work, Place(server.address(port=port), quiet.schema)) == 5


def test_what_is_said_to_be_pooled_works_and_leaves_nothing(quiet: Place) -> None:
    server = postgres_server.shared()
    with pgbouncer(server.port, **ALONE) as port:
        address = server.address(port=port)
        before = settings(address)

        async def main() -> None:
            assert await work(Place(address, quiet.schema), pooled=True) == 5

        anyio.run(main)
        assert settings(address) == before


def test_transactions_are_needed_from_a_pooler(quiet: Place) -> None:
    server = postgres_server.shared()
    with (
        pgbouncer(server.port, mode="statement") as port,
        pytest.raises(BackendError, match="must be in transaction mode") as caught,
    ):

        async def main() -> None:
            await work(Place(server.address(port=port), quiet.schema), pooled=True)

        anyio.run(main)
    assert not isinstance(caught.value, BackendUnavailable)
