"""What others do to the files of a SQLite database: copy, move, delete, link and lock them."""

# ruff: noqa: ASYNC221, ASYNC240 -- the processes and files are what is tested

from __future__ import annotations

import fcntl
import json
import os
import shutil
import sqlite3
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack, closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import anyio
import pytest
from tests.sql.stores import job

from sched_core import Room
from sched_core.clock import SystemClock
from sched_core.errors import BackendError, BackendUnavailable
from sched_core.ports import JobQuery
from sched_sql import DatabaseBackend, SqlBackend
from sched_sql.sqlite import guard
from sched_sql.sqlite.database import LOOK_EVERY

LOOKER = """
import sys, anyio
from sched_core.clock import SystemClock
from sched_core.ports import JobQuery
from sched_sql import SqlBackend

async def main():
    backend = SqlBackend(sys.argv[1])
    await backend.open(SystemClock(), worker="looker")
    page = await backend.jobs(JobQuery(), after=None, limit=999)
    print(*[job.id for job in page.items])
    await backend.close()

anyio.run(main)
"""

SHELL = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1])
print(*[row[0] for row in connection.execute("SELECT id FROM sched_job ORDER BY id")])
connection.close()
"""


WRITER = """
import sqlite3, sys
sqlite3.connect(sys.argv[1], timeout=0).execute("BEGIN IMMEDIATE")
"""


def others_see(path: Path, script: str = LOOKER) -> list[str]:
    """Return the jobs that a process sees, which opens the database and closes it."""
    said = subprocess.run(
        [sys.executable, "-c", script, str(path)], capture_output=True, text=True, check=False
    )
    assert said.returncode == 0, said.stderr
    return said.stdout.split()


async def opened(path: Path, **options: Any) -> DatabaseBackend:
    backend = SqlBackend(path, **options)
    await backend.open(SystemClock(), worker=f"worker-{os.urandom(4).hex()}")
    return backend


async def ids(backend: DatabaseBackend) -> list[str]:
    page = await backend.jobs(JobQuery(), after=None, limit=999)
    return [one.id for one in page.items]


def integrity(path: Path) -> str:
    with closing(sqlite3.connect(path)) as connection:
        found: str = connection.execute("PRAGMA integrity_check").fetchone()[0]
        return found


def backed_up(path: Path, copy: Path) -> None:
    with closing(sqlite3.connect(path)) as live:
        live.execute(f"VACUUM INTO '{copy}'")
    os.utime(copy, (0, 0))  # made long ago


# -- descriptors that are closed


def open_and_close(path: Path) -> None:
    path.open("rb").close()


def copy_all(path: Path) -> None:
    for each in path.parent.glob(f"{path.name}*"):
        if each.is_file():
            shutil.copy(each, path.parent / f"copy-of-{each.name}")


def hash_in_a_thread(path: Path) -> None:
    thread = threading.Thread(target=path.read_bytes)
    thread.start()
    thread.join()


@pytest.mark.parametrize(
    ("close", "script"),
    [(copy_all, LOOKER), (open_and_close, SHELL), (copy_all, SHELL), (hash_in_a_thread, SHELL)],
)
def test_a_process_that_closes_the_file_keeps_its_log(
    tmp_path: Path, close: Callable[[Path], None], script: str
) -> None:
    path = tmp_path / "jobs.db"

    async def main() -> None:
        backend = await opened(path)
        await backend.add([job("a")])
        log = Path(f"{path}-wal").stat().st_ino
        for number in range(2):
            close(path)
            assert "a" in others_see(path, script)
            assert Path(f"{path}-wal").stat().st_ino == log
            await backend.add([job(f"b{number}")])
        assert others_see(path, script) == ["a", "b0", "b1"]
        await backend.close()

    anyio.run(main)
    assert integrity(path) == "ok"
    assert not Path(f"{path}-wal").exists()


def test_of_two_backends_in_a_process_the_last_one_keeps_the_log(tmp_path: Path) -> None:
    path = tmp_path / "jobs.db"

    async def main() -> None:
        first, second = await opened(path), await opened(path)
        await first.add([job("a")])
        await second.close()
        open_and_close(path)
        assert others_see(path) == ["a"]
        await first.add([job("b")])
        assert others_see(path) == ["a", "b"]
        await first.close()

    anyio.run(main)
    assert not Path(f"{path}-wal").exists()


def test_connections_of_the_application_keep_their_locks_when_a_scheduler_closes(
    tmp_path: Path,
) -> None:
    path = tmp_path / "jobs.db"

    async def main() -> None:
        await (await opened(path)).close()
        with closing(sqlite3.connect(path, isolation_level=None)) as own:
            own.execute("BEGIN IMMEDIATE")
            own.execute("UPDATE sched_meta SET value = value + 1 WHERE key = 'checks'")
            backend = await opened(path)
            await backend.close()
            said = subprocess.run(
                [
                    sys.executable,
                    "-c",
                    WRITER,
                    str(path),
                ],
                capture_output=True,
                text=True,
                check=False,
            )
            assert "database is locked" in said.stderr
            own.execute("COMMIT")

    anyio.run(main)


def test_few_descriptors_are_kept_and_none_of_deleted_files(tmp_path: Path) -> None:
    async def main() -> None:
        for number in range(2 * guard.SPARE):
            folder = tmp_path / str(number)
            folder.mkdir()
            await (await opened(folder / "jobs.db")).close()
            if number % 2:
                shutil.rmtree(folder)
        await (await opened(tmp_path / "last.db")).close()

    before = dict(guard._files)  # of earlier tests, whose connections may still be open
    held = sum(file.holders > 0 for file in before.values())
    anyio.run(main)
    assert len(guard._files) <= held + guard.SPARE + 2
    made = [file for key, file in guard._files.items() if before.get(key) is not file]
    assert sum(os.fstat(file.descriptor).st_nlink == 0 for file in made) <= 2


SERVICE = """
import json, os, shutil, sys
from datetime import timedelta
from pathlib import Path
import anyio
from sched_core import Interval, Scheduler
from sched_sql import SqlBackend

path, name, copy = Path(sys.argv[1]), sys.argv[2], sys.argv[3] == "copies"
runs = open(f"{path.parent}/runs-{name}", "a", buffering=1)

async def handle(event):
    runs.write(json.dumps([event.id, event.scheduled_at.isoformat()]) + "\\n")
    for each in path.parent.glob("jobs.db*") if copy else ():
        if each.is_file():
            shutil.copy(each, f"{path.parent}/{name}-{each.name}")

async def main():
    async with Scheduler(SqlBackend(path), handler=handle) as scheduler:
        for number in range(5):
            await scheduler.ensure_job(f"tick-{number}", Interval(seconds=0.1))
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(lambda: scheduler.run_forever(signals=False))
            await anyio.to_thread.run_sync(sys.stdin.readline)
            print(json.dumps((await scheduler.health()).problems), flush=True)
            await scheduler.stop()

anyio.run(main)
"""


def runs(folder: Path) -> list[tuple[str, str]]:
    """Return what the services have run: the job, and the moment."""
    return [
        tuple(json.loads(line))
        for each in folder.glob("runs-*")
        for line in each.read_text().splitlines()
    ]


def test_services_whose_handlers_copy_the_files_share_the_work(tmp_path: Path) -> None:
    path = tmp_path / "jobs.db"
    with ExitStack() as stack:
        services = [
            stack.enter_context(
                subprocess.Popen(
                    [sys.executable, "-c", SERVICE, str(path), name, "copies"],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    text=True,
                )
            )
            for name in ("one", "two")
        ]
        for service in services:
            stack.callback(service.kill)
        others_see(path)
        while len(runs(tmp_path)) <= 20:
            others_see(path, SHELL)
        for service in services:
            said, _ = service.communicate("\n", timeout=30)
            assert json.loads(said) == []
            assert service.returncode == 0
    lines = runs(tmp_path)
    assert {each: count for each, count in Counter(lines).items() if count > 1} == {}
    assert integrity(path) == "ok"
    with closing(sqlite3.connect(path)) as connection:
        kept = connection.execute(
            "SELECT count(*) FROM sched_execution WHERE status = 'succeeded' AND final"
        ).fetchone()
    assert kept == (len(lines),)


# -- files that are replaced and deleted


def move_over(copy: Path, path: Path) -> None:
    copy.replace(path)


def copy_into(copy: Path, path: Path) -> None:
    shutil.copyfile(copy, path)


def delete_and_make(copy: Path, path: Path) -> None:
    path.unlink()
    shutil.copyfile(copy, path)


def as_documented_but_running(copy: Path, path: Path) -> None:
    for each in (path, Path(f"{path}-wal"), Path(f"{path}-shm")):
        each.unlink()
    copy.replace(path)


def log_deleted_and_copied_into(copy: Path, path: Path) -> None:
    Path(f"{path}-wal").unlink()
    copy_into(copy, path)


@pytest.mark.parametrize(
    "restore",
    [
        move_over,
        copy_into,
        delete_and_make,
        as_documented_but_running,
        log_deleted_and_copied_into,
    ],
)
def test_a_restore_under_a_running_service_mixes_nothing(
    tmp_path: Path, restore: Callable[[Path, Path], None], caplog: pytest.LogCaptureFixture
) -> None:
    path, copy = tmp_path / "jobs.db", tmp_path / "backup.db"

    async def main() -> None:
        first, second = await opened(path), await opened(path)
        await first.add([job(f"kept-{number:03}") for number in range(300)])
        backed_up(path, copy)
        await second.add([job(f"later-{number:03}") for number in range(100)])
        await anyio.sleep(0.02)
        restore(copy, path)
        with anyio.fail_after(20):
            for backend in (first, second, first):
                while True:
                    try:
                        await backend.check()
                        break
                    except BackendUnavailable:
                        await second.jobs(JobQuery(), after=None, limit=1)
        expected = [f"kept-{number:03}" for number in range(300)]
        assert await ids(first) == await ids(second) == expected
        await first.add([job("new")])
        assert (await ids(second))[-1] == "new"
        assert others_see(path) == [*expected, "new"]
        await first.close()
        await second.close()

    anyio.run(main)
    assert integrity(path) == "ok"
    assert "going on with what is there now" in caplog.text


@pytest.mark.parametrize("how", ["truncated", "replaced"])
def test_a_file_that_was_emptied_is_no_store_without_jobs(tmp_path: Path, how: str) -> None:
    """A service that went on with no job at all would be green, and silent without end."""
    path, copy = tmp_path / "jobs.db", tmp_path / "backup.db"

    async def main() -> None:
        backend = await opened(path)
        await backend.add([job("kept")])
        backed_up(path, copy)
        await anyio.sleep(0.02)
        if how == "truncated":
            os.truncate(path, 0)
        else:
            (tmp_path / "empty").touch()
            (tmp_path / "empty").replace(path)
        for _ in range(3):
            await anyio.sleep(2 * LOOK_EVERY)
            with pytest.raises(BackendUnavailable, match="was emptied under the scheduler"):
                await backend.check()
        copy_into(copy, path)
        with anyio.fail_after(20):
            while True:
                try:
                    await backend.check()
                    break
                except BackendUnavailable:
                    await anyio.sleep(LOOK_EVERY)
        assert await ids(backend) == ["kept"]
        await backend.close()

    anyio.run(main)
    assert integrity(path) == "ok"


def test_a_file_is_not_opened_while_it_is_still_written(tmp_path: Path) -> None:
    path, copy = tmp_path / "jobs.db", tmp_path / "backup.db"

    async def main() -> None:
        backend = await opened(path)
        await backend.add([job(f"kept-{number:03}") for number in range(300)])
        backed_up(path, copy)
        content = copy.read_bytes()
        await backend.add([job("later")])
        await anyio.sleep(0.02)

        def slowly() -> None:
            path.unlink()
            with path.open("wb") as file:
                for at in range(0, len(content), len(content) // 8):
                    file.write(content[at : at + len(content) // 8])
                    file.flush()
                    threading.Event().wait(0.1)

        with anyio.fail_after(20):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(anyio.to_thread.run_sync, slowly)
                await anyio.sleep(0.15)
                await backend.check()
                assert path.stat().st_size >= len(content)
        assert len(await ids(backend)) == 300
        await backend.close()

    anyio.run(main)
    assert integrity(path) == "ok"


def test_a_deleted_log_is_written_back(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "jobs.db"

    async def main() -> None:
        backend = await opened(path)
        await backend.add([job("a")])
        for round_ in range(2):
            Path(f"{path}-wal").unlink()
            Path(f"{path}-shm").unlink()
            await anyio.sleep(0.02)
            await backend.add([job(f"b{round_}")])
        assert others_see(path) == ["a", "b0", "b1"]
        Path(f"{path}-wal").unlink()
        await anyio.sleep(0.02)
        await backend.close()
        assert others_see(path) == ["a", "b0", "b1"]

    anyio.run(main)
    assert integrity(path) == "ok"
    assert "all of it was written back" in caplog.text


def test_a_touched_file_is_the_same_file(tmp_path: Path) -> None:
    path = tmp_path / "jobs.db"

    async def main() -> None:
        backend = await opened(path)
        await backend.add([job("a")])
        log = Path(f"{path}-wal").stat().st_ino
        await anyio.sleep(0.02)
        os.utime(path)
        await backend.add([job("b")])
        assert await ids(backend) == ["a", "b"]
        assert Path(f"{path}-wal").stat().st_ino == log
        await backend.close()

    anyio.run(main)


def test_checkpoints_of_another_program_are_none_of_our_business(tmp_path: Path) -> None:
    path = tmp_path / "jobs.db"

    async def main() -> None:
        backend = await opened(path)
        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            for number in range(3):
                await backend.add([job(f"a{number}")])
                other.execute("PRAGMA wal_checkpoint(TRUNCATE)")
                await anyio.sleep(0.02)
                assert len(await ids(backend)) == number + 1
        await backend.close()

    anyio.run(main)
    assert not list(tmp_path.glob("*.replaced"))


CRASH = """
import os, sys, anyio
from sched_core.clock import SystemClock
from sched_sql import SqlBackend
from tests.sql.stores import job

from sched_core import Room

async def main():
    backend = SqlBackend(sys.argv[1])
    await backend.open(SystemClock(), worker="doomed")
    await backend.add([job("of-before")])
    os._exit(0)

anyio.run(main)
"""


def test_the_log_of_another_file_is_refused_when_a_service_starts(tmp_path: Path) -> None:
    path, copy = tmp_path / "jobs.db", tmp_path / "backup.db"
    subprocess.run([sys.executable, "-c", CRASH, str(path)], check=True)
    assert Path(f"{path}-wal").stat().st_size > 0

    async def make_backup() -> None:
        backend = await opened(copy)
        await backend.add([job("of-backup")])
        await backend.close()

    anyio.run(make_backup)
    copy.replace(path)
    before = {each: each.read_bytes() for each in tmp_path.glob("jobs.db*") if each.is_file()}

    async def refused() -> None:
        backend = SqlBackend(path)
        with pytest.raises(BackendError, match=r"was replaced.*delete .*jobs\.db-wal.*start"):
            await backend.open(SystemClock(), worker="w")

    anyio.run(refused)
    assert {each: each.read_bytes() for each in before} == before
    Path(f"{path}-wal").unlink()
    Path(f"{path}-shm").unlink()
    assert others_see(path) == ["of-backup"]


def test_what_a_crash_left_is_opened_also_where_the_folder_was_copied(tmp_path: Path) -> None:
    first = tmp_path / "first"
    first.mkdir()
    subprocess.run([sys.executable, "-c", CRASH, str(first / "jobs.db")], check=True)
    shutil.copytree(first, tmp_path / "second")
    for folder in ("first", "second"):
        assert others_see(tmp_path / folder / "jobs.db") == ["of-before"]


# -- names, foreign files, locks


def test_all_names_of_a_file_share_one_lock(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    (tmp_path / "current").symlink_to(data)
    (tmp_path / "jobs.db").symlink_to(data / "jobs.db")
    names = [data / "jobs.db", tmp_path / "current" / "jobs.db", tmp_path / "jobs.db"]

    async def main() -> None:
        backends = [await opened(name, timeout=timedelta(milliseconds=50)) for name in names]
        assert len(list((data / "jobs.db-workers").iterdir())) == 3
        with (data / "jobs.db-lock").open() as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            for backend in backends:
                with pytest.raises(BackendUnavailable, match="has held the lock"):
                    await backend.check()
        for number, backend in enumerate(backends):
            await backend.add([job(str(number))])
            await backend.close()

    anyio.run(main)
    assert {path.name for path in tmp_path.iterdir()} == {"data", "current", "jobs.db"}
    assert others_see(tmp_path / "jobs.db") == ["0", "1", "2"]


def test_a_deleted_lock_file_is_made_again(tmp_path: Path) -> None:
    path, lock = tmp_path / "jobs.db", tmp_path / "jobs.db-lock"

    async def main() -> None:
        first = await opened(path, timeout=timedelta(milliseconds=50))
        second = await opened(path, timeout=timedelta(milliseconds=50))
        lock.unlink()
        await first.check()
        with lock.open() as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            for backend in (first, second):
                with pytest.raises(BackendUnavailable, match="has held the lock"):
                    await backend.check()
        await first.close()
        await second.close()

    anyio.run(main)


def test_foreign_files_next_to_the_workers_are_left_alone(tmp_path: Path) -> None:
    workers = tmp_path / "jobs.db-workers"
    workers.mkdir()
    (workers / ".DS_Store").write_bytes(b"\x00\x00\x00\x01Bud1\xff\xd8")
    (workers / "notes.txt").write_text("of another program")
    (workers / ("0" * 32)).write_text("as long as a name of ours")
    (workers / ("1" * 32)).write_bytes(b"\xff\xfe")
    (workers / "folder").mkdir()
    (workers / ("2" * 32)).mkdir()
    (workers / ("3" * 32)).symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere").write_text("worker-x")
    (workers / ("4" * 32)).symlink_to(tmp_path / "nowhere")
    os.mkfifo(workers / "pipe")
    os.mkfifo(workers / ("5" * 32))
    before = sorted(path.name for path in workers.iterdir())

    async def main() -> None:
        now = datetime.now(UTC)
        backend = await opened(tmp_path / "jobs.db")
        await backend.add([job("a", now)])
        assert len((await backend.claim_due(Room(1))).claims) == 1
        await anyio.sleep(1.1)
        with anyio.move_on_after(0.3):
            await backend.wait_due(Room(1))
        await backend.close()

    anyio.run(main)
    assert sorted(path.name for path in workers.iterdir()) == before
    assert (tmp_path / "elsewhere").read_text() == "worker-x"


@pytest.mark.parametrize("hold", ["BEGIN IMMEDIATE", "BEGIN EXCLUSIVE"])
def test_opening_waits_for_who_writes_to_a_file_without_a_log(tmp_path: Path, hold: str) -> None:
    path = tmp_path / "application.db"

    async def main() -> None:
        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("CREATE TABLE customer (name)")
            other.execute(hold)
            other.execute("INSERT INTO customer VALUES ('a')")
            with pytest.raises(BackendUnavailable, match=r"application\.db: database is locked"):
                await opened(path, timeout=timedelta(milliseconds=100))
            backends: list[DatabaseBackend] = []

            async def patient() -> None:
                backends.append(await opened(path))

            with anyio.fail_after(10):
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(patient)
                    await anyio.sleep(0.3)
                    assert backends == []
                    other.execute("COMMIT")
            await backends[0].add([job("a")])
            assert other.execute("SELECT name FROM customer").fetchall() == [("a",)]
            await backends[0].close()

    anyio.run(main)
