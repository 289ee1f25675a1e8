"""A kind of schedule from another installed package: it runs there, and is left alone elsewhere."""

from __future__ import annotations

import logging
import os
import shutil
import sqlite3
import subprocess
import sys
import textwrap
import zipfile
from contextlib import closing
from importlib import metadata
from pathlib import Path

import pytest

from sched_core import codec
from sched_core.codec import ScheduleKind
from sched_core.schedule import kinds

ROOT = Path(__file__).parents[2]
UV = ROOT / ".dev" / "uv-venv" / "bin" / "uv"


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder into which examples/sunrise is installed, as a wheel unpacks."""
    folder = tmp_path_factory.mktemp("sunrise")
    uv = str(UV if UV.exists() else shutil.which("uv"))
    command = [uv, "build", "--wheel", "--out-dir", str(folder), str(ROOT / "examples" / "sunrise")]
    trust = {"UV_SYSTEM_CERTS": "1", "UV_NATIVE_TLS": "1", "UV_PYTHON_DOWNLOADS": "never"}
    done = subprocess.run(
        command, env=trust | os.environ, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / "site")
    return folder / "site"


PRELUDE = """
import logging
from datetime import UTC, datetime, timedelta
import anyio
from sched_core import *
from sched_core.testing import FakeClock, RecordingHandler
from sched_sql import SqlBackend

logging.basicConfig(level=logging.ERROR)
NOW = datetime(2026, 6, 21, tzinfo=UTC)
clock, handler = FakeClock(NOW), RecordingHandler()
"""

WITH = """
from sunrise import Sunrise

async def main():
    async with Scheduler(SqlBackend("jobs.db"), handler=handler, clock=clock) as scheduler:
        berlin = Sunrise(52.52, 13.405)
        job = await scheduler.ensure_job("lamps-off", berlin)
        assert (await scheduler.get_job("lamps-off")).spec.schedule == berlin
        lined = AnyOf(berlin, Once(NOW + timedelta(hours=1)))
        await scheduler.ensure_job("inside", lined)
        await scheduler.ensure_job("hourly", Interval(hours=1))
        assert (await scheduler.get_job("inside")).spec.schedule == lined
        clock.jump(job.next_run - clock.now() + timedelta(seconds=1))
        await scheduler.run_due()
        print(job.next_run.isoformat(), sorted(handler.ids))

anyio.run(main)
"""

WITHOUT = """
async def main():
    clock.jump(timedelta(days=2))
    async with Scheduler(SqlBackend("jobs.db"), handler=handler, clock=clock) as scheduler:
        await scheduler.run_due()
        assert handler.ids == ["hourly"], handler.ids
        listed = {job.id: job async for job in scheduler.list_jobs()}
        for id in ("lamps-off", "inside"):
            assert isinstance(listed[id], Undecodable), listed[id]
            for call in (
                scheduler.get_job(id),
                scheduler.ensure_job(id, Interval(hours=1)),
                scheduler.pause_job(id),
                scheduler.remove_job(id),
            ):
                try:
                    await call
                except JobUndecodable as error:
                    assert "'sunrise'" in str(error)
                else:
                    raise AssertionError
        print(listed["lamps-off"].reason)

anyio.run(main)
"""

AGAIN = """
async def main():
    clock.jump(timedelta(days=2))
    async with Scheduler(SqlBackend("jobs.db"), handler=handler, clock=clock) as scheduler:
        await scheduler.run_due()
        print(sorted(handler.ids), [event.coalesced for event in handler.events])

anyio.run(main)
"""


def run(code: str, folder: Path, *path: Path) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(PRELUDE + code)],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(map(str, path))},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def stored(folder: Path) -> list[tuple[object, ...]]:
    with closing(sqlite3.connect(folder / "jobs.db")) as connection:
        return connection.execute(
            "SELECT * FROM sched_job WHERE id != 'hourly' ORDER BY id"
        ).fetchall()


def test_it_runs_where_it_is_installed_and_is_left_alone_elsewhere(
    installed: Path, tmp_path: Path
) -> None:
    shown = run(WITH, tmp_path, installed)
    # The almanac says 02:43 UTC for Berlin's sunrise on 2026-06-21.
    assert shown.startswith("2026-06-21T02:4")
    assert shown.endswith("['hourly', 'inside', 'lamps-off']")

    before = stored(tmp_path)
    assert run(WITHOUT, tmp_path) == "the kind of schedule 'sunrise' is not known here"
    assert stored(tmp_path) == before

    # What was due meanwhile runs there: the sunrise of the 22nd.
    assert run(AGAIN, tmp_path, installed).startswith("['inside', 'lamps-off']")


@pytest.mark.usefixtures("own_kinds")
def test_a_package_that_cannot_be_loaded_disturbs_nothing(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    kind = ScheduleKind(Path, str, Path)
    monkeypatch.setattr(sys.modules[__name__], "GOOD", kind, raising=False)
    monkeypatch.setattr(sys.modules[__name__], "NO_KIND", "text", raising=False)
    points = [
        metadata.EntryPoint(name, value, codec.ENTRY_POINTS)
        for name, value in (
            ("missing", "no_such_module:KIND"),
            ("wrong", f"{__name__}:NO_KIND"),
            ("cron", f"{__name__}:GOOD"),
            ("good", f"{__name__}:GOOD"),
        )
    ]
    monkeypatch.setattr(metadata, "entry_points", lambda group: points)
    codec.load_installed.cache_clear()
    codec.known_tags.cache_clear()
    try:
        with caplog.at_level(logging.ERROR):
            assert codec.readable(codec.FORMAT, "good") is None
        assert codec.readable(codec.FORMAT, "wrong") is not None
        assert codec.readable(codec.FORMAT, "cron") is None
        assert kinds.KINDS["cron"].cls is not Path
        assert [record.args for record in caplog.records] == [
            (point.name, point.value) for point in points[:3]
        ]
    finally:
        codec.load_installed.cache_clear()
        codec.known_tags.cache_clear()
