"""The calls of a backend that look at a store, keep its workers' reports, and prune its history."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any, TypeVar

from sched_core import (
    ClaimQuery,
    CountQuery,
    Counts,
    Execution,
    ExecutionQuery,
    Followed,
    Hold,
    Job,
    JobQuery,
    Page,
    Undecodable,
    UndecodableExecution,
    WorkerState,
)
from sched_core._support.logger import Logger
from sched_core.errors import SchedError
from sched_sql._shared.table import Table
from sched_sql._shared.threads import CallThread, Lane

logger = Logger("sched_sql")
T = TypeVar("T")


class LookingBackend(ABC):
    """The part of a backend that waits for nothing, and claims nothing."""

    _table: Table
    _has_reported = False

    @abstractmethod
    def _thread(self, lane: Lane) -> CallThread:
        """Return the thread of a lane."""

    @abstractmethod
    async def _call(self, lane: Lane, function: Callable[..., T], *args: Any) -> T:
        """Call something in the thread of a lane."""

    @abstractmethod
    def _now(self) -> datetime:
        """Return the time by the clock that decides."""

    @abstractmethod
    def _translated(self, function: Callable[..., T], args: tuple[Any, ...]) -> T:
        """Call something in the thread of a lane, and translate its errors."""

    # -- probes

    async def due_since(self) -> datetime | None:
        return await self._call(Lane.EDIT, self._table.due_since, self._now)

    async def live_workers(self) -> Sequence[str] | None:
        self._thread(Lane.EDIT)  # it refuses where the backend is not open
        return None

    # -- definitions

    async def get(self, job_id: str) -> Job | Undecodable | None:
        return await self._call(Lane.EDIT, self._table.get, job_id)

    async def jobs(
        self, query: JobQuery, *, after: str | None, limit: int
    ) -> Page[Job | Undecodable]:
        return await self._call(Lane.EDIT, self._table.jobs, query, after, limit)

    # -- the history

    async def executions(
        self, query: ExecutionQuery, *, after: str | None, limit: int
    ) -> Page[Execution | UndecodableExecution]:
        return await self._call(Lane.EDIT, self._table.executions, query, after, limit)

    async def execution(self, execution_id: str) -> Execution | UndecodableExecution | None:
        return await self._call(Lane.EDIT, self._table.execution, execution_id)

    async def recent(
        self, job_ids: Sequence[str], *, limit: int
    ) -> Mapping[str, Sequence[Execution | UndecodableExecution]]:
        return await self._call(Lane.EDIT, self._table.recent, job_ids, limit)

    async def follow(self, after: str | None, *, limit: int) -> Followed:
        return await self._call(Lane.EDIT, self._table.follow, after, limit, self._now)

    # -- what is going on

    async def claims(self, query: ClaimQuery, *, after: str | None, limit: int) -> Page[Hold]:
        return await self._call(Lane.EDIT, self._table.claims, query, after, limit, self._now)

    async def report(self, state: WorkerState) -> None:
        self._has_reported = True
        await self._call(Lane.EDIT, self._table.report, state)

    async def workers(self) -> Sequence[WorkerState]:
        return await self._call(Lane.EDIT, self._table.workers)

    async def counts(self, query: CountQuery) -> Counts:
        return await self._call(Lane.EDIT, self._table.counts, query, self._now)

    async def prune(self, before: datetime) -> int:
        deleted = 0
        cursor: int | None = 0
        while cursor is not None:
            number, cursor = await self._call(
                Lane.EDIT, self._table.prune, before, self._now, cursor
            )
            deleted += number
        return deleted

    def _withdraw(self) -> None:
        """Delete what this worker has reported; from the lane's thread."""
        try:
            self._translated(self._table.withdraw, ())
        except SchedError as error:
            logger.info("the worker's report is left to be forgotten: %s", error)
