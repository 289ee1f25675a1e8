"""JobRouter: which function is called, with what around it, and what no route means."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any, cast

import anyio
import pytest
from tests.core.running import (
    Make,
    at_once,
    executions_of,
    gate,
    run,
    running,
    statuses,
    until,
)

from sched_core import (
    InvalidDefinition,
    JobEvent,
    JobRouter,
    MemoryBackend,
    NoRoute,
    Once,
    Policy,
    Scheduler,
    Status,
)
from sched_core.router import Next
from sched_core.testing import EPOCH, FakeClock


def event(job_id: str, **metadata: str) -> JobEvent:
    return JobEvent(job_id, Once(EPOCH), EPOCH, EPOCH, key="u:1", metadata=metadata)


class Notes:
    """Makes handlers that note their own name."""

    def __init__(self) -> None:
        self.seen: list[str] = []

    def __call__(self, name: str) -> Callable[[JobEvent], Any]:
        async def handler(event: JobEvent) -> str:
            self.seen.append(f"{name} {event.id}")
            return name

        return handler


# -- finding -----------------------------------------------------------------


def test_the_function_is_found() -> None:
    notes, router = Notes(), JobRouter()
    router.route("report-*")(notes("glob"))
    router.route(re.compile(r"invoice-\d+"))(notes("regex"))
    router.route(metadata={"kind": "reminder"})(notes("metadata"))
    router.route("tenant-?", metadata={"kind": "bill"})(notes("both"))
    router.route("report-daily")(notes("exact"))
    router.default(notes("default"))

    async def main() -> None:
        for job_id, metadata, name in (
            ("report-daily", {}, "exact"),
            ("report-weekly", {}, "glob"),
            ("Report-weekly", {}, "default"),
            ("invoice-12", {}, "regex"),
            ("invoice-12b", {}, "default"),
            ("x", {"kind": "reminder", "for": "tea"}, "metadata"),
            ("report-x", {"kind": "reminder"}, "glob"),
            ("tenant-1", {"kind": "bill"}, "both"),
            ("tenant-1", {}, "default"),
            ("tenant-12", {"kind": "bill"}, "default"),
        ):
            assert await router(event(job_id, **metadata)) == name, job_id

    anyio.run(main)


def test_decorators_leave_functions_as_they_are() -> None:
    router = JobRouter()

    @router.job("a", Once(EPOCH), name="A", metadata={"x": "y"}, policy=Policy(max_lost=1))
    async def a(event: JobEvent) -> str:
        return "a"

    @router.route("b")
    def b(event: JobEvent) -> str:
        return "b"

    @router.default
    async def other(event: JobEvent) -> str:
        return "other"

    (spec,) = router.specs
    assert (spec.id, spec.name, spec.metadata, spec.policy.max_lost) == ("a", "A", {"x": "y"}, 1)
    assert b(event("b")) == "b"
    assert anyio.run(a, event("a")) == "a"
    assert anyio.run(router, event("b")) == "b"
    assert anyio.run(other, event("c")) == "other"


REFUSED: list[tuple[Callable[[JobRouter], Any], str, str]] = [
    (lambda router: router.route("a")(print), "id", "'a' has a function already"),
    (lambda router: router.job("a", Once(EPOCH))(print), "id", "'a' has a function already"),
    (lambda router: router.job("", Once(EPOCH)), "id", "must not be empty"),
    (lambda router: router.job("b", cast(Any, "daily")), "schedule", "must be a schedule"),
    (lambda router: router.route(), "pattern", "give an id, a pattern, or metadata"),
    (lambda router: router.route(cast(Any, 5)), "pattern", "must be text"),
    (lambda router: router.route("x*")(cast(Any, None)), "handler", "takes a JobEvent"),
    (lambda router: router.route("x")(cast(Any, 5)), "handler", "takes a JobEvent"),
    (lambda router: router.default(print), "handler", "default already"),
    (lambda router: router.middleware(cast(Any, print)), "middleware", "must be an async"),
    (lambda router: router.include(router), "other", "cannot include itself"),
    (lambda _: JobRouter(version=3), "version", "give a group"),
    (lambda _: JobRouter(group=""), "group", "must not be empty"),
    (lambda _: JobRouter(no_route_delay=-1), "no_route_delay", "from 0.1 to 86400"),
    (lambda _: JobRouter(no_route_delay=cast(Any, "5s")), "no_route_delay", "must be seconds"),
]


@pytest.mark.parametrize(("act", "field", "remedy"), REFUSED)
def test_wrong_use_is_refused(act: Callable[[JobRouter], Any], field: str, remedy: str) -> None:
    router = JobRouter()
    router.route("a")(print)
    router.default(print)
    with pytest.raises(InvalidDefinition) as caught:
        act(router)
    assert caught.value.field == field
    assert remedy in str(caught.value)
    assert router.specs == ()


# -- around ------------------------------------------------------------------


def test_middleware_goes_around_everything() -> None:
    notes, router = Notes(), JobRouter()

    def around(name: str) -> Any:
        async def function(event: JobEvent, call_next: Next) -> Any:
            notes.seen.append(f"{name} begins")
            try:
                return await call_next(event)
            finally:
                notes.seen.append(f"{name} ends")

        return function

    router.middleware(around("outer"))
    router.middleware(around("inner"))
    router.route("a")(notes("a"))
    assert anyio.run(router, event("a")) == "a"
    assert notes.seen == ["outer begins", "inner begins", "a a", "inner ends", "outer ends"]

    notes.seen.clear()
    with pytest.raises(NoRoute, match="no route for 'b'"):
        anyio.run(router, event("b"))
    assert notes.seen == ["outer begins", "inner begins", "inner ends", "outer ends"]


def test_middleware_can_answer_itself_and_try_again() -> None:
    router = JobRouter()
    calls = 0

    @router.middleware
    async def twice(event: JobEvent, call_next: Next) -> Any:
        if event.id == "refused":
            return "refused"
        try:
            return await call_next(event)
        except ConnectionError:
            return await call_next(event)

    @router.default
    def flaky(event: JobEvent) -> int:
        nonlocal calls
        calls += 1
        if calls == 1:
            raise ConnectionError
        return calls

    assert anyio.run(router, event("refused")) == "refused"
    assert calls == 0
    assert anyio.run(router, event("a")) == 2


def test_an_included_router_keeps_its_middleware() -> None:
    notes, main, part = Notes(), JobRouter(group="service"), JobRouter()

    @part.middleware
    async def of_part(event: JobEvent, call_next: Next) -> Any:
        notes.seen.append("part")
        return await call_next(event)

    @main.middleware
    async def of_main(event: JobEvent, call_next: Next) -> Any:
        notes.seen.append("main")
        return await call_next(event)

    part.job("declared", Once(EPOCH))(notes("job"))
    part.route("x-*")(notes("glob"))
    part.default(notes("default"))
    main.route("own")(notes("own"))
    main.include(part)
    assert [(spec.id, spec.group) for spec in main.specs] == [("declared", "service")]

    for job_id, expected in (
        ("declared", ["main", "part", "job declared"]),
        ("x-1", ["main", "part", "glob x-1"]),
        ("else", ["main", "part", "default else"]),
        ("own", ["main", "own own"]),
    ):
        notes.seen.clear()
        anyio.run(main, event(job_id))
        assert notes.seen == expected

    clash = JobRouter()
    clash.route("own")(notes("other"))
    with pytest.raises(InvalidDefinition, match="'own' has a function already"):
        main.include(clash)


# -- in a scheduler ----------------------------------------------------------


def test_a_job_without_a_route_is_not_claimed_and_runs_elsewhere() -> None:
    """A rolling deploy: the old replica does not know the new job, and does it no harm."""
    clock, notes, backend = FakeClock(), Notes(), MemoryBackend()
    old, new = JobRouter(), JobRouter()
    new.route("new-job")(notes("new"))

    async def main() -> None:
        async with Scheduler(backend, handler=old, clock=clock) as scheduler:
            await scheduler.submit_job("new-job", Once(clock.now()))
            before = await scheduler.get_job("new-job")
            assert await scheduler.run_due() == 0
            assert await executions_of(scheduler) == []
            assert await scheduler.get_job("new-job") == before
        async with Scheduler(backend, handler=new, clock=clock) as scheduler:
            await scheduler.run_due()
            (execution,) = await executions_of(scheduler)
            assert (execution.attempt, execution.status) == (1, Status.SUCCEEDED)

    anyio.run(main)
    assert notes.seen == ["new new-job"]


def test_functions_run_in_threads_and_coroutines_in_the_loop(loop: str, make: Make) -> None:
    router, seen = JobRouter(), dict[str, tuple[str, bool]]()

    @router.middleware
    async def note(event: JobEvent, call_next: Next) -> Any:
        assert threading.current_thread() is threading.main_thread()
        return await call_next(event)

    def here(event: JobEvent) -> None:
        in_main = threading.current_thread() is threading.main_thread()
        seen[event.id] = (event.key.split(":")[1], in_main)

    router.route("plain")(here)

    @router.route("coroutine")
    async def coroutine(event: JobEvent) -> None:
        here(event)

    @router.route("failing")
    def failing(event: JobEvent) -> None:
        here(event)
        raise ValueError("on purpose")

    async def main() -> None:
        async with Scheduler(make(), handler=router) as scheduler:
            for job_id in ("plain", "coroutine", "failing"):
                await scheduler.submit_job(job_id, at_once())
            assert await scheduler.run_due() == 3
            assert await statuses(scheduler, "plain") == [Status.SUCCEEDED]
            (execution,) = await executions_of(scheduler, "failing")
            assert (execution.status, execution.reason) == (Status.FAILED, "ValueError: on purpose")

    run(loop, main)
    assert seen == {"plain": ("1", False), "coroutine": ("1", True), "failing": ("1", False)}


def test_a_function_that_outlives_its_timeout_is_told_and_keeps_its_claim(loop: str) -> None:
    router = JobRouter()
    after: list[str] = []

    @router.middleware
    async def slow_after(event: JobEvent, call_next: Next) -> Any:
        result = await call_next(event)
        await anyio.sleep(60)  # cancelled: the time was up while the thread could not be
        after.append("never")
        return result

    @router.default
    def told(event: JobEvent) -> None:
        deadline = time.monotonic() + 10
        while not event.cancelled:
            assert time.monotonic() < deadline
            time.sleep(0.005)
        after.append("told")

    async def main() -> None:
        async with running(MemoryBackend(), router) as scheduler:
            policy = Policy(timeout=timedelta(milliseconds=50))
            await scheduler.submit_job("a", at_once(), policy=policy)
            (execution,) = await until(lambda: executions_of(scheduler))
            assert execution.status is Status.FAILED
            assert "timeout" in (execution.reason or "")

    run(loop, main)
    assert after == ["told"]


def test_a_stop_does_not_wait_for_a_thread_that_never_ends(loop: str, short_flush: None) -> None:
    router = JobRouter()
    begun = threading.Event()

    with gate() as opened:

        @router.default
        def stuck(event: JobEvent) -> None:
            begun.set()
            opened.wait(30)

        async def main() -> None:
            async with Scheduler(MemoryBackend(), handler=router) as scheduler:
                await scheduler.submit_job("a", at_once())
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(lambda: scheduler.run_forever(signals=False))
                    await until(begun.is_set)
                    await scheduler.stop(0)
                assert await executions_of(scheduler) == []

        run(loop, main)
