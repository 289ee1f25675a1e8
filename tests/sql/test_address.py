"""What is an address of a database, and what of it may be shown when it is none."""

from __future__ import annotations

import logging
import os
import traceback
from pathlib import Path

import anyio
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from sched_core import InvalidDefinition, SchedError, Scheduler, open_scheduler
from sched_core._support.redaction import shown_address, without_password
from sched_sql import SqlBackend
from sched_sql._shared.address import Postgres, Sqlite, address_of

FILES = {
    "sqlite:///jobs.db": "jobs.db",
    "sqlite:////data/jobs.db": "/data/jobs.db",
    "sqlite:///a folder/jobs of today.db": "a folder/jobs of today.db",
    "sqlite:///10:30.db": "10:30.db",
    "jobs": "jobs",
    "jobs.db": "jobs.db",
    "./jobs.db": "./jobs.db",
    "../täglich/jobs.db": "../täglich/jobs.db",
    "./10:30.db": "./10:30.db",
    "data/10:30.db": "data/10:30.db",
    "/data/jobs.db": "/data/jobs.db",
    "my jobs.db": "my jobs.db",
    "me@home/jobs.db": "me@home/jobs.db",
    "day=3/jobs.db": "day=3/jobs.db",
}

SERVERS = {
    "postgresql://": "postgresql://",
    "postgresql:///jobs": "postgresql:///jobs",
    "postgres://h/jobs": "postgresql://h/jobs",
    "postgresql+psycopg://h/jobs": "postgresql://h/jobs",
    "postgresql://u:p%40%2F@h:5,i:6/jobs?sslmode=require": (
        "postgresql://u:p%40%2F@h:5,i:6/jobs?sslmode=require"
    ),
    "postgresql://?service=jobs": "postgresql://?service=jobs",
    "postgresql://u:a?b#c:d@h/jobs": "postgresql://u:a?b#c:d@h/jobs",
}

NONE = [
    "",
    " ",
    "\n",
    " jobs.db",
    "jobs.db\n",
    "sqlite:///jobs.db ",
    "jobs\0.db",
    "jobs\u202e.db",
    "\ufeffjobs.db",
    ":memory:",
    "sqlite://",
    "sqlite:///",
    "sqlite:///:memory:",
    "sqlite:///file::memory:?cache=shared",
    "sqlite://jobs.db",
    "sqlite://host/jobs.db",
    "sqlite:/jobs.db",
    "sqlite:jobs.db",
    "SQLITE:///jobs.db",
    "Sqlite:///jobs.db",
    "sqlite3:///jobs.db",
    "sqlite+aiosqlite:///jobs.db",
    "sqlite:///jobs.db?mode=ro",
    "sqlite:///jobs.db#1",
    "sqlite:///my%20jobs.db",
    "sqlite:///data/",
    "sqlite:///~/jobs.db",
    "~/jobs.db",
    "data/",
    "//host/jobs.db",
    "file:jobs.db",
    "file:jobs.db?mode=ro",
    "file:///jobs.db",
    "jobs.db?mode=ro",
    "postgresql:jobs",
    "postgresql:/host/jobs",
    "postgresql:u:hunter2@host",
    "POSTGRESQL://host/jobs",
    "postgress://host/jobs",
    "psql://host/jobs",
    "postgresql+asyncpg://host/jobs",
    "postgresql://u:a/hunter2@h/jobs",
    "postgresql://u:a@hunter2@h/jobs",
    "postgresql://u@h/jobs?password=a@hunter2",
    "mysql://u:hunter2@h/jobs",
    "http://h/jobs",
    "nats://h:4222",
    "u:hunter2@h/jobs",
    "localhost:5432/jobs",
    "host=h password=hunter2 dbname=jobs",
    "password = 'hunter2' host = h",
    "dbname=jobs",
    "Server=h;Database=jobs;Pwd=hunter2",
    "Driver={x};PWD=hunter2",
    '"sqlite:///jobs.db"',
    "'jobs.db'",
    "$DATABASE_URL",
    "sqlite:///${DATA}/jobs.db",
    "{{ url }}.db",
    "C:\\jobs.db",
]


@pytest.mark.parametrize(("where", "path"), FILES.items())
def test_a_file(where: str, path: str) -> None:
    assert address_of(where) == Sqlite(path)


@pytest.mark.parametrize(("where", "uri"), SERVERS.items())
def test_a_server(where: str, uri: str) -> None:
    assert address_of(where) == Postgres(uri)


def test_a_path_is_one_whatever_its_type() -> None:
    assert address_of(Path("/data/my jobs.db")) == Sqlite("/data/my jobs.db")
    with pytest.raises(InvalidDefinition):
        address_of(Path("sqlite:///jobs.db"))  # which is the path sqlite:/jobs.db
    with pytest.raises(InvalidDefinition):
        address_of(os.fsencode("/data/jobs.db"))  # type: ignore[arg-type]


@pytest.mark.parametrize("where", NONE)
def test_no_address(where: str) -> None:
    with pytest.raises(InvalidDefinition) as caught:
        address_of(where)
    assert caught.value.field == "where"
    assert "hunter2" not in str(caught.value)
    assert "postgresql://user@host:5432/database" in str(caught.value)


@pytest.mark.parametrize("where", NONE)
def test_what_is_no_address_makes_nothing(
    where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InvalidDefinition, match=r"^scheduler\.sql\.url: "):
        open_scheduler({"mode": "sql", "sql": {"url": where}}, environ={})
    assert list(tmp_path.iterdir()) == []


def test_a_directory_is_none(tmp_path: Path) -> None:
    for where in (tmp_path, f"sqlite:///{tmp_path}", str(tmp_path)):
        with pytest.raises(InvalidDefinition, match=r"where: .* is a directory"):
            SqlBackend(where)
    assert list(tmp_path.iterdir()) == []


# -- passwords ---------------------------------------------------------------

PASSWORDS = st.text(st.characters(codec="utf-8", exclude_categories=["Cs"]), max_size=12) | st.text(
    "/@?#%: =&'\"\\[]ab1,;$", max_size=12
)
PLACES = (
    "postgresql://user:{}@127.0.0.1:1/jobs",
    "postgresql://user:{}@127.0.0.1:1",
    "postgresql://127.0.0.1:1/jobs?user=me&password={}",
    "postgresql://127.0.0.1:1/jobs?password={}&user=me",
    "postgres://user:{}@[::1]:1/jobs?connect_timeout=2",
    "postgresql:user:{}@127.0.0.1/jobs",
    "host=127.0.0.1 port=1 password={} dbname=jobs",
    "password='{}' host=127.0.0.1",
    "mysql://user:{}@127.0.0.1/jobs",
    "mysql://127.0.0.1/jobs?password={}",
    "user:{}@127.0.0.1/jobs",
)
MARK = "hunter2"
"""A part of every password, so that a leaked part is recognised."""


@settings(max_examples=50)  # each one opens a scheduler
@given(before=PASSWORDS, after=PASSWORDS, place=st.sampled_from(PLACES))
@example(before="12/", after="", place=PLACES[0])
@example(before="a?user=", after="", place=PLACES[0])
@example(before="a@", after="", place=PLACES[0])
@example(before="", after="%", place=PLACES[0])
@example(before="", after="@x", place=PLACES[2])
def test_no_message_has_a_password(before: str, after: str, place: str) -> None:
    told: list[str] = []

    class Listen(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            told.append(self.format(record))

    async def use(url: str) -> None:
        config = {"mode": "sql", "sql": {"url": url, "timeout": "0.3s"}}
        scheduler = open_scheduler(config, environ={})
        told.append(repr(scheduler))
        async with scheduler:
            raise AssertionError("there is no such server")

    listening = Listen(logging.DEBUG)
    logging.getLogger().addHandler(listening)
    try:
        anyio.run(use, place.format(before + MARK + after))
    except SchedError as error:
        told += traceback.format_exception(error)
        seen: BaseException | None = error
        while seen is not None:  # the contexts, too, that are not printed
            told += [str(seen), repr(seen)]
            seen = seen.__cause__ or seen.__context__
    finally:
        logging.getLogger().removeHandler(listening)
    assert told
    assert MARK not in "\n".join(told)


def test_what_is_shown_of_an_address() -> None:
    assert shown_address("nats://h:4222") == "nats://h:4222"
    assert shown_address("h:4222") == "h:4222"
    assert shown_address("tls://u:p@h.example:4222/x?y=z") == "tls://***@h.example:4222"
    assert shown_address("postgresql://a:1,b:2/jobs") == "postgresql://a:1,b:2"
    assert shown_address("nats://[::1]:4222") == "nats://[::1]:4222"
    assert shown_address("nats://u:a/hunter2@h") == "nats://***"
    assert shown_address("nats://u:a hunter2") == "nats://***"


@given(before=PASSWORDS, after=PASSWORDS)
def test_an_address_is_shown_without_its_password(before: str, after: str) -> None:
    for place in ("nats://u:{}@h:4222", "nats://{}@h", "nats://h?token={}", "u:{}@h:1"):
        address = place.format(before + MARK + after)
        assert MARK not in shown_address(address)
        if "://" in address:
            assert MARK not in without_password(f"error at {address}: it is 'nats://h'")


def test_a_database_says_which_it_is(tmp_path: Path) -> None:
    assert str(SqlBackend(tmp_path / "jobs.db")) == f"SQLite at {tmp_path / 'jobs.db'}"
    assert str(SqlBackend(f"postgresql://u:{MARK}@h:1/jobs")) == (
        "PostgreSQL at h:1, database jobs, user u, schema sched"
    )
    assert MARK not in repr(Scheduler(SqlBackend(f"postgresql://u:{MARK}@h:1/jobs")))
