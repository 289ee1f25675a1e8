"""Jobs written in the caller's transaction, and handlers whose writes settle their occurrence."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any

import anyio
import psycopg
import pytest
from tests.postgres.places import Place, past
from tests.wrappers import HandsOn

from sched_core import (
    BackendError,
    ClaimLost,
    Execution,
    Interval,
    InvalidDefinition,
    JobAlreadyExists,
    JobEvent,
    JobNotFound,
    MemoryBackend,
    Once,
    Policy,
    Retry,
    Scheduler,
    Status,
)
from sched_core.testing import history


async def statuses(scheduler: Scheduler) -> list[str]:
    return [line.status.value for line in await history(scheduler)][::-1]


def effects(here: Place) -> list[str]:
    return [row[0] for row in here.rows(f"SELECT job FROM effect_{here.schema} ORDER BY job")]


# -- the caller's transaction


@pytest.mark.parametrize("kind", ["sync", "async"])
@pytest.mark.parametrize("end", ["commit", "rollback"])
def test_a_job_is_there_only_if_the_callers_transaction_commits(
    here: Place, kind: str, end: str
) -> None:
    ran: list[str] = []

    async def handle(event: JobEvent) -> None:
        ran.append(event.id)

    async def main() -> None:
        async with here.scheduler(handle) as scheduler:
            await scheduler.ensure_job("edited", Interval(hours=1))
            await scheduler.ensure_job("gone", Interval(hours=1))

            async def write(connection: Any) -> None:
                jobs = scheduler.in_transaction(connection)
                await jobs.submit_job("new", Once(past()))
                await jobs.ensure_job("declared", Interval(hours=2))
                await jobs.update_job("edited", name="edited")
                await jobs.remove_job("gone")
                with pytest.raises(JobAlreadyExists):
                    await jobs.submit_job("new", Once(past()))
                with pytest.raises(JobNotFound):
                    await jobs.remove_job("gone")

            if kind == "sync":
                with here.connect() as connection:
                    await write(connection)
                    assert await scheduler.run_due() == 0  # not visible yet
                    getattr(connection, end)()
            else:
                async with await psycopg.AsyncConnection.connect(here.address) as theirs:
                    await write(theirs)
                    assert await scheduler.run_due() == 0
                    await getattr(theirs, end)()
            await scheduler.run_due()
            ids = {job.id async for job in scheduler.list_jobs()}
            name = (await scheduler.get_job("edited")).spec.name
            if end == "commit":
                assert (ids, ran, name) == ({"new", "declared", "edited"}, ["new"], "edited")
            else:
                assert (ids, ran, name) == ({"edited", "gone"}, [], None)

    anyio.run(main)


def test_a_job_committed_elsewhere_wakes_a_running_scheduler(here: Place) -> None:
    async def main() -> None:
        done = anyio.Event()

        async def handle(event: JobEvent) -> None:
            done.set()

        async with here.scheduler(handle) as scheduler, anyio.create_task_group() as tasks:
            tasks.start_soon(scheduler.run_forever)
            await anyio.sleep(0.3)  # so that it waits
            with here.connect() as connection:
                await scheduler.in_transaction(connection).submit_job("now", Once(past()))
                await anyio.sleep(0.2)
                assert not done.is_set()
            with anyio.fail_after(3):  # sooner than the longest poll
                await done.wait()
            await scheduler.stop()

    anyio.run(main)


def test_connections_that_cannot_be_joined(here: Place) -> None:
    async def main() -> None:
        async with here.scheduler() as scheduler:
            with here.connect(autocommit=True) as connection:
                with pytest.raises(InvalidDefinition, match="commits each statement"):
                    scheduler.in_transaction(connection)
                with connection.transaction():
                    await scheduler.in_transaction(connection).submit_job("a", Once(past()))
            with pytest.raises(InvalidDefinition, match="must be a psycopg"):
                scheduler.in_transaction("postgresql://")
        async with Scheduler(MemoryBackend()) as scheduler:
            with pytest.raises(BackendError, match="no transactions"):
                scheduler.in_transaction(None)

    anyio.run(main)


class InFront(HandsOn):
    """A wrapper that knows nothing of transactions, and hands them on like all else."""


def test_nothing_is_written_past_a_backend_in_front(here: Place) -> None:
    async def handle(event: JobEvent) -> None:
        async with event.transaction():
            pytest.fail("it began")

    async def main() -> None:
        backend: Any = InFront(here.backend())
        async with Scheduler(backend, handler=handle) as scheduler:
            with (
                here.connect() as connection,
                pytest.raises(BackendError, match=r"define InFront\.within\(\)"),
            ):
                scheduler.in_transaction(connection)
            await scheduler.submit_job("one", Once(past()))
            await scheduler.run_due()
            (line,) = await history(scheduler)
            assert isinstance(line, Execution)
            assert line.status is Status.FAILED
            assert "define InFront.transaction()" in (line.reason or "")

    anyio.run(main)


# -- a handler's transaction

Write = Callable[[JobEvent, str], Any]


def handlers(here: Place, seen: Callable[[JobEvent], object]) -> dict[str, Any]:
    """Return a handler of each kind that writes its effect, and does something inside the block."""
    statement = f"INSERT INTO effect_{here.schema} VALUES (%s, %s)"

    def sync(event: JobEvent) -> None:
        with event.transaction() as connection:
            connection.execute(statement, (event.id, event.key))
            seen(event)

    async def asynchronous(event: JobEvent) -> None:
        async with event.transaction() as connection:
            await connection.execute(statement, (event.id, event.key))
            result = seen(event)
            if isinstance(result, Awaitable):
                await result

    return {"sync": sync, "async": asynchronous}


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_effect_line_and_next_moment_commit_together(here: Place, kind: str) -> None:
    lines: list[Execution] = []

    async def main() -> None:
        async with Scheduler(
            here.backend(), handler=handlers(here, lambda _: None)[kind], observers=[Lines(lines)]
        ) as scheduler:
            await scheduler.submit_job("once", Once(past()))
            await scheduler.ensure_job("often", Interval(seconds=1, start=past(0.5)))
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(scheduler.run_forever)
                with anyio.fail_after(10):
                    while len(effects(here)) < 4:  # noqa: ASYNC110 -- no program announces a row
                        await anyio.sleep(0.02)
                await scheduler.stop()
            assert set(await statuses(scheduler)) == {"succeeded"}
            assert len(await statuses(scheduler)) == len(effects(here)) == len(lines)
            assert (await scheduler.health()).claims_lost == 0

    anyio.run(main)


class Lines:
    """An observer that keeps ledger lines."""

    def __init__(self, lines: list[Execution]) -> None:
        self.lines = lines

    def __call__(self, what: object) -> None:
        if isinstance(what, Execution):
            self.lines.append(what)


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_an_exception_takes_the_effect_back(here: Place, kind: str) -> None:
    attempts: list[int] = []

    def fail_first(event: JobEvent) -> None:
        attempts.append(event.attempt)
        if len(attempts) == 1:
            raise RuntimeError("no")
        assert effects(here) == []

    async def main() -> None:
        retry = Policy(retry=Retry(attempts=2, backoff=timedelta(milliseconds=10)))
        async with here.scheduler(handlers(here, fail_first)[kind]) as scheduler:
            await scheduler.submit_job("a", Once(past()), policy=retry)
            await scheduler.run_due()
            await anyio.sleep(0.1)
            await scheduler.run_due()
            assert await statuses(scheduler) == ["failed", "succeeded"]

    anyio.run(main)
    assert (attempts, effects(here)) == ([1, 2], ["a"])


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_a_lost_claim_takes_the_effect_back(here: Place, kind: str) -> None:
    raised: list[BaseException] = []

    def lose(event: JobEvent) -> None:
        here.rows("UPDATE @job SET token = token + 1, worker = 'another'")

    write = handlers(here, lose)[kind]

    async def handle(event: JobEvent) -> None:
        try:
            await write(event)
        except ClaimLost as error:
            raised.append(error)
            raise

    def handle_sync(event: JobEvent) -> None:
        try:
            write(event)
        except ClaimLost as error:
            raised.append(error)
            raise

    async def main() -> None:
        async with here.scheduler(handle if kind == "async" else handle_sync) as scheduler:
            await scheduler.submit_job("a", Once(past()))
            await scheduler.run_due()
            assert await statuses(scheduler) == []

    anyio.run(main)
    assert (len(raised), effects(here)) == (1, [])


@pytest.mark.parametrize("meanwhile", ["edited", "removed"])
def test_a_job_that_is_edited_or_removed_meanwhile_keeps_the_effect_and_the_line(
    here: Place, meanwhile: str
) -> None:
    async def main() -> None:
        async def change(_: JobEvent) -> None:
            if meanwhile == "edited":
                await scheduler.update_job("a", Interval(hours=7))
            else:
                await scheduler.remove_job("a")

        handler = handlers(here, change)["async"]
        async with here.scheduler(handler) as scheduler:
            await scheduler.submit_job("a", Once(past()))
            await scheduler.run_due()
            assert await statuses(scheduler) == ["succeeded"]
            ids = [job.id async for job in scheduler.list_jobs()]
            assert ids == (["a"] if meanwhile == "edited" else [])

    anyio.run(main)
    assert effects(here) == ["a"]
    assert here.rows("SELECT count(*) FROM @job WHERE lease_until IS NOT NULL") == [(0,)]


def test_what_a_handler_cannot_do(here: Place) -> None:
    raised: list[str] = []

    async def handle(event: JobEvent) -> None:
        with pytest.raises(BackendError, match="read committed"):
            async with event.transaction() as connection:
                await connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        async with event.transaction():
            pass
        with pytest.raises(BackendError, match="settled"):
            event.transaction()
        raised.append("all")

    async def main() -> None:
        async with here.scheduler(handle) as scheduler:
            await scheduler.submit_job("a", Once(past()))
            await scheduler.run_due()
            assert await statuses(scheduler) == [Status.SUCCEEDED.value]

        async def in_memory(event: JobEvent) -> None:
            with pytest.raises(BackendError, match="no transactions"):
                event.transaction()
            raised.append("memory")

        async with Scheduler(MemoryBackend(), handler=in_memory) as scheduler:
            await scheduler.submit_job("a", Once(past()))
            await scheduler.run_due()

    anyio.run(main)
    assert raised == ["all", "memory"]


def test_a_connection_is_clean_for_the_next_handler(here: Place) -> None:
    seen: list[tuple[Any, ...]] = []

    def handle(event: JobEvent) -> None:
        with event.transaction() as connection:
            show = "SELECT pg_backend_pid(), current_setting('enable_seqscan'), current_schema()"
            seen.append(connection.execute(show).fetchone())
            connection.execute("SET search_path = pg_catalog")

    async def main() -> None:
        async with here.scheduler(handle) as scheduler:
            for number in range(3):
                await scheduler.submit_job(f"{number}", Once(past()))
                await scheduler.run_due()

    anyio.run(main)
    assert len({pid for pid, *_ in seen}) == 1  # kept, not made again
    assert {tuple(rest) for _, *rest in seen} == {("on", "public")}
