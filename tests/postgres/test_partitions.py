"""Partitions of the history: each execution is in that of the moment by which it has expired."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import anyio
import psycopg
import pytest
from attrs import evolve
from hypothesis import example, given, settings
from hypothesis import strategies as some
from tests.postgres.places import Place, pending, settlement

from sched_core import Claim, Execution, Interval, Job, JobEvent, Policy, Room
from sched_core.testing import FakeClock, history
from sched_sql import PostgresBackend
from sched_sql._shared.moments import EPOCH, micros
from sched_sql.postgres import partitions
from sched_sql.postgres.partitions import DAY, NEVER, drop_at

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)
PARTITIONS = """
    SELECT substr(c.relname, 11)::bigint FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
    WHERE inhparent = '@execution'::regclass AND c.relname ~ '^execution_-?[0-9]+$' ORDER BY 1
"""


def days(here: Place) -> list[int]:
    """Return the days of the partitions that there are."""
    return [row[0] for row in here.rows(PARTITIONS)]


@pytest.fixture
def empty(here: Place) -> Place:
    """A schema without partitions of earlier tests."""
    anyio.run(open_and_close, here)
    here.rows("SELECT @drop_partitions(%s)", (NEVER - 1,))
    assert days(here) == []
    return here


async def open_and_close(here: Place) -> None:
    backend = await opened(here, FakeClock(NOW))
    await backend.close()


async def opened(here: Place, clock: FakeClock, worker: str = "w") -> PostgresBackend:
    backend = here.backend(time="clock", lease=timedelta(minutes=1))
    await backend.open(clock, worker=worker)
    return backend


def ended(job: Job, number: int, at: datetime, keep: timedelta | None) -> Execution:
    """Return an execution of an earlier occurrence of a job."""
    return evolve(
        settlement_of(job),
        id=f"{job.uid}:{number}:0",
        number=number,
        attempt=0,
        finished_at=at,
        expires_at=None if keep is None else at + keep,
    )


def settlement_of(job: Job) -> Execution:
    return settlement(Claim(job, 0, "", NOW, NOW)).executions[0]


def near(place: Place, clock: FakeClock) -> list[int]:
    """Return the partitions that end soon: opening makes one for what is kept for 30 days."""
    return [day for day in days(place) if day < micros(clock.now()) // DAY + 20]


LONGEST = (datetime.max.replace(tzinfo=UTC) - EPOCH) // timedelta(microseconds=1)


@given(some.integers(-DAY * 365, LONGEST), some.integers(0, LONGEST))
@example(0, 0)
@example(1, 0)
@example(DAY, 0)
@settings(max_examples=200)
def test_a_partition_ends_soon_after_what_is_in_it(finished_at: int, keep: int) -> None:
    expires_at = finished_at + keep
    end = drop_at(finished_at, expires_at)
    assert end % DAY == 0
    assert expires_at <= end
    assert end - expires_at < max(DAY, keep / 8)


def test_few_partitions_are_in_use_however_long_something_is_kept() -> None:
    for keep in (timedelta(days=30), timedelta(days=365), timedelta(days=3650)):
        kept = keep // timedelta(microseconds=1)
        hours = range(0, kept, DAY // 24)
        assert 8 <= len({drop_at(at, at + kept) for at in hours}) <= 18, keep


def test_opening_makes_the_partition_that_comes_first_and_prune_the_next(empty: Place) -> None:
    async def main() -> None:
        clock = FakeClock(NOW)
        backend = await opened(empty, clock)
        job = (await backend.add([pending("a", NOW)]))[0]
        keep = timedelta(days=30)
        its = [drop_at(micros(NOW), micros(NOW + keep)) // DAY + 2 * n for n in range(4)]
        for number in range(3):
            job = await backend.replace(job, [ended(job, number, clock.now(), keep)])
            assert days(empty) == its[: number + 1], "opening has made the first"
            await backend.prune(NOW)
            assert days(empty) == its[: number + 2]
            clock.advance(days=2)
        await backend.close()

    anyio.run(main)


def test_prune_drops_what_is_over_and_deletes_what_has_expired_elsewhere(empty: Place) -> None:
    async def main() -> None:
        clock = FakeClock(NOW)
        backend = await opened(empty, clock)
        job = (await backend.add([pending("a", NOW)]))[0]
        keeps = [timedelta(hours=1), timedelta(hours=18), timedelta(days=3), None]
        job = await backend.replace(job, [ended(job, n, NOW, keep) for n, keep in enumerate(keeps)])
        one, two, last = near(empty, clock)  # and one for what never expires
        clock.advance(hours=2)
        assert await backend.prune(NOW) == 1
        coming = last + 1
        assert near(empty, clock) == [one, two, last, coming], (
            "the rest of that day has not expired"
        )
        clock.advance(days=1)
        assert await backend.prune(NOW) == 1
        assert near(empty, clock) == [two, last, coming, coming + 1]
        clock.advance(days=9000)
        assert await backend.prune(NOW) == 1
        assert near(empty, clock) == [last + 9001 + 1], "only what comes next"
        assert empty.rows("SELECT number FROM @execution") == [(3,)]
        assert await backend.prune(clock.now()) == 1
        await backend.close()

    anyio.run(main)


def test_what_expires_in_a_large_partition_goes_with_that(
    empty: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(partitions, "LARGE", 1)

    async def main() -> None:
        clock = FakeClock(NOW)
        backend = await opened(empty, clock)
        job = (await backend.add([pending("a", NOW)]))[0]
        await backend.replace(job, [ended(job, 0, NOW, timedelta(hours=1))])
        (large,) = near(empty, clock)
        clock.advance(hours=2)
        assert await backend.prune(NOW) == 0
        clock.advance(days=1)
        assert await backend.prune(NOW) == 1
        assert large not in near(empty, clock)
        assert empty.rows("SELECT 1 FROM @execution") == []
        await backend.close()

    anyio.run(main)


def test_an_id_is_stored_once_whatever_partition_it_would_lie_in(empty: Place) -> None:
    async def main() -> None:
        backend = await opened(empty, FakeClock(NOW))
        job = (await backend.add([pending("a", NOW)]))[0]
        for keep in (timedelta(days=1), timedelta(days=90), None):
            job = await backend.replace(job, [ended(job, 0, NOW, keep)])
        ((count, expires_at),) = empty.rows("SELECT count(*), min(expires_at) FROM @execution")
        assert (count, expires_at) == (1, micros(NOW + timedelta(days=1)))
        await backend.close()

    anyio.run(main)


def test_a_settlement_that_is_repeated_is_found_in_its_partition(empty: Place) -> None:
    async def main() -> None:
        clock = FakeClock(NOW)
        backend = await opened(empty, clock)
        await backend.add([pending("a", NOW, policy=Policy(keep_executions=timedelta(days=40)))])
        (claim,) = (await backend.claim_due(Room(1))).claims
        written = settlement(claim)
        again = evolve(written.executions[0], expires_at=NOW + timedelta(days=40))
        written = evolve(written, executions=(again,))
        outcomes = [(await backend.settle([written]))[0].outcome]
        clock.jump(datetime.now(UTC) + timedelta(hours=1))
        (other,) = (await backend.claim_due(Room(1))).claims  # the row tells of another claim now
        outcomes += [(await backend.settle([written]))[0].outcome for _ in range(2)]
        assert outcomes == ["written"] * 3
        assert empty.rows("SELECT count(*) FROM @execution") == [(1,)]
        assert len(await backend.renew([])) == 0
        await backend.release([other])
        await backend.close()

    anyio.run(main)


@pytest.mark.parametrize("how", ["settled", "edited"])
def test_a_partition_that_is_gone_is_made_again(empty: Place, how: str) -> None:
    """The server's clock may have been years ahead when another process pruned."""

    async def main() -> None:
        backend = await opened(empty, FakeClock(NOW))
        job = (await backend.add([pending("a", NOW)]))[0]
        keep = timedelta(days=40)
        job = await backend.replace(job, [ended(job, 0, NOW, keep)])
        empty.rows("SELECT @drop_partitions(%s)", (NEVER - 1,))
        if how == "edited":
            job = await backend.replace(job, [ended(job, 7, NOW, keep)])
        else:
            (claim,) = (await backend.claim_due(Room(1))).claims
            written = settlement(claim)
            (one,) = written.executions
            one = evolve(one, finished_at=NOW, expires_at=NOW + keep)
            (settled,) = await backend.settle([evolve(written, executions=(one,))])
            assert settled.outcome == "written"
        assert empty.rows("SELECT count(*) FROM @execution") == [(1,)]
        assert len(days(empty)) == 1
        await backend.close()

    anyio.run(main)


def test_many_may_make_the_same_partitions_at_once(empty: Place) -> None:
    ends = [drop_at(0, n * DAY) for n in range(1, 6)]
    statement = "SELECT @make_partitions(%s)"
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda _: empty.rows(statement, (ends,)), range(8)))
    assert days(empty) == [1, 2, 3, 4, 5]


def test_a_callers_long_transaction_keeps_no_worker_from_a_new_partition(empty: Place) -> None:
    async def main() -> None:
        backend = await opened(empty, FakeClock(NOW))
        one, other = await backend.add([pending("one", NOW), pending("other", NOW)])
        with empty.connect() as connection:
            within = backend.within(connection)
            await within.replace(one, [ended(one, 0, NOW, timedelta(days=40))])
            with anyio.fail_after(5):
                await backend.replace(other, [ended(other, 0, NOW, timedelta(days=40))])
                await backend.replace(
                    await read(backend, "other"), [ended(other, 1, NOW, timedelta(days=80))]
                )
            connection.rollback()
        assert empty.rows("SELECT job_id FROM @execution") == [("other",), ("other",)]
        await backend.close()

    async def read(backend: PostgresBackend, job_id: str) -> Job:
        found = await backend.get(job_id)
        assert isinstance(found, Job)
        return found

    anyio.run(main)


def test_who_reads_keeps_prune_from_nothing_but_the_drop(empty: Place) -> None:
    """A long pg_dump reads: what has expired is deleted, and the empty partition stays."""

    async def main() -> None:
        clock = FakeClock(NOW)
        backend = await opened(empty, clock)
        job = (await backend.add([pending("a", NOW)]))[0]
        await backend.replace(job, [ended(job, 0, NOW, timedelta(hours=1))])
        (read,) = near(empty, clock)
        clock.advance(days=1)
        with empty.connect() as connection:
            connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
            connection.execute(f"SELECT count(*) FROM {empty.schema}.execution")
            with anyio.fail_after(5):
                assert await backend.prune(NOW) == 1
            assert empty.rows("SELECT 1 FROM @execution") == []
            assert read in days(empty)
        assert await backend.prune(NOW) == 0
        assert read not in days(empty)
        await backend.close()

    anyio.run(main)


def test_a_handler_that_ends_in_a_transaction_makes_its_partition(empty: Place) -> None:
    async def handle(event: JobEvent) -> None:
        async with event.transaction() as connection:
            await connection.execute("SELECT 1")

    async def main() -> None:
        options: dict[str, Any] = {"clock": FakeClock(NOW), "time": "clock"}
        async with empty.scheduler(handle, **options) as scheduler:
            await scheduler.ensure_job("a", Interval(hours=1, start=NOW))
            assert await scheduler.run_due() == 1
            assert len(await history(scheduler)) == 1
        assert days(empty)

    anyio.run(main)
