"""Claims and counts, on a real server, next to what the memory backend says."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import timedelta
from typing import Literal

import pytest
from attrs import evolve
from tests.jetstream.filled import DAY, NOW, api, execution, opened, streams, write

from sched_core import (
    CountQuery,
    Counts,
    Hold,
    Interval,
    Job,
    JobSpec,
    MemoryBackend,
    Once,
    Pending,
    Policy,
    Renewal,
    Room,
    Standing,
    State,
    Status,
)
from sched_core.ports import Backend, ClaimQuery
from sched_core.testing import FakeClock
from sched_jetstream import backend as backend_module
from sched_jetstream._store import history_index, job_index

MINUTE = timedelta(minutes=1)
By = Literal["hour", "job", "error"] | None
QUERY = CountQuery(NOW - DAY)
HOW: tuple[By, ...] = ("hour", "job", "error", None)


def due(job_id: str, minutes: int, *, queue: str = "default") -> Job:
    """Return a job that is due so many minutes from now."""
    at = NOW + minutes * MINUTE
    spec = JobSpec(job_id, Interval(hours=1), queue=queue)
    return Job(spec, f"uid-{job_id}", False, NOW - DAY, Standing(1, Pending(1, at, at), at))


def finished(job_id: str, expires_in: timedelta | None = None) -> Job:
    expires_at = None if expires_in is None else NOW + expires_in
    spec = JobSpec(job_id, Once(NOW - DAY), policy=Policy(keep_finished=expires_in))
    return Job(
        spec, f"uid-{job_id}", False, NOW - DAY, Standing(1, None, None, expires_at=expires_at)
    )


async def holds(backend: Backend, query: ClaimQuery | None = None, limit: int = 2) -> list[Hold]:
    found: list[Hold] = []
    after: str | None = None
    while True:
        page = await backend.claims(query or ClaimQuery(), after=after, limit=limit)
        assert len(page.items) <= limit
        found += page.items
        if (after := page.next) is None:
            return found


def without_tokens(found: Sequence[Hold]) -> list[Hold]:
    return [evolve(hold, token=0) for hold in found]


@pytest.mark.parametrize("by", HOW)
def test_it_lists_and_counts_as_the_memory_backend_does(by: By) -> None:
    lines = [
        execution(
            number,
            f"job-{number % 3}",
            ago=number * timedelta(hours=1),
            status=Status.FAILED if number % 4 == 0 else Status.SUCCEEDED,
            reason=f"Error{number % 8}: it broke" if number % 4 == 0 else None,
        )
        for number in range(1, 30)
    ]
    query = evolve(QUERY, by=by)

    async def told(backend: Backend, clock: FakeClock) -> list[object]:
        seen: list[object] = []

        async def look() -> None:
            seen.append(await backend.counts(query))
            seen.append(await backend.counts(evolve(query, until=NOW - timedelta(hours=3))))
            seen.append(without_tokens(await holds(backend)))
            seen.append(without_tokens(await holds(backend, ClaimQuery(job_id="due-2"))))
            seen.append(without_tokens(await holds(backend, ClaimQuery(worker="nobody"))))

        long = "x" * 250
        jobs = [due(f"due-{n}", n - 5) for n in range(8)] + [due(long, -9), finished("done")]
        added = {job.id: job for job in await backend.add(jobs)}
        await look()
        claimed = await backend.claim_due(Room(4))
        await look()
        clock.advance(timedelta(seconds=5))
        kept = await backend.renew([Renewal(claim) for claim in claimed.claims[:2]])
        await look()
        await backend.release(kept)
        await look()
        await backend.remove(added["done"])
        stored = await backend.get(long)
        if isinstance(stored, Job):
            await backend.remove(stored)
        await look()
        return seen

    async def main() -> None:
        clock = FakeClock(NOW)
        memory = MemoryBackend(lease=timedelta(seconds=30))
        await memory.open(clock, worker="worker")
        for number, each in enumerate(lines, 1):
            memory.store.history.append((number, each))
        wanted = await told(memory, clock)
        await memory.close()
        clock = FakeClock(NOW)
        async with opened(clock) as backend:
            await write(backend, *lines)
            found = await told(backend, clock)
        for number, (one, other) in enumerate(zip(found, wanted, strict=True)):
            assert one == other, number

    asyncio.run(main())


def test_a_count_goes_on_where_the_one_before_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backend_module, "COUNTS_FOR", 0.0)
    monkeypatch.setattr(history_index, "WINDOW", 10)

    async def main() -> None:
        async with opened(FakeClock(NOW)) as backend:
            for start in range(0, 1200, 300):
                await backend.add([due(f"job-{n}", n) for n in range(start, start + 300)])
            await write(backend, *(execution(n) for n in range(1, 36)))
            seen: list[Counts] = []
            while not seen or not seen[-1].complete:
                assert len(seen) < 20
                seen.append(await backend.counts(QUERY))
            assert not seen[0].complete
            assert 0 < seen[0].jobs[State.ACTIVE] < 1200
            executions = [each.executions.get(Status.SUCCEEDED, 0) for each in seen]
            assert 0 < executions[0] < 35
            assert executions == sorted(executions)
            assert seen[-1].jobs == {State.ACTIVE: 1200}
            assert executions[-1] == 35
            await write(backend, execution(36))
            await backend.add([due("another", 1)])
            again = await backend.counts(QUERY)
            while not again.complete:
                again = await backend.counts(QUERY)
            assert (again.jobs, again.executions) == (
                {State.ACTIVE: 1201},
                {Status.SUCCEEDED: 36},
            )

    asyncio.run(main())


def test_what_is_deleted_is_counted_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job_index, "SWEEP", 0.0)

    async def main() -> None:
        async with opened(FakeClock(NOW)) as backend:
            keep = timedelta(hours=1)
            lines = [execution(n, keep=keep if n % 2 else DAY) for n in range(1, 11)]
            await write(backend, *lines)
            await backend.add([due(f"job-{n}", n) for n in range(5)])
            before = await backend.counts(QUERY)
            assert before.executions == {Status.SUCCEEDED: 10}
            jobs, history = streams(backend)
            names = backend.options.names
            body: dict[str, object] = {"filter": names.history("1h", "*"), "seq": 6}
            await api(backend, f"STREAM.PURGE.{history}", body)
            await api(backend, f"STREAM.PURGE.{jobs}", {"filter": names.record("job-3")})
            after = await backend.counts(QUERY)
            assert after.executions == {Status.SUCCEEDED: 7}
            assert after.jobs == {State.ACTIVE: 4}
            await write(backend, execution(11))
            assert (await backend.counts(QUERY)).executions == {Status.SUCCEEDED: 8}
            await api(backend, f"STREAM.PURGE.{history}", {})
            assert (await backend.counts(QUERY)).executions == {}

    asyncio.run(main())


def test_what_cannot_be_read_is_counted_apart() -> None:
    async def main() -> None:
        async with opened(FakeClock(NOW)) as backend:
            session = backend._session
            assert session is not None
            names, client = session.names, session.wire.client
            await backend.add([due("job", 1)])
            await write(backend, execution(1))
            await client.request(names.record("odd"), b'{"format":99', timeout=5)
            for name, body in (("a", b"\xff"), ("b", b"{}"), ("c", b"[]")):
                await client.request(names.run("ever", "job", name), body, timeout=5)
            found = await backend.counts(QUERY)
            assert (found.undecodable, found.jobs) == (1, {State.ACTIVE: 1})
            assert found.executions == {Status.SUCCEEDED: 1}
            assert found.complete
            assert await holds(backend) == []

    asyncio.run(main())


def test_what_the_server_will_have_deleted_is_not_counted() -> None:
    async def main() -> None:
        async with opened() as backend:
            await backend.add([finished("brief", timedelta(seconds=1)), due("job", 60)])
            await asyncio.sleep(0)
            while State.FINISHED in (found := await backend.counts(QUERY)).jobs:
                await asyncio.sleep(0.2)
            assert found.jobs == {State.ACTIVE: 1}
            assert found.complete

    asyncio.run(main())
