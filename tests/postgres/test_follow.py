"""The history in the order of commit: with open transactions, deletions, and in other clusters."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import anyio
import psycopg
import pytest
from attrs import evolve
from tests import postgres_server
from tests.postgres.places import Place, pending, settlement

from sched_core import Claim, CursorExpired, Execution, Followed, InvalidDefinition
from sched_core.testing import FakeClock
from sched_sql import PostgresBackend
from sched_sql.postgres.partitions import DAY

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)
MONTH = timedelta(days=30)
INSERT = """
    INSERT INTO @execution (seq, job_id, uid, number, attempt, scheduled_at, status, final, token,
        worker, claimed_at, finished_at, drop_at)
    VALUES (nextval('@serial'), 'by hand', 'u', %s, 1, 0, 'succeeded', true, 0, 'w', 0, 7000000,
        9223372036854775807)
"""


@contextlib.asynccontextmanager
async def opened(here: Place, clock: FakeClock | None = None) -> AsyncIterator[PostgresBackend]:
    backend = here.backend(time="clock", lease=timedelta(minutes=1))
    await backend.open(clock or FakeClock(NOW), worker="w")
    try:
        yield backend
    finally:
        await backend.close()


def numbers(part: Followed) -> list[int]:
    return [each.number for each in part.executions if isinstance(each, Execution)]


async def followed(backend: PostgresBackend, after: str) -> tuple[list[int], str]:
    """Follow in small parts, and return the numbers, and where it ended."""
    found: list[int] = []
    while (part := await backend.follow(after, limit=2)).executions:
        found += numbers(part)
        after = part.cursor
    return found, part.cursor


class Writer:
    """A transaction of somebody's, into which executions are written one by one."""

    def __init__(self, here: Place) -> None:
        self._connection = here.connect()
        self._statement: Any = INSERT.replace("@", f"{here.schema}.")

    def write(self, number: int) -> None:
        self._connection.execute(self._statement, (number,))

    def do(self, statement: Any) -> None:
        self._connection.execute(statement)

    def end(self) -> None:
        if not self._connection.closed:
            self._connection.commit()
            self._connection.close()


@pytest.fixture
def writers(here: Place) -> Iterator[list[Writer]]:
    async def make() -> None:
        async with opened(here):
            pass

    anyio.run(make)
    yield (made := [Writer(here) for _ in range(3)])
    for each in made:
        each.end()
    here.rows("DELETE FROM @era WHERE era > 1")  # other tests get the schema
    here.rows("UPDATE @era SET cluster = @cluster() WHERE era = 1")


def test_what_commits_late_comes_late_and_is_not_left_out(
    here: Place, writers: list[Writer]
) -> None:
    first, second, third = writers

    async def main() -> None:
        async with opened(here) as backend:
            first.write(1)  # its number is drawn before all others, and it is open for long
            second.write(2)
            second.end()
            third.do("SAVEPOINT one")
            third.write(3)  # in a savepoint: the number of its transaction counts
            third.do("ROLLBACK TO one")
            third.write(4)
            third.end()
            now = await backend.follow(None, limit=5)
            assert now.executions == ()
            part = await backend.follow("", limit=5)
            assert (numbers(part), part.waits_since is not None) == ([], True)
            again = await backend.follow(now.cursor, limit=5)
            assert (numbers(again), again.waits_since is not None) == ([], True)
            first.write(5)
            first.end()
            assert (await followed(backend, ""))[0] == [1, 5, 2, 4]
            assert (await followed(backend, part.cursor))[0] == [1, 5, 2, 4]
            assert (await followed(backend, now.cursor))[0] == [1, 5, 2, 4], "it was not shown yet"
            assert (await backend.follow("", limit=5)).waits_since is None

    anyio.run(main)


def test_a_savepoint_that_is_open_keeps_back_what_its_transaction_may_overtake(
    here: Place, writers: list[Writer]
) -> None:
    first, second, _ = writers

    async def main() -> None:
        async with opened(here) as backend:
            first.do("SAVEPOINT one")
            first.write(1)
            first.do("RELEASE one")
            second.write(2)
            second.end()
            assert numbers(await backend.follow("", limit=5)) == []
            first.do("SAVEPOINT two")
            first.write(3)
            first.do("ROLLBACK TO two")
            first.write(4)
            first.end()
            assert (await followed(backend, ""))[0] == [1, 4, 2]

    anyio.run(main)


def test_it_waits_since_the_open_transaction_began(here: Place, writers: list[Writer]) -> None:
    first, second, _ = writers

    async def main() -> None:
        async with opened(here) as backend:
            assert (await backend.follow("", limit=5)).waits_since is None
            first.write(1)
            assert (await backend.follow("", limit=5)).waits_since is None, "nothing waits for it"
            await anyio.sleep(0.2)
            second.write(2)
            second.end()
            part = await backend.follow("", limit=5)
            assert part.waits_since is not None
            # In the time of the clock that decides, which stands still here.
            assert NOW - timedelta(minutes=1) < part.waits_since <= NOW - timedelta(seconds=0.2)

    anyio.run(main)


def test_who_may_not_see_others_sessions_is_told_by_what_waits(
    here: Place, writers: list[Writer]
) -> None:
    """The superuser's transaction is seen by others, and when it began is not."""
    _, second, _ = writers

    async def main() -> None:
        async with opened(here) as backend:
            with (
                psycopg.connect(postgres_server.shared().local) as hidden,
                hidden.transaction(force_rollback=True),
            ):
                hidden.execute("SELECT pg_current_xact_id()")
                second.write(2)
                second.end()
                part = await backend.follow("", limit=5)
                assert part.executions == []
                assert part.waits_since == datetime(1970, 1, 1, 0, 0, 7, tzinfo=UTC)

    anyio.run(main)


# -- what was deleted


def ended(number: int, at: datetime, keep: timedelta) -> Execution:
    job = pending("a", NOW)
    found = settlement(Claim(job, 0, "", NOW, NOW)).executions[0]
    return evolve(
        found,
        id=f"{job.uid}:{number}:0",
        number=number,
        attempt=0,
        finished_at=at,
        expires_at=at + keep,
    )


async def written(backend: PostgresBackend, *executions: Execution) -> None:
    job = await backend.get("a")
    if job is None:
        (job,) = await backend.add([pending("a", NOW)])
    await backend.replace(job, executions)  # type: ignore[arg-type]  # it can be read


def test_a_cursor_before_a_partition_that_was_dropped_has_expired(here: Place) -> None:
    async def main() -> None:
        clock = FakeClock(NOW)
        async with opened(here, clock) as backend:
            await written(backend, ended(1, NOW, MONTH))
            begin = (await backend.follow("", limit=1)).cursor
            await written(backend, ended(2, NOW, timedelta(hours=1)))
            behind = (await backend.follow(begin, limit=1)).cursor
            await written(backend, ended(3, NOW, MONTH))
            clock.advance(days=3)
            dropped = f"execution_{1 + int((NOW + timedelta(hours=1)).timestamp() * 1e6) // DAY}"
            assert here.rows("SELECT to_regclass(%s)", (f"{here.schema}.{dropped}",)) != [(None,)]
            assert await backend.prune(datetime.min.replace(tzinfo=UTC)) == 1
            assert here.rows("SELECT to_regclass(%s)", (f"{here.schema}.{dropped}",)) == [(None,)]
            with pytest.raises(CursorExpired):
                await backend.follow(begin, limit=1)
            assert (await followed(backend, behind))[0] == [3]
            assert (await followed(backend, ""))[0] == [1, 3]
            # Who begins with the oldest knows what is gone by then, and not what goes later.
            first = (await backend.follow("", limit=1)).cursor
            assert (await followed(backend, first))[0] == [3]
            here.rows("DELETE FROM @execution WHERE number = 3")
            with pytest.raises(CursorExpired):
                await backend.follow(first, limit=1)

    anyio.run(main)


def test_whoever_deletes_is_noted(here: Place, writers: list[Writer]) -> None:
    """Also a worker of version 3, which knows nothing of cursors, and people."""
    first, second, _ = writers

    async def main() -> None:
        async with opened(here) as backend:
            first.write(1)
            first.write(2)
            first.end()
            begin = (await backend.follow("", limit=1)).cursor
            here.rows("DELETE FROM @execution WHERE number = 2")
            with pytest.raises(CursorExpired):
                await backend.follow(begin, limit=5)
            at_end = await backend.follow(None, limit=5)
            second.write(3)
            second.end()
            assert (await followed(backend, at_end.cursor))[0] == [3]

    anyio.run(main)


def test_what_is_deleted_while_older_ones_are_kept_back_takes_no_cursor_beyond_them(
    here: Place, writers: list[Writer]
) -> None:
    first, second, _ = writers

    async def main() -> None:
        async with opened(here) as backend:
            first.write(1)
            second.write(2)
            second.end()
            here.rows("DELETE FROM @execution WHERE number = 2")
            part = await backend.follow("", limit=5)
            assert part.executions == []
            first.end()
            assert (await followed(backend, part.cursor))[0] == [1]

    anyio.run(main)


# -- other stores, states and clusters


def test_cursors_of_other_stores_are_refused(here: Place, writers: list[Writer]) -> None:
    writers[0].write(1)
    writers[0].end()

    async def main() -> None:
        async with opened(here) as backend:
            cursor = (await backend.follow("", limit=1)).cursor
            store, rest = cursor.split(".", 1)
            other = f"{int(store, 16) ^ 1:x}.{rest}"
            for text, told in ((other, "of another store"), ("7", "that follow returned")):
                with pytest.raises(InvalidDefinition, match=told):
                    await backend.follow(text, limit=1)

    anyio.run(main)


def test_a_cursor_whose_execution_is_lost_has_expired(here: Place, writers: list[Writer]) -> None:
    """As after a failover that lost the newest commits, whose numbers are given once more."""
    writers[0].write(1)
    writers[0].end()

    async def main() -> None:
        async with opened(here) as backend:
            cursor = (await backend.follow("", limit=1)).cursor
            # As it would be in the place of the lost one, with its transaction and seq.
            here.rows("UPDATE @execution SET number = 9")
            with pytest.raises(CursorExpired):
                await backend.follow(cursor, limit=1)
            here.rows("TRUNCATE @execution")
            with pytest.raises(CursorExpired):
                await backend.follow(cursor, limit=1)

    anyio.run(main)


def test_what_came_from_another_cluster_comes_first(here: Place, writers: list[Writer]) -> None:
    """A dump brings numbers of transactions that are greater than all of this cluster, or less."""
    first, second, _ = writers
    for number in (1, 2, 3):
        first.write(number)
    first.end()

    async def main() -> None:
        async with opened(here) as backend:
            cursor = (await backend.follow("", limit=1)).cursor
        here.rows("UPDATE @execution SET xact = '4000000000000' WHERE number >= 2")
        here.rows("UPDATE @era SET cluster = 1 WHERE era = 1")
        async with opened(here) as backend:
            assert here.rows("SELECT count(*) FROM @era") == [(3,)]
            second.write(4)
            second.end()
            assert (await followed(backend, ""))[0] == [1, 2, 3, 4]
            rest, end = await followed(backend, cursor)
            assert rest == [2, 3, 4], "a cursor of before is as good as ever"
            assert (await followed(backend, end))[0] == []
            here.rows("DELETE FROM @execution WHERE number = 2")
            with pytest.raises(CursorExpired):
                await backend.follow(cursor, limit=1)
            assert (await followed(backend, end))[0] == []
        async with opened(here):
            assert here.rows("SELECT count(*) FROM @era") == [(3,)], "one more in the same cluster"

    anyio.run(main)


def test_an_era_begins_when_somebody_follows_where_it_could_not_at_opening(
    here: Place, writers: list[Writer]
) -> None:
    first, _, _ = writers
    here.rows("UPDATE @era SET cluster = 1 WHERE era = 1")
    first.write(1)  # its transaction might go on for an hour, and workers are to begin at once
    assert here.rows("SELECT cluster FROM @era ORDER BY era") == [(0,), (1,)]

    async def main() -> None:
        async with opened(here) as backend:
            assert here.rows("SELECT count(*) FROM @era") == [(2,)]
            first.end()
            assert (await followed(backend, ""))[0] == [1]
            assert here.rows("SELECT count(*) FROM @era") == [(3,)]

    anyio.run(main)
