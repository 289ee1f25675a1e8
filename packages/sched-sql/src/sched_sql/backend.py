"""The scheduler port over a :class:`~sched_sql.table.Table`: its threads, and the waking up.

Each lane of the table has a thread of its own: what hangs in one holds up no other.
"""

from __future__ import annotations

import functools
import os
import threading
import weakref
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Literal, TypeVar

import anyio
from anyio.lowlevel import checkpoint_if_cancelled

from sched_core import (
    Capabilities,
    Claim,
    Claimed,
    Execution,
    ExecutionQuery,
    Job,
    JobQuery,
    JobStore,
    Page,
    Renewal,
    Room,
    Settled,
    Settlement,
    Undecodable,
    UndecodableExecution,
)
from sched_core._support.logger import Logger
from sched_core.affinity import Affinity
from sched_core.clock import Alarm, Clock, monotonic_seconds, pause
from sched_core.errors import BackendError, InvalidDefinition, SchedError
from sched_core.ports import MAX_POLL, Transaction
from sched_core.row import check_text
from sched_sql.address import Postgres, address_of
from sched_sql.calls import WIND_UP, Calls, Soon, running_soon
from sched_sql.table import Asked, Locked, Table

logger = Logger("sched_sql")
T = TypeVar("T")

LOOK_EVERY = 0.2
"""Seconds between looks whether another process has written, while waiting unannounced."""

LONGEST_NAME = 63
"""Bytes in a name of PostgreSQL's."""

BURY_EVERY = 1.0
"""Seconds between looks whether another worker has died."""

HANDLER_CONNECTIONS = 10
"""Connections for handlers unless told otherwise: a small server has a hundred for everybody."""

LINGER = 1.0
"""Seconds for which closing waits for calls that are under way, and then for those it cut off."""


class SqlBackend:
    """Jobs in a database.

    Args:
        where: SQLite: ``"sqlite:///relative.db"``, ``"sqlite:////absolute.db"``, or a path.
            PostgreSQL: ``"postgresql://user@host/database"``; what it leaves out, all of it even,
            comes from a libpq service (``"postgresql://?service=name"``) or the environment.
        lease: How long a claim lives unless it is renewed.
        timeout: How long to wait for a lock, and for a server that does not answer.
        synchronous: SQLite only. ``"FULL"``: adds, edits and settles survive a power loss.
            ``"NORMAL"``: they survive the death of every process; a power loss may take back the
            last ones.
        time: PostgreSQL only; who decides what is due and when a lease ends. ``"store"``: the
            server's clock, so that the machines' clocks play no role. ``"clock"``: the clock that
            the scheduler was given, for tests that move time by hand.
        schema: PostgreSQL only. Schedulers on different schemas do not see each other.
        migrate: PostgreSQL only. False: never change the schema, and refuse one that is missing or
            too old; ``python -m sched_sql.postgres`` prints the SQL.
        pooled: PostgreSQL only. The address is that of a pooler which may give each transaction
            another session (PgBouncer in transaction mode): nothing is prepared or listened to, and
            other processes' jobs are found by looking.
        create: False: open a store that is there, and make none; opening raises
            :class:`~sched_core.errors.StoreNotFound` where there is none, and a
            :class:`~sched_core.errors.BackendError` where an older version's is.
        handler_connections: PostgreSQL only. How many connections ``event.transaction()`` uses at
            most, 10 unless given; further handlers wait for one. They come on top of the five that
            each backend has.

    Raises:
        InvalidDefinition: The address or an option cannot be.
        BackendError: The package for PostgreSQL is missing.
    """

    def __init__(
        self,
        where: str | os.PathLike[str],
        *,
        lease: timedelta = timedelta(seconds=30),
        timeout: timedelta = timedelta(seconds=10),
        synchronous: Literal["FULL", "NORMAL"] | None = None,
        time: Literal["store", "clock"] | None = None,
        schema: str | None = None,
        migrate: bool | None = None,
        pooled: bool | None = None,
        create: bool = True,
        handler_connections: int | None = None,
    ) -> None:
        _check_duration("lease", lease, least=timedelta(milliseconds=1))
        _check_duration("timeout", timeout, least=timedelta(0))
        address = address_of(where)
        if isinstance(address, Postgres):
            _refuse("PostgreSQL", synchronous=synchronous)
            time = "store" if time is None else time
            self._table = _postgres_table(
                address.uri,
                schema="sched" if schema is None else schema,
                time=time,
                lease=lease,
                timeout=timeout,
                migrate=migrate is not False,
                pooled=pooled is True,
                create=create,
                handler_connections=(
                    HANDLER_CONNECTIONS if handler_connections is None else handler_connections
                ),
            )
        else:
            _refuse(
                "SQLite",
                time=time,
                schema=schema,
                migrate=migrate,
                pooled=pooled,
                handler_connections=handler_connections,
            )
            time = "clock"
            self._table = _sqlite_table(
                address.path, synchronous=synchronous, timeout=timeout, create=create
            )
        self._capabilities = Capabilities(
            durable=True,
            shared=True,
            time=time,
            granularity=timedelta(microseconds=1),
            lease=lease,
            transactions=isinstance(address, Postgres),
            notified=isinstance(address, Postgres) and pooled is not True,
        )
        self._lease = lease
        self._clock: Clock | None = None
        self._affinity = Affinity("this SqlBackend")
        self._loop_thread = 0
        self._lanes: dict[str, Calls] | None = None
        self._soon: Soon | None = None
        self._alarm = Alarm()
        self._sleeps_until: datetime | None = None
        self._buried = 0.0

    def __str__(self) -> str:
        """Return which database this is, without user's password, for people."""
        return str(self._table)

    @property
    def capabilities(self) -> Capabilities:
        return self._capabilities

    # -- the table's threads

    async def _call(self, function: Callable[..., T], *args: Any) -> T:
        calls = self._lane(function)
        return await calls.call(functools.partial(self._translated, function, args))

    def _lane(self, function: Callable[..., Any]) -> Calls:
        """Return the lane of one of the table's methods."""
        lanes, soon = self._lanes, self._soon
        if lanes is None or soon is None:
            raise BackendError("this SqlBackend is not open: use it through a Scheduler")
        self._affinity.check()
        name = self._table.lane(function.__name__)
        calls = lanes.get(name)
        if calls is None:
            calls = lanes[name] = Calls(f"sched {name}".rstrip(), soon)
        return calls

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
            raise BackendError("this SqlBackend is not open: use it through a Scheduler")
        return self._clock.now()

    async def open(self, clock: Clock, *, worker: str) -> Clock:
        if self._lanes is not None:
            self._affinity.check_process()
            raise BackendError("this SqlBackend is open already: use one for each Scheduler")
        self._affinity, self._soon = Affinity("this SqlBackend"), running_soon()
        self._loop_thread = threading.get_ident()
        self._lanes = {}
        decides = self._table.clock(clock)
        try:
            await self._call(self._table.open, worker, decides.now)
        except BaseException as error:
            # Cancelled, it is still at it, and hangs maybe.
            await self._shut(LINGER if isinstance(error, Exception) else WIND_UP)
            raise
        self._clock = decides
        self._buried = monotonic_seconds()
        _OPEN.add(self)
        return decides

    async def close(self) -> None:
        if self._lanes is None or not self._affinity.is_of_this_process:
            return
        self._affinity.check()
        _OPEN.discard(self)
        try:
            failure = await self._shut(LINGER)
        finally:
            self._clock = None
            self._alarm.nudge()
        if failure is not None:
            raise failure

    async def _shut(self, patience: float) -> BaseException | None:
        """Disconnect within a bounded time, whatever the store does; return what went wrong.

        Args:
            patience: Seconds for calls under way, then for closing, then for what was cut off.
        """
        closing = self._lane(self._table.close)
        lanes, self._lanes = self._lanes or {}, None
        with anyio.CancelScope(shield=True):
            idle = [calls.post(_nothing) for calls in lanes.values()]
            with anyio.move_on_after(patience):
                for each in idle:
                    await each.ended.wait()
            await self._table.leave()
            if not all(each.ended.is_set() for each in idle):
                self._table.cut_off()
            closed = closing.post(functools.partial(self._translated, self._table.close, ()))
            with anyio.move_on_after(patience) as waiting:
                await closed.ended.wait()
            if waiting.cancelled_caught:
                self._table.cut_off()
                with anyio.move_on_after(patience):
                    await closed.ended.wait()
        for calls in lanes.values():
            calls.end()
        if not closed.ended.is_set():
            logger.warning("the store does not answer: it is left without being closed")
        return closed.error

    def forked(self) -> None:
        """Let go of the parent's locks; called in a forked child."""
        self._table.forked()

    async def check(self) -> None:
        await self._call(self._table.check)

    # -- probes

    async def due_since(self) -> datetime | None:
        return await self._call(self._table.due_since, self._now)

    async def live_workers(self) -> Sequence[str] | None:
        return await self._call(self._table.live_workers)

    # -- definitions

    async def add(self, jobs: Sequence[Job]) -> Sequence[Job]:
        added = await self._call(self._table.add, jobs)
        self._nudge(added)
        return added

    async def get(self, job_id: str) -> Job | Undecodable | None:
        return await self._call(self._table.get, job_id)

    async def replace(self, job: Job, executions: Sequence[Execution] = ()) -> Job:
        replaced = await self._call(self._table.replace, job, executions)
        self._nudge([replaced])
        return replaced

    async def remove(self, job: Job, executions: Sequence[Execution] = ()) -> None:
        await self._call(self._table.remove, job, executions)

    async def jobs(
        self, query: JobQuery, *, after: str | None, limit: int
    ) -> Page[Job | Undecodable]:
        return await self._call(self._table.jobs, query, after, limit)

    # -- transactions of others

    def within(self, connection: object) -> JobStore:
        """Return definitions inside a transaction of the caller's; see ``ports.Transactional``."""
        return self._table.within(connection)

    def transaction(
        self,
        claim: Claim,
        decide: Callable[[Job | None], Settlement],
        committed: Callable[[Settlement], None],
    ) -> Transaction:
        """Return a transaction that ends with a settlement; see ``ports.Transactional``."""
        self._affinity.check_process()

        def done(settlement: Settlement) -> None:
            committed(settlement)
            if threading.get_ident() == self._loop_thread:
                self._after([settlement])
                return
            try:
                if self._soon is not None:
                    self._soon(functools.partial(self._after, [settlement]))
            except RuntimeError:
                pass  # the loop has ended: nobody sleeps there

        return self._table.transaction(claim, decide, done)

    # -- waking up

    def _nudge(self, jobs: Sequence[Job]) -> None:
        """Wake the sleeper if one of the jobs is due before it would wake by itself."""
        until = self._sleeps_until
        for job in jobs:
            due_at = job.standing.due_at
            if due_at is not None and (until is None or due_at < until):
                self._alarm.nudge()
                return

    async def wait_due(self, room: Room) -> None:
        now, clock = self._now(), self._clock
        seen, horizon = self._alarm.count, now + MAX_POLL
        if monotonic_seconds() - self._buried > BURY_EVERY:
            await self._bury()
        # Until it is known how long to sleep, every job that is written counts.
        self._sleeps_until = None
        if self._table.descriptor is None:
            await self._listen()
        earliest = await self._call(self._table.earliest, self._now, horizon)
        until = horizon if earliest is None else min(earliest, horizon)
        until = min(until, self._now() + MAX_POLL)  # the clock may have been set back meanwhile
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
                await self._until_changed()
                freed = monotonic_seconds() - self._buried > BURY_EVERY and await self._bury()
                if await self._call(self._table.changed) or freed:
                    earliest = await self._call(self._table.earliest, self._now, until)
                    if earliest is not None and earliest < until:
                        self._alarm.nudge()
        except SchedError as error:
            failures.append(error)  # as it is, not in the task group's ExceptionGroup
            self._alarm.nudge()

    async def _until_changed(self) -> None:
        """Wait until another connection may have written."""
        descriptor = self._table.descriptor
        if descriptor is None:
            await pause(LOOK_EVERY)
            await self._listen()
            return
        with anyio.move_on_after(self._table.silence()):
            try:
                await anyio.wait_readable(descriptor)
            except (OSError, ValueError, anyio.ClosedResourceError, anyio.BusyResourceError):
                # Closed meanwhile, or another wait listens: what is missed is looked for.
                await pause(LOOK_EVERY)

    async def _listen(self) -> None:
        if self._table.may_listen():
            await self._call(self._table.listen)

    async def _bury(self) -> bool:
        self._buried = monotonic_seconds()
        return await self._call(self._table.free_dead, self._now)

    # -- claims

    async def claim_due(self, room: Room) -> Claimed:
        asked = Asked(room.limit, self._now())
        lane = self._lane(self._table.claim)
        try:
            await self._call(self._table.claim, asked, self._lease, self._now)
            await checkpoint_if_cancelled()
        except BaseException:
            # Behind the claim in its lane, which may go on without its caller, if it was cancelled.
            back = lane.post(functools.partial(self._give_back, asked.claims, self._now))
            with anyio.move_on_after(WIND_UP, shield=True):
                await back.ended.wait()
            raise
        return Claimed(asked.claims, asked.lapsed)

    def _give_back(self, claims: Sequence[Claim], now: Callable[[], datetime]) -> None:
        """Free what was claimed for a caller that does not get it; from the lane's thread."""
        try:
            if claims:
                self._translated(self._table.release, (claims, now))
        except SchedError as error:
            logger.info("claims are left to their leases: %s", error)

    async def renew(self, renewals: Sequence[Renewal]) -> Sequence[Claim]:
        renew, beside = self._table.renew, self._table.beside
        arguments = (renewals, self._lease, self._now)
        if beside is None:
            return await self._call(renew, *arguments)
        patience = (self._lease / 4).total_seconds()
        call = functools.partial(self._translated, renew, arguments)
        try:
            return await self._lane(renew).call_within(call, patience)
        except (TimeoutError, Locked):
            return await self._call(beside, *arguments)

    async def settle(self, settlements: Sequence[Settlement]) -> Sequence[Settled]:
        settled = await self._call(self._table.settle, settlements, self._now)
        self._after(settlements)
        return settled

    def _after(self, settlements: Sequence[Settlement]) -> None:
        """Wake the sleeper if something is due again before it would wake by itself."""
        until = self._sleeps_until
        for settlement in settlements:
            standing = settlement.standing
            # Where it leaves the job alone, only the store knows when that is due.
            due_at = until if standing is None else standing.due_at
            if standing is None or (due_at is not None and (until is None or due_at < until)):
                self._alarm.nudge()
                break

    async def release(self, claims: Sequence[Claim]) -> None:
        await self._call(self._table.release, claims, self._now)
        self._alarm.nudge()

    # -- the history

    async def executions(
        self, query: ExecutionQuery, *, after: str | None, limit: int
    ) -> Page[Execution | UndecodableExecution]:
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


def _nothing() -> None:
    """Wait for one's turn."""


def _refuse(database: str, **options: object) -> None:
    for name, value in options.items():
        if value is not None:
            raise InvalidDefinition(name, f"is no option for {database}")


def _postgres_table(
    where: str,
    *,
    schema: str,
    time: str,
    lease: timedelta,
    timeout: timedelta,
    migrate: bool,
    pooled: bool,
    create: bool,
    handler_connections: int,
) -> Table:
    if time not in {"store", "clock"}:
        raise InvalidDefinition("time", f"must be 'store' or 'clock', not {time!r}")
    check_text("schema", schema)
    if len(schema.encode()) > LONGEST_NAME or schema.startswith("pg_"):
        raise InvalidDefinition(
            "schema", f"must have at most {LONGEST_NAME} bytes and not begin with pg_: {schema!r}"
        )
    _check_duration("timeout", timeout, least=timedelta(milliseconds=100))
    if type(handler_connections) is not int or handler_connections < 1:
        raise InvalidDefinition(
            "handler_connections", f"must be a whole number above 0, not {handler_connections!r}"
        )
    try:
        from sched_sql.postgres import PostgresTable
    except ModuleNotFoundError as error:
        if error.name != "psycopg":
            raise
        raise BackendError(
            "jobs in PostgreSQL need psycopg: pip install 'sched-sql[postgres]'"
        ) from None
    return PostgresTable(
        where,
        schema=schema,
        time="store" if time == "store" else "clock",
        lease=lease,
        timeout=timeout.total_seconds(),
        migrate=migrate,
        pooled=pooled,
        create=create,
        handler_connections=handler_connections,
    )


def _sqlite_table(
    where: str,
    *,
    synchronous: Literal["FULL", "NORMAL"] | None,
    timeout: timedelta,
    create: bool,
) -> Table:
    synchronous = "FULL" if synchronous is None else synchronous
    if synchronous not in {"FULL", "NORMAL"}:
        raise InvalidDefinition("synchronous", f"must be 'FULL' or 'NORMAL', not {synchronous!r}")
    from sched_sql.sqlite import SqliteTable  # as above: nobody needs both

    return SqliteTable(
        _absolute(where),
        synchronous=synchronous,
        timeout=timeout.total_seconds(),
        create=create,
    )


def _absolute(path: str) -> str:
    absolute = Path(path).absolute()
    if os.path.isdir(absolute):  # noqa: PTH112 -- False where it may not be looked at
        raise InvalidDefinition("where", f"{absolute} is a directory: name a file in it")
    return str(absolute)


_OPEN: weakref.WeakSet[SqlBackend] = weakref.WeakSet()


def _in_child() -> None:
    for backend in list(_OPEN):
        backend.forked()


os.register_at_fork(after_in_child=_in_child)
