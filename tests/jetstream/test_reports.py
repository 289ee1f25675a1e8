"""What workers report of themselves, on a real server."""

from __future__ import annotations

import asyncio
import base64
from datetime import timedelta

from attrs import evolve
from tests.jetstream.filled import DAY, NOW, another, api, opened, streams

from sched_core import SystemClock, WorkerState
from sched_core.testing import FakeClock

STATE = WorkerState(
    "worker",
    NOW,
    NOW,
    "host",
    17,
    "1.0",
    4,
    2,
    {"default": 3, "*": 1},
    {"lost": NOW - timedelta(minutes=1)},
    stopping=True,
)


def test_a_report_replaces_the_one_before_and_ends_with_its_worker() -> None:
    async def main() -> None:
        async with opened() as backend:
            assert await backend.workers() == []
            other = another(backend.options.job_bucket, storage="memory")
            await other.open(SystemClock(), worker="other")
            await backend.report(STATE)
            later = evolve(STATE, seen_at=NOW + timedelta(seconds=5), executing=0)
            await backend.report(later)
            await other.report(WorkerState("other", NOW, NOW))
            assert await backend.workers() == [WorkerState("other", NOW, NOW), later]
            await other.close()
            assert await backend.workers() == [later]

    asyncio.run(main())


def test_the_server_forgets_a_worker_after_a_day() -> None:
    async def main() -> None:
        async with opened() as backend:
            await backend.report(STATE)
            wanted: dict[str, object] = {"last_by_subj": backend.options.names.report("worker")}
            reply = await api(backend, f"STREAM.MSG.GET.{streams(backend)[0]}", wanted)
            headers = base64.b64decode(reply["message"]["hdrs"]).decode()
            assert "Nats-TTL: 86400" in headers

    asyncio.run(main())


def test_pruning_forgets_by_the_clock_that_decides() -> None:
    async def main() -> None:
        async with opened(FakeClock(NOW + DAY + timedelta(seconds=1))) as backend:
            await backend.report(STATE)
            fresh = WorkerState("fresh", NOW, NOW + timedelta(seconds=1))
            await backend.report(fresh)
            assert await backend.prune(NOW - 30 * DAY) == 0
            assert await backend.workers() == [fresh]

    asyncio.run(main())


def test_what_a_newer_version_reports_is_left_out() -> None:
    async def main() -> None:
        async with opened() as backend:
            await backend.report(STATE)
            session = backend._session
            assert session is not None
            for name, body in (("newer", b'{"name":"newer","mood":3}'), ("odd", b"\xff")):
                await session.wire.client.request(session.names.report(name), body, timeout=5)
            assert await backend.workers() == [STATE]
            await backend.prune(NOW - 30 * DAY)
            assert await backend.workers() == [STATE]

    asyncio.run(main())
