"""What laws work with: backends on one place, a fake clock, and values built by hand.

Nothing here asks ``lifecycle``: a law that used the code it judges would agree with its mistakes.
"""

from __future__ import annotations

import itertools
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import anyio
import anyio.lowlevel
from attrs import evolve

from sched_core import (
    Backend,
    Claim,
    Clock,
    Execution,
    ExecutionQuery,
    Interval,
    Job,
    JobQuery,
    JobSpec,
    Once,
    Schedule,
    Settled,
    Settlement,
    Standing,
    State,
    Status,
    Undecodable,
    UndecodableExecution,
)
from sched_core.testing import FakeClock
from sched_testkit.harness import Harness, Unfit, inspect_backend

if TYPE_CHECKING:
    from sched_testkit.elsewhere import Elsewhere

START = datetime(2031, 5, 6, 7, 8, 9, 123456, tzinfo=UTC)
"""Far from the present: what reads the machine's clock instead of the given one shows."""
KEEP = timedelta(days=30)


class Bench:
    """One example: a fresh place with up to several backends on it, and one clock."""

    def __init__(self, harness: Harness, place: Any) -> None:
        self.harness, self.place = harness, place
        self.clock = FakeClock(START)
        self.backends: list[Backend] = []
        self.decides: list[Clock] = []
        self.whole = True
        """Whether to play laws of overlap in full: on other loops the short form is enough."""
        self.other: Elsewhere | None = None
        """Another process on the same place, where the law wants one and there can be one."""
        self._workers = itertools.count(1)
        self._uids = itertools.count(1)

    @property
    def lease(self) -> timedelta:
        """How long a claim lives."""
        return self.backends[0].capabilities.lease

    async def open(self, worker: str | None = None) -> Backend:
        """Open one more backend on the same data, as a worker of its own."""
        backend = self.harness.backend(self.place)
        inspect_backend(backend, self.harness.name)
        if any(backend is other for other in self.backends):
            raise Unfit(f"{self.harness.name}: backend(place) returned the same object twice")
        self.backends.append(backend)
        worker = worker or f"worker-{next(self._workers)}"
        self.decides.append(await backend.open(self.clock, worker=worker))
        return backend

    async def crash(self, backend: Backend) -> None:
        """Drop a backend as if its process had been killed."""
        self.backends.remove(backend)
        await self.harness.crash(backend)

    async def close(self) -> None:
        """Close what is still open."""
        for backend in self.backends:
            await backend.close()

    async def advance(self, by: timedelta | None = None, **units: float) -> datetime:
        """Move the clock, and let the store notice."""
        self.clock.jump(timedelta(**units) if by is None else by)
        for backend in self.backends:
            await self.harness.catch_up(backend)
        return self.clock.now()

    async def cancelled_after(self, steps: int, call: Callable[[], Awaitable[object]]) -> None:
        """Begin a call, and cancel it after some turns of the event loop."""

        async def main() -> None:
            await call()

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(main)
            for _ in range(steps):
                await anyio.lowlevel.checkpoint()
            tasks.cancel_scope.cancel()

    # -- values

    def job(
        self,
        job_id: str = "job",
        *,
        due: datetime | str | None = "now",
        schedule: Schedule | None = None,
        **changes: Any,
    ) -> Job:
        """Build a job whose standing is written by hand: due now unless told otherwise."""
        now = self.clock.now()
        moment = now if due == "now" else due
        assert not isinstance(moment, str)
        spec = JobSpec(job_id, schedule or Once(moment or now), **changes)
        standing = Standing(state=State.ACTIVE, number=1, next_run=moment or now, due_at=moment)
        return Job(spec, f"uid{next(self._uids):09}", False, now, standing)

    def line(
        self,
        claim: Claim,
        status: Status = Status.SUCCEEDED,
        *,
        final: bool | None = None,
        attempt: int | None = None,
        **changes: Any,
    ) -> Execution:
        """Build the ledger line of an attempt."""
        job, standing = claim.job, claim.job.standing
        lost = 0 if claim.lost is None else claim.lost.count
        attempt = standing.attempts + lost + 1 if attempt is None else attempt
        if final is None:
            final = status not in {Status.INTERRUPTED, Status.ABANDONED}
        now = self.clock.now()
        line = Execution(
            id=f"{job.uid}:{standing.number}:{attempt}",
            job_id=job.id,
            uid=job.uid,
            number=standing.number,
            scheduled_at=standing.triggered_at or standing.next_run or now,
            manual=standing.triggered_at is not None,
            attempt=attempt,
            status=status,
            final=final,
            token=claim.token,
            worker=claim.worker,
            claimed_at=claim.claimed_at,
            started_at=now if attempt else None,
            finished_at=now,
            expires_at=now + KEEP,
        )
        return evolve(line, **changes)

    def settlement(
        self,
        claim: Claim,
        *,
        due: datetime | None = None,
        lines: Sequence[Execution] | None = None,
        **changes: Any,
    ) -> Settlement:
        """Build a settlement: a success after which the job is next due at ``due``."""
        standing = claim.job.standing
        after = Standing(
            state=State.FINISHED if due is None else State.ACTIVE,
            number=standing.number + 1,
            next_run=due,
            due_at=due,
            last_scheduled_at=standing.next_run,
            last_finished_at=self.clock.now(),
            last_status=Status.SUCCEEDED,
        )
        ledger = (self.line(claim),) if lines is None else tuple(lines)
        return Settlement(claim, claim.job.revision, evolve(after, **changes), ledger)

    # -- steps

    async def added(self, backend: Backend, *jobs: Job) -> list[Job]:
        """Add jobs and return them as stored."""
        return list(await backend.add(jobs))

    async def claim(self, backend: Backend) -> Claim:
        """Claim exactly one job; there must be exactly one to claim."""
        claims = await backend.claim_due(10)
        assert len(claims) == 1, f"expected one claim, got {[claim.job.id for claim in claims]}"
        return claims[0]

    async def settle(self, backend: Backend, settlement: Settlement) -> Settled:
        """Settle one."""
        (settled,) = await backend.settle([settlement])
        return settled

    async def stored(self, backend: Backend, job_id: str = "job") -> Job:
        """Return a job that must be there."""
        job = await backend.get(job_id)
        assert isinstance(job, Job), f"expected job {job_id!r} to be stored, got {job!r}"
        return job

    async def lines(self, backend: Backend, **query: Any) -> list[Execution]:
        """Return the whole ledger, newest first, through small pages; all of it can be read."""
        found = await self.records(backend, **query)
        lines = [line for line in found if isinstance(line, Execution)]
        assert lines == found, f"records cannot be read: {found}"
        return lines

    async def records(
        self, backend: Backend, limit: int = 3, **query: Any
    ) -> list[Execution | UndecodableExecution]:
        """Return the whole history, newest first, through small pages."""
        found: list[Execution | UndecodableExecution] = []
        after: str | None = None
        while True:
            page = await backend.executions(ExecutionQuery(**query), after=after, limit=limit)
            assert len(page.items) <= limit, "a page is longer than its limit"
            found += page.items
            after = page.next
            if after is None:
                return found
            assert page.items, "an empty page must be the last one"

    async def jobs(self, backend: Backend, limit: int = 3, **query: Any) -> list[Job | Undecodable]:
        """Return all jobs that match, through small pages."""
        found: list[Job | Undecodable] = []
        after: str | None = None
        while True:
            page = await backend.jobs(JobQuery(**query), after=after, limit=limit)
            assert len(page.items) <= limit, "a page is longer than its limit"
            found += page.items
            after = page.next
            if after is None:
                return found
            assert page.items, "an empty page must be the last one"

    def fates(self, lines: Sequence[Execution]) -> list[tuple[int, int, str]]:
        """Return number, attempt and status of lines, oldest first."""
        return [(line.number, line.attempt, line.status.value) for line in reversed(lines)]


__all__ = ["KEEP", "START", "Bench", "Interval"]
