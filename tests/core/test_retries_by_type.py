"""Which failures of real handlers are attempted again: by the type of what they raise."""

from __future__ import annotations

from datetime import timedelta

import anyio
import pytest
from tests.core.running import Make, executions_of, run, seconds
from tests.core.test_handler_outcomes import Says, played

from sched_core import (
    BackendUnavailable,
    JobEvent,
    MemoryBackend,
    Once,
    Policy,
    Retry,
    RetryAfter,
    Scheduler,
    Status,
)
from sched_core.testing import EPOCH, FakeClock


class Ours(LookupError):
    """An error of a user's package."""


class Disguised(ValueError):
    """Its class lies about itself; what Python stores of it does not."""

    @property  # type: ignore[misc]  # of a class that lies
    def __class__(self) -> type:
        raise RuntimeError("asked for its class")


def group(*errors: Exception) -> ExceptionGroup[Exception]:
    return ExceptionGroup("of a task group", errors)


@pytest.mark.parametrize(
    ("retry", "error", "again"),
    [
        (Retry(2, never=[LookupError]), Ours(), False),
        (Retry(2, never=[LookupError]), OSError(), True),
        (Retry(2, only=[f"{__name__}.Ours"]), Ours(), True),
        (Retry(2, only=[f"{__name__}.Ours"]), LookupError(), False),
        (Retry(2, never=[Ours]), group(Ours()), False),
        (Retry(2, never=[Ours]), group(group(Ours())), False),
        (Retry(2, never=[Ours]), group(Ours(), Ours()), True),
        (Retry(2, only=[ExceptionGroup]), group(Ours(), Ours()), True),
        (Retry(2, only=[ExceptionGroup]), group(Ours()), False),
        (Retry(2, never=[ValueError]), RetryAfter(1), True),
        (Retry(2, only=[ValueError]), RetryAfter(1), True),
        (Retry(delays=[seconds(1)], never=[OSError]), Ours(), True),
    ],
    ids=repr,
)
def test_the_type_of_the_error_decides(
    retry: Retry, error: Exception, again: bool, loop: str, make: Make
) -> None:
    says = Says(error)

    async def main() -> None:
        found = await played(make, says, Policy(retry=retry), (1,) if again else ())
        assert [each.status for each in found] == [Status.FAILED, Status.SUCCEEDED][: 1 + again]
        assert found[0].final == (not again)
        assert [event.last_attempt for event in says.events] == [False, True][: 1 + again]

    run(loop, main)


def test_a_class_that_lies_about_itself_is_known_by_what_python_stores(
    loop: str, make: Make
) -> None:
    async def main() -> None:
        policy = Policy(retry=Retry(2, never=[ValueError]))
        (only,) = await played(make, Says(Disguised()), policy, ())
        assert only.final

    run(loop, main)


def test_a_failure_of_the_store_is_none_of_the_jobs(loop: str, make: Make) -> None:
    says = Says(BackendUnavailable("the server has gone"))

    async def main() -> None:
        clock = FakeClock()
        async with Scheduler(make(), handler=says, clock=clock) as scheduler:
            policy = Policy(retry=Retry(never=[BackendUnavailable]))
            await scheduler.submit_job("a", Once(EPOCH), policy=policy)
            await scheduler.run_due()
            clock.advance(timedelta(minutes=2))
            await scheduler.run_due()
            found = await executions_of(scheduler)
        assert [each.status for each in found] == [Status.INTERRUPTED, Status.SUCCEEDED]

    run(loop, main)


@pytest.mark.parametrize(
    ("retry", "again"),
    [
        (Retry(2, backoff=seconds(0), never=[TimeoutError]), False),
        (Retry(2, backoff=seconds(0), only=[TimeoutError]), True),
        (Retry(2, backoff=seconds(0), only=[OSError]), True),
        (Retry(2, backoff=seconds(0), only=[ValueError]), False),
    ],
    ids=repr,
)
def test_a_run_past_its_timeout_counts_as_a_timeout_error(
    retry: Retry, again: bool, loop: str
) -> None:
    calls: list[int] = []

    async def handler(event: JobEvent) -> None:
        calls.append(event.attempt)
        await anyio.sleep_forever()

    async def main() -> None:
        policy = Policy(timeout=seconds(0.02), retry=retry)
        async with Scheduler(MemoryBackend(), handler=handler) as scheduler:
            await scheduler.submit_job("a", Once(EPOCH), policy=policy)
            while await scheduler.run_due():
                pass
            found = await executions_of(scheduler)
        assert [each.status for each in found] == [Status.FAILED] * (1 + again)
        assert [each.final for each in found] == [False, True][1 - again :]
        assert calls == [1, 2][: 1 + again]

    run(loop, main)
