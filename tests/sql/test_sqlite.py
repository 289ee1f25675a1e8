"""What is SQLite's own: files, processes, the lock, records that cannot be read."""

# ruff: noqa: ASYNC220, ASYNC240 -- the processes and files are what is tested

from __future__ import annotations

import asyncio
import fcntl
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import anyio
import pytest
from attrs import evolve
from tests.sql.stores import (
    LEASE,
    NOW,
    Store,
    done,
    history,
    job,
    outcomes,
    renewals,
    run,
    statuses,
    stored,
)

from sched_core import Claim, JobQuery, Once, Policy, Room, Status, Undecodable
from sched_core.clock import SystemClock
from sched_core.errors import (
    BackendError,
    BackendUnavailable,
    InvalidDefinition,
    JobUndecodable,
    SchemaTooNew,
)
from sched_sql import SqlBackend, SqliteBackend


def on_file(test: Any, folder: Path, loop: str = "asyncio") -> None:
    run(test, "sqlite", folder, loop)


@contextmanager
def by_hand(path: Path) -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        yield connection


async def opened(path: Path, **options: Any) -> SqliteBackend:
    backend = SqliteBackend(path, **options)
    await backend.open(SystemClock(), worker=f"worker-{os.urandom(4).hex()}")
    return backend


# -- addresses


def test_addresses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)

    async def main() -> None:
        for where in ("sqlite:///a.db", f"sqlite:///{tmp_path}/b.db", Path("c.db"), "d.db"):
            backend = SqlBackend(where)
            await backend.open(SystemClock(), worker="w")
            await backend.check()
            await backend.close()

    anyio.run(main)
    assert {path.name for path in tmp_path.glob("?.db")} == {"a.db", "b.db", "c.db", "d.db"}


@pytest.mark.parametrize(
    "options",
    [
        {"lease": timedelta(0)},
        {"lease": 30},
        {"timeout": timedelta(-1)},
        {"synchronous": "OFF"},
        {"schema": "sched"},
        {"time": "clock"},
        {"migrate": True},
        {"pooled": True},
    ],
)
def test_options_that_cannot_be(options: dict[str, Any]) -> None:
    with pytest.raises(InvalidDefinition, match=next(iter(options))):
        SqlBackend("jobs.db", **options)


def test_a_backend_must_be_open(tmp_path: Path) -> None:
    async def main() -> None:
        backend = SqlBackend(tmp_path / "jobs.db")
        with pytest.raises(BackendError, match="not open"):
            await backend.check()
        await backend.open(SystemClock(), worker="w")
        with pytest.raises(BackendError, match="open already"):
            await backend.open(SystemClock(), worker="w")
        await backend.close()
        with pytest.raises(BackendError, match="not open"):
            await backend.wait_due(Room(1))
        await backend.open(SystemClock(), worker="w")
        await backend.check()
        await backend.close()

    anyio.run(main)


# -- bad files


async def refuses(path: Path, kind: type[BackendError], says: str) -> None:
    backend = SqlBackend(path, timeout=timedelta(milliseconds=50))
    with pytest.raises(kind, match=says) as caught:
        await backend.open(SystemClock(), worker="w")
    assert str(path) in str(caught.value)
    await backend.close()


def test_a_file_that_is_no_database_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "jobs.db"
    path.write_bytes(content := b"dear diary\n" * 1000)
    anyio.run(refuses, path, BackendError, "name another file")
    assert path.read_bytes() == content


def test_a_missing_folder(tmp_path: Path) -> None:
    anyio.run(refuses, tmp_path / "none" / "jobs.db", BackendError, "directory")


def test_a_newer_schema_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "jobs.db"

    async def main() -> None:
        backend = await opened(path)
        await backend.close()

    anyio.run(main)
    with by_hand(path) as connection:
        connection.execute("PRAGMA journal_mode = DELETE")
        connection.execute("UPDATE sched_meta SET value = 99 WHERE key = 'schema'")
    content = path.read_bytes()
    anyio.run(refuses, path, SchemaTooNew, "99")
    assert path.read_bytes() == content


def test_a_database_of_another_program_is_shared(tmp_path: Path) -> None:
    path = tmp_path / "jobs.db"
    with by_hand(path) as connection:
        connection.execute("CREATE TABLE job (id)")
        connection.execute("PRAGMA user_version = 7")

    async def main() -> None:
        backend = await opened(path)
        await backend.add([job()])
        await backend.close()

    anyio.run(main)
    with by_hand(path) as connection:
        assert connection.execute("SELECT count(*) FROM job").fetchone() == (0,)
        assert connection.execute("PRAGMA user_version").fetchone() == (7,)


def test_a_full_database_harms_nothing(tmp_path: Path) -> None:
    async def test(store: Store) -> None:
        backend = await store.open()
        await backend.add([job("a")])
        connection = backend._table._database.connection  # type: ignore[attr-defined]
        (pages,) = connection.execute("PRAGMA page_count").fetchone()
        connection.execute(f"PRAGMA max_page_count = {pages}")
        big = {"big": "x" * 60_000}
        with pytest.raises(BackendUnavailable, match=r"jobs\.db.*free disk space"):
            await backend.add([job(f"b{number}", metadata=big) for number in range(10)])
        (claim,) = (await backend.claim_due(Room(10))).claims
        connection.execute("PRAGMA max_page_count = 1000000")
        assert outcomes(await backend.settle([done(claim)])) == ["written"]
        assert [one.id for one in (await backend.jobs(JobQuery(), after=None, limit=9)).items] == [
            "a"
        ]
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)

    on_file(test, tmp_path)


def test_a_lock_of_another_program_is_waited_for_and_named(tmp_path: Path) -> None:
    async def main() -> None:
        backend = await opened(tmp_path / "jobs.db", timeout=timedelta(milliseconds=100))
        with by_hand(tmp_path / "jobs.db") as other:
            other.execute("BEGIN IMMEDIATE")
            with pytest.raises(BackendUnavailable, match=r"jobs\.db.*locked.*another program"):
                await backend.check()
            other.execute("ROLLBACK")
        await backend.check()
        with (tmp_path / "jobs.db-lock").open() as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            with pytest.raises(BackendUnavailable, match=r"jobs\.db-lock.*another process"):
                await backend.check()
        await backend.check()
        await backend.close()

    anyio.run(main)


READ_ONLY = """
import os, sys
import anyio, anyio._backends._asyncio
from sched_core.clock import SystemClock
from sched_core.errors import BackendError
from sched_sql import SqlBackend
import sched_sql.sqlite.backend  # while the interpreter's own files can be read

if os.getuid() == 0:  # who may write everywhere
    os.setuid(65534)

async def main():
    backend = SqlBackend(sys.argv[1])
    try:
        await backend.open(SystemClock(), worker="w")
        await backend.check()
    except BackendError as error:
        print(error)

anyio.run(main)
"""


@pytest.mark.parametrize("which", ["file", "folder"])
def test_what_may_only_be_read(tmp_path: Path, which: str) -> None:
    path = tmp_path / "jobs.db"

    async def main() -> None:
        await (await opened(path)).close()

    anyio.run(main)
    for folder in tmp_path.parents[:2]:  # those of pytest
        folder.chmod(0o755)
    tmp_path.chmod(0o777 if which == "file" else 0o555)
    if which == "file":
        path.chmod(0o444)
        (tmp_path / "jobs.db-lock").chmod(0o666)
        (tmp_path / "jobs.db-workers").chmod(0o777)
    said = subprocess.run(
        [sys.executable, "-c", READ_ONLY, str(path)], capture_output=True, text=True, check=False
    )
    tmp_path.chmod(0o755)
    assert str(tmp_path) in said.stdout, said.stderr
    assert "writable" in said.stdout or "write permission" in said.stdout


def test_a_removed_file_is_named_and_a_replaced_one_is_opened(tmp_path: Path) -> None:
    async def test(store: Store) -> None:
        backend = await store.open()
        await backend.add([job("a")])
        copy = tmp_path / "copy.db"
        with by_hand(store.path) as connection, closing(sqlite3.connect(copy)) as target:
            connection.backup(target)
        await backend.add([job("b")])
        for path in (store.path, Path(f"{store.path}-wal"), Path(f"{store.path}-shm")):
            path.unlink()
        with pytest.raises(BackendError, match="was removed"):
            await backend.check()
        copy.rename(store.path)
        await backend.check()
        page = await backend.jobs(JobQuery(), after=None, limit=9)
        assert [one.id for one in page.items] == ["a"]

    on_file(test, tmp_path)


# -- records that cannot be read


class Broken(bytes):
    """Bytes to store as text although they are none."""


def undecodable(connection: sqlite3.Connection, job_id: str, **changed: object) -> None:
    """Make a copy of job ``a`` that another version might have written."""
    columns = [
        row[0].decode()
        for row in connection.execute(
            "SELECT CAST(name AS BLOB) FROM pragma_table_info('sched_job')"
        )
    ]
    values = ", ".join(
        (f"CAST(:{name} AS TEXT)" if isinstance(changed[name], Broken) else f":{name}")
        if name in changed
        else name
        for name in columns
        if name != "id"
    )
    names = ", ".join(name for name in columns if name != "id")
    connection.execute(
        f"INSERT INTO sched_job (id, {names}) SELECT :id, {values} FROM sched_job WHERE id = 'a'",
        {"id": job_id, **changed},
    )


@pytest.mark.parametrize(
    ("changed", "reason", "record"),
    [
        ({"format": 3}, "format 3 is newer", b'{"every":60}'),
        ({"tag": "lunar", "schedule": '{"phase":"full"}'}, "'lunar'", b'{"phase":"full"}'),
        ({"schedule": '{"every":"soon"}'}, "schedule", b'{"every":"soon"}'),
        ({"schedule": "{"}, "schedule", b"{"),
        ({"schedule": b"\xff\xfe"}, "schedule", b"\xff\xfe"),
        ({"schedule": Broken(b"{\xff}")}, "schedule", b"{\xff}"),
        ({"tag": "once", "schedule": '{"at":"2026-13-01"}'}, "schedule", b'{"at":"2026-13-01"}'),
        ({"policy": '{"max_lost":0}'}, "max_lost", b'{"max_lost":0}'),
        ({"policy": '{"later":1}'}, "policy", b'{"later":1}'),
        ({"metadata": '{"a":1}'}, "metadata", b'{"a":1}'),
        ({"metadata": "{"}, "metadata", b"{"),
        ({"last_status": "asleep"}, "asleep", b'{"every":60}'),
    ],
)
def test_what_cannot_be_read_is_left_alone_and_stops_nothing(
    tmp_path: Path, changed: dict[str, object], reason: str, record: bytes
) -> None:
    async def test(store: Store) -> None:
        backend = await store.open()
        await backend.add([job("a", NOW)])
        with by_hand(store.path) as connection:
            connection.text_factory = bytes
            for number in range(5):
                undecodable(connection, f"u{number}", due_at=0, expires_at=0, **changed)
            query = "SELECT * FROM sched_job WHERE id <> 'a' ORDER BY id"
            before = connection.execute(query).fetchall()
            (claim,) = (await backend.claim_due(Room(1))).claims
            assert claim.job.id == "a"
            assert (await backend.claim_due(Room(10))).claims == []
            with anyio.move_on_after(0.1) as scope:
                await backend.wait_due(Room(1))
            assert scope.cancelled_caught
            found = await backend.get("u0")
            assert isinstance(found, Undecodable)
            assert (found.id, found.record) == ("u0", record)
            assert reason in found.reason
            page = await backend.jobs(JobQuery(), after=None, limit=10)
            assert [one.id for one in page.items] == ["a", "u0", "u1", "u2", "u3", "u4"]
            assert sum(isinstance(one, Undecodable) for one in page.items) == 5
            named = evolve(claim.job, spec=evolve(claim.job.spec, id="u0"))
            with pytest.raises(JobUndecodable):
                await backend.remove(named)
            with pytest.raises(JobUndecodable):
                await backend.replace(named)
            assert outcomes(await backend.settle([done(claim, next_run=NOW)])) == ["written"]
            assert await backend.prune(datetime.max.replace(tzinfo=UTC)) == 1
            assert len((await backend.claim_due(Room(10))).claims) == 1
            assert connection.execute(query).fetchall() == before

    on_file(test, tmp_path)


def test_unreadable_headers_are_listed_whatever_is_asked_for(tmp_path: Path) -> None:
    async def test(store: Store) -> None:
        backend = await store.open()
        await backend.add([job("a", NOW)])
        with by_hand(store.path) as connection:
            undecodable(connection, "u", tag="lunar")
        for query in (JobQuery(group="g"), JobQuery(metadata={"a": "b"})):
            page = await backend.jobs(query, after=None, limit=10)
            assert [one.id for one in page.items] == ["u"]
        page = await backend.jobs(JobQuery(id_prefix="a"), after=None, limit=10)
        assert [one.id for one in page.items] == ["a"]

    on_file(test, tmp_path)


# -- restored stores


def test_a_store_restored_under_a_running_worker_refuses_the_old_token(tmp_path: Path) -> None:
    async def test(store: Store) -> None:
        backend = await store.open()
        await backend.add([job("a")])
        snapshot = tmp_path / "snapshot.db"
        with by_hand(store.path) as live, closing(sqlite3.connect(snapshot)) as target:
            live.backup(target)
        (old,) = (await backend.claim_due(Room(1))).claims
        before = await stored(backend)
        edited = await backend.replace(before)
        with closing(sqlite3.connect(snapshot)) as source, by_hand(store.path) as live:
            source.backup(live)
        assert outcomes(await backend.settle([done(old)])) == ["claim_lost"]
        (fresh,) = (await backend.claim_due(Room(1))).claims
        assert fresh.token > old.token
        assert (await backend.replace(await stored(backend))).revision > edited.revision
        other = await store.open()
        assert outcomes(await other.settle([done(old)])) == ["claim_lost"]

    on_file(test, tmp_path)


# -- processes


WORKER = """
import sys, anyio
from sched_core import Room
from sched_core.clock import SystemClock
from sched_sql import SqlBackend

async def main():
    backend = SqlBackend(sys.argv[1])
    await backend.open(SystemClock(), worker="doomed")
    claims = (await backend.claim_due(Room(1))).claims
    print(len(claims), flush=True)
    await anyio.sleep(60)

anyio.run(main)
"""


@contextmanager
def process(script: str, *args: object) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        [sys.executable, "-c", script, *map(str, args)], stdout=subprocess.PIPE, text=True
    ) as child:
        try:
            yield child
        finally:
            child.kill()


@pytest.mark.parametrize("when", ["at open", "while waiting"])
def test_the_claim_of_a_killed_process_is_free_at_once(tmp_path: Path, when: str) -> None:
    path = tmp_path / "jobs.db"

    async def main() -> None:
        now = datetime.now(UTC)
        backend = await opened(path)
        await backend.add([job("a", now, schedule=Once(now))])
        with process(WORKER, path) as child:
            assert child.stdout is not None
            assert child.stdout.readline() == "1\n"
            await anyio.sleep(1.1)
            with anyio.move_on_after(0.5):
                await backend.wait_due(Room(1))
            assert (await backend.claim_due(Room(1))).claims == []
            child.send_signal(signal.SIGKILL)
            child.wait()
        killed = datetime.now(UTC)
        if when == "at open":
            other = await opened(path)
            (lapsed,) = (await other.claim_due(Room(1))).lapsed
            await other.close()
        else:
            with anyio.fail_after(5):
                while not (found := (await backend.claim_due(Room(1))).lapsed):
                    await backend.wait_due(Room(1))
            (lapsed,) = found
        assert (lapsed.worker, lapsed.attempt) == ("doomed", 1)
        assert await statuses(backend) == [(1, 1, "abandoned", False)]
        # No lease was waited for, only what follows every lost claim.
        with anyio.fail_after(10):
            while not (claims := (await backend.claim_due(Room(1))).claims):
                await backend.wait_due(Room(1))
        one = claims[0].job.standing.scheduled
        assert one is not None
        assert (one.attempts, one.lost) == (1, 1)
        assert one.due_at - killed < timedelta(seconds=10)
        assert len(list(Path(f"{path}-workers").iterdir())) == 1
        await backend.close()

    anyio.run(main)


def test_who_ran_alone_says_nothing_of_the_next_claim(tmp_path: Path) -> None:
    """The last claim that an occurrence may lose is one that was lost in quarantine."""

    async def test(store: Store) -> None:
        backend, other = await store.open(), await store.open()
        await backend.add([job("a", policy=Policy(max_lost=2))])
        (claim,) = (await backend.claim_due(Room(1))).claims
        assert await backend.renew(renewals([claim], alone=True))
        settlement = done(claim, next_run=NOW)
        assert settlement.standing is not None
        one = settlement.standing.scheduled
        assert one is not None
        again = evolve(settlement.standing, scheduled=evolve(one, lost=1))
        assert outcomes(await backend.settle([evolve(settlement, standing=again)])) == ["written"]
        for alone, lost in ((False, 1), (True, 2)):
            (claim,) = (await backend.claim_due(Room(1))).claims
            if alone:
                assert await backend.renew(renewals([claim], alone=True))
            store.clock.advance(LEASE)
            assert len((await other.claim_due(Room(1))).lapsed) == 1
            left = (await stored(other)).standing.scheduled
            assert left is not None
            assert left.lost == lost
            store.clock.advance(LEASE)

    on_file(test, tmp_path)


def test_a_closed_backend_leaves_its_claims_to_their_lease(tmp_path: Path) -> None:
    async def test(store: Store) -> None:
        first, second = await store.open(), await store.open()
        await first.add([job("a")])
        assert len((await first.claim_due(Room(1))).claims) == 1
        await first.close()
        third = await store.open()
        assert (await third.claim_due(Room(1))).claims == []
        store.clock.advance(LEASE)
        (lapsed,) = (await second.claim_due(Room(1))).lapsed
        assert (lapsed.worker, lapsed.status) == ("worker-1", Status.ABANDONED)
        store.clock.advance(LEASE)
        assert len((await second.claim_due(Room(1))).claims) == 1

    on_file(test, tmp_path)


ADDER = """
import sys, anyio, uuid
from datetime import UTC, datetime
from sched_core.clock import SystemClock
from sched_core import Job, JobSpec, Once, Pending, Standing
from sched_sql import SqlBackend

async def main():
    backend = SqlBackend(sys.argv[1])
    await backend.open(SystemClock(), worker="adder")
    sys.stdin.readline()
    now = datetime(2026, 1, 1, tzinfo=UTC)
    standing = Standing(1, Pending(1, now, now), now)
    await backend.add([Job(JobSpec("theirs", Once(now)), uuid.uuid4().hex, False, now, standing)])
    print("added", flush=True)
    await backend.close()

anyio.run(main)
"""


@pytest.mark.parametrize("loop", ["asyncio", "trio"])
def test_a_job_added_by_another_process_wakes(tmp_path: Path, loop: str) -> None:
    """Also under a clock that does not move. In 300 ms; the bound here is for busy machines."""

    async def test(store: Store) -> None:
        backend = await store.open()
        took = 0.0
        with subprocess.Popen(
            [sys.executable, "-c", ADDER, str(store.path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        ) as child:
            assert child.stdin is not None
            assert child.stdout is not None
            with anyio.fail_after(10):
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(backend.wait_due, Room(1))
                    await anyio.sleep(0.5)
                    child.stdin.write("\n")
                    child.stdin.flush()
                    assert await anyio.to_thread.run_sync(child.stdout.readline) == "added\n"
                    added = time.monotonic()
                took = time.monotonic() - added
        assert took < 2
        assert [claim.job.id for claim in (await backend.claim_due(Room(1))).claims] == ["theirs"]

    on_file(test, tmp_path, loop)


def test_a_fork_lets_go_of_the_parent_and_is_refused(tmp_path: Path) -> None:
    """The child lives on after the parent was killed, and does not keep its claims alive."""
    script = """
import os, sys, anyio, time
from sched_core import Room
from sched_core.clock import SystemClock
from sched_core.errors import SchedulerForked
from sched_sql import SqlBackend

async def main():
    backend = SqlBackend(sys.argv[1])
    await backend.open(SystemClock(), worker="doomed")
    assert len((await backend.claim_due(Room(1))).claims) == 1
    if os.fork():
        time.sleep(60)
    try:
        await backend.check()
    except SchedulerForked:
        print("refused", flush=True)
    time.sleep(60)

anyio.run(main)
"""
    path = tmp_path / "jobs.db"

    async def main() -> None:
        now = datetime.now(UTC)
        backend = await opened(path)
        await backend.add([job("a", now)])
        with subprocess.Popen(
            [sys.executable, "-c", script, str(path)],
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        ) as parent:
            try:
                assert parent.stdout is not None
                assert parent.stdout.readline() == "refused\n"
                parent.kill()
                parent.wait()
                with anyio.fail_after(5):
                    while not (claims := (await backend.claim_due(Room(1))).claims):
                        await backend.wait_due(Room(1))
                one = claims[0].job.standing.scheduled
                assert one is not None
                assert one.attempts == 1
            finally:
                os.killpg(parent.pid, signal.SIGKILL)
        await backend.close()

    anyio.run(main)


# -- cancellation


@pytest.mark.parametrize("loop", ["asyncio", "trio"])
def test_a_cancelled_claim_leaves_nothing_claimed(tmp_path: Path, loop: str) -> None:
    async def test(store: Store) -> None:
        backend, other = await store.open(), await store.open()
        await backend.add([job(f"{number:03}") for number in range(100)])
        for delay in (0.0, 0.0005, 0.001, 0.002, 0.003, 0.005):
            claims: list[Claim] = []
            with anyio.move_on_after(delay):
                claims += (await backend.claim_due(Room(100))).claims
            await backend.release(claims)
        with anyio.CancelScope(shield=True):
            assert len((await other.claim_due(Room(1000))).claims) == 100
        assert await statuses(other) == []

    on_file(test, tmp_path, loop)


def test_asyncios_own_cancellation_leaves_nothing_claimed(tmp_path: Path) -> None:
    async def test(store: Store) -> None:
        backend, other = await store.open(), await store.open()
        await backend.add([job(f"{number:03}") for number in range(100)])
        for delay in (0.0, 0.0005, 0.001, 0.002, 0.003):
            task = asyncio.ensure_future(backend.claim_due(Room(100)))
            await asyncio.sleep(delay)
            task.cancel()
            try:
                await backend.release((await task).claims)
            except asyncio.CancelledError:
                pass
            claims = (await other.claim_due(Room(1000))).claims
            assert len(claims) == 100
            await other.release(claims)

    on_file(test, tmp_path)


# -- the history's own


def test_executions_are_found_before_and_after_they_are_indexed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sched_sql.sqlite.history.UNINDEXED", 7)
    monkeypatch.setattr("sched_sql.sqlite.history.CHUNK", 5)
    monkeypatch.setattr("sched_sql.sqlite.history._WINDOW", 3)

    async def test(store: Store) -> None:
        backends = [await store.open(), await store.open()]
        await backends[0].add([job("a"), job("b")])
        repeated = []
        for number in range(20):
            backend = backends[number % 2]
            settlements = [
                done(claim, next_run=NOW) for claim in (await backend.claim_due(Room(2))).claims
            ]
            await backend.settle(settlements)
            repeated += settlements
            expected = list(range(1, number + 2))
            assert [one.number for one in await history(backend, "a")] == expected
        assert outcomes(await backends[0].settle(repeated)) == ["written"] * 40
        assert len(await history(backends[0])) == 40
        assert await backends[1].prune(NOW + timedelta(microseconds=1)) == 40
        assert await history(backends[1]) == []

    on_file(test, tmp_path)


def test_nothing_is_left_next_to_a_closed_database(tmp_path: Path) -> None:
    async def main() -> None:
        await (await opened(tmp_path / "jobs.db")).close()

    anyio.run(main)
    assert list((tmp_path / "jobs.db-workers").iterdir()) == []
    shutil.rmtree(tmp_path / "jobs.db-workers")
    assert {path.name for path in tmp_path.iterdir()} == {"jobs.db", "jobs.db-lock"}


def test_a_lost_claim_is_found_without_a_look_at_what_is_due(tmp_path: Path) -> None:
    """Counted in steps of SQLite's machine: a backlog of thousands costs none of them."""

    async def test(store: Store) -> None:
        steps = []
        for count in (10, 10_000):
            backend, other = await store.open(), await store.open()
            await backend.add([job("lost", NOW - timedelta(days=1))])
            assert [one.job.id for one in (await other.claim_due(Room(1))).claims] == ["lost"]
            await backend.add([job(f"{count}-{n}", NOW) for n in range(count)])
            store.clock.advance(LEASE)
            connection = backend._table._database.connection  # type: ignore[attr-defined]
            taken = [0]

            def tick(taken: list[int] = taken) -> None:
                taken[0] += 1

            connection.set_progress_handler(tick, 10)
            claimed = await backend.claim_due(Room(0))
            connection.set_progress_handler(None, 0)
            assert [one.job_id for one in claimed.lapsed] == ["lost"]
            steps.append(taken[0])
            with by_hand(store.path) as other_program:
                other_program.execute("DELETE FROM sched_job")
        assert steps[1] <= steps[0] + 5

    on_file(test, tmp_path)


def test_opening_and_waiting_do_not_look_at_all_jobs(tmp_path: Path) -> None:
    """Counted in steps of SQLite's machine, which no busy computer changes."""

    async def test(store: Store) -> None:
        steps = []
        for count in (10, 20_000):
            backend = await store.open()
            await backend.add([job(f"{count}-{n}", NOW + timedelta(days=1)) for n in range(count)])
            await backend.close()
            backend = await store.open()
            connection = backend._table._database.connection  # type: ignore[attr-defined]
            taken = [0]

            def tick(taken: list[int] = taken) -> None:
                taken[0] += 1

            connection.set_progress_handler(tick, 10)
            assert (await backend.claim_due(Room(10))).claims == []
            with anyio.move_on_after(0.05):
                await backend.wait_due(Room(1))
            connection.set_progress_handler(None, 0)
            steps.append(taken[0])
            await backend.close()
        assert steps[1] <= steps[0] + 5

    on_file(test, tmp_path)
