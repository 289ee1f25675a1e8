"""Runs that may kill their process: what begins while they run, and what the store knows."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import anyio
import pytest
from tests.core.running import Faulty, executions_of, run, running, seconds, until

from sched_core import (
    BackendUnavailable,
    Hold,
    Interval,
    JobEvent,
    JobSpec,
    MemoryBackend,
    MemoryStore,
    Once,
    Policy,
    Room,
    Scheduler,
    Status,
)
from sched_core._rules import operate
from sched_core._runtime import quarantine
from sched_core.testing import EPOCH, FakeClock

LEASE = seconds(30)
SUSPECT = Policy(max_lost=2)
"""One lost claim leaves one."""


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> float:
    """Let the quarantine last for less than half a minute; return how many seconds."""
    monkeypatch.setattr(quarantine, "QUARANTINE", seconds(0.25))
    return 0.25


class Place:
    """A store with jobs that have lost all their claims but one, and handlers to let go by hand."""

    def __init__(self) -> None:
        self.clock, self.store = FakeClock(), MemoryStore()
        self.begun: list[str] = []
        self.ended: list[str] = []
        self.alongside: list[tuple[str, ...]] = []
        """The other runs that were under way, at each beginning."""
        self.held: set[str] = set()
        """The ids of jobs whose handlers do not end."""

    async def handle(self, event: JobEvent) -> None:
        self.alongside.append(tuple(sorted(set(self.begun) - set(self.ended))))
        self.begun.append(event.id)
        while event.id in self.held:  # noqa: ASYNC110 -- the test may say so at any time
            await anyio.sleep(0.005)
        self.ended.append(event.id)

    def hold(self, job_id: str) -> Hold | None:
        return self.store.row(job_id).hold

    def is_alone(self, job_id: str) -> bool:
        """Whether the store knows that nothing runs at the same time as the job."""
        hold = self.hold(job_id)
        return hold is not None and hold.alone_at is not None

    async def submit(self, *job_ids: str, policy: Policy | None = None) -> None:
        async with Scheduler(MemoryBackend(self.store, lease=LEASE), clock=self.clock) as scheduler:
            for job_id in job_ids:
                at = Once(self.clock.now())
                await scheduler.submit_job(job_id, at, policy=policy or Policy())

    async def suspect(self, *job_ids: str) -> None:
        """Add jobs whose worker has died with them, so that they are due now."""
        await self.submit(*job_ids, policy=SUSPECT)
        for worker in ("dead", "next"):
            backend = MemoryBackend(self.store, lease=LEASE)
            await backend.open(self.clock, worker=worker)
            assert len((await backend.claim_due(Room(99))).claims) == len(job_ids) * (
                worker == "dead"
            )
            await backend.close()
            self.clock.advance(LEASE if worker == "dead" else seconds(1))

    def running(self, backend: Any = None, **options: Any) -> Any:
        backend = backend or MemoryBackend(self.store, lease=LEASE)
        return running(backend, self.handle, clock=self.clock, **options)


async def a_while() -> None:
    """Let whatever would begin do so."""
    for _ in range(10):
        await anyio.sleep(0.005)


def test_nothing_begins_while_it_runs_and_the_store_knows(loop: str) -> None:
    async def main() -> None:
        place = Place()
        await place.suspect("suspect")
        place.held = {"suspect"}
        async with place.running() as scheduler:
            await until(lambda: place.begun)
            assert place.is_alone("suspect")
            await scheduler.submit_job("other", Once(place.clock.now()))
            await a_while()
            assert place.begun == ["suspect"]
            assert place.hold("other") is None, "another process may run it"
            place.held.clear()
            await until(lambda: place.ended == ["suspect", "other"])
            assert not place.is_alone("other")

    run(loop, main)


def test_it_waits_for_what_was_claimed_with_it(loop: str) -> None:
    async def main() -> None:
        place = Place()
        await place.suspect("suspect")
        await place.submit("one", "two")
        place.held = {"one", "two", "suspect"}
        async with place.running():
            await until(lambda: len(place.begun) == 2)
            place.held.remove("one")
            await a_while()
            assert "suspect" not in place.begun
            place.held.remove("two")
            await until(lambda: "suspect" in place.begun)
            assert place.alongside[-1] == ()
            assert place.is_alone("suspect")
            place.held.clear()
            await until(lambda: len(place.ended) == 3)

    run(loop, main)


def test_if_another_run_does_not_end_it_is_called_and_is_not_alone(loop: str, short: float) -> None:
    async def main() -> None:
        place = Place()
        await place.suspect("suspect")
        await place.submit("long")
        place.held = {"long", "suspect"}
        async with place.running():
            began = anyio.current_time()
            await until(lambda: "suspect" in place.begun)
            assert anyio.current_time() - began >= short
            assert place.alongside[-1] == ("long",)
            assert not place.is_alone("suspect")
            place.held.clear()
            await until(lambda: len(place.ended) == 2)

    run(loop, main)


def test_others_are_held_up_for_so_long_and_begin_when_the_store_knows(
    loop: str, short: float
) -> None:
    async def main() -> None:
        place = Place()
        await place.suspect("suspect")
        place.held = {"suspect"}
        backend = Faulty(MemoryBackend(place.store, lease=LEASE))
        async with place.running(backend) as scheduler:
            await until(lambda: place.begun)
            began = anyio.current_time()
            await scheduler.submit_job("other", Once(place.clock.now()))
            backend.failures["renew"] = BackendUnavailable("away")
            await anyio.sleep(3 * short)
            assert place.begun == ["suspect"], "its loss would count as its own still"
            assert place.is_alone("suspect")
            del backend.failures["renew"]
            await until(lambda: "other" in place.begun)
            assert anyio.current_time() - began >= short
            assert not place.is_alone("suspect")
            place.held.clear()
            await until(lambda: len(place.ended) == 2)

    run(loop, main)


def test_several_come_one_after_the_other_and_others_in_between(loop: str, short: float) -> None:
    async def main() -> None:
        place = Place()
        suspects = [f"suspect-{number}" for number in range(3)]
        await place.suspect(*suspects)
        async with place.running() as scheduler:
            while len(place.ended) < 3:
                name = f"other-{len(place.begun)}"
                if name not in place.begun and len(place.begun) < 20:
                    await scheduler.ensure_job(name, Once(place.clock.now()))
                await anyio.sleep(0.01)
            await until(lambda: set(suspects) <= set(place.ended))
        alongside = dict(zip(place.begun, place.alongside, strict=True))
        assert [alongside[each] for each in suspects] == [()] * 3
        assert sorted(each for each in place.begun if each in suspects) == suspects
        assert set(place.begun) - set(suspects), "others were not held up until all had ended"

    run(loop, main)


def test_run_due_runs_suspects_and_all_others(loop: str) -> None:
    async def main() -> None:
        place = Place()
        await place.suspect("a", "b")
        others = [f"other-{number}" for number in range(30)]
        await place.submit(*others)
        backend = MemoryBackend(place.store, lease=LEASE)
        async with Scheduler(
            backend, handler=place.handle, clock=place.clock, max_concurrency=5
        ) as scheduler:
            assert await scheduler.run_due() == 32
            found = await executions_of(scheduler)
            finals = {each.job_id: each.status for each in found if each.final}
            assert finals == dict.fromkeys(["a", "b", *others], Status.SUCCEEDED)
            assert (await scheduler.health()).unsettled == 0

    run(loop, main)


@pytest.mark.parametrize("phase", ["waits", "is told of"])
def test_a_stop_gives_back_what_has_not_begun(phase: str, loop: str) -> None:
    async def main() -> None:
        place = Place()
        await place.suspect("suspect")
        backend = Faulty(MemoryBackend(place.store, lease=LEASE))
        if phase == "waits":
            await place.submit("long")
            place.held = {"long"}
        else:
            backend.hangs.add("renew")
        async with place.running(backend) as scheduler:
            await until(lambda: place.hold("suspect"))
            await until(lambda: "long" in place.begun if place.held else backend.calls.get("renew"))
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(scheduler.stop, 5)
                await until(lambda: place.hold("suspect") is None)
                place.held.clear()
                backend.hangs.clear()
            assert "suspect" not in place.begun
            found = await executions_of(scheduler, "suspect")
            assert [each.status for each in found] == [Status.ABANDONED]
        place.clock.advance(seconds(1))
        async with place.running():
            await until(lambda: "suspect" in place.ended)

    run(loop, main)


def test_one_that_is_cancelled_while_it_waits_is_not_called(loop: str) -> None:
    async def main() -> None:
        place = Place()
        await place.suspect("suspect")
        await place.submit("long")
        place.held = {"long"}
        backend = MemoryBackend(place.store, lease=LEASE)
        async with place.running(backend) as scheduler:
            await until(lambda: "long" in place.begun and place.hold("suspect"))
            job = await scheduler.get_job("suspect")
            await backend.replace(operate.cancel(job, now=place.clock.now()))
            before = place.hold("suspect")
            place.clock.advance(LEASE / 3)
            await until(lambda: place.hold("suspect") != before)  # renewed, and told so
            place.held.clear()
            await until(lambda: place.hold("suspect") is None)

            async def ended() -> Sequence[Status]:
                found = await executions_of(scheduler, "suspect")
                return [each.status for each in found] if found[-1].final else []

            assert await until(ended) == [Status.ABANDONED, Status.CANCELLED]
        assert "suspect" not in place.begun

    run(loop, main)


@pytest.mark.parametrize("guilty", [True, False])
def test_only_what_is_lost_alone_ends(guilty: bool, loop: str, short: float) -> None:
    """Two workers in turn: the first one dies with what it runs."""

    async def main() -> None:
        place = Place()
        await place.suspect("suspect")
        place.held = {"suspect", "long"}
        if not guilty:
            await place.submit("long")
        dying = Faulty(MemoryBackend(place.store, lease=LEASE))
        async with anyio.create_task_group() as tasks:

            async def die() -> None:
                async with place.running(dying, grace=0):
                    await anyio.sleep_forever()

            tasks.start_soon(die)
            await until(lambda: "suspect" in place.begun)
            dying.hangs |= {"renew", "settle", "release", "claim_due"}
            place.clock.advance(LEASE)
            next_one = MemoryBackend(place.store, lease=LEASE)
            async with Scheduler(next_one, clock=place.clock, handler=place.handle) as scheduler:
                place.held.clear()
                for _ in range(5):
                    await scheduler.run_due()
                    place.clock.advance(seconds(1))
                found = await executions_of(scheduler, "suspect")
                ended = [each.status for each in found]
                lost = [Status.ABANDONED, Status.ABANDONED]
                assert ended == [*lost, Status.FAILED if guilty else Status.SUCCEEDED]
                if guilty:
                    assert found[-1].reason == "lost: 2 claims in a row were never settled"
                else:
                    (*_, long) = await executions_of(scheduler, "long")
                    assert (long.status, long.attempt) == (Status.SUCCEEDED, 2)
            dying.hangs.clear()
            tasks.cancel_scope.cancel()

    run(loop, main)


def test_where_one_lost_claim_is_the_last_nothing_is_set_apart(loop: str) -> None:
    async def main() -> None:
        place = Place()
        await place.submit("a", "b", policy=Policy(max_lost=1))
        place.held = {"a", "b"}
        async with place.running():
            await until(lambda: len(place.begun) == 2)
            assert not place.is_alone("a")
            place.held.clear()
            await until(lambda: len(place.ended) == 2)

    run(loop, main)


def test_a_suspect_that_repeats_goes_on_as_before(loop: str) -> None:
    """A success ends the row of lost claims."""

    async def main() -> None:
        place = Place()
        async with Scheduler(
            MemoryBackend(place.store, lease=LEASE), clock=place.clock
        ) as scheduler:
            minutely = Interval(minutes=1, start=EPOCH)
            await scheduler.submit_jobs([JobSpec("suspect", minutely, policy=SUSPECT)])
        dead = MemoryBackend(place.store, lease=LEASE)
        await dead.open(place.clock, worker="dead")
        assert (await dead.claim_due(Room(9))).claims
        await dead.close()
        place.clock.advance(LEASE)
        async with Scheduler(
            MemoryBackend(place.store, lease=LEASE), handler=place.handle, clock=place.clock
        ) as scheduler:
            await scheduler.run_due()
            for _ in range(3):
                place.clock.advance(timedelta(minutes=1))
                assert await scheduler.run_due() >= 1
            one = (await scheduler.get_job("suspect")).standing.scheduled
            assert one is not None
            assert one.lost == 0

    run(loop, main)
