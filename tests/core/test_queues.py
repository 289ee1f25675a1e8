"""Queues: which workers may take a job, and places that other queues cannot fill."""

from __future__ import annotations

import anyio
import pytest
from tests.core.running import Make, at_once, executions_of, run, running, statuses, until

from sched_core import (
    Handler,
    InvalidDefinition,
    JobEvent,
    JobSpec,
    MemoryBackend,
    Scheduler,
    Status,
)


@pytest.mark.parametrize(
    ("queues", "problem"),
    [
        ({}, "queues: must map names of queues"),
        (["bulk"], "queues: must map names of queues"),
        ({"bulk": 0}, r"queues\['bulk'\]: must be a whole number from 1 on, not 0"),
        ({"bulk": True}, r"queues\['bulk'\]: must be a whole number from 1 on, not True"),
        ({"bulk": 2.5}, r"queues\['bulk'\]: must be a whole number"),
        ({"": 1}, "queues: must not be empty"),
        ({7: 1}, "queues: must be a string, not 7"),
    ],
)
def test_what_are_no_queues_is_refused_by_name(queues: object, problem: str) -> None:
    with pytest.raises(InvalidDefinition, match=problem):
        Scheduler(MemoryBackend(), queues=queues)  # type: ignore[arg-type]  # on purpose


def test_the_numbers_of_queues_are_the_concurrency() -> None:
    with pytest.raises(InvalidDefinition, match="max_concurrency: the numbers of queues make 30"):
        Scheduler(MemoryBackend(), queues={"a": 10, "*": 20}, max_concurrency=100)
    Scheduler(MemoryBackend(), queues={"a": 10, "*": 20}, max_concurrency=30)


@pytest.mark.parametrize("queue", ["*", "", "a\n", "x" * 256])
def test_what_is_no_queue_of_a_job_is_refused_by_name(queue: str) -> None:
    with pytest.raises(InvalidDefinition, match="queue: must"):
        JobSpec("a", at_once(), queue=queue)


def test_a_full_queue_delays_no_other(loop: str, make: Make) -> None:
    """Bulk work fills its places, and waits; an alert that comes then runs at once."""

    async def main() -> None:
        opened, ran = anyio.Event(), list[str]()

        async def handle(event: JobEvent) -> None:
            ran.append(event.id)
            if event.id.startswith("bulk"):
                await opened.wait()

        async with running(make(), handle, queues={"alerts": 1, "bulk": 2}) as scheduler:
            for number in range(6):
                await scheduler.submit_job(f"bulk-{number}", at_once(), queue="bulk")
            await until(lambda: len(ran) == 2)
            await scheduler.submit_job("alert-1", at_once(), queue="alerts")
            await until(lambda: "alert-1" in ran)
            await scheduler.submit_job("alert-2", at_once(), queue="alerts")
            await until(lambda: "alert-2" in ran)
            assert ran[:2] == ["bulk-0", "bulk-1"]
            assert len(ran) == 4
            opened.set()
            await until(lambda: len(ran) == 8)

    run(loop, main)


def test_a_place_that_becomes_free_is_filled_at_once(loop: str, make: Make) -> None:
    async def main() -> None:
        ran = list[str]()

        async def handle(event: JobEvent) -> None:
            ran.append(event.id)
            await anyio.sleep(0.02)

        async with running(make(), handle, queues={"alerts": 1, "bulk": 1}) as scheduler:
            for number in range(20):
                await scheduler.submit_job(f"bulk-{number}", at_once(), queue="bulk")
            await until(lambda: len(ran) == 20, within=4)

    run(loop, main)


def test_what_no_queue_names_is_left_to_others(loop: str, make: Make) -> None:
    async def main() -> None:
        seen = dict[str, list[str]]()

        def handler(name: str) -> Handler:
            async def handle(event: JobEvent) -> None:
                seen.setdefault(name, []).append(event.id)

            return handle

        async with (
            running(make(), handler("one"), queues={"alerts": 5}) as one,
            running(make(), handler("other"), queues={"bulk": 5, "default": 5}),
        ):
            for queue in ("alerts", "bulk", "default", "strange"):
                await one.submit_job(queue, at_once(), queue=queue)
            await until(lambda: sum(map(len, seen.values())) == 3)
            await anyio.sleep(0.1)
            assert seen == {"one": ["alerts"], "other": seen["other"]}
            assert sorted(seen["other"]) == ["bulk", "default"]
            async with running(make(), handler("rest"), queues={"alerts": 1, "*": 1}):
                await until(lambda: seen.get("rest") == ["strange"])

    run(loop, main)


def test_a_queue_is_of_the_definition_and_of_each_execution(loop: str, make: Make) -> None:
    async def main() -> None:
        async def handle(event: JobEvent) -> None:
            pass

        async with Scheduler(make(), handler=handle) as scheduler:
            await scheduler.submit_job("a", at_once(), queue="bulk")
            assert (await scheduler.get_job("a")).spec.queue == "bulk"
            await scheduler.update_job("a", queue="alerts")
            await scheduler.run_due()
            (execution,) = await executions_of(scheduler, "a")
            assert (execution.queue, execution.status) == ("alerts", Status.SUCCEEDED)

    run(loop, main)


def test_run_due_leaves_other_queues_alone(loop: str, make: Make) -> None:
    async def main() -> None:
        async def handle(event: JobEvent) -> None:
            pass

        async with Scheduler(make(), handler=handle, queues={"alerts": 1}) as scheduler:
            await scheduler.submit_job("a", at_once(), queue="alerts")
            await scheduler.submit_job("b", at_once(), queue="bulk")
            assert await scheduler.run_due() == 1
            assert await statuses(scheduler, "b") == []

    run(loop, main)


def test_a_full_queue_does_not_count_among_the_rest(loop: str, make: Make) -> None:
    async def main() -> None:
        opened, ran = anyio.Event(), list[str]()

        async def handle(event: JobEvent) -> None:
            ran.append(event.id)
            await opened.wait()

        async with running(make(), handle, queues={"bulk": 1, "*": 5}) as scheduler:
            for number in range(4):
                await scheduler.submit_job(f"bulk-{number}", at_once(), queue="bulk")
            await scheduler.submit_job("other", at_once())
            await until(lambda: len(ran) == 2)
            await anyio.sleep(0.2)
            assert ran == ["bulk-0", "other"]
            opened.set()
            await until(lambda: len(ran) == 5)

    run(loop, main)
