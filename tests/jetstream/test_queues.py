"""Queues and refused jobs in real time: hints come to whoever takes them, and to no one else."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import nats
import pytest
from attrs import evolve
from tests.core.running import until
from tests.nats_shared import delete_streams, shared_server

from sched_core import (
    CancelMark,
    Claim,
    Job,
    JobSpec,
    Once,
    Pending,
    Progress,
    Renewal,
    Room,
    Standing,
    SystemClock,
)
from sched_jetstream import JetStreamBackend
from sched_jetstream._model.record import Record
from sched_jetstream._model.record_codec import encode
from sched_jetstream._runtime import cancels, offers
from sched_jetstream._runtime.acknowledgements import Acknowledgements
from sched_jetstream._store.wire import Wire
from sched_testkit._suite.builders import success_of

BUCKET = "queues"
LEASE = timedelta(seconds=2)
NEVER = 3600.0
"""Seconds: within a test, nothing that waits for so long."""


@pytest.fixture(autouse=True)
def fresh() -> Any:
    yield
    delete_streams(shared_server().url, f"KV_{BUCKET}", f"KV_{BUCKET}-lines")


@pytest.fixture
def only_offers(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a worker refuses does not come again by itself."""
    monkeypatch.setattr(offers, "FIRST", NEVER)
    monkeypatch.setattr(offers, "LONGEST", NEVER)


@asynccontextmanager
async def opened(worker: str, **settings: Any) -> AsyncIterator[JetStreamBackend]:
    backend = JetStreamBackend(
        shared_server().url,
        job_bucket=BUCKET,
        execution_bucket=f"{BUCKET}-lines",
        **({"lease": LEASE, "reconcile_interval": timedelta(hours=1)} | settings),
    )
    await backend.open(SystemClock(), worker=worker)
    try:
        yield backend
    finally:
        await backend.close()


def now(ahead: float = 0.0) -> datetime:
    return datetime.now(UTC) + timedelta(seconds=ahead)


def job(job_id: str, queue: str = "default", *, ahead: float = 0.0) -> Job:
    due = now(ahead)
    spec = JobSpec(job_id, Once(due), queue=queue)
    standing = Standing(1, Pending(1, due, due), due)
    return Job(spec, secrets.token_hex(6), False, due, standing)


class Taker:
    """Claims what its room takes, as a worker does, and holds it."""

    def __init__(
        self,
        backend: JetStreamBackend,
        queues: Mapping[str, int] | None = None,
        *,
        accepts: Any = None,
    ) -> None:
        self.backend, self.queues, self.accepts = backend, queues, accepts
        self.claims: dict[str, Claim] = {}
        self.waits = 0
        self._task: asyncio.Task[None] | None = None

    def _room(self) -> Room:
        if self.queues is None:
            return Room(100, None, self.accepts)
        left = {
            lane: most - sum(claim.job.spec.queue == lane for claim in self.claims.values())
            for lane, most in self.queues.items()
        }
        return Room(100, left, self.accepts)

    async def _run(self) -> None:
        while True:
            for claim in (await self.backend.claim_due(self._room())).claims:
                self.claims[claim.job.id] = claim
            self.waits += 1
            await self.backend.wait_due(self._room())

    async def __aenter__(self) -> Taker:
        self._task = asyncio.create_task(self._run())
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._task is not None
        self._task.cancel()
        await asyncio.wait([self._task])
        if not self._task.cancelled():
            self._task.result()

    async def has(self, *ids: str) -> None:
        await until(lambda: set(ids) <= self.claims.keys(), within=20)


def refuses(_: str) -> bool:
    return False


# -- queues ------------------------------------------------------------------


def test_each_queue_comes_to_the_workers_that_serve_it() -> None:
    async def main() -> None:
        async with (
            opened("one") as one,
            opened("two") as two,
            Taker(one, {"alerts": 9, "default": 9}) as urgent,
            Taker(two, {"bulk": 9, "a.b *": 9}) as heavy,
        ):
            await one.add([job("a1", "alerts"), job("b1", "bulk"), job("d1"), job("x", "a.b *")])
            await two.add([job("a2", "alerts", ahead=2), job("b2", "bulk", ahead=2)])
            await urgent.has("a1", "a2", "d1")
            await heavy.has("b1", "b2", "x")
            assert len(urgent.claims) == len(heavy.claims) == 3
            assert max(urgent.waits, heavy.waits) < 20, "a worker turned round and round"

    asyncio.run(main())


def test_older_hints_without_a_queue_are_of_the_default_one() -> None:
    async def main() -> None:
        async with opened("one") as one, Taker(one, {"default": 9}) as taker:
            await one.add([job("first")])
            await taker.has("first")
            (stored,) = await one.add([job("job", ahead=60)])
            assert one._session is not None
            found = await one._session.reader.read_leader("job")
            due = evolve(stored.standing, due_at=now(), scheduled=Pending(1, now(), now()))
            edited = Record("job", evolve(stored, standing=due), found.record("job").definition)
            client = await nats.connect(shared_server().url)
            await client.jetstream().publish(f"$KV.{BUCKET}.job", encode(edited))
            await client.jetstream().publish(f"sched.{BUCKET}.fire.job", b"")
            await client.close()
            await taker.has("job")

    asyncio.run(main())


@pytest.mark.usefixtures("only_offers")
@pytest.mark.parametrize("ahead", [-1.0, 3.0])
@pytest.mark.parametrize("served", [True, False], ids=["served", "left"])
def test_a_job_that_is_moved_comes_to_the_workers_of_its_new_queue(
    ahead: float, served: bool
) -> None:
    """Whether or not a worker of its old queue still runs, to offer it."""

    async def main() -> None:
        async with opened("one") as one, opened("two") as two:
            (stored,) = await one.add([job("job", "old", ahead=ahead)])
            moved = await one.replace(evolve(stored, spec=evolve(stored.spec, queue="new")))
            assert moved.spec.queue == "new"
            old = Taker(one, {"old": 9})
            async with old if served else Taker(one, {"none": 1}), Taker(two, {"new": 9}) as new:
                await new.has("job")
                assert not old.claims

    asyncio.run(main())


def test_what_nobody_serves_waits_for_whoever_comes() -> None:
    async def main() -> None:
        async with opened("one") as one, Taker(one, {"alerts": 9}) as taker:
            await one.add([job("mine", "alerts"), job("other", "bulk")])
            await taker.has("mine")
            await one.reconcile()
            await asyncio.sleep(1)
            assert taker.waits < 10, "a worker turned round and round"
            for queues in ({"bulk": 1}, None):
                async with opened("late") as late, Taker(late, queues) as latecomer:
                    await latecomer.has("other")
                    await late.release(list(latecomer.claims.values()))
            assert list(taker.claims) == ["mine"]

    asyncio.run(main())


def test_hints_of_a_queue_without_room_go_to_workers_that_have_some() -> None:
    """Also where the worker that has them goes on waiting for another queue."""

    async def main() -> None:
        ids = [f"bulk{n}" for n in range(20)]
        minute = timedelta(minutes=1)
        async with (
            opened("one", lease=minute) as one,
            opened("two", lease=minute) as two,
            Taker(one, {"bulk": 1, "alerts": 1}) as full,
        ):
            await asyncio.sleep(0.2)  # it waits, and gets all that come
            await one.add([job(each, "bulk", ahead=1) for each in ids])
            await until(lambda: bool(full.claims), within=20)
            async with Taker(two, {"bulk": 100}) as free:
                await until(lambda: len(free.claims) == 19, within=20)
            assert len(full.claims) == 1
            await one.add([job("alert", "alerts")])
            await full.has("alert")

    asyncio.run(main())


def test_a_full_queue_that_is_named_does_not_hide_the_rest(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Nor do its hints go to and fro: among all hints, they come again after a time."""
    postponed = 0
    postpone = Acknowledgements.postpone

    def counted(self: Acknowledgements, reply: str, delay: timedelta) -> None:
        nonlocal postponed
        postponed += 1
        postpone(self, reply, delay)

    monkeypatch.setattr(Acknowledgements, "postpone", counted)

    async def main() -> None:
        async with opened("one") as one:
            await one.add([job(f"bulk{n}", "bulk") for n in range(300)])
            await one.add([job("other", "any")])
            async with Taker(one, {"bulk": 1, "*": 5}) as taker:
                await taker.has("other")
                await asyncio.sleep(1.5)
                assert postponed < 1000
                async with opened("two") as two, Taker(two) as all_queues:
                    await until(lambda: len(all_queues.claims) >= 50, within=20)
                    assert "other" not in all_queues.claims

    asyncio.run(main())


def test_the_end_of_a_lost_claim_needs_no_worker_of_its_queue() -> None:
    async def main() -> None:
        async with opened("one") as one:
            async with opened("dead") as dead:
                await dead.add([job("lost", "bulk")])
                async with Taker(dead, {"bulk": 1}) as taker:
                    await taker.has("lost")
            ended: list[str] = []

            async def has_ended() -> bool:
                await one.reconcile()
                claimed = await one.claim_due(Room(1, {"alerts": 1}))
                ended.extend(each.job_id for each in claimed.lapsed)
                return bool(ended)

            await until(has_ended, within=20)
            assert ended == ["lost"]

    asyncio.run(main())


# -- jobs that one worker refuses --------------------------------------------


@pytest.mark.usefixtures("only_offers")
def test_what_one_worker_refuses_comes_to_another_at_once() -> None:
    async def main() -> None:
        async with (
            opened("no") as no,
            opened("nor") as nor,
            opened("yes") as yes,
            Taker(no, accepts=refuses) as one,
            Taker(nor, accepts=refuses) as two,
            Taker(yes, accepts=lambda job_id: job_id.startswith("job")) as three,
        ):
            ids = [f"job{n}" for n in range(30)]
            for each in ids:
                await no.add([job(each), job(f"other {each} é")])
            await three.has(*ids)
            assert len(three.claims) == 30
            assert not one.claims
            assert not two.claims
            assert max(one.waits, two.waits) < 90, "a refused job woke its worker again and again"

    asyncio.run(main())


@pytest.mark.usefixtures("only_offers")
def test_a_worker_that_begins_is_told_what_the_others_refuse() -> None:
    async def main() -> None:
        async with opened("no") as no, Taker(no, accepts=refuses):
            await no.add([job(f"job{n}") for n in range(20)])
            assert no._session is not None
            refused = no._session.hints.offers._refused
            await until(lambda: len(refused) == 20, within=20)
            async with opened("yes") as yes, Taker(yes) as taker:
                await until(lambda: len(taker.claims) == 20, within=20)

    asyncio.run(main())


@pytest.mark.usefixtures("only_offers")
def test_a_wait_that_is_cancelled_loses_no_offer() -> None:
    """The record of what was offered is read in the wait."""

    async def main() -> None:
        async with opened("no") as no, Taker(no, accepts=refuses):
            await no.add([job("job")])
            assert no._session is not None
            refused = no._session.hints.offers._refused
            await until(lambda: len(refused) == 1, within=20)
            async with opened("yes") as yes:
                assert yes._session is not None
                reader = yes._session.reader
                read_any, reading = reader.read_any, asyncio.Event()

                async def stall(*_: Any, **__: Any) -> Any:
                    reading.set()
                    await asyncio.Event().wait()

                reader.read_any = stall  # type: ignore[method-assign]
                waiting = asyncio.create_task(yes.wait_due(Room(5)))
                await asyncio.wait_for(reading.wait(), 20)
                waiting.cancel()
                await asyncio.wait([waiting])
                reader.read_any = read_any  # type: ignore[method-assign]
                async with Taker(yes) as taker:
                    await taker.has("job")

    asyncio.run(main())


@pytest.mark.usefixtures("only_offers")
def test_a_worker_that_gets_a_route_takes_what_it_has_refused() -> None:
    async def main() -> None:
        async with opened("one") as one, Taker(one, accepts=refuses) as taker:
            await one.add([job("job"), job("another")])
            assert one._session is not None
            refused = one._session.hints.offers._refused
            await until(lambda: len(refused) == 2, within=20)
            taker.accepts = lambda job_id: job_id != "other"
            await one.add([job("other")])
            await taker.has("job", "another")
            assert "other" not in taker.claims

    asyncio.run(main())


def test_an_offer_that_is_lost_is_made_up_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(offers, "FIRST", 0.2)
    monkeypatch.setattr(offers, "LONGEST", 0.2)
    send, lost = Wire.send, 0

    async def lose(self: Wire, subject: str, *args: Any, **options: Any) -> None:
        nonlocal lost
        if subject.endswith((".offer", ".ask")):
            lost += 1
        else:
            await send(self, subject, *args, **options)

    monkeypatch.setattr(Wire, "send", lose)

    async def main() -> None:
        async with opened("no") as no, Taker(no, accepts=refuses):
            await no.add([job(f"job{n}") for n in range(5)])
            await until(lambda: lost > 1, within=20)
            async with opened("yes") as yes, Taker(yes) as taker:
                await until(lambda: len(taker.claims) == 5, within=20)

    asyncio.run(main())


def test_refused_hints_come_again_less_and_less_often(monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker alone with what it refuses reads each record again after a time that grows."""
    delays: list[float] = []
    monkeypatch.setattr(offers, "FIRST", 0.1)
    monkeypatch.setattr("random.uniform", lambda *_: 1.0)
    postpone = Acknowledgements.postpone

    def noted(self: Any, reply: str, delay: timedelta) -> None:
        delays.append(delay.total_seconds())
        postpone(self, reply, delay)

    monkeypatch.setattr(Acknowledgements, "postpone", noted)

    async def main() -> None:
        async with opened("no") as no, Taker(no, accepts=refuses):
            await no.add([job("job")])
            await until(lambda: len(delays) >= 4, within=20)

    asyncio.run(main())
    assert delays[:4] == [0.1, 0.2, 0.4, 0.8]


def test_hints_that_are_no_use_are_forgotten_also_where_they_were_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The hint of a job that was removed meanwhile does not go round for ever."""
    monkeypatch.setattr(offers, "FIRST", 0.3)

    async def main() -> None:
        async with opened("no") as no, Taker(no, accepts=refuses):
            (stored,) = await no.add([job("job")])
            assert no._session is not None
            refused = no._session.hints.offers._refused
            await until(lambda: len(refused) == 1, within=20)
            await no.remove(stored)
            await until(lambda: not refused, within=20)

    asyncio.run(main())


def test_a_message_that_makes_no_sense_is_passed_over() -> None:
    async def main() -> None:
        async with opened("one") as one, Taker(one) as taker:
            client = await nats.connect(shared_server().url)
            bodies = (b"", b"[]", b'{"from":1}', b'{"from":"x","jobs":[["default","*"],["a"]]}')
            for body in (*bodies, b'{"from":"x","jobs":[["default","a.>"],["default","none"]]}'):
                await client.publish(f"sched.{BUCKET}-signals.offer", body)
                await client.publish(f"sched.{BUCKET}-signals.ask", body)
            await client.flush()
            await client.close()
            await one.add([job("job")])
            await taker.has("job")

    asyncio.run(main())


def test_the_consumer_of_a_queue_is_made_again() -> None:
    async def main() -> None:
        async with opened("one") as one, Taker(one, {"bulk": 9}) as taker:
            await one.add([job("before", "bulk")])
            await taker.has("before")
            client = await nats.connect(shared_server().url)
            await client.jetstream().delete_consumer(f"KV_{BUCKET}", "workers-queue-bulk")
            await client.close()
            await one.add([job("after", "bulk")])
            await taker.has("after")

    asyncio.run(main())


# -- cancels -----------------------------------------------------------------


async def marked(backend: JetStreamBackend, job_id: str) -> None:
    stored = await backend.get(job_id)
    assert isinstance(stored, Job)
    standing = evolve(stored.standing, cancels=(CancelMark(1),))
    await backend.replace(evolve(stored, standing=standing))


def test_the_holder_of_a_marked_claim_is_woken() -> None:
    async def main() -> None:
        async with opened("holder", lease=timedelta(minutes=5)) as holder, opened("other") as other:
            await holder.add([job("a"), job("b")])
            async with Taker(holder) as taker:
                await taker.has("a", "b")
            waiting = asyncio.create_task(holder.wait_cancelled())
            deaf = asyncio.create_task(other.wait_cancelled())
            await marked(other, "a")
            assert await waiting
            renewed = await holder.renew([*map(Renewal, taker.claims.values())])
            assert {claim.job.id: claim.cancel for claim in renewed} == {"a": True, "b": False}
            await marked(holder, "b")  # between two calls, and by the holder itself
            assert await holder.wait_cancelled()
            assert not deaf.done(), "a worker was woken for the claim of another one"
            deaf.cancel()

    asyncio.run(main())


def test_without_a_mark_nobody_is_woken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cancels, "MAX_POLL", timedelta(seconds=0.5))

    async def main() -> None:
        async with opened("holder") as holder, opened("other") as other:
            await holder.add([job("a")])
            async with Taker(holder) as taker:
                await taker.has("a")
            stored = await other.get("a")
            assert isinstance(stored, Job)
            await other.replace(evolve(stored, spec=evolve(stored.spec, name="another")))
            assert not await holder.wait_cancelled()
            await holder.settle([success_of(taker.claims["a"], now())])
            assert not await holder.wait_cancelled()
            assert not await other.wait_cancelled()

    asyncio.run(main())


# -- renewals ----------------------------------------------------------------


def test_a_renewal_brings_the_progress() -> None:
    async def main() -> None:
        async with opened("one") as one:
            await one.add([job("a", "bulk")])
            async with Taker(one) as taker:
                await taker.has("a")
            claim, half = taker.claims["a"], Progress(1, 2, "half", now())
            await one.renew([Renewal(claim, progress=half)])
            await one.renew([Renewal(claim)])
            assert one._session is not None
            found = (await one._session.reader.read_leader("a")).content
            assert isinstance(found, Record)
            assert found.hold is not None
            assert (found.hold.progress, found.hold.queue) == (half, "bulk")

    asyncio.run(main())
