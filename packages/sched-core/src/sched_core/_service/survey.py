"""What users see of a store: what runs, who works, what was written, and how much there is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Literal

from attrs import evolve

from sched_core._model.execution import Execution
from sched_core._model.survey import (
    CountQuery,
    Counts,
    Running,
    WorkerState,
    running,
    unserved_queues,
)
from sched_core.clock import FIRST, Clock, instant_after
from sched_core.errors import ExecutionNotFound, InvalidDefinition, shown
from sched_core.ports import Backend, ClaimQuery, Followed, UndecodableExecution
from sched_core.schedule import utc

PAGE = 200
MOST_JOBS = 200
"""The most jobs of one call of ``recent_executions``."""


class Survey(ABC):
    """The calls of a scheduler that look, and change nothing."""

    @abstractmethod
    def _looking(self) -> tuple[Backend, Clock]:
        """Return the open backend and the clock that decides."""

    async def list_running(self, query: ClaimQuery | None = None) -> AsyncIterator[Running]:
        """Iterate over the runs that workers have, here and elsewhere.

        A run whose worker has died is listed until another worker takes note; its ``lease_left`` is
        negative by then.

        Args:
            query: A choice; without it, all come.
        """
        backend, clock = self._looking()
        query, after = query or ClaimQuery(), None
        while True:
            page = await backend.claims(query, after=after, limit=PAGE)
            for hold in page.items:
                found = running(hold, clock.now())
                if found is not None:
                    yield found
            if (after := page.next) is None:
                return

    async def list_workers(self) -> Sequence[WorkerState]:
        """Return the workers that run on this store, by name, each with its last sign of life.

        A worker reports every few seconds while it runs. One that was killed is listed for a day:
        ``seen_at`` tells.
        """
        backend, _ = self._looking()
        return await backend.workers()

    async def get_execution(self, id: str) -> Execution:
        """Return an execution by its id, ``uid:number:attempt``.

        Raises:
            ExecutionNotFound: There is none, it was deleted, or this version cannot read it.
        """
        backend, _ = self._looking()
        found = await backend.execution(id)
        if found is None:
            raise ExecutionNotFound(id)
        if isinstance(found, UndecodableExecution):
            raise ExecutionNotFound(id, f"it cannot be read here: {found.reason}")
        return found

    async def recent_executions(
        self, ids: Sequence[str], limit: int = 30
    ) -> Mapping[str, Sequence[Execution | UndecodableExecution]]:
        """Return the newest executions of each of some jobs, newest first.

        One call is cheaper than a ``list_executions`` for each job.

        Args:
            ids: The ids of at most 200 jobs.
            limit: The most executions of each, from 1 to 100.

        Raises:
            InvalidDefinition: There are more ids, or ``limit`` is out of bounds.
        """
        backend, _ = self._looking()
        if len(ids) > MOST_JOBS:
            raise InvalidDefinition("ids", f"must be at most {MOST_JOBS}, not {len(ids)}")
        if not 1 <= limit <= 100:
            raise InvalidDefinition("limit", f"must be from 1 to 100, not {limit!r}")
        return await backend.recent(ids, limit=limit)

    async def counts(
        self,
        since: datetime | timedelta = timedelta(hours=24),
        *,
        until: datetime | None = None,
        by: Literal["hour", "job", "error"] | None = None,
        overdue: timedelta = timedelta(minutes=1),
    ) -> Counts:
        """Count jobs by state, what is due and running, and executions by status.

        Args:
            since: The moment, with a time zone, or how long ago: executions that finished since
                then are counted.
            until: The moment before which executions must have finished to be counted.
            by: What executions are counted by as well: ``"hour"`` (in UTC), ``"job"``, or the kind
                of ``"error"``.
            overdue: How long a job must be due, and no worker have it, to be overdue.

        Raises:
            InvalidDefinition: A value is out of bounds.
        """
        backend, clock = self._looking()
        if isinstance(since, timedelta):
            since = _before(clock.now(), since)
        if by not in (None, "hour", "job", "error"):
            raise InvalidDefinition(
                "by", f"must be 'hour', 'job', 'error' or None, not {shown(by)}"
            )
        if not isinstance(overdue, timedelta) or overdue < timedelta(0):  # type: ignore[redundant-expr]  # callers may not type-check
            raise InvalidDefinition("overdue", f"must be a timedelta, not {shown(overdue)}")
        end = None if until is None else utc(until, "until")
        counts = await backend.counts(CountQuery(utc(since, "since"), end, by, overdue))
        if not counts.due:
            return counts
        unserved = unserved_queues(counts, await backend.workers(), counts.as_of)
        return evolve(counts, unserved=unserved)

    async def follow(
        self,
        after: str | None = None,
        *,
        poll: timedelta = timedelta(seconds=1),
        limit: int = PAGE,
    ) -> AsyncIterator[Followed]:
        """Iterate without end over what is written to the history, by all workers of the store.

        Each part comes in the order of commit, and has the cursor with which to go on. An execution
        comes at least once: store the cursor after you have handled the part, and begin with it
        after a restart. Parts may be empty: their cursor is newer, and ``waits_since`` tells of an
        open transaction that keeps later executions back.

        Args:
            after: The cursor of the last part that you have handled; ``None`` begins with what is
                written from now on, an empty text with the oldest that is there.
            poll: How long to wait after a part that had nothing.
            limit: The most executions in a part.

        Raises:
            CursorExpired: Executions after the cursor have been deleted before you read them.
            InvalidDefinition: The cursor is not one of this store.
        """
        backend, clock = self._looking()
        told: tuple[str, datetime | None] | None = None
        while True:
            part = await backend.follow(after, limit=limit)
            after = part.cursor
            if part.executions or told != (part.cursor, part.waits_since):
                told = part.cursor, part.waits_since
                yield part
            if not part.executions:
                await clock.sleep_until(instant_after(clock.now(), poll))


def _before(moment: datetime, by: timedelta) -> datetime:
    try:
        return moment - by
    except OverflowError:
        return FIRST
