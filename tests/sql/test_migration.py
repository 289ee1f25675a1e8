"""A store as revision 1996364 wrote it opens and goes on; ``stored/make_first.py.txt`` made it."""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import anyio
import pytest

from sched_core import (
    Execution,
    ExecutionQuery,
    Gap,
    Job,
    JobEvent,
    JobQuery,
    Kind,
    Pause,
    Pending,
    Room,
    Scheduler,
    Standing,
    Status,
    Undecodable,
)
from sched_core.errors import BackendError, SchemaTooNew, StoreNotFound
from sched_core.testing import FakeClock, history
from sched_sql import DatabaseBackend, SqlBackend
from sched_sql.sqlite.schema import StillClaimed, migrate, version_of
from sched_sql.sqlite.workers import WorkerFiles

DUMP = (Path(__file__).parent / "stored" / "first.sql").read_text(encoding="utf-8")


def at(minutes: float) -> datetime:
    """Return a moment of the clock that the store was made by."""
    return datetime(2026, 1, 1, tzinfo=UTC) + timedelta(minutes=minutes)


MADE = at(21.5)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    found = tmp_path / "jobs.db"
    with closing(sqlite3.connect(found)) as connection:
        connection.executescript(DUMP)
    return found


def with_store(
    path: Path, test: Callable[[DatabaseBackend, FakeClock], Any], **options: Any
) -> None:
    async def main() -> None:
        clock, backend = FakeClock(MADE), SqlBackend(path, **options)
        await backend.open(clock, worker="new-1")
        await test(backend, clock)
        await backend.close()

    anyio.run(main)


def schedule_at(number: int, minutes: float, **known: Any) -> Pending:
    return Pending(number, at(minutes), known.pop("due", at(minutes)), **known)


def trigger(number: int, minutes: float) -> Pending:
    return Pending(number, at(minutes), at(minutes), Kind.TRIGGERED, origin=number)


EXPECTED = {
    "active": Standing(1, schedule_at(1, 120), at(120)),
    "announced": Standing(0, None, None, pause=Pause(at(0), 0, None, "being declared")),
    "any": Standing(
        2,
        schedule_at(2, 10),
        at(10),
        last_scheduled_at=at(5),
        last_finished_at=at(5),
        last_status=Status.SUCCEEDED,
    ),
    # A trigger waited behind what was due: it is one of its own now.
    "behind": Standing(2, schedule_at(1, 5), at(5), (trigger(2, 5),)),
    "claimed": Standing(1, schedule_at(1, 5), at(5)),
    # The trigger had the number; the schedule's gets the next.
    "claimed-trigger": Standing(2, schedule_at(2, 60), at(5), (trigger(1, 5),)),
    "edited": Standing(2, schedule_at(2, 81.5), at(81.5)),
    "ends-pause": Standing(1, schedule_at(1, 20), at(21), pause=Pause(at(0), 1, at(21), "a while")),
    "interrupted": Standing(1, schedule_at(1, 5, attempts=1, began_at=at(5)), at(5)),
    # A lost claim was no attempt before the next settle; it is one now.
    "lost-free": Standing(1, schedule_at(1, 5, attempts=1, lost=1, began_at=at(5)), at(5)),
    "lost-held": Standing(1, schedule_at(1, 5, attempts=1, lost=1, began_at=at(5)), at(5)),
    "marked": Standing(1, schedule_at(1, 60), at(60), skip=at(60)),
    "once": Standing(
        1,
        None,
        None,
        last_scheduled_at=at(5),
        last_finished_at=at(5),
        last_status=Status.SUCCEEDED,
        expires_at=at(5) + timedelta(days=7),
    ),
    # What was due before the pause is folded into what outlived it; what lay inside is a gap.
    "outlived": Standing(
        1,
        schedule_at(1, 5, due=at(20.5), coalesced=2, coalesced_until=at(15)),
        at(20.5),
        gaps=(Gap(at(15), at(20.5)),),
    ),
    "paused": Standing(1, schedule_at(1, 5), None, pause=Pause(at(5), 1, None, "holiday")),
    # A trigger ran inside a pause.
    "paused-triggered": Standing(
        2, schedule_at(2, 60), at(5), (trigger(1, 5),), Pause(at(5), 0, None, "x")
    ),
    "paused-until": Standing(1, schedule_at(1, 40), at(65), pause=Pause(at(5), 1, at(65))),
    "retried": Standing(
        1, schedule_at(1, 5, due=at(7), attempts=1, failures=1, began_at=at(5)), at(7)
    ),
    "triggered": Standing(2, schedule_at(2, 60), at(5), (trigger(1, 5),)),
}

HELD = {"claimed": 1, "claimed-trigger": 1, "edited": 1, "edited-policy": 1, "lost-held": 1}
"""Jobs that a claim holds, and the number of the occurrence; others are tombstones or edited."""


def test_every_job_is_what_it_was(path: Path) -> None:
    async def test(backend: DatabaseBackend, clock: FakeClock) -> None:
        page = await backend.jobs(JobQuery(), after=None, limit=100)
        jobs = {job.id: job for job in page.items if isinstance(job, Job)}
        assert {job_id: jobs[job_id].standing for job_id in EXPECTED} == EXPECTED
        assert {job.id: job.held for job in jobs.values() if job.held is not None} == HELD
        odd = {job.id: job.reason for job in page.items if isinstance(job, Undecodable)}
        assert set(odd) == {"odd-kind", "odd-number", "odd-format"}
        assert "removed" not in jobs
        active = jobs["active"]
        assert (active.spec.name, active.spec.group, dict(active.spec.metadata), active.uid) == (
            "Nightly",
            "g",
            {"of": "me"},
            "u1",
        )
        for state, count in {"paused": 5, "finished": 1, "active": len(jobs) - 6}.items():
            query = JobQuery(type(active.standing.state)(state))
            listed = await backend.jobs(query, after=None, limit=100)
            assert len([job for job in listed.items if isinstance(job, Job)]) == count, state

    with_store(path, test)


def test_the_history_is_what_it_was(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        before = connection.execute(
            "SELECT job_id, uid, number, attempt, status, final, token, worker, folded, reason, "
            "finished_at, manual FROM sched_ledger ORDER BY seq DESC"
        ).fetchall()
    assert {row[4] for row in before} >= {
        *("succeeded", "failed", "missed", "skipped", "superseded", "interrupted", "abandoned")
    }

    async def test(backend: DatabaseBackend, clock: FakeClock) -> None:
        page = await backend.executions(ExecutionQuery(), after=None, limit=100)
        after = [
            (
                *(one.job_id, one.uid, one.number, one.attempt, one.status.value, one.final),
                *(one.token, one.worker, one.coalesced, one.reason),
                (one.finished_at - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1),
                one.manual,
            )
            for one in page.items
            if isinstance(one, Execution)
        ]
        assert after == before
        (found,) = (
            await backend.executions(ExecutionQuery(job_id="dropped"), after=None, limit=9)
        ).items
        assert found.id == "u7:1:0"

    with_store(path, test)


def test_it_goes_on(path: Path) -> None:
    ran: list[tuple[str, str, int]] = []

    async def handle(event: JobEvent) -> None:
        ran.append((event.id, event.key, event.attempt))

    async def main() -> None:
        clock = FakeClock(MADE)
        async with Scheduler(SqlBackend(path), handler=handle, clock=clock) as scheduler:
            clock.advance(minutes=1)  # the leases have ended: no worker holds a claim any more
            for _ in range(40):
                await scheduler.run_due()
                clock.advance(minutes=1)
            found = await history(scheduler)
            jobs = {job.id: job async for job in scheduler.list_jobs() if isinstance(job, Job)}
            await scheduler.resume_job("paused")
            await scheduler.run_due()
        ids = [one.id for one in found]
        assert len(ids) == len(set(ids))
        assert all(job.held is None for job in jobs.values())
        finals = {(one.uid, one.number) for one in found if one.final}
        assert len(finals) == len([one for one in found if one.final]), "two ends of one"
        status = {one.id: one.status.value for one in found}
        # What the old workers held was lost by them, and is attempted again, or ended.
        lost = {"claimed": "u16:1", "lost-held": "u19:1", "edited-policy": "u21:1"}
        for job_id, key in lost.items():
            attempt = 2 if job_id == "lost-held" else 1
            assert status[f"{key}:{attempt}"] == "abandoned"
            assert (job_id, key, attempt + 1) in ran
        assert status["u17:1:1"] == "abandoned"  # of a trigger
        assert ("claimed-trigger", "u17:1", 2) in ran
        for key in ("u20:1", "u22:1", "u23:1"):  # edited and removed under their claims
            assert (status[f"{key}:1"], status[f"{key}:0"]) == ("abandoned", "superseded")
        for run in [
            *(("behind", "u14:1", 1), ("behind", "u14:2", 1), ("once-again", "u15:2", 1)),
            *(("triggered", "u13:1", 1), ("retried", "u4:1", 2), ("lost-free", "u18:1", 2)),
            *(("interrupted", "u26:1", 2), ("outlived", "u12:1", 1), ("readded", "u28:1", 1)),
            *(("paused-triggered", "u11:1", 1), ("marked", "u24:1", 1)),
        ]:
            assert (run in ran) is (run[0] != "marked"), run
        outlived = next(one for one in found if one.id == "u12:1:1")
        # Two from before the pause; what has passed since it.
        assert (outlived.coalesced, outlived.coalesced_until) == (2, at(15))
        assert ("paused", "u9:1", 1) in ran

    anyio.run(main)


def test_it_waits_for_workers_that_hold_claims_and_names_them(path: Path) -> None:
    old = WorkerFiles(f"{path}-workers")
    old.register("old-1")

    async def refused() -> None:
        backend = SqlBackend(path, timeout=timedelta(milliseconds=200))
        with pytest.raises(StillClaimed, match=r"'?old-1'? \('claimed' and 7 more\).*stop them"):
            await backend.open(FakeClock(MADE), worker="new-1")

    anyio.run(refused)
    with closing(sqlite3.connect(path)) as connection:
        assert version_of(connection, "") == (1, 4)
        assert connection.execute("SELECT count(*) FROM sched_ledger").fetchone() == (13,)
    ending = threading.Timer(0.3, old.leave)
    ending.start()

    async def test(backend: DatabaseBackend, clock: FakeClock) -> None:
        assert isinstance(await backend.get("claimed"), Job)

    with_store(path, test)
    ending.join()


def test_a_backup_of_the_schema_before_is_restored_under_a_running_worker(path: Path) -> None:
    async def test(backend: DatabaseBackend, clock: FakeClock) -> None:
        assert await backend.prune(datetime.max.replace(tzinfo=UTC)) == 13
        with closing(sqlite3.connect(path.with_name("backup.db"))) as source:
            source.executescript(DUMP)
            with closing(sqlite3.connect(path)) as live:
                source.backup(live)
        assert isinstance(await backend.get("claimed"), Job)
        page = await backend.executions(ExecutionQuery(), after=None, limit=100)
        assert len(page.items) == 13

    with_store(path, test)


def test_who_only_looks_changes_nothing(path: Path) -> None:
    before = path.read_bytes()

    async def refused() -> None:
        backend = SqlBackend(path, create=False)
        with pytest.raises(BackendError, match="its schema 1 is older than 4") as caught:
            await backend.open(FakeClock(MADE), worker="new-1")
        assert not isinstance(caught.value, StoreNotFound)

    anyio.run(refused)
    with closing(sqlite3.connect(path)) as connection:
        assert version_of(connection, "") == (1, 4)
    assert len(path.read_bytes()) == len(before)


def test_old_code_refuses_the_new_schema(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def nothing(backend: DatabaseBackend, clock: FakeClock) -> None:
        return

    with_store(path, nothing)
    with closing(sqlite3.connect(path)) as connection:
        # What revision 1996364 does first of all, with the one migration that it has.
        monkeypatch.setattr("sched_sql.sqlite.schema._MIGRATIONS", path.parent)
        (path.parent / "0001_first.sql").touch()
        with pytest.raises(SchemaTooNew, match="schema 4 was written by a newer sched-sql"):
            version_of(connection, "jobs.db")


def test_killed_at_any_statement_it_opens_again(path: Path) -> None:
    store = path.read_bytes()
    statements = _migrated_until(path, 10_000)
    assert statements > 30
    for number in range(1, statements + 1):
        with closing(sqlite3.connect(path, isolation_level=None)) as connection:
            connection.execute("PRAGMA synchronous = OFF")  # no power is lost here
            version, newest = version_of(connection, "")
            assert version in {1, newest}
            if version == 1:
                migrate(connection, 1, str(path), lambda _: False)
            assert connection.execute("SELECT count(*) FROM sched_job").fetchone() == (31,)
            assert connection.execute("SELECT count(*) FROM sched_execution").fetchone() == (13,)
        path.write_bytes(store)
        assert _migrated_until(path, number) == number

    async def test(backend: DatabaseBackend, clock: FakeClock) -> None:
        found = await backend.get("outlived")
        assert isinstance(found, Job)
        assert found.standing == EXPECTED["outlived"]

    with_store(path, test)


def _migrated_until(path: Path, number: int) -> int:
    """Migrate in a child that dies at its nth statement; return how many it began."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        count = 0

        def trace(_: str) -> None:
            nonlocal count
            count += 1
            os.write(writing, b".")
            if count == number:
                os._exit(9)

        try:
            connection = sqlite3.connect(path, isolation_level=None)
            connection.execute("PRAGMA synchronous = OFF")
            connection.set_trace_callback(trace)
            migrate(connection, 1, str(path), lambda worker: False)
        finally:
            os._exit(0)
    os.close(writing)
    with open(reading, "rb") as pipe:  # noqa: PTH123 -- a descriptor
        count = len(pipe.read())
    os.waitpid(child, 0)
    return count


def test_a_newer_version_that_changes_the_schema_under_a_worker_is_named(path: Path) -> None:
    async def test(backend: DatabaseBackend, clock: FakeClock) -> None:
        with closing(sqlite3.connect(path)) as newer, newer:
            newer.execute("UPDATE sched_meta SET value = 99 WHERE key = 'schema'")
            newer.execute("ALTER TABLE sched_job RENAME COLUMN marks TO notes")
        for call in (
            backend.check,
            lambda: backend.claim_due(Room(1)),
            lambda: backend.get("claimed"),
        ):
            with pytest.raises(SchemaTooNew, match="upgrade sched-sql; nothing was changed"):
                await call()

    with_store(path, test)
