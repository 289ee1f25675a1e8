"""Who only looks makes no database, and leaves what is there as it is."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import anyio
import pytest

from sched_core import BackendError, Interval, Scheduler, StoreNotFound, open_scheduler
from sched_sql import SqlBackend


async def look(where: object) -> list[str]:
    config = {"mode": "sql", "sql": {"url": str(where)}}
    async with open_scheduler(config, environ={}, create=False) as scheduler:
        return [job.id async for job in scheduler.list_jobs()]


async def fill(where: Path) -> None:
    async with Scheduler(SqlBackend(where)) as scheduler:
        await scheduler.ensure_job("hourly", Interval(hours=1))


def test_what_is_missing_stays_missing(tmp_path: Path) -> None:
    (tmp_path / "dangling.db").symlink_to(tmp_path / "gone.db")
    for name in ("jbos.db", "dangling.db", "no/such/folder/jobs.db"):
        with pytest.raises(StoreNotFound, match=r"^there is no database at /.*\.db$"):
            anyio.run(look, tmp_path / name)
    assert [path.name for path in tmp_path.iterdir()] == ["dangling.db"]


@pytest.mark.parametrize("content", ["nothing", "tables of others", "text"])
def test_what_is_not_ours_is_left_as_it_is(tmp_path: Path, content: str) -> None:
    path = tmp_path / "jobs.db"
    if content == "text":
        path.write_text("these are no tables " * 1000)
    else:
        path.touch()
        if content != "nothing":
            with closing(sqlite3.connect(path)) as connection:
                connection.execute("CREATE TABLE theirs (a)")
    before = path.read_bytes()
    kind = BackendError if content == "text" else StoreNotFound
    with pytest.raises(kind, match=str(path)):
        anyio.run(look, path)
    assert [each.name for each in tmp_path.iterdir()] == ["jobs.db"]
    assert path.read_bytes() == before


def test_what_is_there_is_opened_also_while_its_service_runs(tmp_path: Path) -> None:
    path = tmp_path / "odd name, 100% #1.db"

    async def look_while_it_runs() -> None:
        async with Scheduler(SqlBackend(path)) as scheduler:
            await scheduler.ensure_job("hourly", Interval(hours=1))
            assert await look(path) == ["hourly"]
            await scheduler.ensure_job("daily", Interval(days=1))

    anyio.run(look_while_it_runs)
    assert anyio.run(look, path) == ["daily", "hourly"]
