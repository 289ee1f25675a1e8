"""A SQLite file that others lock for longer than a lease: no second run alongside the first."""

from __future__ import annotations

import fcntl
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import pytest
from tests.sql import stores
from tests.sql.stores import NOW, done, job, renewals

from sched_core import Claim, Once, Renewal, Room, Scheduler
from sched_core.errors import BackendUnavailable
from sched_core.testing import FakeClock, history
from sched_sql import SqlBackend, SqliteBackend
from sched_sql._shared.moments import micros
from sched_sql.sqlite.renewals import REMEMBERED, Renewals, UnlockedRenewal

LEASE = timedelta(seconds=1)
"""The lease by a clock that is moved by hand; tests really wait for a quarter of it."""


@contextmanager
def database_locked(path: Path) -> Iterator[None]:
    """Write, as a program does that is not ours."""
    with closing(sqlite3.connect(path, isolation_level=None, timeout=30)) as other:
        other.execute("BEGIN IMMEDIATE")
        yield
        other.execute("ROLLBACK")


@contextmanager
def lock_file_locked(path: Path) -> Iterator[None]:
    """Keep the lock, as a process of ours does that is stopped in its transaction."""
    with Path(f"{path}-lock").open("rb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


LOCKS: dict[str, Callable[[Path], AbstractContextManager[None]]] = {
    "the database": database_locked,
    "the lock file": lock_file_locked,
}


async def workers(
    path: Path, clock: FakeClock, wait: timedelta = timedelta(milliseconds=10)
) -> list[SqliteBackend]:
    """Open two, and make a job that is due; the first one waits for locks so long."""
    made = [SqliteBackend(path, lease=LEASE, timeout=wait), SqliteBackend(path, lease=LEASE)]
    for number, backend in enumerate(made):
        await backend.open(clock, worker=f"w{number}")
    await made[0].add([job("a", clock.now())])
    return made


async def lost(backend: SqliteBackend, worker: str) -> bool:
    """Look for what is due; return whether the claim of a worker was found to be lost."""
    claimed = await backend.claim_due(Room(1))
    assert not claimed.claims, "what was lost waits"
    return [one.worker for one in claimed.lapsed] == [worker]


@pytest.mark.parametrize("lock", LOCKS.values(), ids=LOCKS)
def test_a_claim_lives_while_its_owner_renews(
    tmp_path: Path, lock: Callable[[Path], AbstractContextManager[None]]
) -> None:
    path = tmp_path / "jobs.db"

    async def main() -> None:
        clock = FakeClock(NOW)
        owner, other = await workers(path, clock)
        (claim,) = held = (await owner.claim_due(Room(1))).claims
        for _ in range(2):  # the second lock is taken before the row was renewed after the first
            with lock(path):
                for _ in range(2):
                    clock.advance(LEASE * 0.9)
                    held = await owner.renew(renewals(held))
                    assert [each.expires_at for each in held] == [clock.now() + LEASE]
            clock.advance(LEASE * 0.9)
            assert not (await other.claim_due(Room(1))).claims
            with anyio.move_on_after(0.3) as waiting:
                await other.wait_due(Room(1))
            assert waiting.cancelled_caught, "it spins: the row says that its lease has ended"
        (held_again,) = await owner.renew(renewals(held))  # in its row
        assert held_again.expires_at == clock.now() + LEASE
        assert [each.outcome for each in await owner.settle([done(claim)])] == ["written"]
        assert await stores.statuses(other) == [(1, 1, "succeeded", True)]
        for backend in (owner, other):
            await backend.close()

    anyio.run(main)


def test_a_settle_that_waits_for_the_lock_holds_up_no_renewal(tmp_path: Path) -> None:
    path = tmp_path / "jobs.db"

    async def main() -> None:
        clock, settled = FakeClock(NOW), anyio.Event()
        owner, other = await workers(path, clock, timedelta(seconds=60))
        await owner.add([job("b", clock.now())])
        one, two = (await owner.claim_due(Room(2))).claims

        async def settle() -> None:
            assert [each.outcome for each in await owner.settle([done(one)])] == ["written"]
            settled.set()

        async with anyio.create_task_group() as tasks:
            with database_locked(path):
                tasks.start_soon(settle)
                await anyio.wait_all_tasks_blocked()
                for _ in range(3):
                    clock.advance(LEASE * 0.9)
                    assert len(await owner.renew(renewals([two]))) == 1
                assert not settled.is_set()
        assert not (await other.claim_due(Room(1))).claims
        for backend in (owner, other):
            await backend.close()

    anyio.run(main)


def test_who_does_not_renew_loses_its_claim_though_others_had_it_locked(tmp_path: Path) -> None:
    path = tmp_path / "jobs.db"

    async def main() -> None:
        clock = FakeClock(NOW)
        owner, other = await workers(path, clock)
        held = (await owner.claim_due(Room(1))).claims
        with database_locked(path):
            clock.advance(LEASE / 2)
            await owner.renew(renewals(held))
            clock.advance(LEASE)
        assert await lost(other, "w0")
        clock.advance(LEASE)
        assert len((await other.claim_due(Room(1))).claims) == 1
        with database_locked(path):
            assert not await owner.renew(renewals(held))
            clock.advance(LEASE)
        assert not await owner.renew(renewals(held))
        assert await lost(owner, "w1")
        clock.advance(LEASE * 2)
        (again,) = (await owner.claim_due(Room(1))).claims
        one = again.job.standing.scheduled
        assert one is not None
        assert one.lost == 2
        for backend in (owner, other):
            await backend.close()

    anyio.run(main)


def test_a_dead_owner_is_not_waited_for(tmp_path: Path) -> None:
    path = tmp_path / "jobs.db"

    async def main() -> None:
        clock = FakeClock(NOW)
        owner, other = await workers(path, clock)
        held = (await owner.claim_due(Room(1))).claims
        with database_locked(path):
            clock.advance(LEASE * 0.9)
            assert await owner.renew(renewals(held))
            clock.advance(LEASE * 0.2)
        owner._table._database.connection.close()
        owner.forked()  # lets go of what the system takes from a process that is killed
        assert await lost(other, "w0")
        await other.close()

    anyio.run(main)


# -- two that come at the same moment


def renewals_in(path: Path, *dead: str) -> Renewals:
    return Renewals(str(path / "jobs.db"), str(path), lambda worker: worker not in dead)


@pytest.fixture
def claims(tmp_path: Path) -> list[Claim]:
    (tmp_path / "jobs.db").touch()
    return [Claim(job("a", NOW), token, "w", NOW, NOW + LEASE) for token in range(200)]


def fence(claim: Claim) -> tuple[int, str]:
    return claim.token, claim.worker


def test_only_one_of_owner_and_successor(tmp_path: Path, claims: list[Claim]) -> None:
    """Each opens the file for itself, as processes do; the machine makes the order."""
    at = NOW + LEASE

    def renew(claim: Claim) -> bool:
        return bool(again(lambda: renewals_in(tmp_path).renew([Renewal(claim)], LEASE, lambda: at)))

    def take_over(claim: Claim) -> bool:
        found = again(lambda: renewals_in(tmp_path).end([fence(claim)], at))
        return all(each.until <= micros(at) for each in found.values())

    def again(call: Callable[[], Any]) -> Any:
        """Call until the file is free: four who write at once, for nothing else, may starve one."""
        while True:
            try:
                return call()
            except BackendUnavailable:
                continue

    with ThreadPoolExecutor(4) as threads:
        owner = threads.map(renew, claims)
        successor = threads.map(take_over, claims)
        won = list(zip(owner, successor, strict=True))
    assert all(one != other for one, other in won), won


def test_what_is_dead_is_not_waited_for(tmp_path: Path, claims: list[Claim]) -> None:
    living, dying, *_ = claims
    at = NOW + LEASE
    for claim in (living, dying):
        assert renewals_in(tmp_path).renew([Renewal(claim)], LEASE, lambda: at)
    assert renewals_in(tmp_path).end([fence(living)], at) == {
        fence(living): UnlockedRenewal(micros(at + LEASE), micros(at), None)
    }
    assert renewals_in(tmp_path, "w").end([fence(dying)], at) == {
        fence(dying): UnlockedRenewal(micros(at), micros(at), None)
    }
    with pytest.raises(BackendUnavailable, match="worker 'w' is gone"):
        renewals_in(tmp_path, "w").renew([Renewal(living)], LEASE, lambda: at)


def test_an_end_is_known_for_longer_than_anything_is_renewed(
    tmp_path: Path, claims: list[Claim]
) -> None:
    ended, other, *_ = claims
    at = NOW + LEASE
    assert renewals_in(tmp_path).end([fence(ended)], at) == {}
    for late in (timedelta(0), timedelta(microseconds=REMEMBERED - 1), timedelta(days=1)):
        now = at + late
        renewals_in(tmp_path).end([fence(other)], now)  # forgets what is old
        assert renewals_in(tmp_path).renew([Renewal(ended)], LEASE, partial(_told, now)) == []


def _told(now: datetime) -> datetime:
    return now


def test_a_process_killed_while_it_writes_leaves_what_was_there(
    tmp_path: Path, claims: list[Claim]
) -> None:
    claim, at = claims[0], NOW + LEASE
    assert renewals_in(tmp_path).renew([Renewal(claim)], LEASE, lambda: at)
    (tmp_path / "renewals.new").write_bytes(b"[{")
    assert renewals_in(tmp_path).end([fence(claim)], at) == {
        fence(claim): UnlockedRenewal(micros(at + LEASE), micros(at), None)
    }


# -- real processes

SERVICE = """
import sys, anyio
from datetime import timedelta
from pathlib import Path
from typing import Any
from sched_core import Scheduler
from sched_sql import SqlBackend

path, lease, name = sys.argv[1:]

async def handle(event):
    with open(f"{path}.journal", "a") as journal:
        journal.write(f"{name} {event.attempt}\\n")
    while not Path(f"{path}.go").exists():
        await anyio.sleep(0.05)
    print("done", flush=True)

async def main():
    backend = SqlBackend(path, lease=timedelta(seconds=float(lease)))
    async with Scheduler(backend, handler=handle) as scheduler:
        print("open", flush=True)
        await scheduler.run_forever()

anyio.run(main)
"""


class Services:
    """Processes that run what is due in one file, and what their handlers did."""

    def __init__(self, path: Path, lease: timedelta) -> None:
        self.path, self.lease = path, lease
        self._stack = ExitStack()

    def __enter__(self) -> Services:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def start(self, name: str) -> subprocess.Popen[str]:
        arguments = (str(self.path), str(self.lease.total_seconds()), name)
        service = subprocess.Popen(
            [sys.executable, "-c", SERVICE, *arguments], stdout=subprocess.PIPE, text=True
        )
        self._stack.enter_context(service)
        self._stack.callback(service.kill)
        assert service.stdout is not None
        assert service.stdout.readline() == "open\n"
        return service

    def begun(self) -> list[str]:
        journal = Path(f"{self.path}.journal")
        return journal.read_text().splitlines() if journal.exists() else []

    async def wait_for(self, *begun: str) -> None:
        with anyio.fail_after(30):
            while len(self.begun()) < len(begun):  # noqa: ASYNC110 -- another process writes it
                await anyio.sleep(0.02)
        assert self.begun() == list(begun)

    def go(self) -> None:
        """Let handlers return."""
        Path(f"{self.path}.go").touch()


async def statuses(scheduler: Scheduler) -> list[tuple[int, str]]:
    with anyio.fail_after(30):
        while not (lines := await history(scheduler)) or not lines[0].final:  # noqa: ASYNC110
            await anyio.sleep(0.05)
    return [(line.attempt, line.status.value) for line in reversed(lines)]


@pytest.mark.parametrize(("lock", "ends"), [("the database", "after"), ("the lock file", "in it")])
def test_a_healthy_service_goes_on(tmp_path: Path, lock: str, ends: str) -> None:
    """Its handler returns after the lock is gone, or while nothing can be written."""
    path, lease = tmp_path / "jobs.db", timedelta(seconds=1.5)

    async def main() -> None:
        async with Scheduler(SqlBackend(path)) as scheduler:
            await scheduler.submit_job("a", Once(datetime.now(UTC)))
            with Services(path, lease) as services:
                first = services.start("first")
                await services.wait_for("first 1")
                services.start("second")
                with LOCKS[lock](path):
                    await anyio.sleep(lease.total_seconds() * 2)
                    if ends == "in it":
                        services.go()
                        assert first.stdout is not None
                        await anyio.to_thread.run_sync(first.stdout.readline)
                    await anyio.sleep(lease.total_seconds() / 2)
                services.go()
                assert await statuses(scheduler) == [(1, "succeeded")]
                assert services.begun() == ["first 1"]

    anyio.run(main)


def test_a_service_killed_meanwhile_is_taken_over(tmp_path: Path) -> None:
    path, lease = tmp_path / "jobs.db", timedelta(seconds=1.5)
    renewals = tmp_path / "jobs.db-workers" / "renewals"

    async def main() -> None:
        async with Scheduler(SqlBackend(path)) as scheduler:
            await scheduler.submit_job("a", Once(datetime.now(UTC)))
            with Services(path, lease) as services:
                first = services.start("first")
                await services.wait_for("first 1")
                services.start("second")
                with database_locked(path):
                    with anyio.fail_after(30):
                        while not renewals.exists():  # noqa: ASYNC110 -- a process makes it
                            await anyio.sleep(0.02)
                    first.send_signal(signal.SIGKILL)
                    first.wait()
                    services.go()
                assert await statuses(scheduler) == [(1, "abandoned"), (2, "succeeded")]
                assert services.begun() == ["first 1", "second 2"]

    anyio.run(main)
