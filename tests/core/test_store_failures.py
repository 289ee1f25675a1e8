"""A failure of the store inside a handler is never the job's failure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import timedelta
from types import TracebackType
from typing import Any

import anyio
import pytest
from attrs import evolve
from tests.core.running import (
    Make,
    at_once,
    executions_of,
    run,
    running,
    until,
    wait_for_executions,
)

from sched_core import (
    BackendError,
    BackendUnavailable,
    Claim,
    Execution,
    Job,
    JobEvent,
    MemoryBackend,
    Once,
    Scheduler,
    Settled,
    Settlement,
    Status,
)
from sched_core.testing import FakeClock


def test_the_attempt_is_interrupted_and_made_again(
    loop: str, make: Make, caplog: pytest.LogCaptureFixture
) -> None:
    """The job has no retries of its own."""
    attempts: list[int] = []

    async def handler(event: JobEvent) -> None:
        attempts.append(event.attempt)
        if len(attempts) < 3:
            raise BackendUnavailable("the server has gone")

    async def main() -> None:
        clock = FakeClock()
        async with Scheduler(make(), handler=handler, clock=clock) as scheduler:
            await scheduler.submit_job("a", Once(clock.now()))
            waits: list[timedelta] = []
            while await scheduler.run_due():
                job = await scheduler.get_job("a")
                if (one := job.standing.scheduled) is not None and job.standing.due_at is not None:
                    assert one.failures == 0
                    waits.append(job.standing.due_at - clock.now())
                    clock.advance(waits[-1])
            executions = await executions_of(scheduler)
            assert [execution.status for execution in executions] == [
                Status.INTERRUPTED,
                Status.INTERRUPTED,
                Status.SUCCEEDED,
            ]
            assert [execution.final for execution in executions] == [False, False, True]
            assert "the server has gone" in (executions[0].reason or "")
            low, high = timedelta(seconds=1), timedelta(seconds=1.5)
            assert low <= waits[0] <= high
            assert 2 * low <= waits[1] <= 2 * high
            health = await scheduler.health()
            assert health.backend_errors == 2
            assert health.notices == ()  # it has ended well

    run(loop, main)
    assert attempts == [1, 2, 3]
    assert {record.levelname for record in caplog.records if record.exc_info} == {"WARNING"}


def test_it_is_shown_and_health_turns_bad_when_it_does_not_end() -> None:
    clock = FakeClock()

    async def handler(event: JobEvent) -> None:
        raise RuntimeError("wrapped by the job") from BackendUnavailable("no slot")

    async def main() -> None:
        async with Scheduler(MemoryBackend(), handler=handler, clock=clock) as scheduler:
            await scheduler.submit_job("a", Once(clock.now()))
            waits: list[timedelta] = []
            for attempt in range(1, 12):
                assert await scheduler.run_due() == 1
                health = await scheduler.health()
                assert health.healthy == (attempt < 5), (attempt, health.problems)
                assert "wrapped by the job" in health.notices[0]
                due_at = (await scheduler.get_job("a")).standing.due_at
                assert due_at is not None
                waits.append(due_at - clock.now())
                clock.advance(waits[-1])
            assert max(waits) <= timedelta(seconds=90)
            assert min(waits[7:]) >= timedelta(seconds=60)

    anyio.run(main)


class _Transaction:
    """A handler's transaction of a store that loses the connection at the commit."""

    def __init__(self, commit: Callable[[], Settlement], lost: bool) -> None:
        self._commit, self._lost = commit, lost

    async def __aenter__(self) -> None: ...

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType
    ) -> None:
        if error is None:
            self._commit()
            if self._lost:
                raise BackendUnavailable("the connection was lost during the commit")


class Transactional(MemoryBackend):
    """A store with transactions, some of whose commits are not answered.

    Args:
        commits: Whether the unanswered commit was made.
    """

    def __init__(self, *, commits: bool) -> None:
        super().__init__()
        self._commits = commits
        self.unanswered = 1
        self.moves_on = False

    @property
    def capabilities(self) -> Any:
        return evolve(super().capabilities, transactions=True)

    def transaction(
        self,
        claim: Claim,
        decide: Callable[[Job | None], Settlement],
        committed: Callable[[Settlement], None],
    ) -> _Transaction:
        lost, self.unanswered = self.unanswered > 0, self.unanswered - 1

        def commit() -> Settlement:
            job = self.store.row(claim.job.id).job
            settlement = decide(job if isinstance(job, Job) else None)
            if not lost or self._commits:
                assert self._settle(settlement, self._now()).outcome == "written"
            if not lost:
                committed(settlement)
            return settlement

        return _Transaction(commit, lost)


@pytest.mark.parametrize("commits", [True, False], ids=["committed", "rolled back"])
def test_after_a_commit_of_unknown_outcome_the_history_tells(commits: bool, loop: str) -> None:
    told: list[Execution] = []
    calls: list[int] = []

    async def handler(event: JobEvent) -> None:
        calls.append(event.attempt)
        async with event.transaction():
            pass

    def observer(what: object) -> None:
        if isinstance(what, Execution):
            told.append(what)

    async def main() -> None:
        backend = Transactional(commits=commits)
        async with running(backend, handler, observers=[observer]) as scheduler:
            await scheduler.submit_job("a", at_once())
            await wait_for_executions(scheduler, 1 if commits else 2)
            await until(lambda: len(told) == (1 if commits else 2))
            assert [execution.status for execution in told] == [
                execution.status for execution in await executions_of(scheduler)
            ]
            assert told[-1].status is Status.SUCCEEDED
            assert (await scheduler.health()).unsettled == 0

    run(loop, main)
    assert calls == ([1] if commits else [1, 2])


class Refusing(MemoryBackend):
    """A store in which nothing may be written about ends, as after a REVOKE, for some tries."""

    def __init__(self, tries: int, error: Exception) -> None:
        super().__init__(lease=timedelta(seconds=1))
        self.tries, self.error = tries, error

    async def settle(self, settlements: Sequence[Settlement]) -> Sequence[Settled]:
        if self.tries:
            self.tries -= 1
            raise self.error
        return await super().settle(settlements)


def test_an_end_that_the_store_refuses_keeps_its_claim_and_is_written_later(
    loop: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Longer than a lease, and not the third time: then the job would run a second time."""
    runs: list[str] = []

    async def main() -> None:
        backend = Refusing(3, BackendError("permission denied for table ledger"))
        async with running(backend, lambda event: runs.append(event.id)) as scheduler:
            await scheduler.submit_job("a", at_once())
            problems = await until(lambda: scheduler.snapshot().problems)  # type: ignore[union-attr]
            assert "permission denied for table ledger" in str(problems)
            executions = await wait_for_executions(scheduler, 1)
            assert [execution.status for execution in executions] == [Status.SUCCEEDED]
            await until(lambda: scheduler.snapshot().healthy)  # type: ignore[union-attr]

    run(loop, main)
    assert runs == ["a"]
    told = [record for record in caplog.records if "refuses to write its outcome" in record.message]
    assert [record.levelname for record in told] == ["ERROR"]


def test_an_end_at_which_the_backend_fails_is_left_to_its_lease() -> None:
    runs: list[str] = []

    async def main() -> None:
        backend = Refusing(1, TypeError("a fault of the backend's own"))
        async with running(backend, lambda event: runs.append(event.id)) as scheduler:
            await scheduler.submit_job("a", at_once())
            await until(lambda: len(runs) == 2)

    anyio.run(main)


def test_what_runs_what_is_due_and_returns_does_not_insist() -> None:
    runs: list[str] = []

    async def main() -> None:
        backend = Refusing(1, BackendError("permission denied"))
        async with Scheduler(backend, handler=lambda event: runs.append(event.id)) as scheduler:
            await scheduler.submit_job("a", at_once())
            with anyio.fail_after(20):
                await scheduler.run_due()

    anyio.run(main)
    assert runs == ["a"]
