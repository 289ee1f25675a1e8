"""What a handler may say instead of success or failure: later, not before then, never again."""

from __future__ import annotations

import copy
import logging
import pickle
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import anyio
import pytest
from tests.core.running import Make, executions_of, run, running, seconds, until

from sched_core import (
    BackendUnavailable,
    Discard,
    InvalidDefinition,
    JobEvent,
    JobRouter,
    MemoryBackend,
    Once,
    Policy,
    Retry,
    RetryAfter,
    Scheduler,
    Snooze,
    Status,
)
from sched_core.testing import EPOCH, FakeClock

THREE = Policy(retry=Retry(attempts=3, backoff=seconds(1)))


class Says:
    """A handler that raises one error after the other, and succeeds once there is none left."""

    def __init__(self, *errors: Exception) -> None:
        self.errors = list(errors)
        self.events: list[JobEvent] = []

    async def __call__(self, event: JobEvent) -> None:
        self.events.append(event)
        if self.errors:
            raise self.errors.pop(0)


async def played(make: Make, says: Says, policy: Policy, waits: tuple[float, ...]) -> list[Any]:
    """Run one job until it has ended; return its executions, oldest first."""
    clock = FakeClock()
    async with Scheduler(make(), handler=says, clock=clock) as scheduler:
        await scheduler.submit_job("a", Once(EPOCH), policy=policy)
        assert await scheduler.run_due() == 1
        for wait in waits:
            clock.advance(seconds(wait) - timedelta(microseconds=1))
            assert await scheduler.run_due() == 0, "it ran too early"
            clock.advance(timedelta(microseconds=1))
            assert await scheduler.run_due() == 1
        clock.advance(timedelta(days=1))
        assert await scheduler.run_due() == 0, "it was to be over"
        return await executions_of(scheduler)


def test_a_snoozed_handler_is_called_again_in_the_same_attempt(loop: str, make: Make) -> None:
    says = Says(Snooze(90), Snooze(timedelta(hours=2)))

    async def main() -> None:
        (only,) = await played(make, says, Policy(), (90, 7200))
        assert (only.status, only.attempt, only.final) == (Status.SUCCEEDED, 1, True)
        assert only.snoozes == 2
        assert [event.attempt for event in says.events] == [1, 1, 1]
        assert len({event.key for event in says.events}) == 1
        tokens = [event.token for event in says.events]
        assert tokens == sorted(set(tokens)), "each claim has a fencing token of its own"

    run(loop, main)


def test_a_snooze_counts_as_no_failure(loop: str, make: Make) -> None:
    says = Says(Snooze(1), RuntimeError(), Snooze(1), RuntimeError(), Snooze(1), RuntimeError())

    async def main() -> None:
        found = await played(make, says, THREE, (1, 1, 1, 2, 1))
        assert [each.status for each in found] == [Status.FAILED] * 3
        assert [each.final for each in found] == [False, False, True]
        assert [event.attempt for event in says.events] == [1, 1, 2, 2, 3, 3]

    run(loop, main)


def test_one_snooze_too_many_is_a_failure(loop: str, make: Make) -> None:
    says = Says(Snooze(1), Snooze(1), Snooze(1))

    async def main() -> None:
        (only,) = await played(make, says, Policy(max_snoozes=2), (1, 1))
        assert (only.status, only.reason) == (Status.FAILED, "snoozed more than 2 times")

    run(loop, main)


def test_a_handler_says_when_the_next_attempt_is_made(loop: str, make: Make) -> None:
    says = Says(RetryAfter(30, "busy"), RetryAfter(timedelta(minutes=5)))

    async def main() -> None:
        found = await played(make, says, THREE, (30, 300))
        assert [each.status for each in found] == [Status.FAILED, Status.FAILED, Status.SUCCEEDED]
        assert found[0].reason == "busy"
        assert found[1].reason == "again in 0:05:00"
        assert [event.attempt for event in says.events] == [1, 2, 3]

    run(loop, main)


def test_the_policy_bounds_how_often_a_handler_asks_for_another_attempt(
    loop: str, make: Make
) -> None:
    says = Says(*(RetryAfter(1) for _ in range(9)))

    async def main() -> None:
        found = await played(make, says, THREE, (1, 1))
        assert [each.final for each in found] == [False, False, True]
        assert [event.last_attempt for event in says.events] == [False, False, True]

    run(loop, main)


def test_what_is_discarded_has_failed_for_good(loop: str, make: Make) -> None:
    says = Says(Discard("no such customer"))

    async def main() -> None:
        (only,) = await played(make, says, THREE, ())
        assert (only.status, only.final) == (Status.FAILED, True)
        assert only.reason == "no such customer"

    run(loop, main)


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (Discard(), "LookupError: gone"),
        (RetryAfter(0), "LookupError: gone"),
        (Discard(KeyError("k")), "KeyError: 'k'"),
        (Discard("its own"), "its own"),
    ],
    ids=["discard", "retry after", "an error", "a text"],
)
def test_the_error_that_it_was_raised_from_is_the_reason(error: Exception, reason: str) -> None:
    async def main() -> None:
        async def handle(event: JobEvent) -> None:
            raise error from LookupError("gone")

        async with Scheduler(MemoryBackend(), handler=handle, clock=FakeClock()) as scheduler:
            await scheduler.submit_job("a", Once(EPOCH))
            await scheduler.run_due()
            (only,) = await executions_of(scheduler)
            assert only.reason == reason

    anyio.run(main)


def test_a_failure_of_the_store_that_a_handler_answers_is_its_own_word(loop: str) -> None:
    """Without it, an error of the store inside a handler interrupts the attempt."""

    async def main() -> None:
        async def handle(event: JobEvent) -> None:
            raise Discard("gave up") from BackendUnavailable("no connection")

        async with Scheduler(MemoryBackend(), handler=handle, clock=FakeClock()) as scheduler:
            await scheduler.submit_job("a", Once(EPOCH), policy=THREE)
            await scheduler.run_due()
            (only,) = await executions_of(scheduler)
            assert (only.status, only.reason) == (Status.FAILED, "gave up")

    run(loop, main)


def in_a_group(error: Exception) -> Callable[[JobEvent], Any]:
    async def handle(event: JobEvent) -> None:
        async def child() -> None:
            raise error

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(child)

    return handle


def in_a_thread(error: Exception) -> Callable[[JobEvent], Any]:
    def handle(event: JobEvent) -> None:
        raise error

    return handle


def by_a_router(error: Exception) -> Any:
    router = JobRouter()

    @router.route("a")
    def handle(event: JobEvent) -> None:
        raise error

    return router


class OfTheirOwn(Snooze):
    """A subclass is what it inherits from, whatever it overrides."""

    def __init__(self) -> None:
        Exception.__init__(self)
        vars(Snooze)["delay"].__set__(self, seconds(60))  # the slot that the property hides

    @property
    def delay(self) -> timedelta:  # type: ignore[override]  # it hides what it inherits, on purpose
        raise RuntimeError("asked")


@pytest.mark.parametrize("where", [in_a_group, in_a_thread, by_a_router])
@pytest.mark.parametrize("kind", [lambda: Snooze(60), OfTheirOwn], ids=["plain", "subclass"])
def test_it_is_heard_wherever_it_is_raised(where: Any, kind: Any, loop: str) -> None:
    async def main() -> None:
        clock = FakeClock()
        async with Scheduler(MemoryBackend(), handler=where(kind()), clock=clock) as scheduler:
            await scheduler.submit_job("a", Once(EPOCH))
            await scheduler.run_due()
            job = await scheduler.get_job("a")
            assert job.standing.due_at == EPOCH + seconds(60)
            assert await executions_of(scheduler) == []

    run(loop, main)


def test_a_group_with_another_error_has_failed(loop: str) -> None:
    async def main() -> None:
        async def handle(event: JobEvent) -> None:
            raise ExceptionGroup("both", [Snooze(60), ValueError("no")])

        async with Scheduler(MemoryBackend(), handler=handle, clock=FakeClock()) as scheduler:
            await scheduler.submit_job("a", Once(EPOCH))
            await scheduler.run_due()
            (only,) = await executions_of(scheduler)
            assert only.status is Status.FAILED

    run(loop, main)


class Empty(Discard):
    """A subclass that does not call the constructor: it says nothing."""

    def __init__(self) -> None:
        pass


def test_a_subclass_that_says_nothing_has_failed(loop: str, make: Make) -> None:
    says = Says(Empty())

    async def main() -> None:
        found = await played(make, says, Policy(retry=Retry(attempts=2, backoff=seconds(1))), (1,))
        assert [each.status for each in found] == [Status.FAILED, Status.SUCCEEDED]

    run(loop, main)


@pytest.mark.parametrize("delay", [-1, float("nan"), float("inf"), "60", None, True, -seconds(1)])
@pytest.mark.parametrize("kind", [Snooze, RetryAfter])
def test_a_delay_that_is_none_names_the_field(kind: Any, delay: Any) -> None:
    with pytest.raises(InvalidDefinition, match=r"^delay: must be a timedelta or seconds"):
        kind(delay)


@pytest.mark.parametrize("kind", [Discard, lambda reason: RetryAfter(1, reason)])
def test_a_reason_that_is_none_names_the_field(kind: Any) -> None:
    with pytest.raises(InvalidDefinition, match=r"^reason: must be a text or an error, not 404"):
        kind(404)


@pytest.mark.parametrize("delay", [timedelta.max, 1e300, 9e99], ids=str)
def test_a_delay_beyond_all_calendars_waits_until_the_last_moment(delay: Any, loop: str) -> None:
    says = Says(Snooze(delay))

    async def main() -> None:
        async with Scheduler(MemoryBackend(), handler=says, clock=FakeClock()) as scheduler:
            await scheduler.submit_job("a", Once(EPOCH))
            await scheduler.run_due()
            due = (await scheduler.get_job("a")).standing.due_at
            assert due is not None
            assert due.year == 9999

    run(loop, main)


def test_a_snooze_is_reported_as_no_failure(caplog: pytest.LogCaptureFixture) -> None:
    told: list[Any] = []

    async def main() -> None:
        says = Says(Snooze(60), RetryAfter(1))
        async with Scheduler(
            MemoryBackend(), handler=says, clock=(clock := FakeClock()), observers=[told.append]
        ) as scheduler:
            await scheduler.submit_job("a", Once(EPOCH))
            await scheduler.run_due()
            assert told == []
            assert [each for each in caplog.records if each.levelno >= logging.WARNING] == []
            clock.advance(seconds(60))
            await scheduler.run_due()
            assert [each.status for each in told] == [Status.FAILED]
            assert [each.levelname for each in caplog.records] == ["ERROR"]

    anyio.run(main)


def test_a_handler_that_is_told_to_stop_may_still_say_what_comes_next(loop: str) -> None:
    async def main() -> None:
        began = anyio.Event()

        async def handle(event: JobEvent) -> None:
            try:
                began.set()
                await anyio.sleep_forever()
            finally:
                raise Snooze(3600)

        backend = MemoryBackend()
        async with running(backend, handle, grace=0) as scheduler:
            await scheduler.submit_job("a", Once(EPOCH))
            await began.wait()
        async with Scheduler(backend) as scheduler:
            one = (await scheduler.get_job("a")).standing.scheduled
            assert one is not None
            assert (one.snoozes, one.attempts) == (1, 0)
            assert await executions_of(scheduler) == []

    run(loop, main)


def test_a_timeout_outweighs_what_the_handler_says(loop: str) -> None:
    async def main() -> None:
        async def handle(event: JobEvent) -> None:
            try:
                await anyio.sleep_forever()
            finally:
                raise Snooze(3600)

        async with running(MemoryBackend(), handle) as scheduler:
            await scheduler.submit_job("a", Once(EPOCH), policy=Policy(timeout=seconds(0.05)))
            (only,) = await until(lambda: executions_of(scheduler, "a"))
            assert only.status is Status.FAILED
            assert only.reason.startswith("timeout")

    run(loop, main)


def test_the_event_has_the_fields_words(loop: str) -> None:
    says = Says(RuntimeError())

    async def main() -> None:
        async with Scheduler(MemoryBackend(), handler=says, clock=FakeClock()) as scheduler:
            job = await scheduler.submit_job("a", Once(EPOCH))
            await scheduler.run_due()
            (event,) = says.events
            assert event.idempotency_key == event.key == f"{job.uid}:1"
            assert event.fencing_token == event.token
            assert event.last_attempt

    run(loop, main)
    assert JobEvent("a", Once(EPOCH), EPOCH, EPOCH, "uid:1").last_attempt


@pytest.mark.parametrize("error", [Snooze(5), RetryAfter(5, "why"), Discard("why")], ids=repr)
def test_they_can_be_copied_and_sent_to_another_process(error: Any) -> None:
    for other in (copy.copy(error), pickle.loads(pickle.dumps(error))):
        assert type(other) is type(error)
        assert [getattr(other, each) for each in type(error).__slots__] == [
            getattr(error, each) for each in type(error).__slots__
        ]
