"""What is claimed is handed out in time, whatever becomes of the other claims."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from tests.core.running import until
from tests.nats_shared import delete_streams, shared_server

from sched_core import Claim, JobSpec, Once, Renewal, Room, Scheduler, SystemClock
from sched_core.errors import BackendUnavailable
from sched_jetstream import JetStreamBackend
from sched_jetstream._model.layout import AtomicWrite
from sched_jetstream._model.protocol import StoredRecord
from sched_jetstream._model.record import Record
from sched_jetstream._model.subjects import token_of
from sched_jetstream._runtime.claims import Claims
from sched_jetstream._runtime.due_queue import Hint
from sched_jetstream._store.writer import RevisionMismatch
from sched_jetstream.errors import OutcomeUnknown
from sched_testkit._suite.builders import occurrence_of

BUCKET = "claims"
LEASE = timedelta(seconds=4)
SLOW = token_of("slow")


@pytest.fixture(autouse=True)
def fresh() -> Any:
    yield
    delete_streams(shared_server().url, f"KV_{BUCKET}", f"KV_{BUCKET}-lines")


@asynccontextmanager
async def three_are_due() -> AsyncIterator[JetStreamBackend]:
    """Store ``a``, ``slow`` and ``z``, and open a backend to claim them."""

    def backend() -> JetStreamBackend:
        return JetStreamBackend(
            shared_server().url,
            job_bucket=BUCKET,
            execution_bucket=f"{BUCKET}-lines",
            lease=LEASE,
        )

    async with Scheduler(backend()) as scheduler:
        past = Once(datetime.now(UTC) - timedelta(seconds=1))
        await scheduler.submit_jobs([JobSpec(job_id, past) for job_id in ("a", "slow", "z")])
    opened = backend()
    await opened.open(SystemClock(), worker="one")
    try:
        yield opened
    finally:
        await opened.close()


def exchange(
    backend: JetStreamBackend, write: Callable[[Callable[[], Any]], asyncio.Future[list[int]]]
) -> Callable[[], None]:
    """Have claims of the slow one written otherwise; return what puts that right."""
    assert backend._session is not None
    writer = backend._session.writer
    submit = writer.submit

    def exchanged(*steps: AtomicWrite) -> asyncio.Future[list[int]]:
        if steps[0].record is not None and token_of(steps[0].record.id) == SLOW:
            return write(lambda: submit(*steps))
        return submit(*steps)

    writer.submit = exchanged  # type: ignore[method-assign]

    def undo() -> None:
        writer.submit = submit  # type: ignore[method-assign]

    return undo


class Kept:
    """Keeps a write back, and leaves open what becomes of it."""

    def __call__(self, send: Callable[[], Any]) -> asyncio.Future[list[int]]:
        self._send = send
        self._future: asyncio.Future[list[int]] = asyncio.get_running_loop().create_future()
        return self._future

    async def send(self) -> None:
        self._future.set_result(await self._send())

    def give_up(self) -> None:
        self._future.set_exception(OutcomeUnknown("no answer"))


def failed(error: Exception) -> asyncio.Future[list[int]]:
    future: asyncio.Future[list[int]] = asyncio.get_running_loop().create_future()
    future.set_exception(error)
    return future


async def claimed(backend: JetStreamBackend) -> set[str]:
    return {claim.job.id for claim in await due(backend)}


async def due(backend: JetStreamBackend) -> Sequence[Claim]:
    return (await backend.claim_due(Room(10))).claims


async def renewed(backend: JetStreamBackend, *claims: Claim) -> list[Claim]:
    return list(await backend.renew([Renewal(claim) for claim in claims]))


def test_claims_do_not_wait_for_one_that_is_not_decided() -> None:
    async def main() -> None:
        async with three_are_due() as backend:
            kept = Kept()
            undo = exchange(backend, kept)
            began = time.monotonic()
            assert await claimed(backend) == {"a", "z"}
            assert time.monotonic() - began < LEASE.total_seconds() / 2
            undo()
            await kept.send()  # it is written after all
            await backend.wait_due(Room(10))
            (claim,) = await due(backend)
            assert claim.job.id == "slow"
            assert len(await renewed(backend, claim)) == 1

    asyncio.run(main())


def test_a_claim_that_is_decided_too_late_is_given_back() -> None:
    async def main() -> None:
        async with three_are_due() as backend:
            kept = Kept()
            undo = exchange(backend, kept)
            assert await claimed(backend) == {"a", "z"}
            undo()
            await asyncio.sleep(LEASE.total_seconds() / 2)
            await kept.send()
            await backend.wait_due(Room(10))
            assert await claimed(backend) == set()
            claims: list[Claim] = []

            async def look() -> bool:
                claims.extend(await due(backend))
                return bool(claims)

            await until(look, within=LEASE.total_seconds() / 4)
            (claim,) = claims
            assert claim.job.id == "slow"
            assert occurrence_of(claim).attempts == 0

    asyncio.run(main())


def test_what_is_decided_late_does_not_wait_for_what_is_given_back() -> None:
    async def main() -> None:
        async with three_are_due() as backend:
            session = backend._session
            assert session is not None
            kept = Kept()
            undo = exchange(backend, kept)
            fast = {claim.job.id: claim for claim in await due(backend)}
            undo()
            await asyncio.sleep(LEASE.total_seconds() / 2)
            await kept.send()
            await until(lambda: session.live.decided_late, within=20)
            session.live.decided_late += await renewed(backend, fast["a"])  # as if it came late
            change, free = session.records.change, asyncio.Event()

            async def stalled(*args: Any, **options: Any) -> Any:
                await free.wait()
                return await change(*args, **options)

            session.records.change = stalled  # type: ignore[method-assign]
            async with asyncio.timeout(LEASE.total_seconds() / 4):
                assert await claimed(backend) == {"a"}
            free.set()
            await until(lambda: _has(backend, "slow"), within=LEASE.total_seconds() / 4)

    asyncio.run(main())


def test_claims_do_not_wait_for_what_has_to_be_read_again() -> None:
    async def main() -> None:
        async with three_are_due() as backend:
            session = backend._session
            assert session is not None
            one, free = session.reader.read_leader, asyncio.Event()

            async def stalled(token: str) -> Any:
                await free.wait()
                return await one(token)

            undo = exchange(
                backend, lambda _: failed(RevisionMismatch("another worker was faster"))
            )
            session.reader.read_leader = stalled  # type: ignore[method-assign]
            async with asyncio.timeout(LEASE.total_seconds() * 0.2):
                assert await claimed(backend) == {"a", "z"}
            undo()
            free.set()
            await until(lambda: _has(backend, "slow"), within=LEASE.total_seconds() / 2)

    asyncio.run(main())


async def _has(backend: JetStreamBackend, job_id: str) -> bool:
    return job_id in await claimed(backend)


def test_a_claim_whose_answer_is_missing_is_free_for_its_worker() -> None:
    async def main() -> None:
        async with three_are_due() as backend:
            assert backend._session is not None
            sent: list[asyncio.Future[list[int]]] = []

            def lose(send: Callable[[], Any]) -> asyncio.Future[list[int]]:
                sent.append(send())
                return failed(OutcomeUnknown("no answer"))

            undo = exchange(backend, lose)
            assert await claimed(backend) == {"a", "z"}
            undo()
            await sent[0]
            again: list[Claim] = []

            async def look() -> bool:
                again.extend(await due(backend))
                return bool(again)

            await until(look, within=20)
            (claim,) = again  # before any lease has ended
            assert claim.job.id == "slow"
            assert occurrence_of(claim).attempts == 0
            assert not backend._session.live.unconfirmed

    asyncio.run(main())


def test_a_claim_that_was_written_at_the_second_try_is_no_orphan() -> None:
    async def main() -> None:
        async with three_are_due() as backend:
            assert backend._session is not None

            def lose(_: Callable[[], Any]) -> asyncio.Future[list[int]]:
                return failed(OutcomeUnknown("no answer, and nothing was stored"))

            undo = exchange(backend, lose)
            assert await claimed(backend) == {"a", "z"}
            undo()

            async def look() -> bool:
                return await claimed(backend) == {"slow"}

            await until(look, within=20)
            stored = await backend._session.reader.read_leader(SLOW)
            assert isinstance(stored.content, Record)
            assert not backend._session.live.is_unconfirmed(SLOW, stored.content.hold)

    asyncio.run(main())


def test_a_claim_that_was_handed_out_is_no_orphan_when_its_first_try_is_given_up() -> None:
    async def main() -> None:
        async with three_are_due() as backend:
            session = backend._session
            assert session is not None
            kept = Kept()
            undo = exchange(backend, kept)
            assert await claimed(backend) == {"a", "z"}
            undo()
            # Its hint is delivered again before the first try is decided.
            session.hints.put(
                Hint(SLOW, session.clock.now(), await session.reader.read_leader(SLOW))
            )
            (claim,) = await due(backend)
            assert claim.job.id == "slow"
            kept.give_up()
            until_then = time.monotonic() + 1.5
            while time.monotonic() < until_then:
                assert await claimed(backend) == set(), "it was taken from its own worker"
                await asyncio.sleep(0.1)
            assert len(await renewed(backend, claim)) == 1

    asyncio.run(main())


def test_claims_are_not_lost_with_one_that_cannot_be_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def main() -> None:
        async with three_are_due() as backend:
            assert backend._session is not None
            one = backend._session.reader.read_leader

            def refuse(_: Callable[[], Any]) -> asyncio.Future[list[int]]:
                return failed(RevisionMismatch("a record has changed"))

            async def unreadable(token: str) -> StoredRecord:
                if token == SLOW:
                    raise BackendUnavailable("no answer")
                return await one(token)

            undo = exchange(backend, refuse)
            monkeypatch.setattr(backend._session.reader, "read_leader", unreadable)
            assert await claimed(backend) == {"a", "z"}
            undo()
            monkeypatch.undo()

            async def look() -> bool:
                return await claimed(backend) == {"slow"}

            await until(look, within=20)

    asyncio.run(main())


def test_claims_are_not_lost_when_the_next_ones_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        async with three_are_due() as backend:
            assert backend._session is not None
            session, real = backend._session, Claims._claim
            calls: list[int] = []

            async def claim(self: Claims, found: Any) -> Any:
                calls.append(len(found))
                if len(calls) == 2:
                    raise BackendUnavailable("no answer")
                claims = await real(self, found[:2])
                for hint in found[2:]:
                    session.hints.put(hint)
                return claims

            monkeypatch.setattr(Claims, "_claim", claim)
            assert len(await claimed(backend)) == 2
            assert calls == [3, 1]

    asyncio.run(main())
