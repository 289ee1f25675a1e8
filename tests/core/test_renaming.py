"""Jobs of a set get another id and keep their work, wherever the move is interrupted."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import anyio
import pytest
from attrs import evolve

from sched_core import (
    Execution,
    Interval,
    InvalidDefinition,
    Job,
    JobEvent,
    JobNotFound,
    JobRouter,
    JobSpec,
    MemoryBackend,
    MemoryStore,
    Once,
    Pause,
    Scheduler,
    State,
    Status,
)
from sched_core._service import definitions
from sched_core.testing import FakeClock, RecordingHandler, history

HOURLY = Interval(hours=1)
RENAMED = {"new": "old"}


class Cut(Exception):
    """The process ends here."""


class CutOff(MemoryBackend):
    """Ends the process before one call."""

    cut = ""

    async def remove(self, job: Job, executions: Sequence[Execution] = ()) -> None:
        if self.cut == "before the removal":
            raise Cut
        await super().remove(job, executions)

    async def replace(self, job: Job, executions: Sequence[Execution] = ()) -> Job:
        if self.cut == "after the removal":
            raise Cut
        return await super().replace(job, executions)


def scheduler(store: MemoryStore, clock: FakeClock, handler: Any, cut: str = "") -> Scheduler:
    backend = CutOff(store)
    backend.cut = cut
    return Scheduler(backend, handler=handler, clock=clock)


async def declare(store: MemoryStore, clock: FakeClock) -> tuple[Job, str]:
    """Declare the job under its old id, let its moment pass, and ask for one more run."""
    async with scheduler(store, clock, RecordingHandler()) as declared:
        await declared.sync_jobs([JobSpec("old", HOURLY)], group="shop")
        clock.advance(minutes=61)
        key = await declared.trigger_job("old")
        return await declared.get_job("old"), key


async def rename(declared: Scheduler) -> None:
    await declared.sync_jobs([JobSpec("new", HOURLY)], group="shop", renamed_from=RENAMED)


@pytest.mark.parametrize("cut", ["", "before the removal", "after the removal"])
def test_a_renamed_job_keeps_what_is_due_and_what_was_asked_for(cut: str) -> None:
    async def main() -> None:
        store, clock, handler = MemoryStore(), FakeClock(), RecordingHandler()
        old, key = await declare(store, clock)
        if cut:
            async with scheduler(store, clock, handler, cut) as declared:
                with pytest.raises(Cut):
                    await rename(declared)
        async with scheduler(store, clock, handler) as declared:
            await rename(declared)
            assert [job.id async for job in declared.list_jobs()] == ["new"]
            await declared.run_due()
            await rename(declared)
            await declared.run_due()
        assert [(event.id, event.key) for event in handler.events] == [
            ("new", f"{old.uid}:1"),
            ("new", key),
        ]

    anyio.run(main)


def test_nothing_runs_while_it_is_on_its_way() -> None:
    async def main() -> None:
        store, clock, handler = MemoryStore(), FakeClock(), RecordingHandler()
        await declare(store, clock)
        async with scheduler(store, clock, handler, "after the removal") as declared:
            with pytest.raises(Cut):
                await rename(declared)
        async with scheduler(store, clock, handler) as other:
            await other.run_due()
            assert handler.events == []

    anyio.run(main)


def test_nothing_is_done_to_it_while_it_is_on_its_way(monkeypatch: pytest.MonkeyPatch) -> None:
    """What became due there would run twice, and what was asked for would be written over."""
    monkeypatch.setattr(definitions, "TRIES", 1)

    async def main() -> None:
        store, clock, handler = MemoryStore(), FakeClock(), RecordingHandler()
        await declare(store, clock)
        async with scheduler(store, clock, handler, "before the removal") as declared:
            with pytest.raises(Cut):
                await rename(declared)
        async with scheduler(store, clock, handler) as other:
            for act in (
                other.trigger_job,
                other.pause_job,
                other.resume_job,
                other.skip_next,
                other.remove_job,
            ):
                with pytest.raises(JobNotFound):
                    await act("new")
            with pytest.raises(JobNotFound):
                await other.update_job("new", name="name")
            await other.run_due()
            assert {event.id for event in handler.events} == {"old"}
            assert len({event.key for event in handler.events}) == len(handler.events) == 2
            await rename(other)
            key = await other.trigger_job("new")
            await other.run_due()
            assert (handler.events[-1].id, handler.events[-1].key) == ("new", key)

    anyio.run(main)


@pytest.mark.parametrize("paused", [False, True])
def test_it_is_not_declared_while_the_original_is_there(
    monkeypatch: pytest.MonkeyPatch, *, paused: bool
) -> None:
    """Both would run, under the same keys."""
    monkeypatch.setattr(definitions, "TRIES", 1)

    async def main() -> None:
        store, clock, handler = MemoryStore(), FakeClock(), RecordingHandler()
        await declare(store, clock)
        async with scheduler(store, clock, handler, "before the removal") as declared:
            if paused:
                await declared.pause_job("old")
            with pytest.raises(Cut):
                await rename(declared)
        async with scheduler(store, clock, handler) as other:
            for act in (other.resume_job, other.trigger_job, other.remove_job):
                with pytest.raises(JobNotFound):
                    await act("new")
            with pytest.raises(JobNotFound):
                await other.ensure_job("new", HOURLY)
            await rename(other)
            job = await other.get_job("new")
            assert (job.spec.metadata, job.state is State.PAUSED) == ({}, paused)
            assert [job.id async for job in other.list_jobs()] == ["new"]

    anyio.run(main)


def test_it_is_declared_where_the_original_is_gone() -> None:
    """The process that renamed it ended just then."""

    async def main() -> None:
        store, clock, handler = MemoryStore(), FakeClock(), RecordingHandler()
        _, key = await declare(store, clock)
        async with scheduler(store, clock, handler, "after the removal") as declared:
            with pytest.raises(Cut):
                await rename(declared)
        async with scheduler(store, clock, handler) as other:
            job = await other.ensure_job("new", HOURLY)
            assert job.spec.metadata == {}
            await other.run_due()
            assert key in [event.key for event in handler.events]

    anyio.run(main)


def test_a_move_that_is_taken_back_leaves_all_to_the_old_id() -> None:
    """A deploy is rolled back after its sync was cut off."""

    async def main() -> None:
        store, clock, handler = MemoryStore(), FakeClock(), RecordingHandler()
        await declare(store, clock)
        async with scheduler(store, clock, handler, "before the removal") as declared:
            with pytest.raises(Cut):
                await rename(declared)
        async with scheduler(store, clock, handler) as other:
            synced = await other.sync_jobs([JobSpec("old", HOURLY)], group="shop")
            assert synced.removed == ("new",)
            await other.run_due()
            assert [job.id async for job in other.list_jobs()] == ["old"]
            found = await history(other)
            assert [(each.job_id, each.status) for each in found] == [
                ("old", Status.SUCCEEDED),
                ("old", Status.SUCCEEDED),
            ]

    anyio.run(main)


def test_what_is_asked_for_meanwhile_waits_until_it_has_arrived() -> None:
    async def main() -> None:
        store, clock, handler = MemoryStore(), FakeClock(), RecordingHandler()
        await declare(store, clock)
        async with scheduler(store, clock, handler, "before the removal") as declared:
            with pytest.raises(Cut):
                await rename(declared)
        async with scheduler(store, clock, handler) as other:
            keys: list[str] = []

            async def ask() -> None:
                keys.append(await other.trigger_job("new"))

            async with anyio.create_task_group() as tasks:
                tasks.start_soon(ask)
                await anyio.wait_all_tasks_blocked()
                assert keys == []
                await rename(other)
            await other.run_due()
            assert keys[0] in [event.key for event in handler.events]

    anyio.run(main)


def test_a_run_in_flight_ends_under_the_old_id() -> None:
    async def main() -> None:
        store, clock, seen = MemoryStore(), FakeClock(), list[str]()
        await declare(store, clock)

        async def handle(event: JobEvent) -> None:
            seen.append(event.id)
            if seen == ["old"]:
                async with scheduler(store, clock, RecordingHandler()) as other:
                    await rename(other)

        async with scheduler(store, clock, handle) as declared:
            await declared.run_due()
            await declared.run_due()
            found = [each async for each in declared.list_executions()]
        assert seen == ["old", "new"]
        assert {getattr(each, "status", None) for each in found} == {Status.SUCCEEDED}
        assert len({each.id for each in found}) == 2

    anyio.run(main)


def test_a_pause_and_a_changed_schedule_go_with_it() -> None:
    async def main() -> None:
        store, clock, handler = MemoryStore(), FakeClock(), RecordingHandler()
        async with scheduler(store, clock, handler) as declared:
            await declared.sync_jobs([JobSpec("old", HOURLY)], group="shop")
            paused = await declared.pause_job("old", reason="full")
            spec = JobSpec("new", Interval(hours=2))
            await declared.sync_jobs([spec], group="shop", renamed_from=RENAMED)
            job = await declared.get_job("new")
            assert job.state is State.PAUSED
            assert isinstance(paused.standing.pause, Pause)
            assert job.standing.pause == evolve(paused.standing.pause)
            assert job.spec.schedule == Interval(hours=2)
            with pytest.raises(JobNotFound):
                await declared.get_job("old")

    anyio.run(main)


def test_who_was_declared_meanwhile_stays() -> None:
    async def main() -> None:
        store, clock, handler = MemoryStore(), FakeClock(), RecordingHandler()
        await declare(store, clock)
        async with scheduler(store, clock, handler) as declared:
            await declared.ensure_job("new", HOURLY)
            await rename(declared)
            assert [job.id async for job in declared.list_jobs()] == ["new"]

    anyio.run(main)


def test_a_router_tells_earlier_ids() -> None:
    router = JobRouter(group="shop")

    @router.job("new", HOURLY, renamed_from="old")
    async def work(event: JobEvent) -> None:
        """Do nothing."""

    async def main() -> None:
        store, clock = MemoryStore(), FakeClock()
        old, _ = await declare(store, clock)
        async with scheduler(store, clock, router) as declared:
            assert (await declared.get_job("new")).uid == old.uid

    anyio.run(main)
    with pytest.raises(InvalidDefinition, match="group"):
        JobRouter().job("new", HOURLY, renamed_from="old")


@pytest.mark.parametrize(
    ("renamed_from", "text"),
    [
        ({"other": "old"}, "none of the set"),
        ({"new": "kept"}, "still in the set"),
        ({"new": "old", "kept": "old"}, "one job before"),
        ({"new": ""}, "empty"),
    ],
)
def test_a_rename_that_makes_no_sense_is_refused(renamed_from: dict[str, str], text: str) -> None:
    async def main() -> None:
        async with scheduler(MemoryStore(), FakeClock(), RecordingHandler()) as declared:
            specs = [JobSpec("new", Once(FakeClock().now())), JobSpec("kept", HOURLY)]
            with pytest.raises(InvalidDefinition, match=text) as raised:
                await declared.sync_jobs(specs, group="shop", renamed_from=renamed_from)
            assert raised.value.field == "renamed_from"

    anyio.run(main)
