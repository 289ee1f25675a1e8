"""Implement the scheduler's port over a :class:`~sched_sql._shared.table.Table`, and wake waiters.

:class:`DatabaseBackend` is what the backends of both dialects have in common. What only one
database can do is in the class of its dialect, which overrides the hooks.
"""

from __future__ import annotations

import functools
import os
import threading
import weakref
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, TypeVar

import anyio
from anyio.lowlevel import checkpoint_if_cancelled

from sched_core import (
    Capabilities,
    Claim,
    Claimed,
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
    Renewal,
    Room,
    Settled,
    Settlement,
    Status,
    Undecodable,
    UndecodableExecution,
    WorkerState,
)
from sched_core._support.logger import Logger
from sched_core.affinity import Affinity
from sched_core.clock import Clock
from sched_core.errors import BackendError, InvalidDefinition, SchedError
from sched_sql._shared.table import ClaimBatch, Table
from sched_sql._shared.threads import WIND_UP, CallThread, Lane, Soon, running_soon
from sched_sql._shared.waking import Waking

logger = Logger("sched_sql")
T = TypeVar("T")

LEASE, TIMEOUT = timedelta(seconds=30), timedelta(seconds=10)
"""The defaults of both dialects."""

LINGER = 1.0
"""Seconds for which closing waits for calls that are under way, and then for those it cut off."""


class DatabaseBackend(Waking):
    """Jobs in a database; :class:`~sched_sql.SqliteBackend`, :class:`~sched_sql.PostgresBackend`.

    Args:
        table: The database.
        capabilities: What the backend promises.
    """

    _table: Table

    def __init__(self, table: Table, capabilities: Capabilities) -> None:
        super().__init__(table, capabilities)
        self._name = f"this {type(self).__name__}"
        self._affinity = Affinity(self._name)
        self._loop_thread = 0
        self._threads: dict[Lane, CallThread] | None = None
        self._soon: Soon | None = None
        self._has_reported = False

    def __str__(self) -> str:
        """Return which database this is, without user's password, for people."""
        return str(self._table)

    @property
    def capabilities(self) -> Capabilities:
        return self._capabilities

    # -- what a dialect may do in its own way

    def _joined(self, lane: Lane) -> Lane:
        """Return the lane whose thread makes this lane's calls, too."""
        return lane

    def _deciding(self, clock: Clock) -> Clock:
        """Return the clock that decides what is due: the scheduler's, or the database's own."""
        return clock

    def _leave_loop(self) -> None:
        """Close what belongs to the event loop, before the table is closed."""

    # -- the threads

    async def _call(self, lane: Lane, function: Callable[..., T], *args: Any) -> T:
        call = functools.partial(self._translated, function, args)
        return await self._thread(lane).call(call)

    def _thread(self, lane: Lane) -> CallThread:
        threads, soon = self._threads, self._soon
        if threads is None or soon is None:
            raise BackendError(f"{self._name} is not open: use it through a Scheduler")
        self._affinity.check()
        thread = threads.get(lane)
        if thread is None:
            joined = self._joined(lane)
            thread = threads.get(joined) or CallThread(f"sched {joined}", soon)
            threads[lane] = threads[joined] = thread
        return thread

    def _translated(self, function: Callable[..., T], args: tuple[Any, ...]) -> T:
        try:
            return function(*args)
        except Exception as error:
            failure = self._table.failure(error)
            if failure is error:
                raise
            raise failure from error

    def _now(self) -> datetime:
        if self._clock is None:
            raise BackendError(f"{self._name} is not open: use it through a Scheduler")
        return self._clock.now()

    async def open(self, clock: Clock, *, worker: str) -> Clock:
        if self._threads is not None:
            self._affinity.check_process()
            raise BackendError(f"{self._name} is open already: use one for each Scheduler")
        self._affinity, self._soon = Affinity(self._name), running_soon()
        self._loop_thread = threading.get_ident()
        self._threads = {}
        decides = self._deciding(clock)
        try:
            await self._call(Lane.EDIT, self._table.open, worker, decides.now)
        except BaseException as error:
            # After a cancellation the call is still under way, and may hang.
            await self._shut(LINGER if isinstance(error, Exception) else WIND_UP)
            raise
        self._clock = decides
        _OPEN.add(self)
        return decides

    async def close(self) -> None:
        if self._threads is None or not self._affinity.is_of_this_process:
            return
        self._affinity.check()
        _OPEN.discard(self)
        try:
            failure = await self._shut(LINGER)
        finally:
            self._clock = None
            self._alarm.nudge()
            self._cancels.nudge()
        if failure is not None:
            raise failure

    async def _shut(self, patience: float) -> BaseException | None:
        """Disconnect within a bounded time, whatever the store does; return what went wrong.

        Args:
            patience: Seconds for calls under way, then for closing, then for what was cut off.
        """
        closing = self._thread(Lane.CLOSE)
        editing = self._thread(Lane.EDIT)
        threads, self._threads = set((self._threads or {}).values()), None
        with anyio.CancelScope(shield=True):
            idle = [thread.post(_nothing) for thread in threads]
            if self._has_reported:
                # No longer than for all else: who is killed leaves its report behind, too.
                self._has_reported = False
                idle.append(editing.post(self._withdraw))
            with anyio.move_on_after(patience):
                for each in idle:
                    await each.ended.wait()
            self._leave_loop()
            if not all(each.ended.is_set() for each in idle):
                self._table.cut_off()
            closed = closing.post(functools.partial(self._translated, self._table.close, ()))
            with anyio.move_on_after(patience) as waiting:
                await closed.ended.wait()
            if waiting.cancelled_caught:
                self._table.cut_off()
                with anyio.move_on_after(patience):
                    await closed.ended.wait()
        for thread in threads:
            thread.end()
        if not closed.ended.is_set():
            logger.warning("the store does not answer: it is left without being closed")
        return closed.error

    def _withdraw(self) -> None:
        """Delete what this worker has reported; from the lane's thread."""
        try:
            self._translated(self._table.withdraw, ())
        except SchedError as error:
            logger.info("the worker's report is left to be forgotten: %s", error)

    def forked(self) -> None:
        """Let go of the parent's locks; called in a forked child process."""
        self._table.forked()

    async def check(self) -> None:
        await self._call(Lane.EDIT, self._table.check)

    # -- probes

    async def due_since(self) -> datetime | None:
        return await self._call(Lane.EDIT, self._table.due_since, self._now)

    async def live_workers(self) -> Sequence[str] | None:
        self._thread(Lane.EDIT)  # it refuses where the backend is not open
        return None

    # -- definitions

    async def add(self, jobs: Sequence[Job]) -> Sequence[Job]:
        added = await self._call(Lane.EDIT, self._table.add, jobs)
        self._nudge(added)
        return added

    async def get(self, job_id: str) -> Job | Undecodable | None:
        return await self._call(Lane.EDIT, self._table.get, job_id)

    async def replace(self, job: Job, executions: Sequence[Execution] = ()) -> Job:
        replaced = await self._call(Lane.EDIT, self._table.replace, job, executions)
        self._nudge([replaced])
        if replaced.held is not None and replaced.standing.is_marked(replaced.held):
            self._marked()
        return replaced

    async def remove(self, job: Job, executions: Sequence[Execution] = ()) -> None:
        await self._call(Lane.EDIT, self._table.remove, job, executions)
        if any(each.status is Status.CANCELLED for each in executions):
            self._marked()

    async def jobs(
        self, query: JobQuery, *, after: str | None, limit: int
    ) -> Page[Job | Undecodable]:
        return await self._call(Lane.EDIT, self._table.jobs, query, after, limit)

    # -- claims

    async def claim_due(self, room: Room) -> Claimed:
        batch, thread = ClaimBatch(room, self._now()), self._thread(Lane.CLAIM)
        arguments = (batch, self._now)
        try:
            await thread.call(functools.partial(self._translated, self._table.claim, arguments))
            await checkpoint_if_cancelled()
        except BaseException:
            # The release follows the claim in its lane, where a cancelled claim goes on.
            back = thread.post(functools.partial(self._give_back, batch.claims, self._now))
            with anyio.move_on_after(WIND_UP, shield=True):
                await back.ended.wait()
            raise
        return Claimed(batch.claims, batch.lapsed)

    def _give_back(self, claims: Sequence[Claim], now: Callable[[], datetime]) -> None:
        """Release what was claimed for a caller that does not get it; from the lane's thread."""
        try:
            if claims:
                self._translated(self._table.release, (claims, now))
        except SchedError as error:
            logger.info("claims are left to their leases: %s", error)

    async def renew(self, renewals: Sequence[Renewal]) -> Sequence[Claim]:
        return await self._call(Lane.RENEW, self._table.renew, renewals, self._now)

    async def settle(self, settlements: Sequence[Settlement]) -> Sequence[Settled]:
        settled = await self._call(Lane.SETTLE, self._table.settle, settlements, self._now)
        self._after(settlements)
        return settled

    async def release(self, claims: Sequence[Claim]) -> None:
        await self._call(Lane.CLAIM, self._table.release, claims, self._now)
        self._alarm.nudge()

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


def check_duration(name: str, value: object, *, least: timedelta) -> None:
    """Refuse an option that is no duration, or too short.

    Raises:
        InvalidDefinition: Names the option.
    """
    if not isinstance(value, timedelta) or value < least:
        raise InvalidDefinition(name, f"must be a timedelta of {least} or more, not {value!r}")


def _nothing() -> None:
    """Return at once: a call of this tells that the calls before it are done."""


_OPEN: weakref.WeakSet[DatabaseBackend] = weakref.WeakSet()


def _in_child() -> None:
    for backend in list(_OPEN):
        backend.forked()


os.register_at_fork(after_in_child=_in_child)
