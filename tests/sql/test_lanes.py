"""The two backends, each with its own options; and the lane of a call, which the call names."""

from __future__ import annotations

import functools
import inspect
import subprocess
import sys
import threading
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any, cast

import anyio
import pytest

from sched_core import Capabilities, JobQuery, Room
from sched_core.errors import InvalidDefinition
from sched_core.testing import FakeClock
from sched_sql import DatabaseBackend, PostgresBackend, SqlBackend, SqliteBackend
from sched_sql._shared.table import Table

CAPABILITIES = Capabilities(
    durable=True,
    shared=True,
    time="clock",
    granularity=timedelta(microseconds=1),
    lease=timedelta(seconds=30),
)


class Spy:
    """A table that does nothing, and notes the thread of each call."""

    def __init__(self) -> None:
        self.threads: dict[str, str] = {}

    def cut_off(self) -> None:
        """Nothing hangs."""

    def __getattr__(self, name: str) -> Callable[..., Any]:
        def noting(*_: object) -> Any:
            self.threads[name] = threading.current_thread().name
            return []

        return noting


class Decorated(Spy):
    """Its methods have no names of their own, as those behind a decorator without ``wraps``."""

    def __getattr__(self, name: str) -> Callable[..., Any]:
        plain = super().__getattr__(name)
        return functools.partial(plain)


def threads_of(table: Spy) -> dict[str, str]:
    async def main() -> None:
        backend = DatabaseBackend(cast("Table", table), CAPABILITIES)
        await backend.open(FakeClock(), worker="w")
        await backend.claim_due(Room(1))
        await backend.settle([])
        await backend.renew([])
        await backend.release([])
        await backend.jobs(JobQuery(), after=None, limit=1)
        await backend.close()

    anyio.run(main)
    return table.threads


def test_each_call_has_its_lane() -> None:
    assert threads_of(Spy()) == {
        "open": "sched edit",
        "claim": "sched claim",
        "settle": "sched settle",
        "renew": "sched renew",
        "release": "sched claim",
        "jobs": "sched edit",
        "close": "sched close",
    }


def test_a_decorated_method_keeps_its_lane() -> None:
    assert threads_of(Decorated()) == threads_of(Spy())


def test_each_backend_offers_the_options_of_its_database() -> None:
    sqlite, postgres, both = (
        set(inspect.signature(made).parameters)
        for made in (SqliteBackend, PostgresBackend, SqlBackend)
    )
    shared = {"where", "lease", "timeout", "create"}
    assert sqlite == shared | {"synchronous"}
    assert postgres == shared | {"time", "schema", "migrate", "pooled", "handler_connections"}
    assert both == sqlite | postgres


def test_the_address_chooses_the_backend(tmp_path: Path) -> None:
    assert type(SqlBackend(tmp_path / "jobs.db")) is SqliteBackend
    assert type(SqlBackend("postgresql://h/d")) is PostgresBackend


@pytest.mark.parametrize(
    ("kind", "where", "says"),
    [
        (SqliteBackend, "postgresql://h/d", "where: names a server: use PostgresBackend"),
        (PostgresBackend, "sqlite:///jobs.db", "where: names a file: use SqliteBackend"),
    ],
)
def test_an_address_of_the_other_database_is_refused(
    kind: Callable[[str], DatabaseBackend], where: str, says: str
) -> None:
    with pytest.raises(InvalidDefinition, match=says):
        kind(where)


def test_no_driver_is_imported_before_it_is_needed() -> None:
    program = (
        "import sys, sched_sql\n"
        "drivers = {'sqlite3', 'psycopg'}\n"
        "assert not drivers & set(sys.modules)\n"
        "sched_sql.SqliteBackend\n"
        "assert drivers & set(sys.modules) == {'sqlite3'}\n"
        "class Missing:\n"
        "    def find_spec(self, name, *_):\n"
        "        if name == 'psycopg':\n"
        "            raise ModuleNotFoundError(name, name=name)\n"
        "sys.meta_path.insert(0, Missing())\n"
        "try:\n"
        "    sched_sql.PostgresBackend\n"
        "except sched_sql.dialects.BackendError as error:\n"
        "    assert 'sched-sql[postgres]' in str(error)\n"
        "else:\n"
        "    raise AssertionError('no error')\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
