"""Rows and tables that others lock for longer than a lease: no second run alongside the first."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import anyio
import psycopg
import pytest
from tests.postgres import contender
from tests.postgres.places import Place, past, renewals, settlement

from sched_core import Claim, JobEvent, JobSpec, Once, Room, Status
from sched_core.testing import FakeClock
from sched_sql import PostgresBackend
from sched_sql.postgres.claims import Claims
from sched_sql.postgres.definitions import Definitions
from sched_sql.postgres.executions import Executions
from sched_sql.postgres.records import Records
from sched_sql.postgres.sql import Names
from sched_sql.postgres.steps import run

LEASE = timedelta(seconds=0.5)
"""The lease by a clock that is moved by hand; tests really wait for a part of it."""
MICROS = LEASE // timedelta(microseconds=1)


@contextmanager
def locked(here: Place, statement: str) -> Iterator[None]:
    """Hold what a statement locks; ``@`` is the schema."""
    with here.connect() as connection:
        connection.execute(statement.replace("@", f"{here.schema}."))
        yield
        connection.rollback()


async def two_workers(here: Place, clock: FakeClock, **options: Any) -> list[PostgresBackend]:
    made = [here.backend(time="clock", lease=LEASE, **options) for _ in range(2)]
    for number, backend in enumerate(made):
        await backend.open(clock, worker=f"w{number}")
    await made[0].add([contender.new_job("job", clock.now())])
    clock.advance(LEASE)  # it is due
    return made


LOCKS = {
    "a row, by an operator": "SELECT * FROM @job FOR UPDATE",
    "a row, by a foreign key": "SELECT * FROM @job FOR SHARE",
    "the table, by CREATE INDEX": "LOCK @job IN SHARE MODE",
    "the table, by ALTER TABLE": "LOCK @job IN ACCESS EXCLUSIVE MODE",
}


@pytest.mark.parametrize("pooled", [False, True], ids=["direct", "pooled"])
@pytest.mark.parametrize("lock", LOCKS.values(), ids=LOCKS)
def test_a_claim_lives_while_its_owner_renews(here: Place, lock: str, pooled: bool) -> None:
    async def main() -> None:
        clock = FakeClock()
        owner, other = await two_workers(here, clock, pooled=pooled)
        (claim,) = held = (await owner.claim_due(Room(1))).claims
        for _ in range(2):  # the second lock is taken before the row was renewed after the first
            with locked(here, lock):
                for _ in range(2):
                    clock.advance(LEASE * 0.9)
                    held = await owner.renew(renewals(held))
                    assert held[0].expires_at == clock.now() + LEASE
            clock.advance(LEASE * 0.9)
            assert not (await other.claim_due(Room(1))).claims
            with anyio.move_on_after(0.3) as waiting:
                await other.wait_due(Room(1))
            assert waiting.cancelled_caught, "it spins: the row says that its lease has ended"
        (settled,) = await owner.settle([settlement(claim)])
        assert settled.outcome == "written"
        for backend in (owner, other):
            await backend.close()

    anyio.run(main)


def test_who_is_dead_loses_its_claim_though_others_had_it_locked(here: Place) -> None:
    async def main() -> None:
        clock = FakeClock()
        owner, other = await two_workers(here, clock)
        held = list((await owner.claim_due(Room(1))).claims)
        with locked(here, "SELECT * FROM @job FOR UPDATE"):
            clock.advance(LEASE / 2)
            held = list(await owner.renew(renewals(held)))
            clock.advance(LEASE)
        lost = (await other.claim_due(Room(1))).lapsed
        assert [one.status for one in lost] == [Status.ABANDONED]
        clock.advance(seconds=1)
        (taken,) = (await other.claim_due(Room(1))).claims
        assert taken.token > held[0].token
        with locked(here, "SELECT * FROM @job FOR UPDATE"):
            assert not await owner.renew(renewals(held))  # nothing to find out from the row
        with locked(here, "LOCK @job IN ACCESS EXCLUSIVE MODE"):
            assert not await owner.renew(renewals(held))
        for backend in (owner, other):
            await backend.close()

    anyio.run(main)


class Actor:
    """One of two that come at the same moment, each in a transaction that the test ends."""

    def __init__(self, here: Place) -> None:
        names = Names(here.schema)
        executions = Executions(names)
        announce = Definitions(names, executions).announce
        self.claims = Claims(names, executions, Records(names), announce)
        self.claims.worker = "successor"
        self.connection = here.connect()

    def end(self, now: int) -> int:
        return run(self.connection, self.claims.lapse(["job"], now))[1]

    def renew_unlocked(self, claim: Claim, now: int) -> int:
        extending = self.claims.renewals.renew_unlocked(renewals([claim]), MICROS, now)
        return len(run(self.connection, extending).claims)


@pytest.fixture
def actors(here: Place) -> Iterator[tuple[Actor, Actor]]:
    made = Actor(here), Actor(here)
    yield made
    for actor in made:
        actor.connection.close()


def expired(here: Place) -> tuple[Claim, int]:
    """Return a claim whose lease has just ended, and the moment."""
    found: list[Claim] = []
    clock = FakeClock()

    async def main() -> None:
        backend = here.backend(time="clock", lease=LEASE)
        await backend.open(clock, worker="owner")
        await backend.add([contender.new_job("job", clock.now())])
        clock.advance(LEASE)
        found.extend((await backend.claim_due(Room(1))).claims)
        clock.advance(LEASE)
        await backend.close()

    anyio.run(main)
    ((until,),) = here.rows("SELECT lease_until FROM @job")
    return found[0], until


@pytest.mark.parametrize("end", ["commit", "rollback"])
@pytest.mark.parametrize("first", ["owner", "successor"])
def test_only_one_of_owner_and_successor(
    here: Place, actors: tuple[Actor, Actor], first: str, end: str
) -> None:
    """The second one waits for the first one's commit, and gives way to it."""
    claim, now = expired(here)
    owner, successor = actors
    calls: dict[str, Callable[[], int]] = {
        "owner": lambda: owner.renew_unlocked(claim, now),
        "successor": lambda: successor.end(now),
    }
    second = "successor" if first == "owner" else "owner"
    connections = {"owner": owner.connection, "successor": successor.connection}
    assert calls[first]() == 1
    with ThreadPoolExecutor(1) as thread:
        waiting = thread.submit(calls[second])
        wait_for_lock(here, connections[second])
        getattr(connections[first], end)()
        got = waiting.result(20)
    assert got == (end == "rollback")


def wait_for_lock(here: Place, connection: psycopg.Connection[Any]) -> None:
    pid = connection.info.backend_pid
    with here.connect(autocommit=True) as looking:
        while True:
            asked = looking.execute("SELECT pg_blocking_pids(%s)", (pid,)).fetchone()
            if asked and asked[0]:
                return


def test_a_slow_request_and_its_rollback(here: Place) -> None:
    """Real schedulers: what a request changes meanwhile runs once, however slow the request is."""
    running: Counter[str] = Counter()
    highest: Counter[str] = Counter()

    async def handle(event: JobEvent) -> None:
        running[event.id] += 1
        highest[event.id] = max(highest[event.id], running[event.id])
        try:
            await anyio.sleep(5)
        finally:
            running[event.id] -= 1

    async def request(web: Any, number: int) -> None:
        async with await psycopg.AsyncConnection.connect(here.address) as connection:
            await web.in_transaction(connection).update_job(f"job-{number}", metadata={"a": "b"})
            await anyio.sleep(3.5)
            await (connection.rollback() if number % 2 else connection.commit())

    async def main() -> None:
        options: dict[str, Any] = {"lease": timedelta(seconds=3)}
        async with (
            here.scheduler(**options) as web,
            here.scheduler(handle, **options) as one,
            here.scheduler(handle, **options) as two,
        ):
            await web.submit_jobs([JobSpec(f"job-{n}", Once(past())) for n in range(6)])
            async with anyio.create_task_group() as tasks:
                for each in (one, two):
                    tasks.start_soon(functools.partial(each.run_forever, signals=False))
                with anyio.fail_after(20):
                    while sum(running.values()) < 6:  # noqa: ASYNC110
                        await anyio.sleep(0.02)
                async with anyio.create_task_group() as requests:
                    for number in range(6):
                        requests.start_soon(request, web, number)
                with anyio.fail_after(20):
                    while len(here.rows("SELECT 1 FROM @execution")) < 6:  # noqa: ASYNC110
                        await anyio.sleep(0.1)
                for each in (one, two):
                    await each.stop()
            assert here.rows("SELECT status FROM @execution") == [("succeeded",)] * 6

    anyio.run(main)
    assert set(highest.values()) == {1}
    assert len(highest) == 6
