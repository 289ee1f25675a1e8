"""The history from a cursor on, on a real server: in order, whole, or refused."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest
from tests.jetstream.filled import DAY, NOW, another, api, execution, opened, streams, write
from tests.nats_shared import delete_streams, shared_server

from sched_core import CursorExpired, InvalidDefinition, SystemClock
from sched_core.testing import FakeClock
from sched_jetstream import JetStreamBackend
from sched_jetstream._store.removals import Removals

HOUR = timedelta(hours=1)


async def all_after(
    backend: JetStreamBackend, cursor: str | None, limit: int = 3
) -> tuple[list[str], str]:
    """Return the numbers of all that comes after a cursor, and the last cursor."""
    found: list[str] = []
    while True:
        part = await backend.follow(cursor, limit=limit)
        assert len(part.executions) <= limit
        cursor = part.cursor
        found += [each.id.split(":")[1] for each in part.executions]
        if not part.executions:
            return found, cursor


def numbers(*of: int) -> list[str]:
    return [str(number) for number in of]


def test_everything_comes_once_and_in_order() -> None:
    async def main() -> None:
        async with opened() as backend:
            end = (await backend.follow(None, limit=10)).cursor
            assert await all_after(backend, end) == ([], end)
            await write(backend, *(execution(number) for number in range(1, 8)))
            assert (await all_after(backend, end))[0] == numbers(*range(1, 8))
            found, cursor = await all_after(backend, "")
            assert found == numbers(*range(1, 8))
            await write(backend, execution(8, "other"), execution(9))
            assert (await all_after(backend, cursor))[0] == numbers(8, 9)
            assert (await all_after(backend, (await backend.follow(None, limit=1)).cursor))[0] == []

    asyncio.run(main())


def test_what_was_trimmed_from_the_outbox_still_comes() -> None:
    async def main() -> None:
        async with opened() as backend:
            await write(backend, *(execution(number) for number in range(1, 5)))
            session = backend._session
            assert session is not None
            await session.history.trim(2.0)
            assert (await all_after(backend, ""))[0] == numbers(1, 2, 3, 4)

    asyncio.run(main())


def test_what_is_copied_late_comes_late() -> None:
    """While nothing is copied, a cursor of the end stays before what is on its way."""

    async def main() -> None:
        async with opened() as backend:
            await write(backend, execution(1))
            _, cursor = await all_after(backend, "")
            history = streams(backend)[1]
            config = (await api(backend, f"STREAM.INFO.{history}", {}))["config"]
            await api(backend, f"STREAM.UPDATE.{history}", {**config, "sources": []})
            await write(backend, execution(2), execution(3))
            assert await all_after(backend, cursor) == ([], cursor)
            began = asyncio.get_running_loop().time()
            assert await all_after(backend, cursor) == ([], cursor)
            waited = asyncio.get_running_loop().time() - began
            await api(backend, f"STREAM.UPDATE.{history}", config)
            while not (await backend.follow(cursor, limit=1)).executions:
                await asyncio.sleep(0.01)
            assert (await all_after(backend, cursor))[0] == numbers(2, 3)
            assert waited < 60, "it is waited for once"

    asyncio.run(main())


def test_what_was_deleted_unread_is_told() -> None:
    async def main() -> None:
        async with opened() as backend:
            lines = [execution(n, keep=30 * DAY if n % 2 else HOUR) for n in range(1, 9)]
            await write(backend, *lines)
            _, end = await all_after(backend, "")
            first = (await backend.follow("", limit=2)).cursor
            seventh = (await backend.follow("", limit=7)).cursor
            # The even ones, 2, 4, 6 and 8, are deleted: out of order.
            names = backend.options.names
            subject = names.history("1h", "*")
            await api(backend, f"STREAM.PURGE.{names.history_stream}", {"filter": subject})
            for cursor in (first, seventh):
                with pytest.raises(CursorExpired):
                    await backend.follow(cursor, limit=10)
            assert await all_after(backend, end) == ([], (await all_after(backend, end))[1])
            # What was missing when it began is no reason to end.
            assert (await all_after(backend, "", limit=1))[0] == numbers(1, 3, 5, 7)

    asyncio.run(main())


def test_what_was_read_may_be_deleted() -> None:
    async def main() -> None:
        async with opened() as backend:
            await write(backend, *(execution(number) for number in range(1, 6)))
            third = (await backend.follow("", limit=3)).cursor
            history = streams(backend)[1]
            await api(backend, f"STREAM.PURGE.{history}", {"seq": 3})
            assert (await all_after(backend, third))[0] == numbers(4, 5)
            _, end = await all_after(backend, third)
            await api(backend, f"STREAM.PURGE.{history}", {})
            assert (await all_after(backend, end))[0] == []
            await write(backend, execution(6))
            assert (await all_after(backend, end))[0] == numbers(6)
            with pytest.raises(CursorExpired):
                await backend.follow(third, limit=1)

    asyncio.run(main())


def test_pruning_on_a_fake_clock_is_told() -> None:
    async def main() -> None:
        clock = FakeClock(NOW)
        async with opened(clock) as backend:
            await write(backend, *(execution(n, ago=(10 - n) * DAY) for n in range(1, 6)))
            first = (await backend.follow("", limit=1)).cursor
            third = (await backend.follow("", limit=3)).cursor
            assert await backend.prune(NOW - 6.5 * DAY) == 3
            with pytest.raises(CursorExpired):
                await backend.follow(first, limit=10)
            assert (await all_after(backend, third))[0] == numbers(4, 5)

    asyncio.run(main())


def test_it_tells_apart_while_others_write_and_prune() -> None:
    """Nothing that is left is skipped, and no deletion before the cursor ends it."""

    async def main() -> None:
        async with opened() as backend:
            history = streams(backend)[1]
            stop = asyncio.Event()

            async def fill() -> None:
                for number in range(1, 401):
                    await write(backend, execution(number))
                stop.set()

            filling = asyncio.create_task(fill())
            found: list[str] = []
            cursor = ""
            while not stop.is_set() or len(found) < 400:
                part = await backend.follow(cursor, limit=20)
                found += [each.id.split(":")[1] for each in part.executions]
                cursor = part.cursor
                sequence = int(cursor.split(".")[2])
                if sequence:
                    await api(backend, f"STREAM.PURGE.{history}", {"seq": sequence})
            await filling
            assert found == numbers(*range(1, 401))

    asyncio.run(main())


@pytest.mark.parametrize("cursor", ["7", "x", "elsewhere-lines.1.0.0.0.0", "looks.1.0.0.0"])
def test_a_foreign_text_is_no_cursor(cursor: str) -> None:
    async def main() -> None:
        async with opened() as backend:
            with pytest.raises(InvalidDefinition, match="after"):
                await backend.follow(cursor, limit=1)

    asyncio.run(main())


def test_a_cursor_of_a_stream_that_was_made_again_has_expired() -> None:
    async def main() -> None:
        async with opened() as backend:
            await write(backend, execution(1), execution(2))
            _, cursor = await all_after(backend, "")
            delete_streams(shared_server().url, *streams(backend))
            again = another(backend.options.job_bucket, storage="memory")
            await again.open(SystemClock(), worker="again")
            try:
                await write(again, *(execution(number) for number in range(1, 5)))
                with pytest.raises(CursorExpired):
                    await again.follow(cursor, limit=1)
            finally:
                await again.close()

    asyncio.run(main())


def test_a_cursor_of_a_stream_that_was_set_back_has_expired() -> None:
    """Something else has the sequence now: as after a restart that lost the newest writes."""

    async def main() -> None:
        async with opened() as backend:
            await write(backend, execution(1), execution(2))
            _, cursor = await all_after(backend, "")
            parts = cursor.split(".")
            parts[3] = str(int(parts[3]) + 1)
            with pytest.raises(CursorExpired):
                await backend.follow(".".join(parts), limit=1)
            parts = cursor.split(".")
            parts[2] = str(int(parts[2]) + 100)
            with pytest.raises(CursorExpired):
                await backend.follow(".".join(parts), limit=1)

    asyncio.run(main())


def test_large_executions_come_in_parts() -> None:
    async def main() -> None:
        async with opened() as backend:
            reason = "x" * 200_000
            await write(backend, *(execution(n, reason=reason) for n in range(1, 61)))
            assert (await all_after(backend, "", limit=60))[0] == numbers(*range(1, 61))

    asyncio.run(main())


def test_a_store_that_cannot_tell_says_that_the_cursor_has_expired(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def unknown(self: object, sequence: int, known: int) -> None:
        return None

    async def main() -> None:
        async with opened() as backend:
            await write(backend, *(execution(number) for number in range(1, 4)))
            _, cursor = await all_after(backend, "")
            await api(backend, f"STREAM.PURGE.{streams(backend)[1]}", {"seq": 2})
            monkeypatch.setattr(Removals, "after", unknown)
            with pytest.raises(CursorExpired):
                await backend.follow(cursor, limit=1)

    asyncio.run(main())
