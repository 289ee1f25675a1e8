"""What wakes a worker whose claim is marked to be cancelled, and what does not."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

import anyio
import pytest
from attrs import evolve
from tests import postgres_server
from tests.sql import marker
from tests.sql.stores import NOW, Store, job, renewals, run, stored

from sched_core import Backend, CancelMark, Claim, Room, Status, SystemClock
from sched_core.ports import MAX_POLL
from sched_sql import SqlBackend
from sched_testkit._suite.builders import execution_of

KINDS = pytest.mark.parametrize("kind", ["sqlite", "postgres"])


async def mark(backend: Backend, claim: Claim) -> None:
    """Mark what a claim holds, as an operator does."""
    job = await stored(backend, claim.job.id)
    assert job.held is not None
    marked = (*job.standing.cancels, CancelMark(job.held))
    await backend.replace(evolve(job, standing=evolve(job.standing, cancels=marked)))


async def quiet(backend: Backend, seconds: float = 0.5) -> None:
    """Wait out what was told by now, and see to it that nothing more is."""
    while True:
        with anyio.move_on_after(seconds) as waiting:
            await backend.wait_cancelled()
        if waiting.cancelled_caught:
            return


async def cancelled(backend: Backend, claim: Claim) -> bool:
    (renewed,) = await backend.renew(renewals([claim]))
    return renewed.cancel


@KINDS
def test_a_mark_wakes_its_worker_alone(kind: str, tmp_path: Path) -> None:
    async def test(store: Store) -> None:
        backend, other, third = [await store.open() for _ in range(3)]
        await backend.add([job("a"), job("b", NOW)])
        (mine,) = (await backend.claim_due(Room(1))).claims
        (theirs,) = (await other.claim_due(Room(1))).claims
        await quiet(backend)
        await quiet(other)
        woken: list[bool] = []

        async def wait() -> None:
            woken.append(await backend.wait_cancelled())

        with anyio.fail_after(5):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(wait)
                await anyio.sleep(0.2)
                await mark(third, mine)
        assert woken == [True]
        assert await cancelled(backend, mine)
        await quiet(other)
        assert not await cancelled(other, theirs)
        # What is known is not told again, whatever is written.
        await mark(third, theirs)
        await quiet(backend)

    run(test, kind, tmp_path)


@KINDS
@pytest.mark.parametrize("by", ["itself", "another"])
@pytest.mark.parametrize("how", ["edit", "removal"])
def test_a_mark_between_two_calls_is_not_missed(
    kind: str, by: str, how: str, tmp_path: Path
) -> None:
    async def test(store: Store) -> None:
        backend, other = await store.open(), await store.open()
        await backend.add([job("a")])
        (claim,) = (await backend.claim_due(Room(1))).claims
        await quiet(backend)
        who = backend if by == "itself" else other
        if how == "edit":
            await mark(who, claim)
        else:
            ended = execution_of(claim, NOW, status=Status.CANCELLED, final=True, attempt=0)
            await who.remove(await stored(who), [ended])
        with anyio.fail_after(5):
            assert await backend.wait_cancelled()
        assert await cancelled(backend, claim)

    run(test, kind, tmp_path)


@KINDS
def test_who_waits_for_both_hears_of_both(kind: str, tmp_path: Path) -> None:
    """One connection tells of what is due and of marks, and two tasks wait for it."""

    async def test(store: Store) -> None:
        backend, other = await store.open(), await store.open()
        await backend.add([job("0")])
        (claim,) = (await backend.claim_due(Room(1))).claims
        await quiet(backend)
        for number in range(1, 6):

            async def wait() -> None:
                assert await backend.wait_cancelled()

            with anyio.fail_after(5):
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(wait)
                    tasks.start_soon(backend.wait_due, Room(1))
                    await anyio.sleep(0.05 * number)
                    await mark(other, claim)
                    await other.add([job(f"{number}")])
            (claim,) = (await backend.claim_due(Room(9))).claims

    run(test, kind, tmp_path)


@KINDS
def test_nothing_is_told_where_nothing_is_marked(kind: str, tmp_path: Path) -> None:
    async def test(store: Store) -> None:
        backend = await store.open()
        await quiet(backend)
        told: list[bool] = []

        async def wait() -> None:
            told.append(await backend.wait_cancelled())

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(wait)
            await anyio.sleep(0.3)
            store.clock.advance(MAX_POLL)
        assert told == [False]

    run(test, kind, tmp_path)


@KINDS
def test_another_process_marks_a_run(kind: str, tmp_path: Path) -> None:
    assert all(delay < 5 for delay in anyio.run(delays, kind, tmp_path, 3))


async def delays(kind: str, folder: Path, count: int) -> list[float]:
    """Return the seconds from the beginning of a write in another process until it was told."""
    with contextlib.ExitStack() as places:
        address, schema = (
            places.enter_context(postgres_server.schema())
            if kind == "postgres"
            else (str(folder / "jobs.db"), "")
        )
        backend = SqlBackend(address, schema=schema) if schema else SqlBackend(address)
        await backend.open(SystemClock(), worker="w")
        now = datetime.now(UTC)
        await backend.add([job(f"{number}", now) for number in range(count)])
        claims = (await backend.claim_due(Room(count))).claims
        assert len(claims) == count
        await quiet(backend)
        command = [sys.executable, marker.__file__, address, schema]
        found: list[float] = []
        with subprocess.Popen(  # noqa: ASYNC220 -- it begins at once
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as process:
            assert process.stdin is not None
            assert process.stdout is not None
            read = process.stdout.readline
            assert await anyio.to_thread.run_sync(read) == "ready\n"
            await quiet(backend)
            for claim in claims:
                process.stdin.write(f"{claim.job.id}\n")
                process.stdin.flush()
                told = False
                with anyio.fail_after(10):
                    while not told:
                        told = await backend.wait_cancelled()
                at = time.monotonic()
                found.append(at - float(await anyio.to_thread.run_sync(read)))
                assert await cancelled(backend, claim)
            process.stdin.close()
        await backend.close()
    return found
