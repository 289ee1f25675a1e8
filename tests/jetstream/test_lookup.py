"""Single executions and the newest of some jobs, on a real server."""

from __future__ import annotations

import asyncio
import random
from datetime import timedelta
from typing import Any

import pytest
from attrs import evolve
from tests.jetstream.filled import DAY, api, execution, opened, write

from sched_core import Interval, Scheduler, UndecodableExecution
from sched_jetstream import JetStreamBackend
from sched_jetstream._store.history import Entry

HOUR = timedelta(hours=1)
KEEPS = (HOUR, DAY, 30 * DAY, None)


async def trim(backend: JetStreamBackend) -> None:
    session = backend._session
    assert session is not None
    await session.history.trim(2.0)


@pytest.mark.parametrize("trimmed", [False, True])
@pytest.mark.parametrize("limit", [1, 3, 20])
def test_the_newest_of_each_job(limit: int, *, trimmed: bool) -> None:
    """Of jobs that run often, rarely, in bursts, and never."""
    draw = random.Random(limit)
    jobs = [draw.choice(["often"] * 30 + ["rare", "ü.*> "]) for _ in range(300)]
    jobs[100:180] = ["burst"] * 80
    lines = [
        execution(number, job_id, keep=draw.choice(KEEPS)) for number, job_id in enumerate(jobs, 1)
    ]
    wanted = ["often", "rare", "burst", "ü.*> ", "never"]

    async def main() -> None:
        async with opened() as backend:
            await write(backend, *lines)
            if trimmed:
                await trim(backend)
            await write(backend, execution(1000, "rare"))
            found = await backend.recent(wanted, limit=limit)
            newest = [*lines, execution(1000, "rare")][::-1]
            assert found == {
                job_id: [each for each in newest if each.job_id == job_id][:limit]
                for job_id in wanted[:-1]
            }
            assert await backend.recent([], limit=limit) == {}

    asyncio.run(main())


def test_the_newest_of_many_jobs() -> None:
    async def main() -> None:
        async with opened() as backend:
            lines = [execution(n, f"job-{n % 150}", keep=KEEPS[n % 4]) for n in range(450)]
            await write(backend, *lines)
            found = await backend.recent([f"job-{n}" for n in range(150)], limit=2)
            assert found == {f"job-{n}": [lines[300 + n], lines[150 + n]] for n in range(150)}

    asyncio.run(main())


@pytest.mark.parametrize("trimmed", [False, True])
def test_an_execution_is_found_by_its_id(*, trimmed: bool) -> None:
    """Whether it is on its way or copied, and whether its job is still there or not."""

    async def main() -> None:
        async with opened() as backend:
            scheduler = Scheduler(JetStreamBackend(backend._servers[0].text, **same(backend)))
            async with scheduler:
                job = await scheduler.ensure_job("there", Interval(hours=1))
            lines = [execution(n, "gone", keep=KEEPS[n % 4]) for n in range(1, 30)]
            mine = evolve(lines[3], id=f"{job.uid}:4:1", job_id="there")
            odd = evolve(lines[3], id='no "id" of ours', job_id="ü")
            await write(backend, *lines, mine, odd)
            if trimmed:
                await trim(backend)
            for each in (lines[0], lines[17], lines[28], mine, odd):
                assert await backend.execution(each.id) == each
            for unknown in ("", "x", f"{job.uid}:5:1", "uid-of-gone:30:1", "uid-of-gone:1"):
                assert await backend.execution(unknown) is None

    asyncio.run(main())


def test_what_cannot_be_read_is_found_by_its_name() -> None:
    async def main() -> None:
        async with opened() as backend:
            session = backend._session
            assert session is not None
            names = session.names
            await session.wire.client.request(names.run("ever", "job", "x"), b"{}", timeout=5)
            newer = b'{"id":"uid:1:1","mood":3}'
            await session.wire.client.request(names.run("ever", "job", "y"), newer, timeout=5)
            await trim(backend)
            found = (await backend.follow("", limit=9)).executions
            assert [each.id for each in found] == [f"{names.stream}@1", "uid:1:1"]
            for each in found:
                assert isinstance(each, UndecodableExecution)
                assert await backend.execution(each.id) == each
            assert await backend.recent(["job"], limit=5) == {"job": found[::-1]}
            # The mark of a tool that deleted everything of a job.
            await api(backend, f"STREAM.PURGE.{names.history_stream}", {})
            assert await backend.recent(["job"], limit=5) == {}

    asyncio.run(main())


def same(backend: JetStreamBackend) -> dict[str, Any]:
    options = backend.options
    return {
        "job_bucket": options.job_bucket,
        "execution_bucket": options.execution_bucket,
        "storage": "memory",
    }


def test_what_is_copied_while_it_is_looked_for_keeps_its_place(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def main() -> None:
        async with opened() as backend:
            lines = [execution(number) for number in range(1, 11)]
            await write(backend, *lines)
            session = backend._session
            assert session is not None
            on_the_way = session.history.on_the_way

            async def stale(token: str) -> list[tuple[str, Entry]]:
                with monkeypatch.context() as patch:
                    patch.setattr(session.history, "_copied", nothing)
                    found = await on_the_way(token)
                assert len(found) == len(lines)
                await session.history.catch_up(2.0)
                return found

            monkeypatch.setattr(session.history, "on_the_way", stale)
            assert await backend.recent(["job"], limit=3) == {"job": lines[:-4:-1]}

    async def nothing() -> int:
        return 0

    asyncio.run(main())
