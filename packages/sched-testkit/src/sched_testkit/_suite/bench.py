"""What laws work with: backends on one place, a fake clock, and values built by hand.

Nothing here asks the core's rules: a law that used the code it judges would agree with its
mistakes.
"""

from __future__ import annotations

import itertools
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, TypeVar

import anyio
import anyio.lowlevel
from attrs import evolve

from sched_core import (
    Backend,
    BackendError,
    BackendUnavailable,
    Claim,
    Claimed,
    ClaimQuery,
    Clock,
    Execution,
    ExecutionQuery,
    Hold,
    Interval,
    Job,
    JobQuery,
    JobStore,
    Page,
    Pending,
    Renewal,
    Room,
    Settled,
    Settlement,
    Undecodable,
    UndecodableExecution,
)
from sched_core.clock import pause
from sched_testkit._stories.filters import selects
from sched_testkit._suite.builders import FIELDS, KEEP, SECOND, START, Values, whole
from sched_testkit._suite.port import inspect_backend
from sched_testkit.harness import Harness, Unfit

if TYPE_CHECKING:
    from sched_testkit._suite.processes import Elsewhere


T = TypeVar("T")

ENDLESS = 5_000
"""More pages than any law can fill."""
SHORTLY = 0.02
"""Seconds of real time between two looks whether others have ended."""


def onward(page: Page[Any], seen: set[str]) -> str | None:
    """Return where the next page begins; a listing without an end is told.

    It would hold up the suite for good: no time runs out while a backend that never waits is asked.

    Args:
        page: The last one.
        seen: Where earlier pages began.
    """
    if page.next is not None:
        assert page.next not in seen, f"the listing goes round: it was at {page.next!r} before"
        assert len(seen) < ENDLESS, f"after {ENDLESS} pages the listing promises another one"
        seen.add(page.next)
    return page.next


class Bench(Values):
    """One example: a fresh place with up to several backends on it, and one clock.

    With the first job come neighbours: jobs in all states that are never due. No law speaks of
    them, listings of the bench leave them out, and nothing may change them.
    """

    def __init__(self, harness: Harness, place: Any) -> None:
        super().__init__()
        self.harness, self.place = harness, place
        self.backends: list[Backend] = []
        self.decides: list[Clock] = []
        self.whole = True
        """Whether to play overlap and large batches in full; a second loop gets the short form."""
        self.other: Elsewhere | None = None
        """Another process on the same place, where the law wants one and there can be one."""
        self.neighbours: dict[str, Job] = {}
        self._workers = itertools.count(1)

    @property
    def lease(self) -> timedelta:
        """How long a claim lives."""
        return self.backends[0].capabilities.lease

    @property
    def tick(self) -> timedelta:
        """The shortest time that makes a difference."""
        return max(self.backends[0].capabilities.granularity, timedelta(microseconds=1))

    def some(self, items: Iterable[T]) -> Iterator[T]:
        """Return what to ask one after the other: of a slow store, every fifth."""
        return itertools.islice(items, 0, None, 1 if self.harness.share > 1 / 5 else 5)

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

    async def settle_in(self, backend: Backend) -> None:
        """Store the neighbours, unless they are there."""
        if self.neighbours:
            return
        jobs = _neighbours(self)
        at_once = backend.capabilities.bulk_limit or len(jobs)
        for start in range(0, len(jobs), at_once):
            stored = await backend.add(jobs[start : start + at_once])
            self.neighbours |= {job.id: job for job in stored}

    async def expect_neighbours(self) -> None:
        """Expect that nothing has changed the neighbours."""
        if self.neighbours:
            backend = self.backends[-1] if self.backends else await self.open()
            try:
                await backend.get(next(iter(self.neighbours)))
            except BackendUnavailable:
                raise
            except BackendError:  # the law has closed it
                backend = await self.open()
            for job in self.neighbours.values():
                stored = await backend.get(job.id)
                assert stored == job, f"{job.id!r} was left alone and has changed: {stored!r}"

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

    # -- steps

    async def added(self, backend: Backend, *jobs: Job) -> list[Job]:
        """Add jobs and return them as stored; the first ones get neighbours."""
        await self.settle_in(backend)
        return list(await backend.add(jobs))

    async def due(self, backend: Backend, limit: int = 10, **room: Any) -> list[Claim]:
        """Claim what is due; ``room`` may name queues and tell what is accepted."""
        claimed = await backend.claim_due(Room(limit, **room))
        assert isinstance(claimed, Claimed), f"claim_due returned {claimed!r}, which is no Claimed"
        return list(claimed.claims)

    async def claim(self, backend: Backend) -> Claim:
        """Claim exactly one job; there must be exactly one to claim."""
        claims = await self.due(backend)
        assert len(claims) == 1, f"expected one claim, got {[claim.job.id for claim in claims]}"
        return claims[0]

    async def lapse(self, backend: Backend) -> list[Execution]:
        """Have a backend end the claims whose lease has ended; return what it says of them."""
        claimed = await backend.claim_due(Room(10))
        ids = [claim.job.id for claim in claimed.claims]
        assert not ids, f"{ids} are handed out at once after a lost claim, without a wait"
        return list(claimed.lapsed)

    async def take_over(self, backend: Backend, job_id: str = "job") -> Claim:
        """Let the lease of a claim end, and claim its job again after the wait."""
        await self.advance(self.lease)
        await self.lapse(backend)
        due = (await self.stored(backend, job_id)).standing.due_at
        assert due is not None, f"{job_id!r} is never due after a lost claim"
        if due > self.clock.now():
            await self.advance(due - self.clock.now())
        return await self.claim(backend)

    async def renew(
        self, backend: Backend, claims: Sequence[Claim], *, alone: bool = False
    ) -> list[Claim]:
        """Renew claims."""
        return list(await backend.renew([Renewal(claim, alone) for claim in claims]))

    async def remove(
        self, backend: JobStore, job_id: str, executions: Sequence[Execution] = ()
    ) -> None:
        """Remove a job as it is stored now."""
        await backend.remove(await self.stored(backend, job_id), executions)

    async def settle(self, backend: Backend, settlement: Settlement) -> Settled:
        """Settle one."""
        (settled,) = await backend.settle([settlement])
        return settled

    async def stored(self, backend: JobStore, job_id: str = "job") -> Job:
        """Return a job that must be there."""
        job = await backend.get(job_id)
        assert isinstance(job, Job), f"expected job {job_id!r} to be stored, got {job!r}"
        return job

    async def history(self, backend: Backend, **query: Any) -> list[Execution]:
        """Return the whole history, newest first, through small pages; all of it can be read."""
        found = await self.records(backend, **query)
        executions = [execution for execution in found if isinstance(execution, Execution)]
        assert executions == found, f"records cannot be read: {found}"
        return executions

    async def records(
        self, backend: Backend, limit: int = 3, **query: Any
    ) -> list[Execution | UndecodableExecution]:
        """Return the whole history, newest first, through small pages."""
        found: list[Execution | UndecodableExecution] = []
        after: str | None = None
        seen: set[str] = set()
        while True:
            page = await backend.executions(ExecutionQuery(**query), after=after, limit=limit)
            assert len(page.items) <= limit, "a page is longer than its limit"
            found += page.items
            after = onward(page, seen)
            if after is None:
                return found
            assert page.items, "an empty page must be the last one"

    async def jobs(self, backend: Backend, limit: int = 3, **query: Any) -> list[Job | Undecodable]:
        """Return all jobs that match, through small pages, and leave out the neighbours."""
        asked = JobQuery(**query)
        found: list[Job | Undecodable] = []
        after: str | None = None
        seen: set[str] = set()
        while True:
            page = await backend.jobs(asked, after=after, limit=limit)
            assert len(page.items) <= limit, "a page is longer than its limit"
            found += page.items
            after = onward(page, seen)
            if after is None:
                break
            assert page.items, "an empty page must be the last one"
        others = sorted(job.id for job in found if job.id in self.neighbours)
        expected = sorted(job.id for job in self.neighbours.values() if selects(asked, job))
        assert others == expected, (
            f"of the other jobs expected {expected} for {asked}, got {others}"
        )
        return self.apart(found)

    async def holds(self, backend: Backend, limit: int = 2, **query: Any) -> list[Hold]:
        """Return all claims that match, through small pages, by the ids of their jobs."""
        found: list[Hold] = []
        after: str | None = None
        seen: set[str] = set()
        while True:
            page = await backend.claims(ClaimQuery(**query), after=after, limit=limit)
            assert len(page.items) <= limit, "a page is longer than its limit"
            found += page.items
            after = onward(page, seen)
            if after is None:
                break
            assert page.items, "an empty page must be the last one"
        ids = [hold.job_id for hold in found]
        if backend.capabilities.ordered:
            assert ids == sorted(ids), f"claims come in the order {ids}"
        return sorted(found, key=lambda hold: hold.job_id)

    async def found(
        self, backend: Backend, execution_id: str
    ) -> Execution | UndecodableExecution | None:
        """Return the execution with the id."""
        return await backend.execution(execution_id)

    async def followed(
        self, backend: Backend, after: str | None, limit: int = 3
    ) -> tuple[list[Execution | UndecodableExecution], str]:
        """Follow the history to its present end, through small parts; return the cursor, too.

        Other clients of the store may have transactions open: what these keep back is waited for.
        """
        found: list[Execution | UndecodableExecution] = []
        waited = 0.0
        for _ in range(ENDLESS):
            part = await backend.follow(after, limit=limit)
            assert len(part.executions) <= limit, "a part is longer than its limit"
            assert isinstance(part.cursor, str), f"the cursor is {part.cursor!r}"
            found += part.executions
            after = part.cursor
            if part.waits_since is not None and waited < self.harness.patience:
                waited += SHORTLY
                await pause(SHORTLY)
            elif not part.executions:
                return found, part.cursor
        raise AssertionError(f"after {ENDLESS} parts the history goes on")

    def apart(self, jobs: Sequence[Job | Undecodable]) -> list[Job | Undecodable]:
        """Return the jobs without the neighbours."""
        return [job for job in jobs if job.id not in self.neighbours]

    def summary(self, executions: Sequence[Execution]) -> list[tuple[int, int, str]]:
        """Return number, attempt and status of executions, oldest first."""
        return [
            (execution.number, execution.attempt, execution.status.value)
            for execution in reversed(executions)
        ]


def _neighbours(bench: Bench) -> list[Job]:
    """Build jobs in all states, that come before, between and after those of the laws."""
    far = START.replace(year=9000)
    active = bench.job("0 neighbour", due=far, schedule=Interval(hours=1))
    begun = Pending(8, far, far, attempts=2, failures=1, began_at=START)
    paused = bench.job("k neighbour", due=None, group="others", metadata={"tenant": "8"})
    ahead = Pending(1, whole(far), whole(far))
    finished = bench.job("~ neighbour \U0001f600", due=None, name=None, group=None, metadata={})
    return [
        evolve(active, standing=evolve(active.standing, last_number=8, scheduled=begun)),
        evolve(paused, declared=True, standing=evolve(paused.standing, scheduled=ahead)),
        bench.finished(finished, expires_at=whole(far)),
    ]


__all__ = ["FIELDS", "KEEP", "SECOND", "START", "Bench", "whole"]
