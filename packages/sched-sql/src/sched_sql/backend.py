"""The scheduler port over a :class:`~sched_sql.table.Table`: one table thread, and the waking up.

The table thread has a limiter of its own: forty slow sync handlers may fill the default one, and
settles must go on meanwhile.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Literal, TypeVar

import anyio
from anyio import to_thread
from anyio.lowlevel import checkpoint_if_cancelled

from sched_core.clock import Alarm, Clock, cpu_seconds, pause
from sched_core.errors import BackendError, InvalidDefinition, SchedError, SchedulerForked
from sched_core.job import Claim, Execution, Job, Settled, Settlement
from sched_core.ports import (
    MAX_POLL,
    Capabilities,
    ExecutionQuery,
    JobQuery,
    Page,
    Undecodable,
)
from sched_sql.sqlite import SqliteTable
from sched_sql.table import Table

T = TypeVar("T")

LOOK_EVERY = 0.2
"""Seconds between looks whether another process has written, while waiting."""

BURY_EVERY = 1.0
"""Seconds between looks whether another worker has died."""


class SqlBackend:
    """Jobs in a database.

    Args:
        where: ``"sqlite:///relative.db"``, ``"sqlite:////absolute.db"``, or a path.
        lease: How long a claim lives unless it is renewed.
        synchronous: ``"FULL"``: adds, edits and settles survive a power loss. ``"NORMAL"``: they
            survive the death of every process; a power loss may take back the last ones.
        timeout: How long to wait for another process's transaction.

    Raises:
        InvalidDefinition: The address or an option cannot be.
    """

    def __init__(
        self,
        where: str | os.PathLike[str],
        *,
        lease: timedelta = timedelta(seconds=30),
        synchronous: Literal["FULL", "NORMAL"] = "FULL",
        timeout: timedelta = timedelta(seconds=10),
    ) -> None:
        _check_duration("lease", lease, least=timedelta(milliseconds=1))
        _check_duration("timeout", timeout, least=timedelta(0))
        if synchronous not in {"FULL", "NORMAL"}:
            raise InvalidDefinition(
                "synchronous", f"must be 'FULL' or 'NORMAL', not {synchronous!r}"
            )
        self._table: Table = SqliteTable(
            _path(where), synchronous=synchronous, timeout=timeout.total_seconds()
        )
        self._capabilities = Capabilities(
            durable=True,
            shared=True,
            time="clock",
            granularity=timedelta(microseconds=1),
            lease=lease,
        )
        self._lease = lease
        self._clock: Clock | None = None
        self._process = 0
        self._limiter: anyio.CapacityLimiter | None = None
        self._turn = threading.Lock()
        self._alarm = Alarm()
        self._sleeps_until: datetime | None = None
        self._buried = 0.0

    @property
    def capabilities(self) -> Capabilities:
        return self._capabilities

    # -- the table thread

    def _in_turn(self, function: Callable[..., T], args: tuple[Any, ...]) -> T:
        # The limiter alone is not enough: asyncio's own cancellation leaves it while the thread
        # goes on.
        with self._turn:
            try:
                return function(*args)
            except Exception as error:
                failure = self._table.failure(error)
                if failure is error:
                    raise
                raise failure from error

    async def _call(self, function: Callable[..., T], *args: Any) -> T:
        if self._limiter is None:
            raise BackendError("this SqlBackend is not open: use it through a Scheduler")
        self._refuse_fork()
        return await to_thread.run_sync(self._in_turn, function, args, limiter=self._limiter)

    def _refuse_fork(self) -> None:
        if self._process != os.getpid():
            raise SchedulerForked(
                "this SqlBackend was opened by the parent process: open a new one in the child"
            )

    def _now(self) -> datetime:
        if self._clock is None:
            raise BackendError("this SqlBackend is not open: use it through a Scheduler")
        return self._clock.now()

    async def open(self, clock: Clock, *, worker: str) -> Clock:
        if self._limiter is not None:
            self._refuse_fork()
            raise BackendError("this SqlBackend is open already: use one for each Scheduler")
        self._process = os.getpid()
        self._limiter = anyio.CapacityLimiter(1)
        try:
            await self._call(self._table.open, worker, clock.now)
        except BaseException:
            with anyio.CancelScope(shield=True):
                try:
                    await self._call(self._table.close)
                except SchedError:
                    pass  # what led here says more
            self._limiter = None
            raise
        self._clock = clock
        self._buried = cpu_seconds()
        _OPEN.add(self)
        return clock

    async def close(self) -> None:
        if self._limiter is None or self._process != os.getpid():
            return
        _OPEN.discard(self)
        with anyio.CancelScope(shield=True):
            try:
                await self._call(self._table.close)
            finally:
                self._limiter = self._clock = None
                self._alarm.nudge()

    def forked(self) -> None:
        """Let go of the parent's locks; called in a forked child."""
        self._table.forked()

    async def check(self) -> None:
        await self._call(self._table.check)

    # -- definitions

    async def add(self, jobs: Sequence[Job]) -> Sequence[Job]:
        added = await self._call(self._table.add, jobs)
        self._nudge(added)
        return added

    async def get(self, job_id: str) -> Job | Undecodable | None:
        return await self._call(self._table.get, job_id)

    async def replace(self, job: Job, ledger: Sequence[Execution] = ()) -> Job:
        replaced = await self._call(self._table.replace, job, ledger)
        self._nudge([replaced])
        return replaced

    async def remove(
        self, job_id: str, ledger: Sequence[Execution] = (), *, expected: int | None = None
    ) -> bool:
        return await self._call(self._table.remove, job_id, ledger, expected)

    async def jobs(
        self, query: JobQuery, *, after: str | None, limit: int
    ) -> Page[Job | Undecodable]:
        return await self._call(self._table.jobs, query, after, limit)

    # -- waking up

    def _nudge(self, jobs: Sequence[Job]) -> None:
        """Wake the sleeper if one of the jobs is due before it would wake by itself."""
        until = self._sleeps_until
        for job in jobs:
            due_at = job.standing.due_at
            if due_at is not None and (until is None or due_at < until):
                self._alarm.nudge()
                return

    async def wait_due(self, limit: int) -> None:
        now, clock = self._now(), self._clock
        seen, horizon = self._alarm.count, now + MAX_POLL
        if cpu_seconds() - self._buried > BURY_EVERY:
            await self._bury()
        # Until it is known how long to sleep, every job that is written counts.
        self._sleeps_until = None
        earliest = await self._call(self._table.earliest, horizon)
        until = horizon if earliest is None else min(earliest, horizon)
        if clock is None or until <= now:
            return
        self._sleeps_until = until
        failures: list[Exception] = []
        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._watch, until, failures)
                await self._alarm.sleep(clock, until, seen)
                tasks.cancel_scope.cancel()
        finally:
            self._sleeps_until = None
        if failures:
            raise failures[0]

    async def _watch(self, until: datetime, failures: list[Exception]) -> None:
        """Nudge when another process has written something that is due before the sleep ends."""
        try:
            while True:
                await pause(LOOK_EVERY)
                freed = cpu_seconds() - self._buried > BURY_EVERY and await self._bury()
                if await self._call(self._table.changed) or freed:
                    earliest = await self._call(self._table.earliest, until)
                    if earliest is not None and earliest < until:
                        self._alarm.nudge()
        except SchedError as error:
            failures.append(error)  # as it is, not in the task group's ExceptionGroup
            self._alarm.nudge()

    async def _bury(self) -> bool:
        self._buried = cpu_seconds()
        return await self._call(self._table.free_dead, self._now)

    # -- claims

    async def claim_due(self, limit: int) -> Sequence[Claim]:
        claims: list[Claim] = []
        asked = self._now()
        try:
            await self._call(self._table.claim, claims, limit, self._lease, self._now, asked)
            await checkpoint_if_cancelled()
        except Exception:
            raise  # the transaction failed: nothing is claimed
        except BaseException:
            # Cancelled. The thread may still be at it: the release waits for its turn.
            with anyio.CancelScope(shield=True):
                try:
                    await self._call(self._table.release, claims, self._now)
                except SchedError:
                    pass  # left to the lease
            raise
        return claims

    async def renew(self, claims: Sequence[Claim]) -> Sequence[Claim]:
        return await self._call(self._table.renew, claims, self._lease, self._now)

    async def settle(self, settlements: Sequence[Settlement]) -> Sequence[Settled]:
        settled = await self._call(self._table.settle, settlements)
        until = self._sleeps_until
        for settlement in settlements:
            standing = settlement.standing
            # Where it leaves the job alone, only the store knows when that is due.
            due_at = until if standing is None else standing.due_at
            if standing is None or (due_at is not None and (until is None or due_at < until)):
                self._alarm.nudge()
                break
        return settled

    async def release(self, claims: Sequence[Claim]) -> None:
        await self._call(self._table.release, claims, self._now)
        self._alarm.nudge()

    # -- the ledger

    async def executions(
        self, query: ExecutionQuery, *, after: str | None, limit: int
    ) -> Page[Execution]:
        return await self._call(self._table.executions, query, after, limit)

    async def prune(self, before: datetime) -> int:
        deleted = 0
        cursor: int | None = 0
        while cursor is not None:
            number, cursor = await self._call(self._table.prune, before, self._now, cursor)
            deleted += number
        return deleted


def _check_duration(name: str, value: object, *, least: timedelta) -> None:
    if not isinstance(value, timedelta) or value < least:
        raise InvalidDefinition(name, f"must be a timedelta of {least} or more, not {value!r}")


def _path(where: str | os.PathLike[str]) -> str:
    """Return the absolute path of an address."""
    text = os.fspath(where)
    scheme, found, rest = text.partition("://")
    if found:
        if scheme in {"postgresql", "postgres", "postgresql+psycopg"}:
            raise InvalidDefinition(
                "where", "PostgreSQL is not supported by this version of sched-sql: only SQLite is"
            )
        if scheme != "sqlite" or not rest.startswith("/"):
            raise InvalidDefinition(
                "where",
                f"{text!r} is not understood: write 'sqlite:///relative.db' or "
                "'sqlite:////absolute.db'",
            )
        text = rest[1:]
    if not text or text == ":memory:" or "\0" in text:
        raise InvalidDefinition(
            "where", f"{where!r} names no file; for jobs in memory use MemoryBackend"
        )
    return str(Path(text).absolute())


_OPEN: weakref.WeakSet[SqlBackend] = weakref.WeakSet()


def _in_child() -> None:
    for backend in list(_OPEN):
        backend.forked()


os.register_at_fork(after_in_child=_in_child)
