"""What tests of databases share: backends on one store, jobs, and settlements as the rules'."""

from __future__ import annotations

import contextlib
import itertools
import uuid
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import anyio
from tests import postgres_server

from sched_core import (
    Backend,
    Claim,
    Execution,
    ExecutionQuery,
    Interval,
    Job,
    JobSpec,
    Pending,
    Renewal,
    Schedule,
    Settled,
    Settlement,
    Standing,
)
from sched_core.testing import FakeClock
from sched_sql import SqlBackend
from sched_testkit._suite.builders import execution_of, success_of

NOW = datetime(2026, 1, 1, 12, 0, 0, 123456, tzinfo=UTC)
LEASE = timedelta(seconds=30)
MINUTE = timedelta(minutes=1)


class Store:
    """One store, of which several workers can open backends."""

    def __init__(self, kind: str, folder: Path) -> None:
        self.kind = kind
        self.path = folder / "jobs.db"
        self.clock = FakeClock(NOW)
        self._names = (f"worker-{number}" for number in itertools.count(1))
        self._opened: list[Backend] = []
        self._schema = contextlib.ExitStack()
        self._place = (
            self._schema.enter_context(postgres_server.schema()) if kind == "postgres" else None
        )

    async def open(self) -> Backend:
        backend: Backend
        if self._place is not None:
            address, schema = self._place
            backend = SqlBackend(address, schema=schema, time="clock", lease=LEASE)
        else:
            backend = SqlBackend(self.path, lease=LEASE)
        await backend.open(self.clock, worker=next(self._names))
        self._opened.append(backend)
        return backend

    async def close(self) -> None:
        for backend in self._opened:
            await backend.close()
        self._schema.close()


def run(
    test: Callable[[Store], Awaitable[None]], kind: str, folder: Path, loop: str = "asyncio"
) -> None:
    """Run a test on a new store."""

    async def main() -> None:
        store = Store(kind, folder)
        with anyio.fail_after(30):
            await test(store)
            await store.close()

    anyio.run(main, backend=loop)


def job(
    job_id: str = "a",
    due_at: datetime | None = NOW,
    *,
    schedule: Schedule | None = None,
    number: int = 1,
    attempts: int = 0,
    expires_at: datetime | None = None,
    uid: str | None = None,
    **spec: Any,
) -> Job:
    """Return a new incarnation whose pending occurrence is due at a moment; at none: finished."""
    one = None
    if due_at is not None:
        one = Pending(number, due_at, due_at, attempts=attempts)
    return Job(
        JobSpec(job_id, schedule or Interval(minutes=1), **spec),
        uid or uuid.uuid4().hex,
        declared=False,
        anchor=NOW,
        standing=Standing(number, one, due_at, expires_at=expires_at),
    )


def done(claim: Claim, at: datetime = NOW, *, next_run: datetime | None = None) -> Settlement:
    """Return what ends the claim's occurrence and goes on to the next one."""
    kept = claim.job.spec.policy.keep_executions
    expires_at = at + kept if isinstance(kept, timedelta) else None
    execution = execution_of(claim, at, expires_at=expires_at)
    return success_of(claim, at, due=next_run, executions=[execution], keep=True)


async def history(backend: Backend, job_id: str | None = None, **query: Any) -> list[Execution]:
    """Return the whole history, oldest first, read in small pages."""
    found: list[Execution] = []
    after: str | None = None
    while True:
        page = await backend.executions(
            ExecutionQuery(job_id=job_id, **query), after=after, limit=3
        )
        for each in page.items:
            assert isinstance(each, Execution), each
            found.append(each)
        after = page.next
        if after is None:
            return found[::-1]


async def statuses(backend: Backend, job_id: str | None = None) -> list[tuple[int, int, str, bool]]:
    """Return number, attempt, status and finality of each execution, oldest first."""
    return [
        (one.number, one.attempt, one.status.value, one.final)
        for one in await history(backend, job_id)
    ]


def renewals(claims: Sequence[Claim], *, alone: bool = False) -> list[Renewal]:
    return [Renewal(claim, alone) for claim in claims]


def outcomes(settled: Sequence[Settled]) -> list[str]:
    return [one.outcome for one in settled]


async def stored(backend: Backend, job_id: str = "a") -> Job:
    found = await backend.get(job_id)
    assert isinstance(found, Job)
    return found
