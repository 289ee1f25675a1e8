"""Leases and blocked loops, forks, cancellation, unreadable bodies, and replies that are lost."""

from __future__ import annotations

import asyncio
import os
import sys
import threading
import time
from datetime import timedelta
from typing import Any

import anyio
import pytest
from tests.postgres.places import Place, past, pending, settlement

from sched_core import (
    Claim,
    Job,
    JobEvent,
    Once,
    Room,
    Scheduler,
    SchedulerForked,
    SystemClock,
    Undecodable,
)
from sched_core.testing import history
from sched_sql import PostgresBackend

LEASE = timedelta(seconds=1)


async def opened(here: Place, **options: Any) -> PostgresBackend:
    backend = here.backend(**{"lease": LEASE, **options})
    await backend.open(SystemClock(), worker=f"worker-{os.urandom(4).hex()}")
    return backend


async def take_over(here: Place, seconds: float) -> list[Claim]:
    """Try to claim for a while, as a replica that has been there for a lease."""
    rival = await opened(here)
    rival._table._claimant.due_index._ends_from = 0.0
    until, claims = time.monotonic() + seconds, list[Claim]()
    while not claims and time.monotonic() < until:
        await anyio.sleep(0.05)
        claims = list((await rival.claim_due(Room(10))).claims)
    await rival.close()
    return claims


# -- leases


def block(here: Place, leases: float) -> list[str]:
    """Block the event loop in a handler; return what became of the run, oldest first."""

    async def main() -> list[str]:
        async def handle(event: JobEvent) -> None:
            if event.attempt == 1:
                time.sleep(leases * LEASE.total_seconds())  # noqa: ASYNC251 -- that is what is examined

        async with here.scheduler(handle, lease=LEASE) as scheduler:
            await scheduler.submit_job("a", Once(past()))
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(scheduler.run_forever)
                # In a thread with a loop of its own: this one is blocked.
                found = await anyio.to_thread.run_sync(
                    lambda: anyio.run(take_over, here, leases * LEASE.total_seconds() - 0.2)
                )
                await anyio.sleep(0.3)
                await scheduler.stop()
            lines = [line.status.value for line in await history(scheduler)][::-1]
            return ["taken over", *lines] if found else lines

    return anyio.run(main)


def test_a_loop_that_is_blocked_for_a_while_keeps_its_leases(here: Place) -> None:
    assert block(here, 1.7) == ["succeeded"]


def test_a_loop_that_is_blocked_for_good_loses_them(here: Place) -> None:
    assert block(here, 4.5)[:2] == ["taken over", "abandoned"]


def test_a_claim_that_the_loop_has_given_up_is_not_kept_without_end(here: Place) -> None:
    """After a freeze, this process runs it no more, and no other has taken it over yet."""

    async def main() -> None:
        backend = await opened(here)
        await backend.add([job("a")])
        assert (
            len((await backend.claim_due(Room(1))).claims) == 1
        )  # and never renewed, settled or released
        began = time.monotonic()
        assert await take_over(here, 2.0) == []
        assert len(await take_over(here, 6.0)) == 1
        assert time.monotonic() - began < 5
        await backend.close()

    anyio.run(main)


def test_an_idle_scheduler_has_no_leases_to_keep(here: Place) -> None:
    async def main() -> None:
        backend = await opened(here)
        heartbeat = backend._table._claimant.heartbeat
        await backend.add([job("a")])
        (claim,) = (await backend.claim_due(Room(1))).claims
        assert len(heartbeat._held) == 1
        await backend.settle([settlement(claim)])
        assert (len(heartbeat._held), len(backend._table._claims.locations)) == (0, 0)
        await backend.close()
        assert not [thread for thread in _threads() if thread.startswith("sched heartbeat")]

    anyio.run(main)


def _threads() -> list[str]:
    return [thread.name for thread in threading.enumerate()]


def job(job_id: str, **spec: Any) -> Job:
    return pending(job_id, past(), **spec)


# -- processes


def test_a_forked_child_is_refused_and_the_parent_goes_on(here: Place) -> None:
    async def main() -> None:
        backend = await opened(here)
        await backend.add([job("a")])
        await backend.claim_due(Room(1))
        await backend.wait_due(Room(1))  # listening, too
        child = os.fork()
        if child == 0:
            try:
                try:
                    await backend.check()
                except SchedulerForked:
                    await backend.close()
                    os._exit(7)
            finally:
                os._exit(1)
        _, status = os.waitpid(child, 0)  # noqa: ASYNC222 -- it ends at once
        assert os.waitstatus_to_exitcode(status) == 7
        await backend.check()
        assert (await backend.claim_due(Room(1))).claims == []
        assert isinstance(await backend.get("a"), Job)
        await backend.close()

    if sys.version_info >= (3, 12):
        with pytest.warns(DeprecationWarning, match="fork"):
            anyio.run(main)
    else:
        anyio.run(main)


@pytest.mark.parametrize("loop", ["asyncio", "trio"])
def test_a_cancelled_claim_leaves_nothing_claimed(here: Place, loop: str) -> None:
    async def main() -> None:
        backend = await opened(here)
        await backend.add([job(f"{number}") for number in range(20)])
        for delay in (0, 0.0005, 0.001, 0.002, 0.005):
            with anyio.move_on_after(delay):
                claims = (await backend.claim_due(Room(20))).claims
                with anyio.CancelScope(shield=True):  # what is claimed is the caller's to release
                    await backend.release(claims)
            assert here.rows("SELECT 1 FROM @job WHERE lease_until IS NOT NULL") == []
        await backend.close()

    anyio.run(main, backend=loop)


def test_asyncios_own_cancellation_leaves_nothing_claimed(here: Place) -> None:
    async def main() -> None:
        backend = await opened(here)
        await backend.add([job(f"{number}") for number in range(20)])
        task = asyncio.ensure_future(backend.claim_due(Room(20)))
        await asyncio.sleep(0.0005)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert len((await backend.claim_due(Room(20))).claims) == 20
        await backend.close()

    asyncio.run(main())


def test_a_process_that_freezes_inside_a_transaction_lets_go(here: Place) -> None:
    """The server ends it: no other worker is kept from the row for longer than that."""

    async def main() -> None:
        backend = await opened(here)
        await backend.add([job("a")])
        lane = backend._table._lanes["edit"]
        session = lane._connected()
        session.execute("SET idle_in_transaction_session_timeout = '300ms'")
        session.execute("BEGIN")
        session.execute(f"SELECT * FROM {here.schema}.job FOR UPDATE")
        await anyio.sleep(0.6)
        assert len((await backend.claim_due(Room(1))).claims) == 1
        assert isinstance(await backend.get("a"), Job)  # by a new connection
        await backend.close()

    anyio.run(main)


# -- records


@pytest.mark.parametrize("column", ["schedule", "policy", "metadata"])
def test_a_body_that_cannot_be_read_is_left_alone_and_stops_nothing(
    here: Place, column: str
) -> None:
    async def main() -> None:
        backend = await opened(here, lease=60 * LEASE)  # which does not end while it waits below
        await backend.add([job("bad", metadata={"k": "v"}), job("good")])
        here.rows(f"UPDATE @job SET {column} = '{{oops' WHERE id = 'bad'")
        for _ in range(2):
            claims = (await backend.claim_due(Room(10))).claims
            assert {claim.job.id for claim in claims} <= {"good"}
            assert here.rows("SELECT 1 FROM @job WHERE id = 'bad' AND lease_until IS NULL")
        found = await backend.get("bad")
        assert isinstance(found, Undecodable)
        assert column in found.reason
        assert found.record == b"{oops"
        with anyio.move_on_after(0.4) as scope:
            await backend.wait_due(Room(1))
        assert scope.cancelled_caught, "it keeps waking the worker that waits"
        await backend.close()

    anyio.run(main)


def test_texts_of_every_kind_survive(here: Place) -> None:
    texts = ["\\", '"', "{a,b}", "NULL", "it's", "%s %(x)s", "ünïcödé 🎉", "tab\there", "\x00nul"]

    async def main() -> None:
        backend = await opened(here)
        jobs = [
            job(f"job {text.translate({0: None, 9: None})}", metadata={text: text})
            for text in texts
        ]
        added = await backend.add(jobs)
        for one in added:
            assert await backend.get(one.id) == one
        claims = (await backend.claim_due(Room(100))).claims
        assert sorted(claim.job.id for claim in claims) == sorted(one.id for one in added)
        outcomes = await backend.settle([settlement(claim) for claim in claims])
        assert {settled.outcome for settled in outcomes} == {"written"}
        await backend.close()

    anyio.run(main)


def test_a_commit_whose_reply_is_lost_is_repeated_without_harm(here: Place) -> None:
    async def main() -> None:
        backend = await opened(here)
        await backend.add([job("a")])
        (claim,) = (await backend.claim_due(Room(1))).claims
        first = await backend.settle([settlement(claim)])
        lane = backend._table._lanes["settle"]
        assert lane._session is not None
        lane._session.pgconn.finish()  # the connection is gone, and with it the reply
        again = await backend.settle([settlement(claim), settlement(claim)])
        assert [one.outcome for one in (*first, *again)] == ["written"] * 3
        assert here.rows("SELECT count(*) FROM @execution") == [(1,)]
        await backend.close()

    anyio.run(main)


def test_writes_are_durable_where_the_roles_default_is_not(here: Place) -> None:
    async def main() -> None:
        backend = await opened(here)
        for lane in backend._table._lanes.values():
            lane._connected().execute("SET synchronous_commit = off")
        settling = backend._table._settler
        for statement in (*settling._runs.values(), settling._rows):
            assert "set_config('synchronous_commit', 'on', true)" in statement
        definitions = backend._table._definitions
        assert "set_config('synchronous_commit', 'on', true)" in definitions._add_one
        await backend.add([job("a")])
        (claim,) = (await backend.claim_due(Room(1))).claims
        await backend.settle([settlement(claim)])
        session = backend._table._lanes["settle"]._session
        assert session is not None
        with session.transaction():
            session.execute(
                "SELECT CASE current_setting('synchronous_commit') WHEN 'off' "
                "THEN set_config('synchronous_commit', 'on', true) END"
            )
            seen = session.execute("SHOW synchronous_commit").fetchone()
        assert seen == ("on",)
        await backend.close()

    anyio.run(main)


def test_a_pruned_history_keeps_what_has_not_expired(here: Place) -> None:
    async def main() -> None:
        async with here.scheduler(lambda _: None) as scheduler:
            assert isinstance(scheduler, Scheduler)
            for number in range(30):
                await scheduler.submit_job(f"{number}", Once(past()))
            await scheduler.run_due()
            here.rows("UPDATE @execution SET expires_at = 1 WHERE job_id < '2'")
            deleted = await scheduler.prune(past(3600))
            left = [line.job_id async for line in scheduler.list_executions()]
            assert deleted == 12
            assert len(left) == 18
            assert min(left) >= "2"

    anyio.run(main)
