"""Jobs and their history in one schema of a PostgreSQL database."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import Literal, TypeVar

from psycopg.errors import CheckViolation, UniqueViolation

from sched_core import (
    Claim,
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
from sched_core.clock import FIRST, Clock
from sched_core.errors import StoreNotFound
from sched_core.ports import Transaction
from sched_core.row import WRITTEN
from sched_sql._shared.moments import micros, micros_or_none, moment
from sched_sql._shared.table import ClaimBatch, Now
from sched_sql.postgres import migration, queries
from sched_sql.postgres.announcements import Announcements
from sched_sql.postgres.caller_store import CallerStore
from sched_sql.postgres.claimant import Claimant
from sched_sql.postgres.claims import Claims, micros_of
from sched_sql.postgres.connections import Connections
from sched_sql.postgres.definitions import Definitions
from sched_sql.postgres.executions import CHUNK, Executions
from sched_sql.postgres.failures import translate
from sched_sql.postgres.handler_transaction import HandlerTransaction
from sched_sql.postgres.looks import Looks
from sched_sql.postgres.notifications import Listener
from sched_sql.postgres.partitions import drop_at
from sched_sql.postgres.records import Records
from sched_sql.postgres.server_time import ServerTime
from sched_sql.postgres.session import BUSY
from sched_sql.postgres.settlements import Settler, is_common_run
from sched_sql.postgres.sql import SYNC_COMMIT, Names, Query, Steps

T = TypeVar("T")


class PostgresTable(Looks):
    """Jobs and their history in one schema; see :class:`sched_sql._shared.table.Table`.

    Args:
        where: The address for libpq.
        schema: The schema's name.
        time: Who decides what is due: the server's clock, or the one given to ``open``.
        lease: The time for which a claim lives.
        timeout: Seconds to wait for an answer, and for a lock.
        migrate: Whether to make the schema, and bring it up to date.
        pooled: Whether a pooler may give each transaction another session.
        create: Whether the schema may be missing.
        handler_connections: The most connections for handlers.
    """

    def __init__(
        self,
        where: str,
        *,
        schema: str,
        time: Literal["store", "clock"],
        lease: timedelta,
        timeout: float,
        migrate: bool,
        pooled: bool,
        handler_connections: int,
        create: bool = True,
    ) -> None:
        self._schema, self._migrate, self._create = schema, migrate, create
        self._lease, self._timeout = lease, timeout
        self._connections = Connections(
            where, lease=lease, timeout=timeout, pooled=pooled, handlers=handler_connections
        )
        self._address, self._lanes = self._connections.address, self._connections.lanes
        names = self._names = Names(schema)
        executions = self._executions = Executions(names)
        records = Records(names)
        self._definitions = Definitions(names, executions)
        announce = self._definitions.announce
        self._claims = Claims(names, executions, records, announce)
        self._settler = Settler(names, executions, records, announce)
        self._listening = Listener(self._connections.listening, names, enabled=not pooled)
        self._time = ServerTime(time, self._lanes["edit"], self._stepped)
        super().__init__(names, self._lanes["edit"], self._time)
        self._announcements = Announcements(self._definitions, self._lanes, self._time)
        self._claimant = Claimant(
            self._connections,
            self._claims,
            self._time,
            self._announcements,
            executions.partitions,
            lease,
            self.failure,
        )

    def _stepped(self, by: timedelta) -> None:
        self._claimant.due_index.clock_stepped(by)

    def __str__(self) -> str:
        return f"{self._address}, schema {self._schema}"

    def failure(self, error: Exception) -> Exception:
        return translate(error, str(self._address), self._schema)

    def clock(self, clock: Clock) -> Clock:
        """Return the clock that decides: the given one, or the server's."""
        return self._time.deciding(clock)

    # -- opening

    def open(self, worker: str, now: Now) -> None:
        self._listening.worker = self._announcements.worker = self._worker = worker
        self._claimant.open(worker)
        self._definitions.fixed = fixed = lambda: self._time.fixed(now)
        self._connections.open()
        edit = self._lanes["edit"]
        for _ in range(2):  # the first one also waits for the connection
            self._time.ask()
        found = edit.run(lambda: migration.version(self._names, self._schema))
        if not self._create and not found[0]:
            raise StoreNotFound(f"{self._address}: there is no schema {self._schema} in it")
        if migration.check(self._schema, found, migrate=self._migrate, create=self._create):
            migration.bring_up_to_date(edit, self._names, self._schema, fixed)
        if edit.run(lambda: migration.is_behind(self._names), transaction=False):
            edit.run(lambda: migration.set_forward(self._names, self._schema))
        if self._create:
            seen = micros(now())
            edit.run(lambda: self._executions.partitions.make_usual(seen))
            self._ensure_era()
        if self._time.is_the_servers:
            self._claimant.heartbeat.start(self._lease)

    def cut_off(self) -> None:
        self._connections.cut_off()

    def close(self) -> None:
        self._claimant.heartbeat.stop(BUSY)
        self._listening.close()
        self._connections.close()

    def leave_loop(self) -> None:
        """Close what belongs to the event loop, before :meth:`close`."""
        self._connections.pool.close()

    def forked(self) -> None:
        self._claimant.heartbeat.forget()
        self._listening.forget()
        self._connections.forget()

    def check(self) -> None:
        def steps() -> Steps[None]:
            yield Query(
                f"UPDATE {self._names.meta} SET value = value + 1 WHERE key = 'checks' "  # noqa: S608
                "RETURNING value"
            )

        self._lanes["edit"].run(steps)

    def due_since(self, now: Now) -> datetime | None:
        at = self._time.fixed(now)

        def steps() -> Steps[int | None]:
            ((found,),) = yield Query(self._claims.due_since, {"now": at})
            return None if found is None else int(found)

        found = self._lanes["edit"].run(steps)
        return None if found is None else moment(found)

    # -- definitions

    def _edit(self, steps: Callable[[], Steps[T]]) -> T:
        def durable() -> Steps[T]:
            yield Query(f"SELECT {SYNC_COMMIT}")
            return (yield from steps())

        return self._executions.partitions.retry(lambda: self._lanes["edit"].run(durable))

    def add(self, jobs: Sequence[Job]) -> Sequence[Job]:
        added = self._added_alone(jobs[0]) if len(jobs) == 1 else None
        stored = self._edit(lambda: self._definitions.add(jobs)) if added is None else [added]
        self._claimant.due_index.invalidate()
        return stored

    def _added_alone(self, job: Job) -> Job | None:
        # Nearly every add is of one new job: one exchange with the server instead of five.
        add_one = self._definitions.add_one
        return self._lanes["edit"].run(lambda: add_one(job), transaction=False)

    def get(self, job_id: str) -> Job | Undecodable | None:
        return self._lanes["edit"].run(lambda: self._definitions.get(job_id), transaction=False)

    def replace(self, job: Job, executions: Sequence[Execution]) -> Job:
        replaced = self._edit(lambda: self._definitions.replace(job, executions))
        self._claimant.due_index.invalidate()
        return replaced

    def remove(self, job: Job, executions: Sequence[Execution]) -> None:
        self._edit(lambda: self._definitions.remove(job, executions))
        self._claimant.due_index.invalidate()  # the end of a hold that is left is to be looked for

    def jobs(self, query: JobQuery, after: str | None, limit: int) -> Page[Job | Undecodable]:
        return self._lanes["edit"].run(lambda: queries.jobs(self._names, query, after, limit))

    # -- transactions of others

    def within(self, connection: object) -> JobStore:
        """Return definitions inside a transaction of the caller's."""
        return CallerStore(connection, self._definitions, self._make_room, self.failure)

    def _make_room(self, executions: Sequence[Execution], *, again: bool) -> None:
        """Make the partitions for executions, before others' transactions write them.

        Made inside one, they would be missing for all others until it ends.
        """
        partitions = self._executions.partitions
        if again:
            partitions.forget()
        written = [(micros(one.finished_at), micros_or_none(one.expires_at)) for one in executions]
        if not partitions.has(drop_at(*each) for each in written):
            self._lanes["edit"].run(lambda: partitions.make(written))

    def transaction(
        self,
        claim: Claim,
        decide: Callable[[Job | None], Settlement],
        committed: Callable[[Settlement], None],
    ) -> Transaction:
        """Return a transaction that ends with a settlement."""

        def done(settlement: Settlement) -> None:
            self._claimant.drop([claim])
            committed(settlement)
            self._claimant.due_index.settled([settlement])

        lease = max(1, micros_of(self._lease) // 1000)
        return HandlerTransaction(
            self._connections.pool,
            self._settler,
            claim,
            decide,
            done,
            self._definitions.fixed,
            self.failure,
            lease,
            self._timeout,
        )

    # -- what is due

    @property
    def descriptor(self) -> int | None:
        """What becomes readable when another process has written; ``None``: none listens."""
        return self._listening.descriptor

    def silence(self) -> float:
        """Seconds for which the descriptor may stay silent before :meth:`hear` is called."""
        return self._listening.silence()

    def may_listen(self) -> bool:
        """Whether :meth:`listen` is worth a call now."""
        return self._listening.may_start()

    def listen(self) -> None:
        """Listen to other processes, where the server lets it."""
        if self._listening.start():
            self._claimant.due_index.invalidate()
            # What was announced before it listened is looked for.
            self._listening.cancels += self._claimant.has_marked()

    @property
    def news(self) -> int | None:
        """Grows when another process may have written something that is due soon.

        ``None``: this process does not listen, so that nothing is known.
        """
        return None if self._listening.descriptor is None else self._listening.news

    @property
    def cancels(self) -> int:
        """Grows when a claim of this worker may have been marked to be cancelled."""
        return self._listening.cancels

    def hear(self) -> None:
        """Take in what others have announced, where this process listens."""
        if self._listening.descriptor is None:
            self._claimant.due_index.invalidate()
            return
        before = self._listening.news
        self._listening.hear()
        if self._listening.news != before:
            self._claimant.due_index.invalidate()

    def changed(self) -> bool:
        before = self.news
        self.hear()
        return before is None or self.news != before

    # -- claims

    def earliest(self, room: Room, now: Now, horizon: datetime) -> datetime | None:
        return self._claimant.earliest(room, now, horizon)

    def claim(self, batch: ClaimBatch, now: Now) -> None:
        self._claimant.claim(batch, now)
        self._note_claims(batch.claims)

    def renew(self, renewals: Sequence[Renewal], now: Now) -> Sequence[Claim]:
        return self._claimant.renew(renewals, now)

    def release(self, claims: Sequence[Claim], now: Now) -> None:
        self._claimant.release(claims, now)

    def settle(self, settlements: Sequence[Settlement], now: Now) -> Sequence[Settled]:
        lane, settler, at = self._lanes["settle"], self._settler, self._time.fixed(now)
        answers: dict[int, Settled] = {}
        for runs in _by_worker(settlements).values():
            written = self._settle_runs([settlements[index] for index in runs])
            answers |= {runs[index]: WRITTEN for index in written}
            self._announcements.make("settle", (settlements[runs[index]] for index in written))
        rest = [index for index in range(len(settlements)) if index not in answers]
        if rest:
            batch = [settlements[index] for index in rest]
            settled = self._executions.partitions.retry(
                lambda: lane.run(lambda: settler.settle(batch, at))
            )
            answers |= dict(zip(rest, settled, strict=True))
        ended = [
            one.claim
            for index, one in enumerate(settlements)
            if answers[index].outcome in {"written", "claim_lost"}
        ]
        self._claimant.drop(ended)
        self._claimant.due_index.settled(settlements)
        return [answers[index] for index in range(len(settlements))]

    def _settle_runs(self, batch: Sequence[Settlement]) -> set[int]:
        settler, locations = self._settler, self._claims.locations.find
        try:
            return self._lanes["settle"].run(
                lambda: settler.settle_runs(batch, locations), transaction=False
            )
        except UniqueViolation:
            # One of the executions was written or copied by hand: the rules decide about that one,
            # and about the others.
            return set()
        except CheckViolation:
            # A partition is gone: the rules make it again.
            self._executions.partitions.forget()
            return set()

    # -- the history

    def executions(
        self, query: ExecutionQuery, after: str | None, limit: int
    ) -> Page[Execution | UndecodableExecution]:
        return self._lanes["edit"].run(lambda: queries.executions(self._names, query, after, limit))

    def prune(self, before: datetime, now: Now, cursor: int) -> tuple[int, int | None]:
        edit, executions, at = self._lanes["edit"], self._executions, self._time.fixed(now)
        if cursor >= 0:
            deleted, following = 0, None
            if before > FIRST:
                deleted, following = edit.run(lambda: executions.prune_old(micros(before), cursor))
            return deleted, _DROP if following is None else following
        if cursor == _DROP:
            seen = micros(now())
            edit.run(lambda: executions.partitions.make_next(seen))
            self._forget_workers(now())
            return edit.run(lambda: executions.partitions.drop(at)), _EXPIRED
        deleted = edit.run(lambda: executions.prune_expired(at))
        if deleted == CHUNK:
            return deleted, _EXPIRED
        jobs, more = edit.run(lambda: self._claims.prune(at))
        return deleted + jobs, _EXPIRED if more else None


_DROP, _EXPIRED = -1, -2
"""What a prune does once all that finished before is deleted."""


def _by_worker(settlements: Sequence[Settlement]) -> dict[str, list[int]]:
    """Return where the common cases are, by worker; there is hardly ever more than one."""
    found: dict[str, list[int]] = {}
    for index, settlement in enumerate(settlements):
        if is_common_run(settlement):
            found.setdefault(settlement.claim.worker, []).append(index)
    return found
